//! Tells people where they want to be told that their jobs are done: an ntfy topic or a webhook.
//!
//! The addresses are the users', so a message may lead nowhere a user could not reach without this
//! machine: the name is resolved once, every address it has must be public, and the connection goes
//! to an address that was looked at. Hosts that the settings name are exempt.
//!
//! - `target` reads the addresses, `addresses` says which of the internet's may be connected to;
//! - `message` has the words, `delivery` brings one to its target;
//! - `announce` says of a finished job whom to tell, [`Notifier`] keeps what waits to be sent.

mod addresses;
mod announce;
mod delivery;
mod message;
mod target;
#[cfg(test)]
mod tests;

pub(in crate::jobs) use announce::announce;
pub(crate) use delivery::NotifyError;
use delivery::{Sender, TIME_LIMIT};
use message::{Message, Report};
pub(crate) use target::{Target, TargetError};

use crate::accounts::UserId;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use rustls::RootCertStore;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// Between two messages to one user.
const PAUSE: Duration = Duration::from_secs(1);
/// Time for the worker to end.
const STOP_TIME_LIMIT: Duration = Duration::from_secs(2);
/// Messages that may wait.
const MAX_WAITING: usize = 256;
/// Messages that are sent at the same time, each of another user.
const MAX_SENDING: usize = 8;
/// Test messages that are sent at the same time.
const MAX_TESTS: usize = 4;

/// Sends messages to users, one after the other for each.
pub(crate) struct Notifier {
    post: Arc<Post>,
    stopped: CancellationToken,
    worker: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Notifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Notifier").finish_non_exhaustive()
    }
}

struct Post {
    sender: Sender,
    line: Mutex<VecDeque<Waiting>>,
    wake: Notify,
    tests: Semaphore,
}

struct Waiting {
    user: UserId,
    target: Target,
    report: Report,
}

impl Notifier {
    /// Starts the task that sends, which [`Notifier::stop`] ends. `allowed` tells hosts that need
    /// not be public, and is asked for each message.
    pub(crate) fn start(allowed: impl Fn() -> Vec<String> + Send + Sync + 'static) -> Self {
        let roots = RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        };
        Self::with_roots(allowed, roots)
    }

    fn with_roots(
        allowed: impl Fn() -> Vec<String> + Send + Sync + 'static,
        roots: RootCertStore,
    ) -> Self {
        let post = Arc::new(Post {
            sender: Sender::new(allowed, roots),
            line: Mutex::default(),
            wake: Notify::new(),
            tests: Semaphore::new(MAX_TESTS),
        });
        let stopped = CancellationToken::new();
        let worker = tokio::spawn(work(Arc::clone(&post), stopped.clone()));
        Self {
            post,
            stopped,
            worker: Mutex::new(Some(worker)),
        }
    }

    /// Has a message sent soon, together with others of this user that wait for the same target.
    fn send(&self, user: UserId, target: Target, message: Message) {
        {
            let mut line = self.post.line.lock();
            let same = |waiting: &&mut Waiting| waiting.user == user && waiting.target == target;
            if let Some(waiting) = line.iter_mut().find(same) {
                waiting.report.add(message);
            } else if line.len() >= MAX_WAITING {
                tracing::warn!(%user, host = target.host, "too many messages wait; one is dropped");
                return;
            } else {
                let mut report = Report::default();
                report.add(message);
                line.push_back(Waiting {
                    user,
                    target,
                    report,
                });
            }
        }
        self.post.wake.notify_one();
    }

    /// Sends a message to see whether it arrives; tries once.
    pub(crate) async fn test(&self, target: &Target) -> Result<(), NotifyError> {
        let deliver = async {
            let _permit = self.post.tests.acquire().await;
            self.post.sender.test(target).await
        };
        timeout(TIME_LIMIT, Box::pin(deliver))
            .await
            .map_err(|_| NotifyError::Silent)?
    }

    /// Ends sending; what waits is not sent.
    pub(crate) async fn stop(&self) {
        self.stopped.cancel();
        let worker = self.worker.lock().take();
        if let Some(worker) = worker
            && timeout(STOP_TIME_LIMIT, worker).await.is_err()
        {
            tracing::warn!("sending messages did not end in time");
        }
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.stopped.cancel();
    }
}

/// Sends what waits until `stopped`.
async fn work(post: Arc<Post>, stopped: CancellationToken) {
    let mut sending = FuturesUnordered::new();
    // When a user may be sent the next; `None` while one is under way.
    let mut next_at: HashMap<UserId, Option<Instant>> = HashMap::new();
    loop {
        let now = Instant::now();
        next_at.retain(|_, at| at.is_none_or(|at| at > now));
        while sending.len() < MAX_SENDING
            && let Some(next) = post.take(|user| !next_at.contains_key(user))
        {
            next_at.insert(next.user.clone(), None);
            let post = &post;
            sending.push(Box::pin(async move {
                post.sender.send(&next.target, &next.report).await;
                next.user
            }));
        }
        let wait_until = next_at.values().flatten().min().copied();
        tokio::select! {
            () = stopped.cancelled() => return,
            () = post.wake.notified() => {}
            Some(user) = sending.next() => {
                next_at.insert(user, Some(Instant::now() + PAUSE));
            }
            () = sleep_until(wait_until.unwrap_or(now)), if wait_until.is_some() => {}
        }
    }
}

impl Post {
    /// The first that waits and whose user may be sent something.
    fn take(&self, is_free: impl Fn(&UserId) -> bool) -> Option<Waiting> {
        let mut line = self.line.lock();
        let first = line.iter().position(|waiting| is_free(&waiting.user))?;
        line.remove(first)
    }
}
