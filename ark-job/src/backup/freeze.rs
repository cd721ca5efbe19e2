//! Freezing and thawing: runs the hooks of all pods that the backup takes, before the instant at which objects are read.
//!
//! Pods that share a volume are one group: all its pre hooks, then what is to be done while it is frozen, then all its post
//! hooks. Whatever happens in between, what has been frozen is thawed: after success and failure here, after SIGTERM by
//! [`thaw_at_once`], and after a kill by the next attempt with [`thaw_what_was_left`].

use super::frozen::{FrozenRecord, Taken};
use super::selection::Selection;
use super::volumes::Taking;
use crate::api::{EXCLUDE_LABEL, Freeze, FrozenPod, HookStatus, VELERO_EXCLUDE_LABEL};
use crate::cluster::discover::ResourceType;
use crate::cluster::exec::{self, Command, End, exec};
use crate::cluster::list::{At, List};
use crate::cluster::{ClusterError, encode};
use crate::context::Context;
use crate::error::Failure;
use crate::exit::Exit;
use crate::hooks::{HookSpecs, OnError, Phase, Pod, PodHooks, Step, groups};
use crate::report::{About, Report};
use futures::future::join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use memchr::memmem;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

/// An attempt that has shown no sign of life for this long is dead. A heartbeat comes every two seconds, but an API server
/// that is busy may hold it up; only while we can read it ourselves does the time count.
const DEAD_AFTER: Duration = Duration::from_secs(15);
/// How often we look for one.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What the names of all annotations of hooks have in common.
const ANNOTATIONS: &[u8] = b"hook.backup.";

/// What came of the hooks.
#[derive(Debug, PartialEq)]
pub enum Frozen {
    /// They have run, and everything is thawed again; nothing if there were none.
    Done(Option<HookStatus>),
    /// Another attempt of this run was at work, and has ended: its archive may be there now.
    Overtaken,
}

/// Runs all hooks of the pods in `selection`, and between them takes the snapshots of their volumes.
///
/// # Errors
/// When what is frozen cannot be recorded; nothing is left frozen then.
pub async fn run_hooks(
    context: &Context,
    backup: &str,
    selection: &Selection,
    specs: &HookSpecs,
    taking: &mut Taking<'_>,
    report: &mut Report,
) -> Result<Frozen, Failure> {
    let pods = find_pods(context, selection, specs, report).await;
    if pods.is_empty() {
        return Ok(Frozen::Done(None));
    }
    let record = FrozenRecord::new(context, backup);
    if let Taken::Others(other) = record.take(None).await.map_err(not_recorded)? {
        take_over(context, &record, other, None, report).await?;
        return Ok(Frozen::Overtaken);
    }
    let mut freezer = Freezer {
        context,
        record,
        report,
        status: HookStatus::default(),
    };
    for group in groups(pods) {
        // Objects are read after all hooks, at one instant: there is nothing else to do while a group is frozen.
        freezer
            .freeze_group(&group, async || taking.take_of(&group).await)
            .await?;
    }
    Ok(Frozen::Done(Some(freezer.status)))
}

/// The pods with hooks that the backup takes and that can run them. When pods cannot be listed that is an error of the
/// backup, as for every type; the others go on.
async fn find_pods(
    context: &Context,
    selection: &Selection,
    specs: &HookSpecs,
    report: &mut Report,
) -> Vec<PodHooks> {
    if !selection.resources.includes("pods") {
        return Vec::new();
    }
    match list_pods(context, selection, specs).await {
        Ok(mut pods) => {
            pods.retain(|pod| can_run_hooks(context, pod, report));
            pods
        }
        Err(error) => {
            let text = format!(
                "no hooks are run, for it is not known which pods have any: {}",
                error.full_text()
            );
            context.log.error(&text);
            report.error(About::Cluster, text);
            Vec::new()
        }
    }
}

