//! The resources of a backup and of its restores: who is at work on it, and what goes with it.

use super::RemovalError;
use crate::api::{
    Backup, BackupPhase, RUN_ANNOTATION, Restore, RestorePhase, failed_log_name, kept_results_name,
};
use crate::cluster::ClusterError;
use crate::context::Context;
use crate::kept;
use crate::layout::RESTORES;
use crate::records::{ANOTHER_HEARTBEAT, Record, is_alive};
use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::Value;
use std::collections::BTreeSet;

/// Which restores are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// Of the backup in this location.
    Here,
    /// And those of which it is not known where their backup is, since they were given a URL, or we were.
    MaybeHere,
}

/// The Backup resource called `name`, if it is that of a backup in this location.
pub async fn find(context: &Context, name: &str) -> Result<Option<Backup>, ClusterError> {
    let found = context.records.find::<Backup>(name).await?;
    Ok(found.filter(|backup| backup.spec.storage_location == context.location))
}

/// The restores of the backup called `name`.
pub async fn restores(context: &Context, name: &str, of: Of) -> Result<Vec<Restore>, ClusterError> {
    let mut restores = context.records.list::<Restore>().await?;
    restores.retain(|restore| {
        let there = &restore.spec.storage_location;
        let here = *there == context.location;
        let maybe = there.is_none() || context.location.is_none();
        restore.spec.backup_name == name && (here || (of == Of::MaybeHere && maybe))
    });
    Ok(restores)
}

/// Refuses while somebody makes or restores the backup.
pub async fn refuse_while_in_use(
    context: &Context,
    name: &str,
    record: Option<&Backup>,
) -> Result<(), RemovalError> {
    if let Some(record) = record
        && let Some(heartbeat) = sign_of_life(context, record).await?
    {
        return Err(RemovalError::BackupInProgress {
            backup: name.to_owned(),
            heartbeat,
        });
    }
    for restore in restores(context, name, Of::MaybeHere).await? {
        if let Some(heartbeat) = sign_of_life(context, &restore).await? {
            return Err(RemovalError::RestoreInProgress {
                backup: name.to_owned(),
                restore: restore.name_any(),
                heartbeat,
            });
        }
    }
    Ok(())
}

/// Whether a restore is at work.
pub async fn is_at_work(context: &Context, restore: &Restore) -> Result<bool, ClusterError> {
    Ok(at_work_since(context, restore).await?.is_some())
}

/// The last sign of life of a restore that is at work.
pub async fn at_work_since(
    context: &Context,
    restore: &Restore,
) -> Result<Option<Timestamp>, ClusterError> {
    sign_of_life(context, restore).await
}

/// Remembers all heartbeats of who is at work, so that by the time one is asked for, it is known whether it stands still.
pub async fn listen(context: &Context) -> Result<(), ClusterError> {
    let records = &context.records;
    for record in records.list::<Backup>().await? {
        records.unchanged_for(&record);
    }
    for record in records.list::<Restore>().await? {
        records.unchanged_for(&record);
    }
    Ok(())
}

/// The last sign of life of who is at work on it. An old one may be that of a wrong clock, here or there: then another one
/// tells.
async fn sign_of_life<K: Record>(
    context: &Context,
    record: &K,
) -> Result<Option<Timestamp>, ClusterError> {
    let Some(heartbeat) = record.alive() else {
        return Ok(None);
    };
    if is_alive(heartbeat, Timestamp::now()) {
        return Ok(Some(heartbeat));
    }
    // Of many, only the first is waited for.
    let known = context.records.unchanged_for(record);
    tokio::time::sleep(ANOTHER_HEARTBEAT.saturating_sub(known)).await;
    let again = context.records.find::<K>(&record.name_any()).await?;
    let again = again.and_then(|record| record.alive());
    Ok(again.filter(|again| *again != heartbeat))
}

/// Changes the status of the Backup resource, if there is one.
pub async fn set_status(
    context: &Context,
    record: Option<&Backup>,
    status: &Value,
) -> Result<(), RemovalError> {
    let Some(record) = record else {
        return Ok(());
    };
    let uid = record.uid().unwrap_or_default();
    let name = record.name_any();
    let records = &context.records;
    match records.merge_status::<Backup>(&name, &uid, status).await {
        // Another one of that name, which is not ours to touch.
        Err(error) if error.is_conflict() => Ok(()),
        result => Ok(result?),
    }
}

