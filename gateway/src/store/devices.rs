//! Table `devices`: from where each account has signed in before. It outlives the sessions, so that
//! the same browser is no news the next morning.

use super::{Store, StoreError};
use rusqlite::params;

/// Devices kept for each account; the one that rested longest goes first.
const KEEP: i64 = 200;
/// Seconds after which a device that was not used is forgotten.
const FORGET_AFTER: i64 = 365 * 24 * 3600;

/// An address and a browser of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Account.
    pub user_id: String,
    /// Address it signs in from.
    pub address: String,
    /// Browser or program.
    pub user_agent: String,
}

impl Store {
    /// Writes a use of a device down; `true` when it is new.
    pub async fn remember_device(&self, device: Device, now: i64) -> Result<bool, StoreError> {
        self.call(move |connection| {
            let transaction = connection.transaction()?;
            let Device {
                user_id,
                address,
                user_agent,
            } = &device;
            let known = transaction
                .prepare_cached(
                    "UPDATE devices SET last_seen_at = ?4 WHERE user_id = ?1 AND address = ?2 AND user_agent = ?3",
                )?
                .execute(params![user_id, address, user_agent, now])?;
            if known == 0 {
                transaction
                    .prepare_cached("INSERT INTO devices VALUES (?1, ?2, ?3, ?4)")?
                    .execute(params![user_id, address, user_agent, now])?;
                transaction
                    .prepare_cached(
                        "DELETE FROM devices WHERE user_id = ?1 AND rowid NOT IN
                         (SELECT rowid FROM devices WHERE user_id = ?1 ORDER BY last_seen_at DESC LIMIT ?2)",
                    )?
                    .execute(params![user_id, KEEP])?;
            }
            transaction.commit()?;
            Ok(known == 0)
        })
        .await
    }

    /// Writes down that somebody has signed in to an account from a browser with this cookie.
    pub async fn remember_browser(
        &self,
        user_id: String,
        cookie: [u8; 32],
        now: i64,
    ) -> Result<(), StoreError> {
        self.call(move |connection| {
            let transaction = connection.transaction()?;
            transaction
                .prepare_cached(
                    "INSERT INTO browsers VALUES (?1, ?2, ?3)
                     ON CONFLICT DO UPDATE SET last_seen_at = excluded.last_seen_at",
                )?
                .execute(params![user_id, cookie, now])?;
            transaction
                .prepare_cached(
                    "DELETE FROM browsers WHERE user_id = ?1 AND rowid NOT IN
                     (SELECT rowid FROM browsers WHERE user_id = ?1 ORDER BY last_seen_at DESC LIMIT ?2)",
                )?
                .execute(params![user_id, KEEP])?;
            transaction.commit()
        })
        .await
    }

    /// Whether somebody has signed in to an account from a browser with this cookie.
    pub async fn knows_browser(
        &self,
        user_id: String,
        cookie: [u8; 32],
        now: i64,
    ) -> Result<bool, StoreError> {
        self.call(move |connection| {
            connection
                .prepare_cached(
                    "SELECT 1 FROM browsers WHERE user_id = ?1 AND cookie = ?2 AND last_seen_at >= ?3",
                )?
                .exists(params![user_id, cookie, now - FORGET_AFTER])
        })
        .await
    }

    /// Forgets devices and browsers that nobody uses any more.
    pub async fn trim_devices(&self, now: i64) -> Result<(), StoreError> {
        self.call(move |connection| {
            let transaction = connection.transaction()?;
            for table in ["devices", "browsers"] {
                transaction.execute(
                    &format!("DELETE FROM {table} WHERE last_seen_at < ?1"),
                    [now - FORGET_AFTER],
                )?;
            }
            transaction.commit()
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_browser_is_known_to_the_account_that_it_signed_in_to() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("sentinel.db")).unwrap();
        let knows =
            |user: &str, number: u8, now| store.knows_browser(user.to_owned(), [number; 32], now);
        let remember =
            |number: u8, now| store.remember_browser("anna".to_owned(), [number; 32], now);
        remember(1, 1).await.unwrap();
        remember(1, 2).await.unwrap();
        assert!(knows("anna", 1, 3).await.unwrap());
        assert!(!knows("bert", 1, 3).await.unwrap() && !knows("anna", 2, 3).await.unwrap());
        for number in 2..=u8::try_from(KEEP).unwrap() + 1 {
            remember(number, 10 + i64::from(number)).await.unwrap();
        }
        assert!(!knows("anna", 1, 300).await.unwrap());
        assert!(knows("anna", 2, 300).await.unwrap());
        assert!(!knows("anna", 2, 13 + FORGET_AFTER).await.unwrap());
        store.trim_devices(1000 + FORGET_AFTER).await.unwrap();
        assert!(!knows("anna", 200, 300).await.unwrap());
    }

    #[tokio::test]
    async fn a_device_is_new_once_and_their_number_is_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("sentinel.db")).unwrap();
        let device = |number: i64| Device {
            user_id: "anna".into(),
            address: format!("10.0.0.{number}"),
            user_agent: "Browser".into(),
        };
        assert!(store.remember_device(device(0), 1).await.unwrap());
        assert!(!store.remember_device(device(0), 2).await.unwrap());
        for number in 1..=KEEP {
            assert!(
                store
                    .remember_device(device(number), 2 + number)
                    .await
                    .unwrap()
            );
        }
        assert!(store.remember_device(device(0), 1000).await.unwrap());
        assert!(!store.remember_device(device(KEEP), 1001).await.unwrap());
        store.trim_devices(1001 + FORGET_AFTER).await.unwrap();
        assert!(!store.remember_device(device(KEEP), 1002).await.unwrap());
        assert!(store.remember_device(device(0), 1003).await.unwrap());
    }
}
