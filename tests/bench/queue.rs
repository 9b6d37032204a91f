//! The queue before the GPU: what handing a job in costs beside ComfyUI's own queue (played by the demo engine), and ten
//! thousand jobs in line.

use crate::client::{Connection, Target as Peer, latencies};
use crate::fixture::{DIRECT, Fixture, OURS, WAYS};
use crate::measurements::{SINGLE, only_ours_row, verdict};
use crate::process::{Process, memory, sentineld};
use crate::table::Target::AtMost;
use crate::table::{Row, median};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value, json};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Jobs handed in on each way in one round.
const HANDED_IN: usize = 60;
/// Nodes of the graph; with the workflow that a page sends along it has 30 KB.
const NODES: usize = 60;
const BODY: usize = 30_000;
/// Who has jobs in line, besides one who has as many as all these together.
const USERS: usize = 100;
const JOBS_OF_EACH: usize = 100;
const WAITING: usize = USERS * JOBS_OF_EACH;
/// What a page of the list shows.
const PAGE: usize = 200;
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);
/// An interrupted probe ends after its step, seconds.
const STEP: f64 = 0.6;
/// Between two jobs.
const BETWEEN: Duration = Duration::from_millis(30);
const PAUSE: Duration = Duration::from_millis(2);

/// An engine that nobody guards.
struct Engine {
    address: SocketAddr,
    _process: Process,
    _directory: TempDir,
}

impl Engine {
    fn start() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let address = crate::fixture::free_port()?;
        let program = match std::env::var_os("DEMO_ENGINE") {
            Some(path) => path.into(),
            None => sentineld()?.with_file_name("demo-engine"),
        };
        let mut command = Command::new(program);
        command
            .args(["--port", &address.port().to_string(), "--base-directory"])
            .arg(directory.path())
            .stderr(Stdio::null());
        let process = Process::start(command, None)?;
        crate::fixture::await_answer(address)?;
        Ok(Self {
            address,
            _process: process,
            _directory: directory,
        })
    }
}

