//! Following a Job: how far it is, how it ended, and why it does not start.
//!
//! [`judge`] decides from what the cluster shows; [`follow`] looks once a second and tells. A cause that will not pass by
//! itself is reported when the cluster knows it, not after a time-out, and the Job is left as it is.

pub mod unrecorded;

use crate::client;
use crate::held_pod::{DOCTOR_OPERATION, EXPIRE_PLAN_OPERATION};
use crate::jobs;
use crate::pod_template::CONTAINER;
use crate::progress::{Display, Group};
use crate::records::{End, Record, ended};
use ark_job::api::namespace_flag;
use ark_job::api::{Backup, OPERATION_LABEL, PLAN_OPERATION};
use ark_job::error::Failure;
use ark_job::exit::Exit;
use futures::future::{join, join_all};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Event, Pod};
use kube::Client;
use kube::api::{Api, ListParams};
use std::time::{Duration, Instant};

/// Label of a pod: the Job that it is of.
pub const JOB_NAME_LABEL: &str = "batch.kubernetes.io/job-name";
/// What to do when a restore has been done before.
pub const AGAIN: &str = "--again restores what has been deleted since";
/// How often we look. Three small requests each time; a watch would not be quicker than a person reads.
const INTERVAL: Duration = Duration::from_secs(1);
/// An autoscaler needs about ten seconds to say that it adds a node.
const SCALE_UP_PATIENCE: Duration = Duration::from_secs(20);
/// A volume may need a while; a kubelet that fails to mount tries again every few seconds.
const MOUNT_PATIENCE: Duration = Duration::from_secs(60);
/// A sidecar may end by itself when its pod has nothing else to do.
pub const HELD_PATIENCE: Duration = Duration::from_secs(10);
/// How many failed requests in a row are taken as a hiccup of the connection.
const MAX_FAILURES: u32 = 30;

/// Where a Job stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// No container has started; with what is going on, as far as known.
    Pending(Option<String>),
    /// At work.
    Running,
    /// It will not get on by itself.
    Stuck(Stuck),
    /// The operation is over; its Job is not, as another container of its pod still runs.
    HeldOpen(HeldOpen),
    /// Over.
    Finished {
        /// How it ended.
        exit: Exit,
        /// What its last pod said, or why it was ended.
        message: Option<String>,
        /// What the pod said to do next.
        hint: Option<String>,
    },
}

/// Why a Job does not get on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// The object in trouble: `pod/…`, `job.batch/…`.
    pub object: String,
    /// In one word, as the cluster has it: `ImagePullBackOff`, `Unschedulable`.
    pub reason: String,
    /// What the cluster says.
    pub cause: String,
    /// What to do.
    pub hint: String,
    /// How long this may be so before it counts.
    pub patience: Duration,
}

/// An operation that is over, while a container that somebody has put into its pod keeps the Job from ending.
///
/// Neither the Job's policies nor its retries come into play before all containers of a pod have ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldOpen {
    /// The pod.
    pub pod: String,
    /// Its Job.
    pub job: String,
    /// Ark's namespace.
    pub namespace: String,
    /// The containers that still run.
    pub containers: Vec<String>,
    /// How the operation ended.
    pub exit: Exit,
    /// What it said, unless it ended well.
    pub message: Option<String>,
    /// What it said to do next.
    pub hint: Option<String>,
    /// What the Job would do once the others have ended: another attempt.
    pub retried: bool,
    /// When the operation ended.
    pub since: Option<Timestamp>,
}

impl HeldOpen {
    /// What keeps the Job from ending.
    pub fn cause(&self) -> String {
        let Self {
            pod,
            job,
            containers,
            ..
        } = self;
        let (container, keeps) = match containers.len() {
            1 => ("container", "keeps"),
            _ => ("containers", "keep"),
        };
        format!(
            "{container} {} of pod/{pod} still runs, and {keeps} job.batch/{job} from ending until its deadline",
            containers.join(", ")
        )
    }

    /// What to do about it.
    pub fn advice(&self) -> String {
        let Self { job, namespace, .. } = self;
        format!(
            "`kubectl delete job {job} -n {namespace}` ends it; {}",
            self.prevention()
        )
    }

    /// What to do that it does not happen again.
    pub fn prevention(&self) -> String {
        format!(
            "keep the injector of {} away by its annotation or label (`kubectl ark install --pod-template FILE`), or let it inject \
             native sidecars (init containers with restartPolicy: Always)",
            self.containers.join(", ")
        )
    }

    /// As a Job that has ended.
    fn finished(self) -> State {
        State::Finished {
            exit: self.exit,
            message: self.message,
            hint: self.hint,
        }
    }

    /// Says on standard error what keeps the Job from ending, and what to do.
    pub fn tell(&self, what: &str) {
        eprintln!("warning: {what} has ended, but {}", self.cause());
        eprintln!("hint: {}", self.advice());
    }
}

