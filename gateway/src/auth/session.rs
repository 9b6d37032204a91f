//! Sessions: every token has a `jti` that stands here for as long as the token counts. Ending a
//! session ends its token and its open WebSockets at once.

use crate::access::ClientIp;
use crate::accounts::{Account, Accounts, Binding, UserId};
use crate::clock;
use crate::store::{SessionRow, Store, StoreError};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Sign-ins kept for one account; the oldest ends when another is made.
const MAX_BROWSERS: usize = 200;
/// API tokens of one account.
const MAX_TOKENS: usize = 100;
/// Pause before the database is asked again for what it has refused.
const END_PAUSE: Duration = Duration::from_secs(2);
/// Life of the proof that an admin gave his password again.
pub const PROOF_LIFE: Duration = Duration::from_secs(600);

/// What a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionKind {
    /// A sign-in.
    Browser,
    /// An API token.
    Token,
}

impl SessionKind {
    fn name(self) -> &'static str {
        match self {
            Self::Browser => "browser",
            Self::Token => "token",
        }
    }
}

/// One session.
pub struct Session {
    /// `jti`.
    pub id: String,
    /// Account.
    pub user: UserId,
    /// Sign-in or API token.
    pub kind: SessionKind,
    /// Name of an API token.
    pub name: String,
    /// Whether an API token was made with admin rights.
    pub admin: bool,
    /// Seconds since 1970.
    pub created_at: i64,
    /// Seconds since 1970.
    pub expires_at: i64,
    /// Address that made it.
    pub address: String,
    /// Browser or program that made it.
    pub user_agent: String,
    last_used_at: AtomicI64,
    written_use: AtomicI64,
    ended: CancellationToken,
    proof: Mutex<Option<([u8; 32], Instant)>>,
    bound: Mutex<Bound>,
}

/// What a session rests on.
#[derive(Clone, Copy, Debug)]
struct Bound {
    /// None in what an older version made for an account that is not there.
    to: Option<Binding>,
    /// What it will rest on, while the account is being changed.
    next: Option<Binding>,
}

impl fmt::Debug for Session {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Session")
            .field("user", &self.user)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Cancelled when the session ends.
    pub fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    /// Last use, if any.
    pub fn last_used_at(&self) -> Option<i64> {
        Some(self.last_used_at.load(Ordering::Relaxed)).filter(|at| *at > 0)
    }

    /// Time until the session runs out by itself.
    pub fn remaining(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.expires_at - clock::now()).unwrap_or(0))
    }

    /// Makes the proof of a password given again. It is for the admin page's memory: a script of
    /// ComfyUI's page has the cookie at hand but not this.
    pub fn prove(&self) -> String {
        let proof = uuid::Uuid::new_v4().simple().to_string();
        *self.proof.lock() = Some((digest(&proof), Instant::now() + PROOF_LIFE));
        proof
    }

    /// Whether this is the proof, and still young enough.
    pub fn is_proven_by(&self, proof: &str) -> bool {
        let proof = digest(proof);
        self.proof.lock().is_some_and(|(expected, until)| {
            Instant::now() < until && bool::from(expected.ct_eq(&proof))
        })
    }

    /// Whether the account still has what this session was made by.
    pub fn is_bound_to(&self, account: &Account) -> bool {
        let binding = Some(account.binding());
        let bound = *self.bound.lock();
        self.user == account.id && (bound.to == binding || bound.next == binding)
    }

    fn is_live(&self, now: i64) -> bool {
        now < self.expires_at && !self.ended.is_cancelled()
    }

    fn from_row(row: SessionRow) -> Option<Self> {
        Some(Self {
            user: UserId::parse(&row.user_id)?,
            kind: match row.kind.as_str() {
                "browser" => SessionKind::Browser,
                "token" => SessionKind::Token,
                _ => return None,
            },
            id: row.id,
            name: row.name,
            admin: row.admin,
            created_at: row.created_at,
            expires_at: row.expires_at,
            address: row.address,
            user_agent: row.user_agent,
            last_used_at: AtomicI64::new(row.last_used_at.unwrap_or(0)),
            written_use: AtomicI64::new(row.last_used_at.unwrap_or(0)),
            ended: CancellationToken::new(),
            proof: Mutex::new(None),
            bound: Mutex::new(Bound {
                to: row.binding.as_deref().and_then(Binding::from_bytes),
                next: None,
            }),
        })
    }

    fn row(&self) -> SessionRow {
        SessionRow {
            id: self.id.clone(),
            user_id: self.user.to_string(),
            kind: self.kind.name().to_owned(),
            name: self.name.clone(),
            admin: self.admin,
            created_at: self.created_at,
            expires_at: self.expires_at,
            last_used_at: self.last_used_at(),
            address: self.address.clone(),
            user_agent: self.user_agent.clone(),
            binding: self.bound.lock().to.map(|to| to.as_bytes().to_vec()),
        }
    }
}

