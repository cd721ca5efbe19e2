//! Which volumeSnapshotClass a claim is snapshotted with.

use super::objects::{Api, annotation, classes_type, labels_of, name_of, text};
use crate::cluster::{Cluster, ClusterError};
use serde_json::Value;

/// The volumeSnapshotClasses of the cluster: which driver, which labels and annotations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Classes(pub Vec<Class>);

/// A volumeSnapshotClass, or volumeGroupSnapshotClass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// Its name.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// Whether it carries Velero's label `velero.io/csi-volumesnapshot-class` or Ark's `ark.heptio.com/snapshot-class`.
    pub labelled: bool,
    /// Whether it is annotated as the driver's default (`snapshot.storage.kubernetes.io/is-default-class`).
    pub is_default: bool,
    /// What becomes of snapshots when their objects go, `Delete` or `Retain`; or empty.
    pub deletion_policy: String,
}

/// Annotation on a claim: the volumeSnapshotClass to use. Velero's twin is [`VELERO_CLASS_ANNOTATION`].
pub const CLASS_ANNOTATION: &str = "ark.heptio.com/csi-volumesnapshot-class";
/// Velero's annotation on a claim: the volumeSnapshotClass to use.
pub const VELERO_CLASS_ANNOTATION: &str = "velero.io/csi-volumesnapshot-class";
/// Label on a class (any value): this one, of all of its driver. Velero's twin is [`VELERO_CLASS_LABEL`].
pub const CLASS_LABEL: &str = "ark.heptio.com/snapshot-class";
/// Velero's label on a volumeSnapshotClass (any value): this one, of all of its driver.
pub const VELERO_CLASS_LABEL: &str = "velero.io/csi-volumesnapshot-class";
/// Velero's label on a volumeGroupSnapshotClass (any value).
const VELERO_GROUP_CLASS_LABEL: &str = "velero.io/csi-volumegroupsnapshot-class";
const DEFAULT_ANNOTATIONS: [&str; 2] = [
    "snapshot.storage.kubernetes.io/is-default-class",
    "groupsnapshot.storage.kubernetes.io/is-default-class",
];

impl Classes {
    /// Reads them; none when the cluster does not serve them.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn read(cluster: &Cluster) -> Result<Classes, ClusterError> {
        let objects = Api::new(cluster).list(&classes_type(), None, None).await?;
        Ok(Classes::of(&objects))
    }

    /// Those that the objects describe, by name.
    pub(super) fn of(objects: &[Value]) -> Classes {
        let mut classes: Vec<Class> = objects.iter().filter_map(Class::of).collect();
        classes.sort_by(|a, b| a.name.cmp(&b.name));
        Classes(classes)
    }

    /// The class for a claim of `driver` that is annotated with `annotated`: that one if it is the driver's, else the
    /// labelled, the default, the only one of the driver (Velero's order). Of several that are labelled, or default, the
    /// first by name, so that every backup takes the same.
    ///
    /// # Errors
    /// A sentence that says why there is none, and what to do.
    pub fn choose(&self, driver: &str, annotated: Option<&str>) -> Result<&Class, String> {
        let of_driver = || self.0.iter().filter(|class| class.driver == driver);
        let chosen = of_driver()
            .find(|class| Some(&*class.name) == annotated)
            .or_else(|| of_driver().find(|class| class.labelled))
            .or_else(|| of_driver().find(|class| class.is_default));
        if let Some(class) = chosen {
            return Ok(class);
        }
        let all: Vec<&Class> = of_driver().collect();
        match all[..] {
            [only] => Ok(only),
            [] => Err(format!(
                "there is no volumeSnapshotClass of driver {driver}: create one"
            )),
            _ => {
                let names: Vec<&str> = all.iter().map(|class| &*class.name).collect();
                Err(format!(
                    "driver {driver} has several volumeSnapshotClasses ({}) and none is chosen: label one with \
                     {CLASS_LABEL}=true, or annotate the claim with {CLASS_ANNOTATION}",
                    names.join(", ")
                ))
            }
        }
    }
}

impl Class {
    fn of(object: &Value) -> Option<Class> {
        let labels = labels_of(object);
        let labels_that_choose = [CLASS_LABEL, VELERO_CLASS_LABEL, VELERO_GROUP_CLASS_LABEL];
        Some(Class {
            name: name_of(object).to_owned(),
            driver: text(object, "/driver")?.to_owned(),
            labelled: labels_that_choose
                .iter()
                .any(|label| labels.contains_key(*label)),
            is_default: DEFAULT_ANNOTATIONS
                .iter()
                .any(|key| annotation(object, key) == Some("true")),
            deletion_policy: text(object, "/deletionPolicy")
                .unwrap_or_default()
                .to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn class(name: &str, driver: &str) -> Value {
        json!({"metadata": {"name": name}, "driver": driver})
    }

    fn labelled(name: &str, driver: &str, label: &str) -> Value {
        json!({"metadata": {"name": name, "labels": {label: "whatever"}}, "driver": driver})
    }

    fn default(name: &str, driver: &str) -> Value {
        let annotations = json!({"snapshot.storage.kubernetes.io/is-default-class": "true"});
        json!({"metadata": {"name": name, "annotations": annotations}, "driver": driver})
    }

    fn chosen(objects: &[Value], annotated: Option<&str>) -> Result<String, String> {
        Classes::of(objects)
            .choose("disk", annotated)
            .map(|class| class.name.clone())
    }

    #[test]
    fn the_annotated_class_goes_before_the_labelled_the_default_and_the_only_one() {
        let mut classes = vec![class("a", "disk"), class("other", "files")];
        assert_eq!(chosen(&classes, None).unwrap(), "a");
        classes.push(default("b", "disk"));
        assert_eq!(chosen(&classes, None).unwrap(), "b");
        classes.push(labelled("c", "disk", CLASS_LABEL));
        assert_eq!(chosen(&classes, None).unwrap(), "c");
        assert_eq!(chosen(&classes, Some("a")).unwrap(), "a");
    }

    #[test]
    fn an_annotated_class_that_is_absent_or_another_drivers_falls_through() {
        let classes = [
            class("other", "files"),
            labelled("c", "disk", VELERO_CLASS_LABEL),
        ];
        assert_eq!(chosen(&classes, Some("none")).unwrap(), "c");
        assert_eq!(chosen(&classes, Some("other")).unwrap(), "c");
    }

    #[test]
    fn without_a_class_to_take_the_sentence_says_what_to_do() {
        assert_eq!(
            chosen(&[default("other", "files")], None).unwrap_err(),
            "there is no volumeSnapshotClass of driver disk: create one"
        );
        assert_eq!(
            chosen(&[class("b", "disk"), class("a", "disk")], None).unwrap_err(),
            "driver disk has several volumeSnapshotClasses (a, b) and none is chosen: label one with \
             ark.heptio.com/snapshot-class=true, or annotate the claim with ark.heptio.com/csi-volumesnapshot-class"
        );
    }
}
