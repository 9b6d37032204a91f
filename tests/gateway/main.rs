//! Black-box tests of `sentineld` with the demo engine behind it.

mod admin_api;
mod connect;
mod credentials;
mod filtering;
mod gallery;
mod invites;
#[cfg(target_os = "linux")]
mod limits;
mod local_owner;
mod lock_out;
mod names;
mod nginx;
mod one_gateway;
mod own_routes;
mod port;
mod proxy;
mod queue;
mod readme;
mod real_comfyui;
mod routes;
mod sandbox;
mod seams;
mod separate;
mod sessions;
mod setup;
mod sharing;
mod sign_in;
mod smuggling;
mod statistics;
mod streams;
mod supervisor;
mod uploads;
