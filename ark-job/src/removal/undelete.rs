//! A deletion that was cut off is taken back, if nothing has been lost.

use super::intact::{Depth, examine};
use super::{RemovalError, records, refuse_unless_writable, target};
use crate::context::Context;
use crate::layout::BackupKeys;
use crate::tombstone::{Cause, Found, Tombstone};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::time::Duration;

/// A deletion looks for the tombstone right before each DELETE; by this time the one that it has sent has come.
const SETTLED_AFTER: Duration = Duration::from_secs(5);

/// A backup that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undeleted {
    /// Whether it was being deleted.
    pub was_deleted: bool,
    /// When it expires.
    pub expiration: Option<Timestamp>,
}

/// Takes the deletion of the backup called `name` back.
///
/// The tombstone goes last. A deletion that is still at work finds it gone and stops, but it may have removed something since
/// it was looked at, or be about to: so it is looked at again after a while.
///
/// # Errors
/// When the backup is not whole, or nothing may be written.
pub async fn undelete(context: &Context, name: &str) -> Result<Undeleted, RemovalError> {
    let store = &context.store;
    let backup = || name.to_owned();
    refuse_unless_writable(context).await?;
    let examined = examine(store, name, Depth::Read).await?;
    if examined.target.is_nothing() {
        return Err(RemovalError::NotFound {
            backup: backup(),
            location: store.canonical().to_owned(),
        });
    }
    if !examined.missing.is_empty() {
        return Err(RemovalError::NotIntact {
            backup: backup(),
            missing: examined.missing,
        });
    }
    let keys = BackupKeys::new(name);
    if let Some(json) = examined.velero_backup.clone() {
        store.put_new(&keys.velero_backup(), json).await?;
    }
    let phase = examined.phase();
    let status = examined.status.as_ref();
    let expiration = status.and_then(|status| status.expiration.as_ref());
    let expiration = expiration.map(|Time(at)| *at);
    let undeleted = |was_deleted| Undeleted {
        was_deleted,
        expiration,
    };
    let Some((_, tombstone)) = examined.target.tombstone else {
        records::revive(context, name, phase).await?;
        return Ok(undeleted(false));
    };
    refuse_unless_writable(context).await?;
    target::remove_tombstone(store, &keys, None).await?;
    tokio::time::sleep(SETTLED_AFTER).await;
    let again = examine(store, name, Depth::Read).await?;
    if !again.missing.is_empty() {
        let tombstone = match tombstone {
            Found::Readable(tombstone) => tombstone,
            Found::Unreadable => Tombstone {
                backup: backup(),
                cause: Cause::Delete,
                original: again.target.is_original(),
                run_id: context.run.id.to_string(),
                cluster_uid: context.run.cluster_uid.clone(),
                at: Timestamp::now(),
            },
        };
        let json = tombstone.to_json().into();
        store.put_new(&keys.tombstone(), json).await?;
        return Err(RemovalError::NotIntact {
            backup: backup(),
            missing: again.missing,
        });
    }
    if let Some(json) = again.velero_backup {
        store.put_new(&keys.velero_backup(), json).await?;
    }
    records::revive(context, name, phase).await?;
    Ok(undeleted(true))
}
