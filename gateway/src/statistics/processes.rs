//! Processor and memory of process trees.

use std::collections::{HashMap, HashSet};
use sysinfo::{MemoryRefreshKind, Pid, ProcessRefreshKind, ProcessesToUpdate, RefreshKind, System};

/// Longest way from a process to its first ancestor that is followed.
const GENERATIONS: usize = 64;

/// What the engines take.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Load {
    /// Of the whole machine, 0 to 100.
    pub(super) cpu_percent: f32,
    pub(super) memory: u64,
    pub(super) memory_total: u64,
}

/// Remembers the last look, from which the use of the processor is told.
#[derive(Debug)]
pub(super) struct Meter {
    /// `None` where the system tells nothing.
    system: Option<System>,
}

impl Meter {
    pub(super) fn new() -> Self {
        Self {
            system: System::new_with_specifics(RefreshKind::nothing()).ok(),
        }
    }

    /// Looks at all processes. Blocks for milliseconds.
    pub(super) fn measure(&mut self, engines: &[u32]) -> Option<Load> {
        let system = self.system.as_mut()?;
        system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        system.refresh_processes_specifics(
            ProcessesToUpdate::All,
            true,
            ProcessRefreshKind::nothing()
                .with_cpu()
                .with_memory()
                .without_tasks(),
        );
        let parents: HashMap<u32, u32> = system
            .processes()
            .iter()
            .filter_map(|(id, process)| Some((id.as_u32(), process.parent().map(Pid::as_u32)?)))
            .collect();
        let roots: HashSet<u32> = engines
            .iter()
            .map(|engine| guard_of(*engine, std::process::id(), &parents))
            .collect();
        let mut load = Load {
            memory_total: system.total_memory(),
            ..Load::default()
        };
        for (id, process) in system.processes() {
            if ancestors(id.as_u32(), &parents).any(|ancestor| roots.contains(&ancestor)) {
                load.cpu_percent += process.cpu_usage();
                load.memory = load.memory.saturating_add(process.memory());
            }
        }
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let processors = f32::from(u16::try_from(processors).unwrap_or(u16::MAX));
        load.cpu_percent = (load.cpu_percent / processors).clamp(0.0, 100.0);
        Some(load)
    }
}

/// A process and those it descends from.
fn ancestors(process: u32, parents: &HashMap<u32, u32>) -> impl Iterator<Item = u32> {
    // A process id that is used again may close a circle.
    std::iter::successors(Some(process), |at| parents.get(at).copied()).take(GENERATIONS)
}

/// The process of ours under which an engine runs; the engine itself when it is no child of ours.
fn guard_of(engine: u32, own: u32, parents: &HashMap<u32, u32>) -> u32 {
    ancestors(engine, parents)
        .find(|at| parents.get(at) == Some(&own))
        .unwrap_or(engine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_begins_with_its_guard() {
        let parents = HashMap::from([(10, 1), (11, 10), (12, 11), (20, 1), (30, 31), (31, 30)]);
        assert_eq!(guard_of(12, 10, &parents), 11);
        assert_eq!(guard_of(11, 10, &parents), 11);
        assert_eq!(guard_of(12, 5, &parents), 12);
        assert_eq!(guard_of(30, 5, &parents), 30);
        assert_eq!(ancestors(12, &parents).collect::<Vec<_>>(), [12, 11, 10, 1]);
        assert_eq!(ancestors(30, &parents).count(), GENERATIONS);
    }

    #[test]
    fn this_process_uses_memory() {
        let load = Meter::new().measure(&[std::process::id()]).unwrap();
        assert!(load.memory > 100_000 && load.memory_total > load.memory);
        assert!((0.0..=100.0).contains(&load.cpu_percent));
        assert_eq!(Meter::new().measure(&[]).unwrap().memory, 0);
    }
}
