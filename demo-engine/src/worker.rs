//! The thread that runs prompts one after the other, and the order in which it tells about it.

use crate::assets::Place;
use crate::graph::{self, order::Pending, signature::Signatures};
use crate::json::{Json, json};
use crate::nodes::catalogue::Catalogue;
use crate::nodes::{self, Call, Failure, Outcome, Reporter, Value};
use crate::queue::{Finished, Item, Work};
use crate::socket::Preview;
use crate::state::{Engine, now};
use image::RgbImage;
use rand::RngExt as _;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

const LETTERS: &[u8] = b"abcdefghijklmnopqrstupvxyz";

/// What is kept from one prompt to the next.
#[derive(Debug, Default)]
struct Kept {
    /// Results by signature, of the nodes of the last prompt only. The original keeps those of former prompts
    /// too while more memory is free than most machines have.
    results: HashMap<String, Outcome>,
    /// Five letters by node id and class, as long as each prompt has that node again.
    prefixes: HashMap<(String, String), String>,
}

/// Runs prompts until something ends the thread, as an exception ends ComfyUI's: the queue then stands still.
pub(crate) fn run(engine: &Arc<Engine>) {
    let mut kept = Kept::default();
    loop {
        match engine
            .queue
            .take(|remaining| engine.announce_queue(remaining))
        {
            Work::Free { results } => {
                // Not a word of the original's: tests see by it that a gateway asked for room.
                engine.say("Unloading all models");
                if results {
                    kept = Kept::default();
                }
            }
            Work::Die(reason) => {
                engine.say(&format!(
                    "Exception in thread Thread-1 (prompt_worker):\n{reason}"
                ));
                return;
            }
            Work::Prompt(item) => prompt(engine, item, &mut kept),
        }
    }
}

fn prompt(engine: &Engine, item: Arc<Item>, kept: &mut Kept) {
    let started = Instant::now();
    let client = item
        .extra
        .get("client_id")
        .filter(|client| !client.is_null())
        .cloned();
    engine.interrupt.store(false, Ordering::SeqCst);
    {
        let mut current = engine.current.lock();
        current.client.clone_from(&client);
        current.node = None;
    }
    let mut job = Job {
        engine,
        item: &item,
        client: client.as_ref(),
        messages: Vec::new(),
        progress: Vec::new(),
        executed: Vec::new(),
        outputs: json!({}),
        meta: json!({}),
    };
    let success = job.execute(kept);
    let mut status =
        json!({ "status_str": if success { "success" } else { "error" }, "completed": success });
    status.set("messages", std::mem::take(&mut job.messages));
    let (outputs, meta) = (job.outputs, job.meta);
    engine.current.lock().node = None;
    let id = item.id.clone();
    let finished = Finished {
        item,
        outputs,
        meta,
        status,
    };
    engine
        .queue
        .finish(finished, |remaining| engine.announce_queue(remaining));
    if client.is_some() {
        let data = json!({ "node": null, "prompt_id": id });
        engine.sockets.send("executing", &data, client.as_ref());
    }
    engine.say(&format!(
        "\u{1b}[32mPrompt executed in {:.2} seconds\u{1b}[0m",
        started.elapsed().as_secs_f64()
    ));
    if !engine.options.cache {
        *kept = Kept::default();
    }
}

/// How far a node is, in the form of `progress_state`.
#[derive(Debug)]
struct Progress {
    node: String,
    value: Json,
    most: Json,
    finished: bool,
}

struct Job<'a> {
    engine: &'a Engine,
    item: &'a Item,
    client: Option<&'a Json>,
    messages: Vec<Json>,
    progress: Vec<Progress>,
    executed: Vec<String>,
    outputs: Json,
    meta: Json,
}

