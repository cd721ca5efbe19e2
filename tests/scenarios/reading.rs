//! Reading a backup back: download, log and list of contents, by real pods from real S3, also when something breaks.
//!
//! Shares the cluster of `plugin`, in which Ark is installed. Each scenario has a location of its own.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ark_tests::foreign::{ForeignBackup, Maker, gzip};
use ark_tests::job::ArkJob;
use ark_tests::proxy::Added;
use ark_tests::{ControlPlane, FaultProxy, Options, Rule, job, process, s3, wait_until};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ObjectMeta, PostParams};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::backup::read;
use crate::plugin::{
    ARK, Ark, Running, Said, apply, ark, bucket, kubectl, outside, run, storage, trifle,
};
use crate::world::{self, World, node_scenario, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        node_scenario(
            "reading::a_download_is_the_stored_archive_byte_for_byte",
            a_download_is_the_stored_archive,
        ),
        node_scenario(
            "reading::damage_on_the_way_from_the_bucket_leaves_no_file",
            damage_leaves_no_file,
        ),
        node_scenario(
            "reading::a_pod_that_is_gone_in_the_middle_leaves_no_file",
            a_broken_stream_leaves_no_file,
        ),
        node_scenario(
            "reading::ctrl_c_leaves_no_file_and_no_job",
            ctrl_c_leaves_no_file_and_no_job,
        ),
        node_scenario(
            "reading::the_log_of_a_backup_outlives_its_pod",
            the_log_of_a_backup_outlives_its_pod,
        ),
        node_scenario(
            "reading::the_log_of_a_failure_outlives_its_pod_until_a_retry_succeeds",
            the_log_of_a_failure_outlives_its_pod,
        ),
        node_scenario(
            "reading::details_are_listed_without_reading_the_archive",
            details_without_the_archive,
        ),
        node_scenario(
            "reading::who_may_not_execute_in_pods_learns_which_right_is_missing",
            a_missing_right_is_named,
        ),
        node_scenario(
            "reading::an_image_that_cannot_be_pulled_is_told_and_its_job_removed",
            an_image_that_cannot_be_pulled,
        ),
        scenario(
            "reading::local_backups_are_read_without_a_cluster",
            local_backups_are_read_without_a_cluster,
        ),
        scenario(
            "reading::backups_of_velero_and_original_ark_are_described_as_theirs",
            foreign_backups_are_described,
        ),
        scenario(
            "reading::ark_job_fetches_each_file_as_it_is_stored",
            ark_job_fetches_each_file,
        ),
        scenario(
            "reading::memory_does_not_grow_with_the_archive",
            memory_does_not_grow,
        ),
        scenario(
            "reading::progress_is_written_at_most_every_two_seconds",
            progress_at_most_every_two_seconds,
        ),
    ]
}

/// A location behind a fault proxy.
async fn behind_proxy(ark: &Ark, name: &str) -> Result<FaultProxy> {
    let proxy = FaultProxy::start(world::s3().await?.url()).await?;
    ark.location(name, &storage(name, &ark.cluster.expose(proxy.url())?))?;
    Ok(proxy)
}

/// A namespace with one small object, backed up into the location of the same name.
async fn backed_up(ark: &Ark, name: &str) -> Result<()> {
    trifle(&ark.cluster, name)?;
    create(ark, name).await
}

async fn create(ark: &Ark, name: &str) -> Result<()> {
    let line = format!("backup create {name} --location {name} --include-namespaces {name} --wait");
    ark.expect(0, &line).await.map(drop)
}

/// Bytes of a stored file of the backup and location of that name.
async fn stored(name: &str, file: &str) -> Result<Vec<u8>> {
    let key = format!("{name}/backups/{name}/{name}{file}");
    Ok(bucket().await?.get(&key).await?.to_vec())
}

/// That nothing is left of the readers of this backup.
/// Nothing is left of what read a backup: no Job at once, and no pod as soon as it has been given up.
async fn no_job(ark: &Ark, backup: &str) -> Result<()> {
    let selector = format!("ark.heptio.com/operation=fetch,ark.heptio.com/backup={backup}");
    let jobs = ark.get(&format!("jobs -l {selector}"))?;
    ensure!(jobs["items"] == json!([]), "left: {jobs:#}");
    wait_until("the pods to be gone", Duration::from_secs(60), async || {
        let pods = ark.get(&format!("pods -l {selector}"))?;
        Ok((pods["items"] == json!([])).then_some(()))
    })
    .await
}

