//! What `kubectl ark` prints: the formats of `get` (compared with what kubectl itself prints), tables and progress in a narrow
//! terminal, `--watch`, and why an operation does not start.
//!
//! On a control plane in which Ark is installed, without nodes or controllers: Jobs and pods are what a scenario says they are.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ark_job::api::Backup;
use ark_tests::terminal::{InTerminal, is_coloured, seen};
use ark_tests::{ControlPlane, Options, wait_until};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::plugin::{ARK, Said, apply, kubectl, outside, run};
use crate::world::{Shared, scenario, shared};

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "plugin_output::every_format_prints_what_kubectl_prints",
            formats,
        ),
        scenario(
            "plugin_output::nothing_is_wider_than_a_terminal_of_60_columns",
            narrow,
        ),
        scenario(
            "plugin_output::watching_prints_what_changes_until_ctrl_c",
            watching,
        ),
        scenario(
            "plugin_output::why_a_schedules_job_does_not_start_is_told",
            stuck,
        ),
    ]
}

/// Long enough for a machine that is busy with other scenarios.
const WITHIN: Duration = Duration::from_secs(90);
const COLUMNS: u16 = 60;

static CLUSTER: Shared<ControlPlane> = Shared::const_new();

async fn cluster() -> Result<&'static ControlPlane> {
    let start = async {
        let cluster = ControlPlane::start(Options::default()).await?;
        let install = "install --storage s3://bucket --image registry/ark-job:x";
        let said = run(outside(cluster.kubeconfig(), install)).await?;
        ensure!(said.code == Some(0), "{said:?}");
        Ok(cluster)
    };
    shared(&CLUSTER, Box::pin(start)).await
}

async fn expect(code: i32, line: &str) -> Result<Said> {
    let said = run(outside(cluster().await?.kubeconfig(), line)).await?;
    ensure!(said.code == Some(code), "{line}: {said:?}");
    Ok(said)
}

/// A Backup resource as a run would have left it.
fn backup(
    cluster: &ControlPlane,
    namespace: &str,
    name: &str,
    labels: Value,
    status: &Value,
) -> Result<()> {
    let object = json!({"apiVersion": "ark.heptio.com/v1", "kind": "Backup",
        "metadata": {"name": name, "namespace": namespace, "labels": labels,
            "annotations": {"ark.heptio.com/run": "x"}},
        "spec": {"ttl": "48h", "storageLocation": "default"}});
    // As it would be written, with what is always said.
    let object: Backup = serde_json::from_value(object)?;
    apply(cluster, &serde_json::to_value(object)?)?;
    set_status(
        cluster,
        namespace,
        &format!("backups.ark.heptio.com/{name}"),
        status,
    )
}

fn set_status(cluster: &ControlPlane, namespace: &str, what: &str, status: &Value) -> Result<()> {
    let patch = json!({ "status": status }).to_string();
    cluster
        .kubectl(&[
            "patch",
            what,
            "-n",
            namespace,
            "--subresource=status",
            "--type=merge",
            "-p",
            &patch,
        ])
        .map(drop)
}

