//! Ticks: what is one backup of a schedule, and what is not.

use anyhow::{Context, Result, bail, ensure};
use ark_job::api::environment;
use ark_tests::job::{ArkJob, Finished};
use ark_tests::{ControlPlane, FaultProxy, Options, Rule, wait_until};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

use crate::place::{Place, cluster_with_ark, get};
use crate::world::{World, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "schedule_ticks::twins_retries_and_a_job_made_again_are_one_backup",
            one_backup,
        ),
        scenario(
            "schedule_ticks::the_same_tick_of_two_clusters_collides",
            two_clusters,
        ),
        scenario(
            "schedule_ticks::a_job_made_by_hand_is_a_backup_of_its_own",
            by_hand,
        ),
        scenario(
            "schedule_ticks::without_a_job_it_is_a_backup_for_now",
            without_a_job,
        ),
        scenario(
            "schedule_ticks::a_name_has_at_most_48_characters",
            longest_name,
        ),
        scenario(
            "schedule_ticks::the_record_expires_whether_there_is_a_backup_or_not",
            record,
        ),
    ]
}

/// A schedule's backups of one namespace, which is Ark's too.
struct Schedule<'a> {
    world: &'a World,
    namespace: String,
    name: &'a str,
}

impl<'a> Schedule<'a> {
    async fn new(world: &'a World, name: &'a str) -> Result<Self> {
        Ok(Schedule {
            world,
            namespace: world.namespace("ark").await?,
            name,
        })
    }

    fn back_up(&self, flags: &[&str]) -> ArkJob {
        self.back_up_in(self.world.cluster, flags)
    }

    fn back_up_in(&self, cluster: &ControlPlane, flags: &[&str]) -> ArkJob {
        let storage = self.world.storage();
        let mut arguments = vec!["backup", "--schedule", self.name, "--storage", &storage];
        arguments.extend(["--include-namespaces", &self.namespace]);
        arguments.extend(["--namespace", &self.namespace]);
        arguments.extend(flags);
        ArkJob::new(cluster.kubeconfig(), &arguments)
    }

    /// As a pod of a Job that is there.
    fn back_up_as(&self, job: &Value, pod: &str) -> Result<ArkJob> {
        let field = |key: &str| job["metadata"][key].as_str().context("a Job has that");
        let ark_job = self.back_up(&[]).of(field("uid")?, pod);
        Ok(ark_job.variable(environment::JOB_NAME, field("name")?))
    }

    /// A CronJob whose Jobs make no pods.
    fn create_cron_job(&self, spec: Value) -> Result<()> {
        let mut cron_job = json!({
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {
                "concurrencyPolicy": "Forbid",
                "jobTemplate": {"spec": job_spec()},
            },
        });
        for (key, value) in spec.as_object().into_iter().flatten() {
            cron_job["spec"][key] = value.clone();
        }
        self.apply(&cron_job)
    }

    fn apply(&self, object: &Value) -> Result<()> {
        let cluster = self.world.cluster;
        cluster
            .kubectl_with_input(&["create", "-f", "-"], &object.to_string())
            .map(drop)
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut all = vec!["--namespace", &self.namespace];
        all.extend(arguments);
        self.world.cluster.kubectl(&all)
    }

    fn job(&self, name: &str) -> Result<Value> {
        let json = self.kubectl(&["get", "job", name, "--output=json"])?;
        Ok(serde_json::from_str(&json)?)
    }

    /// The names of all backups that are in storage.
    async fn stored(&self) -> Result<Vec<String>> {
        let prefix = format!("{}/backups/", self.world.prefix());
        let objects = self.world.bucket.objects(&prefix).await?;
        let mut names: Vec<String> = objects
            .keys()
            .filter_map(|key| key.strip_suffix("/ark-backup.json"))
            .map(|key| key.trim_start_matches(&prefix).to_owned())
            .collect();
        names.sort();
        Ok(names)
    }

    /// A JSON file of a backup.
    async fn file(&self, backup: &str, file: &str) -> Result<Value> {
        let key = self.world.key(backup);
        let objects = self.world.bucket.objects(&key).await?;
        let bytes = objects.get(&format!("{key}{file}")).context("no file")?;
        Ok(serde_json::from_slice(bytes)?)
    }
}

