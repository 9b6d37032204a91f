//! A bounded walk over a directory tree that follows no symbolic link.

use cap_std::fs::{Dir, Metadata};
use std::time::Instant;

/// How far a walk goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Directories within directories.
    pub(super) depth: usize,
    /// Entries looked at.
    pub(super) entries: usize,
    /// When it ends in any case.
    pub(super) until: Instant,
}

/// Visits every plain file, with its path if that is text; whether all were visited. What cannot
/// be read or vanishes meanwhile is left out.
pub(super) fn walk(
    directory: &Dir,
    bounds: Bounds,
    visit: &mut dyn FnMut(Option<String>, &Metadata),
) -> bool {
    let mut walk = Walk {
        left: bounds.entries,
        until: bounds.until,
        visit,
    };
    walk.enter(directory, Some(""), bounds.depth)
}

struct Walk<'visit> {
    left: usize,
    until: Instant,
    visit: &'visit mut dyn FnMut(Option<String>, &Metadata),
}

impl Walk<'_> {
    fn enter(&mut self, directory: &Dir, prefix: Option<&str>, depth: usize) -> bool {
        let Ok(entries) = directory.entries() else {
            return true;
        };
        let mut is_whole = true;
        for entry in entries.flatten() {
            if self.left == 0 || Instant::now() >= self.until {
                return false;
            }
            self.left -= 1;
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            let name = entry.file_name();
            let path = prefix.zip(name.to_str()).map(|(prefix, name)| {
                if prefix.is_empty() {
                    name.to_owned()
                } else {
                    format!("{prefix}/{name}")
                }
            });
            if kind.is_file() {
                if let Ok(metadata) = entry.metadata() {
                    (self.visit)(path, &metadata);
                }
            } else if kind.is_dir() {
                if depth == 0 {
                    is_whole = false;
                } else if let Ok(below) = entry.open_dir() {
                    is_whole &= self.enter(&below, path.as_deref(), depth - 1);
                }
            }
        }
        is_whole
    }
}
