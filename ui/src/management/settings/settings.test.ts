import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { optional } from "../text";
import type { ConfigKey, Setting } from "../types";
import { entriesOf, faultOf, groupNames, groups, isSame, keysOf, nested, valueAt } from "./settings";

function key(kind: ConfigKey["kind"], more: Partial<ConfigKey> = {}): ConfigKey {
  return { path: "some.key", kind, meaning: "", default: "", needs_restart: false, ...more };
}

describe("a value", () => {
  test.each<[ConfigKey, Setting, string | null]>([
    [key("integer", { min: 1, max: 64 }), "8", null],
    [key("integer", { min: 1, max: 64 }), 64, null],
    [key("integer", { min: 1, max: 64 }), "65", "range"],
    [key("integer", { min: 1, max: 64 }), "0", "range"],
    [key("integer"), "", "number"],
    [key("integer"), "1.5", "number"],
    [key("name"), " ", "empty"],
    [key("host_label"), "my-pc", null],
    [key("host_label"), "-pc", "host_label"],
    [key("base_path"), "", null],
    [key("base_path"), "/comfyui/", null],
    [key("base_path"), "comfyui", "base_path"],
    [key("base_path"), "//evil.example", "base_path"],
    [key("url"), "", null],
    [key("url"), "http://127.0.0.1:8188", null],
    [key("url"), "127.0.0.1:8188", "url"],
    [key("networks"), ["10.0.0.0/8", "fe80::1"], null],
    [key("networks"), ["10.0.0.0/40"], "network"],
    [key("host_names"), ["pc.example.org"], null],
    [key("host_names"), ["pc example"], "host_name"],
    [key("texts"), ["anything"], null],
  ])("%j %j", (of, value, fault) => {
    expect(faultOf(of, value)).toBe(fault);
  });
});

test("changes take the shape of the file, and are found again in it", () => {
  const made = nested(
    new Map<string, Setting>([
      ["gpu_slots", 2],
      ["sharing.tls.key", "a.pem"],
      ["sharing.port", 1],
    ]),
  );
  expect(made).toEqual({ gpu_slots: 2, sharing: { tls: { key: "a.pem" }, port: 1 } });
  expect(valueAt(made, "sharing.tls.key")).toBe("a.pem");
  expect(valueAt(made, "sharing.tls.key.more")).toBeUndefined();
  expect(valueAt(made, "nothing.there")).toBeUndefined();
});

test("no key is in two groups, and unknown ones are shown all the same", () => {
  const all: string[] = Object.values(groups).flat();
  expect(new Set(all).size).toBe(all.length);
  const keys = [key("text", { path: "brand.new" }), key("integer", { path: "gpu_slots" })];
  expect(groupNames.flatMap((group) => keysOf(group, keys)).map(({ path }) => path)).toEqual([
    "gpu_slots",
    "brand.new",
  ]);
});

test("every key that the gateway has is in a group", () => {
  const source = readFileSync(new URL("../../../../gateway/src/config/keys.rs", import.meta.url), "utf8");
  const paths = [...source.matchAll(/\bkey\(\s*"([a-z_.]+)",\s*(?:Kind::|LIMIT)/g)].map(
    ([, path = ""]) => path,
  );
  expect(paths.length).toBeGreaterThan(50);
  const known: string[] = Object.values(groups).flat();
  expect(paths.filter((path) => !known.includes(path))).toEqual([]);
});

test("every key of a group has a title and a meaning", () => {
  const paths: string[] = Object.values(groups).flat();
  for (const path of paths) {
    expect(optional(`config.title.${path}`), path).not.toBeNull();
    expect(optional(`config.meaning.${path}`), path).not.toBeNull();
  }
});

test("lists are compared by what is in them", () => {
  expect(isSame(["a"], ["a"])).toBe(true);
  expect(isSame(["a"], ["b"])).toBe(false);
  expect(isSame(1, undefined)).toBe(false);
  expect(entriesOf(" --lowvram \n\n--preview-method auto\n")).toEqual(["--lowvram", "--preview-method auto"]);
});
