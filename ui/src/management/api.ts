import type { Result } from "../api/client";
import type { Backend, CallOptions } from "./backend/backend";
import type * as wire from "./types";

const id = encodeURIComponent;

/** The gateway's API in words of this app. */
export class Api {
  readonly #backend: Backend;

  constructor(backend: Backend) {
    this.#backend = backend;
  }

  me(): Promise<Result<wire.Me>> {
    return this.#backend.call("GET", "/me");
  }

  status(options?: CallOptions): Promise<Result<wire.Status>> {
    return this.#backend.call("GET", "/status", undefined, options);
  }

  commandEngine(command: "start" | "stop" | "restart", engine = "shared"): Promise<Result<void>> {
    const path = engine === "shared" ? `/engine/${command}` : `/engines/${id(engine)}/${command}`;
    return this.#backend.call("POST", path, {});
  }

  freeMemory(): Promise<Result<void>> {
    return this.#backend.call("POST", "/engine/free", { unload_models: true, free_memory: true });
  }

  engines(options?: CallOptions): Promise<Result<wire.Engines>> {
    return this.#backend.call("GET", "/engines", undefined, options);
  }

  statistics(options?: CallOptions): Promise<Result<wire.Statistics>> {
    return this.#backend.call("GET", "/engine/statistics", undefined, options);
  }

  engineLog(engine: string, after: number | null, options?: CallOptions): Promise<Result<wire.LogLines>> {
    const path = engine === "shared" ? "/engine/log" : `/engines/${id(engine)}/log`;
    return this.#backend.call("GET", `${path}?${position(after)}`, undefined, options);
  }

  ownLog(after: number | null, options?: CallOptions): Promise<Result<wire.LogLines>> {
    return this.#backend.call("GET", `/log?${position(after)}`, undefined, options);
  }

  audit(before: number | null): Promise<Result<wire.Audit>> {
    return this.#backend.call("GET", `/audit?limit=100${before === null ? "" : `&before=${before}`}`);
  }

  queue(options?: CallOptions): Promise<Result<wire.Queue>> {
    return this.#backend.call("GET", "/queue", undefined, options);
  }

  pauseQueue(pause: wire.QueuePause): Promise<Result<void>> {
    return this.#backend.call("POST", "/queue/pause", pause);
  }

  resumeQueue(): Promise<Result<void>> {
    return this.#backend.call("POST", "/queue/resume", {});
  }

  commandJob(job: string, command: "cancel" | "first" | "last"): Promise<Result<void>> {
    return this.#backend.call("POST", `/queue/jobs/${id(job)}/${command}`, {});
  }

  usage(days: number, options?: CallOptions): Promise<Result<wire.Usage>> {
    return this.#backend.call("GET", `/usage?days=${days}`, undefined, options);
  }

  people(options?: CallOptions): Promise<Result<{ users: wire.Person[] }>> {
    return this.#backend.call("GET", "/users", undefined, options);
  }

  addPerson(person: { username: string; password: string; admin: boolean }): Promise<Result<wire.Person>> {
    return this.#backend.call("POST", "/users", person);
  }

  changePerson(
    user: string,
    change: { username?: string; admin?: boolean; disabled?: boolean },
  ): Promise<Result<wire.Person>> {
    return this.#backend.call("PATCH", `/users/${id(user)}`, change);
  }

  resetPassword(user: string, password: string): Promise<Result<void>> {
    return this.#backend.call("POST", `/users/${id(user)}/password`, { new_password: password });
  }

  deletePerson(user: string, files: "keep" | "give" | "delete", to: string | null): Promise<Result<void>> {
    const heir = files === "give" && to !== null ? `&to=${id(to)}` : "";
    return this.#backend.call("DELETE", `/users/${id(user)}?files=${files}${heir}`);
  }

  sessionsOf(user: string): Promise<Result<wire.PersonSessions>> {
    return this.#backend.call("GET", `/users/${id(user)}/sessions`);
  }

  signOutEverywhere(user: string): Promise<Result<void>> {
    return this.#backend.call("DELETE", `/users/${id(user)}/sessions`);
  }

  invites(): Promise<Result<{ invites: wire.Invite[] }>> {
    return this.#backend.call("GET", "/invites");
  }

  invite(invite: { expire_hours: number; admin: boolean; note: string }): Promise<Result<wire.NewInvite>> {
    return this.#backend.call("POST", "/invites", invite);
  }

  withdrawInvite(invite: string): Promise<Result<void>> {
    return this.#backend.call("DELETE", `/invites/${id(invite)}`);
  }

  access(options?: CallOptions): Promise<Result<wire.Access>> {
    return this.#backend.call("GET", "/access", undefined, options);
  }

  replaceList(list: "whitelist" | "blacklist", text: string): Promise<Result<void>> {
    return this.#backend.call("PUT", `/access/${list}`, { text });
  }

  liftLockOut(kind: string, key: string): Promise<Result<void>> {
    return this.#backend.call("DELETE", "/access/lockouts", { kind, key });
  }

  unban(address: string): Promise<Result<void>> {
    return this.#backend.call("DELETE", "/access/bans", { address });
  }

  allowRefusedName(key: string, value: string): Promise<Result<void>> {
    return this.#backend.call("POST", "/access/refused-names", { key, value });
  }

  forgetRefusedName(key: string, value: string): Promise<Result<void>> {
    return this.#backend.call("DELETE", "/access/refused-names", { key, value });
  }

  sharing(options?: CallOptions): Promise<Result<wire.Sharing>> {
    return this.#backend.call("GET", "/sharing", undefined, options);
  }

  changeSharing(change: wire.SharingChange): Promise<Result<wire.Sharing>> {
    return this.#backend.call("PUT", "/sharing", change);
  }

  doctor(): Promise<Result<{ checks: wire.Check[] }>> {
    return this.#backend.call("GET", "/sharing/doctor");
  }

  config(): Promise<Result<wire.Config>> {
    return this.#backend.call("GET", "/config");
  }

  changeConfig(change: Record<string, unknown>): Promise<Result<wire.Config>> {
    return this.#backend.call("PUT", "/config", change);
  }

  configKeys(): Promise<Result<{ keys: wire.ConfigKey[] }>> {
    return this.#backend.call("GET", "/config/keys");
  }

  setup(): Promise<Result<wire.Setup>> {
    return this.#backend.call("GET", "/setup");
  }

  installations(): Promise<Result<wire.Installations>> {
    return this.#backend.call("GET", "/setup/installations");
  }

  checkInstallation(directory: string, python: string | null): Promise<Result<{ job: string }>> {
    return this.#backend.call("POST", "/setup/check", { directory, ...(python ? { python } : {}) });
  }

  install(directory: string, gpu: wire.Gpu): Promise<Result<{ job: string }>> {
    return this.#backend.call("POST", "/setup/install", { directory, gpu });
  }

  job(job: string): Promise<Result<wire.SetupJob>> {
    return this.#backend.call("GET", `/setup/jobs/${id(job)}`);
  }

  cancelJob(job: string): Promise<Result<void>> {
    return this.#backend.call("DELETE", `/setup/jobs/${id(job)}`);
  }

  finishSetup(finish: wire.SetupFinish): Promise<Result<void>> {
    return this.#backend.call("POST", "/setup/finish", finish);
  }

  resetOwnAdmin(username: string, password: string): Promise<Result<void>> {
    return this.#backend.call("POST", "/setup/admin", { username, password });
  }
}

function position(after: number | null): string {
  return after === null ? "lines=500" : `lines=500&after=${after}`;
}
