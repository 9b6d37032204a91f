//! The tray's menu as data: a function of what is shown, and nothing else.

use crate::texts::{Texts, fill};
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
pub(crate) fn menu(view: &View, texts: &Texts) -> Vec<Entry> {
    if view.life == Life::Quitting {
        return vec![
            Entry::Line(texts.quitting.to_owned()),
            item(Action::Quit, texts.quit_now, true),
        ];
    }
    let is_ready = view.engine == EngineState::Ready;
    let is_down = matches!(view.engine, EngineState::Stopped | EngineState::Failed);
    vec![
        Entry::Line(status_line(view, texts)),
        Entry::Separator,
        item(Action::OpenComfyUi, texts.open_comfyui, view.has_account),
        item(Action::OpenWindow, texts.open_window, true),
        Entry::Separator,
        item(Action::Start, texts.start, is_down),
        item(
            Action::Stop,
            texts.stop,
            !is_down && view.engine != EngineState::Stopping,
        ),
        item(Action::Restart, texts.restart, !is_down),
        item(Action::FreeMemory, texts.free_memory, is_ready),
        own_gpu(view, texts),
        Entry::Separator,
        check(Action::ToggleSharing, texts.share, view.is_shared),
        item(
            Action::CopyAddress,
            &fill(texts.copy_address, &[("address", &view.address)]),
            true,
        ),
        item(Action::ShowQrCode, texts.show_qr_code, view.is_shared),
        signed_in(view, texts),
        Entry::Separator,
        check(
            Action::ToggleAutostart,
            texts.autostart,
            view.starts_with_computer,
        ),
        item(Action::Quit, texts.quit, true),
    ]
}

/// What there is to know at a glance.
fn status_line(view: &View, texts: &Texts) -> String {
    let name = if view.is_demo {
        texts.demo
    } else {
        texts.comfyui
    };
    let percent = view.percent.unwrap_or_default().to_string();
    let text = match view.engine {
        EngineState::Stopped => texts.is_stopped,
        EngineState::Starting if view.percent.is_some() => texts.is_starting_percent,
        EngineState::Starting => texts.is_starting,
        EngineState::Ready if view.is_queue_paused => texts.is_running_held,
        EngineState::Ready if view.is_shared => texts.is_running_shared,
        EngineState::Ready => texts.is_running,
        EngineState::Stopping => texts.is_stopping,
        EngineState::Crashed => texts.has_crashed,
        EngineState::Failed => texts.has_failed,
    };
    fill(text, &[("name", name), ("percent", &percent)])
}

/// The owner's way to have the GPU for himself.
fn own_gpu(view: &View, texts: &Texts) -> Entry {
    let text = match (view.is_queue_paused, view.jobs_waiting) {
        (false, _) => texts.need_gpu,
        (true, 0) => texts.gpu_is_mine,
        (true, 1) => texts.gpu_is_mine_one,
        (true, _) => texts.gpu_is_mine_many,
    };
    let text = fill(text, &[("count", &view.jobs_waiting.to_string())]);
    let is_paused = view.is_queue_paused;
    let entries = vec![
        item(Action::PauseAfterJob, texts.after_this_job, !is_paused),
        // Also when a job is still being waited for.
        item(Action::PauseNow, texts.now, true),
        item(Action::Resume, texts.give_back, is_paused),
    ];
    Entry::Submenu { text, entries }
}

fn signed_in(view: &View, texts: &Texts) -> Entry {
    let entries = view
        .signed_in
        .iter()
        .map(|user| Entry::Line(format!("{} ({})", user.username, user.addresses.join(", "))));
    let mut entries: Vec<_> = entries.collect();
    let text = match entries.len() {
        0 => {
            entries.push(Entry::Line(texts.nobody.to_owned()));
            texts.nobody_signed_in.to_owned()
        }
        1 => texts.one_signed_in.to_owned(),
        count => fill(texts.many_signed_in, &[("count", &count.to_string())]),
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
    use crate::texts::ENGLISH;
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
        match menu(view, ENGLISH).into_iter().next() {
            Some(Entry::Line(text)) => text,
            other => panic!("the menu begins with {other:?}"),
        }
    }

    /// The actions that can be clicked, without those that always can.
    fn possible(view: &View) -> Vec<&'static str> {
        menu(view, ENGLISH)
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
        menu(view, ENGLISH).iter().any(|entry| {
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
            } = own_gpu(&view, ENGLISH)
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
            assert!(menu(&view, ENGLISH).contains(&expected), "{expected:?}");
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
        assert_eq!(menu(&view, ENGLISH), expected);
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
