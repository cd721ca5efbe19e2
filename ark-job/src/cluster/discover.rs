//! Which resource types the API server serves, and which of them can be backed up.
//!
//! A pass of our own over aggregated discovery: a group that the server knows but cannot reach right now is listed there
//! as stale, and dropping it silently (as client libraries do) would drop its objects from the backup silently.

use super::{Cluster, ClusterError, get};
use crate::filter::Named;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Kubernetes ≥ 1.30 serves v2, ≥ 1.27 v2beta1.
const ACCEPT: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                      application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
/// Groups whose objects are computed when asked for: there is nothing to back up.
const COMPUTED: [&str; 3] = [
    "metrics.k8s.io",
    "custom.metrics.k8s.io",
    "external.metrics.k8s.io",
];
/// Types that show the objects of another type: (group, resource, the group that has them too). They are stored once, as
/// the latter; a server that serves only the former keeps them there (Velero's list).
const COHABITING: [(&str, &str, &str); 6] = [
    ("events.k8s.io", "events", ""),
    ("extensions", "deployments", "apps"),
    ("extensions", "daemonsets", "apps"),
    ("extensions", "replicasets", "apps"),
    ("extensions", "networkpolicies", "networking.k8s.io"),
    ("extensions", "ingresses", "networking.k8s.io"),
];
/// Verbs a type must have: what cannot be listed cannot be backed up, what cannot be created cannot be restored, and
/// what cannot be got and deleted is a report, not an object (Velero's rule).
const VERBS: [&str; 4] = ["get", "list", "create", "delete"];

/// A resource type, in the version the server prefers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ResourceType {
    /// API group; empty for the core group.
    pub group: String,
    /// Version within the group.
    pub version: String,
    /// Plural name, as in paths.
    pub resource: String,
    /// Singular name.
    pub singular: String,
    /// Kind.
    pub kind: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Short names.
    pub short_names: Vec<String>,
    /// Verbs.
    pub verbs: Vec<String>,
}

impl ResourceType {
    /// The type of namespaces, which every cluster has.
    pub fn namespaces() -> ResourceType {
        ResourceType::of_core("namespaces", "Namespace", false)
    }

    /// The type of pods, which every cluster has.
    pub fn pods() -> ResourceType {
        ResourceType::of_core("pods", "Pod", true)
    }

    /// The type of persistent volumes, which every cluster has.
    pub fn persistent_volumes() -> ResourceType {
        ResourceType::of_core("persistentvolumes", "PersistentVolume", false)
    }

    /// The type of claims of persistent volumes, which every cluster has.
    pub fn persistent_volume_claims() -> ResourceType {
        ResourceType::of_core("persistentvolumeclaims", "PersistentVolumeClaim", true)
    }

    fn of_core(resource: &str, kind: &str, namespaced: bool) -> ResourceType {
        ResourceType::known("", "v1", resource, kind, namespaced)
    }

    /// A type that is known without asking what the cluster serves, by plural name and kind. It need not be served.
    pub fn known(
        group: &str,
        version: &str,
        resource: &str,
        kind: &str,
        namespaced: bool,
    ) -> ResourceType {
        ResourceType {
            group: group.into(),
            version: version.into(),
            resource: resource.into(),
            singular: kind.to_lowercase(),
            kind: kind.into(),
            namespaced,
            short_names: Vec::new(),
            verbs: Vec::new(),
        }
    }

    /// `v1`, `apps/v1`
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// Path of the collection, in one namespace or over all.
    pub fn path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() {
            "/api"
        } else {
            "/apis"
        };
        match namespace {
            Some(namespace) => format!(
                "{root}/{}/namespaces/{namespace}/{}",
                self.api_version(),
                self.resource
            ),
            None => format!("{root}/{}/{}", self.api_version(), self.resource),
        }
    }

    /// Whether objects of this type can be backed up and restored.
    pub fn is_restorable(&self) -> bool {
        VERBS
            .iter()
            .all(|verb| self.verbs.iter().any(|has| has == verb))
    }
}

impl Named for ResourceType {
    fn group_resource(&self) -> String {
        if self.group.is_empty() {
            self.resource.clone()
        } else {
            format!("{}.{}", self.resource, self.group)
        }
    }

    fn is_called(&self, name: &str) -> bool {
        self.resource == name
            || self.singular == name
            || self.kind.eq_ignore_ascii_case(name)
            || self.short_names.iter().any(|short| short == name)
    }
}

