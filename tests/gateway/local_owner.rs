//! The machine's owner: the API in process, the one-time link, events; with the gateway as a library.

use anyhow::{Context as _, Result};
use http::Method;
use sentinel_gateway::Gateway;
use sentinel_gateway::config::{ConfigFile, Settings};
use sentinel_gateway::control::{Command, Event, LocalAnswer};
use sentinel_gateway::files::DataDirectory;
use sentinel_tests::{Ask, PASSWORD};
use serde_json::{Value, json};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

struct Machine {
    gateway: Gateway,
    data: TempDir,
}

impl Machine {
    fn start(listens_by_settings: bool, settings: &[&str]) -> Result<Self> {
        let data = tempfile::tempdir()?;
        std::fs::write(
            data.path().join("config.json"),
            "{\"sharing\": {\"port\": 0}}",
        )?;
        let directory = DataDirectory::open(data.path())?;
        let mut overrides = Settings::default();
        for assignment in ["comfyui.autostart=false"].iter().chain(settings) {
            overrides.set(assignment)?;
        }
        let config = ConfigFile::open(directory.config(), overrides)?;
        let listen = (!listens_by_settings).then_some(([127, 0, 0, 1], 0).into());
        let gateway = Gateway::start(&directory, config, listen)?;
        Ok(Self { gateway, data })
    }

