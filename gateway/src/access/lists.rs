//! Allow list and deny list: one address or CIDR range a line, `#` comments, read again when the
//! file changes. A file with a bad line is refused whole and the last good list stays; an allow
//! list that was never readable lets nobody in but this machine.

use super::{Caller, ClientIp};
use crate::clock::{self, rfc3339};
use crate::files::{self, Fingerprint, Rereading, WriteLock};
use arc_swap::ArcSwap;
use ipnet::IpNet;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Which list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// Only these get in, if there are any.
    Allow,
    /// These never get in.
    Deny,
}

/// A line that is neither address nor range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: \"{text}\" is neither an address nor a range such as 192.168.1.0/24")]
pub struct LineError {
    /// Number of the line, from 1.
    pub line: usize,
    /// The line, cut.
    pub text: String,
}

/// Why a list could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// A line is wrong.
    #[error(transparent)]
    Line(#[from] LineError),
    /// The file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// Cause.
        source: std::io::Error,
    },
    /// The file had entries and is away, or it is an allow list and holds not a byte.
    #[error(
        "{path} had entries and is {how}: the old ones stay in force. A file that holds a comment alone, \
         such as \"# nobody\", is a list without entries"
    )]
    Vanished {
        /// The file.
        path: String,
        /// In words.
        how: &'static str,
    },
}

impl ListError {
    /// Returns true if the file may be readable later as it is.
    fn may_pass(&self) -> bool {
        matches!(self, Self::Io { source, .. } if files::may_pass(source))
    }
}

/// The addresses of one list.
#[derive(Clone, Debug, Default)]
struct AddressSet {
    single: HashSet<IpAddr>,
    ranges: Vec<IpNet>,
    entries: usize,
}

impl AddressSet {
    fn parse(text: &str) -> Result<Self, LineError> {
        let mut set = Self::default();
        for (index, line) in text.lines().enumerate() {
            let entry = line.split('#').next().unwrap_or_default().trim();
            if entry.is_empty() {
                continue;
            }
            let network = parse_entry(entry).ok_or_else(|| LineError {
                line: index + 1,
                text: line.chars().take(80).collect(),
            })?;
            set.entries += 1;
            if network.prefix_len() == network.max_prefix_len() {
                set.single.insert(network.addr());
            } else {
                set.ranges.push(network.trunc());
            }
        }
        Ok(set)
    }

    fn overlaps(&self, network: IpNet) -> bool {
        self.single.iter().any(|address| network.contains(address))
            || self
                .ranges
                .iter()
                .any(|range| range.contains(&network) || network.contains(range))
    }

    fn contains(&self, address: ClientIp) -> bool {
        let address = address.address();
        self.single.contains(&address) || self.ranges.iter().any(|range| range.contains(&address))
    }
}

/// Checks the text of a list; gives the number of its addresses and ranges.
pub fn check_address_list(text: &str) -> Result<usize, LineError> {
    AddressSet::parse(text).map(|set| set.entries)
}

/// An address or a range; `::ffff:a.b.c.d` and `::ffff:a.b.c.d/120` are their IPv4 forms.
fn parse_entry(entry: &str) -> Option<IpNet> {
    if let Ok(address) = entry.parse::<IpAddr>() {
        return Some(IpNet::from(address.to_canonical()));
    }
    let network: IpNet = entry.parse().ok()?;
    match (network.addr().to_canonical(), network.addr()) {
        (IpAddr::V4(address), IpAddr::V6(_)) if network.prefix_len() >= 96 => {
            IpNet::new(IpAddr::V4(address), network.prefix_len() - 96).ok()
        }
        _ => Some(network),
    }
}

#[derive(Debug)]
struct ListFile {
    kind: ListKind,
    path: PathBuf,
    /// `None` until the file was readable once.
    current: ArcSwap<Option<AddressSet>>,
    seen: Mutex<Rereading>,
    fault: Mutex<Option<String>>,
}

