import { at, pathAt } from "../addresses";

/** Pages that a finished sign-in must not lead to. */
const doors = ["/login", "/logout", "/register", "/generate_token"];

/**
 * The address to open after signing in: `next` if it is a path of ours, else ComfyUI's page.
 *
 * Returns an absolute address, because a path such as `/.//example.org` turns into `//example.org` when it is resolved.
 */
export function destination(next: string | null, origin: string = location.origin): string {
  const home = origin + at("/");
  if (next === null || !next.startsWith("/") || next.startsWith("//") || next.includes("\\")) return home;
  const url = resolve(next, origin);
  if (url?.origin !== origin || doors.includes(url.pathname)) return home;
  return origin + at(url.pathname + url.search + url.hash);
}

function resolve(path: string, origin: string): URL | null {
  try {
    return new URL(path, origin);
  } catch {
    return null;
  }
}

/** The sign-in page that leads back to the present page. */
export function signInAddress(): string {
  return at(`/login?next=${encodeURIComponent(pathAt(location.pathname) + location.search)}`);
}
