//! `kubectl ark doctor`: checks of what backups and restores need, from here and from inside the cluster.
//!
//! What this process sees itself is in [`before`]. The rest is seen by `ark-job doctor`, executed in a pod that is held for it
//! (see [`crate::held_pod`]) with the rights of a backup, so that nothing of it ends up in the logs of nodes; with `--local`,
//! by this process. That a pod cannot start is a check like others. [`bundle`] puts all of it into an archive for whoever helps.

pub mod before;
pub mod bundle;
pub mod redact;

use crate::Surroundings;
use crate::cli::{ClusterFlags, DoctorFormat};
use crate::client::{self, Connection};
use crate::held_pod::{About, Ended, HeldPod, Purpose, Subject};
use crate::options::doctor::DoctorOptions;
use crate::progress::Display;
use crate::{local, output, render};
use ark_job::args::{Args, Command, DoctorArgs, PlanFormat};
use ark_job::cluster::Cluster;
use ark_job::doctor::{self, Check, Verdict, count, summary};
use ark_job::error::Failure;
use ark_job::exit::Exit;
use ark_job::store::Location;
use console::measure_text_width;
use serde_json::{Value, json};
use std::pin::Pin;
use std::time::Duration;

/// What the check is called that a pod starts in which the others can be made.
const POD: &str = "pod";
/// An autoscaler adds a node, and an image is pulled, in less. What cannot pass by itself is told sooner.
const STARTS_WITHIN: Duration = Duration::from_secs(300);
/// Longer than a check takes.
const SILENT: Duration = Duration::from_secs(240);

/// `kubectl ark doctor`
pub async fn run(
    cluster: &ClusterFlags,
    options: DoctorOptions,
    surroundings: &Surroundings,
    interrupt: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    let mut interrupt = std::pin::pin!(interrupt);
    let connection = client::connect(cluster).await?;
    let display = Display::new("doctor", &options.namespace, surroundings.terminal);
    let looked = tokio::select! {
        looked = before::look(&connection, &options) => looked,
        () = interrupt.as_mut() => return Ok(interrupted(&display)),
    };
    let before::Looked {
        mut checks,
        answers,
        installed,
    } = looked;
    let inside = match (answers, options.local, installed) {
        (false, ..) => Err("the cluster does not answer"),
        (true, true, _) => Ok(here(&connection, &options, surroundings, interrupt.as_mut()).await?),
        (true, false, true) => {
            match by_pod(
                &connection,
                &options,
                surroundings,
                &display,
                interrupt.as_mut(),
            )
            .await
            {
                Some(checks) => Ok(checks),
                None => return Ok(interrupted(&display)),
            }
        }
        (true, false, false) => Err("Ark is not installed"),
    };
    match inside {
        Ok(inside) => checks.extend(inside),
        Err(why) => checks.extend(not_made(&[], why)),
    }
    display.end();
    print(&checks, options.output, surroundings.width);
    if let Some(path) = &options.bundle {
        let writing = bundle::write(
            &connection.kube,
            &options.namespace,
            path,
            &checks,
            surroundings,
        );
        tokio::select! {
            written = writing => written?,
            () = interrupt.as_mut() => return Ok(interrupted(&display)),
        }
        eprintln!("wrote {}; read it before you pass it on", path.display());
    }
    match count(&checks, Verdict::Failed) {
        0 => Ok(Exit::Done),
        _ => Ok(Exit::Failed),
    }
}

fn interrupted(display: &Display) -> Exit {
    display.end();
    eprintln!("interrupted");
    Exit::Interrupted
}

