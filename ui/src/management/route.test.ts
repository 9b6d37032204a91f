import { describe, expect, test } from "vitest";
import { hashOf, pages, parseRoute } from "./route";

describe("the address of a page", () => {
  test.each(pages)("%s leads there and back", (page) => {
    expect(parseRoute(hashOf(page))).toEqual({ page, detail: null });
  });

  test("may name a part of it", () => {
    expect(parseRoute(hashOf("logs", "user/1 ä"))).toEqual({ page: "logs", detail: "user/1 ä" });
  });

  test.each(["", "#", "#/", "#/nowhere", "#overview", "#/constructor"])("%j is the overview", (hash) => {
    expect(parseRoute(hash).page).toBe("overview");
  });

  test("survives broken escapes", () => {
    expect(parseRoute("#/logs/%E0%A4%A")).toEqual({ page: "logs", detail: null });
  });

  test("has other names", () => {
    expect(parseRoute("#/audit").page).toBe("activity");
    expect(parseRoute("#/first-run").page).toBe("welcome");
  });
});
