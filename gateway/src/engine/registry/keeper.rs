//! The one task that changes the registry's table.

use super::{Inner, Order, Rest};
use crate::config::Config;
use crate::engine::handle::{Engine, EngineId};
use crate::engine::schedule::{Action, Limits, Seen, StopReason, decide};
use crate::supervisor::{EngineState, EngineStatus};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use time::OffsetDateTime;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// Between two rounds when nothing happens: idle times pass.
const ROUND: Duration = Duration::from_secs(1);
/// How long an engine may take to show that it follows an order.
const ORDER_PATIENCE: time::Duration = time::Duration::seconds(10);
/// A stopped engine is forgotten after so long; its log stays on disk.
const FORGET_AFTER: Duration = Duration::from_secs(10 * 60);

/// What an engine was told last.
#[derive(Clone, Copy, Debug)]
struct Told {
    state: EngineState,
    at: OffsetDateTime,
}

impl Told {
    fn now(state: EngineState) -> Self {
        Self {
            state,
            at: OffsetDateTime::now_utc(),
        }
    }
}

/// The task's own state.
pub(super) struct Keeper {
    inner: Arc<Inner>,
    is_attached: bool,
    /// What engines were just told, until they show it.
    expected: HashMap<EngineId, Told>,
    ending: JoinSet<EngineId>,
    ending_ids: HashSet<EngineId>,
    /// From one engine for all to one per user or back: nothing starts until all have ended.
    is_switching: bool,
    awaited: Vec<(EngineId, oneshot::Sender<()>)>,
    /// ComfyUI shall start by itself and has not yet.
    is_first_start_due: bool,
}

impl Keeper {
    pub(super) fn new(inner: Arc<Inner>, settings: &Config) -> Self {
        Self {
            inner,
            is_attached: !settings.comfyui.attach.is_empty(),
            expected: HashMap::new(),
            ending: JoinSet::new(),
            ending_ids: HashSet::new(),
            is_switching: false,
            awaited: Vec::new(),
            is_first_start_due: settings.comfyui.autostart,
        }
    }

