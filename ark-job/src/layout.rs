//! Every storage key, spelled once.
//!
//! Keys are relative to the location's prefix. The layout is Velero's, with Ark's marker and tombstone beside Velero's
//! files, so that Velero reads what Ark writes; see docs/format.md.

/// Directory of all backups, with its slash.
pub const BACKUPS: &str = "backups/";
/// Directory of all restores' results, with its slash.
pub const RESTORES: &str = "restores/";
/// Directory for probes of the store; the only private one that Velero tolerates at the top.
pub const METADATA: &str = "metadata/";

/// File name of the marker: a backup exists exactly if its marker does.
pub const MARKER: &str = "ark-backup.json";
/// File name of the tombstone: a backup with one is being deleted.
pub const TOMBSTONE: &str = "ark-deleting.json";
/// File name of the list of the snapshots that a deletion is about to delete.
pub const DELETING_SNAPSHOTS: &str = "ark-deleting-snapshots.json";
/// File name of the description that Velero reads.
pub const VELERO_BACKUP: &str = "velero-backup.json";

/// Names at the top of a location that are no backups of original Ark's: Velero's directories.
pub const TOP_LEVEL: [&str; 6] = [
    "backups", "restores", "metadata", "restic", "kopia", "plugins",
];

/// The keys of one backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupKeys {
    name: String,
}

impl BackupKeys {
    /// The keys of the backup called `name`, which [`crate::identity::check_name`] has accepted.
    pub fn new(name: &str) -> BackupKeys {
        BackupKeys {
            name: name.to_owned(),
        }
    }

    /// `backups/<name>/`
    pub fn directory(&self) -> String {
        format!("{BACKUPS}{}/", self.name)
    }

    fn file(&self, file: &str) -> String {
        format!("{BACKUPS}{}/{file}", self.name)
    }

    /// The archive.
    pub fn archive(&self) -> String {
        self.file(&format!("{}.tar.gz", self.name))
    }

    /// What is inside, by type: gzip of JSON.
    pub fn resource_list(&self) -> String {
        self.file(&format!("{}-resource-list.json.gz", self.name))
    }

    /// Warnings and errors: gzip of JSON.
    pub fn results(&self) -> String {
        self.file(&format!("{}-results.gz", self.name))
    }

    /// The log: gzip of text.
    pub fn logs(&self) -> String {
        self.file(&format!("{}-logs.gz", self.name))
    }

    /// Volume snapshots taken through the cloud's API, as Velero records them: gzip of JSON.
    pub fn volume_snapshots(&self) -> String {
        self.file(&format!("{}-volumesnapshots.json.gz", self.name))
    }

    /// What became of the data of each volume, as Velero records it: gzip of JSON.
    pub fn volume_info(&self) -> String {
        self.file(&format!("{}-volumeinfo.json.gz", self.name))
    }

    /// VolumeSnapshots of a backup of Velero's before 1.16: gzip of JSON.
    pub fn csi_volume_snapshots(&self) -> String {
        self.file(&format!("{}-csi-volumesnapshots.json.gz", self.name))
    }

    /// VolumeSnapshotContents of a backup of Velero's before 1.16: gzip of JSON.
    pub fn csi_volume_snapshot_contents(&self) -> String {
        self.file(&format!("{}-csi-volumesnapshotcontents.json.gz", self.name))
    }

    /// What Velero has copied of volumes of pods: gzip of JSON.
    pub fn pod_volume_backups(&self) -> String {
        self.file(&format!("{}-podvolumebackups.json.gz", self.name))
    }

    /// What Velero goes on doing after a backup, such as moving data of snapshots: gzip of JSON.
    pub fn item_operations(&self) -> String {
        self.file(&format!("{}-itemoperations.json.gz", self.name))
    }

    /// The description that Velero reads.
    pub fn velero_backup(&self) -> String {
        self.file(VELERO_BACKUP)
    }

    /// The marker.
    pub fn marker(&self) -> String {
        self.file(MARKER)
    }

    /// The tombstone.
    pub fn tombstone(&self) -> String {
        self.file(TOMBSTONE)
    }

    /// The list of the snapshots that a deletion is about to delete.
    pub fn deleting_snapshots(&self) -> String {
        self.file(DELETING_SNAPSHOTS)
    }
}

/// The keys of a backup that original Ark made before 0.10, when it had the whole bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginalKeys {
    name: String,
}

impl OriginalKeys {
    /// The keys of the backup called `name`.
    pub fn new(name: &str) -> OriginalKeys {
        OriginalKeys {
            name: name.to_owned(),
        }
    }

    /// Its description.
    pub fn description(&self) -> String {
        format!("{}/{MARKER}", self.name)
    }

    /// The archive.
    pub fn archive(&self) -> String {
        format!("{0}/{0}.tar.gz", self.name)
    }
}

/// The keys of one restore's results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreKeys {
    name: String,
}

impl RestoreKeys {
    /// The keys of the restore called `name`.
    pub fn new(name: &str) -> RestoreKeys {
        RestoreKeys {
            name: name.to_owned(),
        }
    }

    /// The keys to use when another run has taken those of `name`.
    pub fn of_run(name: &str, run: &crate::identity::RunId) -> RestoreKeys {
        RestoreKeys {
            name: format!("{name}-{}", run.short()),
        }
    }

    /// `restores/<name>/`
    pub fn directory(&self) -> String {
        format!("{RESTORES}{}/", self.name)
    }

    /// Warnings and errors: gzip of JSON.
    pub fn results(&self) -> String {
        format!("{RESTORES}{0}/restore-{0}-results.gz", self.name)
    }

    /// The log: gzip of text.
    pub fn logs(&self) -> String {
        format!("{RESTORES}{0}/restore-{0}-logs.gz", self.name)
    }

    /// What was done with each object: gzip of JSON.
    pub fn resource_list(&self) -> String {
        format!("{RESTORES}{0}/restore-{0}-resource-list.json.gz", self.name)
    }
}

/// The path of an object inside the archive: `resources/<resource[.group]>/{namespaces/<namespace>,cluster}/<name>.json`.
pub fn item_path(resource: &str, namespace: Option<&str>, name: &str) -> String {
    match namespace {
        Some(namespace) => format!("resources/{resource}/namespaces/{namespace}/{name}.json"),
        None => format!("resources/{resource}/cluster/{name}.json"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_veleros() {
        let keys = BackupKeys::new("b");
        assert_eq!(keys.archive(), "backups/b/b.tar.gz");
        assert_eq!(keys.resource_list(), "backups/b/b-resource-list.json.gz");
        assert_eq!(keys.results(), "backups/b/b-results.gz");
        assert_eq!(keys.logs(), "backups/b/b-logs.gz");
        assert_eq!(
            keys.volume_snapshots(),
            "backups/b/b-volumesnapshots.json.gz"
        );
        assert_eq!(keys.volume_info(), "backups/b/b-volumeinfo.json.gz");
        assert_eq!(
            RestoreKeys::new("r").results(),
            "restores/r/restore-r-results.gz"
        );
        assert_eq!(
            item_path("pods", Some("a"), "p"),
            "resources/pods/namespaces/a/p.json"
        );
        assert_eq!(
            item_path("roles.x.io", None, "p"),
            "resources/roles.x.io/cluster/p.json"
        );
    }
}
