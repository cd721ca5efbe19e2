//! `kubectl ark install` again and again, beside another installation, and `uninstall`, on clusters of their own: without
//! nodes, so that Jobs stay at work until they are deleted.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ark_tests::job::{self, ArkJob};
use ark_tests::{Bucket, ControlPlane, Options, s3, wait_until};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::plugin::{ARK, Said, kubectl, run};
use crate::world::{self, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "plugin_install::installing_again_upgrades_what_nobody_else_looks_after",
            upgrade,
        ),
        scenario(
            "plugin_install::two_installations_do_not_meet_and_each_goes_alone",
            two_installations,
        ),
    ]
}

const ONE: &str = "localhost/ark-job:one";
const TWO: &str = "localhost/ark-job:two";
const OTHER: &str = "other-ark";
/// For the API server to notice a policy, on a busy machine.
const SOON: Duration = Duration::from_secs(60);

struct Cluster {
    cluster: ControlPlane,
    bucket: Bucket,
    endpoint: String,
    credentials: tempfile::NamedTempFile,
}

impl Cluster {
    async fn start(bucket: &str) -> Result<Cluster> {
        let cluster = ControlPlane::start(Options {
            controller_manager: true,
            ..Options::default()
        })
        .await?;
        let s3 = world::s3().await?;
        let credentials = tempfile::NamedTempFile::new()?;
        write_credentials(&credentials, s3::SECRET_ACCESS_KEY)?;
        Ok(Cluster {
            cluster,
            bucket: s3.bucket(bucket).await?,
            endpoint: s3.url().to_owned(),
            credentials,
        })
    }

    fn storage(&self, prefix: &str) -> String {
        format!(
            "s3://{}/{prefix}?endpoint={}&path-style=true&region=us-east-1",
            self.bucket.name(),
            self.endpoint
        )
    }

    fn install(&self) -> String {
        format!(
            "install --image {ONE} --storage {} --credentials-file {}",
            self.storage("first"),
            self.credentials.path().display()
        )
    }

    async fn ark(&self, words: &[&str]) -> Result<Said> {
        let mut command = Command::new(job::program("kubectl-ark")?);
        command
            .args(words)
            .env("KUBECONFIG", self.cluster.kubeconfig())
            .env_remove("ARK_NAMESPACE");
        run(Ok(command)).await
    }

    async fn expect(&self, code: i32, line: &str) -> Result<Said> {
        let said = self
            .ark(&line.split_whitespace().collect::<Vec<_>>())
            .await?;
        ensure!(
            said.code == Some(code),
            "expected exit code {code} of kubectl ark {line}: {said:?}"
        );
        Ok(said)
    }

    async fn schedule(&self, name: &str, more: &[&str]) -> Result<Said> {
        let mut words = vec!["schedule", "create", name, "--schedule", "0 3 1 1 *"];
        words.extend(more);
        let said = self.ark(&words).await?;
        ensure!(said.code == Some(0), "{said:?}");
        Ok(said)
    }

    fn get(&self, what: &str) -> Result<Value> {
        let text = kubectl(&self.cluster, &format!("get {what} -o json"))?;
        Ok(serde_json::from_str(&text)?)
    }

    fn has(&self, object: &str) -> Result<bool> {
        let found = kubectl(
            &self.cluster,
            &format!("get {object} -o name --ignore-not-found"),
        )?;
        Ok(!found.is_empty())
    }

    /// The image that a CronJob's pods have.
    fn image(&self, cron_job: &str) -> Result<String> {
        let cron_job = self.get(&format!("cronjob {cron_job} -n {ARK}"))?;
        let image = cron_job.pointer("/spec/jobTemplate/spec/template/spec/containers/0/image");
        Ok(image.and_then(Value::as_str).context("no image")?.into())
    }

