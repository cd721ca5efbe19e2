//! `doctor`: what it finds out about stores that are well and stores that lie, with the fault proxy in front of real S3; about EC2;
//! and, in a real cluster, that a planted secret comes out nowhere: not in logs, not in records, not in the support archive.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ark_job::doctor::{Check, Verdict};
use ark_tests::ec2::Iam;
use ark_tests::job::ArkJob;
use ark_tests::proxy::Request;
use ark_tests::{FaultProxy, MotoServer, Rule, s3, wait_until};
use aws_sdk_s3::types::{
    DefaultRetention, ObjectLockConfiguration, ObjectLockEnabled, ObjectLockRetentionMode,
    ObjectLockRule,
};
use http::Method;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::plugin::{self, Ark, IMAGE, Said, apply, kubectl, outside, run, trifle};
use crate::world::{World, node_scenario, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "doctor::a_store_is_tried_and_left_as_it_was",
            a_store_is_left_as_it_was,
        ),
        scenario(
            "doctor::a_store_that_lies_or_refuses_is_found_out",
            a_store_that_lies_is_found_out,
        ),
        scenario(
            "doctor::who_cannot_be_reached_is_told_with_the_reason",
            unreachable,
        ),
        scenario(
            "doctor::an_object_lock_keeps_the_probe_and_nothing_more",
            locked,
        ),
        scenario("doctor::each_action_of_ec2_that_is_missing_is_named", ec2),
        scenario(
            "doctor::the_plugin_prints_a_table_and_json_and_writes_an_archive_once",
            locally,
        ),
        node_scenario(
            "doctor::in_a_pod_and_planted_secrets_come_out_nowhere",
            planted_secrets_come_out_nowhere,
        ),
    ]
}

type Checks = BTreeMap<String, Check>;

/// Runs `ark-job doctor`, and reads its checks.
async fn examine(job: &ArkJob, code: i32) -> Result<Checks> {
    let finished = job.expect(code).await?;
    let printed = finished.stderr.split_once("\nstdout: ");
    let (_, printed) = printed.with_context(|| format!("nothing was printed: {finished:?}"))?;
    let checks: Vec<Check> = printed
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let names: Vec<&str> = checks.iter().map(|check| check.check.as_str()).collect();
    let expected: Vec<&str> = ark_job::doctor::names().collect();
    ensure!(names == expected, "{names:?}");
    Ok(checks
        .into_iter()
        .map(|check| (check.check.clone(), check))
        .collect())
}

fn doctor(world: &World, storage: &str) -> ArkJob {
    let kubeconfig = world.cluster.kubeconfig();
    ArkJob::new(kubeconfig, &["doctor", "-o", "json", "--storage", storage])
}

/// That these have this verdict.
fn are(checks: &Checks, verdict: Verdict, names: &[&str]) -> Result<()> {
    for name in names {
        let check = &checks[*name];
        ensure!(
            check.result == verdict,
            "{name} is not {verdict:?}: {check:?}"
        );
    }
    Ok(())
}

/// That its detail and fix say this.
fn says(checks: &Checks, name: &str, detail: &str, fix: &str) -> Result<()> {
    let check = &checks[name];
    ensure!(
        check.detail.contains(detail) && check.fix.as_deref().unwrap_or_default().contains(fix),
        "{check:?}"
    );
    Ok(())
}

const PROBED: [&str; 8] = [
    "storage-list",
    "storage-put",
    "storage-get",
    "create-if-absent",
    "upload-if-absent",
    "compare-and-swap",
    "throughput",
    "storage-delete",
];

