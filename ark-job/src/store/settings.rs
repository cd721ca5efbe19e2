//! What doctor asks of a store beside what operations do: how a bucket is set up, and a write over what is there.
//!
//! The write is the one exception to the rule that nothing here overwrites an object: it is for a probe that doctor has just
//! created, to see whether the store looks at the condition.

use super::{Store, StoreError};
use bytes::Bytes;

/// How a bucket is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether it keeps versions.
    pub versioning: Result<Versioning, Unknown>,
    /// What keeps new objects from being deleted, in words, if object lock is enabled: `Some(None)` without a default.
    pub object_lock: Result<Option<Option<String>>, Unknown>,
    /// Rules that delete or move away what is stored.
    pub lifecycle: Result<Vec<LifecycleRule>, Unknown>,
}

/// Whether a bucket keeps versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Versioning {
    /// It never has.
    Never,
    /// It does.
    Enabled,
    /// It did.
    Suspended,
}

/// Something that the store does not tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// Why not.
    pub why: String,
    /// Whether another right would help; else the store does not know the question.
    pub forbidden: bool,
}

/// A rule of a bucket, as far as it concerns what is stored at the location's prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LifecycleRule {
    /// Its name.
    pub id: String,
    /// Days after which it deletes objects.
    pub expires_after: Option<i32>,
    /// The storage class that it moves them to, and from which they cannot be read at once.
    pub archives_to: Option<String>,
}

impl Store {
    /// How the bucket is set up; `None` of a directory.
    pub async fn settings(&self) -> Option<Settings> {
        match self {
            Store::S3(store) => Some(store.settings().await),
            Store::File(_) => None,
        }
    }

    /// Writes over the object `key`, if its ETag is `etag`: whether it was written. `None` where there is no such request.
    ///
    /// # Errors
    /// When it is neither written nor refused because of the condition.
    pub async fn replace_if(
        &self,
        key: &str,
        etag: &str,
        content: Bytes,
    ) -> Result<Option<bool>, StoreError> {
        match self {
            Store::S3(store) => store.replace_if(key, etag, content).await.map(Some),
            Store::File(_) => Ok(None),
        }
    }

    /// Completes an upload over the object `key`, if nothing has that key: whether that was refused, as it must be.
    /// `None` where there is no such request.
    ///
    /// # Errors
    /// When it is neither completed nor refused because of the condition.
    pub async fn refuses_upload_over(&self, key: &str) -> Result<Option<bool>, StoreError> {
        match self {
            Store::S3(store) => store.probe_complete(key).await.map(Some),
            Store::File(_) => Ok(None),
        }
    }
}
