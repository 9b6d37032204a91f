// Two users, one with thirty jobs and one with two, each in ComfyUI's own front end: the demo
// engine with DEMO_ENGINE_FRONT_END, or the real ComfyUI of COMFYUI_DIR. The jobs wait in the
// gateway; the pages must show them as if ComfyUI held them. With SCREENSHOTS, the folder gets
// pictures of what each sees.
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import {
  assertNoProblems,
  fillSignIn,
  openBrowser,
} from "./support/browser.mjs";
import {
  admin,
  comfyui,
  frontEnd,
  slowProbe,
  startSentinel,
} from "./support/sentinel.mjs";

const skip =
  frontEnd || comfyui
    ? false
    : "needs ComfyUI's own front end: DEMO_ENGINE_FRONT_END names its folder, or COMFYUI_DIR a ComfyUI";

/** A real one takes its time, and two start at once. */
const patience = comfyui ? 240_000 : 30_000;

/** What shows whose job it is, in everything that is said about it. */
const tagOf = (user) => `tag_of_${user.username}`;

const graphOf = (user) => ({
  1: {
    class_type: "SlowProbe",
    inputs: {
      seconds: 0.5,
      steps: 10,
      preview: "none",
      tag: tagOf(user),
      fail: false,
    },
    _meta: { title: `probe of ${user.username}` },
  },
  2: {
    class_type: "PreviewImage",
    inputs: { images: ["1", 0] },
    _meta: { title: `preview of ${user.username}` },
  },
});

