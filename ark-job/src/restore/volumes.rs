//! What becomes of persistent volumes and of their claims, by what the backup records of their data. Pure.
//!
//! Velero's decisions (`restore.go`, `handlePVHasNativeSnapshot` and the actions of its CSI plugin), but that nothing is ever
//! made of nothing: a volume whose snapshot cannot be used is not replaced by an empty one.

use super::order::{CLAIMS, VOLUMES};
use crate::identity::hash_of;
use crate::volumes::disks::{region_of, volume_id};
use crate::volumes::quantity::Quantity;
use crate::volumes::recorded;
use crate::volumes::{ClaimName, CsiSnapshot, Data, EBS_DRIVER, EbsSnapshot, VolumeRecord};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Annotation on a copy of a persistentVolume that is in the cluster already: how that is called.
pub const ORIGINAL_NAME_ANNOTATION: &str = "ark.heptio.com/original-pv-name";
/// The group of volumeSnapshots.
pub const SNAPSHOT_GROUP: &str = "snapshot.storage.k8s.io";

/// Labels, and keys of node affinity, with the zone of an EBS volume: of Kubernetes now and before 1.17, and of the driver.
const ZONE_KEYS: [&str; 3] = [
    "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/zone",
    "topology.ebs.csi.aws.com/zone",
];
/// Says the same once more, by an id that depends on the account.
const ZONE_ID_KEY: &str = "topology.k8s.aws/zone-id";
/// How the volume of the in-tree plug-in begins where its zone is in it: `aws://ZONE/vol-…`.
const IN_TREE: &str = "aws://";

/// What becomes of a persistent volume.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Way<'a> {
    /// It comes back and points at the disk that it had.
    AsItIs,
    /// It went with its claim, which gets a new, empty one.
    Anew,
    /// It comes back and points at a disk that is made from this snapshot.
    FromDisk(&'a EbsSnapshot),
    /// It does not come back: the driver makes one for its claim from this snapshot.
    FromSnapshot(&'a CsiSnapshot),
    /// A later version has kept its data, in a way that is not known.
    NotKnown,
}

/// What becomes of a persistent volume of which there is this record, if any.
pub fn way<'a>(record: Option<&'a VolumeRecord>, reclaim_policy: &str) -> Way<'a> {
    match record.map(|record| &record.data) {
        Some(Data::Ebs(snapshot)) => Way::FromDisk(snapshot),
        Some(Data::Csi(snapshot)) => Way::FromSnapshot(snapshot),
        Some(Data::Unknown) => Way::NotKnown,
        Some(Data::Skipped { .. } | Data::Missing { .. }) | None => match reclaim_policy {
            "Delete" => Way::Anew,
            _ => Way::AsItIs,
        },
    }
}

/// What becomes of a claim whose volume does not come back.
#[derive(Clone, Debug, PartialEq)]
enum Claim {
    /// It gets a new, empty volume; the record may say that it should not have been so.
    Anew { missing: Option<String> },
    /// It gets one from the snapshot of this persistent volume.
    FromSnapshot(Box<SnapshotSource>),
}

/// Where the data of an object comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// Of a persistentVolume: a disk is made from a snapshot of the cloud.
    Disk(Box<DiskSource>),
    /// Of a claim: its driver makes a volume from its snapshot.
    Snapshot(Box<SnapshotSource>),
    /// It cannot be had, and this is why. Without it the object is not made.
    Nowhere(String),
}

/// A disk to make.
#[derive(Clone, Debug, PartialEq)]
pub struct DiskSource {
    /// From this; with its region, if anybody says it.
    pub snapshot: EbsSnapshot,
    /// In this zone.
    pub zone: String,
}

/// A snapshot of a CSI driver to make a volume from.
#[derive(Clone, Debug, PartialEq)]
pub struct SnapshotSource {
    /// The persistentVolume in the backup.
    pub persistent_volume: String,
    /// The snapshot.
    pub snapshot: CsiSnapshot,
}

