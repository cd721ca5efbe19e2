//! Objects in a bucket of S3 or of a store that speaks its language.
//!
//! Retries are the SDK's, configured here once: attempts with exponential backoff and jitter for server errors, 503
//! SlowDown, time-outs and broken connections. A store that has never answered gets fewer of them, since then a wrong
//! URL is likelier than a hiccup. What the SDK does not retry is done in this file too: the body of an answer that
//! breaks off is fetched again from where it broke ([`Reader`]).

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_config::BehaviorVersion;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_credential_types::provider::error::CredentialsError;
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{
    ConfigBag, Intercept, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    RuntimeComponents, SharedHttpClient,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{
    ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart, ObjectLockLegalHoldStatus,
    ServerSideEncryption,
};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder as HttpClientBuilder, Connector};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::body::SdkBody;
use aws_types::SdkConfig;
use aws_types::service_config::ServiceConfigKey;
use bytes::Bytes;
use futures::TryStreamExt;
use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::location::{Checksum, Encryption, S3Location};
use super::spool::{SpoolReader, SpoolSlice};
use super::{
    Cause, Conditional, Created, Credentials, Lock, Meaning, ObjectMeta, StoreError, Upload, check,
    checked_prefix,
};

/// Attempts in all, with 0.5, 1, 2, 4 and 8 seconds at most between them (half of that on average): a restart of the
/// store is survived.
const ATTEMPTS: u32 = 6;

/// Attempts for a store that has not answered anything yet.
const FIRST_ATTEMPTS: u32 = 3;

const INITIAL_BACKOFF: Duration = Duration::from_millis(500);
const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// For the TCP and TLS connection; across an ocean it takes a second.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// For one attempt at a request without much of a body, until its answer begins.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The same for a store that has not answered anything yet: one that accepts connections and says nothing.
const FIRST_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// For one attempt to complete an upload: S3 may take minutes to put thousands of parts together.
const COMPLETE_TIMEOUT: Duration = Duration::from_secs(300);

/// A slower store (in bytes a second) is taken for one that hangs.
const SLOWEST_UPLOAD: u64 = 64 * 1024;

/// How long a body may bring or take no byte at all.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How often an answer that breaks off is asked for again without much progress.
const READ_ATTEMPTS: u32 = 5;

