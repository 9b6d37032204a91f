import { at } from "../addresses";
/**
 * Clears what this browser remembers of the site, so that the next person at this computer does not find the last
 * one's workflow.
 *
 * The gateway asks the browser for the same by `Clear-Site-Data`, which browsers heed only on HTTPS and on localhost.
 */
export async function forgetThisSite(): Promise<void> {
  attempt(() => {
    localStorage.clear();
  });
  attempt(() => {
    sessionStorage.clear();
  });
  await Promise.race([Promise.allSettled([deleteDatabases(), deleteCaches()]), pause(800)]);
}

const signedOutKey = "sentinel.signed_out";
const signedOutFragment = "#signed-out";

/** Logs out and comes back to the sign-in page. */
export async function logOut(): Promise<void> {
  await forgetThisSite();
  // ComfyUI's page may save its workflow once more while it is being left, so the sign-in page clears again.
  attempt(() => {
    sessionStorage.setItem(signedOutKey, "1");
  });
  // Where the browser heeds the gateway's header that note is gone too; a fragment outlasts the redirect.
  location.assign(at(`/logout${signedOutFragment}`));
}

/** On the sign-in page: says whether somebody has just logged out here, and then clears a second time. */
export async function finishLogOut(): Promise<boolean> {
  const byFragment = location.hash === signedOutFragment;
  if (byFragment) history.replaceState(history.state, "", location.pathname + location.search);
  const signedOut = byFragment || (attempt(() => sessionStorage.getItem(signedOutKey) !== null) ?? false);
  if (signedOut) await forgetThisSite();
  return signedOut;
}

async function deleteDatabases(): Promise<void> {
  for (const { name } of await indexedDB.databases()) if (name) indexedDB.deleteDatabase(name);
}

async function deleteCaches(): Promise<void> {
  // Absent outside of secure contexts.
  if (!("caches" in window)) return;
  for (const key of await caches.keys()) await caches.delete(key);
}

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** Storage may be switched off in the browser; then there is nothing to clear either. */
function attempt<Value>(action: () => Value): Value | undefined {
  try {
    return action();
  } catch {
    return undefined;
  }
}