/// The containers of a pod that still run though its operation is over. Native sidecars are none of them: the kubelet ends
/// those.
fn held_open(job: &Job, pod: &Pod) -> Option<HeldOpen> {
    let last = terminated(pod)?;
    // Who is being deleted ends by itself.
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let statuses = pod.status.as_ref()?.container_statuses.as_deref()?;
    let containers: Vec<String> = statuses
        .iter()
        .filter(|status| status.name != CONTAINER && running(status))
        .map(|status| status.name.clone())
        .collect();
    if containers.is_empty() {
        return None;
    }
    let Outcome {
        exit,
        message,
        hint,
    } = outcome(last);
    Some(HeldOpen {
        pod: pod.metadata.name.clone().unwrap_or_default(),
        job: job.metadata.name.clone().unwrap_or_default(),
        namespace: job.metadata.namespace.clone().unwrap_or_default(),
        containers,
        exit,
        message,
        hint,
        retried: last.exit_code != 0 && !is_final(last.exit_code),
        since: last.finished_at.as_ref().map(|time| time.0),
    })
}

/// Whether no retry can cure what a container ended with.
fn is_final(code: i32) -> bool {
    Exit::FINAL
        .iter()
        .any(|exit| i32::from(exit.code()) == code)
}

/// Whether nothing more will come of a Job: it has ended, or only a container that is not ours keeps it from that.
pub fn is_over(job: &Job, pods: &[Pod]) -> bool {
    let held = || judge(job, &pods_of(job, pods), &[]);
    ended(job).is_some() || matches!(held(), State::HeldOpen(held) if !held.retried)
}

