//! Several GPUs: each user's engine is bound to one when it starts, to the one with the fewest.

use super::handle::EngineId;
use crate::supervisor::{EngineState, EngineStatus};
use parking_lot::Mutex;
use std::collections::HashMap;
use tokio::sync::watch;

/// Which engine is bound to which GPU.
#[derive(Debug, Default)]
pub(super) struct Devices(Mutex<HashMap<EngineId, Bound>>);

#[derive(Debug)]
struct Bound {
    gpu: String,
    status: watch::Receiver<EngineStatus>,
}

impl Bound {
    /// Whether it takes room there: engines that have stopped are known for a while.
    fn is_used(&self) -> bool {
        !matches!(
            self.status.borrow().state,
            EngineState::Stopped | EngineState::Failed
        )
    }
}

impl Devices {
    /// Binds an engine that starts, with its status from now on; `None` when the settings name no
    /// GPUs.
    pub(super) fn bind(
        &self,
        engine: &EngineId,
        status: watch::Receiver<EngineStatus>,
        gpus: &[String],
    ) -> Option<String> {
        let mut bound = self.0.lock();
        bound.remove(engine);
        let users = |gpu: &String| {
            let there = bound.values().filter(|other| other.gpu == *gpu);
            there.filter(|other| other.is_used()).count()
        };
        let gpu = gpus.iter().min_by_key(|gpu| users(gpu))?.clone();
        let chosen = Bound {
            gpu: gpu.clone(),
            status,
        };
        bound.insert(engine.clone(), chosen);
        Some(gpu)
    }

    /// The GPU of an engine.
    pub(super) fn of(&self, engine: &EngineId) -> Option<String> {
        self.0.lock().get(engine).map(|bound| bound.gpu.clone())
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

    fn engine(name: &str) -> EngineId {
        EngineId::User(UserId::parse(name).unwrap())
    }

    fn status(state: EngineState) -> watch::Sender<EngineStatus> {
        watch::Sender::new(EngineStatus {
            state,
            ..EngineStatus::stopped("")
        })
    }

    #[test]
    fn engines_are_spread_evenly() {
        let devices = Devices::default();
        let gpus = ["0".to_owned(), "2".to_owned()];
        let ready = status(EngineState::Ready);
        let bind = |name: &str| {
            let bound = devices.bind(&engine(name), ready.subscribe(), &gpus);
            bound.unwrap()
        };
        assert_eq!([bind("a"), bind("b"), bind("c")], ["0", "2", "0"]);
        devices.release(&engine("a"));
        devices.release(&engine("c"));
        assert_eq!(bind("d"), "0");
        assert_eq!(bind("b"), "2", "bound anew when it starts again");
        assert_eq!(devices.bind(&engine("e"), ready.subscribe(), &[]), None);
        assert_eq!(devices.of(&engine("e")), None);
    }

    #[test]
    fn engines_that_have_stopped_take_no_room() {
        let devices = Devices::default();
        let gpus = ["0".to_owned(), "2".to_owned()];
        let engines = ["a", "b", "c"].map(|name| (name, status(EngineState::Starting)));
        let bound = engines
            .each_ref()
            .map(|(name, status)| devices.bind(&engine(name), status.subscribe(), &gpus));
        assert_eq!(bound, ["0", "2", "0"].map(|gpu| Some(gpu.to_owned())));
        for (at, state) in [(0, EngineState::Stopped), (2, EngineState::Failed)] {
            engines[at].1.send_modify(|status| status.state = state);
        }
        let ready = status(EngineState::Ready);
        let bound = devices.bind(&engine("d"), ready.subscribe(), &gpus);
        assert_eq!(bound.as_deref(), Some("0"), "nobody is there");
    }
}
