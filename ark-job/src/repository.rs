//! The repository edge: a committed backup in a store, opened for reading.
//!
//! Of ours: marker → end of the archive → footer → members, each checked against what the one before says of it. Of
//! Velero's and original Ark's, which have neither digests nor an index: all of the archive once, into a spool that has
//! both. So nothing of a damaged backup is ever handed out. What the objects inside mean is not looked at here.

mod find;
pub mod inventory;
mod spooled;

pub use self::find::{Described, Found, describe, find};

use crate::api::{BackupProgress, BackupStatus, FORMAT_VERSION};
use crate::archive::footer::{Footer, Head, Member};
use crate::archive::foreign::ForeignError;
use crate::archive::key;
use crate::archive::read::{self, OpenMember, ReadError};
use crate::archive::write::END_LENGTH;
use crate::error::Failure;
use crate::exit::Exit;
use crate::foreign::{Description, DescriptionError, Origin};
use crate::marker::{Marker, MarkerError};
use crate::store::{Store, StoreError, read_exact_at};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use std::collections::hash_map::{Entry, RandomState};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::hash::BuildHasher;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use tokio::sync::oneshot;

/// A marker is kilobytes: the spec, digests, at most a hundred messages.
pub(crate) const MARKER_MAX: u64 = 16 << 20;
/// Members read at once by a check, each about 1 MiB: enough to hide the way to the store.
const CHECKED_AHEAD: usize = 4;

/// The versions that each type, as `resource[.group]`, is served in, the preferred one first: where the objects of a
/// backup are to go. It decides which version is read of a backup that has several; empty when nothing is known.
pub type Served = BTreeMap<String, Vec<String>>;

/// What to do when a backup is not where it was looked for.
pub const WHERE_BACKUPS_ARE: &str = "`kubectl ark get backups` shows those that this cluster knows of, and their locations; \
     with --location NAME, what is stored there";

