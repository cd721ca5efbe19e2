//! Reading a tar of somebody else as it streams by: one entry at a time, every length bounded before memory is taken.
//!
//! Takes what Velero, original Ark and tar programs write for regular files: ustar, GNU long names, pax paths. Whatever
//! else is in it is refused, and so is a tar that ends without its end blocks: it may have been cut off there.

use std::io::{self, Read};

const BLOCK: usize = 512;
/// No entry is longer, bytes. The largest object that etcd takes is some megabytes.
pub const ENTRY_MAX: u64 = 64 << 20;
/// Long names and pax headers are paths: a file name of Kubernetes has at most 253 bytes.
const EXTENSION_MAX: u64 = 64 << 10;
/// More of what follows the end blocks is not looked at: tar programs pad to some kilobytes.
const PADDING_MAX: u64 = 1 << 20;

/// Why a tar cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// What it is read from fails: most often, gzip finds its data damaged or cut off.
    #[error("at byte {at} of the unpacked archive: {source}")]
    Read {
        /// How much had been unpacked.
        at: u64,
        /// What failed.
        source: io::Error,
    },
    /// It is not what a tar must be.
    #[error("{what} at byte {at} of the unpacked archive {why}")]
    Malformed {
        /// Which part of it: a header, or an entry with its name.
        what: String,
        /// Where that begins.
        at: u64,
        /// In which way.
        why: String,
    },
}

/// A regular file of a tar.
#[derive(Debug)]
pub struct TarEntry<'a> {
    /// Its path, as written.
    pub path: String,
    /// Where its header begins in the tar, bytes.
    pub at: u64,
    /// Its content.
    pub body: &'a [u8],
}

/// A tar being read. After an error it is of no more use.
#[derive(Debug)]
pub struct TarReader<R> {
    input: R,
    at: u64,
    body: Vec<u8>,
}

impl<R: Read> TarReader<R> {
    /// Starts reading.
    pub fn new(input: R) -> TarReader<R> {
        TarReader {
            input,
            at: 0,
            body: Vec::new(),
        }
    }

    /// How much has been read, bytes.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// What it is read from.
    pub fn input(&self) -> &R {
        &self.input
    }

