//! What a file is, told from its name alone, and what a browser may do with it.

use super::path::RelativePath;
use serde::Deserialize;
use serde::Serialize;
use utoipa::ToSchema;

/// What people call it. Serialised in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum MediaKind {
    Image,
    Video,
    Audio,
    Other,
}

/// A file type that a browser shows and that holds no script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Passive {
    extension: &'static str,
    kind: MediaKind,
    content_type: &'static str,
    has_thumbnail: bool,
}

const fn image(
    extension: &'static str,
    content_type: &'static str,
    has_thumbnail: bool,
) -> Passive {
    Passive {
        extension,
        kind: MediaKind::Image,
        content_type,
        has_thumbnail,
    }
}

const fn other(kind: MediaKind, extension: &'static str, content_type: &'static str) -> Passive {
    Passive {
        extension,
        kind,
        content_type,
        has_thumbnail: false,
    }
}

/// Whatever is not here is only ever downloaded; so is SVG, which is a program.
const PASSIVE: &[Passive] = &[
    image("png", "image/png", true),
    image("jpg", "image/jpeg", true),
    image("jpeg", "image/jpeg", true),
    image("webp", "image/webp", true),
    image("gif", "image/gif", true),
    image("avif", "image/avif", false),
    image("bmp", "image/bmp", false),
    other(MediaKind::Video, "mp4", "video/mp4"),
    other(MediaKind::Video, "m4v", "video/mp4"),
    other(MediaKind::Video, "webm", "video/webm"),
    other(MediaKind::Video, "mov", "video/quicktime"),
    other(MediaKind::Video, "mkv", "video/x-matroska"),
    other(MediaKind::Audio, "mp3", "audio/mpeg"),
    other(MediaKind::Audio, "wav", "audio/wav"),
    other(MediaKind::Audio, "flac", "audio/flac"),
    other(MediaKind::Audio, "ogg", "audio/ogg"),
    other(MediaKind::Audio, "opus", "audio/ogg"),
    other(MediaKind::Audio, "m4a", "audio/mp4"),
];

fn passive(path: &RelativePath) -> Option<&'static Passive> {
    let extension = path.extension();
    PASSIVE.iter().find(|known| known.extension == extension)
}

impl MediaKind {
    pub(crate) fn of(path: &RelativePath) -> Self {
        passive(path).map_or(Self::Other, |known| known.kind)
    }
}

/// The content type of what may be shown in place; `None`: downloaded only.
pub(crate) fn shown_as(path: &RelativePath) -> Option<&'static str> {
    passive(path).map(|known| known.content_type)
}

/// Whether a small picture of it can be made.
pub(crate) fn has_thumbnail(path: &RelativePath) -> bool {
    passive(path).is_some_and(|known| known.has_thumbnail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn active_and_unknown_types_are_never_shown() {
        for name in [
            "a.svg",
            "a.html",
            "a.HTM",
            "a.xml",
            "a.xhtml",
            "a.js",
            "a.pdf",
            "a.png.html",
            "a",
            "png",
            ".png/x",
            "a.json",
            "a.txt",
        ] {
            let path = RelativePath::parse(name).unwrap();
            assert_eq!(shown_as(&path), None, "{name}");
            assert_eq!(MediaKind::of(&path), MediaKind::Other, "{name}");
        }
        let path = RelativePath::parse("b/A.PNG").unwrap();
        assert_eq!(shown_as(&path), Some("image/png"));
        assert!(has_thumbnail(&path));
    }
}