/// Why a backup cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// There is none.
    #[error("there is no backup {backup:?} in {location}")]
    NotFound {
        /// The backup.
        backup: String,
        /// Where it was looked for.
        location: String,
    },
    /// It is going away.
    #[error("backup {backup:?} in {location} is being deleted")]
    BeingDeleted {
        /// The backup.
        backup: String,
        /// Where it is.
        location: String,
    },
    /// It is ours, and was never committed.
    #[error("backup {backup:?} is not complete: it has no marker, so it was never committed")]
    Uncommitted {
        /// The backup.
        backup: String,
    },
    /// Somebody else made it, and did not come to its end.
    #[error(
        "backup {backup:?} of {origin} is in phase {phase:?}; only Completed and PartiallyFailed ones can be read"
    )]
    Incomplete {
        /// The backup.
        backup: String,
        /// Who made it.
        origin: Origin,
        /// Its phase.
        phase: String,
    },
    /// Somebody else's description cannot be used.
    #[error("the description of backup {backup:?} in {key} cannot be used")]
    Description {
        /// The backup.
        backup: String,
        /// Key of the description.
        key: String,
        /// In which way.
        #[source]
        source: DescriptionError,
    },
    /// Somebody else's archive is not whole, or not sound.
    #[error("backup {backup:?} is damaged: in {key}")]
    Foreign {
        /// The backup.
        backup: String,
        /// Key of the archive.
        key: String,
        /// In which way.
        #[source]
        source: ForeignError,
    },
    /// The archive does not fit into the temporary directory.
    #[error(
        "there is no room in {directory} for the objects of backup {backup:?}: about {} MiB are needed",
        needed.div_ceil(1 << 20)
    )]
    NoRoom {
        /// The backup.
        backup: String,
        /// The temporary directory.
        directory: String,
        /// How much is needed, bytes.
        needed: u64,
    },
    /// The temporary directory cannot be used.
    #[error("using a temporary file in {directory}")]
    Spool {
        /// The temporary directory.
        directory: String,
        /// What failed.
        #[source]
        source: io::Error,
    },
    /// Its marker is there but cannot be used.
    #[error("the marker of backup {backup:?} cannot be used")]
    Marker {
        /// The backup.
        backup: String,
        /// In which way.
        #[source]
        source: MarkerError,
    },
    /// The parts do not belong together.
    #[error("backup {backup:?} is damaged: {why}")]
    Damaged {
        /// The backup.
        backup: String,
        /// In which way.
        why: String,
    },
    /// The archive does not hold what it must.
    #[error("backup {backup:?} cannot be read")]
    Archive {
        /// The backup.
        backup: String,
        /// In which way.
        #[source]
        source: ReadError,
    },
    /// The machine has no thread left.
    #[error("starting a thread")]
    Thread(#[source] io::Error),
    /// The store does not answer, or not well.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<RepositoryError> for Failure {
    fn from(error: RepositoryError) -> Failure {
        let exit = match &error {
            RepositoryError::NotFound { .. }
            | RepositoryError::BeingDeleted { .. }
            | RepositoryError::Uncommitted { .. }
            | RepositoryError::Incomplete { .. } => Exit::NotFound,
            RepositoryError::Description { source, .. } => match source {
                DescriptionError::UnknownFormat(_) => Exit::Failed,
                _ => Exit::Integrity,
            },
            RepositoryError::Foreign { source, .. } => match source {
                ForeignError::UnknownFormat(_) => Exit::Failed,
                _ => Exit::Integrity,
            },
            RepositoryError::Marker { source, .. } => match source {
                MarkerError::Malformed(_) => Exit::Integrity,
                MarkerError::Foreign | MarkerError::UnknownFormat { .. } => Exit::Failed,
            },
            RepositoryError::Archive { source, .. } => match source {
                ReadError::UnknownFormat { .. } => Exit::Failed,
                _ => Exit::Integrity,
            },
            RepositoryError::Damaged { .. } | RepositoryError::Store(StoreError::Short { .. }) => {
                Exit::Integrity
            }
            RepositoryError::Store(error) if error.is_not_found() || error.is_bucket_missing() => {
                Exit::NotFound
            }
            RepositoryError::Store(_)
            | RepositoryError::Thread(_)
            | RepositoryError::NoRoom { .. }
            | RepositoryError::Spool { .. } => Exit::Failed,
        };
        let hint = match &error {
            RepositoryError::NotFound { .. } => {
                Some(WHERE_BACKUPS_ARE.to_owned())
            }
            RepositoryError::BeingDeleted { backup, .. } => Some(format!(
                "`kubectl ark backup undelete {backup}` takes that back, if all of it is still there; `kubectl ark get backups --show-deleted` says whether"
            )),
            RepositoryError::Store(error) => error.hint(),
            RepositoryError::Uncommitted { .. } => {
                Some("if its run is still at work, wait for it; else make another backup".to_owned())
            }
            RepositoryError::NoRoom { .. } => Some(
                "raise the sizeLimit of the Job's emptyDir volume `tmp`, or with --local set TMPDIR to a larger disk"
                    .to_owned(),
            ),
            RepositoryError::Marker {
                source: MarkerError::UnknownFormat { .. },
                ..
            }
            | RepositoryError::Archive {
                source: ReadError::UnknownFormat { .. },
                ..
            } => Some("use the version of ark that made the backup, or a later one".to_owned()),
            _ => None,
        };
        Failure::from_error(exit, &error).maybe_hint(hint)
    }
}

/// A backup whose description has been read and checked, and whose members can be.
#[derive(Debug)]
pub struct OpenBackup {
    /// Who made it.
    pub origin: Origin,
    /// Its marker, if it is ours.
    pub marker: Option<Marker>,
    /// What its archive holds, and where; of somebody else's, made when it was spooled. The head has what there is to
    /// know of the backup: its name, phase, times, what was asked for.
    pub footer: Footer,
    /// Length of its archive, bytes.
    pub length: u64,
    name: String,
    source: Source,
    worker: Worker,
    /// By member: whether its objects have been compared with their paths.
    compared: Vec<AtomicBool>,
    /// Of unsorted types, in which member each key has been seen.
    seen: Mutex<HashMap<u64, usize>>,
    hasher: RandomState,
}

/// Where members are read from.
#[derive(Debug)]
enum Source {
    Archive { store: Store, key: String },
    Spool(Arc<File>),
}

/// The one thread on which members are checked, unpacked and worked on.
///
/// Not the runtime's: each of its threads would keep the memory of the largest member that it ever saw.
#[derive(Debug)]
struct Worker {
    work: mpsc::Sender<Box<dyn FnOnce() + Send>>,
}

