//! Table `invites`: codes by which a guest makes his own account, once. The code itself is not
//! kept. An invite that is over stays for a while, so that its link is told from a guess.

use super::{Store, StoreError};
use rusqlite::{OptionalExtension as _, Row, params};

/// Seconds that an invite is kept after its end.
const KEEP_AFTER_END: i64 = 30 * 24 * 3600;

/// One invite. Times are seconds since 1970, UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invite {
    /// Number for the API.
    pub id: String,
    /// SHA-256 of the code.
    pub code: [u8; 32],
    /// When it was made.
    pub created_at: i64,
    /// When it ends by itself.
    pub expires_at: i64,
    /// Whether the guest becomes an admin.
    pub admin: bool,
    /// For whom, in the admin's words.
    pub note: String,
    /// Who made it.
    pub made_by: String,
    /// When it was used or withdrawn.
    pub ended_at: Option<i64>,
}

impl Invite {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            code: row.get(1)?,
            created_at: row.get(2)?,
            expires_at: row.get(3)?,
            admin: row.get(4)?,
            note: row.get(5)?,
            made_by: row.get(6)?,
            ended_at: row.get(7)?,
        })
    }

    /// Whether it can be used.
    pub fn is_open(&self, now: i64) -> bool {
        self.ended_at.is_none() && now < self.expires_at
    }
}

const COLUMNS: &str = "id, code, created_at, expires_at, admin, note, made_by, ended_at";

impl Store {
    /// Adds an invite unless `limit` are open already; `false` then.
    pub async fn add_invite(&self, invite: Invite, limit: u32) -> Result<bool, StoreError> {
        self.call(move |connection| {
            let open: u32 = connection.query_row(
                "SELECT count(*) FROM invites WHERE ended_at IS NULL AND expires_at > ?1",
                [invite.created_at],
                |row| row.get(0),
            )?;
            if open >= limit {
                return Ok(false);
            }
            connection.execute(
                "INSERT INTO invites VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![
                    invite.id,
                    invite.code,
                    invite.created_at,
                    invite.expires_at,
                    invite.admin,
                    invite.note,
                    invite.made_by,
                    invite.ended_at
                ],
            )?;
            Ok(true)
        })
        .await
    }

    /// Invites that can be used, newest first.
    pub async fn open_invites(&self, now: i64) -> Result<Vec<Invite>, StoreError> {
        self.call(move |connection| {
            let sql = format!(
                "SELECT {COLUMNS} FROM invites WHERE ended_at IS NULL AND expires_at > ?1 ORDER BY created_at DESC, id"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let rows = statement.query_map([now], Invite::read)?;
            rows.collect()
        })
        .await
    }

    /// The invite of a code, also when it is over.
    pub async fn find_invite(&self, code: [u8; 32]) -> Result<Option<Invite>, StoreError> {
        self.call(move |connection| {
            let sql = format!("SELECT {COLUMNS} FROM invites WHERE code = ?1");
            connection
                .prepare_cached(&sql)?
                .query_row([code], Invite::read)
                .optional()
        })
        .await
    }

    /// Ends an open invite; of several at once only one succeeds, the others get `false`.
    pub async fn end_invite(&self, id: String, now: i64) -> Result<bool, StoreError> {
        self.call(move |connection| {
            let ended = connection.execute(
                "UPDATE invites SET ended_at = ?2 WHERE id = ?1 AND ended_at IS NULL AND expires_at > ?2",
                params![id, now],
            )?;
            Ok(ended == 1)
        })
        .await
    }

    /// Opens an invite again whose use failed.
    pub async fn reopen_invite(&self, id: String) -> Result<(), StoreError> {
        self.call(move |connection| {
            connection
                .execute("UPDATE invites SET ended_at = NULL WHERE id = ?1", [id])
                .map(|_| ())
        })
        .await
    }

    /// Deletes invites that ended long ago.
    pub async fn trim_invites(&self, now: i64) -> Result<(), StoreError> {
        self.call(move |connection| {
            connection
                .execute(
                    "DELETE FROM invites WHERE min(expires_at, coalesce(ended_at, expires_at)) < ?1",
                    [now - KEEP_AFTER_END],
                )
                .map(|_| ())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invite(number: u8, expires_at: i64) -> Invite {
        Invite {
            id: number.to_string(),
            code: [number; 32],
            created_at: 100,
            expires_at,
            admin: false,
            note: "for Ben".into(),
            made_by: "owner".into(),
            ended_at: None,
        }
    }

    #[tokio::test]
    async fn an_invite_counts_once_and_until_it_runs_out() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("sentinel.db")).unwrap();
        assert!(store.add_invite(invite(1, 200), 2).await.unwrap());
        assert!(store.add_invite(invite(2, 300), 2).await.unwrap());
        assert!(!store.add_invite(invite(3, 300), 2).await.unwrap());
        assert_eq!(store.open_invites(150).await.unwrap().len(), 2);
        assert_eq!(store.open_invites(200).await.unwrap().len(), 1);
        assert_eq!(
            store.find_invite([1; 32]).await.unwrap(),
            Some(invite(1, 200))
        );
        assert_eq!(store.find_invite([9; 32]).await.unwrap(), None);
        assert!(!store.end_invite("1".into(), 200).await.unwrap());
        let both = tokio::join!(
            store.end_invite("2".into(), 150),
            store.end_invite("2".into(), 150)
        );
        assert_eq!((both.0.unwrap(), both.1.unwrap()), (true, false));
        assert!(
            !store
                .find_invite([2; 32])
                .await
                .unwrap()
                .unwrap()
                .is_open(150)
        );
        store.reopen_invite("2".into()).await.unwrap();
        assert!(store.end_invite("2".into(), 150).await.unwrap());
        store.trim_invites(151 + KEEP_AFTER_END).await.unwrap();
        assert_eq!(store.find_invite([2; 32]).await.unwrap(), None);
        assert!(store.find_invite([1; 32]).await.unwrap().is_some());
    }
}
