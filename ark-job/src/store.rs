//! The storage edge: objects in an S3 bucket or a local directory.
//!
//! One enum over both backends, with exactly what the commit protocol needs: conditional creates, complete listings,
//! ranged reads, idempotent deletes. It knows nothing of backups, their names or their order; keys are spelled in
//! `layout`. Nothing here overwrites an object, ever.
//!
//! # Guarantees
//!
//! - A created object is there completely or not at all, and at most one creator of a key gets [`Created::New`].
//! - A read returns the bytes that were asked for or an error, also when a connection drops or an answer is cut short.
//! - A listing that returns its end (`None`) was complete.
//! - Waiting is bounded: a store that hangs becomes an error ([`StoreError::is_unreachable`]).
//! - A future that is dropped (SIGTERM) leaves nothing visible.

use std::ops::Range;

use crate::log::Log;
use bytes::{Bytes, BytesMut};
use jiff::Timestamp;

pub use self::error::{Cause, Meaning, StoreError};
pub use self::file::FileStore;
pub use self::location::{Checksum, Encryption, Location, LocationError, S3Location, location_id};
pub use self::s3::S3Store;
pub use self::spool::{Available, Spool, SpoolError, SpoolReader, SpoolWriter};
pub(crate) use self::spool::{is_full, read_exact_at};

#[doc(hidden)]
pub mod conformance;
mod error;
mod file;
mod location;
mod s3;
pub mod settings;
mod spool;

/// S3's limit for a key, in bytes of UTF-8.
const MAX_KEY_LENGTH: usize = 1024;

/// Who we are to the store.
#[derive(Clone, Default)]
pub enum Credentials {
    /// Whatever AWS's default chain finds: environment, profile, web identity, container and instance roles. A
    /// location with a credentials file or profile overrides it.
    #[default]
    Chain,
    /// These keys, whatever the environment and the location say.
    Keys {
        /// The access key's id.
        access_key_id: String,
        /// Its secret.
        secret_access_key: String,
        /// The token of a temporary key.
        session_token: Option<String>,
    },
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Chain => f.write_str("Chain"),
            Self::Keys { .. } => f.write_str("Keys(..)"),
        }
    }
}

/// What the store says about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectMeta {
    /// The key, without the location's prefix.
    pub key: String,
    /// Bytes.
    pub length: u64,
    /// Changes whenever the content does; no promise of what it is made of. Without quotes.
    pub etag: String,
    /// When the object was created, by the store's clock.
    pub last_modified: Timestamp,
    /// The object's version in a versioned bucket. Only [`Store::head`] knows it.
    pub version: Option<String>,
    /// What keeps the object from being deleted. Only [`Store::head`] knows it.
    pub lock: Option<Lock>,
}

/// Object lock: a DELETE of this version would be refused (and a plain DELETE would only hide it).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// Retained until this instant.
    pub until: Option<Timestamp>,
    /// Under a legal hold, without an end.
    pub legal_hold: bool,
}

/// The outcome of a conditional create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// The object was not there and is now.
    New {
        /// Its ETag, without quotes.
        etag: String,
    },
    /// Something is there. It may be the echo of this very write, when an answer was lost and the request retried:
    /// the caller compares contents.
    Exists,
}

/// Which conditional writes a store honours, as far as [`Store::probe`] found out; assumed until then.
///
/// For those that it does not, a create looks first and then writes: two writers at the same instant may both succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditional {
    /// `PutObject` honours `If-None-Match: *`.
    pub put: bool,
    /// `CompleteMultipartUpload` honours `If-None-Match: *`.
    pub complete: bool,
}

impl Conditional {
    /// Nothing is lacking.
    pub const FULL: Self = Self {
        put: true,
        complete: true,
    };
}

/// An upload that was begun and neither completed nor aborted: parts that cost money and that nobody sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// The key it would have become, without the location's prefix.
    pub key: String,
    /// The store's name for the upload.
    pub id: String,
    /// When it was begun, by the store's clock.
    pub initiated: Timestamp,
}

/// An opened location. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub enum Store {
    /// A bucket.
    S3(S3Store),
    /// A directory.
    File(FileStore),
}

impl Store {
    /// Makes a location ready for use.
    ///
    /// Reads certificates and configuration, but contacts neither the store nor any other service: a wrong key or a
    /// dead endpoint shows at the first request.
    pub async fn open(location: &Location, credentials: &Credentials) -> Result<Self, StoreError> {
        match location {
            Location::S3(s3) => S3Store::open(s3, credentials).await.map(Self::S3),
            Location::File { dir } => FileStore::open(dir).map(Self::File),
        }
    }

