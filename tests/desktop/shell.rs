//! Tray, window and end of the app.

use crate::desktop::{Desktop, PATIENCE};
use crate::needs_desktop;
use crate::tray::find;
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sentinel_tests::eventually;

const RUNNING: &str = "The demo engine is running";

/// The pixels of a picture.
fn pixels(picture: &[u8]) -> Result<Vec<u8>> {
    let mut reader = png::Decoder::new(std::io::Cursor::new(picture)).read_info()?;
    let mut pixels = vec![0; reader.output_buffer_size().context("too large")?];
    reader.next_frame(&mut pixels)?;
    Ok(pixels)
}

/// Waits until the tray shows one of the app's pictures.
fn await_picture(desktop: &Desktop, wanted: &[u8]) -> Result<()> {
    let wanted = pixels(wanted)?;
    eventually(PATIENCE, || {
        // It may be changing in this moment.
        let shown = desktop.panel()?.picture().and_then(|shown| pixels(&shown));
        Ok(shown.is_ok_and(|shown| shown == wanted))
    })
}

macro_rules! picture {
    ($name:literal) => {
        include_bytes!(concat!("../../src-tauri/icons/tray/", $name, "-dark.png"))
    };
}

#[test]
fn the_tray_stops_starts_shares_and_quits() -> Result<()> {
    needs_desktop!();
    let mut desktop = Desktop::start_hidden(true)?;
    let panel = desktop.panel()?;
    panel.await_status(RUNNING)?;
    await_picture(&desktop, picture!("running"))?;
    ensure!(desktop.screen.windows()?.is_empty(), "it was to be hidden");
    ensure!(desktop.runs("demo-engine"), "no engine runs");

    panel.click("Stop ComfyUI")?;
    let menu = panel.await_status("The demo engine is stopped")?;
    await_picture(&desktop, picture!("stopped"))?;
    ensure!(!desktop.runs("demo-engine"), "the engine still runs");
    let is_enabled = |label| find(&menu, label).is_some_and(|line| line.is_enabled);
    ensure!(is_enabled("Start ComfyUI") && !is_enabled("Stop ComfyUI"));

    panel.click("Start ComfyUI")?;
    panel.await_status(RUNNING)?;
    await_picture(&desktop, picture!("running"))?;

    let is_shared = |desired: bool| {
        panel.await_menu(|menu| {
            let check = find(menu, "Share on the LAN");
            let code = find(menu, "Show QR code");
            check.is_some_and(|line| line.is_checked == desired)
                && code.is_some_and(|line| line.is_enabled == desired)
        })
    };
    panel.click("Share on the LAN")?;
    is_shared(true)?;
    await_picture(&desktop, picture!("sharing"))?;
    panel.click("Share on the LAN")?;
    is_shared(false)?;
    await_picture(&desktop, picture!("running"))?;

    panel.click("Quit")?;
    ensure!(desktop.ended()?.success(), "it ended badly");
    desktop.await_no_process()
}

#[test]
fn the_guard_is_the_small_program() -> Result<()> {
    needs_desktop!();
    let desktop = Desktop::start_hidden(true)?;
    desktop.panel()?.await_status(RUNNING)?;
    let names: Vec<_> = desktop
        .processes()
        .into_iter()
        .map(|(_, name)| name)
        .collect();
    let of = |name: &str| names.iter().filter(|known| known.starts_with(name)).count();
    ensure!(of("comfyui-sentinel") == 1, "{names:?}");
    ensure!(of("sentineld") == 1, "{names:?}");
    ensure!(of("WebKit") == 0, "{names:?}");
    Ok(())
}

#[test]
fn a_request_of_the_system_to_end_is_followed() -> Result<()> {
    needs_desktop!();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let mut desktop = Desktop::start_hidden(true)?;
        desktop.panel()?.await_status(RUNNING)?;
        desktop.signal(signal)?;
        ensure!(desktop.ended()?.success(), "{signal}: it ended badly");
        desktop.await_no_process()?;
    }
    Ok(())
}

