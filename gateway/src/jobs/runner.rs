//! One job with an engine, from the posting until its end is written down. There is one way for all
//! jobs, whether the GPU was free when they came or they waited in the line, and one task for each.
//!
//! What becomes of a job is decided by what its engine says: it *has* the job, it *has ended* it, or it
//! knows *nothing* of it. An answer that is lost says nothing; an engine that cannot be reached has not
//! been tried.

use super::event_gate::AnswerTicket;
use super::outcome;
use super::prompt;
use super::queue::{Back, Conditions as _, Intent, MAX_ATTEMPTS, Recent, Running, milliseconds};
use crate::app::App;
use crate::clock;
use crate::engine::client::{self, ClientError, Posted};
use crate::engine::{Engine, QueueSignal};
use crate::http::chain;
use crate::store::{FinishedJob, JobOutcome, JobState, NewJob, PutBack, StoreCause, StoreError};
use crate::supervisor::EngineStatus;
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Between two looks at a job of which no event would tell.
const LOOK: Duration = Duration::from_secs(1);
/// Between two looks at a job of which an event will tell.
const CALM_LOOK: Duration = Duration::from_secs(10);
/// Looks in a row at an engine that knows nothing of a job it has taken until the job counts as lost.
const LOST_AFTER: u32 = 3;
/// The same for a job whose answer is lost: the engine may still be reading it.
const UNTAKEN_AFTER: u32 = 5;
/// Between two tries to write down what must be written down.
const WRITE_PAUSE: Duration = Duration::from_secs(2);
/// Between two tries to end a job.
const INTERRUPT_AGAIN: Duration = Duration::from_secs(2);
/// Time for an engine to hear that a job shall end.
const ASK_LIMIT: Duration = Duration::from_secs(3);
/// Time for one look at a job.
const LOOK_LIMIT: Duration = Duration::from_secs(10);
/// Between two tries to restart an engine that does not end a job.
const RESTART_AGAIN: Duration = Duration::from_secs(60);

/// What is told to who handed a job in, once.
#[derive(Debug)]
pub(crate) enum Handed {
    /// It is written down and will run, whatever happens. Its events may pass when the ticket is dropped.
    Taken {
        node_errors: Value,
        ticket: AnswerTicket,
    },
    /// ComfyUI does not take it, with these reasons in ComfyUI's form; it is forgotten.
    Refused(StatusCode, Value),
    /// It could not be written down, and no engine has seen it.
    NotWritten(StoreError),
}

/// Where the answer goes; `None` once it is given.
#[derive(Debug, Default)]
struct Answer(Option<oneshot::Sender<Handed>>);

impl Answer {
    fn give(&mut self, handed: Handed) {
        if let Some(answer) = self.0.take() {
            // A client that is gone is no concern of the job.
            let _ = answer.send(handed);
        }
    }
}

/// Writes a job down that found its engine free, posts it and stays with it. The answer comes when both
/// is done.
pub(crate) async fn run_new(
    app: Arc<App>,
    engine: Arc<Engine>,
    job: Running,
    new: NewJob,
    body: String,
    answer: oneshot::Sender<Handed>,
) {
    let mut answer = Answer(Some(answer));
    let mut run = Run::new(app, engine, job, 1);
    if let Err(error) = run.app.store.add_running_job(new).await {
        run.refuse();
        answer.give(Handed::NotWritten(error));
        return;
    }
    let ended = run.until_end(Some(body), &mut answer).await;
    run.conclude(ended, &mut answer).await;
}

/// Hands a job from the line over to its engine and stays with it.
pub(super) async fn hand_over(app: Arc<App>, engine: Arc<Engine>, job: Running) {
    let attempts = job.details.attempts;
    let mut run = Run::new(app, engine, job, attempts);
    let mut answer = Answer::default();
    let ended = run.until_end(None, &mut answer).await;
    run.conclude(ended, &mut answer).await;
}

