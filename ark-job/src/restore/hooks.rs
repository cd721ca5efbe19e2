//! Runs the hooks of pods that a restore has created: waits until their containers are up, runs the commands, and says
//! what came of them. It goes on beside the restore, which waits for it only at its end.
//!
//! Waiting is one task that looks at all pods with hooks, one namespace after the other; it sleeps at least as long as
//! looking took, so however many they are, it is less than one request at a time. Pods without hooks cost nothing.

mod pod;

use self::pod::{Seen, Unrun, Waiting};
use crate::api::RESTORE_LABEL;
use crate::args::NO_HOOKS;
use crate::cluster::discover::ResourceType;
use crate::cluster::exec::{self, Command, End, exec};
use crate::cluster::list::{At, List};
use crate::cluster::{Cluster, ClusterError, apply};
use crate::context::Context;
use crate::error::{Failure, chain};
use crate::filter::Named;
use crate::hooks::restore::{AfterCreation, ExecHook, RestoreHooks};
use crate::hooks::{OnError, document, mistake};
use crate::log::Log;
use crate::report::{About, Report};
use futures::stream::{FuturesUnordered, StreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Pauses between two looks, at least: a container takes longer to start.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Up to so many pods of a namespace are asked for one by one; more come cheaper as a list of all restored ones.
const ONE_BY_ONE: usize = 4;
/// Pods in which commands run at once: each is a connection through the API server to a kubelet.
const RUNNING: usize = 16;

/// The hooks that the flag `--hooks` asks for, read and checked before any work.
///
/// # Errors
/// [`crate::exit::Exit::NotFound`] without such a ConfigMap, [`crate::exit::Exit::Usage`] with the place of a mistake
/// in it.
pub async fn read<T: Named>(
    context: &Context,
    asked: Option<&str>,
    types: &[T],
) -> Result<RestoreHooks, Failure> {
    match asked {
        None => Ok(RestoreHooks::default()),
        Some(NO_HOOKS) => Ok(RestoreHooks::none()),
        Some(name) => {
            let map = context.config_map(name, "hooks").await?;
            let hooks = parse(&map, name)?;
            hooks.about_pods(types).map_err(|why| {
                mistake(name, &why).hint(
                    "`kubectl api-resources` lists what the cluster serves; hooks are for pods",
                )
            })
        }
    }
}

/// The hooks that a ConfigMap holds.
///
/// # Errors
/// [`crate::exit::Exit::Usage`], with the place of what is wrong.
pub fn parse(map: &ConfigMap, name: &str) -> Result<RestoreHooks, Failure> {
    RestoreHooks::parse(document(map, name)?).map_err(|why| mistake(name, &why))
}

/// What came of the hooks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HookReport {
    /// Hooks of pods that were created, whether they ran or not.
    pub attempted: u64,
    /// Those of them that failed, or were not run.
    pub failed: u64,
    /// What is wrong with the failed ones, with their namespace. It is in the log already.
    pub errors: Vec<(Option<String>, String)>,
}

impl HookReport {
    /// Makes the failures errors of the restore.
    pub fn add_to(&self, report: &mut Report) {
        for (namespace, text) in &self.errors {
            let about = match namespace {
                Some(namespace) => About::Namespace(namespace),
                None => About::Operation,
            };
            report.error(about, text.as_str());
        }
    }
}

/// Runs hooks while the restore goes on. What is under way is given up when it is dropped.
pub struct HookRunner {
    cluster: Cluster,
    log: Log,
    label: String,
    sender: Option<UnboundedSender<Waiting>>,
    driver: JoinSet<HookReport>,
}

impl HookRunner {
    /// For pods that get this value of the restore's label.
    pub fn new(cluster: &Cluster, log: &Log, label: &str) -> HookRunner {
        HookRunner {
            cluster: cluster.clone(),
            log: log.clone(),
            label: label.to_owned(),
            sender: None,
            driver: JoinSet::new(),
        }
    }

    /// A pod has been created by this restore: from now on its hooks are waited for and run.
    pub fn created(&mut self, namespace: &str, name: &str, hooks: AfterCreation) {
        if hooks.is_empty() {
            return;
        }
        let sender = self.sender.get_or_insert_with(|| {
            let (sender, receiver) = unbounded_channel();
            let driver = Driver {
                cluster: self.cluster.clone(),
                log: self.log.clone(),
                selector: format!("{RESTORE_LABEL}={}", self.label),
                report: HookReport::default(),
                waiting: BTreeMap::new(),
            };
            self.driver.spawn(driver.drive(receiver));
            sender
        });
        // The driver listens until the sender is dropped, unless it panicked, which `finish` tells.
        drop(sender.send(Waiting::new(namespace, name, hooks, Instant::now())));
    }