impl Worker {
    fn start() -> io::Result<Worker> {
        let (work, due) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        std::thread::Builder::new()
            .name("members".into())
            .spawn(move || due.into_iter().for_each(|work| work()))?;
        Ok(Worker { work })
    }

    /// Runs `work` on the thread; nothing when the thread is gone, since earlier work panicked.
    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (answer, result) = oneshot::channel();
        let work = Box::new(move || {
            // Nobody may be waiting any more.
            drop(answer.send(work()));
        });
        self.work.send(work).ok()?;
        result.await.ok()
    }
}

/// Reads the marker of the backup called `name`: what there is to know of it without its archive.
///
/// # Errors
/// When it is not there, not ours, being deleted, or not readable.
pub async fn read_marker(store: &Store, name: &str) -> Result<Marker, RepositoryError> {
    match find(store, name).await?.described {
        Described::Ours(marker) => Ok(*marker),
        Described::Foreign(_) => Err(RepositoryError::Marker {
            backup: name.to_owned(),
            source: MarkerError::Foreign,
        }),
    }
}

/// Opens the backup called `name`, whoever made it.
///
/// One of ours costs three small reads. One of Velero's or original Ark's is read as a whole, into a spool in
/// `temporary`, in the version of each type that suits `served`.
///
/// # Errors
/// When it is not there, being deleted, not whole, or not readable.
pub async fn open_backup(
    store: &Store,
    name: &str,
    temporary: &Path,
    served: Served,
) -> Result<OpenBackup, RepositoryError> {
    open_found(store, name, find(store, name).await?, temporary, served).await
}

/// Opens a backup that [`find`] has found, as [`open_backup`] does.
///
/// # Errors
/// When it is not whole, or not readable.
pub async fn open_found(
    store: &Store,
    name: &str,
    found: Found,
    temporary: &Path,
    served: Served,
) -> Result<OpenBackup, RepositoryError> {
    match found.described {
        Described::Ours(marker) => open_ours(store, name, *marker, found.archive).await,
        Described::Foreign(description) => {
            let worker = Worker::start().map_err(RepositoryError::Thread)?;
            let key = &found.archive;
            let spooled = spooled::spool(store, name, key, temporary, served, &worker).await?;
            let footer = Footer {
                head: head(name, &description, &spooled),
                members: spooled.contents.members,
            };
            let source = Source::Spool(Arc::new(spooled.file));
            let mut backup = OpenBackup::new(name, footer, source, worker);
            backup.origin = description.origin;
            backup.length = spooled.length;
            Ok(backup)
        }
    }
}

/// What the footer of somebody else's backup would say.
fn head(name: &str, description: &Description, spooled: &spooled::Spooled) -> Head {
    let types = spooled.contents.types.clone();
    let items = types.iter().map(|entry| entry.items).sum();
    let mut status = description.status.clone();
    status.size = i64::try_from(spooled.length).ok();
    status.progress = Some(BackupProgress {
        total_items: Some(items),
        items_backed_up: items,
        bytes_read: types.iter().map(|entry| entry.bytes).sum(),
    });
    Head {
        format_version: FORMAT_VERSION.to_owned(),
        encryption: "none".to_owned(),
        backup: name.to_owned(),
        namespace: description.namespace.clone(),
        labels: description.labels.clone(),
        spec: description.spec.clone(),
        status,
        types,
        ..Head::default()
    }
}

