//! Doctor: checks, from where it runs, what backups and restores need, and says how to mend what is missing.
//!
//! It never touches what is stored: its own objects are `metadata/ark-probe-doctor-…`, and it takes them away again. Where a
//! location is ReadOnly, or the installation is restore-only, it writes nothing. Each check ends within a bounded time, and one
//! that cannot be made does not keep the others from being made.

pub mod cluster;
mod network;
mod pod;
mod storage;
mod volumes;

use crate::args::{DoctorArgs, PlanFormat};
use crate::cluster::Cluster;
use crate::context::{Environment, Outcome, locate, open_place, parse_url};
use crate::error::Failure;
use crate::exit::Exit;
use crate::location::Read;
use crate::log::Log;
use crate::mode;
use crate::read_only::read_only;
use crate::stdout;
use crate::store::Store;
use crate::volumes::disks::DiskAccess;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::fmt::Write as _;
use std::pin::Pin;
use std::time::Duration;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Backups and restores work, and something is worth knowing.
    Warning,
    /// Something does not work, or nobody knows whether it does.
    Failed,
    /// It was not looked at; the detail says why.
    Skipped,
}

impl Verdict {
    /// As it is printed.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Failed => "failed",
            Verdict::Skipped => "skipped",
        }
    }
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Its name, which stays: `storage-put`.
    pub check: String,
    /// How it ended.
    pub result: Verdict,
    /// What was seen.
    pub detail: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Check {
    fn new(check: &str, result: Verdict, detail: impl Into<String>) -> Check {
        Check {
            check: check.to_owned(),
            result,
            detail: detail.into(),
            fix: None,
        }
    }

    /// One that ended well.
    pub fn ok(check: &str, detail: impl Into<String>) -> Check {
        Check::new(check, Verdict::Ok, detail)
    }

    /// One that is worth knowing.
    pub fn warning(check: &str, detail: impl Into<String>) -> Check {
        Check::new(check, Verdict::Warning, detail)
    }

    /// One that failed.
    pub fn failed(check: &str, detail: impl Into<String>) -> Check {
        Check::new(check, Verdict::Failed, detail)
    }

    /// One that was not made.
    pub fn skipped(check: &str, why: impl Into<String>) -> Check {
        Check::new(check, Verdict::Skipped, why)
    }

    /// One that failed as an operation fails.
    pub fn of_failure(check: &str, failure: &Failure) -> Check {
        Check {
            fix: failure.next_step().map(str::to_owned),
            ..Check::failed(check, failure.message())
        }
    }

    /// With what to do about it.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Check {
        self.fix = Some(fix.into());
        self
    }
}

/// The checks as a table: one line each, and below it what to do.
pub fn table(checks: &[Check]) -> String {
    let width = |of: fn(&Check) -> &str, title: &str| {
        let longest = checks.iter().map(|check| of(check).chars().count()).max();
        longest.unwrap_or(0).max(title.len()) + 3
    };
    let name = width(|check| &check.check, "CHECK");
    let result = width(|check| check.result.word(), "RESULT");
    let mut text = format!("{:name$}{:result$}DETAIL\n", "CHECK", "RESULT");
    for check in checks {
        let (word, detail) = (check.result.word(), &check.detail);
        // The texts of others may have several lines.
        let detail = detail.split_whitespace().collect::<Vec<_>>().join(" ");
        let line = format!("{:name$}{word:result$}{detail}", check.check);
        let _infallible = writeln!(text, "{}", line.trim_end());
        if let Some(fix) = &check.fix {
            let _infallible = writeln!(text, "  fix: {fix}");
        }
    }
    text
}

/// The checks made here before storage is tried.
const FIRST: [&str; 7] = [
    "temporary-files",
    "memory",
    "api-server",
    "resource-types",
    "rights-backup",
    "location",
    "mode",
];
/// And after it.
const LAST: [&str; 2] = ["snapshot-classes", "ec2"];

/// The names of all checks, in their order: each is told once, whatever happens to the others.
pub fn names() -> impl Iterator<Item = &'static str> {
    FIRST.into_iter().chain(storage::NAMES).chain(LAST)
}

/// Longer than this, no single check of a service takes.
const WITHIN: Duration = Duration::from_secs(60);

