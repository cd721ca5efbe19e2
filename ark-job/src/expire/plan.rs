//! What becomes of what is there, and why: pure. The same entries are printed and done.
//!
//! Whatever is in doubt is kept: an age counts only when two clocks confirm it, whose is not ours is left alone, and a
//! rule that cannot be read keeps everything that it may be about.

mod volumes;

use crate::api::DEFAULT_TTL;
use crate::foreign::Origin;
use crate::holdings::{
    Candidate, Deletion, FailedRecord, Found, Kind, Loose, Orphan, State, Uncommitted, Whole,
};
use crate::removal::lasts;
use crate::schedule::DEFAULT_KEEP_LAST;
use crate::store::Upload;
use crate::tombstone::Cause;
use jiff::{SignedDuration, Timestamp};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A deletion that was begun is finished after this time: until then it can be taken back, or its own run is at work.
pub const FINISHED_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// The time, as two that may disagree say it.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// This machine's.
    pub pod: Timestamp,
    /// The store's; of a directory, that of its file system.
    pub store: Timestamp,
}

impl Clocks {
    /// Whether both say that it is `at` or later.
    fn both_past(self, at: Timestamp) -> bool {
        self.pod >= at && self.store >= at
    }
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Clusters whose backups expire: this one, and those that were named.
    pub clusters: BTreeSet<String>,
    /// Whether Velero's and original Ark's expire, too.
    pub include_foreign: bool,
    /// How old what was never committed must be.
    pub grace: SignedDuration,
    /// Whether snapshots go although there is no backup.
    pub force: bool,
    /// The keep rules of this cluster's schedules in Ark's namespace, by schedule.
    pub schedules: Schedules,
}

/// The schedules of this cluster and namespace.
#[derive(Clone, Debug, Default)]
pub struct Schedules {
    /// UID of this cluster.
    pub cluster_uid: String,
    /// Ark's namespace.
    pub namespace: String,
    /// How many backups each keeps; or why nobody knows. A schedule that is not there has no CronJob.
    pub live: BTreeMap<String, Result<u32, String>>,
    /// Why nothing is known of any of them.
    pub unknown: Option<String>,
}

/// What becomes of one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Its name; of an upload, its key.
    pub name: String,
    /// What becomes of it.
    pub fate: Fate,
    /// Why.
    pub reason: Reason,
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stays.
    Keep,
    /// It stays, since something about it cannot be found out: that is an error.
    KeepInDoubt,
    /// It goes.
    Delete(Step),
}

/// How it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The backup is removed, if what describes it still has this ETag.
    Remove {
        /// That ETag.
        etag: String,
    },
    /// The deletion is finished, if it still is that one.
    Finish {
        /// Why it was begun.
        cause: Cause,
        /// ETag of its tombstone.
        tombstone: String,
        /// ETag of the archive, which tells of what was never committed whether it still is the same.
        archive: Option<String>,
    },
    /// What was never committed is removed, if the archive still has this ETag.
    Sweep {
        /// That ETag.
        etag: String,
    },
    /// The tombstone is removed, if it still has this ETag; the backup stays.
    Void {
        /// That ETag.
        tombstone: String,
    },
    /// The upload is thrown away.
    Abort(Upload),
    /// The resource is deleted with its log, if it is still in this state.
    Forget {
        /// Its identity.
        uid: String,
        /// Its state.
        resource_version: String,
    },
    /// The ConfigMap is deleted, if it still is this one.
    Discard {
        /// Its identity.
        uid: String,
    },
    /// The snapshot or volume is deleted, if it still is no backup's and nobody's.
    Drop(Box<Loose>),
    /// The objects of the snapshot are deleted, and not its data, which is a backup's.
    LetGo(Box<Loose>),
}