/// A job on its way.
struct Run {
    app: Arc<App>,
    engine: Arc<Engine>,
    job: Running,
    /// The job's id as ComfyUI has it.
    id: String,
    /// Times it was handed over, this one included.
    attempts: u32,
    /// The job has left this task: it ended, or is in the line again.
    is_over: bool,
}

/// How a run ends.
enum Ended {
    /// The engine has recorded the end.
    Recorded(Box<JobOutcome>),
    /// The engine does not take the job.
    Refused(StatusCode, Value),
    /// The engine has it no more, and no record of it.
    Lost,
    /// The engine cannot be asked any more.
    EngineGone,
    /// The engine was not reached.
    NotConnected(ClientError),
    /// It was lost too often before.
    GivenUp,
    /// The store has no such job any more.
    Forgotten,
    /// The store does not answer.
    Store(StoreError),
    /// Somebody wants it ended, and no engine has it.
    Unwanted,
    Stopping,
}

/// What an engine shows of a job.
#[derive(Debug)]
enum Seen {
    Ended(Box<JobOutcome>),
    There,
    Nowhere,
    Unknown,
}

/// What became of posting a job.
enum PostEnd {
    Posted(Posted),
    Ended(Box<JobOutcome>),
    /// Somebody wants the job ended.
    Unwanted,
    EngineGone,
}

impl Run {
    fn new(app: Arc<App>, engine: Arc<Engine>, job: Running, attempts: u32) -> Self {
        Self {
            id: job.entry.id.to_string(),
            app,
            engine,
            job,
            attempts,
            is_over: false,
        }
    }

    async fn until_end(&mut self, body: Option<String>, answer: &mut Answer) -> Ended {
        let stopping = self.app.jobs.stopping.clone();
        let ended = stopping.run_until_cancelled(self.find_or_post(body, answer));
        ended.await.unwrap_or(Ended::Stopping)
    }

    async fn find_or_post(&mut self, body: Option<String>, answer: &mut Answer) -> Ended {
        let Some(address) = self.engine.address() else {
            return Ended::NotConnected(ClientError::Silent);
        };
        let mut signal = self.engine.queue_signal();
        if self.job.details.is_posted {
            match self.look_until_known(address, UNTAKEN_AFTER).await {
                Some(Seen::Ended(outcome)) => return Ended::Recorded(outcome),
                Some(Seen::There | Seen::Unknown) => {
                    let at = clock::now_ms();
                    if let Err(error) = self.app.store.find_job_running(self.job.entry.id, at).await
                    {
                        return Ended::Store(error);
                    }
                    tracing::info!(engine = %self.engine.id(), job = %self.id, "ComfyUI still has a job");
                    return self.watch(address, signal, true).await;
                }
                Some(Seen::Nowhere) if self.attempts >= MAX_ATTEMPTS => return Ended::GivenUp,
                Some(Seen::Nowhere) => {}
                None => return Ended::EngineGone,
            }
        }
        if self.intent().is_some() {
            return Ended::Unwanted;
        }
        let is_new = body.is_some();
        let body = match body {
            Some(body) => body,
            None => match self.take_body().await {
                Ok(Some(body)) => body,
                Ok(None) => return Ended::Forgotten,
                Err(error) => return Ended::Store(error),
            },
        };
        self.app.engines.make_room_for(&self.engine).await;
        signal.borrow_and_update();
        let before = signal.borrow().changes;
        let secured = self.secure(is_new);
        let (posted, ()) = tokio::join!(self.post(address, body), secured);
        self.engine.prompt_was_passed();
        let is_taken = match posted {
            PostEnd::Posted(Posted::Refused(status, reasons)) => {
                return Ended::Refused(status, reasons);
            }
            PostEnd::Posted(Posted::NotConnected(error)) => return Ended::NotConnected(error),
            PostEnd::Posted(Posted::Taken(node_errors)) => {
                self.app.jobs.engine_reached(self.engine.id());
                self.answer(answer, node_errors);
                true
            }
            PostEnd::Posted(Posted::Unknown(error)) => {
                tracing::warn!(engine = %self.engine.id(), job = %self.id, error = %chain(&error), "ComfyUI's answer to a job was lost");
                self.answer(answer, json!({}));
                false
            }
            PostEnd::Ended(outcome) => return Ended::Recorded(outcome),
            PostEnd::Unwanted => {
                self.answer(answer, json!({}));
                false
            }
            PostEnd::EngineGone => return Ended::EngineGone,
        };
        // Its arrival in the engine's queue is one change; the end may have been told as well.
        if signal.borrow().changes.wrapping_sub(before) < 2 {
            signal.borrow_and_update();
        }
        self.watch(address, signal, is_taken).await
    }

