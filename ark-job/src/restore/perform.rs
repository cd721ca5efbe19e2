//! Carrying a plan out: type by type, several objects of a type at once, one request an object when all is well.

use super::compare::difference;
use super::order::{DEFINITIONS, NAMESPACES};
use super::plan::{Plan, Step};
use super::prepare::{Prepared, Rules, Skip, label, normalise, prepare};
use super::results::ResourceList;
use super::selection::Choice;
use crate::api::RESTORE_LABEL;
use crate::archive::footer::TypeEntry;
use crate::archive::key;
use crate::archive::read::OpenMember;
use crate::cluster::apply::{self, Created};
use crate::cluster::discover::{Discovery, ResourceType};
use crate::cluster::{Cluster, ClusterError};
use crate::error::{Failure, chain};
use crate::exit::Exit;
use crate::log::Log;
use crate::report::{About, Report};
use crate::repository::OpenBackup;
use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use serde_json::{Value, json};
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// JSON of objects on their way to the API server, at most (one object always may be): keeps memory bounded when
/// objects are large.
const BYTES_IN_FLIGHT: usize = 6 << 20;
/// When no more objects than this wait to be sent, the next member is fetched: its latency is hidden, and no more than
/// one member waits.
const LOW_WATER: usize = 256;
/// Members being fetched and prepared at once: the API server is the limit, and each is memory.
const MEMBERS_AHEAD: usize = 1;
/// An object that vanishes while it is looked at is created again this often.
const ATTEMPTS: u32 = 3;

/// How far a restore is; read by whoever shows progress.
#[derive(Debug, Default)]
pub struct Progress {
    /// Objects to deal with.
    pub total: AtomicU64,
    /// Objects dealt with.
    pub done: AtomicU64,
}

/// What a restore has come to.
#[derive(Debug, Default)]
pub struct Tally {
    /// Objects created.
    pub created: u64,
    /// Existing objects that were as in the backup.
    pub unchanged: u64,
    /// Objects left out, or left as they are.
    pub skipped: u64,
    /// Objects that could not be restored.
    pub failed: u64,
    /// Warnings and errors.
    pub report: Report,
}

/// What a plan is carried out with.
pub struct Performer<'a> {
    /// The target.
    pub cluster: &'a Cluster,
    /// The log.
    pub log: &'a Log,
    /// Where the objects are.
    pub backup: Arc<OpenBackup>,
    /// What is restored.
    pub plan: Arc<Plan>,
    /// What the target serves.
    pub discovery: Discovery,
    /// The value of the label on what is created.
    pub label: Arc<str>,
    /// Requests under way at once.
    pub max_in_flight: usize,
    /// For whoever shows it.
    pub progress: &'a Progress,
    /// What was done with each object.
    pub list: ResourceList,
    /// What it has come to.
    pub tally: Tally,
    /// Target namespaces that are there.
    pub provided: BTreeSet<String>,
}

/// An object of the backup, ready to be sent.
#[derive(Debug)]
struct Ready {
    choice: Choice,
    /// The target namespace.
    namespace: Option<String>,
    /// The name in the target.
    name: String,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Json(Bytes),
    Skip(Skip),
    Damaged(String),
}

/// What became of an object.
#[derive(Debug, PartialEq)]
enum Fate {
    Created {
        warnings: Vec<String>,
    },
    /// A namespace that was only needed, and is there.
    Provided,
    Unchanged,
    Different {
        at: String,
    },
    Skipped(Skip),
    Failed(String),
}

/// Why a restore stopped on the way.
#[derive(Debug, thiserror::Error)]
enum Lost {
    /// The API server has gone.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Temporary storage failed.
    #[error("writing a temporary file")]
    Temporary(#[from] io::Error),
}

impl From<Lost> for Failure {
    fn from(lost: Lost) -> Failure {
        Failure::from_error(Exit::Failed, &lost)
            .hint("run the restore again: it goes on where this one stopped")
    }
}

impl Performer<'_> {
    /// Carries the plan out.
    ///
    /// # Errors
    /// When the archive is damaged, or the API server or temporary storage is lost. What concerns one object or type is
    /// in the tally.
    pub async fn perform(&mut self) -> Result<(), Failure> {
        let plan = Arc::clone(&self.plan);
        self.progress.total.store(plan.objects(), Ordering::Relaxed);
        let (first, rest): (Vec<&Step>, Vec<&Step>) = plan
            .steps
            .iter()
            .partition(|step| [DEFINITIONS, NAMESPACES].contains(&step.entry.resource.as_str()));
        for step in first {
            self.step(step).await?;
            if step.entry.resource == DEFINITIONS {
                self.discover_again(&rest).await?;
            }
        }
        self.provide_namespaces(&plan).await?;
        for step in rest {
            self.step(step).await?;
        }
        Ok(())
    }

