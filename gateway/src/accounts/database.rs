//! The account file and what is in force of it.

use super::{Account, Binding, UserId, UserName};
use crate::files::{self, Fingerprint, Rereading, WriteLock};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why the accounts could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    /// The file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// Cause.
        source: std::io::Error,
    },
    /// The file is damaged.
    #[error("{path} is damaged: {fault}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong with it.
        fault: String,
    },
    /// The name is taken; names that differ in case alone are the same.
    #[error("the user name is taken")]
    NameTaken,
    /// No such account.
    #[error("there is no such account")]
    Unknown,
    /// Nobody could administer any more.
    #[error("the last admin cannot be removed")]
    LastAdmin,
    /// There are accounts already.
    #[error("there are accounts already")]
    NotFirst,
    /// The password was changed meanwhile.
    #[error("the password was changed meanwhile")]
    Changed,
}

impl AccountsError {
    /// Returns true if the file may be readable later as it is.
    fn may_pass(&self) -> bool {
        matches!(self, Self::Io { source, .. } if files::may_pass(source))
    }
}

/// All accounts at one moment.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    by_id: HashMap<UserId, Arc<Account>>,
    by_name: HashMap<String, Vec<UserId>>,
    order: Vec<UserId>,
}

impl Accounts {
    fn parse(text: &str) -> Result<Self, String> {
        let entries: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| error.to_string())?;
        let mut accounts = Self::default();
        for (key, entry) in entries {
            let id = UserId::parse(&key)
                .ok_or_else(|| format!("\"{key}\" cannot be an account's key"))?;
            // They name directories, and many file systems do not tell case apart (defect U24).
            let taken = accounts
                .order
                .iter()
                .find(|other| other.as_str().eq_ignore_ascii_case(&key));
            if let Some(taken) = taken {
                return Err(format!(
                    "the keys \"{taken}\" and \"{key}\" differ in case alone"
                ));
            }
            let account: Account = serde_json::from_value(entry)
                .map_err(|error| format!("account \"{key}\": {error}"))?;
            accounts.insert(Account { id, ..account });
        }
        Ok(accounts)
    }

    fn text(&self) -> String {
        let entries: Map<String, Value> = self
            .iter()
            .filter_map(|account| {
                Some((
                    account.id.to_string(),
                    serde_json::to_value(&**account).ok()?,
                ))
            })
            .collect();
        serde_json::to_string_pretty(&entries).unwrap_or_default() + "\n"
    }

    fn insert(&mut self, mut account: Account) {
        account.binding = account.binding_with(&account.password);
        let id = account.id.clone();
        if let Some(old) = self.by_id.insert(id.clone(), Arc::new(account)) {
            self.forget_name(&old);
        } else {
            self.order.push(id.clone());
        }
        if let Some(account) = self.by_id.get(&id) {
            self.by_name
                .entry(account.username.to_lowercase())
                .or_default()
                .push(id);
        }
    }

    fn remove(&mut self, id: &UserId) {
        if let Some(account) = self.by_id.remove(id) {
            self.forget_name(&account);
            self.order.retain(|other| other != id);
        }
    }

    fn forget_name(&mut self, account: &Account) {
        if let Some(ids) = self.by_name.get_mut(&account.username.to_lowercase()) {
            ids.retain(|id| *id != account.id);
        }
    }

    /// The account with this id.
    pub fn get(&self, id: &UserId) -> Option<&Arc<Account>> {
        self.by_id.get(id)
    }

    /// The account with this name: exact, else the only one that differs in case alone.
    pub fn find(&self, name: &str) -> Option<&Arc<Account>> {
        let ids = self.by_name.get(&name.to_lowercase())?;
        let mut found = ids.iter().filter_map(|id| self.by_id.get(id));
        match (
            found.clone().find(|account| account.username == name),
            ids.len(),
        ) {
            (Some(account), _) => Some(account),
            (None, 1) => found.next(),
            (None, _) => None,
        }
    }

    /// In the file's order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.order.iter().filter_map(|id| self.by_id.get(id))
    }

    /// Number of accounts.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The first enabled admin in the file: the owner.
    pub fn owner(&self) -> Option<&Arc<Account>> {
        self.iter()
            .find(|account| account.admin && !account.disabled)
    }

    /// Whether the password of some account is still as the original had it.
    pub fn has_hashes_of_the_original(&self) -> bool {
        self.iter()
            .any(|account| account.password.starts_with("$2"))
    }

    fn has_admin(&self) -> bool {
        self.owner().is_some()
    }
}

