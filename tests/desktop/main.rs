//! The desktop app from outside: its tray is read and clicked over the bus, its window is seen on a
//! screen and driven by WebKit's own driver.
#![cfg(target_os = "linux")]

mod desktop;
mod driver;
mod figures;
mod pages;
mod screen;
mod shell;
mod tray;

/// Says loudly that a test cannot run here, and returns from it.
macro_rules! needs_desktop {
    ($($program:literal),*) => {
        let missing = $crate::screen::missing(&[$($program),*]);
        if !missing.is_empty() {
            eprintln!("SKIPPED: not installed here: {}", missing.join(" "));
            return Ok(());
        }
    };
}
pub(crate) use needs_desktop;
