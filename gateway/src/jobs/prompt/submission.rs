//! The parts of a `POST /prompt` that passed [`Prompt::parse`](super::Prompt::parse), taken apart
//! as they stand and put together again with what the gateway decides: the job's id, its socket,
//! and the place of the tokens that must not reach the disk.

use crate::jobs::order::JobId;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;

/// Members of `extra_data` that are credentials of ComfyUI's online services.
const SECRETS: [&str; 2] = ["auth_token_comfy_org", "api_key_comfy_org"];

type Members = BTreeMap<String, Box<RawValue>>;

/// Credentials of one prompt. They live in memory alone, and nothing prints them.
#[derive(Clone, Default)]
pub(crate) struct Secrets(Vec<(String, Box<RawValue>)>);

impl fmt::Debug for Secrets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Secrets({})", self.0.len())
    }
}

/// A prompt in its parts, each a JSON text as the client wrote it.
#[derive(Debug)]
pub(crate) struct Submission {
    prompt: Option<Box<RawValue>>,
    extra: Members,
    rest: Members,
    secrets: Secrets,
    /// The socket that shall hear of the job.
    pub(crate) client_id: Option<String>,
    /// The id that the client wants.
    pub(crate) wanted_id: Option<String>,
    /// Place among one's own jobs, as the client wants it.
    pub(crate) number: Option<f64>,
    /// Before all of one's own.
    pub(crate) is_front: bool,
    /// `extra_data.extra_pnginfo.workflow.id`.
    pub(crate) workflow_id: Option<String>,
}

impl Submission {
    /// Takes a checked body apart.
    ///
    /// # Errors
    /// When it was not checked before.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, serde_json::Error> {
        let mut rest: Members = serde_json::from_slice(body)?;
        let mut take = |name: &str| rest.remove(name);
        let prompt = take("prompt");
        let extra = take("extra_data");
        let text = |raw: Option<Box<RawValue>>| -> Option<String> {
            serde_json::from_str::<Option<String>>(raw?.get()).ok()?
        };
        let outer_client = take("client_id");
        let wanted_id = text(take("prompt_id"));
        let number = take("number").and_then(|raw| serde_json::from_str::<f64>(raw.get()).ok());
        let is_front = take("front")
            .and_then(|raw| serde_json::from_str::<Value>(raw.get()).ok())
            .is_some_and(|value| is_truthy(&value));
        let mut extra: Members = match &extra {
            Some(raw) => serde_json::from_str(raw.get())?,
            None => Members::new(),
        };
        let inner_client = extra.remove("client_id");
        // ComfyUI lets the outer one overwrite the inner one, also with null.
        let client_id = text(outer_client.or(inner_client));
        let secrets = SECRETS
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), extra.remove(name)?)))
            .collect();
        let workflow_id = extra.get("extra_pnginfo").and_then(|raw| workflow_id(raw));
        Ok(Self {
            prompt,
            extra,
            rest,
            secrets: Secrets(secrets),
            client_id,
            wanted_id,
            number,
            is_front,
            workflow_id,
        })
    }

    /// The graph; an empty one if there is none.
    pub(crate) fn prompt(&self) -> &str {
        self.prompt.as_ref().map_or("{}", |raw| raw.get())
    }

    /// `extra_data` as ComfyUI keeps it, without the credentials.
    pub(crate) fn extra(&self, created_at: i64) -> String {
        let mut extra = self.extra.clone();
        let mut set = |name: &str, value: Value| {
            if let Ok(raw) = to_raw_value(&value) {
                extra.insert(name.to_owned(), raw);
            }
        };
        if let Some(client) = &self.client_id {
            set("client_id", json!(client));
        }
        set("create_time", json!(created_at));
        serde_json::to_string(&extra).unwrap_or_else(|_| "{}".to_owned())
    }

    /// Members that the gateway does not know, as an object.
    pub(crate) fn rest(&self) -> String {
        serde_json::to_string(&self.rest).unwrap_or_else(|_| "{}".to_owned())
    }

    /// `partial_execution_targets`, if some are named.
    pub(crate) fn targets(&self) -> Option<Vec<String>> {
        let raw = self.rest.get("partial_execution_targets")?;
        let listed = serde_json::from_str::<Option<Vec<Value>>>(raw.get()).ok()??;
        let texts = listed.iter().filter_map(Value::as_str);
        Some(texts.map(str::to_owned).collect())
    }

    /// The credentials.
    pub(crate) fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Body for the engine. A prompt that is missing stays missing, so that ComfyUI says so.
    pub(crate) fn body(&self, id: JobId, created_at: i64) -> String {
        let prompt = self.prompt.as_ref().map(|raw| raw.get());
        body(
            id,
            self.client_id.as_deref(),
            prompt,
            &self.extra(created_at),
            &self.rest(),
            &self.secrets,
        )
    }
}

