//! `--dry-run=server`: what is printed is what then happens, object by object, and printing changes nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ark_tests::{ControlPlane, FaultProxy, Options, job, wait_until};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::place::{Place, exists};
use crate::world::scenario;

pub fn trials() -> Vec<Trial> {
    vec![scenario(
        "restore_preview::what_is_printed_is_what_then_happens",
        printed,
    )]
}

/// `apiVersion/Kind namespace/name` → what is done with it, in the words of the resource list.
type Deeds = BTreeMap<String, String>;

/// The plan's JSON lines.
fn planned(place: &Place<'_>, kubeconfig: &Path, flags: &[&str]) -> Result<(Deeds, Vec<Value>)> {
    let storage = format!("--storage=file://{}", place.path().display());
    let output = Command::new(job::program("ark-job")?)
        .args([
            "restore",
            "b",
            &storage,
            "--dry-run=server",
            "--output=json",
        ])
        .args(flags)
        .env("KUBECONFIG", kubeconfig)
        .stdin(Stdio::null())
        .output()?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    // A plan that has refusals is printed all the same.
    ensure!(matches!(output.status.code(), Some(0 | 3)), "{errors}");
    let (mut deeds, mut lines) = (Deeds::new(), Vec::new());
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let line: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        if let (Some(action), Some(name)) = (line["action"].as_str(), line["name"].as_str()) {
            let word = match action {
                "create" => "created",
                "update" | "recreate" => "updated",
                "unchanged" => "unchanged",
                "leave" | "skip" => "skipped",
                "refuse" => "failed",
                other => anyhow::bail!("nobody knows the action {other}"),
            };
            let (version, kind) = (line["apiVersion"].as_str(), line["kind"].as_str());
            let place = line["namespace"]
                .as_str()
                .map_or(String::new(), |namespace| format!("{namespace}/"));
            let key = format!(
                "{}/{} {place}{name}",
                version.unwrap_or_default(),
                kind.unwrap_or_default()
            );
            ensure!(
                deeds.insert(key, word.to_owned()).is_none(),
                "{line} is there twice"
            );
        }
        lines.push(line);
    }
    Ok((deeds, lines))
}

/// The stored list of what was done.
fn done(place: &Place<'_>, name: &str) -> Result<Deeds> {
    let list = place.list(name)?;
    let mut deeds = Deeds::new();
    for (of, objects) in list.as_object().context("not a map")? {
        for object in objects.as_array().context("not a list")? {
            let text = object.as_str().unwrap_or_default();
            let (key, word) = text
                .strip_suffix(')')
                .and_then(|text| text.rsplit_once('('))
                .context("no word")?;
            deeds.insert(format!("{of} {key}"), word.to_owned());
        }
    }
    Ok(deeds)
}

