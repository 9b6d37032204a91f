import { invoke } from "@tauri-apps/api/core";
import { listen } from "@tauri-apps/api/event";
import { readFailure, type Result } from "../../api/client";
import type { Backend, Desktop, DesktopSettings, Method, WindowState } from "./backend";
import { saveText } from "./http";

interface Answer {
  status: number;
  body: string;
  content_type: string;
}

/** The gateway in the same process, as the owner of the machine, who needs no password. */
export class TauriBackend implements Backend {
  readonly desktop: Desktop = {
    openFolder: (kind) => invoke("open_folder", { kind }),
    chooseFolder: () => invoke<string | null>("choose_folder"),
    chooseFile: () => invoke<string | null>("choose_file"),
    windowState: () => invoke<WindowState>("window_state"),
    startsWithComputer: () => invoke<boolean>("autostart_get"),
    setStartsWithComputer: (enabled) => invoke("autostart_set", { enabled }),
    settings: () => invoke<DesktopSettings>("desktop_settings_get"),
    setSettings: (settings) => invoke("desktop_settings_set", { settings }),
    setLanguage: (language) => invoke("language_set", { language }),
    onNavigate: (navigate) =>
      endLater(
        listen<string>("navigate", (event) => {
          navigate(event.payload);
        }),
      ),
  };

  async call<Value>(method: Method, path: string, body?: object): Promise<Result<Value>> {
    let answer: Answer;
    try {
      answer = await invoke<Answer>("api", { method, path, body: body ? JSON.stringify(body) : "" });
    } catch {
      return { kind: "failed", failure: { code: "unreachable", message: "", status: 0 } };
    }
    const value = parse(answer);
    if (answer.status >= 200 && answer.status < 300) return { kind: "ok", value: value as Value };
    return { kind: "failed", failure: readFailure(answer.status, value) };
  }

  async download(path: string, name: string): Promise<Result<void>> {
    const answer = await this.call<string>("GET", path);
    if (answer.kind === "failed") return answer;
    saveText(answer.value, name);
    return { kind: "ok", value: undefined };
  }

  openComfyUi(): Promise<void> {
    return invoke("open_comfyui");
  }

  async copy(text: string): Promise<boolean> {
    try {
      await invoke("copy_text", { text });
      return true;
    } catch {
      return false;
    }
  }

  onStatusChange(changed: () => void): () => void {
    return endLater(listen("status-changed", changed));
  }
}

function parse({ body, content_type: type }: Answer): unknown {
  if (!type.includes("json")) return body;
  try {
    return JSON.parse(body) as unknown;
  } catch {
    return null;
  }
}

/** Registering takes a moment; ending it before that is done ends it as soon as it is. */
function endLater(registered: Promise<() => void>): () => void {
  return () => {
    void registered.then((end) => {
      end();
    });
  };
}
