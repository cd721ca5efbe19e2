//! Carrying a plan out: type by type, several objects of a type at once, one request an object when all is well.
//!
//! A preview is carried out by the same code, with dry runs for writes and paper for a record.

use super::compare::{comparable, digest};
use super::decide::Policy;
use super::hooks::HookRunner;
use super::join::{Content, Join, Lookup, Object, Ready};
use super::live::Hint;
use super::make::{Known, Maker, Order};
use super::order::{DEFINITIONS, DRIVERS, NAMESPACES};
use super::plan::{Plan, Step};
use super::prepare::{PrepareError, Prepared, Rules, label, prepare};
use super::preview::Preview;
use super::results::ResourceList;
use super::selection::Choice;
use super::tally::Tally;
use super::target::{Done, Fate, Mode, Target};
use super::wire::wire;
use crate::api::HookStatus;
use crate::archive::footer::TypeEntry;
use crate::archive::key;
use crate::archive::read::OpenMember;
use crate::cluster::apply;
use crate::cluster::discover::{Discovery, ResourceType};
use crate::cluster::pace::Pace;
use crate::cluster::{Cluster, ClusterError};
use crate::error::{Failure, chain};
use crate::exit::Exit;
use crate::hooks::restore::AfterCreation;
use crate::log::Log;
use crate::report::About;
use crate::repository::OpenBackup;
use crate::volumes::disks::DiskAccess;
use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt, try_unfold};
use serde_json::json;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// JSON of objects on their way to the API server, at most (one object always may be): keeps memory bounded when
/// objects are large.
const BYTES_IN_FLIGHT: usize = 6 << 20;
/// Members being fetched and prepared at once: the API server is the limit, and each is memory.
const MEMBERS_AHEAD: usize = 1;

/// How far a restore is; read by whoever shows progress.
#[derive(Debug, Default)]
pub struct Progress {
    /// Objects to deal with.
    pub total: AtomicU64,
    /// Objects dealt with.
    pub done: AtomicU64,
}

/// Where what becomes of each object is written.
pub enum Paper {
    /// What was done, to be stored.
    Record(ResourceList),
    /// What would be done, to be read.
    Plan(Preview),
}

/// What a plan is carried out with.
pub struct Performer<'a> {
    /// The target.
    pub cluster: &'a Cluster,
    /// How fast it may be written to.
    pub pace: &'a Pace,
    /// The log.
    pub log: &'a Log,
    /// Where the objects are.
    pub backup: Arc<OpenBackup>,
    /// What is restored.
    pub plan: Arc<Plan>,
    /// What the target serves.
    pub discovery: Arc<Discovery>,
    /// The value of the label on what is created.
    pub label: Arc<str>,
    /// What is done with what exists and is different.
    pub policy: Policy,
    /// Whether writes are dry runs.
    pub mode: Mode,
    /// The cloud, where the disks of volumes are made.
    pub disks: &'a DiskAccess,
    /// How volumes shall be.
    pub order: Arc<Order>,
    /// What is known of drivers and storage classes.
    pub known: Arc<Known>,
    /// Objects dealt with at once.
    pub max_in_flight: usize,
    /// For whoever shows it.
    pub progress: &'a Progress,
    /// What was done with each object.
    pub paper: Paper,
    /// What it has come to.
    pub tally: Tally,
    /// Target namespaces that are there.
    pub provided: BTreeSet<String>,
    /// Of these, the ones that this restore has made, or would; and so definitions.
    pub made: BTreeSet<String>,
    /// Definitions that are there.
    pub defined: BTreeSet<String>,
    /// Runs the hooks of pods that are created.
    pub runner: HookRunner,
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

impl<'p> Performer<'p> {
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

    /// Waits for the hooks of the pods that were created, and counts what came of them.
    pub async fn finish(self) -> (Tally, Paper) {
        let Performer {
            mut tally,
            paper,
            runner,
            ..
        } = self;
        let ran = runner.finish().await;
        ran.add_to(&mut tally.report);
        tally.hooks = (ran.attempted > 0).then_some(HookStatus {
            attempted: ran.attempted,
            failed: ran.failed,
        });
        (tally, paper)
    }

