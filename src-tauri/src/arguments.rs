//! What the command line takes.

use clap::Parser;
use sentinel_gateway::cli::RunOptions;

/// ComfyUI behind a guarded door, with a tray and a window.
#[derive(Clone, Debug, Parser)]
#[command(name = "comfyui-sentinel", version, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) run: RunOptions,
    /// Wait in the tray, without a window
    #[arg(long)]
    pub(crate) hidden: bool,
}
