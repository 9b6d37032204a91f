//! Where the database lies: SQLite's locks and its journal need a file system of this machine.

use std::path::Path;

/// Why what is written down may be lost here. `mode`: how SQLite said it keeps its journal.
pub(super) fn warning(path: &Path, mode: &str) -> Option<String> {
    let directory = path.parent().unwrap_or(path);
    words(path, mode, network_file_system(directory))
}

fn words(path: &Path, mode: &str, network: Option<&str>) -> Option<String> {
    let path = path.display();
    match network {
        Some(kind) => Some(format!(
            "{path} is on a network file system ({kind}), where a database may be damaged. Choose a data \
             directory on a disk of this machine"
        )),
        None if !mode.eq_ignore_ascii_case("wal") => Some(format!(
            "the file system of {path} does not let the database keep a write-ahead log (it says \"{mode}\"): \
             a power cut may damage it. Choose a data directory on a disk of this machine"
        )),
        None => None,
    }
}

/// Name of the network file system of a directory, if it lies on one.
#[cfg(target_os = "linux")]
fn network_file_system(directory: &Path) -> Option<&'static str> {
    let kind = nix::sys::statfs::statfs(directory).ok()?.filesystem_type();
    network_name(i128::from(kind.0) & 0xffff_ffff)
}

#[cfg(not(target_os = "linux"))]
fn network_file_system(_directory: &Path) -> Option<&'static str> {
    None
}

/// By the number that Linux gives each file system.
#[cfg(target_os = "linux")]
fn network_name(magic: i128) -> Option<&'static str> {
    Some(match magic {
        0x6969 => "NFS",
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => "SMB",
        0x0102_1997 => "9P",
        0x00c3_6400 => "Ceph",
        0x5346_414f | 0x6b41_4653 => "AFS",
        0x7375_7245 => "Coda",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_cannot_keep_the_journal_is_warned_of() {
        let path = Path::new("/data/sentinel.db");
        for (mode, network, expected) in [
            ("wal", None, None),
            ("WAL", None, None),
            ("delete", None, Some("write-ahead log")),
            ("wal", Some("NFS"), Some("network file system (NFS)")),
        ] {
            let warning = words(path, mode, network);
            assert_eq!(warning.is_some(), expected.is_some(), "{mode} {network:?}");
            for part in expected
                .into_iter()
                .chain(expected.map(|_| "/data/sentinel.db"))
            {
                assert!(warning.as_ref().unwrap().contains(part), "{warning:?}");
            }
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn network_file_systems_are_told_from_disks() {
        assert_eq!(network_name(0x6969), Some("NFS"));
        assert_eq!(network_name(0xff53_4d42), Some("SMB"));
        assert_eq!(network_name(0xef53), None, "ext4");
        assert_eq!(network_name(0x0102_1994), None, "tmpfs");
    }
}
