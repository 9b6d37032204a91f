use crate::accounts::UserId;
#[derive(Debug)]
pub(crate) struct Target;
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub(crate) struct TargetError;
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub(crate) struct NotifyError;
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) is_failure: bool,
    pub(crate) finished_at: String,
    pub(crate) gpu_ms: u64,
    pub(crate) waiting: usize,
    pub(crate) reason: Option<String>,
}
#[derive(Debug)]
pub(crate) struct Notifier;
impl Target {
    pub(crate) fn parse(_k: &str, _a: &str) -> Result<Self, TargetError> {
        Ok(Self)
    }
}
impl Notifier {
    pub(crate) fn start(_a: impl Fn() -> Vec<String> + Send + Sync + 'static) -> Self {
        Self
    }
    pub(crate) fn send(&self, _u: UserId, _t: Target, _m: Message) {}
    pub(crate) async fn test(&self, _t: &Target) -> Result<(), NotifyError> {
        Ok(())
    }
    pub(crate) async fn stop(&self) {}
}
