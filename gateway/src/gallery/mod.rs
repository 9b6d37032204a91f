//! A user's own pictures, videos and sounds, read from his output directory whether his ComfyUI
//! runs or not.
//!
//! Invariants kept here:
//! - a file is named by a [`RelativePath`] and opened below a directory handle that nothing leads
//!   out of: no `..`, no absolute path, no symbolic link, not even one that is put there meanwhile;
//! - walks and pictures are bounded in number, memory and time, and never on an async thread.

mod list;
mod media;
mod path;
mod place;
mod storage;
#[cfg(test)]
mod tests;
mod thumbnail;
mod walk;

pub(crate) use list::{Cursor, Item, Page, Wanted, has_thumbnail};
pub(crate) use media::{MediaKind, shown_as};
pub use path::{PathFault, RelativePath};
pub(crate) use place::OutputDirectory;
pub(crate) use storage::Bytes;
pub(crate) use thumbnail::Thumbnail;

use crate::accounts::UserId;
use crate::files::DataDirectory;
use cap_std::ambient_authority;
use cap_std::fs::{Dir, Metadata};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use storage::Storage;
use thumbnail::ThumbnailError;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Galleries looked through at once.
const WALKS: usize = 2;
/// How long looking through one may take.
const WALK_LIMIT: Duration = Duration::from_secs(10);
/// Thumbnails made at once.
const THUMBNAILS: usize = 2;
/// Requests of one user that may wait for their turn.
const WAITING_PER_USER: usize = 32;
/// How long a request waits for its turn.
const TURN_LIMIT: Duration = Duration::from_secs(30);
/// Files deleted by one request.
pub(crate) const MAX_DELETED: usize = 1000;
/// Below a user's own directory.
const CACHE: &str = "cache/thumbnails";

/// Why a gallery does not answer.
#[derive(Debug, thiserror::Error)]
pub enum GalleryError {
    /// There is no such file, or it is none of his.
    #[error("there is no such file")]
    NotFound,
    /// No small picture can be made of it.
    #[error("there is no small picture of this file")]
    NoThumbnail,
    /// Too many ask at once.
    #[error("too many requests are waiting")]
    Busy,
    /// The directory cannot be used.
    #[error("the output directory cannot be used")]
    Io(#[from] io::Error),
    /// A thread ended before its work was done.
    #[error("the work broke off")]
    BrokeOff(#[from] tokio::task::JoinError),
}

/// An opened file.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) file: std::fs::File,
    pub(crate) bytes: u64,
    /// Nanoseconds since 1970.
    pub(crate) modified: u64,
}

/// All galleries.
#[derive(Debug)]
pub(crate) struct Gallery {
    data: DataDirectory,
    walks: Arc<Semaphore>,
    thumbnails: Arc<Semaphore>,
    waiting: Mutex<HashMap<UserId, usize>>,
    storage: Arc<Storage>,
}

impl Gallery {
    pub(crate) fn new(data: &DataDirectory) -> Self {
        Self {
            data: data.clone(),
            walks: Arc::new(Semaphore::new(WALKS)),
            thumbnails: Arc::new(Semaphore::new(THUMBNAILS)),
            waiting: Mutex::default(),
            storage: Arc::default(),
        }
    }

    /// A page of what lies in `directory`.
    pub(crate) async fn page(
        &self,
        user: &UserId,
        directory: PathBuf,
        wanted: Wanted,
    ) -> Result<Page, GalleryError> {
        let opened = self.opener(user, directory);
        self.in_turn(user, &self.walks, move || {
            Ok(match opened()? {
                Some(directory) => list::page(&directory, &wanted, Instant::now() + WALK_LIMIT),
                None => Page {
                    is_complete: true,
                    ..Page::default()
                },
            })
        })
        .await
    }

    /// Opens a file.
    pub(crate) async fn open(
        &self,
        user: &UserId,
        directory: PathBuf,
        path: RelativePath,
    ) -> Result<Opened, GalleryError> {
        let opened = self.opener(user, directory);
        tokio::task::spawn_blocking(move || {
            let directory = opened()?.ok_or(GalleryError::NotFound)?;
            let (file, metadata) = place::open_file(&directory, path.as_str())
                .map_err(|error| missing(&path, &error))?;
            Ok(Opened {
                file: file.into_std(),
                bytes: metadata.len(),
                modified: list::nanoseconds(&metadata),
            })
        })
        .await?
    }

