import { expect, test } from "vitest";
import type { LogLine } from "../types";
import { extend, filterLines, gravity, keptLines } from "./log-view";

function line(seq: number, text: string, level?: string): LogLine {
  return { seq, at: "2026-05-01T12:00:00Z", text, ...(level === undefined ? {} : { level }) };
}

test("lines that were there already are not shown twice, and the oldest give way", () => {
  const first = extend([], [line(1, "a"), line(2, "b")]);
  expect(extend(first, [line(2, "b"), line(3, "c")]).map(({ seq }) => seq)).toEqual([1, 2, 3]);
  const many = Array.from({ length: keptLines + 5 }, (_, seq) => line(seq, ""));
  expect(extend([], many)).toHaveLength(keptLines);
});

test("how grave a line is", () => {
  expect(gravity(line(1, "Traceback (most recent call last):"))).toBe("error");
  expect(gravity(line(1, "UserWarning: this is old"))).toBe("info");
  expect(gravity(line(1, "warning: low memory"))).toBe("warning");
  expect(gravity(line(1, "all fine, no terror here"))).toBe("info");
  expect(gravity(line(1, "error in words only", "INFO"))).toBe("info");
  expect(gravity(line(1, "", "WARN"))).toBe("warning");
  expect(gravity(line(1, "", "DEBUG"))).toBe("debug");
});

test("search and level together", () => {
  const lines = [line(1, "got prompt"), line(2, "Error: no prompt"), line(3, "prompt", "DEBUG")];
  const seqs = (list: LogLine[]): number[] => list.map(({ seq }) => seq);
  expect(seqs(filterLines(lines, "PROMPT", "all"))).toEqual([1, 2, 3]);
  expect(seqs(filterLines(lines, "prompt", "info"))).toEqual([1, 2]);
  expect(seqs(filterLines(lines, "", "error"))).toEqual([2]);
  expect(seqs(filterLines(lines, "", "warning"))).toEqual([2]);
});
