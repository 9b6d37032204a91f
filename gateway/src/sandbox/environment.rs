//! The environment of a confined engine: its own places for what programs keep in the home.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Directories of an engine that nobody else sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PrivatePlaces {
    pub(super) home: PathBuf,
    pub(super) temporary: PathBuf,
    pub(super) cache: PathBuf,
}

impl PrivatePlaces {
    pub(super) fn below(directory: &Path) -> Self {
        Self {
            home: directory.join("home"),
            temporary: directory.join("tmp"),
            cache: directory.join("cache"),
        }
    }

    pub(super) fn hugging_face(&self) -> PathBuf {
        self.cache.join("huggingface")
    }

    pub(super) fn torch(&self) -> PathBuf {
        self.cache.join("torch")
    }

    /// Variables and the directories they name.
    pub(super) fn variables(&self) -> Vec<(&'static str, PathBuf)> {
        vec![
            ("HOME", self.home.clone()),
            ("TMPDIR", self.temporary.clone()),
            ("XDG_CACHE_HOME", self.cache.clone()),
            ("XDG_CONFIG_HOME", self.home.join(".config")),
            ("XDG_DATA_HOME", self.home.join(".local/share")),
            ("XDG_STATE_HOME", self.home.join(".local/state")),
            ("HF_HOME", self.hugging_face()),
            ("TORCH_HOME", self.torch()),
            ("MPLCONFIGDIR", self.cache.join("matplotlib")),
            ("NUMBA_CACHE_DIR", self.cache.join("numba")),
            ("TRITON_CACHE_DIR", self.cache.join("triton")),
            ("TORCHINDUCTOR_CACHE_DIR", self.cache.join("inductor")),
            ("CUDA_CACHE_PATH", self.cache.join("cuda")),
        ]
    }
}

/// Variables that lead to other programs of the owner's session.
const SESSION: &[&str] = &[
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "GPG_AGENT_INFO",
    "SSH_AUTH_SOCK",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "XDG_RUNTIME_DIR",
];

/// Places that those in [`PrivatePlaces::variables`] replace.
const REPLACED: &[&str] = &[
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "TRANSFORMERS_CACHE",
];

/// Which of these variables a confined engine must not see.
pub(super) fn removed(
    names: impl Iterator<Item = OsString>,
    keeps_secrets: bool,
) -> impl Iterator<Item = OsString> {
    names.filter(move |name| {
        let Some(name) = name.to_str() else {
            return false;
        };
        SESSION.contains(&name) || REPLACED.contains(&name) || (!keeps_secrets && is_secret(name))
    })
}

/// Whether a variable holds a password or the like, as its name tells.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    if name.contains("TOKENIZER") {
        return false;
    }
    [
        "TOKEN",
        "SECRET",
        "PASSWORD",
        "PASSWD",
        "CREDENTIAL",
        "API_KEY",
        "ACCESS_KEY",
        "PRIVATE_KEY",
    ]
    .into_iter()
    .any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_away() {
        let names = [
            "PATH",
            "LD_LIBRARY_PATH",
            "CUDA_VISIBLE_DEVICES",
            "SSH_AUTH_SOCK",
            "HF_HUB_CACHE",
            "HF_TOKEN",
            "OPENAI_API_KEY",
            "AWS_SECRET_ACCESS_KEY",
            "PGPASSWORD",
            "TOKENIZERS_PARALLELISM",
        ];
        let taken = |keeps_secrets| -> Vec<String> {
            removed(names.iter().map(OsString::from), keeps_secrets)
                .map(|name| name.into_string().unwrap())
                .collect()
        };
        assert_eq!(taken(true), ["SSH_AUTH_SOCK", "HF_HUB_CACHE"]);
        assert_eq!(
            taken(false),
            [
                "SSH_AUTH_SOCK",
                "HF_HUB_CACHE",
                "HF_TOKEN",
                "OPENAI_API_KEY",
                "AWS_SECRET_ACCESS_KEY",
                "PGPASSWORD",
            ]
        );
    }

    #[test]
    fn every_place_lies_in_the_engines_own_directory() {
        let places = PrivatePlaces::below(Path::new("/data/users/7/private"));
        for (name, path) in places.variables() {
            assert!(path.starts_with("/data/users/7/private"), "{name}");
        }
    }
}
