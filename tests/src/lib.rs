//! The throw-away cluster, the S3 and EC2 servers, and the proxy that breaks things: what the scenarios run on.

pub mod background;
pub mod cache;
mod certificates;
pub mod cluster;
pub mod moto;
pub mod network;
pub mod prerequisites;
pub mod process;
pub mod proxy;
pub mod s3;
mod wait;

pub use cluster::{ControlPlane, Options};
pub use moto::MotoServer;
pub use proxy::FaultProxy;
pub use s3::{Bucket, S3Server};
pub use wait::wait_until;
