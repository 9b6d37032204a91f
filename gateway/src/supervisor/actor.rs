//! The task that owns one engine: its process, its state and its history.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::explain::explain_exit;
use super::handle::Command;
use super::launch::{LaunchPlan, Launcher, free_loopback_port};
use super::liveness::{ASK_EVERY, Finding, Liveness};
use super::log::{LogRing, LogStream, pump};
use super::progress::StartUnderWay;
use super::readiness::{Answer, ProbeError, probe, until_ready};
use super::restart::{Exit, Step, in_words, next_step};
use super::settings::SupervisorSettings;
use super::spawn::{ProcessControl, ProcessExit, RunningProcess, SpawnError, Spawner};
use super::status::{EngineState, EngineStatus};
use crate::sandbox::{Refusals, SandboxState};

/// How often a starting engine's output is looked at for progress.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Lines from which a crash is explained.
const LINES_TO_EXPLAIN: usize = 200;
/// How long the output of processes that are gone may take to be read to its end.
const OUTPUT_END_LIMIT: Duration = Duration::from_secs(2);
/// Crashes remembered; policies look at fewer.
const HISTORY: usize = 64;

pub(super) struct Actor {
    pub(super) settings: SupervisorSettings,
    pub(super) launcher: Arc<dyn Launcher>,
    pub(super) spawner: Arc<dyn Spawner>,
    pub(super) log: LogRing,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) status: watch::Sender<EngineStatus>,
    pub(super) end: CancellationToken,
    pub(super) history: Vec<Exit>,
    pub(super) generation: u64,
    pub(super) restarts: u32,
}

/// What the actor does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Wait for somebody to ask for a start.
    Rest,
    /// Start a process.
    Start,
    /// Start a process after a pause.
    Pause(Duration),
    /// End the task.
    End,
}

/// Why a running process is left.
enum Left {
    /// It ended by itself.
    Exited(ProcessExit),
    /// It has to be stopped, and then this.
    Asked(Next),
    /// It did not become ready.
    TooSlow(String),
}

impl Actor {
    /// Runs until the token `end` is cancelled or nobody can send commands any more; by then
    /// the engine is stopped.
    pub(super) async fn run(mut self) {
        let mut next = Next::Rest;
        loop {
            next = match next {
                Next::Rest => self.rest().await,
                Next::Start => Box::pin(self.run_once()).await,
                Next::Pause(pause) => self.pause(pause).await,
                Next::End => break,
            };
        }
        self.enter(EngineState::Stopped, "ComfyUI is stopped.");
    }

    async fn rest(&mut self) -> Next {
        loop {
            tokio::select! {
                () = self.end.cancelled() => return Next::End,
                command = self.commands.recv() => match command {
                    Some(Command::Start | Command::Restart) => {
                        self.forget_crashes();
                        return Next::Start;
                    }
                    Some(Command::Stop) => self.enter(EngineState::Stopped, "ComfyUI is stopped."),
                    Some(Command::Hurry) => {}
                    None => return Next::End,
                },
            }
        }
    }

