//! What every store must do, as checks to run against a real one.
//!
//! Not part of the program: unit tests run it over a directory, and the project's scenarios over real S3 servers. A
//! check that fails panics with what it expected.

#![expect(
    clippy::unwrap_used,
    reason = "a test: a panic is how it says that something is wrong"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;

use super::{
    Conditional, Created, Credentials, Location, Meaning, Spool, SpoolReader, Store, StoreError,
};

/// The size of the first parts of an upload, around which the interesting lengths are.
const PART: usize = 8 * 1024 * 1024;

/// What a store is known to get wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nothing.
    Good,
    /// `CompleteMultipartUpload` honours `If-None-Match: *`, but looks and then writes: two completions at the same
    /// instant both succeed, and the later one's bytes stay (seen with SeaweedFS 4.48).
    RacyCompletion,
}

/// Runs every check. The location must be empty before, and is empty afterwards; `scratch` is a directory for spools.
pub async fn all(store: &Store, scratch: &Path, known: Known) {
    assert_eq!(keys(store, "").await, Vec::<String>::new());
    objects_are_created_once(store).await;
    concurrent_creators_have_one_winner(store).await;
    ranges_are_exact(store).await;
    keys_may_be_unusual(store).await;
    keys_stay_inside(store).await;
    deletes_are_idempotent(store).await;
    long_listings_are_complete(store).await;
    directories_are_what_keys_imply(store).await;
    uploads_of_every_size_arrive(store, scratch).await;
    concurrent_uploads_have_one_winner(store, scratch, known).await;
    small_and_big_creators_see_each_other(store, scratch).await;
    upload_runs_while_the_spool_grows(store, scratch).await;
    abandoned_spool_leaves_nothing(store, scratch).await;
    dropped_upload_leaves_nothing_visible(store, scratch).await;
    probe_leaves_nothing(store).await;
    its_clock_dates_objects(store).await;
    assert_eq!(keys(store, "").await, Vec::<String>::new());
}

async fn its_clock_dates_objects(store: &Store) {
    store.put_new("clock/a", "a".into()).await.unwrap();
    let dated = store.head("clock/a").await.unwrap().unwrap();
    let now = store.time("clock/b/").await.unwrap().unwrap();
    // A whole second is the finest that S3 tells, and a slow answer counts.
    let apart = now.duration_since(dated.last_modified);
    assert!((-2..60).contains(&apart.as_secs()), "{apart}");
    assert_eq!(keys(store, "").await, ["clock/a"]);
    assert_eq!(store.uploads("clock/").await.unwrap(), []);
    store.delete("clock/a", None).await.unwrap();
}

async fn keys(store: &Store, prefix: &str) -> Vec<String> {
    match store.list(prefix).collect().await {
        Ok(entries) => entries.into_iter().map(|entry| entry.key).collect(),
        // A directory comes into being with its first object.
        Err(error) if error.is_bucket_missing() => Vec::new(),
        Err(error) => panic!("{error:?}"),
    }
}

async fn remove(store: &Store, keys: &[&str]) {
    for key in keys {
        store.delete(key, None).await.unwrap();
    }
}

fn is_new(created: &Created) -> bool {
    matches!(created, Created::New { .. })
}

/// Bytes in which every position is recognisable.
fn pattern(length: usize, seed: u8) -> Bytes {
    (0..length)
        .map(|position| (position / 251) as u8 ^ (position % 251) as u8 ^ seed)
        .collect()
}

async fn spool(scratch: &Path, content: Bytes) -> SpoolReader {
    Spool::of(scratch, content).await.unwrap()
}

