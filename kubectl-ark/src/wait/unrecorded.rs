//! Following a Job that keeps no record: its log is shown as it comes, and what its pod said last is the result.

use super::{
    INTERVAL, Patience, State, container, ended_as, look_at_job, running, terminated, together,
};
use crate::log_line;
use crate::pod_template::CONTAINER;
use crate::progress::Display;
use ark_job::api::Backup;
use ark_job::error::Failure;
use ark_job::exit::Exit;
use futures::{AsyncBufReadExt, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, LogParams};
use std::time::Duration;

/// How long a log may be silent before we look whether its pod is still there.
const LOG_SILENT: Duration = Duration::from_secs(10);

/// A Job that keeps no record: what it does is told by its log.
#[derive(Clone, Debug)]
pub struct Unrecorded<'a> {
    /// Ark's namespace.
    pub namespace: &'a str,
    /// What it does: `deletion`, `sync`.
    pub doing: &'a str,
    /// To what: `of backup a`.
    pub to: &'a str,
    /// Name of the Job.
    pub job: &'a str,
    /// UID of the Job, so that another of the same name is not taken for it.
    pub uid: &'a str,
}

/// Follows a Job that keeps no record until it ends, cannot get on, or `interrupt` completes; shows its log meanwhile, and in
/// the end what its pod said last.
///
/// # Errors
/// As the operation failed.
pub async fn follow(
    client: &Client,
    followed: &Unrecorded<'_>,
    terminal: bool,
    interrupt: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    let Unrecorded {
        namespace,
        doing,
        to,
        job,
        uid: _,
    } = followed;
    let display = Display::new(doing, to, terminal);
    tokio::select! {
        result = to_end(client, followed, &display) => {
            display.end();
            result
        }
        () = interrupt => {
            display.end();
            eprintln!("interrupted: {doing} {to} goes on without you, as job.batch/{job}");
            eprintln!("hint: `kubectl logs -n {namespace} job/{job} -f` shows it; `kubectl delete job {job} -n {namespace}` stops it");
            Ok(Exit::Interrupted)
        }
    }
}

async fn to_end(
    client: &Client,
    followed: &Unrecorded<'_>,
    display: &Display,
) -> Result<Exit, Failure> {
    let Unrecorded {
        namespace,
        doing,
        to,
        job,
        uid,
    } = followed;
    let mut patience = Patience::default();
    let mut told = Told::default();
    loop {
        let looking = || look_at_job(client, namespace, job);
        let look = patience.until_answered(looking, job, display).await?;
        let look = look.of(uid);
        if look.job.is_some() {
            told.tell(client, namespace, &look.pods, display).await;
        }
        let state = look.state::<Backup>(None);
        let what = format!("{doing} {to}");
        patience.with_state(&state, &what, display)?;
        match patience.with_held(state, &what, display) {
            State::Pending(_) | State::Stuck(_) | State::HeldOpen(_) => {}
            State::Running => display.progress(None),
            State::Finished {
                exit: Exit::Done,
                message: _,
                hint: _,
            } => {
                display.end();
                match told.message {
                    Some(message) => println!("{message}"),
                    // Its pod is gone, or its log may not be read.
                    None => println!("{doing} {to}: done"),
                }
                if let Some(hint) = told.hint {
                    eprintln!("hint: {hint}");
                }
                return Ok(Exit::Done);
            }
            State::Finished {
                exit,
                message,
                hint,
            } => {
                let message = message.unwrap_or_else(|| "it does not say why".into());
                let next = format!("`kubectl logs -n {namespace} job/{job}` shows more");
                return Err(Failure::new(
                    exit,
                    format!("{doing} {to} {}: {message}", ended_as(exit)),
                )
                .hint(together(hint, next)));
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// How far the log of a Job's pods has been shown, and what they said at last.
#[derive(Default)]
struct Told {
    pod: String,
    /// Time of the last line that was shown, as the node wrote it.
    until: Option<Timestamp>,
    /// All of the pod's log has been shown.
    complete: bool,
    /// The log cannot be read.
    unreadable: bool,
    message: Option<String>,
    hint: Option<String>,
}

impl Told {
    /// Shows the log of the newest pod, from where it was shown before until nothing more comes for a while. What goes wrong
    /// is no failure of the operation: it is told once.
    async fn tell(&mut self, client: &Client, namespace: &str, pods: &[Pod], display: &Display) {
        let newest = pods
            .iter()
            .filter(|pod| container(pod).is_some_and(running) || terminated(pod).is_some())
            .max_by_key(|pod| pod.metadata.creation_timestamp.clone().map(|time| time.0));
        let Some(pod) = newest else {
            return;
        };
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        if self.pod != name {
            *self = Told {
                pod: name.to_owned(),
                unreadable: self.unreadable,
                ..Told::default()
            };
        }
        if self.complete || self.unreadable {
            return;
        }
        match self.read(client, namespace, display).await {
            // All is there only if it had ended before it was read.
            Ok(()) => self.complete = terminated(pod).is_some(),
            Err(error) => {
                let forbidden = matches!(&error, kube::Error::Api(status) if status.code == 403);
                self.unreadable = forbidden;
                self.complete = terminated(pod).is_some();
                display.note(&format!("its log cannot be read: {error}"));
            }
        }
    }

    async fn read(
        &mut self,
        client: &Client,
        namespace: &str,
        display: &Display,
    ) -> kube::Result<()> {
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let params = LogParams {
            container: Some(CONTAINER.into()),
            follow: true,
            timestamps: true,
            since_time: self.until,
            ..LogParams::default()
        };
        let stream = pods.log_stream(&self.pod, &params).await?;
        let mut lines = std::pin::pin!(stream.lines());
        // A connection that is lost is not always told.
        while let Ok(Some(line)) = tokio::time::timeout(LOG_SILENT, lines.next()).await {
            match line {
                Ok(line) => self.take(&line, display),
                // The next look goes on from here.
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Takes a line with its time, as the API server gives it.
    fn take(&mut self, line: &str, display: &Display) {
        let (at, text) = line.split_once(' ').unwrap_or((line, ""));
        let Ok(at) = at.parse::<Timestamp>() else {
            return;
        };
        if self.until.is_some_and(|until| at <= until) {
            return;
        }
        self.until = Some(at);
        match log_line::parse(text) {
            Some(line) if line.level == "info" => display.line(&line.message),
            Some(line) => display.line(&format!("{}: {}", line.level, line.message)),
            None => match text.strip_prefix("hint: ") {
                Some(hint) => self.hint = Some(hint.to_owned()),
                None if text.is_empty() => {}
                None => self.message = Some(text.to_owned()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_were_shown_are_not_shown_again_and_the_last_word_is_kept() {
        let display = Display::new("deletion", "of backup a", false);
        let mut told = Told::default();
        for line in [
            "2026-11-23T20:15:01.5Z time=\"2026-11-23T20:15:01Z\" level=info msg=\"x\"",
            "2026-11-23T20:15:02Z 1 backup deleted",
            "2026-11-23T20:15:02.1Z hint: rest",
            // The pod's log, read once more from the last second.
            "2026-11-23T20:15:01.5Z what was said before",
            "no time",
        ] {
            told.take(line, &display);
        }
        assert_eq!(told.message.as_deref(), Some("1 backup deleted"));
        assert_eq!(told.hint.as_deref(), Some("rest"));
    }
}
