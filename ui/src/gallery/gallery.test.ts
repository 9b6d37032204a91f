import { expect, test } from "vitest";
import { dragData, joined, neighbour, type GalleryItem } from "./gallery";

function item(path: string): GalleryItem {
  return {
    path,
    name: path.split("/").at(-1) ?? path,
    folder: "",
    kind: "image",
    bytes: 1,
    modified_at: "2026-05-01T12:00:00Z",
    view: `/sentinel/api/gallery/file?path=${encodeURIComponent(path)}`,
    thumbnail: null,
  };
}

test("a dragged picture carries its whole address and its name", () => {
  const data = dragData(item("a b/c:1.PNG"), "http://192.168.1.5:8189");
  expect(data["text/uri-list"]).toBe(
    "http://192.168.1.5:8189/sentinel/api/gallery/file?path=a%20b%2Fc%3A1.PNG",
  );
  expect(data["DownloadURL"]).toBe(`image/png:c_1.PNG:${data["text/uri-list"] ?? ""}`);
});

test("a further page brings no file twice", () => {
  const list = joined([item("3"), item("2")], [item("2"), item("1")]);
  expect(list.map(({ path }) => path)).toEqual(["3", "2", "1"]);
});

test("the neighbours of an open picture", () => {
  const items = [item("3"), item("2"), item("1")];
  expect(neighbour(items, "3", 1)?.path).toBe("2");
  expect(neighbour(items, "3", -1)).toBeNull();
  expect(neighbour(items, "1", 1)).toBeNull();
  expect(neighbour(items, "gone", 1)).toBeNull();
});
