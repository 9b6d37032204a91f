//! The set-up code: printed once on the console, it lets somebody who is not at the machine make
//! the first account (defect S39).

use parking_lot::Mutex;
use subtle::ConstantTimeEq;

/// Letters and digits that nobody mistakes for each other.
const ALPHABET: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
/// 32^8: with the lock-out after three tries nobody guesses it.
const LENGTH: usize = 8;

/// The code, while there is no account.
#[derive(Debug, Default)]
pub struct SetupCode(Mutex<Option<String>>);

impl SetupCode {
    /// A new code.
    pub fn generate() -> Self {
        let random: [u8; LENGTH] = rand::random();
        let code = random
            .iter()
            .map(|byte| char::from(ALPHABET[usize::from(byte & 31)]))
            .collect();
        Self(Mutex::new(Some(code)))
    }

    /// The code as printed, `XXXX-XXXX`.
    pub fn text(&self) -> Option<String> {
        let code = self.0.lock();
        let (first, second) = code.as_ref()?.split_at_checked(LENGTH / 2)?;
        Some(format!("{first}-{second}"))
    }

    /// Compares in constant time; case, dashes and spaces do not count.
    pub fn matches(&self, given: &str) -> bool {
        let given: String = given
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .take(LENGTH + 1)
            .map(|character| character.to_ascii_uppercase())
            .collect();
        self.0
            .lock()
            .as_ref()
            .is_some_and(|code| bool::from(code.as_bytes().ct_eq(given.as_bytes())))
    }

    /// Ends the code: the first account is there.
    pub fn spend(&self) {
        *self.0.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_counts_once_in_any_spelling() {
        let code = SetupCode::generate();
        let text = code.text().unwrap();
        assert_eq!(text.len(), 9);
        assert!(code.matches(&text) && code.matches(&text.to_lowercase().replace('-', " ")));
        assert!(
            !code.matches("") && !code.matches(&text[..8]) && !code.matches(&format!("{text}A"))
        );
        code.spend();
        assert!(!code.matches(&text) && !code.matches(""));
    }
}
