//! Backup: what is in it, whose it is, and what is left when it is cut off.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ark_tests::job::{ArkJob, Finished};
use ark_tests::{Bucket, ControlPlane, FaultProxy, Options, Rule, Victim, prerequisites, process};
use bytes::Bytes;
use libtest_mimic::Trial;

use crate::world::{World, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "backup::the_archive_holds_exactly_what_was_there_at_its_revision",
            exact_names,
        ),
        scenario("backup::the_same_job_twice_at_once_is_one_backup", twins),
        scenario(
            "backup::a_name_taken_by_another_job_is_a_conflict",
            name_taken,
        ),
        scenario(
            "backup::a_name_taken_by_another_cluster_is_a_conflict",
            name_taken_by_another_cluster,
        ),
        scenario(
            "backup::a_kill_at_any_write_to_s3_leaves_a_whole_backup_or_none",
            killed_on_s3,
        ),
        scenario(
            "backup::a_kill_at_any_system_call_on_files_leaves_a_whole_backup_or_none",
            killed_on_files,
        ),
        scenario(
            "backup::a_lost_answer_to_any_write_changes_nothing",
            lost_answers,
        ),
        scenario("backup::filters_take_what_they_say", filters),
        scenario(
            "backup::what_cannot_be_listed_makes_it_partial",
            forbidden_type,
        ),
        scenario(
            "backup::storage_that_fails_is_a_clear_error",
            storage_errors,
        ),
        scenario("backup::an_interrupt_ends_it_without_a_trace", interrupted),
    ]
}

/// Objects of several kinds in a namespace of their own, enough for several members and odd names.
pub fn fill(cluster: &ControlPlane, namespace: &str, config_maps: usize) -> Result<()> {
    let mut manifest = String::new();
    for n in 0..config_maps {
        let data = format!("{n}").repeat(200);
        manifest.push_str(&format!(
            "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: cm-{n}, namespace: {namespace}, labels: {{half: \"{}\"}}}}\ndata: {{k: \"{data}\"}}\n",
            n % 2
        ));
    }
    manifest.push_str(&format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {long}, namespace: {namespace}}}\nstringData: {{a: b}}\n\
         ---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: runner, namespace: {namespace}}}\n\
         ---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web, namespace: {namespace}}}\n\
         spec: {{replicas: 0, selector: {{matchLabels: {{a: b}}}}, template: {{metadata: {{labels: {{a: b}}}}, spec: {{containers: [{{name: c, image: i}}]}}}}}}\n\
         ---\napiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {{name: \"role:of:{namespace}\"}}\nrules: []\n\
         ---\napiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {{name: binding-of-{namespace}}}\n\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: \"role:of:{namespace}\"}}\n\
         subjects: [{{kind: ServiceAccount, name: runner, namespace: {namespace}}}]\n",
        long = "n".repeat(250),
    ));
    cluster
        .kubectl_with_input(&["apply", "--server-side", "-f", "-"], &manifest)
        .map(drop)
}

/// A custom resource type of this name, and two objects of it.
async fn add_custom_resource(cluster: &ControlPlane, plural: &str, namespace: &str) -> Result<()> {
    let group = "scenarios.example.com";
    cluster.kubectl_with_input(
        &["apply", "-f", "-"],
        &format!(
            "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: {plural}.{group}}}\n\
             spec: {{group: {group}, scope: Namespaced, names: {{plural: {plural}, singular: {plural}x, kind: {kind}}},\n\
             versions: [{{name: v1, served: true, storage: true, schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}}}]}}\n",
            kind = plural.to_uppercase(),
        ),
    )?;
    cluster.kubectl(&[
        "wait",
        "--for=condition=Established",
        &format!("crd/{plural}.{group}"),
        "--timeout=30s",
    ])?;
    let objects: String = (0..2)
        .map(|n| {
            format!(
                "---\napiVersion: {group}/v1\nkind: {}\nmetadata: {{name: o{n}, namespace: {namespace}}}\nspec: {{n: 1.5e10, text: \"ä\\u0001\"}}\n",
                plural.to_uppercase()
            )
        })
        .collect();
    cluster
        .kubectl_with_input(&["apply", "-f", "-"], &objects)
        .map(drop)
}

/// A backup's files on local disk, wherever it was stored.
pub struct Stored {
    directory: tempfile::TempDir,
    name: String,
}

