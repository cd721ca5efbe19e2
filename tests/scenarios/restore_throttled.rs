//! An API server that has too much to do, or has forgotten the list that a restore is reading.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use ark_tests::proxy::Request;
use ark_tests::{ControlPlane, FaultProxy, Options, Rule};
use libtest_mimic::Trial;
use serde_json::json;

use crate::place::{Place, delete_namespace, names};
use crate::world::{World, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "restore_throttled::an_api_server_that_throttles_is_not_pushed",
            throttled,
        ),
        scenario(
            "restore_throttled::a_live_list_that_expires_is_gone_on_with",
            list_expires,
        ),
    ]
}

/// An API server that answers every burst with 429 is never pushed, and throttling alone is never an error.
async fn throttled() -> Result<()> {
    let world = World::new("throttled").await?;
    let (cluster, namespace) = (world.cluster, world.namespace("app").await?);
    let place = Place::new(cluster)?;
    let manifest: String = (0..60)
        .map(|n| format!("---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: cm-{n}, namespace: {namespace}}}}}\n"))
        .collect();
    cluster.kubectl_with_input(&["create", "-f", "-"], &manifest)?;
    place
        .run(&["backup", "b", "--include-namespaces", &namespace])
        .await?;
    let proxy = FaultProxy::start_before(cluster).await?;
    let kubeconfig = cluster.kubeconfig_for(proxy.url())?;
    let is_create = |request: &Request| request.is_write() && request.path.ends_with("/configmaps");
    // Ten pass, and then for two seconds none: told with each refusal, and counted from the first of them.
    let bursts = Arc::new(Mutex::new((0, None::<Instant>)));
    let refused = proxy.add(
        Rule::on(move |request| {
            if !is_create(request) {
                return false;
            }
            let (passed, until) = &mut *bursts.lock().unwrap();
            if until.is_some_and(|until| request.at < until) {
                return true;
            }
            if *passed < 10 {
                *passed += 1;
                return false;
            }
            (*passed, *until) = (0, Some(request.at + RETRY_AFTER));
            true
        })
        .answer(429, &[("retry-after", "2")], "{}"),
    );
    let target = format!("{namespace}-new");
    let mapping = format!("{namespace}:{target}");
    let arguments = ["restore", "b", "--namespace-mappings", &mapping];
    let finished = place.job_at(&kubeconfig, &arguments).expect(0).await?;
    ensure!(finished.stderr.contains(" 0 failed"), "{finished:?}");
    let found = names(cluster, "configmaps", &target)?;
    ensure!(found.iter().filter(|name| name.starts_with("cm-")).count() == 60);
    ensure!(refused.applied() >= 3, "{} refusals", refused.applied());
    // Those that were under way when the first refusal came may be refused too; then there is quiet.
    let creates: Vec<Request> = proxy.requests().into_iter().filter(is_create).collect();
    let mut until: Option<(Instant, Instant)> = None;
    for request in &creates {
        if let Some((told, until)) = until
            && request.at > told + UNDER_WAY
        {
            ensure!(
                request.at + CLOCKS >= until,
                "a create {:?} before Retry-After was over",
                until - request.at
            );
        }
        if request.status.is_some_and(|status| status.as_u16() == 429)
            && until.is_none_or(|(_, until)| request.at >= until)
        {
            until = Some((request.at, request.at + RETRY_AFTER));
        }
    }
    delete_namespace(cluster, &target)
}

const RETRY_AFTER: Duration = Duration::from_secs(2);
/// What has been sent before the answer is read.
const UNDER_WAY: Duration = Duration::from_millis(500);
/// A request is seen here a little after it is sent; a pause of 2 s is counted from the answer, not from the question.
const CLOCKS: Duration = Duration::from_millis(20);

/// A live list whose continue token has expired (410) in the middle of a restore is gone on with.
async fn list_expires() -> Result<()> {
    // One of its own: another's lists would be compacted, too.
    let cluster = ControlPlane::start(Options::default()).await?;
    let place = Place::new(&cluster)?;
    cluster.kubectl(&["create", "namespace", "app"])?;
    let create = |range: std::ops::Range<u32>| -> Result<()> {
        let manifest: String = range
            .map(|n| format!("---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: cm-{n:04}, namespace: app}}}}\n"))
            .collect();
        cluster
            .kubectl_with_input(&["create", "-f", "-"], &manifest)
            .map(drop)
    };
    create(0..1_200)?;
    place.run(&["backup", "b"]).await?;
    cluster.kubectl(&["delete", "configmap", "cm-0007", "cm-0900", "-n", "app"])?;
    let proxy = FaultProxy::start_before(&cluster).await?;
    let kubeconfig = cluster.kubeconfig_for(proxy.url())?;
    let is_continued = |request: &Request| {
        request.path.ends_with("/configmaps") && request.query.contains("continue=")
    };
    let expired = proxy.add(Rule::on(is_continued).only(1).answer(
        410,
        &[("content-type", "application/json")],
        json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410, "reason": "Expired",
            "message": "The provided continue parameter is too old to display a consistent list result.",
            "metadata": {},
        })
        .to_string(),
    ));
    let finished = place
        .job_at(&kubeconfig, &["restore", "b", "--name", "r"])
        .expect(0)
        .await?;
    ensure!(
        expired.applied() == 1,
        "no second page was asked for: {finished:?}"
    );
    ensure!(
        finished.stderr.contains(" 2 created") && finished.stderr.contains(" 0 failed"),
        "{finished:?}"
    );
    ensure!(names(&cluster, "configmaps", "app")?.len() == 1_200);
    Ok(())
}
