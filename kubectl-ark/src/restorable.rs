//! `describe --check`: whether this cluster has what a backup needs to be restored in it. [`compare`] is pure.
//!
//! It looks at what a restore cannot make good: types that are not served, storage classes that claims name, drivers of
//! snapshots. What would become of each object, `restore plan` says.

use crate::cli::ClusterFlags;
use crate::client;
use crate::details;
use crate::options::ReadFrom;
use crate::stored::{Mirror, Source};
use crate::{Surroundings, table::Table};
use ark_job::args::{Args, Command, FetchFile, ShowArgs, ShowFormat};
use ark_job::error::Failure;
use ark_job::exit::Exit;
use ark_job::repository::{Described, find};
use ark_job::volumes::Data;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::storage::v1::{CSIDriver, StorageClass};
use kube::Client;
use kube::api::{Api, ListParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Claims whose storage class is looked up: each is a small read by a command in a pod.
const CLAIMS: usize = 50;
/// Requests for resource lists at once.
const REQUESTS: usize = 8;
/// Claims that are named beside a class.
const NAMED: usize = 3;

/// What a backup needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needed {
    /// `apps/v1/Deployment`
    pub types: BTreeSet<String>,
    /// API groups whose definitions are in the backup.
    pub defined_groups: BTreeSet<String>,
    /// Storage classes, with the claims that name them.
    pub classes: BTreeMap<String, Vec<String>>,
    /// Storage classes that are in the backup.
    pub stored_classes: BTreeSet<String>,
    /// CSI drivers of its snapshots.
    pub drivers: BTreeSet<String>,
    /// Claims that were not looked at.
    pub unseen_claims: usize,
}

/// What a cluster has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Here {
    /// `apps/v1/Deployment`
    pub types: BTreeSet<String>,
    /// Storage classes.
    pub classes: BTreeSet<String>,
    /// CSI drivers.
    pub drivers: BTreeSet<String>,
    /// Whether it serves snapshots of CSI drivers.
    pub snapshots: bool,
    /// CSI drivers that have a VolumeSnapshotClass, if it may be known.
    pub snapshot_classes: Option<BTreeSet<String>>,
}

/// Reads what a backup needs: from its list of names, its marker, and its claims.
///
/// # Errors
/// When it cannot be read.
pub async fn needed(
    source: &Source<'_>,
    mirror: &Mirror,
    from: &ReadFrom,
    cluster: &ClusterFlags,
    surroundings: &Surroundings,
) -> Result<Needed, Failure> {
    let list = mirror.path(FetchFile::ResourceList);
    let unreadable = |error: std::io::Error| {
        Failure::new(Exit::Failed, format!("reading the resource list: {error}"))
    };
    let all = |title: &str| details::names(&list, title, usize::MAX).map(|(names, _)| names);
    let definition = "apiextensions.k8s.io/v1/CustomResourceDefinition";
    let definitions = all(definition).map_err(unreadable)?;
    let stored = all("storage.k8s.io/v1/StorageClass").map_err(unreadable)?;
    let (claims, count) =
        details::names(&list, "v1/PersistentVolumeClaim", CLAIMS).map_err(unreadable)?;
    let mut needed = Needed {
        types: details::types(&list).map_err(unreadable)?,
        defined_groups: definitions
            .iter()
            .filter_map(|name| Some(name.split_once('.')?.1.to_owned()))
            .collect(),
        stored_classes: stored.into_iter().collect(),
        unseen_claims: count - claims.len(),
        ..Needed::default()
    };
    let backup = source.backup();
    for claim in claims {
        let Some((namespace, name)) = claim.split_once('/') else {
            continue;
        };
        let args = Args {
            namespace: cluster.namespace.clone(),
            command: Command::Show(ShowArgs {
                backup: backup.to_owned(),
                object: format!("{namespace}/persistentvolumeclaims/{name}"),
                storage: from.storage.clone(),
                all_fields: true,
                output: ShowFormat::Json,
            }),
        };
        let json = source.object(&args, &surroundings.temporary).await?;
        let object: Value = serde_json::from_slice(&json).map_err(|error| {
            Failure::new(
                Exit::Integrity,
                format!("claim {claim} of backup {backup}: {error}"),
            )
        })?;
        if let Some(class) = class_of(&object) {
            needed.classes.entry(class).or_default().push(claim);
        }
    }
    if let Described::Ours(marker) = find(mirror.store(), backup).await?.described {
        let drivers = marker
            .commit
            .volumes
            .iter()
            .filter_map(|volume| match &volume.data {
                Data::Csi(snapshot) => Some(snapshot.driver.clone()),
                _ => None,
            });
        needed.drivers = drivers.collect();
    }
    Ok(needed)
}

