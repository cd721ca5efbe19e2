//! The command line of `ark-job`: what was typed, and nothing else, and its inverse.
//!
//! The plugin renders Jobs from these types with [`Args::to_argv`], and `ark-job` parses them back: the command line is
//! the contract between the two, and a Job manifest in Git is readable and complete. [`crate::api::CONTRACT_VERSION`]
//! changes when an older image would not understand a newer plugin.

use crate::api::DEFAULT_LOCATION;
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use std::collections::BTreeMap;

/// One-shot backup and restore of Kubernetes objects; run as a Job by `kubectl ark`.
#[derive(Clone, Debug, PartialEq, Parser)]
#[command(name = "ark-job", version, about, max_term_width = 120)]
pub struct Args {
    /// Ark's own namespace in the cluster
    #[arg(long, short = 'n', global = true, env = "ARK_NAMESPACE", default_value = crate::api::DEFAULT_NAMESPACE, value_name = "NAMESPACE")]
    pub namespace: String,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The operations.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum Command {
    /// Back up the cluster's objects into object storage
    Backup(BackupArgs),
    /// Restore objects from a backup
    Restore(Box<RestoreArgs>),
    /// Compare a backup with the cluster or with another backup: exit code 0 same, 1 different, above 1 failed
    ///
    /// Prints a unified diff of YAML for each object: from the cluster (-) to the backup (+), as kubectl diff; of two backups, from BACKUP (-) to BACKUP2 (+).
    Diff(DiffArgs),
    /// Print one object of a backup
    Show(ShowArgs),
    /// Write one stored file of a backup to standard output, checked
    Fetch(FetchArgs),
    /// Delete backups: their snapshots, files, restores and resources
    Delete(DeleteArgs),
    /// Take back a deletion that was cut off before anything was lost
    Undelete(UndeleteArgs),
    /// Delete restores: their logs and results in storage, and their resources; what they restored stays
    DeleteRestore(DeleteRestoreArgs),
    /// Delete what has expired, and sweep up what runs that were cut off have left
    Expire(ExpireArgs),
    /// Make the cluster's Backup resources agree with what is in storage
    Sync(SyncArgs),
    /// List the backups in storage
    List(ListArgs),
    /// List the snapshots of volumes that backups record, and those that no backup does
    Volumes(VolumesArgs),
    /// Check from here what backups and restores need: storage, rights, snapshots, network; say how to mend what is missing
    Doctor(DoctorArgs),
}

/// Where backups are.
#[derive(Clone, Debug, Default, PartialEq, Eq, ClapArgs)]
pub struct StorageFlags {
    /// BackupStorageLocation (a resource in Ark's namespace) to use
    #[arg(long, value_name = "NAME", conflicts_with = "storage")]
    pub location: Option<String>,
    /// Storage URL to use instead of a location: s3://bucket/prefix?region=…&endpoint=…&path-style=true or file:///dir
    #[arg(long, value_name = "URL")]
    pub storage: Option<String>,
}

/// What to do when the backup's name is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum IfExists {
    /// Fail with exit code 11
    #[default]
    Fail,
    /// Keep the backup that is there, and succeed
    Keep,
}

/// Exit code of an operation that finished with errors.
#[derive(Clone, Copy, Debug, PartialEq, ClapArgs)]
pub struct ExitFlags {
    /// Exit code when finished with errors: 3, or 0 for callers that only look at failed Jobs
    #[arg(long, value_name = "0|3", default_value_t = 3, value_parser = parse_partial_exit_code)]
    pub partial_exit_code: u8,
}

impl Default for ExitFlags {
    fn default() -> Self {
        ExitFlags {
            partial_exit_code: 3,
        }
    }
}

/// What goes into a backup, and how long it is kept.
#[derive(Clone, Debug, Default, PartialEq, ClapArgs)]
pub struct BackupFlags {
    /// Namespaces to back up, names or globs; '*' (the default) is all
    #[arg(long, value_name = "NAMESPACES", value_delimiter = ',')]
    pub include_namespaces: Vec<String>,
    /// Namespaces to leave out, names or globs
    #[arg(long, value_name = "NAMESPACES", value_delimiter = ',')]
    pub exclude_namespaces: Vec<String>,
    /// Resource types to back up: resource.group, plural, singular, short name or kind; '*' (the default) is all
    #[arg(long, value_name = "TYPES", value_delimiter = ',')]
    pub include_resources: Vec<String>,
    /// Resource types to leave out
    #[arg(long, value_name = "TYPES", value_delimiter = ',')]
    pub exclude_resources: Vec<String>,
    /// Only objects whose labels match, as in kubectl: 'app=nginx,tier in (a,b)'
    #[arg(long, short = 'l', value_name = "SELECTOR")]
    pub selector: Option<String>,
    /// Objects that match any of several selectors: repeat it, or write 'app=a or app=b'
    #[arg(long, value_name = "SELECTOR", conflicts_with = "selector")]
    pub or_selector: Vec<String>,
    /// Cluster-scoped objects: true all, false none; by default all, or with selected namespaces those they need
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub include_cluster_resources: Option<bool>,
    /// Disk snapshots: true, and a volume without one is an error; false, none; by default, such a volume is a warning
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub snapshot_volumes: Option<bool>,
    /// ConfigMap in Ark's namespace that says which volumes are snapshotted and which are skipped, in Velero's format
    #[arg(long, value_name = "CONFIGMAP", value_parser = parse_name)]
    pub resource_policies_configmap: Option<String>,
    /// How long to wait for a CSI driver to take a snapshot (a Go duration), 10m if not given; what it does after that it does by itself
    #[arg(long, value_name = "DURATION")]
    pub csi_snapshot_timeout: Option<String>,
    /// API groups whose objects may be missing because the server behind them is down
    #[arg(long, value_name = "GROUPS", value_delimiter = ',')]
    pub ignore_undiscoverable: Vec<String>,
    /// ConfigMap in Ark's namespace with hooks for pods, besides those of annotations; 'none' runs no hooks at all
    #[arg(long, value_name = "CONFIGMAP|none", value_parser = parse_name)]
    pub hooks: Option<String>,
    /// How long to keep the backup, as a Go duration (720h, 90m); 0 is for ever
    #[arg(long, value_name = "DURATION")]
    pub ttl: Option<String>,
    /// Labels for the Backup resource: key=value,…
    #[arg(long, value_name = "LABELS", value_delimiter = ',', value_parser = parse_pair)]
    pub labels: Vec<(String, String)>,
    /// If a backup of this name exists that another run made: fail or keep it
    #[arg(long, value_name = "WHAT", value_enum, default_value_t)]
    pub if_exists: IfExists,
    /// Compression, 1 (fast) to 9 (small)
    #[arg(long, value_name = "LEVEL", default_value_t = DEFAULT_COMPRESSION, value_parser = clap::value_parser!(u8).range(1..=9))]
    pub compression_level: CompressionLevel,
}

