//! One GPU, several engines: jobs of different engines run one after another, in the order in which
//! they arrive. This is the one place that decides it.
//!
//! An engine holds one of the GPU's slots from the moment a prompt is passed to it until it has no
//! job left. While nobody else waits, further prompts for it pass at once.

use crate::engine::EngineId;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::oneshot;

/// Prompts of one engine that may wait.
const MAX_WAITING_OF_ONE: usize = 64;
/// Prompts that may wait in all.
const MAX_WAITING: usize = 1024;

/// Why a prompt cannot wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TurnFault {
    /// Too many wait already.
    #[error("too many prompts are waiting for the GPU")]
    Full,
    /// The gateway ends.
    #[error("the line was closed")]
    Closed,
}

#[derive(Debug)]
struct Holder {
    /// Prompts on their way to the engine.
    posting: u32,
    /// Changes with each prompt, so that an answer from before it does not count.
    epoch: u64,
}

#[derive(Debug)]
struct Ticket {
    number: u64,
    engine: EngineId,
}

#[derive(Debug, PartialEq, Eq)]
enum Arrival {
    /// Pass; `true` if the engine had no slot before.
    Now(bool),
    /// Wait with this ticket.
    Later(u64),
    Full,
}

/// The order itself, without waiting or waking.
#[derive(Debug)]
struct Order {
    slots: usize,
    holders: HashMap<EngineId, Holder>,
    waiting: VecDeque<Ticket>,
    next: u64,
}

impl Order {
    fn new(slots: usize) -> Self {
        Self {
            slots,
            holders: HashMap::new(),
            waiting: VecDeque::new(),
            next: 0,
        }
    }

    fn arrive(&mut self, engine: &EngineId) -> Arrival {
        if self.waiting.is_empty()
            && let Some(is_fresh) = self.take(engine)
        {
            return Arrival::Now(is_fresh);
        }
        let own = self
            .waiting
            .iter()
            .filter(|ticket| ticket.engine == *engine)
            .count();
        if own >= MAX_WAITING_OF_ONE || self.waiting.len() >= MAX_WAITING {
            return Arrival::Full;
        }
        self.next += 1;
        self.waiting.push_back(Ticket {
            number: self.next,
            engine: engine.clone(),
        });
        Arrival::Later(self.next)
    }

    /// Takes a slot for one prompt, if there is one; tells whether the engine had none before.
    fn take(&mut self, engine: &EngineId) -> Option<bool> {
        if let Some(holder) = self.holders.get_mut(engine) {
            holder.posting += 1;
            holder.epoch += 1;
            return Some(false);
        }
        if self.holders.len() >= self.slots {
            return None;
        }
        self.holders.insert(
            engine.clone(),
            Holder {
                posting: 1,
                epoch: 1,
            },
        );
        Some(true)
    }

    /// Whoever is at the head of the line and can pass now.
    fn call_next(&mut self) -> Option<(u64, bool)> {
        let engine = self.waiting.front()?.engine.clone();
        let is_fresh = self.take(&engine)?;
        let ticket = self.waiting.pop_front()?;
        Some((ticket.number, is_fresh))
    }

    fn leave(&mut self, number: u64) {
        self.waiting.retain(|ticket| ticket.number != number);
    }

    fn posted(&mut self, engine: &EngineId) {
        if let Some(holder) = self.holders.get_mut(engine) {
            holder.posting = holder.posting.saturating_sub(1);
        }
    }

    fn epoch(&self, engine: &EngineId) -> Option<u64> {
        let holder = self.holders.get(engine)?;
        (holder.posting == 0).then_some(holder.epoch)
    }

    fn release(&mut self, engine: &EngineId, epoch: u64) {
        if self.epoch(engine) == Some(epoch) {
            self.holders.remove(engine);
        }
    }
}

#[derive(Debug)]
struct Line {
    order: Order,
    calls: HashMap<u64, oneshot::Sender<bool>>,
}

impl Line {
    fn call_all(&mut self) {
        while let Some((number, is_fresh)) = self.order.call_next() {
            if let Some(call) = self.calls.remove(&number) {
                // Whoever is gone gives his turn back when his ticket is dropped.
                let _ = call.send(is_fresh);
            }
        }
    }
}

/// The line before the GPU.
#[derive(Debug)]
pub(crate) struct Turns(Mutex<Line>);

