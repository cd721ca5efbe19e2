//! Expiry: what goes, what stays, and that the plan says so before.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ark_tests::clock::WrongClock;
use ark_tests::foreign::{ForeignBackup, Maker};
use ark_tests::job::{ArkJob, Finished};
use ark_tests::{Bucket, ControlPlane, FaultProxy, Gate, Options, Rule, Victim, wait_until};
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{
    ObjectLockLegalHold, ObjectLockLegalHoldStatus, ObjectLockRetention, ObjectLockRetentionMode,
};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::deletion::files;
use crate::place::{cluster_with_ark, exists};
use crate::world::{World, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        scenario("expire::what_is_planned_is_what_is_done", plan_is_done),
        scenario(
            "expire::backups_of_another_cluster_stay_unless_it_is_named",
            other_cluster,
        ),
        scenario(
            "expire::the_newest_backups_of_a_schedule_stay",
            newest_of_a_schedule,
        ),
        scenario("expire::wrong_clocks_delete_nothing_early", wrong_clocks),
        scenario(
            "expire::failed_backups_and_logs_without_owner_go_in_time",
            failed_records,
        ),
        scenario(
            "expire::what_was_never_committed_is_swept_up_after_the_grace_period",
            sweep,
        ),
        scenario(
            "expire::restore_only_mode_deletes_nothing_but_shows_the_plan",
            restore_only,
        ),
        scenario(
            "expire::a_backup_that_is_being_restored_stays_for_now",
            being_restored,
        ),
        scenario(
            "expire::a_backup_that_a_restore_is_reading_stays_until_it_ends",
            restore_at_work,
        ),
        scenario(
            "expire::what_the_bucket_keeps_stays_and_the_others_go",
            locked,
        ),
        scenario(
            "expire::of_a_void_tombstone_no_version_is_left",
            void_in_versions,
        ),
        scenario(
            "expire::original_arks_at_the_top_go_when_asked_for",
            originals,
        ),
        scenario(
            "expire::a_read_only_location_is_not_touched",
            read_only_location,
        ),
        scenario(
            "expire::in_a_directory_files_are_as_old_as_its_own_clock_says",
            in_a_directory,
        ),
        #[cfg(target_os = "linux")]
        scenario(
            "expire::a_directory_that_must_not_be_written_is_only_planned",
            read_only_directory,
        ),
    ]
}

/// What a plan says of each thing, by kind and name: action and reason.
pub type Plan = BTreeMap<(String, String), (String, String)>;

/// Expiry of one location by one cluster.
pub struct Vault<'a> {
    pub kubeconfig: &'a Path,
    pub storage: String,
    /// Ark's namespace.
    pub namespace: String,
}

impl<'a> Vault<'a> {
    /// Of an Ark in its default namespace.
    pub fn new(kubeconfig: &'a Path, storage: String) -> Vault<'a> {
        Vault {
            kubeconfig,
            storage,
            namespace: "heptio-ark".to_owned(),
        }
    }

    pub fn job(&self, arguments: &[&str]) -> ArkJob {
        let storage = format!("--storage={}", self.storage);
        let namespace = format!("--namespace={}", self.namespace);
        ArkJob::new(
            self.kubeconfig,
            &[arguments, &[&storage, &namespace]].concat(),
        )
    }

    /// Backs up next to nothing.
    pub async fn backup(&self, name: &str, ttl: &str) -> Result<Finished> {
        self.backup_job(name, ttl).expect(0).await
    }

    pub fn backup_job(&self, name: &str, ttl: &str) -> ArkJob {
        let ttl = format!("--ttl={ttl}");
        self.job(&[
            "backup",
            name,
            &ttl,
            "--include-namespaces=default",
            "--include-resources=serviceaccounts",
        ])
    }

    pub fn expire(&self, more: &[&str]) -> ArkJob {
        self.job(&[&["expire"], more].concat())
    }

    pub async fn plan(&self, more: &[&str]) -> Result<Plan> {
        read_plan(&self.planned(more).run().await?)
    }

    pub fn planned(&self, more: &[&str]) -> ArkJob {
        self.expire(&[&["--dry-run", "-o", "json"], more].concat())
    }

    /// Waits until the plan is to delete these backups.
    pub async fn until_expired(&self, names: &[&str]) -> Result<()> {
        let what = format!("{names:?} to expire");
        wait_until(&what, Duration::from_secs(60), async || {
            let plan = self.plan(&[]).await?;
            let gone = |name: &&str| {
                plan.get(&("backup".to_owned(), (*name).to_owned()))
                    .is_some_and(|(action, _)| action == "delete")
            };
            Ok(names.iter().all(gone).then_some(()))
        })
        .await
    }
}

/// The plan that a dry run has printed.
pub fn read_plan(finished: &Finished) -> Result<Plan> {
    ensure!(matches!(finished.code, Some(0 | 3)), "{finished:?}");
    let printed = finished.stderr.split_once("\nstdout: ");
    let mut plan = Plan::new();
    for line in printed.map_or("", |(_, lines)| lines).lines() {
        let entry: Value = serde_json::from_str(line)?;
        let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        plan.insert(
            (text("kind"), text("name")),
            (text("action"), text("reason")),
        );
    }
    Ok(plan)
}

pub fn says(plan: &Plan, name: &str, action: &str, reason: &str) -> Result<()> {
    let entry = plan.get(&("backup".to_owned(), name.to_owned()));
    let (said, why) = entry.with_context(|| format!("{name} is not in the plan {plan:#?}"))?;
    ensure!(
        said == action && why.contains(reason),
        "{name}: {said}: {why}; not {action}: {reason}"
    );
    Ok(())
}

/// A store whose clock is so many seconds ahead, at the last answer before ages are told.
///
/// Not at each: the SDK sets its signatures by that clock, and the store, whose clock is right in truth, refuses them.
pub fn store_clock(seconds: i64) -> Rule {
    Rule::on(|request| request.method == "GET" && request.query.contains("uploads"))
        .shift_date(seconds)
}

/// The names of the directories in a location.
pub async fn stored(world: &World) -> Result<BTreeSet<String>> {
    let prefix = format!("{}/backups/", world.prefix());
    let keys = world.bucket.keys(&prefix).await?;
    let names = keys.iter().filter_map(|key| {
        let (name, _) = key.strip_prefix(&prefix)?.split_once('/')?;
        Some(name.to_owned())
    });
    Ok(names.collect())
}

fn vault(world: &World) -> Vault<'static> {
    Vault::new(world.cluster.kubeconfig(), world.storage())
}

