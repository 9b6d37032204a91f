//! What a picture shows, told by its words and a seed: folded noise in the colours that the words suggest,
//! and before it the things they name, such as mountains, water or a bottle. The same words and seed always
//! give the same picture.

use image::{Rgb, RgbImage};
use sha2::{Digest as _, Sha256};

/// Dark, middle, bright, light.
type Palette = [[f32; 3]; 4];
type Color = [f32; 3];

/// Words, and the colours they bring. The first entry that fits is taken.
const PALETTES: &[(&[&str], Palette)] = &[
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
        &[
            "night", "space", "star", "moon", "dark", "dream", "galaxy", "purple",
        ],
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

/// A thing that can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Motif {
    Stars,
    Mountains,
    Water,
    Trees,
    Skyline,
    Flower,
    Bottle,
}

/// Words, and the thing they name.
const MOTIFS: &[(Motif, &[&str])] = &[
    (
        Motif::Stars,
        &["star", "galaxy", "space", "night", "universe", "cosmos"],
    ),
    (
        Motif::Mountains,
        &[
            "mountain",
            "landscape",
            "scenery",
            "nature",
            "hill",
            "valley",
            "alps",
        ],
    ),
    (
        Motif::Water,
        &["sea", "ocean", "lake", "water", "river", "beach", "coast"],
    ),
    (Motif::Trees, &["tree", "forest", "wood", "pine", "nature"]),
    (
        Motif::Skyline,
        &["city", "town", "skyline", "street", "tower", "building"],
    ),
    (
        Motif::Flower,
        &["flower", "rose", "blossom", "tulip", "daisy"],
    ),
    (Motif::Bottle, &["bottle", "glass", "vase", "jar", "potion"]),
];

/// Where the sky ends, as a share of the height.
const HORIZON: f32 = 0.66;

/// What decides the picture.
#[derive(Debug)]
pub(super) struct Scene {
    seed: u32,
    palette: Palette,
    /// The colours inside of things.
    inner: Palette,
    motifs: Vec<Motif>,
    light: (f32, f32),
    scale: f32,
    fold: f32,
    stretch: f32,
}

impl Scene {
    /// The scene of these words. Things and colours named in `without` do not appear.
    pub(super) fn new(words: &str, without: &str, seed: &str) -> Self {
        let digest = Sha256::digest(format!("{words}\n{without}\n{seed}"));
        let part = |index: usize| f32::from(digest[index]) / 255.0;
        let (words, without) = (words.to_lowercase(), without.to_lowercase());
        let named = |names: &[&str]| names_one(&words, names) && !names_one(&without, names);
        let mut palettes = PALETTES
            .iter()
            .filter(|(names, _)| named(names))
            .map(|(_, palette)| *palette);
        let any = |index: usize| PALETTES[usize::from(digest[index]) % PALETTES.len()].1;
        let palette = palettes.next().unwrap_or_else(|| any(0));
        Self {
            seed: u32::from_be_bytes([digest[1], digest[2], digest[3], digest[4]]),
            inner: palettes.next().unwrap_or_else(|| any(10)),
            palette,
            motifs: MOTIFS
                .iter()
                .filter(|(_, names)| named(names))
                .map(|(motif, _)| *motif)
                .collect(),
            light: (0.2 + 0.6 * part(5), 0.18 + 0.3 * part(6)),
            scale: 1.4 + 1.6 * part(7),
            fold: 1.2 + 1.8 * part(8),
            stretch: 1.0 + 2.0 * part(9),
        }
    }

    pub(super) fn paint(&self, width: u32, height: u32) -> RgbImage {
        let side = unit(width.max(height));
        let bottom = unit(height) / side;
        let right = unit(width) / side;
        RgbImage::from_fn(width, height, |x, y| {
            let place = Place {
                x: unit(x) / side,
                y: unit(y) / side,
                right,
                bottom,
                edge: 1.5 / side,
            };
            Rgb(self.color(place).map(byte))
        })
    }

