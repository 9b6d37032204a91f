//! Windows: the colour of the taskbar, which has the tray in it.

use super::{Panel, Surroundings};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use windows_registry::CURRENT_USER;

/// Between two looks: few change the colour, and a look costs microseconds.
const ROUND: Duration = Duration::from_secs(20);
const COLOURS: &str = r"Software\Microsoft\Windows\CurrentVersion\Themes\Personalize";
const IS_LIGHT: &str = "SystemUsesLightTheme";

pub(super) async fn follow(known: watch::Sender<Surroundings>, stopping: CancellationToken) {
    let looking = async {
        loop {
            let panel = panel();
            known.send_if_modified(|surroundings| {
                std::mem::replace(&mut surroundings.panel, panel) != panel
            });
            sleep(ROUND).await;
        }
    };
    stopping.run_until_cancelled(looking).await;
}

/// A Windows without the value is an old one, whose taskbar is dark.
fn panel() -> Panel {
    let is_light = CURRENT_USER
        .open(COLOURS)
        .and_then(|colours| colours.get_u32(IS_LIGHT));
    match is_light {
        Ok(1) => Panel::Light,
        _ => Panel::Dark,
    }
}
