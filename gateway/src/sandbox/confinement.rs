//! From the configuration and this machine to a confined start of an engine.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::comfyui::{Installation, InstallationKind, PythonPlaces};
use crate::config::{Config, Sandbox};
use crate::files::{DataDirectory, create_private_directory, read_optional, write_atomically};
use crate::supervisor::{LaunchError, LaunchPlan};

use super::arguments::{NamedPaths, named_paths};
use super::environment::{PrivatePlaces, removed};
use super::links::LinkSearch;
use super::model_paths::{ModelPaths, model_paths};
use super::plan::{Profile, SandboxInputs, plan};

/// Run by Python at its start, in engines that must not list ComfyUI's directory.
const UNLISTED: &str = include_str!("unlisted.py");

/// Most entries of a cache that are linked.
const ENTRIES: usize = 5000;

/// Directories of ComfyUI that hold what its owner made. `datasets` has training data made of the
/// owner's pictures (0.30 and newer).
const OWNERS_DIRECTORIES: [&str; 5] = ["input", "output", "temp", "user", "datasets"];

/// Lists of model directories that ComfyUI reads without being told.
const MODEL_CONFIGS: [&str; 2] = ["extra_model_paths.yaml", "extra_paths.yaml"];

/// Programs and libraries of Linux systems.
const SYSTEM: &[&str] = &[
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/opt/amdgpu",
    "/opt/cuda",
    "/opt/intel",
    "/opt/nvidia",
    "/opt/rocm",
    "/gnu/store",
    "/nix/store",
    "/run/current-system",
    "/run/opengl-driver",
];

/// What programs look up about the system: names, fonts, certificates, hardware.
const SETTINGS: &[&str] = &[
    "/proc",
    "/sys",
    "/etc/resolv.conf",
    "/run/NetworkManager/resolv.conf",
    "/run/resolvconf",
    "/run/systemd/resolve",
    "/run/udev",
    "/var/cache/fontconfig",
    "/var/lib/ca-certificates",
];

const DEVICES: &[&str] = &[
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/accel",
    "/dev/dri",
    "/dev/dxg",
    "/dev/kfd",
];

/// Beginnings of the names of graphics cards and accelerators.
const DEVICE_NAMES: &[&str] = &["nvidia", "davinci", "hisi_hdc"];

/// Where nodes keep models in the home directory, besides those with a variable of their own.
const HOME_CACHES: &[&str] = &[".EasyOCR/model", ".insightface/models", ".u2net"];

/// The same below `~/.cache`.
const XDG_CACHES: &[&str] = &["clip", "whisper"];

/// What an engine is for.
#[derive(Debug, Clone)]
pub struct Purpose {
    /// Whose it is.
    pub profile: Profile,
    /// Directory for its home, temporary files and caches. The engine can change all in it, so
    /// the directory it lies in must not be writable to the engine.
    pub private: PathBuf,
    /// Ports on which Sentinel itself listens.
    pub gateway_ports: Vec<u16>,
}

/// How one engine is confined at each of its starts.
#[derive(Debug, Clone)]
pub struct Confinement {
    setting: Sandbox,
    purpose: Purpose,
    installation: Installation,
    python: Option<PythonPlaces>,
    data: PathBuf,
    home: Option<PathBuf>,
    allow_read: Vec<PathBuf>,
    allow_write: Vec<PathBuf>,
    allow_ports: Vec<u16>,
    custom_nodes_write: bool,
    max_file_gib: u64,
}

impl Confinement {
    /// How an engine of `installation` is confined, whose Python lies in `python`.
    pub fn new(
        config: &Config,
        installation: &Installation,
        python: Option<&PythonPlaces>,
        data: &DataDirectory,
        purpose: Purpose,
    ) -> Self {
        let paths = |texts: &[String]| texts.iter().map(PathBuf::from).collect();
        Self {
            setting: config.sandbox,
            purpose,
            installation: installation.clone(),
            python: python.cloned(),
            data: real(data.root()).unwrap_or_else(|| data.root().to_owned()),
            home: directories::BaseDirs::new().and_then(|places| real(places.home_dir())),
            allow_read: paths(&config.sandbox_allow_read),
            allow_write: paths(&config.sandbox_allow_write),
            allow_ports: config
                .sandbox_allow_ports
                .iter()
                .filter_map(|port| port.parse().ok())
                .collect(),
            custom_nodes_write: config.sandbox_custom_nodes_write,
            max_file_gib: u64::from(config.sandbox_max_file_gib),
        }
    }

