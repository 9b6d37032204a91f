import type { Result } from "../../../api/client";
import { readFailure } from "../../../api/client";
import type { Backend, Desktop, DesktopSettings, Method } from "../backend";
import { makeWorld } from "./world.mjs";

/** A gateway that exists only in the page, for tests of components and for developing without a gateway. */
export class FakeBackend implements Backend {
  readonly desktop: Desktop | null;
  readonly calls: { method: Method; path: string; body: object | undefined }[] = [];
  readonly #world = makeWorld();

  constructor({ desktop = false }: { desktop?: boolean } = {}) {
    this.desktop = desktop ? fakeDesktop() : null;
  }

  async call<Value>(method: Method, path: string, body?: object): Promise<Result<Value>> {
    this.calls.push({ method, path, body });
    await Promise.resolve();
    const { status, body: answer } = this.#world.answer(method, path, body);
    if (status < 300) return { kind: "ok", value: structuredClone(answer) as Value };
    return { kind: "failed", failure: readFailure(status, answer) };
  }

  download(): Promise<Result<void>> {
    return Promise.resolve({ kind: "ok", value: undefined });
  }

  openComfyUi(): Promise<void> {
    return Promise.resolve();
  }

  copy(): Promise<boolean> {
    return Promise.resolve(true);
  }

  onStatusChange(): () => void {
    return () => undefined;
  }
}

function fakeDesktop(): Desktop {
  let settings: DesktopSettings = {
    notifications: { crash: true, ready: true, ban: true, new_device: true },
    close_hint_shown: false,
  };
  let autostart = false;
  return {
    openFolder: () => Promise.resolve(),
    chooseFolder: () => Promise.resolve("C:\\Users\\ada\\ComfyUI"),
    chooseFile: () => Promise.resolve(null),
    windowState: () => Promise.resolve({ tray: true, first_run: true, platform: "linux" }),
    startsWithComputer: () => Promise.resolve(autostart),
    setStartsWithComputer: (enabled) => {
      autostart = enabled;
      return Promise.resolve();
    },
    settings: () => Promise.resolve(settings),
    setSettings: (changed) => {
      settings = changed;
      return Promise.resolve();
    },
    setLanguage: () => Promise.resolve(),
    onNavigate: () => () => undefined,
  };
}