impl Stored {
    pub async fn fetch(bucket: &Bucket, prefix: &str, name: &str) -> Result<Stored> {
        let directory = tempfile::tempdir()?;
        let root = format!("{prefix}/backups/{name}/");
        let objects = bucket.objects(&root).await?;
        let target = directory.path().join(name);
        std::fs::create_dir(&target)?;
        for (key, bytes) in objects {
            std::fs::write(target.join(key.strip_prefix(&root).unwrap_or(&key)), bytes)?;
        }
        Ok(Stored {
            directory,
            name: name.to_owned(),
        })
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join(&self.name)
    }
}

/// Runs a script that shares no code with the product.
pub fn script(name: &str, arguments: &[&Path]) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("scripts")
        .join(name);
    let python = prerequisites::python()?.join("bin/python");
    process::output(Command::new(python).arg(path).args(arguments))
}

/// The lines `resource namespace name` of what a backup holds, after every byte of it has been checked.
pub fn read(backup: &Path) -> Result<BTreeSet<String>> {
    let lines = script("read_backup.py", &[backup, Path::new("--names")])?;
    Ok(lines.lines().map(str::to_owned).collect())
}

/// Whether a backup's files say that it exists.
pub fn has_marker(keys: impl IntoIterator<Item = impl AsRef<str>>) -> bool {
    keys.into_iter()
        .any(|key| key.as_ref().ends_with("/ark-backup.json"))
}

async fn exact_names() -> Result<()> {
    // Everything is compared, so nobody else may be at work: a cluster of its own.
    let cluster = ControlPlane::start(Options {
        controller_manager: true,
        ..Options::default()
    })
    .await?;
    for namespace in ["a", "a-b", "b"] {
        cluster.kubectl(&["create", "namespace", namespace])?;
        fill(&cluster, namespace, 400)?;
        add_custom_resource(
            &cluster,
            &format!("things{}", namespace.replace('-', "")),
            namespace,
        )
        .await?;
    }
    let directory = tempfile::tempdir()?;
    let storage = format!("file://{}", directory.path().display());
    ArkJob::new(
        cluster.kubeconfig(),
        &["backup", "all", "--storage", &storage],
    )
    .expect(0)
    .await?;
    // What comes after must not be in it, nor be missed.
    cluster.kubectl(&["delete", "configmap", "cm-1", "-n", "a"])?;
    cluster.kubectl(&["create", "configmap", "later", "-n", "a"])?;
    let backup = directory.path().join("backups/all");
    let names = read(&backup)?;
    ensure!(names.contains("configmaps a cm-1") && !names.contains("configmaps a later"));
    ensure!(
        names.contains("thingsab.scenarios.example.com a-b o1"),
        "custom resources are missing"
    );
    let kubectl = cluster.bin().join("kubectl");
    let arguments = [
        Path::new("--kubectl"),
        &kubectl,
        Path::new("--kubeconfig"),
        cluster.kubeconfig(),
        &backup,
    ];
    let report = script("exact_names.py", &arguments)?;
    eprintln!("{}", report.trim());
    Ok(())
}

async fn twins() -> Result<()> {
    let world = World::new("twins").await?;
    let namespace = world.namespace("app").await?;
    fill(world.cluster, &namespace, 50)?;
    let storage = world.storage();
    for round in 0..5 {
        let name = format!("twin-{round}");
        let arguments = [
            "backup",
            &name,
            "--storage",
            &storage,
            "--include-namespaces",
            &namespace,
        ];
        let job = |pod: &str| {
            ArkJob::new(world.cluster.kubeconfig(), &arguments).of(&format!("job-{round}"), pod)
        };
        let (a, b) = (job("pod-a").start()?, job("pod-b").start()?);
        for finished in [a.wait().await?, b.wait().await?] {
            ensure!(finished.code == Some(0), "round {round}: {finished:?}");
        }
        let stored = Stored::fetch(&world.bucket, world.prefix(), &name).await?;
        ensure!(read(&stored.path())?.contains(&format!("configmaps {namespace} cm-49")));
        // A retry of a Job that has done its work does nothing.
        let before = world.bucket.objects(&world.key(&name)).await?;
        job("pod-c").expect(0).await?;
        ensure!(world.bucket.objects(&world.key(&name)).await? == before);
    }
    Ok(())
}