    /// Types whose definitions have just come are known a little later.
    async fn discover_again(&mut self, rest: &[&Step]) -> Result<(), Failure> {
        // A definition is called as its type; which versions it serves is its own affair.
        let defined = rest
            .iter()
            .map(|step| step.entry.resource.as_str())
            .filter(|resource| self.defined.contains(*resource));
        let defined: Vec<&str> = defined.collect();
        let serves_all = |discovery: &Discovery| {
            let mut resources = defined.iter();
            resources.all(|resource| discovery.preferred(resource).is_some())
        };
        // Also what was there already may have come a moment ago, by an attempt that was killed.
        if !serves_all(&self.discovery) && self.mode == Mode::Write {
            let discovery = apply::discover_until(self.cluster, serves_all).await;
            self.discovery = Arc::new(discovery.map_err(Lost::from)?);
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
            return self.not_served(step).await;
        };
        if let Paper::Record(list) = &mut self.paper {
            list.begin(&entry.api_version, &entry.kind)
                .map_err(Lost::from)?;
        }
        let of_live = self.plan.rules.of_live();
        let label = Arc::clone(&self.label);
        // The step changes the performer while these are in use.
        let (discovery, order) = (Arc::clone(&self.discovery), Arc::clone(&self.order));
        let known = Arc::clone(&self.known);
        let maker = self.maker(&discovery, &order, &known, &label);
        let target = Target {
            cluster: self.cluster,
            pace: self.pace,
            resource_type: &resource_type,
            resource: &entry.resource,
            of_live: &of_live,
            label: &label,
            policy: self.policy,
            mode: self.mode,
            maker: &maker,
        };
        let made = self.made.clone();
        let join = self.join(step, &resource_type, &of_live, &made);
        let objects = try_unfold(join, |mut join| async move {
            let next = join.next().await?;
            Ok::<_, Failure>(next.map(|next| (next, join)))
        });
        let mut objects = std::pin::pin!(objects);
        let mut flying = FuturesUnordered::new();
        let (mut in_flight, mut read_all) = (0, false);
        loop {
            let room = flying.len() < self.max_in_flight
                && (in_flight < BYTES_IN_FLIGHT || flying.is_empty());
            tokio::select! {
                Some(done) = flying.next(), if !flying.is_empty() => {
                    let done: Done = done;
                    in_flight -= done.size;
                    self.note(entry, done).await?;
                }
                next = objects.next(), if room && !read_all => match next {
                    Some(next) => {
                        let (object, hint) = next?;
                        if let Some(done) = self.settled(entry, &object, hint) {
                            self.note(entry, done).await?;
                        } else if entry.resource != NAMESPACES || self.provided.insert(object.name.clone()) {
                            in_flight += object.content.size();
                            flying.push(target.restore(object, hint));
                        } else {
                            // Another namespace has been mapped to the same one.
                            self.progress.done.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    None => read_all = true,
                },
                else => return Ok(()),
            }
        }
    }

    fn maker<'m>(
        &self,
        discovery: &'m Discovery,
        order: &'m Order,
        known: &'m Known,
        label: &'m str,
    ) -> Maker<'m>
    where
        'p: 'm,
    {
        let mut steps = self.plan.steps.iter();
        Maker {
            cluster: self.cluster,
            pace: self.pace,
            log: self.log,
            disks: self.disks,
            discovery,
            label,
            order,
            mode: self.mode,
            drivers_come: steps.any(|step| step.entry.resource == DRIVERS),
            known,
        }
    }

    /// What needs no request.
    fn settled(&self, entry: &TypeEntry, object: &Ready, hint: Hint) -> Option<Done> {
        let namespace = object.namespace.as_deref();
        let fate = match (&object.content, hint) {
            (Content::Object(content), Hint::Present { digest })
                if digest == content.digest && object.is_settled_by_list() =>
            {
                // A namespace is taken down as provided first.
                (entry.resource != NAMESPACES).then_some(Fate::Unchanged)
            }
            (Content::Object(_), _) if self.mode == Mode::DryRun => namespace
                .filter(|namespace| self.made.contains(*namespace))
                .map(|namespace| {
                    Fate::NotCheckable(format!("namespace {namespace} is not there yet"))
                }),
            _ => None,
        };
        Some(Done {
            namespace: object.namespace.clone(),
            name: object.name.clone(),
            size: 0,
            after: AfterCreation::default(),
            remark: None,
            source: object.source().cloned(),
            fate: Ok(fate?),
        })
    }

    /// The objects of a step as they are prepared, each with what the cluster has.
    fn join<'j>(
        &self,
        step: &'j Step,
        resource_type: &'j ResourceType,
        of_live: &Rules,
        made: &'j BTreeSet<String>,
    ) -> Join<'j>
    where
        'p: 'j,
    {
        let entry = &step.entry;
        let (plan, of_type, label) = (
            Arc::clone(&self.plan),
            entry.clone(),
            Arc::clone(&self.label),
        );
        let work = move |_: &_, opened: OpenMember| ready(&plan, &of_type, &opened, &label);
        let members = self
            .backup
            .read_members(step.members.clone(), MEMBERS_AHEAD, work)
            .boxed();
        let lookup = if entry.unsorted {
            Lookup::Never
        } else if step.by_namespace {
            Lookup::ByNamespace
        } else {
            Lookup::Everywhere
        };
        Join::new(
            self.cluster,
            self.log,
            resource_type,
            &entry.resource,
            of_live,
            lookup,
            made,
            members,
        )
    }

