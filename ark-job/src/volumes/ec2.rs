//! EBS, by EC2's API.
//!
//! Here are the requests. Which tags and properties are asked for is decided in [`tags`] and [`properties`], what a failure means
//! and how long it is tried again in [`failure`]. The SDK itself repeats nothing: creating a snapshot has no client token, and
//! of the rest it would give up too early.

mod failure;
mod permissions;
mod properties;
mod tags;

use self::failure::{Failure, Kind, Patience};
use self::properties::{asked, recorded};
use super::EbsSnapshot;
use super::disks::{
    DiskError, DiskSnapshot, DiskVolume, Disks, Permission, Tags, WantedVolume, region_of,
};
use super::identity::{ATTEMPT, PERSISTENT_VOLUME, RUN};
use crate::aws::{ANSWER_TIMEOUT, Answers, configured_region, http_client, load_config, timeouts};
use crate::log::Log;
use crate::store::{Credentials, Location, S3Location};
use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::Region;
use aws_sdk_ec2::config::retry::RetryConfig;
use aws_sdk_ec2::primitives::DateTime;
use aws_sdk_ec2::types::{
    Filter, ResourceType, Snapshot, SnapshotState, Tag, Volume, VolumeState, VolumeType,
};
use futures::future::{BoxFuture, FutureExt};
use jiff::Timestamp;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long to wait before each look for a snapshot whose creation was not answered: what was just made is not always found at
/// once.
const LOOKS: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// Entries of a page: the most that EC2 gives of snapshots.
const PAGE: i32 = 1000;

/// Values that one filter takes.
const FILTER_VALUES: usize = 200;

/// How long a volume that was just made may be unknown to other requests before it is taken for gone.
const UNKNOWN_FOR: Duration = Duration::from_secs(20);

/// What becomes of a volume whose key cannot be used, in the most common case.
const GONE: &str = "EC2 has taken it away right after it was asked for";

/// A volume that says it was made so much before it was asked for is one that an earlier request with the same token has made.
const TOLD_EXACTLY: Duration = Duration::from_secs(5);

/// The first wait for a snapshot or volume; waits grow by half.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The longest wait between looks at a volume, which is made in seconds.
const VOLUME_PAUSE: Duration = Duration::from_secs(5);

/// The longest wait between looks at a snapshot, which may take hours.
const SNAPSHOT_PAUSE: Duration = Duration::from_secs(30);

/// Sets the SDK up. Nothing is asked of EC2 yet, and credentials are found at the first request.
///
/// `cluster_name` is what tags of volumes call the cluster. The endpoint is EC2's own, or that of `AWS_ENDPOINT_URL_EC2` (or the profile's), and never that of the place: that is S3's.
///
/// # Errors
/// When the certificates of the place cannot be read.
pub fn connect(
    place: Location,
    cluster_name: Option<String>,
    log: Log,
) -> BoxFuture<'static, Result<Arc<dyn Disks>, DiskError>> {
    async move {
        // A directory says nothing of how to reach AWS: then the environment does.
        let place = match place {
            Location::S3(place) => place,
            Location::File { .. } => S3Location::default(),
        };
        let http_client = http_client(place.ca_bundle.as_deref()).map_err(DiskError::Setup)?;
        let region = configured_region(&place).await;
        let config = load_config(&place, &Credentials::Chain, region, http_client).await;
        let answers = Answers::default();
        let region = config.region().map(ToString::to_string);
        let config = aws_sdk_ec2::config::Builder::from(&config)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts(ANSWER_TIMEOUT, 1))
            .interceptor(answers.clone())
            .build();
        let disks: Arc<dyn Disks> = Arc::new(Ec2 {
            config,
            region: region.unwrap_or_default(),
            cluster_name,
            clients: Mutex::default(),
            answers,
            log,
        });
        Ok(disks)
    }
    .boxed()
}

struct Ec2 {
    config: aws_sdk_ec2::Config,
    /// The configured one, or empty.
    region: String,
    /// What tags of volumes call the cluster, if they do.
    cluster_name: Option<String>,
    clients: Mutex<HashMap<String, Client>>,
    answers: Answers,
    log: Log,
}

