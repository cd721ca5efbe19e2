//! What `describe --details` lists: the objects of a backup by type, from the stored list of names.
//!
//! The list is read as a stream, twice (once to count), so that one of a million names takes no memory.

use flate2::read::GzDecoder;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::Path;

/// Writes the resource list that is stored at `path`, as gzip of `{"v1/Pod":["namespace/name",…],…}`.
///
/// # Errors
/// When it cannot be read, is malformed, or cannot be written.
pub fn write(path: &Path, out: impl Write) -> io::Result<()> {
    let mut counts: Vec<(String, u64)> = Vec::new();
    read(path, |title, name| {
        match (name, counts.last_mut()) {
            (None, _) => counts.push((title.to_owned(), 0)),
            (Some(_), Some((_, count))) => *count += 1,
            (Some(_), None) => {}
        }
        Ok(())
    })?;
    let mut out = BufWriter::new(out);
    writeln!(out, "\nResource list:")?;
    let mut counts = counts.iter();
    read(path, |title, name| match name {
        None => {
            let count = counts.next().map_or(0, |(_, count)| *count);
            writeln!(out, "  {title} ({count})")
        }
        Some(name) => writeln!(out, "    {name}"),
    })?;
    out.flush()
}

/// Calls `each` with every type, and after it with each of its names.
fn read(path: &Path, each: impl FnMut(&str, Option<&str>) -> io::Result<()>) -> io::Result<()> {
    let file = BufReader::new(File::open(path)?);
    let mut json = serde_json::Deserializer::from_reader(BufReader::new(GzDecoder::new(file)));
    let mut types = Types { each, failed: None };
    let result = (&mut types)
        .deserialize(&mut json)
        .and_then(|()| json.end());
    match types.failed {
        Some(error) => Err(error),
        None => result.map_err(io::Error::from),
    }
}

struct Types<F> {
    each: F,
    failed: Option<io::Error>,
}

impl<F: FnMut(&str, Option<&str>) -> io::Result<()>> Types<F> {
    /// An error of the caller's stops the reading, and is not the reader's.
    fn call<E: serde::de::Error>(&mut self, title: &str, name: Option<&str>) -> Result<(), E> {
        (self.each)(title, name).map_err(|error| {
            self.failed = Some(error);
            E::custom("stopped")
        })
    }
}

impl<'de, F: FnMut(&str, Option<&str>) -> io::Result<()>> DeserializeSeed<'de> for &mut Types<F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F: FnMut(&str, Option<&str>) -> io::Result<()>> Visitor<'de> for &mut Types<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of types")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(title) = map.next_key::<String>()? {
            self.call(&title, None)?;
            map.next_value_seed(Names {
                title: &title,
                types: &mut *self,
            })?;
        }
        Ok(())
    }
}

struct Names<'a, F> {
    title: &'a str,
    types: &'a mut Types<F>,
}

impl<'de, F: FnMut(&str, Option<&str>) -> io::Result<()>> DeserializeSeed<'de> for Names<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, F: FnMut(&str, Option<&str>) -> io::Result<()>> Visitor<'de> for Names<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of names")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(name) = list.next_element::<String>()? {
            self.types.call(self.title, Some(&name))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;

    fn written(json: &str) -> io::Result<String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut gzip = GzEncoder::new(file.as_file(), Compression::new(3));
        gzip.write_all(json.as_bytes()).unwrap();
        gzip.finish().unwrap();
        let mut out = Vec::new();
        write(file.path(), &mut out).map(|()| String::from_utf8(out).unwrap())
    }

    #[test]
    fn types_are_counted_and_names_listed() {
        let text = written(r#"{"apps/v1/Deployment":["a/x","b/y"],"v1/Node":[],"v1/Pod":["a/p"]}"#);
        assert_eq!(
            text.unwrap(),
            "\nResource list:\n  apps/v1/Deployment (2)\n    a/x\n    b/y\n  v1/Node (0)\n  v1/Pod (1)\n    a/p\n"
        );
    }

    #[test]
    fn what_is_no_list_is_an_error() {
        for json in ["[]", r#"{"v1/Pod":"a"}"#, r#"{"v1/Pod":["#] {
            written(json).unwrap_err();
        }
    }
}
