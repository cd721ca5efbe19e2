//! Whether a backup is all there, by what its description says of it.

use super::snapshots::deleting;
use super::{RemovalError, Target, target};
use crate::api::{BackupPhase, BackupStatus};
use crate::foreign::{Description, Origin};
use crate::layout::BackupKeys;
use crate::marker::{FileDigest, MAX_LENGTH, Marker, MarkerError};
use crate::store::{ObjectMeta, Store, StoreError};
use crate::tombstone::Cause;
use crate::velero_backup::velero_backup;
use crate::volumes::{VolumeRecord, snapshots};
use bytes::Bytes;
use sha2::{Digest, Sha256};

/// Files up to this length, bytes, are read and compared with their digest; of longer ones the length must do.
const SMALL: u64 = 1 << 20;

/// How closely it is looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// At the listing and the description alone.
    Listed,
    /// And at the digests of footer and small files.
    Read,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Examined {
    /// What is in storage.
    pub target: Target,
    /// Who made it, if that can be told.
    pub origin: Option<Origin>,
    /// What came of it, by its description.
    pub status: Option<BackupStatus>,
    /// What is missing or damaged, as sentences; nothing of a backup that is whole, but for `velero_backup`.
    pub missing: Vec<String>,
    /// The snapshots that it records, as far as its description says; others' are known only by [`super::snapshots::recorded`].
    pub snapshots: Vec<VolumeRecord>,
    /// Whether the deletion of snapshots has begun: then it must be asked which of them are left.
    pub snapshots_begun: bool,
    /// What must be written as `velero-backup.json` for the backup to be whole. Known only by [`Depth::Read`].
    pub velero_backup: Option<Bytes>,
}

impl Examined {
    /// That nobody can say by the files alone whether its snapshots are all there.
    pub fn doubt(&self) -> Option<String> {
        self.snapshots_begun.then(|| {
            "the deletion of its snapshots has begun; `undelete` finds out whether one is gone"
                .to_owned()
        })
    }

    /// Its phase.
    pub fn phase(&self) -> Option<BackupPhase> {
        self.status.as_ref().and_then(|status| status.phase)
    }
}

/// Looks at the backup called `name`, being deleted or not.
///
/// # Errors
/// When the store fails; whatever is wrong with the backup is in the answer.
pub async fn examine(store: &Store, name: &str, depth: Depth) -> Result<Examined, RemovalError> {
    let target = Target::look(store, name).await?;
    let mut examined = Examined {
        target,
        origin: None,
        status: None,
        missing: Vec::new(),
        snapshots: Vec::new(),
        snapshots_begun: false,
        velero_backup: None,
    };
    if let Some(begun) = deleting(store, name).await? {
        // As its tombstone, what a sweep has left over a marker is void: it looks for that again before anything goes.
        let is_void = begun.cause == Cause::Sweep && examined.target.marker().is_some();
        examined.snapshots_begun = !is_void;
        examined.snapshots = begun.volumes;
    }
    let Some(described) = examined.target.description().cloned() else {
        examined
            .missing
            .push("what describes it is gone".to_owned());
        return Ok(examined);
    };
    let Some(json) = get(store, &described).await? else {
        examined
            .missing
            .push(format!("{} is gone, or too long", described.key));
        return Ok(examined);
    };
    if examined.target.marker().is_some() && !examined.target.is_original() {
        match Marker::from_json(&json) {
            Ok(marker) => {
                ours(store, name, depth, &marker, &mut examined).await?;
                return Ok(examined);
            }
            // The file of that name was original Ark's first.
            Err(MarkerError::Foreign) => {}
            Err(error) => {
                let why = crate::error::chain(&error);
                examined.missing.push(format!("{}: {why}", described.key));
                return Ok(examined);
            }
        }
    }
    foreign(name, &described, &json, &mut examined);
    Ok(examined)
}

async fn ours(
    store: &Store,
    name: &str,
    depth: Depth,
    marker: &Marker,
    examined: &mut Examined,
) -> Result<(), RemovalError> {
    examined.origin = Some(Origin::Ark);
    examined.status = Some(marker.status.clone());
    examined
        .snapshots
        .clone_from(&snapshots(&marker.commit.volumes));
    let keys = BackupKeys::new(name);
    let mut missing = Vec::new();
    if marker.metadata.name != name {
        let other = &marker.metadata.name;
        missing.push(format!("{} is that of {other:?}", keys.marker()));
    }
    let recorded = &marker.commit.archive;
    let archive = examined.target.archive();
    let mut rebuilt = None;
    match archive {
        None => missing.push(format!("{} is gone", keys.archive())),
        Some(archive) if archive.length != recorded.length => missing.push(format!(
            "{} has {} bytes, not the recorded {}",
            archive.key, archive.length, recorded.length
        )),
        Some(archive) if depth == Depth::Read => {
            let found = target::footer(store, archive).await?;
            match found.filter(|(_, place)| hex::encode(place.sha256) == recorded.footer_sha256) {
                Some((footer, _)) => rebuilt = Some(velero_backup(&footer)),
                None => missing.push(format!(
                    "{} is not the archive that the marker describes",
                    archive.key
                )),
            }
        }
        Some(_) => {}
    }
    let velero = keys.velero_backup();
    for (file, digest) in &marker.commit.files {
        let key = format!("{}{file}", keys.directory());
        let listed = examined.target.objects.iter().find(|o| o.key == key);
        match listed {
            None if key == velero => match &rebuilt {
                Some(json) if matches(json, digest) => {
                    examined.velero_backup = Some(json.clone().into());
                }
                Some(_) => missing.push(format!(
                    "{key} is gone, and this version of ark does not make the same one again"
                )),
                // Not looked at so closely, or the archive is missing, which has been said.
                None => {}
            },
            None => missing.push(format!("{key} is gone")),
            Some(object) if object.length != digest.length => missing.push(format!(
                "{key} has {} bytes, not the recorded {}",
                object.length, digest.length
            )),
            Some(object) if depth == Depth::Read && object.length <= SMALL => {
                let content = get(store, object).await?.unwrap_or_default();
                if !matches(&content, digest) {
                    missing.push(format!("{key} does not have the recorded digest"));
                }
            }
            Some(_) => {}
        }
    }
    examined.missing = missing;
    Ok(())
}

fn matches(content: &[u8], digest: &FileDigest) -> bool {
    content.len() as u64 == digest.length && hex::encode(Sha256::digest(content)) == digest.sha256
}

/// Others' backups have no digests; but of one that is being deleted, the description of Velero's is what goes first, and
/// of the files of original Ark's, the archive.
fn foreign(name: &str, described: &ObjectMeta, json: &[u8], examined: &mut Examined) {
    let description = match Description::from_json(json, name) {
        Ok(description) => description,
        Err(error) => {
            let why = crate::error::chain(&error);
            examined.missing.push(format!("{}: {why}", described.key));
            return;
        }
    };
    let missing = &mut examined.missing;
    if description.is_ours {
        missing.push("it has no marker: it was never committed".to_owned());
    } else if !description.is_complete() {
        missing.push(format!("its phase is {:?}", description.phase));
    }
    if examined.target.archive().is_none() {
        missing.push("its archive is gone".to_owned());
    }
    examined.origin = Some(if description.is_ours {
        Origin::Ark
    } else {
        description.origin
    });
    examined.status = Some(description.status);
}

async fn get(store: &Store, object: &ObjectMeta) -> Result<Option<Bytes>, StoreError> {
    match store.get(&object.key, MAX_LENGTH).await {
        Err(StoreError::TooLong { .. }) => Ok(None),
        found => found,
    }
}
