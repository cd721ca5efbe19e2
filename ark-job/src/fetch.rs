//! Fetch: one stored file of a committed backup, as it is stored, to standard output. What is said goes to standard error.
//!
//! It is how a backup is read where only the cluster can reach the bucket: a pod is held ([`FetchArgs::hold`]), and the
//! plugin runs this in it, or another operation that only reads. It writes nothing, so it needs no identity and no record.

use crate::archive::read::ReadError;
use crate::args::{FetchArgs, FetchFile, word};
use crate::cluster::Cluster;
use crate::context::{Environment, Outcome, open_store, parse_url, storage_failure};
use crate::error::Failure;
use crate::exit::Exit;
use crate::identity::{Origin, RunId};
use crate::layout::BackupKeys;
use crate::marker::Marker;
use crate::repository::{Described, Found, RepositoryError, Served, find, open_found};
use crate::rights;
use crate::stdout;
use crate::store::{ObjectReader, Store, StoreError};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::{Duration, Instant};

/// A pod is held this long after the last fetch in it. The plugin starts the first within seconds, and removes the pod
/// itself; this is for a plugin that was killed.
const HELD_IDLE: Duration = Duration::from_secs(120);
/// How often the holder looks whether a fetch is running.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Locked by everything that is at work in a held pod, in its temporary directory.
const LOCK: &str = "ark-fetch.lock";

/// Performs one fetch, or holds the pod for others.
///
/// # Errors
/// When the file is not there, or not as it was stored: what has been written until then must not be used.
pub async fn run(
    cluster: &Cluster,
    namespace: &str,
    arguments: &FetchArgs,
    environment: &Environment,
) -> Result<Outcome, Failure> {
    let FetchArgs {
        backup,
        storage,
        file,
        hold,
    } = arguments;
    let url = storage.storage.as_deref().map(parse_url).transpose()?;
    if *hold {
        let outcome = hold_pod(&environment.temporary, HELD_IDLE, LOOK_INTERVAL).await?;
        return Ok(Outcome {
            hint: give_up_rights(cluster, namespace, environment).await,
            ..outcome
        });
    }
    let _held = at_work(environment)?;
    let store = open_store(cluster, namespace, storage.location.as_deref(), url).await?;
    let mut stored = Stored::open(&store, backup, *file).await?;
    let mut sent = 0;
    while let Some(piece) = stored.next().await? {
        sent += piece.len() as u64;
        stdout::write(piece).await?;
    }
    Ok(Outcome {
        exit: Exit::Done,
        message: format!("{sent} bytes of backup {backup} ({})", word(*file)),
        hint: None,
    })
}

/// Gives up the rights that a pod for the plan of a restore was given, when whoever held it did not come to it. A pod that
/// only reads storage may not look at them, and does nothing.
async fn give_up_rights(
    cluster: &Cluster,
    namespace: &str,
    environment: &Environment,
) -> Option<String> {
    let giving_up = async {
        let cluster_uid = cluster.uid().await?;
        let own = environment.job_uid.as_ref().map(|uid| {
            let origin = Origin::Job { uid: uid.clone() };
            RunId::new(&cluster_uid, namespace, &origin)
        });
        rights::give_up_after(cluster, namespace, &cluster_uid, own.as_ref()).await
    };
    match giving_up.await {
        Ok(said) => said.map(str::to_owned),
        Err(error) => Some(rights::not_given_up(namespace, &error)),
    }
}

/// Tells the holder of the pod, if there is one, that somebody is at work: until what is returned is dropped.
///
/// # Errors
/// When the holder cannot be told.
pub fn at_work(environment: &Environment) -> Result<Option<File>, Failure> {
    lock(&environment.temporary, environment.pod_uid.is_some())
}

