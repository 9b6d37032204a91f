//! Jobs before a ComfyUI that breaks: a fake one with fault switches, which counts how often it runs each job.

use super::{PATIENCE, count, job, post, queue, state, until};
use anyhow::{Context as _, Result, ensure};
use parking_lot::Mutex;
use sentinel_tests::{Gateway, Options, eventually};
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

/// Pause of the fake between two looks at what it has to do.
const TICK: Duration = Duration::from_millis(5);

/// What goes wrong with the answer to `POST /prompt`, after the job was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// The connection is closed without an answer.
    NoAnswer,
    /// The head comes, and the body never.
    NoBody,
}

#[derive(Debug)]
struct State {
    fault: Fault,
    /// Connections are refused.
    is_shut: bool,
    is_over: bool,
    /// How long a job takes.
    pace: Duration,
    /// What it tells of start and end; `None`: the truth.
    clock: Option<(i64, i64)>,
    waiting: VecDeque<String>,
    running: Option<String>,
    /// Every run of a job, in order.
    runs: Vec<String>,
    history: HashMap<String, Value>,
}

struct Fake {
    port: u16,
    state: Arc<Mutex<State>>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.state.lock().is_over = true;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Fake {
    fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let state = Arc::new(Mutex::new(State {
            fault: Fault::None,
            is_shut: false,
            is_over: false,
            pace: Duration::from_millis(50),
            clock: None,
            waiting: VecDeque::new(),
            running: None,
            runs: Vec::new(),
            history: HashMap::new(),
        }));
        let (serving, working) = (Arc::clone(&state), Arc::clone(&state));
        let threads = vec![
            std::thread::spawn(move || serve(&serving, listener, port)),
            std::thread::spawn(move || work(&working)),
        ];
        Ok(Self {
            port,
            state,
            threads,
        })
    }

    fn options(&self) -> Options {
        Options::default().set(&format!("comfyui.attach=http://127.0.0.1:{}", self.port))
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock());
    }

    fn runs_of(&self, id: &str) -> usize {
        let state = self.state.lock();
        state.runs.iter().filter(|run| *run == id).count()
    }
}

fn serve(state: &Arc<Mutex<State>>, listener: TcpListener, port: u16) {
    let mut listener = Some(listener);
    loop {
        let (is_shut, is_over) = {
            let state = state.lock();
            (state.is_shut, state.is_over)
        };
        if is_over {
            return;
        }
        if is_shut {
            listener = None;
        } else if listener.is_none() {
            listener = TcpListener::bind(("127.0.0.1", port)).ok();
        }
        let accepted = listener.as_ref().map(|listener| {
            listener.set_nonblocking(true)?;
            listener.accept()
        });
        match accepted {
            Some(Ok((stream, _))) => {
                let state = Arc::clone(state);
                std::thread::spawn(move || {
                    let _ = answer(&state, stream);
                });
            }
            Some(Err(error)) if error.kind() != ErrorKind::WouldBlock => return,
            _ => sleep(TICK),
        }
    }
}

/// Runs the jobs one after the other.
fn work(state: &Mutex<State>) {
    loop {
        let (id, pace) = {
            let mut state = state.lock();
            if state.is_over {
                return;
            }
            let id = state.waiting.pop_front();
            state.running.clone_from(&id);
            state.runs.extend(id.clone());
            (id, state.pace)
        };
        let Some(id) = id else {
            sleep(TICK);
            continue;
        };
        let begun = Instant::now();
        let start = now();
        while begun.elapsed() < pace && !state.lock().is_over {
            sleep(TICK);
        }
        let mut state = state.lock();
        let (start, end) = state.clock.unwrap_or((start, now()));
        let entry = json!({
            "prompt": [1, id, {}, {}, ["1"]],
            "outputs": {},
            "status": {"status_str": "success", "completed": true, "messages": [
                ["execution_start", {"prompt_id": id, "timestamp": start}],
                ["execution_success", {"prompt_id": id, "timestamp": end}],
            ]},
            "meta": {},
        });
        state.history.insert(id, entry);
        state.running = None;
    }
}

