//! What an engine may do, as data, from what is known of it and of this machine.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Whose engine it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// The owner's, or the one of all: may install custom nodes and packages, so it writes to
    /// ComfyUI's directories and its Python environment.
    Owner,
    /// Another user's: ComfyUI, models and custom nodes are read-only.
    User,
}

/// What is known of an engine and of this machine. All paths are absolute, without links, and
/// exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxInputs {
    /// Whose engine it is.
    pub profile: Profile,
    /// Whether it must not run unconfined.
    pub required: bool,
    /// Program that is started, with every link on the way to it resolved.
    pub program: PathBuf,
    /// ComfyUI and its base directory; of a user's engine, what lies in them but for the owner's
    /// pictures and settings.
    pub installation: Vec<PathBuf>,
    /// The Python environment packages are installed into.
    pub environment: Vec<PathBuf>,
    /// Python itself and all it imports from.
    pub python: Vec<PathBuf>,
    /// Directories of the system with programs and libraries.
    pub system: Vec<PathBuf>,
    /// Directories and files of the system that are only read.
    pub settings: Vec<PathBuf>,
    /// Device files and directories of such.
    pub devices: Vec<PathBuf>,
    /// Directory of POSIX shared memory.
    pub shared_memory: Option<PathBuf>,
    /// Model directories outside ComfyUI and files it only reads.
    pub models: Vec<PathBuf>,
    /// Directories elsewhere that are linked into ComfyUI, such as custom nodes.
    pub linked: Vec<PathBuf>,
    /// Model caches of the owner's home.
    pub caches: Vec<PathBuf>,
    /// The engine's own directories.
    pub own: Vec<PathBuf>,
    /// `sandbox_allow_read`
    pub allow_read: Vec<PathBuf>,
    /// `sandbox_allow_write`
    pub allow_write: Vec<PathBuf>,
    /// `sandbox_custom_nodes_write`, the folder of each custom node.
    pub writable_nodes: Vec<PathBuf>,
    /// `sandbox_allow_ports`
    pub allow_ports: Vec<u16>,
    /// Ports of Sentinel itself.
    pub refused_ports: Vec<u16>,
    /// Port of the engine.
    pub port: u16,
    /// `sandbox_max_file_gib`
    pub max_file_gib: u64,
    /// Sentinel's data directory.
    pub data: PathBuf,
    /// The home directory of the account Sentinel runs as.
    pub home: Option<PathBuf>,
}

/// What an engine may do. Whatever is not named here it may not, as far as the system can hold it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxPlan {
    /// Fail to start rather than run unconfined.
    pub required: bool,
    /// Files and directories that may be read and run.
    pub read_execute: Vec<PathBuf>,
    /// Files and directories that may be read.
    pub read: Vec<PathBuf>,
    /// Files and directories that may be read and changed.
    pub write: Vec<PathBuf>,
    /// Device files that may be used, and directories of such.
    pub devices: Vec<PathBuf>,
    /// Directories in which files may be used by those who know their names.
    pub shared_memory: Vec<PathBuf>,
    /// TCP ports that may be connected to.
    pub connect_ports: Vec<u16>,
    /// TCP ports that may be listened on.
    pub bind_ports: Vec<u16>,
    /// Calls that change permissions or owners do nothing.
    pub keeps_permissions: bool,
    /// Largest file it may write.
    pub max_file_bytes: Option<u64>,
    /// Most files and sockets open at once.
    pub max_open_files: u64,
    /// What had to be granted or left out against the intent, in sentences.
    pub notes: Vec<String>,
    /// Some of these weaken the confinement.
    pub is_weakened: bool,
}

/// Open files of an engine: enough for models in many parts and hundreds of sockets.
const OPEN_FILES: u64 = 16_384;
const GIB: u64 = 1 << 30;

