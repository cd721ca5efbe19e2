//! What a restore is asked for, checked.

use super::selection::Asked;
use crate::api::{DEFAULT_LOCATION, RestoreSpec, RestoreStatusSpec};
use crate::args::{
    DryRun, ExistingPolicy, PlanFormat, RestoreArgs, RestoreFlags, StorageFlags, parse_duration,
    word,
};
use crate::error::Failure;
use crate::exit::Exit;
use crate::filter::Filter;
use crate::identity::{restore_label, timestamp};
use crate::volumes;
use jiff::Timestamp;
use std::time::Duration;

/// What is asked for, checked as far as it can be without a cluster.
#[derive(Clone, Debug)]
pub struct Options {
    pub(super) name: String,
    /// Where the backup is.
    pub(super) storage: StorageFlags,
    pub(super) spec: RestoreSpec,
    pub(super) asked: Asked,
    /// The value of the label on what is created.
    pub(super) label: String,
    pub(super) existing: ExistingPolicy,
    pub(super) again: bool,
    /// Only print the plan, in this format.
    pub(super) preview: Option<PlanFormat>,
    pub(super) wait_for_rights: Option<Duration>,
    /// How long snapshots and volumes are waited for.
    pub(super) volume_timeout: Duration,
    pub(super) max_in_flight: usize,
    pub(super) max_writes_per_second: Option<u32>,
}

impl Options {
    /// Checks what was typed.
    ///
    /// # Errors
    /// [`Exit::Usage`], with the flag and what is wrong with it.
    pub fn resolve(arguments: &RestoreArgs) -> Result<Options, Failure> {
        let RestoreArgs {
            backup,
            name,
            requested,
            wait_for_rights,
            storage,
            restore,
            dry_run,
            output,
            exit: _,
        } = arguments;
        let RestoreFlags {
            select,
            namespace_mappings: _,
            storage_class_mappings: _,
            restore_volumes,
            preserve_nodeports,
            status_include_resources,
            status_exclude_resources,
            resource_modifier_configmap,
            hooks,
            zone_mappings: _,
            kms_key,
            volume_timeout,
            existing_resource_policy,
            yes,
            again,
            max_in_flight,
            max_writes_per_second,
        } = restore;
        let usage = |flag: &str| {
            let flag = flag.to_owned();
            move |why: String| Failure::new(Exit::Usage, format!("{flag}: {why}"))
        };
        let asked = Asked::resolve(select)?;
        let namespace_mapping = restore
            .namespace_mapping()
            .map_err(usage("--namespace-mappings"))?;
        let storage_class_mapping = restore
            .storage_class_mapping()
            .map_err(usage("--storage-class-mappings"))?;
        let zone_mapping = restore.zone_mapping().map_err(usage("--zone-mappings"))?;
        let timeout = match volume_timeout {
            Some(text) => parse_duration(text).map_err(usage("--volume-timeout"))?,
            None => volumes::VOLUME_TIMEOUT,
        };
        Filter::resources(status_include_resources, status_exclude_resources).map_err(usage(
            "--status-include-resources, --status-exclude-resources",
        ))?;
        let wait_for_rights = wait_for_rights
            .as_deref()
            .map(parse_duration)
            .transpose()
            .map_err(usage("--wait-for-rights"))?;
        let preview = (*dry_run == DryRun::Server).then_some(*output);
        let existing = *existing_resource_policy;
        if existing != ExistingPolicy::None
            && !asked.namespaces.selects()
            && !yes
            && preview.is_none()
        {
            let word = word(existing);
            return Err(Failure::new(
                Exit::Usage,
                format!(
                    "--existing-resource-policy={word}: this would {word} objects in all namespaces"
                ),
            )
            .hint("look at `kubectl ark restore plan` with the same flags; then add --yes, or choose --include-namespaces"));
        }
        let requested = requested.unwrap_or_else(Timestamp::now);
        let spec = RestoreSpec {
            backup_name: backup.clone(),
            storage_location: match &storage.storage {
                Some(_) => None,
                None => Some(
                    storage
                        .location
                        .clone()
                        .unwrap_or_else(|| DEFAULT_LOCATION.to_owned()),
                ),
            },
            included_namespaces: all_as_none(&select.include_namespaces),
            excluded_namespaces: select.exclude_namespaces.clone(),
            included_resources: all_as_none(&select.include_resources),
            excluded_resources: select.exclude_resources.clone(),
            label_selector: asked.label_selector.clone(),
            or_label_selectors: asked.or_label_selectors.clone(),
            include_cluster_resources: select.include_cluster_resources,
            namespace_mapping,
            storage_class_mapping,
            restore_pvs: *restore_volumes,
            zone_mapping,
            kms_key: kms_key.clone(),
            volume_timeout: volume_timeout.clone(),
            preserve_node_ports: *preserve_nodeports,
            restore_status: (!status_include_resources.is_empty()).then(|| RestoreStatusSpec {
                included_resources: status_include_resources.clone(),
                excluded_resources: status_exclude_resources.clone(),
            }),
            resource_modifier: resource_modifier_configmap.clone(),
            hooks: hooks.clone(),
            existing_resource_policy: (existing != ExistingPolicy::None).then(|| word(existing)),
        };
        Ok(Options {
            name: name
                .clone()
                .unwrap_or_else(|| format!("{backup}-{}", timestamp(requested))),
            storage: storage.clone(),
            spec,
            asked,
            label: restore_label(backup, requested),
            existing,
            again: *again,
            preview,
            wait_for_rights,
            volume_timeout: timeout,
            max_in_flight: usize::from(*max_in_flight),
            max_writes_per_second: *max_writes_per_second,
        })
    }

    /// What was asked for, as the record says it.
    pub fn spec(&self) -> &RestoreSpec {
        &self.spec
    }
}

/// A list of names, where `*` is written as nothing.
fn all_as_none(names: &[String]) -> Vec<String> {
    if names == ["*"] {
        Vec::new()
    } else {
        names.to_vec()
    }
}
