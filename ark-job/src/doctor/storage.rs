//! What storage must let us do, tried with two objects of doctor's own, `metadata/ark-probe-doctor-…`, which are taken away
//! whatever happens.

use super::network::fix;
use super::pod::size;
use super::{Check, Interrupt, WITHIN, interrupted, within};
use crate::error::{Failure, chain};
use crate::layout::{BACKUPS, METADATA};
use crate::store::settings::{Settings, Unknown, Versioning};
use crate::store::{Created, Lock, Meaning, Store, StoreError};
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use std::time::{Duration, Instant};

/// The checks made here, in their order.
pub const NAMES: [&str; 12] = [
    LIST,
    PUT,
    GET,
    CREATE,
    UPLOAD,
    SWAP,
    THROUGHPUT,
    DELETE,
    CLOCK,
    VERSIONING,
    OBJECT_LOCK,
    LIFECYCLE,
];
const LIST: &str = "storage-list";
const PUT: &str = "storage-put";
const GET: &str = "storage-get";
const CREATE: &str = "create-if-absent";
const UPLOAD: &str = "upload-if-absent";
const SWAP: &str = "compare-and-swap";
const THROUGHPUT: &str = "throughput";
const DELETE: &str = "storage-delete";
const CLOCK: &str = "clock";
const VERSIONING: &str = "versioning";
const OBJECT_LOCK: &str = "object-lock";
const LIFECYCLE: &str = "lifecycle";

/// What the object holds, first and later.
const FIRST: &[u8] = b"probe of kubectl ark doctor\n";
const SECOND: &[u8] = b"written over the probe of kubectl ark doctor\n";
/// An ETag that no object has.
const NO_ETAG: &str = "00000000000000000000000000000000";
/// Bytes sent and read back to see how fast that is: enough for a number, little enough for a slow line.
const AMOUNT: usize = 8 << 20;
/// Slower than this, a backup of some size takes hours.
const SLOW: f64 = 1.0;
/// How often the object may have been written: each write is a version in a bucket that keeps them.
const WRITES: usize = 6;
/// Objects of a doctor that was killed are swept up by a later one after this time.
const LEFT_BEHIND: SignedDuration = SignedDuration::from_hours(1);
/// A difference of clocks that is worth knowing, and one with which stores refuse requests sooner or later (S3: 15 minutes).
const ODD: i64 = 30;
const WRONG: i64 = 300;
/// For taking the objects away when the user has pressed Ctrl-C.
const REMOVE_WITHIN: Duration = Duration::from_secs(15);

/// What became of an object that was to be taken away.
enum Removed {
    /// There was none.
    Nothing,
    /// It is not there any more.
    Gone,
    /// This keeps it.
    Kept(Lock),
}

/// What is probed.
pub struct Probing<'a> {
    /// Storage.
    pub store: &'a Store,
    /// Unlike that of any other doctor.
    pub nonce: &'a str,
    /// Whether anything may be written.
    pub writable: bool,
    /// How many seconds the API server's clock is ahead.
    pub server_clock: Option<i64>,
}