/// One thing that is being done: what people call it, and the action that a policy allows.
struct Doing<'a> {
    what: &'a str,
    action: &'static str,
}

impl Doing<'_> {
    fn failed(&self, failure: Failure) -> DiskError {
        failure.into_error(self.what, self.action)
    }

    fn lacks(&self, what: &str) -> DiskError {
        DiskError::Refused {
            doing: self.what.to_owned(),
            code: String::new(),
            message: format!("the answer lacks {what}"),
        }
    }
}

impl Ec2 {
    /// The name and client of a region.
    fn region_client<'a>(&'a self, region: &'a str) -> Result<(&'a str, Client), DiskError> {
        let region = if region.is_empty() {
            &self.region
        } else {
            region
        };
        if region.is_empty() {
            return Err(DiskError::Setup(
                "the region of the volumes is not known: set AWS_REGION, or the region of the storage location".to_owned(),
            ));
        }
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let client = clients.entry(region.to_owned()).or_insert_with(|| {
            let config = self.config.to_builder();
            Client::from_conf(config.region(Region::new(region.to_owned())).build())
        });
        Ok((region, client.clone()))
    }

    /// Does something that may be done twice, until there is an answer or no patience left.
    async fn repeat<T, F>(
        &self,
        doing: &Doing<'_>,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let (mut patience, began) = (Patience::default(), Instant::now());
        loop {
            match attempt().await {
                Ok(done) => return Ok(done),
                Err(failure) => self.pause(doing, &mut patience, began, failure).await?,
            }
        }
    }

    /// Waits before the next attempt, or gives the failure back when there is none.
    async fn pause(
        &self,
        doing: &Doing<'_>,
        patience: &mut Patience,
        began: Instant,
        failure: Failure,
    ) -> Result<(), Failure> {
        let Some(wait) = patience.next(failure.kind, began.elapsed()) else {
            return Err(failure);
        };
        // Once: what follows is mostly more of the same, and the last failure becomes the error.
        if patience.failures() == 1 {
            let (what, why) = (doing.what, failure.brief());
            self.log.warn(&format!("{what}: {why}; trying again"));
        }
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// All pages of a list. `ask` asks for the one that a token stands for, and gives what is on it and the token of the next.
    async fn pages<T, F>(
        &self,
        doing: &Doing<'_>,
        mut ask: impl FnMut(Option<String>) -> F,
    ) -> Result<Vec<T>, Failure>
    where
        F: Future<Output = Result<(Option<Vec<T>>, Option<String>), Failure>>,
    {
        let mut found = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let (page, next) = self.repeat(doing, || ask(token.clone())).await?;
            found.extend(page.unwrap_or_default());
            token = next.filter(|token| !token.is_empty());
            if token.is_none() {
                return Ok(found);
            }
        }
    }

    async fn describe_snapshots(
        &self,
        doing: &Doing<'_>,
        client: &Client,
        filters: Vec<Filter>,
        own: bool,
    ) -> Result<Vec<Snapshot>, Failure> {
        let ask = |token| {
            let request = client
                .describe_snapshots()
                .set_filters(Some(filters.clone()))
                .set_owner_ids(own.then(|| vec!["self".to_owned()]))
                .max_results(PAGE)
                .set_next_token(token);
            request.send().map(|answer| match answer {
                Ok(page) => Ok((page.snapshots, page.next_token)),
                Err(error) => Err(Failure::new(&error)),
            })
        };
        self.pages(doing, ask).await
    }

    async fn describe_volumes(
        &self,
        doing: &Doing<'_>,
        client: &Client,
        filters: Vec<Filter>,
    ) -> Result<Vec<Volume>, Failure> {
        let ask = |token| {
            let request = client
                .describe_volumes()
                .set_filters(Some(filters.clone()))
                .max_results(PAGE)
                .set_next_token(token);
            request.send().map(|answer| match answer {
                Ok(page) => Ok((page.volumes, page.next_token)),
                Err(error) => Err(Failure::new(&error)),
            })
        };
        self.pages(doing, ask).await
    }

    /// The snapshot with this id, if it exists. By a filter: asked by its id, one that does not exist is an error, and so is an
    /// id that EC2 does not like.
    async fn find_snapshot(
        &self,
        client: &Client,
        id: &str,
    ) -> Result<Option<Snapshot>, DiskError> {
        let doing = Doing {
            what: &format!("looking at snapshot {id}"),
            action: "ec2:DescribeSnapshots",
        };
        let filters = vec![filter("snapshot-id", id)];
        let found = self
            .describe_snapshots(&doing, client, filters, false)
            .await;
        let found = found.map_err(|failure| doing.failed(failure))?;
        Ok(found.into_iter().next())
    }

    async fn find_volume(&self, client: &Client, id: &str) -> Result<Option<Volume>, DiskError> {
        let doing = Doing {
            what: &format!("looking at volume {id}"),
            action: "ec2:DescribeVolumes",
        };
        let filters = vec![filter("volume-id", id)];
        let found = self.describe_volumes(&doing, client, filters).await;
        let found = found.map_err(|failure| doing.failed(failure))?;
        Ok(found.into_iter().next())
    }

    async fn take_snapshot(
        &self,
        region: &str,
        volume_id: &str,
        ours: &Tags,
    ) -> Result<EbsSnapshot, DiskError> {
        let (region, client) = self.region_client(region)?;
        let volume = self.find_volume(&client, volume_id).await?;
        let volume = volume.ok_or_else(|| DiskError::NotFound(in_region(volume_id, region)))?;
        let merged = tags::merge(ours, &tags::from_ec2(volume.tags()));
        if !merged.dropped.is_empty() {
            self.log.warn(&format!(
                "volume {volume_id}: its snapshot has no room for these of the volume's tags: {}",
                merged.dropped.join(", ")
            ));
        }
        let made = self
            .create_snapshot(&client, volume_id, ours, &merged.tags)
            .await?;
        Ok(EbsSnapshot {
            snapshot_id: made.id,
            started: made.started,
            ..recorded(&volume, volume_id, region)
        })
    }

    /// Begins a snapshot. Without a clear answer, one that has the tags is looked for, and the request is repeated only when there
    /// is none: two snapshots of one volume cost money, and the second would be an orphan.
    async fn create_snapshot(
        &self,
        client: &Client,
        volume_id: &str,
        ours: &Tags,
        all: &Tags,
    ) -> Result<Made, DiskError> {
        let doing = Doing {
            what: &format!("creating a snapshot of {volume_id}"),
            action: "ec2:CreateSnapshot",
        };
        let (mut patience, began) = (Patience::default(), Instant::now());
        loop {
            let request = client
                .create_snapshot()
                .volume_id(volume_id)
                .set_tag_specifications(tags::specification(ResourceType::Snapshot, all));
            let failure = match request.send().await {
                Ok(made) => {
                    let id = made.snapshot_id.ok_or_else(|| doing.lacks("an id"))?;
                    let started = made.start_time.as_ref().and_then(timestamp);
                    return Ok(Made { id, started });
                }
                Err(error) => Failure::new(&error),
            };
            if failure.kind == Kind::Unclear
                && let Some(made) = self.find_made(&doing, client, volume_id, ours).await?
            {
                self.log.warn(&format!(
                    "{}: {}; it was made nevertheless: {}",
                    doing.what,
                    failure.brief(),
                    made.id
                ));
                return Ok(made);
            }
            let paused = self.pause(&doing, &mut patience, began, failure).await;
            paused.map_err(|failure| doing.failed(failure))?;
        }
    }

    /// The snapshot that a request without an answer has made, if it did. Of several the oldest; the others are orphans, which a
    /// sweep deletes when it is sure.
    async fn find_made(
        &self,
        doing: &Doing<'_>,
        client: &Client,
        volume_id: &str,
        ours: &Tags,
    ) -> Result<Option<Made>, DiskError> {
        let mut identity = ours.clone();
        identity.retain(|key, _| [ATTEMPT, PERSISTENT_VOLUME, RUN].contains(&&**key));
        if identity.is_empty() {
            identity.clone_from(ours);
        }
        let looking = Doing {
            what: &format!("{}: looking for it after a lost answer", doing.what),
            action: "ec2:DescribeSnapshots",
        };
        for wait in LOOKS {
            tokio::time::sleep(wait).await;
            let mut filters = tags::filters(&identity);
            filters.push(filter("volume-id", volume_id));
            let found = self
                .describe_snapshots(&looking, client, filters, true)
                .await;
            let mut found = found.map_err(|failure| looking.failed(failure))?;
            found.retain(|snapshot| {
                snapshot.state() != Some(&SnapshotState::Error)
                    && tags::has_all(&tags::from_ec2(snapshot.tags()), &identity)
            });
            let oldest = found.into_iter().min_by_key(|snapshot| {
                let started = snapshot.start_time().and_then(timestamp);
                (started, snapshot.snapshot_id().map(str::to_owned))
            });
            if let Some(snapshot) = oldest {
                let started = snapshot.start_time().and_then(timestamp);
                let id = snapshot.snapshot_id.ok_or_else(|| looking.lacks("an id"))?;
                return Ok(Some(Made { id, started }));
            }
        }
        Ok(None)
    }

    async fn make_volume(
        &self,
        wanted: &WantedVolume,
        within: Duration,
    ) -> Result<DiskVolume, DiskError> {
        let began = Instant::now();
        let from = &wanted.snapshot.snapshot_id;
        let zone = &*wanted.availability_zone;
        let what = format!("creating a volume from {from} in {zone}");
        let doing = Doing {
            what: &what,
            action: "ec2:CreateVolume",
        };
        if zone.is_empty() {
            return Err(DiskError::Refused {
                doing: format!("creating a volume from {from}"),
                code: String::new(),
                message: "its zone is not known; name one with --zone-mappings".to_owned(),
            });
        }
        let region = match &*wanted.snapshot.region {
            "" => region_of(zone),
            recorded => recorded,
        };
        let (region, client) = self.region_client(region)?;
        let snapshot = self.find_snapshot(&client, from).await?;
        let snapshot = snapshot.ok_or_else(|| DiskError::NotFound(in_region(from, region)))?;
        if let Some(broken) = broken_snapshot(&snapshot) {
            return Err(broken);
        }
        let of_snapshot = tags::from_ec2(snapshot.tags());
        let inherited = tags::of_volume(&of_snapshot, self.cluster_name.as_deref());
        let all = tags::merge(&wanted.tags, &inherited).tags;
        let asked = asked(wanted, snapshot.volume_size());
        let before = self.answers.clock();
        let made = self.repeat(&doing, || {
            let request = client
                .create_volume()
                .snapshot_id(from)
                .availability_zone(zone)
                .client_token(&wanted.client_token)
                .set_volume_type(asked.volume_type.as_deref().map(VolumeType::from))
                .set_iops(asked.iops)
                .set_throughput(asked.throughput)
                .set_size(asked.size_gib)
                .set_encrypted(asked.encrypted)
                .set_kms_key_id(asked.kms_key.clone())
                .set_tag_specifications(tags::specification(ResourceType::Volume, &all));
            request
                .send()
                .map(|answer| answer.map_err(|error| Failure::new(&error)))
        });
        let made = made.await.map_err(|failure| doing.failed(failure))?;
        let created = made.create_time.as_ref().and_then(timestamp);
        let id = made.volume_id.ok_or_else(|| doing.lacks("an id"))?;
        let key = asked.kms_key.as_deref().or(snapshot.kms_key_id());
        let of_earlier = matches!((created, before), (Some(created), Some(before)) if created < before - TOLD_EXACTLY);
        let waited = self.wait_for_volume((region, &client), &id, key, began, within);
        match waited.await {
            // Its token is still known, and what it had made is not there any more.
            Err(DiskError::Broken { id, why: Some(why) })
                if of_earlier && why.starts_with(GONE) =>
            {
                Err(DiskError::NotFound(id))
            }
            result => result,
        }
    }

    /// Waits until a volume that was just made is available; one that never will be is deleted.
    async fn wait_for_volume(
        &self,
        (region, client): (&str, &Client),
        id: &str,
        key: Option<&str>,
        began: Instant,
        within: Duration,
    ) -> Result<DiskVolume, DiskError> {
        let made = Instant::now();
        let mut pause = Pause::new(FIRST_PAUSE, VOLUME_PAUSE);
        let mut seen = false;
        loop {
            let volume = self.find_volume(client, id).await?;
            let volume = volume.map(|volume| disk_volume(region, volume));
            match volume {
                Some(volume) if matches!(&*volume.state, "available" | "in-use") => {
                    return Ok(volume);
                }
                Some(volume) if volume.state == "error" => {
                    let mut why = no_such_key("EC2 could not make it", key);
                    // Only an empty volume is thrown away: nobody has ever written to one that is not available.
                    match self.remove_volume(region, id).await {
                        Ok(_) => why.push_str("; it was deleted again"),
                        Err(error) => why.push_str(&format!("; it is left: {error}")),
                    }
                    return Err(broken(id, why));
                }
                Some(volume) if volume.state.starts_with("delet") => {
                    return Err(broken(id, no_such_key(GONE, key)));
                }
                Some(_) => seen = true,
                // What was just made is not always found at once.
                None if !seen && made.elapsed() < UNKNOWN_FOR => {}
                None => return Err(broken(id, no_such_key(GONE, key))),
            }
            if began.elapsed() >= within {
                return Err(DiskError::Slow {
                    id: id.to_owned(),
                    state: "creating".to_owned(),
                    after: within,
                });
            }
            pause.wait(within.saturating_sub(began.elapsed())).await;
        }
    }

    async fn await_snapshot(
        &self,
        region: &str,
        id: &str,
        within: Duration,
    ) -> Result<DiskSnapshot, DiskError> {
        let began = Instant::now();
        let (region, client) = self.region_client(region)?;
        let mut pause = Pause::new(FIRST_PAUSE, SNAPSHOT_PAUSE);
        loop {
            let snapshot = self.find_snapshot(&client, id).await?;
            let snapshot = snapshot.ok_or_else(|| DiskError::NotFound(in_region(id, region)))?;
            if let Some(broken) = broken_snapshot(&snapshot) {
                return Err(broken);
            }
            let snapshot = disk_snapshot(region, snapshot);
            if snapshot.state == "completed" {
                return Ok(snapshot);
            }
            if began.elapsed() >= within {
                let progress = snapshot.progress.filter(|progress| !progress.is_empty());
                return Err(DiskError::Slow {
                    id: snapshot.id,
                    state: match progress {
                        Some(progress) => format!("{} ({progress})", snapshot.state),
                        None => snapshot.state,
                    },
                    after: within,
                });
            }
            pause.wait(within.saturating_sub(began.elapsed())).await;
        }
    }

    async fn list_snapshots(
        &self,
        region: &str,
        ids: &[String],
    ) -> Result<Vec<DiskSnapshot>, DiskError> {
        let (region, client) = self.region_client(region)?;
        let doing = Doing {
            what: &format!("looking at {} snapshots in {region}", ids.len()),
            action: "ec2:DescribeSnapshots",
        };
        let mut all = Vec::new();
        // By filters: of ids that are asked for directly, one that does not exist is an error.
        for ids in ids.chunks(FILTER_VALUES) {
            let ids = Filter::builder()
                .name("snapshot-id")
                .set_values(Some(ids.to_vec()));
            let found = self.describe_snapshots(&doing, &client, vec![ids.build()], false);
            let found = found.await.map_err(|failure| doing.failed(failure))?;
            all.extend(found.into_iter().map(|found| disk_snapshot(region, found)));
        }
        Ok(all)
    }

    async fn list_tagged_snapshots(
        &self,
        region: &str,
        wanted: &Tags,
    ) -> Result<Vec<DiskSnapshot>, DiskError> {
        let (region, client) = self.region_client(region)?;
        let doing = Doing {
            what: &format!("listing snapshots in {region}"),
            action: "ec2:DescribeSnapshots",
        };
        let found = self.describe_snapshots(&doing, &client, tags::filters(wanted), true);
        let found = found.await.map_err(|failure| doing.failed(failure))?;
        let found = found.into_iter().map(|found| disk_snapshot(region, found));
        Ok(found
            .filter(|found| tags::has_all(&found.tags, wanted))
            .collect())
    }

    async fn list_tagged_volumes(
        &self,
        region: &str,
        wanted: &Tags,
    ) -> Result<Vec<DiskVolume>, DiskError> {
        let (region, client) = self.region_client(region)?;
        let doing = Doing {
            what: &format!("listing volumes in {region}"),
            action: "ec2:DescribeVolumes",
        };
        let found = self.describe_volumes(&doing, &client, tags::filters(wanted));
        let found = found.await.map_err(|failure| doing.failed(failure))?;
        let found = found.into_iter().map(|found| disk_volume(region, found));
        Ok(found
            .filter(|found| tags::has_all(&found.tags, wanted))
            .collect())
    }

    async fn remove_snapshot(&self, region: &str, id: &str) -> Result<bool, DiskError> {
        let (_, client) = self.region_client(region)?;
        let doing = Doing {
            what: &format!("deleting snapshot {id}"),
            action: "ec2:DeleteSnapshot",
        };
        let deleted = self.repeat(&doing, || {
            let request = client.delete_snapshot().snapshot_id(id).send();
            request.map(|answer| answer.map_err(|error| Failure::new(&error)))
        });
        match deleted.await {
            Ok(_) => Ok(true),
            Err(failure) if failure.code == "InvalidSnapshot.NotFound" => Ok(false),
            Err(failure) => Err(doing.failed(failure)),
        }
    }

    async fn remove_volume(&self, region: &str, id: &str) -> Result<bool, DiskError> {
        let (_, client) = self.region_client(region)?;
        let doing = Doing {
            what: &format!("deleting volume {id}"),
            action: "ec2:DeleteVolume",
        };
        let deleted = self.repeat(&doing, || {
            let request = client.delete_volume().volume_id(id).send();
            request.map(|answer| answer.map_err(|error| Failure::new(&error)))
        });
        match deleted.await {
            Ok(_) => Ok(true),
            Err(failure) if failure.code == "InvalidVolume.NotFound" => Ok(false),
            Err(failure) => Err(doing.failed(failure)),
        }
    }

    async fn remove_tag(&self, region: &str, id: &str, key: &str) -> Result<(), DiskError> {
        let (_, client) = self.region_client(region)?;
        let doing = Doing {
            what: &format!("taking tag {key} away from {id}"),
            action: "ec2:DeleteTags",
        };
        let removed = self.repeat(&doing, || {
            let tag = Tag::builder().key(key).build();
            let request = client.delete_tags().resources(id).tags(tag).send();
            request.map(|answer| answer.map_err(|error| Failure::new(&error)))
        });
        match removed.await {
            Ok(_) => Ok(()),
            Err(failure) => Err(doing.failed(failure)),
        }
    }
}

