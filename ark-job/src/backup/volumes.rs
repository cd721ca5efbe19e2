//! The data of persistent volumes: snapshots of those that the backup will have, taken before the instant.
//!
//! Volumes are [found](find) and [decided about](decide) first; then those of pods with hooks are taken while these are
//! frozen, and then the rest. Nothing waits for a snapshot to be complete, so the time does not depend on sizes. What
//! comes of each volume is a record in the archive's footer, and a word in the report when its data is missing. What was
//! begun and got into no backup is [given up](give_up).

mod decide;
mod find;
mod give_up;

use self::decide::{NoWay, Rules, Way, Wish, way, wish};
use self::find::{Found, Source};
pub use self::give_up::{check_they_exist, give_up, give_up_after, let_go};
use super::freeze::namespaces_left_out;
use super::selection::Selection;
use crate::api::{VolumeBackup, VolumeCounts};
use crate::cluster::ClusterError;
use crate::context::Context;
use crate::error::{Failure, chain};
use crate::hooks::PodHooks;
use crate::log::Log;
use crate::report::{About, Report};
use crate::volumes::csi::{self, Classes, CsiClaim, CsiError};
use crate::volumes::disks::{DiskError, Disks};
use crate::volumes::policy::{self, Policies};
use crate::volumes::{Data, EBS_DRIVER, Owner, SKIP_ANNOTATION, VolumeRecord};
use futures::stream::{self, StreamExt};
use k8s_openapi::api::core::v1::PersistentVolume;
use std::collections::BTreeMap;
use std::time::Duration;

/// Snapshots that are asked for at once: a cloud answers each in a second or two, and throttles who asks for more.
const AT_ONCE: usize = 8;
/// Snapshots that a resource's status names.
const SHOWN: usize = 200;

/// What is asked for about volumes.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Resource policies, and the ConfigMap that they are in.
    pub policies: Option<(String, Policies)>,
    /// How long a CSI driver may take until a snapshot has a handle.
    pub csi_timeout: Duration,
}

impl Asked {
    /// Reads the resource policies, before any work.
    ///
    /// # Errors
    /// When the ConfigMap is not there, or something is wrong in it.
    pub async fn read(
        context: &Context,
        config_map: Option<&str>,
        csi_timeout: Duration,
    ) -> Result<Asked, Failure> {
        let policies = match config_map {
            None => None,
            Some(name) => {
                let map = context.config_map(name, "resource policies").await?;
                Some((name.to_owned(), policy::of_config_map(&map, name)?))
            }
        };
        Ok(Asked {
            policies,
            csi_timeout,
        })
    }
}

/// How grave it is that the data of a volume is not in the backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// There was no way.
    Warning,
    /// A snapshot was asked for, or failed.
    Error,
}

impl Weight {
    fn of(is_error: bool) -> Weight {
        match is_error {
            true => Weight::Error,
            false => Weight::Warning,
        }
    }

    /// Says it in log and report.
    pub fn say(self, log: &Log, report: &mut Report, text: String) {
        match self {
            Weight::Warning => {
                log.warn(&text);
                report.warn(About::Cluster, text);
            }
            Weight::Error => {
                log.error(&text);
                report.error(About::Cluster, text);
            }
        }
    }
}

/// A volume whose data is not in the backup though nobody asked for that.
#[derive(Debug, PartialEq)]
struct Unsaved {
    record: VolumeRecord,
    weight: Weight,
    next_step: Option<String>,
}

impl Unsaved {
    fn text(&self) -> String {
        let VolumeRecord {
            persistent_volume,
            claim,
            data,
            ..
        } = &self.record;
        let claim = match claim {
            Some(claim) => format!(" (claim {claim})"),
            None => String::new(),
        };
        let mut text = format!(
            "persistentvolumes {persistent_volume}{claim} has no snapshot, so the data in it is not in the backup"
        );
        if let Data::Missing { reason } = data {
            text += &format!(": {reason}");
        }
        if let Some(next_step) = &self.next_step {
            text += &format!("; {next_step}");
        }
        text
    }
}

/// A volume that is to be snapshotted.
struct Wanted {
    record: VolumeRecord,
    way: Way,
}

/// The snapshots of a backup, being taken.
pub struct Taking<'a> {
    context: &'a Context,
    owner: Owner,
    csi_timeout: Duration,
    waiting: Vec<Wanted>,
    done: Vec<VolumeRecord>,
    unsaved: Vec<Unsaved>,
    /// Volumes of a group that were not taken at one instant.
    remarks: Vec<String>,
    /// What is said of a volume that was not looked at.
    of_others: OfOthers,
}

