//! A graph against the catalogue, in the order and with the words of ComfyUI's own check.

use super::python::{self, Failed};
use super::{Catalogue, Class, Input, Kind};
use crate::jobs::prompt::{Json, Node, Prompt, refusal};
use serde_json::{Map, Number, Value, json};
use std::collections::HashMap;

/// Deeper chains are ComfyUI's to judge.
const DEEPEST: usize = 300;
/// Faults that are told: a small graph must not make a huge answer.
const MOST_FAULTS: usize = 200;
/// Longer lists of choices are not repeated in the answer.
const LONGEST_LIST: usize = 20;

/// A graph that ComfyUI will take.
#[derive(Debug, PartialEq)]
pub(crate) struct Accepted {
    /// Ids of the output nodes that will be executed.
    pub(crate) outputs: Vec<String>,
    /// What is wrong with the others, as the answer to the prompt tells it.
    pub(crate) node_errors: Value,
}

impl Accepted {
    /// A graph that nobody has looked at.
    pub(crate) fn unchecked() -> Self {
        Self {
            outputs: Vec::new(),
            node_errors: json!({}),
        }
    }
}

/// A graph that ComfyUI would refuse.
#[derive(Debug, PartialEq)]
pub(crate) struct Refusal(Value);

impl Refusal {
    /// The body of ComfyUI's answer 400.
    pub(crate) fn body(&self) -> Value {
        self.0.clone()
    }
}

pub(super) fn check(
    catalogue: &Catalogue,
    prompt: &Prompt<'_>,
    targets: Option<&[String]>,
) -> Result<Accepted, Refusal> {
    if !prompt.has_graph {
        let text = "No prompt provided";
        return Err(Refusal(refusal("no_prompt", text, text)));
    }
    if catalogue.classes.is_empty() {
        return Ok(Accepted::unchecked());
    }
    let nodes = &*catalogue.replace(&prompt.nodes);
    let mut outputs = Vec::new();
    let mut classes = Vec::with_capacity(nodes.len());
    for (place, node) in nodes.iter().enumerate() {
        let Some(class) = catalogue.classes.get(node.class_type.as_ref()) else {
            if catalogue.may_replace(&node.class_type) {
                return Ok(Accepted::unchecked());
            }
            return Err(unknown(node, catalogue.is_old));
        };
        if class.is_output
            && targets.is_none_or(|targets| targets.iter().any(|target| *target == node.id))
        {
            outputs.push(place);
        }
        classes.push(class);
    }
    if outputs.is_empty() {
        let text = "Prompt has no outputs";
        return Err(Refusal(refusal("prompt_no_outputs", text, "")));
    }
    let places = nodes.iter().enumerate();
    let places = places
        .map(|(place, node)| (node.id.as_ref(), place))
        .collect();
    let mut checker = Checker {
        catalogue,
        nodes,
        classes,
        places,
        states: vec![State::Unseen; nodes.len()],
        faults: HashMap::new(),
        faulty: Vec::new(),
        told: 0,
    };
    checker.outputs(&outputs)
}

fn unknown(node: &Node<'_>, is_old: bool) -> Refusal {
    let details = format!("Node ID '#{}'", node.id);
    let class = node.class_type.as_ref();
    let has_class = !class.is_empty();
    if is_old {
        let message = if has_class {
            format!("Cannot execute because node {class} does not exist.")
        } else {
            "Cannot execute because a node is missing the class_type property.".to_owned()
        };
        return Refusal(refusal("invalid_prompt", &message, &details));
    }
    let title = node.title.as_ref();
    let (message, named) = if has_class {
        let title = title.map_or_else(|| json!(class), Json::to_value);
        let shown = match &title {
            Value::String(title) => title.clone(),
            _ => node.title.as_ref().map(python::text).unwrap_or_default(),
        };
        let message = format!("Node '{shown}' not found. The custom node may not be installed.");
        (message, title)
    } else {
        let shown = match title {
            Some(Json::Text(title)) if !title.is_empty() => title.to_string(),
            _ => format!("ID #{}", node.id),
        };
        let message = format!(
            "Node '{shown}' has no class_type. The workflow may be corrupted or a custom node is missing."
        );
        (message, title.map_or(Value::Null, Json::to_value))
    };
    let mut body = refusal("missing_node_type", &message, &details);
    body["error"]["extra_info"] = json!({
        "node_id": node.id,
        "class_type": has_class.then_some(class),
        "node_title": named,
    });
    Refusal(body)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unseen,
    /// Whoever comes back here goes in a circle.
    Entered,
    Good,
    Bad,
}

