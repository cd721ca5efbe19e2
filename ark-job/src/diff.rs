//! Diff: a backup against the cluster or another backup, to standard output. What is said goes to standard error.
//!
//! As `kubectl diff`, `-` is the cluster and `+` is what the backup would bring; of two backups, `-` is the first. Both
//! sides are streamed in the same order, type by type in the order of a restore, and joined: no type is held, whatever
//! its size. Only of a type that its API server lists in no order, keys and digests of one side are held.
//!
//! It writes nothing, so it needs no identity and no record; two backups at a storage URL need no cluster.

mod coverage;
pub mod lines;
mod printer;
mod side;
mod source;

use self::coverage::Coverage;
use self::lines::{Titles, difference};
use self::printer::Printer;
use self::side::{Object, SideError};
use self::source::{Again, Holder, Of, Source};
use crate::archive::footer::{Footer, TypeEntry};
use crate::args::DiffArgs;
use crate::cluster::discover::{Discovery, ResourceType, discover};
use crate::cluster::list::{At, List};
use crate::cluster::{Cluster, ClusterError};
use crate::context::Outcome;
use crate::error::{Failure, chain};
use crate::exit::Exit;
use crate::filter::Filter;
use crate::repository::{OpenBackup, Served, open_backup};
use crate::restore::order::{
    BINDINGS, DEFINITIONS, NAMESPACES, PRIORITIES, ROLES, VOLUMES, is_never_restored, rank,
};
use crate::restore::plan::{Plan, Survey};
use crate::restore::prepare::{Rules, Skip, normalise, skip, strip_noise};
use crate::restore::records;
use crate::restore::selection::{Asked, Selection};
use crate::restore::volumes::Volumes;
use crate::show::place;
use crate::store::Store;
use crate::volumes::VolumeRecord;
use crate::yaml::yaml;
use futures::StreamExt;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// Members on their way while one is looked at, in the pass that finds what selected namespaces need.
const MEMBERS_AHEAD: usize = 2;
/// Reasons given at the end for what could not be compared; all are told as they occur.
const PROBLEMS_NAMED: usize = 5;
/// Cluster-scoped types of which selected namespaces may need something.
const NEEDED: [&str; 6] = [
    NAMESPACES,
    VOLUMES,
    ROLES,
    DEFINITIONS,
    PRIORITIES,
    BINDINGS,
];

/// Compares a backup with the cluster: from the cluster to the backup.
///
/// # Errors
/// When the backup or the cluster cannot be read.
pub async fn with_cluster(
    cluster: &Cluster,
    store: &Store,
    arguments: &DiffArgs,
    temporary: &Path,
) -> Result<Outcome, Failure> {
    let asked = Asked::resolve(&arguments.select)?;
    let discovery = discover(cluster)
        .await
        .map_err(|error| Failure::from_error(Exit::Failed, &error))?;
    let versions = discovery.versions();
    let backup = Arc::new(open_backup(store, &arguments.backup, temporary, versions).await?);
    let selection = asked.select(
        &discovery.types,
        &backup.footer,
        &BTreeMap::new(),
        &arguments.storage,
    )?;
    let left_out = excluded_namespaces(cluster)
        .await
        .map_err(|error| Failure::from_error(Exit::Failed, &error))?;
    let coverage = Coverage::of(&backup.footer, &discovery.types, left_out);
    // Where the backup can have nothing, the cluster is not read.
    let namespaces = match selection.namespaces.is_everything() {
        true => coverage.namespaces().clone(),
        false => selection.namespaces.clone(),
    };
    let plan = plan(&backup, &selection).await?;
    let rules = rules(records(store, &backup).await?);
    let titles = Titles {
        old: "the cluster".into(),
        new: format!("backup {}", arguments.backup),
    };
    let mut comparison = Comparison {
        titles,
        all_fields: arguments.all_fields,
        old: Source {
            holder: Holder::Cluster(cluster, &discovery),
            plan: plan.clone(),
            coverage: None,
        },
        new: Source {
            holder: Holder::Backup(backup),
            plan,
            coverage: Some(coverage),
        },
        namespaces,
        selection,
        rules,
        tally: Tally::default(),
        printer: Printer::default(),
        problems: Vec::new(),
    };
    comparison.note_missing(&discovery);
    comparison.run().await
}

