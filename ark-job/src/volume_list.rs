//! `ark-job volumes`: the snapshots that backups record, their state now, and those that no backup records.

use crate::args::{PlanFormat, VolumesArgs};
use crate::context::{Context, Outcome};
use crate::error::{Failure, chain};
use crate::exit::Exit;
use crate::foreign::Origin;
use crate::holdings::{self, Candidate, Found, Loose, State, What, loose, unrecorded};
use crate::removal::{RemovalError, Target, snapshots};
use crate::report::plural;
use crate::repository::WHERE_BACKUPS_ARE;
use crate::stdout;
use crate::store::location_id;
use crate::volumes::csi::{self, Owned};
use crate::volumes::disks::{self, DiskSnapshot};
use crate::volumes::{Data, EBS_DRIVER, VolumeRecord};
use futures::{StreamExt, stream};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Backups read at once; each takes a few small reads, one after the other.
const AT_ONCE: usize = 32;
/// What stands for the backup of what none records.
const NONE: &str = "<none>";

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Only those of these backups; all when empty.
    pub backups: Vec<String>,
    /// Only those that no backup records.
    pub orphans: bool,
    /// How they are printed.
    pub output: PlanFormat,
}

impl Options {
    /// Checks what was typed.
    ///
    /// # Errors
    /// [`Exit::Usage`], with what is wrong.
    pub fn resolve(arguments: &VolumesArgs) -> Result<Options, Failure> {
        let VolumesArgs {
            backups,
            storage: _,
            orphans,
            output,
        } = arguments;
        Ok(Options {
            backups: backups.clone(),
            orphans: *orphans,
            output: *output,
        })
    }
}

/// One line.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    /// The backup that records it; none of an orphan.
    #[serde(skip_serializing_if = "Option::is_none")]
    backup: Option<String>,
    /// Of an orphan, the backup or restore that its tags or labels name.
    #[serde(skip_serializing_if = "Option::is_none")]
    of: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    persistent_volume: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    claim: Option<String>,
    driver: String,
    /// Its id or handle.
    #[serde(skip_serializing_if = "String::is_empty")]
    snapshot: String,
    /// Of a volume that a restore has made and nothing uses, its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    volume: Option<String>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<Timestamp>,
}

/// Records of snapshots, with their backup.
type Recorded = Vec<(String, VolumeRecord)>;

/// Lists them.
///
/// # Errors
/// When storage or cluster cannot be asked. What cannot be read of one backup is said, and the rest is listed.
pub async fn list(context: &Context, options: &Options) -> Result<Outcome, Failure> {
    let mut troubles = Vec::new();
    let (records, found) = if options.backups.is_empty() {
        let mut found = holdings::look(context).await?;
        let clusters = BTreeSet::from([context.run.cluster_uid.clone()]);
        loose::look(context, &clusters, false, &mut found).await;
        let records = match options.orphans {
            true => Vec::new(),
            false => all(context, &found.backups, &mut troubles).await,
        };
        for candidate in &found.backups {
            if let Some(why) = &candidate.recorded.unknown {
                let name = &candidate.name;
                troubles.push(format!(
                    "backup {name}: {why}; what is said to be recorded by none may be its"
                ));
            }
        }
        troubles.extend(
            found
                .troubles
                .iter()
                .map(|(_, what, why)| format!("{what}: {why}")),
        );
        (records, found)
    } else {
        let records = named(context, &options.backups, &mut troubles).await?;
        (records, Found::default())
    };
    let live = Live::ask(context, &records, &found).await;
    let mut rows: Vec<Row> = records
        .iter()
        .map(|(backup, record)| of_record(backup, record, &live))
        .collect();
    let recorded = rows.len();
    rows.extend(unrecorded(&found).into_iter().map(of_orphan));
    let orphans = rows.len() - recorded;
    let text = match options.output {
        PlanFormat::Text => table(&rows),
        PlanFormat::Json => lines(&rows),
    };
    stdout::write(text.into()).await?;
    for trouble in &troubles {
        context.log.error(trouble);
    }
    let recorded = plural(recorded as u64, "recorded snapshot");
    let mut message = match (options.orphans, options.backups.is_empty()) {
        (true, _) => format!("{orphans} recorded by no backup"),
        (false, true) => format!("{recorded}, {orphans} recorded by no backup"),
        (false, false) => recorded,
    };
    // The plugin shows this, and not the log.
    if let Some(first) = troubles.first() {
        let count = plural(troubles.len() as u64, "error");
        let more = if troubles.len() > 1 {
            ", first of all"
        } else {
            ""
        };
        message += &format!("; {count}{more}: {first}");
    }
    Ok(Outcome {
        exit: match troubles.is_empty() {
            true => Exit::Done,
            false => Exit::PartiallyFailed,
        },
        message,
        hint: None,
    })
}