fn now() -> i64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn answer(state: &Mutex<State>, mut stream: TcpStream) -> Result<()> {
    stream.set_nonblocking(false)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut words = first.split_whitespace();
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let (status, told) = match (method, path) {
        ("POST", "/prompt") => {
            let sent: Value = serde_json::from_slice(&body)?;
            let id = sent["prompt_id"].as_str().context("an id")?.to_owned();
            let fault = {
                let mut state = state.lock();
                state.waiting.push_back(id.clone());
                state.fault
            };
            match fault {
                Fault::None => (
                    "200 OK",
                    json!({"prompt_id": id, "number": 1, "node_errors": {}}),
                ),
                Fault::NoAnswer => return Ok(()),
                Fault::NoBody => {
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{")?;
                    while !state.lock().is_over {
                        sleep(TICK);
                    }
                    return Ok(());
                }
            }
        }
        ("GET", "/prompt") => {
            let state = state.lock();
            let jobs = state.waiting.len() + usize::from(state.running.is_some());
            ("200 OK", json!({"exec_info": {"queue_remaining": jobs}}))
        }
        ("GET", "/queue") => {
            let state = state.lock();
            let items = |ids: Vec<&String>| -> Vec<Value> {
                ids.iter().map(|id| json!([1, id, {}, {}, ["1"]])).collect()
            };
            (
                "200 OK",
                json!({
                    "queue_running": items(state.running.iter().collect()),
                    "queue_pending": items(state.waiting.iter().collect()),
                }),
            )
        }
        ("GET", "/system_stats") => (
            "200 OK",
            json!({"system": {"comfyui_version": "0.33.0"}, "devices": []}),
        ),
        ("GET", "/object_info") => (
            "200 OK",
            json!({"Work": {
                "input": {"required": {}}, "output": [], "output_is_list": [], "output_name": [],
                "name": "Work", "output_node": true,
            }}),
        ),
        ("GET", "/node_replacements") => ("200 OK", json!({})),
        ("GET", path) if path.starts_with("/history/") => {
            let id = path.trim_start_matches("/history/");
            let entry = state.lock().history.get(id).cloned();
            (
                "200 OK",
                entry.map_or(json!({}), |entry| json!({ id: entry })),
            )
        }
        ("POST", _) => ("200 OK", json!({})),
        _ => ("404 Not Found", json!({})),
    };
    let told = told.to_string();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{told}",
        told.len()
    )?;
    Ok(())
}

fn work_once() -> Value {
    json!({"1": {"class_type": "Work", "inputs": {}}})
}

/// n4, n6: a lost answer says nothing of the job; the engine that has it is asked.
#[test]
fn a_job_whose_answer_is_lost_runs_once_and_is_known() -> Result<()> {
    let fake = Fake::start()?;
    let gateway = Gateway::start(fake.options())?;
    let owner = gateway.owner.clone();
    for fault in [Fault::NoAnswer, Fault::NoBody] {
        fake.set(|state| {
            state.fault = fault;
            state.pace = Duration::from_millis(300);
        });
        // The first finds the GPU free, the second waits for it.
        let free = queue(&gateway, &owner, &work_once())?;
        let line = queue(&gateway, &owner, &work_once())?;
        for id in [&free, &line] {
            until(&gateway, &owner, id, "completed").with_context(|| format!("{fault:?}"))?;
            ensure!(
                fake.runs_of(id) == 1,
                "{fault:?}: {:?}",
                fake.state.lock().runs
            );
        }
    }
    fake.set(|state| state.fault = Fault::None);
    let next = queue(&gateway, &owner, &work_once())?;
    until(&gateway, &owner, &next, "completed")
}

/// n2: an engine that cannot be reached has not been tried.
#[test]
fn no_job_fails_while_its_engine_is_away() -> Result<()> {
    let fake = Fake::start()?;
    let gateway = Gateway::start(fake.options())?;
    let owner = gateway.owner.clone();
    fake.set(|state| state.pace = Duration::from_secs(1));
    let first = queue(&gateway, &owner, &work_once())?;
    let mut waiting = Vec::new();
    for _ in 0..6 {
        waiting.push(queue(&gateway, &owner, &work_once())?);
    }
    eventually(PATIENCE, || Ok(fake.runs_of(&first) == 1))?;
    fake.set(|state| {
        state.is_shut = true;
        state.pace = Duration::from_millis(20);
    });
    // It ends in the engine meanwhile, and the gateway asks others in vain.
    eventually(PATIENCE, || {
        Ok(fake.state.lock().history.contains_key(&first))
    })?;
    eventually(PATIENCE, || {
        Ok(super::get(&gateway, &owner, "/system_stats")?.status == 503)
    })
    .context("the gateway knows that it is away")?;
    ensure!(count(&gateway, &owner, "?status=failed")? == 0);
    fake.set(|state| state.is_shut = false);
    for id in std::iter::once(&first).chain(&waiting) {
        until(&gateway, &owner, id, "completed")?;
        ensure!(fake.runs_of(id) == 1, "{:?}", fake.state.lock().runs);
    }
    let order = fake.state.lock().runs.clone();
    ensure!(order[1..] == waiting[..], "in order: {order:?}");
    Ok(())
}

