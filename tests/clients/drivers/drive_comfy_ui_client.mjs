import { ComfyUIClient } from "comfy-ui-client";
import { host, run } from "./driver.mjs";

const client = new ComfyUIClient(host, `client-${process.pid}`);
await client.connect();

await run(async (graph) => {
  const pictures = await client.getImages(graph);
  return pictures["2"][0].blob.arrayBuffer();
});
