//! The commit: how a backup comes to exist completely or not at all, whoever else is writing.
//!
//! Every object is created on the condition that nothing has its key, the archive first and the marker last. So at most
//! one archive of a name ever exists, every later file follows from it, and twins and retries of one run end with the
//! same marker, whoever of them writes it. Nothing here overwrites or deletes, but a marker of our own whose backup is
//! being deleted. The protocol is defined in docs/format.md.

use super::gather::Names;
use super::names::NameLists;
use crate::api::{BackupStatus, FORMAT_VERSION, RUN_ANNOTATION};
use crate::archive::METADATA;
use crate::archive::footer::Footer;
use crate::archive::read::{self, ReadError};
use crate::archive::write::{END_LENGTH, FooterPlace};
use crate::context::{Context, storage_failure};
use crate::error::Failure;
use crate::exit::Exit;
use crate::identity::RunId;
use crate::layout::BackupKeys;
use crate::marker::{ArchiveDigest, Commit, FileDigest, MAX_LENGTH, Marker, Metadata};
use crate::mode;
use crate::store::{Created, ObjectMeta, Spool, SpoolReader, Store, StoreError};
use crate::tombstone::{self, Cause};
use crate::velero_backup::velero_backup;
use crate::volumes::{self, VolumeRecord};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

/// Files up to this size are written from memory, larger ones from a temporary file.
const SMALL: usize = 1 << 20;

/// What is stored under a backup's name.
pub enum Look {
    /// Nothing.
    Free,
    /// The backup of this run, and the ETag of its marker.
    Ours(Box<Marker>, String),
    /// An archive of this run without a marker: an attempt that was cut off.
    Unfinished(Box<Archive>),
    /// Something of somebody else.
    Taken(Taken),
}

/// Somebody else's.
pub struct Taken {
    /// Who, and what.
    pub by: String,
    /// Whether it is a whole backup, which can be kept.
    pub whole: bool,
}

impl Taken {
    fn not_whole(by: impl Into<String>) -> Look {
        Look::Taken(Taken {
            by: by.into(),
            whole: false,
        })
    }
}

/// An archive in storage.
pub struct Archive {
    /// Its footer.
    pub footer: Footer,
    /// Where the footer is.
    pub place: FooterPlace,
    /// Length, bytes.
    pub length: u64,
    /// Its ETag, by which a store shows that it is still this one.
    pub etag: String,
}

/// Looks at what is stored under a backup's name.
///
/// # Errors
/// When storage cannot be read, or what is there is damaged.
pub async fn look(store: &Store, keys: &BackupKeys, run: &RunId) -> Result<Look, Failure> {
    let listed = store
        .list(&keys.directory())
        .collect()
        .await
        .map_err(|error| storage_failure(&error))?;
    let find = |key: &str| listed.iter().find(|object| object.key == key);
    if let Some(tombstone) = find(&keys.tombstone()) {
        if find(&keys.marker()).is_none() || !is_void(store, keys).await? {
            return Ok(Taken::not_whole(
                "a backup of that name is being deleted, and the name is free when all of it is gone (deleting it again \
                 finishes that)",
            ));
        }
        // Its sweep was cut off, or has not come to look for the marker again: then it does the same.
        remove_tombstone(store, tombstone).await?;
    }
    let archive = find(&keys.archive());
    if let Some(marker) = find(&keys.marker()) {
        return look_at_marker(
            store,
            keys,
            run,
            &marker.etag,
            archive.map(|archive| archive.length),
        )
        .await;
    }
    if archive.is_some() {
        return look_at_archive(store, keys, run, find(&keys.velero_backup()).is_some()).await;
    }
    if find(&keys.velero_backup()).is_some() {
        return Ok(Taken::not_whole(
            "Velero, or a run that was cut off, has begun a backup of that name",
        ));
    }
    Ok(Look::Free)
}

/// Whether a tombstone that lies over a marker is that of a sweep, which never removes what is committed.
async fn is_void(store: &Store, keys: &BackupKeys) -> Result<bool, Failure> {
    let found = tombstone::read(store, &keys.tombstone()).await;
    let found = found.map_err(|error| storage_failure(&error))?;
    Ok(found.is_none_or(|found| found.cause() == Cause::Sweep))
}

