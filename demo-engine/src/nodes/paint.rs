//! A picture out of a text and a seed in one node, without any model.

use super::scene::{Scene, unit};
use super::{Call, Failure, Outcome, picture};
use image::RgbImage;
use std::time::Duration;

/// A step lasts at least this long, so that people see it happen.
const STEP: Duration = Duration::from_millis(70);
/// Longest side of a preview.
const PREVIEW: u32 = 320;

pub(super) fn run(call: &mut Call<'_>) -> Result<Outcome, Failure> {
    let (width, height) = (
        call.count("width").clamp(16, 4096),
        call.count("height").clamp(16, 4096),
    );
    let steps = call.count("steps").max(1);
    let scene = Scene::new(&call.text("text"), "", &call.text("seed"));
    show_steps(call, &scene, (width, height), steps)?;
    Ok(picture::images(vec![scene.paint(width, height)]))
}

/// Takes the steps of a painting and shows how it comes out of the grain.
pub(super) fn show_steps(
    call: &mut Call<'_>,
    scene: &Scene,
    (width, height): (u32, u32),
    steps: u32,
) -> Result<(), Failure> {
    let most = width.max(height);
    let shrink = |side: u32| (side * PREVIEW.min(most) / most).max(1);
    let small = scene.paint(shrink(width), shrink(height));
    for step in 1..=steps {
        std::thread::sleep(STEP);
        let part = scene.part_of_the_way(&small, unit(step) / unit(steps), step);
        let shown = call.previews.then_some((&part, true));
        call.reporter.step(step, steps, shown)?;
    }
    Ok(())
}

/// A small painting for the list of templates, as WebP.
pub(crate) fn thumbnail(words: &str) -> Vec<u8> {
    let picture: RgbImage = Scene::new(words, "", "1").paint(384, 256);
    let mut bytes = std::io::Cursor::new(Vec::new());
    match picture.write_to(&mut bytes, image::ImageFormat::WebP) {
        Ok(()) => bytes.into_inner(),
        Err(_) => Vec::new(),
    }
}
