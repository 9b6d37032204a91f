//! The one list of configuration keys: path, type, meaning.

/// What a value must be.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// A whole number within bounds.
    Integer {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// Any text.
    Text,
    /// Text that must not be empty.
    Name,
    /// A label of a host name: letters, digits, hyphens.
    HostLabel,
    /// A path such as `/comfyui`, or empty.
    BasePath,
    /// `http://host:port` or empty.
    UrlOrEmpty,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list of these words.
    Choices(&'static [&'static str]),
    /// A list of texts.
    Texts,
    /// A list of absolute paths.
    Paths,
    /// A list of TCP ports, written as texts.
    Ports,
    /// A list of addresses and CIDR ranges.
    Networks,
    /// A list of host names.
    HostNames,
    /// A list of node classes, see [`crate::config::Nodes`].
    NodeNames,
    /// A list of paths below the address, such as `/pack/`.
    Routes,
    /// A list of whole numbers, written as texts.
    Numerals,
    /// A list of times of the day or the week, such as `22:00-07:00`.
    QuietHours,
}

/// One configuration key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Name, with dots between levels.
    pub path: &'static str,
    /// Type and bounds.
    pub kind: Kind,
    /// What it does, for people.
    pub meaning: &'static str,
    /// Whether a change waits for the next start of Sentinel or ComfyUI.
    pub needs_restart: bool,
}

const fn key(path: &'static str, kind: Kind, needs_restart: bool, meaning: &'static str) -> Key {
    Key {
        path,
        kind,
        meaning,
        needs_restart,
    }
}

const LIMIT: Kind = Kind::Integer {
    min: 0,
    max: 1_000_000,
};

