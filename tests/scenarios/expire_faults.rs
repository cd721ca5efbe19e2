//! Expiry that is disturbed: killed at any write, twice at once, on a store that fails. Nothing unexpired is ever lost.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ark_tests::clock::WrongClock;
use ark_tests::proxy::Request;
use ark_tests::{FaultProxy, Gate, Rule, Victim, wait_until};
use futures::stream::{self, StreamExt, TryStreamExt};
use libtest_mimic::Trial;
use serde_json::json;

use crate::expire::{Vault, store_clock, stored};
use crate::place::{cluster_with_ark, exists};
use crate::world::{World, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "expire_faults::a_kill_at_any_write_to_storage_and_another_run_end_the_same_1",
            || killed(true, 0, 3),
        ),
        scenario(
            "expire_faults::a_kill_at_any_write_to_storage_and_another_run_end_the_same_2",
            || killed(true, 1, 3),
        ),
        scenario(
            "expire_faults::a_kill_at_any_write_to_storage_and_another_run_end_the_same_3",
            || killed(true, 2, 3),
        ),
        scenario(
            "expire_faults::a_kill_at_any_write_to_the_api_server_and_another_run_end_the_same",
            || killed(false, 0, 1),
        ),
        scenario("expire_faults::twins_do_no_harm", twins),
        scenario(
            "expire_faults::a_listing_that_breaks_deletes_nothing",
            listing_breaks,
        ),
        scenario(
            "expire_faults::a_store_that_fails_deletes_nothing",
            store_fails,
        ),
        scenario("expire_faults::who_may_not_delete_hides_no_backup", denied),
        scenario(
            "expire_faults::a_deletion_that_is_taken_back_meanwhile_is_not_finished",
            taken_back,
        ),
    ]
}

const EXPIRED: [&str; 3] = ["old-1", "old-2", "old-3"];
/// A deletion that was cut off is finished after an hour.
const LATER: i64 = 3660;

async fn fill(vault: &Vault<'_>) -> Result<()> {
    let [one, two, three] = EXPIRED;
    futures::try_join!(
        vault.backup(one, "1s"),
        vault.backup(two, "1s"),
        vault.backup(three, "1s")
    )?;
    vault.until_expired(&EXPIRED).await
}

/// Kills at each write in turn, of which this is one part of several.
async fn killed(in_storage: bool, part: u64, parts: u64) -> Result<()> {
    let cluster = cluster_with_ark().await?;
    let world = World::new("expiring").await?;
    let clock = WrongClock::build()?;
    let store = FaultProxy::start(world.s3.url()).await?;
    let server = FaultProxy::start_before(&cluster).await?;
    let kubeconfig = cluster.kubeconfig_for(server.url())?;
    let vault = Vault::new(cluster.kubeconfig(), world.storage());
    let disturbed = Vault::new(&kubeconfig, world.storage_at(store.url()));
    vault.backup("young", "9h").await?;
    let young = world.bucket.objects(&world.key("young")).await?;
    fill(&vault).await?;
    let proxy = if in_storage { &store } else { &server };
    disturbed.expire(&[]).expect(0).await?;
    let writes = proxy.count(|request| request.is_write()) as u64;
    ensure!(writes >= 3, "only {writes} writes were seen");
    for (n, after) in (1..=writes).flat_map(|n| [(n, false), (n, true)]) {
        if n % parts != part {
            continue;
        }
        let what = format!(
            "killed {} write {n}",
            if after { "after" } else { "before" }
        );
        fill(&vault).await.with_context(|| what.clone())?;
        let victim = Victim::default();
        let rule = Rule::on(|request| request.is_write()).only(n);
        let added = proxy.add(if after {
            rule.kill_after(&victim)
        } else {
            rule.kill_before(&victim)
        });
        let running = disturbed.expire(&[]).start()?;
        victim.is(running.id());
        let first = running.wait().await?;
        // The last answer may come when all is done.
        ensure!(added.applied() == 1, "{what}: not killed: {first:?}");
        proxy.clear_rules();
        // At once, what was cut off is left for a while; an hour later it is finished.
        disturbed
            .expire(&[])
            .expect(0)
            .await
            .with_context(|| what.clone())?;
        let shifted = store.add(store_clock(LATER));
        let second = clock
            .on(disturbed.expire(&[]), LATER)
            .expect(0)
            .await
            .with_context(|| what.clone())?;
        ensure!(shifted.applied() > 0);
        store.clear_rules();
        let left = stored(&world).await?;
        ensure!(
            left == BTreeSet::from(["young".to_owned()]),
            "{what}: {left:?} are left: {second:?}"
        );
        ensure!(
            world.bucket.objects(&world.key("young")).await? == young,
            "{what}"
        );
        for name in EXPIRED {
            let record = ["backups.ark.heptio.com", name, "-n", "heptio-ark"];
            ensure!(
                !exists(&cluster, &record)?,
                "{what}: the resource of {name} is left: {second:?}"
            );
        }
    }
    ensure!(exists(
        &cluster,
        &["backups.ark.heptio.com", "young", "-n", "heptio-ark"]
    )?);
    eprintln!("killed before and after each of {writes} writes, part {part} of {parts}");
    Ok(())
}

