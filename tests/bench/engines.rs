//! An engine for each user: what the way to one's own costs, how long it takes to start, how much
//! memory it needs, and ten users at once. With the demo engine; the start and the memory also with
//! the real ComfyUI of `COMFYUI_DIR` (and `COMFYUI_PYTHON`).

use crate::client::{Target as Peer, latencies};
use crate::fixture::{Fixture, Gateway, PASSWORD, USERNAME};
use crate::measurements::{MEGA, SINGLE, only_ours, only_ours_row, verdict};
use crate::process::own_memory;
use crate::table::Target::AtMost;
use crate::table::{Row, median};
use anyhow::{Context as _, Result, ensure};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{WebSocketStream, client_async};

/// Users who work at the same time, and the jobs of each in one round.
const USERS: usize = 10;
const JOBS: usize = 10;
/// Rounds whose growth is measured, after one that warms up.
const WORKING_ROUNDS: usize = 4;
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(180);

fn options(is_separate: bool) -> Vec<String> {
    [
        &format!("separate_users={is_separate}"),
        "gpu_slots=4",
        "comfyui.max_engines=11",
        "comfyui.idle_stop_minutes=0",
        "comfyui.start_wait_seconds=180",
    ]
    .iter()
    .flat_map(|setting| ["--set".to_owned(), (*setting).to_owned()])
    .collect()
}

/// The arguments that name an engine, and what to call it; the real one only if it is there.
fn engines(base: &Path) -> Vec<(&'static str, Vec<String>)> {
    let demo = vec!["--comfyui".to_owned(), "demo".to_owned()];
    let mut all = vec![("demo", demo)];
    if let Ok(folder) = std::env::var("COMFYUI_DIR") {
        let mut real = vec!["--comfyui".to_owned(), folder];
        if let Ok(python) = std::env::var("COMFYUI_PYTHON") {
            real.extend(["--python".to_owned(), python]);
        }
        let arguments = json!(["--cpu", "--base-directory", base]);
        real.extend(["--set".to_owned(), format!("comfyui.args={arguments}")]);
        all.push(("real", real));
    }
    all
}

/// Time of a request that is held until the engine answers, milliseconds.
fn held_until_ready(peer: &Peer) -> Result<f64> {
    let request = peer.request("GET", "/features", "");
    let started = Instant::now();
    peer.connect_for(PATIENCE)?.exchange(&request, 200)?;
    Ok(started.elapsed().as_secs_f64() * 1000.0)
}

/// The way to one's own engine beside the way to the one for all.
pub(crate) fn routing(fixture: &Fixture, count: usize) -> Result<Vec<Row>> {
    let demo = ["--comfyui".to_owned(), "demo".to_owned()];
    let gateways = [false, true].map(|is_separate| {
        fixture.with_engines(1, &[options(is_separate), demo.to_vec()].concat())
    });
    let mut peers = Vec::new();
    for gateway in &gateways {
        let gateway = gateway
            .as_ref()
            .map_err(|error| anyhow::anyhow!("{error:#}"))?;
        let peer = gateway.sign_in()?;
        held_until_ready(&peer)?;
        peers.push(peer);
    }
    let (mut times, mut ratios) = ([Vec::new(), Vec::new()], Vec::new());
    for round in 0..count {
        let mut pair = [0.0; 2];
        for step in 0..2 {
            let index = (round + step) % 2;
            let request = peers[index].request("GET", "/features", "");
            pair[index] = median(&latencies(&peers[index], &request, 200, SINGLE)?) * MEGA;
            times[index].push(pair[index]);
        }
        ratios.push(pair[1] / pair[0]);
    }
    Ok(vec![
        Row {
            name: "Small GET to one engine for all, p50",
            unit: "µs",
            values: only_ours(median(&times[0])),
            verdicts: Vec::new(),
        },
        Row {
            name: "Small GET to one's own engine, p50",
            unit: "µs",
            values: only_ours(median(&times[1])),
            verdicts: vec![verdict("of one for all", median(&ratios), AtMost(1.1))],
        },
    ])
}

/// What starts and needs memory: names of the rows, and their targets.
struct Names {
    cold: &'static str,
    warm: &'static str,
    memory: &'static str,
    limits: Option<[f64; 3]>,
}

fn names(engine: &str) -> Names {
    if engine == "demo" {
        Names {
            cold: "First start of a user's engine (demo)",
            warm: "Start of a user's engine that was stopped (demo)",
            memory: "Memory of a user's engine (demo)",
            limits: Some([2000.0, 1000.0, 30.0]),
        }
    } else {
        Names {
            cold: "First start of a user's engine (ComfyUI)",
            warm: "Start of a user's engine that was stopped (ComfyUI)",
            memory: "Memory of a user's engine (ComfyUI)",
            limits: None,
        }
    }
}

