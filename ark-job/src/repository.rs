//! The repository edge: a committed backup in a store, opened for reading.
//!
//! Marker → end of the archive → footer → members: each is checked against what the one before says of it, so nothing
//! of a damaged backup is ever handed out. What the objects inside mean is not looked at here.

use crate::archive::footer::{Footer, Member};
use crate::archive::read::{self, OpenMember, ReadError};
use crate::archive::write::END_LENGTH;
use crate::error::Failure;
use crate::exit::Exit;
use crate::layout::BackupKeys;
use crate::marker::{Marker, MarkerError};
use crate::store::{Store, StoreError};
use futures::{Stream, StreamExt};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, mpsc};
use tokio::sync::oneshot;

/// A marker is kilobytes: the spec, digests, at most a hundred messages.
const MARKER_MAX: u64 = 16 << 20;
/// Members read at once by a check, each about 1 MiB: enough to hide the way to the store.
const CHECKED_AHEAD: usize = 4;

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
            RepositoryError::NotFound { .. } | RepositoryError::BeingDeleted { .. } => {
                Exit::NotFound
            }
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
            RepositoryError::Store(_) | RepositoryError::Thread(_) => Exit::Failed,
        };
        let hint = match &error {
            RepositoryError::NotFound { .. } => {
                Some("`kubectl ark get backups` shows those that this cluster knows of".to_owned())
            }
            RepositoryError::Store(error) => error.hint(),
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

/// A committed backup whose marker and footer have been read and checked.
#[derive(Debug)]
pub struct OpenBackup {
    /// Its marker.
    pub marker: Marker,
    /// What its archive holds, and where.
    pub footer: Footer,
    name: String,
    store: Store,
    archive: String,
    worker: Worker,
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
/// When it is not there, being deleted, or not readable.
pub async fn read_marker(store: &Store, name: &str) -> Result<Marker, RepositoryError> {
    let keys = BackupKeys::new(name);
    let location = || store.canonical().to_owned();
    let backup = || name.to_owned();
    let (tombstone, marker) = (keys.tombstone(), keys.marker());
    let (tombstone, marker) =
        futures::try_join!(store.head(&tombstone), store.get(&marker, MARKER_MAX))?;
    let Some(marker) = marker else {
        return Err(RepositoryError::NotFound {
            backup: backup(),
            location: location(),
        });
    };
    if tombstone.is_some() {
        return Err(RepositoryError::BeingDeleted {
            backup: backup(),
            location: location(),
        });
    }
    let marker = Marker::from_json(&marker).map_err(|source| RepositoryError::Marker {
        backup: backup(),
        source,
    })?;
    if marker.metadata.name != name {
        return Err(RepositoryError::Damaged {
            backup: backup(),
            why: format!("its marker is that of {:?}", marker.metadata.name),
        });
    }
    Ok(marker)
}

/// Opens the backup called `name`.
///
/// # Errors
/// When it is not there, being deleted, not whole, or not readable.
pub async fn open_backup(store: &Store, name: &str) -> Result<OpenBackup, RepositoryError> {
    let marker = read_marker(store, name).await?;
    let keys = BackupKeys::new(name);
    let backup = || name.to_owned();
    let damaged = |why: String| RepositoryError::Damaged {
        backup: backup(),
        why,
    };
    let recorded = &marker.commit.archive;
    let archive = keys.archive();
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
    Ok(OpenBackup {
        marker,
        footer,
        name: backup(),
        store: store.clone(),
        archive,
        worker: Worker::start().map_err(RepositoryError::Thread)?,
    })
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
        let bytes = self.store.get_range(&self.archive, range).await?;
        let backup = Arc::clone(self);
        let worked = self.worker.run(move || {
            let member = &backup.footer.members[index];
            match read::open_member(&bytes, member, &backup.footer) {
                Ok(opened) => Ok(work(member, opened)),
                Err(source) => Err(RepositoryError::Archive {
                    backup: backup.name.clone(),
                    source,
                }),
            }
        });
        worked.await.unwrap_or_else(|| {
            Err(RepositoryError::Damaged {
                backup: self.name.clone(),
                why: format!("reading member {index} crashed"),
            })
        })
    }
}
