//! The one task between gateway and screen: shows the status, tells of events, carries orders out,
//! and ends the app.

use crate::menu::{Action, menu};
use crate::preferences::PreferenceFile;
use crate::surroundings::Surroundings;
use crate::texts::{self, Texts};
use crate::tray::Tray;
use crate::view::{Life, View};
use crate::{autostart, icon, notifications, signals, window};
use parking_lot::Mutex;
use sentinel_gateway::Gateway;
use sentinel_gateway::control::{Command, Event};
use sentinel_gateway::files::DataDirectory;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tauri::{AppHandle, Emitter as _};
use tauri_plugin_clipboard_manager::ClipboardExt as _;
use tauri_plugin_opener::OpenerExt as _;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// Tells the page that the status may have changed.
const STATUS_CHANGED: &str = "status-changed";
/// Page with the code for phones.
const SHARING_PAGE: &str = "#/sharing";
/// Least time between two looks at the status.
const PAUSE: Duration = Duration::from_millis(150);
/// How long the app may be out of sight without a tray before it shows its window. At the start of
/// a session the panel may come later than we do.
const OUT_OF_SIGHT_LIMIT: Duration = Duration::from_secs(5);
/// After the window was closed, until what is left of it is freed: WebKit writes down what the page
/// remembers, and who opens it again at once does not wait for it.
const RELEASE_PAUSE: Duration = Duration::from_secs(3);
/// Orders that may wait.
pub(crate) const QUEUE: usize = 64;

/// What the desk is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// A line of the menu was clicked.
    Act(Action),
    /// Show the window.
    Show,
    /// The window was closed by its owner.
    WindowClosed,
    /// Something that only the app knows of has changed.
    Refresh,
    /// End; again: hurry.
    Quit,
}

/// What the desk works with.
pub(crate) struct Desk {
    app: AppHandle,
    gateway: Arc<Gateway>,
    preferences: Arc<PreferenceFile>,
    data: DataDirectory,
    surroundings: watch::Receiver<Surroundings>,
    /// Filled on the main thread, where all work on it is done.
    tray: Arc<Mutex<Option<Tray>>>,
}

impl Desk {
    pub(crate) fn new(
        app: AppHandle,
        gateway: Arc<Gateway>,
        preferences: Arc<PreferenceFile>,
        data: DataDirectory,
        surroundings: watch::Receiver<Surroundings>,
    ) -> Self {
        Self {
            app,
            gateway,
            preferences,
            data,
            surroundings,
            tray: Arc::default(),
        }
    }

    /// Works until the app is to end, stops the gateway and ends the app.
    pub(crate) async fn work(mut self, mut orders: mpsc::Receiver<Order>, is_hidden: bool) {
        let mut changes = self.gateway.changes();
        let mut events = self.gateway.events();
        self.refresh(Life::Running);
        if !is_hidden || !self.gateway.status().has_account {
            self.show(None);
        }
        let mut out_of_sight = Instant::now();
        let mut next_look = None;
        let mut release_at = None;
        loop {
            let is_lost =
                self.surroundings.borrow().has_tray == Some(false) && !window::is_open(&self.app);
            tokio::select! {
                order = orders.recv() => match order {
                    None | Some(Order::Quit | Order::Act(Action::Quit)) => break,
                    Some(Order::WindowClosed) => {
                        if self.surroundings.borrow().has_tray != Some(true) {
                            break;
                        }
                        self.hint();
                        out_of_sight = Instant::now();
                        release_at = Some(out_of_sight + RELEASE_PAUSE);
                    }
                    Some(order) => {
                        self.carry_out(order);
                        self.refresh(Life::Running);
                    }
                },
                Ok(()) = changes.changed() => {
                    next_look.get_or_insert_with(|| Instant::now() + PAUSE);
                }
                () = sleep_until(next_look.unwrap_or_else(Instant::now)), if next_look.is_some() => {
                    next_look = None;
                    changes.mark_unchanged();
                    self.refresh(Life::Running);
                }
                () = sleep_until(release_at.unwrap_or_else(Instant::now)), if release_at.is_some() => {
                    release_at = None;
                    let app = self.app.clone();
                    self.on_main_thread(move || {
                        window::release(&app);
                        Ok(())
                    });
                }
                event = events.recv() => match event {
                    Ok(event) => self.tell(&event),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => break,
                },
                Ok(()) = self.surroundings.changed() => {
                    out_of_sight = Instant::now();
                    self.refresh(Life::Running);
                }
                () = sleep_until(out_of_sight + OUT_OF_SIGHT_LIMIT), if is_lost => {
                    out_of_sight = Instant::now();
                    // It may have opened since this wait began.
                    if !window::is_open(&self.app) {
                        tracing::info!("there is no tray on this desktop, so the window is shown");
                        self.show(None);
                    }
                }
            }
        }
        self.end(orders).await;
    }

    fn carry_out(&self, order: Order) {
        match order {
            Order::Act(action) => self.act(action),
            Order::Show => self.show(None),
            Order::Refresh | Order::WindowClosed | Order::Quit => {}
        }
    }

