//! From an accepted connection to an answer.
//!
//! The way of a request, in order:
//!
//! 1. `server`: connection caps; a denied peer is dropped before TLS; handshake and header time-outs
//! 2. `door`: panic caught → path in its one form → tickets taken out of the address → caller's
//!    address → address lists → base path → Host and Origin guard → access log
//! 3. `router`: public routes, or session → API routes, else the fallback: the user's engine

mod comfyui_form;
mod connections;
mod context;
mod door;
mod error;
pub(crate) mod file;
pub(crate) mod pages;
mod refused;
mod refused_connections;
mod router;
mod server;
pub mod tls;
mod trust;
mod written;

pub use connections::{Connections, Place, Waiting};
pub use context::RequestContext;
pub use error::{ApiError, chain};
pub use pages::file_of_window;
pub use router::{PUBLIC_PATHS, api_document, router};
pub use server::{Server, ServerError};
pub(crate) use written::{Unflushed, drop_when_written};