/// One change of an account.
#[derive(Clone, Debug, Default)]
pub struct AccountChange {
    /// New name.
    pub username: Option<UserName>,
    /// New role.
    pub admin: Option<bool>,
    /// Shut out or let in again.
    pub disabled: Option<bool>,
    /// New password hash.
    pub password_hash: Option<String>,
    /// All sign-ins and API tokens end, by the account file: also if the database refuses.
    pub ends_sessions: bool,
    /// The change was allowed by this password, and is refused when the account has another one by
    /// now.
    pub only_while: Option<Binding>,
}

#[derive(Debug)]
struct Seen {
    state: Rereading,
    fault: Option<String>,
}

/// The account file.
#[derive(Debug)]
pub struct Database {
    path: PathBuf,
    current: ArcSwap<Accounts>,
    seen: Mutex<Seen>,
}

impl Database {
    /// Opens the file. A damaged one gives no accounts and no registration until it is mended;
    /// [`Database::fault`] tells.
    pub fn open(path: PathBuf) -> Self {
        let fingerprint = Fingerprint::of(&path);
        let (accounts, fault, may_pass) = match read(&path) {
            Ok(accounts) => (accounts, None, false),
            Err(error) => {
                let may_pass = error.may_pass();
                (Accounts::default(), Some(error.to_string()), may_pass)
            }
        };
        let state = Rereading::after_first(fingerprint, may_pass);
        Self {
            path,
            current: ArcSwap::from_pointee(accounts),
            seen: Mutex::new(Seen { state, fault }),
        }
    }

    /// The accounts in force.
    pub fn current(&self) -> Arc<Accounts> {
        self.current.load_full()
    }

    /// The accounts in force, without counting a reference: for the way of every request.
    pub fn peek(&self) -> arc_swap::Guard<Arc<Accounts>> {
        self.current.load()
    }

    /// Why the file on disk is not what is in force.
    pub fn fault(&self) -> Option<String> {
        self.seen.lock().fault.clone()
    }

    /// Whether the first account may be made: only with a readable file that holds none.
    pub fn awaits_first_account(&self) -> bool {
        self.seen.lock().fault.is_none() && self.current.load().is_empty()
    }

    /// Reads the file again when it has changed. `Ok(true)`: others are in force now. On an error
    /// the last good accounts stay. A file that vanished is one: it would open registration.
    pub fn reload(&self) -> Result<bool, AccountsError> {
        let mut seen = self.seen.lock();
        let now = Fingerprint::of(&self.path);
        if !seen.state.is_due(&now) {
            return Ok(false);
        }
        let result = read(&self.path).and_then(|accounts| {
            if accounts.is_empty() && !self.current.load().is_empty() {
                return Err(
                    self.damaged("it holds no account any more; restart Sentinel if that is meant")
                );
            }
            Ok(accounts)
        });
        let may_pass = result.as_ref().is_err_and(AccountsError::may_pass);
        seen.state.note(now, may_pass);
        seen.fault = result.as_ref().err().map(ToString::to_string);
        self.current.store(Arc::new(result?));
        Ok(true)
    }

    /// Adds an account.
    pub fn add(&self, account: Account) -> Result<(), AccountsError> {
        self.update(|accounts| {
            if is_taken(accounts, &account.username, None) {
                return Err(AccountsError::NameTaken);
            }
            accounts.insert(account);
            Ok(())
        })
    }

    /// Adds the first account; of two at once only one succeeds.
    pub fn add_first(&self, account: Account) -> Result<(), AccountsError> {
        self.update(|accounts| {
            if !accounts.is_empty() {
                return Err(AccountsError::NotFirst);
            }
            accounts.insert(account);
            Ok(())
        })
    }

    /// Adds accounts of an original `users_db.json`; returns names that were taken and left out.
    pub fn import(&self, text: &str) -> Result<(usize, Vec<String>), AccountsError> {
        let imported = Accounts::parse(text).map_err(|fault| self.damaged(&fault))?;
        self.update(|accounts| {
            let mut left_out = Vec::new();
            let mut added = 0;
            for account in imported.iter() {
                if is_taken(accounts, &account.username, None)
                    || accounts.get(&account.id).is_some()
                {
                    left_out.push(account.username.clone());
                } else {
                    accounts.insert((**account).clone());
                    added += 1;
                }
            }
            Ok((added, left_out))
        })
    }

    /// Changes an account; the last enabled admin stays one.
    pub fn change(
        &self,
        id: &UserId,
        change: AccountChange,
    ) -> Result<Arc<Account>, AccountsError> {
        self.update(|accounts| {
            let mut account = (**accounts.get(id).ok_or(AccountsError::Unknown)?).clone();
            if change
                .only_while
                .is_some_and(|given| given != account.binding())
            {
                return Err(AccountsError::Changed);
            }
            if let Some(name) = change.username {
                if is_taken(accounts, name.as_str(), Some(id)) {
                    return Err(AccountsError::NameTaken);
                }
                account.username = name.as_str().to_owned();
            }
            account.admin = change.admin.unwrap_or(account.admin);
            let is_shut_out = change.disabled == Some(true) && !account.disabled;
            if is_shut_out || change.ends_sessions {
                account.session_epoch = account.session_epoch.saturating_add(1);
            }
            account.disabled = change.disabled.unwrap_or(account.disabled);
            if let Some(hash) = change.password_hash {
                account.password = hash;
            }
            let had_admin = accounts.has_admin();
            accounts.insert(account);
            if had_admin && !accounts.has_admin() {
                return Err(AccountsError::LastAdmin);
            }
            accounts.get(id).cloned().ok_or(AccountsError::Unknown)
        })
    }

