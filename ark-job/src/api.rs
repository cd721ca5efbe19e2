//! The Kubernetes resources of group `ark.heptio.com/v1`, and the names of labels, annotations and objects.
//!
//! Backup and Restore are *records*: `ark-job` writes them, people read them. Asking for an operation means creating a
//! Job (see `kubectl ark backup create`). The CRD manifests are generated from these types.

pub mod known;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// API group of Ark's resources.
pub const GROUP: &str = "ark.heptio.com";
/// Namespace Ark lives in unless `-n` or `ARK_NAMESPACE` says otherwise (Ark's own default).
pub const DEFAULT_NAMESPACE: &str = "heptio-ark";
/// What a command of kubectl ark needs to find this namespace: nothing, or ` -n NAMESPACE`.
pub fn namespace_flag(namespace: &str) -> String {
    if namespace == DEFAULT_NAMESPACE {
        String::new()
    } else {
        format!(" -n {namespace}")
    }
}
/// Name of the location used when none is given (as in Ark and Velero).
pub const DEFAULT_LOCATION: &str = "default";
/// Time to live of a backup when none is given: 30 days (Ark v0.6 and later, Velero).
pub const DEFAULT_TTL: std::time::Duration = std::time::Duration::from_secs(720 * 3600);
/// Version of everything a reader must know to read a backup; a reader refuses a version it does not know.
pub const FORMAT_VERSION: &str = "1";

/// Label on restored objects: `<BACKUP>-<YYYYMMDDhhmmss>` (Ark's concept page).
pub const RESTORE_LABEL: &str = "ark-restore";
/// Label on Jobs and pods: the kind of operation (`backup`, `restore`, …).
pub const OPERATION_LABEL: &str = "ark.heptio.com/operation";
/// Its value on a Job in which the plan of a restore is made: it has a restore's rights, and no record.
pub const PLAN_OPERATION: &str = "plan";
/// Label on Jobs and pods: the backup's name (shortened as Velero does when over 63 characters).
pub const BACKUP_LABEL: &str = "ark.heptio.com/backup";
/// Label on Jobs and pods: the restore's name.
pub const RESTORE_NAME_LABEL: &str = "ark.heptio.com/restore";
/// Label on a schedule's CronJob, its Jobs and its backups.
pub const SCHEDULE_LABEL: &str = "ark.heptio.com/schedule";
/// Label (value `true`) on objects that are left out of every backup. Velero's twin is [`VELERO_EXCLUDE_LABEL`].
pub const EXCLUDE_LABEL: &str = "ark.heptio.com/exclude-from-backup";
/// Velero's label (value `true`) on objects that are left out of every backup.
pub const VELERO_EXCLUDE_LABEL: &str = "velero.io/exclude-from-backup";
/// Annotation on records and on `velero-backup.json`: the run id of the run that wrote it (docs/format.md).
pub const RUN_ANNOTATION: &str = "ark.heptio.com/run";
/// Annotation on the Backup resource of somebody else's backup: who made it, [`ORIGIN_VELERO`] or [`ORIGIN_ARK`].
pub const ORIGIN_ANNOTATION: &str = "ark.heptio.com/origin";
/// Annotation on the Backup resource of a backup that was given a URL: where it is, as `file:///dir` or `s3://bucket/prefix?…`,
/// without credentials. For people: a directory is that of whichever machine wrote it.
pub const STORAGE_ANNOTATION: &str = "ark.heptio.com/storage";
/// Velero made it.
pub const ORIGIN_VELERO: &str = "velero";
/// Original Ark made it.
pub const ORIGIN_ARK: &str = "ark";
/// Annotation on Jobs and restored records: the request, as the argv that `ark-job` was given.
pub const REQUEST_ANNOTATION: &str = "ark.heptio.com/request";
/// Annotation on CronJobs: what suspended them, `restore-only`. Who pauses or unpauses one by hand removes it.
pub const SUSPENDED_BY_ANNOTATION: &str = "ark.heptio.com/suspended-by";
/// Annotation on the PodTemplate: the version of the `ark-job` command line its image understands.
pub const CONTRACT_ANNOTATION: &str = "ark.heptio.com/contract";
/// The version of the command line that this code renders.
pub const CONTRACT_VERSION: &str = "6";
/// Label on every object that `install` makes.
pub const PART_OF_LABEL: &str = "app.kubernetes.io/part-of";
/// Its value.
pub const PART_OF: &str = "kubectl-ark";