async fn plan_is_done() -> Result<()> {
    let world = World::new("planned").await?;
    let vault = vault(&world);
    for (name, ttl) in [
        ("old-1", "1s"),
        ("old-2", "1s"),
        ("young", "1h"),
        ("ever", "0"),
    ] {
        vault.backup(name, ttl).await?;
    }
    let put = async |path: &str, body: Vec<u8>| {
        let key = format!("{}/backups/{path}", world.prefix());
        world.bucket.put(&key, body).await
    };
    put("broken/ark-backup.json", b"{".to_vec()).await?;
    for (name, ttl, expiration) in [
        ("velero-long", "720h0m0s", "2026-01-01T00:00:01Z"),
        ("velero-short", "1s", "2026-01-01T00:00:01Z"),
        ("velero-young", "1s", "2037-01-01T00:00:00Z"),
    ] {
        let foreign = ForeignBackup::new(Maker::Velero, name);
        let mut description = foreign.description();
        description["spec"]["ttl"] = ttl.into();
        description["status"]["expiration"] = expiration.into();
        let text = serde_json::to_vec(&description)?;
        put(&format!("{name}/{name}.tar.gz"), foreign.archive()?).await?;
        put(&format!("{name}/velero-backup.json"), text).await?;
    }
    vault.until_expired(&["old-1", "old-2"]).await?;
    let before = stored(&world).await?;
    let plan = vault.plan(&[]).await?;
    says(&plan, "old-1", "delete", "expired ")?;
    says(&plan, "young", "keep", "expires in ")?;
    says(&plan, "ever", "keep", "never expires (ttl 0)")?;
    says(&plan, "broken", "keep", "its marker cannot be used")?;
    says(
        &plan,
        "velero-short",
        "keep",
        "made by Velero: only with --include-foreign",
    )?;
    ensure!(stored(&world).await? == before, "a dry run has deleted");
    let text = vault.expire(&["--dry-run"]).expect(3).await?;
    ensure!(
        text.stderr.contains("delete  backup     old-1  expired "),
        "{text:?}"
    );
    // Done as planned: twice with what is planned in between.
    for (more, gone) in [
        (&[][..], &["old-1", "old-2"][..]),
        (&["--include-foreign"], &["velero-short"]),
        (&["--include-foreign"], &[]),
    ] {
        let before = stored(&world).await?;
        let plan = vault.plan(more).await?;
        let planned: BTreeSet<String> = plan
            .into_iter()
            .filter(|(_, (action, _))| action == "delete")
            .map(|((_, name), _)| name)
            .collect();
        let finished = vault.expire(more).expect(3).await?;
        let after = stored(&world).await?;
        let really: BTreeSet<String> = before.difference(&after).cloned().collect();
        ensure!(
            really == planned,
            "{really:?} are gone, planned {planned:?}: {finished:?}"
        );
        let expected: BTreeSet<String> = gone.iter().map(|&name| name.to_owned()).collect();
        ensure!(really == expected, "{really:?} are gone, not {expected:?}");
        for name in gone {
            let line = format!("deleted backup {name} (");
            ensure!(finished.stderr.contains(&line), "{finished:?}");
        }
        ensure!(
            finished.stderr.contains("backup broken stays: its marker"),
            "{finished:?}"
        );
    }
    Ok(())
}

async fn other_cluster() -> Result<()> {
    let world = World::new("two").await?;
    let other = ControlPlane::start(Options::default()).await?;
    let here = vault(&world);
    let there = Vault {
        kubeconfig: other.kubeconfig(),
        ..vault(&world)
    };
    here.backup("here", "1s").await?;
    there.backup("there", "1s").await?;
    here.until_expired(&["here"]).await?;
    there.until_expired(&["there"]).await?;
    let uid =
        world
            .cluster
            .kubectl(&["get", "ns", "kube-system", "-o", "jsonpath={.metadata.uid}"])?;
    let reason = format!("made by cluster {uid}: only by name or with --cluster-uid");
    says(&there.plan(&[]).await?, "here", "keep", &reason)?;
    there.expire(&[]).expect(0).await?;
    ensure!(stored(&world).await? == BTreeSet::from(["here".to_owned()]));
    there
        .expire(&["--cluster-uid", "another"])
        .expect(0)
        .await?;
    ensure!(stored(&world).await?.len() == 1);
    there.expire(&["--cluster-uid", &uid]).expect(0).await?;
    ensure!(
        stored(&world).await?.is_empty(),
        "{:?}",
        stored(&world).await?
    );
    Ok(())
}

