//! A store and an API server that misbehave: what passes is retried, what stays is a clear failure, and never is half a
//! backup visible.
//!
//! A fault proxy stands between the shipped `ark-job` and the real servers. The cases of a scenario run side by side,
//! for most of their time is waiting.

use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ark_tests::job::{ArkJob, Finished};
use ark_tests::proxy::{Added, Request};
use ark_tests::{ControlPlane, FaultProxy, Gate, Options, Rule, wait_until};
use futures::stream::{self, StreamExt};
use libtest_mimic::Trial;

use crate::backup::{Stored, fill, read};
use crate::world::{World, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        // The longest first.
        scenario(
            "faults::what_does_not_pass_is_a_clear_failure_in_time",
            patience_ends,
        ),
        scenario("faults::a_store_that_hiccups_is_asked_again", store_hiccups),
        scenario(
            "faults::a_store_that_fails_leaves_nothing_that_looks_like_a_backup",
            store_fails,
        ),
        scenario(
            "faults::an_api_server_that_hiccups_is_asked_again",
            server_hiccups,
        ),
        scenario(
            "faults::an_api_server_that_is_gone_for_20_s_is_waited_for",
            server_gone,
        ),
        #[cfg(target_os = "linux")]
        crate::world::node_scenario("faults::a_full_disk_is_a_clear_failure", full_disk),
    ]
}

/// Cases at once: enough that waiting overlaps, few enough for a small machine.
const AT_ONCE: usize = 4;

type Case<'a> = (String, Pin<Box<dyn Future<Output = Result<()>> + 'a>>);

fn case<'a>(name: &str, work: impl Future<Output = Result<()>> + 'a) -> Case<'a> {
    (name.to_owned(), Box::pin(work))
}

/// Runs all cases, and says of each that fails how.
async fn all(cases: Vec<Case<'_>>, at_once: usize) -> Result<()> {
    let failed: Vec<String> = stream::iter(cases)
        .map(|(name, work)| async move {
            let result = work.await;
            result.err().map(|error| format!("{name}: {error:#}"))
        })
        .buffer_unordered(at_once)
        .filter_map(|failed| async { failed })
        .collect()
        .await;
    ensure!(failed.is_empty(), "{}", failed.join("\n\n"));
    Ok(())
}

/// A namespace whose archive takes two parts of an upload: config maps of 1.4 MB that do not compress.
async fn large_namespace(world: &World) -> Result<String> {
    let namespace = world.namespace("large").await?;
    let mut state = 88_172_645_463_325_252u64;
    for n in 0..12 {
        let mut data = String::with_capacity(1_048_576);
        // Base64 letters, of which gzip saves a quarter: 12 of them are more than 8 MiB.
        while data.len() < 1_040_000 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            write!(data, "{:c<11}", radix64(state))?;
        }
        let body =
            serde_json::json!({"metadata": {"name": format!("large-{n:02}")}, "data": {"k": data}});
        let request = http::Request::post(format!("/api/v1/namespaces/{namespace}/configmaps"))
            .header("content-type", "application/json")
            .body(body.to_string().into_bytes())?;
        world.client.request_text(request).await?;
    }
    Ok(namespace)
}

fn radix64(mut number: u64) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    while number > 0 {
        text.push(char::from(LETTERS[(number % 64) as usize]));
        number /= 64;
    }
    text
}

/// Backs up `namespace` under `name`, and gives how it ended.
async fn run(
    kubeconfig: &std::path::Path,
    storage: &str,
    name: &str,
    namespace: &str,
) -> Result<Finished> {
    let arguments = [
        "backup",
        name,
        "--storage",
        storage,
        "--include-namespaces",
        namespace,
    ];
    ArkJob::new(kubeconfig, &arguments).run().await
}

fn met(fault: &Added, times: u64) -> Result<()> {
    let applied = fault.applied();
    ensure!(
        applied >= times,
        "the fault was met {applied} times, not {times}"
    );
    Ok(())
}

/// That a backup is there and whole, whatever happened on the way.
async fn is_whole(world: &World, name: &str, object: &str) -> Result<()> {
    let stored = Stored::fetch(&world.bucket, world.prefix(), name).await?;
    let names = read(&stored.path())?;
    ensure!(names.contains(object), "{object} is missing: {names:#?}");
    Ok(())
}