/// The value of `--hooks` that runs none, not even those of annotations.
pub const NO_HOOKS: &str = "none";

/// A gzip level.
pub type CompressionLevel = u8;
/// Level 3 gives nearly the size of 6 in two thirds of the time (docs/benchmarks.md).
pub const DEFAULT_COMPRESSION: CompressionLevel = 3;

/// The schedule that asks for a backup.
#[derive(Clone, Debug, Default, PartialEq, ClapArgs)]
pub struct TickFlags {
    /// The schedule that asks for the backup: it is called <SCHEDULE>-<YYYYMMDDhhmmss>, and a twin or a retry for the same time
    /// is the same backup
    #[arg(long, value_name = "SCHEDULE", value_parser = parse_schedule_name, required_unless_present = "name", conflicts_with = "name")]
    pub schedule: Option<String>,
    /// The time that it is scheduled for (RFC 3339); that of the CronJob's Job if not given
    #[arg(long, value_name = "TIME", requires = "schedule")]
    pub scheduled: Option<jiff::Timestamp>,
    /// How many of the schedule's newest Completed backups never expire, 1 if not given
    #[arg(long, value_name = "N", requires = "schedule")]
    pub keep_last: Option<u32>,
}

/// `ark-job backup`
#[derive(Clone, Debug, PartialEq, ClapArgs)]
pub struct BackupArgs {
    /// Name of the backup, unless a schedule names it
    #[arg(value_name = "NAME", value_parser = parse_name)]
    pub name: Option<String>,
    /// The schedule
    #[command(flatten)]
    pub tick: TickFlags,
    /// Where backups are
    #[command(flatten)]
    pub storage: StorageFlags,
    /// What goes in
    #[command(flatten)]
    pub backup: BackupFlags,
    /// Exit code
    #[command(flatten)]
    pub exit: ExitFlags,
}

/// Which objects of a backup are meant.
#[derive(Clone, Debug, Default, PartialEq, ClapArgs)]
pub struct SelectFlags {
    /// Namespaces of the backup, names or globs; '*' (the default) is all
    #[arg(long, value_name = "NAMESPACES", value_delimiter = ',')]
    pub include_namespaces: Vec<String>,
    /// Namespaces of the backup to leave out
    #[arg(long, value_name = "NAMESPACES", value_delimiter = ',')]
    pub exclude_namespaces: Vec<String>,
    /// Resource types; '*' (the default) is all
    #[arg(long, value_name = "TYPES", value_delimiter = ',')]
    pub include_resources: Vec<String>,
    /// Resource types to leave out
    #[arg(long, value_name = "TYPES", value_delimiter = ',')]
    pub exclude_resources: Vec<String>,
    /// Only objects whose labels match, as in kubectl
    #[arg(long, short = 'l', value_name = "SELECTOR")]
    pub selector: Option<String>,
    /// Objects that match any of several selectors: repeat it, or write 'app=a or app=b'
    #[arg(long, value_name = "SELECTOR", conflicts_with = "selector")]
    pub or_selector: Vec<String>,
    /// Cluster-scoped objects: true all, false none; by default all, or with selected namespaces those they need
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub include_cluster_resources: Option<bool>,
}

/// What becomes of an object that is in the cluster already, and is different.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ExistingPolicy {
    /// It is left as it is, with a warning
    #[default]
    None,
    /// It is changed to what is in the backup
    Update,
    /// It is deleted and created again; what holds others or data is changed instead
    Recreate,
}

/// Whether a restore does what it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DryRun {
    /// It does
    #[default]
    None,
    /// It prints what it would do, checked by the API server, and changes nothing
    Server,
}

/// How a plan is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PlanFormat {
    /// For people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// What comes back from a backup, and where to.
#[derive(Clone, Debug, Default, PartialEq, ClapArgs)]
pub struct RestoreFlags {
    /// Which objects
    #[command(flatten)]
    pub select: SelectFlags,
    /// Restore namespaces under other names: source:target,…
    #[arg(long, value_name = "MAPPINGS", value_delimiter = ',', value_parser = parse_mapping)]
    pub namespace_mappings: Vec<(String, String)>,
    /// Restore volumes and claims with other storage classes: old:new,…
    #[arg(long, value_name = "MAPPINGS", value_delimiter = ',', value_parser = parse_class_mapping)]
    pub storage_class_mappings: Vec<(String, String)>,
    /// Restore volumes: false, and claims get new, empty ones
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub restore_volumes: Option<bool>,
    /// Make volumes in other availability zones than they were in: old:new,…
    #[arg(long, alias = "zone-mapping", value_name = "MAPPINGS", value_delimiter = ',', value_parser = parse_zone_mapping)]
    pub zone_mappings: Vec<(String, String)>,
    /// Encrypt volumes that are made from snapshots with this key (an ARN or alias of AWS KMS), not with that of the snapshot
    #[arg(long, value_name = "KEY")]
    pub kms_key: Option<String>,
    /// How long to wait for snapshots that are still being taken, and for volumes made from them (a Go duration), 4h if not given
    #[arg(long, value_name = "DURATION")]
    pub volume_timeout: Option<String>,
    /// Keep node ports of services, also those that nobody asked for
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub preserve_nodeports: Option<bool>,
    /// Resource types whose status is restored too; '*' is all
    #[arg(long, value_name = "TYPES", value_delimiter = ',')]
    pub status_include_resources: Vec<String>,
    /// Of these, types whose status is not restored
    #[arg(
        long,
        value_name = "TYPES",
        value_delimiter = ',',
        requires = "status_include_resources"
    )]
    pub status_exclude_resources: Vec<String>,
    /// ConfigMap in Ark's namespace with rules that change objects before they are restored
    #[arg(long, value_name = "CONFIGMAP", value_parser = parse_name)]
    pub resource_modifier_configmap: Option<String>,
    /// ConfigMap in Ark's namespace with hooks for restored pods, besides those of annotations; 'none' runs no hooks at all
    #[arg(long, value_name = "CONFIGMAP|none", value_parser = parse_name)]
    pub hooks: Option<String>,
    /// Objects that exist and are different: left as they are, changed, or deleted and created again
    #[arg(
        long,
        value_name = "none|update|recreate",
        value_enum,
        default_value_t,
        hide_possible_values = true
    )]
    pub existing_resource_policy: ExistingPolicy,
    /// Update or recreate in all namespaces without being asked
    #[arg(long, short = 'y')]
    pub yes: bool,
    /// Restore again though a restore of this name with the same request has ended well
    #[arg(long)]
    pub again: bool,
    /// Writes to the API server under way at once, at most
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_IN_FLIGHT, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub max_in_flight: u16,
    /// Writes to the API server a second, at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_writes_per_second: Option<u32>,
}

