//! Sync: the cluster's Backup resources are made to agree with what is in storage, which is the truth.
//!
//! Resources are listed first, then storage. Backups that have no resource get one; one that is not there any more loses it;
//! what a run that was killed left behind is told to have failed. Nothing is written to storage, so it works with credentials
//! that may only read, in restore-only mode and on ReadOnly locations. It may run at any time, twice at once, and be cut off:
//! what is left is done the next time.

mod jobs;
mod perform;
mod plan;
mod reasons;
mod storage;

use self::perform::{Abort, Performer, Tally};
use self::plan::{Known, View};
use crate::api::{Backup, GROUP, namespace_flag};
use crate::args::SyncArgs;
use crate::cluster::ClusterError;
use crate::context::{Context, Outcome, storage_failure};
use crate::error::{Failure, chain};
use crate::exit::Exit;
use crate::records::request;
use crate::report::plural;
use crate::rights;
use crate::store::StoreError;
use http::Method;
use jiff::Timestamp;
use serde_json::json;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Remove resources though storage lists no backup at all.
    force: bool,
}

impl Options {
    /// Checks what was typed.
    ///
    /// # Errors
    /// [`Exit::Usage`], with what is wrong.
    pub fn resolve(arguments: &SyncArgs) -> Result<Options, Failure> {
        let SyncArgs {
            storage: _,
            force,
            exit: _,
        } = arguments;
        Ok(Options { force: *force })
    }
}

/// Does it.
///
/// # Errors
/// When storage or the API server cannot be used; one backup that cannot be read does not stop the others.
pub async fn sync(context: &Context, options: &Options) -> Result<Outcome, Failure> {
    let records = &context.records;
    if !records.keeps::<Backup>() {
        let text = "this cluster does not serve Ark's resources: there is nothing to sync";
        return Err(Failure::new(Exit::NotFound, text).hint("`kubectl ark install` makes them"));
    }
    let known = records.digests(Known::backup).await.map_err(refused)?;
    let restores = records.digests(Known::restore).await.map_err(refused)?;
    let jobs = list_jobs(context).await;
    let view = View {
        location: context.location.as_deref(),
        jobs: jobs.as_deref(),
        now: Timestamp::now(),
        force: options.force,
    };
    let performer = Performer::new(context, view);
    // These need no storage.
    let mut restores_failed = 0;
    for (restore, why) in plan::restores(&restores, &view) {
        let failed = performer.fail_restore(&restore, &why).await;
        restores_failed += usize::from(failed.map_err(refused)?);
    }
    give_up_rights(context).await;
    let listed = match storage::list(&context.store).await {
        Ok(listed) => listed,
        Err(error) => return Err(unreachable(context, &error).await),
    };
    let backups = listed
        .iter()
        .filter(|listed| listed.description.is_some() && !listed.deleting)
        .count();
    let plan = plan::plan(&known, &listed, &view);
    drop((known, listed));
    let tally = match performer.all(plan.entries).await {
        Ok(tally) => tally,
        Err(Abort::Cluster(error)) => return Err(refused(error)),
        Err(Abort::Store(error)) => return Err(unreachable(context, &error).await),
    };
    write_location(context, None).await;
    Ok(outcome(
        context,
        backups,
        plan.kept,
        plan.withheld,
        restores_failed,
        &tally,
    ))
}

fn refused(error: ClusterError) -> Failure {
    Failure::from_error(Exit::Failed, &error)
}

/// The Jobs; none, with a warning, when they cannot be seen: then only signs of life tell.
async fn list_jobs(context: &Context) -> Option<Vec<jobs::Job>> {
    let uid = &context.run.cluster_uid;
    match jobs::list(&context.cluster, &context.namespace, uid).await {
        Ok(jobs) => Some(jobs),
        Err(error) => {
            context.log.warn(&format!(
                "whether runs are at work is told by their signs of life alone: {}",
                error.full_text()
            ));
            None
        }
    }
}

/// Deletes the rights to restore if they were left behind.
async fn give_up_rights(context: &Context) {
    let uid = &context.run.cluster_uid;
    match rights::give_up_after(&context.cluster, &context.namespace, uid, None).await {
        Ok(Some(what)) => context.log.info(what),
        Ok(None) => {}
        Err(error) => context
            .log
            .warn(&rights::not_given_up(&context.namespace, &error)),
    }
}

/// Says in the location's status that storage cannot be used.
async fn unreachable(context: &Context, error: &StoreError) -> Failure {
    write_location(context, Some(&chain(error))).await;
    storage_failure(error)
}

/// Writes the status of the location, if one is synced. It is for people: that it cannot be written is a warning.
async fn write_location(context: &Context, unreachable: Option<&str>) {
    let Some(location) = &context.location else {
        return;
    };
    let mut status = json!({"unreachable": unreachable});
    if unreachable.is_none() {
        status["lastSyncTime"] = json!(Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    }
    let namespace = &context.namespace;
    let path =
        format!("/apis/{GROUP}/v1/namespaces/{namespace}/backupstoragelocations/{location}/status");
    let patch = request(
        Method::PATCH,
        &path,
        "application/merge-patch+json",
        &json!({"status": status}),
    );
    let doing = format!("updating BackupStorageLocation {location}");
    if let Err(error) = context.cluster.request(&patch, &doing).await {
        context.log.warn(&error.full_text());
    }
}

fn outcome(
    context: &Context,
    backups: usize,
    kept: usize,
    withheld: usize,
    restores_failed: usize,
    tally: &Tally,
) -> Outcome {
    let Tally {
        created,
        repaired,
        removed,
        deleting,
        failed,
        elsewhere,
        troubles,
    } = tally;
    let counts = [
        (*created, "created"),
        (*repaired, "written again"),
        (*removed, "removed"),
        (*deleting, "being deleted"),
        (*failed, "failed"),
        (kept, "unchanged"),
        (*elsewhere, "not shown"),
        (withheld, "kept though storage is empty"),
        (troubles.len(), "with errors"),
    ];
    let counts: Vec<String> = counts
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    let counts = match counts.is_empty() {
        true => "nothing to do".to_owned(),
        false => counts.join(", "),
    };
    let backups = plural(backups as u64, "backup");
    let mut message = format!("{backups} listed in storage; Backup resources: {counts}");
    if restores_failed > 0 {
        message.push_str(&format!("; Restore resources: {restores_failed} failed"));
    }
    let mut hint = None;
    if withheld > 0 {
        context.log.warn(&format!(
            "storage lists no backup at all; {} kept, since it may be the wrong bucket or prefix",
            match withheld {
                1 => "1 resource is".to_owned(),
                _ => format!("{withheld} resources are"),
            }
        ));
        let location = context.location.as_deref().unwrap_or_default();
        hint = Some(format!(
            "if {} is the right place and the backups are gone, `kubectl ark sync --location {location} --force{}` removes \
             their resources",
            context.store.canonical(),
            namespace_flag(&context.namespace)
        ));
    }
    let Some(first) = troubles.first() else {
        return Outcome {
            exit: Exit::Done,
            message,
            hint,
        };
    };
    message.push_str(": ");
    message.push_str(first);
    if troubles.len() > 1 {
        message.push_str(&format!("; and {} more", troubles.len() - 1));
    }
    Outcome {
        exit: Exit::PartiallyFailed,
        message,
        hint,
    }
}
