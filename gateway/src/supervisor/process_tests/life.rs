//! Starting, stopping, crashing and talking.

use super::*;

#[tokio::test]
async fn an_engine_starts_becomes_ready_and_stops_when_asked() {
    let fixture = Fixture::python("", quick());
    assert_eq!(fixture.engine.current().state, EngineState::Stopped);
    fixture.engine.start().await.unwrap();
    let ready = fixture.reaches(EngineState::Ready).await;
    assert_eq!(ready.version.as_deref(), Some("0.12.1"));
    assert_eq!(ready.generation, 1);
    assert!(ready.address.unwrap().ip().is_loopback());
    let pid = i32::try_from(ready.pid.unwrap()).unwrap();
    assert!(alive(pid));

    fixture.engine.restart().await.unwrap();
    let again = fixture
        .engine
        .wait_for(|status| status.is_ready() && status.generation == 2)
        .await
        .unwrap();
    assert!(
        !alive(pid),
        "the first process is gone before the second starts"
    );
    assert_ne!(again.pid, ready.pid);
    assert_eq!(again.restarts, 0, "asked for, not a crash");

    fixture.engine.stop().await.unwrap();
    let stopped = fixture.reaches(EngineState::Stopped).await;
    assert_eq!((stopped.address, stopped.pid), (None, None));
    assert!(fixture.lines().iter().any(|line| line == "Starting server"));
    fixture.supervisor.shutdown().await;
    assert_eq!(fixture.engine.start().await, Err(SupervisorGone));
}

#[tokio::test]
async fn an_engine_that_ignores_sigterm_is_killed_after_the_grace() {
    let settings = SupervisorSettings {
        stop_grace: Duration::from_millis(300),
        ..quick()
    };
    let fixture = Fixture::python("signal.signal(signal.SIGTERM, signal.SIG_IGN)", settings);
    fixture.engine.start().await.unwrap();
    let ready = fixture.reaches(EngineState::Ready).await;
    let asked = Instant::now();
    fixture.engine.stop().await.unwrap();
    fixture.reaches(EngineState::Stopped).await;
    assert!(asked.elapsed() >= Duration::from_millis(300));
    assert!(!alive(i32::try_from(ready.pid.unwrap()).unwrap()));
    fixture.supervisor.shutdown().await;
}

