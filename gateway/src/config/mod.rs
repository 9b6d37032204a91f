//! `config.json`: one list of keys ([`KEYS`]), one typed form ([`Config`]), one way from text to
//! type that reports every fault at once and names its key.

mod file;
mod keys;
mod parse;

pub use file::{ConfigFile, ConfigFileError};
pub use keys::{KEYS, Key, Kind};
pub use parse::{ConfigErrors, Fault, Settings};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// All settings, complete. The names, types and defaults of the first block are the original
/// extension's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Environment variable that holds the signing key; a key is made and kept when it is unset.
    pub secret_key_env: String,
    /// Account file.
    pub users_db: String,
    /// Life of a sign-in, hours.
    pub access_token_expiration_hours: u32,
    /// Longest life of an API token, hours.
    pub max_access_token_expiration_hours: u32,
    /// Log file, below `logs/` unless absolute.
    pub log: String,
    /// Levels that are written to the log.
    pub log_levels: Vec<LogLevel>,
    /// Allow list file.
    pub whitelist: String,
    /// Deny list file.
    pub blacklist: String,
    /// Failed sign-ins of one address until it is put on the deny list; 0 is never.
    pub blacklist_after_attempts: u32,
    /// Unload models and free memory when somebody logs out.
    pub free_memory_on_logout: bool,
    /// Answer plain HTTP with a redirect to HTTPS.
    pub force_https: bool,
    /// A ComfyUI of his own for each user.
    pub separate_users: bool,
    /// ComfyUI-Manager for admins alone.
    pub manager_admin_only: bool,
    /// The ComfyUI to run.
    pub comfyui: ComfyUi,
    /// Where others reach it.
    pub sharing: Sharing,
    /// Reverse proxies whose `X-Forwarded-*` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Host names, beside this machine's own, by which it may be called.
    pub allowed_hosts: Vec<String>,
    /// Jobs on the GPU at once, or on each of several.
    pub gpu_slots: u32,
    /// CUDA numbers of the GPUs that users' own engines are spread over; empty leaves the choice to
    /// ComfyUI.
    pub gpus: Vec<String>,
    /// The line before the GPU.
    pub queue: Queue,
    /// Nodes that roles may not use.
    pub nodes: Nodes,
    /// Routes that custom nodes add, for users who are not admins.
    pub custom_node_routes: CustomNodeRoutes,
    /// Beginnings of paths of such routes that are open in any case.
    pub allowed_routes: Vec<String>,
    /// The files of models for users who are not admins.
    pub model_downloads: bool,
    /// Confinement of engines by the operating system.
    pub sandbox: Sandbox,
    /// Further paths a confined engine may read.
    pub sandbox_allow_read: Vec<String>,
    /// Further paths a confined engine may change.
    pub sandbox_allow_write: Vec<String>,
    /// TCP ports a confined engine may connect to.
    pub sandbox_allow_ports: Vec<String>,
    /// Custom nodes may change their own folders in engines of users too.
    pub sandbox_custom_nodes_write: bool,
    /// Largest file a confined engine may write, GiB; 0 is any.
    pub sandbox_max_file_gib: u32,
}

/// The line before the GPU. Limits of 0 are none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Queue {
    /// Share of an admin against others.
    pub weight_admins: u32,
    /// Share of a user against others.
    pub weight_users: u32,
    /// GPU time that jobs whose model is loaded may take out of turn, seconds.
    pub model_batch_seconds: u32,
    /// Waiting jobs of an admin.
    pub jobs_waiting_admins: u32,
    /// Waiting jobs of a user.
    pub jobs_waiting_users: u32,
    /// GPU time of an admin in one day, minutes.
    pub gpu_minutes_a_day_admins: u32,
    /// GPU time of a user in one day, minutes.
    pub gpu_minutes_a_day_users: u32,
    /// Longest job of an admin, minutes.
    pub longest_job_minutes_admins: u32,
    /// Longest job of a user, minutes.
    pub longest_job_minutes_users: u32,
    /// How long a job that is to end may go on before its engine is restarted, seconds.
    pub interrupt_grace_seconds: u32,
    /// How long finished jobs stay in the history, days.
    pub history_days: u32,
    /// Times of the day at which only the owner's jobs run.
    pub quiet_hours: Vec<String>,
    /// Hold jobs back while another program uses an NVIDIA GPU.
    pub yield_to_programs: bool,
    /// Hosts of this network that may be told of finished jobs.
    pub notify_hosts: Vec<String>,
}