/// Sessions that go on while what they rest on is changed by their own account: they count with the
/// old and the new until this is settled, and with the old alone when it is dropped.
#[derive(Debug)]
pub(crate) struct CarryOver {
    sessions: Vec<Arc<Session>>,
    to: Binding,
}

impl Drop for CarryOver {
    fn drop(&mut self) {
        for session in &self.sessions {
            let mut bound = session.bound.lock();
            if bound.next == Some(self.to) {
                bound.next = None;
            }
        }
    }
}

/// Claims of our tokens.
#[derive(Serialize, Deserialize)]
struct Claims {
    sub: String,
    username: String,
    jti: String,
    iat: i64,
    exp: i64,
}

/// Why a session could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SessionsError {
    /// Too many API tokens.
    #[error("an account may have {MAX_TOKENS} API tokens at most")]
    TooManyTokens,
    /// The token could not be signed.
    #[error("a token could not be signed")]
    Sign(#[from] jsonwebtoken::errors::Error),
    /// The database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a new session is made from.
#[derive(Debug)]
pub struct NewSession<'request> {
    /// Sign-in or API token.
    pub kind: SessionKind,
    /// Name of an API token.
    pub name: &'request str,
    /// Whether an API token shall have admin rights.
    pub admin: bool,
    /// Life.
    pub life: Duration,
    /// Address that asks.
    pub address: ClientIp,
    /// Browser or program that asks.
    pub user_agent: &'request str,
}

#[derive(Default)]
struct Tables {
    by_id: HashMap<String, Arc<Session>>,
    by_user: HashMap<UserId, Vec<Arc<Session>>>,
    /// SHA-256 of a token that was verified once: no JSON is parsed on the way of a request.
    by_digest: HashMap<[u8; 32], Arc<Session>>,
    digest_of: HashMap<String, [u8; 32]>,
}

impl Tables {
    fn insert(&mut self, session: &Arc<Session>) {
        self.by_id.insert(session.id.clone(), Arc::clone(session));
        self.by_user
            .entry(session.user.clone())
            .or_default()
            .push(Arc::clone(session));
    }

    fn remove(&mut self, id: &str) -> Option<Arc<Session>> {
        let session = self.by_id.remove(id)?;
        if let Some(sessions) = self.by_user.get_mut(&session.user) {
            sessions.retain(|other| other.id != id);
            if sessions.is_empty() {
                self.by_user.remove(&session.user);
            }
        }
        if let Some(digest) = self.digest_of.remove(id) {
            self.by_digest.remove(&digest);
        }
        Some(session)
    }
}

/// All sessions, in memory and in the database.
pub struct Sessions {
    store: Arc<Store>,
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
    tables: RwLock<Tables>,
    /// Ended sessions that the database still has, because it refused: with them there, a restart would
    /// bring them back. Never more than there were sessions.
    unwritten_ends: Mutex<HashSet<String>>,
    end_refused: Notify,
}

