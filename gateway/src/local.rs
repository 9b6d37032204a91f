//! The API for the machine's owner, in process: the same handlers as over the network, behind no
//! sign-in, because whoever sits at the window owns the machine.

use crate::access::{Caller, ClientIp};
use crate::api;
use crate::app::App;
use crate::auth::MachineOwner;
use crate::control::LocalAnswer;
use crate::http::{ApiError, RequestContext};
use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use std::net::Ipv4Addr;
use std::sync::Arc;
use tower::Service as _;

/// What answers the machine's owner.
#[derive(Clone, Debug)]
pub(crate) struct LocalApi {
    router: Router,
    context: RequestContext,
}

impl LocalApi {
    pub(crate) fn new(app: &Arc<App>) -> Self {
        let (router, _) = api::routes().split_for_parts();
        let caller = Caller {
            address: ClientIp::new(Ipv4Addr::LOCALHOST.into()),
            is_local: true,
            forwarded_host: None,
            forwarded_https: None,
            forwarded_prefix: None,
        };
        Self {
            router: router.with_state(Arc::clone(app)),
            context: RequestContext::in_process(caller),
        }
    }

    /// Answers a request, whose path is below `/sentinel/api`, as the machine's owner.
    pub(crate) async fn answer(&self, mut request: Request<Body>) -> Response {
        request.extensions_mut().insert(MachineOwner);
        request.extensions_mut().insert(self.context.clone());
        let Ok(response) = self.router.clone().call(request).await;
        response
    }

    /// Asks for a path below `/sentinel/api`.
    pub(crate) async fn ask(&self, method: Method, path: &str, body: Vec<u8>) -> LocalAnswer {
        let request = Request::builder()
            .method(method)
            .uri(format!("/{}", path.trim_start_matches('/')))
            .header(CONTENT_TYPE, "application/json")
            .body(Body::from(body));
        let response = match request {
            Ok(request) => self.answer(request).await,
            Err(_) => ApiError::new(
                StatusCode::BAD_REQUEST,
                "bad_path",
                "The address is not valid.",
            )
            .into_response(),
        };
        let status = response.status().as_u16();
        let content_type = response.headers().get(CONTENT_TYPE).cloned();
        let content_type = content_type.unwrap_or(HeaderValue::from_static(""));
        let body = response.into_body().collect().await;
        LocalAnswer {
            status,
            content_type: content_type.to_str().unwrap_or_default().to_owned(),
            body: body
                .map(|body| body.to_bytes().to_vec())
                .unwrap_or_default(),
        }
    }
}