/// What Python raises.
struct Exception {
    kind: &'static str,
    text: String,
}

struct Checker<'a> {
    catalogue: &'a Catalogue,
    nodes: &'a [Node<'a>],
    /// Of each node.
    classes: Vec<&'a Class>,
    places: HashMap<&'a str, usize>,
    states: Vec<State>,
    /// What is wrong with a node.
    faults: HashMap<usize, Vec<Value>>,
    /// Nodes with faults, in the order in which they were found.
    faulty: Vec<usize>,
    told: usize,
}

impl Checker<'_> {
    fn outputs(&mut self, outputs: &[usize]) -> Result<Accepted, Refusal> {
        let mut good = Vec::new();
        let mut lines = Vec::new();
        let mut node_errors = Map::new();
        let mut bad = 0;
        for output in outputs {
            if let Err(exception) = self.node(*output, 0) {
                let fault = json!({
                    "type": "exception_during_validation",
                    "message": "Exception when validating node",
                    "details": exception.text,
                    "extra_info": { "exception_type": exception.kind, "traceback": [] },
                });
                self.fail(*output, vec![fault]);
            }
            if self.states[*output] != State::Bad {
                good.push(self.nodes[*output].id.to_string());
                continue;
            }
            bad += 1;
            if bad > MOST_FAULTS {
                continue;
            }
            let own = self.faults.get(output).into_iter().flatten();
            lines.extend(own.map(|fault| {
                let text = |key: &str| fault[key].as_str().unwrap_or_default();
                format!("{}: {}", text("message"), text("details"))
            }));
            for place in &self.faulty {
                let node = &self.nodes[*place];
                let entry = node_errors.entry(node.id.as_ref()).or_insert_with(|| {
                    json!({
                        "errors": self.faults.get(place),
                        "dependent_outputs": [],
                        "class_type": node.class_type,
                    })
                });
                if let Some(dependent) = entry["dependent_outputs"].as_array_mut() {
                    dependent.push(self.nodes[*output].id.as_ref().into());
                }
            }
        }
        let node_errors = Value::Object(node_errors);
        if !good.is_empty() {
            return Ok(Accepted {
                outputs: good,
                node_errors,
            });
        }
        let text = "Prompt outputs failed validation";
        let mut body = refusal("prompt_outputs_failed_validation", text, &lines.join("\n"));
        body["node_errors"] = node_errors;
        Err(Refusal(body))
    }

    fn fail(&mut self, place: usize, faults: Vec<Value>) {
        self.states[place] = State::Bad;
        if !faults.is_empty() && self.told < MOST_FAULTS {
            self.told += faults.len();
            if self.faults.insert(place, faults).is_none() {
                self.faulty.push(place);
            }
        }
    }

    /// Whether a node and all before it are right.
    fn node(&mut self, place: usize, depth: usize) -> Result<bool, Exception> {
        match self.states[place] {
            State::Good => return Ok(true),
            State::Bad => return Ok(false),
            State::Entered => {
                self.states[place] = State::Bad;
                return Ok(false);
            }
            State::Unseen if depth > DEEPEST => return Ok(true),
            State::Unseen => {}
        }
        let node = &self.nodes[place];
        if !node.has_inputs {
            return Err(key_error(&Json::Text("inputs".into())));
        }
        self.states[place] = State::Entered;
        let class = self.classes[place];
        let mut faults = Vec::new();
        let mut is_right = true;
        for input in &class.inputs {
            if input.kind == Kind::Dynamic {
                continue;
            }
            let given = node.inputs.iter().find(|(name, _)| *name == *input.name);
            match given.map(|(_, value)| value) {
                None if input.is_required => faults.push(fault(
                    "required_input_missing",
                    "Required input is missing",
                    &input.name,
                    json!({ "input_name": *input.name }),
                )),
                None => {}
                Some(Json::List(items)) => {
                    is_right &= self.link(class, input, items, depth, &mut faults)?;
                }
                Some(value) => faults.extend(self.literal(input, value)),
            }
        }
        // Part of a circle: it has been found wrong meanwhile.
        is_right &= self.states[place] == State::Entered && faults.is_empty();
        if is_right {
            self.states[place] = State::Good;
        } else {
            self.fail(place, faults);
        }
        Ok(is_right)
    }

    fn link(
        &mut self,
        class: &Class,
        input: &Input,
        items: &[Json<'_>],
        depth: usize,
        faults: &mut Vec<Value>,
    ) -> Result<bool, Exception> {
        let linked = || items.iter().map(Json::to_value).collect::<Value>();
        let [source, slot] = items else {
            let message = "Bad linked input, must be a length-2 list of [node_id, slot_index]";
            let mut extra = extra(input);
            extra["received_value"] = linked();
            faults.push(fault("bad_linked_input", message, &input.name, extra));
            return Ok(true);
        };
        let place = match source {
            Json::Text(id) => *self
                .places
                .get(id.as_ref())
                .ok_or_else(|| key_error(source))?,
            Json::List(_) | Json::Object(_) => {
                let kind = if matches!(source, Json::List(_)) {
                    "list"
                } else {
                    "dict"
                };
                return Err(Exception {
                    kind: "TypeError",
                    text: format!("unhashable type: '{kind}'"),
                });
            }
            other => return Err(key_error(other)),
        };
        let from = self.classes[place];
        // Other types of others' nodes may fit in ways that only they know.
        if from.is_core
            && let Some(received) = output(from, slot)?
            && class.is_core
            && let Some(wanted) = &input.word
            && !fits(received, wanted)
        {
            let details = format!(
                "{}, received_type({received}) mismatch input_type({wanted})",
                input.name
            );
            let mut extra = extra(input);
            extra["received_type"] = received.into();
            extra["linked_node"] = linked();
            let message = "Return type mismatch between linked nodes";
            faults.push(fault("return_type_mismatch", message, &details, extra));
            return Ok(true);
        }
        match self.node(place, depth + 1) {
            Ok(is_right) => Ok(is_right),
            Err(exception) => {
                let mut extra = extra(input);
                extra["exception_message"] = exception.text.as_str().into();
                extra["exception_type"] = exception.kind.into();
                extra["traceback"] = json!([]);
                extra["linked_node"] = linked();
                let message = "Exception when validating inner node";
                let kind = "exception_during_inner_validation";
                self.fail(place, vec![fault(kind, message, &exception.text, extra)]);
                Ok(false)
            }
        }
    }

    fn literal(&self, input: &Input, value: &Json<'_>) -> Option<Value> {
        let value = value.get("__value__").unwrap_or(value);
        let number = match input.kind {
            Kind::Integer => python::int(value),
            Kind::Float => python::float(value)
                .and_then(|number| Number::from_f64(number).ok_or(Failed::Perhaps)),
            Kind::Text | Kind::Boolean | Kind::Dynamic => return None,
            Kind::Other => return self.choice(input, value),
        };
        let number = match number {
            Ok(number) => number,
            Err(Failed::Perhaps) => return None,
            Err(Failed::Certainly(message)) => {
                let kind = input.word.as_deref().unwrap_or_default();
                let details = format!("{}, {}, {message}", input.name, python::text(value));
                let mut extra = extra(input);
                extra["received_value"] = value.to_value();
                extra["exception_message"] = message.into();
                let text = format!("Failed to convert an input value to a {kind} value");
                return Some(fault("invalid_input_type", &text, &details, extra));
            }
        };
        if !input.is_checked {
            return None;
        }
        let is_below = |one: &Number, other: &Number| match (one.as_i128(), other.as_i128()) {
            (Some(one), Some(other)) => one < other,
            _ => one
                .as_f64()
                .zip(other.as_f64())
                .is_some_and(|(one, other)| one < other),
        };
        let shown = python::number(&number);
        let (kind, text) = match (&input.minimum, &input.maximum) {
            (Some(minimum), _) if is_below(&number, minimum) => {
                let limit = python::number(minimum);
                (
                    "value_smaller_than_min",
                    format!("Value {shown} smaller than min of {limit}"),
                )
            }
            (_, Some(maximum)) if is_below(maximum, &number) => {
                let limit = python::number(maximum);
                (
                    "value_bigger_than_max",
                    format!("Value {shown} bigger than max of {limit}"),
                )
            }
            _ => return None,
        };
        let mut extra = extra(input);
        extra["received_value"] = Value::Number(number);
        Some(fault(kind, &text, &input.name, extra))
    }

    fn choice(&self, input: &Input, value: &Json<'_>) -> Option<Value> {
        let choices = input.choices.as_ref()?;
        // Older versions leave these alone.
        let is_told_new = input.word.is_some();
        if !input.is_checked || (is_told_new && self.catalogue.is_old) || !choices.lacks(value) {
            return None;
        }
        // A file that was added since.
        if matches!(value, Json::Text(text) if text.contains(['.', '/', '\\'])) {
            return None;
        }
        let mut extra = extra(input);
        extra["received_value"] = value.to_value();
        let list = if choices.list.len() > LONGEST_LIST {
            extra["input_config"] = Value::Null;
            format!("(list of length {})", choices.list.len())
        } else {
            let quoted = choices
                .list
                .iter()
                .filter_map(Value::as_str)
                .map(python::quoted);
            format!("[{}]", quoted.collect::<Vec<_>>().join(", "))
        };
        let details = format!("{}: '{}' not in {list}", input.name, python::text(value));
        Some(fault(
            "value_not_in_list",
            "Value not in list",
            &details,
            extra,
        ))
    }
}