/// From a user's request to its answer, when he comes for the first time and when his engine was
/// stopped; and the memory that admins see.
pub(crate) fn starts(fixture: &Fixture, count: usize) -> Result<Vec<Row>> {
    let base = tempfile::tempdir()?;
    for folder in ["custom_nodes", "models", "input", "output"] {
        std::fs::create_dir_all(base.path().join(folder))?;
    }
    let mut rows = Vec::new();
    for (engine, arguments) in engines(base.path()) {
        // A real one takes its time; twice tells enough.
        let rounds = if engine == "demo" { count } else { 2 };
        let (mut cold, mut warm, mut needed) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            let gateway = fixture.with_engines(2, &[options(true), arguments.clone()].concat())?;
            // The admin's own starts with the gateway; what is measured comes alone.
            held_until_ready(&gateway.token_of(None)?)?;
            let user = gateway.token_of(Some(1))?;
            cold.push(held_until_ready(&user)?);
            gateway.stop_engine_of("user1")?;
            warm.push(held_until_ready(&user)?);
            let list = gateway.admin("GET", "/sentinel/api/engines")?;
            for engine in list["engines"].as_array().context("engines")? {
                let bytes = engine["memory_bytes"].as_f64();
                needed.push(bytes.with_context(|| engine.to_string())? / 1024.0 / 1024.0);
            }
        }
        let Names {
            cold: first,
            warm: further,
            memory,
            limits,
        } = names(engine);
        let mut add = |name, unit, values: &[f64], place: usize| {
            let value = median(values);
            rows.push(Row {
                name,
                unit,
                values: only_ours(value),
                verdicts: limits
                    .map(|limits| verdict("itself", value, AtMost(limits[place])))
                    .into_iter()
                    .collect(),
            });
        };
        add(first, "ms", &cold, 0);
        add(further, "ms", &warm, 1);
        add(memory, "MiB", &needed, 2);
    }
    Ok(rows)
}

type Web = WebSocketStream<TcpStream>;

/// One of the ten.
struct Worker {
    peer: Peer,
    socket: Web,
    prompts: Vec<String>,
    events: usize,
    foreign: usize,
}

/// All choose the same name for their sockets: it must not matter.
const CLIENT: &str = "everybody";

impl Worker {
    async fn start(peer: Peer) -> Result<Self> {
        let address = peer.address;
        let token = peer.token.clone().context("a token")?;
        let mut request = format!("ws://{address}/ws?clientId={CLIENT}").into_client_request()?;
        let headers = request.headers_mut();
        headers.insert("Authorization", format!("Bearer {token}").parse()?);
        let stream = TcpStream::connect(address).await?;
        let (socket, _) = client_async(request, stream).await?;
        Ok(Self {
            peer,
            socket,
            prompts: Vec::new(),
            events: 0,
            foreign: 0,
        })
    }

    /// Queues its jobs and listens until the last one has ended.
    async fn work(&mut self, name: usize) -> Result<()> {
        let peer = self.peer.clone();
        let queued = tokio::task::spawn_blocking(move || queue(&peer, name)).await??;
        self.prompts.extend(queued.iter().cloned());
        let own: HashSet<String> = self.prompts.iter().cloned().collect();
        let mut waiting: HashSet<String> = queued.into_iter().collect();
        while !waiting.is_empty() {
            let message = timeout(PATIENCE, self.socket.next())
                .await
                .with_context(|| format!("{} jobs of {name} never ended", waiting.len()))?
                .context("the socket ended")??;
            let Message::Text(text) = message else {
                self.events += usize::from(message.is_binary());
                continue;
            };
            self.events += 1;
            let event: Value = serde_json::from_str(&text)?;
            let Some(prompt) = event["data"]["prompt_id"].as_str() else {
                continue;
            };
            if !own.contains(prompt) {
                self.foreign += 1;
            }
            if event["type"] == "executing" && event["data"]["node"].is_null() {
                waiting.remove(prompt);
            }
        }
        Ok(())
    }

    /// Jobs that are missing in its own history, and entries that are not its own.
    fn compare(&self) -> Result<[usize; 2]> {
        let mut connection = self.peer.connect()?;
        let question = self.peer.request("GET", "/history?max_items=10000", "");
        connection.send(&question)?;
        let (status, text) = connection.whole()?;
        ensure!(status == 200, "{status}: {text}");
        let history: Value = serde_json::from_str(&text)?;
        let entries = history.as_object().context("a history")?;
        let lost = self
            .prompts
            .iter()
            .filter(|id| history[id.as_str()]["status"]["completed"] != true)
            .count();
        let foreign = entries
            .keys()
            .filter(|id| !self.prompts.contains(id))
            .count();
        Ok([lost, foreign])
    }
}

fn queue(peer: &Peer, name: usize) -> Result<Vec<String>> {
    let mut connection = peer.connect_for(PATIENCE)?;
    (0..JOBS)
        .map(|number| {
            let body = json!({"client_id": CLIENT, "prompt": {
                "1": {"class_type": "SlowProbe", "inputs":
                    {"seconds": 0.02, "steps": 2, "preview": "JPEG", "tag": format!("{name} {number}"), "fail": false}},
                "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
            }});
            let answer = connection.post(peer, "/prompt", &body)?;
            let id = answer["prompt_id"].as_str().map(str::to_owned);
            id.with_context(|| answer.to_string())
        })
        .collect()
}

