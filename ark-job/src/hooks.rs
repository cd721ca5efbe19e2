//! Hooks: commands that run in pods before (pre) and after (post) what must not be disturbed, and which pods have them.
//! Those of a restore are in [`restore`].
//!
//! They come from annotations of a pod, or from specs in a ConfigMap; the forms are Velero's and original Ark's. All of
//! this is computed from values: who runs the commands is another matter.

pub mod restore;

use crate::api::{FrozenHook, FrozenPod};
use crate::args::parse_duration;
use crate::error::Failure;
use crate::exit::Exit;
use crate::filter::{Filter, Named, resolve_resources};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a hook may take when nobody says otherwise (as in Ark and Velero).
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// Key of the ConfigMap that holds the specs.
pub const SPECS_KEY: &str = "hooks.yaml";
/// What a hook from annotations is called (Velero's words).
const FROM_ANNOTATION: &str = "<from-annotation>";
/// The resource type that hooks are for.
const PODS: &str = "pods";

/// Annotation prefixes, by who reads them. Of a family, the later ones fill in what the earlier ones do not say. Without
/// `pre` or `post` is the oldest form, and means `pre`.
const PRE_FAMILIES: [[&str; 2]; 2] = [
    [
        "pre.hook.backup.ark.heptio.com/",
        "hook.backup.ark.heptio.com/",
    ],
    ["pre.hook.backup.velero.io/", "hook.backup.velero.io/"],
];
const POST_FAMILIES: [[&str; 1]; 2] = [
    ["post.hook.backup.ark.heptio.com/"],
    ["post.hook.backup.velero.io/"],
];

/// When a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before.
    Pre,
    /// After.
    Post,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Pre => "pre",
            Phase::Post => "post",
        })
    }
}

/// What a hook that fails means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// A warning.
    Continue,
    /// An error of the backup; the pod's pre hooks that are left are not run. Post hooks always are.
    #[default]
    Fail,
}

impl OnError {
    fn parse(text: &str) -> Option<OnError> {
        match text {
            "Continue" => Some(OnError::Continue),
            "Fail" => Some(OnError::Fail),
            _ => None,
        }
    }
}

/// A command to run in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The name of its spec.
    pub name: String,
    /// In which container; the pod's first, if not said.
    pub container: Option<String>,
    /// The command and its arguments; no shell.
    pub command: Vec<String>,
    /// What it means when it fails.
    pub on_error: OnError,
    /// How long it may take.
    pub timeout: Duration,
}

/// The document with hook specs that the ConfigMap called `name` holds.
///
/// # Errors
/// [`Exit::Usage`], when it holds none.
pub fn document<'a>(map: &'a ConfigMap, name: &str) -> Result<&'a str, Failure> {
    let yaml = map.data.as_ref().and_then(|data| data.get(SPECS_KEY));
    yaml.map(String::as_str).ok_or_else(|| {
        let text = format!("--hooks: ConfigMap {name} has no key {SPECS_KEY}");
        Failure::new(Exit::Usage, text).hint(format!(
            "`kubectl create configmap {name} --from-file {SPECS_KEY}=FILE` makes one"
        ))
    })
}

/// A mistake in the document of the ConfigMap called `name`.
pub fn mistake(name: &str, why: &str) -> Failure {
    Failure::new(
        Exit::Usage,
        format!("--hooks: ConfigMap {name}, {SPECS_KEY}: {why}"),
    )
}

/// Hook specs, as a ConfigMap holds them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HookSpecs(Vec<Spec>);

#[derive(Clone, Debug, PartialEq)]
struct Spec {
    scope: Scope,
    pre: Vec<Hook>,
    post: Vec<Hook>,
}

/// Which objects a spec is about.
#[derive(Clone, Debug, PartialEq)]
struct Scope {
    /// Where in the document it stands, for messages.
    place: String,
    namespaces: Filter,
    included_resources: Vec<String>,
    excluded_resources: Vec<String>,
    selector: Selector,
}

/// The shape of Velero's `spec.hooks`, alone or below the key `hooks`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, bound = "T: Deserialize<'de>")]
struct Document<T> {
    hooks: Option<Resources<T>>,
    resources: Option<Vec<T>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, bound = "T: Deserialize<'de>")]
struct Resources<T> {
    #[serde(default = "Vec::new")]
    resources: Vec<T>,
}

