import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import { assertNoProblems, openBrowser, signIn } from "./support/browser.mjs";
import { admin, frontEnd, startSentinel } from "./support/sentinel.mjs";

const skip = frontEnd ? false : "needs ComfyUI's own front end: DEMO_ENGINE_FRONT_END names its folder";

describe("ComfyUI's own page", { skip }, () => {
  let browser;
  let sentinel;
  let page;
  before(async () => {
    browser = await openBrowser();
  });
  after(() => browser?.close());
  beforeEach(async () => {
    sentinel = await startSentinel();
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
});