/// The storage class of a claim, in the field or in the old annotation.
fn class_of(claim: &Value) -> Option<String> {
    let old = "/metadata/annotations/volume.beta.kubernetes.io~1storage-class";
    let class = claim
        .pointer("/spec/storageClassName")
        .or_else(|| claim.pointer(old))?;
    class
        .as_str()
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
}

/// Asks the cluster, and says what it lacks.
///
/// # Errors
/// When it cannot be asked.
pub async fn check(client: &Client, needed: &Needed) -> Result<String, Failure> {
    Ok(compare(needed, &look(client, needed).await?))
}

async fn look(client: &Client, needed: &Needed) -> Result<Here, Failure> {
    let versions: BTreeSet<&str> = needed
        .types
        .iter()
        .filter_map(|title| Some(title.rsplit_once('/')?.0))
        .collect();
    let kinds = futures::stream::iter(versions)
        .map(|version| async move {
            let listed = match version.contains('/') {
                true => client.list_api_group_resources(version).await,
                false => client.list_core_api_resources(version).await,
            };
            match listed {
                Ok(list) => Ok(list
                    .resources
                    .into_iter()
                    .map(|resource| format!("{version}/{}", resource.kind))
                    .collect::<Vec<_>>()),
                Err(error) if client::is_not_found(&error) => Ok(Vec::new()),
                Err(error) => Err(client::failure(
                    &error,
                    &format!("asking which types of {version} are served"),
                )),
            }
        })
        .buffer_unordered(REQUESTS)
        .try_concat();
    let classes: Api<StorageClass> = Api::all(client.clone());
    let drivers: Api<CSIDriver> = Api::all(client.clone());
    let all = ListParams::default();
    let (types, classes, drivers, snapshots, snapshot_classes) = futures::join!(
        kinds,
        classes.list_metadata(&all),
        drivers.list_metadata(&all),
        client.list_api_group_resources("snapshot.storage.k8s.io/v1"),
        snapshot_classes(client, needed),
    );
    let classes = classes.map_err(|error| client::failure(&error, "listing storage classes"))?;
    let drivers = drivers.map_err(|error| client::failure(&error, "listing CSI drivers"))?;
    Ok(Here {
        types: types?.into_iter().collect(),
        classes: classes
            .into_iter()
            .filter_map(|one| one.metadata.name)
            .collect(),
        drivers: drivers
            .into_iter()
            .filter_map(|one| one.metadata.name)
            .collect(),
        snapshots: snapshots.is_ok(),
        snapshot_classes,
    })
}

/// The drivers that have a VolumeSnapshotClass. Whoever may not list these learns less: a restore does without them.
async fn snapshot_classes(client: &Client, needed: &Needed) -> Option<BTreeSet<String>> {
    if needed.drivers.is_empty() {
        return None;
    }
    let kind = GroupVersionKind::gvk("snapshot.storage.k8s.io", "v1", "VolumeSnapshotClass");
    let plural = ApiResource::from_gvk_with_plural(&kind, "volumesnapshotclasses");
    let classes: Api<DynamicObject> = Api::all_with(client.clone(), &plural);
    let classes = classes.list(&ListParams::default()).await.ok()?;
    let driver = |class: &DynamicObject| class.data["driver"].as_str().map(str::to_owned);
    Some(classes.iter().filter_map(driver).collect())
}

