import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { assertNoProblems, findBarriers, openBrowser, signIn } from "./support/browser.mjs";
import { admin, startSentinel } from "./support/sentinel.mjs";

const phone = { width: 390, height: 844 };

describe("no serious barriers", () => {
  let browser;
  let fresh;
  let sentinel;
  before(async () => {
    browser = await openBrowser();
    [fresh, sentinel] = await Promise.all([startSentinel(), startSentinel(["comfyui.autostart=false"])]);
    await sentinel.register();
  });
  after(async () => {
    await browser?.close();
    await Promise.all([fresh?.stop(), sentinel?.stop()]);
  });

  const open = async (page, path) => {
    await page.goto(path);
    await page.locator("h1").waitFor();
  };
  const signedIn = async (page, path) => {
    await signIn(page, admin);
    await open(page, path);
  };
  const pages = {
    "the first account": { of: () => fresh, visit: (page) => open(page, "/register") },
    registration: {
      visit: async (page) => {
        await open(page, "/register");
        await page.getByLabel("New password").fill("abc");
        await page.getByRole("button", { name: "Create account", exact: true }).click();
        await page.locator("[aria-invalid]").first().waitFor();
      },
    },
    "signing in": {
      visit: async (page) => {
        await open(page, "/login");
        await page.getByRole("button", { name: "Sign in" }).click();
        await page.locator("[aria-invalid]").first().waitFor();
      },
    },
    "already signed in": { visit: (page) => signedIn(page, "/login") },
    "the token page": { visit: (page) => open(page, "/generate_token") },
    "the account page": {
      visit: async (page) => {
        await signedIn(page, "/sentinel/account");
        await page.getByText("This device").waitFor();
        await page.getByRole("button", { name: "Change password" }).click();
      },
    },
    "the dialog for a new token": {
      visit: async (page) => {
        await signedIn(page, "/sentinel/account");
        await page.getByRole("button", { name: "Create token" }).click();
        await page.getByRole("dialog").waitFor();
      },
    },
    "the waiting page": {
      visit: async (page) => {
        await signedIn(page, "/");
        await page.getByRole("button", { name: "Start ComfyUI" }).waitFor();
      },
    },
  };

  for (const [name, { of = () => sentinel, visit }] of Object.entries(pages)) {
    for (const colorScheme of ["light", "dark"]) {
      test(`${name}, ${colorScheme}`, async () => {
        const page = await browser.page(of(), { colorScheme });
        await visit(page);
        // Axe sees colours in the middle of a transition as they are then.
        await page.evaluate(() =>
          Promise.all(
            document
              .getAnimations()
              .filter((animation) => animation instanceof CSSTransition)
              .map((transition) => transition.finished.catch(() => undefined)),
          ),
        );
        assert.deepEqual(await findBarriers(page), []);
        await page.setViewportSize(phone);
        const beyond = await page.evaluate(
          () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
        );
        assert.equal(beyond, 0, "a phone shows it without scrolling sideways");
        assert.deepEqual(await findBarriers(page), []);
        assertNoProblems(page);
        await page.context().close();
      });
    }
  }
});
