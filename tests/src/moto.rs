//! moto: S3 **and EC2** on one port, for volumes and their snapshots.

use std::time::Duration;

use anyhow::Result;

use crate::process::{self, Process, Run};
use crate::s3::Bucket;
use crate::{network, prerequisites, s3, wait_until};

/// A running moto server on loopback; state is in its memory. Ends when dropped. Credentials are as in [`s3`].
pub struct MotoServer {
    url: String,
    _process: Process,
    _run: Run,
}

impl MotoServer {
    /// Starts one and waits until it serves.
    pub async fn start() -> Result<Self> {
        let run = Run::start()?;
        let [port] = network::free_ports()?;
        let mut command = process::bound(prerequisites::python()?.join("bin/moto_server"));
        command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
        let process = run.spawn("moto", command)?;
        let url = format!("http://127.0.0.1:{port}");
        let client = s3::client(&url);
        wait_until("moto to be ready", Duration::from_secs(60), async || {
            if let Err(error) = process.check() {
                return Ok(Some(Err(error)));
            }
            client.list_buckets().send().await?;
            Ok(Some(Ok(())))
        })
        .await??;
        Ok(MotoServer {
            url,
            _process: process,
            _run: run,
        })
    }

    /// The endpoint of S3 and EC2, `http://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The bucket of that name, made when it is not there.
    pub async fn bucket(&self, name: &str) -> Result<Bucket> {
        Bucket::create(&self.url, name).await
    }

    /// What a program needs in its environment to use this server.
    pub fn environment(&self) -> [(&'static str, &'static str); 3] {
        s3::environment()
    }
}
