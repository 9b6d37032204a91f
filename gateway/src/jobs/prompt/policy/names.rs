//! Whether a name stays in the directory that a node looks in. The characters of a name do not decide,
//! but how nodes read it: some strip blanks and quotes first, ComfyUI drops an annotation such as
//! ` [input]` together with the character before it, and Windows knows drives. A name is judged in all
//! readings. `mom's.png` is plain in each of them, `"../a.png"` is not.
//!
//! Percent signs and forms of Unicode change nothing: no node decodes the former, and no canonical
//! form of a character is a dot, a slash or a colon.

use std::borrow::Cow;

/// Longest name, bytes: no system opens a longer one.
const MAX_NAME: usize = 4096;
/// Ends of playlists. FFmpeg, which opens pictures and sound as well, goes where the paths in them lead.
const PLAYLISTS: [&str; 4] = [".m3u8", ".m3u", ".hls", ".mpd"];
/// Annotations behind one another that are looked behind; ComfyUI drops one.
const MAX_ANNOTATIONS: usize = 3;

/// Whose rules hold for names of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum System {
    Unix,
    Windows,
}

impl System {
    /// The system that this program and its engines run on.
    pub(crate) const THIS: Self = if cfg!(windows) {
        Self::Windows
    } else {
        Self::Unix
    };

    /// Whether a name begins with a drive, and so may name any place.
    pub(crate) fn has_drive(self, name: &str) -> bool {
        self == Self::Windows && name.chars().nth(1) == Some(':')
    }
}

/// Whether some node would look for this name outside of the directory that it is given for.
pub(super) fn leaves_its_directory(name: &str, system: System) -> bool {
    if name.len() > MAX_NAME {
        return true;
    }
    let mut readings = vec![Cow::Borrowed(name)];
    for _ in 0..=MAX_ANNOTATIONS {
        let mut shorter = Vec::new();
        for reading in &readings {
            for form in [Cow::Borrowed(reading.as_ref()), bare(reading)] {
                if is_outside(&form, system) {
                    return true;
                }
                if let Some(rest) = without_annotation(&form) {
                    shorter.push(Cow::Owned(rest.to_owned()));
                }
            }
        }
        if shorter.is_empty() {
            return false;
        }
        readings = shorter;
    }
    true
}

/// Without any quotes, and without blanks around it.
fn bare(name: &str) -> Cow<'_, str> {
    let name = name.trim_matches(is_blank);
    if !name.contains(is_quote) {
        return Cow::Borrowed(name);
    }
    let kept: String = name.chars().filter(|letter| !is_quote(*letter)).collect();
    Cow::Owned(kept.trim_matches(is_blank).to_owned())
}

/// As ComfyUI drops it: `[input]` and the like at the end, and one character before it, whatever that
/// is.
fn without_annotation(name: &str) -> Option<&str> {
    ["[output]", "[input]", "[temp]"].iter().find_map(|mark| {
        let mut rest = name.strip_suffix(mark)?.chars();
        rest.next_back();
        Some(rest.as_str())
    })
}

fn is_outside(name: &str, system: System) -> bool {
    let is_absolute = name.starts_with(is_separator) || system.has_drive(name);
    let mut parts = name.split(is_separator);
    // `~` and `~somebody` stand for home directories; a file may begin with it all the same.
    let is_home = parts.next().is_some_and(|first| first.starts_with('~'))
        && (name == "~" || parts.next().is_some());
    let lower = name.to_ascii_lowercase();
    let is_playlist = PLAYLISTS.iter().any(|end| lower.ends_with(end));
    is_absolute
        || is_home
        || is_playlist
        || name.contains('\0')
        || name.contains("://")
        || name.split(is_separator).any(leads_up)
}

/// Two dots, as they are and where blanks and further dots are cut off.
fn leads_up(part: &str) -> bool {
    part.chars().all(|letter| letter == '.' || is_blank(letter))
        && part.chars().filter(|letter| *letter == '.').count() >= 2
}

/// Windows knows both, and some nodes turn one into the other.
fn is_separator(letter: char) -> bool {
    matches!(letter, '/' | '\\')
}

fn is_quote(letter: char) -> bool {
    matches!(letter, '"' | '\'')
}

