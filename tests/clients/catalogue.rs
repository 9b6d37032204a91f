//! The clients: what is installed, what drives them, and how they can sign in.

use std::fmt;

/// How a client shows who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// `Authorization: Bearer`.
    Bearer,
    /// The cookie `jwt_token`.
    Cookie,
    /// HTTP Basic with an API token as the password.
    Basic,
    /// `X-API-Key`.
    ApiKey,
    /// It has no place for a credential: `sentineld connect` adds one.
    Connect,
}

impl Way {
    /// The word that drivers know it by.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Bearer => "bearer",
            Self::Cookie => "cookie",
            Self::Basic => "basic",
            Self::ApiKey => "api-key",
            Self::Connect => "connect",
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Bearer => "Bearer",
            Self::Cookie => "cookie",
            Self::Basic => "Basic with token",
            Self::ApiKey => "X-API-Key",
            Self::Connect => "sentineld connect",
        })
    }
}

/// Where a client comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Registry {
    Pypi,
    Npm,
}

/// A client of ComfyUI that people use.
#[derive(Debug)]
pub(crate) struct Client {
    /// Its name in the registry.
    pub(crate) name: &'static str,
    /// The version that is installed.
    pub(crate) version: &'static str,
    pub(crate) registry: Registry,
    /// What it needs and does not name itself.
    pub(crate) besides: &'static [&'static str],
    /// Our script that drives it, and its text.
    pub(crate) driver: (&'static str, &'static str),
    /// Every way by which it can sign in.
    pub(crate) ways: &'static [Way],
}

macro_rules! driver {
    ($name:literal) => {
        ($name, include_str!(concat!("drivers/", $name)))
    };
}

/// Helpers that all drivers use.
pub(crate) const HELPERS: [(&str, &str); 2] = [driver!("driver.py"), driver!("driver.mjs")];

const CONNECT: &[Way] = &[Way::Connect];

/// All of them.
pub(crate) const CLIENTS: &[Client] = &[
    pypi(
        "comfy-api-simplified",
        "1.6.0",
        driver!("drive_comfy_api_simplified.py"),
        &[Way::Basic, Way::Connect],
    ),
    pypi(
        "comfyui-xy",
        "0.3.0",
        driver!("drive_comfyui_xy.py"),
        &[Way::Basic, Way::Connect],
    ),
    pypi(
        "comfyui-async-api-tool",
        "0.1.0",
        driver!("drive_comfyui_async_api_tool.py"),
        &[Way::Bearer, Way::ApiKey, Way::Connect],
    ),
    pypi(
        "comfykit",
        "0.1.12",
        driver!("drive_comfykit.py"),
        &[Way::Bearer, Way::Cookie, Way::Connect],
    ),
    pypi(
        "comfy-cli",
        "1.23.0",
        driver!("drive_comfy_cli.py"),
        CONNECT,
    ),
    pypi(
        "comfyui-utils",
        "0.0.1",
        driver!("drive_comfyui_utils.py"),
        CONNECT,
    ),
    pypi(
        "comfyui-workflow-client",
        "0.1.0",
        driver!("drive_comfyui_workflow_client.py"),
        CONNECT,
    ),
    pypi(
        "comfyui-autograph",
        "2.3.0",
        driver!("drive_comfyui_autograph.py"),
        CONNECT,
    ),
    pypi(
        "comfy-toolkit",
        "0.1.0",
        driver!("drive_comfy_toolkit.py"),
        CONNECT,
    ),
    pypi("comfyapi", "2.0.1", driver!("drive_comfyapi.py"), CONNECT),
    npm(
        "@saintno/comfyui-sdk",
        "0.3.1",
        driver!("drive_saintno.mjs"),
        &[Way::Bearer, Way::Basic],
    ),
    npm(
        "@stable-canvas/comfyui-client",
        "1.5.9",
        driver!("drive_stable_canvas.mjs"),
        &[Way::Bearer, Way::Connect],
    ),
    npm(
        "comfy-ui-client",
        "0.1.2",
        driver!("drive_comfy_ui_client.mjs"),
        CONNECT,
    ),
];

const fn pypi(
    name: &'static str,
    version: &'static str,
    driver: (&'static str, &'static str),
    ways: &'static [Way],
) -> Client {
    Client {
        name,
        version,
        registry: Registry::Pypi,
        besides: &[],
        driver,
        ways,
    }
}

const fn npm(
    name: &'static str,
    version: &'static str,
    driver: (&'static str, &'static str),
    ways: &'static [Way],
) -> Client {
    Client {
        registry: Registry::Npm,
        besides: &["ws@8.18.0"],
        ..pypi(name, version, driver, ways)
    }
}