async fn objects_are_created_once(store: &Store) {
    let key = "backups/once/a.json";
    assert_eq!(store.head(key).await.unwrap(), None);
    assert_eq!(store.get(key, 100).await.unwrap(), None);
    assert!(store.get_range(key, 0..1).await.unwrap_err().is_not_found());
    let Created::New { etag } = store
        .put_new(key, Bytes::from_static(b"first"))
        .await
        .unwrap()
    else {
        panic!("there was nothing");
    };
    assert_eq!(
        store
            .put_new(key, Bytes::from_static(b"second"))
            .await
            .unwrap(),
        Created::Exists
    );
    assert_eq!(store.get(key, 5).await.unwrap().unwrap(), "first");
    assert!(matches!(
        store.get(key, 4).await,
        Err(StoreError::TooLong {
            length: 5,
            limit: 4,
            ..
        })
    ));
    let head = store.head(key).await.unwrap().unwrap();
    assert_eq!(
        (head.key.as_str(), head.length, &head.etag),
        (key, 5, &etag)
    );
    let listed = store.list("backups/once/").collect().await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (&listed[0].key, listed[0].length, &listed[0].etag),
        (&head.key, 5, &etag)
    );
    let age = jiff::Timestamp::now().duration_since(listed[0].last_modified);
    assert!(age.abs().as_secs() < 60, "{:?}", listed[0]);
    remove(store, &[key]).await;
    // An empty object is an object.
    assert!(is_new(&store.put_new(key, Bytes::new()).await.unwrap()));
    assert_eq!(store.get(key, 0).await.unwrap().unwrap(), "");
    assert_eq!(store.head(key).await.unwrap().unwrap().length, 0);
    assert_eq!(store.get_range(key, 0..0).await.unwrap(), "");
    remove(store, &[key]).await;
}

async fn concurrent_creators_have_one_winner(store: &Store) {
    for round in 0..3 {
        let key = format!("backups/race-{round}/ark-backup.json");
        let contents: Vec<_> = (0..16)
            .map(|n| Bytes::from(format!("creator {n}")))
            .collect();
        let results = join_all(
            contents
                .iter()
                .map(|content| store.put_new(&key, content.clone())),
        )
        .await;
        let winners: Vec<_> = results
            .iter()
            .zip(&contents)
            .filter(|(created, _)| is_new(created.as_ref().unwrap()))
            .map(|(_, content)| content)
            .collect();
        assert_eq!(winners.len(), 1, "{results:?}");
        assert_eq!(&store.get(&key, 100).await.unwrap().unwrap(), winners[0]);
        remove(store, &[&key]).await;
    }
}

async fn ranges_are_exact(store: &Store) {
    let key = "backups/ranges/data";
    let content = pattern(1_000_003, 7);
    store.put_new(key, content.clone()).await.unwrap();
    let end = content.len();
    for range in [
        0..1,
        0..end,
        1..2,
        5..5,
        end - 1..end,
        end - 70_000..end,
        499_999..700_001,
    ] {
        let bytes = store
            .get_range(key, range.start as u64..range.end as u64)
            .await
            .unwrap();
        assert!(bytes == content[range.clone()], "{range:?}");
    }
    let end = end as u64;
    for range in [end - 1..end + 1, end..end + 1, end + 5..end + 9, 0..end + 1] {
        match store.get_range(key, range.clone()).await {
            Err(StoreError::Short { length, wanted, .. }) => {
                assert_eq!((length, wanted), (end, range.end));
            }
            other => panic!("{range:?}: {other:?}"),
        }
    }
    let mut reader = store.read(key).await.unwrap().unwrap();
    assert_eq!(reader.length(), end);
    assert_eq!(reader.collect().await.unwrap(), content);
    assert_eq!(reader.next().await.unwrap(), None);
    remove(store, &[key]).await;
}

