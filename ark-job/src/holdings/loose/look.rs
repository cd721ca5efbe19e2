//! Looks for the snapshots and volumes of this location and cluster, by their tags and labels.

use super::super::look::list;
use super::{Loose, What};
use crate::context::Context;
use crate::error::chain;
use crate::holdings::{Candidate, Found, Kind};
use crate::store::location_id;
use crate::volumes::disks::{DiskError, Disks, Tags, region_of};
use crate::volumes::identity::{BACKUP, CLUSTER, LOCATION, PERSISTENT_VOLUME, RESTORE, UNUSED};
use crate::volumes::{Data, EBS_DRIVER, csi};
use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeSet;

/// What the persistentVolumes of the cluster say of disks.
#[derive(Debug, Default)]
pub struct Disk {
    /// Ids of volumes of EBS.
    pub ids: BTreeSet<String>,
    /// Their regions.
    pub regions: BTreeSet<String>,
}

/// Looks for them, and adds what is found, and what cannot be found out.
///
/// The cloud is asked only if a backup or persistentVolume shows that there may be something of it, or with `force`: most
/// clusters are not in it. If a backup does, it is an error when it cannot be asked; else that is said, and no more.
pub async fn look(context: &Context, clusters: &BTreeSet<String>, force: bool, found: &mut Found) {
    let volumes = persistent_volumes(context).await;
    let mut regions = recorded_regions(&found.backups);
    let (needed, mut used) = (force || !regions.is_empty(), None);
    match volumes {
        Ok(disk) => {
            regions.extend(disk.regions.iter().cloned());
            if !regions.is_empty() || force {
                used = Some(disk.ids);
            }
        }
        Err(error) => {
            let text = error.full_text();
            match needed {
                true => found
                    .troubles
                    .push((Kind::Volume, "persistentvolumes".to_owned(), text)),
                false => context.log.warn(&text),
            }
        }
    }
    if !regions.is_empty() || force {
        match context.disks.disks().await {
            Ok(disks) => {
                look_at_disks(
                    context,
                    disks,
                    clusters,
                    regions,
                    used.as_ref(),
                    needed,
                    found,
                )
                .await;
            }
            Err(error) => tell(context, needed, "EBS", &error, found),
        }
    }
    let here = location_id(context.store.canonical());
    match csi::owned(&context.cluster, &here, &context.run.cluster_uid).await {
        Ok(owned) => found.loose.extend(owned.into_iter().map(of_csi)),
        Err(error) => {
            let name = "volumesnapshotcontents".to_owned();
            let trouble = (Kind::Snapshot, name, error.full_text());
            found.troubles.push(trouble);
        }
    }
}

fn tell(context: &Context, needed: bool, what: &str, error: &DiskError, found: &mut Found) {
    let why = format!(
        "snapshots that no backup records cannot be looked for: {}",
        chain(error)
    );
    if needed && !matches!(error, DiskError::NotHere) {
        // Where no region is known, it is the same for volumes as for snapshots.
        let is_told = found
            .troubles
            .iter()
            .any(|(_, name, text)| name == what && *text == why);
        if !is_told {
            found.troubles.push((Kind::Snapshot, what.to_owned(), why));
        }
    } else {
        context.log.warn(&format!("{what}: {why}"));
    }
}

/// The regions in which backups have snapshots of EBS; empty stands for the configured one.
fn recorded_regions(backups: &[Candidate]) -> BTreeSet<String> {
    let records = backups.iter().flat_map(|one| &one.recorded.snapshots);
    let regions = records.filter_map(|record| match &record.data {
        Data::Ebs(snapshot) => Some(snapshot.known_region().to_owned()),
        _ => None,
    });
    regions.collect()
}

/// The disks that the persistentVolumes of the cluster name.
///
/// # Errors
/// When they cannot be listed.
pub async fn persistent_volumes(context: &Context) -> Result<Disk, crate::cluster::ClusterError> {
    let path = "/api/v1/persistentvolumes";
    let doing = "listing persistentVolumes";
    let volumes = list::<PersistentVolume>(context, path, "", doing).await?;
    Ok(disks_of(&volumes))
}

/// The volumes of EBS among persistentVolumes, and the regions of their zones. Pure.
fn disks_of(volumes: &[PersistentVolume]) -> Disk {
    let mut disk = Disk::default();
    for volume in volumes {
        let Some(spec) = &volume.spec else { continue };
        let in_tree = spec.aws_elastic_block_store.as_ref();
        let of_driver = spec.csi.as_ref().filter(|csi| csi.driver == EBS_DRIVER);
        let id = in_tree
            .map(|aws| aws.volume_id.as_str())
            .or(of_driver.map(|csi| csi.volume_handle.as_str()));
        let Some(id) = id else { continue };
        let parts: Vec<&str> = id.split('/').collect();
        disk.ids.insert((*parts.last().unwrap_or(&id)).to_owned());
        let mut zones: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
        zones.extend(label_zones(&volume.metadata));
        let affinity = spec.node_affinity.as_ref();
        let terms = affinity.and_then(|affinity| affinity.required.as_ref());
        for term in terms
            .into_iter()
            .flat_map(|terms| &terms.node_selector_terms)
        {
            for wanted in term.match_expressions.iter().flatten() {
                if wanted.key.ends_with("zone") {
                    zones.extend(wanted.values.iter().flatten().cloned());
                }
            }
        }
        let known = zones.iter().map(|zone| region_of(zone));
        let known: Vec<&str> = known.filter(|region| !region.is_empty()).collect();
        match known.is_empty() {
            true => drop(disk.regions.insert(String::new())),
            false => disk.regions.extend(known.into_iter().map(str::to_owned)),
        }
    }
    disk
}