async fn list_pods(
    context: &Context,
    selection: &Selection,
    specs: &HookSpecs,
) -> Result<Vec<PodHooks>, ClusterError> {
    let pods_type = ResourceType::pods();
    let namespaces: Vec<Option<&str>> = match selection.namespaces.plain_names() {
        Some(names) => names.into_iter().map(Some).collect(),
        None => vec![None],
    };
    let malformed = |source: Box<dyn std::error::Error + Send + Sync>| ClusterError::Malformed {
        doing: "listing pods".into(),
        source,
    };
    let mut found = Vec::new();
    for namespace in namespaces {
        let mut list = List::new(&context.cluster, &pods_type, namespace, None, At::Now);
        while let Some(batch) = list.next().await? {
            for item in batch.items() {
                // Most pods of most clusters have no hooks, and need not be decoded to see that.
                if specs.is_empty() && memmem::find(item.json, ANNOTATIONS).is_none() {
                    continue;
                }
                let metadata = item.metadata().map_err(|error| malformed(error.into()))?;
                if metadata.deletion_timestamp.is_some()
                    || metadata.is_excluded()
                    || !metadata
                        .namespace
                        .is_some_and(|namespace| selection.namespaces.includes(&namespace))
                {
                    continue;
                }
                let pod: Pod =
                    serde_json::from_slice(item.json).map_err(|error| malformed(error.into()))?;
                if selection.selector.matches(pod.labels()) {
                    found.extend(PodHooks::of(&pod, specs));
                }
            }
        }
    }
    if !found.is_empty() {
        let left_out = namespaces_left_out(context).await?;
        found.retain(|pod| !left_out.contains(&pod.namespace));
    }
    Ok(found)
}

/// The namespaces that carry an exclude label: nothing in them is backed up, so nothing in them is frozen.
pub async fn namespaces_left_out(context: &Context) -> Result<BTreeSet<String>, ClusterError> {
    let namespaces = ResourceType::namespaces();
    let mut left_out = BTreeSet::new();
    for label in [EXCLUDE_LABEL, VELERO_EXCLUDE_LABEL] {
        let selector = format!("{label}=true");
        let mut list = List::new(
            &context.cluster,
            &namespaces,
            None,
            Some(&selector),
            At::Now,
        );
        while let Some(batch) = list.next().await? {
            for item in batch.items() {
                let metadata = item.metadata().map_err(|source| ClusterError::Malformed {
                    doing: "listing namespaces".into(),
                    source: source.into(),
                })?;
                left_out.insert(metadata.name.into_owned());
            }
        }
    }
    Ok(left_out)
}

/// Whether the pod runs; why not is said.
fn can_run_hooks(context: &Context, pod: &PodHooks, report: &mut Report) -> bool {
    let PodHooks {
        namespace, name, ..
    } = pod;
    match pod.phase.as_str() {
        "Running" => true,
        ended @ ("Succeeded" | "Failed") => {
            context.log.info(&format!(
                "pod {namespace}/{name}: its hooks are skipped, for it has ended ({ended})"
            ));
            false
        }
        phase => {
            let text =
                format!("pod {name}: its hooks are skipped, for it is not running ({phase})");
            warn(context, report, namespace, text);
            false
        }
    }
}

fn warn(context: &Context, report: &mut Report, namespace: &str, text: String) {
    context.log.warn(&format!("{namespace}: {text}"));
    report.warn(About::Namespace(namespace), text);
}

fn not_recorded(error: ClusterError) -> Failure {
    Failure::new(
        Exit::Failed,
        format!(
            "hooks are not run: what they freeze must be recorded first, and cannot be: {}",
            error.full_text()
        ),
    )
    .hint(
        "`kubectl ark install` makes Ark's namespace and gives the rights; `--hooks none` backs up without any hooks",
    )
}

struct Freezer<'a> {
    context: &'a Context,
    record: FrozenRecord<'a>,
    report: &'a mut Report,
    status: HookStatus,
}

/// What came of the pre hooks of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Freezing {
    /// At least one may have begun: the post hooks must run.
    Begun,
    /// None has begun, and none had to: the post hooks run, but there is nothing that they must undo.
    GoneOn,
    /// None has begun, and one had to: there is nothing to undo.
    Refused,
}

