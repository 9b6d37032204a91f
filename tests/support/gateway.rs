//! A real `sentineld` with a data directory of its own and the demo engine behind it.

use crate::client::{Answer, Ask};
use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::env::consts::EXE_SUFFIX;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Password of all accounts that tests make, unless they say otherwise.
pub const PASSWORD: &str = "correct-horse-7";
const PATIENCE: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(20);
/// Inherited by all that a gateway starts, so that its processes can be told from others.
const MARK: &str = "SENTINEL_TEST_MARK";

/// How to start a gateway.
#[derive(Clone, Debug)]
pub struct Options {
    set: Vec<String>,
    arguments: Vec<String>,
    comfyui: Vec<String>,
    environment: Vec<(String, String)>,
    files: Vec<(String, String)>,
    data: Option<Arc<TempDir>>,
    has_owner: bool,
    awaits_engine: bool,
    listens_by_settings: bool,
    listen: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            set: Vec::new(),
            arguments: vec!["--fault".to_owned(), "routes".to_owned()],
            comfyui: vec!["--comfyui".to_owned(), "demo".to_owned()],
            environment: Vec::new(),
            files: Vec::new(),
            data: None,
            has_owner: true,
            awaits_engine: true,
            listens_by_settings: false,
            listen: "127.0.0.1:0".to_owned(),
        }
    }
}

impl Options {
    /// The real ComfyUI of `COMFYUI_DIR` with the Python of `COMFYUI_PYTHON`, on the processor, with
    /// directories of its own in a new data directory; `None` when none is named.
    pub fn real_comfyui() -> Result<Option<Self>> {
        let Ok(folder) = std::env::var("COMFYUI_DIR") else {
            return Ok(None);
        };
        let mut comfyui = vec!["--comfyui".to_owned(), folder];
        if let Ok(python) = std::env::var("COMFYUI_PYTHON") {
            comfyui.extend(["--python".to_owned(), python]);
        }
        let data = Arc::new(tempfile::tempdir()?);
        let mut arguments = vec!["--cpu".to_owned()];
        for kind in ["input", "output", "temp", "user"] {
            let folder = data.path().join("comfyui").join(kind);
            fs::create_dir_all(&folder)?;
            arguments.extend([format!("--{kind}-directory"), folder.display().to_string()]);
        }
        Ok(Some(Self {
            arguments,
            comfyui,
            data: Some(data),
            ..Self::default()
        }))
    }

    /// The real ComfyUI of `COMFYUI_DIR` as [`Options::real_comfyui`], but with everything it takes
    /// from its own folder, such as custom nodes, in a base directory that `fill` fills first. Users
    /// can have engines of their own with it.
    pub fn real_comfyui_in(fill: impl FnOnce(&Path) -> Result<()>) -> Result<Option<Self>> {
        let Some(options) = Self::real_comfyui()? else {
            return Ok(None);
        };
        let data = options.data.as_ref().context("a data directory")?;
        let base = data.path().join("comfyui");
        // ComfyUI does not start without it.
        fs::create_dir_all(base.join("custom_nodes"))?;
        fill(&base)?;
        let arguments = ["--cpu", "--base-directory", &base.display().to_string()];
        Ok(Some(Self {
            arguments: arguments.map(str::to_owned).to_vec(),
            ..options
        }))
    }

    /// Adds a setting for this run.
    #[must_use]
    pub fn set(mut self, assignment: &str) -> Self {
        self.set.push(assignment.to_owned());
        self
    }

    /// Believes forwarding headers of loopback, so that tests come from where they like.
    #[must_use]
    pub fn behind_a_proxy(self) -> Self {
        self.set("trusted_proxies=127.0.0.1/32")
    }

    /// Adds a fault of the demo engine.
    #[must_use]
    pub fn fault(mut self, fault: &str) -> Self {
        self.arguments
            .extend(["--fault".to_owned(), fault.to_owned()]);
        self
    }

    /// Adds an argument for the engine.
    #[must_use]
    pub fn engine_argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Adds a variable to the gateway's environment.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Puts a file in the data directory first.
    #[must_use]
    pub fn file(mut self, name: &str, text: &str) -> Self {
        self.files.push((name.to_owned(), text.to_owned()));
        self
    }

    /// Takes the data directory of an earlier run.
    #[must_use]
    pub fn data(mut self, data: &Arc<TempDir>) -> Self {
        self.data = Some(Arc::clone(data));
        self.without_owner()
    }

