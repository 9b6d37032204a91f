/** What crosses the wire between the pages and the gateway. */

export interface Me {
  id: string;
  username: string;
  admin: boolean;
  via: "session" | "token";
  expires_at: string;
  can_step_up: boolean;
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
