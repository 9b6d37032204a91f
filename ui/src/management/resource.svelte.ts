import type { Result } from "../api/client";
import type { Failure } from "../api/failure";
import type { CallOptions } from "./backend/backend";

/** Something read from the gateway: not there yet, there, or not to be had. */
export class Resource<Value> {
  value = $state.raw<Value>();
  failure = $state.raw<Failure>();
  loading = $state(false);
  readonly #read: (options: CallOptions) => Promise<Result<Value>>;

  constructor(read: (options: CallOptions) => Promise<Result<Value>>) {
    this.#read = read;
  }

  async load(options: CallOptions = {}): Promise<void> {
    this.loading = true;
    const result = await this.#read(options);
    this.loading = false;
    if (result.kind === "ok") {
      this.value = result.value;
      this.failure = undefined;
    } else if (result.failure.code !== "step_up_required" || this.value === undefined) {
      this.failure = result.failure;
    }
  }
}

/** Calls `action` now and then as long as the page is seen; give the result to an effect. */
export function repeatedly(action: () => Promise<void>, milliseconds: number): () => void {
  let over = false;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const again = (): void => {
    timer = setTimeout(() => {
      if (document.hidden) again();
      else
        void action().finally(() => {
          if (!over) again();
        });
    }, milliseconds);
  };
  again();
  return () => {
    over = true;
    clearTimeout(timer);
  };
}
