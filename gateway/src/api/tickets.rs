//! Tickets for addresses in which no header can be set.

use super::{Answer, Body};
use crate::app::App;
use crate::auth::{DEFAULT_MINUTES, MAX_MINUTES, SignedIn, TICKET_PATHS, TicketPath};
use crate::http::ApiError;
use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::{Duration, Instant};
use utoipa::ToSchema;

#[derive(Deserialize, ToSchema)]
pub(crate) struct MakeTicket {
    /// Where it leads, with all that lies below: `/view`, `/ws`, `/userdata`,
    /// `/experiment/models`, each also below `/api`, or `/api/assets`.
    #[schema(example = "/view")]
    path: String,
    /// 1 to 60; 10 if it is not said.
    minutes: Option<u32>,
}

/// A ticket; shown this once.
#[derive(Serialize, ToSchema)]
pub(crate) struct MadeTicket {
    /// Value of the query parameter `ticket`.
    ticket: String,
    /// Seconds.
    expires_in: u64,
}

/// Makes a ticket for addresses in which no header can be set, such as those of pictures, videos
/// and sockets in a browser: `?ticket=` opens one path to GET, HEAD and WebSockets for some
/// minutes, never with admin rights, and ends with the session or API token that made it.
#[utoipa::path(post, path = "/tickets", tag = "own account", request_body = MakeTicket,
    responses((status = 200, body = MadeTicket), (status = 400), (status = 401)))]
pub(crate) async fn make(
    State(app): State<Arc<App>>,
    signed_in: SignedIn,
    Body(body): Body<MakeTicket>,
) -> Answer<MadeTicket> {
    let path = TicketPath::parse(&body.path).ok_or_else(|| {
        ApiError::new(
            StatusCode::BAD_REQUEST,
            "invalid_path",
            format!("path must be one of {}.", TICKET_PATHS.join(", ")),
        )
        .with("field", "path")
    })?;
    let minutes = body.minutes.unwrap_or(DEFAULT_MINUTES);
    if !(1..=MAX_MINUTES).contains(&minutes) {
        return Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "invalid_minutes",
            format!("minutes must be a whole number from 1 to {MAX_MINUTES}."),
        )
        .with("field", "minutes"));
    }
    let life = Duration::from_secs(u64::from(minutes) * 60).min(signed_in.session.remaining());
    let ticket = app
        .tickets
        .make(&signed_in.session, path, life, Instant::now());
    Ok(Json(MadeTicket {
        ticket,
        expires_in: life.as_secs(),
    }))
}