/// Says in the marker of a backup that a schedule has asked for it.
async fn of_schedule(world: &World, name: &str, keep_last: Option<u32>, phase: &str) -> Result<()> {
    let key = format!("{}ark-backup.json", world.key(name));
    let mut marker: Value = serde_json::from_slice(&world.bucket.get(&key).await?)?;
    marker["commit"]["schedule"] = "nightly".into();
    marker["status"]["phase"] = phase.into();
    if let Some(keep) = keep_last {
        marker["commit"]["keepLast"] = keep.into();
    }
    world.bucket.put(&key, serde_json::to_vec(&marker)?).await
}

async fn newest_of_a_schedule() -> Result<()> {
    let world = World::new("newest").await?;
    let namespace = world.namespace("ark").await?;
    let proxy = FaultProxy::start_before(world.cluster).await?;
    let kubeconfig = world.cluster.kubeconfig_for(proxy.url())?;
    let vault = Vault {
        kubeconfig: &kubeconfig,
        storage: world.storage(),
        namespace: namespace.clone(),
    };
    for (name, phase) in [
        ("n-1", "Completed"),
        ("n-2", "Completed"),
        ("n-3", "Completed"),
        ("n-4", "PartiallyFailed"),
    ] {
        vault.backup(name, "1s").await?;
        of_schedule(&world, name, Some(2), phase).await?;
    }
    vault.until_expired(&["n-1", "n-4"]).await?;
    let newest = "one of the newest 2 Completed backups of schedule nightly";
    let plan = vault.plan(&[]).await?;
    for name in ["n-2", "n-3"] {
        says(&plan, name, "keep", newest)?;
    }
    // The live CronJob wins, whatever it says.
    let cron_job = |arguments: &[&str]| -> Result<()> {
        let container = json!({"name": "ark", "image": "i", "args": arguments});
        let pod = json!({"spec": {"restartPolicy": "Never", "containers": [container]}});
        let object = json!({"apiVersion": "batch/v1", "kind": "CronJob",
            "metadata": {"name": "nightly", "namespace": namespace, "labels": {"ark.heptio.com/schedule": "nightly"}},
            "spec": {"schedule": "0 7 1 1 *", "suspend": true, "jobTemplate": {"spec": {"template": pod}}}});
        let text = object.to_string();
        world
            .cluster
            .kubectl_with_input(&["apply", "-f", "-"], &text)
            .map(drop)
    };
    cron_job(&["backup", "--schedule=nightly", "--keep-last=3"])?;
    let plan = vault.plan(&[]).await?;
    says(
        &plan,
        "n-1",
        "keep",
        "one of the newest 3 Completed backups",
    )?;
    says(&plan, "n-4", "delete", "expired")?;
    // What cannot be understood, or not read, keeps all.
    cron_job(&["backup", "--schedule=nightly", "--keep-most=3"])?;
    let unknown = "how many backups schedule nightly keeps is not known";
    let finished = vault.expire(&[]).expect(3).await?;
    ensure!(finished.stderr.contains(unknown), "{finished:?}");
    ensure!(stored(&world).await?.len() == 4);
    cron_job(&["backup", "--schedule=nightly"])?;
    let forbidden = json!({"kind": "Status", "apiVersion": "v1", "code": 403, "reason": "Forbidden", "message": "made up"});
    proxy.add(
        Rule::on(|request| request.path.ends_with("/cronjobs")).answer(
            403,
            &[("content-type", "application/json")],
            forbidden.to_string(),
        ),
    );
    let finished = vault.expire(&[]).expect(3).await?;
    ensure!(
        finished.stderr.contains(unknown) && finished.stderr.contains("made up"),
        "{finished:?}"
    );
    ensure!(stored(&world).await?.len() == 4);
    proxy.clear_rules();
    // One, if it does not say.
    vault.expire(&[]).expect(0).await?;
    ensure!(stored(&world).await? == BTreeSet::from(["n-3".to_owned()]));
    Ok(())
}

async fn wrong_clocks() -> Result<()> {
    const HOUR: i64 = 3600;
    let world = World::new("clocks").await?;
    let clock = WrongClock::build()?;
    let proxy = FaultProxy::start(world.s3.url()).await?;
    let mut vault = vault(&world);
    vault.backup("old", "1s").await?;
    vault.backup("young", "30m").await?;
    // By pods whose clocks are wrong: one says that it has expired already, one that it will in an hour and a half.
    clock
        .on(vault.backup_job("behind", "30m"), -HOUR)
        .expect(0)
        .await?;
    clock
        .on(vault.backup_job("ahead", "30m"), HOUR)
        .expect(0)
        .await?;
    vault.until_expired(&["old"]).await?;
    vault.storage = world.storage_at(proxy.url());
    for (pod, store, old) in [
        (HOUR, 0, "delete"),
        (-HOUR, 0, "keep"),
        (0, -HOUR, "keep"),
        (-HOUR, HOUR, "keep"),
        (HOUR, -HOUR, "keep"),
    ] {
        proxy.clear_rules();
        let shifted = proxy.add(store_clock(store));
        let planned = clock.on(vault.planned(&[]), pod).run().await?;
        ensure!(shifted.applied() > 0);
        let plan = read_plan(&planned).with_context(|| format!("pod {pod}, store {store}"))?;
        says(&plan, "old", old, "")?;
        // A pod that is behind and a store that is ahead are wrong together only where both are wrong.
        for name in ["young", "ahead"] {
            says(&plan, name, "keep", "").with_context(|| format!("pod {pod}, store {store}"))?;
        }
        if store <= 0 {
            says(&plan, "behind", "keep", "")
                .with_context(|| format!("pod {pod}, store {store}"))?;
        }
    }
    proxy.clear_rules();
    says(
        &vault.plan(&[]).await?,
        "behind",
        "keep",
        "by the store's clock it has ",
    )?;
    // An hour later by both it is so.
    proxy.add(store_clock(HOUR));
    let plan = read_plan(&clock.on(vault.planned(&[]), HOUR).run().await?)?;
    for (name, action) in [
        ("old", "delete"),
        ("young", "delete"),
        ("behind", "delete"),
        ("ahead", "keep"),
    ] {
        says(&plan, name, action, "")?;
    }
    proxy.clear_rules();
    clock.on(vault.expire(&[]), HOUR).expect(0).await?;
    let left = ["ahead", "behind", "young"].map(str::to_owned);
    ensure!(
        stored(&world).await? == BTreeSet::from(left),
        "{:?}",
        stored(&world).await?
    );
    // The store alone is ahead. Without what would go: a store that is right in truth refuses what is signed by that clock.
    vault.job(&["delete", "behind"]).expect(0).await?;
    proxy.add(store_clock(HOUR));
    let plan = vault.plan(&[]).await?;
    for name in ["young", "ahead"] {
        says(&plan, name, "keep", "")?;
    }
    Ok(())
}

