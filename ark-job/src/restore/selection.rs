//! Which objects of a backup are wanted: by namespace, type and label, and what the wanted ones need. Pure.

use super::order::{
    BINDINGS, CLAIMS, DEFINITIONS, NAMESPACES, PRIORITIES, ROLES, VOLUMES, is_never_restored,
};
use crate::archive::footer::{Footer, TypeEntry};
use crate::archive::read::Entry;
use crate::args::{SelectFlags, StorageFlags};
use crate::cluster::discover::ResourceType;
use crate::error::Failure;
use crate::exit::Exit;
use crate::filter::{Filter, Named, resolve_resources};
use crate::selector::{AnyOf, parse, parse_choice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// What was asked for, checked as far as it can be without knowing any types.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Of these namespaces, as they are called in the backup.
    pub namespaces: Filter,
    /// The one selector, if there is one.
    pub label_selector: Option<LabelSelector>,
    /// Several, of which one must match.
    pub or_label_selectors: Vec<LabelSelector>,
    selector: AnyOf,
    included_resources: Vec<String>,
    excluded_resources: Vec<String>,
    cluster_resources: Option<bool>,
}

impl Asked {
    /// Checks what was typed.
    ///
    /// # Errors
    /// [`Exit::Usage`], with the flag and what is wrong with it.
    pub fn resolve(flags: &SelectFlags) -> Result<Asked, Failure> {
        let SelectFlags {
            include_namespaces,
            exclude_namespaces,
            include_resources,
            exclude_resources,
            selector,
            or_selector,
            include_cluster_resources,
        } = flags;
        let usage = |flag: &str| {
            let flag = flag.to_owned();
            move |why: String| Failure::new(Exit::Usage, format!("{flag}: {why}"))
        };
        let namespaces = Filter::namespaces(include_namespaces, exclude_namespaces)
            .map_err(usage("--include-namespaces, --exclude-namespaces"))?;
        Filter::resources(include_resources, exclude_resources)
            .map_err(usage("--include-resources, --exclude-resources"))?;
        let label_selector = selector
            .as_deref()
            .map(parse)
            .transpose()
            .map_err(usage("--selector"))?;
        let choices: Vec<Vec<LabelSelector>> = or_selector
            .iter()
            .map(|text| parse_choice(text))
            .collect::<Result<_, _>>()
            .map_err(usage("--or-selector"))?;
        let or_label_selectors: Vec<LabelSelector> = choices.into_iter().flatten().collect();
        let selector = AnyOf::new(label_selector.iter().chain(&or_label_selectors))
            .map_err(usage("--selector, --or-selector"))?;
        Ok(Asked {
            namespaces,
            label_selector,
            or_label_selectors,
            selector,
            included_resources: include_resources.clone(),
            excluded_resources: exclude_resources.clone(),
            cluster_resources: *include_cluster_resources,
        })
    }

    /// What is wanted of the types that the backup has and the cluster serves; `storage` is where the backup is, for a hint.
    ///
    /// # Errors
    /// [`Exit::Usage`], when a type that was named is not known, or never restored.
    pub fn select(
        &self,
        served: &[ResourceType],
        footer: &Footer,
        mapping: &BTreeMap<String, String>,
        storage: &StorageFlags,
    ) -> Result<Selection, Failure> {
        let included: Vec<String> = match &self.included_resources[..] {
            [all] if all == "*" => Vec::new(),
            named => named.to_vec(),
        };
        let resources =
            resources(&included, &self.excluded_resources, served, footer).map_err(|why| {
                Failure::new(
                    Exit::Usage,
                    format!("--include-resources, --exclude-resources: {why}"),
                )
                .hint(storage.lists(&footer.head.backup))
            })?;
        Ok(Selection {
            namespaces: self.namespaces.clone(),
            resources,
            selector: self.selector.clone(),
            cluster_resources: self.cluster_resources,
            mapping: mapping.clone(),
        })
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
    pub selector: AnyOf,
    /// Cluster-scoped objects: all, none, or (absent, with selected namespaces) those that the rest needs.
    pub cluster_resources: Option<bool>,
    /// Source namespace → target namespace.
    pub mapping: BTreeMap<String, String>,
}

impl Selection {
    /// Whether objects of a type may be restored.
    pub(super) fn may_include(&self, entry: &TypeEntry) -> bool {
        !is_never_restored(&entry.resource)
            && self.resources.includes(&entry.resource)
            && (entry.namespaced || self.cluster_resources != Some(false))
    }

    /// Whether cluster-scoped objects are restored without something needing them.
    pub(super) fn whole_cluster(&self) -> bool {
        self.cluster_resources
            .unwrap_or(self.namespaces.is_everything())
    }

