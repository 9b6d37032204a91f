//! From settings to what the supervisor starts: which ComfyUI, which Python, which arguments.

use super::places::Places;
use crate::accounts::UserId;
use crate::comfyui::{
    self, ArgumentError, EngineDirectories, FlagSet, Installation, InstallationError, ProbeError,
    PythonError, PythonPlaces, SearchPlaces,
};
use crate::config::Config;
use crate::files::DataDirectory;
use crate::http::chain;
use crate::sandbox::{Confinement, Profile, Purpose};
use crate::supervisor::{LaunchError, LaunchPlan, Launcher};
use parking_lot::Mutex;
use std::env::consts::EXE_SUFFIX;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Value of `comfyui.dir` that means the demo engine.
pub const DEMO: &str = "demo";

/// Directory for home, temporary files and caches of an engine, beside its other directories.
const PRIVATE: &str = "private";

/// Names of the demo engine's program: as it is installed, and as it is built.
const DEMO_NAMES: [&str; 2] = ["comfyui-sentinel-demo", "demo-engine"];

/// A flag that ComfyUI knows since just before it keeps training data in `datasets` of its base
/// directory (0.28 and 0.30).
const SINCE_DATASETS: &str = "--models-directory";

/// Environment variable with the folder of ComfyUI's own front end for the demo engine.
const DEMO_FRONT_END: &str = "DEMO_ENGINE_FRONT_END";

/// Why an engine cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The configured directory is no ComfyUI.
    #[error(transparent)]
    Installation(#[from] InstallationError),
    /// No Python that can run it.
    #[error(transparent)]
    Python(#[from] PythonError),
    /// It does not tell its flags.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The configured arguments cannot be used.
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    /// The demo engine is missing.
    #[error(
        "ComfyUI was not found, and the demo engine is missing: {0}. Set comfyui.dir to ComfyUI's folder"
    )]
    NoDemo(PathBuf),
    /// A directory could not be made.
    #[error("cannot create the engine's directories")]
    Directories(#[from] std::io::Error),
}

/// Whose engine is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tenant {
    /// The user with directories of his own; `None` uses ComfyUI's own: the owner, or everybody.
    pub(super) user: Option<UserId>,
    /// Whether ComfyUI-Manager may run in it.
    pub(super) has_manager: bool,
}

/// All that is needed to start, but for the port.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    source: Source,
    directories: EngineDirectories,
    places: Places,
    arguments: Vec<String>,
    removed_environment: Vec<OsString>,
    confinement: Confinement,
}

impl Prepared {
    pub(super) fn is_demo(&self) -> bool {
        self.source.is_demo()
    }

    pub(super) fn places(&self) -> &Places {
        &self.places
    }

    fn plan(&self, address: SocketAddr) -> Result<LaunchPlan, LaunchError> {
        let Source {
            installation,
            flags,
            ..
        } = &self.source;
        let arguments = comfyui::command_line(
            installation,
            &self.directories,
            flags,
            &self.arguments,
            address,
        )
        .map_err(|error| LaunchError::new(error.to_string()))?;
        let mut plan = comfyui::launch_plan(installation, arguments, address)?;
        plan.removed_environment
            .extend(self.removed_environment.iter().cloned());
        self.confinement.confine(&mut plan)?;
        Ok(plan)
    }
}

/// A ComfyUI that was found, and the arguments it knows.
#[derive(Clone, Debug)]
pub(super) struct Source {
    installation: Installation,
    flags: FlagSet,
    python: Option<PythonPlaces>,
}

impl Source {
    fn is_demo(&self) -> bool {
        self.installation.program.is_some()
    }
}

/// Hands the supervisor what was prepared last, or the reason why nothing could be.
#[derive(Debug, Default)]
pub(super) struct PreparedLauncher(Mutex<Option<Result<Prepared, String>>>);

impl PreparedLauncher {
    pub(super) fn set(&self, prepared: Result<Prepared, EngineError>) {
        *self.0.lock() = Some(prepared.map_err(|error| chain(&error)));
    }
}

impl Launcher for PreparedLauncher {
    fn plan(&self, address: SocketAddr) -> Result<LaunchPlan, LaunchError> {
        match &*self.0.lock() {
            Some(Ok(prepared)) => prepared.plan(address),
            Some(Err(reason)) => Err(LaunchError::new(reason.clone())),
            None => Err(LaunchError::new("ComfyUI has not been looked for yet")),
        }
    }
}

/// What was found for which settings: looking for ComfyUI and asking it for its arguments takes
/// seconds, and all engines start the same one.
#[derive(Debug, Default)]
pub(super) struct Sources(tokio::sync::Mutex<Option<(String, String, Source)>>);

