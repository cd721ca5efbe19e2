//! From what was typed to typed values: every mistake on the command line is found here, before the first request.

pub mod backup_name;
pub mod doctor;
pub mod duration;
pub mod housekeeping;
pub mod install;
pub mod location;
pub mod restore_only;
pub mod schedule;
pub mod uninstall;

use crate::Surroundings;
use crate::cli::*;
use crate::noun::Noun;
use crate::output::{Format, Printing, SortBy, Watch};
use crate::render::JobOptions;
use ark_job::api::DEFAULT_LOCATION;
use ark_job::args::{self, Args, BackupArgs, ExitFlags, RestoreArgs, StorageFlags, TickFlags};
use ark_job::error::{Failure, chain};
use ark_job::exit::Exit;
use ark_job::identity::{check_name, timestamp};
use ark_job::restore::selection::Asked;
use ark_job::store::Location;
use jiff::Timestamp;
use std::path::{Path, PathBuf};

/// How long a restore waits for its rights: the plugin writes them right after the Job.
const WAIT_FOR_RIGHTS: &str = "5m";

/// What to do, checked.
#[derive(Clone, Debug)]
pub enum Plan {
    /// `install`
    Install(Box<install::Options>),
    /// `backup create`, `restore create`
    Create(Box<CreateOptions>),
    /// `backup get`, `restore get`
    Get(GetOptions),
    /// `get all`
    GetAll(Box<GetAllOptions>),
    /// `restore delete`
    DeleteRestores(Box<housekeeping::DeleteRestoresOptions>),
    /// `backup describe`, `restore describe`
    Describe(DescribeOptions),
    /// `backup logs`, `restore logs`
    Logs(LogsOptions),
    /// `backup download`
    Download(DownloadOptions),
    /// `restore plan`, `restore create --dry-run=server`, `diff`, `backup show`, `expire --dry-run`, `volumes`, what is stored
    Print(Box<PrintOptions>),
    /// `schedule …`
    Schedule(Box<schedule::Options>),
    /// `backup delete`, `backup undelete`
    Delete(Box<housekeeping::DeleteOptions>),
    /// `expire`, `sync`
    Housekeep(Box<housekeeping::RunOptions>),
    /// `restore-only …`
    RestoreOnly(restore_only::Options),
    /// `location …`
    Location(Box<location::Options>),
    /// `status`
    Status(StatusArgs),
    /// `doctor`
    Doctor(Box<doctor::DoctorOptions>),
    /// `uninstall`
    Uninstall(uninstall::Options),
    /// `completion`
    Completion(CompletionArgs),
    /// `version`
    Version(VersionOptions),
}

/// An operation to start.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateOptions {
    /// What `ark-job` is told. Of a restore, `wait_for_rights` is set when the rights are known.
    pub args: Args,
    /// Which newest backup is to be restored, before `args` are complete.
    pub schedule: Option<Newest>,
    /// Show what would be done, and ask.
    pub ask: bool,
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
    /// Directory of Ark's own to make for that, when no other storage was named.
    pub local_directory: Option<PathBuf>,
}

/// What `ark-job` is to print: the plan of a restore or of expiry, a difference, an object, snapshots, what is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct PrintOptions {
    /// What it is told.
    pub args: Args,
    /// Which newest backup is meant, before `args` are complete.
    pub schedule: Option<Newest>,
    /// Storage was named; else it is where the resources of the backups say.
    pub placed: bool,
    /// Run it here.
    pub local: bool,
}

/// The newest backup, to be looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newest {
    /// Of this schedule, not of all.
    pub schedule: Option<String>,
    /// Also a backup from which something is missing.
    pub allow_partially_failed: bool,
}

impl Newest {
    /// Writes the backup that was found into the arguments of a restore.
    pub fn fill(&self, args: &mut Args, backup: &str) {
        if let args::Command::Restore(restore) = &mut args.command {
            let requested = restore.requested.unwrap_or_default();
            restore.backup = backup.to_owned();
            restore
                .name
                .get_or_insert_with(|| restore_name(backup, requested));
        }
    }
}

/// What to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetOptions {
    /// Of what.
    pub noun: Noun,
    /// Ark's namespace.
    pub namespace: String,
    /// These only.
    pub names: Vec<String>,
    /// Those with these labels only.
    pub selector: Option<String>,
    /// How to print.
    pub printing: Printing,
}

/// What to list of everything.
#[derive(Clone, Debug)]
pub struct GetAllOptions {
    /// Backups.
    pub backups: GetOptions,
    /// Restores.
    pub restores: GetOptions,
    /// Schedules.
    pub schedules: schedule::GetOptions,
    /// Storage locations.
    pub locations: schedule::GetOptions,
}

/// What to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribeOptions {
    /// Of what.
    pub noun: Noun,
    /// Ark's namespace.
    pub namespace: String,
    /// Which.
    pub names: Vec<String>,
    /// With the names of the objects inside.
    pub details: bool,
    /// And whether it can be restored in this cluster.
    pub check: bool,
    /// What is stored there, and not the record.
    pub source: Option<ReadFrom>,
}

