//! One ComfyUI: its directory, kind, version and the Python that comes with it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;

/// Version files are tiny; whatever is longer is something else.
const VERSION_FILE_LIMIT: u64 = 64 * 1024;

/// How a ComfyUI came onto this machine. Serialised in snake case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InstallationKind {
    /// Named by the configuration.
    Configured,
    /// A clone of the repository, by hand or by comfy-cli.
    Git,
    /// The portable package for Windows with a Python of its own.
    Portable,
    /// ComfyUI's own desktop application.
    Desktop,
    /// Installed by Stability Matrix.
    StabilityMatrix,
    /// No ComfyUI at all but the demo engine that comes with us.
    Demo,
}

/// A ComfyUI that can be started once its Python is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Installation {
    /// How it came here.
    pub kind: InstallationKind,
    /// The directory that holds `main.py`; for the demo engine that of its binary.
    pub directory: PathBuf,
    /// The Python that belongs to it, if one lies where it should.
    pub python: Option<PathBuf>,
    /// Its version as its files tell it.
    pub version: Option<String>,
    /// Where its models, custom nodes, inputs and outputs are, if not in `directory`.
    pub base_directory: Option<PathBuf>,
    /// The program itself where no Python is needed.
    pub program: Option<PathBuf>,
}

/// Why a directory is no ComfyUI.
#[derive(Debug, Error)]
pub enum InstallationError {
    /// There is no `main.py` in it, nor in a `ComfyUI` directory below it.
    #[error(
        "{} holds no ComfyUI: there is no main.py in it",
        directory.display()
    )]
    NoMain {
        /// The directory looked at.
        directory: PathBuf,
    },
    /// A `main.py`, but somebody else's.
    #[error(
        "{} holds a main.py, but not ComfyUI's: comfy/cli_args.py is missing",
        directory.display()
    )]
    NotComfyUi {
        /// The directory looked at.
        directory: PathBuf,
    },
}

impl Installation {
    /// The ComfyUI in a directory somebody named: the one with `main.py`, or the one above it
    /// (`ComfyUI_windows_portable`, a Stability Matrix package …).
    ///
    /// # Errors
    /// [`InstallationError`] when there is none.
    pub fn open(directory: &Path) -> Result<Self, InstallationError> {
        let below = directory.join("ComfyUI");
        let found = if directory.join("main.py").is_file() {
            directory
        } else if below.join("main.py").is_file() {
            &below
        } else {
            return Err(InstallationError::NoMain {
                directory: directory.to_owned(),
            });
        };
        Self::at(found, InstallationKind::Configured).ok_or_else(|| InstallationError::NotComfyUi {
            directory: found.to_owned(),
        })
    }

    /// The demo engine: `binary` is the program, and no Python is needed.
    pub fn demo(binary: PathBuf) -> Self {
        Self {
            kind: InstallationKind::Demo,
            directory: match binary.parent() {
                Some(directory) if !directory.as_os_str().is_empty() => directory.to_owned(),
                _ => PathBuf::from("."),
            },
            python: None,
            version: None,
            base_directory: None,
            program: Some(binary),
        }
    }

    /// The ComfyUI whose `main.py` lies in `directory`, if there is one.
    pub(super) fn at(directory: &Path, kind: InstallationKind) -> Option<Self> {
        let is_comfyui = directory.join("main.py").is_file()
            && directory.join("comfy").join("cli_args.py").is_file();
        is_comfyui.then(|| Self {
            kind,
            directory: directory.to_owned(),
            python: super::python::own_python(directory),
            version: version_of(directory),
            base_directory: None,
            program: None,
        })
    }
}

fn version_of(directory: &Path) -> Option<String> {
    [
        ("comfyui_version.py", "__version__"),
        ("pyproject.toml", "version"),
    ]
    .into_iter()
    .find_map(|(file, name)| version_in(&read(&directory.join(file))?, name))
}

fn read(path: &Path) -> Option<String> {
    let mut text = String::new();
    let file = File::open(path).ok()?;
    file.take(VERSION_FILE_LIMIT)
        .read_to_string(&mut text)
        .ok()?;
    Some(text)
}

/// The value of the first line `name = "value"`.
fn version_in(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let value = line
            .trim()
            .strip_prefix(name)?
            .trim_start()
            .strip_prefix('=')?;
        let version = value.trim().trim_matches(['"', '\'']);
        let plausible = !version.is_empty()
            && version.len() <= 40
            && version
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'+'));
        plausible.then(|| version.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::super::search::tests::make_comfyui;
    use super::*;

    #[test]
    fn versions() {
        let table = [
            (
                "# generated\n__version__ = \"0.12.1\"\n",
                "__version__",
                Some("0.12.1"),
            ),
            (
                "[project]\nname = \"ComfyUI\"\nversion = '0.3.64'\n",
                "version",
                Some("0.3.64"),
            ),
            ("version=\"1.0-rc1+x\"", "version", Some("1.0-rc1+x")),
            ("versions = 3\nversion = os.system(1)", "version", None),
            ("", "version", None),
        ];
        for (text, name, expected) in table {
            assert_eq!(version_in(text, name).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_named_directory_may_be_the_one_above() {
        let place = tempfile::tempdir().unwrap();
        let error = Installation::open(place.path()).unwrap_err();
        assert!(matches!(error, InstallationError::NoMain { .. }));
        std::fs::write(place.path().join("main.py"), "").unwrap();
        let error = Installation::open(place.path()).unwrap_err();
        assert!(matches!(error, InstallationError::NotComfyUi { .. }));
        std::fs::remove_file(place.path().join("main.py")).unwrap();
        let inner = place.path().join("ComfyUI");
        make_comfyui(&inner, "0.12.1");
        for directory in [place.path(), &inner] {
            let found = Installation::open(directory).unwrap();
            assert_eq!(found.kind, InstallationKind::Configured);
            assert_eq!(found.directory, inner);
            assert_eq!(found.version.as_deref(), Some("0.12.1"));
        }
    }

    #[test]
    fn the_demo_engine_needs_no_python() {
        let demo = Installation::demo("/somewhere/demo-engine".into());
        assert_eq!(demo.directory, Path::new("/somewhere"));
        assert_eq!(
            demo.program.as_deref(),
            Some(Path::new("/somewhere/demo-engine"))
        );
    }
}
