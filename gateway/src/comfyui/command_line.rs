//! Builds the command line of an engine, and refuses arguments that would open a second door.

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::flags::FlagSet;
use super::installation::{Installation, InstallationKind};
use crate::supervisor::{LaunchError, LaunchPlan};

/// Directories of one engine; `None` leaves ComfyUI's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineDirectories {
    /// `--input-directory`
    pub input: Option<PathBuf>,
    /// `--output-directory`
    pub output: Option<PathBuf>,
    /// `--temp-directory`; ComfyUI makes `temp` in it and empties that at every start.
    pub temp: Option<PathBuf>,
    /// `--user-directory`
    pub user: Option<PathBuf>,
    /// `--database-url`, such as `sqlite:////path/comfyui.db`. The only one that may be left out
    /// for a ComfyUI too old to know it: such a one has no database.
    pub database_url: Option<String>,
}

/// What is wrong with the arguments.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ArgumentError {
    /// The user's arguments hold one that is Sentinel's business.
    #[error("the argument {argument} cannot be given to ComfyUI: {instead}")]
    Refused {
        /// As the user wrote it.
        argument: String,
        /// Why, and what to do instead.
        instead: &'static str,
    },
    /// The user's arguments set a directory that has to differ from user to user.
    #[error(
        "the argument {argument} cannot be given to ComfyUI while users are kept separate: \
         everybody has directories of their own"
    )]
    SeparateDirectories {
        /// As the user wrote it.
        argument: String,
    },
    /// This ComfyUI does not know an argument we need.
    #[error("this ComfyUI is too old: it does not know {missing_flag}; please update it")]
    TooOld {
        /// The missing one, with its dashes.
        missing_flag: &'static str,
    },
}

const DOOR: &str = "Sentinel gives ComfyUI a private address and is the only door to it; set \
                    sharing.port or --listen of Sentinel instead";
const TLS: &str = "browsers speak with Sentinel; set force_https in Sentinel's configuration \
                   instead";
const BROWSER: &str = "ComfyUI's own address is private; open Sentinel's address instead";

/// Arguments users must not give, and what they should do instead.
const REFUSED: &[(&str, &str)] = &[
    ("--listen", DOOR),
    ("--port", DOOR),
    ("--tls-keyfile", TLS),
    ("--tls-certfile", TLS),
    (
        "--enable-cors-header",
        "it would let every web page use ComfyUI; other sites need an API token of Sentinel",
    ),
    (
        "--multi-user",
        "ComfyUI's user list has no passwords; set separate_users in Sentinel's configuration \
         instead",
    ),
    ("--auto-launch", BROWSER),
    (
        "--quick-test-for-ci",
        "ComfyUI would end at once; leave it out",
    ),
    (
        "--help",
        "ComfyUI would only print its help and end; leave it out",
    ),
    (
        "--list-feature-flags",
        "ComfyUI would only print its feature flags and end; leave it out",
    ),
];

/// The flags of [`EngineDirectories`].
const DIRECTORY_FLAGS: [&str; 5] = [
    "--input-directory",
    "--output-directory",
    "--temp-directory",
    "--user-directory",
    "--database-url",
];

/// ComfyUI's own limit for uploads.
const UPLOAD_SIZE: &str = "--max-upload-size";
/// What it is set to, MB: 1 TiB. Its own 100 MB ends uploads of videos with a bare 413.
const UPLOAD_MEGABYTES: &str = "1048576";

/// Whether the user's arguments set the largest upload themselves.
pub fn sets_upload_size(user_arguments: &[String]) -> bool {
    user_arguments
        .iter()
        .any(|argument| may_mean(argument, UPLOAD_SIZE))
}

/// The largest upload that the user's arguments set, bytes, if it can be read.
pub fn set_upload_size(user_arguments: &[String]) -> Option<u64> {
    let at = user_arguments
        .iter()
        .rposition(|argument| may_mean(argument, UPLOAD_SIZE))?;
    let value = match user_arguments[at].split_once('=') {
        Some((_, value)) => value,
        None => user_arguments.get(at + 1)?,
    };
    let mebibytes = value.trim().parse::<u32>().ok()?;
    Some(u64::from(mebibytes) << 20)
}