/// Why: a sentence when displayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its time is over.
    Expired {
        /// Since when.
        at: Timestamp,
        /// For how long.
        ago: SignedDuration,
    },
    /// Its time is not over.
    Expires {
        /// When it is.
        at: Timestamp,
        /// In which time.
        within: SignedDuration,
    },
    /// Its own clock says that its time is over, but another does not agree (yet).
    Unconfirmed {
        /// When it expires.
        at: Timestamp,
        /// Whose clock does not agree.
        clock: &'static str,
        /// In which time that one will.
        within: SignedDuration,
    },
    /// It has no end.
    Never,
    /// The schedule's rule keeps it.
    Newest {
        /// How many are kept.
        keep: u32,
        /// Of which schedule.
        schedule: String,
    },
    /// The schedule's rule is not known.
    RuleUnknown {
        /// Of which schedule.
        schedule: String,
        /// Why not.
        why: String,
    },
    /// Made by another cluster.
    OtherCluster(String),
    /// Made by another program.
    OtherMaker(Origin),
    /// A deletion that was cut off is finished.
    Cut {
        /// When it began, by the store's clock.
        at: Timestamp,
        /// How long ago.
        ago: SignedDuration,
    },
    /// A deletion is under way, or can still be taken back.
    UnderWay {
        /// When it began, by the store's clock.
        at: Timestamp,
        /// When it is finished by an expiry.
        within: SignedDuration,
    },
    /// Another cluster deletes it.
    DeletedByOther(String),
    /// It was never committed.
    Abandoned {
        /// When it was written or begun.
        at: Timestamp,
        /// How long ago.
        ago: SignedDuration,
        /// How long is waited.
        grace: SignedDuration,
    },
    /// It has not been committed (yet).
    NotCommitted {
        /// When it was written or begun.
        at: Timestamp,
        /// How long is waited.
        grace: SignedDuration,
        /// How much longer.
        within: SignedDuration,
    },
    /// Made by another cluster, and never committed.
    NotCommittedElsewhere(String),
    /// A sweep's tombstone over a committed backup.
    VoidTombstone,
    /// What it belongs to is gone.
    Orphaned {
        /// When it was created.
        at: Timestamp,
        /// How long ago.
        ago: SignedDuration,
    },
    /// What it belongs to is gone, but it is not old.
    OrphanedLately {
        /// In which time it goes.
        within: SignedDuration,
    },
    /// No backup records it.
    Unrecorded {
        /// When it was taken.
        at: Timestamp,
        /// How long ago.
        ago: SignedDuration,
        /// How long is waited.
        grace: SignedDuration,
    },
    /// No backup records it (yet).
    NotRecorded {
        /// When it was taken.
        at: Timestamp,
        /// How long is waited.
        grace: SignedDuration,
        /// How much longer.
        within: SignedDuration,
    },
    /// No backup records it that is known, but not all are.
    NotSure(String),
    /// It has done its service: the data is a backup's, and stays.
    Served {
        /// The backup.
        backup: String,
    },
    /// It would go, but must not now.
    Held {
        /// Why it would go.
        because: Box<Reason>,
        /// Why it must not.
        obstacle: Obstacle,
    },
    /// In words.
    Other(String),
}

