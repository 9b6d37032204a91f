//! What is measured, and the targets.

use crate::client::{Target as Peer, flood, latencies};
use crate::engines;
use crate::fixture::{
    AUTH_REQUEST, DIRECT, DOWNLOAD, Fixture, Gateway, NGINX, OBJECT_INFO, OURS, WAYS, Way,
    sign_in_request,
};
use crate::process::{memory, ticks};
use crate::queue;
use crate::roles::FRAME;
use crate::table::Target::{AtLeast, AtMost};
use crate::table::{Row, Table, Target, Verdict, median, quantile};
use anyhow::{Context as _, Result, ensure};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) const SINGLE: Duration = Duration::from_millis(500);
const MANY: Duration = Duration::from_millis(1000);
const CONNECTIONS: usize = 32;
const UPLOAD: usize = 50 * 1000 * 1000;
const FRAMES: usize = 200;
const STALLED: usize = 20;
const ACCOUNTS: usize = 10_000;
const SIGNING_IN: usize = 10;
pub(crate) const MEGA: f64 = 1e6;
/// Processor time of one clock tick, microseconds; Linux reports in hundredths of a second everywhere.
const TICK: f64 = 10_000.0;

type Figures = [Vec<f64>; WAYS];

/// Measures every way once a round, in another order each time.
fn rounds(
    fixture: &Fixture,
    count: usize,
    mut measure: impl FnMut(usize, &Way) -> Result<Option<f64>>,
) -> Result<Figures> {
    let mut figures = Figures::default();
    for round in 0..count {
        for step in 0..WAYS {
            let index = (round + step) % WAYS;
            if let Some(figure) = measure(index, &fixture.ways[index])
                .with_context(|| format!("way {index}; nginx says: {}", fixture.complaints()))?
            {
                figures[index].push(figure);
            }
        }
    }
    Ok(figures)
}

fn medians(figures: &Figures) -> [Option<f64>; WAYS] {
    let mut values = [None; WAYS];
    for (value, figures) in values.iter_mut().zip(figures) {
        if !figures.is_empty() {
            *value = Some(median(figures));
        }
    }
    values
}

/// Median of the rounds' own ratios: what disturbs a round disturbs both.
fn ratio(figures: &Figures, above: usize, below: usize) -> f64 {
    let ratios: Vec<f64> = figures[above]
        .iter()
        .zip(&figures[below])
        .map(|(above, below)| above / below)
        .collect();
    median(&ratios)
}

pub(crate) fn verdict(what: &'static str, value: f64, target: Target) -> Verdict {
    Verdict {
        what,
        value,
        target,
    }
}

pub(crate) fn only_ours(value: f64) -> [Option<f64>; WAYS] {
    let mut values = [None; WAYS];
    values[OURS] = Some(value);
    values
}

/// A figure of ours alone, which is at most `limit` if there is one.
pub(crate) fn only_ours_row(
    name: &'static str,
    unit: &'static str,
    value: f64,
    limit: Option<f64>,
) -> Row {
    let verdicts = limit.map(|limit| verdict("itself", value, AtMost(limit)));
    Row {
        name,
        unit,
        values: only_ours(value),
        verdicts: verdicts.into_iter().collect(),
    }
}

/// All measurements whose name holds `only`.
pub(crate) fn all(fixture: &Fixture, count: usize, only: &str) -> Result<Table> {
    type Measure = fn(&Fixture, usize) -> Result<Vec<Row>>;
    let measurements: [(&str, Measure); 17] = [
        ("ready", ready),
        ("latency", latency),
        ("throughput", throughput),
        ("refusals", refusals),
        ("object_info", object_info),
        ("download", download),
        ("upload", upload),
        ("frames", frames),
        ("accounts", accounts),
        ("sign-in", sign_in),
        ("stalled", stalled),
        ("routing", engines::routing),
        ("starts", engines::starts),
        ("ten users", engines::ten_users),
        ("handing in", queue::handing_in),
        ("in line", queue::in_line),
        ("memory", memory_after),
    ];
    let mut table = Table {
        rounds: count,
        rows: Vec::new(),
    };
    for (name, measure) in measurements {
        if name.contains(only) {
            let rows = measure(fixture, count).with_context(|| format!("measuring {name}"))?;
            table.rows.extend(rows);
        }
    }
    Ok(table)
}

