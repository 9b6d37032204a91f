import { expect, test } from "vitest";
import { baseOf, pathAt } from "./addresses";

test.each([
  ['{"base":"/ai"}', null, "/ai"],
  ['{"base":""}', "http://pc/ai/sentinel/assets/overlay.js", ""],
  ["{}", null, ""],
  ["not JSON", null, ""],
  ['{"base":7}', null, ""],
  [null, "http://pc:8189/sentinel/assets/overlay.js", ""],
  [null, "https://pc/a/b/sentinel/assets/overlay.js?x", "/a/b"],
  [null, "https://pc/other.js", ""],
  [null, "", ""],
  [null, null, ""],
])("what stands before paths: %j %j", (state, script, base) => {
  expect(baseOf(state, script)).toBe(base);
});

test.each([
  ["/ai/login", "/ai", "/login"],
  ["/aix/login", "/ai", "/aix/login"],
  ["/login", "", "/login"],
])("the path of ours at %s below %j is %s", (address, base, path) => {
  expect(pathAt(address, base)).toBe(path);
});
