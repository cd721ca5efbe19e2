//! A read that survives its connections, and never mixes two versions of an object.

use std::ops::Range;

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;

use super::client::STALL_TIMEOUT;
use super::meaning::{cause, status};
use super::{Cause, Meaning, S3Store, StoreError, length};
use crate::aws::{backoff, chain_text};

/// How often an answer that breaks off is asked for again without much progress.
pub(super) const READ_ATTEMPTS: u32 = 5;

/// Progress (bytes) after which failures of a read are forgiven.
const READ_PROGRESS: u64 = 64 * 1024;

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
    /// A read that has not asked for anything yet.
    pub(super) fn new(store: S3Store, key: String, url: String, range: Option<Range<u64>>) -> Self {
        let start = range.as_ref().map_or(0, |range| range.start);
        Self {
            store,
            key,
            url,
            start,
            offset: start,
            end: range.map(|range| range.end),
            etag: None,
            body: None,
            failures: 0,
            forgive_at: 0,
        }
    }

    pub(in crate::store) fn length(&self) -> u64 {
        self.end.unwrap_or(self.offset) - self.start
    }

    pub(in crate::store) fn url(&self) -> &str {
        &self.url
    }

    pub(in crate::store) async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
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
        if self.failures == 1 {
            let url = &self.url;
            self.store
                .inner
                .clients
                .warn(&format!("reading {url}: {text}; trying again"));
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
    pub(super) async fn connect(&mut self) -> Result<(), StoreError> {
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
