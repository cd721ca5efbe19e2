//! What snapshots of volumes need: a class for each CSI driver, permissions of EC2 for EBS.

use super::{Check, within};
use crate::cluster::{Cluster, ClusterError};
use crate::volumes::EBS_DRIVER;
use crate::volumes::csi::Classes;
use crate::volumes::disks::{DiskAccess, DiskError, region_of, volume_id};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// PersistentVolumes of a page.
const PAGE: u32 = 500;
/// Where EC2 says which zone a volume is in.
const ZONES: [&str; 2] = [
    "topology.ebs.csi.aws.com/zone",
    "topology.kubernetes.io/zone",
];

/// The volumes of the cluster, as far as snapshots of them go.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// How many each CSI driver has, without EBS.
    drivers: BTreeMap<String, usize>,
    /// How many are of EBS.
    ebs: usize,
    /// Id and region of one of those; the region may be empty.
    example: Option<(String, String)>,
    /// Of which nobody takes snapshots.
    others: usize,
}

impl Found {
    fn add(&mut self, volume: &Value) {
        let text = |pointer: &str| volume.pointer(pointer).and_then(Value::as_str);
        let driver = text("/spec/csi/driver");
        let handle = match driver {
            Some(EBS_DRIVER) => text("/spec/csi/volumeHandle"),
            _ => text("/spec/awsElasticBlockStore/volumeID"),
        };
        match (driver, handle.and_then(volume_id)) {
            (Some(EBS_DRIVER) | None, Some(id)) => {
                self.ebs += 1;
                let zone = zone(volume).unwrap_or_default();
                self.example
                    .get_or_insert_with(|| (id.to_owned(), region_of(&zone).to_owned()));
            }
            (Some(driver), _) => *self.drivers.entry(driver.to_owned()).or_default() += 1,
            (None, _) => self.others += 1,
        }
    }
}

fn zone(volume: &Value) -> Option<String> {
    let terms = volume
        .pointer("/spec/nodeAffinity/required/nodeSelectorTerms")?
        .as_array()?;
    let mut expressions = terms
        .iter()
        .filter_map(|term| term["matchExpressions"].as_array())
        .flatten();
    let found = expressions.find(|one| one["key"].as_str().is_some_and(|key| ZONES.contains(&key)));
    Some(found?["values"][0].as_str()?.to_owned())
}