fn label_zones(metadata: &ObjectMeta) -> Vec<String> {
    let labels = metadata.labels.iter().flatten();
    labels
        .filter(|(key, _)| key.ends_with("zone"))
        .map(|(_, zone)| zone.clone())
        .collect()
}

async fn look_at_disks(
    context: &Context,
    disks: &dyn Disks,
    clusters: &BTreeSet<String>,
    mut regions: BTreeSet<String>,
    used: Option<&BTreeSet<String>>,
    needed: bool,
    found: &mut Found,
) {
    // A restore makes volumes where it is configured, whatever is recorded. Where nothing is configured, it makes them only
    // where snapshots are.
    let of_unknown_zone = regions.remove("");
    if !disks.region().is_empty() || of_unknown_zone || regions.is_empty() {
        regions.insert(disks.region().to_owned());
    }
    let here = location_id(context.store.canonical());
    for region in &regions {
        for cluster in clusters {
            let tags: Tags = [(LOCATION, here.as_str()), (CLUSTER, cluster)]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into();
            match disks.tagged_snapshots(region, &tags).await {
                Ok(snapshots) => {
                    let cloud = disks.clock();
                    // The cloud answers by all tags; what it answers is looked at all the same.
                    let own = snapshots.into_iter().filter(|one| has(&one.tags, &tags));
                    found.loose.extend(own.map(|one| Loose {
                        of: tag(&one.tags, BACKUP),
                        persistent_volume: tag(&one.tags, PERSISTENT_VOLUME),
                        created: one.started,
                        cloud,
                        size: one.size_gib.and_then(bytes),
                        what: What::Disk {
                            region: region.clone(),
                            state: in_words(&one.state, one.progress.as_deref()),
                        },
                        name: one.id,
                    }));
                }
                Err(error) => tell(context, needed, &of_region(region), &error, found),
            }
            let mut tags = tags;
            tags.insert(UNUSED.to_owned(), "true".to_owned());
            match disks.tagged_volumes(region, &tags).await {
                Ok(volumes) => {
                    let cloud = disks.clock();
                    let own = volumes.into_iter().filter(|one| has(&one.tags, &tags));
                    found.loose.extend(own.map(|one| {
                        Loose {
                            of: tag(&one.tags, RESTORE),
                            persistent_volume: tag(&one.tags, PERSISTENT_VOLUME),
                            created: one.created,
                            cloud,
                            size: one.size_gib.and_then(bytes),
                            what: What::Volume {
                                region: region.clone(),
                                state: one.state,
                                // Of another cluster's persistentVolumes nothing is known here.
                                named: used
                                    .filter(|_| *cluster == context.run.cluster_uid)
                                    .map(|used| used.contains(&one.id)),
                            },
                            name: one.id,
                        }
                    }));
                }
                Err(error) => tell(context, needed, &of_region(region), &error, found),
            }
        }
    }
}

/// `EBS in us-east-1`; of a region that is not known, `EBS`.
fn of_region(region: &str) -> String {
    match region.is_empty() {
        true => "EBS".to_owned(),
        false => format!("EBS in {region}"),
    }
}

/// `pending 42%`
pub fn in_words(state: &str, progress: Option<&str>) -> String {
    match progress.filter(|_| state == "pending") {
        Some(progress) if !progress.is_empty() => format!("{state} {progress}"),
        _ => state.to_owned(),
    }
}

/// GiB as bytes.
pub fn bytes(gib: i32) -> Option<u64> {
    u64::try_from(gib).ok().map(|gib| gib << 30)
}

fn has(tags: &Tags, wanted: &Tags) -> bool {
    wanted
        .iter()
        .all(|(key, value)| tags.get(key) == Some(value))
}

fn tag(tags: &Tags, key: &str) -> String {
    tags.get(key).cloned().unwrap_or_default()
}

fn of_csi(owned: csi::Owned) -> Loose {
    let object = match (&owned.content, &owned.volume_snapshot) {
        (Some(content), _) => content.clone(),
        (None, Some(snapshot)) => snapshot.to_string(),
        (None, None) => String::new(),
    };
    Loose {
        name: object,
        of: tag(&owned.labels, BACKUP),
        persistent_volume: tag(&owned.labels, PERSISTENT_VOLUME),
        created: owned.created,
        cloud: None,
        size: owned.size.and_then(|size| u64::try_from(size).ok()),
        what: What::Csi(Box::new(owned)),
    }
}
