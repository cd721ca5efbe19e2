//! One instant: what a backup holds was there at the same moment, and what could not be of that moment is named.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ark_tests::job::ArkJob;
use ark_tests::{ControlPlane, FaultProxy, Gate, Options, Rule, certificates, wait_until};
use futures::stream::{self, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{ListParams, ObjectMeta, PostParams};
use kube::{Api, Client};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::backup::read;
use crate::world::scenario;

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "instant::no_backup_holds_the_second_of_two_objects_without_the_first",
            one_instant,
        ),
        scenario(
            "instant::a_compaction_on_the_way_is_named_with_both_revisions",
            compacted,
        ),
        scenario(
            "instant::another_etcd_and_another_server_are_read_on_their_own_and_named",
            elsewhere,
        ),
    ]
}

const NAMESPACE: &str = "app";

fn named(name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        ..ObjectMeta::default()
    }
}

fn config_map(name: String, data: &str) -> ConfigMap {
    ConfigMap {
        metadata: named(name),
        data: Some(BTreeMap::from([("k".to_owned(), data.to_owned())])),
        ..ConfigMap::default()
    }
}

fn secret(name: String, data: &str) -> Secret {
    Secret {
        metadata: named(name),
        string_data: Some(BTreeMap::from([("k".to_owned(), data.to_owned())])),
        ..Secret::default()
    }
}

/// As many config maps and secrets as make lists of several pages.
async fn fill(client: &Client, number: usize) -> Result<()> {
    let data = "x".repeat(1000);
    let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
    let create = PostParams::default();
    stream::iter(0..number)
        .map(|n| {
            let (config_map, secret) = (
                config_map(format!("fill-{n:05}"), &data),
                secret(format!("fill-{n:05}"), &data),
            );
            let (config_maps, secrets, create) = (&config_maps, &secrets, &create);
            async move {
                config_maps.create(create, &config_map).await?;
                secrets.create(create, &secret).await.map(drop)
            }
        })
        .buffer_unordered(16)
        .try_collect::<()>()
        .await
        .context("creating objects")
}

/// Creates the first, then the second, then the third of each number, each when the one before is there, for ever.
///
/// First and third are of one kind, so that a tear shows whichever kind is read first.
async fn write_in_order(client: &Client, written: &std::cell::Cell<usize>) -> Result<()> {
    let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
    let create = PostParams::default();
    loop {
        let n = written.get();
        config_maps
            .create(&create, &config_map(format!("first-{n:06}"), "x"))
            .await?;
        secrets
            .create(&create, &secret(format!("second-{n:06}"), "x"))
            .await?;
        config_maps
            .create(&create, &config_map(format!("third-{n:06}"), "x"))
            .await?;
        written.set(n + 1);
    }
}

/// The numbers of the first, second and third objects among these names.
fn chain(names: impl IntoIterator<Item = impl AsRef<str>>) -> Result<[BTreeSet<usize>; 3]> {
    let mut found: [BTreeSet<usize>; 3] = Default::default();
    for name in names {
        for (set, prefix) in found.iter_mut().zip(["first-", "second-", "third-"]) {
            if let Some(number) = name.as_ref().strip_prefix(prefix) {
                set.insert(number.parse()?);
            }
        }
    }
    Ok(found)
}

/// Whether each second has its first, and each third its second.
fn is_of_one_instant([first, second, third]: &[BTreeSet<usize>; 3]) -> bool {
    third.is_subset(second) && second.is_subset(first)
}

/// What every other tool does: page through one kind after the other.
async fn plain_lists(client: &Client) -> Result<[BTreeSet<usize>; 3]> {
    async fn names<K>(api: Api<K>) -> Result<Vec<String>>
    where
        K: Clone + std::fmt::Debug + serde::de::DeserializeOwned + kube::Resource,
    {
        let mut names = Vec::new();
        let mut page = ListParams::default().limit(500);
        loop {
            let list = api.list(&page).await?;
            names.extend(
                list.items
                    .iter()
                    .filter_map(|item| item.meta().name.clone()),
            );
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return Ok(names),
            }
        }
    }
    let mut all = names::<ConfigMap>(Api::namespaced(client.clone(), NAMESPACE)).await?;
    all.extend(names::<Secret>(Api::namespaced(client.clone(), NAMESPACE)).await?);
    chain(all)
}