/// Progress (bytes) after which failures of a read are forgiven.
const READ_PROGRESS: u64 = 64 * 1024;

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
    patient: Client,
    first: Client,
    bucket: String,
    /// Empty, or ending in a slash.
    prefix: String,
    url: String,
    canonical: String,
    checksum: Checksum,
    encryption: Option<ServerSideEncryption>,
    kms_key_id: Option<String>,
    answers: Answers,
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
        let url = format!("s3://{}/{}", location.bucket, location.prefix);
        let url = url.trim_end_matches('/').to_owned();
        let wrong = |text: String| StoreError::Open {
            url: url.clone(),
            cause: Cause::new(Meaning::Other, text),
        };
        location
            .validate()
            .map_err(|error| wrong(error.to_string()))?;
        let http_client = http_client(location.ca_bundle.as_deref()).map_err(wrong)?;
        let config = load_config(location, credentials, http_client).await;
        let endpoint = location
            .endpoint
            .clone()
            .or_else(|| endpoint_of_environment(&config));
        let region = match (config.region(), &endpoint) {
            (Some(region), _) => region.clone(),
            // Other stores mostly do not care, but a signature needs one.
            (None, Some(_)) => Region::from_static("us-east-1"),
            (None, None) => {
                return Err(StoreError::Open {
                    url,
                    cause: Cause::new(Meaning::WrongRegion, "no region is known"),
                });
            }
        };
        let checksum = location.checksum.unwrap_or(match endpoint {
            Some(_) => Checksum::WhenRequired,
            None => Checksum::Always,
        });
        let (request_checksum, response_checksum) = match checksum {
            Checksum::WhenRequired => (
                RequestChecksumCalculation::WhenRequired,
                ResponseChecksumValidation::WhenRequired,
            ),
            Checksum::Always => (
                RequestChecksumCalculation::WhenSupported,
                ResponseChecksumValidation::WhenSupported,
            ),
        };
        let canonical = location.canonical_at(endpoint.as_deref(), Some(region.as_ref()));
        let answers = Answers::default();
        let mut builder = aws_sdk_s3::config::Builder::from(&config)
            .region(region)
            .force_path_style(location.path_style)
            .request_checksum_calculation(request_checksum)
            .response_checksum_validation(response_checksum)
            .retry_config(retries(ATTEMPTS))
            .timeout_config(timeouts(ANSWER_TIMEOUT, ATTEMPTS))
            // Downloads are watched by `Reader`, which also resumes them.
            .stalled_stream_protection(
                StalledStreamProtectionConfig::enabled()
                    .download_enabled(false)
                    .grace_period(STALL_TIMEOUT)
                    .build(),
            )
            .interceptor(answers.clone());
        if let Some(endpoint) = endpoint {
            builder = builder.endpoint_url(endpoint);
        }
        let config = builder.build();
        let first = config
            .to_builder()
            .retry_config(retries(FIRST_ATTEMPTS))
            .timeout_config(timeouts(FIRST_ANSWER_TIMEOUT, FIRST_ATTEMPTS));
        let encryption = match (location.server_side_encryption, &location.kms_key_id) {
            (Some(Encryption::Aes256), _) => Some(ServerSideEncryption::Aes256),
            (Some(Encryption::KmsDouble), _) => Some(ServerSideEncryption::AwsKmsDsse),
            (Some(Encryption::Kms), _) | (None, Some(_)) => Some(ServerSideEncryption::AwsKms),
            (None, None) => None,
        };
        Ok(Self {
            inner: Arc::new(Inner {
                patient: Client::from_conf(config),
                first: Client::from_conf(first.build()),
                bucket: location.bucket.clone(),
                prefix: match location.prefix.as_str() {
                    "" => String::new(),
                    prefix => format!("{prefix}/"),
                },
                url,
                canonical,
                checksum,
                encryption,
                kms_key_id: location.kms_key_id.clone(),
                answers,
                ignores_put_condition: AtomicBool::new(false),
                ignores_complete_condition: AtomicBool::new(false),
            }),
        })
    }

    pub(super) fn canonical(&self) -> &str {
        &self.inner.canonical
    }

    pub(super) fn url(&self, key: &str) -> String {
        format!("{}/{key}", self.inner.url)
    }

    pub(super) fn clock(&self) -> Option<Timestamp> {
        self.inner.answers.clock()
    }

    fn client(&self) -> &Client {
        if self.inner.answers.any() {
            &self.inner.patient
        } else {
            &self.inner.first
        }
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
    ) -> Result<Option<aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output>, StoreError>
    {
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
        let mut reader = Reader {
            store: self.clone(),
            key: self.full_key(key)?,
            url: self.url(key),
            start: range.as_ref().map_or(0, |range| range.start),
            offset: range.as_ref().map_or(0, |range| range.start),
            end: range.map(|range| range.end),
            etag: None,
            body: None,
            failures: 0,
            forgive_at: 0,
        };
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
        let with_checksums = self.inner.checksum == Checksum::Always;
        let created = self
            .client()
            .create_multipart_upload()
            .bucket(&self.inner.bucket)
            .key(self.full_key(key)?)
            .set_checksum_algorithm(with_checksums.then_some(ChecksumAlgorithm::Crc32))
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
        let with_checksums = self.inner.checksum == Checksum::Always;
        let sent = self
            .client()
            .upload_part()
            .bucket(&self.inner.bucket)
            .key(self.full_key(key)?)
            .upload_id(id)
            .part_number(number)
            .set_checksum_algorithm(with_checksums.then_some(ChecksumAlgorithm::Crc32))
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
        // Also after a failure; in a bucket without the right to delete it stays, which is no reason to fail.
        let _ = self.delete(&key, None).await;
        self.inner
            .ignores_put_condition
            .store(!put?, Ordering::Relaxed);
        self.inner
            .ignores_complete_condition
            .store(!complete?, Ordering::Relaxed);
        Ok(self.conditional_writes())
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
    async fn probe_complete(&self, key: &str) -> Result<bool, StoreError> {
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

/// An object being read, from where it broke off if need be, and always the same version of it.
#[derive(Debug)]
pub struct Reader {
    store: S3Store,
    key: String,
    url: String,
    start: u64,
    offset: u64,
    end: Option<u64>,
    etag: Option<String>,
    body: Option<ByteStream>,
    failures: u32,
    forgive_at: u64,
}

impl Reader {
    pub(super) fn length(&self) -> u64 {
        self.end.unwrap_or(self.offset) - self.start
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        loop {
            let at_end = self.end == Some(self.offset);
            let Some(body) = &mut self.body else {
                if at_end {
                    return Ok(None);
                }
                self.connect().await?;
                continue;
            };
            // Read on at the end, too: a checksum that does not hold shows only there.
            match tokio::time::timeout(STALL_TIMEOUT, body.next()).await {
                Ok(Some(Ok(piece))) if at_end || piece.is_empty() => {}
                Ok(Some(Ok(mut piece))) => {
                    let rest = self.end.unwrap_or(u64::MAX) - self.offset;
                    piece.truncate(usize::try_from(rest).unwrap_or(usize::MAX));
                    self.offset += piece.len() as u64;
                    if self.offset >= self.forgive_at {
                        self.failures = 0;
                    }
                    return Ok(Some(piece));
                }
                Ok(None) if at_end => self.body = None,
                Ok(None) => self.failed("the answer ended early".to_owned()).await?,
                Ok(Some(Err(error))) if at_end => {
                    return Err(self.error(Cause::new(Meaning::Other, chain_text(&error))));
                }
                Ok(Some(Err(error))) => self.failed(chain_text(&error)).await?,
                Err(_) => {
                    let seconds = STALL_TIMEOUT.as_secs();
                    self.failed(format!("no byte came for {seconds} seconds"))
                        .await?;
                }
            }
        }
    }

    /// Counts a body that broke off, and waits before the next attempt.
    async fn failed(&mut self, text: String) -> Result<(), StoreError> {
        self.body = None;
        self.failures += 1;
        self.forgive_at = self.offset + READ_PROGRESS;
        if self.failures >= READ_ATTEMPTS {
            let text = format!("{text} (after {READ_ATTEMPTS} attempts)");
            return Err(self.error(Cause::new(Meaning::Unreachable, text)));
        }
        tokio::time::sleep(backoff(self.failures)).await;
        Ok(())
    }

    fn error(&self, cause: Cause) -> StoreError {
        StoreError::Read {
            url: self.url.clone(),
            cause,
        }
    }

    /// Asks for what is still to come.
    async fn connect(&mut self) -> Result<(), StoreError> {
        let range = match (self.offset, self.end) {
            (0, None) => None,
            (offset, None) => Some(format!("bytes={offset}-")),
            (offset, Some(end)) => Some(format!("bytes={offset}-{}", end - 1)),
        };
        let is_ranged = range.is_some();
        let answer = self
            .store
            .client()
            .get_object()
            .bucket(&self.store.inner.bucket)
            .key(&self.key)
            .set_range(range)
            .set_if_match(self.etag.clone())
            .send()
            .await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                let invalid_range = status(&error) == Some(416);
                return Err(match (invalid_range, self.end) {
                    (true, Some(wanted)) => self.too_short(wanted).await?,
                    _ => self.error(cause(&error)),
                });
            }
        };
        let (start, total) = extent(&answer).map_err(|cause| self.error(cause))?;
        if start != self.offset {
            let text = if is_ranged && start == 0 {
                "the store does not answer ranges"
            } else {
                "the store answered another range than the one that was asked"
            };
            return Err(self.error(Cause::new(Meaning::Unsupported, text)));
        }
        let end = *self.end.get_or_insert(total);
        if total < end {
            return Err(StoreError::Short {
                url: self.url.clone(),
                length: total,
                wanted: end,
            });
        }
        self.etag = answer.e_tag;
        self.body = Some(answer.body);
        Ok(())
    }

    /// The error for a range behind the end of the object.
    async fn too_short(&self, wanted: u64) -> Result<StoreError, StoreError> {
        let head = self
            .store
            .client()
            .head_object()
            .bucket(&self.store.inner.bucket)
            .key(&self.key)
            .send()
            .await
            .map_err(|error| self.error(cause(&error)))?;
        Ok(StoreError::Short {
            url: self.url.clone(),
            length: length(head.content_length()).map_err(|cause| self.error(cause))?,
            wanted,
        })
    }
}