fn files(directory: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(directory)?;
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

fn download(ark: &Ark, name: &str, directory: &Path, flags: &str) -> Result<Command> {
    let target = directory.join(format!("{name}.tar.gz"));
    ark.command(&format!(
        "backup download {name} -o {} {flags}",
        target.display()
    ))
}

fn is_archive_read(request: &ark_tests::proxy::Request) -> bool {
    request.method == "GET" && request.path.ends_with(".tar.gz")
}

/// The archive as a whole; of its end alone the footer is read.
fn is_whole_archive_read(request: &ark_tests::proxy::Request) -> bool {
    is_archive_read(request) && !request.headers.contains_key("range")
}

async fn a_download_is_the_stored_archive() -> Result<()> {
    let ark = ark().await?;
    trifle(&ark.cluster, "big")?;
    // Hardly compressible, and enough for an archive of several parts.
    let random = "import base64,os; print(base64.b64encode(os.urandom(600_000)).decode())";
    for n in 0..16 {
        let text = process::output(Command::new("python3").args(["-c", random]))?;
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": format!("big-{n}"), "namespace": "big" },
            "data": { "text": text.trim() },
        });
        let line = ["apply", "--server-side", "-f", "-"];
        ark.cluster.kubectl_with_input(&line, &object.to_string())?;
    }
    let _proxy = behind_proxy(ark, "big").await?;
    create(ark, "big").await?;
    let archive = stored("big", ".tar.gz").await?;
    ensure!(archive.len() > 8 << 20, "only {} bytes", archive.len());

    let directory = tempfile::tempdir()?;
    let target = directory.path().join("big.tar.gz");
    let said = run(download(ark, "big", directory.path(), "")).await?;
    ensure!(
        said.code == Some(0) && said.stdout.contains("every byte checked"),
        "{said:?}"
    );
    ensure!(std::fs::read(&target)? == archive, "other bytes");
    ensure!(files(directory.path())? == ["big.tar.gz"]);
    // A lone archive is all that a stranger's reader needs.
    let names = read(&target)?;
    ensure!(names.contains("configmaps big big-15") && names.contains("configmaps big trifle"));
    no_job(ark, "big").await?;

    // What is there stays, unless it is to be overwritten.
    std::fs::write(&target, "mine")?;
    let said = run(download(ark, "big", directory.path(), "")).await?;
    ensure!(said.code == Some(2), "{said:?}");
    said.explains(&["big.tar.gz exists"], "--force")?;
    ensure!(std::fs::read(&target)? == b"mine");
    let said = run(download(ark, "big", directory.path(), "--force")).await?;
    ensure!(said.code == Some(0), "{said:?}");
    ensure!(std::fs::read(&target)? == archive, "other bytes");

    // To a pipe.
    let mut piped = tokio::process::Command::from(ark.command("backup download big -o -")?);
    let output = piped.stdin(Stdio::null()).output().await?;
    ensure!(output.status.success(), "{output:?}");
    ensure!(output.stdout == archive, "other bytes in the pipe");
    no_job(ark, "big").await
}

/// The download ends so, and leaves nothing.
async fn left_nothing(
    ark: &Ark,
    name: &str,
    said: &Said,
    code: i32,
    directory: &Path,
) -> Result<()> {
    ensure!(said.code == Some(code), "{said:?}");
    let left = files(directory)?;
    ensure!(left.is_empty(), "{left:?} is left");
    no_job(ark, name).await
}

