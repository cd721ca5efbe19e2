//! Backups of Velero and original Ark come back; what is not whole or not honest writes nothing, whoever made it.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use ark_tests::foreign::{ForeignBackup, Forged, Maker, append, gzip};
use ark_tests::job::{ArkJob, Finished};
use ark_tests::{ControlPlane, FaultProxy};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::world::{World, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "foreign::backups_of_every_maker_come_back_and_again_change_nothing",
            every_maker,
        ),
        scenario(
            "foreign::s11_i10_of_several_versions_the_one_that_the_cluster_prefers_comes_back",
            versions,
        ),
        scenario(
            "foreign::o17_what_is_no_complete_backup_is_refused_with_its_phase",
            incomplete,
        ),
        scenario("foreign::b4_an_empty_archive_is_a_warning", empty),
        scenario(
            "foreign::b5_bad_json_of_one_object_leaves_the_others",
            bad_json,
        ),
        scenario(
            "foreign::p8_p9_a_damaged_archive_of_others_writes_nothing",
            damaged,
        ),
        scenario("foreign::a_forged_archive_of_ours_writes_nothing", forged),
    ]
}

async fn restore(kubeconfig: &Path, root: &Path, name: &str, code: i32) -> Result<Finished> {
    let storage = format!("--storage=file://{}", root.display());
    ArkJob::new(kubeconfig, &["restore", name, &storage])
        .expect(code)
        .await
}

fn get(cluster: &ControlPlane, arguments: &[&str]) -> Result<Value> {
    let json = cluster.kubectl(&[&["get"], arguments, &["-o", "json"]].concat())?;
    Ok(serde_json::from_str(&json)?)
}

fn names(cluster: &ControlPlane, namespace: &str) -> Result<Vec<String>> {
    let path = "jsonpath={.items[*].metadata.name}";
    let list = cluster.kubectl(&["get", "configmaps", "-n", namespace, "-o", path])?;
    let names = list.split_whitespace().map(str::to_owned);
    Ok(names.filter(|name| name != "kube-root-ca.crt").collect())
}

/// As an API server gives an object, with what belongs to the old cluster.
fn object(
    api_version: &str,
    kind: &str,
    namespace: Option<&str>,
    name: &str,
    rest: &Value,
) -> Value {
    let mut object = json!({
        "apiVersion": api_version, "kind": kind,
        "metadata": {"name": name, "uid": "00000000-0000-0000-0000-000000000007", "resourceVersion": "12345",
            "creationTimestamp": "2017-07-27T20:05:24Z"},
    });
    if let Some(namespace) = namespace {
        object["metadata"]["namespace"] = namespace.into();
    }
    for (key, value) in rest.as_object().into_iter().flatten() {
        object[key] = value.clone();
    }
    object
}

fn config_map(namespace: &str, name: &str) -> Value {
    object(
        "v1",
        "ConfigMap",
        Some(namespace),
        name,
        &json!({"data": {"k": name}}),
    )
}

