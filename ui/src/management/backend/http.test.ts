import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Confirmation } from "./confirmation.svelte";
import { HttpBackend } from "./http";

interface Sent {
  path: string;
  proof: string | undefined;
}

const sent: Sent[] = [];
/** How many calls a proof lasts. */
let validFor = Infinity;

beforeEach(() => {
  sent.length = 0;
  validFor = Infinity;
  let used = 0;
  vi.stubGlobal("fetch", (path: string, init: { headers: Record<string, string>; body?: string }) => {
    const proof = init.headers["X-Sentinel-Proof"];
    sent.push({ path, proof });
    if (path === "/sentinel/api/step-up") {
      const right = init.body?.includes("right") ?? false;
      used = 0;
      return reply(
        right ? 200 : 401,
        right ? { proof: "proven", expires_in: 600 } : { code: "wrong_credentials" },
      );
    }
    used += 1;
    if (proof !== "proven" || used > validFor) return reply(403, { code: "step_up_required" });
    return reply(200, { users: [] });
  });
});

afterEach(() => {
  vi.unstubAllGlobals();
});

function reply(status: number, body: object): Promise<Response> {
  return Promise.resolve(new Response(JSON.stringify(body), { status }));
}

function make(): { backend: HttpBackend; confirmation: Confirmation } {
  const confirmation = new Confirmation();
  return { backend: new HttpBackend(confirmation), confirmation };
}

const asked = (confirmation: Confirmation): Promise<void> =>
  vi.waitFor(() => {
    expect(confirmation.asking).toBe(true);
  });

test("a call that needs a proof is sent again once the password is given", async () => {
  const { backend, confirmation } = make();
  const answer = backend.call("GET", "/users");
  await asked(confirmation);
  expect((await confirmation.confirm("wrong"))?.code).toBe("wrong_credentials");
  expect(confirmation.asking).toBe(true);
  expect(await confirmation.confirm("right")).toBeNull();
  expect(await answer).toEqual({ kind: "ok", value: { users: [] } });
  expect(confirmation.asking).toBe(false);
  expect(sent.filter(({ path }) => path.endsWith("/users")).map(({ proof }) => proof)).toEqual([
    undefined,
    "proven",
  ]);
});

test("calls that wait together are asked about once", async () => {
  const { backend, confirmation } = make();
  const answers = Promise.all([backend.call("GET", "/users"), backend.call("GET", "/config")]);
  await asked(confirmation);
  await confirmation.confirm("right");
  expect((await answers).map(({ kind }) => kind)).toEqual(["ok", "ok"]);
  expect(sent.filter(({ path }) => path.endsWith("step-up"))).toHaveLength(1);
});

test("whoever closes the dialog calls the act off", async () => {
  const { backend, confirmation } = make();
  const answer = backend.call("DELETE", "/users/7");
  await asked(confirmation);
  confirmation.cancel();
  expect(await answer).toMatchObject({ kind: "failed", failure: { code: "called_off" } });
});

test("a call in the background never asks, and says that the proof has run out", async () => {
  const { backend, confirmation } = make();
  const answer = await backend.call("GET", "/status", undefined, { background: true });
  expect(answer).toMatchObject({ kind: "failed", failure: { code: "step_up_required" } });
  expect(confirmation.asking).toBe(false);
  expect(confirmation.expired).toBe(true);
});

test("a proof that has run out is asked for anew", async () => {
  const { backend, confirmation } = make();
  validFor = 1;
  const first = backend.call("GET", "/users");
  await asked(confirmation);
  await confirmation.confirm("right");
  await first;
  const second = backend.call("GET", "/users");
  await asked(confirmation);
  await confirmation.confirm("right");
  expect((await second).kind).toBe("ok");
});