    async fn pause(&mut self, pause: Duration) -> Next {
        let over = tokio::time::sleep(pause);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = self.end.cancelled() => return Next::End,
                () = &mut over => {
                    self.restarts = self.restarts.saturating_add(1);
                    return Next::Start;
                }
                command = self.commands.recv() => match command {
                    Some(Command::Start | Command::Restart) => {
                        self.forget_crashes();
                        return Next::Start;
                    }
                    Some(Command::Stop) => {
                        self.enter(EngineState::Stopped, "ComfyUI is stopped.");
                        return Next::Rest;
                    }
                    Some(Command::Hurry) => {}
                    None => return Next::End,
                },
            }
        }
    }

    /// The life of one process, from its start until nothing of it is left.
    async fn run_once(&mut self) -> Next {
        self.generation += 1;
        self.enter_with(EngineState::Starting, "Starting ComfyUI", |status| {
            status.progress = Some(0.0);
        });
        let first_seq = self.log.last_seq();
        let plan = match free_loopback_port() {
            Ok(address) => match self.launcher.plan(address) {
                Ok(plan) => plan,
                Err(error) => return self.give_up(&error.to_string(), &error),
            },
            Err(error) => return self.crashed(not_started(&error)),
        };
        let spawner = Arc::clone(&self.spawner);
        let started = tokio::select! {
            () = self.end.cancelled() => return Next::End,
            started = spawner.spawn(&plan) => started,
        };
        let mut process = match started {
            Ok(process) => process,
            Err(error @ SpawnError::Program { .. }) => {
                return self.give_up(&format!("ComfyUI did not start: {error}."), &error);
            }
            Err(SpawnError::System(error)) => return self.crashed(not_started(&error)),
        };
        tracing::info!(
            generation = self.generation,
            pid = process.pid,
            sandbox = process.sandbox.state.as_str(),
            "engine started"
        );
        if process.sandbox.state != SandboxState::Confined {
            tracing::warn!("{}", process.sandbox.detail);
        }
        self.status.send_modify(|status| {
            status.pid = process.pid;
            status.sandbox = process.sandbox.clone();
        });
        let mut output = JoinSet::new();
        let (out, errors) = take_streams(&mut process);
        let refusals = process.sandbox.holds_files().then(Arc::<Refusals>::default);
        for (stream, which) in [(out, LogStream::Out), (errors, LogStream::Err)] {
            output.spawn(pump(stream, which, self.log.clone(), refusals.clone()));
        }

        let control = process.control.as_mut();
        let (left, ready_since) = self.watch(control, &plan, first_seq).await;
        let ready_for = ready_since.map(|since| since.elapsed());
        match left {
            Left::Exited(exit) => {
                drain(&mut output).await;
                let exit = self.explain(exit, ready_for, first_seq);
                self.crashed(exit)
            }
            Left::Asked(next) => {
                self.enter(EngineState::Stopping, "Stopping ComfyUI");
                let next = self.stop(control, next).await;
                drain(&mut output).await;
                if next == Next::Rest {
                    self.enter(EngineState::Stopped, "ComfyUI is stopped.");
                }
                next
            }
            Left::TooSlow(reason) => {
                self.enter(EngineState::Stopping, &reason);
                let next = self.stop(control, Next::Rest).await;
                drain(&mut output).await;
                if next == Next::Rest {
                    tracing::warn!(reason, "engine given up");
                    self.enter(EngineState::Failed, &reason);
                }
                next
            }
        }
    }

    /// Waits, through starting and ready, for a reason to leave the process.
    async fn watch(
        &mut self,
        control: &mut dyn ProcessControl,
        plan: &LaunchPlan,
        first_seq: u64,
    ) -> (Left, Option<Instant>) {
        let settings = self.settings.clone();
        let engine = self.status.borrow().pid;
        let mut start = StartUnderWay::new(first_seq);
        let mut ready_since = None;
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let answer = until_ready(plan.address, engine, &settings);
        tokio::pin!(answer);
        let mut liveness = Liveness::default();
        let check = check_later(plan.address, settings.probe_timeout);
        tokio::pin!(check);
        loop {
            let left = tokio::select! {
                biased;
                exit = control.wait() => Left::Exited(exit),
                () = self.end.cancelled() => Left::Asked(Next::End),
                command = self.commands.recv() => match command {
                    Some(Command::Stop) => Left::Asked(Next::Rest),
                    Some(Command::Restart) => {
                        self.forget_crashes();
                        Left::Asked(Next::Start)
                    }
                    Some(Command::Start | Command::Hurry) => continue,
                    None => Left::Asked(Next::End),
                },
                answer = &mut answer, if ready_since.is_none() => {
                    ready_since = Some(Instant::now());
                    self.ready(answer);
                    continue;
                }
                (seen, took) = &mut check, if ready_since.is_some() => {
                    check.set(check_later(plan.address, settings.probe_timeout));
                    match liveness.note(&seen, took) {
                        Finding::Same => {}
                        Finding::Silent(silence) => {
                            let seconds = silence.as_secs();
                            tracing::warn!(generation = self.generation, seconds, "the engine does not answer");
                            self.say(&format!("ComfyUI has not answered for {seconds} seconds."));
                        }
                        Finding::Back => {
                            tracing::info!(generation = self.generation, "the engine answers again");
                            self.say("ComfyUI is ready.");
                        }
                        Finding::Restarting => {
                            // Another ComfyUI in the same process: all that is known of it is old.
                            self.generation += 1;
                            tracing::info!(generation = self.generation, "the engine starts anew by itself");
                            self.enter_with(EngineState::Starting, "ComfyUI restarts itself", |status| {
                                status.progress = Some(0.0);
                                status.pid = engine;
                            });
                            ready_since = None;
                            start = StartUnderWay::new(self.log.last_seq());
                            answer.set(until_ready(plan.address, engine, &settings));
                        }
                    }
                    continue;
                }
                _ = look.tick(), if ready_since.is_none() => {
                    self.show_progress(&mut start);
                    match start.too_slow(&settings) {
                        Some(reason) => Left::TooSlow(reason),
                        None => continue,
                    }
                }
            };
            return (left, ready_since);
        }
    }

    fn ready(&self, answer: Answer) {
        tracing::info!(
            generation = self.generation,
            address = %answer.address,
            version = answer.version,
            "engine ready"
        );
        self.enter_with(EngineState::Ready, "ComfyUI is ready.", |status| {
            status.address = Some(answer.address);
            status.version = answer.version.or(status.version.take());
        });
    }

    /// Says something else of the engine, whose state stays.
    fn say(&self, message: &str) {
        self.status
            .send_modify(|status| message.clone_into(&mut status.message));
    }

    fn show_progress(&self, start: &mut StartUnderWay) {
        let Some((fraction, text)) = start.look(&self.log) else {
            return;
        };
        self.status.send_if_modified(|status| {
            let changed = status.progress != Some(fraction) || status.message != text;
            status.progress = Some(fraction);
            text.clone_into(&mut status.message);
            changed
        });
    }

    /// The ladder: ask, wait, kill, wait. Returns what comes next, which wishes arriving in the
    /// meantime may change.
    async fn stop(&mut self, control: &mut dyn ProcessControl, mut next: Next) -> Next {
        control.terminate();
        let grace = tokio::time::sleep(self.settings.stop_grace);
        tokio::pin!(grace);
        let mut listening = true;
        loop {
            tokio::select! {
                biased;
                exit = control.wait() => {
                    tracing::info!(?exit, "engine stopped");
                    return next;
                }
                () = self.end.cancelled(), if next != Next::End => next = Next::End,
                () = &mut grace => {
                    tracing::warn!("the engine did not end when asked and is killed");
                    break;
                }
                command = self.commands.recv(), if listening => match command {
                    Some(Command::Stop) if next == Next::Start => next = Next::Rest,
                    Some(Command::Stop | Command::Hurry) => break,
                    Some(Command::Start | Command::Restart) if next != Next::End => {
                        self.forget_crashes();
                        next = Next::Start;
                    }
                    Some(Command::Start | Command::Restart) => {}
                    None => {
                        listening = false;
                        next = Next::End;
                    }
                },
            }
        }
        control.kill();
        match tokio::time::timeout(self.settings.kill_limit, control.wait()).await {
            Ok(exit) => tracing::info!(?exit, "engine killed"),
            Err(_) => tracing::error!("processes of the engine survived being killed"),
        }
        next
    }

    fn explain(&self, exit: ProcessExit, ready_for: Option<Duration>, first_seq: u64) -> Exit {
        let lines = self.log.tail(LINES_TO_EXPLAIN);
        let lines: Vec<&str> = lines
            .iter()
            .filter(|entry| entry.seq > first_seq && !entry.text.is_empty())
            .map(|entry| entry.text.as_str())
            .collect();
        let explanation = explain_exit(exit, ready_for.is_some(), &lines);
        Exit {
            at: std::time::Instant::now(),
            ready_for: ready_for.unwrap_or_default(),
            permanent: explanation.permanent,
            reason: explanation.text,
        }
    }

    fn crashed(&mut self, exit: Exit) -> Next {
        let reason = exit.reason.clone();
        tracing::warn!(reason, generation = self.generation, "engine crashed");
        if self.history.len() >= HISTORY {
            self.history.remove(0);
        }
        let now = exit.at;
        self.history.push(exit);
        match next_step(&self.history, &self.settings.restart, now) {
            Step::Restart { after } => {
                let message = format!("{reason} It starts again in {}.", in_words(after));
                self.enter_with(EngineState::Crashed, &message, |status| {
                    status.retry_in = Some(after);
                });
                Next::Pause(after)
            }
            Step::GiveUp { reason } => {
                tracing::error!(reason, "engine given up");
                self.enter(EngineState::Failed, &reason);
                Next::Rest
            }
        }
    }

    fn give_up(&self, message: &str, error: &(dyn std::error::Error + 'static)) -> Next {
        tracing::error!(error, "engine cannot be started");
        self.enter(EngineState::Failed, message);
        Next::Rest
    }

    fn forget_crashes(&mut self) {
        self.history.clear();
        self.restarts = 0;
    }

    fn enter(&self, state: EngineState, message: &str) {
        self.enter_with(state, message, |_| ());
    }

    /// Publishes a new state, at once with what belongs to it.
    fn enter_with(
        &self,
        state: EngineState,
        message: &str,
        complete: impl FnOnce(&mut EngineStatus),
    ) {
        self.status.send_modify(|status| {
            let alive = matches!(state, EngineState::Ready | EngineState::Stopping);
            *status = EngineStatus {
                state,
                since: OffsetDateTime::now_utc(),
                message: message.to_owned(),
                progress: None,
                retry_in: None,
                address: None,
                generation: self.generation,
                pid: status.pid.filter(|_| alive),
                version: status.version.take(),
                restarts: self.restarts,
                sandbox: status.sandbox.clone(),
            };
            complete(status);
        });
    }
}

