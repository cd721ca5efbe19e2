//! The fault proxy: each fault does to a real server's traffic what it says, and nothing else.

use std::process::Command;

use anyhow::{Context, Result};
use ark_tests::{Bucket, ControlPlane, FaultProxy, Options, Rule, Victim, process, s3};
use aws_sdk_s3::config::ResponseChecksumValidation;
use libtest_mimic::Trial;

use crate::world::{World, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "proxy::requests_pass_with_their_signature_and_are_counted",
            requests_pass_and_are_counted,
        ),
        scenario(
            "proxy::an_answered_request_never_reaches_the_server",
            an_answered_request_never_reaches_the_server,
        ),
        scenario(
            "proxy::a_lost_answer_leaves_the_object_written",
            a_lost_answer_leaves_the_object_written,
        ),
        scenario(
            "proxy::a_broken_upload_leaves_nothing",
            a_broken_upload_leaves_nothing,
        ),
        scenario("proxy::damaged_answers_differ", damaged_answers_differ),
        scenario(
            "proxy::a_kill_before_a_write_prevents_it",
            a_kill_before_a_write_prevents_it,
        ),
        scenario(
            "proxy::a_kill_after_a_write_leaves_it_done",
            a_kill_after_a_write_leaves_it_done,
        ),
        scenario(
            "proxy::kubectl_works_through_a_proxy",
            kubectl_works_through_a_proxy,
        ),
        scenario(
            "proxy::a_compacted_revision_is_gone",
            a_compacted_revision_is_gone,
        ),
    ]
}

/// A proxy before the shared S3 server, and the shared bucket as seen through it.
async fn broken_bucket(world: &World) -> Result<(FaultProxy, aws_sdk_s3::Client)> {
    let proxy = FaultProxy::start(world.s3.url()).await?;
    let client = s3::client(proxy.url());
    Ok((proxy, client))
}

/// A conditional PUT without the SDK's retries: one request, one outcome.
async fn put_once(
    client: &aws_sdk_s3::Client,
    bucket: &Bucket,
    key: &str,
    body: Vec<u8>,
) -> Result<()> {
    let once = client
        .config()
        .to_builder()
        .retry_config(aws_sdk_s3::config::retry::RetryConfig::disabled())
        .build();
    let put = aws_sdk_s3::Client::from_conf(once)
        .put_object()
        .bucket(bucket.name())
        .key(key)
        .if_none_match("*");
    put.body(body.into()).send().await?;
    Ok(())
}

async fn read(client: &aws_sdk_s3::Client, bucket: &Bucket, key: &str) -> Result<Vec<u8>> {
    let object = client
        .get_object()
        .bucket(bucket.name())
        .key(key)
        .send()
        .await?;
    Ok(object.body.collect().await?.to_vec())
}

async fn requests_pass_and_are_counted() -> Result<()> {
    let world = World::new("counted").await?;
    let (proxy, client) = broken_bucket(&world).await?;
    let key = format!("{}/key", world.prefix());
    let body: Vec<u8> = (0..3_000_000u32).map(|number| number as u8).collect();
    put_once(&client, &world.bucket, &key, body.clone()).await?;
    assert_eq!(read(&client, &world.bucket, &key).await?, body);
    let requests = proxy.requests();
    assert_eq!(requests.len(), 2);
    assert!(requests[0].is_write() && requests[0].path.ends_with(&key));
    assert!(requests[0].sent >= 3_000_000);
    assert_eq!(requests[1].received, 3_000_000);
    assert!(
        requests
            .iter()
            .all(|request| request.status.is_some_and(|status| status.is_success()))
    );
    Ok(())
}

async fn an_answered_request_never_reaches_the_server() -> Result<()> {
    let world = World::new("answered").await?;
    let (proxy, client) = broken_bucket(&world).await?;
    let key = format!("{}/key", world.prefix());
    let slow_down = proxy.add(Rule::on(|request| request.is_write()).only(1).answer(
        503,
        &[],
        "<Error><Code>SlowDown</Code></Error>",
    ));
    let refused = put_once(&client, &world.bucket, &key, b"x".to_vec()).await;
    assert!(refused.is_err());
    assert_eq!(
        world.bucket.keys(world.prefix()).await?,
        Vec::<String>::new()
    );
    put_once(&client, &world.bucket, &key, b"x".to_vec()).await?;
    assert_eq!((slow_down.matched(), slow_down.applied()), (2, 1));
    Ok(())
}

async fn a_lost_answer_leaves_the_object_written() -> Result<()> {
    let world = World::new("lost").await?;
    let (proxy, client) = broken_bucket(&world).await?;
    let key = format!("{}/key", world.prefix());
    proxy.add(Rule::on(|request| request.is_write()).lose_answer());
    let lost = put_once(&client, &world.bucket, &key, b"x".to_vec()).await;
    assert!(lost.is_err());
    assert_eq!(world.bucket.get(&key).await?, "x");
    assert_eq!(proxy.requests()[0].status, None);
    Ok(())
}

async fn a_broken_upload_leaves_nothing() -> Result<()> {
    let world = World::new("broken").await?;
    let (proxy, client) = broken_bucket(&world).await?;
    let key = format!("{}/key", world.prefix());
    proxy.add(Rule::on(|request| request.is_write()).truncate_request(100_000));
    let broken = put_once(&client, &world.bucket, &key, vec![7; 1_000_000]).await;
    assert!(broken.is_err());
    assert_eq!(
        world.bucket.keys(world.prefix()).await?,
        Vec::<String>::new()
    );
    assert_eq!(proxy.requests()[0].sent, 100_000);
    Ok(())
}