    /// The job's request body from the store; from now on it counts as handed over.
    async fn take_body(&mut self) -> Result<Option<String>, StoreError> {
        let id = self.job.entry.id;
        let Some(texts) = self.app.store.hand_job(id, clock::now_ms()).await? else {
            return Ok(None);
        };
        self.attempts += 1;
        Ok(Some(prompt::body(
            id,
            self.job.details.client_id.as_deref(),
            Some(&texts.prompt),
            &texts.extra,
            &texts.rest,
            &self.job.details.secrets,
        )))
    }

    /// Brings a new job to the disk, while its engine reads it. A disk that refuses does not undo a job
    /// that ComfyUI may have: another task tries again.
    fn secure(&self, is_new: bool) -> impl Future<Output = ()> + use<> {
        let (app, id, handed_at) = (Arc::clone(&self.app), self.job.entry.id, self.job.handed_at);
        async move {
            if !is_new {
                return;
            }
            // The prompt leaves first.
            tokio::task::yield_now().await;
            let Err(error) = app.store.secure_job(id, handed_at).await else {
                return;
            };
            tracing::error!(error = %chain(&error), job = %id, "a power cut would lose a running job; trying again");
            let again = Arc::clone(&app);
            app.jobs.spawn(async move {
                while !is_stopping(&again).await {
                    if again.store.secure_job(id, handed_at).await.is_ok() {
                        return;
                    }
                }
            });
        }
    }

    fn answer(&self, answer: &mut Answer, node_errors: Value) {
        if answer.0.is_none() {
            return;
        }
        self.app.jobs.tell_count(&self.job.entry.user);
        answer.give(Handed::Taken {
            node_errors,
            ticket: self.app.jobs.answer_ticket(self.job.entry.id),
        });
    }

    /// Posts the job, and goes on when the answer is there, when the engine has recorded the end without
    /// one, or when somebody wants the job ended.
    async fn post(&self, address: SocketAddr, body: String) -> PostEnd {
        let mut status = self.engine.watch();
        let deadline = self.deadline();
        let posted = client::post_prompt(address, body);
        tokio::pin!(posted);
        loop {
            let look_at = Instant::now() + LOOK;
            let wake_at = deadline.map_or(look_at, |deadline| look_at.min(deadline));
            tokio::select! {
                posted = &mut posted => return PostEnd::Posted(posted),
                is_gone = gone(&mut status, address) => if is_gone {
                    return PostEnd::EngineGone;
                },
                () = self.job.nudge.notified() => {}
                () = sleep_until(wake_at) => {}
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                self.end_as(Intent::TooLong);
            }
            if self.intent().is_some() {
                return PostEnd::Unwanted;
            }
            // An engine that has stalled in the middle of its answer may be done with the job.
            if let Ok(Ok(Some(outcome))) = timeout(LOOK, self.recorded(address)).await {
                return PostEnd::Ended(outcome);
            }
        }
    }