/// A matrix: same, different, gone, immutable, refused, skipped, in a namespace that is there, gone, or mapped; under each policy.
async fn printed() -> Result<()> {
    // With controllers: without a garbage collector nothing that is deleted for being made again would go.
    let cluster = ControlPlane::start(Options {
        controller_manager: true,
        ..Options::default()
    })
    .await?;
    let proxy = FaultProxy::start_before(&cluster).await?;
    let kubeconfig = cluster.kubeconfig_for(proxy.url())?;
    let place = Place::new(&cluster)?;
    let objects = |namespace: &str, value: &str| {
        format!(
            "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: same, namespace: {namespace}}}, data: {{k: v}}}}\n\
             ---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: different, namespace: {namespace}}}, data: {{k: {value}}}}}\n\
             ---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: frozen, namespace: {namespace}}}, data: {{k: {value}}}, immutable: true}}\n\
             ---\n{{apiVersion: v1, kind: Secret, metadata: {{name: secret, namespace: {namespace}}}, stringData: {{k: {value}}}}}\n\
             ---\n{{apiVersion: v1, kind: Service, metadata: {{name: service, namespace: {namespace}, labels: {{l: {value}}}}}, spec: {{ports: [{{port: 80}}]}}}}\n\
             ---\n{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: web, namespace: {namespace}}}, spec: {{paused: true, selector: {{matchLabels: {{a: {value}}}}}, template: {{metadata: {{labels: {{a: {value}}}}}, spec: {{containers: [{{name: c, image: i}}]}}}}}}}}\n\
             ---\n{{apiVersion: v1, kind: Pod, metadata: {{name: pod, namespace: {namespace}}}, spec: {{containers: [{{name: c, image: i}}]}}}}\n"
        )
    };
    for namespace in ["there", "gone"] {
        cluster.kubectl(&["create", "namespace", namespace])?;
        wait_until("an account for pods", Duration::from_secs(30), async || {
            let there = exists(&cluster, &["serviceaccount", "default", "-n", namespace])?;
            Ok(there.then_some(()))
        })
        .await?;
        cluster.kubectl_with_input(&["create", "-f", "-"], &objects(namespace, "old"))?;
    }
    place.run(&["backup", "b"]).await?;
    let reset = || -> Result<()> {
        for namespace in ["there", "gone"] {
            let all = [
                "delete",
                "configmaps,secrets,services,deployments,pods",
                "--all",
                "-n",
                namespace,
                "--force",
                "--grace-period=0",
            ];
            cluster.kubectl(&all)?;
        }
        cluster
            .kubectl_with_input(&["create", "-f", "-"], &objects("there", "new"))
            .map(drop)?;
        // Missing in a namespace that is there.
        cluster
            .kubectl(&["delete", "service", "service", "-n", "there"])
            .map(drop)
    };
    let cases: [(&str, &[&str]); 5] = [
        ("none", &[]),
        ("update", &["--existing-resource-policy=update", "--yes"]),
        (
            "recreate",
            &["--existing-resource-policy=recreate", "--yes"],
        ),
        (
            "selected",
            &[
                "--include-namespaces=there",
                "--include-resources=configmaps,secrets",
            ],
        ),
        (
            "mapped",
            &[
                "--include-namespaces=gone",
                "--namespace-mappings=gone:elsewhere",
                // Its controller makes it too, sooner or later.
                "--exclude-resources=serviceaccounts",
            ],
        ),
    ];
    for (name, flags) in cases {
        reset()?;
        proxy.clear_requests();
        let (plan, lines) = planned(&place, &kubeconfig, flags)?;
        let written = proxy.requests();
        let written: Vec<_> = written
            .iter()
            .filter(|request| request.is_write() && !request.query.contains("dryRun=All"))
            .collect();
        ensure!(written.is_empty(), "{name}: printing wrote {written:?}");
        ensure!(
            !place.path().join("restores").join(name).exists(),
            "{name}: something was stored"
        );
        ensure!(plan.len() >= 3, "{name}: {lines:#?}");
        let arguments = [&["restore", "b", "--name", name], flags].concat();
        let finished = place.job(&arguments).run().await?;
        let refused = plan.values().any(|word| word == "failed");
        ensure!(
            finished.code == Some(if refused { 3 } else { 0 }),
            "{name}: {finished:?}"
        );
        let deeds = done(&place, name)?;
        let differ: Vec<_> = plan
            .keys()
            .chain(deeds.keys())
            .filter(|key| plan.get(*key) != deeds.get(*key))
            .map(|key| {
                format!(
                    "{key}: planned {:?}, done {:?}",
                    plan.get(key),
                    deeds.get(key)
                )
            })
            .collect();
        ensure!(differ.is_empty(), "{name}: {differ:#?}");
        if name == "update" {
            ensure!(refused, "an immutable field is refused: {lines:#?}");
            let field = lines.iter().any(|line| {
                line["name"] == "different"
                    && line["differences"].to_string().contains("\"old\"")
                    && line["differences"].to_string().contains("\"new\"")
            });
            ensure!(field, "no field is shown: {lines:#?}");
            let secret = lines.iter().find(|line| line["name"] == "secret");
            let shown = secret.map(Value::to_string).unwrap_or_default();
            ensure!(
                !shown.contains("b2xk") && !shown.contains("bmV3"),
                "{shown}"
            );
        }
    }
    Ok(())
}