async fn failed_records() -> Result<()> {
    const MONTH: i64 = 31 * 24 * 3600;
    let cluster = cluster_with_ark().await?;
    let world = World::new("failed").await?;
    let clock = WrongClock::build()?;
    let proxy = FaultProxy::start(world.s3.url()).await?;
    let vault = Vault::new(cluster.kubeconfig(), world.storage_at(proxy.url()));
    for (name, ttl, phase) in [
        ("short", "1s", "Failed"),
        ("long", "24h", "Failed"),
        ("ever", "0", "Failed"),
        ("going", "1s", "InProgress"),
    ] {
        let object = json!({"apiVersion": "ark.heptio.com/v1", "kind": "Backup",
            "metadata": {"name": name, "namespace": "heptio-ark", "annotations": {"ark.heptio.com/run": "r"}}, "spec": {"ttl": ttl}});
        cluster.kubectl_with_input(&["create", "-f", "-"], &object.to_string())?;
        let status = json!({"status": {"phase": phase, "warnings": 0, "errors": 1}}).to_string();
        cluster.kubectl(&[
            "patch",
            "backups.ark.heptio.com",
            name,
            "-n",
            "heptio-ark",
            "--subresource=status",
            "--type=merge",
            "-p",
            &status,
        ])?;
    }
    for (name, operation) in [
        ("ark-log-short", "backup"),
        ("ark-log-long", "backup"),
        ("ark-log-nobody", "backup"),
        ("ark-results-nobody", "restore"),
        ("others", "backup"),
    ] {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": "heptio-ark", "labels": {"ark.heptio.com/operation": operation}}});
        cluster.kubectl_with_input(&["create", "-f", "-"], &object.to_string())?;
    }
    let there = |kind: &str, name: &str| exists(&cluster, &[kind, name, "-n", "heptio-ark"]);
    wait_until(
        "the short one to expire",
        Duration::from_secs(30),
        async || {
            let plan = vault.plan(&[]).await?;
            let short = plan.get(&("resource".to_owned(), "short".to_owned()));
            Ok(short.filter(|(action, _)| action == "delete").map(drop))
        },
    )
    .await?;
    vault.expire(&[]).expect(0).await?;
    let backups = "backups.ark.heptio.com";
    for (kind, name, expected) in [
        (backups, "short", false),
        (backups, "long", true),
        (backups, "ever", true),
        (backups, "going", true),
        ("configmap", "ark-log-short", false),
        ("configmap", "ark-log-long", true),
        ("configmap", "ark-log-nobody", true),
        ("configmap", "ark-results-nobody", true),
    ] {
        ensure!(
            there(kind, name)? == expected,
            "{kind} {name}: {}",
            !expected
        );
    }
    // One clock alone does not make anything older.
    clock.on(vault.expire(&[]), MONTH).expect(0).await?;
    ensure!(there(backups, "long")? && there("configmap", "ark-log-nobody")?);
    proxy.add(store_clock(MONTH));
    vault.expire(&[]).expect(0).await?;
    ensure!(there(backups, "long")? && there("configmap", "ark-log-nobody")?);
    clock.on(vault.expire(&[]), MONTH).expect(0).await?;
    for (kind, name, expected) in [
        (backups, "long", false),
        (backups, "ever", true),
        (backups, "going", true),
        ("configmap", "ark-log-long", false),
        ("configmap", "ark-log-nobody", false),
        ("configmap", "ark-results-nobody", false),
        ("configmap", "others", true),
    ] {
        ensure!(
            there(kind, name)? == expected,
            "{kind} {name}: {}",
            !expected
        );
    }
    Ok(())
}

/// Backs up and is killed when the archive is there, before anything else is.
async fn killed_backup(world: &World, vault: &Vault<'_>, name: &str) -> Result<()> {
    let proxy = FaultProxy::start(world.s3.url()).await?;
    let through = Vault {
        storage: world.storage_at(proxy.url()),
        namespace: vault.namespace.clone(),
        ..*vault
    };
    let victim = Victim::default();
    let killed = proxy.add(
        Rule::on(|request| request.is_write() && request.path.ends_with("-logs.gz"))
            .kill_before(&victim),
    );
    let running = through.backup_job(name, "1h").of(name, "pod").start()?;
    victim.is(running.id());
    running.wait().await?;
    ensure!(killed.applied() == 1);
    Ok(())
}