impl fmt::Debug for Sessions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Sessions")
            .field("live", &self.tables.read().by_id.len())
            .finish_non_exhaustive()
    }
}

fn note_use(session: Arc<Session>, now: i64) -> Option<Arc<Session>> {
    if !session.is_live(now) {
        return None;
    }
    session.last_used_at.store(now, Ordering::Relaxed);
    Some(session)
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

impl Sessions {
    /// Loads what still rests on what its account has. What an older version
    /// made rests from now on what its account has now.
    pub fn load(store: Arc<Store>, key: &[u8], accounts: &Accounts) -> Result<Self, StoreError> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = 0;
        validation.set_required_spec_claims(&["exp", "sub"]);
        let mut tables = Tables::default();
        let (mut adopted, mut over) = (Vec::new(), Vec::new());
        for row in store.load_sessions()? {
            let Some(session) = Session::from_row(row) else {
                continue;
            };
            // Where the account file cannot be read now, the account is looked at when it can.
            if let Some(account) = accounts.get(&session.user) {
                let mut bound = session.bound.lock();
                if bound.to.is_none() {
                    let to = account.binding();
                    bound.to = Some(to);
                    adopted.push((session.id.clone(), to.as_bytes().to_vec()));
                } else if bound.to != Some(account.binding()) {
                    over.push(session.id.clone());
                    continue;
                }
            }
            tables.insert(&Arc::new(session));
        }
        if !adopted.is_empty() || !over.is_empty() {
            store.settle_sessions(adopted, over)?;
        }
        Ok(Self {
            store,
            encoding: EncodingKey::from_secret(key),
            decoding: DecodingKey::from_secret(key),
            validation,
            tables: RwLock::new(tables),
            unwritten_ends: Mutex::default(),
            end_refused: Notify::new(),
        })
    }

    /// Makes a session; durable when this returns.
    pub async fn issue(
        &self,
        account: &Account,
        new: NewSession<'_>,
    ) -> Result<(String, Arc<Session>), SessionsError> {
        let now = clock::now();
        let expires_at =
            now.saturating_add(i64::try_from(new.life.as_secs()).unwrap_or(i64::MAX / 2));
        let session = Arc::new(Session {
            id: uuid::Uuid::new_v4().to_string(),
            user: account.id.clone(),
            kind: new.kind,
            name: new
                .name
                .chars()
                .filter(|character| !character.is_control())
                .take(64)
                .collect(),
            admin: new.admin,
            created_at: now,
            expires_at,
            address: new.address.to_string(),
            user_agent: new.user_agent.chars().take(256).collect(),
            last_used_at: AtomicI64::new(0),
            written_use: AtomicI64::new(0),
            ended: CancellationToken::new(),
            proof: Mutex::new(None),
            bound: Mutex::new(Bound {
                to: Some(account.binding()),
                next: None,
            }),
        });
        let claims = Claims {
            sub: session.user.to_string(),
            username: account.username.clone(),
            jti: session.id.clone(),
            iat: now,
            exp: expires_at,
        };
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding)?;
        let surplus = self.surplus(&session)?;
        self.store.add_session(session.row()).await?;
        {
            let mut tables = self.tables.write();
            tables.insert(&session);
            let digest = digest(&token);
            tables.by_digest.insert(digest, Arc::clone(&session));
            tables.digest_of.insert(session.id.clone(), digest);
        }
        self.end_all(surplus).await?;
        Ok((token, session))
    }

    /// Sessions that give way to a new one of the same account and kind.
    fn surplus(&self, new: &Session) -> Result<Vec<String>, SessionsError> {
        let tables = self.tables.read();
        let same: Vec<_> = tables
            .by_user
            .get(&new.user)
            .into_iter()
            .flatten()
            .filter(|session| session.kind == new.kind && session.is_live(new.created_at))
            .collect();
        match new.kind {
            SessionKind::Token if same.len() >= MAX_TOKENS => Err(SessionsError::TooManyTokens),
            SessionKind::Browser if same.len() >= MAX_BROWSERS => {
                let mut by_use = same;
                by_use.sort_by_key(|session| session.last_used_at().unwrap_or(session.created_at));
                let surplus = by_use.len() + 1 - MAX_BROWSERS;
                Ok(by_use
                    .iter()
                    .take(surplus)
                    .map(|session| session.id.clone())
                    .collect())
            }
            SessionKind::Token | SessionKind::Browser => Ok(Vec::new()),
        }
    }

    /// The live session of a token, and notes its use.
    pub fn verify(&self, token: &str) -> Option<Arc<Session>> {
        let digest = digest(token);
        let now = clock::now();
        let known = self.tables.read().by_digest.get(&digest).cloned();
        let session = match known {
            Some(session) => session,
            None => self.verify_signature(token, digest)?,
        };
        note_use(session, now)
    }

    /// A session that was found in another way than by its token: live, and its use noted.
    pub(crate) fn noted(&self, session: Arc<Session>) -> Option<Arc<Session>> {
        note_use(session, clock::now())
    }

    /// Whether a text is the token of a live session; notes no use.
    pub(crate) fn knows(&self, token: &str) -> bool {
        let digest = digest(token);
        let known = self.tables.read().by_digest.get(&digest).cloned();
        known
            .or_else(|| self.verify_signature(token, digest))
            .is_some_and(|session| session.is_live(clock::now()))
    }

    /// Verifies a token that was not seen since the start.
    fn verify_signature(&self, token: &str, digest: [u8; 32]) -> Option<Arc<Session>> {
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &self.validation)
            .ok()?
            .claims;
        let mut tables = self.tables.write();
        let session = tables
            .by_id
            .get(&claims.jti)
            .filter(|session| session.user.as_str() == claims.sub)
            .cloned()?;
        if let Some(old) = tables.digest_of.insert(session.id.clone(), digest) {
            tables.by_digest.remove(&old);
        }
        tables.by_digest.insert(digest, Arc::clone(&session));
        Some(session)
    }

    /// Live sessions of an account, newest first.
    pub fn of_user(&self, user: &UserId) -> Vec<Arc<Session>> {
        let now = clock::now();
        let tables = self.tables.read();
        let mut sessions: Vec<_> = tables
            .by_user
            .get(user)
            .into_iter()
            .flatten()
            .filter(|session| session.is_live(now))
            .cloned()
            .collect();
        sessions.sort_by_key(|session| std::cmp::Reverse(session.created_at));
        sessions
    }

    /// All live sessions, in no order.
    pub fn live(&self) -> Vec<Arc<Session>> {
        let now = clock::now();
        self.tables
            .read()
            .by_id
            .values()
            .filter(|session| session.is_live(now))
            .cloned()
            .collect()
    }

    /// Whether somebody is signed in from this address.
    pub fn is_signed_in_from(&self, address: ClientIp) -> bool {
        let address = address.to_string();
        self.live().iter().any(|session| session.address == address)
    }

    /// Ends one session.
    pub async fn end(&self, id: &str) -> Result<(), StoreError> {
        self.end_all(vec![id.to_owned()]).await
    }

    /// Ends all sessions and tokens of an account but one.
    pub async fn end_user(&self, user: &UserId, except: Option<&str>) -> Result<(), StoreError> {
        let ids = {
            let tables = self.tables.read();
            let sessions = tables.by_user.get(user).into_iter().flatten();
            sessions
                .filter(|session| Some(session.id.as_str()) != except)
                .map(|session| session.id.clone())
                .collect()
        };
        self.end_all(ids).await
    }

    /// Begins to let those sessions of an account go on that rest on `from`, when it is about to
    /// change into `to`.
    pub(crate) fn carry_over(
        &self,
        user: &UserId,
        from: Binding,
        to: Binding,
        which: impl Fn(&Session) -> bool,
    ) -> CarryOver {
        let tables = self.tables.read();
        let mut sessions = Vec::new();
        for session in tables.by_user.get(user).into_iter().flatten() {
            let mut bound = session.bound.lock();
            if bound.to == Some(from) && which(session) {
                bound.next = Some(to);
                sessions.push(Arc::clone(session));
            }
        }
        CarryOver { sessions, to }
    }

    /// The account has changed: from now on these sessions rest on the new alone.
    pub(crate) async fn settle(&self, carried: CarryOver) -> Result<(), StoreError> {
        let mut bound = Vec::new();
        for session in &carried.sessions {
            session.bound.lock().to = Some(carried.to);
            bound.push((session.id.clone(), carried.to.as_bytes().to_vec()));
        }
        if bound.is_empty() {
            return Ok(());
        }
        self.store.bind_sessions(bound).await
    }

    /// Ends at once the sessions of which this holds.
    pub async fn end_where(
        &self,
        mut is_over: impl FnMut(&Session) -> bool,
    ) -> Result<(), StoreError> {
        let ids = {
            let tables = self.tables.read();
            tables
                .by_id
                .values()
                .filter(|session| is_over(session))
                .map(|session| session.id.clone())
                .collect()
        };
        self.end_all(ids).await
    }

    /// Cuts the open connections of these sessions off; the sessions themselves stay.
    pub(crate) fn suspend_where(&self, is_meant: impl Fn(&Session) -> bool) {
        let mut tables = self.tables.write();
        let meant: Vec<Arc<Session>> = tables
            .by_id
            .values()
            .filter(|session| is_meant(session))
            .cloned()
            .collect();
        for session in meant {
            if let Some(fresh) = Session::from_row(session.row()) {
                tables.remove(&session.id);
                tables.insert(&Arc::new(fresh));
            }
            session.ended.cancel();
        }
    }

    /// In memory first: the token is dead even if the disk refuses. What it refuses is an error for
    /// the client, and tried again until it is done.
    async fn end_all(&self, ids: Vec<String>) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        {
            let mut tables = self.tables.write();
            for id in &ids {
                if let Some(session) = tables.remove(id) {
                    session.ended.cancel();
                }
            }
        }
        // Before the first await: the client may leave, and the future with it.
        self.unwritten_ends.lock().extend(ids.iter().cloned());
        let written = self.store.remove_sessions(ids.clone()).await;
        self.note_ends(&ids, &written);
        written
    }

    fn note_ends(&self, ids: &[String], written: &Result<(), StoreError>) {
        if written.is_ok() {
            let mut unwritten = self.unwritten_ends.lock();
            for id in ids {
                unwritten.remove(id);
            }
        } else {
            self.end_refused.notify_one();
        }
    }

    /// Writes ended sessions down that the database has refused, until it takes them. Never returns.
    pub(crate) async fn write_refused_ends(&self) {
        loop {
            self.end_refused.notified().await;
            sleep(END_PAUSE).await;
            if let Err(error) = self.write_ends().await {
                tracing::error!(
                    error = %crate::http::chain(&error),
                    "ended sessions are not written down yet; a restart now would bring them back"
                );
            }
        }
    }

    async fn write_ends(&self) -> Result<(), StoreError> {
        let ids: Vec<String> = self.unwritten_ends.lock().iter().cloned().collect();
        if ids.is_empty() {
            return Ok(());
        }
        let written = self.store.remove_sessions(ids.clone()).await;
        self.note_ends(&ids, &written);
        written
    }

    /// Writes last uses down, and forgets what has run out if the clock can be believed; called now and
    /// then.
    pub async fn maintain(&self, may_forget: bool) -> Result<(), StoreError> {
        self.write_ends().await?;
        let now = clock::now();
        let mut used = Vec::new();
        let mut over = Vec::new();
        for session in self.tables.read().by_id.values() {
            if !session.is_live(now) {
                over.push(session.id.clone());
                continue;
            }
            let at = session.last_used_at.load(Ordering::Relaxed);
            if at > session.written_use.swap(at, Ordering::Relaxed) {
                used.push((session.id.clone(), at));
            }
        }
        if may_forget {
            self.end_all(over).await?;
        }
        if used.is_empty() {
            Ok(())
        } else {
            self.store.touch_sessions(used).await
        }
    }
}

