//! Making what volumes and claims need before they are created: disks from snapshots of the cloud, and the objects through
//! which a CSI driver finds its snapshot.
//!
//! A disk is made once however often it is asked for: by the same token, which EC2 keeps, and by its tags, which stay. It is
//! tagged as unused until a persistentVolume names it, so that a sweep finds what a killed restore has left.

use super::join::Ready;
use super::prepare::label;
use super::target::Mode;
use super::volumes::{
    DiskSource, SNAPSHOT_GROUP, SnapshotSource, Source, attach_disk, attach_snapshot, disk_of,
    short_hash,
};
use crate::cluster::apply::{self, Created};
use crate::cluster::discover::{Discovery, ResourceType};
use crate::cluster::pace::Pace;
use crate::cluster::{Cluster, ClusterError};
use crate::log::Log;
use crate::volumes::csi;
use crate::volumes::disks::{
    DiskAccess, DiskError, DiskSnapshot, DiskVolume, Disks, Tags, WantedVolume,
};
use crate::volumes::identity::{
    BACKUP, CLUSTER, LOCATION, PERSISTENT_VOLUME, REQUEST, RESTORE, UNUSED,
};
use bytes::Bytes;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// The same request is made under so many tokens at most: a volume that was deleted keeps its token for a day or so.
const TOKENS: u32 = 4;
/// Stands for a disk in a dry run.
const SOME_DISK: &str = "vol-00000000000000000";
const STORAGE: &str = "storage.k8s.io/v1";
const SNAPSHOT_VERSION: &str = "snapshot.storage.k8s.io/v1";

/// Who asks for volumes, and how they shall be.
#[derive(Clone, Debug)]
pub struct Order {
    /// [`location_id`](crate::store::location_id) of the place of the backup.
    pub location: String,
    /// UID of the cluster that is restored into.
    pub cluster_uid: String,
    /// The backup.
    pub backup: String,
    /// The restore.
    pub restore: String,
    /// The key to encrypt with; that of the snapshot if absent.
    pub kms_key: Option<String>,
    /// How long each snapshot and volume is waited for.
    pub timeout: Duration,
}

/// Makes what objects of one type need.
pub struct Maker<'a> {
    /// The target.
    pub cluster: &'a Cluster,
    /// How fast it may be written to.
    pub pace: &'a Pace,
    /// The log.
    pub log: &'a Log,
    /// The cloud.
    pub disks: &'a DiskAccess,
    /// What the target serves.
    pub discovery: &'a Discovery,
    /// The value of the label on what is created.
    pub label: &'a str,
    /// Who asks.
    pub order: &'a Order,
    /// Whether anything is made.
    pub mode: Mode,
    /// Whether CSI drivers come back with this restore.
    pub drivers_come: bool,
    /// What is known of drivers and storage classes.
    pub known: &'a Known,
}

/// What has been asked of the cluster, and need not be again.
#[derive(Debug, Default)]
pub struct Known {
    drivers: Mutex<BTreeMap<String, bool>>,
    provisioners: Mutex<BTreeMap<String, Option<String>>>,
}

/// What was made for an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Made {
    /// Nothing that would have to be taken away.
    Nothing,
    /// A disk.
    Disk(DiskVolume),
}

/// Why nothing was made.
#[derive(Debug)]
pub enum Unmade {
    /// It cannot be, and this is why.
    Refused(String),
    /// In a preview: it could not be looked at yet.
    NotCheckable(String),
    /// The API server is lost.
    Lost(ClusterError),
}

impl From<ClusterError> for Unmade {
    fn from(error: ClusterError) -> Unmade {
        match error {
            error @ ClusterError::Unreachable { .. } => Unmade::Lost(error),
            error => Unmade::Refused(error.full_text()),
        }
    }
}

/// Why no disk could be made of a snapshot, and what is left to do. Pure.
fn no_disk(snapshot_id: &str, error: &DiskError) -> String {
    let is_gone = match error {
        DiskError::NotFound(id) => id.starts_with("snap-"),
        DiskError::Refused { code, .. } => code == "InvalidSnapshot.NotFound",
        _ => false,
    };
    let next_step = match is_gone {
        true => {
            "its data is gone with it, and a claim for it stays Pending: restore from another backup, or delete the claim and \
             restore with --restore-volumes=false, which gives it a new, empty volume"
        }
        false => "a claim for it stays Pending until a restore is repeated with success",
    };
    format!("no volume could be made of its snapshot {snapshot_id}: {error}; {next_step}")
}