async fn a_store_is_left_as_it_was() -> Result<()> {
    let world = World::new("doctor-well").await?;
    let key = format!("{}/backups/kept/ark-backup.json", world.prefix());
    world.bucket.put(&key, "not ours to touch").await?;
    let before = world.bucket.objects(world.prefix()).await?;
    let checks = examine(&doctor(&world, &world.storage()), 0).await?;
    are(&checks, Verdict::Ok, &PROBED)?;
    are(
        &checks,
        Verdict::Ok,
        &[
            "temporary-files",
            "api-server",
            "rights-backup",
            "location",
            "mode",
            "clock",
        ],
    )?;
    // Not in a pod, no volumes of EBS.
    are(&checks, Verdict::Skipped, &["memory", "ec2"])?;
    ensure!(world.bucket.objects(world.prefix()).await? == before);

    // Where versions are kept, none is left either, and no delete marker.
    let name = format!("doctor-versions-{}", std::process::id());
    let bucket = world.s3.versioned_bucket(&name, false).await?;
    let storage = format!(
        "s3://{name}/p?endpoint={}&path-style=true&region=us-east-1",
        world.s3.url()
    );
    let checks = examine(&doctor(&world, &storage), 0).await?;
    are(&checks, Verdict::Ok, &PROBED)?;
    says(&checks, "versioning", "enabled", "")?;
    let left = bucket.versions("").await?;
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}

fn of_probe(request: &Request) -> bool {
    request.path.contains("/metadata/ark-probe-doctor-") && !request.path.ends_with("-data")
}

fn conditional(request: &Request, method: &Method, header: &str) -> bool {
    of_probe(request) && request.method == *method && request.headers.contains_key(header)
}

async fn a_store_that_lies_is_found_out() -> Result<()> {
    let world = World::new("doctor-lies").await?;
    let proxy = FaultProxy::start(world.s3.url()).await?;
    let storage = world.storage_at(proxy.url());
    let job = doctor(&world, &storage);

    // Conditions are ignored: backups go on, with a warning.
    let etag = [("etag", "\"0123456789abcdef0123456789abcdef\"")];
    let put = |request: &Request| {
        conditional(request, &Method::PUT, "if-none-match") && !request.query.contains("uploadId")
    };
    let done = "<CompleteMultipartUploadResult><ETag>\"0\"</ETag></CompleteMultipartUploadResult>";
    proxy.add(Rule::on(put).only(2).answer(200, &etag, ""));
    proxy.add(
        Rule::on(|request| conditional(request, &Method::POST, "if-none-match")).answer(
            200,
            &[("content-type", "application/xml")],
            done,
        ),
    );
    proxy.add(
        Rule::on(|request| conditional(request, &Method::PUT, "if-match"))
            .only(1)
            .answer(200, &etag, ""),
    );
    let checks = examine(&job, 0).await?;
    let ignored = ["create-if-absent", "upload-if-absent", "compare-and-swap"];
    are(&checks, Verdict::Warning, &ignored)?;
    says(
        &checks,
        "create-if-absent",
        "If-None-Match is ignored",
        "conditional writes",
    )?;
    says(&checks, "compare-and-swap", "If-Match is ignored", "")?;
    are(
        &checks,
        Verdict::Ok,
        &["storage-put", "storage-get", "storage-delete"],
    )?;
    ensure!(world.bucket.keys(world.prefix()).await?.is_empty());

    // Nothing may be deleted.
    proxy.clear_rules();
    let refusal = "<Error><Code>AccessDenied</Code><Message>no</Message></Error>";
    proxy.add(
        Rule::on(|request| request.method == Method::DELETE && !request.query.contains("uploadId"))
            .answer(403, &[], refusal),
    );
    let checks = examine(&job, 1).await?;
    are(&checks, Verdict::Failed, &["storage-delete"])?;
    says(
        &checks,
        "storage-delete",
        "is left",
        "allow s3:DeleteObject",
    )?;
    are(&checks, Verdict::Ok, &["storage-put", "create-if-absent"])?;
    for key in world.bucket.keys(world.prefix()).await? {
        ensure!(key.contains("metadata/ark-probe-doctor-"), "{key}");
        world.bucket.delete(&key).await?;
    }

    // The clock is ten minutes late: with fifteen, S3 refuses what is signed by it.
    proxy.clear_rules();
    proxy.add(Rule::on_all().shift_date(-600));
    let checks = examine(&job, 1).await?;
    are(&checks, Verdict::Failed, &["clock"])?;
    says(&checks, "clock", "behind", "chrony")?;
    are(&checks, Verdict::Ok, &PROBED)?;

    // What is read is not what was written.
    proxy.clear_rules();
    proxy.add(Rule::on(|request| of_probe(request) && request.method == Method::GET).flip_bit(3));
    let checks = examine(&job, 1).await?;
    are(&checks, Verdict::Failed, &["storage-get"])?;
    says(&checks, "storage-get", "not what was written", "")?;

    // Nothing may be written: what was not tried is no failure of its own, and nothing is deleted.
    proxy.clear_rules();
    proxy.clear_requests();
    proxy.add(Rule::on(|request| request.method == Method::PUT).answer(403, &[], refusal));
    let checks = examine(&job, 1).await?;
    are(&checks, Verdict::Failed, &["storage-put"])?;
    says(&checks, "storage-put", "AccessDenied", "allow s3:PutObject")?;
    are(
        &checks,
        Verdict::Skipped,
        &["storage-get", "create-if-absent", "storage-delete"],
    )?;
    ensure!(proxy.count(|request| request.method == Method::DELETE) == 0);
    ensure!(world.bucket.keys(world.prefix()).await?.is_empty());
    Ok(())
}

