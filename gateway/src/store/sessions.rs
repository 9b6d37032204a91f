//! Table `sessions`: sign-ins of browsers and API tokens.

use super::{Store, StoreError};
use rusqlite::{Row, Transaction, params};

/// One row. Times are seconds since 1970, UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// `jti` of the token.
    pub id: String,
    /// Account.
    pub user_id: String,
    /// `browser` or `token`.
    pub kind: String,
    /// Name of an API token.
    pub name: String,
    /// Whether an API token was made with admin rights.
    pub admin: bool,
    /// When it was made.
    pub created_at: i64,
    /// When it ends by itself.
    pub expires_at: i64,
    /// Last use, coarse.
    pub last_used_at: Option<i64>,
    /// Address that made it.
    pub address: String,
    /// Browser or program that made it.
    pub user_agent: String,
    /// Digest of what it was made by; none in what older versions made.
    pub binding: Option<Vec<u8>>,
}

impl SessionRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            user_id: row.get(1)?,
            kind: row.get(2)?,
            name: row.get(3)?,
            admin: row.get(4)?,
            created_at: row.get(5)?,
            expires_at: row.get(6)?,
            last_used_at: row.get(7)?,
            address: row.get(8)?,
            user_agent: row.get(9)?,
            binding: row.get(10)?,
        })
    }
}

impl Store {
    /// All sessions, also those that have run out: the clock may be wrong.
    pub fn load_sessions(&self) -> Result<Vec<SessionRow>, StoreError> {
        self.call_blocking(move |connection| {
            let mut statement = connection.prepare(
                "SELECT id, user_id, kind, name, admin, created_at, expires_at, last_used_at, address, user_agent,
                        binding
                 FROM sessions",
            )?;
            let rows = statement.query_map([], SessionRow::read)?;
            rows.collect()
        })
    }

    /// Adds a session; durable when this returns.
    pub async fn add_session(&self, row: SessionRow) -> Result<(), StoreError> {
        self.call(move |connection| {
            connection
                .prepare_cached(
                    "INSERT INTO sessions (id, user_id, kind, name, admin, created_at, expires_at, last_used_at,
                                           address, user_agent, binding)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
                )?
                .execute(params![
                    row.id,
                    row.user_id,
                    row.kind,
                    row.name,
                    row.admin,
                    row.created_at,
                    row.expires_at,
                    row.last_used_at,
                    row.address,
                    row.user_agent,
                    row.binding
                ])
                .map(|_| ())
        })
        .await
    }

    /// Removes sessions; durable when this returns.
    pub async fn remove_sessions(&self, ids: Vec<String>) -> Result<(), StoreError> {
        self.call(move |connection| {
            let transaction = connection.transaction()?;
            for id in ids {
                transaction
                    .prepare_cached("DELETE FROM sessions WHERE id = ?1")?
                    .execute([id])?;
            }
            transaction.commit()
        })
        .await
    }

    /// Writes down what sessions rest on from now on, and forgets others; before anybody is served.
    pub fn settle_sessions(
        &self,
        bound: Vec<(String, Vec<u8>)>,
        over: Vec<String>,
    ) -> Result<(), StoreError> {
        self.call_blocking(move |connection| {
            let transaction = connection.transaction()?;
            bind(&transaction, bound)?;
            for id in over {
                transaction
                    .prepare_cached("DELETE FROM sessions WHERE id = ?1")?
                    .execute([id])?;
            }
            transaction.commit()
        })
    }

    /// Writes down what sessions rest on from now on; durable when this returns.
    pub async fn bind_sessions(&self, bound: Vec<(String, Vec<u8>)>) -> Result<(), StoreError> {
        self.call(move |connection| {
            let transaction = connection.transaction()?;
            bind(&transaction, bound)?;
            transaction.commit()
        })
        .await
    }

    /// Writes down when sessions were last used.
    pub async fn touch_sessions(&self, used: Vec<(String, i64)>) -> Result<(), StoreError> {
        self.call(move |connection| {
            let transaction = connection.transaction()?;
            for (id, at) in used {
                transaction
                    .prepare_cached("UPDATE sessions SET last_used_at = ?2 WHERE id = ?1")?
                    .execute(params![id, at])?;
            }
            transaction.commit()
        })
        .await
    }
}

fn bind(transaction: &Transaction<'_>, bound: Vec<(String, Vec<u8>)>) -> rusqlite::Result<()> {
    for (id, binding) in bound {
        transaction
            .prepare_cached("UPDATE sessions SET binding = ?2 WHERE id = ?1")?
            .execute(params![id, binding])?;
    }
    Ok(())
}