/// What keeps a backup from being removed now: a clause when displayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// It is being restored.
    Restore {
        /// By whom.
        restore: String,
        /// Its last sign of life.
        heartbeat: Timestamp,
    },
    /// It is being made.
    Backup {
        /// Its last sign of life.
        heartbeat: Timestamp,
    },
    /// The bucket keeps it.
    Lock {
        /// What is locked.
        key: String,
        /// Until when.
        until: Option<Timestamp>,
        /// Whether somebody must lift it.
        legal_hold: bool,
    },
    /// It records snapshots that cannot be deleted.
    Snapshots {
        /// Why not.
        why: String,
    },
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::Restore { restore, heartbeat } => write!(
                f,
                "it is being restored by {restore}, which gave a sign of life at {heartbeat}"
            ),
            Obstacle::Backup { heartbeat } => {
                write!(
                    f,
                    "it is being made: its run gave a sign of life at {heartbeat}"
                )
            }
            Obstacle::Lock {
                key,
                until,
                legal_hold,
            } => write!(
                f,
                "{key} is locked by the bucket {}",
                lasts(*until, *legal_hold)
            ),
            Obstacle::Snapshots { why } => {
                write!(f, "its snapshots of volumes cannot be deleted: {why}")
            }
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Expired { at, ago } => {
                write!(f, "expired {} ago, on {}", span(*ago), date(*at))
            }
            Reason::Expires { at, within } => {
                write!(f, "expires in {}, on {}", span(*within), date(*at))
            }
            Reason::Unconfirmed { at, clock, within } => write!(
                f,
                "expired on {} as it says, but by {clock} it has {} left",
                date(*at),
                span(*within)
            ),
            Reason::Never => f.write_str("never expires (ttl 0)"),
            Reason::Newest { keep, schedule } => write!(
                f,
                "one of the newest {keep} Completed backups of schedule {schedule}"
            ),
            Reason::RuleUnknown { schedule, why } => write!(
                f,
                "how many backups schedule {schedule} keeps is not known: {why}"
            ),
            Reason::OtherCluster(uid) => write!(
                f,
                "made by cluster {uid}: only by name or with --cluster-uid"
            ),
            Reason::OtherMaker(origin) => {
                write!(f, "made by {origin}: only with --include-foreign")
            }
            Reason::Cut { at, ago } => write!(
                f,
                "being deleted since {}, {} ago: finished",
                date(*at),
                span(*ago)
            ),
            Reason::UnderWay { at, within } => write!(
                f,
                "being deleted since {}: finished in {}, until then `undelete` may bring it back",
                date(*at),
                span(*within)
            ),
            Reason::DeletedByOther(uid) => write!(
                f,
                "being deleted by cluster {uid}, which finishes it: else only by name or with --cluster-uid"
            ),
            Reason::Abandoned { at, ago, grace } => write!(
                f,
                "never committed: written {} ago, on {}, and the grace period is {}",
                span(*ago),
                date(*at),
                span(*grace)
            ),
            Reason::NotCommitted { at, grace, within } => write!(
                f,
                "not committed (yet): written on {}, swept up in {}, when it is {} old",
                date(*at),
                span(*within),
                span(*grace)
            ),
            Reason::NotCommittedElsewhere(uid) => write!(
                f,
                "not committed (yet), by cluster {uid}: only with --cluster-uid"
            ),
            Reason::VoidTombstone => f.write_str(
                "a sweep meant to remove this backup, but it has been committed: it stays, the tombstone goes",
            ),
            Reason::Orphaned { at, ago } => write!(
                f,
                "what it belongs to is gone, and it is {} old, of {}",
                span(*ago),
                date(*at)
            ),
            Reason::OrphanedLately { within } => write!(
                f,
                "what it belongs to is gone; removed in {}",
                span(*within)
            ),
            Reason::Unrecorded { at, ago, grace } => write!(
                f,
                "nothing records or uses it: made {} ago, on {}, and the grace period is {}",
                span(*ago),
                date(*at),
                span(*grace)
            ),
            Reason::NotRecorded { at, grace, within } => write!(
                f,
                "nothing records or uses it (yet): made on {}, swept up in {}, when it is {} old",
                date(*at),
                span(*within),
                span(*grace)
            ),
            Reason::NotSure(why) => write!(f, "not swept up, since {why}"),
            Reason::Served { backup } => write!(
                f,
                "backup {backup} has its data, which stays: only its objects in the cluster go"
            ),
            Reason::Held { because, obstacle } => write!(f, "{because}, but {obstacle}"),
            Reason::Other(text) => f.write_str(text),
        }
    }
}

