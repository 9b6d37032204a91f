/** What the overlay tells of the queue, as pure functions. */
import type { FinishedJob, OwnHold, OwnQueue, QueuePlace } from "../api/types";
import { moment, roughly } from "../i18n/moment";
import type { OverlayTexts } from "./texts";

/** While something happens that concerns this person. */
export const busyDelay = 3000;
export const idleDelay = 15_000;
const longestDelay = 120_000;
/** Between two questions, however often ComfyUI's page does something. */
export const shortestDelay = 500;
/** What comes together is answered together. */
export const changeDelay = 50;

/** The answer of the gateway, or nothing where it is not one. */
export function readQueue(value: unknown): OwnQueue | null {
  if (!isRecord(value)) return null;
  const { hold, running, waiting, others_waiting: others, next, last, finished } = value;
  if (!Array.isArray(running) || typeof waiting !== "number" || !Array.isArray(finished)) return null;
  return {
    hold: isHold(hold) ? hold : null,
    running: running.filter(isRecord) as unknown as OwnQueue["running"],
    waiting,
    others_waiting: typeof others === "number" ? others : 0,
    next: isPlace(next) ? next : null,
    last: isPlace(last) ? last : null,
    finished: finished.filter(isFinished),
  };
}

export function hasOwnJobs(queue: OwnQueue | null): boolean {
  return queue !== null && queue.running.length + queue.waiting > 0;
}

/** How long to wait before asking again; `failures` is how often in a row there was no answer. */
export function delayFor(queue: OwnQueue | null, failures: number): number {
  if (failures > 0) return Math.min(longestDelay, idleDelay * 2 ** (failures - 1));
  return hasOwnJobs(queue) || queue?.hold ? busyDelay : idleDelay;
}

/** How long to wait when ComfyUI's page has done something, this long after the last question. */
export function delayAfterChange(sinceAsked: number): number {
  return Math.max(changeDelay, shortestDelay - sinceAsked);
}

/** Whether a request to this address looks at or changes jobs that run or wait; with or without `/api`. */
export function concernsQueue(address: string): boolean {
  return /\/(?:prompt|queue|interrupt|jobs|jobs\/cancel|jobs\/[^/]+\/cancel)$/.test(
    address.split(/[?#]/)[0] ?? "",
  );
}

/** One line, or nothing where there is nothing to tell. */
export function lineFor(
  queue: OwnQueue | null,
  texts: OverlayTexts,
  language: string,
  now: number,
): string | null {
  if (queue === null) return null;
  const parts: string[] = [];
  if (queue.hold) parts.push(holdText(queue.hold, texts, language, now));
  if (queue.waiting > 0) {
    parts.push(counted(queue.waiting, texts.waiting_one, texts.waiting_many));
    if (queue.next) parts.push(texts.place.replace("{place}", String(queue.next.place)));
    // In a pause nobody can say when it goes on.
    if (queue.next && queue.next.wait_seconds !== null && !queue.hold)
      parts.push(wait(queue.next.wait_seconds, texts.about, texts.soon, language));
  }
  return parts.length === 0 ? null : parts.join(" · ");
}

/** When the last of several waiting jobs is likely to begin; for the menu, where there is more room. */
export function lastText(queue: OwnQueue | null, texts: OverlayTexts, language: string): string | null {
  if (!queue?.last || queue.hold || queue.waiting < 2 || queue.last.wait_seconds === null) return null;
  return wait(queue.last.wait_seconds, texts.last, texts.last_soon, language).replace(
    "{place}",
    String(queue.last.place),
  );
}

/** The same in a few letters, for the small mark below the button: "#3" and "4 min". */
export function shortLine(
  queue: OwnQueue | null,
  texts: OverlayTexts,
  language: string,
): { place: string; wait: string } {
  if (!queue?.next || queue.waiting === 0) return { place: "", wait: "" };
  const { place, wait_seconds: seconds } = queue.next;
  return {
    place: `#${place}`,
    wait: seconds === null || queue.hold ? "" : wait(seconds, "{time}", texts.soon_short, language),
  };
}

function wait(seconds: number, about: string, soon: string, language: string): string {
  const time = roughly(seconds, language);
  return time === null ? soon : about.replace("{time}", time);
}

export function holdText(hold: OwnHold, texts: OverlayTexts, language: string, now: number): string {
  const until = hold.until === null ? null : moment(hold.until, now, language);
  if (hold.reason === "other_program") return texts.other_program;
  if (hold.reason === "quiet_hours")
    return until === null ? texts.quiet_hours : texts.quiet_hours_until.replace("{time}", until);
  if (hold.reason === "gpu_minutes")
    return until === null ? texts.gpu_minutes : texts.gpu_minutes_until.replace("{time}", until);
  if (until !== null) return texts.paused_until.replace("{time}", until);
  return hold.until_idle ? texts.paused_idle : texts.paused;
}

/** Remembers which jobs have been told of, and says when all are done. */
export class Completion {
  #seen: Set<string> | null = null;
  #done: FinishedJob[] = [];

  /** What has come to an end since the last time all was done, once nothing runs or waits any more. */
  follow(queue: OwnQueue): { completed: number; failed: number } | null {
    const fresh = queue.finished.filter(({ id }) => this.#seen !== null && !this.#seen.has(id));
    this.#seen ??= new Set();
    for (const { id } of queue.finished) this.#seen.add(id);
    this.#done.push(...fresh);
    if (hasOwnJobs(queue) || this.#done.length === 0) return null;
    const completed = this.#done.filter(({ state }) => state === "completed").length;
    const failed = this.#done.filter(({ state }) => state === "failed").length;
    this.#done = [];
    this.#seen = new Set(queue.finished.map(({ id }) => id));
    // Whoever has cancelled all of them knows it.
    return completed + failed === 0 ? null : { completed, failed };
  }
}

export function doneText(
  { completed, failed }: { completed: number; failed: number },
  texts: OverlayTexts,
): string {
  if (failed === 0) return counted(completed, texts.done_one, texts.done_many);
  if (completed === 0) return counted(failed, texts.failed_one, texts.failed_many);
  return texts.done_mixed.replace("{completed}", String(completed)).replace("{failed}", String(failed));
}

function counted(count: number, one: string, many: string): string {
  return (count === 1 ? one : many).replace("{count}", String(count));
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

function isHold(value: unknown): value is OwnHold {
  if (!isRecord(value)) return false;
  const { reason, until } = value;
  return (
    (reason === "owner" ||
      reason === "quiet_hours" ||
      reason === "other_program" ||
      reason === "gpu_minutes") &&
    (until === null || (typeof until === "string" && !Number.isNaN(Date.parse(until))))
  );
}

function isPlace(value: unknown): value is QueuePlace {
  return (
    isRecord(value) &&
    typeof value["place"] === "number" &&
    (value["wait_seconds"] === null || typeof value["wait_seconds"] === "number")
  );
}

function isFinished(value: unknown): value is FinishedJob {
  return isRecord(value) && typeof value["id"] === "string" && typeof value["state"] === "string";
}
