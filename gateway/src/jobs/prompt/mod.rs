//! The body of `POST /prompt`, the one request whose contents the gateway looks at. Its graph is
//! checked, not rewritten: what passes reaches ComfyUI byte for byte, and is of a kind that its parser
//! and ours cannot read differently (UTF-8, no duplicate keys, finite numbers, bounded depth).
//!
//! - [`Prompt`] is what passes, [`NodePolicy`] and [`Catalogue`] judge its nodes;
//! - `replacements` is what ComfyUI makes of nodes that are not installed, which both look at;
//! - [`Submission`] is a request in its parts, to be put together again for the engine, `members` the
//!   parts of an object as they stand.

mod catalogue;
mod members;
mod policy;
mod replacements;
mod submission;

pub(crate) use catalogue::{Accepted, Catalogue};
pub(crate) use policy::{NodePolicy, System};
pub(crate) use replacements::Replacements;
pub(super) use submission::{Secrets, body};
pub(crate) use submission::{Submission, is_truthy, number_text};

use members::Name;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, json};
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};

/// Largest prompt, bytes. Graphs are tens of kilobytes; some carry small pictures.
pub(crate) const MAX_PROMPT: usize = 16 * 1024 * 1024;

/// Inputs of core loaders that name what takes the GPU's memory.
const MODEL_INPUTS: [&str; 7] = [
    "ckpt_name",
    "clip_name",
    "clip_name1",
    "lora_name",
    "model_name",
    "unet_name",
    "vae_name",
];

/// Why a prompt is refused, with the place in it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PromptFault {
    /// Not JSON as everybody reads it.
    #[error("the prompt is not valid JSON: {0}")]
    Json(String),
    /// A member has the wrong type.
    #[error("{member} must be {expected}")]
    Type {
        /// Its name, with dots.
        member: String,
        /// In words.
        expected: &'static str,
    },
}

impl PromptFault {
    /// In the form of ComfyUI's own refusals.
    pub(crate) fn body(&self) -> serde_json::Value {
        refusal("invalid_prompt", "Invalid prompt", &self.to_string())
    }
}

/// A refusal in ComfyUI's form.
fn refusal(kind: &str, message: &str, details: &str) -> serde_json::Value {
    json!({
        "error": { "type": kind, "message": message, "details": details, "extra_info": {} },
        "node_errors": {},
    })
}

/// A JSON value as it stands. Texts without escapes are parts of what was read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json<'body> {
    Null,
    Boolean(bool),
    Number(Number),
    Text(Cow<'body, str>),
    List(Vec<Self>),
    Object(Vec<(Cow<'body, str>, Self)>),
}

impl Json<'_> {
    fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members
                .iter()
                .find(|(other, _)| other == name)
                .map(|(_, value)| value),
            _ => None,
        }
    }

    /// Whether ComfyUI takes it for a link to an output of another node: its `is_link`. Python's
    /// booleans are numbers.
    fn is_link(&self) -> bool {
        matches!(self, Self::List(items) if matches!(
            items.as_slice(),
            [Self::Text(_), Self::Number(_) | Self::Boolean(_)]
        ))
    }

    /// A member, which is missing afterwards.
    fn take(&mut self, name: &str) -> Option<Self> {
        let Self::Object(members) = self else {
            return None;
        };
        let place = members.iter().position(|(other, _)| other == name)?;
        Some(members.swap_remove(place).1)
    }

    /// A value that was read before.
    fn of(value: &serde_json::Value) -> Json<'_> {
        match value {
            serde_json::Value::Null => Json::Null,
            serde_json::Value::Bool(value) => Json::Boolean(*value),
            serde_json::Value::Number(number) => Json::Number(number.clone()),
            serde_json::Value::String(text) => Json::Text(Cow::Borrowed(text)),
            serde_json::Value::Array(items) => Json::List(items.iter().map(Json::of).collect()),
            serde_json::Value::Object(members) => Json::Object(
                members
                    .iter()
                    .map(|(name, value)| (Cow::Borrowed(name.as_str()), Json::of(value)))
                    .collect(),
            ),
        }
    }

    /// As it is written into an answer.
    fn to_value(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Boolean(value) => serde_json::Value::Bool(*value),
            Self::Number(number) => serde_json::Value::Number(number.clone()),
            Self::Text(text) => serde_json::Value::String(text.as_ref().to_owned()),
            Self::List(items) => items.iter().map(Self::to_value).collect(),
            Self::Object(members) => members
                .iter()
                .map(|(name, value)| (name.as_ref().to_owned(), value.to_value()))
                .collect(),
        }
    }

    /// The same with texts of its own.
    fn into_owned(self) -> Json<'static> {
        match self {
            Self::Null => Json::Null,
            Self::Boolean(value) => Json::Boolean(value),
            Self::Number(number) => Json::Number(number),
            Self::Text(text) => Json::Text(owned(text)),
            Self::List(items) => Json::List(items.into_iter().map(Self::into_owned).collect()),
            Self::Object(members) => Json::Object(owned_members(members)),
        }
    }
}

