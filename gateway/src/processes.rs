//! Which process has started which, on this machine.

use std::collections::HashMap;
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, RefreshKind, System};

/// Longest way from a process to its first ancestor that is followed: a process id that is used
/// again may close a circle.
const GENERATIONS: usize = 64;

/// The parent of each process; of the first ones there is none.
#[derive(Debug)]
pub(crate) struct Parents(HashMap<u32, Option<u32>>);

impl Parents {
    /// Of the processes that `system` has looked at last.
    pub(crate) fn of(system: &System) -> Self {
        system
            .processes()
            .iter()
            .map(|(id, process)| (id.as_u32(), process.parent().map(Pid::as_u32)))
            .collect()
    }

    /// Of all that run now; `None` where the system tells nothing. Blocks for milliseconds.
    pub(crate) fn look() -> Option<Self> {
        let mut system = System::new_with_specifics(RefreshKind::nothing()).ok()?;
        system.refresh_processes_specifics(
            ProcessesToUpdate::All,
            true,
            ProcessRefreshKind::nothing().without_tasks(),
        );
        Some(Self::of(&system))
    }

    /// Whether the process is one of this machine.
    pub(crate) fn has(&self, process: u32) -> bool {
        self.0.contains_key(&process)
    }

    /// Who started it.
    pub(crate) fn parent_of(&self, process: u32) -> Option<u32> {
        self.0.get(&process).copied().flatten()
    }

    /// The process itself and those it descends from, the nearest first.
    pub(crate) fn line_of(&self, process: u32) -> impl Iterator<Item = u32> {
        std::iter::successors(Some(process), |at| self.parent_of(*at)).take(GENERATIONS)
    }
}

impl FromIterator<(u32, Option<u32>)> for Parents {
    fn from_iter<Pairs: IntoIterator<Item = (u32, Option<u32>)>>(pairs: Pairs) -> Self {
        Self(pairs.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_leads_to_the_first_ancestor_and_ends_in_circles() {
        let parents = Parents::from_iter([
            (1, None),
            (10, Some(1)),
            (11, Some(10)),
            (30, Some(31)),
            (31, Some(30)),
        ]);
        let line = |process| parents.line_of(process).collect::<Vec<_>>();
        assert_eq!(line(11), [11, 10, 1]);
        assert_eq!(line(1), [1]);
        assert_eq!(line(99), [99], "not known");
        assert_eq!(parents.line_of(30).count(), GENERATIONS);
        assert!(parents.has(30) && !parents.has(99));
        assert_eq!(parents.parent_of(1), None);
    }

    #[test]
    fn this_process_has_a_parent() {
        let parents = Parents::look().unwrap();
        assert!(parents.parent_of(std::process::id()).is_some());
    }
}