/// Decides about all of it; backups in the order of their names, the rest after them.
pub fn plan(found: &Found, rules: &Rules, clocks: Clocks) -> Vec<Entry> {
    let kept = newest(&found.backups, rules);
    let shared = volumes::shared(&found.backups);
    let mut entries = Vec::new();
    for candidate in &found.backups {
        let name = &candidate.name;
        let mut add = |kind, (fate, reason)| {
            entries.push(Entry {
                kind,
                name: name.clone(),
                fate,
                reason,
            });
        };
        let decided = match &candidate.state {
            State::Whole(whole) => of_whole(whole, kept.get(name.as_str()), rules, clocks),
            State::WholeUnderSweep(whole, tombstone) => {
                let step = Step::Void {
                    tombstone: tombstone.clone(),
                };
                add(Kind::Tombstone, (Fate::Delete(step), Reason::VoidTombstone));
                of_whole(whole, kept.get(name.as_str()), rules, clocks)
            }
            State::BeingDeleted(deletion) => of_deletion(deletion, rules, clocks),
            State::Uncommitted(archive) => of_uncommitted(archive, rules, clocks),
            State::Other(why) => (Fate::Keep, Reason::Other(why.clone())),
            State::Unreadable(why) => (Fate::KeepInDoubt, Reason::Other(why.clone())),
        };
        let decided = match decided {
            (Fate::Delete(_), _) if shared.contains_key(name.as_str()) => (
                Fate::KeepInDoubt,
                Reason::Other(shared[name.as_str()].clone()),
            ),
            decided => decided,
        };
        add(Kind::Backup, decided);
    }
    entries.extend(found.uploads.iter().map(|upload| {
        let (fate, reason) = match age(upload.initiated, rules.grace, clocks) {
            Age::Reached { ago } => (
                Fate::Delete(Step::Abort(upload.clone())),
                Reason::Abandoned {
                    at: upload.initiated,
                    ago,
                    grace: rules.grace,
                },
            ),
            Age::Left { within } => (
                Fate::Keep,
                Reason::NotCommitted {
                    at: upload.initiated,
                    grace: rules.grace,
                    within,
                },
            ),
        };
        Entry {
            kind: Kind::Upload,
            name: upload.key.clone(),
            fate,
            reason,
        }
    }));
    entries.extend(found.failed.iter().map(|record| of_record(record, clocks)));
    entries.extend(found.orphans.iter().map(|orphan| of_orphan(orphan, clocks)));
    entries.extend(volumes::plan(found, rules, clocks));
    entries.extend(found.troubles.iter().map(|(kind, name, why)| Entry {
        kind: *kind,
        name: name.clone(),
        fate: Fate::KeepInDoubt,
        reason: Reason::Other(why.clone()),
    }));
    entries
}

/// What a keep rule says of a backup: why it stays, and whether that is known.
type Kept = (Fate, Reason);

/// Cluster, namespace and name: what tells schedules apart.
type Schedule<'a> = (&'a str, &'a str, &'a str);

