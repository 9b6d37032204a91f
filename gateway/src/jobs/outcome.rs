//! How a job ended, from an engine's history entry or from our own word: pure functions from JSON
//! to what is kept.

use super::outputs;
use super::python_json::to_strict_json;
use crate::clock::Minutes;
use crate::store::{JobOutcome, JobState};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Entry {
    prompt: Vec<Box<RawValue>>,
    #[serde(default)]
    outputs: Option<Box<RawValue>>,
    #[serde(default)]
    status: Option<Box<RawValue>>,
    #[serde(default)]
    meta: Option<Box<RawValue>>,
}

/// Reads the answer of `GET /history/{id}`; `None` while the job is not in it.
pub(super) fn from_history(answer: &[u8], id: &str) -> Option<JobOutcome> {
    let text = String::from_utf8_lossy(answer);
    let parse = |text: &str| serde_json::from_str::<BTreeMap<String, Entry>>(text);
    let mut entries = match parse(&text) {
        Ok(entries) => entries,
        // Custom nodes put NaN and Infinity into their outputs (comfyui-api.md D5).
        Err(_) => match parse(&to_strict_json(answer)) {
            Ok(entries) => entries,
            Err(_) if text.contains(&format!("\"{id}\"")) => return Some(unreadable()),
            Err(_) => return None,
        },
    };
    let entry = entries.remove(id)?;
    let text = |raw: &Option<Box<RawValue>>| raw.as_ref().map_or("{}", |raw| raw.get()).to_owned();
    let (outputs, status, meta) = (text(&entry.outputs), text(&entry.status), text(&entry.meta));
    // Nesting beyond serde_json's limit, lone surrogates: kept nowhere, so that no list breaks.
    let (Ok(outputs_read), Ok(status_read)) = (
        serde_json::from_str::<Value>(&outputs),
        serde_json::from_str::<Value>(&status),
    ) else {
        return Some(unreadable());
    };
    let execute = entry
        .prompt
        .get(4)
        .map(|raw| raw.get().to_owned())
        .filter(|text| serde_json::from_str::<Vec<String>>(text).is_ok());
    let is_object =
        |text: &str| serde_json::from_str(text).is_ok_and(|meta: Value| meta.is_object());
    let record = Record {
        execute,
        outputs,
        status,
        meta: if is_object(&meta) {
            meta
        } else {
            "{}".to_owned()
        },
    };
    Some(judge(record, &outputs_read, &status_read))
}

/// A history entry's parts as JSON texts, which can be read.
struct Record {
    execute: Option<String>,
    outputs: String,
    status: String,
    meta: String,
}

fn judge(record: Record, outputs_read: &Value, status_read: &Value) -> JobOutcome {
    let messages = status_read["messages"]
        .as_array()
        .map_or(&[][..], |list| list);
    let message = |wanted: &str| {
        messages
            .iter()
            .find(|message| message[0].as_str() == Some(wanted))
            .map(|message| &message[1])
    };
    let is_success = status_read["status_str"].as_str() == Some("success");
    let interrupted = message("execution_interrupted");
    let error = message("execution_error");
    let state = match (is_success, interrupted) {
        (true, _) => JobState::Completed,
        (false, Some(_)) => JobState::Cancelled,
        (false, None) => JobState::Failed,
    };
    let time = |data: Option<&Value>| data.and_then(|data| data["timestamp"].as_i64());
    let started_at = time(message("execution_start"));
    let ended_at = time(message("execution_success").or(error).or(interrupted));
    let reason = error
        .and_then(|error| error["exception_message"].as_str())
        .map(|text| text.trim().chars().take(500).collect());
    JobOutcome {
        state,
        started_at,
        ended_at,
        reason,
        summary: summary(outputs_read, started_at, ended_at, error),
        execute: record.execute,
        outputs: record.outputs,
        status: record.status,
        meta: record.meta,
    }
}

/// The record of a job whose own record cannot be read.
pub(super) fn unreadable() -> JobOutcome {
    JobOutcome {
        state: JobState::Completed,
        started_at: None,
        ended_at: None,
        reason: Some("ComfyUI's record of this job cannot be read.".to_owned()),
        summary: json!({ "outputs_count": 0, "previewable_outputs_count": 0 }).to_string(),
        execute: None,
        outputs: "{}".to_owned(),
        status: json!({ "status_str": "success", "completed": true, "messages": [] }).to_string(),
        meta: "{}".to_owned(),
    }
}

