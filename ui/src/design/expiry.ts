import type { MessageKey } from "../i18n";

/** The lifetimes offered for an API token. */
export const expiryChoices = [
  { hours: 24, label: "token.expiry.day" },
  { hours: 7 * 24, label: "token.expiry.week" },
  { hours: 30 * 24, label: "token.expiry.month" },
  { hours: 90 * 24, label: "token.expiry.quarter" },
  { hours: 365 * 24, label: "token.expiry.year" },
] as const satisfies readonly { hours: number; label: MessageKey }[];

export const defaultExpiry = 30 * 24;
