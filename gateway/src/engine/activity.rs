//! What an engine is used for at the moment, counted without locks on the way of every request.

use crate::clock;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

/// Not known: the engine was not asked, or did not answer.
const UNKNOWN: u32 = u32::MAX;

/// Counters of one engine.
#[derive(Debug)]
pub(crate) struct Activity {
    sockets: AtomicU32,
    requests: AtomicU32,
    /// Milliseconds since 1970.
    last_used: AtomicI64,
    jobs: AtomicU32,
    /// Prompts passed to it.
    prompts: AtomicU32,
    /// Whether it ran a job since it was last asked to unload its models.
    has_models: AtomicBool,
    /// Whether it ran a job since it was last asked to empty its caches.
    has_caches: AtomicBool,
    /// When it was last seen with a job, milliseconds since 1970.
    last_job: AtomicI64,
    /// Jobs that wait for it in the gateway.
    waiting: AtomicU32,
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            sockets: AtomicU32::new(0),
            requests: AtomicU32::new(0),
            last_used: AtomicI64::new(clock::now_ms()),
            jobs: AtomicU32::new(UNKNOWN),
            prompts: AtomicU32::new(0),
            has_models: AtomicBool::new(false),
            has_caches: AtomicBool::new(false),
            last_job: AtomicI64::new(clock::now_ms()),
            waiting: AtomicU32::new(0),
        }
    }
}

impl Activity {
    /// A request or a WebSocket begins; it ends with the returned value.
    pub(crate) fn begin(self: &Arc<Self>, is_socket: bool) -> InUse {
        self.touch();
        let use_ = InUse {
            activity: Arc::clone(self),
            is_socket,
        };
        use_.counter().fetch_add(1, Ordering::Relaxed);
        use_
    }

    pub(super) fn touch(&self) {
        self.last_used.store(clock::now_ms(), Ordering::Relaxed);
    }

    /// Open WebSockets.
    pub(crate) fn sockets(&self) -> u32 {
        self.sockets.load(Ordering::Relaxed)
    }

    /// Requests under way.
    pub(crate) fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Last request or end of a socket, seconds since 1970.
    pub(crate) fn last_used(&self) -> i64 {
        self.last_used.load(Ordering::Relaxed) / 1000
    }

    /// How long nothing was asked of it: exact enough to tell apart who came last within a second.
    pub(super) fn idle_for(&self) -> Duration {
        let last_used = self.last_used.load(Ordering::Relaxed);
        let milliseconds = clock::now_ms().saturating_sub(last_used);
        Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0))
    }

    /// Running and waiting jobs as the engine last told.
    pub(crate) fn jobs(&self) -> Option<u32> {
        Some(self.jobs.load(Ordering::Relaxed)).filter(|jobs| *jobs != UNKNOWN)
    }

    pub(super) fn set_jobs(&self, jobs: Option<u32>) {
        if jobs.is_some_and(|jobs| jobs > 0) {
            self.touch();
            self.note_job();
        }
        self.jobs.store(jobs.unwrap_or(UNKNOWN), Ordering::Relaxed);
    }

    /// A prompt was passed to it: what is known of its jobs counts no more.
    pub(super) fn prompt_was_passed(&self) {
        self.prompts.fetch_add(1, Ordering::AcqRel);
        self.note_models(true);
        self.note_caches(true);
        self.note_job();
        self.set_jobs(None);
    }

    /// How many prompts were passed to it, to tell an answer from before the last one.
    pub(super) fn prompts(&self) -> u32 {
        self.prompts.load(Ordering::Acquire)
    }

    /// Jobs that wait for it in the gateway.
    pub(crate) fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(super) fn set_waiting(&self, jobs: usize) {
        let jobs = u32::try_from(jobs).unwrap_or(u32::MAX);
        self.waiting.store(jobs, Ordering::Relaxed);
    }

    pub(super) fn note_models(&self, has_models: bool) {
        self.has_models.store(has_models, Ordering::Relaxed);
    }

    pub(super) fn has_models(&self) -> bool {
        self.has_models.load(Ordering::Relaxed)
    }

    pub(super) fn note_caches(&self, has_caches: bool) {
        self.has_caches.store(has_caches, Ordering::Relaxed);
    }

    pub(super) fn has_caches(&self) -> bool {
        self.has_caches.load(Ordering::Relaxed)
    }

    fn note_job(&self) {
        self.last_job.store(clock::now_ms(), Ordering::Relaxed);
    }

    /// How long it has had no job, as far as was looked.
    pub(super) fn without_job_for(&self) -> Duration {
        let last_job = self.last_job.load(Ordering::Relaxed);
        let milliseconds = clock::now_ms().saturating_sub(last_job);
        Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0))
    }
}

/// A request or a WebSocket on its way; dropping it ends the count.
#[derive(Debug)]
pub(crate) struct InUse {
    activity: Arc<Activity>,
    is_socket: bool,
}

impl InUse {
    fn counter(&self) -> &AtomicU32 {
        if self.is_socket {
            &self.activity.sockets
        } else {
            &self.activity.requests
        }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.counter().fetch_sub(1, Ordering::Relaxed);
        self.activity.touch();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_are_there_after_a_job_until_they_are_emptied() {
        let activity = Activity::default();
        assert!(!activity.has_caches());
        activity.prompt_was_passed();
        assert!(activity.has_caches() && activity.has_models());
        activity.note_caches(false);
        activity.set_jobs(Some(0));
        assert!(!activity.has_caches());
        activity.prompt_was_passed();
        assert!(activity.has_caches());
    }

    #[test]
    fn what_begins_ends() {
        let activity = Arc::new(Activity::default());
        let socket = activity.begin(true);
        let request = activity.begin(false);
        assert_eq!((activity.sockets(), activity.requests()), (1, 1));
        drop((socket, request));
        assert_eq!((activity.sockets(), activity.requests()), (0, 0));
        assert_eq!(activity.jobs(), None);
        activity.set_jobs(Some(0));
        assert_eq!(activity.jobs(), Some(0));
    }
}
