//! Gathering: which objects go into a backup, read at one instant, written to the archive as they arrive.
//!
//! Namespaced types come first. When only some namespaces are wanted, what they need of the cluster-scoped types is noted
//! on the way (claims name volumes, service accounts are bound to roles, custom resources have definitions), and the
//! cluster-scoped types are then filtered by it.

use super::writer::ArchiveWriter;
use crate::archive::footer::TypeEntry;
use crate::archive::write::Block;
use crate::cluster::discover::ResourceType;
use crate::cluster::list::{At, List, Stand, stand};
use crate::cluster::{Cluster, ClusterError};
use crate::filter::{Filter, Named};
use crate::item::{Item, Metadata, type_prefix};
use crate::log::Log;
use crate::report::{About, Report};
use crate::selector::AnyOf;
use futures::stream::{self, StreamExt};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::{OnceCell, Semaphore};

/// Types listed at once; more gain nothing (docs/benchmarks.md).
const TYPES_AT_ONCE: usize = 4;
/// Objects from which on a type's lists are long: of more than one page.
const LONG: u64 = 500;
/// Long lists under way at once, of whatever types: more gain nothing, and each takes 3 MiB of memory.
const LONG_LISTS_AT_ONCE: usize = 2;
/// Types asked at once where they stand, before the instant is fixed.
const PROBES_AT_ONCE: usize = 8;
/// From this many objects on, a type may be listed namespace by namespace, several at once: a page costs the API server work
/// in proportion to what remains of its list, and pages of one list have to wait for each other.
const PARTS_FROM: u64 = 5_000;
/// Objects that a namespace must have on average for that: each costs a request of its own.
const PART_MEAN: u64 = 500;

/// Up to so many selected namespaces are listed one by one; of more, everything is listed and the rest thrown away.
const NAMESPACES_ONE_BY_ONE: usize = 32;

/// Velero unpacks objects into files called `<name>.json`, and a file's name has at most 255 bytes.
const VELERO_NAME_MAX: usize = 250;

const NAMESPACES: &str = "namespaces";
const PODS: &str = "pods";
const PRIORITY_CLASSES: &str = "priorityclasses.scheduling.k8s.io";
const VOLUMES: &str = "persistentvolumes";
const CLAIMS: &str = "persistentvolumeclaims";
const SERVICE_ACCOUNTS: &str = "serviceaccounts";
const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";
const BINDINGS: &str = "clusterrolebindings.rbac.authorization.k8s.io";
const ROLES: &str = "clusterroles.rbac.authorization.k8s.io";

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

/// How far gathering is; read by whoever shows progress.
#[derive(Debug, Default)]
pub struct Progress {
    /// Objects in the archive.
    pub items: AtomicU64,
    /// Bytes of JSON read.
    pub bytes: AtomicU64,
}

/// What has been gathered.
#[derive(Debug, Default)]
pub struct Gathered {
    /// The types that have objects in the archive.
    pub types: Vec<TypeEntry>,
    /// The instant: every type without a revision of its own was read at this one.
    pub resource_version: String,
    /// Objects left out because they were being deleted, or carry an exclude label.
    pub skipped: u64,
}

/// Where the names of what is in the archive go, type by type.
pub trait Names {
    /// Notes an object, of namespace `part` if its type is read in parts.
    ///
    /// # Errors
    /// When it cannot be kept.
    fn add(&mut self, resource: &str, part: Option<&str>, key: &str) -> io::Result<()>;

    /// Says that no more objects of that type and part will come.
    ///
    /// # Errors
    /// When they cannot be kept.
    fn end(&mut self, resource: &str, part: Option<&str>) -> io::Result<()>;
}

/// Why gathering stopped altogether. What concerns one type or object is in the report instead.
#[derive(Debug, thiserror::Error)]
pub enum GatherError {
    /// Without namespaces there is no instant.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The archive could not be written.
    #[error("writing the archive to temporary storage")]
    Archive(#[source] io::Error),
}

/// The instant of a backup.
#[derive(Debug)]
struct Instant {
    /// The revision.
    version: String,
    /// Types that could not be listed at all, or have a revision of their own.
    apart: BTreeMap<String, Apart>,
    /// Where each type stood just before.
    stands: BTreeMap<String, Stand>,
}

#[derive(Debug)]
enum Apart {
    /// Kept in another etcd, or by another server: its revisions mean something else.
    Elsewhere,
    /// Could not be listed.
    Failed(ClusterError),
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
    /// `resource.group` of types with objects in the archive.
    resources: BTreeSet<String>,
    /// Names of roles.
    roles: BTreeSet<String>,
}

struct Gatherer<'a, N> {
    cluster: &'a Cluster,
    selection: &'a Selection,
    writer: &'a ArchiveWriter,
    progress: &'a Progress,
    log: &'a Log,
    instant: Instant,
    /// Namespaces that carry an exclude label.
    left_out: BTreeSet<String>,
    needs: Mutex<Needs>,
    report: Mutex<&'a mut Report>,
    names: Mutex<&'a mut N>,
    skipped: AtomicU64,
    long_lists: Semaphore,
    /// Names of all namespaces at the instant, in the order of keys, once somebody needs them.
    namespaces: OnceCell<Vec<String>>,
}

