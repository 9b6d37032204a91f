import { expect, test } from "vitest";
import type { Person } from "../types";
import { arrange } from "./people";

function person(username: string, last_seen_at: string | null, storage_bytes: number | null): Person {
  return {
    id: username,
    username,
    admin: false,
    disabled: false,
    created_at: null,
    last_seen_at,
    sessions: 0,
    tokens: 0,
    storage_bytes,
  };
}

const people = [
  person("mara", "2026-05-02T10:00:00Z", null),
  person("Ada", null, 7),
  person("linus", "2026-05-03T10:00:00Z", 9),
];
const names = (list: Person[]): string[] => list.map(({ username }) => username);

test("people are found by a part of their name, whatever its case", () => {
  expect(names(arrange(people, " AD", "name"))).toEqual(["Ada"]);
  expect(names(arrange(people, "a", "name"))).toEqual(["Ada", "mara"]);
  expect(arrange(people, "nobody", "name")).toEqual([]);
});

test("people come by name, the latest seen first, or the largest storage first", () => {
  expect(names(arrange(people, "", "name"))).toEqual(["Ada", "linus", "mara"]);
  expect(names(arrange(people, "", "seen"))).toEqual(["linus", "mara", "Ada"]);
  expect(names(arrange(people, "", "storage"))).toEqual(["linus", "Ada", "mara"]);
});
