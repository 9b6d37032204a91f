import type { Backend } from "./backend";
import type { Confirmation } from "./confirmation.svelte";

/** The back end for where the app runs; `?fake` shows it under `npm run dev` without a gateway. */
export async function chooseBackend(confirmation: Confirmation): Promise<Backend> {
  if (import.meta.env.DEV && new URLSearchParams(location.search).has("fake")) {
    const { FakeBackend } = await import("./fake/fake");
    return new FakeBackend({ desktop: new URLSearchParams(location.search).get("fake") === "desktop" });
  }
  if ("__TAURI_INTERNALS__" in window) {
    const { TauriBackend } = await import("./tauri");
    return new TauriBackend();
  }
  const { HttpBackend } = await import("./http");
  return new HttpBackend(confirmation);
}
