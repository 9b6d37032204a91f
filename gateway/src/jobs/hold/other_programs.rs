//! Whether another program, such as a game, uses the GPU, so that jobs wait for it.

use crate::app::App;
use crate::engine::gpu_memory_by_process;
use crate::processes::Parents;
use crate::supervisor::EngineState;
use std::collections::{HashMap, HashSet};

/// Memory of other programs on the GPUs from which on jobs wait, bytes: a desktop takes less.
const MUCH: u64 = 512 << 20;
/// Looks in a row that must find so much: a browser takes it for a moment only.
const LOOKS_TO_HOLD: u8 = 2;
/// Looks in a row that must find less before jobs go on.
const LOOKS_TO_RELEASE: u8 = 3;

/// A process that is none of ours and has memory on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Id of the process.
    pub(super) process: u32,
    /// Bytes on all cards together.
    pub(super) memory: u64,
}

/// Remembers the last looks, so that one alone changes nothing.
#[derive(Debug, Default)]
pub(super) struct OtherPrograms {
    is_holding: bool,
    /// Looks in a row that speak against `is_holding`.
    against: u8,
}

impl OtherPrograms {
    /// Whether jobs are to wait, after another look.
    pub(super) fn look(&mut self, seen: &[Seen]) -> bool {
        let total = seen
            .iter()
            .fold(0_u64, |sum, seen| sum.saturating_add(seen.memory));
        if (total >= MUCH) == self.is_holding {
            self.against = 0;
            return self.is_holding;
        }
        self.against += 1;
        let needed = if self.is_holding {
            LOOKS_TO_RELEASE
        } else {
            LOOKS_TO_HOLD
        };
        if self.against >= needed {
            self.is_holding = !self.is_holding;
            self.against = 0;
        }
        self.is_holding
    }
}

/// Processes with memory on NVIDIA cards that are neither engines nor started by them or by this
/// process; empty where there is no such card, or where engines cannot be told from others.
pub(super) async fn seen(app: &App) -> Vec<Seen> {
    // The process of a ComfyUI that somebody else runs is not known.
    let states = app.engines.states();
    let working = states.iter().filter(|state| **state == EngineState::Ready);
    if working.count() > app.engines.processes().len() {
        return Vec::new();
    }
    let on_gpu = gpu_memory_by_process().await;
    if on_gpu.is_empty() {
        return Vec::new();
    }
    let engines = app.engines.processes();
    let parents = tokio::task::spawn_blocking(Parents::look).await;
    match parents.ok().flatten() {
        Some(parents) => others(&on_gpu, &engines, std::process::id(), &parents),
        None => Vec::new(),
    }
}

/// Those of `on_gpu` that descend neither from one of `engines` nor from `own`. What is not among
/// the processes here is left out: in a container, cards name processes as the host does, and
/// engines could not be told from others.
fn others(on_gpu: &HashMap<u32, u64>, engines: &[u32], own: u32, parents: &Parents) -> Vec<Seen> {
    let ours: HashSet<u32> = engines.iter().copied().chain([own]).collect();
    let is_ours = |process| parents.line_of(process).any(|at| ours.contains(&at));
    let mut seen: Vec<Seen> = on_gpu
        .iter()
        .filter(|(process, _)| parents.has(**process) && !is_ours(**process))
        .map(|(process, memory)| Seen {
            process: *process,
            memory: *memory,
        })
        .collect();
    seen.sort_by_key(|seen| seen.process);
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_look_changes_nothing() {
        // `#` is a look that finds much, `.` one that finds little; below, whether jobs wait.
        let table = [
            ("....", "...."),
            ("#.#.#", "....."),
            ("##", ".#"),
            ("####", ".###"),
            ("##..#...", ".######."),
            ("##.....#", ".###...."),
            ("##...##", ".###..#"),
        ];
        for (looks, expected) in table {
            let mut programs = OtherPrograms::default();
            let found: String = looks
                .chars()
                .map(|look| {
                    let memory = if look == '#' { MUCH / 2 } else { MUCH / 2 - 1 };
                    let seen = |process| Seen { process, memory };
                    if programs.look(&[seen(1), seen(2)]) {
                        '#'
                    } else {
                        '.'
                    }
                })
                .collect();
            assert_eq!(found, expected, "{looks}");
        }
        assert!(!OtherPrograms::default().look(&[]));
    }

    #[test]
    fn ours_are_engines_and_what_they_started() {
        // 10 is this process, 11 its engine; 20 is an engine that an earlier run has left.
        let parents = Parents::from_iter([
            (1, None),
            (10, Some(1)),
            (11, Some(10)),
            (12, Some(11)),
            (20, Some(1)),
            (21, Some(20)),
            (30, Some(1)),
            (31, Some(30)),
            (40, Some(41)),
            (41, Some(40)),
        ]);
        let others = |on_gpu: &[u32]| -> Vec<u32> {
            let on_gpu = on_gpu.iter().map(|process| (*process, 5)).collect();
            let seen = others(&on_gpu, &[11, 20], 10, &parents);
            assert!(seen.iter().all(|seen| seen.memory == 5));
            seen.iter().map(|seen| seen.process).collect()
        };
        assert!(others(&[10, 11, 12, 20, 21]).is_empty());
        assert_eq!(others(&[12, 30, 31, 99]), [30, 31]);
        assert_eq!(others(&[40, 1]), [1, 40]);
        assert!(others(&[]).is_empty());
    }
}
