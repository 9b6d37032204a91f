//! What an engine has told of its nodes since its start, and when it is asked again.

use crate::jobs::{Catalogue, Prompt, Replacements};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

/// A prompt waits that long for an engine that has told nothing since its start: only the short list
/// of replacements is needed.
const FIRST_TIME_LIMIT: Duration = Duration::from_secs(5);
/// A prompt with an unknown class waits that long for the list of nodes to be read again.
const AGAIN_TIME_LIMIT: Duration = Duration::from_secs(10);
/// The list of nodes is long, and unknown classes are easily written: it is not read again sooner.
const AGAIN_PAUSE: Duration = Duration::from_secs(60);
/// First and longest pause after a list that could not be read; doubled each time.
const FAILED_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_FAILED_PAUSE: Duration = Duration::from_secs(600);

/// What one start of an engine has told.
#[derive(Debug, Default)]
struct Told {
    /// Which start it was.
    generation: u64,
    catalogue: Option<Arc<Catalogue>>,
    /// When the list of nodes is asked for; `None`: it is known, and nobody misses anything.
    due: Option<Instant>,
    /// Failures in a row.
    failures: u32,
    /// When somebody missed something last.
    missed_at: Option<Instant>,
}

impl Told {
    /// Whether the list of nodes is to be read now.
    fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// Has the list read again if it is known, and nobody missed anything a moment ago.
    fn ask_again(&mut self, now: Instant) -> bool {
        let may_ask = self
            .missed_at
            .is_none_or(|missed_at| now >= missed_at + AGAIN_PAUSE);
        let is_new = self.due.is_none() && may_ask;
        if is_new {
            self.missed_at = Some(now);
            self.due = Some(now);
        }
        is_new
    }

    /// Asks later, each time later.
    fn put_off(&mut self, now: Instant) {
        let factor = 2_u32.saturating_pow(self.failures);
        let pause = FAILED_PAUSE.saturating_mul(factor);
        self.due = Some(now + pause.min(LONGEST_FAILED_PAUSE));
        self.failures = self.failures.saturating_add(1);
    }
}

/// Shared by an engine's handle and its attendant.
#[derive(Debug)]
pub(super) struct Knowledge {
    told: watch::Sender<Told>,
    /// Wakes the attendant.
    asked: Arc<Notify>,
}

impl Knowledge {
    pub(super) fn new(asked: Arc<Notify>) -> Self {
        Self {
            told: watch::Sender::new(Told::default()),
            asked,
        }
    }

    /// What is known for judging `prompt`: waits for the first word after a start, and has the list
    /// read again when a class of the prompt is not in it, because packs come while ComfyUI restarts in
    /// its own process. `None`: the engine has told nothing.
    pub(super) async fn catalogue_for(&self, prompt: &Prompt<'_>) -> Option<Arc<Catalogue>> {
        let mut told = self.told.subscribe();
        let known = {
            let first = told.wait_for(|told| told.catalogue.is_some());
            let first = timeout(FIRST_TIME_LIMIT, first).await.ok()?.ok()?;
            first.catalogue.clone()?
        };
        if !known.lacks_any(prompt) || !self.ask_again() {
            return Some(known);
        }
        // Without an answer in time the old list counts.
        let read = told.wait_for(|told| told.due.is_none());
        let _ = timeout(AGAIN_TIME_LIMIT, read).await;
        self.told.borrow().catalogue.clone()
    }

    /// Whether the list is being read again, on this wish or on another one a moment ago.
    fn ask_again(&self) -> bool {
        let now = Instant::now();
        if self.told.send_if_modified(|told| told.ask_again(now)) {
            self.asked.notify_one();
        }
        self.told.borrow().is_due(now)
    }

    /// Forgets what earlier starts have told. Without a generation nothing is asked for: the engine is
    /// gone.
    pub(super) fn begin(&self, generation: Option<u64>) {
        self.told.send_replace(Told {
            generation: generation.unwrap_or_default(),
            due: generation.map(|_| Instant::now()),
            ..Told::default()
        });
    }

    /// Whether the list of nodes is to be read now.
    pub(super) fn is_due(&self) -> bool {
        self.told.borrow().is_due(Instant::now())
    }

    /// The first word of a start: enough to judge what a user may use.
    pub(super) fn replacements_are_told(&self, generation: u64, replacements: &Replacements) {
        self.told.send_if_modified(|told| {
            let is_first = told.generation == generation && told.catalogue.is_none();
            if is_first {
                let known = Catalogue::default().with_replacements(replacements.clone());
                told.catalogue = Some(Arc::new(known));
            }
            is_first
        });
    }