async fn one_instant() -> Result<()> {
    const ROUNDS: usize = 5;
    let cluster = ControlPlane::start(Options::default()).await?;
    let client = cluster.client().await?;
    cluster.kubectl(&["create", "namespace", NAMESPACE])?;
    fill(&client, 1_200).await?;
    let directory = tempfile::tempdir()?;
    let storage = format!("file://{}", directory.path().display());
    let written = std::cell::Cell::new(0);
    let check = async {
        let mut torn = 0;
        for round in 0..ROUNDS {
            let name = format!("round-{round}");
            let mut arguments = vec!["backup", &name, "--storage", &storage];
            // Namespaces that are named are listed one by one.
            if round % 2 == 1 {
                arguments.extend(["--include-namespaces", NAMESPACE]);
            }
            let before = written.get();
            ArkJob::new(cluster.kubeconfig(), &arguments)
                .expect(0)
                .await?;
            let after = written.get();
            let names = read(&directory.path().join("backups").join(&name))?;
            let held = chain(names.iter().filter_map(|line| line.split(' ').nth(2)))?;
            ensure!(
                is_of_one_instant(&held),
                "{name} is of several instants: {held:?}"
            );
            let [first, _, third] = &held;
            ensure!(
                (third.len()..=third.len() + 1).contains(&first.len()),
                "{name} lacks some of what was there: {held:?}"
            );
            ensure!(
                before <= first.len() && third.len() < after,
                "{name}: nothing was written while it ran ({before} to {after})"
            );
            torn += usize::from(!is_of_one_instant(&plain_lists(&client).await?));
        }
        eprintln!(
            "{} triples written; {torn} of {ROUNDS} plain lists were torn",
            written.get()
        );
        ensure!(torn > 0, "no plain list was torn: this test shows nothing");
        Ok(())
    };
    tokio::select! {
        checked = check => checked,
        writing = write_in_order(&client, &written) => writing,
    }
}

/// Marker of a backup in a directory.
fn marker(backup: &Path) -> Result<Value> {
    let path = backup.join("ark-backup.json");
    let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
    Ok(serde_json::from_slice(&text)?)
}

fn gunzipped(path: &Path) -> Result<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
    flate2::read::GzDecoder::new(file).read_to_string(&mut text)?;
    Ok(text)
}

/// That status, log and results of a backup all have a message with these parts.
fn said(backup: &Path, parts: &[&str]) -> Result<()> {
    let name = backup.file_name().and_then(|name| name.to_str()).unwrap();
    let status = marker(backup)?["status"]["messages"].clone();
    let status: Vec<String> = serde_json::from_value(status)?;
    let log = gunzipped(&backup.join(format!("{name}-logs.gz")))?;
    let results: Value =
        serde_json::from_str(&gunzipped(&backup.join(format!("{name}-results.gz")))?)?;
    let results: Vec<String> = ["warnings", "errors"]
        .iter()
        .flat_map(|kind| ["velero", "cluster"].map(|about| results[kind][about].clone()))
        .filter_map(|texts| serde_json::from_value::<Vec<String>>(texts).ok())
        .flatten()
        .collect();
    let has = |line: &str| parts.iter().all(|part| line.contains(part));
    for (place, lines) in [
        ("status", status),
        ("log", log.lines().map(str::to_owned).collect()),
        ("results", results),
    ] {
        ensure!(
            lines.iter().any(|line| has(line)),
            "the {place} does not say {parts:?}: {lines:#?}"
        );
    }
    Ok(())
}

