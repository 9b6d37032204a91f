//! `POST /prompt`: read once, checked, and handed to the queue. While the GPU is free the job is posted at
//! once and the engine's answer comes back; else it is written down and waits its turn in the gateway.

use super::{Failure, Way, refused};
use crate::app::App;
use crate::auth::SignedIn;
use crate::clock;
use crate::engine::{Engine, EngineId};
use crate::http::{ApiError, chain, drop_when_written};
use crate::jobs::{
    Accepted, Admission, AnswerTicket, Arrival, Catalogue, Entry, Handed, JobId, LimitFault,
    MAX_PROMPT, NodePolicy, Prompt, PromptFault, Reservation, Running, Submission, number_text,
    run_new,
};
use crate::store::{AuditEvent, JobRow, JobState, NewJob, StoreCause, StoreError};
use axum::Json;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

/// Time for a client to send its prompt.
const SEND_LIMIT: Duration = Duration::from_secs(60);
/// Prompts longer than this are read on a thread of their own, so that nobody else waits.
const LONG: usize = 256 * 1024;
/// Looks for a job of the same id that is just being written down.
const SAME_ID_LOOKS: u32 = 20;
/// Between two of these looks.
const SAME_ID_PAUSE: Duration = Duration::from_millis(50);

/// Hands a prompt over, lets it wait, or refuses it in ComfyUI's form.
pub(super) async fn pass(
    way: &Way<'_>,
    engine: &Arc<Engine>,
    request: Request,
) -> Result<Response, Failure> {
    let (parts, body) = request.into_parts();
    check_encoding(&parts.headers)?;
    let bytes = read(body).await?;
    let (prompt, catalogue) = check(way, engine, &bytes).await?;
    let mut submission = Submission::new(&bytes, &prompt)
        .map_err(|error| in_comfyui_form(PromptFault::Json(error.to_string()).body()))?;
    if *engine.id() == EngineId::Shared {
        let user = &way.signed_in.account.id;
        let own = super::client_id::own(user, submission.client_id.as_deref());
        submission.client_id = Some(own);
    }
    let wanted = submission.wanted_id.as_deref().and_then(JobId::parse);
    let id = match wanted {
        None => JobId::generate(),
        Some(id) => match same_job(way, id, &submission).await? {
            Same::Nobody => id,
            Same::Foreign => JobId::generate(),
            Same::Own(response) => return Ok(response),
        },
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
    match admission {
        Ok(Admission::Now(job)) => {
            let (number, handed) = hand_over(way.app, engine, *job, &submission);
            // What was read is forgotten while the engine looks at it.
            drop(submission);
            drop(prompt);
            match handed.await {
                Ok(Handed::Taken {
                    node_errors,
                    ticket,
                }) => {
                    let answer = taken(id, number, &node_errors);
                    Ok(drop_when_written(answer, ticket, way.context.unflushed()))
                }
                Ok(Handed::Refused(status, reasons)) => Err(Failure::Refused(Box::new(
                    (status, Json(reasons)).into_response(),
                ))),
                Ok(Handed::NotWritten(error)) => Err(not_written(&error)),
                Err(_) => Err(interrupted()),
            }
        }
        Ok(Admission::Later(reservation)) => {
            // What ComfyUI would refuse does not get into the line.
            let accepted = match catalogue {
                Some(catalogue) => catalogue
                    .check(&prompt, submission.targets())
                    .map_err(|refusal| in_comfyui_form(refusal.body()))?,
                None => Accepted::unchecked(),
            };
            let waiting = wait(Arc::clone(way.app), submission, accepted, *reservation);
            // What is written down must be in the line, also when the client is gone.
            let waiting = way.app.jobs.spawn(waiting);
            let (answer, ticket) = waiting.await.map_err(|_| interrupted())??;
            Ok(drop_when_written(answer, ticket, way.context.unflushed()))
        }
        Err(LimitFault::SameId) => {
            // The first of them is just being written down.
            for _ in 0..SAME_ID_LOOKS {
                sleep(SAME_ID_PAUSE).await;
                if let Same::Own(response) = same_job(way, id, &submission).await? {
                    return Ok(response);
                }
            }
            Err(same_id(id))
        }
        Err(fault) => Err(over_limit(fault)),
    }
}

/// Gives a job to its own task, which writes it down, posts it and stays with it until its end. Returns
/// its number and where the answer comes from.
fn hand_over(
    app: &Arc<App>,
    engine: &Arc<Engine>,
    job: Running,
    submission: &Submission,
) -> (f64, oneshot::Receiver<Handed>) {
    let created_at = job.details.created_at;
    let new = NewJob {
        row: JobRow {
            state: JobState::Running,
            attempts: 1,
            ..row(&job.entry, submission, created_at)
        },
        texts: submission.texts(created_at, &[]),
    };
    let body = submission.body(job.entry.id, &new.texts);
    let number = job.entry.number;
    let (answer, handed) = oneshot::channel();
    let run = run_new(Arc::clone(app), Arc::clone(engine), job, new, body, answer);
    drop(app.jobs.spawn(run));
    (number, handed)
}

/// The prompt is written down before it is in the line.
async fn wait(
    app: Arc<App>,
    submission: Submission,
    accepted: Accepted,
    reservation: Reservation,
) -> Result<(Response, AnswerTicket), Failure> {
    let entry = &reservation.entry;
    let created_at = reservation.details.created_at;
    let job = NewJob {
        row: row(entry, &submission, created_at),
        texts: submission.texts(created_at, &accepted.outputs),
    };
    let written = app.store.add_job(job).await;
    written.map_err(|error| not_written(&error))?;
    app.jobs.enqueue(&reservation);
    let answer = taken(entry.id, entry.number, &accepted.node_errors);
    Ok((answer, app.jobs.answer_ticket(entry.id)))
}

/// Whose job has an id already.
enum Same {
    Nobody,
    Foreign,
    /// The answer that the first prompt of this id got.
    Own(Response),
}

/// A client that lost its answer sends its prompt again: it gets the answer it would have got. Another
/// prompt under the same id is refused.
async fn same_job(way: &Way<'_>, id: JobId, submission: &Submission) -> Result<Same, Failure> {
    let known = way.app.store.job_of_id(id).await;
    let Some(known) = known.map_err(|error| not_written(&error))? else {
        return Ok(Same::Nobody);
    };
    if known.user != way.signed_in.account.id {
        return Ok(Same::Foreign);
    }
    let texts = submission.texts(0, &[]);
    if texts.prompt == known.prompt && texts.rest == known.rest {
        Ok(Same::Own(taken(id, known.number, &json!({}))))
    } else {
        Err(same_id(id))
    }
}

fn same_id(id: JobId) -> Failure {
    Failure::Refused(Box::new(
        (
            StatusCode::CONFLICT,
            Json(json!({
                "error": {
                    "type": "prompt_id_in_use",
                    "message": "Another job has this prompt_id. Send the prompt without one, or with a new one.",
                    "details": id.to_string(),
                    "extra_info": {},
                },
                "node_errors": {},
            })),
        )
            .into_response(),
    ))
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
        handed_at: None,
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
        LimitFault::Full | LimitFault::SameId => ("queue_full", "queue"),
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

/// A database that refuses takes no new job and loses none of the old.
fn not_written(error: &StoreError) -> Failure {
    tracing::error!(error = %chain(error), "a job could not be written down and was refused");
    let (status, code, message) = match error.cause() {
        StoreCause::Full => (
            StatusCode::INSUFFICIENT_STORAGE,
            "disk_full",
            "The disk of the server is full, so the job was not taken.",
        ),
        StoreCause::Busy => (
            StatusCode::SERVICE_UNAVAILABLE,
            "database_busy",
            "Another program holds Sentinel's database, so the job was not taken. Please try again.",
        ),
        StoreCause::Conflict => (
            StatusCode::CONFLICT,
            "prompt_id_in_use",
            "Another job has this prompt_id.",
        ),
        StoreCause::Damaged | StoreCause::Disk | StoreCause::Fault => (
            StatusCode::INSUFFICIENT_STORAGE,
            "not_written",
            "The server could not write the job down, so it was not taken.",
        ),
    };
    let mut error = ApiError::new(status, code, message);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        error = error.retry_after(5);
    }
    Failure::Refused(Box::new(error.into_response()))
}

/// Sentinel stops, or its own code broke.
fn interrupted() -> Failure {
    Failure::Refused(Box::new(
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "interrupted",
            "Sentinel stopped while it took this job. Look into the queue before you send it again.",
        )
        .into_response(),
    ))
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

/// The prompt, and what its engine has told of its nodes.
async fn check<'body>(
    way: &Way<'_>,
    engine: &Engine,
    bytes: &'body Bytes,
) -> Result<(Prompt<'body>, Option<Arc<Catalogue>>), Failure> {
    let parsed = if bytes.len() > LONG {
        let bytes = bytes.clone();
        tokio::task::spawn_blocking(move || Prompt::parse(&bytes).map(Prompt::into_owned))
            .await
            .map_err(|_| interrupted())?
    } else {
        Prompt::parse(bytes)
    };
    let prompt = parsed.map_err(|fault: PromptFault| in_comfyui_form(fault.body()))?;
    let catalogue = engine.catalogue_for(&prompt).await;
    let live = way.app.live.load();
    let policy = policy(&live, way.signed_in);
    let checked = match catalogue.as_deref() {
        Some(catalogue) => policy.check(&prompt, catalogue),
        None if policy.has_rules() => return Err(nothing_told()),
        None => Ok(()),
    };
    if let Err(nodes) = checked {
        way.app.audit(
            AuditEvent::Refused,
            Some(&way.signed_in.account.username),
            Some(way.context.caller.address),
            Some(&format!("nodes: {}", nodes.names())),
        );
        return Err(in_comfyui_form(nodes.body()));
    }
    drop(live);
    Ok((prompt, catalogue))
}

/// Which nodes it would put in the place of others is not known, so nothing can be judged.
fn nothing_told() -> Failure {
    Failure::Refused(Box::new(
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "nodes_not_told",
            "ComfyUI has not told its nodes yet. Try again in a few seconds.",
        )
        .with("node_errors", json!({}))
        .into_response(),
    ))
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
    use http::HeaderValue;

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