impl Job<'_> {
    fn execute(&mut self, kept: &mut Kept) -> bool {
        let prompt = &self.item.prompt;
        let catalogue = Catalogue::get();
        self.message(
            "execution_start",
            json!({ "prompt_id": self.item.id }),
            false,
        );
        let signatures = Signatures::new(prompt, catalogue, |class, inputs| {
            nodes::changed(self.engine, class, inputs)
        });
        let alive: HashSet<&String> = signatures.values().collect();
        kept.results
            .retain(|signature, _| alive.contains(signature));
        kept.prefixes
            .retain(|(node, class), _| graph::class(prompt, node) == Some(class));
        let cached: Vec<String> = prompt
            .as_object()
            .unwrap_or_default()
            .iter()
            .map(|(node, _)| node.clone())
            .filter(|node| {
                signatures
                    .get(node)
                    .is_some_and(|signature| kept.results.contains_key(signature))
            })
            .collect();
        let mut data = json!({});
        data.set(
            "nodes",
            cached.iter().map(String::as_str).collect::<Vec<_>>(),
        );
        data.set("prompt_id", self.item.id.as_str());
        self.message("execution_cached", data, false);
        let cached: HashSet<String> = cached.into_iter().collect();
        let is_output =
            |node: &str| graph::class(prompt, node).is_some_and(|class| catalogue.is_output(class));
        let mut pending = Pending::new(prompt, &self.item.outputs, &cached);
        while let Some(node) = pending.next(prompt, is_output) {
            let signature = signatures.get(&node).unwrap_or_default().to_owned();
            if cached.contains(&node) {
                if let Some(outcome) = kept.results.get(&signature) {
                    self.show_again(&node, outcome);
                }
                continue;
            }
            match self.node(&node, &signatures, kept) {
                Ok(outcome) => {
                    kept.results.insert(signature, outcome);
                    self.executed.push(node);
                }
                Err((failure, inputs)) => {
                    self.failed(&node, &failure, inputs);
                    return false;
                }
            }
        }
        self.message(
            "execution_success",
            json!({ "prompt_id": self.item.id }),
            false,
        );
        true
    }

    /// Tells a cached node's result once more.
    fn show_again(&mut self, node: &str, outcome: &Outcome) {
        if let Some(ui) = &outcome.ui {
            self.shown(node, ui);
        }
        self.progress.push(Progress {
            node: node.to_owned(),
            value: 1_u32.into(),
            most: 1_u32.into(),
            finished: true,
        });
        self.announce_progress();
    }

    fn shown(&mut self, node: &str, ui: &Json) {
        if self.client.is_some() {
            let mut data = json!({ "node": node, "display_node": node });
            data.set("output", ui.clone());
            data.set("prompt_id", self.item.id.as_str());
            self.engine.sockets.send("executed", &data, self.client);
        }
        self.outputs.set(node, ui.clone());
        self.meta.set(
            node,
            json!({ "node_id": node, "display_node": node, "parent_node": null, "real_node_id": node }),
        );
    }

    /// Gives every file that was made a row in the asset list, and its id to the entry.
    fn register(&self, ui: &mut Json) {
        let Json::Object(kinds) = ui else { return };
        for (_, items) in kinds {
            let Json::List(items) = items else { continue };
            for item in items {
                let text = |name: &str| item.get(name).and_then(Json::as_str).unwrap_or_default();
                let root = match text("type") {
                    "output" => "output",
                    "temp" => "temp",
                    _ => continue,
                };
                let Some(directory) = self.engine.directory(root) else {
                    continue;
                };
                let below = [text("subfolder"), text("filename")].join("/");
                let below = below.trim_start_matches('/').to_owned();
                let place = Place {
                    root,
                    path: directory.join(&below),
                    name: below,
                };
                let mut assets = self.engine.assets.lock();
                if let Some(row) = assets.register(place, None, &[root]) {
                    row.job = Some(self.item.id.clone());
                    // Files of jobs are hashed only when the owner asks for it.
                    row.hash = None;
                    let id = row.id.clone();
                    item.set("id", id);
                }
            }
        }
    }

    fn node(
        &mut self,
        node: &str,
        signatures: &Signatures,
        kept: &mut Kept,
    ) -> Result<Outcome, (Failure, Json)> {
        let prompt = &self.item.prompt;
        let class = graph::class(prompt, node).unwrap_or_default();
        self.progress.push(Progress {
            node: node.to_owned(),
            value: 0.0.into(),
            most: 1.0.into(),
            finished: false,
        });
        self.engine.current.lock().node = Some(node.to_owned());
        self.announce_progress();
        if self.client.is_some() {
            let data = json!({ "node": node, "display_node": node, "prompt_id": self.item.id });
            self.engine.sockets.send("executing", &data, self.client);
        }
        let inputs = collect(prompt, node, signatures, &kept.results);
        let shown = self.inputs_for_errors(class, node, &inputs);
        if self.engine.interrupted() {
            return Err((Failure::Interrupted, shown));
        }
        let key = (node.to_owned(), class.to_owned());
        let prefix = kept
            .prefixes
            .entry(key)
            .or_insert_with(five_letters)
            .clone();
        let item = self.item;
        let mut call = Call {
            engine: self.engine,
            node,
            inputs,
            prompt,
            extra_pnginfo: item.extra.get("extra_pnginfo"),
            prefix: &prefix,
            previews: self.engine.options.previews
                && item.extra.get("preview_method").and_then(Json::as_str) != Some("none"),
            reporter: &mut Steps { job: self, node },
        };
        let mut outcome = nodes::run(&mut call, class).map_err(|failure| (failure, shown))?;
        if let (Some(ui), true) = (&mut outcome.ui, self.engine.options.assets) {
            self.register(ui);
        }
        if let Some(ui) = &outcome.ui {
            self.shown(node, ui);
        }
        if let Some(progress) = self
            .progress
            .iter_mut()
            .find(|progress| progress.node == node)
        {
            progress.value = progress.most.clone();
            progress.finished = true;
        }
        self.announce_progress();
        Ok(outcome)
    }

    fn failed(&mut self, node: &str, failure: &Failure, inputs: Json) {
        let class = graph::class(&self.item.prompt, node).unwrap_or_default();
        let executed: Vec<&str> = self.executed.iter().map(String::as_str).collect();
        let mut data = json!({ "prompt_id": self.item.id, "node_id": node, "node_type": class, "executed": executed });
        let Failure::Raised(kind, text) = failure else {
            self.engine.say("Processing interrupted");
            self.message("execution_interrupted", data, true);
            return;
        };
        self.engine
            .fail(&format!("!!! Exception during processing !!! {text}"));
        let trace = format!("  File \"demo-engine\", node {node}, in {class}\n");
        self.engine.fail(&format!(
            "Traceback (most recent call last):\n{trace}{kind}: {text}\n"
        ));
        data.set("exception_message", format!("{text}\n"));
        data.set("exception_type", *kind);
        data.set("traceback", vec![trace]);
        data.set("current_inputs", inputs);
        let known = self.item.prompt.as_object().unwrap_or_default();
        data.set(
            "current_outputs",
            known
                .iter()
                .map(|(node, _)| node.as_str())
                .collect::<Vec<_>>(),
        );
        self.message("execution_error", data, false);
    }

    /// Inputs as an error shows them: every value in a list, pictures as the start of their numbers.
    fn inputs_for_errors(&self, class: &str, node: &str, inputs: &[(String, Vec<Value>)]) -> Json {
        let mut shown = json!({});
        for (name, values) in inputs {
            let list: Vec<Json> = values
                .iter()
                .map(|value| match value {
                    Value::Plain(value @ (Json::List(_) | Json::Object(_))) => {
                        value.python_text().into()
                    }
                    Value::Plain(value) => value.clone(),
                    Value::Images(_) | Value::Mask(_) => "tensor([[[[...]]]])".into(),
                    Value::Words(words) => words.as_str().into(),
                    Value::Model | Value::Latent(_) => "<demo>".into(),
                })
                .collect();
            shown.set(name, list);
        }
        for hidden in Catalogue::get().hidden(class) {
            let value: Json = match hidden {
                "unique_id" => node.into(),
                "prompt" => self.item.prompt.python_text().into(),
                "extra_pnginfo" => match self.item.extra.get("extra_pnginfo") {
                    None | Some(Json::Null) => Json::Null,
                    Some(value) => value.python_text().into(),
                },
                _ => Json::Null,
            };
            shown.set(hidden, vec![value]);
        }
        shown
    }

    /// Keeps an event for the history and sends it: to the client, or with `to_all` also to everybody when
    /// there is no client.
    fn message(&mut self, event: &str, mut data: Json, to_all: bool) {
        data.set("timestamp", now());
        if self.client.is_some() || to_all {
            self.engine.sockets.send(event, &data, self.client);
        }
        self.messages.push(Json::List(vec![event.into(), data]));
    }

    /// Sends how far all nodes are; without a client this goes to everybody.
    fn announce_progress(&self) {
        let mut states = json!({});
        for progress in &self.progress {
            let mut state = json!({});
            state.set("value", progress.value.clone());
            state.set("max", progress.most.clone());
            state.set(
                "state",
                if progress.finished {
                    "finished"
                } else {
                    "running"
                },
            );
            state.set("node_id", progress.node.as_str());
            state.set("prompt_id", self.item.id.as_str());
            state.set("display_node_id", progress.node.as_str());
            state.set("parent_node_id", Json::Null);
            state.set("real_node_id", progress.node.as_str());
            states.set(&progress.node, state);
        }
        let mut data = json!({ "prompt_id": self.item.id });
        data.set("nodes", states);
        self.engine
            .sockets
            .send("progress_state", &data, self.client);
    }
}

