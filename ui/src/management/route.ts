/** The pages of the app, in the order of its navigation. */
export const pages = [
  "overview",
  "queue",
  "people",
  "sharing",
  "access",
  "usage",
  "logs",
  "activity",
  "settings",
] as const;
export type PageName = (typeof pages)[number];

export interface Route {
  page: PageName | "welcome";
  /** What of the page is meant, for example the engine whose log is read. */
  detail: string | null;
}

const aliases = new Map<string, Route["page"]>([
  ["audit", "activity"],
  ["first-run", "welcome"],
]);

/** `#/logs/engine-id`; whatever is not known leads to the overview. */
export function parseRoute(hash: string): Route {
  const [name = "", ...rest] = hash.replace(/^#\/?/, "").split("/");
  const page = [...pages, "welcome" as const].find((known) => known === name) ?? aliases.get(name);
  if (!page) return { page: "overview", detail: null };
  return { page, detail: decoded(rest.join("/")) };
}

export function hashOf(page: Route["page"], detail?: string): string {
  return detail ? `#/${page}/${encodeURIComponent(detail)}` : `#/${page}`;
}

function decoded(text: string): string | null {
  try {
    return text === "" ? null : decodeURIComponent(text);
  } catch {
    return null;
  }
}