impl ListFile {
    fn open(kind: ListKind, path: PathBuf) -> Self {
        let fingerprint = Fingerprint::of(&path);
        let list = Self {
            kind,
            seen: Mutex::new(Rereading::after(fingerprint)),
            path,
            current: ArcSwap::from_pointee(None),
            fault: Mutex::new(None),
        };
        let read = list.read();
        let may_pass = read.is_err_and(|error| error.may_pass());
        *list.seen.lock() = Rereading::after_first(fingerprint, may_pass);
        list
    }

    fn read(&self) -> Result<(), ListError> {
        self.take(read_set(&self.path))
    }

    /// As [`ListFile::read`], for what somebody else has done to the file.
    fn read_others(&self) -> Result<(), ListError> {
        let text = files::read_optional(&self.path).map_err(|source| io_error(&self.path, source));
        self.take(text.and_then(|text| {
            self.must_not_have_vanished(text.as_deref())?;
            Ok(AddressSet::parse(&text.unwrap_or_default())?)
        }))
    }

    /// A list that had entries does not lose all of them because its file is away, and an allow list not
    /// because a write was cut off at its first byte either: it would let everybody in.
    fn must_not_have_vanished(&self, text: Option<&str>) -> Result<(), ListError> {
        let current = self.current.load();
        let had_entries = current.as_ref().as_ref().is_some_and(|set| set.entries > 0);
        let how = match text {
            None => "missing",
            Some("") if self.kind == ListKind::Allow => "empty",
            Some(_) => return Ok(()),
        };
        if !had_entries {
            return Ok(());
        }
        Err(ListError::Vanished {
            path: self.path.display().to_string(),
            how,
        })
    }

    fn take(&self, result: Result<AddressSet, ListError>) -> Result<(), ListError> {
        *self.fault.lock() = result.as_ref().err().map(ToString::to_string);
        self.current.store(Arc::new(Some(result?)));
        Ok(())
    }

    fn reload(&self) -> Result<bool, ListError> {
        let mut seen = self.seen.lock();
        let now = Fingerprint::of(&self.path);
        if !seen.is_due(&now) {
            return Ok(false);
        }
        let read = self.read_others();
        seen.note(now, read.as_ref().is_err_and(ListError::may_pass));
        read.map(|()| true)
    }

    fn write(&self, text: &str) -> Result<(), ListError> {
        AddressSet::parse(text)?;
        let mut seen = self.seen.lock();
        files::write_atomically(&self.path, text.as_bytes())
            .map_err(|source| io_error(&self.path, source))?;
        let fingerprint = Fingerprint::of(&self.path);
        let read = self.read();
        seen.note(fingerprint, read.as_ref().is_err_and(ListError::may_pass));
        read
    }
}

fn io_error(path: &Path, source: std::io::Error) -> ListError {
    ListError::Io {
        path: path.display().to_string(),
        source,
    }
}

fn read_set(path: &Path) -> Result<AddressSet, ListError> {
    let text = files::read_optional(path).map_err(|source| io_error(path, source))?;
    Ok(AddressSet::parse(&text.unwrap_or_default())?)
}

/// What the lists say of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Named on the allow list: also spared from lock-outs.
    Allowed,
    /// Nothing speaks against it.
    Passed,
    /// Named on the deny list.
    Denied,
    /// There is an allow list and it is not on it.
    NotAllowed,
}

impl Verdict {
    /// Whether the caller gets in.
    pub fn lets_in(self) -> bool {
        matches!(self, Self::Allowed | Self::Passed)
    }
}

/// A deny-list line that a lock-out wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// Address or range.
    pub address: String,
    /// Reason in the line's comment.
    pub reason: String,
    /// When it was written, RFC 3339; lines of earlier versions do not tell.
    pub since: Option<String>,
}

/// A list as an admin sees it.
#[derive(Clone, Debug)]
pub struct ListView {
    /// The file's text.
    pub text: String,
    /// Addresses and ranges in force.
    pub entries: usize,
    /// Why the file on disk is not what is in force.
    pub fault: Option<String>,
}

/// Both lists.
#[derive(Debug)]
pub struct AccessLists {
    allow: ListFile,
    deny: ListFile,
}

impl AccessLists {
    /// Reads both files; missing ones are empty lists.
    pub fn open(allow: PathBuf, deny: PathBuf) -> Self {
        Self {
            allow: ListFile::open(ListKind::Allow, allow),
            deny: ListFile::open(ListKind::Deny, deny),
        }
    }

