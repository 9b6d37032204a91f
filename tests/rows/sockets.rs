//! Events of one that another tries to hear, or to send: R14, R15, W8, D8-D10, and from foreign
//! pages X3.

use crate::graphs::{picture, probe, slow};
use crate::world::{User, World, together};
use anyhow::{Context as _, Result, ensure};
use sentinel_tests::{Ask, Socket};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

/// What a socket heard up to the end of a job.
#[derive(Debug, Default)]
struct Heard {
    events: Vec<Value>,
    frames: Vec<Vec<u8>>,
}

impl Heard {
    async fn until_end(socket: &mut Socket, prompt: &str) -> Result<Self> {
        let mut heard = Self::default();
        loop {
            match socket.next().await? {
                Message::Text(text) => {
                    let event: Value = serde_json::from_str(&text)?;
                    let is_end = event["type"] == "executing"
                        && event["data"]["node"].is_null()
                        && event["data"]["prompt_id"] == prompt;
                    heard.events.push(event);
                    if is_end {
                        return Ok(heard);
                    }
                }
                Message::Binary(bytes) => heard.frames.push(bytes.to_vec()),
                _ => {}
            }
        }
    }

    fn names(&self, text: &str) -> bool {
        self.events
            .iter()
            .any(|event| event.to_string().contains(text))
            || self
                .frames
                .iter()
                .any(|frame| crate::world::holds(frame, text))
    }

    fn has(&self, kind: &str) -> bool {
        self.events.iter().any(|event| event["type"] == kind)
    }

    /// Every job that an event or the data of a picture belongs to.
    fn only_of(&self, prompt: &str) -> Result<()> {
        for event in &self.events {
            let of = &event["data"]["prompt_id"];
            ensure!(of.is_null() || of == prompt, "{event}");
        }
        for frame in &self.frames {
            let named = crate::world::holds(frame, "prompt_id");
            ensure!(
                !named || crate::world::holds(frame, prompt),
                "a picture of another job"
            );
        }
        Ok(())
    }

    fn kinds_of_frames(&self) -> Vec<u8> {
        let mut kinds: Vec<u8> = self
            .frames
            .iter()
            .filter_map(|frame| frame.get(3).copied())
            .collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }
}

fn with_client(graph: &Value, client: &str) -> Value {
    json!({ "prompt": graph, "client_id": client })
}

/// Not by `tokio::test`: the guard of the world must not wait with the test.
fn block_on(test: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(test)
}

async fn hello(socket: &mut Socket, has_metadata: bool) -> Result<()> {
    let flags = json!({
        "type": "feature_flags", "data": {"supports_preview_metadata": has_metadata},
    });
    socket.send(Message::text(flags.to_string())).await?;
    while socket.next_json().await?["type"] != "feature_flags" {}
    Ok(())
}

#[test]
fn r15_w8_d8_d9_c1_s31_the_client_id_of_another_leads_to_ones_own_engine() -> Result<()> {
    let (_guard, world) = together()?;
    block_on(async {
        let client = "r15-client";
        let target = format!("/ws?clientId={client}");
        let mut hers = world.socket(&world.alice, &target).await?;
        hello(&mut hers, true).await?;
        let mut his = world.socket(&world.bob, &target).await?;
        hello(&mut his, false).await?;
        let queue =
            |user: &User, tag: &str| world.queue(user, &with_client(&slow(0.3, tag), client));
        let alices = queue(&world.alice, "r15-of-alice")?;
        let bobs = queue(&world.bob, "r15-of-bob")?;
        let heard = Heard::until_end(&mut hers, &alices).await?;
        heard.only_of(&alices)?;
        ensure!(!heard.names(&bobs) && heard.has("execution_start"));
        ensure!(
            heard.kinds_of_frames() == [4],
            "her flags hold: {:?}",
            heard.kinds_of_frames()
        );
        let heard = Heard::until_end(&mut his, &bobs).await?;
        heard.only_of(&bobs)?;
        ensure!(!heard.names(&alices) && !heard.names("r15-of-alice"));
        ensure!(
            heard.kinds_of_frames() == [1],
            "{:?}",
            heard.kinds_of_frames()
        );
        // The intruder leaves, and hers still hears.
        drop(his);
        let again = queue(&world.alice, "r15-again")?;
        let heard = Heard::until_end(&mut hers, &again).await?;
        ensure!(heard.has("execution_success") && !heard.frames.is_empty());
        // In one engine the newer socket takes the older one's events.
        let mut newer = world.socket(&world.alice, &target).await?;
        let third = queue(&world.alice, "r15-third")?;
        Heard::until_end(&mut newer, &third).await?.only_of(&third)
    })
}

