//! Replays a socket log: opens and closes the sockets and sends the requests at their times, and compares
//! what each socket hears.

use crate::compare::Comparison;
use crate::record;
use crate::replay::Replay;
use anyhow::{Context as _, Result};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

/// How long a socket may take to hear what it heard in the recording.
const PATIENCE: Duration = Duration::from_secs(6);
/// How long to wait for something that should not come.
const SILENCE: Duration = Duration::from_millis(150);

type Heard = Arc<Mutex<Vec<Value>>>;
/// Everything that happens on all sockets of a scene, in its order, with the milliseconds since its start.
type Written = Arc<Mutex<Vec<Value>>>;

struct Socket {
    commands: mpsc::UnboundedSender<Message>,
    heard: Heard,
    /// How much the recording heard so far.
    expected: usize,
}

/// Plays the log at `last` with the exchanges from `first` up to it.
pub(crate) async fn play(
    replay: &mut Replay<'_>,
    exchanges: &[Value],
    first: usize,
    last: usize,
) -> Result<()> {
    let log = exchanges[last]["ws_log"].as_array().context("a log")?;
    let mut pending: Vec<(usize, Value)> = (first..last)
        .map(|index| (index, exchanges[index].clone()))
        .collect();
    pending.extend(
        unrecorded(&replay.file, last, log)?
            .into_iter()
            .map(|exchange| (last, exchange)),
    );
    pending.reverse();
    let through_api = exchanges[last]["note"]
        .as_str()
        .is_some_and(|note| note.contains("/api/ws"));
    let closes = log
        .iter()
        .filter(|entry| entry["event"] == "closed")
        .count();
    let mut sockets: HashMap<String, Socket> = HashMap::new();
    let mut recorded: Vec<(String, Value)> = Vec::new();
    let mut heard: HashMap<String, Vec<Value>> = HashMap::new();
    let (mut closed, mut busy) = (0, false);
    let start = Instant::now();
    let written = Written::default();
    let write = |mut entry: Value| note(&written, start, &mut entry);
    // What does not need a socket to listen, such as the first request of a theme, goes first.
    for entry in log {
        let Some(name) = entry["socket"].as_str() else {
            continue;
        };
        let due = Duration::from_millis(entry["t"].as_u64().unwrap_or(0));
        match (entry["event"].as_str(), entry["dir"].as_str()) {
            (Some("open"), _) => {
                tokio::time::sleep(due.saturating_sub(start.elapsed())).await;
                write(entry.clone());
                let query = entry["url_query"].as_str().unwrap_or_default();
                let socket = open(
                    replay.server.port,
                    through_api,
                    &replay.names.apply(query),
                    name,
                    start,
                    &written,
                )
                .await?;
                sockets.insert(name.to_owned(), socket);
            }
            (Some("closed"), _) => {
                closed += 1;
                // Everything that is left belongs before the end.
                if closed == closes {
                    while let Some((index, exchange)) = pending.pop() {
                        replay.exchange(index, &exchange).await?;
                    }
                    replay.server.idle().await?;
                }
                tokio::time::sleep(due.saturating_sub(start.elapsed())).await;
                if let Some(socket) = sockets.remove(name) {
                    write(entry.clone());
                    wait(&socket).await;
                    tokio::time::sleep(SILENCE).await;
                    heard.insert(name.to_owned(), take(&socket));
                    let _ = socket.commands.send(Message::Close(None));
                    tokio::time::sleep(SILENCE).await;
                }
            }
            (_, Some("client->server")) => {
                if let Some(socket) = sockets.get(name) {
                    wait(socket).await;
                    write(entry.clone());
                    let text = match &entry["data"] {
                        Value::String(text) => text.clone(),
                        other => other.to_string(),
                    };
                    socket.commands.send(Message::text(text))?;
                }
            }
            (_, Some("server->client")) => {
                if let Some(cue) = cue(entry, busy) {
                    // An interrupt takes effect at the next step only, so it was sent right after the last one.
                    if cue == Cue::Prompt {
                        tokio::time::sleep(due.saturating_sub(start.elapsed())).await;
                    }
                    for socket in sockets.values() {
                        wait(socket).await;
                    }
                    send_pending(replay, &mut pending, cue).await?;
                }
                let remaining =
                    entry["data"]["data"]["status"]["exec_info"]["queue_remaining"].as_u64();
                busy = remaining.map_or(busy, |remaining| remaining > 0);
                if let Some(socket) = sockets.get_mut(name) {
                    socket.expected += 1;
                }
                recorded.push((name.to_owned(), entry.clone()));
            }
            _ => {}
        }
    }
    compare(replay, last, &recorded, &heard);
    let log = written.lock().map(|log| log.clone()).unwrap_or_default();
    let made = json!({ "note": exchanges[last]["note"], "ws_log": log });
    let made = record::neutral(&record::without_traceback(&made), replay.server);
    replay.keep(last, || made);
    replay.outcome.exchanges += 1;
    Ok(())
}