/// What the API server serves.
#[derive(Debug, Default)]
pub struct Discovery {
    /// Every type in its preferred version, in the server's order, the core group first.
    pub types: Vec<ResourceType>,
    /// Versions that could not be asked, with the reason: objects of theirs are not seen.
    pub missing: Vec<MissingGroup>,
    /// Groups that hold nothing to back up and could not be asked.
    pub ignored: Vec<String>,
    /// Every version served, as `group/version` or `version`, with its resources (plural names).
    served: BTreeMap<String, Vec<ResourceType>>,
}

/// A group version that could not be asked what it serves.
#[derive(Debug)]
pub struct MissingGroup {
    /// `group/version`
    pub group_version: String,
    /// Why.
    pub error: ClusterError,
}

impl Discovery {
    /// The types that can be backed up, in the server's order; of types that show the same objects, one.
    pub fn restorable(&self) -> impl Iterator<Item = &ResourceType> {
        self.types
            .iter()
            .filter(|candidate| candidate.is_restorable() && !self.has_twin(candidate))
    }

    /// Whether the objects of `candidate` are those of another type that can be backed up.
    fn has_twin(&self, candidate: &ResourceType) -> bool {
        COHABITING.iter().any(|&(group, resource, home)| {
            candidate.group == group
                && candidate.resource == resource
                && self.types.iter().any(|other| {
                    other.group == home && other.resource == resource && other.is_restorable()
                })
        })
    }

    /// The type `resource[.group]` as `api_version`, when that version is served.
    pub fn find(&self, group_resource: &str, api_version: &str) -> Option<&ResourceType> {
        self.served
            .get(api_version)?
            .iter()
            .find(|candidate| candidate.group_resource() == group_resource)
    }

    /// The versions that each type, as `resource[.group]`, is served in; the preferred one first.
    pub fn versions(&self) -> BTreeMap<String, Vec<String>> {
        let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for served in self.types.iter().chain(self.served.values().flatten()) {
            let of_type = versions.entry(served.group_resource()).or_default();
            if !of_type.contains(&served.version) {
                of_type.push(served.version.clone());
            }
        }
        versions
    }

    /// The type `resource[.group]` in the preferred version.
    pub fn preferred(&self, group_resource: &str) -> Option<&ResourceType> {
        self.types
            .iter()
            .find(|candidate| candidate.group_resource() == group_resource)
    }
}

#[derive(Deserialize)]
struct GroupList {
    #[serde(default)]
    items: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    metadata: GroupMetadata,
    #[serde(default)]
    versions: Vec<Version>,
}

