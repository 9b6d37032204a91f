from comfy_toolkit import ComfyClient
from driver import URL, run

client = ComfyClient(URL)


def make(graph):
    job = client.submit(graph)
    return client.download(client.wait_for_images(job, poll_interval=0.1)[0])


run(make)
