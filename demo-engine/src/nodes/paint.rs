//! A picture out of a text and a seed, without any model: soft folded noise in colours that the words of
//! the text suggest, with a light in it. The same text and seed always give the same picture.

use super::{Call, Failure, Outcome, picture};
use image::{Rgb, RgbImage};
use sha2::{Digest as _, Sha256};
use std::time::Duration;

/// A step lasts at least this long, so that people see it happen.
const STEP: Duration = Duration::from_millis(70);
/// Longest side of a preview.
const PREVIEW: u32 = 320;

/// Words, and the colours they bring: dark, middle, bright, light.
const PALETTES: &[(&[&str], [[f32; 3]; 4])] = &[
    (
        &["sea", "ocean", "water", "lake", "blue", "wave"],
        [
            [6.0, 22.0, 51.0],
            [18.0, 89.0, 140.0],
            [92.0, 190.0, 205.0],
            [250.0, 238.0, 210.0],
        ],
    ),
    (
        &["sunset", "evening", "dawn", "warm", "orange", "autumn"],
        [
            [43.0, 16.0, 59.0],
            [163.0, 45.0, 88.0],
            [246.0, 130.0, 74.0],
            [255.0, 229.0, 158.0],
        ],
    ),
    (
        &["forest", "tree", "green", "garden", "spring", "leaf"],
        [
            [9.0, 30.0, 27.0],
            [30.0, 92.0, 66.0],
            [140.0, 184.0, 90.0],
            [247.0, 240.0, 188.0],
        ],
    ),
    (
        &["night", "space", "star", "moon", "dark", "dream"],
        [
            [7.0, 7.0, 26.0],
            [46.0, 34.0, 108.0],
            [137.0, 92.0, 196.0],
            [226.0, 214.0, 255.0],
        ],
    ),
    (
        &["fire", "red", "lava", "desert", "mars", "hot"],
        [
            [28.0, 8.0, 12.0],
            [140.0, 28.0, 22.0],
            [232.0, 104.0, 36.0],
            [255.0, 222.0, 130.0],
        ],
    ),
    (
        &["snow", "winter", "ice", "cloud", "white", "cold"],
        [
            [32.0, 48.0, 74.0],
            [106.0, 140.0, 176.0],
            [190.0, 212.0, 229.0],
            [253.0, 253.0, 255.0],
        ],
    ),
    (
        &["pink", "flower", "rose", "love", "candy", "blossom"],
        [
            [52.0, 14.0, 50.0],
            [166.0, 56.0, 120.0],
            [240.0, 150.0, 178.0],
            [255.0, 236.0, 226.0],
        ],
    ),
];

pub(super) fn run(call: &mut Call<'_>) -> Result<Outcome, Failure> {
    let (width, height) = (
        call.count("width").clamp(16, 4096),
        call.count("height").clamp(16, 4096),
    );
    let steps = call.count("steps").max(1);
    let scene = Scene::new(&call.text("text"), &call.text("seed"));
    let most = width.max(height);
    let shrink = |side: u32| (side * PREVIEW.min(most) / most).max(1);
    let small = scene.paint(shrink(width), shrink(height));
    for step in 1..=steps {
        std::thread::sleep(STEP);
        let done = unit(step) / unit(steps);
        call.reporter.step(
            step,
            steps,
            Some((&scene.blurred_by_noise(&small, done, step), true)),
        )?;
    }
    Ok(picture::images(vec![scene.paint(width, height)]))
}

/// A small painting for the list of templates, as WebP.
pub(crate) fn thumbnail() -> Vec<u8> {
    let picture = Scene::new("a calm evening by the sea", "1").paint(384, 256);
    let mut bytes = std::io::Cursor::new(Vec::new());
    match picture.write_to(&mut bytes, image::ImageFormat::WebP) {
        Ok(()) => bytes.into_inner(),
        Err(_) => Vec::new(),
    }
}

/// What decides the picture.
#[derive(Debug)]
struct Scene {
    seed: u32,
    palette: [[f32; 3]; 4],
    light: (f32, f32),
    scale: f32,
    fold: f32,
    stretch: f32,
}

impl Scene {
    fn new(text: &str, seed: &str) -> Self {
        let digest = Sha256::digest(format!("{text}\n{seed}"));
        let part = |index: usize| f32::from(digest[index]) / 255.0;
        let lower = text.to_lowercase();
        let palette = PALETTES
            .iter()
            .find(|(words, _)| words.iter().any(|word| lower.contains(word)))
            .unwrap_or(&PALETTES[usize::from(digest[0]) % PALETTES.len()])
            .1;
        Self {
            seed: u32::from_be_bytes([digest[1], digest[2], digest[3], digest[4]]),
            palette,
            light: (0.2 + 0.6 * part(5), 0.18 + 0.3 * part(6)),
            scale: 1.4 + 1.6 * part(7),
            fold: 1.2 + 1.8 * part(8),
            stretch: 1.0 + 2.0 * part(9),
        }
    }