impl Freezer<'_> {
    /// Freezes the pods of a group, does `work`, and thaws them.
    ///
    /// `work` is not done when what is frozen cannot be recorded.
    async fn freeze_group<T>(
        &mut self,
        group: &[PodHooks],
        work: impl AsyncFnOnce() -> T,
    ) -> Result<T, Failure> {
        let mut to_thaw = Vec::new();
        let mut refused = None;
        for pod in group {
            if let Some(entry) = pod.to_record() {
                self.context.frozen.add(entry);
                if let Err(error) = self.record.save().await {
                    self.context.frozen.remove(&pod.uid);
                    refused = Some(not_recorded(error));
                    break;
                }
            }
            self.status.attempted += pod.count();
            self.remark(pod);
            let freezing = self.freeze(pod).await;
            if freezing != Freezing::Begun {
                self.context.frozen.remove(&pod.uid);
            }
            if freezing != Freezing::Refused {
                to_thaw.push((pod, freezing));
            }
        }
        let done = match refused {
            None => Ok(work().await),
            Some(failure) => Err(failure),
        };
        for (pod, freezing) in to_thaw {
            self.thaw(pod, freezing).await;
        }
        if let Err(error) = self.record.save().await {
            // Then a later attempt thaws once more than needed.
            let text = format!(
                "that pods are thawed could not be recorded: {}",
                error.full_text()
            );
            self.context.log.warn(&text);
            self.report.warn(About::Operation, text);
        }
        done
    }

    fn remark(&mut self, pod: &PodHooks) {
        for remark in &pod.remarks {
            let text = format!("pod {}: {remark}", pod.name);
            warn(self.context, self.report, &pod.namespace, text);
        }
    }

    async fn freeze(&mut self, pod: &PodHooks) -> Freezing {
        let mut freezing = Freezing::GoneOn;
        for step in &pod.pre {
            let ran = self.run(pod, step, Phase::Pre).await;
            if ran != Ran::NotAtAll {
                freezing = Freezing::Begun;
            }
            if ran != Ran::Well && step.on_error == OnError::Fail {
                return match freezing {
                    Freezing::Begun => Freezing::Begun,
                    Freezing::GoneOn | Freezing::Refused => Freezing::Refused,
                };
            }
        }
        freezing
    }

    /// Runs the post hooks, all of them: that one has failed is no reason to leave undone what the next undoes. A pod that
    /// is frozen and could not be reached stays in the record.
    async fn thaw(&mut self, pod: &PodHooks, freezing: Freezing) {
        let mut reached = true;
        for step in &pod.post {
            let ran = self.run(pod, step, Phase::Post).await;
            reached &= ran.is_over() || step.problem.is_some();
        }
        if reached {
            self.context.frozen.remove(&pod.uid);
        } else if freezing == Freezing::Begun && pod.to_record().is_some() {
            let text = format!("pod {}: may still be frozen, see above", pod.name);
            self.context
                .log
                .error(&format!("{}: {text}", pod.namespace));
            self.report.error(About::Namespace(&pod.namespace), text);
        }
    }

    /// Runs one hook, and says what came of it in log and report.
    async fn run(&mut self, pod: &PodHooks, step: &Step, phase: Phase) -> Ran {
        let (namespace, name) = (&pod.namespace, &pod.name);
        let ran = run_step(self.context, namespace, name, step, phase).await;
        let (ran, text) = match ran {
            Ok(()) => return Ran::Well,
            Err(failed) => failed,
        };
        self.status.failed += 1;
        match step.on_error {
            OnError::Continue => warn(self.context, self.report, namespace, text),
            OnError::Fail => {
                self.context.log.error(&format!("{namespace}: {text}"));
                self.report.error(About::Namespace(namespace), text);
            }
        }
        ran
    }
}

/// How far a hook came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ran {
    Well,
    /// It failed.
    Badly,
    /// Nobody knows whether it was started, or has ended.
    Unclear,
    /// It was not started.
    NotAtAll,
}

impl Ran {
    /// Whether it has certainly run, well or badly.
    fn is_over(self) -> bool {
        matches!(self, Ran::Well | Ran::Badly)
    }
}

/// Runs a hook in a pod and logs its output; an error says what is wrong with it.
async fn run_step(
    context: &Context,
    namespace: &str,
    pod: &str,
    step: &Step,
    phase: Phase,
) -> Result<(), (Ran, String)> {
    let what = format!(
        "pod {pod}: {phase} hook {} in container {}",
        step.name, step.container
    );
    if let Some(problem) = &step.problem {
        return Err((Ran::NotAtAll, format!("{what} cannot run: {problem}")));
    }
    let began = Instant::now();
    let command = Command {
        namespace,
        pod,
        container: &step.container,
        argv: &step.command,
        timeout: step.timeout,
        // A pod that stays frozen is worse than one that is thawed twice.
        repeatable: phase == Phase::Post,
    };
    let (end, output) = exec(&context.cluster, command).await;
    let (stdout, stderr) = (output.stdout.text(), output.stderr.text());
    let took = began.elapsed().as_secs_f64();
    context.log.info(&format!(
        "{namespace}: {what}: {end} ({took:.1} s); stdout: {stdout:?}; stderr: {stderr:?}"
    ));
    if let End::Success = end {
        return Ok(());
    }
    let mut text = exec::message(&what, &end, &output);
    if end.is_forbidden() {
        text.push_str("; `kubectl ark install --hooks` gives the right to run hooks");
    }
    let ran = match end {
        End::Success => Ran::Well,
        End::Code(_) | End::Failed(_) | End::TimedOut(_) => Ran::Badly,
        End::Lost(_) | End::NoAnswer(..) => Ran::Unclear,
        End::NotStarted(_) => Ran::NotAtAll,
    };
    Err((ran, text))
}