    /// Stays with a job that the engine has, or may have, until it ends. `is_taken`: the engine said so.
    async fn watch(
        &self,
        address: SocketAddr,
        mut signal: watch::Receiver<QueueSignal>,
        is_taken: bool,
    ) -> Ended {
        let mut status = self.engine.watch();
        let mut deadline = self.deadline();
        let mut misses = 0;
        let mut interrupt_at: Option<Instant> = None;
        let mut restart_at: Option<Instant> = None;
        let lost_after = if is_taken { LOST_AFTER } else { UNTAKEN_AFTER };
        // A job whose arrival was just told is there.
        let mut seen = if is_taken && !signal.has_changed().unwrap_or(true) {
            Seen::There
        } else {
            timeout(LOOK_LIMIT, self.look(address, false))
                .await
                .unwrap_or(Seen::Unknown)
        };
        loop {
            let is_there = matches!(seen, Seen::There);
            match seen {
                Seen::Ended(outcome) => return Ended::Recorded(outcome),
                Seen::Nowhere => misses += 1,
                Seen::There => misses = 0,
                Seen::Unknown => {}
            }
            if misses >= lost_after {
                tracing::warn!(engine = %self.engine.id(), job = %self.id, "ComfyUI knows nothing of a job that it had");
                return Ended::Lost;
            }
            let now = Instant::now();
            if deadline.is_some_and(|deadline| now >= deadline) {
                deadline = None;
                self.end_as(Intent::TooLong);
            }
            let wants_end = self.intent().is_some();
            if wants_end && interrupt_at.is_none_or(|at| now >= at) {
                interrupt_at = Some(now + INTERRUPT_AGAIN);
                // One that hears nothing must not keep us from what follows.
                let asked = timeout(ASK_LIMIT, self.engine.end_job(address, &self.id)).await;
                if asked.is_err() {
                    tracing::warn!(engine = %self.engine.id(), job = %self.id, "ComfyUI does not hear that a job shall end");
                }
            }
            if wants_end && let Some(grace) = self.app.config.current().queue.interrupt_grace() {
                let at = *restart_at.get_or_insert(now + grace);
                if now >= at && self.engine.is_ours() {
                    restart_at = Some(now + RESTART_AGAIN);
                    tracing::warn!(engine = %self.engine.id(), job = %self.id, "ComfyUI does not end a job and is restarted");
                    self.app.engines.restart_one(self.engine.id().clone());
                }
            }
            let is_calm = is_there && signal.borrow().is_connected && !wants_end;
            let next_look = sleep_until(next_look(Instant::now(), is_calm, deadline));
            tokio::pin!(next_look);
            let is_slow = loop {
                tokio::select! {
                    is_gone = gone(&mut status, address) => if is_gone {
                        return Ended::EngineGone;
                    },
                    () = self.job.nudge.notified() => break false,
                    () = &mut next_look => break true,
                    changed = signal.changed() => {
                        if changed.is_err() {
                            return Ended::EngineGone;
                        }
                        let is_connected = signal.borrow_and_update().is_connected;
                        if is_connected {
                            break false;
                        }
                        // Nothing tells of its end any more.
                        next_look.as_mut().reset(Instant::now() + LOOK);
                    }
                }
            };
            let limit = if self.intent().is_some() {
                ASK_LIMIT
            } else {
                LOOK_LIMIT
            };
            seen = timeout(limit, self.look(address, is_slow))
                .await
                .unwrap_or(Seen::Unknown);
        }
    }

    /// Asks the engine of a job that it may have, until it says something; `None` when it is gone.
    async fn look_until_known(&self, address: SocketAddr, looks: u32) -> Option<Seen> {
        let mut status = self.engine.watch();
        let mut nowhere = 0;
        loop {
            match self.look(address, true).await {
                Seen::Nowhere => nowhere += 1,
                Seen::Unknown => {}
                known => return Some(known),
            }
            // A process that was started after the job was handed over cannot get it from anywhere.
            if nowhere >= looks || (nowhere > 0 && self.engine.is_ours()) {
                return Some(Seen::Nowhere);
            }
            tokio::select! {
                is_gone = gone(&mut status, address) => if is_gone {
                    return None;
                },
                () = sleep(LOOK) => {}
            }
        }
    }

