//! The pages in the app's window, with the gateway in the same process behind them.

use crate::desktop::{Desktop, PATIENCE};
use crate::driver::Driver;
use crate::needs_desktop;
use anyhow::{Context as _, Result, ensure};
use sentinel_tests::{PASSWORD, eventually};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// PyTorch over a slow line.
const DOWNLOAD: Duration = Duration::from_secs(30 * 60);

#[test]
fn the_first_run_leads_to_a_running_comfyui_that_is_managed_from_the_window() -> Result<()> {
    needs_desktop!("WebKitWebDriver");
    let desktop = Desktop::prepare(true)?;
    let driver = Driver::start(&desktop)?;
    driver.await_heading("Where is your ComfyUI?")?;
    driver.click("//label[input[@value='demo']]")?;
    driver.press("Continue")?;
    driver.await_heading("Your own account")?;
    driver.fill("username", "owner")?;
    driver.fill("password", PASSWORD)?;
    driver.press("Continue")?;
    driver.await_heading("Who may use it?")?;
    for choice in ["Share on the network", "Everybody has their own"] {
        driver.click(&format!("//label[contains(., '{choice}')]"))?;
    }
    driver.press("Finish")?;
    driver.await_heading("All set")?;

    // The menu of the tray follows what is done in the window, and the other way round.
    let panel = desktop.panel()?;
    panel.await_status("The demo engine is running")?;
    driver.click("//a[@href='#/overview']")?;
    // Last of the buttons that come when it is ready; until then the others move.
    let ready = "//button[normalize-space()='Free memory']";
    driver.find(ready)?;
    driver.press("Stop")?;
    panel.await_status("The demo engine is stopped")?;
    driver.find("//button[normalize-space()='Start ComfyUI']")?;
    panel.click("Start ComfyUI")?;
    driver.find(ready)?;
    driver.press("Stop")?;
    panel.await_status("The demo engine is stopped")?;

    driver.click("//a[@href='#/people']")?;
    driver.await_heading("People")?;
    driver.click("//*[contains(text(), 'owner')]")?;

    // The tray speaks the language that is chosen in the window.
    driver.script(
        "const language = document.querySelector('option[value=de]').parentElement;
         language.value = 'de';
         language.dispatchEvent(new Event('change', { bubbles: true }));
         arguments[arguments.length - 1](null);",
    )?;
    panel.await_status("Die Demo ist ausgeschaltet")?;
    driver.await_heading("Personen")?;

    // The page may ask for what its capability lists, and for nothing else.
    let refused = driver.script(
        "const done = arguments[arguments.length - 1];
         const invoke = window.__TAURI_INTERNALS__.invoke;
         const outcome = (promise) => promise.then(() => 'allowed', () => 'refused');
         Promise.all([
           outcome(invoke('window_state')),
           outcome(invoke('plugin:opener|open_url', { url: 'file:///etc/passwd' })),
           outcome(invoke('plugin:autostart|enable')),
           outcome(invoke('plugin:window|create', { options: {} })),
           outcome(fetch('http://127.0.0.1:1/')),
           typeof window.__TAURI__,
         ]).then(done);",
    )?;
    let expected = [
        "allowed",
        "refused",
        "refused",
        "refused",
        "refused",
        "undefined",
    ];
    ensure!(refused == serde_json::json!(expected), "{refused}");

    panel.click("Beenden")?;
    eventually(PATIENCE, || Ok(!desktop.runs("comfyui-sentinel")))?;
    Ok(())
}

/// A folder as people have it: ComfyUI with its Python in `venv`, here by links to those of `COMFYUI_DIR` and
/// `COMFYUI_PYTHON`; and what keeps it from writing into them.
fn installation() -> Result<(TempDir, Vec<String>)> {
    let original = std::env::var("COMFYUI_DIR").context("COMFYUI_DIR is not set")?;
    let python = std::env::var("COMFYUI_PYTHON").context("COMFYUI_PYTHON is not set")?;
    let environment = Path::new(&python).parent().and_then(Path::parent);
    let place = tempfile::tempdir()?;
    let folder = place.path().join("ComfyUI");
    fs::create_dir(&folder)?;
    for entry in fs::read_dir(original)? {
        let entry = entry?;
        symlink(entry.path(), folder.join(entry.file_name()))?;
    }
    symlink(environment.context("no venv")?, folder.join("venv"))?;
    let base = place.path().join("base");
    for part in ["custom_nodes", "models", "input", "output"] {
        fs::create_dir_all(base.join(part))?;
    }
    let arguments = serde_json::json!(["--cpu", "--base-directory", base]);
    let setting = format!("comfyui.args={arguments}");
    // Links lead out of the folder, which a confined ComfyUI must not follow.
    let settings = [setting.as_str(), "sandbox=off"];
    let settings = settings.iter().flat_map(|setting| ["--set", setting]);
    Ok((place, settings.map(str::to_owned).collect()))
}

