//! One run: from parsed arguments to an exit code. `ark-job` and `kubectl ark --local` both come through here.

use crate::args::{Args, Command, DiffArgs, ListArgs, ShowArgs};
use crate::cluster::Cluster;
use crate::context::{self, Context, Environment, Outcome, open_place, open_store, parse_url};
use crate::error::Failure;
use crate::exit::Exit;
use crate::{backup, delete, diff, doctor, expire, fetch, list, restore, show, sync, volume_list};
use jiff::Timestamp;
use std::future::Future;
use std::path::Path;

/// Runs what `args` ask for, until done or `interrupt` completes.
pub async fn run(
    args: Args,
    environment: Environment,
    client: kube::Client,
    interrupt: impl Future<Output = ()>,
) -> Outcome {
    match try_run(args, environment, client, interrupt).await {
        Ok(outcome) => outcome,
        Err(failure) => failure.into(),
    }
}

async fn try_run(
    args: Args,
    environment: Environment,
    client: kube::Client,
    interrupt: impl Future<Output = ()>,
) -> Result<Outcome, Failure> {
    // A pod may be held for this. Fetch and its holder see to that themselves.
    let _held = match &args.command {
        Command::Fetch(_) => None,
        _ => fetch::at_work(&environment)?,
    };
    // Everything wrong with the arguments is said before the first request.
    let cluster = Cluster::new(client);
    let (mut operation, storage, partial) = match &args.command {
        Command::Backup(arguments) => (
            Operation::Backup(Box::new(backup::Options::resolve(arguments)?)),
            &arguments.storage,
            arguments.exit.partial_exit_code,
        ),
        Command::Restore(arguments) => (
            Operation::Restore(Box::new(restore::Options::resolve(arguments)?)),
            &arguments.storage,
            arguments.exit.partial_exit_code,
        ),
        Command::Delete(arguments) => (
            Operation::Delete(delete::Options::resolve(arguments)?),
            &arguments.storage,
            3,
        ),
        Command::Undelete(arguments) => (
            Operation::Undelete(delete::Options::of_undelete(arguments)?),
            &arguments.storage,
            3,
        ),
        Command::DeleteRestore(arguments) => (
            Operation::DeleteRestore(delete::Options::of_restores(arguments)?),
            &arguments.storage,
            3,
        ),
        Command::Expire(arguments) => (
            Operation::Expire(expire::Options::resolve(arguments)?),
            &arguments.storage,
            arguments.exit.partial_exit_code,
        ),
        Command::Volumes(arguments) => (
            Operation::Volumes(volume_list::Options::resolve(arguments)?),
            &arguments.storage,
            3,
        ),
        Command::Sync(arguments) => (
            Operation::Sync(sync::Options::resolve(arguments)?),
            &arguments.storage,
            arguments.exit.partial_exit_code,
        ),
        Command::Diff(_) | Command::Show(_) | Command::List(_) => {
            let looking = look(Some(&cluster), &args, &environment.temporary);
            return tokio::select! {
                outcome = looking => outcome,
                () = interrupt => Err(Failure::new(Exit::Interrupted, "interrupted")),
            };
        }
        // It takes back what it has written, also when it is interrupted.
        Command::Doctor(arguments) => {
            return doctor::run(
                &cluster,
                &args.namespace,
                arguments,
                &environment,
                interrupt,
            )
            .await;
        }
        Command::Fetch(arguments) => {
            // It leaves no trace, so it needs no identity, no record and no log.
            let fetching = fetch::run(&cluster, &args.namespace, arguments, &environment);
            return tokio::select! {
                outcome = fetching => outcome,
                () = interrupt => Err(Failure::new(Exit::Interrupted, "interrupted")),
            };
        }
    };
    let url = storage
        .storage
        .as_deref()
        .map(context::parse_url)
        .transpose()?;
    let mut interrupt = std::pin::pin!(interrupt);
    let opening = async {
        // The rights to restore include those to read the location: nothing can be done before they are there.
        if let Operation::Restore(options) = &operation {
            restore::wait_for_rights(&cluster, &args.namespace, options).await?;
        }
        let origin = match &mut operation {
            Operation::Backup(options) => {
                let now = Timestamp::now();
                options
                    .settle(&cluster, &args.namespace, &environment, now)
                    .await?
            }
            _ => environment.origin(),
        };
        Context::open(
            cluster,
            &args.namespace,
            storage.location.as_deref(),
            url,
            &origin,
            &environment,
        )
        .await
    };
    let context = tokio::select! {
        context = opening => context?,
        () = &mut interrupt => return Err(interrupted(&environment)),
    };
    let mut outcome = tokio::select! {
        outcome = operation.perform(&context) => outcome?,
        () = &mut interrupt => {
            let next = operation.interrupted(&context).await;
            return Err(interrupted(&environment).maybe_hint(next));
        }
    };
    if outcome.exit == Exit::PartiallyFailed && partial == 0 {
        outcome.exit = Exit::Done;
    }
    Ok(outcome)
}

