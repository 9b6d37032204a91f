//! The graphics card, as `nvidia-smi` tells, else as ComfyUI itself does.

use crate::nvidia_smi::{self, NvidiaSmiError};
use serde_json::Value;

/// All cards together.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Gpu {
    /// Of the first, with the number of the others.
    pub(super) name: String,
    /// Of the busiest, 0 to 100.
    pub(super) percent: Option<f32>,
    pub(super) memory: Option<u64>,
    pub(super) memory_total: Option<u64>,
}

/// Asks `nvidia-smi`; after a failure it need not be asked again soon.
pub(super) async fn by_nvidia_smi() -> Result<Gpu, NvidiaSmiError> {
    let text = nvidia_smi::ask("--query-gpu=name,utilization.gpu,memory.used,memory.total").await?;
    parse(&text).ok_or(NvidiaSmiError::NoCard)
}

/// Lines such as `NVIDIA GeForce RTX 4090, 37, 2048, 24564`: percent and mebibytes. What a card
/// does not tell is written in brackets.
fn parse(text: &str) -> Option<Gpu> {
    struct Card<'text> {
        name: &'text str,
        percent: Option<f32>,
        memory: Option<u64>,
        memory_total: Option<u64>,
    }
    let cards: Vec<Card<'_>> = text
        .lines()
        .filter_map(|line| {
            // A name may hold commas; the numbers are the last three.
            let mut parts = line.rsplitn(4, ',').map(str::trim);
            let (total, used, percent) = (parts.next()?, parts.next()?, parts.next()?);
            let bytes = |text: &str| text.parse::<u64>().ok()?.checked_mul(1 << 20);
            Some(Card {
                percent: percent
                    .parse()
                    .ok()
                    .filter(|part| (0.0..=100.0).contains(part)),
                memory: bytes(used),
                memory_total: bytes(total),
                name: parts.next().filter(|name| !name.is_empty())?,
            })
        })
        .collect();
    let first = cards.first()?;
    let sum = |of: fn(&Card<'_>) -> Option<u64>| {
        cards
            .iter()
            .map(of)
            .try_fold(0_u64, |sum, part| sum.checked_add(part?))
    };
    Some(Gpu {
        name: with_others(first.name, cards.len()),
        percent: cards
            .iter()
            .filter_map(|card| card.percent)
            .reduce(f32::max),
        memory: sum(|card| card.memory),
        memory_total: sum(|card| card.memory_total),
    })
}

/// The devices in ComfyUI's `/system_stats`; what it runs on a processor is no graphics card.
pub(super) fn by_comfyui(stats: &Value) -> Option<Gpu> {
    let devices: Vec<&Value> = stats
        .get("devices")?
        .as_array()?
        .iter()
        .filter(|device| device["type"] != "cpu")
        .collect();
    let number = |device: &Value, name: &str| device.get(name).and_then(Value::as_u64);
    let mut total = 0_u64;
    let mut free = 0_u64;
    for device in &devices {
        total = total.checked_add(number(device, "vram_total")?)?;
        free = free.checked_add(number(device, "vram_free")?)?;
    }
    let name = devices.first()?.get("name")?.as_str()?;
    Some(Gpu {
        name: with_others(comfyui_name(name), devices.len()),
        percent: None,
        memory: Some(total.saturating_sub(free)),
        memory_total: Some(total),
    })
}

/// `cuda:0 NVIDIA GeForce RTX 4090 : cudaMallocAsync`, without what comes before and after.
fn comfyui_name(name: &str) -> &str {
    let name = match name.split_once(' ') {
        Some((device, rest)) if device.contains(':') => rest,
        _ => name,
    };
    name.rsplit_once(" : ").map_or(name, |(name, _)| name)
}

fn with_others(name: &str, count: usize) -> String {
    let name: String = name.chars().take(100).collect();
    if count > 1 {
        format!("{name} + {}", count - 1)
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn gpu(name: &str, percent: Option<f32>, memory: Option<u64>, total: Option<u64>) -> Gpu {
        Gpu {
            name: name.to_owned(),
            percent,
            memory: memory.map(|mebibytes| mebibytes << 20),
            memory_total: total.map(|mebibytes| mebibytes << 20),
        }
    }

    #[test]
    fn answers_of_nvidia_smi() {
        for (text, expected) in [
            (
                "NVIDIA GeForce RTX 4090, 37, 2048, 24564\n",
                Some(gpu(
                    "NVIDIA GeForce RTX 4090",
                    Some(37.0),
                    Some(2048),
                    Some(24564),
                )),
            ),
            (
                "Tesla T4, 5, 100, 1000\r\nTesla T4, 90, 200, 1000\r\n",
                Some(gpu("Tesla T4 + 1", Some(90.0), Some(300), Some(2000))),
            ),
            (
                "NVIDIA GB10, [N/A], [N/A], [Not Supported]\n",
                Some(gpu("NVIDIA GB10", None, None, None)),
            ),
            (
                "A, B and C, 1, 2, 3",
                Some(gpu("A, B and C", Some(1.0), Some(2), Some(3))),
            ),
            (
                "Card, NaN, -1, 99999999999999999999",
                Some(gpu("Card", None, None, None)),
            ),
            (
                "Card, inf, 1, 18446744073709551615",
                Some(gpu("Card", None, Some(1), None)),
            ),
            ("No devices were found\n", None),
            (
                "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.",
                None,
            ),
            (", 1, 2, 3", None),
            ("", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn answers_of_comfyui() {
        let device = |kind: &str, name: &str, total: u64, free: u64| json!({"name": name, "type": kind, "vram_total": total, "vram_free": free});
        for (devices, expected) in [
            (
                json!([device(
                    "cuda",
                    "cuda:0 NVIDIA GeForce RTX 3060 : cudaMallocAsync",
                    12 << 20,
                    8 << 20
                )]),
                Some(gpu("NVIDIA GeForce RTX 3060", None, Some(4), Some(12))),
            ),
            (
                json!([device("mps", "mps", 4 << 20, 1 << 20)]),
                Some(gpu("mps", None, Some(3), Some(4))),
            ),
            (json!([device("cpu", "cpu", 12, 8)]), None),
            (json!([{"type": "cuda", "name": "cuda:0"}]), None),
            (json!([]), None),
            (json!("x"), None),
        ] {
            let stats = json!({"devices": devices});
            assert_eq!(by_comfyui(&stats), expected, "{stats}");
        }
        assert_eq!(by_comfyui(&json!(null)), None);
    }
}
