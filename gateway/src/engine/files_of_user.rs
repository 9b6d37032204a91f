//! What becomes of a user's files when their account goes.
//!
//! A user's ComfyUI writes in these directories and may have put a link anywhere. So all work goes
//! through handles of directories, below which no name and no link leads out, and a link in the
//! place of a directory is refused.

use super::places::Places;
use crate::accounts::UserId;
use crate::files::{self, DataDirectory};
use cap_std::ambient_authority;
use cap_std::fs::{Dir, DirBuilder, Metadata};
use std::ffi::OsStr;
use std::io;
use std::path::Path;

/// Beginning of the names of directories that are being deleted.
const DOOMED: &str = ".deleted-";
/// Directories within directories that are given away at most.
const DEPTH: usize = 64;
/// Most tries to find a name that is free.
const NAMES: u32 = 10_000;

/// What is to become of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilesFate {
    /// They stay where they are.
    Keep,
    /// They are deleted.
    Delete,
    /// Somebody else gets them, in folders named after the one who leaves.
    Give {
        /// Where the heir's files are.
        to: Places,
        /// Name of the folders.
        folder: String,
    },
}

/// Why files were not dealt with.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A file or folder refused.
    #[error("cannot deal with {path}")]
    Io {
        /// The file.
        path: String,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The work broke off in the middle.
    #[error("dealing with the files broke off")]
    Interrupted,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> FilesError {
    let path = path.display().to_string();
    move |source| FilesError::Io { path, source }
}

impl FilesFate {
    /// Deals with the files of `user`, whose engine is gone. Blocks; not for async threads.
    ///
    /// # Errors
    /// [`FilesError`] for the first file that refuses; nothing is lost then.
    pub fn carry_out(&self, data: &DataDirectory, user: &UserId) -> Result<(), FilesError> {
        let root = data.user(user);
        if *self == Self::Keep {
            return Ok(());
        }
        let users =
            Dir::open_ambient_dir(data.users(), ambient_authority()).map_err(at(&data.users()))?;
        let Some(own) = open_directory(&users, user.as_str().as_ref()).map_err(at(&root))? else {
            return Ok(());
        };
        if let Self::Give { to, folder } = self {
            let mut gifts = Vec::new();
            for (from, heirs, below) in [
                (["input"].as_slice(), &to.input, [].as_slice()),
                (&["output"], &to.output, &[]),
                (
                    &["user", "default", "workflows"],
                    &to.user,
                    &["default", "workflows"],
                ),
            ] {
                let shown = from.iter().fold(root.clone(), |path, name| path.join(name));
                let gift = Gift::find(&own, from, || heir(data, heirs, below));
                gifts.extend(gift.map_err(at(&shown))?.map(|gift| (gift, shown)));
            }
            // Nothing is moved before all of it is seen to be in order.
            for (gift, shown) in gifts {
                gift.give(folder).map_err(at(&shown))?;
            }
        }
        drop(own);
        // Out of the way in one step, so that a power cut leaves no half of it under its name.
        let doomed = format!("{DOOMED}{user}");
        users
            .rename(user.as_str(), &users, &doomed)
            .map_err(at(&root))?;
        delete(&users, doomed.as_ref()).map_err(at(&root))
    }
}

/// Removes what an earlier deletion left behind when it was cut off.
pub(super) fn finish_deletions(data: &DataDirectory) {
    let Ok(users) = Dir::open_ambient_dir(data.users(), ambient_authority()) else {
        return;
    };
    let Ok(entries) = users.entries() else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_doomed = name.to_str().is_some_and(|name| name.starts_with(DOOMED));
        if is_doomed && let Err(error) = delete(&users, &name) {
            tracing::warn!(%error, path = %data.users().join(&name).display(), "deleted files could not be removed");
        }
    }
}