async fn remove_tombstone(store: &Store, listed: &ObjectMeta) -> Result<(), Failure> {
    let failed = |error: StoreError| storage_failure(&error);
    let found = store.head(&listed.key).await.map_err(failed)?;
    if let Some(found) = found.filter(|found| found.etag == listed.etag) {
        let version = found.version.as_deref();
        store.delete(&listed.key, version).await.map_err(failed)?;
    }
    Ok(())
}

/// Whose is the marker, and is its archive there?
async fn look_at_marker(
    store: &Store,
    keys: &BackupKeys,
    run: &RunId,
    etag: &str,
    archive: Option<u64>,
) -> Result<Look, Failure> {
    let key = keys.marker();
    let Some(json) = store
        .get(&key, MAX_LENGTH)
        .await
        .map_err(|error| storage_failure(&error))?
    else {
        return Ok(Look::Free);
    };
    let marker = match Marker::from_json(&json) {
        Ok(marker) => marker,
        Err(error) => {
            return Ok(Taken::not_whole(format!(
                "{key} is there, but {}",
                crate::error::chain(&error)
            )));
        }
    };
    let whole = archive == Some(marker.commit.archive.length);
    if marker.commit.run_id != run.as_str() {
        let (run, cluster) = (&marker.commit.run_id, &marker.commit.cluster_uid);
        let name = marker.status.cluster_name.as_deref().unwrap_or_default();
        let called = match name {
            "" => String::new(),
            name => format!("{name}, "),
        };
        let by = format!("run {run} of cluster {called}{cluster} has made a backup of that name");
        return Ok(Look::Taken(Taken { by, whole }));
    }
    if !whole {
        let text = format!(
            "{key} says that this backup is complete, but its archive is missing or has another length"
        );
        return Err(Failure::new(Exit::Integrity, text)
            .hint("back up under another name, and delete this one"));
    }
    Ok(Look::Ours(Box::new(marker), etag.to_owned()))
}

async fn look_at_archive(
    store: &Store,
    keys: &BackupKeys,
    run: &RunId,
    velero: bool,
) -> Result<Look, Failure> {
    Ok(match open_archive(store, keys).await? {
        Stored::Nothing => Look::Free,
        Stored::Foreign => Look::Taken(Taken {
            by: "another program has a backup of that name".into(),
            whole: velero,
        }),
        Stored::Ours(archive) if archive.footer.head.run_id == run.as_str() => {
            Look::Unfinished(archive)
        }
        Stored::Ours(archive) => {
            let head = &archive.footer.head;
            Taken::not_whole(format!(
                "run {} of cluster {} has written an archive of that name and not committed it (yet)",
                head.run_id, head.cluster_uid
            ))
        }
    })
}

/// What is stored under an archive's key.
enum Stored {
    Nothing,
    /// An archive without our footer.
    Foreign,
    Ours(Box<Archive>),
}

/// Reads the footer of the archive in storage.
async fn open_archive(store: &Store, keys: &BackupKeys) -> Result<Stored, Failure> {
    let key = keys.archive();
    let failed = |error: StoreError| storage_failure(&error);
    let Some(meta) = store.head(&key).await.map_err(failed)? else {
        return Ok(Stored::Nothing);
    };
    let damaged = |error: ReadError| {
        Failure::new(
            Exit::Integrity,
            format!("{key}: {}", crate::error::chain(&error)),
        )
    };
    let tail_start = meta.length.saturating_sub(END_LENGTH as u64);
    let tail = store
        .get_range(&key, tail_start..meta.length)
        .await
        .map_err(failed)?;
    let place = match read::locate(&tail, meta.length) {
        Ok(place) => place,
        Err(ReadError::NoFooter) => return Ok(Stored::Foreign),
        Err(error) => return Err(damaged(error)),
    };
    let bytes = store
        .get_range(&key, place.offset..place.offset + place.length)
        .await
        .map_err(failed)?;
    let footer = read::footer(&bytes, &place).map_err(damaged)?;
    Ok(Stored::Ours(Box::new(Archive {
        footer,
        place,
        length: meta.length,
        etag: meta.etag,
    })))
}