/// More gains nothing: the API server is the limit (docs/benchmarks.md).
pub const DEFAULT_MAX_IN_FLIGHT: u16 = 32;

/// `ark-job restore`
#[derive(Clone, Debug, PartialEq, ClapArgs)]
pub struct RestoreArgs {
    /// Name of the backup to restore
    #[arg(value_name = "BACKUP", value_parser = parse_name)]
    pub backup: String,
    /// Name of the restore; <BACKUP>-<YYYYMMDDhhmmss> if not given
    #[arg(long, value_name = "RESTORE", value_parser = parse_name)]
    pub name: Option<String>,
    /// When the restore was asked for (RFC 3339), for the ark-restore label; now if not given
    #[arg(long, value_name = "TIME")]
    pub requested: Option<jiff::Timestamp>,
    /// Wait this long for the rights to restore to be granted (a Go duration)
    #[arg(long, value_name = "DURATION")]
    pub wait_for_rights: Option<String>,
    /// Where backups are
    #[command(flatten)]
    pub storage: StorageFlags,
    /// What comes back
    #[command(flatten)]
    pub restore: RestoreFlags,
    /// server: print to standard output what would be done, and change nothing
    #[arg(
        long,
        value_enum,
        value_name = "none|server",
        default_value_t,
        hide_possible_values = true
    )]
    pub dry_run: DryRun,
    /// How that is printed
    #[arg(
        long,
        short = 'o',
        value_enum,
        value_name = "FORMAT",
        default_value_t,
        requires = "dry_run"
    )]
    pub output: PlanFormat,
    /// Exit code
    #[command(flatten)]
    pub exit: ExitFlags,
}

/// `ark-job diff`
#[derive(Clone, Debug, PartialEq, ClapArgs)]
pub struct DiffArgs {
    /// Name of the backup
    #[arg(value_name = "BACKUP", value_parser = parse_name)]
    pub backup: String,
    /// Another backup to compare with; the cluster if not given
    #[arg(value_name = "BACKUP2", value_parser = parse_name)]
    pub other: Option<String>,
    /// Where backups are
    #[command(flatten)]
    pub storage: StorageFlags,
    /// Which objects
    #[command(flatten)]
    pub select: SelectFlags,
    /// Also compare what the API server and controllers write
    #[arg(long)]
    pub all_fields: bool,
}

/// `ark-job show`
#[derive(Clone, Debug, PartialEq, ClapArgs)]
pub struct ShowArgs {
    /// Name of the backup
    #[arg(value_name = "BACKUP", value_parser = parse_name)]
    pub backup: String,
    /// The object: NAMESPACE/TYPE/NAME, or TYPE/NAME of a cluster-scoped one
    #[arg(value_name = "NAMESPACE/TYPE/NAME")]
    pub object: String,
    /// Where backups are
    #[command(flatten)]
    pub storage: StorageFlags,
    /// As it was stored, with what the API server and controllers wrote
    #[arg(long)]
    pub all_fields: bool,
    /// How it is printed
    #[arg(long, short = 'o', value_enum, value_name = "FORMAT", default_value_t)]
    pub output: ShowFormat,
}

/// How an object is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ShowFormat {
    /// As YAML
    #[default]
    Yaml,
    /// As JSON
    Json,
}

/// A stored file of a backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum FetchFile {
    /// The tar.gz with all objects
    #[default]
    Archive,
    /// The marker, from which all others are checked
    Marker,
    /// The log of the backup
    Logs,
    /// The names of what is inside, by type
    ResourceList,
    /// Warnings and errors
    Results,
    /// What the archive says of itself: sizes by type, and where each part is
    Footer,
}

/// `ark-job fetch`
#[derive(Clone, Debug, PartialEq, ClapArgs)]
pub struct FetchArgs {
    /// Name of the backup
    #[arg(value_name = "BACKUP", value_parser = parse_name)]
    pub backup: String,
    /// Where backups are
    #[command(flatten)]
    pub storage: StorageFlags,
    /// Which file, as it is stored
    #[arg(long, value_name = "FILE", value_enum, default_value_t)]
    pub file: FetchFile,
    /// Fetch nothing: keep this pod, in which others run fetch, until none has run for a while
    #[arg(long)]
    pub hold: bool,
}

/// `ark-job delete`
#[derive(Clone, Debug, PartialEq, ClapArgs)]
pub struct DeleteArgs {
    /// Names of the backups, whoever made them
    #[arg(value_name = "NAME", required = true, value_parser = parse_name)]
    pub names: Vec<String>,
    /// Where backups are
    #[command(flatten)]
    pub storage: StorageFlags,
}

/// `ark-job undelete`
#[derive(Clone, Debug, PartialEq, ClapArgs)]
pub struct UndeleteArgs {
    /// Names of the backups
    #[arg(value_name = "NAME", required = true, value_parser = parse_name)]
    pub names: Vec<String>,
    /// Where backups are
    #[command(flatten)]
    pub storage: StorageFlags,
}

/// `ark-job delete-restore`
#[derive(Clone, Debug, PartialEq, ClapArgs)]
pub struct DeleteRestoreArgs {
    /// Names of the restores
    #[arg(value_name = "NAME", required = true, value_parser = parse_name)]
    pub names: Vec<String>,
    /// Where their backups are
    #[command(flatten)]
    pub storage: StorageFlags,
}

/// What expires besides this cluster's own backups, and when what was never committed is swept up.
#[derive(Clone, Debug, PartialEq, ClapArgs)]
pub struct ExpireFlags {
    /// Also backups of another cluster, lost perhaps: the UID of its kube-system namespace (repeatable)
    #[arg(long, value_name = "UID")]
    pub cluster_uid: Vec<String>,
    /// Also backups that Velero or original Ark made
    #[arg(long)]
    pub include_foreign: bool,
    /// How old an archive without a marker, an unfinished upload or a snapshot of no backup must be to be swept up (a Go duration)
    #[arg(long, value_name = "DURATION", default_value = DEFAULT_GRACE)]
    pub grace: String,
    /// Sweep snapshots up though storage lists no backup at all
    #[arg(long)]
    pub force: bool,
}

/// Four times the longest that a Job may take by default.
pub const DEFAULT_GRACE: &str = "24h";

impl Default for ExpireFlags {
    fn default() -> Self {
        ExpireFlags {
            cluster_uid: Vec::new(),
            include_foreign: false,
            grace: DEFAULT_GRACE.to_owned(),
            force: false,
        }
    }
}