/// Reads what is wanted of `types` at one instant into `writer`.
///
/// # Errors
/// [`GatherError`]; what concerns one type or object is an error in `report`.
#[expect(
    clippy::too_many_arguments,
    reason = "each is used, and they belong to different owners"
)]
pub async fn gather<N: Names>(
    cluster: &Cluster,
    types: &[&ResourceType],
    selection: &Selection,
    writer: &ArchiveWriter,
    progress: &Progress,
    log: &Log,
    report: &mut Report,
    names: &mut N,
) -> Result<Gathered, GatherError> {
    let wanted: Vec<&ResourceType> = types
        .iter()
        .copied()
        .filter(|candidate| selection.may_include(candidate))
        .collect();
    let instant = fix_instant(cluster, &wanted).await?;
    log.info(&format!(
        "{} resource types are read at revision {}",
        wanted.len(),
        instant.version
    ));
    let mut gatherer = Gatherer {
        cluster,
        selection,
        writer,
        progress,
        log,
        instant,
        left_out: BTreeSet::new(),
        needs: Mutex::default(),
        report: Mutex::new(report),
        names: Mutex::new(names),
        skipped: AtomicU64::new(0),
        long_lists: Semaphore::new(LONG_LISTS_AT_ONCE),
        namespaces: OnceCell::new(),
    };
    let known = gatherer.check_namespaces().await?;
    let mut entries = Vec::new();
    let of_scope = |namespaced: bool| {
        wanted
            .iter()
            .copied()
            .filter(move |candidate| candidate.namespaced == namespaced)
    };
    // Pods with the wanted labels bring their claims, whatever labels those have.
    let (claims, namespaced): (Vec<_>, Vec<_>) =
        of_scope(true).partition(|candidate| candidate.group_resource() == CLAIMS);
    gatherer
        .read_types(namespaced, &known, &mut entries)
        .await?;
    gatherer.read_types(claims, &known, &mut entries).await?;
    // Bindings name the roles that are needed, and custom resources of the cluster need definitions.
    let (first, last): (Vec<_>, Vec<_>) = of_scope(false).partition(|candidate| {
        ![ROLES, DEFINITIONS].contains(&candidate.group_resource().as_str())
    });
    gatherer.read_types(first, &known, &mut entries).await?;
    gatherer.read_types(last, &known, &mut entries).await?;
    gatherer.warn_of_absent_volumes();
    let skipped = gatherer.skipped.load(Ordering::Relaxed);
    if skipped > 0 {
        log.info(&format!(
            "{skipped} objects that are being deleted or carry an exclude label were left out"
        ));
    }
    entries.sort_by(|a, b| a.resource.cmp(&b.resource));
    Ok(Gathered {
        types: entries,
        resource_version: gatherer.instant.version,
        skipped,
    })
}

impl Selection {
    /// Whether nothing is left out by namespace or label.
    fn is_everything(&self) -> bool {
        self.namespaces.is_everything() && self.selector.selects_all()
    }

    /// Whether a type that is not selected comes along for what needs it: custom resources bring their definition.
    fn brings(&self, resource: &str) -> bool {
        resource == DEFINITIONS
            && !self.resources.includes(resource)
            && !self.resources.excludes(resource)
    }

    /// Whether the filters of types and scope take a type.
    fn takes(&self, resource: &str, namespaced: bool) -> bool {
        (self.resources.includes(resource) || self.brings(resource))
            && (namespaced || self.cluster_resources != Some(false))
    }

