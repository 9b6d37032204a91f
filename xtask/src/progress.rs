//! Everything that this program itself prints.
//!
//! Progress and errors go to standard error; results, and the lines of watched tools, to standard
//! output.
#![expect(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "the one place where this program talks to its user"
)]

use std::time::{Duration, Instant};

use anyhow::Result;

/// The steps of one task, counted and timed.
#[derive(Debug)]
pub(crate) struct Steps {
    total: usize,
    begun: usize,
    failures: Vec<String>,
    skipped: Vec<String>,
    started: Instant,
}

/// How a step that may be left out went.
#[derive(Debug)]
pub(crate) enum Outcome {
    Done,
    /// Left out, for a reason that the user has to read.
    Skipped(String),
}

impl Steps {
    pub(crate) fn new(total: usize) -> Self {
        Self {
            total,
            begun: 0,
            failures: Vec::new(),
            skipped: Vec::new(),
            started: Instant::now(),
        }
    }

    /// Does one step and says how long it took.
    pub(crate) fn step<T>(&mut self, title: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.begun += 1;
        eprintln!("[{}/{}] {title} …", self.begun, self.total);
        let started = Instant::now();
        let result = work();
        let verdict = if result.is_ok() { "done" } else { "failed" };
        // Steps with nothing to do would only make the list longer.
        if result.is_err() || started.elapsed() >= Duration::from_secs(1) {
            eprintln!("      {verdict} after {}", elapsed(started.elapsed()));
        }
        result
    }

    /// Does one step whose failure is remembered and does not keep the later ones from running.
    pub(crate) fn check(&mut self, title: &str, work: impl FnOnce() -> Result<Outcome>) {
        match self.step(title, work) {
            Ok(Outcome::Done) => {}
            Ok(Outcome::Skipped(reason)) => {
                eprintln!("      NOT CHECKED: {reason}");
                self.skipped.push(format!("{title}: {reason}"));
            }
            Err(error) => {
                eprintln!("      {error:#}");
                self.failures.push(format!("{title}: {error:#}"));
            }
        }
    }

    /// Lists what failed and what was left out; true when nothing failed.
    pub(crate) fn summary(&self) -> bool {
        println!();
        for reason in &self.skipped {
            println!("not checked  {reason}");
        }
        for failure in &self.failures {
            println!("FAILED       {failure}");
        }
        println!(
            "{} of {} checks passed, {} failed, {} not checked, in {}.",
            self.begun - self.failures.len() - self.skipped.len(),
            self.begun,
            self.failures.len(),
            self.skipped.len(),
            elapsed(self.started.elapsed())
        );
        self.failures.is_empty()
    }
}

/// Something the user should know although the work goes on.
pub(crate) fn notice(text: &str) {
    eprintln!("      {text}");
}

/// A line of a result, or of a watched tool.
pub(crate) fn line(text: &str) {
    println!("{text}");
}

/// The reason why the task ended early, with all its causes.
pub(crate) fn error(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}

/// A duration as a person writes it: `0.4 s`, `12 s`, `3 min 05 s`.
pub(crate) fn elapsed(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        _ => format!("{} min {:02} s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_for_people() {
        assert_eq!(elapsed(Duration::from_millis(420)), "0.4 s");
        assert_eq!(elapsed(Duration::from_secs(59)), "59 s");
        assert_eq!(elapsed(Duration::from_secs(185)), "3 min 05 s");
    }

    #[test]
    fn a_failed_check_is_remembered_and_the_next_one_still_runs() {
        let mut steps = Steps::new(3);
        let mut ran = false;
        steps.check("first", || anyhow::bail!("broken"));
        steps.check("second", || Ok(Outcome::Skipped("no network".to_owned())));
        steps.check("third", || {
            ran = true;
            Ok(Outcome::Done)
        });
        assert!(ran);
        assert!(!steps.summary());
    }
}
