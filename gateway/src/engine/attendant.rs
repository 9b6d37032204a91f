//! Knows how many jobs an engine has, and what its nodes take.

use super::EngineId;
use super::activity::Activity;
use super::client::{self, ClientError};
use crate::http::chain;
use crate::jobs::Catalogue;
use crate::supervisor::EngineStatus;
use arc_swap::ArcSwapOption;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

/// Between two questions for the jobs of an engine that has some. Whoever stays with a job asks
/// sooner and says when it has ended.
const BUSY_POLL: Duration = Duration::from_secs(2);
/// Between two questions for the jobs of an engine that had none.
const IDLE_POLL: Duration = Duration::from_secs(10);

/// Asks an engine for the number of its jobs. What it said of them before a prompt that was passed
/// meanwhile is forgotten.
pub(super) async fn count_jobs(
    address: SocketAddr,
    activity: &Activity,
    wake: &Notify,
) -> Result<u32, ClientError> {
    let before = activity.jobs();
    let prompts = activity.prompts();
    let answer = client::jobs(address).await;
    if prompts == activity.prompts() {
        let jobs = answer.as_ref().ok().copied();
        activity.set_jobs(jobs);
        if before != jobs {
            wake.notify_one();
        }
    }
    answer
}

/// Asks a ready engine for its jobs: often while it has some, rarely while it has none.
pub(super) struct Attendant {
    pub(super) id: EngineId,
    pub(super) status: watch::Receiver<EngineStatus>,
    pub(super) activity: Arc<Activity>,
    /// Wakes the attendant.
    pub(super) asked: Arc<Notify>,
    /// Wakes the registry.
    pub(super) wake: Arc<Notify>,
    pub(super) catalogue: Arc<ArcSwapOption<Catalogue>>,
}

impl Attendant {
    pub(super) async fn run(mut self) {
        loop {
            let address = self.status.borrow_and_update().address;
            let Some(address) = address else {
                self.activity.set_jobs(None);
                self.activity.note_models(false);
                self.catalogue.store(None);
                if self.status.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let pause = self.look(address).await;
            if self.catalogue.load().is_none() {
                self.read_catalogue(address).await;
            }
            tokio::select! {
                changed = self.status.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = self.asked.notified() => {}
                () = sleep(pause) => {}
            }
        }
    }

    /// Asks once; returns how long to wait until the next time.
    async fn look(&self, address: SocketAddr) -> Duration {
        let jobs = count_jobs(address, &self.activity, &self.wake)
            .await
            .inspect_err(|error| {
                tracing::debug!(engine = %self.id, error = %chain(error), "ComfyUI did not tell its jobs");
            })
            .ok();
        if jobs == Some(0) {
            IDLE_POLL
        } else {
            BUSY_POLL
        }
    }

    /// Reads once after each start what the engine's nodes take. Several megabytes: on a thread of
    /// its own, and not again when it could not be read, because jobs pass without it as well.
    async fn read_catalogue(&self, address: SocketAddr) {
        let read = match client::object_info(address).await {
            Ok(text) => tokio::task::spawn_blocking(move || Catalogue::parse(&text)).await,
            Err(error) => {
                tracing::debug!(engine = %self.id, error = %chain(&error), "ComfyUI did not tell its nodes");
                return;
            }
        };
        match read {
            Ok(Ok(catalogue)) => self.catalogue.store(Some(Arc::new(catalogue))),
            Ok(Err(error)) => {
                tracing::warn!(engine = %self.id, error = %chain(&error), "ComfyUI's list of nodes cannot be read");
                self.catalogue.store(Some(Arc::new(Catalogue::default())));
            }
            Err(error) => tracing::error!(%error, "reading ComfyUI's nodes broke"),
        }
    }
}
