from autograph import ApiFlow
from driver import URL, run


def make(graph):
    result = ApiFlow(graph).submit(server_url=URL, wait=True)
    return result.fetch_images(include_bytes=True)[0]["bytes"]


run(make)