/// `ark-job expire`
#[derive(Clone, Debug, PartialEq, ClapArgs)]
pub struct ExpireArgs {
    /// Where backups are
    #[command(flatten)]
    pub storage: StorageFlags,
    /// What expires
    #[command(flatten)]
    pub expire: ExpireFlags,
    /// Print to standard output what would be deleted and kept, and why; delete nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How that is printed
    #[arg(
        long,
        short = 'o',
        value_enum,
        value_name = "FORMAT",
        default_value_t,
        requires = "dry_run"
    )]
    pub output: PlanFormat,
    /// Exit code
    #[command(flatten)]
    pub exit: ExitFlags,
}

/// `ark-job sync`
#[derive(Clone, Debug, PartialEq, ClapArgs)]
pub struct SyncArgs {
    /// Where backups are
    #[command(flatten)]
    pub storage: StorageFlags,
    /// Remove resources though storage lists no backup at all
    #[arg(long)]
    pub force: bool,
    /// Exit code
    #[command(flatten)]
    pub exit: ExitFlags,
}

/// `ark-job list`
#[derive(Clone, Debug, PartialEq, ClapArgs)]
pub struct ListArgs {
    /// Where backups are
    #[command(flatten)]
    pub storage: StorageFlags,
    /// Those whose deletion has begun, and whether it can be taken back
    #[arg(long)]
    pub deleted: bool,
    /// How they are printed
    #[arg(long, short = 'o', value_enum, value_name = "FORMAT", default_value_t)]
    pub output: PlanFormat,
}

/// `ark-job volumes`
#[derive(Clone, Debug, PartialEq, ClapArgs)]
pub struct VolumesArgs {
    /// Only those of these backups
    #[arg(value_name = "BACKUP", value_parser = parse_name)]
    pub backups: Vec<String>,
    /// Where backups are
    #[command(flatten)]
    pub storage: StorageFlags,
    /// Only those that no backup records
    #[arg(long, conflicts_with = "backups")]
    pub orphans: bool,
    /// How they are printed
    #[arg(long, short = 'o', value_enum, value_name = "FORMAT", default_value_t)]
    pub output: PlanFormat,
}

/// `ark-job doctor`
#[derive(Clone, Debug, Default, PartialEq, ClapArgs)]
pub struct DoctorArgs {
    /// Where backups are
    #[command(flatten)]
    pub storage: StorageFlags,
    /// Check the permissions of EC2, too, when no volume of the cluster is one of EBS
    #[arg(long)]
    pub ec2: bool,
    /// How the checks are printed; as JSON, each as soon as it is made
    #[arg(long, short = 'o', value_enum, value_name = "FORMAT", default_value_t)]
    pub output: PlanFormat,
}

/// The inverse of parsing: flags in the order of the help, defaults left out.
struct Argv(Vec<String>);

impl Argv {
    fn value(&mut self, flag: &str, value: &Option<impl ToString>) {
        if let Some(value) = value {
            self.0.push(format!("{flag}={}", value.to_string()));
        }
    }

    fn list(&mut self, flag: &str, values: &[String]) {
        if !values.is_empty() {
            self.0.push(format!("{flag}={}", values.join(",")));
        }
    }

    fn pairs(&mut self, flag: &str, separator: char, pairs: &[(String, String)]) {
        let texts: Vec<String> = pairs
            .iter()
            .map(|(key, value)| format!("{key}{separator}{value}"))
            .collect();
        self.list(flag, &texts);
    }

    fn each(&mut self, flag: &str, values: &[String]) {
        for value in values {
            self.value(flag, &Some(value));
        }
    }

    fn switch(&mut self, flag: &str, on: bool) {
        if on {
            self.0.push(flag.to_owned());
        }
    }

    fn unless_default<T: PartialEq + ToString>(&mut self, flag: &str, value: T, default: T) {
        if value != default {
            self.value(flag, &Some(value));
        }
    }
}

impl Args {
    /// The arguments (without the program's name) that parse back to `self`.
    pub fn to_argv(&self) -> Vec<String> {
        let Args { namespace, command } = self;
        let mut argv = Argv(Vec::new());
        match command {
            Command::Backup(BackupArgs {
                name,
                tick,
                storage,
                backup,
                exit,
            }) => {
                argv.0.push("backup".to_owned());
                argv.0.extend(name.clone());
                tick.write(&mut argv);
                storage.write(&mut argv);
                backup.write(&mut argv);
                exit.write(&mut argv);
            }
            Command::Restore(arguments) => {
                let RestoreArgs {
                    backup,
                    name,
                    requested,
                    wait_for_rights,
                    storage,
                    restore,
                    dry_run,
                    output,
                    exit,
                } = &**arguments;
                argv.0.extend(["restore".to_owned(), backup.clone()]);
                argv.value("--name", name);
                argv.value("--requested", requested);
                argv.value("--wait-for-rights", wait_for_rights);
                storage.write(&mut argv);
                restore.write(&mut argv);
                argv.unless_default("--dry-run", word(*dry_run), word(DryRun::default()));
                argv.unless_default("--output", word(*output), word(PlanFormat::default()));
                exit.write(&mut argv);
            }
            Command::Diff(DiffArgs {
                backup,
                other,
                storage,
                select,
                all_fields,
            }) => {
                argv.0.extend(["diff".to_owned(), backup.clone()]);
                argv.0.extend(other.clone());
                storage.write(&mut argv);
                select.write(&mut argv);
                argv.switch("--all-fields", *all_fields);
            }
            Command::Show(ShowArgs {
                backup,
                object: _,
                storage,
                all_fields,
                output,
            }) => {
                argv.0.extend(["show".to_owned(), backup.clone()]);
                storage.write(&mut argv);
                argv.switch("--all-fields", *all_fields);
                argv.unless_default("--output", word(*output), word(ShowFormat::default()));
            }
            Command::Fetch(FetchArgs {
                backup,
                storage,
                file,
                hold,
            }) => {
                argv.0.extend(["fetch".to_owned(), backup.clone()]);
                storage.write(&mut argv);
                argv.unless_default("--file", word(*file), word(FetchFile::default()));
                argv.switch("--hold", *hold);
            }
            Command::Delete(DeleteArgs { names, storage }) => {
                argv.0.push("delete".to_owned());
                argv.0.extend_from_slice(names);
                storage.write(&mut argv);
            }
            Command::Undelete(UndeleteArgs { names, storage }) => {
                argv.0.push("undelete".to_owned());
                argv.0.extend_from_slice(names);
                storage.write(&mut argv);
            }
            Command::DeleteRestore(DeleteRestoreArgs { names, storage }) => {
                argv.0.push("delete-restore".to_owned());
                argv.0.extend_from_slice(names);
                storage.write(&mut argv);
            }
            Command::Expire(ExpireArgs {
                storage,
                expire,
                dry_run,
                output,
                exit,
            }) => {
                argv.0.push("expire".to_owned());
                storage.write(&mut argv);
                expire.write(&mut argv);
                argv.switch("--dry-run", *dry_run);
                argv.unless_default("--output", word(*output), word(PlanFormat::default()));
                exit.write(&mut argv);
            }
            Command::Sync(SyncArgs {
                storage,
                force,
                exit,
            }) => {
                argv.0.push("sync".to_owned());
                storage.write(&mut argv);
                argv.switch("--force", *force);
                exit.write(&mut argv);
            }
            Command::List(ListArgs {
                storage,
                deleted,
                output,
            }) => {
                argv.0.push("list".to_owned());
                storage.write(&mut argv);
                argv.switch("--deleted", *deleted);
                argv.unless_default("--output", word(*output), word(PlanFormat::default()));
            }
            Command::Volumes(VolumesArgs {
                backups,
                storage,
                orphans,
                output,
            }) => {
                argv.0.push("volumes".to_owned());
                argv.0.extend_from_slice(backups);
                storage.write(&mut argv);
                argv.switch("--orphans", *orphans);
                argv.unless_default("--output", word(*output), word(PlanFormat::default()));
            }
            Command::Doctor(DoctorArgs {
                storage,
                ec2,
                output,
            }) => {
                argv.0.push("doctor".to_owned());
                storage.write(&mut argv);
                argv.switch("--ec2", *ec2);
                argv.unless_default("--output", word(*output), word(PlanFormat::default()));
            }
        }
        argv.value("--namespace", &Some(namespace));
        if let Command::Show(ShowArgs { object, .. }) = command {
            // Last, since nothing after the dashes is a flag.
            argv.0.extend(["--".to_owned(), object.clone()]);
        }
        argv.0
    }
}