    /// From now on says in `log` what it asks again.
    #[must_use]
    pub fn with_log(self, log: &Log) -> Self {
        match &self {
            Self::S3(store) => store.log_to(log),
            Self::File(_) => {}
        }
        self
    }

    /// [`Location::canonical`] with the endpoint and region that are really used (`AWS_ENDPOINT_URL`, a profile).
    pub fn canonical(&self) -> &str {
        match self {
            Self::S3(store) => store.canonical(),
            Self::File(store) => store.canonical(),
        }
    }

    /// The store's clock, if it has one of its own: that of its latest answer, and the time since.
    ///
    /// `None` for a directory, which [`time`](Self::time) asks, and before the first answer.
    pub fn clock(&self) -> Option<Timestamp> {
        match self {
            Self::S3(store) => store.clock(),
            Self::File(_) => None,
        }
    }

    /// What time it is by the clock that dates the objects; `None` if the store does not say.
    ///
    /// Of a bucket it is [`clock`](Self::clock), without a request. Of files a temporary one tells, which is written under
    /// `directory` (empty, or ending in a slash): [`StoreError::is_credentials`] if it must not be.
    pub async fn time(&self, directory: &str) -> Result<Option<Timestamp>, StoreError> {
        match self {
            Self::S3(store) => Ok(store.clock()),
            Self::File(store) => store.time(directory).await.map(Some),
        }
    }

    /// Starts listing the objects whose keys start with `prefix`, in byte order of the keys. An empty prefix lists
    /// the location.
    pub fn list(&self, prefix: &str) -> Listing {
        match self {
            Self::S3(store) => Listing::S3(store.list(prefix)),
            Self::File(store) => Listing::File(store.list(prefix)),
        }
    }

    /// The names directly under `prefix` (empty, or ending in a slash) that have objects below them, in byte order.
    ///
    /// Names only, without `prefix` and without the slash. Some stores (SeaweedFS) go on naming a directory for a while
    /// when its last object has been deleted.
    pub async fn list_directories(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        match self {
            Self::S3(store) => store.list_directories(prefix).await,
            Self::File(store) => store.list_directories(prefix).await,
        }
    }

    /// What the store says about an object; `None` if it (or, as S3 cannot tell them apart here, the bucket) is not
    /// there.
    pub async fn head(&self, key: &str) -> Result<Option<ObjectMeta>, StoreError> {
        match self {
            Self::S3(store) => store.head(key).await,
            Self::File(store) => store.head(key).await,
        }
    }

    /// A whole small object; `None` if it is not there, [`StoreError::TooLong`] if it has more than `limit` bytes.
    pub async fn get(&self, key: &str, limit: u64) -> Result<Option<Bytes>, StoreError> {
        let Some(mut reader) = self.read(key).await? else {
            return Ok(None);
        };
        if reader.length() > limit {
            return Err(StoreError::TooLong {
                url: reader.url().to_owned(),
                length: reader.length(),
                limit,
            });
        }
        reader.collect().await.map(Some)
    }

