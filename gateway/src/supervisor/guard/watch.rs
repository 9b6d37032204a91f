//! The guard proper: one small event loop over the gateway's socket, the engine's end and signals.

use std::io::{self, BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};

use super::protocol::{Event, KILL, Order, Plan, TERMINATE, event_line, is_permanent, send_order};
use super::tree;
use crate::sandbox::SandboxReport;

/// What `ps` and `killall` show, so that `killall sentineld` leaves the guards to do their work.
#[cfg(target_os = "linux")]
const PROCESS_NAME: &str = "engine-guard";

/// Runs until the engine's tree is gone.
pub(super) fn guard(plan: Plan, socket: StdStream) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build();
    let done = runtime.and_then(|runtime| runtime.block_on(watch(plan, socket)));
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}

/// `Ok(false)` when processes are left that even a kill did not end.
async fn watch(plan: Plan, socket: StdStream) -> io::Result<bool> {
    name_and_adopt();
    // Before the engine starts, so that its end cannot be missed.
    let mut children = signal(SignalKind::child())?;
    let mut signals = [
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
        signal(SignalKind::hangup())?,
    ];
    socket.set_nonblocking(true)?;
    let mut gateway = UnixStream::from_std(socket)?;

    let (engine, sandbox) = match start(plan) {
        Ok(started) => started,
        Err(event) => {
            tell(&mut gateway, &event).await;
            tree::reap(|_| ());
            return Ok(true);
        }
    };
    tell(
        &mut gateway,
        &Event::Started {
            pid: engine.as_raw().unsigned_abs(),
            sandbox,
        },
    )
    .await;

    let mut end = None;
    let mut order = [0];
    loop {
        tokio::select! {
            _ = children.recv() => {
                tree::reap(|status| note_end(&mut end, engine, status));
                if end.is_some() {
                    break;
                }
            }
            read = gateway.read(&mut order) => match read {
                Ok(1..) if order[0] == TERMINATE => ask_to_end(engine),
                Ok(1..) if order[0] == KILL => break,
                Ok(1..) => {}
                // The gateway is gone.
                Ok(0) | Err(_) => break,
            },
            () = any(&mut signals) => ask_to_end(engine),
        }
    }
    if let Some(event) = &end {
        tell(&mut gateway, event).await;
    }
    let told = end.is_some();
    let cleared = tree::clear(engine, |status| note_end(&mut end, engine, status));
    if !told && let Some(event) = &end {
        tell(&mut gateway, event).await;
    }
    Ok(cleared)
}

/// Takes a name of its own and becomes the parent of every orphan below it.
#[cfg(target_os = "linux")]
fn name_and_adopt() {
    use nix::sys::prctl;
    if let Ok(name) = std::ffi::CString::new(PROCESS_NAME) {
        // Only cosmetic.
        let _unnamed = prctl::set_name(&name);
    }
    // Since Linux 3.4; without it the process group is still reached.
    let _unsupported = prctl::set_child_subreaper(true);
}

#[cfg(not(target_os = "linux"))]
fn name_and_adopt() {}

/// Starts the stage and waits until it has become the engine.
fn start(mut plan: Plan) -> Result<(Pid, SandboxReport), Event> {
    let (pid, answer) = start_stage(&mut plan).map_err(|error| Event::NotStarted {
        permanent: is_permanent(&error),
        reason: error.to_string(),
    })?;
    // The stage says how it is confined and then falls silent, or why it failed.
    let mut report = None;
    for line in BufReader::new(answer).lines() {
        let line = line.map_err(|_| unclear())?;
        match serde_json::from_str(&line).map_err(|_| unclear())? {
            Event::Confined(told) => report = Some(told),
            failed => return Err(failed),
        }
    }
    Ok((pid, report.ok_or_else(unclear)?))
}

fn unclear() -> Event {
    Event::NotStarted {
        permanent: false,
        reason: "its first stage failed".to_owned(),
    }
}

fn start_stage(plan: &mut Plan) -> io::Result<(Pid, StdStream)> {
    let (mut ours, theirs) = StdStream::pair()?;
    let (program, arguments) = std::mem::take(&mut plan.stage);
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .process_group(0)
        .spawn()?;
    plan.guard = std::process::id();
    let plan = Plan {
        program: std::mem::take(&mut plan.program),
        arguments: std::mem::take(&mut plan.arguments),
        working_directory: std::mem::take(&mut plan.working_directory),
        environment: std::mem::take(&mut plan.environment),
        removed_environment: std::mem::take(&mut plan.removed_environment),
        stage: Default::default(),
        guard: plan.guard,
        sandbox: plan.sandbox.take(),
    };
    send_order(&mut ours, &Order::Become(plan))?;
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    Ok((Pid::from_raw(pid), ours))
}

fn note_end(end: &mut Option<Event>, engine: Pid, status: WaitStatus) {
    match status {
        WaitStatus::Exited(pid, code) if pid == engine => *end = Some(Event::Exited(code)),
        WaitStatus::Signaled(pid, signal, _) if pid == engine => {
            *end = Some(Event::Signalled(signal as i32));
        }
        _ => {}
    }
}

/// Called only while the engine is unreaped, so the group is still its own.
fn ask_to_end(engine: Pid) {
    let _already_gone = killpg(engine, Signal::SIGTERM);
}

async fn any(signals: &mut [SignalStream; 3]) {
    let [terminate, interrupt, hangup] = signals;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = hangup.recv() => {}
    }
}

/// A gateway that is gone need not be told.
async fn tell(gateway: &mut UnixStream, event: &Event) {
    if let Ok(line) = event_line(event) {
        let _gone = gateway.write_all(&line).await;
    }
}
