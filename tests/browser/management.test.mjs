import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { assertNoProblems, findBarriers, openBrowser } from "./support/browser.mjs";
import { password, startMock } from "./support/mock.mjs";

const phone = { width: 360, height: 780 };

let browser;
before(async () => {
  browser = await openBrowser();
});
after(() => browser?.close());

async function give(page, word) {
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Password", { exact: true }).fill(word);
  await dialog.getByRole("button", { name: "Continue" }).click();
}

async function unlock(page) {
  await give(page, password);
  await page.getByRole("dialog").waitFor({ state: "detached" });
}

async function open(page, hash) {
  await page.goto(`/sentinel/${hash}`);
  await unlock(page);
}

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

const beyond = (page) =>
  page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);

describe("no serious barriers", () => {
  const views = {
    overview: async (page) => {
      await open(page, "#/overview");
      await page.getByRole("heading", { name: "Everybody's ComfyUI" }).waitFor();
    },
    "overview after a crash": async (page) => {
      await open(page, "#/overview");
      await page.getByText("Why ComfyUI is not running").waitFor();
    },
    people: async (page) => {
      await open(page, "#/people");
      await page.getByRole("button", { name: "Actions for grace" }).click();
      await page.getByRole("menu").waitFor();
    },
    "an invitation": async (page) => {
      await open(page, "#/people");
      await page.getByRole("button", { name: "Invite", exact: true }).click();
      await page.getByRole("button", { name: "Create invitation" }).click();
      await page.getByRole("img", { name: /QR code/ }).waitFor();
    },
    "deleting a person": async (page) => {
      await open(page, "#/people");
      await page.getByRole("button", { name: "Actions for linus" }).click();
      await page.getByRole("menuitem", { name: "Delete" }).click();
      await page.getByRole("dialog").waitFor();
    },
    sharing: async (page) => {
      await open(page, "#/sharing");
      await page.getByRole("button", { name: "Examine now" }).click();
      await page.getByText("A firewall may be in the way").waitFor();
    },
    access: async (page) => {
      await open(page, "#/access");
      await page.getByRole("textbox", { name: "Deny list" }).fill("phone");
      await page.locator("[aria-invalid]").waitFor();
    },
    logs: async (page) => {
      await open(page, "#/logs");
      await page.getByText("got prompt").first().waitFor();
    },
    activity: async (page) => {
      await open(page, "#/activity");
      await page.getByText("signed in").first().waitFor();
    },
    settings: async (page) => {
      await open(page, "#/settings");
      await page.getByLabel("Port", { exact: true }).fill("99999");
      await page.getByText("between 0 and 65535").waitFor();
    },
    "the first run": async (page) => {
      await open(page, "#/welcome");
      await page.getByText("Found on this computer").waitFor();
    },
    "a locked page": async (page) => {
      await page.goto("/sentinel/#/people");
      await page.getByRole("dialog").waitFor();
      await page.keyboard.press("Escape");
      await page.getByText("Locked", { exact: true }).waitFor();
    },
    gallery: async (page) => {
      await page.goto("/sentinel/gallery");
      await page.locator(".tile img").first().waitFor();
    },
    "an open picture": async (page) => {
      await page.goto("/sentinel/gallery");
      await page.locator(".tile").first().click();
      await page.getByRole("dialog").waitFor();
    },
    "an invitation for a guest": async (page) => {
      await page.goto("/join?code=ABCD");
      await page.getByLabel("Your user name").waitFor();
    },
    "trusting the certificate": async (page) => {
      await page.goto("/trust");
      await page.getByText("Fingerprint").waitFor();
    },
  };

  for (const [name, visit] of Object.entries(views)) {
    for (const colorScheme of ["light", "dark"]) {
      for (const viewport of [{ width: 1280, height: 860 }, phone]) {
        test(`${name}, ${colorScheme}, ${viewport.width} px`, async (t) => {
          const world = name.includes("crash") ? { state: "crashed", separate: false } : {};
          const { page } = await begin(t, { mock: { world }, page: { colorScheme, viewport } });
          await visit(page);
          await page.evaluate(() =>
            Promise.all(
              document
                .getAnimations()
                .filter((animation) => animation instanceof CSSTransition)
                .map((transition) => transition.finished.catch(() => undefined)),
            ),
          );
          assert.deepEqual(await findBarriers(page), []);
          assert.equal(await beyond(page), 0, "nothing lies beyond the edge");
          assertNoProblems(page);
        });
      }
    }
  }
});

