//! What people read, and what is kept in Git, compared with files: help pages, rendered objects, tables, `manifests/`.
//!
//! `make manifests` (ARK_UPDATE=1) writes the files anew; then read the difference.

#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers fail by panicking, as tests do"
)]

mod for_git;

use clap::Parser;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kubectl_ark::cli::{self, Cli};
use kubectl_ark::describe::{Describe, Told};
use kubectl_ark::install::{self, Existing};
use kubectl_ark::manifest::Manifest;
use kubectl_ark::options::housekeeping::RunOptions;
use kubectl_ark::options::install::Options as InstallOptions;
use kubectl_ark::options::{CreateOptions, Plan, resolve};
use kubectl_ark::pod_template::Installation;
use kubectl_ark::records::{Record, joined};
use kubectl_ark::schedule::{self, view::Shown};
use kubectl_ark::table::Table;
use kubectl_ark::{Surroundings, create, held_pod, housekeeping, options, output, render};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

use ark_job::api::{Backup, BackupStorageLocation, BackupStorageLocationSpec, Restore};
use ark_job::args::{Args, Command, DeleteArgs, DeleteRestoreArgs, StorageFlags};
use k8s_openapi::api::core::v1::PodTemplate;

const IN_GIT: &str = "# Made by `make manifests`; do not edit.\n";

fn now() -> Timestamp {
    "2026-11-23T20:15:01Z".parse().unwrap()
}

fn plan(line: &str) -> Plan {
    plan_of(&line.split(' ').collect::<Vec<_>>())
}

fn plan_of(words: &[&str]) -> Plan {
    let surroundings = Surroundings {
        now: now(),
        home: Some("/home/ann".into()),
        temporary: "/tmp".into(),
        nonce: "n".into(),
        terminal: false,
        input: false,
        width: None,
    };
    let Cli { cluster, command } =
        Cli::try_parse_from(["kubectl-ark"].iter().chain(words)).unwrap();
    resolve(&cluster, command, &surroundings)
        .unwrap_or_else(|failure| panic!("{words:?}: {}", failure.message()))
}

fn install_options(line: &str) -> InstallOptions {
    match plan(line) {
        Plan::Install(options) => *options,
        other => panic!("{other:?}"),
    }
}

fn create_options(line: &str) -> CreateOptions {
    match plan(line) {
        Plan::Create(options) => *options,
        other => panic!("{other:?}"),
    }
}

/// The objects that a command would create on an installation made by another.
fn rendered(line: &str, install_line: &str) -> Vec<Manifest> {
    let (installation, location) = installed(install_line);
    let plan = create::plan(create_options(line), &installation, location.as_ref(), None).unwrap();
    std::iter::once(plan.job).chain(plan.binding).collect()
}

/// What is read back of an installation.
fn installed(install_line: &str) -> (Installation, Option<BackupStorageLocationSpec>) {
    let options = install_options(install_line);
    let installed = install::plan(&options, &Existing::default()).unwrap();
    let of_kind = |kind: &str| {
        installed
            .iter()
            .find(|one| one.kind() == kind)
            .map(|one| one.value().clone())
    };
    let template: PodTemplate = serde_json::from_value(of_kind("PodTemplate").unwrap()).unwrap();
    let location: Option<BackupStorageLocationSpec> =
        of_kind("BackupStorageLocation").map(|value| {
            serde_json::from_value::<BackupStorageLocation>(value)
                .unwrap()
                .spec
        });
    (Installation::of(&template).unwrap(), location)
}

fn yaml(objects: &[Manifest]) -> String {
    output::documents(objects.iter().map(Manifest::value))
}

fn check(path: PathBuf, text: &str) {
    if std::env::var_os("ARK_UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        return;
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == text,
        "{} is not what the code makes (`make manifests` writes it anew):\n{text}",
        path.display()
    );
}

fn golden(name: &str, text: &str) {
    check(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden")
            .join(name),
        text,
    );
}

fn manifest(name: &str, text: &str) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .join("manifests");
    check(dir.join(name), &format!("{IN_GIT}{text}"));
}

