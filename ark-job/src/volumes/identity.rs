//! Whose a snapshot is: what a sweep must know to never touch another's (docs/format.md).

use crate::identity::Run;
use crate::store::location_id;
use std::collections::BTreeMap;

/// Tag of the cloud, or label in the cluster: the place of the backup, [`location_id`].
pub const LOCATION: &str = "ark.heptio.com/location";
/// UID of the cluster that was backed up, or of which a restore made a volume.
pub const CLUSTER: &str = "ark.heptio.com/cluster-uid";
/// The run. As a label, its first 32 digits.
pub const RUN: &str = "ark.heptio.com/run";
/// The attempt.
pub const ATTEMPT: &str = "ark.heptio.com/attempt";
/// Name of the backup (Ark's tag). As a label, shortened as Velero does.
pub const BACKUP: &str = "ark.heptio.com/backup";
/// Name of the persistentVolume (Ark's tag). As a label, shortened as Velero does.
pub const PERSISTENT_VOLUME: &str = "ark.heptio.com/pv";
/// Tag on volumes that a restore makes: its name. Together with [`UNUSED`].
pub const RESTORE: &str = "ark.heptio.com/restore";
/// Tag on volumes that a restore makes: stands for all that was asked for, so that a repeat finds it.
pub const REQUEST: &str = "ark.heptio.com/request";
/// Tag (value `true`) on a volume that no persistentVolume names yet; taken away when one does. A sweep deletes what still
/// has it, so a volume that was ever in use is never touched.
pub const UNUSED: &str = "ark.heptio.com/unused";

/// Whose snapshots are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// [`location_id`] of the place of the backup.
    pub location: String,
    /// UID of the cluster.
    pub cluster_uid: String,
    /// The run.
    pub run: String,
    /// The attempt.
    pub attempt: String,
    /// The backup.
    pub backup: String,
}

impl Owner {
    /// The owner of what `run` snapshots for `backup`, whose place is spelled `canonical`.
    pub fn new(canonical: &str, run: &Run, backup: &str) -> Owner {
        Owner {
            location: location_id(canonical),
            cluster_uid: run.cluster_uid.clone(),
            run: run.id.to_string(),
            attempt: run.attempt.clone(),
            backup: backup.to_owned(),
        }
    }

    /// Tags for the snapshot of a persistentVolume.
    pub fn tags(&self, persistent_volume: &str) -> BTreeMap<String, String> {
        let tags = [
            (LOCATION, &*self.location),
            (CLUSTER, &self.cluster_uid),
            (RUN, &self.run),
            (ATTEMPT, &self.attempt),
            (BACKUP, &self.backup),
            (PERSISTENT_VOLUME, persistent_volume),
        ];
        tags.map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }

    /// The same as labels, whose values have at most 63 characters.
    pub fn labels(&self, persistent_volume: &str) -> BTreeMap<String, String> {
        let mut labels = self.tags(persistent_volume);
        for key in [BACKUP, PERSISTENT_VOLUME, ATTEMPT] {
            if let Some(value) = labels.get_mut(key) {
                *value = crate::identity::label_value(value);
            }
        }
        if let Some(run) = labels.get_mut(RUN) {
            run.truncate(32);
        }
        labels
    }
}