    /// A small picture of a file.
    pub(crate) async fn thumbnail(
        &self,
        user: &UserId,
        directory: PathBuf,
        path: RelativePath,
    ) -> Result<Thumbnail, GalleryError> {
        let opened = self.opener(user, directory);
        let cache = self.cache(user);
        self.in_turn(user, &self.thumbnails, move || {
            let directory = opened()?.ok_or(GalleryError::NotFound)?;
            thumbnail::thumbnail(&directory, cache().as_ref(), &path).map_err(|error| match error {
                ThumbnailError::Io(error) => missing(&path, &error),
                error => {
                    tracing::debug!(error = %crate::http::chain(&error), "no thumbnail");
                    GalleryError::NoThumbnail
                }
            })
        })
        .await
    }

    /// Deletes files; none when one of them is not there.
    pub(crate) async fn delete(
        &self,
        user: &UserId,
        directory: PathBuf,
        paths: Vec<RelativePath>,
    ) -> Result<(), GalleryError> {
        let opened = self.opener(user, directory);
        let cache = self.cache(user);
        tokio::task::spawn_blocking(move || {
            let directory = opened()?.ok_or(GalleryError::NotFound)?;
            let cache = cache();
            let checked: Vec<(RelativePath, Metadata)> = paths
                .into_iter()
                .map(|path| {
                    let metadata = directory
                        .symlink_metadata(path.as_str())
                        .map_err(|error| missing(&path, &error))?;
                    if metadata.is_file() {
                        Ok((path, metadata))
                    } else {
                        Err(GalleryError::NotFound)
                    }
                })
                .collect::<Result<_, _>>()?;
            for (path, metadata) in &checked {
                match directory.remove_file(path.as_str()) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error.into()),
                }
                if let Some(cache) = &cache {
                    thumbnail::forget(cache, path, metadata);
                }
            }
            Ok(())
        })
        .await?
    }

    /// Bytes below each user's directory, at most a minute old as a rule.
    pub(crate) async fn storage(&self) -> Bytes {
        Arc::clone(&self.storage).measure(&self.data).await
    }

    fn opener(
        &self,
        user: &UserId,
        directory: PathBuf,
    ) -> impl FnOnce() -> io::Result<Option<Dir>> + Send + 'static + use<> {
        let data = self.data.clone();
        let user = user.clone();
        move || place::open(&data, &user, &directory)
    }

    /// The user's cache; without one thumbnails are made anew each time.
    fn cache(&self, user: &UserId) -> impl FnOnce() -> Option<Dir> + Send + 'static + use<> {
        let own = self.data.users().join(user.as_str());
        move || {
            open_cache(&own)
                .inspect_err(|error| tracing::debug!(%error, "no cache for thumbnails"))
                .ok()
        }
    }

    /// Runs work on a blocking thread when a place is free.
    async fn in_turn<Answer: Send + 'static>(
        &self,
        user: &UserId,
        places: &Arc<Semaphore>,
        work: impl FnOnce() -> Result<Answer, GalleryError> + Send + 'static,
    ) -> Result<Answer, GalleryError> {
        let _waiting = self.wait(user).ok_or(GalleryError::Busy)?;
        let turn = timeout(TURN_LIMIT, Arc::clone(places).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            return Err(GalleryError::Busy);
        };
        tokio::task::spawn_blocking(move || {
            // Held to the end of the work, also when nobody waits for it any more.
            let _turn = turn;
            work()
        })
        .await?
    }

    fn wait(&self, user: &UserId) -> Option<WaitingPlace<'_>> {
        let mut counts = self.waiting.lock();
        let count = counts.entry(user.clone()).or_default();
        if *count >= WAITING_PER_USER {
            return None;
        }
        *count += 1;
        Some(WaitingPlace {
            counts: &self.waiting,
            user: user.clone(),
        })
    }
}

struct WaitingPlace<'gallery> {
    counts: &'gallery Mutex<HashMap<UserId, usize>>,
    user: UserId,
}

impl Drop for WaitingPlace<'_> {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.user);
            }
        }
    }
}

fn open_cache(own: &Path) -> io::Result<Dir> {
    crate::files::create_private_directory(own)?;
    let own = Dir::open_ambient_dir(own, ambient_authority())?;
    own.create_dir_all(CACHE)?;
    own.open_dir(CACHE)
}

/// A name that leads out is as good as one that is not there.
fn missing(path: &RelativePath, error: &io::Error) -> GalleryError {
    tracing::debug!(%error, %path, "a file of a gallery cannot be used");
    GalleryError::NotFound
}
