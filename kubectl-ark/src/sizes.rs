//! How large what is in a backup is, from the footer of its archive: by type exactly; by namespace as well as the footer tells
//! it, which knows namespaces only where a piece of the archive has the objects of one.
//!
//! The footer is read as a stream. What is kept grows with types, and with pieces of a MiB or so; never with objects.

use ark_job::archive::FOOTER_ENTRY;
use ark_job::archive::footer::{Member, TypeEntry};
use flate2::read::GzDecoder;
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::Path;

/// Length of the header of an entry of a tar.
const TAR_HEADER: usize = 512;

/// What is known of sizes, by types as `apps/v1/Deployment`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sizes(BTreeMap<String, OfType>);

/// What is known of one type.
#[derive(Clone, Debug, Default, PartialEq)]
struct OfType {
    /// All its objects as JSON, bytes.
    bytes: u64,
    /// Pieces that hold objects of one namespace.
    known: BTreeMap<String, Piece>,
    /// All others.
    mixed: Piece,
}

/// Objects of the archive, and how much room they take in it before compression.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Piece {
    items: u64,
    size: u64,
}

impl Piece {
    fn add(&mut self, member: &Member) {
        self.items = self.items.saturating_add(member.items);
        self.size = self.size.saturating_add(member.size);
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// The number.
    pub bytes: u64,
    /// Whether it may be another one.
    pub estimated: bool,
}

impl Size {
    /// The sum.
    pub fn add(&mut self, other: Size) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.estimated |= other.estimated;
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = crate::age::bytes(i64::try_from(self.bytes).unwrap_or(i64::MAX));
        let about = if self.estimated { "~" } else { "" };
        write!(f, "{about}{bytes}")
    }
}

impl Sizes {
    /// Reads a footer as it is stored: gzip of a tar with one entry.
    ///
    /// # Errors
    /// When it cannot be read, or is none.
    pub fn read(path: &Path) -> io::Result<Sizes> {
        let mut tar = GzDecoder::new(BufReader::new(File::open(path)?));
        let mut header = [0; TAR_HEADER];
        tar.read_exact(&mut header)?;
        if !header.starts_with(FOOTER_ENTRY.as_bytes()) {
            return Err(io::Error::new(ErrorKind::InvalidData, "it is no footer"));
        }
        // After the JSON comes what fills the tar's last block.
        let mut json = serde_json::Deserializer::from_reader(BufReader::new(tar));
        Footer::deserialize(&mut json)
            .map(Footer::sizes)
            .map_err(io::Error::from)
    }

    /// Of types whose objects lie in pieces with those of others.
    #[cfg(test)]
    pub fn of(types: &[(&str, u64)]) -> Sizes {
        let of_type = |bytes: u64| OfType {
            bytes,
            mixed: Piece { items: 1, size: 1 },
            ..OfType::default()
        };
        let types = types.iter();
        Sizes(
            types
                .map(|(title, bytes)| ((*title).to_owned(), of_type(*bytes)))
                .collect(),
        )
    }

    /// All objects of a type.
    pub fn of_type(&self, title: &str) -> Size {
        Size {
            bytes: self.0.get(title).map_or(0, |of_type| of_type.bytes),
            estimated: false,
        }
    }

    /// The objects of a type in each of these namespaces (empty: of the cluster), of which it is known how many objects they have.
    ///
    /// Where pieces have objects of several, these get what is left, in proportion to their objects.
    pub fn by_namespace<'a>(
        &self,
        title: &str,
        counts: &'a BTreeMap<String, u64>,
    ) -> Vec<(&'a str, Size)> {
        let Some(of_type) = self.0.get(title) else {
            return Vec::new();
        };
        let OfType {
            bytes,
            known,
            mixed,
        } = of_type;
        let mean = match mixed.items {
            0 => 0.0,
            items => mixed.size as f64 / items as f64,
        };
        let shares: Vec<(&str, f64)> = counts
            .iter()
            .map(|(namespace, count)| {
                let piece = known.get(namespace).copied().unwrap_or_default();
                let others = count.saturating_sub(piece.items) as f64;
                (namespace.as_str(), piece.size as f64 + mean * others)
            })
            .collect();
        let all: f64 = shares.iter().map(|(_, share)| share).sum();
        let alone = shares.len() == 1;
        shares
            .into_iter()
            .map(|(namespace, share)| {
                let size = Size {
                    bytes: match alone {
                        true => *bytes,
                        false if all > 0.0 => (*bytes as f64 * share / all).round() as u64,
                        false => 0,
                    },
                    estimated: !alone,
                };
                (namespace, size)
            })
            .collect()
    }
}

#[derive(Deserialize)]
struct Footer {
    types: Vec<TypeEntry>,
    members: Pieces,
}

/// The members, summed up while they are read: by resource.
#[derive(Default)]
struct Pieces(BTreeMap<String, OfType>);

impl Footer {
    fn sizes(self) -> Sizes {
        let Footer {
            types,
            members: Pieces(mut pieces),
        } = self;
        let mut sizes = Sizes::default();
        for entry in types {
            let mut of_type = pieces.remove(&entry.resource).unwrap_or_default();
            // Keys that are not in order say nothing of what is between the first and the last.
            if entry.unsorted {
                for (_, piece) in std::mem::take(&mut of_type.known) {
                    of_type.mixed.items += piece.items;
                    of_type.mixed.size += piece.size;
                }
            }
            of_type.bytes = entry.bytes;
            let title = format!("{}/{}", entry.api_version, entry.kind);
            sizes.0.insert(title, of_type);
        }
        sizes
    }
}