    /// Makes no account.
    #[must_use]
    pub fn without_owner(mut self) -> Self {
        self.has_owner = false;
        self.without_engine()
    }

    /// Listens where the settings say, on any free port, instead of where the command line says.
    #[must_use]
    pub fn listening_by_settings(mut self) -> Self {
        self.listens_by_settings = true;
        self.file("config.json", "{\"sharing\": {\"port\": 0}}\n")
    }

    /// Listens at this address instead of at any free port.
    #[must_use]
    pub fn listening_on(mut self, address: &str) -> Self {
        self.listen = address.to_owned();
        self
    }

    /// Does not wait until the engine answers.
    #[must_use]
    pub fn without_engine(mut self) -> Self {
        self.awaits_engine = false;
        self
    }
}

/// A running gateway; it ends with this value.
#[derive(Debug)]
pub struct Gateway {
    /// Where it listens.
    pub port: u16,
    /// What it printed when there was no account.
    pub setup_code: Option<String>,
    /// Its data directory.
    pub data: Arc<TempDir>,
    /// Session of the account `owner`; empty when there is none.
    pub owner: String,
    child: Child,
    console: TempDir,
}

impl Gateway {
    /// Starts one and waits until it is ready.
    pub fn start(options: Options) -> Result<Self> {
        let data = match options.data {
            Some(data) => data,
            None => Arc::new(tempfile::tempdir()?),
        };
        for (name, text) in &options.files {
            fs::write(data.path().join(name), text)?;
        }
        let is_new = !data.path().join("users_db.json").exists();
        let console = tempfile::tempdir()?;
        let mut command = Command::new(program()?);
        command
            .args(["run", "--data-dir"])
            .arg(data.path())
            .args(&options.comfyui)
            .args([
                "--set",
                &format!("comfyui.args={}", json!(options.arguments)),
            ])
            .env_remove("SECRET_KEY")
            .env(MARK, data.path())
            .stdin(Stdio::null())
            .stdout(fs::File::create(console.path().join("stdout"))?)
            .stderr(fs::File::create(console.path().join("stderr"))?);
        if !options.listens_by_settings {
            command.args(["--listen", &options.listen]);
        }
        for assignment in &options.set {
            command.args(["--set", assignment]);
        }
        for (name, value) in &options.environment {
            command.env(name, value);
        }
        let child = command.spawn().context("starting sentineld")?;
        let mut gateway = Self {
            port: 0,
            setup_code: None,
            data,
            owner: String::new(),
            child,
            console,
        };
        gateway.await_ready(is_new)?;
        if options.has_owner {
            gateway.register_first("owner", PASSWORD)?;
            gateway.owner = gateway.sign_in("owner")?;
        }
        if options.awaits_engine {
            gateway.await_state("ready")?;
        }
        Ok(gateway)
    }

    fn await_ready(&mut self, expects_code: bool) -> Result<()> {
        let started = Instant::now();
        loop {
            let text = self.console();
            let address = text
                .lines()
                .find_map(|line| line.strip_prefix("Sentinel is ready at "));
            let code = text
                .lines()
                .find_map(|line| line.strip_prefix("Set-up code: "));
            let is_whole = text.ends_with('\n') && (code.is_some() || !expects_code);
            if let (Some(address), true) = (address, is_whole) {
                let port = address.rsplit(':').next().context("a port")?;
                self.port = port.trim_end_matches('/').parse()?;
                self.setup_code = code.map(str::to_owned);
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("sentineld ended with {status}: {text}");
            }
            ensure!(
                started.elapsed() < PATIENCE,
                "sentineld does not come up: {text}"
            );
            sleep(PAUSE);
        }
    }