impl Source {
    /// In words, for a plan: `volume from snapshot snap-1: 10 GiB, gp3, in eu-central-1b`.
    pub fn in_words(&self) -> Option<String> {
        match self {
            Source::Disk(disk) => {
                let EbsSnapshot {
                    snapshot_id,
                    volume_type,
                    size_gib,
                    ..
                } = &disk.snapshot;
                let size = size_gib.map_or(String::new(), |size| format!("{size} GiB, "));
                let kind = match volume_type.as_str() {
                    "" => String::new(),
                    kind => format!("{kind}, "),
                };
                let zone = &disk.zone;
                Some(format!(
                    "a volume from snapshot {snapshot_id}: {size}{kind}in {zone}"
                ))
            }
            Source::Snapshot(source) => {
                let CsiSnapshot {
                    handle,
                    driver,
                    restore_size,
                    ..
                } = &source.snapshot;
                let size = restore_size.map_or(String::new(), |size| {
                    let gib = u64::try_from(size).unwrap_or_default().div_ceil(1 << 30);
                    format!(", {gib} GiB")
                });
                Some(format!("a volume from snapshot {handle} of {driver}{size}"))
            }
            Source::Nowhere(_) => None,
        }
    }

    /// As a plan in JSON says it.
    pub fn in_json(&self) -> Option<Value> {
        match self {
            Source::Disk(disk) => Some(
                json!({"snapshot": disk.snapshot.snapshot_id, "driver": EBS_DRIVER,
                "sizeGiB": disk.snapshot.size_gib, "type": disk.snapshot.volume_type, "zone": disk.zone}),
            ),
            Source::Snapshot(source) => {
                let snapshot = &source.snapshot;
                Some(
                    json!({"snapshot": snapshot.handle, "driver": snapshot.driver, "bytes": snapshot.restore_size}),
                )
            }
            Source::Nowhere(_) => None,
        }
    }

    /// What tells its data from others'.
    pub fn id(&self) -> &str {
        match self {
            Source::Disk(disk) => &disk.snapshot.snapshot_id,
            Source::Snapshot(source) => &source.snapshot.handle,
            Source::Nowhere(why) => why,
        }
    }
}

/// What is known of the volumes of a backup, and how the cluster calls them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Volumes {
    /// By the name of the persistentVolume in the backup.
    records: BTreeMap<String, VolumeRecord>,
    /// Zone of the backup → zone of the restore.
    zones: BTreeMap<String, String>,
    /// Names of persistentVolumes that are made from snapshots of disks.
    disks: BTreeSet<String>,
    /// What becomes of claims.
    claims: BTreeMap<ClaimName, Claim>,
    /// Name of a persistentVolume in the backup → name of its copy.
    clones: BTreeMap<String, String>,
}

impl Volumes {
    /// What these records say; disks are made in other `zones`.
    pub fn new(records: Vec<VolumeRecord>, zones: BTreeMap<String, String>) -> Volumes {
        let mut volumes = Volumes {
            zones,
            ..Volumes::default()
        };
        for record in records {
            volumes.add(record);
        }
        volumes
    }

    fn add(&mut self, record: VolumeRecord) {
        let name = record.persistent_volume.clone();
        match &record.data {
            Data::Ebs(_) | Data::Unknown => drop(self.disks.insert(name.clone())),
            Data::Csi(snapshot) => {
                if let Some(claim) = &record.claim {
                    self.claims
                        .insert(claim.clone(), from_snapshot(&name, snapshot));
                }
            }
            Data::Skipped { .. } | Data::Missing { .. } => {}
        }
        self.records.insert(name, record);
    }

    /// What is recorded of a persistent volume of the backup.
    pub fn record(&self, persistent_volume: &str) -> Option<&VolumeRecord> {
        self.records.get(persistent_volume)
    }

