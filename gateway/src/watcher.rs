//! Reads files again when somebody edits them: settings, accounts, lists, certificates.

use crate::access::ListKind;
use crate::app::App;
use crate::clock;
use crate::http::chain;
use crate::store::StoreError;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Between two looks. The system is not asked to tell of changes: it would tell of every page that is written to the
/// database beside these files, and some file systems tell nothing.
const POLL: Duration = Duration::from_millis(500);
/// Editors write in several steps, and half a list would let in whom the whole keeps out.
const SETTLE: Duration = Duration::from_millis(100);
/// Looks in a row that may find a file still being written.
const UNSETTLED_LOOKS: u32 = 4;
/// Between two rounds of upkeep: last uses written down, what ran out forgotten.
const UPKEEP: Duration = Duration::from_secs(60);

/// Watches until `stopping`.
pub(crate) async fn run(app: Arc<App>, stopping: CancellationToken) {
    let mut poll = interval(POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut unsettled = 0;
    let mut judged = app.accounts.current();
    let mut upkeep = interval(UPKEEP);
    upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stopping.cancelled() => break,
            _ = poll.tick() => {
                if unsettled < UNSETTLED_LOOKS && is_being_written(&app) {
                    unsettled += 1;
                    continue;
                }
                unsettled = 0;
                reload(&app);
                // Also a change of our own takes over what others wrote into the file.
                let accounts = app.accounts.current();
                if !Arc::ptr_eq(&accounts, &judged) {
                    let there = accounts.iter().map(|account| account.id.clone()).collect();
                    if let Err(error) = app.store.take_deletions_back(there).await {
                        tracing::error!(error = %chain(&error), "accounts that are back could not be noted");
                    }
                    judged = accounts;
                    app.end_sessions_of_shut_out_accounts().await;
                }
            }
            _ = upkeep.tick() => {
                app.clock_trust.look(&app.store);
                let may_forget = app.clock_trust.may_forget();
                if let Err(error) = app.sessions.maintain(may_forget).await {
                    tracing::error!(error = %chain(&error), "sessions could not be written down");
                }
                if let Err(error) = app.store.trim_audit().await {
                    tracing::error!(error = %chain(&error), "the audit log could not be trimmed");
                }
                if may_forget && let Err(error) = forget_what_is_over(&app).await {
                    tracing::error!(error = %chain(&error), "what is over could not be forgotten");
                }
                // Sessions run out without a word.
                app.announcements.changed();
            }
        }
    }
    if let Err(error) = app.sessions.maintain(false).await {
        tracing::error!(error = %chain(&error), "sessions could not be written down");
    }
}

async fn forget_what_is_over(app: &App) -> Result<(), StoreError> {
    let now = clock::now();
    app.store.trim_devices(now).await?;
    app.store.trim_invites(now).await
}

/// Whether a file that people edit was written to just now.
fn is_being_written(app: &App) -> bool {
    let [allow, deny] = app.lists.paths();
    [app.config.path(), app.accounts.path(), allow, deny]
        .into_iter()
        .filter_map(|path| path.metadata().ok()?.modified().ok()?.elapsed().ok())
        .any(|age| age < SETTLE)
}

fn reload(app: &Arc<App>) {
    match app.config.reload() {
        Ok(true) => {
            tracing::info!("config.json has changed and is in force");
            app.config_changed();
            app.sharing.apply_soon();
        }
        Ok(false) => {}
        Err(error) => {
            tracing::error!(error = %chain(&error), "config.json was not taken; the last good one stays in force")
        }
    }
    match app.accounts.reload() {
        Ok(true) => {
            tracing::info!("the account file has changed and is in force");
            app.announcements.changed();
        }
        Ok(false) => {}
        Err(error) => {
            tracing::error!(error = %chain(&error), "the account file was not taken; the last good one stays in force");
        }
    }
    for (kind, result) in app.lists.reload() {
        let list = match kind {
            ListKind::Allow => "allow list",
            ListKind::Deny => "deny list",
        };
        match result {
            Ok(true) => {
                tracing::info!("the {list} has changed and is in force");
                app.announcements.changed();
                app.end_denied_connections();
            }
            Ok(false) => {}
            Err(error) => {
                tracing::error!(error = %chain(&error), "the {list} was not taken; the last good one stays in force")
            }
        }
    }
    if let Some(tls) = app.tls.load_full()
        && let Err(error) = tls.reload_if_changed()
    {
        tracing::error!(error = %chain(&error), "the certificate was not taken; the last good one stays in force");
    }
}
