import { call, type Result } from "../api/client";

export interface GalleryItem {
  path: string;
  name: string;
  folder: string;
  kind: "image" | "video" | "audio" | "other";
  bytes: number;
  modified_at: string;
  view: string;
  thumbnail: string | null;
}

export interface GalleryList {
  items: GalleryItem[];
  next: string | null;
  total_bytes: number;
}

export const kinds = ["all", "image", "video", "audio"] as const;
export type Kind = (typeof kinds)[number];

export function listItems(kind: Kind, before: string | null): Promise<Result<GalleryList>> {
  const query = new URLSearchParams({ limit: "60" });
  if (kind !== "all") query.set("kind", kind);
  if (before !== null) query.set("before", before);
  return call("GET", `/sentinel/api/gallery?${query}`);
}

export function deleteItems(paths: readonly string[]): Promise<Result<void>> {
  return call("DELETE", "/sentinel/api/gallery", { paths });
}

export function downloadAddress(item: GalleryItem): string {
  return `${item.view}&download=1`;
}

const types: Partial<Record<string, string>> = {
  png: "image/png",
  jpg: "image/jpeg",
  jpeg: "image/jpeg",
  webp: "image/webp",
  gif: "image/gif",
  mp4: "video/mp4",
  webm: "video/webm",
  flac: "audio/flac",
  mp3: "audio/mpeg",
};

/** What a picture carries while it is dragged: ComfyUI's page takes the address, a desktop folder the file. */
export function dragData(item: GalleryItem, origin: string): Record<string, string> {
  const address = new URL(item.view, origin).href;
  const type = types[item.name.split(".").at(-1)?.toLowerCase() ?? ""] ?? "application/octet-stream";
  return {
    "text/uri-list": address,
    "text/plain": address,
    // The colon parts the three fields, so none may be in the name.
    DownloadURL: `${type}:${item.name.replaceAll(":", "_")}:${address}`,
  };
}

/** Items without those that were there already: files made in between move the pages of a list. */
export function joined(items: readonly GalleryItem[], more: readonly GalleryItem[]): GalleryItem[] {
  const known = new Set(items.map(({ path }) => path));
  return [...items, ...more.filter(({ path }) => !known.has(path))];
}

export function neighbour(items: readonly GalleryItem[], path: string, step: 1 | -1): GalleryItem | null {
  const at = items.findIndex((item) => item.path === path);
  return at < 0 ? null : (items[at + step] ?? null);
}