impl<'de> Deserialize<'de> for Pieces {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pieces, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Pieces;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of members")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Pieces, A::Error> {
                let mut pieces = Pieces::default();
                while let Some(member) = list.next_element::<Member>()? {
                    pieces.add(&member);
                }
                Ok(pieces)
            }
        }
        deserializer.deserialize_seq(Members)
    }
}

impl Pieces {
    fn add(&mut self, member: &Member) {
        if !self.0.contains_key(&member.resource) {
            self.0.insert(member.resource.clone(), OfType::default());
        }
        let Some(of_type) = self.0.get_mut(&member.resource) else {
            return;
        };
        match namespace_of(member) {
            None => of_type.mixed.add(member),
            Some(namespace) => match of_type.known.get_mut(namespace) {
                Some(piece) => piece.add(member),
                None => {
                    let mut piece = Piece::default();
                    piece.add(member);
                    of_type.known.insert(namespace.to_owned(), piece);
                }
            },
        }
    }
}

/// The namespace of all objects of a member, if they have one: in order of keys, what is between two of a namespace is of it.
fn namespace_of(member: &Member) -> Option<&str> {
    if let Some(part) = &member.part {
        return Some(part);
    }
    let namespace = |key: &'_ str| {
        key.split_once('/')
            .map_or(0, |(namespace, _)| namespace.len())
    };
    let length = namespace(&member.first);
    (length == namespace(&member.last) && member.first[..length] == member.last[..length])
        .then(|| &member.first[..length])
}

#[cfg(test)]
mod tests {
    use super::*;
    use ark_job::archive::footer::{Footer as Stored, Head};
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    fn member(
        resource: &str,
        part: Option<&str>,
        items: u64,
        size: u64,
        keys: [&str; 2],
    ) -> Member {
        Member {
            offset: 0,
            length: 1,
            size,
            sha256: String::new(),
            resource: resource.into(),
            part: part.map(str::to_owned),
            items,
            first: keys[0].into(),
            last: keys[1].into(),
        }
    }

    fn entry(resource: &str, kind: &str, bytes: u64, unsorted: bool) -> TypeEntry {
        TypeEntry {
            resource: resource.into(),
            api_version: "v1".into(),
            kind: kind.into(),
            namespaced: true,
            items: 0,
            bytes,
            unsorted,
            resource_version: None,
        }
    }

    fn sizes(types: Vec<TypeEntry>, members: Vec<Member>) -> Sizes {
        let footer = Stored {
            head: Head {
                types,
                ..Head::default()
            },
            members,
        };
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut tar = tar::Builder::new(GzEncoder::new(file.as_file(), Compression::new(3)));
        let json = footer.to_json();
        let mut header = tar::Header::new_ustar();
        header.set_size(json.len() as u64);
        tar.append_data(&mut header, FOOTER_ENTRY, &json[..])
            .unwrap();
        tar.into_inner().unwrap().finish().unwrap();
        Sizes::read(file.path()).unwrap()
    }

    fn counts(of: &[(&str, u64)]) -> BTreeMap<String, u64> {
        of.iter()
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect()
    }

    fn shown(sizes: &Sizes, title: &str, of: &[(&str, u64)]) -> String {
        let counts = counts(of);
        let sizes = sizes.by_namespace(title, &counts);
        let sizes = sizes.iter().map(|(name, size)| format!("{name}={size}"));
        sizes.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_one_namespace_has_is_known_and_the_rest_is_shared_out() {
        let sizes = sizes(
            vec![
                entry("pods", "Pod", 1000, false),
                entry("nodes", "Node", 300, false),
                entry("secrets", "Secret", 500, false),
                entry("odds", "Odd", 400, true),
            ],
            vec![
                member(
                    "metadata",
                    None,
                    1,
                    512,
                    ["metadata/version", "metadata/version"],
                ),
                member("pods", Some("a"), 2, 6000, ["a/p", "a/q"]),
                // `a-b/x` comes before `a/x`: one key is not the beginning of the other's namespace.
                member("pods", None, 4, 4000, ["a-b/x", "a/x"]),
                member("nodes", None, 3, 900, ["n1", "n3"]),
                member("secrets", None, 5, 900, ["only/s", "only/t"]),
                member("odds", None, 4, 900, ["z/1", "z/2"]),
            ],
        );
        assert_eq!(sizes.of_type("v1/Pod").to_string(), "1000 B");
        assert_eq!(sizes.of_type("v1/Other").bytes, 0);
        assert_eq!(
            shown(&sizes, "v1/Pod", &[("a", 3), ("a-b", 3)]),
            "a=~700 B a-b=~300 B"
        );
        assert_eq!(shown(&sizes, "v1/Node", &[("", 3)]), "=300 B");
        assert_eq!(shown(&sizes, "v1/Secret", &[("only", 5)]), "only=500 B");
        assert_eq!(
            shown(&sizes, "v1/Odd", &[("y", 2), ("z", 2)]),
            "y=~200 B z=~200 B"
        );
        assert_eq!(shown(&sizes, "v1/Other", &[("a", 1)]), "");
    }

    #[test]
    fn what_is_no_footer_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut gzip = GzEncoder::new(file.as_file(), Compression::new(3));
        gzip.write_all(&[b'x'; 2000]).unwrap();
        gzip.finish().unwrap();
        Sizes::read(file.path()).unwrap_err();
    }
}
