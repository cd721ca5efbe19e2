//! What is kept in Git: `manifests/`. Everything that the code can render is rendered, with comments for people; what is
//! written by hand (kustomizations, health checks, alert rules) is only put where it is needed a second time.

use super::*;
use ark_job::args::DryRun;

/// Where backups are, in everything that people copy.
const STORAGE: &str = "install --storage s3://my-bucket/my-cluster?region=eu-central-1";
const STANDING: &str =
    "install --storage s3://my-bucket/my-cluster?region=eu-central-1 --restore-rights standing";

/// Comments on lines of a Job, where each first occurs.
const OF_A_JOB: &[(&str, &str)] = &[
    (
        "activeDeadlineSeconds:",
        "Ends a Job that hangs, all retries included.",
    ),
    (
        "backoffLimit:",
        "What a retry may cure is tried again; a retry goes on with the same backup or restore.",
    ),
    (
        "podFailurePolicy:",
        "What no retry can cure fails the Job at once: exit codes in README.md. A drained node is no failure.",
    ),
    ("podReplacementPolicy:", "Never two pods for the same work."),
    (
        "- args:",
        "The whole request: `ark-job --help` and `kubectl ark … --dry-run=client -o yaml` have all flags.",
    ),
    (
        "image:",
        "Set it with kustomize: `images: [{name: ghcr.io/heptio/ark-job, newName: …, digest: sha256:…}]`.",
    ),
    (
        "serviceAccountName:",
        "From manifests/kustomize/base/rights.yaml.",
    ),
];

/// The text with a comment above the first line that starts with each of these words.
fn commented(text: &str, comments: &[(&str, &str)]) -> String {
    let mut missing: Vec<_> = comments.iter().collect();
    let mut lines = String::new();
    for line in text.lines() {
        let trimmed = line.trim_start();
        let words = trimmed.trim_start_matches("- ");
        if let Some(at) = missing
            .iter()
            .position(|(start, _)| trimmed.starts_with(start) || words.starts_with(start))
        {
            let (_, comment) = missing.remove(at);
            let indent = &line[..line.len() - trimmed.len()];
            lines.push_str(&format!("{indent}# {comment}\n"));
        }
        lines.push_str(line);
        lines.push('\n');
    }
    let missing: Vec<_> = missing.iter().map(|(start, _)| start).collect();
    assert!(missing.is_empty(), "{missing:?} are not in\n{text}");
    lines
}

/// What is installed, in parts: resource types, rights, settings, and what a location needs.
struct Parts {
    types: Vec<Manifest>,
    rights: Vec<Manifest>,
    settings: Vec<Manifest>,
    location: Vec<Manifest>,
}

fn parts(line: &str) -> Parts {
    let objects = install::plan(&install_options(line), &Existing::default()).unwrap();
    let mut parts = Parts {
        types: Vec::new(),
        rights: Vec::new(),
        settings: Vec::new(),
        location: Vec::new(),
    };
    for object in objects {
        match object.kind() {
            "CustomResourceDefinition" => parts.types.push(object),
            "ConfigMap" | "PodTemplate" => parts.settings.push(object),
            "BackupStorageLocation" | "CronJob" | "Secret" => parts.location.push(object),
            _ => parts.rights.push(object),
        }
    }
    parts
}

const SETTINGS: &[(&str, &str)] = &[
    (
        "clusterName:",
        "Recorded in every backup, for those who see backups of several clusters.",
    ),
    (
        "ark.heptio.com/contract:",
        "The command line that the image understands; goes with `image`.",
    ),
    (
        "ark.heptio.com/hooks:",
        "Changed by kustomize/components/hooks, together with the rights.",
    ),
    (
        "ark.heptio.com/restore-rights:",
        "Changed by kustomize/components/restore-standing, together with the rights.",
    ),
];