impl Queue {
    /// How long a job that is to end may go on; `None`: for ever.
    pub(crate) fn interrupt_grace(&self) -> Option<Duration> {
        let seconds = self.interrupt_grace_seconds;
        (seconds > 0).then(|| Duration::from_secs(seconds.into()))
    }
}

/// Nodes that roles may not use: names of node classes, `*` at the end for any rest,
/// `@file-access` for the shipped list, `!` before a name that is allowed all the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nodes {
    /// Refused to users.
    pub deny: Vec<String>,
    /// Refused to admins.
    pub deny_admins: Vec<String>,
}

/// Routes that are not ComfyUI's own, for users who are not admins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CustomNodeRoutes {
    /// Open where the engine is confined by the operating system.
    Auto,
    /// Open.
    Allow,
    /// Refused.
    Deny,
}

/// The ComfyUI to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComfyUi {
    /// Directory with `main.py`, `demo`, or empty to look in the usual places.
    pub dir: String,
    /// Python to start it with, or empty to look for it.
    pub python: String,
    /// Further arguments for `main.py`.
    pub args: Vec<String>,
    /// `http://host:port` of a ComfyUI that somebody else runs, or empty.
    pub attach: String,
    /// Start with the gateway.
    pub autostart: bool,
    /// Stop a user's own engine after so many idle minutes; 0 is never.
    pub idle_stop_minutes: u32,
    /// Start again after a crash.
    pub restart: bool,
    /// Users' own engines alive at once.
    pub max_engines: u32,
    /// How long a program's request waits for an engine that starts, seconds.
    pub start_wait_seconds: u32,
}

/// Where others reach it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sharing {
    /// Listen on the LAN, not on this machine alone.
    pub enabled: bool,
    /// Port of the gateway.
    pub port: u16,
    /// Name in the LAN, without `.local`.
    pub name: String,
    /// Path below which a reverse proxy shows it, such as `/comfyui`; empty is the root.
    pub base_path: String,
    /// Encryption.
    pub tls: Tls,
}

/// Encryption of the shared address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Answer HTTPS; `force_https` implies it.
    pub enabled: bool,
    /// PEM file with the certificate chain, or empty to make one.
    pub certificate: String,
    /// PEM file with its key.
    pub key: String,
}

/// Level of a log line, named as in the original's `log_levels`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum LogLevel {
    /// Decisions off the happy path.
    Debug,
    /// Changes of state that a user would notice.
    Info,
    /// Odd but working.
    Warning,
    /// Broken, act now.
    Error,
}

/// Confinement of engines by the operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sandbox {
    /// Where the system can.
    Auto,
    /// Refuse to start engines where it cannot.
    Require,
    /// Never.
    Off,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            secret_key_env: "SECRET_KEY".into(),
            users_db: "users_db.json".into(),
            access_token_expiration_hours: 12,
            max_access_token_expiration_hours: 8760,
            log: "sentinel.log".into(),
            log_levels: vec![LogLevel::Info],
            whitelist: "whitelist.txt".into(),
            blacklist: "blacklist.txt".into(),
            blacklist_after_attempts: 0,
            free_memory_on_logout: false,
            force_https: false,
            separate_users: false,
            manager_admin_only: false,
            comfyui: ComfyUi {
                dir: String::new(),
                python: String::new(),
                args: Vec::new(),
                attach: String::new(),
                autostart: true,
                idle_stop_minutes: 30,
                restart: true,
                max_engines: 8,
                start_wait_seconds: 60,
            },
            sharing: Sharing {
                enabled: false,
                port: 8189,
                name: "comfyui".into(),
                base_path: String::new(),
                tls: Tls {
                    enabled: false,
                    certificate: String::new(),
                    key: String::new(),
                },
            },
            trusted_proxies: Vec::new(),
            allowed_hosts: Vec::new(),
            gpu_slots: 1,
            gpus: Vec::new(),
            queue: Queue {
                weight_admins: 1,
                weight_users: 1,
                model_batch_seconds: 5,
                jobs_waiting_admins: 0,
                jobs_waiting_users: 500,
                gpu_minutes_a_day_admins: 0,
                gpu_minutes_a_day_users: 0,
                longest_job_minutes_admins: 0,
                longest_job_minutes_users: 0,
                interrupt_grace_seconds: 60,
                history_days: 30,
                quiet_hours: Vec::new(),
                yield_to_programs: false,
                notify_hosts: Vec::new(),
            },
            nodes: Nodes {
                deny: vec!["@file-access".to_owned()],
                deny_admins: Vec::new(),
            },
            custom_node_routes: CustomNodeRoutes::Auto,
            allowed_routes: Vec::new(),
            model_downloads: false,
            sandbox: Sandbox::Auto,
            sandbox_allow_read: Vec::new(),
            sandbox_allow_write: Vec::new(),
            sandbox_allow_ports: vec!["53".into(), "80".into(), "443".into()],
            sandbox_custom_nodes_write: false,
            sandbox_max_file_gib: 0,
        }
    }
}