async fn name_taken() -> Result<()> {
    let world = World::new("taken").await?;
    let namespace = world.namespace("app").await?;
    let storage = world.storage();
    let arguments = [
        "backup",
        "first",
        "--storage",
        &storage,
        "--include-namespaces",
        &namespace,
    ];
    let kubeconfig = world.cluster.kubeconfig();
    ArkJob::new(kubeconfig, &arguments)
        .of("job-1", "pod-1")
        .expect(0)
        .await?;
    let before = world.bucket.objects(&world.key("first")).await?;
    let refused = ArkJob::new(kubeconfig, &arguments)
        .of("job-2", "pod-2")
        .expect(11)
        .await?;
    ensure!(
        refused.stderr.contains("backups/first/ is taken"),
        "{refused:?}"
    );
    let keep = [&arguments[..], &["--if-exists", "keep"]].concat();
    ArkJob::new(kubeconfig, &keep)
        .of("job-2", "pod-2")
        .expect(0)
        .await?;
    ensure!(
        world.bucket.objects(&world.key("first")).await? == before,
        "the first backup was touched"
    );
    Ok(())
}

async fn name_taken_by_another_cluster() -> Result<()> {
    let world = World::new("clusters").await?;
    let other = ControlPlane::start(Options::default()).await?;
    let storage = world.storage();
    let arguments = [
        "backup",
        "same",
        "--storage",
        &storage,
        "--include-namespaces",
        "default",
    ];
    // Even the UIDs of the Jobs are the same: the cluster's own identity must tell them apart.
    ArkJob::new(world.cluster.kubeconfig(), &arguments)
        .of("job", "pod")
        .expect(0)
        .await?;
    let before = world.bucket.objects(&world.key("same")).await?;
    let refused = ArkJob::new(other.kubeconfig(), &arguments)
        .of("job", "pod")
        .expect(11)
        .await?;
    let marker: serde_json::Value =
        serde_json::from_slice(&before[&format!("{}ark-backup.json", world.key("same"))])?;
    let uid = marker["commit"]["clusterUID"]
        .as_str()
        .context("the marker names its cluster")?;
    ensure!(
        refused.stderr.contains(uid),
        "the message does not name the other cluster: {refused:?}"
    );
    ensure!(
        world.bucket.objects(&world.key("same")).await? == before,
        "the first backup was touched"
    );
    Ok(())
}

/// Kills the job at its n-th write, for every n there is, before or after the server has acted; each time a second
/// attempt of the same Job must end with one whole backup.
async fn killed_on_s3() -> Result<()> {
    let world = World::new("killed").await?;
    let namespace = world.namespace("app").await?;
    fill(world.cluster, &namespace, 50)?;
    let proxy = FaultProxy::start(world.s3.url()).await?;
    let storage = world.storage_at(proxy.url());
    let job = |name: &str, pod: &str| {
        let arguments = [
            "backup",
            name,
            "--storage",
            &storage,
            "--include-namespaces",
            &namespace,
        ];
        ArkJob::new(world.cluster.kubeconfig(), &arguments).of(name, pod)
    };
    job("unharmed", "pod").expect(0).await?;
    let writes = proxy.count(|request| request.is_write()) as u64;
    ensure!(writes >= 8, "only {writes} writes were seen");
    let expected = read(
        &Stored::fetch(&world.bucket, world.prefix(), "unharmed")
            .await?
            .path(),
    )?;
    let mut killed = 0;
    for after in [false, true] {
        for n in 1..=writes {
            let name = format!("killed-{}-{n}", if after { "after" } else { "before" });
            let victim = Victim::default();
            let rule = Rule::on(|request| request.is_write()).only(n);
            let added = proxy.add(if after {
                rule.kill_after(&victim)
            } else {
                rule.kill_before(&victim)
            });
            let running = job(&name, "pod-1").start()?;
            victim.is(running.id());
            let first = running.wait().await?;
            ensure!(
                added.applied() == 1 && first.code.is_none(),
                "{name}: not killed: {first:?}"
            );
            killed += 1;
            proxy.clear_rules();
            let stored = Stored::fetch(&world.bucket, world.prefix(), &name).await?;
            if has_marker(world.bucket.keys(&world.key(&name)).await?) {
                ensure!(
                    read(&stored.path())? == expected,
                    "{name}: a marker without a whole backup"
                );
            }
            job(&name, "pod-2")
                .expect(0)
                .await
                .with_context(|| name.clone())?;
            let stored = Stored::fetch(&world.bucket, world.prefix(), &name).await?;
            ensure!(
                read(&stored.path())? == expected,
                "{name}: not the whole backup"
            );
        }
    }
    ensure!(killed == 2 * writes, "{killed} kills at {writes} writes");
    eprintln!("killed before and after each of {writes} writes");
    Ok(())
}

