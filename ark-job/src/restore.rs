//! Restore: the objects of a backup come back, in order; what exists is left alone, or changed when asked for.

pub mod compare;
mod decide;
pub mod hooks;
mod join;
pub mod live;
mod make;
mod options;
pub mod order;
mod perform;
pub mod plan;
pub mod prepare;
mod preview;
mod results;
mod rules;
pub mod selection;
mod tally;
mod target;
pub mod volumes;
mod wire;

pub use self::options::Options;
pub use crate::rights;

use self::decide::{Policy, SYSTEM};
use self::hooks::HookRunner;
use self::make::Order;
use self::perform::{Paper, Performer, Progress};
use self::plan::{Plan, Survey};
use self::preview::Preview;
use self::results::{Place, ResourceList};
use self::tally::Tally;
use self::target::Mode;
use self::volumes::{Volumes, clone_name, needs_clone};
use crate::api::{
    BackupPhase, Restore, RestorePhase, RestoreProgress, RestoreStatus, namespace_flag,
};
use crate::args::PlanFormat;
use crate::cluster::Cluster;
use crate::cluster::discover::discover;
use crate::cluster::pace::Pace;
use crate::context::{Context, Outcome};
use crate::error::{Failure, chain};
use crate::exit::Exit;
use crate::records;
use crate::report::{About, first_few};
use crate::repository::{OpenBackup, open_backup};
use crate::store::Store;
use crate::store::location_id;
use crate::volumes::{VolumeRecord, recorded};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Volumes named in an error.
const DISKS_NAMED: usize = 5;
/// Volumes looked at at once, to see which are in the cluster.
const READS_AT_ONCE: usize = 8;
/// Members on their way while one is looked at: two keep the store and the checking of digests busy.
const MEMBERS_AHEAD: usize = 2;

/// Waits for the rights that a restore needs, if they are to be granted while it waits.
///
/// # Errors
/// [`Failure`] when they are not granted in time.
pub async fn wait_for_rights(
    cluster: &Cluster,
    namespace: &str,
    options: &Options,
) -> Result<(), Failure> {
    match options.wait_for_rights {
        Some(within) => rights::wait_for(cluster, namespace, within).await,
        None => Ok(()),
    }
}

/// Performs one restore.
///
/// # Errors
/// [`Failure`] when it could not begin or had to stop; objects that could not be restored are an [`Outcome`].
pub async fn restore(context: &Context, options: &Options) -> Result<Outcome, Failure> {
    let result = match options.preview {
        Some(format) => preview(context, options, format).await,
        None => restore_and_record(context, options).await,
    };
    let ended = match &result {
        Ok(_) => true,
        // Another attempt follows, and needs the rights; a plan is asked for anew.
        Err(failure) => options.preview.is_some() || Exit::FINAL.contains(&failure.exit()),
    };
    if ended {
        rights::give_up(context).await;
    }
    result
}

async fn restore_and_record(context: &Context, options: &Options) -> Result<Outcome, Failure> {
    let started = Timestamp::now();
    if let Some(done) = find_earlier(context, options).await? {
        return Ok(done);
    }
    claim(context, options, started).await?;
    let progress = Progress::default();
    let result = tokio::select! {
        result = restore_objects(context, options, &progress) => result,
        () = heartbeat(context, options, started, &progress) => Err(Failure::new(Exit::Failed, "the heartbeat ended")),
    };
    match result {
        Ok((tally, results)) => Ok(report(context, options, started, tally, results).await),
        Err(failure) => {
            fail(context, options, started, failure.message()).await;
            Err(failure)
        }
    }
}

/// Says in the record that the run was interrupted.
pub async fn interrupted(context: &Context, options: &Options) {
    if options.preview.is_some() {
        // It has no record, and nobody tries again.
        return rights::give_up(context).await;
    }
    let reason = "interrupted before it was complete; what has been restored stays";
    fail(context, options, Timestamp::now(), reason).await;
}

