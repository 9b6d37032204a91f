//! Runs a program that is no engine to its end, under the same guard as one.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::launch::LaunchPlan;
use super::log::{LogRing, LogStream, pump};
use super::spawn::{ProcessExit, SpawnError, Spawner};

/// How long the processes of a killed program may take to go.
const KILL_LIMIT: Duration = Duration::from_secs(15);
/// How long the output of processes that are gone may take to be read to its end.
const OUTPUT_END_LIMIT: Duration = Duration::from_secs(2);

/// How a program came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself.
    Exited(ProcessExit),
    /// Killed with all that it started, because it was cancelled.
    Cancelled,
    /// Killed with all that it started, because it took too long.
    TooLong,
}

/// Runs what `plan` says, its output going to `log`, and returns when it and all that it started
/// are gone.
///
/// # Errors
/// [`SpawnError`] when it does not start.
pub async fn run_to_end(
    spawner: &dyn Spawner,
    plan: &LaunchPlan,
    log: &LogRing,
    cancelled: &CancellationToken,
    limit: Duration,
) -> Result<Ended, SpawnError> {
    let mut process = tokio::select! {
        () = cancelled.cancelled() => return Ok(Ended::Cancelled),
        started = spawner.spawn(plan) => started?,
    };
    let mut output = JoinSet::new();
    output.spawn(pump(process.output, LogStream::Out, log.clone(), None));
    output.spawn(pump(process.errors, LogStream::Err, log.clone(), None));
    let ended = tokio::select! {
        exit = process.control.wait() => Ended::Exited(exit),
        () = cancelled.cancelled() => Ended::Cancelled,
        () = tokio::time::sleep(limit) => Ended::TooLong,
    };
    if !matches!(ended, Ended::Exited(_)) {
        process.control.kill();
        if tokio::time::timeout(KILL_LIMIT, process.control.wait())
            .await
            .is_err()
        {
            tracing::warn!("a program that was killed does not go");
        }
    }
    let drained = tokio::time::timeout(OUTPUT_END_LIMIT, async {
        while output.join_next().await.is_some() {}
    });
    if drained.await.is_err() {
        output.shutdown().await;
    }
    Ok(ended)
}
