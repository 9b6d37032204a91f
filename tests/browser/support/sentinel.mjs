import { spawn } from "node:child_process";
import { copyFile, mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const built = (name) => fileURLToPath(new URL(`../../../target/debug/${name}`, import.meta.url));

/** ComfyUI's own front end; without it the demo engine shows a small page of its own. */
export const frontEnd = process.env.DEMO_ENGINE_FRONT_END;

/** The newest version of it that was tried. */
export const newestFrontEnd = process.env.DEMO_ENGINE_FRONT_END_NEWEST;

/** The real ComfyUI, if one is named. */
export const comfyui = process.env.COMFYUI_DIR && {
  directory: process.env.COMFYUI_DIR,
  python: process.env.COMFYUI_PYTHON,
};

/** A node that takes as long as it is told to; the demo engine has it built in, a real ComfyUI gets it. */
export const slowProbe = fileURLToPath(new URL("../../contract/slow_probe.py", import.meta.url));

export const admin = { username: "ada", password: "lovelace-1815!" };

/**
 * A gateway with a data folder of its own, and the demo engine or this ComfyUI, which finds its own folders
 * there as well, and these nodes; the demo engine shows the front end of that folder. `stop` ends it and removes
 * the folder.
 */
export async function startSentinel(
  settings = [],
  installation = undefined,
  nodes = [],
  page = frontEnd,
) {
  const folder = await mkdtemp(join(tmpdir(), "sentinel-browser-"));
  if (installation) {
    const place = join(folder, "comfyui", "custom_nodes");
    await mkdir(place, { recursive: true });
    for (const node of nodes) await copyFile(node, join(place, basename(node)));
  }
  const child = spawn(
    process.env.SENTINELD ?? built("sentineld"),
    [
      "run",
      ...["--data-dir", folder],
      ...["--listen", "127.0.0.1:0"],
      ...["--comfyui", installation?.directory ?? "demo"],
      ...(installation?.python ? ["--python", installation.python] : []),
      ...(installation
        ? ["--set", `comfyui.args=${JSON.stringify(["--cpu", "--base-directory", join(folder, "comfyui")])}`]
        : []),
      ...settings.flatMap((setting) => ["--set", setting]),
    ],
    {
      env: {
        ...process.env,
        DEMO_ENGINE: process.env.DEMO_ENGINE ?? built("demo-engine"),
        DEMO_ENGINE_FRONT_END: page ?? "",
      },
      stdio: ["ignore", "pipe", "pipe"],
    },
  );
  const ended = new Promise((resolve) => child.once("close", resolve));

  const stop = async () => {
    const force = setTimeout(() => child.kill("SIGKILL"), 10_000);
    if (child.exitCode === null && child.signalCode === null) child.kill("SIGTERM");
    await ended;
    clearTimeout(force);
    await rm(folder, { recursive: true, force: true });
  };

  const output = [];
  createInterface({ input: child.stderr }).on("line", (line) => output.push(line));
  try {
    const address = await new Promise((resolve, reject) => {
      createInterface({ input: child.stdout }).on("line", (line) => {
        output.push(line);
        const ready = /^Sentinel is ready at (http:\S+)/.exec(line);
        if (ready) resolve(ready[1]);
      });
      const fail = (reason) => reject(new Error(`sentineld ${reason}:\n${output.join("\n")}`));
      child.once("error", (error) => fail(`cannot be started (${error.message})`));
      child.once("close", () => fail("ended before it was ready"));
      setTimeout(() => fail("was not ready within 30 s"), 30_000).unref();
    });
    return new Sentinel(address, stop);
  } catch (error) {
    await stop();
    throw error;
  }
}

class Sentinel {
  constructor(address, stop) {
    this.address = address;
    this.stop = stop;
  }

  /** Makes an account by the API: the first one, or one that the first one vouches for. */
  async register(account = admin) {
    const answer = await this.post("/register", {
      new_user_username: account.username,
      new_user_password: account.password,
      ...(account === admin ? {} : { username: admin.username, password: admin.password }),
    });
    if (!answer.ok) throw new Error(`${account.username} was not registered: ${await answer.text()}`);
  }

  /** Signs in by the API, as another device would; gives the session's token. */
  async signIn(account = admin, userAgent = "tests") {
    const answer = await this.post("/login", account, { "User-Agent": userAgent });
    if (!answer.ok) throw new Error(`${account.username} was not signed in: ${await answer.text()}`);
    return (await answer.json()).jwt_token;
  }

  async get(path, token) {
    return fetch(this.address + path, {
      headers: { Accept: "application/json", Authorization: `Bearer ${token}` },
    });
  }

  async post(path, body, headers = {}) {
    return fetch(this.address + path, {
      method: "POST",
      headers: { "Content-Type": "application/json", Accept: "application/json", ...headers },
      body: JSON.stringify(body),
    });
  }

  async untilEngineIsReady(token) {
    for (let attempt = 0; attempt < 300; attempt += 1) {
      const engine = await (await this.get("/sentinel/api/engine", token)).json();
      if (engine.state === "ready") return;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    throw new Error("the engine was not ready within 30 s");
  }
}
