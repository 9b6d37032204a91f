import { expect, test } from "vitest";
import { guessGuide } from "./trust";

test.each([
  ["Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) Safari/604.1", "iphone"],
  ["Mozilla/5.0 (Linux; Android 16; Pixel 9) Chrome/150.0 Mobile", "android"],
  ["Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Safari/605", "macos"],
  ["Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Firefox/140.0", "linux"],
  ["Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/150.0", "windows"],
  ["", "windows"],
])("%s", (userAgent, guide) => {
  expect(guessGuide(userAgent)).toBe(guide);
});
