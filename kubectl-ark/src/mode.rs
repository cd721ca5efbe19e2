//! Restore-only mode, asked before a Job is made that `ark-job` would refuse to do.
//!
//! Best effort: who may not read the mode learns it from the Job, for `ark-job` decides.

use ark_job::api::{AccessMode, BackupStorageLocation, CONFIG_NAME};
use ark_job::args::{Command, StorageFlags};
use ark_job::error::Failure;
use ark_job::location;
use ark_job::mode::refuse_by;
use ark_job::read_only::{in_place_of, named, overlap};
use ark_job::store::Location;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, ListParams};

/// Whether restore-only mode forbids a command.
pub fn writes(command: &Command) -> bool {
    match command {
        Command::Backup(_)
        | Command::Delete(_)
        | Command::Undelete(_)
        | Command::DeleteRestore(_) => true,
        Command::Expire(expire) => !expire.dry_run,
        Command::Restore(_)
        | Command::Diff(_)
        | Command::Show(_)
        | Command::Fetch(_)
        | Command::Sync(_)
        | Command::List(_)
        | Command::Doctor(_)
        | Command::Volumes(_) => false,
    }
}

/// Refuses when the installation is restore-only, or the storage, if one is named.
///
/// # Errors
/// [`Exit::Refused`](ark_job::exit::Exit::Refused), as `ark-job` would.
pub async fn refuse_unless_writable(
    client: &Client,
    namespace: &str,
    storage: Option<&StorageFlags>,
) -> Result<(), Failure> {
    let configs: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let locations: Api<BackupStorageLocation> = Api::namespaced(client.clone(), namespace);
    let listing = async {
        match storage {
            Some(_) => locations.list(&ListParams::default()).await.ok(),
            None => None,
        }
    };
    let (config, locations) = futures::join!(configs.get_opt(CONFIG_NAME), listing);
    if let Ok(config) = config {
        refuse_by(config.as_ref(), namespace)?;
    }
    match (storage, locations) {
        (Some(storage), Some(locations)) => refuse_place(storage, &locations.items, namespace),
        _ => Ok(()),
    }
}

/// Refuses when a ReadOnly location is named, or is where what is named is.
fn refuse_place(
    storage: &StorageFlags,
    locations: &[BackupStorageLocation],
    namespace: &str,
) -> Result<(), Failure> {
    let name_of =
        |location: &BackupStorageLocation| location.metadata.name.clone().unwrap_or_default();
    let place = match (&storage.storage, &storage.location) {
        (Some(url), _) => url.parse::<Location>().ok(),
        (None, Some(wanted)) => {
            let Some(location) = locations.iter().find(|one| name_of(one) == *wanted) else {
                return Ok(());
            };
            if location.spec.access_mode == AccessMode::ReadOnly {
                return Err(named(wanted, namespace).into_failure());
            }
            location::place(&location.spec, None).ok()
        }
        (None, None) => None,
    };
    let Some(place) = place.map(|place| place.canonical()) else {
        return Ok(());
    };
    for location in locations {
        if location.spec.access_mode == AccessMode::ReadOnly
            && let Ok(other) = location::place(&location.spec, None)
            && overlap(&place, &other.canonical())
        {
            return Err(in_place_of(&place, &name_of(location), namespace).into_failure());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ark_job::api::BackupStorageLocationSpec;

    #[test]
    fn a_read_only_place_is_known_by_its_name_and_by_its_url() {
        let location = |name: &str, url: &str, access_mode| {
            let spec = BackupStorageLocationSpec {
                url: url.into(),
                endpoint: Some("http://s3.local:80".into()),
                access_mode,
                ..BackupStorageLocationSpec::default()
            };
            BackupStorageLocation::new(name, spec)
        };
        let locations = [
            location("own", "s3://b/own", AccessMode::ReadWrite),
            location("old", "s3://b/old", AccessMode::ReadOnly),
            location("twin", "s3://b/old", AccessMode::ReadWrite),
        ];
        let refused = |name: Option<&str>, url: Option<&str>| {
            let storage = StorageFlags {
                location: name.map(str::to_owned),
                storage: url.map(str::to_owned),
            };
            refuse_place(&storage, &locations, "ark").is_err()
        };
        assert!(!refused(Some("own"), None));
        assert!(refused(Some("old"), None));
        assert!(refused(Some("twin"), None));
        assert!(refused(None, Some("s3://b/old/?endpoint=http://S3.local")));
        assert!(!refused(None, Some("s3://b/new?endpoint=http://s3.local")));
        assert!(!refused(None, None));
    }
}
