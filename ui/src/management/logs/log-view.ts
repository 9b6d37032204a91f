import type { LogLine } from "../types";

/** More than anybody reads, and less than makes a browser slow. */
export const keptLines = 3000;

export type Level = "all" | "info" | "warning" | "error";

/** The lines with the new ones after them; the oldest give way. */
export function extend(lines: readonly LogLine[], fresh: readonly LogLine[]): LogLine[] {
  const last = lines.at(-1)?.seq ?? -1;
  return [...lines, ...fresh.filter(({ seq }) => seq > last)].slice(-keptLines);
}

/** How grave a line is: as Sentinel says, or as the words of ComfyUI's line sound. */
export function gravity(line: LogLine): "debug" | "info" | "warning" | "error" {
  const level = line.level?.toLowerCase();
  if (level !== undefined) {
    if (level.startsWith("err")) return "error";
    if (level.startsWith("warn")) return "warning";
    return level === "debug" || level === "trace" ? "debug" : "info";
  }
  if (/\b(?:error|traceback|exception|failed)\b|^\s*!!!/i.test(line.text)) return "error";
  return /\bwarn(?:ing)?\b/i.test(line.text) ? "warning" : "info";
}

export function filterLines(lines: readonly LogLine[], search: string, level: Level): LogLine[] {
  const wanted = search.trim().toLowerCase();
  return lines.filter((line) => {
    if (wanted !== "" && !line.text.toLowerCase().includes(wanted)) return false;
    const grave = gravity(line);
    switch (level) {
      case "all":
        return true;
      case "info":
        return grave !== "debug";
      case "warning":
        return grave === "warning" || grave === "error";
      case "error":
        return grave === "error";
    }
  });
}
