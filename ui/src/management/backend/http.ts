import { at } from "../../addresses";
import { call, stepUp, type Result } from "../../api/client";
import type { Failure } from "../../api/failure";
import { copyText } from "../../browser/clipboard";
import { signInAddress } from "../../browser/navigation";
import type { Backend, CallOptions, Method } from "./backend";
import type { Confirmation } from "./confirmation.svelte";

const base = "/sentinel/api";

/** The gateway over the network, as an admin in a browser who proves now and then that it is him. */
export class HttpBackend implements Backend {
  readonly desktop = null;
  /** In memory only: a script of ComfyUI's page on this origin must not find it. */
  #proof: string | null = null;
  readonly #confirmation: Confirmation;

  constructor(confirmation: Confirmation) {
    this.#confirmation = confirmation;
  }

  async call<Value>(
    method: Method,
    path: string,
    body?: object,
    options: CallOptions = {},
  ): Promise<Result<Value>> {
    const first = await this.#send<Value>(method, path, body);
    if (!isStepUp(first)) return this.#checked(first);
    if (options.background) {
      this.#confirmation.expire();
      return first;
    }
    const confirmed = await this.#confirmation.ask((password) => this.#prove(password));
    // Whoever closes the dialog has called it off.
    if (!confirmed) return { kind: "failed", failure: { code: "called_off", message: "", status: 0 } };
    return this.#checked(await this.#send<Value>(method, path, body));
  }

  async download(path: string, name: string): Promise<Result<void>> {
    const answer = await this.call<string>("GET", path);
    if (answer.kind === "failed") return answer;
    saveText(answer.value, name);
    return { kind: "ok", value: undefined };
  }

  openComfyUi(): Promise<void> {
    location.assign(at("/"));
    return Promise.resolve();
  }

  copy(text: string): Promise<boolean> {
    return copyText(text);
  }

  onStatusChange(): () => void {
    return () => undefined;
  }

  async #prove(password: string): Promise<Failure | null> {
    const answer = await stepUp(password);
    if (answer.kind === "failed") return answer.failure;
    this.#proof = answer.value.proof;
    return null;
  }

  #send<Value>(method: Method, path: string, body?: object): Promise<Result<Value>> {
    return call<Value>(method, base + path, body, this.#proof ? { "X-Sentinel-Proof": this.#proof } : {});
  }

  #checked<Value>(result: Result<Value>): Result<Value> {
    if (result.kind === "failed" && result.failure.code === "sign_in_required")
      location.assign(signInAddress());
    return result;
  }
}

/** Lets the browser save a text as a file. */
export function saveText(text: string, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = name;
  link.click();
  setTimeout(() => {
    URL.revokeObjectURL(link.href);
  }, 10_000);
}

function isStepUp(result: Result<unknown>): boolean {
  return result.kind === "failed" && result.failure.code === "step_up_required";
}
