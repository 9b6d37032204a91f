import { afterEach, expect, test } from "vitest";
import { clock, duration, relative } from "./format";
import { setLanguage } from "./language.svelte";

afterEach(() => {
  setLanguage("en");
});

test("a countdown reads like a clock", () => {
  expect(clock(60)).toBe("1:00");
  expect(clock(0)).toBe("0:00");
  expect(clock(-3)).toBe("0:00");
  expect(clock(299.9)).toBe("4:59");
  expect(clock(3723)).toBe("1:02:03");
});

test("a duration is spelled out in the language of the page", () => {
  setLanguage("en");
  expect(duration(60)).toBe("1 minute");
  expect(duration(90)).toBe("1 minute, 30 seconds");
  expect(duration(0)).toBe("0 seconds");
  setLanguage("de");
  expect(duration(300)).toBe("5 Minuten");
  setLanguage("zh");
  expect(duration(8)).toBe("8秒钟");
});

test("distances in time are rounded to what people say", () => {
  setLanguage("en");
  const now = Date.parse("2026-05-01T12:00:00Z");
  expect(relative("2026-05-01T11:59:50Z", now)).toBe("now");
  expect(relative("2026-05-01T10:00:00Z", now)).toBe("2 hours ago");
  expect(relative("2026-04-30T12:00:00Z", now)).toBe("yesterday");
  expect(relative("2026-05-31T12:00:00Z", now)).toBe("in 30 days");
});
