//! Why an engine ended, in plain words.

mod rules;

use super::spawn::ProcessExit;
use rules::{RULES, crash_place, model_list};

/// What a person should read about an unasked end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// One or two sentences.
    pub text: String,
    /// The same will happen at every further try.
    pub permanent: bool,
}

/// How many of the last lines may hold the exception Python ended with. Small, as ComfyUI prints
/// (and survives) exceptions of custom nodes all the time.
const EXCEPTION_LINES: usize = 12;

/// How many of them a traceback through the reader of model lists fills.
const TRACEBACK_LINES: usize = 40;

/// Explains from the way it ended and its last lines (oldest first, secrets masked already).
///
/// `was_ready` tells whether it had answered requests: missing packages and the like are only
/// taken for the cause when it never did.
pub fn explain_exit(exit: ProcessExit, was_ready: bool, last_lines: &[&str]) -> Explanation {
    let cause = match exit {
        ProcessExit::Signal(signal) => {
            let mut cause = by_signal(signal);
            if let Some(place) = crash_place(last_lines) {
                cause.text = format!("{} {place}", cause.text);
            }
            Some(cause)
        }
        ProcessExit::Code(0) => None,
        ProcessExit::Code(code) => {
            by_lines(last_lines).or_else(|| by_windows_code(code).map(passing))
        }
        ProcessExit::Unknown => by_lines(last_lines),
    };
    let beginning = match (exit, was_ready) {
        (ProcessExit::Code(0), true) => "ComfyUI ended by itself.".to_owned(),
        (ProcessExit::Code(0), false) => "ComfyUI ended by itself before it was ready.".to_owned(),
        (ProcessExit::Code(code), true) => format!("ComfyUI ended with exit code {code}."),
        (ProcessExit::Code(code), false) => {
            format!("ComfyUI did not start (exit code {code}).")
        }
        (ProcessExit::Signal(_) | ProcessExit::Unknown, true) => "ComfyUI ended.".to_owned(),
        (ProcessExit::Signal(_) | ProcessExit::Unknown, false) => {
            "ComfyUI did not start.".to_owned()
        }
    };
    match cause {
        Some(Explanation { text, permanent }) => Explanation {
            text: format!("{beginning} {text}"),
            permanent: permanent && !was_ready,
        },
        None => passing(beginning),
    }
}

fn by_signal(signal: i32) -> Explanation {
    // The numbers are the same on all Unix systems, except where noted.
    passing(match signal {
        9 => "It was killed, most likely because the computer ran out of memory. Close other \
              programs, use smaller models or add --cache-none to ComfyUI's arguments."
            .to_owned(),
        11 => "It crashed with a memory access error (segmentation fault), often a custom node \
               or a graphics driver."
            .to_owned(),
        4 => "It used an instruction this processor does not have; PyTorch may be built for \
              newer ones."
            .to_owned(),
        6 => "It aborted itself after a fatal error.".to_owned(),
        // 7 on Linux, 10 on macOS
        7 | 10 => "It crashed with a bus error; a disk or shared memory may be full.".to_owned(),
        8 => "It crashed with an arithmetic error.".to_owned(),
        15 => "Somebody asked it to end (SIGTERM).".to_owned(),
        2 => "Somebody interrupted it (SIGINT).".to_owned(),
        1 => "Its terminal was closed (SIGHUP).".to_owned(),
        signal => format!("It was ended by signal {signal}."),
    })
}

fn by_windows_code(code: i32) -> Option<String> {
    // Exit codes of Windows are bit patterns that std shows as negative numbers.
    let text = match code.cast_unsigned() {
        0xC000_0005 => {
            "It crashed with a memory access error, often a custom node or a graphics driver."
        }
        0xC000_0017 => "The computer ran out of memory.",
        0xC000_0135 => "A DLL it needs is missing.",
        0xC000_013A => "Somebody closed it or pressed Ctrl-C.",
        0xC000_001D => "It used an instruction this processor does not have.",
        0xC000_0409 => "It aborted itself after a fatal error.",
        _ => return None,
    };
    Some(text.to_owned())
}

fn by_lines(lines: &[&str]) -> Option<Explanation> {
    let last = |count: usize| &lines[lines.len().saturating_sub(count)..];
    let recent = last(EXCEPTION_LINES);
    let by_rules = || {
        RULES.iter().find_map(|rule| {
            let mut lines = recent.iter().rev().map(|line| without_level(line.trim()));
            lines.find_map(rule)
        })
    };
    model_list(last(TRACEBACK_LINES)).or_else(by_rules)
}