/// That nothing is there that could be taken for a backup, and no upload goes on costing money.
async fn is_absent(world: &World, name: &str) -> Result<()> {
    let keys = world.bucket.keys(&world.key(name)).await?;
    ensure!(
        !keys.iter().any(|key| key.ends_with("/ark-backup.json")),
        "there is a marker: {keys:?}"
    );
    let uploads = world
        .bucket
        .client()
        .list_multipart_uploads()
        .bucket(world.bucket.name())
        .prefix(world.key(name))
        .send()
        .await?;
    ensure!(
        uploads.uploads().is_empty(),
        "an upload is left: {uploads:?}"
    );
    Ok(())
}

/// That the last lines say what failed, and what to do.
fn failed(finished: &Finished, code: i32, texts: &[&str]) -> Result<()> {
    ensure!(finished.code == Some(code), "{finished:?}");
    let end = finished
        .stderr
        .rfind("\nerror: ")
        .map(|at| &finished.stderr[at..])
        .context("no error was said")?;
    for text in texts {
        ensure!(end.contains(text), "{text:?} is not said: {finished:?}");
    }
    Ok(())
}

/// Which requests a fault is for.
type Matches = fn(&Request) -> bool;

fn is_part(request: &Request) -> bool {
    request.method == "PUT"
        && request.query.contains("partNumber=")
        && request.path.contains(".tar.gz")
}

fn is_archive_read(request: &Request) -> bool {
    request.method == "GET" && request.path.ends_with(".tar.gz")
}

fn is_archive_head(request: &Request) -> bool {
    request.method == "HEAD" && request.path.ends_with(".tar.gz")
}

fn is_results(request: &Request) -> bool {
    request.method == "PUT" && request.path.ends_with("-results.gz")
}

fn xml(code: &str) -> String {
    format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>made up</Message></Error>")
}

const XML: [(&str, &str); 1] = [("content-type", "application/xml")];

/// A store that fails a few times, and then works.
async fn store_hiccups() -> Result<()> {
    let world = World::new("hiccups").await?;
    let namespace = large_namespace(&world).await?;
    let object = format!("configmaps {namespace} large-11");
    let writes: Matches = Request::is_write;
    let faults: Vec<(&str, Rule, u64, &str)> = vec![
        (
            "internal-error",
            Rule::on(writes)
                .up_to(2)
                .answer(500, &XML, xml("InternalError")),
            2,
            "HTTP 500 InternalError",
        ),
        (
            "slow-down",
            Rule::on(is_part)
                .up_to(3)
                .answer(503, &XML, xml("SlowDown")),
            3,
            "HTTP 503 SlowDown",
        ),
        (
            "reset-in-a-part",
            Rule::on(is_part).up_to(2).truncate_request(1_000_000),
            2,
            "PUT ",
        ),
        (
            "no-answer-to-a-part",
            Rule::on(is_part).up_to(1).lose_answer(),
            1,
            "PUT ",
        ),
        (
            "answer-breaks-off",
            Rule::on(is_archive_read).up_to(2).truncate_answer(100),
            2,
            "reading ",
        ),
        (
            "answer-said-to-be-longer",
            Rule::on(is_archive_read).up_to(1).change_length(10),
            1,
            "reading ",
        ),
        (
            "no-answer-in-time",
            // Longer than one attempt may take.
            Rule::on(is_results).up_to(1).delay(Duration::from_secs(60)),
            1,
            "-results.gz",
        ),
    ];
    let (world, namespace, object) = (&world, &namespace, &object);
    let cases = faults.into_iter().map(|(name, rule, times, said)| {
        case(name, async move {
            let proxy = FaultProxy::start(world.s3.url()).await?;
            let fault = proxy.add(rule);
            let storage = world.storage_at(proxy.url());
            let kubeconfig = world.cluster.kubeconfig();
            let finished = run(kubeconfig, &storage, name, namespace).await?;
            ensure!(finished.code == Some(0), "{finished:?}");
            met(&fault, times)?;
            ensure!(
                finished
                    .stderr
                    .lines()
                    .any(|line| line.contains("level=warning")
                        && line.contains(said)
                        && line.contains("trying again")),
                "the log does not tell: {finished:?}"
            );
            is_whole(world, name, object).await
        })
    });
    all(cases.collect(), AT_ONCE).await
}