    /// The next regular file, or `None` at the end. Directories are passed over.
    ///
    /// # Errors
    /// [`TarError`], at the first thing that is not as it must be.
    pub fn next_entry(&mut self) -> Result<Option<TarEntry<'_>>, TarError> {
        let mut long_name: Option<String> = None;
        loop {
            let at = self.at;
            let header = self.read_header()?;
            let Some(header) = header else {
                if long_name.is_some() {
                    return Err(malformed("the end", at, "follows a long name"));
                }
                self.read_padding()?;
                return Ok(None);
            };
            let wrong = |why: &str| malformed("a header", at, why);
            check_sum(&header).map_err(wrong)?;
            let size = header
                .entry_size()
                .map_err(|_| wrong("has no length that can be read"))?;
            match header.entry_type() {
                tar::EntryType::GNULongName => {
                    if long_name.is_some() {
                        return Err(wrong("is a second long name"));
                    }
                    self.read_body(size, EXTENSION_MAX, "a long name", at)?;
                    let name = self.body.split(|&byte| byte == 0).next();
                    long_name = Some(text(name.unwrap_or_default(), at)?);
                }
                tar::EntryType::XHeader => {
                    self.read_body(size, EXTENSION_MAX, "a pax header", at)?;
                    if let Some(path) = self.pax_path(at)? {
                        if long_name.is_some() {
                            return Err(wrong("is a second long name"));
                        }
                        long_name = Some(path);
                    }
                }
                // Comments of tar programs; what they could say of every entry is not known to any writer of backups.
                tar::EntryType::XGlobalHeader => {
                    self.read_body(size, EXTENSION_MAX, "a pax header", at)?;
                    if self.pax_path(at)?.is_some() {
                        return Err(wrong("names all entries"));
                    }
                }
                tar::EntryType::Directory => {
                    if size != 0 {
                        return Err(wrong("is that of a directory with content"));
                    }
                    long_name = None;
                }
                tar::EntryType::Regular => {
                    let path = match long_name.take() {
                        Some(path) => path,
                        None => text(&header.path_bytes(), at)?,
                    };
                    self.read_body(size, ENTRY_MAX, &format!("entry {path:?}"), at)?;
                    return Ok(Some(TarEntry {
                        path,
                        at,
                        body: &self.body,
                    }));
                }
                other => {
                    return Err(malformed(
                        format!("entry {:?}", String::from_utf8_lossy(&header.path_bytes())),
                        at,
                        format!(
                            "is of type {:?}, not a regular file",
                            other.as_byte() as char
                        ),
                    ));
                }
            }
        }
    }

    /// The next header, or `None` when it is an end block.
    fn read_header(&mut self) -> Result<Option<tar::Header>, TarError> {
        let at = self.at;
        let mut header = tar::Header::new_old();
        let bytes = header.as_mut_bytes();
        let mut filled = 0;
        while filled < BLOCK {
            let read = self.read(|input| input.read(&mut bytes[filled..]))?;
            if read == 0 {
                let why = "is missing: the archive is truncated";
                return Err(malformed("the end", at, why));
            }
            filled += read;
            self.at += read as u64;
        }
        Ok((bytes.iter().any(|&byte| byte != 0)).then_some(header))
    }

    fn read_body(&mut self, size: u64, max: u64, what: &str, at: u64) -> Result<(), TarError> {
        if size > max {
            let why = format!("has {size} bytes; more than {max} are refused");
            return Err(malformed(what, at, why));
        }
        // The buffer grows with what really comes; one giant entry does not keep its memory for ever.
        self.body.clear();
        self.body.shrink_to(4 << 20);
        let padded = size.next_multiple_of(BLOCK as u64);
        let TarReader { input, body, .. } = self;
        let read = input.by_ref().take(padded).read_to_end(body);
        let read = read.map_err(|source| TarError::Read {
            at: self.at,
            source,
        })?;
        if read as u64 != padded {
            return Err(malformed(what, at, "is cut off: the archive is truncated"));
        }
        self.at += padded;
        self.body
            .truncate(usize::try_from(size).unwrap_or_default());
        Ok(())
    }

    /// The path that a pax header gives to the entry that follows.
    fn pax_path(&self, at: u64) -> Result<Option<String>, TarError> {
        let wrong = |why: &str| malformed("a pax header", at, why);
        let mut path = None;
        let mut rest = &self.body[..];
        while !rest.is_empty() {
            let record;
            (record, rest) = pax_record(rest).ok_or_else(|| wrong("cannot be read"))?;
            match record {
                (b"path", value) => path = Some(text(value, at)?),
                // Only an entry over 8 GiB needs it.
                (b"size", _) => return Err(wrong("gives a length of its own")),
                (b"linkpath", _) => return Err(wrong("is that of a link")),
                (key, _) if key.starts_with(b"GNU.sparse") => {
                    return Err(wrong("is that of a file with holes"));
                }
                _ => {}
            }
        }
        Ok(path)
    }

    /// After one end block only zeros may follow, a second block of them at least.
    fn read_padding(&mut self) -> Result<(), TarError> {
        let at = self.at;
        let mut piece = [0; 8 * BLOCK];
        let mut seen = 0u64;
        loop {
            let read = self.read(|input| input.read(&mut piece))?;
            if read == 0 {
                break;
            }
            seen += read as u64;
            self.at += read as u64;
            if piece[..read].iter().any(|&byte| byte != 0) || seen > PADDING_MAX {
                return Err(malformed(
                    "the end",
                    at,
                    "is not the end: something follows",
                ));
            }
        }
        if seen < BLOCK as u64 {
            return Err(malformed(
                "the end",
                at,
                "is cut off: the archive is truncated",
            ));
        }
        Ok(())
    }

    fn read(
        &mut self,
        mut read: impl FnMut(&mut R) -> io::Result<usize>,
    ) -> Result<usize, TarError> {
        loop {
            match read(&mut self.input) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => {
                    return other.map_err(|source| TarError::Read {
                        at: self.at,
                        source,
                    });
                }
            }
        }
    }
}

fn malformed(what: impl Into<String>, at: u64, why: impl Into<String>) -> TarError {
    TarError::Malformed {
        what: what.into(),
        at,
        why: why.into(),
    }
}

fn text(bytes: &[u8], at: u64) -> Result<String, TarError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| {
        let what = format!("the path {:?}", String::from_utf8_lossy(bytes));
        malformed(what, at, "is not UTF-8")
    })
}

/// The first record of a pax header, `LENGTH KEY=VALUE` and a newline, as key and value; and what follows it.
#[expect(clippy::type_complexity, reason = "a pair, and the rest")]
fn pax_record(records: &[u8]) -> Option<((&[u8], &[u8]), &[u8])> {
    let space = records.iter().position(|&byte| byte == b' ')?;
    let digits = std::str::from_utf8(&records[..space]).ok()?;
    let length: usize = digits.parse().ok()?;
    let (record, rest) = records.split_at_checked(length)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|&byte| byte == b'=')?;
    Some(((&record[..equals], &record[equals + 1..]), rest))
}