#[test]
fn help_pages() {
    for path in [
        "",
        "install",
        "backup",
        "backup create",
        "backup get",
        "backup delete",
        "backup undelete",
        "backup describe",
        "backup logs",
        "backup download",
        "backup show",
        "restore",
        "restore create",
        "restore plan",
        "restore get",
        "restore describe",
        "restore logs",
        "restore delete",
        "location",
        "location create",
        "location get",
        "location describe",
        "location delete",
        "schedule",
        "schedule create",
        "schedule get",
        "schedule describe",
        "schedule pause",
        "schedule unpause",
        "schedule delete",
        "schedule run",
        "create",
        "get",
        "describe",
        "logs",
        "diff",
        "restore-only",
        "restore-only on",
        "restore-only off",
        "restore-only status",
        "delete",
        "expire",
        "sync",
        "volumes",
        "version",
    ] {
        let mut command = cli::command().term_width(80);
        let words = path.split(' ').filter(|word| !word.is_empty());
        let argv = std::iter::once("kubectl-ark")
            .chain(words)
            .chain(["--help"]);
        let page = command
            .try_get_matches_from_mut(argv)
            .unwrap_err()
            .render()
            .to_string();
        let name = if path.is_empty() {
            "kubectl-ark".into()
        } else {
            path.replace(' ', "-")
        };
        golden(&format!("help/{name}.txt"), &page);
    }
}

#[test]
fn resource_types_are_in_git() {
    for definition in install::resource_types() {
        let plural = definition.name().split('.').next().unwrap().to_owned();
        manifest(
            &format!("crds/{plural}.yaml"),
            &output::yaml(definition.value()),
        );
    }
}

const INSTALL: &str =
    "install --storage s3://my-bucket/clusters/one?region=eu-central-1 --cluster-name one";

#[test]
fn a_backup_with_everything() {
    let objects = rendered(
        "backup create demo -n ark --include-namespaces a,b --exclude-resources events -l tier=web --ttl 48h \
         --include-cluster-resources=true --labels team=x --hooks quiesce --deadline 0 --ttl-after-finished 1h \
         --snapshot-volumes --resource-policies-configmap disks --csi-snapshot-timeout 5m",
        "install -n ark --storage s3://b/p?endpoint=http://s3.local:8333&path-style=true --credentials-secret mine \
         --image registry.local/ark-job:dev --image-pull-policy Never --image-pull-secret pull --toleration arm=yes:NoSchedule \
         --node-selector disk=ssd --env HTTPS_PROXY=http://proxy:3128 --env NO=yes",
    );
    golden("backup-job.yaml", &yaml(&objects));
}

#[test]
fn a_restore_with_its_rights() {
    golden(
        "restore.yaml",
        &yaml(&rendered("restore create demo", "install --storage s3://b")),
    );
}

#[test]
fn a_pod_to_read_through() {
    let (installation, location) = installed("install --storage s3://b --credentials-secret mine");
    let storage = StorageFlags {
        location: Some("default".into()),
        storage: None,
    };
    let subject = held_pod::Subject {
        namespace: "heptio-ark",
        about: held_pod::About::Backup("demo"),
        storage: &storage,
    };
    let held = |purpose| {
        let nonce = "0123456789abcdef";
        let job = held_pod::plan(subject, purpose, nonce, &installation, location.as_ref());
        Manifest::of(&job.unwrap())
    };
    golden("fetch-job.yaml", &yaml(&[held(held_pod::Purpose::Read)]));
    let everything = held_pod::Subject {
        about: held_pod::About::Location("default"),
        ..subject
    };
    let expiry = held_pod::plan(
        everything,
        held_pod::Purpose::ExpirePlan,
        "0123456789abcdef",
        &installation,
        location.as_ref(),
    );
    golden(
        "expire-plan-job.yaml",
        &yaml(&[Manifest::of(&expiry.unwrap())]),
    );
    let volumes = held(held_pod::Purpose::Volumes);
    assert_eq!(
        volumes.value()["spec"]["template"]["spec"]["serviceAccountName"],
        "ark-housekeeping"
    );
    golden("volumes-job.yaml", &yaml(&[volumes]));
    let Plan::Print(plan) = plan("restore plan demo --namespace-mappings a:b -o json") else {
        panic!("it is not printed")
    };
    golden(
        "plan.yaml",
        &yaml(&[
            held(held_pod::Purpose::Plan(&plan.args)),
            render::restore_binding(&plan.args),
        ]),
    );
}

