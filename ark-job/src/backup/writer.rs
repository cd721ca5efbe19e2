//! The archive on its way to the spool: blocks are compressed by other threads and appended in the order they came.

use crate::archive::MEMBER_SIZE;
use crate::archive::footer::Footer;
use crate::archive::footer::Head;
use crate::archive::write::{Block, Compressed, Compressor, Index};
use crate::store::SpoolWriter;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

/// Blocks handed over and not appended yet: one is compressed while one is appended. More only costs memory.
const IN_FLIGHT: usize = 2;

/// Takes blocks; the archive grows in the spool.
pub struct ArchiveWriter {
    queue: mpsc::Sender<InFlight>,
    appender: JoinHandle<io::Result<(SpoolWriter, Index)>>,
    slots: Arc<Semaphore>,
    compressors: Arc<Pool<Compressor>>,
    buffers: Arc<Pool<Vec<u8>>>,
    level: u8,
    mtime: u64,
}

/// A block being compressed, and its slot until it has been appended.
struct InFlight {
    compressed: JoinHandle<Compressed>,
    slot: OwnedSemaphorePermit,
}

/// What is used again and again, and nobody is using right now.
struct Pool<T>(Mutex<Vec<T>>);

impl<T> Pool<T> {
    fn take(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn give(&self, used: T) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(used);
    }
}

impl ArchiveWriter {
    /// Starts an archive; `mtime` (seconds) is the time of all its entries.
    pub async fn start(spool: SpoolWriter, level: u8, mtime: u64) -> io::Result<ArchiveWriter> {
        let (queue, blocks) = mpsc::channel(IN_FLIGHT);
        let appender = tokio::spawn(append(spool, blocks));
        let writer = ArchiveWriter {
            queue,
            appender,
            slots: Arc::new(Semaphore::new(IN_FLIGHT)),
            compressors: Arc::new(Pool(Mutex::default())),
            buffers: Arc::new(Pool(Mutex::default())),
            level,
            mtime,
        };
        writer.submit(Block::version(mtime)).await?;
        Ok(writer)
    }

    /// An empty block for objects of `resource`, of namespace `part` only if given.
    pub fn block(&self, resource: &str, part: Option<&str>) -> Block {
        Block::new(resource, part, self.mtime)
    }

    /// Takes a full block out, leaving an empty one for the objects that follow.
    pub fn take(&self, block: &mut Block) -> Block {
        block.take(self.buffers.take().unwrap_or_default())
    }

    /// Hands a block over; waits while enough are under way.
    ///
    /// # Errors
    /// When the spool could not be written: [`ArchiveWriter::finish`] says why.
    pub async fn submit(&self, block: Block) -> io::Result<()> {
        let stopped = || io::Error::other("the archive's writer has stopped");
        // Before anything is started: several types hand over at once, and each block costs memory.
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        let slot = slot.map_err(|_| stopped())?;
        let (compressors, buffers) = (Arc::clone(&self.compressors), Arc::clone(&self.buffers));
        let level = self.level;
        let compressed = tokio::task::spawn_blocking(move || {
            let idle = compressors.take();
            let mut compressor = idle.unwrap_or_else(|| Compressor::new(level));
            let (compressed, buffer) = compressor.compress(block);
            compressors.give(compressor);
            // Those of small types and of huge objects are not worth keeping.
            if (MEMBER_SIZE..2 * MEMBER_SIZE).contains(&buffer.capacity()) {
                buffers.give(buffer);
            }
            compressed
        });
        let in_flight = InFlight { compressed, slot };
        self.queue.send(in_flight).await.map_err(|_| stopped())
    }

    /// Appends footer and end, declares the spool complete, and returns the footer.
    ///
    /// # Errors
    /// When the spool could not be written.
    pub async fn finish(self, head: impl FnOnce() -> Head) -> io::Result<Footer> {
        let ArchiveWriter {
            queue,
            appender,
            compressors,
            level,
            mtime,
            ..
        } = self;
        drop(queue);
        let (mut spool, index) = appender.await.map_err(io::Error::other)??;
        let idle = compressors.take();
        let mut compressor = idle.unwrap_or_else(|| Compressor::new(level));
        let (footer, tail) = index.finish(head(), &mut compressor, mtime);
        spool.append(tail.footer.into()).await?;
        spool.append(tail.end.into()).await?;
        spool.finish();
        Ok(footer)
    }

    /// The error that stopped the writer, or `otherwise` when it is not the writer that failed.
    pub async fn failure(self, otherwise: io::Error) -> io::Error {
        drop(self.queue);
        match self.appender.await {
            Ok(Err(error)) => error,
            Ok(Ok(_)) => otherwise,
            Err(panic) => io::Error::other(panic),
        }
    }
}

async fn append(
    mut spool: SpoolWriter,
    mut blocks: mpsc::Receiver<InFlight>,
) -> io::Result<(SpoolWriter, Index)> {
    let mut index = Index::default();
    while let Some(InFlight { compressed, slot }) = blocks.recv().await {
        let compressed = compressed.await.map_err(io::Error::other)?;
        index.append(&compressed);
        spool.append(compressed.bytes.into()).await?;
        drop(slot);
    }
    Ok((spool, index))
}
