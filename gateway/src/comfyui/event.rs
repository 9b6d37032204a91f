//! ComfyUI's events, as `/ws` carries them: the one place that knows their texts
//! (comfyui-api.md 4, comfyui-api-2026.md 3).

use serde::Deserialize;

/// So many bytes of an event's text tell what it is and of which job; ComfyUI names the job first.
pub(crate) const ENOUGH: usize = 512;

/// What ends a job for those who listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// `execution_success`.
    Success,
    /// `execution_error`.
    Error,
    /// `execution_interrupted`.
    Interrupted,
    /// `executing` without a node: the engine has left the job.
    Left,
}

/// An event that the gateway has to do with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event<'text> {
    /// The number of jobs in the engine's queue has changed.
    Status,
    /// The engine begins a job. It is the first event of a job.
    Start(&'text str),
    /// A job has come to its end.
    End(&'text str, End),
}

/// Reads the text of an event, or its first [`ENOUGH`] bytes; `None` for all others.
pub(crate) fn read(text: &[u8]) -> Option<Event<'_>> {
    let name = name(text)?;
    let end = match name {
        b"status" => return Some(Event::Status),
        b"execution_start" => return job(text).map(Event::Start),
        b"execution_success" => End::Success,
        b"execution_error" => End::Error,
        b"execution_interrupted" => End::Interrupted,
        b"executing" => return left(text).map(|id| Event::End(id, End::Left)),
        _ => return None,
    };
    job(text).map(|id| Event::End(id, end))
}

/// The number of running and waiting jobs that a `status` tells.
pub(crate) fn remaining(status: &[u8]) -> Option<u32> {
    #[derive(Deserialize)]
    struct Message {
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        status: Status,
    }
    #[derive(Deserialize)]
    struct Status {
        exec_info: ExecInfo,
    }
    #[derive(Deserialize)]
    struct ExecInfo {
        queue_remaining: u32,
    }
    let message: Message = serde_json::from_slice(status).ok()?;
    Some(message.data.status.exec_info.queue_remaining)
}

/// The event's name; ComfyUI puts it first. Blanks as Python writes them, and none as others do.
fn name(text: &[u8]) -> Option<&[u8]> {
    let rest = text.strip_prefix(b"{\"type\":")?;
    let rest = rest
        .strip_prefix(b" ")
        .unwrap_or(rest)
        .strip_prefix(b"\"")?;
    let end = rest.iter().take(64).position(|byte| *byte == b'"')?;
    Some(&rest[..end])
}

/// The job that is named first.
fn job(text: &[u8]) -> Option<&str> {
    const KEY: &[u8] = b"\"prompt_id\":";
    let at = text.windows(KEY.len()).position(|window| window == KEY)?;
    let rest = &text[at + KEY.len()..];
    let rest = rest
        .strip_prefix(b" ")
        .unwrap_or(rest)
        .strip_prefix(b"\"")?;
    let end = rest.iter().take(64).position(|byte| *byte == b'"')?;
    std::str::from_utf8(&rest[..end]).ok()
}

/// The job that the engine has left: `executing` whose node is null.
fn left(text: &[u8]) -> Option<&str> {
    #[derive(Deserialize)]
    struct Message<'text> {
        #[serde(borrow)]
        data: Data<'text>,
    }
    #[derive(Deserialize)]
    struct Data<'text> {
        node: Option<serde::de::IgnoredAny>,
        #[serde(borrow)]
        prompt_id: Option<&'text str>,
    }
    let message: Message<'_> = serde_json::from_slice(text).ok()?;
    match message.data.node {
        None => message.data.prompt_id,
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0b4c1f9e-8f1b-4c53-9c61-5b3d8e2f7a10";

    #[test]
    fn events_are_told_apart_as_comfyui_writes_them() {
        let with_id = |text: &str| text.replace("ID", ID);
        let table = [
            (
                r#"{"type": "status", "data": {"status": {}}}"#,
                Some(Event::Status),
            ),
            (r#"{"type":"status"}"#, Some(Event::Status)),
            (
                r#"{"type": "execution_start", "data": {"prompt_id": "ID", "timestamp": 1}}"#,
                Some(Event::Start(ID)),
            ),
            (
                r#"{"type": "execution_success", "data": {"prompt_id": "ID", "timestamp": 1}}"#,
                Some(Event::End(ID, End::Success)),
            ),
            (
                r#"{"type":"execution_error","data":{"prompt_id":"ID","traceback":["cut her"#,
                Some(Event::End(ID, End::Error)),
            ),
            (
                r#"{"type": "execution_interrupted", "data": {"prompt_id": "ID", "node_id": "1"}}"#,
                Some(Event::End(ID, End::Interrupted)),
            ),
            (
                r#"{"type": "executing", "data": {"node": null, "prompt_id": "ID"}}"#,
                Some(Event::End(ID, End::Left)),
            ),
            (
                r#"{"type": "executing", "data": {"node": "3", "display_node": "3", "prompt_id": "ID"}}"#,
                None,
            ),
            (r#"{"type": "executing", "data": {"node": null}}"#, None),
            (r#"{"type": "progress", "data": {"prompt_id": "ID"}}"#, None),
            (
                r#"{"data": {"prompt_id": "ID"}, "type": "execution_start"}"#,
                None,
            ),
            ("{\"type\": \"execution_start", None),
            ("", None),
        ];
        for (text, expected) in table {
            let text = with_id(text);
            assert_eq!(read(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn the_count_of_a_status() {
        let told = br#"{"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 7}}, "sid": "s"}}"#;
        assert_eq!(remaining(told), Some(7));
        assert_eq!(remaining(br#"{"type": "status", "data": {}}"#), None);
    }
}
