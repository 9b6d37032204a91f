//! Table `audit`: sign-ins, refusals, admin acts.

use super::{Store, StoreError};
use rusqlite::params;

/// Rows kept; the oldest go first.
const KEEP: i64 = 100_000;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditEvent {
    /// An account was made.
    Registered,
    /// Somebody signed in.
    SignedIn,
    /// A sign-in failed.
    SignInFailed,
    /// An address or account was locked out.
    LockedOut,
    /// An address was put on the deny list.
    Banned,
    /// Somebody logged out.
    LoggedOut,
    /// An API token was made.
    TokenMade,
    /// A session or token was ended by hand.
    Revoked,
    /// A password was changed or reset.
    PasswordChanged,
    /// An account was changed, disabled or deleted.
    AccountChanged,
    /// A list was edited or a lock-out lifted.
    AccessChanged,
    /// Settings were changed.
    ConfigChanged,
    /// ComfyUI was started, stopped or restarted by an admin.
    EngineCommand,
    /// Jobs were paused, moved or cancelled by an admin.
    QueueCommand,
    /// An invite was made.
    InviteMade,
    /// An invite was used.
    InviteUsed,
    /// An invite was withdrawn.
    InviteWithdrawn,
    /// Sharing on the LAN was changed.
    SharingChanged,
    /// A non-admin was refused an admin's route.
    Refused,
}

impl AuditEvent {
    /// Name in the table and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::SignedIn => "signed_in",
            Self::SignInFailed => "sign_in_failed",
            Self::LockedOut => "locked_out",
            Self::Banned => "banned",
            Self::LoggedOut => "logged_out",
            Self::TokenMade => "token_made",
            Self::Revoked => "revoked",
            Self::PasswordChanged => "password_changed",
            Self::AccountChanged => "account_changed",
            Self::AccessChanged => "access_changed",
            Self::ConfigChanged => "config_changed",
            Self::EngineCommand => "engine_command",
            Self::QueueCommand => "queue_command",
            Self::InviteMade => "invite_made",
            Self::InviteUsed => "invite_used",
            Self::InviteWithdrawn => "invite_withdrawn",
            Self::SharingChanged => "sharing_changed",
            Self::Refused => "refused",
        }
    }
}

/// A row to write.
#[derive(Clone, Debug)]
pub struct AuditEntry {
    /// What happened.
    pub event: AuditEvent,
    /// Who did it.
    pub user: Option<String>,
    /// From where.
    pub address: Option<String>,
    /// To whom or what.
    pub detail: Option<String>,
}

/// A row as an admin sees it.
#[derive(Clone, Debug)]
pub struct AuditView {
    /// Number, rising.
    pub id: i64,
    /// Seconds since 1970, UTC.
    pub at: i64,
    /// [`AuditEvent::name`].
    pub event: String,
    /// Who did it.
    pub user: Option<String>,
    /// From where.
    pub address: Option<String>,
    /// To whom or what.
    pub detail: Option<String>,
}

impl Store {
    /// Writes a row without waiting for it; a lost one is logged.
    pub fn audit(&self, at: i64, entry: AuditEntry) {
        let result = self.post(move |connection| {
            let written = connection.prepare_cached(
                "INSERT INTO audit (at, event, user, address, detail) VALUES (?1, ?2, ?3, ?4, ?5)",
            );
            let written = written.and_then(|mut statement| {
                statement.execute(params![
                    at,
                    entry.event.name(),
                    entry.user,
                    entry.address,
                    entry.detail
                ])
            });
            if let Err(error) = written {
                tracing::error!(%error, event = entry.event.name(), "an audit entry was lost");
            }
        });
        if let Err(error) = result {
            tracing::error!(%error, "an audit entry was lost");
        }
    }

    /// The newest rows, at most `limit`, older than row `before`.
    pub async fn audit_entries(
        &self,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<AuditView>, StoreError> {
        self.call(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT id, at, event, user, address, detail FROM audit WHERE id < ?1 ORDER BY id DESC LIMIT ?2",
            )?;
            let rows = statement.query_map(params![before.unwrap_or(i64::MAX), limit], |row| {
                Ok(AuditView {
                    id: row.get(0)?,
                    at: row.get(1)?,
                    event: row.get(2)?,
                    user: row.get(3)?,
                    address: row.get(4)?,
                    detail: row.get(5)?,
                })
            })?;
            rows.collect()
        })
        .await
    }

    /// Deletes the oldest rows beyond what is kept.
    pub async fn trim_audit(&self) -> Result<(), StoreError> {
        self.call(|connection| {
            connection
                .execute(
                    "DELETE FROM audit WHERE id <= (SELECT max(id) FROM audit) - ?1",
                    [KEEP],
                )
                .map(|_| ())
        })
        .await
    }
}