/// Another attempt of this run.
#[derive(Debug, PartialEq, Eq)]
pub enum Twin {
    /// There is none that has begun to run hooks.
    None,
    /// It was waited for, and has ended: its backup may be there.
    Ended,
    /// It is dead; this is its name.
    Dead(String),
}

/// Waits until another attempt of this run has ended, if it has begun to run hooks: its backup will do.
///
/// # Errors
/// When the record cannot be read.
pub async fn wait_for_twin(context: &Context, backup: &str) -> Result<Twin, Failure> {
    let record = FrozenRecord::new(context, backup);
    let Some(other) = record.read().await.map_err(unreadable)? else {
        return Ok(Twin::None);
    };
    if other.run != context.run.id.as_str() || other.attempt == context.run.attempt {
        return Ok(Twin::None);
    }
    let left = wait_until_ended(context, &record, &other)
        .await
        .map_err(unreadable)?;
    Ok(match left {
        Some(dead) => Twin::Dead(dead.attempt),
        None => Twin::Ended,
    })
}

/// Thaws what another attempt has left frozen, when that attempt is dead (as `dead` is known to be); waits for it while it
/// lives. Whether there was one: it may have left a backup, too.
///
/// # Errors
/// When the record cannot be read, or not be taken though something is frozen.
pub async fn thaw_what_was_left(
    context: &Context,
    backup: &str,
    dead: Option<&str>,
    report: &mut Report,
) -> Result<bool, Failure> {
    let record = FrozenRecord::new(context, backup);
    let Some(other) = record.read().await.map_err(unreadable)? else {
        return Ok(false);
    };
    take_over(context, &record, other, dead, report).await?;
    Ok(true)
}

fn unreadable(error: ClusterError) -> Failure {
    Failure::new(
        Exit::Failed,
        format!("finding out what is frozen: {}", error.full_text()),
    )
}

/// Another attempt has, or had, the record: waits until it has ended, and thaws what it has left.
async fn take_over(
    context: &Context,
    record: &FrozenRecord<'_>,
    mut other: Freeze,
    known_dead: Option<&str>,
    report: &mut Report,
) -> Result<(), Failure> {
    loop {
        if known_dead != Some(other.attempt.as_str()) {
            let left = wait_until_ended(context, record, &other).await;
            match left.map_err(unreadable)? {
                Some(dead) => other = dead,
                None => return Ok(()),
            }
        }
        let taken = record.take(Some(&other.attempt)).await;
        match taken.map_err(not_recorded)? {
            Taken::Ours => return thaw_left(context, record, report).await,
            Taken::Others(next) => other = next,
        }
    }
}

/// Waits until the attempt that has the record has given it up (`None`), or is dead and has left something in it.
///
/// It is dead when its pod has ended, or when its heartbeat has not changed for a while. While there are signs of life
/// there is no limit but the Job's deadline.
async fn wait_until_ended(
    context: &Context,
    record: &FrozenRecord<'_>,
    other: &Freeze,
) -> Result<Option<Freeze>, ClusterError> {
    let mut seen = other.clone();
    let mut unchanged_for = Duration::ZERO;
    let mut told = false;
    loop {
        if seen.attempt == context.run.attempt || has_ended(context, &seen.attempt).await? {
            return Ok(Some(seen));
        }
        if unchanged_for >= DEAD_AFTER {
            return Ok(Some(seen));
        }
        if !std::mem::replace(&mut told, true) {
            context.log.info(&format!(
                "attempt {} has hooks and may be at work; waiting for it to end, or for {} seconds without a sign of life",
                seen.attempt,
                DEAD_AFTER.as_secs()
            ));
        }
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(now) = record.read().await? else {
            return Ok(None);
        };
        let signs = |freeze: &Freeze| {
            (
                freeze.attempt.clone(),
                freeze.heartbeat.as_ref().map(|Time(at)| *at),
            )
        };
        match signs(&now) == signs(&seen) {
            true => unchanged_for += LOOK_EVERY,
            false => unchanged_for = Duration::ZERO,
        }
        seen = now;
    }
}