async fn damage_leaves_no_file() -> Result<()> {
    let ark = ark().await?;
    let proxy = behind_proxy(ark, "damaged").await?;
    backed_up(ark, "damaged").await?;
    let directory = tempfile::tempdir()?;
    let archive = stored("damaged", ".tar.gz").await?;

    // On the way from the bucket to the pod.
    let flipped = proxy.add(Rule::on(is_whole_archive_read).flip_bit(archive.len() as u64 / 4));
    let said = run(download(ark, "damaged", directory.path(), "")).await?;
    ensure!(flipped.applied() >= 1, "nothing was flipped");
    left_nothing(ark, "damaged", &said, 5, directory.path()).await?;
    said.explains_error(&["damaged", "SHA-256"])?;
    let piped = ark.expect(5, "backup download damaged -o -").await?;
    ensure!(piped.stdout.is_empty(), "damaged bytes were printed");
    proxy.clear_rules();

    // In the bucket, each kind of file.
    let bucket = bucket().await?;
    for (file, read) in [
        (
            ".tar.gz",
            format!(
                "backup download damaged -o {}/x",
                directory.path().display()
            ),
        ),
        (
            "-resource-list.json.gz",
            "backup describe damaged --details".into(),
        ),
    ] {
        let key = format!("damaged/backups/damaged/damaged{file}");
        let good = bucket.get(&key).await?;
        let mut bad = good.to_vec();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        bucket.put(&key, bad).await?;
        let said = ark.expect(5, &read).await?;
        left_nothing(ark, "damaged", &said, 5, directory.path()).await?;
        bucket.put(&key, good[..good.len() - 1].to_vec()).await?;
        ark.expect(5, &read).await?;
        bucket.put(&key, good).await?;
    }
    ark.expect(
        10,
        "backup download nobodys --location damaged -o /tmp/nobodys",
    )
    .await?;
    ensure!(!Path::new("/tmp/nobodys").exists());
    no_job(ark, "nobodys").await
}

/// A download whose pod waits for the archive for a long time.
async fn hanging(ark: &Ark, name: &str, directory: &Path) -> Result<(FaultProxy, Running)> {
    let proxy = behind_proxy(ark, name).await?;
    backed_up(ark, name).await?;
    let held: Added = proxy.add(Rule::on(is_whole_archive_read).delay(Duration::from_secs(120)));
    let running = Running::start(download(ark, name, directory, ""))?;
    wait_until(
        "the archive to be asked for",
        Duration::from_secs(60),
        async || Ok((held.applied() >= 1).then_some(())),
    )
    .await?;
    Ok((proxy, running))
}

async fn a_broken_stream_leaves_no_file() -> Result<()> {
    let ark = ark().await?;
    let directory = tempfile::tempdir()?;
    let (_proxy, running) = hanging(ark, "broken", directory.path()).await?;
    let selector = "ark.heptio.com/operation=fetch,ark.heptio.com/backup=broken";
    ark.delete(&format!("pods -l {selector} --grace-period=0 --force"))?;
    let said = running.end().await?;
    left_nothing(ark, "broken", &said, 1, directory.path()).await
}

async fn ctrl_c_leaves_no_file_and_no_job() -> Result<()> {
    let ark = ark().await?;
    let directory = tempfile::tempdir()?;
    let (_proxy, running) = hanging(ark, "given-up", directory.path()).await?;
    running.interrupt()?;
    let said = running.end().await?;
    left_nothing(ark, "given-up", &said, 130, directory.path()).await?;
    ensure!(said.stderr.contains("nothing is saved"), "{said:?}");
    Ok(())
}

/// Deletes a Job and waits until its pods are gone.
async fn delete_with_pods(ark: &Ark, job: &str) -> Result<()> {
    ark.delete(&format!("job {job}"))?;
    wait_until("the pods to be gone", Duration::from_secs(60), async || {
        Ok(ark.pods(job).await?.is_empty().then_some(()))
    })
    .await
}

async fn the_log_of_a_backup_outlives_its_pod() -> Result<()> {
    let ark = ark().await?;
    let _proxy = behind_proxy(ark, "logged").await?;
    backed_up(ark, "logged").await?;
    let first = ark.expect(0, "backup logs logged").await?.stdout;
    delete_with_pods(ark, "backup-logged").await?;
    let second = ark.expect(0, "backup logs logged").await?.stdout;
    ensure!(second.contains("level=info"), "{second:?}");
    ensure!(
        first.starts_with(&second),
        "{second:?}\nis not the beginning of\n{first:?}"
    );
    no_job(ark, "logged").await?;
    // Also without a record.
    ark.delete("backup.ark.heptio.com logged")?;
    ark.expect(10, "backup logs logged").await?;
    let third = ark
        .expect(0, "backup logs logged --location logged")
        .await?;
    ensure!(third.stdout == second, "{third:?}");
    Ok(())
}

