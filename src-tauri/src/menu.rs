//! The tray's menu as data: a function of what is shown, and nothing else.

use crate::view::{Life, View};
use sentinel_gateway::supervisor::EngineState;

/// One line of the menu.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Something to read.
    Line(String),
    /// Something to do.
    Item {
        action: Action,
        text: String,
        is_enabled: bool,
    },
    /// Something that is on or off.
    Check {
        action: Action,
        text: String,
        is_checked: bool,
    },
    /// More lines behind one.
    Submenu {
        text: String,
        entries: Vec<Self>,
    },
    Separator,
}

/// What a line of the menu does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    OpenComfyUi,
    OpenWindow,
    Start,
    Stop,
    Restart,
    ToggleSharing,
    CopyAddress,
    ShowQrCode,
    FreeMemory,
    PauseAfterJob,
    PauseNow,
    Resume,
    ToggleAutostart,
    Quit,
}

/// Each action and its name in the menu's events.
const ACTIONS: [(Action, &str); 14] = [
    (Action::OpenComfyUi, "open-comfyui"),
    (Action::OpenWindow, "open-window"),
    (Action::Start, "start"),
    (Action::Stop, "stop"),
    (Action::Restart, "restart"),
    (Action::ToggleSharing, "share"),
    (Action::CopyAddress, "copy-address"),
    (Action::ShowQrCode, "show-qr-code"),
    (Action::FreeMemory, "free-memory"),
    (Action::PauseAfterJob, "pause-after-job"),
    (Action::PauseNow, "pause-now"),
    (Action::Resume, "resume"),
    (Action::ToggleAutostart, "autostart"),
    (Action::Quit, "quit"),
];

impl Action {
    pub(crate) fn name(self) -> &'static str {
        ACTIONS
            .iter()
            .find(|(action, _)| *action == self)
            .map_or("", |(_, name)| name)
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        ACTIONS
            .iter()
            .find(|(_, known)| *known == name)
            .map(|(action, _)| *action)
    }
}

/// The menu for what is known now.
pub(crate) fn menu(view: &View) -> Vec<Entry> {
    if view.life == Life::Quitting {
        return vec![
            Entry::Line("Stopping ComfyUI…".to_owned()),
            item(Action::Quit, "Quit now", true),
        ];
    }
    let is_ready = view.engine == EngineState::Ready;
    let is_down = matches!(view.engine, EngineState::Stopped | EngineState::Failed);
    vec![
        Entry::Line(status_line(view)),
        Entry::Separator,
        item(Action::OpenComfyUi, "Open ComfyUI", view.has_account),
        item(Action::OpenWindow, "Open Sentinel", true),
        Entry::Separator,
        item(Action::Start, "Start ComfyUI", is_down),
        item(
            Action::Stop,
            "Stop ComfyUI",
            !is_down && view.engine != EngineState::Stopping,
        ),
        item(Action::Restart, "Restart ComfyUI", !is_down),
        item(Action::FreeMemory, "Free GPU memory", is_ready),
        own_gpu(view),
        Entry::Separator,
        check(Action::ToggleSharing, "Share on the LAN", view.is_shared),
        item(
            Action::CopyAddress,
            &format!("Copy address ({})", view.address),
            true,
        ),
        item(Action::ShowQrCode, "Show QR code", view.is_shared),
        signed_in(view),
        Entry::Separator,
        check(
            Action::ToggleAutostart,
            "Start with the computer",
            view.starts_with_computer,
        ),
        item(Action::Quit, "Quit", true),
    ]
}

/// What there is to know at a glance.
fn status_line(view: &View) -> String {
    let name = if view.is_demo {
        "The demo engine"
    } else {
        "ComfyUI"
    };
    match (view.engine, view.percent) {
        (EngineState::Stopped, _) => format!("{name} is stopped"),
        (EngineState::Starting, Some(percent)) => format!("{name} is starting, {percent} %"),
        (EngineState::Starting, None) => format!("{name} is starting"),
        (EngineState::Ready, _) if view.is_queue_paused => {
            format!("{name} is running, jobs are held back")
        }
        (EngineState::Ready, _) if view.is_shared => {
            format!("{name} is running, shared on the LAN")
        }
        (EngineState::Ready, _) => format!("{name} is running"),
        (EngineState::Stopping, _) => format!("{name} is stopping"),
        (EngineState::Crashed, _) => format!("{name} has crashed and starts again soon"),
        (EngineState::Failed, _) => format!("{name} could not be started"),
    }
}

