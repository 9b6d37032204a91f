//! Model directories named by `extra_model_paths.yaml`, read as ComfyUI reads it.

use std::path::{Component, Path, PathBuf};

use saphyr::{LoadableYamlNode, Yaml};

/// A file with more references than this is no list of directories but an attempt to make us
/// expand it without end.
const REFERENCES: usize = 30;

/// Further directories and the start of those written with `~` or `$HOME`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ModelPaths {
    /// All of them, absolute.
    pub(super) all: Vec<PathBuf>,
    /// Those given relative to the home directory, relative to it.
    pub(super) below_home: Vec<PathBuf>,
}

/// The directories in the text of such a file. `file` is where it lies, `home` what `~` means;
/// a broken file names none, ComfyUI itself complains of it.
pub(super) fn model_paths(text: &str, file: &Path, home: Option<&Path>) -> ModelPaths {
    let mut found = ModelPaths::default();
    if text.matches('*').count() > REFERENCES {
        return found;
    }
    let documents = Yaml::load_from_str(text).unwrap_or_default();
    let Some(sections) = documents.first().and_then(|document| document.as_mapping()) else {
        return found;
    };
    let directory = file.parent().unwrap_or(Path::new("/"));
    for section in sections.values() {
        let Some(section) = section.as_mapping() else {
            continue;
        };
        let entry = |name: &str| {
            let entry = section.iter().find(|(key, _)| key.as_str() == Some(name));
            entry.and_then(|(_, value)| value.as_str())
        };
        let base = entry("base_path").map(|text| {
            if let Some(relative) = below_home(text) {
                found.below_home.push(relative.to_owned());
            }
            directory.join(expanded(text, home))
        });
        let base = base.unwrap_or_else(|| directory.to_owned());
        for (name, value) in section {
            let is_path = !matches!(name.as_str(), Some("base_path" | "is_default"));
            if let (true, Some(lines)) = (is_path, value.as_str()) {
                let lines = lines.split('\n').filter(|line| !line.is_empty());
                found
                    .all
                    .extend(lines.map(|line| normalised(&base.join(line))));
            }
        }
    }
    found
}

fn below_home(text: &str) -> Option<&Path> {
    ["~/", "$HOME/", "${HOME}/"]
        .into_iter()
        .find_map(|start| text.strip_prefix(start))
        .map(Path::new)
}

fn expanded(text: &str, home: Option<&Path>) -> PathBuf {
    match (below_home(text), home) {
        (Some(relative), Some(home)) => home.join(relative),
        _ => PathBuf::from(text),
    }
}

/// Without `.` and `..`, as `os.path.normpath` makes it.
fn normalised(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => {
                clean.push(component);
            }
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(list: &[&str]) -> Vec<PathBuf> {
        list.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn as_comfyui_reads_it() {
        let text = "
comfyui:
    base_path: ~/ui/
    is_default: true
    checkpoints: models/checkpoints/
    text_encoders: |
        models/text_encoders/
        models/clip/  # legacy
other:
    loras: ../loras
absolute:
    vae: /big disk/vae
empty:
";
        let found = model_paths(
            text,
            Path::new("/etc/comfy/x.yaml"),
            Some(Path::new("/home/a")),
        );
        assert_eq!(
            found.all,
            paths(&[
                "/home/a/ui/models/checkpoints",
                "/home/a/ui/models/text_encoders",
                "/home/a/ui/models/clip/  # legacy",
                "/etc/loras",
                "/big disk/vae",
            ])
        );
        assert_eq!(found.below_home, paths(&["ui/"]));
    }

    #[test]
    fn broken_files_name_nothing() {
        for text in [
            "",
            "a: [",
            "- 1",
            "a: 1",
            "a: {b: 1}",
            "\u{0}",
            "&a [*a]",
            &"*a ".repeat(99),
        ] {
            let found = model_paths(text, Path::new("/x.yaml"), None);
            assert_eq!(found, ModelPaths::default(), "{text}");
        }
    }
}