    /// The picture as it looks part of the way, coming out of grain.
    pub(super) fn part_of_the_way(&self, picture: &RgbImage, done: f32, step: u32) -> RgbImage {
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

    fn has(&self, motif: Motif) -> bool {
        self.motifs.contains(&motif)
    }

    fn color(&self, place: Place) -> Color {
        let mut color = self.background(place);
        if self.has(Motif::Trees) {
            color = self.trees(place, color);
        }
        if self.has(Motif::Flower) {
            color = self.flower(place, color);
        }
        if self.has(Motif::Bottle) {
            color = self.bottle(place, color);
        }
        color
    }

    /// Sky, and what stands at the horizon.
    fn background(&self, place: Place) -> Color {
        let horizon = HORIZON * place.bottom;
        if !self.has(Motif::Water) || place.y < horizon {
            return self.shore(place, self.sky(place));
        }
        let depth = (place.y - horizon) / (place.bottom - horizon).max(f32::EPSILON);
        let ripple = self.layered(place.x * 9.0, place.y * 70.0, 3) - 0.5;
        let mirrored = Place {
            x: place.x + ripple * 0.06 * (0.3 + depth),
            y: (2.0 * horizon - place.y + ripple * 0.05 * depth).clamp(0.0, horizon),
            ..place
        };
        let above = self.shore(mirrored, self.sky(mirrored));
        let deep = blend(self.palette[0], self.palette[1], 0.4 + ripple);
        blend(above, deep, 0.25 + 0.45 * depth)
    }

    fn sky(&self, place: Place) -> Color {
        let Place { x, y, bottom, .. } = place;
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
        let base = gradient(&self.palette, level);
        let mut color = blend(base, self.palette[3], (glow + ridge).min(1.0));
        if self.has(Motif::Stars) {
            color = blend(color, [255.0; 3], self.star(x, y) * (1.0 - 0.6 * height));
        }
        color
    }

    /// How bright a star is here, if there is one.
    fn star(&self, x: f32, y: f32) -> f32 {
        const CELLS: f32 = 46.0;
        let (column, row) = ((x * CELLS).floor(), (y * CELLS).floor());
        let random = |layer| self.random(column as i32, row as i32, layer);
        if random(20) < 0.62 {
            return 0.0;
        }
        let (dx, dy) = (
            x * CELLS - column - 0.2 - 0.6 * random(21),
            y * CELLS - row - 0.2 - 0.6 * random(22),
        );
        let size = 0.04 + 0.1 * random(23) * random(24);
        let point = smooth(size, 0.0, dx.hypot(dy));
        let rays = smooth(size * 2.4, 0.0, dx.abs() + dy.abs() * 8.0)
            + smooth(size * 2.4, 0.0, dy.abs() + dx.abs() * 8.0);
        (point + 0.5 * rays).min(1.0)
    }

    /// Mountains and houses before the sky.
    fn shore(&self, place: Place, sky: Color) -> Color {
        let mut color = sky;
        if self.has(Motif::Mountains) {
            for layer in 0..3_u32 {
                let near = unit(layer) / 2.0;
                let crest = self.layered(
                    place.x * (2.2 + 1.6 * near) + 31.0 * unit(layer),
                    7.5 + near,
                    5,
                );
                let top = (0.36 + 0.15 * near + 0.36 * (0.5 - crest)) * place.bottom;
                let inside = smooth(-place.edge, place.edge, place.y - top);
                let below = (place.y - top) / place.bottom;
                let rock = blend(
                    gradient(&self.palette, 0.55 - 0.5 * near),
                    sky,
                    0.42 * (1.0 - near),
                );
                let grain = self.layered(place.x * 14.0, place.y * 22.0, 3);
                let snow = smooth(0.05 + 0.08 * grain, 0.0, below) * (1.0 - 0.75 * near);
                let shade = 0.82 + 0.36 * (grain - 0.5);
                let lit = blend(rock.map(|value| value * shade), self.palette[3], snow);
                color = blend(color, lit, inside);
            }
        }
        if self.has(Motif::Skyline) {
            color = self.skyline(place, color);
        }
        color
    }

    fn skyline(&self, place: Place, behind: Color) -> Color {
        const HOUSES: f32 = 22.0;
        let column = (place.x * HOUSES).floor();
        let random = |layer| self.random(column as i32, 3, layer);
        let top = (HORIZON - 0.06 - 0.34 * random(30) * random(31)) * place.bottom;
        if place.y < top {
            return behind;
        }
        let (u, v) = (place.x * HOUSES - column, (place.y - top) * HOUSES * 2.2);
        let wall = gradient(&self.palette, 0.08 + 0.16 * random(32));
        let window = (u * 5.0).fract() > 0.45 && v.fract() > 0.5 && u > 0.1 && u < 0.9;
        let lit = self.random((place.x * HOUSES * 5.0) as i32, v as i32, 33) > 0.55;
        if window && lit { self.palette[3] } else { wall }
    }

    fn trees(&self, place: Place, behind: Color) -> Color {
        let mut color = behind;
        for layer in 0..2_u32 {
            let near = unit(layer);
            let count = 17.0 - 7.0 * near;
            let slot = (place.x * count + 0.5 * near).floor();
            for neighbour in -1..=1_i32 {
                let column = slot as i32 + neighbour;
                let random = |index| self.random(column, 40 + layer as i32, index);
                let middle = (column as f32 + 0.5 - 0.5 * near + 0.5 * (random(0) - 0.5)) / count;
                let size = (0.16 + 0.14 * near + 0.1 * random(1)) * place.bottom;
                let foot = (0.93 + 0.09 * near) * place.bottom;
                let up = (foot - place.y) / size;
                if !(0.0..1.0).contains(&up) {
                    continue;
                }
                // Each tier of branches is wide below and narrow above.
                let tier = (up * 4.5).fract();
                let width = 0.42 * size * (1.0 - up) * (1.0 - 0.45 * tier) / 1.6 + 0.004;
                let inside = smooth(place.edge, -place.edge, (place.x - middle).abs() - width);
                let needles = gradient(&self.palette, 0.16 - 0.14 * near + 0.1 * up);
                color = blend(color, needles, inside);
            }
        }
        color
    }

    fn flower(&self, place: Place, behind: Color) -> Color {
        let mut color = behind;
        for index in 0..5_i32 {
            let random = |layer| self.random(index, 50, layer);
            let middle_x = place.right * (0.12 + 0.19 * index as f32 + 0.08 * (random(0) - 0.5));
            let middle_y = place.bottom * (0.5 + 0.3 * random(1));
            let size = place.bottom * (0.09 + 0.07 * random(2));
            let sway = 0.02 * (place.y * 14.0 + random(3) * 6.0).sin();
            if place.y > middle_y {
                let inside = smooth(
                    place.edge,
                    -place.edge,
                    (place.x - middle_x - sway).abs() - 0.006,
                );
                color = blend(color, [38.0, 92.0, 52.0], inside);
            }
            let (dx, dy) = (place.x - middle_x, place.y - middle_y);
            let distance = dx.hypot(dy) / size;
            let petals = 5.0 + (random(4) * 4.0).floor();
            let angle = dy.atan2(dx) + random(5) * 6.0;
            let reach = 0.62 + 0.38 * (angle * petals).cos();
            let inside = smooth(place.edge / size, -place.edge / size, distance - reach);
            let petal = gradient(&self.inner, 0.35 + 0.6 * distance);
            color = blend(color, petal, inside);
            color = blend(color, [252.0, 206.0, 74.0], smooth(0.2, 0.15, distance));
        }
        color
    }

    /// A bottle that stands in the middle, with a sky of its own inside.
    fn bottle(&self, place: Place, behind: Color) -> Color {
        let middle = place.right * (0.5 + 0.16 * (self.light.0 - 0.5));
        let (top, foot) = (0.2 * place.bottom, 0.93 * place.bottom);
        let down = (place.y - top) / (foot - top);
        if !(-0.02..1.06).contains(&down) {
            return behind;
        }
        let neck = 0.052 + 0.012 * smooth(0.12, 0.09, down);
        let body = mix(neck, 0.19, smooth(0.26, 0.5, down));
        let rounded = body * (1.0 - smooth(0.9, 1.0, down).powi(3) * 0.5);
        let half = rounded * place.bottom;
        let across = (place.x - middle) / half;
        let inside = smooth(place.edge, -place.edge, (across.abs() - 1.0) * half)
            * smooth(1.0, 0.99, down)
            * smooth(0.0, 0.01, down);
        let shadow = smooth(0.34, 0.0, (place.x - middle).abs() / place.bottom)
            * smooth(0.06, 0.0, (down - 1.0).abs());
        let ground = blend(behind, self.palette[0], 0.55 * shadow);
        if inside <= 0.0 {
            return ground;
        }
        if down < 0.085 {
            let grain = self.layered(place.x * 60.0, place.y * 60.0, 2);
            return blend(
                ground,
                [150.0, 108.0, 70.0].map(|v| v * (0.7 + 0.5 * grain)),
                inside,
            );
        }
        // Glass bends what lies behind it.
        let bent = across * across * across.signum();
        let (u, v) = (3.0 * bent * half / 0.19 + 9.0, 4.0 * place.y + 3.0);
        let swirl = self.layered(u + 2.2 * self.layered(v, u, 3), v, 5);
        let filled = smooth(0.3, 0.36, down);
        let level = (1.7 * (swirl - 0.5) + 0.45).clamp(0.0, 1.0);
        let mut glass = gradient(&self.inner, level);
        glass = blend(glass, [255.0; 3], 0.9 * self.star(u * 0.2, v * 0.2));
        let clear = blend(ground, [235.0, 245.0, 255.0], 0.18);
        let mut color = blend(clear, glass, 0.9 * filled);
        let rim = smooth(0.72, 1.0, across.abs());
        color = blend(color, self.inner[0], 0.5 * rim);
        let shine =
            smooth(0.1, 0.0, (across + 0.55).abs()) + 0.4 * smooth(0.05, 0.0, (across - 0.7).abs());
        color = blend(
            color,
            [255.0; 3],
            0.6 * shine * smooth(0.1, 0.2, down) * smooth(0.97, 0.86, down),
        );
        blend(ground, color, inside)
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
}

/// Whether a text has one of these words, also in the plural: `trees` is one, `watermark` is no water.
fn names_one(text: &str, names: &[&str]) -> bool {
    const ENDING: usize = 2;
    text.split(|letter: char| !letter.is_alphanumeric())
        .any(|word| {
            let ends = |name: &&str| {
                word.strip_prefix(*name)
                    .is_some_and(|rest| rest.len() <= ENDING)
            };
            names.iter().any(ends)
        })
}

/// A point of the picture; the longer side of the picture is 1 long.
#[derive(Clone, Copy, Debug)]
struct Place {
    x: f32,
    y: f32,
    right: f32,
    bottom: f32,
    /// Over this distance an edge goes from one side to the other.
    edge: f32,
}

/// The colour of a palette at a level from 0 to 1.
fn gradient(palette: &Palette, level: f32) -> Color {
    let place = level.clamp(0.0, 1.0) * 3.0;
    let lower = if place < 1.0 {
        0
    } else if place < 2.0 {
        1
    } else {
        2
    };
    let from = unit(u32::try_from(lower).unwrap_or(0));
    blend(
        palette[lower],
        palette[lower + 1],
        smooth(0.0, 1.0, place - from),
    )
}

fn blend(from: Color, to: Color, share: f32) -> Color {
    let share = share.clamp(0.0, 1.0);
    [
        mix(from[0], to[0], share),
        mix(from[1], to[1], share),
        mix(from[2], to[2], share),
    ]
}

fn mix(from: f32, to: f32, share: f32) -> f32 {
    from + (to - from) * share
}

fn smooth(from: f32, to: f32, value: f32) -> f32 {
    let share = ((value - from) / (to - from)).clamp(0.0, 1.0);
    share * share * (3.0 - 2.0 * share)
}

pub(super) fn unit(value: u32) -> f32 {
    value as f32
}

fn byte(value: f32) -> u8 {
    value.clamp(0.0, 255.0) as u8
}

#[cfg(test)]
mod tests {
    use super::{Motif, Scene};

    #[test]
    fn words_and_seed_decide_the_picture() {
        let paint = |words: &str, seed: &str| Scene::new(words, "", seed).paint(40, 30).into_raw();
        assert_eq!(paint("the sea", "1"), paint("the sea", "1"));
        assert_ne!(paint("the sea", "1"), paint("the sea", "2"));
        assert_ne!(paint("the sea", "1"), paint("the forest", "1"));
    }

    #[test]
    fn words_name_what_is_seen_and_the_negative_takes_it_away() {
        for (words, without, motif, seen) in [
            ("a glass bottle", "", Motif::Bottle, true),
            ("a glass bottle", "bottle", Motif::Bottle, false),
            (
                "beautiful scenery",
                "text, watermark",
                Motif::Mountains,
                true,
            ),
            ("beautiful scenery", "", Motif::Skyline, false),
            ("", "", Motif::Water, false),
            ("mountain lakes", "text, watermark", Motif::Water, true),
            ("watermark", "", Motif::Water, false),
        ] {
            assert_eq!(
                Scene::new(words, without, "1").has(motif),
                seen,
                "{words} without {without}"
            );
        }
    }

    #[test]
    fn every_motif_paints_a_whole_picture_of_any_shape() {
        let words = "stars over a city, mountains and trees by the sea, a flower in a bottle";
        for (width, height) in [(16, 16), (64, 16), (16, 64)] {
            let picture = Scene::new(words, "", "7").paint(width, height);
            assert_eq!(picture.dimensions(), (width, height));
        }
    }
}