    /// All that can be had of a start.
    pub(super) fn all_is_told(&self, generation: u64, catalogue: Catalogue) {
        self.told.send_if_modified(|told| {
            let is_same = told.generation == generation;
            if is_same {
                told.catalogue = Some(Arc::new(catalogue));
                told.due = None;
                told.failures = 0;
            }
            is_same
        });
    }

    /// Something was not told. What is known counts, and the rest is asked for later.
    pub(super) fn is_not_told(&self, generation: u64) {
        self.told.send_if_modified(|told| {
            let is_same = told.generation == generation;
            if is_same {
                told.put_off(Instant::now());
            }
            is_same
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &[u8] = br#"{"Known":{"input":{},"output":[],"is_input_list":false}}"#;

    fn knowledge() -> Arc<Knowledge> {
        Arc::new(Knowledge::new(Arc::default()))
    }

    fn list(text: &[u8]) -> Catalogue {
        Catalogue::parse(text).unwrap()
    }

    fn prompt(class: &str) -> Prompt<'static> {
        let body = format!(r#"{{"prompt":{{"1":{{"class_type":"{class}","inputs":{{}}}}}}}}"#);
        Prompt::parse(body.as_bytes()).unwrap().into_owned()
    }

    #[tokio::test]
    async fn a_prompt_waits_for_the_first_word_of_a_start() {
        let knowledge = knowledge();
        knowledge.begin(Some(1));
        assert!(knowledge.is_due());
        let waiting = tokio::spawn({
            let knowledge = Arc::clone(&knowledge);
            async move { knowledge.catalogue_for(&prompt("Known")).await.is_some() }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        knowledge.replacements_are_told(1, &Replacements::default());
        assert!(waiting.await.unwrap());
    }

    #[tokio::test]
    async fn b3_an_unknown_class_has_the_list_read_again_once() {
        let knowledge = knowledge();
        knowledge.begin(Some(1));
        knowledge.all_is_told(1, list(LIST));
        assert!(!knowledge.is_due());
        let known = knowledge.catalogue_for(&prompt("Known")).await.unwrap();
        assert!(known.has("Known") && !knowledge.is_due());
        let waiting = tokio::spawn({
            let knowledge = Arc::clone(&knowledge);
            async move {
                let catalogue = knowledge.catalogue_for(&prompt("New")).await;
                catalogue.unwrap().has("New")
            }
        });
        while !knowledge.is_due() {
            tokio::task::yield_now().await;
        }
        assert!(!waiting.is_finished());
        let both = br#"{"Known":{"input":{},"output":[]},"New":{"input":{},"output":[]}}"#;
        knowledge.all_is_told(1, list(both));
        assert!(waiting.await.unwrap());
        // What is still unknown then is unknown.
        let catalogue = knowledge.catalogue_for(&prompt("Nowhere")).await.unwrap();
        assert!(!catalogue.has("Nowhere") && !knowledge.is_due());
    }

    #[test]
    fn b3_unknown_classes_cannot_keep_an_engine_busy() {
        let start = Instant::now();
        let mut told = Told::default();
        for (seconds, is_read) in [(0, true), (1, false), (59, false), (60, true), (61, false)] {
            let now = start + Duration::from_secs(seconds);
            assert_eq!(told.ask_again(now), is_read, "{seconds}");
            told.due = None;
        }
        told.put_off(start);
        let later = start + AGAIN_PAUSE * 5;
        assert!(!told.ask_again(later), "it is asked for anyway");
    }

    #[test]
    fn n18_a_failure_is_remembered() {
        let mut now = Instant::now();
        let mut told = Told::default();
        let pauses: Vec<u64> = (0..9)
            .map(|_| {
                told.put_off(now);
                let due = told.due.unwrap();
                assert!(!told.is_due(now) && told.is_due(due));
                let pause = due - now;
                now = due;
                pause.as_secs()
            })
            .collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 600, 600, 600]);
    }

    #[test]
    fn n18_what_an_earlier_start_told_does_not_count() {
        let knowledge = knowledge();
        knowledge.begin(Some(1));
        knowledge.all_is_told(1, list(LIST));
        knowledge.begin(Some(2));
        assert!(knowledge.is_due());
        knowledge.all_is_told(1, list(LIST));
        assert!(knowledge.is_due(), "told by the start before");
        knowledge.is_not_told(2);
        assert!(!knowledge.is_due());
        knowledge.begin(None);
        assert!(!knowledge.is_due());
    }
}