impl Config {
    /// Whether HTTPS is answered.
    pub fn tls_enabled(&self) -> bool {
        self.force_https || self.sharing.tls.enabled
    }

    /// Settings that work but weaken the guard, in plain words.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let lan = self.sharing.enabled;
        if lan && !self.tls_enabled() {
            warnings.push(
                "Shared on the LAN without encryption: whoever can listen to the network sees passwords. \
                 Set force_https to true."
                    .to_owned(),
            );
        }
        if lan && !self.manager_admin_only {
            warnings.push(
                "Every signed-in user may install code through ComfyUI-Manager. Set manager_admin_only to true."
                    .to_owned(),
            );
        }
        if lan && !self.separate_users {
            warnings.push(
                "All users share one ComfyUI: they see each other's pictures, queue and history."
                    .to_owned(),
            );
        }
        if self.sharing.tls.enabled && !self.force_https {
            warnings.push(
                "HTTPS is offered but not enforced: passwords can still be sent in clear. Set force_https to true."
                    .to_owned(),
            );
        }
        for network in &self.trusted_proxies {
            if network.prefix_len() == 0 {
                warnings.push(format!(
                    "trusted_proxies: {network} believes every address; anybody can pretend to be anybody."
                ));
            }
        }
        if self.blacklist_after_attempts > 0 && self.blacklist_after_attempts < 3 {
            warnings.push(
                "blacklist_after_attempts is below 3: a mistyped password bans a whole household."
                    .to_owned(),
            );
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_is_the_default() {
        let shipped = include_str!("../../../config.json");
        assert_eq!(
            Settings::parse(shipped).unwrap().config().unwrap(),
            Config::default()
        );
        let complete: serde_json::Value = serde_json::from_str(shipped).unwrap();
        assert_eq!(complete, serde_json::to_value(Config::default()).unwrap());
    }

    #[test]
    fn every_key_is_in_the_list_and_the_list_has_no_other() {
        fn leaves(prefix: &str, value: &serde_json::Value, found: &mut Vec<String>) {
            let serde_json::Value::Object(members) = value else {
                found.push(prefix.to_owned());
                return;
            };
            for (name, value) in members {
                let path = if prefix.is_empty() {
                    name.clone()
                } else {
                    format!("{prefix}.{name}")
                };
                leaves(&path, value, found);
            }
        }
        let mut found = Vec::new();
        leaves(
            "",
            &serde_json::to_value(Config::default()).unwrap(),
            &mut found,
        );
        let listed: Vec<_> = KEYS.iter().map(|key| key.path.to_owned()).collect();
        assert_eq!(found, listed);
    }

    #[test]
    fn defaults_for_this_machine_alone_need_no_warning() {
        assert!(Config::default().warnings().is_empty());
        let mut shared = Config::default();
        shared.sharing.enabled = true;
        assert_eq!(shared.warnings().len(), 3);
    }
}
