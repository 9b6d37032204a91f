import { expect, test } from "vitest";
import { Router } from "./router.svelte";

test("unsaved changes keep a person on the page until he decides", () => {
  const router = new Router("#/settings");
  let dirty = true;
  const end = router.guard(() => dirty);

  expect(router.follow("#/people")).toBe(false);
  expect(router.route.page).toBe("settings");
  expect(router.pending).toBe("#/people");

  router.stay();
  expect(router.pending).toBeNull();
  expect(router.route.page).toBe("settings");

  router.follow("#/people");
  expect(router.leave()).toBe("#/people");
  expect(router.route.page).toBe("people");
  expect(router.hasChanges).toBe(false);

  dirty = false;
  end();
});

test("moving about within the page is no leaving", () => {
  const router = new Router("#/settings");
  router.guard(() => true);
  expect(router.follow("#/settings/comfyui")).toBe(true);
  expect(router.route).toEqual({ page: "settings", detail: "comfyui" });
});

test("the guard of a page that is gone does not outlive it", () => {
  const router = new Router("#/settings");
  const end = router.guard(() => true);
  end();
  expect(router.follow("#/logs")).toBe(true);
});
