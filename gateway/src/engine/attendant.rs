//! Knows how many jobs an engine has, and asks what its nodes take.

use super::EngineId;
use super::activity::Activity;
use super::client::{self, ClientError};
use super::knowledge::Knowledge;
use crate::http::chain;
use crate::jobs::{Catalogue, Replacements};
use crate::supervisor::EngineStatus;
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
    pub(super) knowledge: Arc<Knowledge>,
}

impl Attendant {
    pub(super) async fn run(mut self) {
        let mut begun = None;
        loop {
            let (address, generation) = {
                let status = self.status.borrow_and_update();
                (status.address, status.generation)
            };
            let Some(address) = address else {
                self.activity.set_jobs(None);
                self.activity.note_models(false);
                self.activity.note_caches(false);
                self.knowledge.begin(None);
                begun = None;
                if self.status.changed().await.is_err() {
                    return;
                }
                continue;
            };
            if begun != Some(generation) {
                begun = Some(generation);
                self.knowledge.begin(begun);
            }
            let pause = self.look(address).await;
            if self.knowledge.is_due() {
                self.read_nodes(address, generation).await;
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

    /// Reads after each start what the engine's nodes take, and what it puts in the place of others.
    /// Several megabytes: on a thread of its own.
    async fn read_nodes(&self, address: SocketAddr, generation: u64) {
        let told = match client::node_replacements(address).await {
            Ok(Some(text)) => Replacements::parse(&text)
                .inspect_err(|error| {
                    tracing::warn!(engine = %self.id, error = %chain(error), "ComfyUI's list of replaced nodes cannot be read");
                })
                .unwrap_or(Replacements::Unknown),
            Ok(None) => Replacements::default(),
            // Some pack's replacement cannot be written down, for example.
            Err(error @ ClientError::Refused(_)) => {
                tracing::warn!(engine = %self.id, error = %chain(&error), "ComfyUI does not tell its replaced nodes");
                Replacements::Unknown
            }
            Err(error) => {
                tracing::debug!(engine = %self.id, error = %chain(&error), "ComfyUI did not tell its replaced nodes");
                self.knowledge.is_not_told(generation);
                return;
            }
        };
        if matches!(told, Replacements::Known(_)) {
            self.knowledge.replacements_are_told(generation, &told);
        }
        let read = match client::object_info(address).await {
            Ok(text) => tokio::task::spawn_blocking(move || Catalogue::parse(&text)).await,
            Err(error) => {
                tracing::debug!(engine = %self.id, error = %chain(&error), "ComfyUI did not tell its nodes");
                self.knowledge.is_not_told(generation);
                return;
            }
        };
        let catalogue = match read {
            Ok(Ok(catalogue)) => catalogue,
            Ok(Err(error)) => {
                tracing::warn!(engine = %self.id, error = %chain(&error), "ComfyUI's list of nodes cannot be read");
                Catalogue::default()
            }
            Err(error) => {
                tracing::error!(%error, "reading ComfyUI's nodes broke");
                Catalogue::default()
            }
        };
        self.knowledge
            .all_is_told(generation, catalogue.with_replacements(told));
    }
}
