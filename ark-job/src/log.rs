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

    /// The last lines of the log so far, whole ones, in at most `max` bytes.
    ///
    /// # Errors
    /// When the file cannot be read back.
    pub fn tail(&self, max: u64) -> io::Result<String> {
        let mut file = self
            .file
            .lock()
            .map_err(|_| io::Error::other("a thread that wrote to the log panicked"))?;
        let length = file.seek(SeekFrom::End(0))?;
        // One byte more shows whether the first line is whole.
        let start = length.saturating_sub(max + 1);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        (&mut *file).take(max + 1).read_to_end(&mut bytes)?;
        file.seek(SeekFrom::End(0))?;
        let cut = match start {
            0 if length <= max => 0,
            _ => memchr::memchr(b'\n', &bytes).map_or(bytes.len(), |end| end + 1),
        };
        Ok(String::from_utf8_lossy(&bytes[cut..]).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_has_whole_lines_and_no_more_than_fit() {
        let log = Log::new(&std::env::temp_dir()).unwrap();
        for n in 0..10 {
            log.info(&format!("line {n}"));
        }
        let all = log.tail(1 << 20).unwrap();
        let lines: Vec<&str> = all.split_inclusive('\n').collect();
        assert_eq!(lines.len(), 10);
        let line = lines[9].len() as u64;
        for (max, expected) in [
            (0, 0),
            (line - 1, 0),
            (line, 1),
            (line + 1, 1),
            (2 * line - 1, 1),
            (2 * line, 2),
            (10 * line - 1, 9),
            (10 * line, 10),
        ] {
            assert_eq!(
                log.tail(max).unwrap(),
                lines[10 - expected..].concat(),
                "{max}"
            );
        }
        log.info("line a");
        assert!(log.tail(line).unwrap().contains("line a"));
    }
}
