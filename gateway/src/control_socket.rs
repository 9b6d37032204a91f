//! The API for the command line: a socket in the data directory, which only the account that runs
//! Sentinel can reach. Whoever sends through it is the machine's owner.

use crate::local::LocalApi;
use axum::body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Commands at once.
const MAX_CONNECTIONS: usize = 8;
/// After a failure to accept.
const PAUSE: Duration = Duration::from_millis(200);
/// Time for one command.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// Answers until `stopping`; a socket that cannot be made is a warning, as all else works.
pub(crate) async fn serve(path: PathBuf, api: LocalApi, stopping: CancellationToken) {
    let listener = match listen(&path) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "the command line cannot reach this Sentinel");
            return;
        }
    };
    let mut connections = JoinSet::new();
    let mut is_told = false;
    loop {
        tokio::select! {
            () = stopping.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    is_told = false;
                    connections.spawn(timeout(TIME_LIMIT, answer(stream, api.clone())));
                }
                Err(error) => {
                    // Such as too many open files, which passes.
                    if !is_told {
                        tracing::warn!(%error, "the command line's socket failed; it is tried again");
                    }
                    is_told = true;
                    sleep(PAUSE).await;
                }
            },
        }
    }
    connections.shutdown().await;
    let _ = fs::remove_file(&path);
}

/// A socket that an earlier run left behind is replaced; the data directory is closed to others.
fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn answer(stream: UnixStream, api: LocalApi) {
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let api = api.clone();
        async move { Ok::<_, Infallible>(api.answer(request.map(Body::new)).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a command broke off");
    }
}