/// Name of the ConfigMap with mode and cluster name, and of the PodTemplate.
pub const CONFIG_NAME: &str = "ark";
/// Key in that ConfigMap: the name that the administrator gives to the cluster.
pub const CLUSTER_NAME_KEY: &str = "clusterName";
/// Key in that ConfigMap: the mode of the installation, [`NORMAL`] or [`RESTORE_ONLY`]; absent means Normal.
pub const MODE_KEY: &str = "mode";
/// Backups are made, and expire.
pub const NORMAL: &str = "Normal";
/// Nothing is backed up, deleted or expired (Ark's restore-only mode).
pub const RESTORE_ONLY: &str = "RestoreOnly";
/// What [`SUSPENDED_BY_ANNOTATION`] says of a CronJob that this mode has suspended: exactly those are resumed when it ends.
pub const RESTORE_ONLY_SUSPENDED: &str = "restore-only";
/// Key in a credential Secret: an AWS shared-credentials file (as Ark).
pub const CREDENTIALS_KEY: &str = "cloud";

/// Name of the ConfigMap that keeps the last lines of the log of a backup that failed, beside its Backup resource.
pub fn failed_log_name(backup: &str) -> String {
    format!("ark-log-{backup}")
}
/// Key in that ConfigMap: the last lines of the log.
pub const FAILED_LOG_KEY: &str = "log";
/// Key in that ConfigMap: why the backup failed.
pub const FAILED_REASON_KEY: &str = "reason";

/// Name of the ConfigMap that keeps what came of a restore, when nothing may be written where its backup is.
pub fn kept_results_name(restore: &str) -> String {
    format!("ark-results-{restore}")
}
/// What precedes that name in `status.results`.
pub const KEPT_REFERENCE: &str = "configmap/";
/// Key in that ConfigMap: the last lines of the log.
pub const KEPT_LOG_KEY: &str = "log";
/// Key in that ConfigMap: warnings and errors, as JSON in the form that storage has.
pub const KEPT_RESULTS_KEY: &str = "results.json";
/// Key in that ConfigMap: what was done with each object, gzip of JSON as storage has it; only if it is small.
pub const KEPT_LIST_KEY: &str = "resource-list.json.gz";

/// Environment variables that a rendered Job gives to `ark-job`, from the downward API.
pub mod environment {
    /// Ark's namespace: `metadata.namespace`.
    pub const NAMESPACE: &str = "ARK_NAMESPACE";
    /// Name of the Job: label `batch.kubernetes.io/job-name` of the pod.
    pub const JOB_NAME: &str = "ARK_JOB_NAME";
    /// UID of the Job: label `batch.kubernetes.io/controller-uid` of the pod.
    pub const JOB_UID: &str = "ARK_JOB_UID";
    /// Name of the pod: `metadata.name`.
    pub const POD_NAME: &str = "ARK_POD_NAME";
    /// UID of the pod: `metadata.uid`.
    pub const POD_UID: &str = "ARK_POD_UID";
}

/// Names of the service accounts, one for each kind of rights.
pub mod service_account {
    /// Runs backups: may list everything, and write Ark's own records.
    pub const BACKUP: &str = "ark-backup";
    /// Runs restores: cluster-admin while a restore runs.
    pub const RESTORE: &str = "ark-restore";
    /// Runs expiry and sync: Ark's own records, Jobs and pods.
    pub const HOUSEKEEPING: &str = "ark-housekeeping";
}

/// What an object of the whole cluster is called that belongs to the Ark in `namespace`: an installation in another namespace
/// has its own. A colon cannot be in the name of a namespace or a service account, so no two of them meet.
pub fn of_installation(name: &str, namespace: &str) -> String {
    match namespace {
        DEFAULT_NAMESPACE => name.to_owned(),
        other => format!("{name}:{other}"),
    }
}

/// Name of the one ClusterRoleBinding that gives the restores of the Ark in `namespace` their rights while they run.
pub fn restore_binding(namespace: &str) -> String {
    of_installation(RESTORE_BINDING, namespace)
}

/// Whether a ClusterRoleBinding of this name gives restores their rights while they run, in whichever namespace.
pub fn is_restore_binding(name: &str) -> bool {
    name.strip_prefix(RESTORE_BINDING)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
}

const RESTORE_BINDING: &str = "ark-restore";

