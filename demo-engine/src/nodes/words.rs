//! Nodes for texts, numbers and choices.

use super::{Call, Failure, Outcome, Value};
use crate::json::{Json, json};

pub(super) fn primitive(call: &mut Call<'_>) -> Result<Outcome, Failure> {
    Ok(Outcome::one(Value::Plain(call.plain("value"))))
}

pub(super) fn concatenate(call: &mut Call<'_>) -> Result<Outcome, Failure> {
    let joined = [call.text("string_a"), call.text("string_b")].join(&call.text("delimiter"));
    Ok(Outcome::one(Value::Plain(joined.into())))
}

pub(super) fn switch(call: &mut Call<'_>) -> Result<Outcome, Failure> {
    let name = if call.plain("switch").truthy() {
        "on_true"
    } else {
        "on_false"
    };
    let chosen = call.values(name).first().cloned();
    chosen
        .map(Outcome::one)
        .ok_or_else(|| Failure::Raised("TypeError", format!("missing input: '{name}'")))
}

pub(super) fn preview(call: &mut Call<'_>) -> Result<Outcome, Failure> {
    let text = match call.values("source").first() {
        Some(Value::Plain(Json::Text(text))) => text.clone(),
        Some(Value::Plain(Json::Null)) | None => "None".to_owned(),
        Some(Value::Plain(value)) => value.dump(),
        Some(_) => "source exists, but could not be serialized.".to_owned(),
    };
    let value = Value::Plain(text.as_str().into());
    Ok(Outcome::shown_and(json!({ "text": [text] }), value))
}

/// Shows a name as it is given, whatever it is.
pub(super) fn preview_model(call: &mut Call<'_>) -> Result<Outcome, Failure> {
    Ok(Outcome::shown(
        json!({ "result": [call.text("model_file"), null, null] }),
    ))
}
