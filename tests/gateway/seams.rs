//! No seams: a client never hears of an event before the record shows it, and of no event of a job
//! before the answer to its `POST /prompt`. The loop is that of ComfyUI's own WebSocket example.

use anyhow::{Context as _, Result, ensure};
use sentinel_tests::{Answer, Ask, Gateway, Options, read_answer};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fmt;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Message, WebSocket, client};

const PATIENCE: Duration = Duration::from_secs(30);
/// Times that the loop runs for each of the ends that clients wait for most.
const JOBS: usize = 300;
/// Times that it runs for the other ends.
const FEWER_JOBS: usize = 40;

/// The event at which a client believes that its job is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    ExecutingNull,
    Success,
    Error,
    Interrupted,
}

impl End {
    fn is_told_by(self, event: &Value) -> bool {
        match self {
            Self::ExecutingNull => is_executing_null(event),
            Self::Success => event["type"] == "execution_success",
            Self::Error => event["type"] == "execution_error",
            Self::Interrupted => event["type"] == "execution_interrupted",
        }
    }

    /// The n-th graph that ends in this way; no two are equal, so that nothing comes from a cache.
    fn graph(self, number: usize) -> Value {
        let slow = |seconds: f64, steps: u32, fail: bool| {
            let tag = format!("seams {number}");
            json!({
                "1": {"class_type": "SlowProbe", "inputs": {"seconds": seconds, "steps": steps, "preview": "none", "tag": tag, "fail": fail}},
                "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "seams"}},
            })
        };
        match self {
            Self::ExecutingNull | Self::Success => json!({
                "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": number}},
                "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "seams"}},
            }),
            Self::Error => slow(0.0, 1, true),
            Self::Interrupted => slow(60.0, 1000, false),
        }
    }

    /// `status_str` of its history entry.
    fn status(self) -> &'static str {
        match self {
            Self::ExecutingNull | Self::Success => "success",
            Self::Error | Self::Interrupted => "error",
        }
    }
}

fn is_executing_null(event: &Value) -> bool {
    event["type"] == "executing" && event["data"]["node"].is_null()
}

/// What a client saw that plain ComfyUI never shows.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seams {
    no_history: usize,
    no_api_job: usize,
    no_outputs: usize,
    still_queued: usize,
    status_not_zero: usize,
    before_the_answer: usize,
}

impl fmt::Display for Seams {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            no_history,
            no_api_job,
            no_outputs,
            still_queued,
            status_not_zero,
            before_the_answer,
        } = self;
        write!(
            formatter,
            "not in /history: {no_history}; not done in /api/jobs: {no_api_job}; without outputs: {no_outputs}; \
             still in /queue: {still_queued}; no status 0 before executing null: {status_not_zero}; \
             events before the answer: {before_the_answer}"
        )
    }
}

/// A program with one socket and a connection for each request.
struct Program {
    port: u16,
    token: String,
    client: String,
    socket: WebSocket<TcpStream>,
    known: HashSet<String>,
    seams: Seams,
}

impl Program {
    fn start(port: u16, token: &str, name: &str) -> Result<Self> {
        let mut request =
            format!("ws://localhost:{port}/ws?clientId={name}").into_client_request()?;
        let bearer = HeaderValue::from_str(&format!("Bearer {token}"))?;
        request.headers_mut().insert("authorization", bearer);
        let (socket, _) = client(request, connect(port)?)?;
        Ok(Self {
            port,
            token: token.to_owned(),
            client: name.to_owned(),
            socket,
            known: HashSet::new(),
            seams: Seams::default(),
        })
    }

    /// Queues a graph, waits for its end, and looks whether all records know of it.
    fn run(&mut self, graph: &Value, end: End) -> Result<()> {
        let body = json!({"prompt": graph, "client_id": self.client});
        let mut submission = self.begin(&Ask::post("/prompt").json(&body))?;
        // The socket is read first: what is on it now must be of a job whose answer is here too.
        let (first, id) = loop {
            let event = self.event()?;
            if let Some(id) = event["data"]["prompt_id"].as_str()
                && !self.known.contains(id)
            {
                let id = id.to_owned();
                break (event, id);
            }
        };
        if !submission.is_answered_now()? {
            self.seams.before_the_answer += 1;
        }
        let answer = submission.answer()?;
        ensure!(answer.status == 200, "{}", answer.text());
        ensure!(answer.json()["prompt_id"] == id, "{}", answer.text());
        self.known.insert(id.clone());
        if end == End::Interrupted {
            let interrupt = Ask::post("/interrupt").json(&json!({"prompt_id": id}));
            let answer = self.begin(&interrupt)?.answer()?;
            ensure!(answer.status == 200, "{}", answer.text());
        }
        let mut event = first;
        let mut remaining = None;
        let mut is_checked = false;
        let mut seen = Vec::new();
        loop {
            seen.push(event["type"].as_str().unwrap_or_default().to_owned());
            let is_own = event["data"]["prompt_id"] == id.as_str();
            if is_own && end.is_told_by(&event) {
                self.check(&id, end)?;
                is_checked = true;
            }
            if event["type"] == "status" {
                remaining = event["data"]["status"]["exec_info"]["queue_remaining"].as_u64();
            }
            if is_own && is_executing_null(&event) {
                break;
            }
            event = self.event()?;
        }
        ensure!(is_checked, "{id} did not end by {end:?} but: {seen:?}");
        if remaining != Some(0) {
            self.seams.status_not_zero += 1;
        }
        Ok(())
    }

