import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import { assertNoProblems, openBrowser, signIn } from "./support/browser.mjs";
import { admin, frontEnd, newestFrontEnd, startSentinel } from "./support/sentinel.mjs";

const versions = [
  ["as the demo engine's model has it", frontEnd, "DEMO_ENGINE_FRONT_END"],
  ["in its newest version", newestFrontEnd, "DEMO_ENGINE_FRONT_END_NEWEST"],
];

for (const [version, folder, variable] of versions) {
  const skip = folder ? false : `needs ComfyUI's own front end: ${variable} names its folder`;
  describe(`ComfyUI's own page ${version}`, { skip }, () => onPage(folder));
}

function onPage(folder) {
  let browser;
  let sentinel;
  let page;
  before(async () => {
    browser = await openBrowser();
  });
  after(() => browser?.close());
  beforeEach(async () => {
    sentinel = await startSentinel([], undefined, [], folder);
    await sentinel.register();
    await sentinel.untilEngineIsReady(await sentinel.signIn());
    page = await browser.page(sentinel);
    await signIn(page, admin);
    // ComfyUI shows its templates to whoever comes for the first time.
    const template = page.getByTestId("template-workflow-demo-picture");
    await template.click();
    await template.waitFor({ state: "detached" });
  });
  afterEach(async () => {
    await page?.context().close();
    await sentinel?.stop();
    assertNoProblems(page);
  });

  const button = () => page.getByRole("button", { name: `Sentinel: signed in as ${admin.username}` });
  const item = (name) => page.getByRole("menuitem", { name });

  test("runs a workflow and shows its picture", async () => {
    const shown = page.waitForResponse((response) => {
      const address = new URL(response.url());
      return address.pathname.endsWith("/view") && address.searchParams.get("type") === "output";
    });
    await page.getByTestId("queue-button").click();
    const picture = await shown;
    assert.equal(picture.status(), 200);
    assert.match(picture.headers()["content-type"], /^image\//);
    const size = await page.evaluate(async (address) => {
      const image = new Image();
      image.src = address;
      await image.decode();
      return [image.naturalWidth, image.naturalHeight];
    }, picture.url());
    assert.deepEqual(size, [768, 512]);
  });

  test("its default workflow runs at once, with pictures on the way", async () => {
    // ComfyUI opens it for whoever has been here before.
    await page.evaluate(async () => {
      await fetch("/api/settings", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ "Comfy.TutorialCompleted": true }),
      });
      localStorage.clear();
      sessionStorage.clear();
    });
    await page.goto("about:blank");
    const socket = page.waitForEvent("websocket", (opened) => opened.url().includes("/ws"));
    await page.goto(sentinel.address);
    const previews = [];
    (await socket).on("framereceived", ({ payload }) => {
      if (typeof payload !== "string") previews.push(payload.readUInt32BE(0));
    });
    const taken = page.waitForResponse((answer) => /\/prompt$/.test(answer.url()));
    const shown = page.waitForResponse((answer) => /\/view\?.*type=output/.test(answer.url()));
    await page.getByTestId("queue-button").waitFor();
    await page.waitForFunction(() => globalThis.app?.graph?.nodes?.length > 0);
    await page.getByTestId("queue-button").click();
    const answer = await taken;
    assert.equal(answer.status(), 200, await answer.text());
    const { prompt } = answer.request().postDataJSON();
    const classes = Object.values(prompt).map((node) => node.class_type);
    for (const name of ["KSampler", "VAEDecode", "SaveImage"]) assert.ok(classes.includes(name), name);
    assert.match((await shown).headers()["content-type"], /^image\//);
    assert.ok(previews.length > 0, "no picture came on the way");
    assert.deepEqual(new Set(previews), new Set([4]));
    assert.equal(await page.getByTestId("error-overlay").count(), 0);
  });

  test("the first template says how to use a real ComfyUI, and runs", async () => {
    await page.getByRole("button", { name: "Templates" }).first().click();
    const popular = page.getByText("Popular", { exact: true }).first();
    await popular.click();
    await page.getByTestId("template-workflow-real-comfyui").click();
    await page.getByText("Sentinel found no ComfyUI").first().waitFor({ state: "attached" });
    const shown = page.waitForResponse((answer) => /\/view\?.*type=output/.test(answer.url()));
    await page.getByTestId("queue-button").click();
    assert.equal((await shown).status(), 200);
  });

  test("has the menu, also for the keyboard", async () => {
    await button().click();
    await item("My account and tokens").waitFor();
    assert.equal(await button().getAttribute("aria-expanded"), "true");
    await page.keyboard.press("End");
    assert.ok(await item("Log out").evaluate((link) => link === link.getRootNode().activeElement));
    await page.keyboard.press("Escape");
    await item("Log out").waitFor({ state: "hidden" });
    assert.ok(await button().evaluate((element) => element === element.getRootNode().activeElement));

    await button().click();
    await item("My account and tokens").click();
    await page.waitForURL("**/sentinel/account");
  });

  test("keeps the button where it is dragged to", async () => {
    const before = await button().boundingBox();
    await page.mouse.move(before.x + before.width / 2, before.y + before.height / 2);
    await page.mouse.down();
    await page.mouse.move(40, 200, { steps: 5 });
    await page.mouse.up();
    const place = async () => {
      const { x, y, height } = await button().boundingBox();
      return { left: x < 100, middle: Math.round(y + height / 2) };
    };
    assert.deepEqual(await place(), { left: true, middle: 200 });
    await page.reload();
    await button().waitFor();
    assert.deepEqual(await place(), { left: true, middle: 200 });
  });

  test("leaves nothing behind after logging out", async () => {
    await page.evaluate(() => {
      localStorage.setItem("trace", "1");
      sessionStorage.setItem("trace", "1");
    });
    await button().click();
    await item("Log out").click();
    await page.waitForURL(/\/login(#|$)/);
    await page.getByText("You are logged out.").waitFor();
    const left = await page.evaluate(async () => ({
      local: Object.keys(localStorage),
      session: Object.keys(sessionStorage),
      databases: await indexedDB.databases(),
    }));
    assert.deepEqual(left, { local: [], session: [], databases: [] });
    assert.deepEqual(await page.context().cookies(), []);
    await page.goto("/");
    assert.equal(new URL(page.url()).pathname, "/login");
  });

  test("a session that was ended elsewhere ends here too", async () => {
    await page.context().clearCookies();
    await page.reload();
    await page.waitForURL("**/login**");
  });
}