/// Where stored files are read from, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadFrom {
    /// Name of a BackupStorageLocation, or a URL.
    pub storage: StorageFlags,
    /// By this process, not by a pod.
    pub local: bool,
}

/// What to save, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DownloadOptions {
    /// Ark's namespace.
    pub namespace: String,
    /// The backup.
    pub name: String,
    /// Where to.
    pub target: Target,
    /// Overwrite it.
    pub force: bool,
    /// Where from; without, where the record says.
    pub source: Option<ReadFrom>,
}

/// Where a backup is saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// It is printed.
    StandardOutput,
    /// In this file.
    File(PathBuf),
    /// In a file that is called after it.
    Named,
}

/// Whose log to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogsOptions {
    /// Of what.
    pub noun: Noun,
    /// Ark's namespace.
    pub namespace: String,
    /// Which.
    pub name: String,
    /// Go on.
    pub follow: bool,
    /// What is stored there, and not what a pod says.
    pub source: Option<ReadFrom>,
}

/// Which versions to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionOptions {
    /// Ark's namespace.
    pub namespace: String,
    /// Ask no cluster.
    pub client_only: bool,
    /// How to print.
    pub output: Option<VersionFormat>,
}

/// Checks and completes what was typed.
///
/// # Errors
/// [`Exit::Usage`], with what is wrong.
pub fn resolve(
    cluster: &ClusterFlags,
    command: Command,
    surroundings: &Surroundings,
) -> Result<Plan, Failure> {
    let namespace = cluster.namespace.clone();
    check_label("namespace", &namespace)?;
    let create = |typed: Create| {
        create(&namespace, typed, surroundings).map(|options| Plan::Create(Box::new(options)))
    };
    let backup = |create_args: BackupCreateArgs| create(Create::Backup(create_args));
    let restore = |create_args: RestoreCreateArgs| create(Create::Restore(create_args));
    let schedule = |command| {
        schedule::resolve(&namespace, command, surroundings)
            .map(|options| Plan::Schedule(Box::new(options)))
    };
    let location = |command| {
        location::resolve(&namespace, command).map(|options| Plan::Location(Box::new(options)))
    };
    let get = |noun, args| Ok(Plan::Get(get(&namespace, noun, args)?));
    let describe = |noun, args| {
        let BackupDescribeArgs {
            names,
            details,
            check,
            source,
        } = args;
        for name in &names {
            check_named(noun, name)?;
        }
        Ok(Plan::Describe(DescribeOptions {
            noun,
            namespace: namespace.clone(),
            names,
            details,
            check,
            source: read_from(source, surroundings)?,
        }))
    };
    let logs = |noun, args| {
        let BackupLogsArgs {
            name,
            follow,
            source,
        } = args;
        check_named(noun, &name)?;
        Ok(Plan::Logs(LogsOptions {
            noun,
            namespace: namespace.clone(),
            name,
            follow,
            source: read_from(source, surroundings)?,
        }))
    };
    match command {
        Command::Install(args) => Ok(Plan::Install(Box::new(install::resolve(
            &namespace, *args,
        )?))),
        Command::Backup(BackupCommand::Create(args))
        | Command::Create(CreateCommand::Backup(args)) => backup(*args),
        Command::Restore(RestoreCommand::Create(args))
        | Command::Create(CreateCommand::Restore(args)) => match args.dry_run {
            RestoreDryRun::Server => {
                print(plan_of(*args)?, &namespace, surroundings).map(Plan::of_print)
            }
            RestoreDryRun::None | RestoreDryRun::Client => restore(*args),
        },
        Command::Restore(RestoreCommand::Plan(args)) => {
            check_unnamed(&args.backup)?;
            print(Print::Plan(args), &namespace, surroundings).map(Plan::of_print)
        }
        Command::Backup(BackupCommand::Show(args)) => {
            print(Print::Show(args), &namespace, surroundings).map(Plan::of_print)
        }
        Command::Diff(args) => {
            print(Print::Diff(args), &namespace, surroundings).map(Plan::of_print)
        }
        Command::Backup(BackupCommand::Get(args)) | Command::Get(GetCommand::Backups(args)) => {
            let BackupGetArgs {
                get: args,
                show_deleted,
                source,
            } = args;
            if show_deleted || source != SourceFlags::default() {
                return housekeeping::list(&namespace, &args, show_deleted, source, surroundings)
                    .map(Plan::of_print);
            }
            get(Noun::Backup, args)
        }
        Command::Backup(BackupCommand::Delete(args))
        | Command::Delete(DeleteCommand::Backup(args)) => {
            housekeeping::delete(&namespace, *args, surroundings)
                .map(|options| Plan::Delete(Box::new(options)))
        }
        Command::Backup(BackupCommand::Undelete(args)) => {
            housekeeping::undelete(&namespace, args, surroundings)
        }
        Command::Volumes(args) => {
            print(Print::Volumes(args), &namespace, surroundings).map(Plan::of_print)
        }
        Command::Expire(args) => housekeeping::expire(&namespace, *args, surroundings),
        Command::Sync(args) => housekeeping::sync(&namespace, args, surroundings),
        Command::RestoreOnly(command) => Ok(Plan::RestoreOnly(restore_only::resolve(
            &namespace, command,
        ))),
        Command::Schedule(command) => schedule(command),
        Command::Create(CreateCommand::Schedule(args)) => schedule(ScheduleCommand::Create(args)),
        Command::Get(GetCommand::Schedules(args)) => schedule(ScheduleCommand::Get(args)),
        Command::Describe(DescribeCommand::Schedule(args)) => {
            schedule(ScheduleCommand::Describe(args))
        }
        Command::Delete(DeleteCommand::Schedule(args)) => schedule(ScheduleCommand::Delete(args)),
        Command::Restore(RestoreCommand::Get(args)) | Command::Get(GetCommand::Restores(args)) => {
            get(Noun::Restore, args)
        }
        Command::Get(GetCommand::All(args)) => get_all(&namespace, args),
        Command::Restore(RestoreCommand::Delete(args))
        | Command::Delete(DeleteCommand::Restore(args)) => {
            housekeeping::delete_restores(&namespace, *args, surroundings)
                .map(|options| Plan::DeleteRestores(Box::new(options)))
        }
        Command::Get(GetCommand::Locations(args)) => location(LocationCommand::Get(args)),
        Command::Create(CreateCommand::Location(args)) => location(LocationCommand::Create(args)),
        Command::Describe(DescribeCommand::Location(args)) => {
            location(LocationCommand::Describe(args))
        }
        Command::Delete(DeleteCommand::Location(args)) => location(LocationCommand::Delete(args)),
        Command::Backup(BackupCommand::Describe(args))
        | Command::Describe(DescribeCommand::Backup(args)) => describe(Noun::Backup, args),
        Command::Restore(RestoreCommand::Describe(args))
        | Command::Describe(DescribeCommand::Restore(args)) => {
            let DescribeArgs { names } = args;
            let args = BackupDescribeArgs {
                names,
                details: false,
                check: false,
                source: SourceFlags::default(),
            };
            describe(Noun::Restore, args)
        }
        Command::Backup(BackupCommand::Logs(args)) | Command::Logs(LogsCommand::Backup(args)) => {
            logs(Noun::Backup, args)
        }
        Command::Restore(RestoreCommand::Logs(args))
        | Command::Logs(LogsCommand::Restore(args)) => {
            let LogsArgs { name, follow } = args;
            let args = BackupLogsArgs {
                name,
                follow,
                source: SourceFlags::default(),
            };
            logs(Noun::Restore, args)
        }
        Command::Backup(BackupCommand::Download(args)) => {
            download(&namespace, args, surroundings).map(Plan::Download)
        }
        Command::Location(command) => location(command),
        Command::Status(args) => Ok(Plan::Status(args)),
        Command::Doctor(args) => {
            let options = doctor::resolve(&namespace, *args, surroundings)?;
            Ok(Plan::Doctor(Box::new(options)))
        }
        Command::Uninstall(args) => {
            uninstall::resolve(&namespace, args, surroundings).map(Plan::Uninstall)
        }
        Command::Completion(args) => Ok(Plan::Completion(args)),
        Command::Version(VersionArgs { client, output }) => Ok(Plan::Version(VersionOptions {
            namespace,
            client_only: client,
            output,
        })),
    }
}