fn lock(temporary: &Path, in_pod: bool) -> Result<Option<File>, Failure> {
    let path = temporary.join(LOCK);
    let failed = |error: io::Error| {
        Failure::new(Exit::Failed, format!("locking {}: {error}", path.display()))
    };
    if !in_pod {
        return Ok(None);
    }
    match File::open(&path) {
        Ok(file) => file.lock_shared().map(|()| Some(file)).map_err(failed),
        // A Job that fetches by itself is not held.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// Does nothing until no fetch has run for a while.
async fn hold_pod(
    temporary: &Path,
    idle: Duration,
    interval: Duration,
) -> Result<Outcome, Failure> {
    let path = temporary.join(LOCK);
    let failed = |error: io::Error| {
        Failure::new(
            Exit::Failed,
            format!("holding the pod with {}: {error}", path.display()),
        )
    };
    let file = File::create(&path).map_err(failed)?;
    let mut last = Instant::now();
    while last.elapsed() < idle {
        tokio::time::sleep(interval).await;
        match file.try_lock() {
            Ok(()) => file.unlock().map_err(failed)?,
            Err(TryLockError::WouldBlock) => last = Instant::now(),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
    }
    Ok(Outcome {
        exit: Exit::Done,
        message: "nothing has been read for a while".into(),
        hint: None,
    })
}

/// The key of the object that has a file of a backup: the footer is a part of the archive.
pub fn key(keys: &BackupKeys, file: FetchFile) -> String {
    match file {
        FetchFile::Archive | FetchFile::Footer => keys.archive(),
        FetchFile::Marker => keys.marker(),
        FetchFile::Logs => keys.logs(),
        FetchFile::ResourceList => keys.resource_list(),
        FetchFile::Results => keys.results(),
    }
}

/// A stored file, checked while it is read.
///
/// The chain is marker → footer → members, and marker → files. A log has no digest: any attempt may have written it.
#[derive(Debug)]
pub struct Stored {
    reader: ObjectReader,
    check: Check,
    key: String,
}

impl Stored {
    /// Starts reading a file of the backup called `backup`.
    ///
    /// Of everything but the archive, the archive is not touched.
    ///
    /// # Errors
    /// When there is no such backup, or it is not whole.
    pub async fn open(store: &Store, backup: &str, file: FetchFile) -> Result<Stored, Failure> {
        let keys = BackupKeys::new(backup);
        let found = find(store, backup).await?;
        let marker = match &found.described {
            Described::Ours(marker) => marker.clone(),
            Described::Foreign(_) => return Stored::foreign(store, backup, file, &found).await,
        };
        let key = key(&keys, file);
        let pieces = match file {
            FetchFile::Archive => {
                // One of ours needs no room.
                let open = open_found(store, backup, found, Path::new(""), Served::new()).await?;
                let members = open.footer.members.iter().map(|member| Piece {
                    length: member.length,
                    sha256: member.sha256.clone(),
                    what: format!(
                        "the member at {}+{} ({})",
                        member.offset, member.length, member.resource
                    ),
                });
                members.chain([footer_piece(&marker)]).collect()
            }
            FetchFile::Footer => [footer_piece(&marker)].into(),
            FetchFile::Marker | FetchFile::Logs => VecDeque::new(),
            FetchFile::ResourceList | FetchFile::Results => {
                let name = key.strip_prefix(&keys.directory()).unwrap_or(&key);
                let recorded =
                    marker.commit.files.get(name).ok_or_else(|| {
                        damaged(backup, format!("its marker does not know {name}"))
                    })?;
                let piece = Piece {
                    length: recorded.length,
                    sha256: recorded.sha256.clone(),
                    what: key.clone(),
                };
                [piece].into()
            }
        };
        let found = match file {
            FetchFile::Footer => read_footer(store, &key, &marker).await,
            _ => store.read(&key).await,
        };
        let found = found.map_err(|error| storage_failure(&error))?;
        let reader = found.ok_or_else(|| match file {
            FetchFile::Logs => Failure::new(
                Exit::NotFound,
                format!("backup {backup} has no log: there is no {key}"),
            ),
            _ => damaged(backup, format!("{key} is missing")),
        })?;
        let recorded: u64 = pieces.iter().map(|piece| piece.length).sum();
        if matches!(file, FetchFile::ResourceList | FetchFile::Results)
            && reader.length() != recorded
        {
            let length = reader.length();
            return Err(damaged(
                backup,
                format!("{key} has {length} bytes, not the recorded {recorded}"),
            ));
        }
        Ok(Stored {
            reader,
            check: Check::new(backup, pieces),
            key,
        })
    }

    /// Starts reading a file of a backup that Velero or original Ark made: they record no digests, so it comes as it is.
    async fn foreign(
        store: &Store,
        backup: &str,
        file: FetchFile,
        found: &Found,
    ) -> Result<Stored, Failure> {
        let stem = found.archive.strip_suffix(".tar.gz");
        let stem = stem.unwrap_or(&found.archive);
        let key = match file {
            FetchFile::Footer => {
                let origin = found.origin();
                return Err(Failure::new(
                    Exit::NotFound,
                    format!(
                        "backup {backup} of {origin} has no footer: only our archives have one"
                    ),
                ));
            }
            FetchFile::Archive => found.archive.clone(),
            FetchFile::Marker => found.description.clone(),
            FetchFile::Logs => format!("{stem}-logs.gz"),
            FetchFile::ResourceList => format!("{stem}-resource-list.json.gz"),
            FetchFile::Results => format!("{stem}-results.gz"),
        };
        let reader = store.read(&key).await;
        let reader = reader.map_err(|error| storage_failure(&error))?;
        let reader = reader.ok_or_else(|| match file {
            FetchFile::Archive => damaged(backup, format!("{key} is missing")),
            _ => Failure::new(
                Exit::NotFound,
                format!(
                    "backup {backup} of {} has no {}: there is no {key}",
                    found.origin(),
                    word(file)
                ),
            ),
        })?;
        Ok(Stored {
            reader,
            check: Check::new(backup, VecDeque::new()),
            key,
        })
    }

    /// Starts reading the object `key` of `store`, a copy of the footer of a backup whose marker is there, too.
    ///
    /// # Errors
    /// As [`Stored::open`].
    pub async fn footer_copy(store: &Store, backup: &str, key: &str) -> Result<Stored, Failure> {
        let marker = match find(store, backup).await?.described {
            Described::Ours(marker) => marker,
            Described::Foreign(_) => {
                return Err(damaged(backup, "its marker is not one of ours".into()));
            }
        };
        let found = store.read(key).await;
        let found = found.map_err(|error| storage_failure(&error))?;
        Ok(Stored {
            reader: found.ok_or_else(|| damaged(backup, format!("{key} is missing")))?,
            check: Check::new(backup, [footer_piece(&marker)].into()),
            key: key.to_owned(),
        })
    }

    /// How many bytes will come.
    pub fn length(&self) -> u64 {
        self.reader.length()
    }

    /// The next bytes, or `None` at the end.
    ///
    /// # Errors
    /// When storage fails, or a piece that has ended is not what was written: nothing that came may be used then.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let next = self.reader.next().await;
        let bytes = next.map_err(|error| Failure::from(RepositoryError::Store(error)))?;
        match &bytes {
            Some(bytes) => self.check.take(bytes)?,
            None => self.check.end(&self.key)?,
        }
        Ok(bytes)
    }
}

fn footer_piece(marker: &Marker) -> Piece {
    let archive = &marker.commit.archive;
    Piece {
        length: archive.footer_length,
        sha256: archive.footer_sha256.clone(),
        what: "the archive's footer".into(),
    }
}

async fn read_footer(
    store: &Store,
    archive: &str,
    marker: &Marker,
) -> Result<Option<ObjectReader>, StoreError> {
    let recorded = &marker.commit.archive;
    let from = recorded.footer_offset;
    let range = from..from.saturating_add(recorded.footer_length);
    match store.read_range(archive, range).await {
        Ok(reader) => Ok(Some(reader)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn damaged(backup: &str, why: String) -> Failure {
    RepositoryError::Damaged {
        backup: backup.to_owned(),
        why,
    }
    .into()
}

/// Bytes with a recorded digest.
#[derive(Debug)]
struct Piece {
    length: u64,
    sha256: String,
    what: String,
}

/// Compares pieces that follow each other with their digests. What comes after the last is somebody else's to check.
#[derive(Debug)]
struct Check {
    backup: String,
    pieces: VecDeque<Piece>,
    taken: u64,
    digest: Sha256,
}

impl Check {
    fn new(backup: &str, pieces: VecDeque<Piece>) -> Check {
        Check {
            backup: backup.to_owned(),
            pieces,
            taken: 0,
            digest: Sha256::new(),
        }
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        while let Some(piece) = self.pieces.front() {
            let left = usize::try_from(piece.length - self.taken).unwrap_or(usize::MAX);
            if bytes.len() < left {
                self.digest.update(bytes);
                self.taken += bytes.len() as u64;
                return Ok(());
            }
            let (of_piece, rest) = bytes.split_at(left);
            self.digest.update(of_piece);
            if hex::encode(self.digest.finalize_reset()) != piece.sha256 {
                return Err(RepositoryError::Archive {
                    backup: self.backup.clone(),
                    source: ReadError::Digest {
                        what: piece.what.clone(),
                    },
                }
                .into());
            }
            self.pieces.pop_front();
            self.taken = 0;
            bytes = rest;
        }
        Ok(())
    }

    fn end(&self, key: &str) -> Result<(), Failure> {
        match self.pieces.front() {
            None => Ok(()),
            Some(piece) => Err(damaged(
                &self.backup,
                format!("{key} ends within {}", piece.what),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check() -> Check {
        let piece = |bytes: &[u8]| Piece {
            length: bytes.len() as u64,
            sha256: hex::encode(Sha256::digest(bytes)),
            what: String::from_utf8_lossy(bytes).into_owned(),
        };
        Check::new("b", [piece(b"first"), piece(b""), piece(b"second")].into())
    }

    #[test]
    fn pieces_are_checked_however_they_come() {
        let whole = b"firstsecond and more";
        for size in 1..=whole.len() {
            let mut check = check();
            for bytes in whole.chunks(size) {
                check.take(bytes).unwrap();
            }
            check.end("k").unwrap();
        }
    }

    #[tokio::test]
    async fn a_pod_is_held_as_long_as_something_is_fetched_in_it() {
        let directory = tempfile::tempdir().unwrap();
        let hold = || {
            hold_pod(
                directory.path(),
                Duration::from_millis(50),
                Duration::from_millis(5),
            )
        };
        // Without a holder, or outside of a pod, there is nothing to tell.
        assert!(lock(directory.path(), true).unwrap().is_none());
        assert_eq!(hold().await.unwrap().exit, Exit::Done);
        assert!(lock(directory.path(), false).unwrap().is_none());
        let fetching = lock(directory.path(), true).unwrap().unwrap();
        let second = lock(directory.path(), true).unwrap().unwrap();
        drop(second);
        let mut held = std::pin::pin!(hold());
        let long = Duration::from_millis(300);
        assert!(tokio::time::timeout(long, &mut held).await.is_err());
        drop(fetching);
        assert_eq!(held.await.unwrap().exit, Exit::Done);
    }

    #[test]
    fn a_changed_byte_and_a_missing_end_are_found() {
        let mut changed = check();
        changed.take(b"first").unwrap();
        let failure = changed.take(b"sEcond").unwrap_err();
        assert_eq!(failure.exit(), Exit::Integrity);
        assert!(
            failure.message().contains("second"),
            "{}",
            failure.message()
        );
        let mut cut = check();
        cut.take(b"firstsec").unwrap();
        assert_eq!(cut.end("k").unwrap_err().exit(), Exit::Integrity);
    }
}
