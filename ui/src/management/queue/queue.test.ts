import { describe, expect, test } from "vitest";
import type { QueueHold, QueueJob } from "../types";
import { endOf, stateOf, untilOf } from "./queue";

const job = { id: "j1" } as QueueJob;

function hold(more: Partial<QueueHold> = {}): QueueHold {
  return { reason: "owner", since: "2026-11-25T10:00:00Z", until: null, until_idle: false, ...more };
}

describe("the end of a pause", () => {
  const now = new Date(2026, 11, 31, 23, 30).getTime();

  test.each([
    ["30_minutes", new Date(2027, 0, 1, 0, 0)],
    ["1_hour", new Date(2027, 0, 1, 0, 30)],
    ["2_hours", new Date(2027, 0, 1, 1, 30)],
    ["tomorrow", new Date(2027, 0, 1, 8, 0)],
  ] as const)("%s", (choice, end) => {
    expect(untilOf(choice, now)).toEqual({ until: end.toISOString(), until_idle: false });
  });

  test("is open until it is given back, or until the owner is idle", () => {
    expect(untilOf("given_back", now)).toEqual({ until: null, until_idle: false });
    expect(untilOf("idle", now)).toEqual({ until: null, until_idle: true });
  });

  test("tomorrow is the next day, also shortly after midnight", () => {
    const night = new Date(2026, 10, 25, 0, 5).getTime();
    expect(untilOf("tomorrow", night).until).toBe(new Date(2026, 10, 26, 8).toISOString());
  });

  test("is told as what it is", () => {
    expect(endOf(hold())).toBe("given_back");
    expect(endOf(hold({ until_idle: true }))).toBe("idle");
    expect(endOf(hold({ until: "2026-11-25T18:00:00Z" }))).toBe("until");
    expect(endOf(hold({ reason: "quiet_hours" }))).toBe("unknown");
    expect(endOf(hold({ reason: "other_program", until: "2026-11-25T18:00:00Z" }))).toBe("program_ends");
  });
});

test("a pause that waits for a job is not yet one", () => {
  expect(stateOf({ hold: null, running: [job] })).toBe("open");
  expect(stateOf({ hold: hold(), running: [job] })).toBe("pausing");
  expect(stateOf({ hold: hold(), running: [] })).toBe("owner");
  expect(stateOf({ hold: hold({ reason: "quiet_hours" }), running: [job] })).toBe("quiet_hours");
});
