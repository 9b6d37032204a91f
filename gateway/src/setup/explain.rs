//! Why an installation failed, in plain words, told from what was printed.

use crate::supervisor::ProcessExit;

/// What is looked for in lower-case lines, and what it means; the first that is found counts.
const RULES: &[(&[&str], &str)] = &[
    (
        &[
            "no space left on device",
            "not enough space on the disk",
            "disk quota exceeded",
        ],
        "The disk is full. ComfyUI with PyTorch needs about 15 GB.",
    ),
    (
        &[
            "could not resolve host",
            "temporary failure in name resolution",
            "name or service not known",
            "getaddrinfo failed",
            "nodename nor servname",
            "network is unreachable",
            "failed to connect",
            "couldn't connect to server",
            "connection timed out",
            "newconnectionerror",
            "unable to access",
        ],
        "Something could not be downloaded. Is this computer connected to the internet, and may it reach \
         github.com, pypi.org and download.pytorch.org?",
    ),
    (
        &[
            "ssl certificate problem",
            "certificate_verify_failed",
            "certificate verify failed",
        ],
        "The connection to the internet is not trusted: a certificate could not be checked. A virus scanner or a \
         company's proxy may be in between, or the clock is wrong.",
    ),
    (
        &[
            "permission denied",
            "access is denied",
            "read-only file system",
        ],
        "The folder may not be written to. Please choose another one.",
    ),
    (
        &[
            "no matching distribution found",
            "could not find a version that satisfies",
        ],
        "A package is not there for this Python or this computer.",
    ),
    (
        &["memoryerror", "cannot allocate memory", "out of memory"],
        "The computer ran out of memory.",
    ),
    (
        &["long path", "filename too long", "file name too long"],
        "The folder's name is too long. Please choose one closer to the top, such as C:\\AI.",
    ),
];

/// One or two sentences about a step that failed.
pub(super) fn explain(step: &str, exit: ProcessExit, lines: &[String]) -> String {
    let known = RULES.iter().find(|(words, _)| {
        lines.iter().any(|line| {
            let line = line.to_ascii_lowercase();
            words.iter().any(|word| line.contains(word))
        })
    });
    if let Some((_, meaning)) = known {
        return format!("\"{step}\" did not succeed. {meaning}");
    }
    let how = match exit {
        ProcessExit::Code(code) => format!("exit code {code}"),
        ProcessExit::Signal(signal) => format!("signal {signal}"),
        ProcessExit::Unknown => "no exit code".to_owned(),
    };
    format!("\"{step}\" did not succeed ({how}). The log below tells more.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        for (line, words) in [
            (
                "fatal: unable to access 'https://example.org/x/': Could not resolve host: example.org",
                "connected to the internet",
            ),
            ("ERROR: [Errno 28] No space left on device", "disk is full"),
            (
                "ERROR: No matching distribution found for torch",
                "not there for this Python",
            ),
            (
                "PermissionError: [Errno 13] Permission denied: '/x'",
                "may not be written",
            ),
            ("SSL certificate problem: self-signed", "not trusted"),
            ("something else", "exit code 3"),
        ] {
            let lines = ["Collecting torch".to_owned(), line.to_owned()];
            let text = explain("Installing", ProcessExit::Code(3), &lines);
            assert!(text.contains(words), "{text}");
            assert!(text.starts_with("\"Installing\""));
        }
    }
}