async fn every_maker() -> Result<()> {
    let world = World::new("makers").await?;
    let cluster = world.cluster;
    for maker in Maker::ALL {
        let namespace = format!("{}-{maker:?}", world.prefix()).to_lowercase();
        let namespace = namespace.as_str();
        let role = format!("{namespace}:reader");
        let long = "l".repeat(120);
        let directory = tempfile::tempdir()?;
        let mut backup = ForeignBackup::new(maker, "nightly-20170727200524");
        backup.object(
            "namespaces",
            &object(
                "v1",
                "Namespace",
                None,
                namespace,
                &json!({"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}),
            ),
        );
        for name in ["settings", &long, "a.b"] {
            backup.object("configmaps", &config_map(namespace, name));
        }
        backup.object(
            "deployments.apps",
            &object("apps/v1", "Deployment", Some(namespace), "web", &json!({
                "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "web"}}, "template": {
                    "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}},
                "status": {"replicas": 3}})),
        );
        backup.object(
            "clusterroles.rbac.authorization.k8s.io",
            &object(
                "rbac.authorization.k8s.io/v1",
                "ClusterRole",
                None,
                &role,
                &json!({
                "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}),
            ),
        );
        backup.store(directory.path())?;
        let check = async || -> Result<()> {
            let said = restore(
                cluster.kubeconfig(),
                directory.path(),
                "nightly-20170727200524",
                0,
            )
            .await?;
            ensure!(said.stderr.contains("0 failed"), "{said:?}");
            let found = names(cluster, namespace)?;
            ensure!(found == ["a.b", &long, "settings"], "{found:?}");
            get(cluster, &["deployment", "web", "-n", namespace])?;
            get(cluster, &["clusterrole", &role])?;
            Ok(())
        };
        check().await.with_context(|| format!("{maker:?}"))?;
        let map = ["configmap", "settings", "-n", namespace];
        let before = get(cluster, &map)?;
        let uid = "00000000-0000-0000-0000-000000000007";
        ensure!(before["metadata"]["uid"] != uid && before["data"]["k"] == "settings");
        check().await.with_context(|| format!("{maker:?}, again"))?;
        ensure!(
            get(cluster, &map)? == before,
            "{maker:?} changed {before:#}"
        );
        // Its archive and its description can be fetched, as they are.
        for file in ["archive", "marker"] {
            let storage = format!("--storage=file://{}", directory.path().display());
            let arguments = ["fetch", "nightly-20170727200524", "--file", file, &storage];
            ArkJob::new(cluster.kubeconfig(), &arguments)
                .expect(0)
                .await?;
        }
        cluster.kubectl(&["delete", "clusterrole", &role])?;
        cluster.kubectl(&["delete", "namespace", namespace, "--wait=false"])?;
    }
    Ok(())
}

async fn versions() -> Result<()> {
    let world = World::new("versions").await?;
    let (cluster, namespace) = (world.cluster, world.namespace("app").await?);
    let directory = tempfile::tempdir()?;
    let mut backup = ForeignBackup::new(Maker::Velero, "v");
    let scaler = |version: &str, spec: Value| {
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
        let mut spec = json!({"spec": spec});
        spec["spec"]["scaleTargetRef"] = target;
        spec["spec"]["maxReplicas"] = 3.into();
        object(
            &format!("autoscaling/{version}"),
            "HorizontalPodAutoscaler",
            Some(&namespace),
            "web",
            &spec,
        )
    };
    let resource = "horizontalpodautoscalers.autoscaling";
    // The old cluster preferred v1, and had a version that is not served any more.
    backup.object(
        resource,
        &scaler("v1", json!({"targetCPUUtilizationPercentage": 50})),
    );
    backup.other_version(resource, &scaler("v2beta2", json!({"minReplicas": 1})));
    let metrics = json!({"metrics": [{"type": "Resource", "resource": {"name": "memory",
        "target": {"type": "Utilization", "averageUtilization": 70}}}]});
    backup.other_version(resource, &scaler("v2", metrics));
    backup.store(directory.path())?;
    restore(cluster.kubeconfig(), directory.path(), "v", 0).await?;
    let restored = get(cluster, &["hpa.v2.autoscaling", "web", "-n", &namespace])?;
    let metric = &restored["spec"]["metrics"][0]["resource"]["name"];
    ensure!(metric == "memory", "{restored:#}");
    Ok(())
}

async fn incomplete() -> Result<()> {
    let world = World::new("incomplete").await?;
    let cluster = world.cluster;
    let directory = tempfile::tempdir()?;
    let root = directory.path();
    for (maker, phase) in [
        (Maker::Velero, "InProgress"),
        (Maker::Velero, "Failed"),
        (Maker::Velero, "Deleting"),
        (Maker::Velero, "FinalizingPartiallyFailed"),
        (Maker::Velero, ""),
        (Maker::Ark05, "Failed"),
    ] {
        let mut backup = ForeignBackup::new(maker, "b");
        backup.phase = phase.into();
        backup.store(root)?;
        let said = restore(cluster.kubeconfig(), root, "b", 10).await?;
        ensure!(
            said.stderr.contains(&format!("phase {phase:?}")),
            "{said:?}"
        );
        std::fs::remove_dir_all(root)?;
    }
    let mut ours = ForeignBackup::new(Maker::Velero, "b");
    ours.annotations = json!({"ark.heptio.com/run": "r"});
    ours.store(root)?;
    let said = restore(cluster.kubeconfig(), root, "b", 10).await?;
    ensure!(said.stderr.contains("never committed"), "{said:?}");
    std::fs::remove_dir_all(root)?;
    let archive = ForeignBackup::new(Maker::Velero, "b").store(root)?;
    std::fs::write(root.join("backups/b/ark-deleting.json"), "{}")?;
    let said = restore(cluster.kubeconfig(), root, "b", 10).await?;
    ensure!(said.stderr.contains("being deleted"), "{said:?}");
    std::fs::remove_file(root.join("backups/b/ark-deleting.json"))?;
    std::fs::remove_file(archive)?;
    let said = restore(cluster.kubeconfig(), root, "b", 5).await?;
    ensure!(said.stderr.contains("b.tar.gz is missing"), "{said:?}");
    let description = root.join("backups/b/velero-backup.json");
    std::fs::write(&description, "{")?;
    let said = restore(cluster.kubeconfig(), root, "b", 5).await?;
    ensure!(said.stderr.contains("velero-backup.json"), "{said:?}");
    Ok(())
}

async fn empty() -> Result<()> {
    let world = World::new("empty").await?;
    let directory = tempfile::tempdir()?;
    let mut backup = ForeignBackup::new(Maker::Ark05, "b");
    backup.store(directory.path())?;
    let kubeconfig = world.cluster.kubeconfig();
    let said = restore(kubeconfig, directory.path(), "b", 0).await?;
    ensure!(
        said.stderr.contains("nothing in backup b is selected"),
        "{said:?}"
    );
    backup = ForeignBackup::new(Maker::Velero, "b");
    backup.phase = "PartiallyFailed".into();
    backup.store(directory.path())?;
    restore(kubeconfig, directory.path(), "b", 0).await?;
    Ok(())
}

async fn bad_json() -> Result<()> {
    let world = World::new("bad-json").await?;
    let (cluster, namespace) = (world.cluster, world.namespace("app").await?);
    let directory = tempfile::tempdir()?;
    let mut backup = ForeignBackup::new(Maker::OldVelero, "b");
    backup.object("configmaps", &config_map(&namespace, "good"));
    backup.raw(
        &format!("resources/configmaps/namespaces/{namespace}/bad.json"),
        "{\"metadata\":",
    );
    backup.object("configmaps", &config_map(&namespace, "later"));
    backup.store(directory.path())?;
    let said = restore(cluster.kubeconfig(), directory.path(), "b", 3).await?;
    ensure!(
        said.stderr.contains("bad") && said.stderr.contains("not valid JSON"),
        "{said:?}"
    );
    ensure!(names(cluster, &namespace)? == ["good", "later"]);
    Ok(())
}

/// A cluster behind a proxy that counts writes, and a namespace that must stay empty.
struct Guarded {
    world: World,
    namespace: String,
    proxy: FaultProxy,
    directory: tempfile::TempDir,
}

impl Guarded {
    async fn new(hint: &str) -> Result<Guarded> {
        let world = World::new(hint).await?;
        Ok(Guarded {
            namespace: world.namespace("app").await?,
            proxy: FaultProxy::start_before(world.cluster).await?,
            directory: tempfile::tempdir()?,
            world,
        })
    }

    /// The restore of what is stored as `b` fails its integrity check, says so, and writes nothing.
    async fn refused(&self, what: &str, says: &str) -> Result<()> {
        let kubeconfig = self.world.cluster.kubeconfig_for(self.proxy.url())?;
        let said = restore(&kubeconfig, self.directory.path(), "b", 5)
            .await
            .with_context(|| what.to_owned())?;
        let named = said.stderr.contains(says) && said.stderr.contains("backup \"b\"");
        ensure!(named, "{what}: {says:?} is not in {said:?}");
        let writes = self.proxy.count(|request| request.is_write());
        ensure!(writes == 0, "{what}: {writes} requests were writes");
        ensure!(
            names(self.world.cluster, &self.namespace)? == [""; 0],
            "{what}"
        );
        Ok(())
    }
}

async fn damaged() -> Result<()> {
    let guarded = Guarded::new("strangers").await?;
    let namespace = &guarded.namespace;
    let path = |name: &str| format!("resources/configmaps/namespaces/{namespace}/{name}.json");
    let mut whole = ForeignBackup::new(Maker::OldVelero, "b");
    for n in 0..20 {
        whole.object("configmaps", &config_map(namespace, &format!("m{n:02}")));
    }
    let file = whole.store(guarded.directory.path())?;
    let bytes = whole.archive()?;
    let good = config_map(namespace, "good").to_string();
    let first = |tar: &mut Vec<u8>| {
        append(tar, &path("good"), tar::EntryType::Regular, good.as_bytes());
    };
    let with = |kind: tar::EntryType, name: &str, body: &[u8]| -> Result<Vec<u8>> {
        let mut tar = Vec::new();
        first(&mut tar);
        append(&mut tar, name, kind, body);
        tar.extend_from_slice(&[0; 1024]);
        gzip(&tar)
    };
    let entry = |name: &str, body: &str| with(tar::EntryType::Regular, name, body.as_bytes());
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 4;
    let mut no_end = Vec::new();
    first(&mut no_end);
    let mut huge = tar::Header::new_ustar();
    huge.set_path(path("huge"))?;
    huge.set_entry_type(tar::EntryType::Regular);
    huge.set_size(65 << 20);
    huge.set_cksum();
    let zeros = vec![b' '; 60 << 20];
    let bombs: Vec<(String, &[u8])> = (0..6)
        .map(|n| (path(&format!("z{n}")), &zeros[..]))
        .collect();
    let mut bomb = Vec::new();
    for (path, body) in &bombs {
        append(&mut bomb, path, tar::EntryType::Regular, body);
    }
    let bomb = {
        use std::io::Write;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&bomb)?;
        encoder.finish()?
    };
    let other = |json: Value| json.to_string();
    let damages: Vec<(&str, Vec<u8>, &str)> = vec![
        (
            "cut in the middle",
            bytes[..bytes.len() / 2].to_vec(),
            "unpacked archive",
        ),
        (
            "cut by a byte",
            bytes[..bytes.len() - 1].to_vec(),
            "unpacked archive",
        ),
        ("nothing", Vec::new(), "unpacked archive"),
        ("a flipped bit", flipped, "unpacked archive"),
        (
            "not gzip",
            b"PK this is something else".to_vec(),
            "unpacked archive",
        ),
        (
            "something after its end",
            [&bytes[..], b"x"].concat(),
            "unpacked archive",
        ),
        ("no end blocks", gzip(&no_end)?, "truncated"),
        (
            "an entry too large",
            gzip(&[&no_end[..], huge.as_bytes()].concat())?,
            "refused",
        ),
        ("a bomb", bomb, "unpacks to more than"),
        (
            "a path that escapes",
            entry("../../etc/passwd.json", "{}")?,
            "leads out",
        ),
        (
            "an absolute path",
            entry("/etc/passwd.json", "{}")?,
            "leads out",
        ),
        ("a backslash", entry(&path("..\\x"), "{}")?, "leads out"),
        (
            "a stray file",
            entry("bin/sh", "{}")?,
            "not where a backup has objects",
        ),
        (
            "a symlink",
            with(tar::EntryType::Symlink, "link", b"")?,
            "not a regular file",
        ),
        (
            "a hard link",
            with(tar::EntryType::Link, "link", b"")?,
            "not a regular file",
        ),
        (
            "a fifo",
            with(tar::EntryType::Fifo, "fifo", b"")?,
            "not a regular file",
        ),
        (
            "an odd pax header",
            with(tar::EntryType::XHeader, "x", b"99 path=a\n")?,
            "pax header",
        ),
        ("twice", entry(&path("good"), &good)?, "there twice"),
        (
            "another name inside",
            entry(&path("x"), &good)?,
            "called \"good\"",
        ),
        (
            "another namespace inside",
            entry(&path("x"), &other(config_map("kube-system", "x")))?,
            "of namespace \"kube-system\"",
        ),
        (
            "both scopes",
            entry("resources/configmaps/cluster/x.json", "{}")?,
            "both in namespaces and of the cluster",
        ),
    ];
    for (what, bytes, says) in damages {
        std::fs::write(&file, bytes)?;
        guarded.refused(what, says).await?;
    }
    let mut tar = Vec::new();
    first(&mut tar);
    append(&mut tar, "resources/x.json", tar::EntryType::Regular, b"{}");
    let at = tar.len() - 1024;
    tar[at] = 0xff;
    let mut header = tar::Header::new_old();
    header.as_mut_bytes().copy_from_slice(&tar[at..at + 512]);
    header.set_cksum();
    tar[at..at + 512].copy_from_slice(header.as_bytes());
    tar.extend_from_slice(&[0; 1024]);
    std::fs::write(&file, gzip(&tar)?)?;
    guarded
        .refused("a path that is not UTF-8", "not UTF-8")
        .await?;
    // Undamaged, it comes back.
    std::fs::write(&file, bytes)?;
    restore(
        guarded.world.cluster.kubeconfig(),
        guarded.directory.path(),
        "b",
        0,
    )
    .await?;
    ensure!(names(guarded.world.cluster, namespace)?.len() == 20);
    Ok(())
}

async fn forged() -> Result<()> {
    let guarded = Guarded::new("forged").await?;
    let namespace = guarded.namespace.as_str();
    let map = |name: &str| config_map(namespace, name).to_string();
    let (a, b, c) = (map("a"), map("b"), map("c"));
    let elsewhere = config_map("kube-system", "c").to_string();
    let good = || {
        Forged::new(
            "b",
            &[
                &[(namespace, "a", &a), (namespace, "b", &b)],
                &[(namespace, "c", &c)],
            ],
        )
    };
    let root = guarded.directory.path();
    let tar = |entries: &[(&str, &str)]| {
        let mut tar = Vec::new();
        for (name, body) in entries {
            append(&mut tar, name, tar::EntryType::Regular, body.as_bytes());
        }
        tar
    };
    let path = |name: &str| format!("resources/configmaps/namespaces/{namespace}/{name}.json");
    type Forge<'a> = (
        &'a str,
        &'a str,
        Box<dyn Fn(&mut Forged) -> Result<()> + 'a>,
    );
    let forgeries: Vec<Forge<'_>> = vec![
        (
            "a wrong digest",
            "SHA-256",
            Box::new(|forged| {
                forged.footer.members[1].sha256 = "0".repeat(64);
                Ok(())
            }),
        ),
        (
            "a gap",
            "where the one before ends",
            Box::new(|forged| {
                forged.footer.members[2].offset += 1;
                Ok(())
            }),
        ),
        (
            "an overlap",
            "where the one before ends",
            Box::new(|forged| {
                forged.footer.members[2].offset -= 1;
                Ok(())
            }),
        ),
        (
            "a member too few",
            "the members end at",
            Box::new(|forged| {
                forged.footer.members.pop();
                Ok(())
            }),
        ),
        (
            "a length beyond any file",
            "beyond any file",
            Box::new(|forged| {
                forged.footer.members[1].length = u64::MAX;
                Ok(())
            }),
        ),
        (
            "more objects than there are",
            "its members hold 3",
            Box::new(|forged| {
                forged.footer.head.types[0].items = 4;
                Ok(())
            }),
        ),
        (
            "a member with more than it has",
            "does not hold the objects",
            Box::new(|forged| {
                forged.footer.members[2].items = 2;
                forged.footer.head.types[0].items = 4;
                Ok(())
            }),
        ),
        (
            "another first",
            "does not hold the objects",
            Box::new(|forged| {
                forged.footer.members[1].first = format!("{namespace}/0");
                Ok(())
            }),
        ),
        (
            "another last",
            "does not hold the objects",
            Box::new(|forged| {
                forged.footer.members[2].last = format!("{namespace}/z");
                Ok(())
            }),
        ),
        (
            "members out of order",
            "is not in order",
            Box::new(|forged| {
                forged.footer.members[1].last = format!("{namespace}/z");
                Ok(())
            }),
        ),
        (
            "a type twice",
            "twice",
            Box::new(|forged| {
                let again = forged.footer.head.types[0].clone();
                forged.footer.head.types.push(again);
                Ok(())
            }),
        ),
        (
            "a bomb by its size",
            "refused",
            Box::new(|forged| {
                forged.footer.members[1].size = 1 << 40;
                Ok(())
            }),
        ),
        (
            "a bomb by its content",
            "does not unpack to",
            Box::new(|forged| {
                forged.replace(1, &vec![0; 60 << 20])?;
                forged.footer.members[1].size = 1024;
                Ok(())
            }),
        ),
        (
            "twice in a member",
            "there twice",
            Box::new(|forged| {
                forged.replace(
                    1,
                    &tar(&[(&path("a"), &a), (&path("a"), &a), (&path("b"), &b)]),
                )?;
                forged.footer.members[1].items = 3;
                forged.footer.head.types[0].items = 4;
                Ok(())
            }),
        ),
        (
            "twice in two members",
            "in another member",
            Box::new(|forged| {
                forged.replace(2, &tar(&[(&path("a"), &a)]))?;
                forged.footer.members[2].first = format!("{namespace}/a");
                forged.footer.members[2].last = format!("{namespace}/a");
                forged.footer.head.types[0].unsorted = true;
                Ok(())
            }),
        ),
        (
            "a path that escapes",
            "is called",
            Box::new(|forged| {
                forged.replace(
                    2,
                    &tar(&[("resources/configmaps/namespaces/../c.json", &c)]),
                )
            }),
        ),
        (
            "another type inside",
            "is called",
            Box::new(|forged| {
                forged.replace(2, &tar(&[("resources/secrets/namespaces/x/c.json", &c)]))
            }),
        ),
        (
            "of the cluster",
            "wrong scope",
            Box::new(|forged| {
                forged.replace(2, &tar(&[("resources/configmaps/cluster/c.json", &c)]))
            }),
        ),
        (
            "a link",
            "not a regular file",
            Box::new(|forged| {
                let mut tar = Vec::new();
                append(&mut tar, &path("c"), tar::EntryType::Symlink, b"");
                forged.replace(2, &tar)
            }),
        ),
        (
            "another name inside",
            "called \"b\"",
            Box::new(|forged| forged.replace(2, &tar(&[(&path("c"), &b)]))),
        ),
        (
            "another namespace inside",
            "of namespace \"kube-system\"",
            Box::new(|forged| forged.replace(2, &tar(&[(&path("c"), &elsewhere)]))),
        ),
        (
            "no gzip",
            "malformed",
            Box::new(|forged| {
                let bytes = b"no gzip".to_vec();
                forged.replace(2, &[])?;
                forged.footer.members[2].length = bytes.len() as u64;
                forged.footer.members[2].sha256 = sha256(&bytes);
                forged.members[2] = bytes;
                Ok(())
            }),
        ),
    ];
    for (what, says, forge) in forgeries {
        let mut forged = good();
        forge(&mut forged).with_context(|| what.to_owned())?;
        forged.store(root)?;
        guarded.refused(what, says).await?;
    }
    good().store(root)?;
    restore(guarded.world.cluster.kubeconfig(), root, "b", 0).await?;
    ensure!(names(guarded.world.cluster, namespace)? == ["a", "b", "c"]);
    Ok(())
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    hex::encode(Sha256::digest(bytes))
}