/// The first byte of an answer's body within the object, and the length of the whole object.
fn extent(answer: &GetObjectOutput) -> Result<(u64, u64), Cause> {
    let Some(content_range) = answer.content_range() else {
        return Ok((0, length(answer.content_length())?));
    };
    // RFC 9110 §14.4: `bytes 5-9/10`
    let parsed = content_range.strip_prefix("bytes ").and_then(|rest| {
        let (range, total) = rest.split_once('/')?;
        let (start, _) = range.split_once('-')?;
        Some((start.parse().ok()?, total.parse().ok()?))
    });
    parsed.ok_or_else(|| {
        Cause::new(
            Meaning::Unsupported,
            format!("the store answered with the range {content_range:?}"),
        )
    })
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

fn retries(attempts: u32) -> RetryConfig {
    RetryConfig::standard()
        .with_max_attempts(attempts)
        .with_initial_backoff(INITIAL_BACKOFF)
        .with_max_backoff(MAX_BACKOFF)
}

/// Bounds for a request: an attempt may take `answer`, all of them together what the attempts and waits add up to.
fn timeouts(answer: Duration, attempts: u32) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(answer)
        .operation_timeout((answer + MAX_BACKOFF) * attempts)
        .build()
}

fn upload_timeouts(length: u64) -> aws_sdk_s3::config::Builder {
    let body = Duration::from_secs(length / SLOWEST_UPLOAD);
    aws_sdk_s3::Config::builder().timeout_config(timeouts(ANSWER_TIMEOUT + body, ATTEMPTS))
}