/// What an earlier restore of this name means for this one: done already, in the way, or (none) nothing.
async fn find_earlier(context: &Context, options: &Options) -> Result<Option<Outcome>, Failure> {
    let name = &options.name;
    let earlier = context
        .records
        .find::<Restore>(name)
        .await
        .map_err(|error| Failure::from_error(Exit::Failed, &error))?;
    let Some(earlier) = earlier else {
        return Ok(None);
    };
    if earlier.spec != options.spec {
        return Err(Failure::new(
            Exit::Conflict,
            format!("there is a restore {name} already, and something else was asked of it"),
        )
        .hint("choose another name with --name"));
    }
    let phase = earlier.status.and_then(|status| status.phase);
    if phase == Some(RestorePhase::Completed) && !options.again {
        return Ok(Some(Outcome {
            exit: Exit::Done,
            message: format!("restore {name} is complete already; nothing was done"),
            hint: Some("--again restores what has been deleted since".into()),
        }));
    }
    Ok(None)
}

/// Says in the Restore resource that this run is at work, or finds that another one is.
async fn claim(context: &Context, options: &Options, started: Timestamp) -> Result<(), Failure> {
    let mut record = Restore::new(&options.name, options.spec.clone());
    record.metadata.namespace = Some(context.namespace.clone());
    context
        .records
        .claim(record, &context.run.id, started)
        .await
        .map_err(|error| error.into_failure("wait for it, or choose another name with --name"))?;
    let status = status_in_progress(options, started, &Progress::default());
    let written = context
        .records
        .set_status::<Restore>(&options.name, &status)
        .await;
    written.map_err(|error| Failure::from_error(Exit::Failed, &error))
}

fn status_in_progress(options: &Options, started: Timestamp, progress: &Progress) -> RestoreStatus {
    RestoreStatus {
        phase: Some(RestorePhase::InProgress),
        start_timestamp: Some(Time(started)),
        heartbeat: Some(Time(Timestamp::now())),
        progress: Some(shown(progress)),
        restore_label: Some(options.label.clone()),
        ..RestoreStatus::default()
    }
}

fn shown(progress: &Progress) -> RestoreProgress {
    RestoreProgress {
        total_items: progress.total.load(Ordering::Relaxed),
        items_restored: progress.done.load(Ordering::Relaxed),
    }
}

/// Writes progress and a sign of life, for ever.
async fn heartbeat(context: &Context, options: &Options, started: Timestamp, progress: &Progress) {
    let beat = async || {
        let status = status_in_progress(options, started, progress);
        let records = &context.records;
        records.set_status::<Restore>(&options.name, &status).await
    };
    records::heartbeat(&context.log, beat).await;
}

/// Opens the backup, decides what comes back, brings it back, and stores what became of each object.
///
/// Returns what it came to, and where the details are.
async fn restore_objects(
    context: &Context,
    options: &Options,
    progress: &Progress,
) -> Result<(Tally, Option<Place>), Failure> {
    let list = ResourceList::new(&context.temporary).map_err(|error| {
        let directory = context.temporary.display();
        Failure::new(
            Exit::Failed,
            format!("creating a temporary file in {directory}: {error}"),
        )
    })?;
    let (tally, paper) = perform(context, options, progress, Paper::Record(list)).await?;
    let Paper::Record(list) = paper else {
        return Ok((tally, None));
    };
    let stored = results::store(context, &options.name, &tally.report.results, list).await;
    let place = match stored {
        Ok(place) => Some(place),
        Err(error) => {
            context.log.warn(&format!(
                "the restore is done, but its results are only here: {}",
                chain(&error)
            ));
            None
        }
    };
    Ok((tally, place))
}

/// Prints what a restore would do: the same plan, carried out by dry runs.
async fn preview(
    context: &Context,
    options: &Options,
    format: PlanFormat,
) -> Result<Outcome, Failure> {
    let paper = Paper::Plan(Preview::new(format));
    let (tally, paper) = perform(context, options, &Progress::default(), paper).await?;
    let backup = &options.spec.backup_name;
    let summary = match paper {
        Paper::Plan(preview) => preview.finish().await?,
        Paper::Record(_) => String::new(),
    };
    Ok(Outcome {
        exit: if tally.failed == 0 {
            Exit::Done
        } else {
            Exit::PartiallyFailed
        },
        message: format!("a restore of backup {backup} would come to this: {summary}"),
        hint: None,
    })
}

