import { expect, test } from "vitest";
import { axisEnd, blocksOf, dayOf, daysUntil } from "./bars";

const bar = (...values: number[]): { day: string; values: number[] } => ({ day: "2026-11-25", values });
const box = { count: 4, width: 40, height: 100, top: 200 };

test("the axis ends at a plain amount of time above the highest bar", () => {
  expect(axisEnd([])).toBe(60);
  expect(axisEnd([bar(30, 20)])).toBe(60);
  expect(axisEnd([bar(61)])).toBe(120);
  expect(axisEnd([bar(3601), bar(10)])).toBe(5400);
  expect(axisEnd([bar(3600)])).toBe(3600);
  expect(axisEnd([bar(100 * 3600)])).toBe(120 * 3600);
});

test("days without work have their place, across the end of a month and the change of clocks", () => {
  expect(daysUntil("2026-03-01", 3)).toEqual(["2026-02-27", "2026-02-28", "2026-03-01"]);
  expect(daysUntil("2026-10-26", 3)).toEqual(["2026-10-24", "2026-10-25", "2026-10-26"]);
  expect(daysUntil("2026-11-25", 90)).toHaveLength(90);
  expect(dayOf(new Date(2026, 0, 5, 23, 59).getTime())).toBe("2026-01-05");
});

test("blocks stand on each other and leave out who did nothing", () => {
  expect(blocksOf(bar(50, 0, 100), 1, box)).toEqual([
    { series: 0, x: 11.4, y: 75, width: 7.2, height: 25 },
    { series: 2, x: 11.4, y: 25, width: 7.2, height: 50 },
  ]);
  expect(blocksOf(bar(0, Number.NaN), 0, box)).toEqual([]);
});

test("a little work is seen", () => {
  expect(blocksOf(bar(0.001), 0, box)[0]).toMatchObject({ y: 99, height: 1 });
});
