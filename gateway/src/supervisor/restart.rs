//! Whether and when a crashed engine starts again: a pure function of its history.

use std::time::{Duration, Instant};

/// How often and how fast a crashed engine is started again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartPolicy {
    /// `false`: never start again by itself.
    pub enabled: bool,
    /// Pause after the first crash; doubles with each further one.
    pub first_delay: Duration,
    /// The longest pause.
    pub longest_delay: Duration,
    /// This many crashes within [`window`](Self::window) are the end of it.
    pub give_up_after: u32,
    /// See [`give_up_after`](Self::give_up_after).
    pub window: Duration,
    /// An engine that was ready this long has proven itself: older crashes are forgotten.
    pub healthy_after: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            enabled: true,
            first_delay: Duration::from_secs(1),
            longest_delay: Duration::from_secs(30),
            give_up_after: 5,
            window: Duration::from_secs(600),
            healthy_after: Duration::from_secs(600),
        }
    }
}

/// One unasked end of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// When it ended.
    pub at: Instant,
    /// How long it had been ready; zero if it never was.
    pub ready_for: Duration,
    /// Another try cannot help (a package is missing, an argument is unknown …).
    pub permanent: bool,
    /// What happened, in plain words.
    pub reason: String,
}

/// What follows a crash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Start again after a pause.
    Restart {
        /// The pause.
        after: Duration,
    },
    /// Leave it.
    GiveUp {
        /// Why, in plain words.
        reason: String,
    },
}

/// Decides from the crashes so far (oldest first, the last one being the news) what to do.
///
/// An empty history restarts at once.
pub fn next_step(history: &[Exit], policy: &RestartPolicy, now: Instant) -> Step {
    let Some(last) = history.last() else {
        return Step::Restart {
            after: Duration::ZERO,
        };
    };
    if last.permanent {
        return Step::GiveUp {
            reason: last.reason.clone(),
        };
    }
    if !policy.enabled {
        return Step::GiveUp {
            reason: format!(
                "{} Starting it again by itself is switched off.",
                last.reason
            ),
        };
    }
    let mut crashes: u32 = 0;
    for exit in history.iter().rev() {
        if now.saturating_duration_since(exit.at) > policy.window {
            break;
        }
        crashes = crashes.saturating_add(1);
        if exit.ready_for >= policy.healthy_after {
            break;
        }
    }
    // The news itself counts even if the clock stood still for a long sleep of the machine.
    let crashes = crashes.max(1);
    if crashes >= policy.give_up_after {
        return Step::GiveUp {
            reason: format!(
                "{} It ended {crashes} times within {}, so it is not started again by itself.",
                last.reason,
                in_words(policy.window),
            ),
        };
    }
    let factor = 2_u32.saturating_pow(crashes - 1);
    Step::Restart {
        after: policy
            .first_delay
            .saturating_mul(factor)
            .min(policy.longest_delay),
    }
}

/// A duration as people say it: "40 seconds", "1 minute", "10 minutes".
pub(super) fn in_words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (count, unit) = if seconds >= 60 && seconds.is_multiple_of(60) {
        (seconds / 60, "minute")
    } else if seconds == 0 && !duration.is_zero() {
        return format!("{} ms", duration.as_millis());
    } else {
        (seconds, "second")
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(start: Instant, at: u64, ready_for: u64) -> Exit {
        Exit {
            at: start + Duration::from_secs(at),
            ready_for: Duration::from_secs(ready_for),
            permanent: false,
            reason: "It fell over.".to_owned(),
        }
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_end_after_the_limit() {
        let policy = RestartPolicy {
            give_up_after: 8,
            ..RestartPolicy::default()
        };
        let start = Instant::now();
        let mut history = Vec::new();
        let mut pauses = Vec::new();
        for crash in 0..8 {
            history.push(exit(start, crash * 10, 0));
            let now = start + Duration::from_secs(crash * 10);
            match next_step(&history, &policy, now) {
                Step::Restart { after } => pauses.push(after.as_secs()),
                Step::GiveUp { reason } => {
                    assert!(reason.contains("8 times within 10 minutes"), "{reason}");
                }
            }
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
    }

    #[test]
    fn table() {
        let start = Instant::now();
        let policy = RestartPolicy::default();
        let restart = |seconds| Some(Duration::from_secs(seconds));
        // (times of the crashes, how long ready before each, now, expected pause or give up)
        type Row<'a> = (&'a [(u64, u64)], u64, Option<Duration>);
        let table: &[Row<'_>] = &[
            (&[], 0, restart(0)),
            (&[(0, 0)], 0, restart(1)),
            (&[(0, 0), (5, 0)], 5, restart(2)),
            (&[(0, 0), (5, 0), (9, 0), (14, 0)], 14, restart(8)),
            (&[(0, 0), (5, 0), (9, 0), (14, 0), (20, 0)], 20, None),
            // the first ones fall out of the window
            (
                &[(0, 0), (5, 0), (9, 0), (614, 0), (620, 0)],
                620,
                restart(2),
            ),
            // a healthy run wipes the slate
            (
                &[(0, 0), (5, 0), (9, 0), (14, 0), (700, 600)],
                700,
                restart(1),
            ),
            (&[(0, 0), (650, 600), (655, 0)], 655, restart(2)),
            // ready, but not for long: still counted
            (
                &[(0, 50), (60, 50), (120, 50), (180, 50), (240, 50)],
                240,
                None,
            ),
            // asked late, e.g. after the machine slept
            (&[(0, 0)], 5000, restart(1)),
        ];
        for (crashes, now, expected) in table {
            let history: Vec<Exit> = crashes
                .iter()
                .map(|(at, ready)| exit(start, *at, *ready))
                .collect();
            let step = next_step(&history, &policy, start + Duration::from_secs(*now));
            match expected {
                Some(after) => assert_eq!(step, Step::Restart { after: *after }, "{crashes:?}"),
                None => assert!(matches!(step, Step::GiveUp { .. }), "{crashes:?}: {step:?}"),
            }
        }
    }

    #[test]
    fn a_permanent_reason_or_a_switched_off_policy_gives_up_at_once() {
        let start = Instant::now();
        let mut history = vec![exit(start, 0, 0)];
        let off = RestartPolicy {
            enabled: false,
            ..RestartPolicy::default()
        };
        assert!(matches!(
            next_step(&history, &off, start),
            Step::GiveUp { .. }
        ));
        history[0].permanent = true;
        let step = next_step(&history, &RestartPolicy::default(), start);
        assert_eq!(
            step,
            Step::GiveUp {
                reason: "It fell over.".to_owned()
            }
        );
    }

    #[test]
    fn words() {
        let table = [
            (0, "0 seconds"),
            (1, "1 second"),
            (60, "1 minute"),
            (90, "90 seconds"),
        ];
        for (seconds, expected) in table {
            assert_eq!(in_words(Duration::from_secs(seconds)), expected);
        }
        assert_eq!(in_words(Duration::from_millis(250)), "250 ms");
    }
}
