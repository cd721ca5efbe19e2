//! What things are called at the keyboard: every noun in both orders, names that stand for backups, near misses, and what is
//! refused.
//!
//! Shares the cluster of `plugin`, with namespaces of Ark's own. Backups are made with `--local` in a location that is a
//! directory: their records are as others, and no pod is waited for.

use anyhow::{Result, ensure};
use ark_tests::job;
use jiff::Timestamp;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::plugin::{Ark, IMAGE, Said, apply, ark, kubectl, run, trifle};
use crate::world::node_scenario;

pub fn trials() -> Vec<Trial> {
    vec![
        node_scenario(
            "plugin_names::a_backup_is_named_by_latest_by_its_schedule_and_by_how_its_name_begins",
            names_of_backups,
        ),
        node_scenario(
            "plugin_names::every_noun_is_made_shown_and_deleted_in_both_orders",
            every_noun,
        ),
    ]
}

/// A namespace with Ark's settings, and a location `disk` in it that is a directory.
struct Place {
    ark: &'static Ark,
    namespace: &'static str,
    directory: tempfile::TempDir,
}

impl Place {
    async fn new(namespace: &'static str) -> Result<Place> {
        let ark = ark().await?;
        ark.settings(namespace, IMAGE, "").await?;
        let directory = tempfile::tempdir()?;
        let place = Place {
            ark,
            namespace,
            directory,
        };
        let url = format!("file://{}", place.directory.path().display());
        let made = place
            .says(0, &format!("location create disk --storage {url}"))
            .await?;
        ensure!(
            made.stdout == "backupstoragelocation.ark.heptio.com/disk created\n",
            "{made:?}"
        );
        // No pod could read this machine's directory.
        made.tells("neither synced nor expired")?;
        Ok(place)
    }

    /// Runs `kubectl ark` for this namespace, and expects this exit code.
    async fn says(&self, code: i32, line: &str) -> Result<Answer> {
        let said = self
            .ark
            .expect(code, &format!("{line} -n {}", self.namespace))
            .await?;
        let Said { stdout, stderr, .. } = said;
        Ok(Answer { stdout, stderr })
    }

    async fn backup(&self, name: &str) -> Result<()> {
        let line = format!(
            "backup create {name} --include-namespaces {}-app {LOCAL}",
            self.namespace
        );
        self.says(0, &line).await.map(drop)
    }

    /// The names that a `get … -o name` prints.
    async fn listed(&self, line: &str) -> Result<String> {
        Ok(self.says(0, line).await?.stdout)
    }
}

/// In this process, in the directory.
const LOCAL: &str = "--local --location disk";

#[derive(Debug)]
struct Answer {
    stdout: String,
    stderr: String,
}

impl Answer {
    /// That it says this to a person.
    fn tells(&self, text: &str) -> Result<()> {
        ensure!(self.stderr.contains(text), "no {text:?} in {self:?}");
        Ok(())
    }

    fn does_not_tell(&self, text: &str) -> Result<()> {
        ensure!(!self.stderr.contains(text), "{text:?} in {self:?}");
        Ok(())
    }

    /// That the page of this backup was printed.
    fn is_page_of(&self, name: &str) -> Result<()> {
        let first = self.stdout.lines().next().unwrap_or_default();
        let shown = first.split_whitespace().collect::<Vec<_>>();
        ensure!(shown == ["Name:", name], "not {name}: {self:?}");
        Ok(())
    }
}

