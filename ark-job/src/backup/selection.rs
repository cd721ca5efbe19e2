//! What goes into a backup: the filters, and what comes along because something that was taken needs it.
//!
//! Deciding only: objects are shown to [`Choice`] as they are read, namespaced types first, and it says yes or no. When
//! only some namespaces or labels are wanted, it notes what the objects need (a pod its claims and priority class, a claim
//! its volume, a service account its cluster role bindings and their roles, a custom resource its definition), and takes
//! that, too, whatever labels it has.

use crate::cluster::discover::ResourceType;
use crate::filter::{Filter, Named};
use crate::hooks::PodVolume;
use crate::item::{Item, Metadata, ScanError};
use crate::selector::AnyOf;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

const NAMESPACES: &str = "namespaces";
const PODS: &str = "pods";
const PRIORITY_CLASSES: &str = "priorityclasses.scheduling.k8s.io";
/// The type of volumes.
pub const VOLUMES: &str = "persistentvolumes";
/// The type of claims: read after the pods that mount them.
pub const CLAIMS: &str = "persistentvolumeclaims";
const SERVICE_ACCOUNTS: &str = "serviceaccounts";
/// The type of definitions: read after the custom resources that need them.
pub const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";
const BINDINGS: &str = "clusterrolebindings.rbac.authorization.k8s.io";
/// The type of cluster roles: read after the bindings that name them.
pub const ROLES: &str = "clusterroles.rbac.authorization.k8s.io";

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Of these namespaces.
    pub namespaces: Filter,
    /// Of these types, as `resource.group`.
    pub resources: Filter,
    /// With these labels; all when it selects all.
    pub selector: AnyOf,
    /// Cluster-scoped objects: all, none, or those that the rest needs.
    pub cluster_resources: Option<bool>,
    /// Snapshots of volumes: a volume without one is an error, is not worth a word, or is a warning.
    pub snapshot_volumes: Option<bool>,
}

impl Selection {
    /// Whether nothing is left out by namespace or label.
    pub fn is_everything(&self) -> bool {
        self.namespaces.is_everything() && self.selector.selects_all()
    }

    /// Whether a type that is not selected comes along for what needs it: custom resources bring their definition.
    pub fn brings(&self, resource: &str) -> bool {
        resource == DEFINITIONS
            && !self.resources.includes(resource)
            && !self.resources.excludes(resource)
    }

    /// Whether the filters of types and scope take a type.
    pub fn takes(&self, resource: &str, namespaced: bool) -> bool {
        (self.resources.includes(resource) || self.brings(resource))
            && (namespaced || self.cluster_resources != Some(false))
    }

    /// The flag by which claims go without their volumes, and so without any data; none if volumes are taken, or no claims.
    pub fn leaves_volumes_out(&self) -> Option<&'static str> {
        if !self.takes(CLAIMS, true) || self.takes(VOLUMES, false) {
            return None;
        }
        Some(if self.resources.excludes(VOLUMES) {
            "--exclude-resources"
        } else if !self.resources.includes(VOLUMES) {
            "--include-resources"
        } else {
            "--include-cluster-resources=false"
        })
    }

    /// Whether objects of a type may be in the backup.
    pub fn may_include(&self, candidate: &ResourceType) -> bool {
        let resource = candidate.group_resource();
        self.takes(&resource, candidate.namespaced)
            && (candidate.namespaced
                || self.cluster_resources == Some(true)
                || self.namespaces.is_everything()
                || [
                    NAMESPACES,
                    VOLUMES,
                    DEFINITIONS,
                    BINDINGS,
                    ROLES,
                    PRIORITY_CLASSES,
                ]
                .contains(&resource.as_str()))
    }
}

/// What selected namespaces need of the cluster.
#[derive(Debug, Default)]
struct Needs {
    /// Namespaces with objects in the archive.
    namespaces: BTreeSet<String>,
    /// Names of volumes, and a claim that each is bound to.
    volumes: BTreeMap<String, String>,
    /// Namespace and name of claims that selected pods mount.
    claims: BTreeSet<(String, String)>,
    /// Names of priority classes.
    priority_classes: BTreeSet<String>,
    /// Namespace and name of service accounts.
    service_accounts: BTreeSet<(String, String)>,
    /// How many claims in the archive are bound to a volume, when volumes are left out.
    claims_alone: u64,
    /// `resource.group` of types with objects in the archive.
    resources: BTreeSet<String>,
    /// Names of roles.
    roles: BTreeSet<String>,
}

