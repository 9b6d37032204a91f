//! The one way from name and password to an account: lock-out, check, count, renew, write down.

use crate::access::{Caller, Lockout, Verdict};
use crate::accounts::{Account, AccountChange, AccountsError, Binding, HashError, PasswordCheck};
use crate::app::App;
use crate::control::Event;
use crate::http::ApiError;
use crate::store::AuditEvent;
use std::sync::Arc;
use std::time::Instant;

/// Sign-ins of one address that may wait for their hash at once.
pub(super) const MAX_WAITING_PER_ADDRESS: usize = 16;
/// Checks of one sign-in when the account changes under it again and again.
const MAX_CHECKS: usize = 3;

/// Why somebody was not let in.
#[derive(Debug)]
pub enum SignInError {
    /// Wrong name or password; the failures of this address so far, and the lock-out that this
    /// failure brought.
    Wrong {
        /// Failures so far.
        failed_attempts: u32,
        /// Lock-out from now on.
        lockout: Option<Lockout>,
    },
    /// Locked out.
    LockedOut(Lockout),
    /// No answer.
    Hash(HashError),
}

impl From<SignInError> for ApiError {
    fn from(error: SignInError) -> Self {
        match error {
            SignInError::Wrong {
                failed_attempts,
                lockout,
            } => Self::wrong_credentials()
                .with("failed_attempts", failed_attempts)
                .with(
                    "remaining_seconds",
                    lockout.map_or(0, |lockout| lockout.remaining.as_secs()),
                ),
            SignInError::LockedOut(lockout) => Self::locked_out(lockout),
            SignInError::Hash(error) => error.into(),
        }
    }
}

enum Outcome {
    LockedOut(Lockout),
    Checked(PasswordCheck),
}

/// Checks name and password of a caller.
///
/// The lock-out is looked up and a failure is counted on the hashing thread itself, so that many
/// tries at once count like the same tries in a row. Addresses on the allow list are spared; a
/// device that is signed in to the account is spared what strangers did to the account.
pub async fn authenticate(
    app: &Arc<App>,
    caller: &Caller,
    username: &str,
    password: String,
) -> Result<Arc<Account>, SignInError> {
    let Some(_place) = app
        .waiting_sign_ins
        .enter(caller.address.origin(), MAX_WAITING_PER_ADDRESS)
    else {
        return Err(SignInError::Hash(HashError::Busy));
    };
    for _ in 0..MAX_CHECKS {
        if let Some(account) = check(app, caller, username, password.clone()).await? {
            return Ok(account);
        }
    }
    Err(SignInError::Hash(HashError::Busy))
}

/// One check; `None` when the account was changed while its hash was computed.
async fn check(
    app: &Arc<App>,
    caller: &Caller,
    username: &str,
    password: String,
) -> Result<Option<Arc<Account>>, SignInError> {
    let account = app
        .accounts
        .current()
        .find(username)
        .filter(|account| !account.disabled)
        .cloned();
    let is_spared = app.lists.judge(caller) == Verdict::Allowed;
    let is_known = account
        .as_ref()
        .is_some_and(|account| app.sessions.is_known_device(&account.id, caller.address));
    let address = caller.address;
    let outcome = {
        let app = Arc::clone(app);
        let name = username.to_owned();
        let hash = account
            .as_ref()
            .map(|account| account.password_hash().to_owned());
        let hasher = Arc::clone(&app.hasher);
        hasher
            .check_with(password, hash, move |check| {
                let now = Instant::now();
                let lockout = match (is_spared, is_known) {
                    (true, _) => None,
                    (false, true) => app.attempts.address_lockout(address, now),
                    (false, false) => app.attempts.lockout(address, &name, now),
                };
                if let Some(lockout) = lockout {
                    return Outcome::LockedOut(lockout);
                }
                let result = check();
                if result == PasswordCheck::Wrong {
                    app.attempts.failed(address, &name, Instant::now());
                }
                Outcome::Checked(result)
            })
            .await
            .map_err(SignInError::Hash)?
    };
    let (checked, account) = match (outcome, account) {
        (Outcome::LockedOut(lockout), _) => return Err(SignInError::LockedOut(lockout)),
        (Outcome::Checked(PasswordCheck::Wrong), _) | (Outcome::Checked(_), None) => {
            return Err(refuse(app, caller, username, is_spared));
        }
        (Outcome::Checked(checked), Some(account)) => (checked, account),
    };
    let is_current = app
        .accounts
        .peek()
        .get(&account.id)
        .is_some_and(|now| !now.disabled && now.binding() == account.binding());
    if !is_current {
        return Ok(None);
    }
    let account = match checked {
        PasswordCheck::Renewed(hash) => match renew(app, &account, hash).await {
            Some(renewed) => renewed,
            None => return Ok(None),
        },
        PasswordCheck::Right | PasswordCheck::Wrong => account,
    };
    app.attempts.succeeded(address, username);
    Ok(Some(account))
}

