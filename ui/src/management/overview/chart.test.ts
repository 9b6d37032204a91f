import { expect, test } from "vitest";
import { areaPath, ceiling, linePath } from "./chart";

const box = { width: 100, height: 10, top: 100, slots: 3 };

test("the axis ends at the limit, or at a round number above the highest reading", () => {
  expect(ceiling([3, 70], 100)).toBe(100);
  expect(ceiling([3, 70], null)).toBe(100);
  expect(ceiling([3, 0.4], null)).toBe(5);
  expect(ceiling([1.2e9], null)).toBe(2e9);
  expect(ceiling([], null)).toBe(1);
  expect(ceiling([null, 0], null)).toBe(1);
});

test("the newest reading is at the right edge", () => {
  expect(linePath([0, 50, 100], box)).toBe("M0 10L50 5L100 0");
  expect(linePath([50, 100], box)).toBe("M50 5L100 0");
  expect(linePath([], box)).toBe("");
});

test("readings beyond the axis stay inside the box", () => {
  expect(linePath([-20, 400], box)).toBe("M50 10L100 0");
});

test("a missing reading breaks the line, and a broken line has no area", () => {
  const broken = linePath([0, null, 100], box);
  expect(broken).toBe("M0 10M100 0");
  expect(areaPath(broken, 10)).toBe("");
  expect(areaPath(linePath([0, 50, 100], box), 10)).toBe("M0 10L50 5L100 0L100 10L0 10Z");
  expect(areaPath("", 10)).toBe("");
});
