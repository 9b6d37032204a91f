//! How much room each user takes.

use super::walk::{Bounds, walk};
use crate::accounts::UserId;
use crate::files::DataDirectory;
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::timeout;

/// How long an answer stays good.
const LIFE: Duration = Duration::from_secs(60);
/// How long somebody who asks waits for a new one before he gets the last.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long one measurement may take.
const TIME_LIMIT: Duration = Duration::from_secs(30);
/// Files looked at for one user.
const ENTRIES: usize = 500_000;
/// Directories within directories.
const DEPTH: usize = 32;
/// Users measured.
const MAX_USERS: usize = 10_000;

/// Bytes by user; who is not in it could not be measured or has no directory.
pub(crate) type Bytes = Arc<HashMap<UserId, u64>>;

/// The last measurement, and the one under way.
#[derive(Debug, Default)]
pub(super) struct Storage {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<(Instant, Bytes)>,
    under_way: Option<watch::Receiver<Option<Bytes>>>,
}

impl Storage {
    /// Bytes below each user's directory, at most a minute old as a rule; one measurement at a
    /// time, on a thread of its own.
    pub(super) async fn measure(self: Arc<Self>, data: &DataDirectory) -> Bytes {
        let mut result = {
            let mut state = self.state.lock();
            if let Some((at, bytes)) = &state.last
                && at.elapsed() < LIFE
            {
                return Arc::clone(bytes);
            }
            match &state.under_way {
                Some(result) => result.clone(),
                None => {
                    let (publish, result) = watch::channel(None);
                    state.under_way = Some(result.clone());
                    let storage = Arc::clone(&self);
                    let data = data.clone();
                    tokio::task::spawn_blocking(move || {
                        let bytes = Arc::new(measure_all(&data, Instant::now() + TIME_LIMIT));
                        let mut state = storage.state.lock();
                        state.last = Some((Instant::now(), Arc::clone(&bytes)));
                        state.under_way = None;
                        publish.send_replace(Some(bytes));
                    });
                    result
                }
            }
        };
        let measured = match timeout(PATIENCE, result.wait_for(Option::is_some)).await {
            Ok(Ok(bytes)) => bytes.clone(),
            Ok(Err(_)) => {
                // Its thread ended without an answer; the next one who asks begins anew.
                self.state.lock().under_way = None;
                None
            }
            Err(_) => None,
        };
        if let Some(bytes) = measured {
            return bytes;
        }
        let state = self.state.lock();
        state
            .last
            .as_ref()
            .map(|(_, bytes)| Arc::clone(bytes))
            .unwrap_or_default()
    }
}

fn measure_all(data: &DataDirectory, until: Instant) -> HashMap<UserId, u64> {
    let mut all = HashMap::new();
    let Ok(entries) = std::fs::read_dir(data.users()) else {
        return all;
    };
    for entry in entries.flatten().take(MAX_USERS) {
        let Some(user) = entry.file_name().to_str().and_then(UserId::parse) else {
            continue;
        };
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let Ok(directory) = Dir::open_ambient_dir(entry.path(), ambient_authority()) else {
            continue;
        };
        let mut bytes = 0_u64;
        let bounds = Bounds {
            depth: DEPTH,
            entries: ENTRIES,
            until,
        };
        let is_whole = walk(&directory, bounds, &mut |_, metadata| {
            bytes = bytes.saturating_add(metadata.len());
        });
        if is_whole {
            all.insert(user, bytes);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_user_is_measured_and_the_answer_is_kept() {
        let place = tempfile::tempdir().unwrap();
        let data = DataDirectory::open(place.path()).unwrap();
        let write = |name: &str, bytes: usize| {
            let path = data.users().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, vec![0; bytes]).unwrap();
        };
        write("anna/output/a/b.png", 1000);
        write("anna/user/x", 24);
        write("ben/output/c", 7);
        #[cfg(unix)]
        std::os::unix::fs::symlink(place.path(), data.users().join("anna/everything")).unwrap();
        let storage = Arc::new(Storage::default());
        let id = |name: &str| UserId::parse(name).unwrap();
        let (first, second) = tokio::join!(
            Arc::clone(&storage).measure(&data),
            Arc::clone(&storage).measure(&data)
        );
        assert_eq!(first[&id("anna")], 1024);
        assert_eq!(first[&id("ben")], 7);
        assert!(Arc::ptr_eq(&first, &second));
        write("ben/output/d", 7);
        assert_eq!(storage.measure(&data).await[&id("ben")], 7);
    }
}
