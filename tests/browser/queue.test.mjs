import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, describe, test } from "node:test";
import { assertNoProblems, findBarriers, openBrowser } from "./support/browser.mjs";
import { password, startMock } from "./support/mock.mjs";

const phone = { width: 360, height: 780 };
const minute = 60_000;

let browser;
before(async () => {
  browser = await openBrowser();
});
after(() => browser?.close());

/** A page before a gateway of its own; both end with the test. */
async function begin(t, { mock: options = {}, page: pageOptions = {} } = {}) {
  const mock = await startMock(options);
  const page = await browser.page(mock, pageOptions);
  t.after(async () => {
    await page.context().close();
    await mock.stop();
  });
  return { mock, page };
}

async function open(page, hash) {
  await page.goto(`/sentinel/${hash}`);
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Password", { exact: true }).fill(password);
  await dialog.getByRole("button", { name: "Continue" }).click();
  await dialog.waitFor({ state: "detached" });
}

/** Waits until the condition holds; says what was there instead. */
async function until(read, isIt, what) {
  let value;
  for (let attempt = 0; attempt < 200; attempt += 1) {
    value = await read();
    if (isIt(value)) return value;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return assert.fail(`${what}: ${JSON.stringify(value)}`);
}

const hold = (more = {}) => ({
  reason: "owner",
  since: new Date().toISOString(),
  until: null,
  until_idle: false,
  ...more,
});
const mark = (page) => page.locator("#sentinel-overlay .mark");
const pill = (page) => page.locator("#sentinel-overlay .pill");
const userButton = (page) => page.getByRole("button", { name: "Sentinel: signed in as ada" });
const doneSwitch = (page) => page.getByRole("menuitemcheckbox", { name: "Tell me when it is done" });
const waitingJobs = (page) => page.getByRole("button", { name: /^Actions for the job of/ });

describe("no serious barriers", () => {
  const views = {
    queue: {
      visit: async (page) => {
        await open(page, "#/queue");
        await page.getByRole("button", { name: "Actions for the job of linus" }).click();
        await page.getByRole("menu").waitFor();
      },
    },
    "a held queue": {
      world: {
        hold: hold({ until: new Date(Date.now() + 90 * minute).toISOString() }),
      },
      visit: async (page) => {
        await open(page, "#/queue");
        await page.getByRole("button", { name: "Give it back" }).waitFor();
      },
    },
    "an empty queue": {
      world: { waiting: 0 },
      visit: async (page) => {
        await open(page, "#/queue");
        await page.getByText("No jobs").waitFor();
      },
    },
    usage: {
      visit: async (page) => {
        await open(page, "#/usage");
        await page.getByRole("img", { name: /Bars of the last 30 days/ }).waitFor();
      },
    },
    "usage as a table": {
      visit: async (page) => {
        await open(page, "#/usage");
        await page.getByRole("radio", { name: "Table" }).check();
        await page.getByRole("columnheader", { name: "Day" }).waitFor();
      },
    },
    "no usage": {
      world: { waiting: 0 },
      visit: async (page) => {
        await open(page, "#/usage");
        await page.getByText("No jobs in this period").waitFor();
      },
    },
    "the account": {
      visit: async (page) => {
        await page.goto("/sentinel/account");
        await page.getByRole("radio", { name: "ntfy app" }).check();
        await page.getByRole("button", { name: "Save", exact: true }).click();
        await page.getByText("Please enter the address.").waitFor();
      },
    },
    "the line in ComfyUI's page": {
      visit: async (page, theme) => {
        await page.goto(`/comfyui?theme=${theme}`);
        await mark(page).hover();
        await pill(page).waitFor();
      },
    },
    "the menu in ComfyUI's page": {
      world: { hold: hold() },
      visit: async (page, theme) => {
        await page.goto(`/comfyui?theme=${theme}`);
        await mark(page).waitFor();
        await userButton(page).click();
        await doneSwitch(page).waitFor();
      },
    },
  };

  for (const [name, { world = {}, visit }] of Object.entries(views)) {
    for (const colorScheme of ["light", "dark"]) {
      for (const viewport of [{ width: 1280, height: 860 }, phone]) {
        test(`${name}, ${colorScheme}, ${viewport.width} px`, async (t) => {
          const { page } = await begin(t, {
            mock: { world },
            page: { colorScheme, viewport },
          });
          await visit(page, colorScheme);
          await page.evaluate(() =>
            Promise.all(
              document
                .getAnimations()
                .filter((animation) => animation instanceof CSSTransition)
                .map((transition) => transition.finished.catch(() => undefined)),
            ),
          );
          assert.deepEqual(await findBarriers(page), []);
          const beyond = await page.evaluate(
            () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
          );
          assert.equal(beyond, 0, "nothing lies beyond the edge");
          assertNoProblems(page);
        });
      }
    }
  }
});

describe("the owner", () => {
  test("takes the graphics card for an hour and gives it back", async (t) => {
    const { mock, page } = await begin(t);
    await open(page, "#/queue");
    await page.getByRole("heading", { name: "Your GPU: everyone's jobs are running" }).waitFor();
    await page.getByLabel("Until when").selectOption({ label: "for 1 hour" });
    await page.getByRole("button", { name: "I need my GPU after this job" }).click();
    await page.getByRole("heading", { name: "paused by you after the running job" }).waitFor();
    const { when, until: end, until_idle: untilIdle } = mock.callsTo("POST", "/queue/pause")[0].body;
    assert.deepEqual({ when, untilIdle }, { when: "after_job", untilIdle: false });
    assert.ok(Math.abs(Date.parse(end) - Date.now() - 60 * minute) < minute, end);
    await page.getByRole("button", { name: "Give it back" }).click();
    await page.getByRole("heading", { name: "Your GPU: everyone's jobs are running" }).waitFor();
    assert.equal(mock.callsTo("POST", "/queue/resume").length, 1);
    assertNoProblems(page);
  });

  test("takes it at once by keyboard, until idle, and the focus stays in the panel", async (t) => {
    const { mock, page } = await begin(t);
    await open(page, "#/queue");
    await page.getByLabel("Until when").selectOption({ label: "until I am idle" });
    await page.getByRole("button", { name: "I need my GPU now" }).press("Enter");
    await page.getByText("Until you are idle at this computer.").waitFor();
    assert.deepEqual(mock.callsTo("POST", "/queue/pause")[0].body, {
      when: "now",
      until: null,
      until_idle: true,
    });
    await until(
      () => page.evaluate(() => document.activeElement.textContent.trim()),
      (text) => text === "Give it back",
      "the focus is elsewhere",
    );
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "Your GPU: everyone's jobs are running" }).waitFor();
  });

  test("finds the same on the overview", async (t) => {
    const { mock, page } = await begin(t);
    await open(page, "#/overview");
    await page.getByRole("button", { name: "I need my GPU now" }).click();
    await page
      .getByRole("heading", {
        name: "Your GPU: paused by you, it is all yours",
      })
      .waitFor();
    assert.equal(mock.callsTo("POST", "/queue/pause")[0].body.when, "now");
    assertNoProblems(page);
  });

  test("sees why nothing runs when it was not him", async (t) => {
    const { page } = await begin(t, {
      mock: { world: { hold: hold({ reason: "quiet_hours" }) } },
    });
    await open(page, "#/queue");
    await page.getByRole("heading", { name: "quiet hours, only your own jobs run" }).waitFor();
    await page.getByRole("button", { name: "I need my GPU now" }).waitFor();
  });
});