/// What an engine may do.
pub fn plan(inputs: &SandboxInputs) -> SandboxPlan {
    let mut plan = SandboxPlan {
        required: inputs.required,
        devices: inputs.devices.clone(),
        shared_memory: inputs.shared_memory.iter().cloned().collect(),
        bind_ports: vec![inputs.port],
        keeps_permissions: inputs.profile == Profile::User,
        max_file_bytes: (inputs.max_file_gib > 0).then(|| inputs.max_file_gib.saturating_mul(GIB)),
        max_open_files: OPEN_FILES,
        ..SandboxPlan::default()
    };
    let guard = Guard {
        data: &inputs.data,
        home: inputs.home.as_deref(),
    };

    plan.read_execute.push(inputs.program.clone());
    for path in inputs.system.iter().chain(&inputs.installation) {
        guard.grant(path, Named::ByAdmin, &mut plan, |plan| {
            &mut plan.read_execute
        });
    }
    for path in inputs.python.iter().chain(&inputs.environment) {
        guard.grant(path, Named::Found, &mut plan, |plan| &mut plan.read_execute);
    }
    for path in &inputs.settings {
        guard.grant(path, Named::ByAdmin, &mut plan, |plan| &mut plan.read);
    }
    for path in &inputs.models {
        guard.grant(path, Named::Found, &mut plan, |plan| &mut plan.read);
    }
    for path in inputs.allow_read.iter().chain(&inputs.allow_write) {
        // A permission to read a folder of programs is useless without running them.
        guard.grant(path, Named::ByAdmin, &mut plan, |plan| {
            &mut plan.read_execute
        });
    }
    for path in &inputs.linked {
        guard.grant(path, Named::Found, &mut plan, |plan| &mut plan.read_execute);
    }
    for path in &inputs.allow_write {
        guard.grant(path, Named::ByAdmin, &mut plan, |plan| &mut plan.write);
    }
    // Not asked about: they lie in Sentinel's data, and were made for this engine.
    plan.write.extend(inputs.own.iter().cloned());
    match inputs.profile {
        Profile::Owner => {
            for path in &inputs.installation {
                guard.grant(path, Named::ByAdmin, &mut plan, |plan| &mut plan.write);
            }
            let changed = [&inputs.environment, &inputs.linked, &inputs.caches];
            for path in changed.into_iter().flatten() {
                guard.grant(path, Named::Found, &mut plan, |plan| &mut plan.write);
            }
        }
        Profile::User => {
            for path in &inputs.caches {
                guard.grant(path, Named::Found, &mut plan, |plan| &mut plan.read);
            }
            for path in &inputs.writable_nodes {
                guard.grant(path, Named::Found, &mut plan, |plan| &mut plan.write);
            }
        }
    }
    // Models of the owner outside ComfyUI are read only for him too: they may belong to others.

    let (refused, allowed): (Vec<u16>, Vec<u16>) = inputs
        .allow_ports
        .iter()
        .partition(|port| inputs.refused_ports.contains(port));
    plan.connect_ports = allowed;
    plan.connect_ports.push(inputs.port);
    for port in refused {
        plan.notes.push(format!(
            "Connections to port {port} are refused everywhere, as Sentinel itself listens there."
        ));
    }
    for paths in [
        &mut plan.read_execute,
        &mut plan.read,
        &mut plan.write,
        &mut plan.devices,
    ] {
        paths.sort();
        paths.dedup();
    }
    plan.connect_ports.sort_unstable();
    plan.connect_ports.dedup();
    plan.notes.dedup();
    plan
}

/// Who says that a path is needed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Named {
    /// The admin, by the configuration or where he put ComfyUI.
    ByAdmin,
    /// A link, a file or a guess, which others may have had a hand in.
    Found,
}

/// Sees to it that nothing private is granted along with something else.
struct Guard<'a> {
    data: &'a Path,
    home: Option<&'a Path>,
}

