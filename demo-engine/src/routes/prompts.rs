//! Prompts, the queue and the history.

use super::{Asked, jobs, replacements};
use crate::answer;
use crate::body;
use crate::graph::validation::{self, Verdict};
use crate::json::{Json, json};
use crate::queue::{Finished, Item};
use crate::state::{Engine, leave, now, queue_info};
use axum::body::Body;
use axum::response::Response;
use http::{Method, StatusCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Prompt,
    Queue,
    History,
    HistoryOf,
    Interrupt,
    Free,
}

/// Goes on counting even when a prompt is refused.
static NUMBER: AtomicI64 = AtomicI64::new(0);

pub(super) async fn answer(
    engine: &Arc<Engine>,
    route: Route,
    asked: &Asked,
    body: Body,
) -> Response {
    if asked.method != Method::POST {
        return match route {
            Route::Prompt => answer::json(&queue_info(engine.queue.remaining()).into()),
            Route::Queue => queue(engine),
            Route::History => history(engine, asked),
            Route::HistoryOf => history_of(engine, asked.place(0)),
            Route::Interrupt | Route::Free => answer::no_such_file(),
        };
    }
    let read = body::json(&asked.headers, body, engine.options.max_upload).await;
    let sent = match (route, read) {
        (_, Ok(sent)) => sent,
        // Whatever cannot be read interrupts everybody.
        (Route::Interrupt, Err(_)) => json!({}),
        (_, Err(refusal)) => return *refusal,
    };
    match route {
        Route::Prompt => {
            if engine.options.faults.crash_on_prompt {
                leave(engine.options.faults.exit_code);
            }
            // Deep graphs are walked recursively, as the original does.
            let engine = Arc::clone(engine);
            let source = asked
                .headers
                .get("comfy-usage-source")
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned);
            tokio::task::spawn_blocking(move || post(&engine, &sent, source.as_deref()))
                .await
                .unwrap_or_else(|_| answer::broken())
        }
        Route::Queue => change_queue(engine, &sent),
        Route::History | Route::HistoryOf => change_history(engine, &sent),
        Route::Interrupt => interrupt(engine, &sent),
        Route::Free => {
            if sent.as_object().is_none() {
                return answer::broken();
            }
            let wants = |what| sent.get(what).is_some_and(Json::truthy);
            if wants("unload_models") || wants("free_memory") {
                engine.queue.free(wants("free_memory"));
            }
            answer::empty(StatusCode::OK)
        }
    }
}

fn post(engine: &Engine, sent: &Json, source: Option<&str>) -> Response {
    engine.say("got prompt");
    let fields = match sent {
        Json::Object(_) => true,
        Json::List(items) if items.iter().all(|item| item.as_str() != Some("number")) => false,
        _ => return answer::broken(),
    };
    let number = if let Some(given) = sent.get("number") {
        let number = match given {
            Json::Text(text) => python_float(text),
            other => other.as_f64(),
        };
        match number {
            Some(number) => Json::Float(number),
            None => return answer::broken(),
        }
    } else {
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let front = sent.get("front").is_some_and(Json::truthy);
        Json::from(if front { -number } else { number })
    };
    let in_list = sent
        .as_list()
        .is_some_and(|items| items.iter().any(|item| item.as_str() == Some("prompt")));
    if in_list {
        return answer::broken();
    }
    let Some(prompt) = sent.get("prompt").filter(|_| fields) else {
        let error = json!({
            "error": { "type": "no_prompt", "message": "No prompt provided", "details": "No prompt provided", "extra_info": {} },
            "node_errors": {},
        });
        return answer::json_with(StatusCode::BAD_REQUEST, &error);
    };
    let id = match sent.get("prompt_id") {
        None | Some(Json::Null) => uuid::Uuid::new_v4().to_string(),
        Some(Json::Text(id)) if jobs::is_canonical(id) => id.clone(),
        Some(_) => {
            let error = json!({
                "error": {
                    "type": "invalid_prompt_id",
                    "message": "prompt_id must be a valid UUID",
                    "details": "prompt_id must be a UUID string in canonical lowercase hyphenated form; omit it to let the server generate one",
                    "extra_info": {},
                },
                "node_errors": {},
            });
            return answer::json_with(StatusCode::BAD_REQUEST, &error);
        }
    };
    let mut prompt = prompt.clone();
    if replacements::apply(engine, &mut prompt).is_err() {
        return answer::broken();
    }
    match validation::validate(
        engine,
        &mut prompt,
        sent.get("partial_execution_targets")
            .filter(|only| !only.is_null()),
    ) {
        Verdict::Raised => answer::broken(),
        Verdict::Refused { error, node_errors } => {
            engine.warn(&format!("invalid prompt: {}", error.python_text()));
            let mut refusal = json!({});
            refusal.set("error", error);
            refusal.set("node_errors", node_errors);
            answer::json_with(StatusCode::BAD_REQUEST, &refusal)
        }
        Verdict::Taken {
            outputs,
            node_errors,
        } => {
            let mut extra = sent.get("extra_data").cloned().unwrap_or_else(|| json!({}));
            if extra.as_object().is_none() {
                return answer::broken();
            }
            if let Some(client) = sent.get("client_id") {
                extra.set("client_id", client.clone());
            }
            if let (Some(source), None) = (source, extra.get("comfy_usage_source")) {
                extra.set("comfy_usage_source", source);
            }
            for secret in ["auth_token_comfy_org", "api_key_comfy_org"] {
                extra.remove(secret);
            }
            extra.set("create_time", now());
            let item = Item {
                number: number.clone(),
                id: id.clone(),
                prompt,
                extra,
                outputs,
            };
            if engine
                .queue
                .put(item, |remaining| engine.announce_queue(remaining))
                .is_err()
            {
                return answer::broken();
            }
            let mut taken = json!({ "prompt_id": id });
            taken.set("number", number);
            taken.set("node_errors", node_errors);
            answer::json(&taken)
        }
    }
}

