//! Why a backup was not removed, or not all of it.

use crate::cluster::ClusterError;
use crate::context::storage_failure;
use crate::error::Failure;
use crate::exit::Exit;
use crate::foreign::Origin;
use crate::report::plural;
use crate::repository::WHERE_BACKUPS_ARE;
use crate::store::StoreError;
use jiff::Timestamp;

/// Why a backup was not removed, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum RemovalError {
    /// Nothing may be deleted here: restore-only mode, or it cannot be found out.
    #[error("{}", .0.message())]
    Refused(Failure),
    /// A restore is reading it.
    #[error(
        "backup {backup} is being restored by {restore}, which gave a sign of life at {heartbeat}"
    )]
    RestoreInProgress {
        /// The backup.
        backup: String,
        /// The Restore resource.
        restore: String,
        /// Its last sign of life.
        heartbeat: Timestamp,
    },
    /// It is just being made.
    #[error("backup {backup} is in progress: its run gave a sign of life at {heartbeat}")]
    BackupInProgress {
        /// The backup.
        backup: String,
        /// Its last sign of life.
        heartbeat: Timestamp,
    },
    /// Another program is just making it.
    #[error("backup {backup} is being made by {origin}: its phase is {phase:?}")]
    BeingMadeByOthers {
        /// The backup.
        backup: String,
        /// Who makes it.
        origin: Origin,
        /// Its phase, in their words.
        phase: String,
    },
    /// The bucket keeps it: nothing has been touched.
    #[error("{what} is locked by the bucket {}: nothing was touched", lasts(*until, *legal_hold))]
    Locked {
        /// The key that is locked.
        what: String,
        /// Until when.
        until: Option<Timestamp>,
        /// Under a legal hold, which has no end.
        legal_hold: bool,
    },
    /// The bucket keeps some of its files; everything else is gone, but for the tombstone.
    #[error(
        "{} of backup {backup} {} locked by the bucket, the last {}: {first}",
        plural(*objects as u64, "object"),
        if *objects == 1 { "is" } else { "are" },
        lasts(*until, *legal_hold)
    )]
    Left {
        /// The backup.
        backup: String,
        /// How many.
        objects: usize,
        /// The key of one of them.
        first: String,
        /// Until when the last of them is.
        until: Option<Timestamp>,
        /// Whether one is under a legal hold, which has no end.
        legal_hold: bool,
    },
    /// The restore that is to go is at work.
    #[error("restore {restore} is at work: it gave a sign of life at {heartbeat}")]
    RestoreAtWork {
        /// The restore.
        restore: String,
        /// Its last sign of life.
        heartbeat: Timestamp,
    },
    /// There is no Restore resource of this name, without which nothing in storage is surely that restore's.
    #[error("there is no restore {restore:?} in namespace {namespace}")]
    NoRestore {
        /// The restore.
        restore: String,
        /// Ark's namespace.
        namespace: String,
    },
    /// Its log and results are not where they were looked for.
    #[error("restore {restore} is of a backup in {there}, not here: nothing was touched")]
    RestoreElsewhere {
        /// The restore.
        restore: String,
        /// Where its resource says that it is, in words.
        there: String,
    },
    /// The bucket keeps some files of a restore; the others are gone, and its resource stays.
    #[error(
        "{} of restore {restore} {} locked by the bucket, the last {}: {first}",
        plural(*objects as u64, "object"),
        if *objects == 1 { "is" } else { "are" },
        lasts(*until, *legal_hold)
    )]
    RestoreLeft {
        /// The restore.
        restore: String,
        /// How many.
        objects: usize,
        /// The key of one of them.
        first: String,
        /// Until when the last of them is.
        until: Option<Timestamp>,
        /// Whether one is under a legal hold, which has no end.
        legal_hold: bool,
    },
    /// It is not what it was when its removal was decided: nothing has been touched.
    #[error("backup {backup} has changed since it was looked at: nothing was touched")]
    Changed {
        /// The backup.
        backup: String,
    },
    /// Neither storage nor the cluster knows it.
    #[error("there is no backup {backup:?} in {location}")]
    NotFound {
        /// The backup.
        backup: String,
        /// Where it was looked for.
        location: String,
    },
    /// There are files under the name, but none that makes them a backup: nothing has been touched.
    #[error(
        "{directory} in {location} holds no backup: neither an archive nor a description of one; nothing was touched"
    )]
    NoBackup {
        /// Where the files are.
        directory: String,
        /// In which location.
        location: String,
    },
    /// It records snapshots of volumes that cannot be deleted: nothing has been touched.
    #[error(
        "backup {backup} records snapshots of volumes that cannot be deleted: {why}; nothing was touched"
    )]
    Snapshots {
        /// The backup.
        backup: String,
        /// Why not.
        why: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// Some of its snapshots could not be deleted: its files are all there, so that they are known.
    #[error(
        "{} of backup {backup} could not be deleted: {}",
        plural(failures.len() as u64, "snapshot"),
        failures.join("; ")
    )]
    SnapshotsLeft {
        /// The backup.
        backup: String,
        /// Which, of which persistentVolume, and why, as a sentence each.
        failures: Vec<String>,
        /// Whether one was denied.
        denied: bool,
    },
    /// What was to be swept up has been committed meanwhile: it stays.
    #[error("backup {backup} has been committed meanwhile: it stays")]
    Marked {
        /// The backup.
        backup: String,
    },
    /// While it was being removed, its tombstone went, but not all of it: somebody has undeleted it.
    #[error("the deletion of backup {backup} has been taken back by somebody else")]
    TakenBack {
        /// The backup.
        backup: String,
    },
    /// Its deletion was taken back by somebody else, but too late: it goes on.
    #[error(
        "the deletion of backup {backup} has been taken back by somebody else, but it could not be any more: {}; it is \
         being deleted again", missing.join("; ")
    )]
    TooLate {
        /// The backup.
        backup: String,
        /// What is missing.
        missing: Vec<String>,
    },
    /// A later version made it, and may have recorded what this one does not know.
    #[error("{key} cannot be read by this version of ark, so nothing was touched: {why}")]
    LaterFormat {
        /// What cannot be read.
        key: String,
        /// Its format.
        why: String,
    },
    /// It is not all there, so its deletion cannot be taken back.
    #[error("backup {backup} is not whole: {}", missing.join("; "))]
    NotIntact {
        /// The backup.
        backup: String,
        /// What is missing.
        missing: Vec<String>,
    },
    /// What is stored is not what it must be to be removed.
    #[error("backup {backup}: {why}")]
    Malformed {
        /// The backup.
        backup: String,
        /// In which way.
        why: String,
    },
    /// What has stopped a removal behind its tombstone.
    #[error("{source}")]
    Begun {
        /// What has.
        source: Box<RemovalError>,
        /// What can be done about what it has left.
        next: String,
    },
    /// The store does not answer, or not well.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The API server does not answer, or not well.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

