//! What is restored, and in which order: decided from the archive alone, before anything is written.
//!
//! A [`Survey`] looks at every object once and becomes a [`Plan`]. The plan holds no objects: what it chose it chooses
//! again, by the same function, when the archive is read a second time to be applied.

use super::prepare::{Prepared, Rules, prepare};
use crate::api::GROUP;
use crate::archive::footer::{Footer, Member, TypeEntry};
use crate::archive::read::{Entry, OpenMember};
use crate::cluster::discover::ResourceType;
use crate::filter::{Filter, Named, resolve_resources};
use kube::core::{Selector, SelectorExt};
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

/// CustomResourceDefinitions.
pub const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";
/// Namespaces.
pub const NAMESPACES: &str = "namespaces";
const CLASSES: &str = "storageclasses.storage.k8s.io";
const VOLUMES: &str = "persistentvolumes";
const CLAIMS: &str = "persistentvolumeclaims";
const SERVICE_ACCOUNTS: &str = "serviceaccounts";
const PODS: &str = "pods";
const PRIORITIES: &str = "priorityclasses.scheduling.k8s.io";
const BINDINGS: &str = "clusterrolebindings.rbac.authorization.k8s.io";
const ROLES: &str = "clusterroles.rbac.authorization.k8s.io";

/// Types restored before all others, in this order: each before those that refer to it or wait for it. Pods before
/// replica sets and these before deployments, so that controllers adopt what comes back and make nothing new; endpoints
/// before services for the same reason.
const FIRST: [&str; 25] = [
    DEFINITIONS,
    NAMESPACES,
    CLASSES,
    "csidrivers.storage.k8s.io",
    "volumesnapshotclasses.snapshot.storage.k8s.io",
    "volumesnapshotcontents.snapshot.storage.k8s.io",
    "volumesnapshots.snapshot.storage.k8s.io",
    VOLUMES,
    CLAIMS,
    ROLES,
    "roles.rbac.authorization.k8s.io",
    SERVICE_ACCOUNTS,
    BINDINGS,
    "rolebindings.rbac.authorization.k8s.io",
    "secrets",
    "configmaps",
    "limitranges",
    PRIORITIES,
    "runtimeclasses.node.k8s.io",
    PODS,
    "replicasets.apps",
    "clusterclasses.cluster.x-k8s.io",
    "endpoints",
    "services",
    "ingressclasses.networking.k8s.io",
];

/// Types restored after all others, in this order: quotas that would refuse what was there before them, and what is
/// asked about every write, and must find its servers running.
const LAST: [&str; 13] = [
    "clusterbootstraps.run.tanzu.vmware.com",
    "clusters.cluster.x-k8s.io",
    "clusterresourcesets.addons.cluster.x-k8s.io",
    "apps.kappctrl.k14s.io",
    "packageinstalls.packaging.carvel.dev",
    "resourcequotas",
    "validatingadmissionpolicies.admissionregistration.k8s.io",
    "validatingadmissionpolicybindings.admissionregistration.k8s.io",
    "mutatingadmissionpolicies.admissionregistration.k8s.io",
    "mutatingadmissionpolicybindings.admissionregistration.k8s.io",
    "validatingwebhookconfigurations.admissionregistration.k8s.io",
    "mutatingwebhookconfigurations.admissionregistration.k8s.io",
    "apiservices.apiregistration.k8s.io",
];

/// Types that describe the cluster that was backed up, and mean nothing in another or later one. The IP addresses are
/// those of services, which get new ones.
const NEVER: [&str; 13] = [
    "events",
    "events.events.k8s.io",
    "nodes",
    "componentstatuses",
    "leases.coordination.k8s.io",
    "leasecandidates.coordination.k8s.io",
    "csinodes.storage.k8s.io",
    "csistoragecapacities.storage.k8s.io",
    "volumeattachments.storage.k8s.io",
    "resourceslices.resource.k8s.io",
    "ipaddresses.networking.k8s.io",
    "storageversions.internal.apiserver.k8s.io",
    "storageversionmigrations.storagemigration.k8s.io",
];

/// Collisions named in an error; more would not help.
const COLLISIONS_NAMED: usize = 10;

/// Whether a type is never restored: Ark's and Velero's own records, and what describes the old cluster.
pub fn is_never_restored(resource: &str) -> bool {
    let group = resource.split_once('.').map_or("", |(_, group)| group);
    NEVER.contains(&resource) || [GROUP, "velero.io"].contains(&group)
}

