//! Hooks of a restore: init containers that a restored pod gets before its own, and commands that run in its containers
//! once they are up. Which pods have which; who waits and runs the commands is another matter.
//!
//! The forms are Velero's: annotations of the pod, or specs in a ConfigMap with `postHooks`.

use super::{
    DEFAULT_TIMEOUT, FROM_ANNOTATION, OnError, Scope, or_default, parse_command, read_document,
};
use crate::args::parse_duration;
use crate::filter::Named;
use k8s_openapi::api::core::v1::Container;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a container may take to come up when nobody says otherwise: Velero's timeout of resources. Its hooks used to
/// wait for ever, and a restore with them.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(600);
/// What an init container from annotations without a name is called. Always the same: restored again, the pod must not
/// look different.
const INIT_NAME: &str = "ark-restore-init";
/// Velero's init container that waits for the contents of volumes: it stays the first.
const RESTORE_WAIT: &str = "restore-wait";

/// Annotation prefixes, by who reads them; the first that has what makes a hook wins.
const INIT_PREFIXES: [&str; 2] = [
    "init.hook.restore.ark.heptio.com/",
    "init.hook.restore.velero.io/",
];
const POST_PREFIXES: [&str; 2] = [
    "post.hook.restore.ark.heptio.com/",
    "post.hook.restore.velero.io/",
];

/// A command to run in a container of a restored pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecHook {
    /// The name of its spec.
    pub name: String,
    /// In which container.
    pub container: String,
    /// The command and its arguments; no shell.
    pub command: Vec<String>,
    /// Whether the pod's next hooks run when it fails. An error it is either way.
    pub on_error: OnError,
    /// How long it may take.
    pub exec_timeout: Duration,
    /// How long it may wait, from the creation of its pod on.
    pub wait_timeout: Duration,
    /// Whether it waits until the container is ready, not only running.
    pub wait_for_ready: bool,
}

/// An init container of a restored pod that must have ended well in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitHook {
    /// The init container.
    pub container: String,
    /// How long it may take, from the creation of its pod on.
    pub timeout: Duration,
}

/// What is to be watched and run when a pod has been created.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AfterCreation {
    /// Init containers with a timeout.
    pub init: Vec<InitHook>,
    /// Commands, in order.
    pub exec: Vec<ExecHook>,
}

impl AfterCreation {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.init.is_empty() && self.exec.is_empty()
    }
}

/// The hooks that a restore runs.
#[derive(Clone, Debug, PartialEq)]
pub struct RestoreHooks {
    annotations: bool,
    specs: Vec<Spec>,
}