fn ready(fixture: &Fixture, count: usize) -> Result<Vec<Row>> {
    let mut times = Vec::new();
    for _ in 0..count {
        let (_gateway, seconds) = fixture.before_files()?;
        times.push(seconds * 1000.0);
    }
    let value = median(&times);
    Ok(vec![Row {
        name: "Start until the first answer",
        unit: "ms",
        values: only_ours(value),
        verdicts: vec![verdict("itself", value, AtMost(60.0))],
    }])
}

fn latency(fixture: &Fixture, count: usize) -> Result<Vec<Row>> {
    let figures = rounds(fixture, count, |_, way| {
        let request = way.files.request("GET", "/features", "");
        let all = latencies(&way.files, &request, 200, SINGLE)?;
        Ok(Some(median(&all) * MEGA))
    })?;
    let mut added = Figures::default();
    for way in [OURS, NGINX, AUTH_REQUEST] {
        added[way] = figures[way]
            .iter()
            .zip(&figures[DIRECT])
            .map(|(through, direct)| through - direct)
            .collect();
    }
    Ok(vec![
        Row {
            name: "Small GET, one connection, p50",
            unit: "µs",
            values: medians(&figures),
            verdicts: Vec::new(),
        },
        Row {
            name: "Added to direct, p50",
            unit: "µs",
            values: medians(&added),
            verdicts: vec![verdict(
                "of auth_request",
                ratio(&added, OURS, AUTH_REQUEST),
                AtMost(0.6),
            )],
        },
    ])
}

fn throughput(fixture: &Fixture, count: usize) -> Result<Vec<Row>> {
    let mut processor = Figures::default();
    let rates = rounds(fixture, count, |index, way| {
        let request = way.files.request("GET", "/features", "");
        let before = ticks(&way.processes)?;
        let (answers, seconds) = flood(&way.files, &request, 200, CONNECTIONS, MANY)?;
        let used = ticks(&way.processes)? - before;
        if index != DIRECT {
            processor[index].push(used as f64 * TICK / answers as f64);
        }
        Ok(Some(answers as f64 / seconds))
    })?;
    Ok(vec![
        Row {
            name: "Small GET, 32 connections",
            unit: "requests/s",
            values: medians(&rates),
            verdicts: vec![
                verdict("of nginx", ratio(&rates, OURS, NGINX), AtLeast(0.8)),
                verdict(
                    "of auth_request",
                    ratio(&rates, OURS, AUTH_REQUEST),
                    AtLeast(1.4),
                ),
            ],
        },
        Row {
            name: "Processor time of the proxy's processes",
            unit: "µs per request",
            values: medians(&processor),
            verdicts: vec![verdict(
                "of auth_request",
                ratio(&processor, OURS, AUTH_REQUEST),
                AtMost(0.6),
            )],
        },
    ])
}

fn refusals(fixture: &Fixture, count: usize) -> Result<Vec<Row>> {
    let rates = rounds(fixture, count, |index, way| {
        if index != OURS && index != AUTH_REQUEST {
            return Ok(None);
        }
        let stranger = way.files.stranger();
        let request = stranger.request("GET", "/features", "");
        let (answers, seconds) = flood(&stranger, &request, 401, CONNECTIONS, MANY)?;
        Ok(Some(answers as f64 / seconds))
    })?;
    Ok(vec![Row {
        name: "Refusals without a token, 32 connections",
        unit: "requests/s",
        values: medians(&rates),
        verdicts: vec![verdict(
            "of auth_request",
            ratio(&rates, OURS, AUTH_REQUEST),
            AtLeast(1.5),
        )],
    }])
}

fn object_info(fixture: &Fixture, count: usize) -> Result<Vec<Row>> {
    let times = rounds(fixture, count, |_, way| {
        let request = way.files.request("GET", "/object_info", "");
        let mut connection = way.files.connect()?;
        ensure!(connection.exchange(&request, 200)? == OBJECT_INFO);
        let all = latencies(&way.files, &request, 200, SINGLE)?;
        Ok(Some(median(&all) * 1000.0))
    })?;
    Ok(vec![Row {
        name: "object_info of 1.6 MB, p50",
        unit: "ms",
        values: medians(&times),
        verdicts: vec![verdict("of nginx", ratio(&times, OURS, NGINX), AtMost(1.2))],
    }])
}