    /// Looks at the record first and at the queue second: a job goes from the one to the other in one
    /// step. `is_close`: the queue is searched for this very job, which costs the engine more.
    async fn look(&self, address: SocketAddr, is_close: bool) -> Seen {
        let told = async {
            if let Some(outcome) = self.recorded(address).await? {
                return Ok(Seen::Ended(outcome));
            }
            let jobs = self.engine.count_jobs(address).await?;
            if jobs > 0 && (!is_close || client::has_job(address, &self.id).await?) {
                return Ok(Seen::There);
            }
            // It may have ended between the two looks.
            Ok(match self.recorded(address).await? {
                Some(outcome) => Seen::Ended(outcome),
                None => Seen::Nowhere,
            })
        };
        told.await.unwrap_or_else(|error: ClientError| {
            tracing::debug!(engine = %self.engine.id(), error = %chain(&error), "ComfyUI did not tell of a job");
            Seen::Unknown
        })
    }

    /// The end of the job, if the engine has recorded it.
    async fn recorded(&self, address: SocketAddr) -> Result<Option<Box<JobOutcome>>, ClientError> {
        let answer = client::history(address, &self.id).await?;
        Ok(outcome::from_history(&answer, &self.id).map(Box::new))
    }

    fn intent(&self) -> Option<Intent> {
        self.app.jobs.intent(self.job.entry.id)
    }

    fn end_as(&self, intent: Intent) {
        self.app.jobs.interrupt(self.job.entry.id, None, intent);
    }

    /// When the job has taken longer than its owner's jobs may.
    fn deadline(&self) -> Option<Instant> {
        let limit = self.app.limits_of(&self.job.entry.user).longest_job?;
        Some(Instant::from_std(self.job.since + limit.duration()))
    }
}

/// What follows the end of a run.
impl Run {
    async fn conclude(mut self, ended: Ended, answer: &mut Answer) {
        self.engine.job_has_ended();
        match ended {
            Ended::Recorded(outcome) => {
                self.answer(answer, json!({}));
                self.settle(outcome).await;
            }
            Ended::Refused(status, reasons) => self.refused(status, reasons, answer).await,
            Ended::Unwanted => {
                self.answer(answer, json!({}));
                self.interrupted(Certainty::Gone).await;
            }
            Ended::Lost => {
                self.answer(answer, json!({}));
                self.interrupted(Certainty::Gone).await;
            }
            Ended::EngineGone => {
                self.answer(answer, json!({}));
                // Somebody else's ComfyUI may go on with it while we cannot reach it.
                let certainty = if self.engine.is_ours() {
                    Certainty::Gone
                } else {
                    Certainty::Unknown
                };
                self.interrupted(certainty).await;
            }
            Ended::NotConnected(error) => {
                self.answer(answer, json!({}));
                let pause = self.app.jobs.engine_unreachable(self.engine.id());
                tracing::info!(engine = %self.engine.id(), job = %self.id, seconds = pause.as_secs(), error = %chain(&error), "ComfyUI cannot be reached; its jobs wait");
                self.back(false, self.job.details.is_posted).await;
            }
            Ended::GivenUp => {
                let error = outcome::given_up(&self.id, clock::now_ms());
                self.fail(error).await;
            }
            Ended::Forgotten => self.refuse(),
            Ended::Store(error) => {
                tracing::error!(error = %chain(&error), "a job waits on: it cannot be written down");
                if !is_stopping(&self.app).await {
                    self.put_back_in_line(Back {
                        attempts: self.job.details.attempts,
                        is_posted: self.job.details.is_posted,
                        is_charged: false,
                    })
                    .await;
                }
                self.is_over = true;
            }
            Ended::Stopping => {
                self.leave().await;
                self.answer(answer, json!({}));
            }
        }
    }

    /// ComfyUI does not take the job. Whoever waits for the answer gets ComfyUI's reasons; a job from the
    /// line was taken by us before, so that its owner is told as of a failed one.
    async fn refused(&mut self, status: StatusCode, reasons: Value, answer: &mut Answer) {
        self.app.jobs.engine_reached(self.engine.id());
        if answer.0.is_none() {
            let error = outcome::error_data(&self.id, &reasons, clock::now_ms());
            self.fail(error).await;
            return;
        }
        let id = self.job.entry.id;
        if let Err(error) = self.app.store.remove_jobs(vec![id]).await {
            tracing::error!(error = %chain(&error), "a refused job cannot be forgotten; trying again");
            let app = Arc::clone(&self.app);
            self.app.jobs.spawn(async move {
                while !is_stopping(&app).await {
                    if app.store.remove_jobs(vec![id]).await.is_ok() {
                        return;
                    }
                }
            });
        }
        self.refuse();
        answer.give(Handed::Refused(status, reasons));
    }