/// Those of these Jobs of which something may still come. Who may not read pods takes each Job that has not ended for one.
pub async fn at_work(client: &Client, namespace: &str, mut jobs: Vec<Job>) -> Vec<Job> {
    jobs.retain(|job| ended(job).is_none());
    if jobs.is_empty() {
        return jobs;
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let ours = ListParams::default().labels(JOB_NAME_LABEL);
    let pods = pods.list(&ours).await.map(|pods| pods.items);
    let pods = pods.unwrap_or_default();
    jobs.retain(|job| !is_over(job, &pods));
    jobs
}

/// Decides where a Job stands from the Job, its pods and the events about them.
pub fn judge(job: &Job, pods: &[Pod], events: &[Event]) -> State {
    let job_name = job.metadata.name.as_deref().unwrap_or_default();
    let newest = pods
        .iter()
        .max_by_key(|pod| pod.metadata.creation_timestamp.clone().map(|time| time.0));
    let last = pods
        .iter()
        .filter_map(terminated)
        .max_by_key(|one| one.finished_at.clone().map(|time| time.0));
    match ended(job) {
        Some(End::Complete) => {
            return State::Finished {
                exit: Exit::Done,
                message: None,
                hint: None,
            };
        }
        Some(End::Failed { reason, message }) => return failed(&reason, &message, last),
        None => {}
    }
    if let Some(held) = newest.and_then(|pod| held_open(job, pod)) {
        return State::HeldOpen(held);
    }
    match newest {
        None => not_created(job_name, events),
        Some(pod) => match container(pod) {
            Some(status) if running(status) => State::Running,
            Some(status)
                if status
                    .state
                    .as_ref()
                    .is_some_and(|state| state.terminated.is_some()) =>
            {
                State::Pending(last.and_then(attempt))
            }
            _ => not_started(job, pod, events),
        },
    }
}

/// What an attempt that did not end well said.
fn attempt(last: &ContainerStateTerminated) -> Option<String> {
    // What no retry can cure is told when the Job has ended, in a moment.
    if last.exit_code == 0 || is_final(last.exit_code) {
        return None;
    }
    let why = said(last, "error: ").unwrap_or_else(|| format!("exit code {}", last.exit_code));
    let next = said(last, "hint: ").map(|hint| format!(" (hint: {hint})"));
    Some(format!(
        "an attempt failed, there may be another: {why}{}",
        next.unwrap_or_default()
    ))
}

/// The last line of a pod's log that starts with `prefix`.
fn said(last: &ContainerStateTerminated, prefix: &str) -> Option<String> {
    let log = last.message.as_deref().unwrap_or_default();
    let line = log.lines().rev().find_map(|line| line.strip_prefix(prefix));
    line.map(str::to_owned)
}

fn failed(reason: &str, message: &str, last: Option<&ContainerStateTerminated>) -> State {
    let last = last.map(outcome);
    // All was done: another container of its pod has made the Job fail, by its exit code or by not ending.
    if last.as_ref().is_some_and(|last| last.exit == Exit::Done) {
        return State::Finished {
            exit: Exit::Done,
            message: None,
            hint: None,
        };
    }
    if reason == "DeadlineExceeded" {
        return State::Finished {
            exit: Exit::Failed,
            message: Some(format!(
                "it was ended because it took longer than its deadline ({message})"
            )),
            hint: Some("--deadline DURATION gives it longer".into()),
        };
    }
    let Some(Outcome {
        exit,
        message,
        hint,
    }) = last
    else {
        return State::Finished {
            exit: Exit::Failed,
            message: Some(format!("{reason}: {message}")),
            hint: None,
        };
    };
    State::Finished {
        exit,
        message,
        hint,
    }
}

/// How an operation ended, as its container shows.
struct Outcome {
    exit: Exit,
    message: Option<String>,
    hint: Option<String>,
}

fn outcome(last: &ContainerStateTerminated) -> Outcome {
    if last.exit_code == 0 {
        return Outcome {
            exit: Exit::Done,
            message: None,
            hint: None,
        };
    }
    let killed = match last.reason.as_deref() {
        Some("OOMKilled") => Some("its container was killed: out of memory".to_owned()),
        _ => None,
    };
    let hint = killed.as_ref().map(|_| {
        "give it more: resources.limits.memory in `kubectl ark install --pod-template FILE`"
            .to_owned()
    });
    Outcome {
        exit: Exit::from_code(last.exit_code).unwrap_or(Exit::Failed),
        message: killed
            .or_else(|| said(last, "error: "))
            .or_else(|| Some(format!("exit code {}", last.exit_code))),
        hint: hint.or_else(|| said(last, "hint: ")),
    }
}

/// No pod: quota, admission or a missing service account refuses it.
fn not_created(job: &str, events: &[Event]) -> State {
    let refused = newest_event(events, |event| {
        event.reason.as_deref() == Some("FailedCreate")
            && event.involved_object.kind.as_deref() == Some("Job")
    });
    match refused {
        Some(event) => State::Stuck(Stuck {
            object: format!("job.batch/{job}"),
            reason: "FailedCreate".into(),
            cause: format!("its pod is refused: {}", event.message.as_deref().unwrap_or_default()),
            hint: "make room in the quota, or change pod settings with `kubectl ark install --pod-template FILE`; the Job \
                   tries again by itself"
                .into(),
            patience: Duration::ZERO,
        }),
        None => State::Pending(Some("its pod is being created".into())),
    }
}

fn not_started(job: &Job, pod: &Pod, events: &[Event]) -> State {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let object = format!("pod/{name}");
    let about = |event: &&Event| event.involved_object.name.as_deref() == Some(name);
    let events: Vec<&Event> = events.iter().filter(about).collect();
    let event = |reason: &str| {
        let reason = Some(reason);
        events
            .iter()
            .find(|event| event.reason.as_deref() == reason)
    };
    let stuck = |reason: &str, cause: String, hint: &str, patience: Duration| {
        State::Stuck(Stuck {
            object: object.clone(),
            reason: reason.into(),
            cause,
            hint: hint.into(),
            patience,
        })
    };
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    let unscheduled = conditions.iter().find(|one| {
        one.type_ == "PodScheduled"
            && one.status == "False"
            && one.reason.as_deref() == Some("Unschedulable")
    });
    if let Some(condition) = unscheduled {
        let why = condition.message.as_deref().unwrap_or("no node takes it");
        // Cluster Autoscaler and Karpenter say so when they are about to add a node.
        return match event("TriggeredScaleUp").or_else(|| event("Nominated")) {
            Some(coming) => State::Pending(Some(format!(
                "a node: {}",
                coming.message.as_deref().unwrap_or("one is being added")
            ))),
            None => stuck(
                "Unschedulable",
                format!("no node takes it: {why}"),
                "add a node, or change pod settings: `kubectl ark install --toleration …`, `--node-selector …` or \
                 `--pod-template FILE`",
                SCALE_UP_PATIENCE,
            ),
        };
    }
    let waiting = container(pod).and_then(|status| status.state.as_ref()?.waiting.as_ref());
    let reason = waiting
        .and_then(|waiting| waiting.reason.as_deref())
        .unwrap_or_default();
    let message = waiting
        .and_then(|waiting| waiting.message.as_deref())
        .unwrap_or_default();
    match reason {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "ImageInspectError"
        | "RegistryUnavailable" => {
            let image = pod
                .spec
                .iter()
                .flat_map(|spec| &spec.containers)
                .find(|one| one.name == CONTAINER)
                .and_then(|one| one.image.as_deref())
                .unwrap_or_default();
            let again = match operation(job) {
                // Its Job is removed by who waits.
                Some("fetch" | DOCTOR_OPERATION | PLAN_OPERATION | EXPIRE_PLAN_OPERATION) => {
                    "then try again".to_owned()
                }
                _ => format!(
                    "then `kubectl delete job {} -n {}` and create it again",
                    job.metadata.name.as_deref().unwrap_or_default(),
                    job.metadata.namespace.as_deref().unwrap_or_default()
                ),
            };
            stuck(
                reason,
                format!("image {image} cannot be pulled: {reason}: {message}"),
                &format!(
                    "`kubectl ark install --image IMAGE` (and --image-pull-secret) names another; {again}"
                ),
                Duration::ZERO,
            )
        }
        "CreateContainerConfigError"
        | "CreateContainerError"
        | "RunContainerError"
        | "PreCreateHookError" => stuck(
            reason,
            format!("its container cannot be created: {reason}: {message}"),
            "what it names must exist; pod settings change with `kubectl ark install --pod-template FILE`",
            Duration::ZERO,
        ),
        _ => match event("FailedMount") {
            Some(failed) => {
                let why = failed.message.as_deref().unwrap_or_default();
                // A Secret that is not there will not appear by itself; what takes long may.
                let patience = if why.contains("not found") {
                    Duration::ZERO
                } else {
                    MOUNT_PATIENCE
                };
                stuck(
                    "FailedMount",
                    format!("a volume cannot be mounted: {why}"),
                    "a location's Secret is made by `kubectl ark install --storage URL --credentials-file FILE`",
                    patience,
                )
            }
            None => State::Pending(Some(match reason {
                "" => format!("{object} is being scheduled"),
                "ContainerCreating" | "PodInitializing" => format!("{object} is being started"),
                other => format!("{object}: {other} {message}").trim_end().to_owned(),
            })),
        },
    }
}

fn operation(job: &Job) -> Option<&str> {
    let labels = job.metadata.labels.as_ref()?;
    labels.get(OPERATION_LABEL).map(String::as_str)
}

fn newest_event(events: &[Event], wanted: impl Fn(&Event) -> bool) -> Option<&Event> {
    let at = |event: &Event| {
        let seen = event.last_timestamp.as_ref().map(|time| time.0);
        seen.or(event.event_time.as_ref().map(|time| time.0))
            .unwrap_or(Timestamp::MIN)
    };
    events
        .iter()
        .filter(|event| wanted(event))
        .max_by_key(|event| at(event))
}

fn container(pod: &Pod) -> Option<&ContainerStatus> {
    let statuses = pod.status.as_ref()?.container_statuses.as_deref()?;
    statuses.iter().find(|status| status.name == CONTAINER)
}

fn running(status: &ContainerStatus) -> bool {
    status
        .state
        .as_ref()
        .is_some_and(|state| state.running.is_some())
}

fn terminated(pod: &Pod) -> Option<&ContainerStateTerminated> {
    container(pod)?.state.as_ref()?.terminated.as_ref()
}

/// What is to be followed.
#[derive(Clone, Debug)]
pub struct Followed<'a> {
    /// Ark's namespace.
    pub namespace: &'a str,
    /// Name of the backup or restore.
    pub name: &'a str,
    /// Name of the Job.
    pub job: &'a str,
    /// UID of the Job, so that another of the same name is not taken for it.
    pub uid: &'a str,
    /// Version of a record that says that all was done before this Job.
    pub done_before: Option<&'a str>,
}