async fn formats() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = "formats";
    kubectl(cluster, &format!("create namespace {namespace}"))?;
    for (name, errors, started) in [
        ("b10", 3, "2026-11-01T10:00:00Z"),
        ("b2", 0, "2026-11-03T10:00:00Z"),
        ("a", 12, "2026-11-02T10:00:00Z"),
    ] {
        let status = json!({"phase": "Completed", "errors": errors, "warnings": 0, "startTimestamp": started,
            "completionTimestamp": started});
        let labels = json!({"app.kubernetes.io/part-of": "x", "which": name});
        backup(cluster, namespace, name, labels, &status)?;
    }
    // Nothing has begun that may end between two requests, so both see the same.
    let same = async |flags: &[&str]| -> Result<()> {
        let mut ours = outside(cluster.kubeconfig(), "backup get")?;
        ours.args(["-n", namespace]).args(flags);
        let ours = run(Ok(ours)).await?;
        let mut theirs = vec!["get", "backups.ark.heptio.com", "-n", namespace];
        theirs.extend(flags);
        let theirs = cluster.kubectl(&theirs)?;
        ensure!(
            ours.code == Some(0) && ours.stdout == theirs,
            "{flags:?}: {ours:?}\nkubectl: {theirs:?}"
        );
        Ok(())
    };
    for flags in [
        &["-o", "jsonpath={.items[*].metadata.name}"][..],
        &["-o", "jsonpath={.kind} {.items[0].status}"],
        &[
            "-o",
            r#"jsonpath={range .items[*]}{.metadata.name}{"\t"}{.status.errors}{"\n"}{end}"#,
        ],
        &[
            "-o",
            r"jsonpath={.items[0].metadata.labels.app\.kubernetes\.io/part-of}",
        ],
        &[
            "-o",
            r"jsonpath={.items[*]['metadata.name', 'status.errors']}",
        ],
        &[
            "-o",
            "jsonpath={.items[?(@.status.errors>2)].metadata.name}",
        ],
        &[
            "-o",
            r#"jsonpath={.items[?(@.metadata.name=="b2")].status.phase}"#,
        ],
        &[
            "-o",
            "jsonpath={.items[-1:].metadata.name}|{.items[0:2].metadata.name}",
        ],
        &["-o", "jsonpath={..errors} {.items[0].no.such}{'end'}"],
        &["-o", "jsonpath-as-json={.items[*].status.errors}"],
        &[
            "-o",
            "custom-columns=NAME:.metadata.name,ERRORS:.status.errors,NONE:.status.size",
        ],
        &[
            "-o",
            "custom-columns=A:metadata.name,B:{.spec.ttl}",
            "--no-headers",
        ],
        &["-o", "name"],
        &["-o", "name", "-l", "which in (a,b2)"],
    ] {
        same(flags).await?;
    }
    // In a table kubectl sorts, too.
    for path in [
        ".metadata.name",
        "{.status.errors}",
        "status.startTimestamp",
    ] {
        let flags = format!("-n {namespace} --no-headers --sort-by {path}");
        let names = |table: &str| -> Vec<String> {
            let names = table
                .lines()
                .filter_map(|line| line.split_whitespace().next());
            names.map(str::to_owned).collect()
        };
        let ours = names(&expect(0, &format!("backup get {flags}")).await?.stdout);
        let theirs = names(&kubectl(
            cluster,
            &format!("get backups.ark.heptio.com {flags}"),
        )?);
        ensure!(
            ours == theirs && ours.len() == 3,
            "{path}: {ours:?}, kubectl: {theirs:?}"
        );
    }
    // One that is asked for by name is itself, and no List.
    for format in ["jsonpath={.kind}/{.metadata.name}", "name"] {
        let ours = expect(0, &format!("backup get a -n {namespace} -o {format}")).await?;
        let theirs = format!("get backups.ark.heptio.com a -n {namespace} -o {format}");
        ensure!(ours.stdout == kubectl(cluster, &theirs)?, "{ours:?}");
    }
    // JSON and YAML are the same objects.
    for format in ["json", "yaml"] {
        let ours = expect(0, &format!("backup get -n {namespace} -o {format}")).await?;
        let mine = match format {
            "json" => serde_json::from_str::<Value>(&ours.stdout)?,
            _ => {
                let args = ["create", "--dry-run=client", "-o", "json", "-f", "-"];
                let text = cluster.kubectl_with_input(&args, &ours.stdout)?;
                // It prints them one after the other.
                let objects = serde_json::Deserializer::from_str(&text).into_iter();
                json!({"items": objects.collect::<Result<Vec<Value>, _>>()?})
            }
        };
        let theirs = format!("get backups.ark.heptio.com -n {namespace} -o json");
        let theirs: Value = serde_json::from_str(&kubectl(cluster, &theirs)?)?;
        let key = |list: &Value| -> Result<Vec<Value>> {
            let items = list["items"].as_array().context("a list")?;
            Ok(items
                .iter()
                .map(|one| {
                    json!([
                        one["apiVersion"],
                        one["kind"],
                        one["metadata"]["name"],
                        one["spec"],
                        one["status"]
                    ])
                })
                .collect())
        };
        let (mine, theirs) = (key(&mine)?, key(&theirs)?);
        ensure!(
            mine.len() == 3 && mine.iter().all(|one| theirs.contains(one)),
            "{mine:?}\n{theirs:?}"
        );
        ensure!(!ours.stdout.contains("managedFields"), "{ours:?}");
    }
    // What is a mistake of the caller's is told before anything is asked.
    for (flags, why) in [
        ("-o jsonpath={.a", "'{' without '}'"),
        ("-o custom-columns=A", "is not NAME:PATH"),
        ("-o jsno", "custom-columns=NAME:PATH"),
        ("--sort-by .a[", "']'"),
    ] {
        let said = expect(2, &format!("restore get {flags}")).await?;
        ensure!(said.stderr.contains(why), "{said:?}");
    }
    let said = expect(1, &format!("backup get -n {namespace} --sort-by .nothing")).await?;
    ensure!(
        said.stderr.contains("none of the objects has .nothing"),
        "{said:?}"
    );
    // Schedules are CronJobs, and print as such.
    expect(0, "schedule create printed --schedule @daily --paused").await?;
    let path = "jsonpath={.kind}:{.spec.schedule}";
    let said = expect(0, &format!("schedule get printed -o {path}")).await?;
    ensure!(
        said.stdout == "CronJob:0 0 * * *" || said.stdout == "CronJob:@daily",
        "{said:?}"
    );
    Ok(())
}

