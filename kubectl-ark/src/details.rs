//! What `describe --details` lists: the objects of a backup, counted by type and by namespace, with their sizes, and their names; from the
//! stored list of names, and the archive's footer.
//!
//! The list is read as a stream, twice (once to count), so that one of a million names takes no memory.

use crate::sizes::{Size, Sizes};
use crate::table::{Fit, Table};
use ark_job::report::plural;
use flate2::read::GzDecoder;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::Path;

/// Types, and namespaces, with the most that are counted; the list has the rest.
const MOST: usize = 15;
/// How far the tables are indented.
const INDENTED: usize = 2;

/// Writes the resource list that is stored at `path`, as gzip of `{"v1/Pod":["namespace/name",…],…}`; and sizes, if they are known.
///
/// # Errors
/// When it cannot be read, is malformed, or cannot be written.
pub fn write(
    path: &Path,
    sizes: Option<&Sizes>,
    out: impl Write,
    width: Option<usize>,
) -> io::Result<()> {
    let mut counts: Vec<(String, u64)> = Vec::new();
    let mut namespaces: BTreeMap<String, Share> = BTreeMap::new();
    // Of one type at a time.
    let mut of_type: BTreeMap<String, u64> = BTreeMap::new();
    read(path, |title, name| {
        match (name, counts.last_mut()) {
            (None, before) => {
                if let Some((before, _)) = before {
                    add(&mut namespaces, before, &mut of_type, sizes);
                }
                counts.push((title.to_owned(), 0));
            }
            (Some(name), Some((_, count))) => {
                *count += 1;
                let namespace = name.split_once('/').map_or("", |(namespace, _)| namespace);
                match of_type.get_mut(namespace) {
                    Some(count) => *count += 1,
                    None => drop(of_type.insert(namespace.to_owned(), 1)),
                }
            }
            (Some(_), None) => {}
        }
        Ok(())
    })?;
    if let Some((last, _)) = counts.last() {
        add(&mut namespaces, last, &mut of_type, sizes);
    }
    let mut out = BufWriter::new(out);
    write!(out, "{}", summary(&counts, &namespaces, sizes, width))?;
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

/// Objects of a type or namespace.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    count: u64,
    size: Size,
}

/// Adds the objects of a type, by namespace, to those of all types.
fn add(
    namespaces: &mut BTreeMap<String, Share>,
    title: &str,
    of_type: &mut BTreeMap<String, u64>,
    sizes: Option<&Sizes>,
) {
    let of_type = std::mem::take(of_type);
    for (namespace, size) in sizes
        .map(|sizes| sizes.by_namespace(title, &of_type))
        .into_iter()
        .flatten()
    {
        namespaces
            .entry(namespace.to_owned())
            .or_default()
            .size
            .add(size);
    }
    for (namespace, count) in of_type {
        namespaces.entry(namespace).or_default().count += count;
    }
}

/// How many objects there are, and how large they are if that is known, by type and by namespace (an empty one is the cluster), the
/// most first.
fn summary(
    types: &[(String, u64)],
    namespaces: &BTreeMap<String, Share>,
    sizes: Option<&Sizes>,
    width: Option<usize>,
) -> String {
    let size = |title: &str| sizes.map_or_else(Size::default, |sizes| sizes.of_type(title));
    let types: Vec<(&str, Share)> = types
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(title, count)| {
            (
                title.as_str(),
                Share {
                    count: *count,
                    size: size(title),
                },
            )
        })
        .collect();
    let namespaces: Vec<(&str, Share)> = namespaces
        .iter()
        .map(|(name, share)| match name.as_str() {
            "" => ("(cluster-scoped)", *share),
            name => (name, *share),
        })
        .collect();
    let mut all = Share::default();
    for (_, share) in &types {
        all.count += share.count;
        all.size.add(share.size);
    }
    let mut text = format!("\nContents:           {}", plural(all.count, "object"));
    if sizes.is_some() {
        text.push_str(&format!(", {} before compression", all.size));
    }
    text.push('\n');
    for (header, shares) in [("TYPE", types), ("NAMESPACE", namespaces)] {
        text.push_str(&most(header, shares, sizes.is_some(), width));
    }
    text
}