impl Plan {
    fn of_print(options: PrintOptions) -> Plan {
        Plan::Print(Box::new(options))
    }
}

enum Create {
    Backup(BackupCreateArgs),
    Restore(RestoreCreateArgs),
}

fn create(
    namespace: &str,
    typed: Create,
    surroundings: &Surroundings,
) -> Result<CreateOptions, Failure> {
    let mut ask = false;
    let (command, schedule, client_only, job, placed) = match typed {
        Create::Backup(BackupCreateArgs {
            name,
            storage,
            backup,
            exit,
            dry_run,
            job,
        }) => {
            check_name(&name).map_err(usage)?;
            if name == backup_name::LATEST {
                return Err(usage(format!(
                    "{name:?} cannot be the name of a backup: in commands, it means the newest one"
                )));
            }
            let backup = duration::of_backup(backup)?;
            let placed = storage != StorageFlags::default();
            let arguments = BackupArgs {
                name: Some(name),
                tick: TickFlags::default(),
                storage: place(storage, job.local, surroundings)?,
                backup,
                exit,
            };
            ark_job::backup::Options::resolve(&arguments)?;
            let client_only = dry_run == DryRun::Client;
            let command = args::Command::Backup(arguments);
            (command, None, client_only, job, placed)
        }
        Create::Restore(RestoreCreateArgs {
            backup,
            storage,
            restore,
            exit,
            dry_run,
            job,
        }) => {
            let requested = to_second(surroundings.now);
            let placed = storage != StorageFlags::default();
            let (backup, name, schedule) = restored_backup(backup, requested)?;
            let restore = duration::of_restore(restore)?;
            let mut arguments = RestoreArgs {
                backup,
                name,
                requested: Some(requested),
                wait_for_rights: None,
                storage: place(storage, job.local, surroundings)?,
                restore,
                dry_run: args::DryRun::None,
                output: args::PlanFormat::Text,
                exit,
            };
            let client_only = dry_run == RestoreDryRun::Client;
            if client_only && job.local {
                return Err(usage(
                    "--dry-run=client prints a Job, and --local needs none".into(),
                )
                .hint("--dry-run=server, or `kubectl ark restore plan`, shows what would be restored"));
            }
            if let Err(refused) = ark_job::restore::Options::resolve(&arguments) {
                // Consent may be what is missing: then it is asked for, or the Job that is printed needs none yet.
                arguments.restore.yes = true;
                let consent = ark_job::restore::Options::resolve(&arguments).is_ok();
                ask = consent && !client_only;
                if !consent || (ask && !surroundings.input) {
                    return Err(refused);
                }
            }
            let command = args::Command::Restore(Box::new(arguments));
            (command, schedule, client_only, job, placed)
        }
    };
    let JobFlags {
        wait,
        output,
        local,
        life: LifeFlags {
            ttl_after_finished,
            deadline,
        },
    } = job;
    Ok(CreateOptions {
        args: Args {
            namespace: namespace.to_owned(),
            command,
        },
        schedule,
        ask,
        job: job_options(&ttl_after_finished, &deadline)?,
        wait,
        dry_run: client_only,
        output,
        local,
        local_directory: match local && !placed {
            true => Some(local_directory(surroundings.home.as_deref())?),
            false => None,
        },
    })
}