/// Where a type stands in the order: smaller is earlier.
fn rank(resource: &str) -> (usize, usize, &str) {
    if let Some(at) = FIRST.iter().position(|first| *first == resource) {
        (0, at, resource)
    } else if let Some(at) = LAST.iter().position(|last| *last == resource) {
        (2, at, resource)
    } else {
        (1, 0, resource)
    }
}

/// What is wanted out of a backup.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Of these namespaces, as they are called in the backup.
    pub namespaces: Filter,
    /// Of these types, as `resource.group`.
    pub resources: Filter,
    /// With these labels; all when it selects all.
    pub selector: Selector,
    /// Cluster-scoped objects: all, none, or (absent, with selected namespaces) those that the rest needs.
    pub cluster_resources: Option<bool>,
    /// Source namespace → target namespace.
    pub mapping: BTreeMap<String, String>,
}

impl Selection {
    /// Whether objects of a type may be restored.
    fn may_include(&self, entry: &TypeEntry) -> bool {
        !is_never_restored(&entry.resource)
            && self.resources.includes(&entry.resource)
            && (entry.namespaced || self.cluster_resources != Some(false))
    }

    /// Whether cluster-scoped objects are restored without something needing them.
    fn whole_cluster(&self) -> bool {
        self.cluster_resources
            .unwrap_or(self.namespaces.is_everything())
    }

    /// Target namespaces that several source namespaces may be restored to.
    fn contested(&self) -> BTreeSet<String> {
        let mut sources: BTreeMap<&str, usize> = BTreeMap::new();
        for (source, target) in &self.mapping {
            if self.namespaces.includes(source) {
                *sources.entry(target).or_default() += 1;
            }
        }
        let own = |target: &str| {
            usize::from(!self.mapping.contains_key(target) && self.namespaces.includes(target))
        };
        sources
            .into_iter()
            .filter(|&(target, count)| count + own(target) > 1)
            .map(|(target, _)| target.to_owned())
            .collect()
    }
}

/// A type by all its names: those that the target cluster knows, or those of the backup.
enum Known<'a> {
    Served(&'a ResourceType),
    BackedUp(&'a TypeEntry),
}

impl Named for Known<'_> {
    fn group_resource(&self) -> String {
        match self {
            Known::Served(served) => served.group_resource(),
            Known::BackedUp(entry) => entry.group_resource(),
        }
    }

    fn is_called(&self, name: &str) -> bool {
        match self {
            Known::Served(served) => served.is_called(name),
            Known::BackedUp(entry) => entry.is_called(name),
        }
    }
}

/// Makes a filter of resource types out of what the user called them, by the cluster's names and the backup's.
///
/// # Errors
/// A sentence about a name that no type has, or about types that are never restored.
pub fn resources(
    include: &[String],
    exclude: &[String],
    served: &[ResourceType],
    footer: &Footer,
) -> Result<Filter, String> {
    let mut known: Vec<Known<'_>> = served.iter().map(Known::Served).collect();
    let names: BTreeSet<String> = known.iter().map(Named::group_resource).collect();
    known.extend(
        footer
            .head
            .types
            .iter()
            .filter(|entry| !names.contains(&entry.resource))
            .map(Known::BackedUp),
    );
    let included = resolve_resources(include, &known)?;
    if let Some(never) = included
        .iter()
        .zip(include)
        .find(|(resource, asked)| is_never_restored(resource) && !asked.contains('*'))
    {
        return Err(format!("{} are never restored", never.0));
    }
    Filter::resources(&included, &resolve_resources(exclude, &known)?)
}

/// What the objects that were selected need of the cluster-scoped types.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Needs {
    volumes: BTreeSet<String>,
    service_accounts: BTreeSet<(String, String)>,
    roles: BTreeSet<String>,
    definitions: BTreeSet<String>,
    priorities: BTreeSet<String>,
}

/// The little of an object that choosing depends on.
#[derive(Deserialize)]
struct Peek<'a> {
    #[serde(borrow, default)]
    spec: PeekSpec<'a>,
    #[serde(borrow, default)]
    subjects: Option<Vec<Subject<'a>>>,
    #[serde(borrow, default, rename = "roleRef")]
    role: Option<Role<'a>>,
}

/// The labels of an object, whatever else is in it.
#[derive(Deserialize)]
struct Labelled {
    metadata: Labels,
}

#[derive(Deserialize)]
struct Labels {
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PeekSpec<'a> {
    #[serde(borrow)]
    volume_name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    priority_class_name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    persistent_volume_reclaim_policy: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Subject<'a> {
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    namespace: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Role<'a> {
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
}