fn vault(world: &World) -> Vault<'static> {
    Vault::new(world.cluster.kubeconfig(), world.storage())
}

async fn twins() -> Result<()> {
    let world = World::new("expirers").await?;
    let vault = vault(&world);
    vault.backup("young", "9h").await?;
    for round in 0..3 {
        fill(&vault).await?;
        let (a, b) = (vault.expire(&[]).start()?, vault.expire(&[]).start()?);
        let mut deleted = 0;
        let both = [a.wait().await?, b.wait().await?];
        for finished in &both {
            ensure!(finished.code == Some(0), "round {round}: {finished:?}");
            deleted += (0..=3)
                .filter(|n| finished.stderr.contains(&format!("{n} expired backup")))
                .sum::<usize>();
        }
        // Each is counted by one of them.
        ensure!(deleted == 3, "round {round}: {both:?}");
        let left = stored(&world).await?;
        ensure!(
            left == BTreeSet::from(["young".to_owned()]),
            "round {round}: {left:?}"
        );
    }
    Ok(())
}

async fn listing_breaks() -> Result<()> {
    let world = World::new("pages").await?;
    let proxy = FaultProxy::start(world.s3.url()).await?;
    let mut vault = vault(&world);
    fill(&vault).await?;
    // More than fit on a page.
    let puts = (0..1100).map(|n| {
        let key = format!("{}o-{n:04}", world.key("zzz"));
        let bucket = &world.bucket;
        async move { bucket.put(&key, vec![b'x']).await }
    });
    stream::iter(puts)
        .buffer_unordered(32)
        .try_collect::<Vec<()>>()
        .await?;
    vault.storage = world.storage_at(proxy.url());
    let before = stored(&world).await?;
    let broken = proxy.add(
        Rule::on(|request| request.query.contains("continuation-token") && request.query.contains("backups")).answer(
            403,
            &[("content-type", "application/xml")],
            "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>made up</Message></Error>",
        ),
    );
    vault.expire(&[]).expect(1).await?;
    ensure!(broken.applied() >= 1, "there was no second page");
    ensure!(stored(&world).await? == before);
    let writes = proxy.count(|request| request.is_write());
    ensure!(writes == 0, "{writes} writes");
    proxy.clear_rules();
    vault.expire(&[]).expect(0).await?;
    ensure!(stored(&world).await? == BTreeSet::from(["zzz".to_owned()]));
    Ok(())
}

async fn store_fails() -> Result<()> {
    let world = World::new("storeless").await?;
    let proxy = FaultProxy::start(world.s3.url()).await?;
    let mut vault = vault(&world);
    fill(&vault).await?;
    vault.storage = world.storage_at(proxy.url());
    let before = stored(&world).await?;
    let slow =
        "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>made up</Message></Error>";
    // Markers that cannot be read now are not taken for broken ones.
    proxy.add(
        Rule::on(|request| request.path.ends_with("old-2/ark-backup.json")).answer(
            503,
            &[("content-type", "application/xml")],
            slow,
        ),
    );
    vault.expire(&[]).expect(1).await?;
    ensure!(stored(&world).await? == before);
    proxy.clear_rules();
    // One that cannot be removed stops no other, and is named.
    proxy.add(
        Rule::on(|request| request.is_write() && request.path.contains("/old-2/")).answer(
            400,
            &[("content-type", "application/xml")],
            "<?xml version=\"1.0\"?><Error><Code>InvalidRequest</Code><Message>made up</Message></Error>",
        ),
    );
    let finished = vault.expire(&[]).expect(3).await?;
    ensure!(
        finished.stderr.contains("backup old-2 was to go (expired"),
        "{finished:?}"
    );
    ensure!(stored(&world).await? == BTreeSet::from(["old-2".to_owned()]));
    Ok(())
}