async fn names_of_backups() -> Result<()> {
    let place = Place::new("names").await?;
    trifle(&place.ark.cluster, "names-app")?;
    for name in [
        "shop",
        "shop-2",
        "web-20261121000000",
        "web-20261122000000",
        // It is the newest, and of no schedule.
        "zoo",
    ] {
        place.backup(name).await?;
    }
    let newest = "web-20261122000000";

    // By the resources, and by what is stored.
    for read in ["", LOCAL] {
        for (typed, name, said) in [
            ("latest", "zoo", "the newest backup is zoo"),
            (
                "web/latest",
                newest,
                "the newest backup of schedule web is web-20261122000000",
            ),
            (
                "web-20261121",
                "web-20261121000000",
                "web-20261121 is backup web-20261121000000",
            ),
            ("shop", "shop", ""),
        ] {
            let shown = place
                .says(0, &format!("describe backup {typed} {read}"))
                .await?;
            shown.is_page_of(name)?;
            shown.tells(said)?;
            if said.is_empty() {
                shown.does_not_tell("begins so")?;
            }
        }
        let many = place
            .says(10, &format!("backup describe sho {read}"))
            .await?;
        many.tells("begin so: shop-2, shop")?;
        let schedule = place
            .says(10, &format!("backup describe we {read}"))
            .await?;
        schedule.tells("web/latest is the newest")?;
        let near = place
            .says(10, &format!("backup describe shpo {read}"))
            .await?;
        near.tells("did you mean shop")?;
        place
            .says(10, &format!("backup describe shop/latest {read}"))
            .await?
            .tells("schedule shop has no backup")?;
        place
            .says(10, &format!("backup describe wbe/latest {read}"))
            .await?
            .tells("did you mean web?")?;
    }

    // Everything that reads a backup takes them.
    let log = place
        .says(0, &format!("backup logs latest {LOCAL}"))
        .await?;
    ensure!(log.stdout.contains("level=info"), "{log:?}");
    let object = "names-app/configmaps/trifle";
    let shown = place
        .says(0, &format!("backup show web/latest {object} {LOCAL}"))
        .await?;
    ensure!(shown.stdout.contains("name: trifle"), "{shown:?}");
    place.says(0, &format!("diff latest zo {LOCAL}")).await?;
    let elsewhere = tempfile::tempdir()?;
    let file = elsewhere.path().join("saved.tar.gz");
    let saved = place
        .says(
            0,
            &format!("backup download zo {LOCAL} -o {}", file.display()),
        )
        .await?;
    ensure!(saved.stdout.starts_with("backup zoo is in "), "{saved:?}");
    let plan = place
        .says(0, &format!("restore plan web/latest {LOCAL}"))
        .await?;
    plan.tells("is web-20261122000000")?;
    let got = place.listed("get backup latest -o name").await?;
    ensure!(got == "backup.ark.heptio.com/zoo\n", "{got}");
    // A script that asks whether there is a backup is told no.
    place.says(10, "get backup zo -o name").await?;

    // A restore is called after the backup that was found.
    let map = "--namespace-mappings names-app:names-copy";
    place
        .says(0, &format!("restore create web-20261121 {map} {LOCAL}"))
        .await?;
    place
        .says(0, &format!("restore create latest {map} {LOCAL}"))
        .await?;
    let restores = place.listed("get restores -o name").await?;
    for backup in ["web-20261121000000-", "zoo-"] {
        let reference = format!("restore.ark.heptio.com/{backup}");
        ensure!(restores.contains(&reference), "{restores}");
    }
    kubectl(
        &place.ark.cluster,
        "delete namespace names-copy --wait=false",
    )?;

    // Nothing is deleted by a guess, or called so that it would be one.
    place
        .says(2, "backup delete latest --yes")
        .await?
        .tells("whole names")?;
    place
        .says(2, "backup delete web/latest --yes")
        .await?
        .tells("whole names")?;
    place
        .says(10, &format!("backup delete sho --yes {LOCAL}"))
        .await?;
    place
        .says(2, &format!("backup create latest {LOCAL}"))
        .await?
        .tells("newest")?;
    let all = place.listed("get bk -o name").await?;
    ensure!(all.lines().count() == 5, "{all}");
    Ok(())
}

