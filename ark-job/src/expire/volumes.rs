//! Deletes snapshots and volumes that nothing needs, and the objects of those that have done their service, if it still is so.

use crate::context::Context;
use crate::error::chain;
use crate::holdings::{Loose, What, loose};
use crate::identity::label_value;
use crate::layout::BACKUPS;
use crate::removal::{RemovalError, Target, snapshots};
use crate::store::location_id;
use crate::volumes::disks::{DiskError, Disks, Tags};
use crate::volumes::identity::{CLUSTER, LOCATION, UNUSED};
use crate::volumes::{CSI_SNAPSHOT_TIMEOUT, VolumeRecord, csi};

/// How it ended with one that was to go.
pub(super) enum Dropped {
    /// It is gone.
    Gone,
    /// Somebody else was faster.
    GoneBefore,
    /// It stays, and why.
    Stays(String),
}

/// Why one could not be deleted.
pub(super) struct NotDropped(pub String);

impl From<DiskError> for NotDropped {
    fn from(error: DiskError) -> NotDropped {
        NotDropped(chain(&error))
    }
}

impl From<csi::CsiError> for NotDropped {
    fn from(error: csi::CsiError) -> NotDropped {
        NotDropped(chain(&error))
    }
}

impl From<RemovalError> for NotDropped {
    fn from(error: RemovalError) -> NotDropped {
        NotDropped(chain(&error))
    }
}

impl From<crate::cluster::ClusterError> for NotDropped {
    fn from(error: crate::cluster::ClusterError) -> NotDropped {
        NotDropped(error.full_text())
    }
}

impl From<crate::store::StoreError> for NotDropped {
    fn from(error: crate::store::StoreError) -> NotDropped {
        NotDropped(chain(&error))
    }
}

/// Deletes one that nothing needs, if that still is so.
pub(super) async fn drop_loose(context: &Context, loose: &Loose) -> Result<Dropped, NotDropped> {
    if !matches!(loose.what, What::Volume { .. })
        && let Some(name) = recorded_by_now(context, loose).await?
    {
        return Ok(Dropped::Stays(format!("backup {name} records it by now")));
    }
    let gone = match &loose.what {
        What::Disk { region, .. } => {
            let disks = context.disks.disks().await?;
            disks.delete_snapshot(region, &loose.name).await?
        }
        What::Csi(owned) => {
            csi::delete_owned(&context.cluster, owned, CSI_SNAPSHOT_TIMEOUT).await?;
            true
        }
        What::Volume { region, .. } => {
            let disks = context.disks.disks().await?;
            if let Some(why) = in_use(context, disks, region, &loose.name).await? {
                return Ok(Dropped::Stays(why));
            }
            disks.delete_volume(region, &loose.name).await?
        }
    };
    Ok(if gone {
        Dropped::Gone
    } else {
        Dropped::GoneBefore
    })
}

/// Removes the objects of a snapshot whose data a backup has, if that still is so.
pub(super) async fn let_go(context: &Context, loose: &Loose) -> Result<Dropped, NotDropped> {
    let What::Csi(owned) = &loose.what else {
        return Ok(Dropped::Stays("it has no objects".to_owned()));
    };
    csi::let_go_owned(&context.cluster, owned).await?;
    Ok(Dropped::Gone)
}

/// The backup that records it, if one does that did not when it was listed: its run has ended meanwhile.
async fn recorded_by_now(context: &Context, loose: &Loose) -> Result<Option<String>, NotDropped> {
    let store = &context.store;
    let mut names = vec![loose.of.clone()];
    if matches!(loose.what, What::Csi(_)) {
        // A label has a long name shortened.
        let directories = store.list_directories(BACKUPS).await?;
        names = directories;
        names.retain(|name| label_value(name) == loose.of);
    }
    for name in names {
        let target = Target::look(store, &name).await?;
        let records = snapshots::recorded(store, &name, &target).await?;
        // What is left of a deletion that was taken back or swept is no backup.
        let counts =
            target.marker().is_some() || target.archive().is_some() || target.tombstone.is_some();
        if counts && records.iter().any(|record: &VolumeRecord| loose.is(record)) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Why a volume must not be deleted now.
async fn in_use(
    context: &Context,
    disks: &dyn Disks,
    region: &str,
    id: &str,
) -> Result<Option<String>, NotDropped> {
    if loose::persistent_volumes(context).await?.ids.contains(id) {
        return Ok(Some("a persistentVolume names it by now".to_owned()));
    }
    let tags: Tags = [
        (LOCATION, location_id(context.store.canonical())),
        (CLUSTER, context.run.cluster_uid.clone()),
        (UNUSED, "true".to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    let now = disks.tagged_volumes(region, &tags).await?;
    let now = now.into_iter().find(|volume| volume.id == id);
    Ok(match now {
        Some(volume) if ["available", "error"].contains(&volume.state.as_str()) => None,
        Some(volume) => Some(format!("it is {} by now", volume.state)),
        None => Some("it is not unused any more".to_owned()),
    })
}
