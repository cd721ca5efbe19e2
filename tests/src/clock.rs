//! A machine whose clock is wrong: a library that is preloaded into a program and shifts what it reads of the time.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use tempfile::TempDir;

use crate::job::ArkJob;
use crate::process;

/// The library, compiled; there as long as this is.
pub struct WrongClock {
    directory: TempDir,
}

impl WrongClock {
    /// Compiles it.
    ///
    /// # Errors
    /// When there is no C compiler.
    pub fn build() -> Result<WrongClock> {
        let directory = tempfile::tempdir()?;
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/clock_offset.c");
        process::output(
            Command::new("cc")
                .args(["-shared", "-fPIC", "-o"])
                .arg(directory.path().join("clock_offset.so"))
                .arg(source),
        )?;
        Ok(WrongClock { directory })
    }

    /// The same on a machine whose clock is ahead by so many seconds, or behind.
    pub fn on(&self, job: ArkJob, seconds: i64) -> ArkJob {
        let library = self.directory.path().join("clock_offset.so");
        job.variable("LD_PRELOAD", &library.display().to_string())
            .variable("CLOCK_OFFSET", &seconds.to_string())
    }
}