/// The answer, unless it does not come.
async fn within<T>(asking: impl Future<Output = T>) -> Result<T, String> {
    let answer = tokio::time::timeout(WITHIN, asking).await;
    answer.map_err(|_| format!("no answer within {} s", WITHIN.as_secs()))
}

/// Makes all checks, prints them, and ends with exit code 1 when one has failed.
///
/// # Errors
/// When the command line is wrong, nobody reads, or it is interrupted: its objects are gone then as well.
pub async fn run(
    cluster: &Cluster,
    namespace: &str,
    arguments: &DoctorArgs,
    environment: &Environment,
    interrupt: impl Future<Output = ()>,
) -> Result<Outcome, Failure> {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let examining = examine(cluster, namespace, arguments, environment, interrupt, tell);
    let printing = async {
        let mut checks = Vec::new();
        while let Some(check) = told.recv().await {
            if arguments.output == PlanFormat::Json {
                let line = serde_json::to_string(&check).expect("a check is only texts");
                stdout::write((line + "\n").into()).await?;
            }
            checks.push(check);
        }
        if arguments.output == PlanFormat::Text {
            stdout::write(table(&checks).into()).await?;
        }
        Ok::<_, Failure>(checks)
    };
    let (examined, printed) = futures::join!(examining, printing);
    examined?;
    let checks = printed?;
    Ok(Outcome {
        exit: match count(&checks, Verdict::Failed) {
            0 => Exit::Done,
            _ => Exit::Failed,
        },
        message: summary(&checks),
        hint: None,
    })
}

/// How many ended so.
pub fn count(checks: &[Check], result: Verdict) -> usize {
    checks.iter().filter(|check| check.result == result).count()
}

/// All of it in a line.
pub fn summary(checks: &[Check]) -> String {
    let of = |result, one: &str, many: &str| match count(checks, result) {
        0 => None,
        1 => Some(format!("1 {one}")),
        number => Some(format!("{number} {many}")),
    };
    let parts: Vec<String> = [
        of(Verdict::Failed, "failed", "failed"),
        of(Verdict::Warning, "warning", "warnings"),
        of(Verdict::Skipped, "skipped", "skipped"),
        of(Verdict::Ok, "ok", "ok"),
    ]
    .into_iter()
    .flatten()
    .collect();
    format!("{} checks: {}", checks.len(), parts.join(", "))
}

/// Why storage is not tried.
const NO_PLACE: &str = "storage could not be opened, see location";

/// Where checks are told, in their order.
pub type Tell = tokio::sync::mpsc::UnboundedSender<Check>;