/// The specs of a document, each with its place in it.
fn read_document<T: serde::de::DeserializeOwned>(yaml: &str) -> Result<Vec<(String, T)>, String> {
    let document: Document<T> = serde_saphyr::from_str(yaml).map_err(|error| error.to_string())?;
    let (root, raw) = match document {
        Document {
            hooks: Some(hooks),
            resources: None,
        } => ("hooks.resources", hooks.resources),
        Document {
            hooks: None,
            resources: Some(resources),
        } => ("resources", resources),
        Document { hooks: Some(_), .. } => {
            return Err("hooks and resources are both at the top: one of them is too many".into());
        }
        Document { .. } => return Err("there is no list `resources`".into()),
    };
    let places = raw.into_iter().enumerate();
    Ok(places
        .map(|(n, spec)| (format!("{root}[{n}]"), spec))
        .collect())
}

impl Scope {
    fn check(
        place: String,
        namespaces: [&[String]; 2],
        resources: [Vec<String>; 2],
        selector: Option<LabelSelector>,
    ) -> Result<Scope, String> {
        let at = |field: &str| {
            let place = format!("{place}.{field}");
            move |why: String| format!("{place}: {why}")
        };
        let namespaces =
            Filter::namespaces(namespaces[0], namespaces[1]).map_err(at("includedNamespaces"))?;
        let [included_resources, excluded_resources] = resources;
        Filter::resources(&included_resources, &excluded_resources)
            .map_err(at("includedResources"))?;
        let selector = check_selector(selector.unwrap_or_default()).map_err(at("labelSelector"))?;
        Ok(Scope {
            place,
            namespaces,
            included_resources,
            excluded_resources,
            selector,
        })
    }

    /// Whether it is about pods, when the types that the cluster serves are known.
    fn is_about_pods<T: Named>(&self, types: &[T]) -> Result<bool, String> {
        let resolve = |field: &str, names: &[String]| {
            resolve_resources(names, types).map_err(|why| format!("{}.{field}: {why}", self.place))
        };
        let include = resolve("includedResources", &self.included_resources)?;
        let exclude = resolve("excludedResources", &self.excluded_resources)?;
        Ok(Filter::resolved_resources(&include, &exclude).includes(PODS))
    }

