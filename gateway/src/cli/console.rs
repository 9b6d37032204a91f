//! The only place that prints.

use std::io::{BufRead, IsTerminal, Write};

/// A line for people and scripts.
pub(super) fn say(line: &str) {
    let mut output = std::io::stdout().lock();
    // A closed pipe is no reason to fail.
    let _ = writeln!(output, "{line}").and_then(|()| output.flush());
}

/// A line about what went wrong.
pub(super) fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Asks a question at a terminal and returns the line that is typed.
pub(super) fn ask(question: &str) -> anyhow::Result<String> {
    let mut output = std::io::stderr();
    let _ = write!(output, "{question}").and_then(|()| output.flush());
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(line)
}

/// Asks for a password at a terminal, where the system lets us without showing it, else reads a line
/// of standard input.
pub(super) fn read_password() -> anyhow::Result<String> {
    let is_terminal = std::io::stdin().is_terminal();
    let hidden = is_terminal.then(HiddenInput::begin).flatten();
    if is_terminal {
        complain(if hidden.is_some() {
            "Password (it is not shown):"
        } else {
            "Password (it is shown as you type):"
        });
    }
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let password = line.trim_end_matches(['\r', '\n']);
    anyhow::ensure!(!password.is_empty(), "no password was given");
    Ok(password.to_owned())
}

/// While it lives the terminal does not show what is typed.
struct HiddenInput {
    #[cfg(unix)]
    before: nix::sys::termios::Termios,
}

impl HiddenInput {
    #[cfg(unix)]
    fn begin() -> Option<Self> {
        use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
        let before = tcgetattr(std::io::stdin()).ok()?;
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(std::io::stdin(), SetArg::TCSANOW, &quiet).ok()?;
        Some(Self { before })
    }

    #[cfg(not(unix))]
    fn begin() -> Option<Self> {
        None
    }
}

impl Drop for HiddenInput {
    fn drop(&mut self) {
        #[cfg(unix)]
        {
            use nix::sys::termios::{SetArg, tcsetattr};
            let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, &self.before);
        }
    }
}
