//! The descriptions of backups that Velero and original Ark made: `velero-backup.json`, and theirs of `ark-backup.json`.
//!
//! Both are the whole Backup resource as JSON. Only what a reader of ours needs is looked at; the rest was other
//! programs' and may have any shape.

use crate::api::{BackupPhase, BackupSpec, BackupStatus, RUN_ANNOTATION};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Layouts of archives that are known: 1 had no directories of versions.
const FORMATS: [&str; 3] = ["1", "1.0.0", "1.1.0"];

/// Phases of Velero's and original Ark's backups that are final; one without a phase is new.
const ENDED: [&str; 5] = [
    "Completed",
    "PartiallyFailed",
    "Failed",
    "FailedValidation",
    "Deleting",
];

/// Who made a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This program.
    Ark,
    /// Velero.
    Velero,
    /// Heptio Ark before it became Velero.
    OriginalArk,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Origin::Ark => "Ark",
            Origin::Velero => "Velero",
            Origin::OriginalArk => "original Ark",
        })
    }
}

/// Why a description cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DescriptionError {
    /// It is not JSON, or not a Backup.
    #[error("it is not a description of a backup")]
    Malformed(#[source] serde_json::Error),
    /// It is a resource of another kind.
    #[error("it describes a {0}, not a backup")]
    OtherKind(String),
    /// It is that of another backup.
    #[error("it is that of {0:?}")]
    OtherName(String),
    /// Of a format that is not known.
    #[error("the backup has format version {0:?}; this program reads \"1\" and \"1.1.0\"")]
    UnknownFormat(String),
}

/// What a description says.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// Who made the backup.
    pub origin: Origin,
    /// Namespace of its resource.
    pub namespace: String,
    /// Labels of its resource.
    pub labels: BTreeMap<String, String>,
    /// Whether this program made it, for Velero to read.
    pub is_ours: bool,
    /// Its phase, in its maker's words; empty if it has none.
    pub phase: String,
    /// What was asked for, as far as we have the same notions.
    pub spec: BackupSpec,
    /// What came of it; without the phase, if we do not have that.
    pub status: BackupStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Stored {
    api_version: String,
    kind: String,
    metadata: Metadata,
    spec: Value,
    status: Value,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
    namespace: String,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
}

impl Description {
    /// Reads the description of the backup called `name`.
    ///
    /// # Errors
    /// When it is not one, is another's, or is of an unknown format.
    pub fn from_json(json: &[u8], name: &str) -> Result<Description, DescriptionError> {
        let stored: Stored = serde_json::from_slice(json).map_err(DescriptionError::Malformed)?;
        let origin = match (stored.api_version.as_str(), stored.kind.as_str()) {
            ("velero.io/v1", "Backup") => Origin::Velero,
            ("ark.heptio.com/v1", "Backup") => Origin::OriginalArk,
            (group, kind) => {
                return Err(DescriptionError::OtherKind(format!("{kind} of {group}")));
            }
        };
        if stored.metadata.name != name {
            return Err(DescriptionError::OtherName(stored.metadata.name));
        }
        let status = &stored.status;
        let format = match (&status["formatVersion"], &status["version"]) {
            (Value::String(text), _) if !text.is_empty() => text.clone(),
            (_, Value::Null) => "1".to_owned(),
            (_, number) => number.to_string(),
        };
        if !FORMATS.contains(&format.as_str()) {
            return Err(DescriptionError::UnknownFormat(format));
        }
        let phase = status["phase"].as_str().unwrap_or_default().to_owned();
        let annotations = stored.metadata.annotations.unwrap_or_default();
        Ok(Description {
            origin,
            namespace: stored.metadata.namespace,
            labels: stored.metadata.labels.unwrap_or_default(),
            is_ours: annotations.contains_key(RUN_ANNOTATION),
            spec: spec(&stored.spec),
            status: BackupStatus {
                phase: match phase.as_str() {
                    "Completed" => Some(BackupPhase::Completed),
                    "PartiallyFailed" => Some(BackupPhase::PartiallyFailed),
                    _ => None,
                },
                start_timestamp: time(&status["startTimestamp"]),
                completion_timestamp: time(&status["completionTimestamp"]),
                expiration: time(&status["expiration"]),
                warnings: status["warnings"].as_u64().unwrap_or_default(),
                errors: status["errors"].as_u64().unwrap_or_default(),
                format_version: Some(format),
                ..BackupStatus::default()
            },
            phase,
        })
    }

