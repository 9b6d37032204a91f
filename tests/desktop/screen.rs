//! A screen and a session bus of one test's own.

use anyhow::{Context as _, Result, ensure};
use std::collections::HashSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;
use x11rb::connection::Connection as _;
use x11rb::protocol::xproto::{
    AtomEnum, ClientMessageEvent, ConnectionExt as _, EventMask, ImageFormat, MapState, Window,
};
use x11rb::rust_connection::RustConnection;

const TITLE: &[u8] = b"ComfyUI Sentinel";
/// A bus that starts no services, so that nothing of the machine answers.
const BUS: &str = r#"<busconfig>
  <type>session</type>
  <listen>unix:tmpdir=/tmp</listen>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"#;
/// The programs without which there is no desktop to test.
const PROGRAMS: [&str; 2] = ["Xvfb", "dbus-daemon"];

/// The programs that are missing here.
pub(crate) fn missing(further: &[&str]) -> Vec<String> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let is_installed =
        |name: &str| std::env::split_paths(&paths).any(|path| path.join(name).is_file());
    PROGRAMS
        .iter()
        .chain(further)
        .filter(|name| !is_installed(name))
        .map(|&name| name.to_owned())
        .collect()
}

/// Xvfb and dbus-daemon; both end with this value.
#[derive(Debug)]
pub(crate) struct Screen {
    pub(crate) display: String,
    pub(crate) bus: String,
    pub(crate) home: TempDir,
    server: Child,
    daemon: Child,
}

impl Screen {
    pub(crate) fn start() -> Result<Self> {
        let home = tempfile::tempdir()?;
        for folder in ["run", "config", "data", "cache"] {
            fs::create_dir(home.path().join(folder))?;
        }
        let mut server = Command::new("Xvfb")
            .args([
                "-displayfd",
                "1",
                "-screen",
                "0",
                "1280x900x24",
                "-nolisten",
                "tcp",
                // Without this the server starts anew whenever its last client leaves, and refuses who comes meanwhile.
                "-noreset",
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("starting Xvfb")?;
        let display = format!(":{}", first_line(&mut server)?);
        let file = home.path().join("bus.conf");
        fs::write(&file, BUS)?;
        let mut daemon = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", file.display()))
            .args(["--nofork", "--print-address=1"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("starting dbus-daemon")?;
        let bus = first_line(&mut daemon)?;
        Ok(Self {
            display,
            bus,
            home,
            server,
            daemon,
        })
    }

    /// The environment of a program on this screen.
    pub(crate) fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        let home = self.home.path();
        vec![
            ("DISPLAY", self.display.clone().into()),
            ("DBUS_SESSION_BUS_ADDRESS", self.bus.clone().into()),
            ("HOME", home.into()),
            ("XDG_RUNTIME_DIR", home.join("run")),
            ("XDG_CONFIG_HOME", home.join("config")),
            ("XDG_DATA_HOME", home.join("data")),
            ("XDG_CACHE_HOME", home.join("cache")),
            ("GDK_BACKEND", "x11".into()),
            ("GSETTINGS_BACKEND", "memory".into()),
            ("NO_AT_BRIDGE", "1".into()),
            ("LIBGL_ALWAYS_SOFTWARE", "1".into()),
            // The tests look for English words.
            ("LANGUAGE", "en".into()),
            ("LC_ALL", "C.UTF-8".into()),
        ]
    }

    /// The windows of ours that can be seen.
    pub(crate) fn windows(&self) -> Result<Vec<Window>> {
        let (connection, root) = self.connect()?;
        let mut ours = Vec::new();
        for window in connection.query_tree(root)?.reply()?.children {
            // It may be gone by now.
            let Ok(attributes) = connection.get_window_attributes(window)?.reply() else {
                continue;
            };
            let title =
                connection.get_property(false, window, AtomEnum::WM_NAME, AtomEnum::ANY, 0, 64)?;
            let is_ours = title.reply().is_ok_and(|title| title.value == TITLE);
            if attributes.map_state == MapState::VIEWABLE && is_ours {
                ours.push(window);
            }
        }
        Ok(ours)
    }

    /// Closes a window as its frame's button does.
    pub(crate) fn close(&self, window: Window) -> Result<()> {
        let (connection, _) = self.connect()?;
        let atom = |name: &str| -> Result<u32> {
            Ok(connection
                .intern_atom(false, name.as_bytes())?
                .reply()?
                .atom)
        };
        let message = ClientMessageEvent::new(
            32,
            window,
            atom("WM_PROTOCOLS")?,
            [atom("WM_DELETE_WINDOW")?, 0, 0, 0, 0],
        );
        connection.send_event(false, window, EventMask::NO_EVENT, message)?;
        Ok(connection.flush()?)
    }

    /// How many colours a window shows; one that shows nothing has one.
    pub(crate) fn colours(&self, window: Window) -> Result<usize> {
        let (_, _, picture) = self.image(window)?;
        let pixels: HashSet<&[u8]> = picture.chunks_exact(4).collect();
        Ok(pixels.len())
    }

    /// What a window shows, as a PNG.
    pub(crate) fn picture(&self, window: Window) -> Result<Vec<u8>> {
        let (width, height, picture) = self.image(window)?;
        let pixels = picture.chunks_exact(4);
        let pixels: Vec<u8> = pixels
            .flat_map(|pixel| [pixel[2], pixel[1], pixel[0]])
            .collect();
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, width.into(), height.into());
        encoder.set_color(png::ColorType::Rgb);
        encoder.write_header()?.write_image_data(&pixels)?;
        Ok(file)
    }

    /// Width, height and pixels of four bytes: blue, green, red and nothing.
    fn image(&self, window: Window) -> Result<(u16, u16, Vec<u8>)> {
        let (connection, _) = self.connect()?;
        let place = connection.get_geometry(window)?.reply()?;
        let (width, height) = (place.width, place.height);
        let asked =
            connection.get_image(ImageFormat::Z_PIXMAP, window, 0, 0, width, height, u32::MAX)?;
        Ok((width, height, asked.reply()?.data))
    }

    fn connect(&self) -> Result<(RustConnection, Window)> {
        let (connection, index) = x11rb::connect(Some(&self.display))?;
        let root = connection.setup().roots[index].root;
        Ok((connection, root))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        for child in [&mut self.daemon, &mut self.server] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn first_line(child: &mut Child) -> Result<String> {
    let mut line = String::new();
    let output = child.stdout.take().context("no output")?;
    BufReader::new(output).read_line(&mut line)?;
    ensure!(
        line.ends_with('\n'),
        "a program of the desktop did not come up"
    );
    Ok(line.trim().to_owned())
}