impl Sources {
    /// Forgets what was found: ComfyUI may have been updated.
    pub(super) async fn forget(&self) {
        *self.0.lock().await = None;
    }

    async fn get(&self, config: &Config) -> Result<Source, EngineError> {
        let mut known = self.0.lock().await;
        let comfyui = &config.comfyui;
        if let Some((directory, python, source)) = &*known
            && (directory, python) == (&comfyui.dir, &comfyui.python)
        {
            return Ok(source.clone());
        }
        let source = look(config).await?;
        *known = Some((comfyui.dir.clone(), comfyui.python.clone(), source.clone()));
        Ok(source)
    }

    /// Makes all ready for one engine.
    pub(super) async fn prepare(
        &self,
        config: &Config,
        data: &DataDirectory,
        tenant: &Tenant,
        device: Option<&str>,
    ) -> Result<Prepared, EngineError> {
        comfyui::check_user_arguments(&config.comfyui.args)?;
        let source = self.get(config).await?;
        let mut arguments = config.comfyui.args.clone();
        if let Some(device) = device {
            arguments.extend(["--cuda-device".to_owned(), device.to_owned()]);
        }
        let places = match &tenant.user {
            Some(user) => Places::of_user(data, user),
            None if source.is_demo() => Places::of_demo(data),
            None => Places::of_comfyui(&source.installation, &arguments),
        };
        let mut directories = EngineDirectories::default();
        if tenant.user.is_some() || source.is_demo() {
            places.create()?;
            directories = places.directories();
        }
        if source.is_demo()
            && let Some(folder) = std::env::var(DEMO_FRONT_END)
                .ok()
                .filter(|folder| !folder.is_empty())
        {
            arguments.extend(["--front-end-root".to_owned(), folder]);
        }
        if tenant.user.is_some() && source.flags.contains(SINCE_DATASETS) {
            let list = places.create_datasets()?;
            arguments.extend(["--extra-model-paths-config".to_owned(), list]);
        }
        if !tenant.has_manager {
            comfyui::leave_out_manager(&source.installation, &source.flags, &mut arguments);
        }
        let (profile, private) = match &tenant.user {
            Some(user) => (Profile::User, data.user(user)),
            None => (Profile::Owner, data.root().to_owned()),
        };
        let purpose = Purpose {
            profile,
            private: private.join(PRIVATE),
            gateway_ports: vec![config.sharing.port],
        };
        let confinement = Confinement::new(
            config,
            &source.installation,
            source.python.as_ref(),
            data,
            purpose,
        );
        Ok(Prepared {
            source,
            directories,
            places,
            arguments,
            // The signing key must not be readable by custom nodes (defect S36).
            removed_environment: vec![OsString::from(&config.secret_key_env)],
            confinement,
        })
    }
}

/// Finds ComfyUI and its Python and asks it for its arguments.
async fn look(config: &Config) -> Result<Source, EngineError> {
    let mut installation = find(config).await?;
    if installation.program.is_none() {
        let configured = Some(config.comfyui.python.as_str())
            .filter(|python| !python.is_empty())
            .map(Path::new);
        let python = comfyui::find_python(&installation, configured).await?;
        tracing::info!(directory = %installation.directory.display(), python = %python.display(), "found ComfyUI");
        installation.python = Some(python);
    }
    let flags = FlagSet::probe(&installation).await?;
    let python = match &installation.python {
        Some(python) => Some(PythonPlaces::of(python).await),
        None => None,
    };
    Ok(Source {
        installation,
        flags,
        python,
    })
}

async fn find(config: &Config) -> Result<Installation, EngineError> {
    match config.comfyui.dir.as_str() {
        DEMO => demo(),
        "" => {
            let found = tokio::task::spawn_blocking(|| {
                comfyui::find_installations(&SearchPlaces::of_this_machine())
            })
            .await;
            match found.unwrap_or_default().into_iter().next() {
                Some(installation) => Ok(installation),
                None => {
                    tracing::warn!(
                        "no ComfyUI was found; starting the demo engine. Name yours with --comfyui DIR"
                    );
                    demo()
                }
            }
        }
        directory => Ok(Installation::open(Path::new(directory))?),
    }
}

/// The demo engine lies beside our own program.
pub(crate) fn demo() -> Result<Installation, EngineError> {
    let own = std::env::current_exe()?;
    let [installed, built] =
        DEMO_NAMES.map(|name| own.with_file_name(format!("{name}{EXE_SUFFIX}")));
    let program = if installed.is_file() {
        installed
    } else {
        built
    };
    if program.is_file() {
        Ok(Installation::demo(program))
    } else {
        Err(EngineError::NoDemo(program))
    }
}
