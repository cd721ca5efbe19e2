//! Which persistent volumes will be in a backup, and what must be known of each to decide about its snapshot.
//!
//! Snapshots are taken before the instant at which objects are read, so volumes and claims are listed once more before,
//! and [`Choice`] decides about them as it does at the instant. Only what is needed of each is kept.

use super::super::selection::{CLAIMS, Choice, Selection, VOLUMES};
use crate::cluster::discover::ResourceType;
use crate::cluster::list::{At, List};
use crate::cluster::{Cluster, ClusterError};
use crate::filter::Named;
use crate::item::{Item, Metadata, ScanError};
use crate::volumes::csi::{CLASS_ANNOTATION, VELERO_CLASS_ANNOTATION};
use crate::volumes::policy::VolumeFacts;
use crate::volumes::{ClaimName, Data, EBS_DRIVER, SKIP_ANNOTATION, VolumeRecord, disks};
use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::{BTreeMap, BTreeSet};

/// Labels that say in which zone a volume is; the first counts.
const ZONE_LABELS: [&str; 2] = [
    "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/zone",
];
/// Keys of node affinity that say it, those that volumes of EBS have (Velero's order).
const ZONE_KEYS: [&str; 3] = [
    "topology.ebs.csi.aws.com/zone",
    "failure-domain.beta.kubernetes.io/zone",
    "topology.kubernetes.io/zone",
];

/// A persistent volume that will be in the backup.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// What policies decide by; its name and claim are here.
    pub facts: VolumeFacts,
    /// Its reclaim policy; empty when it does not say.
    pub reclaim_policy: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The object that is annotated so that no snapshot is taken, as `persistentvolumeclaims a/b`.
    pub opted_out_by: Option<String>,
    /// What it is.
    pub source: Source,
}

/// What a volume is, as far as that decides how it is snapshotted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A volume of EBS, mounted by whom: its id (`vol-…`) and zone, empty when nobody says.
    Ebs {
        /// `vol-…`, if what the volume says has one in it.
        volume_id: Option<String>,
        /// Its zone, or nothing.
        zone: String,
        /// The same as a volume of a CSI driver, if it is one.
        csi: Option<CsiSource>,
    },
    /// A volume of a CSI driver.
    Csi(CsiSource),
    /// Something else: `nfs`, `hostPath`, …
    Other(String),
}

/// A volume of a CSI driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsiSource {
    /// The driver.
    pub driver: String,
    /// The claim through which it is snapshotted, or why there is none.
    pub claim: Result<ClaimName, String>,
    /// The volumeSnapshotClass that the claim asks for.
    pub class: Option<String>,
}

/// Whether the backup of `selection` may have a volume at all; one small request, since many clusters have none.
///
/// # Errors
/// When volumes cannot be listed.
pub async fn may_have_any(cluster: &Cluster, selection: &Selection) -> Result<bool, ClusterError> {
    let volumes = ResourceType::persistent_volumes();
    if !selection.may_include(&volumes) {
        return Ok(false);
    }
    let mut list = List::new(cluster, &volumes, None, None, At::Now).at_most(1);
    list.look_ahead(false);
    Ok(list.next().await?.is_some())
}

/// The volumes that the backup of `selection` will have. `left_out` are the namespaces that carry an exclude label.
///
/// # Errors
/// When volumes, or what decides about them, cannot be listed.
pub async fn find(
    cluster: &Cluster,
    selection: &Selection,
    left_out: BTreeSet<String>,
) -> Result<Vec<Found>, ClusterError> {
    let volumes = ResourceType::persistent_volumes();
    let choice = Choice::new(selection, left_out);
    let pods = ResourceType::pods();
    // Pods with the wanted labels bring their claims, whatever labels those have.
    if !selection.selector.selects_all() && selection.may_include(&pods) {
        let selector = selection.selector.for_server();
        let namespaces = namespaces(selection);
        each(cluster, &pods, namespaces, selector.as_deref(), |item| {
            is_taken(&choice, &pods, &item).map(drop)
        })
        .await?;
    }
    let claims_type = ResourceType::persistent_volume_claims();
    let mut claims = BTreeMap::new();
    // Volumes of the whole cluster have claims of the whole cluster.
    let of_claims = match selection.cluster_resources {
        Some(true) => vec![None],
        _ => namespaces(selection),
    };
    each(cluster, &claims_type, of_claims, None, |item| {
        if selection.may_include(&claims_type) {
            is_taken(&choice, &claims_type, &item)?;
        }
        claims.extend(claim(&item)?);
        Ok(())
    })
    .await?;
    let mut found = Vec::new();
    each(cluster, &volumes, vec![None], None, |item| {
        if is_taken(&choice, &volumes, &item)? {
            found.push(Found::of(&item.read()?, &claims));
        }
        Ok(())
    })
    .await?;
    Ok(found)
}