/// Decides about one object after the other.
#[derive(Debug)]
pub struct Choice<'a> {
    selection: &'a Selection,
    /// Namespaces that carry an exclude label.
    left_out: BTreeSet<String>,
    needs: Mutex<Needs>,
}

impl<'a> Choice<'a> {
    /// Nothing has been decided yet; nothing of the namespaces `left_out` will be taken.
    pub fn new(selection: &'a Selection, left_out: BTreeSet<String>) -> Choice<'a> {
        Choice {
            selection,
            left_out,
            needs: Mutex::default(),
        }
    }

    fn needs(&self) -> MutexGuard<'_, Needs> {
        self.needs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an object of type `resource` (`resource.group`) is wanted.
    ///
    /// # Errors
    /// When what decides about it cannot be read.
    pub fn takes(
        &self,
        resource: &str,
        metadata: &Metadata<'_>,
        item: &Item<'_>,
    ) -> Result<bool, ScanError> {
        let selection = self.selection;
        let labels_match = || -> Result<bool, ScanError> {
            Ok(selection.selector.selects_all() || selection.selector.matches(&item.labels()?))
        };
        if let Some(namespace) = &metadata.namespace {
            return Ok(selection.namespaces.includes(namespace)
                && !self.left_out.contains(&**namespace)
                && (labels_match()? || self.is_mounted(resource, namespace, &metadata.name)));
        }
        if selection.brings(resource) {
            return self.is_needed(resource, metadata, item);
        }
        if selection.is_everything() {
            return Ok(true);
        }
        if resource == NAMESPACES {
            // A namespace comes with its objects; an empty one if it is selected (Velero's rule).
            return Ok(selection.namespaces.includes(&metadata.name)
                && (labels_match()? || self.needs().namespaces.contains(&*metadata.name)));
        }
        if self.is_needed(resource, metadata, item)? {
            return Ok(true);
        }
        let all = selection.cluster_resources == Some(true) || selection.namespaces.is_everything();
        Ok(all && labels_match()?)
    }

    /// Whether this is a claim that a selected pod mounts.
    fn is_mounted(&self, resource: &str, namespace: &str, name: &str) -> bool {
        let claim = || (namespace.to_owned(), name.to_owned());
        resource == CLAIMS && self.needs().claims.contains(&claim())
    }

    /// Whether a cluster-scoped object is needed by what has been taken from namespaces.
    fn is_needed(
        &self,
        resource: &str,
        metadata: &Metadata<'_>,
        item: &Item<'_>,
    ) -> Result<bool, ScanError> {
        let mut needs = self.needs();
        Ok(match resource {
            // Whatever is left at the end does not exist.
            VOLUMES => needs.volumes.remove(&*metadata.name).is_some(),
            PRIORITY_CLASSES => needs.priority_classes.contains(&*metadata.name),
            DEFINITIONS => needs.resources.contains(&*metadata.name),
            ROLES => needs.roles.contains(&*metadata.name),
            BINDINGS => {
                let binding: Binding = item.read()?;
                let needed = binding.subjects.iter().flatten().any(|subject| {
                    subject.kind == "ServiceAccount"
                        && needs
                            .service_accounts
                            .contains(&(subject.namespace.clone(), subject.name.clone()))
                });
                if needed {
                    needs.roles.insert(binding.role_ref.name);
                }
                needed
            }
            _ => false,
        })
    }

    /// Notes what an object that was taken needs.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn note(
        &self,
        resource: &str,
        metadata: &Metadata<'_>,
        item: &Item<'_>,
    ) -> Result<(), ScanError> {
        let Some(namespace) = &metadata.namespace else {
            return Ok(());
        };
        if resource == CLAIMS && self.selection.leaves_volumes_out().is_some() {
            let claim: Claim = item.read()?;
            let is_bound = claim.spec.volume_name.is_some_and(|name| !name.is_empty());
            self.needs().claims_alone += u64::from(is_bound);
        }
        if self.selection.is_everything() {
            return Ok(());
        }
        let named = |name: &str| (namespace.clone().into_owned(), name.to_owned());
        let mut needs = self.needs();
        if !needs.namespaces.contains(&**namespace) {
            needs.namespaces.insert(namespace.clone().into_owned());
        }
        match resource {
            CLAIMS => {
                let claim: Claim = item.read()?;
                let volume = claim.spec.volume_name.filter(|name| !name.is_empty());
                let by = || format!("{namespace}/{}", metadata.name);
                needs.volumes.extend(volume.map(|volume| (volume, by())));
            }
            PODS => {
                let pod: Pod = item.read()?;
                let volumes = pod.spec.volumes.iter();
                let claims = volumes.filter_map(|volume| volume.claim_name(&metadata.name));
                needs.claims.extend(claims.map(|claim| named(&claim)));
                needs.priority_classes.extend(pod.spec.priority_class_name);
            }
            SERVICE_ACCOUNTS => {
                needs.service_accounts.insert(named(&metadata.name));
            }
            _ => {}
        }
        Ok(())
    }

