//! Starts what the recordings are replayed against: the demo engine, or a real ComfyUI.

use crate::wire;
use anyhow::{Context as _, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Files of the front end that the recordings ask for: name and length.
const FRONT_END: &[(&str, usize)] = &[
    ("index.html", 20_142),
    ("assets/index-vtow2bzT.js", 3_161),
    ("scripts/app.js", 271),
    ("extensions/core/groupNode.js", 409),
    ("docs/en/page.md", 10),
];

/// What is being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Demo,
    Real,
}

/// A running server with directories of its own; it ends with this value.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) port: u16,
    /// Where input, output, temp and user lie.
    pub(crate) root: PathBuf,
    /// Where the program lies on this machine, and what recordings call these places.
    pub(crate) places: Vec<(String, &'static str)>,
    child: Child,
    _directory: tempfile::TempDir,
}

impl Server {
    /// Starts the demo engine with the flags of the recordings and these besides.
    pub(crate) async fn demo(more: &[&str]) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let root = directory.path().canonicalize()?;
        let front_end = root.join("front_end");
        for (name, length) in FRONT_END {
            let path = front_end.join(name);
            fs::create_dir_all(path.parent().context("a parent")?)?;
            fs::write(path, vec![b' '; *length])?;
        }
        fs::create_dir_all(front_end.join("templates"))?;
        fs::write(front_end.join("templates/index.json"), "[]")?;
        let mut command = Command::new(demo_engine()?);
        command
            .arg("--enable-manager")
            .arg("--front-end-root")
            .arg(&front_end)
            .args(more);
        Self::start(
            Kind::Demo,
            command,
            root,
            directory,
            Duration::from_secs(10),
        )
        .await
    }

    /// Starts the ComfyUI of `COMFYUI_DIR` with the Python of `COMFYUI_PYTHON` and these flags besides.
    pub(crate) async fn real(comfyui: &Path, python: &Path, more: &[&str]) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let root = directory.path().canonicalize()?;
        let node = root.join("custom_nodes/slow_probe.py");
        fs::create_dir_all(root.join("custom_nodes"))?;
        fs::write(node, include_str!("slow_probe.py"))?;
        let mut command = Command::new(python);
        command
            .current_dir(comfyui)
            .args(["main.py", "--cpu", "--disable-auto-launch"])
            .args(more);
        command
            .arg("--database-url")
            .arg(format!("sqlite:///{}", root.join("comfyui.db").display()));
        // The manager became part of it between the recorded versions.
        let flags = fs::read_to_string(comfyui.join("comfy/cli_args.py")).unwrap_or_default();
        if flags.contains("--enable-manager") {
            command.arg("--enable-manager");
        }
        // The newer default drops results when memory is short, so what is kept depends on the machine.
        if flags.contains("--high-ram") {
            command.arg("--cache-classic");
        }
        let mut server = Self::start(
            Kind::Real,
            command,
            root,
            directory,
            Duration::from_secs(180),
        )
        .await?;
        let place = |path: &Path| path.to_string_lossy().into_owned();
        server.places.push((place(comfyui), "/opt/comfyui"));
        if let Some(environment) = python.parent().and_then(Path::parent) {
            server.places.push((place(environment), "/opt/python"));
        }
        Ok(server)
    }

    async fn start(
        kind: Kind,
        mut command: Command,
        root: PathBuf,
        directory: tempfile::TempDir,
        patience: Duration,
    ) -> Result<Self> {
        for name in ["input", "output", "temp", "user"] {
            fs::create_dir_all(root.join(name))?;
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0")?
            .local_addr()?
            .port();
        let log = fs::File::create(root.join("log.txt"))?;
        let child = command
            .args([
                "--multi-user",
                "--port",
                &port.to_string(),
                "--base-directory",
            ])
            .arg(&root)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting the server")?;
        let mut server = Self {
            kind,
            port,
            root,
            places: Vec::new(),
            child,
            _directory: directory,
        };
        let started = Instant::now();
        while wire::ask(port, "GET", "/prompt", &close(), None)
            .await
            .is_err()
        {
            if let Some(status) = server.child.try_wait()? {
                bail!(
                    "the server ended with {status}: {}",
                    fs::read_to_string(server.root.join("log.txt"))?
                );
            }
            ensure!(started.elapsed() < patience, "the server did not come up");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(server)
    }

    /// The exit code, once the process has ended.
    pub(crate) async fn exit_code(&mut self, patience: Duration) -> Result<Option<i32>> {
        let started = Instant::now();
        while started.elapsed() < patience {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.code());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bail!("the process is still there")
    }

    fn log_end(&self) -> String {
        let log = fs::read_to_string(self.root.join("log.txt")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }

    /// Waits until nothing runs or waits.
    pub(crate) async fn idle(&self) -> Result<()> {
        let started = Instant::now();
        loop {
            let answer = wire::ask(self.port, "GET", "/prompt", &close(), None).await?;
            if answer.body.ends_with(b"\"queue_remaining\": 0}}") {
                return Ok(());
            }
            ensure!(
                started.elapsed() < Duration::from_secs(30),
                "the queue does not empty; the end of the log:\n{}",
                self.log_end()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The header that ends a connection after its answer.
pub(crate) fn close() -> Vec<(String, String)> {
    vec![("Connection".to_owned(), "close".to_owned())]
}

/// The program of `DEMO_ENGINE`, else the one of this workspace, which is built first.
fn demo_engine() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("DEMO_ENGINE") {
        return Ok(path.into());
    }
    let test = std::env::current_exe()?;
    let profile = test
        .parent()
        .and_then(Path::parent)
        .context("the target directory")?;
    let target = profile.parent().context("the target directory")?;
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build
        .args([
            "build",
            "--quiet",
            "--package",
            "demo-engine",
            "--target-dir",
        ])
        .arg(target);
    if profile.ends_with("release") {
        build.arg("--release");
    }
    ensure!(
        build.status().context("running cargo")?.success(),
        "the demo engine does not build"
    );
    Ok(profile.join(format!("demo-engine{}", std::env::consts::EXE_SUFFIX)))
}
