//! The log of one operation: to stderr as it happens, and kept in a temporary file to be stored with the results.

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Bytes of log that are stored; a longer one is cut at its beginning, for what matters stands at the end.
const STORED_MAX: u64 = 4 << 20;

/// A log. Lines have logrus's form, as Velero's do, so that the same tools read both.
///
/// Clones are the same log.
#[derive(Clone, Debug)]
pub struct Log {
    file: Arc<Mutex<File>>,
}

impl Log {
    /// A log whose file is in `directory` and gone when the process is.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn new(directory: &Path) -> io::Result<Log> {
        Ok(Log {
            file: Arc::new(Mutex::new(tempfile::tempfile_in(directory)?)),
        })
    }

    /// Something worth knowing.
    pub fn info(&self, message: &str) {
        self.write("info", message);
    }

    /// Something the user should look at.
    pub fn warn(&self, message: &str) {
        self.write("warning", message);
    }

    /// Something that went wrong.
    pub fn error(&self, message: &str) {
        self.write("error", message);
    }

    fn write(&self, level: &str, message: &str) {
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
        // Debug quotes and escapes, so that a message stays one line.
        let line = format!("time=\"{now}\" level={level} msg={message:?}\n");
        let mut stderr = io::stderr().lock();
        let stored = self
            .file
            .lock()
            .map_err(|_| io::Error::other("a thread that wrote to it panicked"));
        if let Err(error) = stored.and_then(|mut file| file.write_all(line.as_bytes())) {
            // Nobody is left to tell when stderr is gone, too.
            drop(writeln!(
                stderr,
                "time=\"{now}\" level=error msg=\"the log cannot be kept: {error}\""
            ));
        }
        drop(stderr.write_all(line.as_bytes()));
    }

    /// The log so far, compressed, to be stored.
    ///
    /// # Errors
    /// When the file cannot be read back.
    pub fn to_gzip(&self) -> io::Result<Bytes> {
        let mut file = self
            .file
            .lock()
            .map_err(|_| io::Error::other("a thread that wrote to the log panicked"))?;
        let length = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(length.saturating_sub(STORED_MAX)))?;
        let mut gzip = GzEncoder::new(Vec::new(), Compression::new(6));
        io::copy(&mut (&mut *file).take(STORED_MAX), &mut gzip)?;
        file.seek(SeekFrom::End(0))?;
        Ok(gzip.finish()?.into())
    }
}