/// One backup: what was asked for (spec) and what came of it (status).
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ark.heptio.com",
    version = "v1",
    kind = "Backup",
    namespaced,
    status = "BackupStatus",
    category = "ark",
    derive = "Default",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Status","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Errors","type":"integer","jsonPath":".status.errors"}"#,
    printcolumn = r#"{"name":"Warnings","type":"integer","jsonPath":".status.warnings"}"#,
    printcolumn = r#"{"name":"Created","type":"date","jsonPath":".status.startTimestamp"}"#,
    printcolumn = r#"{"name":"Expires","type":"string","jsonPath":".status.expiration"}"#,
    printcolumn = r#"{"name":"Location","type":"string","jsonPath":".spec.storageLocation"}"#
)]
#[serde(rename_all = "camelCase", default)]
pub struct BackupSpec {
    /// Namespaces to back up, names or globs; empty means all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub included_namespaces: Vec<String>,
    /// Namespaces to leave out, names or globs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub excluded_namespaces: Vec<String>,
    /// Resource types to back up (`resource.group`, plural, singular, short name or kind); empty means all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub included_resources: Vec<String>,
    /// Resource types to leave out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub excluded_resources: Vec<String>,
    /// Only objects that match this selector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<LabelSelector>,
    /// Only objects that match at least one of these selectors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub or_label_selectors: Vec<LabelSelector>,
    /// Cluster-scoped objects: true all, false none, absent those that the selected namespaces need (all when no
    /// namespace is selected).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_cluster_resources: Option<bool>,
    /// Disk snapshots: true wanted, false not, absent where there is a way to take them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_volumes: Option<bool>,
    /// ConfigMap in Ark's namespace with rules for which volumes are snapshotted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_policy: Option<String>,
    /// How long a CSI driver may take to take a snapshot, a Go duration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub csi_snapshot_timeout: Option<String>,
    /// API groups whose objects may be missing because they could not be discovered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignore_undiscoverable: Vec<String>,
    /// ConfigMap in Ark's namespace with hook specs, or `none` when no hooks were to be run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks: Option<String>,
    /// How long the backup is kept, a Go duration; 0 means for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// The BackupStorageLocation the backup is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_location: Option<String>,
}

/// What came of a backup.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BackupStatus {
    /// Where the backup stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<BackupPhase>,
    /// Why it failed, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_reason: Option<String>,
    /// When work began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_timestamp: Option<Time>,
    /// When the last object had been read; the upload ends a moment later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_timestamp: Option<Time>,
    /// After this time the backup may be deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration: Option<Time>,
    /// Last sign of life of the run; at most every 2 seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Time>,
    /// How far it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<BackupProgress>,
    /// Objects left out because they were being deleted, or carry an exclude label.
    #[serde(skip_serializing_if = "is_zero")]
    pub skipped: u64,
    /// Number of warnings.
    pub warnings: u64,
    /// Number of errors; more than none means something is missing from the backup.
    pub errors: u64,
    /// The first hundred warnings and errors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<String>,
    /// How many volumes there were, by what became of their data; absent when there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volumes: Option<VolumeCounts>,
    /// Snapshots by the name of the persistent volume, the first two hundred (Ark's field).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub volume_backups: BTreeMap<String, VolumeBackup>,
    /// How many hooks there were, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook_status: Option<HookStatus>,
    /// What is frozen by pre hooks right now; pods that are still here after the run may not have been thawed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freeze: Option<Freeze>,
    /// resourceVersion at which all objects were read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
    /// UID of the kube-system namespace of the cluster that was backed up.
    #[serde(rename = "clusterUID", skip_serializing_if = "Option::is_none")]
    pub cluster_uid: Option<String>,
    /// Name that the administrator gave to the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_name: Option<String>,
    /// Length of the archive in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
    /// ETag of the marker, by which a sync sees that nothing changed.
    #[serde(rename = "markerETag", skip_serializing_if = "Option::is_none")]
    pub marker_etag: Option<String>,
    /// Version of the program that made the backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Version of the stored format.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format_version: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// How many volumes a backup has, by what became of their data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeCounts {
    /// With a snapshot.
    pub snapshotted: u64,
    /// Without one, since that was asked for.
    pub skipped: u64,
    /// Without one, since it failed or there is no way to take one.
    pub missing: u64,
}

/// The snapshot of a persistent volume (Ark's `status.volumeBackups`, and who took it).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeBackup {
    /// Its id: `snap-…`, or the handle of a CSI driver.
    #[serde(rename = "snapshotID")]
    pub snapshot_id: String,
    /// The driver that took it: `ebs.csi.aws.com` for those of EBS, whoever mounts the volume.
    pub driver: String,
    /// Size of the volume, bytes; absent when the driver has not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
    /// Type of the disk, of EBS (`gp3`).
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub volume_type: Option<String>,
    /// Zone of the disk, of EBS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub availability_zone: Option<String>,
}

