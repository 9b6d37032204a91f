//! Which prompts are taken, with the errors ComfyUI gives for the others.

use crate::graph::class;
use crate::graph::types::{convert, fits};
use crate::json::{Json, json};
use crate::nodes::catalogue::Catalogue;
use crate::state::Engine;
use std::collections::HashMap;

/// Deeper chains end in Python's recursion limit.
const DEEPEST: usize = 300;
/// Longer choice lists are not repeated in the error.
const LONGEST_LIST: usize = 20;

/// What became of a prompt.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The outputs to execute; faulty ones are left out and listed.
    Taken {
        outputs: Vec<String>,
        node_errors: Json,
    },
    Refused {
        error: Json,
        node_errors: Json,
    },
    /// Python raised.
    Raised,
}

/// A Python exception: type and text.
#[derive(Debug)]
struct Exception(&'static str, String);

struct Checker<'a> {
    engine: &'a Engine,
    catalogue: &'a Catalogue,
    prompt: &'a mut Json,
    /// Nodes looked at, in order: whether they are right, and what is wrong with them.
    results: Vec<(String, bool, Vec<Json>)>,
    places: HashMap<String, usize>,
    /// The nodes on the way to the one that is looked at.
    visiting: Vec<String>,
}

/// Checks a prompt and brings its values into the types of their inputs.
pub(crate) fn validate(engine: &Engine, prompt: &mut Json, only: Option<&Json>) -> Verdict {
    let catalogue = Catalogue::get();
    let Some(nodes) = prompt.as_object() else {
        return Verdict::Raised;
    };
    let mut outputs = Vec::new();
    for (id, node) in nodes {
        if node.as_object().is_none() {
            return Verdict::Raised;
        }
        let title = node
            .get("_meta")
            .and_then(|meta| meta.get("title"))
            .cloned()
            .unwrap_or(Json::Null);
        let named = node.get("class_type").cloned().unwrap_or(Json::Null);
        let Some(class) = named.as_str() else {
            let shown = title
                .as_str()
                .map_or_else(|| format!("ID #{id}"), str::to_owned);
            let message = format!(
                "Node '{shown}' has no class_type. The workflow may be corrupted or a custom node is missing."
            );
            return missing(id, &named, &title, &message);
        };
        let Some(known) = catalogue.class(class) else {
            let title = if title.is_null() {
                named.clone()
            } else {
                title
            };
            let message = format!(
                "Node '{}' not found. The custom node may not be installed.",
                title.python_text()
            );
            return missing(id, &named, &title, &message);
        };
        let wanted = only.is_none_or(|only| {
            only.as_list()
                .is_some_and(|list| list.iter().any(|item| item.as_str() == Some(id)))
        });
        if known.get("output_node").is_some_and(Json::truthy) && wanted {
            outputs.push(id.clone());
        }
    }
    if outputs.is_empty() {
        return Verdict::Refused {
            error: json!({ "type": "prompt_no_outputs", "message": "Prompt has no outputs", "details": "", "extra_info": {} }),
            node_errors: json!({}),
        };
    }
    let mut checker = Checker {
        engine,
        catalogue,
        prompt,
        results: Vec::new(),
        places: HashMap::new(),
        visiting: Vec::new(),
    };
    checker.outputs(&outputs)
}

fn missing(id: &str, class: &Json, title: &Json, message: &str) -> Verdict {
    let mut error = json!({
        "type": "missing_node_type",
        "message": message,
        "details": format!("Node ID '#{id}'"),
        "extra_info": { "node_id": id },
    });
    if let Some(extra) = error.get_mut("extra_info") {
        extra.set("class_type", class.clone());
        extra.set("node_title", title.clone());
    }
    Verdict::Refused {
        error,
        node_errors: json!({}),
    }
}

