//! The clean-up of the history: in small steps with pauses between them, so that nobody's sign-in or
//! job waits for it.

use super::outcome;
use crate::app::App;
use crate::clock;
use crate::engine::Places;
use crate::http::chain;
use crate::jobs::JobId;
use crate::store::{FilesLook, FinishedOutputs, Forgotten, StoreError};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// Finished jobs that are kept of one user: as many as ComfyUI keeps.
const KEEP: i64 = 10_000;
/// Jobs that are forgotten, or whose files are looked for, at once.
const BATCH: i64 = 200;
/// Pages that are given back to the disk at once.
const PAGES: i64 = 500;
/// Between two batches.
const PAUSE: Duration = Duration::from_millis(50);
/// Milliseconds of a day.
const DAY: i64 = 24 * 3600 * 1000;

/// Forgets finished jobs that are old, or whose files are gone.
pub(super) async fn tidy(app: Arc<App>) {
    let tidied = async {
        forget_jobs(&app).await?;
        if app.clock_trust.may_forget() {
            forget_without_files(&app).await?;
        }
        while app.jobs.store.shrink(PAGES).await? && pause(&app).await {}
        Ok::<(), StoreError>(())
    };
    if let Err(error) = tidied.await {
        tracing::warn!(error = %chain(&error), "the history could not be tidied");
    }
}

/// Returns false when the gateway stops.
async fn pause(app: &App) -> bool {
    let stopping = &app.jobs.stopping;
    stopping.run_until_cancelled(sleep(PAUSE)).await.is_some()
}

async fn forget_jobs(app: &App) -> Result<(), StoreError> {
    let there: Vec<_> = app
        .accounts
        .current()
        .iter()
        .map(|account| account.id.clone())
        .collect();
    app.jobs
        .store
        .forget_targets_of_deleted(there.clone())
        .await?;
    forget(app, Forgotten::OfDeletedAccounts(there)).await?;
    if app.clock_trust.may_forget() {
        let days = i64::from(app.config.current().queue.history_days);
        let before = clock::now_ms() - days.saturating_mul(DAY);
        forget(app, Forgotten::EndedBefore(before)).await?;
    }
    for (user, seq) in app.jobs.reader.surplus(KEEP).await? {
        forget(app, Forgotten::UpTo(user, seq)).await?;
    }
    Ok(())
}

async fn forget(app: &App, what: Forgotten) -> Result<(), StoreError> {
    while app.jobs.store.forget_some(what.clone(), BATCH).await? > 0 && pause(app).await {}
    Ok(())
}

async fn forget_without_files(app: &App) -> Result<(), StoreError> {
    let mut after = 0;
    loop {
        let batch = app.jobs.reader.finished_outputs(after, BATCH).await?;
        let Some(last) = batch.last() else {
            return Ok(());
        };
        after = last.seq;
        let with_places = batch
            .into_iter()
            .map(|job| {
                let now = app.engines.places_of(&job.user);
                (job, now)
            })
            .collect::<Vec<_>>();
        let looked = tokio::task::spawn_blocking(move || {
            let look = |(job, places)| look(&job, places).map(|look| (job.id, look));
            with_places.into_iter().filter_map(look).collect()
        });
        let looks: Vec<(JobId, FilesLook)> = looked.await.unwrap_or_default();
        if !looks.is_empty() {
            app.jobs.store.note_looks(looks).await?;
        }
        if !pause(app).await {
            return Ok(());
        }
    }
}

/// Looks for the files of a job where they went; `now`: where its user's files go now.
fn look(job: &FinishedOutputs, now: Option<Places>) -> Option<FilesLook> {
    let files = outcome::files(&job.outputs);
    if files.is_empty() {
        return None;
    }
    let noted = job.place.as_deref().and_then(Places::read);
    let is_noted = noted.is_some();
    let places = noted.or(now)?;
    let is_there = files.iter().any(|file| places.has_file(file));
    let sight = Sight {
        is_there,
        is_noted,
        missed_at: job.missed_at,
    };
    match sight.judge(clock::now_ms()) {
        Judgement::Nothing => None,
        Judgement::Found => Some(FilesLook::FoundAt(places.record()?)),
        Judgement::Missed(at) => Some(FilesLook::Missed(at)),
        Judgement::Gone => Some(FilesLook::Gone),
    }
}

/// What a look has shown, and what earlier ones had.
#[derive(Clone, Copy, Debug)]
struct Sight {
    is_there: bool,
    /// It is known that the files were once where they were looked for.
    is_noted: bool,
    missed_at: Option<i64>,
}

/// What follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judgement {
    Nothing,
    Found,
    Missed(i64),
    Gone,
}

impl Sight {
    /// Files count as gone when two looks, a day apart, have missed them at the place where they were.
    fn judge(self, now: i64) -> Judgement {
        match self {
            Self {
                is_there: true,
                is_noted: true,
                missed_at: None,
            } => Judgement::Nothing,
            Self { is_there: true, .. } => Judgement::Found,
            Self {
                is_noted: false, ..
            } => Judgement::Nothing,
            Self {
                missed_at: None, ..
            } => Judgement::Missed(now),
            Self {
                missed_at: Some(at),
                ..
            } if now.saturating_sub(at) >= DAY => Judgement::Gone,
            Self { .. } => Judgement::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_gone_when_two_looks_a_day_apart_have_missed_them_where_they_were() {
        let now = 10 * DAY;
        for (is_there, is_noted, missed_at, expected) in [
            (true, true, None, Judgement::Nothing),
            (true, false, None, Judgement::Found),
            (true, true, Some(now - 1), Judgement::Found),
            (false, false, None, Judgement::Nothing),
            (false, false, Some(0), Judgement::Nothing),
            (false, true, None, Judgement::Missed(now)),
            (false, true, Some(now - DAY + 1), Judgement::Nothing),
            (false, true, Some(now + DAY), Judgement::Nothing),
            (false, true, Some(now - DAY), Judgement::Gone),
        ] {
            let sight = Sight {
                is_there,
                is_noted,
                missed_at,
            };
            assert_eq!(sight.judge(now), expected, "{sight:?}");
        }
    }
}
