from comfyui_xy import ComfyUiClient
from driver import ADDRESS, TOKEN, USER, WAY, run

credential = f"{USER}:{TOKEN}@" if WAY == "basic" else ""
client = ComfyUiClient(f"http://{credential}{ADDRESS}", raise_on_error=True)


def make(graph):
    return client.process_workflow(graph)[0].data


run(make)