    /// Exactly the bytes of `range`, or an error ([`StoreError::Short`] if the object ends earlier).
    pub async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        if range.is_empty() {
            check(key)?;
            return Ok(Bytes::new());
        }
        self.read_range(key, range).await?.collect().await
    }

    /// Starts reading a whole object; `None` if it is not there.
    pub async fn read(&self, key: &str) -> Result<Option<ObjectReader>, StoreError> {
        Ok(match self {
            Self::S3(store) => store.read(key, None).await?.map(ObjectReader::S3),
            Self::File(store) => store.read(key, None).await?.map(ObjectReader::File),
        })
    }

    /// Starts reading a part of an object; [`StoreError::is_not_found`] if the object is not there.
    pub async fn read_range(
        &self,
        key: &str,
        range: Range<u64>,
    ) -> Result<ObjectReader, StoreError> {
        let url = || match self {
            Self::S3(store) => store.url(key),
            Self::File(store) => store.url(key),
        };
        let reader = match self {
            Self::S3(store) => store.read(key, Some(range)).await?.map(ObjectReader::S3),
            Self::File(store) => store.read(key, Some(range)).await?.map(ObjectReader::File),
        };
        reader.ok_or_else(|| StoreError::Read {
            url: url(),
            cause: Cause::new(Meaning::NotFound, "there is no such object"),
        })
    }

    /// Creates an object, if nothing has that key.
    ///
    /// For content that is in memory anyway; a longer one goes through [`upload_new`](Self::upload_new).
    pub async fn put_new(&self, key: &str, content: Bytes) -> Result<Created, StoreError> {
        match self {
            Self::S3(store) => store.put_new(key, content).await,
            Self::File(store) => store.put_new(key, content).await,
        }
    }

    /// Creates an object from a spool while that is still being written, if nothing has that key.
    ///
    /// Returns when the writer has finished and the object is there. If the writer is dropped unfinished, nothing is
    /// created and [`StoreError::Source`] is returned. [`StoreError::is_conflict`] (HTTP 409 at the end) is an answer
    /// of its own: this attempt has failed, and the object may be there in a moment, by somebody else.
    pub async fn upload_new(
        &self,
        key: &str,
        source: &mut SpoolReader,
    ) -> Result<Created, StoreError> {
        match self {
            Self::S3(store) => store.upload_new(key, source).await,
            Self::File(store) => store.upload_new(key, source).await,
        }
    }

    /// Deletes an object; one that is not there is success.
    ///
    /// In a versioned bucket a delete without `version` only hides the object; with the version that
    /// [`head`](Self::head) told it is gone.
    pub async fn delete(&self, key: &str, version: Option<&str>) -> Result<(), StoreError> {
        match self {
            Self::S3(store) => store.delete(key, version).await,
            Self::File(store) => store.delete(key).await,
        }
    }

    /// Finds out which conditional writes the store honours, and keeps to that from then on.
    ///
    /// Writes and removes `metadata/ark-probe-<nonce>`; `nonce` must be unlike that of any other probe that may run at
    /// the same time. A handful of requests: once a run is enough.
    pub async fn probe(&self, nonce: &str) -> Result<Conditional, StoreError> {
        match self {
            Self::S3(store) => store.probe(nonce).await,
            Self::File(_) => Ok(Conditional::FULL),
        }
    }

    /// What [`probe`](Self::probe) found, for a warning in results.
    pub fn conditional_writes(&self) -> Conditional {
        match self {
            Self::S3(store) => store.conditional_writes(),
            Self::File(_) => Conditional::FULL,
        }
    }

    /// The uploads under `prefix` that nobody has completed. Some are running right now: age tells.
    pub async fn uploads(&self, prefix: &str) -> Result<Vec<Upload>, StoreError> {
        match self {
            Self::S3(store) => store.uploads(prefix).await,
            Self::File(store) => store.uploads(prefix).await,
        }
    }

    /// Throws an upload away; one that is not there is success.
    pub async fn abort_upload(&self, upload: &Upload) -> Result<(), StoreError> {
        match self {
            Self::S3(store) => store.abort_upload(upload).await,
            Self::File(store) => store.abort_upload(upload).await,
        }
    }
}

/// A listing in progress.
#[derive(Debug)]
pub enum Listing {
    /// Of a bucket.
    S3(s3::Listing),
    /// Of a directory.
    File(file::Listing),
}

impl Listing {
    /// The next entries (at most about a thousand, at least one), or `None` at the end of a complete listing.
    ///
    /// After an error the listing is of no more use.
    pub async fn next_page(&mut self) -> Result<Option<Vec<ObjectMeta>>, StoreError> {
        match self {
            Self::S3(listing) => listing.next_page().await,
            Self::File(listing) => listing.next_page().await,
        }
    }

    /// All remaining entries: for prefixes known to be small.
    pub async fn collect(mut self) -> Result<Vec<ObjectMeta>, StoreError> {
        let mut entries = Vec::new();
        while let Some(page) = self.next_page().await? {
            entries.extend(page);
        }
        Ok(entries)
    }
}

/// An object, or a range of one, being read.
#[derive(Debug)]
pub enum ObjectReader {
    /// From a bucket.
    S3(s3::Reader),
    /// From a directory.
    File(file::Reader),
}

impl ObjectReader {
    /// How many bytes will come in total.
    pub fn length(&self) -> u64 {
        match self {
            Self::S3(reader) => reader.length(),
            Self::File(reader) => reader.length(),
        }
    }

    fn url(&self) -> &str {
        match self {
            Self::S3(reader) => reader.url(),
            Self::File(reader) => reader.url(),
        }
    }

    /// The next bytes (never an empty piece), or `None` when [`length`](Self::length) bytes have come.
    pub async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        match self {
            Self::S3(reader) => reader.next().await,
            Self::File(reader) => reader.next().await,
        }
    }

    /// All remaining bytes.
    pub async fn collect(&mut self) -> Result<Bytes, StoreError> {
        let Some(first) = self.next().await? else {
            return Ok(Bytes::new());
        };
        if first.len() as u64 == self.length() {
            return match self.next().await? {
                None => Ok(first),
                Some(more) => Ok([first, more].concat().into()),
            };
        }
        // The length is the store's word, so it is not trusted with an allocation of any size.
        let mut bytes = BytesMut::with_capacity(self.length().min(1 << 20) as usize);
        bytes.extend_from_slice(&first);
        while let Some(more) = self.next().await? {
            bytes.extend_from_slice(&more);
        }
        Ok(bytes.freeze())
    }
}