    /// Types whose definitions have just come are known a little later.
    async fn discover_again(&mut self, rest: &[&Step]) -> Result<(), Failure> {
        let serves_all = |discovery: &Discovery| {
            rest.iter().all(|step| {
                let entry = &step.entry;
                discovery
                    .find(&entry.resource, &entry.api_version)
                    .is_some()
            })
        };
        let expected = self.tally.created > 0 && !serves_all(&self.discovery);
        if expected {
            self.discovery = apply::discover_until(self.cluster, serves_all)
                .await
                .map_err(Lost::from)?;
        }
        Ok(())
    }

    /// Restores all objects of one type.
    async fn step(&mut self, step: &Step) -> Result<(), Failure> {
        let entry = &step.entry;
        let Some(resource_type) = self
            .discovery
            .find(&entry.resource, &entry.api_version)
            .cloned()
        else {
            self.not_served(step);
            return Ok(());
        };
        self.list
            .begin(&entry.api_version, &entry.kind)
            .map_err(Lost::from)?;
        let label = Arc::clone(&self.label);
        let (plan, work_entry, work_label) = (
            Arc::clone(&self.plan),
            entry.clone(),
            Arc::clone(&self.label),
        );
        let members =
            self.backup
                .read_members(step.members.clone(), MEMBERS_AHEAD, move |_, opened| {
                    ready(&plan, &work_entry, &opened, &work_label)
                });
        let mut members = std::pin::pin!(members);
        let rules = self.plan.rules.of_live();
        let target = Target {
            cluster: self.cluster,
            resource_type: &resource_type,
            rules: &rules,
            label: &label,
        };
        let (mut queue, mut flying) = (VecDeque::<Ready>::new(), FuturesUnordered::new());
        let (mut in_flight, mut read_all) = (0, false);
        loop {
            while let Some(next) = queue.front() {
                let room = flying.len() < self.max_in_flight
                    && in_flight + next.content.size() <= BYTES_IN_FLIGHT;
                if !room && !flying.is_empty() {
                    break;
                }
                let Some(next) = queue.pop_front() else { break };
                if entry.resource == NAMESPACES && !self.provided.insert(next.name.clone()) {
                    // Another namespace has been mapped to the same one.
                    self.progress.done.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                in_flight += next.content.size();
                flying.push(target.restore(next));
            }
            if flying.is_empty() && read_all {
                break;
            }
            tokio::select! {
                Some(done) = flying.next(), if !flying.is_empty() => {
                    in_flight -= done.size;
                    self.note(entry, done).map_err(Failure::from)?;
                }
                member = members.next(), if queue.len() <= LOW_WATER && !read_all => match member {
                    Some(objects) => queue.extend(objects?),
                    None => read_all = true,
                },
            }
        }
        Ok(())
    }

    /// The cluster does not know the type: none of its objects come back.
    fn not_served(&mut self, step: &Step) {
        let TypeEntry {
            resource,
            api_version,
            ..
        } = &step.entry;
        let instead = match self.discovery.preferred(resource) {
            Some(other) => format!(", only {}", other.api_version()),
            None => String::new(),
        };
        let missing = self
            .discovery
            .missing
            .iter()
            .find(|missing| missing.group_version == *api_version);
        let why = missing.map_or(String::new(), |missing| {
            format!(" ({})", missing.error.full_text())
        });
        let text = format!(
            "{} {resource} are not restored: the cluster does not serve {api_version}{instead}{why}",
            step.objects
        );
        self.log.error(&text);
        self.tally.report.error(About::Cluster, text);
        self.tally.failed += step.objects;
        self.progress
            .done
            .fetch_add(step.objects, Ordering::Relaxed);
    }

    /// Makes the target namespaces that the backup has no object of, or that are called otherwise there.
    async fn provide_namespaces(&mut self, plan: &Plan) -> Result<(), Failure> {
        let Some(namespaces) = self.discovery.find(NAMESPACES, "v1").cloned() else {
            return Ok(());
        };
        let rules = Rules::default();
        let label = Arc::clone(&self.label);
        let target = Target {
            cluster: self.cluster,
            resource_type: &namespaces,
            rules: &rules,
            label: &label,
        };
        let entry = TypeEntry {
            resource: NAMESPACES.to_owned(),
            api_version: "v1".to_owned(),
            kind: "Namespace".to_owned(),
            namespaced: false,
            items: 0,
            bytes: 0,
            unsorted: false,
            resource_version: None,
        };
        for name in plan.targets() {
            if !self.provided.insert(name.clone()) {
                continue;
            }
            let mut object =
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            super::prepare::label(&mut object, &label);
            let done = target
                .restore(Ready {
                    choice: Choice::Provide,
                    namespace: None,
                    name,
                    content: Content::Json(object.to_string().into()),
                })
                .await;
            self.progress.total.fetch_add(1, Ordering::Relaxed);
            self.note_without_list(&entry, &done);
            done.fate.map_err(Lost::from)?;
        }
        Ok(())
    }

    /// Counts and reports what became of an object.
    fn note(&mut self, entry: &TypeEntry, done: Done) -> Result<(), Lost> {
        let what = self.note_without_list(entry, &done);
        done.fate?;
        if let Some(what) = what {
            let key = key(done.namespace.as_deref(), &done.name);
            self.list.add(&key, what)?;
        }
        Ok(())
    }

    /// As [`Performer::note`], and returns the word for the list.
    fn note_without_list(&mut self, entry: &TypeEntry, done: &Done) -> Option<&'static str> {
        self.progress.done.fetch_add(1, Ordering::Relaxed);
        let tally = &mut self.tally;
        let about = match &done.namespace {
            Some(namespace) => About::Namespace(namespace),
            None => About::Cluster,
        };
        let what = format!("{} {}", entry.kind, done.name);
        let place = match &done.namespace {
            Some(namespace) => format!("{what} in namespace {namespace}"),
            None => what.clone(),
        };
        match done.fate.as_ref().ok()? {
            Fate::Created { warnings } => {
                tally.created += 1;
                for warning in warnings {
                    self.log.warn(&format!("{place}: {warning}"));
                    tally.report.warn(about, format!("{what}: {warning}"));
                }
                Some("created")
            }
            Fate::Provided => None,
            Fate::Unchanged => {
                tally.unchanged += 1;
                Some("unchanged")
            }
            Fate::Different { at } => {
                tally.skipped += 1;
                let text = format!("exists and is different (at {at}); it is left as it is");
                self.log.warn(&format!("{place} {text}"));
                tally.report.warn(about, format!("{what} {text}"));
                Some("skipped")
            }
            Fate::Skipped(why) => {
                tally.skipped += 1;
                self.log.info(&format!("{place} is left out: {why}"));
                Some("skipped")
            }
            Fate::Failed(why) => {
                tally.failed += 1;
                self.log.error(&format!("{place}: {why}"));
                tally.report.error(about, format!("{what}: {why}"));
                Some("failed")
            }
        }
    }
}