    /// Adds to a launch plan what confines the engine, and makes its private directories.
    ///
    /// # Errors
    /// When confinement is required and this system cannot, or the directories cannot be made.
    pub fn confine(&self, launch: &mut LaunchPlan) -> Result<(), LaunchError> {
        if self.setting == Sandbox::Off {
            return Ok(());
        }
        let required = self.setting == Sandbox::Require;
        let support = super::support();
        if required && !support.holds_files() {
            return Err(LaunchError::new(format!(
                "ComfyUI is not started, as sandbox is \"require\". {}",
                support.detail
            )));
        }
        // Unconfined, the owner's engine is best left as it would be without Sentinel.
        if support.holds_files() || self.purpose.profile == Profile::User {
            self.furnish(launch).map_err(|error| {
                LaunchError::with_source(
                    format!(
                        "The engine's private directory {} cannot be used: {error}",
                        self.purpose.private.display()
                    ),
                    error,
                )
            })?;
        }
        launch.sandbox = Some(plan(&self.inputs(launch, required)));
        Ok(())
    }

    /// Gives the engine a home of its own, with the model caches of the owner's linked into it.
    fn furnish(&self, launch: &mut LaunchPlan) -> io::Result<()> {
        create_private_directory(&self.purpose.private)?;
        let places = PrivatePlaces::below(&self.purpose.private);
        for (_, directory) in places.variables() {
            self.make(&directory)?;
        }
        let set = |name: &str, value: &Path| (OsString::from(name), value.as_os_str().to_owned());
        let variables = places.variables();
        launch
            .environment
            .extend(variables.iter().map(|(name, path)| set(name, path)));
        let keeps_secrets = self.purpose.profile == Profile::Owner;
        let names = std::env::vars_os().map(|(name, _)| name);
        launch
            .removed_environment
            .extend(removed(names, keeps_secrets));
        if let Some(base) = self
            .python
            .as_ref()
            .and_then(|python| python.user_base.as_ref())
        {
            launch.environment.push(set("PYTHONUSERBASE", base));
        }
        let caches = self.caches();
        match self.purpose.profile {
            Profile::Owner => {
                if let Some(hub) = &caches.hugging_face {
                    launch.environment.push(set("HF_HUB_CACHE", hub));
                }
                if let Some(torch) = &caches.torch {
                    launch.environment.push(set("TORCH_HOME", torch));
                }
            }
            Profile::User => {
                if self.has_bytecode() {
                    let variable = set("PYTHONDONTWRITEBYTECODE", Path::new("1"));
                    launch.environment.push(variable);
                } else {
                    let variable = set("PYTHONPYCACHEPREFIX", &places.cache.join("python"));
                    launch.environment.push(variable);
                    let switch = OsString::from("PYTHONDONTWRITEBYTECODE");
                    launch.removed_environment.push(switch);
                }
                self.import_without_listing(launch)?;
                if let Some(hub) = &caches.hugging_face {
                    self.link_entries(hub, &places.hugging_face().join("hub"))?;
                }
                if let Some(torch) = &caches.torch {
                    let hub = places.torch().join("hub");
                    self.link_entries(&torch.join("hub/checkpoints"), &hub.join("checkpoints"))?;
                    self.link_entries(&torch.join("hub"), &hub)?;
                }
            }
        }
        for (cache, place) in &caches.others {
            self.link_entries(cache, &self.purpose.private.join(place))?;
        }
        if let Some(home) = &self.home {
            for relative in self.model_paths(&self.named(launch)).below_home {
                self.link(&home.join(&relative), &places.home.join(&relative))?;
            }
        }
        Ok(())
    }

    /// Has Python import from ComfyUI's directory without listing it.
    fn import_without_listing(&self, launch: &mut LaunchPlan) -> io::Result<()> {
        let (Some(_), Some(root)) = (&self.python, real(&self.installation.directory)) else {
            return Ok(());
        };
        let directory = self.purpose.private.join("start");
        self.make(&directory)?;
        write_atomically(&directory.join("sitecustomize.py"), UNLISTED.as_bytes())?;
        let before = std::env::var_os("PYTHONPATH").unwrap_or_default();
        let before = std::env::split_paths(&before).filter(|path| !path.as_os_str().is_empty());
        let paths = std::env::join_paths(std::iter::once(directory).chain(before))
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        launch.environment.push(("PYTHONPATH".into(), paths));
        let root = root.into_os_string();
        launch.environment.push(("SENTINEL_COMFYUI".into(), root));
        Ok(())
    }

