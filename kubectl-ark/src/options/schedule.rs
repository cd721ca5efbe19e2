//! `schedule …`: what was typed, checked. What Kubernetes would refuse, or would take and never run, is refused here.

use super::{check_choice, duration, job_options, place, printing, seconds, to_second, usage};
use crate::Surroundings;
use crate::cli::{
    CreateFormat, DescribeArgs, DryRun, GetArgs, ScheduleCommand, ScheduleCreateArgs,
    ScheduleRunArgs, SomeSchedules,
};
use crate::cron_job::Timing;
use crate::output::Printing;
use crate::render::JobOptions;
use crate::schedule::times::{self, SHOWN};
use ark_job::args::{self, Args, BackupArgs, TickFlags};
use ark_job::cron::{self, Cron, CronError};
use ark_job::error::{Failure, chain};
use ark_job::schedule::{backup_name, check_name};
use jiff::Zoned;
use jiff::tz::TimeZone;

/// The CronJob controller looks every ten seconds: what may start less late may never start.
const LEAST_DEADLINE: i64 = 10;
/// What Ark calls CronJobs of its own.
const RESERVED: [&str; 2] = ["ark-expire", "ark-sync"];

/// What to do with schedules.
#[derive(Clone, Debug)]
pub enum Options {
    /// Make one.
    Create(Box<CreateOptions>),
    /// List them.
    Get(GetOptions),
    /// Show them in full.
    Describe(Chosen),
    /// Make no backups for now.
    Pause(Chosen),
    /// Go on.
    Unpause(Chosen),
    /// Delete them.
    Delete(Chosen),
    /// Make a backup now.
    Run(RunOptions),
}

/// A schedule to make.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    /// Its name, and that of its CronJob.
    pub name: String,
    /// What the CronJob's Jobs are told.
    pub repeated: Args,
    /// What the first Job is told, which is made at once.
    pub first: Args,
    /// When the CronJob makes them, and whether it does.
    pub timing: Timing,
    /// The Jobs.
    pub job: JobOptions,
    /// The next times, when it is not paused.
    pub next: Vec<Zoned>,
    /// Wait for the first backup.
    pub wait: bool,
    /// Only print.
    pub dry_run: bool,
    /// How to print.
    pub output: Option<CreateFormat>,
}

/// What to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetOptions {
    /// Which.
    pub chosen: Chosen,
    /// How to print.
    pub printing: Printing,
}

/// Schedules, restores or locations, by name or label; all without either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Ark's namespace.
    pub namespace: String,
    /// These only.
    pub names: Vec<String>,
    /// Those with these labels only.
    pub selector: Option<String>,
}

/// A backup to make now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOptions {
    /// Ark's namespace.
    pub namespace: String,
    /// The schedules.
    pub names: Vec<String>,
    /// Wait for the backups.
    pub wait: bool,
    /// How to print.
    pub output: Option<CreateFormat>,
}

/// Checks what was typed.
///
/// # Errors
/// [`ark_job::exit::Exit::Usage`], with what is wrong.
pub fn resolve(
    namespace: &str,
    command: ScheduleCommand,
    surroundings: &Surroundings,
) -> Result<Options, Failure> {
    let some = |SomeSchedules {
                    names,
                    selector,
                    // Without names and selector it is all of them: clap asks for one of the three.
                    all: _,
                    yes: _,
                }| chosen(namespace, names, selector);
    Ok(match command {
        ScheduleCommand::Create(args) => {
            Options::Create(Box::new(create(namespace, *args, surroundings)?))
        }
        ScheduleCommand::Get(args) => Options::Get(get(namespace, args)?),
        ScheduleCommand::Describe(DescribeArgs { names }) => {
            Options::Describe(chosen(namespace, names, None)?)
        }
        ScheduleCommand::Pause(args) => Options::Pause(some(args)?),
        ScheduleCommand::Unpause(args) => Options::Unpause(some(args)?),
        ScheduleCommand::Delete(args) => Options::Delete(some(args)?),
        ScheduleCommand::Run(args) => {
            let ScheduleRunArgs {
                mut names,
                wait,
                output,
            } = args;
            for name in &names {
                check_name(name).map_err(usage)?;
            }
            // Each once, in the order in which they were given.
            let mut known = std::collections::BTreeSet::new();
            names.retain(|name| known.insert(name.clone()));
            Options::Run(RunOptions {
                namespace: namespace.to_owned(),
                names,
                wait,
                output,
            })
        }
    })
}

/// What to list.
///
/// # Errors
/// When a name or the selector is none.
pub fn get(namespace: &str, args: GetArgs) -> Result<GetOptions, Failure> {
    let printing = printing(&args)?;
    let GetArgs {
        names, selector, ..
    } = args;
    Ok(GetOptions {
        chosen: chosen(namespace, names, selector)?,
        printing,
    })
}

