/** What the owner may choose, and how the line is told; without the page. */
import type { Queue, QueueHold, QueuePause } from "../types";

/** Until when the graphics card is kept from the others. */
export const untilChoices = ["given_back", "30_minutes", "1_hour", "2_hours", "tomorrow", "idle"] as const;
export type Until = (typeof untilChoices)[number];

const minute = 60_000;
const minutes: Partial<Record<Until, number>> = { "30_minutes": 30, "1_hour": 60, "2_hours": 120 };

/** The end of a pause in the gateway's words; `tomorrow` is eight o'clock where the person is. */
export function untilOf(choice: Until, now: number): Pick<QueuePause, "until" | "until_idle"> {
  if (choice === "idle") return { until: null, until_idle: true };
  if (choice === "given_back") return { until: null, until_idle: false };
  return {
    until: new Date(
      choice === "tomorrow" ? tomorrowAtEight(now) : now + (minutes[choice] ?? 0) * minute,
    ).toISOString(),
    until_idle: false,
  };
}

function tomorrowAtEight(now: number): number {
  const date = new Date(now);
  return new Date(date.getFullYear(), date.getMonth(), date.getDate() + 1, 8).getTime();
}

export type QueueState = "open" | "pausing" | "owner" | "quiet_hours" | "other_program";

/** The one thing to say first: who has the graphics card. */
export function stateOf(queue: Pick<Queue, "hold" | "running">): QueueState {
  if (queue.hold === null) return "open";
  if (queue.hold.reason !== "owner") return queue.hold.reason;
  return queue.running.length > 0 ? "pausing" : "owner";
}

export type HoldEnd = "until" | "idle" | "given_back" | "program_ends" | "unknown";

/** What ends a pause. */
export function endOf(hold: QueueHold): HoldEnd {
  if (hold.reason === "other_program") return "program_ends";
  if (hold.until !== null) return "until";
  if (hold.until_idle) return "idle";
  return hold.reason === "owner" ? "given_back" : "unknown";
}
