import aiohttp
from comfyui_async_api_tool import ComfyClient
from driver import URL, headers, run_async


async def make(graph):
    async with aiohttp.ClientSession(headers=headers()) as session:
        client = ComfyClient(session, servers=[URL])
        async for event in client.run(graph, values={}):
            if event["type"] == "image":
                return event["data"]
            assert event["type"] != "error", event
    return None


run_async(make)
