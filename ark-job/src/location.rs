//! BackupStorageLocations: a resource, read and made a place in storage.

use crate::api::{AccessMode, BackupStorageLocation, BackupStorageLocationSpec, GROUP};
use crate::cluster::{Cluster, ClusterError};
use crate::error::{Failure, chain};
use crate::exit::Exit;
use crate::store::{Checksum, Encryption, Location};
use k8s_openapi::api::core::v1::ConfigMap;
use serde::Deserialize;

/// A BackupStorageLocation that has been read.
#[derive(Clone, Debug)]
pub struct Read {
    /// What may be done with it.
    pub access_mode: AccessMode,
    /// Where it is.
    pub place: Location,
    /// What Velero calls the place of snapshots of EBS.
    pub velero_snapshot_location: Option<String>,
}

/// Reads a BackupStorageLocation and makes it a place.
///
/// # Errors
/// When it is not there, or is no place.
pub async fn read(cluster: &Cluster, namespace: &str, name: &str) -> Result<Read, Failure> {
    let doing = format!("reading BackupStorageLocation {name} in namespace {namespace}");
    let path = format!("/apis/{GROUP}/v1/namespaces/{namespace}/backupstoragelocations/{name}");
    let resource: BackupStorageLocation = cluster.get(&path, &doing).await.map_err(|error| {
        if error.is_not_found() {
            Failure::new(
                Exit::NotFound,
                format!("there is no BackupStorageLocation {name} in namespace {namespace}"),
            )
            .hint("`kubectl ark install --storage URL` makes one; `--storage URL` does without")
        } else {
            Failure::from_error(Exit::Failed, &error)
        }
    })?;
    let spec = resource.spec;
    let certificates = match &spec.ca_config_map {
        Some(map) => Some(read_certificates(cluster, namespace, map).await?),
        None => None,
    };
    let place = place(&spec, certificates).map_err(|why| {
        Failure::new(
            Exit::Usage,
            format!("BackupStorageLocation {name} in namespace {namespace}: {why}"),
        )
    })?;
    Ok(Read {
        access_mode: spec.access_mode,
        place,
        velero_snapshot_location: spec.velero_snapshot_location,
    })
}

/// The locations of a namespace, or of all.
///
/// # Errors
/// When the API server refuses, or cannot be asked.
pub async fn list(
    cluster: &Cluster,
    namespace: Option<&str>,
) -> Result<Vec<BackupStorageLocation>, ClusterError> {
    #[derive(Deserialize)]
    struct List {
        items: Vec<BackupStorageLocation>,
    }
    let (path, doing) = match namespace {
        Some(namespace) => (
            format!("/apis/{GROUP}/v1/namespaces/{namespace}/backupstoragelocations"),
            format!("listing the storage locations in namespace {namespace}"),
        ),
        None => (
            format!("/apis/{GROUP}/v1/backupstoragelocations"),
            "listing the storage locations of all namespaces".to_owned(),
        ),
    };
    let list: List = cluster.get(&path, &doing).await?;
    Ok(list.items)
}

async fn read_certificates(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
) -> Result<Vec<u8>, Failure> {
    let doing = format!("reading the certificates in ConfigMap {name} in namespace {namespace}");
    let path = format!("/api/v1/namespaces/{namespace}/configmaps/{name}");
    let map: ConfigMap = cluster
        .get(&path, &doing)
        .await
        .map_err(|error| Failure::from_error(Exit::Failed, &error))?;
    let certificates = map.data.unwrap_or_default().remove("ca.crt");
    certificates
        .map(String::into_bytes)
        .ok_or_else(|| Failure::new(Exit::Failed, format!("{doing}: it has no key ca.crt")))
}

/// The place that a BackupStorageLocation describes; its fields win over the query of its URL.
///
/// # Errors
/// What is wrong with it.
pub fn place(
    spec: &BackupStorageLocationSpec,
    certificates: Option<Vec<u8>>,
) -> Result<Location, String> {
    let mut location: Location = spec.url.parse().map_err(|error| chain(&error))?;
    if let Location::S3(s3) = &mut location {
        let BackupStorageLocationSpec {
            url: _,
            region,
            endpoint,
            path_style,
            checksum,
            kms_key_id,
            server_side_encryption,
            ca_config_map: _,
            profile,
            role_arn,
            // Mounted into the pod; the default chain finds it by AWS_SHARED_CREDENTIALS_FILE.
            credential_secret: _,
            velero_snapshot_location: _,
            access_mode: _,
        } = spec.clone();
        s3.region = region.or(s3.region.take());
        s3.endpoint = endpoint.or(s3.endpoint.take());
        s3.path_style = path_style.unwrap_or(s3.path_style);
        if let Some(text) = checksum {
            s3.checksum = Some(text.parse::<Checksum>().map_err(|error| chain(&error))?);
        }
        s3.kms_key_id = kms_key_id.or(s3.kms_key_id.take());
        if let Some(text) = server_side_encryption {
            s3.server_side_encryption =
                Some(text.parse::<Encryption>().map_err(|error| chain(&error))?);
        }
        s3.profile = profile.or(s3.profile.take());
        s3.role_arn = role_arn.or(s3.role_arn.take());
        s3.ca_bundle = certificates;
        s3.validate().map_err(|error| chain(&error))?;
    }
    Ok(location)
}
