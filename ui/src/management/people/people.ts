import type { Person } from "../types";

export const orders = ["name", "seen", "storage"] as const;
export type Order = (typeof orders)[number];

/** Those whose name holds what is searched for, in the order asked for. */
export function arrange(people: readonly Person[], search: string, order: Order): Person[] {
  const wanted = search.trim().toLowerCase();
  const byName = (left: Person, right: Person): number => left.username.localeCompare(right.username);
  return people
    .filter(({ username }) => username.toLowerCase().includes(wanted))
    .toSorted((left, right) => {
      switch (order) {
        case "name":
          return byName(left, right);
        case "seen":
          return (right.last_seen_at ?? "").localeCompare(left.last_seen_at ?? "") || byName(left, right);
        case "storage":
          return (right.storage_bytes ?? 0) - (left.storage_bytes ?? 0) || byName(left, right);
      }
    });
}
