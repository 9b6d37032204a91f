//! The desktop app on a screen of its own.

use crate::screen::Screen;
use crate::tray::Panel;
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sentinel_tests::{PASSWORD, eventually};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Colours that a page of text has at least.
const PAGE_COLOURS: usize = 24;
/// Until somebody would click again.
const CLOSE_PAUSE: Duration = Duration::from_secs(2);
/// Between two looks.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);
/// Inherited by all that the app starts, so that its processes can be told from others.
const MARK: &str = "SENTINEL_TEST_MARK";

/// The running app, its screen, and the panel if there is one.
#[derive(Debug)]
pub(crate) struct Desktop {
    pub(crate) screen: Screen,
    pub(crate) panel: Option<Panel>,
    pub(crate) data: TempDir,
    /// What names ComfyUI on the command line.
    pub(crate) engine: Vec<String>,
    child: Option<Child>,
}

impl Desktop {
    /// A screen and a data directory with a free port for all, without the app.
    pub(crate) fn prepare(has_panel: bool) -> Result<Self> {
        let screen = Screen::start()?;
        let panel = has_panel.then(|| Panel::start(&screen.bus)).transpose()?;
        let data = tempfile::tempdir()?;
        fs::write(
            data.path().join("config.json"),
            "{\"sharing\": {\"port\": 0}}\n",
        )?;
        Ok(Self {
            screen,
            panel,
            data,
            engine: ["--comfyui", "demo"].map(str::to_owned).to_vec(),
            child: None,
        })
    }

    /// The app with an admin's account, in the tray if there is one.
    pub(crate) fn start_hidden(has_panel: bool) -> Result<Self> {
        let mut desktop = Self::prepare(has_panel)?;
        desktop.add_owner()?;
        desktop.start(&["--hidden"])?;
        Ok(desktop)
    }

