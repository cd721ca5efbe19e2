//! A deletion that was cut off is taken back, if nothing has been lost.

use super::intact::{Depth, Examined, examine};
use super::{RemovalError, records, refuse_unless_writable, snapshots, target};
use crate::context::Context;
use crate::error::chain;
use crate::layout::BackupKeys;
use crate::tombstone::{Cause, Found, Tombstone};
use crate::volumes::Data;
use crate::volumes::disks;
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
    let mut examined = examine(store, name, Depth::Read).await?;
    if examined.target.is_nothing() {
        return Err(RemovalError::NotFound {
            backup: backup(),
            location: store.canonical().to_owned(),
        });
    }
    if examined.target.tombstone.is_some() {
        let lost = lost_snapshots(context, name, &examined).await?;
        examined.missing.extend(lost);
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
    target::remove_deleting(store, &keys).await?;
    target::remove_tombstone(store, &keys, None).await?;
    tokio::time::sleep(SETTLED_AFTER).await;
    let mut again = examine(store, name, Depth::Read).await?;
    let lost = lost_snapshots(context, name, &again).await?;
    again.missing.extend(lost);
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
        if examined.snapshots_begun {
            snapshots::put_deleting(store, name, tombstone.cause, &examined.snapshots).await?;
        }
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

/// Which snapshots of a backup are gone, or may be, as sentences.
///
/// Of EBS, the cloud says it. A CSI driver could be asked only by making objects in the cluster; of its snapshots it is not
/// known once their deletion has begun.
async fn lost_snapshots(
    context: &Context,
    name: &str,
    examined: &Examined,
) -> Result<Vec<String>, RemovalError> {
    let recorded = match &examined.snapshots[..] {
        [] if !examined.snapshots_begun => {
            // Others' descriptions do not have them. What cannot be understood of theirs has not been deleted by us.
            let read = snapshots::recorded(&context.store, name, &examined.target).await;
            match read {
                Err(RemovalError::Snapshots { .. } | RemovalError::LaterFormat { .. }) => {
                    Vec::new()
                }
                read => read?,
            }
        }
        known => known.to_vec(),
    };
    let existing = match disks::existing(&context.disks, &recorded).await {
        Ok(existing) => existing,
        Err(error) if !examined.snapshots_begun => {
            context.log.warn(&format!(
                "whether the snapshots of backup {name} are all there cannot be found out, but their deletion has not begun: {}",
                chain(&error)
            ));
            return Ok(Vec::new());
        }
        Err(error) => {
            return Ok(vec![format!(
                "the deletion of its snapshots has begun, and what is left of them cannot be found out: {}",
                chain(&error)
            )]);
        }
    };
    let mut lost = Vec::new();
    for record in &recorded {
        let volume = &record.persistent_volume;
        match &record.data {
            Data::Ebs(snapshot) if !existing.contains_key(&snapshot.snapshot_id) => {
                let id = &snapshot.snapshot_id;
                lost.push(format!(
                    "snapshot {id} of persistentVolume {volume} is gone"
                ));
            }
            Data::Csi(snapshot) if examined.snapshots_begun => {
                let handle = &snapshot.handle;
                lost.push(format!(
                    "snapshot {handle} of persistentVolume {volume} may be gone, since its deletion has begun"
                ));
            }
            _ => {}
        }
    }
    Ok(lost)
}