/// What is said of volumes that were not looked at.
#[derive(Clone, Debug)]
struct OfOthers {
    snapshot_volumes: Option<bool>,
    why: String,
}

/// Finds the volumes that will be in the backup called `backup`, and decides about them. When they cannot be listed that is
/// an error of the backup, as for every type.
pub async fn look<'a>(
    context: &'a Context,
    backup: &str,
    selection: &Selection,
    asked: &Asked,
    report: &mut Report,
) -> Taking<'a> {
    let mut taking = Taking {
        context,
        owner: Owner::new(context.store.canonical(), &context.run, backup),
        csi_timeout: asked.csi_timeout,
        waiting: Vec::new(),
        done: Vec::new(),
        unsaved: Vec::new(),
        remarks: Vec::new(),
        of_others: OfOthers {
            snapshot_volumes: selection.snapshot_volumes,
            why: "it was not there yet when snapshots were taken".into(),
        },
    };
    match find_volumes(context, selection).await {
        Ok(found) => {
            let rules = Rules {
                snapshot_volumes: selection.snapshot_volumes,
                policies: asked
                    .policies
                    .as_ref()
                    .map(|(name, policies)| (name.as_str(), policies)),
            };
            taking.plan(found, &rules).await;
        }
        Err(error) => {
            let text = format!(
                "no snapshots are taken, for it is not known which volumes there are: {}",
                error.full_text()
            );
            context.log.error(&text);
            report.error(About::Cluster, text);
            taking.of_others.why = "the volumes could not be listed before".into();
        }
    }
    taking
}

async fn find_volumes(
    context: &Context,
    selection: &Selection,
) -> Result<Vec<Found>, ClusterError> {
    if !find::may_have_any(&context.cluster, selection).await? {
        return Ok(Vec::new());
    }
    let left_out = namespaces_left_out(context).await?;
    find::find(&context.cluster, selection, left_out).await
}

