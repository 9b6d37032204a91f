//! A node for tests: takes its time, reports every step, sends previews, fails on demand.

use super::{Call, Failure, Outcome, picture};
use image::{Rgb, RgbImage};
use std::time::Duration;

const SIDE: u32 = 32;

pub(super) fn run(call: &mut Call<'_>) -> Result<Outcome, Failure> {
    let tag = call.text("tag");
    let steps = call.count("steps").max(1);
    let preview = call.text("preview");
    if let Some(text) = tag.strip_prefix("text:") {
        call.reporter.text(text, false);
    }
    let pause =
        Duration::try_from_secs_f64(call.number("seconds") / f64::from(steps)).unwrap_or_default();
    for step in 1..=steps {
        std::thread::sleep(pause);
        let frame = frame(step, steps);
        let shown = match preview.as_str() {
            "JPEG" => Some((&frame, true)),
            "PNG" => Some((&frame, false)),
            _ => None,
        };
        call.reporter.step(step, steps, shown)?;
    }
    if call.plain("fail").truthy() {
        return Err(Failure::Raised(
            "RuntimeError",
            format!("probe probe failed on purpose: {tag}"),
        ));
    }
    Ok(picture::images(vec![frame(steps, steps)]))
}

fn frame(step: u32, steps: u32) -> RgbImage {
    let level = u8::try_from(255 * u64::from(step) / u64::from(steps)).unwrap_or(255);
    RgbImage::from_fn(SIDE, SIDE, |x, y| {
        let shade = u8::try_from((x * 4 + y * 4).min(255)).unwrap_or(255);
        Rgb([level, shade, 255 - level])
    })
}