    /// The job is none any more.
    fn refuse(&mut self) {
        self.is_over = true;
        self.app.jobs.refused(self.job.entry.id);
    }

    /// The engine has recorded the end.
    async fn settle(&mut self, mut outcome: Box<JobOutcome>) {
        let mut instead = None;
        if outcome.state == JobState::Cancelled {
            match self.intent() {
                Some(Intent::PutBack) => {
                    // Its next end must not be taken for this one.
                    if let Some(address) = self.engine.address()
                        && let Err(error) = client::forget(address, &self.id).await
                    {
                        tracing::warn!(error = %chain(&error), "ComfyUI did not forget a job");
                    }
                    self.back(false, false).await;
                    return;
                }
                Some(Intent::TooLong) => {
                    let limit = self.app.limits_of(&self.job.entry.user).longest_job;
                    let error = outcome::too_long(&self.id, limit, clock::now_ms());
                    let event = json!({ "type": "execution_error", "data": error });
                    instead = Some(Bytes::from(event.to_string()));
                    *outcome = outcome::not_interrupted_but(*outcome, &error);
                }
                Some(Intent::Cancel) | None => {}
            }
        }
        self.finish(*outcome, instead).await;
    }

    /// No engine has the job any more: it was to end anyway, or runs once more, but not for ever.
    async fn interrupted(&mut self, certainty: Certainty) {
        match (self.intent(), certainty) {
            (Some(Intent::Cancel), _) => {
                let outcome = outcome::cancelled(&self.id, clock::now_ms());
                self.end_without_engine(outcome).await;
            }
            (Some(Intent::TooLong), _) => {
                let limit = self.app.limits_of(&self.job.entry.user).longest_job;
                self.fail(outcome::too_long(&self.id, limit, clock::now_ms()))
                    .await;
            }
            (Some(Intent::PutBack), _) => {
                self.back(false, certainty == Certainty::Unknown).await;
            }
            (None, Certainty::Gone) if self.attempts >= MAX_ATTEMPTS => {
                self.fail(outcome::given_up(&self.id, clock::now_ms()))
                    .await;
            }
            (None, _) => self.back(true, certainty == Certainty::Unknown).await,
        }
    }

    /// The job goes back to its place in the line. `is_counted`: this attempt counts among those after
    /// which it is given up.
    async fn back(&mut self, is_counted: bool, is_posted: bool) {
        let before = self.job.details.attempts;
        // A job that came to a free engine was written down with its first attempt.
        let attempts = if is_counted { self.attempts } else { before };
        let was_handed = self.attempts > before;
        let back = PutBack {
            is_counted: is_counted || !was_handed,
            is_posted,
        };
        while let Err(error) = self.app.store.put_job_back(self.job.entry.id, back).await {
            tracing::error!(error = %chain(&error), "a job cannot be put back; trying again");
            if is_stopping(&self.app).await {
                self.is_over = true;
                return;
            }
        }
        self.put_back_in_line(Back {
            attempts,
            is_posted,
            is_charged: is_counted,
        })
        .await;
    }

    async fn put_back_in_line(&mut self, back: Back) {
        if !self.app.jobs.put_back(self.job.entry.id, back) {
            // Somebody has cancelled it meanwhile, and was told so.
            let outcome = outcome::cancelled(&self.id, clock::now_ms());
            self.end_without_engine(outcome).await;
        }
        self.is_over = true;
    }

