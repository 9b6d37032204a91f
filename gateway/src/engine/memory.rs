//! Memory of this machine and of process trees.

use crate::processes::Parents;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use sysinfo::{MemoryRefreshKind, ProcessRefreshKind, ProcessesToUpdate, RefreshKind, System};

/// How long a look at all processes is good for.
const FRESH: Duration = Duration::from_secs(2);

/// Memory of this machine, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Built in.
    pub total: u64,
    /// What programs can still get without pushing others out.
    pub available: u64,
}

/// Looks at the machine, keeping what costs time for a moment.
#[derive(Debug)]
pub(super) struct Gauge(Mutex<Look>);

#[derive(Debug)]
struct Look {
    /// `None` where the system tells nothing.
    system: Option<System>,
    trees: HashMap<u32, Tree>,
    at: Option<Instant>,
}

impl Default for Gauge {
    fn default() -> Self {
        Self(Mutex::new(Look {
            system: System::new_with_specifics(RefreshKind::nothing()).ok(),
            trees: HashMap::new(),
            at: None,
        }))
    }
}

impl Gauge {
    /// Memory of the machine now.
    pub(super) fn machine(&self) -> Option<Memory> {
        let mut look = self.0.lock();
        let system = look.system.as_mut()?;
        system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        Some(Memory {
            total: system.total_memory(),
            available: system.available_memory(),
        })
    }

    /// Memory of each of these processes with all that they started; `on_gpu` is what single
    /// processes have there. Takes milliseconds for each hundred processes: not for the way of a
    /// request.
    pub(super) fn trees(&self, roots: &[u32], on_gpu: &HashMap<u32, u64>) -> HashMap<u32, Tree> {
        let mut look = self.0.lock();
        let is_fresh = look.at.is_some_and(|at| at.elapsed() < FRESH)
            && roots.iter().all(|root| look.trees.contains_key(root));
        if !is_fresh && let Some(system) = &mut look.system {
            system.refresh_processes_specifics(
                ProcessesToUpdate::All,
                true,
                ProcessRefreshKind::nothing().with_memory().without_tasks(),
            );
            let parents = Parents::of(system);
            let mut trees: HashMap<u32, Tree> =
                roots.iter().map(|root| (*root, Tree::default())).collect();
            for (id, process) in system.processes() {
                let root = parents.line_of(id.as_u32()).find(|at| roots.contains(at));
                if let Some(root) = root {
                    let tree = trees.entry(root).or_default();
                    tree.memory += process.memory();
                    if let Some(on_gpu) = on_gpu.get(&id.as_u32()) {
                        *tree.gpu_memory.get_or_insert(0) += on_gpu;
                    }
                }
            }
            look.trees = trees;
            look.at = Some(Instant::now());
        }
        look.trees.clone()
    }
}

/// Memory of a process tree, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tree {
    pub(super) memory: u64,
    pub(super) gpu_memory: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_memory_and_this_process_uses_some() {
        let gauge = Gauge::default();
        let machine = gauge.machine().unwrap();
        assert!(machine.total >= machine.available && machine.available > 0);
        let id = std::process::id();
        let trees = gauge.trees(&[id], &HashMap::from([(id, 5)]));
        assert!(trees[&id].memory > 100_000);
        assert_eq!(trees[&id].gpu_memory, Some(5));
    }
}