async fn one_backup() -> Result<()> {
    let world = World::new("tick").await?;
    let schedule = Schedule::new(&world, "nightly").await?;
    schedule.create_cron_job(json!({"schedule": "@every 1s", "timeZone": "Asia/Kolkata"}))?;
    // A Job that the CronJob controller really made.
    let job = wait_until(
        "the CronJob to make a Job",
        Duration::from_secs(60),
        async || {
            let jobs = schedule.kubectl(&["get", "jobs", "--output=json"])?;
            let mut jobs: Value = serde_json::from_str(&jobs)?;
            Ok(jobs["items"].as_array_mut().and_then(Vec::pop))
        },
    )
    .await?;
    schedule.kubectl(&[
        "patch",
        "cronjob",
        "nightly",
        "--patch={\"spec\":{\"suspend\":true}}",
    ])?;
    let noted = job["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"]
        .as_str()
        .context("the controller notes the time")?;
    ensure!(noted.ends_with("+05:30"), "{noted}");
    let at: jiff::Timestamp = noted.parse()?;
    let name = format!("nightly-{}", at.strftime("%Y%m%d%H%M%S"));

    let (a, b) = (
        schedule.back_up_as(&job, "pod-a")?.start()?,
        schedule.back_up_as(&job, "pod-b")?.start()?,
    );
    for finished in [a.wait().await?, b.wait().await?] {
        ensure!(finished.code == Some(0), "{finished:?}");
    }
    ensure!(schedule.stored().await? == [name.as_str()]);
    let before = world.bucket.objects(&world.key(&name)).await?;
    schedule.back_up_as(&job, "pod-c")?.expect(0).await?;

    // The same Job, made again.
    let job_name = job["metadata"]["name"].as_str().context("a name")?;
    schedule.kubectl(&["delete", "job", job_name, "--wait=true"])?;
    let again = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name,
            "namespace": schedule.namespace,
            "annotations": job["metadata"]["annotations"],
            "ownerReferences": job["metadata"]["ownerReferences"],
        },
        "spec": job_spec(),
    });
    schedule.apply(&again)?;
    let again = schedule.job(job_name)?;
    ensure!(again["metadata"]["uid"] != job["metadata"]["uid"]);
    schedule.back_up_as(&again, "pod-d")?.expect(0).await?;
    // A pod of the Job that is gone does not take the new one for its own.
    let lost = schedule.back_up_as(&job, "pod-e")?.expect(1).await?;
    ensure!(lost.stderr.contains("made again"), "{lost:?}");
    // Told the time, it is the same tick without any Job.
    schedule.back_up(&["--scheduled", noted]).expect(0).await?;

    ensure!(world.bucket.objects(&world.key(&name)).await? == before);
    let marker = schedule.file(&name, "ark-backup.json").await?;
    ensure!(marker["commit"]["schedule"] == "nightly", "{marker:#}");
    ensure!(marker["commit"]["keepLast"] == 1, "{marker:#}");
    ensure!(marker["metadata"]["labels"]["ark.heptio.com/schedule"] == "nightly");
    let velero = schedule.file(&name, "velero-backup.json").await?;
    ensure!(velero["metadata"]["labels"]["velero.io/schedule-name"] == "nightly");
    Ok(())
}

async fn two_clusters() -> Result<()> {
    let world = World::new("ticks").await?;
    let schedule = Schedule::new(&world, "daily").await?;
    let other = ControlPlane::start(Options::default()).await?;
    other.kubectl(&["create", "namespace", &schedule.namespace])?;
    let tick = ["--scheduled", "2026-11-26T07:00:00Z", "--keep-last", "3"];
    schedule.back_up(&tick).expect(0).await?;
    let before = world
        .bucket
        .objects(&world.key("daily-20261126070000"))
        .await?;
    let refused = schedule.back_up_in(&other, &tick).expect(11).await?;
    let marker = schedule
        .file("daily-20261126070000", "ark-backup.json")
        .await?;
    ensure!(marker["commit"]["keepLast"] == 3, "{marker:#}");
    let uid = marker["commit"]["clusterUID"].as_str().context("a UID")?;
    ensure!(
        refused.stderr.contains(uid),
        "the other cluster is not named: {refused:?}"
    );
    ensure!(
        world
            .bucket
            .objects(&world.key("daily-20261126070000"))
            .await?
            == before
    );
    // The next tick of the other cluster is its own.
    let next = ["--scheduled", "2026-11-27T07:00:00Z"];
    schedule.back_up_in(&other, &next).expect(0).await?;
    Ok(())
}

