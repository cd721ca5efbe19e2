//! Snapshots after the archive: what no backup names is deleted, and what one names is let go of.
//!
//! An attempt deletes only what carries its own tags or labels, and never what the archive in storage names: whoever
//! finds that archive without a marker goes on from there. What cannot be deleted is left to a sweep, which finds it by
//! the same tags.

use crate::context::Context;
use crate::error::{Failure, chain};
use crate::exit::Exit;
use crate::identity::label_value;
use crate::layout::BackupKeys;
use crate::volumes::begun::ids;
use crate::volumes::csi;
use crate::volumes::disks;
use crate::volumes::identity::{ATTEMPT, CLUSTER, LOCATION, RUN};
use crate::volumes::{CsiSnapshot, Data, EbsSnapshot, Owner, VolumeRecord};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long the driver of a snapshot that is given up may take to delete it: it holds up whoever waits for the result.
const DELETED_WITHIN: Duration = Duration::from_secs(60);

/// After a failure: deletes the snapshots of this attempt, unless they are named by the archive that is in storage.
pub async fn give_up_after(context: &Context, keys: &BackupKeys, backup: &str) {
    if context.begun.is_empty() {
        return;
    }
    match super::super::commit::volumes_in_storage(&context.store, keys).await {
        Ok(kept) => give_up(context, backup, &kept).await,
        Err(failure) => context.log.warn(&format!(
            "the snapshots of this attempt stay until they are swept up, for it is not known whether an archive names \
             them: {}",
            failure.message()
        )),
    }
}

/// Deletes the snapshots of this attempt but those in `kept`.
pub async fn give_up(context: &Context, backup: &str, kept: &[VolumeRecord]) {
    if context.begun.is_empty() {
        return;
    }
    let owner = Owner::new(context.store.canonical(), &context.run, backup);
    let kept = ids(kept);
    for (region, known) in context.begun.disks() {
        give_up_disks(context, &owner, &region, known, &kept).await;
    }
    if context.begun.has_csi() {
        give_up_csi(context, &owner, &kept).await;
    }
    context.begun.forget();
}

async fn give_up_disks(
    context: &Context,
    owner: &Owner,
    region: &str,
    mut ids: BTreeSet<String>,
    kept: &BTreeSet<&str>,
) {
    let disks = match context.disks.disks().await {
        Ok(disks) => disks,
        Err(error) => return left(context, "snapshots of disks", &chain(&error)),
    };
    let mut tags = owner.tags("");
    tags.retain(|key, _| [LOCATION, CLUSTER, RUN, ATTEMPT].contains(&key.as_str()));
    // One whose answer was lost is known by its tags only; one that was just made, perhaps by its id only.
    match disks.tagged_snapshots(region, &tags).await {
        Ok(tagged) => ids.extend(tagged.into_iter().map(|snapshot| snapshot.id)),
        Err(error) => left(context, "snapshots of disks", &chain(&error)),
    }
    for id in ids.iter().filter(|id| !kept.contains(id.as_str())) {
        match disks.delete_snapshot(region, id).await {
            Ok(_) => context
                .log
                .info(&format!("snapshot {id} is deleted: it is in no backup")),
            Err(error) => left(context, &format!("snapshot {id}"), &chain(&error)),
        }
    }
}

async fn give_up_csi(context: &Context, owner: &Owner, kept: &BTreeSet<&str>) {
    let owned = csi::owned(&context.cluster, &owner.location, &owner.cluster_uid).await;
    let owned = match owned {
        Ok(owned) => owned,
        Err(error) => return left(context, "volumesnapshots", &error.full_text()),
    };
    let attempt = label_value(&owner.attempt);
    for owned in owned {
        let is_ours = owned.labels.get(ATTEMPT) == Some(&attempt);
        let is_kept = owned
            .handle
            .as_deref()
            .is_some_and(|handle| kept.contains(handle));
        if !is_ours || is_kept {
            continue;
        }
        let what = owned.handle.clone().or_else(|| owned.content.clone());
        let what = format!("snapshot {}", what.unwrap_or_default());
        match csi::delete_owned(&context.cluster, &owned, DELETED_WITHIN).await {
            Ok(()) => context
                .log
                .info(&format!("{what} is deleted: it is in no backup")),
            Err(error) => left(context, &what, &chain(&error)),
        }
    }
}

fn left(context: &Context, what: &str, why: &str) {
    context.log.warn(&format!(
        "{what} of this attempt may be left, which no backup names and a sweep deletes: {why}"
    ));
}

/// Of an archive that another attempt has left without a marker: whether the snapshots that it names are still there.
///
/// Those of CSI drivers cannot be asked for: the data outlives the objects by which it was taken.
///
/// # Errors
/// When one is gone, or nobody can say.
pub async fn check_they_exist(context: &Context, records: &[VolumeRecord]) -> Result<(), Failure> {
    let there = disks::existing(&context.disks, records)
        .await
        .map_err(|error| {
            let text = format!(
                "looking for the snapshots of an attempt that was cut off: {}",
                chain(&error)
            );
            Failure::new(Exit::Failed, text)
        })?;
    for record in records {
        if let Data::Ebs(EbsSnapshot { snapshot_id, .. }) = &record.data
            && !there.contains_key(snapshot_id)
        {
            let text = format!(
                "an attempt at this backup was cut off after its archive, and cannot be completed: snapshot {snapshot_id} of \
                 persistentvolumes {} does not exist any more",
                record.persistent_volume
            );
            return Err(Failure::new(Exit::Integrity, text).hint(
                "back up under another name; the archive has no marker, and is swept up by `kubectl ark expire`",
            ));
        }
    }
    Ok(())
}

/// After the marker: removes the objects by which CSI drivers have taken snapshots, which would only be in the way. The
/// data stays, and what is left of the objects a sweep removes.
pub async fn let_go(context: &Context, records: &[VolumeRecord]) {
    context.begun.forget();
    let snapshots: Vec<&CsiSnapshot> = records
        .iter()
        .filter_map(|record| match &record.data {
            Data::Csi(snapshot) => Some(snapshot),
            _ => None,
        })
        .collect();
    if snapshots.is_empty() {
        return;
    }
    if let Err(error) = csi::let_go(&context.cluster, &snapshots).await {
        context.log.warn(&format!(
            "the volumesnapshots of this backup could not all be removed, which a sweep does: {}",
            chain(&error)
        ));
    }
}
