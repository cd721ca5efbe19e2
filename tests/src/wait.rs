//! Waiting for a condition instead of sleeping.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Asks `probe` until it answers `Some`, twenty times a second; an error counts as "not yet".
///
/// When time runs out, the error says what was awaited, for how long, and the last error of the probe.
///
/// ```no_run
/// # use ark_tests::wait_until; use std::time::Duration;
/// # async fn example() -> anyhow::Result<()> {
/// let length = wait_until("the file to have a line", Duration::from_secs(5), async || {
///     let text = std::fs::read_to_string("/tmp/file")?;
///     Ok((!text.is_empty()).then_some(text.len()))
/// })
/// .await?;
/// # Ok(()) }
/// ```
pub async fn wait_until<T>(
    what: &str,
    timeout: Duration,
    mut probe: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + timeout;
    loop {
        let remaining = deadline.saturating_duration_since(Instant::now());
        // A probe that hangs must not outlive the deadline either.
        let last =
            match tokio::time::timeout(remaining.max(Duration::from_millis(10)), probe()).await {
                Ok(Ok(Some(value))) => return Ok(value),
                Ok(Ok(None)) => "not yet".to_string(),
                Ok(Err(error)) => format!("{error:#}"),
                Err(_) => "no answer".to_string(),
            };
        if Instant::now() >= deadline {
            bail!("waited {} s for {what}: {last}", timeout.as_secs_f32());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
