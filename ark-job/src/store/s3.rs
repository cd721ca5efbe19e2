//! Objects in a bucket of S3 or of a store that speaks its language.
//!
//! Here are the requests. How connections, credentials and retries are made is in [`client`], what errors mean in
//! [`meaning`], and how a read goes on after its connection broke in [`read`].

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{
    ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart, ObjectLockLegalHoldStatus,
    ServerSideEncryption,
};
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use futures::TryStreamExt;
use jiff::Timestamp;

use self::client::{Clients, upload_timeouts};
use self::meaning::cause;
pub use self::read::Reader;
use super::location::{Checksum, Encryption, S3Location};
use super::spool::{SpoolReader, SpoolSlice};
use super::{
    Cause, Conditional, Created, Credentials, Lock, Log, Meaning, ObjectMeta, StoreError, Upload,
    check, checked_prefix,
};
use crate::aws::{ATTEMPTS, backoff, timeouts};

mod client;
mod meaning;
mod read;
mod settings;
#[cfg(test)]
mod tests;

/// How often a probe may have written its object.
const PROBE_WRITES: usize = 3;

/// For one attempt to complete an upload: S3 may take minutes to put thousands of parts together.
const COMPLETE_TIMEOUT: Duration = Duration::from_secs(300);

/// The size of the first parts. Smaller ones cost requests, larger ones time at the end, when the last part is still to
/// be sent; S3 takes none below 5 MiB except the last.
const PART_SIZE: u64 = 8 * 1024 * 1024;

/// After so many parts their size doubles, so that S3's 10,000 parts are never reached: 9,000 of them hold 4 TiB, and
/// an object is at most 5 TiB.
const PARTS_OF_A_SIZE: u64 = 1000;

/// Parts in flight. One would leave the network idle between two; more than two hardly speed up what a backup makes.
const PARTS_IN_FLIGHT: usize = 2;

/// How often a small conditional write that met another (409) is tried again. S3 asks to.
const CONFLICT_ATTEMPTS: u32 = 4;

/// For the abort after a failure, which is a courtesy: a sweep finds what it leaves.
const ABORT_TIMEOUT: Duration = Duration::from_secs(10);

/// A bucket, and a prefix in it.
#[derive(Clone)]
pub struct S3Store {
    inner: Arc<Inner>,
}

struct Inner {
    clients: Clients,
    bucket: String,
    /// Empty, or ending in a slash.
    prefix: String,
    url: String,
    canonical: String,
    encryption: Option<ServerSideEncryption>,
    kms_key_id: Option<String>,
    ignores_put_condition: AtomicBool,
    ignores_complete_condition: AtomicBool,
}

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("S3Store").field(&self.inner.url).finish()
    }
}

impl S3Store {
    pub(super) async fn open(
        location: &S3Location,
        credentials: &Credentials,
    ) -> Result<Self, StoreError> {
        // A store that is not AWS is named, too: a wrong endpoint is the likeliest mistake.
        let service = location
            .endpoint
            .as_deref()
            .map_or("s3:/", |endpoint| endpoint.trim_end_matches('/'));
        let url = format!("{service}/{}/{}", location.bucket, location.prefix);
        let url = url.trim_end_matches('/').to_owned();
        let clients = match client::connect(location, credentials).await {
            Ok(clients) => clients,
            Err(cause) => return Err(StoreError::Open { url, cause }),
        };
        let encryption = match (location.server_side_encryption, &location.kms_key_id) {
            (Some(Encryption::Aes256), _) => Some(ServerSideEncryption::Aes256),
            (Some(Encryption::KmsDouble), _) => Some(ServerSideEncryption::AwsKmsDsse),
            (Some(Encryption::Kms), _) | (None, Some(_)) => Some(ServerSideEncryption::AwsKms),
            (None, None) => None,
        };
        let canonical =
            location.canonical_at(clients.endpoint.as_deref(), Some(clients.region.as_ref()));
        Ok(Self {
            inner: Arc::new(Inner {
                clients,
                bucket: location.bucket.clone(),
                prefix: match location.prefix.as_str() {
                    "" => String::new(),
                    prefix => format!("{prefix}/"),
                },
                url,
                canonical,
                encryption,
                kms_key_id: location.kms_key_id.clone(),
                ignores_put_condition: AtomicBool::new(false),
                ignores_complete_condition: AtomicBool::new(false),
            }),
        })
    }

