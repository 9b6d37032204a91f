//! Whether something is what was recorded: same shape, same types, and same values except where they are
//! bound to differ from run to run.

use crate::exceptions::{self, Rule};
use crate::server::Kind;
use serde_json::Value;
use std::collections::HashMap;

/// Numbers that differ from run to run; their kind (integer or float) does not.
const VOLATILE_NUMBERS: &[&str] = &[
    "timestamp",
    "create_time",
    "execution_start_time",
    "execution_end_time",
    "modified",
    "created",
    "ram_total",
    "ram_free",
    "vram_total",
    "vram_free",
    "torch_vram_total",
    "torch_vram_free",
];

/// Recorded identifiers and what they are in this run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    known: HashMap<String, String>,
}

impl Names {
    pub(crate) fn learn(&mut self, recorded: &str, live: &str) {
        self.known.insert(recorded.to_owned(), live.to_owned());
    }

    /// A recorded text as it would read in this run.
    pub(crate) fn apply(&self, text: &str) -> String {
        let mut out = text.to_owned();
        for (recorded, live) in &self.known {
            if out.contains(recorded.as_str()) {
                out = out.replace(recorded.as_str(), live);
            }
        }
        out
    }

    pub(crate) fn apply_all(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.apply(text)),
            Value::Array(items) => {
                Value::Array(items.iter().map(|item| self.apply_all(item)).collect())
            }
            Value::Object(map) => Value::Object(
                map.iter()
                    .map(|(key, value)| (self.apply(key), self.apply_all(value)))
                    .collect(),
            ),
            other => other.clone(),
        }
    }
}

/// Collects the differences of one exchange.
#[derive(Debug)]
pub(crate) struct Comparison<'a> {
    pub(crate) kind: Kind,
    pub(crate) file: &'a str,
    pub(crate) exchange: usize,
    pub(crate) names: &'a mut Names,
    pub(crate) differences: Vec<String>,
    /// Exceptions that were needed.
    pub(crate) used: Vec<usize>,
}

impl Comparison<'_> {
    fn rule(&mut self, place: &str) -> Option<Rule> {
        let (index, rule) = exceptions::find(self.kind, self.file, self.exchange, place)?;
        self.used.push(index);
        Some(rule)
    }

    fn differ(
        &mut self,
        place: &str,
        recorded: impl std::fmt::Display,
        live: impl std::fmt::Display,
    ) {
        let cut = |text: String| {
            if text.chars().count() > 300 {
                text.chars().take(300).collect()
            } else {
                text
            }
        };
        self.differences.push(format!(
            "{place}: recorded {}, got {}",
            cut(recorded.to_string()),
            cut(live.to_string())
        ));
    }

    /// Compares two plain values at a place.
    pub(crate) fn plain<T: PartialEq + std::fmt::Debug>(
        &mut self,
        place: &str,
        recorded: &T,
        live: &T,
    ) {
        if recorded != live && self.rule(place).is_none() {
            self.differ(place, format!("{recorded:?}"), format!("{live:?}"));
        }
    }

    /// Compares two sequences and tells where they part.
    pub(crate) fn order(&mut self, place: &str, recorded: &[String], live: &[String]) {
        if recorded == live || self.rule(place).is_some() {
            return;
        }
        let at = recorded
            .iter()
            .zip(live)
            .take_while(|(before, now)| before == now)
            .count();
        let from = at.saturating_sub(3);
        let part = |all: &[String]| {
            format!(
                "{} with {:?} at {from}",
                all.len(),
                &all[from..all.len().min(at + 4)]
            )
        };
        self.differ(place, part(recorded), part(live));
    }

    /// Compares JSON, and learns what the recorded identifiers are now.
    pub(crate) fn json(&mut self, place: &str, recorded: &Value, live: &Value) {
        match (recorded, live) {
            (Value::Object(recorded), Value::Object(live)) => self.objects(place, recorded, live),
            (Value::Array(recorded), Value::Array(live)) => self.arrays(place, recorded, live),
            (Value::String(recorded), Value::String(live)) => self.text(place, recorded, live),
            // Tracebacks were cut to their count.
            (Value::String(recorded), Value::Array(live))
                if recorded.contains("traceback entries") =>
            {
                if !live.iter().all(Value::is_string) {
                    self.differ(place, recorded, "a list of other things");
                }
            }
            (Value::Number(recorded), Value::Number(live)) => {
                let key = place.rsplit('/').next().unwrap_or_default();
                let same_kind = recorded.is_f64() == live.is_f64();
                let same = VOLATILE_NUMBERS.contains(&key) || recorded == live;
                if !(same_kind && same) && self.rule(place).is_none() {
                    self.differ(place, recorded, live);
                }
            }
            (recorded, live) => {
                if recorded != live && self.rule(place).is_none() {
                    self.differ(place, recorded, live);
                }
            }
        }
    }

    fn objects(
        &mut self,
        place: &str,
        recorded: &serde_json::Map<String, Value>,
        live: &serde_json::Map<String, Value>,
    ) {
        if matches!(self.rule(place), Some(Rule::Any | Rule::SameType)) {
            return;
        }
        let mut matched = Vec::new();
        for (index, (key, value)) in recorded.iter().enumerate() {
            if key == "<more>" {
                continue;
            }
            let now = self.names.apply(key);
            // A key that is an identifier nobody has seen yet is taken by its place.
            let found = live.get_key_value(&now).or_else(|| {
                live.iter()
                    .nth(index)
                    .filter(|(live_key, _)| dynamic(&now).is_some() && dynamic(live_key).is_some())
            });
            match found {
                Some((live_key, live_value)) => {
                    if *live_key != now {
                        self.names.learn(key, live_key);
                    }
                    matched.push(live_key.clone());
                    self.json(&format!("{place}/{key}"), value, live_value);
                }
                None => {
                    let place = format!("{place}/{key}");
                    if self.rule(&place).is_none() {
                        self.differ(&place, "a value", "nothing");
                    }
                }
            }
        }
        if recorded.contains_key("<more>") {
            return;
        }
        for key in live.keys().filter(|key| !matched.contains(key)) {
            let place = format!("{place}/{key}");
            if self.rule(&place).is_none() {
                self.differ(&place, "nothing", "a value");
            }
        }
    }

    fn arrays(&mut self, place: &str, recorded: &[Value], live: &[Value]) {
        let rest = recorded
            .last()
            .and_then(Value::as_str)
            .and_then(|text| text.strip_prefix("<+")?.strip_suffix(" items>"));
        let shown = if rest.is_some() {
            &recorded[..recorded.len() - 1]
        } else {
            recorded
        };
        match self.rule(place) {
            Some(Rule::Any) => return,
            Some(Rule::SameType) => {
                if let Some(first) = shown.first() {
                    let wrong = live.iter().find(|item| {
                        std::mem::discriminant(*item) != std::mem::discriminant(first)
                    });
                    if let Some(wrong) = wrong {
                        self.differ(place, first, wrong);
                    }
                }
                return;
            }
            Some(Rule::MayLack) | None => {}
        }
        let expected = shown.len()
            + rest
                .and_then(|rest| rest.parse::<usize>().ok())
                .unwrap_or(0);
        if expected != live.len() {
            self.differ(
                &format!("{place} (length)"),
                expected,
                format!("{} {live:?}", live.len()),
            );
        }
        for (index, (recorded, live)) in shown.iter().zip(live).enumerate() {
            self.json(&format!("{place}/{index}"), recorded, live);
        }
    }

    /// Compares texts; identifiers in them may differ, but must stay the same ones.
    pub(crate) fn text(&mut self, place: &str, recorded: &str, live: &str) {
        if recorded.contains("traceback entries") || recorded.contains("<cut>") {
            return;
        }
        let whole = recorded
            .rfind("...<+")
            .filter(|_| recorded.ends_with("chars>"));
        let recorded_start = whole.map_or(recorded, |at| &recorded[..at]);
        let expected = self.names.apply(recorded_start);
        if let Some(learned) = align(&expected, live, whole.is_some()) {
            for (old, new) in learned {
                self.names.learn(&old, &new);
            }
        } else if self.rule(place).is_none() {
            self.differ(place, expected, live);
        }
    }
}

