//! Writing an archive: tar entries into blocks, blocks into gzip members, members into an index with a footer.

use super::footer::{Footer, Head, Member};
use super::{FOOTER_ENTRY, MEMBER_SIZE, METADATA, VELERO_FORMAT_VERSION, VERSION_ENTRY, key};
use crate::layout::item_path;
use flate2::{Compress, Compression, Crc, FlushCompress, Status};
use sha2::{Digest, Sha256};

const TAR_BLOCK: usize = 512;
/// Longest name that fits a tar header; longer ones are written as GNU long names, which Velero's reader takes.
const TAR_NAME_MAX: usize = 100;
/// Velero's extractor creates directories with the mode of the file, so files must be executable.
const MODE: u32 = 0o755;

/// Length of the end member: header, extra field, one stored block with tar's two end blocks, checksum.
pub const END_LENGTH: usize = 10 + 2 + EXTRA_LENGTH + 5 + 2 * TAR_BLOCK + 8;
const EXTRA_LENGTH: usize = 4 + EXTRA_DATA_LENGTH;
/// Where the data of the extra field begins: after header, length of the field, and the subfield's id and length.
pub(super) const EXTRA_DATA_OFFSET: usize = 10 + 2 + 4;
pub(super) const EXTRA_DATA_LENGTH: usize = 8 + 8 + 32;
/// Subfield id of the extra field (RFC 1952 §2.3.1.1).
const EXTRA_ID: [u8; 2] = *b"AK";

/// Bytes of tar for which room is made at first, and when that is full.
const FEW: usize = 32 << 10;
const ROOM: usize = MEMBER_SIZE + MEMBER_SIZE / 8;

/// Raw tar entries of one resource type, on their way to become a member.
#[derive(Debug)]
pub struct Block {
    resource: String,
    part: Option<String>,
    mtime: u64,
    tar: Vec<u8>,
    items: u64,
    first: String,
    last: String,
    sorted: bool,
}

impl Block {
    /// An empty block for objects of `resource`, read from namespace `part` only if given. `mtime` is in seconds.
    pub fn new(resource: &str, part: Option<&str>, mtime: u64) -> Block {
        Block {
            resource: resource.to_owned(),
            part: part.map(str::to_owned),
            mtime,
            tar: Vec::new(),
            items: 0,
            first: String::new(),
            last: String::new(),
            sorted: true,
        }
    }

    /// The block that opens every archive.
    pub fn version(mtime: u64) -> Block {
        let mut block = Block::new(METADATA, None, mtime);
        append_entry(
            &mut block.tar,
            VERSION_ENTRY,
            mtime,
            &[format!("{VELERO_FORMAT_VERSION}\n").as_bytes()],
        );
        block.items = 1;
        block.first = VERSION_ENTRY.to_owned();
        block.last = VERSION_ENTRY.to_owned();
        block
    }

    /// Appends an object, whose JSON is the concatenation of `body`.
    pub fn push(&mut self, namespace: Option<&str>, name: &str, body: &[&[u8]]) {
        // Most types have few objects; one that has many needs the room of a whole member, and not twice that.
        let length =
            self.tar.len() + 4 * TAR_BLOCK + body.iter().map(|part| part.len()).sum::<usize>();
        if length > self.tar.capacity() {
            let room = if length <= FEW { FEW } else { ROOM.max(length) };
            self.tar.reserve_exact(room - self.tar.len());
        }
        append_entry(
            &mut self.tar,
            &item_path(&self.resource, namespace, name),
            self.mtime,
            body,
        );
        let key = key(namespace, name);
        if self.items == 0 {
            self.first.clone_from(&key);
        } else if key <= self.last {
            self.sorted = false;
        }
        self.last = key;
        self.items += 1;
    }

    /// Memory that the block has taken, bytes.
    pub fn room(&self) -> usize {
        self.tar.capacity()
    }

    /// Whether the block is large enough to become a member.
    pub fn is_full(&self) -> bool {
        self.tar.len() >= MEMBER_SIZE
    }

    /// Whether the block holds nothing.
    pub fn is_empty(&self) -> bool {
        self.items == 0
    }

    /// Whether the objects came in order of their keys.
    pub fn is_sorted(&self) -> bool {
        self.sorted
    }

    /// Key of the first object.
    pub fn first(&self) -> &str {
        &self.first
    }

    /// Key of the last object.
    pub fn last(&self) -> &str {
        &self.last
    }

    /// Takes the full block out, leaving an empty one for the objects that follow, which uses `buffer`.
    pub fn take(&mut self, buffer: Vec<u8>) -> Block {
        let mut next = Block::new(&self.resource, self.part.as_deref(), self.mtime);
        next.tar = buffer;
        next.tar.clear();
        std::mem::replace(self, next)
    }
}

/// Appends one tar entry: a GNU long name if need be, header, data, padding.
fn append_entry(tar: &mut Vec<u8>, path: &str, mtime: u64, body: &[&[u8]]) {
    if path.len() > TAR_NAME_MAX {
        let header = header(
            b"././@LongLink",
            tar::EntryType::GNULongName,
            0,
            path.len() as u64 + 1,
        );
        tar.extend_from_slice(header.as_bytes());
        tar.extend_from_slice(path.as_bytes());
        tar.push(0);
        pad(tar);
    }
    let name = &path.as_bytes()[..path.len().min(TAR_NAME_MAX)];
    let size = body.iter().map(|part| part.len() as u64).sum();
    tar.extend_from_slice(header(name, tar::EntryType::Regular, mtime, size).as_bytes());
    for part in body {
        tar.extend_from_slice(part);
    }
    pad(tar);
}

