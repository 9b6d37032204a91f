//! What the queue knows of a job on its way: it comes, waits, runs and has ended.

use crate::accounts::UserId;
use crate::engine::EngineId;
use crate::jobs::order::{Entry, JobId};
use crate::jobs::prompt::Secrets;
use crate::store::JobState;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Notify;

/// A job that comes.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) id: JobId,
    pub(crate) user: UserId,
    /// Place among the user's own jobs, as he wants it.
    pub(crate) number: Option<f64>,
    /// Before all of the user's own.
    pub(crate) is_front: bool,
    pub(crate) model: Option<u64>,
    pub(crate) client_id: Option<String>,
    pub(crate) secrets: Secrets,
    /// Milliseconds since 1970.
    pub(crate) created_at: i64,
}

/// What is known of a job beside its place.
#[derive(Clone, Debug)]
pub(crate) struct Details {
    /// Milliseconds since 1970.
    pub(crate) created_at: i64,
    pub(crate) client_id: Option<String>,
    /// Times it was handed over.
    pub(crate) attempts: u32,
    /// An engine may know it from an earlier time.
    pub(crate) is_posted: bool,
    pub(crate) secrets: Secrets,
}

/// A job in an engine.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) entry: Entry,
    pub(crate) engine: EngineId,
    pub(crate) details: Details,
    /// Milliseconds since 1970.
    pub(crate) handed_at: i64,
    pub(crate) since: Instant,
    pub(crate) expected_ms: u64,
    pub(crate) intent: Option<Intent>,
    /// Wakes whoever watches it.
    pub(crate) nudge: Arc<Notify>,
}

/// How a running job goes back into the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Back {
    /// Times it was handed over.
    pub(crate) attempts: u32,
    /// An engine may know it.
    pub(crate) is_posted: bool,
    /// Its time on the GPU counts.
    pub(crate) is_charged: bool,
}

/// Why a running job is ended by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Intent {
    /// Its owner or an admin does not want it any more.
    Cancel,
    /// It runs again later.
    PutBack,
    /// It took longer than its owner's role may.
    TooLong,
}

/// A finished job, for the overlay.
#[derive(Clone, Debug)]
pub(crate) struct Recent {
    pub(crate) user: UserId,
    pub(crate) id: JobId,
    pub(crate) state: JobState,
    /// Seconds since 1970.
    pub(crate) ended_at: i64,
    pub(crate) reason: Option<String>,
}