/// The arguments for the installation's program: `main.py` (where there is one), the user's, then
/// ours, so that ours win wherever both could be meant.
///
/// # Errors
/// [`ArgumentError`] when the user's arguments are refused or this ComfyUI is too old.
pub fn command_line(
    installation: &Installation,
    directories: &EngineDirectories,
    flags: &FlagSet,
    user_arguments: &[String],
    address: SocketAddr,
) -> Result<Vec<OsString>, ArgumentError> {
    check_user_arguments(user_arguments)?;
    let own_directories = directory_arguments(directories, flags)?;
    refuse_taken_directories(user_arguments, &own_directories)?;
    for flag in ["--listen", "--port"] {
        if !flags.contains(flag) {
            return Err(ArgumentError::TooOld { missing_flag: flag });
        }
    }

    let mut line: Vec<OsString> = Vec::new();
    if installation.program.is_none() {
        if installation.kind == InstallationKind::Portable {
            // As its own start script does: packages of the user's own Python stay out.
            line.push("-s".into());
        }
        line.push("main.py".into());
    }
    if let Some(base) = &installation.base_directory
        && flags.contains("--base-directory")
        && !user_arguments
            .iter()
            .any(|argument| may_mean(argument, "--base-directory"))
    {
        push(&mut line, "--base-directory", base);
    }
    line.extend(user_arguments.iter().map(OsString::from));
    push(&mut line, "--listen", address.ip().to_string());
    push(&mut line, "--port", address.port().to_string());
    if flags.contains("--disable-auto-launch") {
        line.push("--disable-auto-launch".into());
    }
    if flags.contains(UPLOAD_SIZE) && !sets_upload_size(user_arguments) {
        push(&mut line, UPLOAD_SIZE, UPLOAD_MEGABYTES);
    }
    for (flag, value) in own_directories {
        push(&mut line, flag, value);
    }
    Ok(line)
}

/// Refuses arguments that are Sentinel's business, however they are spelled: `--port 1`,
/// `--port=1` and argparse's abbreviations such as `--po`. For checking a configuration.
///
/// # Errors
/// [`ArgumentError::Refused`] for the first such argument.
pub fn check_user_arguments(user_arguments: &[String]) -> Result<(), ArgumentError> {
    for argument in user_arguments {
        let short_help = argument.starts_with("-h");
        let found = REFUSED
            .iter()
            .find(|(flag, _)| may_mean(argument, flag) || (short_help && *flag == "--help"));
        if let Some((_, instead)) = found {
            return Err(ArgumentError::Refused {
                argument: argument.clone(),
                instead,
            });
        }
    }
    Ok(())
}

/// Whether argparse could take `argument` for `flag`: it is its beginning, up to a `=`. An
/// abbreviation that fits several flags is an error of argparse; refusing it here is kinder.
fn may_mean(argument: &str, flag: &str) -> bool {
    let name = argument.split('=').next().unwrap_or_default();
    name.starts_with("--") && flag.starts_with(name)
}

