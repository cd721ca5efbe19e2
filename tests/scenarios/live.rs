//! What a restore knows beforehand of the objects in the cluster, and how it writes: asked of the real API server.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ark_job::cluster::discover::{ResourceType, discover};
use ark_job::cluster::pace::Pace;
use ark_job::cluster::{Cluster, apply};
use ark_job::log::Log;
use ark_job::restore::compare::{Digest, digest};
use ark_job::restore::live::{Hint, Live, Scope};
use ark_tests::{ControlPlane, FaultProxy, Options, Rule, wait_until};
use futures::stream::{self, StreamExt, TryStreamExt};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::world::{World, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "live::the_order_of_the_api_server_is_that_of_the_keys_bytes",
            order,
        ),
        scenario(
            "live::two_pages_are_read_ahead_to_their_ends_and_an_expired_list_goes_on",
            expired,
        ),
        scenario(
            "live::a_list_that_is_refused_or_breaks_off_is_said_once_and_nothing_is_known",
            refused,
        ),
        scenario(
            "live::changes_are_of_the_version_that_was_looked_at",
            changes,
        ),
        scenario("live::what_a_replaced_object_owns_stays", orphans),
        scenario(
            "live::a_server_that_throttles_everything_for_a_while_is_left_alone_and_written_to",
            throttled,
        ),
    ]
}

/// Connects as the program does: kube's client does not repeat requests on its own.
async fn connect(kubeconfig: &Path) -> Result<Cluster> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let mut config =
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.default_retry = false;
    Ok(Cluster::new(Client::try_from(config)?))
}

/// A log, and the directory it may need.
fn log() -> Result<(Log, tempfile::TempDir)> {
    let directory = tempfile::tempdir()?;
    Ok((Log::new(directory.path())?, directory))
}

async fn find(cluster: &Cluster, resource: &str, api_version: &str) -> Result<ResourceType> {
    let discovery = discover(cluster).await?;
    let found = discovery.find(resource, api_version).cloned();
    found.with_context(|| format!("no {resource} of {api_version}"))
}

/// Of what objects here differ in.
fn of_data(object: Value) -> Option<Digest> {
    let (version, kind) = (object.get("apiVersion")?, object.get("kind")?);
    Some(digest(
        &json!({"apiVersion": version, "kind": kind, "data": object["data"]}),
    ))
}

fn data(api_version: &str, kind: &str, data: &str) -> Hint {
    let object = json!({"apiVersion": api_version, "kind": kind, "data": {"k": data}});
    Hint::Present {
        digest: of_data(object).unwrap(),
    }
}

async fn order() -> Result<()> {
    let world = World::new("order").await?;
    // In bytes, "a-b/" comes before "a/".
    let (a, a_b) = (world.namespace("a").await?, world.namespace("a-b").await?);
    let group = format!("{}.example.com", world.prefix());
    world.cluster.kubectl_with_input(
        &["apply", "-f", "-"],
        &format!(
            "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: things.{group}}}\n\
             spec:\n  group: {group}\n  scope: Namespaced\n  names: {{plural: things, kind: Thing}}\n  versions:\n  - name: v1\n    \
             served: true\n    storage: true\n    schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}\n"
        ),
    )?;
    let crd = format!("crd/things.{group}");
    world
        .cluster
        .kubectl(&["wait", "--for=condition=Established", &crd, "--timeout=30s"])?;
    let cluster = Cluster::new(world.client.clone());
    let (log, _directory) = log()?;
    let pace = Pace::new(32, None);
    let things = format!("{group}/v1");
    for (resource, api_version, kind) in [
        ("configmaps".to_owned(), "v1", "ConfigMap"),
        (format!("things.{group}"), things.as_str(), "Thing"),
    ] {
        let served = wait_until(
            "the type to be served",
            Duration::from_secs(30),
            async || Ok(find(&cluster, &resource, api_version).await.ok()),
        );
        let resource_type = served.await?;
        for (namespace, name) in [(&a_b, "x"), (&a, "x"), (&a, "x.y"), (&a, "x-y")] {
            let object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "data": {"k": name}});
            let body = object.to_string().into();
            apply::create(
                &cluster,
                &pace,
                &resource_type,
                Some(namespace),
                name,
                body,
                false,
            )
            .await?;
        }
        let live = |scope| Live::new(&cluster, &log, &resource_type, scope, of_data);
        let mut all = live(Scope::Everywhere);
        let here = |data_of| data(api_version, kind, data_of);
        for (key, hint) in [
            (format!("{a_b}/a"), Hint::Absent),
            (format!("{a_b}/x"), here("x")),
            (format!("{a}/w"), Hint::Absent),
            (format!("{a}/x"), here("x")),
            (format!("{a}/x"), here("x")),
            (format!("{a}/x-y"), here("x-y")),
            (format!("{a}/x.y"), here("x.y")),
            ("zzz/x".to_owned(), Hint::Absent),
            // Out of order: nothing is known any more.
            (format!("{a}/x"), Hint::Unknown),
            ("zzz/x".to_owned(), Hint::Unknown),
        ] {
            ensure!(all.look_up(&key).await == hint, "{key} of {resource}");
        }
        let mut one = live(Scope::Namespace(a.clone()));
        ensure!(one.look_up(&format!("{a_b}/x")).await == Hint::Absent);
        ensure!(one.look_up(&format!("{a}/x.y")).await == here("x.y"));

        // One on its way out is neither there nor not.
        let going = format!("{}/x", resource.split('.').next().unwrap());
        let kubectl = |arguments: &[&str]| world.cluster.kubectl(arguments);
        let hold = |finalizers: &str| {
            let patch = format!(r#"{{"metadata":{{"finalizers":{finalizers}}}}}"#);
            kubectl(&["patch", &going, "-n", &a, "--type=merge", "-p", &patch])
        };
        hold(r#"["example.com/hold"]"#)?;
        kubectl(&["delete", &going, "-n", &a, "--wait=false"])?;
        let mut one = live(Scope::Namespace(a.clone()));
        ensure!(one.look_up(&format!("{a}/x")).await == Hint::Unknown);
        hold("null")?;
    }
    kubectl_delete(&world, &crd)
}