/// A session of a browser that is in no table.
#[cfg(test)]
pub(super) fn test_session(id: &str, user: &str) -> Session {
    Session {
        id: id.to_owned(),
        user: UserId::parse(user).unwrap(),
        kind: SessionKind::Browser,
        name: String::new(),
        admin: false,
        created_at: 0,
        expires_at: i64::MAX,
        address: String::new(),
        user_agent: String::new(),
        last_used_at: AtomicI64::new(0),
        written_use: AtomicI64::new(0),
        ended: CancellationToken::new(),
        proof: Mutex::new(None),
        bound: Mutex::new(Bound {
            to: None,
            next: None,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::UserName;

    fn sessions() -> (tempfile::TempDir, Sessions, Account) {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&directory.path().join("db")).unwrap());
        let accounts = Accounts::default();
        let sessions =
            Sessions::load(store, b"a key of more than sixteen bytes", &accounts).unwrap();
        let account = Account::new(&UserName::parse("alice").unwrap(), String::new(), false, 0);
        (directory, sessions, account)
    }

    fn new(kind: SessionKind, life: u64) -> NewSession<'static> {
        NewSession {
            kind,
            name: "n",
            admin: false,
            life: Duration::from_secs(life),
            address: ClientIp::new([10, 0, 0, 1].into()),
            user_agent: "test",
        }
    }

    #[tokio::test]
    async fn s33_an_ended_session_is_dead_at_once_and_after_a_restart() {
        let (directory, sessions, account) = sessions();
        let (token, session) = sessions
            .issue(&account, new(SessionKind::Browser, 60))
            .await
            .unwrap();
        let (kept, _) = sessions
            .issue(&account, new(SessionKind::Token, 60))
            .await
            .unwrap();
        assert!(sessions.verify(&token).is_some());
        sessions.end(&session.id).await.unwrap();
        assert!(session.ended().is_cancelled());
        assert!(sessions.verify(&token).is_none());
        drop(sessions);
        let path = directory.path().join("db");
        let again = tokio::task::spawn_blocking(move || {
            Sessions::load(
                Arc::new(Store::open(&path).unwrap()),
                b"a key of more than sixteen bytes",
                &Accounts::default(),
            )
            .unwrap()
        });
        let again = again.await.unwrap();
        assert!(again.verify(&token).is_none());
        assert!(
            again.verify(&kept).is_some(),
            "s35: tokens survive a restart"
        );
        again.end_user(&account.id, None).await.unwrap();
        assert!(again.verify(&kept).is_none());
    }

    #[tokio::test]
    async fn u2_only_our_signature_and_algorithm_count() {
        let (_directory, sessions, account) = sessions();
        let (token, session) = sessions
            .issue(&account, new(SessionKind::Browser, 60))
            .await
            .unwrap();
        let claims = Claims {
            sub: account.id.to_string(),
            username: "alice".to_owned(),
            jti: session.id.clone(),
            iat: 0,
            exp: i64::MAX / 2,
        };
        let forged = jsonwebtoken::encode(
            &Header::new(Algorithm::HS256),
            &claims,
            &EncodingKey::from_secret(b"other"),
        )
        .unwrap();
        let other_algorithm = jsonwebtoken::encode(
            &Header::new(Algorithm::HS512),
            &claims,
            &EncodingKey::from_secret(b"a key of more than sixteen bytes"),
        )
        .unwrap();
        let mut parts = token.split('.');
        let payload = parts.nth(1).unwrap();
        let unsigned = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{payload}.");
        for bad in [
            forged,
            other_algorithm,
            unsigned,
            token[..token.len() - 1].to_owned(),
            String::new(),
        ] {
            assert!(sessions.verify(&bad).is_none(), "{bad}");
        }
        assert!(sessions.verify(&token).is_some());
    }

    #[tokio::test]
    async fn what_has_run_out_does_not_count() {
        let (_directory, sessions, account) = sessions();
        let (token, _) = sessions
            .issue(&account, new(SessionKind::Browser, 0))
            .await
            .unwrap();
        assert!(sessions.verify(&token).is_none());
        sessions.maintain(false).await.unwrap();
        assert!(
            !sessions.tables.read().by_id.is_empty(),
            "the clock may be wrong"
        );
        sessions.maintain(true).await.unwrap();
        assert!(
            sessions.tables.read().by_id.is_empty() && sessions.tables.read().by_digest.is_empty()
        );
    }

    #[tokio::test]
    async fn the_number_of_sessions_of_one_account_is_bounded() {
        let (_directory, sessions, account) = sessions();
        for _ in 0..MAX_TOKENS {
            sessions
                .issue(&account, new(SessionKind::Token, 60))
                .await
                .unwrap();
        }
        let surplus = sessions.issue(&account, new(SessionKind::Token, 60)).await;
        assert!(matches!(surplus, Err(SessionsError::TooManyTokens)));
        assert!(
            sessions
                .issue(&account, new(SessionKind::Browser, 60))
                .await
                .is_ok()
        );
    }

    #[tokio::test]
    async fn a_proof_belongs_to_its_session() {
        let (_directory, sessions, account) = sessions();
        let (_, first) = sessions
            .issue(&account, new(SessionKind::Browser, 60))
            .await
            .unwrap();
        let (_, second) = sessions
            .issue(&account, new(SessionKind::Browser, 60))
            .await
            .unwrap();
        let proof = first.prove();
        assert!(
            first.is_proven_by(&proof) && !second.is_proven_by(&proof) && !first.is_proven_by("")
        );
    }

    #[tokio::test]
    async fn a_session_counts_while_its_account_has_what_it_was_made_by() {
        let (_directory, sessions, account) = sessions();
        let changed = |hash: &str| {
            let name = UserName::parse("alice").unwrap();
            let mut changed = Account::new(&name, hash.to_owned(), false, 0);
            changed.id = account.id.clone();
            changed
        };
        let (new, newer) = (changed("new"), changed("newer"));
        let mut made = Vec::new();
        for _ in 0..3 {
            let issued = sessions.issue(&account, self::new(SessionKind::Browser, 60));
            made.push(issued.await.unwrap().1);
        }
        assert!(made.iter().all(|session| session.is_bound_to(&account)));
        assert!(!made.iter().any(|session| session.is_bound_to(&new)));
        let (from, to) = (account.binding(), new.binding());
        let carry =
            || sessions.carry_over(&account.id, from, to, |session| session.id != made[2].id);
        let carried = carry();
        assert!(made[0].is_bound_to(&account) && made[0].is_bound_to(&new));
        assert!(!made[2].is_bound_to(&new));
        drop(carried);
        assert!(!made[0].is_bound_to(&new), "the change was refused");
        sessions.settle(carry()).await.unwrap();
        assert!(made[1].is_bound_to(&new) && !made[1].is_bound_to(&account));
        assert!(made[2].is_bound_to(&account) && !made[2].is_bound_to(&new));
        let again = sessions.carry_over(&account.id, from, newer.binding(), |_| true);
        sessions.settle(again).await.unwrap();
        assert!(
            made[1].is_bound_to(&new),
            "it rests on something else by now"
        );
        assert!(made[2].is_bound_to(&newer));
    }
}
