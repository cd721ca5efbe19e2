//! Gathering: the objects that go into a backup, read at one instant, written to the archive as they arrive.
//!
//! Namespaced types come first. When only some namespaces are wanted, what they need of the cluster-scoped types is noted
//! on the way (claims name volumes, service accounts are bound to roles, custom resources have definitions), and the
//! cluster-scoped types are then filtered by it.

use super::instant::{Apart, Instant, fix_instant, of_one_type};
use super::namespaces::Namespaces;
use super::selection::{CLAIMS, Choice, DEFINITIONS, ROLES, Selection, VOLUMES};
use super::volumes::{Late, Looked};
use super::writer::ArchiveWriter;
use crate::archive::footer::TypeEntry;
use crate::archive::write::Block;
use crate::cluster::discover::ResourceType;
use crate::cluster::list::{At, List, stand};
use crate::cluster::{Cluster, ClusterError};
use crate::filter::Named;
use crate::item::{Item, type_prefix};
use crate::log::Log;
use crate::report::{About, Report};
use crate::volumes::VolumeRecord;
use futures::stream::{self, StreamExt};
use k8s_openapi::api::core::v1::PersistentVolume;
use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Semaphore;

/// Types listed at once; more gain nothing (docs/benchmarks.md).
const TYPES_AT_ONCE: usize = 4;
/// Objects from which on a type's lists are long: of more than one page.
const LONG: u64 = 500;
/// Long lists under way at once, of whatever types: more gain nothing, and each takes 3 MiB of memory.
const LONG_LISTS_AT_ONCE: usize = 2;
/// From this many objects on, a type may be listed namespace by namespace, several at once: a page costs the API server work
/// in proportion to what remains of its list, and pages of one list have to wait for each other.
const PARTS_FROM: u64 = 5_000;
/// Objects that a namespace must have on average for that: each costs a request of its own.
const PART_MEAN: u64 = 500;

/// Velero unpacks objects into files called `<name>.json`, and a file's name has at most 255 bytes.
const VELERO_NAME_MAX: usize = 250;

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
    /// Volumes that are in the archive and were not looked at before the instant.
    pub late_volumes: Vec<VolumeRecord>,
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

struct Gatherer<'a, N> {
    cluster: &'a Cluster,
    selection: &'a Selection,
    looked: &'a Looked,
    writer: &'a ArchiveWriter,
    progress: &'a Progress,
    log: &'a Log,
    instant: Instant,
    namespaces: Namespaces,
    choice: Choice<'a>,
    report: Mutex<&'a mut Report>,
    names: Mutex<&'a mut N>,
    skipped: AtomicU64,
    late_volumes: Mutex<Vec<VolumeRecord>>,
    long_lists: Semaphore,
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
    looked: &Looked,
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
    let mut namespaces = Namespaces::read(cluster, &instant, &selection.namespaces).await?;
    let left_out = std::mem::take(&mut namespaces.left_out);
    for name in left_out
        .iter()
        .filter(|name| selection.namespaces.includes(name))
    {
        log.info(&format!(
            "namespace {name} carries an exclude label: it is left out with all that is in it"
        ));
    }
    let gatherer = Gatherer {
        cluster,
        selection,
        looked,
        writer,
        progress,
        log,
        instant,
        namespaces,
        choice: Choice::new(selection, left_out),
        report: Mutex::new(report),
        names: Mutex::new(names),
        skipped: AtomicU64::new(0),
        late_volumes: Mutex::default(),
        long_lists: Semaphore::new(LONG_LISTS_AT_ONCE),
    };
    gatherer.name_absent_namespaces();
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
    gatherer.read_types(namespaced, &mut entries).await?;
    gatherer.read_types(claims, &mut entries).await?;
    // Bindings name the roles that are needed, and custom resources of the cluster need definitions.
    let (first, last): (Vec<_>, Vec<_>) = of_scope(false).partition(|candidate| {
        ![ROLES, DEFINITIONS].contains(&candidate.group_resource().as_str())
    });
    gatherer.read_types(first, &mut entries).await?;
    gatherer.read_types(last, &mut entries).await?;
    for (volume, claim) in gatherer.choice.absent_volumes() {
        gatherer.warn(format!(
            "persistentvolumes {volume}, which persistentvolumeclaims {claim} is bound to, does not exist"
        ));
    }
    if let Some(text) = gatherer.choice.warning_of_claims_alone() {
        gatherer.warn(text);
    }
    let skipped = gatherer.skipped.load(Ordering::Relaxed);
    if skipped > 0 {
        log.info(&format!(
            "{skipped} objects that are being deleted or carry an exclude label were left out"
        ));
    }
    entries.sort_by(|a, b| a.resource.cmp(&b.resource));
    let late_volumes = gatherer.late_volumes.into_inner();
    Ok(Gathered {
        types: entries,
        resource_version: gatherer.instant.version,
        skipped,
        late_volumes: late_volumes.unwrap_or_else(PoisonError::into_inner),
    })
}

