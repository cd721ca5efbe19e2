//! What must hold of each reader, whatever bytes it is given: no panic, no memory beyond its limits, an error or sound
//! content. The fuzz targets and the tests below call the same functions.

use ark_job::archive::footer::{Footer, Head, Member, TypeEntry};
use ark_job::archive::read;
use ark_job::archive::write::{END_LENGTH, FooterPlace};
use ark_job::archive::{METADATA, foreign as strangers};
use ark_job::item::ListScanner;
use sha2::{Digest, Sha256};
use std::io::Write;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory takes all");
    encoder.finish().expect("memory takes all")
}

fn entry(path: &str, body: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o755);
    header.set_size(body.len() as u64);
    header.set_cksum();
    let mut tar = [header.as_bytes(), body].concat();
    tar.resize(tar.len().next_multiple_of(512), 0);
    tar
}

/// The end of an archive: as it is, and as the text of a footer with all digests right.
pub fn footer(data: &[u8]) {
    let tail = &data[data.len().saturating_sub(END_LENGTH)..];
    if let Ok(place) = read::locate(tail, data.len() as u64) {
        let (from, to) = (
            place.offset as usize,
            (place.offset + place.length) as usize,
        );
        let _refused = read::footer(&data[from..to], &place);
    }
    let member = gzip(&entry("metadata/ark.json", data));
    let end = serde_offset(data);
    let place = FooterPlace {
        offset: end,
        length: member.len() as u64,
        sha256: Sha256::digest(&member).into(),
    };
    if let Ok(footer) = read::footer(&member, &place) {
        let mut offset = 0;
        for member in &footer.members {
            assert_eq!(member.offset, offset);
            offset += member.length;
        }
        assert_eq!(offset, end);
        for entry in &footer.head.types {
            let of_type = footer
                .members
                .iter()
                .filter(|m| m.resource == entry.resource);
            assert_eq!(of_type.map(|member| member.items).sum::<u64>(), entry.items);
        }
    }
}

/// Where the members of a footer end, taken from its own last length, so that tiling is not all that is ever looked at.
fn serde_offset(json: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(json);
    let number = |key: &str| {
        let (_, rest) = text.rsplit_once(key)?;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u64>().ok()
    };
    let (offset, length) = (number("\"offset\":"), number("\"length\":"));
    offset
        .unwrap_or_default()
        .saturating_add(length.unwrap_or_default())
}

/// A member: what the first byte says about the line in the footer, then raw tar, or gzip.
pub fn member(data: &[u8]) {
    let Some((&flags, content)) = data.split_first() else {
        return;
    };
    let bytes = if flags & 1 == 0 {
        gzip(content)
    } else {
        content.to_vec()
    };
    let resource = if flags & 2 == 0 {
        "configmaps"
    } else {
        METADATA
    };
    let line = |items: u64, first: &str, last: &str| Member {
        offset: 0,
        length: bytes.len() as u64,
        size: content.len() as u64,
        sha256: hex::encode(Sha256::digest(&bytes)),
        resource: resource.into(),
        part: (flags & 4 != 0).then(|| "a".into()),
        items,
        first: first.into(),
        last: last.into(),
    };
    let footer = |line: &Member| Footer {
        head: Head {
            types: vec![TypeEntry {
                resource: "configmaps".into(),
                api_version: "v1".into(),
                kind: "ConfigMap".into(),
                namespaced: flags & 8 == 0,
                items: line.items,
                bytes: 0,
                unsorted: flags & 16 != 0,
                resource_version: None,
            }],
            ..Head::default()
        },
        members: vec![line.clone()],
    };
    for (items, first, last) in [
        (0, "", ""),
        (1, "a/a", "a/a"),
        (2, "a/a", "a/b"),
        (1, "a", "a"),
    ] {
        let line = line(items, first, last);
        if let Ok(opened) = read::open_member(&bytes, &line, &footer(&line)) {
            let entries: Vec<_> = opened.entries().collect();
            assert_eq!(entries.len() as u64, items);
            assert!(entries.iter().map(|entry| entry.body.len()).sum::<usize>() <= content.len());
            let _refused = opened.check_identities();
        }
    }
}