/// Checks that a key is one in every backend: relative, of plain components, without tricks.
fn check_key(key: &str) -> Result<(), &'static str> {
    if key.is_empty() {
        return Err("it is empty");
    }
    if key.len() > MAX_KEY_LENGTH {
        return Err("it is longer than 1024 bytes");
    }
    check_components(key, false)
}

/// Checks a prefix to list: a key, or the start of one, or nothing.
fn check_prefix(prefix: &str) -> Result<(), &'static str> {
    if prefix.len() > MAX_KEY_LENGTH {
        return Err("it is longer than 1024 bytes");
    }
    check_components(prefix, true)
}

fn check_components(text: &str, partial: bool) -> Result<(), &'static str> {
    // Control characters cannot be told in the XML of a listing.
    if text.chars().any(char::is_control) {
        return Err("it has a control character");
    }
    if cfg!(windows) && text.contains(['\\', ':']) {
        return Err("it has a character that Windows does not allow in names");
    }
    let mut components = text.split('/').peekable();
    while let Some(component) = components.next() {
        let last = components.peek().is_none();
        match component {
            "" if last && partial => {}
            "" => return Err("it has an empty component"),
            "." | ".." => return Err("it has a component that is not a name"),
            name if name.starts_with(file::TEMPORARY) => {
                return Err("it has the name of a temporary file");
            }
            _ => {}
        }
    }
    Ok(())
}

fn check(key: &str) -> Result<(), StoreError> {
    check_key(key).map_err(|reason| StoreError::Key {
        key: key.to_owned(),
        reason,
    })
}

fn checked_prefix(prefix: &str) -> Result<(), StoreError> {
    check_prefix(prefix).map_err(|reason| StoreError::Key {
        key: prefix.to_owned(),
        reason,
    })
}

#[cfg(test)]
mod tests {
    use super::conformance::Known;
    use super::*;

    async fn file_store(dir: &std::path::Path) -> Store {
        let location = Location::File {
            dir: dir.to_owned(),
        };
        Store::open(&location, &Credentials::Chain).await.unwrap()
    }

    #[tokio::test]
    async fn directory_conforms() {
        let dir = tempfile::tempdir().unwrap();
        let store = file_store(&dir.path().join("new/deep")).await;
        conformance::all(&store, dir.path(), Known::Good).await;
    }

    /// Needs a running S3 server: `ARK_TEST_S3_ENDPOINT`, an existing bucket `ARK_TEST_S3_BUCKET` (default
    /// `conformance`), `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`. The project's scenarios always run it.
    #[tokio::test]
    async fn s3_conforms() {
        let variable = |name| std::env::var(name).ok();
        let (Some(endpoint), Some(access_key_id), Some(secret_access_key)) = (
            variable("ARK_TEST_S3_ENDPOINT"),
            variable("AWS_ACCESS_KEY_ID"),
            variable("AWS_SECRET_ACCESS_KEY"),
        ) else {
            eprintln!("SKIPPED: s3_conforms needs ARK_TEST_S3_ENDPOINT and AWS_* keys");
            return;
        };
        let credentials = Credentials::Keys {
            access_key_id,
            secret_access_key,
            session_token: None,
        };
        let bucket = variable("ARK_TEST_S3_BUCKET").unwrap_or("conformance".to_owned());
        let scratch = tempfile::tempdir().unwrap();
        let at = |prefix: &str, checksum| {
            Location::S3(S3Location {
                bucket: bucket.clone(),
                // Of its own, so that what a failed run left does not matter.
                prefix: format!("{}/{prefix}", std::process::id()),
                endpoint: Some(endpoint.clone()),
                path_style: true,
                checksum: Some(checksum),
                ..S3Location::default()
            })
        };
        for (prefix, checksum) in [
            ("plain", Checksum::WhenRequired),
            ("with/checksums and +", Checksum::Always),
        ] {
            let location = at(prefix, checksum);
            let store = Store::open(&location, &credentials).await.unwrap();
            assert_eq!(store.clock(), None);
            conformance::all(&store, scratch.path(), Known::RacyCompletion).await;
            let behind = jiff::Timestamp::now().duration_since(store.clock().unwrap());
            assert!(behind.abs().as_secs() < 60, "{behind}");
        }
        conformance::unreachable_buckets_say_why(
            &at("nothing", Checksum::WhenRequired),
            &credentials,
        )
        .await;
    }
}
