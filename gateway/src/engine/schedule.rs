//! Which engine is started next, and which has to make room: a function from what is seen to what
//! is done.

use super::handle::EngineId;
use super::memory::Memory;
use crate::supervisor::EngineState;
use std::time::Duration;

/// Engines that may start at the same time: a start keeps a processor and the disk busy.
pub(super) const MAX_STARTS: usize = 2;
/// An engine with a page open on it gives its place up only after so long without a request.
const PAGE_PATIENCE: Duration = Duration::from_secs(5 * 60);
/// Part of the machine's memory that stays free.
const FREE_PART: u64 = 12;
/// Memory that a fresh engine takes at least, bytes: measured 570 MB with ComfyUI 0.12.1.
const FRESH_ENGINE: u64 = 700 << 20;

/// Caches of an engine are emptied after so long without a job, while others run: since 0.23 each
/// keeps the outputs of all its former workflows, and none looks at what the others need.
const CACHE_PATIENCE: Duration = Duration::from_secs(10 * 60);
/// The same where less than this part of the machine's memory is available.
const TIGHT_CACHE_PATIENCE: Duration = Duration::from_secs(60);
const TIGHT_PART: u64 = 4;

/// One engine as the schedule sees it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) id: EngineId,
    pub(super) state: EngineState,
    /// Running and waiting jobs; `None` when it does not tell.
    pub(super) jobs: Option<u32>,
    pub(super) sockets: u32,
    pub(super) requests: u32,
    /// Since the last request, socket or job.
    pub(super) idle_for: Duration,
    /// Since it was last seen with a job.
    pub(super) without_job_for: Duration,
    /// Whether it may keep outputs and models of former jobs in memory.
    pub(super) has_caches: bool,
    /// Whether it takes memory of this machine that only starts count on: the demo engine does
    /// not.
    pub(super) is_small: bool,
}

impl Seen {
    fn is_alive(&self) -> bool {
        !matches!(self.state, EngineState::Stopped | EngineState::Failed)
    }

    fn has_nothing_to_do(&self) -> bool {
        self.state == EngineState::Ready && self.jobs == Some(0) && self.requests == 0
    }
}

/// What bounds the schedule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) max_engines: usize,
    pub(super) idle_stop: Option<Duration>,
    /// `None` where the system does not tell.
    pub(super) memory: Option<Memory>,
}

/// Why an engine is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StopReason {
    /// Nobody used it for a while.
    Idle,
    /// Somebody else waits for its place.
    Room,
}

/// What is to be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Start(EngineId),
    Stop(EngineId, StopReason),
    /// Its caches and models are worth less than the memory that they take.
    Empty(EngineId),
}

/// Decides over all engines. `line` are those that somebody waits for, first come first; whoever
/// is neither started nor refused here stays in it.
pub(super) fn decide(engines: &[Seen], line: &[EngineId], limits: &Limits) -> Vec<Action> {
    let mut actions = Vec::new();
    if let Some(limit) = limits.idle_stop {
        for engine in engines {
            if engine.has_nothing_to_do() && engine.sockets == 0 && engine.idle_for >= limit {
                actions.push(Action::Stop(engine.id.clone(), StopReason::Idle));
            }
        }
    }
    let count = |wanted: fn(&Seen) -> bool| engines.iter().filter(|engine| wanted(engine)).count();
    let mut alive = count(Seen::is_alive);
    let mut starting = count(|engine| engine.state == EngineState::Starting);
    let is_making_room =
        !actions.is_empty() || count(|engine| engine.state == EngineState::Stopping) > 0;
    for id in line {
        let known = engines.iter().find(|engine| engine.id == *id);
        if known.is_some_and(Seen::is_alive) {
            continue;
        }
        if starting >= MAX_STARTS {
            break;
        }
        let is_small = engines.iter().any(|engine| engine.is_small);
        let is_tight = alive > 0
            && !is_small
            && limits
                .memory
                .is_some_and(|memory| is_short(memory, starting));
        if alive >= limits.max_engines || is_tight {
            if !is_making_room && let Some(victim) = victim(engines, line) {
                actions.push(Action::Stop(victim, StopReason::Room));
            }
            break;
        }
        actions.push(Action::Start(id.clone()));
        starting += 1;
        alive += 1;
    }
    let emptied: Vec<Action> = engines
        .iter()
        .filter(|engine| alive > 1 && is_to_be_emptied(engine, limits))
        .filter(|engine| {
            !actions
                .iter()
                .any(|action| matches!(action, Action::Stop(id, _) if *id == engine.id))
        })
        .map(|engine| Action::Empty(engine.id.clone()))
        .collect();
    actions.extend(emptied);
    actions
}