/// Until when a lock lasts, for people.
pub fn lasts(until: Option<Timestamp>, legal_hold: bool) -> String {
    match (until, legal_hold) {
        (Some(until), true) => {
            format!("until {until}, and under a legal hold until somebody lifts it")
        }
        (Some(until), false) => format!("until {until}"),
        (None, _) => "under a legal hold, until somebody lifts it".to_owned(),
    }
}

impl From<RemovalError> for Failure {
    fn from(error: RemovalError) -> Failure {
        match error {
            RemovalError::Refused(failure) => failure,
            RemovalError::Store(error) => storage_failure(&error),
            RemovalError::Begun { source, next } => {
                let failure = Failure::from(*source);
                let hint = match failure.next_step() {
                    Some(hint) => format!("{hint}; {next}"),
                    None => next,
                };
                Failure::new(failure.exit(), failure.message()).hint(hint)
            }
            RemovalError::Cluster(error) => Failure::new(Exit::Failed, error.full_text()),
            other => {
                let (exit, hint) = other.meaning();
                Failure::from_error(exit, &other).maybe_hint(hint)
            }
        }
    }
}

impl RemovalError {
    /// Adds what can be done next to what stops a removal in the middle; others have left nothing unfinished, or say it
    /// themselves.
    pub(super) fn after_beginning(self, next: String) -> RemovalError {
        match self {
            RemovalError::Refused(_)
            | RemovalError::Malformed { .. }
            | RemovalError::SnapshotsLeft { .. }
            | RemovalError::Snapshots { .. }
            | RemovalError::Store(_)
            | RemovalError::Cluster(_) => RemovalError::Begun {
                source: Box::new(self),
                next,
            },
            other => other,
        }
    }