describe("the password", () => {
  test("is asked for once, and the calls that waited go on", async (t) => {
    const { mock, page } = await begin(t);
    await page.goto("/sentinel/#/people");
    await give(page, "wrong-1234!");
    await page.getByText("The password is wrong.").waitFor();
    await unlock(page);
    await page.getByRole("button", { name: "Actions for grace" }).waitFor();
    await page.getByRole("link", { name: "Access" }).click();
    await page.getByRole("heading", { name: "Allow list" }).waitFor();
    assert.equal(mock.callsTo("POST", "/step-up").length, 2);
    const stored = await page.evaluate(() => JSON.stringify([localStorage, sessionStorage]));
    assert.doesNotMatch(stored, /proof/, "the proof is nowhere but in memory");
    assertNoProblems(page);
  });

  test("is not asked for behind the person's back, but by a line above the page", async (t) => {
    const { mock, page } = await begin(t);
    await open(page, "#/overview");
    await page.getByRole("heading", { name: "ComfyUIs running: 2" }).waitFor();
    mock.expireProof();
    const confirm = page.getByRole("button", { name: "Confirm", exact: true });
    await confirm.waitFor();
    assert.equal(await page.getByRole("dialog").count(), 0);
    await confirm.click();
    await unlock(page);
    await confirm.waitFor({ state: "detached" });
  });

  test("closing the dialog shows a locked page that can be opened later", async (t) => {
    const { page } = await begin(t);
    await page.goto("/sentinel/#/access");
    await page.getByRole("dialog").waitFor();
    await page.keyboard.press("Escape");
    await page.getByText("Locked", { exact: true }).waitFor();
    await page.getByRole("button", { name: "Try again" }).click();
    await unlock(page);
    await page.getByRole("heading", { name: "Allow list" }).waitFor();
  });
});