/// The owner's way to have the GPU for himself.
fn own_gpu(view: &View) -> Entry {
    let text = match (view.is_queue_paused, view.jobs_waiting) {
        (false, _) => "I need my GPU".to_owned(),
        (true, 0) => "The GPU is mine".to_owned(),
        (true, 1) => "The GPU is mine, 1 job waits".to_owned(),
        (true, count) => format!("The GPU is mine, {count} jobs wait"),
    };
    let is_paused = view.is_queue_paused;
    let entries = vec![
        item(Action::PauseAfterJob, "After this job", !is_paused),
        // Also when a job is still being waited for.
        item(Action::PauseNow, "Now", true),
        item(Action::Resume, "Give it back", is_paused),
    ];
    Entry::Submenu { text, entries }
}

fn signed_in(view: &View) -> Entry {
    let entries = view
        .signed_in
        .iter()
        .map(|user| Entry::Line(format!("{} ({})", user.username, user.addresses.join(", "))));
    let mut entries: Vec<_> = entries.collect();
    let text = match entries.len() {
        0 => {
            entries.push(Entry::Line("Nobody".to_owned()));
            "Nobody is signed in".to_owned()
        }
        1 => "1 person is signed in".to_owned(),
        count => format!("{count} people are signed in"),
    };
    Entry::Submenu { text, entries }
}

fn item(action: Action, text: &str, is_enabled: bool) -> Entry {
    Entry::Item {
        action,
        text: text.to_owned(),
        is_enabled,
    }
}