/// Runs it in a terminal, and checks that no line is too long for that.
async fn in_terminal(line: &str, environment: &[(&str, &str)]) -> Result<Vec<String>> {
    let mut command = outside(cluster().await?.kubeconfig(), line)?;
    command.env_remove("COLUMNS").env("TERM", "xterm-256color");
    command.envs(environment.iter().copied());
    let (code, said) = InTerminal::start(command, COLUMNS)?.end(WITHIN).await?;
    ensure!(code == Some(0), "{line}: {said}");
    ensure!(
        !environment.contains(&("NO_COLOR", "1")) || !is_coloured(&said),
        "{line}: {said:?}"
    );
    fits(seen(&said))
}

/// As [`seen`], of lines that are filled with blanks to the terminal's width, so that the next one begins where it wraps.
fn rows(said: &str) -> Result<Vec<String>> {
    let mut rows = Vec::new();
    for line in seen(said) {
        let all: Vec<char> = line.chars().collect();
        for (index, row) in all.chunks(usize::from(COLUMNS)).enumerate() {
            // What a line is too long for would go on without a spinner.
            let is_begun = index == 0 || ('\u{2800}'..='\u{28ff}').contains(&row[0]);
            ensure!(is_begun, "it wraps: {line:?}");
            rows.push(row.iter().collect::<String>());
        }
    }
    Ok(rows)
}

fn fits(lines: Vec<String>) -> Result<Vec<String>> {
    for line in &lines {
        ensure!(line.chars().count() <= usize::from(COLUMNS), "{line:?}");
    }
    Ok(lines)
}

