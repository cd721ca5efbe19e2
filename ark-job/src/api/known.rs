//! What is known by a name in a cluster: labels, annotations, keys, variables, with what each means.
//!
//! The reference in docs/ is made of these tables, and a test finds names in the code that are not in them.

use super::{
    BACKUP_LABEL, CLUSTER_NAME_KEY, CONTRACT_ANNOTATION, CREDENTIALS_KEY, EXCLUDE_LABEL,
    FAILED_LOG_KEY, FAILED_REASON_KEY, KEPT_LIST_KEY, KEPT_LOG_KEY, KEPT_RESULTS_KEY, MODE_KEY,
    OPERATION_LABEL, ORIGIN_ANNOTATION, PART_OF_LABEL, REQUEST_ANNOTATION, RESTORE_LABEL,
    RESTORE_NAME_LABEL, RUN_ANNOTATION, SCHEDULE_LABEL, STORAGE_ANNOTATION,
    SUSPENDED_BY_ANNOTATION, VELERO_EXCLUDE_LABEL, environment,
};

/// A name, where it is found, and what it means there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The name.
    pub name: &'static str,
    /// Of which objects.
    pub on: &'static str,
    /// What it says.
    pub meaning: &'static str,
}

const fn known(name: &'static str, on: &'static str, meaning: &'static str) -> Known {
    Known { name, on, meaning }
}

/// What people write, for Ark to read.
pub const FOR_PEOPLE: &[Known] = &[
    known(
        EXCLUDE_LABEL,
        "label, any object",
        "`true`: left out of every backup",
    ),
    known(
        VELERO_EXCLUDE_LABEL,
        "label, any object",
        "the same, Velero's",
    ),
    known(
        "ark.heptio.com/skip-snapshot",
        "annotation, claims and volumes",
        "`true`: no snapshot",
    ),
    known(
        "ark.heptio.com/csi-volumesnapshot-class",
        "annotation, claims",
        "the VolumeSnapshotClass to use",
    ),
    known(
        "velero.io/csi-volumesnapshot-class",
        "annotation, claims; label, classes",
        "the same, Velero's, and as the next",
    ),
    known(
        "ark.heptio.com/snapshot-class",
        "label, VolumeSnapshotClasses and VolumeGroupSnapshotClasses",
        "any value: this one, of all of its driver",
    ),
    known(
        "velero.io/csi-volumegroupsnapshot-class",
        "label, VolumeGroupSnapshotClasses",
        "the same, Velero's",
    ),
    known(
        "pre.hook.backup.ark.heptio.com/",
        "annotations, pods",
        "a command before a backup: `command`, `container`, `on-error`, `timeout` (hooks.md)",
    ),
    known(
        "hook.backup.ark.heptio.com/",
        "annotations, pods",
        "the same, in the oldest form",
    ),
    known(
        "post.hook.backup.ark.heptio.com/",
        "annotations, pods",
        "a command after it",
    ),
    known(
        "init.hook.restore.ark.heptio.com/",
        "annotations, pods",
        "an init container of the restored pod",
    ),
    known(
        "post.hook.restore.ark.heptio.com/",
        "annotations, pods",
        "a command in the restored pod",
    ),
    known(
        "pre.hook.backup.velero.io/",
        "annotations, pods",
        "as Ark's",
    ),
    known("hook.backup.velero.io/", "annotations, pods", "as Ark's"),
    known(
        "post.hook.backup.velero.io/",
        "annotations, pods",
        "as Ark's",
    ),
    known(
        "init.hook.restore.velero.io/",
        "annotations, pods",
        "as Ark's",
    ),
    known(
        "post.hook.restore.velero.io/",
        "annotations, pods",
        "as Ark's",
    ),
    known(
        "ark.heptio.com/restore-status",
        "annotation, any object",
        "`true` or `false`: whether its status is restored, too",
    ),
    known(
        "velero.io/restore-status",
        "annotation, any object",
        "the same, Velero's",
    ),
];

