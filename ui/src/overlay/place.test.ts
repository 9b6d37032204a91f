import { expect, test } from "vitest";
import { defaultPlace, margin, middleOf, parsePlace, placeAt } from "./place";

test("a dragged button sticks to the nearer edge and stays clear of ComfyUI's bars", () => {
  expect(placeAt(10, 400, 1000, 800).side).toBe("left");
  expect(placeAt(900, 400, 1000, 800)).toEqual({ side: "right", height: 0.5 });
  expect(middleOf(placeAt(900, -50, 1000, 800), 800)).toBe(margin);
  expect(middleOf(placeAt(900, 5000, 1000, 800), 800)).toBe(800 - margin);
});

test("it keeps its share of the height when the window changes", () => {
  const place = placeAt(900, 400, 1000, 800);
  expect(middleOf(place, 400)).toBe(200);
  expect(middleOf(place, 20)).toBeGreaterThan(0);
});

test.each([
  [null],
  [""],
  ["nonsense"],
  ["7"],
  ["null"],
  ['{"side":"top","height":0.5}'],
  ['{"side":"left","height":"0.5"}'],
  ['{"side":"left"}'],
])("a remembered place of %j falls back to the usual one", (stored) => {
  expect(parsePlace(stored)).toEqual(defaultPlace);
});

test("a remembered place is brought back into the window", () => {
  expect(parsePlace('{"side":"left","height":7}')).toEqual({ side: "left", height: 1 });
  expect(parsePlace('{"side":"left","height":0.25}')).toEqual({ side: "left", height: 0.25 });
});
