//! Holds events of a job back until the gateway's own record shows what they tell, so that a client
//! never hears of an event before `/history`, `/queue` and the answer to its `POST /prompt` do.
//!
//! A run is one time that a job is with an engine. Its events may pass once its client has the answer;
//! its end may pass once the end is written down; the end of a run that is put back never passes.
//! Sockets ask here; the task that runs the job says how far it is.

use super::order::JobId;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

/// An event waits at most this long for the answer to its job's `POST /prompt`.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// A client has an answer that was written this long before the first event of its job: two connections
/// are read in no order that one can rely on. ComfyUI's own worker needs as long to begin.
const HEAD_START: Duration = Duration::from_millis(2);
/// The end of a job waits at most this long to be written down.
const SETTLE_LIMIT: Duration = Duration::from_secs(2);
/// Ended jobs of which it is remembered that their end reads differently.
const MAX_ENDED: usize = 64;

/// How far a run is.
#[derive(Clone, Debug)]
enum Phase {
    /// In the line.
    Waiting,
    Running,
    /// Its end is written down; the text replaces `execution_interrupted`.
    Settled(Option<Bytes>),
    /// It begins anew later.
    PutBack,
}

#[derive(Clone, Debug)]
struct State {
    /// Its client has the answer to its `POST /prompt`, or is gone.
    is_answered: bool,
    phase: Phase,
}

#[derive(Debug)]
struct Run {
    number: u64,
    state: watch::Sender<State>,
    /// Wakes the task that runs the job.
    nudge: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Runs {
    by_job: HashMap<JobId, Run>,
    /// The newest last.
    ended: VecDeque<(JobId, Bytes)>,
    last_number: u64,
}

/// The events of all jobs.
#[derive(Debug, Default)]
pub(crate) struct EventGate {
    runs: Mutex<Runs>,
    /// Events that went on although what they tell was not written down in time.
    let_go: AtomicU64,
}

/// What becomes of an event that waited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pass,
    LeaveOut,
    Replace(Bytes),
}

/// One run, as a socket has seen it begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunNumber(u64);

/// What a socket does with an event.
#[derive(Debug)]
pub(crate) enum Passage {
    Now(Verdict),
    /// The socket waits with this event and all that follow.
    Wait(Wait),
}

/// An event that waits.
#[derive(Debug)]
pub(crate) struct Wait {
    state: watch::Receiver<State>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Start,
    End,
    Interruption,
}

impl EventGate {
    /// A run of a job begins. `is_answered`: its client has the answer, as far as [`Self::expect_answer`]
    /// does not say otherwise.
    pub(super) fn begin(&self, id: JobId, nudge: &Arc<Notify>, is_answered: bool) {
        let before = self.runs.lock().by_job.remove(&id);
        let is_answered = before.map_or(is_answered, |run| {
            is_answered && run.state.borrow().is_answered
        });
        self.insert(id, Arc::clone(nudge), is_answered, Phase::Running);
    }

    /// A job goes into the line, and its client has no answer yet.
    pub(super) fn expect_answer(&self, id: JobId) {
        self.insert(id, Arc::default(), false, Phase::Waiting);
    }

    fn insert(&self, id: JobId, nudge: Arc<Notify>, is_answered: bool, phase: Phase) {
        let mut runs = self.runs.lock();
        runs.last_number += 1;
        let run = Run {
            number: runs.last_number,
            state: watch::Sender::new(State { is_answered, phase }),
            nudge,
        };
        runs.by_job.insert(id, run);
    }

    /// The client has the answer to its `POST /prompt`, or is gone.
    fn answered(&self, id: JobId) {
        let mut runs = self.runs.lock();
        let Some(run) = runs.by_job.get(&id) else {
            return;
        };
        run.state.send_modify(|state| state.is_answered = true);
        // Nothing is held back for a job that waits or is over.
        let is_no_run = matches!(run.state.borrow().phase, Phase::Settled(_) | Phase::Waiting);
        if is_no_run {
            runs.by_job.remove(&id);
        }
    }

    /// The end of a job is written down. `instead` takes the place of `execution_interrupted`.
    pub(super) fn settled(&self, id: JobId, instead: Option<Bytes>) {
        let mut runs = self.runs.lock();
        if let Some(text) = &instead {
            if runs.ended.len() >= MAX_ENDED {
                runs.ended.pop_front();
            }
            runs.ended.push_back((id, text.clone()));
        }
        let Some(run) = runs.by_job.get(&id) else {
            return;
        };
        run.state
            .send_modify(|state| state.phase = Phase::Settled(instead));
        // The answer of a short job may still be on its way: its first event waits for it.
        let is_answered = run.state.borrow().is_answered;
        if is_answered {
            runs.by_job.remove(&id);
        }
    }

    /// The job begins anew later: nobody hears that this run has ended.
    pub(super) fn put_back(&self, id: JobId) {
        if let Some(run) = self.runs.lock().by_job.get(&id) {
            run.state.send_modify(|state| state.phase = Phase::PutBack);
        }
    }

