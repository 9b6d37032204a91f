//! Which process has how much memory on NVIDIA cards, and whether there is room on them.

use crate::nvidia_smi;
use std::collections::HashMap;

/// Bytes by process id; empty where there is no such program or card.
pub(crate) async fn memory_by_process() -> HashMap<u32, u64> {
    let told = nvidia_smi::ask("--query-compute-apps=pid,used_memory").await;
    told.map_or_else(|_| HashMap::new(), |text| parse(&text))
}

/// Whether every card has more than half of its memory free, so that nobody needs to give any back;
/// `false` where that is not known.
pub(super) async fn has_room() -> bool {
    let told = nvidia_smi::ask("--query-gpu=memory.free,memory.total").await;
    told.is_ok_and(|text| is_half_free(&text))
}

fn is_half_free(text: &str) -> bool {
    let mut cards = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .peekable();
    cards.peek().is_some()
        && cards.all(|line| {
            let mut numbers = line.split(',').map(|number| number.trim().parse::<u64>());
            matches!(
                (numbers.next(), numbers.next()),
                (Some(Ok(free)), Some(Ok(total))) if free.saturating_mul(2) > total
            )
        })
}

/// Lines such as `1234, 2048`: process and mebibytes. A process on two cards has two lines.
fn parse(text: &str) -> HashMap<u32, u64> {
    let mut memory = HashMap::new();
    for line in text.lines() {
        if let Some((process, mebibytes)) = line.split_once(',')
            && let (Ok(process), Ok(mebibytes)) = (
                process.trim().parse::<u32>(),
                mebibytes.trim().parse::<u64>(),
            )
        {
            *memory.entry(process).or_default() += mebibytes << 20;
        }
    }
    memory
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_on_all_cards() {
        assert!(is_half_free("20000, 24576\n"));
        assert!(!is_half_free("20000, 24576\n1000, 24576\n"));
        assert!(!is_half_free("[N/A], [N/A]\n"));
        assert!(!is_half_free(""));
    }

    #[test]
    fn lines_of_nvidia_smi() {
        let text = "1234, 2048\n99, [N/A]\n1234, 1\n\nNo running processes found\n";
        assert_eq!(parse(text), HashMap::from([(1234, 2049 << 20)]));
        assert!(parse("").is_empty());
    }
}
