//! How bob tries to disturb alice: D1-D14, and the defects of the peers that let him.

use crate::graphs::{picture, probe, slow};
use crate::world::{Form, Job, PATIENCE, User, World, alone, holds, not_there, together};
use anyhow::{Context as _, Result, ensure};
use sentinel_tests::{Ask, eventually};
use serde_json::{Value, json};

fn text(body: impl Into<String>) -> Vec<u8> {
    body.into().into_bytes()
}

/// Posts a prompt of bob's as it stands and expects a refusal.
fn refused(world: &World, body: &[u8]) -> Result<()> {
    for target in ["/prompt", "/api/prompt", "/%70rompt"] {
        for kind in ["application/json", "text/plain"] {
            let ask = Ask::post(target).bearer(&world.bob.token).body(kind, body);
            let answer = world.ask(&ask)?;
            ensure!(
                answer.status == 400,
                "{target}: {} {}",
                answer.status,
                answer.text()
            );
        }
    }
    Ok(())
}

/// What alice runs while bob does his worst.
struct Witness<'world> {
    world: &'world World,
    id: String,
    process: u32,
}

impl<'world> Witness<'world> {
    fn start(world: &'world World, tag: &str) -> Result<Self> {
        Ok(Self {
            world,
            id: world.queue(&world.alice, &json!({ "prompt": slow(2.0, tag) }))?,
            process: world.process(&world.alice)?,
        })
    }

    /// Her job has gone on, in the same process.
    fn went_on(&self) -> Result<Job> {
        let job = self.world.ended(&self.world.alice, &self.id)?;
        ensure!(job.succeeded(), "{}", job.entry);
        ensure!(self.world.process(&self.world.alice)? == self.process);
        Ok(job)
    }
}

