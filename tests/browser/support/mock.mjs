import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname } from "node:path";
import { fileURLToPath } from "node:url";
import { makeWorld } from "../../../ui/src/management/backend/fake/world.mjs";

const dist = new URL("../../../ui/dist/", import.meta.url);
/** As the gateway sends it, so that a page that needs more fails here too. */
const policy =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; " +
  "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
const types = {
  ".css": "text/css",
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".svg": "image/svg+xml",
};

const certificate = {
  sha256: "3F:9A:1C:77:0E:52:B8:44:D1:6B:90:2E:5D:A7:18:C3:F0:64:8B:29:E5:71:0D:BC:36:9F:42:A8:57:1E:C9:83",
  names: ["comfyui.local", "192.168.1.5"],
  made: true,
};
const invite = { valid: true, expires_at: new Date(Date.now() + 20 * 3_600_000).toISOString(), role: "user" };

const pages = {
  "/sentinel/": ["index.html", { page: "management" }],
  "/sentinel/account": ["account.html", { page: "account" }],
  "/sentinel/gallery": ["gallery.html", { page: "gallery" }],
  "/join": ["sign-in.html", { page: "join", user: null, invite }],
  "/trust": ["sign-in.html", { page: "trust", user: null, certificate }],
  "/login": ["sign-in.html", { page: "login", user: null }],
  "/": ["waiting.html", { page: "waiting" }],
};

/** What the overlay finds in ComfyUI's page: something that fills the window, and the mark of the dark palette. */
const comfyUi = (dark) =>
  `<!doctype html><html lang="en"><head><title>ComfyUI</title></head>
<body${dark ? ' class="dark-theme"' : ""} style="margin:0;height:100vh;background:${dark ? "#202020" : "#f3f3f3"};color:${dark ? "#fff" : "#111"}">
<main style="padding:1rem"><h1>ComfyUI</h1></main>
<script src="/sentinel/assets/overlay.js" defer></script></body></html>`;

export const password = "lovelace-1815!";

/**
 * The built pages before a gateway of canned answers. It asks admin calls for a proof as the real one does;
 * `world` are the options of the canned world, `state` goes into the page state, `broken` paths answer 500;
 * `mock.world` and `mock.broken` can be changed later.
 */
export async function startMock({ world: options = {}, state = {}, broken = [] } = {}) {
  const world = makeWorld(options);
  const mock = { calls: [], proof: null, world: world.world, broken: [...broken] };
  const server = createServer((request, response) => {
    void answer(request, response).catch((error) => {
      response.writeHead(500).end(String(error));
    });
  });

  async function answer(request, response) {
    const url = new URL(request.url, "http://mock");
    if (url.pathname.startsWith("/sentinel/assets/")) {
      const file = new URL(`.${url.pathname.slice("/sentinel".length)}`, dist);
      response.writeHead(200, {
        "Content-Type": types[extname(file.pathname)] ?? "application/octet-stream",
      });
      response.end(await readFile(fileURLToPath(file)));
    } else if (url.pathname.startsWith("/sentinel/api/")) {
      const path = url.pathname.slice("/sentinel/api".length) + url.search;
      const text = await bodyOf(request);
      const body = text === "" ? {} : JSON.parse(text);
      mock.calls.push({ method: request.method, path, body });
      const { status, body: value, contentType } = reply(request, path, body);
      response.writeHead(status, { "Content-Type": contentType ?? "application/json" });
      response.end(value === null ? "" : contentType ? value : JSON.stringify(value));
    } else if (url.pathname === "/comfyui") {
      response.writeHead(200, { "Content-Type": types[".html"] });
      response.end(comfyUi(url.searchParams.get("theme") !== "light"));
    } else if (url.pathname === "/join" && request.method === "POST") {
      const body = JSON.parse(await bodyOf(request));
      mock.calls.push({ method: "POST", path: "/join", body });
      const taken = body.username === "ada";
      response.writeHead(taken ? 400 : 200, { "Content-Type": "application/json" });
      response.end(
        JSON.stringify(taken ? { error: "taken", code: "username_taken" } : { message: "Welcome" }),
      );
    } else {
      const [file, ofPage] = pages[url.pathname] ?? pages["/"];
      const whole = {
        first_admin: false,
        setup_code_required: false,
        user: { username: "ada", admin: true },
        next: null,
        message: null,
        management: true,
        version: "0.1.0",
        ...ofPage,
        ...state,
      };
      const content = JSON.stringify(whole).replaceAll("&", "&amp;").replaceAll('"', "&quot;");
      const html = await readFile(new URL(file, dist), "utf8");
      response.writeHead(200, { "Content-Type": types[".html"], "Content-Security-Policy": policy });
      response.end(
        html.replace("<!--sentinel:state-->", `<meta name="sentinel-state" content="${content}">`),
      );
    }
  }

  function reply(request, path, body) {
    if (mock.broken.some((start) => path.startsWith(start)))
      return { status: 500, body: { error: "The disk is full.", code: "internal" } };
    if (path === "/step-up") {
      if (body.password !== password)
        return { status: 401, body: { error: "Wrong password.", code: "wrong_credentials" } };
      mock.proof = `proof-${mock.calls.length}`;
      return { status: 200, body: { proof: mock.proof, expires_in: 600 } };
    }
    const open =
      /^\/(?:me|engine|sessions|tokens)$|^\/gallery|^\/notifications|^\/(?:queue|usage)\/mine/.test(path);
    if (!open && (mock.proof === null || request.headers["x-sentinel-proof"] !== mock.proof))
      return { status: 403, body: { error: "Confirm with your password.", code: "step_up_required" } };
    if (path === "/sessions") return { status: 200, body: { sessions: [] } };
    if (path === "/tokens") return { status: 200, body: { tokens: [] } };
    return world.answer(request.method, path, body);
  }

  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  mock.address = `http://127.0.0.1:${server.address().port}`;
  /** As after ten minutes. */
  mock.expireProof = () => (mock.proof = null);
  mock.callsTo = (method, path) =>
    mock.calls.filter((call) => call.method === method && call.path.startsWith(path));
  mock.stop = () => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  };
  return mock;
}

async function bodyOf(request) {
  const parts = [];
  for await (const part of request) parts.push(part);
  return Buffer.concat(parts).toString();
}