/// Ten users with sockets open and jobs running.
pub(crate) fn ten_users(fixture: &Fixture, _: usize) -> Result<Vec<Row>> {
    let demo = ["--comfyui".to_owned(), "demo".to_owned()];
    let gateway = fixture.with_engines(USERS + 1, &[options(true), demo.to_vec()].concat())?;
    let mut peers = Vec::new();
    for user in 1..=USERS {
        let peer = gateway.token_of(Some(user))?;
        held_until_ready(&peer)?;
        peers.push(peer);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let (workers, before, seconds) = runtime.block_on(async {
        let mut workers = Vec::new();
        for peer in peers {
            workers.push(Worker::start(peer).await?);
        }
        round(&mut workers).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let before = own_memory(gateway.process.id())?;
        let started = Instant::now();
        for _ in 0..WORKING_ROUNDS {
            round(&mut workers).await?;
        }
        anyhow::Ok((workers, before, started.elapsed().as_secs_f64()))
    })?;
    thread::sleep(Duration::from_secs(2));
    let growth = own_memory(gateway.process.id())? - before;
    let (mut lost, mut entries) = (0, 0);
    for worker in &workers {
        let [missing, foreign] = worker.compare()?;
        lost += missing;
        entries += foreign;
    }
    let events: usize = workers.iter().map(|worker| worker.events).sum();
    let foreign: usize = workers.iter().map(|worker| worker.foreign).sum();
    let jobs = (WORKING_ROUNDS * USERS * JOBS) as f64;
    runtime.block_on(async {
        for mut worker in workers {
            let _ = worker.socket.send(Message::Close(None)).await;
        }
    });
    Ok(vec![
        only_ours_row("Ten users at work", "jobs/s", jobs / seconds, None),
        only_ours_row(
            "Jobs not in their owner's history",
            "jobs",
            lost as f64,
            Some(0.0),
        ),
        only_ours_row(
            "Foreign jobs in a history",
            "jobs",
            entries as f64,
            Some(0.0),
        ),
        only_ours_row("Events seen by ten sockets", "events", events as f64, None),
        only_ours_row(
            "Foreign events among them",
            "events",
            foreign as f64,
            Some(0.0),
        ),
        only_ours_row("Memory (PSS) grown meanwhile", "MiB", growth, Some(2.0)),
    ])
}

async fn round(workers: &mut [Worker]) -> Result<()> {
    let all = workers
        .iter_mut()
        .enumerate()
        .map(|(name, worker)| worker.work(name));
    futures_util::future::try_join_all(all).await.map(|_| ())
}

impl Gateway {
    /// A program's token of the admin, or of a user by number: what it asks waits for the engine.
    pub(crate) fn token_of(&self, user: Option<usize>) -> Result<Peer> {
        let username = match user {
            Some(number) => format!("user{number}"),
            None => USERNAME.to_owned(),
        };
        let body = json!({"username": username, "password": PASSWORD, "expire_hours": 1});
        self.peer("/generate_token", &body)
    }

    fn peer(&self, path: &str, body: &Value) -> Result<Peer> {
        let stranger = Peer {
            address: self.address,
            token: None,
        };
        let answer = stranger.connect()?.post(&stranger, path, body)?;
        let token = answer["jwt_token"].as_str().map(str::to_owned);
        Ok(Peer {
            token: Some(token.with_context(|| answer.to_string())?),
            ..stranger
        })
    }

    /// What an admin page gets.
    fn admin(&self, method: &str, path: &str) -> Result<Value> {
        let admin = &self.peer(
            "/login",
            &json!({"username": USERNAME, "password": PASSWORD}),
        )?;
        let mut connection = admin.connect()?;
        let body = json!({"password": PASSWORD});
        let proof = connection.post(admin, "/sentinel/api/step-up", &body)?;
        let proof = proof["proof"].as_str().context("a proof")?;
        let more = format!("X-Sentinel-Proof: {proof}\r\nContent-Length: 0\r\n");
        connection.send(&admin.request(method, path, &more))?;
        let (status, text) = connection.whole()?;
        ensure!((200..300).contains(&status), "{status}: {text}");
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }

    /// Stops a user's engine and waits until it has ended.
    fn stop_engine_of(&self, username: &str) -> Result<()> {
        let engine = || -> Result<Value> {
            let list = self.admin("GET", "/sentinel/api/engines")?;
            let engines = list["engines"].as_array().into_iter().flatten();
            let own = engines
                .into_iter()
                .find(|engine| engine["username"] == username);
            own.cloned().with_context(|| list.to_string())
        };
        let id = engine()?["id"].as_str().context("an id")?.to_owned();
        self.admin("POST", &format!("/sentinel/api/engines/{id}/stop"))?;
        let started = Instant::now();
        while engine()?["state"] != "stopped" {
            ensure!(started.elapsed() < PATIENCE, "the engine does not stop");
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}