async fn the_log_of_a_failure_outlives_its_pod() -> Result<()> {
    let ark = ark().await?;
    let proxy = behind_proxy(ark, "failing").await?;
    trifle(&ark.cluster, "failing")?;
    let refusal = "<Error><Code>AccessDenied</Code><Message>not today</Message></Error>";
    proxy.add(
        Rule::on(|request| request.is_write() && request.path.ends_with(".tar.gz")).answer(
            403,
            &[("content-type", "application/xml")],
            refusal,
        ),
    );
    ark.expect(
        0,
        "backup create failing --location failing --include-namespaces failing",
    )
    .await?;
    let kept = "configmap ark-log-failing";
    let map: Value = wait_until("the log to be kept", Duration::from_secs(90), async || {
        Ok(Some(ark.get(kept)?))
    })
    .await?;
    // No attempt may follow: it would be a log of its own.
    delete_with_pods(ark, "backup-failing").await?;
    ensure!(ark.phase("backup", "failing")? == "Failed");
    let labels = &map["metadata"]["labels"];
    ensure!(
        labels["ark.heptio.com/backup"] == "failing"
            && labels["ark.heptio.com/operation"] == "backup"
            && labels["ark.heptio.com/exclude-from-backup"] == "true",
        "{labels:#}"
    );
    let reason = map["data"]["reason"].as_str().context("a reason")?;
    let said = ark.expect(0, "backup logs failing").await?;
    ensure!(
        said.stdout.contains("level=error") && reason.contains("not today"),
        "{reason:?} {said:?}"
    );
    ensure!(
        said.stdout.ends_with(&format!("\nerror: {reason}\n"))
            && said
                .stdout
                .trim_end()
                .lines()
                .rev()
                .skip(1)
                .all(|line| line.starts_with("time=")),
        "{said:?}"
    );
    no_job(ark, "failing").await?;

    // A backup of Ark's own namespace does not hold it.
    let all = format!("backup create of-ark --location failing --include-namespaces {ARK} --wait");
    proxy.clear_rules();
    ark.expect(0, &all).await?;
    let listed = ark.expect(0, "backup describe of-ark --details").await?;
    ensure!(
        listed.stdout.contains(&format!("{ARK}/ark\n"))
            && !listed.stdout.contains("ark-log-failing"),
        "{listed:?}"
    );

    // Success under that name takes it away.
    create(ark, "failing").await?;
    ensure!(ark.get(kept).is_err(), "it is still there");
    let said = ark.expect(0, "backup logs failing").await?;
    ensure!(!said.stdout.contains("level=error"), "{said:?}");
    Ok(())
}

async fn details_without_the_archive() -> Result<()> {
    let ark = ark().await?;
    let proxy = behind_proxy(ark, "listed").await?;
    trifle(&ark.cluster, "listed")?;
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": "listed"},
        "spec": {"storageClassName": "of-another-cluster", "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}},
    });
    ark.cluster
        .kubectl_with_input(&["create", "-f", "-"], &claim.to_string())?;
    create(ark, "listed").await?;
    proxy.clear_requests();
    // Ages change while we look.
    let ageless = |text: String| -> String {
        let lines = text.split_inclusive('\n');
        lines
            .filter(|line| !line.starts_with("Started:") && !line.starts_with("Expires:"))
            .collect()
    };
    let plain = ageless(ark.expect(0, "backup describe listed").await?.stdout);
    ensure!(proxy.requests().is_empty(), "storage was asked");
    let details = ark
        .expect(0, "backup describe listed --details")
        .await?
        .stdout;
    let details = ageless(details);
    let list = details
        .strip_prefix(&plain)
        .with_context(|| format!("{plain:?}\nis not the beginning of\n{details:?}"))?;
    for text in [
        "\nResource list:\n",
        "  v1/ConfigMap (2)\n    listed/kube-root-ca.crt\n    listed/trifle\n",
        "  v1/Namespace (1)\n    listed\n",
    ] {
        ensure!(list.contains(text), "no {text:?} in {list}");
    }
    let asked = proxy.requests();
    ensure!(
        asked
            .iter()
            .any(|request| request.path.contains("resource-list")),
        "{asked:?}"
    );
    let of_archive = asked
        .iter()
        .filter(|request| request.path.ends_with(".tar.gz"));
    // Its footer, for the sizes.
    let parts: Vec<_> = of_archive.collect();
    ensure!(
        parts.len() == 1 && !is_whole_archive_read(parts[0]),
        "more of the archive was read than its footer: {parts:?}"
    );
    ensure!(
        list.contains("before compression\n  TYPE ")
            && list.contains("OBJECTS   SIZE\n")
            && line_after(list, "  listed ")
                .is_some_and(|of_namespace| of_namespace.ends_with("B")),
        "{list}"
    );
    let checked = ark.expect(0, "backup describe listed --check").await?;
    let missing = "listed/data: --storage-class-mappings of-another-cluster:ANOTHER\n";
    ensure!(checked.stdout.contains(missing), "{checked:?}");
    no_job(ark, "listed").await?;

    // What is stored describes itself, with no record of it.
    ark.delete("backup.ark.heptio.com listed")?;
    let stored = ark
        .expect(0, "backup describe listed --details --location listed")
        .await?;
    ensure!(
        stored.stdout.contains("Completed") && stored.stdout.ends_with(list),
        "{stored:?}"
    );
    Ok(())
}