async fn unreachable() -> Result<()> {
    let world = World::new("doctor-away").await?;
    let directory = tempfile::tempdir()?;
    let tls = FaultProxy::start_tls(world.s3.url(), directory.path()).await?;
    for (storage, proxy, fix) in [
        (
            world.storage_at("http://127.0.0.1:1"),
            None,
            "network policies",
        ),
        (
            world.storage_at("http://no-such-store.invalid"),
            None,
            "DNS",
        ),
        (world.storage_at(tls.url()), None, "caConfigMap"),
        (
            world.storage_at("http://store.invalid"),
            Some("http://me:planted-proxy-password@127.0.0.1:1"),
            "the proxy 127.0.0.1:1 of HTTP_PROXY",
        ),
    ] {
        let mut job = doctor(&world, &storage);
        if let Some(proxy) = proxy {
            // The API server is still reached directly.
            let server = world.cluster.url();
            let host = server.trim_start_matches("https://").split(':').next();
            job = job
                .variable("HTTP_PROXY", proxy)
                .variable("NO_PROXY", host.unwrap_or_default());
        }
        let checks = examine(&job, 1).await?;
        are(&checks, Verdict::Failed, &["storage-list"])?;
        says(&checks, "storage-list", "", fix)?;
        are(&checks, Verdict::Skipped, &PROBED[1..])?;
        are(&checks, Verdict::Ok, &["api-server", "snapshot-classes"])?;
        ensure!(!format!("{checks:?}").contains("planted"), "{checks:?}");
    }
    let missing = format!(
        "s3://no-such-bucket-here/p?endpoint={}&path-style=true",
        world.s3.url()
    );
    let checks = examine(&doctor(&world, &missing), 1).await?;
    says(&checks, "storage-list", "", "create the bucket")?;
    Ok(())
}

async fn locked() -> Result<()> {
    let world = World::new("doctor-kept").await?;
    let name = format!("doctor-locked-{}", std::process::id());
    let bucket = world.s3.versioned_bucket(&name, true).await?;
    let retention = DefaultRetention::builder()
        .mode(ObjectLockRetentionMode::Governance)
        .days(1)
        .build();
    let lock = ObjectLockConfiguration::builder()
        .object_lock_enabled(ObjectLockEnabled::Enabled)
        .rule(
            ObjectLockRule::builder()
                .default_retention(retention)
                .build(),
        )
        .build();
    let configured = bucket
        .client()
        .put_object_lock_configuration()
        .bucket(&name)
        .object_lock_configuration(lock);
    configured.send().await.context("locking the bucket")?;
    let proxy = FaultProxy::start(world.s3.url()).await?;
    let storage = format!(
        "s3://{name}/p?endpoint={}&path-style=true&region=us-east-1",
        proxy.url()
    );
    let checks = examine(&doctor(&world, &storage), 0).await?;
    are(&checks, Verdict::Warning, &["storage-delete"])?;
    says(&checks, "storage-delete", "object lock keeps it until", "")?;
    are(&checks, Verdict::Skipped, &["throughput"])?;
    says(&checks, "object-lock", "GOVERNANCE, 1 days", "")?;

    Ok(())
}

