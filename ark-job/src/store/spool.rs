//! A growing temporary file between the one who writes an archive and the one who uploads it.
//!
//! A slow store must never hold up the listing of the cluster, and the archive must not be held in memory: the writer
//! appends to a file, and the upload streams its parts from that file, again for each retry. The file has no name (on
//! Unix), so that a kill leaves nothing behind. What is in it is no concern of this file.

use std::fs::File;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How much is read from the file at a time, in bytes: large enough that a thread switch does not count, small enough
/// that two parts in flight cost next to nothing.
const READ_SIZE: usize = 128 * 1024;

/// Why a spool cannot be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The writer was dropped without [`SpoolWriter::finish`]: what is there is incomplete.
    #[error("the writer stopped before the end")]
    Abandoned,
    /// The file could not be read or written.
    #[error("spool file: {0}")]
    Io(#[from] io::Error),
}

impl SpoolError {
    /// The disk of the spool is full.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Io(error) if is_full(error))
    }
}

/// Whether an I/O error means that there is no room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Growing,
    Finished,
    Abandoned,
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    length: u64,
    end: End,
}

/// Makes spools; see [`Spool::create`].
#[derive(Debug)]
pub struct Spool;

impl Spool {
    /// Makes an empty spool in `dir`, which must exist and have room for the whole archive.
    ///
    /// The file is readable by its owner only and is gone when both halves are.
    pub fn create(dir: &Path) -> io::Result<(SpoolWriter, SpoolReader)> {
        let file = Arc::new(tempfile::tempfile_in(dir)?);
        let (sender, receiver) = watch::channel(Progress {
            length: 0,
            end: End::Growing,
        });
        let writer = SpoolWriter {
            file: Arc::clone(&file),
            length: 0,
            progress: sender,
        };
        let reader = SpoolReader {
            file,
            progress: receiver,
        };
        Ok((writer, reader))
    }

    /// A finished spool in `dir` of content that is in memory.
    pub async fn of(dir: &Path, content: Bytes) -> io::Result<SpoolReader> {
        let (mut writer, reader) = Self::create(dir)?;
        writer.append(content).await?;
        writer.finish();
        Ok(reader)
    }
}

/// The appending half of a spool.
///
/// Dropping it before [`finish`](Self::finish) tells the reader that the content is incomplete, so that an upload is
/// never completed with half an archive, also when the writing task panics or is cancelled.
#[derive(Debug)]
pub struct SpoolWriter {
    file: Arc<File>,
    length: u64,
    progress: watch::Sender<Progress>,
}

impl SpoolWriter {
    /// Appends `bytes`; never waits for the reader.
    ///
    /// After an error (a full disk) the spool is only good for being dropped.
    pub async fn append(&mut self, bytes: Bytes) -> io::Result<()> {
        let file = Arc::clone(&self.file);
        let offset = self.length;
        let added = bytes.len() as u64;
        blocking(move || write_all_at(&file, &bytes, offset)).await?;
        self.length += added;
        self.progress
            .send_modify(|progress| progress.length += added);
        Ok(())
    }

    /// Bytes appended so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Says that the content is complete, and returns its length in bytes.
    pub fn finish(self) -> u64 {
        self.progress
            .send_modify(|progress| progress.end = End::Finished);
        self.length
    }
}

impl Drop for SpoolWriter {
    fn drop(&mut self) {
        self.progress.send_if_modified(|progress| {
            let growing = progress.end == End::Growing;
            if growing {
                progress.end = End::Abandoned;
            }
            growing
        });
    }
}

/// How much of a spool can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Available {
    /// Bytes that are there.
    pub length: u64,
    /// Whether that is all there will ever be.
    pub finished: bool,
}

/// The reading half of a spool. Reading does not consume: any range that is there can be read any number of times.
#[derive(Debug)]
pub struct SpoolReader {
    file: Arc<File>,
    progress: watch::Receiver<Progress>,
}

impl SpoolReader {
    /// Waits until at least `length` bytes are there, or the end is.
    pub async fn wait_for(&mut self, length: u64) -> Result<Available, SpoolError> {
        let progress = self
            .progress
            .wait_for(|progress| progress.length >= length || progress.end != End::Growing)
            .await
            // The sender marks the end before it goes away, so this is unreachable, but it costs nothing to be right.
            .map_err(|_| SpoolError::Abandoned)?;
        match progress.end {
            End::Abandoned => Err(SpoolError::Abandoned),
            end => Ok(Available {
                length: progress.length,
                finished: end == End::Finished,
            }),
        }
    }

