//! What is restored, and in which order: decided from the archive alone, before anything is written.
//!
//! A [`Survey`] looks at every object once and becomes a [`Plan`]. The plan holds no objects: what it chose it chooses
//! again, by the same function, when the archive is read a second time to be applied.

use super::compare::{Digest, comparable, digest};
use super::order::{
    BINDINGS, CLAIMS, CLASSES, DEFINITIONS, NAMESPACES, PODS, ROLES, SERVICE_ACCOUNTS, VOLUMES,
    rank,
};
use super::prepare::{Prepared, Rules, prepare};
use super::selection::{Choice, Chooser, Needs, Peek, Selection, idle_mappings};
use super::volumes::Way;
use crate::archive::footer::{Footer, Member, TypeEntry};
use crate::archive::read::{Entry, OpenMember};
use crate::volumes::ClaimName;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Collisions named in an error; more would not help.
const COLLISIONS_NAMED: usize = 10;

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
    /// Claims are mapped to a class that nobody has.
    #[error(
        "--storage-class-mappings: there is no storage class {0} in the cluster, and none comes back"
    )]
    NoStorageClass(String),
}

impl PlanError {
    /// What to do.
    pub fn hint(&self) -> &'static str {
        match self {
            PlanError::Collisions(..) => {
                "map the namespaces to different ones, or restore them one after the other"
            }
            PlanError::NoStorageClass(_) => {
                "`kubectl get storageclasses` lists those that are there"
            }
        }
    }
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
    classes_missing: BTreeSet<String>,
    /// Those of the backup, if any are mapped or included.
    namespaces: BTreeSet<String>,
    counts: BTreeMap<String, u64>,
    contested: BTreeSet<String>,
    /// Of the type under survey: what the objects of contested namespaces are, by target and name.
    seen: HashMap<u64, (Digest, String)>,
    under_survey: String,
    collisions: Vec<Collision>,
    collision_count: u64,
    /// Volumes that are made from snapshots of disks, with the namespaces of their claims.
    disks: BTreeMap<String, Option<String>>,
}

impl Survey {
    /// Starts a survey.
    ///
    /// The storage classes that are `missing` in the cluster must be found in the backup.
    pub fn new(selection: Selection, rules: Rules, missing: BTreeSet<String>) -> Survey {
        Survey {
            contested: selection.contested(),
            rules,
            classes_missing: missing,
            namespaces: BTreeSet::new(),
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
            disks: BTreeMap::new(),
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
                // Before the claims that they mount.
                PODS => 0,
                _ if entry.namespaced => 1,
                ROLES | DEFINITIONS | NAMESPACES => 3,
                _ => 2,
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
        let named =
            !self.rules.namespaces.is_empty() || self.chooser.selection.namespaces.selects();
        for object in member.entries() {
            let is_namespace = entry.resource == NAMESPACES;
            if let Some(namespace) = object.namespace.or(is_namespace.then_some(object.name))
                && named
                && !self.namespaces.contains(namespace)
            {
                self.namespaces.insert(namespace.to_owned());
            }
            if entry.resource == VOLUMES {
                self.look_at_volume(&object);
            }
            match self.chooser.choose(entry, &object) {
                Choice::Leave => {}
                Choice::Provide => self.count(entry),
                Choice::Restore => {
                    if entry.resource == CLASSES {
                        self.classes_missing.remove(object.name);
                    }
                    self.count(entry);
                    if entry.resource == VOLUMES {
                        self.note_disk(&object);
                    }
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
        let Ok(Peek { spec, status, .. }) = serde_json::from_slice::<Peek<'_>>(object.body) else {
            return;
        };
        let policy = spec.persistent_volume_reclaim_policy.unwrap_or_default();
        // The claim that a Released one names may be another of the same name.
        let phase = status.and_then(|status| status.phase);
        let is_bound = phase.is_none_or(|phase| phase == "Bound");
        let claim = spec.claim_ref.filter(|_| is_bound).and_then(|reference| {
            Some(ClaimName {
                namespace: reference.namespace?.into_owned(),
                name: reference.name?.into_owned(),
            })
        });
        if self.rules.volumes.note(object.name, &policy, claim) == Way::Anew {
            self.rules.reprovisioned.insert(object.name.to_owned());
        }
    }

    /// A volume that is made from a snapshot of a disk, and is asked for.
    fn note_disk(&mut self, object: &Entry<'_>) {
        let rules = &self.rules;
        if rules.without_volumes || !rules.volumes.is_from_disk(object.name) {
            return;
        }
        let claim = serde_json::from_slice::<Peek<'_>>(object.body)
            .ok()
            .and_then(|peek| peek.spec.claim_ref?.namespace);
        self.disks
            .insert(object.name.to_owned(), claim.map(Cow::into_owned));
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
            PODS => {
                let spec = peek().map(|peek| peek.spec).unwrap_or_default();
                needs
                    .priorities
                    .extend(spec.priority_class_name.map(Cow::into_owned));
                let volumes = spec.volumes.into_iter().flatten();
                let claims = volumes.filter_map(|volume| volume.persistent_volume_claim);
                let namespace = object.namespace.unwrap_or_default();
                needs.claims.extend(
                    claims.map(|claim| (namespace.to_owned(), claim.claim_name.into_owned())),
                );
            }
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
            Ok(Prepared::Object { object, source, .. }) => {
                let mut content = comparable(&entry.resource, object);
                // Claims that look the same may have had different data.
                if let Some(source) = source {
                    content["data"] = source.id().into();
                }
                digest(&content)
            }
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
        if let Some(class) = self.classes_missing.into_iter().next() {
            return Err(PlanError::NoStorageClass(class));
        }
        let selection = &self.chooser.selection;
        let mut steps: Vec<Step> = footer
            .head
            .types
            .iter()
            .filter_map(|entry| {
                let objects = *self.counts.get(&entry.resource)?;
                let mut members = members(footer, entry, selection);
                let part = |index: &usize| footer.members[*index].part.as_deref();
                let in_parts = members.iter().any(|index| part(index).is_some());
                // What was read namespace by namespace lies mixed: each namespace's in one go is sorted again.
                members.sort_by_key(part);
                Some(Step {
                    members,
                    entry: entry.clone(),
                    objects,
                    by_namespace: entry.namespaced
                        && (in_parts
                            || !selection.mapping.is_empty()
                            || !selection.namespaces.is_everything()),
                })
            })
            .collect();
        steps.sort_by(|a, b| rank(&a.entry.resource).cmp(&rank(&b.entry.resource)));
        let idle = idle_mappings(&self.rules.namespaces, &self.namespaces);
        let included = self.chooser.selection.namespaces.named();
        let missing = included.filter(|name| !self.namespaces.contains(*name));
        Ok(Plan {
            missing_namespaces: missing.map(str::to_owned).collect(),
            idle_mappings: idle.into_iter().map(str::to_owned).collect(),
            steps,
            disks: self.disks,
            rules: self.rules,
            chooser: self.chooser,
        })
    }
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
    /// Namespaces that are mapped and are not in the backup.
    pub idle_mappings: Vec<String>,
    /// Namespaces that are included by name and are not in the backup.
    pub missing_namespaces: Vec<String>,
    /// Volumes that are made from snapshots of disks, with the namespaces of their claims, as the backup calls them.
    pub disks: BTreeMap<String, Option<String>>,
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
    /// Whether they come namespace by namespace, or into other ones: the cluster's are then listed by namespace.
    pub by_namespace: bool,
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
