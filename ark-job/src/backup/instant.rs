//! The instant of a backup: the revision at which all types are read, and which types cannot be read at it.

use crate::cluster::discover::ResourceType;
use crate::cluster::list::{At, Stand, stand};
use crate::cluster::{Cluster, ClusterError};
use crate::filter::Named;
use futures::stream::{self, StreamExt};
use std::collections::BTreeMap;

/// Types asked at once where they stand, before the instant is fixed.
const PROBES_AT_ONCE: usize = 8;

/// The instant of a backup.
#[derive(Debug)]
pub struct Instant {
    /// The revision.
    pub version: String,
    /// Types that could not be listed at all, or have a revision of their own.
    pub apart: BTreeMap<String, Apart>,
    /// Where each type stood just before.
    pub stands: BTreeMap<String, Stand>,
}

/// Why a type is not read at the instant.
#[derive(Debug)]
pub enum Apart {
    /// Kept in another etcd, or by another server: its revisions mean something else.
    Elsewhere,
    /// Could not be listed.
    Failed(ClusterError),
}

impl Instant {
    /// Which revision a type is read at.
    pub fn at(&self, candidate: &ResourceType) -> At {
        match self.apart.get(&candidate.group_resource()) {
            Some(Apart::Elsewhere) => At::Now,
            _ => At::Exact(self.version.clone()),
        }
    }
}

/// Fixes the instant: the revision at which all types are read.
///
/// Every type is asked where it stands, between two looks at the namespaces: a type that stands outside of what the two
/// looks span is not kept in the same etcd, and its revisions cannot be compared.
///
/// # Errors
/// When namespaces cannot be listed, or the API server is gone.
pub async fn fix_instant(
    cluster: &Cluster,
    types: &[&ResourceType],
) -> Result<Instant, ClusterError> {
    let namespaces = ResourceType::namespaces();
    let look = async || {
        let stand = stand(cluster, &namespaces, At::Now).await?;
        let number = stand
            .version
            .as_deref()
            .and_then(|version| version.parse::<u64>().ok());
        number.ok_or_else(|| ClusterError::Malformed {
            doing: "listing namespaces".into(),
            source: "the answer has no resourceVersion".into(),
        })
    };
    let first = look().await?;
    let probes = stream::iter(types.iter().map(|&candidate| async move {
        (
            candidate.group_resource(),
            stand(cluster, candidate, At::Now).await,
        )
    }));
    let mut probes = probes.buffer_unordered(PROBES_AT_ONCE);
    let mut probed = Vec::new();
    while let Some((resource, stand)) = probes.next().await {
        probed.push((
            resource,
            match stand {
                Err(error) => Err(of_one_type(cluster, error).await?),
                Ok(stand) => Ok(stand),
            },
        ));
    }
    let last = look().await?;
    let (mut apart, mut stands) = (BTreeMap::new(), BTreeMap::new());
    for (resource, stand) in probed {
        match stand {
            Err(error) => {
                apart.insert(resource, Apart::Failed(error));
            }
            Ok(stand) => {
                let version = stand.version.as_deref();
                let number = version.and_then(|version| version.parse::<u64>().ok());
                if !number.is_some_and(|number| (first..=last).contains(&number)) {
                    apart.insert(resource.clone(), Apart::Elsewhere);
                }
                stands.insert(resource, stand);
            }
        }
    }
    Ok(Instant {
        version: last.to_string(),
        apart,
        stands,
    })
}

/// The error that retries did not cure, if it concerns one type only.
///
/// # Errors
/// The same, when the API server is gone: each further type would be retried as long, for nothing.
pub async fn of_one_type(
    cluster: &Cluster,
    error: ClusterError,
) -> Result<ClusterError, ClusterError> {
    if error.is_transient() && !cluster.is_there().await {
        return Err(error);
    }
    Ok(error)
}