    pub(super) fn log_to(&self, log: &Log) {
        self.inner.clients.log_to(log);
    }

    pub(super) fn canonical(&self) -> &str {
        &self.inner.canonical
    }

    pub(super) fn url(&self, key: &str) -> String {
        format!("{}/{key}", self.inner.url)
    }

    pub(super) fn clock(&self) -> Option<Timestamp> {
        self.inner.clients.clock()
    }

    fn client(&self) -> &Client {
        self.inner.clients.get()
    }

    /// The algorithm to name in the requests of an upload, if they are to carry checksums.
    fn checksum_algorithm(&self) -> Option<ChecksumAlgorithm> {
        (self.inner.clients.checksum == Checksum::Always).then_some(ChecksumAlgorithm::Crc32)
    }

    fn full_key(&self, key: &str) -> Result<String, StoreError> {
        check(key)?;
        Ok(format!("{}{key}", self.inner.prefix))
    }

    /// The key as callers know it.
    fn relative<'a>(&self, key: &'a str) -> Option<&'a str> {
        key.strip_prefix(&self.inner.prefix)
    }

    pub(super) fn list(&self, prefix: &str) -> Listing {
        Listing {
            store: self.clone(),
            prefix: prefix.to_owned(),
            next: Next::First,
        }
    }

    pub(super) async fn list_directories(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let mut next = Next::First;
        let mut names = Vec::new();
        while let Some(page) = self.list_page(prefix, Some("/"), &mut next).await? {
            for common in page.common_prefixes() {
                let name = common
                    .prefix()
                    .and_then(|common| self.relative(common))
                    .and_then(|common| common.strip_prefix(prefix))
                    .and_then(|name| name.strip_suffix('/'));
                if let Some(name) = name.filter(|name| !name.is_empty()) {
                    names.push(name.to_owned());
                }
            }
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// Fetches a page of a listing and notes where the following begins.
    async fn list_page(
        &self,
        prefix: &str,
        delimiter: Option<&str>,
        next: &mut Next,
    ) -> Result<Option<ListObjectsV2Output>, StoreError> {
        checked_prefix(prefix)?;
        let failed = |cause| StoreError::List {
            url: self.url(prefix),
            cause,
        };
        let token = match next {
            Next::First => None,
            Next::After(token) => Some(token.clone()),
            Next::End => return Ok(None),
        };
        let page = self
            .client()
            .list_objects_v2()
            .bucket(&self.inner.bucket)
            .prefix(format!("{}{prefix}", self.inner.prefix))
            .set_delimiter(delimiter.map(str::to_owned))
            .set_continuation_token(token.clone())
            .send()
            .await
            .map_err(|error| failed(cause(&error)))?;
        // A listing that silently ends early would make a sweep delete what is in use.
        *next = match (page.is_truncated(), page.next_continuation_token()) {
            (Some(true), Some(following)) if token.as_deref() != Some(following) => {
                Next::After(following.to_owned())
            }
            (Some(true), _) => {
                return Err(failed(Cause::new(
                    Meaning::Other,
                    "the store says that there is more but not how to get it",
                )));
            }
            _ => Next::End,
        };
        Ok(Some(page))
    }

    pub(super) async fn head(&self, key: &str) -> Result<Option<ObjectMeta>, StoreError> {
        let failed = |cause| StoreError::Look {
            url: self.url(key),
            cause,
        };
        let answer = self
            .client()
            .head_object()
            .bucket(&self.inner.bucket)
            .key(self.full_key(key)?)
            .send()
            .await;
        match answer {
            Ok(found) => object_meta(key, &found).map(Some).map_err(failed),
            Err(error) => match cause(&error) {
                cause if cause.meaning == Meaning::NotFound => Ok(None),
                cause => Err(failed(cause)),
            },
        }
    }

    pub(super) async fn read(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<Option<Reader>, StoreError> {
        let mut reader = Reader::new(self.clone(), self.full_key(key)?, self.url(key), range);
        match reader.connect().await {
            Ok(()) => Ok(Some(reader)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn put_new(&self, key: &str, content: Bytes) -> Result<Created, StoreError> {
        let length = content.len() as u64;
        self.put_body(key, length, &|| ByteStream::from(content.clone()))
            .await
    }

    async fn put_body(
        &self,
        key: &str,
        length: u64,
        body: &(dyn Fn() -> ByteStream + Sync),
    ) -> Result<Created, StoreError> {
        let conditional = self.conditional_writes().put;
        if !conditional && self.head(key).await?.is_some() {
            return Ok(Created::Exists);
        }
        let full_key = self.full_key(key)?;
        let mut attempt = 1;
        loop {
            let answer = self
                .client()
                .put_object()
                .bucket(&self.inner.bucket)
                .key(&full_key)
                .set_if_none_match(conditional.then(|| "*".to_owned()))
                .set_server_side_encryption(self.inner.encryption.clone())
                .set_ssekms_key_id(self.inner.kms_key_id.clone())
                .body(body())
                .customize()
                .config_override(upload_timeouts(length))
                .send()
                .await;
            let cause = match answer {
                Ok(written) => {
                    return Ok(Created::New {
                        etag: unquoted(written.e_tag()),
                    });
                }
                Err(error) => cause(&error),
            };
            match cause.meaning {
                Meaning::Precondition => return Ok(Created::Exists),
                Meaning::Conflict if attempt < CONFLICT_ATTEMPTS => {
                    tokio::time::sleep(backoff(attempt)).await;
                    attempt += 1;
                }
                _ => {
                    return Err(StoreError::Write {
                        url: self.url(key),
                        cause,
                    });
                }
            }
        }
    }

    pub(super) async fn upload_new(
        &self,
        key: &str,
        source: &mut SpoolReader,
    ) -> Result<Created, StoreError> {
        let begun = source
            .wait_for(PART_SIZE + 1)
            .await
            .map_err(|cause| StoreError::Source {
                url: self.url(key),
                cause,
            })?;
        if begun.finished && begun.length <= PART_SIZE {
            // One request and not three, and no upload that could be left behind.
            let slice = source.slice(0, begun.length);
            return self
                .put_body(key, slice.length, &|| slice_stream(slice.clone()))
                .await;
        }
        let id = self.create_upload(key).await?;
        let result = match self.upload_parts(key, &id, source).await {
            Ok(parts) => self.complete_upload(key, &id, parts).await,
            Err(error) => Err(error),
        };
        if !matches!(result, Ok(Created::New { .. })) {
            let abort = self.abort(key, &id);
            let _ = tokio::time::timeout(ABORT_TIMEOUT, abort).await;
        }
        result
    }

    async fn create_upload(&self, key: &str) -> Result<String, StoreError> {
        let failed = |cause| StoreError::Write {
            url: self.url(key),
            cause,
        };
        let created = self
            .client()
            .create_multipart_upload()
            .bucket(&self.inner.bucket)
            .key(self.full_key(key)?)
            .set_checksum_algorithm(self.checksum_algorithm())
            .set_server_side_encryption(self.inner.encryption.clone())
            .set_ssekms_key_id(self.inner.kms_key_id.clone())
            .send()
            .await
            .map_err(|error| failed(cause(&error)))?;
        created
            .upload_id
            .ok_or_else(|| failed(missing("an upload id")))
    }

    async fn upload_parts(
        &self,
        key: &str,
        id: &str,
        source: &mut SpoolReader,
    ) -> Result<Vec<CompletedPart>, StoreError> {
        struct Cut<'a> {
            source: &'a mut SpoolReader,
            number: u64,
            offset: u64,
            finished: bool,
        }
        let start = Cut {
            source,
            number: 1,
            offset: 0,
            finished: false,
        };
        let slices = futures::stream::try_unfold(start, |mut cut| async move {
            if cut.finished {
                return Ok(None);
            }
            let size = part_size(cut.number);
            // One byte more, to know which part is the last: there is always one, and it is never empty.
            let available = cut
                .source
                .wait_for(cut.offset + size + 1)
                .await
                .map_err(|cause| StoreError::Source {
                    url: self.url(key),
                    cause,
                })?;
            let length = size.min(available.length - cut.offset);
            let part = (cut.number, cut.source.slice(cut.offset, length));
            cut.number += 1;
            cut.offset += length;
            cut.finished = available.finished && cut.offset == available.length;
            Ok(Some((part, cut)))
        });
        let mut parts: Vec<CompletedPart> = slices
            .map_ok(|(number, slice)| self.upload_part(key, id, number, slice))
            .try_buffer_unordered(PARTS_IN_FLIGHT)
            .try_collect()
            .await?;
        parts.sort_unstable_by_key(CompletedPart::part_number);
        Ok(parts)
    }

    async fn upload_part(
        &self,
        key: &str,
        id: &str,
        number: u64,
        slice: SpoolSlice,
    ) -> Result<CompletedPart, StoreError> {
        let failed = |cause| StoreError::Write {
            url: self.url(key),
            cause,
        };
        let number = i32::try_from(number)
            .map_err(|_| failed(Cause::new(Meaning::Other, "it has too many parts")))?;
        let sent = self
            .client()
            .upload_part()
            .bucket(&self.inner.bucket)
            .key(self.full_key(key)?)
            .upload_id(id)
            .part_number(number)
            .set_checksum_algorithm(self.checksum_algorithm())
            .body(slice_stream(slice.clone()))
            .customize()
            .config_override(upload_timeouts(slice.length))
            .send()
            .await
            .map_err(|error| failed(cause(&error)))?;
        if sent.e_tag().is_none() {
            return Err(failed(missing("an ETag of the part")));
        }
        Ok(CompletedPart::builder()
            .part_number(number)
            .set_checksum_crc32(sent.checksum_crc32)
            .set_e_tag(sent.e_tag)
            .build())
    }

    async fn complete_upload(
        &self,
        key: &str,
        id: &str,
        parts: Vec<CompletedPart>,
    ) -> Result<Created, StoreError> {
        let conditional = self.conditional_writes().complete;
        if !conditional && self.head(key).await?.is_some() {
            return Ok(Created::Exists);
        }
        let answer = self.send_complete(key, id, parts, conditional).await?;
        let cause = match answer {
            Ok(created) => return Ok(created),
            Err(cause) => cause,
        };
        match cause.meaning {
            Meaning::Precondition => Ok(Created::Exists),
            // Completed by a request whose answer was lost, or aborted by a sweep: what is there tells.
            Meaning::UploadGone if self.head(key).await?.is_some() => Ok(Created::Exists),
            _ => Err(StoreError::Write {
                url: self.url(key),
                cause,
            }),
        }
    }

    async fn send_complete(
        &self,
        key: &str,
        id: &str,
        parts: Vec<CompletedPart>,
        conditional: bool,
    ) -> Result<Result<Created, Cause>, StoreError> {
        let answer = self
            .client()
            .complete_multipart_upload()
            .bucket(&self.inner.bucket)
            .key(self.full_key(key)?)
            .upload_id(id)
            .multipart_upload(
                CompletedMultipartUpload::builder()
                    .set_parts(Some(parts))
                    .build(),
            )
            .set_if_none_match(conditional.then(|| "*".to_owned()))
            .customize()
            .config_override(
                aws_sdk_s3::Config::builder().timeout_config(timeouts(COMPLETE_TIMEOUT, ATTEMPTS)),
            )
            .send()
            .await;
        Ok(match answer {
            Ok(done) => Ok(Created::New {
                etag: unquoted(done.e_tag()),
            }),
            Err(error) => Err(cause(&error)),
        })
    }

    async fn abort(&self, key: &str, id: &str) -> Result<(), StoreError> {
        let answer = self
            .client()
            .abort_multipart_upload()
            .bucket(&self.inner.bucket)
            .key(self.full_key(key)?)
            .upload_id(id)
            .send()
            .await;
        match answer.map_err(|error| cause(&error)) {
            Ok(_) => Ok(()),
            Err(cause) if matches!(cause.meaning, Meaning::UploadGone | Meaning::NotFound) => {
                Ok(())
            }
            Err(cause) => Err(StoreError::Delete {
                url: self.url(key),
                cause,
            }),
        }
    }

    pub(super) async fn abort_upload(&self, upload: &Upload) -> Result<(), StoreError> {
        self.abort(&upload.key, &upload.id).await
    }

    pub(super) async fn uploads(&self, prefix: &str) -> Result<Vec<Upload>, StoreError> {
        checked_prefix(prefix)?;
        let failed = |cause| StoreError::List {
            url: self.url(prefix),
            cause,
        };
        let mut uploads = Vec::new();
        let mut markers: (Option<String>, Option<String>) = (None, None);
        loop {
            let page = self
                .client()
                .list_multipart_uploads()
                .bucket(&self.inner.bucket)
                .prefix(format!("{}{prefix}", self.inner.prefix))
                .set_key_marker(markers.0.clone())
                .set_upload_id_marker(markers.1.clone())
                .send()
                .await
                .map_err(|error| failed(cause(&error)))?;
            for upload in page.uploads() {
                // Some stores match prefixes loosely; what is not ours to see is not ours to abort.
                let key = upload
                    .key()
                    .and_then(|key| self.relative(key))
                    .filter(|key| key.starts_with(prefix));
                let (Some(key), Some(id)) = (key, upload.upload_id()) else {
                    continue;
                };
                uploads.push(Upload {
                    key: key.to_owned(),
                    id: id.to_owned(),
                    initiated: timestamp(upload.initiated()).map_err(failed)?,
                });
            }
            let following = (page.next_key_marker, page.next_upload_id_marker);
            if page.is_truncated != Some(true) {
                return Ok(uploads);
            }
            if following.0.is_none() || following == markers {
                return Err(failed(Cause::new(
                    Meaning::Other,
                    "the store says that there is more but not how to get it",
                )));
            }
            markers = following;
        }
    }

    pub(super) async fn delete(&self, key: &str, version: Option<&str>) -> Result<(), StoreError> {
        let answer = self
            .client()
            .delete_object()
            .bucket(&self.inner.bucket)
            .key(self.full_key(key)?)
            .set_version_id(version.map(str::to_owned))
            .send()
            .await;
        match answer.map_err(|error| cause(&error)) {
            Ok(_) => Ok(()),
            Err(cause) if cause.meaning == Meaning::NotFound => Ok(()),
            Err(cause) => Err(StoreError::Delete {
                url: self.url(key),
                cause,
            }),
        }
    }

    pub(super) fn conditional_writes(&self) -> Conditional {
        Conditional {
            put: !self.inner.ignores_put_condition.load(Ordering::Relaxed),
            complete: !self
                .inner
                .ignores_complete_condition
                .load(Ordering::Relaxed),
        }
    }

    pub(super) async fn probe(&self, nonce: &str) -> Result<Conditional, StoreError> {
        let key = format!("metadata/ark-probe-{nonce}");
        let put = self.probe_put(&key).await;
        let complete = match put {
            Ok(_) => self.probe_complete(&key).await,
            Err(_) => Ok(false),
        };
        self.remove_probe(&key).await;
        self.inner
            .ignores_put_condition
            .store(!put?, Ordering::Relaxed);
        self.inner
            .ignores_complete_condition
            .store(!complete?, Ordering::Relaxed);
        Ok(self.conditional_writes())
    }

    /// Removes the probe object, also after a failure; in a bucket without the right to delete it stays, which is no reason
    /// to fail. By its version, which a versioned bucket else only hides; one that ignores conditions has several.
    async fn remove_probe(&self, key: &str) {
        for _ in 0..PROBE_WRITES {
            let version = match self.head(key).await {
                Ok(Some(found)) => found.version,
                Ok(None) => return,
                Err(error) if error.is_unreachable() => return,
                // Who may not look may delete.
                Err(_) => None,
            };
            let _ = self.delete(key, version.as_deref()).await;
            if version.is_none() {
                return;
            }
        }
    }

    /// Creates the probe object twice, and says whether the second was refused.
    async fn probe_put(&self, key: &str) -> Result<bool, StoreError> {
        let content = Bytes::from_static(b"probe\n");
        self.inner
            .ignores_put_condition
            .store(false, Ordering::Relaxed);
        match self.put_new(key, content.clone()).await {
            // The echo of an attempt whose answer was lost: it is there, and creating it was refused.
            Ok(Created::Exists) => Ok(true),
            Ok(Created::New { .. }) => Ok(self.put_new(key, content).await? == Created::Exists),
            // A store that refuses the header altogether.
            Err(error) if error.meaning() == Meaning::Unsupported => {
                self.inner
                    .ignores_put_condition
                    .store(true, Ordering::Relaxed);
                self.put_new(key, content).await.map(|_| false)
            }
            Err(error) => Err(error),
        }
    }

    /// Completes an upload over the probe object, and says whether that was refused.
    pub(super) async fn probe_complete(&self, key: &str) -> Result<bool, StoreError> {
        let id = self.create_upload(key).await?;
        let honoured = self.probe_upload(key, &id).await;
        if !matches!(honoured, Ok(false)) {
            let _ = self.abort(key, &id).await;
        }
        honoured
    }

    async fn probe_upload(&self, key: &str, id: &str) -> Result<bool, StoreError> {
        let failed = |cause| StoreError::Write {
            url: self.url(key),
            cause,
        };
        let sent = self
            .client()
            .upload_part()
            .bucket(&self.inner.bucket)
            .key(self.full_key(key)?)
            .upload_id(id)
            .part_number(1)
            .body(ByteStream::from_static(b"probe\n"))
            .send()
            .await
            .map_err(|error| failed(cause(&error)))?;
        let part = CompletedPart::builder()
            .part_number(1)
            .set_checksum_crc32(sent.checksum_crc32)
            .set_e_tag(sent.e_tag)
            .build();
        match self.send_complete(key, id, vec![part], true).await? {
            Ok(_) => Ok(false),
            Err(cause) => match cause.meaning {
                Meaning::Precondition => Ok(true),
                Meaning::Unsupported => Ok(false),
                _ => Err(failed(cause)),
            },
        }
    }
}

#[derive(Debug)]
enum Next {
    First,
    After(String),
    End,
}

/// A listing of a bucket, page by page.
#[derive(Debug)]
pub struct Listing {
    store: S3Store,
    prefix: String,
    next: Next,
}

impl Listing {
    pub(super) async fn next_page(&mut self) -> Result<Option<Vec<ObjectMeta>>, StoreError> {
        while let Some(page) = self
            .store
            .list_page(&self.prefix, None, &mut self.next)
            .await?
        {
            let mut entries = Vec::with_capacity(page.contents().len());
            for object in page.contents() {
                let Some(key) = object.key().and_then(|key| self.store.relative(key)) else {
                    continue;
                };
                // A console's "folder" is an empty object with the name of a prefix.
                if key.is_empty() || key.ends_with('/') {
                    continue;
                }
                let entry = timestamp(object.last_modified()).and_then(|last_modified| {
                    Ok(ObjectMeta {
                        key: key.to_owned(),
                        length: length(object.size())?,
                        etag: unquoted(object.e_tag()),
                        last_modified,
                        version: None,
                        lock: None,
                    })
                });
                entries.push(entry.map_err(|cause| StoreError::List {
                    url: self.store.url(key),
                    cause,
                })?);
            }
            if !entries.is_empty() {
                return Ok(Some(entries));
            }
        }
        Ok(None)
    }
}

fn object_meta(key: &str, found: &HeadObjectOutput) -> Result<ObjectMeta, Cause> {
    let until = match (
        found.object_lock_mode(),
        found.object_lock_retain_until_date(),
    ) {
        (Some(_), Some(date)) => Some(timestamp(Some(date))?),
        _ => None,
    };
    let legal_hold = found.object_lock_legal_hold_status() == Some(&ObjectLockLegalHoldStatus::On);
    Ok(ObjectMeta {
        key: key.to_owned(),
        length: length(found.content_length())?,
        etag: unquoted(found.e_tag()),
        last_modified: timestamp(found.last_modified())?,
        // "null" is the version of objects from before the bucket was versioned, and is a version like others.
        version: found.version_id().map(str::to_owned),
        lock: (until.is_some() || legal_hold).then_some(Lock { until, legal_hold }),
    })
}

fn unquoted(etag: Option<&str>) -> String {
    etag.unwrap_or_default().trim_matches('"').to_owned()
}

fn length(length: Option<i64>) -> Result<u64, Cause> {
    length
        .and_then(|length| u64::try_from(length).ok())
        .ok_or_else(|| missing("a length"))
}

fn timestamp(date: Option<&DateTime>) -> Result<Timestamp, Cause> {
    // Never replaced by a default: ages decide what may be deleted.
    date.and_then(|date| Timestamp::new(date.secs(), i32::try_from(date.subsec_nanos()).ok()?).ok())
        .ok_or_else(|| missing("a date"))
}

fn missing(what: &str) -> Cause {
    Cause::new(Meaning::Other, format!("the store's answer lacks {what}"))
}

/// The size of the part with this number, in bytes.
fn part_size(number: u64) -> u64 {
    PART_SIZE << ((number - 1) / PARTS_OF_A_SIZE).min(9)
}

fn slice_stream(slice: SpoolSlice) -> ByteStream {
    ByteStream::new(SdkBody::retryable(move || {
        SdkBody::from_body_1_x(slice.body())
    }))
}
