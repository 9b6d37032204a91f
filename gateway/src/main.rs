//! `sentineld`: the gateway without a window.

use sentinel_gateway::{cli, supervisor};
use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything else: the guard of an engine is this program too, and must stay small.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|argument| argument == supervisor::GUARD_SUBCOMMAND)
    {
        return supervisor::guard_main();
    }
    cli::main()
}