impl<'a, N: Names> Gatherer<'a, N> {
    fn report(&self) -> MutexGuard<'_, &'a mut Report> {
        // Every method that takes the lock leaves the report whole.
        match self.report.lock() {
            Ok(report) => report,
            Err(poisoned) => poisoned.into_inner(),
        }
    }

    /// A namespace that was named and does not exist is an error: whoever named it expects it in the backup.
    fn name_absent_namespaces(&self) {
        for name in &self.namespaces.absent {
            let text = format!("namespace {name} was asked for but does not exist");
            self.log.error(&text);
            self.report().error(About::Operation, text);
        }
        for glob in &self.namespaces.idle {
            self.warn(format!("no namespace matches {glob}"));
        }
    }

    async fn read_types(
        &self,
        mut types: Vec<&ResourceType>,
        entries: &mut Vec<TypeEntry>,
    ) -> Result<(), GatherError> {
        // The largest first: small ones fill the gaps, and none of many pages is left alone at the end.
        types.sort_by_cached_key(|candidate| {
            let stand = self.instant.stands.get(&candidate.group_resource());
            std::cmp::Reverse(stand.and_then(|stand| stand.objects))
        });
        let mut reads = stream::iter(types.into_iter().map(|candidate| self.read_type(candidate)))
            .buffer_unordered(TYPES_AT_ONCE);
        while let Some(read) = reads.next().await {
            entries.extend(read?);
        }
        Ok(())
    }

    /// Reads one type; an API error is its own, and the others go on.
    async fn read_type(&self, candidate: &ResourceType) -> Result<Option<TypeEntry>, GatherError> {
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
        let entry = match &self.namespaces.few {
            Some(names) if candidate.namespaced => {
                let mut reading = self.reading(candidate, None);
                for namespace in names {
                    self.read_list(&mut reading, Some(namespace)).await?;
                }
                self.end(reading).await?
            }
            _ => match self.parts(candidate) {
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
        self.choice.note_type(&entry.resource);
        Ok(Some(entry))
    }

    /// The namespaces to read a type by, one by one and several at once, when there are enough objects in each.
    fn parts(&self, candidate: &ResourceType) -> Option<&[String]> {
        let stand = self.instant.stands.get(&candidate.group_resource());
        let objects = stand.and_then(|stand| stand.objects).unwrap_or_default();
        if !candidate.namespaced
            || objects < PARTS_FROM
            // Lists of what is current would each be of another moment.
            || self.instant.at(candidate) == At::Now
            // Then nobody knows how many will come.
            || self.selector_of(candidate).is_some()
        {
            return None;
        }
        let names = &self.namespaces.all;
        let parts = names.len() as u64;
        (parts > 1 && parts * PART_MEAN <= objects).then_some(names)
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
        let at = self.instant.at(candidate);
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
        if metadata.is_of_a_snapshot() {
            return Ok(());
        }
        let unreadable = |source| malformed(candidate, source);
        let resource = &reading.read.entry.resource;
        let wanted = self.choice.takes(resource, &metadata, item);
        if !wanted.map_err(unreadable)? {
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
        let noted = self.choice.note(resource, &metadata, item);
        noted.map_err(unreadable)?;
        if resource == VOLUMES {
            self.note_volume(&item.read().map_err(unreadable)?);
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

    /// Says of a volume that came after snapshots were taken that its data is not in the backup.
    fn note_volume(&self, volume: &PersistentVolume) {
        let Some(Late { record, missing }) = self.looked.late(volume) else {
            return;
        };
        if let Some((weight, text)) = missing {
            weight.say(self.log, &mut self.report(), text);
        }
        let late = self.late_volumes.lock();
        late.unwrap_or_else(PoisonError::into_inner).push(record);
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
        self.choice.note_failure(resource);
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