/// What a plan says about an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// It is restored.
    Restore,
    /// A namespace that was not asked for, but must be there for what was.
    Provide,
    /// It is not wanted.
    Leave,
}

/// Which objects are wanted.
#[derive(Clone, Debug)]
struct Chooser {
    selection: Selection,
    needs: Needs,
    /// Source namespaces with objects that are restored.
    sources: BTreeSet<String>,
}

impl Chooser {
    fn choose(&self, entry: &TypeEntry, object: &Entry<'_>) -> Choice {
        let selection = &self.selection;
        if entry.resource == NAMESPACES {
            return self.choose_namespace(entry, object);
        }
        if !selection.may_include(entry) {
            return Choice::Leave;
        }
        let wanted = match object.namespace {
            Some(namespace) => {
                selection.namespaces.includes(namespace) && self.labels_match(object)
            }
            None => {
                selection.whole_cluster() && self.labels_match(object) || self.needed(entry, object)
            }
        };
        if wanted {
            Choice::Restore
        } else {
            Choice::Leave
        }
    }

    fn choose_namespace(&self, entry: &TypeEntry, object: &Entry<'_>) -> Choice {
        let selection = &self.selection;
        let asked_for = selection.may_include(entry)
            && selection.namespaces.includes(object.name)
            && self.labels_match(object);
        if asked_for {
            Choice::Restore
        } else if self.sources.contains(object.name) {
            Choice::Provide
        } else {
            Choice::Leave
        }
    }

    fn labels_match(&self, object: &Entry<'_>) -> bool {
        if self.selection.selector.selects_all() {
            return true;
        }
        // What cannot be read is restored, and that says what is wrong with it.
        let Ok(labelled) = serde_json::from_slice::<Labelled>(object.body) else {
            return true;
        };
        let labels = labelled.metadata.labels.unwrap_or_default();
        self.selection.selector.matches(&labels)
    }

    fn needed(&self, entry: &TypeEntry, object: &Entry<'_>) -> bool {
        let needs = &self.needs;
        match entry.resource.as_str() {
            VOLUMES => needs.volumes.contains(object.name),
            ROLES => needs.roles.contains(object.name),
            DEFINITIONS => needs.definitions.contains(object.name),
            PRIORITIES => needs.priorities.contains(object.name),
            BINDINGS => {
                serde_json::from_slice::<Peek<'_>>(object.body).is_ok_and(|peek| self.binds(&peek))
            }
            _ => false,
        }
    }

    /// Whether a binding gives rights to a service account that is restored.
    fn binds(&self, peek: &Peek<'_>) -> bool {
        peek.subjects.iter().flatten().any(|subject| {
            subject.kind == "ServiceAccount"
                && self.needs.service_accounts.contains(&(
                    subject.namespace.clone().into_owned(),
                    subject.name.clone().into_owned(),
                ))
        })
    }
}

/// Two objects that would become one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collision {
    /// The type.
    pub resource: String,
    /// The namespaces in the backup.
    pub sources: [String; 2],
    /// The namespace both are restored to.
    pub target: String,
    /// The name of both.
    pub name: String,
}

/// Why there is no plan.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Namespaces are mapped onto each other, and their objects differ.
    #[error("{}", collisions(.0, *.1))]
    Collisions(Vec<Collision>, u64),
}

fn collisions(named: &[Collision], count: u64) -> String {
    let list: Vec<String> = named
        .iter()
        .map(|collision| {
            let [a, b] = &collision.sources;
            format!(
                "{} {} of namespaces {a} and {b} (in {})",
                collision.resource, collision.name, collision.target
            )
        })
        .collect();
    let more = count.saturating_sub(named.len() as u64);
    let more = if more > 0 {
        format!(", and {more} more")
    } else {
        String::new()
    };
    format!(
        "different objects would get the same namespace and name: {}{more}",
        list.join(", ")
    )
}

/// Looks at every object of an archive that may be wanted, without keeping any.
#[derive(Debug)]
pub struct Survey {
    chooser: Chooser,
    rules: Rules,
    counts: BTreeMap<String, u64>,
    contested: BTreeSet<String>,
    /// Of the type under survey: what the objects of contested namespaces are, by target and name.
    seen: HashMap<u64, (u64, String)>,
    under_survey: String,
    collisions: Vec<Collision>,
    collision_count: u64,
}

