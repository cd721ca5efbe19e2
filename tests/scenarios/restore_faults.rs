//! Restores that are disturbed: a damaged backup, a kill at any write, an API server that fails.

use anyhow::{Context, Result, ensure};
use ark_tests::{FaultProxy, Rule, Victim};
use libtest_mimic::Trial;

use crate::place::{Place, become_equal, delete_namespace, exists, fill, names, wait};
use crate::world::{World, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "restore_faults::a_damaged_archive_is_not_written_from",
            damaged_archive,
        ),
        scenario(
            "restore_faults::a_kill_at_any_write_and_another_attempt_end_the_same_1",
            || killed(0, 3),
        ),
        scenario(
            "restore_faults::a_kill_at_any_write_and_another_attempt_end_the_same_2",
            || killed(1, 3),
        ),
        scenario(
            "restore_faults::a_kill_at_any_write_and_another_attempt_end_the_same_3",
            || killed(2, 3),
        ),
        scenario(
            "restore_faults::lost_answers_and_refusals_of_the_api_server_are_outlived",
            unsteady_api_server,
        ),
    ]
}

async fn damaged_archive() -> Result<()> {
    let world = World::new("damaged").await?;
    let (cluster, namespace) = (world.cluster, world.namespace("app").await?);
    let place = Place::new(cluster)?;
    fill(cluster, &namespace)?;
    // Without events, which a restore does not even read.
    place
        .run(&[
            "backup",
            "b",
            "--include-namespaces",
            &namespace,
            "--exclude-resources",
            "events",
        ])
        .await?;
    let proxy = FaultProxy::start_before(cluster).await?;
    let kubeconfig = cluster.kubeconfig_for(proxy.url())?;
    delete_namespace(cluster, &namespace)?;
    wait(|| Ok(!exists(cluster, &["namespace", &namespace])?))?;
    let archive = place.path().join("backups/b/b.tar.gz");
    let whole = std::fs::read(&archive)?;
    let mut damages: Vec<(String, Vec<u8>)> = Vec::new();
    // The first member is for other readers, and the padding of the last is nothing.
    for part in 1..20 {
        let at = 300 + (whole.len() - 1500) * part / 20;
        let mut flipped = whole.clone();
        flipped[at] ^= 4;
        damages.push((format!("byte {at} flipped"), flipped));
    }
    for length in [0, 1, whole.len() / 2, whole.len() - 1] {
        damages.push((format!("cut at {length}"), whole[..length].to_vec()));
    }
    damages.push(("longer".into(), [&whole[..], b"x"].concat()));
    for (what, bytes) in damages {
        std::fs::remove_file(&archive)?;
        std::fs::write(&archive, bytes)?;
        place
            .job_at(&kubeconfig, &["restore", "b"])
            .expect(5)
            .await
            .with_context(|| what.clone())?;
    }
    let writes = proxy.count(|request| request.is_write());
    ensure!(writes == 0, "{writes} requests were writes");
    ensure!(!exists(cluster, &["namespace", &namespace])?);
    std::fs::remove_file(&archive)?;
    std::fs::write(&archive, whole)?;
    // A marker of another archive, none at all, and a backup that is going away.
    let marker = place.path().join("backups/b/ark-backup.json");
    let text = std::fs::read_to_string(&marker)?;
    let replace = |content: &str| {
        std::fs::remove_file(&marker)?;
        std::fs::write(&marker, content)
    };
    replace(&text.replace("\"footerOffset\": ", "\"footerOffset\": 1"))?;
    place.job(&["restore", "b"]).expect(5).await?;
    replace("{}}")?;
    place.job(&["restore", "b"]).expect(5).await?;
    replace(&text)?;
    let tombstone = place.path().join("backups/b/ark-deleting.json");
    std::fs::write(&tombstone, "{}")?;
    let deleted = place.job(&["restore", "b"]).expect(10).await?;
    ensure!(deleted.stderr.contains("being deleted"), "{deleted:?}");
    std::fs::remove_file(&tombstone)?;
    place.run(&["restore", "b"]).await?;
    Ok(())
}

