//! The footer: what an archive holds and where. It makes a lone tar.gz seekable and verifiable.

use crate::api::{BackupSpec, BackupStatus};
use crate::volumes::VolumeRecord;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The footer of an archive, as stored in its entry `metadata/ark.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Footer {
    /// Everything but the members.
    #[serde(flatten)]
    pub head: Head,
    /// One line a member, in the order they are stored; they tile the archive from 0 to the footer's offset.
    pub members: Vec<Member>,
}

/// Everything in a footer but the members.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// Version of the stored format; a reader refuses one it does not know.
    pub format_version: String,
    /// Always `none`; reserved, and refused by a reader when it is something else.
    pub encryption: String,
    /// Name of the backup.
    pub backup: String,
    /// The run that wrote the archive.
    #[serde(rename = "runID")]
    pub run_id: String,
    /// The attempt that wrote it.
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
    /// Labels of the Backup resource.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What was asked for.
    pub spec: BackupSpec,
    /// What came of it.
    pub status: BackupStatus,
    /// What is inside, by type, sorted by `resource`.
    pub types: Vec<TypeEntry>,
    /// What Velero calls the place of snapshots of EBS, if the storage location says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub velero_snapshot_location: Option<String>,
    /// Every persistent volume that was looked at, and what became of its data.
    #[serde(default)]
    pub volumes: Vec<VolumeRecord>,
    /// The first hundred warnings and errors of each kind, as the results file has them.
    #[serde(default)]
    pub results: crate::report::Results,
}

/// One resource type in the archive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TypeEntry {
    /// `resource` or `resource.group`, as in paths.
    pub resource: String,
    /// `v1`, `apps/v1`.
    pub api_version: String,
    /// `Deployment`
    pub kind: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Number of objects.
    pub items: u64,
    /// Their length as JSON, bytes.
    pub bytes: u64,
    /// True when the API server did not return them in order of their keys.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unsorted: bool,
    /// The resourceVersion they were read at, when it is not the backup's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
}

/// One gzip member: whole tar entries of one resource type, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// Offset in the archive, bytes.
    pub offset: u64,
    /// Compressed length, bytes.
    pub length: u64,
    /// Raw length, bytes: no reader needs to unpack more.
    pub size: u64,
    /// SHA-256 of the compressed bytes, hexadecimal.
    pub sha256: String,
    /// The resource type, or `metadata`.
    pub resource: String,
    /// The namespace, when the type was read namespace by namespace: items are in order within each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// Number of objects.
    pub items: u64,
    /// Key of the first, `<namespace>/<name>` or `<name>`.
    pub first: String,
    /// Key of the last.
    pub last: String,
}

impl Footer {
    /// The JSON that is stored: the head, then one line a member, so that people and line tools can read it.
    pub fn to_json(&self) -> Vec<u8> {
        let mut json =
            serde_json::to_string(&self.head).expect("a footer holds only what JSON can say");
        json.pop(); // the closing brace
        json.push_str(",\"members\":[");
        for (n, member) in self.members.iter().enumerate() {
            json.push_str(if n == 0 { "\n" } else { ",\n" });
            json.push_str(
                &serde_json::to_string(member).expect("a member holds only what JSON can say"),
            );
        }
        json.push_str("\n]}\n");
        json.into_bytes()
    }

    /// The entry of a resource type.
    pub fn type_entry(&self, resource: &str) -> Option<&TypeEntry> {
        self.head
            .types
            .iter()
            .find(|entry| entry.resource == resource)
    }
}
