//! Password hashing on threads of its own, few and of low priority, so that sign-ins never slow
//! the streams of others (defect S41).

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use parking_lot::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, LazyLock};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// Hashes that may wait; more are told to come back.
const QUEUE: usize = 64;

/// Blocks of 1 KiB above which glibc maps memory on its own and unmaps it when it is freed.
const UNMAPPED_WHEN_FREED: usize = 33 * 1024;

/// Verified against when there is no such account, so that names cannot be timed (defect S40).
static NOBODY: LazyLock<String> =
    LazyLock::new(|| hash_now("nobody has this password").unwrap_or_default());

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// Too many wait.
    #[error("too many sign-ins at once")]
    Busy,
    /// The algorithm failed.
    #[error("a password could not be hashed")]
    Failed,
}

/// Outcome of a password check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordCheck {
    /// Wrong, or no such account.
    Wrong,
    /// Right.
    Right,
    /// Right, and here is the new hash that replaces an old one of the original.
    Renewed(String),
}

type Work = Box<dyn FnOnce() + Send>;

/// The hashing threads. Dropping it ends them.
#[derive(Debug)]
pub struct Hasher {
    work: Option<SyncSender<Work>>,
    threads: Vec<JoinHandle<()>>,
}

impl Hasher {
    /// Starts the threads: half the processors, at least one.
    pub fn start() -> std::io::Result<Self> {
        let (work, received) = sync_channel::<Work>(QUEUE);
        let received = Arc::new(Mutex::new(received));
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = (0..(processors / 2).clamp(1, 4))
            .map(|_| {
                let received = Arc::clone(&received);
                std::thread::Builder::new()
                    .name("hasher".to_owned())
                    .spawn(move || serve(&received))
            })
            .collect::<std::io::Result<_>>()?;
        Ok(Self {
            work: Some(work),
            threads,
        })
    }

    /// Hashes a new password.
    pub async fn hash(&self, password: String) -> Result<String, HashError> {
        self.run(move || hash_now(&password)).await?
    }

    /// Checks a password against a stored hash; with none, takes the same time and says wrong.
    pub async fn check(
        &self,
        password: String,
        hash: Option<String>,
    ) -> Result<PasswordCheck, HashError> {
        self.run(move || check_now(&password, hash.as_deref()))
            .await
    }

    /// As [`Hasher::check`], with `around` run on the hashing thread around the check itself.
    pub(crate) async fn check_with<Answer: Send + 'static>(
        &self,
        password: String,
        hash: Option<String>,
        around: impl FnOnce(&dyn Fn() -> PasswordCheck) -> Answer + Send + 'static,
    ) -> Result<Answer, HashError> {
        self.run(move || around(&|| check_now(&password, hash.as_deref())))
            .await
    }

    async fn run<Answer: Send + 'static>(
        &self,
        work: impl FnOnce() -> Answer + Send + 'static,
    ) -> Result<Answer, HashError> {
        let (answer, received) = oneshot::channel();
        let job: Work = Box::new(move || {
            // Nobody waits any more when the caller has hung up: spare the work.
            if !answer.is_closed() {
                let _ = answer.send(work());
            }
        });
        self.work
            .as_ref()
            .ok_or(HashError::Busy)?
            .try_send(job)
            .map_err(|_| HashError::Busy)?;
        received.await.map_err(|_| HashError::Failed)
    }
}