    /// A part of the content, to be streamed. The caller has seen by [`wait_for`](Self::wait_for) that it is there.
    pub(super) fn slice(&self, offset: u64, length: u64) -> SpoolSlice {
        SpoolSlice {
            file: Arc::clone(&self.file),
            offset,
            length,
        }
    }
}

/// A range of a spool that is known to be there; each [`body`](Self::body) streams it from its start.
#[derive(Clone, Debug)]
pub(super) struct SpoolSlice {
    file: Arc<File>,
    pub(super) offset: u64,
    pub(super) length: u64,
}

impl SpoolSlice {
    /// A request body that reads the range from the file as it is sent.
    pub(super) fn body(&self) -> SliceBody {
        SliceBody {
            slice: self.clone(),
            reading: None,
        }
    }

    /// Copies the range to `offset` of another file. Blocks.
    pub(super) fn copy_to(&self, target: &File, offset: u64) -> io::Result<()> {
        let mut rest = self.clone();
        while rest.length > 0 {
            let bytes = rest.read_next()?;
            write_all_at(
                target,
                &bytes,
                offset + (rest.offset - self.offset) - bytes.len() as u64,
            )?;
        }
        Ok(())
    }

    /// Reads the next piece and moves the start of the range behind it. Blocks.
    fn read_next(&mut self) -> io::Result<Bytes> {
        let length = self.length.min(READ_SIZE as u64) as usize;
        let bytes = read_exact_at(&self.file, self.offset, length)?;
        self.offset += length as u64;
        self.length -= length as u64;
        Ok(bytes)
    }
}

/// A body of known length that reads a [`SpoolSlice`] piece by piece, so that a part is never in memory as a whole.
#[derive(Debug)]
pub(super) struct SliceBody {
    slice: SpoolSlice,
    reading: Option<JoinHandle<io::Result<(SpoolSlice, Bytes)>>>,
}

impl SliceBody {
    fn remaining(&self) -> u64 {
        self.slice.length
    }
}

impl http_body::Body for SliceBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.remaining() == 0 {
            return Poll::Ready(None);
        }
        let mut slice = self.slice.clone();
        let reading = self.reading.get_or_insert_with(|| {
            tokio::task::spawn_blocking(move || {
                let bytes = slice.read_next()?;
                Ok((slice, bytes))
            })
        });
        let read = std::task::ready!(Pin::new(reading).poll(context));
        self.reading = None;
        match read.map_err(io::Error::other).flatten() {
            Ok((rest, bytes)) => {
                self.slice = rest;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Err(error) => {
                self.slice.length = 0;
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.remaining() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining())
    }
}

/// Runs file work where it may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)
        .flatten()
}

/// Reads exactly `length` bytes at `offset`, whatever others do with the file's cursor.
pub(crate) fn read_exact_at(file: &File, offset: u64, length: usize) -> io::Result<Bytes> {
    let mut bytes = BytesMut::zeroed(length);
    let mut read = 0;
    while read < length {
        match read_at(file, &mut bytes[read..], offset + read as u64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => read += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes.freeze())
}

fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut written = 0;
    while written < bytes.len() {
        match write_at(file, &bytes[written..], offset + written as u64) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, bytes, offset)
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::write_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, bytes, offset)
}

#[cfg(windows)]
fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_write(file, bytes, offset)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn reader_sees_what_was_appended_and_waits_for_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, mut reader) = Spool::create(dir.path()).unwrap();
        writer.append(Bytes::from_static(b"hello ")).await.unwrap();
        assert_eq!(
            reader.wait_for(3).await.unwrap(),
            Available {
                length: 6,
                finished: false
            }
        );
        let waiting = tokio::spawn(async move {
            let available = reader.wait_for(100).await.unwrap();
            (reader, available)
        });
        writer.append(Bytes::from_static(b"world")).await.unwrap();
        assert_eq!(writer.finish(), 11);
        let (reader, available) = waiting.await.unwrap();
        assert_eq!(
            available,
            Available {
                length: 11,
                finished: true
            }
        );
        for _ in 0..2 {
            let body = reader.slice(4, 6).body().collect().await.unwrap();
            assert_eq!(body.to_bytes(), "o worl");
        }
    }

    #[tokio::test]
    async fn dropped_writer_is_an_error_for_the_reader() {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, mut reader) = Spool::create(dir.path()).unwrap();
        writer.append(Bytes::from_static(b"half")).await.unwrap();
        drop(writer);
        assert!(matches!(
            reader.wait_for(1).await,
            Err(SpoolError::Abandoned)
        ));
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn spool_has_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let _halves = Spool::create(dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
