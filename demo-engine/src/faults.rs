//! Faults shown on purpose, so that whatever runs and guards an engine can be tested.

use std::time::Duration;

/// Key, form of the value, meaning.
pub(crate) const KEYS: &[(&str, &str, &str)] = &[
    (
        "slow-start",
        "SECONDS",
        "Open the port only after that time.",
    ),
    ("never-ready", "", "Never open the port."),
    (
        "crash-after",
        "SECONDS",
        "End with exit-code that long after the start.",
    ),
    (
        "crash-on-prompt",
        "",
        "End with exit-code when a prompt is posted.",
    ),
    (
        "exit-code",
        "N",
        "Exit code of the crashes above (default: 1).",
    ),
    ("ignore-sigterm", "", "Do not end on SIGTERM."),
    (
        "fork-grandchild",
        "",
        "Start a process that sleeps and ignores SIGTERM; its id is logged.",
    ),
    (
        "hostile-node",
        "",
        "Let the node SentinelProbe reach for files, ports and processes of others.",
    ),
    (
        "unchecked-paths",
        "",
        "Check no path in nodes that load and save, as ComfyUI did before 2026.",
    ),
    (
        "pack-replacements",
        "",
        "Replace the class OldLoadImage (input file) by LoadImage, as a node pack may ask for.",
    ),
    (
        "spam-logs",
        "LINES",
        "Write that many log lines per second.",
    ),
    (
        "huge",
        "BYTES",
        "Size of /demo/huge when the query names none (default: 1 GiB).",
    ),
    (
        "routes",
        "",
        "Serve /demo/huge, slow, drip, echo, echo-socket and frames.",
    ),
];

/// Which faults are on.
#[derive(Clone, Debug)]
pub(crate) struct Faults {
    pub(crate) slow_start: Duration,
    pub(crate) never_ready: bool,
    pub(crate) crash_after: Option<Duration>,
    pub(crate) crash_on_prompt: bool,
    pub(crate) exit_code: i32,
    pub(crate) ignore_sigterm: bool,
    pub(crate) fork_grandchild: bool,
    pub(crate) hostile_node: bool,
    pub(crate) unchecked_paths: bool,
    pub(crate) pack_replacements: bool,
    pub(crate) spam_logs: u32,
    pub(crate) huge: u64,
    pub(crate) routes: bool,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            slow_start: Duration::ZERO,
            never_ready: false,
            crash_after: None,
            crash_on_prompt: false,
            exit_code: 1,
            ignore_sigterm: false,
            fork_grandchild: false,
            hostile_node: false,
            unchecked_paths: false,
            pack_replacements: false,
            spam_logs: 0,
            huge: 1 << 30,
            routes: false,
        }
    }
}

impl Faults {
    /// Switches one fault on. A switch without a value may be given as `KEY`, `KEY=1` or `KEY=0`.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let wrong = || format!("argument --fault: wrong value for {key}: '{value}'");
        let seconds = || {
            value
                .parse()
                .ok()
                .and_then(|number| Duration::try_from_secs_f64(number).ok())
                .ok_or_else(wrong)
        };
        let on = !matches!(value, "0" | "false" | "no");
        match key {
            "slow-start" => self.slow_start = seconds()?,
            "never-ready" => self.never_ready = on,
            "crash-after" => self.crash_after = Some(seconds()?),
            "crash-on-prompt" => self.crash_on_prompt = on,
            "exit-code" => self.exit_code = value.parse().map_err(|_| wrong())?,
            "ignore-sigterm" => self.ignore_sigterm = on,
            "fork-grandchild" => self.fork_grandchild = on,
            "hostile-node" => self.hostile_node = on,
            "unchecked-paths" => self.unchecked_paths = on,
            "pack-replacements" => self.pack_replacements = on,
            "spam-logs" => self.spam_logs = value.parse().map_err(|_| wrong())?,
            "huge" => self.huge = value.parse().map_err(|_| wrong())?,
            "routes" => self.routes = on,
            _ => return Err(format!("argument --fault: unknown fault: '{key}'")),
        }
        Ok(())
    }
}

/// The faults named by `DEMO_ENGINE_…` variables.
pub(crate) fn from_environment(get: impl Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    KEYS.iter()
        .filter_map(|(key, _, _)| {
            let name = format!("DEMO_ENGINE_{}", key.to_uppercase().replace('-', "_"));
            get(&name).map(|value| ((*key).to_owned(), value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Faults, from_environment};

    #[test]
    fn reads_every_key() {
        let mut faults = Faults::default();
        for (key, value, _) in super::KEYS {
            assert_eq!(
                faults.set(key, if value.is_empty() { "" } else { "3" }),
                Ok(()),
                "{key}"
            );
        }
        assert_eq!(faults.exit_code, 3);
        assert!(faults.set("slow-start", "-1").is_err());
        assert!(faults.set("nope", "").is_err());
    }

    #[test]
    fn environment_names() {
        let found =
            from_environment(|name| (name == "DEMO_ENGINE_SLOW_START").then(|| "2".to_owned()));
        assert_eq!(found, [("slow-start".to_owned(), "2".to_owned())]);
    }
}
