//! Black-box tests of `sentineld` with the demo engine behind it.

mod admin_api;
mod credentials;
mod filtering;
mod gallery;
mod invites;
mod local_owner;
mod lock_out;
mod names;
mod nginx;
mod port;
mod proxy;
mod queue;
mod readme;
mod real_comfyui;
mod routes;
mod sandbox;
mod separate;
mod sessions;
mod setup;
mod sharing;
mod sign_in;
mod smuggling;
mod statistics;
mod supervisor;