    /// Waits until all hooks have run, or have failed to. Each has a limit, so this ends.
    pub async fn finish(mut self) -> HookReport {
        self.sender = None;
        match self.driver.join_next().await {
            None => HookReport::default(),
            Some(Ok(report)) => report,
            Some(Err(error)) => {
                let text = format!("running hooks broke off: {}", chain(&error));
                self.log.error(&text);
                HookReport {
                    attempted: 1,
                    failed: 1,
                    errors: vec![(None, text)],
                }
            }
        }
    }
}

/// Namespace and name.
type Key = (String, String);

struct Driver {
    cluster: Cluster,
    log: Log,
    selector: String,
    report: HookReport,
    waiting: BTreeMap<Key, Waiting>,
}

/// A pod some of whose hooks have run.
struct Ran {
    pod: Waiting,
    failures: Vec<String>,
}

impl Driver {
    async fn drive(mut self, mut new: UnboundedReceiver<Waiting>) -> HookReport {
        let (mut looks, mut running) = (FuturesUnordered::new(), FuturesUnordered::new());
        let mut ready: VecDeque<(Waiting, Vec<ExecHook>, Instant)> = VecDeque::new();
        let mut open = true;
        let mut next_look = Instant::now();
        let mut began = next_look;
        loop {
            while running.len() < RUNNING {
                let Some((mut pod, hooks, since)) = ready.pop_front() else {
                    break;
                };
                pod.was_held_up(since.elapsed());
                running.push(run(self.cluster.clone(), self.log.clone(), pod, hooks));
            }
            let idle = self.waiting.is_empty() && looks.is_empty();
            if !open && idle && running.is_empty() {
                return self.report;
            }
            let can_look = !self.waiting.is_empty() && looks.is_empty();
            tokio::select! {
                pod = new.recv(), if open => match pod {
                    Some(pod) => {
                        self.report.attempted += pod.count();
                        self.waiting.insert(pod.key(), pod);
                    }
                    None => {
                        open = false;
                        self.say_what_is_waited_for();
                    }
                },
                () = tokio::time::sleep_until(next_look), if can_look => {
                    began = Instant::now();
                    let keys = self.waiting.keys().cloned().collect();
                    looks.push(look(self.cluster.clone(), self.selector.clone(), keys));
                }
                Some(seen) = looks.next(), if !looks.is_empty() => {
                    for (key, seen) in seen {
                        let Some(pod) = self.waiting.remove(&key) else { continue };
                        if let Some((pod, hooks)) = self.decide(pod, seen) {
                            ready.push_back((pod, hooks, Instant::now()));
                        }
                    }
                    next_look = Instant::now() + LOOK_EVERY.max(began.elapsed());
                }
                Some(ran) = running.next(), if !running.is_empty() => {
                    let Ran { pod, failures } = ran;
                    for text in failures {
                        self.fail(&pod.namespace, text);
                    }
                    if pod.count() > 0 {
                        self.waiting.insert(pod.key(), pod);
                    }
                }
            }
        }
    }

    fn say_what_is_waited_for(&self) {
        if let Some((namespace, name)) = self.waiting.keys().next() {
            self.log.info(&format!(
                "waiting for the hooks of {} pods to run: {namespace}/{name}, …",
                self.waiting.len()
            ));
        }
    }

    /// What can be done with a pod now that it has been looked at: the hooks to run, or nothing yet, or nothing any more.
    fn decide(
        &mut self,
        mut pod: Waiting,
        seen: Result<Option<Seen>, ClusterError>,
    ) -> Option<(Waiting, Vec<ExecHook>)> {
        let now = Instant::now();
        let (failed, hooks) = match seen {
            Ok(seen) => pod.look(seen.as_ref(), now),
            // Asked again, as long as it may wait.
            Err(error) if error.is_transient() => (pod.expire(now, &error.full_text()), Vec::new()),
            Err(error) => (pod.give_up(&error.full_text()), Vec::new()),
        };
        for Unrun(text) in failed {
            self.fail(&pod.namespace, text);
        }
        if !hooks.is_empty() {
            return Some((pod, hooks));
        }
        if pod.count() > 0 {
            self.waiting.insert(pod.key(), pod);
        }
        None
    }