impl Maker<'_> {
    /// Makes what `object` needs, whose `json` lacks it, and gives the JSON that has it.
    ///
    /// # Errors
    /// [`Unmade`]; nothing that is of no use is left then, or the reason says what.
    pub async fn make(
        &self,
        object: &Ready,
        json: &Bytes,
        source: &Source,
    ) -> Result<(Bytes, Made), Unmade> {
        let mut value: Value = serde_json::from_slice(json)
            .map_err(|error| Unmade::Refused(format!("it is not valid JSON: {error}")))?;
        let made = match source {
            Source::Nowhere(why) => return Err(Unmade::Refused(why.clone())),
            Source::Disk(disk) => {
                let (id, zone, made) = match self.mode {
                    Mode::DryRun => {
                        self.look_at_disk(disk).await?;
                        (SOME_DISK.to_owned(), disk.zone.clone(), Made::Nothing)
                    }
                    Mode::Write => {
                        let volume = self.make_disk(object, disk, &value).await?;
                        let (id, zone) = (volume.id.clone(), volume.availability_zone.clone());
                        (id, zone, Made::Disk(volume))
                    }
                };
                attach_disk(&mut value, &id, &zone);
                made
            }
            Source::Snapshot(snapshot) => {
                let name = self.make_snapshot(object, snapshot, &value).await?;
                attach_snapshot(&mut value, &name);
                Made::Nothing
            }
        };
        Ok((Bytes::from(super::wire::wire(&value)), made))
    }

    /// Takes down that a persistentVolume names a disk now; a sentence if that failed.
    pub async fn put_to_use(&self, volume: &DiskVolume) -> Option<String> {
        self.untag(&volume.region, &volume.id).await
    }

    /// The same, of a persistentVolume that an earlier attempt of this restore has created.
    pub async fn put_to_use_again(&self, source: &Source, live: &Value) -> Option<String> {
        let (Source::Disk(disk), Some(id)) = (source, disk_of(live)) else {
            return None;
        };
        self.untag(&disk.snapshot.region, id).await
    }

    async fn untag(&self, region: &str, id: &str) -> Option<String> {
        let untagged = async {
            self.disks
                .disks()
                .await?
                .untag_volume(region, id, UNUSED)
                .await
        };
        let error = untagged.await.err()?;
        Some(format!(
            "its volume {id} still has the tag {UNUSED}, though it is in use: take the tag away, or repeat the restore ({error})"
        ))
    }

    /// Deletes a disk that came to nothing; a sentence of what is left.
    pub async fn give_back(&self, volume: &DiskVolume) -> Option<String> {
        let DiskVolume { id, region, .. } = volume;
        let deleted = async { self.disks.disks().await?.delete_volume(region, id).await };
        let error = deleted.await.err()?;
        Some(format!(
            "the volume {id} that was made for it is left, tagged {UNUSED}, until a sweep deletes it ({error})"
        ))
    }

    /// Says what a restore would find of the snapshot.
    async fn look_at_disk(&self, source: &DiskSource) -> Result<(), Unmade> {
        let id = &source.snapshot.snapshot_id;
        let found = async {
            let disks = self.disks.disks().await?;
            let ids = std::slice::from_ref(id);
            disks.snapshots(&source.snapshot.region, ids).await
        };
        let refused = |error: DiskError| Unmade::Refused(error.to_string());
        match found.await.map_err(refused)?.first() {
            None => Err(refused(DiskError::NotFound(id.clone()))),
            Some(DiskSnapshot {
                state,
                state_message,
                ..
            }) if state == "error" => Err(refused(DiskError::Broken {
                id: id.clone(),
                why: state_message.clone(),
            })),
            Some(_) => Ok(()),
        }
    }

    async fn make_disk(
        &self,
        object: &Ready,
        source: &DiskSource,
        volume: &Value,
    ) -> Result<DiskVolume, Unmade> {
        let made = async {
            let disks = self.disks.disks().await?;
            self.make_disk_with(disks, object, source, volume).await
        };
        made.await.map_err(|error: DiskError| {
            let id = &source.snapshot.snapshot_id;
            Unmade::Refused(no_disk(id, &error))
        })
    }

    async fn make_disk_with(
        &self,
        disks: &dyn Disks,
        object: &Ready,
        source: &DiskSource,
        volume: &Value,
    ) -> Result<DiskVolume, DiskError> {
        let give_up = Instant::now() + self.order.timeout;
        let DiskSource { snapshot, zone } = source;
        let (id, region) = (&snapshot.snapshot_id, &snapshot.region);
        self.log.info(&format!(
            "PersistentVolume {}: making a volume in {zone} from snapshot {id}",
            object.name
        ));
        let there = disks
            .wait_for_snapshot(region, id, self.order.timeout)
            .await?;
        for attempt in 0..TOKENS {
            let token = self.token(object, source, attempt);
            let own = self.own_tags(object, &token);
            if let Some(made) = left_by_an_earlier_attempt(disks, region, &own).await? {
                return Ok(made);
            }
            let wanted = WantedVolume {
                snapshot: snapshot.clone(),
                availability_zone: zone.clone(),
                kms_key: self.order.kms_key.clone(),
                client_token: token,
                tags: tags(&there.tags, own, volume),
            };
            let within = give_up.saturating_duration_since(Instant::now());
            match disks.create_volume(&wanted, within).await {
                // The token is that of one that has been deleted since.
                Err(DiskError::NotFound(gone)) if gone.starts_with("vol-") => {}
                Err(DiskError::Refused { code, .. }) if code == "IdempotentParameterMismatch" => {}
                Err(DiskError::Broken { id, why }) => {
                    let deleted = disks.delete_volume(region, &id).await;
                    let why = match (why, deleted) {
                        (why, Ok(_)) => why,
                        (why, Err(error)) => Some(format!(
                            "{}it is left, tagged {UNUSED}, until a sweep deletes it ({error})",
                            why.map_or(String::new(), |why| format!("{why}; "))
                        )),
                    };
                    return Err(DiskError::Broken { id, why });
                }
                result => return result,
            }
        }
        Err(DiskError::Refused {
            doing: format!("making a volume of {id}"),
            code: String::new(),
            message:
                "every one that this restore has made of it was deleted; restore under another name"
                    .into(),
        })
    }

    /// What makes a request the same as another: all that it depends on.
    fn token(&self, object: &Ready, source: &DiskSource, attempt: u32) -> String {
        let Order {
            location,
            cluster_uid,
            backup,
            restore,
            kms_key,
            timeout: _,
        } = self.order;
        let DiskSource { snapshot, zone } = source;
        short_hash(&[
            location,
            cluster_uid,
            backup,
            restore,
            &object.name,
            &snapshot.snapshot_id,
            zone,
            kms_key.as_deref().unwrap_or_default(),
            &attempt.to_string(),
        ])
    }

    fn own_tags(&self, object: &Ready, token: &str) -> Tags {
        let order = self.order;
        let own = [
            (LOCATION, &*order.location),
            (CLUSTER, &order.cluster_uid),
            (BACKUP, &order.backup),
            (RESTORE, &order.restore),
            (PERSISTENT_VOLUME, &object.name),
            (REQUEST, token),
            (UNUSED, "true"),
        ];
        own.map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }

    /// Makes content and volumeSnapshot in the claim's namespace, unless they are there, and gives the latter's name.
    async fn make_snapshot(
        &self,
        object: &Ready,
        source: &SnapshotSource,
        claim: &Value,
    ) -> Result<String, Unmade> {
        let SnapshotSource {
            persistent_volume,
            snapshot,
        } = source;
        let (handle, driver) = (&snapshot.handle, &snapshot.driver);
        let namespace = object.namespace.as_deref().unwrap_or_default();
        let served = |resource: &str| {
            let resource = format!("{resource}.{SNAPSHOT_GROUP}");
            self.discovery.find(&resource, SNAPSHOT_VERSION)
        };
        let (Some(contents), Some(snapshots)) =
            (served("volumesnapshotcontents"), served("volumesnapshots"))
        else {
            return Err(Unmade::Refused(format!(
                "its data is in snapshot {handle} of {driver}, and the cluster does not serve volumesnapshots of {SNAPSHOT_VERSION}: install the snapshot controller with its definitions, then run the restore again"
            )));
        };
        self.check_driver(driver, handle).await?;
        self.check_class(claim, snapshot).await?;
        let (mut content, mut volume_snapshot) = csi::to_restore(
            &self.order.location,
            &self.order.backup,
            namespace,
            persistent_volume,
            snapshot,
        );
        let name = name_of(&volume_snapshot);
        if self.mode == Mode::Write {
            label(&mut content, self.label);
            label(&mut volume_snapshot, self.label);
            self.provide_group(snapshot).await?;
            self.provide(contents, None, &content, handle).await?;
            self.provide(snapshots, Some(namespace), &volume_snapshot, handle)
                .await?;
        }
        Ok(name)
    }

    /// Makes the content of the group of a snapshot, unless it is there or the cluster knows no groups.
    async fn provide_group(&self, snapshot: &crate::volumes::CsiSnapshot) -> Result<(), Unmade> {
        let resource = format!("volumegroupsnapshotcontents.{}", csi::GROUP_OF_GROUPS);
        let served = csi::GROUP_VERSIONS.into_iter().find_map(|version| {
            let api_version = format!("{}/{version}", csi::GROUP_OF_GROUPS);
            let found = self.discovery.find(&resource, &api_version)?;
            Some((found, api_version))
        });
        let Some((contents, api_version)) = served else {
            return Ok(());
        };
        let (location, backup) = (&self.order.location, &self.order.backup);
        let Some(mut content) = csi::group_to_restore(location, backup, snapshot, &api_version)
        else {
            return Ok(());
        };
        label(&mut content, self.label);
        self.provide(contents, None, &content, &snapshot.handle)
            .await
    }

    /// Creates an object, unless the very same is there.
    async fn provide(
        &self,
        resource_type: &ResourceType,
        namespace: Option<&str>,
        object: &Value,
        handle: &str,
    ) -> Result<(), Unmade> {
        let name = name_of(object);
        let (cluster, pace, kind) = (self.cluster, self.pace, &resource_type.kind);
        let body = Bytes::from(object.to_string());
        let created =
            apply::create(cluster, pace, resource_type, namespace, &name, body, false).await?;
        if matches!(created, Created::New { .. }) {
            return Ok(());
        }
        let Some(live) = apply::read(cluster, resource_type, namespace, &name).await? else {
            return Err(Unmade::Refused(format!(
                "{kind} {name}, through which snapshot {handle} is found, vanished while it was looked at; run the restore again"
            )));
        };
        let source = &object["spec"]["source"];
        let differs = source
            .as_object()
            .into_iter()
            .flatten()
            .any(|(key, value)| live["spec"]["source"][key] != *value);
        if differs || apply::is_being_deleted(&live) {
            return Err(Unmade::Refused(format!(
                "{kind} {name}, through which snapshot {handle} is to be found, is there already and is {}; delete it, then run the restore again",
                if differs {
                    "of another snapshot"
                } else {
                    "being deleted"
                }
            )));
        }
        Ok(())
    }

    async fn check_driver(&self, driver: &str, handle: &str) -> Result<(), Unmade> {
        // One asks, the others wait for the answer.
        let mut known = self.known.drivers.lock().await;
        let there = match known.get(driver) {
            Some(there) => *there,
            None => {
                let there = self.has_driver(driver).await?;
                known.insert(driver.to_owned(), there);
                there
            }
        };
        match there {
            true => Ok(()),
            false if self.mode == Mode::DryRun && self.drivers_come => Err(Unmade::NotCheckable(
                format!("driver {driver} is not there yet"),
            )),
            false => Err(Unmade::Refused(format!(
                "its data is in snapshot {handle} of driver {driver}, which the cluster does not have: install it, then run the restore again"
            ))),
        }
    }

    /// Whether the driver has registered itself, or a node has it.
    async fn has_driver(&self, driver: &str) -> Result<bool, ClusterError> {
        if let Some(drivers) = self.discovery.find(super::order::DRIVERS, STORAGE)
            && apply::read(self.cluster, drivers, None, driver)
                .await?
                .is_some()
        {
            return Ok(true);
        }
        let path = "/apis/storage.k8s.io/v1/csinodes";
        let nodes: Value = self.cluster.get(path, "listing csinodes").await?;
        let nodes = nodes["items"].as_array().into_iter().flatten();
        let mut drivers =
            nodes.flat_map(|node| node["spec"]["drivers"].as_array().into_iter().flatten());
        Ok(drivers.any(|found| found["name"] == driver))
    }

    /// A class of another driver would make an empty volume, or none.
    async fn check_class(
        &self,
        claim: &Value,
        snapshot: &crate::volumes::CsiSnapshot,
    ) -> Result<(), Unmade> {
        let (handle, driver) = (&snapshot.handle, &snapshot.driver);
        let Some(class) = claim["spec"]["storageClassName"].as_str() else {
            return Ok(());
        };
        let hint = "give it one of that driver with --storage-class-mappings, or a modifier";
        if class.is_empty() {
            return Err(Unmade::Refused(format!(
                "its data is in snapshot {handle} of {driver}, and without a storage class nobody makes a volume of it: {hint}"
            )));
        }
        let mut known = self.known.provisioners.lock().await;
        let provisioner = match known.get(class) {
            Some(provisioner) => provisioner.clone(),
            None => {
                let provisioner = self.provisioner(class).await?;
                known.insert(class.to_owned(), provisioner.clone());
                provisioner
            }
        };
        match provisioner {
            // It may come later; until then the claim is Pending.
            None => Ok(()),
            Some(provisioner) if provisioner == *driver => Ok(()),
            Some(provisioner) => Err(Unmade::Refused(format!(
                "its data is in snapshot {handle} of {driver}, but its storage class {class} is of {provisioner}: {hint}"
            ))),
        }
    }

    async fn provisioner(&self, class: &str) -> Result<Option<String>, ClusterError> {
        let Some(classes) = self.discovery.find(super::order::CLASSES, STORAGE) else {
            return Ok(None);
        };
        let class = apply::read(self.cluster, classes, None, class).await?;
        Ok(class.and_then(|class| class["provisioner"].as_str().map(str::to_owned)))
    }
}