impl Content {
    fn size(&self) -> usize {
        match self {
            Content::Json(json) => json.len(),
            Content::Skip(_) | Content::Damaged(_) => 0,
        }
    }
}

/// Prepares the objects of one member that the plan chose.
fn ready(plan: &Plan, entry: &TypeEntry, opened: &OpenMember, label_value: &str) -> Vec<Ready> {
    let mut objects = Vec::new();
    for object in opened.entries() {
        let choice = plan.choose(entry, &object);
        if choice == Choice::Leave {
            continue;
        }
        let namespace = object
            .namespace
            .map(|source| plan.rules.target(source).to_owned());
        let mut name = object.name.to_owned();
        let content = match prepare(&entry.resource, object.name, object.body, &plan.rules) {
            Ok(Prepared::Object { mut object, .. }) => {
                // A namespace is called otherwise in the target.
                if let Some(mapped) = object.pointer("/metadata/name").and_then(Value::as_str) {
                    mapped.clone_into(&mut name);
                }
                label(&mut object, label_value);
                Content::Json(object.to_string().into())
            }
            Ok(Prepared::Skip(why)) => Content::Skip(why),
            Err(error) => Content::Damaged(chain(&error)),
        };
        objects.push(Ready {
            choice,
            namespace,
            name,
            content,
        });
    }
    objects
}