/// The volumes that the archive in storage names: none when there is none, or another program's.
///
/// # Errors
/// When storage cannot say.
pub async fn volumes_in_storage(
    store: &Store,
    keys: &BackupKeys,
) -> Result<Vec<VolumeRecord>, Failure> {
    Ok(match open_archive(store, keys).await? {
        Stored::Ours(archive) => archive.footer.head.volumes,
        Stored::Nothing | Stored::Foreign => Vec::new(),
    })
}

/// After the upload: whose archive is in storage? Our own, or that of a twin, whose place we then take.
///
/// Storage is asked even when it says that ours was created: a lost answer makes our own completion look like somebody
/// else's, and there are stores (SeaweedFS) that let two completions at the same instant both succeed.
///
/// # Errors
/// [`Exit::Conflict`] when it is a stranger's, [`Exit::Integrity`] when it is not what was written.
pub async fn settle(
    context: &Context,
    keys: &BackupKeys,
    created: &Created,
) -> Result<Archive, Failure> {
    let stored = match open_archive(&context.store, keys).await? {
        Stored::Ours(stored) => *stored,
        // Nobody can have put another one over it.
        Stored::Foreign if *created != Created::Exists => {
            let key = keys.archive();
            let text = format!(
                "{key} was written, but the store does not give it back whole: it has no footer"
            );
            return Err(Failure::new(Exit::Integrity, text).hint(
                "the store loses or changes data: check it, then back up under another name",
            ));
        }
        Stored::Foreign => {
            return Err(taken(
                keys,
                "another program has written an archive of that name meanwhile",
            ));
        }
        Stored::Nothing => {
            let gone = format!(
                "{} was there and is gone: a deletion is under way",
                keys.archive()
            );
            return Err(Failure::new(Exit::Failed, gone));
        }
    };
    let head = &stored.footer.head;
    if head.run_id != context.run.id.as_str() {
        let by = format!(
            "run {} of cluster {} has written an archive of that name meanwhile",
            head.run_id, head.cluster_uid
        );
        return Err(taken(keys, &by));
    }
    if head.attempt != context.run.attempt {
        context.log.info(&format!(
            "attempt {} of this run was first; its archive is the backup",
            head.attempt
        ));
    }
    Ok(stored)
}

/// What to do when a name is taken.
pub const WAY_OUT: &str =
    "choose another name, or delete that backup; `--if-exists keep` makes this a success";

/// The failure of finding a name taken.
pub fn taken(keys: &BackupKeys, by: &str) -> Failure {
    let directory = keys.directory();
    Failure::new(Exit::Conflict, format!("{directory} is taken: {by}")).hint(WAY_OUT)
}

/// Writes everything after the archive: the other files, then the marker; and looks whether it holds.
///
/// `names` are those of the archive's objects, or `None` when they must be read back from it.
///
/// # Errors
/// When storage fails (the next attempt goes on from here), or the backup is being deleted.
pub async fn commit(
    context: &Context,
    keys: &BackupKeys,
    archive: &Archive,
    names: Option<NameLists>,
) -> Result<(Marker, String), Failure> {
    let store = &context.store;
    let local = |error: io::Error| {
        Failure::new(
            Exit::Failed,
            format!("preparing the files of {}: {error}", keys.directory()),
        )
    };
    let failed = |error: StoreError| storage_failure(&error);
    let mut names = match names {
        Some(names) => names,
        None => read_names(context, keys, archive).await?,
    };
    let head = &archive.footer.head;
    let mut files = BTreeMap::new();
    let list = names
        .write_gzip(&head.types, File::new(&context.temporary))
        .map_err(local)?;
    let results = gzip_json(&head.results).map_err(local)?;
    let velero = velero_backup(&archive.footer);
    let mut contents = vec![
        (keys.resource_list(), list.finish().await.map_err(local)?),
        (keys.results(), File::small(results)),
    ];
    for (key, list) in volumes::velero::files(head) {
        contents.push((key, File::small(gzip_json(&list).map_err(local)?)));
    }
    // Velero takes the backup for whole when it sees this one.
    contents.push((keys.velero_backup(), File::small(velero)));
    let log = context.log.to_gzip().map_err(local)?;
    store.put_new(&keys.logs(), log).await.map_err(failed)?;
    for (key, file) in contents {
        let digest = put_file(store, &key, file).await.map_err(failed)?;
        files.insert(
            key.strip_prefix(&keys.directory())
                .unwrap_or(&key)
                .to_owned(),
            digest,
        );
    }
    let marker = marker(archive, files);
    let etag = put_marker(context, keys, &marker).await?;
    hold(context, keys, archive, &etag).await?;
    Ok((marker, etag))
}

