//! `backup delete`, `backup undelete`, `expire`, `sync` and `backup get` of what is stored: what was typed, checked.

use super::schedule::{self, Chosen};
use super::{Plan, PrintOptions, check_choice, duration, job_options, place, to_second, usage};
use crate::Surroundings;
use crate::cli::{
    BackupDeleteArgs, BackupUndeleteArgs, CreateFormat, DryRun, ExpireArgs, GetArgs, LifeFlags,
    PlaceFlags, RestoreDryRun, RunFlags, SomeRestores, SourceFlags, SyncArgs,
};
use crate::render::JobOptions;
use ark_job::args::{self, Args, PlanFormat, StorageFlags};
use ark_job::error::Failure;
use jiff::Timestamp;
use std::time::Duration;

/// How an operation of housekeeping is run.
#[derive(Clone, Debug, PartialEq)]
pub struct How {
    /// When it was asked for, which tells its Job's name from that of another.
    pub requested: Timestamp,
    /// The Job.
    pub job: JobOptions,
    /// Wait for its end.
    pub wait: bool,
    /// Only print.
    pub dry_run: bool,
    /// How to print.
    pub output: Option<CreateFormat>,
    /// Run it here.
    pub local: bool,
}

/// An operation of housekeeping: a Job that keeps no record.
#[derive(Clone, Debug, PartialEq)]
pub struct RunOptions {
    /// What `ark-job` is told.
    pub args: Args,
    /// How it is run.
    pub how: How,
}

/// Which backups to delete, or to take back.
#[derive(Clone, Debug, PartialEq)]
pub struct DeleteOptions {
    /// Ark's namespace.
    pub namespace: String,
    /// Delete, or take back.
    pub verb: Verb,
    /// Which.
    pub which: Which,
    /// Where they are; without, where their resources say.
    pub storage: Option<StorageFlags>,
    /// Show what goes, and ask.
    pub ask: bool,
    /// How it is run.
    pub how: How,
}

/// Which restores to delete.
#[derive(Clone, Debug, PartialEq)]
pub struct DeleteRestoresOptions {
    /// Which.
    pub chosen: Chosen,
    /// Where their backups are; without, where their resources say.
    pub storage: Option<StorageFlags>,
    /// Show what goes, and ask.
    pub ask: bool,
    /// How it is run.
    pub how: How,
}

/// What is to become of backups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// They go.
    Delete,
    /// They come back.
    Undelete,
}

/// Which backups are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// These, whoever made them.
    Names(Vec<String>),
    /// Those of this cluster's that
    Selected {
        /// have these labels, if any are asked for, and
        selector: Option<String>,
        /// have begun this long ago, if that is asked for.
        older_than: Option<Duration>,
    },
}

/// `backup delete`
pub fn delete(
    namespace: &str,
    args: BackupDeleteArgs,
    surroundings: &Surroundings,
) -> Result<DeleteOptions, Failure> {
    let BackupDeleteArgs {
        names,
        selector,
        all: _,
        older_than,
        yes,
        place: where_from,
        run,
    } = args;
    let which = if names.is_empty() {
        check_choice(&[], selector.as_deref())?;
        let older_than = older_than
            .map(|text| duration::parse("--older-than", &text))
            .transpose()?;
        Which::Selected {
            selector,
            older_than,
        }
    } else {
        Which::Names(checked(names)?)
    };
    let how = how(run, where_from.local, surroundings)?;
    let ask = !yes && !how.dry_run;
    refuse_without_consent(ask, "backups", surroundings)?;
    Ok(DeleteOptions {
        namespace: namespace.to_owned(),
        verb: Verb::Delete,
        which,
        storage: placed(where_from, surroundings)?,
        ask,
        how,
    })
}

