/**
 * The user button in ComfyUI's own page.
 *
 * It is a guest there: it lives in a shadow root, brings no global names, and whatever goes wrong in it, ComfyUI's page
 * carries on as if it were not there.
 */
import { at } from "../addresses";
import type { Me } from "../api/types";
import { logOut } from "../browser/forget";
import { middleOf, parsePlace, placeAt, type Place } from "./place";
import { completionNotice, type CompletionNotice } from "./notice";
import { lastText, lineFor, shortLine } from "./queue";
import { style } from "./style";
import { languageFor, textsFor } from "./texts";
import { watchQueue } from "./watch";

const tagId = "sentinel-overlay";
const placeKey = "sentinel.overlay";
const languageKey = "sentinel.language";
/** Less than this is a click with an unsteady hand, not a drag. */
const dragThreshold = 5;

const shapes = {
  pause: ["M9 5.5v13", "M15 5.5v13"],
  clock: ["M12 3.5a8.5 8.5 0 1 1 0 17 8.5 8.5 0 0 1 0-17", "M12 7.5V12l3 2"],
  account: ["M12 4a4 4 0 1 1 0 8 4 4 0 0 1 0-8", "M4.5 20.5c.8-3.7 3.6-5.5 7.5-5.5s6.7 1.8 7.5 5.5"],
  bell: ["M6 16.5V11a6 6 0 0 1 12 0v5.5l1.5 1.5h-15z", "M10 20.5h4"],
  gallery: ["M3.5 5.5h17v13h-17z", "m3.5 16 5-4.5 4 3.5 3-2.5 5 4", "M15.5 8.8v.01"],
  manage: ["M4 7h9", "M19 7h1", "M16 4.5v5", "M4 17h1", "M11 17h9", "M8 14.5v5"],
  log_out: ["M10 4H4.5v16H10", "M9.5 12h11", "m16 7.5 4.5 4.5-4.5 4.5"],
};

void start().catch(ignore);

async function start(): Promise<void> {
  // In a frame the top page already has the button.
  if (window.top !== window || document.getElementById(tagId)) return;
  const response = await fetch(at("/sentinel/api/me"), {
    headers: { Accept: "application/json" },
    cache: "no-store",
  });
  if (response.status === 401) {
    location.assign(at("/login"));
    return;
  }
  if (response.status === 403) sayWhyNothingLoads((await response.json()) as { code?: unknown });
  if (!response.ok) return;
  show((await response.json()) as Me);
}

/** Requests of a page whose Origin is changed on the way are refused, its scripts too: it would stay white. */
function sayWhyNothingLoads({ code }: { code?: unknown }): void {
  if (code !== "changed_origin") return;
  const host = document.createElement("div");
  host.id = tagId;
  host.style.cssText = "position:fixed;inset:0;z-index:1000;display:grid;place-items:center;background:#fff";
  const root = host.attachShadow({ mode: "open" });
  const text = element(
    "div",
    "",
    textsFor([stored(languageKey) ?? "", ...navigator.languages]).changed_origin,
  );
  text.style.cssText = "max-width:34rem;padding:1.5rem;font:1rem/1.6 system-ui,sans-serif;color:#1c1c1e";
  text.setAttribute("role", "alert");
  root.append(text);
  document.body.append(host);
}

