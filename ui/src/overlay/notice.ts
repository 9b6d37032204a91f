import type { OwnQueue } from "../api/types";
import { Completion, doneText } from "./queue";
import type { OverlayTexts } from "./texts";

const noticeKey = "sentinel.notify";

/** The browser's notification that all own jobs are done. */
export interface CompletionNotice {
  readonly on: boolean;
  /** Whether it can be switched at all. */
  readonly possible: boolean;
  /** What it does, or why it does nothing. */
  readonly hint: string;
  /** Switches it; may ask the person for permission, so it has to be called from a click. */
  toggle(): Promise<void>;
  follow(queue: OwnQueue): void;
}

export function completionNotice(texts: OverlayTexts): CompletionNotice {
  const completion = new Completion();
  const isSupported = typeof Notification === "function";
  const isAllowed = (): boolean => isSupported && isSecureContext && Notification.permission === "granted";
  const isBlocked = (): boolean => isSupported && Notification.permission === "denied";

  return {
    get on() {
      return isAllowed() && wanted();
    },
    get possible() {
      return isSecureContext && isSupported;
    },
    get hint() {
      if (!isSecureContext) return texts.notify_insecure;
      if (!isSupported) return texts.notify_unsupported;
      return isBlocked() ? texts.notify_blocked : texts.notify_hint;
    },
    async toggle() {
      if (!isSecureContext || !isSupported) return;
      const switchOn = !(isAllowed() && wanted());
      if (switchOn && !isAllowed()) await Notification.requestPermission();
      remember(switchOn && isAllowed());
    },
    follow(queue) {
      const done = completion.follow(queue);
      if (done === null || !isAllowed() || !wanted()) return;
      // Whoever is looking sees it.
      if (!document.hidden && document.hasFocus()) return;
      show(texts.done_title, doneText(done, texts));
    },
  };
}

function show(title: string, body: string): void {
  try {
    // The tag makes one of it where several tabs are open.
    const notification = new Notification(title, { body, tag: "sentinel-done" });
    notification.onclick = () => {
      window.focus();
      notification.close();
    };
  } catch {
    // Browsers of phones know the name, but not this way to show one.
  }
}

function wanted(): boolean {
  try {
    return localStorage.getItem(noticeKey) === "1";
  } catch {
    return false;
  }
}

function remember(on: boolean): void {
  try {
    if (on) localStorage.setItem(noticeKey, "1");
    else localStorage.removeItem(noticeKey);
  } catch {
    // Storage is switched off: then it cannot be remembered, and stays off.
  }
}
