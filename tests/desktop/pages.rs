//! The pages in the app's window, with the gateway in the same process behind them.

use crate::desktop::{Desktop, PATIENCE};
use crate::driver::Driver;
use crate::needs_desktop;
use anyhow::{Result, ensure};
use sentinel_tests::{PASSWORD, eventually};

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
    driver.press("Stop")?;
    panel.await_status("The demo engine is stopped")?;
    panel.click("Start ComfyUI")?;
    driver.click("//button[normalize-space()='Stop']")?;
    panel.await_status("The demo engine is stopped")?;

    driver.click("//a[@href='#/people']")?;
    driver.await_heading("People")?;
    driver.click("//*[contains(text(), 'owner')]")?;

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

    panel.click("Quit")?;
    eventually(PATIENCE, || Ok(!desktop.runs("comfyui-sentinel")))?;
    Ok(())
}
