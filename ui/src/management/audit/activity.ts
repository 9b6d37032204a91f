import type { AuditEntry } from "../types";

export const kinds = ["sign_in", "refused", "admin"] as const;
export type Kind = (typeof kinds)[number];

const groups: Partial<Record<string, Kind>> = {
  signed_in: "sign_in",
  logged_out: "sign_in",
  registered: "sign_in",
  joined: "sign_in",
  sign_in_failed: "refused",
  locked_out: "refused",
  banned: "refused",
  refused: "refused",
};

/** Whatever is neither a sign-in nor a refusal is an act of an administrator. */
export function kindOf(event: string): Kind {
  return groups[event] ?? "admin";
}

export function matches(entry: AuditEntry, search: string, kind: Kind | "all"): boolean {
  if (kind !== "all" && kindOf(entry.event) !== kind) return false;
  const wanted = search.trim().toLowerCase();
  return [entry.user, entry.address, entry.detail, entry.event].some((text) =>
    (text ?? "").toLowerCase().includes(wanted),
  );
}
