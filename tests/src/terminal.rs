//! Programs in a pseudo-terminal of a given width, as a person has them.

use crate::process;
use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A program whose standard output and error are a terminal; it is killed when this is dropped.
pub struct InTerminal {
    child: Child,
    said: Arc<Mutex<Vec<u8>>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl InTerminal {
    /// Starts it in a terminal with that many columns.
    ///
    /// # Errors
    /// When there is no terminal to be had, or the program does not start.
    pub fn start(mut command: Command, columns: u16) -> Result<InTerminal> {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&terminal)?;
        unlockpt(&terminal)?;
        let name = ptsname(&terminal, Vec::new())?;
        let side = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(rustix::fs::OFlags::NOCTTY.bits() as i32)
            .open(std::ffi::OsStr::from_bytes(name.as_bytes()))
            .with_context(|| format!("opening {name:?}"))?;
        let size = Winsize {
            ws_row: 40,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&side, size)?;
        command
            .stdin(Stdio::null())
            .stdout(side.try_clone()?)
            .stderr(side);
        let child = process::spawn(command)?;
        let said = Arc::new(Mutex::new(Vec::new()));
        let into = said.clone();
        let reader = std::thread::spawn(move || {
            let mut terminal = File::from(terminal);
            let mut buffer = [0; 4096];
            // It ends with an error when nobody has the other side open any more.
            while let Ok(count @ 1..) = terminal.read(&mut buffer) {
                into.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend_from_slice(&buffer[..count]);
            }
        });
        Ok(InTerminal {
            child,
            said,
            reader: Some(reader),
        })
    }

    /// All that it has written so far, with what moves the cursor.
    pub fn said(&self) -> String {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&said).into_owned()
    }

    /// Sends it what Ctrl-C sends.
    ///
    /// # Errors
    /// When it is not there any more.
    pub fn interrupt(&self) -> Result<()> {
        process::signal(self.child.id(), Signal::INT)
    }

    /// Waits for its end; its exit code, and all that it has written.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn end(mut self, within: Duration) -> Result<(Option<i32>, String)> {
        let deadline = Instant::now() + within;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(
                Instant::now() < deadline,
                "it does not end, having said {:?}",
                self.said()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        if let Some(reader) = self.reader.take() {
            // It ends with the program, whose side was the last one.
            drop(reader.join());
        }
        Ok((status.code(), self.said()))
    }
}

impl Drop for InTerminal {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The lines that were to be seen: without what moves the cursor; one that is drawn again is a line of its own.
pub fn seen(said: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut all = said.chars().peekable();
    while let Some(one) = all.next() {
        match one {
            '\u{1b}' => {
                // ESC [ parameters letter
                if all.next_if_eq(&'[').is_some() {
                    while all.next_if(|next| !next.is_ascii_alphabetic()).is_some() {}
                    all.next();
                }
            }
            '\r' | '\n' => lines.push(String::new()),
            one => lines.last_mut().expect("there is one").push(one),
        }
    }
    lines.retain(|line| !line.trim().is_empty());
    lines
}

/// Whether anything is coloured, or bold.
pub fn is_coloured(said: &str) -> bool {
    said.split('\u{1b}').skip(1).any(|sequence| {
        let end = sequence.find(|one: char| one.is_ascii_alphabetic());
        end.is_some_and(|end| sequence[end..].starts_with('m'))
    })
}