impl Disks for Ec2 {
    fn snapshot<'a>(
        &'a self,
        region: &'a str,
        volume_id: &'a str,
        tags: &'a Tags,
    ) -> BoxFuture<'a, Result<EbsSnapshot, DiskError>> {
        self.take_snapshot(region, volume_id, tags).boxed()
    }

    fn snapshots<'a>(
        &'a self,
        region: &'a str,
        ids: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<DiskSnapshot>, DiskError>> {
        self.list_snapshots(region, ids).boxed()
    }

    fn tagged_snapshots<'a>(
        &'a self,
        region: &'a str,
        tags: &'a Tags,
    ) -> BoxFuture<'a, Result<Vec<DiskSnapshot>, DiskError>> {
        self.list_tagged_snapshots(region, tags).boxed()
    }

    fn delete_snapshot<'a>(
        &'a self,
        region: &'a str,
        id: &'a str,
    ) -> BoxFuture<'a, Result<bool, DiskError>> {
        self.remove_snapshot(region, id).boxed()
    }

    fn wait_for_snapshot<'a>(
        &'a self,
        region: &'a str,
        id: &'a str,
        within: Duration,
    ) -> BoxFuture<'a, Result<DiskSnapshot, DiskError>> {
        self.await_snapshot(region, id, within).boxed()
    }

    fn create_volume<'a>(
        &'a self,
        wanted: &'a WantedVolume,
        within: Duration,
    ) -> BoxFuture<'a, Result<DiskVolume, DiskError>> {
        self.make_volume(wanted, within).boxed()
    }

    fn tagged_volumes<'a>(
        &'a self,
        region: &'a str,
        tags: &'a Tags,
    ) -> BoxFuture<'a, Result<Vec<DiskVolume>, DiskError>> {
        self.list_tagged_volumes(region, tags).boxed()
    }

    fn untag_volume<'a>(
        &'a self,
        region: &'a str,
        id: &'a str,
        key: &'a str,
    ) -> BoxFuture<'a, Result<(), DiskError>> {
        self.remove_tag(region, id, key).boxed()
    }

    fn delete_volume<'a>(
        &'a self,
        region: &'a str,
        id: &'a str,
    ) -> BoxFuture<'a, Result<bool, DiskError>> {
        self.remove_volume(region, id).boxed()
    }

    fn permissions<'a>(
        &'a self,
        region: &'a str,
        volume_id: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Permission>, DiskError>> {
        self.ask_for_permissions(region, volume_id).boxed()
    }

    fn region(&self) -> &str {
        &self.region
    }

    fn clock(&self) -> Option<Timestamp> {
        self.answers.clock()
    }
}