#[test]
fn r14_c2_jobs_without_a_client_are_told_to_their_owner_alone() -> Result<()> {
    let (_guard, world) = together()?;
    block_on(async {
        let mut hers = world.socket(&world.alice, "/ws?clientId=r14-alice").await?;
        let mut his = world.socket(&world.bob, "/api/ws?clientId=r14-bob").await?;
        for body in [
            json!({ "prompt": slow(0.3, "text:r14-of-bob") }),
            json!({ "prompt": slow(0.3, "text:r14-null-of-bob"), "client_id": null }),
            json!({ "prompt": sized(), "client_id": "r14-somebody-away" }),
        ] {
            world.attempt(&world.bob, &body)?;
        }
        let end = |user: &User, client: &str| {
            world.queue(
                user,
                &with_client(&probe(0.1, client, "none", false), client),
            )
        };
        let last = end(&world.bob, "r14-bob")?;
        let heard = Heard::until_end(&mut his, &last).await?;
        ensure!(
            heard.kinds_of_frames().contains(&1) && heard.names("r14-of-bob"),
            "ComfyUI tells all sockets of an engine"
        );
        let last = end(&world.alice, "r14-alice")?;
        let heard = Heard::until_end(&mut hers, &last).await?;
        heard.only_of(&last)?;
        ensure!(heard.frames.is_empty(), "{:?}", heard.kinds_of_frames());
        ensure!(!heard.names("of-bob"));
        Ok(())
    })
}

/// Tells the size of a picture as text, to everybody.
fn sized() -> Value {
    json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": 24, "height": 16, "batch_size": 1, "color": 14}},
        "2": {"class_type": "GetImageSize", "inputs": {"image": ["1", 0]}},
        "3": {"class_type": "PreviewAny", "inputs": {"source": ["2", 0]}},
    })
}

#[test]
fn d10_c9_nobody_subscribes_another_to_logs() -> Result<()> {
    let (_guard, world) = together()?;
    block_on(async {
        let client = "d10-alice";
        let mut hers = world
            .socket(&world.alice, &format!("/ws?clientId={client}"))
            .await?;
        let subscribe = |user: &User, enabled: bool| {
            let body = json!({"clientId": client, "enabled": enabled});
            world.send(user, "PATCH", "/internal/logs/subscribe", &body)
        };
        subscribe(&world.bob, true)?;
        world.run(&world.bob, &picture("d10_bob", 10))?;
        let run = |world: &World| {
            let graph = probe(0.1, "d10", "none", false);
            world.queue(&world.alice, &with_client(&graph, client))
        };
        let job = run(world)?;
        let heard = Heard::until_end(&mut hers, &job).await?;
        ensure!(!heard.has("logs"));
        ensure!(subscribe(&world.alice, true)?.status == 200);
        run(world)?;
        while hers.next_json().await?["type"] != "logs" {}
        subscribe(&world.alice, false)?;
        Ok(())
    })
}

#[test]
fn x2_x3_a_foreign_page_opens_no_socket() -> Result<()> {
    let (_guard, world) = together()?;
    block_on(async {
        let port = world.gateway.port;
        let cookie = format!("jwt_token={}", world.alice.cookie);
        let neighbour = format!("http://localhost:{}", world.direct(&world.bob)?);
        for origin in [
            "null",
            "https://evil.example",
            neighbour.as_str(),
            "file://",
        ] {
            for target in ["/ws?clientId=x3", "/api/ws", "/%77s"] {
                let headers = [("Cookie", cookie.as_str()), ("Origin", origin)];
                let refused = Socket::attempt(port, target, &headers).await?;
                ensure!(refused.err() == Some(403), "{origin} {target}");
            }
        }
        let own = format!("http://localhost:{port}");
        let headers = [("Cookie", cookie.as_str()), ("Origin", own.as_str())];
        let mut socket = Socket::open(port, "/ws?clientId=x3", &headers).await?;
        ensure!(socket.next_json().await?["type"] == "status");
        // ComfyUI itself lets a sandboxed frame in.
        let direct = world.direct(&world.alice)?;
        let mut bare = Socket::open(direct, "/ws?clientId=x3-bare", &[("Origin", "null")]).await?;
        ensure!(bare.next_json().await?["type"] == "status");
        let answer = Ask::get("/queue").header("Origin", "null").send(direct)?;
        ensure!(answer.status == 200, "{}", answer.text());
        answer.json().as_object().context("a queue").map(|_| ())
    })
}