/// Runs so long and is told from others by its tag.
fn probe(seconds: f64, tag: &str) -> Value {
    json!({
        "1": {"class_type": "SlowProbe", "inputs":
            {"seconds": seconds, "steps": (seconds / STEP).max(1.0) as u32, "preview": "none", "tag": tag, "fail": false}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    })
}

/// A graph as a page sends it: a chain of nodes, and the workflow it was drawn as.
fn drawn(tag: &str) -> Value {
    let mut nodes = Map::new();
    // As a job on a GPU leaves the processors alone while its prompt is answered.
    let first = json!({"class_type": "SlowProbe", "inputs":
        {"seconds": 0.05, "steps": 1, "preview": "none", "tag": tag, "fail": false}});
    nodes.insert("0".to_owned(), first);
    for number in 1..NODES {
        let before = (number - 1).to_string();
        let node = json!({"class_type": "ImageScale", "inputs": {"image": [before, 0],
            "upscale_method": "nearest-exact", "width": 8, "height": 8, "crop": "disabled"},
            "_meta": {"title": format!("Scale {number} of {tag}")}});
        nodes.insert(number.to_string(), node);
    }
    let last = (NODES - 1).to_string();
    let end = json!({"class_type": "PreviewImage", "inputs": {"images": [last, 0]}});
    nodes.insert("end".to_owned(), end);
    let mut body = json!({"client_id": "bench", "prompt": nodes,
        "extra_data": {"extra_pnginfo": {"workflow": {"id": tag, "notes": ""}}}});
    let missing = BODY.saturating_sub(body.to_string().len());
    body["extra_data"]["extra_pnginfo"]["workflow"]["notes"] = "n".repeat(missing).into();
    body
}

/// Queues a job; the seconds until its answer, and its id.
fn hand_in(peer: &Peer, connection: &mut Connection, body: &Value) -> Result<(f64, String)> {
    let request = posting(peer, "/prompt", body);
    let started = Instant::now();
    connection.send(&request)?;
    let (status, text) = connection.whole()?;
    let seconds = started.elapsed().as_secs_f64();
    ensure!(status == 200, "{status}: {text}");
    let answer: Value = serde_json::from_str(&text)?;
    let id = answer["prompt_id"].as_str().context("an id")?.to_owned();
    Ok((seconds, id))
}

fn posting(peer: &Peer, path: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let more = format!(
        "Content-Type: application/json\r\nContent-Length: {}\r\n",
        body.len()
    );
    let mut request = peer.request("POST", path, &more);
    request.extend(body.into_bytes());
    request
}

/// Starts a job that runs until it is ended.
fn hold_gpu(peer: &Peer) -> Result<()> {
    let body = json!({"prompt": probe(600.0, "holds")});
    hand_in(peer, &mut peer.connect()?, &body).map(|_| ())
}

/// Waits until so many jobs of one's own are left.
fn await_left(peer: &Peer, left: usize) -> Result<()> {
    let mut connection = peer.connect()?;
    let question = peer.request("GET", "/prompt", "");
    let started = Instant::now();
    loop {
        connection.send(&question)?;
        let (_, text) = connection.whole()?;
        let answer: Value = serde_json::from_str(&text)?;
        if answer["exec_info"]["queue_remaining"] == left {
            return Ok(());
        }
        ensure!(started.elapsed() < PATIENCE, "{text} instead of {left}");
        thread::sleep(PAUSE);
    }
}

/// Ends what runs and what waits.
fn clear(peer: &Peer) -> Result<()> {
    let mut connection = peer.connect()?;
    for (path, body) in [
        ("/queue", json!({"clear": true})),
        ("/interrupt", json!({})),
    ] {
        connection.send(&posting(peer, path, &body))?;
        let (status, text) = connection.whole()?;
        ensure!(status == 200, "{path}: {status} {text}");
    }
    await_left(peer, 0)
}

/// Median time of `POST /prompt` while the GPU is free, milliseconds.
fn straight(peer: &Peer, round: usize) -> Result<f64> {
    let mut connection = peer.connect()?;
    let question = peer.request("GET", "/features", "");
    let mut times = Vec::new();
    for number in 0..HANDED_IN {
        let body = drawn(&format!("straight {round} {number}"));
        times.push(hand_in(peer, &mut connection, &body)?.0);
        await_left(peer, 0)?;
        // Whatever is still done for the last one is not what is measured, nor are processors that fell asleep.
        let ended = Instant::now();
        while ended.elapsed() < BETWEEN {
            connection.exchange(&question, 200)?;
        }
    }
    Ok(median(&times) * 1000.0)
}

/// Median time of `POST /prompt` while another job runs, milliseconds.
fn held(peer: &Peer, round: usize) -> Result<f64> {
    let mut connection = peer.connect()?;
    hold_gpu(peer)?;
    let mut times = Vec::new();
    for number in 0..HANDED_IN {
        let body = drawn(&format!("held {round} {number}"));
        times.push(hand_in(peer, &mut connection, &body)?.0);
    }
    clear(peer)?;
    Ok(median(&times) * 1000.0)
}

/// Handing a job in, directly and through the gateway.
pub(crate) fn handing_in(fixture: &Fixture, count: usize) -> Result<Vec<Row>> {
    let engines = [Engine::start()?, Engine::start()?];
    let gateway = fixture.attached(engines[1].address, 1, &[])?;
    let direct = Peer {
        address: engines[0].address,
        token: None,
    };
    let peers = [direct, gateway.token_of(None)?];
    type Measure = fn(&Peer, usize) -> Result<f64>;
    let kinds: [(&str, Measure, f64); 2] = [
        ("POST /prompt of 30 KB, GPU free, p50", straight, 0.5),
        ("POST /prompt of 30 KB, GPU busy, p50", held, 2.0),
    ];
    let mut rows = Vec::new();
    for (name, measure, limit) in kinds {
        let (mut times, mut added) = ([Vec::new(), Vec::new()], Vec::new());
        for round in 0..count {
            let mut pair = [0.0; 2];
            for step in 0..2 {
                let index = (round + step) % 2;
                pair[index] = measure(&peers[index], round)?;
                times[index].push(pair[index]);
            }
            added.push(pair[1] - pair[0]);
        }
        let mut values = [None; WAYS];
        values[DIRECT] = Some(median(&times[0]));
        values[OURS] = Some(median(&times[1]));
        rows.push(Row {
            name,
            unit: "ms",
            values,
            verdicts: vec![verdict("added", median(&added), AtMost(limit))],
        });
    }
    Ok(rows)
}

/// Ten thousand jobs of a hundred users in line, and then as many of one.
pub(crate) fn in_line(fixture: &Fixture, _: usize) -> Result<Vec<Row>> {
    let engine = Engine::start()?;
    let settings = [
        "queue.jobs_waiting_users=0",
        "queue.gpu_minutes_a_day_users=0",
    ];
    let gateway = fixture.attached(engine.address, USERS + 2, &settings)?;
    let admin = gateway.token_of(None)?;
    hold_gpu(&admin)?;
    let before = memory(&[gateway.process.id()])?;
    let mut some = None;
    for user in 1..=USERS {
        let peer = gateway.token_of(Some(user))?;
        let mut connection = peer.connect()?;
        for number in 0..JOBS_OF_EACH {
            let body = drawn(&format!("{user} {number}"));
            hand_in(&peer, &mut connection, &body)?;
        }
        some = Some(peer);
    }
    let some = some.context("users")?;
    let held = memory(&[gateway.process.id()])? - before;
    let own = listed(&some, "/queue", JOBS_OF_EACH)?;
    let page = format!("/api/jobs?status=pending,in_progress&limit={PAGE}&offset=0");
    let own_page = listed(&some, &page, JOBS_OF_EACH)?;
    let place = listed(&some, "/sentinel/api/queue/mine", 0)?;
    clear(&admin)?;
    drop(gateway);

    let gateway = fixture.attached(engine.address, 2, &settings)?;
    let admin = gateway.token_of(None)?;
    hold_gpu(&admin)?;
    let one = gateway.token_of(Some(1))?;
    let mut connection = one.connect()?;
    for number in 0..WAITING {
        hand_in(
            &one,
            &mut connection,
            &json!({"prompt": probe(0.0, &number.to_string())}),
        )?;
    }
    let all = listed(&one, "/queue", WAITING)?;
    let first_page = listed(&one, &page, PAGE)?;
    clear(&one)?;
    clear(&admin)?;
    Ok(vec![
        only_ours_row(
            "Own queue, 100 of 10,000 jobs of 30 KB in line, p50",
            "ms",
            own,
            Some(20.0),
        ),
        only_ours_row(
            "Own first page of jobs among them, p50",
            "ms",
            own_page,
            Some(20.0),
        ),
        only_ours_row("Own place in line among them, p50", "ms", place, Some(20.0)),
        only_ours_row(
            "Memory (PSS) grown by these 10,000",
            "MiB",
            held,
            Some(20.0),
        ),
        only_ours_row("Own queue of 10,000 small jobs, p50", "ms", all, Some(20.0)),
        only_ours_row(
            "First page of these 10,000, p50",
            "ms",
            first_page,
            Some(20.0),
        ),
    ])
}

/// Median time of a list that holds at least so many entries, milliseconds.
fn listed(peer: &Peer, path: &str, least: usize) -> Result<f64> {
    let request = peer.request("GET", path, "");
    let mut connection = peer.connect()?;
    connection.send(&request)?;
    let (status, text) = connection.whole()?;
    ensure!(status == 200, "{path}: {status} {text}");
    let answer: Value = serde_json::from_str(&text)?;
    let lists = answer.as_object().into_iter().flat_map(Map::values);
    let entries = lists.filter_map(Value::as_array).map(Vec::len).max();
    ensure!(
        entries.is_none_or(|entries| entries >= least),
        "{path}: {entries:?} instead of {least}"
    );
    Ok(median(&latencies(peer, &request, 200, SINGLE)?) * 1000.0)
}
