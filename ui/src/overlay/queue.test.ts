import { describe, expect, test } from "vitest";
import type { FinishedJob, OwnQueue } from "../api/types";
import {
  Completion,
  concernsQueue,
  delayAfterChange,
  delayFor,
  doneText,
  hasOwnJobs,
  lastText,
  lineFor,
  readQueue,
  shortLine,
} from "./queue";
import { de, en, zh } from "./texts";

const now = new Date(2026, 10, 25, 10, 0).getTime();
const sixOClock = new Date(2026, 10, 25, 18, 0).toISOString();

function queue(more: Partial<OwnQueue> = {}): OwnQueue {
  return {
    hold: null,
    running: [],
    waiting: 0,
    others_waiting: 0,
    next: null,
    last: null,
    finished: [],
    ...more,
  };
}

function hold(more: Partial<NonNullable<OwnQueue["hold"]>> = {}): OwnQueue["hold"] {
  return { reason: "owner", since: sixOClock, until: null, until_idle: false, ...more };
}

function finished(id: string, state: FinishedJob["state"] = "completed"): FinishedJob {
  return { id, state, finished_at: sixOClock, reason: null };
}

const running = [{ id: "r", started_at: sixOClock }];

describe("the line", () => {
  test.each<[string, OwnQueue, string | null]>([
    ["nothing", queue(), null],
    ["only other people's jobs", queue({ others_waiting: 7 }), null],
    ["a running job, which ComfyUI shows itself", queue({ running }), null],
    [
      "waiting jobs",
      queue({ waiting: 2, next: { place: 3, wait_seconds: 240 } }),
      "2 jobs waiting · next is number 3 in line · about 4 min",
    ],
    [
      "one job, without a guess",
      queue({ waiting: 1, next: { place: 1, wait_seconds: null } }),
      "1 job waiting · next is number 1 in line",
    ],
    [
      "the next one",
      queue({ waiting: 1, next: { place: 2, wait_seconds: 0 } }),
      "1 job waiting · next is number 2 in line · less than a minute",
    ],
    ["a pause", queue({ hold: hold() }), "Paused by the owner"],
    ["a pause with an end", queue({ hold: hold({ until: sixOClock }) }), "Paused by the owner until 6:00 PM"],
    [
      "a pause until idle",
      queue({ hold: hold({ until_idle: true }) }),
      "Paused while the owner uses this computer",
    ],
    [
      "quiet hours",
      queue({ hold: hold({ reason: "quiet_hours", until: sixOClock }) }),
      "Quiet hours until 6:00 PM",
    ],
    [
      "GPU minutes that are used up",
      queue({ hold: hold({ reason: "gpu_minutes", until: sixOClock }), waiting: 1 }),
      "Your GPU time is used up until 6:00 PM · 1 job waiting",
    ],
    [
      "another program",
      queue({ hold: hold({ reason: "other_program" }) }),
      "Another program is using the graphics card",
    ],
    [
      "a pause with waiting jobs, whose time nobody knows",
      queue({ hold: hold(), waiting: 1, next: { place: 2, wait_seconds: 60 } }),
      "Paused by the owner · 1 job waiting · next is number 2 in line",
    ],
  ])("of %s", (_name, of, text) => {
    expect(lineFor(of, en, "en", now)).toBe(text);
  });

  test("is in the language of the page", () => {
    const waiting = queue({ waiting: 2, next: { place: 3, wait_seconds: 240 } });
    expect(lineFor(waiting, de, "de", now)).toBe(
      "2 Aufträge warten · der nächste ist Nummer 3 in der Reihe · etwa 4 Min.",
    );
    expect(lineFor(waiting, zh, "zh", now)).toBe("2 个任务等待中 · 下一个排在第 3 位 · 约 4分钟");
    expect(lineFor(null, de, "de", now)).toBeNull();
  });

  test("has a second one for the last of several", () => {
    const last = { place: 9, wait_seconds: 1200 };
    expect(lastText(queue({ waiting: 4, last }), en, "en")).toBe(
      "The last one is number 9 and begins in about 20 min",
    );
    expect(lastText(queue({ waiting: 4, last: { place: 4, wait_seconds: 0 } }), de, "de")).toBe(
      "Der letzte ist Nummer 4 und beginnt in weniger als einer Minute",
    );
    expect(lastText(queue({ waiting: 1, last }), en, "en")).toBeNull();
    expect(lastText(queue({ waiting: 4, last, hold: hold() }), en, "en")).toBeNull();
  });
});

