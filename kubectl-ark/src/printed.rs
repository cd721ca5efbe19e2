//! What `ark-job` prints: the plan of a restore or of expiry, what differs from a backup, one object of it, its snapshots,
//! what is stored. By a pod that is held for it, or in this process with `--local`; standard output is the same, and so is the exit code.

use crate::Surroundings;
use crate::cli::ClusterFlags;
use crate::client::{self, Connection};
use crate::held_pod::{About, Ended, HeldPod, Purpose, SILENT_PLANNING, Subject};
use crate::options::{PrintOptions, wait_for_rights};
use crate::progress::Display;
use crate::table::{Fit, Table};
use crate::{download, local, lookup, newest, render};
use ark_job::args::{Args, Command, PlanFormat, StorageFlags};
use ark_job::context::Outcome;
use ark_job::error::Failure;
use ark_job::exit::Exit;
use ark_job::run::{run as run_operation, run_without_cluster};
use console::measure_text_width;
use kube::Client;
use std::io;
use std::pin::Pin;
use tokio::fs::File;
use tokio::io::AsyncWrite;

/// Prints it.
pub async fn run(
    cluster: &ClusterFlags,
    options: PrintOptions,
    surroundings: &Surroundings,
    interrupt: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    let compares = matches!(options.args.command, Command::Diff(_));
    let result = print(cluster, options, surroundings, std::pin::pin!(interrupt)).await;
    result.map_err(|failure| {
        if compares {
            above_one(failure)
        } else {
            failure
        }
    })
}

/// To whoever compares, exit code 1 says that there are differences: what it is elsewhere is 2 here.
fn above_one(failure: Failure) -> Failure {
    match failure.exit() {
        Exit::Failed => Failure::new(Exit::Usage, failure.message())
            .maybe_hint(failure.next_step().map(str::to_owned)),
        _ => failure,
    }
}

async fn print(
    cluster: &ClusterFlags,
    options: PrintOptions,
    surroundings: &Surroundings,
    mut interrupt: Pin<&mut impl Future<Output = ()>>,
) -> Result<Exit, Failure> {
    let PrintOptions {
        mut args,
        schedule,
        placed,
        local,
    } = options;
    let preparing = async {
        if let Some(schedule) = schedule {
            newest::fill(cluster, &schedule, local, &mut args).await?;
        } else {
            let storage = placed.then(|| args.command.storage().clone());
            let names = lookup::Place {
                cluster,
                storage: storage.as_ref(),
                local,
            };
            lookup::fill(&names, &mut args).await?;
        }
        if !placed {
            *args.command.storage_mut() = place(cluster, &args.command).await?;
        }
        Ok::<_, Failure>(())
    };
    tokio::select! {
        prepared = preparing => prepared?,
        () = interrupt.as_mut() => return Ok(interrupted()),
    };
    if local {
        let environment = local::environment(surroundings);
        if let Some(outcome) = run_without_cluster(&args, &environment, interrupt.as_mut()).await {
            return ended_here(outcome);
        }
    }
    let connection = tokio::select! {
        connection = client::connect(cluster) => connection?,
        () = interrupt.as_mut() => return Ok(interrupted()),
    };
    if local {
        return here(connection.operation, args, surroundings, interrupt).await;
    }
    let mut stdout = stdout().map_err(|error| {
        Failure::new(Exit::Failed, format!("writing to standard output: {error}"))
    })?;
    let printed = match surroundings.width.filter(|_| is_table(&args.command)) {
        // What prints it does not know the terminal.
        Some(width) => {
            let mut text = Vec::new();
            let printed = by_pod(&connection, &args, surroundings, interrupt, &mut text).await?;
            print!("{}", narrowed(&String::from_utf8_lossy(&text), width));
            printed
        }
        None => by_pod(&connection, &args, surroundings, interrupt, &mut stdout).await?,
    };
    match printed {
        Printed::All(ended) => outcome(&args.command, ended),
        Printed::Cut => Ok(found_something(&args.command)),
        Printed::Interrupted => Ok(interrupted()),
    }
}

fn is_table(command: &Command) -> bool {
    match command {
        Command::List(list) => list.output == PlanFormat::Text,
        Command::Volumes(volumes) => volumes.output == PlanFormat::Text,
        _ => false,
    }
}

