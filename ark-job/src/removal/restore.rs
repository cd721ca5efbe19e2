//! Removing one restore by its own name: its log and results in storage, what is kept of it, and its resource as the last.
//!
//! As long as something is left the resource is there, so that whoever deletes again goes on. What was restored stays. No
//! tombstone is needed: nothing else is found by these files, and only directories that are surely this restore's are looked at.

use super::{RemovalError, holds, lasts, records, refuse_unless_writable};
use crate::api::Restore;
use crate::context::Context;
use crate::store::{Lock, StoreError};
use jiff::Timestamp;

/// What is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemovedRestore {
    /// Objects in storage.
    pub objects: u64,
    /// Their length together, bytes.
    pub bytes: u64,
}

/// Removes the restore called `name`.
///
/// # Errors
/// When it must not be removed, or something of it is left.
pub async fn remove_restore(context: &Context, name: &str) -> Result<RemovedRestore, RemovalError> {
    refuse_unless_writable(context).await?;
    let Some(restore) = context.records.find::<Restore>(name).await? else {
        return Err(RemovalError::NoRestore {
            restore: name.to_owned(),
            namespace: context.namespace.clone(),
        });
    };
    refuse_elsewhere(&restore, name, context.location.as_deref())?;
    if let Some(heartbeat) = records::at_work_since(context, &restore).await? {
        return Err(RemovalError::RestoreAtWork {
            restore: name.to_owned(),
            heartbeat,
        });
    }
    let mut removed = RemovedRestore::default();
    let mut locked = Vec::new();
    for directory in records::directories(&restore) {
        refuse_unless_writable(context).await?;
        for object in context.store.list(&directory).collect().await? {
            remove_object(context, &object.key, &mut removed, &mut locked).await?;
        }
    }
    if let Some((first, _)) = locked.first() {
        let locks = || locked.iter().map(|(_, lock)| lock);
        return Err(RemovalError::RestoreLeft {
            restore: name.to_owned(),
            objects: locked.len(),
            first: first.clone(),
            until: locks().filter_map(|lock| lock.until).max(),
            legal_hold: locks().any(|lock| lock.legal_hold),
        });
    }
    records::remove_restore(context, &restore).await?;
    Ok(removed)
}

/// In another location, its directory may be another cluster's restore of the same name.
fn refuse_elsewhere(
    restore: &Restore,
    name: &str,
    location: Option<&str>,
) -> Result<(), RemovalError> {
    let there = restore.spec.storage_location.as_deref();
    if there == location {
        return Ok(());
    }
    Err(RemovalError::RestoreElsewhere {
        restore: name.to_owned(),
        there: there.map_or("storage at a URL".to_owned(), |there| {
            format!("location {there}")
        }),
    })
}

/// Removes an object by its version, for else a versioned bucket only hides it; or tells that the bucket keeps it.
async fn remove_object(
    context: &Context,
    key: &str,
    removed: &mut RemovedRestore,
    locked: &mut Vec<(String, Lock)>,
) -> Result<(), RemovalError> {
    let store = &context.store;
    let found = match store.head(key).await {
        Err(StoreError::Key { reason, .. }) => {
            let text = format!("{key:?} is left, since {reason}: another program made it");
            context.log.warn(&text);
            return Ok(());
        }
        found => found?,
    };
    let Some(found) = found else {
        return Ok(());
    };
    // By the store's clock if it has one: it is the one that keeps to locks.
    let now = store.clock().unwrap_or_else(Timestamp::now);
    if let Some(lock) = found.lock.filter(|lock| holds(lock, now)) {
        let lasts = lasts(lock.until, lock.legal_hold);
        let text = format!("{key} is left: the bucket keeps it {lasts}");
        context.log.warn(&text);
        locked.push((key.to_owned(), lock));
        return Ok(());
    }
    store.delete(key, found.version.as_deref()).await?;
    removed.objects += 1;
    removed.bytes += found.length;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::RestoreSpec;
    use crate::error::Failure;
    use crate::exit::Exit;

    #[test]
    fn a_restore_is_only_looked_for_where_its_backup_is() {
        let of = |there: Option<&str>, here: Option<&str>| {
            let spec = RestoreSpec {
                storage_location: there.map(str::to_owned),
                ..RestoreSpec::default()
            };
            let restore = Restore::new("r", spec);
            refuse_elsewhere(&restore, "r", here).map_err(Failure::from)
        };
        assert!(of(Some("default"), Some("default")).is_ok());
        assert!(of(None, None).is_ok());
        for (there, here, says) in [
            (Some("default"), Some("dr"), "location default"),
            (Some("default"), None, "location default"),
            (None, Some("dr"), "a URL"),
        ] {
            let failure = of(there, here).unwrap_err();
            assert_eq!(failure.exit(), Exit::Usage);
            assert!(failure.message().contains(says), "{}", failure.message());
        }
    }
}