async fn sweep() -> Result<()> {
    let world = World::new("sweep").await?;
    let vault = vault(&world);
    for name in ["lost", "late"] {
        killed_backup(&world, &vault, name).await?;
    }
    let client = world.bucket.client();
    let key = format!("{}up.tar.gz", world.key("up"));
    let begun = client
        .create_multipart_upload()
        .bucket(world.bucket.name())
        .key(&key);
    begun.send().await?;
    let uploads = async || -> Result<usize> {
        let listed = client.list_multipart_uploads().bucket(world.bucket.name());
        Ok(listed.prefix(world.key("up")).send().await?.uploads().len())
    };
    ensure!(uploads().await? == 1);
    let plan = vault.plan(&[]).await?;
    for name in ["lost", "late"] {
        says(&plan, name, "keep", "not committed (yet)")?;
    }
    vault.expire(&[]).expect(0).await?;
    ensure!(stored(&world).await?.len() >= 2 && uploads().await? == 1);
    // Another cluster's is not ours to sweep, however old.
    let other = ControlPlane::start(Options::default()).await?;
    let there = Vault {
        kubeconfig: other.kubeconfig(),
        storage: world.storage(),
        namespace: vault.namespace.clone(),
    };
    let plan = there.plan(&["--grace=0s"]).await?;
    says(&plan, "lost", "keep", "only with --cluster-uid")?;
    // The marker appears while the sweep is at work: right before it looks for it again.
    let proxy = FaultProxy::start(world.s3.url()).await?;
    let through = Vault {
        kubeconfig: vault.kubeconfig,
        storage: world.storage_at(proxy.url()),
        namespace: vault.namespace.clone(),
    };
    let before = world.bucket.objects(&world.key("late")).await?;
    vault
        .backup_job("late", "1h")
        .of("late", "pod-2")
        .expect(0)
        .await?;
    let after = world.bucket.objects(&world.key("late")).await?;
    for key in after.keys().filter(|key| !before.contains_key(*key)) {
        world.bucket.delete(key).await?;
    }
    let marker = format!("{}ark-backup.json", world.key("late"));
    let content = after[&marker].clone();
    let (bucket, late) = (world.s3.bucket("scenarios").await?, marker.clone());
    let appears = proxy.add(
        Rule::on(|request| {
            request.method == "PUT" && request.path.ends_with("late/ark-deleting.json")
        })
        .after(move |_| {
            let (bucket, late, content) = (&bucket, &late, &content);
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build();
                    runtime
                        .expect("a runtime")
                        .block_on(bucket.put(late, content.clone()))
                        .expect("the marker");
                });
            });
        }),
    );
    wait_until(
        "the grace period to end",
        Duration::from_secs(30),
        async || {
            let plan = through.plan(&["--grace=1s"]).await?;
            let delete = |name: &str| says(&plan, name, "delete", "never committed").is_ok();
            Ok((delete("lost") && delete("late")).then_some(()))
        },
    )
    .await?;
    let finished = through.expire(&["--grace=1s"]).expect(0).await?;
    ensure!(appears.applied() == 1, "{finished:?}");
    let keys = world.bucket.keys(&world.key("late")).await?;
    ensure!(
        keys.contains(&marker)
            && keys.iter().any(|key| key.ends_with("late.tar.gz"))
            && !keys.iter().any(|key| key.ends_with("ark-deleting.json")),
        "{keys:?}: {finished:?}"
    );
    ensure!(
        world.bucket.keys(&world.key("lost")).await?.is_empty(),
        "{finished:?}"
    );
    ensure!(uploads().await? == 0, "{finished:?}");
    // A sweep that was cut off has left its tombstone over what was committed meanwhile.
    let uid =
        world
            .cluster
            .kubectl(&["get", "ns", "kube-system", "-o", "jsonpath={.metadata.uid}"])?;
    let tombstone = json!({"backup": "late", "cause": "sweep", "runID": "r", "clusterUID": uid, "at": "2026-01-01T00:00:00Z"});
    let key = format!("{}ark-deleting.json", world.key("late"));
    world
        .bucket
        .put(&key, tombstone.to_string().into_bytes())
        .await?;
    vault.expire(&[]).expect(0).await?;
    let left = world.bucket.keys(&world.key("late")).await?;
    ensure!(left == keys, "{left:?}");
    Ok(())
}

async fn restore_only() -> Result<()> {
    let world = World::new("only").await?;
    let namespace = world.namespace("ark").await?;
    let vault = Vault {
        namespace: namespace.clone(),
        ..vault(&world)
    };
    vault.backup("old", "1s").await?;
    vault.until_expired(&["old"]).await?;
    let mode = |mode: &str| {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ark", "namespace": namespace}, "data": {"mode": mode}});
        world
            .cluster
            .kubectl_with_input(&["apply", "-f", "-"], &object.to_string())
    };
    mode("RestoreOnly")?;
    let before = world.bucket.objects(&world.key("old")).await?;
    vault.expire(&[]).expect(4).await?;
    says(&vault.plan(&[]).await?, "old", "delete", "expired")?;
    ensure!(world.bucket.objects(&world.key("old")).await? == before);
    mode("Normal")?;
    vault.expire(&[]).expect(0).await?;
    ensure!(stored(&world).await?.is_empty());
    Ok(())
}

