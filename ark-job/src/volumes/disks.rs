//! What is asked of a cloud's disks: snapshots of volumes and volumes from snapshots. EBS implements it ([`super::ec2`]);
//! the plugin, which runs without the SDK of any cloud, has none.
//!
//! Regions are names such as `eu-central-1`; an empty one stands for the configured region.

use super::{Data, EbsSnapshot, VolumeRecord};
use crate::log::Log;
use crate::store::Location;
use futures::future::BoxFuture;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;

/// Tags of a snapshot or volume.
pub type Tags = BTreeMap<String, String>;

/// Why something could not be done with disks.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// There is nothing that reaches the cloud.
    #[error("disks of the cloud are reached by Jobs only, not by this process")]
    NotHere,
    /// The SDK could not be set up (credentials, region, certificates).
    #[error("{0}")]
    Setup(String),
    /// The cloud has refused or could not be reached.
    #[error("{doing}: {message}")]
    Refused {
        /// What was being done, with the id: `creating a snapshot of vol-1`.
        doing: String,
        /// The code of the API (`UnauthorizedOperation`), or empty when it gave no answer.
        code: String,
        /// Code and message, as people read them.
        message: String,
    },
    /// A snapshot or volume has ended in an error (a wrong key, for one).
    #[error("{id} is in state error{}", .why.as_ref().map(|why| format!(": {why}")).unwrap_or_default())]
    Broken {
        /// `snap-…` or `vol-…`
        id: String,
        /// The state message, if there is one.
        why: Option<String>,
    },
    /// It does not exist (any more).
    #[error("{0} does not exist")]
    NotFound(String),
    /// It has not become ready in time.
    #[error("{id} is still {state} after {}", crate::volumes::disks::in_words(*.after))]
    Slow {
        /// `snap-…` or `vol-…`
        id: String,
        /// Its state.
        state: String,
        /// How long it was waited for.
        after: Duration,
    },
}

/// A duration for people: `90s`, `10m`, `4h`.
pub fn in_words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        _ if seconds >= 3600 && seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
        _ if seconds >= 60 && seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    }
}

/// A snapshot as the cloud has it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskSnapshot {
    /// `snap-…`
    pub id: String,
    /// `vol-…`
    pub volume_id: String,
    /// Its region.
    pub region: String,
    /// `pending`, `completed`, `error`, …
    pub state: String,
    /// Why, when it is in error.
    pub state_message: Option<String>,
    /// How much of it is done, `42%`.
    pub progress: Option<String>,
    /// Size of the volume, GiB.
    pub size_gib: Option<i32>,
    /// When it began, by the cloud's clock.
    pub started: Option<Timestamp>,
    /// Its tags.
    pub tags: Tags,
}

/// A volume as the cloud has it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskVolume {
    /// `vol-…`
    pub id: String,
    /// Its region.
    pub region: String,
    /// Its zone.
    pub availability_zone: String,
    /// `creating`, `available`, `in-use`, `error`, …
    pub state: String,
    /// Size, GiB.
    pub size_gib: Option<i32>,
    /// When it was made, by the cloud's clock.
    pub created: Option<Timestamp>,
    /// Its tags.
    pub tags: Tags,
}

/// A volume that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedVolume {
    /// From which snapshot, with the properties that its volume had, as far as they are known.
    pub snapshot: EbsSnapshot,
    /// In which zone (that of the snapshot's volume, or the one that it is mapped to).
    pub availability_zone: String,
    /// Encrypted with this key instead of the snapshot's.
    pub kms_key: Option<String>,
    /// The same token makes the same volume: at most 64 characters.
    pub client_token: String,
    /// Its tags.
    pub tags: Tags,
}

/// Whether an action is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    /// As a policy spells it: `ec2:CreateSnapshot`.
    pub action: &'static str,
    /// Why not, if it is not.
    pub refused: Option<String>,
}

/// The disks of a cloud. Nothing here waits for the data of a snapshot but [`Disks::wait_for_snapshot`].
pub trait Disks: Send + Sync {
    /// Begins a snapshot of the volume `volume_id` with `tags` and those that the volume has, and says all that is needed to
    /// make such a volume again. Not repeated blindly: after a lost answer, one with these tags is adopted.
    fn snapshot<'a>(
        &'a self,
        region: &'a str,
        volume_id: &'a str,
        tags: &'a Tags,
    ) -> BoxFuture<'a, Result<EbsSnapshot, DiskError>>;

    /// The snapshots with these ids, as far as they exist.
    fn snapshots<'a>(
        &'a self,
        region: &'a str,
        ids: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<DiskSnapshot>, DiskError>>;

    /// The own snapshots that have all these tags.
    fn tagged_snapshots<'a>(
        &'a self,
        region: &'a str,
        tags: &'a Tags,
    ) -> BoxFuture<'a, Result<Vec<DiskSnapshot>, DiskError>>;

    /// Deletes a snapshot; false when there was none.
    fn delete_snapshot<'a>(
        &'a self,
        region: &'a str,
        id: &'a str,
    ) -> BoxFuture<'a, Result<bool, DiskError>>;

    /// Waits until a snapshot is complete, `within` at most.
    fn wait_for_snapshot<'a>(
        &'a self,
        region: &'a str,
        id: &'a str,
        within: Duration,
    ) -> BoxFuture<'a, Result<DiskSnapshot, DiskError>>;

    /// Makes a volume and waits until it is available, `within` at most.
    fn create_volume<'a>(
        &'a self,
        wanted: &'a WantedVolume,
        within: Duration,
    ) -> BoxFuture<'a, Result<DiskVolume, DiskError>>;

    /// The volumes that have all these tags.
    fn tagged_volumes<'a>(
        &'a self,
        region: &'a str,
        tags: &'a Tags,
    ) -> BoxFuture<'a, Result<Vec<DiskVolume>, DiskError>>;

    /// Takes the tag `key` away from a volume.
    fn untag_volume<'a>(
        &'a self,
        region: &'a str,
        id: &'a str,
        key: &'a str,
    ) -> BoxFuture<'a, Result<(), DiskError>>;

    /// Deletes a volume; false when there was none.
    fn delete_volume<'a>(
        &'a self,
        region: &'a str,
        id: &'a str,
    ) -> BoxFuture<'a, Result<bool, DiskError>>;

    /// What these credentials may do, found out without doing it. `volume_id` is a volume that there is, or empty.
    fn permissions<'a>(
        &'a self,
        region: &'a str,
        volume_id: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Permission>, DiskError>>;

    /// The region that an empty one stands for.
    fn region(&self) -> &str;

    /// What the cloud's clock says, by its last answer.
    fn clock(&self) -> Option<Timestamp>;
}

