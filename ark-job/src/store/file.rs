//! Objects as files in a local directory, for laptops (`--local`) and volumes mounted into a Job.
//!
//! A key is a path below the directory. An object is created under a temporary name beside its final one, made durable,
//! and then linked to its final name, which fails if that exists: the file system's own conditional create. Directories
//! are 0700 and files 0600, since backups hold Secrets.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use tempfile::NamedTempFile;

use super::location::canonical_path;
use super::spool::{SpoolReader, blocking, is_full, read_exact_at};
use super::{
    Cause, Created, Location, Meaning, ObjectMeta, StoreError, Upload, check, checked_prefix,
};

/// How the names of unfinished files start. They are no objects.
pub(super) const TEMPORARY: &str = ".ark-tmp-";

/// How much is copied or read at a time, in bytes.
const PIECE: u64 = 256 * 1024;

/// Entries in a page of a listing, as many as S3 gives.
const PAGE: usize = 1000;

/// How often a create begins again because a concurrent delete took the directory from under it.
const DIRECTORY_ATTEMPTS: u32 = 8;

/// A directory with objects. It need not exist until something is written.
#[derive(Clone, Debug)]
pub struct FileStore {
    root: Arc<Path>,
    url: Arc<str>,
    canonical: Arc<str>,
}

impl FileStore {
    /// Checks that `dir` is absolute, and a directory if it exists; does not create it.
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        let location = Location::File {
            dir: dir.to_owned(),
        };
        let url = location.to_string();
        let wrong = |text: &str| StoreError::Open {
            url: url.clone(),
            cause: Cause::new(Meaning::Other, text),
        };
        if !dir.is_absolute() {
            return Err(wrong("the path is not absolute"));
        }
        match fs::metadata(dir) {
            Ok(found) if !found.is_dir() => return Err(wrong("it is not a directory")),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::Open {
                    url,
                    cause: cause(&error),
                });
            }
            _ => {}
        }
        Ok(Self {
            root: canonical_path(dir).into(),
            url: url.trim_end_matches('/').into(),
            canonical: location.canonical().into(),
        })
    }

    pub(super) fn canonical(&self) -> &str {
        &self.canonical
    }

    pub(super) fn url(&self, key: &str) -> String {
        format!("{}/{key}", self.url)
    }

    fn path(&self, key: &str) -> Result<PathBuf, StoreError> {
        check(key)?;
        Ok(self.root.join(key))
    }

    pub(super) fn list(&self, prefix: &str) -> Listing {
        Listing {
            store: self.clone(),
            prefix: prefix.to_owned(),
            entries: None,
        }
    }

    pub(super) async fn list_directories(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let mut names: Vec<String> = Vec::new();
        for entry in self.entries(prefix, Wanted::Objects).await? {
            // Like S3, directories are what keys imply: an empty one is not there.
            let rest = entry.key.get(prefix.len()..).unwrap_or_default();
            if let Some((name, _)) = rest.split_once('/')
                && names.last().is_none_or(|last| last != name)
            {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    async fn entries(&self, prefix: &str, wanted: Wanted) -> Result<Vec<ObjectMeta>, StoreError> {
        checked_prefix(prefix)?;
        let url = self.url(prefix);
        let root = Arc::clone(&self.root);
        let prefix = prefix.to_owned();
        let walk = blocking(move || {
            // Told apart from a prefix without objects: nothing may be concluded from a volume that is not mounted.
            if !root.is_dir() {
                return Ok(None);
            }
            let (directory, _) = prefix.rsplit_once('/').unwrap_or_default();
            let mut found = Vec::new();
            walk(
                &root.join(directory),
                directory,
                &prefix,
                wanted,
                &mut found,
            )?;
            found.sort_unstable_by(|a: &ObjectMeta, b| a.key.cmp(&b.key));
            Ok(Some(found))
        });
        match walk.await {
            Ok(Some(found)) => Ok(found),
            Ok(None) => Err(StoreError::List {
                url,
                cause: Cause::new(Meaning::BucketMissing, "the directory does not exist"),
            }),
            Err(error) => Err(StoreError::List {
                url,
                cause: cause(&error),
            }),
        }
    }

    pub(super) async fn head(&self, key: &str) -> Result<Option<ObjectMeta>, StoreError> {
        let path = self.path(key)?;
        let name = key.to_owned();
        blocking(move || {
            absent_is_none(fs::metadata(&path)).map(|found| {
                found
                    .filter(fs::Metadata::is_file)
                    .map(|metadata| object_meta(name, &metadata))
            })
        })
        .await
        .and_then(Option::transpose)
        .map_err(|error| StoreError::Look {
            url: self.url(key),
            cause: cause(&error),
        })
    }

    pub(super) async fn read(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<Option<Reader>, StoreError> {
        let path = self.path(key)?;
        let url = self.url(key);
        let opened = blocking(move || {
            let Some(file) = absent_is_none(File::open(&path))? else {
                return Ok(None);
            };
            let metadata = file.metadata()?;
            Ok(metadata.is_file().then_some((file, metadata.len())))
        });
        let opened = opened.await.map_err(|error| StoreError::Read {
            url: url.clone(),
            cause: cause(&error),
        })?;
        let Some((file, length)) = opened else {
            return Ok(None);
        };
        let range = range.unwrap_or(0..length);
        if range.end > length {
            return Err(StoreError::Short {
                url,
                length,
                wanted: range.end,
            });
        }
        Ok(Some(Reader {
            file: Arc::new(file),
            url,
            length: range.end - range.start,
            rest: range,
        }))
    }

    pub(super) async fn put_new(&self, key: &str, content: Bytes) -> Result<Created, StoreError> {
        let path = self.path(key)?;
        let root = Arc::clone(&self.root);
        blocking(move || {
            let mut temporary = temporary_beside(&root, &path)?;
            io::Write::write_all(&mut temporary, &content)?;
            publish(&root, temporary, &path)
        })
        .await
        .map_err(|error| self.write_error(key, &error))
    }

    pub(super) async fn upload_new(
        &self,
        key: &str,
        source: &mut SpoolReader,
    ) -> Result<Created, StoreError> {
        let path = self.path(key)?;
        let failed = |error: io::Error| self.write_error(key, &error);
        let (root, beside) = (Arc::clone(&self.root), path.clone());
        let mut temporary = blocking(move || temporary_beside(&root, &beside))
            .await
            .map_err(failed)?;
        let mut offset = 0;
        loop {
            let available =
                source
                    .wait_for(offset + PIECE)
                    .await
                    .map_err(|cause| StoreError::Source {
                        url: self.url(key),
                        cause,
                    })?;
            let slice = source.slice(offset, available.length - offset);
            offset = available.length;
            temporary = blocking(move || {
                slice.copy_to(temporary.as_file(), slice.offset)?;
                Ok(temporary)
            })
            .await
            .map_err(failed)?;
            if available.finished {
                break;
            }
        }
        let root = Arc::clone(&self.root);
        blocking(move || publish(&root, temporary, &path))
            .await
            .map_err(failed)
    }

    /// What time it is by the clock that dates the files: that of the machine which keeps them, which need not be this one.
    ///
    /// Writes and removes a temporary file in this directory (empty, or ending in a slash).
    pub(super) async fn time(&self, directory: &str) -> Result<Timestamp, StoreError> {
        checked_prefix(directory)?;
        let root = Arc::clone(&self.root);
        let beside = root.join(directory).join("clock");
        blocking(move || {
            let mut file = temporary_beside(&root, &beside)?;
            // A file server dates what has come to it: what is only in memory here has this machine's date.
            io::Write::write_all(&mut file, b"t")?;
            file.as_file().sync_all()?;
            let modified = file.as_file().metadata()?.modified()?;
            let (_, path) = file.keep().map_err(|failed| failed.error)?;
            remove(&root, &path)?;
            Timestamp::try_from(modified).map_err(io::Error::other)
        })
        .await
        .map_err(|error| self.write_error(directory, &error))
    }

    fn write_error(&self, key: &str, error: &io::Error) -> StoreError {
        StoreError::Write {
            url: self.url(key),
            cause: cause(error),
        }
    }

    pub(super) async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let path = self.path(key)?;
        let root = Arc::clone(&self.root);
        blocking(move || remove(&root, &path))
            .await
            .map_err(|error| StoreError::Delete {
                url: self.url(key),
                cause: cause(&error),
            })
    }

    pub(super) async fn uploads(&self, prefix: &str) -> Result<Vec<Upload>, StoreError> {
        let found = self.entries(prefix, Wanted::Temporaries).await?;
        Ok(found
            .into_iter()
            .map(|entry| Upload {
                id: entry.key.clone(),
                key: entry.key,
                initiated: entry.last_modified,
            })
            .collect())
    }

    pub(super) async fn abort_upload(&self, upload: &Upload) -> Result<(), StoreError> {
        let (directory, name) = upload.id.rsplit_once('/').unwrap_or(("", &upload.id));
        checked_prefix(directory)?;
        // Nothing that is not a temporary file is deleted here, whatever the caller made up.
        let unique = name.strip_prefix(TEMPORARY).ok_or(StoreError::Key {
            key: upload.id.clone(),
            reason: "it is not a temporary file",
        })?;
        check(unique)?;
        let root = Arc::clone(&self.root);
        let path = root.join(directory).join(name);
        blocking(move || remove(&root, &path))
            .await
            .map_err(|error| StoreError::Delete {
                url: self.url(&upload.id),
                cause: cause(&error),
            })
    }
}

/// A listing of a directory: walked at the first page, given out in pages.
#[derive(Debug)]
pub struct Listing {
    store: FileStore,
    prefix: String,
    entries: Option<std::vec::IntoIter<ObjectMeta>>,
}

impl Listing {
    pub(super) async fn next_page(&mut self) -> Result<Option<Vec<ObjectMeta>>, StoreError> {
        let entries = match &mut self.entries {
            Some(entries) => entries,
            None => {
                let found = self.store.entries(&self.prefix, Wanted::Objects).await?;
                self.entries.insert(found.into_iter())
            }
        };
        let page: Vec<_> = entries.take(PAGE).collect();
        Ok((!page.is_empty()).then_some(page))
    }
}

/// A file being read.
#[derive(Debug)]
pub struct Reader {
    file: Arc<File>,
    url: String,
    length: u64,
    rest: Range<u64>,
}

impl Reader {
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let length = (self.rest.end - self.rest.start).min(PIECE);
        let (file, offset) = (Arc::clone(&self.file), self.rest.start);
        let bytes = blocking(move || read_exact_at(&file, offset, length as usize))
            .await
            .map_err(|error| StoreError::Read {
                url: self.url.clone(),
                cause: cause(&error),
            })?;
        self.rest.start += length;
        Ok(Some(bytes))
    }
}

/// The one place where I/O errors get their meaning.
fn cause(error: &io::Error) -> Cause {
    let meaning = match error.kind() {
        io::ErrorKind::NotFound => Meaning::NotFound,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Meaning::Credentials,
        io::ErrorKind::TimedOut | io::ErrorKind::StaleNetworkFileHandle => Meaning::Unreachable,
        _ if is_full(error) => Meaning::Full,
        _ => Meaning::Other,
    };
    Cause::new(meaning, error.to_string())
}

/// Nothing there, or a file where the key has a directory: no such object.
fn absent_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Objects,
    Temporaries,
}

