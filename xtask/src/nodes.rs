//! `cargo xtask nodes DIR`: nodes of a ComfyUI or a pack that nobody has judged yet.
//!
//! A script reads the Python of the folder without running it and tells which inputs of nodes come into paths, addresses
//! and code. Printed are those that are in no list of the gateway's node policy and not among the judged ones. Each then
//! gets a place: in `known.rs` of the policy if it leads out of ComfyUI's directories, else in `judged.rs` with the reason.
//! The script follows what is written down; it does not see what a pack hides.

mod judged;
#[path = "../../gateway/src/jobs/prompt/policy/known.rs"]
mod known;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::Value;

use crate::process::Program;
use crate::progress;

const SCRIPT: &str = include_str!("nodes/look.py");

/// What `cargo xtask nodes` takes.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Folder of a ComfyUI or of a node pack
    folder: PathBuf,
    /// Also prints those that are judged, with their judgement
    #[arg(long)]
    all: bool,
}

/// Prints the nodes of a folder.
pub(crate) fn nodes(options: &Options) -> Result<ExitCode> {
    let sights = look(&options.folder)?;
    let mut unjudged = 0;
    for (class, sights) in &sights.by_class {
        for sight in sights {
            let judgement = sight.judgement(class);
            unjudged += usize::from(judgement.is_none());
            if judgement.is_none() || options.all {
                let judgement = judgement.map_or_else(String::new, |text| format!("  ({text})"));
                progress::line(&format!(
                    "{class}.{}  {} by {}  {}:{}{judgement}",
                    sight.input, sight.kind, sight.call, sight.file, sight.line
                ));
            }
        }
    }
    for file in &sights.broken {
        progress::line(&format!("cannot be read: {file}"));
    }
    progress::line(&format!(
        "{unjudged} inputs of nodes are not judged yet, {} look as if they reached something.",
        sights.by_class.values().map(Vec::len).sum::<usize>()
    ));
    Ok(ExitCode::SUCCESS)
}

/// What the script saw.
#[derive(Debug)]
struct Sights {
    by_class: BTreeMap<String, Vec<Sight>>,
    /// Files that are no Python.
    broken: Vec<String>,
}

/// An input that comes into a path, an address or code.
#[derive(Debug)]
struct Sight {
    input: String,
    kind: String,
    call: String,
    file: String,
    line: u64,
}

impl Sight {
    /// Where it is judged, in words.
    fn judgement(&self, class: &str) -> Option<String> {
        let input = (class, self.input.as_str());
        if known::FILE_ACCESS.contains(&class) {
            return Some("refused as a whole".to_owned());
        }
        if known::FILE_INPUTS.contains(&input) {
            return Some("plain names only".to_owned());
        }
        if known::WORD_INPUTS.contains(&input) {
            return Some("words only".to_owned());
        }
        let mut numbers = known::NUMBER_INPUTS.iter();
        if numbers.any(|(class, name, _)| (*class, *name) == input) {
            return Some("numbers only".to_owned());
        }
        judged::HARMLESS
            .iter()
            .find(|(other, name, _)| *other == class && (*name == self.input || *name == "*"))
            .map(|(_, _, reason)| format!("harmless: {reason}"))
    }
}