function show(me: Me): void {
  const languages = [stored(languageKey) ?? "", ...navigator.languages];
  const texts = textsFor(languages);
  const language = languageFor(languages);
  const host = document.createElement("div");
  host.id = tagId;
  const root = host.attachShadow({ mode: "open" });
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(style);
  root.adoptedStyleSheets = [sheet];

  const button = element("button", "button");
  button.type = "button";
  const name = texts.button.replace("{name}", me.username);
  button.setAttribute("aria-label", name);
  button.title = name;
  button.setAttribute("aria-haspopup", "menu");
  button.setAttribute("aria-expanded", "false");
  button.setAttribute("aria-controls", "menu");
  button.setAttribute("aria-describedby", "line");
  button.append(element("span", "initial", me.username.slice(0, 1)));

  // Small, so that nothing of ComfyUI's lies below it; the whole line is beside the button while somebody points at it.
  // Both are a second way to the menu for the pointer; the keyboard has the button.
  const mark = element("button", "mark");
  mark.type = "button";
  mark.tabIndex = -1;
  mark.hidden = true;
  mark.setAttribute("aria-describedby", "line");
  const place = element("span", "place");
  const wait = element("span", "wait");
  const head = element("span", "head");
  head.append(icon(shapes.clock, "clock"), icon(shapes.pause, "pause"), place);
  mark.append(head, wait);

  const pill = element("button", "pill");
  pill.type = "button";
  pill.tabIndex = -1;
  pill.hidden = true;
  pill.append(icon(shapes.clock, "clock"), icon(shapes.pause, "pause"));
  const pillLine = element("span", "");
  pillLine.id = "line";
  pill.append(pillLine);

  const menu = element("div", "menu");
  menu.id = "menu";
  menu.hidden = true;
  menu.setAttribute("role", "menu");
  menu.setAttribute("aria-label", name);
  const who = element("div", "who");
  who.setAttribute("role", "presentation");
  who.append(
    element("div", "name", me.username),
    element("div", "role", me.admin ? texts.admin : texts.user),
  );
  const queue = element("div", "queue");
  queue.setAttribute("role", "presentation");
  queue.hidden = true;
  const line = element("div", "line");
  line.setAttribute("role", "separator");
  const tell = toggle(texts.notify);
  const notice = completionNotice(texts);
  showNotice(tell, notice);
  tell.item.addEventListener("click", () => {
    void notice
      .toggle()
      .then(() => {
        showNotice(tell, notice);
        settle();
      })
      .catch(ignore);
  });

  const items: HTMLElement[] = [
    link(texts.gallery, "gallery", at("/sentinel/gallery")),
    link(texts.account, "account", at("/sentinel/account")),
  ];
  if (me.admin) items.push(link(texts.manage, "manage", at("/sentinel/")));
  const leave = link(texts.log_out, "log_out", at("/logout"));
  leave.addEventListener("click", (event) => {
    event.preventDefault();
    void logOut().catch(() => {
      location.assign(at("/logout"));
    });
  });
  items.push(tell.item);
  menu.append(who, queue, ...items.slice(0, -1), line, tell.item, leave);
  items.push(leave);
  root.append(button, mark, pill, menu);

  let seat = parsePlace(stored(placeKey));
  const settle = (): void => {
    moveTo(host, menu, seat);
  };

  const open = (index: number): void => {
    menu.hidden = false;
    showNotice(tell, notice);
    host.setAttribute("open", "");
    button.setAttribute("aria-expanded", "true");
    settle();
    items.at(index)?.focus();
  };
  const close = (refocus: boolean): void => {
    if (menu.hidden) return;
    menu.hidden = true;
    host.removeAttribute("open");
    button.setAttribute("aria-expanded", "false");
    if (refocus) button.focus();
  };

  const dragged = makeDraggable(button, (x, y) => {
    close(false);
    seat = placeAt(x, y, innerWidth, innerHeight);
    settle();
    store(placeKey, JSON.stringify(seat));
  });

  for (const way of [mark, pill]) {
    way.addEventListener("click", () => {
      if (menu.hidden) open(0);
      else close(true);
    });
  }
  button.addEventListener("click", () => {
    if (dragged()) return;
    if (menu.hidden) open(0);
    else close(true);
  });

  root.addEventListener("keydown", (event) => {
    if (!(event instanceof KeyboardEvent)) return;
    const at = items.findIndex((item) => item === root.activeElement);
    const step = keySteps[event.key];
    if (step !== undefined && menu.hidden) open(step === "last" || step === -1 ? -1 : 0);
    else if (step === "first" || step === "last") items.at(step === "first" ? 0 : -1)?.focus();
    else if (step !== undefined) items.at((at + step) % items.length)?.focus();
    else if (event.key === "Escape" && !menu.hidden) close(true);
    else if (event.key === "Tab") {
      close(false);
      stopForComfyUi(event);
      return;
    } else {
      stopForComfyUi(event);
      return;
    }
    event.preventDefault();
    stopForComfyUi(event);
  });
  for (const kind of ["keyup", "keypress", "copy", "paste"] as const)
    root.addEventListener(kind, stopForComfyUi);

  document.addEventListener(
    "pointerdown",
    (event) => {
      if (!event.composedPath().includes(host)) close(false);
    },
    true,
  );
  host.addEventListener("focusout", (event) => {
    if (event.relatedTarget === null || !root.contains(event.relatedTarget as Node)) close(false);
  });
  addEventListener("resize", settle);

  followTheme(host);
  document.body.append(host);
  settle();

  watchQueue((now) => {
    const text = lineFor(now, texts, language, Date.now());
    const held = Boolean(now?.hold);
    // Only what has changed is touched: whoever hears the page read out is not told the same again.
    if (pillLine.textContent !== (text ?? "")) pillLine.textContent = text ?? "";
    pill.hidden = mark.hidden = text === null;
    pill.classList.toggle("held", held);
    mark.classList.toggle("held", held);
    const short = shortLine(now, texts, language);
    if (place.textContent !== short.place) place.textContent = short.place;
    if (wait.textContent !== short.wait) wait.textContent = short.wait;
    const last = lastText(now, texts, language);
    const whole = [text, last].filter((part) => part !== null);
    queue.hidden = whole.length === 0;
    if (queue.textContent !== whole.join("")) {
      queue.replaceChildren(...whole.map((part) => element("div", "", part)));
      settle();
    }
    if (now) notice.follow(now);
  });
}

