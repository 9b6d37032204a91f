"""A slow node for the real ComfyUI, as the recordings used one: reports steps, sends previews, fails on demand."""

import time

import torch
from PIL import Image

from comfy.utils import ProgressBar
from server import PromptServer


class SlowProbe:
    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "seconds": ("FLOAT", {"default": 2.0, "min": 0.0, "max": 600.0}),
                "steps": ("INT", {"default": 10, "min": 1, "max": 1000}),
                "preview": (["none", "JPEG", "PNG"],),
                "tag": ("STRING", {"default": ""}),
                "fail": ("BOOLEAN", {"default": False}),
            },
            "hidden": {"unique_id": "UNIQUE_ID"},
        }

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "probe"

    def run(self, seconds, steps, preview, tag, fail, unique_id):
        if tag.startswith("text:"):
            server = PromptServer.instance
            server.send_progress_text(tag[len("text:") :], unique_id, server.client_id)
        bar = ProgressBar(steps, node_id=unique_id)
        for step in range(steps):
            time.sleep(seconds / steps)
            frame = None
            if preview != "none":
                frame = (preview, Image.new("RGB", (32, 32), (step * 8 % 256, 80, 160)), None)
            bar.update_absolute(step + 1, steps, frame)
        if fail:
            raise RuntimeError(f"probe probe failed on purpose: {tag}")
        return (torch.zeros((1, 32, 32, 3)),)


NODE_CLASS_MAPPINGS = {"SlowProbe": SlowProbe}
NODE_DISPLAY_NAME_MAPPINGS = {"SlowProbe": "Slow probe"}
