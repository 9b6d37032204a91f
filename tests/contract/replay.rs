//! Replays a recorded file, exchange by exchange.

use crate::compare::{Comparison, Names};
use crate::record;
use crate::requests;
use crate::scene;
use crate::server::{Server, close};
use crate::wire::{self, Answer};
use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Answers that depend on a job are asked for again until they fit, this long.
const PATIENCE: Duration = Duration::from_secs(8);
/// The same while recording, where an answer that never fits is news and not a fault: for what a finished job
/// leaves, and for what changes while the next job already runs.
const PATIENCE_FINISHED: Duration = Duration::from_secs(2);
const PATIENCE_RUNNING: Duration = Duration::from_millis(250);
/// Headers that have to be the same.
const SAME_HEADERS: &[&str] = &[
    "content-type",
    "cache-control",
    "pragma",
    "expires",
    "accept-ranges",
    "allow",
    "content-range",
    "content-disposition",
    "transfer-encoding",
];
/// Headers that have to be there, or not, as recorded.
const PRESENT_HEADERS: &[&str] = &["etag", "last-modified", "content-length"];

/// What a file showed.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) exchanges: usize,
    pub(crate) differences: Vec<String>,
    pub(crate) used: Vec<usize>,
}

/// The place of an exchange and everything needed to replay it.
pub(crate) struct Replay<'a> {
    pub(crate) server: &'a Server,
    pub(crate) names: Names,
    pub(crate) file: String,
    pub(crate) outcome: Outcome,
    /// New exchanges by their place, while recording.
    pub(crate) made: Option<BTreeMap<usize, Value>>,
    /// The last body, for what is looked at inside it.
    last: Vec<u8>,
}

impl<'a> Replay<'a> {
    pub(crate) fn new(server: &'a Server) -> Self {
        let mut names = Names::default();
        names.learn("/srv/comfy", &server.root.to_string_lossy());
        Self {
            server,
            names,
            file: String::new(),
            outcome: Outcome::default(),
            made: None,
            last: Vec::new(),
        }
    }

    /// Keeps a new exchange, while recording.
    pub(crate) fn keep(&mut self, index: usize, exchange: impl FnOnce() -> Value) {
        if let Some(made) = &mut self.made {
            made.insert(index, exchange());
        }
    }

    /// Replays one file; the differences are in the outcome.
    pub(crate) async fn file(
        &mut self,
        version: &str,
        name: &str,
        recording: &Value,
    ) -> Result<Outcome> {
        self.file = format!("{version}/{name}");
        self.outcome = Outcome::default();
        prepare(self.server, name)?;
        let exchanges = recording["exchanges"].as_array().context("exchanges")?;
        let mut at = 0;
        while at < exchanges.len() {
            // A socket log comes after the requests that were sent while it was written.
            let scene = exchanges[at..]
                .iter()
                .position(|exchange| exchange.get("ws_log").is_some());
            match scene {
                Some(offset) if belongs(&exchanges[at..at + offset]) => {
                    scene::play(self, exchanges, at, at + offset)
                        .await
                        .with_context(|| format!("{name} [{}]", at + offset))?;
                    at += offset + 1;
                }
                _ => {
                    self.exchange(at, &exchanges[at])
                        .await
                        .with_context(|| format!("{name} [{at}]"))?;
                    at += 1;
                }
            }
        }
        Ok(std::mem::take(&mut self.outcome))
    }