#[derive(Default, Deserialize)]
struct GroupMetadata {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Version {
    version: String,
    #[serde(default)]
    resources: Vec<Resource>,
    #[serde(default)]
    freshness: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    resource: String,
    #[serde(default)]
    response_kind: Option<ResponseKind>,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    singular_resource: String,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    short_names: Vec<String>,
}

#[derive(Deserialize)]
struct ResponseKind {
    #[serde(default)]
    kind: String,
}

/// The older form, `/apis/<group>/<version>`.
#[derive(Deserialize)]
struct ResourceList {
    #[serde(default)]
    resources: Vec<PlainResource>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PlainResource {
    name: String,
    #[serde(default)]
    singular_name: String,
    #[serde(default)]
    namespaced: bool,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    short_names: Vec<String>,
}

/// Asks the API server what it serves.
///
/// # Errors
/// When discovery itself fails; a group that fails is noted in [`Discovery::missing`].
pub async fn discover(cluster: &Cluster) -> Result<Discovery, ClusterError> {
    let mut discovery = Discovery::default();
    for root in ["/api", "/apis"] {
        let groups: GroupList = cluster
            .json(&get(root, ACCEPT), "discovering resource types")
            .await?;
        for group in groups.items {
            add_group(cluster, &mut discovery, group).await;
        }
    }
    Ok(discovery)
}

async fn add_group(cluster: &Cluster, discovery: &mut Discovery, group: Group) {
    let name = group.metadata.name;
    // Versions come in order of preference: the first that has a resource is the one preferred for it.
    for version in group.versions {
        let group_version = if name.is_empty() {
            version.version.clone()
        } else {
            format!("{name}/{}", version.version)
        };
        let stale = version.freshness == "Stale";
        let types = if stale {
            match ask_directly(cluster, &name, &version.version).await {
                Ok(types) => types,
                Err(_) if COMPUTED.contains(&name.as_str()) => {
                    discovery.ignored.push(group_version);
                    continue;
                }
                Err(error) => {
                    discovery.missing.push(MissingGroup {
                        group_version,
                        error,
                    });
                    continue;
                }
            }
        } else {
            version
                .resources
                .into_iter()
                .map(|resource| from_aggregated(&name, &version.version, resource))
                .collect()
        };
        for found in &types {
            if !discovery
                .types
                .iter()
                .any(|known| known.group == found.group && known.resource == found.resource)
            {
                discovery.types.push(found.clone());
            }
        }
        discovery.served.insert(group_version, types);
    }
}

fn from_aggregated(group: &str, version: &str, resource: Resource) -> ResourceType {
    ResourceType {
        group: group.to_owned(),
        version: version.to_owned(),
        resource: resource.resource,
        singular: resource.singular_resource,
        kind: resource
            .response_kind
            .map(|kind| kind.kind)
            .unwrap_or_default(),
        namespaced: resource.scope == "Namespaced",
        short_names: resource.short_names,
        verbs: resource.verbs,
    }
}

async fn ask_directly(
    cluster: &Cluster,
    group: &str,
    version: &str,
) -> Result<Vec<ResourceType>, ClusterError> {
    let path = if group.is_empty() {
        format!("/api/{version}")
    } else {
        format!("/apis/{group}/{version}")
    };
    // Asked once: the aggregator answers 503 for as long as the server behind it is down.
    let request = get(&path, "application/json");
    let doing = format!("discovering the resource types of {group}/{version}");
    let answer = cluster.send(request, &doing).await?;
    let body =
        super::collect(answer.into_body())
            .await
            .map_err(|source| ClusterError::Unreachable {
                doing: doing.clone(),
                source,
            })?;
    let list: ResourceList =
        serde_json::from_slice(&body).map_err(|source| ClusterError::Malformed {
            doing,
            source: source.into(),
        })?;
    let whole = list
        .resources
        .into_iter()
        .filter(|resource| !resource.name.contains('/'));
    Ok(whole
        .map(|resource| ResourceType {
            group: group.to_owned(),
            version: version.to_owned(),
            resource: resource.name,
            singular: resource.singular_name,
            kind: resource.kind,
            namespaced: resource.namespaced,
            short_names: resource.short_names,
            verbs: resource.verbs,
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource_type(group: &str, resource: &str, verbs: &[&str]) -> ResourceType {
        ResourceType {
            group: group.into(),
            version: "v1".into(),
            resource: resource.into(),
            singular: String::new(),
            kind: String::new(),
            namespaced: true,
            short_names: Vec::new(),
            verbs: verbs.iter().map(|&verb| verb.to_owned()).collect(),
        }
    }

    #[test]
    fn paths_are_those_of_the_api() {
        assert_eq!(
            resource_type("", "pods", &[]).path(Some("a")),
            "/api/v1/namespaces/a/pods"
        );
        assert_eq!(
            resource_type("apps", "deployments", &[]).path(None),
            "/apis/apps/v1/deployments"
        );
        assert_eq!(
            resource_type("apps", "deployments", &[]).group_resource(),
            "deployments.apps"
        );
    }

    #[test]
    fn cohabiting_types_are_stored_once() {
        let discovery = |types: &[(&str, &str)]| Discovery {
            types: types
                .iter()
                .map(|&(group, resource)| resource_type(group, resource, &VERBS))
                .collect(),
            ..Discovery::default()
        };
        let stored = |types: &[(&str, &str)]| -> Vec<String> {
            discovery(types)
                .restorable()
                .map(Named::group_resource)
                .collect()
        };
        assert_eq!(
            stored(&[("extensions", "deployments"), ("apps", "deployments")]),
            ["deployments.apps"]
        );
        assert_eq!(
            stored(&[("extensions", "deployments")]),
            ["deployments.extensions"]
        );
        assert_eq!(
            stored(&[
                ("apps", "deployments"),
                ("velero.io", "deployments"),
                ("extensions", "deployments"),
                ("", "events"),
                ("events.k8s.io", "events")
            ]),
            ["deployments.apps", "deployments.velero.io", "events"]
        );
    }

    #[test]
    fn types_without_the_four_verbs_are_left_out() {
        assert!(
            resource_type("", "pods", &["create", "delete", "get", "list", "watch"])
                .is_restorable()
        );
        assert!(
            !resource_type("authentication.k8s.io", "tokenreviews", &["create"]).is_restorable()
        );
    }
}