/// The namespaces to list, all as one.
fn namespaces(selection: &Selection) -> Vec<Option<&str>> {
    match selection.namespaces.plain_names() {
        Some(names) => names.into_iter().map(Some).collect(),
        None => vec![None],
    }
}

async fn each(
    cluster: &Cluster,
    resource_type: &ResourceType,
    namespaces: Vec<Option<&str>>,
    selector: Option<&str>,
    mut with: impl FnMut(Item<'_>) -> Result<(), ScanError>,
) -> Result<(), ClusterError> {
    for namespace in namespaces {
        let mut list = List::new(cluster, resource_type, namespace, selector, At::Now);
        while let Some(batch) = list.next().await? {
            for item in batch.items() {
                with(item).map_err(|source| ClusterError::Malformed {
                    doing: format!("listing {}", resource_type.group_resource()),
                    source: source.into(),
                })?;
            }
        }
    }
    Ok(())
}

/// Whether an object will be in the backup; what it needs is noted then.
fn is_taken(
    choice: &Choice<'_>,
    candidate: &ResourceType,
    item: &Item<'_>,
) -> Result<bool, ScanError> {
    let resource = candidate.group_resource();
    let metadata: Metadata<'_> = item.metadata()?;
    let taken = choice.takes(&resource, &metadata, item)?
        && metadata.deletion_timestamp.is_none()
        && !metadata.is_excluded();
    if taken {
        choice.note(&resource, &metadata, item)?;
    }
    Ok(taken)
}

type Claims = BTreeMap<ClaimName, PersistentVolumeClaim>;

/// What must be known of a claim that is bound, or was.
fn claim(item: &Item<'_>) -> Result<Option<(ClaimName, PersistentVolumeClaim)>, ScanError> {
    let claim: PersistentVolumeClaim = item.read()?;
    let metadata = claim.metadata;
    let name = ClaimName {
        namespace: metadata.namespace.unwrap_or_default(),
        name: metadata.name.unwrap_or_default(),
    };
    let volume_name = claim.spec.and_then(|spec| spec.volume_name);
    if volume_name.as_deref().unwrap_or_default().is_empty() {
        return Ok(None);
    }
    let mut annotations = metadata.annotations.unwrap_or_default();
    annotations.retain(|key, _| {
        [SKIP_ANNOTATION, CLASS_ANNOTATION, VELERO_CLASS_ANNOTATION].contains(&key.as_str())
    });
    let small = PersistentVolumeClaim {
        metadata: ObjectMeta {
            labels: metadata.labels,
            annotations: Some(annotations),
            deletion_timestamp: metadata.deletion_timestamp,
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            volume_name,
            ..PersistentVolumeClaimSpec::default()
        }),
        status: Some(PersistentVolumeClaimStatus {
            phase: claim.status.and_then(|status| status.phase),
            ..PersistentVolumeClaimStatus::default()
        }),
    };
    Ok(Some((name, small)))
}

impl Found {
    /// What the objects of a volume and of its claim say.
    pub fn of(volume: &PersistentVolume, claims: &Claims) -> Found {
        let name = volume.metadata.name.clone().unwrap_or_default();
        let claim_name = claim_of(volume);
        // A claim of that name may by now be another one, which is bound elsewhere.
        let claim = claim_name
            .as_ref()
            .and_then(|name| claims.get(name))
            .filter(|claim| volume_of(claim) == Some(&name));
        let annotated = |metadata: &ObjectMeta| {
            let annotations = metadata.annotations.as_ref();
            annotations
                .and_then(|map| map.get(SKIP_ANNOTATION))
                .map(String::as_str)
                == Some("true")
        };
        let opted_out_by = match (claim, &claim_name) {
            (Some(claim), Some(of)) if annotated(&claim.metadata) => Some(format!("{CLAIMS} {of}")),
            _ if annotated(&volume.metadata) => Some(format!("{VOLUMES} {name}")),
            _ => None,
        };
        let spec = volume.spec.clone().unwrap_or_default();
        Found {
            facts: VolumeFacts::of(volume, claim),
            reclaim_policy: spec.persistent_volume_reclaim_policy.unwrap_or_default(),
            labels: volume.metadata.labels.clone().unwrap_or_default(),
            opted_out_by,
            source: source(volume, claim_name, claim),
        }
    }

