//! Users at random.

use crate::observe::Look;
use crate::{Options, say};
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use sentinel_tests::{Answer, Ask, Gateway, PASSWORD, Socket, eventually};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

/// Engines alive at once: fewer than users, so that they make room for each other.
const ENGINES: usize = 4;
/// Growth of the gateway's memory that is not called a leak, KiB.
const MEMORY_GROWTH: u64 = 6 * 1024;
/// Growth of open files that is not called a leak.
const FILE_GROWTH: usize = 24;
/// How long it may take until all has come to rest in the end.
const REST: Duration = Duration::from_secs(120);

#[derive(Debug, Default)]
struct Tally {
    requests: AtomicU64,
    prompts: AtomicU64,
    sockets: AtomicU64,
    kills: AtomicU64,
    changes: AtomicU64,
}

struct Scene<'scene> {
    gateway: &'scene Gateway,
    /// The owner's API token.
    admin: &'scene str,
    ids: &'scene [String],
    tally: &'scene Tally,
    is_over: &'scene AtomicBool,
}

impl Scene<'_> {
    /// A failure ends it for all.
    fn ending(&self, result: Result<()>) -> Result<()> {
        if result.is_err() {
            self.is_over.store(true, Ordering::Relaxed);
        }
        result
    }
}

/// Runs for `options.minutes`.
pub(crate) fn soak(options: Options) -> Result<()> {
    let gateway = Gateway::start(
        sentinel_tests::Options::default()
            .set("separate_users=true")
            .set(&format!("comfyui.max_engines={ENGINES}"))
            .set("comfyui.idle_stop_minutes=1")
            .set("comfyui.start_wait_seconds=20")
            .behind_a_proxy(),
    )?;
    let admin = gateway.admin_token()?;
    let users: Vec<String> = (0..options.users)
        .map(|number| format!("user{number}"))
        .collect();
    for user in &users {
        gateway.add_user(user)?;
    }
    let list = ask_admin(&gateway, &admin, "GET", "users", None)?.json();
    let ids = users
        .iter()
        .map(|user| {
            let accounts = list["users"].as_array();
            let own = accounts
                .into_iter()
                .flatten()
                .find(|account| account["username"] == *user);
            let id = own.and_then(|account| account["id"].as_str());
            Ok(id.with_context(|| format!("no account {user}"))?.to_owned())
        })
        .collect::<Result<Vec<String>>>()?;
    let tally = Tally::default();
    let is_over = AtomicBool::new(false);
    let scene = Scene {
        gateway: &gateway,
        admin: &admin,
        ids: &ids,
        tally: &tally,
        is_over: &is_over,
    };
    let length = Duration::from_secs(options.minutes * 60);
    let looks = thread::scope(|scope| -> Result<Vec<Look>> {
        let mut threads = Vec::new();
        for (number, user) in (0_u64..).zip(&users) {
            let scene = &scene;
            threads.push(scope.spawn(move || scene.ending(live(scene, user, number))));
        }
        threads.push(scope.spawn(|| scene.ending(disturb(&scene))));
        let looks = watch(&scene, length);
        is_over.store(true, Ordering::Relaxed);
        for thread in threads {
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("a user's thread panicked"))??;
        }
        looks
    })?;
    rest(&gateway, &admin, &ids)?;
    let end = Look::at(&gateway)?;
    report(&looks, end, &tally);
    judge(&looks, end, users.len())?;
    let data = gateway.stop()?;
    drop(data);
    say("soak: nothing leaked");
    Ok(())
}

fn watch(scene: &Scene<'_>, length: Duration) -> Result<Vec<Look>> {
    let started = Instant::now();
    let mut looks = Vec::new();
    while started.elapsed() < length && !scene.is_over.load(Ordering::Relaxed) {
        looks.push(Look::at(scene.gateway)?);
        sleep(Duration::from_secs(5).min(length.saturating_sub(started.elapsed())));
    }
    Ok(looks)
}

