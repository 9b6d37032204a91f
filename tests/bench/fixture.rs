//! What is measured: two upstreams, and the ways to them.

use crate::client::Target;
use crate::process::{Process, sentineld};
use crate::roles::{self, SYSTEM_STATS};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Map, Value, json};
use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest start of anything.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of the large download.
pub(crate) const DOWNLOAD: usize = 200 * 1000 * 1000;
/// Bytes of `object_info`.
pub(crate) const OBJECT_INFO: usize = 1_600_000;
/// The account that measures.
pub(crate) const USERNAME: &str = "measurer";
pub(crate) const PASSWORD: &str = "loopback-only-1";

/// A way to the upstreams.
#[derive(Debug)]
pub(crate) struct Way {
    /// To the upstream of small and large files.
    pub(crate) files: Target,
    /// To the upstream of uploads and WebSockets.
    pub(crate) stream: Target,
    /// The processes between, on the way to the files.
    pub(crate) processes: Vec<u32>,
}

/// All ways, in the order of the table.
pub(crate) const DIRECT: usize = 0;
pub(crate) const OURS: usize = 1;
pub(crate) const NGINX: usize = 2;
pub(crate) const AUTH_REQUEST: usize = 3;
pub(crate) const WAYS: usize = 4;

#[derive(Debug)]
pub(crate) struct Fixture {
    pub(crate) ways: [Way; WAYS],
    /// Memory of each way's processes before any load, MiB.
    pub(crate) idle: [Option<f64>; WAYS],
    one_account: String,
    files: SocketAddr,
    stream: SocketAddr,
    _processes: Vec<Process>,
    _gateways: [Gateway; 2],
    directory: TempDir,
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

pub(crate) fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind(loopback(0))?.local_addr()?)
}

pub(crate) fn await_answer(address: SocketAddr) -> Result<()> {
    let started = Instant::now();
    while TcpStream::connect(address).is_err() {
        ensure!(started.elapsed() < PATIENCE, "{address} does not come up");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn myself(role: &str) -> Result<(Process, SocketAddr)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(role);
    let mut process = Process::start(command, None)?;
    let port = process.line()?.parse()?;
    Ok((process, loopback(port)))
}

/// Starts an nginx of its own; `servers` goes into the `http` block.
fn nginx(place: &Path, servers: &str, address: SocketAddr) -> Result<Process> {
    fs::create_dir_all(place)?;
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {kind}_temp;\n"))
        .collect();
    // Started by root, the workers must still be able to read the temporary directory.
    fs::write(
        place.join("nginx.conf"),
        format!(
            "user root root;\nworker_processes 2;\ndaemon off;\npid nginx.pid;\n\
             error_log error.log crit;\nevents {{ worker_connections 4096; }}\n\
             http {{\naccess_log off;\nsendfile on;\ntcp_nodelay on;\n\
             keepalive_timeout 300s;\nkeepalive_requests 1000000000;\n\
             default_type application/json;\nclient_max_body_size 0;\n{temporary}{servers}}}\n"
        ),
    )?;
    let command = || {
        let mut command = Command::new("nginx");
        command
            .arg("-p")
            .arg(place)
            .args(["-e", "error.log", "-c"])
            .arg(place.join("nginx.conf"));
        command.stderr(Stdio::null());
        command
    };
    let mut stop = command();
    stop.args(["-s", "stop"]);
    let process = Process::start(command(), Some(stop))
        .context("nginx is needed; cargo xtask bench installs it")?;
    await_answer(address)?;
    Ok(process)
}

fn upstream(place: &Path) -> Result<(Process, SocketAddr)> {
    let address = free_port()?;
    let root = place.join("root");
    fs::create_dir_all(&root)?;
    fs::File::create(root.join("download"))?.set_len(DOWNLOAD as u64)?;
    fs::write(root.join("object_info"), vec![b' '; OBJECT_INFO])?;
    let small = json!({"exec_info": {"queue_remaining": 0}});
    let servers = format!(
        "server {{\nlisten {address};\nroot root;\n\
         location = /prompt {{ return 200 '{small}'; }}\n\
         location = /features {{ return 200 '{small}'; }}\n\
         location = /system_stats {{ return 200 '{SYSTEM_STATS}'; }}\n}}\n"
    );
    Ok((nginx(place, &servers, address)?, address))
}

/// A proxying nginx before both upstreams, with `auth_request` if there is somebody to ask.
fn proxy(
    place: &Path,
    [files, stream]: [SocketAddr; 2],
    check: Option<SocketAddr>,
) -> Result<(Process, SocketAddr, SocketAddr)> {
    let fronts = [free_port()?, free_port()?];
    let keep = "keepalive 64;\nkeepalive_requests 1000000000;";
    let mut servers =
        "map $http_upgrade $connection_upgrade { default upgrade; '' ''; }\n".to_owned();
    let mut guard = String::new();
    let mut check_location = String::new();
    if let Some(check) = check {
        servers += &format!("upstream check {{\nserver {check};\n{keep}\n}}\n");
        "auth_request /_check;\n".clone_into(&mut guard);
        check_location += "location = /_check {\ninternal;\nproxy_pass http://check;\n\
             proxy_http_version 1.1;\nproxy_set_header Connection '';\n\
             proxy_pass_request_body off;\nproxy_set_header Content-Length '';\n}\n";
    }
    for (name, front, back) in [("files", fronts[0], files), ("stream", fronts[1], stream)] {
        servers += &format!(
            "upstream {name} {{\nserver {back};\n{keep}\n}}\n\
             server {{\nlisten {front};\n{check_location}\
             location / {{\n{guard}proxy_pass http://{name};\nproxy_http_version 1.1;\n\
             proxy_set_header Upgrade $http_upgrade;\n\
             proxy_set_header Connection $connection_upgrade;\n}}\n}}\n"
        );
    }
    let process = nginx(place, &servers, fronts[0])?;
    Ok((process, fronts[0], fronts[1]))
}

/// A running `sentineld`; it ends with this value.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    _directory: TempDir,
}