impl BackupArgs {
    /// The name of the backup, if the command line alone tells it: of a schedule's, the scheduled time is part of it.
    pub fn known_name(&self) -> Option<String> {
        let TickFlags {
            schedule,
            scheduled,
            keep_last: _,
        } = &self.tick;
        match (schedule, scheduled) {
            (Some(schedule), Some(at)) => Some(crate::schedule::backup_name(schedule, *at)),
            (Some(_), None) => None,
            (None, _) => self.name.clone(),
        }
    }
}

impl Command {
    /// Where the backups are that the command is about.
    pub fn storage(&self) -> &StorageFlags {
        match self {
            Command::Backup(backup) => &backup.storage,
            Command::Restore(restore) => &restore.storage,
            Command::Diff(diff) => &diff.storage,
            Command::Show(show) => &show.storage,
            Command::Fetch(fetch) => &fetch.storage,
            Command::Delete(delete) => &delete.storage,
            Command::Undelete(undelete) => &undelete.storage,
            Command::DeleteRestore(delete) => &delete.storage,
            Command::Expire(expire) => &expire.storage,
            Command::Sync(sync) => &sync.storage,
            Command::List(list) => &list.storage,
            Command::Volumes(volumes) => &volumes.storage,
            Command::Doctor(doctor) => &doctor.storage,
        }
    }

    /// As [`Command::storage`], to be filled in.
    pub fn storage_mut(&mut self) -> &mut StorageFlags {
        match self {
            Command::Backup(backup) => &mut backup.storage,
            Command::Restore(restore) => &mut restore.storage,
            Command::Diff(diff) => &mut diff.storage,
            Command::Show(show) => &mut show.storage,
            Command::Fetch(fetch) => &mut fetch.storage,
            Command::Delete(delete) => &mut delete.storage,
            Command::Undelete(undelete) => &mut undelete.storage,
            Command::DeleteRestore(delete) => &mut delete.storage,
            Command::Expire(expire) => &mut expire.storage,
            Command::Sync(sync) => &mut sync.storage,
            Command::List(list) => &mut list.storage,
            Command::Volumes(volumes) => &mut volumes.storage,
            Command::Doctor(doctor) => &mut doctor.storage,
        }
    }

    /// The one backup that is made or read, if it is one and its name is known.
    pub fn backup(&self) -> Option<&str> {
        match self {
            Command::Backup(backup) => backup.name.as_deref(),
            Command::Restore(restore) => Some(&restore.backup),
            Command::Diff(diff) => Some(&diff.backup),
            Command::Show(show) => Some(&show.backup),
            Command::Fetch(fetch) => Some(&fetch.backup),
            Command::Delete(DeleteArgs { names, .. })
            | Command::Undelete(UndeleteArgs { names, .. }) => match names.as_slice() {
                [name] => Some(name),
                _ => None,
            },
            Command::Volumes(VolumesArgs { backups, .. }) => match backups.as_slice() {
                [name] => Some(name),
                _ => None,
            },
            Command::DeleteRestore(_)
            | Command::Expire(_)
            | Command::Sync(_)
            | Command::List(_)
            | Command::Doctor(_) => None,
        }
    }
}

/// The word for a value on the command line.
pub fn word(value: impl ValueEnum) -> String {
    value
        .to_possible_value()
        .expect("no value is hidden from the command line")
        .get_name()
        .to_owned()
}

impl StorageFlags {
    /// The flag that says where a backup is, as part of a command of the plugin in a hint; nothing of the default location.
    pub fn flag(&self) -> String {
        match (&self.location, &self.storage) {
            // A directory is hardly that of a pod.
            (_, Some(url)) if url.starts_with("file:") => format!(" --local --storage '{url}'"),
            (_, Some(url)) => format!(" --storage '{url}'"),
            (Some(name), None) if name != DEFAULT_LOCATION => format!(" --location {name}"),
            _ => String::new(),
        }
    }

    /// A hint: how to see what is in a backup that is here.
    pub fn lists(&self, backup: &str) -> String {
        let flag = self.flag();
        format!("`kubectl ark backup describe {backup} --details{flag}` lists what is in it")
    }

    fn write(&self, argv: &mut Argv) {
        let StorageFlags { location, storage } = self;
        argv.value("--location", location);
        argv.value("--storage", storage);
    }
}

impl ExitFlags {
    fn write(&self, argv: &mut Argv) {
        let ExitFlags { partial_exit_code } = self;
        argv.unless_default("--partial-exit-code", *partial_exit_code, 3);
    }
}

impl TickFlags {
    fn write(&self, argv: &mut Argv) {
        let TickFlags {
            schedule,
            scheduled,
            keep_last,
        } = self;
        argv.value("--schedule", schedule);
        argv.value("--scheduled", scheduled);
        argv.value("--keep-last", keep_last);
    }
}

impl ExpireFlags {
    fn write(&self, argv: &mut Argv) {
        let ExpireFlags {
            cluster_uid,
            include_foreign,
            grace,
            force,
        } = self;
        argv.each("--cluster-uid", cluster_uid);
        argv.switch("--include-foreign", *include_foreign);
        argv.unless_default("--grace", grace.clone(), DEFAULT_GRACE.to_owned());
        argv.switch("--force", *force);
    }
}

