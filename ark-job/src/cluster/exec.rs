//! Runs commands in containers, through the API server (`pods/exec`, over a WebSocket).
//!
//! Nothing here can end a command that has begun: when the connection is given up, the process in the container goes on.

use super::{Backoff, Cluster, ClusterError, encode, get};
use futures::StreamExt;
use serde::Deserialize;
use std::fmt;
use std::time::Duration;

/// Characters of a failed command's output that a message about it has.
const MESSAGE_TAIL: usize = 300;
/// Bytes of each output that are kept: its end, where errors stand.
const KEPT: usize = 64 << 10;

// Channels of the protocols v4 and v5.channel.k8s.io: the first byte of each message.
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;

/// Where a command runs, and which.
#[derive(Clone, Copy, Debug)]
pub struct Command<'a> {
    /// The pod's namespace.
    pub namespace: &'a str,
    /// The pod.
    pub pod: &'a str,
    /// The container.
    pub container: &'a str,
    /// The command and its arguments; no shell.
    pub argv: &'a [String],
    /// How long it may take, from the first request on.
    pub timeout: Duration,
    /// Whether it may run twice: then it is tried again also when it may have begun.
    pub repeatable: bool,
}

/// What a command wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Its standard output.
    pub stdout: Tail,
    /// Its standard error.
    pub stderr: Tail,
}

/// The end of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    bytes: Vec<u8>,
    dropped: u64,
}

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        let excess = self.bytes.len().saturating_sub(KEPT);
        // Not at every message, or a long output would be moved again and again.
        if excess > KEPT {
            self.bytes.drain(..excess);
            self.dropped += excess as u64;
        }
    }

    /// What was kept, as text without spaces around it.
    pub fn text(&self) -> String {
        let start = self.bytes.len().saturating_sub(KEPT);
        let text = String::from_utf8_lossy(&self.bytes[start..]);
        let text = text.trim();
        match self.dropped + start as u64 {
            0 => text.to_owned(),
            dropped => format!("[{dropped} bytes before this were dropped] {text}"),
        }
    }

    /// The last `length` characters of what was kept.
    pub fn last(&self, length: usize) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        let text = text.trim();
        match text.char_indices().rev().nth(length) {
            Some((at, c)) => format!("…{}", &text[at + c.len_utf8()..]),
            None => text.to_owned(),
        }
    }
}

/// How a command ended.
#[derive(Debug)]
pub enum End {
    /// With exit code 0.
    Success,
    /// With another exit code.
    Code(i32),
    /// The container runtime could not run it, or lost it.
    Failed(String),
    /// It was not started.
    NotStarted(ClusterError),
    /// Nobody knows: the connection broke.
    Lost(ClusterError),
    /// It had not ended in time.
    TimedOut(Duration),
    /// In that time there was no answer to whether it could run; this was said when it was tried before.
    NoAnswer(Duration, Option<String>),
}

impl End {
    /// The rights to run it are missing.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, End::NotStarted(error) if error.is_forbidden())
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Success => f.write_str("succeeded"),
            End::Code(code) => write!(f, "exit code {code}"),
            End::Failed(why) => write!(f, "could not be run: {why}"),
            End::NotStarted(error) => write!(f, "was not started: {}", error.full_text()),
            End::Lost(error) => write!(
                f,
                "the connection to it broke, so it may go on in the container: {}",
                error.full_text()
            ),
            End::TimedOut(after) => write!(
                f,
                "timed out after {after:?}; it is not ended by that and may go on in the container"
            ),
            End::NoAnswer(after, why) => {
                write!(f, "could not be started within {after:?}")?;
                match why {
                    Some(why) => write!(f, ": {why}"),
                    None => f.write_str(": the API server does not answer"),
                }
            }
        }
    }
}

/// The message about a command that failed: what it was, how it ended, and what it wrote last, which usually says why.
pub fn message(what: &str, end: &End, output: &Output) -> String {
    let tails = [
        output.stderr.last(MESSAGE_TAIL),
        output.stdout.last(MESSAGE_TAIL),
    ];
    match tails.iter().find(|tail| !tail.is_empty()) {
        Some(tail) => format!("{what}: {end}; it wrote: {tail}"),
        None => format!("{what}: {end}"),
    }
}

/// How far a command has come.
#[derive(Default)]
struct Progress {
    output: Output,
    /// It was let through, and is running.
    connected: bool,
    /// Why an earlier attempt was not.
    refused: Option<String>,
}

/// Runs a command to its end, and says how it ended and what it wrote.
pub async fn exec(cluster: &Cluster, command: Command<'_>) -> (End, Output) {
    let mut progress = Progress::default();
    let running = run(cluster, command, &mut progress);
    let end = match tokio::time::timeout(command.timeout, running).await {
        Ok(end) => end,
        Err(_elapsed) if progress.connected => End::TimedOut(command.timeout),
        Err(_elapsed) => End::NoAnswer(command.timeout, progress.refused),
    };
    (end, progress.output)
}

async fn run(cluster: &Cluster, command: Command<'_>, progress: &mut Progress) -> End {
    let mut backoff = Backoff::default();
    loop {
        let end = once(cluster, command, progress).await;
        let (started, error) = match end {
            // What cannot have begun is tried again when the API server has too much to do, the rest only if it may be.
            End::NotStarted(error) if command.repeatable || is_busy(&error) => (false, error),
            End::Lost(error) if command.repeatable => (true, error),
            end => return end,
        };
        *progress = Progress {
            refused: Some(error.full_text()),
            ..Progress::default()
        };
        if let Err(error) = backoff.after(error).await {
            return match started {
                true => End::Lost(error),
                false => End::NotStarted(error),
            };
        }
    }
}

