//! `ark-job`: one operation on a cluster, then exit. Reads the environment and signals; everything else is the library's.

use anyhow::Context as _;
use ark_job::api::environment;
use ark_job::args::{Args, Command};
use ark_job::context::{Environment, Outcome};
use ark_job::error::chain;
use ark_job::exit::Exit;
use ark_job::run::{run, run_without_cluster};
use clap::Parser;
use std::process::ExitCode;

/// Threads for compression and files: two keep up with what one async thread reads, more cost memory.
const BLOCKING_THREADS: usize = 4;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version are no errors; clap prints them to stdout.
            let exit = if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Done
            };
            return if error.print().is_ok() {
                exit.into()
            } else {
                Exit::Failed.into()
            };
        }
    };
    let compares = matches!(args.command, Command::Diff(_));
    let exit = start(args).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        Exit::Failed
    });
    if compares {
        exit.code_of_comparison().into()
    } else {
        exit.into()
    }
}

fn start(args: Args) -> anyhow::Result<Exit> {
    // One async thread: the work is in the API server, and a second thread costs more CPU than it saves.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .context("starting the runtime")?;
    let exit = runtime.block_on(operate(args))?;
    // A request that hangs must not keep a finished Job from ending.
    runtime.shutdown_background();
    Ok(exit)
}

async fn operate(args: Args) -> anyhow::Result<Exit> {
    // rustls cannot choose between providers by itself when several crates bring one.
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        anyhow::bail!("a TLS provider was installed already");
    }
    let surroundings = surroundings()?;
    if let Some(outcome) = run_without_cluster(&args, &surroundings, signal()?).await {
        return Ok(say(outcome));
    }
    let client = match connect().await {
        Ok(client) => client,
        Err(error) => {
            eprintln!("error: no cluster: {}", chain(&error));
            eprintln!("hint: outside of a pod, set KUBECONFIG");
            return Ok(Exit::Failed);
        }
    };
    let outcome = run(args, surroundings, client, signal()?).await;
    Ok(say(outcome))
}

/// Tells how it ended.
fn say(outcome: Outcome) -> Exit {
    match outcome.exit {
        Exit::Done | Exit::Different => eprintln!("{}", outcome.message),
        _ => eprintln!("error: {}", outcome.message),
    }
    if let Some(hint) = outcome.hint {
        eprintln!("hint: {hint}");
    }
    outcome.exit
}

/// A client of the cluster that the pod is in, or that KUBECONFIG names.
async fn connect() -> Result<kube::Client, kube::Error> {
    let mut config = kube::Config::infer()
        .await
        .map_err(kube::Error::InferConfig)?;
    // kube would try for minutes, and say nothing; requests are retried, and their retries logged, in `cluster`.
    config.default_retry = false;
    kube::Client::try_from(config)
}

fn surroundings() -> anyhow::Result<Environment> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let mut random = [0; 16];
    rustls::crypto::ring::default_provider()
        .secure_random
        .fill(&mut random)
        .map_err(|_| anyhow::anyhow!("the system has no random numbers"))?;
    Ok(Environment {
        job_uid: variable(environment::JOB_UID),
        job_name: variable(environment::JOB_NAME),
        pod_uid: variable(environment::POD_UID),
        nonce: hex::encode(random),
        temporary: std::env::temp_dir(),
        connect_disks: Some(ark_job::volumes::ec2::connect),
        // Velero's variable, read where Velero reads it.
        disks_cluster_name: variable("AWS_CLUSTER_NAME"),
    })
}

/// Completes on SIGINT or SIGTERM.
#[cfg(unix)]
fn signal() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Completes on Ctrl-C.
#[cfg(not(unix))]
fn signal() -> anyhow::Result<impl Future<Output = ()>> {
    Ok(async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}
