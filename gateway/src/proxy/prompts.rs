//! `POST /prompt`: read once and checked. While the GPU is free it goes straight to the engine, whose
//! answer comes back; else it is written down and waits its turn in the gateway.

use super::{Failure, ProxyError, Way, exchange, refused};
use crate::app::App;
use crate::auth::SignedIn;
use crate::clock;
use crate::engine::{Engine, EngineId};
use crate::http::{ApiError, RequestContext, chain};
use crate::jobs::{
    Accepted, Admission, Arrival, Entry, JobId, LimitFault, MAX_PROMPT, NodePolicy, Prompt,
    PromptFault, Reservation, Running, Submission, number_text, watch_job,
};
use crate::store::{AuditEvent, JobRow, JobState, NewJob, StoreError};
use axum::Json;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Time for a client to send its prompt.
const SEND_LIMIT: Duration = Duration::from_secs(60);
/// Prompts longer than this are read on a thread of their own, so that nobody else waits.
const LONG: usize = 256 * 1024;
/// From the client's answer until the job is looked after: that takes a processor which a client on
/// the same machine needs to read its answer.
const AFTER_ANSWER: Duration = Duration::from_millis(2);
/// Longest answer of an engine to a prompt it took, bytes.
const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// Passes a prompt on, lets it wait, or refuses it in ComfyUI's form.
pub(super) async fn pass(
    way: &Way<'_>,
    engine: &Arc<Engine>,
    request: Request,
) -> Result<Response, Failure> {
    let (parts, body) = request.into_parts();
    check_encoding(&parts.headers)?;
    let bytes = read(body).await?;
    let prompt = check(way, &bytes).await?;
    let address = engine.address().ok_or_else(gone)?;
    let mut submission = Submission::new(&bytes, &prompt)
        .map_err(|error| in_comfyui_form(PromptFault::Json(error.to_string()).body()))?;
    if *engine.id() == EngineId::Shared {
        let user = &way.signed_in.account.id;
        let own = super::client_id::own(user, submission.client_id.as_deref());
        submission.client_id = Some(own);
    }
    let wanted = submission.wanted_id.as_deref().and_then(JobId::parse);
    let id = match wanted {
        Some(id) if !way.app.store.knows_job(id).await.unwrap_or(true) => id,
        _ => JobId::generate(),
    };
    let created_at = clock::now_ms();
    let user = &way.signed_in.account.id;
    let admission = way.app.jobs.admit(
        Arrival {
            id,
            user: user.clone(),
            number: submission.number,
            is_front: submission.is_front,
            model: prompt.model(),
            client_id: submission.client_id.clone(),
            secrets: submission.secrets().clone(),
            created_at,
        },
        engine.id(),
        &**way.app,
    );
    match admission.map_err(over_limit)? {
        Admission::Now(job) => {
            let passing = Passing {
                app: Arc::clone(way.app),
                context: way.context.clone(),
                signed_in: way.signed_in.clone(),
                engine: Arc::clone(engine),
                address,
                job: *job,
            };
            let passed = see_through(way.app, passing.pass(parts, submission));
            // What was read is forgotten while the engine looks at it.
            tokio::task::yield_now().await;
            drop(prompt);
            passed.await
        }
        Admission::Later(reservation) => {
            // What ComfyUI would refuse does not get into the line.
            let accepted = match engine.catalogue() {
                Some(catalogue) => catalogue
                    .check(&prompt, submission.targets())
                    .map_err(|refusal| in_comfyui_form(refusal.body()))?,
                None => Accepted::unchecked(),
            };
            let waiting = wait(Arc::clone(way.app), submission, accepted, *reservation);
            see_through(way.app, waiting).await
        }
    }
}

/// Goes on when the client is gone: what is written down, or was taken by an engine, must be known to
/// the queue. It begins at once; the future returned waits for its end.
fn see_through(
    app: &App,
    work: impl Future<Output = Result<Response, Failure>> + Send + 'static,
) -> impl Future<Output = Result<Response, Failure>> {
    let stopping = app.jobs.stopping.clone();
    let work = app.jobs.spawn(stopping.run_until_cancelled_owned(work));
    async { work.await.ok().flatten().ok_or_else(gone)? }
}

/// The prompt is written down before it is in the line.
async fn wait(
    app: Arc<App>,
    submission: Submission,
    accepted: Accepted,
    reservation: Reservation,
) -> Result<Response, Failure> {
    let entry = &reservation.entry;
    let created_at = reservation.details.created_at;
    let job = NewJob {
        row: row(entry, &submission, created_at),
        texts: submission.texts(created_at, &accepted.outputs),
    };
    let written = app.store.add_job(job).await;
    written.map_err(|error| not_written(&error))?;
    app.jobs.enqueue(&reservation);
    Ok(taken(entry.id, entry.number, &accepted.node_errors))
}

