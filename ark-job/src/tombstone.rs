//! The tombstone, `ark-deleting.json`: a backup with one is being deleted, and is not listed any more.

use crate::store::{Store, StoreError};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A tombstone is some hundred bytes.
const MAX_LENGTH: u64 = 64 << 10;

/// Why a backup is being deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Cause {
    /// Somebody asked for it by name.
    Delete,
    /// It had expired.
    Expire,
    /// It was never committed. Over a marker it is void: whoever meets it there removes it.
    Sweep,
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Cause::Delete => "delete",
            Cause::Expire => "expire",
            Cause::Sweep => "sweep",
        })
    }
}

/// What is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tombstone {
    /// The backup.
    pub backup: String,
    /// Why.
    pub cause: Cause,
    /// Whether it is for the backup that original Ark made before 0.10, at the top of the bucket, which has no directory
    /// under `backups/`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub original: bool,
    /// The run that deletes.
    #[serde(rename = "runID")]
    pub run_id: String,
    /// UID of the namespace kube-system of its cluster.
    #[serde(rename = "clusterUID")]
    pub cluster_uid: String,
    /// When it began, by that run's clock.
    pub at: Timestamp,
}

impl Tombstone {
    /// The JSON that is stored.
    pub fn to_json(&self) -> Vec<u8> {
        let mut json =
            serde_json::to_vec_pretty(self).expect("a tombstone holds only what JSON can say");
        json.push(b'\n');
        json
    }
}

/// A tombstone that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// What it says.
    Readable(Tombstone),
    /// It cannot be read: a later version's, or damaged. It still is one.
    Unreadable,
}

impl Found {
    /// From what is stored.
    pub fn from_json(json: &[u8]) -> Found {
        serde_json::from_slice(json).map_or(Found::Unreadable, Found::Readable)
    }

    /// Why the backup is being deleted; of one that cannot be read, the one that is never void.
    pub fn cause(&self) -> Cause {
        match self {
            Found::Readable(tombstone) => tombstone.cause,
            Found::Unreadable => Cause::Delete,
        }
    }

    /// Whether it is for the backup at the top of the bucket.
    pub fn is_of_original(&self) -> bool {
        matches!(self, Found::Readable(tombstone) if tombstone.original)
    }
}

/// Reads the tombstone with this key; `None` when there is none.
///
/// # Errors
/// When the store fails.
pub async fn read(store: &Store, key: &str) -> Result<Option<Found>, StoreError> {
    let json = match store.get(key, MAX_LENGTH).await {
        Err(StoreError::TooLong { .. }) => return Ok(Some(Found::Unreadable)),
        json => json?,
    };
    Ok(json.map(|json| Found::from_json(&json)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tombstone() -> Tombstone {
        Tombstone {
            backup: "b".into(),
            cause: Cause::Sweep,
            original: false,
            run_id: "r".into(),
            cluster_uid: "c".into(),
            at: "2026-11-23T20:15:01Z".parse().unwrap(),
        }
    }

    #[test]
    fn a_tombstone_survives_storage() {
        let json = tombstone().to_json();
        assert_eq!(Found::from_json(&json), Found::Readable(tombstone()));
        assert!(
            String::from_utf8(json)
                .unwrap()
                .contains(r#""cause": "sweep""#)
        );
    }

    #[test]
    fn one_that_cannot_be_read_is_never_void() {
        let later = br#"{"backup":"b","cause":"quarantine"}"#;
        for json in [&later[..], b"", b"{"] {
            assert_eq!(Found::from_json(json), Found::Unreadable);
            assert_eq!(Found::from_json(json).cause(), Cause::Delete);
        }
    }
}