    /// Deletes an account; the last enabled admin stays.
    pub fn delete(&self, id: &UserId) -> Result<(), AccountsError> {
        self.update(|accounts| {
            accounts.get(id).ok_or(AccountsError::Unknown)?;
            let had_admin = accounts.has_admin();
            accounts.remove(id);
            if had_admin && !accounts.has_admin() {
                return Err(AccountsError::LastAdmin);
            }
            Ok(())
        })
    }

    /// Reads what is on disk under the lock, changes a copy, writes it, and only then puts it in
    /// force: nothing another process wrote is lost, and a failed write changes nothing.
    fn update<Answer>(
        &self,
        change: impl FnOnce(&mut Accounts) -> Result<Answer, AccountsError>,
    ) -> Result<Answer, AccountsError> {
        let failed = |source| AccountsError::Io {
            path: self.path.display().to_string(),
            source,
        };
        let _lock = WriteLock::acquire(&self.path).map_err(failed)?;
        let mut seen = self.seen.lock();
        let mut accounts = read(&self.path)?;
        if accounts.is_empty() && !self.current.load().is_empty() {
            return Err(self.damaged("it holds no account any more"));
        }
        let answer = change(&mut accounts)?;
        files::write_atomically(&self.path, accounts.text().as_bytes()).map_err(failed)?;
        *seen = Seen {
            state: Rereading::after(Fingerprint::of(&self.path)),
            fault: None,
        };
        self.current.store(Arc::new(accounts));
        Ok(answer)
    }

