//! What is shown of our own: a small page when no front end is at hand, and a workflow that works for the
//! front end's list of templates, whose own package is not here.

use crate::nodes;
use std::sync::OnceLock;

/// The page.
pub(crate) const PAGE: &str = include_str!("page/index.html");
/// Its style.
pub(crate) const STYLE: &str = include_str!("page/page.css");
/// Its script.
pub(crate) const SCRIPT: &str = include_str!("page/page.js");

/// A file of the template list; its type comes from its name.
pub(crate) fn template(name: &str) -> Option<&'static [u8]> {
    static THUMBNAILS: [OnceLock<Vec<u8>>; 2] = [const { OnceLock::new() }; 2];
    let thumbnail = |index: usize, words: &str| -> &'static [u8] {
        THUMBNAILS[index].get_or_init(|| nodes::thumbnail(words))
    };
    match name {
        "templates/index.json" => Some(include_bytes!("page/templates/index.json")),
        "templates/demo-picture.json" => Some(include_bytes!("page/templates/demo-picture.json")),
        "templates/demo-picture-1.webp" => Some(thumbnail(0, "a calm evening by the sea")),
        "templates/real-comfyui.json" => Some(include_bytes!("page/templates/real-comfyui.json")),
        "templates/real-comfyui-1.webp" => Some(thumbnail(
            1,
            "purple galaxy in a glass bottle, mountain scenery",
        )),
        _ => None,
    }
}