#[test]
fn the_tray_speaks_the_language_of_the_system() -> Result<()> {
    needs_desktop!();
    let table = [
        ("de_DE.UTF-8", "Die Demo läuft", "Beenden"),
        ("zh_CN.UTF-8", "演示引擎 运行中", "退出"),
        ("fr_FR.UTF-8", RUNNING, "Quit"),
    ];
    for (language, running, quit) in table {
        let mut desktop = Desktop::prepare(true)?;
        desktop.add_owner()?;
        desktop.start_hidden_in(language)?;
        let panel = desktop.panel()?;
        panel.await_status(running).context(language)?;
        panel.click(quit).context(language)?;
        ensure!(desktop.ended()?.success(), "{language}: it ended badly");
    }
    Ok(())
}

#[test]
fn a_killed_app_leaves_nothing() -> Result<()> {
    needs_desktop!();
    let mut desktop = Desktop::prepare(true)?;
    desktop.add_owner()?;
    desktop.start(&[])?;
    desktop.panel()?.await_status(RUNNING)?;
    desktop.await_windows(1)?;
    desktop.signal(Signal::SIGKILL)?;
    desktop.ended()?;
    desktop.await_no_process()
}

#[test]
fn a_crash_is_told_and_comfyui_comes_back() -> Result<()> {
    needs_desktop!();
    let desktop = Desktop::start_hidden(true)?;
    let panel = desktop.panel()?;
    panel.await_status(RUNNING)?;
    let processes = desktop.processes();
    let engine = processes.iter().find(|(_, name)| name == "demo-engine");
    let (id, _) = engine.context("no engine runs")?;
    kill(Pid::from_raw((*id).try_into()?), Signal::SIGKILL)?;
    let told = |title: &str| panel.notifications().iter().any(|known| known == title);
    eventually(PATIENCE, || Ok(told("ComfyUI has stopped")))?;
    panel.await_status(RUNNING)?;
    eventually(PATIENCE, || Ok(told("ComfyUI is ready")))
}

#[test]
fn the_gpu_is_taken_and_given_back() -> Result<()> {
    needs_desktop!();
    let desktop = Desktop::start_hidden(true)?;
    let panel = desktop.panel()?;
    panel.await_status(RUNNING)?;
    panel.click_in("I need my GPU", "Now")?;
    panel.await_status("The demo engine is running, jobs are held back")?;
    panel.click_in("The GPU is mine", "Give it back")?;
    panel.await_status(RUNNING)?;
    Ok(())
}

#[test]
fn a_closed_window_is_gone_and_comes_back() -> Result<()> {
    needs_desktop!();
    let mut desktop = Desktop::prepare(true)?;
    // Nobody has an account yet, so even a hidden start shows the window.
    desktop.start(&["--hidden"])?;
    let panel = desktop.panel()?;
    panel.await_status(RUNNING)?;
    desktop.await_windows(1)?;
    desktop.await_page()?;
    desktop.close_window()?;
    desktop.await_windows(0)?;
    // All that a browser engine holds is given back.
    eventually(PATIENCE, || {
        Ok(!desktop.runs("WebKitWebProces") && !desktop.runs("WebKitNetworkPr"))
    })?;
    let hints = || {
        let told = panel.notifications();
        told.iter()
            .filter(|title| title.contains("still running"))
            .count()
    };
    eventually(PATIENCE, || Ok(hints() == 1))?;

    panel.click("Open Sentinel")?;
    desktop.await_windows(1)?;
    desktop.await_page()?;
    desktop.close_window()?;
    desktop.await_windows(0)?;

    // A second start does nothing but show the window of the first.
    let second = desktop.command(&[])?.status()?;
    ensure!(second.success(), "the second instance ended badly");
    desktop.await_windows(1)?;
    ensure!(hints() == 1, "the hint came again");

    panel.click("Quit")?;
    ensure!(desktop.ended()?.success(), "it ended badly");
    desktop.await_no_process()
}

#[test]
fn without_a_tray_the_window_is_shown_and_closing_it_quits() -> Result<()> {
    needs_desktop!();
    let mut desktop = Desktop::start_hidden(false)?;
    desktop.await_windows(1)?;
    desktop.close_window()?;
    ensure!(desktop.ended()?.success(), "it ended badly");
    desktop.await_no_process()
}

#[test]
fn without_a_display_it_says_what_to_do() -> Result<()> {
    needs_desktop!();
    let desktop = Desktop::prepare(false)?;
    let status = desktop.command(&[])?.env_remove("DISPLAY").status()?;
    ensure!(!status.success());
    ensure!(desktop.log().contains("sentineld run"), "{}", desktop.log());
    Ok(())
}