async fn every_noun() -> Result<()> {
    let place = Place::new("nouns").await?;
    let cluster = &place.ark.cluster;
    trifle(cluster, "nouns-app")?;
    place.backup("first").await?;
    place
        .says(
            0,
            &format!("restore create back --from-backup first {LOCAL}"),
        )
        .await?;
    place
        .says(0, "schedule create nightly --schedule @daily --paused")
        .await?;

    for (names, name) in [
        (["backup", "backups", "bk"], "first"),
        (["restore", "restores", "rs"], "back"),
        (["schedule", "schedules", "sc"], "nightly"),
        (["location", "locations", "loc"], "disk"),
    ] {
        let listed = place.listed(&format!("get {} -o name", names[0])).await?;
        for noun in names {
            for line in [format!("{noun} get -o name"), format!("get {noun} -o name")] {
                ensure!(place.listed(&line).await? == listed, "{line}: {listed}");
            }
            for line in [
                format!("{noun} describe {name}"),
                format!("describe {noun} {name}"),
                format!("describe {noun}/{name}"),
            ] {
                place.says(0, &line).await?.is_page_of(name)?;
            }
        }
        let near = format!("{}x", &name[..name.len() - 1]);
        place
            .says(10, &format!("describe {} {near}", names[0]))
            .await?
            .tells(&format!("did you mean {name}?"))?;
    }
    let all = place.listed("get all").await?;
    for name in ["first", "back", "nightly", "disk"] {
        ensure!(
            all.lines().any(|line| line.starts_with(name)),
            "no {name}: {all}"
        );
    }
    let json: Value = serde_json::from_str(&place.listed("get location disk -o json").await?)?;
    ensure!(json["kind"] == "BackupStorageLocation", "{json}");

    // Locations: a name is taken once; what is used stays; the hourly CronJobs of one go with it.
    place
        .says(11, "create location disk --storage file:///tmp")
        .await?
        .tells("already")?;
    let printed = place
        .says(
            0,
            "create location more --storage s3://b/p --dry-run=client -o name",
        )
        .await?;
    ensure!(
        printed.stdout
            == "backupstoragelocation.ark.heptio.com/more\ncronjob.batch/ark-expire-more\ncronjob.batch/ark-sync-more\n",
        "{printed:?}"
    );
    let used = place.says(11, "delete location default").await?;
    used.tells("schedule nightly")?;
    used.tells("kubectl ark schedule delete nightly -n nouns")?;
    place.says(0, "delete sc nightly").await?;
    let gone = place.says(0, "delete location default").await?;
    for object in [
        "cronjob.batch/ark-sync-default",
        "cronjob.batch/ark-expire-default",
    ] {
        ensure!(
            gone.stdout.contains(&format!("{object} deleted\n")),
            "{gone:?}"
        );
    }
    gone.tells("what is stored in s3://plugin/in-cluster stays")?;
    place.says(10, "describe location default").await?;
    place
        .says(10, "backup create x")
        .await?
        .tells("there is no BackupStorageLocation default in namespace nouns")?;
    place
        .says(10, "backup create x --location dissk")
        .await?
        .tells("did you mean disk?")?;

    // Restores: one that is at work stays, one that has ended goes, and what it restored does not.
    let record = json!({
        "apiVersion": "ark.heptio.com/v1", "kind": "Restore",
        "metadata": {"name": "running", "namespace": "nouns", "annotations": {"ark.heptio.com/run": "0123456789"}},
        "spec": {"backupName": "first", "storageLocation": "disk"},
    });
    apply(cluster, &record)?;
    let now = Timestamp::now().to_string();
    let status =
        json!({"status": {"phase": "InProgress", "startTimestamp": now, "heartbeat": now}})
            .to_string();
    cluster.kubectl(&[
        "patch",
        "restores.ark.heptio.com",
        "running",
        "-n",
        "nouns",
        "--subresource=status",
        "--type=merge",
        "-p",
        &status,
    ])?;
    place
        .says(11, "restore delete back running --yes")
        .await?
        .tells("was not deleted")?;
    place
        .says(2, "restore delete back")
        .await?
        .tells("needs consent")?;
    let results = place.directory.path().join("restores/back");
    ensure!(results.exists(), "nothing is stored of the restore");
    let deleted = place
        .says(0, &format!("delete restore back --yes {LOCAL}"))
        .await?;
    ensure!(
        deleted.stdout.starts_with("restore back is deleted"),
        "{deleted:?}"
    );
    ensure!(!results.exists(), "its log and results are left");
    place.says(10, "restore delete back --yes").await?;
    place
        .says(11, "delete location disk")
        .await?
        .tells("restore running, which is at work")?;

    // Whoever means the namespace to back up says -n.
    let elsewhere = place.ark.expect(10, "backup create x -n nouns-app").await?;
    for text in [
        "Ark is not in namespace nouns-app",
        "--include-namespaces nouns-app",
        "leave out `-n nouns-app`",
    ] {
        ensure!(
            elsewhere.stderr.contains(text),
            "no {text:?}: {elsewhere:?}"
        );
    }

    let nothing = place.ark.expect(0, "backup get -n nouns-app").await?;
    for text in [
        "No resources found",
        "Ark is not in namespace nouns-app",
        "leave out `-n nouns-app`",
    ] {
        ensure!(nothing.stderr.contains(text), "no {text:?}: {nothing:?}");
    }

    // A backup of somebody's machine has a name here, and is shown with its place; by label, it is left.
    let laptop = place.directory.path().join("laptop");
    std::fs::create_dir(&laptop)?;
    let local = format!("--local --storage file://{}", laptop.display());
    let mine =
        format!("backup create mine --labels on=laptop --include-namespaces nouns-app {local}");
    place.says(0, &mine).await?;
    let shown = place.listed("get backup mine").await?;
    ensure!(shown.contains("/laptop"), "{shown}");
    let left = place.says(0, "backup delete -l on=laptop --yes").await?;
    left.tells("left: 1 backup that no location of this cluster has")?;
    left.tells("nothing to delete")?;
    let taken = place
        .says(11, &format!("backup create mine {LOCAL}"))
        .await?;
    taken.tells("/laptop")?;
    taken.tells("gives the name free")?;
    // Its restore is stored there, too.
    place
        .says(
            0,
            &format!("restore create again --from-backup mine {local}"),
        )
        .await?;
    place
        .says(2, "restore delete again --yes")
        .await?
        .tells("--storage URL, or --local")?;
    place
        .says(0, &format!("restore delete again --yes {local}"))
        .await?;
    ensure!(
        !laptop.join("restores/again").exists(),
        "its log and results are left"
    );

    // A ConfigMap that is missing is told before there is a Job, also of a schedule.
    let location = json!({
        "apiVersion": "ark.heptio.com/v1", "kind": "BackupStorageLocation", "metadata": {"name": "disk2", "namespace": "nouns"},
        "spec": {"url": "s3://plugin/disk2", "accessMode": "ReadWrite"},
    });
    apply(cluster, &location)?;
    for line in [
        "backup create x --location disk2 --resource-policies-configmap nowhere",
        "schedule create x --location disk2 --schedule @daily --resource-policies-configmap nowhere",
    ] {
        place
            .says(10, line)
            .await?
            .tells("kubectl create configmap nowhere -n nouns --from-file FILE")?;
    }
    place
        .says(11, "backup create mine --location disk2")
        .await?
        .tells("backup delete mine --local")?;
    ensure!(place.listed("get schedules -o name").await?.is_empty());

    // A command that is nearly one.
    let mut command = std::process::Command::new(job::program("kubectl-ark")?);
    command.args(["download", "first"]);
    let said = run(Ok(command)).await?;
    ensure!(
        said.code == Some(2) && said.stderr.contains("'kubectl ark backup download'"),
        "{said:?}"
    );
    Ok(())
}