    fn covers(&self, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        self.namespaces.includes(namespace) && self.selector.matches(labels)
    }
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
    pre: Vec<RawHook>,
    /// Original Ark's name for `pre`, which wins.
    hooks: Vec<RawHook>,
    post: Vec<RawHook>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHook {
    exec: RawExec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RawExec {
    container: Option<String>,
    command: Vec<String>,
    on_error: Option<String>,
    timeout: Option<String>,
}

impl HookSpecs {
    /// Reads the YAML of a ConfigMap.
    ///
    /// # Errors
    /// A sentence that names the place, and what is wrong there.
    pub fn parse(yaml: &str) -> Result<HookSpecs, String> {
        let specs = read_document::<RawSpec>(yaml)?.into_iter();
        let specs = specs.map(|(place, spec)| spec.check(place));
        specs.collect::<Result<_, _>>().map(HookSpecs)
    }

    /// Keeps the specs that are about pods, when the types that the cluster serves are known.
    ///
    /// # Errors
    /// A sentence that names a type that is not served: a misspelt one would leave its pods without hooks silently.
    pub fn about_pods<T: Named>(self, types: &[T]) -> Result<HookSpecs, String> {
        let mut kept = Vec::new();
        for spec in self.0 {
            if spec.scope.is_about_pods(types)? {
                kept.push(spec);
            }
        }
        Ok(HookSpecs(kept))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How long the post hooks of one pod may take at most, if all specs are about it.
    pub fn longest_thaw(&self) -> Duration {
        let post = self.0.iter().flat_map(|spec| &spec.post);
        post.map(|hook| hook.timeout).sum()
    }

    fn of<'a>(&'a self, pod: &'a Pod, phase: Phase) -> impl Iterator<Item = Hook> + 'a {
        let applies = |spec: &&Spec| {
            spec.scope
                .covers(&pod.metadata.namespace, &pod.metadata.labels)
        };
        let hooks = move |spec: &'a Spec| match phase {
            Phase::Pre => spec.pre.iter().cloned(),
            Phase::Post => spec.post.iter().cloned(),
        };
        self.0.iter().filter(applies).flat_map(hooks)
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
        let hooks = |field: &str, raw: Vec<RawHook>| {
            raw.into_iter()
                .enumerate()
                .map(|(n, hook)| {
                    hook.exec
                        .check(&name)
                        .map_err(|why| format!("{place}.{field}[{n}].exec.{why}"))
                })
                .collect::<Result<Vec<_>, _>>()
        };
        let pre = match self.pre.is_empty() {
            true => hooks("hooks", self.hooks)?,
            false => hooks("pre", self.pre)?,
        };
        let post = hooks("post", self.post)?;
        Ok(Spec { scope, pre, post })
    }
}

impl RawExec {
    fn check(self, name: &str) -> Result<Hook, String> {
        if self.command.is_empty() {
            return Err("command: it is empty".into());
        }
        let on_error = match self.on_error.as_deref() {
            None | Some("") => OnError::default(),
            Some(text) => OnError::parse(text)
                .ok_or_else(|| format!("onError: {text:?} is neither Continue nor Fail"))?,
        };
        let timeout = match self.timeout {
            None => DEFAULT_TIMEOUT,
            Some(text) => {
                or_default(parse_duration(&text).map_err(|why| format!("timeout: {why}"))?)
            }
        };
        Ok(Hook {
            name: name.to_owned(),
            container: self.container.filter(|container| !container.is_empty()),
            command: self.command,
            on_error,
            timeout,
        })
    }
}

/// No time at all means the default, as in Velero.
fn or_default(timeout: Duration) -> Duration {
    if timeout.is_zero() {
        DEFAULT_TIMEOUT
    } else {
        timeout
    }
}

fn check_selector(selector: LabelSelector) -> Result<Selector, String> {
    for (key, value) in selector.match_labels.iter().flatten() {
        crate::selector::check_label(key, value)?;
    }
    for requirement in selector.match_expressions.iter().flatten() {
        let (key, operator) = (&requirement.key, &requirement.operator);
        crate::selector::check_label(key, "")?;
        let values = requirement.values.as_deref().unwrap_or_default();
        for value in values {
            crate::selector::check_label(key, value)?;
        }
        let takes_values = ["In", "NotIn"].contains(&operator.as_str());
        if takes_values == values.is_empty() {
            return Err(format!(
                "{operator} of {key}: values are missing, or too many"
            ));
        }
    }
    Selector::try_from(selector).map_err(|error| error.to_string())
}

/// What must be known of a pod.
#[derive(Clone, Debug, Deserialize)]
pub struct Pod {
    metadata: PodMetadata,
    #[serde(default)]
    spec: PodSpec,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PodMetadata {
    name: String,
    namespace: String,
    uid: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    containers: Vec<Container>,
    init_containers: Vec<Container>,
    volumes: Vec<PodVolume>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    name: String,
    restart_policy: Option<String>,
}

/// A volume of a pod, as far as it may be a claim.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodVolume {
    name: String,
    persistent_volume_claim: Option<Claim>,
    ephemeral: Option<IgnoredAny>,
}

impl PodVolume {
    /// The claim that it is. That of a generic ephemeral volume is named after pod and volume, by the API's rule.
    pub(crate) fn claim_name(&self, pod: &str) -> Option<String> {
        match (&self.persistent_volume_claim, &self.ephemeral) {
            (Some(claim), _) => Some(claim.claim_name.clone()),
            (None, Some(_)) => Some(format!("{pod}-{}", self.name)),
            (None, None) => None,
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Claim {
    claim_name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PodStatus {
    phase: String,
}

impl Pod {
    /// The pod's labels.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.metadata.labels
    }

    /// Its UID.
    pub fn uid(&self) -> &str {
        &self.metadata.uid
    }

    /// Its phase.
    pub fn phase(&self) -> &str {
        &self.status.phase
    }

    fn container(&self, asked: Option<&str>) -> Result<String, String> {
        let spec = &self.spec;
        let Some(asked) = asked else {
            let first = spec.containers.first();
            return first
                .map(|container| container.name.clone())
                .ok_or_else(|| "the pod has no container".into());
        };
        // A restartable init container is a sidecar: it runs as long as the others.
        let sidecars = spec
            .init_containers
            .iter()
            .filter(|container| container.restart_policy.as_deref() == Some("Always"));
        let names: Vec<&str> = spec
            .containers
            .iter()
            .chain(sidecars)
            .map(|container| container.name.as_str())
            .collect();
        if names.contains(&asked) {
            return Ok(asked.to_owned());
        }
        Err(format!(
            "the pod has no container {asked} (it has {})",
            names.join(", ")
        ))
    }
}

/// A pod that has hooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodHooks {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID: a pod of the same name that comes later is another one.
    pub uid: String,
    /// Its phase.
    pub phase: String,
    /// Names of the claims it mounts, in its namespace; also those of its generic ephemeral volumes.
    pub claims: Vec<String>,
    /// What runs before, in order.
    pub pre: Vec<Step>,
    /// What runs after, in order.
    pub post: Vec<Step>,
    /// What is odd about its annotations.
    pub remarks: Vec<String>,
}

/// A hook of one pod, ready to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The hook's name.
    pub name: String,
    /// The container.
    pub container: String,
    /// The command and its arguments.
    pub command: Vec<String>,
    /// What it means when it fails.
    pub on_error: OnError,
    /// How long it may take.
    pub timeout: Duration,
    /// Why it cannot run in this pod at all.
    pub problem: Option<String>,
}

impl Step {
    fn new(hook: Hook, pod: &Pod) -> Step {
        let (container, mut problem) = match pod.container(hook.container.as_deref()) {
            Ok(container) => (container, None),
            Err(why) => (hook.container.unwrap_or_default(), Some(why)),
        };
        if hook.command.is_empty() {
            problem = Some("its command is empty".into());
        }
        Step {
            name: hook.name,
            container,
            command: hook.command,
            on_error: hook.on_error,
            timeout: hook.timeout,
            problem,
        }
    }
}

impl From<&FrozenHook> for Step {
    fn from(hook: &FrozenHook) -> Step {
        Step {
            name: hook.name.clone(),
            container: hook.container.clone(),
            command: hook.command.clone(),
            on_error: OnError::Fail,
            timeout: Duration::from_millis(hook.timeout_milliseconds),
            problem: None,
        }
    }
}

impl PodHooks {
    /// The hooks of a pod: of each phase those of its annotations, or else those of the specs that are about it.
    pub fn of(pod: &Pod, specs: &HookSpecs) -> Option<PodHooks> {
        let mut remarks = Vec::new();
        let mut steps = |phase| -> Vec<Step> {
            let hooks: Vec<Hook> =
                match from_annotations(&pod.metadata.annotations, phase, &mut remarks) {
                    Some(hook) => vec![hook],
                    None => specs.of(pod, phase).collect(),
                };
            hooks.into_iter().map(|hook| Step::new(hook, pod)).collect()
        };
        let (pre, post) = (steps(Phase::Pre), steps(Phase::Post));
        if pre.is_empty() && post.is_empty() {
            return None;
        }
        let volumes = pod.spec.volumes.iter();
        let claims = volumes.filter_map(|volume| volume.claim_name(&pod.metadata.name));
        Some(PodHooks {
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            phase: pod.status.phase.clone(),
            claims: claims.collect(),
            pre,
            post,
            remarks,
        })
    }

    /// Number of hooks.
    pub fn count(&self) -> u64 {
        (self.pre.len() + self.post.len()) as u64
    }

    /// What must be known to thaw the pod; none when freezing leaves nothing to undo.
    pub fn to_record(&self) -> Option<FrozenPod> {
        let possible = self.post.iter().filter(|step| step.problem.is_none());
        let hooks: Vec<FrozenHook> = possible
            .map(|step| FrozenHook {
                name: step.name.clone(),
                container: step.container.clone(),
                command: step.command.clone(),
                timeout_milliseconds: u64::try_from(step.timeout.as_millis()).unwrap_or(u64::MAX),
            })
            .collect();
        (!self.pre.is_empty() && !hooks.is_empty()).then(|| FrozenPod {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            hooks,
        })
    }
}

/// The hook that a pod's annotations ask for in a phase.
fn from_annotations(
    annotations: &BTreeMap<String, String>,
    phase: Phase,
    remarks: &mut Vec<String>,
) -> Option<Hook> {
    let families: Vec<&[&str]> = match phase {
        Phase::Pre => PRE_FAMILIES.iter().map(|family| &family[..]).collect(),
        Phase::Post => POST_FAMILIES.iter().map(|family| &family[..]).collect(),
    };
    families
        .into_iter()
        .find_map(|family| from_family(annotations, family, remarks))
}

fn from_family(
    annotations: &BTreeMap<String, String>,
    family: &[&str],
    remarks: &mut Vec<String>,
) -> Option<Hook> {
    let find = |key: &str| {
        family
            .iter()
            .map(|prefix| format!("{prefix}{key}"))
            .find_map(|name| Some((annotations.get(&name)?.as_str(), name)))
            .filter(|(value, _)| !value.is_empty())
    };
    let (command, _) = find("command")?;
    let on_error = find("on-error").and_then(|(value, name)| {
        let parsed = OnError::parse(value);
        if parsed.is_none() {
            remarks.push(format!(
                "annotation {name}: {value:?} is neither Continue nor Fail; Fail is taken"
            ));
        }
        parsed
    });
    let timeout = find("timeout").and_then(|(value, name)| match parse_duration(value) {
        Ok(timeout) => Some(or_default(timeout)),
        Err(why) => {
            remarks.push(format!(
                "annotation {name}: {why}; {DEFAULT_TIMEOUT:?} is taken"
            ));
            None
        }
    });
    Some(Hook {
        name: FROM_ANNOTATION.into(),
        container: find("container").map(|(value, _)| value.to_owned()),
        command: parse_command(command),
        on_error: on_error.unwrap_or_default(),
        timeout: timeout.unwrap_or(DEFAULT_TIMEOUT),
    })
}

/// A JSON array of words; anything else is one word.
fn parse_command(text: &str) -> Vec<String> {
    let array = text
        .starts_with('[')
        .then(|| serde_json::from_str(text).ok())
        .flatten();
    array.unwrap_or_else(|| vec![text.to_owned()])
}

/// Pods that must be frozen together, because they share a volume; groups and pods in the order of their names.
pub fn groups(mut pods: Vec<PodHooks>) -> Vec<Vec<PodHooks>> {
    pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    // Each pod begins as a group of its own; a claim joins the groups of those that mount it.
    let mut group: Vec<usize> = (0..pods.len()).collect();
    let mut first_with: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (n, pod) in pods.iter().enumerate() {
        for claim in &pod.claims {
            let first = *first_with.entry((&pod.namespace, claim)).or_insert(n);
            let (a, b) = (group[first], group[n]);
            let (keep, give_up) = (a.min(b), a.max(b));
            for one in &mut group {
                if *one == give_up {
                    *one = keep;
                }
            }
        }
    }
    let mut gathered: BTreeMap<usize, Vec<PodHooks>> = BTreeMap::new();
    for (pod, group) in pods.into_iter().zip(group) {
        gathered.entry(group).or_default().push(pod);
    }
    gathered.into_values().collect()
}

/// What this process has frozen: what it must thaw before it ends, whatever happens to the work.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    held: bool,
    pods: Vec<FrozenPod>,
}

impl Ledger {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        // Every method that takes the lock leaves the entries whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, the record of what is frozen is this process's; it begins with what another one left.
    pub fn take(&self, left: Vec<FrozenPod>) {
        let mut entries = self.entries();
        entries.held = true;
        for pod in left {
            if !entries.pods.iter().any(|known| known.uid == pod.uid) {
                entries.pods.push(pod);
            }
        }
    }

    /// Whether the record is this process's.
    pub fn is_held(&self) -> bool {
        self.entries().held
    }

    /// This process has no more to do with the record, unless something is still frozen.
    pub fn release(&self) {
        let mut entries = self.entries();
        entries.held = !entries.pods.is_empty();
    }

    /// Notes a pod that is about to be frozen.
    pub fn add(&self, pod: FrozenPod) {
        let mut entries = self.entries();
        entries.pods.retain(|known| known.uid != pod.uid);
        entries.pods.push(pod);
    }

    /// Strikes out a pod that has been thawed.
    pub fn remove(&self, uid: &str) {
        self.entries().pods.retain(|known| known.uid != uid);
    }

    /// The pods that are, or may be, frozen.
    pub fn pods(&self) -> Vec<FrozenPod> {
        self.entries().pods.clone()
    }
}

#[cfg(test)]
mod tests;