/// How far a backup is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BackupProgress {
    /// Objects to back up, as far as known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_items: Option<u64>,
    /// Objects in the archive so far.
    pub items_backed_up: u64,
    /// Bytes of JSON read so far.
    pub bytes_read: u64,
}

/// How many hooks of a backup there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HookStatus {
    /// Hooks of pods that were in the backup and running.
    pub attempted: u64,
    /// Those of them that failed.
    pub failed: u64,
}

/// What pre hooks have frozen, with what is needed to thaw it. Written before anything is frozen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Freeze {
    /// The run that froze.
    pub run: String,
    /// The attempt at it: the UID of its pod.
    pub attempt: String,
    /// Its last sign of life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Time>,
    /// The pods, in the order in which they were frozen.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<FrozenPod>,
}

/// A pod whose pre hooks have run, or are about to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FrozenPod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID; another pod of that name has not been frozen.
    pub uid: String,
    /// The post hooks that thaw it.
    pub hooks: Vec<FrozenHook>,
}

/// A post hook.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FrozenHook {
    /// The hook's name.
    pub name: String,
    /// The container to run it in.
    pub container: String,
    /// The command and its arguments.
    pub command: Vec<String>,
    /// How long it may take.
    pub timeout_milliseconds: u64,
}

/// Where a backup stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BackupPhase {
    /// Asked for; no pod has started.
    New,
    /// Running.
    InProgress,
    /// Complete, nothing missing.
    Completed,
    /// Complete in storage, but something is missing from it, and is named.
    PartiallyFailed,
    /// There is no backup.
    Failed,
    /// Being deleted.
    Deleting,
}

impl std::fmt::Display for BackupPhase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

/// One restore: what was asked for (spec) and what came of it (status).
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ark.heptio.com",
    version = "v1",
    kind = "Restore",
    namespaced,
    status = "RestoreStatus",
    category = "ark",
    derive = "Default",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Backup","type":"string","jsonPath":".spec.backupName"}"#,
    printcolumn = r#"{"name":"Status","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Errors","type":"integer","jsonPath":".status.errors"}"#,
    printcolumn = r#"{"name":"Warnings","type":"integer","jsonPath":".status.warnings"}"#,
    printcolumn = r#"{"name":"Created","type":"date","jsonPath":".status.startTimestamp"}"#
)]
#[serde(rename_all = "camelCase", default)]
pub struct RestoreSpec {
    /// The backup to restore.
    pub backup_name: String,
    /// The location the backup is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_location: Option<String>,
    /// Namespaces (of the backup) to restore, names or globs; empty means all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub included_namespaces: Vec<String>,
    /// Namespaces (of the backup) to leave out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub excluded_namespaces: Vec<String>,
    /// Resource types to restore; empty means all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub included_resources: Vec<String>,
    /// Resource types to leave out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub excluded_resources: Vec<String>,
    /// Only objects that match this selector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<LabelSelector>,
    /// Cluster-scoped objects: true all, false none, absent all unless namespaces are selected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_cluster_resources: Option<bool>,
    /// Only objects that match one of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub or_label_selectors: Vec<LabelSelector>,
    /// Source namespace → target namespace.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub namespace_mapping: BTreeMap<String, String>,
    /// Storage class of the backup → storage class in the cluster.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub storage_class_mapping: BTreeMap<String, String>,
    /// Whether disks come back from snapshots; absent means yes.
    #[serde(rename = "restorePVs", skip_serializing_if = "Option::is_none")]
    pub restore_pvs: Option<bool>,
    /// Availability zone of the backup → availability zone in which volumes are made.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub zone_mapping: BTreeMap<String, String>,
    /// Key of AWS KMS with which volumes are encrypted; absent means that of the snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kms_key: Option<String>,
    /// How long snapshots and volumes are waited for, a Go duration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_timeout: Option<String>,
    /// Whether services keep node ports that nobody asked for; absent means no.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preserve_node_ports: Option<bool>,
    /// Types whose status is restored too; absent means none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restore_status: Option<RestoreStatusSpec>,
    /// ConfigMap with rules that change objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_modifier: Option<String>,
    /// ConfigMap with hooks, or `none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks: Option<String>,
    /// What becomes of existing objects that are different: none (the default), update or recreate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub existing_resource_policy: Option<String>,
}