/// Decides what comes back, and does it, on paper or in the cluster.
async fn perform(
    context: &Context,
    options: &Options,
    progress: &Progress,
    paper: Paper,
) -> Result<(Tally, Paper), Failure> {
    let discovery = discover(&context.cluster)
        .await
        .map_err(|error| Failure::from_error(Exit::Failed, &error))?;
    let backup = open_backup(
        &context.store,
        &options.spec.backup_name,
        &context.temporary,
        discovery.versions(),
    );
    let backup = Arc::new(backup.await?);
    let selection = options.asked.select(
        &discovery.types,
        &backup.footer,
        &options.spec.namespace_mapping,
        &options.storage,
    )?;
    let mut rules = rules::read(context, options, &discovery, &backup.footer).await?;
    let records = records(&context.store, &backup).await?;
    rules.volumes = Volumes::new(records, options.spec.zone_mapping.clone());
    let missing = rules::classes_missing(context, &rules, &discovery).await?;
    let survey = Survey::new(selection, rules, missing);
    let mut plan = look_at_everything(&backup, survey).await?;
    let order = order(context, options);
    check_disks(context, &plan)?;
    name_copies(context, &order, &mut plan).await?;
    context.log.info(&format!(
        "{} objects of {} types are to be restored from backup {}",
        plan.objects(),
        plan.steps.len(),
        options.spec.backup_name
    ));
    let pace = Pace::new(options.max_in_flight, options.max_writes_per_second);
    let mut performer = Performer {
        cluster: &context.cluster,
        pace: &pace,
        log: &context.log,
        backup,
        plan: Arc::new(plan),
        discovery: Arc::new(discovery),
        label: options.label.as_str().into(),
        policy: Policy {
            existing: options.existing,
            mapped: !options.spec.namespace_mapping.is_empty(),
            system_named: options.asked.namespaces.named().any(|name| name == SYSTEM),
        },
        mode: match paper {
            Paper::Record(_) => Mode::Write,
            Paper::Plan(_) => Mode::DryRun,
        },
        disks: &context.disks,
        order: Arc::new(order),
        known: Arc::default(),
        max_in_flight: options.max_in_flight,
        progress,
        paper,
        tally: Tally::default(),
        provided: BTreeSet::new(),
        made: BTreeSet::new(),
        defined: BTreeSet::new(),
        runner: HookRunner::new(&context.cluster, &context.log, &options.label),
    };
    performer.warn_of_what_is_odd(options);
    performer.perform().await?;
    Ok(performer.finish().await)
}

/// Who asks for volumes, and how they shall be.
fn order(context: &Context, options: &Options) -> Order {
    Order {
        location: location_id(context.store.canonical()),
        cluster_uid: context.run.cluster_uid.clone(),
        backup: options.spec.backup_name.clone(),
        restore: options.name.clone(),
        kms_key: options.spec.kms_key.clone(),
        timeout: options.volume_timeout,
    }
}

/// Whether this process can make the disks that are asked for.
fn check_disks(context: &Context, plan: &Plan) -> Result<(), Failure> {
    if context.disks.is_here() || plan.disks.is_empty() {
        return Ok(());
    }
    let mut names: Vec<&str> = plan.disks.keys().map(String::as_str).collect();
    let count = names.len();
    names.truncate(DISKS_NAMED);
    let more = match count - names.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Err(Failure::new(
        Exit::Usage,
        format!(
            "the data of PersistentVolume {}{more} is in snapshots of EBS, and this process does not reach EC2",
            names.join(", ")
        ),
    )
    .hint("restore without --local: a Job makes the volumes; or with --restore-volumes=false, which gives claims new, empty ones"))
}

