//! What `kubectl ark doctor` is to check, and what to do with it.

use super::place;
use crate::Surroundings;
use crate::cli::{DoctorArgs, DoctorFormat, SourceFlags};
use ark_job::args::StorageFlags;
use ark_job::error::Failure;
use std::path::PathBuf;

/// `doctor`
#[derive(Clone, Debug, PartialEq)]
pub struct DoctorOptions {
    /// Ark's namespace.
    pub namespace: String,
    /// Where backups are.
    pub storage: StorageFlags,
    /// By this process, not by a pod.
    pub local: bool,
    /// Also EC2, when no volume is one of EBS.
    pub ec2: bool,
    /// How checks are printed.
    pub output: DoctorFormat,
    /// Where the archive is to be written, if one is.
    pub bundle: Option<PathBuf>,
}

/// What was typed, in full.
///
/// # Errors
/// When the storage is none.
pub fn resolve(
    namespace: &str,
    args: DoctorArgs,
    surroundings: &Surroundings,
) -> Result<DoctorOptions, Failure> {
    let DoctorArgs {
        bundle,
        ec2,
        output,
        source: SourceFlags { storage, local },
    } = args;
    let stamp = surroundings.now.strftime("%Y%m%d%H%M%S");
    let named = |path: Option<PathBuf>| {
        path.unwrap_or_else(|| PathBuf::from(format!("ark-bundle-{stamp}.tar.gz")))
    };
    Ok(DoctorOptions {
        namespace: namespace.to_owned(),
        storage: place(storage, local, surroundings)?,
        local,
        ec2,
        output,
        bundle: bundle.map(named),
    })
}