fn owned(text: Cow<'_, str>) -> Cow<'static, str> {
    Cow::Owned(text.into_owned())
}

fn owned_members(
    members: Vec<(Cow<'_, str>, Json<'_>)>,
) -> Vec<(Cow<'static, str>, Json<'static>)> {
    let members = members.into_iter();
    members
        .map(|(name, value)| (owned(name), value.into_owned()))
        .collect()
}

/// One node of the graph.
#[derive(Clone, Debug)]
pub(crate) struct Node<'body> {
    pub(crate) id: Cow<'body, str>,
    pub(crate) class_type: Cow<'body, str>,
    pub(crate) inputs: Vec<(Cow<'body, str>, Json<'body>)>,
    /// ComfyUI cannot check a node without any.
    pub(crate) has_inputs: bool,
    /// What the user calls it: `_meta.title`, if there is one.
    pub(crate) title: Option<Json<'body>>,
}

/// A prompt that ComfyUI can read without harm.
#[derive(Debug)]
pub(crate) struct Prompt<'body> {
    pub(crate) nodes: Vec<Node<'body>>,
    /// Whether there is a graph at all, if only an empty one.
    pub(crate) has_graph: bool,
    /// `extra_data.extra_pnginfo.workflow.id`.
    pub(crate) workflow_id: Option<Cow<'body, str>>,
}

impl<'body> Prompt<'body> {
    /// Reads the body of a `POST /prompt`.
    pub(crate) fn parse(body: &'body [u8]) -> Result<Self, PromptFault> {
        let text =
            std::str::from_utf8(body).map_err(|error| PromptFault::Json(error.to_string()))?;
        let mut body: Json<'body> =
            serde_json::from_str(text).map_err(|error| PromptFault::Json(error.to_string()))?;
        if !matches!(body, Json::Object(_)) {
            return Err(wrong("the body", "an object"));
        }
        check_text_or_none(&body, "client_id")?;
        check_text_or_none(&body, "prompt_id")?;
        match body.get("number") {
            None | Some(Json::Number(_)) => {}
            Some(_) => return Err(wrong("number", "a number")),
        }
        match body.get("extra_data") {
            None => {}
            Some(extra @ Json::Object(_)) => check_extra_data(extra)?,
            Some(_) => return Err(wrong("extra_data", "an object")),
        }
        match body.get("partial_execution_targets") {
            None | Some(Json::Null | Json::List(_)) => {}
            Some(_) => return Err(wrong("partial_execution_targets", "a list")),
        }
        // ComfyUI says itself that a prompt is missing.
        let (nodes, has_graph) = match body.take("prompt") {
            None => (Vec::new(), false),
            Some(Json::Object(nodes)) => {
                let nodes = nodes.into_iter().map(|(id, node)| read_node(id, node));
                (nodes.collect::<Result<_, _>>()?, true)
            }
            Some(_) => return Err(wrong("prompt", "an object")),
        };
        Ok(Self {
            nodes,
            has_graph,
            workflow_id: workflow_id(&mut body),
        })
    }

    /// The same with texts of its own.
    pub(crate) fn into_owned(self) -> Prompt<'static> {
        let nodes = self.nodes.into_iter().map(|node| Node {
            id: owned(node.id),
            class_type: owned(node.class_type),
            inputs: owned_members(node.inputs),
            has_inputs: node.has_inputs,
            title: node.title.map(Json::into_owned),
        });
        Prompt {
            nodes: nodes.collect(),
            has_graph: self.has_graph,
            workflow_id: self.workflow_id.map(owned),
        }
    }

    /// Stands for the models that the prompt loads: equal for prompts that load the same. `None`:
    /// it loads none that is known.
    pub(crate) fn model(&self) -> Option<u64> {
        let mut names: Vec<(&str, &str, &str)> = Vec::new();
        for node in &self.nodes {
            for (input, value) in &node.inputs {
                if let Json::Text(value) = value
                    && MODEL_INPUTS.contains(&input.as_ref())
                {
                    names.push((&node.class_type, input, value));
                }
            }
        }
        if names.is_empty() {
            return None;
        }
        names.sort_unstable();
        let mut hasher = std::hash::DefaultHasher::new();
        names.hash(&mut hasher);
        Some(hasher.finish())
    }
}

