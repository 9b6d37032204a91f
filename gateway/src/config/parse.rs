//! From JSON text and `--set key=value` to checked settings.

use super::{Config, KEYS, Key, Kind};
use crate::access::origins::BasePath;
use crate::jobs::QuietHours;
use ipnet::IpNet;
use serde_json::{Map, Value};
use std::fmt;

/// One fault: the key and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Key as written, empty for the file as a whole.
    pub key: String,
    /// What is wrong, for people.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            formatter.write_str(&self.message)
        } else {
            write!(formatter, "{}: {}", self.key, self.message)
        }
    }
}

/// All faults of one text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigErrors(pub Vec<Fault>);

/// What somebody wrote, checked: the keys that differ from nothing, not filled up with defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    written: Map<String, Value>,
}

impl Settings {
    /// Checks the text of a `config.json`.
    pub fn parse(text: &str) -> Result<Self, ConfigErrors> {
        match serde_json::from_str(text) {
            Ok(Value::Object(members)) => Self::from_members(members),
            Ok(_) => Err(single("", "the file must hold one JSON object: { … }")),
            Err(error) => Err(single("", format!("not valid JSON: {error}"))),
        }
    }

    /// Checks the members of a JSON object.
    pub fn from_members(members: Map<String, Value>) -> Result<Self, ConfigErrors> {
        let mut faults = Vec::new();
        let written = normalise_spelling(members, &mut faults);
        check_level("", &written, &mut faults);
        if faults.is_empty() {
            Ok(Self { written })
        } else {
            Err(ConfigErrors(faults))
        }
    }

    /// These settings with those of `newer` on top.
    pub fn merged(&self, newer: &Self) -> Self {
        let mut written = self.written.clone();
        merge(&mut written, &newer.written);
        Self { written }
    }

    /// Adds one `key=value` of the command line. The value is JSON, or plain text where the key
    /// takes text; lists may be written `a,b`.
    pub fn set(&mut self, assignment: &str) -> Result<(), ConfigErrors> {
        let Some((path, text)) = assignment.split_once('=') else {
            return Err(single(assignment, "write it as key=value"));
        };
        let path = if path == "seperate_users" {
            "separate_users"
        } else {
            path
        };
        let Some(key) = KEYS.iter().find(|key| key.path == path) else {
            return Err(ConfigErrors(vec![unknown(path)]));
        };
        let value = value_of(key, text);
        if let Err(message) = check(key, &value) {
            return Err(single(path, message));
        }
        let mut member = value;
        let mut names = path.split('.').rev().peekable();
        while let Some(name) = names.next() {
            let mut level = Map::new();
            level.insert(name.to_owned(), member);
            if names.peek().is_none() {
                merge(&mut self.written, &level);
                return Ok(());
            }
            member = Value::Object(level);
        }
        Ok(())
    }

    /// The complete configuration: defaults, then what is written here.
    pub fn config(&self) -> Result<Config, ConfigErrors> {
        let Ok(Value::Object(mut complete)) = serde_json::to_value(Config::default()) else {
            return Err(single("", "the defaults cannot be written as JSON"));
        };
        merge(&mut complete, &self.written);
        let config: Config = serde_json::from_value(Value::Object(complete))
            .map_err(|error| single("", error.to_string()))?;
        let mut faults = Vec::new();
        if config.sharing.tls.certificate.is_empty() != config.sharing.tls.key.is_empty() {
            faults.push(fault(
                "sharing.tls",
                "certificate and key belong together: give both or neither",
            ));
        }
        if !config.comfyui.attach.is_empty() && config.separate_users {
            faults.push(fault(
                "separate_users",
                "cannot be held together with comfyui.attach: a ComfyUI run by somebody else is one for all",
            ));
        }
        if faults.is_empty() {
            Ok(config)
        } else {
            Err(ConfigErrors(faults))
        }
    }

    /// Whether something is written for this key.
    pub fn has(&self, path: &str) -> bool {
        let mut names = path.split('.');
        let first = names.next().and_then(|name| self.written.get(name));
        names
            .try_fold(first, |level, name| level.map(|level| level.get(name)))
            .flatten()
            .is_some()
    }

    /// The members as they are written to the file.
    pub fn members(&self) -> &Map<String, Value> {
        &self.written
    }
}

