//! Types of inputs and how values are brought into them.

use crate::json::Json;

/// Whether an output may be linked to an input.
pub(super) fn fits(received: &str, wanted: &str) -> bool {
    let free = |kind: &str| kind == "*" || kind.starts_with("COMFY_MATCHTYPE");
    if free(received) || free(wanted) || received == wanted {
        return true;
    }
    let wanted: Vec<&str> = wanted.split(',').collect();
    received
        .split(',')
        .all(|kind| wanted.contains(&kind.trim()))
}

/// Python's `int()`, `float()`, `str()` and `bool()`.
pub(super) fn convert(kind: &str, value: &Json) -> Result<Json, String> {
    let python = || match value {
        Json::Null => "NoneType",
        Json::Object(_) => "dict",
        _ => "list",
    };
    match kind {
        "INT" => match value {
            Json::Integer(_) => Ok(value.clone()),
            Json::Bool(value) => Ok(i64::from(*value).into()),
            Json::Float(number) if number.is_finite() => Ok((number.trunc() as i128).into()),
            Json::Float(number) if number.is_nan() => {
                Err("cannot convert float NaN to integer".to_owned())
            }
            Json::Float(_) => Err("cannot convert float infinity to integer".to_owned()),
            Json::Text(text) => text.trim().parse::<i128>().map(Json::from).map_err(|_| {
                format!(
                    "invalid literal for int() with base 10: {}",
                    value.python_repr()
                )
            }),
            _ => Err(format!(
                "int() argument must be a string, a bytes-like object or a real number, not '{}'",
                python()
            )),
        },
        "FLOAT" => {
            match value {
                Json::Text(text) => text.trim().parse::<f64>().map(Json::from).map_err(|_| {
                    format!("could not convert string to float: {}", value.python_repr())
                }),
                other => other.as_f64().map(Json::from).ok_or_else(|| {
                    format!(
                        "float() argument must be a string or a real number, not '{}'",
                        python()
                    )
                }),
            }
        }
        "STRING" => Ok(value.python_text().into()),
        "BOOLEAN" => Ok(value.truthy().into()),
        _ => Ok(value.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::{convert, fits};
    use crate::json::{Json, json};

    #[test]
    fn converts_as_python() {
        for (kind, value, expected) in [
            ("INT", json!("64"), Some("64")),
            ("INT", json!(64.9), Some("64")),
            ("INT", json!(true), Some("1")),
            ("INT", json!("abc"), None),
            ("INT", Json::Null, None),
            ("FLOAT", json!(4), Some("4.0")),
            ("FLOAT", json!("0.5"), Some("0.5")),
            ("STRING", json!(12), Some("\"12\"")),
            ("BOOLEAN", json!(0), Some("false")),
            ("IMAGE", json!("as it is"), Some("\"as it is\"")),
        ] {
            let converted = convert(kind, &value).ok().map(|value| value.dump());
            assert_eq!(converted.as_deref(), expected, "{kind} {}", value.dump());
        }
    }

    #[test]
    fn types_that_fit() {
        for (received, wanted, expected) in [
            ("IMAGE", "IMAGE", true),
            ("STRING", "IMAGE", false),
            ("STRING", "*", true),
            ("COMFY_MATCHTYPE_V3", "COMBO", true),
            ("STRING", "STRING,FILE_3D", true),
            ("STRING,INT", "STRING", false),
        ] {
            assert_eq!(fits(received, wanted), expected, "{received} {wanted}");
        }
    }
}