/// `restore delete`
pub fn delete_restores(
    namespace: &str,
    args: SomeRestores,
    surroundings: &Surroundings,
) -> Result<DeleteRestoresOptions, Failure> {
    let SomeRestores {
        names,
        selector,
        // Without names and selector it is all of them: clap asks for one of the three.
        all: _,
        yes,
        place: where_from,
        run,
    } = args;
    let how = how(run, where_from.local, surroundings)?;
    let ask = !yes && !how.dry_run;
    let chosen = schedule::chosen(namespace, names, selector)?;
    refuse_without_consent(ask, "restores", surroundings)?;
    Ok(DeleteRestoresOptions {
        chosen,
        storage: placed(where_from, surroundings)?,
        ask,
        how,
    })
}

fn refuse_without_consent(
    ask: bool,
    what: &str,
    surroundings: &Surroundings,
) -> Result<(), Failure> {
    if !ask || surroundings.input {
        return Ok(());
    }
    let text = format!("deleting {what} needs consent, and there is no terminal to ask on");
    Err(usage(text).hint(
        "--yes deletes without being asked; --dry-run=client -o yaml shows which would be deleted",
    ))
}

/// `backup undelete`
pub fn undelete(
    namespace: &str,
    args: BackupUndeleteArgs,
    surroundings: &Surroundings,
) -> Result<Plan, Failure> {
    let BackupUndeleteArgs {
        names,
        place: where_from,
        run,
    } = args;
    Ok(Plan::Delete(Box::new(DeleteOptions {
        namespace: namespace.to_owned(),
        verb: Verb::Undelete,
        which: Which::Names(checked(names)?),
        how: how(run, where_from.local, surroundings)?,
        storage: placed(where_from, surroundings)?,
        ask: false,
    })))
}

/// `expire`
pub fn expire(
    namespace: &str,
    args: ExpireArgs,
    surroundings: &Surroundings,
) -> Result<Plan, Failure> {
    let ExpireArgs {
        expire,
        exit,
        dry_run,
        output,
        wait,
        life,
        place: PlaceFlags { storage, local },
    } = args;
    let output = output.as_deref();
    let plans = dry_run == RestoreDryRun::Server;
    let plan_format = match output {
        None | Some("text") => PlanFormat::Text,
        Some("json") => PlanFormat::Json,
        Some(_) if !plans => PlanFormat::Text,
        Some(other) => {
            return Err(usage(format!(
                "--output {other}: the plan of --dry-run is printed as text, or with -o json"
            )));
        }
    };
    let created = match output {
        None => None,
        Some("yaml") => Some(CreateFormat::Yaml),
        Some("json") => Some(CreateFormat::Json),
        Some("name") => Some(CreateFormat::Name),
        Some(_) if plans => None,
        Some(other) => {
            return Err(usage(format!("--output {other}: only a plan is text"))
                .hint("--dry-run prints the plan"));
        }
    };
    if local && !plans && (created.is_some() || dry_run == RestoreDryRun::Client) {
        return Err(usage(
            "--dry-run=client and --output print a Job, and --local needs none".into(),
        )
        .hint("--dry-run shows what would be deleted"));
    }
    let mut expire = expire;
    expire.grace = duration::in_go("--grace", expire.grace)?;
    let arguments = args::ExpireArgs {
        storage: place(storage, local, surroundings)?,
        expire,
        dry_run: plans,
        output: if plans { plan_format } else { PlanFormat::Text },
        exit,
    };
    ark_job::expire::Options::resolve(&arguments)?;
    let args = Args {
        namespace: namespace.to_owned(),
        command: args::Command::Expire(arguments),
    };
    if plans {
        return Ok(Plan::of_print(PrintOptions {
            args,
            schedule: None,
            placed: true,
            local,
        }));
    }
    let run = RunFlags {
        wait,
        dry_run: match dry_run {
            RestoreDryRun::Client => DryRun::Client,
            RestoreDryRun::None | RestoreDryRun::Server => DryRun::None,
        },
        output: created,
        life,
    };
    Ok(Plan::Housekeep(Box::new(RunOptions {
        args,
        how: how(run, local, surroundings)?,
    })))
}