/// Puts a new hash of the same password in the place of an old one; sessions go on. `None` when the
/// account was changed meanwhile: what was checked is not its password any more.
async fn renew(app: &App, account: &Arc<Account>, hash: String) -> Option<Arc<Account>> {
    let (from, to) = (account.binding(), Binding::of_password_hash(&hash));
    let carried = app.sessions.carry_over(&account.id, from, to, |_| true);
    let change = AccountChange {
        password_hash: Some(hash),
        only_while: Some(from),
        ..AccountChange::default()
    };
    match app.accounts.change(&account.id, change) {
        Ok(renewed) => {
            if let Err(error) = app.sessions.settle(carried).await {
                tracing::error!(error = %crate::http::chain(&error), "sessions could not be carried over to a renewed password hash");
            }
            Some(renewed)
        }
        Err(AccountsError::Changed) => None,
        Err(error) => {
            tracing::warn!(error = %crate::http::chain(&error), "an old password hash could not be renewed");
            Some(Arc::clone(account))
        }
    }
}

/// Tells a failure as it is told to the caller, and writes it down.
fn refuse(app: &Arc<App>, caller: &Caller, username: &str, is_spared: bool) -> SignInError {
    let address = caller.address;
    let failed_attempts = app.attempts.failures(address);
    let lockout = app
        .attempts
        .lockout(address, username, Instant::now())
        .filter(|_| !is_spared);
    // A password typed into the name field must not end up in a log: only names of accounts do.
    let known_name = app
        .accounts
        .current()
        .find(username)
        .map(|account| account.username.clone());
    write_down(app, caller, known_name.as_deref(), None, lockout.is_some());
    SignInError::Wrong {
        failed_attempts,
        lockout,
    }
}

/// Counts a wrong code like a failed sign-in.
pub(super) fn refuse_guess(app: &App, caller: &Caller, what: &'static str) {
    app.attempts.failed(caller.address, what, Instant::now());
    let is_locked_out = app
        .attempts
        .address_lockout(caller.address, Instant::now())
        .is_some();
    write_down(app, caller, None, Some(what), is_locked_out);
}

/// Writes a failure down, and bans the address when it has failed too often.
fn write_down(
    app: &App,
    caller: &Caller,
    known_name: Option<&str>,
    what: Option<&str>,
    is_locked_out: bool,
) {
    let address = caller.address;
    let is_spared = app.lists.judge(caller) == Verdict::Allowed;
    let failed_attempts = app.attempts.failures(address);
    app.audit(AuditEvent::SignInFailed, known_name, Some(address), what);
    if is_locked_out && !is_spared {
        app.audit(AuditEvent::LockedOut, known_name, Some(address), what);
    }
    let limit = app.config.current().blacklist_after_attempts;
    let can_be_banned = !is_spared && !address.address().is_loopback();
    if limit > 0 && failed_attempts >= limit && can_be_banned {
        match app
            .lists
            .ban(address, &format!("{failed_attempts} failed sign-ins"))
        {
            Ok(()) => {
                tracing::warn!(failed_attempts, "an address was put on the deny list");
                app.audit(AuditEvent::Banned, None, Some(address), None);
                app.announcements.happened(Event::AddressBanned {
                    address: address.to_string(),
                });
                app.end_denied_connections();
            }
            Err(error) => {
                tracing::error!(error = %crate::http::chain(&error), "an address could not be put on the deny list");
            }
        }
    }
}
