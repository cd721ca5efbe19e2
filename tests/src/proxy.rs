//! x
pub(crate) async fn request_json(_r: http::Request<String>) -> anyhow::Result<serde_json::Value> {
    anyhow::bail!("not yet")
}
/// x
pub struct FaultProxy;