    /// Target namespaces that several source namespaces may be restored to.
    pub(super) fn contested(&self) -> BTreeSet<String> {
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

/// The sources of a namespace mapping that no object of the backup is in: most likely a name with a mistake in it, so it is
/// worth a warning. `namespaces` are all of the backup, whatever is selected.
pub fn idle_mappings<'a>(
    mapping: &'a BTreeMap<String, String>,
    namespaces: &BTreeSet<String>,
) -> Vec<&'a str> {
    let sources = mapping.keys().map(String::as_str);
    sources
        .filter(|source| !namespaces.contains(*source))
        .collect()
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
    let included = resolve(include, served, footer)?;
    if let Some(never) = included
        .iter()
        .zip(include)
        .find(|(resource, asked)| is_never_restored(resource) && !asked.contains('*'))
    {
        return Err(format!("{} are never restored", never.0));
    }
    Filter::resources(&included, &resolve(exclude, served, footer)?)
}

/// What the user called types, as `resource.group`, by the cluster's names and the backup's.
///
/// # Errors
/// A sentence about a name that no type has.
pub(super) fn resolve(
    names: &[String],
    served: &[ResourceType],
    footer: &Footer,
) -> Result<Vec<String>, String> {
    let mut known: Vec<Known<'_>> = served.iter().map(Known::Served).collect();
    let there: BTreeSet<String> = known.iter().map(Named::group_resource).collect();
    let backed_up = footer.head.types.iter();
    known.extend(
        backed_up
            .filter(|entry| !there.contains(&entry.resource))
            .map(Known::BackedUp),
    );
    resolve_resources(names, &known)
}

/// What the objects that were selected need of the cluster-scoped types.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// Namespace and name of the claims that pods mount: they come along whatever labels they have.
    pub(super) claims: BTreeSet<(String, String)>,
    pub(super) volumes: BTreeSet<String>,
    pub(super) service_accounts: BTreeSet<(String, String)>,
    pub(super) roles: BTreeSet<String>,
    pub(super) definitions: BTreeSet<String>,
    pub(super) priorities: BTreeSet<String>,
}

/// The little of an object that choosing depends on.
#[derive(Deserialize)]
pub(super) struct Peek<'a> {
    #[serde(borrow, default)]
    pub(super) spec: PeekSpec<'a>,
    #[serde(borrow, default)]
    pub(super) status: Option<PeekStatus<'a>>,
    #[serde(borrow, default)]
    pub(super) subjects: Option<Vec<Subject<'a>>>,
    #[serde(borrow, default, rename = "roleRef")]
    pub(super) role: Option<Role<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct PeekStatus<'a> {
    #[serde(borrow)]
    pub(super) phase: Option<Cow<'a, str>>,
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
pub(super) struct PeekSpec<'a> {
    #[serde(borrow)]
    pub(super) volume_name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) priority_class_name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) volumes: Option<Vec<PeekVolume<'a>>>,
    #[serde(borrow)]
    pub(super) persistent_volume_reclaim_policy: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) claim_ref: Option<PeekReference<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct PeekReference<'a> {
    #[serde(borrow)]
    pub(super) namespace: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) name: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PeekVolume<'a> {
    #[serde(borrow)]
    pub(super) persistent_volume_claim: Option<PeekClaim<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PeekClaim<'a> {
    #[serde(borrow)]
    pub(super) claim_name: Cow<'a, str>,
}

#[derive(Deserialize)]
pub(super) struct Subject<'a> {
    #[serde(borrow, default)]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) name: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) namespace: Cow<'a, str>,
}

#[derive(Deserialize)]
pub(super) struct Role<'a> {
    #[serde(borrow, default)]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) name: Cow<'a, str>,
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
pub(super) struct Chooser {
    pub(super) selection: Selection,
    pub(super) needs: Needs,
    /// Source namespaces with objects that are restored.
    pub(super) sources: BTreeSet<String>,
}

impl Chooser {
    pub(super) fn choose(&self, entry: &TypeEntry, object: &Entry<'_>) -> Choice {
        let selection = &self.selection;
        if entry.resource == NAMESPACES {
            return self.choose_namespace(entry, object);
        }
        if !selection.may_include(entry) {
            return Choice::Leave;
        }
        let wanted = match object.namespace {
            Some(namespace) => {
                selection.namespaces.includes(namespace)
                    && (self.labels_match(object) || self.mounted(entry, object, namespace))
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

    fn mounted(&self, entry: &TypeEntry, object: &Entry<'_>, namespace: &str) -> bool {
        let claim = || (namespace.to_owned(), object.name.to_owned());
        entry.resource == CLAIMS && self.needs.claims.contains(&claim())
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