    /// Takes down what becomes of a persistent volume that the backup has, and of the claim that it is bound to.
    pub fn note(
        &mut self,
        persistent_volume: &str,
        reclaim_policy: &str,
        claim: Option<ClaimName>,
    ) -> Way<'_> {
        let record = self.records.get(persistent_volume);
        let way = way(record, reclaim_policy);
        if let Some(claim) = claim {
            match way {
                Way::Anew => {
                    let missing = record.and_then(|record| match &record.data {
                        Data::Missing { reason } => Some(reason.clone()),
                        _ => None,
                    });
                    self.claims.insert(claim, Claim::Anew { missing });
                }
                Way::FromSnapshot(snapshot) => {
                    self.claims
                        .insert(claim, from_snapshot(persistent_volume, snapshot));
                }
                Way::AsItIs | Way::FromDisk(_) | Way::NotKnown => {}
            }
        }
        way
    }

    /// Zones that are mapped and that no volume with a snapshot of a disk was in; none while it is not known of each.
    pub fn idle_zones(&self) -> Vec<&str> {
        let mut used = BTreeSet::new();
        for record in self.records.values() {
            match &record.data {
                // Then the persistentVolume says it.
                Data::Ebs(snapshot) if snapshot.availability_zone.is_empty() => return Vec::new(),
                Data::Unknown => return Vec::new(),
                Data::Ebs(snapshot) => drop(used.insert(snapshot.availability_zone.as_str())),
                Data::Csi(_) | Data::Skipped { .. } | Data::Missing { .. } => {}
            }
        }
        let zones = self.zones.keys().map(String::as_str);
        zones.filter(|zone| !used.contains(zone)).collect()
    }

    /// Calls the copies of persistent volumes otherwise.
    pub fn set_clones(&mut self, clones: BTreeMap<String, String>) {
        self.clones = clones;
    }

    /// The same for objects that are in the cluster, where namespaces are called as `target` says.
    pub fn of_live(&self, target: impl Fn(&str) -> String) -> Volumes {
        let called = |name: &String| self.clones.get(name).unwrap_or(name).clone();
        let claims = self.claims.iter().map(|(claim, way)| {
            let claim = ClaimName {
                namespace: target(&claim.namespace),
                name: claim.name.clone(),
            };
            (claim, way.clone())
        });
        Volumes {
            records: BTreeMap::new(),
            zones: BTreeMap::new(),
            disks: self.disks.iter().map(called).collect(),
            claims: claims.collect(),
            clones: BTreeMap::new(),
        }
    }

    /// Whether a disk is made for this persistentVolume.
    pub fn is_from_disk(&self, persistent_volume: &str) -> bool {
        self.disks.contains(persistent_volume)
    }

    /// Where the data of an object of the backup comes from, if it is made from a snapshot.
    pub fn source(&self, resource: &str, object: &Value) -> Option<Source> {
        match resource {
            VOLUMES => {
                let record = self.record(object["metadata"]["name"].as_str()?)?;
                match way(Some(record), "") {
                    Way::FromDisk(snapshot) => Some(match self.disk(snapshot, object) {
                        Ok(disk) => Source::Disk(Box::new(disk)),
                        Err(why) => Source::Nowhere(why),
                    }),
                    Way::NotKnown => Some(Source::Nowhere(
                        "a later version of ark has kept its data, in a way that this one does not know; restore it with that".into(),
                    )),
                    Way::AsItIs | Way::Anew | Way::FromSnapshot(_) => None,
                }
            }
            CLAIMS => match self.claims.get(&claim_name(object)?)? {
                Claim::FromSnapshot(source) => Some(Source::Snapshot(source.clone())),
                Claim::Anew { .. } => None,
            },
            _ => None,
        }
    }

    /// What is to be known of a claim that gets an empty volume, and of a volume that comes back without its data.
    pub fn remark(&self, resource: &str, object: &Value) -> Option<String> {
        if resource == VOLUMES {
            let record = self.record(object["metadata"]["name"].as_str()?)?;
            return match &record.data {
                Data::Missing { reason } if recorded::is_elsewhere(reason) => Some(format!(
                    "it comes back as it was, with what its disk holds now and not what it held in the backup: {reason}"
                )),
                _ => None,
            };
        }
        if resource != CLAIMS {
            return None;
        }
        match self.claims.get(&claim_name(object)?)? {
            Claim::Anew {
                missing: Some(reason),
            } => Some(format!(
                "it gets a new, empty volume, since the backup has no snapshot of its old one: {reason}"
            )),
            Claim::Anew { missing: None } | Claim::FromSnapshot(_) => None,
        }
    }

    fn disk(&self, snapshot: &EbsSnapshot, volume: &Value) -> Result<DiskSource, String> {
        let id = &snapshot.snapshot_id;
        if handle(volume).is_none() {
            return Err(format!(
                "the backup has a snapshot {id} of EBS for it, but it is no volume of EBS"
            ));
        }
        let zone = match snapshot.availability_zone.as_str() {
            "" => zone_of(volume).unwrap_or_default(),
            zone => zone,
        };
        if zone.is_empty() {
            return Err(format!(
                "nobody says in which zone its volume was, so none can be made from snapshot {id}"
            ));
        }
        let mut snapshot = snapshot.clone();
        if snapshot.region.is_empty() {
            region_of(zone).clone_into(&mut snapshot.region);
        }
        let zone = self.zones.get(zone).map_or(zone, String::as_str).to_owned();
        let there = region_of(&zone);
        let region = &snapshot.region;
        if !there.is_empty() && !region.is_empty() && there != region.as_str() {
            return Err(format!(
                "its snapshot {id} is in region {region}, and zone {zone} is not; --zone-mappings are for zones of one region"
            ));
        }
        Ok(DiskSource { snapshot, zone })
    }

    /// Takes from a persistentVolume what is its disk's own, if that is made anew: which one it is, and its zone. So the one of
    /// the backup and the one in the cluster are compared. What is made is put there by [`attach_disk`].
    pub fn detach_disk(&self, volume: &mut Value) {
        let is_ours = volume["metadata"]["name"]
            .as_str()
            .is_some_and(|name| self.is_from_disk(name));
        if !is_ours {
            return;
        }
        set_disk(volume, |handle| {
            if handle.starts_with(IN_TREE) {
                IN_TREE.to_owned()
            } else {
                String::new()
            }
        });
        set_zones(volume, None);
    }

    /// Gives the copy of a persistentVolume its name, and a claim that of the copy.
    pub fn rename(&self, resource: &str, object: &mut Value) {
        let (place, is_volume) = match resource {
            VOLUMES => ("/metadata/name", true),
            CLAIMS => ("/spec/volumeName", false),
            _ => return,
        };
        let Some(name) = object.pointer_mut(place) else {
            return;
        };
        let Some(clone) = name.as_str().and_then(|name| self.clones.get(name)) else {
            return;
        };
        let original = std::mem::replace(name, Value::from(clone.as_str()));
        if is_volume {
            if !object["metadata"]["annotations"].is_object() {
                object["metadata"]["annotations"] = json!({});
            }
            object["metadata"]["annotations"][ORIGINAL_NAME_ANNOTATION] = original;
        }
    }

    /// Takes from a claim whose volume does not come back what it had, and asks for enough room for the data of its snapshot.
    pub fn detach_claim(&self, claim: &mut Value) {
        let Some(way) = claim_name(claim).and_then(|name| self.claims.get(&name)) else {
            return;
        };
        let Some(spec) = claim.get_mut("spec").and_then(Value::as_object_mut) else {
            return;
        };
        for key in ["volumeName", "dataSource", "dataSourceRef"] {
            spec.remove(key);
        }
        if let Claim::FromSnapshot(source) = way
            && let Some(size) = source.snapshot.restore_size
            && let Some(asked) = claim.pointer_mut("/spec/resources/requests/storage")
            && let Some(text) = asked.as_str()
            && let Ok(size) = u128::try_from(size)
            && Quantity::parse(text).is_ok_and(|asked| asked < Quantity::bytes(size))
        {
            *asked = Value::from(size.to_string());
        }
    }
}

