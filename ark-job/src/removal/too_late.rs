//! A deletion that has been taken back after it had destroyed something.
//!
//! An undeletion looks twice, some seconds apart; a DELETE that was sent before may be on its way for longer. Only the
//! deletion that sent it learns in the end that it has come, and so it is the one that looks a third time.

use super::intact::{Depth, examine};
use super::snapshots::put_deleting;
use super::{Removal, RemovalError, Target, target};
use crate::api::Backup;
use crate::store::Created;
use crate::tombstone::Cause;

/// What tells a backup from a later one of its name: ETags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    description: Option<String>,
    archive: Option<String>,
}

impl Identity {
    pub(super) fn of(target: &Target) -> Identity {
        let etag = |object: Option<&crate::store::ObjectMeta>| object.map(|one| one.etag.clone());
        Identity {
            description: etag(target.description()),
            archive: etag(target.archive()),
        }
    }

    /// Whether what is there now surely is (what is left of) the same backup. Velero's description goes before its archive,
    /// which must do then.
    fn is_still(&self, now: &Identity) -> bool {
        match &now.description {
            Some(_) => now.description == self.description,
            None => now.archive.is_some() && now.archive == self.archive,
        }
    }
}

impl Removal<'_> {
    /// When something that the backup needs has been deleted although the deletion was taken back, it is deleted again: a
    /// backup that cannot be restored must not be listed.
    ///
    /// # Errors
    /// [`RemovalError::TooLate`] then; nothing when the backup is whole, or another one by now.
    pub(super) async fn refuse_to_leave_it_broken(
        &self,
        record: Option<&Backup>,
    ) -> Result<(), RemovalError> {
        if !self.has_deleted || self.cause == Cause::Sweep {
            return Ok(());
        }
        let store = self.store();
        let mut examined = examine(store, self.name, Depth::Read).await?;
        if !self.described.is_still(&Identity::of(&examined.target)) {
            return Ok(());
        }
        // What this deletion has sent, it knows.
        let gone = self.gone.iter().map(|(_, id)| id);
        examined
            .missing
            .extend(gone.map(|id| format!("snapshot {id} is gone")));
        if examined.missing.is_empty() {
            if let Some(json) = examined.velero_backup {
                store.put_new(&self.keys.velero_backup(), json).await?;
            }
            return Ok(());
        }
        let original = examined.target.is_original();
        if !self.gone.is_empty() {
            put_deleting(store, self.name, self.cause, &examined.snapshots).await?;
        }
        if let Created::New { etag } = self.put_tombstone(original).await? {
            // While it was looked at, all of it may have gone and another one may have come.
            let now = Target::look(store, self.name).await?;
            if !now.objects.is_empty() && !self.described.is_still(&Identity::of(&now)) {
                target::remove_tombstone(store, &self.keys, Some(&etag)).await?;
                return Ok(());
            }
        }
        self.mark(record).await?;
        Err(RemovalError::TooLate {
            backup: self.name.to_owned(),
            missing: examined.missing,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Identity;

    #[test]
    fn a_later_backup_of_the_name_is_not_taken_for_the_one_that_is_removed() {
        let identity = |description: Option<&str>, archive: Option<&str>| Identity {
            description: description.map(str::to_owned),
            archive: archive.map(str::to_owned),
        };
        let removed = identity(Some("d"), Some("a"));
        assert!(removed.is_still(&identity(Some("d"), None)));
        assert!(removed.is_still(&identity(None, Some("a"))));
        for other in [
            identity(Some("d2"), Some("a2")),
            identity(Some("d2"), Some("a")),
            identity(None, Some("a2")),
            identity(None, None),
        ] {
            assert!(!removed.is_still(&other), "{other:?}");
        }
        // Of one that was never described, nothing tells once its archive is gone.
        let archive = identity(None, Some("a"));
        assert!(!archive.is_still(&identity(Some("d"), Some("a"))));
        assert!(!identity(None, None).is_still(&identity(None, None)));
    }
}