async fn narrow() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = "narrow";
    kubectl(cluster, &format!("create namespace {namespace}"))?;
    let name = "nightly-production-20261126120000";
    let status = json!({"phase": "PartiallyFailed", "errors": 3, "warnings": 11, "size": 123_456_789,
        "clusterName": "a-cluster-with-a-rather-long-name", "resourceVersion": "1234567890",
        "progress": {"itemsBackedUp": 12345, "totalItems": 12345, "bytesRead": 1}});
    backup(cluster, namespace, name, json!({}), &status)?;
    let restore = json!({"apiVersion": "ark.heptio.com/v1", "kind": "Restore",
        "metadata": {"name": "nightly-20261126120000-20261127", "namespace": namespace,
            "annotations": {"ark.heptio.com/run": "x"}},
        "spec": {"backupName": name}});
    apply(cluster, &restore)?;

    for environment in [&[][..], &[("NO_COLOR", "1")], &[("TERM", "dumb")]] {
        for line in ["backup get", "backup get -o wide", "restore get -o wide"] {
            let lines = in_terminal(&format!("{line} -n {namespace}"), environment).await?;
            ensure!(lines[0].starts_with("NAME "), "{lines:?}");
            let names = [
                "nightly-production-20261126120000",
                "nightly-20261126120000-20261127",
            ];
            // Names are whole.
            ensure!(
                names
                    .iter()
                    .any(|name| lines[1].starts_with(&format!("{name} "))),
                "{lines:?}"
            );
        }
    }
    let lines = in_terminal(&format!("backup get -n {namespace}"), &[]).await?;
    ensure!(lines[1].contains("PartiallyFailed"), "{lines:?}");
    // COLUMNS knows better; in a pipe all is there.
    let lines = {
        let mut command = outside(cluster.kubeconfig(), &format!("backup get -n {namespace}"))?;
        command.env("COLUMNS", "200");
        let (_, said) = InTerminal::start(command, COLUMNS)?.end(WITHIN).await?;
        seen(&said)
    };
    ensure!(lines[0].ends_with("LOCATION"), "{lines:?}");
    let mut piped = outside(
        cluster.kubeconfig(),
        &format!("backup get -n {namespace} -o wide"),
    )?;
    piped.env("COLUMNS", "20");
    let piped = run(Ok(piped)).await?;
    ensure!(
        piped
            .stdout
            .contains("a-cluster-with-a-rather-long-name   1234567890\n"),
        "{piped:?}"
    );
    Ok(())
}

async fn watching() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = "watching";
    kubectl(cluster, &format!("create namespace {namespace}"))?;
    backup(
        cluster,
        namespace,
        "first",
        json!({}),
        &json!({"phase": "Completed"}),
    )?;
    let start = |flags: &str| {
        let line = format!("backup get -n {namespace} {flags}");
        InTerminal::start(outside(cluster.kubeconfig(), &line)?, COLUMNS)
    };
    let table = start("-w")?;
    let documents = start("--watch-only -o name")?;
    let shows = async |terminal: &InTerminal, words: &[&str]| {
        let what = format!("a line with {words:?}");
        wait_until(&what, WITHIN, async || {
            let lines = seen(&terminal.said());
            let found = lines.iter().any(|line| {
                line.split_whitespace()
                    .take(words.len())
                    .eq(words.iter().copied())
            });
            ensure!(found, "{lines:?}");
            Ok(Some(()))
        })
        .await
    };
    shows(&table, &["first", "Completed"]).await?;
    backup(
        cluster,
        namespace,
        "second",
        json!({}),
        &json!({"phase": "InProgress"}),
    )?;
    shows(&table, &["second", "InProgress"]).await?;
    set_status(
        cluster,
        namespace,
        "backups.ark.heptio.com/second",
        &json!({"phase": "Failed", "failureReason": "because"}),
    )?;
    shows(&table, &["second", "Failed"]).await?;
    // A Job that has written nothing yet is one, too.
    let job = job(namespace, "third", None)?;
    apply(cluster, &job)?;
    shows(&table, &["third", "New"]).await?;
    kubectl(
        cluster,
        &format!("delete backups.ark.heptio.com second -n {namespace}"),
    )?;
    shows(&table, &["second", "Deleted"]).await?;
    shows(&documents, &["backup.ark.heptio.com/third"]).await?;
    let lines = seen(&table.said());
    let header = lines.iter().filter(|line| line.starts_with("NAME "));
    ensure!(header.count() == 1, "{lines:?}");
    let unchanged = lines.iter().filter(|line| line.starts_with("first "));
    ensure!(unchanged.count() == 1, "{lines:?}");
    fits(lines)?;
    for terminal in [table, documents] {
        terminal.interrupt()?;
        let (code, said) = terminal.end(WITHIN).await?;
        ensure!(code == Some(130), "{code:?}: {said}");
    }
    Ok(())
}