/// `sync`
pub fn sync(namespace: &str, args: SyncArgs, surroundings: &Surroundings) -> Result<Plan, Failure> {
    let SyncArgs {
        force,
        exit,
        place: PlaceFlags { storage, local },
        run,
    } = args;
    Ok(Plan::Housekeep(Box::new(RunOptions {
        args: Args {
            namespace: namespace.to_owned(),
            command: args::Command::Sync(args::SyncArgs {
                storage: place(storage, local, surroundings)?,
                force,
                exit,
            }),
        },
        how: how(run, local, surroundings)?,
    })))
}

/// `backup get` of what is stored
pub fn list(
    namespace: &str,
    args: &GetArgs,
    show_deleted: bool,
    source: SourceFlags,
    surroundings: &Surroundings,
) -> Result<PrintOptions, Failure> {
    let GetArgs {
        names,
        selector,
        output,
        no_headers,
        sort_by,
        watch,
        watch_only,
    } = args;
    if !names.is_empty() || selector.is_some() {
        return Err(
            usage("what is stored is listed as a whole, not by name or label".into())
                .hint("`kubectl ark backup describe NAME` with the same flags shows one"),
        );
    }
    let only_of_resources = [
        (*no_headers, "--no-headers"),
        (sort_by.is_some(), "--sort-by"),
        (*watch, "--watch"),
        (*watch_only, "--watch-only"),
    ];
    if let Some((_, flag)) = only_of_resources.iter().find(|(given, _)| *given) {
        return Err(usage(format!(
            "{flag}: it is for Backup resources; of what is stored, -o json is for programs"
        )));
    }
    let output = match output.as_deref() {
        None | Some("table") => PlanFormat::Text,
        Some("json") => PlanFormat::Json,
        Some(_) => {
            return Err(usage(
                "--output: what is stored is printed as a table, or with -o json".into(),
            ));
        }
    };
    let SourceFlags { storage, local } = source;
    Ok(PrintOptions {
        args: Args {
            namespace: namespace.to_owned(),
            command: args::Command::List(args::ListArgs {
                storage: place(storage, local, surroundings)?,
                deleted: show_deleted,
                output,
            }),
        },
        schedule: None,
        placed: true,
        local,
    })
}

/// What is deleted is named by its whole name: a guess could be another backup.
fn checked(names: Vec<String>) -> Result<Vec<String>, Failure> {
    if let Some(guess) = names.iter().find(|name| name.contains('/')) {
        return Err(usage(format!(
            "{guess:?} is no name: backups are deleted by their whole names"
        ))
        .hint("`kubectl ark backup get` lists them"));
    }
    check_choice(&names, None)?;
    let mut once: Vec<String> = Vec::with_capacity(names.len());
    for name in names {
        if !once.contains(&name) {
            once.push(name);
        }
    }
    Ok(once)
}

/// Where that was said to be.
fn placed(flags: PlaceFlags, surroundings: &Surroundings) -> Result<Option<StorageFlags>, Failure> {
    if flags == PlaceFlags::default() {
        return Ok(None);
    }
    let PlaceFlags { storage, local } = flags;
    place(storage, local, surroundings).map(Some)
}