/// The backups that a schedule's rule keeps, by name.
fn newest<'a>(backups: &'a [Candidate], rules: &Rules) -> BTreeMap<&'a str, Kept> {
    let mut groups: BTreeMap<Schedule<'_>, Vec<(&str, &Whole)>> = BTreeMap::new();
    for candidate in backups {
        let (State::Whole(whole) | State::WholeUnderSweep(whole, _)) = &candidate.state else {
            continue;
        };
        // Velero has no such rule.
        if whole.origin == Origin::Ark
            && let Some(schedule) = &whole.schedule
        {
            let group = (
                whole.cluster_uid.as_str(),
                whole.namespace.as_str(),
                schedule.as_str(),
            );
            groups
                .entry(group)
                .or_default()
                .push((&candidate.name, whole));
        }
    }
    let mut kept = BTreeMap::new();
    for ((cluster, namespace, schedule), mut members) in groups {
        members.sort_by_key(|(name, whole)| Reverse((whole.start, *name)));
        let schedules = &rules.schedules;
        let here = cluster == schedules.cluster_uid && namespace == schedules.namespace;
        let live = match (&schedules.unknown, schedules.live.get(schedule)) {
            _ if !here => None,
            (Some(why), _) => Some(Err(why.clone())),
            (None, live) => live.cloned(),
        };
        let of_marker = || {
            let newest = members.first();
            newest
                .and_then(|(_, whole)| whole.keep_last)
                .unwrap_or(DEFAULT_KEEP_LAST)
        };
        let schedule = schedule.to_owned();
        match live.unwrap_or_else(|| Ok(of_marker())) {
            Ok(keep) => {
                let completed = members.iter().filter(|(_, whole)| whole.completed);
                let keeps = usize::try_from(keep).unwrap_or(usize::MAX);
                for (name, _) in completed.take(keeps) {
                    let schedule = schedule.clone();
                    kept.insert(*name, (Fate::Keep, Reason::Newest { keep, schedule }));
                }
            }
            Err(why) => {
                for (name, _) in members {
                    let (schedule, why) = (schedule.clone(), why.clone());
                    let unknown = Reason::RuleUnknown { schedule, why };
                    kept.insert(name, (Fate::KeepInDoubt, unknown));
                }
            }
        }
    }
    kept
}

fn of_whole(whole: &Whole, kept: Option<&Kept>, rules: &Rules, clocks: Clocks) -> (Fate, Reason) {
    match whole.origin {
        Origin::Ark if !rules.clusters.contains(&whole.cluster_uid) => {
            let uid = whole.cluster_uid.clone();
            return (Fate::Keep, Reason::OtherCluster(uid));
        }
        Origin::Velero | Origin::OriginalArk if !rules.include_foreign => {
            return (Fate::Keep, Reason::OtherMaker(whole.origin));
        }
        _ => {}
    }
    let expired = by_time(whole, clocks);
    match (&expired, kept) {
        (Ok(_), Some(kept)) => kept.clone(),
        (Ok(reason), None) => {
            let etag = whole.etag.clone();
            (Fate::Delete(Step::Remove { etag }), reason.clone())
        }
        (Err(reason), _) => (Fate::Keep, reason.clone()),
    }
}

/// Whether its time is over: by its own word and this machine's clock, and by how long the store has had it.
fn by_time(whole: &Whole, clocks: Clocks) -> Result<Reason, Reason> {
    let Some(at) = whole.expiration else {
        return Err(Reason::Never);
    };
    let by_store = match whole.ttl {
        Some(ttl) => later(whole.written, ttl),
        None => at,
    };
    if clocks.pod < at {
        let within = at.duration_since(clocks.pod);
        return Err(Reason::Expires { at, within });
    }
    if clocks.store < by_store {
        return Err(Reason::Unconfirmed {
            at,
            clock: "the store's clock",
            within: by_store.duration_since(clocks.store),
        });
    }
    let ago = clocks.pod.duration_since(at);
    Ok(Reason::Expired { at, ago })
}

fn of_deletion(deletion: &Deletion, rules: &Rules, clocks: Clocks) -> (Fate, Reason) {
    if !rules.clusters.contains(&deletion.cluster_uid) {
        let uid = deletion.cluster_uid.clone();
        return (Fate::Keep, Reason::DeletedByOther(uid));
    }
    // What its pod's clock said counts as well: a store whose clock jumped must not cut the time short.
    let at = deletion.written;
    match age(at.max(deletion.at), FINISHED_AFTER, clocks) {
        Age::Reached { ago } => {
            let step = Step::Finish {
                cause: deletion.cause,
                tombstone: deletion.tombstone.clone(),
                archive: deletion.archive.clone(),
            };
            (Fate::Delete(step), Reason::Cut { at, ago })
        }
        Age::Left { within } => (Fate::Keep, Reason::UnderWay { at, within }),
    }
}