impl Gateway {
    /// Starts one that is attached to `engine`, with these accounts; returns it and the seconds
    /// until it answered.
    fn start(accounts: &str, engine: SocketAddr) -> Result<(Self, f64)> {
        let attached = [
            "--set".to_owned(),
            format!("comfyui.attach=http://{engine}"),
        ];
        Self::launch(accounts, &attached)
    }

    /// Starts one with these arguments; returns it and the seconds until it answered.
    fn launch(accounts: &str, arguments: &[String]) -> Result<(Self, f64)> {
        let directory = tempfile::tempdir()?;
        fs::write(directory.path().join("users_db.json"), accounts)?;
        let mut command = Command::new(sentineld()?);
        command
            .args(["run", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(directory.path())
            .args(arguments)
            .stderr(Stdio::null());
        let started = Instant::now();
        let mut process = Process::start(command, None)?;
        let line = loop {
            let line = process.line()?;
            if line.starts_with("Sentinel is ready at ") {
                break line;
            }
        };
        let port = line
            .rsplit_once(':')
            .context("a port")?
            .1
            .trim_end_matches('/')
            .parse()?;
        let address = loopback(port);
        let stranger = Target {
            address,
            token: None,
        };
        let health = stranger.request("GET", "/sentinel/health", "");
        stranger.connect()?.exchange(&health, 200)?;
        let seconds = started.elapsed().as_secs_f64();
        Ok((
            Self {
                process,
                address,
                _directory: directory,
            },
            seconds,
        ))
    }

    /// Signs in and waits until the engine is reached.
    pub(crate) fn sign_in(&self) -> Result<Target> {
        let stranger = Target {
            address: self.address,
            token: None,
        };
        let mut connection = stranger.connect()?;
        connection.send(&sign_in_request(&stranger))?;
        let (status, text) = connection.text()?;
        ensure!(status == 200, "signing in was answered by {status}: {text}");
        let answer: Value = serde_json::from_str(&text)?;
        let token = answer["jwt_token"].as_str().context("a token")?.to_owned();
        let target = Target {
            token: Some(token),
            ..stranger
        };
        let question = target.request("GET", "/system_stats", "");
        let started = Instant::now();
        loop {
            connection.send(&question)?;
            match connection.text()? {
                (200, _) => return Ok(target),
                (503, _) if started.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                (status, text) => bail!("the engine was not reached: {status} {text}"),
            }
        }
    }
}

/// The whole request that signs the measuring account in.
pub(crate) fn sign_in_request(target: &Target) -> Vec<u8> {
    let body = json!({"username": USERNAME, "password": PASSWORD}).to_string();
    let more = format!(
        "Content-Type: application/json\r\nContent-Length: {}\r\n",
        body.len()
    );
    let mut request = target.request("POST", "/login", &more);
    request.extend(body.into_bytes());
    request
}

/// The account file of one admin, made by the gateway's own command.
fn one_account(place: &Path) -> Result<String> {
    fs::create_dir_all(place)?;
    let mut adding = Command::new(sentineld()?)
        .args(["user", "--data-dir"])
        .arg(place)
        .args(["add", USERNAME, "--admin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context("starting sentineld")?;
    writeln!(adding.stdin.take().context("its input")?, "{PASSWORD}")?;
    ensure!(adding.wait()?.success(), "the account was not made");
    Ok(fs::read_to_string(place.join("users_db.json"))?)
}

impl Fixture {
    pub(crate) fn start() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let place = |name: &str| -> PathBuf { directory.path().join(name) };
        let (file_server, files) = upstream(&place("upstream"))?;
        let (stream_server, stream) = myself("stream")?;
        let (check, check_address) = myself("token-check")?;
        let (plain, plain_files, plain_stream) = proxy(&place("plain"), [files, stream], None)?;
        let (guarded, guarded_files, guarded_stream) =
            proxy(&place("guarded"), [files, stream], Some(check_address))?;
        let one_account = one_account(&place("account"))?;
        let (ours, _) = Gateway::start(&one_account, files)?;
        let (ours_stream, _) = Gateway::start(&one_account, stream)?;

        let token = Some(roles::token()?);
        let target = |address| Target {
            address,
            token: token.clone(),
        };
        let way = |files, stream, processes| Way {
            files: target(files),
            stream: target(stream),
            processes,
        };
        let mut ways = [
            way(files, stream, Vec::new()),
            way(ours.address, ours_stream.address, vec![ours.process.id()]),
            way(plain_files, plain_stream, vec![plain.id()]),
            way(
                guarded_files,
                guarded_stream,
                vec![guarded.id(), check.id()],
            ),
        ];
        // The first look at the memory comes before the first password is hashed.
        std::thread::sleep(Duration::from_millis(500));
        let mut idle = [None; WAYS];
        for (memory, way) in idle.iter_mut().zip(&ways) {
            if !way.processes.is_empty() {
                *memory = Some(crate::process::memory(&way.processes)?);
            }
        }
        ways[OURS].files = ours.sign_in()?;
        ways[OURS].stream = ours_stream.sign_in()?;
        Ok(Self {
            ways,
            idle,
            one_account,
            files,
            stream,
            _processes: vec![file_server, stream_server, check, plain, guarded],
            _gateways: [ours, ours_stream],
            directory,
        })
    }

    /// Another gateway before the files, with one account; and the seconds until it answered.
    pub(crate) fn before_files(&self) -> Result<(Gateway, f64)> {
        Gateway::start(&self.one_account, self.files)
    }

    /// Another gateway before the streams.
    pub(crate) fn before_stream(&self) -> Result<Gateway> {
        Ok(Gateway::start(&self.one_account, self.stream)?.0)
    }

    /// Another gateway before the files, with this many accounts.
    pub(crate) fn with_accounts(&self, count: usize) -> Result<Gateway> {
        Ok(Gateway::start(&self.accounts(count)?, self.files)?.0)
    }

    /// A gateway of so many accounts, the first one an admin's, before this engine.
    pub(crate) fn attached(
        &self,
        engine: SocketAddr,
        count: usize,
        settings: &[&str],
    ) -> Result<Gateway> {
        let attach = format!("comfyui.attach=http://{engine}");
        let settings = settings.iter().copied().chain([attach.as_str()]);
        let arguments: Vec<String> = settings
            .flat_map(|setting| ["--set".to_owned(), setting.to_owned()])
            .collect();
        let (gateway, _) = Gateway::launch(&self.accounts(count)?, &arguments)?;
        gateway.sign_in()?;
        Ok(gateway)
    }

    /// A gateway of so many accounts, the first one an admin's, that starts engines itself.
    pub(crate) fn with_engines(&self, count: usize, arguments: &[String]) -> Result<Gateway> {
        let (mut gateway, _) = Gateway::launch(&self.accounts(count)?, arguments)?;
        gateway.process.ask_to_end();
        Ok(gateway)
    }

    fn accounts(&self, count: usize) -> Result<String> {
        let mut accounts: Map<String, Value> = serde_json::from_str(&self.one_account)?;
        let pattern = accounts.values().next().context("an account")?.clone();
        for number in 1..count {
            let mut account = pattern.clone();
            account["username"] = format!("user{number}").into();
            account["admin"] = false.into();
            accounts.insert(format!("00000000-0000-4000-8000-{number:012}"), account);
        }
        Ok(Value::Object(accounts).to_string())
    }

    /// What nginx reported, if anything.
    pub(crate) fn complaints(&self) -> String {
        ["upstream", "plain", "guarded"]
            .iter()
            .filter_map(|name| {
                fs::read_to_string(self.directory.path().join(name).join("error.log")).ok()
            })
            .collect()
    }
}
