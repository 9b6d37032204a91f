//! Jobs as the order sees them: whose they are and where they stand among their owner's.

use crate::accounts::UserId;
use std::cmp::Ordering;
use std::fmt;
use uuid::Uuid;

/// Name of a job, the `prompt_id` of ComfyUI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct JobId(pub(crate) Uuid);

impl JobId {
    /// A new one.
    pub(crate) fn generate() -> Self {
        Self(Uuid::new_v4())
    }

    /// Takes the canonical form only (36 characters, lower case, hyphens): whatever else names the
    /// same UUID would be another key to ComfyUI.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let id = Uuid::try_parse(text).ok()?;
        let mut buffer = Uuid::encode_buffer();
        (id.hyphenated().encode_lower(&mut buffer) == text).then_some(Self(id))
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0.hyphenated(), formatter)
    }
}

/// Where an admin has moved a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Urgency {
    /// Before everything else, in order of arrival.
    First,
    /// In fair order.
    #[default]
    Normal,
    /// After all others.
    Last,
}

/// A waiting job.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) id: JobId,
    pub(crate) user: UserId,
    /// Place among the owner's jobs, ascending; finite.
    pub(crate) number: f64,
    /// Arrival: later jobs have larger ones. A job that is put back keeps its own.
    pub(crate) seq: u64,
    /// Stands for the model that the job loads, if it is known to load one.
    pub(crate) model: Option<u64>,
    pub(crate) urgency: Urgency,
}

impl Entry {
    pub(super) fn place(&self) -> Place {
        let number = match self.urgency {
            // Moved by an admin: in order of arrival.
            Urgency::First => 0.0,
            Urgency::Normal | Urgency::Last => self.number,
        };
        Place {
            urgency: self.urgency,
            // -0.0 and 0.0 are the same number.
            number: Number(number + 0.0),
            seq: self.seq,
            id: self.id,
        }
    }
}

/// Key of a user's own order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) urgency: Urgency,
    number: Number,
    seq: u64,
    id: JobId,
}

#[derive(Clone, Copy, Debug)]
struct Number(f64);

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Number {}

#[cfg(test)]
mod tests {
    use super::JobId;

    #[test]
    fn only_the_canonical_form_names_a_job() {
        let text = "0f8fad5b-d9cb-469f-a165-70867728950e";
        assert_eq!(JobId::parse(text).unwrap().to_string(), text);
        for other in [
            "0F8FAD5B-d9cb-469f-a165-70867728950e",
            "0f8fad5bd9cb469fa16570867728950e",
            "{0f8fad5b-d9cb-469f-a165-70867728950e}",
            "urn:uuid:0f8fad5b-d9cb-469f-a165-70867728950e",
            " 0f8fad5b-d9cb-469f-a165-70867728950e",
            "0f8fad5b-d9cb-469f-a165-70867728950e\n",
            "0f8fad5b-d9cb-469f-a165-70867728950",
            "",
            "a",
        ] {
            assert_eq!(JobId::parse(other), None, "{other:?}");
        }
    }
}