    /// Lets no CronJob of a namespace make Jobs any more, and deletes those that are there.
    fn quiet(&self, namespace: &str) -> Result<()> {
        let cron_jobs = kubectl(
            &self.cluster,
            &format!("get cronjobs -n {namespace} -o name"),
        )?;
        for cron_job in cron_jobs.lines() {
            kubectl(
                &self.cluster,
                &format!(r#"patch {cron_job} -n {namespace} -p {{"spec":{{"suspend":true}}}}"#),
            )?;
        }
        kubectl(&self.cluster, &format!("delete jobs --all -n {namespace}")).map(drop)
    }

    async fn ark_job(&self, line: &str) -> Result<()> {
        let words: Vec<&str> = line.split_whitespace().collect();
        ArkJob::new(self.cluster.kubeconfig(), &words)
            .expect(0)
            .await
            .map(drop)
    }
}

fn write_credentials(file: &tempfile::NamedTempFile, secret_key: &str) -> Result<()> {
    let key_id = s3::ACCESS_KEY_ID;
    let text =
        format!("[default]\naws_access_key_id = {key_id}\naws_secret_access_key = {secret_key}\n");
    std::fs::write(file.path(), text).map_err(Into::into)
}

fn says(text: &str, pieces: &[&str]) -> Result<()> {
    for piece in pieces {
        ensure!(text.contains(piece), "{piece:?} is not in: {text}");
    }
    Ok(())
}

async fn upgrade() -> Result<()> {
    let it = Cluster::start("install-upgrade").await?;
    let install = it.install();

    // What a first installation makes, in a cluster that does not know its types.
    let seen = it.expect(0, &format!("{install} --dry-run=server")).await?;
    says(
        &seen.stdout,
        &[
            "namespace/heptio-ark created (server dry run)\n",
            "customresourcedefinition.apiextensions.k8s.io/backups.ark.heptio.com created (server dry run)\n",
            "backupstoragelocation.ark.heptio.com/default created (server dry run)\n",
        ],
    )?;
    ensure!(!it.has("namespace/heptio-ark")?);
    it.expect(0, &install).await?;
    let seen = it.expect(0, &format!("{install} --dry-run=server")).await?;
    ensure!(
        seen.stdout
            .lines()
            .all(|line| line.ends_with(" unchanged (server dry run)")),
        "{}",
        seen.stdout
    );

    // Schedules: ours, and one that is kept in Git; the expiry of Git.
    it.schedule("ours", &[]).await?;
    let printed = it
        .schedule("theirs", &["--dry-run=client", "-o", "json"])
        .await?;
    it.cluster
        .kubectl_with_input(&["apply", "-f", "-"], &printed.stdout)?;
    let expiry = json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "ark-expire-default", "namespace": ARK},
        "spec": {"jobTemplate": {"spec": {"template": {"spec": {"containers": [{"name": "ark-job", "image": "localhost/ark-job:git"}]}}}}}});
    it.cluster.kubectl_with_input(
        &[
            "apply",
            "--server-side",
            "--field-manager=argocd-controller",
            "--force-conflicts",
            "--validate=false",
            "-f",
            "-",
        ],
        &expiry.to_string(),
    )?;

    // What an upgrade would change, with a new key, which nobody sees.
    write_credentials(&it.credentials, "PLANTED-new-key")?;
    let upgrade = install.replace(ONE, TWO);
    let versions = || -> Result<Vec<Value>> {
        [
            "podtemplate/ark",
            "secret/ark-credentials-default",
            "cronjob/ours",
        ]
        .iter()
        .map(|object| {
            let object = it.get(&format!("{object} -n {ARK}"))?;
            Ok(object["metadata"]["resourceVersion"].clone())
        })
        .collect()
    };
    let before = versions()?;
    let seen = it.expect(0, &format!("{upgrade} --dry-run=server")).await?;
    says(
        &seen.stdout,
        &[
            "podtemplate/ark configured (server dry run)\ndiff podtemplate/ark\n",
            "secret/ark-credentials-default configured (server dry run)\n",
            "*** (after)",
            "cronjob.batch/ark-sync-default configured (server dry run)\n",
            "cronjob.batch/ours replaced (server dry run)\n",
            TWO,
        ],
    )?;
    let left = [
        "schedule theirs is left as it is: kubectl-client-side-apply manages it",
        "cronjob.batch/ark-expire-default is left as it is",
        "argocd-controller",
        "--force-conflicts takes it over",
    ];
    says(&seen.stderr, &left)?;
    // The key, and how the file begins in a Secret.
    let planted = "W2RlZmF1bHRd";
    for text in [&seen.stdout, &seen.stderr] {
        ensure!(!text.contains("PLANTED") && !text.contains(planted));
        ensure!(!text.contains(s3::SECRET_ACCESS_KEY));
    }
    ensure!(versions()? == before, "a dry run has changed something");

    let done = it.expect(0, &upgrade).await?;
    says(&done.stderr, &left)?;
    for (cron_job, image) in [
        ("ours", TWO),
        ("ark-sync-default", TWO),
        ("theirs", ONE),
        ("ark-expire-default", "localhost/ark-job:git"),
    ] {
        ensure!(it.image(cron_job)? == image, "{cron_job}");
    }
    it.expect(0, "install --force-conflicts").await?;
    for cron_job in ["theirs", "ark-expire-default"] {
        ensure!(it.image(cron_job)? == TWO, "{cron_job}");
    }

    rights_switch(&it).await?;
    versions_are_compared(&it).await?;
    records_are_not_made_by_hand(&it).await?;
    several_locations(&it).await
}