describe("the line of everybody", () => {
  test("is put into another order by keyboard", async (t) => {
    const { mock, page } = await begin(t);
    await open(page, "#/queue");
    const job = page.getByRole("button", {
      name: "Actions for the job of margaret",
    });
    await job.press("Enter");
    await page.keyboard.press("Enter");
    const names = () => page.locator(".place + .text .name").allInnerTexts();
    await until(names, (list) => list[0]?.startsWith("margaret"), "margaret is not the first");
    assert.match(mock.callsTo("POST", "/queue/jobs/")[0].path, /\/first$/);
    await until(
      () => page.evaluate(() => document.activeElement.getAttribute("aria-label")),
      (label) => label === "Actions for the job of margaret",
      "the focus does not follow the job",
    );
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("Enter");
    await until(names, (list) => list.at(-1)?.startsWith("margaret"), "margaret is not the last");
    assertNoProblems(page);
  });

  test("loses a job only after asking", async (t) => {
    const { mock, page } = await begin(t);
    await open(page, "#/queue");
    await page.getByRole("heading", { name: "Waiting (5)" }).waitFor();
    await page.getByRole("button", { name: "Actions for the job of linus" }).click();
    await page.getByRole("menuitem", { name: "Cancel job" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Cancel", exact: true }).click();
    assert.equal(mock.callsTo("POST", "/queue/jobs/").length, 0);
    await page.getByRole("button", { name: "Actions for the job of linus" }).click();
    await page.getByRole("menuitem", { name: "Cancel job" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Cancel job" }).click();
    await page.getByRole("heading", { name: "Waiting (4)" }).waitFor();
    assert.match(mock.callsTo("POST", "/queue/jobs/")[0].path, /\/cancel$/);
  });

  test("is followed by itself", async (t) => {
    const { mock, page } = await begin(t);
    await open(page, "#/queue");
    await page.getByRole("heading", { name: "Waiting (5)" }).waitFor();
    mock.world.queue = mock.world.queue.slice(0, 3);
    await page.getByRole("heading", { name: "Waiting (2)" }).waitFor();
    mock.world.queue = [];
    await page.getByText("No jobs").waitFor();
  });

  test("of five hundred is shown, with how many more there are", async (t) => {
    const { page } = await begin(t, { mock: { world: { waiting: 700 } } });
    await open(page, "#/queue");
    await page.getByText("and 200 more").waitFor();
    assert.equal(await waitingJobs(page).count(), 501);
  });

  test("that cannot be loaded is said, and tried again", async (t) => {
    const { mock, page } = await begin(t, { mock: { broken: ["/queue"] } });
    await open(page, "#/queue");
    await page.getByText("This could not be loaded").waitFor();
    mock.broken.length = 0;
    await page.getByRole("button", { name: "Try again" }).click();
    await page.getByRole("heading", { name: "Waiting (5)" }).waitFor();
  });
});

describe("usage", () => {
  test("is asked for by period, and told as chart and as table", async (t) => {
    const { mock, page } = await begin(t);
    await open(page, "#/usage");
    await page.getByRole("img", { name: /Bars of the last 30 days/ }).waitFor();
    await page.getByRole("radio", { name: "7 days" }).check();
    await page.getByRole("img", { name: /Bars of the last 7 days/ }).waitFor();
    await until(
      () => mock.callsTo("GET", "/usage?").map(({ path }) => path),
      (paths) => paths.includes("/usage?days=7"),
      "seven days are not asked for",
    );
    await page.getByRole("radio", { name: "Table" }).check();
    await page.getByRole("columnheader", { name: "Day" }).waitFor();
    const table = page.getByRole("region", { name: "By person" });
    await table.getByRole("rowheader", { name: "grace" }).waitFor();
    assertNoProblems(page);
  });

  test("is handed over as a file", async (t) => {
    const { mock, page } = await begin(t);
    await open(page, "#/usage");
    await page.getByRole("radio", { name: "90 days" }).check();
    const [download] = await Promise.all([
      page.waitForEvent("download"),
      page.getByRole("button", { name: "Export as table" }).click(),
    ]);
    assert.equal(download.suggestedFilename(), "sentinel-usage.csv");
    assert.match(await readFile(await download.path(), "utf8"), /^day,user/);
    assert.equal(mock.callsTo("GET", "/usage.csv")[0].path, "/usage.csv?days=90");
  });

  test("of one's own is told against the limit", async (t) => {
    const { page } = await begin(t);
    await page.goto("/sentinel/account");
    await page.getByText("of 3 hr a day").waitFor();
    await page.getByText("At most 20 of your jobs may wait at once.").waitFor();
    assertNoProblems(page);
  });

  test("without a limit says so", async (t) => {
    const { page } = await begin(t, {
      mock: { world: { limited: false, waiting: 0 } },
    });
    await page.goto("/sentinel/account");
    await page.getByText("without a limit").waitFor();
    await page.getByText("No jobs in the last 30 days.").waitFor();
  });
});

describe("being told on the phone", () => {
  const address = (page) => page.getByLabel("Address of your ntfy topic");
  const save = (page) => page.getByRole("button", { name: "Save", exact: true }).click();

  test("is set, tried and switched off", async (t) => {
    const { mock, page } = await begin(t);
    await page.goto("/sentinel/account");
    await page.getByRole("radio", { name: "ntfy app" }).check();
    await address(page).fill("ntfy.sh/harbour");
    await save(page);
    await page.getByText("This is not a web address.").waitFor();
    await address(page).fill("http://192.168.1.9/harbour");
    await save(page);
    await page.getByText("This address is inside the network.").waitFor();
    await address(page).fill("https://ntfy.sh/harbour");
    await page.getByRole("switch", { name: "Only when something fails" }).check();
    await save(page);
    await page.getByText("Saved. You will be told.").waitFor();
    assert.deepEqual(mock.callsTo("PUT", "/notifications").at(-1).body, {
      kind: "ntfy",
      address: "https://ntfy.sh/harbour",
      failures_only: true,
    });
    await page.getByRole("button", { name: "Send a test" }).click();
    await page.getByText("The test is sent.").waitFor();
    await page.getByRole("radio", { name: "Not at all" }).check();
    await save(page);
    await page.getByText("You will not be told.").waitFor();
    assertNoProblems(page);
  });

  test("says when the other side does not take the test", async (t) => {
    const { page } = await begin(t);
    await page.goto("/sentinel/account");
    await page.getByRole("radio", { name: "Webhook" }).check();
    await page.getByLabel("Address of the webhook").fill("https://broken.example.org/");
    await save(page);
    await page.getByRole("button", { name: "Send a test" }).click();
    await page.getByText("The other side did not take the message.").waitFor();
  });
});

describe("the line in ComfyUI's page", () => {
  test("tells the own place, a pause, and nothing where there is nothing to tell", async (t) => {
    const { mock, page } = await begin(t);
    await page.goto("/comfyui");
    await mark(page).getByText("#2").waitFor();
    await mark(page).getByText("2 min").waitFor();
    await pill(page).waitFor({ state: "hidden" });
    await mark(page).hover();
    await pill(page).getByText("2 jobs waiting · next is number 2 in line · about 2 min").waitFor();
    mock.world.hold = hold({ reason: "quiet_hours" });
    await pill(page).getByText("Quiet hours · 2 jobs waiting").waitFor();
    mock.world.hold = null;
    mock.world.queue = mock.world.queue.filter(({ user_id: user }) => user !== "u1");
    await mark(page).waitFor({ state: "hidden" });
    await userButton(page).waitFor();
    assertNoProblems(page);
  });

  test("is a way to the menu, which tells the same", async (t) => {
    const { page } = await begin(t);
    await page.goto("/comfyui");
    for (const way of [mark(page), pill(page)]) {
      await mark(page).hover();
      await way.click();
      await page.getByRole("menu").getByText("2 jobs waiting").waitFor();
      await mark(page).waitFor({ state: "hidden" });
      await pill(page).waitFor({ state: "hidden" });
      await page.keyboard.press("Escape");
      await mark(page).waitFor();
    }
  });

  test("is there for the keyboard, and for whoever hears the page read out", async (t) => {
    const { page } = await begin(t);
    await page.goto("/comfyui");
    await mark(page).waitFor();
    const told = await userButton(page).evaluate((button) => {
      const id = button.getAttribute("aria-describedby");
      return button.getRootNode().getElementById(id).textContent;
    });
    assert.match(told, /^2 jobs waiting · next is number 2 in line/);
    await page.keyboard.press("Tab");
    await pill(page).waitFor();
  });

  test("stays away while the gateway has no answer, and comes back", async (t) => {
    const { mock, page } = await begin(t);
    const errors = [];
    page.on("pageerror", (error) => errors.push(String(error)));
    await page.clock.install();
    await page.goto("/comfyui");
    await mark(page).waitFor();
    mock.broken.push("/queue/mine");
    await page.clock.runFor(3000);
    await mark(page).waitFor({ state: "hidden" });
    await userButton(page).waitFor();
    mock.broken.length = 0;
    await page.clock.runFor(15_000);
    await mark(page).waitFor();
    assert.deepEqual(errors, []);
  });

  test("is asked for often only while something goes on, and not at all behind a hidden tab", async (t) => {
    const { mock, page } = await begin(t, { mock: { world: { waiting: 0 } } });
    const asked = () => mock.callsTo("GET", "/queue/mine").length;
    /** The answer to the last question is read once another call made after it has come back. */
    const settle = () => page.evaluate(() => fetch("/sentinel/api/me").then((answer) => answer.text()));
    await page.clock.install();
    await page.goto("/comfyui");
    await userButton(page).waitFor();
    await page.clock.runFor(10);
    await until(asked, (count) => count === 1, "the first question");
    await settle();
    await page.clock.runFor(14_000);
    await settle();
    assert.equal(asked(), 1, "an idle queue is left alone");
    mock.world.hold = hold();
    await page.clock.runFor(1000);
    await mark(page).waitFor();
    assert.equal(asked(), 2);
    await page.clock.runFor(3000);
    await until(asked, (count) => count === 3, "three seconds during a pause");

    await page.evaluate(() => {
      Object.defineProperty(document, "hidden", {
        value: true,
        configurable: true,
      });
      document.dispatchEvent(new Event("visibilitychange"));
    });
    await settle();
    await page.clock.runFor(3000);
    await settle();
    const before = asked();
    await page.clock.runFor(60_000);
    await settle();
    assert.equal(asked(), before, "nobody looks");
    await page.evaluate(() => {
      Object.defineProperty(document, "hidden", {
        value: false,
        configurable: true,
      });
      document.dispatchEvent(new Event("visibilitychange"));
    });
    await page.clock.runFor(10);
    await until(asked, (count) => count === before + 1, "somebody looks again");
  });

  test("appears at once when ComfyUI's page hands in a job", async (t) => {
    const { mock, page } = await begin(t, { mock: { world: { waiting: 0 } } });
    await page.goto("/comfyui");
    await userButton(page).waitFor();
    await until(
      () => mock.callsTo("GET", "/queue/mine").length,
      (count) => count === 1,
      "the first question",
    );
    mock.world.hold = hold();
    const from = Date.now();
    await page.evaluate(() => fetch("/api/prompt", { method: "POST" }).then((answer) => answer.text()));
    await mark(page).waitFor();
    assert.ok(Date.now() - from < 8000, "sooner than the next regular look");
  });

  test("follows what the page does at once, however much it does, and leaves its requests alone", async (t) => {
    const { mock, page } = await begin(t);
    await page.goto("/comfyui");
    await mark(page).getByText("#2").waitFor();
    const isWhole = await page.evaluate(() => fetch.toString().includes("[native code]"));
    assert.ok(isWhole, "the page's own fetch");
    mock.world.queue = mock.world.queue.filter(({ user_id: user }) => user !== "u1");
    const took = await page.evaluate(async () => {
      const mark = document.getElementById("sentinel-overlay").shadowRoot.querySelector(".mark");
      const from = performance.now();
      // As ComfyUI's page does it: it does not read the answer, and looks again at each word of its server.
      await fetch("/api/queue", {
        method: "POST",
        body: JSON.stringify({ clear: true }),
      });
      while (!mark.hidden && performance.now() - from < 10_000) {
        void fetch("/api/queue");
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
      return performance.now() - from;
    });
    assert.ok(took < 2000, `took ${took} ms, as long as without having watched`);
    const asked = mock.callsTo("GET", "/queue/mine").length;
    assert.ok(asked < 8, `asked ${asked} times`);
  });
});

describe("being told by the browser", () => {
  /** In place of the browser's own, which no test can see. */
  async function recordNotifications(page, { permission = "default", answer = "granted", away = true } = {}) {
    await page.addInitScript(
      ([first, later, isAway]) => {
        const shown = [];
        class Recorded {
          static permission = first;
          static requestPermission() {
            Recorded.permission = later;
            return Promise.resolve(later);
          }
          constructor(title, options) {
            shown.push({ title, body: options.body });
          }
          close() {}
        }
        Object.defineProperty(window, "Notification", { value: Recorded });
        window.shownNotifications = shown;
        if (isAway) document.hasFocus = () => false;
      },
      [permission, answer, away],
    );
    return () => page.evaluate(() => window.shownNotifications);
  }

  const finish = (mock, states) => {
    mock.world.queue = mock.world.queue.filter(({ user_id: user }) => user !== "u1");
    mock.world.finished_jobs = states.map((state, index) => ({
      id: `done-${index}`,
      state,
      finished_at: new Date().toISOString(),
      reason: null,
    }));
  };

  test("is asked for by a click, remembered, and done once", async (t) => {
    const { mock, page } = await begin(t);
    const shown = await recordNotifications(page);
    await page.goto("/comfyui");
    await mark(page).waitFor();
    await userButton(page).click();
    assert.equal(await doneSwitch(page).getAttribute("aria-checked"), "false");
    await doneSwitch(page).click();
    await page.locator("[aria-checked=true]").waitFor();
    assert.equal(await page.evaluate(() => localStorage.getItem("sentinel.notify")), "1");
    finish(mock, ["completed", "failed"]);
    await until(shown, (list) => list.length === 1, "no notification");
    assert.deepEqual(await shown(), [{ title: "ComfyUI is done", body: "Finished: 1. Failed: 1." }]);
    assertNoProblems(page);
  });

  test("does not happen to whoever is looking, or has not asked for it", async (t) => {
    for (const [away, wanted] of [
      [false, "1"],
      [true, "0"],
    ]) {
      const { mock, page } = await begin(t);
      const shown = await recordNotifications(page, {
        permission: "granted",
        away,
      });
      await page.addInitScript((value) => localStorage.setItem("sentinel.notify", value), wanted);
      await page.goto("/comfyui");
      await mark(page).waitFor();
      finish(mock, ["completed"]);
      await mark(page).waitFor({ state: "hidden" });
      assert.deepEqual(await shown(), []);
    }
  });

  test("says plainly why it cannot", async (t) => {
    const blocked = await begin(t);
    await recordNotifications(blocked.page, { answer: "denied" });
    await blocked.page.goto("/comfyui");
    await userButton(blocked.page).click();
    await doneSwitch(blocked.page).click();
    await blocked.page.getByText("Notifications of this page are blocked in the browser.").waitFor();
    assert.equal(await doneSwitch(blocked.page).getAttribute("aria-checked"), "false");

    const plain = await begin(t);
    await plain.page.addInitScript(() => {
      Object.defineProperty(window, "isSecureContext", { value: false });
    });
    await plain.page.goto("/comfyui");
    await userButton(plain.page).click();
    await plain.page.getByText("Needs an encrypted address (https)").waitFor();
    assert.equal(await doneSwitch(plain.page).getAttribute("aria-disabled"), "true");
  });
});
