//! The parts of a `POST /prompt` that passed [`Prompt::parse`](super::Prompt::parse), taken apart
//! as they stand and put together again with what the gateway decides: the job's id, its socket,
//! and the place of the tokens that must not reach the disk.

use super::Prompt;
use super::members::{Members, push_member};
use crate::jobs::order::JobId;
use crate::store::JobTexts;
use bytes::Bytes;
use serde::de::Error as _;
use serde_json::Value;
use serde_json::value::RawValue;
use std::fmt;

/// Members of `extra_data` that are credentials of ComfyUI's online services.
const SECRETS: [&str; 2] = ["auth_token_comfy_org", "api_key_comfy_org"];

/// Room for what the gateway adds to a text, bytes.
const ROOM: usize = 512;

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
    prompt: Option<Bytes>,
    /// Members of `extra_data` but for the credentials and what the gateway sets.
    extra: String,
    /// Members that the gateway does not know.
    rest: String,
    secrets: Secrets,
    targets: Option<Vec<String>>,
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
    /// Takes a body apart that was read as `checked`.
    ///
    /// # Errors
    /// When it was not checked before.
    pub(crate) fn new(body: &Bytes, checked: &Prompt<'_>) -> Result<Self, serde_json::Error> {
        let text = std::str::from_utf8(body).map_err(serde_json::Error::custom)?;
        let mut rest: Members<'_> = serde_json::from_str(text)?;
        let prompt = rest.take("prompt");
        let extra = rest.take("extra_data");
        let outer_client = rest.take("client_id");
        let wanted_id = rest.take("prompt_id").and_then(read_text);
        let number = rest.take("number");
        let front = rest.take("front");
        let mut extra: Members<'_> = match extra {
            Some(raw) => serde_json::from_str(raw.get())?,
            None => Members::default(),
        };
        let inner_client = extra.take("client_id");
        extra.take("create_time");
        let secrets = SECRETS
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), extra.take(name)?.to_owned())))
            .collect();
        Ok(Self {
            prompt: prompt.map(|raw| body.slice_ref(raw.get().as_bytes())),
            targets: rest.get("partial_execution_targets").and_then(read_targets),
            extra: extra.text(),
            rest: rest.text(),
            secrets: Secrets(secrets),
            // ComfyUI lets the outer one overwrite the inner one, also with null.
            client_id: outer_client.or(inner_client).and_then(read_text),
            wanted_id,
            number: number.and_then(|raw| serde_json::from_str(raw.get()).ok()),
            is_front: front
                .and_then(|raw| serde_json::from_str::<Value>(raw.get()).ok())
                .is_some_and(|value| is_truthy(&value)),
            workflow_id: checked.workflow_id.as_deref().map(str::to_owned),
        })
    }

    /// The graph, if there is one.
    fn graph(&self) -> Option<&str> {
        std::str::from_utf8(self.prompt.as_ref()?).ok()
    }

    /// The texts that are written down; `created_at` is in milliseconds since 1970, `execute` names
    /// the output nodes.
    pub(crate) fn texts(&self, created_at: i64, execute: &[String]) -> JobTexts {
        JobTexts {
            prompt: self.graph().unwrap_or("{}").to_owned(),
            extra: self.extra_data(created_at),
            rest: format!("{{{}}}", self.rest),
            execute: Value::from(execute.to_vec()).to_string(),
        }
    }

    /// `extra_data` as ComfyUI keeps it, without the credentials.
    fn extra_data(&self, created_at: i64) -> String {
        let mut text = String::with_capacity(self.extra.len() + ROOM);
        text.push('{');
        text.push_str(&self.extra);
        if let Some(client) = &self.client_id {
            push_member(&mut text, "client_id", &Value::from(&**client).to_string());
        }
        push_member(&mut text, "create_time", &created_at.to_string());
        text.push('}');
        text
    }

    /// `partial_execution_targets`, if some are named.
    pub(crate) fn targets(&self) -> Option<&[String]> {
        self.targets.as_deref()
    }

    /// The credentials.
    pub(crate) fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Body for the engine, of the texts as they are written down. A prompt that is missing stays
    /// missing, so that ComfyUI says so.
    pub(crate) fn body(&self, id: JobId, texts: &JobTexts) -> String {
        body(
            id,
            self.client_id.as_deref(),
            self.graph(),
            &texts.extra,
            &texts.rest,
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
    let length = prompt.map_or(0, str::len) + extra.len() + rest.len();
    let mut body = String::with_capacity(length + ROOM);
    body.push('{');
    push_member(
        &mut body,
        "prompt_id",
        &Value::from(id.to_string()).to_string(),
    );
    if let Some(client) = client_id {
        push_member(&mut body, "client_id", &Value::from(client).to_string());
    }
    push_member(&mut body, "extra_data", extra);
    // The text is an object.
    body.pop();
    for (name, value) in &secrets.0 {
        push_member(&mut body, name, value.get());
    }
    body.push('}');
    if let Some(prompt) = prompt {
        push_member(&mut body, "prompt", prompt);
    }
    let members = rest
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'));
    if let Some(members) = members
        && !members.is_empty()
    {
        body.push(',');
        body.push_str(members);
    }
    body.push('}');
    body
}

fn read_text(raw: &RawValue) -> Option<String> {
    serde_json::from_str::<Option<String>>(raw.get()).ok()?
}

fn read_targets(raw: &RawValue) -> Option<Vec<String>> {
    let listed = serde_json::from_str::<Option<Vec<Value>>>(raw.get()).ok()??;
    let texts = listed.iter().filter_map(Value::as_str);
    Some(texts.map(str::to_owned).collect())
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const ID: &str = "0b4c1f9e-8f1b-4c53-9c61-5b3d8e2f7a10";

    fn submission(sent: &Value) -> Submission {
        let body = Bytes::from(sent.to_string());
        Submission::new(&body, &Prompt::parse(&body).unwrap()).unwrap()
    }

    fn body_of(sent: &Value) -> String {
        let submission = submission(sent);
        submission.body(JobId::parse(ID).unwrap(), &submission.texts(5, &[]))
    }

    fn whole(sent: &Value) -> Value {
        serde_json::from_str(&body_of(sent)).unwrap()
    }

    #[test]
    fn the_engine_gets_what_the_client_sent_but_for_what_the_gateway_decides() {
        let sent = json!({
            "prompt": {"1": {"class_type": "A", "inputs": {"seed": 18_446_744_073_709_551_615_u64, "x": 1.50}}},
            "client_id": "c\"1", "prompt_id": "mine", "number": -1e300, "front": true,
            "extra_data": {"extra_pnginfo": {"workflow": {"id": "w"}}, "client_id": "other",
                "api_key_comfy_org": "s3cret", "preview_method": "auto", "create_time": 1},
            "partial_execution_targets": ["1"], "more \"\n": {"a": [1]},
        });
        assert_eq!(
            whole(&sent),
            json!({
                "prompt_id": ID, "client_id": "c\"1", "prompt": sent["prompt"],
                "extra_data": {"extra_pnginfo": {"workflow": {"id": "w"}}, "client_id": "c\"1",
                    "api_key_comfy_org": "s3cret", "preview_method": "auto", "create_time": 5},
                "partial_execution_targets": ["1"], "more \"\n": {"a": [1]},
            })
        );
        let submission = submission(&sent);
        assert!(submission.is_front);
        assert_eq!(submission.number, Some(-1e300));
        assert_eq!(submission.workflow_id.as_deref(), Some("w"));
        assert_eq!(submission.targets(), Some(&["1".to_owned()][..]));
    }

    #[test]
    fn tokens_are_neither_kept_nor_printed() {
        let sent = json!({"prompt": {}, "extra_data":
            {"auth_token_comfy_org": "s3cret", "api_key_comfy_org": "s3cret"}});
        let submission = submission(&sent);
        let texts = submission.texts(1, &[]);
        assert!(!format!("{texts:?}").contains("s3cret"));
        assert!(!format!("{:?}", submission.secrets()).contains("s3cret"));
        let body = submission.body(JobId::parse(ID).unwrap(), &texts);
        assert_eq!(body.matches("s3cret").count(), 2);
    }

    #[test]
    fn names_are_what_they_mean_however_they_are_written() {
        let body = Bytes::from_static(
            br#"{"extra\u005fdata":{"api\u005fkey_comfy_org":"s3cret","\u00e4":1},"pr\u006fmpt":{}}"#,
        );
        let submission = Submission::new(&body, &Prompt::parse(&body).unwrap()).unwrap();
        let texts = submission.texts(1, &[]);
        assert_eq!(texts.extra, r#"{"ä":1,"create_time":1}"#);
        assert_eq!((&*texts.prompt, &*texts.rest), ("{}", "{}"));
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "\\PC{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                object(inner),
            ]
        })
    }

    fn object(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
        let name = prop_oneof![
            "\\PC{0,6}",
            Just("create_time".to_owned()),
            Just("api_key_comfy_org".to_owned()),
            Just("a\",\"prompt\":{}".to_owned()),
        ];
        prop::collection::btree_map(name, value, 0..6)
            .prop_map(|members| Value::Object(members.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn nothing_that_a_client_writes_becomes_something_else(
            rest in object(json_value()),
            extra in object(json_value()),
            graph in object(object(json_value())),
        ) {
            let mut sent = rest;
            sent["extra_data"] = extra;
            sent["prompt"] = graph;
            // What is no prompt is refused before.
            let body = Bytes::from(sent.to_string());
            prop_assume!(Prompt::parse(&body).is_ok());
            let body = body_of(&sent);
            prop_assert!(Prompt::parse(body.as_bytes()).is_ok(), "{}", body);
            let got = whole(&sent);
            prop_assert_eq!(&got["prompt"], &sent["prompt"]);
            prop_assert_eq!(&got["prompt_id"], ID);
            prop_assert_eq!(&got["extra_data"]["create_time"], 5);
            let decided = ["prompt", "prompt_id", "extra_data", "client_id", "create_time"];
            for part in ["/extra_data", ""] {
                let (got, sent) = (got.pointer(part), sent.pointer(part));
                let left_alone = |value: Option<&Value>| {
                    let mut members = value.and_then(Value::as_object).cloned().unwrap_or_default();
                    members.retain(|name, _| !decided.contains(&name.as_str()));
                    members
                };
                prop_assert_eq!(left_alone(got), left_alone(sent));
            }
        }
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
