//! Which volumes are snapshotted: resource policies, in Velero's format (a ConfigMap with one key, YAML). Pure.
//!
//! The format is that of Velero's `internal/resourcepolicies`. What this program does not do is refused and not passed
//! over: copies of files (`fs-backup`), actions of plugins (`custom`), and choices of resource types, which are flags here.
//! So are names that Velero accepts and that never match anything: a misspelt volume type or phase.

use super::ClaimName;
use super::quantity::Quantity;
use crate::error::Failure;
use crate::exit::Exit;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::collections::BTreeMap;

/// The only version there is.
const VERSION: &str = "v1";

/// The sources of a volume that a policy may name (Velero's list: those of persistentVolumes and those of pods).
const VOLUME_TYPES: [&str; 30] = [
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "gitRepo",
    "glusterfs",
    "hostPath",
    "iscsi",
    "local",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "projected",
    "quobyte",
    "rbd",
    "scaleIO",
    "secret",
    "storageOS",
    "storageos",
    "vsphereVolume",
];

/// The phases of a persistentVolumeClaim.
const CLAIM_PHASES: [&str; 3] = ["Bound", "Pending", "Lost"];

/// What a policy decides by.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VolumeFacts {
    /// Name of the persistentVolume.
    pub persistent_volume: String,
    /// Its claim.
    pub claim: Option<ClaimName>,
    /// Labels of the claim.
    pub claim_labels: BTreeMap<String, String>,
    /// Phase of the claim (`Bound`); empty when there is no claim, or it has none.
    pub claim_phase: String,
    /// Its storage class; empty for none.
    pub storage_class: String,
    /// Its capacity, bytes.
    pub capacity: Option<u128>,
    /// The name of the field of its spec that says what it is: `csi`, `nfs`, `awsElasticBlockStore`, …
    pub volume_type: String,
    /// Driver and attributes, of CSI.
    pub csi: Option<(String, BTreeMap<String, String>)>,
    /// Server and path, of NFS.
    pub nfs: Option<(String, String)>,
}

impl VolumeFacts {
    /// What the objects of a volume and of its claim say.
    pub fn of(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> VolumeFacts {
        let spec = volume.spec.clone().unwrap_or_default();
        let capacity = spec.capacity.as_ref().and_then(|map| map.get("storage"));
        let fields = serde_json::to_value(&spec).unwrap_or_default();
        let volume_type = |name: &&&str| fields.get(**name).is_some_and(|field| !field.is_null());
        VolumeFacts {
            persistent_volume: volume.metadata.name.clone().unwrap_or_default(),
            claim: spec.claim_ref.as_ref().map(|claim| ClaimName {
                namespace: claim.namespace.clone().unwrap_or_default(),
                name: claim.name.clone().unwrap_or_default(),
            }),
            claim_labels: claim
                .and_then(|claim| claim.metadata.labels.clone())
                .unwrap_or_default(),
            claim_phase: claim
                .and_then(|claim| claim.status.as_ref()?.phase.clone())
                .unwrap_or_default(),
            storage_class: spec.storage_class_name.clone().unwrap_or_default(),
            capacity: capacity.and_then(|text| Some(Quantity::parse(&text.0).ok()?.ceil())),
            volume_type: VOLUME_TYPES
                .iter()
                .find(volume_type)
                .map(|name| (*name).to_owned())
                .unwrap_or_default(),
            csi: spec
                .csi
                .map(|csi| (csi.driver, csi.volume_attributes.unwrap_or_default())),
            nfs: spec.nfs.map(|nfs| (nfs.server, nfs.path)),
        }
    }
}

/// What is done with a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A snapshot is taken, whatever `--snapshot-volumes` says.
    Snapshot,
    /// None is taken.
    Skip,
}

/// The policies of a ConfigMap, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policies(Vec<Policy>);

#[derive(Clone, Debug, PartialEq)]
struct Policy {
    conditions: Conditions,
    action: Action,
}

/// All that are there must hold.
#[derive(Clone, Debug, Default, PartialEq)]
struct Conditions {
    /// Least and greatest capacity, bytes, each open if absent.
    capacity: (Option<Quantity>, Option<Quantity>),
    storage_class: Vec<String>,
    nfs: Option<RawNfs>,
    csi: Option<RawCsi>,
    volume_types: Vec<String>,
    claim_labels: BTreeMap<String, String>,
    claim_phases: Vec<String>,
}