/// A store that goes on failing.
async fn store_fails() -> Result<()> {
    let world = World::new("fails").await?;
    let namespace = large_namespace(&world).await?;
    let writes: Matches = Request::is_write;
    let network = "hint: check the endpoint";
    let room = "hint: make room";
    let faults: Vec<(&str, Rule, u64, i32, Vec<&str>)> = vec![
        (
            "internal-error",
            Rule::on(writes).answer(500, &XML, xml("InternalError")),
            3,
            1,
            vec!["writing http", "InternalError", "HTTP 500", network],
        ),
        (
            "slow-down",
            Rule::on(is_part).answer(503, &XML, xml("SlowDown")),
            6,
            1,
            vec!["writing http", ".tar.gz", "SlowDown", "HTTP 503", network],
        ),
        (
            "reset-in-a-part",
            Rule::on(is_part).truncate_request(1_000_000),
            6,
            1,
            vec!["writing http", ".tar.gz", network],
        ),
        (
            "full",
            Rule::on(is_part).answer(507, &XML, xml("XMinioStorageFull")),
            1,
            1,
            vec!["writing http", ".tar.gz", "XMinioStorageFull", room],
        ),
        (
            "quota",
            Rule::on(is_part).answer(403, &XML, xml("QuotaExceeded")),
            1,
            1,
            vec!["writing http", ".tar.gz", "QuotaExceeded", room],
        ),
        (
            "said-to-be-shorter",
            Rule::on(is_archive_head).change_length(-1),
            1,
            5,
            vec![
                ".tar.gz",
                "does not give it back whole",
                "hint: the store loses",
            ],
        ),
        (
            "said-to-be-longer",
            Rule::on(is_archive_head).change_length(1),
            1,
            1,
            vec![".tar.gz", "ends at byte"],
        ),
        (
            "read-back-shorter",
            Rule::on(is_archive_read).change_length(-1),
            5,
            1,
            vec!["reading http", ".tar.gz", network],
        ),
        (
            "read-back-changed",
            Rule::on(is_archive_read).flip_bit(40),
            1,
            5,
            vec![".tar.gz"],
        ),
    ];
    let (world, namespace) = (&world, &namespace);
    let cases = faults.into_iter().map(|(name, rule, times, code, texts)| {
        case(name, async move {
            let proxy = FaultProxy::start(world.s3.url()).await?;
            let fault = proxy.add(rule);
            let storage = world.storage_at(proxy.url());
            let kubeconfig = world.cluster.kubeconfig();
            let started = Instant::now();
            let finished = run(kubeconfig, &storage, name, namespace).await?;
            met(&fault, times)?;
            failed(&finished, code, &texts)?;
            let took = started.elapsed();
            ensure!(took < Duration::from_secs(90), "it took {took:?}");
            is_absent(world, name).await
        })
    });
    all(cases.collect(), AT_ONCE).await
}

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

fn status(code: u16, reason: &str) -> String {
    format!(
        r#"{{"kind":"Status","apiVersion":"v1","status":"Failure","message":"made up","reason":"{reason}","code":{code}}}"#
    )
}

fn is_list_of_config_maps(request: &Request) -> bool {
    request.path.ends_with("/configmaps") && request.query.contains("resourceVersionMatch=Exact")
}

fn is_probe_of_secrets(request: &Request) -> bool {
    request.path == "/api/v1/secrets" && request.query == "limit=1"
}

/// An API server that fails a few times, and then works.
async fn server_hiccups() -> Result<()> {
    let world = World::new("server").await?;
    let namespace = world.namespace("app").await?;
    fill(world.cluster, &namespace, 200)?;
    let retry_after = [("content-type", "application/json"), ("retry-after", "3")];
    let faults: Vec<(&str, Rule, u64)> = vec![
        (
            "throttled",
            Rule::on(is_list_of_config_maps).up_to(2).answer(
                429,
                &retry_after,
                status(429, "TooManyRequests"),
            ),
            2,
        ),
        (
            "unavailable",
            Rule::on(is_probe_of_secrets).up_to(3).answer(
                503,
                &JSON,
                status(503, "ServiceUnavailable"),
            ),
            3,
        ),
        (
            "discovery-fails",
            Rule::on(|request| request.path == "/apis").up_to(2).answer(
                500,
                &JSON,
                status(500, "InternalError"),
            ),
            2,
        ),
        (
            "reset",
            Rule::on(is_list_of_config_maps).up_to(2).reset(),
            2,
        ),
        (
            "breaks-off",
            Rule::on(is_list_of_config_maps)
                .up_to(2)
                .truncate_answer(50_000),
            2,
        ),
        (
            // The end is lost, though HTTP says that all is well.
            "said-to-be-shorter",
            Rule::on(is_list_of_config_maps)
                .up_to(2)
                .change_length(-1_000),
            2,
        ),
    ];
    let (world, namespace) = (&world, &namespace);
    let cases = faults.into_iter().map(|(name, rule, times)| {
        case(name, async move {
            let proxy = FaultProxy::start_before(world.cluster).await?;
            let fault = proxy.add(rule);
            let kubeconfig = world.cluster.kubeconfig_for(proxy.url())?;
            let started = Instant::now();
            let finished = run(&kubeconfig, &world.storage(), name, namespace).await?;
            ensure!(finished.code == Some(0), "{finished:?}");
            met(&fault, times)?;
            let took = started.elapsed();
            ensure!(
                took < Duration::from_secs(60),
                "it took {took:?}: {finished:?}"
            );
            ensure!(
                finished
                    .stderr
                    .lines()
                    .any(|line| line.contains("level=warning") && line.contains("trying again")),
                "the log does not tell: {finished:?}"
            );
            if name == "throttled" {
                let asked: Vec<Instant> = proxy
                    .requests()
                    .iter()
                    .filter(|request| is_list_of_config_maps(request))
                    .map(|request| request.at)
                    .collect();
                for pair in asked[..3].windows(2) {
                    let pause = pair[1] - pair[0];
                    ensure!(
                        (Duration::from_secs(3)..Duration::from_secs(6)).contains(&pause),
                        "Retry-After: 3 was followed by a pause of {pause:?}"
                    );
                }
            }
            is_whole(world, name, &format!("configmaps {namespace} cm-199")).await?;
            let stored = Stored::fetch(&world.bucket, world.prefix(), name).await?;
            let names = read(&stored.path())?;
            let config_maps = names.iter().filter(|line| line.contains(" cm-")).count();
            ensure!(config_maps == 200, "{config_maps} of 200 config maps");
            Ok(())
        })
    });
    all(cases.collect(), AT_ONCE).await
}

