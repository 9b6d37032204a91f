//! Writes the log to a rotated file on a thread of its own.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::ring::LogLimits;

/// Lines that may wait for a slow disk.
const QUEUE: usize = 2048;
/// How long after an error the file is left alone.
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(10);
/// A log may quote prompts and paths of people, so only its owner reads it.
#[cfg(unix)]
const FILE_MODE: u32 = 0o600;

/// The sending side. Never blocks.
#[derive(Debug)]
pub(super) struct LogFile {
    sender: Mutex<Option<SyncSender<String>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    left_out: AtomicU64,
}

impl LogFile {
    pub(super) fn open(path: PathBuf, limits: LogLimits) -> Self {
        let (sender, receiver) = sync_channel(QUEUE);
        let shown = path.display().to_string();
        let thread = std::thread::Builder::new()
            .name("engine-log".to_owned())
            .spawn(move || write_all(&receiver, RotatedFile::new(path, limits)));
        let thread = match thread {
            Ok(thread) => Some(thread),
            Err(error) => {
                tracing::warn!(%error, path = shown, "the engine's log is not written to a file");
                None
            }
        };
        Self {
            sender: Mutex::new(thread.is_some().then_some(sender)),
            thread: Mutex::new(thread),
            left_out: AtomicU64::new(0),
        }
    }

    /// Hands a line to the writer; leaves it out, counted, when the writer cannot keep up.
    pub(super) fn write(&self, at: OffsetDateTime, text: &str) {
        let sender = self.sender.lock();
        let Some(sender) = sender.as_ref() else {
            return;
        };
        let left_out = self.left_out.swap(0, Ordering::Relaxed);
        let notice = if left_out > 0 {
            format!("[{left_out} lines left out: the disk was too slow]\n")
        } else {
            String::new()
        };
        let at = at.format(&Rfc3339).unwrap_or_default();
        match sender.try_send(format!("{notice}{at} {text}\n")) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => {
                self.left_out.fetch_add(left_out + 1, Ordering::Relaxed);
            }
        }
    }

    /// Ends the thread after it has written what was handed over.
    pub(super) async fn close(&self) {
        self.sender.lock().take();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::warn!("the thread that writes the engine's log died");
            }
        }
    }
}

fn write_all(lines: &Receiver<String>, mut file: RotatedFile) {
    while let Ok(line) = lines.recv() {
        file.write(&line);
        // Whatever waits is written in one go, then made visible.
        for line in lines.try_iter().take(QUEUE) {
            file.write(&line);
        }
        file.flush();
    }
}

/// A file that survives a full disk and is put aside when it has grown.
struct RotatedFile {
    path: PathBuf,
    limits: LogLimits,
    open: Option<(BufWriter<File>, u64)>,
    /// Nothing is tried before this time.
    paused_until: Option<Instant>,
    warned: bool,
    lost: u64,
}

impl RotatedFile {
    fn new(path: PathBuf, limits: LogLimits) -> Self {
        Self {
            path,
            limits,
            open: None,
            paused_until: None,
            warned: false,
            lost: 0,
        }
    }

    fn write(&mut self, line: &str) {
        if self
            .paused_until
            .is_some_and(|until| Instant::now() < until)
        {
            self.lost += 1;
            return;
        }
        if let Err(error) = self.try_write(line) {
            self.failed(&error);
        }
    }

    fn flush(&mut self) {
        if let Some((file, _)) = &mut self.open
            && let Err(error) = file.flush()
        {
            self.failed(&error);
        }
    }

    fn try_write(&mut self, line: &str) -> io::Result<()> {
        let length = u64::try_from(line.len()).unwrap_or(u64::MAX);
        if let Some((_, written)) = &self.open
            && *written > 0
            && written.saturating_add(length) > self.limits.file_bytes
        {
            self.rotate()?;
        }
        let (file, written) = match &mut self.open {
            Some(open) => open,
            None => self.open.insert(open(&self.path)?),
        };
        if self.lost > 0 {
            writeln!(
                file,
                "[{} lines lost: the file could not be written]",
                self.lost
            )?;
            self.lost = 0;
        }
        file.write_all(line.as_bytes())?;
        *written = written.saturating_add(length);
        Ok(())
    }

    fn failed(&mut self, error: &io::Error) {
        // Dropping a BufWriter tries to write its rest again, which fails silently: as wished.
        self.open = None;
        self.lost += 1;
        self.paused_until = Some(Instant::now() + PAUSE_AFTER_ERROR);
        if !std::mem::replace(&mut self.warned, true) {
            tracing::warn!(%error, path = %self.path.display(), "the engine's log cannot be written");
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        if let Some((mut file, _)) = self.open.take() {
            file.flush()?;
        }
        let oldest = self.limits.files.saturating_sub(1);
        if oldest == 0 {
            return fs::remove_file(&self.path);
        }
        for number in (1..oldest).rev() {
            let from = numbered(&self.path, number);
            if from.exists() {
                fs::rename(from, numbered(&self.path, number + 1))?;
            }
        }
        fs::rename(&self.path, numbered(&self.path, 1))
    }
}

fn open(path: &Path) -> io::Result<(BufWriter<File>, u64)> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, FILE_MODE);
    let file = options.open(path)?;
    let written = file.metadata()?.len();
    Ok((BufWriter::new(file), written))
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> LogLimits {
        LogLimits {
            file_bytes: 100,
            files: 3,
            ..LogLimits::default()
        }
    }

    #[test]
    fn files_are_put_aside_and_the_oldest_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("logs/comfyui.log");
        let mut file = RotatedFile::new(path.clone(), small());
        for number in 0..10 {
            file.write(&format!("{number} {}\n", "x".repeat(57)));
            file.flush();
        }
        let text = |path: &Path| fs::read_to_string(path).unwrap();
        assert!(text(&path).starts_with("9 "));
        assert!(text(&numbered(&path, 1)).starts_with("8 "));
        assert!(text(&numbered(&path, 2)).starts_with("7 "));
        assert!(!numbered(&path, 3).exists());
        // A later start goes on where this one ended.
        drop(file);
        let mut file = RotatedFile::new(path.clone(), small());
        file.write("again\n");
        file.flush();
        assert!(text(&path).starts_with("9 ") && text(&path).ends_with("again\n"));
    }

    #[test]
    fn a_disk_that_cannot_be_written_is_survived() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("comfyui.log");
        fs::create_dir(&path).unwrap();
        let mut file = RotatedFile::new(path.clone(), small());
        file.write("a\n");
        file.write("b\n");
        assert_eq!(file.lost, 2);
        assert!(file.warned);
        fs::remove_dir(&path).unwrap();
        file.paused_until = None;
        file.write("c\n");
        file.flush();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, "[2 lines lost: the file could not be written]\nc\n");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_survived() {
        let mut file = RotatedFile::new("/dev/full".into(), small());
        file.write("a\n");
        file.flush();
        file.write("b\n");
        assert!(file.warned);
        assert!(file.lost >= 1);
    }

    #[tokio::test]
    async fn close_writes_what_waits() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("comfyui.log");
        let file = LogFile::open(path.clone(), LogLimits::default());
        for number in 0..100 {
            file.write(OffsetDateTime::UNIX_EPOCH, &format!("line {number}"));
        }
        file.close().await;
        file.write(OffsetDateTime::UNIX_EPOCH, "too late");
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 100);
        assert!(text.starts_with("1970-01-01T00:00:00Z line 0\n"));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(
                fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
    }
}