/// The same on `file://`: killed at every link, unlink, fsync and directory made. strace, which cannot be fooled by calls
/// that bypass libc, says how many there are.
async fn killed_on_files() -> Result<()> {
    prerequisites::strace()?;
    let world = World::new("files").await?;
    let namespace = world.namespace("app").await?;
    fill(world.cluster, &namespace, 20)?;
    let directory = tempfile::tempdir()?;
    let storage = format!("file://{}", directory.path().display());
    let killer = directory.path().join("kill_at_call.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/kill_at_call.c");
    process::output(
        Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .arg(&killer)
            .arg(source),
    )?;
    let job = |name: &str, pod: &str| {
        let arguments = [
            "backup",
            name,
            "--storage",
            &storage,
            "--include-namespaces",
            &namespace,
        ];
        ArkJob::new(world.cluster.kubeconfig(), &arguments).of(name, pod)
    };
    let trace = directory.path().join("trace");
    let calls = "trace=link,linkat,unlink,unlinkat,mkdir,mkdirat,fsync,fdatasync";
    let strace = [
        "strace",
        "-f",
        "-qq",
        "-e",
        calls,
        "-o",
        &trace.display().to_string(),
    ];
    // The first also makes the directory of all backups.
    job("first", "pod").expect(0).await?;
    job("counted", "pod").under(&strace).expect(0).await?;
    let expected = read(&directory.path().join("backups/counted"))?;
    let total = std::fs::read_to_string(&trace)?
        .lines()
        .filter(|line| line.contains('(') && !line.contains("resumed"))
        .count();
    ensure!(total >= 12, "only {total} calls were seen");
    for n in 1..=total {
        let name = format!("killed-{n}");
        let preload = killer.display().to_string();
        let first = job(&name, "pod-1")
            .variable("LD_PRELOAD", &preload)
            .variable("KILL_AT", &n.to_string())
            .run()
            .await?;
        ensure!(first.code.is_none(), "{name}: not killed: {first:?}");
        let backup = directory.path().join("backups").join(&name);
        if backup.join("ark-backup.json").exists() {
            ensure!(
                read(&backup)? == expected,
                "{name}: a marker without a whole backup"
            );
        }
        job(&name, "pod-2")
            .expect(0)
            .await
            .with_context(|| name.clone())?;
        ensure!(read(&backup)? == expected, "{name}: not the whole backup");
    }
    eprintln!("killed at each of {total} calls");
    Ok(())
}

/// The answer to each write is lost once: the write itself happened, and its repetition must not be mistaken for
/// somebody else's.
async fn lost_answers() -> Result<()> {
    let world = World::new("lost").await?;
    let namespace = world.namespace("app").await?;
    let proxy = FaultProxy::start(world.s3.url()).await?;
    let storage = world.storage_at(proxy.url());
    let arguments = |name: &str| {
        [
            "backup",
            name,
            "--storage",
            &storage,
            "--include-namespaces",
            &namespace,
        ]
        .map(str::to_owned)
    };
    let run = async |name: &str| -> Result<Finished> {
        let arguments = arguments(name);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        ArkJob::new(world.cluster.kubeconfig(), &arguments)
            .of(name, "pod")
            .expect(0)
            .await
    };
    run("unharmed").await?;
    let writes = proxy.count(|request| request.is_write()) as u64;
    for n in 1..=writes {
        let added = proxy.add(Rule::on(|request| request.is_write()).only(n).lose_answer());
        let name = format!("lost-{n}");
        run(&name)
            .await
            .with_context(|| format!("the answer to write {n} of {writes} was lost"))?;
        ensure!(added.applied() == 1, "no answer was lost");
        proxy.clear_rules();
        read(
            &Stored::fetch(&world.bucket, world.prefix(), &name)
                .await?
                .path(),
        )?;
    }
    Ok(())
}

