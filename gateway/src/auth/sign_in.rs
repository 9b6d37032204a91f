//! The one way from name and password to an account: lock-out, check, count, renew, write down.

use super::SignedIn;
use super::browser::Browser;
use crate::access::{Caller, Lockout, Standing, Verdict};
use crate::accounts::{Account, AccountChange, AccountsError, HashError, PasswordCheck};
use crate::app::App;
use crate::clock;
use crate::control::Event;
use crate::http::ApiError;
use crate::store::AuditEvent;
use http::HeaderMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::{Instant as TokioInstant, sleep, sleep_until};

/// Sign-ins of one address that may wait for their hash at once.
pub(super) const MAX_WAITING_PER_ADDRESS: usize = 16;
/// Checks of one sign-in when the account changes under it again and again.
const MAX_CHECKS: usize = 3;
/// Password hashes of the original take longer to check. While there are some, every refusal takes this
/// time, so that a stranger cannot tell their names from others.
const TIME_OF_REFUSAL: Duration = Duration::from_millis(1500);

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

/// Who somebody says they are, before the password is looked at.
#[derive(Clone, Copy)]
pub(crate) enum Claim<'request> {
    /// A name that was typed, and the headers with the cookie of the browser.
    Name(&'request str, &'request HeaderMap),
    /// Whoever holds this session gives the password again.
    Session(&'request SignedIn),
}

impl Claim<'_> {
    fn username(&self) -> &str {
        match self {
            Self::Name(username, _) => username,
            Self::Session(signed_in) => &signed_in.account.username,
        }
    }

    /// By what the try is judged.
    async fn standing(&self, app: &App, caller: &Caller) -> Standing {
        if app.lists.judge(caller) == Verdict::Allowed {
            return Standing::Spared;
        }
        match self {
            Self::Session(signed_in) => {
                Standing::Known(format!("session {}", signed_in.session.id))
            }
            Self::Name(username, headers) => known_browser(app, username, headers)
                .await
                .map_or(Standing::Stranger, Standing::Known),
        }
    }
}

/// The key of a browser that has signed in to this account before.
async fn known_browser(app: &App, username: &str, headers: &HeaderMap) -> Option<String> {
    let browser = Browser::of(headers)?;
    // Also looked up for names that nobody has: the time must not tell.
    let user = app
        .accounts
        .peek()
        .find(username)
        .map(|account| account.id.to_string())
        .unwrap_or_default();
    let digest = browser.digest();
    let known = app.store.knows_browser(user, digest, clock::now()).await;
    let is_known = known.unwrap_or_else(|error| {
        tracing::error!(error = %crate::http::chain(&error), "known browsers cannot be looked up");
        false
    });
    is_known.then(|| {
        let mut key = String::from("browser ");
        for byte in digest {
            let _ = write!(key, "{byte:02x}");
        }
        key
    })
}

/// Checks name and password of a caller.
///
/// The lock-out is looked up and a failure is counted on the hashing thread itself, so that many
/// tries at once count like the same tries in a row.
pub(crate) async fn authenticate(
    app: &Arc<App>,
    caller: &Caller,
    claim: Claim<'_>,
    password: String,
) -> Result<Arc<Account>, SignInError> {
    let began = TokioInstant::now();
    let Some(_place) = app
        .waiting_sign_ins
        .enter(caller.address.origin(), MAX_WAITING_PER_ADDRESS)
    else {
        return Err(SignInError::Hash(HashError::Busy));
    };
    let standing = claim.standing(app, caller).await;
    for _ in 0..MAX_CHECKS {
        let checked = check(app, caller, &standing, claim.username(), password.clone()).await;
        match checked {
            Ok(Some(account)) => return Ok(account),
            Ok(None) => {}
            Err(error) => {
                if app.accounts.current().has_hashes_of_the_original() {
                    sleep_until(began + TIME_OF_REFUSAL).await;
                }
                return Err(error);
            }
        }
    }
    Err(SignInError::Hash(HashError::Busy))
}

/// One check; `None` when the account was changed while its hash was computed.
async fn check(
    app: &Arc<App>,
    caller: &Caller,
    standing: &Standing,
    username: &str,
    password: String,
) -> Result<Option<Arc<Account>>, SignInError> {
    let address = caller.address;
    // Whoever is locked out waits for nothing and takes nobody's place at the hashing threads.
    if let Some(lockout) = app.attempts.lockout(standing, address, Instant::now()) {
        return Err(SignInError::LockedOut(lockout));
    }
    sleep(app.attempts.wait(standing, username, Instant::now())).await;
    let account = app
        .accounts
        .current()
        .find(username)
        .filter(|account| !account.disabled)
        .cloned();
    let outcome = {
        let app = Arc::clone(app);
        let (standing, name) = (standing.clone(), username.to_owned());
        let hash = account
            .as_ref()
            .map(|account| account.password_hash().to_owned());
        let hasher = Arc::clone(&app.hasher);
        hasher
            .check_with(password, hash, move |check| {
                if let Some(lockout) = app.attempts.lockout(&standing, address, Instant::now()) {
                    return Outcome::LockedOut(lockout);
                }
                let result = check();
                if result == PasswordCheck::Wrong {
                    app.attempts
                        .failed(&standing, address, &name, Instant::now());
                }
                Outcome::Checked(result)
            })
            .await
            .map_err(SignInError::Hash)?
    };
    let (checked, account) = match (outcome, account) {
        (Outcome::LockedOut(lockout), _) => return Err(SignInError::LockedOut(lockout)),
        (Outcome::Checked(PasswordCheck::Wrong), _) | (Outcome::Checked(_), None) => {
            return Err(refuse(app, caller, standing, username));
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
    app.attempts.succeeded(standing, address, username);
    Ok(Some(account))
}

/// Puts a new hash of the same password in the place of an old one; sessions go on. `None` when the
/// account was changed meanwhile: what was checked is not its password any more.
async fn renew(app: &App, account: &Arc<Account>, hash: String) -> Option<Arc<Account>> {
    let (from, to) = (account.binding(), account.binding_with(&hash));
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
fn refuse(app: &Arc<App>, caller: &Caller, standing: &Standing, username: &str) -> SignInError {
    let address = caller.address;
    let failed_attempts = app.attempts.failures(standing, address);
    let lockout = app.attempts.lockout(standing, address, Instant::now());
    // A password typed into the name field must not end up in a log: only names of accounts do.
    let known_name = app
        .accounts
        .current()
        .find(username)
        .map(|account| account.username.clone());
    write_down(
        app,
        caller,
        standing,
        known_name.as_deref(),
        None,
        lockout.is_some(),
    );
    SignInError::Wrong {
        failed_attempts,
        lockout,
    }
}

/// Counts a wrong code like a failed sign-in.
pub(super) fn refuse_guess(app: &App, caller: &Caller, what: &'static str) {
    let standing = Standing::Stranger;
    app.attempts
        .failed(&standing, caller.address, what, Instant::now());
    let lockout = app
        .attempts
        .lockout(&standing, caller.address, Instant::now());
    write_down(app, caller, &standing, None, Some(what), lockout.is_some());
}

/// Writes a failure down, and bans the address when it has failed too often.
fn write_down(
    app: &App,
    caller: &Caller,
    standing: &Standing,
    known_name: Option<&str>,
    what: Option<&str>,
    is_locked_out: bool,
) {
    let address = caller.address;
    let is_spared = app.lists.judge(caller) == Verdict::Allowed;
    let failed_attempts = app.attempts.failures(standing, address);
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