impl Taking<'_> {
    async fn plan(&mut self, found: Vec<Found>, rules: &Rules<'_>) {
        let wishes = found.into_iter().map(|volume| {
            let wish = wish(&volume, rules);
            (volume, wish)
        });
        let wishes: Vec<(Found, Wish)> = wishes.collect();
        // Who is not asked for a snapshot is not asked whether there is a way.
        let wanted = || {
            let wanted = wishes
                .iter()
                .filter(|(_, wish)| !matches!(wish, Wish::Not(_)));
            wanted.map(|(volume, _)| &volume.source)
        };
        let disks = match wanted().any(|source| matches!(source, Source::Ebs { .. })) {
            true => reach_disks(self.context).await.map(drop),
            false => Ok(()),
        };
        let by_driver = |source: &Source| match source {
            Source::Csi(_) => true,
            Source::Ebs { csi, .. } => csi.is_some() && disks.is_err(),
            Source::Other(_) => false,
        };
        let classes = match wanted().any(by_driver) {
            true => read_classes(self.context).await,
            false => Ok(Classes::default()),
        };
        for (volume, wish) in wishes {
            let way = match &wish {
                Wish::Not(_) => None,
                _ => Some(way(
                    &volume,
                    disks.clone(),
                    classes.as_ref().map_err(Clone::clone),
                )),
            };
            self.note(volume, wish, way);
        }
    }

    fn note(&mut self, volume: Found, wish: Wish, way: Option<Result<Way, NoWay>>) {
        let asked_for = wish == Wish::Asked;
        match (wish, way) {
            (Wish::Not(reason), _) => {
                let record = volume.into_record(Data::Skipped { reason });
                self.done.push(record);
            }
            (_, Some(Ok(way))) => {
                let record = volume.into_record(Data::Unknown);
                self.waiting.push(Wanted { record, way });
            }
            (_, Some(Err(NoWay { why, is_failure }))) => {
                let next_step = asked_for.then(|| {
                    format!(
                        "annotation {SKIP_ANNOTATION}: \"true\" on the claim says that none is wanted"
                    )
                });
                self.unsaved.push(Unsaved {
                    record: volume.into_record(Data::Missing { reason: why }),
                    weight: Weight::of(asked_for || is_failure),
                    next_step,
                });
            }
            (_, None) => {}
        }
    }

    /// Takes the snapshots of the volumes that pods of a group mount, all at once.
    pub async fn take_of(&mut self, group: &[PodHooks]) {
        let mounted = |wanted: &mut Wanted| {
            wanted.record.claim.as_ref().is_some_and(|claim| {
                group
                    .iter()
                    .any(|pod| pod.namespace == claim.namespace && pod.claims.contains(&claim.name))
            })
        };
        let mut wanted: Vec<Wanted> = self.waiting.extract_if(.., mounted).collect();
        for together in of_one_driver(&mut wanted) {
            let singly = self.take_together(together).await;
            wanted.extend(singly);
        }
        self.take(wanted).await;
    }

    /// Takes the snapshots that have not been taken, several at once.
    async fn take(&mut self, wanted: Vec<Wanted>) {
        let (context, owner, timeout) = (self.context, &self.owner, self.csi_timeout);
        let mut taken = stream::iter(wanted)
            .map(|wanted| take_one(context, owner, timeout, wanted))
            .buffer_unordered(AT_ONCE);
        while let Some(taken) = taken.next().await {
            match taken {
                Ok(record) => self.done.push(record),
                Err(unsaved) => self.unsaved.push(unsaved),
            }
        }
    }

    /// Takes snapshots of volumes of one namespace and driver at one instant, if the driver can do that; returns those that
    /// are still to be taken.
    async fn take_together(&mut self, wanted: Vec<Wanted>) -> Vec<Wanted> {
        let claims: Vec<CsiClaim> = wanted.iter().filter_map(csi_claim).collect();
        let Context { cluster, log, .. } = self.context;
        self.context.begun.csi();
        let taken = csi::snapshot_group(cluster, log, &self.owner, &claims, self.csi_timeout).await;
        match taken {
            Ok(None) => wanted,
            Ok(Some(snapshots)) => {
                for (Wanted { mut record, .. }, snapshot) in wanted.into_iter().zip(snapshots) {
                    record.data = Data::Csi(snapshot);
                    log_taken(self.context, &record);
                    self.done.push(record);
                }
                Vec::new()
            }
            // They are frozen: no time to try each for as long again.
            Err(error @ CsiError::Slow { .. }) => {
                let failed = wanted
                    .into_iter()
                    .map(|wanted| not_taken(wanted.record, csi_failure(&error)));
                self.unsaved.extend(failed);
                Vec::new()
            }
            Err(error) => {
                let names: Vec<String> =
                    claims.iter().map(|claim| claim.claim.to_string()).collect();
                let text = format!(
                    "persistentvolumeclaims {} are snapshotted one by one, for they could not be as a group: {}",
                    names.join(", "),
                    chain(&error)
                );
                self.context.log.warn(&text);
                self.remarks.push(text);
                wanted
            }
        }
    }

    /// Takes the snapshots that are left, and says in `report` which volumes have none.
    pub async fn finish(mut self, report: &mut Report) -> Looked {
        let rest = std::mem::take(&mut self.waiting);
        self.take(rest).await;
        for text in self.remarks {
            report.warn(About::Cluster, text);
        }
        self.unsaved
            .sort_by(|a, b| a.record.persistent_volume.cmp(&b.record.persistent_volume));
        let mut records = self.done;
        for unsaved in self.unsaved {
            let text = unsaved.text();
            unsaved.weight.say(&self.context.log, report, text);
            records.push(unsaved.record);
        }
        let by_name = |record: VolumeRecord| (record.persistent_volume.clone(), record);
        Looked {
            records: records.into_iter().map(by_name).collect(),
            of_others: self.of_others,
        }
    }
}

/// The disks, if they can be reached.
async fn reach_disks(context: &Context) -> Result<&dyn Disks, NoWay> {
    context.disks.disks().await.map_err(|error| NoWay {
        why: match error {
            DiskError::NotHere => {
                "volumes of EBS cannot be reached with --local: back up without it".to_owned()
            }
            _ => format!("volumes of EBS cannot be reached: {}", chain(&error)),
        },
        is_failure: !matches!(error, DiskError::NotHere),
    })
}

async fn read_classes(context: &Context) -> Result<Classes, NoWay> {
    let classes = Classes::read(&context.cluster).await;
    classes.map_err(|error| NoWay {
        why: format!(
            "the volumeSnapshotClasses cannot be read: {}",
            error.full_text()
        ),
        is_failure: true,
    })
}

