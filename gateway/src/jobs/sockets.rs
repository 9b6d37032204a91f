//! Open pages of each user, to tell them what ComfyUI would tell if it held the waiting jobs
//! itself.

use crate::accounts::UserId;
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use tokio::sync::{mpsc, watch};

/// Messages that wait for one page; a page that is this far behind misses the next one. Its count
/// is none of them: it is looked up when it can be told.
const QUEUE: usize = 64;

#[derive(Debug)]
struct Socket {
    number: u64,
    client_id: Option<String>,
    messages: mpsc::Sender<Own>,
    /// The count of its user may be another one now.
    count: watch::Sender<()>,
}

/// A message of our own.
#[derive(Clone, Debug)]
enum Own {
    Text(Bytes),
    /// The count, as it is when this is told.
    Count,
}

/// All open pages.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    by_user: Arc<Mutex<HashMap<UserId, Vec<Socket>>>>,
    next: AtomicU64,
}

/// An open page; dropping it forgets it.
#[derive(Debug)]
pub(crate) struct OpenSocket {
    by_user: Arc<Mutex<HashMap<UserId, Vec<Socket>>>>,
    user: UserId,
    number: u64,
    told: Arc<Told>,
}

impl OpenSocket {
    /// The page is told a count by its engine's own message. Returns false if a message of ours has told
    /// the same count since the engine's last one and so stands in its place.
    pub(crate) fn note_count(&self, remaining: usize) -> bool {
        let is_same = self.told.count.swap(remaining, Ordering::Relaxed) == remaining;
        let is_ours = self.told.is_ours.swap(false, Ordering::Relaxed);
        !(is_same && is_ours)
    }
}

/// The count that a page was told last; a page asks for its whole queue at each message.
#[derive(Debug)]
struct Told {
    count: AtomicUsize,
    /// By a message of ours.
    is_ours: AtomicBool,
}

impl Default for Told {
    fn default() -> Self {
        Self {
            count: AtomicUsize::new(usize::MAX),
            is_ours: AtomicBool::new(false),
        }
    }
}

/// What is to be told to an open page.
pub(crate) struct Messages {
    own: mpsc::Receiver<Own>,
    count: watch::Receiver<()>,
    told: Arc<Told>,
    remaining: Box<dyn Fn() -> usize + Send + Sync>,
    /// Returns true while the engine is about to tell the count itself.
    is_told_soon: Box<dyn Fn() -> bool + Send + Sync>,
    is_count_closed: bool,
}

impl Messages {
    /// Waits for the next one; `None` when there will be none.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        loop {
            tokio::select! {
                biased;
                own = self.own.recv() => match own {
                    Some(own) => if let Some(text) = self.text_of(own) {
                        return Some(text);
                    },
                    None => return None,
                },
                changed = self.count.changed(), if !self.is_count_closed => {
                    if changed.is_err() {
                        self.is_count_closed = true;
                    } else if let Some(status) = self.count_of_now() {
                        return Some(status);
                    }
                }
            }
        }
    }

    /// The next one, if there is one now.
    pub(crate) fn ready(&mut self) -> Option<Bytes> {
        while let Ok(own) = self.own.try_recv() {
            if let Some(text) = self.text_of(own) {
                return Some(text);
            }
        }
        if !self.count.has_changed().unwrap_or(false) {
            return None;
        }
        self.count.mark_unchanged();
        self.count_of_now()
    }

    /// The count, but for what its engine is about to tell.
    fn count_of_now(&self) -> Option<Bytes> {
        if (self.is_told_soon)() {
            return None;
        }
        self.new_count()
    }

    fn text_of(&self, own: Own) -> Option<Bytes> {
        match own {
            Own::Text(text) => Some(text),
            Own::Count => self.new_count(),
        }
    }

    /// `status`, as ComfyUI sends it to every page whenever its queue changes.
    fn new_count(&self) -> Option<Bytes> {
        let remaining = (self.remaining)();
        let told = self.told.count.swap(remaining, Ordering::Relaxed);
        if told == remaining {
            return None;
        }
        self.told.is_ours.store(true, Ordering::Relaxed);
        Some(status_message(remaining).to_string().into())
    }
}