async fn a_missing_right_is_named() -> Result<()> {
    let ark = ark().await?;
    let _proxy = behind_proxy(ark, "rights").await?;
    backed_up(ark, "rights").await?;
    let rule = |group: &str, resource: &str, verbs: &[&str]| json!({ "apiGroups": [group], "resources": [resource], "verbs": verbs });
    let metadata = json!({ "name": "reader", "namespace": ARK });
    apply(
        &ark.cluster,
        &json!({ "apiVersion": "v1", "kind": "List", "items": [
            { "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata },
            { "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": [
                rule("ark.heptio.com", "*", &["get", "list"]),
                rule("", "podtemplates", &["get"]),
                rule("", "pods", &["get", "list"]),
                rule("batch", "jobs", &["get", "create", "delete"]),
            ] },
            { "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata,
              "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader" },
              "subjects": [{ "kind": "ServiceAccount", "name": "reader", "namespace": ARK }] },
        ] }),
    )?;
    let token = kubectl(&ark.cluster, &format!("create token reader -n {ARK}"))?;
    let mut config: Value = serde_json::from_str(&kubectl(
        &ark.cluster,
        "config view --raw --flatten -o json",
    )?)?;
    config["users"][0]["user"] = json!({ "token": token.trim() });
    let kubeconfig = tempfile::NamedTempFile::new()?;
    std::fs::write(kubeconfig.path(), config.to_string())?;
    let directory = tempfile::tempdir()?;
    let mut command = download(ark, "rights", directory.path(), "")?;
    command.env("KUBECONFIG", kubeconfig.path());
    let said = run(Ok(command)).await?;
    left_nothing(ark, "rights", &said, 1, directory.path()).await?;
    said.explains(&["pods/exec", ARK, "create and get"], "--local")
}

async fn an_image_that_cannot_be_pulled() -> Result<()> {
    let ark = ark().await?;
    let flags = "--image-pull-policy Never";
    ark.settings("unreadable", "localhost:9/nothing:x", flags)
        .await?;
    let said = ark
        .expect(1, "backup download x -n unreadable -o /tmp/unreadable")
        .await?;
    said.explains(&["pod/fetch-x-", "localhost:9/nothing:x"], "then try again")?;
    let jobs = kubectl(&ark.cluster, "get jobs -n unreadable -o name")?;
    ensure!(jobs.is_empty(), "{jobs}");
    Ok(())
}

