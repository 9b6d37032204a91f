import type { Installation } from "../types";

export const steps = ["find", "account", "sharing"] as const;

/** The ComfyUI that Sentinel shall run. */
export interface Chosen {
  directory: string;
  python: string;
  version: string | null;
}

export const demo: Chosen = { directory: "demo", python: "", version: null };

export function isDemo(installation: Installation): boolean {
  return installation.kind === "demo" || installation.directory === "demo";
}

export function nameOfKind(kind: string): "git" | "portable" | "desktop" | "stability_matrix" | "other" {
  switch (kind) {
    case "git":
    case "portable":
    case "desktop":
    case "stability_matrix":
      return kind;
    default:
      return "other";
  }
}
