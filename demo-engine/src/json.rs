//! JSON as Python's `json` module reads and writes it.
//!
//! ComfyUI accepts and gives back `NaN`, `Infinity`, integers of any length, lone surrogates and
//! nesting of hundreds of levels. A gateway in front has to survive them, so they have to be real here.

mod parser;

use std::fmt::Write as _;

/// Lone surrogates are kept as the last 2048 code points, which nothing else uses.
const SURROGATE_BASE: u32 = 0x0010_F800;

/// One JSON value.
#[derive(Clone, Debug)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    /// The digits as written, since there is no upper bound.
    Integer(String),
    Float(f64),
    Text(String),
    List(Vec<Self>),
    Object(Vec<(String, Self)>),
}

/// The text is not JSON.
#[derive(Debug)]
pub(crate) struct NotJson;

/// Builds a [`Json`] with `serde_json`'s notation.
macro_rules! json {
    ($($tokens:tt)+) => { $crate::json::Json::from(serde_json::json!($($tokens)+)) };
}
pub(crate) use json;

impl Json {
    /// Reads a text.
    pub(crate) fn parse(text: &str) -> Result<Self, NotJson> {
        parser::parse(text)
    }

    /// The value of a key, if this is an object that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(entries) => entries
                .iter()
                .find(|(name, _)| name == key)
                .map(|(_, value)| value),
            _ => None,
        }
    }

    /// The value of a key for change.
    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        match self {
            Self::Object(entries) => entries
                .iter_mut()
                .find(|(name, _)| name == key)
                .map(|(_, value)| value),
            _ => None,
        }
    }

    /// Sets a key of an object; other kinds stay as they are.
    pub(crate) fn set(&mut self, key: &str, value: impl Into<Self>) {
        if let Self::Object(entries) = self {
            match entries.iter_mut().find(|(name, _)| name == key) {
                Some((_, old)) => *old = value.into(),
                None => entries.push((key.to_owned(), value.into())),
            }
        }
    }

    /// Takes a key out of an object.
    pub(crate) fn remove(&mut self, key: &str) -> Option<Self> {
        match self {
            Self::Object(entries) => {
                let index = entries.iter().position(|(name, _)| name == key)?;
                Some(entries.remove(index).1)
            }
            _ => None,
        }
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn as_list(&self) -> Option<&[Self]> {
        match self {
            Self::List(items) => Some(items),
            _ => None,
        }
    }

    pub(crate) fn as_object(&self) -> Option<&[(String, Self)]> {
        match self {
            Self::Object(entries) => Some(entries),
            _ => None,
        }
    }

    pub(crate) fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Integer(digits) => digits.parse().ok(),
            Self::Float(number) => Some(*number),
            Self::Bool(value) => Some(f64::from(u8::from(*value))),
            _ => None,
        }
    }

    pub(crate) fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Integer(digits) => digits.parse().ok(),
            _ => None,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// What Python's `bool()` says.
    pub(crate) fn truthy(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Bool(value) => *value,
            Self::Integer(digits) => digits != "0",
            Self::Float(number) => *number != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::List(items) => !items.is_empty(),
            Self::Object(entries) => !entries.is_empty(),
        }
    }

    /// How many levels of lists and objects there are.
    pub(crate) fn depth(&self) -> usize {
        match self {
            Self::List(items) => 1 + items.iter().map(Self::depth).max().unwrap_or(0),
            Self::Object(entries) => {
                1 + entries
                    .iter()
                    .map(|(_, value)| value.depth())
                    .max()
                    .unwrap_or(0)
            }
            _ => 0,
        }
    }

    /// Python's `==`; `NaN` differs from itself.
    pub(crate) fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Integer(a), Self::Integer(b)) => a == b,
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::List(a), Self::List(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x.equals(y))
            }
            (Self::Object(a), Self::Object(b)) => {
                a.len() == b.len()
                    && a.iter()
                        .all(|(key, value)| other.get(key).is_some_and(|found| value.equals(found)))
            }
            (
                Self::Float(_) | Self::Integer(_) | Self::Bool(_),
                Self::Float(_) | Self::Integer(_) | Self::Bool(_),
            ) => self
                .as_f64()
                .zip(other.as_f64())
                .is_some_and(|(a, b)| a == b),
            _ => false,
        }
    }

    /// Python's `json.dumps` with its defaults.
    pub(crate) fn dump(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(true) => out.push_str("true"),
            Self::Bool(false) => out.push_str("false"),
            Self::Integer(digits) => out.push_str(digits),
            Self::Float(number) => out.push_str(&float_text(*number, "NaN", "Infinity")),
            Self::Text(text) => write_text(text, out),
            Self::List(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push_str(", ");
                    }
                    item.write(out);
                }
                out.push(']');
            }
            Self::Object(entries) => {
                out.push('{');
                for (index, (key, value)) in entries.iter().enumerate() {
                    if index > 0 {
                        out.push_str(", ");
                    }
                    write_text(key, out);
                    out.push_str(": ");
                    value.write(out);
                }
                out.push('}');
            }
        }
    }

    /// Python's `str()`.
    pub(crate) fn python_text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            other => other.python_repr(),
        }
    }

    /// Python's `repr()`.
    pub(crate) fn python_repr(&self) -> String {
        match self {
            Self::Null => "None".to_owned(),
            Self::Bool(true) => "True".to_owned(),
            Self::Bool(false) => "False".to_owned(),
            Self::Integer(digits) => digits.clone(),
            Self::Float(number) => float_text(*number, "nan", "inf"),
            Self::Text(text) => {
                let quote = if text.contains('\'') && !text.contains('"') {
                    '"'
                } else {
                    '\''
                };
                let mut out = String::from(quote);
                for character in text.chars() {
                    match character {
                        '\\' => out.push_str("\\\\"),
                        '\n' => out.push_str("\\n"),
                        '\r' => out.push_str("\\r"),
                        '\t' => out.push_str("\\t"),
                        other if other == quote => {
                            out.push('\\');
                            out.push(other);
                        }
                        other if other.is_control() => {
                            let _ = write!(out, "\\x{:02x}", u32::from(other));
                        }
                        other => out.push(other),
                    }
                }
                out.push(quote);
                out
            }
            Self::List(items) => {
                let inner: Vec<String> = items.iter().map(Self::python_repr).collect();
                format!("[{}]", inner.join(", "))
            }
            Self::Object(entries) => {
                let inner: Vec<String> = entries
                    .iter()
                    .map(|(key, value)| {
                        format!(
                            "{}: {}",
                            Self::Text(key.clone()).python_repr(),
                            value.python_repr()
                        )
                    })
                    .collect();
                format!("{{{}}}", inner.join(", "))
            }
        }
    }
}

