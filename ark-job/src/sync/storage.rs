//! What storage holds: one listing, and the small reads that it leaves necessary. Nothing is ever written here.

use super::plan::{Describing, Listed};
use crate::layout::{BackupKeys, OriginalKeys};
use crate::repository::inventory::{self, Inventory, READ_AT_ONCE, Stored};
use crate::repository::{Found, MARKER_MAX, RepositoryError, describe};
use crate::store::{ObjectMeta, Store, StoreError};
use crate::tombstone::{Cause, Tombstone};
use futures::StreamExt;
use std::collections::BTreeSet;

/// A tombstone is some hundred bytes.
const TOMBSTONE_MAX: u64 = 64 << 10;

/// Lists all backups.
///
/// # Errors
/// When the store fails: what was seen until then says nothing.
pub async fn list(store: &Store) -> Result<Vec<Listed>, StoreError> {
    let mut inventory = Inventory::of(store);
    let (mut listed, mut unsure) = (Vec::new(), Vec::new());
    // What is kept of each is less than what is listed.
    while let Some(stored) = inventory.next().await? {
        let backup = read(&stored);
        if stored.marker.is_some() && stored.tombstone.is_some() {
            unsure.push(listed.len());
        }
        listed.push(backup);
    }
    let mut void = futures::stream::iter(unsure)
        .map(|index| {
            let name = listed[index].name.clone();
            async move { (index, is_void(store, &name).await) }
        })
        .buffer_unordered(READ_AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    for (index, void) in void.drain(..) {
        listed[index].deleting = !void?;
    }
    let taken: BTreeSet<&str> = listed
        .iter()
        .filter(|listed| listed.description.is_some() || listed.deleting)
        .map(|listed| listed.name.as_str())
        .collect();
    let names = inventory::originals(store, &taken).await?;
    let originals: Vec<_> = futures::stream::iter(names)
        .map(|name| async move {
            let key = OriginalKeys::new(&name).description();
            let found = store.head(&key).await;
            (name, found)
        })
        .buffer_unordered(READ_AT_ONCE)
        .collect()
        .await;
    for (name, found) in originals {
        if let Some(found) = found? {
            let archive = OriginalKeys::new(&name).archive();
            listed.push(Listed {
                name,
                description: Some(Describing {
                    key: found.key,
                    etag: found.etag,
                    archive,
                    archive_length: None,
                    archive_listed: false,
                }),
                deleting: false,
            });
        }
    }
    Ok(listed)
}

fn read(stored: &Stored) -> Listed {
    let describing = |object: &ObjectMeta| Describing {
        key: object.key.clone(),
        etag: object.etag.clone(),
        archive: BackupKeys::new(&stored.name).archive(),
        archive_length: stored.archive.as_ref().map(|archive| archive.length),
        archive_listed: true,
    };
    Listed {
        name: stored.name.clone(),
        description: stored
            .marker
            .as_ref()
            .or(stored.velero.as_ref())
            .map(describing),
        deleting: stored.tombstone.is_some(),
    }
}

/// Whether the tombstone over a marker is a sweep's. One that cannot be read is taken at its word.
async fn is_void(store: &Store, name: &str) -> Result<bool, StoreError> {
    let json = store
        .get(&BackupKeys::new(name).tombstone(), TOMBSTONE_MAX)
        .await;
    match json {
        // It has been taken back meanwhile.
        Ok(None) => Ok(true),
        Ok(Some(json)) => Ok(serde_json::from_slice::<Tombstone>(&json)
            .is_ok_and(|tombstone| tombstone.cause == Cause::Sweep)),
        Err(StoreError::TooLong { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reads the description of a backup; none when there is no backup behind it: it has gone, or is not complete.
///
/// # Errors
/// When it cannot be read, or says what the listing does not show.
pub async fn describe_backup(
    store: &Store,
    name: &str,
    describing: &Describing,
) -> Result<Option<Found>, RepositoryError> {
    let Some(json) = store.get(&describing.key, MARKER_MAX).await? else {
        return Ok(None);
    };
    let (key, archive) = (describing.key.clone(), describing.archive.clone());
    let found = match describe(name, &json, key, archive) {
        Err(RepositoryError::Uncommitted { .. } | RepositoryError::Incomplete { .. }) => {
            return Ok(None);
        }
        found => found?,
    };
    if describing.archive_listed {
        let damaged = |why: String| RepositoryError::Damaged {
            backup: name.to_owned(),
            why,
        };
        let length = describing
            .archive_length
            .ok_or_else(|| damaged("its archive is missing".into()))?;
        if let crate::repository::Described::Ours(marker) = &found.described
            && marker.commit.archive.length != length
        {
            let recorded = marker.commit.archive.length;
            return Err(damaged(format!(
                "its archive has {length} bytes, not the recorded {recorded}"
            )));
        }
    }
    Ok(Some(found))
}

/// The keys of which one would be there if the backup were; `origin` is what its resource says of who made it.
fn describing_keys(name: &str, origin: Option<&str>) -> Vec<String> {
    let keys = BackupKeys::new(name);
    match origin {
        None => vec![keys.marker()],
        // What is written there may change hands; it must be in no place.
        Some(_) => vec![
            keys.marker(),
            keys.velero_backup(),
            OriginalKeys::new(name).description(),
        ],
    }
}

/// Looks once more, object by object, whether a backup is there.
///
/// # Errors
/// When the store does not say.
pub async fn is_there(store: &Store, name: &str, origin: Option<&str>) -> Result<bool, StoreError> {
    for key in describing_keys(name, origin) {
        if store.head(&key).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}