fn single(key: impl Into<String>, message: impl Into<String>) -> ConfigErrors {
    ConfigErrors(vec![fault(key, message)])
}

fn fault(key: impl Into<String>, message: impl Into<String>) -> Fault {
    Fault {
        key: key.into(),
        message: message.into(),
    }
}

/// The original read `seperate_users` and documented `separate_users` (defect S47); both are taken.
fn normalise_spelling(
    mut members: Map<String, Value>,
    faults: &mut Vec<Fault>,
) -> Map<String, Value> {
    if let Some(old) = members.shift_remove("seperate_users") {
        match members.get("separate_users") {
            Some(new) if *new != old => {
                faults.push(fault(
                    "seperate_users",
                    "says something else than separate_users; keep one of them",
                ));
            }
            _ => {
                members.insert("separate_users".to_owned(), old);
            }
        }
    }
    members
}

fn check_level(prefix: &str, members: &Map<String, Value>, faults: &mut Vec<Fault>) {
    for (name, value) in members {
        let path = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}.{name}")
        };
        if let Some(key) = KEYS.iter().find(|key| key.path == path) {
            if let Err(message) = check(key, value) {
                faults.push(fault(path, message));
            }
        } else if KEYS.iter().any(|key| {
            key.path
                .strip_prefix(&path)
                .is_some_and(|rest| rest.starts_with('.'))
        }) {
            match value {
                Value::Object(members) => check_level(&path, members, faults),
                _ => faults.push(fault(path, "must be an object: { … }")),
            }
        } else {
            faults.push(unknown(&path));
        }
    }
}

fn unknown(path: &str) -> Fault {
    let wanted = path.to_ascii_lowercase();
    let near = KEYS.iter().find(|key| {
        let last = key.path.rsplit('.').next().unwrap_or(key.path);
        last == wanted || key.path.replace(['_', '.'], "") == wanted.replace(['_', '.', '-'], "")
    });
    let hint = near
        .map(|key| format!("; did you mean {}?", key.path))
        .unwrap_or_default();
    fault(path, format!("unknown key{hint}"))
}

fn check(key: &Key, value: &Value) -> Result<(), String> {
    match key.kind {
        Kind::Boolean => value
            .as_bool()
            .map(|_| ())
            .ok_or_else(|| "must be true or false".to_owned()),
        Kind::Integer { min, max } => match value.as_u64() {
            Some(number) if (min..=max).contains(&number) => Ok(()),
            _ => Err(format!("must be a whole number from {min} to {max}")),
        },
        Kind::Text => text(value).map(|_| ()),
        Kind::Name => match text(value)? {
            "" => Err("must not be empty".to_owned()),
            _ => Ok(()),
        },
        Kind::HostLabel => host_label(text(value)?),
        Kind::BasePath => BasePath::parse(text(value)?)
            .map(|_| ())
            .map_err(|fault| fault.to_string()),
        Kind::UrlOrEmpty => match text(value)? {
            "" => Ok(()),
            url => attach_address(url).map(|_| ()),
        },
        Kind::Choice(words) => word(words, value),
        Kind::Choices(words) => items(value)?.iter().try_for_each(|item| word(words, item)),
        Kind::Texts => items(value)?
            .iter()
            .try_for_each(|item| text(item).map(|_| ())),
        Kind::Paths => items(value)?
            .iter()
            .try_for_each(|item| absolute_path(text(item)?)),
        Kind::Ports => items(value)?.iter().try_for_each(|item| port(text(item)?)),
        Kind::Networks => items(value)?
            .iter()
            .try_for_each(|item| network(text(item)?).map(|_| ())),
        Kind::HostNames => items(value)?
            .iter()
            .try_for_each(|item| host_name(text(item)?)),
        Kind::NodeNames => items(value)?
            .iter()
            .try_for_each(|item| node_name(text(item)?)),
        Kind::Routes => items(value)?.iter().try_for_each(|item| route(text(item)?)),
        Kind::Numerals => items(value)?
            .iter()
            .try_for_each(|item| numeral(text(item)?)),
        Kind::QuietHours => items(value)?.iter().try_for_each(|item| {
            QuietHours::parse(&[text(item)?.to_owned()])
                .map(|_| ())
                .map_err(|error| error.to_string())
        }),
    }
}

