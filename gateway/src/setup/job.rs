//! One job: where it stands, what it printed, how it ended.

use crate::comfyui::{InstallationError, ProbeError, PythonError};
use crate::engine::EngineError;
use crate::supervisor::{LogLimits, LogRing, LogStream, SpawnError, SupervisorGone};
use parking_lot::Mutex;
use serde::Serialize;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

/// Lines kept of a job.
const LINES: usize = 500;
/// Bytes kept of a job.
const BYTES: usize = 256 * 1024;
/// Lines shown.
const SHOWN: usize = 200;

/// What a job does. Serialised in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum JobKind {
    Check,
    Install,
}

/// Where a job stands. Serialised in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum JobState {
    Running,
    Done,
    Failed,
    Cancelled,
}

/// What a job found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct JobResult {
    /// ComfyUI's.
    pub(crate) version: Option<String>,
    pub(crate) python: Option<String>,
    pub(crate) directory: String,
    /// Arguments without which ComfyUI does not start on this machine.
    pub(crate) arguments: Vec<String>,
}

/// Why a job failed; the text is for people.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobError {
    #[error("Cancelled.")]
    Cancelled,
    #[error("{0}")]
    Explained(String),
    #[error(transparent)]
    Installation(#[from] InstallationError),
    #[error(transparent)]
    Python(#[from] PythonError),
    #[error(transparent)]
    Probe(#[from] ProbeError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error(transparent)]
    Gone(#[from] SupervisorGone),
    #[error("a file or directory cannot be used")]
    Io(#[from] std::io::Error),
    #[error("the work broke off")]
    BrokeOff(#[from] tokio::task::JoinError),
}

/// A job as the API shows it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobSight {
    id: String,
    kind: JobKind,
    state: JobState,
    /// 0 to 1; null where nobody can tell.
    progress: Option<f32>,
    /// What is being done, in plain words.
    step: String,
    /// How it ended, in plain words.
    message: Option<String>,
    /// The last lines that were printed.
    log: Vec<String>,
    result: Option<JobResult>,
}

#[derive(Debug)]
struct Standing {
    state: JobState,
    progress: Option<f32>,
    step: String,
    message: Option<String>,
    result: Option<JobResult>,
    ended_at: Option<Instant>,
}

/// A job.
#[derive(Debug)]
pub(crate) struct Job {
    id: String,
    kind: JobKind,
    standing: Mutex<Standing>,
    log: LogRing,
    cancelled: CancellationToken,
}

impl Job {
    pub(super) fn new(kind: JobKind) -> Self {
        Self {
            id: uuid::Uuid::new_v4().to_string(),
            kind,
            standing: Mutex::new(Standing {
                state: JobState::Running,
                progress: Some(0.0),
                step: "Beginning".to_owned(),
                message: None,
                result: None,
                ended_at: None,
            }),
            log: LogRing::new(LogLimits {
                lines: LINES,
                bytes: BYTES,
                ..LogLimits::default()
            }),
            cancelled: CancellationToken::new(),
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// What is known now.
    pub(crate) fn sight(&self) -> JobSight {
        let log = self.log.tail(SHOWN).into_iter().map(|entry| entry.text);
        let log = log.collect();
        let standing = self.standing.lock();
        JobSight {
            id: self.id.clone(),
            kind: self.kind,
            state: standing.state,
            progress: standing.progress,
            step: standing.step.clone(),
            message: standing.message.clone(),
            log,
            result: standing.result.clone(),
        }
    }

    /// Ends it, with all that it has started; returns at once.
    pub(crate) fn cancel(&self) {
        self.cancelled.cancel();
    }

    pub(super) fn cancelled(&self) -> &CancellationToken {
        &self.cancelled
    }

    /// Runs work that is dropped when the job is cancelled.
    pub(super) async fn unless_cancelled<Answer>(
        &self,
        work: impl Future<Output = Answer>,
    ) -> Result<Answer, JobError> {
        tokio::select! {
            () = self.cancelled.cancelled() => Err(JobError::Cancelled),
            answer = work => Ok(answer),
        }
    }

    pub(super) fn log(&self) -> &LogRing {
        &self.log
    }

    pub(super) fn step(&self, progress: Option<f32>, step: &str) {
        let is_new = {
            let mut standing = self.standing.lock();
            standing.progress = progress;
            let is_new = standing.step != step;
            if is_new {
                standing.step = step.to_owned();
            }
            is_new
        };
        if is_new {
            self.log.push(LogStream::Out, &format!("[{step}]"));
        }
    }

    pub(super) fn current_step(&self) -> String {
        self.standing.lock().step.clone()
    }

    pub(super) fn say(&self, text: &str) {
        self.standing.lock().message = Some(text.to_owned());
    }

    pub(super) fn end(&self, outcome: Result<JobResult, JobError>) {
        let mut standing = self.standing.lock();
        standing.ended_at = Some(Instant::now());
        match outcome {
            Ok(result) => {
                standing.state = JobState::Done;
                standing.progress = Some(1.0);
                standing.result = Some(result);
            }
            Err(JobError::Cancelled) => {
                standing.state = JobState::Cancelled;
                standing.message = None;
            }
            Err(error) => {
                standing.state = JobState::Failed;
                standing.message = Some(crate::http::chain(&error));
            }
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.standing.lock().state == JobState::Running
    }

    pub(super) fn result(&self) -> Option<JobResult> {
        self.standing.lock().result.clone()
    }

    pub(super) fn ended_longer_than(&self, limit: Duration) -> bool {
        let ended = self.standing.lock().ended_at;
        ended.is_some_and(|at| at.elapsed() > limit)
    }
}