    pub(super) async fn run(
        mut self,
        mut orders: mpsc::Receiver<Order>,
        mut end: oneshot::Receiver<()>,
        wake: Arc<Notify>,
    ) {
        if !self.inner.is_separate.load(Ordering::Relaxed) {
            self.engine(&EngineId::Shared);
        }
        let mut round = interval(ROUND);
        round.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = &mut end => break,
                Some(order) = orders.recv() => self.follow(order),
                Some(ended) = self.ending.join_next(), if !self.ending.is_empty() => {
                    if let Ok(id) = ended {
                        self.has_ended(&id);
                    }
                }
                () = wake.notified() => {}
                _ = round.tick() => {}
            }
            self.round();
        }
        let table = self.inner.table.load_full();
        for id in table.keys().cloned().collect::<Vec<_>>() {
            self.retire(&id);
        }
        while self.ending.join_next().await.is_some() {}
        self.publish();
    }

    /// The engine of this name, made if there is none.
    fn engine(&self, id: &EngineId) -> Arc<Engine> {
        if let Some(engine) = self.inner.table.load().get(id) {
            return Arc::clone(engine);
        }
        let engine = Arc::new(Engine::open(&self.inner.surroundings, id.clone()));
        self.inner.table.rcu(|table| {
            let mut table = HashMap::clone(table);
            table.insert(id.clone(), Arc::clone(&engine));
            table
        });
        engine
    }

    fn retire(&mut self, id: &EngineId) {
        let Some(engine) = self.inner.table.load().get(id).cloned() else {
            return;
        };
        self.inner.table.rcu(|table| {
            let mut table = HashMap::clone(table);
            table.remove(id);
            table
        });
        self.expected.remove(id);
        self.ending_ids.insert(id.clone());
        let id = id.clone();
        self.ending.spawn(async move {
            engine.shutdown().await;
            id
        });
    }

    fn has_ended(&mut self, id: &EngineId) {
        self.ending_ids.remove(id);
        if self.ending_ids.is_empty() {
            self.is_switching = false;
        }
        let (done, rest) = std::mem::take(&mut self.awaited)
            .into_iter()
            .partition(|(awaited, _)| awaited == id);
        self.awaited = rest;
        let done: Vec<(EngineId, oneshot::Sender<()>)> = done;
        for (_, told) in done {
            let _ = told.send(());
        }
    }

    fn follow(&mut self, order: Order) {
        match order {
            Order::Start(id) => {
                let engine = self.inner.table.load().get(&id).cloned();
                match engine {
                    Some(engine) if is_alive(engine.status().state) => {
                        engine.start(self.inner.tenant(&id));
                    }
                    _ => drop(self.inner.put_in_line(id)),
                }
            }
            Order::Stop(id) => {
                self.inner.line.lock().retain(|other| *other != id);
                if let Some(engine) = self.inner.table.load().get(&id) {
                    engine.stop();
                    self.inner.rests.lock().insert(id, Rest::Admin);
                }
            }
            Order::Restart(id) => self.engine(&id).restart(self.inner.tenant(&id)),
            Order::StopAll => {
                self.inner.line.lock().clear();
                for engine in self.inner.table.load().values() {
                    if is_alive(engine.status().state) {
                        engine.stop();
                    }
                }
            }
            Order::RestartAll => {
                let primary = self.inner.primary_id();
                let table = self.inner.table.load_full();
                for engine in table.values() {
                    if is_alive(engine.status().state) || Some(engine.id()) == primary.as_ref() {
                        engine.restart(self.inner.tenant(engine.id()));
                    }
                }
                if let Some(primary) = primary
                    && !table.contains_key(&primary)
                {
                    self.inner.put_in_line(primary);
                }
            }
            Order::Retire(id, done) => {
                self.inner.line.lock().retain(|other| *other != id);
                self.retire(&id);
                if self.ending_ids.contains(&id) {
                    self.awaited.push((id, done));
                } else {
                    let _ = done.send(());
                }
            }
        }
    }

    fn round(&mut self) {
        // The owner's engine has nobody to start for until there is an account.
        if self.is_first_start_due
            && let Some(id) = self.inner.primary_id()
        {
            self.is_first_start_due = false;
            self.inner.put_in_line(id);
        }
        self.follow_mode();
        self.follow_accounts();
        let config = self.inner.surroundings.config.current();
        let table = self.inner.table.load_full();
        let seen: Vec<Seen> = table.values().map(|engine| self.see(engine)).collect();
        if !self.is_switching {
            let line: Vec<EngineId> = self
                .inner
                .line
                .lock()
                .iter()
                .filter(|id| !self.ending_ids.contains(*id))
                .cloned()
                .collect();
            let minutes = u64::from(config.comfyui.idle_stop_minutes);
            let is_separate = self.inner.is_separate.load(Ordering::Relaxed);
            let limits = Limits {
                max_engines: usize::try_from(config.comfyui.max_engines).unwrap_or(1),
                idle_stop: (minutes > 0 && is_separate)
                    .then(|| Duration::from_secs(minutes.saturating_mul(60))),
                memory: self.inner.gauge.machine(),
            };
            for action in decide(&seen, &line, &limits) {
                self.act(action);
            }
            self.leave_line(&table);
        }
        self.forget_stopped(&table);
        self.publish();
    }

    /// Whoever shows that he is alive needs no place in the line.
    fn leave_line(&self, table: &HashMap<EngineId, Arc<Engine>>) {
        self.inner.line.lock().retain(|id| {
            !table.get(id).is_some_and(|engine| {
                matches!(
                    engine.status().state,
                    EngineState::Starting | EngineState::Ready | EngineState::Crashed
                )
            })
        });
    }

    fn see(&mut self, engine: &Engine) -> Seen {
        let activity = engine.activity();
        let status = engine.status();
        let now = status.state;
        let told = self.expected.get(engine.id());
        if now == EngineState::Failed && told.is_some_and(|told| status.since >= told.at) {
            self.expected.remove(engine.id());
            self.inner.line.lock().retain(|other| other != engine.id());
        }
        let state = match self.expected.get(engine.id()) {
            Some(told) if OffsetDateTime::now_utc() - told.at < ORDER_PATIENCE => {
                match (told.state, now) {
                    (EngineState::Starting, EngineState::Stopped | EngineState::Failed)
                    | (EngineState::Stopping, EngineState::Ready) => told.state,
                    _ => now,
                }
            }
            _ => now,
        };
        if state == now {
            self.expected.remove(engine.id());
        }
        Seen {
            id: engine.id().clone(),
            state,
            jobs: activity
                .jobs()
                .map(|jobs| jobs.saturating_add(activity.waiting())),
            sockets: activity.sockets(),
            requests: activity.requests(),
            idle_for: activity.idle_for(),
            without_job_for: activity.without_job_for(),
            has_caches: activity.has_caches(),
            is_small: engine.is_demo(),
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Start(id) => {
                // It stays in line until it shows that it starts, so that nobody who waits for it
                // finds it neither here nor there.
                self.inner.rests.lock().remove(&id);
                let engine = self.engine(&id);
                engine.activity().touch();
                engine.start(self.inner.tenant(&id));
                self.expected.insert(id, Told::now(EngineState::Starting));
            }
            Action::Stop(id, reason) => {
                tracing::info!(engine = %id, ?reason, "stopping an engine");
                let rest = match reason {
                    StopReason::Idle => Rest::Idle,
                    StopReason::Room => Rest::Room,
                };
                self.inner.rests.lock().insert(id.clone(), rest);
                if let Some(engine) = self.inner.table.load().get(&id) {
                    engine.stop();
                }
                self.expected.insert(id, Told::now(EngineState::Stopping));
            }
            Action::Empty(id) => {
                if let Some(engine) = self.inner.table.load().get(&id) {
                    tracing::info!(engine = %id, "emptying the caches of an idle engine");
                    engine.activity().note_caches(false);
                    engine.activity().note_models(false);
                    engine.free(true, true);
                }
            }
        }
    }

    /// Follows `separate_users`, which may be changed while engines run.
    fn follow_mode(&mut self) {
        let config = self.inner.surroundings.config.current();
        let wanted = config.separate_users && !self.is_attached;
        if self.is_switching || wanted == self.inner.is_separate.load(Ordering::Relaxed) {
            return;
        }
        if wanted {
            tracing::warn!(
                "users are separated from now on: each has a ComfyUI of his own; what was shared stays with the owner"
            );
        } else {
            tracing::warn!(
                "users are not separated any more: all use the owner's ComfyUI; what they made alone stays in their directories"
            );
        }
        let was_alive = self
            .inner
            .table
            .load()
            .values()
            .any(|engine| is_alive(engine.status().state));
        for id in self.inner.table.load().keys().cloned().collect::<Vec<_>>() {
            self.retire(&id);
        }
        self.is_switching = !self.ending_ids.is_empty();
        self.inner.is_separate.store(wanted, Ordering::Relaxed);
        self.inner.line.lock().clear();
        self.inner.rests.lock().clear();
        if !wanted {
            self.engine(&EngineId::Shared);
        }
        if was_alive && let Some(id) = self.inner.primary_id() {
            self.inner.put_in_line(id);
        }
    }

    /// Ends the engines of accounts that are gone or disabled, and restarts those whose user lost
    /// or got the Manager.
    fn follow_accounts(&mut self) {
        if !self.inner.is_separate.load(Ordering::Relaxed) {
            return;
        }
        let accounts = self.inner.accounts.current();
        let is_shut_out = |id: &EngineId| match id {
            EngineId::Shared => true,
            EngineId::User(user) => accounts.get(user).is_none_or(|account| account.disabled),
        };
        self.inner.line.lock().retain(|id| !is_shut_out(id));
        let table = self.inner.table.load_full();
        for (id, engine) in &*table {
            if is_shut_out(id) {
                tracing::info!(engine = %id, "ending an engine: its account is gone or disabled");
                self.retire(id);
                continue;
            }
            let tenant = self.inner.tenant(id);
            let is_running = matches!(engine.status().state, EngineState::Ready);
            if is_running
                && engine
                    .prepared_for()
                    .is_some_and(|(before, _)| before != tenant)
                && !self.expected.contains_key(id)
            {
                tracing::info!(engine = %id, "starting an engine again: its user's rights have changed");
                engine.restart(tenant);
                self.expected
                    .insert(id.clone(), Told::now(EngineState::Stopping));
            }
        }
    }

    fn forget_stopped(&mut self, table: &HashMap<EngineId, Arc<Engine>>) {
        let primary = self.inner.primary_id();
        let line = self.inner.line.lock().clone();
        for (id, engine) in table {
            let status = engine.status();
            let is_old = OffsetDateTime::now_utc() - status.since
                > time::Duration::try_from(FORGET_AFTER).unwrap_or(time::Duration::MAX);
            if status.state == EngineState::Stopped
                && is_old
                && Some(id) != primary.as_ref()
                && !line.contains(id)
                && !self.expected.contains_key(id)
            {
                self.retire(id);
            }
        }
        let accounts = self.inner.accounts.peek();
        self.inner.rests.lock().retain(|id, _| match id {
            EngineId::Shared => true,
            EngineId::User(user) => accounts.get(user).is_some(),
        });
    }

    fn publish(&self) {
        let status = self
            .inner
            .primary_id()
            .and_then(|id| {
                self.inner
                    .table
                    .load()
                    .get(&id)
                    .map(|engine| engine.status())
            })
            .unwrap_or_else(|| EngineStatus::stopped("ComfyUI is stopped."));
        self.inner.primary.send_if_modified(|published| {
            let is_new = *published != status;
            if is_new {
                published.clone_from(&status);
            }
            is_new
        });
        self.inner
            .rounds
            .send_modify(|rounds| *rounds = rounds.wrapping_add(1));
    }
}

fn is_alive(state: EngineState) -> bool {
    !matches!(state, EngineState::Stopped | EngineState::Failed)
}
