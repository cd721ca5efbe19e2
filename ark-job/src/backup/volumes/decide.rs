//! What is done with a volume: a snapshot of which kind, or none, and why. Pure.

use super::find::{CsiSource, Found, Source};
use crate::volumes::csi::Classes;
use crate::volumes::disks::region_of;
use crate::volumes::policy::{Action, Policies};
use crate::volumes::{ClaimName, SKIP_ANNOTATION};

/// What says whether a snapshot is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// `--snapshot-volumes`.
    pub snapshot_volumes: Option<bool>,
    /// Resource policies, and the ConfigMap that they are in.
    pub policies: Option<(&'a str, &'a Policies)>,
}

/// How much a snapshot is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// It was asked for: that there is none is an error.
    Asked,
    /// If there is a way.
    IfPossible,
    /// Not at all; why.
    Not(String),
}

/// How a snapshot is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// By the cloud.
    Disk {
        /// Of the volume; empty for the configured one.
        region: String,
        /// Of the volume; empty when nobody says.
        zone: String,
        /// `vol-…`
        volume_id: String,
    },
    /// By a CSI driver.
    Csi {
        /// The claim.
        claim: ClaimName,
        /// The driver.
        driver: String,
        /// The volumeSnapshotClass.
        class: String,
    },
}

/// Why there is no way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoWay {
    /// A sentence.
    pub why: String,
    /// Whether something is wrong, which makes it an error: there would be a way.
    pub is_failure: bool,
}

impl NoWay {
    fn none(why: impl Into<String>) -> NoWay {
        let why = why.into();
        NoWay {
            why,
            is_failure: false,
        }
    }
}

/// Whether a snapshot of `volume` is wanted: an annotation on it decides, then policies (alone, as Velero's do), then
/// the flag.
pub fn wish(volume: &Found, rules: &Rules<'_>) -> Wish {
    if let Some(object) = &volume.opted_out_by {
        return Wish::Not(format!(
            "annotation {SKIP_ANNOTATION} of {object} asks for none"
        ));
    }
    if let Some((name, policies)) = rules.policies {
        match policies.action(&volume.facts) {
            Some(Action::Skip) => {
                return Wish::Not(format!("the resource policies in ConfigMap {name} skip it"));
            }
            Some(Action::Snapshot) => return Wish::Asked,
            None => {}
        }
    }
    match rules.snapshot_volumes {
        Some(true) => Wish::Asked,
        None => Wish::IfPossible,
        Some(false) => Wish::Not("no snapshots were asked for (--snapshot-volumes=false)".into()),
    }
}

/// How a volume is snapshotted: one of EBS by the cloud if that can be reached, any other of CSI by its driver.
///
/// # Errors
/// Why there is no way.
pub fn way(
    volume: &Found,
    disks: Result<(), NoWay>,
    classes: Result<&Classes, NoWay>,
) -> Result<Way, NoWay> {
    match &volume.source {
        Source::Ebs {
            volume_id,
            zone,
            csi,
        } => match (disks, csi) {
            (Ok(()), _) => Ok(Way::Disk {
                region: region_of(zone).to_owned(),
                zone: zone.clone(),
                volume_id: volume_id.clone().ok_or_else(|| NoWay {
                    why: "it does not say which volume of EBS it is (vol-…)".into(),
                    is_failure: true,
                })?,
            }),
            // What keeps from the better way is the reason when there is no other.
            (Err(no_disks), Some(csi)) => by_driver(csi, classes).map_err(|no_class| NoWay {
                why: format!("{}; {}", no_disks.why, no_class.why),
                is_failure: no_disks.is_failure || no_class.is_failure,
            }),
            (Err(no_disks), None) => Err(no_disks),
        },
        Source::Csi(csi) => by_driver(csi, classes),
        Source::Other(volume_type) => Err(NoWay::none(match volume_type.as_str() {
            "" => "there is no way to snapshot it".to_owned(),
            volume_type => format!("there is no way to snapshot volumes of type {volume_type}"),
        })),
    }
}

fn by_driver(csi: &CsiSource, classes: Result<&Classes, NoWay>) -> Result<Way, NoWay> {
    let claim = csi.claim.clone().map_err(NoWay::none)?;
    let class = classes?
        .choose(&csi.driver, csi.class.as_deref())
        .map_err(|why| NoWay {
            why,
            // Whoever names a class asks for it.
            is_failure: csi.class.is_some(),
        })?;
    Ok(Way::Csi {
        claim,
        driver: csi.driver.clone(),
        class: class.name.clone(),
    })
}

#[cfg(test)]
mod tests;
