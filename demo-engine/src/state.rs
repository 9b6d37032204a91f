//! What all parts of the engine share.

use crate::assets::Assets;
use crate::command_line::Options;
use crate::files;
use crate::json::{Json, json};
use crate::log::{Level, Log};
use crate::queue::Queue;
use crate::socket::Sockets;
use crate::userdata::Users;
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The running engine.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) options: Options,
    pub(crate) log: Log,
    pub(crate) sockets: Sockets,
    pub(crate) queue: Queue,
    pub(crate) users: Users,
    pub(crate) assets: Mutex<Assets>,
    /// Asks the running job to stop; there is only one for everybody.
    pub(crate) interrupt: AtomicBool,
    /// Client of the last prompt taken up, and the node it is at.
    pub(crate) current: Mutex<Current>,
}

/// Whose prompt runs and how far it is.
#[derive(Debug, Default)]
pub(crate) struct Current {
    pub(crate) client: Option<Json>,
    pub(crate) node: Option<String>,
}

impl Engine {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            log: Log::new(options.log_to_output, options.quiet),
            sockets: Sockets::default(),
            queue: Queue::default(),
            users: Users::new(&options.user, options.multi_user),
            assets: Mutex::default(),
            interrupt: AtomicBool::new(false),
            current: Mutex::default(),
            options,
        }
    }

    /// Prints a line and passes it to the subscribed clients.
    pub(crate) fn say(&self, text: &str) {
        self.log(Level::Info, text);
    }

    /// The same for what is odd.
    pub(crate) fn warn(&self, text: &str) {
        self.log(Level::Warning, text);
    }

    /// The same for what is wrong.
    pub(crate) fn fail(&self, text: &str) {
        self.log(Level::Error, text);
    }

    fn log(&self, level: Level, text: &str) {
        let entry = self.log.line(level, text);
        for client in self.log.subscribers() {
            let data = json!({ "entries": [{ "t": entry.at, "m": entry.text }], "size": null });
            self.sockets.send("logs", &data, Some(&Json::Text(client)));
        }
    }

    /// Tells everybody how long the queue is.
    pub(crate) fn announce_queue(&self, remaining: usize) {
        let data = json!({ "status": queue_info(remaining) });
        self.sockets.send("status", &data, None);
    }

    /// The directory of a type name, which may also be missing.
    pub(crate) fn directory(&self, kind: &str) -> Option<&Path> {
        match kind {
            "input" => Some(&self.options.input),
            "output" => Some(&self.options.output),
            "temp" => Some(&self.options.temp),
            _ => None,
        }
    }

    /// Splits the annotation `[input]` and the like off a name. The character before it goes as well,
    /// whatever it is.
    pub(crate) fn annotated<'a>(&self, name: &'a str) -> (&'a str, Option<&Path>) {
        for kind in ["output", "input", "temp"] {
            if let Some(rest) = name.strip_suffix(&format!("[{kind}]")) {
                let mut characters = rest.chars();
                characters.next_back();
                return (characters.as_str(), self.directory(kind));
            }
        }
        (name, None)
    }

    /// Where a load node looks for a name; `None` if that is outside of the directory, links followed. With
    /// the fault `unchecked-paths` nothing keeps it inside, as in ComfyUI before 2026.
    pub(crate) fn load_path(&self, name: &str) -> Option<PathBuf> {
        let (rest, directory) = self.annotated(name);
        let directory = directory.unwrap_or(&self.options.input);
        let path = directory.join(rest);
        (self.options.faults.unchecked_paths || files::is_within(directory, &path)).then_some(path)
    }

    pub(crate) fn interrupted(&self) -> bool {
        self.interrupt.load(Ordering::SeqCst)
    }
}

/// The length of the queue as it is told.
pub(crate) fn queue_info(remaining: usize) -> serde_json::Value {
    serde_json::json!({ "exec_info": { "queue_remaining": remaining } })
}

/// Milliseconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |span| {
            u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
        })
}

/// Ends the process at once, as an exception in ComfyUI's main loop does.
#[expect(
    clippy::exit,
    reason = "sudden ends are what this engine is there to show"
)]
pub(crate) fn leave(code: i32) -> ! {
    std::process::exit(code)
}
