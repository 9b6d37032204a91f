//! The log: to the console, to a file for each day and to a ring in memory, filtered by `log_levels`.

mod file;
mod ring;

pub(crate) use ring::ring;

use crate::config::{Config, LogLevel};
use std::path::Path;
use tracing::{Level, Metadata};
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Starts logging; the guard writes what waits when it is dropped.
pub(crate) fn start(config: &Config, directory: &Path) -> anyhow::Result<WorkerGuard> {
    let file = file::DailyFile::open(&directory.join(&config.log))?;
    let (writer, guard) = tracing_appender::non_blocking(file);
    let levels = config.log_levels.clone();
    let is_wanted = move |metadata: &Metadata<'_>| wants(&levels, metadata.level());
    let max = if config.log_levels.contains(&LogLevel::Debug) {
        Level::DEBUG
    } else {
        Level::INFO
    };
    let file = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(writer);
    let console = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false);
    let filter = filter_fn(is_wanted).with_max_level_hint(max);
    tracing_subscriber::registry()
        .with(
            file.and_then(console)
                .and_then(ring::RingLayer::default())
                .with_filter(filter),
        )
        .try_init()?;
    Ok(guard)
}

/// Starts logging to the console alone, for a command that has no data directory.
pub(crate) fn start_on_console() -> anyhow::Result<()> {
    let console = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .with_filter(tracing_subscriber::filter::LevelFilter::INFO);
    tracing_subscriber::registry().with(console).try_init()?;
    Ok(())
}

/// The listed levels; what is broken or odd is always written.
fn wants(levels: &[LogLevel], level: &Level) -> bool {
    match *level {
        Level::ERROR | Level::WARN => true,
        Level::INFO => levels.contains(&LogLevel::Info) || levels.contains(&LogLevel::Debug),
        Level::DEBUG => levels.contains(&LogLevel::Debug),
        _ => false,
    }
}