/// A Job of a backup, as it is rendered.
fn job(namespace: &str, name: &str, schedule: Option<&str>) -> Result<Value> {
    let mut labels = json!({"ark.heptio.com/operation": "backup", "ark.heptio.com/backup": name});
    let mut args = vec![
        "backup".to_owned(),
        name.to_owned(),
        "--location=default".to_owned(),
    ];
    args.push(format!("--namespace={namespace}"));
    if let Some(schedule) = schedule {
        labels["ark.heptio.com/schedule"] = json!(schedule);
    }
    Ok(json!({"apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": format!("backup-{name}"), "namespace": namespace, "labels": labels},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [
            {"name": "ark-job", "image": "registry/ark-job:x", "args": args}]}}}}))
}

/// A pod of a Job, with the state of its container.
fn pod(cluster: &ControlPlane, job: &str, state: &Value) -> Result<String> {
    let name = format!("{job}-x");
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": ARK, "labels": {"batch.kubernetes.io/job-name": job}},
        "spec": {"serviceAccountName": "ark-backup", "automountServiceAccountToken": false, "restartPolicy": "Never",
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "ark-job", "image": "registry/ark-job:x", "securityContext":
                {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]}});
    apply(cluster, &pod)?;
    container(cluster, &name, state)?;
    Ok(name)
}

fn container(cluster: &ControlPlane, pod: &str, state: &Value) -> Result<()> {
    let status = json!({"containerStatuses": [{"name": "ark-job", "image": "registry/ark-job:x", "imageID": "",
        "ready": false, "restartCount": 0, "state": state}]});
    set_status(cluster, ARK, &format!("pod/{pod}"), &status)
}