async fn filters() -> Result<()> {
    let world = World::new("filters").await?;
    let (app, other) = (
        world.namespace("app").await?,
        world.namespace("other").await?,
    );
    fill(world.cluster, &app, 4)?;
    fill(world.cluster, &other, 4)?;
    let mut manifest = String::new();
    for (name, label) in [
        ("velero", "velero.io/exclude-from-backup"),
        ("ark", "ark.heptio.com/exclude-from-backup"),
    ] {
        manifest.push_str(&format!(
            "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: left-out-{name}, namespace: {app}, labels: {{{label}: \"true\"}}}}\n"
        ));
    }
    world
        .cluster
        .kubectl_with_input(&["apply", "-f", "-"], &manifest)?;
    let backup = async |name: &str, flags: &[&str]| -> Result<BTreeSet<String>> {
        let storage = world.storage();
        let arguments = [&["backup", name, "--storage", &storage], flags].concat();
        ArkJob::new(world.cluster.kubeconfig(), &arguments)
            .expect(0)
            .await?;
        read(
            &Stored::fetch(&world.bucket, world.prefix(), name)
                .await?
                .path(),
        )
    };
    // Controllers add objects of their own, some time.
    let theirs = ["kube-root-ca.crt", "events ", "replicasets.apps "];
    let mine = |names: BTreeSet<String>| -> BTreeSet<String> {
        let ours = |name: &String| {
            !name.ends_with(" default") && !theirs.iter().any(|part| name.contains(part))
        };
        names.into_iter().filter(ours).collect()
    };
    let long = "n".repeat(250);
    let set = |names: &[&str]| -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    };

    let names = mine(backup("namespace", &["--include-namespaces", &app]).await?);
    let expected: Vec<String> = [
        format!("namespaces - {app}"),
        format!("clusterrolebindings.rbac.authorization.k8s.io - binding-of-{app}"),
        format!("clusterroles.rbac.authorization.k8s.io - role:of:{app}"),
        format!("deployments.apps {app} web"),
        format!("secrets {app} {long}"),
        format!("serviceaccounts {app} runner"),
    ]
    .into_iter()
    .chain((0..4).map(|n| format!("configmaps {app} cm-{n}")))
    .collect();
    ensure!(names == expected.iter().cloned().collect(), "{names:#?}");

    let glob = format!("{}*", &app[..app.len() - 1]);
    let flags = [
        "--include-namespaces",
        &glob,
        "--include-resources",
        "deploy,cm",
        "--selector",
        "half=1",
    ];
    let names = backup("selector", &flags).await?;
    ensure!(
        names
            == set(&[
                &format!("configmaps {app} cm-1"),
                &format!("configmaps {app} cm-3")
            ]),
        "{names:#?}"
    );

    let exclude = [
        "--include-namespaces",
        &app,
        "--exclude-resources",
        "configmaps,secrets,serviceaccounts",
        "--include-cluster-resources=false",
    ];
    let names = mine(backup("exclude", &exclude).await?);
    ensure!(
        names == set(&[&format!("deployments.apps {app} web")]),
        "{names:#?}"
    );

    for (flags, text) in [
        (
            ["--include-resources", "deploymets"],
            "no resource type is called deploymets",
        ),
        (["--include-namespaces", "a,*"], "'*' must stand alone"),
        (["--selector", "a in b"], "selector"),
        (["--ttl", "30 days"], "30 days"),
        (["--include-namespaces", "No"], "cannot match a namespace"),
    ] {
        let storage = world.storage();
        let arguments = [&["backup", "wrong", "--storage", &storage], &flags[..]].concat();
        let refused = ArkJob::new(world.cluster.kubeconfig(), &arguments)
            .expect(2)
            .await?;
        ensure!(refused.stderr.contains(text), "{refused:?}");
    }
    ensure!(
        world.bucket.keys(&world.key("wrong")).await?.is_empty(),
        "a refused backup left something"
    );
    Ok(())
}