impl Probing<'_> {
    /// Makes the checks.
    pub async fn run(
        &self,
        say: &impl Fn(Check),
        mut interrupt: Interrupt<'_, impl Future<Output = ()>>,
    ) -> Result<(), Failure> {
        let reachable = tokio::select! {
            reachable = self.list(say) => reachable,
            () = interrupt.as_mut() => return Err(interrupted()),
        };
        if !reachable {
            for name in &NAMES[1..] {
                say(Check::skipped(name, "storage cannot be listed, see above"));
            }
            return Ok(());
        }
        if self.writable {
            let stopped = tokio::select! {
                () = self.write(say) => false,
                () = interrupt.as_mut() => true,
            };
            // Also when it was stopped in the middle of a write.
            let removing =
                tokio::time::timeout(if stopped { REMOVE_WITHIN } else { WITHIN }, self.remove());
            let removed = removing.await.unwrap_or_else(|_| {
                let key = self.key();
                Check::failed(DELETE, format!("no answer in time; {key} may be left"))
            });
            if stopped {
                let failure = interrupted();
                return Err(match removed.result {
                    super::Verdict::Ok => failure,
                    _ => failure.hint(removed.detail),
                });
            }
            say(removed);
        } else {
            for name in [PUT, GET, CREATE, UPLOAD, SWAP, THROUGHPUT, DELETE] {
                say(Check::skipped(name, "nothing is written here: see mode"));
            }
        }
        let rest = async {
            say(self.clock());
            for check in self.settings().await {
                say(check);
            }
        };
        tokio::select! {
            () = rest => Ok(()),
            () = interrupt.as_mut() => Err(interrupted()),
        }
    }

    fn key(&self) -> String {
        format!("{METADATA}ark-probe-doctor-{}", self.nonce)
    }

    fn large_key(&self) -> String {
        format!("{}-data", self.key())
    }

    /// Whether anything more is to be learnt.
    async fn list(&self, say: &impl Fn(Check)) -> bool {
        let listed = within(async {
            let names = self.store.list_directories(BACKUPS).await?;
            Ok::<_, StoreError>(names.len())
        });
        match listed.await {
            Ok(Ok(backups)) => {
                say(Check::ok(LIST, format!("{backups} directories of backups")));
                true
            }
            Ok(Err(error)) => {
                let permission = "s3:ListBucket";
                say(failed(LIST, &error, permission));
                // Who may not list may write, and should know that.
                error.is_credentials()
            }
            Err(why) => {
                say(Check::failed(LIST, why).fix("check the endpoint and the network"));
                false
            }
        }
    }

    async fn write(&self, say: &impl Fn(Check)) {
        self.sweep().await;
        let key = self.key();
        let put = within(self.store.put_new(&key, Bytes::from_static(FIRST))).await;
        let (check, etag) = put_check(put);
        say(check);
        let Some(etag) = etag else {
            for name in [GET, CREATE, UPLOAD, SWAP, THROUGHPUT] {
                say(Check::skipped(name, "nothing could be written"));
            }
            return;
        };
        let read = within(self.store.get(&key, 1 << 16)).await;
        say(get_check(read));
        let again = within(self.store.put_new(&key, Bytes::from_static(SECOND))).await;
        say(create_check(again));
        let over = within(self.store.refuses_upload_over(&key)).await;
        say(upload_check(over));
        say(self.swap(&key, &etag).await);
        let lock = match within(self.store.head(&key)).await {
            Ok(Ok(found)) => found.and_then(|found| found.lock),
            _ => None,
        };
        say(match lock {
            Some(_) => Check::skipped(THROUGHPUT, "object lock would keep what is written"),
            None => self.throughput().await,
        });
    }

    /// Writes over the object, with a condition that does not hold and one that does.
    async fn swap(&self, key: &str, etag: &str) -> Check {
        let write = |etag| within(self.store.replace_if(key, etag, Bytes::from_static(SECOND)));
        match write(NO_ETAG).await {
            Ok(Ok(None)) => return Check::skipped(SWAP, "a directory has no such request"),
            Ok(Ok(Some(false))) => {}
            Ok(Ok(Some(true))) => {
                return Check::warning(
                    SWAP,
                    "If-Match is ignored: a write over another object was not refused",
                )
                .fix("nothing of Ark's needs it today; upgrade the store before something does");
            }
            Ok(Err(error)) => return unsupported(SWAP, "If-Match", &error),
            Err(why) => return Check::failed(SWAP, why),
        }
        // What is there may have been written over by a store that ignores conditions.
        let now = match within(self.store.head(key)).await {
            Ok(Ok(Some(found))) => found.etag,
            _ => etag.to_owned(),
        };
        match write(&now).await {
            Ok(Ok(_)) => Check::ok(SWAP, "If-Match is honoured"),
            Ok(Err(error)) => unsupported(SWAP, "If-Match", &error),
            Err(why) => Check::failed(SWAP, why),
        }
    }

    /// How fast some MiB go up and come back.
    async fn throughput(&self) -> Check {
        let key = self.large_key();
        // Nothing that could be compressed or deduplicated on the way.
        let mut content = vec![0; AMOUNT];
        fastrand::fill(&mut content);
        let content = Bytes::from(content);
        let began = Instant::now();
        match within(self.store.put_new(&key, content.clone())).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return failed(THROUGHPUT, &error, "s3:PutObject"),
            Err(_) => return too_slow("up"),
        }
        let up = rate(began.elapsed());
        let began = Instant::now();
        let same = match within(self.store.get(&key, 2 * AMOUNT as u64)).await {
            Ok(Ok(read)) => read == Some(content),
            Ok(Err(error)) => return failed(THROUGHPUT, &error, "s3:GetObject"),
            Err(_) => return too_slow("down"),
        };
        let down = rate(began.elapsed());
        let detail = format!(
            "{} up at {up:.1} MiB/s, down at {down:.1} MiB/s",
            size(AMOUNT as u64)
        );
        match (same, up.min(down) < SLOW) {
            (false, _) => Check::failed(THROUGHPUT, "what was read is not what was written")
                .fix("do not store backups there: the store, or a proxy before it, changes what it holds"),
            (true, true) => Check::warning(THROUGHPUT, detail)
                .fix("check the network between pods and the store; a store in the same region is faster"),
            (true, false) => Check::ok(THROUGHPUT, detail),
        }
    }

    /// Takes away what doctors have left that were killed.
    async fn sweep(&self) {
        let sweeping = within(async {
            let prefix = format!("{METADATA}ark-probe-doctor-");
            let listed = self.store.list(&prefix).collect().await?;
            let Some(now) = self.store.clock() else {
                return Ok(());
            };
            for object in listed {
                if now.duration_since(object.last_modified) > LEFT_BEHIND {
                    let found = self.store.head(&object.key).await?;
                    let version = found.and_then(|found| found.version);
                    self.store.delete(&object.key, version.as_deref()).await?;
                }
            }
            Ok::<_, StoreError>(())
        });
        // What fails here fails again below, with the objects of this doctor, and is told then.
        drop(sweeping.await);
    }

    /// Takes the objects away, and says whether that is possible.
    async fn remove(&self) -> Check {
        let mut any = false;
        for key in [self.large_key(), self.key()] {
            match self.remove_object(&key).await {
                Ok(Removed::Nothing) => {}
                Ok(Removed::Gone) => any = true,
                Ok(Removed::Kept(lock)) => return locked(&key, &lock),
                Err(error) => {
                    let check =
                        failed(DELETE, &error, "s3:DeleteObject and s3:DeleteObjectVersion");
                    let detail = format!("{}; {key} is left", check.detail);
                    return Check { detail, ..check };
                }
            }
        }
        match any {
            true => Check::ok(DELETE, "what was written is gone"),
            // To delete what is not there would leave a delete marker in a bucket that keeps versions.
            false => Check::skipped(DELETE, "nothing could be written"),
        }
    }

    async fn remove_object(&self, key: &str) -> Result<Removed, StoreError> {
        for attempt in 0..WRITES {
            let found = match self.store.head(key).await {
                Ok(found) => found,
                // Who may not look may delete.
                Err(error) if error.is_credentials() => {
                    return self.store.delete(key, None).await.map(|()| Removed::Gone);
                }
                Err(error) => return Err(error),
            };
            let Some(found) = found else {
                return Ok(match attempt {
                    0 => Removed::Nothing,
                    _ => Removed::Gone,
                });
            };
            if let Some(lock) = found.lock {
                return Ok(Removed::Kept(lock));
            }
            self.store.delete(key, found.version.as_deref()).await?;
        }
        match self.store.head(key).await? {
            None => Ok(Removed::Gone),
            Some(found) => Ok(Removed::Kept(found.lock.unwrap_or(Lock {
                until: None,
                legal_hold: false,
            }))),
        }
    }

    fn clock(&self) -> Check {
        let now = Timestamp::now();
        let store = self
            .store
            .clock()
            .map(|clock| clock.duration_since(now).as_secs());
        clock_check(store, self.server_clock)
    }

    async fn settings(&self) -> Vec<Check> {
        match within(self.store.settings()).await {
            Ok(Some(settings)) => settings_checks(&settings),
            Ok(None) => [VERSIONING, OBJECT_LOCK, LIFECYCLE]
                .map(|name| Check::skipped(name, "a directory has none"))
                .into(),
            Err(why) => [VERSIONING, OBJECT_LOCK, LIFECYCLE]
                .map(|name| Check::skipped(name, why.clone()))
                .into(),
        }
    }
}

