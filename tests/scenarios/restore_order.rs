//! What a restore waits for, what it does not wait for, and what comes after what.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ark_tests::proxy::Request;
use ark_tests::{ControlPlane, FaultProxy, Options, wait_until};
use libtest_mimic::Trial;

use crate::place::{Place, cluster_with_widget, delete_namespace, exists, get, names};
use crate::world::{World, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "restore_order::p7_definitions_are_established_and_served_before_their_resources",
            definitions_first,
        ),
        scenario(
            "restore_order::p1_to_p5_a_terminating_namespace_is_waited_for",
            terminating,
        ),
        scenario(
            "restore_order::an_api_service_that_is_down_stalls_nothing",
            api_service_down,
        ),
        scenario(
            "restore_order::b3_webhooks_come_after_what_they_are_asked_about",
            webhooks_last,
        ),
    ]
}

/// The creates of a restore, as `resource/…` paths in the order in which they were sent.
fn creates(proxy: &FaultProxy) -> Vec<Request> {
    let mut all = proxy.requests();
    all.retain(|request| request.method == http::Method::POST && !request.query.contains("dryRun"));
    all
}

fn position(creates: &[Request], end: &str) -> Result<usize> {
    creates
        .iter()
        .position(|request| request.path.ends_with(end))
        .with_context(|| format!("no create of {end}"))
}

/// Also S11: a definition that the target lacks comes back with its objects.
async fn definitions_first() -> Result<()> {
    let cluster = cluster_with_widget().await?;
    let place = Place::new(&cluster)?;
    place.run(&["backup", "b"]).await?;
    cluster.kubectl(&["delete", "crd", "widgets.restore.example.com"])?;
    cluster.kubectl(&["delete", "namespace", "app"])?;
    let proxy = FaultProxy::start_before(&cluster).await?;
    let kubeconfig = cluster.kubeconfig_for(proxy.url())?;
    let restored = place
        .job_at(&kubeconfig, &["restore", "b"])
        .expect(0)
        .await?;
    ensure!(!restored.stderr.contains("level=warning"), "{restored:?}");
    ensure!(exists(&cluster, &["widget", "w", "-n", "app"])?);
    let creates = creates(&proxy);
    let (definition, widget) = (
        position(&creates, "/customresourcedefinitions")?,
        position(&creates, "/widgets")?,
    );
    ensure!(definition < widget, "{definition} {widget}");
    ensure!(position(&creates, "/namespaces")? < widget);
    // Not one create was too early: each was sent once, and taken.
    for request in &creates {
        let status = request.status.map_or(0, |status| status.as_u16());
        ensure!(
            status == 201 || !request.path.contains("restore.example.com"),
            "{request:?}"
        );
    }
    let looked = proxy.count(|request| {
        request.method == http::Method::GET
            && request
                .path
                .ends_with("/customresourcedefinitions/widgets.restore.example.com")
    });
    ensure!(
        looked >= 1,
        "nobody asked whether the definition is established"
    );
    Ok(())
}

/// P1: a healthy namespace is left alone; P2, P3, P5: one that terminates is waited for; P4: one that is gone is made.
async fn terminating() -> Result<()> {
    let world = World::new("terminating").await?;
    let cluster = world.cluster;
    let (healthy, stuck, gone) = (
        world.namespace("healthy").await?,
        world.namespace("stuck").await?,
        world.namespace("gone").await?,
    );
    let place = Place::new(cluster)?;
    for namespace in [&healthy, &stuck, &gone] {
        cluster.kubectl(&["create", "configmap", "c", "-n", namespace])?;
    }
    let included = format!("{healthy},{stuck},{gone}");
    place
        .run(&["backup", "b", "--include-namespaces", &included])
        .await?;
    // What holds the namespace: something with a finalizer that nobody takes off.
    let holder = format!(
        "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: holder, namespace: {stuck}, finalizers: [example.com/hold]}}}}"
    );
    cluster.kubectl_with_input(&["create", "-f", "-"], &holder)?;
    let uid = |name: &str| -> Result<String> {
        Ok(get(cluster, &["namespace", name])?["metadata"]["uid"].to_string())
    };
    let (healthy_uid, stuck_uid) = (uid(&healthy)?, uid(&stuck)?);
    delete_namespace(cluster, &gone)?;
    delete_namespace(cluster, &stuck)?;
    wait_until(
        "the namespace to be gone",
        Duration::from_secs(30),
        async || Ok((!exists(cluster, &["namespace", &gone])?).then_some(())),
    )
    .await?;
    wait_until(
        "the namespace to terminate",
        Duration::from_secs(30),
        async || {
            let phase = get(cluster, &["namespace", &stuck])?["status"]["phase"].clone();
            Ok((phase == "Terminating").then_some(()))
        },
    )
    .await?;
    let proxy = FaultProxy::start_before(cluster).await?;
    let kubeconfig = cluster.kubeconfig_for(proxy.url())?;
    let running = place
        .job_at(&kubeconfig, &["restore", "b", "--name", "r"])
        .start()?;
    let path = format!("/api/v1/namespaces/{stuck}");
    wait_until("the restore to wait", Duration::from_secs(30), async || {
        let looked =
            proxy.count(|request| request.method == http::Method::GET && request.path == path);
        Ok((looked >= 3).then_some(()))
    })
    .await?;
    let early =
        proxy.count(|request| request.is_write() && request.path.contains(&format!("/{stuck}/")));
    ensure!(early == 0, "{early} writes to a namespace that terminates");
    let free = r#"{"metadata":{"finalizers":null}}"#;
    cluster.kubectl(&[
        "patch",
        "configmap",
        "holder",
        "-n",
        &stuck,
        "--type=merge",
        "-p",
        free,
    ])?;
    let finished = running.wait().await?;
    ensure!(
        finished.code == Some(0) && !finished.stderr.contains("level=warning"),
        "{finished:?}"
    );
    for namespace in [&healthy, &stuck, &gone] {
        ensure!(names(cluster, "configmaps", namespace)?.contains(&"c".to_owned()));
    }
    ensure!(uid(&healthy)? == healthy_uid && uid(&stuck)? != stuck_uid);
    Ok(())
}