    /// Its record, of which `data` says what became of its data.
    pub fn into_record(self, data: Data) -> VolumeRecord {
        VolumeRecord {
            persistent_volume: self.facts.persistent_volume,
            claim: self.facts.claim,
            reclaim_policy: self.reclaim_policy,
            labels: self.labels,
            data,
        }
    }
}

fn volume_of(claim: &PersistentVolumeClaim) -> Option<&String> {
    claim.spec.as_ref()?.volume_name.as_ref()
}

/// The claim that a volume is bound to, or was.
fn claim_of(volume: &PersistentVolume) -> Option<ClaimName> {
    let claim = volume.spec.as_ref()?.claim_ref.as_ref()?;
    Some(ClaimName {
        namespace: claim.namespace.clone()?,
        name: claim.name.clone()?,
    })
}

fn source(
    volume: &PersistentVolume,
    claim_name: Option<ClaimName>,
    claim: Option<&PersistentVolumeClaim>,
) -> Source {
    let Some(spec) = &volume.spec else {
        return Source::Other(String::new());
    };
    if let Some(disk) = &spec.aws_elastic_block_store {
        return Source::Ebs {
            volume_id: disks::volume_id(&disk.volume_id).map(str::to_owned),
            zone: zone(volume),
            csi: None,
        };
    }
    let Some(csi) = &spec.csi else {
        return Source::Other(VolumeFacts::of(volume, None).volume_type);
    };
    let csi_source = CsiSource {
        driver: csi.driver.clone(),
        claim: snapshottable(claim_name, claim),
        class: claim.and_then(|claim| {
            let annotations = claim.metadata.annotations.as_ref()?;
            let class = [CLASS_ANNOTATION, VELERO_CLASS_ANNOTATION];
            class.iter().find_map(|key| annotations.get(*key)).cloned()
        }),
    };
    if csi.driver != EBS_DRIVER {
        return Source::Csi(csi_source);
    }
    Source::Ebs {
        volume_id: disks::volume_id(&csi.volume_handle).map(str::to_owned),
        zone: zone(volume),
        csi: Some(csi_source),
    }
}

/// The claim, if a volumeSnapshot can be made of it.
fn snapshottable(
    name: Option<ClaimName>,
    claim: Option<&PersistentVolumeClaim>,
) -> Result<ClaimName, String> {
    let Some(name) = name else {
        return Err("it is bound to no claim, and CSI snapshots are of claims".into());
    };
    match claim {
        None => Err(format!(
            "{CLAIMS} {name} does not exist or is bound to another volume, and CSI snapshots are of claims"
        )),
        Some(claim) if claim.metadata.deletion_timestamp.is_some() => Err(format!(
            "{CLAIMS} {name} is being deleted, and CSI snapshots are of claims that stay"
        )),
        Some(_) => Ok(name),
    }
}

/// The zone of a volume; empty when it does not say.
fn zone(volume: &PersistentVolume) -> String {
    let labels = volume.metadata.labels.as_ref();
    let label = ZONE_LABELS
        .iter()
        .find_map(|key| labels?.get(*key))
        .filter(|zone| !zone.is_empty());
    if let Some(zone) = label {
        return zone.clone();
    }
    let affinity = volume.spec.as_ref().and_then(|spec| {
        let required = spec.node_affinity.as_ref()?.required.as_ref()?;
        Some(&required.node_selector_terms)
    });
    let expressions = affinity.into_iter().flatten();
    let expressions: Vec<_> = expressions
        .flat_map(|term| term.match_expressions.iter().flatten())
        .filter(|expression| expression.operator == "In")
        .collect();
    ZONE_KEYS
        .iter()
        .find_map(|key| {
            let of_key = expressions.iter().find(|expression| expression.key == *key);
            of_key?.values.as_ref()?.first().cloned()
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