/// A Job, its pods, and what is told about them.
#[derive(Debug)]
pub struct Look {
    /// The Job, if it is there.
    pub job: Option<Job>,
    /// Its pods, which may outlive it for a moment.
    pub pods: Vec<Pod>,
    /// Events about it and its pods, as long as none has started.
    pub events: Vec<Event>,
}

/// The Job, and the record of what it does.
async fn look<R: Record>(
    client: &Client,
    namespace: &str,
    job: &str,
    name: &str,
) -> kube::Result<(Look, Option<R>)> {
    let records: Api<R> = Api::namespaced(client.clone(), namespace);
    let (look, record) = join(look_at_job(client, namespace, job), records.get_opt(name)).await;
    Ok((look?, record.ok().flatten()))
}

impl Look {
    /// Drops a Job of the same name that is another one, and events about such.
    fn of(self, uid: &str) -> Look {
        let same = |job: &Job| job.metadata.uid.as_deref() == Some(uid);
        Look {
            job: self.job.filter(same),
            events: of_uid(self.events, uid),
            ..self
        }
    }

    /// Where the Job stands, or stood when it was there.
    fn state<R: Record>(&self, record: Option<&R>) -> State {
        match &self.job {
            Some(job) => judge(job, &self.pods, &self.events),
            None => gone(record),
        }
    }
}

/// Looks at a Job by its name.
pub async fn look_at_job(client: &Client, namespace: &str, job: &str) -> kube::Result<Look> {
    let jobs: Api<Job> = Api::namespaced(client.clone(), namespace);
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let of_job = ListParams::default().labels(&format!("{JOB_NAME_LABEL}={job}"));
    let (found, pods) = join(jobs.get_opt(job), pods.list(&of_job)).await;
    let pods = pods?.items;
    let started = pods.iter().any(|pod| container(pod).is_some_and(running));
    let events = if started {
        Vec::new()
    } else {
        events(client, namespace, job, &pods).await
    };
    Ok(Look {
        job: found?,
        pods,
        events,
    })
}

/// Events about the Job and its pods. They only explain: who may not read them learns less.
pub async fn events(client: &Client, namespace: &str, job: &str, pods: &[Pod]) -> Vec<Event> {
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    let pods = pods
        .iter()
        .filter_map(|pod| pod.metadata.name.as_deref())
        .map(|pod| ("Pod", pod));
    let mut events = Vec::new();
    for (kind, name) in std::iter::once(("Job", job)).chain(pods) {
        let params = ListParams::default().fields(&format!(
            "involvedObject.kind={kind},involvedObject.name={name}"
        ));
        events.extend(api.list(&params).await.into_iter().flatten());
    }
    events
}

/// The pods of a Job among these.
pub fn pods_of(job: &Job, pods: &[Pod]) -> Vec<Pod> {
    let name = job.metadata.name.as_ref();
    let of_job = |pod: &&Pod| {
        let labels = pod.metadata.labels.as_ref();
        labels.and_then(|labels| labels.get(JOB_NAME_LABEL)) == name
    };
    pods.iter().filter(of_job).cloned().collect()
}

/// What the pod of an operation that failed said last, and what it said to do next, for `describe`.
pub async fn said_last<R: Record>(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Option<(String, Option<String>)> {
    let found = jobs::find(client, namespace, R::NOUN, name).await.ok()??;
    let job = found.metadata.name.as_deref()?;
    let look = look_at_job(client, namespace, job).await.ok()?;
    match judge(&found, &look.pods, &[]) {
        State::Finished { message, hint, .. } | State::HeldOpen(HeldOpen { message, hint, .. }) => {
            Some((message?, hint))
        }
        State::Pending(_) | State::Running | State::Stuck(_) => None,
    }
}

/// Why an operation that has not ended does not get on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// In one word, if it will not get on by itself.
    pub reason: Option<String>,
    /// In a sentence.
    pub text: String,
}