async fn find(cluster: &Cluster) -> Result<Found, ClusterError> {
    let mut found = Found::default();
    let mut next = String::new();
    loop {
        let path = format!(
            "/api/v1/persistentvolumes?limit={PAGE}&continue={}",
            crate::cluster::encode(&next)
        );
        let page: Value = cluster.get(&path, "listing persistentVolumes").await?;
        let items = page["items"].as_array().into_iter().flatten();
        items.for_each(|volume| found.add(volume));
        next = page["metadata"]["continue"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        if next.is_empty() {
            return Ok(found);
        }
    }
}

/// Whether there is a class for each driver that has volumes; and the volumes, if they could be listed.
pub async fn snapshot_classes(cluster: &Cluster) -> (Check, Option<Found>) {
    const NAME: &str = "snapshot-classes";
    let asking = async {
        let found = find(cluster).await?;
        let classes = match found.drivers.is_empty() {
            true => Classes::default(),
            false => Classes::read(cluster).await?,
        };
        Ok::<_, ClusterError>((found, classes))
    };
    match within(asking).await {
        Ok(Ok((found, classes))) => (judge_classes(NAME, &found, &classes), Some(found)),
        Ok(Err(error)) => (Check::failed(NAME, error.full_text()), None),
        Err(why) => (Check::failed(NAME, why), None),
    }
}

fn judge_classes(name: &str, found: &Found, classes: &Classes) -> Check {
    if found.drivers.is_empty() {
        let also = match found.others {
            0 => String::new(),
            others => format!("; of {others} volumes nobody takes snapshots"),
        };
        return Check::ok(name, format!("no volumes of CSI drivers{also}"));
    }
    let mut lines = Vec::new();
    let mut wrong = BTreeSet::new();
    for (driver, volumes) in &found.drivers {
        match classes.choose(driver, None) {
            Ok(class) => {
                // Either will do: Ark says itself what becomes of its snapshots.
                let policy = match class.deletion_policy.as_str() {
                    "" => String::new(),
                    policy => format!(", deletionPolicy {policy}"),
                };
                lines.push(format!("{driver} ({volumes}): {}{policy}", class.name));
            }
            Err(why) => {
                wrong.insert(driver.as_str());
                lines.push(format!("{driver} ({volumes}): {why}"));
            }
        }
    }
    let detail = lines.join("; ");
    if wrong.is_empty() {
        return Check::ok(name, detail);
    }
    // Backups warn of each such volume and go on.
    Check::warning(name, detail).fix(format!(
        "`kubectl get volumesnapshotclasses`: create or label one for {} (docs/volumes.md)",
        wrong.into_iter().collect::<Vec<_>>().join(", ")
    ))
}

/// Whether EC2 lets us take snapshots and make volumes, if the cluster has any of EBS, or it was `asked` for.
pub async fn ec2(access: Option<&DiskAccess>, found: Option<&Found>, asked: bool) -> Check {
    const NAME: &str = "ec2";
    let (ebs, example) = match found {
        Some(found) => (found.ebs, found.example.clone()),
        None if asked => (0, None),
        None => return Check::skipped(NAME, "whether there are volumes of EBS is not known"),
    };
    if ebs == 0 && !asked {
        return Check::skipped(NAME, "no volumes of EBS");
    }
    let Some(access) = access.filter(|access| access.is_here()) else {
        let detail = format!("{ebs} volumes of EBS: only a Job reaches EC2, not this process");
        return Check::skipped(NAME, detail);
    };
    let (id, region) = example.unwrap_or_default();
    let asking = async { access.disks().await?.permissions(&region, &id).await };
    let permissions = match within(asking).await {
        Ok(Ok(permissions)) => permissions,
        Ok(Err(error)) => return not_reached(NAME, &error),
        Err(why) => return Check::failed(NAME, why),
    };
    let refused: Vec<_> = permissions
        .iter()
        .filter_map(|one| Some((one.action, one.refused.as_deref()?)))
        .collect();
    let Some((_, why)) = refused.first() else {
        let detail = format!(
            "{} actions are allowed; {ebs} volumes of EBS",
            permissions.len()
        );
        return Check::ok(NAME, detail);
    };
    let actions: Vec<&str> = refused.iter().map(|(action, _)| *action).collect();
    let actions = actions.join(", ");
    Check::failed(NAME, format!("not allowed: {actions} ({why})"))
        .fix(format!("allow {actions}: the policy is in docs/volumes.md"))
}

fn not_reached(name: &str, error: &DiskError) -> Check {
    Check::failed(name, crate::error::chain(error)).fix(
        "give pods credentials and a region (AWS_REGION), and let them reach EC2: docs/volumes.md",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;
    use crate::volumes::csi::Class;
    use serde_json::json;

    #[test]
    fn volumes_are_counted_by_who_takes_their_snapshots() {
        let mut found = Found::default();
        for spec in [
            json!({"csi": {"driver": "disk.csi", "volumeHandle": "a"}}),
            json!({"csi": {"driver": "ebs.csi.aws.com", "volumeHandle": "vol-1"}, "nodeAffinity": {"required": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In",
                "values": ["eu-central-1b"]}]}]}}}),
            json!({"awsElasticBlockStore": {"volumeID": "aws://eu-central-1b/vol-2"}}),
            json!({"nfs": {}}),
        ] {
            found.add(&json!({"spec": spec}));
        }
        let expected = Found {
            drivers: [("disk.csi".to_owned(), 1)].into(),
            ebs: 2,
            example: Some(("vol-1".into(), "eu-central-1".into())),
            others: 1,
        };
        assert_eq!(found, expected);
        let none = judge_classes("c", &found, &Classes::default());
        assert_eq!(none.result, Verdict::Warning);
        assert!(none.fix.unwrap().contains("disk.csi"));
        let class = Class {
            name: "fast".into(),
            driver: "disk.csi".into(),
            labelled: false,
            is_default: false,
            deletion_policy: "Delete".into(),
        };
        let one = judge_classes("c", &found, &Classes(vec![class]));
        assert_eq!(one.result, Verdict::Ok);
        assert_eq!(one.detail, "disk.csi (1): fast, deletionPolicy Delete");
    }
}