/// What became of an object, with what it was.
#[derive(Debug)]
struct Done {
    namespace: Option<String>,
    name: String,
    size: usize,
    fate: Result<Fate, ClusterError>,
}

/// Where objects of one type go.
#[derive(Clone, Copy)]
struct Target<'a> {
    cluster: &'a Cluster,
    resource_type: &'a ResourceType,
    /// How objects in the cluster are prepared to be compared.
    rules: &'a Rules,
    label: &'a str,
}

impl Target<'_> {
    async fn restore(self, object: Ready) -> Done {
        let size = object.content.size();
        let fate = match &object.content {
            Content::Json(json) => self.create(&object, json).await,
            Content::Skip(why) => Ok(Fate::Skipped(*why)),
            Content::Damaged(why) => Ok(Fate::Failed(format!("in the backup, {why}"))),
        };
        Done {
            namespace: object.namespace,
            name: object.name,
            size,
            fate,
        }
    }

    /// Creates the object, or finds out why not.
    ///
    /// # Errors
    /// When the API server is lost; what it has against the object is a [`Fate`].
    async fn create(self, object: &Ready, json: &Bytes) -> Result<Fate, ClusterError> {
        let (namespace, name) = (object.namespace.as_deref(), object.name.as_str());
        for _ in 0..ATTEMPTS {
            let created = apply::create(
                self.cluster,
                self.resource_type,
                namespace,
                name,
                json.clone(),
            )
            .await;
            let (maybe_ours, refusal) = match created {
                Ok(Created::New { warnings }) => {
                    return self.wait_until_usable(name, warnings).await;
                }
                Ok(Created::Exists { maybe_ours }) => (maybe_ours, None),
                Err(error @ ClusterError::Unreachable { .. }) => return Err(error),
                // Webhooks, quotas and ports in use are told before that the object exists.
                Err(error) => (false, Some(error)),
            };
            let live = apply::read(self.cluster, self.resource_type, namespace, name).await;
            let live = match (live, refusal) {
                (Err(error @ ClusterError::Unreachable { .. }), _) => return Err(error),
                (Ok(None) | Err(_), Some(refusal)) => {
                    return Ok(Fate::Failed(refusal.full_text()));
                }
                (Err(error), None) => return Ok(Fate::Failed(error.full_text())),
                // Gone since: once more.
                (Ok(None), None) => continue,
                (Ok(Some(live)), _) => live,
            };
            if apply::is_being_deleted(&live) {
                let within = if self.resource_type.resource == NAMESPACES {
                    apply::NAMESPACE_GONE_WITHIN
                } else {
                    apply::OBJECT_GONE_WITHIN
                };
                if !apply::wait_until_gone(
                    self.cluster,
                    self.resource_type,
                    namespace,
                    name,
                    within,
                )
                .await?
                {
                    return Ok(Fate::Failed(format!(
                        "it exists and is still being deleted after {} s",
                        within.as_secs()
                    )));
                }
                continue;
            }
            if object.choice == Choice::Provide {
                return Ok(Fate::Provided);
            }
            let label = live["metadata"]["labels"].get(RESTORE_LABEL);
            if maybe_ours && label.is_some_and(|label| label == self.label) {
                return self.wait_until_usable(name, Vec::new()).await;
            }
            return Ok(self.compare(json, live));
        }
        Ok(Fate::Failed(
            "it vanished each time that it was looked at".into(),
        ))
    }

    /// Definitions can be used a moment after they are created.
    async fn wait_until_usable(
        self,
        name: &str,
        warnings: Vec<String>,
    ) -> Result<Fate, ClusterError> {
        let is_definition = self.resource_type.kind == "CustomResourceDefinition";
        if is_definition
            && !apply::wait_until_established(self.cluster, self.resource_type, name).await?
        {
            return Ok(Fate::Failed(
                "it was created, but the API server does not establish it".into(),
            ));
        }
        Ok(Fate::Created { warnings })
    }

    fn compare(self, json: &Bytes, mut live: Value) -> Fate {
        let Ok(wanted) = serde_json::from_slice::<Value>(json) else {
            return Fate::Failed("it cannot be compared with the one in the cluster".into());
        };
        let resource = crate::filter::Named::group_resource(self.resource_type);
        normalise(&resource, &mut live, self.rules);
        match difference(&wanted, &live) {
            None => Fate::Unchanged,
            Some(at) => Fate::Different { at },
        }
    }
}