/// The wait before attempt `failures + 1`, somewhere between half and all of an exponentially growing time.
fn backoff(failures: u32) -> Duration {
    let full = (INITIAL_BACKOFF * 2u32.saturating_pow(failures.saturating_sub(1))).min(MAX_BACKOFF);
    full.mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// A client over rustls with ring, with the system's certificate authorities and those of `ca_bundle`, through the
/// proxy that HTTP_PROXY, HTTPS_PROXY and NO_PROXY name.
fn http_client(ca_bundle: Option<&[u8]>) -> Result<SharedHttpClient, String> {
    let mut trust = TrustStore::default();
    if let Some(pem) = ca_bundle {
        check_certificates(pem)?;
        trust = trust.with_pem_certificate(pem);
    }
    let tls = TlsContext::builder()
        .with_trust_store(trust)
        .build()
        .map_err(|error| chain_text(&error))?;
    Ok(
        HttpClientBuilder::new().build_with_connector_fn(move |settings, components| {
            let mut connector = Connector::builder()
                .proxy_config(ProxyConfig::from_env())
                .tls_provider(Provider::Rustls(CryptoMode::Ring))
                .tls_context(tls.clone());
            connector.set_connector_settings(settings.cloned());
            connector.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
            connector.build()
        }),
    )
}

/// The SDK panics at a certificate that it cannot read, so this looks first.
fn check_certificates(pem: &[u8]) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("CA bundle: {error}"))?;
        roots
            .add(certificate)
            .map_err(|error| format!("CA bundle: {error}"))?;
    }
    if roots.is_empty() {
        return Err("CA bundle: there is no certificate in it".to_owned());
    }
    Ok(())
}

async fn load_config(
    location: &S3Location,
    credentials: &Credentials,
    http_client: SharedHttpClient,
) -> SdkConfig {
    let files = location.credentials_file.as_ref().map(|path| {
        EnvConfigFiles::builder()
            .include_default_config_file(true)
            .with_file(EnvConfigFileKind::Credentials, path)
            .build()
    });
    let region = location.region.clone().map(Region::new);
    let mut loader =
        aws_config::defaults(BehaviorVersion::latest()).http_client(http_client.clone());
    if let Some(region) = region.clone() {
        loader = loader.region(region);
    }
    if let Some(profile) = &location.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(files) = files.clone() {
        loader = loader.profile_files(files);
    }
    match credentials {
        Credentials::Keys {
            access_key_id,
            secret_access_key,
            session_token,
        } => {
            let keys = aws_credential_types::Credentials::new(
                access_key_id,
                secret_access_key,
                session_token.clone(),
                None,
                "ark",
            );
            loader = loader.credentials_provider(keys);
        }
        // The default chain asks the environment first; what the location names comes before that.
        Credentials::Chain if files.is_some() || location.profile.is_some() => {
            let configuration = ProviderConfig::default()
                .with_http_client(http_client)
                .with_region(region);
            let mut provider = ProfileFileCredentialsProvider::builder().configure(&configuration);
            if let Some(files) = files {
                provider = provider.profile_files(files);
            }
            if let Some(profile) = &location.profile {
                provider = provider.profile_name(profile);
            }
            loader = loader.credentials_provider(provider.build());
        }
        Credentials::Chain => {}
    }
    let config = loader.load().await;
    let Some(role) = &location.role_arn else {
        return config;
    };
    let assumed = AssumeRoleProvider::builder(role)
        .session_name("ark")
        .configure(&config)
        .build()
        .await;
    config
        .into_builder()
        .credentials_provider(SharedCredentialsProvider::new(assumed))
        .build()
}

/// The endpoint of `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL` or the profile, which the SDK would use by itself, but then
/// nobody could say where the backups really are.
fn endpoint_of_environment(config: &SdkConfig) -> Option<String> {
    let key = ServiceConfigKey::builder()
        .service_id("S3")
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build()
        .ok()?;
    config
        .service_config()
        .and_then(|service| service.load_config(key))
        .or_else(|| config.endpoint_url().map(str::to_owned))
}

/// Watches the answers of the store: whether there was one, and what its clock said.
#[derive(Clone, Debug, Default)]
struct Answers {
    latest: Arc<Mutex<Option<(Timestamp, Instant)>>>,
    any: Arc<AtomicBool>,
}

