//! Backup: all objects of one instant into one archive, committed or not at all.

mod commit;
mod freeze;
mod frozen;
mod gather;
mod instant;
mod names;
mod namespaces;
mod options;
mod record;
mod selection;
mod tick;
mod volumes;
mod writer;

use self::commit::{Archive, Look};
use self::freeze::{Frozen, Twin};
use self::gather::{GatherError, Progress};
use self::names::NameLists;
pub use self::options::Options;
use self::record::{claim, fail, heartbeat, write_status};
use self::selection::Selection;
use self::writer::ArchiveWriter;
use crate::api::{BackupPhase, BackupProgress, BackupStatus, FORMAT_VERSION, HookStatus};
use crate::archive::footer::Head;
use crate::cluster::discover::{Discovery, ResourceType, discover};
use crate::context::{Context, Outcome, storage_failure};
use crate::error::Failure;
use crate::exit::Exit;
use crate::failed_log;
use crate::hooks::{self, HookSpecs};
use crate::layout::BackupKeys;
use crate::mode;
use crate::report::{About, Report, plural};
use crate::store::{Conditional, Spool};
use crate::volumes::{VolumeRecord, velero};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::time::Duration;

/// How long an interrupted run takes to delete its snapshots: whoever has interrupted it waits, 30 seconds by default.
const GIVEN_UP_WITHIN: Duration = Duration::from_secs(10);

/// Performs one backup, and sees to it that the log of a failure outlives the pod.
///
/// # Errors
/// [`Failure`] when there is no backup; one from which something is missing is an [`Outcome`].
pub async fn backup(context: &Context, options: &Options) -> Result<Outcome, Failure> {
    // Refused, it leaves nothing behind, no log either.
    mode::refuse_unless_writable(context).await?;
    let result = back_up(context, options)
        .await
        .map_err(|failure| with_way_out_of_schedule(failure, options));
    match &result {
        Ok(_) => failed_log::remove(context, &options.name).await,
        // The name is another run's, and so is the log that is kept under it.
        Err(failure) if failure.exit() == Exit::Conflict => {}
        Err(failure) => failed_log::keep(context, &options.name, failure.message()).await,
    }
    result
}

/// Of a schedule, another name is no way out, and least of all is deleting a backup that another cluster has made.
fn with_way_out_of_schedule(failure: Failure, options: &Options) -> Failure {
    match &options.tick {
        Some(tick) if failure.next_step() == Some(commit::WAY_OUT) => failure.hint(format!(
            "two clusters that back up to one place must not have schedules of one name: give this one another name than \
             {}, or this cluster a prefix of its own",
            tick.schedule
        )),
        _ => failure,
    }
}

async fn back_up(context: &Context, options: &Options) -> Result<Outcome, Failure> {
    let keys = BackupKeys::new(&options.name);
    let started = Timestamp::now();
    let hooks = read_hooks(context, options).await?;
    let asked = read_volume_policies(context, options).await?;
    let mut dead = None;
    let found = loop {
        let found = commit::look(&context.store, &keys, &context.run.id).await?;
        match found {
            Look::Taken(taken) if options.keeps(&taken) => return Ok(kept(options, &taken)),
            Look::Taken(taken) => return Err(commit::taken(&keys, &taken.by)),
            Look::Ours(..) => break found,
            Look::Free | Look::Unfinished(_) if dead.is_some() => break found,
            Look::Free | Look::Unfinished(_) => {}
        }
        // What it has frozen is its own business while it lives.
        match freeze::wait_for_twin(context, &options.name).await? {
            Twin::None => break found,
            Twin::Ended => {}
            Twin::Dead(attempt) => dead = Some(attempt),
        }
    };
    let wanted = match &found {
        Look::Free => match want(context, options, &hooks).await {
            // A type that nobody serves is a mistake on the command line: said before anything is written.
            Err(failure) if failure.exit() == Exit::Usage => return Err(failure),
            wanted => Some(wanted),
        },
        _ => None,
    };
    claim(context, options, started).await?;
    let progress = Progress::default();
    let work = async || {
        let mut report = Report::default();
        let dead = dead.as_deref();
        let mut found =
            match freeze::thaw_what_was_left(context, &options.name, dead, &mut report).await? {
                true => commit::look(&context.store, &keys, &context.run.id).await?,
                false => found,
            };
        check_store(context, &mut report).await?;
        let mut wanted = wanted.transpose()?;
        loop {
            let (archive, names) = match found {
                Look::Ours(marker, etag) => {
                    // Whoever has committed it may have been cut off right after.
                    volumes::let_go(context, &marker.commit.volumes).await;
                    return Ok((marker.status, etag));
                }
                Look::Taken(taken) => return Err(commit::taken(&keys, &taken.by)),
                Look::Unfinished(archive) => {
                    context.log.info(
                        "an attempt at this backup was cut off after its archive; going on from there",
                    );
                    volumes::check_they_exist(context, &archive.footer.head.volumes).await?;
                    (*archive, None)
                }
                Look::Free => {
                    let wanted = match &mut wanted {
                        Some(wanted) => wanted,
                        // The name was not free when we came.
                        unknown => unknown.insert(want(context, options, &hooks).await?),
                    };
                    let report = report.clone();
                    let written = write_archive(
                        context, options, wanted, &asked, &keys, started, &progress, report,
                    );
                    match written.await? {
                        Some(written) => written,
                        None => {
                            found = commit::look(&context.store, &keys, &context.run.id).await?;
                            continue;
                        }
                    }
                }
            };
            let head = &archive.footer.head;
            if head.attempt != context.run.attempt {
                // A twin was first: its snapshots are those of the backup.
                volumes::give_up(context, &options.name, &head.volumes).await;
            }
            let (marker, etag) = commit::commit(context, &keys, &archive, names).await?;
            volumes::let_go(context, &marker.commit.volumes).await;
            return Ok((marker.status, etag));
        }
    };
    let work = async {
        let result = work().await;
        if result.is_err() {
            volumes::give_up_after(context, &keys, &options.name).await;
        }
        result
    };
    let result = tokio::select! {
        result = work => result,
        () = heartbeat(context, options, started, &progress) => Err(Failure::new(Exit::Failed, "the heartbeat ended")),
    };
    freeze::give_up_record(context, &options.name).await;
    match result {
        Ok((status, etag)) => Ok(report(context, options, status, etag).await),
        Err(failure) => {
            if failure.exit() == Exit::Conflict
                && let Look::Taken(taken) =
                    commit::look(&context.store, &keys, &context.run.id).await?
                && options.keeps(&taken)
            {
                return Ok(kept(options, &taken));
            }
            fail(context, options, started, failure.message()).await;
            Err(failure)
        }
    }
}

