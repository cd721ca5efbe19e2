//! How a bucket is set up, as far as it lets itself be asked.

use super::{ByteStream, Meaning, S3Store, cause};
use crate::store::settings::{LifecycleRule, Settings, Unknown, Versioning};
use crate::store::{Cause, StoreError};
use aws_sdk_s3::types::{BucketVersioningStatus, ExpirationStatus, LifecycleRule as Rule};
use bytes::Bytes;

/// Storage classes whose objects must be brought back before they can be read.
const ARCHIVES: [&str; 2] = ["GLACIER", "DEEP_ARCHIVE"];

impl S3Store {
    pub(in crate::store) async fn settings(&self) -> Settings {
        let bucket = &self.inner.bucket;
        let versioning = self.client().get_bucket_versioning().bucket(bucket).send();
        let lock = self
            .client()
            .get_object_lock_configuration()
            .bucket(bucket)
            .send();
        let lifecycle = self
            .client()
            .get_bucket_lifecycle_configuration()
            .bucket(bucket)
            .send();
        let (versioning, lock, lifecycle) = futures::join!(versioning, lock, lifecycle);
        let versioning = versioning.map(|found| match found.status() {
            Some(BucketVersioningStatus::Enabled) => Versioning::Enabled,
            Some(_) => Versioning::Suspended,
            None => Versioning::Never,
        });
        let lock = lock.map(|found| {
            let retention = found.object_lock_configuration()?.rule().map(|rule| {
                let default = rule.default_retention()?;
                let mode = default.mode().map_or("", |mode| mode.as_str());
                Some(match (default.days(), default.years()) {
                    (Some(days), _) => format!("{mode}, {days} days"),
                    (None, Some(years)) => format!("{mode}, {years} years"),
                    (None, None) => mode.to_owned(),
                })
            });
            Some(retention.flatten())
        });
        let lifecycle = lifecycle.map(|found| {
            let rules = found.rules().iter();
            rules.filter_map(|rule| self.rule(rule)).collect()
        });
        Settings {
            versioning: versioning.map_err(|error| unknown(cause(&error))),
            object_lock: absent(lock.map_err(|error| cause(&error))),
            lifecycle: absent(lifecycle.map_err(|error| cause(&error))),
        }
    }

    /// What a rule does to what is stored here, if it does anything.
    fn rule(&self, rule: &Rule) -> Option<LifecycleRule> {
        if rule.status() != &ExpirationStatus::Enabled {
            return None;
        }
        let filter = rule.filter();
        #[expect(
            deprecated,
            reason = "buckets have rules from before there were filters"
        )]
        let old = rule.prefix();
        let prefix = filter
            .and_then(|filter| {
                let and = filter.and().and_then(|and| and.prefix());
                filter.prefix().or(and)
            })
            .or(old)
            .unwrap_or_default();
        let tagged = filter.is_some_and(|filter| {
            let and = filter.and().is_some_and(|and| !and.tags().is_empty());
            // Objects of ours have no tags.
            filter.tag().is_some() || and
        });
        let ours = &self.inner.prefix;
        if tagged || !(prefix.starts_with(ours.as_str()) || ours.starts_with(prefix)) {
            return None;
        }
        let expires_after = rule.expiration().and_then(|expiration| expiration.days());
        let archives_to = rule.transitions().iter().find_map(|transition| {
            let class = transition.storage_class()?.as_str();
            ARCHIVES.contains(&class).then(|| class.to_owned())
        });
        (expires_after.is_some() || archives_to.is_some()).then(|| LifecycleRule {
            id: rule.id().unwrap_or("without a name").to_owned(),
            expires_after,
            archives_to,
        })
    }

    pub(in crate::store) async fn replace_if(
        &self,
        key: &str,
        etag: &str,
        content: Bytes,
    ) -> Result<bool, StoreError> {
        let answer = self
            .client()
            .put_object()
            .bucket(&self.inner.bucket)
            .key(self.full_key(key)?)
            .if_match(format!("\"{etag}\""))
            .set_server_side_encryption(self.inner.encryption.clone())
            .set_ssekms_key_id(self.inner.kms_key_id.clone())
            .body(ByteStream::from(content))
            .send()
            .await;
        match answer.map_err(|error| cause(&error)) {
            Ok(_) => Ok(true),
            Err(cause) if cause.meaning == Meaning::Precondition => Ok(false),
            Err(cause) => Err(StoreError::Write {
                url: self.url(key),
                cause,
            }),
        }
    }
}

/// What is not set up is not there.
fn absent<T: Default>(answer: Result<T, Cause>) -> Result<T, Unknown> {
    match answer {
        Err(cause) if matches!(cause.meaning, Meaning::NotFound) => Ok(T::default()),
        other => other.map_err(unknown),
    }
}

fn unknown(cause: Cause) -> Unknown {
    Unknown {
        why: cause.to_string(),
        forbidden: cause.meaning == Meaning::Credentials,
    }
}
