import { expect, test } from "vitest";
import type { Usage, UserUsageDay } from "../types";
import { chartOf, totalsOf } from "./usage";

function row(day: string, user: string, gpu: number, more: Partial<UserUsageDay> = {}): UserUsageDay {
  return {
    day,
    user_id: user,
    username: `name of ${user}`,
    gpu_seconds: gpu,
    jobs: 1,
    failed: 0,
    waiting_seconds: 0,
    ...more,
  };
}

const usage: Usage = {
  days: [
    row("2026-11-24", "a", 10, { waiting_seconds: 30 }),
    row("2026-11-25", "a", 20, { jobs: 2, failed: 1, waiting_seconds: 30 }),
    row("2026-11-25", "b", 500),
  ],
  storage: [
    { user_id: "a", username: "name of a", bytes: 7 },
    { user_id: "c", username: "name of c", bytes: 9 },
  ],
};

test("everybody who works or keeps files has a row", () => {
  expect(totalsOf(usage)).toEqual([
    { id: "b", name: "name of b", gpuSeconds: 500, jobs: 1, failed: 0, averageWait: 0, bytes: null },
    { id: "a", name: "name of a", gpuSeconds: 30, jobs: 3, failed: 1, averageWait: 20, bytes: 7 },
    { id: "c", name: "name of c", gpuSeconds: 0, jobs: 0, failed: 0, averageWait: null, bytes: 9 },
  ]);
});

test("each day has a bar, in the order of the totals", () => {
  expect(chartOf(usage, ["2026-11-23", "2026-11-24", "2026-11-25"], "others")).toEqual({
    series: ["name of b", "name of a"],
    bars: [
      { day: "2026-11-23", values: [0, 0] },
      { day: "2026-11-24", values: [0, 10] },
      { day: "2026-11-25", values: [500, 20] },
    ],
  });
});

test("many people are told apart as far as colours go, and nobody's work is lost", () => {
  const day = "2026-11-25";
  const crowd = (count: number): Usage => ({
    days: Array.from({ length: count }, (_, index) => row(day, `u${index}`, 100 - index)),
    storage: [],
  });
  expect(chartOf(crowd(6), [day], "others").series).toHaveLength(6);
  expect(chartOf(crowd(6), [day], "others").series).not.toContain("others");
  const { series, bars } = chartOf(crowd(8), [day], "others");
  expect(series).toHaveLength(6);
  expect(series.at(-1)).toBe("others");
  expect(bars[0]?.values.at(-1)).toBe(95 + 94 + 93);
});