async fn compacted() -> Result<()> {
    // Without the watch cache's snapshots, which would still answer for a while.
    let cluster = ControlPlane::start(Options {
        api_server_flags: vec!["--feature-gates=ListFromCacheSnapshot=false".into()],
        ..Options::default()
    })
    .await?;
    let client = cluster.client().await?;
    cluster.kubectl(&["create", "namespace", NAMESPACE])?;
    fill(&client, 700).await?;
    let proxy = FaultProxy::start_before(&cluster).await?;
    let gate = Gate::default();
    // One type is compacted away in the middle, another before its first page.
    let middle = proxy.add(
        Rule::on(|request| {
            request.path == "/api/v1/configmaps" && request.query.contains("continue=")
        })
        .only(1)
        .hold(&gate),
    );
    let first = proxy.add(
        Rule::on(|request| {
            request.path == "/api/v1/secrets"
                && request.query.contains("resourceVersionMatch=Exact")
        })
        .only(1)
        .hold(&gate),
    );
    let directory = tempfile::tempdir()?;
    let storage = format!("file://{}", directory.path().display());
    let kubeconfig = cluster.kubeconfig_for(proxy.url())?;
    let running =
        ArkJob::new(&kubeconfig, &["backup", "resumed", "--storage", &storage]).start()?;
    wait_until(
        "both pages to be asked for",
        Duration::from_secs(60),
        async || Ok((middle.applied() == 1 && first.applied() == 1).then_some(())),
    )
    .await?;
    for kind in ["configmap", "secret"] {
        let kind: &[&str] = if kind == "secret" {
            &["secret", "generic"]
        } else {
            &[kind]
        };
        cluster.kubectl(&[&["create"], kind, &["zz-later", "-n", NAMESPACE]].concat())?;
    }
    cluster.compact().await?;
    gate.open();
    let finished = running.wait().await?;
    ensure!(finished.code == Some(0), "{finished:?}");
    let gone = proxy.count(|request| request.status.is_some_and(|status| status == 410));
    ensure!(gone >= 2, "only {gone} answers were 410");

    let backup = directory.path().join("backups/resumed");
    let names = read(&backup)?;
    let of_type = |kind: &str| {
        names
            .iter()
            .filter(|name| name.starts_with(&format!("{kind} {NAMESPACE} fill-")))
            .count()
    };
    ensure!(
        of_type("configmaps") == 700 && of_type("secrets") == 700,
        "some are missing"
    );
    ensure!(names.contains("configmaps app zz-later") && names.contains("secrets app zz-later"));
    let marker = marker(&backup)?;
    let instant: u64 = marker["status"]["resourceVersion"]
        .as_str()
        .context("no instant")?
        .parse()?;
    ensure!(marker["status"]["phase"] == "Completed", "{marker:#}");
    // The type's own revision is what the message must name beside the instant.
    let footer = footer(&backup)?;
    for resource in ["configmaps", "secrets"] {
        let entry = footer["types"]
            .as_array()
            .unwrap()
            .iter()
            .find(|entry| entry["resource"] == resource);
        let revision = entry
            .and_then(|entry| entry["resourceVersion"].as_str())
            .context("no revision of its own")?;
        ensure!(
            revision.parse::<u64>()? > instant,
            "{resource}: {revision} is not after {instant}"
        );
        said(
            &backup,
            &[
                &format!("{resource}: "),
                &instant.to_string(),
                revision,
                "compacted",
            ],
        )?;
    }
    Ok(())
}

/// The footer of a backup in a directory.
fn footer(backup: &Path) -> Result<Value> {
    let name = backup.file_name().and_then(|name| name.to_str()).unwrap();
    let archive = std::fs::read(backup.join(format!("{name}.tar.gz")))?;
    let place = &marker(backup)?["commit"]["archive"];
    let number = |key: &str| {
        place[key]
            .as_u64()
            .map(|number| number as usize)
            .context("no number")
    };
    let from = number("footerOffset")?;
    let packed = &archive[from..from + number("footerLength")?];
    let mut tar = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut tar)?;
    let from = tar
        .iter()
        .position(|byte| *byte == b'{')
        .context("no JSON")?;
    let mut values = serde_json::Deserializer::from_slice(&tar[from..]).into_iter::<Value>();
    Ok(values.next().context("no JSON")??)
}

/// Two API servers, of which the first passes the group `wardle.example.com` on to the second.
async fn aggregated(directory: &Path) -> Result<(ControlPlane, ControlPlane)> {
    certificates::write_front_proxy(directory)?;
    let file = |name: &str| directory.join(name).display().to_string();
    let behind = ControlPlane::start(Options {
        api_server_flags: vec![
            format!(
                "--requestheader-client-ca-file={}",
                file("front-proxy-ca.crt")
            ),
            "--requestheader-username-headers=X-Remote-User".into(),
            "--requestheader-group-headers=X-Remote-Group".into(),
            "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
        ],
        ..Options::default()
    })
    .await?;
    let front = ControlPlane::start(Options {
        separate_events_etcd: true,
        api_server_flags: vec![
            format!("--proxy-client-cert-file={}", file("front-proxy.crt")),
            format!("--proxy-client-key-file={}", file("front-proxy.key")),
        ],
        ..Options::default()
    })
    .await?;
    behind.kubectl_with_input(
        &["apply", "-f", "-"],
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: things.wardle.example.com}\n\
         spec: {group: wardle.example.com, scope: Namespaced, names: {plural: things, singular: thing, kind: Thing},\n\
         versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]}\n",
    )?;
    behind.kubectl(&[
        "wait",
        "--for=condition=Established",
        "crd/things.wardle.example.com",
        "--timeout=30s",
    ])?;
    let (_, port) = behind.url().rsplit_once(':').context("a URL has a port")?;
    for cluster in [&front, &behind] {
        cluster.kubectl(&["create", "namespace", NAMESPACE])?;
    }
    front.kubectl_with_input(
        &["apply", "-f", "-"],
        &format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: wardle, namespace: {NAMESPACE}}}\n\
             spec: {{type: ExternalName, externalName: localhost, ports: [{{port: {port}}}]}}\n\
             ---\napiVersion: apiregistration.k8s.io/v1\nkind: APIService\nmetadata: {{name: v1.wardle.example.com}}\n\
             spec: {{group: wardle.example.com, version: v1, groupPriorityMinimum: 1000, versionPriority: 10, insecureSkipTLSVerify: true,\n\
             service: {{name: wardle, namespace: {NAMESPACE}, port: {port}}}}}\n"
        ),
    )?;
    front.kubectl(&[
        "wait",
        "--for=condition=Available",
        "apiservice/v1.wardle.example.com",
        "--timeout=60s",
    ])?;
    wait_until(
        "the second server's objects to be seen through the first",
        Duration::from_secs(60),
        async || {
            front.kubectl(&["get", "things.wardle.example.com", "-n", NAMESPACE])?;
            Ok(Some(()))
        },
    )
    .await?;
    front.kubectl_with_input(
        &["create", "-f", "-"],
        &format!("apiVersion: wardle.example.com/v1\nkind: Thing\nmetadata: {{name: far, namespace: {NAMESPACE}}}\nspec: {{n: 1}}\n"),
    )?;
    Ok((front, behind))
}