    /// Judges a caller. The allow list wins over the deny list. This machine itself gets in unless
    /// it is denied by name, so that nobody shuts himself out; a request that came through a proxy
    /// is not "this machine".
    pub fn judge(&self, caller: &Caller) -> Verdict {
        self.judge_address(caller.address, caller.is_local)
    }

    /// Judges the peer of a connection before a byte is read.
    pub fn judge_peer(&self, peer: ClientIp) -> Verdict {
        self.judge_address(peer, peer.address().is_loopback())
    }

    fn judge_address(&self, address: ClientIp, is_local: bool) -> Verdict {
        let allow = self.allow.current.load();
        if allow
            .as_ref()
            .as_ref()
            .is_some_and(|set| set.contains(address))
        {
            return Verdict::Allowed;
        }
        let deny = self.deny.current.load();
        match deny.as_ref() {
            Some(set) if set.contains(address) => return Verdict::Denied,
            None if !is_local => return Verdict::Denied,
            _ => {}
        }
        match allow.as_ref() {
            _ if is_local => Verdict::Passed,
            Some(set) if set.entries == 0 => Verdict::Passed,
            _ => Verdict::NotAllowed,
        }
    }

    /// Reads changed files again. `Ok(true)`: another list is in force now.
    pub fn reload(&self) -> Vec<(ListKind, Result<bool, ListError>)> {
        vec![
            (ListKind::Allow, self.allow.reload()),
            (ListKind::Deny, self.deny.reload()),
        ]
    }

    /// Faults of the files on disk, in plain words.
    pub fn faults(&self) -> Vec<String> {
        [&self.allow, &self.deny]
            .into_iter()
            .filter_map(|list| {
                Some(format!(
                    "{}: {}",
                    list.path.display(),
                    list.fault.lock().clone()?
                ))
            })
            .collect()
    }

    /// A list as an admin sees it.
    pub fn view(&self, kind: ListKind) -> Result<ListView, ListError> {
        let list = self.file(kind);
        let text =
            files::read_optional(&list.path).map_err(|source| io_error(&list.path, source))?;
        let entries = list
            .current
            .load()
            .as_ref()
            .as_ref()
            .map_or(0, |set| set.entries);
        Ok(ListView {
            text: text.unwrap_or_default(),
            entries,
            fault: list.fault.lock().clone(),
        })
    }

    /// Replaces the text of a list; a bad line is refused and nothing is written.
    pub fn replace(&self, kind: ListKind, text: &str) -> Result<(), ListError> {
        let list = self.file(kind);
        let _lock =
            WriteLock::acquire(&list.path).map_err(|source| io_error(&list.path, source))?;
        list.write(text)
    }

    /// Puts an address on the deny list with a reason. The file is read anew under the lock, so an
    /// admin's edits and comments are kept; a line that is already there is not repeated.
    pub fn ban(&self, address: ClientIp, reason: &str) -> Result<(), ListError> {
        let list = &self.deny;
        let _lock =
            WriteLock::acquire(&list.path).map_err(|source| io_error(&list.path, source))?;
        let text =
            files::read_optional(&list.path).map_err(|source| io_error(&list.path, source))?;
        list.must_not_have_vanished(text.as_deref())?;
        let mut text = text.unwrap_or_default();
        // What failed is counted by origin, and so it is banned.
        let origin = match address.origin().address() {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(network) => format!("{network}/64"),
        };
        if AddressSet::parse(&text)?.contains(address) {
            return list.read();
        }
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        let reason: String = reason
            .chars()
            .filter(|character| !character.is_control())
            .collect();
        let since = rfc3339(clock::now());
        text.push_str(&format!(
            "{origin} # {BAN_MARK} {reason} {SINCE_MARK}{since})\n"
        ));
        list.write(&text)
    }

