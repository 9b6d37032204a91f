//! The command line of ComfyUI 0.33.0, and our own fault switches beside it.
//!
//! Unknown flags end with exit code 2, as Python's `argparse` does it: whoever starts an engine finds
//! out by `--help` which flags it may use, and this engine must not be more forgiving than the original.

mod flags;

use crate::faults::{self, Faults};
use crate::json::Json;
use flags::{FLAGS, Flag, Takes};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use Takes::{Any, Maybe, Nothing, One, Some as Several};

/// Features that can be announced: name, kind, meaning. All of them are off unless they are.
const FEATURES: &[(&str, &str, &str)] = &[
    (
        "show_signin_button",
        "bool",
        "Let the page offer to sign in.",
    ),
    (
        "enable_telemetry",
        "bool",
        "Tell the page that it may report how it is used.",
    ),
];

/// What the command line asks for.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) listen: Vec<String>,
    pub(crate) port: u16,
    pub(crate) base: PathBuf,
    pub(crate) input: PathBuf,
    pub(crate) output: PathBuf,
    pub(crate) temp: PathBuf,
    pub(crate) user: PathBuf,
    pub(crate) front_end: Option<PathBuf>,
    /// Directory of the models.
    pub(crate) models: PathBuf,
    pub(crate) max_upload: u64,
    /// The same as it is announced: a whole number unless the owner set it.
    pub(crate) announced_upload: Json,
    /// Features announced besides.
    pub(crate) features: Vec<(String, Json)>,
    pub(crate) assets: bool,
    pub(crate) offline: bool,
    pub(crate) previews: bool,
    pub(crate) multi_user: bool,
    pub(crate) manager: bool,
    pub(crate) legacy_manager: bool,
    pub(crate) metadata: bool,
    pub(crate) cache: bool,
    pub(crate) quiet: bool,
    pub(crate) log_to_output: bool,
    pub(crate) leave_at_once: bool,
    pub(crate) cors: Option<String>,
    pub(crate) faults: Faults,
    /// The words as given, which `/system_stats` shows.
    pub(crate) words: Vec<String>,
}

/// What the first words ask the process to be.
#[derive(Debug)]
pub(crate) enum Request {
    Run(Box<Options>),
    Help(String),
    /// The process made by the fault `fork-grandchild`.
    Grandchild,
    /// The features that can be announced.
    Features(String),
    Refused(String),
}

/// Reads the words after the program's name.
pub(crate) fn read(words: &[String], environment: impl Fn(&str) -> Option<String>) -> Request {
    if words.iter().any(|word| word == "--grandchild") {
        return Request::Grandchild;
    }
    if words.iter().any(|word| word == "-h" || word == "--help") {
        return Request::Help(help());
    }
    let read = pairs(words).and_then(|pairs| {
        if pairs.iter().any(|pair| pair.0 == "--list-feature-flags") {
            return Ok(Request::Features(list_of_features()));
        }
        options(words, &pairs, environment).map(|options| Request::Run(Box::new(options)))
    });
    match read {
        Ok(request) => request,
        Err(reason) => Request::Refused(format!("{}demo-engine: error: {reason}\n", usage())),
    }
}

type Pair = (&'static str, Option<String>);

fn pairs(words: &[String]) -> Result<Vec<Pair>, String> {
    let mut pairs = Vec::new();
    let mut unknown: Vec<&str> = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let (name, inline) = match words[at].split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
            _ => (words[at].as_str(), None),
        };
        at += 1;
        let Some(found) = find(name)? else {
            unknown.push(&words[at - 1]);
            continue;
        };
        let (flag, takes) = (found.name, found.takes);
        let rival = |pair: &&Pair| {
            let other = FLAGS.iter().find(|other| other.name == pair.0);
            other.is_some_and(|other| {
                other.group == found.group && other.group != 0 && other.name != flag
            })
        };
        if let Some(rival) = pairs.iter().find(rival) {
            return Err(format!(
                "argument {flag}: not allowed with argument {}",
                rival.0
            ));
        }
        let is_value = |word: Option<&String>| word.is_some_and(|word| !word.starts_with("--"));
        match (takes, inline) {
            (Nothing, Some(value)) => {
                return Err(format!(
                    "argument {flag}: ignored explicit argument '{value}'"
                ));
            }
            (Nothing, None) => pairs.push((flag, None)),
            (_, Some(value)) => pairs.push((flag, Some(value))),
            (Maybe(alone), None) => {
                let given = is_value(words.get(at));
                pairs.push((
                    flag,
                    Some(if given {
                        words[at].clone()
                    } else {
                        alone.to_owned()
                    }),
                ));
                at += usize::from(given);
            }
            (One, None) => {
                if !is_value(words.get(at)) {
                    return Err(format!("argument {flag}: expected one argument"));
                }
                pairs.push((flag, Some(words[at].clone())));
                at += 1;
            }
            (Several, None) if !is_value(words.get(at)) => {
                return Err(format!("argument {flag}: expected at least one argument"));
            }
            (Several | Any, None) => {
                if takes == Any {
                    pairs.push((flag, None));
                }
                while is_value(words.get(at)) {
                    pairs.push((flag, Some(words[at].clone())));
                    at += 1;
                }
            }
        }
    }
    if unknown.is_empty() {
        Ok(pairs)
    } else {
        Err(format!("unrecognized arguments: {}", unknown.join(" ")))
    }
}