/// Every key, in the order of `config.json`.
pub const KEYS: &[Key] = &[
    key(
        "secret_key_env",
        Kind::Name,
        true,
        "Environment variable with the signing key; unset: a key is made and kept.",
    ),
    key("users_db", Kind::Name, true, "Account file."),
    key(
        "access_token_expiration_hours",
        Kind::Integer { min: 1, max: 87600 },
        false,
        "How long a sign-in lasts, in hours.",
    ),
    key(
        "max_access_token_expiration_hours",
        Kind::Integer { min: 1, max: 87600 },
        false,
        "Longest life of an API token, in hours.",
    ),
    key(
        "log",
        Kind::Name,
        true,
        "Log file, in the folder logs unless absolute.",
    ),
    key(
        "log_levels",
        Kind::Choices(&["DEBUG", "INFO", "WARNING", "ERROR"]),
        true,
        "Levels that are written to the log; ERROR always is.",
    ),
    key(
        "whitelist",
        Kind::Name,
        true,
        "Allow list: if it has entries, only these addresses get in.",
    ),
    key(
        "blacklist",
        Kind::Name,
        true,
        "Deny list: these addresses never get in.",
    ),
    key(
        "blacklist_after_attempts",
        Kind::Integer {
            min: 0,
            max: 1_000_000,
        },
        false,
        "Failed sign-ins until an address is put on the deny list; 0: never.",
    ),
    key(
        "free_memory_on_logout",
        Kind::Boolean,
        false,
        "Unload models and free memory when somebody logs out.",
    ),
    key(
        "force_https",
        Kind::Boolean,
        false,
        "Encrypt, and send plain HTTP to HTTPS.",
    ),
    key(
        "separate_users",
        Kind::Boolean,
        false,
        "A ComfyUI of his own for each user.",
    ),
    key(
        "manager_admin_only",
        Kind::Boolean,
        false,
        "Only admins may use ComfyUI-Manager, which installs code.",
    ),
    key(
        "comfyui.dir",
        Kind::Text,
        true,
        "ComfyUI's folder, \"demo\", or empty to look for it.",
    ),
    key(
        "comfyui.python",
        Kind::Text,
        true,
        "Python that starts ComfyUI, or empty to look for it.",
    ),
    key(
        "comfyui.args",
        Kind::Texts,
        true,
        "Further arguments for ComfyUI.",
    ),
    key(
        "comfyui.attach",
        Kind::UrlOrEmpty,
        true,
        "Address of a ComfyUI that somebody else runs, or empty.",
    ),
    key(
        "comfyui.autostart",
        Kind::Boolean,
        true,
        "Start ComfyUI together with Sentinel.",
    ),
    key(
        "comfyui.idle_stop_minutes",
        Kind::Integer {
            min: 0,
            max: 100_000,
        },
        false,
        "Stop a user's own ComfyUI after so many idle minutes; 0: never.",
    ),
    key(
        "comfyui.restart",
        Kind::Boolean,
        true,
        "Start ComfyUI again after a crash.",
    ),
    key(
        "comfyui.max_engines",
        Kind::Integer { min: 1, max: 1000 },
        false,
        "Users' own ComfyUIs that may run at the same time.",
    ),
    key(
        "comfyui.start_wait_seconds",
        Kind::Integer { min: 0, max: 3600 },
        false,
        "How long a program's request waits while ComfyUI starts, in seconds.",
    ),
    key(
        "sharing.enabled",
        Kind::Boolean,
        false,
        "Reachable from the LAN, not from this machine alone.",
    ),
    key(
        "sharing.port",
        Kind::Integer { min: 0, max: 65535 },
        false,
        "Port; 0: any free one.",
    ),
    key(
        "sharing.name",
        Kind::HostLabel,
        false,
        "Name in the LAN, without \".local\".",
    ),
    key(
        "sharing.base_path",
        Kind::BasePath,
        false,
        "Path below which a reverse proxy shows Sentinel, such as /comfyui; empty: none.",
    ),
    key(
        "sharing.tls.enabled",
        Kind::Boolean,
        false,
        "Answer HTTPS; force_https implies it.",
    ),
    key(
        "sharing.tls.certificate",
        Kind::Text,
        false,
        "Certificate file (PEM), or empty to make one.",
    ),
    key(
        "sharing.tls.key",
        Kind::Text,
        false,
        "Key file of the certificate (PEM).",
    ),
    key(
        "trusted_proxies",
        Kind::Networks,
        false,
        "Reverse proxies whose X-Forwarded headers are believed.",
    ),
    key(
        "allowed_hosts",
        Kind::HostNames,
        false,
        "Further host names by which this machine may be called.",
    ),
    key(
        "gpu_slots",
        Kind::Integer { min: 1, max: 64 },
        false,
        "Jobs on the GPU at once; with several GPUs, on each.",
    ),
    key(
        "gpus",
        Kind::Numerals,
        true,
        "CUDA numbers of the GPUs that users' own ComfyUIs are spread over; empty: ComfyUI chooses.",
    ),
    key(
        "queue.weight_admins",
        Kind::Integer { min: 1, max: 100 },
        false,
        "Share of the GPU that an admin gets against others.",
    ),
    key(
        "queue.weight_users",
        Kind::Integer { min: 1, max: 100 },
        false,
        "Share of the GPU that a user gets against others.",
    ),
    key(
        "queue.model_batch_seconds",
        Kind::Integer { min: 0, max: 600 },
        false,
        "For so many seconds of GPU time, jobs whose model is loaded may go before it is their turn; 0: never.",
    ),
    key(
        "queue.jobs_waiting_admins",
        LIMIT,
        false,
        "Jobs that an admin may have waiting; 0: any number.",
    ),
    key(
        "queue.jobs_waiting_users",
        LIMIT,
        false,
        "Jobs that a user may have waiting; 0: any number.",
    ),
    key(
        "queue.gpu_minutes_a_day_admins",
        LIMIT,
        false,
        "GPU time that an admin may use in a day, in minutes; 0: any.",
    ),
    key(
        "queue.gpu_minutes_a_day_users",
        LIMIT,
        false,
        "GPU time that a user may use in a day, in minutes; 0: any.",
    ),
    key(
        "queue.longest_job_minutes_admins",
        LIMIT,
        false,
        "A job of an admin is ended after so many minutes; 0: never.",
    ),
    key(
        "queue.longest_job_minutes_users",
        LIMIT,
        false,
        "A job of a user is ended after so many minutes; 0: never.",
    ),
    key(
        "queue.interrupt_grace_seconds",
        Kind::Integer { min: 0, max: 3600 },
        false,
        "How long a job that is to end may go on before its ComfyUI is restarted, in seconds; 0: for ever.",
    ),
    key(
        "queue.history_days",
        Kind::Integer { min: 1, max: 36500 },
        false,
        "How long finished jobs stay in the history, in days; those whose files are gone go earlier.",
    ),
    key(
        "queue.quiet_hours",
        Kind::QuietHours,
        false,
        "Times at which only the owner's jobs run, such as \"22:00-07:00\" or \"Mon-Fri 09:00-17:00\".",
    ),
    key(
        "queue.yield_to_programs",
        Kind::Boolean,
        false,
        "Hold jobs back while another program uses an NVIDIA GPU.",
    ),
    key(
        "queue.notify_hosts",
        Kind::HostNames,
        false,
        "Hosts of this network that may be told of finished jobs; public ones may always.",
    ),
    key(
        "nodes.deny",
        Kind::NodeNames,
        false,
        "Nodes that users may not use; \"@file-access\" stands for those known to reach any file, \"!Name\" allows one.",
    ),
    key(
        "nodes.deny_admins",
        Kind::NodeNames,
        false,
        "Nodes that admins may not use.",
    ),
    key(
        "custom_node_routes",
        Kind::Choice(&["auto", "allow", "deny"]),
        false,
        "Addresses that custom nodes add, for users; auto: in their own, confined ComfyUI.",
    ),
    key(
        "allowed_routes",
        Kind::Routes,
        false,
        "Addresses of custom nodes that users may use in any case, such as /easyuse/.",
    ),
    key(
        "model_downloads",
        Kind::Boolean,
        false,
        "Users may download the files of models (/api/assets/ID/content).",
    ),
    key(
        "sandbox",
        Kind::Choice(&["auto", "require", "off"]),
        true,
        "Confinement of ComfyUI by the operating system (Linux): auto, require or off.",
    ),
    key(
        "sandbox_allow_read",
        Kind::Paths,
        true,
        "Further folders and files a confined ComfyUI may read.",
    ),
    key(
        "sandbox_allow_write",
        Kind::Paths,
        true,
        "Further folders and files a confined ComfyUI may change.",
    ),
    key(
        "sandbox_allow_ports",
        Kind::Ports,
        true,
        "TCP ports a confined ComfyUI may connect to, here and elsewhere.",
    ),
    key(
        "sandbox_custom_nodes_write",
        Kind::Boolean,
        true,
        "Custom nodes in a user's own ComfyUI may change their own folders, which all share.",
    ),
    key(
        "sandbox_max_file_gib",
        Kind::Integer {
            min: 0,
            max: 1_000_000,
        },
        true,
        "Largest file a confined ComfyUI may write, in GiB; 0: any.",
    ),
];
