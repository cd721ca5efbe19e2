//! A type with many objects is read namespace by namespace: the backup is whole all the same, and restores.

use std::process::Command;

use anyhow::{Result, ensure};
use ark_tests::job::ArkJob;
use ark_tests::{ControlPlane, FaultProxy, Options, Rule, process};
use futures::stream::{self, TryStreamExt};
use http::Request;
use libtest_mimic::Trial;
use serde_json::json;

use crate::backup::read;
use crate::world::scenario;

pub fn trials() -> Vec<Trial> {
    vec![scenario(
        "parts::a_type_read_namespace_by_namespace_is_whole_and_restores",
        read_in_parts,
    )]
}

/// Config maps in each of the namespaces; three times so many are enough to be read in parts.
const EACH: usize = 1_700;
/// In the order of keys, which is not that of names.
const NAMESPACES: [&str; 3] = ["a-b", "a", "a0"];

async fn read_in_parts() -> Result<()> {
    let cluster = ControlPlane::start(Options {
        // A server that does not care whether a namespace exists, as some that are aggregated.
        api_server_flags: vec![
            "--disable-admission-plugins=ServiceAccount,NamespaceLifecycle".into(),
        ],
        ..Options::default()
    })
    .await?;
    let client = &cluster.client().await?;
    for namespace in NAMESPACES {
        cluster.kubectl(&["create", "namespace", namespace])?;
    }
    let objects = NAMESPACES
        .iter()
        .flat_map(|namespace| (0..EACH).map(move |n| (*namespace, n)));
    stream::iter(objects.map(Ok::<_, anyhow::Error>))
        .try_for_each_concurrent(16, |(namespace, n)| async move {
            let object = json!({"metadata": {"name": format!("cm-{n}")}, "data": {"k": "v".repeat(n % 300)}});
            let path = format!("/api/v1/namespaces/{namespace}/configmaps");
            let request = Request::post(path)
                .header("content-type", "application/json")
                .body(object.to_string().into_bytes())?;
            client.request_text(request).await?;
            Ok(())
        })
        .await?;

    let directory = tempfile::tempdir()?;
    let storage = format!("file://{}", directory.path().display());
    let proxy = FaultProxy::start_before(&cluster).await?;
    let kubeconfig = cluster.kubeconfig_for(proxy.url())?;
    let backup = async |name: &str| -> Result<_> {
        proxy.clear_requests();
        let arguments = ["backup", name, "--storage", &storage];
        ArkJob::new(&kubeconfig, &arguments).expect(0).await?;
        // The reader checks that every part is sorted, and that the resource list has them in the order of keys.
        let names = read(&directory.path().join("backups").join(name))?;
        for namespace in NAMESPACES {
            let prefix = format!("configmaps {namespace} cm-");
            let found = names.iter().filter(|name| name.starts_with(&prefix));
            ensure!(found.count() == EACH, "{namespace} is not whole");
        }
        Ok(names)
    };
    let lists = |namespace: &'static str| {
        let path = format!("/api/v1/namespaces/{namespace}/configmaps");
        proxy.count(|request| request.path == path)
    };

    backup("whole").await?;
    for namespace in NAMESPACES {
        // A first page of 500, and one for the rest.
        ensure!(
            lists(namespace) == 2,
            "{namespace}: {} lists",
            lists(namespace)
        );
    }
    let all = proxy.count(|request| request.path.starts_with("/api/v1/configmaps"));
    ensure!(
        all <= 2,
        "{all} lists of all namespaces, for where the type stands and how many there are"
    );

    // The second page of one part breaks off, and is asked for again.
    let broken = proxy.add(
        Rule::on(|request| {
            request.path.starts_with("/api/v1/namespaces/a/configmaps")
                && request.query.contains("continue=")
        })
        .only(1)
        .truncate_answer(100_000),
    );
    backup("broken").await?;
    ensure!(
        broken.applied() == 1 && lists("a") == 3,
        "{} lists",
        lists("a")
    );
    proxy.clear_rules();

    // What is in a namespace that does not exist is not forgotten.
    cluster.kubectl_with_input(
        &["create", "-f", "-"],
        &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "stray", "namespace": "nowhere"}})
            .to_string(),
    )?;
    let names = backup("strays").await?;
    ensure!(
        names.contains("configmaps nowhere stray"),
        "the stray is missing"
    );

    // One namespace, found by its part, under another name.
    let arguments = [
        "restore",
        "whole",
        "--storage",
        &storage,
        "--include-namespaces",
        "a",
        "--namespace-mappings",
        "a:copy",
    ];
    ArkJob::new(cluster.kubeconfig(), &arguments)
        .expect(0)
        .await?;
    let listed = cluster.kubectl(&["get", "configmaps", "-n", "copy", "-o", "name"])?;
    ensure!(listed.lines().filter(|line| line.contains("/cm-")).count() == EACH);
    // One object, by the first and last key of members, from a part.
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/read_backup.py");
    let found = process::output(
        Command::new("python3")
            .arg(script)
            .arg(directory.path().join("backups/strays"))
            .args(["--get", "configmaps", "a0/cm-1234"]),
    )?;
    ensure!(found.contains("\"name\":\"cm-1234\"") && found.contains("\"namespace\":\"a0\""));
    Ok(())
}
