use super::Prompt;
#[derive(Debug, Default)]
pub(crate) struct Catalogue;
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub(crate) struct CatalogueError;
#[derive(Debug)]
pub(crate) struct Refusal;
impl Refusal {
    pub(crate) fn body(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}
impl Catalogue {
    pub(crate) fn parse(_t: &[u8]) -> Result<Self, CatalogueError> {
        Ok(Self)
    }
    pub(crate) fn check(&self, _p: &Prompt, _t: Option<&[String]>) -> Result<Vec<String>, Refusal> {
        Ok(Vec::new())
    }
}