async fn open_ours(
    store: &Store,
    name: &str,
    marker: Marker,
    archive: String,
) -> Result<OpenBackup, RepositoryError> {
    let backup = || name.to_owned();
    let damaged = |why: String| RepositoryError::Damaged {
        backup: backup(),
        why,
    };
    let recorded = &marker.commit.archive;
    let length = store
        .head(&archive)
        .await?
        .ok_or_else(|| damaged("its archive is missing".into()))?
        .length;
    if length != recorded.length {
        return Err(damaged(format!(
            "its archive has {length} bytes, not the recorded {}",
            recorded.length
        )));
    }
    let footer = read_footer(store, &archive, &marker)
        .await
        .map_err(|error| match error {
            FooterError::Store(error) => error.into(),
            FooterError::Read(source) => RepositoryError::Archive {
                backup: backup(),
                source,
            },
            FooterError::Differs => {
                damaged("its archive is not the one that its marker describes".into())
            }
        })?;
    // The marker repeats what the footer says; only the archive's length is not known before.
    let said = |status: &BackupStatus| BackupStatus {
        size: None,
        ..status.clone()
    };
    let head = &footer.head;
    if marker.spec != head.spec || said(&marker.status) != said(&head.status) {
        return Err(damaged(
            "its marker does not say what its archive says of what was asked for, or of what came of it".into(),
        ));
    }
    let source = Source::Archive {
        store: store.clone(),
        key: archive,
    };
    let worker = Worker::start().map_err(RepositoryError::Thread)?;
    let mut backup = OpenBackup::new(name, footer, source, worker);
    backup.length = length;
    backup.marker = Some(marker);
    Ok(backup)
}

enum FooterError {
    Store(StoreError),
    Read(ReadError),
    Differs,
}

async fn read_footer(store: &Store, archive: &str, marker: &Marker) -> Result<Footer, FooterError> {
    let recorded = &marker.commit.archive;
    let end = recorded
        .footer_offset
        .checked_add(recorded.footer_length)
        .filter(|&end| end.checked_add(END_LENGTH as u64) == Some(recorded.length))
        .ok_or(FooterError::Differs)?;
    let bytes = store
        .get_range(archive, recorded.footer_offset..recorded.length)
        .await
        .map_err(FooterError::Store)?;
    // Footer and end member together are small: one read gets both.
    let split = usize::try_from(end - recorded.footer_offset)
        .ok()
        .filter(|&split| split <= bytes.len())
        .ok_or(FooterError::Differs)?;
    let (footer, tail) = bytes.split_at(split);
    let place = read::locate(tail, recorded.length).map_err(FooterError::Read)?;
    if place.offset != recorded.footer_offset
        || place.length != recorded.footer_length
        || hex::encode(place.sha256) != recorded.footer_sha256
    {
        return Err(FooterError::Differs);
    }
    let footer = read::footer(footer, &place).map_err(FooterError::Read)?;
    if footer.head.backup != marker.metadata.name || footer.head.run_id != marker.commit.run_id {
        return Err(FooterError::Differs);
    }
    Ok(footer)
}

impl OpenBackup {
    fn new(name: &str, footer: Footer, source: Source, worker: Worker) -> OpenBackup {
        OpenBackup {
            origin: Origin::Ark,
            marker: None,
            length: 0,
            name: name.to_owned(),
            source,
            worker,
            compared: footer
                .members
                .iter()
                .map(|_| AtomicBool::new(false))
                .collect(),
            seen: Mutex::default(),
            hasher: RandomState::new(),
            footer,
        }
    }

    /// Reads every member and checks it, and that all together hold what the footer says of each type.
    ///
    /// `checked` is told how many bytes of the archive have been.
    ///
    /// # Errors
    /// At the first thing that is not as it was written.
    pub async fn check(
        self: &Arc<Self>,
        mut checked: impl FnMut(u64),
    ) -> Result<(), RepositoryError> {
        let indices = (0..self.footer.members.len()).collect();
        let members = self.read_members(indices, CHECKED_AHEAD, |member, opened| {
            let bytes: usize = opened.entries().map(|entry| entry.body.len()).sum();
            let end = member.offset + member.length;
            (member.resource.clone(), member.items, bytes as u64, end)
        });
        let mut members = std::pin::pin!(members);
        let mut found: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        while let Some(member) = members.next().await {
            let (resource, items, bytes, end) = member?;
            let of_type = found.entry(resource).or_default();
            *of_type = (of_type.0 + items, of_type.1 + bytes);
            checked(end);
        }
        for entry in &self.footer.head.types {
            let (items, bytes) = found.remove(&entry.resource).unwrap_or_default();
            if (items, bytes) != (entry.items, entry.bytes) {
                return Err(RepositoryError::Damaged {
                    backup: self.name.clone(),
                    why: format!(
                        "it holds {items} {} of {bytes} bytes, not {} of {}",
                        entry.resource, entry.items, entry.bytes
                    ),
                });
            }
        }
        Ok(())
    }

