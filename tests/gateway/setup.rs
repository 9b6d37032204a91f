//! The first steps: trying ComfyUI out, installing it, the first admin.

use anyhow::{Context as _, Result, bail};
use http::Method;
use sentinel_gateway::Gateway as Door;
use sentinel_gateway::config::{ConfigFile, Settings};
use sentinel_gateway::files::DataDirectory;
use sentinel_tests::{Ask, Gateway, Options, PASSWORD, eventually};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

fn begin(gateway: &Gateway, what: &str, body: &Value) -> Result<String> {
    let answer = gateway.admin("POST", &format!("setup/{what}"), Some(body))?;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let job = answer.json()["job"].as_str().map(str::to_owned);
    job.context("a job")
}

fn look(gateway: &Gateway, job: &str) -> Result<Value> {
    Ok(gateway
        .admin("GET", &format!("setup/jobs/{job}"), None)?
        .json())
}

fn ended(gateway: &Gateway, job: &str) -> Result<Value> {
    let mut seen = Value::Null;
    eventually(PATIENCE, || {
        seen = look(gateway, job)?;
        Ok(seen["state"] != "running")
    })?;
    Ok(seen)
}

fn temporary_places(gateway: &Gateway) -> Result<Vec<PathBuf>> {
    let mark = "sentinel-check-";
    let entries = fs::read_dir(gateway.data.path().join("scratch"))?;
    Ok(entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(mark))
        })
        .collect())
}

/// A gateway whose temporary files can be looked at.
fn start(options: Options) -> Result<Gateway> {
    let data = std::sync::Arc::new(tempfile::tempdir()?);
    let scratch = data.path().join("scratch");
    fs::create_dir(&scratch)?;
    let options = options
        .data(&data)
        .environment("TMPDIR", &scratch.display().to_string());
    let mut gateway = Gateway::start(options)?;
    gateway.register_first("owner", PASSWORD)?;
    gateway.owner = gateway.sign_in("owner")?;
    Ok(gateway)
}

#[test]
fn a_check_really_starts_comfyui_and_leaves_nothing() -> Result<()> {
    let gateway = start(Options::default())?;
    gateway.await_state("ready")?;
    let before = gateway.engine_processes();
    let job = begin(&gateway, "check", &json!({"directory": "demo"}))?;
    let seen = ended(&gateway, &job)?;
    assert_eq!(seen["state"], "done", "{seen}");
    assert_eq!(
        (&seen["kind"], &seen["progress"]),
        (&json!("check"), &json!(1.0))
    );
    assert_eq!(seen["result"]["directory"], "demo");
    assert!(seen["result"]["version"].is_string(), "{seen}");
    let lines = seen["log"].as_array().context("a log")?;
    assert!(!lines.is_empty() && lines.len() <= 200);
    assert_eq!(gateway.engine_processes(), before);
    assert!(temporary_places(&gateway)?.is_empty());
    assert_eq!(gateway.engine()?["state"], "ready");
    assert_eq!(look(&gateway, "unknown")?["code"], "not_found");
    Ok(())
}

#[test]
fn a_check_that_fails_says_why() -> Result<()> {
    let gateway = start(Options::default().fault("crash-at-start"))?;
    let empty = tempfile::tempdir()?;
    for (body, words) in [
        (json!({"directory": empty.path()}), "no main.py"),
        (json!({"directory": "/no/such/folder"}), "no main.py"),
    ] {
        let job = begin(&gateway, "check", &body)?;
        let seen = ended(&gateway, &job)?;
        assert_eq!(
            (&seen["state"], &seen["result"]),
            (&json!("failed"), &Value::Null)
        );
        let message = seen["message"].as_str().context("a message")?;
        assert!(message.contains(words), "{message}");
    }
    for wrong in [
        json!({"directory": "relative"}),
        json!({"directory": ""}),
        json!({}),
    ] {
        let answer = gateway.admin("POST", "setup/check", Some(&wrong))?;
        assert_eq!(answer.status, 400, "{wrong}");
    }
    Ok(())
}

/// A folder with programs that pretend to be Python, comfy-cli and git.
struct Pretence {
    folder: TempDir,
}