    /// Takes the lines that lock-outs wrote for an address off the deny list; `false` when there is
    /// none. Lines of an admin stay.
    pub fn unban(&self, address: &str) -> Result<bool, ListError> {
        let Some(address) = parse_entry(address.trim()) else {
            return Ok(false);
        };
        let list = &self.deny;
        let _lock =
            WriteLock::acquire(&list.path).map_err(|source| io_error(&list.path, source))?;
        let text =
            files::read_optional(&list.path).map_err(|source| io_error(&list.path, source))?;
        let text = text.unwrap_or_default();
        let is_his = |line: &&str| {
            parse_ban(line).is_some_and(|ban| parse_entry(&ban.address) == Some(address))
        };
        if !text.lines().any(|line| is_his(&line)) {
            return Ok(false);
        }
        let kept: String = text
            .lines()
            .filter(|line| !is_his(line))
            .flat_map(|line| [line, "\n"])
            .collect();
        list.write(&kept).map(|()| true)
    }

    /// Whether the allow list names an address of this network.
    pub fn allows_some_of(&self, network: IpNet) -> bool {
        let allow = self.allow.current.load();
        allow
            .as_ref()
            .as_ref()
            .is_some_and(|set| set.overlaps(network))
    }

    /// The lines that lock-outs wrote.
    pub fn bans(&self) -> Result<Vec<Ban>, ListError> {
        let text = files::read_optional(&self.deny.path)
            .map_err(|source| io_error(&self.deny.path, source))?;
        Ok(text
            .unwrap_or_default()
            .lines()
            .filter_map(parse_ban)
            .collect())
    }

    /// The files, for the watcher.
    pub fn paths(&self) -> [&Path; 2] {
        [&self.allow.path, &self.deny.path]
    }

    fn file(&self, kind: ListKind) -> &ListFile {
        match kind {
            ListKind::Allow => &self.allow,
            ListKind::Deny => &self.deny,
        }
    }
}

/// Marks lines written by a lock-out.
const BAN_MARK: &str = "banned:";
/// Stands between the reason and the time.
const SINCE_MARK: &str = "(since ";