fn text(value: &Value) -> Result<&str, String> {
    match value.as_str() {
        Some(text) if text.contains('\0') => Err("must not hold a null character".to_owned()),
        Some(text) => Ok(text),
        None => Err("must be text in quotes".to_owned()),
    }
}

fn items(value: &Value) -> Result<&[Value], String> {
    value
        .as_array()
        .map(Vec::as_slice)
        .ok_or_else(|| "must be a list: [ … ]".to_owned())
}

fn word(words: &[&str], value: &Value) -> Result<(), String> {
    match value.as_str() {
        Some(text) if words.contains(&text) => Ok(()),
        _ => Err(format!("must be one of {}", words.join(", "))),
    }
}

fn absolute_path(text: &str) -> Result<(), String> {
    if std::path::Path::new(text).is_absolute() {
        Ok(())
    } else {
        Err(format!("\"{text}\" is not an absolute path"))
    }
}

fn port(text: &str) -> Result<(), String> {
    match text.parse::<u16>() {
        Ok(1..) => Ok(()),
        _ => Err(format!("\"{text}\" is not a port such as \"443\"")),
    }
}

fn numeral(text: &str) -> Result<(), String> {
    match text.parse::<u16>() {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("\"{text}\" is not a number such as \"0\"")),
    }
}

fn network(text: &str) -> Result<IpNet, String> {
    text.parse()
        .map_err(|_| format!("\"{text}\" is not a range such as 192.168.1.0/24 or 10.0.0.5/32"))
}

fn host_label(text: &str) -> Result<(), String> {
    let legal = |character: char| character.is_ascii_alphanumeric() || character == '-';
    if (1..=63).contains(&text.len())
        && text.chars().all(legal)
        && !text.starts_with('-')
        && !text.ends_with('-')
    {
        Ok(())
    } else {
        Err("must be 1 to 63 letters, digits and hyphens".to_owned())
    }
}

fn host_name(text: &str) -> Result<(), String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.len() <= 253 && name.split('.').all(|label| host_label(label).is_ok()) {
        Ok(())
    } else {
        Err(format!(
            "\"{text}\" is not a host name such as comfy.example.org (no port, no http://)"
        ))
    }
}

fn node_name(text: &str) -> Result<(), String> {
    match text.strip_prefix('!').unwrap_or(text) {
        "" => Err("must not hold an empty name".to_owned()),
        name if name.starts_with('@') && text != "@file-access" => Err(format!(
            "\"{text}\" is not known; the only set is @file-access"
        )),
        _ => Ok(()),
    }
}

fn route(text: &str) -> Result<(), String> {
    if text.len() > 1 && text.starts_with('/') && !text.contains(['?', '#', '%', '*']) {
        Ok(())
    } else {
        Err(format!(
            "\"{text}\" is not the beginning of a path such as /easyuse/"
        ))
    }
}

/// `host` and `port` of an attached ComfyUI.
pub(super) fn attach_address(url: &str) -> Result<(String, u16), String> {
    let message = || format!("\"{url}\" is not an address such as http://127.0.0.1:8188");
    let uri: http::Uri = url.parse().map_err(|_| message())?;
    let root = matches!(uri.path(), "" | "/") && uri.query().is_none();
    if uri.scheme_str() != Some("http") || !root {
        return Err(message());
    }
    let authority = uri
        .authority()
        .filter(|authority| !authority.as_str().contains('@'))
        .ok_or_else(message)?;
    let host = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']');
    Ok((host.to_owned(), authority.port_u16().unwrap_or(80)))
}

fn value_of(key: &Key, text: &str) -> Value {
    let is_list = matches!(
        key.kind,
        Kind::Choices(_)
            | Kind::Texts
            | Kind::Paths
            | Kind::Ports
            | Kind::Networks
            | Kind::HostNames
            | Kind::NodeNames
            | Kind::Routes
            | Kind::Numerals
            | Kind::QuietHours
    );
    let is_text = matches!(
        key.kind,
        Kind::Text
            | Kind::Name
            | Kind::HostLabel
            | Kind::BasePath
            | Kind::UrlOrEmpty
            | Kind::Choice(_)
    );
    match serde_json::from_str(text) {
        Ok(Value::Array(items)) if is_list => Value::Array(items),
        Ok(Value::String(quoted)) if is_text => Value::String(quoted),
        Ok(value) if !is_list && !is_text => value,
        _ if is_list => text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(|item| Value::String(item.to_owned()))
            .collect(),
        _ => Value::String(text.to_owned()),
    }
}

