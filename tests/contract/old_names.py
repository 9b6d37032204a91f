"""Registers an old name for a loader, as packs do that renamed a node. Test only."""

from comfy_api.latest import ComfyExtension, io


class OldNames(ComfyExtension):
    async def on_load(self):
        if not hasattr(io, "NodeReplace"):
            return
        from comfy_api.latest import ComfyAPI

        await ComfyAPI().node_replacement.register(
            io.NodeReplace(
                new_node_id="LoadImage",
                old_node_id="SentinelOldLoad",
                input_mapping=[{"new_id": "image", "old_id": "picture"}],
            )
        )

    async def get_node_list(self):
        return []


async def comfy_entrypoint():
    return OldNames()