impl Pretence {
    /// `comfy` is what comfy-cli does: a shell script that gets the workspace as `$3`.
    fn new(version: &str, comfy: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let pretence = Self { folder };
        let python = format!(
            "case \"$1 $2\" in\n\
             '-c '*) echo {version} ;;\n\
             '-m venv') mkdir -p \"$3/bin\"; cp \"$0\" \"$3/bin/python\"; \
                cp '{}' \"$3/bin/comfy\" ;;\n\
             '-m pip') echo Successfully installed comfy-cli ;;\n\
             esac",
            pretence.folder.path().join("comfy").display()
        );
        for (name, script) in [("comfy", comfy), ("git", "exit 0"), ("python3", &python)] {
            pretence.program(name, script)?;
        }
        Ok(pretence)
    }

    fn program(&self, name: &str, script: &str) -> Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.folder.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n"))?;
        Ok(fs::set_permissions(
            path,
            fs::Permissions::from_mode(0o755),
        )?)
    }

    /// A gateway that finds nothing but these and what scripts need.
    fn gateway(&self) -> Result<Gateway> {
        for name in ["sh", "mkdir", "cp", "cat", "sleep", "touch", "env"] {
            let real = ["/bin", "/usr/bin"]
                .map(|folder| Path::new(folder).join(name))
                .into_iter()
                .find(|path| path.exists());
            let link = self.folder.path().join(name);
            if let Some(real) = real.filter(|_| !link.exists()) {
                std::os::unix::fs::symlink(real, link)?;
            }
        }
        let path = self.folder.path().display().to_string();
        start(Options::default().environment("PATH", &path))
    }
}

/// Makes what looks like ComfyUI.
const COMFY: &str = "echo \"Cloning with $1 $2 $4 $5\"\n\
    test \"$VIRTUAL_ENV\" != '' || exit 9\n\
    mkdir -p \"$3/comfy\"; touch \"$3/main.py\" \"$3/comfy/cli_args.py\"\n\
    echo '__version__ = \"9.9.9\"' > \"$3/comfyui_version.py\"";

#[test]
fn comfyui_is_installed_with_comfy_cli() -> Result<()> {
    let gateway = Pretence::new("3.12", COMFY)?.gateway_kept()?;
    let gateway = &gateway.1;
    let place = tempfile::tempdir()?;
    let directory = place.path().join("new/ComfyUI home");
    let job = begin(
        gateway,
        "install",
        &json!({"directory": directory, "gpu": "cpu"}),
    )?;
    let seen = ended(gateway, &job)?;
    assert_eq!(seen["state"], "done", "{seen}");
    assert_eq!(seen["result"]["version"], "9.9.9");
    assert_eq!(
        seen["result"]["directory"],
        json!(directory.join("ComfyUI"))
    );
    assert_eq!(
        seen["result"]["python"],
        json!(directory.join("venv/bin/python"))
    );
    assert_eq!(seen["result"]["arguments"], json!(["--cpu"]));
    let log = seen["log"].to_string();
    assert!(
        log.contains("Cloning with --skip-prompt --workspace install --cpu"),
        "{log}"
    );
    // What is there is not installed over.
    let job = begin(
        gateway,
        "install",
        &json!({"directory": directory, "gpu": "nvidia"}),
    )?;
    let seen = ended(gateway, &job)?;
    assert_eq!(seen["state"], "failed");
    assert!(
        seen["message"]
            .as_str()
            .unwrap_or_default()
            .contains("already"),
        "{seen}"
    );
    let other = place.path().join("other");
    fs::create_dir(&other)?;
    fs::write(other.join("holiday.jpg"), "x")?;
    let job = begin(
        gateway,
        "install",
        &json!({"directory": other, "gpu": "nvidia"}),
    )?;
    let seen = ended(gateway, &job)?;
    assert!(
        seen["message"]
            .as_str()
            .unwrap_or_default()
            .contains("not empty"),
        "{seen}"
    );
    assert!(other.join("holiday.jpg").exists());
    for wrong in [
        json!({"directory": "relative", "gpu": "cpu"}),
        json!({"directory": "/x", "gpu": "voodoo"}),
    ] {
        assert_eq!(
            gateway.admin("POST", "setup/install", Some(&wrong))?.status,
            400
        );
    }
    Ok(())
}

