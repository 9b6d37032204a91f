from comfyui_utils.comfy import Callbacks, ComfyAPI
from driver import ADDRESS, run_async

client = ComfyAPI(ADDRESS)


class Wait(Callbacks):
    def __init__(self):
        self.image = None

    async def queue_position(self, position):
        pass

    async def in_progress(self, node_id, progress, total):
        pass

    async def completed(self, outputs, cached):
        self.image = outputs["images"][0]


async def make(graph):
    wait = Wait()
    await client.submit(graph, wait)
    pictures = []

    async def read(file):
        pictures.append(file.read())

    await client.fetch(wait.image, read)
    return pictures[0]


run_async(make)