/// The policies that the ConfigMap called `name` holds.
///
/// # Errors
/// [`Exit::Usage`], with the place of what is wrong.
pub fn of_config_map(map: &ConfigMap, name: &str) -> Result<Policies, Failure> {
    let flag = "--resource-policies-configmap";
    let data = map.data.iter().flatten().collect::<Vec<_>>();
    let [(key, yaml)] = data[..] else {
        let count = data.len();
        let text = format!(
            "{flag}: ConfigMap {name} has {count} keys; resource policies are in exactly one"
        );
        return Err(Failure::new(Exit::Usage, text).hint(format!(
            "`kubectl create configmap {name} --from-file FILE` makes one with one key"
        )));
    };
    Policies::parse(yaml).map_err(|why| {
        let text = format!("{flag}: ConfigMap {name}, {key}: {why}");
        Failure::new(Exit::Usage, text)
    })
}

/// What the parser says, to stand in a sentence.
fn without_prefix(message: &str) -> String {
    message.trim_start_matches("error: ").to_owned()
}

impl Policies {
    /// Parses the document.
    ///
    /// # Errors
    /// A sentence with the place of what is wrong.
    pub fn parse(yaml: &str) -> Result<Policies, String> {
        let document: RawDocument =
            serde_saphyr::from_str(yaml).map_err(|error| without_prefix(&error.to_string()))?;
        let RawDocument {
            version,
            volume_policies,
            include_exclude_policy,
        } = document;
        if version != VERSION {
            return Err(format!(
                "resource policies of version {version:?} are not known, only {VERSION}"
            ));
        }
        if include_exclude_policy.is_some() {
            return Err(
                "includeExcludePolicy: which resource types are backed up is said by flags: \
                 --include-resources, --exclude-resources, --include-cluster-resources"
                    .into(),
            );
        }
        let policies = volume_policies.into_iter().enumerate();
        let policies = policies.map(|(n, raw)| {
            let place = |why| format!("volumePolicies[{n}].{why}");
            raw.check().map_err(place)
        });
        policies.collect::<Result<_, _>>().map(Policies)
    }

    /// The action of the first policy that matches.
    pub fn action(&self, volume: &VolumeFacts) -> Option<Action> {
        let matching = |policy: &&Policy| policy.conditions.hold(volume);
        self.0.iter().find(matching).map(|policy| policy.action)
    }
}

impl Conditions {
    fn hold(&self, volume: &VolumeFacts) -> bool {
        let Conditions {
            capacity: (least, greatest),
            storage_class,
            nfs,
            csi,
            volume_types,
            claim_labels,
            claim_phases,
        } = self;
        // A volume that does not say its capacity has none, as in Velero.
        let capacity = Quantity::bytes(volume.capacity.unwrap_or_default());
        // Velero writes `storageOS` where the field is `storageos`.
        let is_of_type = |wanted: &String| wanted.eq_ignore_ascii_case(&volume.volume_type);
        least.is_none_or(|least| least <= capacity)
            && greatest.is_none_or(|greatest| capacity <= greatest)
            && is_one_of(storage_class, &volume.storage_class)
            && (volume_types.is_empty() || volume_types.iter().any(is_of_type))
            && is_one_of(claim_phases, &volume.claim_phase)
            && is_subset(claim_labels, &volume.claim_labels)
            && nfs.as_ref().is_none_or(|wanted| wanted.holds(volume))
            && csi.as_ref().is_none_or(|wanted| wanted.holds(volume))
    }
}

/// Whether nothing in particular is wanted, or this.
fn is_one_of(wanted: &[String], found: &str) -> bool {
    wanted.is_empty() || wanted.iter().any(|wanted| wanted == found)
}

