//! Single things to remember.

use super::{Store, StoreError};
use rusqlite::OptionalExtension as _;

impl Store {
    /// What was remembered under a name. Waits on this thread: for the start.
    pub fn fact(&self, name: &str) -> Result<Option<String>, StoreError> {
        let name = name.to_owned();
        self.call_blocking(move |connection| {
            connection
                .query_row("SELECT value FROM facts WHERE name = ?1", [name], |row| {
                    row.get(0)
                })
                .optional()
        })
    }

    /// Remembers a value; a failure is logged, as the caller goes on with what he knows.
    pub fn set_fact(&self, name: &str, value: &str) {
        let row = [name.to_owned(), value.to_owned()];
        let posted = self.post(move |connection| {
            let written = connection.execute(
                "INSERT INTO facts (name, value) VALUES (?1, ?2)
                 ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                row,
            );
            if let Err(error) = written {
                tracing::error!(%error, "a fact could not be written down");
            }
        });
        if let Err(error) = posted {
            tracing::error!(%error, "a fact could not be written down");
        }
    }
}