fn ask_admin(
    gateway: &Gateway,
    token: &str,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Result<Answer> {
    let ask = Ask::new(method, &format!("/sentinel/api/{path}")).bearer(token);
    let answer = gateway.ask(&match body {
        Some(body) => ask.json(body),
        None => ask,
    })?;
    ensure!(answer.status < 300, "{method} {path}: {}", answer.text());
    Ok(answer)
}

/// All engines stopped, nobody signed in from these threads any more.
fn rest(gateway: &Gateway, admin: &str, ids: &[String]) -> Result<()> {
    for id in ids {
        let path = format!("users/{id}/sessions");
        ask_admin(gateway, admin, "DELETE", &path, None)?;
    }
    ask_admin(gateway, admin, "POST", "engine/stop", None)?;
    eventually(REST, || Ok(gateway.descendants().is_empty())).context("processes are left")
}

fn judge(looks: &[Look], end: Look, users: usize) -> Result<()> {
    let fifth = looks.len() / 5;
    let early = looks.get(fifth).context("too short to judge")?;
    // While somebody signs in, a hash takes 19 MiB for a moment; the least of a span is without.
    let least = |span: &[Look]| span.iter().map(|look| look.memory).min();
    let first =
        least(looks.get(fifth..2 * fifth).unwrap_or_default()).context("too short to judge")?;
    let last = least(looks.get(4 * fifth..).unwrap_or_default()).context("too short to judge")?;
    ensure!(
        last <= first + MEMORY_GROWTH,
        "memory grew from {first} to {last} KiB"
    );
    ensure!(
        end.files <= early.files + FILE_GROWTH,
        "open files grew from {} to {}",
        early.files,
        end.files
    );
    ensure!(
        end.threads <= early.threads + 4,
        "threads grew from {} to {}",
        early.threads,
        end.threads
    );
    let most = looks.iter().map(|look| look.processes).max().unwrap_or(0);
    // Each engine has a guard; one more pair may be on its way out.
    ensure!(most <= 2 * (ENGINES + 1), "{most} processes at once");
    ensure!(end.processes == 0, "{} processes are left", end.processes);
    ensure!(
        end.directories <= users,
        "{} directories for {users} users",
        end.directories
    );
    Ok(())
}

fn report(looks: &[Look], end: Look, tally: &Tally) {
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    say(&format!(
        "soak: {} requests, {} prompts, {} sockets, {} engines killed, {} changes of accounts and engines",
        count(&tally.requests),
        count(&tally.prompts),
        count(&tally.sockets),
        count(&tally.kills),
        count(&tally.changes),
    ));
    let step = (looks.len() / 12).max(1);
    for look in looks.iter().step_by(step).chain([&end]) {
        say(&format!(
            "soak: memory {} KiB, files {}, threads {}, processes {}, directories {}",
            look.memory, look.files, look.threads, look.processes, look.directories
        ));
    }
}

/// One user's life: what he sees must always be his own.
fn live(scene: &Scene<'_>, user: &str, seed: u64) -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut token: Option<String> = None;
    // Each at an address of his own: failures of one lock nobody else out.
    let address = format!("10.9.0.{}", seed + 1);
    while !scene.is_over.load(Ordering::Relaxed) {
        let Some(own) = token.clone() else {
            let body = json!({ "username": user, "password": PASSWORD });
            let answer = ask(scene, &Ask::post("/login").from(&address).json(&body))?;
            token = answer.json()["jwt_token"].as_str().map(str::to_owned);
            if token.is_none() {
                sleep(Duration::from_millis(200));
            }
            continue;
        };
        let answer = match random.random_range(0..12) {
            0..=3 => prompt(scene, user, &own, &mut random)?,
            4 | 5 => history(scene, user, &own)?,
            6 => ask(scene, &Ask::get("/").browser().cookie(&own))?,
            7 => ask(scene, &Ask::post("/interrupt").bearer(&own))?,
            8 => {
                let body = json!({ "clear": true });
                ask(scene, &Ask::post("/queue").bearer(&own).json(&body))?
            }
            9 => {
                runtime.block_on(socket(scene, user, &own))?;
                continue;
            }
            10 => {
                token = None;
                ask(scene, &Ask::get("/logout").cookie(&own))?
            }
            _ => ask(scene, &Ask::get("/sentinel/api/gallery").bearer(&own))?,
        };
        if answer.status == 401 {
            token = None;
        }
        sleep(Duration::from_millis(random.random_range(0..400)));
    }
    Ok(())
}

fn ask(scene: &Scene<'_>, ask: &Ask) -> Result<Answer> {
    scene.tally.requests.fetch_add(1, Ordering::Relaxed);
    let answer = scene.gateway.ask(ask)?;
    ensure!(
        answer.status != 500,
        "an internal error: {} {}",
        answer.status,
        answer.text()
    );
    Ok(answer)
}

fn prompt(scene: &Scene<'_>, user: &str, token: &str, random: &mut StdRng) -> Result<Answer> {
    scene.tally.prompts.fetch_add(1, Ordering::Relaxed);
    let color = random.random_range(0..0xff_ffff);
    let seconds = f64::from(random.random_range(0..4_u8)) / 10.0;
    let body = json!({
        "client_id": user,
        "prompt": {
            "1": {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 32, "batch_size": 1, "color": color}},
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": user}},
            "3": {"class_type": "SlowProbe", "inputs":
                {"seconds": seconds, "steps": 1, "preview": "none", "tag": format!("{user}-{color}"), "fail": false}},
            "4": {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}},
        },
    });
    ask(scene, &Ask::post("/prompt").bearer(token).json(&body))
}

