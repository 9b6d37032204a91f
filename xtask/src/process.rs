//! Starting other programs.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::progress;

/// How often a program with a time limit is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Places of system programs that are missing from many users' `PATH`.
const SYSTEM_FOLDERS: [&str; 2] = ["/usr/sbin", "/sbin"];

/// A program with its arguments, started in one of several ways.
#[derive(Debug)]
pub(crate) struct Program {
    command: Command,
    shown: String,
}

impl Program {
    /// Names a program by its command or path.
    ///
    /// What `cargo run` put into the environment about this package is taken out again: build scripts that look at it
    /// would otherwise run anew whenever cargo is called from here and from a shell in turn.
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program.as_ref());
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_")
                || text.starts_with("CARGO_MANIFEST_")
                || text == "CARGO"
            {
                command.env_remove(&name);
            }
        }
        let shown = Path::new(program.as_ref())
            .file_stem()
            .unwrap_or(program.as_ref());
        Self {
            command,
            shown: shown.to_string_lossy().into_owned(),
        }
    }

    /// npm, which on Windows is a script and has to be named as one.
    pub(crate) fn npm(folder: &Path) -> Self {
        Self::new(if cfg!(windows) { "npm.cmd" } else { "npm" }).directory(folder)
    }

    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.shown.push(' ');
        self.shown.push_str(&argument.as_ref().to_string_lossy());
        self.command.arg(argument);
        self
    }

    pub(crate) fn args<I: IntoIterator<Item: AsRef<OsStr>>>(mut self, arguments: I) -> Self {
        for argument in arguments {
            self = self.arg(argument);
        }
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn without_env(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    pub(crate) fn directory(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Runs it in view of the user; a bad end is an error.
    pub(crate) fn run(mut self) -> Result<()> {
        let status = self
            .command
            .stdin(Stdio::null())
            .status()
            .with_context(|| self.cannot_start())?;
        self.judge(status)
    }

    /// Runs it unseen and gives what it wrote to standard output; a bad end is an error with its last words.
    pub(crate) fn output(mut self) -> Result<String> {
        let output = self
            .command
            .stdin(Stdio::null())
            .output()
            .with_context(|| self.cannot_start())?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        self.judge(output.status)
            .with_context(|| complaint.trim().to_owned())?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs it in view of the user and ends it after `limit`.
    pub(crate) fn run_within(mut self, limit: Duration) -> Result<()> {
        let mut child = self
            .command
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| self.cannot_start())?;
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = child.try_wait()? {
                return self.judge(status);
            }
            if Instant::now() >= deadline {
                child.kill()?;
                child.wait()?;
                bail!(
                    "`{}` took longer than {}",
                    self.shown,
                    progress::elapsed(limit)
                );
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Runs it in view of the user and shows every line to `read` as well; gives whether it ended well.
    pub(crate) fn watch(mut self, mut read: impl FnMut(&str)) -> Result<bool> {
        self.command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self.command.spawn().with_context(|| self.cannot_start())?;
        let (sender, receiver) = std::sync::mpsc::channel();
        let streams: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|stream| Box::new(stream) as _),
            child.stderr.take().map(|stream| Box::new(stream) as _),
        ];
        for stream in streams.into_iter().flatten() {
            let sender = sender.clone();
            thread::spawn(move || {
                let mut reader = BufReader::new(stream);
                let mut line = Vec::new();
                while reader
                    .read_until(b'\n', &mut line)
                    .is_ok_and(|length| length > 0)
                {
                    let text = String::from_utf8_lossy(&line)
                        .trim_end_matches(['\r', '\n'])
                        .to_owned();
                    line.clear();
                    if sender.send(text).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        for line in receiver {
            progress::line(&line);
            read(&strip_colours(&line));
        }
        Ok(child.wait()?.success())
    }

    /// Becomes that program: it gets this process's terminal and signals, and its exit code is the caller's.
    #[cfg(unix)]
    pub(crate) fn become_it(mut self) -> Result<ExitCode> {
        use std::os::unix::process::CommandExt;

        Err(self.command.exec()).with_context(|| self.cannot_start())
    }

    /// Stays behind that program until it ends and gives its exit code.
    ///
    /// Ctrl-C reaches both processes of a console; this one ignores it, so that the other ends in its own time.
    #[cfg(not(unix))]
    pub(crate) fn become_it(mut self) -> Result<ExitCode> {
        ctrlc::set_handler(|| {}).context("Ctrl-C cannot be left to the started program")?;
        let status = self.command.status().with_context(|| self.cannot_start())?;
        Ok(status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .map_or(ExitCode::FAILURE, ExitCode::from))
    }

    fn cannot_start(&self) -> String {
        format!("cannot start `{}`", self.shown)
    }

    fn judge(&self, status: ExitStatus) -> Result<()> {
        if !status.success() {
            bail!("`{}` ended with {status}", self.shown);
        }
        Ok(())
    }
}

/// Looks for a command as a shell would, and where system programs lie.
pub(crate) fn find(command: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let file: OsString = if cfg!(windows) {
        format!("{command}{}", env::consts::EXE_SUFFIX).into()
    } else {
        command.into()
    };
    env::split_paths(&path)
        .chain(SYSTEM_FOLDERS.iter().map(PathBuf::from))
        .map(|folder| folder.join(&file))
        .find(|candidate| candidate.is_file())
}

/// Takes out the terminal's colour and cursor sequences.
fn strip_colours(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            // A sequence ends with its first letter.
            characters.by_ref().find(char::is_ascii_alphabetic);
        } else {
            plain.push(character);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_taken_out() {
        assert_eq!(
            strip_colours("\u{1b}[32;1mTests\u{1b}[0m 3 passed"),
            "Tests 3 passed"
        );
        assert_eq!(strip_colours("plain"), "plain");
    }

    #[cfg(unix)]
    #[test]
    fn both_streams_are_watched_and_the_end_is_reported() {
        let mut lines = Vec::new();
        let ended_well = Program::new("sh")
            .args(["-c", "echo one; echo two >&2; exit 3"])
            .watch(|line| lines.push(line.to_owned()))
            .unwrap();
        lines.sort();
        assert_eq!(lines, ["one", "two"]);
        assert!(!ended_well);
    }

    #[cfg(unix)]
    #[test]
    fn a_program_over_its_limit_is_ended() {
        let started = Instant::now();
        let error = Program::new("sleep")
            .arg("30")
            .run_within(Duration::from_millis(100))
            .unwrap_err();
        assert!(error.to_string().contains("took longer"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Program::new("no-such-program-anywhere")
            .arg("--version")
            .output()
            .unwrap_err();
        assert!(
            format!("{error:#}").contains("no-such-program-anywhere --version"),
            "{error:#}"
        );
    }
}