fn header(name: &[u8], entry_type: tar::EntryType, mtime: u64, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_entry_type(entry_type);
    header.set_mode(MODE);
    header.set_mtime(mtime);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header.set_cksum();
    header
}

fn pad(tar: &mut Vec<u8>) {
    tar.resize(tar.len().next_multiple_of(TAR_BLOCK), 0);
}

/// A block as a gzip member, and its line in the footer but for the offset.
#[derive(Debug)]
pub struct Compressed {
    /// The member's bytes.
    pub bytes: Vec<u8>,
    line: Member,
}

/// Turns blocks into gzip members; reused, since setting one up costs as much as compressing a small block.
pub struct Compressor {
    deflate: Compress,
}

impl Compressor {
    /// A compressor of `level` 1 to 9.
    pub fn new(level: u8) -> Compressor {
        Compressor {
            deflate: Compress::new(Compression::new(u32::from(level)), false),
        }
    }

    /// Compresses a block, and gives its buffer back. Takes some milliseconds of CPU: not for an async thread.
    pub fn compress(&mut self, block: Block) -> (Compressed, Vec<u8>) {
        let bytes = self.gzip(&block.tar);
        let line = Member {
            offset: 0,
            length: bytes.len() as u64,
            size: block.tar.len() as u64,
            sha256: hex::encode(Sha256::digest(&bytes)),
            resource: block.resource,
            part: block.part,
            items: block.items,
            first: block.first,
            last: block.last,
        };
        (Compressed { bytes, line }, block.tar)
    }

    fn gzip(&mut self, raw: &[u8]) -> Vec<u8> {
        // No name, no time, unknown system: the same bytes always give the same member.
        let mut out = Vec::with_capacity(raw.len() / 3 + 1024);
        out.extend_from_slice(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
        self.deflate.reset();
        let mut taken = 0;
        loop {
            out.reserve(64 * 1024);
            let before = self.deflate.total_in();
            let status = self
                .deflate
                .compress_vec(&raw[taken..], &mut out, FlushCompress::Finish)
                .expect("compressing memory into memory has nothing to fail on");
            taken += (self.deflate.total_in() - before) as usize;
            if status == Status::StreamEnd {
                break;
            }
        }
        let mut crc = Crc::new();
        crc.update(raw);
        out.extend_from_slice(&crc.sum().to_le_bytes());
        out.extend_from_slice(&crc.amount().to_le_bytes());
        out
    }
}

/// The growing list of members.
#[derive(Debug, Default)]
pub struct Index {
    offset: u64,
    members: Vec<Member>,
}

/// The last two members.
#[derive(Debug)]
pub struct Tail {
    /// The footer's member.
    pub footer: Vec<u8>,
    /// The end member.
    pub end: Vec<u8>,
    /// Where the footer is.
    pub place: FooterPlace,
    /// Length of the whole archive, bytes.
    pub length: u64,
}

/// Where a footer is, and its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FooterPlace {
    /// Offset in the archive, bytes.
    pub offset: u64,
    /// Compressed length, bytes.
    pub length: u64,
    /// SHA-256 of the compressed bytes.
    pub sha256: [u8; 32],
}

impl Index {
    /// Notes that `member` has been appended to the archive.
    pub fn append(&mut self, member: &Compressed) {
        self.members.push(Member {
            offset: self.offset,
            ..member.line.clone()
        });
        self.offset += member.bytes.len() as u64;
    }

    /// Length so far, bytes.
    pub fn length(&self) -> u64 {
        self.offset
    }

    /// How many members there are.
    pub fn count(&self) -> usize {
        self.members.len()
    }

    /// The members alone, for who needs no footer in the file.
    pub fn into_members(self) -> Vec<Member> {
        self.members
    }

    /// Makes the footer and the last two members.
    pub fn finish(self, head: Head, compressor: &mut Compressor, mtime: u64) -> (Footer, Tail) {
        let footer = Footer {
            head,
            members: self.members,
        };
        let mut tar = Vec::new();
        append_entry(&mut tar, FOOTER_ENTRY, mtime, &[&footer.to_json()]);
        let bytes = compressor.gzip(&tar);
        let place = FooterPlace {
            offset: self.offset,
            length: bytes.len() as u64,
            sha256: Sha256::digest(&bytes).into(),
        };
        let end = end_member(&place);
        let length = place.offset + place.length + end.len() as u64;
        (
            footer,
            Tail {
                footer: bytes,
                end,
                place,
                length,
            },
        )
    }
}

/// The end member: tar's end blocks stored, not deflated, so that its length never varies.
pub fn end_member(place: &FooterPlace) -> Vec<u8> {
    let zeros = [0u8; 2 * TAR_BLOCK];
    let mut end = Vec::with_capacity(END_LENGTH);
    end.extend_from_slice(&[0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255]);
    end.extend_from_slice(&(EXTRA_LENGTH as u16).to_le_bytes());
    end.extend_from_slice(&EXTRA_ID);
    end.extend_from_slice(&(EXTRA_DATA_LENGTH as u16).to_le_bytes());
    end.extend_from_slice(&place.offset.to_le_bytes());
    end.extend_from_slice(&place.length.to_le_bytes());
    end.extend_from_slice(&place.sha256);
    // One final stored block (RFC 1951 §3.2.4).
    end.push(1);
    end.extend_from_slice(&(zeros.len() as u16).to_le_bytes());
    end.extend_from_slice(&(!(zeros.len() as u16)).to_le_bytes());
    end.extend_from_slice(&zeros);
    let mut crc = Crc::new();
    crc.update(&zeros);
    end.extend_from_slice(&crc.sum().to_le_bytes());
    end.extend_from_slice(&crc.amount().to_le_bytes());
    debug_assert_eq!(end.len(), END_LENGTH);
    end
}
