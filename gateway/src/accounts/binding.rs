//! What a session rests on: the secret by which its owner had shown who they are.

use sha2::{Digest, Sha256};

/// Sets these digests apart from any other use of the same text.
const DOMAIN: &[u8] = b"sentinel session bound to password hash\0";

/// Digest of an account's password hash. A session carries the digest of the hash that it was made
/// by, and counts only while the account's is the same: so a new password, whoever set it and by
/// whatever way, ends all that rests on the old one, also what is being made at that moment. The
/// hash has a salt, so nothing of the password can be found from the digest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Binding([u8; 32]);

impl Binding {
    /// Of a stored hash.
    pub fn of_password_hash(hash: &str) -> Self {
        let digest = Sha256::new().chain_update(DOMAIN).chain_update(hash);
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
    fn another_hash_binds_otherwise() {
        let first = Binding::of_password_hash("$argon2id$a");
        assert_eq!(first, Binding::of_password_hash("$argon2id$a"));
        assert_ne!(first, Binding::of_password_hash("$argon2id$b"));
        assert_eq!(Binding::from_bytes(first.as_bytes()), Some(first));
        assert_eq!(Binding::from_bytes(b"short"), None);
    }
}