/// Writes down what happened, in the form of the recordings.
fn note(written: &Written, start: Instant, entry: &mut Value) {
    entry["t"] = json!(u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX));
    if let Ok(mut log) = written.lock() {
        log.push(entry.clone());
    }
}

/// Why requests are sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cue {
    /// The next thing heard is about a new prompt.
    Prompt,
    /// The next thing heard is about a stop.
    Interrupt,
}

fn cue(entry: &Value, busy: bool) -> Option<Cue> {
    let data = &entry["data"]["data"];
    match entry["data"]["type"].as_str()? {
        "status" => {
            let waiting = data["status"]["exec_info"]["queue_remaining"].as_u64()? > 0
                && data.get("sid").is_none();
            (waiting && !busy).then_some(Cue::Prompt)
        }
        "logs" => {
            let text = data["entries"][0]["m"].as_str()?;
            untagged(text)
                .starts_with("got prompt")
                .then_some(Cue::Prompt)
        }
        "execution_interrupted" => Some(Cue::Interrupt),
        _ => None,
    }
}

/// Sends what waits, up to the request that the cue is about.
async fn send_pending(
    replay: &mut Replay<'_>,
    pending: &mut Vec<(usize, Value)>,
    cue: Cue,
) -> Result<()> {
    let wanted = match cue {
        Cue::Prompt => "/prompt",
        Cue::Interrupt => "/interrupt",
    };
    if !pending
        .iter()
        .any(|(_, exchange)| exchange["request"]["path"] == wanted)
    {
        return Ok(());
    }
    while let Some((index, exchange)) = pending.pop() {
        let found = exchange["request"]["path"] == wanted;
        replay.exchange(index, &exchange).await?;
        if found {
            break;
        }
    }
    Ok(())
}

/// Requests of a log whose requests were not recorded, told from what the sockets heard.
fn unrecorded(file: &str, index: usize, log: &[Value]) -> Result<Vec<Value>> {
    let client = log
        .iter()
        .find_map(|entry| entry["url_query"].as_str()?.strip_prefix("clientId="))
        .unwrap_or_default();
    let text = include_str!("unrecorded.json").replace("{client}", client);
    let all: Value = serde_json::from_str(&text)?;
    let name = file.rsplit('/').next().unwrap_or(file);
    Ok(all[name][index.to_string()]
        .as_array()
        .cloned()
        .unwrap_or_default())
}

async fn open(
    port: u16,
    through_api: bool,
    query: &str,
    name: &str,
    start: Instant,
    written: &Written,
) -> Result<Socket> {
    let path = if through_api { "api/ws" } else { "ws" };
    let url = format!(
        "ws://127.0.0.1:{port}/{path}{}{query}",
        if query.is_empty() { "" } else { "?" }
    );
    let (stream, _) = tokio_tungstenite::connect_async(url)
        .await
        .context("connecting a socket")?;
    let (mut sink, mut stream) = stream.split();
    let (commands, mut receiver) = mpsc::unbounded_channel::<Message>();
    let heard = Heard::default();
    let store = Arc::clone(&heard);
    let (name, written) = (name.to_owned(), Arc::clone(written));
    tokio::spawn(async move {
        loop {
            tokio::select! {
                command = receiver.recv() => match command {
                    Some(command) => { let _ = sink.send(command).await; }
                    None => break,
                },
                message = stream.next() => match message {
                    Some(Ok(message)) => if let (Some(value), Ok(mut heard)) = (decode(&message), store.lock()) {
                        let mut entry = json!({ "t": 0, "socket": name, "dir": "server->client" });
                        entry["kind"] = value["kind"].clone();
                        entry["data"] = value["data"].clone();
                        note(&written, start, &mut entry);
                        heard.push(value);
                    },
                    _ => break,
                },
            }
        }
    });
    Ok(Socket {
        commands,
        heard,
        expected: 0,
    })
}

/// A message in the form of the recording.
fn decode(message: &Message) -> Option<Value> {
    match message {
        Message::Text(text) => {
            let data: Value = serde_json::from_str(text.as_str()).unwrap_or(Value::Null);
            Some(json!({ "kind": "text", "data": data }))
        }
        Message::Binary(bytes) => Some(json!({ "kind": "binary", "data": frame(bytes) })),
        _ => None,
    }
}

