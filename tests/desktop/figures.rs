//! What the app needs: memory while it is in the tray, and the time until it is there. Measured, not tested: figures of a
//! debug build or of a busy machine tell nothing.
//!
//! `SENTINELD=…/release/sentineld cargo nextest run -E 'test(figures)' --run-ignored only --no-capture`

use crate::desktop::{Desktop, PATIENCE};
use crate::needs_desktop;
use crate::tray::find;
use anyhow::{Context as _, Result, ensure};
use sentinel_tests::eventually;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

const STARTS: usize = 7;
/// After the last thing happened, until memory that was only borrowed is given back.
const REST: Duration = Duration::from_secs(5);

/// Proportional set size of the app and its guard, MiB, and of each of their processes; ComfyUI's own is its own.
fn memory(desktop: &Desktop) -> Result<(f64, String)> {
    let own = desktop.processes();
    let own = own.iter().filter(|(_, name)| name != "demo-engine");
    let (mut sum, mut parts) = (0.0, Vec::new());
    for (id, name) in own {
        let rollup = fs::read_to_string(format!("/proc/{id}/smaps_rollup"))?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kibibytes: u32 = line
            .context("Pss in smaps_rollup")?
            .trim()
            .trim_end_matches(" kB")
            .parse()?;
        let part = f64::from(kibibytes) / 1024.0;
        parts.push(format!("{name} {part:.1}"));
        sum += part;
    }
    Ok((sum, parts.join(", ")))
}

#[test]
#[ignore = "a measurement"]
fn figures() -> Result<()> {
    needs_desktop!();
    let mut desktop = Desktop::prepare(true)?;
    desktop.add_owner()?;
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let started = Instant::now();
        desktop.start(&["--hidden"])?;
        let panel = desktop.panel()?;
        panel.await_menu(|menu| find(menu, "Quit").is_some())?;
        times.push(started.elapsed().as_secs_f64());
        panel.await_status("The demo engine is running")?;
        panel.click("Quit")?;
        ensure!(desktop.ended()?.success(), "it ended badly");
        desktop.await_no_process()?;
    }
    times.sort_by(f64::total_cmp);
    eprintln!("start until the tray's menu is there, seconds: {times:.3?}");

    desktop.start(&["--hidden"])?;
    let panel = desktop.panel()?;
    panel.await_status("The demo engine is running")?;
    sleep(REST);
    let (hidden, parts) = memory(&desktop)?;
    eprintln!("in the tray since its start: {hidden:.1} MiB ({parts})");

    panel.click("Open Sentinel")?;
    desktop.await_windows(1)?;
    sleep(REST);
    let (open, parts) = memory(&desktop)?;
    eprintln!("with its window: {open:.1} MiB ({parts})");

    desktop.close_window()?;
    desktop.await_windows(0)?;
    eventually(PATIENCE, || Ok(!desktop.runs("WebKitWebProces")))?;
    sleep(REST);
    let (closed, parts) = memory(&desktop)?;
    eprintln!("in the tray after its window was closed: {closed:.1} MiB ({parts})");
    ensure!(hidden < 120.0 && closed < 120.0, "too much memory");
    Ok(())
}
