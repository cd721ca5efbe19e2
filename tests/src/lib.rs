//! What the scenarios run on: a throw-away Kubernetes, S3 and EC2 servers, and a proxy that breaks things on purpose.
//! All of them are the real thing, come from package registries, and vanish with the test.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use ark_tests::{ControlPlane, FaultProxy, Options, Rule, S3Server};
//!
//! let cluster = ControlPlane::start(Options::default()).await?; // etcd and API server, no root, 4 s
//! let client = cluster.client().await?;
//! cluster.kubectl(&["create", "namespace", "app"])?;
//!
//! let s3 = S3Server::start().await?;
//! let bucket = s3.bucket("backups").await?;
//!
//! // The second write is refused, through the address that the program under test is given.
//! let proxy = FaultProxy::start(s3.url()).await?;
//! let refused = proxy.add(Rule::on(|request| request.is_write()).only(2).answer(503, &[], ""));
//! // … run the program with `proxy.url()`, `s3.environment()` and `cluster.kubeconfig()` …
//! assert_eq!(refused.applied(), 1);
//! assert!(bucket.keys("app/").await?.is_empty());
//! # drop(client); Ok(()) }
//! ```
//!
//! Where to look:
//!
//! - [`ControlPlane`]: objects, but no pods. Can be suspended, killed, restarted, compacted, saved; [`Options`] has the
//!   controller manager, further API server flags, an audit log, a separate etcd for events.
//! - [`NodeCluster`] (Linux, root): also pods. `expose` gives pods what listens here; `command` runs a program in the
//!   cluster's network, so that it reaches the very URLs that pods use; [`images`] builds without a registry.
//! - [`S3Server`], [`MotoServer`]: S3; S3 and EC2. [`Bucket`] to fill and to assert.
//! - [`Csi`]: volumes, snapshots and group snapshots of a driver whose storage is a directory, on either cluster.
//! - [`FaultProxy`], [`Rule`], [`Victim`]: count, refuse, reset, delay, damage, and kill at the n-th request.
//! - [`wait_until`]: a condition instead of a sleep.
//! - [`process`]: children that never outlive the run, also not after `kill -9`; [`cache`], [`prerequisites`]: what is
//!   made once and kept outside the clone.
//!
//! In `tests/scenarios`, `world.rs` shares one control plane, one S3 server and one node cluster among all scenarios:
//! `World::new("hint")` gives each its own names in them.

pub mod background;
pub mod cache;
pub mod certificates;
pub mod clock;
pub mod cluster;
pub mod csi;
pub mod ec2;
pub mod foreign;
#[cfg(target_os = "linux")]
pub mod images;
pub mod job;
pub mod moto;
pub mod network;
#[cfg(target_os = "linux")]
pub mod node;
pub mod prerequisites;
pub mod process;
pub mod proxy;
pub mod readers;
#[cfg(target_os = "linux")]
pub mod registry;
pub mod s3;
#[cfg(target_os = "linux")]
pub mod terminal;
mod wait;

pub use cluster::{ControlPlane, Options};
pub use csi::Csi;
pub use moto::MotoServer;
#[cfg(target_os = "linux")]
pub use node::NodeCluster;
pub use proxy::{FaultProxy, Gate, Rule, Victim};
pub use s3::{Bucket, S3Server};
pub use wait::wait_until;