fn csi_claim(wanted: &Wanted) -> Option<CsiClaim> {
    match &wanted.way {
        Way::Disk { .. } => None,
        Way::Csi {
            claim,
            driver,
            class,
        } => Some(CsiClaim {
            persistent_volume: wanted.record.persistent_volume.clone(),
            claim: claim.clone(),
            driver: driver.clone(),
            class: class.clone(),
        }),
    }
}

/// Takes out of `wanted` those of which several are of one namespace and driver.
fn of_one_driver(wanted: &mut Vec<Wanted>) -> Vec<Vec<Wanted>> {
    let mut groups: BTreeMap<(String, String), Vec<Wanted>> = BTreeMap::new();
    let mut rest = Vec::new();
    for wanted in wanted.drain(..) {
        match csi_claim(&wanted) {
            None => rest.push(wanted),
            Some(claim) => {
                let key = (claim.claim.namespace, claim.driver);
                groups.entry(key).or_default().push(wanted);
            }
        }
    }
    let (several, single): (Vec<_>, Vec<_>) =
        groups.into_values().partition(|group| group.len() > 1);
    rest.extend(single.into_iter().flatten());
    *wanted = rest;
    several
}

/// Why a snapshot was not taken, and what to do.
struct NotTaken {
    why: String,
    next_step: String,
}

async fn take_one(
    context: &Context,
    owner: &Owner,
    csi_timeout: Duration,
    wanted: Wanted,
) -> Result<VolumeRecord, Unsaved> {
    let taken = match &wanted.way {
        Way::Disk {
            region,
            zone,
            volume_id,
        } => take_of_disk(context, owner, &wanted.record, region, zone, volume_id).await,
        Way::Csi { .. } => take_by_driver(context, owner, csi_timeout, &wanted).await,
    };
    match taken {
        Ok(data) => {
            let record = VolumeRecord {
                data,
                ..wanted.record
            };
            log_taken(context, &record);
            Ok(record)
        }
        Err(failure) => Err(not_taken(wanted.record, failure)),
    }
}

async fn take_of_disk(
    context: &Context,
    owner: &Owner,
    record: &VolumeRecord,
    region: &str,
    zone: &str,
    volume_id: &str,
) -> Result<Data, NotTaken> {
    let disks = context
        .disks
        .disks()
        .await
        .map_err(|error| disk_failure(&error))?;
    let tags = owner.tags(&record.persistent_volume);
    context.begun.disk(region);
    let mut snapshot = disks
        .snapshot(region, volume_id, &tags)
        .await
        .map_err(|error| disk_failure(&error))?;
    if snapshot.availability_zone.is_empty() {
        zone.clone_into(&mut snapshot.availability_zone);
    }
    if snapshot.region.is_empty() {
        region.clone_into(&mut snapshot.region);
    }
    context.begun.taken(region, &snapshot.snapshot_id);
    Ok(Data::Ebs(snapshot))
}

async fn take_by_driver(
    context: &Context,
    owner: &Owner,
    within: Duration,
    wanted: &Wanted,
) -> Result<Data, NotTaken> {
    let Some(claim) = csi_claim(wanted) else {
        return Ok(Data::Unknown);
    };
    context.begun.csi();
    csi::snapshot(&context.cluster, &context.log, owner, &claim, within)
        .await
        .map(Data::Csi)
        .map_err(|error| csi_failure(&error))
}

fn disk_failure(error: &DiskError) -> NotTaken {
    let next_step = match error {
        DiskError::Refused { code, .. }
            if code == "UnauthorizedOperation" || code == "AccessDenied" =>
        {
            "docs/volumes.md lists the actions that Ark's role must allow"
        }
        DiskError::Refused { code, .. } if code == "InvalidVolume.NotFound" => {
            "the volume is gone from the cloud, or in another account or region"
        }
        DiskError::NotFound(_) => {
            "the volume is gone, or in another account or region (AWS_REGION is that of volumes whose zone is not known)"
        }
        DiskError::NotHere | DiskError::Setup(_) => {
            "docs/volumes.md says how Ark reaches the cloud"
        }
        _ => "another backup tries again",
    };
    NotTaken {
        why: chain(error),
        next_step: next_step.to_owned(),
    }
}

