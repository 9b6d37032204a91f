//! Puts gateway, tray and window together, and takes them apart.

use crate::arguments::Arguments;
use crate::assets::GatewayPages;
use crate::commands::{self, Surface};
use crate::desk::{self, Desk, Order};
use crate::menu::Action;
use crate::preferences::PreferenceFile;
use crate::surroundings::{self, Surroundings};
use crate::{autostart, presence, texts, window};
use anyhow::Context as _;
use sentinel_gateway::files::DataDirectory;
use sentinel_gateway::{Gateway, GatewayError};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tauri::{AppHandle, Manager as _, RunEvent, WindowEvent};
use tauri_plugin_dialog::{DialogExt as _, MessageDialogButtons, MessageDialogKind};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long the system's end of a session may be held up to stop ComfyUI; systems kill what takes
/// longer.
const SESSION_END_LIMIT: Duration = Duration::from_secs(4);
/// How long tasks may take to end after the last window is gone.
const TASKS_LIMIT: Duration = Duration::from_secs(2);

/// Runs the app until it is to end.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    #[cfg(target_os = "linux")]
    prepare_display()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    tauri::async_runtime::set(runtime.handle().clone());
    let (orders, received) = mpsc::channel(desk::QUEUE);
    let app = build(arguments, &orders).context("the desktop app cannot be set up")?;
    let stopping = CancellationToken::new();
    let tasks = TaskTracker::new();
    let starts_again = Arc::new(AtomicBool::new(false));
    // From here on this is the only instance.
    let started = {
        let _context = runtime.enter();
        start(
            arguments,
            app.handle(),
            &orders,
            received,
            &stopping,
            &tasks,
        )
    };
    let log = match started {
        Ok(log) => Some(log),
        Err(error) => {
            explain(app.handle(), arguments, &error, &starts_again);
            None
        }
    };
    let has_started = log.is_some();
    let code = app.run_return(move |app, event| react(app, event, &orders));
    finish(&runtime, &stopping, &tasks);
    drop(log);
    if starts_again.load(Ordering::Relaxed) {
        // The instance before has given its place up.
        std::process::Command::new(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .spawn()
            .context("the app could not start itself again")?;
        return Ok(ExitCode::SUCCESS);
    }
    Ok(if has_started && code == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

#[expect(clippy::exit, reason = "in what Tauri's macro writes")]
fn context() -> tauri::Context {
    tauri::generate_context!()
}

/// The parts of Tauri. A second instance ends in here, after it has told the first.
fn build(arguments: &Arguments, orders: &mpsc::Sender<Order>) -> tauri::Result<tauri::App> {
    let mut context = context();
    context.set_assets(Box::new(GatewayPages));
    let of_second_instance = orders.clone();
    let of_menu = orders.clone();
    tauri::Builder::default()
        .plugin(tauri_plugin_single_instance::init(
            move |_, arguments, _| {
                // A session that starts the app twice wants no window.
                if !arguments.iter().any(|argument| argument == "--hidden") {
                    send(&of_second_instance, Order::Show);
                }
            },
        ))
        .plugin(
            tauri_plugin_autostart::Builder::new()
                .app_name("comfyui-sentinel")
                .args(autostart::arguments(arguments))
                .build(),
        )
        .plugin(tauri_plugin_clipboard_manager::init())
        .plugin(tauri_plugin_dialog::init())
        .plugin(tauri_plugin_notification::init())
        .plugin(
            tauri_plugin_opener::Builder::new()
                .open_js_links_on_click(false)
                .build(),
        )
        .on_menu_event(move |_, event| {
            if let Some(action) = Action::from_name(event.id().as_ref()) {
                send(&of_menu, Order::Act(action));
            }
        })
        .invoke_handler(tauri::generate_handler![
            commands::api,
            commands::autostart_get,
            commands::autostart_set,
            commands::choose_file,
            commands::choose_folder,
            commands::copy_text,
            commands::desktop_settings_get,
            commands::desktop_settings_set,
            commands::language_set,
            commands::open_comfyui,
            commands::open_folder,
            commands::window_state,
        ])
        .build(context)
}

/// Starts the gateway and all that stands between it and the screen; what comes back writes the
/// log out when it is dropped.
fn start(
    arguments: &Arguments,
    app: &AppHandle,
    orders: &mpsc::Sender<Order>,
    received: mpsc::Receiver<Order>,
    stopping: &CancellationToken,
    tasks: &TaskTracker,
) -> anyhow::Result<impl Drop + use<>> {
    let data: DataDirectory = arguments.run.open_data()?;
    let (config, log) = arguments.run.open_config(&data)?;
    let gateway = Arc::new(Gateway::start(&data, config, arguments.run.listen)?);
    let preferences = Arc::new(PreferenceFile::open(data.root()));
    let (known, surroundings) = watch::channel(Surroundings::default());
    app.manage(Surface {
        gateway: Arc::clone(&gateway),
        data: data.clone(),
        preferences: Arc::clone(&preferences),
        surroundings: surroundings.clone(),
        orders: orders.clone(),
    });
    let presence = presence::follow(Arc::clone(&gateway));
    tasks.spawn(stopping.clone().run_until_cancelled_owned(presence));
    let desk = Desk::new(app.clone(), gateway, preferences, data, surroundings);
    tasks.spawn(surroundings::follow(known, stopping.clone()));
    let signals = desk::listen_for_signals(orders.clone());
    tasks.spawn(stopping.clone().run_until_cancelled_owned(signals));
    tasks.spawn(desk.work(received, arguments.hidden));
    tasks.close();
    Ok(log)
}

fn react(app: &AppHandle, event: RunEvent, orders: &mpsc::Sender<Order>) {
    match event {
        RunEvent::WindowEvent {
            label,
            event: WindowEvent::Destroyed,
            ..
        } if label == window::LABEL => {
            #[cfg(target_os = "macos")]
            if let Err(error) = app.set_activation_policy(tauri::ActivationPolicy::Accessory) {
                tracing::debug!(%error, "the icon in the dock stays");
            }
            send(orders, Order::WindowClosed);
        }
        // The last window is closed; the app goes on in the tray.
        RunEvent::ExitRequested {
            code: None, api, ..
        } => api.prevent_exit(),
        // The system ends the session, or we have ended ourselves, and then nothing is left to do.
        RunEvent::Exit => {
            if let Some(surface) = app.try_state::<Surface>() {
                let stopped = tauri::async_runtime::block_on(async {
                    tokio::time::timeout(SESSION_END_LIMIT, surface.gateway.stop()).await
                });
                if stopped.is_err() {
                    tracing::warn!("ComfyUI did not end in time and is killed");
                }
            }
        }
        _ => {}
    }
}

/// The port of the settings is another program's, and this one is free.
fn other_port(arguments: &Arguments, error: &anyhow::Error) -> Option<u16> {
    let taken = error.downcast_ref::<GatewayError>()?.taken_port()?;
    taken.next_free.filter(|_| !arguments.run.fixes_port())
}

/// Says why there is nothing to show, and ends the app then. Where only the port is another
/// program's, the next free one is offered; with it the app starts again.
fn explain(
    app: &AppHandle,
    arguments: &Arguments,
    error: &anyhow::Error,
    starts_again: &Arc<AtomicBool>,
) {
    let text = format!("{error:#}");
    tracing::error!(error = text, "the gateway could not be started");
    let handle = app.clone();
    if let Some(port) = other_port(arguments, error) {
        let texts = texts::of_system();
        let run = arguments.run.clone();
        let starts_again = Arc::clone(starts_again);
        let question = texts.use_port.replace("{port}", &port.to_string());
        app.dialog()
            .message(format!("{text}.\n\n{question}"))
            .title(texts.no_start_title)
            .kind(MessageDialogKind::Warning)
            .buttons(MessageDialogButtons::OkCancelCustom(
                texts.use_it.to_owned(),
                texts.quit.to_owned(),
            ))
            .show(move |agreed| {
                let written = agreed.then(|| run.write_port(port));
                if let Some(Err(error)) = &written {
                    tracing::error!(
                        error = format!("{error:#}"),
                        "the port could not be written"
                    );
                }
                starts_again.store(matches!(written, Some(Ok(()))), Ordering::Relaxed);
                handle.exit(i32::from(!agreed));
            });
        return;
    }
    app.dialog()
        .message(text)
        .title(texts::of_system().no_start_title)
        .kind(MessageDialogKind::Error)
        .show(move |_| handle.exit(1));
}

fn finish(runtime: &Runtime, stopping: &CancellationToken, tasks: &TaskTracker) {
    stopping.cancel();
    let ended = runtime.block_on(async { tokio::time::timeout(TASKS_LIMIT, tasks.wait()).await });
    if ended.is_err() {
        tracing::warn!("a task did not end in time");
    }
}

/// Orders come from threads that must not wait. A full queue means that nothing works any more.
fn send(orders: &mpsc::Sender<Order>, order: Order) {
    if let Err(error) = orders.try_send(order) {
        tracing::warn!(%error, "an order was lost");
    }
}

/// Sees to it that there is a display and that WebKit can draw on it.
#[cfg(target_os = "linux")]
fn prepare_display() -> anyhow::Result<()> {
    use std::os::unix::process::CommandExt as _;
    /// WebKit's drawing on the GPU, of which forms and small charts have no use: it costs a hundred
    /// megabytes while the window is open, and some drivers show nothing with it.
    const SWITCH: &str = "WEBKIT_DISABLE_COMPOSITING_MODE";
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    anyhow::ensure!(
        is_set("DISPLAY") || is_set("WAYLAND_DISPLAY"),
        "there is no display here; `sentineld run` needs none"
    );
    if !is_set(SWITCH) {
        // The environment of a running program must not be changed, so it starts itself again.
        let error = std::process::Command::new(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .env(SWITCH, "1")
            .exec();
        tracing::warn!(%error, "the program could not start itself again");
    }
    Ok(())
}