fn from_snapshot(persistent_volume: &str, snapshot: &CsiSnapshot) -> Claim {
    Claim::FromSnapshot(Box::new(SnapshotSource {
        persistent_volume: persistent_volume.to_owned(),
        snapshot: snapshot.clone(),
    }))
}

fn claim_name(claim: &Value) -> Option<ClaimName> {
    let text = |key: &str| claim["metadata"][key].as_str().map(str::to_owned);
    Some(ClaimName {
        namespace: text("namespace")?,
        name: text("name")?,
    })
}

/// Lets a prepared persistentVolume point at a disk in a zone.
pub fn attach_disk(volume: &mut Value, id: &str, zone: &str) {
    set_disk(volume, |handle| {
        if handle.starts_with(IN_TREE) {
            format!("{IN_TREE}{zone}/{id}")
        } else {
            id.to_owned()
        }
    });
    set_zones(volume, Some(zone));
}

/// Lets a prepared claim be made from a volumeSnapshot of its namespace.
pub fn attach_snapshot(claim: &mut Value, volume_snapshot: &str) {
    claim["spec"]["dataSource"] =
        json!({"apiGroup": SNAPSHOT_GROUP, "kind": "VolumeSnapshot", "name": volume_snapshot});
}

/// The disk that a persistentVolume points at, `vol-…`.
pub fn disk_of(volume: &Value) -> Option<&str> {
    volume_id(handle(volume)?)
}

fn handle(volume: &Value) -> Option<&str> {
    let spec = &volume["spec"];
    let handle = match spec["csi"]["driver"].as_str() {
        Some(EBS_DRIVER) => &spec["csi"]["volumeHandle"],
        _ => &spec["awsElasticBlockStore"]["volumeID"],
    };
    handle.as_str()
}