impl Turns {
    /// A line before a GPU that runs jobs of `slots` engines at once.
    pub(crate) fn new(slots: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Line {
            order: Order::new(slots.max(1)),
            calls: HashMap::new(),
        })))
    }

    /// Changes the number of engines that may run jobs at once.
    pub(crate) fn set_slots(&self, slots: usize) {
        let mut line = self.0.lock();
        line.order.slots = slots.max(1);
        line.call_all();
    }

    /// Waits for the turn of a prompt for `engine`. Dropped while it waits, the place is given up.
    pub(crate) async fn wait(self: &Arc<Self>, engine: &EngineId) -> Result<Turn, TurnFault> {
        let (number, called) = {
            let mut line = self.0.lock();
            match line.order.arrive(engine) {
                Arrival::Now(is_fresh) => return Ok(self.turn(engine, is_fresh)),
                Arrival::Full => return Err(TurnFault::Full),
                Arrival::Later(number) => {
                    let (call, called) = oneshot::channel();
                    line.calls.insert(number, call);
                    (number, called)
                }
            }
        };
        let mut place = Place {
            turns: Arc::clone(self),
            engine: engine.clone(),
            number,
            called,
            is_taken: false,
        };
        let is_fresh = (&mut place.called).await.map_err(|_| TurnFault::Closed)?;
        place.is_taken = true;
        Ok(self.turn(engine, is_fresh))
    }

    fn turn(self: &Arc<Self>, engine: &EngineId, is_fresh: bool) -> Turn {
        Turn {
            turns: Arc::clone(self),
            engine: engine.clone(),
            is_fresh,
            is_used: false,
        }
    }

    /// What [`Turns::is_idle`] wants to know before the engine is asked for its jobs; `None` while
    /// it holds no slot or a prompt is on its way.
    pub(crate) fn epoch(&self, engine: &EngineId) -> Option<u64> {
        self.0.lock().order.epoch(engine)
    }

    /// Whether the engine holds a slot.
    pub(crate) fn holds(&self, engine: &EngineId) -> bool {
        self.0.lock().order.holders.contains_key(engine)
    }

    /// The engine, asked after `epoch` was taken, has no job: its slot is free.
    pub(crate) fn is_idle(&self, engine: &EngineId, epoch: u64) {
        let mut line = self.0.lock();
        line.order.release(engine, epoch);
        line.call_all();
    }

    /// The engine is gone, and its jobs with it.
    pub(crate) fn is_gone(&self, engine: &EngineId) {
        let mut line = self.0.lock();
        line.order.holders.remove(engine);
        line.call_all();
    }

    /// Prompts that wait for this engine.
    pub(crate) fn waiting_for(&self, engine: &EngineId) -> usize {
        let line = self.0.lock();
        let own = |ticket: &&Ticket| ticket.engine == *engine;
        line.order.waiting.iter().filter(own).count()
    }
}

/// A place in the line.
struct Place {
    turns: Arc<Turns>,
    engine: EngineId,
    number: u64,
    called: oneshot::Receiver<bool>,
    is_taken: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_taken {
            return;
        }
        let mut line = self.turns.0.lock();
        line.calls.remove(&self.number);
        line.order.leave(self.number);
        if self.called.try_recv().is_ok() {
            // Called at the very moment of leaving: nothing was posted.
            line.order.posted(&self.engine);
            if let Some(epoch) = line.order.epoch(&self.engine) {
                line.order.release(&self.engine, epoch);
            }
        }
        line.call_all();
    }
}

/// The right to pass one prompt on; ends when it is dropped, after the engine has answered.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Arc<Turns>,
    engine: EngineId,
    is_fresh: bool,
    is_used: bool,
}

impl Turn {
    /// The prompt is being passed on. Without it the slot is free again when this is dropped.
    pub(crate) fn use_it(&mut self) {
        self.is_used = true;
    }