/// Reaches the disks, with the credentials that the place of the backups gives; the text is what tags of volumes call the
/// cluster.
pub type ConnectDisks =
    fn(Location, Option<String>, Log) -> BoxFuture<'static, Result<Arc<dyn Disks>, DiskError>>;

/// The disks, reached when they are first needed.
pub struct DiskAccess {
    connect: Option<ConnectDisks>,
    cluster_name: Option<String>,
    place: Location,
    log: Log,
    connected: OnceCell<Arc<dyn Disks>>,
}

impl DiskAccess {
    /// Not reached yet.
    pub fn new(
        connect: Option<ConnectDisks>,
        cluster_name: Option<String>,
        place: Location,
        log: &Log,
    ) -> DiskAccess {
        DiskAccess {
            connect,
            cluster_name,
            place,
            log: log.clone(),
            connected: OnceCell::new(),
        }
    }

    /// Whether this process can reach any.
    pub fn is_here(&self) -> bool {
        self.connect.is_some()
    }

    /// The disks.
    ///
    /// # Errors
    /// [`DiskError::NotHere`], or when the SDK cannot be set up.
    pub async fn disks(&self) -> Result<&dyn Disks, DiskError> {
        let connect = self.connect.ok_or(DiskError::NotHere)?;
        let connected = self.connected.get_or_try_init(|| {
            connect(
                self.place.clone(),
                self.cluster_name.clone(),
                self.log.clone(),
            )
        });
        Ok(connected.await?.as_ref())
    }
}

/// The snapshots of EBS among `records` that the cloud has now, by id. Without any, nothing is asked.
///
/// # Errors
/// When it cannot be asked.
pub async fn existing(
    access: &DiskAccess,
    records: &[VolumeRecord],
) -> Result<BTreeMap<String, DiskSnapshot>, DiskError> {
    let mut by_region: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for record in records {
        if let Data::Ebs(snapshot) = &record.data {
            let ids = by_region.entry(snapshot.known_region()).or_default();
            ids.push(snapshot.snapshot_id.clone());
        }
    }
    let mut found = BTreeMap::new();
    for (region, ids) in by_region {
        let snapshots = access.disks().await?.snapshots(region, &ids).await?;
        found.extend(snapshots.into_iter().map(|one| (one.id.clone(), one)));
    }
    Ok(found)
}

/// The region of an availability zone, which is called after it (`eu-central-1b`, local zones `us-west-2-lax-1a`); empty when
/// it does not look like one.
pub fn region_of(zone: &str) -> &str {
    let mut end = 0;
    let mut parts = 0;
    for part in zone.split('-') {
        parts += 1;
        let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        if digits > 0 {
            let long_enough = parts >= 3;
            return if long_enough {
                &zone[..end + digits]
            } else {
                ""
            };
        }
        end += part.len() + 1;
    }
    ""
}

/// The id of an EBS volume, from what a persistentVolume says: `awsElasticBlockStore.volumeID` (`aws://ZONE/vol-…`, `aws:///vol-…`
/// or `vol-…`), or the `volumeHandle` of [`EBS_DRIVER`](super::EBS_DRIVER) (`vol-…`). `None` when there is none in it: whether
/// the driver is EBS's must be looked at before.
pub fn volume_id(handle: &str) -> Option<&str> {
    let last = handle.rsplit('/').next().unwrap_or(handle);
    let digits = last.strip_prefix("vol-")?;
    let well_formed = digits
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || c == '-');
    (!digits.is_empty() && well_formed).then_some(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_id_is_found_in_what_a_persistent_volume_says() {
        for (handle, id) in [
            ("aws://eu-central-1b/vol-0a1b", Some("vol-0a1b")),
            ("aws:///vol-0a1b", Some("vol-0a1b")),
            ("vol-0a1b", Some("vol-0a1b")),
            ("", None),
            ("vol-", None),
            ("aws://eu-central-1b/", None),
            ("aws://eu-central-1b/snap-0a1b", None),
            ("fs-0a1b::fsap-1", None),
            ("vol-0a1b?x=1", None),
            ("subvol-0a1b", None),
        ] {
            assert_eq!(volume_id(handle), id, "{handle}");
        }
    }

    #[test]
    fn a_zone_tells_its_region() {
        for (zone, region) in [
            ("eu-central-1b", "eu-central-1"),
            ("us-gov-west-1a", "us-gov-west-1"),
            ("us-west-2-lax-1a", "us-west-2"),
            ("cn-north-1a", "cn-north-1"),
            ("", ""),
            ("nova", ""),
            ("rack-1", ""),
        ] {
            assert_eq!(region_of(zone), region, "{zone}");
        }
    }
}