    /// Makes the first account.
    pub(crate) fn add_owner(&self) -> Result<()> {
        let mut child = Command::new(program("sentineld")?)
            .args(["user", "--data-dir"])
            .arg(self.data.path())
            .args(["add", "owner", "--admin"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        let mut input = child.stdin.take().context("no input")?;
        writeln!(input, "{PASSWORD}")?;
        drop(input);
        ensure!(child.wait()?.success(), "the account was not made");
        Ok(())
    }

    /// Starts the app.
    pub(crate) fn start(&mut self, further: &[&str]) -> Result<()> {
        self.child = Some(self.command(further)?.spawn()?);
        Ok(())
    }

    /// Starts the app on a system of this language, such as `de_DE.UTF-8`.
    pub(crate) fn start_hidden_in(&mut self, language: &str) -> Result<()> {
        let mut command = self.command(&["--hidden"])?;
        command.env_remove("LANGUAGE").env("LC_ALL", language);
        self.child = Some(command.spawn()?);
        Ok(())
    }

    /// The app's command line on this screen.
    pub(crate) fn command(&self, further: &[&str]) -> Result<Command> {
        let mut command = Command::new(program("comfyui-sentinel")?);
        command
            .args(self.arguments())
            .args(further)
            .env_remove("WAYLAND_DISPLAY")
            .env_remove("SECRET_KEY")
            .envs(self.screen.environment())
            .env(MARK, self.data.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(self.console())?);
        Ok(command)
    }

    pub(crate) fn arguments(&self) -> Vec<String> {
        let data = self.data.path().display().to_string();
        let data = ["--data-dir".to_owned(), data];
        data.into_iter().chain(self.engine.clone()).collect()
    }

    /// Puts a picture of the window into the folder of `SCREENSHOTS`, if it names one. WebKit's driver
    /// makes none of a page that is drawn without the GPU.
    pub(crate) fn picture(&self, name: &str) -> Result<()> {
        let Some(folder) = std::env::var_os("SCREENSHOTS") else {
            return Ok(());
        };
        let windows = self.screen.windows()?;
        let window = windows.first().context("no window to take a picture of")?;
        let file = PathBuf::from(folder).join(format!("window-{name}.png"));
        Ok(fs::write(file, self.screen.picture(*window)?)?)
    }

    /// What marks all processes of this app.
    pub(crate) fn mark(&self) -> (&'static str, &Path) {
        (MARK, self.data.path())
    }

    pub(crate) fn panel(&self) -> Result<&Panel> {
        self.panel.as_ref().context("there is no panel")
    }

    /// Waits until so many windows of ours can be seen.
    pub(crate) fn await_windows(&self, count: usize) -> Result<()> {
        eventually(PATIENCE, || Ok(self.screen.windows()?.len() == count))
            .with_context(|| format!("windows: {:?}; {}", self.screen.windows(), self.log()))
    }

    /// Waits until a window shows a page, letters and all.
    pub(crate) fn await_page(&self) -> Result<()> {
        eventually(PATIENCE, || {
            let windows = self.screen.windows()?;
            // It may close in this moment.
            let colours = windows.first().map(|window| self.screen.colours(*window));
            Ok(colours.is_some_and(|colours| colours.is_ok_and(|colours| colours >= PAGE_COLOURS)))
        })
        .with_context(|| format!("an empty window; {}", self.log()))
    }

    /// Closes the window, as often as it takes: one that has only just come does not listen yet.
    pub(crate) fn close_window(&self) -> Result<()> {
        let started = Instant::now();
        loop {
            let windows = self.screen.windows()?;
            let Some(window) = windows.first() else {
                return Ok(());
            };
            ensure!(started.elapsed() < PATIENCE, "the window stays open");
            // It may close in this moment.
            let _ = self.screen.close(*window);
            let _ = eventually(CLOSE_PAUSE, || Ok(self.screen.windows()?.is_empty()));
        }
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let child = self.child.as_ref().context("it does not run")?;
        Ok(kill(Pid::from_raw(child.id().try_into()?), signal)?)
    }

    /// Waits for the app's end.
    pub(crate) fn ended(&mut self) -> Result<ExitStatus> {
        let started = Instant::now();
        loop {
            let child = self.child.as_mut().context("it does not run")?;
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            ensure!(
                started.elapsed() < PATIENCE,
                "it still runs: {}",
                self.log()
            );
            std::thread::sleep(PAUSE);
        }
    }

    /// Waits until nothing that the app started is left.
    pub(crate) fn await_no_process(&self) -> Result<()> {
        eventually(PATIENCE, || Ok(self.processes().is_empty()))
            .with_context(|| format!("left: {:?}", self.processes()))
    }

    /// All processes of the app, itself included, with the names of their programs.
    pub(crate) fn processes(&self) -> Vec<(u32, String)> {
        let mark = format!("{MARK}={}", self.data.path().display());
        let has_mark = |id: &u32| {
            let environment = fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
            environment
                .split(|byte| *byte == 0)
                .any(|entry| entry == mark.as_bytes())
        };
        let name = |id: u32| {
            let program = fs::read_link(format!("/proc/{id}/exe")).unwrap_or_default();
            let name = program.file_name().unwrap_or_default();
            (id, name.to_string_lossy().into_owned())
        };
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(has_mark)
            .map(name)
            .collect()
    }

    /// Whether a process whose name begins so runs.
    pub(crate) fn runs(&self, name: &str) -> bool {
        self.processes()
            .iter()
            .any(|(_, known)| known.starts_with(name))
    }

    /// What the app wrote.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.console()).unwrap_or_default()
    }

    fn console(&self) -> PathBuf {
        self.screen.home.path().join("console")
    }
}

impl Drop for Desktop {
    fn drop(&mut self) {
        let Some(child) = &mut self.child else { return };
        if !matches!(child.try_wait(), Ok(Some(_))) {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = self.await_no_process();
    }
}

/// A program beside the tests.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    let program = match std::env::var_os("SENTINELD") {
        Some(path) => PathBuf::from(path).with_file_name(name),
        None => std::env::current_exe()?
            .parent()
            .and_then(Path::parent)
            .context("the target directory")?
            .join(name),
    };
    ensure!(
        program.is_file(),
        "{} is missing: cargo build --workspace first",
        program.display()
    );
    Ok(program)
}