impl Pretence {
    /// Keeps the folder as long as the gateway.
    fn gateway_kept(self) -> Result<(Self, Gateway)> {
        let gateway = self.gateway()?;
        Ok((self, gateway))
    }
}

#[test]
fn a_failed_installation_says_why_and_leaves_room_for_the_next_try() -> Result<()> {
    let (pretence, gateway) = Pretence::new(
        "3.11",
        "mkdir -p \"$3\"; touch \"$3/half\"\n\
         echo \"fatal: unable to access 'https://example.org/': Could not resolve host: example.org\" >&2\n\
         exit 1",
    )?
    .gateway_kept()?;
    let place = tempfile::tempdir()?;
    let body = json!({"directory": place.path(), "gpu": "nvidia"});
    let seen = ended(&gateway, &begin(&gateway, "install", &body)?)?;
    assert_eq!(seen["state"], "failed");
    let message = seen["message"].as_str().context("a message")?;
    assert!(message.contains("connected to the internet"), "{message}");
    assert!(!place.path().join("ComfyUI").exists());
    pretence.program("comfy", COMFY)?;
    let seen = ended(&gateway, &begin(&gateway, "install", &body)?)?;
    assert_eq!(seen["state"], "done", "{seen}");
    Ok(())
}

#[test]
fn without_a_fitting_python_or_git_it_is_said_plainly() -> Result<()> {
    for (version, without, words) in [
        ("3.9", None, "Python 3.9 is installed, but ComfyUI needs"),
        ("3.12", Some("python3"), "No Python was found"),
        ("3.12", Some("git"), "The program git is missing"),
        ("3.12; echo ensurepip", None, "lacks its part"),
    ] {
        let (pretence, gateway) = Pretence::new(version, COMFY)?.gateway_kept()?;
        if let Some(name) = without {
            fs::remove_file(pretence.folder.path().join(name))?;
        }
        let place = tempfile::tempdir()?;
        let body = json!({"directory": place.path(), "gpu": "amd"});
        let seen = ended(&gateway, &begin(&gateway, "install", &body)?)?;
        let message = seen["message"].as_str().context("a message")?;
        assert!(message.contains(words), "{message}");
    }
    Ok(())
}

#[test]
fn one_job_at_a_time_and_cancelling_ends_the_whole_tree() -> Result<()> {
    let (_pretence, mut gateway) = Pretence::new(
        "3.12",
        "mkdir -p \"$3\"; echo begun; (sleep 987654 & exec sleep 987654)",
    )?
    .gateway_kept()?;
    let sleepers = |gateway: &Gateway| {
        let is_sleeper = |id: &u32| {
            fs::read(format!("/proc/{id}/cmdline"))
                .is_ok_and(|line| line.windows(6).any(|part| part == b"987654"))
        };
        gateway.descendants().into_iter().filter(is_sleeper).count()
    };
    let place = tempfile::tempdir()?;
    let body = json!({"directory": place.path(), "gpu": "nvidia"});
    let job = begin(&gateway, "install", &body)?;
    eventually(PATIENCE, || Ok(sleepers(&gateway) == 2))?;
    let second = gateway.admin("POST", "setup/check", Some(&json!({"directory": "demo"})))?;
    assert_eq!(
        (second.status, second.code().as_str()),
        (409, "job_running")
    );
    assert_eq!(second.json()["job"], json!(job));
    let seen = look(&gateway, &job)?;
    assert_eq!(
        (&seen["state"], &seen["progress"]),
        (&json!("running"), &Value::Null)
    );
    assert_eq!(
        gateway
            .admin("DELETE", &format!("setup/jobs/{job}"), None)?
            .status,
        204
    );
    let seen = ended(&gateway, &job)?;
    assert_eq!(
        (&seen["state"], &seen["message"]),
        (&json!("cancelled"), &Value::Null)
    );
    assert_eq!(sleepers(&gateway), 0);
    assert!(!place.path().join("ComfyUI").exists());
    // The end of the gateway cancels too.
    begin(&gateway, "install", &body)?;
    eventually(PATIENCE, || Ok(sleepers(&gateway) == 2))?;
    gateway.signal(nix::sys::signal::Signal::SIGTERM)?;
    gateway.ended_within(PATIENCE)?;
    assert!(gateway.descendants().is_empty());
    Ok(())
}