async fn keys_may_be_unusual(store: &Store) {
    let unusual = [
        "backups/u/with space",
        "backups/u/plus+plus",
        "backups/u/percent%20%",
        "backups/u/ünï-☃",
        "backups/u/a&b=c?d#e",
        "backups/u/-",
        "backups/u/.hidden",
        "backups/u/a.b..c",
    ];
    for key in unusual {
        let created = store.put_new(key, Bytes::from_static(key.as_bytes())).await;
        assert!(is_new(&created.unwrap()), "{key}");
    }
    for key in unusual {
        assert_eq!(store.get(key, 100).await.unwrap().unwrap(), key);
        assert_eq!(keys(store, key).await.first().unwrap(), key);
        assert!(store.head(key).await.unwrap().is_some(), "{key}");
    }
    let mut sorted = unusual.to_vec();
    sorted.sort_unstable();
    assert_eq!(keys(store, "backups/u/").await, sorted);
    remove(store, &unusual).await;
}

async fn keys_stay_inside(store: &Store) {
    let outside = [
        "",
        "/etc/passwd",
        "..",
        "a/../../b",
        "a/./b",
        "a//b",
        "a/",
        "nul\0",
        "new\nline",
        "backups/.ark-tmp-x",
    ];
    for key in outside {
        for error in [
            store.head(key).await.unwrap_err(),
            store.get(key, 1).await.unwrap_err(),
            store.get_range(key, 0..1).await.unwrap_err(),
            store.put_new(key, Bytes::new()).await.unwrap_err(),
            store.delete(key, None).await.unwrap_err(),
        ] {
            assert!(matches!(error, StoreError::Key { .. }), "{key}: {error:?}");
        }
    }
    for prefix in ["..", "../", "/", "a/../"] {
        let error = store.list(prefix).next_page().await.unwrap_err();
        assert!(
            matches!(error, StoreError::Key { .. }),
            "{prefix}: {error:?}"
        );
    }
}

async fn deletes_are_idempotent(store: &Store) {
    let key = "backups/delete/a";
    store.put_new(key, Bytes::from_static(b"x")).await.unwrap();
    let version = store.head(key).await.unwrap().unwrap().version;
    for _ in 0..2 {
        store.delete(key, version.as_deref()).await.unwrap();
    }
    store.delete(key, None).await.unwrap();
    assert_eq!(store.head(key).await.unwrap(), None);
    assert_eq!(keys(store, "backups/delete").await, Vec::<String>::new());
}

async fn long_listings_are_complete(store: &Store) {
    let expected: Vec<_> = (0..1203).map(|n| format!("backups/many/{n:05}")).collect();
    for some in expected.chunks(64) {
        join_all(some.iter().map(|key| async move {
            store.put_new(key, Bytes::from_static(b"x")).await.unwrap();
        }))
        .await;
    }
    assert_eq!(keys(store, "backups/many/").await, expected);
    assert_eq!(keys(store, "backups/many/0120").await, expected[1200..]);
    let mut listing = store.list("backups/many/");
    let mut pages = 0;
    while let Some(page) = listing.next_page().await.unwrap() {
        assert!(!page.is_empty());
        pages += 1;
    }
    assert!(pages > 1, "one page of {} entries", expected.len());
    assert!(listing.next_page().await.unwrap().is_none());
    for some in expected.chunks(64) {
        join_all(some.iter().map(|key| async move {
            store.delete(key, None).await.unwrap();
        }))
        .await;
    }
}

async fn directories_are_what_keys_imply(store: &Store) {
    let all = [
        "backups/d/b/one",
        "backups/d/b/two",
        "backups/d/a-b/one",
        "backups/d/a/deep/er",
        "backups/d/file",
        "other/x",
    ];
    for key in all {
        store.put_new(key, Bytes::new()).await.unwrap();
    }
    let names = |prefix| store.list_directories(prefix);
    assert_eq!(names("backups/d/").await.unwrap(), ["a", "a-b", "b"]);
    assert_eq!(names("backups/d/a/").await.unwrap(), ["deep"]);
    assert_eq!(names("nothing/").await.unwrap(), Vec::<String>::new());
    let top = names("").await.unwrap();
    for name in ["backups", "other"] {
        assert!(top.iter().any(|one| one == name), "{top:?}");
    }
    remove(store, &all).await;
}