fn directory_arguments(
    directories: &EngineDirectories,
    flags: &FlagSet,
) -> Result<Vec<(&'static str, OsString)>, ArgumentError> {
    let paths = [
        &directories.input,
        &directories.output,
        &directories.temp,
        &directories.user,
    ];
    let mut values: Vec<(&'static str, OsString)> = Vec::new();
    for (flag, path) in DIRECTORY_FLAGS.into_iter().zip(paths) {
        if let Some(path) = path {
            if !flags.contains(flag) {
                return Err(ArgumentError::TooOld { missing_flag: flag });
            }
            values.push((flag, path.into()));
        }
    }
    if let Some(url) = &directories.database_url
        && flags.contains("--database-url")
    {
        values.push(("--database-url", url.into()));
    }
    Ok(values)
}

fn refuse_taken_directories(
    user_arguments: &[String],
    own: &[(&'static str, OsString)],
) -> Result<(), ArgumentError> {
    let taken = user_arguments
        .iter()
        .find(|argument| own.iter().any(|(flag, _)| may_mean(argument, flag)));
    match taken {
        Some(argument) => Err(ArgumentError::SeparateDirectories {
            argument: argument.clone(),
        }),
        None => Ok(()),
    }
}

fn push(line: &mut Vec<OsString>, flag: &str, value: impl AsRef<OsStr>) {
    line.push(flag.into());
    line.push(value.as_ref().to_owned());
}

/// The whole plan for starting `installation` with the arguments of [`command_line`].
///
/// # Errors
/// [`LaunchError`] when its Python is not known.
pub fn launch_plan(
    installation: &Installation,
    arguments: Vec<OsString>,
    address: SocketAddr,
) -> Result<LaunchPlan, LaunchError> {
    let program = installation
        .program
        .as_ref()
        .or(installation.python.as_ref())
        .ok_or_else(|| {
            LaunchError::new(format!(
                "No Python is known for the ComfyUI in {}.",
                installation.directory.display()
            ))
        })?;
    let set = |name: &str, value: &str| (OsString::from(name), OsString::from(value));
    Ok(LaunchPlan {
        program: absolute(program),
        arguments,
        working_directory: installation.directory.clone(),
        environment: vec![
            // Lines are to be seen when they are printed, whatever they hold.
            set("PYTHONUNBUFFERED", "1"),
            set("PYTHONIOENCODING", "utf-8:replace"),
            // An engine is no terminal; colours and bars would only be filtered out again.
            set("NO_COLOR", "1"),
        ],
        removed_environment: vec![
            // With it ComfyUI-Manager ends ComfyUI for a restart by comfy-cli instead of
            // restarting it in place.
            "__COMFY_CLI_SESSION__".into(),
            "PYTHONHOME".into(),
            "PYTHONSTARTUP".into(),
        ],
        address,
        sandbox: None,
    })
}

/// The program is started in another directory, where a relative path would mean another file.
fn absolute(program: &Path) -> PathBuf {
    std::path::absolute(program).unwrap_or_else(|_| program.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn installation() -> Installation {
        Installation {
            kind: InstallationKind::Git,
            directory: "/comfy".into(),
            python: Some("/comfy/venv/bin/python".into()),
            version: None,
            base_directory: None,
            program: None,
        }
    }

    fn known() -> FlagSet {
        [
            "--listen",
            "--port",
            "--disable-auto-launch",
            "--base-directory",
        ]
        .into_iter()
        .chain(DIRECTORY_FLAGS)
        .collect()
    }

    fn address() -> SocketAddr {
        "127.0.0.1:4711".parse().unwrap()
    }

    fn line(
        installation: &Installation,
        directories: &EngineDirectories,
        flags: &FlagSet,
        arguments: &[&str],
    ) -> Result<String, ArgumentError> {
        let arguments = strings(arguments);
        command_line(installation, directories, flags, &arguments, address()).map(|line| {
            let words: Vec<&str> = line.iter().map(|word| word.to_str().unwrap()).collect();
            words.join(" ")
        })
    }

    #[test]
    fn refused_arguments_in_every_spelling() {
        let table: &[(&[&str], Option<&str>)] = &[
            (&[], None),
            (&["--cpu", "--lowvram", "--preview-method", "auto"], None),
            (&["--front-end-version=--listen"], None),
            (&["--disable-auto-launch"], None),
            (
                &["--enable-compress-response-body", "--enable-manager"],
                None,
            ),
            (&["--multi"], Some("--multi")),
            (&["--listen"], Some("--listen")),
            (&["--cpu", "--listen=0.0.0.0"], Some("--listen=0.0.0.0")),
            (&["--lis", "0.0.0.0"], Some("--lis")),
            (&["--l=0.0.0.0"], Some("--l=0.0.0.0")),
            (&["--po", "80"], Some("--po")),
            (&["--port", "8188"], Some("--port")),
            (&["--port=8188"], Some("--port=8188")),
            (&["--tls-keyfile", "k"], Some("--tls-keyfile")),
            (&["--tls-cert=c"], Some("--tls-cert=c")),
            (&["--enable-cors-header"], Some("--enable-cors-header")),
            (&["--enable-cors"], Some("--enable-cors")),
            (&["--multi-user"], Some("--multi-user")),
            (&["--auto-launch"], Some("--auto-launch")),
            (&["--quick-test-for-ci"], Some("--quick-test-for-ci")),
            (&["--quick"], Some("--quick")),
            (&["--list-feature-flags"], Some("--list-feature-flags")),
            (&["--list"], Some("--list")),
            (&["--feature-flag", "show_signin_button"], None),
            (&["--"], Some("--")),
            (&["-h"], Some("-h")),
            (&["--help"], Some("--help")),
        ];
        for (arguments, expected) in table {
            let refused = match check_user_arguments(&strings(arguments)) {
                Ok(()) => None,
                Err(ArgumentError::Refused { argument, .. }) => Some(argument),
                Err(error) => panic!("{error}"),
            };
            assert_eq!(refused.as_deref(), *expected, "{arguments:?}");
        }
        let error = check_user_arguments(&strings(&["--port=1"])).unwrap_err();
        assert!(error.to_string().contains("sharing.port"), "{error}");
    }

    #[test]
    fn lines() {
        let none = EngineDirectories::default();
        let ours = "--listen 127.0.0.1 --port 4711 --disable-auto-launch";
        assert_eq!(
            line(&installation(), &none, &known(), &["--cpu"]).unwrap(),
            format!("main.py --cpu {ours}")
        );
        let portable = Installation {
            kind: InstallationKind::Portable,
            ..installation()
        };
        assert_eq!(
            line(&portable, &none, &known(), &[]).unwrap(),
            format!("-s main.py {ours}")
        );
        let demo = Installation::demo("/x/demo-engine".into());
        assert_eq!(line(&demo, &none, &known(), &[]).unwrap(), ours);
        let desktop = Installation {
            base_directory: Some("/docs".into()),
            ..installation()
        };
        assert_eq!(
            line(&desktop, &none, &known(), &[]).unwrap(),
            format!("main.py --base-directory /docs {ours}")
        );
        assert_eq!(
            line(&desktop, &none, &known(), &["--base-dir=/mine"]).unwrap(),
            format!("main.py --base-dir=/mine {ours}")
        );
    }

    #[test]
    fn r14_uploads_have_no_limit_of_comfyuis_own() {
        let none = EngineDirectories::default();
        let flags: FlagSet = known().iter().chain([UPLOAD_SIZE]).collect();
        let with = |arguments: &[&str]| line(&installation(), &none, &flags, arguments).unwrap();
        let ours = " --max-upload-size 1048576";
        assert!(with(&["--cpu"]).ends_with(ours), "{}", with(&["--cpu"]));
        for set in ["--max-upload-size=5", "--max-upload", "--max"] {
            assert!(!with(&[set, "5"]).ends_with(ours), "{set}");
        }
        let old = line(&installation(), &none, &known(), &[]).unwrap();
        assert!(!old.contains("upload"), "{old}");
        for (arguments, expected) in [
            (vec!["--max-upload-size", "5"], Some(5 << 20)),
            (vec!["--max-upload-size=5", "--max", "6"], Some(6 << 20)),
            (vec!["--max-upload-size", "many"], None),
            (vec!["--cpu"], None),
        ] {
            assert_eq!(set_upload_size(&strings(&arguments)), expected);
        }
    }

    #[test]
    fn directories_are_used_as_far_as_the_version_goes() {
        let directories = EngineDirectories {
            input: Some("/u/in put".into()),
            output: Some("/u/output".into()),
            temp: Some("/u/temp".into()),
            user: Some("/u/user".into()),
            database_url: Some("sqlite:////u/db".into()),
        };
        let full = line(&installation(), &directories, &known(), &[]).unwrap();
        let expected = "--input-directory /u/in put --output-directory /u/output \
                        --temp-directory /u/temp --user-directory /u/user \
                        --database-url sqlite:////u/db";
        assert!(full.ends_with(expected), "{full}");

        let without = |missing: &str| -> FlagSet {
            let flags = known();
            flags.iter().filter(|flag| *flag != missing).collect()
        };
        let old = without("--database-url");
        let line_without = line(&installation(), &directories, &old, &[]).unwrap();
        assert!(!line_without.contains("sqlite"));
        for missing_flag in ["--user-directory", "--port"] {
            let error = line(&installation(), &directories, &without(missing_flag), &[]);
            assert_eq!(error, Err(ArgumentError::TooOld { missing_flag }));
        }
        let taken = line(
            &installation(),
            &directories,
            &known(),
            &["--output-dir=/x"],
        );
        assert_eq!(
            taken,
            Err(ArgumentError::SeparateDirectories {
                argument: "--output-dir=/x".to_owned()
            })
        );
        // ... but with ComfyUI's own directories they are the user's choice.
        let none = EngineDirectories::default();
        line(
            &installation(),
            &none,
            &known(),
            &["--output-directory", "/x"],
        )
        .unwrap();
    }

    #[test]
    fn the_plan_starts_python_in_the_directory_without_a_shell() {
        let plan = launch_plan(&installation(), vec!["main.py".into()], address()).unwrap();
        assert_eq!(plan.program, Path::new("/comfy/venv/bin/python"));
        assert_eq!(plan.working_directory, Path::new("/comfy"));
        let without = Installation {
            python: None,
            ..installation()
        };
        assert!(launch_plan(&without, Vec::new(), address()).is_err());
    }
}
