import { CallWrapper, ComfyApi, PromptBuilder } from "@saintno/comfyui-sdk";
import { run, token, url, user, way } from "./driver.mjs";

const credentials =
  way === "basic"
    ? { type: "basic", username: user, password: token }
    : { type: "bearer_token", token };
const client = new ComfyApi(url, undefined, { credentials }).init();
await client.waitForReady();

await run(async (graph) => {
  const builder = new PromptBuilder(graph, [], ["picture"]).setOutputNode("picture", "2");
  const picture = await new Promise((resolve, reject) => {
    new CallWrapper(client, builder)
      .onFinished((data) => resolve(data.picture.images[0]))
      .onFailed(reject)
      .run();
  });
  return (await client.getImage(picture)).arrayBuffer();
});