/// Which are meant.
///
/// # Errors
/// When a name or the selector is none.
pub fn chosen(
    namespace: &str,
    names: Vec<String>,
    selector: Option<String>,
) -> Result<Chosen, Failure> {
    check_choice(&names, selector.as_deref())?;
    Ok(Chosen {
        namespace: namespace.to_owned(),
        names,
        selector,
    })
}

fn create(
    namespace: &str,
    typed: ScheduleCreateArgs,
    surroundings: &Surroundings,
) -> Result<CreateOptions, Failure> {
    let ScheduleCreateArgs {
        name,
        schedule,
        time_zone,
        keep_last,
        paused,
        starting_deadline,
        storage,
        backup,
        exit,
        dry_run,
        wait,
        output,
        ttl_after_finished,
        deadline,
    } = typed;
    check_name(&name).map_err(usage)?;
    refuse_reserved(&name)?;
    if paused && wait {
        return Err(usage(
            "--wait beside --paused: a paused schedule makes no first backup to wait for".into(),
        ));
    }
    let zone = match time_zone.as_deref().map(cron::time_zone) {
        None => TimeZone::UTC,
        Some(zone) => zone.map_err(|why| usage(format!("--time-zone: {why}")))?,
    };
    let cron: Cron = schedule.parse().map_err(|error: CronError| {
        let hint = error.hint().map(str::to_owned);
        usage(format!("--schedule: {}", chain(&error))).maybe_hint(hint)
    })?;
    let now = to_second(surroundings.now);
    let from = now.to_zoned(zone);
    if cron.next(&from).is_none() {
        return Err(usage(format!(
            "--schedule: {schedule:?} never comes: no month has such a day"
        )));
    }
    let late = i64::from(seconds("--starting-deadline", &starting_deadline)?);
    if late < LEAST_DEADLINE {
        return Err(usage(format!(
            "--starting-deadline: {starting_deadline} is too short: Kubernetes looks every {LEAST_DEADLINE} seconds whether \
             a Job is due, and would leave backups out"
        )));
    }
    let timing = Timing {
        starting_deadline: late + times::distance(&schedule, &cron, &from),
        schedule,
        time_zone,
        suspend: paused,
    };
    let repeated = BackupArgs {
        name: None,
        tick: TickFlags {
            schedule: Some(name.clone()),
            scheduled: None,
            keep_last: Some(keep_last),
        },
        storage: place(storage, false, surroundings)?,
        backup: duration::of_backup(backup)?,
        exit,
    };
    let mut first = repeated.clone();
    first.tick.scheduled = Some(now);
    // Everything that is the same in each of its backups is checked with the first.
    ark_job::backup::Options::resolve(&first)?;
    let args = |backup| Args {
        namespace: namespace.to_owned(),
        command: args::Command::Backup(backup),
    };
    let next = match paused {
        true => Vec::new(),
        false => times::following(&cron, from, SHOWN),
    };
    Ok(CreateOptions {
        name,
        repeated: args(repeated),
        first: args(first),
        timing,
        job: job_options(&ttl_after_finished, &deadline)?,
        next,
        wait,
        dry_run: dry_run == DryRun::Client,
        output,
    })
}

fn refuse_reserved(name: &str) -> Result<(), Failure> {
    for reserved in RESERVED {
        if name == reserved || name.starts_with(&format!("{reserved}-")) {
            return Err(usage(format!(
                "{name:?} cannot be the name of a schedule: Ark's own CronJobs are called {reserved}-…"
            )));
        }
    }
    Ok(())
}

