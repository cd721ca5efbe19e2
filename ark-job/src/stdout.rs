//! The standard output edge: what an operation prints, as data. What is said to people goes to standard error.

use crate::error::Failure;
use crate::exit::Exit;
use bytes::Bytes;
use std::io::{self, Write};
use std::time::Duration;

/// A reader that takes nothing for this long is gone: a broken connection to a pod is not always told to its process.
const STALLED: Duration = Duration::from_secs(120);

/// Writes to standard output, on a thread that may block: the runtime has one, and whoever reads may be slow.
///
/// # Errors
/// When nobody reads any more.
pub async fn write(piece: Bytes) -> Result<(), Failure> {
    let writing = tokio::task::spawn_blocking(move || {
        let mut stdout = io::stdout().lock();
        stdout.write_all(&piece).and_then(|()| stdout.flush())
    });
    let failed = |why: String| {
        Failure::new(
            Exit::Failed,
            format!("writing to standard output: {why}; nobody may be reading any more"),
        )
    };
    match tokio::time::timeout(STALLED, writing).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(error))) => Err(failed(error.to_string())),
        Ok(Err(panicked)) => Err(failed(panicked.to_string())),
        Err(elapsed) => Err(failed(elapsed.to_string())),
    }
}