fn job_options(ttl_after_finished: &str, deadline: &str) -> Result<JobOptions, Failure> {
    Ok(JobOptions {
        ttl_after_finished: match ttl_after_finished {
            "never" => None,
            text => Some(seconds("--ttl-after-finished", text)?),
        },
        deadline: Some(seconds("--deadline", deadline)?.into())
            .filter(|&seconds: &i64| seconds > 0),
    })
}

/// Checks what names one: of a backup, that may be `latest`.
fn check_named(noun: Noun, name: &str) -> Result<(), Failure> {
    match noun {
        Noun::Backup => backup_name::check(name).map_err(usage),
        Noun::Restore => check_name(name).map_err(usage),
    }
}

/// Checks what chooses among resources: their names, or their labels.
fn check_choice(names: &[String], selector: Option<&str>) -> Result<(), Failure> {
    for name in names {
        check_name(name).map_err(usage)?;
    }
    if let Some(selector) = selector {
        ark_job::selector::parse(selector).map_err(|why| usage(format!("--selector: {why}")))?;
    }
    Ok(())
}

/// The backup, the name of the restore, and which newest backup is meant. Of the newest, the name is not known yet; what was
/// typed stands for it.
///
/// Ark takes the backup as the only argument; with `--from-backup` or `--from-schedule` the argument is the restore's name.
fn restored_backup(
    typed: BackupFlag,
    requested: Timestamp,
) -> Result<(String, Option<String>, Option<Newest>), Failure> {
    let BackupFlag {
        name,
        from_backup,
        from_schedule,
        allow_partially_failed,
    } = typed;
    if let Some(schedule) = from_schedule {
        for name in name.iter().chain([&schedule]) {
            check_name(name).map_err(usage)?;
        }
        let found = Newest {
            schedule: Some(schedule.clone()),
            allow_partially_failed,
        };
        return Ok((schedule, name, Some(found)));
    }
    let (backup, name) = match (from_backup, name) {
        (Some(backup), name) => (backup, name),
        (None, Some(backup)) => (backup, None),
        (None, None) => {
            return Err(usage(
                "which backup? It is the argument, or follows --from-backup, or is the newest --from-schedule".into(),
            )
            .hint("`kubectl ark backup get` lists them; latest is the newest"));
        }
    };
    check_named(Noun::Backup, &backup)?;
    if let Some(name) = &name {
        check_name(name).map_err(usage)?;
    }
    if let Some(newest) = backup_name::newest_of(&backup) {
        let newest = Newest {
            allow_partially_failed,
            ..newest
        };
        // It stands in a name until the backup is known.
        let stands = newest.schedule.clone().unwrap_or(backup);
        return Ok((stands, name, Some(newest)));
    }
    if allow_partially_failed {
        return Err(usage(
            "--allow-partially-failed: a backup that is named is restored in any case; it is for --from-schedule and latest"
                .into(),
        ));
    }
    let name = name.unwrap_or_else(|| restore_name(&backup, requested));
    check_name(&name).map_err(usage)?;
    Ok((backup, Some(name), None))
}

/// What a restore is called that was given no name.
pub fn restore_name(backup: &str, requested: Timestamp) -> String {
    format!("{backup}-{}", timestamp(requested))
}

enum Print {
    Plan(Box<RestorePlanArgs>),
    Show(ShowArgs),
    Diff(Box<DiffArgs>),
    Volumes(VolumesArgs),
}