#[test]
fn d1_a_client_id_that_is_no_text_ends_nothing_but_the_senders_engine() -> Result<()> {
    let (_guard, world) = alone()?;
    let witness = Witness::start(world, "d1")?;
    let graph = picture("d1", 1);
    for body in [
        json!({ "prompt": graph, "client_id": ["x"] }),
        json!({ "prompt": graph, "client_id": {} }),
        json!({ "prompt": graph, "client_id": 7 }),
        json!({ "prompt": graph, "extra_data": { "client_id": {} } }),
        json!({ "prompt": graph, "extra_data": { "client_id": ["x"] } }),
    ] {
        refused(world, &text(body.to_string()))?;
    }
    let doubled = format!(r#"{{"client_id":"a","client\u005fid":["b"],"prompt":{graph}}}"#);
    refused(world, &text(doubled))?;
    let before = world.process(&world.bob)?;
    world.run(&world.bob, &picture("d1_still", 2))?;
    ensure!(world.process(&world.bob)? == before);
    // Before the gateway it ends the process; it comes back by itself, and hers does not notice.
    let direct = Ask::post("/prompt").json(&json!({ "prompt": graph, "client_id": ["x"] }));
    let _ = direct.send(world.direct(&world.bob)?);
    eventually(PATIENCE, || {
        Ok(world
            .process(&world.bob)
            .is_ok_and(|process| process != before))
    })?;
    world.await_engine(&world.bob)?;
    world.run(&world.bob, &picture("d1_again", 3))?;
    witness.went_on()?;
    Ok(())
}

/// Bob's engine takes jobs and runs none; an admin starts it again.
fn stands_still_and_is_restarted(world: &World) -> Result<()> {
    let before = world.process(&world.bob)?;
    let id = &world.bob.id;
    let restarted = world
        .gateway
        .admin("POST", &format!("engines/{id}/restart"), None)?;
    ensure!(restarted.status == 202, "{}", restarted.text());
    eventually(PATIENCE, || {
        Ok(world
            .process(&world.bob)
            .is_ok_and(|process| process != before))
    })?;
    world.await_engine(&world.bob)
}

#[test]
fn d2_s24_equal_numbers_and_ids_do_not_stop_a_queue() -> Result<()> {
    let (_guard, world) = alone()?;
    let witness = Witness::start(world, "d2")?;
    let first = world.queue(&world.bob, &json!({ "prompt": slow(0.5, "d2-bob") }))?;
    let twin =
        |color| json!({ "prompt": picture("d2", color), "prompt_id": "d2-twin", "number": 5 });
    // Each gets an id of its own, and the engine has one at a time.
    let twins: Vec<String> = (1..5)
        .map(|color| world.queue(&world.bob, &twin(color)))
        .collect::<Result<_>>()?;
    let canonical = "7a0c2f34-5b1d-4b7e-9a57-0d6f0c1b2a3e";
    let mut same = twin(5);
    same["prompt_id"] = canonical.into();
    ensure!(world.queue(&world.bob, &same)? == canonical);
    // A client that lost its answer gets it again; the job runs once.
    ensure!(world.queue(&world.bob, &same)? == canonical);
    let more: Vec<String> = (6..9)
        .map(|color| world.queue(&world.bob, &json!({ "prompt": picture("d2_more", color) })))
        .collect::<Result<_>>()?;
    let others = [first, canonical.to_owned()];
    for id in others.iter().chain(&twins).chain(&more) {
        ensure!(world.ended(&world.bob, id)?.succeeded(), "{id}");
    }
    witness.went_on()?;

    let witness = Witness::start(world, "d2-direct")?;
    let port = world.direct(&world.bob)?;
    let post = |body: &Value| Ask::post("/prompt").json(body).send(port);
    ensure!(post(&json!({ "prompt": slow(0.5, "d2-a") }))?.status == 200);
    ensure!(post(&json!({ "prompt": slow(0.5, "d2-b"), "number": 1 }))?.status == 200);
    for color in 20..24 {
        post(&twin(color))?;
    }
    stands_still_and_is_restarted(world)?;
    world.run(&world.bob, &picture("d2_again", 30))?;
    witness.went_on()?;
    Ok(())
}

#[test]
fn d3_deep_nesting_does_not_stop_a_queue() -> Result<()> {
    let (_guard, world) = alone()?;
    let witness = Witness::start(world, "d3")?;
    let deep = |depth: usize| {
        let nest = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let body = json!({ "prompt": picture("d3", 1) }).to_string();
        text(body.replace("\"color\":1", &format!("\"color\":1,\"junk\":{nest}")))
    };
    for depth in [900, 5000, 200_000] {
        refused(world, &deep(depth))?;
    }
    world.run(&world.bob, &picture("d3_still", 2))?;
    let direct = Ask::post("/prompt").body("application/json", deep(900));
    let _ = direct.send(world.direct(&world.bob)?);
    stands_still_and_is_restarted(world)?;
    world.run(&world.bob, &picture("d3_again", 3))?;
    witness.went_on()?;
    Ok(())
}

#[test]
fn d4_d5_poisoned_prompts_are_refused_and_no_list_breaks() -> Result<()> {
    let (_guard, world) = together()?;
    let graph = picture("d4", 4);
    for odd in [
        json!(null),
        json!([]),
        json!("x"),
        json!({"workflow": null}),
        json!({"workflow": []}),
    ] {
        let body = json!({ "prompt": graph, "extra_data": { "extra_pnginfo": odd } });
        refused(world, &text(body.to_string()))?;
    }
    let whole = json!({ "prompt": graph }).to_string();
    for poison in [
        "NaN",
        "Infinity",
        "-Infinity",
        "1e999",
        "\"\\ud800\"",
        &"9".repeat(400),
    ] {
        let color = format!("\"color\":4,\"junk\":{poison}");
        refused(world, &text(whole.replace("\"color\":4", &color)))?;
    }
    for kind in [
        "application/json; charset=utf-16",
        "application/json; charset=utf-7",
    ] {
        let ask = Ask::post("/prompt")
            .bearer(&world.bob.token)
            .body(kind, whole.clone());
        ensure!(world.ask(&ask)?.status == 415, "{kind}");
    }
    world.run(&world.bob, &picture("d4_good", 4))?;
    for user in world.users() {
        for target in ["/history", "/queue", "/api/jobs"] {
            let answer = world.get(user, target)?;
            if target == "/api/jobs" && !world.has_route(target)? {
                not_there("d4", target);
                continue;
            }
            ensure!(answer.status == 200, "{target}: {}", answer.status);
            ensure!(
                serde_json::from_slice::<Value>(&answer.body).is_ok(),
                "{target}"
            );
        }
    }
    Ok(())
}

#[test]
fn d6_c4_numbers_order_ones_own_queue_only() -> Result<()> {
    let (_guard, world) = alone()?;
    let graph = picture("d6", 6);
    for number in [
        json!("nan"),
        json!("-1"),
        json!(null),
        json!([1]),
        json!({}),
    ] {
        refused(
            world,
            &text(json!({ "prompt": graph, "number": number }).to_string()),
        )?;
    }
    refused(
        world,
        &text(
            json!({ "prompt": graph })
                .to_string()
                .replacen('{', "{\"number\":NaN,", 1),
        ),
    )?;
    let hers = world.queue(&world.alice, &json!({ "prompt": slow(1.0, "d6-first") }))?;
    let next = world.queue(&world.alice, &json!({ "prompt": slow(0.2, "d6-second") }))?;
    let order = || -> Result<(Value, Value)> {
        let queue = world.get(&world.alice, "/queue")?.json();
        Ok((
            queue["queue_running"][0][1].clone(),
            queue["queue_pending"][0][1].clone(),
        ))
    };
    eventually(PATIENCE, || Ok(order()?.0 == hers.as_str()))?;
    for (color, extra) in [
        (1, json!({"number": -1e12})),
        (2, json!({"front": true})),
        (3, json!({"number": -5, "front": true})),
    ] {
        let mut body = json!({ "prompt": picture("d6_bob", color) });
        for (name, value) in extra.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        world.attempt(&world.bob, &body)?;
    }
    let (running, pending) = order()?;
    if running == hers.as_str() {
        ensure!(pending == next.as_str(), "{pending}");
    }
    ensure!(world.ended(&world.alice, &hers)?.succeeded());
    ensure!(world.ended(&world.alice, &next)?.succeeded());
    // Within one's own queue they count.
    world.queue(&world.bob, &json!({ "prompt": slow(1.0, "d6-own") }))?;
    let last = world.queue(&world.bob, &json!({ "prompt": slow(0.1, "d6-last") }))?;
    let early = json!({ "prompt": slow(0.1, "d6-early"), "front": true });
    let early = world.queue(&world.bob, &early)?;
    let pending = world.get(&world.bob, "/queue")?.json()["queue_pending"].clone();
    let place = |id: &str| {
        let rows = pending.as_array().into_iter().flatten();
        let mut sorted: Vec<(f64, &str)> = rows
            .filter_map(|row| Some((row[0].as_f64()?, row[1].as_str()?)))
            .collect();
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
        sorted.iter().position(|(_, other)| *other == id)
    };
    ensure!(place(&early) < place(&last), "{pending}");
    world.await_idle(&world.bob)
}

#[test]
fn d7_c5_c6_s28_s30_nobody_stops_clears_or_frees_what_another_has() -> Result<()> {
    let (_guard, world) = alone()?;
    let done = world.run(&world.alice, &picture("d7_done", 7))?;
    let running = world.queue(&world.alice, &json!({ "prompt": slow(2.0, "d7-running") }))?;
    let waiting = world.queue(&world.alice, &json!({ "prompt": picture("d7_waiting", 8) }))?;
    eventually(PATIENCE, || {
        let queue = world.get(&world.alice, "/queue")?.json();
        Ok(queue["queue_running"][0][1] == running.as_str())
    })?;
    let attempts = [
        ("/interrupt", json!({})),
        ("/interrupt", json!(null)),
        ("/interrupt", json!({"prompt_id": running})),
        ("/interrupt", json!({"prompt_id": ""})),
        ("/api/interrupt", json!({})),
        ("/%69nterrupt", json!({})),
        ("/queue", json!({"clear": true})),
        ("/queue", json!({"delete": [waiting, running]})),
        ("/api/queue", json!({"clear": true, "delete": [waiting]})),
        ("/history", json!({"clear": true})),
        ("/history", json!({"delete": [done.id]})),
        ("/api/history", json!({"clear": true})),
        ("/api/jobs/cancel", json!({"job_ids": [running, waiting]})),
    ];
    for by in [&world.bob, &world.owner] {
        for (target, body) in &attempts {
            world.post(by, target, body)?;
        }
        for id in [&running, &waiting] {
            for prefix in ["/api/jobs", "/api/api/jobs"] {
                world.post(by, &format!("{prefix}/{id}/cancel"), &json!({}))?;
            }
        }
        let garbage = Ask::post("/interrupt").bearer(&by.token);
        world.ask(&garbage.body("application/json", "{not json"))?;
        world.ask(&Ask::post("/interrupt").bearer(&by.token))?;
    }
    let still = world.ended(&world.alice, &running)?;
    ensure!(still.succeeded(), "{}", still.entry);
    ensure!(world.ended(&world.alice, &waiting)?.succeeded());
    let kept = world.get(&world.alice, &format!("/history/{}", done.id))?;
    ensure!(kept.json()[&done.id] == done.entry);
    // Her cache is her own as well: the same graph again makes no further file.
    let cached = || -> Result<String> {
        let body = json!({ "prompt": picture("d7_cached", 9), "client_id": "d7" });
        Ok(world.attempt(&world.alice, &body)?.picture("2")?.name)
    };
    let first = cached()?;
    let free = json!({"unload_models": true, "free_memory": true});
    ensure!(world.post(&world.bob, "/free", &free)?.status == 200);
    world.run(&world.bob, &picture("d7_bob", 10))?;
    ensure!(cached()? == first);
    // She herself can do it.
    let doomed = world.queue(&world.alice, &json!({ "prompt": slow(30.0, "d7-doomed") }))?;
    eventually(PATIENCE, || {
        let queue = world.get(&world.alice, "/queue")?.json();
        Ok(queue["queue_running"][0][1] == doomed.as_str())
    })?;
    world.post(&world.alice, "/interrupt", &json!({}))?;
    ensure!(!world.ended(&world.alice, &doomed)?.succeeded());
    world.post(&world.alice, "/history", &json!({"clear": true}))?;
    ensure!(world.get(&world.alice, "/history")?.json() == json!({}));
    Ok(())
}

#[test]
fn d11_d12_nobody_installs_or_fetches_but_an_admin() -> Result<()> {
    let (_guard, world) = together()?;
    for (method, target) in [
        ("POST", "/api/assets/seed/cancel"),
        ("POST", "/api/assets/prune"),
        ("POST", "/api/assets/download"),
        ("POST", "/api/assets/import"),
        ("POST", "/%61pi/assets/download"),
        ("POST", "/models/download"),
        ("POST", "/api/models/download"),
        ("GET", "/models/download/1"),
    ] {
        let answer = world.send(&world.bob, method, target, &json!({}))?;
        ensure!(
            answer.status == 403 && answer.code() == "admin_required",
            "{method} {target}: {} {}",
            answer.status,
            answer.text()
        );
        let admin = world.send(&world.owner, method, target, &json!({}))?;
        ensure!(admin.code() != "admin_required", "{target}");
    }
    // One huge body, and a line of many jobs, are bounded and bob's own.
    let big = vec![b' '; 17 * 1024 * 1024];
    let ask = Ask::post("/prompt")
        .bearer(&world.bob.token)
        .body("application/json", big);
    ensure!(world.ask(&ask)?.status == 413);
    Ok(())
}

#[test]
fn d12_a_long_queue_of_one_does_not_keep_another_waiting() -> Result<()> {
    let (_guard, world) = alone()?;
    let mut his = Vec::new();
    for number in 0..20 {
        let body = json!({ "prompt": slow(3.0, &format!("d12-{number}")) });
        his.push(world.queue(&world.bob, &body)?);
    }
    world.run(&world.alice, &picture("d12_alice", 12))?;
    let queue = world.get(&world.bob, "/queue")?.json();
    let pending = queue["queue_pending"].as_array().map_or(0, Vec::len);
    ensure!(pending > 10, "bob's are still there: {queue}");
    world.post(&world.bob, "/queue", &json!({"clear": true}))?;
    world.post(&world.bob, "/interrupt", &json!({}))?;
    world.await_idle(&world.bob)
}

#[test]
fn d13_d14_folders_and_bad_values_harm_nobody_else() -> Result<()> {
    let (_guard, world) = together()?;
    let id = &world.alice.id;
    for target in [
        format!("/userdata?dir=../../../{id}/user/default/d13"),
        format!("/userdata?dir=d13/{id}"),
        format!("/v2/userdata?path=..%2F..%2F..%2F{id}%2Fd13"),
        format!("/v2/userdata?path=..%252F..%252F..%252F{id}%252Fd13"),
        format!("/userdata/..%2F..%2F..%2F{id}%2Fd13.json"),
        format!("/userdata/..%252F..%252F..%252F{id}%252Fd13.json"),
    ] {
        world.get(&world.bob, &target)?;
        world.post(&world.bob, &target, &json!({}))?;
    }
    let form = Form::default()
        .file("image", "d13.png", b"x")
        .text("subfolder", &format!("../../{id}/d13/a/b"));
    world.ask(&form.post("/upload/image").bearer(&world.bob.token))?;
    let mut folders = vec![world.folder(&world.alice)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            ensure!(!name.contains("d13"), "{}", path.display());
            if path.is_dir() {
                folders.push(path.clone());
            }
        }
    }
    for target in [
        "/history?max_items=x",
        "/view?filename=x&type=bogus",
        "/api/jobs?limit=-1",
        "/userdata",
    ] {
        let answer = world.get(&world.bob, target)?;
        ensure!(answer.status >= 400, "{target}: {}", answer.status);
    }
    let bad = Ask::post("/queue").bearer(&world.bob.token);
    world.ask(&bad.body("application/json", "{"))?;
    for user in [&world.alice, &world.bob] {
        ensure!(world.get(user, "/queue")?.status == 200);
    }
    Ok(())
}

#[test]
fn s29_a_failing_job_of_one_leaves_the_workers_of_all_running() -> Result<()> {
    let (_guard, world) = together()?;
    let failing = json!({ "prompt": probe(0.1, "s29", "none", true) });
    ensure!(!world.attempt(&world.bob, &failing)?.succeeded());
    let run = |user: &User, color| world.run(user, &picture("s29", color));
    run(&world.bob, 1)?;
    let job = run(&world.alice, 2)?;
    let entry = world.get(&world.bob, "/history")?;
    ensure!(!holds(&entry.body, &job.id));
    job.entry["status"]["completed"]
        .as_bool()
        .filter(|completed| *completed)
        .context("a status")?;
    Ok(())
}
