//! The API token that the door adds: read once, shown never.

use http::HeaderValue;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Largest file that is read, bytes; a token has some hundred.
const MAX_LENGTH: u64 = 16 * 1024;
/// The variable that may hold the token instead of a file.
pub(crate) const VARIABLE: &str = "SENTINEL_TOKEN";

/// Value for the header Authorization. Its `Debug` form hides it.
#[derive(Clone, Debug)]
pub(crate) struct Token(HeaderValue);

/// Why there is no token, as a sentence for people.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    /// The file cannot be read.
    #[error("cannot read the token from {}", path.display())]
    Read {
        /// The file, or where else it was read from.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// Other accounts of this computer could take the token.
    #[error(
        "{} can be read by other accounts of this computer; close it first: chmod 600 {}",
        path.display(),
        path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
    },
    /// Nothing there.
    #[error("no token was given")]
    Empty,
    /// More than one word, or what no token holds.
    #[error(
        "this is not an API token: it must be one word, as the account page shows it once when it makes one"
    )]
    Form,
}

impl Token {
    /// Reads what is in a file, closed to others on Unix.
    pub(crate) fn from_file(path: &Path) -> Result<Self, TokenError> {
        let failed = |source| TokenError::Read {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        // A pipe of the shell has no other readers.
        if metadata.is_file() && is_open_to_others(&metadata) {
            return Err(TokenError::Open {
                path: path.to_owned(),
            });
        }
        Self::from_reader(file).map_err(|error| match error {
            ReadError::Io(source) => failed(source),
            ReadError::Token(error) => error,
        })
    }

    /// Reads standard input to its end.
    pub(crate) fn from_standard_input() -> Result<Self, TokenError> {
        Self::from_reader(io::stdin().lock()).map_err(|error| match error {
            ReadError::Io(source) => TokenError::Read {
                path: PathBuf::from("standard input"),
                source,
            },
            ReadError::Token(error) => error,
        })
    }

    fn from_reader(reader: impl Read) -> Result<Self, ReadError> {
        let mut text = String::new();
        reader
            .take(MAX_LENGTH)
            .read_to_string(&mut text)
            .map_err(ReadError::Io)?;
        Self::parse(&text).map_err(ReadError::Token)
    }

    /// Reads the text of a file or variable.
    pub(crate) fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim_start_matches('\u{feff}').trim();
        if text.is_empty() {
            return Err(TokenError::Empty);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::Form);
        }
        let mut value =
            HeaderValue::from_str(&format!("Bearer {text}")).map_err(|_| TokenError::Form)?;
        value.set_sensitive(true);
        Ok(Self(value))
    }

    /// Value for the header Authorization.
    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

enum ReadError {
    Io(io::Error),
    Token(TokenError),
}

#[cfg(unix)]
fn is_open_to_others(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    const GROUP_AND_OTHERS: u32 = 0o077;
    metadata.permissions().mode() & GROUP_AND_OTHERS != 0
}

/// Elsewhere the permissions of a file say nothing that could be read here.
#[cfg(not(unix))]
fn is_open_to_others(_metadata: &std::fs::Metadata) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_word_and_never_shown() {
        for text in [
            "abc.def-_",
            "abc.def-_\n",
            "\u{feff}abc.def-_\r\n",
            "  abc.def-_  ",
        ] {
            let token = Token::parse(text).unwrap();
            assert_eq!(token.header(), "Bearer abc.def-_", "{text:?}");
            assert!(!format!("{token:?}").contains("abc"));
        }
        assert!(matches!(Token::parse(" \n"), Err(TokenError::Empty)));
        for text in ["two words", "one\ntwo", "Bearer x", "ümlaut", "a\u{1}b"] {
            assert!(
                matches!(Token::parse(text), Err(TokenError::Form)),
                "{text:?}"
            );
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_can_read_is_refused() {
        use std::fs::{Permissions, set_permissions, write};
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        assert!(matches!(
            Token::from_file(&path),
            Err(TokenError::Read { .. })
        ));
        write(&path, "abc\n").unwrap();
        for (mode, is_good) in [
            (0o600, true),
            (0o400, true),
            (0o640, false),
            (0o604, false),
            (0o666, false),
            (0o620, false),
        ] {
            set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let read = Token::from_file(&path);
            assert_eq!(read.is_ok(), is_good, "{mode:o}");
            assert_eq!(
                matches!(read, Err(TokenError::Open { .. })),
                !is_good,
                "{mode:o}"
            );
        }
    }
}
