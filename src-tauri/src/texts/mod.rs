//! What tray, notifications and dialogs say: in the language chosen in the window, else in the
//! system's.
//!
//! A language is a constant with a text for each key, so that a missing one does not compile.

mod de;
mod en;
mod zh;

use serde::{Deserialize, Serialize};

/// Declares the keys once, as fields and, for the tests, as a list.
macro_rules! texts {
    ($($key:ident,)*) => {
        /// The texts of one language. `{name}` in a text is the place of a value.
        #[derive(Debug, PartialEq, Eq)]
        pub(crate) struct Texts {
            $(pub(crate) $key: &'static str,)*
        }

        impl Texts {
            #[cfg(test)]
            fn entries(&self) -> Vec<(&'static str, &'static str)> {
                vec![$((stringify!($key), self.$key),)*]
            }
        }
    };
}

texts! {
    comfyui,
    demo,
    is_stopped,
    is_starting,
    is_starting_percent,
    is_running,
    is_running_held,
    is_running_shared,
    is_stopping,
    has_crashed,
    has_failed,
    open_comfyui,
    open_window,
    start,
    stop,
    restart,
    free_memory,
    need_gpu,
    gpu_is_mine,
    gpu_is_mine_one,
    gpu_is_mine_many,
    after_this_job,
    now,
    give_back,
    share,
    copy_address,
    show_qr_code,
    nobody,
    nobody_signed_in,
    one_signed_in,
    many_signed_in,
    autostart,
    quit,
    quitting,
    quit_now,
    ready_title,
    ready,
    crashed_title,
    banned_title,
    banned,
    new_device_title,
    new_device,
    still_running_title,
    still_running,
    no_start_title,
    use_port,
    use_it,
}

/// A language that there are texts for, by the code that the pages have for it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Language {
    En,
    De,
    Zh,
}

/// The texts in the language that was chosen, else in the system's.
pub(crate) fn of(chosen: Option<Language>) -> &'static Texts {
    match chosen {
        Some(Language::En) => &en::TEXTS,
        Some(Language::De) => &de::TEXTS,
        Some(Language::Zh) => &zh::TEXTS,
        None => of_system(),
    }
}

/// The texts for the first language of the system that there are any for, else the English ones.
pub(crate) fn of_system() -> &'static Texts {
    for_languages(sys_locale::get_locales())
}

/// Languages come as `de-AT`, from some systems as `zh_CN.UTF-8`.
fn for_languages(languages: impl IntoIterator<Item = String>) -> &'static Texts {
    languages
        .into_iter()
        .find_map(|tag| {
            let language = tag.split(['-', '_', '.', '@']).next().unwrap_or_default();
            match language.to_ascii_lowercase().as_str() {
                "en" | "c" | "posix" => Some(&en::TEXTS),
                "de" => Some(&de::TEXTS),
                "zh" => Some(&zh::TEXTS),
                _ => None,
            }
        })
        .unwrap_or(&en::TEXTS)
}

/// The text with each `{name}` replaced by its value; what a value says stays as it is.
pub(crate) fn fill(text: &str, values: &[(&str, &str)]) -> String {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        let place = after.split_once('}').and_then(|(name, behind)| {
            let (_, value) = values.iter().find(|(known, _)| *known == name)?;
            Some((*value, behind))
        });
        match place {
            Some((value, behind)) => {
                filled.push_str(value);
                rest = behind;
            }
            None => {
                filled.push('{');
                rest = after;
            }
        }
    }
    filled.push_str(rest);
    filled
}

#[cfg(test)]
pub(crate) const ENGLISH: &Texts = &en::TEXTS;

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [(&str, &Texts); 3] = [("en", &en::TEXTS), ("de", &de::TEXTS), ("zh", &zh::TEXTS)];

    fn places(text: &str) -> Vec<&str> {
        let mut names: Vec<_> = text
            .split('{')
            .skip(1)
            .filter_map(|part| part.split_once('}'))
            .map(|(name, _)| name)
            .collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn every_language_has_every_text_with_the_same_places() {
        for (language, texts) in ALL {
            for ((key, text), (_, english)) in texts.entries().iter().zip(en::TEXTS.entries()) {
                assert!(!text.trim().is_empty(), "{language}: {key}");
                assert_eq!(places(text), places(english), "{language}: {key}");
            }
        }
    }

    #[test]
    fn what_is_a_sentence_in_english_is_translated() {
        for (language, texts) in &ALL[1..] {
            let same = texts
                .entries()
                .into_iter()
                .zip(en::TEXTS.entries())
                .filter(|((key, text), (_, english))| *key != "comfyui" && text == english);
            assert_eq!(same.count(), 0, "{language}");
        }
    }

    #[test]
    fn the_first_known_language_counts() {
        let table: [(&[&str], &Texts); 11] = [
            (&[], &en::TEXTS),
            (&["fr-FR"], &en::TEXTS),
            (&["en-GB", "de-DE"], &en::TEXTS),
            (&["C"], &en::TEXTS),
            (&["de"], &de::TEXTS),
            (&["de-AT"], &de::TEXTS),
            (&["DE_de.UTF-8@euro"], &de::TEXTS),
            (&["fr-CA", "de-CH", "en-US"], &de::TEXTS),
            (&["zh-Hans-CN"], &zh::TEXTS),
            (&["zh_TW.UTF-8"], &zh::TEXTS),
            (&["deutsch", ""], &en::TEXTS),
        ];
        for (languages, expected) in table {
            let languages_of_system = languages.iter().map(|&tag| tag.to_owned());
            assert_eq!(
                for_languages(languages_of_system),
                expected,
                "{languages:?}"
            );
        }
    }

    #[test]
    fn values_come_to_their_places() {
        type Values = [(&'static str, &'static str)];
        let table: [(&str, &Values, &str); 6] = [
            ("plain", &[("name", "x")], "plain"),
            ("{name} runs", &[("name", "ComfyUI")], "ComfyUI runs"),
            ("{a}{b}{a}", &[("a", "1"), ("b", "2")], "121"),
            ("{a}", &[("a", "{b}"), ("b", "2")], "{b}"),
            ("{unknown} {", &[("a", "1")], "{unknown} {"),
            ("{{a}", &[("a", "1")], "{1"),
        ];
        for (text, values, expected) in table {
            assert_eq!(fill(text, values), expected, "{text}");
        }
    }
}