/// n3: times that an engine tells are bounded by what was measured.
#[test]
fn an_odd_clock_of_an_engine_stops_nothing_and_costs_nothing() -> Result<()> {
    let fake = Fake::start()?;
    let gateway = Gateway::start(fake.options())?;
    let owner = gateway.owner.clone();
    for clock in [(0, i64::MAX), (i64::MIN, i64::MAX), (i64::MAX, 0)] {
        fake.set(|state| state.clock = Some(clock));
        let id = queue(&gateway, &owner, &work_once())?;
        until(&gateway, &owner, &id, "completed").with_context(|| format!("{clock:?}"))?;
    }
    fake.set(|state| state.clock = None);
    let next = queue(&gateway, &owner, &work_once())?;
    until(&gateway, &owner, &next, "completed")?;
    let usage = super::get(&gateway, &owner, "/sentinel/api/usage/mine")?.json();
    let used = usage["used_today_seconds"].as_f64();
    ensure!(used.is_some_and(|used| used < 60.0), "{usage}");
    Ok(())
}

/// n4: an attached engine goes on while the gateway is away.
#[test]
fn a_job_that_its_engine_goes_on_with_is_not_run_again_after_a_restart() -> Result<()> {
    use nix::sys::signal::Signal;
    let fake = Fake::start()?;
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        fake.set(|state| state.pace = Duration::from_secs(4));
        let mut gateway = Gateway::start(fake.options())?;
        let owner = gateway.owner.clone();
        let running = queue(&gateway, &owner, &work_once())?;
        let waiting = queue(&gateway, &owner, &work_once())?;
        eventually(PATIENCE, || Ok(fake.runs_of(&running) == 1))?;
        gateway.signal(signal)?;
        gateway.ended_within(PATIENCE)?;
        let data = Arc::clone(&gateway.data);
        drop(gateway);
        fake.set(|state| state.pace = Duration::from_millis(50));
        let gateway = Gateway::start(fake.options().data(&data))?;
        for id in [&running, &waiting] {
            until(&gateway, &owner, id, "completed").with_context(|| format!("{signal}"))?;
            ensure!(
                fake.runs_of(id) == 1,
                "{signal}: {:?}",
                fake.state.lock().runs
            );
        }
    }
    Ok(())
}

/// n21: a client that lost its answer sends its prompt again.
#[test]
fn the_same_prompt_under_the_same_id_runs_once_and_another_is_refused() -> Result<()> {
    let fake = Fake::start()?;
    let gateway = Gateway::start(fake.options())?;
    let owner = gateway.owner.clone();
    let id = "0b4c1f9e-8f1b-4c53-9c61-5b3d8e2f7a10";
    let body = json!({"prompt": work_once(), "prompt_id": id});
    let first = post(&gateway, &owner, "/prompt", &body)?;
    let again = post(&gateway, &owner, "/prompt", &body)?;
    ensure!(
        first.status == 200 && again.status == 200,
        "{}",
        again.text()
    );
    ensure!(first.json() == again.json());
    let other = json!({"prompt": {"2": {"class_type": "Work", "inputs": {}}}, "prompt_id": id});
    let refused = post(&gateway, &owner, "/prompt", &other)?;
    ensure!(refused.status == 409, "{}", refused.text());
    ensure!(refused.json()["error"]["type"] == "prompt_id_in_use");
    until(&gateway, &owner, id, "completed")?;
    ensure!(fake.runs_of(id) == 1);
    ensure!(
        state(&gateway, &owner, id)? == "completed",
        "{}",
        job(&gateway, &owner, id)?
    );
    Ok(())
}