async fn forbidden_type() -> Result<()> {
    let world = World::new("forbidden").await?;
    let namespace = world.namespace("app").await?;
    fill(world.cluster, &namespace, 2)?;
    let proxy = FaultProxy::start_before(world.cluster).await?;
    let no = br#"{"kind":"Status","apiVersion":"v1","status":"Failure","message":"secrets is forbidden: no","reason":"Forbidden","code":403}"#;
    proxy.add(
        Rule::on(|request| request.path.contains("/secrets")).answer(
            403,
            &[("content-type", "application/json")],
            &no[..],
        ),
    );
    let storage = world.storage();
    let arguments = [
        "backup",
        "partial",
        "--storage",
        &storage,
        "--include-namespaces",
        &namespace,
    ];
    let kubeconfig = world.cluster.kubeconfig_for(proxy.url())?;
    let partial = ArkJob::new(&kubeconfig, &arguments).expect(3).await?;
    ensure!(
        partial.stderr.contains("secrets is missing or incomplete")
            && partial.stderr.contains("secrets is forbidden: no"),
        "{partial:?}"
    );
    let stored = Stored::fetch(&world.bucket, world.prefix(), "partial").await?;
    let names = read(&stored.path())?;
    ensure!(
        names.contains(&format!("deployments.apps {namespace} web")),
        "the others are missing, too"
    );
    let marker: serde_json::Value =
        serde_json::from_slice(&std::fs::read(stored.path().join("ark-backup.json"))?)?;
    ensure!(
        marker["status"]["phase"] == "PartiallyFailed" && marker["status"]["errors"] == 1,
        "{marker:#}"
    );
    let arguments = [
        &arguments[..1],
        &["again"],
        &arguments[2..],
        &["--partial-exit-code", "0"],
    ]
    .concat();
    ArkJob::new(&kubeconfig, &arguments).expect(0).await?;
    Ok(())
}

async fn storage_errors() -> Result<()> {
    let world = World::new("errors").await?;
    let kubeconfig = world.cluster.kubeconfig();
    let url = world.s3.url();
    let query = format!("?endpoint={url}&path-style=true&region=us-east-1");
    let dead = "?endpoint=http://127.0.0.1:9&path-style=true&region=us-east-1";
    for (storage, code, text) in [
        (format!("s3://no-such-bucket{query}"), 10, "no-such-bucket"),
        (format!("s3://scenarios{dead}"), 1, "127.0.0.1:9"),
        ("s3://".to_owned(), 2, "bucket"),
        ("ftp://x/y".to_owned(), 2, "scheme"),
        ("file:///proc/no/such".to_owned(), 10, "/proc/no/such"),
    ] {
        let failed = ArkJob::new(kubeconfig, &["backup", "x", "--storage", &storage])
            .expect(code)
            .await?;
        ensure!(
            failed.stderr.contains("error: ") && failed.stderr.contains(text),
            "{storage}: {failed:?}"
        );
    }
    let storage = world.storage();
    let failed = ArkJob::new(kubeconfig, &["backup", "x", "--storage", &storage])
        .variable("AWS_SECRET_ACCESS_KEY", "wrong")
        .expect(1)
        .await?;
    ensure!(
        failed.stderr.contains("hint: check the credentials"),
        "{failed:?}"
    );
    ensure!(
        !failed.stderr.contains("wrong"),
        "a secret is in the output: {failed:?}"
    );
    Ok(())
}

async fn interrupted() -> Result<()> {
    let world = World::new("interrupted").await?;
    let namespace = world.namespace("app").await?;
    let proxy = FaultProxy::start(world.s3.url()).await?;
    let storage = world.storage_at(proxy.url());
    // The archive hangs until the signal has ended the job.
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    proxy.add(
        Rule::on(|request| request.path.contains(".tar.gz") && request.is_write())
            .before(move |_| sender.send(()).expect("the scenario waits for it"))
            .delay(std::time::Duration::from_secs(30)),
    );
    let arguments = [
        "backup",
        "gone",
        "--storage",
        &storage,
        "--include-namespaces",
        &namespace,
    ];
    let running = ArkJob::new(world.cluster.kubeconfig(), &arguments).start()?;
    receiver
        .recv()
        .await
        .context("the archive was never written")?;
    process::signal(running.id(), rustix::process::Signal::TERM)?;
    let finished = running.wait().await?;
    ensure!(
        finished.code == Some(130) && finished.stderr.contains("interrupted"),
        "{finished:?}"
    );
    let keys: Vec<Bytes> = world
        .bucket
        .objects(&world.key("gone"))
        .await?
        .into_values()
        .collect();
    ensure!(keys.is_empty(), "something is left");
    Ok(())
}
