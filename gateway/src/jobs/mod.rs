//! Jobs on their way to an engine: what a prompt may hold, who is next on the GPU, what became of
//! each.
//!
//! - `prompt` reads what a client sends, judges it, and puts it together for the engine;
//! - `order` is the fair order as a data structure, [`Queue`] the line itself, `conditions` what else
//!   must hold for a job to start;
//! - `dispatch` is the task that hands jobs out, `runner` posts each and stays with it until its
//!   `outcome` is written down, `event_gate` holds its events back until then, and `tidy` forgets old
//!   ones;
//! - `hold` says when jobs are held back, `notify` tells people of those that are done, `sockets`
//!   tells their open pages.

mod conditions;
mod dispatch;
mod event_gate;
mod hold;
mod notify;
mod order;
mod outcome;
mod outputs;
mod prompt;
mod python_json;
mod queue;
mod runner;
mod sockets;
mod tidy;

pub(crate) use dispatch::{put_back_others, run};
pub(crate) use event_gate::{AnswerTicket, EventGate, Passage, RunNumber, Verdict, Wait};
pub(crate) use hold::{Hold, OwnerHold, QuietHours};
pub(crate) use notify::{Notifier, NotifyError, Target, TargetError};
pub(crate) use order::{Entry, JobId, Urgency};
pub(crate) use outputs::{in_python, normalised};
pub(crate) use prompt::{
    Accepted, Catalogue, MAX_PROMPT, NodePolicy, Prompt, PromptFault, Replacements, Submission,
    System, is_truthy, number_text,
};
pub(crate) use queue::{
    Admission, Arrival, Conditions, Intent, LimitFault, Queue, Reservation, RoleLimits, Running,
};
pub(crate) use runner::{Handed, run_new};
pub(crate) use sockets::{Messages, with_count};
