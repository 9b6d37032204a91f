//! Processor and memory of process trees.

use crate::processes::Parents;
use std::collections::HashSet;
use sysinfo::{MemoryRefreshKind, ProcessRefreshKind, ProcessesToUpdate, RefreshKind, System};

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
        let parents = Parents::of(system);
        let roots: HashSet<u32> = engines
            .iter()
            .map(|engine| guard_of(*engine, std::process::id(), &parents))
            .collect();
        let mut load = Load {
            memory_total: system.total_memory(),
            ..Load::default()
        };
        for (id, process) in system.processes() {
            if parents.line_of(id.as_u32()).any(|at| roots.contains(&at)) {
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

/// The process of ours under which an engine runs; the engine itself when it is no child of ours.
fn guard_of(engine: u32, own: u32, parents: &Parents) -> u32 {
    parents
        .line_of(engine)
        .find(|at| parents.parent_of(*at) == Some(own))
        .unwrap_or(engine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_begins_with_its_guard() {
        let parents = [(10, 1), (11, 10), (12, 11), (20, 1), (30, 31), (31, 30)];
        let parents = Parents::from_iter(parents.map(|(process, parent)| (process, Some(parent))));
        assert_eq!(guard_of(12, 10, &parents), 11);
        assert_eq!(guard_of(11, 10, &parents), 11);
        assert_eq!(guard_of(12, 5, &parents), 12);
        assert_eq!(guard_of(30, 5, &parents), 30);
    }

    #[test]
    fn this_process_uses_memory() {
        let load = Meter::new().measure(&[std::process::id()]).unwrap();
        assert!(load.memory > 100_000 && load.memory_total > load.memory);
        assert!((0.0..=100.0).contains(&load.cpu_percent));
        assert_eq!(Meter::new().measure(&[]).unwrap().memory, 0);
    }
}
