import { duration } from "../i18n/format";
import { hasText, t, type MessageKey } from "../i18n/language.svelte";

/** Why a call did not succeed: a code to act on, and the gateway's own safe sentence. */
export interface Failure {
  /** One of the gateway's codes, or `unreachable` or `unexpected` from the client itself. */
  code: string;
  message: string;
  status: number;
  /** How long the next attempt has to wait: with `locked_out`, and with the wrong password that locks. */
  remainingSeconds?: number;
  /** The bad line of a refused list. */
  line?: number;
  /** The bad keys of refused settings. */
  faults?: Fault[];
}

/** What is wrong with the value of a key. */
export interface Fault {
  key: string;
  message: string;
}

/** For how many seconds no further attempt is accepted; the wrong password that locks out says so itself. */
export function lockedFor(failure: Failure): number {
  return failure.remainingSeconds ?? (failure.code === "locked_out" ? 60 : 0);
}

/** The text for a failure in the person's language; the only place where codes become words. */
export function describe(failure: Failure): string {
  if (failure.code === "locked_out") {
    return t("error.locked_out", { time: duration(failure.remainingSeconds ?? 60) });
  }
  const key = `error.${failure.code}`;
  if (hasText(key)) return t(key as PlainErrorKey);
  return failure.message || t("error.unexpected");
}

type PlainErrorKey = Exclude<Extract<MessageKey, `error.${string}`>, "error.locked_out">;
