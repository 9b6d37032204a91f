//! Which arguments a ComfyUI knows, asked from itself.

use std::collections::BTreeSet;
use std::time::Duration;

use thiserror::Error;
use tokio::process::Command;

use super::ask::{AskError, ask};
use super::installation::Installation;

/// `--help` needs no PyTorch, but Python on a cold disk takes its time.
const HELP_LIMIT: Duration = Duration::from_secs(60);
/// Descriptions stand further to the right than this.
const OPTION_INDENT: usize = 4;

/// The long options of one ComfyUI.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlagSet {
    names: BTreeSet<String>,
}

/// Why a ComfyUI does not tell its options.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// Its Python is not known.
    #[error("no Python is known for this ComfyUI")]
    NoPython,
    /// The program does not start.
    #[error("ComfyUI could not be asked for its arguments")]
    NotStarted(#[source] std::io::Error),
    /// It does not end.
    #[error("ComfyUI did not tell its arguments within {} seconds", HELP_LIMIT.as_secs())]
    TimedOut,
    /// It fails; with its last words.
    #[error("ComfyUI did not tell its arguments: {words}")]
    Failed {
        /// What it said.
        words: String,
    },
}

impl FlagSet {
    /// Runs `main.py --help`, which needs no graphics card and touches nothing.
    ///
    /// # Errors
    /// [`ProbeError`]; whatever stands in the way here will also keep ComfyUI from starting.
    pub async fn probe(installation: &Installation) -> Result<Self, ProbeError> {
        let mut command = match (&installation.program, &installation.python) {
            (Some(program), _) => Command::new(program),
            (None, Some(python)) => {
                let mut command = Command::new(python);
                command.arg("main.py");
                command
            }
            (None, None) => return Err(ProbeError::NoPython),
        };
        command
            .arg("--help")
            .current_dir(&installation.directory)
            // Wide, uncoloured and without a look at graphics cards.
            .env("COLUMNS", "200")
            .env("NO_COLOR", "1")
            .env("CUDA_VISIBLE_DEVICES", "")
            .env("PYTHONIOENCODING", "utf-8");
        let answer = ask(&mut command, HELP_LIMIT)
            .await
            .map_err(|error| match error {
                AskError::NotStarted(error) => ProbeError::NotStarted(error),
                AskError::TimedOut => ProbeError::TimedOut,
            })?;
        let flags = Self::parse(&answer.output);
        if answer.status.success() && flags.contains("--port") {
            return Ok(flags);
        }
        Err(ProbeError::Failed {
            words: answer.last_words,
        })
    }

    /// The options in the text argparse prints for `--help`. Only the column of the options
    /// counts: descriptions name other options and may be broken in the middle of one.
    pub fn parse(help: &str) -> Self {
        let names = help
            .lines()
            .filter(|line| {
                let option = line.trim_start();
                option.starts_with('-') && line.len() - option.len() <= OPTION_INDENT
            })
            .flat_map(|line| {
                let column = line.trim_start().split("  ").next().unwrap_or_default();
                column.split([',', ' ', '='])
            })
            .filter(|word| is_long_option(word))
            .map(str::to_owned)
            .collect();
        Self { names }
    }

    /// Whether an option, written with its dashes, is known.
    pub fn contains(&self, flag: &str) -> bool {
        self.names.contains(flag)
    }

    /// All of them, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }
}

impl<'a> FromIterator<&'a str> for FlagSet {
    fn from_iter<T: IntoIterator<Item = &'a str>>(flags: T) -> Self {
        Self {
            names: flags.into_iter().map(str::to_owned).collect(),
        }
    }
}

fn is_long_option(word: &str) -> bool {
    word.strip_prefix("--").is_some_and(|name| {
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELP: &str = "\
usage: main.py [-h] [--listen [IP]] [--port PORT] [--fp8_e4m3fn-unet | --bf16-unet]
               [--cache-lru CACHE_LRU]

options:
  -h, --help            show this help message and exit
  --listen [IP]         Specify the IP address (default: 127.0.0.1). See
                        --not-a-flag and
                        --use-split-
  --port PORT           Set the listen port.
  --extra-model-paths-config PATH [PATH ...]
                        Load one or more extra_model_paths.yaml files.
  --fp8_e4m3fn-unet     Store unet weights in fp8_e4m3fn.
  -x X, --also-this X   Short and long.
";

    #[test]
    fn only_the_options_column_counts() {
        let flags = FlagSet::parse(HELP);
        let names: Vec<&str> = flags.iter().collect();
        assert_eq!(
            names,
            [
                "--also-this",
                "--extra-model-paths-config",
                "--fp8_e4m3fn-unet",
                "--help",
                "--listen",
                "--port",
            ]
        );
        assert_eq!(FlagSet::parse("no help at all"), FlagSet::default());
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_program_is_asked_and_its_failure_told() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().unwrap();
        let program = place.path().join("engine");
        let make = |script: &str| {
            std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&program, mode).unwrap();
        };
        make(&format!("test \"$1\" = --help && cat <<'END'\n{HELP}END"));
        let demo = Installation::demo(program.clone());
        let flags = FlagSet::probe(&demo).await.unwrap();
        assert!(flags.contains("--listen"));
        make("echo \"ModuleNotFoundError: No module named 'yaml'\" >&2; exit 1");
        let error = FlagSet::probe(&demo).await.unwrap_err();
        assert!(error.to_string().contains("'yaml'"), "{error}");
    }
}
