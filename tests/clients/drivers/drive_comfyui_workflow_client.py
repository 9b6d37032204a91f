from comfyuiclient.client import ComfyUIClient
from driver import ADDRESS, SAVE_NODE, run

client = ComfyUIClient(ADDRESS, "0.json")
client.connect()


def make(graph):
    pictures, _ = client.get_images(graph)
    return pictures[SAVE_NODE][0]


run(make)
