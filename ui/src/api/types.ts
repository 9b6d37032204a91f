/** What crosses the wire between the pages and the gateway. */

export interface Me {
  id: string;
  username: string;
  admin: boolean;
  via: "session" | "token";
  expires_at: string;
  can_step_up: boolean;
  admin_rights: boolean;
}

export interface Session {
  id: string;
  created_at: string;
  last_used_at: string | null;
  expires_at: string;
  address: string;
  user_agent: string;
  current: boolean;
}

export interface Token {
  id: string;
  name: string;
  created_at: string;
  expires_at: string;
  last_used_at: string | null;
  admin: boolean;
  current: boolean;
}

export interface NewToken {
  id: string;
  jwt_token: string;
  expires_at: string;
}

export type EngineState = "stopped" | "starting" | "ready" | "stopping" | "crashed" | "failed";

export interface Engine {
  state: EngineState;
  message: string;
  since: string;
  progress: number | null;
  retry_in: number | null;
  version: string | null;
  demo: boolean;
  /** The place in line while other engines have to start first. */
  place?: number | null;
  /** For admins with a session only. */
  log?: string[];
}

export interface SignedIn {
  message: string;
  jwt_token: string;
}

export interface Registration {
  new_user_username: string;
  new_user_password: string;
  username?: string;
  password?: string;
  setup_code?: string;
}

/** Why no job is sent to the graphics card at the moment. */
export interface QueueHold {
  reason: "owner" | "quiet_hours" | "other_program";
  since: string;
  until: string | null;
  until_idle: boolean;
}

/** Why nothing of one's own runs at the moment. */
export interface OwnHold extends Omit<QueueHold, "reason"> {
  reason: QueueHold["reason"] | "gpu_minutes";
}

/** Where a waiting job stands in the line of everybody. */
export interface QueuePlace {
  place: number;
  wait_seconds: number | null;
}

export interface FinishedJob {
  id: string;
  state: "completed" | "failed" | "cancelled";
  finished_at: string;
  reason: string | null;
}

/** The queue as one person may see it. */
export interface OwnQueue {
  hold: OwnHold | null;
  running: { id: string; started_at: string }[];
  waiting: number;
  others_waiting: number;
  next: QueuePlace | null;
  last: QueuePlace | null;
  /** Newest first, of the last hour. */
  finished: FinishedJob[];
}

/** Whom to tell when the own jobs are done. */
export interface NotificationSettings {
  kind: "none" | "ntfy" | "webhook";
  address: string;
  failures_only: boolean;
}

export interface UsageDay {
  /** Such as `2026-11-25`. */
  day: string;
  gpu_seconds: number;
  jobs: number;
  failed: number;
  waiting_seconds: number;
}

export interface OwnUsage {
  days: UsageDay[];
  /** `null` where there is no limit. */
  limits: {
    jobs_waiting: number | null;
    gpu_minutes_a_day: number | null;
    longest_job_minutes: number | null;
  };
  used_today_seconds: number;
}