/// The event and the record of a job that did not reach its end in an engine, in the form of
/// ComfyUI's `execution_error`.
pub(super) fn error_data(id: &str, refusal: &Value, now_ms: i64) -> Value {
    let error = &refusal["error"];
    let text = |value: &Value| value.as_str().unwrap_or_default().trim().to_owned();
    let mut message = text(&error["message"]);
    let details = text(&error["details"]);
    if !details.is_empty() {
        message.push('\n');
        message.push_str(&details);
    }
    let nodes = refusal["node_errors"].as_object();
    let first = nodes.and_then(|nodes| nodes.iter().next());
    for (node, faults) in nodes.into_iter().flatten() {
        for fault in faults["errors"].as_array().into_iter().flatten() {
            message.push_str(&format!(
                "\n{} {node}: {} {}",
                text(&faults["class_type"]),
                text(&fault["message"]),
                text(&fault["details"])
            ));
        }
    }
    json!({
        "prompt_id": id,
        "node_id": first.map_or("", |(node, _)| node.as_str()),
        "node_type": first.map_or(String::new(), |(_, faults)| text(&faults["class_type"])),
        "executed": [],
        "exception_message": message,
        "exception_type": error["type"].as_str().unwrap_or("error"),
        "traceback": [],
        "current_inputs": {},
        "current_outputs": [],
        "timestamp": now_ms,
    })
}

/// Why a job that was tried often enough is not tried again, as such an event.
pub(super) fn given_up(id: &str, now_ms: i64) -> Value {
    let message = "ComfyUI ended twice while it ran this job, so it is not tried again.";
    own_error(id, "engine_ended", message, now_ms)
}

/// Why a job that took too long was ended, as such an event.
pub(super) fn too_long(id: &str, limit: Option<Minutes>, now_ms: i64) -> Value {
    let most = limit.map_or_else(String::new, |limit| format!(" ({} min)", limit.count()));
    let message = format!("This job was ended: it took longer than one job of yours may{most}.");
    own_error(id, "took_too_long", &message, now_ms)
}

fn own_error(id: &str, kind: &str, message: &str, now_ms: i64) -> Value {
    let refusal = json!({ "error": { "type": kind, "message": message, "details": "" } });
    error_data(id, &refusal, now_ms)
}

/// The record of a job that was cancelled and whose engine is gone.
pub(super) fn cancelled(id: &str, now_ms: i64) -> JobOutcome {
    let interrupted = json!({
        "prompt_id": id, "node_id": "", "node_type": "", "executed": [], "timestamp": now_ms,
    });
    without_outputs(&json!([["execution_interrupted", interrupted]]))
}

/// The record of a job that ended with such an error.
pub(super) fn failed(id: &str, error: &Value, now_ms: i64) -> JobOutcome {
    let messages = json!([
        ["execution_start", { "prompt_id": id, "timestamp": now_ms }],
        ["execution_error", error],
    ]);
    without_outputs(&messages)
}

fn without_outputs(messages: &Value) -> JobOutcome {
    let status = json!({ "status_str": "error", "completed": false, "messages": messages });
    let record = Record {
        execute: None,
        outputs: "{}".to_owned(),
        status: status.to_string(),
        meta: "{}".to_owned(),
    };
    judge(record, &json!({}), &status)
}

/// The events that a record tells, as ComfyUI sends them.
pub(super) fn events(outcome: &JobOutcome) -> Vec<Value> {
    let status: Value = serde_json::from_str(&outcome.status).unwrap_or_default();
    let messages = status["messages"].as_array().cloned().unwrap_or_default();
    messages
        .into_iter()
        .map(|mut message| json!({ "type": message[0].take(), "data": message[1].take() }))
        .collect()
}

/// The record of a job that was interrupted for a reason that its owner shall know.
pub(super) fn not_interrupted_but(outcome: JobOutcome, error: &Value) -> JobOutcome {
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    let (outputs, mut status) = (parse(&outcome.outputs), parse(&outcome.status));
    if let Some(messages) = status["messages"].as_array_mut() {
        messages.retain(|message| message[0].as_str() != Some("execution_interrupted"));
        messages.push(json!(["execution_error", error]));
    }
    let record = Record {
        execute: outcome.execute,
        outputs: outcome.outputs,
        status: status.to_string(),
        meta: outcome.meta,
    };
    judge(record, &outputs, &status)
}

/// Members that ComfyUI's job list has of finished jobs.
fn summary(
    outputs: &Value,
    started_at: Option<i64>,
    ended_at: Option<i64>,
    error: Option<&Value>,
) -> String {
    let mut summary = Map::new();
    if let Some(time) = started_at {
        summary.insert("execution_start_time".to_owned(), json!(time));
    }
    if let Some(time) = ended_at {
        summary.insert("execution_end_time".to_owned(), json!(time));
    }
    if let Some(error) = error {
        summary.insert("execution_error".to_owned(), error.clone());
    }
    let shown = outputs::Shown::of(outputs);
    summary.insert("outputs_count".to_owned(), json!(shown.count));
    summary.insert(
        "previewable_outputs_count".to_owned(),
        json!(shown.previewable),
    );
    if let Some(preview) = shown.preview {
        summary.insert("preview_output".to_owned(), preview);
    }
    Value::Object(summary).to_string()
}