/// Body of `POST /prompt` for the engine from JSON texts. Neither `number` nor `front` goes along:
/// the engine has one job at a time, and odd numbers break its order (comfyui-api.md D2, D6).
pub(crate) fn body(
    id: JobId,
    client_id: Option<&str>,
    prompt: Option<&str>,
    extra: &str,
    rest: &str,
    secrets: &Secrets,
) -> String {
    let mut body = format!("{{\"prompt_id\":\"{id}\"");
    let mut member = |name: &str, text: &str| {
        body.push_str(",\"");
        body.push_str(name);
        body.push_str("\":");
        body.push_str(text);
    };
    if let Some(client) = client_id {
        member("client_id", &Value::from(client).to_string());
    }
    let mut extra = extra.to_owned();
    for (name, value) in &secrets.0 {
        // The texts are objects with at least one member: the time.
        if let Some(open) = extra.strip_suffix('}') {
            let comma = if open.ends_with('{') { "" } else { "," };
            extra = format!("{open}{comma}\"{name}\":{}}}", value.get());
        }
    }
    member("extra_data", &extra);
    if let Some(prompt) = prompt {
        member("prompt", prompt);
    }
    if let Some(members) = rest
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'))
        && !members.is_empty()
    {
        body.push(',');
        body.push_str(members);
    }
    body.push('}');
    body
}

/// A number as ComfyUI writes it: whole ones without a point.
pub(crate) fn number_text(number: f64) -> String {
    if number.fract() == 0.0 && number.abs() < 9e15 {
        format!("{number:.0}")
    } else {
        Value::from(number).to_string()
    }
}

/// As Python takes a value where it needs yes or no.
pub(crate) fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
    }
}

fn workflow_id(information: &RawValue) -> Option<String> {
    let information: Members = serde_json::from_str(information.get()).ok()?;
    let workflow: Members = serde_json::from_str(information.get("workflow")?.get()).ok()?;
    serde_json::from_str::<Option<String>>(workflow.get("id")?.get()).ok()?
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0b4c1f9e-8f1b-4c53-9c61-5b3d8e2f7a10";

    fn whole(sent: &Value) -> Value {
        let submission = Submission::parse(sent.to_string().as_bytes()).unwrap();
        let body = submission.body(JobId::parse(ID).unwrap(), 5);
        serde_json::from_str(&body).unwrap()
    }

    #[test]
    fn the_engine_gets_what_the_client_sent_but_for_what_the_gateway_decides() {
        let sent = json!({
            "prompt": {"1": {"class_type": "A", "inputs": {"seed": 18_446_744_073_709_551_615_u64, "x": 1.50}}},
            "client_id": "c\"1", "prompt_id": "mine", "number": -1e300, "front": true,
            "extra_data": {"extra_pnginfo": {"workflow": {"id": "w"}}, "client_id": "other",
                "api_key_comfy_org": "s3cret", "preview_method": "auto"},
            "partial_execution_targets": ["1"], "more": {"a": [1]},
        });
        assert_eq!(
            whole(&sent),
            json!({
                "prompt_id": ID, "client_id": "c\"1", "prompt": sent["prompt"],
                "extra_data": {"extra_pnginfo": {"workflow": {"id": "w"}}, "client_id": "c\"1",
                    "api_key_comfy_org": "s3cret", "preview_method": "auto", "create_time": 5},
                "partial_execution_targets": ["1"], "more": {"a": [1]},
            })
        );
        let submission = Submission::parse(sent.to_string().as_bytes()).unwrap();
        assert!(submission.is_front);
        assert_eq!(submission.number, Some(-1e300));
        assert_eq!(submission.workflow_id.as_deref(), Some("w"));
        assert_eq!(submission.targets(), Some(vec!["1".to_owned()]));
    }

    #[test]
    fn tokens_are_neither_kept_nor_printed() {
        let sent = r#"{"prompt":{},"extra_data":{"auth_token_comfy_org":"s3cret","api_key_comfy_org":"s3cret"}}"#;
        let submission = Submission::parse(sent.as_bytes()).unwrap();
        assert!(!submission.extra(1).contains("s3cret"));
        assert!(!submission.rest().contains("s3cret"));
        assert!(!format!("{:?}", submission.secrets()).contains("s3cret"));
        assert!(
            submission
                .body(JobId::parse(ID).unwrap(), 1)
                .contains("s3cret")
        );
    }

    #[test]
    fn what_is_missing_stays_missing() {
        let body = whole(&json!({}));
        assert!(body.get("prompt").is_none());
        assert!(body.get("client_id").is_none());
        let null = whole(&json!({"client_id": null, "extra_data": {"client_id": "x"}}));
        assert!(
            null.get("client_id").is_none(),
            "null overwrites, as in ComfyUI"
        );
    }

    #[test]
    fn numbers_look_as_comfyui_writes_them() {
        for (number, text) in [(7.0, "7"), (-15.0, "-15"), (0.5, "0.5"), (1e300, "1e+300")] {
            assert_eq!(number_text(number), text);
        }
    }
}