/// What the backups of the location record, in order of their names.
async fn all(context: &Context, backups: &[Candidate], troubles: &mut Vec<String>) -> Recorded {
    let read: Vec<_> = stream::iter(backups)
        .map(|candidate| async move {
            let name = candidate.name.clone();
            let others = match &candidate.state {
                State::Whole(whole) => whole.origin != Origin::Ark,
                _ => false,
            };
            let records = match others {
                true => of_backup(context, &name).await.map(|(_, records)| records),
                false => Ok(candidate.recorded.snapshots.clone()),
            };
            (name, records)
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    let mut all = Vec::new();
    for (name, records) in read {
        match records {
            Ok(records) => all.extend(records.into_iter().map(|record| (name.clone(), record))),
            Err(failure) => troubles.push(failure.message().to_owned()),
        }
    }
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    all
}

/// What these backups record, in the order in which they were given.
async fn named(
    context: &Context,
    names: &[String],
    troubles: &mut Vec<String>,
) -> Result<Recorded, Failure> {
    let mut all = Vec::new();
    let (mut read, mut unreadable) = (0, None);
    let mut seen = BTreeSet::new();
    for name in names.iter().filter(|name| seen.insert(*name)) {
        match of_backup(context, name).await {
            Ok((true, records)) => {
                read += 1;
                all.extend(records.into_iter().map(|record| (name.clone(), record)));
            }
            Ok((false, _)) => {
                troubles.push(format!(
                    "there is no backup {name:?} in {}",
                    context.store.canonical()
                ));
            }
            Err(failure) => {
                troubles.push(failure.message().to_owned());
                unreadable.get_or_insert(failure);
            }
        }
    }
    match (unreadable, troubles.first()) {
        (Some(failure), _) if read == 0 => Err(failure),
        (None, Some(first)) if read == 0 => {
            Err(Failure::new(Exit::NotFound, first.clone()).hint(WHERE_BACKUPS_ARE))
        }
        _ => Ok(all),
    }
}

/// Whether there is a backup, and the snapshots that it records.
async fn of_backup(context: &Context, name: &str) -> Result<(bool, Vec<VolumeRecord>), Failure> {
    let read = async {
        let target = Target::look(&context.store, name).await?;
        let is_there = target.description().or(target.archive()).is_some();
        let records = snapshots::recorded(&context.store, name, &target).await?;
        Ok::<_, RemovalError>((is_there, records))
    };
    read.await.map_err(|error| match error {
        // The whole of it speaks of a deletion.
        RemovalError::Snapshots { why, .. } => {
            Failure::new(Exit::Failed, format!("backup {name}: {why}"))
        }
        error => {
            let failure = Failure::from(error);
            let hint = failure.next_step().map(str::to_owned);
            let text = format!("backup {name}: {}", failure.message());
            Failure::new(failure.exit(), text).maybe_hint(hint)
        }
    })
}

/// What cloud and cluster say now.
#[derive(Default)]
struct Live {
    /// Snapshots of EBS, by id; none when the cloud could not be asked.
    disks: Option<BTreeMap<String, DiskSnapshot>>,
    /// Objects of snapshots, by driver and handle.
    objects: BTreeMap<(String, String), Owned>,
}

impl Live {
    async fn ask(context: &Context, records: &Recorded, found: &Found) -> Live {
        let of_found = found.loose.iter().filter_map(|loose| match &loose.what {
            What::Csi(owned) => Some((**owned).clone()),
            _ => None,
        });
        let mut owned: Vec<Owned> = of_found.collect();
        let is_csi = |(_, record): &(String, VolumeRecord)| matches!(record.data, Data::Csi(_));
        if owned.is_empty() && records.iter().any(is_csi) {
            let here = location_id(context.store.canonical());
            match csi::owned(&context.cluster, &here, &context.run.cluster_uid).await {
                Ok(listed) => owned = listed,
                Err(error) => context.log.warn(&error.full_text()),
            }
        }
        let objects = owned.into_iter().filter_map(|owned| {
            let handle = owned.handle.clone()?;
            Some(((owned.driver.clone(), handle), owned))
        });
        let records: Vec<VolumeRecord> = records.iter().map(|(_, record)| record.clone()).collect();
        let disks = match disks::existing(&context.disks, &records).await {
            Ok(disks) => Some(disks),
            Err(error) => {
                context.log.warn(&format!(
                    "the state of snapshots of EBS is not known: {}",
                    chain(&error)
                ));
                None
            }
        };
        Live {
            disks,
            objects: objects.collect(),
        }
    }
}

fn of_record(backup: &str, record: &VolumeRecord, live: &Live) -> Row {
    let mut row = Row {
        backup: Some(backup.to_owned()),
        persistent_volume: record.persistent_volume.clone(),
        claim: record.claim.as_ref().map(ToString::to_string),
        snapshot: record.snapshot_id().unwrap_or_default().to_owned(),
        ..Row::default()
    };
    match &record.data {
        Data::Ebs(snapshot) => {
            let now = live.disks.as_ref().map(|disks| disks.get(&row.snapshot));
            EBS_DRIVER.clone_into(&mut row.driver);
            row.state = match now {
                None => "unknown".to_owned(),
                Some(None) => "missing".to_owned(),
                Some(Some(now)) => state(now),
            };
            let now = now.flatten();
            let size = snapshot.size_gib.or(now.and_then(|now| now.size_gib));
            row.size = size.and_then(loose::bytes);
            row.started = snapshot.started.or(now.and_then(|now| now.started));
        }
        Data::Csi(snapshot) => {
            let key = (snapshot.driver.clone(), snapshot.handle.clone());
            let ready = live.objects.get(&key).map(|owned| owned.ready);
            row.driver.clone_from(&snapshot.driver);
            row.state = match ready {
                None => "recorded".to_owned(),
                Some(ready) => readiness(ready),
            };
            row.size = snapshot
                .restore_size
                .and_then(|size| u64::try_from(size).ok());
            row.started = snapshot.created;
        }
        Data::Skipped { .. } | Data::Missing { .. } | Data::Unknown => {
            "of a later version of ark".clone_into(&mut row.state);
        }
    }
    row
}

/// Its state, with how far it is and why it is in error.
fn state(now: &DiskSnapshot) -> String {
    let state = loose::in_words(&now.state, now.progress.as_deref());
    match &now.state_message {
        Some(why) if now.state == "error" => format!("{state}: {why}"),
        _ => state,
    }
}

fn readiness(ready: Option<bool>) -> String {
    match ready {
        Some(true) => "ready",
        _ => "pending",
    }
    .to_owned()
}

fn of_orphan(loose: &Loose) -> Row {
    let mut row = Row {
        of: (!loose.of.is_empty()).then(|| loose.of.clone()),
        persistent_volume: loose.persistent_volume.clone(),
        driver: EBS_DRIVER.to_owned(),
        size: loose.size,
        started: loose.created,
        ..Row::default()
    };
    match &loose.what {
        What::Disk { state, .. } => {
            row.snapshot.clone_from(&loose.name);
            row.state.clone_from(state);
        }
        What::Volume { state, .. } => {
            row.volume = Some(loose.name.clone());
            row.state = format!("{state}, unused");
        }
        What::Csi(owned) => {
            row.snapshot = owned.handle.clone().unwrap_or_else(|| loose.name.clone());
            row.driver.clone_from(&owned.driver);
            row.state = readiness(owned.ready);
        }
    }
    row
}

fn lines(rows: &[Row]) -> String {
    rows.iter()
        .filter_map(|row| serde_json::to_string(row).ok())
        .map(|line| line + "\n")
        .collect()
}

fn table(rows: &[Row]) -> String {
    let head = [
        "BACKUP",
        "PERSISTENTVOLUME",
        "CLAIM",
        "DRIVER",
        "SNAPSHOT",
        "SIZE",
        "STATE",
        "STARTED",
    ];
    let mut cells = vec![head.map(str::to_owned).to_vec()];
    for row in rows {
        let text = |text: Option<&String>| match text {
            Some(text) if !text.is_empty() => text.clone(),
            _ => "-".to_owned(),
        };
        cells.push(vec![
            row.backup.clone().unwrap_or_else(|| NONE.to_owned()),
            text(Some(&row.persistent_volume)),
            text(row.claim.as_ref()),
            text(Some(&row.driver)),
            text(row.volume.as_ref().or(Some(&row.snapshot))),
            row.size.map_or_else(|| "-".to_owned(), quantity),
            row.state.clone(),
            row.started.map_or_else(
                || "-".to_owned(),
                |at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            ),
        ]);
    }
    crate::list::align(&cells)
}

/// Bytes as Kubernetes writes them: in the largest unit that leaves no rest.
fn quantity(bytes: u64) -> String {
    for (shift, unit) in [(40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")] {
        if bytes > 0 && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::{ClaimName, CsiSnapshot, EbsSnapshot};

    fn record(data: Data) -> VolumeRecord {
        VolumeRecord {
            persistent_volume: "pv-1".into(),
            claim: Some(ClaimName {
                namespace: "shop".into(),
                name: "data".into(),
            }),
            reclaim_policy: String::new(),
            labels: BTreeMap::new(),
            data,
        }
    }

    fn ebs() -> VolumeRecord {
        record(Data::Ebs(EbsSnapshot {
            snapshot_id: "snap-1".into(),
            size_gib: Some(8),
            started: Some("2026-11-23T20:15:01Z".parse().unwrap()),
            ..EbsSnapshot::default()
        }))
    }

    fn disk(state: &str, progress: &str, why: Option<&str>) -> Live {
        let snapshot = DiskSnapshot {
            id: "snap-1".into(),
            volume_id: "vol-1".into(),
            region: "r".into(),
            state: state.into(),
            state_message: why.map(str::to_owned),
            progress: Some(progress.into()),
            size_gib: Some(8),
            started: None,
            tags: BTreeMap::new(),
        };
        Live {
            disks: Some([("snap-1".to_owned(), snapshot)].into()),
            ..Live::default()
        }
    }

    #[test]
    fn the_state_is_what_the_cloud_says_now() {
        let nothing_there = Live {
            disks: Some(BTreeMap::new()),
            ..Live::default()
        };
        for (live, state) in [
            (disk("pending", "42%", None), "pending 42%"),
            (disk("completed", "100%", None), "completed"),
            (disk("error", "3%", Some("no key")), "error: no key"),
            (nothing_there, "missing"),
            (Live::default(), "unknown"),
        ] {
            assert_eq!(of_record("b", &ebs(), &live).state, state);
        }
    }

    #[test]
    fn of_csi_the_objects_tell_as_long_as_they_are_there() {
        let csi = record(Data::Csi(CsiSnapshot {
            handle: "h".into(),
            driver: "d".into(),
            restore_size: Some(3 << 20),
            ..CsiSnapshot::default()
        }));
        assert_eq!(of_record("b", &csi, &Live::default()).state, "recorded");
        let mut live = Live::default();
        let owned = Owned {
            content: Some("c".into()),
            handle: Some("h".into()),
            group: None,
            group_content: None,
            driver: "d".into(),
            ready: Some(true),
            ..Owned::default()
        };
        live.objects.insert(("d".into(), "h".into()), owned);
        assert_eq!(of_record("b", &csi, &live).state, "ready");
    }

    #[test]
    fn a_table_has_what_backups_record_and_what_none_does() {
        let orphan = Loose {
            name: "vol-2".into(),
            of: "r".into(),
            persistent_volume: "pv-2".into(),
            created: None,
            cloud: None,
            size: Some(1 << 30),
            what: What::Volume {
                region: "r".into(),
                state: "available".into(),
                named: Some(false),
            },
        };
        let rows = [
            of_record("daily", &ebs(), &disk("pending", "42%", None)),
            of_orphan(&orphan),
        ];
        assert_eq!(
            table(&rows),
            "BACKUP   PERSISTENTVOLUME   CLAIM       DRIVER            SNAPSHOT   SIZE   STATE               STARTED\n\
             daily    pv-1               shop/data   ebs.csi.aws.com   snap-1     8Gi    pending 42%         2026-11-23T20:15:01Z\n\
             <none>   pv-2               -           ebs.csi.aws.com   vol-2      1Gi    available, unused   -\n"
        );
        assert_eq!(
            lines(&rows[1..]),
            "{\"of\":\"r\",\"persistentVolume\":\"pv-2\",\"driver\":\"ebs.csi.aws.com\",\"volume\":\"vol-2\",\"size\":1073741824,\
             \"state\":\"available, unused\"}\n"
        );
    }
}
