//! Files of bounded size, two for each of the last days: strangers can have lines written, and must
//! neither fill the disk nor push out what was written on other days.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use time::format_description::well_known::Iso8601;
use time::{Date, OffsetDateTime};

/// Days whose files are kept.
const KEPT_DAYS: usize = 7;
/// A file that grows beyond this is put aside, in place of the one that was put aside before.
const MAX_FILE: u64 = 8 << 20;
/// End of the name of a file that was put aside.
const ASIDE: &str = ".older";

/// The log files of one program.
#[derive(Debug)]
pub(super) struct DailyFile {
    directory: PathBuf,
    prefix: String,
    max_file: u64,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    day: Date,
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl DailyFile {
    /// Opens today's file. A `path` of `logs/sentinel.log` gives `logs/sentinel.log.2026-01-31`.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut log = Self::at(path, MAX_FILE)?;
        log.turn_to(OffsetDateTime::now_utc().date())?;
        Ok(log)
    }

    fn at(path: &Path, max_file: u64) -> io::Result<Self> {
        let parts = path.parent().zip(path.file_name());
        let (directory, name) = parts.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self {
            directory: directory.to_owned(),
            prefix: format!("{}.", name.to_string_lossy()),
            max_file,
            current: None,
        })
    }

    fn turn_to(&mut self, day: Date) -> io::Result<()> {
        self.current = None;
        fs::create_dir_all(&self.directory)?;
        self.tidy(day);
        let path = self.directory.join(format!("{}{day}", self.prefix));
        self.current = Some(Current::open(day, path)?);
        Ok(())
    }

    fn write_on(&mut self, day: Date, bytes: &[u8]) -> io::Result<()> {
        if self.current.as_ref().is_none_or(|now| now.day != day) {
            self.turn_to(day)?;
        }
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let is_full = self
            .current
            .as_ref()
            .is_some_and(|now| now.bytes > 0 && now.bytes.saturating_add(length) > self.max_file);
        if is_full && let Some(full) = self.current.take() {
            drop(full.file);
            let mut aside = full.path.clone().into_os_string();
            aside.push(ASIDE);
            fs::rename(&full.path, aside)?;
            self.current = Some(Current::open(day, full.path)?);
        }
        if let Some(now) = &mut self.current {
            now.file.write_all(bytes)?;
            now.bytes = now.bytes.saturating_add(length);
        }
        Ok(())
    }

    /// Removes the files of days long past, and closes those that stay to other accounts. What fails
    /// is tried again the next day.
    fn tidy(&self, today: Date) {
        let Ok(entries) = fs::read_dir(&self.directory) else {
            return;
        };
        let ours: Vec<(Date, PathBuf)> = entries
            .flatten()
            .filter_map(|entry| Some((self.day_of(entry.file_name().to_str()?)?, entry.path())))
            .collect();
        let days: BTreeSet<Date> = ours.iter().map(|(day, _)| *day).chain([today]).collect();
        let first_kept = days.iter().rev().nth(KEPT_DAYS - 1);
        for (day, path) in &ours {
            let _ = if first_kept.is_some_and(|first| day < first) {
                fs::remove_file(path)
            } else {
                close_to_others(path)
            };
        }
    }

    fn day_of(&self, name: &str) -> Option<Date> {
        let day = name.strip_prefix(&self.prefix)?;
        let day = day.strip_suffix(ASIDE).unwrap_or(day);
        Date::parse(day, &Iso8601::DATE).ok()
    }
}

impl Write for DailyFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_on(OffsetDateTime::now_utc().date(), bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.current {
            Some(now) => now.file.flush(),
            None => Ok(()),
        }
    }
}

impl Current {
    fn open(day: Date, path: PathBuf) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt as _;
            options.mode(0o600);
        }
        let file = options.open(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Self {
            day,
            path,
            file,
            bytes,
        })
    }
}

fn close_to_others(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    }
    let _ = path;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> Date {
        Date::parse(text, &Iso8601::DATE).unwrap()
    }

    /// Names and sizes, in order.
    fn files(place: &Path) -> Vec<(String, u64)> {
        let mut found: Vec<_> = fs::read_dir(place)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                let name = entry.file_name().into_string().unwrap();
                (name, entry.metadata().unwrap().len())
            })
            .collect();
        found.sort();
        found
    }

    #[test]
    fn a_flood_of_one_day_stays_within_two_files_and_leaves_other_days_alone() {
        let place = tempfile::tempdir().unwrap();
        let mut log = DailyFile::at(&place.path().join("s.log"), 100).unwrap();
        log.write_on(day("2026-01-01"), b"before\n").unwrap();
        for number in 0..1000 {
            let line = format!("{number:09}\n");
            log.write_on(day("2026-01-02"), line.as_bytes()).unwrap();
        }
        let expected = [
            ("s.log.2026-01-01", 7),
            ("s.log.2026-01-02", 100),
            ("s.log.2026-01-02.older", 100),
        ];
        let expected = expected.map(|(name, size)| (name.to_owned(), size));
        assert_eq!(files(place.path()), expected);
        let last = fs::read_to_string(place.path().join("s.log.2026-01-02")).unwrap();
        assert!(last.ends_with("000000999\n"), "{last}");
    }

    #[test]
    fn seven_days_are_kept_and_other_files_are_not_touched() {
        let place = tempfile::tempdir().unwrap();
        for name in ["s.log.2025-12-01.older", "s.log.txt", "comfyui.log"] {
            fs::write(place.path().join(name), "x").unwrap();
        }
        let mut log = DailyFile::at(&place.path().join("s.log"), 100).unwrap();
        for number in 1..=9 {
            let today = day(&format!("2026-01-{number:02}"));
            log.write_on(today, b"x").unwrap();
        }
        let names: Vec<_> = files(place.path())
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        let mut expected = vec!["comfyui.log".to_owned()];
        expected.extend((3..=9).map(|number| format!("s.log.2026-01-{number:02}")));
        expected.push("s.log.txt".to_owned());
        assert_eq!(names, expected);
    }

    #[cfg(unix)]
    #[test]
    fn only_their_owner_reads_them_and_a_restart_goes_on_writing() {
        use std::os::unix::fs::PermissionsExt as _;
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("s.log.2026-01-01");
        fs::write(&path, "an earlier version\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        for _ in 0..2 {
            let mut log = DailyFile::at(&place.path().join("s.log"), 30).unwrap();
            log.write_on(day("2026-01-01"), b"line\n").unwrap();
        }
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, "an earlier version\nline\nline\n");
        let mut log = DailyFile::at(&place.path().join("s.log"), 30).unwrap();
        log.write_on(day("2026-01-01"), b"line\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "line\n");
    }
}
