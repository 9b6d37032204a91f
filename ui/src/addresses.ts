/**
 * The one place where pages turn a path of ours, such as `/login`, into an address.
 *
 * Below a path of a reverse proxy (`/comfyui/`) the gateway writes that path into the page; ComfyUI's page, which is not
 * ours, has it in the address of our script.
 */

const scriptPath = "/sentinel/assets/overlay.js";

const base = baseOf(
  document.querySelector<HTMLMetaElement>('meta[name="sentinel-state"]')?.content ?? null,
  document.currentScript?.getAttribute("src") ?? null,
);

/** The address of a path of ours. */
export function at(path: string): string {
  return base + path;
}

/** The path of ours at an address of this page; the opposite of {@link at}. */
export function pathAt(address: string, before: string = base): string {
  return address.startsWith(`${before}/`) ? address.slice(before.length) : address;
}

/** What stands before every path of ours: nothing, or `/comfyui`. */
export function baseOf(state: string | null, script: string | null): string {
  try {
    if (state !== null) {
      const { base } = JSON.parse(state) as { base?: unknown };
      return typeof base === "string" ? base : "";
    }
    const { pathname } = new URL(script ?? "", "http://localhost");
    return pathname.endsWith(scriptPath) ? pathname.slice(0, -scriptPath.length) : "";
  } catch {
    return "";
  }
}