/// What a plan is of; it keeps no record, so it needs no name.
fn check_unnamed(typed: &BackupFlag) -> Result<(), Failure> {
    let from = match (&typed.from_backup, &typed.from_schedule) {
        (Some(_), _) => "--from-backup",
        (None, Some(_)) => "--from-schedule",
        (None, None) => return Ok(()),
    };
    match &typed.name {
        Some(name) => Err(usage(format!(
            "{name:?} beside {from}: a plan has no name, and is of one backup"
        ))),
        None => Ok(()),
    }
}

/// `restore create --dry-run=server` as the `restore plan` that it is.
fn plan_of(typed: RestoreCreateArgs) -> Result<Print, Failure> {
    let RestoreCreateArgs {
        backup,
        storage,
        restore,
        // What would come of it is told in any case.
        exit: _,
        dry_run: _,
        job,
    } = typed;
    let output = match job.output {
        None => args::PlanFormat::Text,
        Some(CreateFormat::Json) => args::PlanFormat::Json,
        Some(CreateFormat::Yaml | CreateFormat::Name) => {
            return Err(usage(
                "--output: a plan is printed as text, or with -o json".into(),
            ));
        }
    };
    let source = SourceFlags {
        storage,
        local: job.local,
    };
    Ok(Print::Plan(Box::new(RestorePlanArgs {
        backup,
        source,
        restore,
        output,
    })))
}

fn print(
    typed: Print,
    namespace: &str,
    surroundings: &Surroundings,
) -> Result<PrintOptions, Failure> {
    let (command, schedule, placed, local) = match typed {
        Print::Plan(typed) => {
            let RestorePlanArgs {
                backup,
                source: SourceFlags { storage, local },
                restore,
                output,
            } = *typed;
            let (backup, name, schedule) = restored_backup(backup, surroundings.now)?;
            let restore = duration::of_restore(restore)?;
            let arguments = RestoreArgs {
                backup,
                name,
                // To the nanosecond: no two plans write the same binding (see render::restore_binding).
                requested: Some(surroundings.now),
                wait_for_rights: None,
                storage: place(storage, local, surroundings)?,
                restore,
                dry_run: args::DryRun::Server,
                output,
                exit: ExitFlags::default(),
            };
            ark_job::restore::Options::resolve(&arguments)?;
            // Where a restore would read it, too.
            let command = args::Command::Restore(Box::new(arguments));
            (command, schedule, true, local)
        }
        Print::Show(typed) => {
            let ShowArgs {
                name: backup,
                object,
                all_fields,
                output,
                source: SourceFlags { storage, local },
            } = typed;
            check_named(Noun::Backup, &backup)?;
            let parts = object.split('/').count();
            if !(2..=3).contains(&parts) || object.split('/').any(str::is_empty) {
                return Err(usage(format!(
                    "{object:?} is no object: NAMESPACE/TYPE/NAME, or TYPE/NAME of a cluster-scoped one"
                ))
                .hint(storage.lists(&backup)));
            }
            let placed = local || storage != StorageFlags::default();
            let command = args::Command::Show(args::ShowArgs {
                backup,
                object,
                storage: place(storage, local, surroundings)?,
                all_fields,
                output,
            });
            (command, None, placed, local)
        }
        Print::Diff(typed) => {
            let DiffArgs {
                name: backup,
                other,
                select,
                all_fields,
                source: SourceFlags { storage, local },
            } = *typed;
            for name in std::iter::once(&backup).chain(&other) {
                check_named(Noun::Backup, name)?;
            }
            Asked::resolve(&select)?;
            let placed = local || storage != StorageFlags::default();
            let command = args::Command::Diff(args::DiffArgs {
                backup,
                other,
                storage: place(storage, local, surroundings)?,
                select,
                all_fields,
            });
            (command, None, placed, local)
        }
        Print::Volumes(typed) => {
            let VolumesArgs {
                backups,
                orphans,
                output,
                source: SourceFlags { storage, local },
            } = typed;
            for name in &backups {
                check_named(Noun::Backup, name)?;
            }
            // Without a backup that says where it is, the default location is meant.
            let placed = backups.is_empty() || local || storage != StorageFlags::default();
            let command = args::Command::Volumes(args::VolumesArgs {
                backups,
                storage: place(storage, local, surroundings)?,
                orphans,
                output,
            });
            (command, None, placed, local)
        }
    };
    Ok(PrintOptions {
        args: Args {
            namespace: namespace.to_owned(),
            command,
        },
        schedule,
        placed,
        local,
    })
}

/// Where backups are, in full: so that the Job says it, whatever becomes of defaults.
fn place(
    storage: StorageFlags,
    local: bool,
    surroundings: &Surroundings,
) -> Result<StorageFlags, Failure> {
    let StorageFlags { location, storage } = storage;
    if let Some(url) = &storage {
        url.parse::<Location>()
            .map_err(|error| usage(chain(&error)))?;
    }
    if let Some(name) = &location {
        check_name(name).map_err(usage)?;
    }
    let storage = match (&location, storage) {
        (None, None) if local => {
            let dir = local_directory(surroundings.home.as_deref())?;
            Some(Location::File { dir }.to_string())
        }
        (_, storage) => storage,
    };
    Ok(StorageFlags {
        location: match (location, &storage) {
            (None, None) => Some(DEFAULT_LOCATION.to_owned()),
            (location, _) => location,
        },
        storage,
    })
}