    /// The gateway stops: the next start takes the job up, and it is nobody's fault.
    async fn leave(&mut self) {
        self.is_over = true;
        let back = PutBack {
            is_counted: self.attempts == self.job.details.attempts,
            is_posted: !self.engine.is_ours(),
        };
        if let Err(error) = self.app.store.put_job_back(self.job.entry.id, back).await {
            tracing::warn!(error = %chain(&error), "a job could not be put back");
        }
    }

    /// A job that no engine will end: its owner is told as ComfyUI would, once it is written down.
    async fn fail(&mut self, error: Value) {
        let outcome = outcome::failed(&self.id, &error, clock::now_ms());
        self.end_without_engine(outcome).await;
    }

    async fn end_without_engine(&mut self, outcome: JobOutcome) {
        let messages = outcome::events(&outcome);
        self.finish(outcome, None).await;
        let client = self.job.details.client_id.clone();
        let (user, sockets) = (&self.job.entry.user, &self.app.jobs.sockets);
        for event in messages {
            sockets.tell(user, client.as_deref(), &event);
        }
        sockets.tell_count(user, client.as_deref());
        let left = json!({ "type": "executing", "data": { "node": null, "prompt_id": self.id } });
        sockets.tell(user, client.as_deref(), &left);
    }

    /// Writes the end of the job down and tells of it. `instead` is what pages are told in place of its
    /// interruption.
    async fn finish(&mut self, mut outcome: JobOutcome, instead: Option<Bytes>) {
        let measured = i64::try_from(milliseconds(self.job.since.elapsed())).unwrap_or(i64::MAX);
        let mut gpu_ms = gpu_time(outcome.started_at, outcome.ended_at, measured);
        if self.attempts > 1 && outcome.reason.is_none() {
            outcome.reason =
                Some("It ran again, because ComfyUI ended while it ran before.".to_owned());
        }
        let recent = Recent {
            user: self.job.entry.user.clone(),
            id: self.job.entry.id,
            state: outcome.state,
            ended_at: clock::now(),
            reason: outcome.reason.clone(),
        };
        let day = clock::local_day();
        let now = clock::now_ms();
        let (started_at, ended_at) = within(outcome.started_at, outcome.ended_at, now, measured);
        outcome.started_at = started_at;
        let mut finished = FinishedJob {
            id: self.job.entry.id,
            user: self.job.entry.user.clone(),
            handed_at: self.job.handed_at,
            ended_at,
            gpu_ms,
            waiting_ms: (self.job.handed_at - self.job.details.created_at).max(0),
            outcome,
        };
        // A job that is not written down would run again; so nothing else runs in its place until it
        // is.
        let mut is_bare = false;
        while let Err(error) = self
            .app
            .store
            .finish_job(finished.clone(), day.clone())
            .await
        {
            if error.cause() == StoreCause::Fault {
                tracing::error!(error = %chain(&error), job = %self.id, "the end of a job cannot be written down as it is");
                if is_bare {
                    break;
                }
                is_bare = true;
                gpu_ms = 0;
                finished = bare(finished);
                continue;
            }
            tracing::error!(error = %chain(&error), "the end of a job cannot be written down; trying again");
            if is_stopping(&self.app).await {
                self.is_over = true;
                return;
            }
        }
        self.is_over = true;
        let gpu_ms = gpu_ms.unsigned_abs();
        self.app
            .jobs
            .finished(recent.clone(), gpu_ms, &day, instead);
        super::notify::announce(&self.app, &recent, gpu_ms).await;
    }
}

impl Drop for Run {
    /// A task that breaks gives its job back.
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        tracing::error!(job = %self.id, "the task of a job broke; the job goes back into the line");
        let back = Back {
            attempts: self.attempts,
            is_posted: true,
            is_charged: false,
        };
        if !self.app.jobs.put_back(self.job.entry.id, back) {
            self.app.jobs.refused(self.job.entry.id);
        }
    }
}

/// How sure it is that a job is with no engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Certainty {
    Gone,
    Unknown,
}

