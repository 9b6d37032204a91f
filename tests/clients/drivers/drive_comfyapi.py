from pathlib import Path

from comfyapi import ComfyAPIManager
from driver import URL, run

client = ComfyAPIManager()
client.set_base_url(URL)


def make(graph):
    client.workflow = graph
    job = client.submit_workflow()
    client.wait_for_finish(job, poll_interval=0.1, max_wait_time=60)
    address, name = client.find_output(job, with_filename=True)
    client.download_output(address, save_path=".", filename=name)
    return Path(name).read_bytes()


run(make)