fn walk(
    directory: &Path,
    key: &str,
    prefix: &str,
    wanted: Wanted,
    found: &mut Vec<ObjectMeta>,
) -> io::Result<()> {
    let Some(entries) = absent_is_none(fs::read_dir(directory))? else {
        return Ok(());
    };
    for entry in entries {
        let entry = entry?;
        // A name that is not UTF-8 cannot be a key, so we have not written it.
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
            continue;
        };
        let entry_key = if key.is_empty() {
            name.clone()
        } else {
            format!("{key}/{name}")
        };
        // Links are not followed: they may lead out of the directory, or round in circles.
        let kind = entry.file_type()?;
        if kind.is_dir() {
            let below = format!("{entry_key}/");
            if below.starts_with(prefix) || prefix.starts_with(&below) {
                walk(&entry.path(), &entry_key, prefix, wanted, found)?;
            }
        } else if kind.is_file() && entry_key.starts_with(prefix) {
            let is_temporary = name.starts_with(TEMPORARY);
            if is_temporary != (wanted == Wanted::Temporaries) {
                continue;
            }
            // Deleted meanwhile: as if it had been a moment earlier.
            if let Some(metadata) = absent_is_none(entry.metadata())? {
                found.push(object_meta(entry_key, &metadata)?);
            }
        }
    }
    Ok(())
}

