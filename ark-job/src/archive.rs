//! The archive: a seekable, self-describing tar.gz. Only computes; reading and writing storage is the caller's.
//!
//! The archive is a sequence of gzip members, each holding whole tar entries of one resource type; then a member with
//! the [`footer`], which lists all others with their digests; then an end member of fixed length that says where the
//! footer is. Any tar and gzip reads it (Velero does); a reader that knows the footer gets one object with three small
//! ranged reads and checks every byte on the way. docs/format.md defines each byte.

pub mod footer;
pub mod foreign;
pub mod inside;
pub mod read;
pub mod tarball;
pub mod versions;
pub mod write;

/// Entry with the version of Velero's tar layout, always first.
pub const VERSION_ENTRY: &str = "metadata/version";
/// Velero's `BackupFormatVersion`, whose layout this is.
pub const VELERO_FORMAT_VERSION: &str = "1.1.0";
/// Entry with the footer, always last.
pub const FOOTER_ENTRY: &str = "metadata/ark.json";
/// What a member line names as resource when the member holds `metadata/…` entries.
pub const METADATA: &str = "metadata";
/// Raw tar bytes a member holds before it is closed. Larger members do not compress better, and one object costs
/// reading one member.
pub const MEMBER_SIZE: usize = 1 << 20;

