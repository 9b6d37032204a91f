//! From settings to what the supervisor starts: which ComfyUI, which Python, which arguments.

use crate::comfyui::{
    self, ArgumentError, EngineDirectories, FlagSet, Installation, InstallationError, ProbeError,
    PythonError, SearchPlaces,
};
use crate::config::Config;
use crate::files::{self, DataDirectory};
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

/// Directory in the data directory for home, temporary files and caches of the shared engine.
const PRIVATE: &str = "engine";

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

/// All that is needed to start, but for the port.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    installation: Installation,
    flags: FlagSet,
    directories: EngineDirectories,
    arguments: Vec<String>,
    removed_environment: Vec<OsString>,
    confinement: Confinement,
}

impl Prepared {
    pub(super) fn is_demo(&self) -> bool {
        self.installation.program.is_some()
    }

    fn plan(&self, address: SocketAddr) -> Result<LaunchPlan, LaunchError> {
        let arguments = comfyui::command_line(
            &self.installation,
            &self.directories,
            &self.flags,
            &self.arguments,
            address,
        )
        .map_err(|error| LaunchError::new(error.to_string()))?;
        let mut plan = comfyui::launch_plan(&self.installation, arguments, address)?;
        plan.removed_environment
            .extend(self.removed_environment.iter().cloned());
        self.confinement.confine(&mut plan)?;
        Ok(plan)
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

/// Finds ComfyUI and its Python and asks it for its flags.
pub(super) async fn prepare(
    config: &Config,
    data: &DataDirectory,
) -> Result<Prepared, EngineError> {
    comfyui::check_user_arguments(&config.comfyui.args)?;
    let mut installation = find(config).await?;
    let mut directories = EngineDirectories::default();
    if installation.program.is_some() {
        directories = demo_directories(data)?;
    } else {
        let configured = Some(config.comfyui.python.as_str())
            .filter(|python| !python.is_empty())
            .map(Path::new);
        let python = comfyui::find_python(&installation, configured).await?;
        tracing::info!(directory = %installation.directory.display(), python = %python.display(), "found ComfyUI");
        installation.python = Some(python);
    }
    let mut arguments = config.comfyui.args.clone();
    if installation.program.is_some()
        && let Some(folder) =
            std::env::var_os(DEMO_FRONT_END).and_then(|folder| folder.into_string().ok())
    {
        arguments.extend(["--front-end-root".to_owned(), folder]);
    }
    let flags = FlagSet::probe(&installation).await?;
    let purpose = Purpose {
        // One engine for all is the owner's: he installs custom nodes in it.
        profile: Profile::Owner,
        private: data.root().join(PRIVATE),
        gateway_ports: vec![config.sharing.port],
    };
    let confinement = Confinement::look(config, &installation, data, purpose).await;
    Ok(Prepared {
        installation,
        flags,
        directories,
        arguments,
        // The signing key must not be readable by custom nodes (defect S36).
        removed_environment: vec![OsString::from(&config.secret_key_env)],
        confinement,
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
fn demo() -> Result<Installation, EngineError> {
    let program = std::env::current_exe()?.with_file_name(format!("demo-engine{EXE_SUFFIX}"));
    if program.is_file() {
        Ok(Installation::demo(program))
    } else {
        Err(EngineError::NoDemo(program))
    }
}

fn demo_directories(data: &DataDirectory) -> Result<EngineDirectories, EngineError> {
    let root = data.root().join(DEMO);
    let make = |name: &str| {
        let directory = root.join(name);
        files::create_private_directory(&directory).map(|()| directory)
    };
    Ok(EngineDirectories {
        input: Some(make("input")?),
        output: Some(make("output")?),
        temp: Some(make("temp")?),
        user: Some(make("user")?),
        database_url: None,
    })
}
