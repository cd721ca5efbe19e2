//! What can go wrong at the storage edge, and what it means.
//!
//! Each backend turns its foreign errors into a [`Cause`] in one place ([`super::s3`], [`super::file`]); everybody else
//! asks the meaning methods of [`StoreError`] and never looks at texts. What to do about a failure (exit codes, retries
//! of a whole step) is not decided here.

use super::spool::SpoolError;

/// What a failure means, whatever the backend called it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Meaning {
    /// The object is not there.
    NotFound,
    /// The bucket or directory itself is not there.
    BucketMissing,
    /// The store does not accept who we are, or we have nothing to say who we are.
    Credentials,
    /// No connection, no answer in time, or only server errors, after all attempts.
    Unreachable,
    /// A connection came up, but the certificate is not one that we trust.
    Untrusted,
    /// The bucket is in another region than the one that was asked.
    WrongRegion,
    /// A conditional write met another write in flight (HTTP 409): neither "exists" nor "created".
    Conflict,
    /// The disk, quota or bucket is full.
    Full,
    /// A condition did not hold (HTTP 412), for example because the object was replaced while it was read.
    Precondition,
    /// The multipart upload is not there (any more).
    UploadGone,
    /// The store does not know this kind of request.
    Unsupported,
    /// None of the above.
    Other,
}

/// The failure underneath a [`StoreError`]: its meaning, and the backend's own words for a person.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub struct Cause {
    /// What the failure means.
    pub meaning: Meaning,
    text: String,
}

impl Cause {
    pub(super) fn new(meaning: Meaning, text: impl Into<String>) -> Self {
        Self {
            meaning,
            text: text.into(),
        }
    }
}

/// A request to a store that failed, after all retries.
///
/// Every variant says what we were doing to which object; `url` never contains credentials.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The location could not be made ready for requests.
    #[error("opening storage {url}")]
    Open {
        /// The location.
        url: String,
        /// Why.
        #[source]
        cause: Cause,
    },
    /// A listing is incomplete: nothing may be concluded from the entries seen so far.
    #[error("listing {url}")]
    List {
        /// The location and prefix.
        url: String,
        /// Why.
        #[source]
        cause: Cause,
    },
    /// Metadata of an object could not be read.
    #[error("looking at {url}")]
    Look {
        /// The object.
        url: String,
        /// Why.
        #[source]
        cause: Cause,
    },
    /// The content of an object could not be read.
    #[error("reading {url}")]
    Read {
        /// The object.
        url: String,
        /// Why.
        #[source]
        cause: Cause,
    },
    /// An object could not be written. Whether it exists now is unknown unless the meaning says so.
    #[error("writing {url}")]
    Write {
        /// The object.
        url: String,
        /// Why.
        #[source]
        cause: Cause,
    },
    /// An object could not be deleted.
    #[error("deleting {url}")]
    Delete {
        /// The object.
        url: String,
        /// Why.
        #[source]
        cause: Cause,
    },
    /// An object is longer than the caller is ready to hold in memory.
    #[error("{url} is {length} bytes long, more than the {limit} that it may be")]
    TooLong {
        /// The object.
        url: String,
        /// Its length in bytes.
        length: u64,
        /// The caller's limit in bytes.
        limit: u64,
    },
    /// An object ends before the asked range does.
    #[error("{url} ends at byte {length}, before byte {wanted}")]
    Short {
        /// The object.
        url: String,
        /// Its length in bytes.
        length: u64,
        /// The end of the asked range.
        wanted: u64,
    },
    /// A string that cannot be a key in every backend.
    #[error("{key:?} cannot be a storage key: {reason}")]
    Key {
        /// The string.
        key: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// What was to be uploaded could not be read, or its writer gave up. Nothing was created.
    #[error("reading what is to be written to {url}")]
    Source {
        /// The object that was being written.
        url: String,
        /// Why.
        #[source]
        cause: SpoolError,
    },
}

impl StoreError {
    /// Whoever wrote what was to be uploaded gave up.
    pub fn is_abandoned(&self) -> bool {
        matches!(
            self,
            StoreError::Source {
                cause: SpoolError::Abandoned,
                ..
            }
        )
    }

    /// What the failure means.
    pub fn meaning(&self) -> Meaning {
        match self {
            Self::Open { cause, .. }
            | Self::List { cause, .. }
            | Self::Look { cause, .. }
            | Self::Read { cause, .. }
            | Self::Write { cause, .. }
            | Self::Delete { cause, .. } => cause.meaning,
            Self::Source { cause, .. } if cause.is_full() => Meaning::Full,
            Self::TooLong { .. } | Self::Short { .. } | Self::Key { .. } | Self::Source { .. } => {
                Meaning::Other
            }
        }
    }

    /// The object is not there.
    pub fn is_not_found(&self) -> bool {
        self.meaning() == Meaning::NotFound
    }

    /// The bucket or directory is not there.
    ///
    /// S3 cannot tell a missing bucket from a missing object in the answer to a HEAD, so only listings, reads and
    /// writes have this meaning.
    pub fn is_bucket_missing(&self) -> bool {
        self.meaning() == Meaning::BucketMissing
    }

    /// The store refused our identity or rights, or no credentials were found. A retry does not cure it.
    pub fn is_credentials(&self) -> bool {
        self.meaning() == Meaning::Credentials
    }

    /// The store could not be reached, did not answer in time, or kept answering with server errors. A later retry may
    /// cure it.
    pub fn is_unreachable(&self) -> bool {
        matches!(self.meaning(), Meaning::Unreachable | Meaning::Untrusted)
    }

    /// The store saw another conditional write of the same object in flight (HTTP 409).
    pub fn is_conflict(&self) -> bool {
        self.meaning() == Meaning::Conflict
    }

    /// The store, its quota, or the local disk is full.
    pub fn is_full(&self) -> bool {
        self.meaning() == Meaning::Full
    }

    /// What a person can do next, as a sentence for a `hint:` line.
    pub fn hint(&self) -> Option<String> {
        let hint = match self.meaning() {
            Meaning::BucketMissing => {
                "create the bucket or directory first, or check its name in the storage location"
            }
            Meaning::Credentials => {
                "check the credentials (Secret, profile, role or AWS_* variables) and that they may list, read and write \
                 this bucket and prefix"
            }
            Meaning::Unreachable => {
                "check the endpoint and region, the network between here and the store, and HTTPS_PROXY and NO_PROXY"
            }
            Meaning::Untrusted => {
                "give the certificate authority of the store: the location's CA reference, or AWS_CA_BUNDLE"
            }
            Meaning::WrongRegion => {
                "set the region of the bucket: `region` in the location or in the URL"
            }
            Meaning::Conflict => {
                "another run is writing the same object; try again when it has finished"
            }
            Meaning::Full => "make room or raise the quota, then run it again",
            Meaning::Unsupported => {
                "the store does not know this request: it is not as complete as S3, or a proxy before it is not"
            }
            Meaning::NotFound | Meaning::Precondition | Meaning::UploadGone | Meaning::Other => {
                return None;
            }
        };
        Some(hint.to_owned())
    }
}
