"""What all drivers share: where Sentinel is, by which way in, and the jobs to be done."""

import asyncio
import json
import os
from pathlib import Path

PORT = int(os.environ["PORT"])
HOST = "127.0.0.1"
ADDRESS = f"{HOST}:{PORT}"
URL = f"http://{ADDRESS}"
WAY = os.environ["WAY"]
USER = os.environ["USER_NAME"]
TOKEN = os.environ["TOKEN"]
SAVE_NODE = "2"


def graphs():
    """Each job's number and its graph."""
    for number in range(int(os.environ["JOBS"])):
        yield number, json.loads(Path(f"{number}.json").read_text())


def keep(number, picture):
    """Keeps the picture of a job; it is looked at once the driver has ended."""
    assert isinstance(picture, (bytes, bytearray)), f"no picture but {picture!r}"
    Path(f"{number}.png").write_bytes(picture)


def headers():
    """The credential as a header."""
    return {
        "bearer": {"Authorization": f"Bearer {TOKEN}"},
        "cookie": {"Cookie": f"jwt_token={TOKEN}"},
        "api-key": {"X-API-Key": TOKEN},
        "connect": {},
    }[WAY]


def run(make):
    """Does all jobs by a function from a graph to the bytes of a picture."""
    for number, graph in graphs():
        keep(number, make(graph))


def run_async(make):
    """The same with a coroutine."""

    async def all_jobs():
        for number, graph in graphs():
            keep(number, await make(graph))

    asyncio.run(all_jobs())
