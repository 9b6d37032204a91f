import { afterEach, expect, test } from "vitest";
import { setLanguage } from "./language.svelte";
import { age, bytes, percent, span } from "./amounts";

afterEach(() => {
  setLanguage("en");
});

test("sizes read as people say them", () => {
  expect(bytes(0)).toBe("0 byte");
  expect(bytes(7_340_000_000)).toBe("7.3 GB");
  expect(bytes(999_600)).toBe("1 MB");
  expect(bytes(12_600_000_000)).toBe("13 GB");
  expect(bytes(-5)).toBe("0 byte");
  setLanguage("de");
  expect(bytes(7_340_000_000)).toBe("7,3\u00a0GB");
});

test("shares and ages", () => {
  expect(percent(41.7)).toBe("42%");
  expect(age(59)).toBe("59 sec");
  expect(age(3 * 3600 + 1800)).toBe("3 hr");
  expect(age(100_000)).toBe("1 day");
  setLanguage("zh");
  expect(age(120)).toBe("2分钟");
});

test("amounts of work have two units at most", () => {
  expect(span(0)).toBe("0 sec");
  expect(span(59)).toBe("59 sec");
  expect(span(60)).toBe("1 min");
  expect(span(3599)).toBe("1 hr");
  expect(span(12_000)).toBe("3 hr 20 min");
  setLanguage("de");
  expect(span(12_000)).toBe("3 Std., 20 Min.");
});