/// An object of an archive: its type, its key, its content.
pub type Object = (String, String, Vec<u8>);

/// All objects of an archive of others.
///
/// # Errors
/// When it is refused.
pub fn strangers_objects(data: &[u8]) -> Result<Vec<Object>, strangers::ForeignError> {
    let mut spool = Vec::new();
    let contents = strangers::spool(data, &mut spool, |_| vec!["v2".into(), "v1".into()])?;
    let footer = Footer {
        head: Head {
            types: contents.types,
            ..Head::default()
        },
        members: contents.members,
    };
    read::check_lines(&footer).expect("a spool's own index is right");
    let mut objects = Vec::new();
    for member in &footer.members {
        let bytes = &spool[member.offset as usize..(member.offset + member.length) as usize];
        let opened = read::open_member(bytes, member, &footer).expect("a spool is whole");
        opened.check_identities().expect("they have been checked");
        objects.extend(opened.entries().map(|entry| {
            let key = ark_job::archive::key(entry.namespace, entry.name);
            (member.resource.clone(), key, entry.body.to_vec())
        }));
    }
    objects.sort();
    Ok(objects)
}

/// An archive of others: a tar.gz, or (unless it begins like one) a tar.
pub fn foreign(data: &[u8]) {
    let _refused = if data.starts_with(&[0x1f, 0x8b]) {
        strangers_objects(data)
    } else {
        strangers_objects(&gzip(&with_checksums(data)))
    };
}

/// Rights the checksum of what may be a header, block by block: the rest of a header is more interesting than its sum.
fn with_checksums(data: &[u8]) -> Vec<u8> {
    let mut tar = data.to_vec();
    for block in tar.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            let mut header = tar::Header::new_old();
            header.as_mut_bytes().copy_from_slice(block);
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
    }
    tar
}

