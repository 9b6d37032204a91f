//! What a session rests on: the secret by which its owner had shown who they are.

use sha2::{Digest, Sha256};

/// Sets these digests apart from any other use of the same text.
const DOMAIN: &[u8] = b"sentinel session bound to password hash\0";

/// Digest of an account's password hash and of its session epoch. A session carries the digest of the
/// time when it was made, and counts only while the account's digest equals it. A new password ends all
/// older sessions, in whichever way it was set, and also those that are just being made. The hash has a
/// salt, so the digest tells nothing of the password.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Binding([u8; 32]);

impl Binding {
    /// Of a stored hash, and how often all sessions of the account were ended at once.
    pub fn of(hash: &str, epoch: u32) -> Self {
        let mut digest = Sha256::new().chain_update(DOMAIN).chain_update(hash);
        // Before the first time as versions without epochs had it.
        if epoch > 0 {
            digest.update(b"\0epoch ");
            digest.update(epoch.to_le_bytes());
        }
        Self(digest.finalize().into())
    }

    /// As it was written down.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// For writing down.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_hash_or_epoch_binds_otherwise() {
        let first = Binding::of("$argon2id$a", 0);
        assert_eq!(first, Binding::of("$argon2id$a", 0));
        assert_ne!(first, Binding::of("$argon2id$b", 0));
        assert_ne!(first, Binding::of("$argon2id$a", 1));
        assert_ne!(Binding::of("$argon2id$a", 1), Binding::of("$argon2id$a", 2));
        assert_eq!(Binding::from_bytes(first.as_bytes()), Some(first));
        assert_eq!(Binding::from_bytes(b"short"), None);
    }
}
