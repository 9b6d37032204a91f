//! Which nodes a role may use: some of ComfyUI and of its packs read and write any file of the
//! machine, fetch any address or run any code, on every system and whatever the gateway does with
//! paths.

mod known;
mod names;

use super::{Catalogue, Json, Node, Prompt, refusal};
use known::{FILE_ACCESS, FILE_INPUTS, NUMBER_INPUTS, WORD_INPUTS};
pub(crate) use names::System;
use names::leaves_its_directory;
use serde_json::{Map, Value, json};

/// Stands for the shipped list in `nodes.deny`.
pub(crate) const FILE_ACCESS_SET: &str = "@file-access";

/// What is refused to one role.
#[derive(Debug, Default)]
pub(crate) struct NodePolicy {
    has_file_access_set: bool,
    denied: Vec<String>,
    allowed: Vec<String>,
}

/// Nodes of a prompt that are refused, with the reason of each.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused(Vec<(String, String, String)>);

impl NodePolicy {
    /// From the entries of `nodes.deny`: names of node classes, `*` at the end standing for any
    /// rest, [`FILE_ACCESS_SET`], and names with `!` before them, which are allowed all the same.
    pub(crate) fn new(entries: &[String]) -> Self {
        let mut policy = Self::default();
        for entry in entries {
            match entry.strip_prefix('!') {
                Some(allowed) => policy.allowed.push(allowed.to_owned()),
                None if entry == FILE_ACCESS_SET => policy.has_file_access_set = true,
                None => policy.denied.push(entry.clone()),
            }
        }
        policy
    }

    /// Whether it refuses anything, so that it must know the classes of the engine.
    pub(crate) fn has_rules(&self) -> bool {
        self.has_file_access_set || !self.denied.is_empty()
    }

    /// Checks all nodes of a prompt, as they were sent and as the engine with this catalogue replaces
    /// them. One that has told nothing yet may replace all of them.
    pub(crate) fn check(&self, prompt: &Prompt<'_>, catalogue: &Catalogue) -> Result<(), Refused> {
        if !self.has_rules() {
            return Ok(());
        }
        let refused: Vec<(String, String, String)> = prompt
            .nodes
            .iter()
            .filter_map(|node| {
                let reason = self
                    .fault_as_sent(node, prompt)
                    .or_else(|| self.fault_as_replaced(node, prompt, catalogue))?;
                Some((node.id.to_string(), node.class_type.to_string(), reason))
            })
            .collect();
        if refused.is_empty() {
            Ok(())
        } else {
            Err(Refused(refused))
        }
    }

    fn fault_as_sent(&self, node: &Node<'_>, prompt: &Prompt<'_>) -> Option<String> {
        let inputs = node.inputs.iter();
        let inputs = inputs.map(|(name, value)| (name.as_ref(), value));
        self.fault(&node.class_type, inputs, prompt)
    }

    /// ComfyUI takes the first replacement; others may do so some day.
    fn fault_as_replaced(
        &self,
        node: &Node<'_>,
        prompt: &Prompt<'_>,
        catalogue: &Catalogue,
    ) -> Option<String> {
        let class = node.class_type.as_ref();
        if catalogue.has(class) {
            return None;
        }
        let Some(replacements) = catalogue.replacements().of(class) else {
            return Some(format!(
                "ComfyUI does not tell at the moment whether it puts another node in the place of {class}. \
                 Try again in a minute."
            ));
        };
        replacements
            .iter()
            .find_map(|replacement| {
                self.fault(
                    replacement.class(),
                    replacement.renamed(&node.inputs),
                    prompt,
                )
            })
            .map(|fault| format!("ComfyUI replaces {class}. {fault}"))
    }

    fn fault<'node>(
        &self,
        class: &str,
        mut inputs: impl Iterator<Item = (&'node str, &'node Json<'node>)>,
        prompt: &Prompt<'_>,
    ) -> Option<String> {
        if matches_any(&self.allowed, class) {
            return None;
        }
        if matches_any(&self.denied, class)
            || (self.has_file_access_set && FILE_ACCESS.contains(&class))
        {
            return Some(format!(
                "The node {class} may not be used by you. An admin can allow it."
            ));
        }
        if !self.has_file_access_set {
            return None;
        }
        inputs.find_map(|(name, value)| {
            let input = (class, name);
            let fault = if FILE_INPUTS.contains(&input) {
                file_fault(value)
            } else if WORD_INPUTS.contains(&input) {
                word_fault(value)
            } else {
                let source = NUMBER_INPUTS
                    .iter()
                    .find(|(class, name, _)| (*class, *name) == input);
                source.and_then(|(_, _, source)| number_fault(value, source, prompt))
            };
            fault.map(|fault| format!("{name}: {fault}"))
        })
    }
}

