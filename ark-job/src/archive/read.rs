//! Reading an archive back: every byte is checked before an object from it is used.
//!
//! The chain is end member → footer → member → entries. Callers fetch the bytes; this file says which and checks them.

use super::footer::{Footer, Member};
use super::tarball::ENTRY_MAX;
use super::write::{END_LENGTH, EXTRA_DATA_LENGTH, EXTRA_DATA_OFFSET, FooterPlace, end_member};
use super::{
    FOOTER_ENTRY, MEMBER_SIZE, METADATA, VELERO_FORMAT_VERSION, VERSION_ENTRY, inside, key,
};
use crate::api::FORMAT_VERSION;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashSet};
use std::io::Read;
use std::ops::Range;

/// No footer is unpacked beyond this many bytes: enough for a hundred million objects, too little for a zip bomb.
const FOOTER_MAX: u64 = 256 << 20;

/// No member is unpacked beyond this many bytes: one that is full, and then the largest entry.
const MEMBER_MAX: u64 = MEMBER_SIZE as u64 + ENTRY_MAX;

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It does not end as ours do.
    #[error("the archive has no footer: it is truncated, or another program wrote it")]
    NoFooter,
    /// The footer is outside of the archive.
    #[error(
        "the archive's footer is said to be at {offset}+{length}, but the archive has {archive} bytes"
    )]
    FooterOutside {
        /// Where it is said to be.
        offset: u64,
        /// How long it is said to be.
        length: u64,
        /// Length of the archive.
        archive: u64,
    },
    /// The bytes are not those that were written.
    #[error("{what} does not have the recorded SHA-256: the archive is damaged")]
    Digest {
        /// Which part.
        what: String,
    },
    /// The bytes have the right digest but are not what they must be.
    #[error("{what} is malformed: {why}")]
    Malformed {
        /// Which part.
        what: String,
        /// In which way.
        why: String,
    },
    /// Written by a later version.
    #[error(
        "the backup has format version {found:?} and encryption {encryption:?}; this program reads {FORMAT_VERSION:?} without encryption"
    )]
    UnknownFormat {
        /// Its version.
        found: String,
        /// Its encryption.
        encryption: String,
    },
}

/// Finds the footer from the last [`END_LENGTH`] bytes of an archive of `archive_length` bytes.
///
/// # Errors
/// [`ReadError::NoFooter`] when the archive does not end as ours do, [`ReadError::FooterOutside`] when it lies.
pub fn locate(tail: &[u8], archive_length: u64) -> Result<FooterPlace, ReadError> {
    let end: &[u8; END_LENGTH] = tail.last_chunk().ok_or(ReadError::NoFooter)?;
    let data = &end[EXTRA_DATA_OFFSET..][..EXTRA_DATA_LENGTH];
    let number = |range: Range<usize>| {
        data[range]
            .iter()
            .rev()
            .fold(0u64, |sum, &byte| sum << 8 | u64::from(byte))
    };
    let (offset, length) = (number(0..8), number(8..16));
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(&data[16..48]);
    let place = FooterPlace {
        offset,
        length,
        sha256,
    };
    // No digest covers these bytes, but all of them are known.
    if end_member(&place) != end {
        return Err(ReadError::NoFooter);
    }
    if offset
        .checked_add(length)
        .and_then(|end| end.checked_add(END_LENGTH as u64))
        != Some(archive_length)
    {
        return Err(ReadError::FooterOutside {
            offset,
            length,
            archive: archive_length,
        });
    }
    Ok(place)
}

