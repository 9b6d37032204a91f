//! The signing key: from the environment, else made once and kept.

use crate::files;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::path::Path;

/// Bytes of a key made here.
const KEY_BYTES: usize = 48;
/// A shorter key from the environment can be guessed offline from any token.
const MIN_BYTES: usize = 16;

/// Why there is no signing key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("cannot read or write the signing key {path}")]
    Io {
        /// The file.
        path: String,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// The key can be guessed.
    #[error("the signing key in {0} is too short: it needs at least {MIN_BYTES} characters")]
    TooShort(String),
}

/// The key of the variable, else the one in the file, else a new one that is kept in the file,
/// readable by the owner alone. Tokens survive a restart either way (defect S35).
pub fn signing_key(variable: &str, path: &Path) -> Result<Vec<u8>, KeyError> {
    if let Some(value) = std::env::var_os(variable).filter(|value| !value.is_empty()) {
        let value = value.into_encoded_bytes();
        return if value.len() >= MIN_BYTES {
            Ok(value)
        } else {
            Err(KeyError::TooShort(variable.to_owned()))
        };
    }
    let failed = |source| KeyError::Io {
        path: path.display().to_string(),
        source,
    };
    let _lock = files::WriteLock::acquire(path).map_err(failed)?;
    if let Some(text) = files::read_optional(path).map_err(failed)? {
        let key = STANDARD.decode(text.trim()).unwrap_or_default();
        return if key.len() >= MIN_BYTES {
            Ok(key)
        } else {
            Err(KeyError::TooShort(path.display().to_string()))
        };
    }
    let key: [u8; KEY_BYTES] = rand::random();
    files::write_atomically(path, STANDARD.encode(key).as_bytes()).map_err(failed)?;
    Ok(key.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s35_the_key_is_made_once_and_kept_to_the_owner() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret.key");
        let variable = "SENTINEL_TEST_VARIABLE_THAT_NOBODY_SETS";
        let key = signing_key(variable, &path).unwrap();
        assert_eq!(key, signing_key(variable, &path).unwrap());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(
                std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
        std::fs::write(&path, "c2hvcnQ=").unwrap();
        assert!(matches!(
            signing_key(variable, &path),
            Err(KeyError::TooShort(_))
        ));
    }
}
