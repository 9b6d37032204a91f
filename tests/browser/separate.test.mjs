// Three users at once in three browsers, each with a ComfyUI of his own: the demo engine with
// ComfyUI's own front end (DEMO_ENGINE_FRONT_END), or the real ComfyUI of COMFYUI_DIR. With
// SCREENSHOTS, the folder gets pictures of what each sees.
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { assertNoProblems, fillSignIn, openBrowser } from "./support/browser.mjs";
import { admin, comfyui, frontEnd, startSentinel } from "./support/sentinel.mjs";

const skip =
  frontEnd || comfyui
    ? false
    : "needs ComfyUI's own front end: DEMO_ENGINE_FRONT_END names its folder, or COMFYUI_DIR a ComfyUI";

/** A real one takes its time, and three start at once. */
const patience = comfyui ? 240_000 : 60_000;

const users = [
  { ...admin, color: 0xff0000 },
  { username: "bertha", password: "benz-1849!", color: 0x00ff00 },
  { username: "clara", password: "immerwahr-1870!", color: 0x0000ff },
];

/** A picture in the user's own colour, saved under his own name. */
const graphOf = ({ username, color }) => ({
  1: {
    class_type: "EmptyImage",
    inputs: { width: 64, height: 48, batch_size: 1, color },
    _meta: { title: `colour of ${username}` },
  },
  2: {
    class_type: "SaveImage",
    inputs: { images: ["1", 0], filename_prefix: `picture_of_${username}` },
    _meta: { title: `picture of ${username}` },
  },
});

describe("three users at once", { skip }, () => {
  let browser;
  let sentinel;
  const seats = [];

  before(async () => {
    browser = await openBrowser();
    const slowly = comfyui ? [] : ['comfyui.args=["--fault","slow-start=2"]'];
    sentinel = await startSentinel(["separate_users=true", "gpu_slots=3", ...slowly], comfyui);
    for (const user of users) await sentinel.register(user);
  });
  after(async () => {
    for (const { page } of seats) await page.context().close();
    await browser?.close();
    await sentinel?.stop();
  });

  const picture = async (page, name) => {
    const folder = process.env.SCREENSHOTS;
    if (folder) await page.screenshot({ path: join(folder, `${name}.png`) });
  };
  const untilLoaded = (page) =>
    page.waitForFunction(
      () => globalThis.app?.extensionManager?.setting && globalThis.app.vueAppReady !== false,
    );
  const everybody = (what) => Promise.all(seats.map(what));

  test("see a waiting page and then ComfyUI", async () => {
    for (const user of users) {
      const page = await browser.page(sentinel);
      page.setDefaultTimeout(patience);
      const seat = { user, page, pages: [], views: [], events: [] };
      page.on("response", (response) => {
        const { pathname, searchParams } = new URL(response.url());
        if (pathname === "/") seat.pages.push(response.status());
        if (pathname.endsWith("/view")) {
          seat.views.push({ status: response.status(), name: searchParams.get("filename") });
        }
      });
      page.on("websocket", (socket) => {
        socket.on("framereceived", ({ payload }) => {
          if (typeof payload === "string") seat.events.push(JSON.parse(payload));
        });
      });
      seats.push(seat);
    }
    await everybody(async ({ user, page }) => {
      await page.goto("/login");
      await fillSignIn(page, user);
      // The admin's starts together with Sentinel and may be there already.
      if (user.username !== admin.username) {
        await page.getByRole("heading", { name: "ComfyUI is starting" }).waitFor();
        await picture(page, `separate-${user.username}-waiting`);
      }
      await page.getByRole("button", { name: `Sentinel: signed in as ${user.username}` }).waitFor();
      await untilLoaded(page);
    });
    for (const { user, pages } of seats) {
      if (user.username !== admin.username) assert.equal(pages[0], 503, user.username);
      assert.equal(pages.at(-1), 200, user.username);
    }
  });

  test("queue at the same time, and each sees only what is his", async () => {
    await everybody(async ({ user, page }) => {
      // ComfyUI shows its templates to whoever comes for the first time.
      await page.evaluate(() => globalThis.app.extensionManager.setting.set("Comfy.TutorialCompleted", true));
      await page.reload();
      await untilLoaded(page);
      await page.evaluate(
        ([graph, name]) => globalThis.app.loadApiJson(graph, `${name}.json`),
        [graphOf(user), `workflow of ${user.username}`],
      );
    });
    // The page fetches the picture by itself to show it in its node.
    const shown = everybody(({ user, page }) =>
      page.waitForResponse((response) => {
        const { pathname, searchParams } = new URL(response.url());
        return (
          pathname.endsWith("/view") &&
          searchParams.get("filename").startsWith(`picture_of_${user.username}_`)
        );
      }),
    );
    await everybody(({ page }) => page.getByTestId("queue-button").click());
    await shown;
    await everybody(async (seat) => {
      const { user, page } = seat;
      await page.waitForFunction(async () => {
        const history = await (await fetch("/api/history")).json();
        return Object.values(history).some((entry) => entry.status?.completed);
      });
      const seen = await page.evaluate(async () => {
        const text = async (path) => (await fetch(path)).text();
        const history = await (await fetch("/api/history")).json();
        const [entry] = Object.values(history);
        const [image] = Object.values(entry.outputs).flatMap((output) => output.images ?? []);
        const address = `/api/view?${new URLSearchParams(image)}`;
        const shown = new Image();
        shown.src = address;
        await shown.decode();
        const canvas = new OffscreenCanvas(1, 1).getContext("2d");
        canvas.drawImage(shown, 0, 0, 1, 1);
        return {
          ids: Object.keys(history),
          image,
          pixel: [...canvas.getImageData(0, 0, 1, 1).data.slice(0, 3)],
          lists: await Promise.all(
            ["/api/queue", "/api/jobs", "/internal/files/output", "/api/userdata?dir=workflows"].map(text),
          ),
        };
      });
      const { color, username } = user;
      assert.deepEqual(seen.pixel, [(color >> 16) & 255, (color >> 8) & 255, color & 255], username);
      assert.equal(seen.ids.length, 1, username);
      assert.match(seen.image.filename, new RegExp(`^picture_of_${username}_`));
      for (const other of users.filter((other) => other !== user)) {
        for (const list of seen.lists) assert.ok(!list.includes(`picture_of_${other.username}`), list);
      }
      seat.prompt = seen.ids[0];
      seat.image = seen.image;
    });
    await everybody(({ user, page }) => picture(page, `separate-${user.username}-picture`));
    for (const { user, events, views, prompt } of seats) {
      const of = new Set(events.map(({ data }) => data?.prompt_id).filter(Boolean));
      assert.deepEqual([...of], [prompt], `events of ${user.username}`);
      for (const { status, name } of views) {
        assert.equal(status, 200, `${name} for ${user.username}`);
        assert.match(name, new RegExp(`picture_of_${user.username}_`));
      }
    }
  });

  test("the picture of another is not there", async () => {
    await everybody(async ({ user, page }) => {
      for (const { image, prompt, user: other } of seats) {
        const [view, history] = await page.evaluate(
          async ([query, prompt]) => {
            const view = await fetch(`/api/view?${query}`);
            return [view.status, Object.keys(await (await fetch(`/api/history/${prompt}`)).json())];
          },
          [new URLSearchParams(image).toString(), prompt],
        );
        assert.equal(view, other === user ? 200 : 404, `${image.filename} for ${user.username}`);
        assert.deepEqual(history, other === user ? [prompt] : []);
      }
    });
    for (const { page } of seats) assertNoProblems(page);
  });
});