/// Gives other names to the volumes of claims whose namespace is called otherwise, where the originals are in the cluster.
async fn name_copies(context: &Context, order: &Order, plan: &mut Plan) -> Result<(), Failure> {
    let rules = &plan.rules;
    let mapped = plan.disks.iter().filter_map(|(name, namespace)| {
        let target = rules.namespaces.get(namespace.as_ref()?)?;
        let clone = clone_name(&order.location, &order.backup, target, name);
        Some((name.clone(), target.clone(), clone))
    });
    let read = async |name: &str| {
        let path = format!("/api/v1/persistentvolumes/{name}");
        let doing = format!("reading persistentvolumes {name}");
        match context.cluster.get::<Value>(&path, &doing).await {
            Ok(volume) => Ok(Some(volume)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(Failure::from_error(Exit::Failed, &error)),
        }
    };
    let mapped: Vec<(String, String, String)> = mapped.collect();
    let copies = stream::iter(mapped).map(async |(name, target, clone)| {
        let (original, copy) = futures::try_join!(read(&name), read(&clone))?;
        let is_copy = needs_clone(&target, original.as_ref(), copy.is_some());
        Ok::<_, Failure>(is_copy.then_some((name, clone)))
    });
    let copies: Vec<Option<(String, String)>> =
        copies.buffer_unordered(READS_AT_ONCE).try_collect().await?;
    plan.rules
        .volumes
        .set_clones(copies.into_iter().flatten().collect());
    Ok(())
}

/// The records of the volumes of a backup, whoever made it.
///
/// # Errors
/// When they cannot be read: then nobody knows which volumes it has.
pub async fn records(
    store: &Store,
    backup: &Arc<OpenBackup>,
) -> Result<Vec<VolumeRecord>, Failure> {
    let mut records = recorded::of_backup(store, backup).await.map_err(|error| {
        let name = &backup.footer.head.backup;
        let text = format!(
            "reading what backup {name} records of its volumes: {}",
            chain(&error)
        );
        Failure::new(Exit::Failed, text)
    })?;
    // What is of no volume of the archive.
    records.retain(|record| !record.persistent_volume.is_empty());
    Ok(records)
}

/// Looks at every object that may be wanted, and checks every byte of it, before anything is written.
async fn look_at_everything(backup: &Arc<OpenBackup>, mut survey: Survey) -> Result<Plan, Failure> {
    for (entry, members) in survey.passes(&backup.footer) {
        let mut members =
            std::pin::pin!(backup.read_members(members, MEMBERS_AHEAD, |_, opened| opened));
        while let Some(opened) = members.next().await {
            survey.look(&entry, &opened?);
        }
    }
    survey.plan(&backup.footer).map_err(|error| {
        let hint = error.hint();
        Failure::from_error(Exit::Usage, &error).hint(hint)
    })
}

impl Performer<'_> {
    /// What is rarely meant.
    fn warn_of_what_is_odd(&mut self, options: &Options) {
        let backup = &options.spec.backup_name;
        let mut odd = Vec::new();
        if self.plan.objects() == 0 {
            odd.push(format!("nothing in backup {backup} is selected"));
        }
        if self.backup.footer.head.status.phase == Some(BackupPhase::PartiallyFailed) {
            odd.push(format!(
                "backup {backup} is PartiallyFailed: what could not be backed up cannot come back"
            ));
        }
        for namespace in &self.plan.missing_namespaces {
            odd.push(format!(
                "--include-namespaces: there is nothing of namespace {namespace} in backup {backup}"
            ));
        }
        for namespace in &self.plan.idle_mappings {
            odd.push(format!(
                "--namespace-mappings: there is nothing of namespace {namespace} in backup {backup}"
            ));
        }
        let spec = &options.spec;
        odd.extend(odd_about_volumes(
            backup,
            &self.plan.rules.volumes.idle_zones(),
            spec.restore_pvs == Some(false),
            !spec.zone_mapping.is_empty(),
            spec.kms_key.is_some(),
        ));
        for text in odd {
            self.log.warn(&text);
            self.tally.report.warn(About::Operation, text);
        }
    }
}

/// Flags about volumes that come to nothing. Pure.
fn odd_about_volumes(
    backup: &str,
    idle_zones: &[&str],
    without_volumes: bool,
    maps_zones: bool,
    has_key: bool,
) -> Vec<String> {
    if without_volumes {
        let flags = [("--zone-mappings", maps_zones), ("--kms-key", has_key)];
        let idle = flags.into_iter().filter(|(_, given)| *given);
        return idle
            .map(|(flag, _)| {
                format!("{flag}: --restore-volumes=false makes no volume from a snapshot, so this has no effect")
            })
            .collect();
    }
    let text = |zone: &&str| {
        format!(
            "--zone-mappings: no volume in backup {backup} with a snapshot of EBS was in zone {zone}"
        )
    };
    idle_zones.iter().map(text).collect()
}

