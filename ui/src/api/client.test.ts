import { afterEach, describe as group, expect, test, vi } from "vitest";
import { commandEngine, endSession, gatewayNow, signIn } from "./client";
import { describe } from "./failure";

function answer(
  status: number,
  body: string,
  headers: Record<string, string> = {},
): ReturnType<typeof vi.fn> {
  const fetched = vi.fn(() =>
    Promise.resolve(new Response(status === 204 ? null : body, { status, headers })),
  );
  vi.stubGlobal("fetch", fetched);
  return fetched;
}

afterEach(() => {
  vi.unstubAllGlobals();
});

group("an answer of the gateway", () => {
  test("carries its value when it is one of success", async () => {
    answer(200, '{"message":"Welcome","jwt_token":"abc"}');
    const result = await signIn("mara", "secret");
    expect(result).toEqual({ kind: "ok", value: { message: "Welcome", jwt_token: "abc" } });
  });

  test("may be empty", async () => {
    answer(204, "");
    expect((await endSession("7")).kind).toBe("ok");
  });

  test("of a lock-out carries the remaining time", async () => {
    answer(403, '{"error":"Locked","code":"locked_out","failed_attempts":3,"remaining_seconds":90}');
    const result = await signIn("mara", "secret");
    expect(result).toEqual({
      kind: "failed",
      failure: { code: "locked_out", message: "Locked", status: 403, remainingSeconds: 90 },
    });
    expect(result.kind === "failed" && describe(result.failure)).toContain("1 minute, 30 seconds");
  });

  test("that is no JSON is unexpected rather than an exception", async () => {
    answer(502, "<html>Bad Gateway</html>");
    const result = await signIn("mara", "secret");
    expect(result).toEqual({ kind: "failed", failure: { code: "unexpected", message: "", status: 502 } });
  });

  test("that never comes is told apart", async () => {
    vi.stubGlobal(
      "fetch",
      vi.fn(() => Promise.reject(new TypeError("failed"))),
    );
    const result = await signIn("mara", "secret");
    expect(result.kind === "failed" && result.failure.code).toBe("unreachable");
  });

  test("corrects a clock that is off, and leaves one that agrees", async () => {
    answer(204, "", { Date: new Date(Date.now() + 3_600_000).toUTCString() });
    await endSession("7");
    expect(gatewayNow() - Date.now()).toBeGreaterThan(3_590_000);
    answer(204, "", { Date: new Date().toUTCString() });
    await endSession("7");
    expect(Math.abs(gatewayNow() - Date.now())).toBeLessThan(50);
  });
});

test("an admin call carries the proof in its header", async () => {
  const fetched = answer(202, "");
  await commandEngine("start", "the-proof");
  expect(fetched).toHaveBeenCalledWith(
    "/sentinel/api/engine/start",
    expect.objectContaining({
      method: "POST",
      headers: expect.objectContaining({ "X-Sentinel-Proof": "the-proof" }) as unknown,
    }),
  );
});

group("the text for a failure", () => {
  test("comes from the catalogue by its code, whatever the gateway's words", () => {
    expect(describe({ code: "username_taken", message: "nope", status: 400 })).toBe(
      "This user name is already taken.",
    );
  });

  test("is the gateway's sentence for a code without one", () => {
    expect(describe({ code: "brand_new", message: "Not on Sundays.", status: 400 })).toBe("Not on Sundays.");
    expect(describe({ code: "brand_new", message: "", status: 400 })).toBe(
      "That did not work. Please try again.",
    );
  });
});