fn csi_failure(error: &CsiError) -> NotTaken {
    let next_step = match error {
        CsiError::Slow { .. } => {
            "the log of the driver's csi-snapshotter says more; `--csi-snapshot-timeout` gives it more time"
        }
        CsiError::Driver { .. } => "the log of the driver's csi-snapshotter says more",
        CsiError::NotServed => "install the snapshot controller and its resource types",
        CsiError::Cluster(error) if error.is_forbidden() => {
            "`kubectl ark install` gives the rights to take snapshots"
        }
        CsiError::Cluster(_) => "another backup tries again",
    };
    NotTaken {
        why: chain(error),
        next_step: next_step.to_owned(),
    }
}

fn not_taken(mut record: VolumeRecord, failure: NotTaken) -> Unsaved {
    let NotTaken { why, next_step } = failure;
    record.data = Data::Missing { reason: why };
    Unsaved {
        record,
        weight: Weight::Error,
        next_step: Some(next_step),
    }
}

fn log_taken(context: &Context, record: &VolumeRecord) {
    context.log.info(&format!(
        "persistentvolumes {}: snapshot {} has begun",
        record.persistent_volume,
        record.snapshot_id().unwrap_or_default()
    ));
}

/// A volume that was not looked at before the instant.
pub struct Late {
    /// Its record.
    pub record: VolumeRecord,
    /// What is to be said of it.
    pub missing: Option<(Weight, String)>,
}

/// The volumes that were looked at before the instant, and what became of their data.
pub struct Looked {
    records: BTreeMap<String, VolumeRecord>,
    of_others: OfOthers,
}

impl Looked {
    /// The record of a volume of the instant that was not looked at before, and what is to be said of it; `None` of one
    /// that was.
    pub fn late(&self, volume: &PersistentVolume) -> Option<Late> {
        let name = volume.metadata.name.as_ref()?;
        if self.records.contains_key(name) {
            return None;
        }
        let found = Found::of(volume, &BTreeMap::new());
        let OfOthers {
            snapshot_volumes,
            why,
        } = &self.of_others;
        let rules = Rules {
            snapshot_volumes: *snapshot_volumes,
            policies: None,
        };
        Some(match wish(&found, &rules) {
            Wish::Not(reason) => Late {
                record: found.into_record(Data::Skipped { reason }),
                missing: None,
            },
            wish => {
                let unsaved = Unsaved {
                    record: found.into_record(Data::Missing {
                        reason: why.clone(),
                    }),
                    weight: Weight::of(wish == Wish::Asked),
                    next_step: None,
                };
                Late {
                    missing: Some((unsaved.weight, unsaved.text())),
                    record: unsaved.record,
                }
            }
        })
    }

    /// All records, by name, with those of volumes that came `late`.
    pub fn records(&self, late: &[VolumeRecord]) -> Vec<VolumeRecord> {
        let mut records: Vec<VolumeRecord> = self.records.values().chain(late).cloned().collect();
        records.sort_by(|a, b| a.persistent_volume.cmp(&b.persistent_volume));
        records
    }
}

/// How many volumes there were, by what became of their data; none when there was none.
pub fn counts(records: &[VolumeRecord]) -> Option<VolumeCounts> {
    let mut counts = VolumeCounts::default();
    for record in records {
        match record.data {
            Data::Ebs(_) | Data::Csi(_) | Data::Unknown => counts.snapshotted += 1,
            Data::Skipped { .. } => counts.skipped += 1,
            Data::Missing { .. } => counts.missing += 1,
        }
    }
    (!records.is_empty()).then_some(counts)
}

/// The first snapshots, for the status of a resource.
pub fn volume_backups(records: &[VolumeRecord]) -> BTreeMap<String, VolumeBackup> {
    let backups = records.iter().filter_map(|record| {
        let backup = match &record.data {
            Data::Ebs(snapshot) => VolumeBackup {
                snapshot_id: snapshot.snapshot_id.clone(),
                driver: EBS_DRIVER.to_owned(),
                size: snapshot.size_gib.map(|size| i64::from(size) << 30),
                volume_type: Some(snapshot.volume_type.clone()).filter(|name| !name.is_empty()),
                availability_zone: Some(snapshot.availability_zone.clone())
                    .filter(|zone| !zone.is_empty()),
            },
            Data::Csi(snapshot) => VolumeBackup {
                snapshot_id: snapshot.handle.clone(),
                driver: snapshot.driver.clone(),
                size: snapshot.restore_size,
                volume_type: None,
                availability_zone: None,
            },
            Data::Skipped { .. } | Data::Missing { .. } | Data::Unknown => return None,
        };
        Some((record.persistent_volume.clone(), backup))
    });
    backups.take(SHOWN).collect()
}

#[cfg(test)]
mod tests;