/// What Ark writes in the cluster.
pub const OF_ARK: &[Known] = &[
    known(
        RESTORE_LABEL,
        "label, restored objects",
        "`<BACKUP>-<YYYYMMDDhhmmss>`: the restore that made it",
    ),
    known(
        PART_OF_LABEL,
        "label, what `install` makes",
        "`kubectl-ark`",
    ),
    known(
        OPERATION_LABEL,
        "label, Jobs and pods",
        "`backup`, `restore`, `plan`, `expire`, …",
    ),
    known(
        BACKUP_LABEL,
        "label, Jobs, pods, objects of snapshots; tag, snapshots",
        "name of the backup; as a label shortened to 63 characters as Velero does",
    ),
    known(
        RESTORE_NAME_LABEL,
        "label, Jobs and pods; tag, volumes",
        "name of the restore",
    ),
    known(
        SCHEDULE_LABEL,
        "label, CronJobs, their Jobs and backups",
        "name of the schedule",
    ),
    known(
        RUN_ANNOTATION,
        "annotation, records; label, objects of snapshots; tag, snapshots",
        "the run that wrote it (format.md)",
    ),
    known(
        ORIGIN_ANNOTATION,
        "annotation, Backups",
        "who made it, if not this Ark: `velero`, `ark`",
    ),
    known(
        STORAGE_ANNOTATION,
        "annotation, Backups",
        "the URL of one that is in no location, such as one of `--local`",
    ),
    known(
        REQUEST_ANNOTATION,
        "annotation, Jobs and restored records; tag, volumes",
        "what was asked for",
    ),
    known(
        SUSPENDED_BY_ANNOTATION,
        "annotation, CronJobs",
        "`restore-only`: suspended by that mode, and resumed with its end",
    ),
    known(
        CONTRACT_ANNOTATION,
        "annotation, PodTemplate",
        "version of the command line that the image understands",
    ),
    known(
        "ark.heptio.com/restore-rights",
        "annotation, PodTemplate",
        "`on-demand` or `standing`",
    ),
    known(
        "ark.heptio.com/hooks",
        "annotation, PodTemplate",
        "whether backups may run hooks",
    ),
    known(
        "ark.heptio.com/original-pv-name",
        "annotation, PersistentVolumes",
        "the name in the backup, of a volume that got another",
    ),
    known(
        "ark.heptio.com/location",
        "label, objects of snapshots; tag, snapshots",
        "place of the backup: a hash of endpoint, bucket and prefix",
    ),
    known(
        "ark.heptio.com/cluster-uid",
        "label, objects of snapshots; tag, snapshots",
        "UID of the namespace kube-system",
    ),
    known(
        "ark.heptio.com/attempt",
        "label, objects of snapshots; tag, snapshots",
        "which pod of the run",
    ),
    known(
        "ark.heptio.com/pv",
        "label, objects of snapshots; tag, snapshots",
        "name of the volume",
    ),
    known(
        "ark.heptio.com/waiting",
        "annotation, what `get` prints",
        "why an operation does not get on; stored nowhere",
    ),
    known(
        "ark.heptio.com/doctor",
        "tag, dry runs of `doctor`",
        "never on anything that exists",
    ),
    known(
        "ark.heptio.com/unused",
        "tag, volumes",
        "`true`: made by a restore, and not in use yet",
    ),
    known(
        "ark.heptio.com/reminded",
        "annotation, VolumeSnapshotContents",
        "when their driver was last reminded to delete them",
    ),
    known(
        "velero.io/backup",
        "tag, snapshots",
        "name of the backup, for Velero",
    ),
    known(
        "velero.io/storage-location",
        "label, in stored files",
        "location of the backup, for Velero",
    ),
    known(
        "velero.io/schedule-name",
        "label, in stored files",
        "name of the schedule, for Velero",
    ),
];