/// A table as `ark-job` has aligned it, without wrapping in a terminal of `width` columns; whatever else it is, as it is.
fn narrowed(text: &str, width: usize) -> String {
    let wide = |line: &str| measure_text_width(line) > width;
    let (Some(header), true) = (text.lines().next(), text.lines().any(wide)) else {
        return text.to_owned();
    };
    let titles: Vec<&str> = header.split_whitespace().collect();
    let starts: Vec<usize> = titles
        .iter()
        .scan(0, |from, title| {
            let start = *from + header[*from..].find(title)?;
            *from = start + title.len();
            Some(start)
        })
        .collect();
    let mut table = Table::new(&titles).fit(Fit {
        leave_out: &[
            "EXPIRES",
            "CLUSTER",
            "ORIGIN",
            "DRIVER",
            "STARTED",
            "SINCE",
            "SIZE",
            "PERSISTENTVOLUME",
        ],
        cut: &["ERROR", "CAUSE", "STATE"],
    });
    for line in text.lines().skip(1) {
        let characters: Vec<char> = line.chars().collect();
        let mut row = Vec::new();
        for (column, &start) in starts.iter().enumerate() {
            // A cell that begins before its column is none of this table.
            if start > 0
                && characters
                    .get(start - 1)
                    .is_some_and(|before| *before != ' ')
            {
                return text.to_owned();
            }
            let end = starts.get(column + 1).copied().unwrap_or(characters.len());
            let cell = characters.get(start.min(characters.len())..end.min(characters.len()));
            let cell: String = cell.unwrap_or_default().iter().collect();
            row.push(match cell.trim() {
                "" => "-".to_owned(),
                cell => cell.to_owned(),
            });
        }
        table.push(row);
    }
    table.render_within(true, Some(width))
}

/// Where the backups are that a command is about, as their resources say.
async fn place(cluster: &ClusterFlags, command: &Command) -> Result<StorageFlags, Failure> {
    let names: Vec<&str> = match command {
        Command::Volumes(volumes) => volumes.backups.iter().map(String::as_str).collect(),
        command => command.backup().into_iter().collect(),
    };
    let mut found: Option<(&str, StorageFlags)> = None;
    for name in names {
        let storage = download::place(cluster, &cluster.namespace, name)
            .await?
            .storage;
        match &found {
            Some((other, place)) if *place != storage => {
                return Err(Failure::new(
                    Exit::Usage,
                    format!("backups {other} and {name} are in different locations"),
                )
                .hint("ask for those of one location at a time"));
            }
            Some(_) => {}
            None => found = Some((name, storage)),
        }
    }
    let nothing = || Failure::new(Exit::Usage, "which backup?");
    found.map(|(_, storage)| storage).ok_or_else(nothing)
}

/// Standard output, written on a thread that may block: Ctrl-C is heard also when nobody reads.
fn stdout() -> io::Result<File> {
    #[cfg(unix)]
    let output = std::os::fd::AsFd::as_fd(&io::stdout()).try_clone_to_owned()?;
    #[cfg(windows)]
    let output = std::os::windows::io::AsHandle::as_handle(&io::stdout()).try_clone_to_owned()?;
    Ok(File::from_std(output.into()))
}

fn interrupted() -> Exit {
    eprintln!("interrupted: nothing was changed");
    Exit::Interrupted
}

/// How printing came to its end.
#[derive(Debug)]
pub enum Printed {
    /// All there is.
    All(Ended),
    /// Whoever read has seen enough.
    Cut,
    /// By the user.
    Interrupted,
}

/// Runs `ark-job` in a pod, and passes on what it prints. Nothing of the pod is left then, whatever happens.
///
/// # Errors
/// When that could not be done; how `ark-job` ended is a result.
pub async fn by_pod(
    connection: &Connection,
    asked: &Args,
    surroundings: &Surroundings,
    mut interrupt: Pin<&mut impl Future<Output = ()>>,
    to: &mut (impl AsyncWrite + Unpin),
) -> Result<Printed, Failure> {
    let mut args = asked.clone();
    let name = render::subject(&asked.command);
    let about = match &asked.command {
        Command::Expire(_) | Command::List(_) => About::Location(&name),
        Command::Volumes(_) => match asked.command.backup() {
            Some(backup) => About::Backup(backup),
            None => About::Location(&name),
        },
        _ => About::Backup(&name),
    };
    let subject = Subject {
        namespace: &asked.namespace,
        about,
        storage: asked.command.storage(),
    };
    // With standing rights they are there, and it waits for nothing.
    wait_for_rights(&mut args);
    let purpose = match args.command {
        Command::Restore(_) => Purpose::Plan(&args),
        Command::Expire(_) => Purpose::ExpirePlan,
        Command::Volumes(_) => Purpose::Volumes,
        _ => Purpose::Read,
    };
    // Asked once before there is anything to be left behind: from now on, Ctrl-C is told to us.
    if futures::poll!(interrupt.as_mut()).is_ready() {
        return Ok(Printed::Interrupted);
    }
    let pod = HeldPod::create(connection, subject, purpose, &surroundings.nonce).await?;
    let display = Display::new(about.kind(), about.name(), surroundings.terminal);
    let printing = async {
        let started = pod.started(&display).await?;
        // Bar and text would be mixed up.
        display.end();
        let ended = started
            .execute(&args, to, SILENT_PLANNING, &mut |_| {})
            .await?;
        Ok(match ended {
            Some(ended) => Printed::All(ended),
            None => Printed::Cut,
        })
    };
    let result = tokio::select! {
        result = printing => result,
        () = interrupt.as_mut() => Ok(Printed::Interrupted),
    };
    display.end();
    pod.remove().await;
    result
}

