//! Tries a ComfyUI out: really starts it, with directories of its own that are gone afterwards, and
//! stops it again.

use super::is_demo;
use super::job::{Job, JobError, JobResult};
use crate::comfyui::{self, EngineDirectories, FlagSet, Installation};
use crate::config::Config;
use crate::engine;
use crate::supervisor::{
    EngineState, LaunchError, LaunchPlan, Launcher, LocalSpawner, RestartPolicy, Supervisor,
    SupervisorSettings,
};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long a trial start may take, however much it prints.
const START_LIMIT: Duration = Duration::from_secs(20 * 60);
/// The argument with which ComfyUI needs no graphics card.
const ON_PROCESSOR: &str = "--cpu";

struct Trial {
    installation: Installation,
    flags: FlagSet,
    directories: EngineDirectories,
    arguments: Vec<String>,
    removed_environment: Vec<OsString>,
}

impl Launcher for Trial {
    fn plan(&self, address: SocketAddr) -> Result<LaunchPlan, LaunchError> {
        let line = comfyui::command_line(
            &self.installation,
            &self.directories,
            &self.flags,
            &self.arguments,
            address,
        )
        .map_err(|error| LaunchError::new(error.to_string()))?;
        let mut plan = comfyui::launch_plan(&self.installation, line, address)?;
        plan.removed_environment
            .extend(self.removed_environment.iter().cloned());
        Ok(plan)
    }
}

pub(super) async fn check(
    config: &Config,
    spawner: Arc<LocalSpawner>,
    job: &Job,
    directory: &str,
    python: Option<&Path>,
) -> Result<JobResult, JobError> {
    job.step(Some(0.0), "Looking at the folder");
    let mut installation = if is_demo(directory) {
        engine::demo()?
    } else {
        Installation::open(Path::new(directory))?
    };
    if installation.program.is_none() {
        job.step(Some(0.02), "Looking for its Python");
        let found = comfyui::find_python(&installation, python);
        installation.python = Some(job.unless_cancelled(found).await??);
    }
    job.step(Some(0.05), "Asking it for its arguments");
    let flags = job
        .unless_cancelled(FlagSet::probe(&installation))
        .await??;
    let arguments = config.comfyui.args.clone();
    let can_do_without_card =
        flags.contains(ON_PROCESSOR) && !arguments.iter().any(|argument| argument == ON_PROCESSOR);
    let trial = |arguments: Vec<String>, place: &Path| Trial {
        installation: installation.clone(),
        flags: flags.clone(),
        directories: private_directories(place),
        arguments,
        removed_environment: vec![OsString::from(&config.secret_key_env)],
    };
    let place = tempfile::Builder::new()
        .prefix("sentinel-check-")
        .tempdir()?;
    let mut needed = Vec::new();
    let version = match start(trial(arguments.clone(), place.path()), &spawner, job).await {
        // The explanation advises to do without a graphics card.
        Err(JobError::Explained(reason))
            if can_do_without_card && reason.contains(ON_PROCESSOR) =>
        {
            job.step(Some(0.05), "Trying again without a graphics card");
            needed.push(ON_PROCESSOR.to_owned());
            let on_processor = [arguments, needed.clone()].concat();
            let version = start(trial(on_processor, place.path()), &spawner, job).await?;
            job.say(&format!(
                "ComfyUI starts on the processor alone, which is slow. With the graphics card: {reason}"
            ));
            version
        }
        other => other?,
    };
    drop(tokio::task::spawn_blocking(move || drop(place)).await);
    let text = |path: &Path| path.to_string_lossy().into_owned();
    Ok(JobResult {
        version: version.or_else(|| installation.version.clone()),
        python: installation.python.as_deref().map(text),
        directory: if is_demo(directory) {
            directory.to_owned()
        } else {
            text(&installation.directory)
        },
        arguments: needed,
    })
}

fn private_directories(place: &Path) -> EngineDirectories {
    // ComfyUI makes those that are missing.
    let below = |name: &str| Some(place.join(name));
    EngineDirectories {
        input: below("input"),
        output: below("output"),
        temp: below("temp"),
        user: below("user"),
        database_url: Some(engine::database_url(&place.join("comfyui.db"))),
    }
}

/// Starts it, waits until it answers, stops it and waits until it is gone; its version.
async fn start(
    trial: Trial,
    spawner: &Arc<LocalSpawner>,
    job: &Job,
) -> Result<Option<String>, JobError> {
    for directory in [
        &trial.directories.input,
        &trial.directories.output,
        &trial.directories.temp,
        &trial.directories.user,
    ]
    .into_iter()
    .flatten()
    {
        crate::files::create_private_directory(directory)?;
    }
    let settings = SupervisorSettings {
        restart: RestartPolicy {
            enabled: false,
            ..RestartPolicy::default()
        },
        ready_limit: START_LIMIT,
        ..SupervisorSettings::default()
    };
    let supervisor = Supervisor::launch(
        settings,
        Arc::new(trial),
        Arc::clone(spawner) as _,
        job.log().clone(),
    );
    let handle = supervisor.handle();
    let outcome = job
        .unless_cancelled(async {
            handle.start().await?;
            let mut changes = handle.status();
            loop {
                let status = changes.borrow_and_update().clone();
                match status.state {
                    EngineState::Ready => return Ok(status.version),
                    EngineState::Failed | EngineState::Crashed => {
                        return Err(JobError::Explained(status.message));
                    }
                    EngineState::Starting => {
                        let progress = status.progress.map(|part| 0.1 + 0.8 * part);
                        job.step(progress, &status.message);
                    }
                    EngineState::Stopped | EngineState::Stopping => {}
                }
                if changes.changed().await.is_err() {
                    return Err(JobError::Gone(crate::supervisor::SupervisorGone));
                }
            }
        })
        .await;
    job.step(Some(0.95), "Stopping it again");
    supervisor.shutdown().await;
    outcome?
}
