//! Jobs on their way to an engine: what a prompt may hold, who is next on the GPU, what became of
//! each.
//!
//! - `prompt` reads what a client sends, `policy` and `catalogue` judge it, `submission` takes it
//!   apart and puts it together again;
//! - `order` is the fair order as a data structure, [`Queue`] the line itself, `dispatch` the task
//!   that hands jobs out, `runner` stays with each until its `outcome`;
//! - `hold` says when jobs are held back, `announce` and `notify` tell people.

mod announce;
mod catalogue;
mod dispatch;
mod hold;
mod notify;
mod order;
mod other_programs;
mod outcome;
mod policy;
mod prompt;
mod queue;
mod quiet;
mod runner;
mod sockets;
mod submission;

pub(crate) use catalogue::{Accepted, Catalogue};
pub(crate) use dispatch::{is_full, limits_of, may_run, put_back_others, run};
pub(crate) use hold::OwnerHold;
pub(crate) use notify::{Notifier, NotifyError, Target, TargetError};
pub(crate) use order::{JobId, Urgency};
pub(crate) use policy::NodePolicy;
pub(crate) use prompt::{MAX_PROMPT, Prompt, PromptFault};
pub(crate) use queue::{Admission, Arrival, Hold, Intent, LimitFault, Queue, RoleLimits, Running};
pub(crate) use quiet::QuietHours;
pub(crate) use runner::watch as watch_job;
pub(crate) use sockets::{Messages, with_count};
pub(crate) use submission::{Submission, number_text};