/// The API server's process is killed in the middle of a backup, and comes back 20 s later.
async fn server_gone() -> Result<()> {
    let world = World::new("gone").await?;
    // One of its own: others need theirs.
    let cluster = ControlPlane::start(Options::default()).await?;
    cluster.kubectl(&["create", "namespace", "app"])?;
    fill(&cluster, "app", 100)?;
    let proxy = FaultProxy::start_before(&cluster).await?;
    let gate = Gate::default();
    let held = proxy.add(Rule::on(is_list_of_config_maps).only(1).hold(&gate));
    let kubeconfig = cluster.kubeconfig_for(proxy.url())?;
    let storage = world.storage();
    let arguments = ["backup", "gone", "--storage", &storage];
    let running = ArkJob::new(&kubeconfig, &arguments).start()?;
    wait_until(
        "the list to be asked for",
        Duration::from_secs(60),
        async || Ok((held.applied() == 1).then_some(())),
    )
    .await?;
    cluster.kill_api_server()?;
    gate.open();
    // The fault itself: nothing is awaited.
    tokio::time::sleep(Duration::from_secs(20)).await;
    cluster.restart_api_server().await?;
    let finished = running.wait().await?;
    ensure!(finished.code == Some(0), "{finished:?}");
    ensure!(
        finished
            .stderr
            .lines()
            .any(|line| line.contains("listing configmaps")
                && line.contains("does not answer")
                && line.contains("trying again")),
        "the log does not tell: {finished:?}"
    );
    let stored = Stored::fetch(&world.bucket, world.prefix(), "gone").await?;
    let names = read(&stored.path())?;
    let config_maps = names.iter().filter(|line| line.contains(" cm-")).count();
    ensure!(config_maps == 100, "{config_maps} of 100 config maps");
    Ok(())
}