#[test]
fn an_installation() {
    let Parts {
        types,
        rights,
        settings,
        ..
    } = parts("install");
    let (types, rights) = (yaml(&types), yaml(&rights));
    let settings = commented(&yaml(&settings), SETTINGS);
    manifest(
        "install.yaml",
        &format!(
            "# All of Ark but a place for backups: kubectl apply --server-side -f install.yaml, then kustomize/location.\n\
             {rights}---\n{types}---\n{settings}"
        ),
    );
    manifest("kustomize/base/crds.yaml", &types);
    manifest(
        "kustomize/base/rights.yaml",
        &format!("# Who may do what: docs/gitops.md, and docs/security.md.\n{rights}"),
    );
    manifest(
        "kustomize/base/settings.yaml",
        &format!(
            "# Pod settings for everything that the plugin renders (what is in Git has its own), mode and cluster name.\n{settings}"
        ),
    );
}

#[test]
fn a_location() {
    let text = commented(
        &yaml(&parts(STORAGE).location),
        &[
            (
                "accessMode:",
                "ReadOnly: nothing is written there, nothing deleted. Take ark-expire-default away then.",
            ),
            (
                "url:",
                "Where backups are. `region`, `endpoint` and `pathStyle` are fields beside it. Credentials are never here: \
              pods have an identity of their own, or `credentialSecret` names a Secret (docs/gitops.md).",
            ),
            (
                "schedule:",
                "Another minute for each cluster spares the store; `kubectl ark install` takes it from the cluster's UID.",
            ),
        ],
    );
    manifest(
        "kustomize/location/location.yaml",
        &format!(
            "# A place for backups, and what keeps it in order: hourly, expired backups are deleted, and Backup resources are made to\n\
             # agree with what is stored. One such set for each location.\n{text}"
        ),
    );
}

/// The objects that are there only with these flags.
fn only_with(flags: &str) -> String {
    let without = parts("install").rights;
    let mut with = parts(&format!("install {flags}")).rights;
    with.retain(|one| !without.contains(one));
    assert!(!with.is_empty(), "{flags}");
    yaml(&with)
}

#[test]
fn rights_that_not_everybody_gives() {
    manifest(
        "kustomize/components/restore-standing/rights.yaml",
        &format!(
            "# cluster-admin for service account ark-restore, all the time: restores that GitOps applies have nobody to give it.\n{}",
            only_with("--restore-rights standing")
        ),
    );
    manifest(
        "kustomize/components/hooks/rights.yaml",
        &format!(
            "# The right to run commands in every pod: only for backups with hooks.\n{}",
            only_with("--hooks")
        ),
    );
}

fn example(name: &str, note: &str, objects: &[Manifest], comments: &[(&str, &str)]) {
    let comments = [OF_A_JOB, comments].concat();
    let note: String = note.lines().map(|line| format!("# {line}\n")).collect();
    let text = commented(&yaml(objects), &comments);
    manifest(&format!("examples/{name}"), &format!("{note}{text}"));
}

#[test]
fn a_backup() {
    example(
        "backup-job.yaml",
        "One backup, such as before an upgrade. Applied again, or created again by GitOps, it keeps the backup that is there:\n\
         a new backup is a new name, of the Job and in its arguments. No ttlSecondsAfterFinished: GitOps would make the Job again.",
        &rendered(
            "backup create before-upgrade --if-exists keep --ttl-after-finished never",
            STORAGE,
        ),
        &[(
            "- --if-exists=keep",
            "What makes it harmless to create this Job again.",
        )],
    );
}