fn check(action: Action, text: &str, is_checked: bool) -> Entry {
    Entry::Check {
        action,
        text: text.to_owned(),
        is_checked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sentinel_gateway::control::SignedInUser;

    fn view(engine: EngineState) -> View {
        View {
            engine,
            percent: None,
            is_demo: false,
            is_shared: false,
            address: "http://localhost:8189".to_owned(),
            has_account: true,
            signed_in: Vec::new(),
            is_queue_paused: false,
            jobs_waiting: 0,
            starts_with_computer: false,
            life: Life::Running,
        }
    }

    fn first_line(view: &View) -> String {
        match menu(view).into_iter().next() {
            Some(Entry::Line(text)) => text,
            other => panic!("the menu begins with {other:?}"),
        }
    }

    /// The actions that can be clicked, without those that always can.
    fn possible(view: &View) -> Vec<&'static str> {
        menu(view)
            .into_iter()
            .filter_map(|entry| match entry {
                Entry::Item {
                    action,
                    is_enabled: true,
                    ..
                } => Some(action.name()),
                _ => None,
            })
            .filter(|name| !["open-window", "copy-address", "quit"].contains(name))
            .collect()
    }

    fn is_checked(view: &View, wanted: Action) -> bool {
        menu(view).iter().any(|entry| {
            matches!(entry, Entry::Check { action, is_checked: true, .. } if *action == wanted)
        })
    }

    #[test]
    fn what_can_be_done_follows_comfyui() {
        let table = [
            (EngineState::Stopped, "open-comfyui start"),
            (EngineState::Starting, "open-comfyui stop restart"),
            (EngineState::Ready, "open-comfyui stop restart free-memory"),
            (EngineState::Stopping, "open-comfyui restart"),
            (EngineState::Crashed, "open-comfyui stop restart"),
            (EngineState::Failed, "open-comfyui start"),
        ];
        for (state, expected) in table {
            assert_eq!(possible(&view(state)).join(" "), expected, "{state:?}");
        }
    }

    #[test]
    fn the_first_line_tells_the_state() {
        let starting = View {
            percent: Some(40),
            ..view(EngineState::Starting)
        };
        let demo = View {
            is_demo: true,
            ..view(EngineState::Ready)
        };
        let shared = View {
            is_shared: true,
            ..view(EngineState::Ready)
        };
        let paused = View {
            is_queue_paused: true,
            ..shared.clone()
        };
        let table = [
            (paused, "ComfyUI is running, jobs are held back"),
            (view(EngineState::Stopped), "ComfyUI is stopped"),
            (view(EngineState::Starting), "ComfyUI is starting"),
            (starting, "ComfyUI is starting, 40 %"),
            (view(EngineState::Ready), "ComfyUI is running"),
            (demo, "The demo engine is running"),
            (shared, "ComfyUI is running, shared on the LAN"),
            (view(EngineState::Stopping), "ComfyUI is stopping"),
            (
                view(EngineState::Crashed),
                "ComfyUI has crashed and starts again soon",
            ),
            (view(EngineState::Failed), "ComfyUI could not be started"),
        ];
        for (view, expected) in table {
            assert_eq!(first_line(&view), expected);
        }
    }

    #[test]
    fn without_an_account_there_is_nobody_to_open_comfyui_as() {
        let view = View {
            has_account: false,
            ..view(EngineState::Ready)
        };
        assert!(!possible(&view).contains(&"open-comfyui"));
    }

    #[test]
    fn checks_and_the_code_follow_the_settings() {
        let off = view(EngineState::Ready);
        let on = View {
            is_shared: true,
            starts_with_computer: true,
            ..off.clone()
        };
        for action in [Action::ToggleSharing, Action::ToggleAutostart] {
            assert!(!is_checked(&off, action), "{action:?}");
            assert!(is_checked(&on, action), "{action:?}");
        }
        assert!(!possible(&off).contains(&"show-qr-code"));
        assert!(possible(&on).contains(&"show-qr-code"));
    }

    #[test]
    fn the_gpu_is_taken_and_given_back() {
        let table = [
            (false, 3, "I need my GPU", "pause-after-job pause-now"),
            (true, 0, "The GPU is mine", "pause-now resume"),
            (true, 1, "The GPU is mine, 1 job waits", "pause-now resume"),
            (true, 4, "The GPU is mine, 4 jobs wait", "pause-now resume"),
        ];
        for (is_queue_paused, jobs_waiting, text, expected) in table {
            let view = View {
                is_queue_paused,
                jobs_waiting,
                ..view(EngineState::Ready)
            };
            let Entry::Submenu {
                text: shown,
                entries,
            } = own_gpu(&view)
            else {
                panic!("it is no submenu");
            };
            assert_eq!(shown, text);
            let enabled = entries.iter().filter_map(|entry| match entry {
                Entry::Item {
                    action,
                    is_enabled: true,
                    ..
                } => Some(action.name()),
                _ => None,
            });
            assert_eq!(enabled.collect::<Vec<_>>().join(" "), expected);
        }
    }

    #[test]
    fn people_are_listed_with_their_addresses() {
        let user = |name: &str, addresses: &[&str]| SignedInUser {
            username: name.to_owned(),
            addresses: addresses
                .iter()
                .map(|&address| address.to_owned())
                .collect(),
        };
        let table = [
            (vec![], "Nobody is signed in", vec!["Nobody"]),
            (
                vec![user("ann", &["10.0.0.2"])],
                "1 person is signed in",
                vec!["ann (10.0.0.2)"],
            ),
            (
                vec![
                    user("ann", &["10.0.0.2", "10.0.0.3"]),
                    user("bob", &["::1"]),
                ],
                "2 people are signed in",
                vec!["ann (10.0.0.2, 10.0.0.3)", "bob (::1)"],
            ),
        ];
        for (signed_in, text, lines) in table {
            let view = View {
                signed_in,
                ..view(EngineState::Ready)
            };
            let expected = Entry::Submenu {
                text: text.to_owned(),
                entries: lines
                    .into_iter()
                    .map(|line| Entry::Line(line.to_owned()))
                    .collect(),
            };
            assert!(menu(&view).contains(&expected), "{expected:?}");
        }
    }

    #[test]
    fn while_quitting_only_hurry_is_left() {
        let view = View {
            life: Life::Quitting,
            ..view(EngineState::Stopping)
        };
        let expected = [
            Entry::Line("Stopping ComfyUI…".to_owned()),
            item(Action::Quit, "Quit now", true),
        ];
        assert_eq!(menu(&view), expected);
    }

    #[test]
    fn names_lead_back_to_their_actions() {
        for (action, name) in ACTIONS {
            assert_eq!(action.name(), name);
            assert_eq!(Action::from_name(name), Some(action));
        }
        assert_eq!(Action::from_name("format-disk"), None);
    }
}