describe("people", () => {
  test("two hundred of them are searched and walked through by keyboard", async (t) => {
    const { page } = await begin(t, { mock: { world: { people: 200 } } });
    await open(page, "#/people");
    const search = page.getByRole("searchbox", { name: "Search people" });
    await search.fill("mara_1");
    await page.getByText("mara_110", { exact: true }).waitFor();
    await search.press("ArrowDown");
    await page.keyboard.press("ArrowDown");
    const focused = () => page.evaluate(() => document.activeElement.textContent);
    assert.match(await focused(), /mara_1/);
    await page.keyboard.press("Enter");
    await page.getByRole("dialog").getByText("iPhone").waitFor();
    await page.keyboard.press("Escape");
    assert.match(await focused(), /mara_1/, "the focus comes back to where it was");
    assertNoProblems(page);
  });

  test("deleting one hands his files to another", async (t) => {
    const { mock, page } = await begin(t);
    await open(page, "#/people");
    await page.getByRole("button", { name: "Actions for linus" }).press("Enter");
    await page.keyboard.press("ArrowUp");
    await page.keyboard.press("Enter");
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel("Hand them over").check();
    await dialog.getByLabel("To whom").selectOption({ label: "grace" });
    await dialog.getByRole("button", { name: "Delete" }).click();
    await page.getByText("linus is deleted.").waitFor();
    assert.equal(mock.callsTo("DELETE", "/users/")[0].path, "/users/u3?files=give&to=u2");
  });

  test("an invitation shows its link once", async (t) => {
    const { mock, page } = await begin(t);
    await open(page, "#/people");
    await page.getByRole("button", { name: "Invite", exact: true }).click();
    await page.getByLabel("For whom?").fill("Clara");
    await page.getByLabel("1 week").check();
    await page.getByRole("button", { name: "Create invitation" }).click();
    await page.getByText("/join?code=").waitFor();
    assert.deepEqual(mock.callsTo("POST", "/invites")[0].body, {
      expire_hours: 168,
      admin: false,
      note: "Clara",
    });
    await page.getByRole("button", { name: "Done" }).click();
    await page.getByText("Clara", { exact: true }).waitFor();
  });

  test("what the gateway refuses is said in plain words", async (t) => {
    const { page } = await begin(t, { mock: { world: { people: 1 } } });
    await open(page, "#/people");
    await page.getByRole("button", { name: "Actions for ada" }).click();
    await page.getByRole("menuitem", { name: "Disable" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Disable" }).click();
    await page.getByText("There has to be at least one administrator.").waitFor();
  });
});

describe("a refused name", () => {
  for (const place of ["activity", "sharing"]) {
    test(`is allowed with one click under ${place}`, async (t) => {
      const { mock, page } = await begin(t);
      await open(page, `#/${place}`);
      await page.getByText("Allowing means: whoever controls the name studio.tail1a2b3c.ts.net").waitFor();
      await page.getByRole("button", { name: "Allow studio.tail1a2b3c.ts.net" }).click();
      await page.getByText("studio.tail1a2b3c.ts.net is allowed.").waitFor();
      assert.deepEqual(mock.callsTo("POST", "/access/refused-names")[0].body, {
        key: "allowed_hosts",
        value: "studio.tail1a2b3c.ts.net",
      });
      await page.getByText("Refused because of a name or a proxy").waitFor({ state: "detached" });
      assertNoProblems(page);
    });
  }
});

describe("settings", () => {
  test("save what was changed, and nothing else", async (t) => {
    const { mock, page } = await begin(t);
    await open(page, "#/settings");
    await page.getByLabel("Stop when unused for (minutes)").fill("45");
    await page.getByRole("switch", { name: "Start again after a crash" }).uncheck();
    await page.getByLabel("Arguments of ComfyUI").fill("--lowvram\n--preview-method auto\n");
    await page.getByText("Changes not saved yet: 3").waitFor();
    await page.getByRole("button", { name: "Save" }).click();
    await page.getByText("Saved.").waitFor();
    assert.deepEqual(mock.callsTo("PUT", "/config")[0].body, {
      comfyui: { idle_stop_minutes: 45, restart: false, args: ["--lowvram", "--preview-method auto"] },
    });
    await page.getByText("Some changes wait for a restart").waitFor();
    assertNoProblems(page);
  });

  test("are not lost by a click elsewhere", async (t) => {
    const { mock, page } = await begin(t);
    await open(page, "#/settings");
    await page.getByRole("textbox", { name: "Jobs on the graphics card at once" }).fill("2");
    await page.getByRole("link", { name: "People" }).click();
    const dialog = page.getByRole("dialog", { name: "Leave without saving?" });
    await dialog.getByRole("button", { name: "Cancel" }).click();
    assert.equal(
      await page.getByRole("textbox", { name: "Jobs on the graphics card at once" }).inputValue(),
      "2",
    );
    await page.getByRole("link", { name: "People" }).click();
    await dialog.getByRole("button", { name: "Leave and discard" }).click();
    await page.getByRole("heading", { name: "People" }).waitFor();
    assert.equal(mock.callsTo("PUT", "/config").length, 0);
  });

  test("remember the theme", async (t) => {
    const { page } = await begin(t, { page: { colorScheme: "light" } });
    await open(page, "#/settings");
    const background = () => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
    const light = await background();
    const isDark = () =>
      page.waitForFunction(
        (before) => getComputedStyle(document.documentElement).backgroundColor !== before,
        light,
      );
    await page.getByRole("radio", { name: "Dark" }).check();
    await isDark();
    // Other pages follow.
    await page.goto("/login");
    await isDark();
  });
});

test("lists are judged while one types, and the cursor goes to the bad line", async (t) => {
  const { mock, page } = await begin(t);
  await open(page, "#/access");
  const list = page.getByRole("textbox", { name: "Deny list" });
  await list.fill("10.0.0.1\n10.0.0.300\n");
  await page.getByText("Line 2: “10.0.0.300”").waitFor();
  const form = page.locator("form", { has: list });
  await form.getByRole("button", { name: "Save" }).click();
  assert.equal(await list.evaluate((area) => area.selectionStart), "10.0.0.1\n".length);
  assert.equal(mock.callsTo("PUT", "/access").length, 0);
  await list.fill("10.0.0.1\n");
  await form.getByRole("button", { name: "Save" }).click();
  await page.getByText("Saved.").waitFor();
  assert.equal(mock.callsTo("PUT", "/access/blacklist")[0].body.text, "10.0.0.1\n");
  await page.getByRole("button", { name: "Lift the ban of 203.0.113.7" }).click();
  await page.getByText("Nobody is banned").waitFor();
});

test("logs are followed, filtered and paused", async (t) => {
  const { mock, page } = await begin(t);
  await open(page, "#/logs");
  const log = page.getByRole("log");
  await log.getByText("got prompt").first().waitFor();
  await page.getByRole("searchbox").fill("insightface");
  assert.doesNotMatch(await log.innerText(), /got prompt/);
  await page.getByRole("searchbox").fill("");
  await page.getByLabel("Which lines").selectOption("error");
  assert.doesNotMatch(await log.innerText(), /got prompt/);
  await page.getByLabel("Which lines").selectOption("all");
  await page.getByRole("radio", { name: "Sentinel" }).check();
  await log.getByText("grace signed in").first().waitFor();
  await page.getByRole("button", { name: "Pause" }).click();
  await page.getByText("Paused").waitFor();
  const asked = mock.callsTo("GET", "/log").length;
  await page.waitForTimeout(2000);
  assert.ok(mock.callsTo("GET", "/log").length <= asked + 1);
});

test("the first run is walked through with the demo", async (t) => {
  const { mock, page } = await begin(t, { mock: { world: { finished: false } } });
  await open(page, "");
  await page.getByRole("heading", { name: "Where is your ComfyUI?" }).waitFor();
  await page.getByLabel("In another folder").check();
  await page.getByLabel("Folder of ComfyUI").fill("/nothing/here");
  await page.getByRole("button", { name: "Check and continue" }).click();
  await page.getByText("main.py is missing").waitFor();
  await page.getByLabel("Try the demo").check();
  await page.getByRole("button", { name: "Continue" }).click();
  await page.getByLabel("User name").fill("ada");
  await page.getByLabel("Password", { exact: true }).fill(password);
  await page.getByRole("button", { name: "Continue" }).click();
  for (const name of ["Share on the network", "Everybody has their own", "Only administrators"]) {
    assert.ok(await page.getByRole("switch", { name }).isChecked(), `${name} is proposed on`);
  }
  await page.getByRole("button", { name: "Finish" }).click();
  await page.getByRole("img", { name: /QR code/ }).waitFor();
  assert.deepEqual(mock.callsTo("POST", "/setup/finish")[0].body, {
    comfyui: { dir: "demo", python: "" },
    admin: { username: "ada", password },
    sharing: { enabled: true },
    separate_users: true,
    manager_admin_only: true,
  });
  assertNoProblems(page);
});

test("what cannot be loaded is said, and tried again", async (t) => {
  const { page } = await begin(t, { mock: { broken: ["/sharing"] } });
  await open(page, "#/sharing");
  await page.getByText("This could not be loaded").waitFor();
  await page.getByRole("button", { name: "Try again" }).waitFor();
});

describe("the gallery", () => {
  test("loads more at its end, and opens and walks by keyboard", async (t) => {
    const { page } = await begin(t, { mock: { world: { gallery: 130 } } });
    await page.goto("/sentinel/gallery");
    await page.locator(".tile").first().waitFor();
    for (let seen = 0; seen < 130;) {
      await page.mouse.wheel(0, 4000);
      await page.waitForTimeout(100);
      seen = await page.locator(".tile").count();
    }
    await page.locator(".tile").first().press("Enter");
    const viewer = page.getByRole("dialog");
    const first = await viewer.getAttribute("aria-label");
    await page.keyboard.press("ArrowRight");
    assert.notEqual(await viewer.getAttribute("aria-label"), first);
    await page.keyboard.press("ArrowLeft");
    assert.equal(await viewer.getAttribute("aria-label"), first);
    await page.keyboard.press("Escape");
    await viewer.waitFor({ state: "detached" });
    assertNoProblems(page);
  });

  test("deletes several after asking", async (t) => {
    const { mock, page } = await begin(t);
    await page.goto("/sentinel/gallery");
    await page.getByRole("button", { name: "Select" }).click();
    await page.locator(".tile").nth(0).click();
    await page.locator(".tile").nth(2).click();
    await page.getByText("Selected: 2").waitFor();
    await page.getByRole("button", { name: "Delete" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
    await page.waitForFunction(() => document.querySelectorAll(".tile").length === 21);
    assert.equal(mock.callsTo("DELETE", "/gallery")[0].body.paths.length, 2);
  });

  test("a dragged picture carries its address", async (t) => {
    const { mock, page } = await begin(t);
    await page.goto("/sentinel/gallery");
    const data = await page
      .locator(".tile")
      .first()
      .evaluate((tile) => {
        const transfer = new DataTransfer();
        tile.dispatchEvent(new DragEvent("dragstart", { dataTransfer: transfer, bubbles: true }));
        return transfer.getData("text/uri-list");
      });
    assert.ok(data.startsWith(`${mock.address}/sentinel/api/gallery/file?path=`));
  });
});

test("a guest joins with a name and password of his own", async (t) => {
  const { mock, page } = await begin(t);
  await page.goto("/join?code=K7QM-2XPD");
  await page.getByLabel("Your user name").fill("ada");
  await page.getByLabel("Your password", { exact: true }).fill("harbour-9!");
  await page.getByRole("button", { name: "Join" }).click();
  await page.getByText("already taken").waitFor();
  await page.getByLabel("Your user name").fill("clara");
  await page.getByRole("button", { name: "Join" }).click();
  await page.waitForURL((address) => address.pathname === "/");
  assert.deepEqual(mock.callsTo("POST", "/join").at(-1).body, {
    code: "K7QM-2XPD",
    username: "clara",
    password: "harbour-9!",
  });
});
