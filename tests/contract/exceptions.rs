//! Every place where a run may differ from the recording, with the reason. Nothing else may.

use crate::server::Kind;

/// What is still asked of an excepted place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Nothing.
    Any,
    /// The same type, for lists the same type of items.
    SameType,
    /// It may be missing.
    MayLack,
}

/// One exception. `place` is a path into the answer, `*` being one step and `**` any number.
#[derive(Debug)]
pub(crate) struct Exception {
    pub(crate) at: On,
    /// Start of the file's name, with or without the version before it; empty for all.
    pub(crate) file: &'static str,
    /// Numbers of the exchanges; empty for all.
    pub(crate) exchanges: &'static [usize],
    pub(crate) place: &'static str,
    pub(crate) rule: Rule,
    pub(crate) reason: &'static str,
}

/// Whom an exception is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    Demo,
    Real,
    Both,
}

use On::{Both, Demo, Real};
use Rule::{Any, MayLack, SameType};

macro_rules! exceptions {
    ($($at:ident $file:literal $exchanges:expr, $place:literal => $rule:ident, $reason:literal;)+) => {
        &[$(Exception { at: $at, file: $file, exchanges: &$exchanges, place: $place, rule: $rule, reason: $reason }),+]
    };
}

pub(crate) const EXCEPTIONS: &[Exception] = exceptions! {
    Both "" [], "body/system/argv" => SameType, "the flags of this run";
    Both "01" [26], "body" => SameType, "the template list is data of another package";
    Both "01" [11, 12], "body" => SameType, "scripts of the front end";
    Both "04" [67, 68, 69], "body" => SameType, "the recording of this file was repeated on a server that had done everything else before";
    Both "04" [70, 71], "body/*/input/**" => SameType, "the same";
    Both "08" [6], "logs/9/data/entries/0/m" => SameType, "a measured duration";
    Both "0.3.64/08" [7], "body" => SameType, "what was logged so far";
    Both "0.33.0/08" [7], "body" => SameType, "the same";
    Both "0.33.0/10" [40], "body/*/status/messages/2/1/executed/*" => SameType, "a set, listed in any order";
    Both "0.33.0-assets" [10], "body/next_cursor" => SameType, "nobody looks into a cursor";
    Both "0.33.0-assets" [50], "body/assets/0/size" => SameType, "pictures are encoded shorter or longer";
    Both "0.33.0-assets" [50], "body/assets/0/metadata/content_length" => SameType, "the same";
    Demo "0.33.0-assets" [28], "body/tags/*/name" => SameType, "the words known before any use are its own";
    Demo "0.33.0-assets" [28], "body/total" => SameType, "the same";
    Demo "0.33.0-assets" [40], "header content-length" => Any, "hyper states the length 0 of an empty answer to HEAD";
    Both "0.33.0/15" [44], "body/*/prompt/4/*" => SameType, "a set, listed in any order";
    Real "0.3.64/01" [9, 10], "body/system/installed_templates_version" => SameType, "that front end is of another version now";
    Real "0.3.64/01" [55, 56, 57], "**" => Any, "the same";
    Real "0.12.1/01" [9, 10], "body/system/installed_templates_version" => SameType, "the same";
    Real "0.12.1/01" [55, 56, 57], "**" => Any, "the same";
    Real "0.12.1/13" [15], "**" => Any, "the package for hashes is installed there now";
    Real "0.3.64/12" [40], "length" => Any, "the same";
    Real "0.3.64/11" [13], "**" => Any, "as recorded it ends the worker of 0.3.64, so it is sent in a way that does not";
    Real "0.3.64/12" [35, 36, 37], "length" => Any, "for that reason the recorded queue stood still";
    Both "" [], "body/**/current_outputs" => SameType, "a set, listed in any order";
    Both "05" [], "events/*/data/current_outputs" => SameType, "the same";
    Both "" [], "body/extension/manager/supports_csrf_post" => MayLack, "told by the manager's package only";
    Both "" [], "events/*/data/extension/manager/supports_csrf_post" => MayLack, "the same";
    Both "04" [65], "header content-range" => SameType, "pictures are encoded shorter or longer";
    Both "10" [19], "body/*/outputs/2/images/0/**" => SameType, "the file name has the date and hour in it";
    Both "12" [23, 25], "length" => Any, "how many files there are depends on everything before";
    Both "13" [3], "body/assets/0/size" => SameType, "pictures are encoded shorter or longer";
    Both "13" [8], "body/size" => SameType, "the same";
    Both "13" [9, 10], "header content-length" => SameType, "the same";
    Both "13" [3], "body/assets/1/**" => SameType, "which files there are depends on everything before";
    Both "13" [3], "body/assets/2/**" => SameType, "the same";
    Both "13" [4, 5], "body/assets/**" => SameType, "the same";
    Both "13" [3, 4, 5], "body/total" => SameType, "the same";
    Both "13" [3, 4, 5], "body/has_more" => SameType, "the same";
    Both "13" [7], "body/tags/**" => SameType, "the same";
    Both "13" [7], "body/total" => SameType, "the same";
    Demo "01" [9, 10], "body/system/python_version" => SameType, "there is no Python in the demo engine";
    Demo "01" [9, 10], "body/system/deploy_environment" => SameType, "it says what it is";
    Demo "01" [15, 18], "body" => SameType, "the demo engine brings models of its own";
    Demo "01" [53], "body/VAELoader/input/required/vae_name/0" => SameType, "the same";
    Demo "01" [53], "body/CheckpointLoaderSimple/input/required/ckpt_name/0" => SameType, "the same";
    Demo "01" [9, 10], "body/system/pytorch_version" => SameType, "there is no Python in the demo engine";
    Both "03" [41], "body/jobs/**" => SameType, "sorted by durations that are measured";
    Both "01" [43], "body" => SameType, "what was logged at the start";
    Both "01" [44], "body/entries" => SameType, "the same";
    Demo "01" [53], "body/*" => MayLack, "the demo engine has only the nodes it needs";
    Demo "" [], "body/*/input/*/*/1/tooltip" => SameType, "prose in our own words";
    Demo "10" [43], "body/**/tooltip" => SameType, "the same";
    Demo "" [], "body/*/output_tooltips/*" => SameType, "the same";
    Demo "" [], "body/*/description" => SameType, "the same";
    Demo "" [], "body/*/search_aliases" => SameType, "the same";
    Demo "10" [15, 27, 29, 31], "body/*/status/messages/2/1/current_inputs/images/0" => SameType, "numbers of a tensor";
    Demo "12" [32, 44, 45, 49, 51], "length" => Any, "the parser's own words for a bad request";
    Demo "12" [52], "status" => Any, "Content-Length beside Transfer-Encoding: hyper takes the latter, as RFC 9112 allows";
    Demo "12" [52], "length" => Any, "the same";
    Demo "13" [16], "header content-length" => Any, "hyper states the length 0 of an empty answer to HEAD";
    Demo "02" [24], "body/3/size" => SameType, "the settings file is not indented";
};