async fn elsewhere() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (cluster, behind) = aggregated(directory.path()).await?;
    cluster.kubectl_with_input(
        &["create", "-f", "-"],
        &format!(
            "apiVersion: v1\nkind: Event\nmetadata: {{name: happened, namespace: {NAMESPACE}}}\n\
             involvedObject: {{kind: Pod, namespace: {NAMESPACE}, name: x}}\nreason: Test\nmessage: x\ntype: Normal\n"
        ),
    )?;
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/crds");
    cluster.kubectl(&[
        "apply",
        "--server-side",
        "-f",
        &manifests.display().to_string(),
    ])?;
    cluster.kubectl(&[
        "wait",
        "--for=condition=Established",
        "crd/backups.ark.heptio.com",
        "--timeout=30s",
    ])?;
    cluster.kubectl(&["create", "namespace", "heptio-ark"])?;
    let storage = format!("file://{}", directory.path().display());
    let backup = |name: &str| directory.path().join("backups").join(name);
    let run = async |name: &str, code: i32| {
        ArkJob::new(
            cluster.kubeconfig(),
            &["backup", name, "--storage", &storage],
        )
        .expect(code)
        .await
    };

    run("apart", 0).await?;
    let names = read(&backup("apart"))?;
    ensure!(
        names.contains("things.wardle.example.com app far")
            && names.contains("events app happened"),
        "{names:#?}"
    );
    let footer = footer(&backup("apart"))?;
    let instant = footer["status"]["resourceVersion"]
        .as_str()
        .context("no instant")?;
    let apart: BTreeMap<&str, &str> = footer["types"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|entry| {
            Some((
                entry["resource"].as_str()?,
                entry["resourceVersion"].as_str()?,
            ))
        })
        .collect();
    ensure!(
        apart.keys().copied().collect::<Vec<_>>() == ["events", "things.wardle.example.com"],
        "{apart:?}"
    );
    for (resource, revision) in apart {
        said(
            &backup("apart"),
            &[&format!("{resource}: "), "another", instant, revision],
        )?;
    }

    // Its server is down: what it has is missing, and that is an error.
    behind.kill_api_server()?;
    wait_until(
        "the group to be known as stale",
        Duration::from_secs(120),
        async || {
            let available = cluster.kubectl(&[
                "get",
                "apiservice",
                "v1.wardle.example.com",
                "-o",
                "jsonpath={.status.conditions[?(@.type=='Available')].status}",
            ])?;
            Ok((available == "False").then_some(()))
        },
    )
    .await?;
    let finished = run("stale", 3).await?;
    ensure!(
        finished
            .stderr
            .contains("wardle.example.com/v1 cannot be discovered"),
        "{finished:?}"
    );
    let names = read(&backup("stale"))?;
    ensure!(
        !names.iter().any(|name| name.starts_with("things."))
            && names.contains("events app happened")
    );
    said(
        &backup("stale"),
        &["wardle.example.com/v1 cannot be discovered", "missing"],
    )?;
    let resource: Value = serde_json::from_str(&cluster.kubectl(&[
        "get",
        "backups.ark.heptio.com",
        "stale",
        "-n",
        "heptio-ark",
        "-o",
        "json",
    ])?)?;
    let status = &resource["status"];
    ensure!(
        status["phase"] == "PartiallyFailed"
            && status["errors"] == 1
            && status["messages"]
                .to_string()
                .contains("wardle.example.com/v1"),
        "{status:#}"
    );
    Ok(())
}
