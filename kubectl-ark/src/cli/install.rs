//! What is typed after `kubectl ark install`, `uninstall` and `version`.

use super::{CreateFormat, ServerDryRun};
use ark_job::api::AccessMode;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// `kubectl ark version`
#[derive(Clone, Debug, Args)]
pub struct VersionArgs {
    /// Only the plugin's own version; asks no cluster
    #[arg(long)]
    pub client: bool,
    /// How to print it
    #[arg(long, short = 'o', value_enum, value_name = "FORMAT")]
    pub output: Option<VersionFormat>,
}

/// How versions are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum VersionFormat {
    /// As YAML
    Yaml,
    /// As JSON
    Json,
}

/// How restores get their rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RestoreRights {
    /// cluster-admin is bound by `restore create`, with the rights of whoever runs it, and unbound after the restore
    OnDemand,
    /// cluster-admin is bound by `install` and stays; for restores that GitOps creates
    Standing,
}

/// What `install` may do with a location.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LocationAccess {
    /// Write and delete backups
    #[value(name = "read-write", alias = "ReadWrite")]
    ReadWrite,
    /// Only restore from it
    #[value(name = "read-only", alias = "ReadOnly")]
    ReadOnly,
}

impl From<LocationAccess> for AccessMode {
    fn from(access: LocationAccess) -> AccessMode {
        match access {
            LocationAccess::ReadWrite => AccessMode::ReadWrite,
            LocationAccess::ReadOnly => AccessMode::ReadOnly,
        }
    }
}

/// `kubectl ark install`
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Installing again upgrades. Pod settings, rights, mode, cluster name, and a location's mode and credentials that are there stay as they are where \
                  no flag says otherwise (--reset-pod-template starts afresh)."
)]
pub struct InstallArgs {
    /// Where backups are: s3://bucket/prefix?region=…&endpoint=…&path-style=true
    #[arg(long, value_name = "URL", help_heading = "Storage")]
    pub storage: Option<String>,
    /// Name of the BackupStorageLocation that --storage makes, or --access-mode changes; 'default' if not given
    #[arg(long, value_name = "NAME", help_heading = "Storage")]
    pub location_name: Option<String>,
    /// What may be done with the location; read-write if it is new
    #[arg(long, value_enum, value_name = "MODE", help_heading = "Storage")]
    pub access_mode: Option<LocationAccess>,
    /// AWS shared-credentials file for the location, put into a Secret; without, of a new one: the pod's own identity
    #[arg(
        long,
        value_name = "FILE",
        requires = "storage",
        help_heading = "Storage"
    )]
    pub credentials_file: Option<PathBuf>,
    /// Secret in Ark's namespace that has such a file under the key 'cloud', if you make it yourself
    #[arg(
        long,
        value_name = "NAME",
        requires = "storage",
        conflicts_with = "credentials_file",
        help_heading = "Storage"
    )]
    pub credentials_secret: Option<String>,
    /// Image with ark-job
    #[arg(long, value_name = "IMAGE", help_heading = "Pods")]
    pub image: Option<String>,
    /// When to pull the image: Always, IfNotPresent, Never
    #[arg(long, value_name = "POLICY", value_parser = ["Always", "IfNotPresent", "Never"], help_heading = "Pods")]
    pub image_pull_policy: Option<String>,
    /// Secret to pull the image with (repeatable)
    #[arg(long, value_name = "NAME", help_heading = "Pods")]
    pub image_pull_secret: Vec<String>,
    /// Taint that pods tolerate: KEY[=VALUE][:EFFECT] (repeatable)
    #[arg(long, value_name = "TAINT", help_heading = "Pods")]
    pub toleration: Vec<String>,
    /// Label of the nodes to run on: KEY=VALUE (repeatable)
    #[arg(long, value_name = "LABEL", help_heading = "Pods")]
    pub node_selector: Vec<String>,
    /// Environment variable of the pods, such as a proxy's: NAME=VALUE (repeatable)
    #[arg(long, value_name = "VARIABLE", help_heading = "Pods")]
    pub env: Vec<String>,
    /// YAML file with a PodTemplate (or its template) to merge into the pod settings
    #[arg(long, value_name = "FILE", help_heading = "Pods")]
    pub pod_template: Option<PathBuf>,
    /// Start from the default pod settings, not from those that are there
    #[arg(long, help_heading = "Pods")]
    pub reset_pod_template: bool,
    /// Annotation of the service accounts, such as a cloud role: KEY=VALUE (repeatable)
    #[arg(long, value_name = "ANNOTATION", help_heading = "Rights")]
    pub service_account_annotation: Vec<String>,
    /// How restores get their rights
    #[arg(long, value_enum, value_name = "WHEN", help_heading = "Rights")]
    pub restore_rights: Option<RestoreRights>,
    /// Let backups run hooks: the right to run commands in every pod; 'false' takes it away
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Rights")]
    pub hooks: Option<bool>,
    /// Back up, delete and expire nothing in this cluster: to restore what another cluster backs up
    #[arg(long)]
    pub restore_only: bool,
    /// Name of this cluster, recorded in its backups; by default the kubeconfig's
    #[arg(long, value_name = "NAME")]
    pub cluster_name: Option<String>,
    /// client: print what would be applied, and apply nothing; server: show what would change, as kubectl diff does
    #[arg(long, value_enum, value_name = "none|client|server", default_value_t, num_args = 0..=1, require_equals = true, default_missing_value = "client", hide_possible_values = true)]
    pub dry_run: ServerDryRun,
    /// Print the applied objects
    #[arg(long, short = 'o', value_enum, value_name = "FORMAT")]
    pub output: Option<CreateFormat>,
    /// Take over fields that someone else has changed
    #[arg(long)]
    pub force_conflicts: bool,
}