impl Answers {
    fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    fn clock(&self) -> Option<Timestamp> {
        let (date, seen) = (*self.latest.lock().unwrap_or_else(PoisonError::into_inner))?;
        date.checked_add(seen.elapsed()).ok()
    }
}

#[aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint]
impl Intercept for Answers {
    fn name(&self) -> &'static str {
        "Answers"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _runtime_components: &RuntimeComponents,
        _cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.any.store(true, Ordering::Relaxed);
        let date = context.response().headers().get("date");
        if let Some(date) = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok()) {
            let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
            *latest = Some((date.timestamp(), Instant::now()));
        }
        Ok(())
    }
}

fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error
        .raw_response()
        .map(|response| response.status().as_u16())
}

/// The one place where the SDK's errors get their meaning.
fn cause<E>(error: &SdkError<E, HttpResponse>) -> Cause
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    match error {
        SdkError::ServiceError(service) => {
            let status = service.raw().status().as_u16();
            let code = service.err().code();
            let mut text = match (code, service.err().message()) {
                (Some(code), Some(message)) => format!("{code}: {message}"),
                (Some(only), None) | (None, Some(only)) => only.to_owned(),
                (None, None) => "the store refused".to_owned(),
            };
            text.push_str(&format!(" (HTTP {status}"));
            if let Some(id) = service.raw().headers().get("x-amz-request-id") {
                text.push_str(&format!(", request {id}"));
            }
            text.push(')');
            Cause::new(service_meaning(code, status), text)
        }
        SdkError::TimeoutError(_) => Cause::new(Meaning::Unreachable, "no answer in time"),
        SdkError::ResponseError(response) => {
            let status = response.raw().status().as_u16();
            let text = format!("{} (HTTP {status})", chain_text(error));
            Cause::new(service_meaning(None, status), text)
        }
        other => Cause::new(transport_meaning(other), chain_text(other)),
    }
}

fn service_meaning(code: Option<&str>, status: u16) -> Meaning {
    match (code.unwrap_or_default(), status) {
        ("NoSuchBucket", _) => Meaning::BucketMissing,
        ("NoSuchUpload", _) => Meaning::UploadGone,
        ("NoSuchKey" | "NoSuchVersion", _) => Meaning::NotFound,
        ("PreconditionFailed", _) | (_, 412) => Meaning::Precondition,
        ("ConditionalRequestConflict" | "OperationAborted", _) => Meaning::Conflict,
        (
            "AccessDenied"
            | "AllAccessDisabled"
            | "AccountProblem"
            | "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "ExpiredToken"
            | "InvalidToken"
            | "TokenRefreshRequired"
            | "RequestTimeTooSkewed",
            _,
        ) => Meaning::Credentials,
        (
            "PermanentRedirect"
            | "AuthorizationHeaderMalformed"
            | "IllegalLocationConstraintException",
            _,
        ) => Meaning::WrongRegion,
        // The second and third are MinIO's.
        ("QuotaExceeded" | "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded", _)
        | (_, 507) => Meaning::Full,
        ("NotImplemented", _) | (_, 501) => Meaning::Unsupported,
        (_, 404) => Meaning::NotFound,
        (_, 401 | 403) => Meaning::Credentials,
        (_, 409) => Meaning::Conflict,
        (_, 301 | 307) => Meaning::WrongRegion,
        (_, 408 | 429 | 500..) => Meaning::Unreachable,
        _ => Meaning::Other,
    }
}

fn transport_meaning<E>(error: &SdkError<E, HttpResponse>) -> Meaning
where
    E: StdError + 'static,
{
    if find::<CredentialsError>(error) {
        return Meaning::Credentials;
    }
    if chain(error)
        .filter_map(|link| link.downcast_ref::<rustls::Error>())
        .any(|tls| matches!(tls, rustls::Error::InvalidCertificate(_)))
    {
        return Meaning::Untrusted;
    }
    // The spool under an upload: local, so no network to blame.
    if chain(error)
        .filter_map(|link| link.downcast_ref::<io::Error>())
        .any(super::spool::is_full)
    {
        return Meaning::Full;
    }
    match error {
        SdkError::DispatchFailure(failure) if failure.is_user() => Meaning::Other,
        SdkError::DispatchFailure(_) => Meaning::Unreachable,
        _ => Meaning::Other,
    }
}

/// An error and what is below it. An `io::Error` hides the error that it wraps behind that one's source.
fn chain<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| {
        match error.downcast_ref::<io::Error>() {
            Some(io) => io.get_ref().map(|inner| inner as &(dyn StdError + 'static)),
            None => error.source(),
        }
    })
}

