//! Rules for user names and passwords, the original's: checked once at the edge.

use std::fmt;

/// A user name of `[a-zA-Z0-9_]`, 3 to 64 characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserName(String);

/// Why a text is no user name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("The user name must be 3 to 64 characters long: letters, digits and underscores.")]
pub struct UserNameFault;

impl UserName {
    /// Checks a text.
    pub fn parse(text: &str) -> Result<Self, UserNameFault> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if (3..=64).contains(&text.len()) && text.bytes().all(legal) {
            Ok(Self(text.to_owned()))
        } else {
            Err(UserNameFault)
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Longest password, in bytes: keeps hashing cheap for the machine.
const MAX_PASSWORD_BYTES: usize = 1024;

/// Why a password is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordFault {
    /// Too short.
    #[error("The password must be at least 8 characters long.")]
    TooShort,
    /// Too long.
    #[error("The password must be at most 1024 bytes long.")]
    TooLong,
    /// No digit.
    #[error("The password must contain a digit.")]
    NoDigit,
    /// No special character.
    #[error("The password must contain a special character.")]
    NoSpecial,
    /// Holds a space.
    #[error("The password must not contain spaces.")]
    Space,
}

/// The original's rules; the password itself is never altered (defect S43).
pub fn check_password(password: &str) -> Result<(), PasswordFault> {
    if password.chars().count() < 8 {
        Err(PasswordFault::TooShort)
    } else if password.len() > MAX_PASSWORD_BYTES {
        Err(PasswordFault::TooLong)
    } else if password.chars().any(char::is_whitespace) {
        Err(PasswordFault::Space)
    } else if !password.chars().any(|character| character.is_ascii_digit()) {
        Err(PasswordFault::NoDigit)
    } else if password.chars().all(char::is_alphanumeric) {
        Err(PasswordFault::NoSpecial)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn u4_u5_names_and_passwords_follow_the_rules() {
        for good in ["bob", "Alice_01", "___"] {
            assert!(UserName::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "ab",
            "a b c",
            "../../x",
            "bob\n",
            "bøb",
            "a/b",
            &"x".repeat(65),
        ] {
            assert!(UserName::parse(bad).is_err(), "{bad}");
        }
        let table = [
            ("1", Err(PasswordFault::TooShort)),
            ("abcdefg!", Err(PasswordFault::NoDigit)),
            ("abcdefg1", Err(PasswordFault::NoSpecial)),
            ("abcd fg1!", Err(PasswordFault::Space)),
            ("abcdef1!", Ok(())),
            ("pässwörd1€", Ok(())),
            ("|;&<>\"'1x", Ok(())),
        ];
        for (password, expected) in table {
            assert_eq!(check_password(password), expected, "{password}");
        }
        assert_eq!(
            check_password(&"a1!".repeat(400)),
            Err(PasswordFault::TooLong)
        );
    }
}
