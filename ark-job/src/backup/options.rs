//! What a backup is asked for: the command line, checked as far as it can be without a cluster, and then against it.

use super::commit;
use super::selection::Selection;
use super::tick::Tick;
use crate::api::{self, BackupSpec, DEFAULT_TTL, SCHEDULE_LABEL};
use crate::args::{BackupArgs, IfExists, NO_HOOKS, parse_duration};
use crate::cluster::discover::{Discovery, ResourceType};
use crate::error::Failure;
use crate::exit::Exit;
use crate::filter::{Filter, resolve_resources};
use crate::selector::{AnyOf, parse_choice};
use crate::volumes;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;

/// What is asked for, checked as far as it can be without a cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// Of a schedule's backup whose time is not known yet, only the schedule's; see [`Options::settle`].
    pub(super) name: String,
    /// The schedule, if one asks.
    pub(super) tick: Option<Tick>,
    pub(super) spec: BackupSpec,
    namespaces: Filter,
    selector: AnyOf,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) ttl: Duration,
    /// How long a CSI driver may take to take a snapshot.
    pub(super) csi_snapshot_timeout: Duration,
    if_exists: IfExists,
    pub(super) compression_level: u8,
}

impl Options {
    /// Checks what was typed.
    ///
    /// # Errors
    /// [`Exit::Usage`], with the flag and what is wrong with it.
    pub fn resolve(arguments: &BackupArgs) -> Result<Options, Failure> {
        let BackupArgs {
            name,
            tick,
            storage,
            backup,
            exit: _,
        } = arguments;
        let usage = |flag: &str| {
            let flag = flag.to_owned();
            move |why: String| Failure::new(Exit::Usage, format!("{flag}: {why}"))
        };
        let namespaces = Filter::namespaces(&backup.include_namespaces, &backup.exclude_namespaces)
            .map_err(usage("--include-namespaces, --exclude-namespaces"))?;
        Filter::resources(&backup.include_resources, &backup.exclude_resources)
            .map_err(usage("--include-resources, --exclude-resources"))?;
        let label_selector = backup
            .selector
            .as_deref()
            .map(crate::selector::parse)
            .transpose()
            .map_err(usage("--selector"))?;
        let or_label_selectors = backup
            .or_selector
            .iter()
            .map(|text| parse_choice(text))
            .collect::<Result<Vec<_>, _>>()
            .map_err(usage("--or-selector"))?
            .concat();
        let selector = AnyOf::new(label_selector.iter().chain(&or_label_selectors))
            .map_err(usage("--selector, --or-selector"))?;
        for group in &backup.ignore_undiscoverable {
            crate::identity::check_name(group).map_err(usage("--ignore-undiscoverable"))?;
        }
        for (key, value) in &backup.labels {
            crate::selector::check_label(key, value).map_err(usage("--labels"))?;
        }
        let ttl = match &backup.ttl {
            Some(text) => parse_duration(text).map_err(usage("--ttl"))?,
            None => DEFAULT_TTL,
        };
        let csi_snapshot_timeout = match &backup.csi_snapshot_timeout {
            Some(text) => parse_duration(text).map_err(usage("--csi-snapshot-timeout"))?,
            None => volumes::CSI_SNAPSHOT_TIMEOUT,
        };
        let everything = |names: &[String]| {
            if names == ["*"] {
                Vec::new()
            } else {
                names.to_vec()
            }
        };
        let spec = BackupSpec {
            included_namespaces: everything(&backup.include_namespaces),
            excluded_namespaces: backup.exclude_namespaces.clone(),
            included_resources: everything(&backup.include_resources),
            excluded_resources: backup.exclude_resources.clone(),
            label_selector,
            or_label_selectors,
            include_cluster_resources: backup.include_cluster_resources,
            snapshot_volumes: backup.snapshot_volumes,
            resource_policy: backup.resource_policies_configmap.clone(),
            csi_snapshot_timeout: backup.csi_snapshot_timeout.clone(),
            ignore_undiscoverable: backup.ignore_undiscoverable.clone(),
            hooks: backup.hooks.clone(),
            ttl: Some(go_duration(ttl)),
            storage_location: match &storage.storage {
                Some(_) => None,
                None => Some(
                    storage
                        .location
                        .clone()
                        .unwrap_or_else(|| api::DEFAULT_LOCATION.to_owned()),
                ),
            },
        };
        let tick = Tick::resolve(tick);
        let name = match (&tick, name) {
            (Some(tick), _) => tick.backup_name(),
            (None, Some(name)) => name.clone(),
            (None, None) => {
                return Err(Failure::new(Exit::Usage, "a name or --schedule is missing"));
            }
        };
        let mut labels: BTreeMap<String, String> = backup.labels.iter().cloned().collect();
        if let Some(tick) = &tick {
            let labelled = labels.insert(SCHEDULE_LABEL.to_owned(), tick.schedule.clone());
            if labelled.is_some_and(|labelled| labelled != tick.schedule) {
                let why = format!("{SCHEDULE_LABEL} is set by --schedule");
                return Err(usage("--labels")(why));
            }
        }
        Ok(Options {
            name,
            tick,
            spec,
            namespaces,
            selector,
            labels,
            ttl,
            csi_snapshot_timeout,
            if_exists: backup.if_exists,
            compression_level: backup.compression_level,
        })
    }

