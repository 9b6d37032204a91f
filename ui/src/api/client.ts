import { at } from "../addresses";
import type { Failure, Fault } from "./failure";
import type {
  Engine,
  Me,
  NewToken,
  NotificationSettings,
  OwnUsage,
  Registration,
  Session,
  SignedIn,
  Token,
} from "./types";

export type Result<Value> = { kind: "ok"; value: Value } | { kind: "failed"; failure: Failure };

const requestTimeout = 30_000;

/** How far the gateway's clock is ahead of this device's, in milliseconds, as of the last answer. */
let clockOffset = 0;

/** The present time by the gateway's clock, which its timestamps were written with. */
export function gatewayNow(): number {
  return Date.now() + clockOffset;
}

// The doors, kept from the original ComfyUI Sentinel.

export function signIn(username: string, password: string): Promise<Result<SignedIn>> {
  return call("POST", "/login", { username, password });
}

export function register(registration: Registration): Promise<Result<{ message: string }>> {
  return call("POST", "/register", registration);
}

export function generateToken(
  username: string,
  password: string,
  name: string,
  expireHours: number,
): Promise<Result<SignedIn>> {
  return call("POST", "/generate_token", { username, password, name, expire_hours: expireHours });
}

export function join(code: string, username: string, password: string): Promise<Result<{ message: string }>> {
  return call("POST", "/join", { code, username, password });
}

// The own account.

export function me(): Promise<Result<Me>> {
  return call("GET", "/sentinel/api/me");
}

/** Asks for the proof that admin calls need; it lives in memory only. */
export function stepUp(password: string): Promise<Result<{ proof: string; expires_in: number }>> {
  return call("POST", "/sentinel/api/step-up", { password });
}

export function changePassword(currentPassword: string, newPassword: string): Promise<Result<void>> {
  return call("POST", "/sentinel/api/password", {
    current_password: currentPassword,
    new_password: newPassword,
  });
}

export function sessions(): Promise<Result<{ sessions: Session[] }>> {
  return call("GET", "/sentinel/api/sessions");
}

export function endSession(id: string): Promise<Result<void>> {
  return call("DELETE", `/sentinel/api/sessions/${encodeURIComponent(id)}`);
}

export function tokens(): Promise<Result<{ tokens: Token[] }>> {
  return call("GET", "/sentinel/api/tokens");
}

export function createToken(request: {
  name: string;
  expire_hours: number;
  password: string;
  admin?: boolean;
}): Promise<Result<NewToken>> {
  return call("POST", "/sentinel/api/tokens", request);
}

export function revokeToken(id: string): Promise<Result<void>> {
  return call("DELETE", `/sentinel/api/tokens/${encodeURIComponent(id)}`);
}

export function notifications(): Promise<Result<NotificationSettings>> {
  return call("GET", "/sentinel/api/notifications");
}

export function setNotifications(settings: NotificationSettings): Promise<Result<NotificationSettings>> {
  return call("PUT", "/sentinel/api/notifications", settings);
}

export function testNotifications(): Promise<Result<void>> {
  return call("POST", "/sentinel/api/notifications/test", {});
}

export function ownUsage(days: number): Promise<Result<OwnUsage>> {
  return call("GET", `/sentinel/api/usage/mine?days=${days}`);
}

// ComfyUI itself.

export function engine(): Promise<Result<Engine>> {
  return call("GET", "/sentinel/api/engine");
}

export function commandEngine(command: "start" | "stop" | "restart", proof: string): Promise<Result<void>> {
  return call("POST", `/sentinel/api/engine/${command}`, {}, { "X-Sentinel-Proof": proof });
}

export async function call<Value>(
  method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE",
  path: string,
  body?: object,
  headers: Record<string, string> = {},
): Promise<Result<Value>> {
  let response: Response;
  let answer: unknown;
  try {
    response = await fetch(at(path), {
      method,
      headers: {
        Accept: "application/json",
        ...(body ? { "Content-Type": "application/json" } : {}),
        ...headers,
      },
      ...(body ? { body: JSON.stringify(body) } : {}),
      cache: "no-store",
      signal: AbortSignal.timeout(requestTimeout),
    });
    answer = parse(response, await response.text());
  } catch {
    return { kind: "failed", failure: { code: "unreachable", message: "", status: 0 } };
  }
  followClock(response);
  if (response.ok) return { kind: "ok", value: answer as Value };
  return { kind: "failed", failure: readFailure(response.status, answer) };
}

function parse(response: Response, text: string): unknown {
  if (response.headers.get("Content-Type")?.startsWith("text/csv")) return text;
  try {
    return JSON.parse(text) as unknown;
  } catch {
    // 202 and 204 have no body; an intermediary may answer with a page of its own.
    return null;
  }
}

/** Reads why a call was refused from the status and the parsed body of its answer. */
export function readFailure(status: number, answer: unknown): Failure {
  const fields: Record<string, unknown> = typeof answer === "object" && answer !== null ? { ...answer } : {};
  const remaining = fields["remaining_seconds"];
  return {
    status,
    code: typeof fields["code"] === "string" ? fields["code"] : "unexpected",
    message: typeof fields["error"] === "string" ? fields["error"] : "",
    ...(typeof remaining === "number" ? { remainingSeconds: remaining } : {}),
    ...(typeof fields["line"] === "number" ? { line: fields["line"] } : {}),
    ...(Array.isArray(fields["errors"]) ? { faults: fields["errors"].filter(isFault) } : {}),
  };
}

function isFault(value: unknown): value is Fault {
  const fault = value as Partial<Fault> | null;
  return typeof fault?.key === "string" && typeof fault.message === "string";
}

function followClock(response: Response): void {
  const date = Date.parse(response.headers.get("Date") ?? "");
  // The header has whole seconds; below two of them the clocks agree.
  if (!Number.isNaN(date)) clockOffset = Math.abs(date - Date.now()) < 2000 ? 0 : date - Date.now();
}