fn moved(
    name: &'static str,
    fixture: &Fixture,
    count: usize,
    bytes: usize,
    mut transfer: impl FnMut(&Way) -> Result<()>,
) -> Result<Vec<Row>> {
    let rates = rounds(fixture, count, |_, way| {
        let started = Instant::now();
        transfer(way)?;
        Ok(Some(bytes as f64 / MEGA / started.elapsed().as_secs_f64()))
    })?;
    Ok(vec![Row {
        name,
        unit: "MB/s",
        values: medians(&rates),
        verdicts: vec![verdict(
            "of nginx",
            ratio(&rates, OURS, NGINX),
            AtLeast(1.0),
        )],
    }])
}

fn download(fixture: &Fixture, count: usize) -> Result<Vec<Row>> {
    moved("Download of 200 MB", fixture, count, DOWNLOAD, |way| {
        let request = way.files.request("GET", "/download", "");
        let length = way.files.connect()?.exchange(&request, 200)?;
        ensure!(length == DOWNLOAD, "{length} bytes came");
        Ok(())
    })
}

fn upload(fixture: &Fixture, count: usize) -> Result<Vec<Row>> {
    let piece = vec![0x5a; 256 * 1024];
    moved("Upload of 50 MB", fixture, count, UPLOAD, |way| {
        let length = format!("Content-Length: {UPLOAD}\r\n");
        let request = way.stream.request("POST", "/upload/image", &length);
        let mut connection = way.stream.connect()?;
        connection.send(&request)?;
        let mut left = UPLOAD;
        while left > 0 {
            let part = left.min(piece.len());
            connection.send(&piece[..part])?;
            left -= part;
        }
        let (status, _) = connection.answer()?;
        ensure!(status == 200, "{status} instead of 200");
        Ok(())
    })
}

/// Opens a WebSocket on which `count` frames come.
fn web_socket(peer: &Peer, count: usize) -> Vec<u8> {
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    peer.request("GET", &format!("/ws?clientId=frames.{count}"), upgrade)
}

fn frames(fixture: &Fixture, count: usize) -> Result<Vec<Row>> {
    let name = "WebSocket frames of 500 KB";
    moved(name, fixture, count, FRAMES * FRAME, |way| {
        let mut connection = way.stream.connect()?;
        connection.send(&web_socket(&way.stream, FRAMES))?;
        let (status, received) = connection.answer()?;
        ensure!(status == 101, "{status} instead of 101");
        // Each frame has a head of ten bytes.
        connection.skip((FRAMES * (FRAME + 10)).saturating_sub(received))
    })
}

fn accounts(fixture: &Fixture, count: usize) -> Result<Vec<Row>> {
    let one = fixture.with_accounts(1)?;
    let many = fixture.with_accounts(ACCOUNTS)?;
    let peers = [one.sign_in()?, many.sign_in()?];
    let mut medians_of = [Vec::new(), Vec::new()];
    let mut ratios = Vec::new();
    for round in 0..count {
        let mut pair = [0.0; 2];
        for step in 0..2 {
            let index = (round + step) % 2;
            let request = peers[index].request("GET", "/features", "");
            pair[index] = median(&latencies(&peers[index], &request, 200, SINGLE)?) * MEGA;
            medians_of[index].push(pair[index]);
        }
        ratios.push(pair[1] / pair[0]);
    }
    Ok(vec![
        Row {
            name: "Small GET with one account, p50",
            unit: "µs",
            values: only_ours(median(&medians_of[0])),
            verdicts: Vec::new(),
        },
        Row {
            name: "Small GET with 10,000 accounts, p50",
            unit: "µs",
            values: only_ours(median(&medians_of[1])),
            // One twentieth is what two runs of the same program differ by.
            verdicts: vec![verdict("of one account", median(&ratios), AtMost(1.05))],
        },
    ])
}

