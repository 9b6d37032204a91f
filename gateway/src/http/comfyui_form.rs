//! Refusals of `POST /prompt` in ComfyUI's form. Its clients read `error.message` and `node_errors`
//! there, and break on a text in `error`.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use serde_json::{Map, Value, json};

/// What [`super::ApiError`] leaves beside its answer, so that the answer can be put into another form.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) members: Map<String, Value>,
}

/// Puts a refusal of ours into ComfyUI's form; every other answer passes as it is.
pub(super) fn in_comfyui_form(mut response: Response) -> Response {
    let Some(refused) = response.extensions_mut().remove::<Refused>() else {
        return response;
    };
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.remove(CONTENT_TYPE);
    let mut answer = Json(body(refused)).into_response();
    *answer.status_mut() = parts.status;
    answer.headers_mut().extend(parts.headers);
    answer.extensions_mut().extend(parts.extensions);
    answer
}

fn body(refused: Refused) -> Value {
    let Refused {
        code,
        message,
        members,
    } = refused;
    let extra_info: Map<String, Value> = members
        .iter()
        .filter(|(name, _)| *name != "node_errors")
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let mut body = json!({
        "error": { "type": code, "message": message, "details": "", "extra_info": extra_info },
        "node_errors": {},
        "code": code,
    });
    if let Some(body) = body.as_object_mut() {
        for (name, value) in members {
            body.entry(name).or_insert(value);
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use super::super::ApiError;
    use super::*;
    use axum::body::Body;
    use http::StatusCode;
    use http::header::RETRY_AFTER;
    use http_body_util::BodyExt as _;

    async fn shown(response: Response) -> Value {
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[tokio::test]
    async fn a_refusal_of_ours_is_put_into_comfyuis_form() {
        let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "jobs_waiting", "Too many.")
            .with("limit", 5)
            .with("node_errors", json!({}))
            .retry_after(3);
        let response = in_comfyui_form(error.into_response());
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[RETRY_AFTER], "3");
        assert_eq!(response.headers().get_all(CONTENT_TYPE).iter().count(), 1);
        assert!(!response.headers().contains_key(CONTENT_LENGTH));
        let expected = json!({
            "error": {
                "type": "jobs_waiting", "message": "Too many.", "details": "",
                "extra_info": { "limit": 5 },
            },
            "node_errors": {}, "code": "jobs_waiting", "limit": 5,
        });
        assert_eq!(shown(response).await, expected);
    }

    #[tokio::test]
    async fn other_answers_pass() {
        let theirs = json!({ "error": "text", "node_errors": { "1": {} } });
        let response = (StatusCode::BAD_REQUEST, Json(theirs.clone())).into_response();
        assert_eq!(shown(in_comfyui_form(response)).await, theirs);
        let response = Response::new(Body::from("plain"));
        let bytes = in_comfyui_form(response).into_body().collect().await;
        assert_eq!(bytes.unwrap().to_bytes(), "plain");
    }
}
