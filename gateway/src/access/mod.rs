//! Who may speak to the gateway at all: the caller's address, the allow and deny lists, the
//! Host and Origin guard, and the lock-out after failed sign-ins.

mod attempts;
mod client_ip;
mod lists;
pub mod origins;

pub use attempts::{AttemptKind, Attempts, Lockout, LockoutView, Standing};
pub(crate) use client_ip::FORWARDING_HEADERS;
pub use client_ip::{Caller, ClientIp, TrustedProxies, caller_of};
pub use lists::{
    AccessLists, Ban, LineError, ListError, ListKind, ListView, Verdict, check_address_list,
};
