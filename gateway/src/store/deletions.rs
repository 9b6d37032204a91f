//! Table `deleted_accounts`: accounts that an admin has deleted. Nothing else says that somebody is
//! gone: an account that is merely not in the account file may be in it again tomorrow.
//!
//! It is in the database, and not in the account file, because it guards rows of the database: if the
//! database is lost, there is nothing left for it to delete. The account file keeps the original's
//! form, where every entry is an account.

use super::{Store, StoreError};
use crate::accounts::UserId;
use rusqlite::{Connection, params};
use std::collections::HashSet;

impl Store {
    /// Writes down that an account is being deleted; durable when this returns.
    pub(crate) async fn note_deletion(&self, user: UserId, now: i64) -> Result<(), StoreError> {
        self.call(move |connection| note(connection, &user, now))
            .await
    }

    /// As [`Store::note_deletion`], waiting on this thread: for the command line.
    pub(crate) fn note_deletion_blocking(&self, user: UserId, now: i64) -> Result<(), StoreError> {
        self.call_blocking(move |connection| note(connection, &user, now))
    }

    /// These accounts are there, so they are not deleted: a deletion was refused, or somebody has put
    /// an older account file back.
    pub(crate) async fn take_deletions_back(&self, users: Vec<UserId>) -> Result<(), StoreError> {
        self.call(move |connection| take_back(connection, &users))
            .await
    }

    /// As [`Store::take_deletions_back`], waiting on this thread: for the command line and the start.
    pub(crate) fn take_deletions_back_blocking(
        &self,
        users: Vec<UserId>,
    ) -> Result<(), StoreError> {
        self.call_blocking(move |connection| take_back(connection, &users))
    }

    /// Those of these users whose accounts were deleted.
    pub(crate) async fn deleted_among(
        &self,
        users: Vec<UserId>,
    ) -> Result<HashSet<UserId>, StoreError> {
        self.call(move |connection| among(connection, &users)).await
    }

    /// Returns true if this account was deleted. Waits on this thread: for the start.
    pub(crate) fn is_deleted(&self, user: UserId) -> Result<bool, StoreError> {
        self.call_blocking(move |connection| Ok(!among(connection, &[user])?.is_empty()))
    }
}

fn note(connection: &Connection, user: &UserId, now: i64) -> rusqlite::Result<()> {
    connection
        .execute(
            "INSERT INTO deleted_accounts (user_id, deleted_at) VALUES (?1, ?2)
             ON CONFLICT (user_id) DO UPDATE SET deleted_at = excluded.deleted_at",
            params![user.as_str(), now],
        )
        .map(drop)
}

fn take_back(connection: &Connection, users: &[UserId]) -> rusqlite::Result<()> {
    connection
        .execute(
            "DELETE FROM deleted_accounts WHERE user_id IN (SELECT value FROM json_each(?1))",
            [list(users)],
        )
        .map(drop)
}

fn among(connection: &Connection, users: &[UserId]) -> rusqlite::Result<HashSet<UserId>> {
    let mut rows = connection.prepare_cached(
        "SELECT user_id FROM deleted_accounts WHERE user_id IN (SELECT value FROM json_each(?1))",
    )?;
    let rows = rows.query_map([list(users)], |row| row.get::<_, String>(0))?;
    Ok(rows
        .filter_map(Result::ok)
        .filter_map(|text| UserId::parse(&text))
        .collect())
}

/// As a JSON text, which SQLite can take apart.
fn list(users: &[UserId]) -> String {
    serde_json::to_string(users).unwrap_or_else(|_| "[]".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_noted_deletion_that_was_not_taken_back_counts() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("sentinel.db")).unwrap();
        let [anna, bert] = ["anna", "bert"].map(|name| UserId::parse(name).unwrap());
        let deleted = || store.deleted_among(vec![anna.clone(), bert.clone()]);
        assert!(deleted().await.unwrap().is_empty());
        store.note_deletion(anna.clone(), 1).await.unwrap();
        store.note_deletion(anna.clone(), 2).await.unwrap();
        assert_eq!(deleted().await.unwrap(), HashSet::from([anna.clone()]));
        store.take_deletions_back(vec![anna.clone()]).await.unwrap();
        assert!(deleted().await.unwrap().is_empty());
    }
}
