//! The clean-up of the history.

use super::outcome;
use crate::app::App;
use crate::clock;
use crate::http::chain;
use crate::jobs::JobId;
use crate::store::{FinishedOutputs, StoreError};
use std::sync::Arc;

/// Finished jobs that are kept of one user: as many as ComfyUI keeps.
const KEEP: i64 = 10_000;
/// Jobs whose files are looked for at once.
const BATCH: i64 = 200;
/// Milliseconds of a day.
const DAY: i64 = 24 * 3600 * 1000;

/// Forgets finished jobs that are old, or whose files are gone.
pub(super) async fn tidy(app: Arc<App>) {
    let forgotten = match forget_old(&app).await {
        Ok(()) => forget_without_files(&app).await,
        Err(error) => Err(error),
    };
    if let Err(error) = forgotten {
        tracing::warn!(error = %chain(&error), "the history could not be tidied");
    }
}

async fn forget_old(app: &App) -> Result<(), StoreError> {
    let days = i64::from(app.config.current().queue.history_days);
    let before = clock::now_ms() - days.saturating_mul(DAY);
    let users = app
        .accounts
        .current()
        .iter()
        .map(|account| account.id.clone())
        .collect();
    app.jobs.store.tidy_jobs(users, before, KEEP).await
}

/// In batches, so that neither the memory nor the database is taken up for long.
async fn forget_without_files(app: &App) -> Result<(), StoreError> {
    let mut after = 0;
    while !app.jobs.stopping.is_cancelled() {
        let batch = app.jobs.reader.finished_outputs(after, BATCH).await?;
        let Some(last) = batch.last() else {
            break;
        };
        after = last.seq;
        let mut gone = Vec::new();
        for job in batch {
            gone.extend(if_files_are_gone(app, job).await);
        }
        if !gone.is_empty() {
            app.jobs.store.remove_jobs(gone).await?;
        }
    }
    Ok(())
}

/// The job, if it had files and none of them is left.
async fn if_files_are_gone(app: &App, job: FinishedOutputs) -> Option<JobId> {
    let files = outcome::files(&job.outputs);
    let places = app.engines.places_of(&job.user)?;
    let looked = tokio::task::spawn_blocking(move || {
        !files.is_empty() && files.iter().all(|file| !places.has_file(file))
    });
    looked.await.unwrap_or(false).then_some(job.id)
}
