//! Linux: both are asked for on the session's bus.

use super::{Panel, Surroundings};
use std::future::Future;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use zbus::Connection;
use zbus::export::ordered_stream::OrderedStreamExt as _;
use zbus::zvariant::OwnedValue;

/// Who collects tray icons; without it nobody shows them.
const WATCHER: &str = "org.kde.StatusNotifierWatcher";
const BUS: &str = "org.freedesktop.DBus";
const PORTAL: &str = "org.freedesktop.portal.Desktop";
const PORTAL_PATH: &str = "/org/freedesktop/portal/desktop";
const PORTAL_SETTINGS: &str = "org.freedesktop.portal.Settings";
const APPEARANCE: &str = "org.freedesktop.appearance";
const COLOUR_SCHEME: &str = "color-scheme";
/// What the portal calls a preference for light.
const PREFERS_LIGHT: u32 = 2;
/// The bus answers at once, but the portal may have to be started first.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

pub(super) async fn follow(known: watch::Sender<Surroundings>, stopping: CancellationToken) {
    let session = bounded(Connection::session()).await;
    let Some(session) = session else {
        tracing::info!("there is no session bus, so there is no tray");
        set_tray(&known, false);
        stopping.cancelled().await;
        return;
    };
    tokio::select! {
        () = stopping.cancelled() => {}
        ((), ()) = async { tokio::join!(follow_tray(&session, &known), follow_panel(&session, &known)) } => {
            // Both end when the bus is gone.
            set_tray(&known, false);
            stopping.cancelled().await;
        }
    }
}

async fn follow_tray(session: &Connection, known: &watch::Sender<Surroundings>) {
    let Some(bus) = bounded(zbus::Proxy::new(session, BUS, "/org/freedesktop/DBus", BUS)).await
    else {
        return set_tray(known, false);
    };
    // Listening first: nothing is missed between question and signal.
    let arguments: &[(u8, &str)] = &[(0, WATCHER)];
    let Some(mut changes) =
        bounded(bus.receive_signal_with_args("NameOwnerChanged", arguments)).await
    else {
        return set_tray(known, false);
    };
    let has_owner = bounded(bus.call::<_, _, bool>("NameHasOwner", &(WATCHER,))).await;
    set_tray(known, has_owner == Some(true));
    while let Some(change) = changes.next().await {
        if let Ok((_, _, owner)) = change.body().deserialize::<(String, String, String)>() {
            set_tray(known, !owner.is_empty());
        }
    }
}

async fn follow_panel(session: &Connection, known: &watch::Sender<Surroundings>) {
    let portal = bounded(zbus::Proxy::new(
        session,
        PORTAL,
        PORTAL_PATH,
        PORTAL_SETTINGS,
    ))
    .await;
    let Some(portal) = portal else { return };
    let arguments: &[(u8, &str)] = &[(0, APPEARANCE), (1, COLOUR_SCHEME)];
    let Some(mut changes) =
        bounded(portal.receive_signal_with_args("SettingChanged", arguments)).await
    else {
        return;
    };
    let scheme = portal.call::<_, _, OwnedValue>("ReadOne", &(APPEARANCE, COLOUR_SCHEME));
    if let Some(scheme) = bounded(scheme).await {
        set_panel(known, &scheme);
    }
    while let Some(change) = changes.next().await {
        if let Ok((_, _, scheme)) = change.body().deserialize::<(String, String, OwnedValue)>() {
            set_panel(known, &scheme);
        }
    }
}

/// What comes in time; no more is said of what does not, as many desktops lack these services.
async fn bounded<T, E: std::fmt::Display>(asked: impl Future<Output = Result<T, E>>) -> Option<T> {
    match timeout(ANSWER_LIMIT, asked).await {
        Ok(Ok(answer)) => Some(answer),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a service of the desktop does not answer");
            None
        }
        Err(_) => None,
    }
}

fn set_tray(known: &watch::Sender<Surroundings>, has_tray: bool) {
    known
        .send_if_modified(|surroundings| surroundings.has_tray.replace(has_tray) != Some(has_tray));
}

fn set_panel(known: &watch::Sender<Surroundings>, scheme: &OwnedValue) {
    let panel = match scheme.downcast_ref::<u32>() {
        Ok(PREFERS_LIGHT) => Panel::Light,
        _ => Panel::Dark,
    };
    known.send_if_modified(|surroundings| {
        std::mem::replace(&mut surroundings.panel, panel) != panel
    });
}
