//! Windows: the engine lives in a job object that is killed as a whole when its handle closes,
//! which the system does for us if we are killed.

use std::process::Stdio;
use std::time::Duration;

use process_wrap::tokio::{ChildWrapper, CommandWrap, CreationFlags, JobObject, KillOnDrop};
use windows::Win32::System::Threading::CREATE_NO_WINDOW;

use super::{BoxFuture, ProcessControl, ProcessExit, RunningProcess, SpawnError};
use crate::sandbox::{self, SandboxReport};
use crate::supervisor::launch::LaunchPlan;

/// How long the processes of a killed job may take to go.
const JOB_END_LIMIT: Duration = Duration::from_secs(10);

pub(super) fn spawn(plan: &LaunchPlan) -> Result<RunningProcess, SpawnError> {
    let mut command = CommandWrap::with_new(&plan.program, |command| {
        command
            .args(&plan.arguments)
            .current_dir(&plan.working_directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for name in &plan.removed_environment {
            command.env_remove(name);
        }
        command.envs(plan.environment.iter().map(|(name, value)| (name, value)));
    });
    // Without it the app would show a console window for each engine, and Ctrl-C at the console of
    // `sentineld` would reach the engine before we order its end.
    command
        .wrap(KillOnDrop)
        .wrap(CreationFlags(CREATE_NO_WINDOW))
        .wrap(JobObject);
    let sandbox = match &plan.sandbox {
        Some(plan) => sandbox::apply(plan),
        None => Ok(SandboxReport::off()),
    };
    let sandbox = sandbox.map_err(|error| SpawnError::Program {
        program: plan.program.clone(),
        reason: error.to_string(),
    })?;
    let mut child = command.spawn().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied => {
            SpawnError::Program {
                program: plan.program.clone(),
                reason: error.to_string(),
            }
        }
        _ => SpawnError::System(error),
    })?;
    let missing = || SpawnError::System(std::io::Error::other("the engine has no output pipe"));
    Ok(RunningProcess {
        pid: child.id(),
        sandbox,
        output: Box::new(child.stdout().take().ok_or_else(missing)?),
        errors: Box::new(child.stderr().take().ok_or_else(missing)?),
        control: Box::new(Job { child }),
    })
}

struct Job {
    child: Box<dyn ChildWrapper>,
}

impl ProcessControl for Job {
    // A console program without a console cannot be asked; ComfyUI keeps no state that a kill
    // would tear, its database is transactional.
    fn terminate(&mut self) {
        self.kill();
    }

    fn kill(&mut self) {
        if let Err(error) = self.child.start_kill() {
            tracing::warn!(%error, "the engine's job could not be killed");
        }
    }

    fn wait(&mut self) -> BoxFuture<'_, ProcessExit> {
        Box::pin(async {
            // Below the job is the leader alone. It is waited for first, as whatever it leaves
            // behind must not outlive it.
            let exit = match self.child.inner_mut().wait().await {
                Ok(status) => status
                    .code()
                    .map_or(ProcessExit::Unknown, ProcessExit::Code),
                Err(error) => {
                    tracing::warn!(%error, "the engine could not be waited for");
                    ProcessExit::Unknown
                }
            };
            self.kill();
            match tokio::time::timeout(JOB_END_LIMIT, self.child.wait()).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the engine's job could not be waited for");
                }
                Err(_) => tracing::warn!("processes of the engine may be left"),
            }
            exit
        })
    }
}