    /// The job was not taken after all, or is gone.
    pub(super) fn forget(&self, id: JobId) {
        self.runs.lock().by_job.remove(&id);
    }

    /// A socket meets the first event of a job.
    pub(crate) fn start(&self, id: &str) -> (Passage, Option<RunNumber>) {
        let pass = Passage::Now(Verdict::Pass);
        let runs = self.runs.lock();
        let Some(run) = JobId::parse(id).and_then(|id| runs.by_job.get(&id)) else {
            return (pass, None);
        };
        let number = Some(RunNumber(run.number));
        if run.state.borrow().is_answered {
            return (pass, number);
        }
        let wait = Wait {
            state: run.state.subscribe(),
            kind: Kind::Start,
        };
        (Passage::Wait(wait), number)
    }

    /// A socket meets the end of a job. `begun`: the run that it saw begin; `is_interruption`: the event
    /// is `execution_interrupted`. The task that runs the job looks at once.
    pub(crate) fn end(&self, id: &str, begun: Option<RunNumber>, is_interruption: bool) -> Passage {
        let Some(id) = JobId::parse(id) else {
            return Passage::Now(Verdict::Pass);
        };
        let runs = self.runs.lock();
        let Some(run) = runs.by_job.get(&id) else {
            let instead = runs.ended.iter().rev().find(|(ended, _)| *ended == id);
            return Passage::Now(match instead {
                Some((_, text)) if is_interruption => Verdict::Replace(text.clone()),
                _ => Verdict::Pass,
            });
        };
        if begun.is_some_and(|RunNumber(number)| number != run.number)
            || matches!(run.state.borrow().phase, Phase::PutBack | Phase::Waiting)
        {
            return Passage::Now(Verdict::LeaveOut);
        }
        run.nudge.notify_one();
        Passage::Wait(Wait {
            state: run.state.subscribe(),
            kind: if is_interruption {
                Kind::Interruption
            } else {
                Kind::End
            },
        })
    }

    /// Returns true if a run has ended. A socket that saw it begin and not end is about to tell so.
    pub(crate) fn is_over(&self, id: &str, RunNumber(number): RunNumber) -> bool {
        let runs = self.runs.lock();
        let run = JobId::parse(id).and_then(|id| runs.by_job.get(&id));
        run.is_none_or(|run| {
            run.number != number || !matches!(run.state.borrow().phase, Phase::Running)
        })
    }

    /// Waits as long as an event has to, but not for ever.
    pub(crate) async fn wait(&self, mut wait: Wait) -> Verdict {
        let limit = match wait.kind {
            Kind::Start => ANSWER_LIMIT,
            Kind::End | Kind::Interruption => SETTLE_LIMIT,
        };
        let state = timeout(
            limit,
            wait.state
                .wait_for(|state| match (wait.kind, &state.phase) {
                    (Kind::Start, _) => state.is_answered,
                    (_, Phase::Settled(_) | Phase::PutBack) => true,
                    (_, Phase::Waiting | Phase::Running) => false,
                }),
        )
        .await
        .map(|state| state.map(|state| state.phase.clone()));
        match state {
            Ok(Ok(phase)) => match (wait.kind, phase) {
                (Kind::Start, _) => {
                    sleep(HEAD_START).await;
                    Verdict::Pass
                }
                (Kind::Interruption, Phase::Settled(Some(text))) => Verdict::Replace(text),
                (_, Phase::PutBack) => Verdict::LeaveOut,
                _ => Verdict::Pass,
            },
            // Nobody knows of the job any more.
            Ok(Err(_)) => Verdict::Pass,
            Err(_) => {
                let count = self.let_go.fetch_add(1, Ordering::Relaxed) + 1;
                tracing::warn!(count, "an event went on before it was written down");
                Verdict::Pass
            }
        }
    }

    /// Events that went on before what they tell was written down.
    pub(crate) fn let_go(&self) -> u64 {
        self.let_go.load(Ordering::Relaxed)
    }
}

/// Stands for an answer to `POST /prompt` on its way: events of the job may pass when this is dropped.
#[derive(Debug)]
pub(crate) struct AnswerTicket {
    pub(super) gate: Arc<EventGate>,
    pub(super) id: JobId,
}

impl Drop for AnswerTicket {
    fn drop(&mut self) {
        self.gate.answered(self.id);
    }
}

/// For tests of what uses it.
#[cfg(test)]
impl EventGate {
    pub(crate) fn begin_for_test(&self) -> String {
        let id = JobId::generate();
        self.begin(id, &Arc::default(), true);
        id.to_string()
    }

    /// Waits until a socket has met the end of the job.
    pub(crate) async fn asked_for_test(&self, id: &str) {
        let id = JobId::parse(id).unwrap();
        let nudge = Arc::clone(&self.runs.lock().by_job[&id].nudge);
        nudge.notified().await;
    }

