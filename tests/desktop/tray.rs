//! What a desktop does with tray icons: takes them, reads their menus, clicks on lines; and takes
//! notifications.
#![expect(
    clippy::needless_pass_by_value,
    reason = "zbus hands headers over by value"
)]

use anyhow::{Context as _, Result, ensure};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};
use zbus::blocking::{Connection, Proxy, connection};
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::zvariant::{OwnedValue, Value};

const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);
const MENU: &str = "com.canonical.dbusmenu";
const ITEM: &str = "org.kde.StatusNotifierItem";

/// Where an icon lies on the bus.
type Place = (String, String);

/// The part of a desktop that collects tray icons.
#[derive(Debug)]
struct Watcher {
    items: Arc<Mutex<Vec<Place>>>,
}

#[zbus::interface(name = "org.kde.StatusNotifierWatcher")]
impl Watcher {
    fn register_status_notifier_item(&self, service: &str, #[zbus(header)] header: Header<'_>) {
        let sender = header.sender().map(ToString::to_string).unwrap_or_default();
        let place = if service.starts_with('/') {
            (sender, service.to_owned())
        } else {
            (service.to_owned(), "/StatusNotifierItem".to_owned())
        };
        self.items.lock().push(place);
    }

    fn register_status_notifier_host(&self, _service: &str) {}

    #[zbus(property)]
    fn registered_status_notifier_items(&self) -> Vec<String> {
        let items = self.items.lock();
        items
            .iter()
            .map(|(name, path)| format!("{name}{path}"))
            .collect()
    }

    #[zbus(property)]
    fn is_status_notifier_host_registered(&self) -> bool {
        true
    }

    #[zbus(property)]
    fn protocol_version(&self) -> i32 {
        0
    }

    #[zbus(signal)]
    async fn status_notifier_host_registered(emitter: &SignalEmitter<'_>) -> zbus::Result<()>;
}

/// The part of a desktop that shows notifications.
#[derive(Debug)]
struct Notifications {
    titles: Arc<Mutex<Vec<String>>>,
}

#[zbus::interface(name = "org.freedesktop.Notifications")]
impl Notifications {
    #[expect(clippy::too_many_arguments, reason = "as the desktops agreed on it")]
    fn notify(
        &self,
        _app: &str,
        _replaces: u32,
        _icon: &str,
        title: &str,
        _text: &str,
        _actions: Vec<String>,
        _hints: HashMap<String, OwnedValue>,
        _limit: i32,
    ) -> u32 {
        let mut titles = self.titles.lock();
        titles.push(title.to_owned());
        titles.len() as u32
    }

    fn get_capabilities(&self) -> Vec<String> {
        vec!["body".to_owned()]
    }

    fn get_server_information(&self) -> (String, String, String, String) {
        let text = || "test".to_owned();
        (text(), text(), text(), "1.2".to_owned())
    }
}

/// A desktop that shows tray icons and notifications.
#[derive(Debug)]
pub(crate) struct Panel {
    connection: Connection,
    items: Arc<Mutex<Vec<Place>>>,
    titles: Arc<Mutex<Vec<String>>>,
}

/// A line of a menu.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line {
    id: i32,
    pub(crate) label: String,
    pub(crate) is_enabled: bool,
    pub(crate) is_checked: bool,
    pub(crate) lines: Vec<Self>,
}

impl Panel {
    pub(crate) fn start(bus: &str) -> Result<Self> {
        let items = Arc::<Mutex<Vec<Place>>>::default();
        let titles = Arc::<Mutex<Vec<String>>>::default();
        let connection = connection::Builder::address(bus)?
            .serve_at(
                "/StatusNotifierWatcher",
                Watcher {
                    items: Arc::clone(&items),
                },
            )?
            .serve_at(
                "/org/freedesktop/Notifications",
                Notifications {
                    titles: Arc::clone(&titles),
                },
            )?
            .name("org.kde.StatusNotifierWatcher")?
            .name("org.freedesktop.Notifications")?
            .build()?;
        Ok(Self {
            connection,
            items,
            titles,
        })
    }

    /// The titles of all notifications so far.
    pub(crate) fn notifications(&self) -> Vec<String> {
        self.titles.lock().clone()
    }

    /// The menu as it is now.
    pub(crate) fn menu(&self) -> Result<Vec<Line>> {
        Ok(read_line(&self.layout()?.into())?.lines)
    }

