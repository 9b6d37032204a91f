/** Counts down the seconds in which no further attempt is accepted. */
export class LockOut {
  #remaining = $state(0);
  #timer: ReturnType<typeof setInterval> | undefined;

  get remaining(): number {
    return this.#remaining;
  }

  get active(): boolean {
    return this.#remaining > 0;
  }

  /** Starts the countdown anew; `onOver` is called when it has run out. */
  begin(seconds: number, onOver: () => void = () => undefined): void {
    // By the clock rather than by ticks: a phone that slept has slept its time.
    const end = Date.now() + seconds * 1000;
    clearInterval(this.#timer);
    this.#remaining = Math.ceil(seconds);
    this.#timer = setInterval(() => {
      this.#remaining = Math.max(0, Math.ceil((end - Date.now()) / 1000));
      if (this.#remaining > 0) return;
      this.stop();
      onOver();
    }, 250);
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#remaining = 0;
  }
}