impl fmt::Debug for Messages {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Messages").finish_non_exhaustive()
    }
}

impl Sockets {
    /// A page of `user` opens a WebSocket. `remaining` looks up how many jobs they have; `is_told_soon`
    /// returns true while the end of a job is on its way to the page, which the engine's own count follows.
    pub(crate) fn open(
        &self,
        user: &UserId,
        client_id: Option<String>,
        remaining: impl Fn() -> usize + Send + Sync + 'static,
        is_told_soon: impl Fn() -> bool + Send + Sync + 'static,
    ) -> (OpenSocket, Messages) {
        let (messages, own) = mpsc::channel(QUEUE);
        let (count, count_changes) = watch::channel(());
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let told = Arc::new(Told::default());
        let socket = Socket {
            number,
            client_id,
            messages,
            count,
        };
        self.by_user
            .lock()
            .entry(user.clone())
            .or_default()
            .push(socket);
        let open = OpenSocket {
            by_user: Arc::clone(&self.by_user),
            user: user.clone(),
            number,
            told: Arc::clone(&told),
        };
        let messages = Messages {
            own,
            count: count_changes,
            told,
            remaining: Box::new(remaining),
            is_told_soon: Box::new(is_told_soon),
            is_count_closed: false,
        };
        (open, messages)
    }

    /// The number of a user's jobs may be another one now: his pages are told it if it is.
    pub(super) fn count_may_differ(&self, user: &UserId) {
        let by_user = self.by_user.lock();
        for socket in by_user.get(user).into_iter().flatten() {
            socket.count.send_replace(());
        }
    }

    /// Tells the page that has queued a job, or all of its owner if it has no page of its own.
    pub(super) fn tell(&self, user: &UserId, client_id: Option<&str>, message: &Value) {
        let text = Own::Text(Bytes::from(message.to_string()));
        self.send(user, client_id, &text);
    }

    /// The same pages are told the count in the order of their messages.
    pub(super) fn tell_count(&self, user: &UserId, client_id: Option<&str>) {
        self.send(user, client_id, &Own::Count);
    }

    fn send(&self, user: &UserId, client_id: Option<&str>, own: &Own) {
        let by_user = self.by_user.lock();
        for socket in by_user.get(user).into_iter().flatten() {
            if client_id.is_none() || socket.client_id.as_deref() == client_id {
                let _ = socket.messages.try_send(own.clone());
            }
        }
    }
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        let mut by_user = self.by_user.lock();
        if let Some(sockets) = by_user.get_mut(&self.user) {
            sockets.retain(|socket| socket.number != self.number);
            if sockets.is_empty() {
                by_user.remove(&self.user);
            }
        }
    }
}

fn status_message(remaining: usize) -> Value {
    json!({ "type": "status", "data": { "status": { "exec_info": { "queue_remaining": remaining } } } })
}

/// ComfyUI's own `status` message with the count replaced; `None` if it is none.
pub(crate) fn with_count(message: &[u8], remaining: usize) -> Option<Vec<u8>> {
    let mut message: Value = serde_json::from_slice(message).ok()?;
    *message.pointer_mut("/data/status/exec_info/queue_remaining")? = json!(remaining);
    serde_json::to_vec(&message).ok()
}

