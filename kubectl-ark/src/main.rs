//! `kubectl-ark`: reads arguments, environment and signals; everything else is the library's.

use anyhow::Context as _;
use ark_job::exit::Exit;
use kubectl_ark::Surroundings;
use kubectl_ark::cli::{self, Cli};
use kubectl_ark::{completion, mistyped};
use std::io::IsTerminal;
use std::process::ExitCode;

/// Threads for files and compression of `--local`, as in ark-job.
const BLOCKING_THREADS: usize = 4;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    // Not a command of clap: what comes after it is a line that is still being typed.
    if words.next().is_some_and(|word| word == completion::ASK) {
        let words: Vec<String> = words
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        // A shell has no use for an error here.
        drop(complete(&words));
        return Exit::Done.into();
    }
    let cli = match cli::parse(mistyped::spelled_out(std::env::args_os())) {
        Ok(cli) => cli,
        Err(error) => {
            let error = mistyped::with_suggestions(error);
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
    match start(cli) {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("error: {error:#}");
            Exit::Failed.into()
        }
    }
}

fn complete(words: &[String]) -> anyhow::Result<()> {
    let (surroundings, runtime) = prepare()?;
    runtime.block_on(completion::complete(words, &surroundings));
    // A name server or a credential plugin that hangs must not keep us from ending.
    runtime.shutdown_background();
    Ok(())
}

fn start(cli: Cli) -> anyhow::Result<Exit> {
    let (surroundings, runtime) = prepare()?;
    let result =
        runtime.block_on(async { kubectl_ark::run(cli, &surroundings, interrupted()).await });
    // A request that hangs must not keep us from ending.
    runtime.shutdown_background();
    Ok(match result {
        Ok(exit) => exit,
        Err(failure) => {
            eprintln!("error: {}", failure.message());
            if let Some(hint) = failure.next_step() {
                eprintln!("hint: {hint}");
            }
            failure.exit()
        }
    })
}

fn prepare() -> anyhow::Result<(Surroundings, tokio::runtime::Runtime)> {
    // rustls cannot choose between providers by itself when several crates bring one.
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        anyhow::bail!("a TLS provider was installed already");
    }
    let surroundings = surroundings()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .context("starting the runtime")?;
    Ok((surroundings, runtime))
}

fn surroundings() -> anyhow::Result<Surroundings> {
    let mut random = [0; 16];
    rustls::crypto::ring::default_provider()
        .secure_random
        .fill(&mut random)
        .map_err(|_| anyhow::anyhow!("the system has no random numbers"))?;
    Ok(Surroundings {
        now: jiff::Timestamp::now(),
        home: std::env::home_dir(),
        temporary: std::env::temp_dir(),
        nonce: hex::encode(random),
        terminal: std::io::stderr().is_terminal() && !is_dumb(),
        input: std::io::stdin().is_terminal(),
        width: width(),
    })
}

/// A terminal that cannot redraw a line, as that of an editor. Where there are terminals of other kinds, TERM says which.
fn is_dumb() -> bool {
    match std::env::var_os("TERM") {
        Some(term) => term == "dumb" || term.is_empty(),
        None => cfg!(unix),
    }
}

/// The columns of standard output, if it is a terminal; COLUMNS knows better.
fn width() -> Option<usize> {
    if !std::io::stdout().is_terminal() {
        return None;
    }
    let said = std::env::var("COLUMNS").ok();
    said.and_then(|columns| columns.parse().ok())
        .filter(|columns| *columns > 0)
        .or_else(|| {
            let (_, columns) = console::Term::stdout().size_checked()?;
            Some(usize::from(columns)).filter(|columns| *columns > 0)
        })
}

/// Completes on Ctrl-C.
async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