    /// The cluster does not know the type: none of its objects come back.
    async fn not_served(&mut self, step: &Step) -> Result<(), Failure> {
        let TypeEntry {
            resource,
            api_version,
            ..
        } = &step.entry;
        let coming = self.mode == Mode::DryRun && self.made.contains(resource);
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
        let why = format!("the cluster does not serve {api_version}{instead}{why}");
        if let Paper::Plan(preview) = &mut self.paper {
            let refused = (!coming).then_some(why.as_str());
            preview.add_type(&step.entry, step.objects, refused).await?;
        }
        if coming {
            self.tally.created += step.objects;
        } else {
            let text = format!("{} {resource} are not restored: {why}", step.objects);
            self.log.error(&text);
            self.tally.report.error(About::Cluster, text);
            self.tally.failed += step.objects;
        }
        self.progress
            .done
            .fetch_add(step.objects, Ordering::Relaxed);
        Ok(())
    }

    /// Makes the target namespaces that the backup has no object of, or that are called otherwise there.
    async fn provide_namespaces(&mut self, plan: &Plan) -> Result<(), Failure> {
        let Some(namespaces) = self.discovery.find(NAMESPACES, "v1").cloned() else {
            return Ok(());
        };
        let of_live = Rules::default();
        let label = Arc::clone(&self.label);
        let (discovery, order) = (Arc::clone(&self.discovery), Arc::clone(&self.order));
        let known = Arc::clone(&self.known);
        let maker = self.maker(&discovery, &order, &known, &label);
        let target = Target {
            cluster: self.cluster,
            pace: self.pace,
            resource_type: &namespaces,
            resource: NAMESPACES,
            of_live: &of_live,
            label: &label,
            policy: self.policy,
            mode: self.mode,
            maker: &maker,
        };
        let entry = namespace_entry();
        for name in plan.targets() {
            if !self.provided.insert(name.clone()) {
                continue;
            }
            let mut object =
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            let digest = digest(&comparable(NAMESPACES, object.clone()));
            super::prepare::label(&mut object, &label);
            let done = target
                .restore(
                    Ready {
                        choice: Choice::Provide,
                        namespace: None,
                        name,
                        content: Content::Object(Object {
                            json: object.to_string().into(),
                            digest,
                            status: None,
                            source: None,
                        }),
                        after: AfterCreation::default(),
                        remarks: Vec::new(),
                        renamed: false,
                    },
                    // They are few, and most are there.
                    Hint::Present { digest: [0; 16] },
                )
                .await;
            self.progress.total.fetch_add(1, Ordering::Relaxed);
            self.note_without_list(&entry, &done).await?;
            done.fate.map_err(Lost::from)?;
        }
        Ok(())
    }