    /// When a backup that began at `started` expires; `None` for never.
    pub(super) fn expiration(&self, started: Timestamp) -> Option<Timestamp> {
        let ttl = SignedDuration::try_from(self.ttl).unwrap_or(SignedDuration::MAX);
        (!ttl.is_zero()).then(|| started.saturating_add(ttl).unwrap_or(Timestamp::MAX))
    }

    /// The ConfigMap with hook specs, if one is to be used.
    pub(super) fn hooks_config_map(&self) -> Option<&str> {
        self.spec.hooks.as_deref().filter(|name| *name != NO_HOOKS)
    }

    /// Whether hooks are run at all.
    pub(super) fn runs_hooks(&self) -> bool {
        self.spec.hooks.as_deref() != Some(NO_HOOKS)
    }

    /// Whether somebody else's backup of that name will do.
    pub(super) fn keeps(&self, taken: &commit::Taken) -> bool {
        self.if_exists == IfExists::Keep && taken.whole
    }

    /// What is wanted of the types that the cluster serves.
    pub(super) fn select(&self, discovery: &Discovery) -> Result<Selection, Failure> {
        let types: Vec<ResourceType> = discovery.restorable().cloned().collect();
        let resolve = |flag: &str, names: &[String]| {
            resolve_resources(names, &types).map_err(|why| {
                let missing: Vec<&str> = discovery
                    .missing
                    .iter()
                    .map(|missing| missing.group_version.as_str())
                    .collect();
                Failure::new(Exit::Usage, format!("{flag}: {why}")).hint(match missing[..] {
                    [] => "`kubectl api-resources` lists what the cluster serves".to_owned(),
                    _ => format!(
                        "{} cannot be discovered at the moment: `kubectl get apiservices` says why",
                        missing.join(", ")
                    ),
                })
            })
        };
        let include = resolve("--include-resources", &self.spec.included_resources)?;
        let exclude = resolve("--exclude-resources", &self.spec.excluded_resources)?;
        let resources = Filter::resolved_resources(&include, &exclude);
        let selection = Selection {
            namespaces: self.namespaces.clone(),
            resources,
            selector: self.selector.clone(),
            cluster_resources: self.spec.include_cluster_resources,
            snapshot_volumes: self.spec.snapshot_volumes,
        };
        check_volumes(&selection)?;
        Ok(selection)
    }
}

/// Refuses to be asked for snapshots of volumes that are left out. Pure.
fn check_volumes(selection: &Selection) -> Result<(), Failure> {
    match selection.leaves_volumes_out() {
        Some(flag) if selection.snapshot_volumes == Some(true) => Err(Failure::new(
            Exit::Usage,
            format!(
                "--snapshot-volumes: {flag} leaves persistentvolumes out, so no volume of a persistentVolumeClaim in the \
                 backup could have a snapshot"
            ),
        )
        .hint("let persistentvolumes in, or leave persistentvolumeclaims out, too, or say --snapshot-volumes=false")),
        _ => Ok(()),
    }
}

/// A duration as Go writes it: `720h0m0s`.
fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_do_not_go_without_the_volumes_whose_snapshots_are_asked_for() {
        let of = |include: &[&str], exclude: &[&str], cluster_resources, snapshot_volumes| {
            let names = |names: &[&str]| {
                names
                    .iter()
                    .map(|name| (*name).to_owned())
                    .collect::<Vec<_>>()
            };
            Selection {
                namespaces: Filter::namespaces(&[], &[]).unwrap(),
                resources: Filter::resolved_resources(&names(include), &names(exclude)),
                selector: AnyOf::new([]).unwrap(),
                cluster_resources,
                snapshot_volumes,
            }
        };
        let volumes = "persistentvolumes";
        let claims = "persistentvolumeclaims";
        for (include, exclude, scope, flag) in [
            (vec![], vec![volumes], None, "--exclude-resources"),
            (vec![claims], vec![], None, "--include-resources"),
            (
                vec![],
                vec![],
                Some(false),
                "--include-cluster-resources=false",
            ),
        ] {
            let failure = check_volumes(&of(&include, &exclude, scope, Some(true))).unwrap_err();
            assert_eq!(failure.exit(), Exit::Usage);
            let text = failure.message();
            assert!(
                text.starts_with(&format!("--snapshot-volumes: {flag} leaves")),
                "{text}"
            );
            for unasked in [None, Some(false)] {
                assert!(check_volumes(&of(&include, &exclude, scope, unasked)).is_ok());
            }
        }
        for (include, exclude, scope) in [
            (vec![], vec![], None),
            (vec![claims, volumes], vec![], None),
            (vec![], vec![], Some(true)),
            (vec!["configmaps"], vec![], None),
            (vec![], vec![volumes, claims], None),
            (vec![], vec![claims], Some(false)),
        ] {
            assert!(check_volumes(&of(&include, &exclude, scope, Some(true))).is_ok());
        }
    }

    #[test]
    fn durations_read_as_go_writes_them() {
        assert_eq!(go_duration(DEFAULT_TTL), "720h0m0s");
        assert_eq!(go_duration(Duration::ZERO), "0s");
        assert_eq!(go_duration(Duration::from_secs(90)), "1m30s");
    }
}