fn kubectl_delete(world: &World, what: &str) -> Result<()> {
    world.cluster.kubectl(&["delete", what]).map(drop)
}

/// Objects of 20 KB: a first page of 500, then some 235 a page.
async fn fill(cluster: &Cluster, config_maps: &ResourceType, number: usize) -> Result<()> {
    let pace = Pace::new(32, None);
    let filling = "x".repeat(20_000);
    stream::iter(0..number)
        .map(|n| {
            let name = format!("fill-{n:05}");
            let object = json!({"metadata": {"name": name}, "data": {"k": filling}});
            let pace = &pace;
            async move {
                let body = object.to_string().into();
                apply::create(
                    cluster,
                    pace,
                    config_maps,
                    Some("default"),
                    &name,
                    body,
                    false,
                )
                .await
            }
        })
        .buffer_unordered(32)
        .try_for_each(async |_| Ok(()))
        .await
        .context("creating objects")
}

async fn expired() -> Result<()> {
    // Without the watch cache's snapshots, which would still answer for a while.
    let control_plane = ControlPlane::start(Options {
        api_server_flags: vec!["--feature-gates=ListFromCacheSnapshot=false".into()],
        ..Options::default()
    })
    .await?;
    let direct = Cluster::new(control_plane.client().await?);
    let config_maps = find(&direct, "configmaps", "v1").await?;
    fill(&direct, &config_maps, 1_300).await?;
    let proxy = FaultProxy::start_before(&control_plane).await?;
    let kubeconfig = control_plane.kubeconfig_for(proxy.url())?;
    let cluster = connect(&kubeconfig).await?;
    let (log, _directory) = log()?;
    let scope = Scope::Namespace("default".into());
    let mut live = Live::new(&cluster, &log, &config_maps, scope, of_data);
    let present = data("v1", "ConfigMap", &"x".repeat(20_000));
    ensure!(live.look_up("default/fill-00000").await == present);

    // 735 objects are ahead. Whoever asks takes his time; so nothing more is asked for, and nothing is left half-read.
    let lists = |request: &ark_tests::proxy::Request| request.path.ends_with("/configmaps");
    let read = |requests: &[ark_tests::proxy::Request]| -> u64 {
        requests.iter().map(|request| request.received).sum()
    };
    wait_until(
        "two pages to be read",
        Duration::from_secs(30),
        async || {
            let requests = proxy.requests();
            let bytes = read(&requests);
            Ok((requests.len() == 2 && bytes > 735 * 20_000).then_some(()))
        },
    )
    .await?;
    direct_create(&control_plane, "zz-later")?;
    control_plane.compact().await?;
    ensure!(proxy.count(lists) == 2, "{:?}", proxy.requests());

    let mut known = 1;
    for n in 1..1_300 {
        let hint = live.look_up(&format!("default/fill-{n:05}")).await;
        known += usize::from(hint == present);
        let neighbour = live.look_up(&format!("default/fill-{n:05}a")).await;
        ensure!(neighbour == Hint::Absent);
    }
    ensure!(known == 1_300, "only {known} are known");
    ensure!(proxy.count(|request| request.status.is_some_and(|status| status == 410)) >= 1);
    // The rest is of a newer revision.
    let later = live.look_up("default/zz-later").await;
    ensure!(matches!(later, Hint::Present { .. }), "{later:?}");
    ensure!(log.tail(1000)?.is_empty(), "{}", log.tail(1000)?);
    Ok(())
}

