//! Unix: the engine runs under a guard process, which is told what to do through a socket.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::{BoxFuture, GuardCommand, ProcessControl, ProcessExit, RunningProcess, SpawnError};
use crate::supervisor::guard::{Event, Order, Plan, send_order};
use crate::supervisor::launch::LaunchPlan;

/// How long a guard may take to start the engine. Long, as programs may lie on a slow disk.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a guard may take to read its orders, which fit the socket's buffer as a rule.
const ORDER_LIMIT: Duration = Duration::from_secs(10);
/// How long a guard may take to end after it has nothing left to guard. It gives up itself
/// before that.
const GUARD_END_LIMIT: Duration = Duration::from_secs(13);
/// A line of the guard is never longer.
const EVENT_LIMIT: usize = 64 * 1024;
const TERMINATE: &[u8] = &[crate::supervisor::guard::TERMINATE];
const KILL: &[u8] = &[crate::supervisor::guard::KILL];

pub(super) async fn spawn(
    guard: &GuardCommand,
    plan: &LaunchPlan,
) -> Result<RunningProcess, SpawnError> {
    let (mut child, orders, mut events) = start_guard(guard, plan).map_err(SpawnError::System)?;
    let started = tokio::time::timeout(START_LIMIT, events.next()).await;
    let (pid, sandbox) = match started {
        Ok(Some(Event::Started { pid, sandbox })) => (pid, sandbox),
        Ok(Some(Event::NotStarted {
            permanent: true,
            reason,
        })) => {
            return Err(SpawnError::Program {
                program: plan.program.clone(),
                reason,
            });
        }
        Ok(Some(Event::NotStarted { reason, .. })) => {
            return Err(SpawnError::System(io::Error::other(reason)));
        }
        Ok(Some(Event::Confined(_) | Event::Exited(_) | Event::Signalled(_)) | None) => {
            return Err(SpawnError::System(io::Error::other(
                "the guard process failed",
            )));
        }
        Err(_) => return Err(SpawnError::System(io::ErrorKind::TimedOut.into())),
    };
    let missing = || SpawnError::System(io::Error::other("the engine has no output pipe"));
    Ok(RunningProcess {
        pid: Some(pid),
        sandbox,
        output: Box::new(child.stdout.take().ok_or_else(missing)?),
        errors: Box::new(child.stderr.take().ok_or_else(missing)?),
        control: Box::new(Guarded {
            child,
            pid,
            orders,
            events,
            exit: None,
            gone: None,
        }),
    })
}

fn start_guard(guard: &GuardCommand, plan: &LaunchPlan) -> io::Result<(Child, StdStream, Events)> {
    let (mut ours, theirs) = StdStream::pair()?;
    let mut command = Command::new(&guard.program);
    command
        .args(&guard.arguments)
        .arg0(OsStr::new("engine-guard"))
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A Ctrl-C in our terminal is for us alone; we end the engine in good order.
        .process_group(0);
    for name in &plan.removed_environment {
        command.env_remove(name);
    }
    let child = command.spawn()?;
    // Its end of the socket must not stay open here, or a dead guard would go unnoticed.
    drop(command);
    ours.set_write_timeout(Some(ORDER_LIMIT))?;
    let stage = (guard.program.clone(), guard.arguments.clone());
    send_order(&mut ours, &Order::Guard(Plan::new(plan, stage)))?;
    ours.set_nonblocking(true)?;
    let events = Events {
        reader: BufReader::new(UnixStream::from_std(ours.try_clone()?)?),
        line: Vec::new(),
    };
    Ok((child, ours, events))
}

/// The guard's side of the conversation.
struct Events {
    reader: BufReader<UnixStream>,
    /// What a cancelled read has left behind.
    line: Vec<u8>,
}

impl Events {
    /// The next event; `None` when the guard is gone or talks nonsense. Safe to cancel.
    async fn next(&mut self) -> Option<Event> {
        let read = self.reader.read_until(b'\n', &mut self.line).await;
        let event = match read {
            Ok(1..) if self.line.len() <= EVENT_LIMIT => serde_json::from_slice(&self.line).ok(),
            Ok(_) | Err(_) => None,
        };
        self.line.clear();
        event
    }
}

struct Guarded {
    child: Child,
    pid: u32,
    orders: StdStream,
    events: Events,
    /// What the guard said about the engine itself.
    exit: Option<ProcessExit>,
    /// Set once everything is gone.
    gone: Option<ProcessExit>,
}

impl Guarded {
    fn order(&mut self, order: &[u8]) {
        // One byte always finds room; an error means that the guard is gone, which `wait` sees.
        if let Err(error) = self.orders.write_all(order) {
            tracing::debug!(%error, "the guard takes no more orders");
        }
    }

    async fn wait_until_gone(&mut self) -> ProcessExit {
        if let Some(exit) = self.gone {
            return exit;
        }
        if self.exit.is_none() {
            self.exit = match self.events.next().await {
                Some(Event::Exited(code)) => Some(ProcessExit::Code(code)),
                Some(Event::Signalled(signal)) => Some(ProcessExit::Signal(signal)),
                Some(_) | None => {
                    tracing::warn!("the engine's guard process died");
                    self.kill_group();
                    Some(ProcessExit::Unknown)
                }
            };
        }
        match tokio::time::timeout(GUARD_END_LIMIT, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => {}
            Ok(_) => tracing::warn!("processes of the engine may be left"),
            Err(_) => {
                tracing::warn!("the engine's guard process does not end, killing it");
                if let Err(error) = self.child.start_kill() {
                    tracing::warn!(%error, "the engine's guard process could not be killed");
                }
            }
        }
        let exit = self.exit.unwrap_or(ProcessExit::Unknown);
        self.gone = Some(exit);
        exit
    }

    /// Does without the guard what can be done without it.
    fn kill_group(&self) {
        if let Ok(pid) = i32::try_from(self.pid) {
            let _already_gone = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

impl ProcessControl for Guarded {
    fn terminate(&mut self) {
        self.order(TERMINATE);
    }

    fn kill(&mut self) {
        self.order(KILL);
    }

    fn wait(&mut self) -> BoxFuture<'_, ProcessExit> {
        Box::pin(self.wait_until_gone())
    }
}
