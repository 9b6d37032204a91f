import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const axeSource = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const desktop = { width: 1280, height: 800 };

export async function openBrowser() {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    headless: true,
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
  return {
    close: () => browser.close(),
    /** A page of a browser that has never been here; `problems` lists what a page must not give cause for. */
    async page(sentinel, options = {}) {
      const context = await browser.newContext({
        baseURL: sentinel.address,
        locale: "en-US",
        viewport: desktop,
        reducedMotion: "reduce",
        ...options,
      });
      const page = await context.newPage();
      page.setDefaultTimeout(15_000);
      page.problems = [];
      page.on("console", (message) => {
        if (/content security policy|content-security-policy|trusted type/i.test(message.text())) {
          page.problems.push(message.text());
        }
      });
      page.on("pageerror", (error) => {
        // ComfyUI's own scripts may fail in their own ways.
        if (/\/sentinel\/assets\//.test(error.stack ?? "")) page.problems.push(error.stack);
      });
      return page;
    },
  };
}

export function assertNoProblems(page) {
  assert.deepEqual(page.problems, []);
}

export async function fillSignIn(page, { username, password }) {
  await page.getByLabel("User name").fill(username);
  await page.getByLabel("Password", { exact: true }).fill(password);
  await page.getByRole("button", { name: "Sign in" }).click();
}

/** Signs in on the page and waits for what comes after it. */
export async function signIn(page, account) {
  await page.goto("/login");
  await fillSignIn(page, account);
  await page.waitForURL((address) => address.pathname !== "/login");
}

/** The serious findings of axe, each as one readable line. */
export async function findBarriers(page) {
  await page.evaluate(axeSource);
  const { violations } = await page.evaluate(() =>
    globalThis.axe.run(document, { resultTypes: ["violations"] }),
  );
  return violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .flatMap(({ id, help, nodes }) =>
      nodes.map((node) => `${id}: ${help}: ${node.target.join(" ")}: ${node.failureSummary}`),
    );
}