fn wrong(member: impl Into<String>, expected: &'static str) -> PromptFault {
    PromptFault::Type {
        member: member.into(),
        expected,
    }
}

fn check_text_or_none(object: &Json<'_>, name: &str) -> Result<(), PromptFault> {
    match object.get(name) {
        None | Some(Json::Null | Json::Text(_)) => Ok(()),
        Some(_) => Err(wrong(name, "text")),
    }
}

/// Anything but objects here ends ComfyUI's job list or the whole process (D1, D4).
fn check_extra_data(extra: &Json<'_>) -> Result<(), PromptFault> {
    check_text_or_none(extra, "client_id").map_err(|_| wrong("extra_data.client_id", "text"))?;
    let information = match extra.get("extra_pnginfo") {
        None => return Ok(()),
        Some(information @ Json::Object(_)) => information,
        Some(_) => return Err(wrong("extra_data.extra_pnginfo", "an object")),
    };
    match information.get("workflow") {
        None | Some(Json::Object(_)) => Ok(()),
        Some(_) => Err(wrong("extra_data.extra_pnginfo.workflow", "an object")),
    }
}

fn workflow_id<'body>(body: &mut Json<'body>) -> Option<Cow<'body, str>> {
    let mut extra = body.take("extra_data")?;
    let mut information = extra.take("extra_pnginfo")?;
    match information.take("workflow")?.take("id")? {
        Json::Text(id) => Some(id),
        _ => None,
    }
}

fn read_node<'body>(
    id: Cow<'body, str>,
    mut node: Json<'body>,
) -> Result<Node<'body>, PromptFault> {
    let Json::Object(_) = node else {
        return Err(wrong(format!("prompt.{id}"), "an object"));
    };
    let class_type = match node.take("class_type") {
        // ComfyUI says itself that it is missing.
        None => Cow::Borrowed(""),
        Some(Json::Text(class_type)) => class_type,
        Some(_) => return Err(wrong(format!("prompt.{id}.class_type"), "text")),
    };
    let (inputs, has_inputs) = match node.take("inputs") {
        None => (Vec::new(), false),
        Some(Json::Object(inputs)) => (inputs, true),
        Some(_) => return Err(wrong(format!("prompt.{id}.inputs"), "an object")),
    };
    Ok(Node {
        id,
        class_type,
        inputs,
        has_inputs,
        title: node.take("_meta").and_then(|mut meta| meta.take("title")),
    })
}

impl<'de> Deserialize<'de> for Json<'de> {
    fn deserialize<Source: Deserializer<'de>>(source: Source) -> Result<Self, Source::Error> {
        source.deserialize_any(JsonVisitor)
    }
}