/// The sum of a header's bytes, its own field counted as spaces, is in the header.
fn check_sum(header: &tar::Header) -> Result<(), &'static str> {
    let bytes = header.as_bytes();
    let others = bytes[..148].iter().chain(&bytes[156..]);
    let sum: u32 = others.map(|&byte| u32::from(byte)).sum::<u32>() + 8 * u32::from(b' ');
    match header.cksum() {
        Ok(recorded) if recorded == sum => Ok(()),
        _ => Err("has a wrong checksum"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str, kind: tar::EntryType, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(size);
        header.set_cksum();
        header
    }

    fn entry(name: &str, kind: tar::EntryType, body: &[u8]) -> Vec<u8> {
        let mut tar = header(name, kind, body.len() as u64).as_bytes().to_vec();
        tar.extend_from_slice(body);
        tar.resize(tar.len().next_multiple_of(BLOCK), 0);
        tar
    }

    fn read(tar: &[u8]) -> Result<Vec<(String, Vec<u8>)>, TarError> {
        let mut reader = TarReader::new(tar);
        let mut found = Vec::new();
        while let Some(entry) = reader.next_entry()? {
            found.push((entry.path, entry.body.to_vec()));
        }
        Ok(found)
    }

    fn why(parts: &[Vec<u8>]) -> String {
        let tar = [&parts.concat()[..], &[0; 1024]].concat();
        read(&tar).unwrap_err().to_string()
    }

    const FILE: tar::EntryType = tar::EntryType::Regular;

    fn pax(records: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        builder
            .append_pax_extensions(records.iter().map(|(key, value)| (*key, value.as_bytes())))
            .unwrap();
        builder.get_ref().clone()
    }

    #[test]
    fn regular_files_come_out_whatever_carries_their_names() {
        let long = "l".repeat(300);
        let tar = [
            entry("d/", tar::EntryType::Directory, b""),
            entry("a", FILE, b"one"),
            entry(
                "././@LongLink",
                tar::EntryType::GNULongName,
                format!("{long}\0").as_bytes(),
            ),
            entry("l", FILE, b"two"),
            pax(&[("mtime", "1.5"), ("path", &long)]),
            entry("l", FILE, &[7; 1025]),
            vec![0; 1024 + 9216],
        ]
        .concat();
        let found = read(&tar).unwrap();
        let names: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(names, ["a", &long, &long]);
        assert_eq!(found[2].1, [7; 1025]);
        assert_eq!(read(&[0; 1024]).unwrap(), []);
    }

    #[test]
    fn every_truncation_is_found() {
        let tar = [
            entry("a", FILE, b"one"),
            entry("b", FILE, &[1; 600]),
            vec![0; 1024],
        ]
        .concat();
        assert_eq!(read(&tar).unwrap().len(), 2);
        for length in 0..tar.len() {
            assert!(read(&tar[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn what_is_no_regular_file_is_refused() {
        for (kind, name) in [
            (tar::EntryType::Symlink, "2"),
            (tar::EntryType::Link, "1"),
            (tar::EntryType::Fifo, "6"),
            (tar::EntryType::Char, "3"),
            (tar::EntryType::GNUSparse, "S"),
            (tar::EntryType::GNULongLink, "K"),
        ] {
            let why = why(&[entry("x", kind, b"")]);
            assert!(
                why.contains(&format!("{name:?}").replace('"', "'")),
                "{why}"
            );
        }
        let why = why(&[entry("d", tar::EntryType::Directory, b"x")]);
        assert!(why.contains("directory with content"), "{why}");
    }

    #[test]
    fn odd_lengths_take_no_memory() {
        for (kind, size, says) in [
            (FILE, ENTRY_MAX + 1, "refused"),
            (FILE, u64::MAX >> 1, "refused"),
            (tar::EntryType::GNULongName, EXTENSION_MAX + 1, "refused"),
            (tar::EntryType::XHeader, 1 << 40, "refused"),
            (FILE, ENTRY_MAX, "cut off"),
        ] {
            let why = why(&[header("x", kind, size).as_bytes().to_vec()]);
            assert!(why.contains(says), "{why}");
        }
    }

    #[test]
    fn odd_pax_headers_are_refused() {
        let file = || entry("a", FILE, b"x");
        for (records, says) in [
            (pax(&[("size", "1")]), "length of its own"),
            (pax(&[("linkpath", "x")]), "link"),
            (pax(&[("GNU.sparse.major", "1")]), "holes"),
            (
                entry("p", tar::EntryType::XHeader, b"99 path=a\n"),
                "pax header",
            ),
            (
                entry("p", tar::EntryType::XHeader, b"5 path=a\n"),
                "pax header",
            ),
            (
                entry("p", tar::EntryType::XHeader, b"10 path=a\n\n\n"),
                "pax header",
            ),
            (entry("p", tar::EntryType::XHeader, b"no"), "pax header"),
            (
                entry("p", tar::EntryType::XGlobalHeader, b"10 path=a\n"),
                "names all",
            ),
            (
                entry("p", tar::EntryType::XHeader, b"10 path=\xff\n"),
                "UTF-8",
            ),
        ] {
            let why = why(&[records, file()]);
            assert!(why.contains(says), "{says}: {why}");
        }
    }

    #[test]
    fn damaged_headers_are_refused() {
        let good = entry("a", FILE, b"x");
        for at in 0..BLOCK {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            let tar = [&bad[..], &[0; 1024]].concat();
            // A zero may be a space in the checksum itself.
            if let Ok(found) = read(&tar) {
                assert!((148..156).contains(&at), "{at}");
                assert_eq!(found, [("a".to_owned(), b"x".to_vec())]);
            }
        }
        let why = why(&[good, vec![1]]);
        assert!(
            why.contains("checksum") || why.contains("truncated"),
            "{why}"
        );
    }
}
