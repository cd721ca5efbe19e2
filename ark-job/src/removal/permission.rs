//! Whether anything can be deleted at all.
//!
//! The tombstone hides a backup, and writing it needs no right to delete: without that right, a backup would be gone from
//! every list, and nothing could bring it back.

use super::RemovalError;
use crate::context::Context;

/// An object of no meaning; where probes are, so that Velero tolerates it.
const PROBE: &str = "metadata/ark-probe-expire";

/// Refuses when an object of our own cannot be deleted again.
///
/// # Errors
/// When the store fails, or denies it.
pub async fn refuse_unless_deletable(context: &Context) -> Result<(), RemovalError> {
    let store = &context.store;
    store.put_new(PROBE, "probe\n".into()).await?;
    // A bucket may keep whatever is written for a while, which says nothing of what is older.
    if let Some(found) = store.head(PROBE).await?
        && found.lock.is_none()
    {
        store.delete(PROBE, found.version.as_deref()).await?;
    }
    Ok(())
}