/// The order of items of one type: by `<namespace>/<name>` as bytes, which is etcd's, so `a-b/x` comes before `a/x`.
pub fn key(namespace: Option<&str>, name: &str) -> String {
    match namespace {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::footer::{Footer, Head, Member, TypeEntry};
    use super::read::{self, ReadError};
    use super::write::{Block, Compressor, Index};
    use super::*;
    use crate::item::{ListScanner, type_prefix};
    use proptest::prelude::*;
    use std::io::Read;

    fn archive(items: &[(&str, &str, &str)]) -> (Vec<u8>, Footer) {
        let mut compressor = Compressor::new(3);
        let mut index = Index::default();
        let mut bytes = Vec::new();
        for block in std::iter::once(Block::version(0)).chain(items.chunks(2).map(|chunk| {
            let mut block = Block::new("configmaps", None, 0);
            for (namespace, name, body) in chunk {
                block.push(Some(namespace), name, &[body.as_bytes()]);
            }
            block
        })) {
            let (compressed, _) = compressor.compress(block);
            index.append(&compressed);
            bytes.extend_from_slice(&compressed.bytes);
        }
        let keys: Vec<String> = items
            .iter()
            .map(|(namespace, name, _)| key(Some(namespace), name))
            .collect();
        let head = Head {
            format_version: crate::api::FORMAT_VERSION.into(),
            encryption: "none".into(),
            backup: "b".into(),
            types: vec![TypeEntry {
                resource: "configmaps".into(),
                api_version: "v1".into(),
                kind: "ConfigMap".into(),
                namespaced: true,
                items: items.len() as u64,
                bytes: 0,
                unsorted: !keys.is_sorted_by(|a, b| a < b),
                resource_version: None,
            }],
            ..Head::default()
        };
        let (footer, tail) = index.finish(head, &mut compressor, 0);
        bytes.extend_from_slice(&tail.footer);
        bytes.extend_from_slice(&tail.end);
        (bytes, footer)
    }

    fn sample() -> (Vec<u8>, Footer) {
        let long = "n".repeat(240);
        archive(&[
            ("a", "one", r#"{"kind":"ConfigMap"}"#),
            ("a", &long, "{}"),
            ("b", "three", "{}"),
        ])
    }

    fn open(bytes: &[u8]) -> Result<Footer, ReadError> {
        let tail = &bytes[bytes.len().saturating_sub(write::END_LENGTH)..];
        let place = read::locate(tail, bytes.len() as u64)?;
        let (from, to) = (
            place.offset as usize,
            (place.offset + place.length) as usize,
        );
        read::footer(&bytes[from..to], &place)
    }

    fn items(
        bytes: &[u8],
        footer: &Footer,
        member: &Member,
    ) -> Result<Vec<(String, String)>, ReadError> {
        let slice = &bytes[member.offset as usize..(member.offset + member.length) as usize];
        let opened = read::open_member(slice, member, footer)?;
        Ok(opened
            .entries()
            .map(|e| {
                (
                    key(e.namespace, e.name),
                    String::from_utf8_lossy(e.body).into_owned(),
                )
            })
            .collect())
    }

    #[test]
    fn what_was_written_is_read_back() {
        let (bytes, written) = sample();
        let footer = open(&bytes).unwrap();
        assert_eq!(footer, written);
        assert_eq!(footer.members.len(), 3);
        let all: Vec<_> = footer.members[1..]
            .iter()
            .flat_map(|m| items(&bytes, &footer, m).unwrap())
            .collect();
        let long = "n".repeat(240);
        assert_eq!(
            all,
            [
                ("a/one".to_owned(), r#"{"kind":"ConfigMap"}"#.to_owned()),
                (format!("a/{long}"), "{}".to_owned()),
                ("b/three".to_owned(), "{}".to_owned()),
            ]
        );
    }

    #[test]
    fn any_gzip_and_tar_read_it() {
        let (bytes, _) = sample();
        let mut tar = tar::Archive::new(flate2::read::MultiGzDecoder::new(&bytes[..]));
        let names: Vec<String> = tar
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                assert_eq!(entry.header().mode().unwrap(), 0o755);
                std::io::copy(&mut entry, &mut std::io::sink()).unwrap();
                entry.path().unwrap().display().to_string()
            })
            .collect();
        assert_eq!(names.first().unwrap(), VERSION_ENTRY);
        assert_eq!(names.last().unwrap(), FOOTER_ENTRY);
        assert_eq!(names[1], "resources/configmaps/namespaces/a/one.json");
        assert_eq!(names.len(), 5);
        let mut raw = Vec::new();
        flate2::read::MultiGzDecoder::new(&bytes[..])
            .read_to_end(&mut raw)
            .unwrap();
        assert_eq!(raw.len() % 512, 0);
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let (bytes, footer) = sample();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            let read = open(&damaged).and_then(|footer| {
                for member in &footer.members[1..] {
                    items(&damaged, &footer, member)?;
                }
                Ok(footer)
            });
            // The end member's own padding carries nothing; and the version entry is for other readers.
            let in_version = at < footer.members[1].offset as usize;
            match read {
                Ok(read) => assert!(
                    read == footer && (in_version || at >= bytes.len() - write::END_LENGTH),
                    "byte {at}"
                ),
                Err(_) => assert!(!in_version, "byte {at}"),
            }
        }
    }

    #[test]
    fn truncation_and_strangers_are_refused() {
        let (bytes, _) = sample();
        for length in [
            0,
            1,
            100,
            write::END_LENGTH - 1,
            write::END_LENGTH,
            bytes.len() - 1,
        ] {
            assert!(open(&bytes[..length]).is_err(), "{length}");
        }
        assert!(matches!(open(&[0; 4096]), Err(ReadError::NoFooter)));
    }

    #[test]
    fn members_that_do_not_tile_are_refused() {
        let (_, footer) = sample();
        let mut gap = footer.clone();
        gap.members[1].offset += 1;
        assert!(read::check_tiling(&gap, footer.members.iter().map(|m| m.length).sum()).is_err());
    }

    /// JSON texts that no encoder of ours would write: numbers that fit no type, every escape, odd white space.
    fn raw_json() -> impl Strategy<Value = String> {
        let string = prop::collection::vec(
            prop_oneof![
                any::<char>().prop_filter_map("needs an escape", |c| {
                    (c >= ' ' && !['"', '\\'].contains(&c)).then(|| c.to_string())
                }),
                prop::sample::select(vec![
                    "\\\"",
                    "\\\\",
                    "\\/",
                    "\\b",
                    "\\n",
                    "\\u0000",
                    "\\u003c",
                    "\\ud83d\\ude00",
                    "\\ud800",
                    "{",
                    "}",
                    "[",
                    "]",
                    ",",
                    ":",
                ])
                .prop_map(str::to_owned),
            ],
            0..12,
        )
        .prop_map(|parts| format!("\"{}\"", parts.concat()));
        let leaf = prop_oneof![
            "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,5})?",
            "null|true|false",
            string.clone(),
        ];
        let space = "[ \t\r\n]{0,2}";
        leaf.prop_recursive(8, 48, 5, move |inner| {
            let pair = (string.clone(), space, inner.clone())
                .prop_map(|(key, space, value)| format!("{key}{space}:{space}{value}"));
            let join = |open: &'static str, close: &'static str| {
                move |(parts, space): (Vec<String>, String)| {
                    format!(
                        "{open}{space}{}{space}{close}",
                        parts.join(&format!("{space},"))
                    )
                }
            };
            prop_oneof![
                (prop::collection::vec(inner, 0..5), space).prop_map(join("[", "]")),
                (prop::collection::vec(pair, 0..5), space).prop_map(join("{", "}")),
            ]
        })
    }

    /// An object's name and its JSON, with metadata before and after other keys.
    fn raw_object(typed: bool) -> impl Strategy<Value = (String, String)> {
        let name = prop_oneof!["[a-z0-9]([a-z0-9.-]{0,8}[a-z0-9])?", "[a-z0-9]{253}"];
        (name, raw_json(), raw_json(), any::<bool>()).prop_map(move |(name, a, b, first)| {
            let metadata = format!(r#""metadata":{{"x":{a},"name":"{name}","namespace":"n"}}"#);
            let data = format!(r#""data":{b}"#);
            let (one, two) = if first {
                (metadata, data)
            } else {
                (data, metadata)
            };
            let kind = if typed {
                r#""apiVersion":"v1","kind":"ConfigMap","#
            } else {
                ""
            };
            (name, format!("{{{kind}{one},{two}}}"))
        })
    }

    fn raw_list() -> impl Strategy<Value = (String, Vec<(String, String)>)> {
        any::<bool>().prop_flat_map(|typed| {
            prop::collection::vec(raw_object(typed), 0..6).prop_map(move |mut objects| {
                let mut names = std::collections::BTreeSet::new();
                objects.retain(|(name, _)| names.insert(name.clone()));
                let items = objects
                    .iter()
                    .map(|(_, json)| json.as_str())
                    .collect::<Vec<_>>()
                    .join(",");
                let metadata = r#""metadata":{"resourceVersion":"7"}"#;
                let list = if typed {
                    format!(r#"{{"apiVersion":"v1","items":[{items}],"kind":"L",{metadata}}}"#)
                } else {
                    format!(r#"{{"kind":"L","apiVersion":"v1",{metadata},"items":[{items}]}}"#)
                };
                let expected = objects.into_iter().map(|(name, json)| {
                    let spliced = r#"{"kind":"ConfigMap","apiVersion":"v1","#;
                    let json = if typed {
                        json
                    } else {
                        format!("{spliced}{}", &json[1..])
                    };
                    (format!("n/{name}"), json)
                });
                (list, expected.collect())
            })
        })
    }

    /// From the bytes of a LIST, which arrive in pieces of `size`, to what an archive of it gives back.
    fn through(list: &[u8], size: usize) -> Vec<(String, String)> {
        let mut scanner = ListScanner::default();
        let prefix = type_prefix("v1", "ConfigMap");
        let mut objects = Vec::new();
        for piece in list.chunks(size) {
            scanner.feed(piece);
            while let Some(span) = scanner.next_item().unwrap() {
                let item = scanner.item(&span);
                let metadata = item.metadata().unwrap();
                let prefix: &[u8] = if item.typed { &[] } else { &prefix };
                let json = String::from_utf8([prefix, item.rest()].concat()).unwrap();
                objects.push((metadata.name.into_owned(), json));
            }
        }
        scanner.finish().unwrap();
        let objects: Vec<_> = objects
            .iter()
            .map(|(name, json)| ("n", name.as_str(), json.as_str()))
            .collect();
        let (bytes, footer) = archive(&objects);
        let members = footer.members[1..].iter();
        members
            .flat_map(|member| items(&bytes, &footer, member).unwrap())
            .collect()
    }

    proptest! {
        #[test]
        fn objects_go_from_list_to_archive_byte_for_byte((list, expected) in raw_list(), size in 1usize..300) {
            prop_assert_eq!(through(list.as_bytes(), size), expected);
        }
    }

    #[test]
    fn large_and_deeply_nested_objects_go_through_byte_for_byte() {
        let deep = 9_000;
        let nested = format!("{}1e999{}", r#"{"a":["#.repeat(deep), "]}".repeat(deep));
        let large = r#"\"\u0001ä"#.repeat(140_000);
        // Managed fields are as deep as the object, and stand in what is decoded.
        let objects = [
            format!(r#"{{"metadata":{{"managedFields":{nested},"name":"deep"}},"data":{nested}}}"#),
            format!(r#"{{"data":"{large}","metadata":{{"name":"large"}}}}"#),
        ];
        let list = format!(r#"{{"metadata":{{}},"items":[{}]}}"#, objects.join(","));
        let expected =
            |json: &str| format!(r#"{{"kind":"ConfigMap","apiVersion":"v1",{}"#, &json[1..]);
        let found = through(list.as_bytes(), 16_384);
        assert_eq!(found.len(), 2);
        for ((key, json), object) in found.iter().zip(&objects) {
            assert!(json == &expected(object), "{key} has changed");
        }
    }
}
