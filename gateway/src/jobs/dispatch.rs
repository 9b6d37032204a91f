//! The one task that hands jobs out: whenever something changed, it asks the queue for the next
//! one, and starts engines for jobs that wait for theirs.

use super::order::JobId;
use super::queue::{Back, Conditions as _, Intent};
use super::{conditions, hold, runner, tidy};
use crate::accounts::UserId;
use crate::app::App;
use crate::clock::{self, Minutes};
use crate::engine::Visit;
use crate::http::chain;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Between two rounds when nothing tells of a change.
const ROUND: Duration = Duration::from_secs(1);
/// Between two looks at the clock, the other programs and the accounts.
const SLOW_ROUND: Duration = Duration::from_secs(5);
/// From the start to the first clean-up of the history, when everybody comes.
const FIRST_TIDY: Minutes = Minutes::fixed(1);
/// Between two clean-ups.
const TIDY_ROUND: Minutes = Minutes::fixed(60);

/// Runs until the queue stops.
pub(crate) async fn run(app: Arc<App>) {
    let mut engines = app.engines.rounds();
    let mut watch = hold::Watch::new(&app);
    let mut slow_at: Option<Instant> = None;
    let mut tidy_at = Instant::now() + FIRST_TIDY.duration();
    loop {
        if slow_at.is_none_or(|at| at.elapsed() >= SLOW_ROUND) {
            slow_at = Some(Instant::now());
            look(&app, &mut watch).await;
        }
        if Instant::now() >= tidy_at {
            tidy_at = Instant::now() + TIDY_ROUND.duration();
            app.jobs.spawn(tidy::tidy(Arc::clone(&app)));
        }
        round(&app);
        note_places(&app);
        tokio::select! {
            () = app.jobs.stopping.cancelled() => return,
            () = app.jobs.wake.notified() => {}
            () = app.jobs.look.notified() => slow_at = None,
            changed = engines.changed() => if changed.is_err() {
                return;
            },
            () = sleep(ROUND) => {}
        }
    }
}

fn round(app: &Arc<App>) {
    app.jobs.set_slots(conditions::slots(app));
    while let Some(job) = app.jobs.next(clock::now_ms(), &**app) {
        let Some(engine) = app.engines.get(&job.engine) else {
            let back = Back {
                attempts: job.details.attempts,
                is_posted: job.details.is_posted,
                is_charged: false,
            };
            app.jobs.put_back(job.entry.id, back);
            break;
        };
        app.jobs.tell_count(&job.entry.user);
        app.jobs
            .spawn(runner::hand_over(Arc::clone(app), engine, job));
    }
    let hold = app.jobs.hold();
    for (user, waiting) in app.jobs.waiting_users() {
        if let Some(engine) = app.engines.of(&user) {
            engine.note_waiting(waiting);
        }
        if app.engine_of(&user).is_some() {
            app.engines.note_ready(&user);
        } else if app.may_run(&user, hold.as_ref()) {
            app.engines.visit(&user, Visit::Job);
        }
    }
}

/// Writes down where the files of jobs went that have just ended: the settings may move the place later.
fn note_places(app: &Arc<App>) {
    let places = |(id, user): (JobId, UserId)| {
        let places = app.engines.places_of(&user)?;
        Some((id, places.record()?))
    };
    let ended: Vec<_> = app
        .jobs
        .take_ended()
        .into_iter()
        .filter_map(places)
        .collect();
    if ended.is_empty() {
        return;
    }
    app.jobs.spawn({
        let app = Arc::clone(app);
        async move {
            // Without the note the next look finds out.
            if let Err(error) = app.store.note_places(ended).await {
                tracing::warn!(error = %chain(&error), "the places of files could not be noted");
            }
        }
    });
}

/// Whatever passes with time.
async fn look(app: &App, watch: &mut hold::Watch) {
    app.jobs.note_day(&clock::local_day());
    let hold = watch.look(app).await;
    if app.jobs.set_hold(hold) {
        match hold {
            Some(hold) => tracing::info!(reason = hold.reason.name(), "jobs are held back"),
            None => tracing::info!("jobs run again"),
        }
        app.announcements.changed();
    }
    follow_accounts(app).await;
}

/// Jobs of deleted accounts go with them; those of disabled ones wait, and so do those of accounts that
/// the account file does not hold: a file that is damaged, away or older says nothing of who is gone.
async fn follow_accounts(app: &App) {
    let accounts = app.accounts.current();
    let running = app.jobs.running();
    let mut strangers: Vec<UserId> = app
        .jobs
        .waiting_users()
        .into_iter()
        .map(|(user, _)| user)
        .chain(running.iter().map(|job| job.entry.user.clone()))
        .chain(app.engines.owner())
        .filter(|user| accounts.get(user).is_none())
        .collect();
    let deleted = if strangers.is_empty() {
        HashSet::new()
    } else {
        match app.store.deleted_among(strangers.clone()).await {
            Ok(deleted) => deleted,
            Err(error) => {
                tracing::error!(error = %chain(&error), "deleted accounts could not be read");
                return;
            }
        }
    };
    for user in &deleted {
        app.engines.account_is_deleted(user);
        let own = app.jobs.own_waiting(user);
        if let Err(error) = app.jobs.cancel_waiting(&own, Some(user)).await {
            tracing::error!(error = %chain(&error), "jobs of a deleted account could not be removed");
        }
    }
    for job in running {
        let user = &job.entry.user;
        match accounts.get(user) {
            Some(account) if !account.disabled => {}
            None if !deleted.contains(user) => {
                app.jobs.interrupt(job.entry.id, None, Intent::PutBack);
            }
            _ => {
                app.jobs.interrupt(job.entry.id, None, Intent::Cancel);
            }
        }
    }
    strangers.retain(|user| !deleted.contains(user));
    tell_of_strangers(app, &strangers);
}

/// Says once that jobs wait for accounts that are not there, and shows it while it is so.
fn tell_of_strangers(app: &App, strangers: &[UserId]) {
    let jobs = strangers
        .iter()
        .map(|user| app.jobs.waiting_of(user))
        .sum::<usize>();
    let before = app.jobs.set_strangers_jobs(jobs);
    if before != jobs {
        app.announcements.changed();
    }
    if before == 0
        && let Some(warning) = app.strangers_warning()
    {
        tracing::warn!("{warning}");
    }
}

/// Ends the jobs of others than the owner, to be run again later.
pub(crate) fn put_back_others(app: &App) {
    let owner = app.engines.owner();
    for job in app.jobs.running() {
        if owner.as_ref() != Some(&job.entry.user) {
            app.jobs.interrupt(job.entry.id, None, Intent::PutBack);
        }
    }
}
