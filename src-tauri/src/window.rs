//! The one window. It exists only while it is seen: a hidden one would hold the memory of a whole
//! browser engine.

use crate::assets::PAGE;
use std::path::PathBuf;
use tauri::utils::config::Color;
use tauri::webview::NewWindowResponse;
use tauri::{AppHandle, Emitter as _, Manager as _, Theme, Url, WebviewUrl, WebviewWindowBuilder};

/// Name of the window; the capability names it too.
pub(crate) const LABEL: &str = "main";
/// Sent to the page with the address of the page to show.
const NAVIGATE: &str = "navigate";
/// Size of a new window, in logical pixels.
const SIZE: (f64, f64) = (1120.0, 780.0);
const SMALLEST: (f64, f64) = (480.0, 420.0);
/// `--background` of the pages.
const LIGHT: Color = Color(0xf4, 0xf6, 0xf5, 0xff);
const DARK: Color = Color(0x0c, 0x11, 0x10, 0xff);

/// Whether it is open.
pub(crate) fn is_open(app: &AppHandle) -> bool {
    app.get_webview_window(LABEL).is_some()
}

/// Shows the window, at `hash` (such as `#/sharing`) or where it was. On the main thread.
pub(crate) fn show(app: &AppHandle, hash: Option<&str>, profile: PathBuf) -> tauri::Result<()> {
    if let Some(window) = app.get_webview_window(LABEL) {
        window.unminimize()?;
        window.show()?;
        window.set_focus()?;
        if let Some(hash) = hash {
            app.emit_to(LABEL, NAVIGATE, hash)?;
        }
        return Ok(());
    }
    #[cfg(target_os = "macos")]
    app.set_activation_policy(tauri::ActivationPolicy::Regular)?;
    let address = format!("{PAGE}{}", hash.unwrap_or_default());
    let window = WebviewWindowBuilder::new(app, LABEL, WebviewUrl::App(address.into()))
        .title("ComfyUI Sentinel")
        .inner_size(SIZE.0, SIZE.1)
        .min_inner_size(SMALLEST.0, SMALLEST.1)
        .center()
        // Shown only in the colour of the page, else it flashes white.
        .visible(false)
        .data_directory(profile)
        .on_navigation(is_ours)
        .on_new_window(|_, _| NewWindowResponse::Deny)
        .build()?;
    let colour = match window.theme()? {
        Theme::Dark => DARK,
        _ => LIGHT,
    };
    window.set_background_color(Some(colour))?;
    window.show()?;
    window.set_focus()
}

/// Closes the window and frees what it holds. On the main thread.
pub(crate) fn close(app: &AppHandle) -> tauri::Result<()> {
    match app.get_webview_window(LABEL) {
        Some(window) => window.destroy(),
        None => Ok(()),
    }
}

/// Frees what is left of a window that was closed; one that is open again keeps it. On the main
/// thread, where no window can open meanwhile.
pub(crate) fn release(app: &AppHandle) {
    #[cfg(target_os = "linux")]
    if !is_open(app) {
        crate::web_processes::end();
        crate::library_pages::give_back();
    }
    #[cfg(not(target_os = "linux"))]
    let _ = app;
}

/// The page never leaves for another origin; ComfyUI opens in the browser.
fn is_ours(address: &Url) -> bool {
    match address.scheme() {
        "tauri" => true,
        // What Windows knows as that scheme.
        "http" | "https" => address.host_str() == Some("tauri.localhost"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_stays_with_our_pages() {
        let table = [
            ("tauri://localhost/sentinel/index.html#/people", true),
            ("http://tauri.localhost/sentinel/index.html", true),
            ("http://localhost:8189/", false),
            ("https://tauri.localhost.example.com/", false),
            ("file:///etc/passwd", false),
            ("data:text/html,x", false),
        ];
        for (address, expected) in table {
            assert_eq!(is_ours(&address.parse().unwrap()), expected, "{address}");
        }
    }
}