    fn act(&self, action: Action) {
        match action {
            Action::OpenComfyUi => open_comfyui(&self.app, &self.gateway),
            Action::OpenWindow => self.show(None),
            Action::Start => self.gateway.command(Command::StartEngine),
            Action::Stop => self.gateway.command(Command::StopEngine),
            Action::Restart => self.gateway.command(Command::RestartEngine),
            Action::FreeMemory => self.gateway.command(Command::FreeMemory),
            Action::PauseAfterJob => self.gateway.command(Command::PauseQueue { now: false }),
            Action::PauseNow => self.gateway.command(Command::PauseQueue { now: true }),
            Action::Resume => self.gateway.command(Command::ResumeQueue),
            Action::ToggleSharing => {
                let is_shared = self.gateway.status().sharing.is_enabled;
                self.gateway.command(Command::Share(!is_shared));
            }
            Action::CopyAddress => {
                let address = self.view(Life::Running).address;
                if let Err(error) = self.app.clipboard().write_text(address) {
                    tracing::warn!(%error, "the address could not be copied");
                }
            }
            Action::ShowQrCode => self.show(Some(SHARING_PAGE)),
            Action::ToggleAutostart => {
                let is_wanted = !autostart::is_enabled(&self.app);
                if let Err(error) = autostart::set(&self.app, is_wanted) {
                    tracing::warn!(%error, "starting with the computer could not be changed");
                }
            }
            Action::Quit => {}
        }
    }

    fn texts(&self) -> &'static Texts {
        texts::of(self.preferences.current().language)
    }

    fn view(&self, life: Life) -> View {
        View::new(
            &self.gateway.status(),
            autostart::is_enabled(&self.app),
            life,
        )
    }

    /// Brings tray and window up to date.
    fn refresh(&self, life: Life) {
        let view = self.view(life);
        let panel = self.surroundings.borrow().panel;
        let (entries, sign) = (menu(&view, self.texts()), icon::sign(&view));
        let (app, tray) = (self.app.clone(), Arc::clone(&self.tray));
        let directory = self.tray_directory();
        self.on_main_thread(move || {
            let mut tray = tray.lock();
            match tray.as_mut() {
                Some(tray) => tray.update(entries, sign, panel),
                None => {
                    Tray::new(&app, &directory, entries, sign, panel).map(|made| *tray = Some(made))
                }
            }
        });
        if window::is_open(&self.app)
            && let Err(error) = self.app.emit_to(window::LABEL, STATUS_CHANGED, ())
        {
            tracing::debug!(%error, "the window could not be told");
        }
    }

    fn tell(&self, event: &Event) {
        let wanted = self.preferences.current().notifications;
        let is_open = window::is_open(&self.app);
        if let Some(told) = notifications::about(event, wanted, is_open, self.texts()) {
            told.show(&self.app);
        }
    }

    /// Says once that the app goes on without its window.
    fn hint(&self) {
        let told = self
            .preferences
            .change(|current| current.close_hint_shown = true);
        if !matches!(told, Ok(false)) {
            notifications::still_running(self.texts()).show(&self.app);
        }
        if let Err(error) = told {
            tracing::warn!(%error, "the settings of the desktop app could not be written");
        }
    }

    fn show(&self, hash: Option<&'static str>) {
        let app = self.app.clone();
        let profile = self.data.root().join("window");
        self.on_main_thread(move || window::show(&app, hash, profile));
    }

    /// Takes the gateway down, in sight as long as it lasts, and then the app.
    async fn end(self, mut orders: mpsc::Receiver<Order>) {
        let app = self.app.clone();
        self.on_main_thread(move || window::close(&app));
        self.refresh(Life::Quitting);
        let hurry = self.gateway.hurrier();
        let stop = self.gateway.stop();
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                Some(order) = orders.recv() => {
                    if matches!(order, Order::Quit | Order::Act(Action::Quit)) {
                        hurry();
                    }
                }
            }
        }
        self.app.exit(0);
    }

    fn tray_directory(&self) -> PathBuf {
        self.data.root().join("window").join("tray")
    }

    fn on_main_thread(&self, work: impl FnOnce() -> tauri::Result<()> + Send + 'static) {
        let queued = self.app.run_on_main_thread(|| {
            if let Err(error) = work() {
                tracing::error!(%error, "tray or window could not be changed");
            }
        });
        if let Err(error) = queued {
            tracing::debug!(%error, "the main thread is gone");
        }
    }
}

/// Opens ComfyUI in the owner's browser, signed in by a link that is good once.
pub(crate) fn open_comfyui(app: &AppHandle, gateway: &Gateway) {
    let address = gateway
        .sign_in_link()
        .unwrap_or_else(|| gateway.status().local_url);
    if let Err(error) = app.opener().open_url(address, None::<&str>) {
        tracing::warn!(%error, "the browser could not be opened");
    }
}

/// Hands every wish of the system to end on to the desk.
pub(crate) async fn listen_for_signals(orders: mpsc::Sender<Order>) {
    loop {
        match signals::asked_to_end().await {
            Ok(()) => {
                if orders.send(Order::Quit).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::error!(%error, "signals of the system cannot be received");
                return;
            }
        }
    }
}