fn how(run: RunFlags, local: bool, surroundings: &Surroundings) -> Result<How, Failure> {
    let RunFlags {
        wait,
        dry_run,
        output,
        life: LifeFlags {
            ttl_after_finished,
            deadline,
        },
    } = run;
    Ok(How {
        requested: to_second(surroundings.now),
        job: job_options(&ttl_after_finished, &deadline)?,
        wait,
        dry_run: dry_run == DryRun::Client,
        output,
        local,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use ark_job::exit::Exit;
    use clap::Parser;

    fn resolved(line: &str, input: bool) -> Result<Plan, Failure> {
        let surroundings = Surroundings {
            now: "2026-11-23T20:15:01.9Z".parse().unwrap(),
            home: Some("/home/ann".into()),
            temporary: "/tmp".into(),
            nonce: "n".into(),
            terminal: false,
            input,
            width: None,
        };
        let argv = std::iter::once("kubectl-ark").chain(line.split(' '));
        let Cli { cluster, command } = Cli::try_parse_from(argv).unwrap();
        super::super::resolve(&cluster, command, &surroundings)
    }

    fn argv(line: &str) -> String {
        match resolved(line, false) {
            Ok(Plan::Housekeep(options)) => options.args.to_argv().join(" "),
            Ok(Plan::Print(options)) => options.args.to_argv().join(" "),
            other => panic!("{other:?}"),
        }
    }

    fn deletion(line: &str) -> DeleteOptions {
        match resolved(line, true) {
            Ok(Plan::Delete(options)) => *options,
            other => panic!("{other:?}"),
        }
    }

    fn usage_of(line: &str) -> String {
        let failure = resolved(line, false).unwrap_err();
        assert_eq!(failure.exit(), Exit::Usage, "{line}");
        failure.message().to_owned()
    }

    #[test]
    fn every_flag_reaches_the_job() {
        assert_eq!(
            argv(
                "expire --include-foreign --cluster-uid u --grace 48h --partial-exit-code 0 --location x"
            ),
            "expire --location=x --cluster-uid=u --include-foreign --grace=48h --partial-exit-code=0 --namespace=heptio-ark"
        );
        assert_eq!(
            argv("expire --dry-run -o json"),
            "expire --location=default --dry-run --output=json --namespace=heptio-ark"
        );
        assert_eq!(
            argv("sync --force --local"),
            "sync --storage=file:///home/ann/.kubectl-ark/backups --force --namespace=heptio-ark"
        );
        assert_eq!(
            argv("get backups --show-deleted -o json -n ark"),
            "list --location=default --deleted --output=json --namespace=ark"
        );
        assert_eq!(
            argv("backup get --storage s3://b"),
            "list --storage=s3://b --namespace=heptio-ark"
        );
    }

    #[test]
    fn without_a_terminal_deleting_needs_yes() {
        for line in [
            "backup delete a",
            "delete backups --all",
            "backup delete --older-than 1h",
        ] {
            assert!(usage_of(line).contains("consent"), "{line}");
            let restores = line.replace("backup", "restore");
            if !line.contains("older") {
                assert!(usage_of(&restores).contains("deleting restores needs consent"));
            }
            assert!(deletion(line).ask, "{line}");
            for allowed in ["--yes", "--dry-run=client"] {
                assert!(!deletion(&format!("{line} {allowed}")).ask, "{allowed}");
            }
        }
        assert!(!deletion("backup undelete a").ask);
    }

    #[test]
    fn what_is_meant_is_kept_as_it_was_typed() {
        let both = deletion("backup delete -l a=b --older-than 48h --yes");
        assert_eq!(
            both.which,
            Which::Selected {
                selector: Some("a=b".into()),
                older_than: Some(Duration::from_secs(48 * 3600)),
            }
        );
        assert_eq!(both.storage, None);
        let twice = deletion("backup delete a b a --location x --yes");
        assert_eq!(twice.which, Which::Names(vec!["a".into(), "b".into()]));
        assert_eq!(twice.storage.unwrap().location.as_deref(), Some("x"));
    }

    #[test]
    fn mistakes_are_found_before_the_first_request() {
        for (line, message) in [
            ("backup delete A --yes", "\"A\""),
            ("backup delete -l == --yes", "--selector"),
            ("backup delete --older-than soon --yes", "--older-than"),
            ("backup undelete A", "\"A\""),
            ("expire --grace x", "grace"),
            ("expire -o text", "only a plan"),
            ("expire --dry-run -o yaml", "-o json"),
            ("expire --local -o yaml", "--local"),
            ("expire --dry-run=client --local", "--local"),
            ("sync --storage http://x", "scheme"),
            ("sync --deadline x", "--deadline"),
            ("backup get a --location x", "as a whole"),
            ("backup get --location x -o yaml", "--output"),
            ("backup get --show-deleted --no-headers", "--no-headers"),
        ] {
            let said = usage_of(line);
            assert!(said.contains(message), "{line}: {said}");
        }
    }
}