/// The type of an output, if it is a word.
fn output<'a>(class: &'a Class, slot: &Json<'_>) -> Result<Option<&'a str>, Exception> {
    let sequence = if class.is_new { "list" } else { "tuple" };
    let wrong = |kind: &str| Exception {
        kind: "TypeError",
        text: format!("{sequence} indices must be integers or slices, not {kind}"),
    };
    let index = match slot {
        Json::Number(number) if number.is_f64() => return Err(wrong("float")),
        Json::Number(number) => number.as_i64().unwrap_or(i64::MAX),
        Json::Boolean(value) => i64::from(*value),
        Json::Null => return Err(wrong("NoneType")),
        Json::Text(_) => return Err(wrong("str")),
        Json::List(_) => return Err(wrong("list")),
        Json::Object(_) => return Err(wrong("dict")),
    };
    let length = i64::try_from(class.outputs.len()).unwrap_or(i64::MAX);
    // Python counts negative ones from the end.
    let index = if index < 0 {
        index.saturating_add(length)
    } else {
        index
    };
    let kind = usize::try_from(index)
        .ok()
        .and_then(|index| class.outputs.get(index));
    match kind {
        Some(kind) => Ok(kind.as_deref()),
        None => Err(Exception {
            kind: "IndexError",
            text: format!("{sequence} index out of range"),
        }),
    }
}

