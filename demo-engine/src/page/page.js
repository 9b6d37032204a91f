"use strict";

const element = (id) => document.getElementById(id);
const clientId = crypto.randomUUID ? crypto.randomUUID() : String(Math.random()).slice(2);
let picture = null;
let running = null;

const say = (text) => {
  element("message").textContent = text;
};

const show = (address, text) => {
  if (picture) URL.revokeObjectURL(picture);
  picture = address.startsWith("blob:") ? address : null;
  element("picture").src = address;
  element("picture").alt = text;
};

const address = (file) => "api/view?" + new URLSearchParams(file);

function workflow() {
  const number = (id) => Number(element(id).value);
  return {
    1: {
      class_type: "DemoImage",
      inputs: { text: element("text").value, width: number("width"), height: number("height"), seed: number("seed"), steps: number("steps") },
    },
    2: { class_type: "SaveImage", inputs: { images: ["1", 0], filename_prefix: "demo" } },
  };
}

async function make(event) {
  event.preventDefault();
  if (element("vary").checked) element("seed").value = crypto.getRandomValues(new Uint32Array(1))[0];
  say("Sending …");
  try {
    const answer = await fetch("api/prompt", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ prompt: workflow(), client_id: clientId }),
    });
    const body = await answer.json();
    if (!answer.ok) throw new Error(body.error?.message ?? body.error ?? answer.statusText);
    say("Waiting for its turn.");
  } catch (error) {
    say("It was not taken: " + error.message);
  }
}

async function stop() {
  await fetch("api/interrupt", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ prompt_id: running }),
  });
}

function hear({ type, data }) {
  if (type === "status") {
    const waiting = data.status.exec_info.queue_remaining;
    element("queue").textContent = waiting ? `${waiting} in the queue` : "";
  } else if (type === "execution_start") {
    running = data.prompt_id;
    element("stop").disabled = false;
    say("Painting …");
  } else if (type === "progress") {
    element("progress").max = data.max;
    element("progress").value = data.value;
    say(`Step ${data.value} of ${data.max}`);
  } else if (type === "executed") {
    for (const file of data.output.images ?? []) show(address(file), element("text").value);
    say("Done.");
    list();
  } else if (type === "execution_error") {
    say("It failed: " + data.exception_message);
  } else if (type === "execution_interrupted") {
    say("Stopped.");
  } else if (type === "executing" && data.node === null) {
    element("stop").disabled = true;
    element("progress").value = 0;
  }
}

function seePreview(frame) {
  const view = new DataView(frame);
  const kind = view.getUint32(0);
  if (kind !== 1 && kind !== 4) return;
  const start = kind === 1 ? 8 : 8 + view.getUint32(4);
  show(URL.createObjectURL(new Blob([frame.slice(start)])), "Preview");
}

function connect() {
  const base = new URL("ws", location.href);
  base.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  base.searchParams.set("clientId", clientId);
  const socket = new WebSocket(base);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => socket.send(JSON.stringify({ type: "feature_flags", data: { supports_preview_metadata: true } }));
  socket.onmessage = ({ data }) => (typeof data === "string" ? hear(JSON.parse(data)) : seePreview(data));
  socket.onclose = () => setTimeout(connect, 1000);
}

async function list() {
  const answer = await fetch("api/history?max_items=24");
  if (!answer.ok) return;
  const entries = Object.values(await answer.json()).reverse();
  const files = entries.flatMap((entry) => Object.values(entry.outputs).flatMap((output) => output.images ?? []));
  element("list").replaceChildren(
    ...files.map((file) => {
      const link = document.createElement("a");
      link.href = address(file);
      link.target = "_blank";
      const image = document.createElement("img");
      image.src = address({ ...file, preview: "jpeg;80" });
      image.alt = "";
      image.loading = "lazy";
      link.append(image, file.filename);
      const item = document.createElement("li");
      item.append(link);
      return item;
    }),
  );
}

element("form").addEventListener("submit", make);
element("stop").addEventListener("click", stop);
connect();
list();