/// Reads the footer from its member's bytes.
///
/// # Errors
/// When the digest is another, the content is malformed, the members do not tile, or the format is unknown.
pub fn footer(bytes: &[u8], place: &FooterPlace) -> Result<Footer, ReadError> {
    const WHAT: &str = "the archive's footer";
    let malformed = |why: String| ReadError::Malformed {
        what: WHAT.into(),
        why,
    };
    if Sha256::digest(bytes)[..] != place.sha256 {
        return Err(ReadError::Digest { what: WHAT.into() });
    }
    let mut tar = Vec::new();
    let mut gzip = flate2::read::GzDecoder::new(bytes).take(FOOTER_MAX + 1);
    gzip.read_to_end(&mut tar)
        .map_err(|error| malformed(error.to_string()))?;
    if tar.len() as u64 > FOOTER_MAX {
        return Err(malformed(format!(
            "it unpacks to more than {FOOTER_MAX} bytes"
        )));
    }
    let entries = tar_entries(&tar).map_err(malformed)?;
    let [(path, body)] = &entries[..] else {
        return Err(malformed(format!("it holds {} entries", entries.len())));
    };
    if path != FOOTER_ENTRY {
        return Err(malformed(format!("its entry is called {path:?}")));
    }
    // The version is looked at before the rest is decoded: a later format may have another shape.
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    #[derive(Default)]
    struct Version {
        format_version: String,
        encryption: String,
    }
    let json = &tar[body.clone()];
    let version: Version =
        serde_json::from_slice(json).map_err(|error| malformed(error.to_string()))?;
    if version.format_version != FORMAT_VERSION || version.encryption != "none" {
        return Err(ReadError::UnknownFormat {
            found: version.format_version,
            encryption: version.encryption,
        });
    }
    let footer: Footer =
        serde_json::from_slice(json).map_err(|error| malformed(error.to_string()))?;
    check_tiling(&footer, place.offset)?;
    check_lines(&footer)?;
    Ok(footer)
}

/// Checks that the member lines agree with each other and with the types: that no object can be in two of them, and
/// that they hold as many as the types say.
///
/// # Errors
/// [`ReadError::Malformed`] that names what does not fit.
pub fn check_lines(footer: &Footer) -> Result<(), ReadError> {
    let malformed = |why: String| ReadError::Malformed {
        what: "the archive's footer".into(),
        why,
    };
    let mut items: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for entry in &footer.head.types {
        if items.insert(&entry.resource, (0, entry.items)).is_some() {
            return Err(malformed(format!("it lists {} twice", entry.resource)));
        }
    }
    let mut last: BTreeMap<(&str, Option<&str>), &str> = BTreeMap::new();
    for member in &footer.members {
        let line = |why: &str| {
            malformed(format!(
                "the member at {} ({}) {why}",
                member.offset, member.resource
            ))
        };
        let Some(entry) = footer.type_entry(&member.resource) else {
            continue;
        };
        if let Some((found, _)) = items.get_mut(member.resource.as_str()) {
            *found = found
                .checked_add(member.items)
                .ok_or_else(|| line("holds more objects than can be counted"))?;
        }
        if let Some(part) = &member.part {
            let of_part = |key: &str| {
                key.split_once('/')
                    .is_some_and(|(namespace, _)| namespace == part)
            };
            if !of_part(&member.first) || !of_part(&member.last) {
                return Err(line("holds objects of other namespaces than it says"));
            }
        }
        if entry.unsorted {
            continue;
        }
        let before = last.insert((&member.resource, member.part.as_deref()), &member.last);
        if member.first > member.last || before.is_some_and(|before| *before >= *member.first) {
            return Err(line("is not in order"));
        }
    }
    for (resource, (found, said)) in items {
        if found != said {
            return Err(malformed(format!(
                "it says {said} {resource}, but its members hold {found}"
            )));
        }
    }
    Ok(())
}