fn is_to_be_emptied(engine: &Seen, limits: &Limits) -> bool {
    let is_tight = limits
        .memory
        .is_some_and(|memory| memory.available < memory.total / TIGHT_PART);
    let patience = if is_tight {
        TIGHT_CACHE_PATIENCE
    } else {
        CACHE_PATIENCE
    };
    engine.has_caches && engine.has_nothing_to_do() && engine.without_job_for >= patience
}

/// Whether there is no memory for one more engine besides those that are just starting.
fn is_short(memory: Memory, starting: usize) -> bool {
    let starting = u64::try_from(starting).unwrap_or(u64::MAX);
    let needed = FRESH_ENGINE.saturating_mul(starting.saturating_add(1));
    memory.available < needed.saturating_add(memory.total / FREE_PART)
}

/// The engine that is missed least: without a page first, then the one used longest ago.
fn victim(engines: &[Seen], line: &[EngineId]) -> Option<EngineId> {
    engines
        .iter()
        .filter(|engine| engine.has_nothing_to_do() && !line.contains(&engine.id))
        .filter(|engine| engine.sockets == 0 || engine.idle_for >= PAGE_PATIENCE)
        .max_by_key(|engine| (engine.sockets == 0, engine.idle_for))
        .map(|engine| engine.id.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::UserId;
    use proptest::prelude::*;

    fn id(name: &str) -> EngineId {
        EngineId::User(UserId::parse(name).unwrap())
    }

    fn ready(name: &str, idle_seconds: u64) -> Seen {
        Seen {
            id: id(name),
            state: EngineState::Ready,
            jobs: Some(0),
            sockets: 0,
            requests: 0,
            idle_for: Duration::from_secs(idle_seconds),
            without_job_for: Duration::from_secs(idle_seconds),
            has_caches: false,
            is_small: false,
        }
    }

    fn limits(max_engines: usize) -> Limits {
        Limits {
            max_engines,
            idle_stop: Some(Duration::from_secs(1800)),
            memory: Some(Memory {
                total: 16 << 30,
                available: 8 << 30,
            }),
        }
    }

    fn start(name: &str) -> Action {
        Action::Start(id(name))
    }

    fn stop(name: &str, reason: StopReason) -> Action {
        Action::Stop(id(name), reason)
    }

    #[test]
    fn starts_are_in_order_and_few_at_once() {
        let line = [id("a"), id("b"), id("c")];
        assert_eq!(decide(&[], &line, &limits(8)), [start("a"), start("b")]);
        let starting = Seen {
            state: EngineState::Starting,
            ..ready("a", 0)
        };
        assert_eq!(
            decide(std::slice::from_ref(&starting), &line, &limits(8)),
            [start("b")]
        );
        let stopping = Seen {
            state: EngineState::Stopping,
            ..ready("a", 0)
        };
        assert_eq!(
            decide(&[stopping], &[id("a")], &limits(8)),
            [],
            "an engine that ends is started again when it is gone"
        );
    }

    #[test]
    fn idle_engines_stop_and_busy_ones_stay() {
        let busy = |change: fn(&mut Seen)| {
            let mut seen = ready("a", 4000);
            change(&mut seen);
            seen
        };
        assert_eq!(
            decide(&[ready("a", 1800)], &[], &limits(8)),
            [stop("a", StopReason::Idle)]
        );
        for seen in [
            ready("a", 1799),
            busy(|seen| seen.jobs = Some(1)),
            busy(|seen| seen.jobs = None),
            busy(|seen| seen.sockets = 1),
            busy(|seen| seen.requests = 1),
            busy(|seen| seen.state = EngineState::Starting),
        ] {
            assert_eq!(decide(&[seen], &[], &limits(8)), []);
        }
        let never = Limits {
            idle_stop: None,
            ..limits(8)
        };
        assert_eq!(decide(&[ready("a", 99_999)], &[], &never), []);
    }

    #[test]
    fn room_is_made_by_the_one_used_longest_ago() {
        let two = [ready("a", 10), ready("b", 20)];
        let line = [id("c")];
        assert_eq!(
            decide(&two, &line, &limits(2)),
            [stop("b", StopReason::Room)]
        );
        let mut with_page = two.clone();
        with_page[1].sockets = 1;
        assert_eq!(
            decide(&with_page, &line, &limits(2)),
            [stop("a", StopReason::Room)],
            "an open page is worth more than a recent use"
        );
        with_page[0].jobs = Some(1);
        assert_eq!(decide(&with_page, &line, &limits(2)), [], "all are in use");
        with_page[1].idle_for = Duration::from_secs(600);
        assert_eq!(
            decide(&with_page, &line, &limits(2)),
            [stop("b", StopReason::Room)]
        );
        let mut ending = two;
        ending[0].state = EngineState::Stopping;
        assert_eq!(
            decide(&ending, &line, &limits(2)),
            [],
            "one place is being made already"
        );
    }

    #[test]
    fn b5_caches_of_idle_engines_are_emptied_for_others() {
        let cached = |name: &str, seconds| Seen {
            has_caches: true,
            ..ready(name, seconds)
        };
        let empty = |name: &str| Action::Empty(id(name));
        let two = [cached("a", 600), cached("b", 599)];
        assert_eq!(decide(&two, &[], &limits(8)), [empty("a")]);
        let tight = Limits {
            memory: Some(Memory {
                total: 16 << 30,
                available: 3 << 30,
            }),
            ..limits(8)
        };
        assert_eq!(decide(&two, &[], &tight), [empty("a"), empty("b")]);
        // Nobody needs what the only one has.
        assert_eq!(decide(&two[..1], &[], &tight), []);
        let busy = |change: fn(&mut Seen)| {
            let mut seen = cached("a", 700);
            change(&mut seen);
            seen
        };
        for seen in [
            busy(|seen| seen.jobs = Some(1)),
            busy(|seen| seen.jobs = None),
            busy(|seen| seen.requests = 1),
            busy(|seen| seen.has_caches = false),
            busy(|seen| seen.state = EngineState::Starting),
        ] {
            assert_eq!(decide(&[seen, ready("b", 0)], &[], &tight), []);
        }
        // An open page does not keep them.
        let mut page = cached("a", 700);
        page.sockets = 1;
        assert_eq!(
            decide(&[page, ready("b", 0)], &[], &limits(8)),
            [empty("a")]
        );
        // What ends has nothing to empty.
        let ending = decide(&[cached("a", 1800), ready("b", 0)], &[], &limits(8));
        assert_eq!(ending, [stop("a", StopReason::Idle)]);
    }

    #[test]
    fn memory_counts_but_the_first_engine_always_starts() {
        let tight = Limits {
            memory: Some(Memory {
                total: 16 << 30,
                available: 1 << 30,
            }),
            ..limits(8)
        };
        assert_eq!(decide(&[], &[id("a")], &tight), [start("a")]);
        assert_eq!(
            decide(&[ready("a", 9)], &[id("b")], &tight),
            [stop("a", StopReason::Room)]
        );
        let mut busy = ready("a", 9);
        busy.jobs = Some(2);
        assert_eq!(decide(&[busy], &[id("b")], &tight), []);
        let mut small = ready("a", 9);
        small.is_small = true;
        assert_eq!(decide(&[small], &[id("b")], &tight), [start("b")]);
    }

    fn any_seen() -> impl Strategy<Value = Seen> {
        (0..6usize, 0..3u32, 0..3u32, 0..2u32, 0..4000u64).prop_map(
            |(state, jobs, sockets, requests, idle)| {
                let states = [
                    EngineState::Stopped,
                    EngineState::Starting,
                    EngineState::Ready,
                    EngineState::Stopping,
                    EngineState::Crashed,
                    EngineState::Failed,
                ];
                Seen {
                    state: states[state],
                    jobs: Some(jobs),
                    sockets,
                    requests,
                    ..ready("x", idle)
                }
            },
        )
    }

    proptest! {
        #[test]
        fn never_more_alive_than_allowed_and_no_job_is_ever_stopped(
            mut engines in prop::collection::vec(any_seen(), 0..12),
            wanted in prop::collection::vec(0..16usize, 0..16),
            max_engines in 1..10usize,
        ) {
            for (index, engine) in engines.iter_mut().enumerate() {
                engine.id = id(&format!("u{index}"));
            }
            let mut line: Vec<EngineId> = Vec::new();
            for index in wanted {
                let id = id(&format!("u{index}"));
                if !line.contains(&id) {
                    line.push(id);
                }
            }
            let alive = engines.iter().filter(|engine| engine.is_alive()).count();
            let actions = decide(&engines, &line, &limits(max_engines));
            let started = actions.iter().filter(|action| matches!(action, Action::Start(_))).count();
            prop_assert!(started == 0 || alive + started <= max_engines);
            prop_assert!(started <= MAX_STARTS);
            for action in &actions {
                if let Action::Stop(id, _) = action {
                    let engine = engines.iter().find(|engine| engine.id == *id).unwrap();
                    prop_assert!(engine.has_nothing_to_do());
                }
            }
        }
    }
}
