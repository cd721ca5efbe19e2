//! The marker, `ark-backup.json`: a backup exists exactly if its marker does. It is written last and holds the digest
//! of everything written before it.

use crate::api::{BackupSpec, BackupStatus, FORMAT_VERSION, GROUP};
use crate::volumes::VolumeRecord;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// No marker is longer, bytes: a reader need not hold more.
pub const MAX_LENGTH: u64 = 4 << 20;

/// The marker of a backup: a Backup resource with the commit record beside its status.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Marker {
    /// `ark.heptio.com/v1`
    pub api_version: String,
    /// `Backup`
    pub kind: String,
    /// Name, labels and annotations of the Backup resource.
    pub metadata: Metadata,
    /// What was asked for.
    pub spec: BackupSpec,
    /// What came of it.
    pub status: BackupStatus,
    /// What was committed.
    pub commit: Commit,
}

/// The part of an object's metadata that is stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metadata {
    /// Name of the backup.
    pub name: String,
    /// Labels of the Backup resource.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the Backup resource.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What was committed, by whom, with digests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Commit {
    /// Version of the stored format; a reader refuses one it does not know.
    pub format_version: String,
    /// Always `none`; reserved.
    pub encryption: String,
    /// The run the backup belongs to.
    #[serde(rename = "runID")]
    pub run_id: String,
    /// The attempt that wrote the archive.
    pub attempt: String,
    /// UID of the namespace kube-system of the cluster.
    #[serde(rename = "clusterUID")]
    pub cluster_uid: String,
    /// Ark's namespace in that cluster.
    pub namespace: String,
    /// The schedule that asked for the backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// How many of the schedule's newest Completed backups never expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_last: Option<u32>,
    /// The snapshots of volumes that belong to the backup: those of the footer's records that have one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeRecord>,
    /// The archive.
    pub archive: ArchiveDigest,
    /// The other files but the log, which any attempt may have written, by their key without the backup's directory.
    pub files: BTreeMap<String, FileDigest>,
}

/// Length of the archive, and place and digest of its footer, from which every other byte is checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveDigest {
    /// Length of the archive, bytes.
    pub length: u64,
    /// Offset of the footer's member.
    pub footer_offset: u64,
    /// Compressed length of the footer's member.
    pub footer_length: u64,
    /// SHA-256 of the footer's compressed member, hexadecimal.
    #[serde(rename = "footerSHA256")]
    pub footer_sha256: String,
}

/// Length and digest of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDigest {
    /// Length, bytes.
    pub length: u64,
    /// SHA-256, hexadecimal.
    pub sha256: String,
}

/// Why a marker cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MarkerError {
    /// No marker: the metadata of original Ark, which has the same file name but no commit record.
    #[error("it has no commit record: original Ark wrote it")]
    Foreign,
    /// Written by a later version.
    #[error(
        "it has format version {found:?} and encryption {encryption:?}; this program reads {FORMAT_VERSION:?} without encryption"
    )]
    UnknownFormat {
        /// Its version.
        found: String,
        /// Its encryption.
        encryption: String,
    },
    /// Not a marker at all.
    #[error("it is malformed")]
    Malformed(#[source] serde_json::Error),
}

impl Marker {
    /// The JSON that is stored.
    pub fn to_json(&self) -> Vec<u8> {
        let mut json =
            serde_json::to_vec_pretty(self).expect("a marker holds only what JSON can say");
        json.push(b'\n');
        json
    }

    /// Reads a stored marker.
    ///
    /// # Errors
    /// When it is original Ark's, of a format this program does not know, or malformed.
    pub fn from_json(json: &[u8]) -> Result<Marker, MarkerError> {
        // The version is looked at before the rest is decoded: a later format may have another shape.
        #[derive(Deserialize)]
        struct Probe {
            commit: Option<ProbeCommit>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct ProbeCommit {
            format_version: String,
            encryption: String,
        }
        let probe: Probe = serde_json::from_slice(json).map_err(MarkerError::Malformed)?;
        let commit = probe.commit.ok_or(MarkerError::Foreign)?;
        if commit.format_version != FORMAT_VERSION || commit.encryption != "none" {
            return Err(MarkerError::UnknownFormat {
                found: commit.format_version,
                encryption: commit.encryption,
            });
        }
        serde_json::from_slice(json).map_err(MarkerError::Malformed)
    }

    /// `ark.heptio.com/v1`
    pub fn api_version() -> String {
        format!("{GROUP}/v1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker() -> Marker {
        Marker {
            api_version: Marker::api_version(),
            kind: "Backup".into(),
            metadata: Metadata {
                name: "b".into(),
                ..Metadata::default()
            },
            spec: BackupSpec::default(),
            status: BackupStatus::default(),
            commit: Commit {
                format_version: FORMAT_VERSION.into(),
                encryption: "none".into(),
                run_id: "r".into(),
                attempt: "a".into(),
                cluster_uid: "c".into(),
                namespace: "heptio-ark".into(),
                schedule: None,
                keep_last: None,
                volumes: Vec::new(),
                archive: ArchiveDigest {
                    length: 4,
                    footer_offset: 1,
                    footer_length: 2,
                    footer_sha256: "00".into(),
                },
                files: BTreeMap::new(),
            },
        }
    }

    #[test]
    fn a_marker_survives_storage() {
        assert_eq!(Marker::from_json(&marker().to_json()).unwrap(), marker());
    }

    #[test]
    fn what_is_not_our_marker_is_told_apart() {
        let original = br#"{"kind":"Backup","apiVersion":"ark.heptio.com/v1","metadata":{"name":"b"},"status":{"version":1}}"#;
        assert!(matches!(
            Marker::from_json(original),
            Err(MarkerError::Foreign)
        ));
        let mut later = marker();
        later.commit.format_version = "2".into();
        assert!(matches!(
            Marker::from_json(&later.to_json()),
            Err(MarkerError::UnknownFormat { .. })
        ));
        let mut secret = marker();
        secret.commit.encryption = "age".into();
        assert!(matches!(
            Marker::from_json(&secret.to_json()),
            Err(MarkerError::UnknownFormat { .. })
        ));
        assert!(matches!(
            Marker::from_json(b"{"),
            Err(MarkerError::Malformed(_))
        ));
    }
}