    /// Waits until the menu is as wanted, and returns it.
    pub(crate) fn await_menu(&self, holds: impl Fn(&[Line]) -> bool) -> Result<Vec<Line>> {
        let started = Instant::now();
        loop {
            let menu = self.menu();
            if let Ok(menu) = &menu
                && holds(menu)
            {
                return Ok(menu.clone());
            }
            ensure!(started.elapsed() < PATIENCE, "the menu stays {menu:#?}");
            sleep(PAUSE);
        }
    }

    /// Waits until the first line of the menu begins so.
    pub(crate) fn await_status(&self, text: &str) -> Result<Vec<Line>> {
        self.await_menu(|menu| menu.first().is_some_and(|line| line.label == text))
    }

    /// Clicks on a line once it can be clicked.
    pub(crate) fn click(&self, label: &str) -> Result<()> {
        let menu = self.await_menu(|menu| find(menu, label).is_some_and(|line| line.is_enabled))?;
        let line = find(&menu, label).context("the line is gone")?;
        self.send_click(line.id)
    }

    /// Clicks on a line of a submenu once it can be clicked.
    pub(crate) fn click_in(&self, submenu: &str, label: &str) -> Result<()> {
        let inside = |menu: &[Line]| {
            let line = find(&find(menu, submenu)?.lines, label)?.clone();
            line.is_enabled.then_some(line.id)
        };
        let menu = self.await_menu(|menu| inside(menu).is_some())?;
        self.send_click(inside(&menu).context("the line is gone")?)
    }

    fn send_click(&self, id: i32) -> Result<()> {
        let click = (id, "clicked", Value::from(0), 0_u32);
        self.menu_proxy()?.call_method("Event", &click)?;
        Ok(())
    }

    /// The picture that the icon shows.
    pub(crate) fn picture(&self) -> Result<Vec<u8>> {
        let (name, path) = self.item()?;
        let item = Proxy::new(&self.connection, name, path, ITEM)?;
        // The program may change it at any moment, and nothing is to be kept of the last answer.
        let icon: OwnedValue = item
            .connection()
            .call_method(
                Some(item.destination()),
                item.path(),
                Some("org.freedesktop.DBus.Properties"),
                "Get",
                &(ITEM, "IconName"),
            )?
            .body()
            .deserialize()?;
        let file: String = icon.try_into()?;
        fs::read(&file).with_context(|| file.clone())
    }

    fn item(&self) -> Result<Place> {
        let items = self.items.lock();
        items.last().cloned().context("no icon is in the tray")
    }

    fn menu_proxy(&self) -> Result<Proxy<'static>> {
        let (name, path) = self.item()?;
        // Every indicator has its menu below its own path.
        Ok(Proxy::new(
            &self.connection,
            name,
            format!("{path}/Menu"),
            MENU,
        )?)
    }

    fn layout(&self) -> Result<OwnedValue> {
        let wanted = ["label", "enabled", "toggle-state", "visible"];
        let answer = self
            .menu_proxy()?
            .call_method("GetLayout", &(0, -1, wanted.as_slice()))?;
        let body = answer.body();
        let fields: zbus::zvariant::Structure<'_> = body.deserialize()?;
        let layout = fields.fields().get(1).context("no layout")?;
        Ok(layout.try_to_owned()?)
    }
}

/// The line with this label, which may begin a longer one.
pub(crate) fn find<'a>(menu: &'a [Line], label: &str) -> Option<&'a Line> {
    menu.iter().find(|line| line.label.starts_with(label))
}

fn read_line(value: &Value<'_>) -> Result<Line> {
    let value = match value {
        Value::Value(inner) => inner.as_ref(),
        value => value,
    };
    let Value::Structure(fields) = value else {
        anyhow::bail!("a line is {value:?}");
    };
    let [Value::I32(id), Value::Dict(properties), Value::Array(lines)] = fields.fields() else {
        anyhow::bail!("a line is {fields:?}");
    };
    let mut line = Line {
        id: *id,
        // What has its default is not told.
        is_enabled: true,
        ..Line::default()
    };
    for (key, value) in properties.iter() {
        let (Value::Str(key), Value::Value(value)) = (key, value) else {
            continue;
        };
        match (key.as_str(), value.as_ref()) {
            ("label", Value::Str(label)) => line.label = label.replace("__", "_"),
            ("enabled", Value::Bool(is_enabled)) => line.is_enabled = *is_enabled,
            ("toggle-state", Value::I32(state)) => line.is_checked = *state == 1,
            _ => {}
        }
    }
    line.lines = lines.iter().map(read_line).collect::<Result<_>>()?;
    Ok(line)
}