/// Opens a directory in another; a link or a file in its place is an error. `None`: there is none.
fn open_directory(parent: &Dir, name: &OsStr) -> io::Result<Option<Dir>> {
    match parent.symlink_metadata(name) {
        Ok(metadata) if metadata.is_dir() => parent.open_dir(name).map(Some),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::NotADirectory,
            format!("{} is a link or a file", name.display()),
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The same, made where there is none, closed to other accounts.
fn make_directory(parent: &Dir, name: &OsStr) -> io::Result<Dir> {
    if let Some(directory) = open_directory(parent, name)? {
        return Ok(directory);
    }
    #[cfg_attr(not(unix), expect(unused_mut, reason = "only Unix has modes"))]
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    {
        use cap_std::fs::DirBuilderExt as _;
        builder.mode(0o700);
    }
    parent.create_dir_with(name, &builder)?;
    open_directory(parent, name)?.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The heir's directory `below` one of their places, made where it is missing. Below `users` every
/// name is a directory; ComfyUI's own places may be links, as the owner put them elsewhere.
fn heir(data: &DataDirectory, place: &Path, below: &[&str]) -> io::Result<Dir> {
    let mut directory = match place.strip_prefix(data.users()) {
        Ok(inside) => {
            let users = Dir::open_ambient_dir(data.users(), ambient_authority())?;
            inside
                .iter()
                .try_fold(users, |parent, name| make_directory(&parent, name))?
        }
        Err(_) => {
            files::create_private_directory(place)?;
            Dir::open_ambient_dir(place, ambient_authority())?
        }
    };
    for name in below {
        directory = make_directory(&directory, name.as_ref())?;
    }
    Ok(directory)
}

/// A directory of the leaver that is not empty, and the heir's directory that is to hold it.
struct Gift {
    parent: Dir,
    name: String,
    given: Dir,
    to: Dir,
}

impl Gift {
    fn find(
        own: &Dir,
        from: &[&str],
        to: impl FnOnce() -> io::Result<Dir>,
    ) -> io::Result<Option<Self>> {
        let Some((name, parents)) = from.split_last() else {
            return Ok(None);
        };
        let mut parent = own.try_clone()?;
        for name in parents {
            match open_directory(&parent, name.as_ref())? {
                Some(directory) => parent = directory,
                None => return Ok(None),
            }
        }
        let Some(given) = open_directory(&parent, name.as_ref())? else {
            return Ok(None);
        };
        if given.entries()?.next().is_none() {
            return Ok(None);
        }
        Ok(Some(Self {
            parent,
            name: (*name).to_owned(),
            given,
            to: to()?,
        }))
    }

    /// Moves it, under a name that is free there. Links in it are left out, as they may lead
    /// anywhere.
    fn give(&self, folder: &str) -> io::Result<()> {
        remove_links(&self.given, DEPTH)?;
        let target = free_name(&self.to, folder)?;
        match self.parent.rename(&self.name, &self.to, &target) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                let copied = make_directory(&self.to, target.as_ref())?;
                copy(&self.given, &copied, DEPTH)
            }
            result => result,
        }
    }
}

/// `folder`, or `folder (2)` and so on, the first name that nothing has yet, links included.
fn free_name(parent: &Dir, folder: &str) -> io::Result<String> {
    let numbered = (2..NAMES).map(|number| format!("{folder} ({number})"));
    for name in std::iter::once(folder.to_owned()).chain(numbered) {
        match parent.symlink_metadata(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(name),
            Err(error) => return Err(error),
            Ok(_) => {}
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn too_deep() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("more than {DEPTH} folders lie in each other"),
    )
}

/// Removes what is neither a file nor a directory.
fn remove_links(directory: &Dir, depth: usize) -> io::Result<()> {
    for entry in directory.entries()? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            let depth = depth.checked_sub(1).ok_or_else(too_deep)?;
            remove_links(&open_ours(directory, &entry.file_name())?, depth)?;
        } else if !kind.is_file() {
            directory.remove_file(entry.file_name())?;
        }
    }
    Ok(())
}

/// Copies the files of a tree.
fn copy(from: &Dir, to: &Dir, depth: usize) -> io::Result<()> {
    for entry in from.entries()? {
        let entry = entry?;
        let name = entry.file_name();
        let kind = entry.file_type()?;
        if kind.is_dir() {
            let depth = depth.checked_sub(1).ok_or_else(too_deep)?;
            copy(&open_ours(from, &name)?, &make_directory(to, &name)?, depth)?;
        } else if kind.is_file() {
            from.copy(&name, to, &name)?;
        }
    }
    Ok(())
}

/// Opens a directory that an engine made, also one that it closed to itself.
fn open_ours(parent: &Dir, name: &OsStr) -> io::Result<Dir> {
    let metadata = parent.symlink_metadata(name)?;
    if metadata.is_dir() {
        make_ours(parent, name, &metadata)?;
    }
    open_directory(parent, name)?.ok_or_else(|| io::ErrorKind::NotFound.into())
}