/// The names of the objects in an archive that another attempt wrote.
async fn read_names(
    context: &Context,
    keys: &BackupKeys,
    archive: &Archive,
) -> Result<NameLists, Failure> {
    let key = keys.archive();
    let local = |error: io::Error| {
        Failure::new(
            Exit::Failed,
            format!("keeping the names of what is in {key}: {error}"),
        )
    };
    let mut names = NameLists::new(&context.temporary).map_err(local)?;
    for member in archive
        .footer
        .members
        .iter()
        .filter(|member| member.resource != METADATA)
    {
        let range = member.offset..member.offset + member.length;
        let bytes = context
            .store
            .get_range(&key, range)
            .await
            .map_err(|error| storage_failure(&error))?;
        let opened = read::open_member(&bytes, member, &archive.footer).map_err(|error| {
            Failure::new(
                Exit::Integrity,
                format!("{key}: {}", crate::error::chain(&error)),
            )
        })?;
        for entry in opened.entries() {
            names
                .add(
                    &member.resource,
                    member.part.as_deref(),
                    &crate::archive::key(entry.namespace, entry.name),
                )
                .map_err(local)?;
        }
    }
    Ok(names)
}

/// The marker follows from the archive and the files alone, so every attempt writes the same one.
fn marker(archive: &Archive, files: BTreeMap<String, FileDigest>) -> Marker {
    let head = &archive.footer.head;
    Marker {
        api_version: Marker::api_version(),
        kind: "Backup".into(),
        metadata: Metadata {
            name: head.backup.clone(),
            labels: head.labels.clone(),
            annotations: BTreeMap::from([(RUN_ANNOTATION.to_owned(), head.run_id.clone())]),
        },
        spec: head.spec.clone(),
        status: BackupStatus {
            size: i64::try_from(archive.length).ok(),
            ..head.status.clone()
        },
        commit: Commit {
            format_version: FORMAT_VERSION.into(),
            encryption: "none".into(),
            run_id: head.run_id.clone(),
            attempt: head.attempt.clone(),
            cluster_uid: head.cluster_uid.clone(),
            namespace: head.namespace.clone(),
            schedule: head.schedule.clone(),
            keep_last: head.keep_last,
            volumes: volumes::snapshots(&head.volumes),
            archive: ArchiveDigest {
                length: archive.length,
                footer_offset: archive.place.offset,
                footer_length: archive.place.length,
                footer_sha256: hex::encode(archive.place.sha256),
            },
            files,
        },
    }
}

/// Writes the marker, or finds that a twin has; returns its ETag.
async fn put_marker(
    context: &Context,
    keys: &BackupKeys,
    marker: &Marker,
) -> Result<String, Failure> {
    // The mode may have changed since the backup began.
    mode::refuse_unless_writable(context)
        .await
        .map_err(|failure| unmarked(failure, keys))?;
    let failed = |error: StoreError| storage_failure(&error);
    let created = context
        .store
        .put_new(&keys.marker(), marker.to_json().into())
        .await
        .map_err(failed)?;
    if let Created::New { etag } = created {
        return Ok(etag);
    }
    match look(&context.store, keys, &context.run.id).await? {
        Look::Ours(found, etag) if found.commit.archive == marker.commit.archive => Ok(etag),
        Look::Taken(found) => Err(taken(keys, &found.by)),
        // Somebody is deleting, or a store that let two archives succeed shows one and then the other.
        _ => Err(Failure::new(
            Exit::Failed,
            format!("{} changed while it was being committed", keys.directory()),
        )),
    }
}