fn is_busy(error: &ClusterError) -> bool {
    matches!(error, ClusterError::Status { code: 429, .. })
}

async fn once(cluster: &Cluster, command: Command<'_>, progress: &mut Progress) -> End {
    let doing = format!(
        "running a command in pod {}/{}",
        command.namespace, command.pod
    );
    let lost = |source: Box<dyn std::error::Error + Send + Sync>| {
        End::Lost(ClusterError::Unreachable {
            doing: doing.clone(),
            source,
        })
    };
    let connection = match cluster.client.connect(get(&path(command), "*/*")).await {
        Ok(connection) => connection,
        Err(kube::Error::Api(status)) => {
            return End::NotStarted(ClusterError::Status {
                doing,
                code: status.code,
                reason: status.reason.clone(),
                message: status.message.clone(),
                next: None,
                retry_after: None,
            });
        }
        // A proxy that does not pass WebSockets on answers the request itself.
        Err(error @ kube::Error::UpgradeConnection(_)) => {
            return End::NotStarted(ClusterError::Malformed {
                doing,
                source: Box::new(error),
            });
        }
        Err(error) => return lost(error.into()),
    };
    progress.connected = true;
    let output = &mut progress.output;
    let mut stream = connection.into_stream();
    while let Some(message) = stream.next().await {
        let message = match message {
            Ok(message) => message,
            Err(error) => return lost(error.into()),
        };
        if !message.is_binary() {
            continue;
        }
        match message.into_data().split_first() {
            Some((&STDOUT, bytes)) => output.stdout.push(bytes),
            Some((&STDERR, bytes)) => output.stderr.push(bytes),
            Some((&STATUS, bytes)) => {
                return parse_status(bytes).unwrap_or_else(|error| lost(error.into()));
            }
            _ => {}
        }
    }
    lost("it was closed before the command's end was told".into())
}

fn path(command: Command<'_>) -> String {
    let Command {
        namespace,
        pod,
        container,
        argv,
        timeout: _,
        repeatable: _,
    } = command;
    let words: String = argv
        .iter()
        .map(|word| format!("&command={}", encode(word)))
        .collect();
    format!(
        "/api/v1/namespaces/{namespace}/pods/{pod}/exec?container={}&stdout=true&stderr=true{words}",
        encode(container)
    )
}

/// Reads the Status that ends every command.
fn parse_status(json: &[u8]) -> Result<End, serde_json::Error> {
    #[derive(Deserialize)]
    struct Status {
        status: String,
        #[serde(default)]
        message: String,
        #[serde(default)]
        reason: String,
        #[serde(default)]
        details: Details,
    }
    #[derive(Default, Deserialize)]
    struct Details {
        #[serde(default)]
        causes: Vec<Cause>,
    }
    #[derive(Deserialize)]
    struct Cause {
        #[serde(default)]
        reason: String,
        #[serde(default)]
        message: String,
    }
    let status: Status = serde_json::from_slice(json)?;
    if status.status == "Success" {
        return Ok(End::Success);
    }
    let code = status
        .details
        .causes
        .iter()
        .find(|cause| cause.reason == "ExitCode")
        .and_then(|cause| cause.message.parse().ok());
    Ok(match code {
        Some(code) if status.reason == "NonZeroExitCode" => End::Code(code),
        _ => End::Failed(status.message),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_tells_the_exit_code() {
        let ended = |json: &str| parse_status(json.as_bytes()).unwrap().to_string();
        assert_eq!(ended(r#"{"metadata":{},"status":"Success"}"#), "succeeded");
        assert_eq!(
            ended(
                r#"{"status":"Failure","message":"command terminated","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#
            ),
            "exit code 7"
        );
        assert_eq!(
            ended(r#"{"status":"Failure","message":"no such file","reason":"InternalError"}"#),
            "could not be run: no such file"
        );
        assert!(parse_status(b"x").is_err());
    }

    #[test]
    fn the_end_of_a_long_output_is_kept() {
        let mut tail = Tail::default();
        for n in 0..300_000 {
            tail.push(format!("{}", n % 10).as_bytes());
        }
        assert!(tail.bytes.len() <= 2 * KEPT + 1);
        let text = tail.text();
        assert!(
            text.starts_with("[234464 bytes before this were dropped] "),
            "{}",
            &text[..50]
        );
        assert!(text.ends_with("6789"));
        assert_eq!(tail.last(3), "…789");
        let mut short = Tail::default();
        short.push("ä\n".as_bytes());
        assert_eq!((short.text(), short.last(3)), ("ä".into(), "ä".into()));
    }

    #[test]
    fn words_of_a_command_are_encoded() {
        let argv = ["sh".to_owned(), "-c".to_owned(), "a && b=ä".to_owned()];
        let command = Command {
            namespace: "n",
            pod: "p",
            container: "c",
            argv: &argv,
            timeout: Duration::ZERO,
            repeatable: false,
        };
        assert_eq!(
            path(command),
            "/api/v1/namespaces/n/pods/p/exec?container=c&stdout=true&stderr=true&command=sh&command=-c&command=a+%26%26+b%3D%C3%A4"
        );
    }
}
