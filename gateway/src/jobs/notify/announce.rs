//! Whom to tell of a finished job, and where.

use super::{Message, Target};
use crate::app::App;
use crate::clock;
use crate::http::chain;
use crate::jobs::queue::Recent;
use crate::store::JobState;

/// Has its owner told of a job that has ended, if he wants to be.
pub(in crate::jobs) async fn announce(app: &App, job: &Recent, gpu_ms: u64) {
    if job.state == JobState::Cancelled {
        return;
    }
    let target = match app.jobs.store.notification_target(job.user.clone()).await {
        Ok(Some(target)) => target,
        Ok(None) => return,
        Err(error) => {
            tracing::warn!(error = %chain(&error), "it could not be read whom to tell of a job");
            return;
        }
    };
    let is_failure = job.state == JobState::Failed;
    if target.failures_only && !is_failure {
        return;
    }
    match Target::parse(&target.kind, &target.address) {
        Ok(target) => app.notifier.send(
            job.user.clone(),
            target,
            Message {
                is_failure,
                finished_at: clock::rfc3339(job.ended_at),
                gpu_ms,
                waiting: app.jobs.waiting_of(&job.user),
                reason: job.reason.clone(),
            },
        ),
        Err(error) => {
            tracing::debug!(error = %chain(&error), "an address for notifications is not valid")
        }
    }
}
