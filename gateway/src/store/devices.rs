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

    /// Forgets devices that nobody uses any more.
    pub async fn trim_devices(&self, now: i64) -> Result<(), StoreError> {
        self.call(move |connection| {
            connection
                .execute(
                    "DELETE FROM devices WHERE last_seen_at < ?1",
                    [now - FORGET_AFTER],
                )
                .map(|_| ())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