fn sign_in(fixture: &Fixture, count: usize) -> Result<Vec<Row>> {
    let (gateway, _) = fixture.before_files()?;
    let peer = gateway.sign_in()?;
    let request = peer.request("GET", "/features", "");
    let (mut quiet, mut busy, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..count {
        let all = latencies(&peer, &request, 200, SINGLE)?;
        quiet.push(quantile(&all, 0.99) * 1000.0);
        let is_over = AtomicBool::new(false);
        let answers = AtomicUsize::new(0);
        let started = Instant::now();
        let all = thread::scope(|scope| -> Result<Vec<f64>> {
            let clients: Vec<_> = (0..SIGNING_IN)
                .map(|_| scope.spawn(|| keep_signing_in(&peer, &is_over, &answers)))
                .collect();
            let all = latencies(&peer, &request, 200, MANY);
            is_over.store(true, Ordering::Relaxed);
            for client in clients {
                client
                    .join()
                    .map_err(|_| anyhow::anyhow!("a client died"))??;
            }
            all
        })?;
        busy.push(quantile(&all, 0.99) * 1000.0);
        rates.push(answers.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64());
    }
    let value = median(&busy);
    let left = memory(&[gateway.process.id()])?;
    Ok(vec![
        Row {
            name: "Small GET, p99, nobody else",
            unit: "ms",
            values: only_ours(median(&quiet)),
            verdicts: Vec::new(),
        },
        Row {
            name: "Small GET, p99, while ten clients sign in",
            unit: "ms",
            values: only_ours(value),
            verdicts: vec![verdict("itself", value, AtMost(20.0))],
        },
        Row {
            name: "Sign-ins meanwhile",
            unit: "per second",
            values: only_ours(median(&rates)),
            verdicts: Vec::new(),
        },
        Row {
            name: "Memory (PSS) after the sign-ins",
            unit: "MiB",
            values: only_ours(left),
            verdicts: vec![verdict("itself", left, AtMost(25.0))],
        },
    ])
}

fn keep_signing_in(peer: &Peer, is_over: &AtomicBool, answers: &AtomicUsize) -> Result<()> {
    let stranger = peer.stranger();
    let request = sign_in_request(&stranger);
    let mut connection = stranger.connect()?;
    while !is_over.load(Ordering::Relaxed) {
        connection.exchange(&request, 200)?;
        answers.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Opens connections whose answers nobody reads; the memory that each takes, MiB.
fn held(gateway: &Gateway, request: impl Fn(&Peer) -> Vec<u8>) -> Result<f64> {
    let peer = gateway.sign_in()?;
    let processes = [gateway.process.id()];
    let before = memory(&processes)?;
    let mut connections = Vec::new();
    for _ in 0..STALLED {
        let mut connection = peer.connect()?;
        connection.send(&request(&peer))?;
        connections.push(connection);
    }
    thread::sleep(Duration::from_millis(1500));
    Ok((memory(&processes)? - before) / STALLED as f64)
}

fn stalled(fixture: &Fixture, _: usize) -> Result<Vec<Row>> {
    let (files, _) = fixture.before_files()?;
    let download = held(&files, |peer| peer.request("GET", "/download", ""))?;
    let stream = fixture.before_stream()?;
    let socket = held(&stream, |peer| web_socket(peer, FRAMES))?;
    Ok(vec![
        Row {
            name: "Memory (PSS) of a stalled download",
            unit: "MiB",
            values: only_ours(download),
            verdicts: vec![verdict("itself", download, AtMost(1.5))],
        },
        Row {
            name: "Memory (PSS) of a stalled WebSocket",
            unit: "MiB",
            values: only_ours(socket),
            verdicts: vec![verdict("itself", socket, AtMost(0.5))],
        },
    ])
}

fn memory_after(fixture: &Fixture, _: usize) -> Result<Vec<Row>> {
    let mut after = [None; WAYS];
    for (value, way) in after.iter_mut().zip(&fixture.ways) {
        if !way.processes.is_empty() {
            *value = Some(memory(&way.processes)?);
        }
    }
    let row = |name, values: [Option<f64>; WAYS], limit| Row {
        name,
        unit: "MiB",
        values,
        verdicts: vec![verdict(
            "itself",
            values[OURS].unwrap_or(f64::NAN),
            AtMost(limit),
        )],
    };
    Ok(vec![
        row("Memory (PSS), idle", fixture.idle, 15.0),
        row("Memory (PSS), after all of this", after, 25.0),
    ])
}