impl Drop for Hasher {
    fn drop(&mut self) {
        self.work = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve(received: &Mutex<Receiver<Work>>) {
    crate::platform::lower_thread_priority();
    loop {
        let next = received.lock().recv();
        match next {
            Ok(work) => work(),
            Err(_) => return,
        }
    }
}

/// argon2id, 19 MiB, two passes: OWASP's first choice, the crate's default.
pub(super) fn hash_now(password: &str) -> Result<String, HashError> {
    let salt: [u8; 16] = rand::random();
    let make = || -> argon2::password_hash::Result<String> {
        let (algorithm, version, params) = Default::default();
        let output = derive(password, &salt, algorithm, version, &params)?;
        let hash = PasswordHash {
            algorithm: algorithm.ident(),
            version: Some(version.into()),
            params: ParamsString::try_from(&params)?,
            salt: Some(Salt::new(&salt)?),
            hash: Some(output),
        };
        Ok(hash.to_string())
    };
    make().map_err(|_| HashError::Failed)
}

/// Fills memory of our own instead of letting the crate allocate it: glibc keeps freed blocks of
/// this size in the thread's heap for ever, but always gives those above [`UNMAPPED_WHEN_FREED`]
/// back. Pages beyond what argon2 needs are never touched and cost nothing.
fn derive(
    password: &str,
    salt: &[u8],
    algorithm: Algorithm,
    version: Version,
    params: &Params,
) -> argon2::password_hash::Result<Output> {
    let mut memory = Vec::with_capacity(UNMAPPED_WHEN_FREED.max(params.block_count()));
    memory.resize(params.block_count(), Block::default());
    let mut buffer = [0; Params::DEFAULT_OUTPUT_LEN];
    let length = params.output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN);
    let output = buffer
        .get_mut(..length)
        .ok_or(argon2::password_hash::Error::OutputSize)?;
    Argon2::new(algorithm, version, params.clone()).hash_password_into_with_memory(
        password.as_bytes(),
        salt,
        output,
        &mut memory,
    )?;
    Ok(Output::new(output)?)
}

fn check_now(password: &str, hash: Option<&str>) -> PasswordCheck {
    match hash {
        Some(hash) if hash.starts_with("$2") => check_original(password, hash),
        Some(hash) if verify(password, hash) => PasswordCheck::Right,
        Some(_) => PasswordCheck::Wrong,
        None => {
            verify(password, &NOBODY);
            PasswordCheck::Wrong
        }
    }
}

fn verify(password: &str, hash: &str) -> bool {
    let check = || -> argon2::password_hash::Result<bool> {
        let stored = PasswordHash::new(hash)?;
        let (Some(salt), Some(expected)) = (&stored.salt, &stored.hash) else {
            return Ok(false);
        };
        let algorithm = Algorithm::try_from(stored.algorithm.as_str())?;
        let version = stored
            .version
            .map(Version::try_from)
            .transpose()?
            .unwrap_or_default();
        let output = derive(
            password,
            salt,
            algorithm,
            version,
            &Params::try_from(&stored)?,
        )?;
        // Outputs compare in constant time.
        Ok(output == *expected)
    };
    check().unwrap_or(false)
}

/// bcrypt hashes of the original are taken once and renewed. It altered passwords before hashing
/// (defect S43), so the altered form is tried as well: its users type what they always typed.
fn check_original(password: &str, hash: &str) -> PasswordCheck {
    let matches = |candidate: &str| {
        // bcrypt reads 72 bytes; the original's library cut there, newer ones refuse (defect S42).
        let bytes = candidate.as_bytes();
        let cut = bytes.get(..72).unwrap_or(bytes);
        bcrypt_matches(cut, hash)
    };
    let altered = altered_by_the_original(password);
    if matches(password) || (altered != password && matches(&altered)) {
        hash_now(password).map_or(PasswordCheck::Right, PasswordCheck::Renewed)
    } else {
        PasswordCheck::Wrong
    }
}

fn bcrypt_matches(password: &[u8], hash: &str) -> bool {
    // Python's bcrypt writes `$2b$`; very old files have `$2a$` or `$2y$`, the same for our use.
    bcrypt::verify(password, hash).unwrap_or(false)
}

fn altered_by_the_original(password: &str) -> String {
    password
        .trim()
        .replace('&', "amp;")
        .replace('|', "")
        .replace(';', "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_argon2id_and_differ() {
        let first = hash_now("secret1!").unwrap();
        assert!(first.starts_with("$argon2id$"), "{first}");
        assert_ne!(first, hash_now("secret1!").unwrap());
        assert_eq!(check_now("secret1!", Some(&first)), PasswordCheck::Right);
        assert_eq!(check_now("secret1?", Some(&first)), PasswordCheck::Wrong);
        assert_eq!(check_now("secret1!", None), PasswordCheck::Wrong);
        assert_eq!(check_now("x", Some("plain text")), PasswordCheck::Wrong);
    }

    #[test]
    fn s42_s43_hashes_of_the_original_are_taken_once() {
        let plain = bcrypt::hash("secret1!", 4).unwrap();
        let PasswordCheck::Renewed(renewed) = check_now("secret1!", Some(&plain)) else {
            panic!("not taken")
        };
        assert_eq!(check_now("secret1!", Some(&renewed)), PasswordCheck::Right);
        assert_eq!(check_now("secret2!", Some(&plain)), PasswordCheck::Wrong);

        let altered = bcrypt::hash("pass1!x", 4).unwrap();
        let PasswordCheck::Renewed(renewed) = check_now("pa|ss1!x", Some(&altered)) else {
            panic!("not taken")
        };
        assert_eq!(check_now("pa|ss1!x", Some(&renewed)), PasswordCheck::Right);
        assert_eq!(
            check_now("pass1!x", Some(&renewed)),
            PasswordCheck::Wrong,
            "different passwords stay different"
        );

        let long = "1!".repeat(100);
        let cut = bcrypt::hash(&long[..72], 4).unwrap();
        assert!(matches!(
            check_now(&long, Some(&cut)),
            PasswordCheck::Renewed(_)
        ));
    }
}
