//! Who wants to know is told that a job is done.

use super::{PATIENCE, post, queue, separate, slow, until, with_two};
use anyhow::{Result, ensure};
use sentinel_tests::{Ask, Gateway, eventually};
use serde_json::{Value, json};
use std::time::Duration;

#[test]
fn whoever_wants_it_is_told_that_his_job_is_done_and_internal_addresses_are_refused() -> Result<()>
{
    use std::io::{Read as _, Write as _};
    let server = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = server.local_addr()?.port();
    let address = json!({
        "kind": "webhook", "address": format!("http://127.0.0.1:{port}/hook"), "failures_only": false,
    });
    let set = |gateway: &Gateway, token: &str, wish: &Value| {
        let ask = Ask::new("PUT", "/sentinel/api/notifications")
            .bearer(token)
            .json(wish);
        gateway.ask(&ask)
    };
    let (gateway, alice, _) = with_two(separate())?;
    for bad in ["", "x", "ftp://example.org", "file:///etc/passwd"] {
        let answer = set(
            &gateway,
            &alice,
            &json!({"kind": "webhook", "address": bad}),
        )?;
        ensure!(
            answer.status == 400 && answer.json()["field"] == "address",
            "{bad}: {}",
            answer.text()
        );
    }
    // By default nothing of this network is reached, whatever was asked for.
    set(&gateway, &alice, &address)?;
    let refused = post(
        &gateway,
        &alice,
        "/sentinel/api/notifications/test",
        &json!({}),
    )?;
    ensure!(refused.status >= 400, "{}", refused.text());
    server.set_nonblocking(true)?;
    ensure!(server.accept().is_err(), "nobody came");
    drop(gateway);

    let (gateway, alice, _) = with_two(separate().set("queue.notify_hosts=127.0.0.1"))?;
    ensure!(set(&gateway, &alice, &address)?.status == 200);
    let id = queue(&gateway, &alice, &slow(0.05, "done"))?;
    until(&gateway, &alice, &id, "completed")?;
    let mut told = String::new();
    eventually(PATIENCE, || {
        let Ok((mut stream, _)) = server.accept() else {
            return Ok(false);
        };
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut piece = [0; 4096];
        while !told.contains("job_finished") {
            let length = stream.read(&mut piece)?;
            ensure!(length > 0, "{told}");
            told.push_str(&String::from_utf8_lossy(&piece[..length]));
        }
        stream.write_all(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n")?;
        Ok(true)
    })?;
    ensure!(
        told.contains("completed") && !told.contains("SlowProbe"),
        "{told}"
    );
    Ok(())
}