impl Guard<'_> {
    fn grant(
        &self,
        path: &Path,
        named: Named,
        plan: &mut SandboxPlan,
        list: impl Fn(&mut SandboxPlan) -> &mut Vec<PathBuf>,
    ) {
        let holds_data = self.data.starts_with(path);
        let is_data = path.starts_with(self.data);
        let holds_home = self.home.is_some_and(|home| home.starts_with(path));
        let is_private = named == Named::Found && self.is_private(path);
        if named == Named::Found && (holds_data || is_data || holds_home || is_private) {
            plan.notes.push(format!(
                "{} is not readable for ComfyUI, as private files lie there; sandbox_allow_read can allow it.",
                path.display()
            ));
            return;
        }
        if holds_data {
            plan.is_weakened = true;
            plan.notes.push(format!(
                "Sentinel's data in {} lies in {}, which ComfyUI needs: move one of them.",
                self.data.display(),
                path.display()
            ));
        }
        list(plan).push(path.to_owned());
    }

    /// Whether it is where a home keeps keys and settings. Pythons and caches are found there too.
    fn is_private(&self, path: &Path) -> bool {
        let Some(below) = self.home.and_then(|home| path.strip_prefix(home).ok()) else {
            return false;
        };
        let names: Vec<_> = below
            .iter()
            .take(2)
            .map(|name| name.to_string_lossy())
            .collect();
        match names.first().map(AsRef::as_ref) {
            Some(".config" | ".ssh" | ".gnupg" | ".aws" | ".kube" | ".docker" | ".mozilla") => true,
            Some(".local") => {
                matches!(
                    names.get(1).map(AsRef::as_ref),
                    None | Some("state" | "share")
                ) && below.iter().count() <= 2
            }
            Some(_) | None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(profile: Profile) -> SandboxInputs {
        let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
        SandboxInputs {
            profile,
            required: false,
            program: "/home/o/.pyenv/versions/3.11/bin/python3.11".into(),
            installation: paths(&["/home/o/ComfyUI"]),
            environment: paths(&["/home/o/ComfyUI/venv"]),
            python: paths(&["/home/o/.pyenv/versions/3.11"]),
            system: paths(&["/usr"]),
            settings: paths(&["/etc", "/proc"]),
            devices: paths(&["/dev/null", "/dev/nvidia0"]),
            shared_memory: Some("/dev/shm".into()),
            models: paths(&["/mnt/models"]),
            linked: paths(&["/home/o/src/node"]),
            caches: paths(&["/home/o/.cache/huggingface/hub"]),
            own: paths(&["/data/users/7/input", "/data/users/7/private"]),
            allow_read: Vec::new(),
            allow_write: Vec::new(),
            writable_nodes: Vec::new(),
            allow_ports: vec![443, 80, 53],
            refused_ports: vec![8189],
            port: 40001,
            max_file_gib: 0,
            data: "/data".into(),
            home: Some("/home/o".into()),
        }
    }

    fn may_read(plan: &SandboxPlan, path: &str) -> bool {
        let lists = [&plan.read, &plan.read_execute, &plan.write];
        lists
            .into_iter()
            .flatten()
            .any(|granted| Path::new(path).starts_with(granted))
    }

    fn may_write(plan: &SandboxPlan, path: &str) -> bool {
        let path = Path::new(path);
        plan.write.iter().any(|granted| path.starts_with(granted))
    }

    #[test]
    fn a_users_engine_reads_what_it_needs_and_writes_its_own() {
        let plan = plan(&inputs(Profile::User));
        for path in [
            "/home/o/ComfyUI/main.py",
            "/home/o/ComfyUI/custom_nodes/a/b.py",
            "/home/o/ComfyUI/venv/lib/python3.11/site-packages/torch",
            "/home/o/.pyenv/versions/3.11/lib/python3.11/os.py",
            "/home/o/src/node/x.py",
            "/home/o/.cache/huggingface/hub/models--a",
            "/mnt/models/a.safetensors",
            "/usr/bin/ffmpeg",
            "/etc/hosts",
            "/data/users/7/input/a.png",
        ] {
            assert!(may_read(&plan, path), "{path}");
        }
        for path in [
            "/home/o/.ssh/id",
            "/home/o",
            "/home/o/.cache/huggingface/token",
            "/home/o/.pyenv/plugins",
            "/data/sentinel.db",
            "/data/users/8/input/a.png",
            "/tmp/x",
            "/root",
            "/var/lib",
        ] {
            assert!(!may_read(&plan, path), "{path}");
        }
        assert!(may_write(&plan, "/data/users/7/private/tmp/x"));
        for path in [
            "/home/o/ComfyUI/custom_nodes/a/b.py",
            "/home/o/ComfyUI/venv/x",
            "/home/o/.cache/huggingface/hub/x",
            "/mnt/models/x",
            "/usr/x",
        ] {
            assert!(!may_write(&plan, path), "{path}");
        }
        assert_eq!(plan.connect_ports, [53, 80, 443, 40001]);
        assert_eq!(plan.bind_ports, [40001]);
        assert!(plan.notes.is_empty() && !plan.is_weakened);
    }

    #[test]
    fn the_owners_engine_installs_nodes_and_packages() {
        let plan = plan(&inputs(Profile::Owner));
        for path in [
            "/home/o/ComfyUI/custom_nodes/new/x.py",
            "/home/o/ComfyUI/venv/lib/x",
            "/home/o/.cache/huggingface/hub/x",
        ] {
            assert!(may_write(&plan, path), "{path}");
        }
        assert!(!may_read(&plan, "/data/sentinel.db"));
        assert!(!may_read(&plan, "/home/o/.ssh/id"));
        assert!(!may_write(&plan, "/mnt/models/x"));
        assert!(!may_write(&plan, "/home/o/.pyenv/versions/3.11/lib"));
    }

    #[test]
    fn what_holds_private_files_is_not_granted_in_passing() {
        let mut inputs = inputs(Profile::User);
        let found = [
            "/home/o",
            "/home",
            "/",
            "/data/users/8",
            "/home/o/.ssh",
            "/home/o/.config/x",
            "/home/o/.local/share",
        ];
        inputs.models = found.iter().map(PathBuf::from).collect();
        inputs.python = vec!["/home/o".into(), "/home/o/.local/lib/python3.11".into()];
        let plan = plan(&inputs);
        for path in found {
            assert!(!may_read(&plan, path), "{path}");
        }
        assert!(may_read(
            &plan,
            "/home/o/.local/lib/python3.11/site-packages"
        ));
        assert_eq!(plan.notes.len(), found.len(), "{:?}", plan.notes);
        assert!(!plan.is_weakened);
    }

    #[test]
    fn data_inside_comfyui_is_said() {
        let mut inputs = inputs(Profile::Owner);
        inputs.data = "/home/o/ComfyUI/sentinel".into();
        let plan = plan(&inputs);
        assert!(plan.is_weakened);
        assert!(
            plan.notes[0].contains("move one of them"),
            "{:?}",
            plan.notes
        );
    }

    #[test]
    fn additions_of_the_admin() {
        let mut inputs = inputs(Profile::User);
        inputs.allow_read = vec!["/home/o/pictures".into()];
        inputs.allow_write = vec!["/srv/results".into()];
        inputs.writable_nodes = vec!["/home/o/ComfyUI/custom_nodes/a".into()];
        inputs.allow_ports = vec![443, 8189, 11434];
        inputs.max_file_gib = 2;
        let plan = plan(&inputs);
        assert!(may_read(&plan, "/home/o/pictures/x") && !may_write(&plan, "/home/o/pictures/x"));
        assert!(may_read(&plan, "/srv/results/x") && may_write(&plan, "/srv/results/x"));
        assert!(may_write(&plan, "/home/o/ComfyUI/custom_nodes/a/x"));
        assert!(!may_write(&plan, "/home/o/ComfyUI/custom_nodes/x"));
        assert_eq!(plan.connect_ports, [443, 11434, 40001]);
        assert!(plan.notes[0].contains("8189"), "{:?}", plan.notes);
        assert_eq!(plan.max_file_bytes, Some(2 << 30));
    }
}
