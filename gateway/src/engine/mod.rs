//! The ComfyUIs behind the gateway. With `separate_users` each user has an engine of his own, with
//! directories of its own; else there is one for all, found and started by us or run by somebody
//! else.
//!
//! - [`Engines`] is the registry: who has which engine, started on a visit, stopped when idle;
//! - `schedule` decides, as a function from what is seen to what is done;
//! - [`Engine`] is one of them: one task owns it and takes commands;
//! - `client` asks an engine, `events` hears what it tells by itself, `event_stream` keeps listening;
//! - `knowledge` is what it has told of its nodes;
//! - `places` says where an engine's files are, `prepare` what is started.

mod activity;
mod attendant;
pub(crate) mod client;
mod devices;
mod event_stream;
mod events;
mod files_of_user;
mod gpu;
mod handle;
mod knowledge;
mod memory;
mod places;
mod prepare;
mod registry;
mod schedule;

pub(crate) use activity::InUse;
pub(crate) use event_stream::QueueSignal;
pub use files_of_user::{FilesError, FilesFate};
pub(crate) use gpu::memory_by_process as gpu_memory_by_process;
pub use handle::{Engine, EngineId};
pub use memory::Memory;
pub use places::Places;
pub(crate) use places::database_url;
pub(crate) use prepare::demo;
pub use prepare::{DEMO, EngineError};
pub use registry::{EngineSight, Engines, Visit};
