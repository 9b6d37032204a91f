#[derive(Debug, Default)]
pub(crate) struct QuietHours;
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub(crate) struct QuietHoursError;
impl QuietHours {
    pub(crate) fn parse(_t: &[String]) -> Result<Self, QuietHoursError> {
        Ok(Self)
    }
    pub(crate) fn active_until(&self, _at: (u8, u16)) -> Option<u32> {
        None
    }
}
pub(crate) fn now() -> Option<(u8, u16)> {
    None
}
