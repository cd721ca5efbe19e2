//! A container registry that wants a password: Debian's docker-registry, the reference implementation.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::{self, Process, Run};
use crate::{network, prerequisites, wait_until};

/// Who may pull and push.
pub const USER: &str = "ark";
/// The user's password.
pub const PASSWORD: &str = "pull-me";
/// That password, as htpasswd has it.
const HASH: &str = "$2y$05$abcdefghijklmnopqrstuuBp.n58v886n7kD7.z9i0nzqxtQ8I2P.";

/// A running registry on loopback, empty at first; ends when dropped.
pub struct Registry {
    url: String,
    _process: Process,
    _run: Run,
}

impl Registry {
    /// Starts one and waits until it serves.
    pub async fn start() -> Result<Self> {
        let run = Run::start()?;
        let [port] = network::free_ports()?;
        let directory = run.directory();
        std::fs::write(directory.join("htpasswd"), format!("{USER}:{HASH}\n"))?;
        let configuration = serde_json::json!({
            "version": "0.1",
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": directory.join("data")}},
            "auth": {"htpasswd": {"realm": "registry", "path": directory.join("htpasswd")}},
            "http": {"addr": format!("127.0.0.1:{port}")},
        });
        let file = directory.join("registry.yaml");
        std::fs::write(&file, configuration.to_string())?;
        let mut command = process::bound(prerequisites::registry()?);
        command.arg("serve").arg(&file).current_dir(directory);
        let process = run.spawn("registry", command)?;
        wait_until("the registry", Duration::from_secs(60), async || {
            if let Err(ended) = process.check() {
                return Ok(Some(Err(ended)));
            }
            let connected = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
            connected.map(|_| Some(Ok(()))).context("connecting")
        })
        .await??;
        Ok(Registry {
            url: format!("http://127.0.0.1:{port}"),
            _process: process,
            _run: run,
        })
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> &str {
        &self.url
    }
}
