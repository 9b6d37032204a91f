import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import { assertNoProblems, openBrowser, signIn } from "./support/browser.mjs";
import { admin, startSentinel } from "./support/sentinel.mjs";

const firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

let browser;
let sentinel;
let page;
before(async () => {
  browser = await openBrowser();
  sentinel = await startSentinel();
  await sentinel.register();
});
after(async () => {
  await browser?.close();
  await sentinel?.stop();
});
beforeEach(async () => {
  page = await browser.page(sentinel);
});
afterEach(async () => {
  assertNoProblems(page);
  await page.context().close();
});

const status = async (token) => (await sentinel.get("/sentinel/api/me", token)).status;
const shownToken = () => page.getByRole("group", { name: "Token", exact: true });

describe("the token page", () => {
  test("makes a token that programs can use", async () => {
    await page.goto("/generate_token");
    await page.getByLabel("Name", { exact: true }).fill("script");
    await page.getByLabel("User name").fill(admin.username);
    await page.getByLabel("Password", { exact: true }).fill(admin.password);
    await page.getByRole("button", { name: "Create token" }).click();
    await page.getByRole("heading", { name: "Your token is ready" }).waitFor();
    const token = (await shownToken().innerText()).trim();
    await sentinel.untilEngineIsReady(token);
    const answer = await sentinel.get("/system_stats", token);
    assert.equal(answer.status, 200);
    assert.ok((await answer.json()).system);
    assert.deepEqual(await page.context().cookies(), [], "making a token signs nobody in");
  });

  test("says so when the password is wrong", async () => {
    await page.goto("/generate_token");
    await page.getByLabel("Name", { exact: true }).fill("script");
    await page.getByLabel("User name").fill(admin.username);
    await page.getByLabel("Password", { exact: true }).fill("wrong-1234!");
    await page.getByRole("button", { name: "Create token" }).click();
    await page.getByText("User name or password is wrong.").waitFor();
    await sentinel.signIn();
  });
});

describe("the account page", () => {
  beforeEach(async () => {
    await signIn(page, admin);
    await page.goto("/sentinel/account");
  });

  test("makes and revokes tokens", async () => {
    await page.getByRole("button", { name: "Create token" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel("Name", { exact: true }).fill("laptop");
    await dialog.getByLabel("Your password").fill(admin.password);
    await dialog.getByRole("button", { name: "Create token" }).click();
    const token = (await shownToken().innerText()).trim();
    await dialog.getByRole("button", { name: "Done" }).click();
    assert.equal(await status(token), 200);

    await page.getByRole("button", { name: "Revoke laptop" }).click();
    await page.getByRole("button", { name: "Revoke token" }).click();
    await page.getByRole("button", { name: "Revoke laptop" }).waitFor({ state: "detached" });
    assert.equal(await status(token), 401);
  });

  test("lists the signed-in devices and signs one of them out", async () => {
    await page.getByText("This device").waitFor();
    const other = await sentinel.signIn(admin, firefox);
    await page.reload();
    const signOut = page.getByRole("button", { name: "Sign out Firefox on Linux" });
    await signOut.click();
    await signOut.waitFor({ state: "detached" });
    assert.equal(await status(other), 401);
    await page.reload();
    await page.getByText("This device").waitFor();
  });

  test("changes the password, which signs out everywhere else", async () => {
    const other = await sentinel.signIn(admin, firefox);
    const changed = { ...admin, password: "analytical-1843!" };
    const change = async (from, to) => {
      await page.getByRole("button", { name: "Change password" }).click();
      await page.getByLabel("Current password").fill(from);
      await page.getByLabel("New password", { exact: true }).fill(to);
      await page.getByRole("button", { name: "Save new password" }).click();
    };
    await change("wrong-1234!", changed.password);
    await page.getByText("The password is wrong.").waitFor();
    await page.getByRole("button", { name: "Cancel" }).click();
    await change(admin.password, changed.password);
    await page.getByText("Your password is changed.").waitFor();

    assert.equal(await status(other), 401);
    assert.equal((await sentinel.post("/login", admin)).status, 401);
    await sentinel.signIn(changed);
    await page.reload();
    await page.getByText("This device").waitFor();

    await change(changed.password, admin.password);
    await page.getByText("Your password is changed.").waitFor();
  });

  test("logs out", async () => {
    await page.getByRole("button", { name: "Log out" }).click();
    await page.waitForURL(/\/login(#|$)/);
    assert.deepEqual(await page.context().cookies(), []);
  });
});