/// Says what a refusal right before the marker leaves behind.
fn unmarked(failure: Failure, keys: &BackupKeys) -> Failure {
    let text = format!(
        "{}; this backup is not completed: its archive stays in {}, without a marker, until it is swept up",
        failure.message(),
        keys.directory()
    );
    Failure::new(failure.exit(), text).maybe_hint(failure.next_step().map(str::to_owned))
}

/// Looks again after the marker: a deletion that began before it must not leave a marker without a backup, nor a store
/// that let two archives succeed a marker of the wrong one.
async fn hold(
    context: &Context,
    keys: &BackupKeys,
    archive: &Archive,
    etag: &str,
) -> Result<(), Failure> {
    let store = &context.store;
    let failed = |error: StoreError| storage_failure(&error);
    let tombstone = store.head(&keys.tombstone()).await.map_err(failed)?;
    let stored = store.head(&keys.archive()).await.map_err(failed)?;
    if tombstone.is_none() && stored.is_some_and(|stored| stored.etag == archive.etag) {
        return Ok(());
    }
    let marker = store.head(&keys.marker()).await.map_err(failed)?;
    if let Some(marker) = marker.filter(|marker| marker.etag == etag) {
        store
            .delete(&keys.marker(), marker.version.as_deref())
            .await
            .map_err(failed)?;
    }
    let directory = keys.directory();
    Err(Failure::new(
        Exit::Failed,
        format!("{directory} was deleted or replaced while this backup was being committed"),
    ))
}

/// A file on its way to storage: in memory when small, else in a temporary file; with its digest.
struct File {
    directory: std::path::PathBuf,
    sha256: Sha256,
    length: u64,
    start: Vec<u8>,
    rest: Vec<Bytes>,
}

/// A whole file, ready to be stored.
struct ReadyFile {
    digest: FileDigest,
    content: Content,
}

enum Content {
    Small(Bytes),
    Large(SpoolReader),
}

impl File {
    fn new(directory: &Path) -> File {
        File {
            directory: directory.to_owned(),
            sha256: Sha256::new(),
            length: 0,
            start: Vec::new(),
            rest: Vec::new(),
        }
    }

    fn small(bytes: Vec<u8>) -> ReadyFile {
        let digest = FileDigest {
            length: bytes.len() as u64,
            sha256: hex::encode(Sha256::digest(&bytes)),
        };
        ReadyFile {
            digest,
            content: Content::Small(bytes.into()),
        }
    }

    async fn finish(mut self) -> io::Result<ReadyFile> {
        let digest = FileDigest {
            length: self.length,
            sha256: hex::encode(self.sha256.finalize()),
        };
        if self.rest.is_empty() {
            return Ok(ReadyFile {
                digest,
                content: Content::Small(self.start.into()),
            });
        }
        let (mut writer, reader) = Spool::create(&self.directory)?;
        self.rest.push(self.start.into());
        for bytes in self.rest {
            writer.append(bytes).await?;
        }
        writer.finish();
        Ok(ReadyFile {
            digest,
            content: Content::Large(reader),
        })
    }
}

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sha256.update(bytes);
        self.length += bytes.len() as u64;
        self.start.extend_from_slice(bytes);
        if self.start.len() > SMALL {
            self.rest.push(std::mem::take(&mut self.start).into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a file, or finds that another attempt has and takes what is there.
async fn put_file(store: &Store, key: &str, file: ReadyFile) -> Result<FileDigest, StoreError> {
    let created = match file.content {
        Content::Small(bytes) => store.put_new(key, bytes).await?,
        Content::Large(mut reader) => store.upload_new(key, &mut reader).await?,
    };
    if let Created::New { .. } = created {
        return Ok(file.digest);
    }
    let Some(mut reader) = store.read(key).await? else {
        return Ok(file.digest);
    };
    let (mut sha256, mut length) = (Sha256::new(), 0);
    while let Some(piece) = reader.next().await? {
        sha256.update(&piece);
        length += piece.len() as u64;
    }
    Ok(FileDigest {
        length,
        sha256: hex::encode(sha256.finalize()),
    })
}

fn gzip_json(value: &impl serde::Serialize) -> io::Result<Vec<u8>> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::new(6));
    serde_json::to_writer(&mut gzip, value)?;
    gzip.write_all(b"\n")?;
    gzip.finish()
}
