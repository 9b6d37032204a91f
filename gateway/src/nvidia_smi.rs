//! What `nvidia-smi` tells of NVIDIA's cards, where it is installed.

use crate::platform::without_window;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

/// The program answers in well under a second, but hangs with a broken driver.
const TIME_LIMIT: Duration = Duration::from_secs(3);

/// Why it told nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NvidiaSmiError {
    #[error("nvidia-smi does not start")]
    NotStarted(#[from] std::io::Error),
    #[error("nvidia-smi does not answer")]
    Silent,
    #[error("nvidia-smi knows no card")]
    NoCard,
}

/// Asks the program of the `PATH` with a `query` such as `--query-gpu=name`: a line for each card or
/// process, values with commas between them, without units.
pub(crate) async fn ask(query: &str) -> Result<String, NvidiaSmiError> {
    let mut command = Command::new("nvidia-smi");
    command
        .args([query, "--format=csv,noheader,nounits"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    without_window(&mut command);
    let output = timeout(TIME_LIMIT, command.output())
        .await
        .map_err(|_| NvidiaSmiError::Silent)??;
    if !output.status.success() {
        return Err(NvidiaSmiError::NoCard);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
