//! Small pictures: made within bounds of size and memory, kept in a cache of fixed slots.

use super::list::nanoseconds;
use super::media;
use super::path::RelativePath;
use super::place::open_file;
use cap_std::fs::{Dir, Metadata, OpenOptions};
use image::codecs::jpeg::JpegEncoder;
use image::codecs::webp::WebPEncoder;
use image::{DynamicImage, ExtendedColorType, ImageDecoder as _, ImageReader, Limits};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, BufReader, Read as _, Write as _};

/// Width and height at most.
const SIDE: u32 = 320;
/// Of JPEG, 1 to 100.
const QUALITY: u8 = 80;
/// Width and height of a picture that is looked at.
const MAX_SIDE: u32 = 16_384;
/// Memory that one picture may take while it is unpacked.
const MAX_MEMORY: u64 = 256 << 20;
/// Size of a file that is looked at.
const MAX_FILE: u64 = 256 << 20;
/// Slots of a user's cache: with [`MAX_KEPT`] its size on disk at most.
const SLOTS: u16 = 2048;
/// Thumbnails beyond this are made anew each time.
const MAX_KEPT: usize = 64 * 1024;
/// Bytes of a slot before its picture: which one it is.
const KEY: usize = 32;

/// Why there is no small picture.
#[derive(Debug, thiserror::Error)]
pub(super) enum ThumbnailError {
    #[error("not a picture that can be made smaller")]
    Kind,
    #[error("the file cannot be read")]
    Io(#[from] io::Error),
    #[error("the picture is damaged or too large")]
    Picture(#[from] image::ImageError),
    #[error("the picture takes too much memory")]
    Memory,
}

/// A small picture.
#[derive(Clone, Debug)]
pub(crate) struct Thumbnail {
    pub(crate) bytes: Vec<u8>,
    /// Differs whenever the picture differs.
    pub(crate) tag: String,
}

impl Thumbnail {
    pub(crate) fn content_type(&self) -> &'static str {
        if self.bytes.starts_with(b"RIFF") {
            "image/webp"
        } else {
            "image/jpeg"
        }
    }
}

/// Which state of which picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key([u8; KEY]);

impl Key {
    fn of(path: &RelativePath, metadata: &Metadata) -> Self {
        let text = format!("{}:{}:{path}", nanoseconds(metadata), metadata.len());
        Self(Sha256::digest(text.as_bytes()).into())
    }

    fn slot(self) -> String {
        format!("{:03x}", u16::from_be_bytes([self.0[0], self.0[1]]) % SLOTS)
    }