fn python_float(text: &str) -> Option<f64> {
    text.trim().replace('_', "").parse().ok()
}

fn queue(engine: &Engine) -> Response {
    let (running, pending) = engine.queue.current();
    let mut shown = json!({});
    shown.set(
        "queue_running",
        running.iter().map(|item| item.tuple()).collect::<Vec<_>>(),
    );
    shown.set(
        "queue_pending",
        pending.iter().map(|item| item.tuple()).collect::<Vec<_>>(),
    );
    answer::json(&shown)
}

fn change_queue(engine: &Engine, sent: &Json) -> Response {
    if sent.as_object().is_none() {
        return answer::broken();
    }
    if sent.get("clear").is_some_and(Json::truthy) {
        engine
            .queue
            .clear(|remaining| engine.announce_queue(remaining));
    }
    for id in sent
        .get("delete")
        .and_then(Json::as_list)
        .unwrap_or_default()
    {
        let _ = engine.queue.delete(&id.python_text(), |remaining| {
            engine.announce_queue(remaining)
        });
    }
    answer::empty(StatusCode::OK)
}

/// A finished prompt as the history shows it.
pub(super) fn entry(finished: &Finished) -> Json {
    let mut entry = json!({});
    entry.set("prompt", finished.item.tuple());
    entry.set("outputs", finished.outputs.clone());
    entry.set("status", finished.status.clone());
    entry.set("meta", finished.meta.clone());
    entry
}

fn history(engine: &Engine, asked: &Asked) -> Response {
    let number = |name: &str| {
        asked
            .query(name)
            .map(|text| text.trim().parse::<i64>())
            .transpose()
    };
    let (Ok(most), Ok(offset)) = (number("max_items"), number("offset")) else {
        return answer::broken();
    };
    let all = engine.queue.history();
    let length = i64::try_from(all.len()).unwrap_or(i64::MAX);
    let start = match (offset.unwrap_or(-1), most) {
        (offset, Some(most)) if offset < 0 => length - most,
        (offset, _) => offset,
    };
    let start = usize::try_from(start).unwrap_or(0);
    let most = most.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(0));
    let entries = all
        .iter()
        .skip(start)
        .take(most)
        .map(|(id, finished)| (id.clone(), entry(finished)));
    answer::json(&Json::Object(entries.collect()))
}

fn history_of(engine: &Engine, id: &str) -> Response {
    let mut shown = json!({});
    if let Some(finished) = engine.queue.finished(id) {
        shown.set(id, entry(&finished));
    }
    answer::json(&shown)
}

fn change_history(engine: &Engine, sent: &Json) -> Response {
    if sent.as_object().is_none() {
        return answer::broken();
    }
    if sent.get("clear").is_some_and(Json::truthy) {
        engine.queue.clear_history();
    }
    for id in sent
        .get("delete")
        .and_then(Json::as_list)
        .unwrap_or_default()
    {
        engine.queue.forget(&id.python_text());
    }
    answer::empty(StatusCode::OK)
}

/// Interrupts the named prompt if it runs, and whatever runs when none is named.
fn interrupt(engine: &Engine, sent: &Json) -> Response {
    if sent.as_object().is_none() {
        return answer::broken();
    }
    match sent.get("prompt_id").filter(|id| id.truthy()) {
        Some(id) if !engine.queue.is_running(&id.python_text()) => {}
        target => {
            match target {
                Some(id) => engine.say(&format!("Interrupting prompt {}", id.python_text())),
                None => engine.say("Global interrupt (no prompt_id specified)"),
            }
            engine.interrupt.store(true, Ordering::SeqCst);
        }
    }
    answer::empty(StatusCode::OK)
}