impl BackupFlags {
    fn write(&self, argv: &mut Argv) {
        let BackupFlags {
            include_namespaces,
            exclude_namespaces,
            include_resources,
            exclude_resources,
            selector,
            or_selector,
            include_cluster_resources,
            snapshot_volumes,
            resource_policies_configmap,
            csi_snapshot_timeout,
            ignore_undiscoverable,
            hooks,
            ttl,
            labels,
            if_exists,
            compression_level,
        } = self;
        argv.list("--include-namespaces", include_namespaces);
        argv.list("--exclude-namespaces", exclude_namespaces);
        argv.list("--include-resources", include_resources);
        argv.list("--exclude-resources", exclude_resources);
        argv.value("--selector", selector);
        argv.each("--or-selector", or_selector);
        argv.value("--include-cluster-resources", include_cluster_resources);
        argv.value("--snapshot-volumes", snapshot_volumes);
        argv.value("--resource-policies-configmap", resource_policies_configmap);
        argv.value("--csi-snapshot-timeout", csi_snapshot_timeout);
        argv.list("--ignore-undiscoverable", ignore_undiscoverable);
        argv.value("--hooks", hooks);
        argv.value("--ttl", ttl);
        argv.pairs("--labels", '=', labels);
        match if_exists {
            IfExists::Fail => {}
            IfExists::Keep => argv.value("--if-exists", &Some("keep")),
        }
        argv.unless_default(
            "--compression-level",
            *compression_level,
            DEFAULT_COMPRESSION,
        );
    }
}

impl SelectFlags {
    fn write(&self, argv: &mut Argv) {
        let SelectFlags {
            include_namespaces,
            exclude_namespaces,
            include_resources,
            exclude_resources,
            selector,
            or_selector,
            include_cluster_resources,
        } = self;
        argv.list("--include-namespaces", include_namespaces);
        argv.list("--exclude-namespaces", exclude_namespaces);
        argv.list("--include-resources", include_resources);
        argv.list("--exclude-resources", exclude_resources);
        argv.value("--selector", selector);
        argv.each("--or-selector", or_selector);
        argv.value("--include-cluster-resources", include_cluster_resources);
    }
}

impl RestoreFlags {
    fn write(&self, argv: &mut Argv) {
        let RestoreFlags {
            select,
            namespace_mappings,
            storage_class_mappings,
            restore_volumes,
            zone_mappings,
            kms_key,
            volume_timeout,
            preserve_nodeports,
            status_include_resources,
            status_exclude_resources,
            resource_modifier_configmap,
            hooks,
            existing_resource_policy,
            yes,
            again,
            max_in_flight,
            max_writes_per_second,
        } = self;
        select.write(argv);
        argv.pairs("--namespace-mappings", ':', namespace_mappings);
        argv.pairs("--storage-class-mappings", ':', storage_class_mappings);
        argv.value("--restore-volumes", restore_volumes);
        argv.pairs("--zone-mappings", ':', zone_mappings);
        argv.value("--kms-key", kms_key);
        argv.value("--volume-timeout", volume_timeout);
        argv.value("--preserve-nodeports", preserve_nodeports);
        argv.list("--status-include-resources", status_include_resources);
        argv.list("--status-exclude-resources", status_exclude_resources);
        argv.value("--resource-modifier-configmap", resource_modifier_configmap);
        argv.value("--hooks", hooks);
        argv.unless_default(
            "--existing-resource-policy",
            word(*existing_resource_policy),
            word(ExistingPolicy::default()),
        );
        argv.switch("--yes", *yes);
        argv.switch("--again", *again);
        argv.unless_default("--max-in-flight", *max_in_flight, DEFAULT_MAX_IN_FLIGHT);
        argv.value("--max-writes-per-second", max_writes_per_second);
    }

    /// The namespace mappings as a map.
    ///
    /// # Errors
    /// When a source is mapped twice.
    pub fn namespace_mapping(&self) -> Result<BTreeMap<String, String>, String> {
        mapping("namespace", &self.namespace_mappings)
    }

    /// The zone mappings as a map.
    ///
    /// # Errors
    /// When a zone is mapped twice.
    pub fn zone_mapping(&self) -> Result<BTreeMap<String, String>, String> {
        mapping("zone", &self.zone_mappings)
    }

    /// The storage class mappings as a map.
    ///
    /// # Errors
    /// When a class is mapped twice.
    pub fn storage_class_mapping(&self) -> Result<BTreeMap<String, String>, String> {
        mapping("storage class", &self.storage_class_mappings)
    }
}

fn mapping(what: &str, pairs: &[(String, String)]) -> Result<BTreeMap<String, String>, String> {
    let mut mapping = BTreeMap::new();
    for (source, target) in pairs {
        if let Some(other) = mapping.insert(source.clone(), target.clone())
            && &other != target
        {
            return Err(format!(
                "{what} {source:?} is mapped to both {other:?} and {target:?}"
            ));
        }
    }
    Ok(mapping)
}

fn parse_name(text: &str) -> Result<String, String> {
    crate::identity::check_name(text)?;
    Ok(text.to_owned())
}

fn parse_schedule_name(text: &str) -> Result<String, String> {
    crate::schedule::check_name(text)?;
    Ok(text.to_owned())
}

fn parse_partial_exit_code(text: &str) -> Result<u8, String> {
    match text {
        "0" => Ok(0),
        "3" => Ok(3),
        _ => Err("0 or 3 is expected".into()),
    }
}

