//! Several GPUs: each user's engine is bound to one when it starts, to the one with the fewest.

use super::handle::EngineId;
use parking_lot::Mutex;
use std::collections::HashMap;

/// Which engine is bound to which GPU.
#[derive(Debug, Default)]
pub(super) struct Devices(Mutex<HashMap<EngineId, String>>);

impl Devices {
    /// Binds an engine that starts; `None` when the settings name no GPUs.
    pub(super) fn bind(&self, engine: &EngineId, gpus: &[String]) -> Option<String> {
        let mut bound = self.0.lock();
        bound.remove(engine);
        let users = |gpu: &String| bound.values().filter(|other| *other == gpu).count();
        let chosen = gpus.iter().min_by_key(|gpu| users(gpu))?.clone();
        bound.insert(engine.clone(), chosen.clone());
        Some(chosen)
    }

    /// The GPU of an engine.
    pub(super) fn of(&self, engine: &EngineId) -> Option<String> {
        self.0.lock().get(engine).cloned()
    }

    /// An engine is gone for good.
    pub(super) fn release(&self, engine: &EngineId) {
        self.0.lock().remove(engine);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::UserId;

    #[test]
    fn engines_are_spread_evenly() {
        let devices = Devices::default();
        let engine = |name: &str| EngineId::User(UserId::parse(name).unwrap());
        let gpus = ["0".to_owned(), "2".to_owned()];
        let bind = |name: &str| devices.bind(&engine(name), &gpus).unwrap();
        assert_eq!([bind("a"), bind("b"), bind("c")], ["0", "2", "0"]);
        devices.release(&engine("a"));
        devices.release(&engine("c"));
        assert_eq!(bind("d"), "0");
        assert_eq!(bind("b"), "2", "bound anew when it starts again");
        assert_eq!(devices.bind(&engine("e"), &[]), None);
        assert_eq!(devices.of(&engine("e")), None);
    }
}