    /// Replays one exchange.
    pub(crate) async fn exchange(&mut self, index: usize, exchange: &Value) -> Result<()> {
        self.outcome.exchanges += 1;
        if exchange.get("target").is_some() {
            return self.raw(index, exchange).await;
        }
        if let Some(snippet) = exchange["snippet"].as_str() {
            self.keep(index, || exchange.clone());
            return self.snippet(index, snippet).await;
        }
        if exchange.get("text").is_some() {
            self.keep(index, || exchange.clone());
            return self.texts(index, exchange);
        }
        let request = &exchange["request"];
        let method = request["method"].as_str().context("method")?;
        let path = request["path"].as_str().context("path")?;
        // Clearing the history has to wait for what is on its way into it.
        if method == "POST" && path == "/history" {
            self.server.idle().await?;
        }
        // Jobs are listed by the millisecond they were made in.
        if method == "POST" && path == "/prompt" {
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        let made = requests::body(&self.renamed(exchange))?;
        let repeatable = matches!(method, "GET" | "HEAD");
        let started = Instant::now();
        loop {
            let answer = self.ask(exchange, &made).await?;
            let mut names = self.names.clone();
            let mut comparison = Comparison {
                kind: self.server.kind,
                file: &self.file,
                exchange: index,
                names: &mut names,
                differences: Vec::new(),
                used: Vec::new(),
            };
            compare(&mut comparison, &exchange["response"], &answer);
            let (differences, used) = (comparison.differences, comparison.used);
            let recording = self.made.is_some();
            let (patience, fits) = if recording {
                let news = |text: &String| text.contains("recorded nothing, got");
                let finished = path.starts_with("/history") || path.starts_with("/view");
                let patience = if finished {
                    PATIENCE_FINISHED
                } else {
                    PATIENCE_RUNNING
                };
                (patience, differences.iter().all(news))
            } else {
                (PATIENCE, differences.is_empty())
            };
            if fits || !repeatable || started.elapsed() > patience || !waits(path) {
                self.names = names;
                if recording {
                    let made = record::exchange(&self.renamed(exchange), &answer, self.server);
                    self.keep(index, || made);
                }
                self.last = answer.body;
                self.report(index, exchange, differences);
                self.outcome.used.extend(used);
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// An exchange with this run's identifiers in its request.
    fn renamed(&self, exchange: &Value) -> Value {
        let mut renamed = exchange.clone();
        renamed["request"] = self.names.apply_all(&exchange["request"]);
        renamed
    }

    async fn ask(&self, exchange: &Value, made: &requests::Made) -> Result<Answer> {
        let request = &exchange["request"];
        let mut target = self
            .names
            .apply(request["path"].as_str().unwrap_or_default());
        if let Some(query) = request["query"].as_str() {
            // A path inside a query stays as it was escaped.
            target = format!("{target}?{}", self.names.apply(query));
        }
        let mut headers = close();
        for (name, value) in request["headers"].as_object().into_iter().flatten() {
            let value = self.names.apply(value.as_str().unwrap_or_default());
            // The page's own origin is that of the recorded server.
            let own = name == "Origin" && value.starts_with("http://127.0.0.1:");
            let value = if own {
                format!("http://127.0.0.1:{}", self.server.port)
            } else {
                value
            };
            headers.push((name.clone(), value));
        }
        if made.chunked {
            headers.push(("Transfer-Encoding".to_owned(), "chunked".to_owned()));
        }
        let has_kind = headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        if let (Some(kind), false) = (&made.kind, has_kind) {
            headers.push(("Content-Type".to_owned(), kind.clone()));
        }
        let method = request["method"].as_str().unwrap_or("GET");
        wire::ask(
            self.server.port,
            method,
            &target,
            &headers,
            made.bytes.as_deref(),
        )
        .await
    }

    fn report(&mut self, index: usize, exchange: &Value, differences: Vec<String>) {
        let request = &exchange["request"];
        let what = match request["path"].as_str() {
            Some(path) => format!("{} {path}", request["method"].as_str().unwrap_or_default()),
            None => exchange["target"].as_str().unwrap_or_default().to_owned(),
        };
        for difference in differences {
            self.outcome
                .differences
                .push(format!("{} [{index}] {what}: {difference}", self.file));
        }
    }

    /// A request target of any form, of which only the status and the length were recorded.
    async fn raw(&mut self, index: usize, exchange: &Value) -> Result<()> {
        let target = exchange["target"].as_str().unwrap_or_default();
        let method = exchange["method"].as_str().unwrap_or("GET");
        let mut headers = Vec::new();
        for line in exchange["extra_header"]
            .as_str()
            .unwrap_or_default()
            .lines()
        {
            let (name, value) = line.split_once(": ").context("a header")?;
            // A second Host needs the first one to be there.
            if name == "Host" {
                headers.push(("Host".to_owned(), format!("127.0.0.1:{}", self.server.port)));
            }
            headers.push((name.to_owned(), value.to_owned()));
        }
        let answer = wire::ask(self.server.port, method, target, &headers, None).await;
        let mut names = self.names.clone();
        let mut comparison = Comparison {
            kind: self.server.kind,
            file: &self.file,
            exchange: index,
            names: &mut names,
            differences: Vec::new(),
            used: Vec::new(),
        };
        let line = exchange["status_line"].as_str().unwrap_or_default();
        let status: u16 = line.split(' ').nth(1).unwrap_or_default().parse()?;
        let mut made = exchange.clone();
        match answer {
            Ok(answer) => {
                made["status_line"] = json!(format!("HTTP/1.1 {}", answer.status));
                made["body_len"] = json!(answer.wire_length);
                comparison.plain("status", &status, &answer.status);
                let length = exchange["body_len"].as_u64().unwrap_or(0);
                comparison.plain("length", &length, &(answer.wire_length as u64));
            }
            Err(error) => comparison.plain("status", &status.to_string(), &error.to_string()),
        }
        let (differences, used) = (comparison.differences, comparison.used);
        self.keep(index, || made);
        self.report(index, exchange, differences);
        self.outcome.used.extend(used);
        Ok(())
    }

    /// The raw text of the history has to contain what was recorded of it.
    async fn snippet(&mut self, index: usize, snippet: &str) -> Result<()> {
        self.server.idle().await?;
        let wanted = snippet.split(", \"color\"").next().unwrap_or_default();
        let answer = wire::ask(self.server.port, "GET", "/history", &close(), None).await?;
        if !String::from_utf8_lossy(&answer.body).contains(wanted) {
            self.outcome.differences.push(format!(
                "{} [{index}] the history does not contain {wanted}",
                self.file
            ));
        }
        Ok(())
    }

    /// The text chunks of the picture answered last.
    fn texts(&mut self, index: usize, exchange: &Value) -> Result<()> {
        let reader = png::Decoder::new(std::io::Cursor::new(&self.last)).read_info()?;
        let chunks = &reader.info().uncompressed_latin1_text;
        for (key, text) in exchange["text"].as_object().into_iter().flatten() {
            let found = chunks
                .iter()
                .find(|chunk| chunk.keyword == *key)
                .map(|chunk| chunk.text.as_str());
            if found != text.as_str() {
                self.outcome.differences.push(format!(
                    "{} [{index}] {key}: {found:?} in the picture",
                    self.file
                ));
            }
        }
        Ok(())
    }
}

/// Whether requests belong to the socket log after them: those of the themes about sockets do, when a prompt
/// or a subscription is among them.
fn belongs(before: &[Value]) -> bool {
    before
        .iter()
        .all(|exchange| exchange.get("target").is_none())
}

/// Answers that change while jobs run.
fn waits(path: &str) -> bool {
    [
        "/history",
        "/queue",
        "/prompt",
        "/api/jobs",
        "/api/api/jobs",
        "/view",
    ]
    .iter()
    .any(|start| path.starts_with(start))
}

/// What the machine had before the recording of a file.
fn prepare(server: &Server, file: &str) -> Result<()> {
    if file.starts_with("04") {
        #[cfg(unix)]
        {
            let target = server.root.join("three-bytes");
            std::fs::write(&target, "vm\n")?;
            std::os::unix::fs::symlink(target, server.root.join("input/link.png"))?;
        }
    }
    if file.starts_with("10") {
        let directory = server.root.join("output/alice");
        std::fs::create_dir_all(&directory)?;
        std::fs::write(directory.join("secret.png"), requests::png(99, &[])?)?;
    }
    Ok(())
}

fn compare(comparison: &mut Comparison<'_>, recorded: &Value, answer: &Answer) {
    let status = recorded["status"].as_u64().unwrap_or(0);
    comparison.plain("status", &status, &u64::from(answer.status));
    if let Some(headers) = recorded["headers"].as_object() {
        for name in SAME_HEADERS {
            let before = headers
                .get(*name)
                .and_then(Value::as_str)
                .unwrap_or_default();
            let now = answer.header(name).unwrap_or_default();
            comparison.text(&format!("header {name}"), before, now);
        }
        for name in PRESENT_HEADERS {
            let before = headers.get(*name).and_then(Value::as_str);
            let now = answer.header(name);
            comparison.plain(&format!("header {name}"), &before.is_some(), &now.is_some());
            if let (Some(before), Some(now), "etag") = (before, now, *name) {
                comparison.names.learn(before, now);
            }
        }
    }
    if let Some(before) = recorded.get("body") {
        body(comparison, before, answer);
    }
}

fn body(comparison: &mut Comparison<'_>, recorded: &Value, answer: &Answer) {
    let kind = answer.header("content-type").unwrap_or_default();
    match recorded {
        Value::Null if !kind.starts_with("application/json") => {}
        Value::Object(map) if map.contains_key("text_len") => {}
        Value::Object(map) if map.contains_key("binary_len") => {
            // Encoders differ in length; the form of the file does not.
            let head = map["head_hex"].as_str().unwrap_or_default();
            let start: String = answer
                .body
                .iter()
                .take(4)
                .map(|byte| format!("{byte:02x}"))
                .collect();
            comparison.plain(
                "body (first bytes)",
                &&head[..head.len().min(8)],
                &start.as_str(),
            );
        }
        _ if kind.starts_with("application/json") && !answer.body.is_empty() => {
            match serde_json::from_slice::<Value>(&answer.body) {
                Ok(live) => comparison.json("body", recorded, &live),
                Err(_) if recorded.is_string() => {
                    let recorded = recorded.as_str().unwrap_or_default();
                    comparison.text("body", recorded, &String::from_utf8_lossy(&answer.body));
                }
                Err(error) => comparison
                    .differences
                    .push(format!("body: not JSON: {error}")),
            }
        }
        Value::String(text) => {
            comparison.text("body", text, &String::from_utf8_lossy(&answer.body))
        }
        other => comparison.json("body", other, &Value::Null),
    }
}
