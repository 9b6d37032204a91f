//! Windows: the last input of the session.

use std::time::Duration;
use windows_sys::Win32::System::SystemInformation::GetTickCount;
use windows_sys::Win32::UI::Input::KeyboardAndMouse::{GetLastInputInfo, LASTINPUTINFO};

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
        let mut last = LASTINPUTINFO {
            cbSize: u32::try_from(size_of::<LASTINPUTINFO>()).ok()?,
            dwTime: 0,
        };
        #[expect(unsafe_code, reason = "the system has no other call for it")]
        // SAFETY: the structure is ours, lives until both calls are over, and names its own size.
        let (is_known, now) = unsafe { (GetLastInputInfo(&raw mut last), GetTickCount()) };
        // Both count milliseconds since the start of the system and begin again after 49 days.
        let idle = now.wrapping_sub(last.dwTime);
        (is_known != 0).then(|| Duration::from_millis(idle.into()))
    }
}
