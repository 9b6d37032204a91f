import { describe, expect, test } from "vitest";
import { checkPassword, estimateStrength, isAcceptable } from "./password";

describe("the rules for passwords", () => {
  test.each([
    ["harbour9!", true],
    ["12345678#", true],
    ["Übermut-7x", true],
    ["密码密码密码1！", true],
    ["harbour9", false],
    ["harbour!!", false],
    ["harb 9!xx", false],
    ["h9!", false],
    ["", false],
    [`${"a".repeat(1022)}1!`, true],
    [`${"a".repeat(1023)}1!`, false],
  ])("%j", (password, acceptable) => {
    expect(isAcceptable(password)).toBe(acceptable);
  });

  test("characters are counted as people count them", () => {
    expect(checkPassword("🦊🦊🦊🦊1!").length).toBe(false);
  });

  test("an umlaut is a letter and no special character", () => {
    expect(checkPassword("übermut9").special).toBe(false);
  });
});

describe("the estimate of strength", () => {
  test("grows with length and variety", () => {
    expect(estimateStrength("")).toBe("none");
    expect(estimateStrength("harbour")).toBe("weak");
    expect(estimateStrength("aaaaaa1!")).toBe("weak");
    expect(estimateStrength("Harbour-77")).toBe("fair");
    expect(estimateStrength("Harbour-lights-77")).toBe("strong");
  });

  test("sees through the obvious", () => {
    expect(estimateStrength("Password1234!")).toBe("weak");
    expect(estimateStrength("Mara-loves-7-boats", "mara")).toBe("weak");
  });
});
