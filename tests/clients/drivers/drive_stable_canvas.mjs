import { Client } from "@stable-canvas/comfyui-client";
import WebSocket from "ws";
import { headers, host, run } from "./driver.mjs";

class SignedInSocket extends WebSocket {
  constructor(address, protocols) {
    super(address, protocols, { headers });
  }
}

const client = new Client({
  api_host: host,
  WebSocket: SignedInSocket,
  fetch: (address, options = {}) =>
    fetch(address, { ...options, headers: { ...options.headers, ...headers } }),
});
await client.connect();

await run(async (graph) => {
  const result = await client.enqueue(graph, {});
  const picture = result.images[0];
  if (picture.type === "buff") return picture.data;
  const answer = await fetch(picture.data, { headers });
  return answer.arrayBuffer();
});