#[tokio::test]
async fn a_second_stop_hurries() {
    let settings = SupervisorSettings {
        stop_grace: Duration::from_secs(3600),
        ..quick()
    };
    let fixture = Fixture::python("signal.signal(signal.SIGTERM, signal.SIG_IGN)", settings);
    fixture.engine.start().await.unwrap();
    fixture.reaches(EngineState::Ready).await;
    fixture.engine.stop().await.unwrap();
    fixture.reaches(EngineState::Stopping).await;
    fixture.engine.stop().await.unwrap();
    fixture.reaches(EngineState::Stopped).await;

    fixture.engine.start().await.unwrap();
    fixture.reaches(EngineState::Ready).await;
    let engine = fixture.engine.clone();
    let shutdown = tokio::spawn(fixture.supervisor.shutdown());
    engine
        .wait_for(|status| status.state == EngineState::Stopping)
        .await
        .unwrap();
    engine.hurry().await.unwrap();
    tokio::time::timeout(LIMIT, shutdown)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn crashes_are_retried_and_given_up_with_the_reason() {
    let script = "echo run >> runs; echo 'RuntimeError: the flux is low' >&2; exit 3";
    let fixture = Fixture::shell(script, quick());
    let mut seen = Vec::new();
    let mut status = fixture.engine.status();
    let watcher = tokio::spawn(async move {
        while status.changed().await.is_ok() {
            let status = status.borrow_and_update().clone();
            seen.push(status.state);
        }
        seen
    });
    fixture.engine.start().await.unwrap();
    let failed = fixture.reaches(EngineState::Failed).await;
    assert!(failed.message.contains("exit code 3"), "{}", failed.message);
    assert!(
        failed.message.contains("the flux is low"),
        "{}",
        failed.message
    );
    assert!(failed.message.contains("5 times"), "{}", failed.message);
    assert_eq!((failed.restarts, failed.generation), (4, 5));
    let runs = std::fs::read_to_string(fixture.directory.path().join("runs")).unwrap();
    assert_eq!(runs.lines().count(), 5);
    // Asked for, it is tried again from the beginning.
    fixture.engine.start().await.unwrap();
    let crashed = fixture.reaches(EngineState::Crashed).await;
    assert_eq!(crashed.restarts, 0);
    assert_eq!(crashed.retry_in, Some(Duration::from_millis(20)));
    fixture.supervisor.shutdown().await;
    drop(fixture.engine);
    let seen = watcher.await.unwrap();
    assert!(seen.contains(&EngineState::Crashed));
}

#[tokio::test]
async fn a_stop_ends_the_pause_after_a_crash() {
    let settings = SupervisorSettings {
        restart: RestartPolicy {
            first_delay: Duration::from_secs(3600),
            longest_delay: Duration::from_secs(3600),
            ..RestartPolicy::default()
        },
        ..quick()
    };
    let fixture = Fixture::shell("exit 1", settings);
    fixture.engine.start().await.unwrap();
    fixture.reaches(EngineState::Crashed).await;
    fixture.engine.stop().await.unwrap();
    fixture.reaches(EngineState::Stopped).await;
    fixture.supervisor.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_started_is_said_and_not_retried() {
    let fixture = Fixture::new("/no/such/program", "", quick());
    fixture.engine.start().await.unwrap();
    let failed = fixture.reaches(EngineState::Failed).await;
    assert!(
        failed.message.contains("/no/such/program"),
        "{}",
        failed.message
    );
    fixture.supervisor.shutdown().await;

    let missing_directory = LaunchPlan {
        program: "sh".into(),
        arguments: Vec::new(),
        working_directory: "/no/such/directory".into(),
        environment: Vec::new(),
        removed_environment: Vec::new(),
        address: free_loopback_port().unwrap(),
        sandbox: None,
    };
    let error = spawner().spawn(&missing_directory).await.unwrap_err();
    assert!(error.to_string().contains("/no/such/directory"), "{error}");
}

#[tokio::test]
async fn a_silent_engine_that_never_gets_ready_fails() {
    let settings = SupervisorSettings {
        ready_timeout: Duration::from_millis(300),
        ..quick()
    };
    let fixture = Fixture::shell("echo 'Total VRAM 1 MB'; exec sleep 1000", settings);
    fixture.engine.start().await.unwrap();
    let failed = fixture.reaches(EngineState::Failed).await;
    assert!(
        failed.message.contains("Looking at the graphics card"),
        "{}",
        failed.message
    );
    assert!(failed.message.contains("300 ms"), "{}", failed.message);
    fixture.supervisor.shutdown().await;
}

#[tokio::test]
async fn a_talking_engine_may_take_longer_but_not_for_ever() {
    let settings = SupervisorSettings {
        ready_timeout: Duration::from_millis(400),
        ready_limit: Duration::from_secs(2),
        ..quick()
    };
    let fixture = Fixture::shell("while :; do echo still here; sleep 0.1; done", settings);
    let started = Instant::now();
    fixture.engine.start().await.unwrap();
    let failed = fixture.reaches(EngineState::Failed).await;
    assert!(started.elapsed() >= Duration::from_secs(2));
    assert!(failed.message.contains("2 seconds"), "{}", failed.message);
    fixture.supervisor.shutdown().await;
}

#[tokio::test]
async fn a_flood_of_output_stays_bounded_and_slows_nobody() {
    let fixture = Fixture::shell("exec yes 'spam spam spam spam spam spam'", quick());
    fixture.engine.start().await.unwrap();
    let log = fixture.engine.log().clone();
    until("the flood is in the log", || {
        (log.last_seq() > 3000).then_some(())
    })
    .await;
    assert!(log.tail(usize::MAX).len() <= LogLimits::default().lines);
    let asked = Instant::now();
    fixture.engine.stop().await.unwrap();
    fixture.reaches(EngineState::Stopped).await;
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "{:?}",
        asked.elapsed()
    );
    fixture.supervisor.shutdown().await;
}

#[tokio::test]
async fn secrets_of_the_engine_do_not_reach_the_log() {
    let script = "echo 'Authorization: Bearer abcdefghijkl'; exec sleep 1000";
    let fixture = Fixture::shell(script, quick());
    fixture.engine.start().await.unwrap();
    until("the line is there", || {
        let lines = fixture.lines();
        lines
            .contains(&"Authorization: Bearer [hidden]".to_owned())
            .then_some(())
    })
    .await;
    fixture.supervisor.shutdown().await;
}

/// Chooses an address that somebody else has taken in the meantime.
#[cfg(target_os = "linux")]
struct Squatted(Script, SocketAddr);

#[cfg(target_os = "linux")]
impl Launcher for Squatted {
    fn plan(&self, _address: SocketAddr) -> Result<LaunchPlan, LaunchError> {
        self.0.plan(self.1)
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn another_program_at_the_address_is_not_taken_for_the_engine() {
    use std::io::{Read, Write};

    let server = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = server.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in server.incoming() {
            let mut stream = stream.unwrap();
            let _request = stream.read(&mut [0; 1024]);
            let body = "{\"system\": {\"comfyui_version\": \"9\"}}";
            let _gone = write!(stream, "HTTP/1.1 200 OK\r\n\r\n{body}");
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let script = Script {
        program: "sh",
        text: "sleep 1000".to_owned(),
        directory: directory.path().to_owned(),
    };
    let settings = SupervisorSettings {
        ready_timeout: Duration::from_millis(500),
        ..quick()
    };
    let log = LogRing::new(LogLimits::default());
    let launcher = Arc::new(Squatted(script, address));
    let supervisor = Supervisor::launch(settings, launcher, Arc::new(spawner()), log);
    let engine = supervisor.handle();
    engine.start().await.unwrap();
    let ended =
        engine.wait_for(|status| matches!(status.state, EngineState::Failed | EngineState::Ready));
    let ended = tokio::time::timeout(LIMIT, ended).await.unwrap().unwrap();
    assert_eq!(ended.state, EngineState::Failed);
    supervisor.shutdown().await;
}
