/** What crosses the wire between the management app and the gateway. */
import type { Engine, EngineState, QueueHold, Session, Token, UsageDay } from "../api/types";

export type { Engine, EngineState, Me, QueueHold, Session, Token, UsageDay } from "../api/types";

export interface SignedInPerson {
  username: string;
  address: string;
  last_used_at: string | null;
}

export interface Status {
  engine: Engine;
  listening: string[];
  connections: number;
  signed_in: SignedInPerson[];
  warnings: string[];
}

export interface LogLine {
  seq: number;
  at: string;
  text: string;
  /** Of ComfyUI's log. */
  stream?: "out" | "err";
  /** Of Sentinel's own log. */
  level?: string;
  target?: string;
}

export interface LogLines {
  lines: LogLine[];
  next: number;
}

export interface Sample {
  at: string;
  cpu_percent: number;
  memory_bytes: number;
  gpu_percent: number | null;
  gpu_memory_bytes: number | null;
  gpu_memory_total_bytes: number | null;
}

export interface Statistics {
  interval_seconds: number;
  samples: Sample[];
  memory_total_bytes: number;
  gpu: { name: string } | null;
}

export interface EngineOfUser {
  /** `shared` or the id of a user. */
  id: string;
  username: string | null;
  state: EngineState;
  message: string;
  since: string;
  version: string | null;
  memory_bytes: number | null;
  gpu_memory_bytes: number | null;
  jobs: number | null;
  jobs_waiting: number | null;
  sockets: number;
  last_used_at: string | null;
  sandbox?: { state: "confined" | "partly" | "off" | "unavailable"; detail: string };
}

export interface Engines {
  mode: "shared" | "separate";
  limit: number;
  engines: EngineOfUser[];
  waiting: string[];
}

export interface Person {
  id: string;
  username: string;
  admin: boolean;
  disabled: boolean;
  created_at: string | null;
  last_seen_at: string | null;
  sessions: number;
  tokens: number;
  storage_bytes?: number | null;
}

export interface PersonSessions {
  sessions: Session[];
  tokens: Token[];
}

export interface Invite {
  id: string;
  created_at: string;
  expires_at: string;
  admin: boolean;
  note: string | null;
}

export interface NewInvite {
  id: string;
  code: string;
  url: string;
  expires_at: string;
}

export interface AddressList {
  text: string;
  entries: number;
  error: string | { line: number; message: string } | null;
}

export interface Ban {
  address: string;
  reason: string;
  since?: string | null;
  /** When it ends by itself. */
  until?: string | null;
}

export interface LockOut {
  kind: "address" | "account";
  key: string;
  failed_attempts: number;
  remaining_seconds: number;
}

export interface Access {
  whitelist: AddressList;
  blacklist: AddressList;
  bans: Ban[];
  lockouts: LockOut[];
  trusted_proxies: string[];
  /** Absent where an older gateway answers. */
  refused_names?: RefusedName[];
}

/** A name or proxy because of which somebody near was refused. */
export interface RefusedName {
  key: "allowed_hosts" | "trusted_proxies";
  value: string;
  address: string;
  at: string;
  count: number;
  public: boolean;
}

export interface SharedAddress {
  address: string;
  interface: string;
  kind: "ethernet" | "wifi" | "virtual" | "other";
  url: string;
  preferred: boolean;
}

export interface Sharing {
  enabled: boolean;
  port: number;
  name: string;
  addresses: SharedAddress[];
  /** Best first. */
  urls: string[];
  mdns: { name: string; state: "announced" | "off" | "failed"; fault: string | null };
  tls: {
    enabled: boolean;
    forced: boolean;
    made: boolean;
    sha256: string | null;
    expires_at: string | null;
  } | null;
  fault: string | null;
  /** Absent where an older gateway answers. */
  port_taken?: PortTaken | null;
}

export interface SharingChange {
  enabled?: boolean;
  port?: number;
  name?: string;
  tls?: boolean;
  force_https?: boolean;
}

export interface Check {
  id: string;
  state: "ok" | "warning" | "problem" | "unknown";
  title: string;
  detail: string;
  hint: string | null;
  code?: string;
  values?: Record<string, string | number>;
}

/** The port that the settings ask for is another program's. */
export interface PortTaken {
  port: number;
  program: string | null;
  process: number | null;
  next_free: number | null;
}

export type Setting = boolean | number | string | string[];

export interface ConfigKey {
  path: string;
  kind:
    | "boolean"
    | "integer"
    | "text"
    | "name"
    | "host_label"
    | "base_path"
    | "url"
    | "choice"
    | "choices"
    | "texts"
    | "networks"
    | "host_names";
  min?: number | null;
  max?: number | null;
  choices?: string[] | null;
  meaning: string;
  default: Setting;
  needs_restart: boolean;
}

export interface Config {
  config: Record<string, unknown>;
  restart_required: string[];
}

export interface AuditEntry {
  id: number;
  at: string;
  event: string;
  user: string | null;
  address: string | null;
  detail: string | null;
}

export interface Audit {
  entries: AuditEntry[];
  next: number | null;
}

export interface Setup {
  finished: boolean;
  has_admin: boolean;
  comfyui_dir: string;
}

export interface Installation {
  kind: string;
  directory: string;
  python: string | null;
  version: string | null;
}

export type Gpu = "nvidia" | "amd" | "cpu" | "mac";

export interface Installations {
  installations: Installation[];
  /** That ComfyUI can be installed for, the likeliest first. */
  gpus: Gpu[];
}

export interface SetupJob {
  id: string;
  kind: string;
  state: "running" | "done" | "failed" | "cancelled";
  progress: number | null;
  step: string;
  message: string | null;
  log: string[];
  result: { version: string | null; python: string | null; directory: string } | null;
}

export interface SetupFinish {
  comfyui: { dir: string; python: string };
  admin: { username: string; password: string } | null;
  sharing: { enabled: boolean };
  separate_users: boolean;
  manager_admin_only: boolean;
}

/** A job in the line of everybody: whose it is, never what is in it. */
export interface QueueJob {
  id: string;
  user_id: string;
  username: string;
  state: "running" | "waiting";
  submitted_at: string;
  started_at: string | null;
  place: number | null;
  wait_seconds: number | null;
  attempts: number;
}

export interface Queue {
  hold: QueueHold | null;
  slots: number;
  running: QueueJob[];
  /** In the expected order; the first 500. */
  waiting: QueueJob[];
  waiting_total: number;
}

export interface QueuePause {
  when: "after_job" | "now";
  until: string | null;
  until_idle: boolean;
}

export interface UserUsageDay extends UsageDay {
  user_id: string;
  username: string;
}

export interface Usage {
  days: UserUsageDay[];
  storage: { user_id: string; username: string; bytes: number }[];
}