impl Survey {
    /// Starts a survey.
    pub fn new(selection: Selection) -> Survey {
        Survey {
            contested: selection.contested(),
            rules: Rules {
                namespaces: selection.mapping.clone(),
                reprovisioned: BTreeSet::new(),
            },
            chooser: Chooser {
                selection,
                needs: Needs::default(),
                sources: BTreeSet::new(),
            },
            counts: BTreeMap::new(),
            seen: HashMap::new(),
            under_survey: String::new(),
            collisions: Vec::new(),
            collision_count: 0,
        }
    }

    /// The types in the order in which they must be looked at, each with the members that may hold what is wanted.
    ///
    /// What namespaced objects need must be known before the cluster-scoped types; bindings name the roles.
    pub fn passes(&self, footer: &Footer) -> Vec<(TypeEntry, Vec<usize>)> {
        let selection = &self.chooser.selection;
        let mut types: Vec<&TypeEntry> = footer
            .head
            .types
            .iter()
            .filter(|entry| {
                selection.may_include(entry)
                    || entry.resource == NAMESPACES
                    || entry.resource == VOLUMES
            })
            .collect();
        types.sort_by_key(|entry| {
            let pass = match entry.resource.as_str() {
                _ if entry.namespaced => 0,
                ROLES | DEFINITIONS | NAMESPACES => 2,
                _ => 1,
            };
            (pass, rank(&entry.resource))
        });
        types
            .into_iter()
            .map(|entry| (entry.clone(), members(footer, entry, selection)))
            .collect()
    }

    /// Looks at the objects of one member.
    pub fn look(&mut self, entry: &TypeEntry, member: &OpenMember) {
        if self.under_survey != entry.resource {
            self.under_survey.clone_from(&entry.resource);
            self.seen.clear();
        }
        for object in member.entries() {
            if entry.resource == VOLUMES {
                self.look_at_volume(&object);
            }
            match self.chooser.choose(entry, &object) {
                Choice::Leave => {}
                Choice::Provide => self.count(entry),
                Choice::Restore => {
                    self.count(entry);
                    self.note_needs(entry, &object);
                    self.find_collision(entry, &object);
                }
            }
        }
    }

    fn count(&mut self, entry: &TypeEntry) {
        match self.counts.get_mut(&entry.resource) {
            Some(count) => *count += 1,
            None => {
                self.counts.insert(entry.resource.clone(), 1);
            }
        }
    }

    /// A volume that its claim takes with it is not there any more when the claim is restored.
    fn look_at_volume(&mut self, object: &Entry<'_>) {
        let policy = serde_json::from_slice::<Peek<'_>>(object.body)
            .ok()
            .and_then(|peek| peek.spec.persistent_volume_reclaim_policy);
        if policy.as_deref() == Some("Delete") {
            self.rules.reprovisioned.insert(object.name.to_owned());
        }
    }

    fn note_needs(&mut self, entry: &TypeEntry, object: &Entry<'_>) {
        let Chooser {
            selection,
            needs,
            sources,
        } = &mut self.chooser;
        if let Some(namespace) = object.namespace
            && !sources.contains(namespace)
        {
            sources.insert(namespace.to_owned());
        }
        if selection.whole_cluster() && selection.selector.selects_all() {
            return;
        }
        let peek = || serde_json::from_slice::<Peek<'_>>(object.body).ok();
        match entry.resource.as_str() {
            CLAIMS => needs.volumes.extend(
                peek()
                    .and_then(|peek| peek.spec.volume_name)
                    .map(Cow::into_owned),
            ),
            PODS => needs.priorities.extend(
                peek()
                    .and_then(|peek| peek.spec.priority_class_name)
                    .map(Cow::into_owned),
            ),
            SERVICE_ACCOUNTS => {
                let namespace = object.namespace.unwrap_or_default().to_owned();
                needs
                    .service_accounts
                    .insert((namespace, object.name.to_owned()));
            }
            BINDINGS => needs.roles.extend(
                peek()
                    .and_then(|peek| peek.role)
                    .filter(|role| role.kind == "ClusterRole")
                    .map(|role| role.name.into_owned()),
            ),
            resource if resource.contains('.') && !needs.definitions.contains(resource) => {
                needs.definitions.insert(resource.to_owned());
            }
            _ => {}
        }
    }

