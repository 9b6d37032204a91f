import assert from "node:assert/strict";
import { createServer, request } from "node:http";
import { after, afterEach, before, describe, test } from "node:test";
import { assertNoProblems, fillSignIn, openBrowser } from "./support/browser.mjs";
import { admin, frontEnd, startSentinel } from "./support/sentinel.mjs";

let browser;
before(async () => {
  browser = await openBrowser();
});
after(() => browser?.close());

describe("below a path", () => {
  let sentinel;
  let page;
  /** Requests of the pages that left the path. */
  let beside;
  before(async () => {
    sentinel = await startSentinel(["sharing.base_path=/ai"]);
    await sentinel.register();
    await sentinel.untilEngineIsReady(await sentinel.signIn());
    page = await browser.page(sentinel);
    beside = [];
    page.on("request", (request) => {
      const { origin, pathname, protocol } = new URL(request.url());
      // ComfyUI's front end looks for the pictures of its icon at the root, wherever it is.
      const isOwn = protocol === "http:" && !pathname.startsWith("/assets/images/favicon");
      if (origin === sentinel.address && isOwn && !pathname.startsWith("/ai/")) beside.push(request.url());
    });
  });
  after(() => sentinel?.stop());
  afterEach(() => {
    assert.deepEqual(beside, []);
    assertNoProblems(page);
  });

  test("a visitor signs in and comes where he wanted to go", async () => {
    await page.goto("/ai/sentinel/account");
    await page.waitForURL("**/ai/login?next=**");
    await fillSignIn(page, admin);
    await page.waitForURL(`${sentinel.address}/ai/sentinel/account`);
    await page.getByRole("heading", { name: admin.username }).first().waitFor();
    const cookies = await page.context().cookies();
    assert.deepEqual(
      cookies.map(({ name, path }) => [name, path]).sort(),
      [
        ["jwt_token", "/ai"],
        ["sentinel_browser", "/ai"],
      ],
    );
  });

  test("the management asks for the password and works", async () => {
    await page.goto("/ai/sentinel/#/access");
    await page.getByLabel("Password", { exact: true }).fill(admin.password);
    await page.keyboard.press("Enter");
    await page.getByText("Trusted proxies").waitFor();
  });

  test("ComfyUI's page, its pictures' page and the way out are there", async () => {
    await page.goto("/ai/");
    const button = page.getByRole("button", { name: `Sentinel: signed in as ${admin.username}` });
    if (frontEnd) {
      const template = page.getByTestId("template-workflow-demo-picture");
      await template.click();
      await template.waitFor({ state: "detached" });
      const shown = page.waitForResponse((response) => {
        const address = new URL(response.url());
        return address.pathname.endsWith("/view") && address.searchParams.get("type") === "output";
      });
      await page.getByTestId("queue-button").click();
      assert.equal((await shown).status(), 200);
    }
    await button.click();
    await page.getByRole("menuitem", { name: "My pictures" }).click();
    await page.waitForURL("**/ai/sentinel/gallery");
    if (frontEnd) await page.locator("img").first().waitFor();
    await page.goto("/ai/");
    await button.click();
    await page.getByRole("menuitem", { name: "Log out" }).click();
    await page.waitForURL("**/ai/login**");
    assert.deepEqual(await page.context().cookies(), []);
  });
});

/** Something on the way that changes headers of requests; plain requests only, no sockets. */
async function startChanger(sentinel, change) {
  const { hostname, port } = new URL(sentinel.address);
  const server = createServer((incoming, outgoing) => {
    const headers = { ...incoming.headers, ...change(incoming.headers), connection: "close" };
    const passed = request(
      { hostname, port, method: incoming.method, path: incoming.url, headers },
      (answer) => {
        outgoing.writeHead(answer.statusCode, answer.headers);
        answer.pipe(outgoing);
      },
    );
    passed.on("error", () => outgoing.destroy());
    incoming.pipe(passed);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    address: `http://localhost:${server.address().port}`,
    stop: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}

describe("what is refused", () => {
  let sentinel;
  before(async () => {
    sentinel = await startSentinel();
    await sentinel.register();
    await sentinel.untilEngineIsReady(await sentinel.signIn());
  });
  after(() => sentinel?.stop());

  for (const [locale, words] of [
    ["en-US", "Something in your browser"],
    ["de-DE", "Etwas in Ihrem Browser"],
  ]) {
    test(`names an extension that changes the Origin where the page stays white: ${locale}`, async () => {
      // Such extensions leave the page itself alone.
      const changer = await startChanger(sentinel, (headers) =>
        headers["sec-fetch-mode"] === "navigate" ? {} : { origin: "http://127.0.0.1:11434" },
      );
      const page = await browser.page(changer, { locale });
      const token = await sentinel.signIn();
      await page.context().addCookies([{ name: "jwt_token", value: token, url: changer.address }]);
      await page.goto("/");
      await page.getByRole("alert").filter({ hasText: words }).waitFor();
      await page.context().close();
      changer.stop();
    });
  }

  test("names a name that is not known, without a script", async () => {
    const changer = await startChanger(sentinel, () => ({ host: "studio.tail1.ts.net" }));
    const page = await browser.page(changer, { locale: "zh-CN", javaScriptEnabled: false });
    const answer = await page.goto("/");
    assert.equal(answer.status(), 403);
    await page.getByRole("heading", { name: "Sentinel 不认识这个名称" }).waitFor();
    await page.context().close();
    changer.stop();
  });
});