/// A snapshot that was begun.
struct Made {
    id: String,
    started: Option<Timestamp>,
}

/// The waits between looks at something that takes its time.
struct Pause {
    next: Duration,
    longest: Duration,
}

impl Pause {
    fn new(first: Duration, longest: Duration) -> Pause {
        Pause {
            next: first,
            longest,
        }
    }

    /// Waits, `most` at most.
    async fn wait(&mut self, most: Duration) {
        // Not all volumes of a restore in step.
        let wait = self.next.mul_f64(0.75 + fastrand::f64() / 2.0);
        tokio::time::sleep(wait.min(most)).await;
        self.next = self.next.mul_f64(1.5).min(self.longest);
    }
}

fn in_region(id: &str, region: &str) -> String {
    format!("{id} in {region}")
}

fn filter(name: &str, value: &str) -> Filter {
    Filter::builder().name(name).values(value).build()
}

fn broken(id: &str, why: String) -> DiskError {
    DiskError::Broken {
        id: id.to_owned(),
        why: Some(why),
    }
}

/// The reason that EC2 does not give: a volume whose key cannot be used ends in an error, or is just gone.
fn no_such_key(what: &str, key: Option<&str>) -> String {
    match key {
        Some(key) => format!(
            "{what}: most likely the KMS key {key} does not exist, is disabled, or may not be used by these credentials \
             (kms:CreateGrant, kms:Decrypt, kms:GenerateDataKeyWithoutPlaintext); name another with --kms-key"
        ),
        None => format!(
            "{what}: most likely it is encrypted with a KMS key that these credentials may not use"
        ),
    }
}

