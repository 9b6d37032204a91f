//! `/ws`: who is connected under which client id, and what is sent to whom.
//!
//! As in ComfyUI there is one entry per client id. A second socket with the same id takes the entry over;
//! when the older one closes, the entry goes away and the newer one hears nothing more.

use crate::json::{Json, json};
use crate::state::{Engine, leave, queue_info};
use axum::extract::ws::{Message, WebSocket};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Largest message taken from a client.
pub(crate) const LARGEST_MESSAGE: usize = 4 * 1024 * 1024;

const PREVIEW_IMAGE: u32 = 1;
const TEXT: u32 = 3;
const PREVIEW_IMAGE_WITH_METADATA: u32 = 4;

/// A picture on its way, encoded.
#[derive(Debug)]
pub(crate) struct Preview<'a> {
    pub(crate) jpeg: bool,
    pub(crate) bytes: &'a [u8],
    pub(crate) node: &'a str,
    pub(crate) prompt: &'a str,
}

#[derive(Debug)]
struct Entry {
    sender: mpsc::UnboundedSender<Message>,
    flags: Json,
}

/// All registered sockets.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    entries: Mutex<HashMap<String, Entry>>,
}

impl Sockets {
    /// Sends an event to one client, or to all.
    ///
    /// A client id that is no string is what ComfyUI's sending loop cannot look up: the exception ends the
    /// process.
    pub(crate) fn send(&self, event: &str, data: &Json, client: Option<&Json>) {
        let mut message = Json::Object(Vec::new());
        message.set("type", event);
        message.set("data", data.clone());
        self.deliver(&Message::Text(message.dump().into()), client);
    }

    /// Sends a preview in the form the client asked for.
    pub(crate) fn send_preview_with_metadata(&self, preview: &Preview<'_>, client: Option<&Json>) {
        let mut metadata = json!({
            "node_id": preview.node,
            "prompt_id": preview.prompt,
            "display_node_id": preview.node,
            "parent_node_id": null,
            "real_node_id": preview.node,
        });
        metadata.set(
            "image_type",
            if preview.jpeg {
                "image/jpeg"
            } else {
                "image/png"
            },
        );
        let metadata = metadata.dump();
        let mut frame = BytesMut::with_capacity(8 + metadata.len() + preview.bytes.len());
        frame.put_u32(PREVIEW_IMAGE_WITH_METADATA);
        frame.put_u32(u32::try_from(metadata.len()).unwrap_or(u32::MAX));
        frame.put_slice(metadata.as_bytes());
        frame.put_slice(preview.bytes);
        self.deliver(&Message::Binary(frame.freeze()), client);
    }

    pub(crate) fn send_preview(&self, preview: &Preview<'_>, client: Option<&Json>) {
        let mut frame = BytesMut::with_capacity(8 + preview.bytes.len());
        frame.put_u32(PREVIEW_IMAGE);
        frame.put_u32(if preview.jpeg { 1 } else { 2 });
        frame.put_slice(preview.bytes);
        self.deliver(&Message::Binary(frame.freeze()), client);
    }

    /// Sends a progress text. It names the node but not the prompt.
    pub(crate) fn send_text(&self, node: &str, text: &str, client: Option<&Json>) {
        let mut frame = BytesMut::with_capacity(8 + node.len() + text.len());
        frame.put_u32(TEXT);
        frame.put_u32(u32::try_from(node.len()).unwrap_or(u32::MAX));
        frame.put_slice(node.as_bytes());
        frame.put_slice(text.as_bytes());
        self.deliver(&Message::Binary(frame.freeze()), client);
    }

    /// Whether the client said that it takes previews with metadata.
    pub(crate) fn takes_metadata(&self, client: Option<&Json>) -> bool {
        let Some(Json::Text(client)) = client else {
            return false;
        };
        let entries = self.entries.lock();
        let flag = entries
            .get(client)
            .and_then(|entry| entry.flags.get("supports_preview_metadata"));
        matches!(flag, Some(Json::Bool(true)))
    }

    fn deliver(&self, message: &Message, client: Option<&Json>) {
        let entries = self.entries.lock();
        match client {
            None | Some(Json::Null) => {
                for entry in entries.values() {
                    let _ = entry.sender.send(message.clone());
                }
            }
            Some(Json::Text(client)) => {
                if let Some(entry) = entries.get(client) {
                    let _ = entry.sender.send(message.clone());
                }
            }
            Some(Json::List(_) | Json::Object(_)) => leave(1),
            Some(_) => {}
        }
    }