#[test]
fn a_schedule() {
    let words = "schedule create nightly --schedule @NIGHT --time-zone Europe/Berlin --include-namespaces shop --ttl 720h --keep-last 3";
    let words: Vec<&str> = words
        .split(' ')
        .map(|word| if word == "@NIGHT" { "0 3 * * *" } else { word })
        .collect();
    let Plan::Schedule(options) = plan_of(&words) else {
        panic!("it is no schedule")
    };
    let options::schedule::Options::Create(options) = *options else {
        panic!("it is not created")
    };
    let (installation, location) = installed(STORAGE);
    let mut planned =
        schedule::create::plan(&options, &installation, location.as_ref(), None).unwrap();
    // A first backup of its own would need a new name for each commit.
    planned.first = None;
    example(
        "schedule.yaml",
        "A backup each night. `kubectl ark schedule run nightly` makes one now. `kubectl ark schedule pause nightly` sets\n\
         spec.suspend, which is not said here, so that GitOps leaves it alone.",
        &[planned.cron_job],
        &[
            (
                "ark.heptio.com/schedule:",
                "Makes it a schedule for `kubectl ark`; the same name as below.",
            ),
            ("concurrencyPolicy:", "One after the other."),
            (
                "- --schedule=",
                "Backups are called nightly-<YYYYMMDDhhmmss>, by the time that they are due.",
            ),
            (
                "- --keep-last=",
                "So many of the newest complete ones never expire, whatever --ttl says.",
            ),
            (
                "startingDeadlineSeconds:",
                "Later than this, it is left out: a nightly backup is not made at noon.",
            ),
        ],
    );
}

const RESTORE: &str = "restore create move --from-backup before-upgrade --namespace-mappings shop:shop-copy --include-namespaces shop \
                       --ttl-after-finished never";

#[test]
fn a_restore() {
    example(
        "restore-job.yaml",
        "One restore. Needs kustomize/components/restore-standing. A restore of this name that has ended well is not repeated,\n\
         so this Job may be created again; another restore is another --name.",
        &rendered(RESTORE, STANDING),
        &[
            (
                "- --name=",
                "What makes it harmless to create this Job again.",
            ),
            (
                "- --requested=",
                "Only for the label ark-restore=<BACKUP>-<TIME> on what is restored; now if left out.",
            ),
        ],
    );
}

#[test]
fn a_restore_plan() {
    let mut options = create_options(RESTORE);
    let Command::Restore(restore) = &mut options.args.command else {
        panic!("it is no restore")
    };
    (restore.dry_run, restore.requested) = (DryRun::Server, None);
    let (installation, location) = installed(STANDING);
    let job = render::job(
        &options.args,
        &installation,
        location.as_ref(),
        None,
        &options.job,
    );
    let mut job = serde_json::to_value(job.unwrap()).unwrap();
    job["metadata"]["name"] = json!("plan-move");
    // It is no restore, and is not listed as one.
    for path in ["/metadata/labels", "/spec/template/metadata/labels"] {
        let labels = job.pointer_mut(path).unwrap();
        labels["ark.heptio.com/operation"] = json!("plan");
        labels
            .as_object_mut()
            .unwrap()
            .remove("ark.heptio.com/restore");
    }
    let job: Job = serde_json::from_value(job).unwrap();
    example(
        "restore-plan-job.yaml",
        "What a restore would do, object by object, checked by the API server; it changes nothing. The plan is the Job's log:\n\
         kubectl logs -n heptio-ark job/plan-move. Exit code 3 (the Job fails) says that something would be refused.\n\
         Needs kustomize/components/restore-standing.",
        &[Manifest::of(&job)],
        &[("- --dry-run=server", "Nothing is changed.")],
    );
}

#[test]
fn a_sync() {
    let Plan::Housekeep(options) = plan("sync --ttl-after-finished never") else {
        panic!("it is no sync")
    };
    let (installation, location) = installed(STORAGE);
    let RunOptions { args, how } = *options;
    let job = housekeeping::plan(&args, &how, how.requested, &installation, location.as_ref());
    let mut job = job.unwrap().value().clone();
    job["metadata"]["name"] = json!("sync-default");
    let job: Job = serde_json::from_value(job).unwrap();
    example(
        "sync-job.yaml",
        "Makes Backup resources agree with what is stored, once and at once; ark-sync-default does it hourly. In a new cluster, what\n\
         other clusters stored is known after this, and whether the location can be reached. Created again it does no harm.",
        &[Manifest::of(&job)],
        &[("- sync", "As `kubectl ark sync`.")],
    );
}