#[test]
fn installations_are_listed_and_all_of_it_is_for_admins() -> Result<()> {
    let gateway = Gateway::start(Options::default().without_engine())?;
    let found = gateway.admin("GET", "setup/installations", None)?;
    assert!(found.json()["installations"].is_array(), "{}", found.text());
    let gpus = found.json()["gpus"].to_string();
    assert!(gpus.contains("\"cpu\""), "{gpus}");
    // comfy-cli refuses it here.
    assert!(!gpus.contains("\"mac\""), "{gpus}");
    let shown = gateway.admin("GET", "setup", None)?.json();
    assert_eq!(
        (&shown["has_admin"], &shown["comfyui_dir"]),
        (&json!(true), &json!("demo"))
    );
    assert_eq!(shown["finished"], true);
    gateway.add_user("anna")?;
    let anna = gateway.sign_in("anna")?;
    for (method, path) in [
        ("GET", "setup"),
        ("GET", "setup/installations"),
        ("POST", "setup/check"),
        ("POST", "setup/install"),
        ("GET", "setup/jobs/x"),
        ("DELETE", "setup/jobs/x"),
        ("POST", "setup/finish"),
        ("POST", "setup/admin"),
    ] {
        let ask = Ask::new(method, &format!("/sentinel/api/{path}")).json(&json!({}));
        assert_eq!(gateway.ask(&ask)?.status, 401, "{path}");
        assert_eq!(
            gateway.ask(&ask.clone().bearer(&anna))?.code(),
            "admin_required",
            "{path}"
        );
        let owner = gateway.ask(&ask.bearer(&gateway.owner))?;
        assert_eq!(owner.code(), "step_up_required", "{path}");
    }
    // Not even an admin makes admins this way over the network.
    let credentials = json!({"username": "mallory", "password": PASSWORD});
    let answer = gateway.admin("POST", "setup/admin", Some(&credentials))?;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (403, "machine_owner_required")
    );
    let finish = json!({"comfyui": {"dir": "demo"}, "admin": credentials, "sharing": {"enabled": false},
        "separate_users": true, "manager_admin_only": true});
    let answer = gateway.admin("POST", "setup/finish", Some(&finish))?;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (403, "machine_owner_required")
    );
    Ok(())
}

/// A gateway in this process, asked as its window does.
struct Window {
    door: Door,
    place: TempDir,
}

impl Window {
    fn open() -> Result<Self> {
        let place = tempfile::tempdir()?;
        let data = DataDirectory::open(place.path())?;
        let mut overrides = Settings::default();
        overrides.set("comfyui.autostart=false")?;
        let config = ConfigFile::open(data.config(), overrides)?;
        let door = Door::start(&data, config, Some("127.0.0.1:0".parse()?))?;
        Ok(Self { door, place })
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let body = body.to_string().into_bytes();
        let answer = self.door.local_api(method, path, body).await;
        (
            answer.status,
            serde_json::from_slice(&answer.body).unwrap_or_default(),
        )
    }

    fn file(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.place.path().join(name)).ok()
    }
}