/// What Python's `strip` takes off.
fn is_blank(letter: char) -> bool {
    letter.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&letter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn leaves(name: &str) -> bool {
        leaves_its_directory(name, System::Unix)
    }

    #[test]
    fn r5_names_that_can_be_uploaded_can_be_used() {
        for name in [
            "a.png",
            "sub/a.png",
            "sub\\a.png",
            ".hidden",
            "a.png [output]",
            "mom's.png",
            "it\"s.png",
            "\"quoted\".png",
            "'quoted'.png",
            "a [b].png",
            "a[input].png",
            "a [input].png [input]",
            "100%.png",
            "%2e%2e%2fa.png",
            "ä (1).png",
            "a\u{308} (1).png",
            "写真.png",
            " a.png",
            "a.png ",
            "wait...what.png",
            "a..b.png",
            "a../b.png",
            "..a/b.png",
            "~a.png",
            "~$draft.docx",
            "$HOME.png",
            "a;b|c&d.png",
            "m3u8.png",
            "a.m3u8.png",
            "\u{ff0e}\u{ff0e}\u{ff0f}a.png",
            "",
        ] {
            assert!(!leaves_its_directory(name, System::Unix), "{name}");
            assert!(!leaves_its_directory(name, System::Windows), "{name}");
        }
        for name in ["1: first.png", "a:b.png", "12:30.png"] {
            assert!(!leaves_its_directory(name, System::Unix), "{name}");
        }
    }

    #[test]
    fn r5_names_that_lead_out_are_refused_in_every_spelling() {
        for name in [
            "/etc/passwd",
            "//host/share",
            "\\\\host\\share",
            "..",
            "../x",
            "a/../../x",
            "..\\x",
            "a\\..\\x",
            "../x [input]",
            "..x[input]",
            "..x[input]x[input]",
            "/x[input]",
            " /etc",
            "\u{a0}/etc",
            "\u{1f}/etc",
            "\"/etc\"",
            "'/etc'",
            "\" /etc \"",
            "\"../x\"",
            "a/\"..\"/x",
            "a/.\"./x",
            "'.'./x",
            "\"../x [input]\"",
            "\"..x[input]\" [output]",
            "a/.. /x",
            "a/ ../x",
            "a/.. ./x",
            "a/.../x",
            "~",
            "~/x",
            "~root/x",
            "\"~/x\"",
            "file:///x",
            "http://host/x",
            "a\0b",
            "a [input] [input] [input] [input]",
            "a.m3u8",
            "sub/a.M3U [input]",
            "\"a.m3u8\"",
            "a.hls",
            "a.mpd ",
        ] {
            assert!(leaves_its_directory(name, System::Unix), "{name}");
            assert!(leaves_its_directory(name, System::Windows), "{name}");
        }
        for name in [
            "C:\\x",
            "c:x",
            " c:x",
            "\"c:\\x\"",
            "c':x",
            "c:xx[input]",
            "ä:x",
        ] {
            assert!(leaves_its_directory(name, System::Windows), "{name}");
        }
        assert!(leaves(&"a".repeat(MAX_NAME + 1)));
        assert!(!leaves(&"a".repeat(MAX_NAME)));
    }

    /// What ComfyUI and the nodes known to us do before they join a name to a directory.
    fn read_in_turn(name: &str, ways: &[u8]) -> String {
        ways.iter()
            .fold(name.to_owned(), |name, way| match way % 7 {
                0 => name.trim_matches(is_blank).to_owned(),
                1 => name.strip_prefix('"').map_or(name.clone(), str::to_owned),
                2 => name.strip_suffix('"').map_or(name.clone(), str::to_owned),
                3 => name.trim_matches(is_quote).to_owned(),
                4 => name.replace(['"', '\''], ""),
                5 => name.replace('\\', "/"),
                _ => without_annotation(&name).map_or(name.clone(), str::to_owned),
            })
    }

    /// Where a name leads below a directory, by plain counting.
    fn is_below(name: &str) -> bool {
        let mut depth = 0_i32;
        for part in name.split('/') {
            match part {
                "" | "." => {}
                ".." => depth -= 1,
                _ => depth += 1,
            }
            if depth < 0 {
                return false;
            }
        }
        !name.starts_with('/')
    }

    proptest! {
        #[test]
        fn what_passes_stays_below_however_a_node_reads_it(
            pieces in prop::collection::vec(
                prop_oneof![
                    Just(".."), Just("."), Just("/"), Just("\\"), Just("\""), Just("'"), Just(" "),
                    Just("a"), Just("[input]"), Just(" [output]"), Just("[temp]"), Just("~"), Just("ä"), Just("%"),
                ],
                0..12,
            ),
            ways in prop::collection::vec(any::<u8>(), 0..5),
        ) {
            let name = pieces.concat();
            if !leaves(&name) {
                let read = read_in_turn(&name, &ways);
                prop_assert!(is_below(&read), "{name:?} is read as {read:?}");
            }
        }

        #[test]
        fn a_single_name_of_letters_and_signs_passes(name in "[a-z0-9äöü'\"%()\\[\\] ,;+=@#&!-]{1,40}\\.png") {
            prop_assert!(!leaves(&name), "{name:?}");
        }
    }
}