    /// Asks for everything that shows a job, all at once.
    fn check(&mut self, id: &str, end: End) -> Result<()> {
        let mut history = self.begin(&Ask::get(&format!("/history/{id}")))?;
        let mut queue = self.begin(&Ask::get("/queue"))?;
        let mut job = self.begin(&Ask::get(&format!("/api/jobs/{id}")))?;
        let entry = history.answer()?.json()[id].take();
        if entry["status"]["status_str"] != end.status() {
            self.seams.no_history += 1;
        } else if end.status() == "success" && entry["outputs"]["2"]["images"][0].is_null() {
            self.seams.no_outputs += 1;
        }
        let queue = queue.answer()?.json();
        let is_queued = ["queue_running", "queue_pending"].iter().any(|part| {
            let jobs = queue[part].as_array();
            jobs.is_none_or(|jobs| jobs.iter().any(|job| job[1] == id))
        });
        if is_queued {
            self.seams.still_queued += 1;
        }
        let job = job.answer()?;
        let status = job.json()["status"].take();
        if job.status != 200 || status == "pending" || status == "in_progress" {
            self.seams.no_api_job += 1;
        }
        Ok(())
    }

    fn event(&mut self) -> Result<Value> {
        loop {
            if let Message::Text(text) = self.socket.read().context("waiting for an event")? {
                return Ok(serde_json::from_str(&text)?);
            }
        }
    }

    fn begin(&self, ask: &Ask) -> Result<Exchange> {
        let mut stream = connect(self.port)?;
        stream.write_all(&ask.clone().bearer(&self.token).bytes(self.port))?;
        Ok(Exchange {
            stream,
            bytes: Vec::new(),
        })
    }
}

/// A request that has been sent.
struct Exchange {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Exchange {
    /// Whether the whole answer has come, without waiting for it.
    fn is_answered_now(&mut self) -> Result<bool> {
        self.stream.set_nonblocking(true)?;
        let ended = self.stream.read_to_end(&mut self.bytes);
        self.stream.set_nonblocking(false)?;
        match ended {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                Ok(read_answer(&self.bytes, false).is_ok())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn answer(&mut self) -> Result<Answer> {
        self.stream.read_to_end(&mut self.bytes)?;
        read_answer(&self.bytes, false)
    }
}

fn connect(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The official example's loop, so many times for each of the ends.
fn expect_no_seams(options: Options, ends: &[(End, usize)]) -> Result<()> {
    let gateway = Gateway::start(options)?;
    gateway.add_user("alice")?;
    let token = gateway.make_token("alice")?;
    await_engine_of(&gateway, &token)?;
    let mut number = 0;
    let mut found = Vec::new();
    for (end, jobs) in ends {
        let client = format!("seams-{end:?}");
        let mut program = Program::start(gateway.port, &token, &client)?;
        for _ in 0..*jobs {
            number += 1;
            program
                .run(&end.graph(number), *end)
                .with_context(|| format!("job {number}, {end:?}"))?;
        }
        tell(&format!("{end:?}, {jobs} jobs: {}", program.seams));
        if program.seams != Seams::default() {
            found.push(format!("{end:?}, {jobs} jobs: {}", program.seams));
        }
    }
    ensure!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}

/// Tells the counts, also where all is well.
#[expect(clippy::print_stderr, reason = "the one place where these tests print")]
fn tell(text: &str) {
    eprintln!("{text}");
}

/// The engine of a user starts with the first request.
fn await_engine_of(gateway: &Gateway, token: &str) -> Result<()> {
    sentinel_tests::eventually(Duration::from_secs(90), || {
        let answer = gateway.ask(&Ask::get("/system_stats").bearer(token))?;
        Ok(answer.status == 200)
    })
}

/// Only what ComfyUI itself can do: it has no node that fails or takes its time on demand.
const OF_EVERY_ENGINE: [(End, usize); 2] = [(End::ExecutingNull, JOBS), (End::Success, JOBS)];
const OF_THE_DEMO: [(End, usize); 4] = [
    (End::ExecutingNull, JOBS),
    (End::Success, JOBS),
    (End::Error, FEWER_JOBS),
    (End::Interrupted, FEWER_JOBS),
];

#[test]
fn one_engine_for_all_shows_no_seams() -> Result<()> {
    expect_no_seams(Options::default(), &OF_THE_DEMO)
}

#[test]
fn engines_of_users_show_no_seams() -> Result<()> {
    expect_no_seams(Options::default().set("separate_users=true"), &OF_THE_DEMO)
}

#[test]
#[ignore = "needs a real ComfyUI: set COMFYUI_DIR and COMFYUI_PYTHON"]
fn a_real_comfyui_for_all_shows_no_seams() -> Result<()> {
    let options = Options::real_comfyui()?.context("COMFYUI_DIR is not set")?;
    expect_no_seams(options, &OF_EVERY_ENGINE)
}

#[test]
#[ignore = "needs a real ComfyUI: set COMFYUI_DIR and COMFYUI_PYTHON"]
fn real_comfyuis_of_users_show_no_seams() -> Result<()> {
    let options = Options::real_comfyui_in(|_| Ok(()))?.context("COMFYUI_DIR is not set")?;
    expect_no_seams(options.set("separate_users=true"), &OF_EVERY_ENGINE)
}