fn failed(name: &str, error: &StoreError, permission: &str) -> Check {
    let text = chain(error);
    Check::failed(name, &text).fix(fix(error, &text, permission))
}

fn put_check(put: Result<Result<Created, StoreError>, String>) -> (Check, Option<String>) {
    match put {
        Ok(Ok(Created::New { etag })) => (Check::ok(PUT, "an object was written"), Some(etag)),
        // The echo of an attempt whose answer was lost.
        Ok(Ok(Created::Exists)) => (Check::ok(PUT, "an object was written"), Some(String::new())),
        Ok(Err(error)) if error.meaning() == Meaning::Unsupported => {
            (unsupported(PUT, "If-None-Match", &error), None)
        }
        Ok(Err(error)) => (failed(PUT, &error, "s3:PutObject"), None),
        Err(why) => (Check::failed(PUT, why), None),
    }
}

fn get_check(read: Result<Result<Option<Bytes>, StoreError>, String>) -> Check {
    match read {
        Ok(Ok(Some(bytes))) if bytes == FIRST => Check::ok(GET, "read as it was written"),
        Ok(Ok(Some(_))) => Check::failed(GET, "what was read is not what was written").fix(
            "do not store backups there: the store, or a proxy before it, changes what it holds",
        ),
        Ok(Ok(None)) => Check::failed(GET, "what was written is not there")
            .fix("use a store that shows at once what was written (S3 does)"),
        Ok(Err(error)) => failed(GET, &error, "s3:GetObject"),
        Err(why) => Check::failed(GET, why),
    }
}

