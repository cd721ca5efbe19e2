//! Snapshots of volumes that a backup records. None of ours can be recorded yet; others' cannot be deleted by this version,
//! and are not orphaned.

use super::{RemovalError, Target, target};
use crate::context::Context;
use crate::marker::{MAX_LENGTH, Marker, MarkerError};
use crate::store::{ObjectMeta, Store, StoreError};
use flate2::read::GzDecoder;
use serde_json::Value;
use std::io::Read;

/// No list of snapshots is longer, bytes; one that is has some.
const LIST_MAX: u64 = 16 << 20;

/// Ends of the names of files in which Velero records snapshots.
const RECORDS: [&str; 3] = [
    "-volumesnapshots.json.gz",
    "-csi-volumesnapshots.json.gz",
    "-csi-volumesnapshotcontents.json.gz",
];

/// Deletes the snapshots of the backup called `name`: there are none, or [`refuse`] has refused.
///
/// # Errors
/// When one is left.
pub async fn remove(_context: &Context, _name: &str) -> Result<(), RemovalError> {
    Ok(())
}

/// Refuses to remove a backup that records snapshots: without their records, nobody would ever delete them.
///
/// # Errors
/// [`RemovalError::Snapshots`], or when that cannot be found out.
pub async fn refuse(store: &Store, target: &Target) -> Result<(), RemovalError> {
    let refused = |object: &ObjectMeta| {
        let key = object.key.clone();
        Err(RemovalError::Snapshots { key })
    };
    let lists = |object: &&ObjectMeta| RECORDS.iter().any(|end| object.key.ends_with(end));
    for object in target.objects.iter().filter(lists) {
        if store_get(store, object)
            .await?
            .is_none_or(|bytes| has_entries(&bytes))
        {
            return refused(object);
        }
    }
    if let Some(object) = target.marker()
        && let Some(json) = store_get(store, object).await?
    {
        match Marker::from_json(&json) {
            Err(error @ MarkerError::UnknownFormat { .. }) => {
                return Err(RemovalError::LaterFormat {
                    key: object.key.clone(),
                    why: error.to_string(),
                });
            }
            Err(MarkerError::Foreign) if volume_backups(&json) => return refused(object),
            // One that is damaged says nothing; the archive's footer does.
            Ok(_) | Err(_) => {}
        }
    }
    if let Some(archive) = target.archive()
        && !target.is_original()
        && let Some((footer, _)) = target::footer(store, archive).await?
        && !footer.head.volumes.is_empty()
    {
        return refused(archive);
    }
    Ok(())
}

/// A small object; `None` when it is larger than any of its kind.
async fn store_get(store: &Store, object: &ObjectMeta) -> Result<Option<Vec<u8>>, StoreError> {
    match store.get(&object.key, MAX_LENGTH).await {
        Err(StoreError::TooLong { .. }) => Ok(None),
        found => Ok(Some(found?.unwrap_or_default().into())),
    }
}

/// Whether a list, as gzip of a JSON array, may have an entry: one that cannot be read may. A file without a byte has none.
fn has_entries(gzip: &[u8]) -> bool {
    if gzip.is_empty() {
        return false;
    }
    let mut json = Vec::new();
    let mut limited = GzDecoder::new(gzip).take(LIST_MAX + 1);
    if limited.read_to_end(&mut json).is_err() || json.len() as u64 > LIST_MAX {
        return true;
    }
    match serde_json::from_slice(&json) {
        Ok(Value::Array(entries)) => !entries.is_empty(),
        Ok(Value::Null) => false,
        Ok(_) | Err(_) => true,
    }
}

/// Whether a description of original Ark's names snapshots.
fn volume_backups(json: &[u8]) -> bool {
    let description: Value = serde_json::from_slice(json).unwrap_or_default();
    let backups = &description["status"]["volumeBackups"];
    backups.as_object().is_some_and(|map| !map.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    fn gzip(text: &str) -> Vec<u8> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        gzip.finish().unwrap()
    }

    #[test]
    fn only_a_list_that_is_surely_empty_has_no_entries() {
        for empty in ["[]", "null\n", " [ ] "] {
            assert!(!has_entries(&gzip(empty)), "{empty}");
        }
        assert!(!has_entries(b""));
        for full in [r#"[{"spec":{}}]"#, "{}", "", "[", "x"] {
            assert!(has_entries(&gzip(full)), "{full}");
        }
        assert!(has_entries(b"no gzip"));
        let mut cut = gzip("[]");
        cut.truncate(cut.len() - 9);
        assert!(has_entries(&cut));
    }

    #[test]
    fn original_arks_snapshots_are_seen() {
        let description = |backups: &str| {
            format!(r#"{{"kind":"Backup","status":{{"volumeBackups":{backups}}}}}"#)
        };
        assert!(volume_backups(
            description(r#"{"pv-1":{"snapshotID":"snap-1"}}"#).as_bytes()
        ));
        assert!(!volume_backups(description("null").as_bytes()));
        assert!(!volume_backups(description("{}").as_bytes()));
    }
}
