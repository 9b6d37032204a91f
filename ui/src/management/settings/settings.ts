import { isAddressOrRange } from "../address-list";
import type { ConfigKey, Setting } from "../types";

/** The keys by what a person wants to achieve; keys that only a newer gateway knows come under `more`. */
export const groups = {
  comfyui: [
    "comfyui.dir",
    "comfyui.python",
    "comfyui.args",
    "comfyui.attach",
    "comfyui.autostart",
    "comfyui.restart",
    "comfyui.start_wait_seconds",
  ],
  people: ["separate_users", "comfyui.max_engines", "comfyui.idle_stop_minutes", "free_memory_on_logout"],
  queue: [
    "gpu_slots",
    "gpus",
    "queue.quiet_hours",
    "queue.yield_to_programs",
    "queue.weight_users",
    "queue.weight_admins",
    "queue.model_batch_seconds",
    "queue.jobs_waiting_users",
    "queue.jobs_waiting_admins",
    "queue.gpu_minutes_a_day_users",
    "queue.gpu_minutes_a_day_admins",
    "queue.longest_job_minutes_users",
    "queue.longest_job_minutes_admins",
    "queue.notify_hosts",
    "queue.interrupt_grace_seconds",
    "queue.history_days",
  ],
  safety: [
    "manager_admin_only",
    "nodes.deny",
    "nodes.deny_admins",
    "sandbox",
    "sandbox_allow_read",
    "sandbox_allow_write",
    "sandbox_allow_ports",
    "sandbox_custom_nodes_write",
    "sandbox_max_file_gib",
    "custom_node_routes",
    "allowed_routes",
    "model_downloads",
  ],
  sign_in: ["access_token_expiration_hours", "max_access_token_expiration_hours", "blacklist_after_attempts"],
  sharing: [
    "sharing.enabled",
    "sharing.name",
    "sharing.port",
    "sharing.tls.enabled",
    "force_https",
    "sharing.tls.certificate",
    "sharing.tls.key",
  ],
  network: ["trusted_proxies", "allowed_hosts", "sharing.base_path"],
  files: ["log", "log_levels", "users_db", "whitelist", "blacklist", "secret_key_env"],
  more: [],
} as const satisfies Record<string, readonly string[]>;

export type Group = keyof typeof groups;
export const groupNames = Object.keys(groups) as Group[];

export function keysOf(group: Group, keys: readonly ConfigKey[]): ConfigKey[] {
  if (group === "more") {
    const known: string[] = Object.values(groups).flat();
    return keys.filter(({ path }) => !known.includes(path));
  }
  const order: readonly string[] = groups[group];
  return order.flatMap((path) => keys.find((key) => key.path === path) ?? []);
}

/** The value at a path such as `sharing.tls.key`. */
export function valueAt(config: Record<string, unknown>, path: string): Setting | undefined {
  let value: unknown = config;
  for (const part of path.split(".")) {
    if (typeof value !== "object" || value === null) return undefined;
    value = (value as Record<string, unknown>)[part];
  }
  return value as Setting | undefined;
}

/** Changes by path in the shape of `config.json`. */
export function nested(changes: ReadonlyMap<string, Setting>): Record<string, unknown> {
  const made: Record<string, unknown> = {};
  for (const [path, value] of changes) {
    const parts = path.split(".");
    const last = parts.pop() ?? path;
    let place = made;
    for (const part of parts) place = (place[part] ??= {}) as Record<string, unknown>;
    place[last] = value;
  }
  return made;
}

export function isSame(left: Setting | undefined, right: Setting | undefined): boolean {
  return JSON.stringify(left) === JSON.stringify(right);
}

export type SettingFault =
  "number" | "range" | "empty" | "host_label" | "base_path" | "url" | "network" | "host_name";

/** What is wrong with a value, by the gateway's rules. Numbers come as they were typed. */
export function faultOf(key: ConfigKey, value: Setting): SettingFault | null {
  switch (key.kind) {
    case "integer": {
      if (!/^\d+$/.test(String(value))) return "number";
      const number = Number(value);
      return number < (key.min ?? 0) || number > (key.max ?? Number.MAX_SAFE_INTEGER) ? "range" : null;
    }
    case "name":
      return String(value).trim() === "" ? "empty" : null;
    case "host_label":
      return /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/i.test(String(value)) ? null : "host_label";
    case "base_path":
      return /^(?:\/[a-z0-9._~-]+)*\/?$/i.test(String(value)) ? null : "base_path";
    case "url":
      return value === "" || /^http:\/\/[^/\s]+\/?$/i.test(String(value)) ? null : "url";
    case "networks":
      return (value as string[]).every(isAddressOrRange) ? null : "network";
    case "host_names":
      return (value as string[]).every((name) => /^[a-z0-9.-]+$/i.test(name)) ? null : "host_name";
    case "boolean":
    case "text":
    case "choice":
    case "choices":
    case "texts":
      return null;
  }
}

/** The entries of a field with one in each line. */
export function entriesOf(text: string): string[] {
  return text
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "");
}
