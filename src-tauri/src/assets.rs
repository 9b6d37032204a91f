//! The pages in the window are those that the gateway carries, so they are in memory once.

use sentinel_gateway::http::file_of_window;
use std::borrow::Cow;
use tauri::utils::assets::{AssetKey, AssetsIter, CspHash};
use tauri::{App, Assets, Runtime};

/// Where the pages expect to lie.
const PREFIX: &str = "/sentinel/";
/// The management app; the path that the window opens.
pub(crate) const PAGE: &str = "sentinel/index.html";

/// The pages of the gateway.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GatewayPages;

impl<R: Runtime> Assets<R> for GatewayPages {
    fn setup(&self, _app: &App<R>) {}

    fn get(&self, key: &AssetKey) -> Option<Cow<'_, [u8]>> {
        file_of_window(key.as_ref().strip_prefix(PREFIX)?)
    }

    fn iter(&self) -> Box<AssetsIter<'_>> {
        Box::new(std::iter::empty())
    }

    fn csp_hashes(&self, _page: &AssetKey) -> Box<dyn Iterator<Item = CspHash<'_>> + '_> {
        // The pages have no inline script or style.
        Box::new(std::iter::empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &str) -> Option<Cow<'static, [u8]>> {
        Assets::<tauri::Wry>::get(&GatewayPages, &AssetKey::from(path))
            .map(|file| Cow::Owned(file.into_owned()))
    }

    #[test]
    fn nothing_outside_the_pages_is_found() {
        assert!(get("index.html").is_none());
        assert!(get("/sentinel/../sentinel.db").is_none());
    }
}