/// Types whose status is restored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RestoreStatusSpec {
    /// These; `*` is all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub included_resources: Vec<String>,
    /// But not these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub excluded_resources: Vec<String>,
}

/// What came of a restore.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RestoreStatus {
    /// Where the restore stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<RestorePhase>,
    /// Why it failed, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_reason: Option<String>,
    /// When work began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_timestamp: Option<Time>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_timestamp: Option<Time>,
    /// Last sign of life of the run; at most every 2 seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Time>,
    /// How far it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<RestoreProgress>,
    /// Objects created.
    pub created: u64,
    /// Existing objects changed.
    pub updated: u64,
    /// Existing objects that were as in the backup already.
    pub unchanged: u64,
    /// Objects left out or left as they are.
    pub skipped: u64,
    /// Objects that could not be restored.
    pub failed: u64,
    /// Hooks that were to run in restored pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks_attempted: Option<u64>,
    /// Hooks that failed, or could not run in time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks_failed: Option<u64>,
    /// Number of warnings.
    pub warnings: u64,
    /// Number of errors.
    pub errors: u64,
    /// The first hundred warnings and errors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<String>,
    /// The value of the `ark-restore` label on the restored objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restore_label: Option<String>,
    /// Where results and log are: a key under the location's prefix, or `configmap/NAME` when the location is ReadOnly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub results: Option<String>,
}

/// How far a restore is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RestoreProgress {
    /// Objects to restore.
    pub total_items: u64,
    /// Objects dealt with so far.
    pub items_restored: u64,
}

/// Where a restore stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RestorePhase {
    /// Asked for; no pod has started.
    New,
    /// Running.
    InProgress,
    /// Done, nothing missing.
    Completed,
    /// Done, but something could not be restored, and is named.
    PartiallyFailed,
    /// Stopped; see the failure reason.
    Failed,
}

impl std::fmt::Display for RestorePhase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

/// A place for backups: a bucket (and prefix), and how to reach it.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ark.heptio.com",
    version = "v1",
    kind = "BackupStorageLocation",
    namespaced,
    status = "BackupStorageLocationStatus",
    category = "ark",
    derive = "Default",
    derive = "PartialEq",
    printcolumn = r#"{"name":"URL","type":"string","jsonPath":".spec.url"}"#,
    printcolumn = r#"{"name":"Access Mode","type":"string","jsonPath":".spec.accessMode"}"#,
    printcolumn = r#"{"name":"Last Sync","type":"date","jsonPath":".status.lastSyncTime"}"#,
    printcolumn = r#"{"name":"Unreachable","type":"string","jsonPath":".status.unreachable"}"#
)]
#[serde(rename_all = "camelCase", default)]
pub struct BackupStorageLocationSpec {
    /// `s3://bucket/prefix` or `file:///directory`.
    pub url: String,
    /// Region of the bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// URL of an S3 service other than Amazon's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Name the bucket in the path, not in the host name; most services other than Amazon's need it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_style: Option<bool>,
    /// When request checksums are sent: `when-required` (the default with an endpoint) or `always`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// KMS key for server-side encryption.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kms_key_id: Option<String>,
    /// Server-side encryption: `AES256` or `aws:kms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_side_encryption: Option<String>,
    /// ConfigMap in Ark's namespace whose key `ca.crt` holds certificates to trust.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_config_map: Option<String>,
    /// Profile in the credentials file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// IAM role to assume.
    #[serde(rename = "roleARN", skip_serializing_if = "Option::is_none")]
    pub role_arn: Option<String>,
    /// Secret in Ark's namespace with an AWS shared-credentials file under the key `cloud`; absent: the pod's own
    /// identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential_secret: Option<String>,
    /// Name of the VolumeSnapshotLocation by which Velero finds snapshots of EBS that are recorded in backups here; absent:
    /// `default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub velero_snapshot_location: Option<String>,
    /// What may be done with it.
    pub access_mode: AccessMode,
}

/// What may be done with a location.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AccessMode {
    /// Backups are written and deleted.
    #[default]
    ReadWrite,
    /// Nothing is written, nothing deleted.
    ReadOnly,
}

/// What was last seen of a location.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BackupStorageLocationStatus {
    /// When storage was last synchronised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_sync_time: Option<Time>,
    /// Why it could not be reached, if it could not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreachable: Option<String>,
}
