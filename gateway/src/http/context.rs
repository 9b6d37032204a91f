//! What every handler may know of a request beyond its bytes.

use super::error::ApiError;
use super::written::Unflushed;
use crate::access::Caller;
use crate::access::origins::Origins;
use crate::proxy::Pool;
use axum::extract::FromRequestParts;
use http::request::Parts;
use std::sync::Arc;
use tokio_util::task::TaskTracker;

/// What one worker thread keeps for its requests.
#[derive(Debug, Default)]
pub(crate) struct WorkerContext {
    pub(crate) pool: Arc<Pool>,
    /// Tunnels, which outlive their request.
    pub(crate) tasks: TaskTracker,
}

/// Who asks, by what name, and how.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// Who sent the request.
    pub caller: Caller,
    /// Where the browser finds us.
    pub origins: Origins,
    pub(super) worker: Arc<WorkerContext>,
    pub(super) unflushed: Unflushed,
}

impl RequestContext {
    /// Of a request that never was on the network.
    pub(crate) fn in_process(caller: Caller) -> Self {
        Self {
            caller,
            origins: Origins::in_process(),
            worker: Arc::default(),
            unflushed: Unflushed::default(),
        }
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.worker.pool
    }

    /// What waits until the connection of this request is flushed.
    pub(crate) fn unflushed(&self) -> &Unflushed {
        &self.unflushed
    }

    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.worker.tasks
    }
}

impl<State: Send + Sync> FromRequestParts<State> for RequestContext {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &State) -> Result<Self, ApiError> {
        // The door puts it there; without it nothing is known of the caller, so nothing is allowed.
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(ApiError::sign_in_required)
    }
}