    /// What it wrote to standard output and error.
    pub fn console(&self) -> String {
        ["stdout", "stderr"]
            .iter()
            .map(|name| fs::read(self.console.path().join(name)).unwrap_or_default())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .collect()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Runs a subcommand of `sentineld` on the same data directory, such as `["user", "list"]`, and
    /// returns what it printed.
    pub fn command(&self, words: &[&str]) -> Result<String> {
        command_on(self.data.path(), words, "")
    }

    /// Sends a request.
    pub fn ask(&self, ask: &Ask) -> Result<Answer> {
        ask.send(self.port)
    }

    /// Makes the first account.
    pub fn register_first(&self, name: &str, password: &str) -> Result<()> {
        let body = json!({"new_user_username": name, "new_user_password": password});
        let answer = self.ask(&Ask::post("/register").json(&body))?;
        ensure!(
            answer.status == 200,
            "registering {name}: {}",
            answer.text()
        );
        Ok(())
    }

    /// Makes a further account with the owner's credentials.
    pub fn add_user(&self, name: &str) -> Result<()> {
        self.add_user_with(name, PASSWORD)
    }

    /// Makes a further account with a password of its own.
    pub fn add_user_with(&self, name: &str, password: &str) -> Result<()> {
        let body = json!({
            "new_user_username": name, "new_user_password": password,
            "username": "owner", "password": PASSWORD,
        });
        let answer = self.ask(&Ask::post("/register").json(&body))?;
        ensure!(
            answer.status == 200,
            "registering {name}: {}",
            answer.text()
        );
        Ok(())
    }

    /// Tries to sign in.
    pub fn login(&self, name: &str, password: &str) -> Result<Answer> {
        self.ask(&login(name, password))
    }

    /// Signs in with the usual password.
    pub fn sign_in(&self, name: &str) -> Result<String> {
        let answer = self.login(name, PASSWORD)?;
        ensure!(answer.status == 200, "signing in {name}: {}", answer.text());
        token_of(&answer)
    }

    /// Starts a gateway with the users alice and bob_; returns it and their tokens.
    pub fn with_two(options: Options) -> Result<(Self, String, String)> {
        let gateway = Self::start(options)?;
        let token_of = |name| -> Result<String> {
            gateway.add_user(name)?;
            gateway.make_token(name)
        };
        let (alice, bob) = (token_of("alice")?, token_of("bob_")?);
        Ok((gateway, alice, bob))
    }

    /// Makes an API token by `/generate_token`.
    pub fn make_token(&self, name: &str) -> Result<String> {
        let body = json!({"username": name, "password": PASSWORD, "expire_hours": 1});
        token_of(&self.ask(&Ask::post("/generate_token").json(&body))?)
    }

    /// A proof for admin calls of this session.
    pub fn proof(&self, token: &str) -> Result<String> {
        let ask = Ask::post("/sentinel/api/step-up").bearer(token);
        let answer = self.ask(&ask.json(&json!({"password": PASSWORD})))?;
        let proof = answer.json()["proof"].as_str().map(str::to_owned);
        proof.with_context(|| format!("no proof: {}", answer.text()))
    }

    /// A call of the admin API as the owner, with a proof.
    pub fn admin(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer> {
        let ask = Ask::new(method, &format!("/sentinel/api/{path}"))
            .bearer(&self.owner)
            .header("X-Sentinel-Proof", &self.proof(&self.owner)?);
        self.ask(&match body {
            Some(body) => ask.json(body),
            None => ask,
        })
    }

    /// An API token of the owner with an admin's rights, which needs no proof.
    pub fn admin_token(&self) -> Result<String> {
        let ask = Ask::post("/sentinel/api/tokens").bearer(&self.owner);
        let body = json!({"name": "tests", "expire_hours": 1, "password": PASSWORD, "admin": true});
        token_of(&self.ask(&ask.json(&body))?)
    }

    /// Id of an account.
    pub fn user_id(&self, name: &str) -> Result<String> {
        let users = self.admin("GET", "users", None)?.json();
        let user = users["users"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|user| user["username"] == name);
        let id = user
            .and_then(|user| user["id"].as_str())
            .with_context(|| format!("no account {name} in {users}"))?;
        Ok(id.to_owned())
    }

    /// What `/sentinel/api/engine` says to the owner.
    pub fn engine(&self) -> Result<Value> {
        Ok(self
            .ask(&Ask::get("/sentinel/api/engine").bearer(&self.owner))?
            .json())
    }

    /// Waits for a state of the engine.
    pub fn await_state(&self, state: &str) -> Result<Value> {
        let started = Instant::now();
        loop {
            let engine = self.engine()?;
            if engine["state"] == state {
                return Ok(engine);
            }
            ensure!(
                started.elapsed() < PATIENCE,
                "the engine is not {state} but {engine}"
            );
            sleep(PAUSE);
        }
    }

    /// Ids of all processes that it started and that still live.
    pub fn descendants(&self) -> Vec<u32> {
        let mark = format!("{MARK}={}", self.data.path().display());
        let has_mark = |id: &u32| {
            let environment = fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
            environment
                .split(|byte| *byte == 0)
                .any(|entry| entry == mark.as_bytes())
        };
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|id| *id != self.id())
            .filter(has_mark)
            .collect()
    }

    /// Those of them that run the engine's program.
    pub fn engine_processes(&self) -> Vec<u32> {
        let is_engine = |id: &u32| {
            let command = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            let program = command.split(|byte| *byte == 0).next().unwrap_or_default();
            program.ends_with(b"demo-engine")
        };
        self.descendants().into_iter().filter(is_engine).collect()
    }

    /// Keeps it until the process of the tests ends, whatever ends it, and removes its data
    /// directory then: statics are not dropped.
    pub fn for_the_whole_run(self) -> Result<&'static Self> {
        const WATCH: &str = "trap '' INT; read -r _; kill -TERM \"$1\"; \
             while kill -0 \"$1\" 2>/dev/null; do sleep 0.1; done; rm -rf \"$2\" \"$3\"";
        let watch = Command::new("sh")
            .args(["-c", WATCH, "sh", &self.id().to_string()])
            .args([self.data.path(), self.console.path()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting the watch")?;
        // Its end of the pipe closes with this process.
        Box::leak(Box::new(watch));
        Ok(Box::leak(Box::new(self)))
    }

    /// Sends a signal to it.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.id().try_into()?), signal)?)
    }

    /// Waits for its end.
    pub fn ended_within(&mut self, patience: Duration) -> Result<ExitStatus> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(
                started.elapsed() < patience,
                "sentineld still runs: {}",
                self.console()
            );
            sleep(PAUSE);
        }
    }

    /// Ends it in good order and returns its data directory.
    pub fn stop(mut self) -> Result<Arc<TempDir>> {
        self.signal(Signal::SIGTERM)?;
        self.ended_within(PATIENCE)?;
        Ok(Arc::clone(&self.data))
    }

    /// All that it wrote anywhere: console and every file of the data directory.
    pub fn everything_written(&self) -> Result<Vec<(PathBuf, Vec<u8>)>> {
        let mut all = vec![(PathBuf::from("console"), self.console().into_bytes())];
        collect(self.data.path(), &mut all)?;
        Ok(all)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let _ = self.signal(Signal::SIGTERM);
        if self.ended_within(Duration::from_secs(15)).is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Runs a subcommand of `sentineld` on a data directory, whether a gateway uses it or not, with this
/// text as its standard input, and returns what it printed.
pub fn command_on(data: &Path, words: &[&str], input: &str) -> Result<String> {
    let (first, rest) = words.split_first().context("a subcommand")?;
    let mut child = Command::new(program()?)
        .arg(first)
        .arg("--data-dir")
        .arg(data)
        .args(rest)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // A subcommand that reads nothing may be gone already.
    let _ = child
        .stdin
        .take()
        .context("standard input")?
        .write_all(input.as_bytes());
    let output = child.wait_with_output()?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{words:?}: {errors}");
    Ok(String::from_utf8(output.stdout)?)
}

fn login(name: &str, password: &str) -> Ask {
    Ask::post("/login").json(&json!({"username": name, "password": password}))
}

fn token_of(answer: &Answer) -> Result<String> {
    let token = answer.json()["jwt_token"].as_str().map(str::to_owned);
    token.with_context(|| format!("no token: {}", answer.text()))
}

fn collect(directory: &Path, all: &mut Vec<(PathBuf, Vec<u8>)>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, all)?;
        } else if path.is_file() {
            all.push((path.clone(), fs::read(&path)?));
        }
    }
    Ok(())
}

/// Polls until it holds.
pub fn eventually(patience: Duration, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !holds()? {
        ensure!(
            started.elapsed() < patience,
            "it did not come true within {patience:?}"
        );
        sleep(PAUSE);
    }
    Ok(())
}

/// The program of `SENTINELD`, else the one beside the tests; the demo engine must lie beside it.
pub(crate) fn program() -> Result<PathBuf> {
    let program = match std::env::var_os("SENTINELD") {
        Some(path) => path.into(),
        None => std::env::current_exe()?
            .parent()
            .and_then(Path::parent)
            .context("the target directory")?
            .join(format!("sentineld{EXE_SUFFIX}")),
    };
    let engine = program.with_file_name(format!("demo-engine{EXE_SUFFIX}"));
    for path in [&program, &engine] {
        ensure!(
            path.is_file(),
            "{} is missing: cargo build --workspace first",
            path.display()
        );
    }
    Ok(program)
}