/// Writes the final status, and says how it went.
async fn report(
    context: &Context,
    options: &Options,
    started: Timestamp,
    tally: Tally,
    results: Option<Place>,
) -> Outcome {
    let Tally {
        created,
        updated,
        unchanged,
        skipped,
        failed,
        hooks,
        report,
    } = tally;
    let complete = report.errors == 0;
    let objects = created + updated + unchanged + skipped + failed;
    let status = RestoreStatus {
        phase: Some(if complete {
            RestorePhase::Completed
        } else {
            RestorePhase::PartiallyFailed
        }),
        completion_timestamp: Some(Time(Timestamp::now())),
        heartbeat: None,
        progress: Some(RestoreProgress {
            total_items: objects,
            items_restored: objects,
        }),
        created,
        updated,
        unchanged,
        skipped,
        failed,
        hooks_attempted: hooks.map(|hooks| hooks.attempted),
        hooks_failed: hooks.map(|hooks| hooks.failed),
        warnings: report.warnings,
        errors: report.errors,
        messages: report.messages(),
        results: results.as_ref().map(Place::reference),
        ..status_in_progress(options, started, &Progress::default())
    };
    let name = &options.name;
    if let Err(error) = context.records.set_status::<Restore>(name, &status).await {
        context.log.warn(&format!(
            "the restore is done, but its resource could not be updated: {}",
            error.full_text()
        ));
    }
    let counts = format!(
        "{created} created, {updated} updated, {unchanged} unchanged, {skipped} left out or left as they are, {failed} failed"
    );
    let backup = &options.spec.backup_name;
    let said = first_few(&status.messages, report.warnings + report.errors);
    let more = where_it_is_told(context, name, results.as_ref());
    if complete {
        let hint = (report.warnings > 0).then(|| {
            let warnings = format!("{} warnings: {said}", report.warnings);
            more.map_or(warnings.clone(), |more| format!("{warnings}; {more}"))
        });
        return Outcome {
            exit: Exit::Done,
            message: format!("restore {name} of backup {backup} is complete: {counts}"),
            hint,
        };
    }
    Outcome {
        exit: Exit::PartiallyFailed,
        message: format!(
            "restore {name} of backup {backup} is done ({counts}), but something is missing: {said}"
        ),
        hint: more,
    }
}

/// What tells everything that there is to say of a restore: its record, or its results where no records are kept.
fn where_it_is_told(context: &Context, name: &str, results: Option<&Place>) -> Option<String> {
    if context.records.keeps::<Restore>() {
        let flag = namespace_flag(&context.namespace);
        return Some(format!(
            "`kubectl ark restore describe {name}{flag}` lists what there is to say"
        ));
    }
    let place = match results? {
        Place::Stored(key) => format!("{key} (gzip of JSON) in {}", context.store.canonical()),
        Place::Kept(map) => format!("ConfigMap {map} in namespace {}", context.namespace),
    };
    Some(format!("what there is to say is in {place}"))
}

/// Says in the record that the restore stopped, and why.
async fn fail(context: &Context, options: &Options, started: Timestamp, reason: &str) {
    let status = RestoreStatus {
        phase: Some(RestorePhase::Failed),
        failure_reason: Some(reason.to_owned()),
        completion_timestamp: Some(Time(Timestamp::now())),
        heartbeat: None,
        progress: None,
        errors: 1,
        ..status_in_progress(options, started, &Progress::default())
    };
    let written = context
        .records
        .set_status::<Restore>(&options.name, &status);
    records::fail(&context.log, reason, written).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_about_volumes_that_come_to_nothing_are_named() {
        let idle = odd_about_volumes("b", &["eu-central-1x"], false, true, true);
        assert_eq!(
            idle,
            [
                "--zone-mappings: no volume in backup b with a snapshot of EBS was in zone eu-central-1x"
            ]
        );
        let without = odd_about_volumes("b", &["eu-central-1x"], true, true, true);
        assert_eq!(without.len(), 2, "{without:?}");
        assert!(without[0].starts_with("--zone-mappings: --restore-volumes=false"));
        assert!(without[1].starts_with("--kms-key: --restore-volumes=false"));
        assert!(odd_about_volumes("b", &[], true, false, false).is_empty());
        assert!(odd_about_volumes("b", &[], false, true, true).is_empty());
    }
}
