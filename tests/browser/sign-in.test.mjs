import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import { assertNoProblems, fillSignIn, openBrowser, signIn } from "./support/browser.mjs";
import { admin, startSentinel } from "./support/sentinel.mjs";

let browser;
before(async () => {
  browser = await openBrowser();
});
after(() => browser?.close());

describe("the first visit", () => {
  let sentinel;
  let page;
  before(async () => {
    sentinel = await startSentinel();
    page = await browser.page(sentinel);
  });
  after(() => sentinel?.stop());
  afterEach(() => assertNoProblems(page));

  test("leads to the form for the first account", async () => {
    for (const path of ["/", "/login"]) {
      await page.goto(path);
      await page.waitForURL("**/register");
    }
    await page.getByRole("heading", { name: "Welcome to Sentinel" }).waitFor();
    assert.equal(await page.getByLabel("Set-up code").count(), 0, "this computer needs no set-up code");
  });

  test("shows live which rules the new password meets", async () => {
    const password = page.getByLabel("Password", { exact: true });
    const passed = () => page.locator("li.passed").allInnerTexts();
    const rules = {
      length: "8 characters or more",
      digit: "A digit",
      special: "A special character (! ? #)",
      noSpace: "No spaces",
    };
    await password.fill("abc");
    assert.deepEqual(await passed(), [rules.noSpace]);
    await password.fill("abc 12345");
    assert.deepEqual(await passed(), [rules.length, rules.digit]);
    await password.fill("abc12345!");
    assert.deepEqual(await passed(), Object.values(rules));
  });

  test("names what is wrong and puts the cursor there", async () => {
    const username = page.getByLabel("User name");
    await username.fill("a!");
    await page.getByRole("button", { name: "Create account and sign in" }).click();
    await page.getByText("Use 3 to 64 letters (a to z), digits or underscores.").waitFor();
    assert.equal(await username.getAttribute("aria-invalid"), "true");
    assert.ok(await username.evaluate((field) => field === document.activeElement));
  });

  test("makes the first account and goes on to ComfyUI", async () => {
    await page.getByLabel("User name").fill(admin.username);
    await page.getByLabel("Password", { exact: true }).fill(admin.password);
    await page.getByRole("button", { name: "Create account and sign in" }).click();
    await page.waitForURL(`${sentinel.address}/`);
    const me = await page.evaluate(async () => (await fetch("/sentinel/api/me")).json());
    assert.equal(me.username, admin.username);
    assert.equal(me.admin, true);
  });

  test("an administrator vouches for the second account", async () => {
    const visitor = await browser.page(sentinel);
    await visitor.goto("/register");
    await visitor.getByLabel("New user name").fill("grace");
    await visitor.getByLabel("New password").fill("hopper-1906!");
    await visitor.getByLabel("Administrator's user name").fill(admin.username);
    await visitor.getByLabel("Administrator's password").fill("wrong-1234!");
    await visitor.getByRole("button", { name: "Create account", exact: true }).click();
    await visitor.getByText("User name or password is wrong.").waitFor();
    await visitor.getByLabel("Administrator's password").fill(admin.password);
    await visitor.getByRole("button", { name: "Create account", exact: true }).click();
    await visitor.getByRole("heading", { name: "Account created" }).waitFor();
    await sentinel.signIn({ username: "grace", password: "hopper-1906!" });
    assertNoProblems(visitor);
  });
});

describe("signing in", () => {
  let sentinel;
  let page;
  before(async () => {
    sentinel = await startSentinel();
    await sentinel.register();
    await sentinel.untilEngineIsReady(await sentinel.signIn());
  });
  after(() => sentinel?.stop());
  beforeEach(async () => {
    page = await browser.page(sentinel);
  });
  afterEach(() => assertNoProblems(page));

  test("is asked for everywhere", async () => {
    for (const path of ["/", "/sentinel/account", "/view?filename=x.png"]) {
      await page.goto(path);
      assert.equal(new URL(page.url()).pathname, "/login", path);
    }
  });

  test("begins in the first field", async () => {
    await page.goto("/login");
    await page.waitForFunction(() => document.activeElement?.getAttribute("name") === "username");
  });

  test("says so when the password is wrong, with the cursor in that field", async () => {
    await page.goto("/login");
    await fillSignIn(page, { ...admin, password: "wrong-1234!" });
    await page.getByText("User name or password is wrong.").waitFor();
    const password = page.getByLabel("Password", { exact: true });
    assert.equal(await password.getAttribute("aria-invalid"), "true");
    assert.ok(await password.evaluate((field) => field === document.activeElement));
    assert.equal(new URL(page.url()).pathname, "/login");
  });

  test("opens ComfyUI's page", async () => {
    await signIn(page, admin);
    assert.equal(page.url(), `${sentinel.address}/`);
    await page.getByRole("button", { name: `Sentinel: signed in as ${admin.username}` }).waitFor();
  });

  test("leads back to where somebody wanted to go", async () => {
    await page.goto("/sentinel/account");
    await page.waitForURL("**/login**");
    await fillSignIn(page, admin);
    // The whole address: that of the sign-in page ends so too.
    await page.waitForURL(`${sentinel.address}/sentinel/account`);
  });

  test("is not asked for twice", async () => {
    await signIn(page, admin);
    await page.goto("/login");
    await page.getByRole("heading", { name: `Hello, ${admin.username}` }).waitFor();
    await page.getByRole("link", { name: "Continue to ComfyUI" }).click();
    await page.waitForURL(`${sentinel.address}/`);
  });

  test("speaks the language that is chosen", async () => {
    await page.goto("/login");
    await page.getByLabel("Language").selectOption("de");
    await page.getByRole("button", { name: "Anmelden" }).waitFor();
    assert.equal(await page.evaluate(() => document.documentElement.lang), "de");
    await page.reload();
    await page.getByRole("button", { name: "Anmelden" }).waitFor();
  });
});

describe("three wrong passwords", () => {
  let sentinel;
  let page;
  before(async () => {
    sentinel = await startSentinel();
    await sentinel.register();
    page = await browser.page(sentinel);
  });
  after(() => sentinel?.stop());

  test("lock the form and count down", async () => {
    await page.goto("/login");
    await page.getByLabel("User name").fill(admin.username);
    const button = page.locator("button[type=submit]");
    for (let attempt = 0; attempt < 3; attempt += 1) {
      await page.getByLabel("Password", { exact: true }).fill(`wrong-${attempt}!!`);
      const answer = page.waitForResponse("**/login");
      await button.click();
      await answer;
    }
    await page.getByText("Too many attempts").waitFor();
    assert.ok(await button.isDisabled());
    const seconds = async () => {
      const [, minutes, rest] = /Try again in (\d+):(\d\d)/.exec(await button.innerText());
      return Number(minutes) * 60 + Number(rest);
    };
    const before = await seconds();
    assert.ok(before > 50 && before <= 60, `${before} s`);
    await page.waitForTimeout(1500);
    assert.ok((await seconds()) < before);

    const right = await sentinel.post("/login", admin);
    assert.equal(right.status, 403, "the right password is refused as well");
    assert.equal((await right.json()).code, "locked_out");
    assertNoProblems(page);
  });
});
