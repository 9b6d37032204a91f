//! Real processes under the supervisor: small shell and Python programs play the engine.
//!
//! The guard is this test program itself, run again with the one test [`guard_process`].

mod life;
#[cfg(target_os = "linux")]
mod sandbox;
#[cfg(target_os = "linux")]
mod tree;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;

/// No wait in these tests takes longer than this unless something is broken.
const LIMIT: Duration = Duration::from_secs(30);
const GUARD_VARIABLE: &str = "SENTINEL_TEST_GUARD";

const GATEWAY_VARIABLE: &str = "SENTINEL_TEST_GATEWAY";

/// Not a test: the body of the guard processes the other tests start.
#[test]
fn guard_process() {
    if std::env::var_os(GUARD_VARIABLE).is_some() {
        let _code = guard_main();
        #[expect(clippy::exit, reason = "the test harness must not print its summary")]
        std::process::exit(0);
    }
}

/// Not a test: the body of the gateway that [`tree`] kills.
#[tokio::test]
async fn gateway_process() {
    let Some(directory) = std::env::var_os(GATEWAY_VARIABLE) else {
        return;
    };
    let script = Script {
        program: "python3",
        text: PYTHON_ENGINE.replace("{before}", RUNAWAY),
        directory: directory.into(),
    };
    let log = LogRing::new(LogLimits::default());
    let supervisor = Supervisor::launch(quick(), Arc::new(script), Arc::new(spawner()), log);
    supervisor.handle().start().await.unwrap();
    tokio::time::sleep(10 * LIMIT).await;
}

/// Arguments that make this test program run one test of this module, named without the crate.
fn only(test: &str) -> Vec<OsString> {
    let path = format!("{}::{test}", module_path!());
    let (_, path) = path.split_once("::").unwrap();
    ["--exact", "--nocapture", "--quiet", path]
        .map(OsString::from)
        .into()
}

fn spawner() -> LocalSpawner {
    let mut arguments: Vec<OsString> = vec![format!("{GUARD_VARIABLE}=1").into()];
    arguments.push(std::env::current_exe().unwrap().into());
    arguments.extend(only("guard_process"));
    LocalSpawner::with_guard("/usr/bin/env", arguments)
}

/// Runs a script that finds its port in `PORT` and its directory as the current one.
struct Script {
    program: &'static str,
    text: String,
    directory: PathBuf,
}

impl Launcher for Script {
    fn plan(&self, address: SocketAddr) -> Result<LaunchPlan, LaunchError> {
        Ok(LaunchPlan {
            program: self.program.into(),
            arguments: vec!["-c".into(), self.text.clone().into()],
            working_directory: self.directory.clone(),
            environment: vec![
                ("PORT".into(), address.port().to_string().into()),
                ("PYTHONUNBUFFERED".into(), "1".into()),
            ],
            removed_environment: vec![GUARD_VARIABLE.into()],
            address,
            sandbox: None,
        })
    }
}

/// An HTTP server that answers as ComfyUI does, with `{before}` run first.
const PYTHON_ENGINE: &str = r#"
import http.server, os, signal, subprocess, sys, threading, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'{"system": {"comfyui_version": "0.12.1"}}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        pass
{before}
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
print("Starting server")
server.serve_forever()
"#;

struct Fixture {
    directory: tempfile::TempDir,
    supervisor: Supervisor,
    engine: SupervisorHandle,
}

impl Fixture {
    fn new(program: &'static str, text: &str, settings: SupervisorSettings) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let script = Script {
            program,
            text: text.to_owned(),
            directory: directory.path().to_owned(),
        };
        let log = LogRing::new(LogLimits::default());
        let supervisor = Supervisor::launch(settings, Arc::new(script), Arc::new(spawner()), log);
        let engine = supervisor.handle();
        Self {
            directory,
            supervisor,
            engine,
        }
    }

    fn python(before: &str, settings: SupervisorSettings) -> Self {
        let text = PYTHON_ENGINE.replace("{before}", before);
        Self::new("python3", &text, settings)
    }

    fn shell(text: &str, settings: SupervisorSettings) -> Self {
        Self::new("sh", text, settings)
    }

    async fn reaches(&self, state: EngineState) -> EngineStatus {
        let reached = self.engine.wait_for(|status| status.state == state);
        match tokio::time::timeout(LIMIT, reached).await {
            Ok(status) => status.unwrap(),
            Err(_) => panic!(
                "{state:?} not reached: {:?}, {:?}",
                self.engine.current(),
                self.lines()
            ),
        }
    }

    fn lines(&self) -> Vec<String> {
        let entries = self.engine.log().tail(usize::MAX);
        entries.into_iter().map(|entry| entry.text).collect()
    }

    /// Process ids the engine wrote into a file of its directory.
    async fn written_pid(&self, name: &str) -> i32 {
        written_pid(&self.directory.path().join(name)).await
    }
}

async fn written_pid(path: &Path) -> i32 {
    until(&format!("{} is written", path.display()), || {
        let text = std::fs::read_to_string(path).ok()?;
        text.strip_suffix('\n')?.parse().ok()
    })
    .await
}

/// Looks again and again until `check` gives something.
async fn until<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn alive(pid: i32) -> bool {
    let exists = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None).is_ok();
    // A zombie has ended; only its parent has not looked yet.
    let zombie = std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.contains(") Z "));
    exists && !zombie
}

async fn is_gone(pid: i32) {
    until(&format!("process {pid} is gone"), || {
        (!alive(pid)).then_some(())
    })
    .await;
}

fn quick() -> SupervisorSettings {
    SupervisorSettings {
        restart: RestartPolicy {
            first_delay: Duration::from_millis(20),
            longest_delay: Duration::from_millis(100),
            ..RestartPolicy::default()
        },
        poll_interval: Duration::from_millis(20),
        ..SupervisorSettings::default()
    }
}

/// Starts a grandchild in a session of its own whose parent ends at once.
#[cfg(target_os = "linux")]
const RUNAWAY: &str = "
print(os.getpid(), file=open('engine', 'w'))
subprocess.Popen(['sh', '-c', 'trap \"\" TERM; (setsid sh -c \"trap : TERM; echo \\$\\$ > runaway; while :; do sleep 1000; done\" &) ; exit 0'])
while not os.path.exists('runaway'): time.sleep(0.01)
";