impl Checker<'_> {
    fn outputs(&mut self, outputs: &[String]) -> Verdict {
        let mut good = Vec::new();
        let mut own_errors = Vec::new();
        let mut node_errors = json!({});
        for output in outputs {
            let valid = self.node(output, 0).unwrap_or_else(|exception| {
                let error = json!({
                    "type": "exception_during_validation",
                    "message": "Exception when validating node",
                    "details": exception.1,
                    "extra_info": { "exception_type": exception.0, "traceback": traceback() },
                });
                self.record(output, false, vec![error]);
                false
            });
            if valid {
                good.push(output.clone());
                continue;
            }
            self.engine
                .fail(&format!("Failed to validate prompt for output {output}:"));
            let own = self
                .places
                .get(output)
                .map_or_else(Vec::new, |place| self.results[*place].2.clone());
            own_errors.extend(own);
            for (node, valid, reasons) in &self.results {
                if *valid || reasons.is_empty() {
                    continue;
                }
                let class = class(self.prompt, node).unwrap_or_default().to_owned();
                if node_errors.get(node).is_none() {
                    let mut entry =
                        json!({ "errors": [], "dependent_outputs": [], "class_type": class });
                    entry.set("errors", Json::List(reasons.clone()));
                    node_errors.set(node, entry);
                    self.engine.fail(&format!("* {class} {node}:"));
                    for reason in reasons {
                        self.engine.fail(&format!("  - {}", line(reason)));
                    }
                }
                if let Some(Json::List(dependent)) = node_errors
                    .get_mut(node)
                    .and_then(|entry| entry.get_mut("dependent_outputs"))
                {
                    dependent.push(output.as_str().into());
                }
            }
            self.engine.fail("Output will be ignored");
        }
        if good.is_empty() {
            let details: Vec<String> = own_errors.iter().map(line).collect();
            let error = json!({
                "type": "prompt_outputs_failed_validation",
                "message": "Prompt outputs failed validation",
                "details": details.join("\n"),
                "extra_info": {},
            });
            return Verdict::Refused { error, node_errors };
        }
        Verdict::Taken {
            outputs: good,
            node_errors,
        }
    }

    fn record(&mut self, node: &str, valid: bool, reasons: Vec<Json>) {
        match self.places.get(node) {
            Some(place) => self.results[*place] = (node.to_owned(), valid, reasons),
            None => {
                self.places.insert(node.to_owned(), self.results.len());
                self.results.push((node.to_owned(), valid, reasons));
            }
        }
    }

    fn node(&mut self, id: &str, depth: usize) -> Result<bool, Exception> {
        if let Some(place) = self.places.get(id) {
            return Ok(self.results[*place].1);
        }
        if let Some(start) = self.visiting.iter().position(|node| node == id) {
            self.cycle(start, id);
            return Ok(false);
        }
        if depth > DEEPEST {
            return Err(Exception(
                "RecursionError",
                "maximum recursion depth exceeded".to_owned(),
            ));
        }
        let class = class(self.prompt, id)
            .map(str::to_owned)
            .ok_or_else(|| key_error(id))?;
        let node = self.prompt.get(id).ok_or_else(|| key_error(id))?;
        if node.get("inputs").is_none() {
            return Err(key_error("inputs"));
        }
        // The choices of some inputs are the files that are there now.
        let described = self.catalogue.describe(self.engine, &class);
        let described = described
            .as_ref()
            .or_else(|| self.catalogue.class(&class))
            .ok_or_else(|| key_error(&class))?;
        let mut reasons = Vec::new();
        let mut valid = true;
        for (name, spec, required) in Catalogue::inputs(described) {
            let given = self
                .prompt
                .get(id)
                .and_then(|node| node.get("inputs"))
                .and_then(|inputs| inputs.get(name));
            let Some(given) = given.cloned() else {
                if required {
                    reasons.push(reason(
                        "required_input_missing",
                        "Required input is missing",
                        name,
                        json!({ "input_name": name }),
                    ));
                }
                continue;
            };
            let input = Input {
                node: id,
                class: &class,
                name,
                spec,
            };
            let fine = match given {
                Json::List(items) => self.linked(&input, &items, depth, &mut reasons)?,
                value => self.literal(&input, value, &mut reasons),
            };
            valid &= fine;
        }
        valid &= reasons.is_empty();
        if valid && let Some(failed) = self.own_check(id, &class)? {
            reasons.push(failed);
            valid = false;
        }
        // A cycle may have left its error here already.
        if let Some(place) = self.places.get(id) {
            let (_, so_far, found) = &self.results[*place];
            valid &= *so_far;
            let mut all = found.clone();
            for reason in reasons {
                if !all.iter().any(|known| known.equals(&reason)) {
                    all.push(reason);
                }
            }
            reasons = all;
        }
        self.record(id, valid, reasons);
        Ok(valid)
    }

    /// Notes the same error on every node of a cycle that comes back to a node on the way.
    fn cycle(&mut self, start: usize, id: &str) {
        let nodes: Vec<String> = self.visiting[start..].to_vec();
        let path: Vec<String> = nodes
            .iter()
            .map(String::as_str)
            .chain([id])
            .map(|node| format!("{node} ({})", class(self.prompt, node).unwrap_or_default()))
            .collect();
        for node in &nodes {
            let mut extra = json!({ "node_id": node });
            extra.set("cycle_nodes", nodes.clone());
            let found = reason(
                "dependency_cycle",
                "Dependency cycle detected",
                &path.join(" -> "),
                extra,
            );
            self.record(node, false, vec![found]);
        }
    }

    fn linked(
        &mut self,
        input: &Input<'_>,
        items: &[Json],
        depth: usize,
        reasons: &mut Vec<Json>,
    ) -> Result<bool, Exception> {
        let [source, slot] = items else {
            let message = "Bad linked input, must be a length-2 list of [node_id, slot_index]";
            let mut extra = input.extra();
            extra.set("received_value", Json::List(items.to_vec()));
            reasons.push(reason("bad_linked_input", message, input.name, extra));
            return Ok(false);
        };
        let source_id = source.python_text();
        let source_class = class(self.prompt, &source_id)
            .filter(|_| source.as_str().is_some())
            .ok_or_else(|| Exception("KeyError", source.python_repr()))?;
        let types = self.catalogue.outputs(source_class);
        let received = slot
            .as_i64()
            .and_then(|slot| usize::try_from(slot).ok())
            .and_then(|slot| types.get(slot))
            .and_then(Json::as_str)
            .ok_or_else(|| Exception("IndexError", "tuple index out of range".to_owned()))?
            .to_owned();
        let wanted = input.kind();
        if !fits(&received, &wanted) {
            let details = format!(
                "{}, received_type({received}) mismatch input_type({wanted})",
                input.name
            );
            let mut extra = input.extra();
            extra.set("received_type", received);
            extra.set("linked_node", Json::List(items.to_vec()));
            reasons.push(reason(
                "return_type_mismatch",
                "Return type mismatch between linked nodes",
                &details,
                extra,
            ));
            return Ok(false);
        }
        self.visiting.push(input.node.to_owned());
        let validated = self.node(&source_id, depth + 1);
        self.visiting.pop();
        match validated {
            Ok(valid) => Ok(valid),
            Err(exception) => {
                let mut extra = input.extra();
                extra.set("exception_message", exception.1.as_str());
                extra.set("exception_type", exception.0);
                extra.set("traceback", traceback());
                extra.set("linked_node", Json::List(items.to_vec()));
                let failed = reason(
                    "exception_during_inner_validation",
                    "Exception when validating inner node",
                    &exception.1,
                    extra,
                );
                self.record(&source_id, false, vec![failed]);
                Ok(false)
            }
        }
    }

    fn literal(&mut self, input: &Input<'_>, mut value: Json, reasons: &mut Vec<Json>) -> bool {
        if let Some(wrapped) = value.get("__value__") {
            value = wrapped.clone();
        }
        let kind = input.kind();
        let value = match convert(&kind, &value) {
            Ok(converted) => converted,
            Err(message) => {
                let details = format!("{}, {}, {message}", input.name, value.python_text());
                let mut extra = input.extra();
                extra.set("received_value", value);
                extra.set("exception_message", message);
                let text = format!("Failed to convert an input value to a {kind} value");
                reasons.push(reason("invalid_input_type", &text, &details, extra));
                return false;
            }
        };
        let options = input.spec.as_list().and_then(|spec| spec.get(1));
        let bound = |name: &str| options.and_then(|options| options.get(name));
        for (bound, kind, word) in [
            (bound("min"), "value_smaller_than_min", "smaller than min"),
            (bound("max"), "value_bigger_than_max", "bigger than max"),
        ] {
            let Some((limit, number)) = bound.and_then(|limit| limit.as_f64().zip(value.as_f64()))
            else {
                continue;
            };
            let out = if word.starts_with("smaller") {
                number < limit
            } else {
                number > limit
            };
            if out {
                let limit = bound.map(Json::python_text).unwrap_or_default();
                let text = format!("Value {} {word} of {limit}", value.python_text());
                let mut extra = input.extra();
                extra.set("received_value", value);
                reasons.push(reason(kind, &text, input.name, extra));
                return false;
            }
        }
        if let Some(failed) = not_in_list(input, &value) {
            reasons.push(failed);
            return false;
        }
        if let Some(inputs) = self
            .prompt
            .get_mut(input.node)
            .and_then(|node| node.get_mut("inputs"))
        {
            inputs.set(input.name, value);
        }
        true
    }

    /// What a node class checks itself: that the file it loads is there. A link in that place is `None` to
    /// the class, which is not ready for it.
    fn own_check(&self, id: &str, class: &str) -> Result<Option<Json>, Exception> {
        let Some((name, what)) = checks_itself(class) else {
            return Ok(None);
        };
        let value = self
            .prompt
            .get(id)
            .and_then(|node| node.get("inputs"))
            .and_then(|inputs| inputs.get(name));
        let Some(Json::Text(file)) = value else {
            let text = "'NoneType' object has no attribute 'endswith'";
            return Err(Exception("AttributeError", text.to_owned()));
        };
        if self
            .engine
            .load_path(file)
            .is_some_and(|path| path.exists())
        {
            return Ok(None);
        }
        let details = format!("{name} - Invalid {what} file: {file}");
        let extra = json!({ "input_name": name });
        Ok(Some(reason(
            "custom_validation_failed",
            "Custom validation failed for node",
            &details,
            extra,
        )))
    }
}

