//! `users_db.json`: the accounts, in the original's format, edited by hand or by us, read again
//! when it changes. A broken file is refused and reported; it never means "no accounts" (S38).

mod binding;
mod database;
mod name;
mod password;

pub use binding::Binding;
pub use database::{AccountChange, Accounts, AccountsError, Database};
pub use name::{PasswordFault, UserName, UserNameFault, check_password};
pub use password::{HashError, Hasher, PasswordCheck};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;
use std::sync::Arc;

/// Key of an account: it stays when the name changes, and names the user's directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UserId(Arc<str>);

impl UserId {
    /// A new, unguessable id.
    pub fn generate() -> Self {
        Self(uuid::Uuid::new_v4().to_string().into())
    }

    /// An id as found in the file: letters, digits, `-` and `_`, so that it can name a directory.
    pub fn parse(text: &str) -> Option<Self> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        ((1..=64).contains(&text.len()) && text.bytes().all(legal)).then(|| Self(text.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// One account. Field names are the original's; those it does not know are optional.
#[derive(Clone, Serialize, Deserialize)]
pub struct Account {
    /// Key of the file's entry.
    #[serde(skip, default = "UserId::generate")]
    pub id: UserId,
    /// Sign-in name.
    pub username: String,
    /// argon2id hash in PHC form, or a bcrypt hash of the original.
    password: String,
    /// Of the hash; computed once, as every request is judged by it.
    #[serde(skip)]
    binding: Binding,
    /// Whether he is an admin.
    #[serde(default)]
    pub admin: bool,
    /// Whether he is shut out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
    /// How often all its sessions were ended at once.
    #[serde(default, skip_serializing_if = "is_zero")]
    session_epoch: u32,
    /// When the account was made, seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<i64>,
    /// What others wrote into the entry is kept.
    #[serde(flatten)]
    other: Map<String, Value>,
}

// The form that serde asks for.
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl fmt::Debug for Account {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Account")
            .field("id", &self.id)
            .field("username", &self.username)
            .field("admin", &self.admin)
            .field("disabled", &self.disabled)
            .finish_non_exhaustive()
    }
}

impl Account {
    /// A new account with a hash made by [`Hasher`].
    pub fn new(name: &UserName, password_hash: String, admin: bool, now: i64) -> Self {
        Self {
            id: UserId::generate(),
            username: name.as_str().to_owned(),
            binding: Binding::of(&password_hash, 0),
            password: password_hash,
            admin,
            disabled: false,
            session_epoch: 0,
            created_at: Some(now),
            other: Map::new(),
        }
    }

    /// What sessions of this account rest on now.
    pub fn binding(&self) -> Binding {
        self.binding
    }

    /// What they would rest on with another password hash.
    pub fn binding_with(&self, password_hash: &str) -> Binding {
        Binding::of(password_hash, self.session_epoch)
    }

    /// The stored hash, for [`Hasher::check`].
    pub fn password_hash(&self) -> &str {
        &self.password
    }
}
