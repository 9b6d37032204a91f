//! From the start to the end of the process.

use crate::command_line::Options;
use crate::routes;
use crate::state::{Engine, leave};
use crate::worker;
use axum::Router;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

const NOT_BOUND: u8 = 1;

/// Runs an engine until it is told to end.
pub(crate) fn engine(options: Options) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(serve(Arc::new(Engine::new(options)))),
        Err(_) => ExitCode::FAILURE,
    }
}

/// The process that the fault `fork-grandchild` leaves behind: it sleeps and does not go away by itself.
pub(crate) fn grandchild() -> ExitCode {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    else {
        return ExitCode::FAILURE;
    };
    runtime.block_on(async {
        ignore_terminate();
        tokio::time::sleep(Duration::from_secs(3600)).await;
    });
    ExitCode::SUCCESS
}

async fn serve(engine: Arc<Engine>) -> ExitCode {
    show_faults(&engine);
    prepare(&engine);
    let faults = &engine.options.faults;
    tokio::time::sleep(faults.slow_start).await;
    if faults.never_ready {
        engine.say("Still loading models");
        std::future::pending::<()>().await;
    }
    let mut listeners = Vec::new();
    for address in &engine.options.listen {
        let bound = match address.parse::<IpAddr>() {
            Ok(ip) => TcpListener::bind(SocketAddr::new(ip, engine.options.port)).await,
            Err(_) => TcpListener::bind((address.as_str(), engine.options.port)).await,
        };
        match bound {
            Ok(listener) => listeners.push((address.clone(), listener)),
            // The wildcard of the other family may already cover the port.
            Err(_) if !listeners.is_empty() => {}
            Err(error) => {
                let port = engine.options.port;
                if error.kind() == std::io::ErrorKind::AddrInUse {
                    engine.fail(&format!("Port {port} is already in use on address {address}. Please close the other application or use a different port with --port."));
                } else {
                    engine.fail(&format!("[Errno 98] error while attempting to bind on address ('{address}', {port}): {error}"));
                }
                return ExitCode::from(NOT_BOUND);
            }
        }
    }
    let worker = Arc::clone(&engine);
    let started = std::thread::Builder::new()
        .name("prompt_worker".to_owned())
        .spawn(move || worker::run(&worker));
    if started.is_err() {
        return ExitCode::FAILURE;
    }
    if engine.options.assets {
        routes::scan_assets(&engine);
    }
    engine.say("Starting server\n");
    let app = Router::new()
        .fallback(routes::handle)
        .with_state(Arc::clone(&engine));
    let mut serving = tokio::task::JoinSet::new();
    for (address, listener) in listeners {
        let port = listener
            .local_addr()
            .map_or(engine.options.port, |local| local.port());
        let host = if address.contains(':') {
            format!("[{address}]")
        } else {
            address
        };
        engine.say(&format!("To see the GUI go to: http://{host}:{port}"));
        let app = app.clone();
        serving.spawn(async move { axum::serve(listener, app).await });
    }
    if engine.options.leave_at_once {
        return ExitCode::SUCCESS;
    }
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = serving.join_next() => {}
    }
    engine.say("\nStopped server");
    let _ = std::fs::remove_dir_all(&engine.options.temp);
    ExitCode::SUCCESS
}

fn prepare(engine: &Engine) {
    let options = &engine.options;
    let _ = std::fs::remove_dir_all(&options.temp);
    for directory in [
        &options.input,
        &options.output,
        &options.temp,
        &options.user,
    ] {
        let _ = std::fs::create_dir_all(directory);
    }
    engine.say("Checkpoint files will always be loaded safely.");
    let megabytes = routes::memory().0 / (1024 * 1024);
    engine.say(&format!(
        "Total VRAM {megabytes} MB, total RAM {megabytes} MB"
    ));
    engine.say("pytorch version: none (demo engine)");
    engine.say("Set vram state to: DISABLED");
    engine.say("Device: cpu");
    engine.say("ComfyUI version: 0.33.0 (demo engine)");
    let root = options
        .front_end
        .as_ref()
        .map_or_else(|| "built in".to_owned(), |root| root.display().to_string());
    engine.say(&format!("[Prompt Server] web root: {root}"));
}

/// Starts the faults that run beside everything else.
fn show_faults(engine: &Arc<Engine>) {
    let faults = &engine.options.faults;
    if faults.ignore_sigterm {
        ignore_terminate();
    }
    if faults.fork_grandchild {
        start_grandchild(engine);
    }
    if let Some(after) = faults.crash_after {
        let code = faults.exit_code;
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            leave(code);
        });
    }
    if faults.spam_logs > 0 {
        let engine = Arc::clone(engine);
        tokio::spawn(async move { spam(&engine).await });
    }
}

async fn spam(engine: &Engine) {
    let each_second = u64::from(engine.options.faults.spam_logs);
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    let mut written = 0_u64;
    for tick in 1_u64.. {
        ticks.tick().await;
        while written < tick * each_second / 10 {
            written += 1;
            engine.say(&format!("spam {written} 0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz"));
        }
    }
}

fn start_grandchild(engine: &Engine) {
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    // It keeps our output open, as the helpers of real custom nodes do.
    let started = std::process::Command::new(program)
        .arg("--grandchild")
        .stdin(std::process::Stdio::null())
        .spawn();
    if let Ok(child) = started {
        engine.say(&format!("grandchild {}", child.id()));
    }
}

/// Takes the signal that asks a process to end, and does nothing with it.
fn ignore_terminate() {
    #[cfg(unix)]
    if let Ok(mut signals) =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
    {
        tokio::spawn(async move { while signals.recv().await.is_some() {} });
    }
}