fn is_subset(wanted: &BTreeMap<String, String>, found: &BTreeMap<String, String>) -> bool {
    wanted
        .iter()
        .all(|(key, value)| found.get(key) == Some(value))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawDocument {
    #[serde(default)]
    version: String,
    #[serde(default)]
    volume_policies: Vec<RawPolicy>,
    #[serde(default)]
    include_exclude_policy: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPolicy {
    #[serde(default)]
    conditions: RawConditions,
    action: RawAction,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RawConditions {
    capacity: Option<String>,
    storage_class: Vec<String>,
    #[serde(deserialize_with = "given")]
    nfs: Option<Option<RawNfs>>,
    #[serde(deserialize_with = "given")]
    csi: Option<Option<RawCsi>>,
    volume_types: Vec<String>,
    pvc_labels: BTreeMap<String, String>,
    pvc_phase: Vec<String>,
}

/// Tells a key without a value from no key.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    value: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(value).map(Some)
}

/// Any NFS volume, but for what is said.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawNfs {
    server: String,
    path: String,
}

/// Any volume of CSI, but for what is said.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RawCsi {
    driver: String,
    volume_attributes: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAction {
    #[serde(rename = "type")]
    action: String,
    /// For plugins and copies of files; Velero ignores them of the other actions, too.
    #[serde(default, rename = "parameters")]
    _parameters: Option<Value>,
}

impl RawPolicy {
    fn check(self) -> Result<Policy, String> {
        let RawPolicy { conditions, action } = self;
        let conditions = conditions
            .check()
            .map_err(|why| format!("conditions.{why}"))?;
        let action = match action.action.as_str() {
            "snapshot" => Action::Snapshot,
            "skip" => Action::Skip,
            "fs-backup" => {
                return Err(
                    "action.type: fs-backup copies files, which ark does not do: it takes snapshots only (snapshot or \
                     skip)"
                        .into(),
                );
            }
            "custom" => {
                return Err(
                    "action.type: custom is for plugins of Velero's, and ark has none: it takes snapshots only (snapshot \
                     or skip)"
                        .into(),
                );
            }
            other => {
                return Err(format!(
                    "action.type: {other:?} is not known; it is snapshot or skip"
                ));
            }
        };
        Ok(Policy { conditions, action })
    }
}

impl RawConditions {
    fn check(self) -> Result<Conditions, String> {
        let RawConditions {
            capacity,
            storage_class,
            nfs,
            csi,
            volume_types,
            pvc_labels,
            pvc_phase,
        } = self;
        let empty = |field: &str| {
            format!("{field}: it has no value; `{field}: {{}}` is any volume of that kind")
        };
        let capacity = match capacity {
            Some(text) => range(&text).map_err(|why| format!("capacity: {why}"))?,
            None => (None, None),
        };
        let nfs = nfs.map(|nfs| nfs.ok_or_else(|| empty("nfs"))).transpose()?;
        let csi = csi.map(|csi| csi.ok_or_else(|| empty("csi"))).transpose()?;
        if let Some(csi) = &csi
            && csi.driver.is_empty()
            && !csi.volume_attributes.is_empty()
        {
            return Err(
                "csi: volumeAttributes are those of a driver, so driver must be said".into(),
            );
        }
        all_known("volumeTypes", &volume_types, &VOLUME_TYPES)?;
        all_known("pvcPhase", &pvc_phase, &CLAIM_PHASES)?;
        Ok(Conditions {
            capacity,
            storage_class,
            nfs,
            csi,
            volume_types,
            claim_labels: pvc_labels,
            claim_phases: pvc_phase,
        })
    }
}

fn all_known(field: &str, found: &[String], known: &[&str]) -> Result<(), String> {
    match found.iter().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(format!(
            "{field}: {name:?} is not known; there are {}",
            known.join(", ")
        )),
        None => Ok(()),
    }
}

/// Least and greatest capacity: `10Gi,100Gi`; an end that is empty or 0 is open.
fn range(text: &str) -> Result<(Option<Quantity>, Option<Quantity>), String> {
    if text.is_empty() {
        return Ok((None, None));
    }
    let Some((least, greatest)) = text
        .split_once(',')
        .filter(|(_, greatest)| !greatest.contains(','))
    else {
        return Err(format!(
            "{text:?} is not two quantities with a comma between them, such as 10Gi,100Gi"
        ));
    };
    let bound = |text: &str| match text.trim() {
        "" => Ok(None),
        text => Quantity::parse(text).map(|bound| Some(bound).filter(|bound| !bound.is_zero())),
    };
    let (least, greatest) = (bound(least)?, bound(greatest)?);
    if let (Some(least), Some(greatest)) = (least, greatest)
        && least > greatest
    {
        return Err(format!("in {text:?} the lower bound is above the upper"));
    }
    Ok((least, greatest))
}

impl RawNfs {
    fn holds(&self, volume: &VolumeFacts) -> bool {
        volume.nfs.as_ref().is_some_and(|(server, path)| {
            (self.server.is_empty() || self.server == *server)
                && (self.path.is_empty() || self.path == *path)
        })
    }
}

impl RawCsi {
    fn holds(&self, volume: &VolumeFacts) -> bool {
        volume.csi.as_ref().is_some_and(|(driver, attributes)| {
            (self.driver.is_empty() || self.driver == *driver)
                && is_subset(&self.volume_attributes, attributes)
        })
    }
}

#[cfg(test)]
mod tests;