#[cfg(unix)]
fn make_ours(parent: &Dir, name: &OsStr, metadata: &Metadata) -> io::Result<()> {
    use cap_std::fs::{Permissions, PermissionsExt as _};
    let mode = metadata.permissions().mode();
    if mode & 0o700 == 0o700 {
        return Ok(());
    }
    parent.set_permissions(name, Permissions::from_mode(mode | 0o700))
}

#[cfg(not(unix))]
fn make_ours(_parent: &Dir, _name: &OsStr, _metadata: &Metadata) -> io::Result<()> {
    Ok(())
}

/// Deletes a tree, however deep: directories of directories are moved up before they are emptied, so
/// that neither our stack nor our descriptors grow with what an engine has nested.
fn delete(parent: &Dir, name: &OsStr) -> io::Result<()> {
    let root = open_ours(parent, name)?;
    let mut moved = 0_u64;
    loop {
        let mut is_empty = true;
        for entry in root.entries()? {
            is_empty = false;
            let entry = entry?;
            let name = entry.file_name();
            if !entry.file_type()?.is_dir() {
                root.remove_file(&name)?;
                continue;
            }
            let directory = open_ours(&root, &name)?;
            for entry in directory.entries()? {
                let entry = entry?;
                let below = entry.file_name();
                if entry.file_type()?.is_dir() {
                    // Its entry `..` changes, so it must be ours to write.
                    open_ours(&directory, &below)?;
                    move_up(&directory, &below, &root, &mut moved)?;
                } else {
                    directory.remove_file(&below)?;
                }
            }
            root.remove_dir(&name)?;
        }
        if is_empty {
            break;
        }
    }
    drop(root);
    parent.remove_dir(name)
}

