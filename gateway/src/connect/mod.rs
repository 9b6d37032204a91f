//! `sentineld connect`: a local door to a Sentinel for programs that know host and port alone.
//!
//! It listens on loopback, adds an API token without an admin's rights to each request, and streams
//! both ways. A web page in the browser of the same person gets nothing through it.
//!
//! - `target`, `token`, `fingerprint` read what the person gives;
//! - `trust` judges the gateway's certificate, `upstream` keeps the connections to it, `account`
//!   asks it whose the token is;
//! - `guard` judges requests, `headers` cleans them, `door` serves them, `answer` refuses them.

mod account;
mod answer;
mod door;
mod fingerprint;
mod guard;
mod headers;
mod target;
mod token;
mod trust;
mod upstream;

pub(crate) use account::AccountError;
pub(crate) use fingerprint::Fingerprint;
pub(crate) use target::Target;
pub(crate) use token::{Token, VARIABLE};
pub(crate) use trust::{Refused, RefusedReason, Trust};
pub(crate) use upstream::UpstreamError;

use door::Door;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use upstream::Upstream;

/// Why the door cannot listen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    /// Other machines could use it.
    #[error(
        "{0} is open to other machines, which would all use this token; the door listens on this computer alone, as 127.0.0.1:8188"
    )]
    NotLoopback(SocketAddr),
    /// The address is taken or not ours.
    #[error("cannot listen on {address}; choose another port, as in --listen 127.0.0.1:8190")]
    Bind {
        /// Address asked for.
        address: SocketAddr,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

/// A place to listen on, held before the gateway is asked for anything.
#[derive(Debug)]
pub(crate) struct Place {
    listener: TcpListener,
    address: SocketAddr,
}

impl Place {
    /// Listens on a loopback address; port 0 picks one.
    pub(crate) async fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        if !address.ip().is_loopback() {
            return Err(ListenError::NotLoopback(address));
        }
        let failed = |source| ListenError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// Where programs reach the door.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A gateway that was reached, with a token that it accepts.
pub(crate) struct Connected {
    upstream: Arc<Upstream>,
    token: Token,
    name: String,
}

impl Connected {
    /// Reaches the gateway and asks whose the token is.
    pub(crate) async fn reach(
        target: &Target,
        trust: Trust,
        token: Token,
    ) -> Result<Self, AccountError> {
        let upstream = Arc::new(Upstream::new(target.clone(), trust)?);
        let name = account::name_of(&upstream, &token).await?;
        Ok(Self {
            upstream,
            token,
            name,
        })
    }

    /// Name of the account.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Serves programs until `stop`.
    pub(crate) async fn serve(self, place: Place, stop: impl Future) {
        let door = Door::new(self.upstream, self.token, place.address);
        Arc::new(door).serve(place.listener, stop).await;
    }
}
