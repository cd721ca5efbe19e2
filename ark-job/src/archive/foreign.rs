//! An archive of Velero or original Ark, made seekable: read once from end to end, and written anew as members of one
//! type each, with an index. What reads our own archives then reads these.
//!
//! Such an archive has no digests and no index, so nothing of it is used before all of it has been read and checked.
//! Only computes: where the bytes come from and go to is the caller's.

use super::footer::{Member, TypeEntry};
use super::tarball::{TarError, TarReader};
use super::versions::{self, BackedUp};
use super::write::{Block, Compressor, Index};
use super::{MEMBER_SIZE, VERSION_ENTRY, inside, key};
use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::BuildHasher;
use std::io::{self, BufRead, Read, Write};

/// Room for objects that are not compressed yet, bytes, over all types: the largest pile makes way.
const BUFFERED_MAX: usize = 8 << 20;
/// How much the archive may unpack to for each byte of it, once it is longer than [`RATIO_FREE`]. JSON of objects that
/// are all alike comes to 100; a file of zeros to 1,000.
const RATIO_MAX: u64 = 400;
/// What any archive may unpack to, bytes: small ones may compress as well as they like.
const RATIO_FREE: u64 = 256 << 20;
/// The spool lives for one run on a local disk: time counts, and a third more space does not.
const LEVEL: u8 = 1;

/// Why an archive cannot be spooled.
#[derive(Debug, thiserror::Error)]
pub enum ForeignError {
    /// It is not a whole tar.gz.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// It is, but not a backup.
    #[error("{what} {why}")]
    Malformed {
        /// Which part of it.
        what: String,
        /// In which way.
        why: String,
    },
    /// Of a version of the layout that is not known.
    #[error("the archive has layout version {0:?}; this program reads \"1\" and \"1.1.0\"")]
    UnknownFormat(String),
    /// The spool cannot be written.
    #[error("writing the spool")]
    Spool {
        /// How much has been written.
        written: u64,
        /// How much of the archive that was.
        read: u64,
        /// What failed.
        #[source]
        source: io::Error,
    },
}

/// What an archive holds, and where in the spool.
#[derive(Debug, Default)]
pub struct Contents {
    /// The types, sorted, each in the version that was chosen.
    pub types: Vec<TypeEntry>,
    /// Their members.
    pub members: Vec<Member>,
}

/// Reads the whole tar.gz `archive`, and writes its objects to `spool`. Blocks, and takes seconds for a large one.
///
/// `served` says in which versions the target serves a type, the preferred one first; it decides when the archive holds
/// several.
///
/// # Errors
/// [`ForeignError`] at the first thing that is not as it must be: nothing of the spool may be used then.
pub fn spool(
    archive: impl BufRead,
    spool: &mut impl Write,
    served: impl Fn(&str) -> Vec<String>,
) -> Result<Contents, ForeignError> {
    let counted = Counted {
        inner: archive,
        taken: 0,
    };
    let mut tar = TarReader::new(flate2::bufread::MultiGzDecoder::new(counted));
    let mut spooler = Spooler::new(spool);
    loop {
        let entry = match tar.next_entry() {
            Ok(Some(entry)) => entry,
            Ok(None) => break,
            Err(error) => return Err(error.into()),
        };
        spooler.take(&entry.path, entry.body)?;
        spooler.read = tar.input().get_ref().taken;
        check_ratio(tar.position(), spooler.read)?;
    }
    spooler.finish(served)
}

/// A few bytes that unpack to a whole disk are no backup.
fn check_ratio(unpacked: u64, packed: u64) -> Result<(), ForeignError> {
    if unpacked > RATIO_FREE && unpacked / RATIO_MAX > packed {
        return Err(malformed(
            "the archive",
            format!(
                "unpacks to more than {unpacked} bytes from {packed}: such an archive is refused"
            ),
        ));
    }
    Ok(())
}

struct Counted<R> {
    inner: R,
    taken: u64,
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.taken += read as u64;
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.inner.consume(amount);
        self.taken += amount as u64;
    }
}

fn malformed(what: impl Into<String>, why: impl Into<String>) -> ForeignError {
    ForeignError::Malformed {
        what: what.into(),
        why: why.into(),
    }
}

/// Where an object is in an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place<'a> {
    resource: &'a str,
    /// The directory of one version of the type, and whether the source preferred it.
    version: Option<(&'a str, bool)>,
    namespace: Option<&'a str>,
    name: &'a str,
}

/// Splits the path of an object, in the layout of Velero and original Ark since v0.5, or in that of v0.3 and v0.4.
fn parse(path: &str) -> Option<Place<'_>> {
    let (directory, file) = path.rsplit_once('/')?;
    let name = file.strip_suffix(".json").filter(|name| is_name(name))?;
    let parts: Vec<&str> = directory.split('/').collect();
    let (resource, version, namespace) = match parts[..] {
        ["resources", resource, "cluster"] | ["cluster", resource] => (resource, None, None),
        ["resources", resource, "namespaces", namespace] | ["namespaces", namespace, resource] => {
            (resource, None, Some(namespace))
        }
        ["resources", resource, version, "cluster"] => (resource, Some(version), None),
        ["resources", resource, version, "namespaces", namespace] => {
            (resource, Some(version), Some(namespace))
        }
        _ => return None,
    };
    let version = version.map(|version| match version.strip_suffix("-preferredversion") {
        Some(version) => (version, true),
        None => (version, false),
    });
    let of_api = |text: &str| {
        is_name(text)
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-')
    };
    let fits = of_api(resource)
        && version.is_none_or(|(version, _)| of_api(version))
        && namespace.is_none_or(is_name);
    fits.then_some(Place {
        resource,
        version,
        namespace,
        name,
    })
}

