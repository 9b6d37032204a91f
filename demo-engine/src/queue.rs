//! Waiting prompts, the running one, and the history.
//!
//! The waiting ones form the binary heap of Python's `heapq`, comparisons that fail included: two entries
//! with equal number and id make Python compare dictionaries, which raises in the middle of the heap.

use crate::json::Json;
use parking_lot::{Condvar, Mutex};
use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

const HISTORY: usize = 10_000;
/// Python's `deepcopy` of a list takes two frames per level and ends at its recursion limit.
const DEEPEST: usize = 488;

/// A prompt that waits or runs.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) number: Json,
    pub(crate) id: String,
    pub(crate) prompt: Json,
    pub(crate) extra: Json,
    pub(crate) outputs: Vec<String>,
}

/// A finished prompt.
#[derive(Clone, Debug)]
pub(crate) struct Finished {
    pub(crate) item: Arc<Item>,
    pub(crate) outputs: Json,
    pub(crate) meta: Json,
    pub(crate) status: Json,
}

/// Python would have raised here.
#[derive(Debug)]
pub(crate) struct Raised;

/// What the worker is to do next.
#[derive(Debug)]
pub(crate) enum Work {
    Prompt(Arc<Item>),
    /// Unload all models, and drop what is kept between prompts if `results` says so.
    Free {
        results: bool,
    },
    /// The thread ends, as Python's does by an exception.
    Die(&'static str),
}

#[derive(Debug, Default)]
struct Inner {
    heap: Vec<Arc<Item>>,
    running: Option<Arc<Item>>,
    history: Vec<(String, Arc<Finished>)>,
    unload: bool,
    free: bool,
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    changed: Condvar,
}

impl Item {
    /// As `/queue` and the history show it.
    pub(crate) fn tuple(&self) -> Json {
        Json::List(vec![
            self.number.clone(),
            Json::Text(self.id.clone()),
            self.prompt.clone(),
            self.extra.clone(),
            self.outputs
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .into(),
        ])
    }

    fn less(&self, other: &Self) -> Result<bool, Raised> {
        if !self.number.equals(&other.number) {
            let numbers = self.number.as_f64().zip(other.number.as_f64());
            return Ok(numbers.is_some_and(|(a, b)| a < b));
        }
        match self.id.cmp(&other.id) {
            Ordering::Less => Ok(true),
            Ordering::Greater => Ok(false),
            Ordering::Equal => Err(Raised),
        }
    }
}

impl Inner {
    fn remaining(&self) -> usize {
        self.heap.len() + usize::from(self.running.is_some())
    }
}

impl Queue {
    /// Adds a prompt. On failure it is in the heap all the same.
    ///
    /// `tell` is called with the new length before anybody else can change it, here and below: clients hear
    /// of a prompt's place in the queue before they hear of its start.
    pub(crate) fn put(&self, item: Item, tell: impl FnOnce(usize)) -> Result<(), Raised> {
        let mut inner = self.inner.lock();
        inner.heap.push(Arc::new(item));
        let last = inner.heap.len() - 1;
        sift_down(&mut inner.heap, 0, last)?;
        tell(inner.remaining());
        self.changed.notify_all();
        Ok(())
    }

    /// Waits for something to do.
    pub(crate) fn take(&self, tell: impl FnOnce(usize)) -> Work {
        let mut inner = self.inner.lock();
        loop {
            let results = std::mem::take(&mut inner.free);
            if std::mem::take(&mut inner.unload) {
                return Work::Free { results };
            }
            if !inner.heap.is_empty() {
                let Ok(item) = pop(&mut inner.heap) else {
                    return Work::Die(
                        "TypeError: '<' not supported between instances of 'dict' and 'dict'",
                    );
                };
                if item.prompt.depth().max(item.extra.depth()) > DEEPEST {
                    return Work::Die("RecursionError: maximum recursion depth exceeded");
                }
                inner.running = Some(Arc::clone(&item));
                tell(inner.remaining());
                return Work::Prompt(item);
            }
            // ComfyUI wakes up now and then as well; a missed notification costs a second at most.
            self.changed.wait_for(&mut inner, Duration::from_secs(1));
        }
    }

    /// Moves the running prompt into the history.
    pub(crate) fn finish(&self, finished: Finished, tell: impl FnOnce(usize)) {
        let mut inner = self.inner.lock();
        inner.running = None;
        let id = finished.item.id.clone();
        let finished = Arc::new(finished);
        match inner.history.iter_mut().find(|(known, _)| *known == id) {
            Some((_, old)) => *old = finished,
            None => inner.history.push((id, finished)),
        }
        if inner.history.len() > HISTORY {
            inner.history.remove(0);
        }
        tell(inner.remaining());
    }

    /// Asks the worker to unload its models, and with `results` to drop what it keeps besides.
    pub(crate) fn free(&self, results: bool) {
        let mut inner = self.inner.lock();
        inner.unload = true;
        inner.free |= results;
        self.changed.notify_all();
    }