/// Rights go both ways, and what an earlier version has left goes.
async fn rights_switch(it: &Cluster) -> Result<()> {
    let old = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "ark-of-old", "labels": {"app.kubernetes.io/part-of": "kubectl-ark"}},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "ark-backup", "namespace": ARK}]});
    it.cluster
        .kubectl_with_input(&["create", "-f", "-"], &old.to_string())?;
    kubectl(
        &it.cluster,
        &format!("create role ark-of-old -n {ARK} --verb=get --resource=pods"),
    )?;
    kubectl(
        &it.cluster,
        &format!("label role ark-of-old -n {ARK} app.kubernetes.io/part-of=kubectl-ark"),
    )?;
    let switched = [
        "clusterrolebinding/ark-restore-standing",
        "clusterrolebinding/ark-backup-hooks",
        "clusterrole/ark-backup-hooks",
    ];
    for _ in 0..2 {
        it.expect(0, "install --restore-rights standing --hooks")
            .await?;
        for object in switched {
            ensure!(it.has(object)?, "{object}");
        }
        ensure!(!it.has("clusterrolebinding/ark-of-old")?);
        ensure!(!it.has(&format!("role/ark-of-old -n {ARK}"))?);
        // What is not said stays.
        it.expect(0, "install").await?;
        let seen = it
            .expect(
                0,
                "install --restore-rights on-demand --hooks=false --dry-run=server",
            )
            .await?;
        says(
            &seen.stderr,
            &["ark-restore-standing deleted (server dry run): restores get their rights on demand"],
        )?;
        for object in switched {
            ensure!(it.has(object)?, "{object}");
        }
        it.expect(0, "install --restore-rights on-demand --hooks=false")
            .await?;
        for object in switched {
            ensure!(!it.has(object)?, "{object}");
        }
    }
    Ok(())
}

/// A newer plugin names `install` for an older image, and an older one does not undo a newer installation by mistake.
async fn versions_are_compared(it: &Cluster) -> Result<()> {
    let contract = |version: &str| {
        kubectl(
            &it.cluster,
            &format!(
                "annotate podtemplate ark -n {ARK} --overwrite ark.heptio.com/contract={version}"
            ),
        )
    };
    contract("0")?;
    let refused = it.expect(1, "backup create b").await?;
    refused.explains(&["understands contract version 0"], "kubectl ark install")?;
    contract("99")?;
    // A newer image understands what this plugin renders.
    it.expect(0, "backup create b --dry-run=client").await?;
    let refused = it.expect(1, "install").await?;
    refused.explains(&["what is installed is newer"], "--image")?;
    it.expect(0, &format!("install --image {TWO} --force-conflicts"))
        .await?;
    Ok(())
}

async fn records_are_not_made_by_hand(it: &Cluster) -> Result<()> {
    let try_to_create = |kind: &str, annotations: Value, who: &[&str]| {
        let spec = match kind {
            "Restore" => json!({"backupName": "nightly-1"}),
            _ => json!({}),
        };
        let record = json!({"apiVersion": "ark.heptio.com/v1", "kind": kind, "spec": spec,
            "metadata": {"name": "by-hand", "namespace": ARK, "annotations": annotations}});
        let words = [&["create", "--dry-run=server", "-f", "-"], who].concat();
        it.cluster.kubectl_with_input(&words, &record.to_string())
    };
    for (kind, command) in [
        ("Backup", "kubectl ark backup create by-hand"),
        ("Restore", "kubectl ark restore create nightly-1"),
    ] {
        wait_until("the policy tells the command", SOON, async || {
            let refused = try_to_create(kind, Value::Null, &[]).err();
            let told = refused.is_some_and(|error| format!("{error:#}").contains(command));
            Ok(told.then_some(()))
        })
        .await?;
        for mark in ["ark.heptio.com/run", "ark.heptio.com/origin"] {
            try_to_create(kind, json!({mark: "velero"}), &[])?;
        }
        // Housekeeping may create both, with whatever annotations; another account of the name, and a person, may not.
        try_to_create(
            kind,
            Value::Null,
            &["--as=system:serviceaccount:heptio-ark:ark-housekeeping"],
        )?;
        let elsewhere = [
            "--as=system:serviceaccount:elsewhere:ark-housekeeping",
            "--as-group=system:masters",
        ];
        ensure!(try_to_create(kind, Value::Null, &elsewhere).is_err());
    }
    Ok(())
}

