//! What the command line takes.

use clap::{Args, Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Login, address filter and HTTPS in front of ComfyUI.
///
/// Sentinel starts ComfyUI on a port that only it can reach, and lets people in who have signed in.
#[derive(Debug, Parser)]
#[command(name = "sentineld", version, max_term_width = 100)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Where settings and accounts are.
#[derive(Args, Clone, Debug, Default)]
pub struct Place {
    /// Folder for settings, accounts and logs
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// A setting of config.json for this run only, e.g. sharing.port=9000; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// What starts a gateway, with a window or without.
#[derive(Args, Clone, Debug, Default)]
pub struct RunOptions {
    /// Where settings and accounts are.
    #[command(flatten)]
    pub place: Place,
    /// Listen here instead of where the settings say, e.g. 0.0.0.0:8189
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// ComfyUI's folder (the one with main.py), or "demo"
    #[arg(long, value_name = "DIR")]
    pub comfyui: Option<String>,
    /// The Python that starts ComfyUI
    #[arg(long, value_name = "PROGRAM")]
    pub python: Option<String>,
}

/// A door on this computer to a Sentinel elsewhere.
#[derive(Args, Clone, Debug)]
pub(super) struct ConnectOptions {
    /// Address of Sentinel, as `https://studio.local:8189`
    #[arg(value_name = "URL")]
    pub(super) address: String,
    /// File with an API token without an admin's rights, closed to other accounts; "-" reads standard
    /// input. Without it the variable SENTINEL_TOKEN is read
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// Where programs on this computer reach ComfyUI; loopback only
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8188")]
    pub(super) listen: SocketAddr,
    /// SHA-256 of Sentinel's certificate, as its page /trust shows it; nothing else is trusted then
    #[arg(long, value_name = "SHA256")]
    pub(super) fingerprint: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Start the gateway and ComfyUI, until Ctrl-C
    Run(RunOptions),
    /// Check the settings and tell what is wrong or unsafe
    Check(Place),
    /// Open a door on this computer to a Sentinel elsewhere, for programs that know host and port alone
    ///
    /// It adds an API token to what they send. Every program and every account of this computer can
    /// use the door while it is open; web pages cannot.
    Connect(ConnectOptions),
    /// List the running ComfyUIs, stop or restart one, read its log
    Engines {
        #[command(flatten)]
        place: Place,
        #[command(subcommand)]
        action: Option<EngineAction>,
    },
    /// Add, change and list accounts, also when nobody remembers the admin's password
    User {
        #[command(flatten)]
        place: Place,
        #[command(subcommand)]
        action: UserAction,
    },
    /// Take over the accounts of the original extension's users_db.json
    Import {
        #[command(flatten)]
        place: Place,
        /// The original's users_db.json
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum EngineAction {
    /// List them, with user, state, memory and jobs
    List,
    /// Start the ComfyUI of a user, or "shared"
    Start { user: String },
    /// Stop it
    Stop { user: String },
    /// Stop and start it
    Restart { user: String },
    /// Print the end of its log
    Log {
        user: String,
        /// How many lines
        #[arg(long, default_value_t = 100)]
        lines: usize,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum UserAction {
    /// List all accounts
    List,
    /// Add an account; the password is asked for, or read from standard input
    Add {
        name: String,
        /// Make it an admin
        #[arg(long)]
        admin: bool,
    },
    /// Set a new password; it is asked for, or read from standard input
    Passwd { name: String },
    /// Delete an account; its files stay
    Remove { name: String },
    /// Make an account an admin
    Promote { name: String },
    /// Take an admin's rights away
    Demote { name: String },
    /// Shut an account out
    Disable { name: String },
    /// Let a disabled account in again
    Enable { name: String },
}
