//! What listening on a port takes: binding all addresses or none, and who holds a port that is
//! taken.

mod ports;

pub(crate) use ports::{BindFault, bind_all, is_held_beside};
pub use ports::{PortHolder, PortTaken};
