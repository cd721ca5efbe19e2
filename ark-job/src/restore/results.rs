//! What is stored of a restore: what was done with each object, the warnings and errors, the log.
//!
//! Where the backup is, unless nothing may be written there: then in a ConfigMap, as far as it fits.

use crate::api::{
    AccessMode, KEPT_LIST_KEY, KEPT_LOG_KEY, KEPT_REFERENCE, KEPT_RESULTS_KEY, RESTORE_NAME_LABEL,
    kept_results_name,
};
use crate::cluster::ClusterError;
use crate::context::Context;
use crate::kept::{Kept, log_tail};
use crate::layout::RestoreKeys;
use crate::report::Results;
use crate::store::{Created, StoreError};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;

/// Characters of a message that a ConfigMap keeps: with a hundred warnings, as many errors and the log it stays below half
/// of the 1 MiB that it may have.
const KEPT_TEXT_MAX: usize = 1000;
/// Bytes of a compressed list that a ConfigMap keeps: tens of thousands of objects.
const KEPT_LIST_MAX: usize = 256 << 10;

/// What was done with each object, in Velero's shape: gzip of `{"v1/Pod":["namespace/name(created)",…],…}`.
///
/// Types come one after the other, so the list is written as it grows, to a temporary file.
pub struct ResourceList {
    gzip: GzEncoder<File>,
    types: u64,
    objects: u64,
}

impl ResourceList {
    /// An empty list, whose file is in `directory`.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn new(directory: &Path) -> io::Result<ResourceList> {
        let file = tempfile::tempfile_in(directory)?;
        Ok(ResourceList {
            gzip: GzEncoder::new(file, Compression::new(3)),
            types: 0,
            objects: 0,
        })
    }

    /// Begins the type called `<apiVersion>/<kind>`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn begin(&mut self, api_version: &str, kind: &str) -> io::Result<()> {
        let opening = if self.types == 0 { "{" } else { "]," };
        self.types += 1;
        self.objects = 0;
        let title = serde_json::Value::from(format!("{api_version}/{kind}"));
        write!(self.gzip, "{opening}{title}:[")
    }

    /// Adds an object of the type that was begun last.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn add(&mut self, key: &str, what: &str) -> io::Result<()> {
        let separator = if self.objects == 0 { "" } else { "," };
        self.objects += 1;
        let line = serde_json::Value::from(format!("{key}({what})"));
        write!(self.gzip, "{separator}{line}")
    }

    /// The whole list, compressed.
    ///
    /// # Errors
    /// When the file cannot be written or read back.
    pub fn finish(mut self) -> io::Result<Bytes> {
        self.gzip
            .write_all(if self.types == 0 { b"{}\n" } else { b"]}\n" })?;
        let mut file = self.gzip.finish()?;
        file.rewind()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes.into())
    }
}

/// Why results could not be stored. The restore itself is done.
#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    /// A temporary file failed.
    #[error("collecting the results")]
    Collect(#[from] io::Error),
    /// The store failed.
    #[error("storing the results")]
    Store(#[from] StoreError),
    /// The location is ReadOnly, and the ConfigMap cannot be written.
    #[error("the storage location is ReadOnly, and they cannot be kept in the cluster")]
    Keep(#[from] ClusterError),
}

/// Where the results of a restore are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In storage: the key of the first file, from which the others follow.
    Stored(String),
    /// In the ConfigMap of this name.
    Kept(String),
}

impl Place {
    /// As the status of a Restore has it.
    pub fn reference(&self) -> String {
        match self {
            Place::Stored(key) => key.clone(),
            Place::Kept(name) => format!("{KEPT_REFERENCE}{name}"),
        }
    }
}

/// Stores the files of the restore called `name`.
///
/// # Errors
/// When a file cannot be read back or stored.
pub async fn store(
    context: &Context,
    name: &str,
    results: &Results,
    list: ResourceList,
) -> Result<Place, ResultsError> {
    match context.access_mode {
        AccessMode::ReadWrite => store_files(context, name, results, list).await,
        AccessMode::ReadOnly => keep_in_cluster(context, name, results, list).await,
    }
}

async fn keep_in_cluster(
    context: &Context,
    name: &str,
    results: &Results,
    list: ResourceList,
) -> Result<Place, ResultsError> {
    let json = serde_json::to_string(&results.shortened(KEPT_TEXT_MAX)).map_err(io::Error::from)?;
    let list = list.finish()?;
    let small = list.len() <= KEPT_LIST_MAX;
    if !small {
        context
            .log
            .info("the list of all objects is too long to be kept in the cluster");
    }
    let config_map = kept_results_name(name);
    let kept = Kept {
        name: config_map.clone(),
        operation: "restore",
        label: (RESTORE_NAME_LABEL, name.to_owned()),
        data: [
            (KEPT_RESULTS_KEY.to_owned(), json),
            (KEPT_LOG_KEY.to_owned(), log_tail(context)),
        ]
        .into(),
        binary_data: small
            .then(|| (KEPT_LIST_KEY.to_owned(), list.to_vec()))
            .into_iter()
            .collect(),
    };
    kept.write(context).await?;
    Ok(Place::Kept(config_map))
}

async fn store_files(
    context: &Context,
    name: &str,
    results: &Results,
    list: ResourceList,
) -> Result<Place, ResultsError> {
    let json = serde_json::to_vec(results).map_err(io::Error::from)?;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::new(6));
    gzip.write_all(&json)?;
    let results = Bytes::from(gzip.finish()?);
    let own = RestoreKeys::new(name);
    let keys = match context
        .store
        .put_new(&own.results(), results.clone())
        .await?
    {
        Created::New { .. } => own,
        // Another run has used the name; only in its own directory may this one write beside it.
        Created::Exists => {
            let keys = RestoreKeys::of_run(name, &context.run.id);
            keep(context, &keys.results(), results).await?;
            keys
        }
    };
    keep(context, &keys.resource_list(), list.finish()?).await?;
    keep(context, &keys.logs(), context.log.to_gzip()?).await?;
    Ok(Place::Stored(keys.results()))
}

/// Stores a file unless an earlier attempt of this run has.
async fn keep(context: &Context, key: &str, content: Bytes) -> Result<(), StoreError> {
    if context.store.put_new(key, content).await? == Created::Exists {
        context.log.info(&format!(
            "{key} is kept as an earlier attempt has written it"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn read(list: ResourceList) -> BTreeMap<String, Vec<String>> {
        let bytes = list.finish().unwrap();
        serde_json::from_reader(flate2::read::GzDecoder::new(&bytes[..])).unwrap()
    }

    #[test]
    fn the_resource_list_has_veleros_shape() {
        let new = || ResourceList::new(&std::env::temp_dir()).unwrap();
        assert_eq!(read(new()), BTreeMap::new());
        let mut list = new();
        list.begin("v1", "Pod").unwrap();
        list.add("a/p", "created").unwrap();
        list.add("a/q", "failed").unwrap();
        list.begin("v1", "Node").unwrap();
        let expected = BTreeMap::from([
            (
                "v1/Pod".to_owned(),
                vec!["a/p(created)".to_owned(), "a/q(failed)".to_owned()],
            ),
            ("v1/Node".to_owned(), vec![]),
        ]);
        assert_eq!(read(list), expected);
    }
}
