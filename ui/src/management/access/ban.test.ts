import { expect, test } from "vitest";
import { failedSignIns } from "./ban";

test("Sentinel's own reason is a number, a person's stays a text", () => {
  expect(failedSignIns("25 failed sign-ins")).toBe(25);
  for (const reason of ["", "my neighbour", "after 25 failed sign-ins", "25 failed sign-ins today"]) {
    expect(failedSignIns(reason)).toBeUndefined();
  }
});
