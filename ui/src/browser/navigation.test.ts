import { describe, expect, test } from "vitest";
import { destination } from "./navigation";

const origin = "http://studio.local:8189";

describe("the destination after signing in", () => {
  test.each([
    ["/", "/"],
    ["/sentinel/account", "/sentinel/account"],
    ["/?workflow=a%20b#top", "/?workflow=a%20b#top"],
  ])("%j is followed", (next, path) => {
    expect(destination(next, origin)).toBe(origin + path);
  });

  test.each([
    [null],
    [""],
    ["relative"],
    ["//evil.example"],
    ["/\\evil.example"],
    ["\\\\evil.example"],
    ["/\t/evil.example"],
    ["/\n/evil.example"],
    ["https://evil.example/"],
    ["javascript:alert(1)"],
    ["/login"],
    ["/login?next=/"],
    ["/logout"],
    ["/x/../logout"],
  ])("%j leads to ComfyUI's page instead", (next) => {
    expect(destination(next, origin)).toBe(`${origin}/`);
  });

  test("a path that collapses into two slashes stays on this site", () => {
    expect(new URL(destination("/.//evil.example", origin), origin).origin).toBe(origin);
  });
});
