//! ComfyUI Sentinel's gateway: the one guarded door before ComfyUI.
//!
//! ComfyUI is a child process on a private loopback port. Every request passes the door
//! ([`http`]), needs a session ([`auth`]), and is then streamed to the engine ([`proxy`]).
//! Whatever breaks, breaks closed: without the gateway there is no way in, and its engines end
//! with it.

pub mod access;
pub mod accounts;
mod api;
pub mod app;
pub mod auth;
pub mod cli;
mod clock;
mod clock_trust;
pub mod comfyui;
pub mod config;
mod connect;
pub mod control;
#[cfg(unix)]
mod control_socket;
mod directory_lock;
pub mod engine;
pub mod files;
pub mod gallery;
mod gateway;
pub mod http;
mod jobs;
mod local;
mod log;
mod nvidia_smi;
mod platform;
mod processes;
pub mod proxy;
pub mod sandbox;
pub mod server;
mod setup;
mod sharing;
mod statistics;
pub mod store;
pub mod supervisor;
mod watcher;

pub use gateway::{Gateway, GatewayError};