fn set_disk(volume: &mut Value, disk: impl Fn(&str) -> String) {
    let place = match volume.pointer("/spec/csi/driver").and_then(Value::as_str) {
        Some(EBS_DRIVER) => "/spec/csi/volumeHandle",
        _ => "/spec/awsElasticBlockStore/volumeID",
    };
    if let Some(handle) = volume.pointer_mut(place)
        && let Some(text) = handle.as_str()
    {
        *handle = Value::from(disk(text));
    }
}

/// The zone that a persistentVolume names.
pub fn zone_of(volume: &Value) -> Option<&str> {
    let label = |key: &&str| volume["metadata"]["labels"].get(*key)?.as_str();
    let terms = volume.pointer("/spec/nodeAffinity/required/nodeSelectorTerms");
    let expressions = terms
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .flat_map(|term| term["matchExpressions"].as_array().into_iter().flatten());
    let mut zones = expressions
        .filter(|one| is_zone(one, &ZONE_KEYS))
        .filter_map(|one| one["values"][0].as_str());
    let in_handle = || {
        let (zone, _) = handle(volume)?.strip_prefix(IN_TREE)?.split_once('/')?;
        (!zone.is_empty()).then_some(zone)
    };
    ZONE_KEYS
        .iter()
        .find_map(label)
        .or_else(|| zones.next())
        .or_else(in_handle)
}

fn is_zone(expression: &Value, keys: &[&str]) -> bool {
    expression["key"]
        .as_str()
        .is_some_and(|key| keys.contains(&key))
}

/// Puts a zone wherever the volume names one, or takes it out.
fn set_zones(volume: &mut Value, zone: Option<&str>) {
    if let Some(labels) = volume.pointer_mut("/metadata/labels") {
        for key in ZONE_KEYS {
            if let Some(label) = labels.get_mut(key) {
                *label = Value::from(zone.unwrap_or_default());
            }
        }
    }
    let terms = volume.pointer_mut("/spec/nodeAffinity/required/nodeSelectorTerms");
    for term in terms.and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(expressions) = term
            .get_mut("matchExpressions")
            .and_then(Value::as_array_mut)
        else {
            continue;
        };
        if expressions.iter().any(|one| is_zone(one, &ZONE_KEYS)) {
            expressions.retain(|one| !is_zone(one, &[ZONE_ID_KEY]));
        }
        for expression in expressions
            .iter_mut()
            .filter(|one| is_zone(one, &ZONE_KEYS))
        {
            expression["values"] = zone.into_iter().collect::<Value>();
        }
    }
}

/// How the copy of a persistentVolume is called: a repeat finds it.
pub fn clone_name(
    location: &str,
    backup: &str,
    namespace: &str,
    persistent_volume: &str,
) -> String {
    let hash = short_hash(&[location, backup, namespace, persistent_volume]);
    format!("ark-clone-{hash}")
}

/// How the content of a user's volumeSnapshot is called beside the original.
pub fn content_name(namespace: &str, content: &str) -> String {
    format!("ark-content-{}", short_hash(&[namespace, content]))
}

/// 128 bits of SHA-256 in hexadecimal digits, of texts that cannot be taken for others.
pub fn short_hash(texts: &[&str]) -> String {
    hash_of(texts)[..32].to_owned()
}

/// Whether a persistentVolume that is in the cluster has to be left alone and copied under another name, for a claim in the
/// namespace `target` that is called otherwise in the backup.
pub fn needs_clone(target: &str, original: Option<&Value>, clone_is_there: bool) -> bool {
    clone_is_there
        || original.is_some_and(|original| {
            original["spec"]["claimRef"]["namespace"] != target
                && standing(original) != Standing::Going
        })
}

/// How a persistentVolume in the cluster stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has its claim, or waits for one.
    Fine,
    /// It is being deleted, or will be, with its disk.
    Going,
    /// Its claim is gone, and it stays with the data: nobody can bind it.
    Released,
}

/// How a persistentVolume in the cluster stands, by itself: whether its claim is there is not looked at.
pub fn standing(volume: &Value) -> Standing {
    let is_released = matches!(
        volume["status"]["phase"].as_str(),
        Some("Released" | "Failed")
    );
    if volume["metadata"]["deletionTimestamp"].is_string() {
        Standing::Going
    } else if !is_released {
        Standing::Fine
    } else if volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete" {
        Standing::Going
    } else {
        Standing::Released
    }
}

#[cfg(test)]
mod tests;