/// Compares two backups: from the first to the second.
///
/// # Errors
/// When one of them cannot be read.
pub async fn with_backup(
    store: &Store,
    arguments: &DiffArgs,
    other: &str,
    temporary: &Path,
) -> Result<Outcome, Failure> {
    let asked = Asked::resolve(&arguments.select)?;
    let (old, new) = futures::try_join!(
        open_backup(store, &arguments.backup, temporary, Served::new()),
        open_backup(store, other, temporary, Served::new())
    )?;
    let (old, new) = (Arc::new(old), Arc::new(new));
    let mut both = old.footer.clone();
    both.members.clear();
    for entry in &new.footer.head.types {
        if both.type_entry(&entry.resource).is_none() {
            both.head.types.push(entry.clone());
        }
    }
    let selection = asked.select(&[], &both, &BTreeMap::new(), &arguments.storage)?;
    let titles = Titles {
        old: format!("backup {}", arguments.backup),
        new: format!("backup {other}"),
    };
    let (mut sources, mut recorded) = (Vec::new(), Vec::new());
    for backup in [old, new] {
        recorded.extend(records(store, &backup).await?);
        sources.push(Source {
            plan: plan(&backup, &selection).await?,
            coverage: Some(Coverage::of(&backup.footer, &[], BTreeSet::new())),
            holder: Holder::Backup(backup),
        });
    }
    let [old, new] = <[Source<'_>; 2]>::try_from(sources)
        .map_err(|_| Failure::new(Exit::Failed, "a comparison has two sides"))?;
    let mut comparison = Comparison {
        titles,
        all_fields: arguments.all_fields,
        old,
        new,
        namespaces: selection.namespaces.clone(),
        selection,
        rules: rules(recorded),
        tally: Tally::default(),
        printer: Printer::default(),
        problems: Vec::new(),
    };
    comparison.run().await
}

/// Namespaces whose objects no backup takes.
async fn excluded_namespaces(cluster: &Cluster) -> Result<BTreeSet<String>, ClusterError> {
    let namespaces = ResourceType::namespaces();
    let mut list = List::new(cluster, &namespaces, None, None, At::Now);
    let mut excluded = BTreeSet::new();
    while let Some(batch) = list.next().await? {
        let metadata = batch.items().filter_map(|item| item.metadata().ok());
        excluded.extend(
            metadata
                .filter(|metadata| metadata.is_excluded())
                .map(|metadata| metadata.name.into_owned()),
        );
    }
    Ok(excluded)
}

/// What a restore would make anew from snapshots (disks, and the volumes of claims) is no difference.
fn rules(records: Vec<VolumeRecord>) -> Rules {
    Rules {
        volumes: Volumes::new(records, BTreeMap::new()),
        ..Rules::default()
    }
}

/// Finds what is meant beside what was named: what selected namespaces need of the cluster, as for a restore.
async fn plan(backup: &Arc<OpenBackup>, selection: &Selection) -> Result<Plan, Failure> {
    let failed = |error| Failure::from_error(Exit::Usage, &error);
    let mut survey = Survey::new(selection.clone(), Rules::default(), BTreeSet::new());
    let needs_something = match selection.cluster_resources {
        Some(all) => all && !selection.selector.selects_all(),
        None => !(selection.namespaces.is_everything() && selection.selector.selects_all()),
    };
    if !needs_something {
        // Everything is chosen or left by itself; the archive is read once.
        return survey.plan(&Footer::default()).map_err(failed);
    }
    for (entry, indices) in survey.passes(&backup.footer) {
        let opened = backup.read_members(indices, MEMBERS_AHEAD, |_, opened| opened);
        let mut opened = std::pin::pin!(opened);
        while let Some(member) = opened.next().await {
            survey.look(&entry, &member?);
        }
    }
    survey.plan(&backup.footer).map_err(failed)
}

/// What has been found.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    same: u64,
    changed: u64,
    only_old: u64,
    only_new: u64,
    /// Objects on one side that the backup on the other was never asked for.
    outside: u64,
}