/// Checks that the member lines cover the archive from 0 to `end` without gap or overlap.
///
/// # Errors
/// [`ReadError::Malformed`] that names the first line that does not fit.
pub fn check_tiling(footer: &Footer, end: u64) -> Result<(), ReadError> {
    let malformed = |why| ReadError::Malformed {
        what: "the archive's footer".into(),
        why,
    };
    let mut offset = 0u64;
    for member in &footer.members {
        if member.offset != offset {
            return Err(malformed(format!(
                "a member starts at {}, not at {offset} where the one before ends",
                member.offset
            )));
        }
        offset = offset
            .checked_add(member.length)
            .ok_or_else(|| malformed("a member ends beyond any file".into()))?;
        if member.resource != METADATA && footer.type_entry(&member.resource).is_none() {
            return Err(malformed(format!(
                "a member holds {:?}, which is not among the types",
                member.resource
            )));
        }
    }
    if offset != end {
        return Err(malformed(format!(
            "the members end at {offset}, the footer starts at {end}"
        )));
    }
    Ok(())
}

/// A member whose bytes have been checked and unpacked.
#[derive(Debug)]
pub struct OpenMember {
    tar: Vec<u8>,
    entries: Vec<Place>,
}

#[derive(Debug)]
struct Place {
    namespace: Option<String>,
    name: String,
    body: Range<usize>,
}

/// An object in a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its namespace, as the path has it.
    pub namespace: Option<&'a str>,
    /// Its name, as the path has it.
    pub name: &'a str,
    /// Its JSON, byte for byte as stored.
    pub body: &'a [u8],
}

impl OpenMember {
    /// Checks that each object is the one that its path says.
    ///
    /// # Errors
    /// With the path and what is wrong.
    pub fn check_identities(&self) -> Result<(), String> {
        for entry in self.entries() {
            if let Err(why) = inside::check(entry.namespace, entry.name, entry.body) {
                return Err(format!("{} {why}", key(entry.namespace, entry.name)));
            }
        }
        Ok(())
    }

    /// The objects, in stored order.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.entries.iter().map(|place| Entry {
            namespace: place.namespace.as_deref(),
            name: &place.name,
            body: &self.tar[place.body.clone()],
        })
    }
}

/// Checks and unpacks the bytes of `member`. Takes some milliseconds of CPU: not for an async thread.
///
/// # Errors
/// When the digest is another, or the content is not what the footer says: nothing of it may be used then.
pub fn open_member(
    bytes: &[u8],
    member: &Member,
    footer: &Footer,
) -> Result<OpenMember, ReadError> {
    let what = || {
        format!(
            "the member at {}+{} ({})",
            member.offset, member.length, member.resource
        )
    };
    let malformed = |why: String| ReadError::Malformed { what: what(), why };
    if hex::encode(Sha256::digest(bytes)) != member.sha256 {
        return Err(ReadError::Digest { what: what() });
    }
    if member.size > MEMBER_MAX {
        return Err(malformed(format!(
            "it unpacks to {} bytes; more than {MEMBER_MAX} are refused",
            member.size
        )));
    }
    let mut tar =
        Vec::with_capacity(usize::try_from(member.size.min(64 << 20)).unwrap_or_default());
    // One byte more than recorded tells a bomb from an honest member.
    let mut gzip = flate2::read::GzDecoder::new(bytes).take(member.size.saturating_add(1));
    gzip.read_to_end(&mut tar)
        .map_err(|error| malformed(error.to_string()))?;
    if tar.len() as u64 != member.size {
        return Err(malformed(format!(
            "it does not unpack to {} bytes",
            member.size
        )));
    }
    let namespaced = footer
        .type_entry(&member.resource)
        .map(|entry| entry.namespaced);
    let mut entries = Vec::with_capacity(
        usize::try_from(member.items)
            .unwrap_or_default()
            .min(1 << 16),
    );
    for (path, body) in tar_entries(&tar).map_err(malformed)? {
        if member.resource == METADATA {
            let version = tar[body.clone()].strip_suffix(b"\n");
            if path != VERSION_ENTRY || version != Some(VELERO_FORMAT_VERSION.as_bytes()) {
                return Err(malformed(format!("it holds {path:?}")));
            }
            entries.push(Place {
                namespace: None,
                name: path,
                body,
            });
            continue;
        }
        let (namespace, name) = parse_item_path(&path, &member.resource)
            .ok_or_else(|| malformed(format!("an entry is called {path:?}")))?;
        if namespaced.is_some_and(|namespaced| namespaced != namespace.is_some()) {
            return Err(malformed(format!("{path:?} has the wrong scope")));
        }
        entries.push(Place {
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
            body,
        });
    }
    check_twice(&entries, member, footer).map_err(malformed)?;
    let edge = |place: Option<&Place>| {
        place
            .map(|p| key(p.namespace.as_deref(), &p.name))
            .unwrap_or_default()
    };
    if entries.len() as u64 != member.items
        || edge(entries.first()) != member.first
        || edge(entries.last()) != member.last
    {
        return Err(malformed(
            "it does not hold the objects that the footer lists".into(),
        ));
    }
    Ok(OpenMember { tar, entries })
}