async fn foreign_backups_are_described() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let nowhere = Path::new("/no/such/kubeconfig");
    for (maker, name, origin) in [
        (Maker::Velero, "theirs", "Velero"),
        (Maker::Ark10, "late", "original Ark"),
        (Maker::Ark05, "early", "original Ark"),
    ] {
        ForeignBackup::new(maker, name).store(directory.path())?;
        for details in ["", " --details"] {
            let line = format!(
                "backup describe {name}{details} --local --storage file://{}",
                directory.path().display()
            );
            let said = run(outside(nowhere, &line)).await?;
            ensure!(said.code == Some(0), "{said:?}");
            let field = |field: &str| line_after(&said.stdout, field);
            ensure!(
                field("Name:") == Some(name)
                    && field("Phase:") == Some("Completed")
                    && field("Namespace:") == Some("heptio-ark")
                    && field("Made by:") == Some(origin)
                    && field("Expires:").is_some_and(|when| when.starts_with("2037-01-01"))
                    && field("Resource list:")
                        == (!details.is_empty()).then_some("<none>: there is none in storage"),
                "{}",
                said.stdout
            );
        }
    }
    let list = directory
        .path()
        .join("backups/theirs/theirs-resource-list.json.gz");
    std::fs::write(list, gzip(br#"{"v1/Pod":["a/p"]}"#)?)?;
    let line = format!(
        "backup describe theirs --details --local --storage file://{}",
        directory.path().display()
    );
    let said = run(outside(nowhere, &line)).await?;
    ensure!(
        said.code == Some(0) && said.stdout.contains("  v1/Pod (1)\n    a/p\n"),
        "{said:?}"
    );
    Ok(())
}

/// What follows the name of a field.
fn line_after<'a>(page: &'a str, field: &str) -> Option<&'a str> {
    let mut lines = page.lines();
    lines.find_map(|line| line.strip_prefix(field).map(str::trim))
}

async fn local_backups_are_read_without_a_cluster() -> Result<()> {
    let world = World::new("read-local").await?;
    let namespace = world.namespace("app").await?;
    kubectl(
        world.cluster,
        &format!("create configmap kept -n {namespace} --from-literal=a=b"),
    )?;
    let home = tempfile::tempdir()?;
    let local = async |kubeconfig: &Path, line: &str| -> Result<Said> {
        let mut command = outside(kubeconfig, line)?;
        command
            .env("HOME", home.path())
            .current_dir(home.path())
            .arg("--local");
        run(Ok(command)).await
    };
    let create = format!("backup create mine --include-namespaces {namespace}");
    let said = local(world.cluster.kubeconfig(), &create).await?;
    ensure!(said.code == Some(0), "{said:?}");

    let nowhere = Path::new("/no/such/kubeconfig");
    let directory = tempfile::tempdir()?;
    let target = directory.path().join("copy.tar.gz");
    let download = format!("backup download mine -o {}", target.display());
    let said = local(nowhere, &download).await?;
    ensure!(said.code == Some(0), "{said:?}");
    ensure!(read(&target)?.contains(&format!("configmaps {namespace} kept")));
    // Where one is, unless told otherwise.
    let said = local(nowhere, "backup download mine").await?;
    ensure!(said.code == Some(0), "{said:?}");
    let here = home.path().join("mine.tar.gz");
    ensure!(std::fs::read(&here)? == std::fs::read(&target)?);
    ensure!(files(home.path())?.len() == 2, "{:?}", files(home.path())?);
    let said = local(nowhere, "backup describe mine --details").await?;
    ensure!(
        said.code == Some(0) && said.stdout.contains(&format!("    {namespace}/kept\n")),
        "{said:?}"
    );
    let said = local(nowhere, "backup logs mine").await?;
    ensure!(
        said.code == Some(0) && said.stdout.contains("level=info"),
        "{said:?}"
    );
    let said = local(nowhere, "backup download nobodys").await?;
    ensure!(said.code == Some(10), "{said:?}");

    // Any damaged byte of the archive is found, and what was there before stays.
    let stored = home
        .path()
        .join(".kubectl-ark/backups/backups/mine/mine.tar.gz");
    let good = std::fs::read(&stored)?;
    std::fs::write(&target, "before")?;
    for place in [0, good.len() / 3, good.len() - 1200, good.len() - 1] {
        let mut bad = good.clone();
        bad[place] ^= 1;
        std::fs::write(&stored, bad)?;
        let said = local(nowhere, &format!("{download} --force")).await?;
        ensure!(said.code == Some(5), "byte {place}: {said:?}");
        ensure!(std::fs::read(&target)? == b"before", "byte {place}");
    }
    ensure!(files(directory.path())? == ["copy.tar.gz"]);
    Ok(())
}