    /// Notes that there are objects of a type in the archive.
    pub fn note_type(&self, resource: &str) {
        self.needs().resources.insert(resource.to_owned());
    }

    /// Notes that a type could not be read whole: of what it lacks nobody knows whether it exists.
    pub fn note_failure(&self, resource: &str) {
        if resource == VOLUMES {
            self.needs().volumes.clear();
        }
    }

    /// What is said when claims were taken and their volumes were not, though nobody said that no data is wanted.
    pub fn warning_of_claims_alone(&self) -> Option<String> {
        let flag = self.selection.leaves_volumes_out()?;
        let count = self.needs().claims_alone;
        (count > 0 && self.selection.snapshot_volumes.is_none()).then(|| {
            format!(
                "{} in the backup without volume and data, for {flag} leaves persistentvolumes out: take them in, too, \
                 or say by --snapshot-volumes=false that no data is wanted",
                match count {
                    1 => "1 persistentVolumeClaim is".to_owned(),
                    _ => format!("{count} persistentVolumeClaims are"),
                }
            )
        })
    }

    /// Volumes that claims are bound to and that were not there, with such a claim: it cannot be restored as it was.
    pub fn absent_volumes(&self) -> BTreeMap<String, String> {
        match self.selection.takes(VOLUMES, false) {
            true => std::mem::take(&mut self.needs().volumes),
            false => BTreeMap::new(),
        }
    }
}

#[derive(Deserialize)]
struct Claim {
    #[serde(default)]
    spec: ClaimSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClaimSpec {
    volume_name: Option<String>,
}

#[derive(Deserialize)]
struct Pod {
    #[serde(default)]
    spec: PodSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec {
    #[serde(default)]
    volumes: Vec<PodVolume>,
    priority_class_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Binding {
    #[serde(default)]
    subjects: Option<Vec<Subject>>,
    role_ref: RoleRef,
}

#[derive(Deserialize)]
struct Subject {
    kind: String,
    #[serde(default)]
    namespace: String,
    name: String,
}

#[derive(Deserialize)]
struct RoleRef {
    name: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::ListScanner;
    use serde_json::json;

    /// What is said after these claims, each with the volume that it is bound to, were taken.
    fn warning(
        claims: &[(&str, Option<&str>)],
        exclude: &[&str],
        snapshot_volumes: Option<bool>,
    ) -> Option<String> {
        let exclude: Vec<String> = exclude.iter().map(|name| (*name).to_owned()).collect();
        let selection = Selection {
            namespaces: Filter::namespaces(&[], &[]).unwrap(),
            resources: Filter::resolved_resources(&[], &exclude),
            selector: AnyOf::new([]).unwrap(),
            cluster_resources: None,
            snapshot_volumes,
        };
        let items: Vec<_> = claims
            .iter()
            .map(|(name, volume)| {
                json!({"metadata": {"namespace": "a", "name": name}, "spec": {"volumeName": volume}})
            })
            .collect();
        let list = json!({"metadata": {"resourceVersion": "1"}, "items": items}).to_string();
        let choice = Choice::new(&selection, BTreeSet::new());
        let mut scanner = ListScanner::default();
        scanner.feed(list.as_bytes());
        while let Some(span) = scanner.next_item().unwrap() {
            let item = scanner.item(&span);
            choice
                .note(CLAIMS, &item.metadata().unwrap(), &item)
                .unwrap();
        }
        choice.warning_of_claims_alone()
    }

    #[test]
    fn claims_whose_volumes_are_left_out_are_warned_of_once() {
        let claims = [
            ("bound", Some("pv-1")),
            ("too", Some("pv-2")),
            ("pending", None),
            ("empty", Some("")),
        ];
        let text = warning(&claims, &[VOLUMES], None).unwrap();
        assert!(
            text.starts_with("2 persistentVolumeClaims are in the backup without volume and data, for --exclude-resources leaves"),
            "{text}"
        );
        let text = warning(&claims[..1], &[VOLUMES], None).unwrap();
        assert!(text.starts_with("1 persistentVolumeClaim is "), "{text}");
        assert_eq!(warning(&claims[2..], &[VOLUMES], None), None);
        assert_eq!(warning(&claims, &[VOLUMES], Some(false)), None);
        assert_eq!(warning(&claims, &[], None), None);
    }
}
