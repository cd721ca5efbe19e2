//! `kubectl ark status`: whether all is well, on one screen. [`collect`] asks, [`assess`] decides, [`print`] tells.

pub mod assess;
pub mod collect;
mod housekeeping;
mod operations;
pub mod print;
pub mod schedules;
#[cfg(test)]
mod tests;

use crate::cli::{ClusterFlags, StatusArgs, VersionFormat};
use crate::{Surroundings, client, output};
use ark_job::error::Failure;
use ark_job::exit::Exit;
use assess::{Health, assess};
use serde_json::Value;
use std::time::Duration;

/// All requests together: a cluster that takes longer is not well either.
const PATIENCE: Duration = Duration::from_secs(30);

/// Looks once, and says what is seen.
///
/// # Errors
/// When Ark is not installed, or what must be known cannot be read.
pub async fn run(
    cluster: &ClusterFlags,
    args: StatusArgs,
    surroundings: &Surroundings,
    interrupt: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    let StatusArgs { output } = args;
    let client = client::connect(cluster).await?.kube;
    let seen = tokio::select! {
        seen = tokio::time::timeout(PATIENCE, collect::collect(&client, &cluster.namespace, surroundings.now)) => seen,
        () = interrupt => return Ok(Exit::Interrupted),
    };
    let seen = seen.map_err(|_elapsed| {
        Failure::new(
            Exit::Failed,
            format!(
                "the cluster has not answered within {} seconds",
                PATIENCE.as_secs()
            ),
        )
        .hint("`kubectl get --raw /readyz` shows whether its API server is well")
    })??;
    let health = assess(&seen);
    match output {
        None => print!("{}", print::text(&health, surroundings.width)),
        Some(VersionFormat::Json) => print!("{}", output::json(&value(&health))),
        Some(VersionFormat::Yaml) => print!("{}", output::yaml(&value(&health))),
    }
    Ok(match health.healthy {
        true => Exit::Done,
        false => Exit::Failed,
    })
}

fn value(health: &Health) -> Value {
    serde_json::to_value(health).expect("it has only what JSON can say")
}
