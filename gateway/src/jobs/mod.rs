//! Jobs on their way to an engine: what a prompt may hold, who is next on the GPU, what became of
//! each.
//!
//! - `prompt` reads what a client sends, `policy` and `catalogue` judge it, `submission` takes it
//!   apart and puts it together again;
//! - `order` is the fair order as a data structure, [`Queue`] the line itself, `dispatch` the task
//!   that hands jobs out, `runner` stays with each until its `outcome`;
//! - `hold` says when jobs are held back, `notify` tells people of those that are done.

mod catalogue;
mod conditions;
mod dispatch;
mod hold;
mod notify;
mod order;
mod outcome;
mod policy;
mod prompt;
mod queue;
mod runner;
mod sockets;
mod submission;
mod tidy;

pub(crate) use catalogue::{Accepted, Catalogue};
pub(crate) use dispatch::{put_back_others, run};
pub(crate) use hold::{Hold, OwnerHold, QuietHours};
pub(crate) use notify::{Notifier, NotifyError, Target, TargetError};
pub(crate) use order::{Entry, JobId, Urgency};
pub(crate) use policy::NodePolicy;
pub(crate) use prompt::{MAX_PROMPT, Prompt, PromptFault};
pub(crate) use queue::{
    Admission, Arrival, Conditions, Intent, LimitFault, Queue, RoleLimits, Running,
};
pub(crate) use runner::watch as watch_job;
pub(crate) use sockets::with_count;
pub(crate) use submission::{Submission, is_truthy, number_text};