    pub(crate) fn remaining(&self) -> usize {
        self.inner.lock().remaining()
    }

    /// The running and the waiting prompts, the latter in their order.
    pub(crate) fn current(&self) -> (Vec<Arc<Item>>, Vec<Arc<Item>>) {
        let inner = self.inner.lock();
        (inner.running.iter().cloned().collect(), inner.heap.clone())
    }

    pub(crate) fn is_running(&self, id: &str) -> bool {
        self.if_running(id, || {})
    }

    /// Does something about the running prompt, if it has that id, before another one can take its place.
    pub(crate) fn if_running(&self, id: &str, act: impl FnOnce()) -> bool {
        let inner = self.inner.lock();
        let runs = inner.running.as_ref().is_some_and(|item| item.id == id);
        if runs {
            act();
        }
        runs
    }

    /// Drops all waiting prompts.
    pub(crate) fn clear(&self, tell: impl FnOnce(usize)) {
        let mut inner = self.inner.lock();
        inner.heap.clear();
        tell(inner.remaining());
    }

    /// Drops one waiting prompt; `false` if there is none of that id.
    pub(crate) fn delete(&self, id: &str, tell: impl FnOnce(usize)) -> bool {
        let mut inner = self.inner.lock();
        let Some(index) = inner.heap.iter().position(|item| item.id == id) else {
            return false;
        };
        inner.heap.remove(index);
        // Python's heapify; a failing comparison leaves the rest as it is.
        for start in (0..inner.heap.len() / 2).rev() {
            if sift_up(&mut inner.heap, start).is_err() {
                break;
            }
        }
        tell(inner.remaining());
        true
    }

    pub(crate) fn history(&self) -> Vec<(String, Arc<Finished>)> {
        self.inner.lock().history.clone()
    }

    /// One finished prompt.
    pub(crate) fn finished(&self, id: &str) -> Option<Arc<Finished>> {
        let inner = self.inner.lock();
        let (_, finished) = inner.history.iter().find(|(known, _)| known == id)?;
        Some(Arc::clone(finished))
    }

    pub(crate) fn clear_history(&self) {
        self.inner.lock().history.clear();
    }

    pub(crate) fn forget(&self, id: &str) {
        self.inner.lock().history.retain(|(known, _)| known != id);
    }
}

fn pop(heap: &mut Vec<Arc<Item>>) -> Result<Arc<Item>, Raised> {
    let last = heap.pop().ok_or(Raised)?;
    if heap.is_empty() {
        return Ok(last);
    }
    let first = std::mem::replace(&mut heap[0], last);
    sift_up(heap, 0)?;
    Ok(first)
}

/// Python's `_siftdown`: moves an entry towards the root.
fn sift_down(heap: &mut [Arc<Item>], start: usize, mut at: usize) -> Result<(), Raised> {
    while at > start {
        let parent = (at - 1) / 2;
        if !heap[at].less(&heap[parent])? {
            break;
        }
        heap.swap(at, parent);
        at = parent;
    }
    Ok(())
}

/// Python's `_siftup`: moves an entry to a leaf and back up to its place.
fn sift_up(heap: &mut [Arc<Item>], start: usize) -> Result<(), Raised> {
    let mut at = start;
    let mut child = 2 * at + 1;
    while child < heap.len() {
        if child + 1 < heap.len() && !heap[child].less(&heap[child + 1])? {
            child += 1;
        }
        heap.swap(at, child);
        at = child;
        child = 2 * at + 1;
    }
    sift_down(heap, start, at)
}

#[cfg(test)]
mod tests {
    use super::{Item, Queue, Work};
    use crate::json::Json;

    fn item(number: f64, id: &str) -> Item {
        let empty = Json::Object(Vec::new());
        Item {
            number: number.into(),
            id: id.to_owned(),
            prompt: empty.clone(),
            extra: empty,
            outputs: Vec::new(),
        }
    }

    #[test]
    fn smallest_number_first() {
        let queue = Queue::default();
        for (number, id) in [(3.0, "c"), (-4.0, "a"), (5.0, "d"), (0.0, "b")] {
            assert!(queue.put(item(number, id), drop).is_ok());
        }
        let mut order = String::new();
        while queue.remaining() > 0 && order.len() < 4 {
            if let Work::Prompt(item) = queue.take(drop) {
                order.push_str(&item.id);
            }
        }
        assert_eq!(order, "abcd");
    }

    #[test]
    fn equal_entries_raise_but_stay() {
        let queue = Queue::default();
        assert!(queue.put(item(1.0, "x"), drop).is_ok());
        assert!(queue.put(item(2.0, "same"), drop).is_ok());
        assert!(
            queue.put(item(2.0, "same"), drop).is_ok(),
            "the parent is the first one, so nothing is equal yet"
        );
        assert!(matches!(queue.take(drop), Work::Die(_)));
    }
}