/// Members up to which an object counts as small.
const SMALL_OBJECT: usize = 16;

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<Fault>(self) -> Result<Json<'de>, Fault> {
        Ok(Json::Null)
    }

    fn visit_bool<Fault>(self, value: bool) -> Result<Json<'de>, Fault> {
        Ok(Json::Boolean(value))
    }

    fn visit_i64<Fault>(self, value: i64) -> Result<Json<'de>, Fault> {
        Ok(Json::Number(value.into()))
    }

    fn visit_u64<Fault>(self, value: u64) -> Result<Json<'de>, Fault> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<Fault: serde::de::Error>(self, value: f64) -> Result<Json<'de>, Fault> {
        let number = Number::from_f64(value);
        Ok(Json::Number(number.ok_or_else(|| {
            Fault::custom("a number that is not finite")
        })?))
    }

    fn visit_borrowed_str<Fault>(self, value: &'de str) -> Result<Json<'de>, Fault> {
        Ok(Json::Text(Cow::Borrowed(value)))
    }

    fn visit_str<Fault>(self, value: &str) -> Result<Json<'de>, Fault> {
        Ok(Json::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<Items: SeqAccess<'de>>(self, mut items: Items) -> Result<Json<'de>, Items::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<Members: MapAccess<'de>>(
        self,
        mut members: Members,
    ) -> Result<Json<'de>, Members::Error> {
        let mut object: Vec<(Cow<'de, str>, Json<'de>)> = Vec::new();
        // The names of a large object; in a small one looking through all is faster.
        let mut names = HashSet::new();
        while let Some((Name(name), value)) = members.next_entry::<Name<'de>, Json<'de>>()? {
            if object.len() == SMALL_OBJECT {
                names.extend(object.iter().map(|(name, _)| name.clone()));
            }
            let is_known = if object.len() < SMALL_OBJECT {
                object.iter().any(|(known, _)| *known == name)
            } else {
                !names.insert(name.clone())
            };
            if is_known {
                return Err(Members::Error::custom(format_args!(
                    "the key \"{name}\" stands twice in one object"
                )));
            }
            object.push((name, value));
        }
        Ok(Json::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fault(body: &str) -> String {
        Prompt::parse(body.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_usual_prompt() {
        let body = r#"{"client_id":"c","prompt":{"1":{"class_type":"A","inputs":{"seed":18446744073709551615,"x":["2",0]},"_meta":{"title":"t"}}},
            "extra_data":{"extra_pnginfo":{"workflow":{"nodes":[]}}},"number":-1.5,"prompt_id":"p"}"#;
        let prompt = Prompt::parse(body.as_bytes()).unwrap();
        assert_eq!(prompt.nodes.len(), 1);
        assert_eq!(prompt.nodes[0].class_type, "A");
        for body in [
            "{}",
            r#"{"prompt":{}}"#,
            r#"{"prompt":{"1":{}},"client_id":null,"prompt_id":null}"#,
        ] {
            assert!(Prompt::parse(body.as_bytes()).is_ok(), "{body}");
        }
    }

    #[test]
    fn d1_to_d6_what_ends_or_poisons_comfyui() {
        let deep = format!(
            "{{\"prompt\":{{\"1\":{{\"inputs\":{{\"x\":{}0{}}}}}}}}}",
            "[".repeat(900),
            "]".repeat(900)
        );
        let table = [
            (r#"{"client_id":["a"]}"#, "client_id must be text"),
            (r#"{"client_id":{"a":1}}"#, "client_id must be text"),
            (
                r#"{"extra_data":{"client_id":[1]}}"#,
                "extra_data.client_id must be text",
            ),
            (r#"{"extra_data":[]}"#, "extra_data must be an object"),
            (
                r#"{"extra_data":{"extra_pnginfo":null}}"#,
                "extra_data.extra_pnginfo must be an object",
            ),
            (
                r#"{"extra_data":{"extra_pnginfo":{"workflow":[]}}}"#,
                "workflow must be an object",
            ),
            (r#"{"prompt_id":{"a":1}}"#, "prompt_id must be text"),
            (r#"{"number":"nan"}"#, "number must be a number"),
            (r#"{"number":NaN}"#, "not valid JSON"),
            (
                r#"{"prompt":{"1":{"inputs":{"x":Infinity}}}}"#,
                "not valid JSON",
            ),
            (r#"{"prompt":{"1":{"inputs":{"x":1e999}}}}"#, "out of range"),
            (
                r#"{"prompt":{"1":{"inputs":{"x":"\ud800"}}}}"#,
                "not valid JSON",
            ),
            (r#"{"prompt":[]}"#, "prompt must be an object"),
            (r#"{"prompt":{"1":[]}}"#, "prompt.1 must be an object"),
            (
                r#"{"prompt":{"1":{"class_type":["A"]}}}"#,
                "prompt.1.class_type must be text",
            ),
            (
                r#"{"prompt":{"1":{"inputs":[]}}}"#,
                "prompt.1.inputs must be an object",
            ),
            (
                r#"{"client_id":"a","client\u005fid":["b"]}"#,
                "stands twice",
            ),
            ("[]", "the body must be an object"),
            ("", "not valid JSON"),
        ];
        for (body, expected) in table {
            let said = fault(body);
            assert!(said.contains(expected), "{body}: {said}");
        }
        assert!(fault(&deep).contains("recursion limit"));
        let many = |twice: &str| {
            let members: Vec<String> = (0..40).map(|number| format!("\"{number}\":0")).collect();
            format!("{{{},\"{twice}\":1}}", members.join(","))
        };
        for twice in ["0", "15", "16", "39"] {
            assert!(fault(&many(twice)).contains("stands twice"), "{twice}");
        }
        assert!(Prompt::parse(many("40").as_bytes()).is_ok());
        let long = format!("{{\"number\":{}}}", "9".repeat(400));
        assert!(fault(&long).contains("out of range"));
        assert!(Prompt::parse(b"\xff\xfe{\x00}\x00").is_err(), "not UTF-8");
    }

    /// ComfyUI's rule, of `comfy_execution/graph_utils.py`.
    const IS_LINK: &str = r"
import json, sys

def is_link(obj):
    if not isinstance(obj, list):
        return False
    if len(obj) != 2:
        return False
    if not isinstance(obj[0], str):
        return False
    if not isinstance(obj[1], int) and not isinstance(obj[1], float):
        return False
    return True

json.dump([is_link(value) for value in json.load(sys.stdin)], sys.stdout)
";

    /// What Python says of values; `None`: there is no Python.
    fn said_by_python(values: &serde_json::Value) -> Option<Vec<bool>> {
        use std::io::Write as _;
        use std::process::{Command, Stdio};
        let mut python = Command::new("python3")
            .args(["-c", IS_LINK])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let mut input = python.stdin.take().unwrap();
        input.write_all(values.to_string().as_bytes()).unwrap();
        drop(input);
        let output = python.wait_with_output().unwrap();
        assert!(output.status.success());
        Some(serde_json::from_slice(&output.stdout).unwrap())
    }

    fn is_link(text: &str) -> bool {
        serde_json::from_str::<Json<'_>>(text).unwrap().is_link()
    }

    #[test]
    fn f10_a_link_is_what_comfyui_takes_for_one() {
        // Recorded from Python.
        for (text, expected) in [
            (r#"["1",0]"#, true),
            (r#"["1",-1]"#, true),
            (r#"["1",false]"#, true),
            (r#"["1",true]"#, true),
            (r#"["1",0.0]"#, true),
            (r#"["1",1e0]"#, true),
            (r#"["1",18446744073709551615]"#, true),
            (r#"["",0]"#, true),
            (r#"["1",null]"#, false),
            (r#"["1","0"]"#, false),
            (r#"["1",[0]]"#, false),
            (r#"["1",{}]"#, false),
            (r#"["1"]"#, false),
            (r#"["1",0,0]"#, false),
            ("[1,0]", false),
            ("[true,0]", false),
            ("[null,0]", false),
            (r#"[["1"],0]"#, false),
            ("[]", false),
            (r#"{"0":"1","1":0}"#, false),
            (r#""10""#, false),
            ("10", false),
            ("null", false),
        ] {
            assert_eq!(is_link(text), expected, "{text}");
        }
    }

    /// Many of them are lists of two, and many of those nearly links.
    fn any_value() -> impl Strategy<Value = serde_json::Value> {
        use serde_json::Value;
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1e9_f64..1e9).prop_map(Value::from),
            "[a-z0-9 ./]{0,4}".prop_map(Value::from),
        ]
        .boxed();
        let nested = leaf.clone().prop_recursive(3, 24, 3, |inner| {
            prop_oneof![
                4 => prop::collection::vec(inner.clone(), 2).prop_map(Value::from),
                1 => prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                1 => inner.prop_map(|value| json!({ "a": value })),
            ]
        });
        prop_oneof![
            nested,
            ("[0-9]{0,2}", leaf).prop_map(|(id, slot)| json!([id, slot])),
        ]
    }

    #[test]
    fn f10_any_value_is_judged_as_python_judges_it_and_no_link_names_a_file() {
        use proptest::strategy::ValueTree as _;
        let mut runner = proptest::test_runner::TestRunner::default();
        let strategy = any_value();
        let values: Vec<serde_json::Value> = (0..4000)
            .map(|_| strategy.new_tree(&mut runner).unwrap().current())
            .collect();
        let Some(said) = said_by_python(&values.iter().cloned().collect()) else {
            return;
        };
        let links = said.iter().filter(|is_link| **is_link).count();
        assert!(links > 100, "{links}");
        let policy = NodePolicy::new(&["@file-access".to_owned()]);
        for (value, expected) in values.iter().zip(said) {
            assert_eq!(is_link(&value.to_string()), expected, "{value}");
            if expected {
                let graph = json!({"prompt": {"1": {"class_type": "LoadImage", "inputs": {"image": value}}}});
                let body = graph.to_string();
                let prompt = Prompt::parse(body.as_bytes()).unwrap();
                assert!(
                    policy.check(&prompt, &Catalogue::default()).is_err(),
                    "{value}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn no_body_panics(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Prompt::parse(&body);
        }

        #[test]
        fn what_serde_json_writes_is_read(text in "\\PC{0,20}", number: i32) {
            let body = json!({"prompt": {"1": {"class_type": text, "inputs": {"n": number}}}}).to_string();
            let prompt = Prompt::parse(body.as_bytes()).unwrap();
            prop_assert_eq!(&prompt.nodes[0].class_type, &text);
        }
    }
}
