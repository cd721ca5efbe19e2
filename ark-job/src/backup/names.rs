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

/// Names, by type and part, in the order they were added to each.
pub struct NameLists {
    file: File,
    length: u64,
    /// By type, and then by part in the order of keys, in which those of `a-b/` come before those of `a/`.
    types: BTreeMap<String, BTreeMap<String, Chunks>>,
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
            let parts = self.types.get(&entry.resource).into_iter().flatten();
            let with_names = parts.filter(|(_, chunks)| chunks.any);
            let mut buffer = Vec::new();
            for (n, (_, chunks)) in with_names.enumerate() {
                gzip.write_all(if n == 0 { b"" } else { b"," })?;
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

impl NameLists {
    fn chunks(&mut self, resource: &str, part: Option<&str>) -> &mut Chunks {
        if !self.types.contains_key(resource) {
            self.types.insert(resource.to_owned(), BTreeMap::new());
        }
        let parts = self.types.get_mut(resource).expect("it was just inserted");
        let part = part.map_or(String::new(), |namespace| format!("{namespace}/"));
        parts.entry(part).or_default()
    }
}

impl Names for NameLists {
    fn add(&mut self, resource: &str, part: Option<&str>, key: &str) -> io::Result<()> {
        let chunks = self.chunks(resource, part);
        if chunks.any {
            chunks.pending.push(b',');
        }
        chunks.any = true;
        serde_json::to_writer(&mut chunks.pending, key)?;
        if chunks.pending.len() >= CHUNK {
            self.end(resource, part)?;
        }
        Ok(())
    }

    fn end(&mut self, resource: &str, part: Option<&str>) -> io::Result<()> {
        let (length, pending) = (
            self.length,
            std::mem::take(&mut self.chunks(resource, part).pending),
        );
        if pending.is_empty() {
            return Ok(());
        }
        self.file.seek(SeekFrom::Start(length))?;
        self.file.write_all(&pending)?;
        self.length += pending.len() as u64;
        self.chunks(resource, part)
            .written
            .push((length, pending.len()));
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
            names.add("pods", None, &format!("a/p{n}")).unwrap();
            names
                .add("deployments.apps", None, &format!("a/d{n}"))
                .unwrap();
        }
        // Parts are put in order, whatever the order in which they come.
        for part in ["b", "a", "a-b"] {
            for n in 0..200 {
                let key = format!("{part}/s{n:03}");
                names.add("secrets", Some(part), &key).unwrap();
            }
            names.end("secrets", Some(part)).unwrap();
        }
        let types = [
            entry("pods", "v1", "Pod"),
            entry("deployments.apps", "apps/v1", "Deployment"),
            entry("secrets", "v1", "Secret"),
        ];
        let gzip = names.write_gzip(&types, Vec::new()).unwrap();
        let json: BTreeMap<String, Vec<String>> =
            serde_json::from_reader(flate2::read::GzDecoder::new(&gzip[..])).unwrap();
        assert_eq!(
            json.keys().collect::<Vec<_>>(),
            ["apps/v1/Deployment", "v1/Pod", "v1/Secret"]
        );
        assert_eq!(
            json["v1/Pod"],
            (0..2000).map(|n| format!("a/p{n}")).collect::<Vec<_>>()
        );
        assert_eq!(json["apps/v1/Deployment"].len(), 2000);
        let mut sorted = json["v1/Secret"].clone();
        sorted.sort_unstable();
        assert_eq!(
            (json["v1/Secret"].len(), &json["v1/Secret"]),
            (600, &sorted)
        );
    }
}
