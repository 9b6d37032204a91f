//! Nothing of an engine's tree is left, whoever dies first.

use super::*;

#[tokio::test]
async fn stopping_takes_runaway_grandchildren_along() {
    let fixture = Fixture::python(RUNAWAY, quick());
    fixture.engine.start().await.unwrap();
    fixture.reaches(EngineState::Ready).await;
    let runaway = fixture.written_pid("runaway").await;
    assert!(alive(runaway));
    fixture.engine.stop().await.unwrap();
    fixture.reaches(EngineState::Stopped).await;
    assert!(!alive(runaway));
    fixture.supervisor.shutdown().await;
}

#[tokio::test]
async fn a_crash_takes_runaway_grandchildren_along() {
    let before = format!("{RUNAWAY}\nos.kill(os.getpid(), signal.SIGSEGV)");
    let policy = RestartPolicy {
        enabled: false,
        ..RestartPolicy::default()
    };
    let settings = SupervisorSettings {
        restart: policy,
        ..quick()
    };
    let fixture = Fixture::python(&before, settings);
    fixture.engine.start().await.unwrap();
    let failed = fixture.reaches(EngineState::Failed).await;
    assert!(
        failed.message.contains("segmentation fault"),
        "{}",
        failed.message
    );
    let runaway = fixture.written_pid("runaway").await;
    assert!(!alive(runaway));
    fixture.supervisor.shutdown().await;
}

#[tokio::test]
async fn dropping_everything_kills_the_tree() {
    let fixture = Fixture::python(RUNAWAY, quick());
    let plan_of = Script {
        program: "python3",
        text: PYTHON_ENGINE.replace("{before}", RUNAWAY),
        directory: fixture.directory.path().to_owned(),
    };
    let plan = plan_of.plan(free_loopback_port().unwrap()).unwrap();
    let process = spawner().spawn(&plan).await.unwrap();
    let runaway = fixture.written_pid("runaway").await;
    let engine = i32::try_from(process.pid.unwrap()).unwrap();
    assert!(alive(runaway) && alive(engine));
    // What the system does for us when we are killed: the sockets close.
    drop(process);
    is_gone(runaway).await;
    is_gone(engine).await;
}

#[tokio::test]
async fn a_killed_gateway_takes_the_whole_tree_along() {
    let directory = tempfile::tempdir().unwrap();
    let mut gateway = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(only("gateway_process"))
        .env(GATEWAY_VARIABLE, directory.path())
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let runaway = written_pid(&directory.path().join("runaway")).await;
    let engine = written_pid(&directory.path().join("engine")).await;
    assert!(alive(runaway) && alive(engine));
    gateway.start_kill().unwrap();
    gateway.wait().await.unwrap();
    is_gone(engine).await;
    is_gone(runaway).await;
}

#[tokio::test]
async fn a_killed_guard_takes_the_engine_along() {
    let fixture = Fixture::python("print('parent', os.getppid())", quick());
    fixture.engine.start().await.unwrap();
    let ready = fixture.reaches(EngineState::Ready).await;
    let engine = i32::try_from(ready.pid.unwrap()).unwrap();
    let guard = fixture
        .lines()
        .iter()
        .find_map(|line| line.strip_prefix("parent ")?.parse().ok())
        .unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(guard), nix::sys::signal::SIGKILL).unwrap();
    is_gone(engine).await;
    let again = fixture
        .engine
        .wait_for(|status| status.is_ready() && status.generation == 2);
    let again = tokio::time::timeout(LIMIT, again).await.unwrap().unwrap();
    assert_eq!(again.restarts, 1);
    fixture.supervisor.shutdown().await;
}