/// `key=value`; the value may be empty.
fn parse_pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} is not of the form key=value"))?;
    if key.is_empty() {
        return Err(format!("{text:?} has no key"));
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// `source:target`, both namespace names.
fn parse_mapping(text: &str) -> Result<(String, String), String> {
    let (source, target) = text
        .split_once(':')
        .ok_or_else(|| format!("{text:?} is not of the form source:target"))?;
    for name in [source, target] {
        crate::identity::check_name(name)?;
        if name.contains('.') || name.len() > 63 {
            return Err(format!("{name:?} cannot be the name of a namespace"));
        }
    }
    Ok((source.to_owned(), target.to_owned()))
}

/// `old:new`, both names of storage classes.
fn parse_class_mapping(text: &str) -> Result<(String, String), String> {
    let (old, new) = text
        .split_once(':')
        .ok_or_else(|| format!("{text:?} is not of the form old:new"))?;
    for name in [old, new] {
        crate::identity::check_name(name)?;
    }
    Ok((old.to_owned(), new.to_owned()))
}

/// `old:new`, both names of availability zones.
fn parse_zone_mapping(text: &str) -> Result<(String, String), String> {
    let (old, new) = text
        .split_once(':')
        .ok_or_else(|| format!("{text:?} is not of the form old:new"))?;
    for zone in [old, new] {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if zone.is_empty() || !zone.chars().all(plain) {
            return Err(format!(
                "{zone:?} cannot be the name of an availability zone"
            ));
        }
    }
    Ok((old.to_owned(), new.to_owned()))
}

/// Go's longest.
const MAX_DURATION: std::time::Duration = std::time::Duration::from_nanos(i64::MAX as u64);
/// Nobody writes a longer one, not even with every unit.
const MAX_DURATION_TEXT: usize = 100;
/// So many hours can still be added up without an overflow, as often as the text has room for them.
const MAX_DIGITS: usize = 13;

/// Parses a Go duration (`720h`, `1h30m`, `0`), not negative.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn parse_duration(text: &str) -> Result<std::time::Duration, String> {
    if text == "0" {
        return Ok(std::time::Duration::ZERO);
    }
    if text.is_empty() {
        return Err("it is empty; a duration is written as 720h or 90m, and 0 is none".to_owned());
    }
    // What parses it adds and multiplies without looking, and panics at what is negative or too much: it sees neither.
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if unsigned.is_empty() || unsigned.contains(['+', '-']) {
        return Err(format!("{text:?} is not a duration such as 720h or 90m"));
    }
    let digits = |part: &str| part.len() > MAX_DIGITS;
    if text.len() > MAX_DURATION_TEXT || text.split(|c: char| !c.is_ascii_digit()).any(digits) {
        return Err(too_long(text));
    }
    let duration: kube::core::Duration = text
        .parse()
        .map_err(|error| format!("{text:?} is not a duration such as 720h or 90m: {error}"))?;
    if duration.is_negative() {
        return Err(format!("{text:?} is negative"));
    }
    let duration = std::time::Duration::from(duration);
    match duration > MAX_DURATION {
        true => Err(too_long(text)),
        false => Ok(duration),
    }
}