    /// Reads one member, checks it and unpacks it.
    ///
    /// # Errors
    /// When the store fails, or what comes is not what the footer says.
    pub async fn read_member(
        self: &Arc<Self>,
        index: usize,
    ) -> Result<OpenMember, RepositoryError> {
        self.work_on(index, |_, opened| opened).await
    }

    /// Reads the members at `indices` in this order, `ahead` at once, and hands out what `work` makes of each.
    ///
    /// `work` runs where computing does not hold up requests. A member is about 1 MiB unpacked, so memory is bounded by
    /// `ahead` and by what the caller keeps.
    pub fn read_members<T, W>(
        self: &Arc<Self>,
        indices: Vec<usize>,
        ahead: usize,
        work: W,
    ) -> impl Stream<Item = Result<T, RepositoryError>> + Send + use<T, W>
    where
        T: Send + 'static,
        W: Fn(&Member, OpenMember) -> T + Clone + Send + 'static,
    {
        let backup = Arc::clone(self);
        futures::stream::iter(indices)
            .map(move |index| {
                let (backup, work) = (Arc::clone(&backup), work.clone());
                async move { backup.work_on(index, work).await }
            })
            .buffered(ahead)
    }

    async fn work_on<T: Send + 'static>(
        self: &Arc<Self>,
        index: usize,
        work: impl FnOnce(&Member, OpenMember) -> T + Send + 'static,
    ) -> Result<T, RepositoryError> {
        let Some(member) = self.footer.members.get(index) else {
            return Err(RepositoryError::Damaged {
                backup: self.name.clone(),
                why: format!("it has no member {index}"),
            });
        };
        // That the end does not overflow has been checked with the footer.
        let range = member.offset..member.offset + member.length;
        let bytes = match &self.source {
            Source::Archive { store, key } => store.get_range(key, range).await?,
            // Read where it is worked on.
            Source::Spool(_) => Bytes::new(),
        };
        let backup = Arc::clone(self);
        let worked = self.worker.run(move || {
            let member = &backup.footer.members[index];
            let bytes = match &backup.source {
                Source::Archive { .. } => bytes,
                Source::Spool(file) => backup.read_spool(file, member)?,
            };
            let opened = read::open_member(&bytes, member, &backup.footer)
                .and_then(|opened| backup.compare(index, opened))
                .map_err(|source| RepositoryError::Archive {
                    backup: backup.name.clone(),
                    source,
                })?;
            Ok(work(member, opened))
        });
        worked.await.unwrap_or_else(|| {
            Err(RepositoryError::Damaged {
                backup: self.name.clone(),
                why: format!("reading member {index} crashed"),
            })
        })
    }

    fn read_spool(&self, file: &File, member: &Member) -> Result<Bytes, RepositoryError> {
        let length = usize::try_from(member.length).unwrap_or(usize::MAX);
        read_exact_at(file, member.offset, length).map_err(|source| RepositoryError::Spool {
            directory: "the temporary directory".to_owned(),
            source,
        })
    }

    /// Checks of a member that is seen for the first time that its objects are what their paths say, and that none of
    /// them has been in another member: sorted types show that by their lines in the footer.
    fn compare(&self, index: usize, opened: OpenMember) -> Result<OpenMember, ReadError> {
        let ours = matches!(self.source, Source::Archive { .. });
        if !ours || self.compared[index].swap(true, Ordering::Relaxed) {
            return Ok(opened);
        }
        let member = &self.footer.members[index];
        let malformed = |why: String| ReadError::Malformed {
            what: format!(
                "the member at {}+{} ({})",
                member.offset, member.length, member.resource
            ),
            why,
        };
        let Some(entry) = self.footer.type_entry(&member.resource) else {
            return Ok(opened);
        };
        opened.check_identities().map_err(malformed)?;
        if entry.unsorted {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            for object in opened.entries() {
                let place = (&member.resource, object.namespace, object.name);
                match seen.entry(self.hasher.hash_one(place)) {
                    Entry::Vacant(free) => {
                        free.insert(index);
                    }
                    Entry::Occupied(taken) if *taken.get() == index => {}
                    Entry::Occupied(_) => {
                        return Err(malformed(format!(
                            "{} is in another member, too",
                            key(object.namespace, object.name)
                        )));
                    }
                }
            }
        }
        Ok(opened)
    }
}
