//! A gateway before a real ComfyUI, an account without an admin's rights, and a door for those that
//! know host and port alone.

use crate::catalogue::{Registry, Way};
use crate::install::Installed;
use anyhow::{Context as _, Result, bail, ensure};
use sentinel_tests::{Ask, Door, Gateway, Options, eventually};
use serde_json::{Value, json};
use std::fmt;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// For a ComfyUI to start, on a busy machine.
const START: Duration = Duration::from_secs(300);
/// For a client to start and do all its jobs.
const RUN: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_millis(50);
const USER: &str = "alice";
/// Longest end of what a client wrote that is shown, bytes.
const SHOWN: usize = 2000;

/// Whose the engines are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Separate,
    Shared,
}

impl fmt::Display for Mode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Separate => "separate users",
            Self::Shared => "shared",
        })
    }
}

/// What clients are run against.
pub(crate) struct World {
    gateway: Gateway,
    door: Door,
    token: String,
    jobs: AtomicU32,
}

impl World {
    pub(crate) fn start(mode: Mode) -> Result<Self> {
        let options = match mode {
            Mode::Shared => Options::real_comfyui()?,
            Mode::Separate => Options::real_comfyui_in(|_| Ok(()))?
                .map(|options| options.set("separate_users=true")),
        };
        let options = options.context("COMFYUI_DIR is not set")?;
        let options = options.set("comfyui.idle_stop_minutes=0").without_engine();
        let gateway = Gateway::start(options)?;
        gateway.add_user(USER)?;
        let token = gateway.make_token(USER)?;
        eventually(START, || {
            // Held by the gateway while the engine starts, so it may take longer than a client waits.
            let answer = gateway.ask(&Ask::get("/system_stats").bearer(&token));
            Ok(answer.is_ok_and(|answer| answer.status == 200))
        })
        .with_context(|| gateway.console())?;
        let door = Door::open(&format!("http://localhost:{}", gateway.port), &token, &[])?;
        Ok(Self {
            gateway,
            door,
            token,
            jobs: AtomicU32::new(0),
        })
    }

    /// Has a client make so many pictures, and looks at each of them.
    pub(crate) fn run(&self, installed: &Installed, way: Way, jobs: u32) -> Result<()> {
        let work = tempfile::tempdir()?;
        let mut expected = Vec::new();
        for number in 0..jobs {
            // A size of its own shows whose picture it is, and lets nothing come from a cache.
            let size = 16 + self.jobs.fetch_add(1, Ordering::Relaxed);
            let graph = graph(size);
            fs::write(
                work.path().join(format!("{number}.json")),
                graph.to_string(),
            )?;
            expected.push(size);
        }
        let console = fs::File::create(work.path().join("console"))?;
        let (program, script) = match installed.client.registry {
            Registry::Pypi => (
                installed.folder.join("bin/python"),
                installed.client.driver.0,
            ),
            Registry::Npm => ("node".into(), installed.client.driver.0),
        };
        let port = match way {
            Way::Connect => self.door.port,
            _ => self.gateway.port,
        };
        let mut child = Command::new(program)
            .arg(installed.folder.join(script))
            .current_dir(work.path())
            .env("HOME", work.path())
            .env("JOBS", jobs.to_string())
            .env("PORT", port.to_string())
            .env("WAY", way.word())
            .env("USER_NAME", USER)
            .env("TOKEN", if way == Way::Connect { "" } else { &self.token })
            .stdin(Stdio::null())
            .stdout(console.try_clone()?)
            .stderr(console)
            .spawn()?;
        let console = || {
            let bytes = fs::read(work.path().join("console")).unwrap_or_default();
            let from = bytes.len().saturating_sub(SHOWN);
            String::from_utf8_lossy(&bytes[from..]).into_owned()
        };
        let started = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if started.elapsed() > RUN {
                child.kill()?;
                child.wait()?;
                bail!("it did not end in time: {}", console());
            }
            sleep(PAUSE);
        };
        ensure!(status.success(), "{status}: {}", console());
        for (number, size) in expected.iter().enumerate() {
            let picture = work.path().join(format!("{number}.png"));
            let found = size_of(&picture)
                .with_context(|| format!("picture {number} did not come back: {}", console()))?;
            ensure!(found == *size, "picture {number} is another one");
        }
        Ok(())
    }
}

/// Width and height of the picture are the size.
fn graph(size: u32) -> Value {
    json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": size, "height": size, "batch_size": 1, "color": 255},
              "_meta": {"title": "Empty Image"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "client"},
              "_meta": {"title": "Save Image"}},
    })
}

/// Width of a PNG, from the header of its first chunk.
fn size_of(path: &Path) -> Result<u32> {
    let bytes = fs::read(path)?;
    ensure!(bytes.starts_with(b"\x89PNG"), "this is no PNG");
    let width = bytes.get(16..20).context("this PNG is cut off")?;
    Ok(u32::from_be_bytes(width.try_into()?))
}
