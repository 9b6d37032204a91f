//! The members of a JSON object as their client wrote them.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt::{self, Write as _};

/// The name of a member.
pub(super) struct Name<'body>(pub(super) Cow<'body, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<Source: Deserializer<'de>>(source: Source) -> Result<Self, Source::Error> {
        source.deserialize_str(NameVisitor)
    }
}

struct NameVisitor;

impl<'de> Visitor<'de> for NameVisitor {
    type Value = Name<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the name of a member")
    }

    fn visit_borrowed_str<Fault>(self, value: &'de str) -> Result<Name<'de>, Fault> {
        Ok(Name(Cow::Borrowed(value)))
    }

    fn visit_str<Fault>(self, value: &str) -> Result<Name<'de>, Fault> {
        Ok(Name(Cow::Owned(value.to_owned())))
    }
}

/// Names, and values as they stand.
#[derive(Debug, Default)]
pub(super) struct Members<'body>(Vec<(Cow<'body, str>, &'body RawValue)>);

impl<'body> Members<'body> {
    /// A member, which is missing afterwards.
    pub(super) fn take(&mut self, name: &str) -> Option<&'body RawValue> {
        let place = self.0.iter().position(|(other, _)| other == name)?;
        Some(self.0.remove(place).1)
    }

    pub(super) fn get(&self, name: &str) -> Option<&'body RawValue> {
        let (_, value) = self.0.iter().find(|(other, _)| other == name)?;
        Some(value)
    }

    /// The members in one text, without the braces of their object.
    pub(super) fn text(&self) -> String {
        let mut text = String::with_capacity(self.0.iter().map(length).sum());
        for (name, value) in &self.0 {
            push_member(&mut text, name, value.get());
        }
        text
    }
}

/// Bytes of a member and its signs.
fn length((name, value): &(Cow<'_, str>, &RawValue)) -> usize {
    name.len() + value.get().len() + "\"\":,".len()
}

/// Adds a member to a text of some. `value` is JSON.
pub(super) fn push_member(text: &mut String, name: &str, value: &str) {
    if !text.is_empty() && !text.ends_with('{') {
        text.push(',');
    }
    // Writing into a text cannot fail, nor can a text fail to be JSON.
    let _ = write!(text, "{}", serde_json::Value::from(name));
    text.push(':');
    text.push_str(value);
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<Source: Deserializer<'de>>(source: Source) -> Result<Self, Source::Error> {
        source.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<Source: MapAccess<'de>>(
        self,
        mut source: Source,
    ) -> Result<Members<'de>, Source::Error> {
        let mut members = Vec::new();
        while let Some((Name(name), value)) = source.next_entry::<Name<'de>, &'de RawValue>()? {
            members.push((name, value));
        }
        Ok(Members(members))
    }
}