/// Whether a text can be a name: of an object, a namespace, a type.
fn is_name(text: &str) -> bool {
    let plain = |c: char| !matches!(c, '/' | '\\') && !c.is_control();
    !matches!(text, "" | "." | "..") && text.len() <= 253 && text.chars().all(plain)
}

/// The objects of one type in one version.
struct Directory {
    block: Block,
    last: String,
    preferred: bool,
    api_version: Option<String>,
    kind: String,
    namespaced: bool,
    items: u64,
    bytes: u64,
    unsorted: bool,
    /// By index in the list of all members.
    members: Vec<usize>,
}

/// Writes objects as they come into blocks, and blocks into the spool.
struct Spooler<'s, W> {
    spool: &'s mut W,
    directories: Vec<Directory>,
    /// Type → version (none in the plain layout) → which directory.
    places: BTreeMap<String, BTreeMap<Option<String>, usize>>,
    seen: HashSet<u64>,
    hasher: RandomState,
    compressor: Compressor,
    index: Index,
    buffered: usize,
    read: u64,
}

impl<'s, W: Write> Spooler<'s, W> {
    fn new(spool: &'s mut W) -> Spooler<'s, W> {
        Spooler {
            spool,
            directories: Vec::new(),
            places: BTreeMap::new(),
            seen: HashSet::new(),
            hasher: RandomState::new(),
            compressor: Compressor::new(LEVEL),
            index: Index::default(),
            buffered: 0,
            read: 0,
        }
    }

    fn take(&mut self, path: &str, body: &[u8]) -> Result<(), ForeignError> {
        let what = || format!("entry {path:?}");
        // `tar -C directory .` writes that before each path.
        let plain = path.strip_prefix("./").unwrap_or(path);
        if plain == VERSION_ENTRY {
            return check_version(body);
        }
        let unexpected = || {
            let escapes = path.starts_with('/')
                || path.contains(['\\', '\0'])
                || path.split('/').any(|part| part == "..");
            malformed(
                what(),
                if escapes {
                    "has a path that leads out of the archive"
                } else {
                    "is not where a backup has objects"
                },
            )
        };
        let place = parse(plain).ok_or_else(unexpected)?;
        if !self.seen.insert(self.hasher.hash_one((
            place.resource,
            place.version,
            place.namespace,
            place.name,
        ))) {
            return Err(malformed(what(), "is there twice"));
        }
        let own_type = inside::check(place.namespace, place.name, body)
            .map_err(|why| malformed(what(), why))?;
        let index = self.directory(&place)?;
        let directory = &mut self.directories[index];
        if directory.namespaced != place.namespace.is_some() {
            let resource = place.resource;
            return Err(malformed(
                what(),
                format!("makes {resource} be both in namespaces and of the cluster"),
            ));
        }
        if let Some(own_type) = own_type
            && directory.api_version.is_none()
        {
            directory.api_version = Some(own_type.api_version.into_owned());
            directory.kind = own_type.kind.into_owned();
        }
        directory.items += 1;
        directory.bytes += body.len() as u64;
        let key = key(place.namespace, place.name);
        directory.unsorted |= directory.items > 1 && key <= directory.last;
        directory.last = key;
        // Of a type that has directories of versions, the plain one says the same again.
        if place.version.is_none() && self.places[place.resource].len() > 1 {
            return Ok(());
        }
        let room = directory.block.room();
        directory.block.push(place.namespace, place.name, &[body]);
        self.buffered += directory.block.room() - room;
        if directory.block.is_full() {
            self.flush(index)?;
        }
        while self.buffered > BUFFERED_MAX {
            let largest = self.directories.iter().enumerate();
            let Some((largest, _)) = largest.max_by_key(|(_, directory)| directory.block.room())
            else {
                break;
            };
            self.flush(largest)?;
        }
        Ok(())
    }

    fn directory(&mut self, place: &Place<'_>) -> Result<usize, ForeignError> {
        let version = place.version.map(|(version, _)| version.to_owned());
        let preferred = place.version.is_some_and(|(_, preferred)| preferred);
        if !self.places.contains_key(place.resource) {
            self.places
                .insert(place.resource.to_owned(), BTreeMap::new());
        }
        let Some(of_type) = self.places.get_mut(place.resource) else {
            return Err(malformed(place.resource, "is lost"));
        };
        if let Some(&index) = of_type.get(&version) {
            if self.directories[index].preferred != preferred {
                return Err(malformed(
                    format!("resources/{}", place.resource),
                    format!(
                        "has {} both as preferred version and not",
                        version.unwrap_or_default()
                    ),
                ));
            }
            return Ok(index);
        }
        let index = self.directories.len();
        of_type.insert(version, index);
        self.directories.push(Directory {
            block: Block::new(place.resource, None, 0),
            last: String::new(),
            preferred,
            api_version: None,
            kind: String::new(),
            namespaced: place.namespace.is_some(),
            items: 0,
            bytes: 0,
            unsorted: false,
            members: Vec::new(),
        });
        Ok(index)
    }

    /// Writes a directory's block as a member.
    fn flush(&mut self, index: usize) -> Result<(), ForeignError> {
        let directory = &mut self.directories[index];
        self.buffered -= directory.block.room();
        let block = directory.block.take(Vec::new());
        if block.is_empty() {
            return Ok(());
        }
        let (member, _) = self.compressor.compress(block);
        self.spool
            .write_all(&member.bytes)
            .map_err(|source| ForeignError::Spool {
                written: self.index.length(),
                read: self.read,
                source,
            })?;
        directory.members.push(self.index.count());
        self.index.append(&member);
        Ok(())
    }

    /// Writes what is left, and chooses a version of each type.
    fn finish(mut self, served: impl Fn(&str) -> Vec<String>) -> Result<Contents, ForeignError> {
        for index in 0..self.directories.len() {
            self.flush(index)?;
        }
        self.spool.flush().map_err(|source| ForeignError::Spool {
            written: self.index.length(),
            read: self.read,
            source,
        })?;
        let members = self.index.into_members();
        let mut contents = Contents::default();
        let mut chosen = BTreeSet::new();
        for (resource, of_type) in &self.places {
            let index = choose(resource, of_type, &self.directories, &served)?;
            let (version, _) = of_type
                .iter()
                .find(|&(_, &candidate)| candidate == index)
                .unwrap_or((&None, &0));
            let directory = &self.directories[index];
            chosen.extend(directory.members.iter().copied());
            contents.types.push(TypeEntry {
                resource: resource.clone(),
                api_version: directory.api_version.clone().unwrap_or_else(|| {
                    // No object of it can be read; the errors name the type at least.
                    guess_api_version(resource, version.as_deref())
                }),
                kind: directory.kind.clone(),
                namespaced: directory.namespaced,
                items: directory.items,
                bytes: directory.bytes,
                unsorted: directory.unsorted,
                resource_version: None,
            });
        }
        let kept = members.into_iter().enumerate();
        contents.members = kept
            .filter(|(index, _)| chosen.contains(index))
            .map(|(_, member)| member)
            .collect();
        Ok(contents)
    }
}

/// Which directory of a type is restored.
fn choose(
    resource: &str,
    of_type: &BTreeMap<Option<String>, usize>,
    directories: &[Directory],
    served: &impl Fn(&str) -> Vec<String>,
) -> Result<usize, ForeignError> {
    let versioned: Vec<(BackedUp, usize)> = of_type
        .iter()
        .filter_map(|(version, &index)| {
            let backed_up = BackedUp {
                version: version.clone()?,
                preferred: directories[index].preferred,
            };
            Some((backed_up, index))
        })
        .collect();
    let what = || format!("resources/{resource}");
    let mut preferred = versioned.iter().filter(|(version, _)| version.preferred);
    let first = preferred.next();
    if preferred.next().is_some() {
        return Err(malformed(what(), "has several preferred versions"));
    }
    let plain = of_type.get(&None).copied();
    // The plain directory is not kept then, so it must not be the only one that has an object.
    if let Some(plain) = plain
        && !versioned.is_empty()
    {
        let (plain, twin) = (
            directories[plain].items,
            first.map_or(0, |&(_, index)| directories[index].items),
        );
        if plain != twin {
            return Err(malformed(
                what(),
                format!("has {plain} objects, but its preferred version has {twin}"),
            ));
        }
    }
    let candidates: Vec<BackedUp> = versioned
        .iter()
        .map(|(version, _)| version.clone())
        .collect();
    let chosen = match candidates.len() {
        0 | 1 => Some(0),
        _ => versions::choose(&candidates, &served(resource)),
    };
    chosen
        .and_then(|chosen| versioned.get(chosen))
        .map(|&(_, index)| index)
        .or(plain)
        .ok_or_else(|| malformed(what(), "has no objects"))
}

fn guess_api_version(resource: &str, version: Option<&str>) -> String {
    let version = version.unwrap_or("v1");
    match resource.split_once('.') {
        Some((_, group)) => format!("{group}/{version}"),
        None => version.to_owned(),
    }
}

fn check_version(body: &[u8]) -> Result<(), ForeignError> {
    let text = String::from_utf8_lossy(body.get(..100).unwrap_or(body));
    match text.trim_end() {
        "1" | "1.1.0" => Ok(()),
        other => Err(ForeignError::UnknownFormat(other.to_owned())),
    }
}

/// A pile that is full is a member of the usual size.
const _: () = assert!(BUFFERED_MAX > 4 * MEMBER_SIZE);

#[cfg(test)]
mod tests;