/// Runs what needs storage alone, when a URL says where that is: no cluster is asked. `None` when one is needed.
pub async fn run_without_cluster(
    args: &Args,
    environment: &Environment,
    interrupt: impl Future<Output = ()>,
) -> Option<Outcome> {
    let storage = match &args.command {
        Command::Show(arguments) => &arguments.storage,
        Command::List(arguments) => &arguments.storage,
        Command::Diff(arguments) if arguments.other.is_some() => &arguments.storage,
        _ => return None,
    };
    storage.storage.as_ref()?;
    let looking = async {
        let _held = fetch::at_work(environment)?;
        look(None, args, &environment.temporary).await
    };
    let result = tokio::select! {
        outcome = looking => outcome,
        () = interrupt => Err(Failure::new(Exit::Interrupted, "interrupted")),
    };
    Some(result.unwrap_or_else(Outcome::from))
}

/// Shows or compares: it leaves no trace, so it needs no identity, no record and no log.
async fn look(
    cluster: Option<&Cluster>,
    args: &Args,
    temporary: &Path,
) -> Result<Outcome, Failure> {
    let (Command::Show(ShowArgs { storage, .. })
    | Command::Diff(DiffArgs { storage, .. })
    | Command::List(ListArgs { storage, .. })) = &args.command
    else {
        return Err(Failure::new(Exit::Usage, "nothing is to be looked at"));
    };
    let no_cluster = || Failure::new(Exit::Failed, "this needs a cluster");
    let store = match (storage.storage.as_deref(), cluster) {
        (Some(url), _) => open_place(&parse_url(url)?).await?,
        (None, Some(cluster)) => {
            open_store(cluster, &args.namespace, storage.location.as_deref(), None).await?
        }
        (None, None) => return Err(no_cluster()),
    };
    match &args.command {
        Command::Diff(arguments) => match &arguments.other {
            Some(other) => diff::with_backup(&store, arguments, other, temporary).await,
            None => {
                let cluster = cluster.ok_or_else(no_cluster)?;
                diff::with_cluster(cluster, &store, arguments, temporary).await
            }
        },
        Command::List(arguments) => list::run(&store, arguments).await,
        Command::Show(arguments) => show::run(&store, arguments, temporary).await,
        _ => Err(no_cluster()),
    }
}

enum Operation {
    Backup(Box<backup::Options>),
    Restore(Box<restore::Options>),
    Delete(delete::Options),
    Undelete(delete::Options),
    DeleteRestore(delete::Options),
    Expire(expire::Options),
    Sync(sync::Options),
    Volumes(volume_list::Options),
}

impl Operation {
    async fn perform(&self, context: &Context) -> Result<Outcome, Failure> {
        match self {
            Operation::Backup(options) => backup::backup(context, options).await,
            Operation::Restore(options) => restore::restore(context, options).await,
            Operation::Delete(options) => delete::delete(context, options).await,
            Operation::Undelete(options) => delete::undelete(context, options).await,
            Operation::DeleteRestore(options) => delete::delete_restores(context, options).await,
            Operation::Expire(options) => expire::expire(context, options).await,
            Operation::Sync(options) => sync::sync(context, options).await,
            Operation::Volumes(options) => volume_list::list(context, options).await,
        }
    }

    /// Says in the record that nobody is at work any more; answers what to do next, if something is left half done.
    async fn interrupted(&self, context: &Context) -> Option<String> {
        match self {
            Operation::Backup(options) => backup::interrupted(context, options).await,
            Operation::Restore(options) => restore::interrupted(context, options).await,
            Operation::Delete(options) => return delete::interrupted(context, options).await,
            // They keep no record: whoever runs them next goes on from what is there.
            Operation::Undelete(_)
            | Operation::DeleteRestore(_)
            | Operation::Expire(_)
            | Operation::Sync(_)
            | Operation::Volumes(_) => {}
        }
        None
    }
}

fn interrupted(environment: &Environment) -> Failure {
    let failure = Failure::new(Exit::Interrupted, "interrupted");
    match environment.job_uid {
        Some(_) => failure.hint("a Job starts another attempt by itself, if it has any left"),
        None => failure,
    }
}
