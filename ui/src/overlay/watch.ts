import type { OwnQueue } from "../api/types";
import { delayFor, hasOwnJobs, readQueue } from "./queue";

const address = "/sentinel/api/queue/mine";
const answerTimeout = 10_000;
/** After this page has handed in a job, so that the line appears at once. */
const soon = 400;

/**
 * Tells of the own queue as long as the page lives; asks less often when nothing happens, and not at all while nobody
 * looks and nothing of this person's is on the way. Whatever goes wrong shows as `null`.
 */
export function watchQueue(tell: (queue: OwnQueue | null) => void): void {
  let queue: OwnQueue | null = null;
  let failures = 0;
  let over = false;
  let asking = false;
  let timer: ReturnType<typeof setTimeout> | undefined;

  const plan = (delay: number): void => {
    clearTimeout(timer);
    if (over || (document.hidden && !hasOwnJobs(queue))) return;
    timer = setTimeout(() => void look(), delay);
  };

  const look = async (): Promise<void> => {
    if (asking) return;
    asking = true;
    const { status, value } = await ask();
    asking = false;
    // Signed out, or a gateway that has no queue: there will be no better answer.
    over = status === 401 || status === 403 || status === 404;
    failures = value === null ? failures + 1 : 0;
    // A moment without an answer is no reason to stop looking for jobs that were there before it.
    if (value !== null) queue = value;
    try {
      tell(value);
    } finally {
      plan(delayFor(value, failures));
    }
  };

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) plan(0);
  });
  afterOwnJobs(() => {
    plan(soon);
  });
  plan(0);
}

async function ask(): Promise<{ status: number; value: OwnQueue | null }> {
  try {
    const response = await fetch(address, {
      headers: { Accept: "application/json" },
      cache: "no-store",
      signal: AbortSignal.timeout(answerTimeout),
    });
    return { status: response.status, value: response.ok ? readQueue(await response.json()) : null };
  } catch {
    return { status: 0, value: null };
  }
}

/** Calls back when ComfyUI's page has sent something to its queue; only watches, and needs nothing of ComfyUI's. */
function afterOwnJobs(act: () => void): void {
  try {
    new PerformanceObserver((list) => {
      if (
        list.getEntries().some(({ name }) => /\/(?:prompt|queue|interrupt)$/.test(name.split("?")[0] ?? ""))
      )
        act();
    }).observe({ type: "resource" });
  } catch {
    // An older browser: the next regular look finds it.
  }
}
