//! WebKit's own driver, spoken to directly.

use crate::desktop::{Desktop, PATIENCE, PAUSE, program};
use anyhow::{Context as _, Result, ensure};
use sentinel_tests::{Ask, eventually};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How WebDriver names the id of an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// The app's window, driven from outside.
#[derive(Debug)]
pub(crate) struct Driver {
    port: u16,
    session: String,
    child: Child,
}

impl Driver {
    /// Starts the app of `desktop` under the driver.
    pub(crate) fn start(desktop: &Desktop) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let (mark, value) = desktop.mark();
        let child = Command::new("WebKitWebDriver")
            .arg(format!("--port={port}"))
            .env_remove("WAYLAND_DISPLAY")
            .envs(desktop.screen.environment())
            .env(mark, value)
            // Lets the driver in; a person's window is open to none.
            .env("TAURI_AUTOMATION", "true")
            .env("TAURI_WEBVIEW_AUTOMATION", "true")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting WebKitWebDriver")?;
        let mut driver = Self {
            port,
            session: String::new(),
            child,
        };
        eventually(PATIENCE, || {
            Ok(Ask::get("/status")
                .send(port)
                .is_ok_and(|answer| answer.status == 200))
        })?;
        let options = json!({
            "binary": program("comfyui-sentinel")?,
            "args": desktop.arguments(),
        });
        let wanted =
            json!({"capabilities": {"alwaysMatch": {"webkitgtk:browserOptions": options}}});
        let session = driver.ask("POST", "/session", Some(&wanted))?;
        driver.session = session["sessionId"]
            .as_str()
            .context("no session")?
            .to_owned();
        Ok(driver)
    }

    /// Clicks on what is found, once it is there.
    pub(crate) fn click(&self, path: &str) -> Result<()> {
        let element = self.find(path)?;
        self.of_session(
            "POST",
            &format!("element/{element}/click"),
            Some(&json!({})),
        )?;
        Ok(())
    }

    /// Clicks on the button with this text.
    pub(crate) fn press(&self, text: &str) -> Result<()> {
        self.click(&format!(
            "//button[normalize-space()='{text}'][not(@disabled)]"
        ))
    }

    /// Types into the field of this name.
    pub(crate) fn fill(&self, name: &str, text: &str) -> Result<()> {
        let element = self.find(&format!("//input[@name='{name}']"))?;
        let body = json!({"text": text});
        self.of_session("POST", &format!("element/{element}/value"), Some(&body))?;
        Ok(())
    }

    /// Waits until the page has a heading with this text.
    pub(crate) fn await_heading(&self, text: &str) -> Result<()> {
        self.find(&format!("//*[self::h1 or self::h2][contains(., '{text}')]"))?;
        Ok(())
    }

    /// Runs a script that returns something, or hands it to its last argument.
    pub(crate) fn script(&self, script: &str) -> Result<Value> {
        let body = json!({"script": script, "args": []});
        self.of_session("POST", "execute/async", Some(&body))
    }

    /// Id of the element at this XPath, once there is one that can be seen.
    pub(crate) fn find(&self, path: &str) -> Result<String> {
        self.find_within(PATIENCE, path)
    }

    /// Like [`Driver::find`], with a limit of its own.
    pub(crate) fn find_within(&self, limit: Duration, path: &str) -> Result<String> {
        let body = json!({"using": "xpath", "value": path});
        let started = Instant::now();
        loop {
            let found = self.of_session("POST", "element", Some(&body));
            if let Ok(found) = &found
                && let Some(id) = found[ELEMENT].as_str()
            {
                return Ok(id.to_owned());
            }
            if started.elapsed() > limit {
                let page = self.of_session("GET", "source", None)?;
                anyhow::bail!("{path} is not in {page}");
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn of_session(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        self.ask(method, &format!("/session/{}/{path}", self.session), body)
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let ask = Ask::new(method, path);
        let ask = match body {
            Some(body) => ask.json(body),
            None => ask,
        };
        let answer = ask.send(self.port)?;
        ensure!(answer.status == 200, "{path}: {}", answer.text());
        Ok(answer.json()["value"].take())
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
