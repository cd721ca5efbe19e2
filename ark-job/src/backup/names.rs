//! The names of what is in an archive, by type, for the resource list that Velero and `describe --details` show.
//!
//! A large cluster has more names than should be in memory: they go to a temporary file as they come, in chunks of one
//! type each.

use super::gather::Names;
use crate::archive::footer::TypeEntry;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Names of one type kept in memory before they go to the file, bytes.
const CHUNK: usize = 4096;

/// Names, by type, in the order they were added.
pub struct NameLists {
    file: File,
    length: u64,
    types: BTreeMap<String, Chunks>,
}

#[derive(Default)]
struct Chunks {
    /// Offset and length of what is in the file.
    written: Vec<(u64, usize)>,
    /// JSON strings, separated by commas.
    pending: Vec<u8>,
    any: bool,
}

impl NameLists {
    /// Empty lists, whose file is in `directory`.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn new(directory: &Path) -> io::Result<NameLists> {
        Ok(NameLists {
            file: tempfile::tempfile_in(directory)?,
            length: 0,
            types: BTreeMap::new(),
        })
    }

    /// The lists as Velero stores them: gzip of `{"v1/Pod":["namespace/name",…],…}`, written to `out`.
    ///
    /// # Errors
    /// When the file cannot be read back, or `out` cannot be written.
    pub fn write_gzip<W: Write>(&mut self, types: &[TypeEntry], out: W) -> io::Result<W> {
        let mut gzip = GzEncoder::new(out, Compression::new(3));
        gzip.write_all(b"{")?;
        let mut sorted: Vec<(String, &TypeEntry)> = types
            .iter()
            .map(|entry| (format!("{}/{}", entry.api_version, entry.kind), entry))
            .collect();
        sorted.sort_by(|a, b| a.0.cmp(&b.0));
        for (n, (title, entry)) in sorted.iter().enumerate() {
            let separator = if n == 0 { "" } else { "," };
            write!(
                gzip,
                "{separator}{}:[",
                serde_json::Value::from(title.as_str())
            )?;
            if let Some(chunks) = self.types.get(&entry.resource) {
                let mut buffer = Vec::new();
                for &(offset, length) in &chunks.written {
                    buffer.resize(length, 0);
                    self.file.seek(SeekFrom::Start(offset))?;
                    self.file.read_exact(&mut buffer)?;
                    gzip.write_all(&buffer)?;
                }
                gzip.write_all(&chunks.pending)?;
            }
            gzip.write_all(b"]")?;
        }
        gzip.write_all(b"}\n")?;
        gzip.finish()
    }
}

impl Names for NameLists {
    fn add(&mut self, resource: &str, key: &str) -> io::Result<()> {
        if !self.types.contains_key(resource) {
            self.types.insert(resource.to_owned(), Chunks::default());
        }
        let Some(chunks) = self.types.get_mut(resource) else {
            return Ok(());
        };
        if chunks.any {
            chunks.pending.push(b',');
        }
        chunks.any = true;
        serde_json::to_writer(&mut chunks.pending, key)?;
        if chunks.pending.len() >= CHUNK {
            self.file.seek(SeekFrom::Start(self.length))?;
            self.file.write_all(&chunks.pending)?;
            chunks.written.push((self.length, chunks.pending.len()));
            self.length += chunks.pending.len() as u64;
            chunks.pending.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_types_that_come_interleaved_are_sorted_out() {
        let entry = |resource: &str, api_version: &str, kind: &str| TypeEntry {
            resource: resource.into(),
            api_version: api_version.into(),
            kind: kind.into(),
            namespaced: true,
            items: 0,
            bytes: 0,
            unsorted: false,
            resource_version: None,
        };
        let mut names = NameLists::new(&std::env::temp_dir()).unwrap();
        for n in 0..2000 {
            names.add("pods", &format!("a/p{n}")).unwrap();
            names.add("deployments.apps", &format!("a/d{n}")).unwrap();
        }
        let types = [
            entry("pods", "v1", "Pod"),
            entry("deployments.apps", "apps/v1", "Deployment"),
        ];
        let gzip = names.write_gzip(&types, Vec::new()).unwrap();
        let json: BTreeMap<String, Vec<String>> =
            serde_json::from_reader(flate2::read::GzDecoder::new(&gzip[..])).unwrap();
        assert_eq!(
            json.keys().collect::<Vec<_>>(),
            ["apps/v1/Deployment", "v1/Pod"]
        );
        assert_eq!(
            json["v1/Pod"],
            (0..2000).map(|n| format!("a/p{n}")).collect::<Vec<_>>()
        );
        assert_eq!(json["apps/v1/Deployment"].len(), 2000);
    }
}