/** Waits until the condition holds; says what was there instead. */
async function until(read, isIt, what) {
  const end = Date.now() + 30_000;
  for (;;) {
    const value = await read();
    if (isIt(value)) return value;
    if (Date.now() > end)
      return assert.fail(`${what}: ${JSON.stringify(value)}`);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

/** A user before his page, and all that the page was told. */
class Seat {
  /** Ids of the jobs that were handed in here, oldest first. */
  jobs = [];
  /** Everything that came by HTTP about jobs and by WebSocket, as text. */
  told = [];
  errors = [];

  constructor(user, page) {
    this.user = user;
    this.page = page;
    page.setDefaultTimeout(patience);
    page.on("response", (response) =>
      this.listen(response).catch(() => undefined),
    );
    page.on("websocket", (socket) => {
      socket.on("framereceived", ({ payload }) => {
        if (typeof payload === "string") this.told.push(payload);
      });
    });
    page.on("pageerror", (error) => this.note(error.stack ?? String(error)));
    page.on("console", (message) => {
      // Files that ComfyUI's page looks for and does without are not of interest here.
      if (
        message.type() === "error" &&
        !/Failed to load resource/.test(message.text())
      ) {
        this.note(message.text());
      }
    });
  }

  /** Some versions of ComfyUI's page fail while they start, with ComfyUI alone as well. */
  note(error) {
    if (this.isOpen) this.errors.push(error);
  }

  async listen(response) {
    const { pathname } = new URL(response.url());
    if (!/^\/(api\/|sentinel\/api\/queue)/.test(pathname)) return;
    if (response.status() >= 400) this.note(`${response.status()} ${pathname}`);
    if (!/json/.test(response.headers()["content-type"] ?? "")) return;
    const text = await response.text();
    this.told.push(text);
  }

  async open() {
    const { page, user } = this;
    await page.goto("/login");
    await fillSignIn(page, user);
    await this.untilLoaded();
    // ComfyUI shows its templates to whoever comes for the first time.
    await page.evaluate(() =>
      globalThis.app.extensionManager.setting.set(
        "Comfy.TutorialCompleted",
        true,
      ),
    );
    await page.reload();
    await this.untilLoaded();
    await page.evaluate(
      ([graph, name]) => globalThis.app.loadApiJson(graph, name),
      [graphOf(user), `workflow of ${user.username}.json`],
    );
    page.setDefaultTimeout(20_000);
    this.isOpen = true;
  }

  async untilLoaded() {
    const name = `Sentinel: signed in as ${this.user.username}`;
    await this.page.getByRole("button", { name }).waitFor();
    await this.page.waitForFunction(
      () =>
        globalThis.app?.extensionManager?.setting &&
        globalThis.app.vueAppReady !== false,
    );
  }

  /** As the button does it, but no two alike, for a job that was run before takes no time. */
  async handIn(seconds) {
    const ids = await this.page.evaluate(
      async ([seconds, tag, first]) => {
        const { widgets } = globalThis.app.graph.nodes.find(
          ({ type }) => type === "SlowProbe",
        );
        const widget = (name) => widgets.find((widget) => widget.name === name);
        const ids = [];
        const { api } = globalThis.comfyAPI.api;
        const { queuePrompt } = api;
        api.queuePrompt = async (...rest) => {
          const answer = await queuePrompt.apply(api, rest);
          ids.push(answer.prompt_id);
          return answer;
        };
        for (const [index, length] of seconds.entries()) {
          widget("seconds").value = length;
          widget("tag").value = `${tag}_${first + index}`;
          await globalThis.app.queuePrompt(0, 1);
        }
        delete api.queuePrompt;
        return ids;
      },
      [seconds, tagOf(this.user), this.jobs.length],
    );
    assert.equal(ids.length, seconds.length);
    this.jobs.push(...ids);
    return ids;
  }

  /** By the keys that put a job before one's others; its id. */
  async handInFront(seconds) {
    const { page } = this;
    await page.evaluate(
      ([seconds, tag]) => {
        const { widgets } = globalThis.app.graph.nodes.find(
          ({ type }) => type === "SlowProbe",
        );
        const widget = (name) => widgets.find((widget) => widget.name === name);
        widget("seconds").value = seconds;
        widget("tag").value = tag;
      },
      [seconds, `${tagOf(this.user)}_${this.jobs.length}`],
    );
    await page.keyboard.press("Control+Shift+Enter");
    const isNew = (id) => !this.jobs.includes(id);
    const waiting = await until(
      () => this.waiting(),
      (ids) => ids.some(isNew),
      "no job was handed in",
    );
    const id = waiting.find(isNew);
    this.jobs.push(id);
    return id;
  }

  ask(path) {
    return this.page.evaluate(async (path) => (await fetch(path)).json(), path);
  }

  async waiting() {
    return (await this.ask("/api/queue")).queue_pending.map(([, id]) => id);
  }

  async listed() {
    const { jobs } = await this.ask("/api/jobs");
    return new Map(jobs.map((job) => [job.id, job]));
  }

  async statesOf(ids) {
    const jobs = await this.listed();
    return ids.map((id) => jobs.get(id)?.status ?? "none");
  }

  /** The small mark below the user button, which is there when there is something to tell. */
  mark() {
    return this.page.locator("#sentinel-overlay .mark");
  }

  /** All that it tells, which is shown when it is pointed at. */
  line() {
    return this.page.locator("#sentinel-overlay #line");
  }

  async picture(name) {
    const folder = process.env.SCREENSHOTS;
    if (folder)
      await this.page.screenshot({
        path: join(folder, `queue-${this.user.username}-${name}.png`),
      });
  }

  // Of the front end there are two generations: a panel below the Run button, and before it a tab at the side.

  async openPanel() {
    const { page } = this;
    const button = page
      .getByRole("button", { name: "Expand job queue" })
      .first();
    const tab = page.locator(".queue-tab-button");
    await button.or(tab).first().waitFor();
    this.hasTab = (await tab.count()) > 0;
    await (this.hasTab ? tab : button).click();
    await this.rows().first().waitFor();
  }

  rows() {
    return this.hasTab
      ? this.page.locator(".task-item").filter({ hasText: "Pending" })
      : this.page.getByText(/^(In queue|Job added to queue)/);
  }

  /** What of ComfyUI's list of jobs lies below something of ours, which must not be in anybody's way. */
  async coveredRows() {
    const boxOf = (of) => of.boundingBox({ timeout: 1000 }).catch(() => null);
    const ours = [
      await boxOf(this.mark()),
      await boxOf(this.page.locator("#sentinel-overlay .button")),
    ];
    assert.ok(ours[0] && ours[1], "both are there");
    const covered = [];
    for (const row of await this.rows().all()) {
      const box = await boxOf(row);
      for (const one of box ? ours : []) {
        if (one.y < box.y + box.height && box.y < one.y + one.height) {
          // A row is wider than its text: to the edge of its panel.
          const edge = await row.evaluate((element) => {
            const { left, right } = (
              element.closest("[class*=rounded]") ?? element
            ).getBoundingClientRect();
            return { left, right };
          });
          if (one.x < edge.right && edge.left < one.x + one.width)
            covered.push({ one, box, edge });
        }
      }
    }
    return covered;
  }

  /** The number beside the symbol of the queue. The tab counts what runs as well, and so does the panel that says "active". */
  badge({ waiting, running }) {
    const { page } = this;
    return this.hasTab
      ? page
          .locator(".queue-tab-button")
          .getByText(String(waiting + running), { exact: true })
      : page
          .getByRole("button", { name: /(Expand|Collapse) job queue/ })
          .getByText(new RegExp(`^(${waiting}|${waiting + running} active)$`));
  }

  /** Cancels the newest one, which is on top. */
  async cancelNewest() {
    const { page } = this;
    if (this.hasTab) {
      await this.rows().first().click({ button: "right", force: true });
      await page.getByRole("menuitem", { name: "Delete" }).click();
      return;
    }
    // The button comes with the pointer, and the job that runs has one as well.
    const row = page.getByText(/^In queue/).first();
    const middle = async (of) => {
      const box = await of.boundingBox({ timeout: 1000 }).catch(() => null);
      return box && box.y + box.height / 2;
    };
    await until(
      async () => {
        await row.hover();
        const place = await middle(row);
        for (const button of await page
          .getByRole("button", { name: "Cancel", exact: true })
          .all()) {
          const height = await middle(button);
          if (
            place === null ||
            height === null ||
            Math.abs(place - height) > 15
          )
            continue;
          await button.click();
          return true;
        }
        return false;
      },
      (isClicked) => isClicked,
      "the newest job has no button to cancel it",
    );
  }

  interruptButton() {
    return this.page.getByRole("button", { name: "Cancel current run" });
  }

  clearButton() {
    return this.page
      .getByRole("button", {
        name: this.hasTab ? "Clear Pending Tasks" : "Clear queued",
      })
      .first();
  }
}

describe("two users, one with thirty jobs and one with two", { skip }, () => {
  let browser;
  let sentinel;
  let ada;
  let bertha;

  before(async () => {
    browser = await openBrowser();
    sentinel = await startSentinel(["separate_users=true"], comfyui, [
      slowProbe,
    ]);
    const second = { username: "bertha", password: "benz-1849!" };
    await sentinel.register(admin);
    await sentinel.register(second);
    ada = new Seat(admin, await browser.page(sentinel));
    bertha = new Seat(second, await browser.page(sentinel));
    await Promise.all([ada.open(), bertha.open()]);
  });
  after(async () => {
    await browser?.close();
    await sentinel?.stop();
  });

  test("both see their own jobs wait, and their place in line", async () => {
    // The first one leaves time to look, the last ones to press buttons.
    await ada.handIn([6, ...Array(9).fill(0.5), ...Array(20).fill(2)]);
    await bertha.handIn([0.5, 0.5]);
    for (const seat of [ada, bertha]) {
      await seat
        .line()
        .filter({ hasText: /waiting · next is number \d+ in line/ })
        .waitFor({ state: "attached" });
      await seat.mark().filter({ hasText: /^#\d+/ }).waitFor();
    }
    // What the mark told after her first job is not yet about both.
    const both = /^2 jobs waiting · next is number [12] in line/;
    await bertha
      .line()
      .filter({ hasText: both })
      .waitFor({ state: "attached" });
    assert.deepEqual(await bertha.waiting(), bertha.jobs);
    assert.deepEqual(await ada.waiting(), ada.jobs.slice(1));
    assert.deepEqual(await bertha.statesOf(bertha.jobs), [
      "pending",
      "pending",
    ]);
    await Promise.all([ada.openPanel(), bertha.openPanel()]);
    await ada.badge({ waiting: 29, running: 1 }).waitFor();
    await bertha.badge({ waiting: 2, running: 0 }).waitFor();
    assert.equal(await bertha.rows().count(), 2);
    assert.deepEqual(await ada.coveredRows(), []);
    // Of many, only those in view are there.
    assert.ok((await ada.rows().count()) > 2);
    await ada.picture("waiting");
    await bertha.picture("waiting");
  });

  test("the second waits for one job of the first at a time", async () => {
    await until(
      () => bertha.statesOf(bertha.jobs),
      (states) => states.every((state) => state === "completed"),
      "bertha's jobs are not done",
    );
    const adas = await until(
      () => ada.listed(),
      (jobs) =>
        [...jobs.values()].filter(({ status }) => status === "completed")
          .length > 3,
      "ada's jobs do not go on",
    );
    const started = [...adas.values()]
      .map((job) => job.execution_start_time)
      .filter(Boolean);
    const berthas = await bertha.listed();
    const [first, second] = bertha.jobs.map((id) => berthas.get(id));
    const between = (from, to) =>
      started.filter((time) => time > from && time < to).length;
    const order = [
      ...started.map((time) => [time, "a"]),
      ...[first, second].map((job) => [job.execution_start_time, "b"]),
    ]
      .sort(([left], [right]) => left - right)
      .map(([, name]) => name)
      .join("");
    assert.ok(
      started.length < ada.jobs.length,
      "the second user is done long before the first",
    );
    // One ran when she came; nothing of ada's began before hers but at most one in between.
    assert.ok(
      between(first.create_time, first.execution_start_time) <= 1,
      order,
    );
    assert.ok(
      between(first.execution_start_time, second.execution_start_time) <= 1,
      order,
    );
  });

  test("each cancels, interrupts and clears what is his own", async () => {
    await until(
      () => ada.waiting(),
      (ids) => ids.length <= 20,
      "the short ones do not end",
    );
    const later = await bertha.handIn([1, 1]);
    const newest = ada.jobs.at(-1);
    assert.ok((await ada.waiting()).includes(newest));
    await ada.cancelNewest();
    await until(
      () => ada.waiting(),
      (ids) => !ids.includes(newest),
      "the cancelled one still waits",
    );
    assert.ok((await ada.waiting()).length > 3, "the others still wait");

    const cancelled = await until(
      async () => {
        // Between two jobs there is nothing to interrupt, and the last moment of one is too late.
        if (await ada.interruptButton().isEnabled())
          await ada.interruptButton().click();
        return [...(await ada.listed()).values()].filter(
          ({ status }) => status === "cancelled",
        );
      },
      (jobs) => jobs.length > 0,
      "nothing was interrupted",
    );
    for (const { id } of cancelled) assert.ok(ada.jobs.includes(id));

    assert.ok((await ada.waiting()).length > 1, "some still wait");
    await ada.clearButton().click();
    await until(
      () => ada.waiting(),
      (ids) => ids.length === 0,
      "the line was not cleared",
    );
    await until(
      () => ada.rows().count(),
      (count) => count === 0,
      "the panel still shows some",
    );
    await ada.picture("cleared");
    await until(
      () => bertha.statesOf(later),
      (states) => states.every((state) => state === "completed"),
      "bertha's jobs were touched",
    );
    await until(
      () => ada.mark().isVisible(),
      (isVisible) => !isVisible,
      "the line is still shown",
    );
    await bertha.picture("done");
  });

  test("a job at the front goes before one's own others and before nobody else's", async () => {
    const [running, ...others] = await ada.handIn([5, 0.5, 0.5]);
    await until(
      () => ada.statesOf([running]),
      ([state]) => state === "in_progress",
      "the first does not run",
    );
    const [berthas] = await bertha.handIn([0.5]);
    const front = await ada.handInFront(0.5);
    assert.deepEqual(await ada.waiting(), [front, ...others]);
    assert.deepEqual(await bertha.waiting(), [berthas]);
    await ada.picture("front");
    await until(
      async () => [
        ...(await ada.statesOf([front, ...others])),
        ...(await bertha.statesOf([berthas])),
      ],
      (states) => states.every((state) => state === "completed"),
      "the jobs do not end",
    );
    const started = async (seat, ids) => {
      const jobs = await seat.listed();
      return ids.map((id) => jobs.get(id).execution_start_time);
    };
    const times = [
      ...(await started(bertha, [berthas])),
      ...(await started(ada, [front, ...others])),
    ];
    assert.deepEqual(
      times,
      times.toSorted((one, other) => one - other),
    );
  });

  test("neither is told anything of the other", async () => {
    for (const [seat, other] of [
      [ada, bertha],
      [bertha, ada],
    ]) {
      assert.ok(
        seat.told.some((text) => text.includes(seat.jobs[0])),
        "own jobs were told of",
      );
      for (const text of seat.told) {
        for (const trace of [...other.jobs, tagOf(other.user)]) {
          assert.ok(
            !text.includes(trace),
            `${seat.user.username} was told ${trace}: ${text.slice(0, 500)}`,
          );
        }
      }
      assert.deepEqual(seat.errors, [], seat.user.username);
      assertNoProblems(seat.page);
    }
  });
});