fn object_meta(key: String, metadata: &fs::Metadata) -> io::Result<ObjectMeta> {
    let modified = Timestamp::try_from(metadata.modified()?).map_err(io::Error::other)?;
    Ok(ObjectMeta {
        key,
        length: metadata.len(),
        etag: etag(modified, metadata.len()),
        last_modified: modified,
        version: None,
        lock: None,
    })
}

fn etag(modified: Timestamp, length: u64) -> String {
    format!("{:x}-{length:x}", modified.as_nanosecond())
}

/// An empty file beside `path`, with the directories above it.
fn temporary_beside(root: &Path, path: &Path) -> io::Result<NamedTempFile> {
    let directory = path.parent().unwrap_or(root);
    let mut attempt = 1;
    loop {
        create_directories(directory)?;
        match tempfile::Builder::new()
            .prefix(TEMPORARY)
            .tempfile_in(directory)
        {
            // A delete next door removed the directory because it was empty.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && attempt < DIRECTORY_ATTEMPTS =>
            {
                attempt += 1;
            }
            result => return result,
        }
    }
}

/// Creates a directory and those above it, for the owner only, and makes each durable in its parent.
fn create_directories(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let Some(parent) = directory.parent() else {
        return Ok(());
    };
    create_directories(parent)?;
    #[cfg_attr(not(unix), expect(unused_mut, reason = "only Unix has modes"))]
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => sync_directory(parent),
    }
}