/// The body of a LIST: what comes out does not depend on the pieces in which it comes in.
pub fn list(data: &[u8]) {
    let scan = |size: usize| {
        let mut scanner = ListScanner::default();
        let mut items = Vec::new();
        for piece in data.chunks(size) {
            scanner.feed(piece);
            loop {
                match scanner.next_item() {
                    Ok(Some(span)) => {
                        let item = scanner.item(&span);
                        let name = item
                            .metadata()
                            .ok()
                            .map(|metadata| metadata.name.into_owned());
                        items.push((item.json.to_vec(), item.rest().len(), name));
                    }
                    Ok(None) => break,
                    Err(_) => return (items, false),
                }
            }
        }
        let whole = scanner.finish().is_ok();
        (items, whole)
    };
    let whole = scan(data.len().max(1));
    for size in [1, 7, 64] {
        assert_eq!(scan(size), whole, "in pieces of {size}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foreign::{ForeignBackup, Forged, Maker};
    use serde_json::{Value, json};
    use std::path::Path;

    /// Numbers that look random, and are the same in each run.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 % limit.max(1) as u64).unwrap()
        }
    }

    /// One to four changes to `good`, some of them with parts of `other`.
    fn mutate(numbers: &mut Numbers, good: &[u8], other: &[u8]) -> Vec<u8> {
        let mut bytes = good.to_vec();
        for _ in 0..=numbers.below(4) {
            let at = numbers.below(bytes.len());
            match numbers.below(7) {
                0 => bytes.truncate(at),
                1 if at < bytes.len() => bytes[at] ^= 1 << numbers.below(8),
                2 if at < bytes.len() => {
                    bytes[at] = [0, b'0', b'7', b'/', b'.', b'"', 0xff][numbers.below(7)]
                }
                3 => {
                    let from = numbers.below(other.len());
                    let to = (from + numbers.below(600)).min(other.len());
                    bytes.splice(at..at, other[from..to].iter().copied());
                }
                4 => {
                    // Whole blocks of tar change places.
                    let (a, b) = (at / 512 * 512, numbers.below(bytes.len()) / 512 * 512);
                    if a.max(b) + 512 <= bytes.len() {
                        let block = bytes[a..a + 512].to_vec();
                        bytes.splice(b..b, block);
                    }
                }
                5 => {
                    let to = (at + numbers.below(40)).min(bytes.len());
                    bytes.drain(at..to);
                }
                _ => {
                    let digits = b"99999999999999999999";
                    let to = (at + numbers.below(20)).min(bytes.len());
                    let length = to - at;
                    bytes[at..to].copy_from_slice(&digits[..length]);
                }
            }
        }
        bytes
    }

    fn config_map(name: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "a", "name": name}, "data": {"k": name}})
    }

    fn archives() -> Vec<ForeignBackup> {
        let long = "l".repeat(150);
        let backups = Maker::ALL.into_iter().map(|maker| {
            let mut backup = ForeignBackup::new(maker, "b");
            for name in ["a", "b", &long] {
                backup.object("configmaps", &config_map(name));
            }
            backup
        });
        backups.collect()
    }

    fn unzip(bytes: &[u8]) -> Vec<u8> {
        use std::io::Read;
        let mut raw = Vec::new();
        flate2::read::MultiGzDecoder::new(bytes)
            .read_to_end(&mut raw)
            .unwrap();
        raw
    }

    /// The good inputs of a target: made here, and those of the corpus.
    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let forged = Forged::new(
            "b",
            &[&[("a", "a", r#"{"metadata":{"namespace":"a","name":"a"}}"#)]],
        );
        let mut seeds = match target {
            "footer" => vec![forged.footer.to_json(), forged.build().unwrap().0],
            "member" => {
                let raw = unzip(&forged.members[1]);
                let flags = [0, 1, 2, 4, 8, 16];
                let of = |flag: u8| {
                    let content = if flag & 1 == 0 { &raw } else { &forged.members[1] };
                    [&[flag], &content[..]].concat()
                };
                flags.into_iter().map(of).collect()
            }
            "foreign" => {
                let gzipped = archives().into_iter().map(|backup| backup.archive().unwrap());
                gzipped.flat_map(|bytes| [unzip(&bytes), bytes]).collect()
            }
            _ => vec![
                json!({"kind": "L", "metadata": {"resourceVersion": "7", "continue": "t"}, "items": [config_map("a"), {"metadata": {"name": "b\"\\}"}}]}).to_string().into_bytes(),
                br#"{"apiVersion":"x/v1","items":null,"metadata":{}}"#.to_vec(),
            ],
        };
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/corpus")
            .join(target);
        let mut files: Vec<_> = std::fs::read_dir(&corpus)
            .unwrap()
            .map(|file| file.unwrap().path())
            .collect();
        files.sort();
        seeds.extend(files.iter().map(|file| std::fs::read(file).unwrap()));
        seeds
    }

    fn mutations_of(target: &str, reader: fn(&[u8]), count: usize) {
        let seeds = seeds(target);
        seeds.iter().for_each(|seed| reader(seed));
        let mut numbers = Numbers(88_172_645_463_325_252);
        for _ in 0..count {
            let (good, other) = (numbers.below(seeds.len()), numbers.below(seeds.len()));
            let bytes = mutate(&mut numbers, &seeds[good], &seeds[other]);
            reader(&bytes);
        }
    }

    #[test]
    fn no_footer_makes_its_reader_crash() {
        mutations_of("footer", footer, 6000);
    }

    #[test]
    fn no_member_makes_its_reader_crash() {
        mutations_of("member", member, 4000);
    }

    #[test]
    fn no_archive_of_others_makes_its_reader_crash() {
        mutations_of("foreign", foreign, 4000);
    }

    #[test]
    fn no_list_makes_its_scanner_crash_or_depend_on_pieces() {
        mutations_of("list", list, 20_000);
    }

    #[test]
    fn a_changed_archive_of_others_is_refused_or_the_same() {
        let mut numbers = Numbers(1_234_567);
        for backup in archives() {
            let good = backup.archive().unwrap();
            let objects = strangers_objects(&good).unwrap();
            assert_eq!(objects.len(), 3);
            for _ in 0..1500 {
                let bytes = mutate(&mut numbers, &good, &good);
                if let Ok(found) = strangers_objects(&bytes) {
                    assert_eq!(found, objects);
                }
            }
        }
    }
}
