//! A hostile node for tests of what an engine is kept from: tries what it is told to and says what
//! happened. The same as the Python one of the tests, as far as it goes without system calls. It
//! works only with the fault `hostile-node`.

use super::{Call, Failure, Outcome};
use crate::json::json;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Class of the node.
pub(super) const CLASS: &str = "SentinelProbe";

const LIMIT: Duration = Duration::from_secs(5);
const EPERM: i32 = 1;
const EACCES: i32 = 13;

/// Leaves a process in a session of its own that ignores SIGTERM and writes its id.
const RUNAWAY: &str = r#"(setsid sh -c 'trap "" TERM; echo $$ > "$0"; while :; do sleep 1000; done' "$0" > /dev/null 2>&1 &)"#;

pub(super) fn run(call: &mut Call<'_>) -> Result<Outcome, Failure> {
    if !call.engine.options.faults.hostile_node {
        return Err(Failure::Raised(
            "PermissionError",
            "the fault hostile-node is off".to_owned(),
        ));
    }
    let attempts = call.text("attempts");
    let answers: Vec<String> = attempts
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| {
            let answer = format!("{line}: {}", attempt(line));
            call.engine.say(&answer);
            answer
        })
        .collect();
    Ok(Outcome::shown(json!({ "text": answers })))
}

fn attempt(line: &str) -> String {
    let (action, argument) = line.split_once(' ').unwrap_or((line, ""));
    match act(action, argument) {
        Ok(told) if told.is_empty() => "ok".to_owned(),
        Ok(told) => format!("ok {told}"),
        // Worded as Python does, as people read it in the log.
        Err(error) if error.raw_os_error() == Some(EACCES) => {
            format!("refused EACCES [Errno 13] Permission denied: '{argument}'")
        }
        Err(error) if error.raw_os_error() == Some(EPERM) => {
            format!("refused EPERM [Errno 1] Operation not permitted: '{argument}'")
        }
        Err(error) => format!("failed {error}"),
    }
}

fn act(action: &str, argument: &str) -> io::Result<String> {
    let done = |()| String::new();
    match action {
        "list" => fs::read_dir(argument).map(|entries| format!("{} entries", entries.count())),
        "read" => {
            let mut start = Vec::new();
            File::open(argument)?.take(4096).read_to_end(&mut start)?;
            Ok(format!("{} bytes", start.len()))
        }
        "write" => File::create(argument)?.write_all(b"hostile").map(done),
        "append" => OpenOptions::new()
            .append(true)
            .open(argument)
            .map(|_| String::new()),
        "remove" => fs::remove_file(argument).map(done),
        "connect" => {
            let address = SocketAddr::from(([127, 0, 0, 1], port(argument)?));
            TcpStream::connect_timeout(&address, LIMIT).map(|_| String::new())
        }
        "listen" => TcpListener::bind(("127.0.0.1", port(argument)?)).map(|_| String::new()),
        "connect-file" => connect_file(argument).map(done),
        "signal" => shell("kill -CONT \"$0\"", argument).map(done),
        "run" => shell("exec $0", argument).map(done),
        "fork-away" => shell(RUNAWAY, argument).map(done),
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

fn port(text: &str) -> io::Result<u16> {
    text.parse().map_err(io::Error::other)
}

fn shell(program: &str, argument: &str) -> io::Result<()> {
    let output = Command::new("sh")
        .args(["-c", program, argument])
        .stdin(Stdio::null())
        .output()?;
    let words = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        Ok(())
    } else if words.contains("not permitted") {
        Err(io::Error::from_raw_os_error(EPERM))
    } else if words.contains("denied") {
        Err(io::Error::from_raw_os_error(EACCES))
    } else {
        Err(io::Error::other(words.trim().to_owned()))
    }
}

#[cfg(unix)]
fn connect_file(path: &str) -> io::Result<()> {
    std::os::unix::net::UnixStream::connect(path).map(|_| ())
}

#[cfg(not(unix))]
fn connect_file(_path: &str) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