struct Comparison<'a> {
    titles: Titles,
    all_fields: bool,
    old: Source<'a>,
    new: Source<'a>,
    selection: Selection,
    /// How objects are prepared to be compared.
    rules: Rules,
    /// Of these at least, objects are read.
    namespaces: Filter,
    tally: Tally,
    printer: Printer,
    problems: Vec<String>,
}

impl Comparison<'_> {
    async fn run(&mut self) -> Result<Outcome, Failure> {
        for (entry, old, new) in self.types() {
            let compared = self.compare_type(&entry, &old, &new).await;
            // What was found of a type is printed even when the rest of it cannot be read.
            self.printer.print().await?;
            match compared {
                Ok(()) => {}
                Err(Stop::Type(why)) => self.problem(why),
                Err(Stop::All(failure)) => return Err(failure),
            }
        }
        Ok(self.outcome())
    }

    /// Says that something is not compared, and goes on.
    fn problem(&mut self, why: String) {
        eprintln!("warning: {why}");
        self.problems.push(why);
    }

    fn note_missing(&mut self, discovery: &Discovery) {
        for group in &discovery.missing {
            let (name, why) = (&group.group_version, chain(&group.error));
            self.problem(format!("{name} is not compared: {why}"));
        }
    }

    /// The types of both sides that are meant, in the order of a restore.
    fn types(&self) -> Vec<(TypeEntry, Of, Of)> {
        let (old, new) = (self.old.types(), self.new.types());
        let selection = &self.selection;
        let whole_cluster = selection
            .cluster_resources
            .unwrap_or(selection.namespaces.is_everything());
        let meant = |entry: &&TypeEntry| {
            !is_never_restored(&entry.resource)
                && selection.resources.includes(&entry.resource)
                && (entry.namespaced
                    || whole_cluster
                    || selection.cluster_resources.is_none()
                        && NEEDED.contains(&entry.resource.as_str()))
        };
        let mut all: BTreeMap<&str, &TypeEntry> = BTreeMap::new();
        // What an archive says of a type (that it is in no order) counts more than what discovery does.
        for entry in old.iter().chain(&new).filter(meant) {
            let known = all.entry(&entry.resource).or_insert(entry);
            if entry.items > 0 {
                *known = entry;
            }
        }
        let has = |entries: &[TypeEntry], resource: &str| {
            entries.iter().any(|entry| entry.resource == resource)
        };
        let mut types: Vec<(TypeEntry, Of, Of)> = all
            .into_values()
            // What one side has and the other was never asked for is no difference.
            .filter(|entry| {
                has(&old, &entry.resource) && self.new.covers_type(entry)
                    || has(&new, &entry.resource) && self.old.covers_type(entry)
                    || has(&old, &entry.resource) && has(&new, &entry.resource)
            })
            .map(|entry| {
                let (old, new) = (self.old.holder.of(entry), self.new.holder.of(entry));
                (entry.clone(), old, new)
            })
            .collect();
        types.sort_by(|(a, ..), (b, ..)| rank(&a.resource).cmp(&rank(&b.resource)));
        types
    }

    async fn compare_type(&mut self, entry: &TypeEntry, old: &Of, new: &Of) -> Result<(), Stop> {
        if let Holder::Cluster(_, discovery) = &self.old.holder
            && matches!(old, Of::Nothing)
        {
            let group = entry.api_version.split('/').next().unwrap_or_default();
            let missing = |group_version: &str| group_version.split('/').next() == Some(group);
            if entry.api_version.contains('/')
                && discovery
                    .missing
                    .iter()
                    .any(|found| missing(&found.group_version))
            {
                // Said already: nobody knows what the cluster has of it.
                return Ok(());
            }
            eprintln!(
                "note: the cluster does not serve {}: {} objects are only in {}",
                entry.resource, entry.items, self.titles.new
            );
        }
        let unsorted = |of: &Of| matches!(of, Of::Archive(entry) if entry.unsorted);
        let ordered = !unsorted(old) && !unsorted(new);
        let result = if ordered {
            self.join(entry, old, new).await
        } else {
            self.look_up(entry, old, new).await
        };
        let error = match result {
            Ok(()) => return Ok(()),
            Err(Broken::Printing(failure)) => return Err(Stop::All(failure)),
            Err(Broken::Side(SideError::Backup(error))) => return Err(Stop::All(error.into())),
            Err(Broken::Side(error)) => error,
        };
        if let SideError::Cluster(cause) = &error
            && cause.is_transient()
            && let Holder::Cluster(cluster, _) = &self.old.holder
            && !cluster.is_there().await
        {
            // No other type would fare better.
            return Err(Stop::All(Failure::from_error(Exit::Failed, &error)));
        }
        let resource = &entry.resource;
        Err(Stop::Type(format!(
            "{resource} are not compared to their end: {}",
            chain(&error)
        )))
    }

    /// Both sides in order: each object meets its counterpart as they are read.
    async fn join(&mut self, entry: &TypeEntry, old: &Of, new: &Of) -> Result<(), Broken> {
        let namespaces = self.namespaces.clone();
        // The sources are not changed while objects are compared; cloning what reads them keeps the borrows apart.
        let (old_source, new_source) = (self.old.reader(), self.new.reader());
        let mut old_side = old_source.side(old, &namespaces, true);
        let mut new_side = new_source.side(new, &namespaces, true);
        let mut before = old_side.next().await?;
        let mut after = new_side.next().await?;
        loop {
            let (take_old, take_new) = match (&before, &after) {
                (None, None) => return Ok(()),
                (Some(_), None) => (true, false),
                (None, Some(_)) => (false, true),
                (Some(old), Some(new)) => (old.key <= new.key, new.key <= old.key),
            };
            let pair = (before.take_if(|_| take_old), after.take_if(|_| take_new));
            self.compare(entry, pair.0.as_ref(), pair.1.as_ref());
            self.printer.print_if_due().await?;
            if take_old {
                before = old_side.next().await?;
            }
            if take_new {
                after = new_side.next().await?;
            }
        }
    }

    /// Sides in no order: of the old one, keys and digests are held; what is different is read again.
    async fn look_up(&mut self, entry: &TypeEntry, old: &Of, new: &Of) -> Result<(), Broken> {
        let namespaces = self.namespaces.clone();
        let (old_source, new_source) = (self.old.reader(), self.new.reader());
        let mut held: BTreeMap<String, Held> = BTreeMap::new();
        let mut side = old_source.side(old, &namespaces, false);
        while let Some(object) = side.next().await? {
            let held_object = Held {
                digest: self.digest(entry, &object),
                object: Object {
                    body: Vec::new(),
                    ..object
                },
            };
            held.insert(held_object.object.key.clone(), held_object);
        }
        let mut again = Again::default();
        let mut side = new_source.side(new, &namespaces, false);
        while let Some(object) = side.next().await? {
            match held.remove(&object.key) {
                Some(known) if known.digest == self.digest(entry, &object) => self.tally.same += 1,
                Some(known) => {
                    let known = again.read(&old_source, old, known.object).await?;
                    self.compare(entry, known.as_ref(), Some(&object));
                }
                None => self.compare(entry, None, Some(&object)),
            }
            self.printer.print_if_due().await?;
        }
        for known in held.into_values() {
            let known = again.read(&old_source, old, known.object).await?;
            self.compare(entry, known.as_ref(), None);
            self.printer.print_if_due().await?;
        }
        Ok(())
    }

    fn digest(&self, entry: &TypeEntry, object: &Object) -> [u8; 32] {
        let text = match serde_json::from_slice::<Value>(&object.body) {
            Ok(value) => yaml(&self.clean(&entry.resource, value)).into_bytes(),
            Err(_) => object.body.clone(),
        };
        Sha256::digest(&text).into()
    }

    /// An object without what is no difference.
    fn clean(&self, resource: &str, mut object: Value) -> Value {
        if !self.all_fields {
            normalise(resource, &mut object, &self.rules);
            strip_noise(resource, &mut object);
        }
        object
    }

    /// Compares an object that is on one side or both.
    fn compare(&mut self, entry: &TypeEntry, old: Option<&Object>, new: Option<&Object>) {
        let Some(object) = old.or(new) else {
            return;
        };
        let chosen = old.is_some_and(|old| self.old.chooses(entry, old))
            || new.is_some_and(|new| self.new.chooses(entry, new));
        if !chosen {
            return;
        }
        if let (Some(old), Some(new)) = (old, new)
            && old.body == new.body
        {
            self.tally.same += 1;
            return;
        }
        let place = place(&entry.resource, object.namespace.as_deref(), &object.name);
        let read = |object: Option<&Object>| {
            object
                .map(|object| serde_json::from_slice::<Value>(&object.body))
                .transpose()
        };
        let (before, after) = match (read(old), read(new)) {
            (Ok(before), Ok(after)) => (before, after),
            (Err(error), _) | (_, Err(error)) => {
                return self.problem(format!("{place} is not compared: {error}"));
            }
        };
        let left_out = |object: &Option<Value>| {
            object.as_ref().is_none_or(|object| {
                match skip(&entry.resource, object, &Rules::default()) {
                    None => false,
                    Some(Skip::Ark) => true,
                    Some(_) => !self.all_fields,
                }
            })
        };
        if left_out(&before) && left_out(&after) {
            return;
        }
        let outside = match (old, new) {
            (Some(old), None) => !self.new.covers(entry, old),
            (None, Some(new)) => !self.old.covers(entry, new),
            _ => false,
        };
        if outside {
            self.tally.outside += 1;
            return;
        }
        let clean =
            |object: Option<Value>| object.map(|object| self.clean(&entry.resource, object));
        let (before, after) = (clean(before), clean(after));
        match difference(&self.titles, &place, before.as_ref(), after.as_ref()) {
            None => self.tally.same += 1,
            Some(text) => {
                self.printer.add(&text);
                match (before, after) {
                    (Some(_), None) => self.tally.only_old += 1,
                    (None, Some(_)) => self.tally.only_new += 1,
                    _ => self.tally.changed += 1,
                }
            }
        }
    }

    fn outcome(&self) -> Outcome {
        let Tally {
            same,
            changed,
            only_old,
            only_new,
            outside,
        } = self.tally;
        let Titles { old, new } = &self.titles;
        let different = changed + only_old + only_new;
        let mut message = match different {
            0 => format!("{old} and {new} are the same: {same} objects"),
            _ => format!(
                "{old} and {new} are different: {changed} objects have changed, {only_old} are only in {old}, {only_new} only in {new}; {same} are the same"
            ),
        };
        if outside > 0 {
            message.push_str(&format!(
                "; {outside} are left out, since the backup on the other side was not asked for them"
            ));
        }
        if self.problems.is_empty() {
            let exit = match different {
                0 => Exit::Done,
                _ => Exit::Different,
            };
            return Outcome {
                exit,
                message,
                hint: None,
            };
        }
        let count = self.problems.len();
        let mut named = self.problems.clone();
        named.truncate(PROBLEMS_NAMED);
        if count > named.len() {
            named.push(format!("and {} more", count - named.len()));
        }
        Outcome {
            exit: Exit::PartiallyFailed,
            message: format!("not everything was compared: {}", named.join("; ")),
            hint: Some(format!("of the rest, {message}")),
        }
    }
}

/// What is held of an object of a type in no order.
struct Held {
    digest: [u8; 32],
    /// Without its body.
    object: Object,
}

/// Why a type is not compared to its end.
enum Broken {
    Side(SideError),
    Printing(Failure),
}

/// What a type that cannot be compared to its end means for the rest.
enum Stop {
    Type(String),
    All(Failure),
}

impl From<SideError> for Broken {
    fn from(error: SideError) -> Broken {
        Broken::Side(error)
    }
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Broken {
        Broken::Printing(failure)
    }
}