/// Brings the inputs of a node together: literals as they stand, links as what they lead to.
fn collect(
    prompt: &Json,
    node: &str,
    signatures: &Signatures,
    results: &HashMap<String, Outcome>,
) -> Vec<(String, Vec<Value>)> {
    graph::inputs(prompt, node)
        .iter()
        .map(|(name, value)| {
            let values = match graph::link(value) {
                Some((source, slot)) => signatures
                    .get(source)
                    .and_then(|signature| results.get(signature))
                    .and_then(|outcome| outcome.slots.get(slot).cloned())
                    .unwrap_or_default(),
                None => vec![Value::Plain(value.clone())],
            };
            (name.clone(), values)
        })
        .collect()
}

/// Reports the steps of one node.
struct Steps<'a, 'b> {
    job: &'a mut Job<'b>,
    node: &'a str,
}

impl Reporter for Steps<'_, '_> {
    fn step(
        &mut self,
        value: u32,
        most: u32,
        preview: Option<(&RgbImage, bool)>,
    ) -> Result<(), Failure> {
        let job = &mut *self.job;
        if job.engine.interrupted() {
            return Err(Failure::Interrupted);
        }
        if let Some(progress) = job
            .progress
            .iter_mut()
            .find(|progress| progress.node == self.node)
        {
            progress.value = value.into();
            progress.most = most.into();
        }
        job.announce_progress();
        let sockets = &job.engine.sockets;
        let encoded = preview.map(|(picture, jpeg)| (encode(picture, jpeg), jpeg));
        let frame = encoded.as_ref().map(|(bytes, jpeg)| Preview {
            jpeg: *jpeg,
            bytes,
            node: self.node,
            prompt: &job.item.id,
        });
        let with_metadata = sockets.takes_metadata(job.client);
        if let (Some(frame), true) = (&frame, with_metadata) {
            sockets.send_preview_with_metadata(frame, job.client);
        }
        let data =
            json!({ "value": value, "max": most, "prompt_id": job.item.id, "node": self.node });
        sockets.send("progress", &data, job.client);
        if let (Some(frame), false) = (&frame, with_metadata) {
            sockets.send_preview(frame, job.client);
        }
        Ok(())
    }

    fn text(&mut self, text: &str, to_all: bool) {
        let client = if to_all { None } else { self.job.client };
        self.job.engine.sockets.send_text(self.node, text, client);
    }
}

fn encode(picture: &RgbImage, jpeg: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let written = if jpeg {
        image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 85)
            .encode_image(picture)
            .map_err(drop)
    } else {
        nodes::png_bytes(picture, picture.dimensions(), png::ColorType::Rgb, &[])
            .map(|png| bytes = png)
            .map_err(drop)
    };
    if written.is_err() {
        bytes.clear();
    }
    bytes
}

fn five_letters() -> String {
    let mut random = rand::rng();
    (0..5)
        .map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())]))
        .collect()
}
