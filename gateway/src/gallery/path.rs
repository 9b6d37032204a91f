//! The one form in which a file of a gallery is named.

use std::fmt;

/// Longest path, bytes.
const MAX_LENGTH: usize = 1024;
/// Names in one path at most.
const MAX_NAMES: usize = 32;

/// Why a text is no path of a gallery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// Nothing, or too much.
    #[error("a path must have 1 to {MAX_LENGTH} bytes and at most {MAX_NAMES} names")]
    Length,
    /// It could lead somewhere else.
    #[error("a path must be relative and must not hold \"..\" or empty names")]
    Leaves,
    /// A character no file name has.
    #[error("a path must not hold this character")]
    Character,
}

/// A path below a directory that is known from elsewhere: names with `/` between them, none of
/// which leads out. Symbolic links are the opener's business.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelativePath(String);

impl RelativePath {
    /// Checks a text.
    ///
    /// # Errors
    /// [`PathFault`].
    pub fn parse(text: &str) -> Result<Self, PathFault> {
        if text.is_empty() || text.len() > MAX_LENGTH || text.split('/').count() > MAX_NAMES {
            return Err(PathFault::Length);
        }
        if text.contains('\0') || (cfg!(windows) && text.contains([':', '\\'])) {
            return Err(PathFault::Character);
        }
        if text
            .split('/')
            .any(|name| matches!(name, "" | "." | "..") || is_trimmed_away(name))
        {
            return Err(PathFault::Leaves);
        }
        Ok(Self(text.to_owned()))
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last name.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// What stands before the last name; empty at the top.
    pub fn folder(&self) -> &str {
        self.0.rsplit_once('/').map_or("", |(folder, _)| folder)
    }

    /// The last name's ending, without its dot, in lower case.
    pub fn extension(&self) -> String {
        let ending = self.name().rsplit_once('.').map(|(_, ending)| ending);
        ending.unwrap_or_default().to_ascii_lowercase()
    }
}

/// Windows drops dots and spaces at the end: `... ` would become something else.
fn is_trimmed_away(name: &str) -> bool {
    cfg!(windows) && name.ends_with(['.', ' '])
}

impl fmt::Display for RelativePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_leads_out_is_no_path() {
        for text in [
            "",
            "/",
            "/etc/passwd",
            "..",
            ".",
            "../a",
            "a/..",
            "a/../../b",
            "a//b",
            "a/",
            "./a",
            "a\0b",
            "//host/share",
        ] {
            assert!(RelativePath::parse(text).is_err(), "{text:?}");
        }
        assert!(RelativePath::parse(&"a".repeat(1025)).is_err());
        assert!(RelativePath::parse(&vec!["a"; 33].join("/")).is_err());
    }

    #[test]
    fn hard_names_are_names() {
        for (text, folder, name, extension) in [
            ("a.png", "", "a.png", "png"),
            ("b/c/A.PNG", "b/c", "A.PNG", "png"),
            ("Füße 100 %/ä&b?#.webp", "Füße 100 %", "ä&b?#.webp", "webp"),
            ("...", "", "...", ""),
            ("..a/b..", "..a", "b..", ""),
            ("%2e%2e", "", "%2e%2e", ""),
        ] {
            if cfg!(windows) && text.ends_with('.') {
                continue;
            }
            let path = RelativePath::parse(text).unwrap();
            assert_eq!(
                (path.folder(), path.name(), path.extension().as_str()),
                (folder, name, extension)
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_stays_below(text in "[a./\\\\:% ]{0,12}") {
            if let Ok(path) = RelativePath::parse(&text) {
                let mut depth = 0_i32;
                for part in std::path::Path::new(path.as_str()).components() {
                    depth += match part {
                        std::path::Component::Normal(_) => 1,
                        _ => -1000,
                    };
                }
                prop_assert!(depth > 0);
            }
        }
    }
}