fn kept(options: &Options, taken: &commit::Taken) -> Outcome {
    Outcome {
        exit: Exit::Done,
        message: format!("backup {} is kept: {}", options.name, taken.by),
        hint: None,
    }
}

/// The hook specs that are asked for, read and checked before any work.
async fn read_hooks(context: &Context, options: &Options) -> Result<HookSpecs, Failure> {
    let Some(name) = options.hooks_config_map() else {
        return Ok(HookSpecs::default());
    };
    let map = context.config_map(name, "hooks").await?;
    parse_hooks(&map, name)
}

/// What is asked for about volumes, read and checked before any work.
async fn read_volume_policies(
    context: &Context,
    options: &Options,
) -> Result<volumes::Asked, Failure> {
    let config_map = options.spec.resource_policy.as_deref();
    volumes::Asked::read(context, config_map, options.csi_snapshot_timeout).await
}

/// The hook specs that a ConfigMap holds.
///
/// # Errors
/// [`Exit::Usage`], with the place of what is wrong.
pub fn parse_hooks(map: &ConfigMap, name: &str) -> Result<HookSpecs, Failure> {
    HookSpecs::parse(hooks::document(map, name)?).map_err(|why| hooks::mistake(name, &why))
}

/// Thaws what is frozen, and says in the record that the run was interrupted.
pub async fn interrupted(context: &Context, options: &Options) {
    freeze::thaw_at_once(context).await;
    freeze::give_up_record(context, &options.name).await;
    let reason = "interrupted before it was complete";
    fail(context, options, Timestamp::now(), reason).await;
    failed_log::keep(context, &options.name, reason).await;
    if context.begun.may_be_in_archive() {
        // The last request of its upload may be under way.
        return;
    }
    let keys = BackupKeys::new(&options.name);
    let giving_up = volumes::give_up_after(context, &keys, &options.name);
    if tokio::time::timeout(GIVEN_UP_WITHIN, giving_up)
        .await
        .is_err()
    {
        context.log.warn(
            "snapshots of this attempt may be left, which no backup names and a sweep deletes",
        );
    }
}

/// What the cluster serves, and what of it is wanted.
struct Wanted {
    discovery: Discovery,
    selection: Selection,
    hooks: HookSpecs,
}

async fn want(context: &Context, options: &Options, hooks: &HookSpecs) -> Result<Wanted, Failure> {
    let discovery = discover(&context.cluster)
        .await
        .map_err(|error| Failure::from_error(Exit::Failed, &error))?;
    let selection = options.select(&discovery)?;
    let types: Vec<ResourceType> = discovery.restorable().cloned().collect();
    let hooks = hooks.clone().about_pods(&types).map_err(|why| {
        let name = options.hooks_config_map().unwrap_or_default();
        hooks::mistake(name, &why)
            .hint("`kubectl api-resources` lists what the cluster serves; hooks are for pods")
    })?;
    Ok(Wanted {
        discovery,
        selection,
        hooks,
    })
}

