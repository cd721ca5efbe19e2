//! What a command used, as the operating system says, and what it cost the servers meanwhile.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ark_tests::{ControlPlane, prerequisites, process};
use serde::Deserialize;

/// What one run of a command used.
#[derive(Clone, Copy, Debug)]
pub struct Used {
    /// Seconds.
    pub wall: f64,
    /// CPU seconds of the command.
    pub cpu: f64,
    /// CPU seconds of API server and etcd; none where there is no /proc.
    pub servers: Option<f64>,
    /// Peak resident memory, MiB.
    pub peak_mib: f64,
}

/// Runs a command, and gives what it used and what it printed.
pub fn used(cluster: &ControlPlane, command: &Command) -> Result<(Used, String)> {
    #[derive(Deserialize)]
    struct Measured {
        code: i32,
        wall: f64,
        cpu: f64,
        peak_kib: u64,
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/measure.py");
    let mut measure = Command::new(prerequisites::python()?.join("bin/python"));
    measure
        .arg(script)
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        measure.env(name, value.unwrap_or_default());
    }
    let before = servers(cluster);
    let output = process::output(&mut measure)?;
    let servers = servers(cluster).zip(before).map(|(now, then)| now - then);
    let (printed, measured) = output
        .trim_end()
        .rsplit_once('\n')
        .unwrap_or(("", output.trim_end()));
    let measured: Measured = serde_json::from_str(measured)
        .with_context(|| format!("reading what measure.py says of {command:?}"))?;
    ensure!(
        measured.code == 0,
        "{command:?} ended with exit code {}",
        measured.code
    );
    let used = Used {
        wall: measured.wall,
        cpu: measured.cpu,
        servers,
        peak_mib: measured.peak_kib as f64 / 1024.0,
    };
    Ok((used, printed.to_owned()))
}

/// CPU seconds that API server and etcd have used so far.
fn servers(cluster: &ControlPlane) -> Option<f64> {
    let ids = cluster.server_ids().ok()?;
    ids.into_iter().map(cpu_of).sum()
}

/// User and system time of a process, by /proc, whose unit is a hundredth of a second on every Linux.
fn cpu_of(id: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name in parentheses may hold anything; utime and stime are the 12th and 13th fields after it.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let ticks = |n: usize| fields.get(n)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / 100.0)
}
