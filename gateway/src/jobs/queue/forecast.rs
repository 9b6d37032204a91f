//! What jobs are expected to take, and so when those that wait will start.

use super::milliseconds;
use crate::accounts::UserId;
use crate::jobs::order::{Entry, Fair, JobId, Rules};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// What a job is expected to take while nothing was measured.
const UNKNOWN_JOB: Duration = Duration::from_secs(10);
/// Part of a new measurement in the running average: one of so many.
const AVERAGE_OVER: u64 = 4;
/// Users of whom an average is kept.
const MAX_AVERAGES: usize = 10_000;
/// Jobs that a forecast covers.
const MAX_JOBS: usize = 2000;

/// Waiting jobs in the expected order, with the milliseconds until each starts.
pub(crate) type Forecast = Arc<Vec<(JobId, u64)>>;

/// Running averages of what jobs have taken, milliseconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Averages {
    by_user: HashMap<UserId, u64>,
    overall: Option<u64>,
}

impl Averages {
    /// A job has taken so long.
    pub(super) fn measure(&mut self, user: &UserId, taken_ms: u64) {
        let mix = |known: u64| {
            known
                .saturating_mul(AVERAGE_OVER - 1)
                .saturating_add(taken_ms)
                / AVERAGE_OVER
        };
        // Users come and go; what is known of those who are gone is worth little.
        if self.by_user.len() > MAX_AVERAGES {
            self.by_user.clear();
        }
        self.by_user
            .entry(user.clone())
            .and_modify(|own| *own = mix(*own))
            .or_insert(taken_ms);
        self.overall = Some(self.overall.map_or(taken_ms, mix));
    }

    /// What the next job of a user is expected to take, milliseconds.
    pub(super) fn expected(&self, user: &UserId) -> u64 {
        self.by_user
            .get(user)
            .copied()
            .or(self.overall)
            .unwrap_or(milliseconds(UNKNOWN_JOB))
    }
}

/// The line as it stands at one moment, to be thought ahead without holding it up.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) fair: Fair,
    pub(super) rules: Rules,
    pub(super) averages: Averages,
    /// Of each running job: milliseconds until it is expected to end.
    pub(super) remaining: Vec<u64>,
    pub(super) slots: usize,
}

impl Snapshot {
    pub(super) fn forecast(&self) -> Forecast {
        let expected = |entry: &Entry| self.averages.expected(&entry.user);
        Arc::new(self.fair.forecast(
            &self.rules,
            &expected,
            &self.remaining,
            self.slots,
            MAX_JOBS,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::order::Urgency;

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    #[test]
    fn what_is_expected_follows_what_was_measured() {
        let (anna, bert) = (user("anna"), user("bert"));
        let mut averages = Averages::default();
        assert_eq!(averages.expected(&anna), 10_000, "nothing is known");
        averages.measure(&anna, 4000);
        assert_eq!(averages.expected(&anna), 4000, "the first counts whole");
        assert_eq!(
            averages.expected(&bert),
            4000,
            "others count for a stranger"
        );
        averages.measure(&bert, 8000);
        assert_eq!(averages.expected(&bert), 8000);
        assert_eq!(averages.expected(&user("carl")), 5000);
        averages.measure(&anna, 0);
        assert_eq!(averages.expected(&anna), 3000);
        averages.measure(&anna, u64::MAX);
        assert!(averages.expected(&anna) > 3000);
    }

    #[test]
    fn waiting_jobs_start_when_those_before_them_end() {
        let anna = user("anna");
        let mut fair = Fair::new();
        let id = |number: u128| JobId(uuid::Uuid::from_u128(number));
        for number in [1_u8, 2] {
            fair.add(Entry {
                id: id(number.into()),
                user: anna.clone(),
                number: number.into(),
                seq: number.into(),
                model: None,
                urgency: Urgency::Normal,
            });
        }
        let mut averages = Averages::default();
        averages.measure(&anna, 4000);
        let snapshot = Snapshot {
            fair,
            rules: Rules { batch_ms: 0 },
            averages,
            remaining: vec![1500],
            slots: 1,
        };
        assert_eq!(*snapshot.forecast(), [(id(1), 1500), (id(2), 5500)]);
    }
}
