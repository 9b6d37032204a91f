//! What Python does with values, as far as ComfyUI's check shows it.

use crate::jobs::prompt::Json;
use serde_json::Number;
use std::fmt::Write as _;

/// Why a value does not become a number.
pub(super) enum Failed {
    /// What Python says of it.
    Certainly(String),
    /// Python might read it.
    Perhaps,
}

/// Python's `int()`.
pub(super) fn int(value: &Json<'_>) -> Result<Number, Failed> {
    match value {
        Json::Boolean(value) => Ok(u8::from(*value).into()),
        Json::Number(number) if number.is_i64() || number.is_u64() => Ok(number.clone()),
        Json::Number(number) => {
            let whole = number.as_f64().map_or(0.0, f64::trunc);
            Number::from_i128(whole as i128)
                .filter(|_| whole.abs() < 1e15)
                .ok_or(Failed::Perhaps)
        }
        Json::Text(text) => {
            let digits = text.trim().trim_start_matches(['+', '-']);
            let is_number = digits.bytes().any(|byte| byte.is_ascii_digit());
            if is_number {
                let number = text.trim().parse::<i64>().map(Number::from);
                return number.map_err(|_| failed_unless_odd(text, "int"));
            }
            Err(failed_unless_odd(text, "int"))
        }
        other => Err(Failed::Certainly(format!(
            "int() argument must be a string, a bytes-like object or a real number, not '{}'",
            type_name(other)
        ))),
    }
}

/// Python's `float()`.
pub(super) fn float(value: &Json<'_>) -> Result<f64, Failed> {
    match value {
        Json::Boolean(value) => Ok(f64::from(u8::from(*value))),
        Json::Number(number) => number.as_f64().ok_or(Failed::Perhaps),
        Json::Text(text) => {
            let number = text.trim().parse::<f64>().ok();
            match number.filter(|number| number.is_finite()) {
                Some(number) => Ok(number),
                None if number.is_some() => Err(Failed::Perhaps),
                None => Err(failed_unless_odd(text, "float")),
            }
        }
        other => Err(Failed::Certainly(format!(
            "float() argument must be a string or a real number, not '{}'",
            type_name(other)
        ))),
    }
}

/// Other digits than ours, `_` between them and numbers of any length are numbers to Python.
fn failed_unless_odd(text: &str, kind: &str) -> Failed {
    let digits = text.trim().trim_start_matches(['+', '-']);
    let is_long = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !text.is_ascii() || text.contains('_') || is_long {
        return Failed::Perhaps;
    }
    let shown = repr(&Json::Text(text.into()));
    Failed::Certainly(if kind == "int" {
        format!("invalid literal for int() with base 10: {shown}")
    } else {
        format!("could not convert string to float: {shown}")
    })
}

fn type_name(value: &Json<'_>) -> &'static str {
    match value {
        Json::Null => "NoneType",
        Json::Boolean(_) => "bool",
        Json::Number(_) => "float",
        Json::Text(_) => "str",
        Json::List(_) => "list",
        Json::Object(_) => "dict",
    }
}

/// Python's `str()`.
pub(super) fn text(value: &Json<'_>) -> String {
    match value {
        Json::Text(text) => text.to_string(),
        other => repr(other),
    }
}

/// Python's `repr()`, near enough for a message.
pub(super) fn repr(value: &Json<'_>) -> String {
    match value {
        Json::Null => "None".to_owned(),
        Json::Boolean(true) => "True".to_owned(),
        Json::Boolean(false) => "False".to_owned(),
        Json::Number(value) => number(value),
        Json::Text(text) => quoted(text),
        Json::List(items) => format!(
            "[{}]",
            items.iter().map(repr).collect::<Vec<_>>().join(", ")
        ),
        Json::Object(members) => {
            let members: Vec<String> = members
                .iter()
                .map(|(name, value)| format!("{}: {}", quoted(name), repr(value)))
                .collect();
            format!("{{{}}}", members.join(", "))
        }
    }
}

/// How Python writes a number.
pub(super) fn number(number: &Number) -> String {
    let value = match number.as_f64() {
        Some(value) if number.is_f64() => value,
        _ => return number.to_string(),
    };
    if value != 0.0 && !(1e-4..1e16).contains(&value.abs()) {
        let short = format!("{value:e}");
        let (digits, exponent) = short.split_once('e').unwrap_or((&short, "0"));
        let (sign, size) = match exponent.strip_prefix('-') {
            Some(size) => ('-', size),
            None => ('+', exponent),
        };
        return format!("{digits}e{sign}{size:0>2}");
    }
    format!("{value:?}")
}

/// How Python writes a text within a list.
pub(super) fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let mut written = String::from(quote);
    for letter in text.chars() {
        match letter {
            '\n' => written.push_str("\\n"),
            '\r' => written.push_str("\\r"),
            '\t' => written.push_str("\\t"),
            '\\' => written.push_str("\\\\"),
            letter if letter == quote => {
                written.push('\\');
                written.push(letter);
            }
            letter if letter.is_ascii_control() => {
                let _ = write!(written, "\\x{:02x}", u32::from(letter));
            }
            letter => written.push(letter),
        }
    }
    written.push(quote);
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Json<'_> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn values_are_written_as_python_writes_them() {
        for (value, expected) in [
            ("null", "None"),
            ("true", "True"),
            ("5", "5"),
            ("18446744073709551615", "18446744073709551615"),
            ("5.0", "5.0"),
            ("0.1", "0.1"),
            ("1e16", "1e+16"),
            ("1.5e300", "1.5e+300"),
            ("1e-5", "1e-05"),
            ("0.0001", "0.0001"),
            ("123456789012345.0", "123456789012345.0"),
            ("\"it's\"", "\"it's\""),
            ("\"a\\nb\"", "'a\\nb'"),
            ("[1,\"a\",{\"b\":null}]", "[1, 'a', {'b': None}]"),
        ] {
            assert_eq!(repr(&json(value)), expected, "{value}");
        }
    }

    #[test]
    fn numbers_are_read_as_python_reads_them() {
        fn said<Value: ToString>(read: Result<Value, Failed>) -> String {
            match read {
                Ok(value) => value.to_string(),
                Err(Failed::Certainly(message)) => message,
                Err(Failed::Perhaps) => "perhaps".to_owned(),
            }
        }
        for (value, expected) in [
            ("64", "64"),
            ("64.9", "64"),
            ("-64.9", "-64"),
            ("true", "1"),
            ("\" 64 \"", "64"),
            ("\"+6\"", "6"),
            ("\"1_000\"", "perhaps"),
            ("\"٣\"", "perhaps"),
            ("\"99999999999999999999\"", "perhaps"),
            ("\"abc\"", "invalid literal for int() with base 10: 'abc'"),
            ("\"6.5\"", "invalid literal for int() with base 10: '6.5'"),
            ("\"\"", "invalid literal for int() with base 10: ''"),
        ] {
            assert_eq!(said(int(&json(value))), expected, "{value}");
        }
        for (value, expected) in [
            ("4", "4"),
            ("\"0.5\"", "0.5"),
            ("\" 1e3 \"", "1000"),
            ("\"inf\"", "perhaps"),
            ("\"x\"", "could not convert string to float: 'x'"),
            (
                "null",
                "float() argument must be a string or a real number, not 'NoneType'",
            ),
        ] {
            assert_eq!(said(float(&json(value))), expected, "{value}");
        }
    }
}
