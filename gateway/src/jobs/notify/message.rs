//! What is said: the words for ntfy and the JSON for a webhook. Nothing of a prompt and no words of
//! ComfyUI's leave the machine.

use super::target::{Kind, Target};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::{Method, Request};
use http_body_util::Full;
use serde_json::json;

/// That a job is done.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) is_failure: bool,
    /// By RFC 3339.
    pub(super) finished_at: String,
    /// Milliseconds.
    pub(super) gpu_ms: u64,
    /// Further jobs of the user.
    pub(super) waiting: usize,
    /// As it is kept of the job; what may name files or texts of a prompt is not sent.
    pub(super) reason: Option<String>,
}

/// One message about all jobs that were done while it waited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    completed: u64,
    failed: u64,
    finished_at: String,
    gpu_ms: u64,
    waiting: usize,
    reason: Option<&'static str>,
}

impl Report {
    pub(super) fn add(&mut self, message: Message) {
        if message.is_failure {
            self.failed += 1;
            self.reason = Some(public_reason(message.reason.as_deref().unwrap_or_default()));
        } else {
            self.completed += 1;
        }
        self.finished_at = message.finished_at;
        self.gpu_ms = self.gpu_ms.saturating_add(message.gpu_ms);
        self.waiting = message.waiting;
    }

    fn title(&self) -> String {
        match (self.completed, self.failed) {
            (1, 0) => "A picture is done".to_owned(),
            (completed, 0) => format!("{completed} pictures are done"),
            (0, 1) => "A picture has failed".to_owned(),
            (0, failed) => format!("{failed} pictures have failed"),
            (1, failed) => format!("1 picture is done, {failed} failed"),
            (completed, failed) => format!("{completed} pictures are done, {failed} failed"),
        }
    }

    fn text(&self) -> String {
        let seconds = self.gpu_ms.div_ceil(1000);
        let waiting = match self.waiting {
            0 => "Nothing else is waiting.".to_owned(),
            1 => "1 more is waiting.".to_owned(),
            waiting => format!("{waiting} more are waiting."),
        };
        let reason = self.reason.map(|reason| format!("{reason} "));
        format!(
            "{}Time on the GPU: {} min {:02} s. {waiting}",
            reason.unwrap_or_default(),
            seconds / 60,
            seconds % 60
        )
    }
}

/// What may be said of a failure outside: ComfyUI's own words can hold file names and texts of the
/// prompt.
fn public_reason(reason: &str) -> &'static str {
    let reason = reason.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    if has(&["out of memory", "allocation on device", "outofmemory"]) {
        "The memory of the GPU was not enough."
    } else if has(&["took longer than"]) {
        "It took longer than one job may."
    } else if has(&["ended twice while it ran"]) {
        "ComfyUI ended while it ran."
    } else {
        "ComfyUI could not do it."
    }
}

/// What a request says.
#[derive(Debug)]
pub(super) enum Content<'a> {
    Report(&'a Report),
    Test,
}

/// The request that says it.
pub(super) fn request(
    target: &Target,
    content: &Content<'_>,
) -> Result<Request<Full<Bytes>>, http::Error> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(target.path.as_str())
        .header(HOST, target.authority.as_str())
        .header(USER_AGENT, "ComfyUI-Sentinel");
    let (request, body) = match (target.kind, content) {
        (Kind::Ntfy, Content::Test) => (
            request.header("title", "Test"),
            "Messages of ComfyUI Sentinel arrive here.".to_owned(),
        ),
        (Kind::Ntfy, Content::Report(report)) => {
            let request = request.header("title", report.title());
            let request = if report.failed > 0 {
                request.header("tags", "warning").header("priority", "high")
            } else {
                request.header("tags", "white_check_mark")
            };
            (request, report.text())
        }
        (Kind::Webhook, Content::Test) => (request, json!({ "event": "test" }).to_string()),
        (Kind::Webhook, Content::Report(report)) => {
            let body = json!({
                "event": "job_finished",
                "state": if report.failed > 0 { "failed" } else { "completed" },
                "finished_at": report.finished_at,
                "gpu_seconds": report.gpu_ms.div_ceil(1000),
                "waiting": report.waiting,
                "reason": report.reason,
                "completed": report.completed,
                "failed": report.failed,
            });
            (request, body.to_string())
        }
    };
    let kind = match target.kind {
        Kind::Ntfy => "text/plain; charset=utf-8",
        Kind::Webhook => "application/json",
    };
    request
        .header(CONTENT_TYPE, kind)
        .body(Full::new(Bytes::from(body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles() {
        for (completed, failed, title) in [
            (1, 0, "A picture is done"),
            (5, 0, "5 pictures are done"),
            (0, 1, "A picture has failed"),
            (0, 2, "2 pictures have failed"),
            (1, 1, "1 picture is done, 1 failed"),
            (3, 2, "3 pictures are done, 2 failed"),
        ] {
            let report = Report {
                completed,
                failed,
                ..Report::default()
            };
            assert_eq!(report.title(), title);
        }
    }
}
