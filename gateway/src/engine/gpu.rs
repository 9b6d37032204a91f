//! Which process has how much memory on NVIDIA cards, as `nvidia-smi` tells where it is installed.

use std::collections::HashMap;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

/// The program answers in well under a second, but hangs with a broken driver.
const TIME_LIMIT: Duration = Duration::from_secs(3);

/// Bytes by process id; empty where there is no such program or card.
pub(super) async fn memory_by_process() -> HashMap<u32, u64> {
    let mut command = Command::new("nvidia-smi");
    command
        .args([
            "--query-compute-apps=pid,used_memory",
            "--format=csv,noheader,nounits",
        ])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    match timeout(TIME_LIMIT, command.output()).await {
        Ok(Ok(output)) if output.status.success() => {
            parse(&String::from_utf8_lossy(&output.stdout))
        }
        _ => HashMap::new(),
    }
}

/// Lines such as `1234, 2048`: process and mebibytes. A process on two cards has two lines.
fn parse(text: &str) -> HashMap<u32, u64> {
    let mut memory = HashMap::new();
    for line in text.lines() {
        if let Some((process, mebibytes)) = line.split_once(',')
            && let (Ok(process), Ok(mebibytes)) = (
                process.trim().parse::<u32>(),
                mebibytes.trim().parse::<u64>(),
            )
        {
            *memory.entry(process).or_default() += mebibytes << 20;
        }
    }
    memory
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_nvidia_smi() {
        let text = "1234, 2048\n99, [N/A]\n1234, 1\n\nNo running processes found\n";
        assert_eq!(parse(text), HashMap::from([(1234, 2049 << 20)]));
        assert!(parse("").is_empty());
    }
}