fn direct_create(control_plane: &ControlPlane, name: &str) -> Result<()> {
    control_plane
        .kubectl(&["create", "configmap", name, "--from-literal=k=x"])
        .map(drop)
}

async fn refused() -> Result<()> {
    let world = World::new("refused").await?;
    let namespace = world.namespace("app").await?;
    world
        .cluster
        .kubectl(&["create", "configmap", "x", "-n", &namespace])?;
    let proxy = FaultProxy::start_before(world.cluster).await?;
    let kubeconfig = world.cluster.kubeconfig_for(proxy.url())?;
    let cluster = connect(&kubeconfig).await?;
    let mut config_maps = find(&cluster, "configmaps", "v1").await?;
    let (log, _directory) = log()?;
    let lists = || Rule::on(|request| request.path.ends_with("/configmaps"));
    let live = |resource_type: &ResourceType| {
        Live::new(
            &cluster,
            &log,
            resource_type,
            Scope::Namespace(namespace.clone()),
            of_data,
        )
    };
    let key = format!("{namespace}/x");

    // What passes is tried again.
    proxy.add(lists().up_to(2).answer(503, &[], ""));
    proxy.add(lists().up_to(1).truncate_answer(50));
    ensure!(matches!(
        live(&config_maps).look_up(&key).await,
        Hint::Present { .. }
    ));
    ensure!(log.tail(1000)?.is_empty(), "{}", log.tail(1000)?);
    proxy.clear_rules();

    proxy.add(lists().answer(403, &[], "no"));
    let mut unknown = live(&config_maps);
    ensure!(unknown.look_up(&key).await == Hint::Unknown);
    ensure!(unknown.look_up("zzz/x").await == Hint::Unknown);
    let said = log.tail(1000)?;
    ensure!(
        said.lines().count() == 1 && said.contains("which configmaps are in the cluster"),
        "{said}"
    );

    proxy.clear_requests();
    config_maps.verbs.retain(|verb| verb != "list");
    ensure!(live(&config_maps).look_up(&key).await == Hint::Unknown);
    ensure!(proxy.requests().is_empty());
    Ok(())
}

