//! One run: from parsed arguments to an exit code. `ark-job` and `kubectl ark --local` both come through here.

use crate::args::{Args, Command};
use crate::cluster::Cluster;
use crate::context::{self, Context, Environment, Outcome};
use crate::error::Failure;
use crate::exit::Exit;
use crate::{backup, fetch, restore};
use std::future::Future;

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
    // Everything wrong with the arguments is said before the first request.
    let cluster = Cluster::new(client);
    let (operation, storage, partial) = match &args.command {
        Command::Backup(arguments) => (
            Operation::Backup(backup::Options::resolve(arguments)?),
            &arguments.storage,
            arguments.exit.partial_exit_code,
        ),
        Command::Restore(arguments) => (
            Operation::Restore(restore::Options::resolve(arguments)?),
            &arguments.storage,
            arguments.exit.partial_exit_code,
        ),
        Command::Diff(_) | Command::Show(_) => {
            return Err(Failure::new(Exit::Failed, "this is not there yet"));
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
            restore::wait_for_rights(&cluster, options).await?;
        }
        Context::open(
            cluster,
            &args.namespace,
            storage.location.as_deref(),
            url,
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
            operation.interrupted(&context).await;
            return Err(interrupted(&environment));
        }
    };
    if outcome.exit == Exit::PartiallyFailed && partial == 0 {
        outcome.exit = Exit::Done;
    }
    Ok(outcome)
}

enum Operation {
    Backup(backup::Options),
    Restore(restore::Options),
}

impl Operation {
    async fn perform(&self, context: &Context) -> Result<Outcome, Failure> {
        match self {
            Operation::Backup(options) => backup::backup(context, options).await,
            Operation::Restore(options) => restore::restore(context, options).await,
        }
    }

    /// Says in the record that nobody is at work any more.
    async fn interrupted(&self, context: &Context) {
        match self {
            Operation::Backup(options) => backup::interrupted(context, options).await,
            Operation::Restore(options) => restore::interrupted(context, options).await,
        }
    }
}

fn interrupted(environment: &Environment) -> Failure {
    let failure = Failure::new(Exit::Interrupted, "interrupted");
    match environment.job_uid {
        Some(_) => failure.hint("a Job starts another attempt by itself, if it has any left"),
        None => failure,
    }
}
