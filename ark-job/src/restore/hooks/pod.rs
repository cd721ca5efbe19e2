//! A pod whose hooks have not all run yet, and what can be done when it has been looked at. Pure.

use crate::hooks::OnError;
use crate::hooks::restore::{AfterCreation, ExecHook, InitHook};
use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;

/// What must be known of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Seen {
    metadata: Metadata,
    spec: Spec,
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    uid: String,
    deletion_timestamp: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    restart_policy: String,
    containers: Vec<Container>,
    init_containers: Vec<Container>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    name: String,
    restart_policy: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    phase: String,
    container_statuses: Vec<ContainerStatus>,
    init_container_statuses: Vec<ContainerStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ContainerStatus {
    name: String,
    ready: bool,
    state: State,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct State {
    running: Option<Value>,
    terminated: Option<Terminated>,
    waiting: Option<Reason>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Terminated {
    exit_code: i32,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Reason {
    reason: String,
}

impl TryFrom<Value> for Seen {
    type Error = serde_json::Error;

    fn try_from(pod: Value) -> Result<Seen, serde_json::Error> {
        serde_json::from_value(pod)
    }
}

impl Seen {
    fn status(&self, container: &str) -> Option<&ContainerStatus> {
        let status = &self.status;
        let mut all = status
            .container_statuses
            .iter()
            .chain(&status.init_container_statuses);
        all.find(|status| status.name == container)
    }

    /// Whether commands can be run in the container now.
    fn is_up(&self, container: &str, ready: bool) -> bool {
        self.status(container)
            .is_some_and(|status| status.state.running.is_some() && (status.ready || !ready))
    }

    /// Why no command will ever run in the container, if so.
    fn never_runs(&self, container: &str) -> Option<String> {
        let spec = &self.spec;
        let restarts = |one: &&Container| one.restart_policy.as_deref() == Some("Always");
        let sidecars = spec.init_containers.iter().filter(restarts);
        let mut names = spec.containers.iter().chain(sidecars);
        let Some(found) = names.clone().find(|one| one.name == container) else {
            let names: Vec<&str> = names.by_ref().map(|one| one.name.as_str()).collect();
            return Some(format!(
                "the pod has no container {container} (it has {})",
                names.join(", ")
            ));
        };
        let ended = self.status(container)?.state.terminated.as_ref()?;
        let policy = found.restart_policy.as_ref();
        let for_good = match policy.unwrap_or(&spec.restart_policy).as_str() {
            "Never" => true,
            "OnFailure" => ended.exit_code == 0,
            _ => false,
        };
        for_good.then(|| format!("the container has ended (exit code {})", ended.exit_code))
    }

    /// In which state the container is, for messages.
    fn state(&self, container: &str) -> String {
        let Some(status) = self.status(container) else {
            return format!("the pod is {}", self.status.phase);
        };
        let ContainerStatus { ready, state, .. } = status;
        match state {
            State {
                running: Some(_), ..
            } if !ready => "it runs, but is not ready".into(),
            State {
                waiting: Some(Reason { reason }),
                ..
            } if !reason.is_empty() => format!("it waits: {reason}"),
            State {
                terminated: Some(Terminated { exit_code }),
                ..
            } => format!("it has ended with exit code {exit_code}"),
            _ => format!("the pod is {}", self.status.phase),
        }
    }
}

/// The message about a hook that failed without having been run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unrun(pub String);

/// A pod with the hooks that have not run yet.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    since: Instant,
    /// Time for which nothing but our own limit kept its hooks from running.
    held_up: Duration,
    uid: Option<String>,
    hooks: AfterCreation,
}

impl Waiting {
    /// A pod that was created at `since`.
    pub fn new(namespace: &str, name: &str, hooks: AfterCreation, since: Instant) -> Waiting {
        Waiting {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            since,
            held_up: Duration::ZERO,
            uid: None,
            hooks,
        }
    }

    /// Namespace and name.
    pub fn key(&self) -> (String, String) {
        (self.namespace.clone(), self.name.clone())
    }

    /// Hooks that have not run yet.
    pub fn count(&self) -> u64 {
        (self.hooks.init.len() + self.hooks.exec.len()) as u64
    }

    /// Its hooks could have run, but others had to end first: that does not count as waiting.
    pub fn was_held_up(&mut self, time: Duration) {
        self.held_up += time;
    }

    /// A hook, for messages.
    pub fn describe(&self, hook: &ExecHook) -> String {
        let ExecHook {
            name, container, ..
        } = hook;
        format!(
            "pod {}: restore hook {name} in container {container}",
            self.name
        )
    }

    fn unrun(&self, hook: &ExecHook, why: &str) -> Unrun {
        Unrun(format!("{} was not run: {why}", self.describe(hook)))
    }

    fn init_failed(&self, hook: &InitHook, why: &str) -> Unrun {
        Unrun(format!(
            "pod {}: init container {} of a restore hook {why}",
            self.name, hook.container
        ))
    }

    fn is_over(&self, limit: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= limit + self.held_up
    }

    /// Why a hook must not run any more, if it has waited too long.
    pub fn has_expired(&self, hook: &ExecHook, now: Instant) -> Option<Unrun> {
        let wait = hook.wait_timeout;
        self.is_over(wait, now).then(|| {
            self.unrun(
                hook,
                &format!("its turn did not come within {wait:?} after the pod was created"),
            )
        })
    }

    /// Ends what has waited too long, when the pod could not be looked at.
    pub fn expire(&mut self, now: Instant, why: &str) -> Vec<Unrun> {
        let mut failed = Vec::new();
        let init = std::mem::take(&mut self.hooks.init).into_iter();
        let (over, left) = init.partition(|hook| self.is_over(hook.timeout, now));
        self.hooks.init = left;
        let over: Vec<InitHook> = over;
        failed.extend(over.iter().map(|hook| {
            let within = hook.timeout;
            self.init_failed(hook, &format!("has not ended within {within:?}: {why}"))
        }));
        failed.extend(self.end_exec(|pod, hook| {
            let wait = hook.wait_timeout;
            let over = pod.is_over(wait, now);
            over.then(|| format!("its container was not up within {wait:?}: {why}"))
        }));
        failed
    }

    /// Ends all hooks.
    pub fn give_up(&mut self, why: &str) -> Vec<Unrun> {
        let AfterCreation { init, exec } = std::mem::take(&mut self.hooks);
        let init = init
            .iter()
            .map(|hook| self.init_failed(hook, &format!("has not ended: {why}")));
        let exec = exec.iter().map(|hook| self.unrun(hook, why));
        init.chain(exec).collect()
    }

    /// A hook has failed that must not: ends the others, of which `taken` were to run next.
    pub fn stop(&mut self, mut taken: Vec<ExecHook>) -> Vec<Unrun> {
        taken.append(&mut self.hooks.exec);
        let why = "a hook before it failed, and its onError is Fail";
        taken.iter().map(|hook| self.unrun(hook, why)).collect()
    }

    /// Ends hooks that `why` says something about, and all after one that must not fail.
    fn end_exec(&mut self, why: impl Fn(&Waiting, &ExecHook) -> Option<String>) -> Vec<Unrun> {
        let mut failed = Vec::new();
        let hooks = std::mem::take(&mut self.hooks.exec);
        let mut stopped = false;
        let mut left = Vec::new();
        for hook in hooks {
            match why(self, &hook) {
                Some(why) => {
                    failed.push(self.unrun(&hook, &why));
                    stopped |= hook.on_error == OnError::Fail;
                }
                None => left.push(hook),
            }
        }
        if stopped {
            failed.extend(self.stop(std::mem::take(&mut left)));
        }
        self.hooks.exec = left;
        failed
    }

    /// Looks at the pod: which hooks have failed, and which can run now. Those are all of one container, and are taken out.
    pub fn look(&mut self, seen: Option<&Seen>, now: Instant) -> (Vec<Unrun>, Vec<ExecHook>) {
        let Some(seen) = seen else {
            return (self.give_up("the pod is gone"), Vec::new());
        };
        let uid = self.uid.get_or_insert_with(|| seen.metadata.uid.clone());
        if *uid != seen.metadata.uid {
            let why = "the pod is gone, and another has its name";
            return (self.give_up(why), Vec::new());
        }
        self.hooks.init.retain(|hook| {
            let status = seen.status(&hook.container);
            let ended = status.and_then(|status| status.state.terminated.as_ref());
            ended.is_none_or(|ended| ended.exit_code != 0)
        });
        if seen.metadata.deletion_timestamp.is_some() {
            return (self.give_up("the pod is being deleted"), Vec::new());
        }
        if let ended @ ("Succeeded" | "Failed") = seen.status.phase.as_str() {
            let why = format!("the pod has ended ({ended})");
            return (self.give_up(&why), Vec::new());
        }
        let mut failed = self.end_exec(|_, hook| seen.never_runs(&hook.container));
        // The one that can run now is not late.
        let next = self.next(seen);
        if next.is_empty() {
            let hooks = &self.hooks;
            let container = hooks.exec.first().map(|hook| hook.container.as_str());
            let container = container.or(hooks.init.first().map(|hook| hook.container.as_str()));
            let state = seen.state(container.unwrap_or_default());
            failed.extend(self.expire(now, &state));
            return (failed, Vec::new());
        }
        (failed, next)
    }

    /// Takes out the next hooks of the first container that is up.
    fn next(&mut self, seen: &Seen) -> Vec<ExecHook> {
        let mut blocked: Vec<&str> = Vec::new();
        let mut taken: Option<&str> = None;
        let runs: Vec<bool> = self
            .hooks
            .exec
            .iter()
            .map(|hook| {
                let container = hook.container.as_str();
                let may = taken.is_none_or(|one| one == container)
                    && !blocked.contains(&container)
                    && seen.is_up(container, hook.wait_for_ready);
                if may {
                    taken = Some(container);
                } else {
                    // What comes after it in this container waits for it.
                    blocked.push(container);
                }
                may
            })
            .collect();
        let mut runs = runs.into_iter();
        self.hooks
            .exec
            .extract_if(.., |_| runs.next().unwrap_or_default())
            .collect()
    }
}

#[cfg(test)]
mod tests;