/// Where a backup is to be read from, if that was said.
fn read_from(
    source: SourceFlags,
    surroundings: &Surroundings,
) -> Result<Option<ReadFrom>, Failure> {
    if source == SourceFlags::default() {
        return Ok(None);
    }
    let SourceFlags { storage, local } = source;
    let storage = place(storage, local, surroundings)?;
    Ok(Some(ReadFrom { storage, local }))
}

fn download(
    namespace: &str,
    args: DownloadArgs,
    surroundings: &Surroundings,
) -> Result<DownloadOptions, Failure> {
    let DownloadArgs {
        name,
        output,
        force,
        source,
    } = args;
    check_named(Noun::Backup, &name)?;
    let target = match output {
        Some(path) if path == Path::new("-") => Target::StandardOutput,
        Some(path) if path.file_name().is_none() => {
            return Err(usage(format!(
                "--output: {:?} cannot be a file",
                path.display().to_string()
            )));
        }
        Some(path) => Target::File(path),
        None => Target::Named,
    };
    Ok(DownloadOptions {
        namespace: namespace.to_owned(),
        name,
        target,
        force,
        source: read_from(source, surroundings)?,
    })
}

/// Where `--local` keeps backups unless told otherwise.
fn local_directory(home: Option<&Path>) -> Result<PathBuf, Failure> {
    let home = home.filter(|home| home.is_absolute()).ok_or_else(|| {
        usage("there is no home directory for backups (HOME is not set)".into())
            .hint("say where with --storage file:///DIRECTORY")
    })?;
    Ok(home.join(".kubectl-ark").join("backups"))
}

fn get(namespace: &str, noun: Noun, args: GetArgs) -> Result<GetOptions, Failure> {
    let printing = printing(&args)?;
    let GetArgs {
        names, selector, ..
    } = args;
    for name in &names {
        check_named(noun, name)?;
    }
    check_choice(&[], selector.as_deref())?;
    Ok(GetOptions {
        noun,
        namespace: namespace.to_owned(),
        names,
        selector,
        printing,
    })
}

/// How `get` is to print what it finds, for every noun.
///
/// # Errors
/// [`Exit::Usage`], with what is wrong.
pub fn printing(args: &GetArgs) -> Result<Printing, Failure> {
    let GetArgs {
        names: _,
        selector: _,
        output,
        no_headers,
        sort_by,
        watch,
        watch_only,
    } = args;
    let read = |file: &str| {
        std::fs::read_to_string(file).map_err(|error| format!("reading {file}: {error}"))
    };
    let format = match output {
        Some(typed) => {
            Format::parse(typed, read).map_err(|why| usage(format!("--output: {why}")))?
        }
        None => Format::default(),
    };
    let sort_by = match sort_by {
        Some(typed) => {
            Some(SortBy::parse(typed).map_err(|why| usage(format!("--sort-by: {why}")))?)
        }
        None => None,
    };
    Ok(Printing {
        format,
        no_headers: *no_headers,
        sort_by,
        watch: match (watch, watch_only) {
            (_, true) => Watch::Only,
            (true, false) => Watch::Yes,
            (false, false) => Watch::No,
        },
        separate: false,
    })
}

/// `get all`, as one command for each noun.
fn get_all(namespace: &str, args: GetArgs) -> Result<Plan, Failure> {
    if !args.names.is_empty() {
        return Err(usage("get all: all are listed, not some by name".into())
            .hint("`kubectl ark get backups NAME` shows one"));
    }
    let asked = printing(&args)?;
    let each = "`kubectl ark get backups -o json`, and likewise restores, schedules and locations";
    if !matches!(asked.format, Format::Table | Format::Wide | Format::Name) {
        return Err(usage(
            "--output: get all prints tables or names; programs ask for one kind at a time".into(),
        )
        .hint(each));
    }
    if asked.watch != Watch::No || asked.sort_by.is_some() {
        return Err(
            usage("get all: --watch and --sort-by are for one kind at a time".into()).hint(each),
        );
    }
    Ok(Plan::GetAll(Box::new(GetAllOptions {
        backups: get(namespace, Noun::Backup, args.clone())?,
        restores: get(namespace, Noun::Restore, args.clone())?,
        schedules: schedule::get(namespace, args.clone())?,
        locations: schedule::get(namespace, args)?,
    })))
}

fn seconds(flag: &str, text: &str) -> Result<i32, Failure> {
    let duration = duration::parse(flag, text)?;
    i32::try_from(duration.as_secs())
        .map_err(|_| usage(format!("{flag}: {text} is longer than 68 years")))
}

fn to_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|error| usage(format!("reading {}: {error}", path.display())))
}

/// A DNS label, as names of namespaces are.
fn check_label(what: &str, text: &str) -> Result<(), Failure> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.is_empty()
        || text.len() > 63
        || !text.chars().all(allowed)
        || text.starts_with('-')
        || text.ends_with('-')
    {
        return Err(usage(format!(
            "{text:?} cannot be the name of a {what}: lower-case letters, digits and '-', at most 63"
        )));
    }
    Ok(())
}