/// A schedule in Berlin, with these words after that.
fn schedule_plan(more: &[&str]) -> schedule::create::Plan {
    let mut words = vec!["schedule", "create", "nightly", "--schedule", "0 7 * * *"];
    words.extend(["--time-zone", "Europe/Berlin"]);
    words.extend(more);
    let Plan::Schedule(options) = plan_of(&words) else {
        panic!("it is no schedule")
    };
    let options::schedule::Options::Create(options) = *options else {
        panic!("it is not created")
    };
    let (installation, location) = installed("install --storage s3://b --image i:1");
    schedule::create::plan(&options, &installation, location.as_ref(), None).unwrap()
}

#[test]
fn a_schedule_and_its_first_backup() {
    let plan = schedule_plan(&[
        "--include-namespaces",
        "shop",
        "--ttl",
        "48h",
        "--keep-last",
        "3",
        "--snapshot-volumes=true",
        "--resource-policies-configmap",
        "disks",
    ]);
    let objects: Vec<Manifest> = std::iter::once(plan.cron_job).chain(plan.first).collect();
    golden("schedule.yaml", &yaml(&objects));
    assert_eq!(schedule_plan(&["--paused"]).first, None);
}

#[test]
fn what_is_run_now_is_as_the_first_was() {
    let plan = schedule_plan(&["--include-namespaces", "shop"]);
    let cron_job = serde_json::from_value(plan.cron_job.value().clone()).unwrap();
    let (name, job) = schedule::create::job_now(&cron_job, now()).unwrap();
    assert_eq!(name, "nightly-20261123201501");
    assert_eq!(Some(Manifest::of(&job)), plan.first);
}