impl Default for RestoreHooks {
    /// Those of annotations.
    fn default() -> Self {
        RestoreHooks {
            annotations: true,
            specs: Vec::new(),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Spec {
    scope: Scope,
    /// Init containers as they are put into pods, with what is watched of them.
    init: Vec<(Value, Option<Duration>)>,
    exec: Vec<SpecExec>,
}

#[derive(Clone, Debug, PartialEq)]
struct SpecExec {
    container: Option<String>,
    hook: ExecHook,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RawSpec {
    name: String,
    included_namespaces: Vec<String>,
    excluded_namespaces: Vec<String>,
    included_resources: Vec<String>,
    excluded_resources: Vec<String>,
    label_selector: Option<LabelSelector>,
    post_hooks: Vec<RawHook>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHook {
    exec: Option<RawExec>,
    init: Option<RawInit>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RawExec {
    container: Option<String>,
    command: Vec<String>,
    on_error: Option<String>,
    exec_timeout: Option<String>,
    wait_timeout: Option<String>,
    wait_for_ready: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RawInit {
    init_containers: Vec<Value>,
    timeout: Option<String>,
}

impl RestoreHooks {
    /// No hooks at all, not even those of annotations.
    pub fn none() -> RestoreHooks {
        RestoreHooks {
            annotations: false,
            specs: Vec::new(),
        }
    }

    /// Those of annotations, and for pods without any those of the specs in the YAML of a ConfigMap.
    ///
    /// # Errors
    /// A sentence that names the place, and what is wrong there.
    pub fn parse(yaml: &str) -> Result<RestoreHooks, String> {
        let specs = read_document::<RawSpec>(yaml)?.into_iter();
        let specs = specs.map(|(place, spec)| spec.check(place));
        Ok(RestoreHooks {
            annotations: true,
            specs: specs.collect::<Result<_, _>>()?,
        })
    }

    /// Keeps the specs that are about pods, when the types that the cluster serves are known.
    ///
    /// # Errors
    /// A sentence that names a type that is not served: a misspelt one would leave its pods without hooks silently.
    pub fn about_pods<T: Named>(self, types: &[T]) -> Result<RestoreHooks, String> {
        let mut specs = Vec::new();
        for spec in self.specs {
            if spec.scope.is_about_pods(types)? {
                specs.push(spec);
            }
        }
        Ok(RestoreHooks { specs, ..self })
    }

    /// Puts the init containers of its hooks into a pod that is restored to `namespace` (the target's name), and says what
    /// is to be done when it has been created; adds to `remarks` what is odd about its annotations.
    pub fn apply(
        &self,
        pod: &mut Value,
        namespace: &str,
        remarks: &mut Vec<String>,
    ) -> AfterCreation {
        AfterCreation {
            exec: self.exec_hooks(pod, namespace, remarks),
            init: self.add_init_containers(pod, namespace, remarks),
        }
    }

    /// Puts the init containers of its hooks into a pod that is restored to `namespace` (the target's name); adds to
    /// `remarks` what is odd about its annotations.
    ///
    /// Done twice, it changes nothing: a pod that an earlier restore gave them to is left as it is.
    pub fn add_init_containers(
        &self,
        pod: &mut Value,
        namespace: &str,
        remarks: &mut Vec<String>,
    ) -> Vec<InitHook> {
        let wanted = self.init_containers(pod, namespace, remarks);
        if wanted.is_empty() {
            return Vec::new();
        }
        let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else {
            return Vec::new();
        };
        let containers = named(spec.get("containers"));
        let list = spec.entry("initContainers").or_insert_with(|| json!([]));
        if list.is_null() {
            *list = json!([]);
        }
        let Some(list) = list.as_array_mut() else {
            return Vec::new();
        };
        let mut place = usize::from(
            list.first()
                .is_some_and(|first| first["name"] == RESTORE_WAIT),
        );
        let mut watched = Vec::new();
        for (container, timeout) in wanted {
            let name = container["name"].as_str().unwrap_or_default().to_owned();
            match list.iter().find(|there| there["name"] == name.as_str()) {
                Some(there) if is_the_same(there, &container) => {}
                None if !containers.contains(&name) => {
                    list.insert(place, container);
                    place += 1;
                }
                _ => {
                    remarks.push(format!(
                        "the init container {name} of a hook is not added: the pod has another container of that name"
                    ));
                    continue;
                }
            }
            watched.extend(timeout.map(|timeout| InitHook {
                container: name,
                timeout,
            }));
        }
        watched
    }

    /// Takes out of a pod in `namespace` what [`RestoreHooks::add_init_containers`] puts in. So compared, a pod that an earlier
    /// restore gave them to is what it is in the backup, and so is one that never had them.
    pub fn remove_init_containers(&self, pod: &mut Value, namespace: &str) {
        let hooks = self.init_containers(pod, namespace, &mut Vec::new());
        let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else {
            return;
        };
        let Some(list) = spec.get_mut("initContainers").and_then(Value::as_array_mut) else {
            return;
        };
        let before = list.len();
        list.retain(|there| {
            let is_this = |hook: &Value| hook["name"] == there["name"] && is_the_same(there, hook);
            !hooks.iter().any(|(hook, _)| is_this(hook))
        });
        if list.is_empty() && before > 0 {
            spec.remove("initContainers");
        }
    }

    /// The init containers that the hooks of a pod are, with their timeouts.
    fn init_containers(
        &self,
        pod: &Value,
        namespace: &str,
        remarks: &mut Vec<String>,
    ) -> Vec<(Value, Option<Duration>)> {
        match self.init_from_annotations(pod, remarks) {
            Some(annotated) => vec![annotated],
            None => {
                let labels = labels(pod);
                let specs = self.specs_for(namespace, &labels);
                specs.flat_map(|spec| spec.init.iter().cloned()).collect()
            }
        }
    }

    /// The commands to run in a pod that is restored to `namespace` (the target's name); adds to `remarks` what is odd
    /// about its annotations.
    pub fn exec_hooks(
        &self,
        pod: &Value,
        namespace: &str,
        remarks: &mut Vec<String>,
    ) -> Vec<ExecHook> {
        let first = pod.pointer("/spec/containers/0/name");
        let first = first.and_then(Value::as_str).unwrap_or_default();
        if let Some(annotated) = self.exec_from_annotations(pod, first, remarks) {
            return vec![annotated];
        }
        let labels = labels(pod);
        let hooks = self
            .specs_for(namespace, &labels)
            .flat_map(|spec| &spec.exec);
        hooks
            .map(|SpecExec { container, hook }| ExecHook {
                container: container.as_deref().unwrap_or(first).to_owned(),
                ..hook.clone()
            })
            .collect()
    }

    fn specs_for<'a>(
        &'a self,
        namespace: &'a str,
        labels: &'a BTreeMap<String, String>,
    ) -> impl Iterator<Item = &'a Spec> {
        let specs = self.specs.iter();
        specs.filter(|spec| spec.scope.covers(namespace, labels))
    }

    fn init_from_annotations(
        &self,
        pod: &Value,
        remarks: &mut Vec<String>,
    ) -> Option<(Value, Option<Duration>)> {
        let family = self.family(pod, INIT_PREFIXES, "container-image")?;
        let mut container = json!({
            "name": family.get("container-name").unwrap_or(INIT_NAME),
            "image": family.get("container-image")?,
        });
        // Without a command, the image's own is run.
        if let Some(command) = family.get("command") {
            container["command"] = json!(parse_command(command));
        }
        let timeout = family.duration("timeout", "it is not watched", remarks);
        if let Err(why) = check_name(container["name"].as_str().unwrap_or_default()) {
            // With it, the API server would refuse the whole pod.
            let name = family.name("container-name");
            remarks.push(format!("annotation {name}: {why}; the hook is not run"));
            return None;
        }
        Some((container, timeout.filter(|timeout| !timeout.is_zero())))
    }

    fn exec_from_annotations(
        &self,
        pod: &Value,
        first: &str,
        remarks: &mut Vec<String>,
    ) -> Option<ExecHook> {
        let family = self.family(pod, POST_PREFIXES, "command")?;
        let on_error = family.parsed("on-error", "Continue is taken", remarks, |text| {
            OnError::parse(text).ok_or("it is neither Continue nor Fail".into())
        });
        let exec_timeout = family.duration("exec-timeout", "30s is taken", remarks);
        let wait_timeout = family.duration("wait-timeout", "10m is taken", remarks);
        let ready = family.parsed("wait-for-ready", "false is taken", remarks, |text| {
            // As Go's strconv.ParseBool, which Velero uses.
            match text {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
                "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
                _ => Err("it is neither true nor false".into()),
            }
        });
        Some(ExecHook {
            name: FROM_ANNOTATION.into(),
            container: family.get("container").unwrap_or(first).to_owned(),
            command: parse_command(family.get("command")?),
            on_error: on_error.unwrap_or(OnError::Continue),
            exec_timeout: or_default(exec_timeout.unwrap_or(DEFAULT_TIMEOUT)),
            wait_timeout: or_default_wait(wait_timeout),
            wait_for_ready: ready.unwrap_or(false),
        })
    }

    /// The annotations of a hook, if the pod has one: those with the first of the prefixes that says `needed`.
    fn family<'a>(
        &self,
        pod: &'a Value,
        prefixes: [&'static str; 2],
        needed: &str,
    ) -> Option<Family<'a>> {
        if !self.annotations {
            return None;
        }
        let annotations = pod.pointer("/metadata/annotations")?;
        let mut families = prefixes.into_iter().map(|prefix| Family {
            annotations,
            prefix,
        });
        families.find(|family| family.get(needed).is_some())
    }
}

/// The annotations of a pod that have one prefix.
struct Family<'a> {
    annotations: &'a Value,
    prefix: &'static str,
}

impl<'a> Family<'a> {
    fn name(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// The value of one; empty is absent.
    fn get(&self, key: &str) -> Option<&'a str> {
        let value = self.annotations.get(self.name(key))?.as_str()?;
        (!value.is_empty()).then_some(value)
    }

    /// The meaning of one; what has none is as if absent, and remarked with what comes of it.
    fn parsed<T>(
        &self,
        key: &str,
        otherwise: &str,
        remarks: &mut Vec<String>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.get(key)?;
        match parse(text) {
            Ok(value) => Some(value),
            Err(why) => {
                let name = self.name(key);
                remarks.push(format!("annotation {name}: {text:?}: {why}; {otherwise}"));
                None
            }
        }
    }

    fn duration(&self, key: &str, otherwise: &str, remarks: &mut Vec<String>) -> Option<Duration> {
        self.parsed(key, otherwise, remarks, parse_duration)
    }
}

impl RawSpec {
    fn check(self, place: String) -> Result<Spec, String> {
        let scope = Scope::check(
            place.clone(),
            [&self.included_namespaces, &self.excluded_namespaces],
            [self.included_resources, self.excluded_resources],
            self.label_selector,
        )?;
        let name = match self.name.as_str() {
            "" => place.clone(),
            name => name.to_owned(),
        };
        let (mut init, mut exec) = (Vec::new(), Vec::new());
        for (n, hook) in self.post_hooks.into_iter().enumerate() {
            let place = format!("{place}.postHooks[{n}]");
            match (hook.exec, hook.init) {
                (Some(hook), None) => exec.push(
                    hook.check(&name)
                        .map_err(|why| format!("{place}.exec.{why}"))?,
                ),
                (None, Some(hook)) => {
                    init.extend(hook.check().map_err(|why| format!("{place}.init.{why}"))?);
                }
                _ => return Err(format!("{place}: it must have either exec or init")),
            }
        }
        let mut names: Vec<&Value> = init
            .iter()
            .map(|(container, _)| &container["name"])
            .collect();
        names.sort_by_key(|name| name.as_str());
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            let name = twice[0];
            return Err(format!(
                "{place}.postHooks: two init containers are called {name}"
            ));
        }
        Ok(Spec { scope, init, exec })
    }
}

impl RawExec {
    fn check(self, name: &str) -> Result<SpecExec, String> {
        if self.command.is_empty() {
            return Err("command: it is empty".into());
        }
        let on_error = match self.on_error.as_deref() {
            None | Some("") => OnError::Continue,
            Some(text) => OnError::parse(text)
                .ok_or_else(|| format!("onError: {text:?} is neither Continue nor Fail"))?,
        };
        let exec_timeout = duration("execTimeout", self.exec_timeout)?;
        let wait_timeout = duration("waitTimeout", self.wait_timeout)?;
        Ok(SpecExec {
            container: self.container.filter(|container| !container.is_empty()),
            hook: ExecHook {
                name: name.to_owned(),
                container: String::new(),
                command: self.command,
                on_error,
                exec_timeout: or_default(exec_timeout.unwrap_or(DEFAULT_TIMEOUT)),
                wait_timeout: or_default_wait(wait_timeout),
                wait_for_ready: self.wait_for_ready.unwrap_or(false),
            },
        })
    }
}

impl RawInit {
    fn check(self) -> Result<Vec<(Value, Option<Duration>)>, String> {
        let timeout = duration("timeout", self.timeout)?.filter(|timeout| !timeout.is_zero());
        if self.init_containers.is_empty() {
            return Err("initContainers: there is none".into());
        }
        let containers = self.init_containers.into_iter().enumerate();
        containers
            .map(|(n, container)| {
                check_container(&container).map_err(|why| format!("initContainers[{n}]{why}"))?;
                Ok((container, timeout))
            })
            .collect()
    }
}

/// Whether a pod could be created with this init container, as far as can be said without the API server.
fn check_container(container: &Value) -> Result<(), String> {
    let Container {
        name,
        image,
        command,
        ..
    } = serde_json::from_value(container.clone()).map_err(|error| format!(": {error}"))?;
    if name.is_empty() {
        return Err(".name: it is missing".into());
    }
    check_name(&name).map_err(|why| format!(".name: {why}"))?;
    if image.is_none_or(|image| image.is_empty()) {
        return Err(".image: it is missing".into());
    }
    if command.is_none_or(|command| command.is_empty()) {
        return Err(".command: it is missing".into());
    }
    Ok(())
}

/// Whether a container may be called so: as a label of a host name.
fn check_name(name: &str) -> Result<(), String> {
    const MAX: usize = 63;
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let edge = |at: Option<char>| at.is_some_and(|c| c != '-');
    let right = name.len() <= MAX
        && name.chars().all(allowed)
        && edge(name.chars().next())
        && edge(name.chars().last());
    if right {
        return Ok(());
    }
    Err(format!(
        "{name:?} cannot be a container's name: those have at most {MAX} lower-case letters, digits and '-', which is neither first nor last"
    ))
}

fn duration(field: &str, text: Option<String>) -> Result<Option<Duration>, String> {
    let parsed = text.map(|text| parse_duration(&text)).transpose();
    parsed.map_err(|why| format!("{field}: {why}"))
}

fn or_default_wait(wait: Option<Duration>) -> Duration {
    wait.filter(|wait| !wait.is_zero()).unwrap_or(DEFAULT_WAIT)
}

fn labels(pod: &Value) -> BTreeMap<String, String> {
    let labels = pod.pointer("/metadata/labels").and_then(Value::as_object);
    let labels = labels.into_iter().flatten();
    labels
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

/// The names of containers.
fn named(containers: Option<&Value>) -> Vec<String> {
    let containers = containers.and_then(Value::as_array).into_iter().flatten();
    containers
        .filter_map(|container| Some(container.get("name")?.as_str()?.to_owned()))
        .collect()
}

/// Whether an init container is the one of a hook; the API server has added to it.
fn is_the_same(there: &Value, hook: &Value) -> bool {
    ["image", "command", "args"]
        .iter()
        .all(|field| there.get(field) == hook.get(field))
}

#[cfg(test)]
mod tests;