    /// Counts and reports what became of an object.
    async fn note(&mut self, entry: &TypeEntry, mut done: Done) -> Result<(), Failure> {
        if let (Mode::Write, Some(namespace), Ok(Fate::Created { .. } | Fate::Recreated(_))) =
            (self.mode, &done.namespace, &done.fate)
        {
            let after = std::mem::take(&mut done.after);
            self.runner.created(namespace, &done.name, after);
        }
        let what = self.note_without_list(entry, &done).await?;
        done.fate.map_err(Lost::from)?;
        if let (Some(what), Paper::Record(list)) = (what, &mut self.paper) {
            let key = key(done.namespace.as_deref(), &done.name);
            list.add(&key, what).map_err(Lost::from)?;
        }
        Ok(())
    }

    /// As [`Performer::note`], and returns the word for the list.
    async fn note_without_list(
        &mut self,
        entry: &TypeEntry,
        done: &Done,
    ) -> Result<Option<&'static str>, Failure> {
        self.progress.done.fetch_add(1, Ordering::Relaxed);
        let Ok(fate) = &done.fate else {
            return Ok(None);
        };
        let namespace = done.namespace.as_deref();
        if let Paper::Plan(preview) = &mut self.paper {
            preview.add(entry, namespace, done, fate).await?;
        }
        let created = matches!(
            fate,
            Fate::Created { .. } | Fate::NotCheckable(_) | Fate::Recreated(_)
        );
        if created && [NAMESPACES, DEFINITIONS].contains(&entry.resource.as_str()) {
            self.made.insert(done.name.clone());
        }
        let there = !matches!(fate, Fate::Failed { .. } | Fate::Skipped(_));
        if there && entry.resource == DEFINITIONS {
            self.defined.insert(done.name.clone());
        }
        Ok(self
            .tally
            .count(self.log, entry, done, fate, self.plan.rules.without_volumes))
    }
}

fn namespace_entry() -> TypeEntry {
    TypeEntry {
        resource: NAMESPACES.to_owned(),
        api_version: "v1".to_owned(),
        kind: "Namespace".to_owned(),
        namespaced: false,
        items: 0,
        bytes: 0,
        unsorted: false,
        resource_version: None,
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
        let (mut after, mut remarks) = (AfterCreation::default(), Vec::new());
        let content = match prepare(&entry.resource, object.name, object.body, &plan.rules) {
            Ok(Prepared::Object {
                mut object,
                status,
                source,
                remark,
            }) => {
                remarks.extend(remark);
                // A namespace is called otherwise in the target.
                if let Some(mapped) = object
                    .pointer("/metadata/name")
                    .and_then(serde_json::Value::as_str)
                {
                    mapped.clone_into(&mut name);
                }
                label(&mut object, label_value);
                let json = if let ("pods", Some(hooks), Some(namespace)) =
                    (entry.resource.as_str(), &plan.rules.hooks, &namespace)
                {
                    let mut hooked = object.clone();
                    after = hooks.apply(&mut hooked, namespace, &mut remarks);
                    wire(&hooked)
                } else {
                    wire(&object)
                };
                Content::Object(Object {
                    json: Bytes::from(json),
                    // Neither the label nor what hooks add is a difference.
                    digest: digest(&comparable(&entry.resource, object)),
                    status,
                    source,
                })
            }
            Ok(Prepared::Skip(why)) => Content::Skip(why),
            Err(error @ PrepareError::Modifier(_)) => Content::Unusable(chain(&error)),
            Err(error) => Content::Unusable(format!("in the backup, {}", chain(&error))),
        };
        objects.push(Ready {
            choice,
            namespace,
            // Namespaces are, too, but they are looked up by their new names: few are.
            renamed: name != object.name && entry.resource != NAMESPACES,
            name,
            content,
            after,
            remarks,
        });
    }
    objects
}