async fn damaged_answers_differ() -> Result<()> {
    let world = World::new("damaged").await?;
    let (proxy, _) = broken_bucket(&world).await?;
    let key = format!("{}/key", world.prefix());
    world.bucket.put(&key, vec![8u8; 100_000]).await?;
    // The SDK would notice by itself: it checks the sums that it sent with the object.
    let trusting = s3::client(proxy.url()).config().to_builder();
    let trusting = trusting
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .build();
    let trusting = aws_sdk_s3::Client::from_conf(trusting);
    let get = async || {
        let object = trusting.get_object().bucket(world.bucket.name()).key(&key);
        let object = object.send().await.context("asking")?;
        object
            .body
            .collect()
            .await
            .map(|body| body.to_vec())
            .context("reading")
    };
    proxy.add(Rule::on_all().only(1).flip_bit(70_000));
    let flipped = get().await?;
    assert_eq!(
        flipped
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte != 8)
            .collect::<Vec<_>>(),
        [(70_000, &9)]
    );
    proxy.clear_rules();

    proxy.add(Rule::on_all().truncate_answer(60_000));
    assert!(get().await.is_err());
    assert_eq!(
        proxy.requests().last().map(|request| request.received),
        Some(60_000)
    );
    proxy.clear_rules();

    proxy.add(Rule::on_all().change_length(-1));
    assert_eq!(get().await?.len(), 99_999);
    proxy.clear_rules();

    proxy.add(Rule::on_all().change_length(1));
    assert!(get().await.is_err());
    proxy.clear_rules();

    assert_eq!(get().await?, vec![8u8; 100_000]);
    Ok(())
}

async fn a_kill_before_a_write_prevents_it() -> Result<()> {
    let (world, mut child) = (World::new("before").await?, process::spawn(sleeper())?);
    let (proxy, client) = broken_bucket(&world).await?;
    let (key, victim) = (format!("{}/key", world.prefix()), Victim::default());
    let killed = proxy.add(
        Rule::on(|request| request.is_write())
            .only(2)
            .kill_before(&victim),
    );
    victim.is(child.id());
    put_once(&client, &world.bucket, &format!("{key}-1"), b"x".to_vec()).await?;
    assert_eq!(child.try_wait()?, None);
    assert!(
        put_once(&client, &world.bucket, &key, b"x".to_vec())
            .await
            .is_err()
    );
    assert_eq!(child.wait()?.code(), None, "it was killed by a signal");
    assert_eq!(
        world.bucket.keys(world.prefix()).await?,
        [format!("{key}-1")]
    );
    assert_eq!(killed.applied(), 1);
    Ok(())
}

async fn a_kill_after_a_write_leaves_it_done() -> Result<()> {
    let (world, mut child) = (World::new("after").await?, process::spawn(sleeper())?);
    let (proxy, client) = broken_bucket(&world).await?;
    let (key, victim) = (format!("{}/key", world.prefix()), Victim::default());
    proxy.add(Rule::on(|request| request.is_write()).kill_after(&victim));
    victim.is(child.id());
    assert!(
        put_once(&client, &world.bucket, &key, b"x".to_vec())
            .await
            .is_err()
    );
    assert_eq!(child.wait()?.code(), None, "it was killed by a signal");
    assert_eq!(world.bucket.get(&key).await?, "x");
    Ok(())
}

fn sleeper() -> Command {
    let mut command = process::bound("sleep");
    command.arg("600");
    command
}

async fn kubectl_works_through_a_proxy() -> Result<()> {
    // Not the shared one, which the user may have brought: the proxy shows the API server's own certificate.
    let cluster = ControlPlane::start(Options::default()).await?;
    let proxy = FaultProxy::start_before(&cluster).await?;
    let kubeconfig = cluster.kubeconfig_for(proxy.url())?;
    let get = || {
        let mut kubectl = cluster.kubectl_command();
        process::output(kubectl.env("KUBECONFIG", &kubeconfig).args([
            "get",
            "namespace",
            "default",
            "-o",
            "name",
        ]))
    };
    assert_eq!(get()?.trim(), "namespace/default");
    assert_eq!(
        proxy.count(|request| request.path == "/api/v1/namespaces/default"),
        1
    );
    proxy.add(
        Rule::on(|request| request.path.ends_with("/default")).answer(
            403,
            &[("content-type", "text/plain")],
            "no",
        ),
    );
    assert!(get().is_err());
    Ok(())
}

async fn a_compacted_revision_is_gone() -> Result<()> {
    // One of its own: compaction would pull the ground from under scenarios that list at a revision. And without the
    // watch cache's snapshots, which would still answer for a while.
    let flags = vec!["--feature-gates=ListFromCacheSnapshot=false".into()];
    let cluster = ControlPlane::start(Options {
        api_server_flags: flags,
        ..Options::default()
    })
    .await?;
    let list = |version: &str| {
        cluster.kubectl(&[
            "get",
            "--raw",
            &format!("/api/v1/namespaces?resourceVersionMatch=Exact&resourceVersion={version}"),
        ])
    };
    let now: serde_json::Value =
        serde_json::from_str(&cluster.kubectl(&["get", "--raw", "/api/v1/namespaces"])?)?;
    let version = now["metadata"]["resourceVersion"]
        .as_str()
        .context("a list has a version")?;
    list(version)?;
    for number in 0..3 {
        cluster.kubectl(&["create", "namespace", &format!("later-{number}")])?;
    }
    cluster.compact().await?;
    let gone = list(version)
        .err()
        .context("the old revision is still served")?;
    assert!(format!("{gone:#}").contains("too old"), "{gone:#}");
    Ok(())
}