/// Files named by a history's outputs: type, subfolder and name.
pub(super) fn files(outputs: &str) -> Vec<(String, String, String)> {
    let outputs: Value = serde_json::from_str(outputs).unwrap_or_default();
    let mut files = Vec::new();
    for (_, shown) in outputs.as_object().into_iter().flatten() {
        for (_, items) in shown.as_object().into_iter().flatten() {
            for item in items.as_array().into_iter().flatten() {
                let text = |name: &str| item[name].as_str().map(str::to_owned);
                if let (Some(name), Some(kind)) = (text("filename"), text("type")) {
                    files.push((kind, text("subfolder").unwrap_or_default(), name));
                }
            }
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_entry_is_read() {
        let answer = json!({"a": {
            "prompt": [3, "a", {}, {}, ["2"]],
            "outputs": {"2": {"images": [
                {"filename": "t.png", "subfolder": "", "type": "temp"},
                {"filename": "x.png", "subfolder": "s", "type": "output"}], "animated": [false]}},
            "status": {"status_str": "success", "completed": true, "messages": [
                ["execution_start", {"timestamp": 10}], ["execution_success", {"timestamp": 25}]]},
            "meta": {"2": {"node_id": "2"}},
        }})
        .to_string();
        let outcome = from_history(answer.as_bytes(), "a").unwrap();
        assert_eq!(outcome.state, JobState::Completed);
        assert_eq!((outcome.started_at, outcome.ended_at), (Some(10), Some(25)));
        assert_eq!(outcome.execute.as_deref(), Some("[\"2\"]"));
        let summary: Value = serde_json::from_str(&outcome.summary).unwrap();
        assert_eq!(summary["outputs_count"], 2);
        assert_eq!(summary["preview_output"]["filename"], "x.png");
        assert_eq!(summary["preview_output"]["nodeId"], "2");
        assert_eq!(files(&outcome.outputs).len(), 2);
        assert_eq!(from_history(b"{}", "a"), None);
        assert_eq!(from_history(answer.as_bytes(), "b"), None);
    }

    #[test]
    fn d5_poisoned_entries_do_not_reach_a_list() {
        let odd = r#"{"a":{"prompt":[1,"a",{},{},["1"]],"outputs":{"1":{"text":["NaN \" Infinity"],"x":[NaN,-Infinity,-1]}},"status":{"status_str":"success","completed":true,"messages":[]},"meta":{}}}"#;
        let outcome = from_history(odd.as_bytes(), "a").unwrap();
        let outputs: Value = serde_json::from_str(&outcome.outputs).unwrap();
        assert_eq!(outputs["1"]["x"], json!([null, null, -1]));
        assert_eq!(outputs["1"]["text"][0], "NaN \" Infinity");
        let deep = format!(
            r#"{{"a":{{"prompt":[1,"a",{{}},{{}},["1"]],"outputs":{{"1":{}0{}}},"status":{{}}}}}}"#,
            "[".repeat(500),
            "]".repeat(500)
        );
        let outcome = from_history(deep.as_bytes(), "a").unwrap();
        assert_eq!(outcome.outputs, "{}");
        let surrogate = r#"{"a":{"prompt":[1,"a",{},{},["1"]],"outputs":{"1":{"text":["\ud800"]}},"status":{}}}"#;
        assert_eq!(
            from_history(surrogate.as_bytes(), "a").unwrap().outputs,
            "{}"
        );
    }

    #[test]
    fn interruptions_and_failures() {
        let entry = |messages: Value| {
            json!({"a": {"prompt": [], "outputs": {}, "status": {"status_str": "error", "completed": false, "messages": messages}}})
                .to_string()
        };
        let cancelled = entry(json!([["execution_interrupted", {"timestamp": 5}]]));
        assert_eq!(
            from_history(cancelled.as_bytes(), "a").unwrap().state,
            JobState::Cancelled
        );
        let broken = entry(
            json!([["execution_error", {"exception_message": " no memory\n", "timestamp": 5}]]),
        );
        let broken = from_history(broken.as_bytes(), "a").unwrap();
        assert_eq!(broken.state, JobState::Failed);
        assert_eq!(broken.reason.as_deref(), Some("no memory"));
    }

    #[test]
    fn a_refusal_becomes_an_execution_error() {
        let refusal = json!({"error": {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation", "details": ""},
            "node_errors": {"7": {"class_type": "LoadImage", "errors": [{"message": "Invalid image file", "details": "x.png"}]}}});
        let error = error_data("a", &refusal, 9);
        assert_eq!(error["node_id"], "7");
        assert_eq!(error["node_type"], "LoadImage");
        assert!(
            error["exception_message"]
                .as_str()
                .unwrap()
                .contains("x.png")
        );
        assert_eq!(cancelled("a", 9).state, JobState::Cancelled);
        let outcome = failed("a", &error, 9);
        assert_eq!(outcome.state, JobState::Failed);
        assert_eq!((outcome.started_at, outcome.ended_at), (Some(9), Some(9)));
    }
}