    fn port(&self) -> u16 {
        self.gateway.status().listening[0].port()
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> LocalAnswer {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        self.gateway
            .local_api(method, path, body.into_bytes())
            .await
    }

    async fn send(&self, ask: Ask) -> Result<sentinel_tests::Answer> {
        let port = self.port();
        tokio::task::spawn_blocking(move || ask.send(port)).await?
    }

    async fn make_owner(&self) -> Result<Value> {
        let body = json!({"username": "owner", "password": PASSWORD, "admin": true});
        let answer = self.ask(Method::POST, "/users", Some(body)).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        json_of(&answer)
    }
}

fn json_of(answer: &LocalAnswer) -> Result<Value> {
    Ok(serde_json::from_slice(&answer.body)?)
}

fn login(name: &str, agent: &str, address: &str) -> Ask {
    Ask::post("/login")
        .json(&json!({"username": name, "password": PASSWORD}))
        .header("User-Agent", agent)
        .from(address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_owner_administers_without_a_password() -> Result<()> {
    let machine = Machine::start(false, &[])?;
    let me = machine.ask(Method::GET, "/me", None).await;
    assert_eq!(
        (me.status, me.content_type.as_str()),
        (200, "application/json")
    );
    let me = json_of(&me)?;
    assert_eq!(
        (&me["via"], &me["admin"], &me["can_step_up"], &me["id"]),
        (&json!("machine"), &json!(true), &json!(false), &Value::Null)
    );
    let before = machine.gateway.status();
    assert!(!before.has_account && before.setup_code.is_some());
    // A guest must not become the first account.
    let invite = machine
        .ask(Method::POST, "/invites", Some(json!({"expire_hours": 1})))
        .await;
    assert_eq!(
        (invite.status, json_of(&invite)?["code"].clone()),
        (409, json!("no_admin"))
    );
    let owner = machine.make_owner().await?;
    let status = machine.gateway.status();
    assert!(status.has_account && status.setup_code.is_none());
    // Also the way back in when nobody knows the password any more.
    let path = format!("/users/{}/password", owner["id"].as_str().context("an id")?);
    let body = json!({"new_password": "another-horse-8"});
    assert_eq!(
        machine.ask(Method::POST, &path, Some(body)).await.status,
        204
    );
    for (method, path) in [
        (Method::GET, "/sessions"),
        (Method::GET, "/tokens"),
        (Method::POST, "/step-up"),
        (Method::POST, "/password"),
        (Method::POST, "/tokens"),
    ] {
        let body = json!({"password": "x", "current_password": "x", "new_password": "x", "name": "x", "expire_hours": 1});
        let answer = machine.ask(method, path, Some(body)).await;
        assert_eq!(
            (answer.status, json_of(&answer)?["code"].clone()),
            (409, json!("no_account")),
            "{path}"
        );
    }
    for path in [
        "/engine",
        "/status",
        "/config",
        "/access",
        "/sharing",
        "/openapi.json",
        "/users?x=1",
    ] {
        assert_eq!(
            machine.ask(Method::GET, path, None).await.status,
            200,
            "{path}"
        );
    }
    assert_eq!(machine.ask(Method::GET, "/nothing", None).await.status, 404);
    assert_eq!(machine.ask(Method::GET, "/ \r\n", None).await.status, 400);
    let audit = json_of(&machine.ask(Method::GET, "/audit", None).await)?;
    assert_eq!(audit["entries"][0]["user"], "this machine", "{audit}");
    machine.gateway.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_from_the_network_becomes_the_owner() -> Result<()> {
    let machine = Machine::start(false, &[])?;
    machine.make_owner().await?;
    for path in ["/sentinel/api/me", "/sentinel/api/users", "/me", "/users"] {
        for (name, value) in [
            ("Authorization", "Bearer this machine"),
            ("Cookie", "jwt_token=this machine"),
            ("MachineOwner", "1"),
            ("X-Sentinel-Proof", "machine"),
            ("Host", "localhost"),
        ] {
            let answer = machine.send(Ask::get(path).header(name, value)).await?;
            assert_eq!(answer.status, 401, "{path} {name}");
        }
    }
    let registered = machine
        .send(Ask::post("/login").json(&json!({"username": "this machine", "password": PASSWORD})))
        .await?;
    assert_eq!(registered.status, 401);
    machine.gateway.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_link_signs_in_once_and_from_this_machine_only() -> Result<()> {
    let machine = Machine::start(false, &["trusted_proxies=127.0.0.1/32"])?;
    assert_eq!(machine.gateway.sign_in_link(), None);
    machine.make_owner().await?;
    let link = machine.gateway.sign_in_link().context("a link")?;
    let base = machine.gateway.status().local_url;
    let path = link
        .strip_prefix(&base)
        .context("a link of ours")?
        .to_owned();
    assert!(path.starts_with("/enter?code="), "{link}");
    // Through a proxy, and somebody elsewhere: refused, and the link is not used up.
    for address in ["127.0.0.1", "::1", "192.168.1.50", "nonsense"] {
        let answer = machine.send(Ask::get(&path).from(address)).await?;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (403, "link_invalid"),
            "{address}"
        );
    }
    for header in ["Forwarded", "X-Real-IP", "Via", "X-Forwarded-Host"] {
        let answer = machine
            .send(Ask::get(&path).header(header, "localhost"))
            .await?;
        assert_eq!(answer.status, 403, "{header}");
    }
    assert_eq!(machine.send(Ask::post(&path)).await?.status, 405);
    let entered = machine
        .send(Ask::get(&format!("{path}&next=/sentinel/")))
        .await?;
    assert_eq!(
        (entered.status, entered.header("location")),
        (302, Some("/sentinel/"))
    );
    let cookie = entered.header("set-cookie").context("a cookie")?;
    assert!(cookie.contains("HttpOnly; SameSite=Strict"), "{cookie}");
    let token = cookie["jwt_token=".len()..]
        .split(';')
        .next()
        .context("a token")?
        .to_owned();
    let me = machine
        .send(Ask::get("/sentinel/api/me").cookie(&token))
        .await?
        .json();
    assert_eq!(me["username"], "owner");
    let again = machine.send(Ask::get(&path)).await?;
    assert_eq!((again.status, again.code().as_str()), (403, "link_invalid"));
    let link = machine.gateway.sign_in_link().context("a link")?;
    let path = link.strip_prefix(&base).context("a link of ours")?;
    let away = machine
        .send(Ask::get(&format!("{path}&next=//evil.example/")))
        .await?;
    assert_eq!((away.status, away.header("location")), (302, Some("/")));
    let signed_in = machine.gateway.status().signed_in;
    assert_eq!(signed_in.len(), 1);
    assert_eq!(signed_in[0].addresses, ["127.0.0.1"]);
    machine.gateway.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_devices_of_admins_and_bans_are_told() -> Result<()> {
    let settings = ["trusted_proxies=127.0.0.1/32", "blacklist_after_attempts=3"];
    let machine = Machine::start(false, &settings)?;
    machine.make_owner().await?;
    let body = json!({"username": "anna", "password": PASSWORD});
    machine.ask(Method::POST, "/users", Some(body)).await;
    let mut events = machine.gateway.events();
    let mut changes = machine.gateway.changes();
    changes.mark_unchanged();
    let device = |address: &str| Event::AdminFromNewDevice {
        username: "owner".to_owned(),
        address: address.to_owned(),
    };
    for (name, agent, address) in [
        ("anna", "Browser", "192.168.1.50"),
        ("owner", "Browser", "192.168.1.50"),
        ("owner", "Browser", "192.168.1.50"),
        ("owner", "Other", "192.168.1.50"),
        ("owner", "Other", "192.168.1.51"),
        ("owner", "Browser", "192.168.1.50"),
    ] {
        assert_eq!(machine.send(login(name, agent, address)).await?.status, 200);
    }
    timeout(PATIENCE, changes.changed()).await??;
    for address in ["192.168.1.50", "192.168.1.50", "192.168.1.51"] {
        assert_eq!(timeout(PATIENCE, events.recv()).await??, device(address));
    }
    for _ in 0..3 {
        let ask = Ask::post("/login").json(&json!({"username": "owner", "password": "wrong"}));
        machine.send(ask.from("192.168.1.66")).await?;
    }
    let banned = Event::AddressBanned {
        address: "192.168.1.66".to_owned(),
    };
    assert_eq!(timeout(PATIENCE, events.recv()).await??, banned);
    assert!(events.try_recv().is_err());
    machine.gateway.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sharing_is_one_command_and_is_written_down() -> Result<()> {
    let machine = Machine::start(true, &[])?;
    machine.make_owner().await?;
    let port = machine.port();
    let mut changes = machine.gateway.changes();
    for is_shared in [true, false] {
        machine.gateway.command(Command::Share(is_shared));
        timeout(PATIENCE, async {
            while machine.gateway.status().sharing.is_enabled != is_shared {
                changes.changed().await?;
            }
            Ok::<_, anyhow::Error>(())
        })
        .await??;
        let status = machine.gateway.status();
        assert_eq!(status.sharing.fault, None);
        assert_eq!(status.listening[0].port(), port);
        assert_eq!(status.listening[0].ip().is_loopback(), !is_shared);
        if !is_shared {
            assert!(status.sharing.urls.is_empty());
        }
        let written = std::fs::read_to_string(machine.data.path().join("config.json"))?;
        let written: Value = serde_json::from_str(&written)?;
        assert_eq!(written["sharing"]["enabled"], is_shared);
        assert_eq!(
            machine.send(Ask::get("/sentinel/health")).await?.status,
            200
        );
    }
    machine.gateway.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_against_the_command_line_is_told_and_changes_nothing() -> Result<()> {
    for (listens_by_settings, settings) in [(true, &["sharing.enabled=false"][..]), (false, &[])] {
        let machine = Machine::start(listens_by_settings, settings)?;
        let mut changes = machine.gateway.changes();
        machine.gateway.command(Command::Share(true));
        timeout(PATIENCE, async {
            while machine.gateway.status().sharing.fault.is_none() {
                changes.changed().await?;
            }
            Ok::<_, anyhow::Error>(())
        })
        .await??;
        let status = machine.gateway.status();
        assert!(!status.sharing.is_enabled && status.listening[0].ip().is_loopback());
        let fault = status.sharing.fault.context("a fault")?;
        assert!(fault.contains("command line"), "{fault}");
        assert!(status.warnings.contains(&fault));
        machine.gateway.stop().await;
    }
    Ok(())
}