/// Why an operation that has not ended does not get on, for `get` and `describe`.
pub async fn waiting<R: Record>(client: &Client, namespace: &str, name: &str) -> Option<Waiting> {
    let found = jobs::find(client, namespace, R::NOUN, name).await.ok()??;
    let job = found.metadata.name.as_deref()?;
    let look = look_at_job(client, namespace, job).await.ok()?;
    let uid = look.job.as_ref()?.metadata.uid.clone()?;
    let look = look.of(&uid);
    match judge(look.job.as_ref()?, &look.pods, &look.events) {
        State::Pending(note) => Some(Waiting {
            reason: None,
            text: note?,
        }),
        State::Stuck(stuck) => Some(Waiting {
            text: format!("{}: {}", stuck.object, stuck.cause),
            reason: Some(stuck.reason),
        }),
        State::Running | State::HeldOpen(_) | State::Finished { .. } => None,
    }
}

/// Drops events about an earlier Job of the same name.
fn of_uid(events: Vec<Event>, uid: &str) -> Vec<Event> {
    let stale = |event: &Event| {
        let about = &event.involved_object;
        about.kind.as_deref() == Some("Job") && about.uid.as_deref() != Some(uid)
    };
    events.into_iter().filter(|event| !stale(event)).collect()
}

/// Follows a Job until it ends, cannot get on, or `interrupt` completes.
///
/// # Errors
/// As the operation failed.
pub async fn follow<R: Record>(
    client: &Client,
    followed: &Followed<'_>,
    terminal: bool,
    interrupt: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    follow_all::<R>(client, std::slice::from_ref(followed), terminal, interrupt).await
}

