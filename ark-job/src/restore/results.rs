//! What is stored of a restore: what was done with each object, the warnings and errors, the log.

use crate::context::Context;
use crate::layout::RestoreKeys;
use crate::report::Results;
use crate::store::{Created, StoreError};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;

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
}

/// Stores the files of the restore called `name` and returns the key of the first, from which the others follow.
///
/// # Errors
/// When a file cannot be read back or stored.
pub async fn store(
    context: &Context,
    name: &str,
    results: &Results,
    list: ResourceList,
) -> Result<String, ResultsError> {
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
    Ok(keys.results())
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