    /// Makes a directory below the private one. The engine may have put links there that lead
    /// elsewhere; they give way.
    fn make(&self, directory: &Path) -> io::Result<()> {
        let private = &self.purpose.private;
        let Ok(below) = directory.strip_prefix(private) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let mut path = private.clone();
        for name in below {
            path.push(name);
            match fs::symlink_metadata(&path) {
                Ok(metadata) if metadata.is_dir() => continue,
                Ok(_) => fs::remove_file(&path)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            create_private_directory(&path)?;
        }
        Ok(())
    }

    /// Links what is in `cache` into `directory`, where it does not hide anything there.
    fn link_entries(&self, cache: &Path, directory: &Path) -> io::Result<()> {
        for entry in entries(cache).take(ENTRIES) {
            let name = entry.file_name();
            // Locks and the like are each engine's own.
            if !name.as_encoded_bytes().starts_with(b".") {
                self.link(&entry.path(), &directory.join(name))?;
            }
        }
        Ok(())
    }

    fn link(&self, target: &Path, link: &Path) -> io::Result<()> {
        if let Some(parent) = link.parent() {
            self.make(parent)?;
        }
        match fs::symlink_metadata(link) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => make_link(target, link),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether Python finds its packages compiled. Compiling them takes longer than all the rest of
    /// a start, and with a cache directory of the engine's own those there are would be passed over.
    fn has_bytecode(&self) -> bool {
        self.python.as_ref().is_none_or(|python| {
            let compiled = |path: &PathBuf| path.join("torch/__pycache__").is_dir();
            python.paths.iter().any(compiled)
        })
    }

    fn named(&self, launch: &LaunchPlan) -> NamedPaths {
        let mut named = named_paths(&launch.arguments, &launch.working_directory);
        let defaults = MODEL_CONFIGS.map(|name| self.installation.directory.join(name));
        named.model_configs.extend(defaults);
        named
    }

    fn model_paths(&self, named: &NamedPaths) -> ModelPaths {
        let mut all = ModelPaths::default();
        for file in &named.model_configs {
            if let Ok(Some(text)) = read_optional(file) {
                let found = model_paths(&text, file, self.home.as_deref());
                all.all.extend(found.all);
                all.below_home.extend(found.below_home);
            }
        }
        all
    }

    fn caches(&self) -> Caches {
        let named = |variable: &str| std::env::var_os(variable).map(PathBuf::from);
        let below = |directory: &Option<PathBuf>, name: &str| {
            directory.as_ref().map(|directory| directory.join(name))
        };
        let xdg = named("XDG_CACHE_HOME").or_else(|| below(&self.home, ".cache"));
        let hub = named("HF_HUB_CACHE")
            .or_else(|| below(&named("HF_HOME"), "hub"))
            .or_else(|| below(&xdg, "huggingface/hub"));
        let torch = named("TORCH_HOME").or_else(|| below(&xdg, "torch"));
        let in_home = HOME_CACHES.iter().filter_map(|name| {
            Some((
                real(&below(&self.home, name)?)?,
                Path::new("home").join(name),
            ))
        });
        let in_cache = XDG_CACHES
            .iter()
            .filter_map(|name| Some((real(&below(&xdg, name)?)?, Path::new("cache").join(name))));
        Caches {
            hugging_face: hub.as_deref().and_then(real),
            torch: torch.as_deref().and_then(real),
            others: in_home.chain(in_cache).collect(),
        }
    }

    fn inputs(&self, launch: &LaunchPlan, required: bool) -> SandboxInputs {
        let profile = self.purpose.profile;
        let named = self.named(launch);
        let model_paths = self.model_paths(&named);
        let caches = self.caches();
        let mut roots = Vec::new();
        if self.installation.kind != InstallationKind::Demo {
            roots.push(self.installation.directory.clone());
            roots.extend(self.installation.base_directory.clone());
            roots.extend(named.base.clone());
        }
        let roots = all_real(&roots);
        let mut parts = Parts::default();
        for root in &roots {
            parts.add(root, profile);
        }
        // Moved models are the admin's own word, as ComfyUI's directory is.
        parts.granted.extend(all_real(&named.models));
        let models_of = roots.iter().map(|root| root.join("models"));
        let model_directories: Vec<PathBuf> = models_of
            .chain(named.models)
            .chain(model_paths.all)
            .collect();
        let mut models = all_real(&model_directories);
        let search = LinkSearch {
            data: &self.data,
            home: self.home.as_deref(),
        };
        models.extend(search.below(&model_directories));
        models.extend(all_real(&named.read));
        models.extend(all_real(&named.model_configs));
        let mut own = named.own;
        own.push(self.purpose.private.clone());
        if profile == Profile::Owner {
            own.extend(named.logs.into_iter().filter(|log| is_made(log)));
        }
        let own = all_real(&own);
        // What we name ourselves among the engine's own files needs no leave.
        models.retain(|path| !own.iter().any(|own| path.starts_with(own)));

        let python = self.python.clone().unwrap_or_default();
        let environment = [
            Some(python.environment),
            python.user_base.map(|base| base.join("lib")),
        ];
        let environment: Vec<PathBuf> = environment.into_iter().flatten().collect();
        let system = all_real(SYSTEM);
        let is_system = |path: &PathBuf| system.iter().any(|known| path.starts_with(known));
        let outside_system = |paths: Vec<PathBuf>| -> Vec<PathBuf> {
            paths.into_iter().filter(|path| !is_system(path)).collect()
        };
        let environment = outside_system(all_real(&environment));
        let python = outside_system(all_real(python.base.iter().chain(&python.paths)));

        SandboxInputs {
            profile,
            required,
            program: real(&launch.program).unwrap_or_else(|| launch.program.clone()),
            installation: parts.granted,
            environment,
            python,
            system,
            settings: settings(),
            devices: devices(),
            shared_memory: real(Path::new("/dev/shm")),
            models,
            linked: parts.linked,
            caches: [
                caches.hugging_face,
                caches.torch.map(|torch| torch.join("hub")),
            ]
            .into_iter()
            .flatten()
            .chain(caches.others.into_iter().map(|(cache, _)| cache))
            .collect(),
            own,
            allow_read: all_real(&self.allow_read),
            allow_write: all_real(&self.allow_write),
            writable_nodes: if self.custom_nodes_write {
                parts.nodes
            } else {
                Vec::new()
            },
            allow_ports: self.allow_ports.clone(),
            refused_ports: self.purpose.gateway_ports.clone(),
            port: launch.address.port(),
            max_file_gib: self.max_file_gib,
            data: self.data.clone(),
            home: self.home.clone(),
        }
    }
}

/// Where models were put by earlier downloads, and for the rest also where they go in the
/// engine's private directory.
struct Caches {
    hugging_face: Option<PathBuf>,
    torch: Option<PathBuf>,
    others: Vec<(PathBuf, PathBuf)>,
}

/// What of ComfyUI's directories is granted, and how.
#[derive(Default)]
struct Parts {
    granted: Vec<PathBuf>,
    linked: Vec<PathBuf>,
    nodes: Vec<PathBuf>,
}

impl Parts {
    fn add(&mut self, root: &Path, profile: Profile) {
        let is_outside = |path: &PathBuf| !path.starts_with(root);
        let own = |name: &str| OWNERS_DIRECTORIES.contains(&name);
        match profile {
            Profile::Owner => {
                self.granted.push(root.to_owned());
                let children = entries(root).filter_map(|entry| real(&entry.path()));
                self.linked.extend(children.filter(is_outside));
            }
            Profile::User => {
                for entry in entries(root) {
                    if entry.file_name().to_str().is_some_and(own) {
                        continue;
                    }
                    match real(&entry.path()) {
                        Some(path) if is_outside(&path) => self.linked.push(path),
                        Some(path) => self.granted.push(path),
                        None => {}
                    }
                }
            }
        }
        let nodes = entries(&root.join("custom_nodes")).filter(|entry| entry.path().is_dir());
        let nodes: Vec<PathBuf> = nodes.filter_map(|entry| real(&entry.path())).collect();
        self.linked
            .extend(nodes.iter().filter(|path| is_outside(path)).cloned());
        self.nodes.extend(nodes);
    }
}

/// Whether a log is there; made if not, because the engine may not write to its directory.
fn is_made(log: &Path) -> bool {
    let opened = fs::OpenOptions::new().append(true).create(true).open(log);
    opened
        .inspect_err(|error| {
            tracing::warn!(path = %log.display(), %error, "the log named by --verbose cannot be written");
        })
        .is_ok()
}

fn settings() -> Vec<PathBuf> {
    let mut found = all_real(SETTINGS);
    // Which of these hold secrets is known by who may read them.
    let open = entries(Path::new("/etc")).filter(is_open_to_all);
    found.extend(open.filter_map(|entry| real(&entry.path())));
    found
}

fn devices() -> Vec<PathBuf> {
    let named = entries(Path::new("/dev")).filter(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        DEVICE_NAMES.iter().any(|start| name.starts_with(start))
    });
    let named = named.map(|entry| entry.path());
    all_real(named.chain(DEVICES.iter().map(PathBuf::from)))
}

fn entries(directory: &Path) -> impl Iterator<Item = fs::DirEntry> + use<> {
    fs::read_dir(directory).into_iter().flatten().flatten()
}

/// The path without links, if there is anything.
fn real(path: &Path) -> Option<PathBuf> {
    path.canonicalize().ok()
}

fn all_real(paths: impl IntoIterator<Item = impl AsRef<Path>>) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = paths
        .into_iter()
        .filter_map(|path| real(path.as_ref()))
        .collect();
    found.sort();
    found.dedup();
    found
}

#[cfg(unix)]
fn is_open_to_all(entry: &fs::DirEntry) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let metadata = fs::metadata(entry.path());
    metadata.is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

#[cfg(not(unix))]
fn is_open_to_all(_entry: &fs::DirEntry) -> bool {
    false
}

#[cfg(unix)]
fn make_link(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

/// Ordinary accounts cannot make links there.
#[cfg(not(unix))]
fn make_link(_target: &Path, _link: &Path) -> io::Result<()> {
    Ok(())
}
