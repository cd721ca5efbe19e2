//! The spool of a foreign archive: streamed from the store once, checked and made seekable, in a temporary file.

use super::{RepositoryError, Served, Worker};
use crate::archive::foreign::{self, Contents, ForeignError};
use crate::store::{Store, is_full};
use bytes::{Buf, Bytes};
use std::fs::File;
use std::io::{self, BufRead, Read};
use std::path::Path;
use tokio::sync::mpsc;

/// Pieces on their way from the store, some hundred kilobytes each at most: enough that neither side waits for long.
const PIECES_AHEAD: usize = 8;

/// A spool and what is in it.
#[derive(Debug)]
pub(super) struct Spooled {
    pub(super) file: File,
    pub(super) contents: Contents,
    /// Length of the archive that it was made of, bytes.
    pub(super) length: u64,
}

/// Streams the archive at `key` into a spool in `temporary`. The file has no name, so a kill leaves nothing behind.
///
/// # Errors
/// When the store fails, there is no room, or the archive is not a whole and sound backup.
pub(super) async fn spool(
    store: &Store,
    name: &str,
    key: &str,
    temporary: &Path,
    served: Served,
    worker: &Worker,
) -> Result<Spooled, RepositoryError> {
    let Some(mut reader) = store.read(key).await? else {
        return Err(RepositoryError::Damaged {
            backup: name.to_owned(),
            why: format!("its archive {key} is missing"),
        });
    };
    let length = reader.length();
    let (pieces, incoming) = mpsc::channel::<Bytes>(PIECES_AHEAD);
    let directory = temporary.to_owned();
    let reading = worker.run(move || {
        let file = tempfile::tempfile_in(directory).map_err(|source| ForeignError::Spool {
            written: 0,
            read: 0,
            source,
        })?;
        let incoming = Pieces {
            incoming,
            piece: Bytes::new(),
        };
        let contents = foreign::spool(incoming, &mut &file, |resource| {
            served.get(resource).cloned().unwrap_or_default()
        })?;
        Ok::<_, ForeignError>((file, contents))
    });
    let feeding = async {
        // Nobody takes pieces any more after an error: that is the one to tell.
        while let Some(piece) = reader.next().await? {
            if pieces.send(piece).await.is_err() {
                break;
            }
        }
        drop(pieces);
        Ok::<(), RepositoryError>(())
    };
    let (fed, read) = futures::join!(feeding, reading);
    fed?;
    let read = read.unwrap_or_else(|| {
        Err(ForeignError::Malformed {
            what: "the archive".into(),
            why: "made its reader crash".into(),
        })
    });
    let (file, contents) = read.map_err(|error| match error {
        ForeignError::Spool {
            written,
            read,
            source,
        } if is_full(&source) => RepositoryError::NoRoom {
            backup: name.to_owned(),
            directory: temporary.display().to_string(),
            needed: needed(written, read, length),
        },
        ForeignError::Spool { source, .. } => RepositoryError::Spool {
            directory: temporary.display().to_string(),
            source,
        },
        source => RepositoryError::Foreign {
            backup: name.to_owned(),
            key: key.to_owned(),
            source,
        },
    })?;
    Ok(Spooled {
        file,
        contents,
        length,
    })
}

/// How much room the whole spool needs, by what a part of it needed, bytes; half more for what lies ahead.
fn needed(written: u64, read: u64, length: u64) -> u64 {
    let expected = u128::from(written.max(1)) * u128::from(length) / u128::from(read.max(1));
    let expected = u64::try_from(expected).unwrap_or(u64::MAX);
    expected
        .max(length)
        .saturating_add(expected.max(length) / 2)
}

/// What comes through a channel, as a blocking reader. Its end is the end of the archive or of the wish to read it.
struct Pieces {
    incoming: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.piece.is_empty() {
            match self.incoming.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => break,
            }
        }
        Ok(&self.piece)
    }

    fn consume(&mut self, amount: usize) {
        self.piece.advance(amount.min(self.piece.len()));
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let length = available.len().min(buffer.len());
        buffer[..length].copy_from_slice(&available[..length]);
        self.consume(length);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_needed_is_estimated_from_what_was_read() {
        assert_eq!(needed(0, 0, 1000), 1500);
        assert_eq!(needed(200, 100, 1000), 3000);
        assert_eq!(needed(u64::MAX, 1, u64::MAX), u64::MAX);
    }
}