/// The disk that a killed attempt has made, and that nobody uses.
async fn left_by_an_earlier_attempt(
    disks: &dyn Disks,
    region: &str,
    own: &Tags,
) -> Result<Option<DiskVolume>, DiskError> {
    let found = disks.tagged_volumes(region, own).await?;
    // One that is not ready is found by its token, and waited for.
    Ok(found.into_iter().find(|volume| volume.state == "available"))
}

/// Ours, and what the snapshot says of the claim of its volume, made true. The rest of its tags comes with it.
fn tags(snapshot: &Tags, own: Tags, volume: &Value) -> Tags {
    let claim = &volume["spec"]["claimRef"];
    let now = |key: &str| match key {
        "kubernetes.io/created-for/pv/name" => volume["metadata"]["name"].as_str(),
        "kubernetes.io/created-for/pvc/namespace" => claim["namespace"].as_str(),
        "kubernetes.io/created-for/pvc/name" => claim["name"].as_str(),
        _ => None,
    };
    let of_claim = snapshot
        .keys()
        .filter_map(|key| Some((key.clone(), now(key)?.to_owned())));
    of_claim.chain(own).collect()
}

fn name_of(object: &Value) -> String {
    let name = object["metadata"]["name"].as_str();
    name.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod way_out_tests {
    use super::*;

    #[test]
    fn a_snapshot_that_is_gone_is_not_to_be_tried_again() {
        let gone = no_disk(
            "snap-1",
            &DiskError::NotFound("snap-1 in eu-central-1".into()),
        );
        assert!(
            gone.contains("another backup") && gone.contains("--restore-volumes=false"),
            "{gone}"
        );
        assert!(!gone.contains("repeated"), "{gone}");
        let refused = |code: &str| DiskError::Refused {
            doing: "creating a volume".into(),
            code: code.into(),
            message: "no".into(),
        };
        assert!(no_disk("snap-1", &refused("InvalidSnapshot.NotFound")).contains("another backup"));
        for error in [
            refused("UnauthorizedOperation"),
            DiskError::NotFound("vol-1".into()),
        ] {
            assert!(
                no_disk("snap-1", &error).ends_with("until a restore is repeated with success")
            );
        }
    }
}