    fn tag(self) -> String {
        self.0[..12]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

/// Takes a small picture from the cache, or makes it and puts it there. Blocks.
pub(super) fn thumbnail(
    directory: &Dir,
    cache: Option<&Dir>,
    path: &RelativePath,
) -> Result<Thumbnail, ThumbnailError> {
    if !media::has_thumbnail(path) {
        return Err(ThumbnailError::Kind);
    }
    let (file, metadata) = open_file(directory, path.as_str())?;
    let key = Key::of(path, &metadata);
    let kept = cache.and_then(|cache| take(cache, key));
    let bytes = match kept {
        Some(bytes) => bytes,
        None => {
            if metadata.len() > MAX_FILE {
                return Err(ThumbnailError::Memory);
            }
            let made = make(file.into_std())?;
            if let Some(cache) = cache
                && let Err(error) = keep(cache, key, &made)
            {
                tracing::debug!(%error, "a thumbnail was not kept");
            }
            made
        }
    };
    Ok(Thumbnail {
        bytes,
        tag: key.tag(),
    })
}

/// Forgets what is kept of a picture that is being deleted.
pub(super) fn forget(cache: &Dir, path: &RelativePath, metadata: &Metadata) {
    let key = Key::of(path, metadata);
    if take(cache, key).is_some()
        && let Err(error) = cache.remove_file(key.slot())
    {
        tracing::debug!(%error, "a thumbnail was not deleted");
    }
}

fn make(file: File) -> Result<Vec<u8>, ThumbnailError> {
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_MEMORY);
    let mut reader = ImageReader::new(BufReader::new(file.take(MAX_FILE))).with_guessed_format()?;
    reader.limits(limits);
    let decoder = reader.into_decoder()?;
    if decoder.total_bytes() > MAX_MEMORY {
        return Err(ThumbnailError::Memory);
    }
    let picture = DynamicImage::from_decoder(decoder)?;
    let small = if picture.width() > SIDE || picture.height() > SIDE {
        picture.thumbnail(SIDE, SIDE)
    } else {
        picture
    };
    let mut bytes = Vec::new();
    let pixels = small.to_rgba8();
    if pixels.pixels().any(|pixel| pixel.0[3] < u8::MAX) {
        // JPEG knows nothing transparent.
        WebPEncoder::new_lossless(&mut bytes).encode(
            pixels.as_raw(),
            pixels.width(),
            pixels.height(),
            ExtendedColorType::Rgba8,
        )?;
    } else {
        JpegEncoder::new_with_quality(&mut bytes, QUALITY).encode_image(&small.to_rgb8())?;
    }
    Ok(bytes)
}

fn take(cache: &Dir, key: Key) -> Option<Vec<u8>> {
    let (file, _) = open_file(cache, &key.slot()).ok()?;
    let limit = u64::try_from(KEY + MAX_KEPT).ok()?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).ok()?;
    (bytes.len() > KEY && bytes[..KEY] == key.0).then(|| bytes.split_off(KEY))
}

fn keep(cache: &Dir, key: Key, bytes: &[u8]) -> io::Result<()> {
    if bytes.len() > MAX_KEPT {
        return Ok(());
    }
    let slot = key.slot();
    let new = format!("{slot}.new");
    let opened = cache.open_with(&new, OpenOptions::new().write(true).create_new(true));
    if opened
        .as_ref()
        .is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists)
    {
        // Left behind by a crash, or written by somebody else right now, who then keeps nothing.
        cache.remove_file(&new)?;
    }
    let mut file = opened?;
    file.write_all(&key.0)?;
    file.write_all(bytes)?;
    cache.rename(&new, cache, &slot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cap_std::ambient_authority;
    use image::{Rgb, RgbImage, Rgba, RgbaImage};

    fn open(path: &std::path::Path) -> Dir {
        Dir::open_ambient_dir(path, ambient_authority()).unwrap()
    }

    fn named(text: &str) -> RelativePath {
        RelativePath::parse(text).unwrap()
    }

    #[test]
    fn pictures_become_small_and_are_kept() {
        let place = tempfile::tempdir().unwrap();
        let kept = tempfile::tempdir().unwrap();
        let (directory, cache) = (open(place.path()), open(kept.path()));
        RgbImage::from_pixel(1200, 600, Rgb([200, 10, 10]))
            .save(place.path().join("a.png"))
            .unwrap();
        let made = thumbnail(&directory, Some(&cache), &named("a.png")).unwrap();
        let small = image::load_from_memory(&made.bytes).unwrap();
        assert_eq!((small.width(), small.height()), (320, 160));
        assert_eq!(made.content_type(), "image/jpeg");
        assert_eq!(std::fs::read_dir(kept.path()).unwrap().count(), 1);
        let again = thumbnail(&directory, Some(&cache), &named("a.png")).unwrap();
        assert_eq!((again.bytes, &again.tag), (made.bytes, &made.tag));

        RgbaImage::from_pixel(100, 40, Rgba([0, 0, 0, 100]))
            .save(place.path().join("a.png"))
            .unwrap();
        let other = thumbnail(&directory, Some(&cache), &named("a.png")).unwrap();
        assert_ne!(other.tag, made.tag);
        assert_eq!(other.content_type(), "image/webp");
        let small = image::load_from_memory(&other.bytes).unwrap();
        assert_eq!((small.width(), small.height()), (100, 40));

        let (_, metadata) = open_file(&directory, "a.png").unwrap();
        let before = std::fs::read_dir(kept.path()).unwrap().count();
        forget(&cache, &named("a.png"), &metadata);
        assert_eq!(std::fs::read_dir(kept.path()).unwrap().count(), before - 1);
    }

    #[test]
    fn what_is_no_picture_or_a_bomb_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let directory = open(place.path());
        std::fs::write(place.path().join("a.png"), "<script>").unwrap();
        std::fs::write(place.path().join("a.svg"), "<svg/>").unwrap();
        // The header of a picture of 60000 x 60000 points.
        let mut bomb =
            b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\xea\x60\0\0\xea\x60\x08\x02\0\0\0".to_vec();
        bomb.extend([0xb0, 0x1b, 0x90, 0x70]);
        std::fs::write(place.path().join("bomb.png"), bomb).unwrap();
        for name in ["a.png", "a.svg", "bomb.png", "missing.png"] {
            assert!(thumbnail(&directory, None, &named(name)).is_err(), "{name}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_does_not_hold_us_up() {
        let place = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(
            &place.path().join("a.png"),
            nix::sys::stat::Mode::from_bits_truncate(0o600),
        )
        .unwrap();
        assert!(thumbnail(&open(place.path()), None, &named("a.png")).is_err());
    }
}