const IGNORED: &str = "a second creation of the same object was not refused: two runs at the same instant could overwrite each other";
const NO_CONDITIONS: &str = "upgrade the store to one with conditional writes (S3 has them), remove a proxy that drops the header, or let \
                             only one cluster write there; until then Ark looks before it writes";

fn create_check(again: Result<Result<Created, StoreError>, String>) -> Check {
    match again {
        Ok(Ok(Created::Exists)) => Check::ok(CREATE, "If-None-Match is honoured"),
        Ok(Ok(Created::New { .. })) => {
            Check::warning(CREATE, format!("If-None-Match is ignored: {IGNORED}"))
                .fix(NO_CONDITIONS)
        }
        Ok(Err(error)) => unsupported(CREATE, "If-None-Match", &error),
        Err(why) => Check::failed(CREATE, why),
    }
}

fn upload_check(over: Result<Result<Option<bool>, StoreError>, String>) -> Check {
    match over {
        Ok(Ok(Some(true))) => Check::ok(UPLOAD, "If-None-Match is honoured for large objects"),
        Ok(Ok(Some(false))) => Check::warning(
            UPLOAD,
            format!("If-None-Match is ignored for large objects: {IGNORED}"),
        )
        .fix(NO_CONDITIONS),
        Ok(Ok(None)) => Check::skipped(UPLOAD, "a directory has no such request"),
        Ok(Err(error)) => failed(UPLOAD, &error, "s3:PutObject and s3:AbortMultipartUpload"),
        Err(why) => Check::failed(UPLOAD, why),
    }
}

