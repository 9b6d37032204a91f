//! How far a start has come, read from what ComfyUI prints.

use tokio::time::Instant;

use super::explain::without_level;
use super::log::LogRing;
use super::restart::in_words;
use super::settings::SupervisorSettings;

/// Lines looked at each time; progress is an estimate and need not see every line of a flood.
const LINES_LOOKED_AT: usize = 500;

/// A start under way: how far it is, and since when it has been silent.
#[derive(Debug)]
pub(super) struct StartUnderWay {
    began: Instant,
    heard: Instant,
    seen: u64,
    fraction: f32,
    text: &'static str,
}

impl StartUnderWay {
    /// A start whose output has numbers above `seen`.
    pub(super) fn new(seen: u64) -> Self {
        let now = Instant::now();
        Self {
            began: now,
            heard: now,
            seen,
            fraction: 0.0,
            text: "Starting ComfyUI",
        }
    }

    /// Reads on in the log; gives progress and text if there was something new.
    pub(super) fn look(&mut self, log: &LogRing) -> Option<(f32, &'static str)> {
        let last_seq = log.last_seq();
        if last_seq == self.seen {
            return None;
        }
        self.heard = Instant::now();
        for entry in log.after(self.seen, LINES_LOOKED_AT) {
            match milestone(&entry.text) {
                Some(found) if found.fraction >= self.fraction => {
                    self.fraction = found.fraction;
                    self.text = found.text;
                }
                Some(_) => {}
                None => self.text = activity(&entry.text).unwrap_or(self.text),
            }
        }
        self.seen = last_seq;
        Some((self.fraction, self.text))
    }

    /// Why the start has to be given up now, if it has to.
    pub(super) fn too_slow(&self, settings: &SupervisorSettings) -> Option<String> {
        if self.began.elapsed() >= settings.ready_limit {
            let limit = in_words(settings.ready_limit);
            return Some(format!(
                "ComfyUI was not ready after {limit} and was ended."
            ));
        }
        (self.heard.elapsed() >= settings.ready_timeout).then(|| {
            let limit = in_words(settings.ready_timeout);
            format!(
                "ComfyUI was not ready and said nothing for {limit}, so it was ended. Its last \
                 step was: {}.",
                self.text
            )
        })
    }
}

/// What a line of output says about the start.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Milestone {
    /// Part of the start that is done, 0 to 1.
    fraction: f32,
    /// What is going on, in plain words.
    text: &'static str,
}

/// Beginnings of lines, in the order ComfyUI 0.3 to 0.33 prints them. The fractions are its
/// measured times on a machine without custom nodes.
const MILESTONES: &[(&str, f32, &str)] = &[
    ("** ComfyUI startup time", 0.05, "Preparing custom nodes"),
    ("[Prestartup", 0.05, "Preparing custom nodes"),
    ("Prestartup times for custom nodes", 0.1, "Loading PyTorch"),
    (
        "Checkpoint files will always be loaded safely",
        0.3,
        "Loading PyTorch",
    ),
    ("Total VRAM", 0.45, "Looking at the graphics card"),
    ("pytorch version:", 0.46, "Looking at the graphics card"),
    ("Device:", 0.47, "Loading ComfyUI"),
    (
        "DynamicVRAM support detected",
        0.475,
        "Looking at the graphics card",
    ),
    ("Using ", 0.48, "Loading ComfyUI"),
    ("Python version:", 0.8, "Loading ComfyUI"),
    ("ComfyUI version:", 0.8, "Loading nodes"),
    ("comfy-aimdo version:", 0.805, "Loading nodes"),
    ("[Prompt Server] web root", 0.81, "Loading nodes"),
    ("### Loading:", 0.85, "Loading custom nodes"),
    (
        "Import times for custom nodes",
        0.95,
        "Preparing the database",
    ),
    ("Context impl", 0.96, "Preparing the database"),
    ("Running upgrade", 0.965, "Preparing the database"),
    (
        "Background asset scan initiated",
        0.97,
        "Looking through models and pictures",
    ),
    ("Starting server", 0.98, "Starting the web server"),
    ("To see the GUI go to", 0.99, "Starting the web server"),
];