async fn ec2() -> Result<()> {
    let world = World::new("doctor-ec2").await?;
    let moto = MotoServer::start().await?;
    let text = include_str!("../../manifests/iam-policy.json");
    let policy: Value = serde_json::from_str(text)?;
    let iam = Iam { url: moto.url() };
    let (id, secret) = iam.user("ark").await?;
    iam.allow("ark", text).await?;
    iam.enforce(true).await?;
    let directory = tempfile::tempdir()?;
    let storage = format!("file://{}", directory.path().display());
    let arguments = ["doctor", "-o", "json", "--ec2", "--storage", &storage];
    let job = ArkJob::new(world.cluster.kubeconfig(), &arguments)
        .variable("AWS_ENDPOINT_URL_EC2", moto.url())
        .variable("AWS_REGION", s3::REGION)
        .variable("AWS_ACCESS_KEY_ID", &id)
        .variable("AWS_SECRET_ACCESS_KEY", &secret);
    let checks = examine(&job, 0).await?;
    are(
        &checks,
        Verdict::Ok,
        &["ec2", "storage-put", "storage-delete"],
    )?;
    are(
        &checks,
        Verdict::Skipped,
        &["versioning", "object-lock", "compare-and-swap"],
    )?;

    // Without two of them.
    let mut less = policy.clone();
    less["Statement"][0]["Action"] = json!([
        "ec2:DescribeVolumes",
        "ec2:DescribeSnapshots",
        "ec2:DeleteSnapshot"
    ]);
    iam.enforce(false).await?;
    iam.allow("ark", &less.to_string()).await?;
    iam.enforce(true).await?;
    let checks = examine(&job, 1).await?;
    are(&checks, Verdict::Failed, &["ec2"])?;
    says(
        &checks,
        "ec2",
        "not allowed: ec2:CreateSnapshot, ec2:CreateVolume, ec2:DeleteVolume",
        "allow ec2:CreateSnapshot",
    )?;
    iam.enforce(false).await?;
    let made = ark_tests::ec2::Ec2::new(moto.url()).snapshots().await?;
    ensure!(made.is_empty(), "a dry run makes nothing");
    Ok(())
}

/// The plugin, with access to the S3 server of the tests.
fn with_keys(command: Result<Command>) -> Result<Command> {
    let mut command = command?;
    command.envs(s3::environment());
    Ok(command)
}

async fn locally() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;

    let world = World::new("doctor-local").await?;
    let directory = tempfile::tempdir()?;
    let archive = directory.path().join("a.tar.gz");
    let kubeconfig = world.cluster.kubeconfig();
    let namespace = world.namespace("none").await?;
    let local = format!(
        "doctor --local -n {namespace} --storage {}",
        world.storage()
    );
    let line = format!("{local} -o json --bundle={}", archive.display());
    let said = run(with_keys(outside(kubeconfig, &line))).await?;
    ensure!(said.code == Some(0), "{said:?}");
    let document: Value = serde_json::from_str(&said.stdout)?;
    ensure!(
        document["healthy"] == true && document["failed"] == 0,
        "{document}"
    );
    let mode = std::fs::metadata(&archive)?.permissions().mode();
    ensure!(mode & 0o777 == 0o600, "{mode:o}");
    let files = unpacked(&archive)?;
    let manifest: Value = serde_json::from_str(&files["ark-bundle/manifest.json"])?;
    let inside = manifest["inside"].as_array().context("a list")?;
    ensure!(inside.len() == files.len() - 1, "{manifest}");
    ensure!(manifest["leftOut"][0]["what"] == "Secrets", "{manifest}");
    ensure!(files.contains_key("ark-bundle/doctor.json"));

    // Not over another.
    let said = run(with_keys(outside(kubeconfig, &line))).await?;
    said.explains_error(&["there is such a file"])?;

    let said = run(with_keys(outside(kubeconfig, &local))).await?;
    ensure!(said.code == Some(0), "{said:?}");
    ensure!(said.stdout.starts_with("CHECK  "), "{said:?}");
    ensure!(
        said.stdout
            .lines()
            .any(|line| line.split_whitespace().take(2).eq(["storage-put", "ok"])),
        "{said:?}"
    );
    ensure!(said.stderr.contains(" checks: "), "{said:?}");

    // Without Ark and without --local, that is what is said first.
    let line = format!("doctor -n {namespace}");
    let said = run(outside(kubeconfig, &line)).await?;
    ensure!(said.code == Some(1), "{said:?}");
    let failed = first_failed(&said.stdout)?;
    ensure!(
        failed.starts_with("installed ") && failed.contains("PodTemplate ark"),
        "{said:?}"
    );
    Ok(())
}