/// The table with details that end before the edge of a terminal of `width` columns and go on below. Fixes stay on their lines:
/// commands are copied from them.
fn folded(table: &str, width: Option<usize>) -> String {
    /// Details in less than this would be a column of single words.
    const LEAST: usize = 16;
    let column = table.find("DETAIL").unwrap_or_default();
    let Some(width) = width.filter(|width| *width >= column + LEAST) else {
        return table.to_owned();
    };
    let mut text = String::new();
    for line in table.lines() {
        let Some((start, detail)) = line
            .split_at_checked(column)
            .filter(|_| !line.starts_with(' '))
        else {
            text.push_str(line);
            text.push('\n');
            continue;
        };
        let mut printed = start.to_owned();
        let mut used = column;
        for word in detail.split_whitespace() {
            let length = measure_text_width(word);
            if used > column && used + 1 + length > width {
                text.push_str(printed.trim_end());
                text.push('\n');
                printed = " ".repeat(column);
                used = column;
            }
            if used > column {
                printed.push(' ');
                used += 1;
            }
            printed.push_str(word);
            used += length;
        }
        text.push_str(printed.trim_end());
        text.push('\n');
    }
    text
}

fn print(checks: &[Check], format: DoctorFormat, width: Option<usize>) {
    match format {
        DoctorFormat::Table => {
            print!("{}", folded(&doctor::table(checks), width));
            eprintln!("{}", summary(checks));
        }
        DoctorFormat::Json => print!("{}", output::json(&document(checks))),
        DoctorFormat::Yaml => print!("{}", output::yaml(&document(checks))),
    }
}

/// The checks as one object.
pub fn document(checks: &[Check]) -> Value {
    json!({
        "healthy": count(checks, Verdict::Failed) == 0,
        "failed": count(checks, Verdict::Failed),
        "warnings": count(checks, Verdict::Warning),
        "checks": checks,
    })
}

fn arguments(options: &DoctorOptions) -> Args {
    Args {
        namespace: options.namespace.clone(),
        command: Command::Doctor(DoctorArgs {
            storage: options.storage.clone(),
            ec2: options.ec2,
            output: PlanFormat::Json,
        }),
    }
}

/// The checks that were to be made and were not, after those that were.
fn not_made(made: &[Check], why: &str) -> Vec<Check> {
    let there = |name: &str| made.iter().any(|check| check.check == name);
    doctor::names()
        .filter(|name| !there(name))
        .map(|name| Check::skipped(name, why))
        .collect()
}

/// By this process.
async fn here(
    connection: &Connection,
    options: &DoctorOptions,
    surroundings: &Surroundings,
    interrupt: Pin<&mut impl Future<Output = ()>>,
) -> Result<Vec<Check>, Failure> {
    // As a backup would, which makes the directory.
    if let Some(url) = &options.storage.storage
        && let Ok(Location::File { dir }) = url.parse::<Location>()
    {
        drop(local::make_private(&dir));
    }
    let Command::Doctor(arguments) = arguments(options).command else {
        return Ok(Vec::new());
    };
    let environment = local::environment(surroundings);
    let cluster = Cluster::new(connection.operation.clone());
    let namespace = &options.namespace;
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    doctor::examine(
        &cluster,
        namespace,
        &arguments,
        &environment,
        interrupt,
        tell,
    )
    .await?;
    let mut checks = Vec::new();
    while let Some(check) = told.recv().await {
        checks.push(check);
    }
    Ok(checks)
}

/// By `ark-job` in a pod, of which nothing is left then; `None` when interrupted.
async fn by_pod(
    connection: &Connection,
    options: &DoctorOptions,
    surroundings: &Surroundings,
    display: &Display,
    mut interrupt: Pin<&mut impl Future<Output = ()>>,
) -> Option<Vec<Check>> {
    let args = arguments(options);
    let name = render::subject(&args.command);
    let subject = Subject {
        namespace: &options.namespace,
        about: About::Location(&name),
        storage: &options.storage,
    };
    // Asked once before there is anything to be left behind: from now on, Ctrl-C is told to us.
    if futures::poll!(interrupt.as_mut()).is_ready() {
        return None;
    }
    let creating = HeldPod::create(connection, subject, Purpose::Doctor, &surroundings.nonce);
    let pod = match creating.await {
        Ok(pod) => pod,
        Err(failure) => {
            let mut checks = vec![Check::of_failure(POD, &failure)];
            checks.extend(not_made(&[], "no pod could be created"));
            return Some(checks);
        }
    };
    let working = async {
        let started = match tokio::time::timeout(STARTS_WITHIN, pod.started(display)).await {
            Ok(Ok(started)) => started,
            Ok(Err(failure)) => return not_started(&failure),
            Err(_) => {
                let seconds = STARTS_WITHIN.as_secs();
                return not_started(
                    &Failure::new(
                        Exit::Failed,
                        format!("its container has not started within {seconds} s"),
                    )
                    .hint(format!(
                        "`kubectl get events -n {}` says what it waits for",
                        options.namespace
                    )),
                );
            }
        };
        display.note("checking");
        let mut printed = Vec::new();
        let ended = started
            .execute(&args, &mut printed, SILENT, &mut |_| {})
            .await;
        let mut checks = vec![Check::ok(POD, "a pod starts, and commands run in it")];
        checks.extend(made(&printed, ended));
        checks
    };
    let result = tokio::select! {
        checks = working => Some(checks),
        () = interrupt.as_mut() => None,
    };
    pod.remove().await;
    result
}