fn find<T: StdError + 'static>(error: &(dyn StdError + 'static)) -> bool {
    chain(error).any(|link| link.is::<T>())
}

/// The texts of an error and what is below it, each thing said once.
fn chain_text(error: &(dyn StdError + 'static)) -> String {
    let mut text = String::new();
    for link in chain(error) {
        let more = link.to_string();
        if more.is_empty() || text.ends_with(&more) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&more);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::{Spool, Store};
    use super::*;

    /// A request as it came, without its body.
    #[derive(Clone, Debug)]
    struct Request {
        line: String,
        headers: String,
    }

    impl Request {
        fn is(&self, method: &str, query: &str) -> bool {
            self.line.starts_with(&format!("{method} ")) && self.line.contains(query)
        }

        fn header(&self, name: &str) -> Option<&str> {
            self.headers
                .lines()
                .filter_map(|line| line.split_once(": "))
                .find(|(found, _)| found.eq_ignore_ascii_case(name))
                .map(|(_, value)| value)
        }
    }

    /// A store that answers as a test says: one request a connection, raw bytes back (none: the answer is lost).
    struct Scripted {
        store: Store,
        requests: Arc<Mutex<Vec<Request>>>,
    }

    impl Scripted {
        fn lines(&self) -> Vec<String> {
            let requests = self.requests.lock().unwrap();
            requests
                .iter()
                .map(|request| request.line.split(" HTTP").next().unwrap().to_owned())
                .collect()
        }
    }

    async fn scripted(
        answer: impl Fn(&Request, usize) -> String + Send + Sync + 'static,
    ) -> Scripted {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (Arc::clone(&requests), Arc::new(answer));
        tokio::spawn(async move {
            loop {
                let (mut connection, _) = listener.accept().await.unwrap();
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                tokio::spawn(async move {
                    let mut bytes = Vec::new();
                    let head = loop {
                        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                            break end;
                        }
                        if connection.read_buf(&mut bytes).await.unwrap() == 0 {
                            return;
                        }
                    };
                    let text = String::from_utf8(bytes[..head].to_vec()).unwrap();
                    let (line, headers) = text.split_once("\r\n").unwrap();
                    let request = Request {
                        line: line.to_owned(),
                        headers: headers.to_owned(),
                    };
                    let length: usize = request
                        .header("content-length")
                        .map_or(0, |length| length.parse().unwrap());
                    while bytes.len() < head + 4 + length {
                        connection.read_buf(&mut bytes).await.unwrap();
                    }
                    let number = {
                        let mut seen = seen.lock().unwrap();
                        seen.push(request.clone());
                        seen.len() - 1
                    };
                    let reply = answer(&request, number);
                    connection.write_all(reply.as_bytes()).await.unwrap();
                });
            }
        });
        let location = format!("s3://bucket?endpoint={endpoint}&path-style=true");
        let keys = Credentials::Keys {
            access_key_id: "id".to_owned(),
            secret_access_key: "secret".to_owned(),
            session_token: None,
        };
        let store = Store::open(&location.parse().unwrap(), &keys).await;
        Scripted {
            store: store.unwrap(),
            requests,
        }
    }

    fn reply(status: &str, headers: &str, body: &str) -> String {
        let length = body.len();
        format!(
            "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
        )
    }

    fn refusal(status: &str, code: &str) -> String {
        let body = format!("<Error><Code>{code}</Code><Message>no</Message></Error>");
        reply(status, "", &body)
    }

    /// An answer that promises `length` bytes, whatever it has.
    fn object(length: usize, headers: &str, body: &str) -> String {
        format!(
            "HTTP/1.1 206 Partial Content\r\nconnection: close\r\ncontent-length: {length}\r\netag: \"e\"\r\n\
             {headers}\r\n\r\n{body}"
        )
    }

    #[tokio::test]
    async fn read_that_breaks_off_is_resumed_from_there() {
        let server = scripted(|_, number| match number {
            0 => object(6, "content-range: bytes 2-7/10", "23"),
            1 => refusal("503 Slow Down", "SlowDown"),
            // Honest about being short.
            2 => object(1, "content-range: bytes 4-4/10", "4"),
            _ => object(3, "content-range: bytes 5-7/10", "567"),
        })
        .await;
        assert_eq!(server.store.get_range("key", 2..8).await.unwrap(), "234567");
        let requests = server.requests.lock().unwrap().clone();
        let asked: Vec<_> = requests
            .iter()
            .map(|request| (request.header("range"), request.header("if-match")))
            .collect();
        let same = Some("\"e\"");
        assert_eq!(
            asked,
            [
                (Some("bytes=2-7"), None),
                (Some("bytes=4-7"), same),
                (Some("bytes=4-7"), same),
                (Some("bytes=5-7"), same)
            ]
        );
    }

    #[tokio::test]
    async fn read_without_progress_ends_with_an_error() {
        let server = scripted(|_, _| object(6, "content-range: bytes 0-5/6", "")).await;
        let error = server.store.get("key", 100).await.unwrap_err();
        assert!(error.is_unreachable(), "{error:?}");
        assert_eq!(server.lines().len(), READ_ATTEMPTS as usize);
    }

    #[tokio::test]
    async fn replaced_object_is_not_mixed_with_its_predecessor() {
        let server = scripted(|_, number| match number {
            0 => object(6, "content-range: bytes 0-5/6", "01"),
            _ => refusal("412 Precondition Failed", "PreconditionFailed"),
        })
        .await;
        let error = server.store.get_range("key", 0..6).await.unwrap_err();
        assert_eq!(error.meaning(), Meaning::Precondition);
    }

    #[tokio::test]
    async fn store_without_ranges_is_noticed() {
        let server = scripted(|_, _| reply("200 OK", "etag: \"e\"\r\n", "0123456789")).await;
        let error = server.store.get_range("key", 4..6).await.unwrap_err();
        assert_eq!(error.meaning(), Meaning::Unsupported);
    }

    #[tokio::test]
    async fn lost_answer_of_a_create_may_be_its_own_echo() {
        let server = scripted(|_, number| match number {
            0 => String::new(),
            _ => refusal("412 Precondition Failed", "PreconditionFailed"),
        })
        .await;
        let created = server.store.put_new("key", Bytes::from_static(b"x")).await;
        assert_eq!(created.unwrap(), Created::Exists);
        assert_eq!(server.lines().len(), 2);
        let requests = server.requests.lock().unwrap();
        assert!(
            requests
                .iter()
                .all(|request| request.header("if-none-match") == Some("*"))
        );
    }

    #[tokio::test]
    async fn conflict_of_a_small_create_is_tried_again() {
        let server = scripted(|_, number| match number {
            0 => refusal("409 Conflict", "ConditionalRequestConflict"),
            _ => reply("200 OK", "etag: \"e\"\r\n", ""),
        })
        .await;
        let created = server.store.put_new("key", Bytes::from_static(b"x")).await;
        let etag = "e".to_owned();
        assert_eq!(created.unwrap(), Created::New { etag });
    }

    #[tokio::test]
    async fn listing_that_hides_its_rest_is_an_error() {
        let server = scripted(|_, _| {
            let body = "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>";
            reply("200 OK", "", body)
        })
        .await;
        let error = server.store.list("").next_page().await.unwrap_err();
        assert!(matches!(error, StoreError::List { .. }), "{error:?}");
    }

    /// Uploads an object of two parts to a store that answers the completion, and HEAD, as told.
    async fn upload(
        complete: fn(usize) -> String,
        head: &'static str,
    ) -> (Scripted, Result<Created, StoreError>) {
        let completions = std::sync::atomic::AtomicUsize::new(0);
        let server = scripted(move |request, _| {
            if request.is("POST", "?uploads") {
                let body = "<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>";
                reply("200 OK", "", body)
            } else if request.is("POST", "uploadId=u1") {
                complete(completions.fetch_add(1, Ordering::Relaxed))
            } else if request.is("HEAD", "") {
                let date = "last-modified: Wed, 21 Oct 2026 07:28:00 GMT\r\n";
                reply(head, date, "")
            } else if request.is("PUT", "") {
                reply("200 OK", "etag: \"p\"\r\n", "")
            } else {
                reply("204 No Content", "", "")
            }
        })
        .await;
        let scratch = tempfile::tempdir().unwrap();
        let content = Bytes::from(vec![7; PART_SIZE as usize + 1]);
        let mut spool = Spool::of(scratch.path(), content).await.unwrap();
        let result = server.store.upload_new("key", &mut spool).await;
        (server, result)
    }

    fn was_aborted(server: &Scripted) -> bool {
        server
            .lines()
            .iter()
            .any(|line| line.starts_with("DELETE ") && line.contains("uploadId=u1"))
    }

    const DONE: &str =
        "<CompleteMultipartUploadResult><ETag>\"done\"</ETag></CompleteMultipartUploadResult>";

    #[tokio::test]
    async fn upload_is_completed_conditionally() {
        let (server, result) = upload(|_| reply("200 OK", "", DONE), "404 Not Found").await;
        let etag = "done".to_owned();
        assert_eq!(result.unwrap(), Created::New { etag });
        assert!(!was_aborted(&server));
        let requests = server.requests.lock().unwrap();
        let last = requests.last().unwrap();
        assert_eq!(last.header("if-none-match"), Some("*"), "{last:?}");
    }

    #[tokio::test]
    async fn error_in_the_body_of_a_good_status_is_retried() {
        let (_, result) = upload(
            |number| match number {
                0 => refusal("200 OK", "InternalError"),
                _ => reply("200 OK", "", DONE),
            },
            "404 Not Found",
        )
        .await;
        let etag = "done".to_owned();
        assert_eq!(result.unwrap(), Created::New { etag });
    }

    #[tokio::test]
    async fn loser_of_an_upload_aborts_it() {
        let refused = |_| refusal("412 Precondition Failed", "PreconditionFailed");
        let (server, result) = upload(refused, "200 OK").await;
        assert_eq!(result.unwrap(), Created::Exists);
        assert!(was_aborted(&server));
    }

    #[tokio::test]
    async fn lost_answer_of_a_completion_may_be_its_own_echo() {
        let (_, result) = upload(
            |number| match number {
                0 => String::new(),
                _ => refusal("404 Not Found", "NoSuchUpload"),
            },
            "200 OK",
        )
        .await;
        assert_eq!(result.unwrap(), Created::Exists);
    }

    #[tokio::test]
    async fn upload_that_was_swept_away_is_an_error() {
        let gone = |_| refusal("404 Not Found", "NoSuchUpload");
        let (_, result) = upload(gone, "404 Not Found").await;
        assert_eq!(result.unwrap_err().meaning(), Meaning::UploadGone);
    }

    #[tokio::test]
    async fn conflict_of_a_completion_has_its_own_meaning() {
        let conflict = |_| refusal("409 Conflict", "ConditionalRequestConflict");
        let (server, result) = upload(conflict, "404 Not Found").await;
        assert!(result.unwrap_err().is_conflict());
        assert!(was_aborted(&server));
    }

    #[tokio::test]
    async fn store_that_ignores_conditions_is_found_out() {
        let server = scripted(|request, _| {
            if request.is("POST", "?uploads") {
                let body = "<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>";
                reply("200 OK", "", body)
            } else if request.is("POST", "") {
                reply("200 OK", "", DONE)
            } else if request.is("HEAD", "") {
                reply("200 OK", "last-modified: Wed, 21 Oct 2026 07:28:00 GMT\r\n", "")
            } else {
                reply("200 OK", "etag: \"p\"\r\n", "")
            }
        })
        .await;
        let found = server.store.probe("nonce").await.unwrap();
        let none = Conditional {
            put: false,
            complete: false,
        };
        assert_eq!((found, server.store.conditional_writes()), (none, none));
        assert_eq!(
            server.lines().last().unwrap(),
            "DELETE /bucket/metadata/ark-probe-nonce?x-id=DeleteObject"
        );
        // From now on it looks before it writes.
        let created = server.store.put_new("key", Bytes::new()).await.unwrap();
        assert_eq!(created, Created::Exists);
        assert_eq!(server.lines().last().unwrap(), "HEAD /bucket/key");
    }

    #[tokio::test]
    async fn store_that_refuses_conditions_is_found_out() {
        let server = scripted(|request, _| {
            if request.header("if-none-match").is_some() {
                refusal("501 Not Implemented", "NotImplemented")
            } else if request.is("POST", "?uploads") {
                let body = "<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>";
                reply("200 OK", "", body)
            } else if request.is("HEAD", "") {
                reply("404 Not Found", "", "")
            } else {
                reply("200 OK", "etag: \"p\"\r\n", "")
            }
        })
        .await;
        let found = server.store.probe("nonce").await.unwrap();
        let none = Conditional {
            put: false,
            complete: false,
        };
        assert_eq!(found, none);
        let etag = "p".to_owned();
        let created = server.store.put_new("key", Bytes::new()).await.unwrap();
        assert_eq!(created, Created::New { etag });
    }

    #[test]
    fn parts_never_reach_the_limits_of_s3() {
        let total: u64 = (1..=10_000).map(part_size).sum();
        assert!(total >= 5 << 40, "an object may have 5 TiB");
        assert!(part_size(10_000) <= 5 << 30, "a part may have 5 GiB");
        assert_eq!(part_size(1000), PART_SIZE);
        assert_eq!(part_size(1001), 2 * PART_SIZE);
    }

    #[test]
    fn bad_certificates_are_an_error_and_no_panic() {
        for bundle in [
            "",
            "nonsense",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            assert!(http_client(Some(bundle.as_bytes())).is_err(), "{bundle}");
        }
    }
}