fn broken_snapshot(snapshot: &Snapshot) -> Option<DiskError> {
    (snapshot.state() == Some(&SnapshotState::Error)).then(|| DiskError::Broken {
        id: snapshot.snapshot_id().unwrap_or_default().to_owned(),
        why: snapshot
            .state_message()
            .filter(|message| !message.is_empty())
            .map(str::to_owned),
    })
}

fn disk_snapshot(region: &str, snapshot: Snapshot) -> DiskSnapshot {
    DiskSnapshot {
        started: snapshot.start_time().and_then(timestamp),
        tags: tags::from_ec2(snapshot.tags()),
        state: snapshot
            .state()
            .map_or("unknown", SnapshotState::as_str)
            .to_owned(),
        id: snapshot.snapshot_id.unwrap_or_default(),
        volume_id: snapshot.volume_id.unwrap_or_default(),
        region: region.to_owned(),
        state_message: snapshot.state_message.filter(|text| !text.is_empty()),
        progress: snapshot.progress,
        size_gib: snapshot.volume_size,
    }
}

fn disk_volume(region: &str, volume: Volume) -> DiskVolume {
    DiskVolume {
        created: volume.create_time().and_then(timestamp),
        tags: tags::from_ec2(volume.tags()),
        state: volume
            .state()
            .map_or("unknown", VolumeState::as_str)
            .to_owned(),
        id: volume.volume_id.unwrap_or_default(),
        region: region.to_owned(),
        availability_zone: volume.availability_zone.unwrap_or_default(),
        size_gib: volume.size,
    }
}

fn timestamp(date: &DateTime) -> Option<Timestamp> {
    Timestamp::new(date.secs(), i32::try_from(date.subsec_nanos()).ok()?).ok()
}