async fn being_restored() -> Result<()> {
    let cluster = cluster_with_ark().await?;
    let world = World::new("restored").await?;
    let vault = Vault::new(cluster.kubeconfig(), world.storage());
    vault.backup("old", "1s").await?;
    vault.until_expired(&["old"]).await?;
    let now = || jiff::Timestamp::now().to_string();
    let status = |phase: &str, name: &str, backup: &str, heartbeat: &str| {
        let object = json!({"apiVersion": "ark.heptio.com/v1", "kind": "Restore",
            "metadata": {"name": name, "namespace": "heptio-ark", "annotations": {"ark.heptio.com/run": "r"}}, "spec": {"backupName": backup}});
        cluster.kubectl_with_input(&["apply", "-f", "-"], &object.to_string())?;
        let status = json!({"status": {"phase": phase, "heartbeat": heartbeat, "created": 0, "updated": 0, "unchanged": 0, "skipped": 0, "failed": 0, "warnings": 0, "errors": 0}});
        cluster.kubectl(&[
            "patch",
            "restores.ark.heptio.com",
            name,
            "-n",
            "heptio-ark",
            "--subresource=status",
            "--type=merge",
            "-p",
            &status.to_string(),
        ])
    };
    status("InProgress", "r", "old", &now())?;
    let before = world.bucket.objects(&world.key("old")).await?;
    let why = "but it is being restored by r, which";
    says(&vault.plan(&[]).await?, "old", "keep", why)?;
    let finished = vault.expire(&[]).expect(0).await?;
    ensure!(
        finished.stderr.contains("backup old stays for now"),
        "{finished:?}"
    );
    ensure!(world.bucket.objects(&world.key("old")).await? == before);
    status("Completed", "r", "old", &now())?;
    vault.expire(&[]).expect(0).await?;
    ensure!(stored(&world).await?.is_empty());
    // Of many whose pod is gone for long, one time is waited, not one for each.
    let names: Vec<String> = (0..5).map(|n| format!("dead-{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for name in &names {
        vault.backup(name, "1s").await?;
    }
    vault.until_expired(&names).await?;
    for name in &names {
        status("InProgress", name, name, "2026-01-01T00:00:00Z")?;
    }
    let began = std::time::Instant::now();
    let finished = vault.expire(&[]).expect(0).await?;
    let took = began.elapsed();
    ensure!(stored(&world).await?.is_empty(), "{finished:?}");
    ensure!(
        (6..12).contains(&took.as_secs()),
        "it took {took:?}: {finished:?}"
    );
    ensure!(!exists(
        &cluster,
        &["restores.ark.heptio.com", "r", "-n", "heptio-ark"]
    )?);
    Ok(())
}

async fn restore_at_work() -> Result<()> {
    let cluster = cluster_with_ark().await?;
    let world = World::new("reading").await?;
    let proxy = FaultProxy::start(world.s3.url()).await?;
    let vault = Vault::new(cluster.kubeconfig(), world.storage());
    let through = Vault {
        storage: world.storage_at(proxy.url()),
        namespace: vault.namespace.clone(),
        ..vault
    };
    vault.backup("old", "1s").await?;
    vault.backup("too", "1s").await?;
    vault.until_expired(&["old", "too"]).await?;
    let gate = Gate::default();
    let held = proxy.add(
        Rule::on(|request| request.method == "GET" && request.path.ends_with("/old.tar.gz"))
            .hold(&gate),
    );
    let restoring = through.job(&["restore", "old", "--name=r"]).start()?;
    wait_until("the restore to read", Duration::from_secs(60), async || {
        Ok((held.matched() > 0).then_some(()))
    })
    .await?;
    let before = world.bucket.objects(&world.key("old")).await?;
    let plan = vault.plan(&[]).await?;
    says(&plan, "old", "keep", "but it is being restored by r, which")?;
    says(&plan, "too", "delete", "expired")?;
    let finished = vault.expire(&[]).expect(0).await?;
    for text in [
        "backup old stays for now: expired",
        "is being restored by r",
    ] {
        ensure!(finished.stderr.contains(text), "{text}: {finished:?}");
    }
    ensure!(world.bucket.objects(&world.key("old")).await? == before);
    ensure!(stored(&world).await? == BTreeSet::from(["old".to_owned()]));
    gate.open();
    let restored = restoring.wait().await?;
    ensure!(restored.code == Some(0), "{restored:?}");
    vault.expire(&[]).expect(0).await?;
    ensure!(stored(&world).await?.is_empty());
    Ok(())
}

/// Expiry in a bucket of its own, that keeps versions and locks.
fn vault_in<'a>(world: &World, bucket: &Bucket) -> Vault<'a> {
    let (name, endpoint) = (bucket.name(), world.s3.url());
    Vault::new(
        world.cluster.kubeconfig(),
        format!("s3://{name}/p?endpoint={endpoint}&path-style=true&region=us-east-1"),
    )
}

async fn locked() -> Result<()> {
    let world = World::new("expire-lock").await?;
    let bucket = world.s3.versioned_bucket(world.prefix(), true).await?;
    let vault = vault_in(&world, &bucket);
    // What is kept comes first, by name: the others must go all the same.
    for name in ["a-held", "b-kept", "c-free"] {
        vault.backup(name, "1s").await?;
    }
    vault.until_expired(&["a-held", "b-kept", "c-free"]).await?;
    let until = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24);
    let client = bucket.client();
    let hold = ObjectLockLegalHold::builder().status(ObjectLockLegalHoldStatus::On);
    let held = client.put_object_legal_hold().bucket(bucket.name());
    held.key("p/backups/a-held/ark-backup.json")
        .legal_hold(hold.build())
        .send()
        .await?;
    let retention = ObjectLockRetention::builder()
        .mode(ObjectLockRetentionMode::Governance)
        .retain_until_date(DateTime::from_secs(until.as_second()));
    let kept = client.put_object_retention().bucket(bucket.name());
    kept.key("p/backups/b-kept/b-kept.tar.gz")
        .retention(retention.build())
        .send()
        .await?;
    let before = bucket.objects("p/").await?;
    let date = until.to_string();
    let plan = vault.plan(&[]).await?;
    says(&plan, "a-held", "keep", "under a legal hold")?;
    says(&plan, "b-kept", "keep", &date[..19])?;
    says(&plan, "c-free", "delete", "expired")?;
    let finished = vault.expire(&[]).expect(0).await?;
    for text in [
        "backup a-held stays for now: expired",
        "under a legal hold, until somebody lifts it",
        "backup b-kept stays for now: expired",
        &format!("locked by the bucket until {}", &date[..19]),
        "deleted backup c-free",
        "1 expired backup deleted; 2 backups stay",
    ] {
        ensure!(finished.stderr.contains(text), "{text}: {finished:?}");
    }
    let mut expected = before;
    expected.retain(|key, _| !key.contains("/c-free/"));
    ensure!(bucket.objects("p/").await? == expected);
    // Nothing is only hidden, nor what the backups have tried the bucket with.
    let versions = bucket.versions("p/").await?;
    ensure!(
        versions.iter().eq(expected.keys()),
        "{versions:?}, not {:?}",
        expected.keys()
    );
    Ok(())
}