/// What Ark reads in backups that Velero made.
pub const OF_VELERO: &[Known] = &[known(
    "velero.io/pvc-name",
    "annotation, in Velero's backups",
    "name of the claim of a snapshot",
)];

/// Environment variables.
pub const ENVIRONMENT: &[Known] = &[
    known(
        environment::NAMESPACE,
        "plugin, pods",
        "Ark's own namespace, as `-n`; `heptio-ark` if not set",
    ),
    known(
        environment::JOB_NAME,
        "pods (set by the Job)",
        "name of the Job",
    ),
    known(
        environment::JOB_UID,
        "pods (set by the Job)",
        "UID of the Job: the identity of the run",
    ),
    known(
        environment::POD_NAME,
        "pods (set by the Job)",
        "name of the pod",
    ),
    known(
        environment::POD_UID,
        "pods (set by the Job)",
        "UID of the pod: the attempt",
    ),
    known("KUBECONFIG", "plugin", "kubeconfig files, as in kubectl"),
    known(
        "COLUMNS",
        "plugin",
        "width of the terminal, for help pages and tables",
    ),
    known("NO_COLOR", "plugin", "any value: no colours in help pages"),
    known(
        "HTTPS_PROXY, HTTP_PROXY, NO_PROXY",
        "plugin, pods (`install --env`)",
        "a proxy on the way to storage and EC2",
    ),
    known(
        "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_PROFILE, AWS_SHARED_CREDENTIALS_FILE",
        "`--local`, pods",
        "credentials, as every AWS SDK reads them, where a location names none",
    ),
    known(
        "AWS_REGION",
        "`--local`, pods",
        "the region, where neither URL nor location says it",
    ),
    known(
        "AWS_ENDPOINT_URL_EC2",
        "pods",
        "endpoint of EC2, such as that of a VPC",
    ),
    known(
        "AWS_CLUSTER_NAME",
        "pods",
        "name of the cluster in the tag `kubernetes.io/cluster/…` of volumes that a restore makes",
    ),
    known("TMPDIR", "`--local`", "where temporary files go"),
];

/// Keys of ConfigMaps and Secrets in Ark's namespace.
pub const KEYS: &[Known] = &[
    known(
        MODE_KEY,
        "ConfigMap `ark`",
        "`Normal` or `RestoreOnly`; absent is Normal",
    ),
    known(
        CLUSTER_NAME_KEY,
        "ConfigMap `ark`",
        "name of the cluster, recorded in backups",
    ),
    known(
        CREDENTIALS_KEY,
        "Secret of a location's `credentialSecret`",
        "AWS shared-credentials file",
    ),
    known(
        "ca.crt",
        "ConfigMap of a location's `caConfigMap`",
        "certificates to trust",
    ),
    known("hooks.yaml", "ConfigMap of `--hooks`", "hooks (hooks.md)"),
    known(
        "(any, only one)",
        "ConfigMap of `--resource-policies-configmap`",
        "which volumes are snapshotted (volumes.md)",
    ),
    known(
        "(any, only one)",
        "ConfigMap of `--resource-modifier-configmap`",
        "rules that change restored objects (restore.md)",
    ),
    known(
        FAILED_LOG_KEY,
        "ConfigMap `ark-log-<BACKUP>`",
        "last lines of the log of a backup that failed",
    ),
    known(
        FAILED_REASON_KEY,
        "ConfigMap `ark-log-<BACKUP>`",
        "why it failed",
    ),
    known(
        KEPT_LOG_KEY,
        "ConfigMap `ark-results-<RESTORE>`",
        "last lines of the log of a restore, when its location is ReadOnly",
    ),
    known(
        KEPT_RESULTS_KEY,
        "ConfigMap `ark-results-<RESTORE>`",
        "its warnings and errors",
    ),
    known(
        KEPT_LIST_KEY,
        "ConfigMap `ark-results-<RESTORE>`",
        "what was done with each object",
    ),
];