/// What a cluster lacks, as a text.
pub fn compare(needed: &Needed, here: &Here) -> String {
    let mut rows: Vec<[String; 3]> = Vec::new();
    for title in needed.types.difference(&here.types) {
        let group = title.rsplit('/').nth(2).unwrap_or_default();
        // The restore makes it before its objects.
        if needed.defined_groups.contains(group) {
            continue;
        }
        rows.push([
            "type".into(),
            title.clone(),
            "this cluster does not serve it: install what defines it, or --exclude-resources"
                .into(),
        ]);
    }
    for (class, claims) in &needed.classes {
        if here.classes.contains(class) || needed.stored_classes.contains(class) {
            continue;
        }
        let more = claims.len().saturating_sub(NAMED);
        let named = claims[..claims.len().min(NAMED)].join(", ");
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        rows.push([
            "storage class".into(),
            class.clone(),
            format!("{named}{more}: --storage-class-mappings {class}:ANOTHER"),
        ]);
    }
    for driver in needed.drivers.difference(&here.drivers) {
        rows.push([
            "CSI driver".into(),
            driver.clone(),
            "its snapshots cannot be used without it".into(),
        ]);
    }
    if !needed.drivers.is_empty() && !here.snapshots {
        rows.push([
            "API".into(),
            "snapshot.storage.k8s.io/v1".into(),
            "snapshots of CSI drivers need it: install the snapshot controller".into(),
        ]);
    }
    let mut text = match rows.len() {
        0 => "\nRestorable here:    yes, as far as types, storage classes and drivers go\n"
            .to_owned(),
        _ => "\nRestorable here:    not all of it; missing:\n".to_owned(),
    };
    if !rows.is_empty() {
        let mut table = Table::new(&["WHAT", "NAME", "WHY"]);
        for row in rows {
            table.push(row.to_vec());
        }
        let table = table.render(true);
        text.extend(table.lines().map(|line| format!("  {line}\n")));
    }
    // Where the driver or the API is missing, that comes first.
    let classes = here.snapshot_classes.as_ref().filter(|_| here.snapshots);
    for driver in needed.drivers.intersection(&here.drivers) {
        if classes.is_some_and(|classes| !classes.contains(driver)) {
            text.push_str(&format!(
                "  (no VolumeSnapshotClass of driver {driver}: a restore needs none, but backups here could take no snapshots)\n"
            ));
        }
    }
    if needed.unseen_claims > 0 {
        text.push_str(&format!(
            "  (storage classes: of the first {CLAIMS} claims; {} more were not looked at)\n",
            needed.unseen_claims
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(ToString::to_string).collect()
    }

    fn here() -> Here {
        Here {
            types: set(&["v1/Pod", "apps/v1/Deployment"]),
            classes: set(&["standard"]),
            drivers: set(&["ebs.csi.aws.com"]),
            snapshots: true,
            snapshot_classes: Some(set(&["ebs.csi.aws.com"])),
        }
    }

    #[test]
    fn what_is_there_is_not_missing() {
        let needed = Needed {
            types: set(&["v1/Pod", "example.org/v1/Widget"]),
            defined_groups: set(&["example.org"]),
            classes: [
                ("standard".to_owned(), vec!["a/x".to_owned()]),
                ("own".to_owned(), vec!["a/y".to_owned()]),
            ]
            .into(),
            stored_classes: set(&["own"]),
            drivers: set(&["ebs.csi.aws.com"]),
            unseen_claims: 0,
        };
        let text = compare(&needed, &here());
        assert!(text.contains("Restorable here:    yes") && !text.contains("VolumeSnapshotClass"));
        let without = |snapshot_classes, snapshots| {
            compare(
                &needed,
                &Here {
                    snapshot_classes,
                    snapshots,
                    ..here()
                },
            )
        };
        let text = without(Some(set(&["another"])), true);
        assert!(
            text.contains("Restorable here:    yes")
                && text.contains(
                    "no VolumeSnapshotClass of driver ebs.csi.aws.com: a restore needs none"
                ),
            "{text}"
        );
        for text in [without(None, true), without(Some(set(&[])), false)] {
            assert!(!text.contains("VolumeSnapshotClass"), "{text}");
        }
    }

    #[test]
    fn what_is_missing_is_named_with_what_to_do() {
        let claims = ["a/1", "a/2", "a/3", "a/4"].map(str::to_owned).to_vec();
        let needed = Needed {
            types: set(&["apps/v1beta1/Deployment", "other.org/v1/Thing"]),
            defined_groups: set(&["example.org"]),
            classes: [("gp2".to_owned(), claims)].into(),
            drivers: set(&["files.example"]),
            unseen_claims: 7,
            ..Needed::default()
        };
        let text = compare(
            &needed,
            &Here {
                snapshots: false,
                ..here()
            },
        );
        for line in [
            "not all of it; missing:",
            "apps/v1beta1/Deployment",
            "other.org/v1/Thing",
            "a/1, a/2, a/3 and 1 more: --storage-class-mappings gp2:ANOTHER",
            "CSI driver      files.example",
            "snapshot.storage.k8s.io/v1",
            "7 more were not looked at",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }

    #[test]
    fn a_claim_names_its_class_in_the_field_or_as_it_once_did() {
        assert_eq!(
            class_of(&json!({"spec": {"storageClassName": "fast"}})),
            Some("fast".into())
        );
        assert_eq!(class_of(&json!({"spec": {"storageClassName": ""}})), None);
        let old = json!({"metadata": {"annotations": {"volume.beta.kubernetes.io/storage-class": "old"}}, "spec": {}});
        assert_eq!(class_of(&old), Some("old".into()));
    }
}
