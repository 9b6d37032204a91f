import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import { assertNoProblems, openBrowser, signIn } from "./support/browser.mjs";
import { admin, startSentinel } from "./support/sentinel.mjs";

describe("while ComfyUI does not run", () => {
  const grace = { username: "grace", password: "hopper-1906!" };
  let browser;
  let sentinel;
  let page;
  before(async () => {
    browser = await openBrowser();
    sentinel = await startSentinel(["comfyui.autostart=false"]);
    await sentinel.register();
    await sentinel.register(grace);
  });
  after(async () => {
    await browser?.close();
    await sentinel?.stop();
  });
  afterEach(() => assertNoProblems(page));

  test("other users are told whom to ask", async () => {
    page = await browser.page(sentinel);
    await signIn(page, grace);
    await page.getByRole("heading", { name: "ComfyUI is switched off" }).waitFor();
    await page.getByText("An administrator can start it again.").waitFor();
    assert.equal(await page.getByRole("button", { name: "Start ComfyUI" }).count(), 0);
  });

  test("an administrator starts it, and its page comes by itself to everybody", async () => {
    const waiting = page;
    page = await browser.page(sentinel);
    await signIn(page, admin);
    await page.getByRole("heading", { name: "ComfyUI is switched off" }).waitFor();
    const answer = await page.request.get("/", { headers: { Accept: "text/html" } });
    assert.equal(answer.status(), 503);
    assert.ok(answer.headers()["retry-after"]);

    await page.getByRole("button", { name: "Start ComfyUI" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel("Password", { exact: true }).fill("wrong-1234!");
    await dialog.getByRole("button", { name: "Start ComfyUI" }).click();
    await dialog.getByText("The password is wrong.").waitFor();
    await dialog.getByLabel("Password", { exact: true }).fill(admin.password);
    await dialog.getByRole("button", { name: "Start ComfyUI" }).click();
    await page.getByRole("button", { name: `Sentinel: signed in as ${admin.username}` }).waitFor();

    await waiting.getByRole("button", { name: `Sentinel: signed in as ${grace.username}` }).waitFor();
    assertNoProblems(waiting);
  });
});