async fn void_in_versions() -> Result<()> {
    let world = World::new("expire-void").await?;
    let bucket = world.s3.versioned_bucket(world.prefix(), false).await?;
    let vault = vault_in(&world, &bucket);
    vault.backup("b", "1h").await?;
    let before = bucket.objects("p/").await?;
    let uid =
        world
            .cluster
            .kubectl(&["get", "ns", "kube-system", "-o", "jsonpath={.metadata.uid}"])?;
    let key = "p/backups/b/ark-deleting.json";
    for run in ["r-1", "r-2", "r-3"] {
        let tombstone = json!({"backup": "b", "cause": "sweep", "runID": run, "clusterUID": uid, "at": "2026-01-01T00:00:00Z"});
        let json = tombstone.to_string().into_bytes();
        bucket.put(key, json).await?;
    }
    let versions = bucket.versions(key).await?;
    ensure!(versions.len() == 3, "{versions:?}");
    let finished = vault.expire(&[]).expect(0).await?;
    let left = bucket.versions(key).await?;
    ensure!(left.is_empty(), "{left:?}: {finished:?}");
    ensure!(bucket.objects("p/").await? == before);
    Ok(())
}

async fn originals() -> Result<()> {
    let world = World::new("expire-top").await?;
    let vault = vault(&world);
    let put = async |path: String, body: Vec<u8>| {
        let key = format!("{}/{path}", world.prefix());
        world.bucket.put(&key, body).await
    };
    vault.backup("ours", "1h").await?;
    for (maker, name, expiration) in [
        (Maker::Ark05, "five", "2026-01-01T00:00:01Z"),
        (Maker::Ark03, "three", "2026-01-01T00:00:01Z"),
        (Maker::Ark05, "young", "2037-01-01T00:00:00Z"),
    ] {
        let backup = ForeignBackup::new(maker, name);
        let mut description = backup.description();
        description["spec"]["ttl"] = "1s".into();
        description["status"]["expiration"] = expiration.into();
        let archive = format!("{name}/{name}.tar.gz");
        put(archive, backup.archive()?).await?;
        let description = serde_json::to_vec(&description)?;
        put(format!("{name}/ark-backup.json"), description).await?;
        put(format!("{name}/{name}.log.gz"), b"log".to_vec()).await?;
    }
    // Whatever else somebody has there.
    put("five/more/photo".to_owned(), b"x".to_vec()).await?;
    put("photos/photo".to_owned(), b"x".to_vec()).await?;
    let asked = ["--include-foreign"];
    wait_until(
        "what original Ark made to expire",
        Duration::from_secs(60),
        async || {
            let plan = vault.plan(&asked).await?;
            let gone = |name: &str| says(&plan, name, "delete", "expired").is_ok();
            Ok((gone("five") && gone("three")).then_some(()))
        },
    )
    .await?;
    let before = world
        .bucket
        .objects(&format!("{}/", world.prefix()))
        .await?;
    let plan = vault.plan(&[]).await?;
    for name in ["five", "three", "young"] {
        says(
            &plan,
            name,
            "keep",
            "made by original Ark: only with --include-foreign",
        )?;
    }
    vault.expire(&[]).expect(0).await?;
    let prefix = format!("{}/", world.prefix());
    ensure!(world.bucket.objects(&prefix).await? == before);
    says(&vault.plan(&asked).await?, "young", "keep", "expires in")?;
    let finished = vault.expire(&asked).expect(0).await?;
    let mut expected = before;
    expected.retain(|key, _| {
        let key = key.trim_start_matches(&prefix);
        !key.starts_with("three/") && (!key.starts_with("five/") || key == "five/more/photo")
    });
    let left = world.bucket.objects(&prefix).await?;
    ensure!(
        left == expected,
        "{:?} are left, not {:?}: {finished:?}",
        left.keys(),
        expected.keys()
    );
    Ok(())
}