    fn find_collision(&mut self, entry: &TypeEntry, object: &Entry<'_>) {
        let Some(source) = object.namespace else {
            return;
        };
        let target = self.rules.target(source);
        // Every namespace has this one by itself; the first is restored.
        let by_itself = entry.resource == SERVICE_ACCOUNTS && object.name == "default";
        if !self.contested.contains(target) || by_itself {
            return;
        }
        let content = match prepare(&entry.resource, object.name, object.body, &self.rules) {
            Ok(Prepared::Object(object)) => digest(&object),
            // Not restored, or an error of its own later.
            Ok(Prepared::Skip(_)) | Err(_) => return,
        };
        let mut place = DefaultHasher::new();
        (target, object.name).hash(&mut place);
        let place = place.finish();
        match self.seen.get(&place) {
            None => {
                self.seen.insert(place, (content, source.to_owned()));
            }
            Some((other, _)) if *other == content => {}
            Some((_, other)) => {
                self.collision_count += 1;
                if self.collisions.len() < COLLISIONS_NAMED {
                    self.collisions.push(Collision {
                        resource: entry.resource.clone(),
                        sources: [other.clone(), source.to_owned()],
                        target: target.to_owned(),
                        name: object.name.to_owned(),
                    });
                }
            }
        }
    }

    /// Makes the plan.
    ///
    /// # Errors
    /// [`PlanError`], when what is asked for cannot be done.
    pub fn plan(self, footer: &Footer) -> Result<Plan, PlanError> {
        if self.collision_count > 0 {
            return Err(PlanError::Collisions(self.collisions, self.collision_count));
        }
        let selection = &self.chooser.selection;
        let mut steps: Vec<Step> = footer
            .head
            .types
            .iter()
            .filter_map(|entry| {
                let objects = *self.counts.get(&entry.resource)?;
                Some(Step {
                    members: members(footer, entry, selection),
                    entry: entry.clone(),
                    objects,
                })
            })
            .collect();
        steps.sort_by(|a, b| rank(&a.entry.resource).cmp(&rank(&b.entry.resource)));
        Ok(Plan {
            steps,
            rules: self.rules,
            chooser: self.chooser,
        })
    }
}

/// A hash of a JSON value that does not depend on the order of keys.
fn digest(value: &Value) -> u64 {
    fn feed(value: &Value, hasher: &mut DefaultHasher) {
        match value {
            Value::Object(map) => {
                let mut keys: Vec<&String> = map.keys().collect();
                keys.sort();
                keys.len().hash(hasher);
                for key in keys {
                    key.hash(hasher);
                    feed(&map[key], hasher);
                }
            }
            Value::Array(list) => {
                list.len().hash(hasher);
                list.iter().for_each(|value| feed(value, hasher));
            }
            plain => plain.to_string().hash(hasher),
        }
    }
    let mut hasher = DefaultHasher::new();
    feed(value, &mut hasher);
    hasher.finish()
}

/// The members that may hold objects of `entry` in the selected namespaces.
fn members(footer: &Footer, entry: &TypeEntry, selection: &Selection) -> Vec<usize> {
    let named = selection
        .namespaces
        .plain_names()
        .filter(|_| entry.namespaced);
    footer
        .members
        .iter()
        .enumerate()
        .filter(|(_, member)| member.resource == entry.resource)
        .filter(|(_, member)| {
            named.as_ref().is_none_or(|names| {
                names
                    .iter()
                    .any(|name| may_hold(member, name, entry.unsorted))
            })
        })
        .map(|(index, _)| index)
        .collect()
}

/// Whether a member may hold objects of a namespace, by its first and last key.
fn may_hold(member: &Member, namespace: &str, unsorted: bool) -> bool {
    if let Some(part) = &member.part {
        return part == namespace;
    }
    // `0` follows `/`: all keys of the namespace are between.
    let (from, to) = (format!("{namespace}/"), format!("{namespace}0"));
    unsorted || member.last.as_str() >= from.as_str() && member.first.as_str() < to.as_str()
}

/// What is restored, and in which order.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The types in order; one ends before the next begins.
    pub steps: Vec<Step>,
    /// How objects are prepared.
    pub rules: Rules,
    chooser: Chooser,
}

/// All objects of one type.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The type.
    pub entry: TypeEntry,
    /// The members of the archive that hold them, by index.
    pub members: Vec<usize>,
    /// How many there are.
    pub objects: u64,
}

impl Plan {
    /// How many objects are dealt with.
    pub fn objects(&self) -> u64 {
        self.steps.iter().map(|step| step.objects).sum()
    }

    /// Namespaces that must be there, as they are called in the target.
    pub fn targets(&self) -> BTreeSet<String> {
        let sources = self.chooser.sources.iter();
        sources
            .map(|source| self.rules.target(source).to_owned())
            .collect()
    }

    /// What the plan says about an object.
    pub fn choose(&self, entry: &TypeEntry, object: &Entry<'_>) -> Choice {
        self.chooser.choose(entry, object)
    }
}

#[cfg(test)]
mod tests;