/// Of a condition that the store does not know, or another failure.
fn unsupported(name: &str, header: &str, error: &StoreError) -> Check {
    match error.meaning() {
        Meaning::Unsupported => Check::warning(
            name,
            format!("{header} is not known to the store: {}", chain(error)),
        )
        .fix(NO_CONDITIONS),
        _ => failed(name, error, "s3:PutObject"),
    }
}

fn locked(key: &str, lock: &Lock) -> Check {
    let Lock { until, legal_hold } = lock;
    let (why, fix) = match (until, legal_hold) {
        (_, true) => (
            "a legal hold keeps it".to_owned(),
            "release the hold: `aws s3api put-object-legal-hold`",
        ),
        (Some(until), false) => (
            format!("object lock keeps it until {until}"),
            "nothing, if the bucket is to be so: Ark deletes backups when their retention is over; keep --ttl longer than that",
        ),
        (None, false) => {
            return Check::failed(DELETE, format!("{key} is still there after it was deleted"))
                .fix("allow s3:DeleteObjectVersion, or use a store that deletes what it says it has deleted");
        }
    };
    Check::warning(DELETE, format!("{key} is left: {why}")).fix(fix)
}

fn too_slow(way: &str) -> Check {
    let (amount, seconds) = (size(AMOUNT as u64), WITHIN.as_secs());
    Check::warning(
        THROUGHPUT,
        format!("{amount} {way} take longer than {seconds} s"),
    )
    .fix("check the network between pods and the store; a store in the same region is faster")
}

/// MiB a second.
#[expect(clippy::cast_precision_loss, reason = "some MiB")]
fn rate(took: Duration) -> f64 {
    AMOUNT as f64 / f64::from(1 << 20) / took.as_secs_f64().max(0.001)
}

/// How many seconds the clocks of others are ahead of this one.
fn clock_check(store: Option<i64>, server: Option<i64>) -> Check {
    let words = |who: &str, ahead: Option<i64>| match ahead {
        None => None,
        Some(-1..=1) => Some(format!("{who}: same")),
        Some(ahead) if ahead > 0 => Some(format!("{who}: {ahead} s ahead")),
        Some(behind) => Some(format!("{who}: {} s behind", -behind)),
    };
    let known: Vec<String> = [words("store", store), words("API server", server)]
        .into_iter()
        .flatten()
        .collect();
    if known.is_empty() {
        return Check::skipped(CLOCK, "nobody else says what time it is");
    }
    let detail = known.join(", ");
    let most = [store, server]
        .into_iter()
        .flatten()
        .map(i64::abs)
        .max()
        .unwrap_or(0);
    let fix = "set the clocks: run chrony or ntpd on the node, or on the store's hosts";
    match most {
        WRONG.. => Check::failed(CLOCK, detail).fix(fix),
        ODD.. => Check::warning(CLOCK, detail).fix(fix),
        _ => Check::ok(CLOCK, detail),
    }
}