async fn by_hand() -> Result<()> {
    let world = World::new("hand").await?;
    let schedule = Schedule::new(&world, "weekly").await?;
    schedule.create_cron_job(json!({"schedule": "@weekly", "suspend": true}))?;
    // Its name looks like that of a tick in 1970.
    schedule.kubectl(&["create", "job", "--from=cronjob/weekly", "weekly-7"])?;
    let job = schedule.job("weekly-7")?;
    for pod in ["pod-a", "pod-b"] {
        schedule.back_up_as(&job, pod)?.expect(0).await?;
    }
    let created: jiff::Timestamp = job["metadata"]["creationTimestamp"]
        .as_str()
        .context("a Job has been created")?
        .parse()?;
    let name = format!("weekly-{}", created.strftime("%Y%m%d%H%M%S"));
    ensure!(schedule.stored().await? == [name]);
    // One that the controller made, of before it noted the time.
    let owners = job["metadata"]["ownerReferences"].clone();
    schedule.apply(&json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "weekly-29927940", "namespace": schedule.namespace, "ownerReferences": owners},
        "spec": job_spec(),
    }))?;
    let tick = schedule.job("weekly-29927940")?;
    schedule.back_up_as(&tick, "pod-c")?.expect(0).await?;
    ensure!(
        schedule
            .stored()
            .await?
            .contains(&"weekly-20261126070000".to_owned())
    );
    Ok(())
}

async fn without_a_job() -> Result<()> {
    let world = World::new("now").await?;
    let schedule = Schedule::new(&world, "hourly").await?;
    let before = jiff::Timestamp::now();
    schedule.back_up(&[]).expect(0).await?;
    let stored = schedule.stored().await?;
    let [name] = &stored[..] else {
        bail!("{stored:?}")
    };
    let at: jiff::civil::DateTime = jiff::civil::DateTime::strptime("hourly-%Y%m%d%H%M%S", name)?;
    let at = at.to_zoned(jiff::tz::TimeZone::UTC)?.timestamp();
    let seconds = at.as_second() - before.as_second();
    ensure!(
        (0..60).contains(&seconds),
        "{name} was asked for at {before}"
    );
    Ok(())
}

async fn longest_name() -> Result<()> {
    let world = World::new("long").await?;
    let longest = "x".repeat(48);
    let schedule = Schedule::new(&world, &longest).await?;
    let tick = ["--scheduled", "2026-11-26T08:00:00.9+01:00"];
    schedule.back_up(&tick).expect(0).await?;
    ensure!(schedule.stored().await? == [format!("{longest}-20261126070000")]);
    let too_long = "x".repeat(49);
    let schedule = Schedule {
        name: &too_long,
        ..schedule
    };
    let Finished { stderr, .. } = schedule.back_up(&tick).expect(2).await?;
    ensure!(stderr.contains("at most 48"), "{stderr}");
    Ok(())
}

/// The record of a tick says whose it is, and when it expires, whether there is a backup or not.
async fn record() -> Result<()> {
    let cluster = cluster_with_ark().await?;
    let place = Place::new(&cluster)?;
    let arguments = [
        "backup",
        "--schedule",
        "daily",
        "--scheduled",
        "2026-11-26T07:00:00Z",
    ];
    let job = |kubeconfig: &Path, ttl: &str| {
        place.job_at(kubeconfig, &[&arguments[..], &["--ttl", ttl]].concat())
    };
    let record = || {
        let name = "daily-20261126070000";
        get(
            &cluster,
            &["backups.ark.heptio.com", name, "-n", "heptio-ark"],
        )
    };
    // What the cluster serves cannot be found out.
    let proxy = FaultProxy::start_before(&cluster).await?;
    proxy.add(Rule::on(|request| request.path == "/apis").answer(403, &[], ""));
    let behind = cluster.kubeconfig_for(proxy.url())?;
    for (ttl, hours) in [("48h", Some(48)), ("0", None)] {
        job(&behind, ttl).expect(1).await?;
        let failed = record()?;
        ensure!(failed["metadata"]["labels"]["ark.heptio.com/schedule"] == "daily");
        ensure!(failed["status"]["phase"] == "Failed", "{failed:#}");
        ensure!(lifetime(&failed["status"])? == hours, "{failed:#}");
    }
    job(cluster.kubeconfig(), "48h").expect(0).await?;
    let status = &record()?["status"];
    ensure!(status["phase"] == "Completed", "{status:#}");
    ensure!(lifetime(status)? == Some(48), "{status:#}");
    Ok(())
}

/// Hours from start to expiration.
fn lifetime(status: &Value) -> Result<Option<i64>> {
    let time = |key: &str| -> Result<Option<jiff::Timestamp>> {
        Ok(status[key].as_str().map(str::parse).transpose()?)
    };
    let started = time("startTimestamp")?.context("it has begun")?;
    let expiration = time("expiration")?;
    Ok(expiration.map(|expiration| expiration.duration_since(started).as_hours()))
}

fn job_spec() -> Value {
    json!({"suspend": true, "template": {"spec": {
        "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}],
    }}})
}