async fn ark_job_fetches_each_file() -> Result<()> {
    let world = World::new("fetch").await?;
    let namespace = world.namespace("app").await?;
    let proxy = FaultProxy::start(world.s3.url()).await?;
    let storage = world.storage_at(proxy.url());
    let kubeconfig = world.cluster.kubeconfig();
    let create = [
        "backup",
        "one",
        "--storage",
        &storage,
        "--include-namespaces",
        &namespace,
    ];
    ArkJob::new(kubeconfig, &create).expect(0).await?;
    let fetch = async |backup: &str, file: &str| -> Result<std::process::Output> {
        let mut command = tokio::process::Command::new(job::program("ark-job")?);
        command
            .args(["fetch", backup, "--storage", &storage, "--file", file])
            .env("KUBECONFIG", kubeconfig)
            .envs(s3::environment())
            .stdin(Stdio::null());
        Ok(command.output().await?)
    };
    let key = world.key("one");
    for (file, name) in [
        ("archive", "one.tar.gz"),
        ("marker", "ark-backup.json"),
        ("logs", "one-logs.gz"),
        ("resource-list", "one-resource-list.json.gz"),
        ("results", "one-results.gz"),
    ] {
        let output = fetch("one", file).await?;
        ensure!(output.status.code() == Some(0), "{file}: {output:?}");
        let stored = world.bucket.get(&format!("{key}{name}")).await?;
        ensure!(output.stdout == stored, "{file} has other bytes");
        if file == "logs" {
            continue;
        }
        // A marker that is changed is malformed; all else has a digest.
        proxy.clear_requests();
        let matching = name.to_owned();
        let flipped = proxy.add(
            Rule::on(move |request| {
                request.method == "GET"
                    && request.path.ends_with(&matching)
                    && !request.headers.contains_key("range")
            })
            .flip_bit(0),
        );
        let output = fetch("one", file).await?;
        ensure!(flipped.applied() > 0, "{file} was not read");
        ensure!(output.status.code() == Some(5), "{file}: {output:?}");
        proxy.clear_rules();
    }
    let output = fetch("nobodys", "archive").await?;
    ensure!(
        output.status.code() == Some(10) && output.stdout.is_empty(),
        "{output:?}"
    );
    Ok(())
}

/// The peak memory of a command, KiB.
fn peak(command: &[&str], kubeconfig: &Path) -> Result<u64> {
    let measure = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/measure.py");
    let mut measured = Command::new("python3");
    measured
        .arg(measure)
        .args(command)
        .env("KUBECONFIG", kubeconfig);
    let output = process::output(&mut measured)?;
    let used: Value = serde_json::from_str(output.lines().last().context("a line")?)?;
    ensure!(used["code"] == 0, "{command:?}: {used}");
    used["peak_kib"].as_u64().context("a number")
}

async fn memory_does_not_grow() -> Result<()> {
    let world = World::new("read-memory").await?;
    let kubeconfig = world.cluster.kubeconfig();
    let directory = tempfile::tempdir()?;
    let storage = format!("file://{}", directory.path().display());
    let (plugin, ark_job) = (job::program("kubectl-ark")?, job::program("ark-job")?);
    let mut peaks = Vec::new();
    for (name, count) in [("small", 10), ("large", 150)] {
        let namespace = world.namespace(name).await?;
        let maps: Api<ConfigMap> = Api::namespaced(world.client.clone(), &namespace);
        for n in 0..count {
            // Random, so that the archive is half as long.
            let mut bytes = vec![0; 300_000];
            File::open("/dev/urandom")?.read_exact(&mut bytes)?;
            let map = ConfigMap {
                metadata: ObjectMeta {
                    name: Some(format!("m-{n}")),
                    ..ObjectMeta::default()
                },
                data: Some([("text".to_owned(), hex::encode(bytes))].into()),
                ..ConfigMap::default()
            };
            maps.create(&PostParams::default(), &map).await?;
        }
        let create = [
            "backup",
            name,
            "--storage",
            &storage,
            "--include-namespaces",
            &namespace,
        ];
        ArkJob::new(kubeconfig, &create).expect(0).await?;
        let target = directory
            .path()
            .join(format!("{name}.tar.gz"))
            .display()
            .to_string();
        let download = [
            &*plugin.display().to_string(),
            "backup",
            "download",
            name,
            "--local",
            "--storage",
            &storage,
            "-o",
            &target,
        ];
        let downloaded = peak(&download, kubeconfig)?;
        let length = std::fs::metadata(&target)?.len();
        let fetch = format!(
            "exec {} fetch {name} --storage '{storage}' > /dev/null",
            ark_job.display()
        );
        let fetched = peak(&["sh", "-c", &fetch], kubeconfig)?;
        eprintln!("{name}: {length} bytes; download {downloaded} KiB, fetch {fetched} KiB");
        peaks.push((length, downloaded, fetched));
    }
    let [small, large] = peaks[..] else {
        anyhow::bail!("{peaks:?}")
    };
    ensure!(large.0 > 10 * small.0 && large.0 > 40 << 20, "{peaks:?}");
    // A quarter of what the archive has grown would be far too much already.
    let most = 8 << 10;
    ensure!(
        large.1 < small.1 + most && large.2 < small.2 + most,
        "{peaks:?}"
    );
    Ok(())
}