fn settings_checks(settings: &Settings) -> Vec<Check> {
    let unknown = |name: &str, unknown: &Unknown, permission: &str| {
        let why = match unknown.forbidden {
            true => format!("{permission} is not allowed; Ark needs it for nothing else"),
            false => unknown.why.clone(),
        };
        Check::skipped(name, why)
    };
    let Settings {
        versioning,
        object_lock,
        lifecycle,
    } = settings;
    let versioning = match versioning {
        Ok(Versioning::Enabled) => Check::ok(
            VERSIONING,
            "enabled; what Ark deletes is gone for good, by version",
        ),
        Ok(Versioning::Suspended) => Check::ok(VERSIONING, "suspended"),
        Ok(Versioning::Never) => Check::ok(VERSIONING, "not enabled"),
        Err(why) => unknown(VERSIONING, why, "s3:GetBucketVersioning"),
    };
    let object_lock = match object_lock {
        Ok(None) => Check::ok(OBJECT_LOCK, "not enabled"),
        Ok(Some(None)) => Check::ok(OBJECT_LOCK, "enabled, without a default retention"),
        Ok(Some(Some(retention))) => Check::ok(
            OBJECT_LOCK,
            format!("enabled: {retention}; expiry deletes what is older"),
        ),
        Err(why) => unknown(OBJECT_LOCK, why, "s3:GetBucketObjectLockConfiguration"),
    };
    let lifecycle = match lifecycle {
        Ok(rules) if rules.is_empty() => {
            Check::ok(LIFECYCLE, "no rule deletes or archives backups")
        }
        Ok(rules) => {
            let texts: Vec<String> = rules
                .iter()
                .map(|rule| {
                    let id = &rule.id;
                    match (&rule.archives_to, rule.expires_after) {
                        (Some(class), _) => format!("rule {id} moves backups to {class}"),
                        (None, Some(days)) => {
                            format!("rule {id} deletes backups after {days} days")
                        }
                        (None, None) => format!("rule {id}"),
                    }
                })
                .collect();
            Check::warning(LIFECYCLE, texts.join("; ")).fix(
                "exclude this prefix from the rule, or keep --ttl shorter: Ark expires backups itself, and a file that is gone \
                 breaks one",
            )
        }
        Err(why) => unknown(LIFECYCLE, why, "s3:GetLifecycleConfiguration"),
    };
    vec![versioning, object_lock, lifecycle]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;
    use crate::store::settings::LifecycleRule;

    #[test]
    fn clocks_may_differ_by_seconds_but_not_by_minutes() {
        let verdict = |store, server| clock_check(store, server).result;
        assert_eq!(verdict(Some(2), Some(-1)), Verdict::Ok);
        assert_eq!(verdict(Some(-31), None), Verdict::Warning);
        assert_eq!(verdict(Some(0), Some(300)), Verdict::Failed);
        assert_eq!(verdict(None, None), Verdict::Skipped);
        let detail = clock_check(Some(-40), Some(0)).detail;
        assert_eq!(detail, "store: 40 s behind, API server: same");
    }

    #[test]
    fn what_a_bucket_does_to_backups_is_told_and_what_it_hides_is_skipped() {
        let hidden = |forbidden| Unknown {
            why: "it does not say".into(),
            forbidden,
        };
        let checks = settings_checks(&Settings {
            versioning: Err(hidden(true)),
            object_lock: Ok(Some(Some("COMPLIANCE, 30 days".into()))),
            lifecycle: Ok(vec![LifecycleRule {
                id: "tidy".into(),
                expires_after: Some(7),
                archives_to: None,
            }]),
        });
        let verdicts: Vec<Verdict> = checks.iter().map(|check| check.result).collect();
        assert_eq!(verdicts, [Verdict::Skipped, Verdict::Ok, Verdict::Warning]);
        assert!(checks[0].detail.contains("s3:GetBucketVersioning"));
        assert!(
            checks[2]
                .detail
                .contains("tidy deletes backups after 7 days")
        );
    }

    #[test]
    fn what_is_left_behind_is_said() {
        let until: Timestamp = "2027-01-01T00:00:00Z".parse().unwrap();
        let lock = |until, legal_hold| locked("metadata/x", &Lock { until, legal_hold });
        let kept = lock(Some(until), false);
        assert_eq!(kept.result, Verdict::Warning);
        assert!(kept.detail.contains("metadata/x is left") && kept.detail.contains("2027"));
        assert_eq!(lock(None, true).result, Verdict::Warning);
        assert_eq!(lock(None, false).result, Verdict::Failed);
    }
}
