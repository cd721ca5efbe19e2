//! What a plan cannot know by itself: which of the backups that are to go are in use or kept by the bucket. Asked, many at
//! once, and nothing touched; a removal asks again.

use super::plan::{Entry, Fate, Obstacle, Reason, Step};
use crate::context::{Context, storage_failure};
use crate::error::{Failure, chain};
use crate::removal::{self, RemovalError, Seen};
use crate::tombstone::Cause;
use futures::{StreamExt, TryStreamExt};

/// Backups asked about at once. Each costs a handful of small reads, of store and API server.
const ASKED_AT_ONCE: usize = 16;

/// Keeps what could not be removed now.
///
/// # Errors
/// When store or cluster do not answer.
pub(super) async fn refine(context: &Context, entries: Vec<Entry>) -> Result<Vec<Entry>, Failure> {
    if entries.iter().any(|entry| asked(entry).is_some()) {
        removal::listen(context).await?;
    }
    futures::stream::iter(entries)
        .map(async |entry| {
            let Some((cause, seen)) = asked(&entry) else {
                return Ok(entry);
            };
            let answer = removal::obstacle(context, &entry.name, cause, seen).await;
            decide(entry.clone(), answer)
        })
        .buffered(ASKED_AT_ONCE)
        .try_collect()
        .await
}

/// What is to be removed, and as what it was seen; nothing for what is not removed as a backup is.
fn asked(entry: &Entry) -> Option<(Cause, Seen<'_>)> {
    let Fate::Delete(step) = &entry.fate else {
        return None;
    };
    match step {
        Step::Remove { etag } => Some((Cause::Expire, Seen::of(etag))),
        Step::Sweep { etag } => Some((Cause::Sweep, Seen::of(etag))),
        Step::Finish {
            cause, tombstone, ..
        } => {
            let seen = Seen {
                description: None,
                tombstone: Some(tombstone),
            };
            Some((*cause, seen))
        }
        Step::Void { .. }
        | Step::Abort(_)
        | Step::Forget { .. }
        | Step::Discard { .. }
        | Step::Drop(_)
        | Step::LetGo(_) => None,
    }
}

fn decide(mut entry: Entry, answer: Result<(), RemovalError>) -> Result<Entry, Failure> {
    let obstacle = match answer {
        Ok(()) => return Ok(entry),
        Err(RemovalError::RestoreInProgress {
            restore, heartbeat, ..
        }) => Obstacle::Restore { restore, heartbeat },
        Err(RemovalError::BackupInProgress { heartbeat, .. }) => Obstacle::Backup { heartbeat },
        Err(RemovalError::Locked {
            what,
            until,
            legal_hold,
        }) => Obstacle::Lock {
            key: what,
            until,
            legal_hold,
        },
        // It would stay for ever, and cost, if nobody were told.
        Err(RemovalError::Snapshots { why, .. }) => {
            entry.fate = Fate::KeepInDoubt;
            entry.reason = Reason::Held {
                because: Box::new(entry.reason),
                obstacle: Obstacle::Snapshots { why },
            };
            return Ok(entry);
        }
        // It has changed since it was listed: the removal finds that out, too, and does nothing.
        Err(
            RemovalError::NotFound { .. }
            | RemovalError::NoBackup { .. }
            | RemovalError::Changed { .. }
            | RemovalError::TakenBack { .. }
            | RemovalError::Marked { .. },
        ) => return Ok(entry),
        Err(RemovalError::Store(error))
            if error.is_unreachable() || error.is_credentials() || error.is_bucket_missing() =>
        {
            return Err(storage_failure(&error));
        }
        Err(error @ RemovalError::Cluster(_)) => return Err(error.into()),
        Err(error) => {
            entry.fate = Fate::KeepInDoubt;
            entry.reason = Reason::Other(chain(&error));
            return Ok(entry);
        }
    };
    entry.fate = Fate::Keep;
    entry.reason = Reason::Held {
        because: Box::new(entry.reason),
        obstacle,
    };
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::holdings::Kind;
    use jiff::Timestamp;

    fn decided(error: RemovalError) -> (Fate, String) {
        let at: Timestamp = "2026-06-01T12:00:00Z".parse().unwrap();
        let entry = Entry {
            kind: Kind::Backup,
            name: "b".into(),
            fate: Fate::Delete(Step::Remove { etag: "e".into() }),
            reason: Reason::Expired {
                at,
                ago: jiff::SignedDuration::from_hours(3),
            },
        };
        let entry = decide(entry, Err(error)).unwrap();
        (entry.fate, entry.reason.to_string())
    }

    #[test]
    fn what_a_removal_would_refuse_is_kept_and_said_why() {
        let heartbeat: Timestamp = "2026-06-01T11:59:59Z".parse().unwrap();
        let backup = || "b".to_owned();
        let expired = "expired 3h ago, on 2026-06-01T12:00:00Z, but";
        assert_eq!(
            decided(RemovalError::RestoreInProgress {
                backup: backup(),
                restore: "r".into(),
                heartbeat
            }),
            (
                Fate::Keep,
                format!(
                    "{expired} it is being restored by r, which gave a sign of life at 2026-06-01T11:59:59Z"
                )
            )
        );
        assert_eq!(
            decided(RemovalError::BackupInProgress {
                backup: backup(),
                heartbeat
            })
            .1,
            format!(
                "{expired} it is being made: its run gave a sign of life at 2026-06-01T11:59:59Z"
            )
        );
        assert_eq!(
            decided(RemovalError::Locked {
                what: "k".into(),
                until: None,
                legal_hold: true
            })
            .1,
            format!(
                "{expired} k is locked by the bucket under a legal hold, until somebody lifts it"
            )
        );
        assert_eq!(
            decided(RemovalError::Snapshots {
                backup: backup(),
                why: "w".into(),
                hint: None
            })
            .1,
            format!("{expired} its snapshots of volumes cannot be deleted: w")
        );
        let changed = decided(RemovalError::Changed { backup: backup() });
        assert!(matches!(changed.0, Fate::Delete(_)), "{changed:?}");
        let later = decided(RemovalError::LaterFormat {
            key: "k".into(),
            why: "w".into(),
        });
        assert_eq!(later.0, Fate::KeepInDoubt);
    }
}