async fn changes() -> Result<()> {
    let world = World::new("changes").await?;
    let namespace = world.namespace("app").await?;
    let name = namespace.as_str();
    let namespace = Some(name);
    let cluster = Cluster::new(world.client.clone());
    let config_maps = find(&cluster, "configmaps", "v1").await?;
    let pace = Pace::new(4, None);
    let create = async |dry_run| {
        let object = json!({"metadata": {"name": "x"}, "data": {"k": "1"}, "nonsense": 1});
        let body = object.to_string().into();
        apply::create(&cluster, &pace, &config_maps, namespace, "x", body, dry_run).await
    };
    let new = apply::Created::New {
        warnings: vec![r#"unknown field "nonsense""#.into()],
    };
    let exists = apply::Created::Exists { maybe_ours: false };
    let read = async || apply::read(&cluster, &config_maps, namespace, "x").await;
    ensure!(create(true).await? == new);
    ensure!(read().await?.is_none());
    ensure!(create(false).await? == new);
    ensure!(create(true).await? == exists && create(false).await? == exists);

    let first = read().await?.context("gone")?;
    let patch = async |name, data: &str, dry_run| {
        let version = &first["metadata"]["resourceVersion"];
        let patch = json!({"metadata": {"resourceVersion": version}, "data": {"k": data}});
        let body = patch.to_string().into();
        apply::merge_patch(
            &cluster,
            &pace,
            &config_maps,
            namespace,
            name,
            body,
            dry_run,
        )
        .await
    };
    let would_be = patch("x", "2", true).await?;
    ensure!(would_be["data"]["k"] == "2" && read().await?.as_ref() == Some(&first));
    let changed = patch("x", "2", false).await?;
    ensure!(read().await?.as_ref() == Some(&changed));
    ensure!(
        patch("x", "3", false)
            .await
            .is_err_and(|error| error.is_conflict())
    );
    ensure!(
        patch("y", "3", false)
            .await
            .is_err_and(|error| error.is_not_found())
    );

    let none = apply::patch_status(
        &cluster,
        &pace,
        &config_maps,
        namespace,
        "x",
        &json!({}),
        None,
    )
    .await;
    ensure!(none.is_err_and(|error| error.is_not_found()));
    let namespaces = find(&cluster, "namespaces", "v1").await?;
    let status = json!({"conditions": [{"type": "Tested", "status": "True"}]});
    let set = async |version| {
        apply::patch_status(&cluster, &pace, &namespaces, None, name, &status, version).await
    };
    ensure!(set(Some("1")).await.is_err_and(|error| error.is_conflict()));
    ensure!(set(None).await?["status"]["conditions"][0]["type"] == "Tested");

    let delete = async |uid: &str| {
        apply::delete_with_uid(&cluster, &pace, &config_maps, namespace, "x", uid).await
    };
    ensure!(
        delete("another")
            .await
            .is_err_and(|error| error.is_conflict())
    );
    ensure!(delete(uid(&first)?).await?);
    let within = apply::OBJECT_GONE_WITHIN;
    ensure!(apply::wait_until_gone(&cluster, &config_maps, namespace, "x", within).await?);
    ensure!(!delete(uid(&first)?).await?);
    Ok(())
}

fn uid(object: &Value) -> Result<&str> {
    object["metadata"]["uid"].as_str().context("no UID")
}

async fn orphans() -> Result<()> {
    let world = World::new("orphans").await?;
    let namespace = world.namespace("app").await?;
    let namespace = Some(namespace.as_str());
    let cluster = Cluster::new(world.client.clone());
    let deployments = find(&cluster, "deployments.apps", "apps/v1").await?;
    let replica_sets = find(&cluster, "replicasets.apps", "apps/v1").await?;
    let pace = Pace::new(4, None);
    let object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "web", "image": "registry.invalid/web"}]},
        }},
    });
    let create = async || {
        let body = object.to_string().into();
        apply::create(&cluster, &pace, &deployments, namespace, "web", body, false).await
    };
    let owned = async |owner: &str| -> Result<Option<String>> {
        let path = replica_sets.path(namespace);
        let list: Value = cluster.get(&path, "listing").await?;
        let all = list["items"].as_array().context("no items")?;
        let owned = all
            .iter()
            .find(|one| one["metadata"]["ownerReferences"][0]["uid"] == owner);
        owned.map(|one| Ok(uid(one)?.to_owned())).transpose()
    };
    create().await?;
    let first = apply::read(&cluster, &deployments, namespace, "web").await?;
    let first = first.context("gone")?;
    let within = Duration::from_secs(30);
    let before = wait_until("the replica set", within, async || {
        owned(uid(&first)?).await
    })
    .await?;
    ensure!(
        apply::delete_with_uid(
            &cluster,
            &pace,
            &deployments,
            namespace,
            "web",
            uid(&first)?
        )
        .await?
    );
    ensure!(
        apply::wait_until_gone(
            &cluster,
            &deployments,
            namespace,
            "web",
            apply::OBJECT_GONE_WITHIN
        )
        .await?
    );
    create().await?;
    let second = apply::read(&cluster, &deployments, namespace, "web").await?;
    let second = second.context("gone")?;
    let after = wait_until("it to be adopted", within, async || {
        owned(uid(&second)?).await
    })
    .await?;
    ensure!(before == after, "another replica set was made");
    Ok(())
}

async fn throttled() -> Result<()> {
    let world = World::new("throttled").await?;
    let namespace = world.namespace("app").await?;
    let proxy = FaultProxy::start_before(world.cluster).await?;
    let kubeconfig = world.cluster.kubeconfig_for(proxy.url())?;
    let cluster = connect(&kubeconfig).await?;
    let config_maps = find(&cluster, "configmaps", "v1").await?;
    proxy.clear_requests();
    let refusal = Rule::on(|request| request.is_write());
    let refused = proxy.add(refusal.up_to(33).answer(
        429,
        &[("retry-after", "1")],
        "too many requests",
    ));
    let pace = Pace::new(32, None);
    let creates = (0..64).map(|n| {
        let (cluster, pace, config_maps, namespace) = (&cluster, &pace, &config_maps, &namespace);
        async move {
            let name = format!("x-{n}");
            let body = json!({"metadata": {"name": name}}).to_string().into();
            apply::create(
                cluster,
                pace,
                config_maps,
                Some(namespace),
                &name,
                body,
                false,
            )
            .await
        }
    });
    let created = futures::future::join_all(creates).await;
    for answer in created {
        ensure!(matches!(answer?, apply::Created::New { .. }));
    }
    ensure!(refused.applied() == 33);
    let writes: Vec<_> = proxy
        .requests()
        .into_iter()
        .filter(|request| request.is_write())
        .collect();
    ensure!(writes.len() == 97);
    // 16 at first; a second later 8, another second later 4, and so on.
    let seconds = |n: usize| (writes[n].at - writes[0].at).as_secs_f64();
    for (last, first) in [(15, 16), (23, 24), (27, 28), (29, 30), (30, 31)] {
        let pause = seconds(first) - seconds(last);
        ensure!(pause > 0.7, "{pause} s between {last} and {first}");
    }
    Ok(())
}
