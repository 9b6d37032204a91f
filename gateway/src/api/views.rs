//! What the API shows, shaped for clients.

use crate::accounts::{Account, Accounts, UserId};
use crate::app::App;
use crate::auth::{Session, SessionKind, Sessions};
use crate::clock::rfc3339;
use crate::engine::{Engine, EngineId, EngineSight};
use crate::supervisor::{EngineState, EngineStatus, LogEntry};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

/// A sign-in.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SessionView {
    id: String,
    created_at: String,
    /// When it was made, if it was not used since.
    last_used_at: String,
    expires_at: String,
    /// Address that signed in.
    address: String,
    user_agent: String,
    /// Whether this request was made with it.
    current: bool,
}

impl SessionView {
    pub(crate) fn of(session: &Session, current: &str) -> Self {
        Self {
            id: session.id.clone(),
            created_at: rfc3339(session.created_at),
            last_used_at: rfc3339(session.last_used_at().unwrap_or(session.created_at)),
            expires_at: rfc3339(session.expires_at),
            address: session.address.clone(),
            user_agent: session.user_agent.clone(),
            current: session.id == current,
        }
    }
}

/// An API token, without the token.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenView {
    id: String,
    name: String,
    created_at: String,
    expires_at: String,
    last_used_at: Option<String>,
    /// Whether it was made with admin rights.
    admin: bool,
    /// Whether this request was made with it.
    current: bool,
}

impl TokenView {
    pub(crate) fn of(session: &Session, current: &str) -> Self {
        Self {
            id: session.id.clone(),
            name: session.name.clone(),
            created_at: rfc3339(session.created_at),
            expires_at: rfc3339(session.expires_at),
            last_used_at: session.last_used_at().map(rfc3339),
            admin: session.admin,
            current: session.id == current,
        }
    }
}

/// An account.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UserView {
    id: String,
    username: String,
    admin: bool,
    disabled: bool,
    created_at: Option<String>,
    last_seen_at: Option<String>,
    /// Browsers signed in.
    sessions: usize,
    /// API tokens.
    tokens: usize,
    /// Room that his files take, at most a minute old; only in the list of all.
    storage_bytes: Option<u64>,
}

impl UserView {
    pub(crate) fn of(account: &Account, sessions: &Sessions) -> Self {
        let live = sessions.of_user(&account.id);
        let count = |kind| live.iter().filter(|session| session.kind == kind).count();
        Self {
            id: account.id.to_string(),
            username: account.username.clone(),
            admin: account.admin,
            disabled: account.disabled,
            created_at: account.created_at.map(rfc3339),
            last_seen_at: live
                .iter()
                .filter_map(|session| session.last_used_at())
                .max()
                .map(rfc3339),
            sessions: count(SessionKind::Browser),
            tokens: count(SessionKind::Token),
            storage_bytes: None,
        }
    }

    pub(crate) fn with_storage(self, bytes: Option<u64>) -> Self {
        Self {
            storage_bytes: bytes,
            ..self
        }
    }
}

/// ComfyUI's state.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EngineView {
    /// `stopped`, `starting`, `ready`, `stopping`, `crashed` (it will be started again) or `failed`.
    state: String,
    /// In plain words.
    message: String,
    since: String,
    /// 0 to 1 while it starts.
    progress: Option<f32>,
    /// Seconds until it is started again.
    retry_in: Option<u64>,
    version: Option<String>,
    /// Whether it is the demo engine.
    demo: bool,
    /// Place in the line for its start, from 1.
    place: Option<usize>,
    /// Last log lines, for admins.
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<Vec<String>>,
}

impl EngineView {
    /// A user's own engine. Reasons and log lines may name paths: admins alone see them.
    pub(crate) fn of_user(app: &App, user: &UserId, log_lines: Option<usize>) -> Self {
        let engine = app.engines.of(user);
        Self {
            place: app.engines.place_of(user),
            ..Self::new(
                app.engines.status_of(user),
                app.engines.is_demo(),
                log_lines.map(|lines| last_lines(engine.as_deref(), lines)),
            )
        }
    }

    /// The engine that stands for ComfyUI as a whole, for admins.
    pub(crate) fn primary(app: &App, log_lines: usize) -> Self {
        let engine = app.engines.primary();
        Self::new(
            app.engines.primary_status(),
            app.engines.is_demo(),
            Some(last_lines(engine.as_deref(), log_lines)),
        )
    }

    fn new(status: EngineStatus, demo: bool, log: Option<Vec<String>>) -> Self {
        let is_bad = matches!(status.state, EngineState::Crashed | EngineState::Failed);
        let retry_in = status.retry_remaining(OffsetDateTime::now_utc());
        Self {
            state: status.state.as_str().to_owned(),
            message: if is_bad && log.is_none() {
                "ComfyUI is not running. An admin can see why.".to_owned()
            } else {
                status.message
            },
            since: rfc3339(status.since.unix_timestamp()),
            progress: status.progress,
            retry_in: retry_in.map(|wait| wait.as_secs() + 1),
            version: status.version,
            demo,
            place: None,
            log,
        }
    }
}

fn last_lines(engine: Option<&Engine>, lines: usize) -> Vec<String> {
    let entries = engine.map(|engine| engine.log().tail(lines));
    entries
        .into_iter()
        .flatten()
        .map(|entry| entry.text)
        .collect()
}

/// One of the engines, for admins.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EngineSightView {
    /// `shared`, or the id of the user whose own it is.
    id: String,
    username: Option<String>,
    /// As in the own engine's state.
    state: String,
    message: String,
    since: String,
    pid: Option<u32>,
    version: Option<String>,
    memory_bytes: Option<u64>,
    gpu_memory_bytes: Option<u64>,
    /// Jobs running or waiting in ComfyUI.
    jobs: Option<u32>,
    /// Prompts that wait for the GPU before it.
    jobs_waiting: usize,
    /// Open pages.
    sockets: u32,
    last_used_at: String,
    sandbox: SandboxView,
}

/// How far the system confines an engine.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SandboxView {
    /// `confined`, `partly`, `off` or `unavailable`.
    state: &'static str,
    /// In plain words.
    detail: String,
}

impl EngineSightView {
    pub(crate) fn of(sight: EngineSight, accounts: &Accounts) -> Self {
        let username = match &sight.id {
            EngineId::Shared => None,
            EngineId::User(user) => accounts.get(user).map(|account| account.username.clone()),
        };
        Self {
            id: sight.id.to_string(),
            username,
            state: sight.status.state.as_str().to_owned(),
            message: sight.status.message,
            since: rfc3339(sight.status.since.unix_timestamp()),
            pid: sight.status.pid,
            version: sight.status.version,
            memory_bytes: sight.memory,
            gpu_memory_bytes: sight.gpu_memory,
            jobs: sight.jobs,
            jobs_waiting: sight.waiting,
            sockets: sight.sockets,
            last_used_at: rfc3339(sight.last_used),
            sandbox: SandboxView {
                state: sight.status.sandbox.state.as_str(),
                detail: sight.status.sandbox.detail,
            },
        }
    }
}

/// A line that ComfyUI printed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LogLineView {
    seq: u64,
    at: String,
    /// `out` or `err`.
    stream: &'static str,
    text: String,
}

impl From<LogEntry> for LogLineView {
    fn from(entry: LogEntry) -> Self {
        Self {
            seq: entry.seq,
            at: rfc3339(entry.at.unix_timestamp()),
            stream: match entry.stream {
                crate::supervisor::LogStream::Out => "out",
                crate::supervisor::LogStream::Err => "err",
            },
            text: entry.text,
        }
    }
}
