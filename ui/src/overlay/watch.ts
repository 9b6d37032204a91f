import { at } from "../addresses";
import type { OwnQueue } from "../api/types";
import { concernsQueue, delayAfterChange, delayFor, hasOwnJobs, readQueue } from "./queue";

const address = at("/sentinel/api/queue/mine");
const answerTimeout = 10_000;

/**
 * Tells of the own queue as long as the page lives; asks less often when nothing happens, and not at all while nobody
 * looks and nothing of this person's is on the way. Whatever goes wrong shows as `null`.
 */
export function watchQueue(tell: (queue: OwnQueue | null) => void): void {
  let queue: OwnQueue | null = null;
  let failures = 0;
  let over = false;
  let asking = false;
  /** Something has happened that the question under way may have come too early for. */
  let hasChanged = false;
  let askedAt = -Infinity;
  let timer: ReturnType<typeof setTimeout> | undefined;

  const plan = (delay: number): void => {
    clearTimeout(timer);
    if (over || (document.hidden && !hasOwnJobs(queue))) return;
    timer = setTimeout(() => void look(), delay);
  };

  const planAfterChange = (): void => {
    hasChanged = true;
    if (!asking) plan(delayAfterChange(performance.now() - askedAt));
  };

  const look = async (): Promise<void> => {
    if (asking) return;
    asking = true;
    hasChanged = false;
    askedAt = performance.now();
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
      // Set while the answer was awaited, which the compiler does not see.
      if (hasChanged as boolean) planAfterChange();
    }
  };

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) plan(0);
  });
  afterQueueRequests(planAfterChange);
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

/**
 * Calls back when a request of ComfyUI's page about its queue has been answered.
 *
 * The browser's list of finished requests is only read. To replace `window.fetch` would put this script between
 * ComfyUI, or a custom node that replaces it as well, and the network, and whatever goes wrong here would then go wrong
 * there. The list does not tell how something was asked; ComfyUI also looks when its server tells it of a change, and
 * then a look of ours is in place too.
 */
function afterQueueRequests(act: () => void): void {
  try {
    new PerformanceObserver((list) => {
      if (list.getEntries().some(({ name }) => concernsQueue(name))) act();
    }).observe({ type: "resource" });
  } catch {
    // An older browser: the next regular look finds it.
  }
}
