//! Codes that people read aloud and type.

/// Letters and digits that nobody mistakes for each other.
const ALPHABET: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
/// Characters between two dashes.
const GROUP: usize = 4;

/// `LENGTH` random characters of five bits each.
pub(super) fn random<const LENGTH: usize>() -> String {
    let mut random = [0_u8; LENGTH];
    rand::fill(&mut random[..]);
    random
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(byte & 31)]))
        .collect()
}

/// As it is shown: `XXXX-XXXX-…`.
pub(super) fn with_dashes(code: &str) -> String {
    let mut text = String::with_capacity(code.len() + code.len() / GROUP);
    for (index, character) in code.chars().enumerate() {
        if index > 0 && index % GROUP == 0 {
            text.push('-');
        }
        text.push(character);
    }
    text
}

/// What somebody typed: case, dashes and spaces do not count; cut beyond `length`.
pub(super) fn typed(given: &str, length: usize) -> String {
    given
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(length + 1)
        .map(|character| character.to_ascii_uppercase())
        .collect()
}