/// What an end means here. Of a comparison, code 1 is a result.
fn outcome(command: &Command, ended: Ended) -> Result<Exit, Failure> {
    for warning in &ended.warnings {
        eprintln!("warning: {warning}");
    }
    let differs = matches!(command, Command::Diff(_)) && ended.code == Some(1);
    match ended.failure {
        Some(_) if differs => Ok(Exit::Different),
        Some(failure) => Err(failure),
        None => Ok(Exit::Done),
    }
}

/// The exit code when something was printed, and nobody wanted the rest.
fn found_something(command: &Command) -> Exit {
    match command {
        Command::Diff(_) => Exit::Different,
        _ => Exit::Done,
    }
}

/// Runs it in this process, which prints by itself.
///
/// # Errors
/// As `ark-job` fails.
pub async fn here(
    client: Client,
    args: Args,
    surroundings: &Surroundings,
    interrupt: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    local::ask(&client).await?;
    let environment = local::environment(surroundings);
    ended_here(run_operation(args, environment, client, interrupt).await)
}

fn ended_here(outcome: Outcome) -> Result<Exit, Failure> {
    let Outcome {
        exit,
        message,
        hint,
    } = outcome;
    match exit {
        Exit::Done | Exit::Different => Ok(exit),
        exit => Err(Failure::new(exit, message).maybe_hint(hint)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ark_job::args::{DiffArgs, ShowArgs, ShowFormat, StorageFlags};

    #[test]
    fn a_table_of_ark_job_does_not_wrap() {
        let text = "NAME    ORIGIN   PHASE       STARTED                EXPIRES   ERROR\n\
                    first   ark      Completed   2026-11-26T13:36:02Z   never\n\
                    b       -        -           -                      -         no such key, and more of it\n";
        assert_eq!(narrowed(text, 100), text);
        assert_eq!(
            narrowed(text, 60),
            "NAME    PHASE       STARTED                ERROR\n\
             first   Completed   2026-11-26T13:36:02Z   -\n\
             b       -           -                      no such key, and…\n"
        );
        let other =
            "what is no table, and is wider than the terminal is\nand so on and so on and so on\n";
        assert_eq!(narrowed(other, 20), other);
    }

    fn ended(code: i32, exit: Exit) -> Ended {
        Ended {
            code: Some(code),
            failure: (code != 0).then(|| Failure::new(exit, "it says")),
            warnings: Vec::new(),
        }
    }

    fn diff() -> Command {
        Command::Diff(DiffArgs {
            backup: "a".into(),
            other: None,
            storage: StorageFlags::default(),
            select: Default::default(),
            all_fields: false,
        })
    }

    fn show() -> Command {
        Command::Show(ShowArgs {
            backup: "a".into(),
            object: "n/pods/p".into(),
            storage: StorageFlags::default(),
            all_fields: false,
            output: ShowFormat::Yaml,
        })
    }

    #[test]
    fn a_difference_is_no_failure_and_a_failure_is_above_one() {
        assert_eq!(
            outcome(&diff(), ended(1, Exit::Failed)).unwrap(),
            Exit::Different
        );
        assert_eq!(outcome(&diff(), ended(0, Exit::Done)).unwrap(), Exit::Done);
        // Killed: it has not said that there are differences.
        let killed = outcome(&diff(), ended(137, Exit::Failed)).unwrap_err();
        assert_eq!(above_one(killed).exit().code(), 2);
        let damaged = outcome(&diff(), ended(5, Exit::Integrity)).unwrap_err();
        assert_eq!(above_one(damaged).exit().code(), 5);
        let failed = outcome(&show(), ended(1, Exit::Failed)).unwrap_err();
        assert_eq!(failed.exit(), Exit::Failed);
    }
}