#[test]
fn a_job_that_a_cron_job_has_made_is_the_backup_of_its_time() {
    let plan = schedule_plan(&["--include-namespaces", "shop"]);
    let mut job = plan.cron_job.value()["spec"]["jobTemplate"].clone();
    // As the CronJob controller does it.
    job["metadata"]["name"] = json!("nightly-29732400");
    job["metadata"]["annotations"] =
        json!({"batch.kubernetes.io/cronjob-scheduled-timestamp": "2026-07-13T07:00:00+02:00"});
    job["status"] = json!({"conditions": [
        {"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "Job was active too long"}]});
    let job: Job = serde_json::from_value(job).unwrap();
    let [backup] = &joined(Vec::<Backup>::new(), &[job])[..] else {
        panic!("it is not one backup")
    };
    assert_eq!(kubectl_ark::records::name(backup), "nightly-20260713050000");
    assert_eq!(backup.row(false, now())[1], "Failed");
}

/// The CronJobs of schedules: one that runs, a paused one, and one that restore-only mode has suspended.
fn schedules() -> Vec<Shown> {
    let mut words = vec!["--include-namespaces", "shop"];
    words.extend(["--resource-policies-configmap", "disks"]);
    words.extend(["--csi-snapshot-timeout", "5m"]);
    let mut cron_job = schedule_plan(&words).cron_job.value().clone();
    cron_job["metadata"]["creationTimestamp"] = json!("2026-11-20T00:00:00Z");
    let mut paused = cron_job.clone();
    paused["metadata"]["managedFields"] = json!([{"manager": "kubectl-ark", "operation": "Update",
        "time": "2026-11-23T19:15:01Z", "fieldsV1": {"f:spec": {"f:suspend": {}}}}]);
    let mut suspended = cron_job.clone();
    suspended["metadata"]["annotations"] = json!({"ark.heptio.com/suspended-by": "restore-only"});
    for (name, one) in [("paused", &mut paused), ("suspended", &mut suspended)] {
        one["metadata"]["name"] = json!(name);
        one["metadata"]["labels"]["ark.heptio.com/schedule"] = json!(name);
        one["spec"]["suspend"] = json!(true);
    }
    let mut backups = backups();
    backups.retain(|one| kubectl_ark::records::name(one).starts_with("nightly-"));
    for (second, phase) in [("03", "PartiallyFailed"), ("04", "InProgress")] {
        let mut backup = backups[0].clone();
        backup.metadata.name = Some(format!("nightly-202611230100{second}"));
        backup.status = serde_json::from_value(json!({"phase": phase})).unwrap();
        backups.push(backup);
    }
    // Another cluster's schedule of that name has failed later, in the same bucket.
    let mut theirs = backups[0].clone();
    theirs.metadata.name = Some("nightly-20261123010005".into());
    theirs.status =
        serde_json::from_value(json!({"phase": "Failed", "clusterUID": "another"})).unwrap();
    backups.push(theirs);
    let here = Some("aaaa");
    for backup in &mut backups {
        let labels = backup.metadata.labels.get_or_insert_default();
        labels.insert("ark.heptio.com/schedule".into(), "nightly".into());
    }
    [cron_job, paused, suspended]
        .into_iter()
        .map(|one| Shown::new(serde_json::from_value(one).unwrap(), &backups, here))
        .collect()
}

#[test]
fn schedules_as_people_read_them() {
    let mut text = String::new();
    for wide in [false, true] {
        let mut table = Table::new(Shown::header(wide));
        schedules()
            .iter()
            .for_each(|one| table.push(one.row(wide, now())));
        text.push_str(&format!("{}\n", table.render(true)));
    }
    for schedule in schedules() {
        text.push_str(&format!("{}\n\n", schedule.describe(now())));
    }
    golden("schedules.txt", &text);
}

#[test]
fn jobs_of_housekeeping() {
    let (installation, location) = installed("install --storage s3://b --credentials-secret mine");
    let job = |line: &str| {
        let Plan::Housekeep(options) = plan(line) else {
            panic!("it is no Job of housekeeping")
        };
        let RunOptions { args, how } = *options;
        let planned =
            housekeeping::plan(&args, &how, how.requested, &installation, location.as_ref());
        yaml(&[planned.unwrap()])
    };
    golden(
        "expire-job.yaml",
        &job("expire --cluster-uid u --include-foreign --dry-run=client"),
    );
    golden("sync-job.yaml", &job("sync --ttl-after-finished 1h"));
    let Plan::Delete(options) = plan("backup delete demo --yes") else {
        panic!("it deletes nothing")
    };
    let args = Args {
        namespace: options.namespace,
        command: Command::Delete(DeleteArgs {
            names: vec!["demo".into()],
            storage: StorageFlags {
                location: Some("default".into()),
                storage: None,
            },
        }),
    };
    let how = options.how;
    let planned = housekeeping::plan(&args, &how, how.requested, &installation, location.as_ref());
    golden("delete-job.yaml", &yaml(&[planned.unwrap()]));
    let Plan::DeleteRestores(options) = plan("restore delete again --yes") else {
        panic!("it deletes no restore")
    };
    let args = Args {
        namespace: options.chosen.namespace,
        command: Command::DeleteRestore(DeleteRestoreArgs {
            names: options.chosen.names,
            storage: StorageFlags {
                location: Some("default".into()),
                storage: None,
            },
        }),
    };
    let how = options.how;
    let planned = housekeeping::plan(&args, &how, how.requested, &installation, location.as_ref());
    golden("delete-restore-job.yaml", &yaml(&[planned.unwrap()]));
}

#[test]
fn standing_rights_need_no_binding_and_no_waiting() {
    let objects = rendered(
        "restore create demo",
        "install --storage s3://b --restore-rights standing",
    );
    assert_eq!(objects.len(), 1);
    assert!(!yaml(&objects).contains("wait-for-rights"));
}

#[test]
fn a_job_says_the_same_every_time() {
    assert_eq!(
        rendered("backup create a", INSTALL),
        rendered("backup create a", INSTALL)
    );
}

#[test]
fn a_directory_needs_a_volume() {
    let options = create_options("backup create a --storage file:///backups");
    let with_mounts = |mounts: Value| Installation {
        template: json!({"spec": {"containers": [{"name": "ark-job", "image": "i", "volumeMounts": mounts}]}}),
        standing_rights: false,
        hooks: false,
    };
    let failure = create::plan(options.clone(), &with_mounts(json!([])), None, None).unwrap_err();
    assert!(
        failure.message().contains("/backups"),
        "{}",
        failure.message()
    );
    let mounted = with_mounts(json!([{"name": "nfs", "mountPath": "/backups"}]));
    create::plan(options, &mounted, None, None).unwrap();
}

#[test]
fn an_upgrade_keeps_the_mode_and_what_administrators_set() {
    let existing = Existing {
        config: Some(
            serde_json::from_value(json!({"metadata": {}, "data": {"mode": "RestoreOnly", "clusterName": "old"}})).unwrap(),
        ),
        template: Some(
            serde_json::from_value(json!({
                "metadata": {"annotations": {"ark.heptio.com/restore-rights": "standing"}},
                "template": {"spec": {"containers": [{"name": "ark-job", "image": "mine"}], "nodeSelector": {"a": "b"}}},
            }))
            .unwrap(),
        ),
        account_annotations: [("ark-backup".to_owned(), [("role".to_owned(), "r".to_owned())].into())].into(),
        cluster_name: Some("kubeconfig".into()),
        ..Existing::default()
    };
    let objects = install::plan(
        &install_options("install --service-account-annotation x=y"),
        &existing,
    )
    .unwrap();
    let find = |reference: &str| {
        objects
            .iter()
            .find(|one| one.reference() == reference)
            .unwrap()
            .value()
    };
    assert_eq!(
        find("configmap/ark")["data"],
        json!({"mode": "RestoreOnly", "clusterName": "old"})
    );
    assert_eq!(
        find("serviceaccount/ark-backup")["metadata"]["annotations"],
        json!({"role": "r", "x": "y"})
    );
    assert_eq!(
        find("podtemplate/ark")["template"]["spec"]["nodeSelector"],
        json!({"a": "b"})
    );
    find("clusterrolebinding.rbac.authorization.k8s.io/ark-restore-standing");
}

/// The CronJobs that an installation would have: name, whether suspended, and the mark.
fn housekeeping(line: &str, existing: &Existing) -> Vec<(String, bool, bool)> {
    let objects = install::plan(&install_options(line), existing).unwrap();
    let cron_jobs = objects.iter().filter(|one| one.kind() == "CronJob");
    cron_jobs
        .map(|one| {
            let mark = &one.value()["metadata"]["annotations"]["ark.heptio.com/suspended-by"];
            let suspended = one.value()["spec"]["suspend"] == true;
            (one.name().to_owned(), suspended, mark == "restore-only")
        })
        .collect()
}

#[test]
fn every_location_is_synced_and_one_that_may_be_written_to_expires() {
    let location = |name: &str, access_mode: &str| -> BackupStorageLocation {
        let spec = json!({"url": "s3://b/p", "accessMode": access_mode});
        serde_json::from_value(
            json!({"apiVersion": "ark.heptio.com/v1", "kind": "BackupStorageLocation",
            "metadata": {"name": name}, "spec": spec}),
        )
        .unwrap()
    };
    let existing = Existing {
        locations: vec![
            location("other", "ReadWrite"),
            location("old", "ReadOnly"),
            location(&"x".repeat(60), "ReadOnly"),
        ],
        ..Existing::default()
    };
    let expected = |suspended: bool| -> Vec<(String, bool, bool)> {
        let expire = |name: &str| (format!("ark-expire-{name}"), suspended, suspended);
        let sync = |name: &str| (format!("ark-sync-{name}"), false, false);
        let mut all = vec![expire("default"), sync("default"), sync("old")];
        all.extend([expire("other"), sync("other")]);
        all
    };
    let mut made = housekeeping("install --storage s3://b", &existing);
    let long = made.pop().unwrap().0;
    assert_eq!(long.len(), 52);
    assert_eq!(made, expected(false));
    // In restore-only mode they come suspended, also without being told again.
    let mut made = housekeeping("install --storage s3://b --restore-only", &existing);
    made.pop();
    assert_eq!(made, expected(true));
    let restore_only = Existing {
        config: Some(
            serde_json::from_value(json!({"metadata": {}, "data": {"mode": "RestoreOnly"}}))
                .unwrap(),
        ),
        ..existing
    };
    let mut made = housekeeping("install --storage s3://b", &restore_only);
    made.pop();
    assert_eq!(made, expected(true));
    // A directory that no pod has is no reason to install nothing.
    assert_eq!(
        housekeeping("install --storage file:///nowhere", &Existing::default()),
        []
    );
}

#[test]
fn who_suspended_the_housekeeping_is_not_overruled_by_an_upgrade() {
    let line = "install --storage s3://b";
    let there = |suspend: bool, mark: Option<&str>| -> Existing {
        let name = "ark-expire-default";
        let annotations = json!({"ark.heptio.com/suspended-by": mark});
        let cron_job = json!({
            "metadata": {"name": name, "annotations": mark.map(|_| annotations)},
            "spec": {"schedule": "0 * * * *", "suspend": suspend, "jobTemplate": {}},
        });
        Existing {
            cron_jobs: vec![serde_json::from_value(cron_job).unwrap()],
            ..Existing::default()
        }
    };
    let expire = |line: &str, existing: &Existing| {
        let (_, suspended, marked) = housekeeping(line, existing).swap_remove(0);
        (suspended, marked)
    };
    let us = Some("restore-only");
    assert_eq!(expire(line, &there(false, None)), (false, false));
    assert_eq!(expire(line, &there(true, None)), (true, false));
    assert_eq!(expire(line, &there(true, us)), (true, true));
    let on = &format!("{line} --restore-only");
    assert_eq!(expire(on, &there(false, None)), (true, true));
    assert_eq!(expire(on, &there(true, None)), (true, false));
}

#[test]
fn hooks_are_a_right_of_their_own_that_stays_until_it_is_taken_away() {
    let roles = |line: &str, template: Option<PodTemplate>| {
        let existing = Existing {
            template,
            ..Existing::default()
        };
        let objects = install::plan(&install_options(line), &existing).unwrap();
        let has = objects.iter().any(|one| one.name() == "ark-backup-hooks");
        let template = objects.iter().find(|one| one.kind() == "PodTemplate");
        let template = serde_json::from_value(template.unwrap().value().clone()).unwrap();
        (has, template)
    };
    let (has, without) = roles("install", None);
    assert!(!has);
    let (has, with) = roles("install --hooks", Some(without));
    assert!(has);
    let (has, with) = roles("install", Some(with));
    assert!(has);
    assert!(!roles("install --hooks=false", Some(with)).0);
    golden(
        "install-hooks.yaml",
        &yaml(&kubectl_ark::rights::hooks_objects("heptio-ark")),
    );
}

#[test]
fn a_pod_that_may_have_frozen_something_is_given_time_to_thaw() {
    let hooks = |timeout: &str| {
        ark_job::hooks::HookSpecs::parse(&format!(
            "resources: [{{post: [{{exec: {{command: [x], timeout: {timeout}}}}}]}}]"
        ))
        .unwrap()
    };
    let grace =
        |line: &str, hooks: Option<&ark_job::hooks::HookSpecs>, installed: bool, set: Value| {
            let installation = Installation {
                template: json!({"spec": {"containers": [{"name": "ark-job", "image": "i"}],
                "terminationGracePeriodSeconds": set}}),
                standing_rights: false,
                hooks: installed,
            };
            let plan = create::plan(create_options(line), &installation, None, hooks).unwrap();
            let spec = &plan.job.value()["spec"]["template"]["spec"];
            spec["terminationGracePeriodSeconds"].as_u64()
        };
    let none = || Value::Null;
    let with = "backup create a --hooks h";
    assert_eq!(grace("backup create a", None, false, none()), None);
    assert_eq!(grace("backup create a", None, true, none()), Some(90));
    assert_eq!(
        grace("backup create a --hooks none", None, true, none()),
        None
    );
    assert_eq!(grace(with, Some(&hooks("1s")), false, none()), Some(90));
    assert_eq!(grace(with, Some(&hooks("5m")), true, none()), Some(330));
    assert_eq!(grace(with, Some(&hooks("5h")), true, none()), Some(630));
    assert_eq!(grace(with, Some(&hooks("5m")), true, json!(900)), Some(900));
    assert_eq!(grace("restore create a", None, true, none()), None);
}

fn backups() -> Vec<Backup> {
    let of = |name: &str, status: Value| {
        serde_json::from_value(json!({
            "apiVersion": "ark.heptio.com/v1", "kind": "Backup",
            "metadata": {"name": name, "namespace": "heptio-ark", "creationTimestamp": "2026-11-23T20:00:00Z"},
            "spec": {"storageLocation": "default", "includedNamespaces": ["shop"], "labelSelector": {
                "matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "In", "values": ["d", "e"]}]}},
            "status": status,
        }))
        .unwrap()
    };
    let done = json!({
        "phase": "PartiallyFailed", "startTimestamp": "2026-11-21T17:10:00Z", "completionTimestamp": "2026-11-21T17:12:05Z",
        "expiration": "2026-12-21T17:10:00Z", "progress": {"totalItems": 1204, "itemsBackedUp": 1204, "bytesRead": 99},
        "size": 3412345, "warnings": 1, "errors": 1, "resourceVersion": "4711", "clusterName": "one",
        "clusterUID": "aaaa", "messages": ["error: widgets.example.com: forbidden", "warning: something"],
        "version": "v0.1.0", "formatVersion": "1", "volumes": {"snapshotted": 3, "skipped": 1, "missing": 1},
        "volumeBackups": {
            "pvc-1": {"snapshotID": "snap-1", "driver": "ebs.csi.aws.com", "size": 8_589_934_592_i64, "type": "gp3",
                "availabilityZone": "eu-central-1a"},
            "pvc-2": {"snapshotID": "0815", "driver": "dir.csi.example.com"},
        },
    });
    vec![
        of("nightly-20261122010000", json!({"phase": "Completed"})),
        of(
            "nightly-20261123010000",
            json!({"phase": "Failed", "failureReason": "the bucket is gone"}),
        ),
        of("demo", done),
        // Another cluster's, whose name nobody has said; it should be gone by now, and is going.
        of(
            "overdue",
            json!({"phase": "Deleting", "startTimestamp": "2026-11-01T20:00:00Z", "expiration": "2026-11-20T20:00:00Z",
                "clusterUID": "bbbb"}),
        ),
    ]
}

fn jobs() -> Vec<Job> {
    let of = |name: &str, argv: &[&str], conditions: Value| {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "heptio-ark", "creationTimestamp": "2026-11-23T20:14:00Z"},
            "spec": {"template": {"spec": {"containers": [{"name": "ark-job", "args": argv}]}}},
            "status": {"conditions": conditions},
        }))
        .unwrap()
    };
    vec![
        of("backup-demo", &["backup", "demo"], json!([])),
        of(
            "backup-fresh",
            &["backup", "fresh", "--location=other", "--ttl=0"],
            json!([]),
        ),
        of(
            "backup-stuck",
            &["backup", "stuck"],
            json!([
            {"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "Job was active too long"}]),
        ),
        of(
            "backup-gone",
            &["backup", "gone"],
            json!([{"type": "Complete", "status": "True"}]),
        ),
        of(
            "restore-r",
            &["restore", "demo", "--name=r", "--namespace-mappings=a:b"],
            json!([]),
        ),
        of(
            "restore-s",
            &[
                "restore",
                "demo",
                "--name=s",
                "--or-selector=app=a or app=b",
                "--storage-class-mappings=slow:fast",
                "--restore-volumes=false",
                "--zone-mappings=eu-central-1a:eu-central-1b,eu-central-1c:eu-central-1b",
                "--kms-key=alias/ark",
                "--volume-timeout=1h",
                "--preserve-nodeports=true",
                "--status-include-resources=*",
                "--status-exclude-resources=pods",
                "--resource-modifier-configmap=rules",
                "--hooks=thaw",
                "--existing-resource-policy=recreate",
                "--yes",
            ],
            json!([]),
        ),
    ]
}

#[test]
fn tables() {
    let mut text = String::new();
    for wide in [false, true] {
        let mut backup_table = Table::new(Backup::header(wide));
        joined(backups(), &jobs())
            .iter()
            .for_each(|one| backup_table.push(one.row(wide, now())));
        let mut restore_table = Table::new(Restore::header(wide));
        joined(Vec::<Restore>::new(), &jobs())
            .iter()
            .for_each(|one| restore_table.push(one.row(wide, now())));
        text.push_str(&format!(
            "{}\n{}\n",
            backup_table.render(true),
            restore_table.render(true)
        ));
    }
    golden("tables.txt", &text);
}

#[test]
fn descriptions() {
    let mut text = String::new();
    for backup in joined(backups(), &jobs())
        .iter()
        .filter(|one| ["demo", "stuck"].contains(&kubectl_ark::records::name(*one)))
    {
        text.push_str(&format!("{}\n\n", backup.describe(None, now(), None)));
    }
    for mut restore in joined(Vec::<Restore>::new(), &jobs()) {
        if restore.spec.hooks.is_some()
            && let Some(status) = &mut restore.status
        {
            (status.hooks_attempted, status.hooks_failed) = (Some(3), Some(1));
        }
        text.push_str(&restore.describe(
            Some(Told::Waits("pod/restore-r-x is being started")),
            now(),
            None,
        ));
    }
    golden("describe.txt", &text);
}
