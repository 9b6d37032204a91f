//! `cargo xtask icons`: the pictures of the desktop app, drawn from `icons/*.svg`.
//!
//! They are kept in the repository, because building the app must need no drawing program.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use crate::process::Program;
use crate::progress;
use crate::workspace::Workspace;

/// Width of a tray icon, in pixels: panels with double density show 48 and make it smaller.
const TRAY_WIDTH: u32 = 48;
/// Widths of the app's icon as files of their own.
const APP_WIDTHS: [u32; 4] = [32, 128, 256, 512];
/// Widths in Windows' icon file.
const ICO_WIDTHS: [u32; 5] = [16, 32, 48, 64, 256];
/// Types in macOS' icon file, with their widths.
const ICNS_TYPES: [(&[u8; 4], u32); 4] = [
    (b"ic07", 128),
    (b"ic08", 256),
    (b"ic09", 512),
    (b"ic10", 1024),
];

/// Draws all of them.
pub(crate) fn icons(workspace: &Workspace) -> Result<ExitCode> {
    let sources = workspace.root().join("icons");
    let target = workspace.root().join("src-tauri").join("icons");
    let app = sources.join("sentinel.svg");
    fs::create_dir_all(target.join("tray"))?;
    for width in APP_WIDTHS {
        let name = format!("{width}x{width}.png");
        fs::write(target.join(name), draw(&app, width)?)?;
    }
    fs::write(target.join("icon.ico"), ico(&app)?)?;
    fs::write(target.join("icon.icns"), icns(&app)?)?;
    for entry in fs::read_dir(sources.join("tray"))? {
        let source = entry?.path();
        let name = source.file_stem().context("an icon without a name")?;
        let picture = target.join("tray").join(name).with_extension("png");
        fs::write(picture, draw(&source, TRAY_WIDTH)?)?;
    }
    progress::line("The icons are drawn.");
    Ok(ExitCode::SUCCESS)
}

/// A drawing as PNG.
fn draw(source: &Path, width: u32) -> Result<Vec<u8>> {
    let folder = std::env::temp_dir().join(format!("sentinel-icon-{}.png", std::process::id()));
    let width = width.to_string();
    Program::new("rsvg-convert")
        .args(["--width", &width, "--height", &width, "--output"])
        .arg(&folder)
        .arg(source)
        .run()
        .context("drawing needs rsvg-convert (Debian: librsvg2-bin)")?;
    let picture = fs::read(&folder)?;
    fs::remove_file(&folder)?;
    ensure!(picture.starts_with(b"\x89PNG"), "no picture was drawn");
    Ok(picture)
}

/// Windows' icon file: a table of PNGs.
fn ico(source: &Path) -> Result<Vec<u8>> {
    let pictures = ICO_WIDTHS
        .iter()
        .map(|width| Ok((*width, draw(source, *width)?)))
        .collect::<Result<Vec<_>>>()?;
    let count = u16::try_from(pictures.len())?;
    let mut file = [0_u16, 1, count].map(u16::to_le_bytes).concat();
    let mut offset = 6 + 16 * u32::from(count);
    for (width, picture) in &pictures {
        // 256 is written as 0.
        let side = u8::try_from(*width).unwrap_or(0);
        let length = u32::try_from(picture.len())?;
        file.extend([side, side, 0, 0, 1, 0, 32, 0]);
        file.extend(length.to_le_bytes());
        file.extend(offset.to_le_bytes());
        offset += length;
    }
    file.extend(pictures.into_iter().flat_map(|(_, picture)| picture));
    Ok(file)
}

/// macOS' icon file: PNGs behind their types.
fn icns(source: &Path) -> Result<Vec<u8>> {
    let mut pictures = Vec::new();
    for (kind, width) in ICNS_TYPES {
        let picture = draw(source, width)?;
        pictures.extend(kind);
        pictures.extend(u32::try_from(picture.len() + 8)?.to_be_bytes());
        pictures.extend(picture);
    }
    let length = u32::try_from(pictures.len() + 8)?;
    Ok([b"icns".as_slice(), &length.to_be_bytes(), &pictures].concat())
}
