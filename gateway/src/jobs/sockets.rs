//! Open pages of each user, to tell them what ComfyUI would tell if it held the waiting jobs
//! itself.

use crate::accounts::UserId;
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tokio::sync::mpsc;

/// Messages that wait for one page; a page that is this far behind misses the next one and asks
/// again when it comes back.
const QUEUE: usize = 64;

#[derive(Debug)]
struct Socket {
    number: u64,
    client_id: Option<String>,
    messages: mpsc::Sender<Bytes>,
    /// The count it was told last; a page asks for its whole queue at each message.
    told: Arc<AtomicUsize>,
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
    told: Arc<AtomicUsize>,
}

impl OpenSocket {
    /// The page is told a count by its engine's own message.
    pub(crate) fn note_count(&self, remaining: usize) {
        self.told.store(remaining, Ordering::Relaxed);
    }
}

impl Sockets {
    /// A page of `user` opens a WebSocket; what is to be told arrives at the receiver.
    pub(crate) fn open(
        &self,
        user: &UserId,
        client_id: Option<String>,
    ) -> (OpenSocket, mpsc::Receiver<Bytes>) {
        let (messages, received) = mpsc::channel(QUEUE);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let told = Arc::new(AtomicUsize::new(usize::MAX));
        let socket = Socket {
            number,
            client_id,
            messages,
            told: Arc::clone(&told),
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
            told,
        };
        (open, received)
    }

    /// `status`, as ComfyUI sends it to every page whenever its queue changes.
    pub(super) fn tell_count(&self, user: &UserId, remaining: usize) {
        let by_user = self.by_user.lock();
        let text = Bytes::from(status_message(remaining).to_string());
        for socket in by_user.get(user).into_iter().flatten() {
            if socket.told.swap(remaining, Ordering::Relaxed) != remaining {
                let _ = socket.messages.try_send(text.clone());
            }
        }
    }

    /// Tells the page that has queued a job, or all of its owner if it has no page of its own.
    pub(super) fn tell(&self, user: &UserId, client_id: Option<&str>, message: &Value) {
        let by_user = self.by_user.lock();
        let Some(sockets) = by_user.get(user) else {
            return;
        };
        let text = Bytes::from(message.to_string());
        for socket in sockets {
            if client_id.is_none() || socket.client_id.as_deref() == client_id {
                let _ = socket.messages.try_send(text.clone());
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
mod tests {
    use super::*;

    #[test]
    fn only_the_page_of_the_job_and_only_its_owner_hears() {
        let sockets = Sockets::default();
        let (anna, bert) = (
            UserId::parse("anna").unwrap(),
            UserId::parse("bert").unwrap(),
        );
        let (_one, mut first) = sockets.open(&anna, Some("a".into()));
        let (two, mut second) = sockets.open(&anna, Some("b".into()));
        let (_three, mut foreign) = sockets.open(&bert, Some("a".into()));
        sockets.tell(&anna, Some("a"), &json!({"type": "x"}));
        assert!(first.try_recv().is_ok());
        assert!(second.try_recv().is_err());
        sockets.tell_count(&anna, 3);
        assert!(first.try_recv().is_ok());
        let told = second.try_recv().unwrap();
        assert!(String::from_utf8_lossy(&told).contains("\"queue_remaining\":3"));
        assert!(foreign.try_recv().is_err());
        sockets.tell_count(&anna, 3);
        assert!(
            first.try_recv().is_err(),
            "the same count is not told again"
        );
        drop(two);
        assert_eq!(sockets.by_user.lock()[&anna].len(), 1);
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
