//! `sentineld engines`: asks the running Sentinel, through a socket in its data directory.

use super::arguments::{EngineAction, Place};
use std::process::ExitCode;

#[cfg(unix)]
pub(super) fn act(place: &Place, action: Option<EngineAction>) -> anyhow::Result<ExitCode> {
    connected::act(place, action.unwrap_or(EngineAction::List))
}

#[cfg(not(unix))]
pub(super) fn act(_place: &Place, _action: Option<EngineAction>) -> anyhow::Result<ExitCode> {
    anyhow::bail!(
        "this command does not work on this system yet; use the window or /sentinel/ in a browser"
    )
}

#[cfg(unix)]
mod connected {
    use crate::cli::arguments::{EngineAction, Place};
    use crate::cli::console::say;
    use crate::cli::open_data;
    use anyhow::{Context as _, bail};
    use bytes::Bytes;
    use http::{Method, Request};
    use http_body_util::{BodyExt as _, Empty};
    use hyper::client::conn::http1;
    use hyper_util::rt::TokioIo;
    use serde_json::Value;
    use std::path::Path;
    use std::process::ExitCode;
    use std::time::Duration;
    use tokio::net::UnixStream;
    use tokio::time::timeout;

    const TIME_LIMIT: Duration = Duration::from_secs(30);

    pub(super) fn act(place: &Place, action: EngineAction) -> anyhow::Result<ExitCode> {
        let socket = open_data(place)?.control_socket();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let list = ask(&socket, Method::GET, "/engines").await?;
            match action {
                EngineAction::List => show(&list),
                EngineAction::Start { user } => order(&socket, &list, &user, "start").await?,
                EngineAction::Stop { user } => order(&socket, &list, &user, "stop").await?,
                EngineAction::Restart { user } => order(&socket, &list, &user, "restart").await?,
                EngineAction::Log { user, lines } => {
                    let id = id_of(&socket, &list, &user).await?;
                    let path = format!("/engines/{id}/log?lines={lines}");
                    let log = ask(&socket, Method::GET, &path).await?;
                    for line in log["lines"].as_array().into_iter().flatten() {
                        say(line["text"].as_str().unwrap_or_default());
                    }
                }
            }
            Ok(ExitCode::SUCCESS)
        })
    }

    async fn order(socket: &Path, list: &Value, user: &str, name: &str) -> anyhow::Result<()> {
        let id = id_of(socket, list, user).await?;
        ask(socket, Method::POST, &format!("/engines/{id}/{name}")).await?;
        say(&format!("{user}: {name} ordered"));
        Ok(())
    }

    /// Id of the engine of a user, also of one that does not run.
    async fn id_of(socket: &Path, list: &Value, user: &str) -> anyhow::Result<String> {
        if list["mode"] == "shared" {
            return Ok("shared".to_owned());
        }
        let users = ask(socket, Method::GET, "/users").await?;
        let found = users["users"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|account| {
                let name = account["username"].as_str().unwrap_or_default();
                name == user || account["id"] == user
            });
        let id = found.and_then(|account| account["id"].as_str());
        Ok(id
            .with_context(|| format!("there is no account \"{user}\""))?
            .to_owned())
    }

    fn show(list: &Value) {
        say("USER\tSTATE\tMEMORY\tGPU MEMORY\tJOBS\tPAGES\tSINCE\tCONFINEMENT");
        for engine in list["engines"].as_array().into_iter().flatten() {
            let text = |name: &str| engine[name].as_str().unwrap_or("-").to_owned();
            let mebibytes = |name: &str| {
                let bytes = engine[name].as_u64();
                bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{} MiB", bytes >> 20))
            };
            let count = |name: &str| {
                engine[name]
                    .as_u64()
                    .map_or_else(|| "-".to_owned(), |count| count.to_string())
            };
            let user = engine["username"].as_str().unwrap_or("shared");
            say(&format!(
                "{user}\t{}\t{}\t{}\t{}\t{}\t{}\t{}",
                text("state"),
                mebibytes("memory_bytes"),
                mebibytes("gpu_memory_bytes"),
                count("jobs"),
                count("sockets"),
                text("since"),
                engine["sandbox"]["state"].as_str().unwrap_or("-"),
            ));
        }
        for id in list["waiting"].as_array().into_iter().flatten() {
            say(&format!(
                "waiting for a start: {}",
                id.as_str().unwrap_or_default()
            ));
        }
    }

    async fn ask(socket: &Path, method: Method, path: &str) -> anyhow::Result<Value> {
        timeout(TIME_LIMIT, exchange(socket, method, path))
            .await
            .context("Sentinel did not answer in time")?
    }

    async fn exchange(socket: &Path, method: Method, path: &str) -> anyhow::Result<Value> {
        let stream = UnixStream::connect(socket).await.with_context(|| {
            format!(
                "no Sentinel runs with this data directory ({})",
                socket.display()
            )
        })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(Empty::<Bytes>::new())?;
        let answer = async move {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            anyhow::Ok((status, body))
        };
        let (answer, _connection) = tokio::join!(answer, async {
            // Its error shows in the answer.
            let _ = connection.await;
        });
        let (status, body) = answer?;
        let value: Value = serde_json::from_slice(&body).unwrap_or_default();
        if !status.is_success() {
            bail!("{}", value["error"].as_str().unwrap_or("Sentinel refused"));
        }
        Ok(value)
    }
}