/// Two backups are waited for together, in a narrow terminal and in a pipe; one of them cannot be pulled.
async fn stuck() -> Result<()> {
    let cluster = cluster().await?;
    for name in ["shown", "other"] {
        expect(
            0,
            &format!("schedule create {name} --schedule @daily --paused"),
        )
        .await?;
    }
    let mut command = outside(cluster.kubeconfig(), "schedule run shown other --wait")?;
    command.env("TERM", "xterm").env_remove("COLUMNS");
    let terminal = InTerminal::start(command, COLUMNS)?;
    let jobs = wait_until("two Jobs", WITHIN, async || {
        let list = kubectl(cluster, &format!("get jobs -n {ARK} -o json"))?;
        let list: Value = serde_json::from_str(&list)?;
        let names = list["items"].as_array().context("a list")?.iter();
        let names: Vec<String> = names
            .filter_map(|job| job["metadata"]["name"].as_str().map(str::to_owned))
            .collect();
        let of = |schedule: &str| {
            let start = format!("backup-{schedule}-");
            names.iter().find(|name| name.starts_with(&start)).cloned()
        };
        Ok(of("shown").zip(of("other")))
    })
    .await?;
    let says = async |texts: &[&str]| {
        wait_until(&format!("{texts:?}"), WITHIN, async || {
            let lines = fits(rows(&terminal.said())?)?;
            ensure!(
                texts
                    .iter()
                    .all(|text| lines.iter().any(|line| line.contains(text))),
                "{lines:?}"
            );
            Ok(Some(()))
        })
        .await
    };
    // Both are shown.
    says(&["backup shown-", "backup other-"]).await?;
    let (shown, other) = jobs;
    let backups = [&shown, &other].map(|job| job.trim_start_matches("backup-").to_owned());
    let pods = [
        pod(
            cluster,
            &shown,
            &json!({"waiting": {"reason": "ContainerCreating"}}),
        )?,
        pod(
            cluster,
            &other,
            &json!({"running": {"startedAt": "2026-11-26T12:00:00Z"}}),
        )?,
    ];
    let label = json!({"ark.heptio.com/schedule": "other"});
    let progress = |done: u64| json!({"phase": "InProgress", "progress": {"itemsBackedUp": done, "totalItems": 1000, "bytesRead": done * 1000}});
    backup(cluster, ARK, &backups[1], label, &progress(250))?;
    says(&["25%"]).await?;
    let resource = format!("backups.ark.heptio.com/{}", backups[1]);
    set_status(cluster, ARK, &resource, &progress(500))?;
    // After a few seconds it is known how long the rest takes.
    says(&["50%", " left"]).await?;

    // An image that cannot be pulled is told by all that show the schedule or its backup, and by who waits for the log.
    let pull = json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such host"}});
    let logs = format!("backup logs {} -f", backups[0]);
    let logs = InTerminal::start(outside(cluster.kubeconfig(), &logs)?, 200)?;
    container(cluster, &pods[0], &pull)?;
    for line in ["schedule get shown", &format!("backup get {}", backups[0])] {
        let said = expect(0, line).await?;
        ensure!(said.stdout.contains("ImagePullBackOff"), "{said:?}");
    }
    for line in [
        "schedule describe shown",
        &format!("backup describe {}", backups[0]),
    ] {
        let said = expect(0, line).await?;
        ensure!(
            said.stdout
                .contains("image registry/ark-job:x cannot be pulled")
                && said.stdout.contains("no such host"),
            "{said:?}"
        );
    }
    let path = r"jsonpath={.metadata.annotations.ark\.heptio\.com/waiting}";
    let said = expect(0, &format!("backup get {} -o {path}", backups[0])).await?;
    ensure!(said.stdout.contains("cannot be pulled"), "{said:?}");
    wait_until("logs -f to say what it waits for", WITHIN, async || {
        let lines = seen(&logs.said());
        ensure!(
            lines.iter().any(|line| line.contains("cannot be pulled")),
            "{lines:?}"
        );
        Ok(Some(()))
    })
    .await?;

    // The other one goes on to its end.
    let done = json!({"phase": "Completed", "progress": {"itemsBackedUp": 1000, "totalItems": 1000, "bytesRead": 1_000_000}});
    set_status(cluster, ARK, &resource, &done)?;
    let now = "2026-11-26T12:00:00Z";
    let complete = json!({"startTime": now, "completionTime": now, "succeeded": 1, "conditions": [
        {"type": "SuccessCriteriaMet", "status": "True", "lastTransitionTime": now},
        {"type": "Complete", "status": "True", "lastTransitionTime": now}]});
    set_status(cluster, ARK, &format!("job/{other}"), &complete)?;
    let (code, said) = terminal.end(WITHIN).await?;
    ensure!(code == Some(1), "{code:?}: {said}");
    let lines = seen(&said);
    let has = |text: &str| lines.iter().any(|line| line.contains(text));
    ensure!(
        has(&format!("backup {} completed: 1000 objects", backups[1])),
        "{lines:#?}"
    );
    ensure!(has("cannot be pulled"), "{lines:#?}");
    // The log is waited for until the Job is gone.
    kubectl(
        cluster,
        &format!("delete job {shown} -n {ARK} --cascade=background"),
    )?;
    let (code, said) = logs.end(WITHIN).await?;
    ensure!(code == Some(10), "{code:?}: {said}");

    // In a pipe there are lines, and nothing that moves a cursor.
    let said = expect(0, "schedule get").await?;
    ensure!(
        !said.stdout.contains('\u{1b}') && !said.stdout.contains('\r'),
        "{said:?}"
    );
    Ok(())
}