impl CreateOptions {
    /// What the first backup is called.
    pub fn first_backup(&self) -> String {
        match &self.first.command {
            args::Command::Backup(backup) => backup.known_name().unwrap_or_default(),
            _ => backup_name(&self.name, jiff::Timestamp::UNIX_EPOCH),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::Surroundings;
    use crate::cli::Cli;
    use crate::options::{Plan, resolve};
    use ark_job::error::Failure;
    use ark_job::exit::Exit;
    use clap::Parser;

    use super::{CreateOptions, Options};

    fn resolved(line: &str, more: &[&str]) -> Result<Options, Failure> {
        let surroundings = Surroundings {
            now: "2026-11-23T20:15:01.9Z".parse().unwrap(),
            home: None,
            temporary: "/tmp".into(),
            nonce: "n".into(),
            terminal: false,
            input: false,
            width: None,
        };
        let argv = ["kubectl-ark"]
            .into_iter()
            .chain(line.split(' '))
            .chain(more.iter().copied());
        let Cli { cluster, command } = Cli::try_parse_from(argv).unwrap();
        match resolve(&cluster, command, &surroundings)? {
            Plan::Schedule(options) => Ok(*options),
            other => panic!("{other:?}"),
        }
    }

    fn created(cron: &str, more: &[&str]) -> Result<CreateOptions, Failure> {
        let more: Vec<&str> = ["--schedule", cron].iter().chain(more).copied().collect();
        match resolved("schedule create nightly", &more)? {
            Options::Create(options) => Ok(*options),
            other => panic!("{other:?}"),
        }
    }

    fn refused(cron: &str, more: &[&str], message: &str) {
        let failure = created(cron, more).unwrap_err();
        assert_eq!(failure.exit(), Exit::Usage);
        assert!(failure.message().contains(message), "{}", failure.message());
    }

    #[test]
    fn both_jobs_say_where_they_go_and_only_the_first_for_which_time() {
        let options = created("0 7 * * *", &["--ttl", "48h", "--labels", "a=b"]).unwrap();
        assert_eq!(
            options.repeated.to_argv().join(" "),
            "backup --schedule=nightly --keep-last=1 --location=default --ttl=48h --labels=a=b --namespace=heptio-ark"
        );
        assert_eq!(
            options.first.to_argv().join(" "),
            "backup --schedule=nightly --scheduled=2026-11-23T20:15:01Z --keep-last=1 --location=default --ttl=48h \
             --labels=a=b --namespace=heptio-ark"
        );
        assert_eq!(options.first_backup(), "nightly-20261123201501");
        assert_eq!(options.timing.starting_deadline, 3600);
    }

    #[test]
    fn the_next_times_are_in_the_zone() {
        let next = |more: &[&str]| {
            let options = created("0 7 * * *", more).unwrap();
            let times = options.next.iter();
            times
                .map(|at| at.strftime("%F %T %Z").to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            next(&["--time-zone", "Europe/Berlin"]),
            [
                "2026-11-24 07:00:00 CET",
                "2026-11-25 07:00:00 CET",
                "2026-11-26 07:00:00 CET"
            ]
        );
        assert_eq!(next(&[])[0], "2026-11-24 07:00:00 UTC");
        assert_eq!(next(&["--paused"]), [""; 0]);
    }

    #[test]
    fn an_interval_is_due_though_it_is_longer_than_the_deadline() {
        // The controller counts it from (now - startingDeadlineSeconds), or the last time if that is later: with less
        // than the interval, it is never due.
        let options = created("@every 6h", &["--starting-deadline", "10m"]).unwrap();
        assert_eq!(options.timing.starting_deadline, 6 * 3600 + 600);
    }

    #[test]
    fn what_would_never_run_is_refused() {
        refused("0 0 30 2 *", &[], "never comes");
        refused("0 25 * * *", &[], "--schedule: ");
        refused(
            "@daily",
            &["--starting-deadline", "9s"],
            "--starting-deadline",
        );
        refused(
            "@daily",
            &["--starting-deadline", "soon"],
            "--starting-deadline",
        );
        refused("@daily", &["--time-zone", "Europe/Atlantis"], "Atlantis");
        refused(
            "@daily",
            &["--time-zone", "europe/berlin"],
            "\"Europe/Berlin\" is",
        );
        refused("@daily", &["--time-zone", "Local"], "--time-zone");
        refused("@daily", &["--paused", "--wait"], "--wait");
        refused("@daily", &["--ttl", "soon"], "--ttl");
        created("@daily", &["--starting-deadline", "10s"]).unwrap();
    }

    #[test]
    fn what_other_crons_take_is_refused_with_the_way_to_say_it() {
        for (cron, way) in [
            ("TZ=UTC 0 7 * * *", "--time-zone"),
            ("0 0 7 * * *", "the first field is the minute"),
        ] {
            let failure = created(cron, &[]).unwrap_err();
            let hint = failure.next_step().unwrap_or_default();
            assert!(hint.contains(way), "{cron}: {hint}");
        }
    }

    #[test]
    fn names_are_short_and_not_arks_own() {
        let refused = |name: &str, message: &str| {
            let line = format!("schedule create {name} --schedule @daily");
            let failure = resolved(&line, &[]).unwrap_err();
            assert_eq!(failure.exit(), Exit::Usage);
            assert!(failure.message().contains(message), "{}", failure.message());
        };
        refused(&"x".repeat(49), "at most 48");
        refused("ark-expire-default", "ark-expire-");
        refused("ark-sync", "ark-sync-");
        refused("Nightly", "'N'");
        let longest = format!("schedule create {} --schedule @daily", "x".repeat(48));
        resolved(&longest, &[]).unwrap();
        resolved("schedule create ark-synced --schedule @daily", &[]).unwrap();
    }
}