    fn register(&self, client: &str, sender: mpsc::UnboundedSender<Message>) {
        let entry = Entry {
            sender,
            flags: Json::Object(Vec::new()),
        };
        self.entries.lock().insert(client.to_owned(), entry);
    }

    fn set_flags(&self, client: &str, flags: Json) {
        if let Some(entry) = self.entries.lock().get_mut(client) {
            entry.flags = flags;
        }
    }

    fn remove(&self, client: &str) {
        self.entries.lock().remove(client);
    }
}

/// What the server says about itself, at `/features` and to clients that send their own flags.
pub(crate) fn features(engine: &Engine) -> Json {
    let mut features = json!({
        "supports_preview_metadata": true,
        "supports_model_type_tags": true,
    });
    features.set("max_upload_size", engine.options.announced_upload.clone());
    let manager = if engine.options.manager {
        json!({ "manager": { "supports_v4": true, "supports_csrf_post": true } })
    } else {
        json!({ "manager": { "supports_v4": true } })
    };
    features.set("extension", manager);
    features.set("node_replacements", true);
    features.set("assets", engine.options.assets);
    for (name, value) in &engine.options.features {
        if features.get(name).is_none() {
            features.set(name, value.clone());
        }
    }
    features
}

/// Serves one socket until it closes.
pub(crate) async fn serve(engine: Arc<Engine>, socket: WebSocket, client: Option<String>) {
    let client = client
        .filter(|client| !client.is_empty())
        .unwrap_or_else(|| uuid::Uuid::new_v4().simple().to_string());
    let (sender, mut queue) = mpsc::unbounded_channel::<Message>();
    let (mut sink, mut stream) = socket.split();
    let write = async {
        while let Some(message) = queue.recv().await {
            if sink.send(message).await.is_err() {
                break;
            }
        }
    };
    let read = async {
        engine.sockets.register(&client, sender.clone());
        greet(&engine, &client);
        let mut first = true;
        while let Some(Ok(message)) = stream.next().await {
            match message {
                Message::Text(text) => {
                    hear(&engine, &client, text.as_str(), first);
                    first = false;
                }
                Message::Close(_) => break,
                Message::Binary(_) | Message::Ping(_) | Message::Pong(_) => {}
            }
        }
    };
    tokio::select! {
        () = read => {}
        () = write => {}
    }
    engine.sockets.remove(&client);
}

fn greet(engine: &Engine, client: &str) {
    let target = Json::Text(client.to_owned());
    let mut data = json!({ "status": queue_info(engine.queue.remaining()) });
    data.set("sid", client);
    engine.sockets.send("status", &data, Some(&target));
    let current = engine.current.lock();
    let is_executing = matches!(&current.client, Some(Json::Text(running)) if running == client);
    if let (true, Some(node)) = (is_executing, &current.node) {
        let data = json!({ "node": node });
        engine.sockets.send("executing", &data, Some(&target));
    }
}

/// Only the first message may carry the client's flags; all else is ignored.
fn hear(engine: &Engine, client: &str, text: &str, first: bool) {
    let Ok(message) = Json::parse(text) else {
        engine.warn(&format!(
            "Invalid JSON received from client {client}: {text}"
        ));
        return;
    };
    if first && message.get("type").and_then(Json::as_str) == Some("feature_flags") {
        let flags = message.get("data").cloned().unwrap_or_else(|| json!({}));
        engine.sockets.set_flags(client, flags);
        let target = Json::Text(client.to_owned());
        engine
            .sockets
            .send("feature_flags", &features(engine), Some(&target));
    }
}

/// Sends frames of a size as fast as they are taken; a fault route.
pub(crate) async fn send_frames(socket: WebSocket, count: usize, size: usize) {
    let (mut sink, _stream) = socket.split();
    let frame = Bytes::from(vec![0x5A; size]);
    for _ in 0..count {
        if sink.send(Message::Binary(frame.clone())).await.is_err() {
            return;
        }
    }
    let _ = sink.close().await;
}

/// Sends every text and binary message back; a fault route.
pub(crate) async fn echo(socket: WebSocket) {
    let (mut sink, mut stream) = socket.split();
    while let Some(Ok(message)) = stream.next().await {
        if matches!(message, Message::Text(_) | Message::Binary(_))
            && sink.send(message).await.is_err()
        {
            return;
        }
    }
}