fn of_uncommitted(archive: &Uncommitted, rules: &Rules, clocks: Clocks) -> (Fate, Reason) {
    if !rules.clusters.contains(&archive.cluster_uid) {
        let uid = archive.cluster_uid.clone();
        return (Fate::Keep, Reason::NotCommittedElsewhere(uid));
    }
    let (at, grace) = (archive.written, rules.grace);
    match age(at, grace, clocks) {
        Age::Reached { ago } => {
            let etag = archive.etag.clone();
            (
                Fate::Delete(Step::Sweep { etag }),
                Reason::Abandoned { at, ago, grace },
            )
        }
        Age::Left { within } => (Fate::Keep, Reason::NotCommitted { at, grace, within }),
    }
}

fn of_record(record: &FailedRecord, clocks: Clocks) -> Entry {
    let entry = |fate, reason| Entry {
        kind: Kind::Record,
        name: record.name.clone(),
        fate,
        reason,
    };
    if record.expiration.is_none() && record.ttl.is_zero() {
        return entry(Fate::Keep, Reason::Never);
    }
    // The API server's clock is the third one: a pod that was behind makes nothing go early.
    let by_server = later(record.created, record.ttl);
    let at = record
        .expiration
        .map_or(by_server, |expiration| expiration.max(by_server));
    if clocks.both_past(at) {
        let step = Step::Forget {
            uid: record.uid.clone(),
            resource_version: record.resource_version.clone(),
        };
        let ago = clocks.pod.duration_since(at);
        entry(Fate::Delete(step), Reason::Expired { at, ago })
    } else {
        let within = at.duration_since(clocks.pod.min(clocks.store));
        entry(Fate::Keep, Reason::Expires { at, within })
    }
}

fn of_orphan(orphan: &Orphan, clocks: Clocks) -> Entry {
    let ttl = SignedDuration::try_from(DEFAULT_TTL).unwrap_or(SignedDuration::MAX);
    let (fate, reason) = match age(orphan.created, ttl, clocks) {
        Age::Reached { ago } => {
            let uid = orphan.uid.clone();
            let at = orphan.created;
            (
                Fate::Delete(Step::Discard { uid }),
                Reason::Orphaned { at, ago },
            )
        }
        Age::Left { within } => (Fate::Keep, Reason::OrphanedLately { within }),
    };
    Entry {
        kind: Kind::ConfigMap,
        name: orphan.name.clone(),
        fate,
        reason,
    }
}

/// How old something is that a server has dated.
enum Age {
    Reached { ago: SignedDuration },
    Left { within: SignedDuration },
}

/// Whether both clocks say that what is of `at` has reached the age of `old`.
fn age(at: Timestamp, old: SignedDuration, clocks: Clocks) -> Age {
    let due = later(at, old);
    if clocks.both_past(due) {
        let ago = clocks.store.duration_since(at);
        Age::Reached { ago }
    } else {
        let within = due.duration_since(clocks.pod.min(clocks.store));
        Age::Left { within }
    }
}

fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

/// A time without fractions.
fn date(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A length of time in its largest unit, as kubectl tells ages.
fn span(length: SignedDuration) -> String {
    let seconds = length.as_secs().max(0);
    match seconds {
        0 if length.is_positive() => "less than 1s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

impl Entry {
    /// A line for people.
    pub fn line(&self) -> String {
        let (word, kind) = (self.word(), self.kind.word());
        format!("{word:<6}  {kind:<9}  {}  {}", self.name, self.reason)
    }

    /// A line for programs.
    pub fn json(&self) -> String {
        serde_json::json!({
            "action": self.word(),
            "kind": self.kind.word(),
            "name": self.name,
            "reason": self.reason.to_string(),
            "error": self.fate == Fate::KeepInDoubt,
        })
        .to_string()
    }

    fn word(&self) -> &'static str {
        match self.fate {
            Fate::Keep | Fate::KeepInDoubt => "keep",
            Fate::Delete(_) => "delete",
        }
    }
}

#[cfg(test)]
mod tests;