async fn uploads_of_every_size_arrive(store: &Store, scratch: &Path) {
    let key = "backups/sizes/archive.tar.gz";
    for length in [0, 1, PART - 1, PART, PART + 1, 2 * PART, 20 * 1024 * 1024] {
        let content = pattern(length, 1);
        let created = store
            .upload_new(key, &mut spool(scratch, content.clone()).await)
            .await
            .unwrap();
        assert!(is_new(&created), "{length}");
        let head = store.head(key).await.unwrap().unwrap();
        assert_eq!(created, Created::New { etag: head.etag });
        assert!(
            store.get(key, length as u64).await.unwrap().unwrap() == content,
            "{length}"
        );
        remove(store, &[key]).await;
    }
    assert_eq!(store.uploads("backups/").await.unwrap_or_default(), []);
}

async fn concurrent_uploads_have_one_winner(store: &Store, scratch: &Path, known: Known) {
    let key = "backups/twins/archive.tar.gz";
    let contents = [pattern(PART + 500, 3), pattern(PART + 900, 4)];
    let mut one = spool(scratch, contents[0].clone()).await;
    let mut two = spool(scratch, contents[1].clone()).await;
    let (one, two) = tokio::join!(
        store.upload_new(key, &mut one),
        store.upload_new(key, &mut two)
    );
    let results = [one.unwrap(), two.unwrap()];
    let stored = store.get(key, 2 * PART as u64).await.unwrap().unwrap();
    let winner = contents.iter().position(|content| content == &stored);
    let winner = winner.expect("the stored bytes are those of neither");
    match (results.each_ref().map(is_new), known) {
        ([true, true], Known::RacyCompletion) => {
            eprintln!("NOTE: this store completed two uploads of the same key at the same time");
        }
        (new, _) => assert_eq!(new, [winner == 0, winner == 1], "{results:?}"),
    }
    assert_eq!(store.uploads("backups/").await.unwrap(), []);
    remove(store, &[key]).await;
}

async fn small_and_big_creators_see_each_other(store: &Store, scratch: &Path) {
    let key = "backups/mixed/archive.tar.gz";
    let big = pattern(PART + 1, 5);
    store.put_new(key, Bytes::from_static(b"x")).await.unwrap();
    for content in [big.clone(), Bytes::from_static(b"y")] {
        let created = store
            .upload_new(key, &mut spool(scratch, content).await)
            .await;
        assert_eq!(created.unwrap(), Created::Exists);
    }
    assert_eq!(store.get(key, 9).await.unwrap().unwrap(), "x");
    remove(store, &[key]).await;
    store
        .upload_new(key, &mut spool(scratch, big.clone()).await)
        .await
        .unwrap();
    let created = store.put_new(key, Bytes::from_static(b"x")).await;
    assert_eq!(created.unwrap(), Created::Exists);
    assert_eq!(
        store.head(key).await.unwrap().unwrap().length,
        big.len() as u64
    );
    remove(store, &[key]).await;
}