    fn damaged(&self, fault: &str) -> AccountsError {
        AccountsError::Damaged {
            path: self.path.display().to_string(),
            fault: fault.to_owned(),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn is_taken(accounts: &Accounts, name: &str, except: Option<&UserId>) -> bool {
    accounts
        .by_name
        .get(&name.to_lowercase())
        .is_some_and(|ids| ids.iter().any(|id| Some(id) != except))
}

fn read(path: &Path) -> Result<Accounts, AccountsError> {
    let display = || path.display().to_string();
    let text = files::read_optional(path).map_err(|source| AccountsError::Io {
        path: display(),
        source,
    })?;
    match text {
        None => Ok(Accounts::default()),
        // A file of no bytes is what a power cut leaves of somebody's unsafe write.
        Some(text) if text.trim().is_empty() => Err(AccountsError::Damaged {
            path: display(),
            fault: "it is empty".to_owned(),
        }),
        Some(text) => Accounts::parse(&text).map_err(|fault| AccountsError::Damaged {
            path: display(),
            fault,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str, admin: bool) -> Account {
        Account::new(&UserName::parse(name).unwrap(), "hash".to_owned(), admin, 0)
    }

    fn database() -> (tempfile::TempDir, Database) {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::open(directory.path().join("users_db.json"));
        (directory, database)
    }

    #[test]
    fn s38_u12_a_damaged_file_never_reopens_registration() {
        for damage in [
            "",
            "  \n",
            "{",
            "[]",
            r#"{"id": {"username": "bob"}}"#,
            r#"{"../x": {}}"#,
            r#"{"id": {"username": "bob", "password": "x", "admin": "gusets"}}"#,
        ] {
            let (directory, database) = database();
            assert!(database.awaits_first_account());
            database.add_first(account("owner", true)).unwrap();
            std::fs::write(directory.path().join("users_db.json"), damage).unwrap();
            assert!(database.reload().is_err(), "{damage:?}");
            assert!(
                database.current().find("owner").is_some(),
                "the last good accounts stay: {damage:?}"
            );
            assert!(
                database.add(account("stranger", true)).is_err(),
                "{damage:?}"
            );
            let reopened = Database::open(directory.path().join("users_db.json"));
            assert!(!reopened.awaits_first_account(), "{damage:?}");
            assert!(
                reopened.add_first(account("stranger", true)).is_err(),
                "{damage:?}"
            );
        }
        let (directory, database) = database();
        database.add_first(account("owner", true)).unwrap();
        for emptied in ["{}", "missing"] {
            let path = directory.path().join("users_db.json");
            if emptied == "missing" {
                std::fs::remove_file(&path).unwrap()
            } else {
                std::fs::write(&path, emptied).unwrap()
            }
            assert!(database.reload().is_err());
            assert!(database.add_first(account("stranger", true)).is_err());
            assert!(!database.awaits_first_account());
        }
    }

    #[test]
    fn s15_s16_several_admins_and_a_demotion_counts_at_once() {
        let (_directory, database) = database();
        database.add_first(account("first", true)).unwrap();
        database.add(account("second", true)).unwrap();
        let id = |name: &str| database.current().find(name).unwrap().id.clone();
        assert!(database.current().iter().all(|account| account.admin));
        let demote = AccountChange {
            admin: Some(false),
            ..AccountChange::default()
        };
        database.change(&id("first"), demote.clone()).unwrap();
        assert!(!database.current().find("first").unwrap().admin);
        assert!(matches!(
            database.change(&id("second"), demote),
            Err(AccountsError::LastAdmin)
        ));
        assert!(matches!(
            database.delete(&id("second")),
            Err(AccountsError::LastAdmin)
        ));
        let disable = AccountChange {
            disabled: Some(true),
            ..AccountChange::default()
        };
        assert!(matches!(
            database.change(&id("second"), disable),
            Err(AccountsError::LastAdmin)
        ));
        database.delete(&id("first")).unwrap();
    }

    #[test]
    fn ended_sessions_are_ended_by_the_account_file() {
        let (directory, database) = database();
        database.add_first(account("owner", true)).unwrap();
        database.add(account("anna", false)).unwrap();
        let anna = || database.current().find("anna").unwrap().clone();
        let change = |change| database.change(&anna().id, change).unwrap().binding();
        let first = anna().binding();
        let renamed = change(AccountChange {
            admin: Some(false),
            ..AccountChange::default()
        });
        assert_eq!(renamed, first);
        let ended = change(AccountChange {
            ends_sessions: true,
            ..AccountChange::default()
        });
        assert_ne!(ended, first);
        let disabled = |disabled| AccountChange {
            disabled: Some(disabled),
            ..AccountChange::default()
        };
        let shut_out = change(disabled(true));
        assert!(shut_out != ended && shut_out != first);
        assert_eq!(change(disabled(true)), shut_out);
        assert_eq!(change(disabled(false)), shut_out, "they stay ended");
        let again = Database::open(directory.path().join("users_db.json"));
        assert_eq!(again.current().find("anna").unwrap().binding(), shut_out);
        assert_eq!(anna().binding_with("hash"), shut_out);
    }

    #[test]
    fn a_change_that_an_old_password_allowed_is_refused() {
        let (_directory, database) = database();
        database.add_first(account("owner", true)).unwrap();
        let before = database.current().find("owner").unwrap().clone();
        let change = |hash: &str| {
            let change = AccountChange {
                password_hash: Some(hash.to_owned()),
                only_while: Some(before.binding()),
                ..AccountChange::default()
            };
            database.change(&before.id, change)
        };
        assert_eq!(change("new").unwrap().password_hash(), "new");
        assert!(matches!(change("newer"), Err(AccountsError::Changed)));
        let now = database.current().find("owner").unwrap().clone();
        assert_eq!(now.password_hash(), "new");
    }

    #[test]
    fn the_originals_file_is_read_as_it_stands_and_edits_of_others_are_kept() {
        let (directory, database) = database();
        let path = directory.path().join("users_db.json");
        std::fs::write(
            &path,
            r#"{"7f": {"username": "Ann", "password": "$2b$12$x", "admin": true, "note": "keep"},
                "8a": {"username": "ben", "password": "$2b$12$y"}}"#,
        )
        .unwrap();
        assert!(database.reload().unwrap());
        assert!(database.current().find("ANN").unwrap().admin);
        assert!(matches!(
            database.add(account("ann", false)),
            Err(AccountsError::NameTaken)
        ));
        database.add(account("cleo", false)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let names: Vec<_> = database
            .current()
            .iter()
            .map(|account| account.username.clone())
            .collect();
        assert_eq!(names, ["Ann", "ben", "cleo"]);
        assert!(text.contains(r#""note": "keep""#));
        assert!(
            !format!("{:?}", database.current()).contains("$2b$"),
            "hashes stay out of the log"
        );
    }

    #[test]
    fn two_first_accounts_at_once_make_one() {
        let (directory, _) = database();
        let path = directory.path().join("users_db.json");
        let won: usize = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..8)
                .map(|number| {
                    let database = Database::open(path.clone());
                    scope.spawn(move || {
                        usize::from(
                            database
                                .add_first(account(&format!("admin{number}"), true))
                                .is_ok(),
                        )
                    })
                })
                .collect();
            tries
                .into_iter()
                .map(|attempt| attempt.join().unwrap())
                .sum()
        });
        assert_eq!(won, 1);
    }
}