impl From<serde_json::Value> for Json {
    fn from(value: serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(value) => Self::Bool(value),
            serde_json::Value::Number(number) if number.is_f64() => {
                Self::Float(number.as_f64().unwrap_or(0.0))
            }
            serde_json::Value::Number(number) => Self::Integer(number.to_string()),
            serde_json::Value::String(text) => Self::Text(text),
            serde_json::Value::Array(items) => {
                Self::List(items.into_iter().map(Self::from).collect())
            }
            serde_json::Value::Object(map) => Self::Object(
                map.into_iter()
                    .map(|(key, value)| (key, Self::from(value)))
                    .collect(),
            ),
        }
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Json {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Json {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<f64> for Json {
    fn from(number: f64) -> Self {
        Self::Float(number)
    }
}

macro_rules! from_integer {
    ($($kind:ty),+) => {$(
        impl From<$kind> for Json {
            fn from(number: $kind) -> Self {
                Self::Integer(number.to_string())
            }
        }
    )+};
}
from_integer!(i64, u32, u64, usize, i128);

impl<T> From<Vec<T>> for Json
where
    Self: From<T>,
{
    fn from(items: Vec<T>) -> Self {
        Self::List(items.into_iter().map(Into::into).collect())
    }
}

impl<T> From<Option<T>> for Json
where
    Self: From<T>,
{
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// The shortest decimal that gives the number back, written as Python does.
fn float_text(number: f64, nan: &str, infinity: &str) -> String {
    if number.is_nan() {
        return nan.to_owned();
    }
    if number.is_infinite() {
        let sign = if number < 0.0 { "-" } else { "" };
        return format!("{sign}{infinity}");
    }
    let scientific = format!("{number:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let power: i32 = exponent.parse().unwrap_or(0);
    if number != 0.0 && !(-4..16).contains(&power) {
        let sign = if power < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", power.abs());
    }
    let plain = format!("{number}");
    if plain.contains('.') {
        plain
    } else {
        format!("{plain}.0")
    }
}

fn write_text(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(character),
            other => {
                let code = u32::from(other);
                if code >= SURROGATE_BASE {
                    let _ = write!(out, "\\u{:04x}", code - SURROGATE_BASE + 0xD800);
                } else {
                    let mut units = [0_u16; 2];
                    for unit in other.encode_utf16(&mut units) {
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
            }
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::Json;

    fn again(text: &str) -> String {
        Json::parse(text).map_or_else(|_| "refused".to_owned(), |value| value.dump())
    }

    #[test]
    fn gives_back_what_python_gives_back() {
        let big = "9".repeat(400);
        let deep = format!("{}{}", "[".repeat(900), "]".repeat(900));
        for (text, expected) in [
            (r#"{"a":1,"a":2}"#, r#"{"a": 2}"#),
            ("[NaN,1e999,-Infinity]", "[NaN, Infinity, -Infinity]"),
            (r#""\ud800""#, r#""\ud800""#),
            (r#""\ud83d\ude00é""#, r#""\ud83d\ude00\u00e9""#),
            (
                "[1.0,0.1,1e22,1e-7,123456.5,-0.0,-0]",
                "[1.0, 0.1, 1e+22, 1e-07, 123456.5, -0.0, 0]",
            ),
            (&big, &big),
            (&deep, &deep),
            ("[01]", "refused"),
            ("{", "refused"),
            ("\u{feff}{}", "refused"),
        ] {
            assert_eq!(again(text), expected, "{text}");
        }
        assert_eq!(again(&"9".repeat(5000)), "refused");
        assert_eq!(
            again(&format!("{}{}", "[".repeat(2000), "]".repeat(2000))),
            "refused"
        );
    }

    #[test]
    fn text_is_what_python_prints() {
        let value = Json::parse(r#"{"a": [1, null, true, "it's", 2.0]}"#);
        assert!(
            value
                .is_ok_and(|value| value.python_text() == r#"{'a': [1, None, True, "it's", 2.0]}"#)
        );
    }
}