/// The milestone a line marks, if any.
fn milestone(line: &str) -> Option<Milestone> {
    let line = line.trim_start();
    let line = without_level(line);
    MILESTONES
        .iter()
        .find(|(start, ..)| line.starts_with(start))
        .map(|&(_, fraction, text)| Milestone { fraction, text })
}

/// What a line says is going on without telling how far the start has come.
fn activity(line: &str) -> Option<&'static str> {
    const ACTIVITIES: &[(&str, &str)] = &[
        ("Collecting ", "Installing Python packages"),
        (
            "Installing collected packages",
            "Installing Python packages",
        ),
        ("Downloading ", "Downloading files"),
        ("Cloning into", "Downloading files"),
    ];
    let line = line.trim_start();
    ACTIVITIES
        .iter()
        .find(|(start, _)| line.starts_with(start))
        .map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_of_0_33_is_understood() {
        let recorded = [
            "[INFO] setup plugin alembic.autogenerate.schemas",
            "[INFO] Checkpoint files will always be loaded safely.",
            "[INFO] Total VRAM 24106 MB, total RAM 24106 MB",
            "[INFO] pytorch version: 2.15.0+cu132",
            "[INFO] Device: cpu",
            "[WARNING] Using sub quadratic optimization for attention",
            "[INFO] Python version: 3.11.7 (main, May  9 2026, 07:35:25) [GCC 12.2.0]",
            "[INFO] ComfyUI version: 0.33.0",
            "[INFO] comfy-aimdo version: 0.4.13",
            "[INFO] [Prompt Server] web root: /somewhere/static",
            "[INFO] Context impl SQLiteImpl.",
            "[INFO] Running upgrade  -> 0001_assets, Initial assets schema",
            "[INFO] Background asset scan initiated for models, input, output",
            "[INFO] Starting server",
            "[INFO] To see the GUI go to: http://127.0.0.1:8188",
        ];
        let fractions: Vec<f32> = recorded
            .iter()
            .filter_map(|line| milestone(line))
            .map(|milestone| milestone.fraction)
            .collect();
        assert_eq!(fractions.len(), recorded.len() - 1);
        assert!(fractions.is_sorted(), "{fractions:?}");
    }

    #[test]
    fn a_recorded_start_only_goes_forward() {
        let recorded = [
            "Checkpoint files will always be loaded safely.",
            "Total VRAM 24106 MB, total RAM 24106 MB",
            "pytorch version: 2.15.0+cu132",
            "Set vram state to: DISABLED",
            "Device: cpu",
            "Using sub quadratic optimization for attention, if you have memory or speed issues",
            "Python version: 3.11.7 (main, May  9 2026, 07:35:25) [GCC 12.2.0]",
            "ComfyUI version: 0.12.1",
            "ComfyUI frontend version: 1.37.11",
            "[Prompt Server] web root: /somewhere/static",
            "Cannot import nodes_audio.py module for custom nodes: no torchaudio",
            "Import times for custom nodes:",
            "   0.0 seconds: /somewhere/custom_nodes/websocket_image_save.py",
            "Starting server",
            "To see the GUI go to: http://127.0.0.1:8188",
        ];
        let fractions: Vec<f32> = recorded
            .iter()
            .filter_map(|line| milestone(line))
            .map(|milestone| milestone.fraction)
            .collect();
        assert_eq!(fractions.len(), 11);
        assert!(fractions.is_sorted(), "{fractions:?}");
        assert_eq!(
            milestone("Starting server").unwrap().text,
            "Starting the web server"
        );
        assert_eq!(milestone("got prompt"), None);
        assert_eq!(
            activity("Collecting torch"),
            Some("Installing Python packages")
        );
        assert_eq!(activity("got prompt"), None);
    }
}