/// An aggregated API whose server is down, in the backup and in the cluster.
async fn api_service_down() -> Result<()> {
    let cluster = ControlPlane::start(Options {
        controller_manager: true,
        ..Options::default()
    })
    .await?;
    let place = Place::new(&cluster)?;
    cluster.kubectl(&["create", "namespace", "app"])?;
    cluster.kubectl(&["create", "configmap", "c", "-n", "app"])?;
    cluster.kubectl_with_input(
        &["create", "-f", "-"],
        "{apiVersion: apiregistration.k8s.io/v1, kind: APIService, metadata: {name: v1.down.example.com}, spec: {group: down.example.com, version: v1, groupPriorityMinimum: 100, versionPriority: 10, insecureSkipTLSVerify: true, service: {name: s, namespace: app}}}",
    )?;
    place
        .run(&["backup", "b", "--ignore-undiscoverable", "down.example.com"])
        .await?;
    for again in [false, true] {
        cluster.kubectl(&["delete", "configmap", "c", "-n", "app"])?;
        if !again {
            cluster.kubectl(&["delete", "apiservice", "v1.down.example.com"])?;
        }
        let started = Instant::now();
        place.run(&["restore", "b"]).await?;
        let took = started.elapsed();
        ensure!(
            took < Duration::from_secs(20),
            "again: {again}: it took {took:?}"
        );
        ensure!(exists(&cluster, &["apiservice", "v1.down.example.com"])?);
        ensure!(exists(&cluster, &["configmap", "c", "-n", "app"])?);
    }
    Ok(())
}

/// A webhook that refuses everything, since its server does not run: it would refuse what is restored after it.
async fn webhooks_last() -> Result<()> {
    let cluster = ControlPlane::start(Options {
        controller_manager: true,
        ..Options::default()
    })
    .await?;
    let place = Place::new(&cluster)?;
    cluster.kubectl(&["create", "namespace", "app"])?;
    cluster.kubectl_with_input(
        &["create", "-f", "-"],
        "{apiVersion: v1, kind: Service, metadata: {name: hook, namespace: app}, spec: {selector: {a: hook}, ports: [{port: 443}]}}\n\
         ---\n{apiVersion: apps/v1, kind: Deployment, metadata: {name: hook, namespace: app}, spec: {selector: {matchLabels: {a: hook}}, template: {metadata: {labels: {a: hook}}, spec: {containers: [{name: c, image: i}]}}}}\n\
         ---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: c, namespace: app}}\n",
    )?;
    let hooks = ["Validating", "Mutating"].map(|kind| {
        format!(
            "---\n{{apiVersion: admissionregistration.k8s.io/v1, kind: {kind}WebhookConfiguration, metadata: {{name: hook}}, webhooks: [{{name: h.example.com, clientConfig: {{service: {{name: hook, namespace: app}}}}, rules: [{{apiGroups: [\"*\"], apiVersions: [\"*\"], operations: [CREATE], resources: [configmaps, services, deployments]}}], failurePolicy: Fail, sideEffects: None, admissionReviewVersions: [v1], timeoutSeconds: 1}}]}}\n"
        )
    });
    cluster.kubectl_with_input(&["create", "-f", "-"], &hooks.concat())?;
    place.run(&["backup", "b"]).await?;
    cluster.kubectl(&[
        "delete",
        "validatingwebhookconfiguration,mutatingwebhookconfiguration",
        "hook",
    ])?;
    cluster.kubectl(&["delete", "namespace", "app"])?;
    let proxy = FaultProxy::start_before(&cluster).await?;
    let kubeconfig = cluster.kubeconfig_for(proxy.url())?;
    let started = Instant::now();
    place
        .job_at(&kubeconfig, &["restore", "b"])
        .expect(0)
        .await?;
    let took = started.elapsed();
    ensure!(took < Duration::from_secs(20), "it took {took:?}");
    let creates = creates(&proxy);
    let first_hook = position(&creates, "/validatingwebhookconfigurations")?
        .min(position(&creates, "/mutatingwebhookconfigurations")?);
    for what in ["/configmaps", "/services", "/deployments"] {
        ensure!(
            position(&creates, what)? < first_hook,
            "{what} came after webhooks"
        );
    }
    Ok(())
}
