//! The graphics cards that ComfyUI can be installed for, the one of this computer first.

use crate::nvidia_smi;
use serde::{Deserialize, Serialize};
use std::env;
use utoipa::ToSchema;

/// Vendors of PCI devices, as the PCI database numbers them.
const PCI_NVIDIA: &str = "0x10de";
const PCI_AMD: &str = "0x1002";

/// The graphics card that ComfyUI shall use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum GpuKind {
    Nvidia,
    Amd,
    Cpu,
    Mac,
}

impl GpuKind {
    /// As comfy-cli names it.
    pub(super) fn flag(self) -> &'static str {
        match self {
            Self::Nvidia => "--nvidia",
            Self::Amd => "--amd",
            Self::Cpu => "--cpu",
            Self::Mac => "--m-series",
        }
    }
}

/// Those that comfy-cli knows on this system, the likeliest first.
pub(crate) async fn choices() -> Vec<GpuKind> {
    let has_nvidia = nvidia_smi::ask("--query-gpu=name").await.is_ok();
    let vendors = tokio::task::spawn_blocking(vendors).await;
    let vendors = vendors.unwrap_or_default();
    likeliest_first(env::consts::OS, has_nvidia, vendors.as_deref())
}

/// `vendors`: of all graphics cards, where the system tells of them.
fn likeliest_first(system: &str, has_nvidia: bool, vendors: Option<&[String]>) -> Vec<GpuKind> {
    use GpuKind::{Amd, Cpu, Mac, Nvidia};
    if system == "macos" {
        return vec![Mac, Cpu];
    }
    let has = |vendor: &str| vendors.into_iter().flatten().any(|other| other == vendor);
    if has_nvidia || has(PCI_NVIDIA) {
        vec![Nvidia, Amd, Cpu]
    } else if has(PCI_AMD) {
        vec![Amd, Nvidia, Cpu]
    } else if vendors.is_some() {
        vec![Cpu, Nvidia, Amd]
    } else {
        vec![Nvidia, Amd, Cpu]
    }
}

#[cfg(target_os = "linux")]
fn vendors() -> Option<Vec<String>> {
    let cards = std::fs::read_dir("/sys/class/drm").into_iter().flatten();
    let vendors = cards
        .flatten()
        .filter_map(|card| std::fs::read_to_string(card.path().join("device/vendor")).ok());
    Some(vendors.map(|vendor| vendor.trim().to_owned()).collect())
}

#[cfg(not(target_os = "linux"))]
fn vendors() -> Option<Vec<String>> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_card_of_this_computer_comes_first() {
        let on = |vendors: &[&str]| -> Option<Vec<String>> {
            Some(vendors.iter().map(|&one| one.to_owned()).collect())
        };
        let table = [
            ("linux", false, on(&[]), GpuKind::Cpu),
            ("linux", false, on(&["0x8086"]), GpuKind::Cpu),
            ("linux", false, on(&["0x8086", "0x1002"]), GpuKind::Amd),
            ("linux", false, on(&["0x1002", "0x10de"]), GpuKind::Nvidia),
            ("linux", true, on(&["0x1002"]), GpuKind::Nvidia),
            ("windows", false, None, GpuKind::Nvidia),
            ("macos", false, None, GpuKind::Mac),
        ];
        for (system, has_nvidia, vendors, first) in table {
            let choices = likeliest_first(system, has_nvidia, vendors.as_deref());
            assert_eq!(choices[0], first, "{system} {has_nvidia} {vendors:?}");
            assert!(choices.contains(&GpuKind::Cpu));
            assert_eq!(choices.contains(&GpuKind::Mac), system == "macos");
        }
    }
}
