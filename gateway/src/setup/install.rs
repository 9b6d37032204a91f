//! Installs ComfyUI with comfy-cli, in an environment of its own: `DIR/venv` and `DIR/ComfyUI`.

use super::explain::explain;
use super::gpu::GpuKind;
use super::job::{Job, JobError, JobResult};
use super::python;
use crate::comfyui::{Installation, python_in};
use crate::config::Config;
use crate::supervisor::{Ended, LaunchPlan, ProcessExit, Spawner, run_to_end};
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long making an environment may take.
const VENV_LIMIT: Duration = Duration::from_secs(10 * 60);
/// How long a download of small packages may take.
const TOOL_LIMIT: Duration = Duration::from_secs(30 * 60);
/// How long the download of PyTorch and ComfyUI may take over a slow line.
const INSTALL_LIMIT: Duration = Duration::from_secs(6 * 3600);
/// Lines from which a failure is explained: comfy-cli prints where in its own code it failed, framed.
const LINES_TO_EXPLAIN: usize = 200;
/// What the first step is doing when it fails.
const ENVIRONMENT: &str = "venv";

pub(super) async fn install(
    config: &Config,
    spawner: &dyn Spawner,
    job: &Job,
    directory: &Path,
    gpu: GpuKind,
) -> Result<JobResult, JobError> {
    job.step(Some(0.0), "Looking at the folder");
    let target = directory.join("ComfyUI");
    {
        let (directory, target) = (directory.to_owned(), target.clone());
        tokio::task::spawn_blocking(move || prepare(&directory, &target)).await??;
    }
    if !is_on_path("git") {
        return Err(JobError::Explained(
            "The program git is missing, which downloads ComfyUI. Please install it from git-scm.com.".to_owned(),
        ));
    }
    job.step(Some(0.02), "Looking for Python");
    let python = job
        .unless_cancelled(python::find())
        .await?
        .map_err(JobError::Explained)?;
    let steps = Steps {
        config,
        spawner,
        job,
        directory,
    };
    let installed = steps.all(&python, &target, gpu).await;
    if installed.is_err() && !target.join("main.py").is_file() {
        // There was nothing before; what lies there now is half a ComfyUI that would be in the way
        // of the next try.
        remove(target).await?;
    }
    installed?;
    let installation = Installation::open(directory)?;
    let arguments = match gpu {
        GpuKind::Cpu => vec![gpu.flag().to_owned()],
        GpuKind::Nvidia | GpuKind::Amd | GpuKind::Mac => Vec::new(),
    };
    let text = |path: &Path| path.to_string_lossy().into_owned();
    Ok(JobResult {
        version: installation.version.clone(),
        python: installation.python.as_deref().map(text),
        directory: text(&installation.directory),
        arguments,
    })
}

/// An empty folder, a new one, or one in which an earlier try ended half-way.
fn prepare(directory: &Path, target: &Path) -> Result<(), JobError> {
    let explained = |text: String| Err(JobError::Explained(text));
    if target.join("main.py").is_file() || directory.join("main.py").is_file() {
        return explained(format!(
            "There is a ComfyUI in {} already. Please choose it instead of installing one.",
            directory.display()
        ));
    }
    if let Err(error) = fs::create_dir_all(directory) {
        return explained(format!(
            "The folder {} cannot be made: {error}.",
            directory.display()
        ));
    }
    let is_foreign = |entry: io::Result<fs::DirEntry>| {
        entry.map_or(true, |entry| entry.file_name() != ENVIRONMENT)
    };
    if fs::read_dir(directory)?.any(is_foreign) {
        return explained(format!(
            "The folder {} is not empty. Please choose an empty or a new one.",
            directory.display()
        ));
    }
    Ok(())
}

async fn remove(directory: PathBuf) -> Result<(), JobError> {
    tokio::task::spawn_blocking(move || match fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    })
    .await??;
    Ok(())
}

fn is_on_path(name: &str) -> bool {
    let name = format!("{name}{}", env::consts::EXE_SUFFIX);
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(&name).is_file())
}

struct Steps<'job> {
    config: &'job Config,
    spawner: &'job dyn Spawner,
    job: &'job Job,
    directory: &'job Path,
}

impl Steps<'_> {
    async fn all(&self, python: &Path, target: &Path, gpu: GpuKind) -> Result<(), JobError> {
        let environment = self.directory.join(ENVIRONMENT);
        let own_python = python_in(&environment);
        let to = |progress, text| self.job.step(progress, text);
        to(Some(0.05), "Making a place for ComfyUI's packages");
        let make = [
            OsString::from("-m"),
            "venv".into(),
            environment.clone().into(),
        ];
        self.run(python, make.to_vec(), VENV_LIMIT).await?;
        to(Some(0.1), "Installing comfy-cli");
        let fetch = ["-m", "pip", "install", "--upgrade", "pip", "comfy-cli"];
        let fetch = fetch.map(OsString::from).to_vec();
        self.run(&own_python, fetch, TOOL_LIMIT).await?;
        to(
            None,
            "Downloading and installing ComfyUI and PyTorch, which takes a while",
        );
        let comfy = own_python.with_file_name(format!("comfy{}", env::consts::EXE_SUFFIX));
        let install = [
            OsString::from("--skip-prompt"),
            "--workspace".into(),
            target.into(),
            "install".into(),
            gpu.flag().into(),
        ];
        self.run(&comfy, install.to_vec(), INSTALL_LIMIT).await
    }

    async fn run(
        &self,
        program: &Path,
        arguments: Vec<OsString>,
        limit: Duration,
    ) -> Result<(), JobError> {
        let set = |name: &str, value: &str| (OsString::from(name), OsString::from(value));
        let plan = LaunchPlan {
            program: program.to_owned(),
            arguments,
            working_directory: self.directory.to_owned(),
            environment: vec![
                // comfy-cli installs ComfyUI's packages into the active environment.
                (
                    OsString::from("VIRTUAL_ENV"),
                    self.directory.join(ENVIRONMENT).into(),
                ),
                set("PYTHONUNBUFFERED", "1"),
                set("PYTHONIOENCODING", "utf-8:replace"),
                set("COLUMNS", "160"),
                set("NO_COLOR", "1"),
                set("TERM", "dumb"),
                set("PIP_NO_INPUT", "1"),
                set("PIP_PROGRESS_BAR", "off"),
                set("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
                // Nobody is there to answer it.
                set("GIT_TERMINAL_PROMPT", "0"),
                set("DO_NOT_TRACK", "1"),
            ],
            removed_environment: vec![
                OsString::from(&self.config.secret_key_env),
                "CONDA_PREFIX".into(),
                "PYTHONHOME".into(),
                "PYTHONPATH".into(),
            ],
            // It listens nowhere.
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            sandbox: None,
        };
        let step = self.job.current_step();
        let first = self.job.log().last_seq();
        let cancelled = self.job.cancelled();
        match run_to_end(self.spawner, &plan, self.job.log(), cancelled, limit).await? {
            Ended::Exited(ProcessExit::Code(0)) => Ok(()),
            Ended::Exited(exit) => {
                let lines: Vec<String> = self
                    .job
                    .log()
                    .after(first, usize::MAX)
                    .into_iter()
                    .rev()
                    .take(LINES_TO_EXPLAIN)
                    .map(|entry| entry.text)
                    .collect();
                Err(JobError::Explained(explain(&step, exit, &lines)))
            }
            Ended::Cancelled => Err(JobError::Cancelled),
            Ended::TooLong => Err(JobError::Explained(format!(
                "\"{step}\" took longer than {} minutes and was stopped.",
                limit.as_secs() / 60
            ))),
        }
    }
}