/// Whether an output may be linked to an input. Types that begin with `COMFY_` are more than their
/// names.
fn fits(received: &str, wanted: &str) -> bool {
    let is_free = |word: &str| {
        word.split(',')
            .any(|one| one.trim() == "*" || one.trim().starts_with("COMFY_"))
    };
    if received == wanted || is_free(received) || is_free(wanted) {
        return true;
    }
    received
        .split(',')
        .any(|one| wanted.split(',').any(|other| one.trim() == other.trim()))
}

/// What is told about an input: its name, type and properties.
fn extra(input: &Input) -> Value {
    let mut properties: Value =
        serde_json::from_str(&input.properties).unwrap_or_else(|_| json!({}));
    let kind = match (&input.word, &input.choices) {
        (Some(word), Some(choices)) => {
            properties["options"] = Value::Array(choices.list.to_vec());
            json!(**word)
        }
        (Some(word), None) => json!(**word),
        (None, Some(choices)) => Value::Array(choices.list.to_vec()),
        (None, None) => Value::Null,
    };
    json!({ "input_name": *input.name, "input_config": [kind, properties] })
}

fn fault(kind: &str, message: &str, details: &str, extra: Value) -> Value {
    let mut fault = json!({ "type": kind, "message": message, "details": details });
    fault["extra_info"] = extra;
    fault
}

fn key_error(key: &Json<'_>) -> Exception {
    Exception {
        kind: "KeyError",
        text: python::repr(key),
    }
}