/// One input of a class, as the catalogue describes it.
struct Input<'a> {
    node: &'a str,
    class: &'a str,
    name: &'a str,
    spec: &'a Json,
}

impl Input<'_> {
    fn kind(&self) -> String {
        match self.spec.as_list().and_then(<[Json]>::first) {
            Some(Json::Text(kind)) => kind.clone(),
            _ => "COMBO".to_owned(),
        }
    }

    fn extra(&self) -> Json {
        let mut config = self.spec.clone();
        if let Json::List(items) = &mut config
            && items.len() == 1
        {
            items.push(json!({}));
        }
        let mut extra = json!({ "input_name": self.name });
        extra.set("input_config", config);
        extra
    }
}

/// The input that a class checks itself, and what it calls the file.
fn checks_itself(class: &str) -> Option<(&'static str, &'static str)> {
    match class {
        "LoadImage" | "LoadImageMask" | "LoadImageOutput" => Some(("image", "image")),
        "LoadVideo" => Some(("file", "video")),
        "LoadLatent" => Some(("latent", "latent")),
        _ => None,
    }
}

fn not_in_list(input: &Input<'_>, value: &Json) -> Option<Json> {
    if checks_itself(input.class).is_some_and(|(name, _)| name == input.name) {
        return None;
    }
    let spec = input.spec.as_list()?;
    let choices = match spec.first()? {
        Json::List(choices) => choices.as_slice(),
        Json::Text(kind) if kind == "COMBO" => spec.get(1)?.get("options")?.as_list()?,
        _ => return None,
    };
    let several = spec
        .get(1)
        .and_then(|options| options.get("multiselect"))
        .is_some_and(Json::truthy);
    let chosen = match value {
        Json::List(items) if several => items.as_slice(),
        value => std::slice::from_ref(value),
    };
    let wrong: Vec<String> = chosen
        .iter()
        .filter(|value| !choices.iter().any(|choice| choice.equals(value)))
        .map(Json::python_repr)
        .collect();
    if wrong.is_empty() {
        return None;
    }
    let mut extra = input.extra();
    let shown = if choices.len() > LONGEST_LIST {
        extra.set("input_config", Json::Null);
        format!("(list of length {})", choices.len())
    } else {
        Json::List(choices.to_vec()).python_text()
    };
    extra.set("received_value", value.clone());
    let details = format!("{}: {} not in {shown}", input.name, wrong.join(", "));
    Some(reason(
        "value_not_in_list",
        "Value not in list",
        &details,
        extra,
    ))
}

fn reason(kind: &str, message: &str, details: &str, extra: Json) -> Json {
    let mut reason = json!({ "type": kind, "message": message, "details": details });
    reason.set("extra_info", extra);
    reason
}

fn line(reason: &Json) -> String {
    let text = |key: &str| reason.get(key).map(Json::python_text).unwrap_or_default();
    format!("{}: {}", text("message"), text("details"))
}

fn key_error(key: &str) -> Exception {
    Exception("KeyError", format!("'{key}'"))
}

/// There is no Python here, so there is one line that says so.
fn traceback() -> Vec<&'static str> {
    vec!["  File \"demo-engine\", in validate\n"]
}
