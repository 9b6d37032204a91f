//! The tray's icon: which one, and its pixels.

use crate::surroundings::Panel;
use crate::view::{Life, View};
use sentinel_gateway::supervisor::EngineState;

/// What the icon says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    Stopped,
    Starting,
    Running,
    Sharing,
    Error,
}

/// The sign for what is known now.
pub(crate) fn sign(view: &View) -> Sign {
    if view.life == Life::Quitting {
        return Sign::Starting;
    }
    match view.engine {
        EngineState::Stopped => Sign::Stopped,
        EngineState::Starting | EngineState::Stopping => Sign::Starting,
        EngineState::Ready if view.is_shared => Sign::Sharing,
        EngineState::Ready => Sign::Running,
        EngineState::Crashed | EngineState::Failed => Sign::Error,
    }
}

/// The picture of a sign (PNG), drawn for the colour of the panel it lies on.
pub(crate) fn picture(sign: Sign, panel: Panel) -> &'static [u8] {
    macro_rules! picture {
        ($name:literal) => {
            include_bytes!(concat!("../icons/tray/", $name, ".png"))
        };
    }
    match (sign, panel) {
        (Sign::Stopped, Panel::Dark) => picture!("stopped-dark"),
        (Sign::Stopped, Panel::Light) => picture!("stopped-light"),
        (Sign::Starting, Panel::Dark) => picture!("starting-dark"),
        (Sign::Starting, Panel::Light) => picture!("starting-light"),
        (Sign::Running, Panel::Dark) => picture!("running-dark"),
        (Sign::Running, Panel::Light) => picture!("running-light"),
        (Sign::Sharing, Panel::Dark) => picture!("sharing-dark"),
        (Sign::Sharing, Panel::Light) => picture!("sharing-light"),
        (Sign::Error, Panel::Dark) => picture!("error-dark"),
        (Sign::Error, Panel::Light) => picture!("error-light"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(engine: EngineState, is_shared: bool, life: Life) -> View {
        View {
            engine,
            percent: None,
            is_demo: false,
            is_shared,
            address: String::new(),
            has_account: true,
            signed_in: Vec::new(),
            is_queue_paused: false,
            jobs_waiting: 0,
            starts_with_computer: false,
            life,
        }
    }

    #[test]
    fn the_sign_follows_the_state() {
        let table = [
            (EngineState::Stopped, false, Sign::Stopped),
            // Sharing means that others can work, not that the switch is on.
            (EngineState::Stopped, true, Sign::Stopped),
            (EngineState::Starting, true, Sign::Starting),
            (EngineState::Ready, false, Sign::Running),
            (EngineState::Ready, true, Sign::Sharing),
            (EngineState::Stopping, false, Sign::Starting),
            (EngineState::Crashed, false, Sign::Error),
            (EngineState::Failed, true, Sign::Error),
        ];
        for (engine, is_shared, expected) in table {
            assert_eq!(
                sign(&view(engine, is_shared, Life::Running)),
                expected,
                "{engine:?} {is_shared}"
            );
        }
        let quitting = view(EngineState::Ready, true, Life::Quitting);
        assert_eq!(sign(&quitting), Sign::Starting);
    }

    #[test]
    fn all_pictures_differ() {
        let signs = [
            Sign::Stopped,
            Sign::Starting,
            Sign::Running,
            Sign::Sharing,
            Sign::Error,
        ];
        let pictures: Vec<_> = signs
            .into_iter()
            .flat_map(|sign| [Panel::Dark, Panel::Light].map(|panel| picture(sign, panel)))
            .collect();
        for (index, picture) in pictures.iter().enumerate() {
            assert!(picture.starts_with(b"\x89PNG"));
            assert!(!pictures[..index].contains(picture));
        }
    }
}