    /// Whether the engine comes to the GPU with this prompt.
    pub(crate) fn is_fresh(&self) -> bool {
        self.is_fresh
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut line = self.turns.0.lock();
        line.order.posted(&self.engine);
        if self.is_fresh && !self.is_used {
            // Nobody asks an engine that is gone whether it still has jobs.
            if let Some(epoch) = line.order.epoch(&self.engine) {
                line.order.release(&self.engine, epoch);
            }
            line.call_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::UserId;
    use proptest::prelude::*;
    use std::time::Duration;
    use tokio::time::timeout;

    fn engine(name: &str) -> EngineId {
        EngineId::User(UserId::parse(name).unwrap())
    }

    #[test]
    fn one_after_another_in_order_of_arrival() {
        let (a, b) = (engine("a"), engine("b"));
        let mut order = Order::new(1);
        assert_eq!(order.arrive(&a), Arrival::Now(true));
        assert_eq!(order.arrive(&a), Arrival::Now(false), "nobody waits");
        let Arrival::Later(first) = order.arrive(&b) else {
            panic!("the slot is taken");
        };
        let Arrival::Later(second) = order.arrive(&a) else {
            panic!("b came first");
        };
        order.posted(&a);
        assert_eq!(order.epoch(&a), None, "one more is on its way");
        order.posted(&a);
        let epoch = order.epoch(&a).unwrap();
        assert_eq!(order.call_next(), None);
        order.release(&a, epoch);
        assert_eq!(order.call_next(), Some((first, true)));
        assert_eq!(order.call_next(), None, "a waits for b now");
        order.posted(&b);
        order.release(&b, order.epoch(&b).unwrap());
        assert_eq!(order.call_next(), Some((second, true)));
    }

    #[test]
    fn an_answer_from_before_the_last_prompt_frees_nothing() {
        let a = engine("a");
        let mut order = Order::new(1);
        order.arrive(&a);
        order.posted(&a);
        let old = order.epoch(&a).unwrap();
        order.arrive(&a);
        order.posted(&a);
        order.release(&a, old);
        assert!(order.holders.contains_key(&a));
    }

    #[test]
    fn the_line_is_bounded_for_each_and_for_all() {
        let mut order = Order::new(1);
        order.arrive(&engine("holder"));
        for _ in 0..MAX_WAITING_OF_ONE {
            assert!(matches!(order.arrive(&engine("a")), Arrival::Later(_)));
        }
        assert_eq!(order.arrive(&engine("a")), Arrival::Full);
        assert!(matches!(order.arrive(&engine("b")), Arrival::Later(_)));
    }

    proptest! {
        #[test]
        fn never_more_engines_than_slots_and_everybody_comes(
            slots in 1..4usize,
            arrivals in prop::collection::vec(0..5u8, 1..60),
        ) {
            let mut order = Order::new(slots);
            let mut waiting = Vec::new();
            for name in &arrivals {
                match order.arrive(&engine(&name.to_string())) {
                    Arrival::Now(_) => {}
                    Arrival::Later(number) => waiting.push(number),
                    Arrival::Full => prop_assert!(false),
                }
                prop_assert!(order.holders.len() <= slots);
            }
            let mut called = Vec::new();
            for _ in 0..=arrivals.len() {
                let holders: Vec<EngineId> = order.holders.keys().cloned().collect();
                for holder in holders {
                    while order.epoch(&holder).is_none() {
                        order.posted(&holder);
                    }
                    let epoch = order.epoch(&holder).unwrap();
                    order.release(&holder, epoch);
                }
                while let Some((number, _)) = order.call_next() {
                    called.push(number);
                    prop_assert!(order.holders.len() <= slots);
                }
            }
            prop_assert_eq!(called, waiting);
        }
    }

    #[tokio::test]
    async fn whoever_leaves_the_line_blocks_nobody() {
        let turns = Turns::new(1);
        let (a, b, c) = (engine("a"), engine("b"), engine("c"));
        let mut first = turns.wait(&a).await.unwrap();
        first.use_it();
        assert!(first.is_fresh());
        let leaves = tokio::spawn({
            let (turns, b) = (Arc::clone(&turns), b.clone());
            async move { turns.wait(&b).await.map(drop) }
        });
        while turns.waiting_for(&b) == 0 {
            tokio::task::yield_now().await;
        }
        let stays = tokio::spawn({
            let (turns, c) = (Arc::clone(&turns), c.clone());
            async move { turns.wait(&c).await }
        });
        while turns.waiting_for(&c) == 0 {
            tokio::task::yield_now().await;
        }
        leaves.abort();
        let _ = leaves.await;
        assert_eq!(turns.waiting_for(&b), 0);
        drop(first);
        turns.is_idle(&a, turns.epoch(&a).unwrap());
        let turn = timeout(Duration::from_secs(5), stays)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert!(turn.is_fresh());
        drop(turn);
        assert!(!turns.holds(&c), "a turn that was not used is given back");
        let mut used = turns.wait(&c).await.unwrap();
        used.use_it();
        drop(used);
        assert!(turns.holds(&c), "its jobs may still run");
        turns.is_gone(&c);
        assert!(!turns.holds(&c));
    }
}
