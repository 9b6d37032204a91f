//! Pages of a gallery, newest first.

use super::media::{self, MediaKind};
use super::path::RelativePath;
use super::walk::{Bounds, walk};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cap_std::fs::{Dir, Metadata};
use std::cmp::Reverse;
use std::time::{Instant, UNIX_EPOCH};

/// Directories within directories that are looked at.
const DEPTH: usize = 16;
/// Files and directories that are looked at.
const ENTRIES: usize = 200_000;
/// ComfyUI's own mark in an empty output directory.
const PLACEHOLDER: &str = "_output_images_will_be_put_here";

/// A place in the order of a gallery. What came later stands before it, so a page that begins
/// after it is the same whatever is made meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cursor {
    modified: Reverse<u64>,
    path: RelativePath,
}

impl Cursor {
    /// Reads what [`Cursor::text`] wrote.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (modified, path) = std::str::from_utf8(&bytes).ok()?.split_once(':')?;
        Some(Self {
            modified: Reverse(modified.parse().ok()?),
            path: RelativePath::parse(path).ok()?,
        })
    }

    /// Opaque to clients.
    pub(crate) fn text(&self) -> String {
        URL_SAFE_NO_PAD.encode(format!("{}:{}", self.modified.0, self.path))
    }
}

/// A file in a gallery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) place: Cursor,
    pub(crate) kind: MediaKind,
    pub(crate) bytes: u64,
}

impl Item {
    pub(crate) fn path(&self) -> &RelativePath {
        &self.place.path
    }

    /// Nanoseconds since 1970.
    pub(crate) fn modified(&self) -> u64 {
        self.place.modified.0
    }
}

/// What a page shall hold.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) limit: usize,
    pub(crate) before: Option<Cursor>,
    pub(crate) kind: Option<MediaKind>,
}

/// A page.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) items: Vec<Item>,
    /// Where the next one begins.
    pub(crate) next: Option<Cursor>,
    /// Of all files, whatever their kind.
    pub(crate) total_bytes: u64,
    /// Whether all files were looked at.
    pub(crate) is_complete: bool,
}

/// Looks at all files of a directory and picks a page. Blocks.
pub(super) fn page(directory: &Dir, wanted: &Wanted, until: Instant) -> Page {
    let mut items: Vec<Item> = Vec::new();
    let mut total_bytes = 0_u64;
    // One more than asked for tells whether there is a next page.
    let enough = wanted.limit + 1;
    let bounds = Bounds {
        depth: DEPTH,
        entries: ENTRIES,
        until,
    };
    let is_complete = walk(directory, bounds, &mut |path, metadata| {
        total_bytes = total_bytes.saturating_add(metadata.len());
        let item = path.and_then(|path| item(&path, metadata));
        let Some(item) = item.filter(|item| belongs(item, wanted)) else {
            return;
        };
        items.push(item);
        if items.len() >= 2 * enough {
            items.select_nth_unstable_by(enough - 1, |one, other| one.place.cmp(&other.place));
            items.truncate(enough);
        }
    });
    items.sort_unstable_by(|one, other| one.place.cmp(&other.place));
    let has_more = items.len() > wanted.limit;
    items.truncate(wanted.limit);
    Page {
        next: items
            .last()
            .filter(|_| has_more)
            .map(|item| item.place.clone()),
        items,
        total_bytes,
        is_complete,
    }
}

fn item(path: &str, metadata: &Metadata) -> Option<Item> {
    let path = RelativePath::parse(path).ok()?;
    if path.name().starts_with('.') || path.name() == PLACEHOLDER {
        return None;
    }
    Some(Item {
        kind: MediaKind::of(&path),
        bytes: metadata.len(),
        place: Cursor {
            modified: Reverse(nanoseconds(metadata)),
            path,
        },
    })
}

fn belongs(item: &Item, wanted: &Wanted) -> bool {
    wanted.kind.is_none_or(|kind| kind == item.kind)
        && wanted
            .before
            .as_ref()
            .is_none_or(|before| item.place > *before)
}

/// When a file was last written, nanoseconds since 1970.
pub(super) fn nanoseconds(metadata: &Metadata) -> u64 {
    metadata
        .modified()
        .ok()
        .and_then(|at| at.into_std().duration_since(UNIX_EPOCH).ok())
        .and_then(|since| u64::try_from(since.as_nanos()).ok())
        .unwrap_or(0)
}

/// Whether a thumbnail can be asked for.
pub(crate) fn has_thumbnail(item: &Item) -> bool {
    media::has_thumbnail(item.path())
}