async fn read_only_location() -> Result<()> {
    let cluster = cluster_with_ark().await?;
    let world = World::new("expire-ro").await?;
    let vault = Vault::new(cluster.kubeconfig(), world.storage());
    vault.backup("old", "1s").await?;
    vault.until_expired(&["old"]).await?;
    let location = |mode: &str| {
        let object = json!({"apiVersion": "ark.heptio.com/v1", "kind": "BackupStorageLocation",
            "metadata": {"name": "vault", "namespace": "heptio-ark"},
            "spec": {"url": world.storage(), "accessMode": mode}});
        cluster.kubectl_with_input(&["apply", "-f", "-"], &object.to_string())
    };
    let expire = |more: &[&str]| {
        let arguments = [&["expire", "--location=vault"], more].concat();
        ArkJob::new(cluster.kubeconfig(), &arguments)
    };
    location("ReadOnly")?;
    let before = world.bucket.objects(&world.key("old")).await?;
    let finished = expire(&[]).expect(4).await?;
    ensure!(finished.stderr.contains("is ReadOnly"), "{finished:?}");
    ensure!(world.bucket.objects(&world.key("old")).await? == before);
    // What would be is shown.
    let plan = read_plan(&expire(&["--dry-run", "-o", "json"]).expect(0).await?)?;
    says(&plan, "old", "delete", "expired")?;
    ensure!(world.bucket.objects(&world.key("old")).await? == before);
    location("ReadWrite")?;
    expire(&[]).expect(0).await?;
    ensure!(stored(&world).await?.is_empty());
    Ok(())
}

fn vault_of_files(world: &World, directory: &Path) -> Vault<'static> {
    Vault {
        storage: format!("file://{}", directory.display()),
        ..vault(world)
    }
}

async fn in_a_directory() -> Result<()> {
    const HOUR: i64 = 3600;
    let world = World::new("expire-file").await?;
    let clock = WrongClock::build()?;
    let directory = tempfile::tempdir()?;
    let backups = directory.path().join("backups");
    let vault = vault_of_files(&world, directory.path());
    vault.backup("old", "1s").await?;
    vault.backup("young", "30m").await?;
    // A run that was cut off has left these.
    for (name, hours) in [("lately", 1), ("long-ago", 48)] {
        let name = format!(".ark-tmp-{name}");
        let left = std::fs::File::create(backups.join("young").join(name))?;
        let age = Duration::from_secs(hours * 3600);
        left.set_modified(std::time::SystemTime::now() - age)?;
    }
    vault.until_expired(&["old"]).await?;
    // Files are dated by the machine, not by the pod: so a pod that is ahead makes them no older.
    for (pod, old) in [(HOUR, "delete"), (0, "delete"), (-HOUR, "keep")] {
        let plan = read_plan(&clock.on(vault.planned(&[]), pod).run().await?)?;
        says(&plan, "old", old, "").with_context(|| format!("pod {pod}"))?;
        says(&plan, "young", "keep", "").with_context(|| format!("pod {pod}"))?;
    }
    let ahead = read_plan(&clock.on(vault.planned(&[]), HOUR).run().await?)?;
    says(&ahead, "young", "keep", "by the store's clock it has ")?;
    let young: BTreeSet<_> = files(&backups)?
        .into_iter()
        .filter(|path| path.starts_with("young") && !path.ends_with(".ark-tmp-long-ago"))
        .collect();
    let finished = clock.on(vault.expire(&[]), HOUR).expect(0).await?;
    let left = files(&backups)?;
    ensure!(left == young, "{left:?}, not {young:?}: {finished:?}");
    // Nor does one that is behind keep for ever.
    ensure!(
        finished
            .stderr
            .contains("1 expired backup deleted, 1 left-over swept up; 1 backup stays"),
        "{finished:?}"
    );
    Ok(())
}

/// A directory on a file system that is mounted read-only, for the process alone.
#[cfg(target_os = "linux")]
async fn read_only_directory() -> Result<()> {
    const HOUR: i64 = 3600;
    let world = World::new("expire-mount").await?;
    let clock = WrongClock::build()?;
    let directory = tempfile::tempdir()?;
    let vault = vault_of_files(&world, directory.path());
    vault.backup("old", "1s").await?;
    vault.backup("young", "30m").await?;
    vault.until_expired(&["old"]).await?;
    let path = directory.path().display();
    let script = format!(
        "mount --bind {path} {path} && mount -o remount,bind,ro {path} || exit 99; exec \"$@\""
    );
    let wrapper = ["unshare", "--mount", "sh", "-c", &script, "sh"];
    let before = files(directory.path())?;
    let planned = clock.on(vault.planned(&[]), HOUR).under(&wrapper);
    let planned = planned.expect(0).await?;
    ensure!(
        planned
            .stderr
            .contains("ages are told by this machine's clock alone"),
        "{planned:?}"
    );
    // That clock is wrong, which nobody can tell: it may be shown, but not done.
    says(&read_plan(&planned)?, "young", "delete", "expired")?;
    let expiring = clock.on(vault.expire(&[]), HOUR).under(&wrapper);
    let finished = expiring.expect(1).await?;
    ensure!(
        finished.stderr.contains("Read-only file system"),
        "{finished:?}"
    );
    ensure!(files(directory.path())? == before);
    Ok(())
}