#[test]
#[ignore = "needs a real ComfyUI: set COMFYUI_DIR and COMFYUI_PYTHON"]
fn the_first_run_finds_out_whether_a_real_comfyui_starts() -> Result<()> {
    needs_desktop!("WebKitWebDriver");
    let (place, engine) = installation()?;
    let mut desktop = Desktop::prepare(true)?;
    desktop.engine = engine;
    let driver = Driver::start(&desktop)?;
    driver.await_heading("Where is your ComfyUI?")?;
    desktop.picture("find")?;
    driver.click("//label[input[@value='folder']]")?;
    let folder = place.path().join("Comfy").display().to_string();
    driver.fill("directory", &folder)?;
    driver.press("Check and continue")?;
    driver.find("//*[contains(text(), 'That did not work')]")?;
    desktop.picture("wrong-folder")?;
    driver.fill("directory", "UI")?;
    driver.press("Check and continue")?;
    driver.find("//*[@role='status'][string-length() > 0]")?;
    desktop.picture("checking")?;
    driver.await_heading("Your own account")?;
    desktop.picture("account")?;
    driver.fill("username", "owner")?;
    driver.fill("password", PASSWORD)?;
    driver.press("Continue")?;
    driver.await_heading("Who may use it?")?;
    desktop.picture("sharing")?;
    driver.press("Finish")?;
    driver.await_heading("All set")?;
    desktop.picture("done")?;

    let panel = desktop.panel()?;
    panel.await_status("ComfyUI is running, shared on the LAN")?;
    driver.click("//a[@href='#/overview']")?;
    driver.await_heading("ComfyUIs running: 1")?;
    desktop.picture("overview")?;
    panel.click("Quit")?;
    eventually(PATIENCE, || Ok(!desktop.runs("comfyui-sentinel")))?;
    // The driver is a child of the test.
    drop(driver);
    desktop.await_no_process()
}

#[test]
#[ignore = "downloads comfy-cli, ComfyUI and PyTorch: set DOWNLOADS"]
fn the_first_run_installs_comfyui() -> Result<()> {
    needs_desktop!("WebKitWebDriver");
    if std::env::var_os("DOWNLOADS").is_none() {
        eprintln!("SKIPPED: set DOWNLOADS to download several gigabytes");
        return Ok(());
    }
    let place = tempfile::tempdir()?;
    let folder = place.path().join("Pictures").display().to_string();
    let mut desktop = Desktop::prepare(true)?;
    desktop.engine = Vec::new();
    let driver = Driver::start(&desktop)?;
    driver.await_heading("Where is your ComfyUI?")?;
    driver.click("//label[input[@value='install']]")?;
    driver.click("//label[contains(., 'None (slow)')]")?;
    driver.fill("target", &folder)?;
    desktop.picture("install")?;
    driver.press("Install")?;
    driver.find("//*[@role='status'][contains(., 'Installing comfy-cli')]")?;
    desktop.picture("installing-comfy-cli")?;
    driver.find("//*[@role='status'][contains(., 'PyTorch')]")?;
    desktop.picture("installing-comfyui")?;
    let done = "//*[contains(text(), 'Your own account') or contains(text(), 'That did not work')]";
    driver.find_within(DOWNLOAD, done)?;
    desktop.picture("installed")?;
    driver.await_heading("Your own account")?;
    driver.fill("username", "owner")?;
    driver.fill("password", PASSWORD)?;
    driver.press("Continue")?;
    driver.await_heading("Who may use it?")?;
    driver.press("Finish")?;
    driver.await_heading("All set")?;

    let panel = desktop.panel()?;
    panel.await_status("ComfyUI is running, shared on the LAN")?;
    driver.click("//a[@href='#/overview']")?;
    driver.await_heading("ComfyUIs running: 1")?;
    desktop.picture("overview-of-the-installed")?;
    panel.click("Quit")?;
    eventually(PATIENCE, || Ok(!desktop.runs("comfyui-sentinel")))?;
    drop(driver);
    desktop.await_no_process()
}