/// Makes all checks, and tells each as soon as it is made.
///
/// # Errors
/// When the command line is wrong, or it is interrupted.
pub async fn examine(
    cluster: &Cluster,
    namespace: &str,
    arguments: &DoctorArgs,
    environment: &Environment,
    interrupt: impl Future<Output = ()>,
    tell: Tell,
) -> Result<(), Failure> {
    let DoctorArgs {
        storage,
        ec2,
        output: _,
    } = arguments;
    let url = storage.storage.as_deref().map(parse_url).transpose()?;
    let told = RefCell::new(Vec::new());
    let say = |check: Check| {
        told.borrow_mut().push(check.check.clone());
        // Whoever read has gone; what was written is taken back nevertheless.
        drop(tell.send(check));
    };
    let mut interrupt = std::pin::pin!(interrupt);
    let before = async {
        say(pod::temporary(&environment.temporary).await);
        say(pod::memory(environment));
        let (server, server_clock) = cluster::api_server(cluster).await;
        let answers = server.result != Verdict::Failed;
        say(server);
        if !answers {
            // A URL says where storage is without it, but not whether it may be written to.
            return Err("the API server does not answer");
        }
        say(cluster::resource_types(cluster, url.is_some()).await);
        for check in cluster::rights(cluster, namespace).await {
            say(check);
        }
        let located = within(locate(cluster, namespace, storage.location.as_deref(), url)).await;
        let opened = match located {
            Ok(Ok((name, read))) => within(open_place(&read.place))
                .await
                .map(|opened| (name, read, opened)),
            Ok(Err(failure)) => {
                say(Check::of_failure("location", &failure));
                return Err(NO_PLACE);
            }
            Err(why) => Err(why),
        };
        let (name, read, store) = match opened {
            Ok((name, read, Ok(store))) => (name, read, store),
            Ok((_, _, Err(failure))) => {
                say(Check::of_failure("location", &failure));
                return Err(NO_PLACE);
            }
            Err(why) => {
                say(Check::failed("location", why));
                return Err(NO_PLACE);
            }
        };
        say(location_check(name.as_deref(), &store));
        let (mode, writable) = mode_check(cluster, namespace, name.as_deref(), &read, &store).await;
        say(mode);
        Ok((read, store, writable, server_clock))
    };
    let found = tokio::select! {
        found = before => found,
        () = interrupt.as_mut() => return Err(interrupted()),
    };
    let (read, store, writable, server_clock) = match found {
        Ok(found) => found,
        Err(why) => {
            let told = told.borrow().clone();
            let left = names().filter(|name| !told.iter().any(|one| one == name));
            left.for_each(|name| say(Check::skipped(name, why)));
            return Ok(());
        }
    };
    let probing = storage::Probing {
        store: &store,
        nonce: &environment.nonce,
        writable,
        server_clock,
    };
    probing.run(&say, interrupt.as_mut()).await?;
    let after = async {
        let (classes, volumes) = volumes::snapshot_classes(cluster).await;
        say(classes);
        let log = Log::new(&environment.temporary).ok();
        let access = log.map(|log| {
            DiskAccess::new(
                environment.connect_disks,
                environment.disks_cluster_name.clone(),
                read.place.clone(),
                &log,
            )
        });
        say(volumes::ec2(access.as_ref(), volumes.as_ref(), *ec2).await);
    };
    tokio::select! {
        () = after => Ok(()),
        () = interrupt.as_mut() => Err(interrupted()),
    }
}

fn interrupted() -> Failure {
    Failure::new(Exit::Interrupted, "interrupted")
}

/// Completes when whoever asked wants no more.
type Interrupt<'a, F> = Pin<&'a mut F>;

fn location_check(name: Option<&str>, store: &Store) -> Check {
    let place = store.canonical();
    Check::ok(
        "location",
        match name {
            Some(name) => format!("{name}: {place}"),
            None => place.to_owned(),
        },
    )
}

/// Whether anything may be written.
async fn mode_check(
    cluster: &Cluster,
    namespace: &str,
    name: Option<&str>,
    read: &Read,
    store: &Store,
) -> (Check, bool) {
    let asking = async {
        let own = read.access_mode;
        if let Some(reason) = read_only(cluster, namespace, name, own, &read.place, store).await {
            return Err(reason.into_failure());
        }
        mode::refuse_by_installation(cluster, namespace, &read.place, store).await
    };
    match within(asking).await {
        Ok(Ok(())) => (Check::ok("mode", "backups may be written"), true),
        // It is meant to be so.
        Ok(Err(failure)) => {
            let check = Check::warning("mode", failure.message());
            let check = match failure.next_step() {
                Some(next) => check.fix(format!("if that is not what you want: {next}")),
                None => check,
            };
            (check, false)
        }
        Err(why) => (Check::failed("mode", why), false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_line_for_each_check_and_what_to_do_below_it() {
        let checks = [
            Check::ok("api-server", "v1.34.4"),
            Check::failed("storage-put", "refused:\n  AccessDenied").fix("allow s3:PutObject"),
            Check::skipped("ec2", ""),
        ];
        assert_eq!(
            table(&checks),
            "CHECK         RESULT    DETAIL\n\
             api-server    ok        v1.34.4\n\
             storage-put   failed    refused: AccessDenied\n\
             \x20 fix: allow s3:PutObject\n\
             ec2           skipped\n"
        );
        assert_eq!(summary(&checks), "3 checks: 1 failed, 1 skipped, 1 ok");
    }

    #[test]
    fn a_line_of_json_is_read_back_as_it_was() {
        let check = Check::failed("a", "b").fix("c");
        let line = serde_json::to_string(&check).unwrap();
        assert_eq!(
            line,
            r#"{"check":"a","result":"failed","detail":"b","fix":"c"}"#
        );
        assert_eq!(serde_json::from_str::<Check>(&line).unwrap(), check);
    }
}
