//! Runs the shipped `ark-job` as a pod would: a process of its own, told who it is by its environment.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ark_job::api::environment;

use crate::s3;

/// Longer than any retry inside of it.
const ENDS_WITHIN: Duration = Duration::from_secs(240);

/// The directory that `cargo build` has put the programs in: that of the test binary, or its parent.
pub fn programs() -> Result<PathBuf> {
    let own = std::env::current_exe().context("finding the test's own binary")?;
    let directory = own.parent().context("a binary is in a directory")?;
    Ok(match directory.file_name() {
        Some(name) if name == "deps" => directory.parent().unwrap_or(directory).to_owned(),
        _ => directory.to_owned(),
    })
}

/// A program of this workspace.
///
/// # Errors
/// When it has not been built.
pub fn program(name: &str) -> Result<PathBuf> {
    let path = programs()?.join(name);
    if !path.exists() {
        bail!(
            "{} is missing: run `cargo build --release --workspace` first (`make test` does)",
            path.display()
        );
    }
    Ok(path)
}

/// An invocation of `ark-job`.
#[derive(Clone, Debug)]
pub struct ArkJob {
    kubeconfig: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    wrapper: Vec<String>,
}

/// How it ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// What it said.
    pub stderr: String,
}

impl ArkJob {
    /// `ark-job` with these arguments, on the cluster of this kubeconfig.
    pub fn new(kubeconfig: &Path, arguments: &[&str]) -> Self {
        let environment =
            s3::environment().map(|(name, value)| (name.to_owned(), value.to_owned()));
        ArkJob {
            kubeconfig: kubeconfig.to_owned(),
            arguments: arguments
                .iter()
                .map(|&argument| argument.to_owned())
                .collect(),
            environment: environment.into(),
            wrapper: Vec::new(),
        }
    }

    /// As a pod of this Job.
    #[must_use]
    pub fn of(mut self, job_uid: &str, pod_uid: &str) -> Self {
        self.environment
            .push((environment::JOB_UID.to_owned(), job_uid.to_owned()));
        self.environment
            .push((environment::POD_UID.to_owned(), pod_uid.to_owned()));
        self
    }

    /// With a variable of the environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Under another program, such as strace.
    #[must_use]
    pub fn under(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// When it is not built or cannot be started.
    pub fn start(&self) -> Result<Running> {
        let program = program("ark-job")?;
        let mut command = match self.wrapper.split_first() {
            Some((wrapper, rest)) => {
                let mut command = Command::new(wrapper);
                command.args(rest).arg(&program);
                command
            }
            None => Command::new(&program),
        };
        command
            .args(&self.arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("TMPDIR", std::env::temp_dir())
            .env("KUBECONFIG", &self.kubeconfig)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        let mut command = tokio::process::Command::from(command);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        Ok(Running {
            child,
            arguments: self.arguments.clone(),
        })
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// As [`ArkJob::start`]; or it does not end.
    pub async fn run(&self) -> Result<Finished> {
        self.start()?.wait().await
    }

    /// Runs it, and expects this exit code.
    ///
    /// # Errors
    /// As [`ArkJob::run`]; or it exits with another code.
    pub async fn expect(&self, code: i32) -> Result<Finished> {
        let finished = self.run().await?;
        if finished.code != Some(code) {
            bail!(
                "ark-job {:?}: exit {:?}, expected {code}\n{}",
                self.arguments,
                finished.code,
                finished.stderr
            );
        }
        Ok(finished)
    }
}

/// A running `ark-job`; killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: tokio::process::Child,
    arguments: Vec<String>,
}

impl Running {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// Waits until it ends.
    ///
    /// # Errors
    /// When it does not.
    pub async fn wait(self) -> Result<Finished> {
        let arguments = self.arguments;
        let ended = tokio::time::timeout(ENDS_WITHIN, self.child.wait_with_output()).await;
        let output = ended.with_context(|| format!("ark-job {arguments:?} does not end"))??;
        let mut stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.stdout.is_empty() {
            write!(
                stderr,
                "\nstdout: {}",
                String::from_utf8_lossy(&output.stdout)
            )?;
        }
        Ok(Finished {
            code: code(output.status),
            stderr,
        })
    }
}

fn code(status: ExitStatus) -> Option<i32> {
    status.code()
}