/// Makes a temporary file durable and gives it its name, unless that is taken.
fn publish(root: &Path, temporary: NamedTempFile, path: &Path) -> io::Result<Created> {
    let directory = path.parent().unwrap_or(root);
    temporary.as_file().sync_all()?;
    let metadata = temporary.as_file().metadata()?;
    let modified = Timestamp::try_from(metadata.modified()?).map_err(io::Error::other)?;
    match fs::hard_link(temporary.path(), path) {
        Ok(()) => {
            // The name is there; a second name that stays behind is only litter, which a sweep finds.
            let _ = temporary.close();
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(Created::Exists),
        // A file system without hard links (FAT, some network and FUSE ones): a rename that refuses to replace.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied
            ) =>
        {
            match temporary.persist_noclobber(path) {
                Ok(_) => {}
                Err(failed) if failed.error.kind() == io::ErrorKind::AlreadyExists => {
                    return Ok(Created::Exists);
                }
                Err(failed) => return Err(failed.error),
            }
        }
        Err(error) => return Err(error),
    }
    sync_directory(directory)?;
    Ok(Created::New {
        etag: etag(modified, metadata.len()),
    })
}

/// Removes a file, and the directories above it that are empty then: S3 has no empty directories either.
fn remove(root: &Path, path: &Path) -> io::Result<()> {
    if absent_is_none(fs::remove_file(path))?.is_none() {
        return Ok(());
    }
    for directory in path.ancestors().skip(1) {
        sync_directory(directory).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
        // Fails if something is in it, which is the usual case and fine.
        if directory == root || fs::remove_dir(directory).is_err() {
            break;
        }
    }
    Ok(())
}

#[cfg(unix)]
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Windows has no handle of a directory to flush.
#[cfg(windows)]
fn sync_directory(_directory: &Path) -> io::Result<()> {
    Ok(())
}
