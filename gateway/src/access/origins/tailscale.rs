//! The name that Tailscale gives this machine in its network, asked of its program where there is
//! one. That very name is taken, never all names below `ts.net`: those of others end so too.

use super::ReportedNames;
use crate::platform::without_window;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

/// Between two questions: a machine is renamed, or Tailscale installed, while we run.
const ASK_INTERVAL: Duration = Duration::from_secs(60);
/// The program answers at once, or waits for a service that hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of an answer that are read.
const MAX_ANSWER: u64 = 1024 * 1024;
/// Where installers put the program without naming it in `PATH`.
const PLACES: &[&str] = if cfg!(windows) {
    &["C:\\Program Files\\Tailscale\\tailscale.exe"]
} else if cfg!(target_os = "macos") {
    &[
        "/Applications/Tailscale.app/Contents/MacOS/Tailscale",
        "/usr/local/bin/tailscale",
        "/opt/homebrew/bin/tailscale",
    ]
} else {
    &["/usr/bin/tailscale", "/usr/sbin/tailscale"]
};

/// What of `tailscale status --json` concerns us.
#[derive(Debug, Deserialize)]
struct Status {
    #[serde(rename = "Self")]
    this_machine: Option<Machine>,
}

#[derive(Debug, Deserialize)]
struct Machine {
    #[serde(rename = "DNSName", default)]
    dns_name: String,
}

/// Keeps `names` at what Tailscale reports, until `stopping`.
pub(crate) async fn follow(names: ReportedNames, stopping: CancellationToken) {
    let mut ask_again = interval(ASK_INTERVAL);
    ask_again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            _ = ask_again.tick() => {}
        }
        let Some(program) = find() else {
            names.replace([]);
            continue;
        };
        let asked = tokio::select! {
            () = stopping.cancelled() => return,
            asked = ask(&program) => asked,
        };
        // Silence says nothing about the name, so the known one stays.
        if let Some(answer) = asked {
            let reported = names_in(&answer);
            if names.replace(reported.clone()) {
                tracing::info!(names = ?reported, "Tailscale reports these names for this machine");
            }
        }
    }
}

fn find() -> Option<PathBuf> {
    let program = format!("tailscale{}", std::env::consts::EXE_SUFFIX);
    let in_path = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path)
            .map(|folder| folder.join(&program))
            .find(|path| path.is_file())
    });
    in_path.or_else(|| PLACES.iter().map(PathBuf::from).find(|path| path.is_file()))
}

async fn ask(program: &Path) -> Option<String> {
    let mut command = Command::new(program);
    command
        .args(["status", "--json", "--peers=false"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    without_window(&mut command);
    let asked = async {
        let mut child = command.spawn().ok()?;
        let mut answer = String::new();
        let output = child.stdout.take()?;
        output
            .take(MAX_ANSWER)
            .read_to_string(&mut answer)
            .await
            .ok()?;
        child.wait().await.ok()?.success().then_some(answer)
    };
    let answered = timeout(ANSWER_TIMEOUT, asked).await.ok().flatten();
    if answered.is_none() {
        tracing::debug!("Tailscale did not say what it calls this machine");
    }
    answered
}

/// The machine's whole name, and its first label, by which the network's own machines call it.
fn names_in(answer: &str) -> Vec<String> {
    let name = serde_json::from_str::<Status>(answer)
        .ok()
        .and_then(|status| status.this_machine)
        .map(|machine| machine.dns_name)
        .unwrap_or_default();
    let name = name.trim_end_matches('.');
    let is_host_name = name.split('.').all(|label| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    });
    match name.split_once('.') {
        Some((first, _)) if is_host_name => vec![name.to_owned(), first.to_owned()],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The form in which `tailscale status --json` answers, with invented names; it also tells of
    /// other machines where it is not told to leave them out.
    const RECORDED: &str = r#"{
      "Version": "1.78.1-t61c1d4e2d-g5d3cb1bd3",
      "TUN": true,
      "BackendState": "Running",
      "HaveNodeKey": true,
      "AuthURL": "",
      "TailscaleIPs": ["100.101.102.103", "fd7a:115c:a1e0::7201:6667"],
      "Self": {
        "ID": "nAbCdEfGhI11CNTRL",
        "PublicKey": "nodekey:0000000000000000000000000000000000000000000000000000000000000000",
        "HostName": "Studio PC",
        "DNSName": "studio-pc.tail1a2b3c.ts.net.",
        "OS": "linux",
        "UserID": 1234567890123456,
        "TailscaleIPs": ["100.101.102.103", "fd7a:115c:a1e0::7201:6667"],
        "Online": true,
        "CapMap": {"https": null, "ssh": null}
      },
      "Health": [],
      "MagicDNSSuffix": "tail1a2b3c.ts.net",
      "CurrentTailnet": {
        "Name": "somebody@example.org",
        "MagicDNSSuffix": "tail1a2b3c.ts.net",
        "MagicDNSEnabled": true
      },
      "CertDomains": ["studio-pc.tail1a2b3c.ts.net"],
      "Peer": {
        "nodekey:1111111111111111111111111111111111111111111111111111111111111111": {
          "HostName": "other",
          "DNSName": "other.tail1a2b3c.ts.net.",
          "TailscaleIPs": ["100.101.102.104"],
          "Online": true
        }
      },
      "User": null,
      "ClientVersion": {"RunningLatest": true}
    }"#;

    #[test]
    fn the_own_name_is_found_and_no_other() {
        assert_eq!(
            names_in(RECORDED),
            ["studio-pc.tail1a2b3c.ts.net", "studio-pc"]
        );
        for nothing in [
            "",
            "not JSON",
            "{}",
            r#"{"Self": null, "BackendState": "NeedsLogin"}"#,
            r#"{"Self": {"HostName": "pc"}}"#,
            r#"{"Self": {"DNSName": ""}}"#,
            r#"{"Self": {"DNSName": "pc"}}"#,
            r#"{"Self": {"DNSName": "*.ts.net."}}"#,
            r#"{"Self": {"DNSName": "pc..ts.net"}}"#,
        ] {
            assert!(names_in(nothing).is_empty(), "{nothing}");
        }
    }

    #[test]
    fn reported_names_count_at_once_and_go_with_the_report() {
        let reported = ReportedNames::default();
        let names = super::super::HostNames::new("", "", &[], reported.clone());
        assert!(!names.contains("studio-pc.tail1a2b3c.ts.net"));
        assert!(reported.replace(names_in(RECORDED)));
        assert!(!reported.replace(names_in(RECORDED)));
        assert!(names.contains("Studio-PC.tail1a2b3c.ts.net."));
        assert!(!names.contains("other.tail1a2b3c.ts.net"));
        assert!(reported.replace([]));
        assert!(!names.contains("studio-pc.tail1a2b3c.ts.net"));
    }
}
