//! What the pages in the window may ask for. Each command is a thin way to the gateway or the
//! desktop; `build.rs` and `capabilities/main.json` list them too.
#![expect(
    clippy::needless_pass_by_value,
    reason = "Tauri hands arguments over by value"
)]

use crate::autostart;
use crate::desk::{self, Order};
use crate::preferences::{PreferenceFile, Preferences};
use crate::surroundings::Surroundings;
use crate::texts::Language;
use sentinel_gateway::Gateway;
use sentinel_gateway::files::DataDirectory;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tauri::{AppHandle, State};
use tauri_plugin_clipboard_manager::ClipboardExt as _;
use tauri_plugin_dialog::{DialogExt as _, FilePath};
use tauri_plugin_opener::OpenerExt as _;
use tokio::sync::{mpsc, oneshot, watch};

/// What commands work with.
#[derive(Debug)]
pub(crate) struct Surface {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) data: DataDirectory,
    pub(crate) preferences: Arc<PreferenceFile>,
    pub(crate) surroundings: watch::Receiver<Surroundings>,
    pub(crate) orders: mpsc::Sender<Order>,
}

/// Why a command failed, for the page's console; the person sees what the page makes of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("no such method")]
    Method,
    #[error("the gateway is stopping")]
    Stopping,
    #[error(transparent)]
    Autostart(#[from] tauri_plugin_autostart::Error),
    #[error(transparent)]
    Clipboard(#[from] tauri_plugin_clipboard_manager::Error),
    #[error(transparent)]
    Opener(#[from] tauri_plugin_opener::Error),
    #[error("the settings could not be written")]
    Preferences(#[source] std::io::Error),
}

impl Serialize for CommandError {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

type Outcome<T> = Result<T, CommandError>;

/// What the gateway answered.
#[derive(Debug, Serialize)]
pub(crate) struct Answer {
    status: u16,
    body: String,
    content_type: String,
}

/// A folder that can be opened.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Folder {
    Logs,
    Data,
}

/// What the page knows of where it is shown.
#[derive(Debug, Serialize)]
pub(crate) struct WindowState {
    /// Whether closing the window leaves an icon in the tray.
    tray: bool,
    first_run: bool,
    platform: &'static str,
}

#[tauri::command]
pub(crate) async fn api(
    surface: State<'_, Surface>,
    method: String,
    path: String,
    body: String,
) -> Outcome<Answer> {
    let method = http::Method::from_bytes(method.as_bytes()).map_err(|_| CommandError::Method)?;
    let answer = surface
        .gateway
        .local_api(method, &path, body.into_bytes())
        .await;
    Ok(Answer {
        status: answer.status,
        body: String::from_utf8_lossy(&answer.body).into_owned(),
        content_type: answer.content_type,
    })
}

#[tauri::command]
pub(crate) fn open_comfyui(app: AppHandle, surface: State<'_, Surface>) {
    desk::open_comfyui(&app, &surface.gateway);
}

#[tauri::command]
pub(crate) fn copy_text(app: AppHandle, text: String) -> Outcome<()> {
    Ok(app.clipboard().write_text(text)?)
}

#[tauri::command]
pub(crate) fn open_folder(
    app: AppHandle,
    surface: State<'_, Surface>,
    kind: Folder,
) -> Outcome<()> {
    let folder = match kind {
        Folder::Logs => surface.data.logs(),
        Folder::Data => surface.data.root().to_path_buf(),
    };
    Ok(app
        .opener()
        .open_path(folder.display().to_string(), None::<&str>)?)
}

#[tauri::command]
pub(crate) async fn choose_folder(app: AppHandle) -> Option<String> {
    let (chosen, choice) = oneshot::channel();
    app.dialog().file().pick_folder(|path| {
        // The page may have gone meanwhile.
        let _ = chosen.send(path);
    });
    path_of(choice.await.ok().flatten())
}

#[tauri::command]
pub(crate) async fn choose_file(app: AppHandle) -> Option<String> {
    let (chosen, choice) = oneshot::channel();
    app.dialog().file().pick_file(|path| {
        let _ = chosen.send(path);
    });
    path_of(choice.await.ok().flatten())
}

fn path_of(chosen: Option<FilePath>) -> Option<String> {
    let path = chosen?.into_path().ok()?;
    Some(path.display().to_string())
}

#[tauri::command]
pub(crate) fn window_state(surface: State<'_, Surface>) -> WindowState {
    WindowState {
        // Until it is known nobody has to be worried.
        tray: surface.surroundings.borrow().has_tray != Some(false),
        first_run: !surface.gateway.status().has_account,
        platform: std::env::consts::OS,
    }
}

#[tauri::command]
pub(crate) fn autostart_get(app: AppHandle) -> bool {
    autostart::is_enabled(&app)
}

#[tauri::command]
pub(crate) async fn autostart_set(
    app: AppHandle,
    surface: State<'_, Surface>,
    enabled: bool,
) -> Outcome<()> {
    autostart::set(&app, enabled)?;
    // The tray's menu shows it too.
    let told = surface.orders.send(Order::Refresh).await;
    told.map_err(|_| CommandError::Stopping)
}

#[tauri::command]
pub(crate) fn desktop_settings_get(surface: State<'_, Surface>) -> Preferences {
    surface.preferences.current()
}

#[tauri::command]
pub(crate) fn desktop_settings_set(
    surface: State<'_, Surface>,
    settings: Preferences,
) -> Outcome<()> {
    // The rest is the app's own, and what the page knows of it may be old.
    let changed = surface
        .preferences
        .change(|current| current.notifications = settings.notifications);
    changed.map(drop).map_err(CommandError::Preferences)
}

#[tauri::command]
pub(crate) async fn language_set(surface: State<'_, Surface>, language: Language) -> Outcome<()> {
    let changed = surface
        .preferences
        .change(|current| current.language = Some(language))
        .map_err(CommandError::Preferences)?;
    if !changed {
        return Ok(());
    }
    let told = surface.orders.send(Order::Refresh).await;
    told.map_err(|_| CommandError::Stopping)
}
