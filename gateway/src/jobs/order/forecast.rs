//! When everybody's jobs will start, if all take as long as expected.

use super::entry::{Entry, JobId};
use super::{Candidate, Fair, Place, Rules, Share, Urgency, choose};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, btree_map};

/// A user's line, as far as it has been played through.
struct Ahead<'a> {
    jobs: btree_map::Values<'a, Place, Entry>,
    head: &'a Entry,
    share: Share,
}

impl<'a> Ahead<'a> {
    fn candidate(&self, owner: usize, now: u64) -> Candidate<'a> {
        Candidate::new(owner, self.head, self.share, now)
    }
}

impl Fair {
    /// Everybody's jobs in the order in which they would start if each took `expected_ms` and all
    /// could run, `slots` at once, with the wait until the start in milliseconds.
    /// `remaining_of_running`: after how many milliseconds the busy slots become free. At most
    /// `limit` jobs are told.
    pub(crate) fn forecast(
        &self,
        rules: &Rules,
        expected_ms: &dyn Fn(&Entry) -> u64,
        remaining_of_running: &[u64],
        slots: usize,
        limit: usize,
    ) -> Vec<(JobId, u64)> {
        let mut told = Vec::with_capacity(limit.min(self.len()));
        let mut lines: Vec<Ahead<'_>> = self
            .users
            .values()
            .filter_map(|line| {
                let mut jobs = line.waiting.values();
                Some(Ahead {
                    head: jobs.next()?,
                    jobs,
                    share: line.share,
                })
            })
            .collect();
        let mut now = self.now;
        let slots = slots.max(1).max(remaining_of_running.len());
        let mut free: BinaryHeap<Reverse<(u64, usize)>> = (0..slots)
            .map(|slot| {
                let at = remaining_of_running.get(slot).copied().unwrap_or(0);
                Reverse((at, slot))
            })
            .collect();
        let mut loaded: Vec<Option<u64>> = vec![None; slots];
        while told.len() < limit && !lines.is_empty() {
            let Some(Reverse((at, slot))) = free.pop() else {
                break;
            };
            let candidates = lines
                .iter()
                .enumerate()
                .map(|(owner, line)| line.candidate(owner, now))
                .collect();
            let Some((chosen, in_turn)) = choose(candidates, rules, loaded[slot], expected_ms)
            else {
                break;
            };
            let entry = chosen.entry;
            let expected = expected_ms(entry);
            told.push((entry.id, at));
            free.push(Reverse((at.saturating_add(expected), slot)));
            loaded[slot] = entry.model.or(loaded[slot]);
            if entry.urgency == Urgency::First {
                // Nobody's turn comes or goes by it.
            } else if in_turn {
                now = now.max(chosen.share.tag);
            } else {
                for line in &mut lines {
                    if line.candidate(0, now).rank() < chosen.rank() {
                        line.share.pass(expected);
                    }
                }
            }
            let line = &mut lines[chosen.owner];
            line.share.begin(chosen.share.tag, expected);
            match line.jobs.next() {
                Some(head) => line.head = head,
                None => {
                    lines.swap_remove(chosen.owner);
                }
            }
        }
        told
    }
}