/// Nothing in it may be somebody else's.
fn history(scene: &Scene<'_>, user: &str, token: &str) -> Result<Answer> {
    let answer = ask(scene, &Ask::get("/history").bearer(token))?;
    if answer.status == 200 {
        for (id, entry) in answer.json().as_object().into_iter().flatten() {
            let owner = &entry["prompt"][3]["client_id"];
            ensure!(owner == user, "{user} sees {id} of {owner}");
        }
    }
    Ok(answer)
}

/// Listens for a moment; every prompt that is told of must be his own.
async fn socket(scene: &Scene<'_>, user: &str, token: &str) -> Result<()> {
    scene.tally.sockets.fetch_add(1, Ordering::Relaxed);
    let bearer = format!("Bearer {token}");
    let target = format!("/ws?clientId={user}");
    let headers = [("Authorization", bearer.as_str())];
    let attempt = Socket::attempt(scene.gateway.port, &target, &headers);
    let Ok(Ok(mut socket)) = attempt.await else {
        return Ok(());
    };
    let until = tokio::time::Instant::now() + Duration::from_secs(1);
    while let Ok(Ok(event)) = tokio::time::timeout_at(until, socket.next_json()).await {
        check_event(user, &event)?;
    }
    Ok(())
}

fn check_event(user: &str, event: &Value) -> Result<()> {
    let pictures = event["data"]["output"]["images"].as_array();
    for picture in pictures.into_iter().flatten() {
        let name = picture["filename"].as_str().unwrap_or_default();
        let is_own = name.starts_with(user) || picture["type"] == "temp";
        ensure!(is_own, "{user} is told of {name}");
    }
    Ok(())
}

/// Disables and enables users, stops and kills engines.
fn disturb(scene: &Scene<'_>) -> Result<()> {
    let mut random = StdRng::seed_from_u64(4711);
    let order = |method: &str, path: &str, body: Option<&Value>| {
        ask_admin(scene.gateway, scene.admin, method, path, body)
    };
    while !scene.is_over.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(random.random_range(300..2500)));
        let Some(id) = scene.ids.choose(&mut random) else {
            return Ok(());
        };
        match random.random_range(0..6) {
            0 | 1 => {
                let engines = scene.gateway.engine_processes();
                if let Some(process) = engines.choose(&mut random) {
                    // It may be gone by now.
                    let _ = kill(Pid::from_raw((*process).try_into()?), Signal::SIGKILL);
                    scene.tally.kills.fetch_add(1, Ordering::Relaxed);
                }
            }
            2 => {
                for disabled in [true, false] {
                    let body = json!({ "disabled": disabled });
                    order("PATCH", &format!("users/{id}"), Some(&body))?;
                    sleep(Duration::from_millis(random.random_range(0..800)));
                }
                scene.tally.changes.fetch_add(1, Ordering::Relaxed);
            }
            3 => {
                order("DELETE", &format!("users/{id}/sessions"), None)?;
                scene.tally.changes.fetch_add(1, Ordering::Relaxed);
            }
            4 => {
                order("POST", &format!("engines/{id}/restart"), None)?;
                scene.tally.changes.fetch_add(1, Ordering::Relaxed);
            }
            _ => {
                let list = order("GET", "engines", None)?.json();
                let alive = list["engines"].as_array().map_or(0, |engines| {
                    let is_alive = |engine: &&Value| {
                        engine["state"] != "stopped" && engine["state"] != "failed"
                    };
                    engines.iter().filter(is_alive).count()
                });
                // An admin's restart may bring one more than visits would.
                ensure!(alive <= ENGINES + scene.ids.len(), "{alive} engines live");
            }
        }
    }
    Ok(())
}
