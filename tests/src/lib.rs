//! The throw-away cluster, the S3 and EC2 servers, and the proxy that breaks things: what the scenarios run on.

pub mod background;
pub mod cache;
mod certificates;
pub mod cluster;
#[cfg(target_os = "linux")]
pub mod images;
pub mod moto;
pub mod network;
#[cfg(target_os = "linux")]
pub mod node;
pub mod prerequisites;
pub mod process;
pub mod proxy;
pub mod s3;
mod wait;

pub use cluster::{ControlPlane, Options};
pub use moto::MotoServer;
#[cfg(target_os = "linux")]
pub use node::NodeCluster;
pub use proxy::{FaultProxy, Rule, Victim};
pub use s3::{Bucket, S3Server};
pub use wait::wait_until;