fn frame(bytes: &[u8]) -> Value {
    let number = |at: usize| {
        let four = bytes.get(at..at + 4).and_then(|four| four.try_into().ok());
        four.map_or(0, u32::from_be_bytes)
    };
    let rest = |at: usize| bytes.get(at..).unwrap_or_default();
    let magic = |at: usize| {
        let hex: String = rest(at)
            .iter()
            .take(4)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("image bytes {hex}")
    };
    let length = usize::try_from(number(4)).unwrap_or(0);
    let layout = match number(0) {
        1 => json!({ "u32be@0": 1, "u32be@4 image_type": number(4), "rest": magic(8) }),
        3 => json!({
            "u32be@4 node_id_len": number(4),
            "node_id": String::from_utf8_lossy(rest(8).get(..length).unwrap_or_default()),
            "text": String::from_utf8_lossy(rest(8 + length)),
        }),
        4 => json!({
            "u32be@4 json_len": number(4),
            "json": serde_json::from_slice::<Value>(rest(8).get(..length).unwrap_or_default()).unwrap_or(Value::Null),
            "image_head": magic(8 + length).trim_start_matches("image bytes "),
        }),
        _ => Value::Null,
    };
    json!({ "event_type": number(0), "layout": layout })
}

async fn wait(socket: &Socket) {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        if socket
            .heard
            .lock()
            .map_or(true, |heard| heard.len() >= socket.expected)
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn take(socket: &Socket) -> Vec<Value> {
    socket
        .heard
        .lock()
        .map(|heard| heard.clone())
        .unwrap_or_default()
}

fn is_log(message: &Value) -> bool {
    message["data"]["type"] == "logs"
}

fn compare(
    replay: &mut Replay<'_>,
    index: usize,
    recorded: &[(String, Value)],
    heard: &HashMap<String, Vec<Value>>,
) {
    let mut names = replay.names.clone();
    let mut differences = Vec::new();
    let mut used = Vec::new();
    let mut sockets: Vec<&String> = heard.keys().collect();
    sockets.sort();
    for socket in sockets {
        let of_socket = || {
            recorded
                .iter()
                .filter(|(name, _)| name == socket)
                .map(|(_, entry)| entry)
        };
        // Log lines travel beside the events, so only their own order counts.
        for logs in [false, true] {
            let before: Vec<&Value> = of_socket().filter(|entry| is_log(entry) == logs).collect();
            let now: Vec<&Value> = heard[socket]
                .iter()
                .filter(|message| is_log(message) == logs)
                .collect();
            let mut comparison = Comparison {
                kind: replay.server.kind,
                file: &replay.file,
                exchange: index,
                names: &mut names,
                differences: Vec::new(),
                used: Vec::new(),
            };
            let kinds = |messages: &[&Value]| -> Vec<String> {
                messages.iter().map(|message| kind(message)).collect()
            };
            let place = if logs {
                "logs (order)"
            } else {
                "events (order)"
            };
            comparison.order(place, &kinds(&before), &kinds(&now));
            for (place, (before, now)) in before.iter().zip(&now).enumerate() {
                if kind(before) != kind(now) {
                    break;
                }
                let name = if logs { "logs" } else { "events" };
                match before["data"].get("layout") {
                    Some(layout) => comparison.json(
                        &format!("{name}/{place}/layout"),
                        layout,
                        &now["data"]["layout"],
                    ),
                    None => {
                        comparison.json(&format!("{name}/{place}"), &before["data"], &now["data"])
                    }
                }
            }
            differences.extend(
                comparison
                    .differences
                    .into_iter()
                    .map(|text| format!("socket {socket}: {text}")),
            );
            used.extend(comparison.used);
        }
    }
    replay.names = names;
    replay.outcome.used.extend(used);
    for difference in differences {
        replay
            .outcome
            .differences
            .push(format!("{} [{index}] {difference}", replay.file));
    }
}

/// A line of the log without colours and without the level that newer versions put before it.
fn untagged(text: &str) -> String {
    let mut plain = String::new();
    let mut parts = text.split('\u{1b}');
    plain.push_str(parts.next().unwrap_or_default());
    for part in parts {
        plain.push_str(part.split_once('m').map_or(part, |(_, rest)| rest));
    }
    let level = plain
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("] "))
        .filter(|(level, _)| level.bytes().all(|byte| byte.is_ascii_uppercase()));
    level.map_or_else(|| plain.clone(), |(_, rest)| rest.to_owned())
}

/// What a message is, in a word; log lines and states say which.
fn kind(message: &Value) -> String {
    match message["data"]["type"].as_str() {
        Some("logs") => {
            let text = message["data"]["data"]["entries"][0]["m"]
                .as_str()
                .unwrap_or_default();
            let start: String = untagged(text)
                .chars()
                .take_while(|character| character.is_ascii_alphabetic())
                .collect();
            format!("logs {start}")
        }
        Some(kind) => kind.to_owned(),
        None => format!("binary {}", message["data"]["event_type"]),
    }
}
