//! Which events are told in a notification, and in which words.

use crate::preferences::Wanted;
use crate::texts::{Texts, fill};
use sentinel_gateway::control::Event;
use tauri::AppHandle;
use tauri_plugin_notification::NotificationExt as _;

/// Longest text, in characters; panels cut longer ones off anyhow.
const LIMIT: usize = 300;

/// A notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notification {
    title: &'static str,
    text: String,
}

/// What to say about an event, if anything.
pub(crate) fn about(
    event: &Event,
    wanted: Wanted,
    is_window_open: bool,
    texts: &Texts,
) -> Option<Notification> {
    let (is_wanted, title, text) = match event {
        // Whoever looks at the window sees it there.
        Event::EngineReady => (
            wanted.ready && !is_window_open,
            texts.ready_title,
            texts.ready.to_owned(),
        ),
        Event::EngineCrashed { reason } => (wanted.crash, texts.crashed_title, reason.clone()),
        Event::AddressBanned { address } => (
            wanted.ban,
            texts.banned_title,
            fill(texts.banned, &[("address", address)]),
        ),
        Event::AdminFromNewDevice { username, address } => (
            wanted.new_device,
            texts.new_device_title,
            fill(
                texts.new_device,
                &[("username", username), ("address", address)],
            ),
        ),
    };
    is_wanted.then(|| Notification {
        title,
        text: text.chars().take(LIMIT).collect(),
    })
}

/// What is said once, when the window is closed for the first time.
pub(crate) fn still_running(texts: &Texts) -> Notification {
    Notification {
        title: texts.still_running_title,
        text: texts.still_running.to_owned(),
    }
}

impl Notification {
    /// Shows it; where nobody shows notifications, nothing happens.
    pub(crate) fn show(self, app: &AppHandle) {
        let shown = app
            .notification()
            .builder()
            .title(self.title)
            .body(self.text)
            .icon("comfyui-sentinel")
            .show();
        if let Err(error) = shown {
            tracing::debug!(%error, "a notification could not be shown");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::texts::ENGLISH;

    fn events() -> [Event; 4] {
        [
            Event::EngineReady,
            Event::EngineCrashed {
                reason: "Out of memory.".to_owned(),
            },
            Event::AddressBanned {
                address: "10.0.0.9".to_owned(),
            },
            Event::AdminFromNewDevice {
                username: "ann".to_owned(),
                address: "10.0.0.7".to_owned(),
            },
        ]
    }

    fn only(index: usize) -> Wanted {
        Wanted {
            ready: index == 0,
            crash: index == 1,
            ban: index == 2,
            new_device: index == 3,
        }
    }

    #[test]
    fn each_kind_can_be_switched_off_alone() {
        for (index, event) in events().iter().enumerate() {
            for switch in 0..4 {
                let told = about(event, only(switch), false, ENGLISH);
                assert_eq!(told.is_some(), switch == index, "{event:?} {switch}");
            }
        }
    }

    #[test]
    fn the_text_says_who_and_why() {
        let texts = events().map(|event| {
            about(&event, Wanted::default(), false, ENGLISH)
                .unwrap()
                .text
        });
        assert_eq!(texts[1], "Out of memory.");
        assert!(texts[2].contains("10.0.0.9"));
        assert!(texts[3].contains("ann") && texts[3].contains("10.0.0.7"));
    }

    #[test]
    fn an_open_window_needs_no_word_that_all_is_well() {
        assert_eq!(
            about(&Event::EngineReady, Wanted::default(), true, ENGLISH),
            None
        );
        assert!(about(&events()[1], Wanted::default(), true, ENGLISH).is_some());
    }

    #[test]
    fn a_long_reason_is_cut() {
        let event = Event::EngineCrashed {
            reason: "ä".repeat(5000),
        };
        let told = about(&event, Wanted::default(), false, ENGLISH).unwrap();
        assert_eq!(told.text.chars().count(), LIMIT);
    }
}