    fn paint(&self, width: u32, height: u32) -> RgbImage {
        let side = unit(width.max(height));
        RgbImage::from_fn(width, height, |x, y| {
            self.color(unit(x) / side, unit(y) / side, unit(height) / side)
        })
    }

    fn color(&self, x: f32, y: f32, bottom: f32) -> Rgb<u8> {
        let (u, v) = (x * self.scale, y * self.scale * self.stretch);
        let warp_x = self.layered(u + 5.2, v + 1.3, 3);
        let warp_y = self.layered(u - 2.7, v + 8.4, 3);
        let folded = self.layered(u + self.fold * warp_x, v + self.fold * warp_y, 5);
        let height = y / bottom;
        let level = (0.62 * folded + 0.38 * (1.0 - height) + 0.16 * (warp_x - 0.5)).clamp(0.0, 1.0);
        let (dx, dy) = (x - self.light.0, y - self.light.1 * bottom);
        let distance = dx.hypot(dy);
        let glow = 0.75 * (-distance * 5.5).exp() + 0.9 * smooth(0.085, 0.075, distance);
        let ridge = smooth(0.02, 0.0, (folded - 0.5).abs()) * 0.12;
        let mut out = [0_u8; 3];
        for (channel, value) in out.iter_mut().enumerate() {
            let base = self.gradient(level, channel);
            let lit = base + (self.palette[3][channel] - base) * (glow + ridge).min(1.0);
            *value = byte(lit);
        }
        Rgb(out)
    }

    fn gradient(&self, level: f32, channel: usize) -> f32 {
        let place = level * 3.0;
        let lower = if place < 1.0 {
            0
        } else if place < 2.0 {
            1
        } else {
            2
        };
        let (from, to) = (
            self.palette[lower][channel],
            self.palette[lower + 1][channel],
        );
        from + (to - from) * smooth(0.0, 1.0, place - unit(u32::try_from(lower).unwrap_or(0)))
    }

    /// Noise in several sizes laid over each other, 0 to 1.
    fn layered(&self, x: f32, y: f32, layers: u32) -> f32 {
        let (mut sum, mut weight, mut total) = (0.0, 0.5, 0.0);
        let (mut x, mut y) = (x, y);
        for layer in 0..layers {
            sum += weight * self.noise(x, y, layer);
            total += weight;
            weight *= 0.5;
            // Turning each layer hides the grid.
            (x, y) = (1.6 * x - 1.2 * y, 1.2 * x + 1.6 * y);
        }
        sum / total
    }

    fn noise(&self, x: f32, y: f32, layer: u32) -> f32 {
        let (column, row) = (x.floor(), y.floor());
        let (u, v) = (smooth(0.0, 1.0, x - column), smooth(0.0, 1.0, y - row));
        let cell = |dx: i32, dy: i32| self.random(column as i32 + dx, row as i32 + dy, layer);
        let (top, bottom) = (
            mix(cell(0, 0), cell(1, 0), u),
            mix(cell(0, 1), cell(1, 1), u),
        );
        mix(top, bottom, v)
    }

    fn random(&self, x: i32, y: i32, layer: u32) -> f32 {
        let mut hash = self.seed ^ layer.wrapping_mul(0x9E37_79B9);
        for part in [x, y] {
            hash ^= u32::from_ne_bytes(part.to_ne_bytes());
            hash = hash.wrapping_mul(0x85EB_CA6B);
            hash ^= hash >> 13;
            hash = hash.wrapping_mul(0xC2B2_AE35);
            hash ^= hash >> 16;
        }
        unit(hash >> 8) / unit(1 << 24)
    }

    /// The picture as it looks part of the way, coming out of grain.
    fn blurred_by_noise(&self, picture: &RgbImage, done: f32, step: u32) -> RgbImage {
        let clear = done * done;
        let mut out = picture.clone();
        for (x, y, pixel) in out.enumerate_pixels_mut() {
            for (channel, value) in pixel.0.iter_mut().enumerate() {
                let index = step
                    .wrapping_mul(3)
                    .wrapping_add(u32::try_from(channel).unwrap_or(0));
                let grain = self.random(x as i32, y as i32, index) * 255.0;
                *value = byte(mix(grain, f32::from(*value), clear));
            }
        }
        out
    }
}

fn mix(from: f32, to: f32, share: f32) -> f32 {
    from + (to - from) * share
}

fn smooth(from: f32, to: f32, value: f32) -> f32 {
    let share = ((value - from) / (to - from)).clamp(0.0, 1.0);
    share * share * (3.0 - 2.0 * share)
}

fn unit(value: u32) -> f32 {
    value as f32
}

fn byte(value: f32) -> u8 {
    value.clamp(0.0, 255.0) as u8
}

#[cfg(test)]
mod tests {
    use super::Scene;

    #[test]
    fn text_and_seed_decide_the_picture() {
        let paint = |text: &str, seed: &str| Scene::new(text, seed).paint(40, 30).into_raw();
        assert_eq!(paint("the sea", "1"), paint("the sea", "1"));
        assert_ne!(paint("the sea", "1"), paint("the sea", "2"));
        assert_ne!(paint("the sea", "1"), paint("the forest", "1"));
    }
}