async fn upload_runs_while_the_spool_grows(store: &Store, scratch: &Path) {
    let key = "backups/grows/archive.tar.gz";
    let content = pattern(2 * PART + 12_345, 6);
    let (mut writer, mut reader) = Spool::create(scratch).unwrap();
    let writing = async {
        for piece in content.chunks(300_000) {
            writer.append(content.slice_ref(piece)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(store.head(key).await.unwrap(), None);
        writer.finish()
    };
    let (created, length) = tokio::join!(store.upload_new(key, &mut reader), writing);
    assert!(is_new(&created.unwrap()));
    assert_eq!(length, content.len() as u64);
    assert!(store.get(key, length).await.unwrap().unwrap() == content);
    remove(store, &[key]).await;
}

async fn abandoned_spool_leaves_nothing(store: &Store, scratch: &Path) {
    for length in [1, 2 * PART + 1] {
        let key = "backups/abandoned/archive.tar.gz";
        let (mut writer, mut reader) = Spool::create(scratch).unwrap();
        writer.append(pattern(length, 8)).await.unwrap();
        let abandon = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            drop(writer);
        };
        let (created, ()) = tokio::join!(store.upload_new(key, &mut reader), abandon);
        assert!(
            matches!(created, Err(StoreError::Source { .. })),
            "{created:?}"
        );
        assert_eq!(store.head(key).await.unwrap(), None);
        assert_eq!(keys(store, "backups/").await, Vec::<String>::new());
        assert_eq!(store.uploads("backups/").await.unwrap(), []);
    }
}

async fn dropped_upload_leaves_nothing_visible(store: &Store, scratch: &Path) {
    let key = "backups/dropped/archive.tar.gz";
    let (mut writer, mut reader) = Spool::create(scratch).unwrap();
    writer.append(pattern(2 * PART + 1, 9)).await.unwrap();
    let upload = store.upload_new(key, &mut reader);
    assert!(
        tokio::time::timeout(Duration::from_secs(1), upload)
            .await
            .is_err()
    );
    assert_eq!(store.head(key).await.unwrap(), None);
    assert_eq!(keys(store, "backups/").await, Vec::<String>::new());
    // A bucket keeps the parts until a sweep; a second abort is as good as the first.
    for upload in store.uploads("backups/").await.unwrap() {
        assert_eq!(upload.key, key);
        for _ in 0..2 {
            store.abort_upload(&upload).await.unwrap();
        }
    }
    assert_eq!(store.uploads("backups/").await.unwrap(), []);
}

async fn probe_leaves_nothing(store: &Store) {
    let found = store.probe("conformance").await.unwrap();
    assert_eq!(found, Conditional::FULL);
    assert_eq!(store.conditional_writes(), found);
    assert_eq!(keys(store, "metadata/").await, Vec::<String>::new());
    assert_eq!(store.uploads("").await.unwrap_or_default(), []);
}

/// Checks that each way of not reaching a bucket has its meaning, soon.
///
/// `location` and `credentials` are those of a bucket that works; this runs against variations of them.
pub async fn unreachable_buckets_say_why(location: &Location, credentials: &Credentials) {
    let Location::S3(working) = location else {
        panic!("{location} is not a bucket");
    };
    let Credentials::Keys { access_key_id, .. } = credentials else {
        panic!("this needs keys to falsify");
    };
    let keys = |id: &str| Credentials::Keys {
        access_key_id: id.to_owned(),
        secret_access_key: "wrong".to_owned(),
        session_token: None,
    };
    let mut missing = working.clone();
    missing.bucket = "no-such-bucket-here".to_owned();
    let mut dead = working.clone();
    // The discard port: nothing listens there.
    dead.endpoint = Some("http://127.0.0.1:9".to_owned());
    let mut nameless = working.clone();
    nameless.endpoint = Some("http://store.invalid".to_owned());
    nameless.path_style = true;
    let cases = [
        ("unknown key", working, keys("nobody"), Meaning::Credentials),
        (
            "wrong secret",
            working,
            keys(access_key_id),
            Meaning::Credentials,
        ),
        (
            "missing bucket",
            &missing,
            credentials.clone(),
            Meaning::BucketMissing,
        ),
        (
            "dead endpoint",
            &dead,
            credentials.clone(),
            Meaning::Unreachable,
        ),
        (
            "unknown host",
            &nameless,
            credentials.clone(),
            Meaning::Unreachable,
        ),
    ];
    for (what, location, credentials, meaning) in cases {
        let location = Location::S3(location.clone());
        let store = Store::open(&location, &credentials).await.unwrap();
        let begun = Instant::now();
        let errors = [
            store.list("backups/").next_page().await.unwrap_err(),
            store.get("backups/x", 1).await.unwrap_err(),
            store.put_new("backups/x", Bytes::new()).await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.meaning(), meaning, "{what}: {error:?}");
            assert!(error.hint().is_some(), "{what}");
        }
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(15), "{what} took {took:?}");
    }
}