/// As [`follow`], for several Jobs, which are shown together.
///
/// # Errors
/// As one failed, the others having been told: one that failed rather than one from which only something is missing.
pub async fn follow_all<R: Record>(
    client: &Client,
    all: &[Followed<'_>],
    terminal: bool,
    interrupt: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    let word = R::NOUN.word();
    let group = Group::new(terminal);
    let displays: Vec<Display> = all
        .iter()
        .map(|followed| group.display(word, followed.name))
        .collect();
    let each = all.iter().zip(&displays).map(async |(followed, display)| {
        let result = follow_to_end::<R>(client, followed, display).await;
        display.end();
        result
    });
    tokio::select! {
        results = join_all(each) => worst(results),
        () = interrupt => {
            displays.iter().for_each(Display::end);
            for Followed { namespace, name, job, .. } in all {
                let flag = namespace_flag(namespace);
                eprintln!("interrupted: {word} {name} goes on without you, as job.batch/{job}");
                eprintln!("hint: `kubectl ark {word} describe {name}{flag}` shows it; `kubectl delete job {job} -n {namespace}` stops it");
            }
            Ok(Exit::Interrupted)
        }
    }
}

/// How several ended: as the worst of them. The other failures are told here.
fn worst(results: Vec<Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let mut failures: Vec<Failure> = results.into_iter().filter_map(Result::err).collect();
    // What has made something is better than what has made nothing.
    failures.sort_by_key(|failure| failure.exit() == Exit::PartiallyFailed);
    let mut failures = failures.into_iter();
    let Some(worst) = failures.next() else {
        return Ok(Exit::Done);
    };
    for failure in failures {
        eprintln!("error: {}", failure.message());
        if let Some(hint) = failure.next_step() {
            eprintln!("hint: {hint}");
        }
    }
    Err(worst)
}

async fn follow_to_end<R: Record>(
    client: &Client,
    followed: &Followed<'_>,
    display: &Display,
) -> Result<Exit, Failure> {
    let word = R::NOUN.word();
    let Followed {
        namespace,
        name,
        job,
        uid,
        done_before,
    } = followed;
    let flag = namespace_flag(namespace);
    let mut patience = Patience::default();
    loop {
        let looking = || look::<R>(client, namespace, job, name);
        let (look, record) = patience.until_answered(looking, job, display).await?;
        let look = look.of(uid);
        let state = look.state(record.as_ref());
        let what = format!("{word} {name}");
        patience.with_state(&state, &what, display)?;
        match patience.with_held(state, &what, display) {
            State::Pending(_) | State::Stuck(_) | State::HeldOpen(_) => {}
            State::Running => display.progress(record.as_ref().and_then(Record::progress)),
            State::Finished {
                exit: Exit::Done,
                message: _,
                hint: _,
            } => {
                display.end();
                display.aside(|| match record {
                    // Nobody has written into it since.
                    Some(record)
                        if done_before.is_some()
                            && record.meta().resource_version.as_deref() == *done_before =>
                    {
                        println!(
                            "{word} {name} was complete already ({}); nothing was done",
                            record.summary()
                        );
                        eprintln!("hint: {AGAIN}");
                    }
                    Some(record) => println!("{word} {name} completed: {}", record.summary()),
                    None => println!("{word} {name} completed"),
                });
                return Ok(Exit::Done);
            }
            State::Finished {
                exit,
                message,
                hint,
            } => {
                let record = record.as_ref();
                let message = message
                    .or_else(|| record.and_then(Record::failure_reason).map(str::to_owned))
                    .unwrap_or_else(|| "it does not say why".into());
                let next = format!(
                    "`kubectl ark {word} describe {name}{flag}` and `kubectl ark {word} logs {name}{flag}` show more"
                );
                return Err(Failure::new(
                    exit,
                    format!("{word} {name} {}: {message}", ended_as(exit)),
                )
                .hint(together(hint, next)));
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// What the pod says to do next, and what we say, unless that is the same.
fn together(said: Option<String>, next: String) -> String {
    let command = next.split('`').nth(1).unwrap_or_default();
    match said {
        Some(said) if !said.contains(command) => format!("{said}; {next}"),
        _ => next,
    }
}

/// What has gone on for how long while a Job is waited for.
#[derive(Default)]
struct Patience {
    stuck_since: Option<(String, Instant)>,
    held_since: Option<Instant>,
    failures: u32,
}

impl Patience {
    /// Looks until the cluster answers, as long as it may only be a hiccup that it does not.
    async fn until_answered<T>(
        &mut self,
        look: impl AsyncFn() -> kube::Result<T>,
        job: &str,
        display: &Display,
    ) -> Result<T, Failure> {
        loop {
            match look().await {
                Ok(seen) => return Ok(seen),
                Err(error) => self.with_cluster(&error, job, display)?,
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Says that the cluster does not answer, as long as it may only be a hiccup.
    fn with_cluster(
        &mut self,
        error: &kube::Error,
        job: &str,
        display: &Display,
    ) -> Result<(), Failure> {
        self.failures += 1;
        if self.failures >= MAX_FAILURES || matches!(error, kube::Error::Api(_)) {
            return Err(client::failure(
                error,
                &format!("following job.batch/{job}"),
            ));
        }
        display.note("the cluster does not answer; trying again");
        Ok(())
    }

    /// Says what is waited for, as long as it may pass by itself.
    fn with_state(&mut self, state: &State, what: &str, display: &Display) -> Result<(), Failure> {
        self.failures = 0;
        let State::Stuck(stuck) = state else {
            self.stuck_since = None;
            if let State::Pending(Some(note)) = state {
                display.note(&format!("waiting: {note}"));
            }
            return Ok(());
        };
        let since = match self.stuck_since.take() {
            Some((object, since)) if object == stuck.object => since,
            _ => Instant::now(),
        };
        if since.elapsed() >= stuck.patience {
            return Err(Failure::new(
                Exit::Failed,
                format!("{what} does not start: {}: {}", stuck.object, stuck.cause),
            )
            .hint(stuck.hint.clone()));
        }
        display.note(&format!("waiting: {}: {}", stuck.object, stuck.cause));
        self.stuck_since = Some((stuck.object.clone(), since));
        Ok(())
    }
}

impl Patience {
    /// What is held open for some time is over, and it is told why its Job is not.
    fn with_held(&mut self, state: State, what: &str, display: &Display) -> State {
        let State::HeldOpen(held) = state else {
            self.held_since = None;
            return state;
        };
        let since = *self.held_since.get_or_insert_with(Instant::now);
        if since.elapsed() < HELD_PATIENCE {
            return State::HeldOpen(held);
        }
        display.end();
        display.aside(|| held.tell(what));
        held.finished()
    }
}

/// Waits until the container of a Job's pod runs, and says in which pod.
///
/// # Errors
/// When it will not, or has ended instead.
pub async fn started(
    client: &Client,
    followed: &Followed<'_>,
    about: &str,
    display: &Display,
) -> Result<String, Failure> {
    let Followed {
        namespace,
        name: _,
        job,
        uid,
        done_before: _,
    } = followed;
    let mut patience = Patience::default();
    loop {
        let looking = || look_at_job(client, namespace, job);
        let look = patience.until_answered(looking, job, display).await?;
        let look = look.of(uid);
        let state = look.state::<Backup>(None);
        patience.with_state(&state, &format!("reading {about}"), display)?;
        // Who waits for it to run removes it when it does not: nothing is left to tell about.
        let state = match state {
            State::HeldOpen(held) => held.finished(),
            state => state,
        };
        match state {
            State::Pending(_) | State::Stuck(_) | State::HeldOpen(_) => {}
            State::Running => {
                let running = look
                    .pods
                    .iter()
                    .find(|pod| container(pod).is_some_and(running));
                if let Some(pod) = running {
                    return Ok(pod.metadata.name.clone().unwrap_or_default());
                }
            }
            State::Finished {
                exit,
                message,
                hint,
            } => {
                let exit = match exit {
                    Exit::Done => Exit::Failed,
                    exit => exit,
                };
                let message = message.unwrap_or_else(|| "it ended before it was used".into());
                return Err(Failure::new(
                    exit,
                    format!("reading {about} by job.batch/{job}: {message}"),
                )
                .maybe_hint(hint));
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// The exit code says what is not found or taken; this, what that means for the operation.
fn ended_as(exit: Exit) -> &'static str {
    match exit {
        Exit::PartiallyFailed => "partially failed",
        Exit::Refused => "was refused",
        _ => "failed",
    }
}

/// The Job is not there any more: deleted, by someone or because it was kept no longer. The record knows the end.
fn gone<R: Record>(record: Option<&R>) -> State {
    let exit = record.and_then(Record::end);
    State::Finished {
        exit: exit.unwrap_or(Exit::Failed),
        message: match exit {
            Some(_) => None,
            None => Some("its Job was deleted".into()),
        },
        hint: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_not_given_twice() {
        let next = "`kubectl ark restore describe r` and `kubectl ark restore logs r` show more";
        let said = |text: &str| together(Some(text.to_owned()), next.to_owned());
        assert_eq!(said("`kubectl ark restore describe r` lists it"), next);
        assert_eq!(said("mend it"), format!("mend it; {next}"));
        assert_eq!(together(None, next.to_owned()), next);
    }

    #[test]
    fn several_end_as_the_worst_of_them() {
        let failed = |exit| Err(Failure::new(exit, exit.code().to_string()));
        let ended = |results: Vec<Result<Exit, Failure>>| match worst(results) {
            Ok(exit) => exit,
            Err(failure) => failure.exit(),
        };
        assert_eq!(ended(vec![Ok(Exit::Done), Ok(Exit::Done)]), Exit::Done);
        assert_eq!(
            ended(vec![
                failed(Exit::PartiallyFailed),
                Ok(Exit::Done),
                failed(Exit::NotFound)
            ]),
            Exit::NotFound
        );
        assert_eq!(
            ended(vec![Ok(Exit::Done), failed(Exit::PartiallyFailed)]),
            Exit::PartiallyFailed
        );
    }
    use serde_json::{Value, json};

    fn job(conditions: Value) -> Job {
        serde_json::from_value(json!({
            "metadata": {"name": "backup-demo", "uid": "u"},
            "spec": {"template": {}},
            "status": {"conditions": conditions},
        }))
        .unwrap()
    }

    fn failed_job(reason: &str) -> Job {
        job(json!([{"type": "Failed", "status": "True", "reason": reason, "message": "it says"}]))
    }

    fn pod(status: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "backup-demo-x", "creationTimestamp": "2026-11-23T20:00:00Z"},
            "spec": {"containers": [{"name": "ark-job", "image": "registry.local/ark:1"}]},
            "status": status,
        }))
        .unwrap()
    }

    fn in_state(state: Value) -> Pod {
        pod(json!({"containerStatuses": [{
            "name": "ark-job", "ready": false, "restartCount": 0, "image": "", "imageID": "", "state": state,
        }]}))
    }

    fn waiting(reason: &str, message: &str) -> Pod {
        in_state(json!({"waiting": {"reason": reason, "message": message}}))
    }

    fn ended_with(code: i32, message: &str) -> Pod {
        in_state(json!({"terminated": {
            "exitCode": code, "message": message, "finishedAt": "2026-11-23T20:01:00Z",
        }}))
    }

    fn event(kind: &str, name: &str, reason: &str, message: &str) -> Event {
        serde_json::from_value(json!({
            "metadata": {},
            "involvedObject": {"kind": kind, "name": name, "uid": "u"},
            "reason": reason, "message": message, "lastTimestamp": "2026-11-23T20:00:30Z",
        }))
        .unwrap()
    }

    fn stuck(state: State) -> Stuck {
        match state {
            State::Stuck(stuck) => stuck,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_image_that_cannot_be_pulled_is_reported_at_once() {
        for reason in ["ErrImagePull", "ImagePullBackOff", "InvalidImageName"] {
            let stuck = stuck(judge(
                &job(json!([])),
                &[waiting(reason, "no such host")],
                &[],
            ));
            assert_eq!(stuck.object, "pod/backup-demo-x");
            assert_eq!(
                stuck.cause,
                format!("image registry.local/ark:1 cannot be pulled: {reason}: no such host")
            );
            assert!(stuck.hint.contains("kubectl ark install --image"));
            assert_eq!(stuck.patience, Duration::ZERO);
        }
    }

    #[test]
    fn a_pod_that_no_node_takes_waits_for_an_autoscaler() {
        let pod = pod(json!({"conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available",
        }]}));
        let pods = [pod];
        let stuck = stuck(judge(&job(json!([])), &pods, &[]));
        assert_eq!(stuck.cause, "no node takes it: 0/1 nodes are available");
        assert_eq!(stuck.patience, SCALE_UP_PATIENCE);
        let coming = [event(
            "Pod",
            "backup-demo-x",
            "TriggeredScaleUp",
            "pod triggered scale-up",
        )];
        assert_eq!(
            judge(&job(json!([])), &pods, &coming),
            State::Pending(Some("a node: pod triggered scale-up".into()))
        );
    }

    #[test]
    fn a_refused_pod_is_reported_at_once() {
        let refused = [event(
            "Job",
            "backup-demo",
            "FailedCreate",
            "pods is forbidden: exceeded quota",
        )];
        let stuck = stuck(judge(&job(json!([])), &[], &refused));
        assert_eq!(stuck.object, "job.batch/backup-demo");
        assert_eq!(
            stuck.cause,
            "its pod is refused: pods is forbidden: exceeded quota"
        );
        assert_eq!(
            judge(&job(json!([])), &[], &[]),
            State::Pending(Some("its pod is being created".into()))
        );
    }

    #[test]
    fn a_missing_secret_is_reported_at_once_and_a_slow_volume_is_not() {
        let pods = [waiting("ContainerCreating", "")];
        let mount = |message: &str| [event("Pod", "backup-demo-x", "FailedMount", message)];
        let missing = stuck(judge(
            &job(json!([])),
            &pods,
            &mount("secret \"ark-credentials-default\" not found"),
        ));
        assert!(missing.cause.contains("ark-credentials-default"));
        assert_eq!(missing.patience, Duration::ZERO);
        assert_eq!(
            stuck(judge(&job(json!([])), &pods, &mount("timed out"))).patience,
            MOUNT_PATIENCE
        );
        let config = [waiting(
            "CreateContainerConfigError",
            "secret \"x\" not found",
        )];
        assert!(
            stuck(judge(&job(json!([])), &config, &[]))
                .cause
                .contains("secret \"x\" not found")
        );
    }

    #[test]
    fn the_exit_code_is_the_last_pods() {
        let log = "listing\nerror: the bucket ark does not exist\nhint: create it\n";
        for (code, exit) in [
            (10, Exit::NotFound),
            (3, Exit::PartiallyFailed),
            (137, Exit::Failed),
        ] {
            let state = judge(
                &failed_job("PodFailurePolicy"),
                &[ended_with(code, log)],
                &[],
            );
            assert_eq!(
                state,
                State::Finished {
                    exit,
                    message: Some("the bucket ark does not exist".into()),
                    hint: Some("create it".into()),
                }
            );
        }
        assert_eq!(
            judge(
                &job(json!([{"type": "Complete", "status": "True"}])),
                &[ended_with(0, "")],
                &[]
            ),
            State::Finished {
                exit: Exit::Done,
                message: None,
                hint: None
            }
        );
    }

    /// A pod whose operation has ended, with a sidecar in that state.
    fn with_sidecar(code: i32, log: &str, state: Value) -> Pod {
        let mut pod = ended_with(code, log);
        let mut sidecar = in_state(state).status.unwrap().container_statuses.unwrap();
        sidecar[0].name = "istio-proxy".into();
        let status = pod.status.as_mut().unwrap();
        status.container_statuses.as_mut().unwrap().extend(sidecar);
        pod
    }

    #[test]
    fn a_sidecar_that_never_ends_does_not_keep_anybody_waiting() {
        let log = "x\nerror: no such bucket\nhint: create it\n";
        let runs = || json!({"running": {"startedAt": "2026-11-23T20:00:02Z"}});
        for (code, exit, over) in [
            (0, Exit::Done, true),
            (10, Exit::NotFound, true),
            // There may be another attempt when the sidecar ends.
            (1, Exit::Failed, false),
        ] {
            let mut pod = with_sidecar(code, log, runs());
            let State::HeldOpen(held) = judge(&job(json!([])), std::slice::from_ref(&pod), &[])
            else {
                panic!("{code}");
            };
            assert_eq!(held.exit, exit);
            assert_eq!(held.message.is_none(), code == 0);
            assert_eq!(
                held.cause(),
                "container istio-proxy of pod/backup-demo-x still runs, and keeps job.batch/backup-demo from ending until its \
                 deadline"
            );
            let label = (JOB_NAME_LABEL.to_owned(), "backup-demo".to_owned());
            pod.metadata.labels = Some([label].into());
            assert_eq!(is_over(&job(json!([])), &[pod]), over, "{code}");
        }
        let mut deleted = with_sidecar(0, "", runs());
        deleted.metadata.deletion_timestamp = deleted.metadata.creation_timestamp.clone();
        assert_eq!(
            judge(&job(json!([])), &[deleted], &[]),
            State::Pending(None)
        );
    }

    #[test]
    fn a_sidecar_that_makes_the_job_fail_does_not_make_the_operation_fail() {
        let failed = with_sidecar(0, "", json!({"terminated": {"exitCode": 1}}));
        for reason in ["BackoffLimitExceeded", "DeadlineExceeded"] {
            assert_eq!(
                judge(&failed_job(reason), std::slice::from_ref(&failed), &[]),
                State::Finished {
                    exit: Exit::Done,
                    message: None,
                    hint: None
                }
            );
        }
    }

    #[test]
    fn a_deadline_is_named() {
        match judge(&failed_job("DeadlineExceeded"), &[], &[]) {
            State::Finished {
                exit: Exit::Failed,
                message: Some(message),
                hint: Some(hint),
            } => {
                assert!(message.contains("deadline"), "{message}");
                assert!(hint.contains("--deadline"), "{hint}");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_failed_attempt_is_not_the_end() {
        assert_eq!(
            judge(
                &job(json!([])),
                &[ended_with(
                    1,
                    "x\nerror: the store is away\nhint: fetch it\n"
                )],
                &[]
            ),
            State::Pending(Some(
                "an attempt failed, there may be another: the store is away (hint: fetch it)"
                    .into()
            ))
        );
        let running = in_state(json!({"running": {"startedAt": "2026-11-23T20:02:00Z"}}));
        assert_eq!(judge(&job(json!([])), &[running], &[]), State::Running);
    }

    #[test]
    fn events_about_an_earlier_job_are_dropped() {
        let events = vec![event("Job", "backup-demo", "FailedCreate", "")];
        assert_eq!(of_uid(events.clone(), "u").len(), 1);
        assert_eq!(of_uid(events, "new").len(), 0);
    }
}
