//! Whose a stored backup is: looked for in the places where Ark, Velero and original Ark put theirs, in this order.

use super::{MARKER_MAX, RepositoryError};
use crate::foreign::{Description, Origin};
use crate::layout::{BackupKeys, MARKER, OriginalKeys};
use crate::marker::{Marker, MarkerError};
use crate::store::Store;
use crate::tombstone::{self, Cause};
use bytes::Bytes;

/// A backup that is there, complete by its description, and not being deleted.
#[derive(Clone, Debug)]
pub struct Found {
    /// What describes it.
    pub described: Described,
    /// Key of what describes it.
    pub description: String,
    /// Key of its archive.
    pub archive: String,
}

/// What describes a backup.
#[derive(Clone, Debug)]
pub enum Described {
    /// A marker: it is ours.
    Ours(Box<Marker>),
    /// Somebody else's description.
    Foreign(Box<Description>),
}

impl Found {
    /// Who made it.
    pub fn origin(&self) -> Origin {
        match &self.described {
            Described::Ours(_) => Origin::Ark,
            Described::Foreign(description) => description.origin,
        }
    }
}

/// Finds the backup called `name`.
///
/// One of ours costs what its marker costs; the other places are looked at only when there is none.
///
/// # Errors
/// When it is not there, being deleted, not complete, or its description cannot be read.
pub async fn find(store: &Store, name: &str) -> Result<Found, RepositoryError> {
    let keys = BackupKeys::new(name);
    let location = || store.canonical().to_owned();
    let backup = || name.to_owned();
    let (tombstone, marker) = (keys.tombstone(), keys.marker());
    let (tombstone, found) =
        futures::try_join!(store.head(&tombstone), store.get(&marker, MARKER_MAX))?;
    let being_deleted = || RepositoryError::BeingDeleted {
        backup: backup(),
        location: location(),
    };
    if let Some(json) = found {
        // That of a sweep is void over a marker: what is committed is never swept up.
        if tombstone.is_some()
            && let Some(found) = tombstone::read(store, &keys.tombstone()).await?
            && found.cause() != Cause::Sweep
        {
            return Err(being_deleted());
        }
        return describe(name, &json, keys.marker(), keys.archive());
    }
    let get = async |key: String| -> Result<Option<(Bytes, String)>, RepositoryError> {
        let found = store.get(&key, MARKER_MAX).await?;
        Ok(found.map(|json| (json, key)))
    };
    if let Some((json, key)) = get(keys.velero_backup()).await? {
        if tombstone.is_some() {
            return Err(being_deleted());
        }
        return foreign(name, &json, key, keys.archive());
    }
    let original = OriginalKeys::new(name);
    match get(original.description()).await? {
        Some((json, key)) => {
            // It has no directory of its own under `backups/`, but that is where its tombstone is.
            if tombstone.is_some()
                && let Some(found) = tombstone::read(store, &keys.tombstone()).await?
                && found.is_of_original()
            {
                return Err(being_deleted());
            }
            foreign(name, &json, key, original.archive())
        }
        None => Err(RepositoryError::NotFound {
            backup: backup(),
            location: location(),
        }),
    }
}

/// What the content of `key` says of the backup called `name`, whose archive has the key `archive`.
///
/// # Errors
/// When it is not that of a complete backup, or cannot be read.
pub fn describe(
    name: &str,
    json: &[u8],
    key: String,
    archive: String,
) -> Result<Found, RepositoryError> {
    if !key.ends_with(MARKER) {
        return foreign(name, json, key, archive);
    }
    let backup = || name.to_owned();
    match Marker::from_json(json) {
        Ok(marker) if marker.metadata.name == name => Ok(Found {
            described: Described::Ours(Box::new(marker)),
            description: key,
            archive,
        }),
        Ok(marker) => Err(RepositoryError::Damaged {
            backup: backup(),
            why: format!("its marker is that of {:?}", marker.metadata.name),
        }),
        // The file of that name was original Ark's first.
        Err(MarkerError::Foreign) => foreign(name, json, key, archive),
        Err(source) => Err(RepositoryError::Marker {
            backup: backup(),
            source,
        }),
    }
}

fn foreign(
    name: &str,
    json: &[u8],
    key: String,
    archive: String,
) -> Result<Found, RepositoryError> {
    let backup = || name.to_owned();
    let description =
        Description::from_json(json, name).map_err(|source| RepositoryError::Description {
            backup: backup(),
            key: key.clone(),
            source,
        })?;
    if description.is_ours {
        return Err(RepositoryError::Uncommitted { backup: backup() });
    }
    if !description.is_complete() {
        return Err(RepositoryError::Incomplete {
            backup: backup(),
            origin: description.origin,
            phase: description.phase,
        });
    }
    Ok(Found {
        described: Described::Foreign(Box::new(description)),
        description: key,
        archive,
    })
}