fn matches_any(patterns: &[String], class: &str) -> bool {
    patterns
        .iter()
        .any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => class.starts_with(start),
            None => pattern == class,
        })
}

/// Why the value of an input that names a file is refused: only plain names below ComfyUI's own
/// directories pass. A link would bring a name that nobody has looked at; what is nearly one might be
/// one to another version.
fn file_fault(value: &Json<'_>) -> Option<&'static str> {
    match value {
        Json::Text(name) if leaves_its_directory(name, System::THIS) => {
            Some("only files of your own input, output and temp folders can be used")
        }
        Json::List(items) => match items.as_slice() {
            [Json::Text(_), other] if !matches!(other, Json::Text(_)) => {
                Some("the file must be chosen in the node itself, not by a link")
            }
            items => items.iter().find_map(file_fault),
        },
        Json::Object(members) => members.iter().find_map(|(_, value)| file_fault(value)),
        Json::Null | Json::Boolean(_) | Json::Number(_) | Json::Text(_) => None,
    }
}

fn word_fault(value: &Json<'_>) -> Option<&'static str> {
    let is_word = |text: &str| {
        text.chars()
            .all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
    };
    match value {
        Json::Text(text) if is_word(text) => None,
        _ => Some("only a single word can be used here"),
    }
}

/// A link is as good as a number if it comes from a node of the class `source`.
fn number_fault(value: &Json<'_>, source: &str, prompt: &Prompt<'_>) -> Option<&'static str> {
    let is_number = match value {
        Json::Number(_) => true,
        Json::List(items) if value.is_link() => {
            let [Json::Text(id), _] = items.as_slice() else {
                return None;
            };
            let mut nodes = prompt.nodes.iter();
            nodes.any(|node| node.id == *id && node.class_type == source)
        }
        _ => false,
    };
    (!is_number).then_some("only a number can be used here, or a link to the node that counted it")
}

impl Refused {
    /// In the form of ComfyUI's own refusals, so that its page marks the nodes.
    pub(crate) fn body(&self) -> Value {
        let mut body = refusal(
            "node_not_allowed",
            "Some nodes are not allowed",
            &self.names(),
        );
        let errors: Map<String, Value> = self
            .0
            .iter()
            .map(|(id, class, reason)| {
                let error = json!({
                    "type": "node_not_allowed", "message": "Not allowed", "details": reason, "extra_info": {},
                });
                let node = json!({ "errors": [error], "dependent_outputs": [], "class_type": class });
                (id.clone(), node)
            })
            .collect();
        body["node_errors"] = Value::Object(errors);
        body
    }

    /// The classes, for the log.
    pub(crate) fn names(&self) -> String {
        let mut names: Vec<&str> = self.0.iter().map(|(_, class, _)| class.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(entries: &[&str], prompt: &Value) -> Result<(), String> {
        let entries: Vec<String> = entries.iter().map(|entry| (*entry).to_owned()).collect();
        let body = json!({ "prompt": prompt }).to_string();
        let prompt = Prompt::parse(body.as_bytes()).unwrap();
        NodePolicy::new(&entries)
            .check(&prompt, &Catalogue::default())
            .map_err(|refused| refused.names())
    }

    fn node(class: &str, inputs: &Value) -> Value {
        json!({ "1": { "class_type": class, "inputs": inputs } })
    }

    #[test]
    fn w4_w6_r6_nodes_that_touch_any_file() {
        let set = [FILE_ACCESS_SET];
        for class in [
            "SaveImageDataSetToFolder",
            "SaveImageTextDataSetToFolder",
            "LoadImageDataSetFromFolder",
            "LoadTrainingDataset",
            "SaveTrainingDataset",
            "LoadVideoDataSetFromFolder",
            "LoadVideoTextDataSetFromFolder",
            "VHS_LoadVideoPath",
        ] {
            assert!(check(&set, &node(class, &json!({}))).is_err(), "{class}");
            let allowed = format!("!{class}");
            assert!(check(&[FILE_ACCESS_SET, &allowed], &node(class, &json!({}))).is_ok());
            assert!(check(&[], &node(class, &json!({}))).is_ok());
        }
        assert!(check(&["Evil*"], &node("EvilNode", &json!({}))).is_err());
        assert!(check(&["Evil*"], &node("Good", &json!({}))).is_ok());
        assert!(check(&set, &node("KSampler", &json!({"seed": 1}))).is_ok());
    }

    #[test]
    fn r5_r6_load_nodes_stay_in_their_directories() {
        let image = |value: Value| {
            check(
                &[FILE_ACCESS_SET],
                &node("LoadImage", &json!({ "image": value })),
            )
        };
        for good in [
            json!("a.png"),
            json!("sub/a.png"),
            json!("a.png [output]"),
            json!(".hidden"),
            json!("mom's.png"),
            json!(["a.png", "b's.png"]),
            json!({"__value__": "a [b].png"}),
        ] {
            assert!(image(good.clone()).is_ok(), "{good}");
        }
        for bad in [
            json!("/etc/passwd"),
            json!("../x"),
            json!("a/../../x"),
            json!("..\\x"),
            json!("\\\\host\\share"),
            json!("~/x"),
            json!("../x [input]"),
            json!({"__value__": "../x"}),
            json!(["3", 0]),
            json!([["3", 0]]),
            json!({"__value__": ["3", false]}),
            json!(["3", null]),
            json!(["3", ["a.png"]]),
            json!(["../x"]),
            json!("file:///x"),
            json!("a/.. /x"),
            json!(".."),
            json!("..x[input]"),
            json!(" /etc"),
            json!("\"/etc\""),
        ] {
            assert!(image(bad.clone()).is_err(), "{bad}");
        }
        assert!(
            check(
                &[FILE_ACCESS_SET],
                &node("CLIPTextEncode", &json!({"text": "/imagine ../x"}))
            )
            .is_ok()
        );
    }

    #[test]
    fn a1_loaders_that_came_in_2026_are_held_like_the_older_ones() {
        for (class, input) in [("Painter", "mask"), ("Load3DAdvanced", "model_file")] {
            let used = |value: &str| {
                check(
                    &[FILE_ACCESS_SET],
                    &node(class, &json!({ input: value, "width": 64 })),
                )
            };
            assert!(used("/etc/passwd").is_err(), "{class}");
            assert!(used("../../other/output/a.png").is_err(), "{class}");
            assert!(used("3d/mom's.glb [output]").is_ok(), "{class}");
            let linked = node(class, &json!({ input: ["2", 0] }));
            assert!(check(&[FILE_ACCESS_SET], &linked).is_err(), "{class}");
        }
    }

    #[test]
    fn w3_numbers_in_file_names_are_numbers() {
        let saved = |steps: Value| {
            let graph = json!({
                "1": {"class_type": "TrainLoraNode", "inputs": {}},
                "2": {"class_type": "ComfySwitchNode", "inputs": {"on_true": "/../../x"}},
                "3": {"class_type": "SaveLoRA", "inputs": {"prefix": "a", "steps": steps}},
            });
            check(&[FILE_ACCESS_SET], &graph)
        };
        assert!(saved(json!(16)).is_ok());
        assert!(saved(json!(["1", 2])).is_ok());
        for bad in [
            json!(["2", 0]),
            json!(["4", 0]),
            json!("16"),
            json!("/../../x"),
            json!({"__value__": "/../../x"}),
            json!({"__value__": ["2", 0]}),
        ] {
            assert!(saved(bad.clone()).is_err(), "{bad}");
        }
    }

    /// As a pack might register them.
    const REPLACEMENTS: &str = r#"{
        "OldPath": [{"new_node_id": "VHS_LoadVideoPath", "input_mapping": [{"new_id": "video", "old_id": "v"}]}],
        "OldImage": [
            {"new_node_id": "Harmless", "input_mapping": null},
            {"new_node_id": "LoadImage", "input_mapping": [
                {"new_id": "image", "old_id": "file"}, {"new_id": "mask", "set_value": "../x"}
            ]}
        ],
        "SameNames": [{"new_node_id": "LoadImage"}],
        "ImageBatch": [{"new_node_id": "BatchImagesNode", "input_mapping": [
            {"new_id": "images.image0", "old_id": "image1"}
        ]}]
    }"#;

    fn replacing(entries: &[&str], installed: &[&str], prompt: &Value) -> Result<(), String> {
        let entries: Vec<String> = entries.iter().map(|entry| (*entry).to_owned()).collect();
        let list: Map<String, Value> = installed
            .iter()
            .map(|class| ((*class).to_owned(), json!({"input": {}, "output": []})))
            .collect();
        let replacements = crate::jobs::Replacements::parse(REPLACEMENTS.as_bytes()).unwrap();
        let catalogue = Catalogue::parse(Value::Object(list).to_string().as_bytes())
            .unwrap()
            .with_replacements(replacements);
        let body = json!({ "prompt": prompt }).to_string();
        let prompt = Prompt::parse(body.as_bytes()).unwrap();
        NodePolicy::new(&entries)
            .check(&prompt, &catalogue)
            .map_err(|refused| refused.0[0].2.clone())
    }

    #[test]
    fn a4_a_replaced_class_is_judged_as_what_it_becomes() {
        let set = [FILE_ACCESS_SET];
        let path = node("OldPath", &json!({"v": "/etc/passwd"}));
        let said = replacing(&set, &["VHS_LoadVideoPath"], &path).unwrap_err();
        assert!(
            said.contains("ComfyUI replaces OldPath") && said.contains("VHS_LoadVideoPath"),
            "{said}"
        );
        assert!(
            replacing(&set, &[], &path).is_err(),
            "before the list is read"
        );
        assert!(
            replacing(&set, &["OldPath"], &path).is_ok(),
            "installed, so not replaced"
        );
        assert!(replacing(&[], &[], &path).is_ok());
        assert!(replacing(&["VHS_*"], &[], &path).is_err());
        assert!(replacing(&[FILE_ACCESS_SET, "!OldPath"], &[], &path).is_err());
        assert!(replacing(&[FILE_ACCESS_SET, "!VHS_LoadVideoPath"], &[], &path).is_ok());
        let image = |class: &str, input: &str, value: Value| {
            replacing(
                &set,
                &["LoadImage", "Harmless"],
                &node(class, &json!({ input: value })),
            )
        };
        assert!(image("OldImage", "file", json!("a.png")).is_ok());
        assert!(image("OldImage", "file", json!("../a.png")).is_err());
        assert!(image("OldImage", "file", json!(["2", true])).is_err());
        assert!(image("OldImage", "other", json!("../a.png")).is_ok());
        assert!(image("SameNames", "image", json!("/a.png")).is_err());
        assert!(image("ImageBatch", "image1", json!(["2", 0])).is_ok());
    }

    #[test]
    fn a4_without_the_replacements_only_installed_classes_can_be_judged() {
        let list = json!({"KSampler": {"input": {}, "output": []}}).to_string();
        let catalogue = Catalogue::parse(list.as_bytes())
            .unwrap()
            .with_replacements(crate::jobs::Replacements::Unknown);
        for (class, is_fine) in [("KSampler", true), ("Old", false)] {
            let body = json!({ "prompt": node(class, &json!({})) }).to_string();
            let prompt = Prompt::parse(body.as_bytes()).unwrap();
            let set = NodePolicy::new(&[FILE_ACCESS_SET.to_owned()]);
            assert_eq!(set.check(&prompt, &catalogue).is_ok(), is_fine, "{class}");
            assert!(NodePolicy::new(&[]).check(&prompt, &catalogue).is_ok());
        }
    }

    #[test]
    fn the_refusal_marks_the_nodes() {
        let body = json!({"prompt": {"7": {"class_type": "LoadTrainingDataset"}}}).to_string();
        let prompt = Prompt::parse(body.as_bytes()).unwrap();
        let refused = NodePolicy::new(&[FILE_ACCESS_SET.to_owned()])
            .check(&prompt, &Catalogue::default())
            .unwrap_err();
        let body = refused.body();
        assert_eq!(body["error"]["type"], "node_not_allowed");
        assert_eq!(
            body["node_errors"]["7"]["class_type"],
            "LoadTrainingDataset"
        );
    }
}
