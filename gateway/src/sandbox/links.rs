//! Where links in model directories lead: people keep models on other drives and link single files
//! or whole folders, deep below and in thousands.

use std::collections::{HashSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Most entries that are looked at.
const ENTRIES: usize = 200_000;
/// How deep below a model directory links are looked for.
const DEPTH: usize = 16;
/// Longest search; a network drive may be slow.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Looks for links, also below linked directories.
pub(super) struct LinkSearch<'a> {
    /// Sentinel's data directory.
    pub(super) data: &'a Path,
    /// The home directory of the account Sentinel runs as.
    pub(super) home: Option<&'a Path>,
}

impl LinkSearch<'_> {
    /// What the links below `directories` lead to. Those nearest to the top are found first, so that a
    /// limit costs the deepest.
    pub(super) fn below(&self, directories: &[PathBuf]) -> Vec<PathBuf> {
        let began = Instant::now();
        let mut found = Vec::new();
        let mut left = ENTRIES;
        let mut seen = HashSet::new();
        let mut waiting = VecDeque::new();
        for directory in directories {
            if let Ok(real) = directory.canonicalize()
                && seen.insert(real.clone())
            {
                waiting.push_back((real, 0, Whose::Models));
            }
        }
        while let Some((directory, depth, whose)) = waiting.pop_front() {
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                if left == 0 || began.elapsed() > TIME_LIMIT {
                    tracing::warn!(
                        directory = %directory.display(),
                        "not all links among the models were looked for; what is missing in ComfyUI needs sandbox_allow_read"
                    );
                    return found;
                }
                left -= 1;
                let Ok(kind) = entry.file_type() else {
                    continue;
                };
                let path = entry.path();
                let next = if kind.is_symlink() {
                    if whose == Whose::Linked && !is_our_own(&path) {
                        continue;
                    }
                    let Ok(target) = path.canonicalize() else {
                        continue;
                    };
                    found.push(target.clone());
                    (target.is_dir() && !self.holds_private(&target))
                        .then_some((target, Whose::Linked))
                } else {
                    kind.is_dir().then_some((path, whose))
                };
                if let Some((next, whose)) = next
                    && depth < DEPTH
                    && seen.insert(next.clone())
                {
                    waiting.push_back((next, depth + 1, whose));
                }
            }
        }
        found
    }

    /// Such a directory is not granted, so its links are not either.
    fn holds_private(&self, target: &Path) -> bool {
        self.data.starts_with(target)
            || target.starts_with(self.data)
            || self.home.is_some_and(|home| home.starts_with(target))
    }
}

/// Who had a hand in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// The model directories are the owner's.
    Models,
    /// A linked directory may be open to others, who must not choose what engines read.
    Linked,
}

/// Whether a link was made by the account that Sentinel runs as, or by the system's.
#[cfg(unix)]
fn is_our_own(link: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let made_by = fs::symlink_metadata(link).map(|metadata| metadata.uid());
    made_by.is_ok_and(|id| id == 0 || id == nix::unistd::geteuid().as_raw())
}

#[cfg(not(unix))]
fn is_our_own(_link: &Path) -> bool {
    false
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn search(root: &Path) -> Vec<PathBuf> {
        let data = root.join("data");
        let home = root.join("home");
        let search = LinkSearch {
            data: &data,
            home: Some(&home),
        };
        let mut found = search.below(&[root.join("models")]);
        found.sort();
        found
    }

    #[test]
    fn r20_links_deep_below_behind_thousands_and_in_chains_are_found() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().canonicalize().unwrap();
        let deep = root.join("models/loras/a/b/c/d/e");
        let many = root.join("models/checkpoints");
        let elsewhere = root.join("mnt/m");
        let further = root.join("mnt/n");
        for directory in [&deep, &many, &elsewhere, &further] {
            fs::create_dir_all(directory).unwrap();
        }
        for name in ["x", "y"] {
            fs::write(elsewhere.join(name), "").unwrap();
        }
        for number in 0..6000 {
            fs::write(many.join(format!("{number:05}")), "").unwrap();
        }
        symlink(elsewhere.join("x"), deep.join("x")).unwrap();
        symlink(elsewhere.join("y"), root.join("mnt/chain")).unwrap();
        symlink(root.join("mnt/chain"), many.join("zzz")).unwrap();
        // A linked folder with a link of the owner's in it, and a circle.
        symlink(&further, root.join("models/vae")).unwrap();
        fs::write(root.join("mnt/one"), "").unwrap();
        symlink(root.join("mnt/one"), further.join("one")).unwrap();
        symlink(root.join("models"), further.join("circle")).unwrap();
        let expected = ["mnt/m/x", "mnt/m/y", "mnt/n", "mnt/one", "models"];
        assert_eq!(search(&root), expected.map(|path| root.join(path)));
    }

    #[test]
    fn links_below_what_is_private_are_not_followed() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().canonicalize().unwrap();
        for directory in ["models", "home", "secret"] {
            fs::create_dir(root.join(directory)).unwrap();
        }
        symlink(root.join("secret"), root.join("home/link")).unwrap();
        symlink(root.join("home"), root.join("models/home")).unwrap();
        // The home itself is told, and refused by the plan.
        assert_eq!(search(&root), [root.join("home")]);
    }
}
