//! The output of engines: cut into lines, freed of secrets, kept in a ring and in a rotated file.

mod file;
mod lines;
mod mask;
mod pump;
mod ring;

pub use mask::mask_secrets;
pub(super) use pump::pump;
pub use ring::{LogEntry, LogLimits, LogRing, LogStream};
