import json
import subprocess
import sys
import urllib.request
from pathlib import Path

from driver import HOST, PORT, run

PROGRAM = Path(sys.executable).with_name("comfy")


def make(graph):
    Path("graph.json").write_text(json.dumps(graph))
    where = ["--host", HOST, "--port", str(PORT)]
    done = subprocess.run(
        [PROGRAM, "--skip-prompt", "--no-enable-telemetry", "run", "--workflow", "graph.json", "--wait", *where],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        timeout=90,
        text=True,
    )
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["ok"], last
    # It gives addresses, and leaves the reading to its user.
    with urllib.request.urlopen(last["data"]["outputs"][0], timeout=30) as answer:
        return answer.read()


run(make)