/// At every write of a small restore, before and after: the end is what an unharmed restore comes to, by the script.
///
/// `part` of `parts`: the writes are shared out, so that no scenario is long.
async fn killed(part: u64, parts: u64) -> Result<()> {
    let world = World::new("killed").await?;
    let (cluster, namespace) = (world.cluster, world.namespace("app").await?);
    let place = Place::new(cluster)?;
    fill(cluster, &namespace)?;
    place
        .run(&["backup", "b", "--include-namespaces", &namespace])
        .await?;
    let proxy = FaultProxy::start_before(cluster).await?;
    let kubeconfig = cluster.kubeconfig_for(proxy.url())?;
    let restore = |target: &str, name: &str| {
        let mapping = format!("{namespace}:{target}");
        let arguments = [
            "restore",
            "b",
            "--name",
            name,
            "--requested",
            "2026-11-23T20:15:01Z",
            "--namespace-mappings",
            &mapping,
        ];
        place.job_at(&kubeconfig, &arguments).of("job", "pod")
    };
    // Names of one length: one is put in place of another when they are compared.
    let target = |n: u64| format!("{namespace}-{n:03}");
    let unharmed = target(0);
    restore(&unharmed, "unharmed").expect(0).await?;
    let writes = proxy.count(|request| request.is_write()) as u64;
    ensure!(writes >= 8, "only {writes} writes were seen");
    let equal = async |one: &str, other: &str| {
        let namespaces = format!("{one}:{other}");
        let kubeconfig = cluster.kubeconfig();
        become_equal(kubeconfig, kubeconfig, &["--namespaces", &namespaces]).await
    };
    equal(&namespace, &unharmed).await.context("unharmed")?;
    for (n, after) in (1..=writes).flat_map(|n| [(n, false), (n, true)]) {
        let number = n * 2 + u64::from(after);
        if number % parts != part {
            continue;
        }
        let victim = Victim::default();
        let rule = Rule::on(|request| request.is_write()).only(n);
        let added = proxy.add(if after {
            rule.kill_after(&victim)
        } else {
            rule.kill_before(&victim)
        });
        let (target, name) = (target(number), format!("killed-{number}"));
        let running = restore(&target, &name).start()?;
        victim.is(running.id());
        let finished = running.wait().await?;
        ensure!(
            finished.code.is_none() && added.applied() == 1,
            "write {n}, after: {after}: {finished:?}"
        );
        proxy.clear_rules();
        let finished = restore(&target, &name).expect(0).await?;
        ensure!(!finished.stderr.contains("warning"), "{finished:?}");
        equal(&unharmed, &target)
            .await
            .with_context(|| format!("killed at write {n}, after: {after}"))?;
        delete_namespace(cluster, &target)?;
    }
    Ok(())
}

async fn unsteady_api_server() -> Result<()> {
    let world = World::new("unsteady").await?;
    let (cluster, namespace) = (world.cluster, world.namespace("app").await?);
    let place = Place::new(cluster)?;
    for n in 0..5 {
        let name = format!("cm-{n}");
        cluster.kubectl(&["create", "configmap", &name, "-n", &namespace])?;
    }
    place
        .run(&["backup", "b", "--include-namespaces", &namespace])
        .await?;
    let proxy = FaultProxy::start_before(cluster).await?;
    let kubeconfig = cluster.kubeconfig_for(proxy.url())?;
    let creates = || Rule::on(|request| request.is_write() && request.path.contains("/configmaps"));
    type Fault = fn(Rule) -> Rule;
    let rules: [(&str, Fault); 4] = [
        ("lost answers", |rule| rule.up_to(3).lose_answer()),
        ("resets", |rule| rule.up_to(3).reset()),
        ("too many requests", |rule| {
            rule.up_to(8)
                .answer(429, &[("retry-after", "1")], "too many requests")
        }),
        ("unavailable", |rule| rule.up_to(3).answer(503, &[], "")),
    ];
    for (n, (what, fault)) in rules.into_iter().enumerate() {
        let target = format!("{namespace}-{n}");
        let added = proxy.add(fault(creates()));
        let mapping = format!("{namespace}:{target}");
        let arguments = ["restore", "b", "--namespace-mappings", &mapping];
        let finished = place
            .job_at(&kubeconfig, &arguments)
            .expect(0)
            .await
            .context(what)?;
        proxy.clear_rules();
        ensure!(added.applied() >= 3, "{what}: {} times", added.applied());
        // The service account that every namespace has may have been made by its controller before.
        ensure!(
            finished.stderr.contains(" 0 failed") && !finished.stderr.contains("warning"),
            "{what}: {finished:?}"
        );
        let found = names(cluster, "configmaps", &target)?;
        ensure!(
            found.iter().filter(|name| name.starts_with("cm-")).count() == 5,
            "{what}"
        );
        delete_namespace(cluster, &target)?;
    }
    Ok(())
}