fn most(
    header: &'static str,
    mut counts: Vec<(&str, Share)>,
    sized: bool,
    width: Option<usize>,
) -> String {
    // Stable: of as many, by name. Without sizes, all are zero.
    counts.sort_by_key(|(_, share)| Reverse((share.size.bytes, share.count)));
    let header = [header, "OBJECTS", "SIZE"];
    let columns = if sized { 3 } else { 2 };
    // The list below has whole names.
    let mut table = Table::new(&header[..columns]).fit(Fit {
        leave_out: &[],
        cut: &["TYPE", "NAMESPACE"],
    });
    for (name, share) in counts.iter().take(MOST) {
        let row = [
            (*name).to_owned(),
            share.count.to_string(),
            share.size.to_string(),
        ];
        table.push(row.into_iter().take(columns).collect());
    }
    let mut text: String = table
        .render_within(true, width.map(|width| width.saturating_sub(INDENTED)))
        .lines()
        .map(|line| format!("  {line}\n"))
        .collect();
    if counts.len() > MOST {
        text.push_str(&format!("  and {} more\n", counts.len() - MOST));
    }
    text
}

/// All names of one type, at most `most`; and how many there are.
///
/// # Errors
/// When the list cannot be read or is malformed.
pub fn names(path: &Path, wanted: &str, most: usize) -> io::Result<(Vec<String>, usize)> {
    let (mut found, mut all) = (Vec::new(), 0);
    read(path, |title, name| {
        if let (true, Some(name)) = (title == wanted, name) {
            all += 1;
            if found.len() < most {
                found.push(name.to_owned());
            }
        }
        Ok(())
    })?;
    Ok((found, all))
}

/// The types of which there are objects, as `apps/v1/Deployment`.
///
/// # Errors
/// As [`names`].
pub fn types(path: &Path) -> io::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    read(path, |title, name| {
        if name.is_some() && !found.contains(title) {
            found.insert(title.to_owned());
        }
        Ok(())
    })?;
    Ok(found)
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

    fn stored(json: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut gzip = GzEncoder::new(file.as_file(), Compression::new(3));
        gzip.write_all(json.as_bytes()).unwrap();
        gzip.finish().unwrap();
        file
    }

    fn written(json: &str) -> io::Result<String> {
        let file = stored(json);
        let mut out = Vec::new();
        write(file.path(), None, &mut out, None).map(|()| String::from_utf8(out).unwrap())
    }

    #[test]
    fn types_are_counted_and_names_listed() {
        let text = written(r#"{"apps/v1/Deployment":["a/x","b/y"],"v1/Node":[],"v1/Pod":["a/p"]}"#);
        assert_eq!(
            text.unwrap(),
            "\nContents:           3 objects\n  TYPE                 OBJECTS\n  apps/v1/Deployment   2\n  v1/Pod               1\n  \
             NAMESPACE   OBJECTS\n  a           2\n  b           1\n\
             \nResource list:\n  apps/v1/Deployment (2)\n    a/x\n    b/y\n  v1/Node (0)\n  v1/Pod (1)\n    a/p\n"
        );
    }

    #[test]
    fn with_sizes_the_largest_comes_first() {
        let file = stored(r#"{"v1/Pod":["a/p","a/q","b/p"],"v1/Secret":["b/s"]}"#);
        let sizes = Sizes::of(&[("v1/Pod", 300), ("v1/Secret", 5000)]);
        let mut out = Vec::new();
        write(file.path(), Some(&sizes), &mut out, None).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text.split("\nResource list").next(),
            Some(
                "\nContents:           4 objects, 5.18 KiB before compression\n  \
                 TYPE        OBJECTS   SIZE\n  v1/Secret   1         4.88 KiB\n  v1/Pod      3         300 B\n  \
                 NAMESPACE   OBJECTS   SIZE\n  b           2         ~4.98 KiB\n  a           2         ~200 B\n"
            )
        );
    }

    #[test]
    fn names_and_types_are_found() {
        let file = stored(r#"{"v1/Namespace":["a"],"v1/Node":[],"v1/Pod":["a/p","a/q","a/r"]}"#);
        let (found, all) = names(file.path(), "v1/Pod", 2).unwrap();
        assert_eq!((found, all), (vec!["a/p".to_owned(), "a/q".to_owned()], 3));
        let types: Vec<String> = types(file.path()).unwrap().into_iter().collect();
        assert_eq!(types, ["v1/Namespace", "v1/Pod"]);
    }

    #[test]
    fn what_is_no_list_is_an_error() {
        for json in ["[]", r#"{"v1/Pod":"a"}"#, r#"{"v1/Pod":["#] {
            written(json).unwrap_err();
        }
    }
}
