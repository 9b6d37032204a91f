//! Which nodes a role may use: some of ComfyUI and of its packs read and write any file of the
//! machine, fetch any address or run any code, on every system and whatever the gateway does with
//! paths.

mod known;

use super::{Json, Node, Prompt, refusal};
use known::{FILE_ACCESS, FILE_INPUTS, WORD_INPUTS};
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

    /// Checks all nodes of a prompt.
    pub(crate) fn check(&self, prompt: &Prompt<'_>) -> Result<(), Refused> {
        let refused: Vec<(String, String, String)> = prompt
            .nodes
            .iter()
            .filter_map(|node| {
                let reason = self.fault(node)?;
                Some((node.id.to_string(), node.class_type.to_string(), reason))
            })
            .collect();
        if refused.is_empty() {
            Ok(())
        } else {
            Err(Refused(refused))
        }
    }

    fn fault(&self, node: &Node<'_>) -> Option<String> {
        let class = node.class_type.as_ref();
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
        node.inputs.iter().find_map(|(name, value)| {
            let input = (class, name.as_ref());
            let fault = if FILE_INPUTS.contains(&input) {
                file_fault(value)
            } else if WORD_INPUTS.contains(&input) {
                word_fault(value)
            } else {
                None
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
/// directories pass. A link would bring a name that nobody has looked at.
fn file_fault(value: &Json<'_>) -> Option<&'static str> {
    match value {
        Json::Text(name) if leaves_its_directory(name) => {
            Some("only files of your own input, output and temp folders can be used")
        }
        Json::List(items) if matches!(items.as_slice(), [Json::Text(_), Json::Number(_)]) => {
            Some("the file must be chosen in the node itself, not by a link")
        }
        Json::List(items) => items.iter().find_map(file_fault),
        Json::Object(members) => members.iter().find_map(|(_, value)| file_fault(value)),
        Json::Null | Json::Boolean(_) | Json::Number(_) | Json::Text(_) => None,
    }
}

/// Some nodes strip spaces and quotes before they use a name, and ComfyUI drops one character before
/// `[input]`; so two dots, quotes and outer spaces are refused wherever they stand.
fn leaves_its_directory(name: &str) -> bool {
    let is_absolute = name.starts_with(['/', '\\', '~']);
    let has_drive = name.as_bytes().get(1) == Some(&b':');
    is_absolute
        || has_drive
        || name != name.trim()
        || name.contains(['"', '\'', '\0'])
        || ["..", "://"].iter().any(|part| name.contains(part))
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
            .check(&prompt)
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
        ] {
            assert!(image(good.clone()).is_ok(), "{good}");
        }
        for bad in [
            json!("/etc/passwd"),
            json!("../x"),
            json!("a/../../x"),
            json!("..\\x"),
            json!("C:\\x"),
            json!("c:x"),
            json!("\\\\host\\share"),
            json!("~/x"),
            json!("../x [input]"),
            json!({"__value__": "../x"}),
            json!(["3", 0]),
            json!([["3", 0]]),
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
    fn the_refusal_marks_the_nodes() {
        let body = json!({"prompt": {"7": {"class_type": "LoadTrainingDataset"}}}).to_string();
        let prompt = Prompt::parse(body.as_bytes()).unwrap();
        let refused = NodePolicy::new(&[FILE_ACCESS_SET.to_owned()])
            .check(&prompt)
            .unwrap_err();
        let body = refused.body();
        assert_eq!(body["error"]["type"], "node_not_allowed");
        assert_eq!(
            body["node_errors"]["7"]["class_type"],
            "LoadTrainingDataset"
        );
    }
}