fn too_long(text: &str) -> String {
    format!("{text:?} is too long: a duration is 2562047h (292 years) at most, as in Go")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    fn name() -> impl Strategy<Value = String> {
        "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?"
    }

    // A text that survives a comma-separated list: no comma, not empty.
    fn word() -> impl Strategy<Value = String> {
        "[a-z0-9*.=-]{1,12}"
    }

    fn storage() -> impl Strategy<Value = StorageFlags> {
        prop_oneof![
            Just(StorageFlags::default()),
            name().prop_map(|name| StorageFlags {
                location: Some(name),
                storage: None
            }),
            "[ -~]{1,40}".prop_map(|url| StorageFlags {
                location: None,
                storage: Some(url)
            }),
        ]
    }

    prop_compose! {
        fn backup_flags()(
            include_namespaces in vec(word(), 0..3),
            exclude_namespaces in vec(word(), 0..3),
            include_resources in vec(word(), 0..3),
            exclude_resources in vec(word(), 0..3),
            selectors in prop_oneof![
                Just((None, Vec::new())),
                "[ -~]{1,30}".prop_map(|one| (Some(one), Vec::new())),
                vec("[ -~]{1,30}", 1..3).prop_map(|some| (None, some)),
            ],
            include_cluster_resources in option::of(any::<bool>()),
            snapshot_volumes in option::of(any::<bool>()),
            resource_policies_configmap in option::of(name()),
            csi_snapshot_timeout in option::of("[1-9]m"),
            ignore_undiscoverable in vec(word(), 0..3),
            hooks in option::of(name()),
            ttl in option::of("[0-9]{1,3}h"),
            labels in vec((name(), "[a-z0-9=]{0,5}"), 0..3),
            keep in any::<bool>(),
            compression_level in 1u8..=9,
        ) -> BackupFlags {
            BackupFlags {
                include_namespaces, exclude_namespaces, include_resources, exclude_resources,
                selector: selectors.0, or_selector: selectors.1,
                include_cluster_resources, snapshot_volumes, resource_policies_configmap, csi_snapshot_timeout,
                ignore_undiscoverable, hooks, ttl, labels,
                if_exists: if keep { IfExists::Keep } else { IfExists::Fail },
                compression_level,
            }
        }
    }

    prop_compose! {
        fn select_flags()(
            include_namespaces in vec(word(), 0..3),
            exclude_namespaces in vec(word(), 0..3),
            include_resources in vec(word(), 0..3),
            exclude_resources in vec(word(), 0..3),
            selectors in prop_oneof![
                Just((None, Vec::new())),
                "[ -~]{1,30}".prop_map(|one| (Some(one), Vec::new())),
                vec("[ -~]{1,30}", 1..3).prop_map(|some| (None, some)),
            ],
            include_cluster_resources in option::of(any::<bool>()),
        ) -> SelectFlags {
            SelectFlags {
                include_namespaces, exclude_namespaces, include_resources, exclude_resources,
                selector: selectors.0, or_selector: selectors.1, include_cluster_resources,
            }
        }
    }

    fn value<T: ValueEnum + std::fmt::Debug + 'static>() -> impl Strategy<Value = T> {
        proptest::sample::select(T::value_variants())
    }

    prop_compose! {
        fn restore_flags()(
            select in select_flags(),
            mappings in (vec((name(), name()), 0..3), vec((name(), name()), 0..3)),
            switches in (option::of(any::<bool>()), option::of(any::<bool>()), any::<bool>(), any::<bool>()),
            status in prop_oneof![
                Just((Vec::new(), Vec::new())),
                (vec(word(), 1..3), vec(word(), 0..3)),
            ],
            configmaps in (option::of(name()), option::of(name())),
            volumes in (vec(("[a-z]{2}-1[a-z]", "[a-z]{2}-1[a-z]"), 0..3), option::of("[a-z:/-]{1,20}"), option::of("[1-9]h")),
            existing_resource_policy in value::<ExistingPolicy>(),
            max_in_flight in 1u16..=1024,
            max_writes_per_second in option::of(1u32..),
        ) -> RestoreFlags {
            RestoreFlags {
                select,
                namespace_mappings: mappings.0, storage_class_mappings: mappings.1,
                restore_volumes: switches.0,
                zone_mappings: volumes.0, kms_key: volumes.1, volume_timeout: volumes.2,
                preserve_nodeports: switches.1,
                status_include_resources: status.0, status_exclude_resources: status.1,
                resource_modifier_configmap: configmaps.0, hooks: configmaps.1,
                existing_resource_policy, yes: switches.2, again: switches.3,
                max_in_flight, max_writes_per_second,
            }
        }
    }

    fn command() -> impl Strategy<Value = Command> {
        let exit = prop_oneof![Just(0u8), Just(3u8)]
            .prop_map(|partial_exit_code| ExitFlags { partial_exit_code });
        prop_oneof![
            (tick(), storage(), backup_flags(), exit.clone()).prop_map(
                |((name, tick), storage, backup, exit)| {
                    Command::Backup(BackupArgs {
                        name,
                        tick,
                        storage,
                        backup,
                        exit,
                    })
                }
            ),
            (
                name(),
                option::of(name()),
                option::of(0i64..4_000_000_000),
                option::of("[0-9]{1,3}m"),
                storage(),
                restore_flags(),
                prop_oneof![
                    Just((DryRun::None, PlanFormat::default())),
                    value::<PlanFormat>().prop_map(|format| (DryRun::Server, format)),
                ],
                exit.clone()
            )
                .prop_map(
                    |(backup, name, requested, wait_for_rights, storage, restore, shown, exit)| {
                        let requested =
                            requested.map(|second| jiff::Timestamp::from_second(second).unwrap());
                        Command::Restore(Box::new(RestoreArgs {
                            backup,
                            name,
                            requested,
                            wait_for_rights,
                            storage,
                            restore,
                            dry_run: shown.0,
                            output: shown.1,
                            exit,
                        }))
                    }
                ),
            (
                name(),
                option::of(name()),
                storage(),
                select_flags(),
                any::<bool>()
            )
                .prop_map(|(backup, other, storage, select, all_fields)| {
                    Command::Diff(DiffArgs {
                        backup,
                        other,
                        storage,
                        select,
                        all_fields,
                    })
                }),
            (
                name(),
                "[ -~]{1,30}",
                storage(),
                any::<bool>(),
                value::<ShowFormat>()
            )
                .prop_map(|(backup, object, storage, all_fields, output)| {
                    Command::Show(ShowArgs {
                        backup,
                        object,
                        storage,
                        all_fields,
                        output,
                    })
                }),
            (
                name(),
                storage(),
                proptest::sample::select(FetchFile::value_variants()),
                any::<bool>()
            )
                .prop_map(|(backup, storage, file, hold)| {
                    Command::Fetch(FetchArgs {
                        backup,
                        storage,
                        file,
                        hold,
                    })
                }),
            (vec(name(), 1..3), storage())
                .prop_map(|(names, storage)| Command::Delete(DeleteArgs { names, storage })),
            (vec(name(), 1..3), storage())
                .prop_map(|(names, storage)| Command::Undelete(UndeleteArgs { names, storage })),
            (vec(name(), 1..3), storage()).prop_map(|(names, storage)| Command::DeleteRestore(
                DeleteRestoreArgs { names, storage }
            )),
            (
                storage(),
                (vec(name(), 0..3), any::<bool>(), "[1-9]h", any::<bool>()),
                prop_oneof![
                    Just((false, PlanFormat::default())),
                    value::<PlanFormat>().prop_map(|format| (true, format)),
                ],
                exit.clone()
            )
                .prop_map(
                    |(storage, (cluster_uid, include_foreign, grace, force), shown, exit)| {
                        Command::Expire(ExpireArgs {
                            storage,
                            expire: ExpireFlags {
                                cluster_uid,
                                include_foreign,
                                grace,
                                force,
                            },
                            dry_run: shown.0,
                            output: shown.1,
                            exit,
                        })
                    }
                ),
            (storage(), any::<bool>(), exit).prop_map(|(storage, force, exit)| {
                Command::Sync(SyncArgs {
                    storage,
                    force,
                    exit,
                })
            }),
            (
                prop_oneof![
                    vec(name(), 0..3).prop_map(|backups| (backups, false)),
                    Just((Vec::new(), true)),
                ],
                storage(),
                value::<PlanFormat>()
            )
                .prop_map(|((backups, orphans), storage, output)| {
                    Command::Volumes(VolumesArgs {
                        backups,
                        storage,
                        orphans,
                        output,
                    })
                }),
            (storage(), any::<bool>(), value::<PlanFormat>()).prop_map(|(storage, ec2, output)| {
                Command::Doctor(DoctorArgs {
                    storage,
                    ec2,
                    output,
                })
            }),
            (storage(), any::<bool>(), value::<PlanFormat>()).prop_map(
                |(storage, deleted, output)| {
                    Command::List(ListArgs {
                        storage,
                        deleted,
                        output,
                    })
                }
            ),
        ]
    }

    fn tick() -> impl Strategy<Value = (Option<String>, TickFlags)> {
        prop_oneof![
            name().prop_map(|name| (Some(name), TickFlags::default())),
            (
                "[a-z][a-z0-9]{0,47}",
                option::of(0i64..4_000_000_000),
                option::of(any::<u32>())
            )
                .prop_map(|(schedule, scheduled, keep_last)| {
                    let scheduled =
                        scheduled.map(|second| jiff::Timestamp::from_second(second).unwrap());
                    let tick = TickFlags {
                        schedule: Some(schedule),
                        scheduled,
                        keep_last,
                    };
                    (None, tick)
                }),
        ]
    }

    proptest! {
        #[test]
        fn argv_is_the_inverse_of_parsing(namespace in name(), command in command()) {
            let args = Args { namespace, command };
            let argv = args.to_argv();
            let parsed = Args::try_parse_from(std::iter::once("ark-job".to_owned()).chain(argv.clone()))
                .map_err(|error| TestCaseError::fail(format!("{argv:?}: {error}")))?;
            prop_assert_eq!(&parsed, &args);
            prop_assert_eq!(parsed.to_argv(), argv);
        }
    }

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn durations_are_gos() {
        assert_eq!(
            parse_duration("1h30m"),
            Ok(std::time::Duration::from_secs(5400))
        );
        assert_eq!(parse_duration("0"), Ok(std::time::Duration::ZERO));
        assert!(parse_duration("-1h").is_err());
        assert!(parse_duration("30 days").is_err());
        // 53 years, in full.
        assert!(parse_duration("465000h0m0.000000001s").is_ok());
    }

    #[test]
    fn no_text_makes_a_duration_panic_and_an_empty_one_is_none() {
        assert!(parse_duration("").unwrap_err().contains("empty"));
        for long in [
            "99999999999999999999h",
            "2562048h",
            "1.99999999999999999999999h",
            &"9999999999999h".repeat(7),
            &"9999999999999h".repeat(50),
        ] {
            let why = parse_duration(long).unwrap_err();
            assert!(why.contains("too long"), "{why}");
        }
        assert!(parse_duration("2562047h47m16s").is_ok());
        for strange in ["1h-2h", "+-1h", "--1h", "1h+1h", "-", "+", "h", ".h", " 1h"] {
            parse_duration(strange).unwrap_err();
        }
    }

    proptest! {
        #[test]
        fn whatever_is_typed_as_a_duration_is_one_or_an_error(text in "[-+0-9.hmsnuµe ]{0,40}") {
            let _ = parse_duration(&text);
        }
    }
}
