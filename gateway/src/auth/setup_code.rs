//! The set-up code: printed once on the console, it lets somebody who is not at the machine make
//! the first account (defect S39).

use super::codes;
use parking_lot::Mutex;
use subtle::ConstantTimeEq;

/// 32^8: with the lock-out after three tries nobody guesses it.
const LENGTH: usize = 8;

/// The code, while there is no account.
#[derive(Debug, Default)]
pub struct SetupCode(Mutex<Option<String>>);

impl SetupCode {
    /// A new code.
    pub fn generate() -> Self {
        let code = codes::random::<LENGTH>();
        Self(Mutex::new(Some(code)))
    }

    /// The code as printed, `XXXX-XXXX`.
    pub fn text(&self) -> Option<String> {
        self.0.lock().as_deref().map(codes::with_dashes)
    }

    /// Compares in constant time; case, dashes and spaces do not count.
    pub fn matches(&self, given: &str) -> bool {
        let given = codes::typed(given, LENGTH);
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
