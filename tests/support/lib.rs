//! What black-box tests stand on: a running gateway and clients that see every byte.

mod client;
mod door;
mod gateway;
mod socket;

pub use client::{Answer, Ask, exchange, read_answer};
pub use door::Door;
pub use gateway::{Gateway, Options, PASSWORD, command_on, eventually};
pub use socket::{Socket, ended_within};
