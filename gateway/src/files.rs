//! State files stay whole: every write is a new file, synced, then renamed over the old one.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// Begins the names of files that are being written.
const WRITE_PREFIX: &str = ".sentinel-";
/// A write takes no longer than this.
const LEFTOVER_AGE: Duration = Duration::from_secs(600);
/// Largest state file that is read into memory, in bytes.
const MAX_STATE_FILE: u64 = 64 * 1024 * 1024;
/// Pause before a file is read again that could not be read; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Replaces `path` by `contents`, readable by the owner alone. After a crash at any moment the
/// file holds either the old or the new contents, never a part.
pub fn write_atomically(path: &Path, contents: &[u8]) -> io::Result<()> {
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or_else(|| Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(WRITE_PREFIX)
        .tempfile_in(directory)?;
    file.write_all(contents)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_directory(directory)
}

/// Makes a rename durable; only Unix lets a directory be opened and synced.
fn sync_directory(directory: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

/// Removes what a write that was cut off by a power cut or a kill has left in `directory`; fresh
/// files may be another process's write in progress and stay.
pub fn remove_leftovers(directory: &Path) {
    let is_leftover = |entry: &fs::DirEntry| {
        let age = entry.metadata().and_then(|metadata| metadata.modified());
        let is_old = age
            .ok()
            .and_then(|modified| modified.elapsed().ok())
            .is_some_and(|age| age > LEFTOVER_AGE);
        is_old
            && entry
                .file_name()
                .to_string_lossy()
                .starts_with(WRITE_PREFIX)
    };
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries.filter(is_leftover) {
        if let Err(error) = fs::remove_file(entry.path()) {
            tracing::warn!(%error, path = %entry.path().display(), "a leftover file could not be removed");
        }
    }
}

/// Creates `directory` and its parents; a directory made here is closed to other accounts.
pub fn create_private_directory(directory: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(directory)
}

/// Reads a text file of bounded size; `None` when there is no such file.
pub fn read_optional(path: &Path) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    file.take(MAX_STATE_FILE).read_to_string(&mut text)?;
    // Editors on Windows like to put a byte order mark in front.
    Ok(Some(text.strip_prefix('\u{feff}').map_or_else(
        || text.clone(),
        std::borrow::ToOwned::to_owned,
    )))
}

/// What tells one state of a file from the next without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(Option<(SystemTime, u64, u64)>);

impl Fingerprint {
    /// The state of `path` now; a missing file has one too.
    pub fn of(path: &Path) -> Self {
        Self(fs::metadata(path).ok().and_then(|metadata| {
            Some((metadata.modified().ok()?, metadata.len(), inode(&metadata)))
        }))
    }
}

/// Returns true if the same contents may be readable later: no descriptors left, a disk or a share that
/// does not answer, missing rights. Text that is not UTF-8 stays that.
pub fn may_pass(error: &io::Error) -> bool {
    error.kind() != io::ErrorKind::InvalidData
}

/// Says when a file is to be read: once in each of its states, and again after an error that may pass.
/// `State` is a [`Fingerprint`], or those of several files that belong together.
#[derive(Debug)]
pub struct Rereading<State = Fingerprint> {
    /// State of what was read last.
    seen: Option<State>,
    /// When it is to be tried again, and how long the pause was.
    retry: Option<(Instant, Duration)>,
}

impl<State: PartialEq> Rereading<State> {
    /// Begins with a state that has been read.
    pub fn after(seen: State) -> Self {
        Self {
            seen: Some(seen),
            retry: None,
        }
    }

    /// Begins with a first reading that ended in an error or not.
    pub fn after_first(state: State, may_pass: bool) -> Self {
        let mut rereading = Self {
            seen: None,
            retry: None,
        };
        rereading.note(state, may_pass);
        rereading
    }

    /// Whether a file in this state is to be read now.
    pub fn is_due(&self, now: &State) -> bool {
        self.seen.as_ref() != Some(now) && self.retry.is_none_or(|(at, _)| Instant::now() >= at)
    }

    /// It was read in this state, which was looked at before; `may_pass`: with an error that may pass.
    pub fn note(&mut self, state: State, may_pass: bool) {
        if may_pass {
            let pause = self
                .retry
                .map_or(FIRST_PAUSE, |(_, pause)| (pause * 2).min(LONGEST_PAUSE));
            self.seen = None;
            self.retry = Some((Instant::now() + pause, pause));
        } else {
            self.seen = Some(state);
            self.retry = None;
        }
    }
}

#[cfg(test)]
impl Rereading {
    /// Lets the pause be over.
    pub(crate) fn wait_no_longer(&mut self) {
        if let Some((at, _)) = &mut self.retry {
            *at = Instant::now();
        }
    }
}

#[cfg(unix)]
fn inode(metadata: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn inode(_metadata: &fs::Metadata) -> u64 {
    0
}

/// A lock between processes on the file beside `path`, so that the command line and the running
/// gateway never write the same state file at once. Released on drop.
#[derive(Debug)]
pub struct WriteLock {
    _file: File,
}

impl WriteLock {
    /// Waits for the lock of `path`.
    pub fn acquire(path: &Path) -> io::Result<Self> {
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(".lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.with_file_name(name))?;
        file.lock()?;
        Ok(Self { _file: file })
    }
}

/// Where everything of one installation lies.
#[derive(Clone, Debug)]
pub struct DataDirectory {
    root: PathBuf,
}

impl DataDirectory {
    /// Opens (and creates) the data directory with its sub-directories.
    pub fn open(root: &Path) -> io::Result<Self> {
        let root = std::path::absolute(root)?;
        let directory = Self { root };
        for path in [
            directory.root(),
            &directory.logs(),
            &directory.tls(),
            &directory.users(),
        ] {
            create_private_directory(path)?;
        }
        Ok(directory)
    }

    /// The platform's place for such data, e.g. `~/.local/share/comfyui-sentinel`.
    pub fn default_root() -> Option<PathBuf> {
        let project = directories::ProjectDirs::from("", "", "comfyui-sentinel")?;
        Some(project.data_local_dir().to_path_buf())
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A name from config.json: taken from the data directory unless absolute.
    pub fn resolve(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Settings.
    pub fn config(&self) -> PathBuf {
        self.root.join("config.json")
    }

    /// Sessions, tokens, audit.
    pub fn database(&self) -> PathBuf {
        self.root.join("sentinel.db")
    }

    /// The signing key, when the environment gives none.
    pub fn secret_key(&self) -> PathBuf {
        self.root.join("secret.key")
    }

    /// Log files.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// Certificates and their keys.
    pub fn tls(&self) -> PathBuf {
        self.root.join("tls")
    }

    /// Socket of the command line, where the system has such files.
    pub fn control_socket(&self) -> PathBuf {
        self.root.join("control.sock")
    }

    /// One directory for each user's own files, by id.
    pub fn users(&self) -> PathBuf {
        self.root.join("users")
    }

    /// A user's own files.
    pub fn user(&self, id: &crate::accounts::UserId) -> PathBuf {
        self.users().join(id.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_replaces_the_whole_file_and_keeps_others_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        write_atomically(&path, b"a long first version").unwrap();
        let before = Fingerprint::of(&path);
        write_atomically(&path, b"second").unwrap();
        assert_ne!(before, Fingerprint::of(&path));
        assert_eq!(read_optional(&path).unwrap().as_deref(), Some("second"));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(
                fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
    }

    #[test]
    fn a_state_is_read_once_and_again_after_an_error_that_may_pass() {
        let mut rereading = Rereading::after(1);
        assert!(!rereading.is_due(&1) && rereading.is_due(&2));
        rereading.note(2, false);
        assert!(!rereading.is_due(&2));
        rereading.note(3, true);
        assert!(!rereading.is_due(&3), "not in the same moment");
        let (_, pause) = rereading.retry.unwrap();
        rereading.retry = Some((Instant::now(), pause));
        assert!(rereading.is_due(&3), "the file has not changed");
        for _ in 0..20 {
            rereading.note(3, true);
        }
        assert_eq!(rereading.retry.unwrap().1, LONGEST_PAUSE);
        rereading.note(3, false);
        assert!(!rereading.is_due(&3));
    }

    #[test]
    fn a_byte_order_mark_is_not_part_of_the_text() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("list.txt");
        fs::write(&path, "\u{feff}10.0.0.1\n").unwrap();
        assert_eq!(read_optional(&path).unwrap().as_deref(), Some("10.0.0.1\n"));
        assert_eq!(read_optional(&path.with_extension("none")).unwrap(), None);
    }
}
