//! Medians, verdicts and the table.

use crate::fixture::WAYS;
use std::fmt::Write as _;

/// A figure that has a target.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) what: &'static str,
    pub(crate) value: f64,
    pub(crate) target: Target,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
}

/// One measurement.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) values: [Option<f64>; WAYS],
    pub(crate) verdicts: Vec<Verdict>,
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) rounds: usize,
    pub(crate) rows: Vec<Row>,
}

/// The middle value; `NaN` of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value that this share of all is at most; `NaN` of none.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    let index = (last as f64 * share).round() as usize;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}

impl Table {
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("Medians of {} interleaved rounds.\n\n", self.rounds);
        text += "| Measured | Direct | Sentinel | nginx | nginx + auth_request | Compared | Target | Met |\n";
        text += "|---|--:|--:|--:|--:|---|---|---|\n";
        for row in &self.rows {
            let _ = write!(text, "| {}, {} |", row.name, row.unit);
            for value in row.values {
                let _ = write!(text, " {} |", value.map_or("–".to_owned(), number));
            }
            if row.verdicts.is_empty() {
                text += " | | |\n";
            }
            for (index, verdict) in row.verdicts.iter().enumerate() {
                if index > 0 {
                    text += "| | | | | |";
                }
                let (target, is_met) = match verdict.target {
                    Target::AtMost(limit) => (format!("≤ {limit}"), verdict.value <= limit),
                    Target::AtLeast(limit) => (format!("≥ {limit}"), verdict.value >= limit),
                };
                let _ = writeln!(
                    text,
                    " {}: {} | {target} | {} |",
                    verdict.what,
                    number(verdict.value),
                    if is_met { "yes" } else { "**no**" }
                );
            }
        }
        text
    }
}
