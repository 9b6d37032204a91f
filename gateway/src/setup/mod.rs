//! The first steps of an owner: finding ComfyUI or installing it, trying it out, the first admin.
//!
//! Invariants kept here: one job runs at a time, on one task; all that it starts is gone when it
//! ends, however it ends; what is kept of jobs is bounded in number, size and time.

mod check;
mod explain;
mod finish;
mod gpu;
mod install;
mod job;
mod python;

pub(crate) use finish::{Finish, FinishError, finish, set_admin};
pub(crate) use gpu::{GpuKind, choices as gpu_choices};
pub(crate) use job::{Job, JobKind, JobResult, JobSight};

use crate::app::App;
use crate::engine::DEMO;
use crate::supervisor::LocalSpawner;
use job::JobError;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Jobs remembered, the one that runs included.
const MAX_JOBS: usize = 8;
/// How long a job that has ended is remembered.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// What a job shall do.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    /// Start a ComfyUI and stop it again.
    Check {
        /// As people name it; `demo` is the demo engine.
        directory: String,
        python: Option<PathBuf>,
    },
    /// Install ComfyUI.
    Install { directory: PathBuf, gpu: GpuKind },
}

/// Why a job was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Another one runs.
    #[error("another job runs")]
    Busy {
        /// Its id.
        job: String,
    },
}

/// The jobs.
#[derive(Debug, Default)]
pub(crate) struct Setup {
    table: Mutex<Table>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Table {
    jobs: VecDeque<Arc<Job>>,
    waiting: Option<(Arc<Job>, Order)>,
}

impl Setup {
    /// Begins a job and returns its id.
    pub(crate) fn begin(&self, order: Order) -> Result<String, SetupError> {
        let kind = match &order {
            Order::Check { .. } => JobKind::Check,
            Order::Install { .. } => JobKind::Install,
        };
        let mut table = self.table.lock();
        table.jobs.retain(|job| !job.ended_longer_than(REMEMBERED));
        if let Some(running) = table.jobs.iter().find(|job| job.is_running()) {
            return Err(SetupError::Busy {
                job: running.id().to_owned(),
            });
        }
        let job = Arc::new(Job::new(kind));
        let id = job.id().to_owned();
        if table.jobs.len() == MAX_JOBS {
            table.jobs.pop_front();
        }
        table.jobs.push_back(Arc::clone(&job));
        table.waiting = Some((job, order));
        drop(table);
        self.wake.notify_one();
        Ok(id)
    }

    /// A job that runs or ended not long ago.
    pub(crate) fn job(&self, id: &str) -> Option<Arc<Job>> {
        let mut table = self.table.lock();
        table.jobs.retain(|job| !job.ended_longer_than(REMEMBERED));
        table.jobs.iter().find(|job| job.id() == id).cloned()
    }

    /// What the last job that succeeded with this directory found out.
    pub(crate) fn result_for(&self, directory: &str) -> Option<JobResult> {
        let table = self.table.lock();
        table
            .jobs
            .iter()
            .rev()
            .filter_map(|job| job.result())
            .find(|result| result.directory == directory)
    }

    fn take_waiting(&self) -> Option<(Arc<Job>, Order)> {
        self.table.lock().waiting.take()
    }

    fn cancel_all(&self) {
        for job in &self.table.lock().jobs {
            job.cancel();
        }
    }
}

/// Does the jobs, one after another, until `stopping`.
pub(crate) async fn run(app: Arc<App>, stopping: CancellationToken) {
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = app.setup.wake.notified() => {}
        }
        let Some((job, order)) = app.setup.take_waiting() else {
            continue;
        };
        let doing = Box::pin(carry_out(&app, &job, order));
        tokio::pin!(doing);
        let outcome = tokio::select! {
            outcome = &mut doing => outcome,
            () = stopping.cancelled() => {
                app.setup.cancel_all();
                doing.await
            }
        };
        if let Err(error) = &outcome {
            tracing::info!(error = %crate::http::chain(error), "a set-up job ended");
        }
        job.end(outcome);
        app.announcements.changed();
    }
}

async fn carry_out(app: &App, job: &Job, order: Order) -> Result<JobResult, JobError> {
    let spawner = Arc::new(LocalSpawner::from_current_executable()?);
    let config = app.config.current();
    match order {
        Order::Check { directory, python } => {
            check::check(&config, spawner, job, &directory, python.as_deref()).await
        }
        Order::Install { directory, gpu } => {
            install::install(&config, spawner.as_ref(), job, &directory, gpu).await
        }
    }
}

impl App {
    /// Whether there is an admin, and a ComfyUI that was named or found.
    pub(crate) fn setup_is_finished(&self) -> bool {
        let comfyui = &self.config.current().comfyui;
        let is_named = !comfyui.dir.is_empty() || !comfyui.attach.is_empty();
        let is_found = self.engines.primary_status().generation > 0 && !self.engines.is_demo();
        self.accounts.current().owner().is_some() && (is_named || is_found)
    }
}

/// Whether a directory as people name it is the demo engine.
fn is_demo(directory: &str) -> bool {
    directory == DEMO
}
