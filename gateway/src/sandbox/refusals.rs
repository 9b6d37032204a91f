//! What the system refused an engine, read from its output, so that an admin can allow it.

use std::collections::HashSet;

use parking_lot::Mutex;

/// Paths remembered as said already; beyond, nothing more is said until the next start.
const REMEMBERED: usize = 64;
/// Longest path that is repeated.
const LONGEST: usize = 512;

/// Says each refused path once.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    said: Mutex<HashSet<String>>,
}

impl Refusals {
    /// Looks at a line of output and warns if it tells of a refusal that is not known yet.
    pub(crate) fn look_at(&self, line: &str) {
        let Some(path) = refused_path(line) else {
            return;
        };
        let mut said = self.said.lock();
        if said.len() >= REMEMBERED || said.contains(path) {
            return;
        }
        said.insert(path.to_owned());
        tracing::warn!(
            path,
            "ComfyUI was refused a file; if it shall have it, add its folder to sandbox_allow_read \
             or sandbox_allow_write (a custom node's own folder: sandbox_custom_nodes_write)"
        );
    }
}

const SIGNS: [&str; 3] = [
    "[Errno 13] Permission denied",
    "[Errno 1] Operation not permitted",
    "Permission denied",
];

/// The path in a line that tells of a refused file: an exception of Python, or a message of the C
/// library as programs print it.
pub fn refused_path(line: &str) -> Option<&str> {
    let (before, after) = SIGNS.iter().find_map(|sign| line.split_once(sign))?;
    quoted(after)
        .or_else(|| last_path(before))
        .filter(|path| path.len() <= LONGEST)
}

/// `: '/a/b'` or `: "/it's"`, as Python prints it; of two the first is the one refused.
fn quoted(text: &str) -> Option<&str> {
    let text = text.strip_prefix(": ")?;
    let quote = text
        .chars()
        .next()
        .filter(|quote| matches!(quote, '\'' | '"'))?;
    let (path, _) = text[1..].split_once(quote)?;
    path.starts_with('/').then_some(path)
}

/// `cat: /a/b: Permission denied`, `cannot open '/a/b' for reading: Permission denied`.
fn last_path(text: &str) -> Option<&str> {
    let text = text.trim_end().trim_end_matches(':');
    for quote in ['\'', '"'] {
        let mut parts = text.rsplit(quote);
        let _rest = parts.next();
        if let Some(path) = parts.next().filter(|path| path.starts_with('/')) {
            return Some(path);
        }
    }
    let path = text.rsplit(": ").next()?;
    path.starts_with('/').then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_tell_of_refusals() {
        let table = [
            (
                "PermissionError: [Errno 13] Permission denied: '/home/o/x y.txt'",
                Some("/home/o/x y.txt"),
            ),
            (
                "PermissionError: [Errno 13] Permission denied: '/a' -> '/b'",
                Some("/a"),
            ),
            (
                "!!! Exception during processing !!! [Errno 13] Permission denied: \"/it's\"",
                Some("/it's"),
            ),
            (
                "PermissionError: [Errno 1] Operation not permitted: '/a'",
                Some("/a"),
            ),
            ("cat: /home/o/x: Permission denied", Some("/home/o/x")),
            (
                "cp: cannot open '/home/o/x' for reading: Permission denied",
                Some("/home/o/x"),
            ),
            (
                "fatal: could not create work tree dir '/a/b': Permission denied",
                Some("/a/b"),
            ),
            ("PermissionError: [Errno 13] Permission denied", None),
            ("[Errno 13] Permission denied: 'relative'", None),
            ("[Errno 13] Permission denied: 'é", None),
            ("[Errno 13] Permission denied: ", None),
            ("connect to 1.2.3.4 port 22: Permission denied", None),
            ("100%|####| 20/20", None),
            ("", None),
        ];
        for (line, expected) in table {
            assert_eq!(refused_path(line), expected, "{line}");
        }
    }

    #[test]
    fn each_path_is_remembered_and_no_more_than_so_many() {
        let refusals = Refusals::default();
        for number in 0..200 {
            let line = format!("[Errno 13] Permission denied: '/{}'", number % 100);
            refusals.look_at(&line);
            refusals.look_at(&line);
        }
        assert_eq!(refusals.said.lock().len(), REMEMBERED);
    }
}