/// Who may write and not delete hides no backup behind a tombstone that cannot be removed.
async fn denied() -> Result<()> {
    let world = World::new("denied").await?;
    let proxy = FaultProxy::start(world.s3.url()).await?;
    let mut vault = vault(&world);
    fill(&vault).await?;
    vault.storage = world.storage_at(proxy.url());
    let deny = |matches: fn(&Request) -> bool| {
        Rule::on(matches).answer(
            403,
            &[("content-type", "application/xml")],
            "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>made up</Message></Error>",
        )
    };
    let prefix = format!("{}/backups/", world.prefix());
    let before = world.bucket.objects(&prefix).await?;
    proxy.add(deny(|request| request.method == "DELETE"));
    for _ in 0..2 {
        let finished = vault.expire(&[]).expect(1).await?;
        for text in ["nothing was deleted", "hint: check the credentials"] {
            ensure!(finished.stderr.contains(text), "{text}: {finished:?}");
        }
        ensure!(world.bucket.objects(&prefix).await? == before);
    }
    // When it is denied for backups alone, there is no second one.
    proxy.clear_rules();
    proxy.add(deny(|request| {
        request.method == "DELETE" && request.path.contains("/backups/")
    }));
    let finished = vault.expire(&[]).expect(1).await?;
    for text in [
        "backup old-1 was to go (expired",
        "0 expired backups deleted",
        "hint: check the credentials",
        "kubectl ark backup undelete old-1",
    ] {
        ensure!(finished.stderr.contains(text), "{text}: {finished:?}");
    }
    let mut after = world.bucket.objects(&prefix).await?;
    let tombstone = format!("{}ark-deleting.json", world.key("old-1"));
    ensure!(after.remove(&tombstone).is_some() && after == before);
    proxy.clear_rules();
    vault.job(&["undelete", "old-1"]).expect(0).await?;
    vault.expire(&[]).expect(0).await?;
    ensure!(stored(&world).await?.is_empty());
    let probes = format!("{}/metadata/", world.prefix());
    let left = world.bucket.keys(&probes).await?;
    ensure!(left.is_empty(), "a probe is left: {left:?}");
    Ok(())
}

/// An hour after a deletion was cut off, it is taken back when an expiry has decided to finish it, and not begun yet.
async fn taken_back() -> Result<()> {
    let world = World::new("taken-back").await?;
    let clock = WrongClock::build()?;
    let proxy = FaultProxy::start(world.s3.url()).await?;
    let vault = Vault::new(world.cluster.kubeconfig(), world.storage());
    let through = Vault {
        storage: world.storage_at(proxy.url()),
        namespace: vault.namespace.clone(),
        ..vault
    };
    vault.backup("b", "9h").await?;
    let whole = world.bucket.objects(&world.key("b")).await?;
    let uid =
        world
            .cluster
            .kubectl(&["get", "ns", "kube-system", "-o", "jsonpath={.metadata.uid}"])?;
    let key = format!("{}ark-deleting.json", world.key("b"));
    let put = async |run: &str| {
        let tombstone = json!({"backup": "b", "cause": "delete", "runID": run, "clusterUID": uid, "at": "2026-01-01T00:00:00Z"});
        let json = tombstone.to_string().into_bytes();
        world.bucket.put(&key, json).await
    };
    for (another, why) in [
        (false, "has been taken back by somebody else"),
        (true, "has changed since it was looked at"),
    ] {
        put("cut-off").await?;
        proxy.clear_rules();
        let shifted = proxy.add(store_clock(LATER));
        let gate = Gate::default();
        // The look at the one directory, by which it would be finished; another before it asks for its snapshots.
        let held = proxy.add(
            Rule::on(|request| {
                request.query.contains("list-type") && request.query.contains("backups%2Fb%2F")
            })
            .only(2)
            .hold(&gate),
        );
        let running = clock.on(through.expire(&[]), LATER).start()?;
        wait_until("it to be held", Duration::from_secs(60), async || {
            Ok((held.matched() > 1).then_some(()))
        })
        .await?;
        ensure!(shifted.applied() > 0);
        vault.job(&["undelete", "b"]).expect(0).await?;
        if another {
            put("another").await?;
        }
        gate.open();
        let finished = running.wait().await?;
        ensure!(finished.code == Some(0), "{finished:?}");
        for text in ["backup b stays for now (being deleted since", why] {
            ensure!(finished.stderr.contains(text), "{text}: {finished:?}");
        }
        let mut left = world.bucket.objects(&world.key("b")).await?;
        ensure!(left.remove(&key).is_some() == another, "{finished:?}");
        ensure!(left == whole, "{:?}: {finished:?}", left.keys());
    }
    Ok(())
}