/// Says in the Backup resource of an undeleted backup again what came of it.
pub async fn revive(
    context: &Context,
    name: &str,
    phase: Option<BackupPhase>,
) -> Result<(), RemovalError> {
    let record = find(context, name).await?;
    let phase_of = |record: &Backup| record.status.as_ref().and_then(|status| status.phase);
    let record = record.filter(|record| phase_of(record) == Some(BackupPhase::Deleting));
    let status = serde_json::json!({ "phase": phase });
    set_status(context, record.as_ref(), &status).await
}

/// Removes the Backup resource that was found before, and the log that is kept of it; tells whether it was there.
pub async fn remove_backup(
    context: &Context,
    name: &str,
    record: Option<&Backup>,
) -> Result<bool, RemovalError> {
    let now = find(context, name).await?;
    let Some(record) = record.filter(|record| {
        let same = |now: &Backup| now.uid() == record.uid() && now.alive().is_none();
        now.as_ref().is_some_and(same)
    }) else {
        return Ok(false);
    };
    kept::remove(context, &failed_log_name(name)).await?;
    let uid = record.uid().unwrap_or_default();
    match context.records.delete::<Backup>(name, &uid).await {
        Err(error) if error.is_conflict() => Ok(false),
        result => Ok(result.map(|()| true)?),
    }
}

/// Removes a Restore resource, and what is kept of it in the cluster.
pub async fn remove_restore(context: &Context, restore: &Restore) -> Result<(), RemovalError> {
    let (name, uid) = (restore.name_any(), restore.uid().unwrap_or_default());
    kept::remove(context, &kept_results_name(&name)).await?;
    match context.records.delete::<Restore>(&name, &uid).await {
        Err(error) if error.is_conflict() => Ok(()),
        result => Ok(result?),
    }
}

/// Directories in storage that are surely this restore's: the one that its status names, and the one that bears its run.
/// Another cluster's restore of that name may have the plain one.
pub fn directories(restore: &Restore) -> BTreeSet<String> {
    let name = restore.name_any();
    let run = restore.annotations().get(RUN_ANNOTATION);
    let short = run.and_then(|run| run.get(..8));
    let of_run = short.map(|short| format!("{name}-{short}"));
    let results = restore
        .status
        .as_ref()
        .filter(|status| status.phase != Some(RestorePhase::InProgress))
        .and_then(|status| status.results.as_deref())
        .and_then(|key| key.strip_prefix(RESTORES)?.split_once('/'))
        .map(|(directory, _)| directory)
        .filter(|directory| {
            // Whoever may write a status may not make others' files go.
            let suffix = directory.strip_prefix(&name);
            suffix.is_some_and(|suffix| {
                suffix.is_empty()
                    || suffix.strip_prefix('-').is_some_and(|run| {
                        run.len() == 8 && run.bytes().all(|byte| byte.is_ascii_hexdigit())
                    })
            })
        });
    let directories = results.map(str::to_owned).into_iter().chain(of_run);
    directories
        .map(|directory| format!("{RESTORES}{directory}/"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{RestoreSpec, RestoreStatus};

    fn restore(results: Option<&str>, run: Option<&str>) -> Restore {
        let mut restore = Restore::new("r", RestoreSpec::default());
        restore.status = Some(RestoreStatus {
            phase: Some(RestorePhase::Completed),
            results: results.map(str::to_owned),
            ..RestoreStatus::default()
        });
        if let Some(run) = run {
            let annotations = restore.annotations_mut();
            annotations.insert(RUN_ANNOTATION.to_owned(), run.to_owned());
        }
        restore
    }

    #[test]
    fn only_directories_that_are_surely_a_restores_own_are_removed() {
        let of = |results: Option<&str>, run: Option<&str>| -> Vec<String> {
            directories(&restore(results, run)).into_iter().collect()
        };
        assert_eq!(
            of(Some("restores/r/restore-r-results.gz"), Some("0123456789")),
            ["restores/r-01234567/", "restores/r/"]
        );
        assert_eq!(
            of(
                Some("restores/r-01234567/restore-r-01234567-results.gz"),
                None
            ),
            ["restores/r-01234567/"]
        );
        // Another's may be in the plain one when this one does not say that it has it.
        assert_eq!(of(None, Some("0123456789")), ["restores/r-01234567/"]);
        for others in [
            "restores/r2/x",
            "restores/r-other/x",
            "restores/x/../r/y",
            "backups/b/x",
            "configmap/ark-results-r",
            "restores/",
        ] {
            assert!(of(Some(others), None).is_empty(), "{others}");
        }
    }
}