async fn progress_at_most_every_two_seconds() -> Result<()> {
    let cluster = ControlPlane::start(Options::default()).await?;
    let types = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/crds");
    cluster.kubectl(&["apply", "-f", &types.display().to_string()])?;
    let wait = "wait --for=condition=Established --all crd --timeout=30s";
    kubectl(&cluster, wait)?;
    kubectl(&cluster, &format!("create namespace {ARK}"))?;
    let api = FaultProxy::start_before(&cluster).await?;
    let kubeconfig = cluster.kubeconfig_for(api.url())?;
    let s3 = world::s3().await?;
    s3.bucket("progress").await?;
    let store = FaultProxy::start(s3.url()).await?;
    let slow = |seconds| {
        let archive = |request: &ark_tests::proxy::Request| {
            request.is_write() && request.path.ends_with(".tar.gz")
        };
        store.add(Rule::on(archive).delay(Duration::from_secs(seconds)))
    };
    let storage = format!(
        "s3://progress/p?endpoint={}&path-style=true&region=us-east-1",
        store.url()
    );
    let times: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let seen = times.clone();
    api.add(
        Rule::on(|request| request.is_write() && request.path.ends_with("/backups/slow/status"))
            .before(move |_| seen.lock().unwrap().push(Instant::now())),
    );
    slow(9);
    let create = [
        "backup",
        "slow",
        "--storage",
        &storage,
        "--include-namespaces",
        "default",
    ];
    ArkJob::new(&kubeconfig, &create).expect(0).await?;
    let times = times.lock().unwrap().clone();
    // The last one is the outcome.
    let gaps: Vec<Duration> = times[..times.len().saturating_sub(1)]
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .collect();
    ensure!(gaps.len() >= 3, "it was written only {} times", times.len());
    // When they arrive is seen, not when they were sent: a busy machine brings two closer together, but not all of them.
    let span: Duration = gaps.iter().sum();
    ensure!(
        span + Duration::from_secs(2) >= Duration::from_secs(2) * u32::try_from(gaps.len())?,
        "{gaps:?}"
    );

    // One that is interrupted keeps its log, too; a success without a failure before keeps none.
    let maps = || kubectl(&cluster, &format!("get configmaps -n {ARK} -o name"));
    ensure!(!maps()?.contains("ark-log-"), "{}", maps()?);
    store.clear_rules();
    let hangs = slow(60);
    let create = [
        "backup",
        "ended",
        "--storage",
        &storage,
        "--include-namespaces",
        "default",
    ];
    let running = ArkJob::new(&kubeconfig, &create).start()?;
    wait_until("the archive to hang", Duration::from_secs(60), async || {
        Ok((hangs.applied() == 1).then_some(()))
    })
    .await?;
    process::signal(running.id(), rustix::process::Signal::TERM)?;
    let finished = running.wait().await?;
    ensure!(finished.code == Some(130), "{finished:?}");
    let map = kubectl(
        &cluster,
        &format!("get configmap ark-log-ended -n {ARK} -o json"),
    )?;
    let map: Value = serde_json::from_str(&map)?;
    ensure!(
        map["data"]["reason"] == "interrupted before it was complete",
        "{map:#}"
    );
    let said = run(outside(cluster.kubeconfig(), "backup logs ended")).await?;
    ensure!(
        said.code == Some(0) && said.stdout.contains("interrupted before it was complete"),
        "{said:?}"
    );
    Ok(())
}