    /// Whether objects of a type may be in the backup.
    fn may_include(&self, candidate: &ResourceType) -> bool {
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

/// The type of namespaces, which every cluster has.
pub(super) fn namespaces_type() -> ResourceType {
    ResourceType {
        group: String::new(),
        version: "v1".into(),
        resource: NAMESPACES.into(),
        singular: "namespace".into(),
        kind: "Namespace".into(),
        namespaced: false,
        short_names: Vec::new(),
        verbs: Vec::new(),
    }
}

/// Fixes the instant: the revision at which all types are read.
///
/// Every type is asked where it stands, between two looks at the namespaces: a type that stands outside of what the two
/// looks span is not kept in the same etcd, and its revisions cannot be compared.
async fn fix_instant(cluster: &Cluster, types: &[&ResourceType]) -> Result<Instant, GatherError> {
    let namespaces = namespaces_type();
    let look = async || {
        let stand = stand(cluster, &namespaces, At::Now).await?;
        let number = stand
            .version
            .as_deref()
            .and_then(|version| version.parse::<u64>().ok());
        number.ok_or_else(|| ClusterError::Malformed {
            doing: "listing namespaces".into(),
            source: "the answer has no resourceVersion".into(),
        })
    };
    let first = look().await?;
    let probes = stream::iter(types.iter().map(|&candidate| async move {
        (
            candidate.group_resource(),
            stand(cluster, candidate, At::Now).await,
        )
    }));
    let mut probes = probes.buffer_unordered(PROBES_AT_ONCE);
    let mut probed = Vec::new();
    while let Some((resource, stand)) = probes.next().await {
        probed.push((
            resource,
            match stand {
                Err(error) => Err(of_one_type(cluster, error).await?),
                Ok(stand) => Ok(stand),
            },
        ));
    }
    let last = look().await?;
    let (mut apart, mut stands) = (BTreeMap::new(), BTreeMap::new());
    for (resource, stand) in probed {
        match stand {
            Err(error) => {
                apart.insert(resource, Apart::Failed(error));
            }
            Ok(stand) => {
                let version = stand.version.as_deref();
                let number = version.and_then(|version| version.parse::<u64>().ok());
                if !number.is_some_and(|number| (first..=last).contains(&number)) {
                    apart.insert(resource.clone(), Apart::Elsewhere);
                }
                stands.insert(resource, stand);
            }
        }
    }
    Ok(Instant {
        version: last.to_string(),
        apart,
        stands,
    })
}

/// The error that retries did not cure, if it concerns one type only.
///
/// # Errors
/// The same, when the API server is gone: each further type would be retried as long, for nothing.
async fn of_one_type(cluster: &Cluster, error: ClusterError) -> Result<ClusterError, GatherError> {
    if error.is_transient() && !cluster.is_there().await {
        return Err(GatherError::Cluster(error));
    }
    Ok(error)
}

impl<'a, N: Names> Gatherer<'a, N> {
    fn report(&self) -> MutexGuard<'_, &'a mut Report> {
        // Every method that takes the lock leaves the report whole.
        match self.report.lock() {
            Ok(report) => report,
            Err(poisoned) => poisoned.into_inner(),
        }
    }

    fn needs(&self) -> MutexGuard<'_, Needs> {
        self.needs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The wanted namespaces in the order of keys, when they are selected and few; and notes those that are left out.
    ///
    /// A namespace that was named and does not exist is an error: whoever named it expects it in the backup.
    async fn check_namespaces(&mut self) -> Result<Option<Vec<String>>, GatherError> {
        let filter = &self.selection.namespaces;
        let namespaces = namespaces_type();
        let (mut existing, mut left_out) = (BTreeSet::new(), BTreeSet::new());
        let mut list = List::new(
            self.cluster,
            &namespaces,
            None,
            None,
            At::Exact(self.instant.version.clone()),
        );
        while let Some(batch) = list.next().await? {
            for item in batch.items() {
                let metadata = item
                    .metadata()
                    .map_err(|source| malformed(&namespaces, source))?;
                let excluded = metadata.is_excluded();
                let name = metadata.name.into_owned();
                if excluded && filter.includes(&name) {
                    left_out.insert(name.clone());
                }
                if filter.selects() && filter.includes(&name) {
                    existing.insert(name);
                }
            }
        }
        for name in &left_out {
            self.log.info(&format!(
                "namespace {name} carries an exclude label: it is left out with all that is in it"
            ));
        }
        if !filter.selects() {
            self.left_out = left_out;
            return Ok(None);
        }
        for name in filter.named().filter(|name| !existing.contains(*name)) {
            let text = format!("namespace {name} was asked for but does not exist");
            self.log.error(&text);
            self.report().error(About::Operation, text);
        }
        let mut existing: Vec<String> = existing.into_iter().collect();
        for glob in filter.idle_globs(&existing) {
            self.warn(format!("no namespace matches {glob}"));
        }
        existing.retain(|name| !left_out.contains(name));
        self.left_out = left_out;
        // The order of `<namespace>/<name>`, in which `a-b/` comes before `a/`.
        existing.sort_by_key(|name| format!("{name}/"));
        Ok((existing.len() <= NAMESPACES_ONE_BY_ONE).then_some(existing))
    }

    /// Names the volumes that claims are bound to and that were not there: such a claim cannot be restored as it was.
    fn warn_of_absent_volumes(&self) {
        if !self.selection.takes(VOLUMES, false) {
            return;
        }
        for (volume, claim) in std::mem::take(&mut self.needs().volumes) {
            self.warn(format!(
                "persistentvolumes {volume}, which persistentvolumeclaims {claim} is bound to, does not exist"
            ));
        }
    }

    fn at(&self, candidate: &ResourceType) -> At {
        match self.instant.apart.get(&candidate.group_resource()) {
            Some(Apart::Elsewhere) => At::Now,
            _ => At::Exact(self.instant.version.clone()),
        }
    }

    async fn read_types(
        &self,
        mut types: Vec<&ResourceType>,
        namespaces: &Option<Vec<String>>,
        entries: &mut Vec<TypeEntry>,
    ) -> Result<(), GatherError> {
        // The largest first: small ones fill the gaps, and none of many pages is left alone at the end.
        types.sort_by_cached_key(|candidate| {
            let stand = self.instant.stands.get(&candidate.group_resource());
            std::cmp::Reverse(stand.and_then(|stand| stand.objects))
        });
        let mut reads = stream::iter(
            types
                .into_iter()
                .map(|candidate| self.read_type(candidate, namespaces)),
        )
        .buffer_unordered(TYPES_AT_ONCE);
        while let Some(read) = reads.next().await {
            entries.extend(read?);
        }
        Ok(())
    }

    /// Reads one type; an API error is its own, and the others go on.
    async fn read_type(
        &self,
        candidate: &ResourceType,
        namespaces: &Option<Vec<String>>,
    ) -> Result<Option<TypeEntry>, GatherError> {
        let resource = candidate.group_resource();
        if let Some(Apart::Failed(error)) = self.instant.apart.get(&resource) {
            if error.is_not_found() {
                self.log
                    .info(&format!("{resource} has gone since it was discovered"));
            } else {
                self.type_failed(&resource, error);
            }
            return Ok(None);
        }
        let entry = match namespaces {
            Some(names) if candidate.namespaced => {
                let mut reading = self.reading(candidate, None);
                for namespace in names {
                    self.read_list(&mut reading, Some(namespace)).await?;
                }
                self.end(reading).await?
            }
            _ => match self.parts(candidate).await? {
                Some(parts) => self.read_parts(candidate, parts).await?,
                None => {
                    let mut reading = self.reading(candidate, None);
                    self.read_list(&mut reading, None).await?;
                    self.end(reading).await?
                }
            },
        };
        let entry = self.name_revisions(entry);
        if entry.items == 0 {
            return Ok(None);
        }
        self.needs().resources.insert(entry.resource.clone());
        Ok(Some(entry))
    }

    /// The namespaces to read a type by, one by one and several at once, when there are enough objects in each.
    async fn parts(&self, candidate: &ResourceType) -> Result<Option<&[String]>, GatherError> {
        let stand = self.instant.stands.get(&candidate.group_resource());
        let objects = stand.and_then(|stand| stand.objects).unwrap_or_default();
        if !candidate.namespaced
            || objects < PARTS_FROM
            // Lists of what is current would each be of another moment.
            || self.at(candidate) == At::Now
            // Then nobody knows how many will come.
            || self.selector_of(candidate).is_some()
        {
            return Ok(None);
        }
        let names = self.namespaces.get_or_try_init(|| self.list_namespaces());
        let names = names.await?;
        let parts = names.len() as u64;
        Ok((parts > 1 && parts * PART_MEAN <= objects).then_some(names))
    }

    /// The names of all namespaces at the instant, in the order of keys.
    async fn list_namespaces(&self) -> Result<Vec<String>, GatherError> {
        let namespaces = namespaces_type();
        let at = At::Exact(self.instant.version.clone());
        let mut list = List::new(self.cluster, &namespaces, None, None, at);
        let mut names = Vec::new();
        while let Some(batch) = list.next().await? {
            for item in batch.items() {
                let metadata = item
                    .metadata()
                    .map_err(|source| malformed(&namespaces, source))?;
                names.push(metadata.name.into_owned());
            }
        }
        names.sort_by_key(|name| format!("{name}/"));
        Ok(names)
    }

    /// Reads a type namespace by namespace, several at once, and makes sure that these were all of its objects.
    async fn read_parts(
        &self,
        candidate: &ResourceType,
        parts: &[String],
    ) -> Result<Read, GatherError> {
        let failed = AtomicBool::new(false);
        let mut whole = Read::new(candidate);
        let mut reads = stream::iter(parts.iter().map(|namespace| {
            let failed = &failed;
            async move {
                let mut reading = self.reading(candidate, Some(namespace));
                // An API server that is gone for one namespace is gone for all: its retries are not repeated for each.
                if !failed.load(Ordering::Relaxed) {
                    self.read_list(&mut reading, Some(namespace)).await?;
                }
                let read = self.end(reading).await?;
                failed.fetch_or(read.failed, Ordering::Relaxed);
                Ok::<Read, GatherError>(read)
            }
        }))
        .buffer_unordered(LONG_LISTS_AT_ONCE);
        while let Some(read) = reads.next().await {
            whole.add(read?);
        }
        drop(reads);
        if whole.failed || !whole.other_revisions.is_empty() || !whole.resumed_at.is_empty() {
            return Ok(whole);
        }
        // A server without the admission of namespaces has objects in namespaces that do not exist.
        if self.count(candidate).await? != Some(whole.listed) {
            let mut reading = self.reading(candidate, None);
            reading.strays_of = Some(parts);
            self.read_list(&mut reading, None).await?;
            whole.add(self.end(reading).await?);
        }
        Ok(whole)
    }

    /// How many objects of a type there are at the instant; none when nobody can say.
    async fn count(&self, candidate: &ResourceType) -> Result<Option<u64>, GatherError> {
        let stand_before = self.instant.stands.get(&candidate.group_resource());
        if let Some(known) = stand_before
            && known.version.as_deref() == Some(&self.instant.version)
        {
            return Ok(known.objects);
        }
        let at = At::Exact(self.instant.version.clone());
        match stand(self.cluster, candidate, at).await {
            Ok(stand) => Ok(stand.objects),
            // Compacted meanwhile, for one: the list that follows says what there is to say.
            Err(_) => Ok(None),
        }
    }

    fn reading<'b>(&self, candidate: &'b ResourceType, part: Option<&'b str>) -> Reading<'b> {
        Reading {
            candidate,
            part,
            strays_of: None,
            prefix: type_prefix(&candidate.api_version(), &candidate.kind),
            block: self.writer.block(&candidate.group_resource(), part),
            last: String::new(),
            read: Read::new(candidate),
        }
    }

    /// Hands over the last block.
    async fn end(&self, mut reading: Reading<'_>) -> Result<Read, GatherError> {
        if !reading.block.is_empty() {
            self.submit(&mut reading).await?;
        }
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names
            .end(&reading.read.entry.resource, reading.part)
            .map_err(GatherError::Archive)?;
        Ok(reading.read)
    }

    /// The labels by which the API server selects for us.
    fn selector_of(&self, candidate: &ResourceType) -> Option<String> {
        // What others need is taken whatever its labels are, so those types are filtered here, not by the server.
        let by_server = candidate.namespaced && candidate.group_resource() != CLAIMS;
        by_server
            .then(|| self.selection.selector.for_server())
            .flatten()
    }

    async fn read_list(
        &self,
        reading: &mut Reading<'_>,
        namespace: Option<&str>,
    ) -> Result<(), GatherError> {
        let candidate = reading.candidate;
        let stand_before = self.instant.stands.get(&reading.read.entry.resource);
        let is_long = stand_before
            .and_then(|stand| stand.objects)
            .is_none_or(|objects| objects > LONG);
        let _permit = match is_long {
            true => self.long_lists.acquire().await.ok(),
            false => None,
        };
        let selector = self.selector_of(candidate);
        let at = self.at(candidate);
        let elsewhere = at == At::Now;
        let mut list = List::new(self.cluster, candidate, namespace, selector.as_deref(), at);
        if let Some(stand) = stand_before {
            list = list.like(stand);
        }
        loop {
            let batch = match list.next().await {
                Ok(Some(batch)) => batch,
                Ok(None) => break,
                Err(error) => {
                    let error = of_one_type(self.cluster, error).await?;
                    self.type_failed(&reading.read.entry.resource, &error);
                    reading.read.failed = true;
                    return Ok(());
                }
            };
            for item in batch.items() {
                match self.take(reading, &item) {
                    Ok(()) => {}
                    Err(GatherError::Cluster(error)) => {
                        self.type_failed(&reading.read.entry.resource, &error);
                        reading.read.failed = true;
                        return Ok(());
                    }
                    Err(error) => return Err(error),
                }
                if reading.block.is_full() {
                    self.submit(reading).await?;
                }
            }
        }
        let summary = list.summary();
        let read = &mut reading.read;
        read.listed += summary.items;
        read.elsewhere |= elsewhere;
        let version = summary.resource_version.as_ref();
        let other = version.filter(|version| elsewhere || **version != self.instant.version);
        read.other_revisions.extend(other.cloned());
        read.resumed_at.extend(summary.resumed_at.clone());
        Ok(())
    }

    /// Puts one object into the archive, if it is wanted.
    fn take(&self, reading: &mut Reading<'_>, item: &Item<'_>) -> Result<(), GatherError> {
        let candidate = reading.candidate;
        let metadata = item
            .metadata()
            .map_err(|source| malformed(candidate, source))?;
        let namespace = metadata.namespace.as_deref();
        if namespace.is_some() != candidate.namespaced
            || [namespace, Some(&*metadata.name)]
                .iter()
                .flatten()
                .any(|name| !is_path_segment(name))
        {
            let about = namespace.map_or(About::Cluster, About::Namespace);
            let text = format!(
                "{} {:?} cannot be stored: its name or namespace is not valid",
                candidate.group_resource(),
                metadata.name
            );
            self.log.error(&text);
            self.report().error(about, text);
            return Ok(());
        }
        if let (Some(parts), Some(namespace)) = (reading.strays_of, namespace)
            && parts.iter().any(|part| part == namespace)
        {
            return Ok(());
        }
        self.progress
            .bytes
            .fetch_add(item.json.len() as u64, Ordering::Relaxed);
        if !self.is_wanted(candidate, &metadata, item)? {
            return Ok(());
        }
        if metadata.deletion_timestamp.is_some() || metadata.is_excluded() {
            self.skipped.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        if metadata.name.len() > VELERO_NAME_MAX {
            let text = format!(
                "{} {}: its name is too long for Velero to restore",
                candidate.group_resource(),
                metadata.name
            );
            self.report()
                .warn(namespace.map_or(About::Cluster, About::Namespace), text);
        }
        self.note_needs(candidate, &metadata, item)?;
        if candidate.group_resource() == VOLUMES {
            self.note_unsaved_volume(candidate, &metadata, item)?;
        }
        let prefix: &[u8] = if item.typed { &[] } else { &reading.prefix };
        reading
            .block
            .push(namespace, &metadata.name, &[prefix, item.rest()]);
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names
            .add(
                &reading.read.entry.resource,
                reading.part,
                reading.block.last(),
            )
            .map_err(GatherError::Archive)?;
        reading.read.entry.items += 1;
        reading.read.entry.bytes += (prefix.len() + item.rest().len()) as u64;
        self.progress.items.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the filters take an object.
    fn is_wanted(
        &self,
        candidate: &ResourceType,
        metadata: &Metadata<'_>,
        item: &Item<'_>,
    ) -> Result<bool, GatherError> {
        let selection = self.selection;
        let labels_match = || -> Result<bool, GatherError> {
            if selection.selector.selects_all() {
                return Ok(true);
            }
            let labels = item
                .labels()
                .map_err(|source| malformed(candidate, source))?;
            Ok(selection.selector.matches(&labels))
        };
        if let Some(namespace) = &metadata.namespace {
            return Ok(selection.namespaces.includes(namespace)
                && !self.left_out.contains(&**namespace)
                && (labels_match()? || self.is_mounted(candidate, namespace, &metadata.name)));
        }
        if selection.brings(&candidate.group_resource()) {
            return self.is_needed(candidate, metadata, item);
        }
        if selection.is_everything() {
            return Ok(true);
        }
        if candidate.group_resource() == NAMESPACES {
            // A namespace comes with its objects; an empty one if it is selected (Velero's rule).
            return Ok(selection.namespaces.includes(&metadata.name)
                && (labels_match()? || self.needs().namespaces.contains(&*metadata.name)));
        }
        if self.is_needed(candidate, metadata, item)? {
            return Ok(true);
        }
        let all = selection.cluster_resources == Some(true) || selection.namespaces.is_everything();
        Ok(all && labels_match()?)
    }

    /// Whether this is a claim that a selected pod mounts.
    fn is_mounted(&self, candidate: &ResourceType, namespace: &str, name: &str) -> bool {
        candidate.group_resource() == CLAIMS
            && self
                .needs()
                .claims
                .contains(&(namespace.to_owned(), name.to_owned()))
    }

    /// Says of a volume that its data is not in the backup, as strongly as snapshots were asked for.
    fn note_unsaved_volume(
        &self,
        candidate: &ResourceType,
        metadata: &Metadata<'_>,
        item: &Item<'_>,
    ) -> Result<(), GatherError> {
        let asked_for = match self.selection.snapshot_volumes {
            Some(false) => return Ok(()),
            asked_for => asked_for == Some(true),
        };
        let volume: Volume = read(candidate, item)?;
        let claim = volume.spec.claim_ref.map_or(String::new(), |claim| {
            format!(" (claim {}/{})", claim.namespace, claim.name)
        });
        let text = format!(
            "persistentvolumes {}{claim} has no snapshot, so the data in it is not in the backup",
            metadata.name
        );
        if asked_for {
            self.log.error(&text);
            self.report().error(About::Cluster, text);
        } else {
            self.log.warn(&text);
            self.report().warn(About::Cluster, text);
        }
        Ok(())
    }

    /// Whether a cluster-scoped object is needed by what has been taken from namespaces.
    fn is_needed(
        &self,
        candidate: &ResourceType,
        metadata: &Metadata<'_>,
        item: &Item<'_>,
    ) -> Result<bool, GatherError> {
        let mut needs = self.needs();
        Ok(match candidate.group_resource().as_str() {
            // Whatever is left at the end does not exist.
            VOLUMES => needs.volumes.remove(&*metadata.name).is_some(),
            PRIORITY_CLASSES => needs.priority_classes.contains(&*metadata.name),
            DEFINITIONS => needs.resources.contains(&*metadata.name),
            ROLES => needs.roles.contains(&*metadata.name),
            BINDINGS => {
                let binding: Binding = read(candidate, item)?;
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

    /// Notes what an object of a namespace needs of the cluster.
    fn note_needs(
        &self,
        candidate: &ResourceType,
        metadata: &Metadata<'_>,
        item: &Item<'_>,
    ) -> Result<(), GatherError> {
        let Some(namespace) = &metadata.namespace else {
            return Ok(());
        };
        if self.selection.is_everything() {
            return Ok(());
        }
        let mut needs = self.needs();
        if !needs.namespaces.contains(&**namespace) {
            needs.namespaces.insert(namespace.clone().into_owned());
        }
        match candidate.group_resource().as_str() {
            CLAIMS => {
                let claim: Claim = read(candidate, item)?;
                let volume = claim.spec.volume_name.filter(|name| !name.is_empty());
                needs.volumes.extend(
                    volume.map(|volume| (volume, format!("{namespace}/{}", metadata.name))),
                );
            }
            PODS => {
                let pod: Pod = read(candidate, item)?;
                needs.claims.extend(
                    pod.spec
                        .volumes
                        .into_iter()
                        .filter_map(|volume| volume.persistent_volume_claim)
                        .map(|claim| (namespace.clone().into_owned(), claim.claim_name)),
                );
                needs.priority_classes.extend(pod.spec.priority_class_name);
            }
            SERVICE_ACCOUNTS => {
                needs.service_accounts.insert((
                    namespace.clone().into_owned(),
                    metadata.name.clone().into_owned(),
                ));
            }
            _ => {}
        }
        Ok(())
    }

    async fn submit(&self, reading: &mut Reading<'_>) -> Result<(), GatherError> {
        let block = self.writer.take(&mut reading.block);
        reading.read.entry.unsorted |= !block.is_sorted() || block.first() <= reading.last.as_str();
        reading.last = block.last().to_owned();
        self.writer
            .submit(block)
            .await
            .map_err(GatherError::Archive)
    }

    /// Names a type that was not read at the instant.
    fn name_revisions(&self, read: Read) -> TypeEntry {
        let Read {
            mut entry,
            elsewhere,
            other_revisions,
            resumed_at,
            ..
        } = read;
        let resource = &entry.resource;
        let instant = &self.instant.version;
        let newest = |revisions: &BTreeSet<String>| {
            let newest = revisions
                .iter()
                .max_by_key(|version| (version.len(), *version));
            newest.cloned()
        };
        if elsewhere {
            entry.resource_version = newest(&other_revisions);
            if entry.items > 0 {
                let own = join(&other_revisions);
                self.warn(format!("{resource}: kept in another etcd or by another server, so read on its own at its revision {own} and not at revision {instant}"));
            }
        } else if !other_revisions.is_empty() {
            entry.resource_version = newest(&other_revisions);
            let versions = join(&other_revisions);
            self.warn(format!(
                "{resource}: revision {instant} had been compacted, so read at revision {versions}"
            ));
        }
        if !resumed_at.is_empty() {
            let from = newest(&other_revisions).unwrap_or_else(|| instant.clone());
            entry.resource_version = newest(&resumed_at);
            let versions = join(&resumed_at);
            self.warn(format!("{resource}: revision {from} was compacted on the way, so the rest was read at revision {versions}"));
        }
        entry
    }

    fn warn(&self, text: String) {
        self.log.warn(&text);
        self.report().warn(About::Operation, text);
    }

    fn type_failed(&self, resource: &str, error: &ClusterError) {
        if resource == VOLUMES {
            // Nobody knows then which of them exist.
            self.needs().volumes.clear();
        }
        let text = format!("{resource} is missing or incomplete: {}", error.full_text());
        self.log.error(&text);
        self.report().error(About::Cluster, text);
    }
}

/// A type being read, or a part of it.
struct Reading<'a> {
    candidate: &'a ResourceType,
    /// The namespace, when the type is read in parts.
    part: Option<&'a str>,
    /// Read only what is in none of these namespaces.
    strays_of: Option<&'a [String]>,
    prefix: Vec<u8>,
    block: Block,
    /// Key of the last object of the block before.
    last: String,
    read: Read,
}

/// What reading a type, or a part of it, has come to.
struct Read {
    entry: TypeEntry,
    /// Objects that were listed, whether or not they were taken.
    listed: u64,
    elsewhere: bool,
    /// Revisions of lists that were not at the instant.
    other_revisions: BTreeSet<String>,
    /// Revisions of lists that went on at a newer one.
    resumed_at: BTreeSet<String>,
    failed: bool,
}

impl Read {
    fn new(candidate: &ResourceType) -> Read {
        Read {
            entry: TypeEntry {
                resource: candidate.group_resource(),
                api_version: candidate.api_version(),
                kind: candidate.kind.clone(),
                namespaced: candidate.namespaced,
                items: 0,
                bytes: 0,
                unsorted: false,
                resource_version: None,
            },
            listed: 0,
            elsewhere: false,
            other_revisions: BTreeSet::new(),
            resumed_at: BTreeSet::new(),
            failed: false,
        }
    }

    fn add(&mut self, part: Read) {
        self.entry.items += part.entry.items;
        self.entry.bytes += part.entry.bytes;
        self.entry.unsorted |= part.entry.unsorted;
        self.listed += part.listed;
        self.elsewhere |= part.elsewhere;
        self.other_revisions.extend(part.other_revisions);
        self.resumed_at.extend(part.resumed_at);
        self.failed |= part.failed;
    }
}

fn join(revisions: &BTreeSet<String>) -> String {
    let revisions: Vec<&str> = revisions.iter().map(String::as_str).collect();
    revisions.join(" and ")
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
struct Volume {
    #[serde(default)]
    spec: VolumeSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct VolumeSpec {
    claim_ref: Option<ClaimRef>,
}

#[derive(Deserialize)]
struct ClaimRef {
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
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
struct PodVolume {
    persistent_volume_claim: Option<PodClaim>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodClaim {
    claim_name: String,
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

fn read<'a, T: Deserialize<'a>>(
    candidate: &ResourceType,
    item: &Item<'a>,
) -> Result<T, GatherError> {
    serde_json::from_slice(item.json).map_err(|source| malformed(candidate, source))
}

fn malformed(
    candidate: &ResourceType,
    source: impl std::error::Error + Send + Sync + 'static,
) -> GatherError {
    let doing = format!("listing {}", candidate.group_resource());
    GatherError::Cluster(ClusterError::Malformed {
        doing,
        source: Box::new(source),
    })
}

/// Whether a name can be part of a path, as the API server demands of every name; a server of somebody's own might not.
fn is_path_segment(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0'])
}