fn not_started(error: &std::io::Error) -> Exit {
    Exit {
        at: std::time::Instant::now(),
        ready_for: Duration::ZERO,
        permanent: false,
        reason: format!("The system could not start ComfyUI: {error}."),
    }
}

type Stream = Box<dyn tokio::io::AsyncRead + Send + Unpin>;

fn take_streams(process: &mut RunningProcess) -> (Stream, Stream) {
    let out = std::mem::replace(&mut process.output, Box::new(tokio::io::empty()));
    let errors = std::mem::replace(&mut process.errors, Box::new(tokio::io::empty()));
    (out, errors)
}

/// Waits until the output is read to its end; a process that got away and holds the pipe open
/// does not hold us up.
async fn drain(output: &mut JoinSet<()>) {
    let ended = tokio::time::timeout(OUTPUT_END_LIMIT, async {
        while output.join_next().await.is_some() {}
    });
    if ended.await.is_err() {
        tracing::warn!("somebody still holds the output of an engine that is gone");
        output.shutdown().await;
    }
}

/// Asks an engine that is ready whether it still answers, after a pause; tells how long both took.
async fn check_later(
    address: SocketAddr,
    limit: Duration,
) -> (Result<Answer, ProbeError>, Duration) {
    let begun = Instant::now();
    tokio::time::sleep(ASK_EVERY).await;
    let seen = probe(address, &address.to_string(), limit).await;
    (seen, begun.elapsed())
}