fn choice(admin: &Value) -> Value {
    json!({"comfyui": {"dir": "demo", "python": ""}, "admin": admin, "sharing": {"enabled": false},
        "separate_users": true, "manager_admin_only": true})
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_finishes_the_set_up_at_once_or_not_at_all() -> Result<()> {
    let window = Window::open()?;
    let owner = json!({"username": "owner", "password": PASSWORD});
    let (_, before) = window.ask(Method::GET, "/setup", json!({})).await;
    assert_eq!(
        (&before["finished"], &before["has_admin"]),
        (&json!(false), &json!(false))
    );
    let elsewhere = tempfile::tempdir()?;
    let mut no_comfyui = choice(&owner);
    no_comfyui["comfyui"]["dir"] = json!(elsewhere.path());
    for (body, status, code) in [
        (choice(&Value::Null), 400, "admin_missing"),
        (
            choice(&json!({"username": "x", "password": PASSWORD})),
            400,
            "invalid_username",
        ),
        (
            choice(&json!({"username": "owner", "password": "short"})),
            400,
            "invalid_password",
        ),
        (no_comfyui, 400, "invalid_config"),
        (json!({}), 400, "bad_body"),
    ] {
        let (got, answer) = window.ask(Method::POST, "/setup/finish", body).await;
        assert_eq!((got, &answer["code"]), (status, &json!(code)), "{answer}");
        assert_eq!(window.file("config.json"), None, "{code}");
        assert_eq!(window.file("users_db.json"), None, "{code}");
    }
    // Accounts that cannot be written leave the settings as they were.
    let accounts = window.place.path().join("users_db.json.lock");
    fs::create_dir(&accounts)?;
    let (status, answer) = window
        .ask(Method::POST, "/setup/finish", choice(&owner))
        .await;
    assert_eq!(status, 503, "{answer}");
    assert_eq!(window.file("config.json"), None);
    fs::remove_dir(&accounts)?;

    let (status, answer) = window
        .ask(Method::POST, "/setup/finish", choice(&owner))
        .await;
    assert_eq!(
        (status, &answer["finished"]),
        (200, &json!(true)),
        "{answer}"
    );
    let config: Value = serde_json::from_str(&window.file("config.json").context("settings")?)?;
    assert_eq!(
        (
            &config["comfyui"]["dir"],
            &config["separate_users"],
            &config["manager_admin_only"]
        ),
        (&json!("demo"), &json!(true), &json!(true))
    );
    assert!(window.door.status().has_account);
    let (status, answer) = window
        .ask(Method::POST, "/setup/finish", choice(&owner))
        .await;
    assert_eq!((status, &answer["code"]), (409, &json!("has_admin")));
    let (status, _) = window
        .ask(Method::POST, "/setup/finish", choice(&Value::Null))
        .await;
    assert_eq!(status, 200);
    window.door.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_comes_back_in_when_the_password_is_lost() -> Result<()> {
    let window = Window::open()?;
    let port = match window.door.status().listening.first() {
        Some(address) => address.port(),
        None => bail!("it listens nowhere"),
    };
    let sign_in = |password: &str| {
        let body = json!({"username": "owner", "password": password});
        let ask = Ask::post("/login").json(&body);
        tokio::task::spawn_blocking(move || Ok::<_, anyhow::Error>(ask.send(port)?.status))
    };
    let set = |password: &str| {
        let body = json!({"username": "owner", "password": password});
        window.ask(Method::POST, "/setup/admin", body)
    };
    let (status, answer) = set(PASSWORD).await;
    assert_eq!(
        (status, &answer["created"]),
        (200, &json!(true)),
        "{answer}"
    );
    assert_eq!(sign_in(PASSWORD).await??, 200);
    assert_eq!(set("weak").await.0, 400);
    let (status, answer) = set("another-horse-8").await;
    assert_eq!(
        (status, &answer["created"]),
        (200, &json!(false)),
        "{answer}"
    );
    assert_eq!(sign_in(PASSWORD).await??, 401);
    assert_eq!(sign_in("another-horse-8").await??, 200);
    window.door.stop().await;
    Ok(())
}

#[test]
#[ignore = "needs a real ComfyUI: set COMFYUI_DIR and COMFYUI_PYTHON"]
fn a_real_comfyui_passes_the_check() -> Result<()> {
    let directory = std::env::var("COMFYUI_DIR").context("COMFYUI_DIR is not set")?;
    let gateway = start(Options::default().set("comfyui.args=[]"))?;
    let python = std::env::var("COMFYUI_PYTHON").ok();
    let job = begin(
        &gateway,
        "check",
        &json!({"directory": directory, "python": python}),
    )?;
    let mut seen = Value::Null;
    eventually(Duration::from_secs(300), || {
        seen = look(&gateway, &job)?;
        Ok(seen["state"] != "running")
    })?;
    assert_eq!(seen["state"], "done", "{seen}");
    assert!(seen["result"]["version"].is_string(), "{seen}");
    assert!(temporary_places(&gateway)?.is_empty());
    Ok(())
}
