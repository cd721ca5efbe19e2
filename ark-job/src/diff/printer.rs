//! Standard output, in pieces.

use crate::error::Failure;
use crate::stdout;
use bytes::Bytes;
use std::time::{Duration, Instant};

/// What has been found is printed at the latest after this time, and when it is this long.
const PRINT_EVERY: Duration = Duration::from_millis(200);
const PRINT_BYTES: usize = 64 << 10;

/// Text on its way to standard output: not kept back for long, and not a write for each object.
#[derive(Debug, Default)]
pub(super) struct Printer {
    text: String,
    since: Option<Instant>,
}

impl Printer {
    pub(super) fn add(&mut self, text: &str) {
        self.text.push_str(text);
        self.since.get_or_insert_with(Instant::now);
    }

    pub(super) async fn print_if_due(&mut self) -> Result<(), Failure> {
        let due = self
            .since
            .is_some_and(|since| since.elapsed() >= PRINT_EVERY);
        if due || self.text.len() >= PRINT_BYTES {
            self.print().await?;
        }
        Ok(())
    }

    pub(super) async fn print(&mut self) -> Result<(), Failure> {
        self.since = None;
        if self.text.is_empty() {
            return Ok(());
        }
        stdout::write(Bytes::from(std::mem::take(&mut self.text))).await
    }
}
