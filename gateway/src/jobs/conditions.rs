//! What decides, beside the line, whether a job may start: accounts, engines and settings.

use super::hold::Hold;
use super::queue::{Conditions, RoleLimits};
use crate::accounts::UserId;
use crate::app::App;
use crate::engine::EngineId;

impl Conditions for App {
    fn engine_of(&self, user: &UserId) -> Option<EngineId> {
        let engine = self.engines.of(user)?;
        engine.address()?;
        Some(engine.id().clone())
    }

    fn is_full(&self, engine: &EngineId, busy: &[EngineId]) -> bool {
        let own = self.engines.device_of(engine);
        let same = busy.iter().filter(|other| {
            let others = self.engines.device_of(other);
            // One that is bound to none, such as from before the setting, may be on any.
            own.is_none() || others.is_none() || own == others
        });
        same.count() >= slots_of_a_gpu(self)
    }

    fn may_run(&self, user: &UserId, hold: Option<&Hold>) -> bool {
        let is_shut_out = self
            .accounts
            .peek()
            .get(user)
            .is_none_or(|account| account.disabled);
        !is_shut_out && (hold.is_none() || self.engines.owner().as_ref() == Some(user))
    }

    fn limits_of(&self, user: &UserId) -> RoleLimits {
        let is_admin = self
            .accounts
            .peek()
            .get(user)
            .is_some_and(|account| account.admin);
        RoleLimits::of(&self.config.current(), is_admin)
    }
}

/// Jobs that may run at once.
pub(super) fn slots(app: &App) -> usize {
    if !app.engines.is_separate() {
        return 1;
    }
    let gpus = app.config.current().gpus.len().max(1);
    slots_of_a_gpu(app).saturating_mul(gpus)
}

fn slots_of_a_gpu(app: &App) -> usize {
    usize::try_from(app.config.current().gpu_slots).unwrap_or(1)
}