fn first_failed(table: &str) -> Result<&str> {
    let found = table.lines().find(|line| line.contains("   failed   "));
    found.with_context(|| format!("nothing has failed: {table}"))
}

/// The files of an archive, by name.
fn unpacked(path: &Path) -> Result<BTreeMap<String, String>> {
    let file = std::fs::File::open(path)?;
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let mut files = BTreeMap::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.display().to_string();
        let mut content = String::new();
        entry.read_to_string(&mut content)?;
        files.insert(name, content);
    }
    Ok(files)
}

/// Ark's namespace here: pods settings of its own, beside those of the other scenarios.
const NAMESPACE: &str = "ark-doctor";
/// What must come out nowhere, in plain text and as base64.
const PLANTED: [(&str, &str); 5] = [
    (
        "planted-secret-access-key",
        "cGxhbnRlZC1zZWNyZXQtYWNjZXNzLWtle",
    ),
    ("planted-session-token", "cGxhbnRlZC1zZXNzaW9uLXRva2Vu"),
    ("planted-proxy-password", "cGxhbnRlZC1wcm94eS1wYXNzd29yZ"),
    (
        "planted-in-the-application",
        "cGxhbnRlZC1pbi10aGUtYXBwbGljYXRpb2",
    ),
    ("planted-signature", "cGxhbnRlZC1zaWduYXR1cm"),
];

/// Nothing that was planted is in a text.
fn is_clean(what: &str, text: &str) -> Result<()> {
    for (plain, encoded) in PLANTED {
        for planted in [plain, encoded] {
            let Some(at) = text.find(planted) else {
                continue;
            };
            let around = text.get(at.saturating_sub(200)..(at + 60).min(text.len()));
            anyhow::bail!("{planted} is in {what}: …{}…", around.unwrap_or_default());
        }
    }
    Ok(())
}

fn credentials(session: bool, secret_key: &str) -> String {
    let token = match session {
        true => "aws_session_token = planted-session-token\n",
        false => "",
    };
    let id = s3::ACCESS_KEY_ID;
    format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret_key}\n{token}")
}

/// Everything that the plugin has said, at its most talkative.
async fn said(ark: &Ark, code: i32, line: &str, all: &mut Vec<(String, String)>) -> Result<Said> {
    let mut command = ark.command(line)?;
    command.env("RUST_LOG", "trace").env("RUST_BACKTRACE", "1");
    command.args(["-n", NAMESPACE]);
    let said = run(Ok(command)).await?;
    all.push((
        format!("what `kubectl ark {line}` says"),
        format!("{said:?}"),
    ));
    ensure!(said.code == Some(code), "kubectl ark {line}: {said:?}");
    Ok(said)
}