/// Time on the GPU, milliseconds: the smaller of what the engine tells by its own clock and what was
/// measured here; never negative.
fn gpu_time(started_at: Option<i64>, ended_at: Option<i64>, measured: i64) -> i64 {
    let told = match (started_at, ended_at) {
        (Some(start), Some(end)) => end.saturating_sub(start),
        _ => measured,
    };
    told.clamp(0, measured.max(0))
}

/// Start and end as the engine tells them, moved to where they can have been: between the hand-over
/// and now.
fn within(
    started_at: Option<i64>,
    ended_at: Option<i64>,
    now: i64,
    measured: i64,
) -> (Option<i64>, i64) {
    /// Clocks of two programs, and rounding.
    const SLACK: i64 = 2000;
    let earliest = now.saturating_sub(measured).saturating_sub(SLACK);
    let ended_at = ended_at.map_or(now, |at| at.clamp(earliest, now));
    (started_at.map(|at| at.clamp(earliest, ended_at)), ended_at)
}

/// The end of a job without what the engine wrote into its record.
fn bare(job: FinishedJob) -> FinishedJob {
    let mut outcome = outcome::unreadable();
    outcome.state = job.outcome.state;
    FinishedJob {
        gpu_ms: 0,
        waiting_ms: 0,
        outcome,
        ..job
    }
}

/// When to look at a job the next time if nothing happens. `is_calm`: the engine has it, and will
/// tell when its queue changes; the slow look is there for what might be wrong with that.
fn next_look(now: Instant, is_calm: bool, deadline: Option<Instant>) -> Instant {
    let at = now + if is_calm { CALM_LOOK } else { LOOK };
    deadline.map_or(at, |deadline| at.min(deadline))
}

/// Waits for a change; tells whether the engine that has the job is gone.
async fn gone(status: &mut watch::Receiver<EngineStatus>, address: SocketAddr) -> bool {
    status.changed().await.is_err() || status.borrow_and_update().address != Some(address)
}

/// Waits before another try; tells whether there is none.
async fn is_stopping(app: &App) -> bool {
    tokio::select! {
        () = app.jobs.stopping.cancelled() => true,
        () = sleep(WRITE_PAUSE) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_rare_while_an_event_would_tell_and_never_miss_the_deadline() {
        let now = Instant::now();
        let after = |milliseconds| now + Duration::from_millis(milliseconds);
        let table = [
            (false, None, 1000),
            (true, None, 10_000),
            (true, Some(after(4000)), 4000),
            (true, Some(after(60_000)), 10_000),
            (false, Some(after(4000)), 1000),
            (false, Some(after(200)), 200),
        ];
        for (is_calm, deadline, expected) in table {
            let at = next_look(now, is_calm, deadline);
            assert_eq!(at, after(expected), "{is_calm} {deadline:?}");
        }
    }

    #[test]
    fn gpu_time_is_never_more_than_what_was_measured_here() {
        let table = [
            (Some(10), Some(25), 100, 15),
            (Some(10), Some(2_000_000), 100, 100),
            (Some(0), Some(i64::MAX), 100, 100),
            (Some(i64::MIN), Some(i64::MAX), 100, 100),
            (Some(25), Some(10), 100, 0),
            (None, Some(10), 100, 100),
            (None, None, 100, 100),
            (Some(1), Some(2), -5, 0),
        ];
        for (start, end, measured, expected) in table {
            assert_eq!(
                gpu_time(start, end, measured),
                expected,
                "{start:?} {end:?}"
            );
        }
    }

    #[test]
    fn times_of_an_odd_clock_are_moved_to_where_they_can_have_been() {
        let (now, measured) = (1_000_000, 10_000);
        let table = [
            (Some(995_000), Some(999_000), (Some(995_000), 999_000)),
            (Some(0), Some(i64::MAX), (Some(988_000), 1_000_000)),
            (Some(999_999), Some(999_000), (Some(999_000), 999_000)),
            (None, None, (None, 1_000_000)),
        ];
        for (start, end, expected) in table {
            assert_eq!(
                within(start, end, now, measured),
                expected,
                "{start:?} {end:?}"
            );
        }
    }
}