fn parse_ban(line: &str) -> Option<Ban> {
    let (address, comment) = line.split_once('#')?;
    let comment = comment.trim().strip_prefix(BAN_MARK)?.trim();
    let (reason, since) = match comment.rsplit_once(SINCE_MARK) {
        Some((reason, since)) if since.ends_with(')') => {
            (reason.trim(), Some(since.trim_end_matches(')').to_owned()))
        }
        _ => (comment, None),
    };
    parse_entry(address.trim())?;
    Some(Ban {
        address: address.trim().to_owned(),
        reason: reason.to_owned(),
        since,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lists(allow: Option<&str>, deny: Option<&str>) -> (tempfile::TempDir, AccessLists) {
        let directory = tempfile::tempdir().unwrap();
        let paths = [
            directory.path().join("allow"),
            directory.path().join("deny"),
        ];
        for (path, text) in paths.iter().zip([allow, deny]) {
            if let Some(text) = text {
                std::fs::write(path, text).unwrap();
            }
        }
        let [allow, deny] = paths;
        (directory, AccessLists::open(allow, deny))
    }

    fn verdict(lists: &AccessLists, address: &str) -> Verdict {
        lists.judge_peer(ClientIp::new(address.parse().unwrap()))
    }

    #[test]
    fn s11_s12_s13_ranges_mapped_addresses_and_precedence() {
        let table: &[(Option<&str>, Option<&str>, &str, Verdict)] = &[
            (None, None, "192.168.1.2", Verdict::Passed),
            (Some(""), Some(""), "192.168.1.2", Verdict::Passed),
            (Some("# nobody\n\n"), None, "192.168.1.2", Verdict::Passed),
            (
                Some("192.168.1.0/24"),
                None,
                "192.168.1.2",
                Verdict::Allowed,
            ),
            (
                Some("192.168.1.0/24"),
                None,
                "192.168.2.2",
                Verdict::NotAllowed,
            ),
            (
                Some("192.168.1.77/24 # host bits"),
                None,
                "192.168.1.2",
                Verdict::Allowed,
            ),
            (
                Some("10.0.0.1"),
                Some("10.0.0.1"),
                "10.0.0.1",
                Verdict::Allowed,
            ),
            (None, Some("10.0.0.1 # him"), "10.0.0.1", Verdict::Denied),
            (None, Some("10.0.0.1"), "::ffff:10.0.0.1", Verdict::Denied),
            (None, Some("::ffff:10.0.0.1"), "10.0.0.1", Verdict::Denied),
            (
                None,
                Some("::ffff:10.0.0.0/104"),
                "10.0.0.9",
                Verdict::Denied,
            ),
            (None, Some("2001:db8::/32"), "2001:db8::5", Verdict::Denied),
            (None, Some("2001:db8::/32"), "2001:db9::5", Verdict::Passed),
            (Some("10.0.0.1"), None, "127.0.0.1", Verdict::Passed),
            (None, Some("127.0.0.1"), "127.0.0.1", Verdict::Denied),
            (Some("nonsense"), None, "10.0.0.1", Verdict::NotAllowed),
            (Some("nonsense"), None, "127.0.0.1", Verdict::Passed),
            (None, Some("10.0.0.1/33"), "10.0.0.2", Verdict::Denied),
            (None, Some("10.0.0.1/33"), "::1", Verdict::Passed),
        ];
        for (allow, deny, address, expected) in table {
            let (_directory, lists) = lists(*allow, *deny);
            assert_eq!(
                verdict(&lists, address),
                *expected,
                "allow {allow:?} deny {deny:?} {address}"
            );
        }
    }

    #[test]
    fn a_bad_line_is_named_and_the_last_good_list_stays() {
        let (directory, lists) = lists(None, Some("10.0.0.1\n"));
        std::fs::write(directory.path().join("deny"), "10.0.0.2\nten.zero\n").unwrap();
        let results = lists.reload();
        let error = results[1].1.as_ref().unwrap_err();
        assert!(error.to_string().starts_with("line 2:"), "{error}");
        assert_eq!(verdict(&lists, "10.0.0.1"), Verdict::Denied);
        assert_eq!(verdict(&lists, "10.0.0.2"), Verdict::Passed);
        assert_eq!(lists.faults().len(), 1);
    }

    #[test]
    fn a_list_that_had_entries_and_vanishes_stays_in_force() {
        let (directory, lists) = lists(Some("192.168.1.0/24\n"), Some("10.0.0.1\n"));
        let paths = ["allow", "deny"].map(|name| directory.path().join(name));
        for path in &paths {
            std::fs::remove_file(path).unwrap();
        }
        for (kind, result) in lists.reload() {
            let is_vanished = matches!(result, Err(ListError::Vanished { .. }));
            assert!(is_vanished, "{kind:?}");
        }
        assert_eq!(lists.faults().len(), 2);
        let ban = lists.ban(ClientIp::new("10.0.0.7".parse().unwrap()), "x");
        assert!(ban.is_err(), "it would be the only entry");
        assert_eq!(verdict(&lists, "10.0.0.1"), Verdict::Denied);
        std::fs::write(&paths[0], "").unwrap();
        let [(_, allow), _] = &lists.reload()[..] else {
            panic!("two lists")
        };
        assert!(matches!(allow, Err(ListError::Vanished { .. })));
        assert_eq!(verdict(&lists, "172.16.0.1"), Verdict::NotAllowed);
        for path in &paths {
            std::fs::write(path, "# nobody\n").unwrap();
        }
        for (_, result) in lists.reload() {
            assert!(result.unwrap(), "a comment alone is meant");
        }
        assert_eq!(verdict(&lists, "172.16.0.1"), Verdict::Passed);
        assert!(lists.faults().is_empty());
        // An admin's own wish, said through Sentinel.
        lists.replace(ListKind::Allow, "10.0.0.0/8\n").unwrap();
        lists.replace(ListKind::Allow, "").unwrap();
        assert_eq!(verdict(&lists, "172.16.0.1"), Verdict::Passed);
    }

    #[cfg(unix)]
    #[test]
    fn a_list_that_could_not_be_read_for_a_moment_is_read_again_unchanged() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("list");
        std::fs::create_dir(&path).unwrap();
        let list = ListFile::open(ListKind::Allow, path);
        assert!(list.fault.lock().is_some());
        let mut seen = list.seen.lock();
        let now = Fingerprint::of(&list.path);
        assert!(!seen.is_due(&now), "not in the same moment");
        seen.wait_no_longer();
        assert!(seen.is_due(&now), "although it has not changed");
    }

    #[test]
    fn s8_s9_s10_bans_can_be_added_again_and_again_and_keep_the_admins_words() {
        let (directory, lists) = lists(None, Some("# my list\n10.0.0.1 # the printer"));
        let path = directory.path().join("deny");
        lists
            .ban(
                ClientIp::new("10.0.0.5".parse().unwrap()),
                "9 failed\nsign-ins",
            )
            .unwrap();
        let edited = std::fs::read_to_string(&path).unwrap() + "10.0.0.9 # added by hand\n";
        std::fs::write(&path, edited).unwrap();
        for last in [6, 6, 7] {
            lists
                .ban(
                    ClientIp::new(format!("10.0.0.{last}").parse().unwrap()),
                    "again",
                )
                .unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let without_times: Vec<_> = text
            .lines()
            .map(|line| line.split(SINCE_MARK).next().unwrap().trim_end())
            .collect();
        assert_eq!(
            without_times,
            [
                "# my list",
                "10.0.0.1 # the printer",
                "10.0.0.5 # banned: 9 failedsign-ins",
                "10.0.0.9 # added by hand",
                "10.0.0.6 # banned: again",
                "10.0.0.7 # banned: again",
            ]
        );
        assert_eq!(verdict(&lists, "10.0.0.9"), Verdict::Denied);
        assert_eq!(lists.bans().unwrap().len(), 3);
        assert!(lists.bans().unwrap().iter().all(|ban| ban.since.is_some()));
        assert!(lists.unban("10.0.0.6").unwrap() && !lists.unban("10.0.0.6").unwrap());
        assert!(
            !lists.unban("10.0.0.9").unwrap(),
            "an admin's own line stays"
        );
        assert_eq!(verdict(&lists, "10.0.0.6"), Verdict::Passed);
        assert_eq!(verdict(&lists, "10.0.0.7"), Verdict::Denied);
    }

    #[test]
    fn the_reason_and_the_time_of_a_ban_are_told_apart() {
        let told = |line| parse_ban(line).map(|ban| (ban.reason, ban.since));
        let table = [
            ("10.0.0.1 # banned: of old", Some(("of old", None))),
            (
                "10.0.0.1 # banned: again (since then)",
                Some(("again", Some("then"))),
            ),
            (
                "10.0.0.1 # banned: a (since b) (since c)",
                Some(("a (since b)", Some("c"))),
            ),
            ("10.0.0.1 # banned: a (since b", Some(("a (since b", None))),
            ("10.0.0.1 # the printer", None),
            ("nonsense # banned: x", None),
        ];
        for (line, expected) in table {
            let expected = expected.map(|(reason, since): (&str, Option<&str>)| {
                (reason.to_owned(), since.map(str::to_owned))
            });
            assert_eq!(told(line), expected, "{line}");
        }
    }

    #[test]
    fn an_allow_list_names_a_part_of_a_network_or_nothing_of_it() {
        let (_directory, lists) = lists(Some("192.168.1.7\n10.0.0.0/8\n"), None);
        for (network, expected) in [
            ("192.168.1.0/24", true),
            ("192.168.2.0/24", false),
            ("10.1.0.0/16", true),
            ("0.0.0.0/0", true),
            ("fd00::/64", false),
        ] {
            assert_eq!(
                lists.allows_some_of(network.parse().unwrap()),
                expected,
                "{network}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,200}") {
            let _ = AddressSet::parse(&text);
        }

        #[test]
        fn a_listed_address_is_found_in_any_spelling(octets: [u8; 4], prefix in 0u8..=32) {
            let address = std::net::Ipv4Addr::from(octets);
            let mapped = address.to_ipv6_mapped();
            let client = ClientIp::new(IpAddr::V6(mapped));
            for line in [format!("{address}"), format!("{mapped}"), format!(" {address}/{prefix} # x")] {
                let set = AddressSet::parse(&line).unwrap();
                prop_assert!(set.contains(client));
                prop_assert_eq!(set.entries, 1);
            }
        }
    }
}
