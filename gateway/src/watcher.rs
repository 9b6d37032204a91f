//! Reads files again when somebody edits them: settings, accounts, lists, certificates.

use crate::access::ListKind;
use crate::app::App;
use crate::clock;
use crate::http::chain;
use notify::{RecursiveMode, Watcher as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

/// Looks without being told: some file systems tell nothing. Also brings an edit into force within
/// a second where watching failed.
const POLL: Duration = Duration::from_millis(900);
/// Editors write in several steps.
const SETTLE: Duration = Duration::from_millis(50);
/// Between two rounds of upkeep: last uses written down, what ran out forgotten.
const UPKEEP: Duration = Duration::from_secs(60);

/// Watches until `stopping`.
pub(crate) async fn run(app: Arc<App>, stopping: CancellationToken) {
    let (told, mut changes) = mpsc::channel(1);
    let directories = directories(&app);
    let watcher = notify::recommended_watcher(move |_event| {
        // One message in the channel is enough: a look covers all files.
        let _ = told.try_send(());
    });
    let watcher = watcher.and_then(|mut watcher| {
        for directory in &directories {
            watcher.watch(directory, RecursiveMode::NonRecursive)?;
        }
        Ok(watcher)
    });
    if let Err(error) = &watcher {
        tracing::warn!(%error, "files cannot be watched; looking at them once a second instead");
    }
    let mut poll = interval(POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut upkeep = interval(UPKEEP);
    upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stopping.cancelled() => break,
            Some(()) = changes.recv() => {
                sleep(SETTLE).await;
                reload(&app).await;
            }
            _ = poll.tick() => reload(&app).await,
            _ = upkeep.tick() => {
                if let Err(error) = app.sessions.maintain().await {
                    tracing::error!(error = %chain(&error), "sessions could not be written down");
                }
                if let Err(error) = app.store.trim_audit().await {
                    tracing::error!(error = %chain(&error), "the audit log could not be trimmed");
                }
                let now = clock::now();
                for trimmed in [app.store.trim_devices(now).await, app.store.trim_invites(now).await] {
                    if let Err(error) = trimmed {
                        tracing::error!(error = %chain(&error), "what is over could not be forgotten");
                    }
                }
                // Sessions run out without a word.
                app.announcements.changed();
            }
        }
    }
    if let Err(error) = app.sessions.maintain().await {
        tracing::error!(error = %chain(&error), "sessions could not be written down");
    }
}

fn directories(app: &App) -> Vec<PathBuf> {
    let [allow, deny] = app.lists.paths();
    let mut directories: Vec<PathBuf> = [app.config.path(), app.accounts.path(), allow, deny]
        .into_iter()
        .filter_map(Path::parent)
        .map(Path::to_path_buf)
        .collect();
    directories.sort();
    directories.dedup();
    directories
}

async fn reload(app: &Arc<App>) {
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
            app.end_sessions_of_shut_out_accounts().await;
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