fn not_started(failure: &Failure) -> Vec<Check> {
    let mut checks = vec![Check::of_failure(POD, failure)];
    checks.extend(not_made(&[], "no pod has started"));
    checks
}

/// What was made in the pod, and how it ended.
fn made(printed: &[u8], ended: Result<Option<Ended>, Failure>) -> Vec<Check> {
    let text = String::from_utf8_lossy(printed);
    let mut checks: Vec<Check> = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let rest = not_made(&checks, "it was not told");
    if rest.is_empty() {
        return checks;
    }
    // It ended before its time: that is told, whatever was found until then.
    checks.push(match ended {
        Err(failure) => Check::of_failure("connection", &failure),
        Ok(ended) => {
            let code = ended.as_ref().and_then(|ended| ended.code);
            match ended.and_then(|ended| ended.failure) {
                Some(failure) if code == Some(2) => Check::failed(
                    "connection",
                    format!(
                        "the image does not know this command: {}",
                        failure.message()
                    ),
                )
                .fix("`kubectl ark install --image IMAGE` with one of this plugin's version"),
                Some(failure) => Check::of_failure("connection", &failure),
                None => Check::failed("connection", "it ended before all checks were made"),
            }
        }
    });
    checks.extend(rest);
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_a_narrow_terminal_details_go_on_below_themselves() {
        let checks = [
            Check::ok(
                "installed",
                "localhost/ark-job:demo, contract 5, in a namespace",
            ),
            Check::failed("storage-put", "refused")
                .fix("a command that is copied, however long it may be"),
        ];
        let table = doctor::table(&checks);
        assert_eq!(folded(&table, None), table);
        assert_eq!(
            folded(&table, Some(50)),
            "CHECK         RESULT   DETAIL\n\
             installed     ok       localhost/ark-job:demo,\n                       contract 5, in a namespace\n\
             storage-put   failed   refused\n  \
             fix: a command that is copied, however long it may be\n"
        );
        // Too narrow for details beside the rest.
        assert_eq!(folded(&table, Some(30)), table);
    }

    fn ended(code: i32) -> Ended {
        Ended {
            code: Some(code),
            failure: (code != 0).then(|| Failure::new(Exit::Failed, "it says")),
            warnings: Vec::new(),
        }
    }

    #[test]
    fn what_was_not_told_is_a_failure_and_what_is_missing_is_named() {
        let line = r#"{"check":"memory","result":"ok","detail":"no limit"}"#;
        let checks = made(line.as_bytes(), Ok(Some(ended(137))));
        assert_eq!(checks[0], Check::ok("memory", "no limit"));
        assert_eq!(count(&checks, Verdict::Failed), 1);
        assert_eq!(checks.len(), doctor::names().count() + 1);
        let old = made(b"", Ok(Some(ended(2))));
        assert!(old[0].fix.as_deref().unwrap().contains("--image"));
    }

    #[test]
    fn all_checks_that_were_made_are_taken_as_they_are() {
        let all: String = doctor::names()
            .map(|name| serde_json::to_string(&Check::ok(name, "x")).unwrap() + "\n")
            .collect();
        let checks = made(all.as_bytes(), Ok(Some(ended(1))));
        assert!(checks.iter().all(|check| check.result == Verdict::Ok));
        assert_eq!(document(&checks)["healthy"], true);
    }
}