#[cfg(test)]
impl Messages {
    /// Texts that are told one by one.
    pub(crate) fn of_channel() -> (impl Fn(&'static [u8]), Self) {
        let (sender, own) = mpsc::channel(QUEUE);
        let tell = move |text| {
            let _ = sender.try_send(Own::Text(Bytes::from_static(text)));
        };
        (tell, Self::of(own))
    }

    fn of(own: mpsc::Receiver<Own>) -> Self {
        let (_, count) = watch::channel(());
        Self {
            own,
            count,
            told: Arc::default(),
            remaining: Box::new(|| 0),
            is_told_soon: Box::new(|| false),
            is_count_closed: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page of `user`, and the count that it finds when it looks.
    fn open(
        sockets: &Sockets,
        user: &UserId,
        client_id: &str,
    ) -> (OpenSocket, Messages, Arc<AtomicUsize>) {
        let count = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&count);
        let remaining = move || seen.load(Ordering::Relaxed);
        let soon = Arc::clone(&count);
        let is_told_soon = move || soon.load(Ordering::Relaxed) >= 100;
        let (open, messages) =
            sockets.open(user, Some(client_id.to_owned()), remaining, is_told_soon);
        (open, messages, count)
    }

    fn count_of(message: &Bytes) -> Option<u64> {
        let message: Value = serde_json::from_slice(message).unwrap();
        message
            .pointer("/data/status/exec_info/queue_remaining")?
            .as_u64()
    }

    #[test]
    fn only_the_page_of_the_job_and_only_its_owner_hears() {
        let sockets = Sockets::default();
        let (anna, bert) = (
            UserId::parse("anna").unwrap(),
            UserId::parse("bert").unwrap(),
        );
        let (_one, mut first, _) = open(&sockets, &anna, "a");
        let (two, mut second, count) = open(&sockets, &anna, "b");
        let (_three, mut foreign, _) = open(&sockets, &bert, "a");
        sockets.tell(&anna, Some("a"), &json!({"type": "x"}));
        assert!(first.ready().is_some());
        assert!(second.ready().is_none());
        count.store(3, Ordering::Relaxed);
        sockets.count_may_differ(&anna);
        assert_eq!(count_of(&first.ready().unwrap()), Some(0));
        assert_eq!(count_of(&second.ready().unwrap()), Some(3));
        assert!(foreign.ready().is_none());
        sockets.count_may_differ(&anna);
        assert!(second.ready().is_none(), "the same count is not told again");
        count.store(4, Ordering::Relaxed);
        assert!(two.note_count(4));
        sockets.count_may_differ(&anna);
        assert!(second.ready().is_none(), "its engine has told it");
        count.store(5, Ordering::Relaxed);
        sockets.count_may_differ(&anna);
        assert_eq!(count_of(&second.ready().unwrap()), Some(5));
        assert!(!two.note_count(5), "ours stands for its engine's");
        assert!(two.note_count(5), "but for one only");
        drop(two);
        assert_eq!(sockets.by_user.lock()[&anna].len(), 1);
    }

    #[test]
    fn a_count_that_the_engine_is_about_to_tell_is_not_told_before() {
        let sockets = Sockets::default();
        let anna = UserId::parse("anna").unwrap();
        let (_open, mut page, count) = open(&sockets, &anna, "a");
        count.store(100, Ordering::Relaxed);
        sockets.count_may_differ(&anna);
        assert!(page.ready().is_none());
        count.store(1, Ordering::Relaxed);
        sockets.count_may_differ(&anna);
        assert_eq!(count_of(&page.ready().unwrap()), Some(1));
    }

    #[tokio::test]
    async fn a_page_that_was_far_behind_is_told_the_count_afterwards() {
        let sockets = Sockets::default();
        let anna = UserId::parse("anna").unwrap();
        let (_open, mut page, count) = open(&sockets, &anna, "a");
        for told in 1..=3 {
            for _ in 0..QUEUE {
                sockets.tell(&anna, None, &json!({"type": "x"}));
            }
            count.store(told, Ordering::Relaxed);
            sockets.count_may_differ(&anna);
        }
        for _ in 0..QUEUE {
            assert_eq!(count_of(&page.next().await.unwrap()), None);
        }
        assert_eq!(count_of(&page.next().await.unwrap()), Some(3));
        assert!(page.ready().is_none());
    }

    #[test]
    fn the_count_of_a_status_is_replaced_and_nothing_else() {
        let told = br#"{"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 7}}, "sid": "s"}}"#;
        let changed: Value = serde_json::from_slice(&with_count(told, 2).unwrap()).unwrap();
        assert_eq!(
            changed,
            json!({"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 2}}, "sid": "s"}})
        );
        assert!(with_count(br#"{"type": "status", "data": {}}"#, 2).is_none());
    }
}
