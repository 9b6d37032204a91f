import type { Result } from "../../api/client";
import type { Language } from "../../i18n";

export type Method = "GET" | "POST" | "PUT" | "PATCH" | "DELETE";

export interface CallOptions {
  /** Nobody waits for it: it never asks for a password and fails with `step_up_required` instead. */
  background?: boolean;
}

/** The way from the management app to the gateway: over the network, or inside the desktop window. */
export interface Backend {
  /** `path` is below `/sentinel/api`, for example `/users`. */
  call<Value>(method: Method, path: string, body?: object, options?: CallOptions): Promise<Result<Value>>;
  /** Fetches a file and hands it to the person; says what went wrong. */
  download(path: string, name: string): Promise<Result<void>>;
  /** Opens ComfyUI's own page, signed in. */
  openComfyUi(): Promise<void>;
  copy(text: string): Promise<boolean>;
  /** Calls back when the status may have changed, if the gateway can tell; gives the way to end it. */
  onStatusChange(changed: () => void): () => void;
  /** What only the app on the machine itself can do. */
  readonly desktop: Desktop | null;
}

export interface DesktopSettings {
  notifications: Record<NotificationKind, boolean>;
  close_hint_shown: boolean;
}

export const notificationKinds = ["crash", "ready", "ban", "new_device"] as const;
export type NotificationKind = (typeof notificationKinds)[number];

export interface WindowState {
  /** Whether the app goes on in the tray when its window is closed. */
  tray: boolean;
  first_run: boolean;
  platform: "linux" | "windows" | "macos";
}

export interface Desktop {
  openFolder(kind: "logs" | "data"): Promise<void>;
  chooseFolder(): Promise<string | null>;
  chooseFile(): Promise<string | null>;
  windowState(): Promise<WindowState>;
  startsWithComputer(): Promise<boolean>;
  setStartsWithComputer(enabled: boolean): Promise<void>;
  settings(): Promise<DesktopSettings>;
  setSettings(settings: DesktopSettings): Promise<void>;
  /** Tells the tray which language was chosen. */
  setLanguage(language: Language): Promise<void>;
  /** Calls back when the tray wants a page shown; gives the way to end it. */
  onNavigate(navigate: (hash: string) => void): () => void;
}