/// Whether the pod of an attempt is there and has ended: only then is it certain. A pod that is gone may have been deleted
/// by force, and its process go on.
async fn has_ended(context: &Context, attempt: &str) -> Result<bool, ClusterError> {
    let path = format!("/api/v1/namespaces/{}/pods", context.namespace);
    let list: Pods = context
        .cluster
        .get(&path, "looking for the pod of another attempt")
        .await?;
    Ok(list
        .items
        .iter()
        .any(|pod| pod.uid() == attempt && ["Succeeded", "Failed"].contains(&pod.phase())))
}

#[derive(Deserialize)]
struct Pods {
    items: Vec<Pod>,
}

/// Thaws what the ledger was given by [`FrozenRecord::take`].
async fn thaw_left(
    context: &Context,
    record: &FrozenRecord<'_>,
    report: &mut Report,
) -> Result<(), Failure> {
    for pod in context.frozen.pods() {
        context.log.info(&format!(
            "pod {}/{}: an attempt that was cut off has left it frozen; thawing it",
            pod.namespace, pod.name
        ));
        if let Err(why) = thaw_pod(context, &pod).await {
            let text = format!(
                "pod {}, left frozen by an attempt that was cut off: {why}",
                pod.name
            );
            warn(context, report, &pod.namespace, text);
        }
    }
    record.save().await.map_err(not_recorded)
}

/// Thaws a pod from its record, if it is still there; strikes it out unless it could not be reached.
async fn thaw_pod(context: &Context, pod: &FrozenPod) -> Result<(), String> {
    let FrozenPod {
        namespace,
        name,
        uid,
        hooks,
    } = pod;
    let there = match find_pod(context, namespace, name).await {
        Ok(there) => there,
        Err(error) => return Err(format!("it may still be frozen: {}", error.full_text())),
    };
    let gone = match there {
        None => Some("it is gone, so there is nothing to thaw"),
        Some(there) if there.uid() != uid => {
            Some("another pod has its name now, so there is nothing to thaw")
        }
        Some(there) if there.phase() != "Running" => {
            Some("it does not run any more, so there is nothing to thaw")
        }
        Some(_) => None,
    };
    if let Some(gone) = gone {
        context.frozen.remove(uid);
        return Err(gone.into());
    }
    let mut failed = Vec::new();
    let mut reached = true;
    for hook in hooks {
        if let Err((ran, text)) =
            run_step(context, namespace, name, &Step::from(hook), Phase::Post).await
        {
            reached &= ran.is_over();
            failed.push(text);
        }
    }
    if reached {
        context.frozen.remove(uid);
    } else {
        failed.push("it may still be frozen".into());
    }
    match failed.is_empty() {
        true => Ok(()),
        false => Err(failed.join("; ")),
    }
}

/// The pod of that name. Listed, for which the rights of a backup suffice.
async fn find_pod(
    context: &Context,
    namespace: &str,
    name: &str,
) -> Result<Option<Pod>, ClusterError> {
    let path = format!(
        "/api/v1/namespaces/{namespace}/pods?fieldSelector={}",
        encode(&format!("metadata.name={name}"))
    );
    let list: Pods = context
        .cluster
        .get(&path, &format!("looking for pod {namespace}/{name}"))
        .await?;
    Ok(list.items.into_iter().next())
}

/// Thaws everything that this process has frozen, all pods at once: the process is being ended.
pub async fn thaw_at_once(context: &Context) {
    let pods = context.frozen.pods();
    let thaw = pods.iter().map(|pod| async move {
        context.log.info(&format!(
            "pod {}/{}: thawing it before the end",
            pod.namespace, pod.name
        ));
        if let Err(why) = thaw_pod(context, pod).await {
            context
                .log
                .error(&format!("pod {}/{}: {why}", pod.namespace, pod.name));
        }
    });
    join_all(thaw).await;
}

/// This run has ended: gives the record up. What may still be frozen stays in it.
pub async fn give_up_record(context: &Context, backup: &str) {
    if !context.frozen.is_held() {
        return;
    }
    context.frozen.release();
    if let Err(error) = FrozenRecord::new(context, backup).save_map().await {
        context.log.warn(&format!(
            "the record of what was frozen could not be removed: {}",
            error.full_text()
        ));
    }
}