/// A line without the level that ComfyUI 0.21 and newer put before it.
pub(super) fn without_level(line: &str) -> &str {
    const LEVELS: [&str; 6] = [
        "[INFO]",
        "[WARNING]",
        "[ERROR]",
        "[CRITICAL]",
        "[DEBUG]",
        "[DETAIL]",
    ];
    let rest = LEVELS.iter().find_map(|level| line.strip_prefix(level));
    rest.map_or(line, str::trim_start)
}

fn passing(text: impl Into<String>) -> Explanation {
    Explanation {
        text: text.into(),
        permanent: false,
    }
}

fn permanent(text: impl Into<String>) -> Explanation {
    Explanation {
        text: text.into(),
        permanent: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        use ProcessExit::{Code, Signal, Unknown};
        // (exit, was ready, last lines, part of the text, permanent)
        let table: &[(ProcessExit, bool, &[&str], &str, bool)] = &[
            (Code(0), true, &[], "ended by itself.", false),
            (
                Code(0),
                false,
                &["ModuleNotFoundError: No module named 'x'"],
                "before it was ready",
                false,
            ),
            (
                Code(3),
                true,
                &["Prompt executed in 3.2 seconds"],
                "exit code 3.",
                false,
            ),
            (Signal(9), true, &["got prompt"], "out of memory", false),
            (Signal(9), false, &[], "did not start. It was killed", false),
            (Signal(11), true, &[], "segmentation fault", false),
            (Signal(34), true, &[], "signal 34", false),
            (Unknown, true, &[], "ComfyUI ended.", false),
            (
                Code(1),
                false,
                &[
                    "Traceback (most recent call last):",
                    "  File \"main.py\", line 3",
                    "ModuleNotFoundError: No module named 'torch'",
                ],
                "package \"torch\" is missing",
                true,
            ),
            (
                Code(1),
                false,
                &["ModuleNotFoundError: No module named 'yaml.loader'"],
                "\"yaml\"",
                true,
            ),
            (
                Code(1),
                true,
                &["ModuleNotFoundError: No module named 'x'"],
                "\"x\"",
                false,
            ),
            (
                Code(1),
                false,
                &["AssertionError: Torch not compiled with CUDA enabled"],
                "--cpu",
                true,
            ),
            (
                Code(1),
                false,
                &["RuntimeError: Found no NVIDIA driver on your system. Please check"],
                "driver was found",
                true,
            ),
            (
                Code(1),
                false,
                &[
                    "RuntimeError: The NVIDIA driver on your system is too old (found version 11040).",
                ],
                "Update the driver",
                true,
            ),
            (
                Code(1),
                false,
                &["RuntimeError: CUDA error: no kernel image is available for execution"],
                "does not support this graphics card",
                true,
            ),
            (
                Code(1),
                true,
                &["RuntimeError: CUDA error: an illegal memory access was encountered"],
                "an illegal memory access",
                false,
            ),
            (
                Code(1),
                true,
                &["torch.OutOfMemoryError: CUDA out of memory. Tried to allocate"],
                "graphics card ran out",
                false,
            ),
            (
                Code(1),
                false,
                &["MemoryError"],
                "computer ran out of memory",
                false,
            ),
            (
                Code(1),
                false,
                &["OSError: [Errno 28] No space left on device"],
                "disk is full",
                false,
            ),
            (
                Code(1),
                false,
                &[
                    "OSError: [Errno 98] error while attempting to bind on address ('127.0.0.1', 8188): address already in use",
                ],
                "network port",
                false,
            ),
            (
                Code(2),
                false,
                &[
                    "usage: main.py [-h]",
                    "main.py: error: unrecognized arguments: --nonsense",
                ],
                "\"--nonsense\"",
                true,
            ),
            (
                Code(2),
                false,
                &["main.py: error: argument --port: invalid int value: 'x'"],
                "refused its arguments: argument --port",
                true,
            ),
            (
                Code(2),
                false,
                &["python: can't open file '/x/main.py': [Errno 2] No such file"],
                "main.py cannot be read",
                true,
            ),
            (
                Code(1),
                false,
                &["    match x:", "SyntaxError: invalid syntax"],
                "too old",
                true,
            ),
            (
                Code(1),
                false,
                &["TypeError: unsupported operand type(s) for |: 'type' and 'NoneType'"],
                "too old",
                true,
            ),
            (
                Code(1),
                false,
                &["ImportError: DLL load failed while importing _C: not found"],
                "could not be loaded: DLL load failed",
                true,
            ),
            (
                Code(1),
                false,
                &["PermissionError: [Errno 13] Permission denied: '/x'"],
                "may not use",
                false,
            ),
            (
                Code(1),
                false,
                &["sqlite3.OperationalError: unable to open database file"],
                "sqlite3.OperationalError: unable",
                false,
            ),
            (
                Code(-1_073_741_819),
                true,
                &[],
                "memory access error",
                false,
            ),
            (
                Code(1),
                false,
                &[
                    "[ERROR] Port 8188 is already in use on address 127.0.0.1. Please close the other application or use a different port with --port.",
                ],
                "network port",
                false,
            ),
            (
                Code(1),
                false,
                &["[ERROR] MemoryError"],
                "computer ran out of memory",
                false,
            ),
            (
                Code(1),
                true,
                &["[ERROR] torch.OutOfMemoryError: Allocation on device"],
                "--reserve-vram",
                false,
            ),
            (
                Code(1),
                false,
                &["[ERROR] SyntaxError: invalid syntax"],
                "too old",
                true,
            ),
            (
                Code(1),
                false,
                &["[CRITICAL] ASSETS_STARTUP_FAILED: in_use"],
                "used by another ComfyUI",
                false,
            ),
            (
                Code(1),
                false,
                &["ASSETS_STARTUP_FAILED: newer_revision"],
                "newer ComfyUI",
                true,
            ),
            (
                Code(1),
                false,
                &["ASSETS_STARTUP_FAILED: missing_packages (alembic)"],
                "pip install",
                true,
            ),
            (
                Code(1),
                false,
                &["ASSETS_STARTUP_FAILED: not_writable"],
                "disk may be full",
                true,
            ),
            (
                Code(1),
                false,
                &["ASSETS_STARTUP_FAILED: corrupt"],
                "damaged",
                true,
            ),
            (
                Code(1),
                false,
                &["ASSETS_STARTUP_FAILED: something_new"],
                "(something_new)",
                true,
            ),
            (
                Code(1),
                false,
                &[
                    "[ERROR] Failed to initialize database: Could not acquire lock on database '/u/comfyui.db'. Another ComfyUI process may already be using it.",
                    "The --enable-assets flag requires a working database connection.",
                ],
                "used by another ComfyUI",
                false,
            ),
            (
                Code(1),
                false,
                &[
                    "[ERROR] Failed to initialize database: Can't locate revision identified by '9999'",
                    "The --enable-assets flag requires a working database connection.",
                ],
                "revision identified by '9999'",
                true,
            ),
            (
                Code(2),
                false,
                &["main.py: error: unrecognized arguments: --normalvram"],
                "\"--normalvram\"",
                true,
            ),
            (
                Code(2),
                false,
                &[
                    "main.py: error: argument --fast: invalid PerformanceFeature value: 'dynamic_vram'",
                ],
                "argument --fast",
                true,
            ),
            (
                Code(1),
                false,
                &[
                    "  File \"/comfy/utils/extra_config.py\", line 8, in load_extra_path_config",
                    "    config = yaml.safe_load(stream)",
                    "yaml.scanner.ScannerError: while scanning for the next token",
                    "found character '\\t' that cannot start any token",
                    "  in \"/comfy/extra_model_paths.yaml\", line 3, column 1",
                ],
                "/comfy/extra_model_paths.yaml, line 3, column 1",
                true,
            ),
            (
                Code(1),
                false,
                &[
                    "  File \"/comfy/utils/extra_config.py\", line 24, in load_extra_path_config",
                    "    for y in conf[x].split(\"\\n\"):",
                    "TypeError: string indices must be integers, not 'str'",
                ],
                "into a section",
                true,
            ),
            (
                Signal(11),
                true,
                &[
                    "Fatal Python error: Segmentation fault",
                    "",
                    "Current thread 0x00007f (most recent call first):",
                    "  File \"/comfy/custom_nodes/odd-pack/a.py\", line 7 in run",
                    "  File \"/comfy/execution.py\", line 9 in f",
                ],
                "custom node \"odd-pack\" (/comfy/custom_nodes/odd-pack/a.py, line 7 in run)",
                false,
            ),
            (
                Code(1),
                true,
                &["Error: this sentence: is no exception"],
                "Error: this sentence",
                false,
            ),
        ];
        for (exit, was_ready, lines, part, permanent) in table {
            let explanation = explain_exit(*exit, *was_ready, lines);
            assert!(
                explanation.text.contains(part),
                "{lines:?}: {}",
                explanation.text
            );
            assert_eq!(explanation.permanent, *permanent, "{lines:?}");
        }
    }

    #[test]
    fn an_exception_that_was_survived_long_ago_is_not_blamed() {
        let mut lines = vec!["ModuleNotFoundError: No module named 'torchaudio'"];
        lines.extend(std::iter::repeat_n("Loading something", 20));
        let explanation = explain_exit(ProcessExit::Code(1), false, &lines);
        assert_eq!(explanation.text, "ComfyUI did not start (exit code 1).");
    }
}