/// The exception for a place, if there is one.
pub(crate) fn find(kind: Kind, file: &str, exchange: usize, place: &str) -> Option<(usize, Rule)> {
    let name = file.rsplit('/').next().unwrap_or(file);
    let fits = |exception: &Exception| {
        let server = match exception.at {
            Both => true,
            Demo => kind == Kind::Demo,
            Real => kind == Kind::Real,
        };
        server
            && (name.starts_with(exception.file) || file.starts_with(exception.file))
            && (exception.exchanges.is_empty() || exception.exchanges.contains(&exchange))
            && matches(exception.place, place)
    };
    EXCEPTIONS
        .iter()
        .enumerate()
        .find(|(_, exception)| fits(exception))
        .map(|(index, exception)| (index, exception.rule))
}

fn matches(pattern: &str, place: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('/').collect();
    let place: Vec<&str> = place.split('/').collect();
    fit(&pattern, &place)
}

fn fit(pattern: &[&str], place: &[&str]) -> bool {
    match (pattern, place) {
        ([], []) => true,
        (["**", rest @ ..], _) => (0..=place.len()).any(|skipped| fit(rest, &place[skipped..])),
        ([first, rest @ ..], [step, steps @ ..]) => {
            (*first == "*" || first == step) && fit(rest, steps)
        }
        _ => false,
    }
}
