//! `location …`: what was typed, checked.

use super::install::{check_credentials, location_spec};
use super::schedule::{self, Chosen, GetOptions};
use super::{read, usage};
use crate::cli::{
    CreateFormat, DescribeArgs, DryRun, LocationCommand, LocationCreateArgs, SomeLocations,
};
use ark_job::api::BackupStorageLocationSpec;
use ark_job::error::Failure;
use ark_job::identity::check_name;

/// What to do with storage locations.
#[derive(Clone, Debug)]
pub enum Options {
    /// Make one.
    Create(Box<CreateOptions>),
    /// List them.
    Get(GetOptions),
    /// Show them in full.
    Describe(Chosen),
    /// Forget them.
    Delete(Chosen),
}

/// A location to make.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateOptions {
    /// Ark's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What it says.
    pub spec: BackupStorageLocationSpec,
    /// Content of the Secret to make for it.
    pub credentials: Option<String>,
    /// Only print.
    pub dry_run: bool,
    /// How to print.
    pub output: Option<CreateFormat>,
}

/// Checks what was typed.
///
/// # Errors
/// [`ark_job::exit::Exit::Usage`], with what is wrong.
pub fn resolve(namespace: &str, command: LocationCommand) -> Result<Options, Failure> {
    Ok(match command {
        LocationCommand::Create(args) => Options::Create(Box::new(create(namespace, *args)?)),
        LocationCommand::Get(args) => Options::Get(schedule::get(namespace, args)?),
        LocationCommand::Describe(DescribeArgs { names }) => {
            Options::Describe(schedule::chosen(namespace, names, None)?)
        }
        LocationCommand::Delete(SomeLocations { names, yes: _ }) => {
            Options::Delete(schedule::chosen(namespace, names, None)?)
        }
    })
}

fn create(namespace: &str, typed: LocationCreateArgs) -> Result<CreateOptions, Failure> {
    let LocationCreateArgs {
        name,
        storage,
        access_mode,
        credentials_file,
        credentials_secret,
        dry_run,
        output,
    } = typed;
    check_name(&name).map_err(usage)?;
    let credentials = credentials_file
        .map(|path| read(&path).and_then(|text| check_credentials(&path, text)))
        .transpose()?;
    let credential_secret = match &credentials {
        Some(_) => Some(format!("ark-credentials-{name}")),
        None => credentials_secret,
    };
    Ok(CreateOptions {
        namespace: namespace.to_owned(),
        spec: BackupStorageLocationSpec {
            access_mode: access_mode.into(),
            credential_secret,
            ..location_spec(&storage)?
        },
        name,
        credentials,
        dry_run: dry_run == DryRun::Client,
        output,
    })
}