    /// Whether the store or the API server denies what a removal needs, which it will deny the next one, too.
    pub fn is_denied(&self) -> bool {
        match self {
            RemovalError::Store(error) => error.is_credentials(),
            RemovalError::Cluster(error) => error.is_forbidden(),
            RemovalError::SnapshotsLeft { denied, .. } => *denied,
            RemovalError::Begun { source, .. } => source.is_denied(),
            _ => false,
        }
    }

    fn meaning(&self) -> (Exit, Option<String>) {
        let (exit, hint) = match self {
            RemovalError::RestoreInProgress { .. } => (
                Exit::Conflict,
                Some("wait for the restore, or delete its Job; then delete again".to_owned()),
            ),
            RemovalError::RestoreAtWork { .. } => (
                Exit::Conflict,
                Some("wait for it, or delete its Job; then delete again".to_owned()),
            ),
            RemovalError::NoRestore { .. } => (
                Exit::NotFound,
                Some("`kubectl ark restore get` lists them".to_owned()),
            ),
            RemovalError::RestoreElsewhere { .. } => (
                Exit::Usage,
                Some(
                    "give the location that its resource names, or the URL that it was given"
                        .to_owned(),
                ),
            ),
            RemovalError::BackupInProgress { .. } => (
                Exit::Conflict,
                Some("wait for the backup, or delete its Job; then delete again".to_owned()),
            ),
            RemovalError::BeingMadeByOthers { origin, .. } => {
                let who = match origin {
                    Origin::OriginalArk => "what made it",
                    Origin::Ark | Origin::Velero => "`velero backup delete NAME`",
                };
                (
                    Exit::Conflict,
                    Some(format!(
                        "wait for the backup, or delete it with {who}; then delete again"
                    )),
                )
            }
            RemovalError::Locked { .. } => (
                Exit::Refused,
                Some("delete again when the lock has ended".to_owned()),
            ),
            RemovalError::Left { .. } | RemovalError::RestoreLeft { .. } => (
                Exit::Refused,
                Some("delete again when the locks have ended: it goes on from there".to_owned()),
            ),
            RemovalError::Changed { .. }
            | RemovalError::Marked { .. }
            | RemovalError::TakenBack { .. } => (Exit::Failed, None),
            RemovalError::NotIntact { .. } => (
                Exit::Integrity,
                Some("delete it again to remove what is left".to_owned()),
            ),
            RemovalError::TooLate { .. } => (
                Exit::Failed,
                Some("delete it again to remove what is left".to_owned()),
            ),
            RemovalError::LaterFormat { .. } => (
                Exit::Failed,
                Some("delete it with the version of ark that made it, or a later one".to_owned()),
            ),
            RemovalError::NotFound { .. } | RemovalError::NoBackup { .. } => {
                (Exit::NotFound, Some(WHERE_BACKUPS_ARE.to_owned()))
            }
            RemovalError::Snapshots { hint, .. } => (Exit::Failed, hint.clone()),
            RemovalError::Malformed { .. }
            | RemovalError::SnapshotsLeft { .. }
            | RemovalError::Refused(_)
            | RemovalError::Begun { .. }
            | RemovalError::Store(_)
            | RemovalError::Cluster(_) => (Exit::Failed, None),
        };
        (exit, hint)
    }
}