    pub(crate) fn settle_for_test(&self, id: &str) {
        self.settled(JobId::parse(id).unwrap(), None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    fn gate() -> (Arc<EventGate>, JobId, String, Arc<Notify>) {
        let id = JobId::generate();
        (Arc::default(), id, id.to_string(), Arc::default())
    }

    fn waiting(passage: Passage) -> Wait {
        match passage {
            Passage::Wait(wait) => wait,
            Passage::Now(verdict) => panic!("it does not wait: {verdict:?}"),
        }
    }

    fn now(passage: Passage) -> Verdict {
        match passage {
            Passage::Now(verdict) => verdict,
            Passage::Wait(_) => panic!("it waits"),
        }
    }

    #[tokio::test]
    async fn events_wait_for_the_answer_and_the_end_for_the_record() {
        let (gate, id, name, nudge) = gate();
        gate.begin(id, &nudge, false);
        let ticket = AnswerTicket {
            gate: Arc::clone(&gate),
            id,
        };
        let (passage, begun) = gate.start(&name);
        let wait = gate.wait(waiting(passage));
        tokio::pin!(wait);
        assert!(wait.as_mut().now_or_never().is_none());
        drop(ticket);
        assert_eq!(wait.await, Verdict::Pass);
        let wait = gate.wait(waiting(gate.end(&name, begun, false)));
        tokio::pin!(wait);
        assert!(wait.as_mut().now_or_never().is_none());
        assert!(nudge.notified().now_or_never().is_some(), "the task looks");
        gate.settled(id, None);
        assert_eq!(wait.await, Verdict::Pass);
        assert_eq!(now(gate.end(&name, begun, false)), Verdict::Pass);
        assert!(gate.is_over(&name, begun.unwrap()));
        assert!(gate.runs.lock().by_job.is_empty());
    }

    #[tokio::test]
    async fn the_end_of_a_run_that_is_put_back_is_left_out() {
        let (gate, id, name, nudge) = gate();
        gate.begin(id, &nudge, true);
        let (passage, begun) = gate.start(&name);
        assert_eq!(now(passage), Verdict::Pass);
        let wait = waiting(gate.end(&name, begun, true));
        gate.put_back(id);
        assert_eq!(gate.wait(wait).await, Verdict::LeaveOut);
        assert_eq!(now(gate.end(&name, begun, false)), Verdict::LeaveOut);
        // Also when it has begun anew meanwhile.
        gate.begin(id, &nudge, true);
        assert_eq!(now(gate.end(&name, begun, false)), Verdict::LeaveOut);
        let (_, begun_anew) = gate.start(&name);
        assert_ne!(begun, begun_anew);
        waiting(gate.end(&name, begun_anew, false));
        waiting(gate.end(&name, None, false));
    }

    #[tokio::test]
    async fn an_interruption_can_read_differently_for_late_sockets_too() {
        let (gate, id, name, nudge) = gate();
        gate.begin(id, &nudge, true);
        let wait = waiting(gate.end(&name, None, true));
        let text = Bytes::from_static(b"too long");
        gate.settled(id, Some(text.clone()));
        assert_eq!(gate.wait(wait).await, Verdict::Replace(text.clone()));
        assert_eq!(now(gate.end(&name, None, true)), Verdict::Replace(text));
        assert_eq!(now(gate.end(&name, None, false)), Verdict::Pass);
    }

    #[tokio::test]
    async fn no_event_waits_for_ever() {
        let (gate, id, name, nudge) = gate();
        gate.begin(id, &nudge, false);
        let (passage, _) = gate.start(&name);
        assert_eq!(gate.wait(waiting(passage)).await, Verdict::Pass);
        assert_eq!(gate.let_go(), 1);
        let wait = waiting(gate.end(&name, None, false));
        assert_eq!(gate.wait(wait).await, Verdict::Pass);
        assert_eq!(gate.let_go(), 2);
    }

    #[tokio::test]
    async fn a_job_that_ends_before_its_answer_is_written_is_not_heard_of_before() {
        let (gate, id, name, nudge) = gate();
        gate.expect_answer(id);
        gate.begin(id, &nudge, true);
        gate.settled(id, None);
        let (passage, begun) = gate.start(&name);
        let wait = gate.wait(waiting(passage));
        tokio::pin!(wait);
        assert!(wait.as_mut().now_or_never().is_none());
        let end = waiting(gate.end(&name, begun, false));
        gate.answered(id);
        assert_eq!(wait.await, Verdict::Pass);
        assert_eq!(gate.wait(end).await, Verdict::Pass);
        assert!(gate.runs.lock().by_job.is_empty());
    }

    #[test]
    fn jobs_that_are_not_ours_pass() {
        let (gate, _, name, _) = gate();
        assert_eq!(now(gate.start(&name).0), Verdict::Pass);
        assert_eq!(now(gate.end("not an id", None, true)), Verdict::Pass);
    }
}
