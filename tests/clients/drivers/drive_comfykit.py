import urllib.request

from comfykit import ComfyKit
from driver import TOKEN, URL, WAY, headers, run_async

credential = {
    "bearer": {"api_key": TOKEN, "executor_type": "http"},
    "cookie": {"cookies": f"jwt_token={TOKEN}", "executor_type": "websocket"},
    "connect": {"executor_type": "websocket"},
}[WAY]
client = ComfyKit(comfyui_url=URL, **credential)


async def make(graph):
    result = await client.execute_json(graph)
    assert result.status == "completed", result
    # It gives addresses, and leaves the reading to its user.
    request = urllib.request.Request(result.images[0], headers=headers())
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read()


run_async(make)
