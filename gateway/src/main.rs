//! Demo engine.
fn main() {}