async fn planted_secrets_come_out_nowhere() -> Result<()> {
    let ark = plugin::ark().await?;
    let proxy = "http://ark:planted-proxy-password@127.0.0.1:1";
    let flags =
        format!("--restore-rights standing --env HTTPS_PROXY={proxy} --env NO_PROXY=10.0.0.0/8");
    // A second installation, with rights of its own.
    let storage = plugin::storage(
        "doctor",
        &ark.cluster.expose(crate::world::s3().await?.url())?,
    );
    let line = format!("install -n {NAMESPACE} --image {IMAGE} --storage {storage} {flags}");
    ark.expect(0, &line).await?;
    let secret = |name: &str, namespace: &str, key: &str, value: &str| {
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace},
            "stringData": {key: value}})
    };
    let good = credentials(false, s3::SECRET_ACCESS_KEY);
    let bad = credentials(true, "planted-secret-access-key");
    apply(&ark.cluster, &secret("good", NAMESPACE, "cloud", &good))?;
    apply(&ark.cluster, &secret("bad", NAMESPACE, "cloud", &bad))?;
    let endpoint = ark.cluster.expose(crate::world::s3().await?.url())?;
    let at = |endpoint: &str| plugin::storage("doctor", endpoint);
    for (name, url, secret) in [
        ("default", at(&endpoint), "good"),
        ("denied", at(&endpoint), "bad"),
        ("away", at("https://store.invalid:9"), "bad"),
        (
            "signed",
            format!("{}&X-Amz-Signature=planted-signature", at(&endpoint)),
            "good",
        ),
    ] {
        apply(
            &ark.cluster,
            &json!({"apiVersion": "ark.heptio.com/v1", "kind": "BackupStorageLocation",
                "metadata": {"name": name, "namespace": NAMESPACE},
                "spec": {"url": url, "credentialSecret": secret, "accessMode": "ReadWrite"}}),
        )?;
    }
    trifle(&ark.cluster, "doctors-shop")?;
    let planted = secret(
        "application",
        "doctors-shop",
        "password",
        "planted-in-the-application",
    );
    apply(&ark.cluster, &planted)?;

    let mut all = Vec::new();
    // All is well, says a pod, and one of a location that refuses, or is not there, says so.
    let archive = tempfile::tempdir()?;
    let path = archive.path().join("bundle.tar.gz");
    let checked = said(ark, 0, "doctor", &mut all).await?;
    ensure!(
        checked
            .stdout
            .lines()
            .any(|line| line.split_whitespace().take(2).eq(["pod", "ok"])),
        "{checked:?}"
    );
    let denied = said(ark, 1, "doctor --location denied", &mut all).await?;
    ensure!(
        first_failed(&denied.stdout)?.starts_with("storage-list "),
        "{denied:?}"
    );
    let away = said(ark, 1, "doctor --location away -o yaml", &mut all).await?;
    ensure!(
        away.stdout.contains("the proxy 127.0.0.1:1 of HTTPS_PROXY"),
        "{away:?}"
    );
    let signed = said(ark, 1, "doctor --location signed", &mut all).await?;
    ensure!(
        first_failed(&signed.stdout)?.starts_with("location "),
        "{signed:?}"
    );

    // A ReadOnly place is not written to, also by its URL.
    let proxy = FaultProxy::start(crate::world::s3().await?.url()).await?;
    let read_only = plugin::storage("doctor-read-only", &ark.cluster.expose(proxy.url())?);
    apply(
        &ark.cluster,
        &json!({"apiVersion": "ark.heptio.com/v1", "kind": "BackupStorageLocation",
            "metadata": {"name": "read-only", "namespace": NAMESPACE},
            "spec": {"url": read_only, "credentialSecret": "good", "accessMode": "ReadOnly"}}),
    )?;
    let looked = said(ark, 0, "doctor --location read-only -o json", &mut all).await?;
    let document: Value = serde_json::from_str(&looked.stdout)?;
    let result = |name: &str| {
        let checks = document["checks"].as_array().into_iter().flatten();
        let found = checks.into_iter().find(|check| check["check"] == name);
        found.map_or(Value::Null, |check| check["result"].clone())
    };
    ensure!(result("mode") == "warning", "{document}");
    ensure!(result("storage-list") == "ok", "{document}");
    for name in &PROBED[1..] {
        ensure!(result(name) == "skipped", "{name}: {document}");
    }
    ensure!(proxy.count(Request::is_write) == 0);

    // A good backup and a restore, and those that fail.
    let include = "--include-namespaces doctors-shop";
    said(
        ark,
        0,
        &format!("backup create first {include} --wait"),
        &mut all,
    )
    .await?;
    for location in ["denied", "away", "signed"] {
        let line = format!("backup create {location} --location {location} {include}");
        let mut command = ark.command(&line)?;
        command.args(["-n", NAMESPACE]);
        let said = run(Ok(command)).await?;
        all.push((line, format!("{said:?}")));
    }
    let mapped = "--namespace-mappings doctors-shop:doctors-shop-2";
    said(
        ark,
        0,
        &format!("restore create first {mapped} --wait"),
        &mut all,
    )
    .await?;
    said(ark, 0, "sync --wait", &mut all).await?;
    let get = |what: &str| kubectl(&ark.cluster, &format!("get {what} -n {NAMESPACE} -o json"));
    for location in ["denied", "away", "signed"] {
        let failed = format!("an attempt of backup {location} to fail");
        wait_until(&failed, Duration::from_secs(180), async || {
            let job: Value = serde_json::from_str(&get(&format!("job backup-{location}"))?)?;
            Ok((job["status"]["failed"].as_u64() > Some(0)).then_some(()))
        })
        .await?;
    }
    for line in [
        "backup describe first",
        "backup logs first",
        "backup logs denied",
        "backup logs away",
        "backup get -o yaml",
        "restore get -o json",
    ] {
        let mut command = ark.command(line)?;
        command.args(["-n", NAMESPACE]);
        all.push((line.to_owned(), format!("{:?}", run(Ok(command)).await?)));
    }
    said(
        ark,
        0,
        &format!("doctor --bundle={}", path.display()),
        &mut all,
    )
    .await?;

    for pod in get("pods").and_then(|pods| Ok(serde_json::from_str::<Value>(&pods)?))?["items"]
        .as_array()
        .context("a list")?
    {
        let name = pod["metadata"]["name"].as_str().context("a name")?;
        let log = match kubectl(&ark.cluster, &format!("logs {name} -n {NAMESPACE}")) {
            Ok(log) => log,
            // One that was held is being removed meanwhile.
            Err(error) if format!("{error:#}").contains("NotFound") => continue,
            // The next attempt of one that failed has said nothing yet.
            Err(error) if format!("{error:#}").contains("is waiting to start") => continue,
            Err(error) => return Err(error),
        };
        all.push((format!("the log of pod {name}"), log));
        all.push((
            format!("the status of pod {name}"),
            pod["status"].to_string(),
        ));
    }
    for what in [
        "backups.ark.heptio.com",
        "restores.ark.heptio.com",
        "configmaps",
        "events",
    ] {
        all.push((what.to_owned(), get(what)?));
    }
    let files = unpacked(&path)?;
    for name in [
        "ark/podtemplates.yaml",
        "ark/jobs.yaml",
        "ark/locations.yaml",
        "ark/backups.yaml",
        "doctor.json",
    ] {
        ensure!(
            files.contains_key(&format!("ark-bundle/{name}")),
            "{:?}",
            files.keys()
        );
    }
    ensure!(
        files
            .keys()
            .any(|name| name.starts_with("ark-bundle/logs/backup-denied")),
        "{:?}",
        files.keys()
    );
    ensure!(files["ark-bundle/ark/podtemplates.yaml"].contains("REPLACED@127.0.0.1:1"));
    all.extend(
        files
            .into_iter()
            .map(|(name, text)| (format!("{name} of the archive"), text)),
    );
    ensure!(
        all.iter()
            .any(|(what, _)| what.starts_with("the log of pod backup-away")),
        "the logs of failed backups are among what is looked through"
    );
    for (what, text) in &all {
        is_clean(what, text)?;
    }

    // A pod that cannot be created is the first that is said.
    apply(
        &ark.cluster,
        &json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none", "namespace": NAMESPACE},
            "spec": {"hard": {"pods": "0"}}}),
    )?;
    wait_until(
        "the quota to be enforced",
        Duration::from_secs(60),
        async || {
            let quota: Value = serde_json::from_str(&get("resourcequota none")?)?;
            Ok((quota["status"]["hard"]["pods"] == "0").then_some(()))
        },
    )
    .await?;
    let refused = said(ark, 1, "doctor", &mut all).await?;
    let failed = first_failed(&refused.stdout)?;
    ensure!(
        failed.starts_with("pod ") && failed.contains("quota"),
        "{refused:?}"
    );
    ensure!(
        refused.stdout.contains("  fix: make room in the quota"),
        "{refused:?}"
    );
    kubectl(
        &ark.cluster,
        &format!("delete namespace {NAMESPACE} doctors-shop doctors-shop-2 --wait=false"),
    )?;
    Ok(())
}
