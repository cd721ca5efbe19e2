//! Whose a stored backup is: looked for in the places where Ark, Velero and original Ark put theirs, in this order.

use super::{MARKER_MAX, RepositoryError};
use crate::foreign::{Description, Origin};
use crate::layout::{BackupKeys, OriginalKeys};
use crate::marker::{Marker, MarkerError};
use crate::store::Store;
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
        if tombstone.is_some() {
            return Err(being_deleted());
        }
        return match Marker::from_json(&json) {
            Ok(marker) if marker.metadata.name == name => Ok(Found {
                described: Described::Ours(Box::new(marker)),
                description: keys.marker(),
                archive: keys.archive(),
            }),
            Ok(marker) => Err(RepositoryError::Damaged {
                backup: backup(),
                why: format!("its marker is that of {:?}", marker.metadata.name),
            }),
            // The file of that name was original Ark's first.
            Err(MarkerError::Foreign) => foreign(name, &json, keys.marker(), keys.archive()),
            Err(source) => Err(RepositoryError::Marker {
                backup: backup(),
                source,
            }),
        };
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
        Some((json, key)) => foreign(name, &json, key, original.archive()),
        None => Err(RepositoryError::NotFound {
            backup: backup(),
            location: location(),
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
