//! macOS: the events of the session. No permission is needed to ask how long ago one was.

use objc2_core_graphics::{CGEventSource, CGEventSourceStateID, CGEventType};
use std::time::Duration;

/// `kCGAnyInputEventType` of Apple's headers.
const ANY_INPUT: CGEventType = CGEventType(u32::MAX);

/// The session that the app runs in.
pub(super) struct Seat;

impl Seat {
    #[expect(clippy::unused_async, reason = "as on other systems")]
    pub(super) async fn open() -> Self {
        Self
    }

    /// Time since keyboard or mouse were used.
    #[expect(clippy::unused_async, reason = "as on other systems")]
    pub(super) async fn idle(&self) -> Option<Duration> {
        let seconds = CGEventSource::seconds_since_last_event_type(
            CGEventSourceStateID::CombinedSessionState,
            ANY_INPUT,
        );
        Duration::try_from_secs_f64(seconds).ok()
    }
}