fn merge(target: &mut Map<String, Value>, newer: &Map<String, Value>) {
    for (name, value) in newer {
        match (target.get_mut(name), value) {
            (Some(Value::Object(target)), Value::Object(newer)) => merge(target, newer),
            _ => {
                target.insert(name.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn s48_all_faults_are_reported_at_once_with_their_keys() {
        let errors = Settings::parse(
            r#"{"force_https": "yes", "sharing": {"port": 70000, "prot": 1}, "trusted_proxies": ["10.0.0.1/33"],
                "log_levels": ["LOUD"], "comfyui": true, "Whitelist": ""}"#,
        )
        .unwrap_err();
        let keys: Vec<_> = errors.0.iter().map(|fault| fault.key.as_str()).collect();
        assert_eq!(
            keys,
            [
                "force_https",
                "sharing.port",
                "sharing.prot",
                "trusted_proxies",
                "log_levels",
                "comfyui",
                "Whitelist"
            ]
        );
        assert!(errors.to_string().contains("did you mean whitelist?"));
    }

    #[test]
    fn s47_both_spellings_of_separate_users_count() {
        for text in [r#"{"seperate_users": true}"#, r#"{"separate_users": true}"#] {
            assert!(
                Settings::parse(text)
                    .unwrap()
                    .config()
                    .unwrap()
                    .separate_users
            );
        }
        assert!(Settings::parse(r#"{"seperate_users": true, "separate_users": false}"#).is_err());
    }

    #[test]
    fn assignments_of_the_command_line() {
        let mut settings = Settings::default();
        for assignment in [
            "sharing.port=9000",
            "force_https=true",
            "comfyui.args=--cpu,--lowvram",
            r#"trusted_proxies=["10.0.0.0/8"]"#,
            "comfyui.dir=/data/a=b",
            "log_levels=INFO,ERROR",
            "sharing.name=studio",
            "sandbox_allow_ports=443,11434",
            "sandbox_allow_read=/srv/a,/srv/b",
        ] {
            settings.set(assignment).unwrap();
        }
        let config = settings.config().unwrap();
        assert_eq!(config.sharing.port, 9000);
        assert_eq!(config.sharing.name, "studio");
        assert_eq!(config.comfyui.args, ["--cpu", "--lowvram"]);
        assert_eq!(config.comfyui.dir, "/data/a=b");
        assert_eq!(config.sandbox_allow_ports, ["443", "11434"]);
        assert_eq!(config.sandbox_allow_read, ["/srv/a", "/srv/b"]);
        assert!(config.force_https);
        for wrong in [
            "port=1",
            "sharing.port=x",
            "sharing",
            "force_https=1",
            "sharing.name=a.b",
            "gpu_slots=-1",
            "sandbox_allow_read=models",
            "sandbox_allow_ports=https",
            "sandbox_allow_ports=0",
            "sandbox_allow_ports=[443]",
        ] {
            assert!(Settings::default().set(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn combinations_that_cannot_be_held() {
        for text in [
            r#"{"sharing": {"tls": {"certificate": "a.pem"}}}"#,
            r#"{"separate_users": true, "comfyui": {"attach": "http://127.0.0.1:8188"}}"#,
        ] {
            assert!(Settings::parse(text).unwrap().config().is_err());
        }
        for wrong in ["ftp://a", "http://", "http://u@h:1", "http://h:1/x", "h:1"] {
            assert!(attach_address(wrong).is_err(), "{wrong}");
        }
        assert_eq!(
            attach_address("http://[::1]:8188").unwrap(),
            ("::1".to_owned(), 8188)
        );
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = Settings::parse(&text);
            let _ = Settings::default().set(&text);
        }

        #[test]
        fn what_is_accepted_becomes_a_config(port in 0u16.., attempts in 0u32..1_000_000, https: bool) {
            let text = format!(
                r#"{{"sharing": {{"port": {port}}}, "blacklist_after_attempts": {attempts}, "force_https": {https}}}"#
            );
            let config = Settings::parse(&text).unwrap().config().unwrap();
            prop_assert_eq!(config.sharing.port, port);
            prop_assert_eq!(config.blacklist_after_attempts, attempts);
            prop_assert_eq!(config.force_https, https);
        }
    }
}