async fn several_locations(it: &Cluster) -> Result<()> {
    it.expect(
        0,
        &format!(
            "install --storage {} --location-name second",
            it.storage("second")
        ),
    )
    .await?;
    for location in ["default", "second"] {
        for operation in ["sync", "expire"] {
            let cron_job = it.get(&format!("cronjob ark-{operation}-{location} -n {ARK}"))?;
            let args = cron_job.pointer("/spec/jobTemplate/spec/template/spec/containers/0/args");
            let text = args.map(Value::to_string).unwrap_or_default();
            ensure!(text.contains(location), "{operation} {location}: {text}");
        }
        // A record that a person's own ark-job writes passes the policy.
        it.ark_job(&format!(
            "backup of-{location} --location {location} --include-namespaces kube-public"
        ))
        .await?;
        let record = it.get(&format!("backups.ark.heptio.com of-{location} -n {ARK}"))?;
        ensure!(record["spec"]["storageLocation"] == location, "{record}");
        it.ark_job(&format!("sync --location {location}")).await?;
        it.ark_job(&format!("expire --location {location}")).await?;
    }
    // Without a flag, it is the default one.
    let job = it
        .expect(0, "backup create c --dry-run=client -o json")
        .await?
        .stdout;
    let job: Value = serde_json::from_str(&job)?;
    let args = job.pointer("/spec/template/spec/containers/0/args");
    let args = args.map(Value::to_string).unwrap_or_default();
    ensure!(
        args.contains("--location=default") || args.contains(r#""--location","default""#),
        "{args}"
    );
    Ok(())
}

async fn two_installations() -> Result<()> {
    let it = Cluster::start("install-two").await?;
    it.expect(0, &it.install()).await?;
    it.expect(
        0,
        &format!(
            "install -n {OTHER} --image {ONE} --storage {}",
            it.storage("other")
        ),
    )
    .await?;
    let may = |namespace: &str| {
        kubectl(
            &it.cluster,
            &format!(
                "get secrets -n kube-system --as=system:serviceaccount:{namespace}:ark-backup"
            ),
        )
        .is_ok()
    };
    wait_until("both have their rights", SOON, async || {
        Ok((may(ARK) && may(OTHER)).then_some(()))
    })
    .await?;
    // Restores of both, each with rights of its own.
    let rights = || -> Result<Vec<Value>> {
        ["ark-restore", "ark-restore:other-ark"]
            .iter()
            .map(|name| {
                let binding = it.get(&format!("clusterrolebinding {name}"))?;
                Ok(binding["subjects"][0]["namespace"].clone())
            })
            .collect()
    };
    it.expect(0, "restore create r --from-backup b").await?;
    it.expect(0, &format!("restore create r --from-backup b -n {OTHER}"))
        .await?;
    ensure!(rights()? == [ARK, OTHER]);

    // One goes, when it is done; the other does not notice.
    let uninstall = format!("uninstall -n {OTHER} --yes");
    let refused = it.expect(11, &uninstall).await?;
    refused.explains(&["job.batch/restore-r"], "kubectl delete job")?;
    it.quiet(OTHER)?;
    for (binding, may) in [("ark-restore:other-ark", true), ("ark-restore", false)] {
        let said = kubectl(
            &it.cluster,
            &format!(
                "delete clusterrolebinding {binding} --dry-run=server \
                 --as=system:serviceaccount:{OTHER}:ark-housekeeping"
            ),
        );
        ensure!(said.is_ok() == may, "{binding}: {said:?}");
    }
    // What the last restore out does: only the rights of this installation go.
    ArkJob::new(
        it.cluster.kubeconfig(),
        &["sync", "--location", "default", "--namespace", OTHER],
    )
    .expect(0)
    .await?;
    ensure!(!it.has("clusterrolebinding/ark-restore:other-ark")?);
    ensure!(it.has("clusterrolebinding/ark-restore")?);
    let refused = it.expect(11, &format!("{uninstall} --crds")).await?;
    refused.explains(&["in namespace heptio-ark"], "--crds")?;
    let gone = it.expect(0, &uninstall).await?;
    says(
        &gone.stderr,
        &[
            &format!("s3://{}/other", it.bucket.name()),
            "the installation in namespace heptio-ark",
        ],
    )?;
    wait_until("the rights to be gone", SOON, async || {
        Ok((!may(OTHER)).then_some(()))
    })
    .await?;
    ensure!(may(ARK), "the other installation has lost its rights");
    ensure!(!it.has("clusterrolebinding/ark-restore:other-ark")?);
    for object in [
        "clusterrolebinding/ark-restore",
        "validatingadmissionpolicy/records.ark.heptio.com",
    ] {
        ensure!(it.has(object)?, "{object}");
    }
    kubectl(&it.cluster, &format!("delete namespace {OTHER}"))?;
    last_one_goes(&it).await
}

async fn last_one_goes(it: &Cluster) -> Result<()> {
    it.ark_job("backup kept --location default --include-namespaces kube-public")
        .await?;
    it.schedule("nightly", &[]).await?;
    let refused = it.expect(11, "uninstall --yes").await?;
    refused.explains(&["job.batch/restore-r"], "kubectl delete job")?;
    it.quiet(ARK)?;
    kubectl(
        &it.cluster,
        &format!("create configmap mine -n {ARK} --from-literal=a=b"),
    )?;
    // Nobody can be asked here.
    let refused = it.expect(2, "uninstall").await?;
    refused.explains(&["consent"], "--yes")?;
    for dry_run in ["client", "server"] {
        let seen = it
            .expect(0, &format!("uninstall --dry-run={dry_run}"))
            .await?;
        says(
            &seen.stdout,
            &["cronjob.batch/nightly (schedule nightly) deleted ("],
        )?;
        ensure!(it.has(&format!("cronjob/nightly -n {ARK}"))?);
    }
    let gone = it.expect(0, "uninstall --yes").await?;
    says(
        &gone.stdout,
        &["cronjob.batch/nightly (schedule nightly) deleted\n"],
    )?;
    let place = format!("s3://{}/first (location default)", it.bucket.name());
    let stays = [
        place.as_str(),
        "1 backup, 1 location in namespace heptio-ark",
        "configmap/mine",
    ];
    says(&gone.stderr, &stays)?;
    let of_ark = |kind: &str| {
        kubectl(
            &it.cluster,
            &format!("get {kind} -A -l app.kubernetes.io/part-of=kubectl-ark -o name"),
        )
    };
    for kind in [
        "clusterroles",
        "clusterrolebindings",
        "roles",
        "rolebindings",
        "serviceaccounts",
        "cronjobs",
        "jobs",
        "podtemplates",
        "configmaps",
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
    ] {
        ensure!(of_ark(kind)?.is_empty(), "{kind}: {}", of_ark(kind)?);
    }
    for object in [
        "backups.ark.heptio.com/kept",
        "backupstoragelocation/default",
        "secret/ark-credentials-default",
    ] {
        ensure!(it.has(&format!("{object} -n {ARK}"))?, "{object}");
    }
    let again = it.expect(0, "uninstall --yes").await?;
    says(&again.stderr, &["nothing to remove"])?;
    says(&again.stderr, &stays)?;

    // Installing goes on with what stayed.
    it.expect(0, &format!("install --image {ONE}")).await?;
    ensure!(it.has(&format!("cronjob/ark-expire-default -n {ARK}"))?);
    it.quiet(ARK)?;
    it.expect(0, "uninstall --crds --yes").await?;
    ensure!(of_ark("customresourcedefinitions")?.is_empty());
    ensure!(it.has(&format!("configmap/mine -n {ARK}"))?);
    kubectl(&it.cluster, &format!("delete configmap mine -n {ARK}"))?;
    it.expect(0, "uninstall --crds --yes").await?;
    ensure!(!it.has("namespace/heptio-ark")?);
    let again = it.expect(0, "uninstall --crds --yes").await?;
    says(&again.stderr, &["nothing to remove"])?;

    // The printed text makes a first installation in one go, and the backups come back.
    let printed = it
        .expect(0, &format!("{} --dry-run=client -o yaml", it.install()))
        .await?;
    it.cluster
        .kubectl_with_input(&["create", "--save-config", "-f", "-"], &printed.stdout)?;
    it.ark_job("sync --location default").await?;
    ensure!(it.has(&format!("backups.ark.heptio.com/kept -n {ARK}"))?);
    it.expect(0, &it.install()).await?;
    Ok(())
}
