//! What a backup would hold if it existed: an object that only the other side has is a difference only then. Pure.

use crate::api::BackupSpec;
use crate::archive::footer::{Footer, TypeEntry};
use crate::cluster::discover::ResourceType;
use crate::filter::{Filter, resolve_resources};
use crate::restore::order::NAMESPACES;
use crate::selector::AnyOf;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// What was asked of a backup.
#[derive(Debug)]
pub struct Coverage {
    namespaces: Filter,
    /// None when no type of today is called what was asked for.
    resources: Option<Filter>,
    selector: AnyOf,
    cluster_scoped: bool,
    /// Namespaces of the cluster with an exclude label.
    left_out: BTreeSet<String>,
}

impl Coverage {
    /// What the backup with this footer was asked for; types are called as the cluster or the backup calls them.
    ///
    /// What cannot be made sense of any more leaves nothing out.
    pub fn of(footer: &Footer, served: &[ResourceType], left_out: BTreeSet<String>) -> Coverage {
        let BackupSpec {
            included_namespaces,
            excluded_namespaces,
            included_resources,
            excluded_resources,
            label_selector,
            or_label_selectors,
            include_cluster_resources,
            ..
        } = &footer.head.spec;
        let resolved = |names: &[String]| -> Vec<String> {
            let each = names.iter().flat_map(|name| {
                let name = std::slice::from_ref(name);
                let mut found = resolve_resources(name, served).unwrap_or_default();
                found.extend(resolve_resources(name, &footer.head.types).unwrap_or_default());
                found
            });
            each.collect()
        };
        let included = resolved(included_resources);
        let nothing = included.is_empty() && !included_resources.is_empty();
        let namespaces =
            Filter::namespaces(included_namespaces, excluded_namespaces).unwrap_or_default();
        Coverage {
            cluster_scoped: include_cluster_resources.unwrap_or(namespaces.is_everything()),
            namespaces,
            resources: (!nothing)
                .then(|| Filter::resolved_resources(&included, &resolved(excluded_resources))),
            selector: AnyOf::new(label_selector.iter().chain(or_label_selectors))
                .unwrap_or_default(),
            left_out,
        }
    }

    /// The namespaces that were asked for.
    pub fn namespaces(&self) -> &Filter {
        &self.namespaces
    }

    /// Whether objects of a type may be in the backup.
    pub fn covers_type(&self, entry: &TypeEntry) -> bool {
        let included = |resources: &Filter| resources.includes(&entry.resource);
        self.resources.as_ref().is_some_and(included)
            && (entry.namespaced || self.cluster_scoped || entry.resource == NAMESPACES)
    }

    /// Whether an object would be in the backup.
    pub fn covers(
        &self,
        entry: &TypeEntry,
        namespace: Option<&str>,
        name: &str,
        json: &[u8],
    ) -> bool {
        let of_namespace =
            |name: &str| self.namespaces.includes(name) && !self.left_out.contains(name);
        let in_place = match namespace {
            Some(namespace) => of_namespace(namespace),
            None if entry.resource == NAMESPACES => of_namespace(name),
            None => true,
        };
        self.covers_type(entry)
            && in_place
            && (self.selector.selects_all() || self.selector.matches(&labels(json)))
    }
}

fn labels(json: &[u8]) -> BTreeMap<String, String> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Object {
        metadata: Metadata,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Metadata {
        labels: Option<BTreeMap<String, String>>,
    }
    let object: Object = serde_json::from_slice(json).unwrap_or_default();
    object.metadata.labels.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selector::parse;

    fn entry(resource: &str, namespaced: bool) -> TypeEntry {
        TypeEntry {
            resource: resource.into(),
            api_version: "v1".into(),
            kind: String::new(),
            namespaced,
            items: 0,
            bytes: 0,
            unsorted: false,
            resource_version: None,
        }
    }

    fn coverage(spec: BackupSpec) -> Coverage {
        let mut footer = Footer::default();
        footer.head.spec = spec;
        footer.head.types = vec![entry("configmaps", true)];
        Coverage::of(&footer, &[], BTreeSet::from(["left-out".to_owned()]))
    }

    fn text(text: &str) -> Vec<String> {
        vec![text.to_owned()]
    }

    #[test]
    fn a_backup_of_everything_covers_all_but_what_has_an_exclude_label() {
        let all = coverage(BackupSpec::default());
        let (maps, roles) = (entry("configmaps", true), entry("clusterroles", false));
        assert!(all.covers(&maps, Some("a"), "x", b"{}"));
        assert!(all.covers(&roles, None, "x", b"{}"));
        assert!(!all.covers(&maps, Some("left-out"), "x", b"{}"));
        assert!(!all.covers(&entry("namespaces", false), None, "left-out", b"{}"));
    }

    #[test]
    fn a_backup_of_one_namespace_says_nothing_about_others() {
        let one = coverage(BackupSpec {
            included_namespaces: text("a"),
            ..BackupSpec::default()
        });
        let (maps, roles) = (entry("configmaps", true), entry("clusterroles", false));
        assert!(one.covers(&maps, Some("a"), "x", b"{}"));
        assert!(!one.covers(&maps, Some("b"), "x", b"{}"));
        assert!(one.covers(&entry("namespaces", false), None, "a", b"{}"));
        assert!(!one.covers(&roles, None, "x", b"{}"));
    }

    #[test]
    fn types_and_labels_that_were_not_asked_for_are_not_covered() {
        let some = coverage(BackupSpec {
            included_resources: text("cm"),
            label_selector: Some(parse("app=web").unwrap()),
            ..BackupSpec::default()
        });
        let maps = entry("configmaps", true);
        let labelled = br#"{"metadata":{"labels":{"app":"web"}}}"#;
        assert!(some.covers(&maps, Some("a"), "x", labelled));
        assert!(!some.covers(&maps, Some("a"), "x", b"{}"));
        assert!(!some.covers(&entry("secrets", true), Some("a"), "x", labelled));
        let unknown = coverage(BackupSpec {
            included_resources: text("nothing"),
            ..BackupSpec::default()
        });
        assert!(!unknown.covers(&maps, Some("a"), "x", b"{}"));
    }
}
