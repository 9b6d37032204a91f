//! Tables `jobs` and `job_texts`: every prompt that was taken, from its arrival until its owner
//! forgets it. Times are milliseconds since 1970.
//!
//! Here is what is kept; `changes` writes it, `lists` and `start` read it, `tidy` forgets it, `columns`
//! says how values of ours are stored.

mod changes;
mod columns;
mod lists;
mod start;
mod tidy;

use crate::accounts::UserId;
pub(crate) use tidy::Forgotten;

use crate::jobs::{JobId, Urgency};

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JobState {
    /// In the gateway.
    Waiting,
    /// Handed to an engine.
    Running,
    /// Its pictures are made.
    Completed,
    /// It broke.
    Failed,
    /// Somebody ended it.
    Cancelled,
}

impl JobState {
    /// Name in the table and in our API.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Name in ComfyUI's job list.
    pub(crate) fn comfyui_name(self) -> &'static str {
        match self {
            Self::Waiting => "pending",
            Self::Running => "in_progress",
            Self::Completed | Self::Failed | Self::Cancelled => self.name(),
        }
    }

    /// All, in the order of ComfyUI's message about unknown ones.
    pub(crate) const ALL: [Self; 5] = [
        Self::Waiting,
        Self::Running,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
    ];
}

/// What is written down of a job, without its contents.
#[derive(Clone, Debug)]
pub(crate) struct JobRow {
    pub(crate) id: JobId,
    pub(crate) user: UserId,
    pub(crate) seq: i64,
    pub(crate) number: f64,
    pub(crate) urgency: Urgency,
    pub(crate) state: JobState,
    /// How often it was handed to an engine.
    pub(crate) attempts: u32,
    pub(crate) created_at: i64,
    /// When it was handed to an engine that may still know it.
    pub(crate) handed_at: Option<i64>,
    pub(crate) client_id: Option<String>,
    pub(crate) workflow_id: Option<String>,
    pub(crate) model: Option<u64>,
}

/// How a job that was handed to an engine comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PutBack {
    /// This attempt counts among those after which the job is given up.
    pub(crate) is_counted: bool,
    /// An engine may know the job: it is asked before the job is posted again.
    pub(crate) is_posted: bool,
}

/// What tells whether a prompt that comes under a known id is the same one.
#[derive(Clone, Debug)]
pub(crate) struct SameJob {
    pub(crate) user: UserId,
    pub(crate) number: f64,
    pub(crate) prompt: String,
    pub(crate) rest: String,
}

/// Contents of a job, each a JSON text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JobTexts {
    /// The graph.
    pub(crate) prompt: String,
    /// `extra_data`, without tokens.
    pub(crate) extra: String,
    /// Further members of the request, such as `partial_execution_targets`.
    pub(crate) rest: String,
    /// Ids of the nodes that are executed.
    pub(crate) execute: String,
}

/// A job to write down.
#[derive(Clone, Debug)]
pub(crate) struct NewJob {
    pub(crate) row: JobRow,
    pub(crate) texts: JobTexts,
}

/// How a job ended; the texts are JSON.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct JobOutcome {
    pub(crate) state: JobState,
    /// As the engine tells.
    pub(crate) started_at: Option<i64>,
    /// As the engine tells.
    pub(crate) ended_at: Option<i64>,
    /// Why it failed, in words.
    pub(crate) reason: Option<String>,
    /// Members that ComfyUI's job list has of finished jobs alone: an object.
    pub(crate) summary: String,
    /// As ComfyUI's history has it, like the others; `None` leaves what was known at the arrival.
    pub(crate) execute: Option<String>,
    pub(crate) outputs: String,
    pub(crate) status: String,
    pub(crate) meta: String,
}

/// A job that has ended.
#[derive(Clone, Debug)]
pub(crate) struct FinishedJob {
    pub(crate) id: JobId,
    pub(crate) user: UserId,
    pub(crate) handed_at: i64,
    pub(crate) ended_at: i64,
    /// Time on the GPU.
    pub(crate) gpu_ms: i64,
    /// Time from its arrival until it was handed over.
    pub(crate) waiting_ms: i64,
    pub(crate) outcome: JobOutcome,
}

/// What a job has made.
#[derive(Clone, Debug)]
pub(crate) struct FinishedOutputs {
    /// Number of arrival.
    pub(crate) seq: i64,
    pub(crate) id: JobId,
    pub(crate) user: UserId,
    /// As ComfyUI's history has them: a JSON object.
    pub(crate) outputs: String,
    /// Where its files went, if that was noted.
    pub(crate) place: Option<String>,
    /// When its files were missed there, if they were.
    pub(crate) missed_at: Option<i64>,
}

/// What a look at the files of a job has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// They are at this place.
    FoundAt(String),
    /// None is left since this time.
    Missed(i64),
    /// None is left for so long that the job is forgotten.
    Gone,
}

/// One line of a list of jobs.
#[derive(Clone, Debug)]
pub(crate) struct JobSummary {
    pub(crate) id: JobId,
    pub(crate) number: f64,
    pub(crate) state: JobState,
    pub(crate) created_at: i64,
    pub(crate) workflow_id: Option<String>,
    pub(crate) summary: Option<String>,
}

/// A job as its owner asks for it; the texts are JSON.
#[derive(Clone, Debug)]
pub(crate) struct JobDetails {
    pub(crate) summary: JobSummary,
    /// The graph.
    pub(crate) prompt: String,
    /// `extra_data`.
    pub(crate) extra: String,
    /// Of a finished job.
    pub(crate) outputs: Option<String>,
    /// Of a finished job.
    pub(crate) status: Option<String>,
}

/// What jobs are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ordering {
    Created,
    Duration,
}

/// Which jobs of a user are listed.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    /// Empty: all.
    pub(crate) states: Vec<JobState>,
    pub(crate) workflow_id: Option<String>,
    pub(crate) ordering: Ordering,
    pub(crate) is_ascending: bool,
    pub(crate) limit: Option<i64>,
    pub(crate) offset: i64,
}
