from comfy_api_simplified import ComfyApiWrapper, ComfyWorkflowWrapper
from driver import TOKEN, URL, USER, WAY, run

credential = {"user": USER, "password": TOKEN} if WAY == "basic" else {}
client = ComfyApiWrapper(URL, **credential)


def make(graph):
    pictures = client.queue_and_wait_images(ComfyWorkflowWrapper(graph), "Save Image")
    return next(iter(pictures.values()))


run(make)
