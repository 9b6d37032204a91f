import { describe, expect, test } from "vitest";
import { badLines, countEntries, isAddressOrRange, listCovers } from "./address-list";

describe("an entry of a list", () => {
  test.each([
    ["192.168.1.5", true],
    ["192.168.1.0/24", true],
    ["0.0.0.0/0", true],
    ["fe80::1", true],
    ["::1", true],
    ["::", true],
    ["2001:db8::/32", true],
    ["1:2:3:4:5:6:7:8", true],
    ["::ffff:10.0.0.1", true],
    ["::ffff:10.0.0.0/120", true],
    ["192.168.1", false],
    ["192.168.1.256", false],
    ["192.168.01.5", false],
    ["192.168.1.0/33", false],
    ["192.168.1.0/", false],
    ["192.168.1.0/24/1", false],
    ["1:2:3:4:5:6:7", false],
    ["1::2::3", false],
    ["1:2:3:4:5:6:7:8:9", false],
    ["fe80::1%eth0", false],
    ["example.org", false],
    ["10.0.0.1-10.0.0.9", false],
  ])("%s", (entry, good) => {
    expect(isAddressOrRange(entry)).toBe(good);
  });
});

test("comments and empty lines are no entries, and the bad lines are named", () => {
  const text = "# home\n\n192.168.1.0/24 # all\n  10.0.0.300\nfe80::/10\nphone\n";
  expect(countEntries(text)).toBe(4);
  expect(badLines(text)).toEqual([
    { line: 4, text: "10.0.0.300" },
    { line: 6, text: "phone" },
  ]);
});

test("an address is found in a range", () => {
  expect(listCovers("192.168.1.0/24", "192.168.1.77")).toBe(true);
  expect(listCovers("192.168.1.0/24", "192.168.2.77")).toBe(false);
  expect(listCovers("10.1.2.3", "10.1.2.3")).toBe(true);
  expect(listCovers("0.0.0.0/0", "8.8.8.8")).toBe(true);
  expect(listCovers("nonsense/99", "8.8.8.8")).toBe(false);
});