/// A prompt for a free engine, with all that it needs on its way.
struct Passing {
    app: Arc<App>,
    context: RequestContext,
    signed_in: SignedIn,
    engine: Arc<Engine>,
    address: SocketAddr,
    job: Running,
}

impl Passing {
    /// Goes to the engine while it is written down; the engine's answer comes back when both is done.
    async fn pass(self, mut parts: Parts, submission: Submission) -> Result<Response, Failure> {
        let Self {
            app,
            context,
            signed_in,
            engine,
            address,
            job,
        } = self;
        let id = job.entry.id;
        let started = Started {
            app: &app,
            id,
            is_kept: false,
        };
        let created_at = job.details.created_at;
        let new = NewJob {
            row: JobRow {
                state: JobState::Running,
                attempts: 1,
                ..row(&job.entry, &submission, created_at)
            },
            texts: submission.texts(created_at, &[]),
        };
        let body = submission.body(id, &new.texts);
        drop(submission);
        let length = HeaderValue::from(body.len());
        parts.headers.insert(CONTENT_LENGTH, length);
        let request = Request::from_parts(parts, Body::from(body));
        let way = Way {
            app: &app,
            context: &context,
            signed_in: &signed_in,
        };
        let passed = async {
            app.engines.make_room_for(&engine).await;
            exchange(&way, &engine, address, request).await
        };
        let written = async {
            // The prompt leaves first: the database's thread would take its processor.
            tokio::task::yield_now().await;
            app.store.add_running_job(new).await
        };
        let (written, answer) = tokio::join!(written, passed);
        engine.prompt_was_passed();
        let answer = match (written, answer) {
            (Ok(()), Ok(answer)) if answer.status().is_success() => answer,
            (Ok(()), other) => {
                engine.job_has_ended();
                forget(&app, id).await;
                return Ok(other?);
            }
            (Err(error), answer) => {
                if answer.is_ok_and(|answer| answer.status().is_success()) {
                    engine.end_job(address, &id.to_string()).await;
                }
                return Err(not_written(&error));
            }
        };
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect();
        let answer = body.await.map(|collected| collected.to_bytes());
        let number = job.entry.number;
        started.keep();
        app.jobs.tell_count(&job.entry.user);
        let handed_at = job.handed_at;
        let watching = watch_job(Arc::clone(&app), engine, address, job, 1);
        let watched = async {
            sleep(AFTER_ANSWER).await;
            watching.await;
        };
        let store = Arc::clone(&app.store);
        let secured = async move {
            if let Err(error) = store.secure_job(id, handed_at).await {
                tracing::warn!(error = %chain(&error), "a power cut would lose a running job");
            }
        };
        drop(app.jobs.spawn(async move {
            // The client's answer leaves first.
            tokio::task::yield_now().await;
            tokio::join!(secured, watched);
        }));
        let answer: Value = answer
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        let node_errors = answer.get("node_errors");
        Ok(taken(id, number, node_errors.unwrap_or(&json!({}))))
    }
}

/// A job that counts as running; unless it is kept, the GPU is free again when this is dropped.
struct Started<'app> {
    app: &'app App,
    id: JobId,
    is_kept: bool,
}

impl Started<'_> {
    fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Started<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            self.app.jobs.refused(self.id);
        }
    }
}

async fn forget(app: &App, id: JobId) {
    if let Err(error) = app.store.remove_jobs(vec![id]).await {
        tracing::warn!(error = %chain(&error), "a refused job could not be forgotten");
    }
}

/// A job that waits.
fn row(entry: &Entry, submission: &Submission, created_at: i64) -> JobRow {
    JobRow {
        id: entry.id,
        user: entry.user.clone(),
        seq: entry.seq.cast_signed(),
        number: entry.number,
        urgency: entry.urgency,
        state: JobState::Waiting,
        attempts: 0,
        created_at,
        client_id: submission.client_id.clone(),
        workflow_id: submission.workflow_id.clone(),
        model: entry.model,
    }
}

/// ComfyUI's answer to a prompt it took.
fn taken(id: JobId, number: f64, node_errors: &Value) -> Response {
    let number: Value = serde_json::from_str(&number_text(number)).unwrap_or_default();
    let body = json!({ "prompt_id": id.to_string(), "number": number, "node_errors": node_errors });
    Json(body).into_response()
}

