//! What is in storage under a backup's name.

use super::RemovalError;
use crate::archive::footer::Footer;
use crate::archive::read::{self, ReadError};
use crate::archive::write::{END_LENGTH, FooterPlace};
use crate::foreign::{Description, Origin};
use crate::layout::{BackupKeys, OriginalKeys, TOP_LEVEL};
use crate::marker::MAX_LENGTH;
use crate::store::{ObjectMeta, Store, StoreError};
use crate::tombstone::{self, Found};

/// Removals of one tombstone: more of its versions than anybody has put.
const VERSIONS: usize = 16;

/// What is in storage under a backup's name, but nobody else's.
#[derive(Clone, Debug)]
pub struct Target {
    keys: BackupKeys,
    original: Option<OriginalKeys>,
    /// Its tombstone.
    pub tombstone: Option<(ObjectMeta, Found)>,
    /// Its objects, in order of their keys, without the tombstone and what a deletion has stored beside it.
    pub objects: Vec<ObjectMeta>,
}

impl Target {
    /// Looks.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn look(store: &Store, name: &str) -> Result<Target, StoreError> {
        let keys = BackupKeys::new(name);
        let mut objects = store.list(&keys.directory()).collect().await?;
        objects.retain(|object| object.key != keys.deleting_snapshots());
        let is_tombstone = |object: &ObjectMeta| object.key == keys.tombstone();
        let listed = objects.iter().position(is_tombstone);
        let tombstone = match listed.map(|at| objects.remove(at)) {
            Some(listed) => tombstone::read(store, &listed.key)
                .await?
                .map(|found| (listed, found)),
            None => None,
        };
        let of_original = tombstone
            .as_ref()
            .is_some_and(|(_, found)| found.is_of_original());
        let mut target = Target {
            keys,
            original: None,
            tombstone,
            objects,
        };
        // A deletion that was cut off must never be gone on with for another backup of that name.
        let elsewhere = target.objects.is_empty() && target.tombstone.is_none();
        if (of_original || elsewhere) && !TOP_LEVEL.contains(&name) {
            let keys = OriginalKeys::new(name);
            let objects = originals(store, name, &keys).await?;
            if of_original || !objects.is_empty() {
                target.objects = objects;
                target.original = Some(keys);
            }
        }
        Ok(target)
    }

    /// Whether it is a backup of original Ark's at the top of the bucket.
    pub fn is_original(&self) -> bool {
        self.original.is_some()
    }

    /// Whether there is nothing.
    pub fn is_nothing(&self) -> bool {
        self.objects.is_empty() && self.tombstone.is_none()
    }

    fn find(&self, key: &str) -> Option<&ObjectMeta> {
        self.objects.iter().find(|object| object.key == key)
    }

    /// The archive.
    pub fn archive(&self) -> Option<&ObjectMeta> {
        match &self.original {
            Some(keys) => self.find(&keys.archive()),
            None => self.find(&self.keys.archive()),
        }
    }

    /// The marker, or original Ark's description of the same name.
    pub fn marker(&self) -> Option<&ObjectMeta> {
        match &self.original {
            Some(keys) => self.find(&keys.description()),
            None => self.find(&self.keys.marker()),
        }
    }

    /// What Velero reads.
    pub fn velero_backup(&self) -> Option<&ObjectMeta> {
        match &self.original {
            Some(_) => None,
            None => self.find(&self.keys.velero_backup()),
        }
    }

    /// The marker, or somebody else's description.
    pub fn description(&self) -> Option<&ObjectMeta> {
        self.marker().or_else(|| self.velero_backup())
    }

    /// What is removed last, since the backup is found by it.
    pub fn last(&self) -> Option<&ObjectMeta> {
        self.marker()
    }

    /// Whether `etag` is that of what describes it, or, if it has no marker, of its archive.
    pub fn is_seen(&self, etag: &str) -> bool {
        let archive = match self.marker() {
            Some(_) => None,
            None => self.archive(),
        };
        let mut seen = self.description().into_iter().chain(archive);
        seen.any(|object| object.etag == etag)
    }
}

/// The objects of a backup that original Ark made before 0.10: what is directly in its directory, if its description is
/// there and is one. Anything may be at the top of a bucket.
async fn originals(
    store: &Store,
    name: &str,
    keys: &OriginalKeys,
) -> Result<Vec<ObjectMeta>, StoreError> {
    let json = match store.get(&keys.description(), MAX_LENGTH).await {
        Err(StoreError::TooLong { .. }) => None,
        json => json?,
    };
    let described = json.and_then(|json| Description::from_json(&json, name).ok());
    if !described.is_some_and(|found| found.origin == Origin::OriginalArk) {
        return Ok(Vec::new());
    }
    let directory = format!("{name}/");
    let mut objects = store.list(&directory).collect().await?;
    objects.retain(|object| {
        let file = object.key.strip_prefix(&directory);
        file.is_some_and(|file| !file.is_empty() && !file.contains('/'))
    });
    Ok(objects)
}

/// The footer of a listed archive, and where it is; `None` if it has none that can be read, so that it is not one of ours, or
/// not whole.
///
/// # Errors
/// When a later version wrote it, or the store fails.
pub async fn footer(
    store: &Store,
    archive: &ObjectMeta,
) -> Result<Option<(Footer, FooterPlace)>, RemovalError> {
    let tail = archive.length.saturating_sub(END_LENGTH as u64)..archive.length;
    let tail = store.get_range(&archive.key, tail).await?;
    let Ok(place) = read::locate(&tail, archive.length) else {
        return Ok(None);
    };
    let range = place.offset..place.offset + place.length;
    let bytes = store.get_range(&archive.key, range).await?;
    match read::footer(&bytes, &place) {
        Ok(footer) => Ok(Some((footer, place))),
        Err(error @ ReadError::UnknownFormat { .. }) => Err(RemovalError::LaterFormat {
            key: archive.key.clone(),
            why: error.to_string(),
        }),
        Err(_) => Ok(None),
    }
}

/// Removes a tombstone, in a versioned bucket all of its versions; with `seen` only if it has this ETag. Tells whether it was
/// there, and that one.
///
/// # Errors
/// When the store fails.
pub async fn remove_tombstone(
    store: &Store,
    keys: &BackupKeys,
    seen: Option<&str>,
) -> Result<bool, StoreError> {
    remove_versions(store, &keys.tombstone(), seen).await
}

/// Removes the list of the snapshots that a deletion was about to delete, if there is one.
///
/// # Errors
/// When the store fails.
pub async fn remove_deleting(store: &Store, keys: &BackupKeys) -> Result<(), StoreError> {
    remove_versions(store, &keys.deleting_snapshots(), None).await?;
    Ok(())
}

async fn remove_versions(store: &Store, key: &str, seen: Option<&str>) -> Result<bool, StoreError> {
    let Some(first) = store.head(key).await? else {
        return Ok(false);
    };
    if seen.is_some_and(|seen| seen != first.etag) {
        return Ok(false);
    }
    store.delete(key, first.version.as_deref()).await?;
    if first.version.is_none() {
        return Ok(true);
    }
    for _ in 1..VERSIONS {
        // A later one is that of another deletion, which has just begun.
        let older = |found: &ObjectMeta| found.last_modified <= first.last_modified;
        let Some(found) = store.head(key).await?.filter(older) else {
            break;
        };
        store.delete(key, found.version.as_deref()).await?;
    }
    Ok(true)
}
