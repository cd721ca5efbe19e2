//! The archive on its way to the spool: blocks are compressed by other threads and appended in the order they came.

use crate::archive::footer::Footer;
use crate::archive::footer::Head;
use crate::archive::write::{Block, Compressed, Compressor, Index};
use crate::store::SpoolWriter;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Blocks waiting to be appended: two compress while one is appended. More only costs memory.
const IN_FLIGHT: usize = 2;

/// Takes blocks; the archive grows in the spool.
pub struct ArchiveWriter {
    queue: mpsc::Sender<JoinHandle<Compressed>>,
    appender: JoinHandle<io::Result<(SpoolWriter, Index)>>,
    compressors: Arc<Compressors>,
    mtime: u64,
}

/// Compressors that no block is using.
struct Compressors {
    level: u8,
    idle: Mutex<Vec<Compressor>>,
}

impl Compressors {
    fn with<T>(&self, work: impl FnOnce(&mut Compressor) -> T) -> T {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let mut compressor = idle.unwrap_or_else(|| Compressor::new(self.level));
        let result = work(&mut compressor);
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(compressor);
        result
    }
}

impl ArchiveWriter {
    /// Starts an archive; `mtime` (seconds) is the time of all its entries.
    pub async fn start(spool: SpoolWriter, level: u8, mtime: u64) -> io::Result<ArchiveWriter> {
        let (queue, blocks) = mpsc::channel(IN_FLIGHT);
        let compressors = Arc::new(Compressors {
            level,
            idle: Mutex::default(),
        });
        let appender = tokio::spawn(append(spool, blocks));
        let writer = ArchiveWriter {
            queue,
            appender,
            compressors,
            mtime,
        };
        writer.submit(Block::version(mtime)).await?;
        Ok(writer)
    }

    /// An empty block for objects of `resource`.
    pub fn block(&self, resource: &str) -> Block {
        Block::new(resource, None, self.mtime)
    }

    /// Hands a block over; waits while enough are under way.
    ///
    /// # Errors
    /// When the spool could not be written: [`ArchiveWriter::finish`] says why.
    pub async fn submit(&self, block: Block) -> io::Result<()> {
        let compressors = Arc::clone(&self.compressors);
        let compressed = tokio::task::spawn_blocking(move || {
            compressors.with(|compressor| compressor.compress(block))
        });
        let closed = |_| io::Error::other("the archive's writer has stopped");
        self.queue.send(compressed).await.map_err(closed)
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
            mtime,
        } = self;
        drop(queue);
        let (mut spool, index) = appender.await.map_err(io::Error::other)??;
        let (footer, tail) = compressors.with(|compressor| index.finish(head(), compressor, mtime));
        spool.append(tail.footer.into()).await?;
        spool.append(tail.end.into()).await?;
        spool.finish();
        Ok(footer)
    }

    /// The error that stopped the writer.
    pub async fn failure(self) -> io::Error {
        drop(self.queue);
        match self.appender.await {
            Ok(Err(error)) => error,
            Ok(Ok(_)) => io::Error::other("the archive's writer was stopped"),
            Err(panic) => io::Error::other(panic),
        }
    }
}

async fn append(
    mut spool: SpoolWriter,
    mut blocks: mpsc::Receiver<JoinHandle<Compressed>>,
) -> io::Result<(SpoolWriter, Index)> {
    let mut index = Index::default();
    while let Some(block) = blocks.recv().await {
        let compressed = block.await.map_err(io::Error::other)?;
        index.append(&compressed);
        spool.append(compressed.bytes.into()).await?;
    }
    Ok((spool, index))
}