/// Walks along both texts. Where both have an identifier of the same form the pair is learned; all else has
/// to be equal. With `open` the live text may go on.
fn align(expected: &str, live: &str, open: bool) -> Option<Vec<(String, String)>> {
    let (mut expected, mut live) = (expected, live);
    let mut learned = Vec::new();
    loop {
        match (dynamic(expected), dynamic(live)) {
            (Some(length), Some(other)) if length == other => {
                let (old, rest) = expected.split_at(length);
                let (new, live_rest) = live.split_at(length);
                if old != new {
                    learned.push((old.to_owned(), new.to_owned()));
                }
                (expected, live) = (rest, live_rest);
                continue;
            }
            _ => {}
        }
        let mut left = expected.chars();
        let mut right = live.chars();
        match (left.next(), right.next()) {
            (None, None) => return Some(learned),
            (None, Some(_)) if open => return Some(learned),
            (Some(a), Some(b)) if a == b => (expected, live) = (left.as_str(), right.as_str()),
            _ => return None,
        }
    }
}

/// The length of the identifier that a text begins with: a UUID, 32 hexadecimal digits, a time, or the name
/// of a temporary picture.
fn dynamic(text: &str) -> Option<usize> {
    let form = |pattern: &str| {
        let bytes = text.as_bytes();
        let fits = bytes.len() >= pattern.len()
            && pattern.bytes().zip(bytes).all(|(want, have)| match want {
                b'x' => have.is_ascii_digit() || (b'a'..=b'f').contains(have),
                b'9' => have.is_ascii_digit(),
                b'a' => have.is_ascii_lowercase(),
                other => other == *have,
            });
        fits.then_some(pattern.len())
    };
    form("xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx")
        .or_else(|| form("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"))
        .or_else(|| form("9999-99-99T99:99:99.999999"))
        .or_else(|| {
            text.strip_prefix("ComfyUI_temp_")
                .and_then(|_| form_after("ComfyUI_temp_", text))
        })
}

fn form_after(prefix: &str, text: &str) -> Option<usize> {
    let letters = text.as_bytes().get(prefix.len()..prefix.len() + 5)?;
    letters
        .iter()
        .all(u8::is_ascii_lowercase)
        .then_some(prefix.len() + 5)
}