/// Moves a directory to `root`, under a name that nothing has there.
fn move_up(from: &Dir, name: &OsStr, root: &Dir, moved: &mut u64) -> io::Result<()> {
    loop {
        *moved += 1;
        let target = format!(".moved-{moved}");
        match root.symlink_metadata(&target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return from.rename(name, root, target);
            }
            Err(error) => return Err(error),
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::PathBuf;

    fn scene() -> (tempfile::TempDir, DataDirectory, UserId, UserId) {
        let place = tempfile::tempdir().unwrap();
        let data = DataDirectory::open(place.path()).unwrap();
        let (alice, bob) = (UserId::generate(), UserId::generate());
        for user in [&alice, &bob] {
            Places::of_user(&data, user).create().unwrap();
        }
        let output = Places::of_user(&data, &alice).output;
        fs::write(output.join("a.png"), "picture").unwrap();
        (place, data, alice, bob)
    }

    fn to(data: &DataDirectory, heir: &UserId) -> FilesFate {
        FilesFate::Give {
            to: Places::of_user(data, heir),
            folder: "alice".to_owned(),
        }
    }

    #[test]
    fn files_are_kept_deleted_or_given() {
        let (_place, data, alice, bob) = scene();
        FilesFate::Keep.carry_out(&data, &alice).unwrap();
        assert!(data.user(&alice).join("output/a.png").exists());
        let workflows = data.user(&alice).join("user/default/workflows");
        fs::create_dir_all(&workflows).unwrap();
        fs::write(workflows.join("a.json"), "{}").unwrap();
        let theirs = Places::of_user(&data, &bob);
        fs::create_dir(theirs.output.join("alice")).unwrap();
        to(&data, &bob).carry_out(&data, &alice).unwrap();
        assert!(!data.user(&alice).exists());
        assert_eq!(
            fs::read_to_string(theirs.output.join("alice (2)/a.png")).unwrap(),
            "picture"
        );
        assert!(theirs.user.join("default/workflows/alice/a.json").exists());
        assert!(!theirs.input.join("alice").exists(), "nothing was there");
        FilesFate::Delete.carry_out(&data, &bob).unwrap();
        assert_eq!(fs::read_dir(data.users()).unwrap().count(), 0);
        FilesFate::Delete.carry_out(&data, &bob).unwrap();
    }

    #[test]
    fn the_owner_inherits_in_comfyui_s_own_directories() {
        let (place, data, alice, _bob) = scene();
        let comfyui = |name: &str| place.path().join("comfyui").join(name);
        let give = FilesFate::Give {
            to: Places {
                input: comfyui("input"),
                output: comfyui("output"),
                temp: comfyui("temp"),
                user: comfyui("user"),
            },
            folder: "alice".to_owned(),
        };
        give.carry_out(&data, &alice).unwrap();
        assert!(comfyui("output/alice/a.png").exists());
    }

    #[test]
    fn a_deletion_that_was_cut_off_is_finished() {
        let (_place, data, alice, _bob) = scene();
        let doomed = data.users().join(format!(".deleted-{alice}"));
        fs::rename(data.user(&alice), &doomed).unwrap();
        finish_deletions(&data);
        assert!(!doomed.exists());
    }

    /// All below a directory: what it is, and its text or the target of the link.
    #[cfg(unix)]
    fn tree(root: &Path, left_out: &[PathBuf]) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        let mut waiting = vec![root.to_owned()];
        while let Some(directory) = waiting.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if left_out.contains(&path) {
                    continue;
                }
                let metadata = path.symlink_metadata().unwrap();
                let shown = if metadata.is_dir() {
                    waiting.push(path.clone());
                    "directory".to_owned()
                } else if metadata.is_symlink() {
                    format!("link to {}", fs::read_link(&path).unwrap().display())
                } else {
                    fs::read_to_string(&path).unwrap()
                };
                found.insert(path, shown);
            }
        }
        found
    }

    /// Three users, and around them what no deletion may touch; alice leaves, bob inherits.
    #[cfg(unix)]
    struct Linked {
        place: tempfile::TempDir,
        data: DataDirectory,
        alice: UserId,
        bob: UserId,
        victim: UserId,
    }

    #[cfg(unix)]
    impl Linked {
        fn new() -> Self {
            let (place, data, alice, bob) = scene();
            let victim = UserId::generate();
            Places::of_user(&data, &victim).create().unwrap();
            let linked = Self {
                place,
                data,
                alice,
                bob,
                victim,
            };
            for user in [&linked.alice, &linked.bob, &linked.victim] {
                let workflows = linked.data.user(user).join("user/default/workflows");
                fs::create_dir_all(&workflows).unwrap();
                fs::write(workflows.join("mine.json"), user.as_str()).unwrap();
            }
            fs::create_dir_all(linked.precious().join("workflows")).unwrap();
            fs::write(linked.precious().join("workflows/evil.desktop"), "x").unwrap();
            linked
        }

        fn precious(&self) -> PathBuf {
            self.place.path().join("precious")
        }

        /// Puts a link in the place of a directory of a user.
        fn link(&self, user: &UserId, name: &str, target: &Path) {
            let path = self.data.user(user).join(name);
            if path.is_dir() {
                fs::remove_dir_all(&path).unwrap();
            }
            std::os::unix::fs::symlink(target, path).unwrap();
        }

        /// All but the directories of the leaver and the heir.
        fn outside(&self) -> BTreeMap<PathBuf, String> {
            let (alice, bob) = (self.data.user(&self.alice), self.data.user(&self.bob));
            tree(self.place.path(), &[alice, bob])
        }
    }

    #[cfg(unix)]
    #[test]
    fn giving_files_never_leaves_the_two_users_directories() {
        for name in [
            "user",
            "user/default",
            "user/default/workflows",
            "input",
            "output",
            "input/child",
        ] {
            for is_leaver in [true, false] {
                for is_precious in [true, false] {
                    let linked = Linked::new();
                    let target = if is_precious {
                        linked.precious()
                    } else {
                        linked.data.user(&linked.victim).join("user/default")
                    };
                    let who = if is_leaver {
                        &linked.alice
                    } else {
                        &linked.bob
                    };
                    fs::write(linked.data.user(&linked.alice).join("input/a"), "a").unwrap();
                    linked.link(who, name, &target);
                    let before = linked.outside();
                    let given =
                        to(&linked.data, &linked.bob).carry_out(&linked.data, &linked.alice);
                    let case = format!("{name}, leaver {is_leaver}, precious {is_precious}");
                    assert_eq!(linked.outside(), before, "{case}");
                    assert_eq!(given.is_ok(), name == "input/child", "{case}: {given:?}");
                    if given.is_err() {
                        let still_there = linked.data.user(&linked.alice).join("output");
                        assert!(still_there.symlink_metadata().is_ok(), "{case}");
                    }
                    if given.is_ok() {
                        let theirs = tree(&linked.data.user(&linked.bob), &[]);
                        assert!(!theirs.values().any(|text| text == "x"), "{case}");
                    }
                }
            }
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_among_given_files_are_left_out_and_a_name_that_is_a_link_is_taken() {
        let linked = Linked::new();
        let (alice, bob) = (
            linked.data.user(&linked.alice),
            linked.data.user(&linked.bob),
        );
        fs::create_dir(alice.join("output/below")).unwrap();
        for name in ["output/link", "output/below/link"] {
            linked.link(&linked.alice, name, &linked.precious());
        }
        linked.link(&linked.bob, "output/alice", &linked.precious());
        let before = linked.outside();
        to(&linked.data, &linked.bob)
            .carry_out(&linked.data, &linked.alice)
            .unwrap();
        assert_eq!(linked.outside(), before);
        assert!(bob.join("output/alice (2)/a.png").exists());
        let links = tree(&bob.join("output/alice (2)"), &[]);
        assert!(!links.values().any(|text| text.starts_with("link")));
    }

    /// A directory on another file system than that of temporary files, where this machine has one.
    #[cfg(target_os = "linux")]
    fn elsewhere(than: &Path) -> Option<tempfile::TempDir> {
        use std::os::unix::fs::MetadataExt as _;
        let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
        let found = ["/dev/shm", "/var/tmp", "/run"].iter().find_map(|path| {
            let place = tempfile::tempdir_in(path).ok()?;
            (device(place.path()) != device(than)).then_some(place)
        });
        if found.is_none() {
            eprintln!("skipped: there is one file system here");
        }
        found
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_same_holds_on_two_file_systems() {
        let linked = Linked::new();
        let Some(elsewhere) = elsewhere(linked.place.path()) else {
            return;
        };
        let alice = linked.data.user(&linked.alice);
        fs::create_dir(alice.join("output/below")).unwrap();
        fs::write(alice.join("output/below/b.png"), "picture").unwrap();
        linked.link(&linked.alice, "output/below/link", &linked.precious());
        let before = linked.outside();
        let other = |name: &str| elsewhere.path().join(name);
        let give = FilesFate::Give {
            to: Places {
                input: other("input"),
                output: other("output"),
                temp: other("temp"),
                user: other("user"),
            },
            folder: "alice".to_owned(),
        };
        // A link of the leaver is refused, and nothing of it is copied.
        linked.link(&linked.alice, "input", &linked.precious());
        give.carry_out(&linked.data, &linked.alice).unwrap_err();
        assert_eq!(linked.outside(), before);
        assert!(tree(elsewhere.path(), &[]).is_empty());
        fs::remove_file(alice.join("input")).unwrap();
        give.carry_out(&linked.data, &linked.alice).unwrap();
        assert_eq!(linked.outside(), before);
        let given = tree(&other("output/alice"), &[]);
        let names: Vec<_> = given
            .keys()
            .map(|path| path.strip_prefix(other("output/alice")).unwrap())
            .collect();
        assert_eq!(
            names,
            [
                Path::new("a.png"),
                Path::new("below"),
                Path::new("below/b.png")
            ]
        );
        assert!(!alice.exists());
    }

    #[cfg(unix)]
    #[test]
    fn what_is_deleted_may_hold_links_closed_directories_and_any_depth() {
        use std::os::unix::fs::PermissionsExt as _;
        let linked = Linked::new();
        let output = linked.data.user(&linked.alice).join("output");
        linked.link(&linked.alice, "output/link", &linked.precious());
        linked.link(&linked.alice, "user/default", &linked.precious());
        fs::create_dir_all(output.join("closed/below")).unwrap();
        fs::write(output.join("closed/below/file"), "x").unwrap();
        fs::set_permissions(output.join("closed"), fs::Permissions::from_mode(0o000)).unwrap();
        // Deeper than any path can be, and than there are descriptors.
        let mut directory = Dir::open_ambient_dir(&output, ambient_authority()).unwrap();
        for _ in 0..3000 {
            directory.create_dir("d").unwrap();
            directory = directory.open_dir("d").unwrap();
        }
        directory.write("file", "x").unwrap();
        drop(directory);
        let before = linked.outside();
        FilesFate::Delete
            .carry_out(&linked.data, &linked.alice)
            .unwrap();
        assert_eq!(linked.outside(), before);
        assert!(!linked.data.user(&linked.alice).exists());
    }
}