#[test]
fn a_deletion() {
    let Plan::Delete(options) =
        plan("backup delete before-upgrade --yes --ttl-after-finished never")
    else {
        panic!("it deletes nothing")
    };
    let args = Args {
        namespace: options.namespace,
        command: Command::Delete(DeleteArgs {
            names: vec!["before-upgrade".into()],
            storage: StorageFlags {
                location: Some("default".into()),
                storage: None,
            },
        }),
    };
    let (installation, location) = installed(STORAGE);
    let how = options.how;
    let job = housekeeping::plan(&args, &how, how.requested, &installation, location.as_ref());
    let mut job = job.unwrap().value().clone();
    job["metadata"]["name"] = json!("delete-before-upgrade");
    let job: Job = serde_json::from_value(job).unwrap();
    example(
        "delete-job.yaml",
        "Deletes a backup: its snapshots, files, restores and resources. Take it out of Git when it is done, with the Job that made\n\
         the backup (which would make it again). Created again it does no harm, but fails: the backup is not there (exit code 10).",
        &[Manifest::of(&job)],
        &[("- delete", "Names of backups follow.")],
    );
}

fn by_hand(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../manifests")
        .join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn indented(text: &str, by: usize) -> String {
    let indent = " ".repeat(by);
    let line = |line: &str| match line.is_empty() {
        true => "\n".to_owned(),
        false => format!("{indent}{line}\n"),
    };
    text.lines().map(line).collect()
}

#[test]
fn health_checks_of_argo_cd() {
    let mut text = String::from(
        "# Settings of Argo CD: merge them into ConfigMap argocd-cm (docs/gitops.md). The checks are argocd/*.lua.\n\
         apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: argocd-cm\n  namespace: argocd\n  labels:\n    \
         app.kubernetes.io/name: argocd-cm\n    app.kubernetes.io/part-of: argocd\ndata:\n",
    );
    for (kind, file) in [
        ("Backup", "backup"),
        ("BackupStorageLocation", "location"),
        ("Restore", "restore"),
    ] {
        let lua = indented(&by_hand(&format!("argocd/{file}.lua")), 4);
        text.push_str(&format!(
            "  resource.customizations.health.ark.heptio.com_{kind}: |\n{lua}"
        ));
    }
    manifest("argocd/argocd-cm.yaml", &text);
}

#[test]
fn alert_rules_for_the_operator() {
    let rules = by_hand("monitoring/rules.yaml");
    let (_, groups) = rules.split_once("groups:\n").unwrap();
    let head = "# The rules of monitoring/rules.yaml for the Prometheus operator.\n\
                apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: kubectl-ark\n  \
                namespace: heptio-ark\n  labels:\n    app.kubernetes.io/part-of: kubectl-ark\nspec:\n  groups:\n";
    manifest(
        "monitoring/prometheusrule.yaml",
        &format!("{head}{}", indented(groups, 2)),
    );
}

#[test]
fn a_backup_before_each_sync() {
    let words = "schedule create before-sync --schedule @daily --include-namespaces shop --ttl 168h --ttl-after-finished never";
    let Plan::Schedule(options) = plan(words) else {
        panic!("it is no schedule")
    };
    let options::schedule::Options::Create(options) = *options else {
        panic!("it is not created")
    };
    let (installation, location) = installed(STORAGE);
    let job = render::job(
        &options.repeated,
        &installation,
        location.as_ref(),
        None,
        &options.job,
    );
    let mut job = job.unwrap();
    job.metadata.name = Some("before-sync".into());
    job.metadata.annotations = Some(
        [
            ("argocd.argoproj.io/hook", "PreSync"),
            (
                "argocd.argoproj.io/hook-delete-policy",
                "BeforeHookCreation",
            ),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into(),
    );
    example(
        "before-sync-job.yaml",
        "A backup before each sync of an Argo CD Application; what it applies waits, and a backup that fails stops it. Each time\n\
         the Job is created, the backup has a new name: before-sync-<YYYYMMDDhhmmss>, by the Job's creation.",
        &[Manifest::of(&job)],
        &[(
            "- --schedule=",
            "Not a CronJob's: backups are named like a schedule's, and its newest complete one never expires.",
        )],
    );
}