fn over_limit(fault: LimitFault) -> Failure {
    let (code, limit) = match fault {
        LimitFault::JobsWaiting(_) => ("jobs_waiting", "jobs_waiting"),
        LimitFault::GpuMinutes(_) => ("gpu_minutes", "gpu_minutes_a_day"),
        LimitFault::Full => ("queue_full", "queue"),
    };
    let mut error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, code, fault.to_string())
        .with("limit", limit)
        // ComfyUI's page shows this text to people.
        .with("node_errors", json!({}));
    if let LimitFault::GpuMinutes(_) = fault {
        error = error
            .with("until", clock::next_local_midnight())
            .retry_after(clock::seconds_to_local_midnight());
    }
    Failure::Refused(Box::new(error.into_response()))
}

/// A full disk takes no new job and loses none of the old.
fn not_written(error: &StoreError) -> Failure {
    tracing::error!(error = %chain(error), "a job could not be written down and was refused");
    Failure::Refused(Box::new(
        ApiError::new(
            StatusCode::INSUFFICIENT_STORAGE,
            "not_written",
            "The job could not be written down, so it was not taken. Is the disk of the server full?",
        )
        .into_response(),
    ))
}

fn gone() -> Failure {
    Failure::Proxy(ProxyError::Silent)
}

/// ComfyUI undoes compression and obeys the charset; what it would read then is not what was
/// checked here.
pub(super) fn check_encoding(headers: &HeaderMap) -> Result<(), Failure> {
    let is_plain = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .all(|value| value.as_bytes().eq_ignore_ascii_case(b"identity"));
    let charsets = headers
        .get_all(CONTENT_TYPE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';').skip(1))
        .filter_map(|parameter| parameter.split_once('='))
        .filter(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
    let mut charsets =
        charsets.map(|(_, value)| value.trim().trim_matches('"').to_ascii_lowercase());
    let is_readable = headers
        .get_all(CONTENT_TYPE)
        .iter()
        .all(|value| value.to_str().is_ok_and(|value| !value.contains('*')));
    if is_plain && is_readable && charsets.all(|charset| charset == "utf-8" || charset == "utf8") {
        Ok(())
    } else {
        Err(refused(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_encoding",
            "Send the prompt as plain UTF-8 JSON, without compression.",
        ))
    }
}

pub(super) async fn read(body: Body) -> Result<Bytes, Failure> {
    match timeout(SEND_LIMIT, Limited::new(body, MAX_PROMPT).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(refused(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            "The prompt is too large.",
        )),
        Ok(Err(_)) => Err(refused(
            StatusCode::BAD_REQUEST,
            "bad_body",
            "The prompt did not arrive whole.",
        )),
        Err(_) => Err(refused(
            StatusCode::REQUEST_TIMEOUT,
            "too_slow",
            "The prompt took too long to arrive.",
        )),
    }
}

async fn check<'body>(way: &Way<'_>, bytes: &'body Bytes) -> Result<Prompt<'body>, Failure> {
    let parsed = if bytes.len() > LONG {
        let bytes = bytes.clone();
        tokio::task::spawn_blocking(move || Prompt::parse(&bytes).map(Prompt::into_owned))
            .await
            .map_err(|_| gone())?
    } else {
        Prompt::parse(bytes)
    };
    let prompt = parsed.map_err(|fault: PromptFault| in_comfyui_form(fault.body()))?;
    let live = way.app.live.load();
    if let Err(nodes) = policy(&live, way.signed_in).check(&prompt) {
        way.app.audit(
            AuditEvent::Refused,
            Some(&way.signed_in.account.username),
            Some(way.context.caller.address),
            Some(&format!("nodes: {}", nodes.names())),
        );
        return Err(in_comfyui_form(nodes.body()));
    }
    drop(live);
    Ok(prompt)
}

fn policy<'live>(live: &'live crate::app::Live, signed_in: &SignedIn) -> &'live NodePolicy {
    if signed_in.has_admin_rights() {
        &live.admin_nodes
    } else {
        &live.user_nodes
    }
}

fn in_comfyui_form(body: Value) -> Failure {
    Failure::Refused(Box::new(
        (StatusCode::BAD_REQUEST, Json(body)).into_response(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_utf_8_is_read() {
        let table = [
            (CONTENT_TYPE, "application/json", true),
            (CONTENT_TYPE, "text/plain; charset=UTF-8", true),
            (CONTENT_TYPE, "application/json; charset=\"utf-8\"", true),
            (CONTENT_TYPE, "application/json; charset=utf-16", false),
            (CONTENT_TYPE, "application/json; Charset = utf-7", false),
            (CONTENT_TYPE, "application/json; charset*=utf-16", false),
            (CONTENT_ENCODING, "identity", true),
            (CONTENT_ENCODING, "gzip", false),
            (CONTENT_ENCODING, "deflate", false),
        ];
        for (name, value, expected) in table {
            let headers = HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
            assert_eq!(check_encoding(&headers).is_ok(), expected, "{value}");
        }
    }
}