/// The flag of that name, or the only one that begins with it.
fn find(name: &str) -> Result<Option<Flag>, String> {
    if let Some(flag) = FLAGS.iter().find(|flag| flag.name == name) {
        return Ok(Some(*flag));
    }
    if !name.starts_with("--") || name.len() < 3 {
        return Ok(None);
    }
    let near: Vec<Flag> = FLAGS
        .iter()
        .filter(|flag| flag.name.starts_with(name))
        .copied()
        .collect();
    match near.as_slice() {
        [] => Ok(None),
        [only] => Ok(Some(*only)),
        several => {
            let names: Vec<&str> = several.iter().map(|flag| flag.name).collect();
            Err(format!(
                "ambiguous option: {name} could match {}",
                names.join(", ")
            ))
        }
    }
}

fn options(
    words: &[String],
    pairs: &[Pair],
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Options, String> {
    let last = |flag: &str| {
        pairs
            .iter()
            .rev()
            .find(|pair| pair.0 == flag)
            .and_then(|pair| pair.1.clone())
    };
    let given = |flag: &str| pairs.iter().any(|pair| pair.0 == flag);
    let port = match last("--port") {
        Some(text) => text
            .parse()
            .map_err(|_| format!("argument --port: invalid int value: '{text}'"))?,
        None => 8188,
    };
    let megabytes: f64 = match last("--max-upload-size") {
        Some(text) => text
            .parse()
            .map_err(|_| format!("argument --max-upload-size: invalid float value: '{text}'"))?,
        None => 100.0,
    };
    for flag in ["--front-end-root", "--user-directory", "--models-directory"] {
        let Some(path) = last(flag) else { continue };
        if !Path::new(&path).exists() {
            return Err(format!(
                "argument {flag}: The path '{path}' does not exist."
            ));
        }
        if !Path::new(&path).is_dir() {
            return Err(format!("argument {flag}: '{path}' is not a directory."));
        }
    }
    let max_upload = (megabytes * 1024.0 * 1024.0).round();
    let base = match last("--base-directory") {
        Some(path) => absolute(Path::new(&path)),
        None => default_base(),
    };
    let directory = |flag: &str, name: &str| match last(flag) {
        Some(path) => absolute(Path::new(&path)),
        None => base.join(name),
    };
    let mut faults = Faults::default();
    for (key, value) in faults::from_environment(environment) {
        faults.set(&key, &value)?;
    }
    for word in pairs
        .iter()
        .filter(|pair| pair.0 == "--fault")
        .filter_map(|pair| pair.1.as_deref())
    {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        faults.set(key, value)?;
    }
    Ok(Options {
        listen: last("--listen")
            .unwrap_or_else(|| "127.0.0.1".to_owned())
            .split(',')
            .map(str::to_owned)
            .collect(),
        port,
        input: directory("--input-directory", "input"),
        output: directory("--output-directory", "output"),
        temp: last("--temp-directory").map_or_else(
            || base.join("temp"),
            |path| absolute(Path::new(&path)).join("temp"),
        ),
        user: directory("--user-directory", "user"),
        front_end: last("--front-end-root")
            .map(|path| absolute(Path::new(&path)))
            .filter(|path| path.is_dir()),
        models: directory("--models-directory", "models"),
        max_upload: max_upload as u64,
        announced_upload: if given("--max-upload-size") {
            (megabytes * 1024.0 * 1024.0).into()
        } else {
            (max_upload as u64).into()
        },
        features: pairs
            .iter()
            .filter(|pair| pair.0 == "--feature-flag")
            .filter_map(|pair| feature(pair.1.as_deref()?))
            .collect(),
        assets: given("--enable-assets"),
        offline: given("--disable-api-nodes"),
        previews: last("--preview-method").as_deref() != Some("none"),
        multi_user: given("--multi-user"),
        manager: given("--enable-manager") || given("--enable-manager-legacy-ui"),
        legacy_manager: given("--enable-manager-legacy-ui"),
        metadata: !given("--disable-metadata"),
        cache: !given("--cache-none"),
        quiet: given("--dont-print-server"),
        log_to_output: given("--log-stdout"),
        leave_at_once: given("--quick-test-for-ci"),
        cors: last("--enable-cors-header"),
        faults,
        words: words.to_vec(),
        base,
    })
}

/// Beside the program ComfyUI would keep its directories; a program that may be installed for everybody
/// keeps them in the current directory instead.
fn default_base() -> PathBuf {
    absolute(Path::new("."))
}

fn absolute(path: &Path) -> PathBuf {
    let joined = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    crate::files::normalise(&joined)
}

/// A feature and its value; one that is not what its kind says is dropped.
fn feature(word: &str) -> Option<(String, Json)> {
    let (key, value) = word.split_once('=').unwrap_or((word, "true"));
    let (key, value) = (key.trim(), value.trim());
    if key.is_empty() {
        return None;
    }
    let known = FEATURES.iter().any(|(name, _, _)| *name == key);
    let value = match (known, value.to_ascii_lowercase().as_str()) {
        (true, "true") => Json::Bool(true),
        (true, "false") => Json::Bool(false),
        (true, _) => return None,
        (false, _) => value.into(),
    };
    Some((key.to_owned(), value))
}

fn list_of_features() -> String {
    let features = FEATURES.iter().map(|(name, kind, meaning)| {
        let about = serde_json::json!({ "type": kind, "default": false, "description": meaning });
        ((*name).to_owned(), about)
    });
    let all = serde_json::Value::Object(features.collect());
    format!("{all:#}\n")
}

fn usage() -> String {
    let mut out = String::from("usage: demo-engine [-h]");
    let mut column = out.len();
    // Flags that exclude each other stand in one pair of brackets, as argparse writes them.
    let same = |a: &Flag, b: &Flag| a.group != 0 && a.group == b.group;
    for group in FLAGS.chunk_by(same) {
        let names: Vec<String> = group.iter().map(with_value).collect();
        let word = format!("[{}]", names.join(" | "));
        if column + word.len() > 78 {
            out.push_str("\n                  ");
            column = 18;
        }
        out.push(' ');
        out.push_str(&word);
        column += word.len() + 1;
    }
    out.push('\n');
    out
}

fn with_value(flag: &Flag) -> String {
    let Flag {
        name, value, takes, ..
    } = flag;
    match takes {
        Nothing => (*name).to_owned(),
        Maybe(_) => format!("{name} [{value}]"),
        One => format!("{name} {value}"),
        Several => format!("{name} {value} [{value} ...]"),
        Any => format!("{name} [{value} ...]"),
    }
}

fn help() -> String {
    let mut out = usage();
    out.push_str("\noptions:\n  -h, --help            show this help message and exit\n");
    for flag in FLAGS {
        let name = with_value(flag);
        if name.len() > 20 {
            let _ = writeln!(
                out,
                "  {name}\n                        {}",
                flag.explanation
            );
        } else {
            let _ = writeln!(out, "  {name:20}  {}", flag.explanation);
        }
    }
    out.push_str(
        "\nfaults (for tests; --fault KEY=VALUE, or DEMO_ENGINE_KEY=VALUE in the environment):\n",
    );
    for (key, value, meaning) in faults::KEYS {
        let name = if value.is_empty() {
            (*key).to_owned()
        } else {
            format!("{key}={value}")
        };
        let _ = writeln!(out, "  {name:20}  {meaning}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{Request, read};

    fn run(line: &str) -> Request {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        read(&words, |_| None)
    }

    #[test]
    fn takes_what_argparse_takes() {
        for (line, listen, port) in [
            ("", "127.0.0.1", 8188),
            ("--listen --port 3", "0.0.0.0", 3),
            ("--listen=::1 --port=4 --cpu", "::1", 4),
            ("--multi --enable-cors --por 5", "127.0.0.1", 5),
            ("--fast a b --port 6", "127.0.0.1", 6),
            ("--cache-ram --verbose DEBUG a.log --port 7", "127.0.0.1", 7),
        ] {
            assert!(
                matches!(run(line), Request::Run(options) if options.listen[0] == listen && options.port == port),
                "{line}"
            );
        }
    }

    #[test]
    fn lists_features_and_ends() {
        assert!(matches!(
            run("--port 3 --list-feature-flags"),
            Request::Features(text) if text.contains("show_signin_button")
        ));
    }

    #[test]
    fn announces_features() {
        for (line, expected) in [
            ("--feature-flag show_signin_button", Some("true")),
            ("--feature-flag show_signin_button=FALSE", Some("false")),
            ("--feature-flag show_signin_button=yes", None),
            ("--feature-flag of_a_pack=1", Some("\"1\"")),
        ] {
            let Request::Run(options) = run(line) else {
                assert!(expected.is_none(), "{line}");
                continue;
            };
            let value = options.features.first().map(|(_, value)| value.dump());
            assert_eq!(value.as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn refuses_what_argparse_refuses() {
        for (line, reason) in [
            ("--nope", "unrecognized arguments: --nope"),
            ("extra", "unrecognized arguments: extra"),
            ("--port", "argument --port: expected one argument"),
            ("--port x", "argument --port: invalid int value: 'x'"),
            ("--cpu=1", "argument --cpu: ignored explicit argument '1'"),
            ("--enable", "ambiguous option: --enable could match"),
            ("--normalvram", "unrecognized arguments: --normalvram"),
            ("--disable-ipex-optimize", "unrecognized arguments"),
            ("--disable-assets-autoscan", "unrecognized arguments"),
            (
                "--extra-model-paths-config",
                "expected at least one argument",
            ),
            ("--models-directory /nowhere/at/all", "does not exist"),
            (
                "--cache-none --cache-lru 3",
                "argument --cache-lru: not allowed with argument --cache-none",
            ),
            ("--fault nonsense", "unknown fault"),
        ] {
            assert!(
                matches!(run(line), Request::Refused(text) if text.contains(reason)),
                "{line}"
            );
        }
    }
}