/// Checks that no object is in a member twice, that they are in order if the type is, and of the member's part.
fn check_twice(entries: &[Place], member: &Member, footer: &Footer) -> Result<(), String> {
    let keys = || {
        let places = entries.iter();
        places.map(|place| key(place.namespace.as_deref(), &place.name))
    };
    if let Some(part) = &member.part
        && let Some(other) = entries
            .iter()
            .find(|place| place.namespace.as_ref() != Some(part))
    {
        return Err(format!("{:?} is not of namespace {part}", other.name));
    }
    let sorted = footer
        .type_entry(&member.resource)
        .is_some_and(|entry| !entry.unsorted);
    let mut seen = HashSet::new();
    let mut last: Option<String> = None;
    for key in keys() {
        if sorted {
            if last.as_ref().is_some_and(|last| *last >= key) {
                return Err(format!("{key} is there twice, or not in order"));
            }
            last = Some(key);
        } else if seen.contains(&key) {
            return Err(format!("{key} is there twice"));
        } else {
            seen.insert(key);
        }
    }
    Ok(())
}

/// Splits `resources/<resource>/{namespaces/<namespace>,cluster}/<name>.json`.
fn parse_item_path<'a>(path: &'a str, resource: &str) -> Option<(Option<&'a str>, &'a str)> {
    let rest = path
        .strip_prefix("resources/")?
        .strip_prefix(resource)?
        .strip_prefix('/')?;
    let (namespace, file) = match rest.strip_prefix("namespaces/") {
        Some(rest) => {
            let (namespace, file) = rest.split_once('/')?;
            (Some(namespace), file)
        }
        None => (None, rest.strip_prefix("cluster/")?),
    };
    let name = file.strip_suffix(".json")?;
    let plain = |part: &str| {
        !part.is_empty() && part != "." && part != ".." && !part.contains(['/', '\\', '\0'])
    };
    (plain(name) && namespace.is_none_or(plain)).then_some((namespace, name))
}

/// Path and place of the data of every entry in a piece of tar.
fn tar_entries(tar: &[u8]) -> Result<Vec<(String, Range<usize>)>, String> {
    let mut found = Vec::new();
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries().map_err(|error| error.to_string())? {
        let entry = entry.map_err(|error| error.to_string())?;
        if entry.header().entry_type() != tar::EntryType::Regular {
            return Err("an entry is not a regular file".into());
        }
        let path = String::from_utf8(entry.path_bytes().into_owned())
            .map_err(|_| "a path is not UTF-8".to_owned())?;
        let start =
            usize::try_from(entry.raw_file_position()).map_err(|error| error.to_string())?;
        let length = usize::try_from(entry.size()).map_err(|error| error.to_string())?;
        let end = start.checked_add(length).filter(|&end| end <= tar.len());
        found.push((
            path,
            start..end.ok_or("an entry is longer than the member")?,
        ));
    }
    Ok(found)
}