    fn fail(&mut self, namespace: &str, text: String) {
        self.log.error(&format!("{namespace}: {text}"));
        self.report.failed += 1;
        self.report.errors.push((Some(namespace.to_owned()), text));
    }
}

/// Looks at pods, one namespace after the other.
async fn look(
    cluster: Cluster,
    selector: String,
    keys: Vec<Key>,
) -> Vec<(Key, Result<Option<Seen>, ClusterError>)> {
    let mut by_namespace: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (namespace, name) in keys {
        by_namespace.entry(namespace).or_default().insert(name);
    }
    let mut found = Vec::new();
    for (namespace, mut names) in by_namespace {
        if names.len() > ONE_BY_ONE {
            // What the list has not, for whatever reason, is asked for by its name.
            let listed = list(&cluster, &namespace, &selector, &names).await;
            for (name, seen) in listed.unwrap_or_default() {
                names.remove(&name);
                found.push(((namespace.clone(), name), Ok(Some(seen))));
            }
        }
        for name in names {
            let seen = read(&cluster, &namespace, &name).await;
            found.push(((namespace.clone(), name), seen));
        }
    }
    return found;

    async fn read(
        cluster: &Cluster,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Seen>, ClusterError> {
        let pods = ResourceType::pods();
        let pod = apply::read(cluster, &pods, Some(namespace), name).await?;
        pod.map(|pod| Seen::try_from(pod).map_err(|source| malformed(source.into())))
            .transpose()
    }
}

fn malformed(source: Box<dyn std::error::Error + Send + Sync>) -> ClusterError {
    ClusterError::Malformed {
        doing: "looking at pods with hooks".into(),
        source,
    }
}

/// Those of `names` that a list of all restored pods of a namespace has.
async fn list(
    cluster: &Cluster,
    namespace: &str,
    selector: &str,
    names: &BTreeSet<String>,
) -> Result<Vec<(String, Seen)>, ClusterError> {
    let pods = ResourceType::pods();
    let mut list = List::new(cluster, &pods, Some(namespace), Some(selector), At::Now);
    let mut found = Vec::new();
    while let Some(batch) = list.next().await? {
        for item in batch.items() {
            let metadata = item.metadata().map_err(|error| malformed(error.into()))?;
            if names.contains(&*metadata.name) {
                let seen = item.read().map_err(|error| malformed(error.into()))?;
                found.push((metadata.name.into_owned(), seen));
            }
        }
    }
    Ok(found)
}

/// Runs hooks of one container, in order.
async fn run(cluster: Cluster, log: Log, mut pod: Waiting, hooks: Vec<ExecHook>) -> Ran {
    let mut failures = Vec::new();
    let mut hooks = VecDeque::from(hooks);
    while let Some(hook) = hooks.pop_front() {
        let ended = match pod.has_expired(&hook, Instant::now()) {
            Some(Unrun(why)) => Err(why),
            None => run_hook(&cluster, &log, &pod, &hook).await,
        };
        let Err(text) = ended else { continue };
        failures.push(text);
        if hook.on_error == OnError::Fail {
            let left = pod.stop(Vec::from(hooks));
            failures.extend(left.into_iter().map(|Unrun(text)| text));
            break;
        }
    }
    Ran { pod, failures }
}

/// Runs a hook and logs its output; an error says what is wrong with it.
async fn run_hook(
    cluster: &Cluster,
    log: &Log,
    pod: &Waiting,
    hook: &ExecHook,
) -> Result<(), String> {
    let what = pod.describe(hook);
    let began = Instant::now();
    let command = Command {
        namespace: &pod.namespace,
        pod: &pod.name,
        container: &hook.container,
        argv: &hook.command,
        timeout: hook.exec_timeout,
        repeatable: false,
    };
    let (end, output) = exec(cluster, command).await;
    let took = began.elapsed().as_secs_f64();
    log.info(&format!(
        "{}: {what}: {end} ({took:.1} s); stdout: {:?}; stderr: {:?}",
        pod.namespace,
        output.stdout.text(),
        output.stderr.text()
    ));
    match end {
        End::Success => Ok(()),
        end => Err(exec::message(&what, &end, &output)),
    }
}
