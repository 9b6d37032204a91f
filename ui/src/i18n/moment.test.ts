import { expect, test } from "vitest";
import { moment, roughly } from "./moment";

test.each([
  [60, "1 min"],
  [89, "1 min"],
  [91, "2 min"],
  [240, "4 min"],
  [3569, "59 min"],
  [3600, "1 hr"],
  [5400, "1.5 hr"],
])("%d seconds are about %s", (seconds, text) => {
  expect(roughly(seconds, "en")).toBe(text);
});

test.each([-3, 0, 1, 59.9])("%d seconds are less than a minute, which has its own words", (seconds) => {
  expect(roughly(seconds, "en")).toBeNull();
});

test("a guess is in the person's language", () => {
  expect(roughly(240, "de")).toBe("4 Min.");
  expect(roughly(240, "zh")).toBe("4分钟");
});

test("a moment is as short as it can be without being mistaken", () => {
  const now = new Date(2026, 10, 25, 10, 0).getTime();
  const at = (...parts: [number, number, number, number]): string =>
    new Date(parts[0], parts[1], parts[2], parts[3]).toISOString();
  expect(moment(at(2026, 10, 25, 18), now, "de")).toBe("18:00");
  expect(moment(at(2026, 10, 26, 8), now, "de")).toBe("Do., 08:00");
  expect(moment(at(2026, 11, 24, 8), now, "de")).toBe("24. Dez., 08:00");
});