fn usage(why: String) -> Failure {
    Failure::new(Exit::Usage, why)
}

/// Lets a restore wait for the rights that are written after its Job.
pub fn wait_for_rights(args: &mut Args) {
    if let args::Command::Restore(restore) = &mut args.command {
        restore.wait_for_rights = Some(WAIT_FOR_RIGHTS.to_owned());
    }
}

impl CreateOptions {
    /// The restore's plan, as it is shown before consent is asked for. Of a restore only.
    pub fn preview(&self, now: Timestamp) -> PrintOptions {
        let mut args = self.args.clone();
        if let args::Command::Restore(restore) = &mut args.command {
            restore.requested = Some(now);
            restore.restore.yes = false;
            restore.dry_run = args::DryRun::Server;
        }
        PrintOptions {
            args,
            schedule: None,
            placed: true,
            local: self.local,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn surroundings() -> Surroundings {
        Surroundings {
            now: "2026-11-23T20:15:01.9Z".parse().unwrap(),
            home: Some("/home/ann".into()),
            temporary: "/tmp".into(),
            nonce: "n".into(),
            terminal: false,
            input: false,
            width: None,
        }
    }

    fn resolved(line: &str) -> Result<Plan, Failure> {
        let argv = std::iter::once("kubectl-ark").chain(line.split(' '));
        let Cli { cluster, command } = Cli::try_parse_from(argv).unwrap();
        resolve(&cluster, command, &surroundings())
    }

    fn created(line: &str) -> CreateOptions {
        match resolved(line) {
            Ok(Plan::Create(options)) => *options,
            other => panic!("{other:?}"),
        }
    }

    fn argv(line: &str) -> String {
        created(line).args.to_argv().join(" ")
    }

    fn usage_of(line: &str) -> String {
        let failure = resolved(line).unwrap_err();
        assert_eq!(failure.exit(), Exit::Usage);
        failure.message().to_owned()
    }

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_backup_says_where_it_goes() {
        assert_eq!(
            argv("backup create demo --include-namespaces a,b"),
            "backup demo --location=default --include-namespaces=a,b --namespace=heptio-ark"
        );
        assert_eq!(
            argv("create backup demo --storage s3://b/p -n ark"),
            "backup demo --storage=s3://b/p --namespace=ark"
        );
        assert_eq!(
            argv("backup create demo --local"),
            "backup demo --storage=file:///home/ann/.kubectl-ark/backups --namespace=heptio-ark"
        );
        assert_eq!(
            argv("backup create demo --local --location x"),
            "backup demo --location=x --namespace=heptio-ark"
        );
    }

    #[test]
    fn one_argument_is_the_backup_to_restore() {
        assert_eq!(
            argv("restore create demo"),
            "restore demo --name=demo-20261123201501 --requested=2026-11-23T20:15:01Z --location=default \
             --namespace=heptio-ark"
        );
        assert_eq!(
            argv("restore create --from-backup demo"),
            argv("restore create demo")
        );
        assert_eq!(
            argv("restore create r --from-backup demo"),
            "restore demo --name=r --requested=2026-11-23T20:15:01Z --location=default --namespace=heptio-ark"
        );
        assert!(usage_of("restore create").starts_with("which backup?"));
    }

    fn printed(line: &str) -> PrintOptions {
        match resolved(line) {
            Ok(Plan::Print(options)) => *options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn q1_every_flag_of_a_restore_reaches_the_job() {
        let flags = "--include-namespaces a --exclude-namespaces b --include-resources c --exclude-resources d -l x=y \
                     --include-cluster-resources=false --namespace-mappings a:z --storage-class-mappings s:t \
                     --restore-volumes=false --preserve-nodeports --status-include-resources e --status-exclude-resources f \
                     --resource-modifier-configmap g --hooks h --existing-resource-policy update --again --max-in-flight 3 \
                     --max-writes-per-second 5 --partial-exit-code 0";
        let flags = flags.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(
            argv(&format!("restore create r --from-backup demo {flags}")),
            "restore demo --name=r --requested=2026-11-23T20:15:01Z --location=default --include-namespaces=a \
             --exclude-namespaces=b --include-resources=c --exclude-resources=d --selector=x=y \
             --include-cluster-resources=false --namespace-mappings=a:z --storage-class-mappings=s:t --restore-volumes=false \
             --preserve-nodeports=true --status-include-resources=e --status-exclude-resources=f \
             --resource-modifier-configmap=g --hooks=h --existing-resource-policy=update --again --max-in-flight=3 \
             --max-writes-per-second=5 --partial-exit-code=0 --namespace=heptio-ark"
        );
    }

    #[test]
    fn a_plan_is_a_restore_that_only_prints() {
        let plan = printed("restore plan demo --include-namespaces a -o json");
        assert_eq!(
            plan.args.to_argv().join(" "),
            "restore demo --name=demo-20261123201501 --requested=2026-11-23T20:15:01.9Z --location=default \
             --include-namespaces=a --dry-run=server --output=json --namespace=heptio-ark"
        );
        let by_create = "restore create demo --include-namespaces a --dry-run=server -o json";
        assert_eq!(printed(by_create), plan);
        assert!(usage_of("restore create demo --dry-run=server -o yaml").contains("--output"));
        assert!(usage_of("restore create demo --dry-run --local").contains("--local"));
        assert!(printed("restore create demo --dry-run=server --local").local);
    }

    #[test]
    fn what_reads_a_backup_reads_it_where_it_was_said_to_be() {
        let show = printed("backup show demo a/configmaps/x --location other");
        assert!(show.placed && !show.local);
        assert_eq!(
            show.args.to_argv().join(" "),
            "show demo --location=other --namespace=heptio-ark -- a/configmaps/x"
        );
        assert!(!printed("backup show demo nodes/x").placed);
        for object in ["x", "a/b/c/d", "a//c"] {
            assert!(
                usage_of(&format!("backup show demo {object}")).contains("NAMESPACE/TYPE/NAME")
            );
        }
        let diff = printed("diff demo later --local -l a=b --all-fields");
        assert!(diff.local);
        assert_eq!(
            diff.args.to_argv().join(" "),
            "diff demo later --storage=file:///home/ann/.kubectl-ark/backups --selector=a=b --all-fields \
             --namespace=heptio-ark"
        );
        assert!(usage_of("diff demo -l ==").contains("--selector"));
    }

    #[test]
    fn the_newest_backup_of_a_schedule_is_written_into_the_job() {
        for (line, name) in [
            (
                "restore create --from-schedule nightly",
                "nightly-1-20261123201501",
            ),
            ("restore create r --from-schedule nightly", "r"),
        ] {
            let options = created(line);
            let mut args = options.args;
            options.schedule.unwrap().fill(&mut args, "nightly-1");
            let args::Command::Restore(restore) = args.command else {
                panic!("it is a restore")
            };
            assert_eq!(restore.backup, "nightly-1");
            assert_eq!(restore.name.as_deref(), Some(name));
        }
        let both = "kubectl-ark restore create --from-schedule a --from-backup b";
        Cli::try_parse_from(both.split(' ')).unwrap_err();
        let neither = "restore create a --allow-partially-failed";
        assert!(usage_of(neither).contains("--allow-partially-failed"));
    }

    #[test]
    fn changing_objects_everywhere_needs_consent() {
        let line = "restore create demo --existing-resource-policy recreate";
        assert!(usage_of(line).contains("all namespaces"));
        for allowed in ["--yes", "--include-namespaces a", "--dry-run=client"] {
            assert!(!created(&format!("{line} {allowed}")).ask, "{allowed}");
        }
        assert!(argv(&format!("{line} --dry-run=client")).contains("--yes"));
        assert_eq!(
            printed(&format!("{line} --dry-run=server")),
            printed("restore plan demo --existing-resource-policy recreate")
        );
        // A person can be asked, and what they see then is the plan of the same restore.
        let mut surroundings = surroundings();
        surroundings.input = true;
        let argv = std::iter::once("kubectl-ark").chain(line.split(' '));
        let Cli { cluster, command } = Cli::try_parse_from(argv).unwrap();
        let Ok(Plan::Create(options)) = resolve(&cluster, command, &surroundings) else {
            panic!("it is refused")
        };
        assert!(options.ask);
        assert!(options.args.to_argv().contains(&"--yes".to_owned()));
        assert_eq!(
            options.preview(surroundings.now),
            printed("restore plan demo --existing-resource-policy recreate")
        );
    }

    #[test]
    fn job_options_have_defaults() {
        assert_eq!(
            created("backup create demo").job,
            JobOptions {
                ttl_after_finished: Some(86400),
                deadline: Some(21600)
            }
        );
        assert_eq!(
            created("backup create demo --ttl-after-finished never --deadline 0").job,
            JobOptions {
                ttl_after_finished: None,
                deadline: None
            }
        );
    }

    #[test]
    fn mistakes_are_found_before_the_first_request() {
        for (line, message) in [
            ("backup create Demo", "\"Demo\" contains 'D'"),
            ("backup create demo --ttl soon", "--ttl"),
            ("backup create demo --selector =x", "--selector"),
            ("backup create demo --storage http://x", "scheme"),
            (
                "backup create demo --ttl-after-finished x",
                "--ttl-after-finished",
            ),
            ("backup create demo --deadline x", "--deadline"),
            ("backup get Demo", "\"Demo\""),
            ("backup get -l ==", "--selector"),
            ("restore logs X", "\"X\""),
            ("version -n A", "namespace"),
            ("install --storage s3://", "bucket"),
            ("install --toleration a:b", "effect"),
            ("install --env A", "--env"),
            (
                "install --storage s3://b --credentials-file /nowhere/x",
                "/nowhere/x",
            ),
            (
                "install --storage s3://b?credentials-file=/x",
                "credentials-file",
            ),
        ] {
            let said = usage_of(line);
            assert!(said.contains(message), "{line}: {said}");
        }
    }
}
