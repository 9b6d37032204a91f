//! Jobs on their way to an engine: what a prompt may hold, and whose turn it is on the GPU.

#[cfg_attr(not(test), expect(dead_code, reason = "the queue takes it into use"))]
mod order;
mod policy;
mod prompt;
mod turns;

pub(crate) use policy::NodePolicy;
pub(crate) use prompt::{MAX_PROMPT, Prompt, PromptFault};
pub(crate) use turns::{Turn, TurnFault, Turns};