fn look(folder: &Path) -> Result<Sights> {
    ensure!(folder.is_dir(), "{} is no folder", folder.display());
    let python = if cfg!(windows) { "python" } else { "python3" };
    let told = Program::new(python)
        .args(["-c", SCRIPT])
        .arg(folder)
        .output()
        .context("reading nodes needs Python 3.9 or newer")?;
    let told: Value = serde_json::from_str(&told).context("what the script says is no JSON")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut by_class: BTreeMap<String, Vec<Sight>> = BTreeMap::new();
    for node in told["nodes"].as_array().into_iter().flatten() {
        by_class
            .entry(text(&node["class"]))
            .or_default()
            .push(Sight {
                input: text(&node["input"]),
                kind: text(&node["kind"]),
                call: text(&node["call"]),
                file: text(&node["file"]),
                line: node["line"].as_u64().unwrap_or_default(),
            });
    }
    Ok(Sights {
        by_class,
        broken: told["broken"]
            .as_array()
            .into_iter()
            .flatten()
            .map(text)
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const PACK: &str = r#"
import os, requests, subprocess
from comfy_api.latest import io
import folder_paths
from .helpers import fetch_page

class AnyFile:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"path": ("STRING", {}), "image": ("IMAGE",), "count": ("INT", {})}}
    FUNCTION = "run"
    def run(self, path, image, count):
        where = os.path.join(folder_paths.get_input_directory(), path.strip())
        return (self.read(where), image.save(count))
    def read(self, place):
        with open(place) as file:
            return file.read()

class Checked(AnyFile):
    def run(self, path, image, count):
        name = folder_paths.get_full_path("checkpoints", path)
        return (open(name).read(),)

class Page:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"url": ("STRING", {}), "note": ("STRING", {})}}
    FUNCTION = "go"
    def go(self, url, note):
        print(note)
        return fetch_page(url)

class Shell(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="Shell.V3", inputs=[io.String.Input("command"), io.Int.Input("times")])
    @classmethod
    def execute(cls, command, times):
        for word in command.split(";"):
            subprocess.run(word, shell=True, timeout=times)

class Plain:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"text": ("STRING", {})}}
    FUNCTION = "go"
    def go(self, text):
        with open("fixed.txt") as file:
            return (text + file.read(),)

class LoadImage:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": (["a.png"],)}}
    FUNCTION = "go"
    def go(self, image):
        return open(image)

NODE_CLASS_MAPPINGS = {"Any File": AnyFile, "Checked": Checked, "Plain": Plain, "LoadImage": LoadImage}
NODE_CLASS_MAPPINGS["Web Page"] = Page
"#;

    #[test]
    fn a_made_up_pack_is_seen_through() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("__init__.py"), PACK).unwrap();
        fs::write(
            folder.path().join("helpers.py"),
            "import requests\ndef fetch_page(address):\n    return requests.get(address + '/x').text\n",
        )
        .unwrap();
        fs::write(folder.path().join("broken.py"), "def (").unwrap();
        let sights = look(folder.path()).unwrap();
        let seen: Vec<String> = sights
            .by_class
            .iter()
            .flat_map(|(class, sights)| {
                sights.iter().map(move |sight| {
                    format!("{class}.{} {} {}", sight.input, sight.kind, sight.call)
                })
            })
            .collect();
        assert_eq!(
            seen,
            [
                "Any File.count writes image.save",
                "Any File.path reads open",
                "LoadImage.image reads open",
                "Shell.V3.command runs code subprocess.run",
                "Web Page.url fetches requests.get",
            ]
        );
        let judged: Vec<&str> = sights
            .by_class
            .iter()
            .filter(|(class, sights)| sights.iter().all(|sight| sight.judgement(class).is_some()))
            .map(|(class, _)| class.as_str())
            .collect();
        assert_eq!(judged, ["LoadImage"]);
        assert_eq!(sights.broken.len(), 1, "{:?}", sights.broken);
        assert!(look(&folder.path().join("nowhere")).is_err());
    }

    #[test]
    fn nothing_is_judged_twice() {
        for (place, (class, input, _)) in judged::HARMLESS.iter().enumerate() {
            let is_again = judged::HARMLESS
                .iter()
                .skip(place + 1)
                .any(|(other, name, _)| other == class && name == input);
            assert!(!is_again, "{class}.{input}");
            assert!(!known::FILE_ACCESS.contains(class), "{class}");
            assert!(
                !known::FILE_INPUTS.contains(&(*class, *input)),
                "{class}.{input}"
            );
        }
    }
}