    /// Whether its maker is done with it, whatever came of it.
    pub fn has_ended(&self) -> bool {
        ENDED.contains(&self.phase.as_str())
    }

    /// Whether the backup is done, and so may be restored.
    pub fn is_complete(&self) -> bool {
        self.status.phase.is_some()
    }
}

fn time(value: &Value) -> Option<Time> {
    value.as_str()?.parse::<Timestamp>().ok().map(Time)
}

fn spec(value: &Value) -> BackupSpec {
    let list = |key: &str| -> Vec<String> {
        let texts = value[key].as_array().into_iter().flatten();
        let texts = texts.filter_map(|text| text.as_str().map(str::to_owned));
        // Original Ark writes `*` where nothing was asked for.
        texts.filter(|text| text != "*").collect()
    };
    BackupSpec {
        included_namespaces: list("includedNamespaces"),
        excluded_namespaces: list("excludedNamespaces"),
        included_resources: list("includedResources"),
        excluded_resources: list("excludedResources"),
        label_selector: serde_json::from_value(value["labelSelector"].clone()).unwrap_or_default(),
        or_label_selectors: serde_json::from_value(value["orLabelSelectors"].clone())
            .unwrap_or_default(),
        include_cluster_resources: value["includeClusterResources"].as_bool(),
        snapshot_volumes: value["snapshotVolumes"].as_bool(),
        ttl: value["ttl"].as_str().map(str::to_owned),
        ..BackupSpec::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn veleros_description_is_read() {
        let json = br#"{"kind":"Backup","apiVersion":"velero.io/v1","metadata":{"name":"b","namespace":"velero","annotations":null},
            "spec":{"includedNamespaces":["a"],"ttl":"720h0m0s","hooks":{},"metadata":{},"labelSelector":{"matchLabels":{"x":"y"}}},
            "status":{"version":1,"formatVersion":"1.1.0","phase":"PartiallyFailed","startTimestamp":"2026-01-02T03:04:05Z","errors":2}}"#;
        let read = Description::from_json(json, "b").unwrap();
        assert_eq!(read.origin, Origin::Velero);
        assert!(read.is_complete() && !read.is_ours);
        assert_eq!(read.spec.included_namespaces, ["a"]);
        assert!(read.spec.label_selector.is_some());
        assert_eq!(read.status.errors, 2);
        assert_eq!(
            read.status.start_timestamp.unwrap().0.to_string(),
            "2026-01-02T03:04:05Z"
        );
    }

    #[test]
    fn original_arks_description_is_read_with_its_nulls() {
        let json = br#"{"kind":"Backup","apiVersion":"ark.heptio.com/v1","metadata":{"name":"b","namespace":"heptio-ark","creationTimestamp":null},
            "spec":{"includedNamespaces":["*"],"excludedNamespaces":null,"includedResources":["*"],"labelSelector":null,"snapshotVolumes":null,"ttl":"24h0m0s"},
            "status":{"version":1,"expiration":"2017-07-28T20:05:24Z","phase":"Completed","volumeBackups":null,"validationErrors":null}}"#;
        let read = Description::from_json(json, "b").unwrap();
        assert_eq!(read.origin, Origin::OriginalArk);
        assert_eq!(read.status.phase, Some(BackupPhase::Completed));
        assert_eq!(read.spec.included_namespaces, [""; 0]);
    }

    #[test]
    fn what_is_no_description_of_this_backup_is_refused() {
        for (json, says) in [
            ("{", "not a description"),
            ("[]", "not a backup"),
            (r#"{"kind":"Backup","apiVersion":"x/v1"}"#, "not a backup"),
            (
                r#"{"kind":"Restore","apiVersion":"velero.io/v1"}"#,
                "not a backup",
            ),
            (
                r#"{"kind":"Backup","apiVersion":"velero.io/v1","metadata":{"name":"c"}}"#,
                "that of \"c\"",
            ),
            (
                r#"{"kind":"Backup","apiVersion":"velero.io/v1","metadata":{"name":"b"},"status":{"formatVersion":"2.0.0"}}"#,
                "format version \"2.0.0\"",
            ),
        ] {
            let error = Description::from_json(json.as_bytes(), "b").unwrap_err();
            assert!(error.to_string().contains(says), "{json}: {error}");
        }
    }
}
