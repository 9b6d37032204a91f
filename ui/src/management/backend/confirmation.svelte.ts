import type { Failure } from "../../api/failure";

type Prove = (password: string) => Promise<Failure | null>;

/** Asks the person for the password: one dialog, however many calls wait for it. */
export class Confirmation {
  /** Whether the dialog is to be shown. */
  asking = $state(false);
  /** Whether a call in the background was refused since the last confirmation. */
  expired = $state(false);
  #prove: Prove | undefined;
  #waiting: ((confirmed: boolean) => void)[] = [];

  ask(prove: Prove): Promise<boolean> {
    this.#prove = prove;
    this.asking = true;
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  expire(): void {
    this.expired = true;
  }

  /** The dialog's answer; gives what went wrong, or nothing. */
  async confirm(password: string): Promise<Failure | null> {
    const failure = (await this.#prove?.(password)) ?? null;
    if (!failure) this.#end(true);
    return failure;
  }

  cancel(): void {
    this.#end(false);
  }

  #end(confirmed: boolean): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    this.asking = false;
    if (confirmed) this.expired = false;
    for (const resolve of waiting) resolve(confirmed);
  }
}