/// Snapshots the volumes between the hooks, then gathers the objects and uploads the archive while it grows; `None` when
/// another attempt of this run was at work and has ended.
#[expect(
    clippy::too_many_arguments,
    reason = "each is used, and they belong to different owners"
)]
async fn write_archive(
    context: &Context,
    options: &Options,
    wanted: &Wanted,
    asked: &volumes::Asked,
    keys: &BackupKeys,
    started: Timestamp,
    progress: &Progress,
    mut report: Report,
) -> Result<Option<(Archive, Option<NameLists>)>, Failure> {
    let temporary = |error: std::io::Error| {
        let directory = context.temporary.display();
        Failure::new(Exit::Failed, format!("writing a temporary file in {directory}: {error}"))
            .hint("the archive is kept there until it is uploaded: give it more room (the Job's /tmp volume, or TMPDIR)")
    };
    let Wanted {
        discovery,
        selection,
        hooks,
    } = wanted;
    report_missing(context, options, discovery, &mut report);
    let name = &options.name;
    let mut taking = volumes::look(context, name, selection, asked, &mut report).await;
    let frozen = match options.runs_hooks() {
        true => {
            freeze::run_hooks(context, name, selection, hooks, &mut taking, &mut report).await?
        }
        false => Frozen::Done(None),
    };
    let hook_status = match frozen {
        Frozen::Done(status) => status,
        Frozen::Overtaken => return Ok(None),
    };
    let looked = taking.finish(&mut report).await;
    let types: Vec<&ResourceType> = discovery.restorable().collect();
    let (spool, mut source) = Spool::create(&context.temporary).map_err(temporary)?;
    let mut names = NameLists::new(&context.temporary).map_err(temporary)?;
    let mtime = u64::try_from(started.as_second()).unwrap_or_default();
    let (finished, created) = {
        let write = async {
            let writer = ArchiveWriter::start(spool, options.compression_level, mtime)
                .await
                .map_err(temporary)?;
            let (cluster, log) = (&context.cluster, &context.log);
            let gathered = gather::gather(
                cluster,
                &types,
                selection,
                &looked,
                &writer,
                progress,
                log,
                &mut report,
                &mut names,
            )
            .await;
            let gathered = match gathered {
                Ok(gathered) => gathered,
                Err(GatherError::Cluster(error)) => {
                    return Err(Failure::from_error(Exit::Failed, &error));
                }
                // The names of the objects go to a file of their own, which a full disk may hit first.
                Err(GatherError::Archive(error)) => {
                    return Err(temporary(writer.failure(error).await));
                }
            };
            let volumes = looked.records(&gathered.late_volumes);
            if let Some(text) = velero::warning(&volumes) {
                log.warn(&text);
                report.warn(About::Operation, text);
            }
            let head = || {
                head(
                    context,
                    options,
                    started,
                    &gathered,
                    volumes,
                    hook_status,
                    &report,
                )
            };
            context.begun.goes_into_archive();
            writer.finish(head).await.map_err(temporary)
        };
        let archive_key = keys.archive();
        let upload = context.store.upload_new(&archive_key, &mut source);
        let (mut write, mut upload) = (std::pin::pin!(write), std::pin::pin!(upload));
        tokio::select! {
            finished = &mut write => (finished, upload.await),
            // Only a failure can end the upload before the archive is whole.
            created = &mut upload => match created {
                // The one who writes the archive knows why there will be no more of it.
                Err(error) if error.is_abandoned() => (write.await, Err(error)),
                Err(error) => return Err(storage_failure(&error)),
                Ok(_) => return Err(Failure::new(Exit::Failed, format!("{archive_key} was completed too early"))),
            }
        }
    };
    let finished = finished?;
    let created = created.map_err(|error| storage_failure(&error))?;
    let archive = commit::settle(context, keys, &created).await?;
    // The names are those of our own archive, not of a twin's. Members have digests; the footer read back would never be
    // equal as a whole, since stored times are whole seconds.
    let names = (archive.footer.members == finished.members).then_some(names);
    Ok(Some((archive, names)))
}

/// Finds out what the store lacks.
async fn check_store(context: &Context, report: &mut Report) -> Result<(), Failure> {
    let conditional = context
        .store
        .probe(&context.run.attempt)
        .await
        .map_err(|error| storage_failure(&error))?;
    if conditional != Conditional::FULL {
        let text = "the store ignores If-None-Match: two backups of one name at the same instant could mix";
        context.log.warn(text);
        report.warn(About::Operation, text);
    }
    Ok(())
}