/// Faults that stay until patience ends: the cases take as long as that, all at once.
async fn patience_ends() -> Result<()> {
    let world = World::new("patience").await?;
    let namespace = world.namespace("app").await?;
    fill(world.cluster, &namespace, 200)?;
    let (world, namespace) = (&world, &namespace);
    let through = async |name: &'static str, rule: Rule, times: u64| {
        let proxy = FaultProxy::start_before(world.cluster).await?;
        let fault = proxy.add(rule);
        let kubeconfig = world.cluster.kubeconfig_for(proxy.url())?;
        let started = Instant::now();
        let finished = run(&kubeconfig, &world.storage(), name, namespace).await?;
        met(&fault, times)?;
        let took = started.elapsed();
        ensure!(
            (Duration::from_secs(85)..Duration::from_secs(150)).contains(&took),
            "it took {took:?}: {finished:?}"
        );
        Ok::<_, anyhow::Error>(finished)
    };
    let through = &through;
    // One type fails for good: the others are kept, and the backup says what it lacks.
    let partial =
        |name: &'static str, rule: Rule, times: u64, kind: &'static str, why: &'static str| {
            case(name, async move {
                let finished = through(name, rule, times).await?;
                failed(
                    &finished,
                    3,
                    &[kind, "is missing or incomplete", why, "hint: "],
                )?;
                let stored = Stored::fetch(&world.bucket, world.prefix(), name).await?;
                let names = read(&stored.path())?;
                ensure!(
                    names.contains(&format!("deployments.apps {namespace} web")),
                    "{names:#?}"
                );
                let marker: serde_json::Value =
                    serde_json::from_slice(&std::fs::read(stored.path().join("ark-backup.json"))?)?;
                ensure!(
                    marker["status"]["phase"] == "PartiallyFailed"
                        && marker["status"]["messages"].to_string().contains(kind),
                    "{marker:#}"
                );
                Ok(())
            })
        };
    let down = Arc::new(AtomicBool::new(false));
    let everything_after_the_instant = Rule::on(move |request| {
        down.fetch_or(is_list_of_config_maps(request), Ordering::SeqCst)
            || is_list_of_config_maps(request)
    })
    .answer(503, &JSON, status(503, "ServiceUnavailable"));
    let cases = vec![
        partial(
            "type-fails",
            Rule::on(|request| request.path.ends_with("/secrets")).answer(
                500,
                &JSON,
                status(500, "InternalError"),
            ),
            8,
            "secrets",
            "made up (HTTP 500)",
        ),
        partial(
            "page-breaks-off",
            Rule::on(is_list_of_config_maps).truncate_answer(50_000),
            8,
            "configmaps",
            "does not answer",
        ),
        case("all-fails", async move {
            let finished = through("all-fails", everything_after_the_instant, 8).await?;
            failed(&finished, 1, &["listing ", "made up (HTTP 503)"])?;
            let keys = world.bucket.keys(&world.key("all-fails")).await?;
            ensure!(keys.is_empty(), "something is left: {keys:?}");
            is_absent(world, "all-fails").await
        }),
        case("store-hangs", async move {
            let proxy = FaultProxy::start(world.s3.url()).await?;
            let gate = Gate::default();
            let fault = proxy.add(Rule::on(is_results).hold(&gate));
            let storage = world.storage_at(proxy.url());
            let kubeconfig = world.cluster.kubeconfig();
            let started = Instant::now();
            let finished = run(kubeconfig, &storage, "store-hangs", namespace).await?;
            met(&fault, 3)?;
            let took = started.elapsed();
            ensure!(took < Duration::from_secs(150), "it took {took:?}");
            failed(
                &finished,
                1,
                &[
                    "writing http",
                    "-results.gz",
                    "no answer in time",
                    "hint: check the endpoint",
                ],
            )?;
            is_absent(world, "store-hangs").await
        }),
    ];
    let number = cases.len();
    all(cases, number).await
}

/// A directory that is full, and a full place for temporary files: each a file system of 2 MiB that goes with the
/// process, in a mount namespace of its own.
#[cfg(target_os = "linux")]
async fn full_disk() -> Result<()> {
    let world = World::new("disk").await?;
    let namespace = large_namespace(&world).await?;
    let directory = tempfile::tempdir()?;
    let small = directory.path().display().to_string();
    // What is left is listed before the file system goes.
    let script = format!(
        "mount -t tmpfs -o size=2m none {small} || exit 99; \"$@\"; code=$?; find {small} -type f | sed 's/^/left: /' >&2; exit $code"
    );
    let wrapper = ["unshare", "--mount", "sh", "-c", &script, "sh"];
    let job = |name: &str, storage: &str| {
        let arguments = [
            "backup",
            name,
            "--storage",
            storage,
            "--include-namespaces",
            &namespace,
        ];
        ArkJob::new(world.cluster.kubeconfig(), &arguments).under(&wrapper)
    };
    let finished = job("full", &format!("file://{small}")).run().await?;
    failed(
        &finished,
        1,
        &[
            "writing",
            "full.tar.gz",
            "No space left on device",
            "hint: make room",
        ],
    )?;
    ensure!(!finished.stderr.contains("left: "), "{finished:?}");

    let finished = job("spool", &world.storage())
        .variable("TMPDIR", &small)
        .run()
        .await?;
    failed(
        &finished,
        1,
        &[
            "writing a temporary file in",
            &small,
            "No space left on device",
            "hint: ",
            "give it more room",
        ],
    )?;
    is_absent(&world, "spool").await?;
    let keys = world.bucket.keys(&world.key("spool")).await?;
    ensure!(keys.is_empty(), "something is left: {keys:?}");
    Ok(())
}