describe("the mark", () => {
  const next = { place: 3, wait_seconds: 240 };
  test.each<[string, OwnQueue | null, { place: string; wait: string }]>([
    ["no answer", null, { place: "", wait: "" }],
    ["nothing", queue({ running }), { place: "", wait: "" }],
    ["a waiting job", queue({ waiting: 1, next }), { place: "#3", wait: "4 min" }],
    [
      "the next one",
      queue({ waiting: 1, next: { place: 1, wait_seconds: 0 } }),
      { place: "#1", wait: "<1 min" },
    ],
    [
      "one without a guess",
      queue({ waiting: 1, next: { place: 1, wait_seconds: null } }),
      { place: "#1", wait: "" },
    ],
    ["a pause", queue({ waiting: 1, next, hold: hold() }), { place: "#3", wait: "" }],
  ])("of %s", (_name, of, short) => {
    expect(shortLine(of, en, "en")).toEqual(short);
  });
});

describe("a request of ComfyUI's page", () => {
  test.each([
    "/prompt",
    "/api/prompt",
    "/queue",
    "/api/queue?x=1",
    "/interrupt",
    "/api/interrupt",
    "/api/jobs",
    "/api/jobs?status=pending",
    "/api/jobs/cancel",
    "/api/jobs/0b1c/cancel",
  ])("to %s is about the queue", (path) => {
    expect(concernsQueue(`https://comfyui.local:8189${path}`)).toBe(true);
  });

  test.each([
    "/api/history",
    "/sentinel/api/queue/mine",
    "/api/jobs/0b1c",
    "/api/queues",
    "/view?filename=/queue",
  ])("to %s is not", (path) => {
    expect(concernsQueue(`https://comfyui.local:8189${path}`)).toBe(false);
  });

  test("is followed at once, but not more often than twice a second", () => {
    expect(delayAfterChange(Infinity)).toBe(50);
    expect(delayAfterChange(3000)).toBe(50);
    expect(delayAfterChange(100)).toBe(400);
  });
});

test("it is asked often while something goes on, and seldom when nobody answers", () => {
  expect(delayFor(queue(), 0)).toBe(15_000);
  expect(delayFor(queue({ running }), 0)).toBe(3000);
  expect(delayFor(queue({ waiting: 1 }), 0)).toBe(3000);
  expect(delayFor(queue({ hold: hold() }), 0)).toBe(3000);
  expect(delayFor(queue({ waiting: 1 }), 1)).toBe(15_000);
  expect(delayFor(null, 20)).toBe(120_000);
  expect(hasOwnJobs(null)).toBe(false);
});

test.each([
  null,
  7,
  "text",
  [],
  {},
  { running: 1, waiting: 2, finished: [] },
  { running: [], waiting: "2", finished: [] },
])("an answer such as %j is none", (value) => {
  expect(readQueue(value)).toBeNull();
});

test("odd parts of an answer are left out", () => {
  expect(
    readQueue({
      running: [null, running[0]],
      waiting: 1,
      finished: [{}],
      hold: { reason: "magic" },
      next: { place: "1" },
    }),
  ).toEqual(queue({ running, waiting: 1 }));
  const whole = queue({
    running,
    waiting: 1,
    hold: hold(),
    next: { place: 1, wait_seconds: 4 },
    finished: [finished("a")],
  });
  expect(readQueue(JSON.parse(JSON.stringify(whole)))).toEqual(whole);
});

describe("being done", () => {
  test("is told once, when the last job has ended", () => {
    const completion = new Completion();
    expect(completion.follow(queue({ waiting: 1, running, finished: [finished("old")] }))).toBeNull();
    expect(completion.follow(queue({ running, finished: [finished("a"), finished("old")] }))).toBeNull();
    expect(
      completion.follow(queue({ finished: [finished("b", "failed"), finished("a"), finished("old")] })),
    ).toEqual({
      completed: 1,
      failed: 1,
    });
    expect(completion.follow(queue({ finished: [finished("b", "failed"), finished("a")] }))).toBeNull();
  });

  test("is nothing new for what was done before the page opened", () => {
    const completion = new Completion();
    expect(completion.follow(queue({ finished: [finished("a")] }))).toBeNull();
    expect(completion.follow(queue({ finished: [finished("a")] }))).toBeNull();
  });

  test("holds for a job too short to be seen running", () => {
    const completion = new Completion();
    completion.follow(queue());
    expect(completion.follow(queue({ finished: [finished("a")] }))).toEqual({ completed: 1, failed: 0 });
  });

  test("is not told to whoever has cancelled everything", () => {
    const completion = new Completion();
    completion.follow(queue({ waiting: 1 }));
    expect(completion.follow(queue({ finished: [finished("a", "cancelled")] }))).toBeNull();
  });

  test("is said as it is", () => {
    expect(doneText({ completed: 1, failed: 0 }, en)).toBe("Your job is finished.");
    expect(doneText({ completed: 3, failed: 0 }, en)).toBe("All 3 jobs are finished.");
    expect(doneText({ completed: 0, failed: 1 }, en)).toBe("Your job has failed.");
    expect(doneText({ completed: 2, failed: 1 }, en)).toBe("Finished: 2. Failed: 1.");
  });
});