interface Toggle {
  item: HTMLButtonElement;
  hint: HTMLElement;
}

/** An item of the menu that is switched on and off. */
function toggle(text: string): Toggle {
  const item = element("button", "item");
  item.type = "button";
  item.tabIndex = -1;
  item.setAttribute("role", "menuitemcheckbox");
  item.setAttribute("aria-label", text);
  item.setAttribute("aria-describedby", "notify-hint");
  const words = element("span", "words");
  const hint = element("span", "hint");
  hint.id = "notify-hint";
  words.append(element("span", "label", text), hint);
  item.append(icon(shapes.bell), words, element("span", "switch"));
  return { item, hint };
}

function showNotice({ item, hint }: Toggle, notice: CompletionNotice): void {
  item.setAttribute("aria-checked", String(notice.on));
  item.setAttribute("aria-disabled", String(!notice.possible));
  hint.textContent = notice.hint;
}

const keySteps: Partial<Record<string, number | "first" | "last">> = {
  ArrowDown: 1,
  ArrowUp: -1,
  Home: "first",
  End: "last",
};

/** Keys pressed in our menu are no shortcuts of ComfyUI's. */
function stopForComfyUi(event: Event): void {
  event.stopPropagation();
}

function moveTo(host: HTMLElement, menu: HTMLElement, place: Place): void {
  const middle = middleOf(place, innerHeight);
  host.setAttribute("side", place.side);
  host.style.top = `${middle - 18}px`;
  // Beside the button, but never beyond the window.
  const half = menu.offsetHeight / 2;
  const top = Math.max(8, Math.min(innerHeight - 8 - 2 * half, middle - half));
  menu.style.top = `${top - (middle - 18)}px`;
}

/** Reports where the button is dragged to; the returned function says whether the last press was a drag. */
function makeDraggable(button: HTMLElement, onMove: (x: number, y: number) => void): () => boolean {
  let from: { x: number; y: number } | null = null;
  let moved = false;
  button.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    from = { x: event.clientX, y: event.clientY };
    moved = false;
    button.setPointerCapture(event.pointerId);
  });
  button.addEventListener("pointermove", (event) => {
    if (!from) return;
    if (!moved && Math.hypot(event.clientX - from.x, event.clientY - from.y) < dragThreshold) return;
    moved = true;
    onMove(event.clientX, event.clientY);
  });
  const end = (): void => {
    from = null;
  };
  button.addEventListener("pointerup", end);
  button.addEventListener("pointercancel", end);
  return () => {
    const was = moved;
    // A later click by keyboard is no drag.
    moved = false;
    return was;
  };
}

/** ComfyUI marks its page with `dark-theme` and leaves that out for its light palettes. */
function followTheme(host: HTMLElement): void {
  const update = (): void => {
    const { body } = document;
    const dark = body.classList.contains("dark-theme") || isBright(getComputedStyle(body).color);
    host.setAttribute("theme", dark ? "dark" : "light");
  };
  new MutationObserver(update).observe(document.body, { attributes: true, attributeFilter: ["class"] });
  update();
}

function isBright(color: string): boolean {
  const [red = 0, green = 0, blue = 0] = (color.match(/[\d.]+/g) ?? []).map(Number);
  return red + green + blue > 384;
}

function link(text: string, shape: keyof typeof shapes, href: string): HTMLAnchorElement {
  const item = element("a", "item");
  item.href = href;
  item.setAttribute("role", "menuitem");
  item.tabIndex = -1;
  item.append(icon(shapes[shape]), element("span", "label", text));
  return item;
}

function icon(paths: readonly string[], className = ""): SVGElement {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const attributes = {
    viewBox: "0 0 24 24",
    width: "18",
    height: "18",
    fill: "none",
    stroke: "currentColor",
    "stroke-width": "1.75",
    "stroke-linecap": "round",
    "stroke-linejoin": "round",
    "aria-hidden": "true",
    class: className,
  };
  for (const [key, value] of Object.entries(attributes)) svg.setAttribute(key, value);
  for (const d of paths) {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", d);
    svg.append(path);
  }
  return svg;
}

function element<Tag extends "div" | "span" | "button" | "a">(
  tag: Tag,
  className: string,
  text = "",
): HTMLElementTagNameMap[Tag] {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function stored(key: string): string | null {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

function store(key: string, value: string): void {
  try {
    localStorage.setItem(key, value);
  } catch {
    ignore();
  }
}

/** ComfyUI's page must not notice that we have a problem. */
function ignore(): void {
  return;
}
