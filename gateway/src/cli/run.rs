//! `sentineld run`.

use super::arguments::RunOptions;
use super::console::say;
use super::{open_config, open_data};
use crate::config::{ConfigFile, Settings};
use crate::files::DataDirectory;
use crate::log;
use crate::{Gateway, GatewayError};
use std::net::SocketAddr;
use std::process::ExitCode;
use tokio::signal::ctrl_c;
use tracing_appender::non_blocking::WorkerGuard;

impl RunOptions {
    /// Opens the data directory, making it if need be.
    ///
    /// # Errors
    /// When there is no place for one, or it cannot be used.
    pub fn open_data(&self) -> Result<DataDirectory, GatewayError> {
        open_data(&self.place)
    }

    /// Reads the settings and starts the log, which is written out when the second value is
    /// dropped.
    ///
    /// # Errors
    /// When the settings have faults or the log cannot be written.
    pub fn open_config(&self, data: &DataDirectory) -> anyhow::Result<(ConfigFile, WorkerGuard)> {
        let mut place = self.place.clone();
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        if let Some(directory) = &self.comfyui {
            place.set.push(format!("comfyui.dir={}", quoted(directory)));
        }
        if let Some(python) = &self.python {
            place.set.push(format!("comfyui.python={}", quoted(python)));
        }
        let config = open_config(&place, data)?;
        let log = log::start(&config.current(), &data.logs())?;
        Ok((config, log))
    }
}

impl RunOptions {
    /// Whether the port is given on the command line, which wins over the settings.
    pub fn fixes_port(&self) -> bool {
        let is_port = |assignment: &String| assignment.starts_with("sharing.port=");
        self.listen.is_some() || self.place.set.iter().any(is_port)
    }

    /// Writes another port to the settings.
    ///
    /// # Errors
    /// When the settings have faults or cannot be written.
    pub fn write_port(&self, port: u16) -> anyhow::Result<()> {
        let data = self.open_data()?;
        let config = open_config(&self.place, &data)?;
        let mut settings = Settings::default();
        settings.set(&format!("sharing.port={port}"))?;
        config.change(&settings)?;
        Ok(())
    }
}

/// Runs until Ctrl-C or SIGTERM; a second one hurries ComfyUI.
pub(super) fn run(options: &RunOptions) -> anyhow::Result<ExitCode> {
    let data = options.open_data()?;
    let (config, _log) = options.open_config(&data)?;
    // The workers have runtimes of their own; this one only watches, so one thread is enough.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let gateway = Gateway::start(&data, config, options.listen).map_err(|error| {
            let way_out = way_out(&error, options.listen);
            match way_out {
                Some(way_out) => anyhow::Error::new(error).context(way_out),
                None => error.into(),
            }
        })?;
        let status = gateway.status();
        say(&format!("Sentinel is ready at {}", status.local_url));
        for address in status.listening.iter().filter(|address| !address.ip().is_loopback()) {
            tracing::info!(%address, "listening");
        }
        if let Some(code) = &status.setup_code {
            say(&format!("Set-up code: {code}"));
            say("Open the address to make the first account. From another device it asks for the code.");
        }
        asked_to_stop().await?;
        say("Stopping ComfyUI and Sentinel. Once more to hurry.");
        let hurry = gateway.hurrier();
        let stop = gateway.stop();
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                asked = asked_to_stop() => {
                    asked?;
                    hurry();
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// How to start nevertheless when another program holds the port.
fn way_out(error: &GatewayError, listen: Option<SocketAddr>) -> Option<String> {
    let free = error.taken_port()?.next_free?;
    Some(match listen {
        Some(listen) => format!(
            "cannot start: end that program, or start with --listen {}",
            SocketAddr::new(listen.ip(), free)
        ),
        None => format!(
            "cannot start: end that program, or start with --set sharing.port={free} (in config.json: \"sharing\": {{\"port\": {free}}})"
        ),
    })
}

/// Resolves when the person or the system wants this program to end.
#[cfg(unix)]
pub(super) async fn asked_to_stop() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::select! {
        result = ctrl_c() => result,
        _ = terminate.recv() => Ok(()),
        _ = hang_up.recv() => Ok(()),
    }
}

/// Also waits for a closed console and the end of the session, of which the system gives notice.
#[cfg(windows)]
pub(super) async fn asked_to_stop() -> std::io::Result<()> {
    use tokio::signal::windows::{ctrl_break, ctrl_close, ctrl_logoff, ctrl_shutdown};
    let (mut interrupt, mut close) = (ctrl_break()?, ctrl_close()?);
    let (mut logoff, mut shutdown) = (ctrl_logoff()?, ctrl_shutdown()?);
    tokio::select! {
        result = ctrl_c() => result,
        _ = interrupt.recv() => Ok(()),
        _ = close.recv() => Ok(()),
        _ = logoff.recv() => Ok(()),
        _ = shutdown.recv() => Ok(()),
    }
}