/// Names the groups that could not be asked what they serve: their objects are missing from the backup.
fn report_missing(
    context: &Context,
    options: &Options,
    discovery: &Discovery,
    report: &mut Report,
) {
    for missing in &discovery.missing {
        let text = format!(
            "{} cannot be discovered, so its objects are missing: {}",
            missing.group_version,
            missing.error.full_text()
        );
        let group = missing.group_version.split('/').next().unwrap_or_default();
        let mut ignored = options.spec.ignore_undiscoverable.iter();
        if ignored.any(|name| name == group) {
            context.log.warn(&text);
            report.warn(About::Cluster, text);
        } else {
            context.log.error(&text);
            report.error(About::Cluster, text);
        }
    }
    for group in &discovery.ignored {
        context.log.info(&format!(
            "{group} cannot be discovered; it holds nothing to back up"
        ));
    }
}

/// What the footer says, but for the members.
fn head(
    context: &Context,
    options: &Options,
    started: Timestamp,
    gathered: &gather::Gathered,
    volumes: Vec<VolumeRecord>,
    hook_status: Option<HookStatus>,
    report: &Report,
) -> Head {
    let items: u64 = gathered.types.iter().map(|entry| entry.items).sum();
    let bytes: u64 = gathered.types.iter().map(|entry| entry.bytes).sum();
    let status = BackupStatus {
        phase: Some(if report.errors == 0 {
            BackupPhase::Completed
        } else {
            BackupPhase::PartiallyFailed
        }),
        start_timestamp: Some(Time(started)),
        completion_timestamp: Some(Time(Timestamp::now())),
        expiration: options.expiration(started).map(Time),
        progress: Some(BackupProgress {
            total_items: Some(items),
            items_backed_up: items,
            bytes_read: bytes,
        }),
        skipped: gathered.skipped,
        warnings: report.warnings,
        errors: report.errors,
        messages: report.messages(),
        volumes: volumes::counts(&volumes),
        volume_backups: volumes::volume_backups(&volumes),
        hook_status,
        resource_version: Some(gathered.resource_version.clone()),
        cluster_uid: Some(context.run.cluster_uid.clone()),
        cluster_name: context.cluster_name.clone(),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        format_version: Some(FORMAT_VERSION.to_owned()),
        ..BackupStatus::default()
    };
    Head {
        format_version: FORMAT_VERSION.to_owned(),
        encryption: "none".to_owned(),
        backup: options.name.clone(),
        run_id: context.run.id.to_string(),
        attempt: context.run.attempt.clone(),
        cluster_uid: context.run.cluster_uid.clone(),
        namespace: context.namespace.clone(),
        schedule: options.tick.as_ref().map(|tick| tick.schedule.clone()),
        keep_last: options.tick.as_ref().map(|tick| tick.keep_last),
        labels: options.labels.clone(),
        spec: options.spec.clone(),
        status,
        types: gathered.types.clone(),
        velero_snapshot_location: context.velero_snapshot_location.clone(),
        volumes,
        results: report.results.clone(),
    }
}

/// Writes the final status, and says how it went.
async fn report(
    context: &Context,
    options: &Options,
    mut status: BackupStatus,
    etag: String,
) -> Outcome {
    status.marker_etag = Some(etag);
    if let Err(error) = write_status(context, options, |_| Some(status.clone())).await {
        // The backup is in storage, which is the truth; a sync repairs the resource.
        context.log.warn(&format!(
            "the backup is complete, but its resource could not be updated: {}",
            error.full_text()
        ));
    }
    let name = &options.name;
    let items = status
        .progress
        .map(|progress| progress.items_backed_up)
        .unwrap_or_default();
    let revision = status.resource_version.as_deref().unwrap_or("unknown");
    let size = human_size(status.size.unwrap_or_default());
    let mut what = format!("{items} objects of revision {revision}, {size}");
    let snapshots = status.volumes.map_or(0, |volumes| volumes.snapshotted);
    if snapshots > 0 {
        what += &format!(", {}", plural(snapshots, "snapshot"));
    }
    if status.phase == Some(BackupPhase::PartiallyFailed) {
        return Outcome {
            exit: Exit::PartiallyFailed,
            message: format!(
                "backup {name} is stored ({what}), but something is missing: {}",
                status.messages.join("; ")
            ),
            hint: Some(format!(
                "`kubectl ark backup describe {name}` lists what is missing"
            )),
        };
    }
    Outcome {
        exit: Exit::Done,
        message: format!("backup {name} is complete: {what}"),
        hint: None,
    }
}

/// A size in bytes with a binary unit.
fn human_size(bytes: i64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_write_them() {
        assert_eq!(human_size(512), "512 B");
        assert_eq!(human_size(5 << 20), "5.0 MiB");
    }
}
