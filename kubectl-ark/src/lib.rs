//! `kubectl ark`: turns each command into Kubernetes objects, and reads back what came of them.
//!
//! Data flows one way: argv → [`cli`] → [`options`] → objects ([`install`], [`render`]) → effects ([`client`],
//! [`create`], [`wait`]) → report ([`table`], [`output`]). Everything before the effects is pure. What an operation
//! *does* is in `ark-job`; the plugin knows only its contract, and runs it in its own process for `--local`.

/// As the standard one, but work goes on when nobody reads any more: `restore-only on | head` must not stop half-way.
macro_rules! print {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        // There is nobody to tell.
        drop(write!(std::io::stdout(), $($text)*));
    }};
}

/// As [`print!`], with the end of a line.
macro_rules! println {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        drop(writeln!(std::io::stdout(), $($text)*));
    }};
}

pub mod cli;
pub mod mistyped;
pub mod options;
// objects
pub mod admission;
pub mod cron_job;
pub mod hourly;
pub mod install;
pub mod manifest;
pub mod merge;
pub mod names;
pub mod noun;
pub mod pod_template;
pub mod render;
pub mod rights;
// effects
pub mod client;
pub mod completion;
pub mod consent;
pub mod create;
pub mod credentials;
pub mod delete;
pub mod doctor;
pub mod download;
pub mod get;
pub mod held_pod;
pub mod housekeeping;
pub mod jobs;
pub mod kubeconfig;
pub mod local;
pub mod location;
pub mod logs;
pub mod lookup;
pub mod mode;
pub mod network_proxy;
pub mod newest;
pub mod printed;
pub mod progress;
pub mod recorded;
pub mod restorable;
pub mod restore_delete;
pub mod restore_only;
pub mod schedule;
pub mod status;
pub mod stored;
pub mod uninstall;
pub mod version;
pub mod wait;
pub mod watch;
// report
pub mod age;
pub mod describe;
pub mod details;
pub mod jsonpath;
pub mod log_line;
pub mod output;
pub mod records;
pub mod similar;
pub mod sizes;
pub mod table;
pub mod volumes;

use ark_job::error::Failure;
use ark_job::exit::Exit;
use options::Plan;

/// What a command needs to know of the process it runs in; read once, by `main`.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Now, for names and ages.
    pub now: jiff::Timestamp,
    /// The home directory, for `--local`.
    pub home: Option<std::path::PathBuf>,
    /// Directory for temporary files, for `--local`.
    pub temporary: std::path::PathBuf,
    /// A random text, for `--local`.
    pub nonce: String,
    /// Whether standard error is a terminal that can redraw a line: progress bars.
    pub terminal: bool,
    /// Whether standard input is a terminal: a person can be asked.
    pub input: bool,
    /// How many columns the terminal has that standard output is; `None` elsewhere, where nothing is cut.
    pub width: Option<usize>,
}

/// Parses, resolves and runs a command line; returns how it ended.
pub async fn run(
    cli: cli::Cli,
    surroundings: &Surroundings,
    interrupt: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    let cli::Cli { cluster, command } = cli;
    let plan = options::resolve(&cluster, command, surroundings)?;
    match plan {
        Plan::Install(options) => {
            let client = client::connect(&cluster).await?;
            install::run(&client, &options).await
        }
        Plan::Create(mut options) => {
            let client = client::connect(&cluster).await?;
            let mut interrupt = std::pin::pin!(interrupt);
            if let Some(newest) = options.schedule.take() {
                newest::fill(&cluster, &newest, options.local, &mut options.args).await?;
            } else {
                let storage = options.args.command.storage().clone();
                let place = lookup::Place {
                    cluster: &cluster,
                    storage: Some(&storage),
                    local: options.local,
                };
                lookup::fill(&place, &mut options.args).await?;
            }
            if options.ask
                && let Some(exit) =
                    consent::ask(&client, &options, surroundings, interrupt.as_mut()).await?
            {
                return Ok(exit);
            }
            if options.local {
                let directory = options.local_directory.as_deref();
                local::run(
                    client.operation,
                    options.args,
                    directory,
                    surroundings,
                    interrupt,
                )
                .await
            } else {
                create::run(&client.kube, *options, surroundings, interrupt).await
            }
        }
        Plan::Get(options) => get::get(&cluster, &options, surroundings, interrupt).await,
        Plan::GetAll(options) => get::all(&cluster, *options, surroundings, interrupt).await,
        Plan::DeleteRestores(options) => {
            restore_delete::run(&cluster, *options, surroundings, interrupt).await
        }
        Plan::Describe(options) => {
            describe::command::run(&cluster, &options, surroundings, interrupt).await
        }
        Plan::Logs(options) => logs::run(&cluster, &options, surroundings, interrupt).await,
        Plan::Download(options) => download::run(&cluster, &options, surroundings, interrupt).await,
        Plan::Print(options) => printed::run(&cluster, *options, surroundings, interrupt).await,
        Plan::Schedule(options) => schedule::run(&cluster, *options, surroundings, interrupt).await,
        Plan::Delete(options) => delete::run(&cluster, *options, surroundings, interrupt).await,
        Plan::Housekeep(options) => {
            let client = client::connect(&cluster).await?;
            housekeeping::run(&client, *options, surroundings, interrupt).await
        }
        Plan::RestoreOnly(options) => {
            restore_only::run(&cluster, &options, surroundings, interrupt).await
        }
        Plan::Location(options) => location::run(&cluster, *options, surroundings, interrupt).await,
        Plan::Status(args) => status::run(&cluster, args, surroundings, interrupt).await,
        Plan::Doctor(args) => doctor::run(&cluster, *args, surroundings, interrupt).await,
        Plan::Uninstall(options) => uninstall::run(&cluster, options, interrupt).await,
        Plan::Completion(args) => completion::run(&cluster, args, surroundings, interrupt).await,
        Plan::Version(options) => version::run(&cluster, &options).await,
    }
}
