//! Cases of Velero's table tests (its checklist A, B and E), and our own. The archives are real ones, in memory.

mod choosing;

use super::*;
use crate::archive::footer::Head;
use crate::archive::read::open_member;
use crate::archive::write::{Block, Compressor, Index};
use crate::cluster::discover::ResourceType;
use crate::filter::Filter;
use crate::restore::order::PRIORITIES;
use crate::restore::selection::resources;
use crate::selector::AnyOf;
use serde_json::{Value, json};

struct Archive {
    bytes: Vec<u8>,
    footer: Footer,
}

/// An archive of objects as (resource, namespace, name, what is in it beside the name).
fn archive(objects: &[(&str, Option<&str>, &str, Value)]) -> Archive {
    let mut compressor = Compressor::new(3);
    let (mut index, mut bytes, mut types) = (Index::default(), Vec::new(), Vec::<TypeEntry>::new());
    for (resource, namespace, name, content) in objects {
        let mut object = content.clone();
        object["metadata"]["name"] = json!(name);
        if let Some(namespace) = namespace {
            object["metadata"]["namespace"] = json!(namespace);
        }
        // One object a member, so that choosing members shows.
        let mut block = Block::new(resource, None, 0);
        block.push(*namespace, name, &[object.to_string().as_bytes()]);
        let (compressed, _) = compressor.compress(block);
        index.append(&compressed);
        bytes.extend_from_slice(&compressed.bytes);
        match types.iter_mut().find(|entry| entry.resource == *resource) {
            Some(entry) => entry.items += 1,
            None => types.push(TypeEntry {
                resource: (*resource).to_owned(),
                api_version: "v1".into(),
                kind: "Kind".into(),
                namespaced: namespace.is_some(),
                items: 1,
                bytes: 0,
                unsorted: false,
                resource_version: None,
            }),
        }
    }
    let head = Head {
        types,
        ..Head::default()
    };
    let (footer, _) = index.finish(head, &mut compressor, 0);
    Archive { bytes, footer }
}

impl Archive {
    fn open(&self, index: usize) -> OpenMember {
        let member = &self.footer.members[index];
        let (from, to) = (
            member.offset as usize,
            (member.offset + member.length) as usize,
        );
        open_member(&self.bytes[from..to], member, &self.footer).unwrap()
    }

    fn plan(&self, selection: Selection) -> Result<Plan, PlanError> {
        let rules = Rules {
            namespaces: selection.mapping.clone(),
            ..Rules::default()
        };
        let mut survey = Survey::new(selection, rules, BTreeSet::new());
        for (entry, members) in survey.passes(&self.footer) {
            for index in members {
                survey.look(&entry, &self.open(index));
            }
        }
        survey.plan(&self.footer)
    }

    /// What the plan chooses, in its order, as `resource namespace/name`.
    fn chosen(&self, plan: &Plan, wanted: Choice) -> Vec<String> {
        let mut chosen = Vec::new();
        for step in &plan.steps {
            for &index in &step.members {
                for object in self.open(index).entries() {
                    if plan.choose(&step.entry, &object) == wanted {
                        let key = crate::archive::key(object.namespace, object.name);
                        chosen.push(format!("{} {key}", step.entry.resource));
                    }
                }
            }
        }
        chosen
    }

    fn restored(&self, selection: Selection) -> Vec<String> {
        let plan = self.plan(selection).unwrap();
        self.chosen(&plan, Choice::Restore)
    }
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|&name| name.to_owned()).collect()
}

fn namespaces(include: &[&str], exclude: &[&str]) -> Selection {
    Selection {
        namespaces: Filter::namespaces(&names(include), &names(exclude)).unwrap(),
        ..Selection::default()
    }
}

fn labelled(key: &str, value: &str) -> Value {
    json!({"metadata": {"labels": {key: value}}})
}

fn sample() -> Archive {
    archive(&[
        ("pods", Some("a"), "p", labelled("app", "x")),
        ("pods", Some("b"), "p", json!({})),
        ("deployments.apps", Some("a"), "d", json!({})),
        ("deployments.apps", Some("b"), "d", labelled("app", "x")),
        ("namespaces", None, "a", json!({})),
        ("namespaces", None, "b", json!({})),
        ("persistentvolumes", None, "v", labelled("app", "x")),
        ("persistentvolumes", None, "w", json!({})),
    ])
}

/// A1.
#[test]
fn everything_comes_back_when_nothing_is_left_out() {
    assert_eq!(
        sample().restored(Selection::default()),
        [
            "namespaces a",
            "namespaces b",
            "persistentvolumes v",
            "persistentvolumes w",
            "pods a/p",
            "pods b/p",
            "deployments.apps a/d",
            "deployments.apps b/d",
        ]
    );
}

/// A2, A3.
#[test]
fn types_are_chosen_and_left_out() {
    let selection = |include: &[&str], exclude: &[&str]| Selection {
        resources: Filter::resources(&names(include), &names(exclude)).unwrap(),
        ..Selection::default()
    };
    let archive = sample();
    assert_eq!(
        archive.restored(selection(&["pods", "persistentvolumes"], &[])),
        [
            "persistentvolumes v",
            "persistentvolumes w",
            "pods a/p",
            "pods b/p"
        ]
    );
    assert_eq!(
        archive.restored(selection(&[], &["pods", "persistentvolumes", "namespaces"])),
        ["deployments.apps a/d", "deployments.apps b/d"]
    );
}

/// A4–A6, A9–A13.
#[test]
fn selected_namespaces_bring_cluster_scoped_objects_only_when_told() {
    let archive = sample();
    let with = |cluster_resources: Option<bool>, selection: Selection| {
        archive.restored(Selection {
            cluster_resources,
            ..selection
        })
    };
    let namespaced = ["namespaces a", "pods a/p", "deployments.apps a/d"];
    for selection in [namespaces(&["a"], &[]), namespaces(&[], &["b"])] {
        assert_eq!(with(None, selection.clone()), namespaced);
        assert_eq!(with(Some(false), selection.clone()), namespaced[1..]);
        assert_eq!(
            with(Some(true), selection),
            [
                "namespaces a",
                "persistentvolumes v",
                "persistentvolumes w",
                "pods a/p",
                "deployments.apps a/d"
            ]
        );
    }
    assert_eq!(
        with(Some(false), Selection::default()),
        [
            "pods a/p",
            "pods b/p",
            "deployments.apps a/d",
            "deployments.apps b/d"
        ]
    );
    assert_eq!(with(Some(true), Selection::default()).len(), 8);
}

/// A7.
#[test]
fn labels_choose_across_types_and_scopes() {
    let label_selector = crate::selector::parse("app=x").unwrap();
    let selection = Selection {
        selector: AnyOf::new([&label_selector]).unwrap(),
        ..Selection::default()
    };
    let archive = sample();
    let plan = archive.plan(selection).unwrap();
    assert_eq!(
        archive.chosen(&plan, Choice::Restore),
        ["persistentvolumes v", "pods a/p", "deployments.apps b/d"]
    );
    // The namespaces were not asked for, but must be there.
    assert_eq!(
        archive.chosen(&plan, Choice::Provide),
        ["namespaces a", "namespaces b"]
    );
}

/// E16, E18, E19, K44, K61.
#[test]
fn selected_namespaces_bring_what_they_need() {
    let role = |role: &str, subject: &str, namespace: &str| {
        json!({"roleRef": {"kind": "ClusterRole", "name": role},
               "subjects": [{"kind": "ServiceAccount", "name": subject, "namespace": namespace}]})
    };
    let bindings = "clusterrolebindings.rbac.authorization.k8s.io";
    let roles = "clusterroles.rbac.authorization.k8s.io";
    let archive = archive(&[
        (
            "persistentvolumeclaims",
            Some("a"),
            "c",
            json!({"spec": {"volumeName": "v"}}),
        ),
        (
            "persistentvolumeclaims",
            Some("b"),
            "c",
            json!({"spec": {"volumeName": "w"}}),
        ),
        ("serviceaccounts", Some("a"), "s", json!({})),
        (
            "pods",
            Some("a"),
            "p",
            json!({"spec": {"priorityClassName": "high"}}),
        ),
        (
            "widgets.example.com",
            Some("a"),
            "x",
            json!({"spec": "a text"}),
        ),
        ("persistentvolumes", None, "v", json!({})),
        ("persistentvolumes", None, "w", json!({})),
        (bindings, None, "of-a", role("one", "s", "a")),
        (bindings, None, "of-b", role("two", "s", "b")),
        (roles, None, "one", json!({})),
        (roles, None, "two", json!({})),
        (DEFINITIONS, None, "widgets.example.com", json!({})),
        (DEFINITIONS, None, "gadgets.example.com", json!({})),
        (PRIORITIES, None, "high", json!({})),
        (PRIORITIES, None, "low", json!({})),
    ]);
    assert_eq!(
        archive.restored(namespaces(&["a"], &[])),
        [
            "customresourcedefinitions.apiextensions.k8s.io widgets.example.com".to_owned(),
            "persistentvolumes v".into(),
            "persistentvolumeclaims a/c".into(),
            format!("{roles} one"),
            "serviceaccounts a/s".into(),
            format!("{bindings} of-a"),
            "priorityclasses.scheduling.k8s.io high".into(),
            "pods a/p".into(),
            "widgets.example.com a/x".into(),
        ]
    );
    let none = Selection {
        cluster_resources: Some(false),
        ..namespaces(&["a"], &[])
    };
    assert_eq!(
        archive.restored(none),
        [
            "persistentvolumeclaims a/c",
            "serviceaccounts a/s",
            "pods a/p",
            "widgets.example.com a/x"
        ]
    );
}

#[test]
fn only_members_that_may_hold_the_namespace_are_read() {
    let archive = sample();
    let plan = archive.plan(namespaces(&["b"], &[])).unwrap();
    let pods = plan
        .steps
        .iter()
        .find(|step| step.entry.resource == "pods")
        .unwrap();
    assert_eq!((&pods.members[..], pods.objects), (&[1][..], 1));
    let member = |first: &str, last: &str, part: Option<&str>| Member {
        offset: 0,
        length: 0,
        size: 0,
        sha256: String::new(),
        resource: "pods".into(),
        part: part.map(str::to_owned),
        items: 2,
        first: first.into(),
        last: last.into(),
    };
    // `a-b/x` comes before `a/x`: both namespaces may be in between.
    for (first, last, namespace, expected) in [
        ("a-b/x", "a/x", "a", true),
        ("a-b/x", "a/x", "a-b", true),
        ("a-b/x", "a-c/x", "a", false),
        ("a/x", "c/x", "b", true),
        ("b/x", "c/x", "a", false),
        ("a/x", "a/y", "b", false),
    ] {
        assert_eq!(
            may_hold(&member(first, last, None), namespace, false),
            expected,
            "{first} {last} {namespace}"
        );
    }
    assert!(may_hold(&member("b/x", "a/x", None), "c", true));
    assert!(!may_hold(&member("b/x", "b/y", Some("b")), "c", true));
}

/// F1, F2, F19, F20.
#[test]
fn claims_of_volumes_that_went_with_them_get_new_ones() {
    let volume = |policy: &str| json!({"spec": {"persistentVolumeReclaimPolicy": policy}});
    let archive = archive(&[
        ("persistentvolumes", None, "gone", volume("Delete")),
        ("persistentvolumes", None, "kept", volume("Retain")),
        ("pods", Some("a"), "p", json!({})),
    ]);
    let expected = BTreeSet::from(["gone".to_owned()]);
    for selection in [Selection::default(), namespaces(&["a"], &[])] {
        assert_eq!(
            archive.plan(selection).unwrap().rules.reprovisioned,
            expected
        );
    }
}

#[test]
fn namespaces_mapped_onto_each_other_may_not_hold_different_objects() {
    let data = |value: &str| json!({"data": {"k": value}});
    let archive = archive(&[
        ("configmaps", Some("a"), "kube-root-ca.crt", data("1")),
        ("configmaps", Some("a"), "other", data("1")),
        ("configmaps", Some("a"), "same", data("1")),
        ("configmaps", Some("b"), "kube-root-ca.crt", data("2")),
        ("configmaps", Some("b"), "other", data("2")),
        ("configmaps", Some("b"), "same", data("1")),
        (
            "serviceaccounts",
            Some("a"),
            "default",
            json!({"secrets": [{"name": "x"}]}),
        ),
        ("serviceaccounts", Some("b"), "default", json!({})),
    ]);
    let mapped = |mapping: &[(&str, &str)]| Selection {
        mapping: mapping
            .iter()
            .map(|&(source, target)| (source.to_owned(), target.to_owned()))
            .collect(),
        ..Selection::default()
    };
    for mapping in [&[("a", "c"), ("b", "c")][..], &[("a", "b")], &[("b", "a")]] {
        let error = archive.plan(mapped(mapping)).unwrap_err();
        let PlanError::Collisions(named, count) = &error else {
            panic!("{error}");
        };
        assert_eq!((named.len(), *count), (1, 1), "{mapping:?}");
        assert_eq!(
            (named[0].resource.as_str(), named[0].name.as_str()),
            ("configmaps", "other")
        );
        assert!(error.to_string().contains("configmaps other"), "{error}");
    }
    for mapping in [&[("a", "c")][..], &[("a", "b"), ("b", "a")], &[]] {
        assert!(archive.plan(mapped(mapping)).is_ok(), "{mapping:?}");
    }
    let targets = archive.plan(mapped(&[("a", "c")])).unwrap().targets();
    assert_eq!(targets, BTreeSet::from(["b".to_owned(), "c".to_owned()]));
}

/// B3, B6–B9.
#[test]
fn types_come_in_an_order_in_which_each_finds_what_it_needs() {
    let mut types = vec![
        "apiservices.apiregistration.k8s.io",
        "validatingwebhookconfigurations.admissionregistration.k8s.io",
        "deployments.apps",
        "zebras.example.com",
        "services",
        "replicasets.apps",
        "pods",
        "resourcequotas",
        "configmaps",
        "secrets",
        "serviceaccounts",
        "persistentvolumeclaims",
        "persistentvolumes",
        "storageclasses.storage.k8s.io",
        "namespaces",
        "cronjobs.batch",
        DEFINITIONS,
    ];
    types.sort_by_key(|resource| rank(resource));
    assert_eq!(
        types,
        [
            DEFINITIONS,
            "namespaces",
            "storageclasses.storage.k8s.io",
            "persistentvolumes",
            "persistentvolumeclaims",
            "serviceaccounts",
            "secrets",
            "configmaps",
            "pods",
            "replicasets.apps",
            "services",
            "cronjobs.batch",
            "deployments.apps",
            "zebras.example.com",
            "resourcequotas",
            "validatingwebhookconfigurations.admissionregistration.k8s.io",
            "apiservices.apiregistration.k8s.io",
        ]
    );
}

#[test]
fn what_describes_the_old_cluster_is_never_restored() {
    let archive = archive(&[
        ("events", Some("a"), "e", json!({})),
        ("leases.coordination.k8s.io", Some("a"), "l", json!({})),
        ("backups.ark.heptio.com", Some("a"), "b", json!({})),
        ("restores.velero.io", Some("a"), "r", json!({})),
        ("nodes", None, "n", json!({})),
        ("pods", Some("a"), "p", json!({})),
    ]);
    assert_eq!(archive.restored(Selection::default()), ["pods a/p"]);
    let filter = |include: &[&str]| resources(&names(include), &[], &[], &archive.footer);
    assert_eq!(filter(&["nodes"]).unwrap_err(), "nodes are never restored");
    assert!(filter(&["*"]).unwrap().includes("pods"));
    assert_eq!(
        filter(&["pots"]).unwrap_err(),
        "no resource type is called pots"
    );
}

#[test]
fn types_are_called_as_the_cluster_or_the_backup_calls_them() {
    let served = ResourceType {
        group: "apps".into(),
        version: "v1".into(),
        resource: "deployments".into(),
        singular: "deployment".into(),
        kind: "Deployment".into(),
        namespaced: true,
        short_names: vec!["deploy".into()],
        verbs: Vec::new(),
    };
    let archive = archive(&[("widgets.example.com", Some("a"), "w", json!({}))]);
    let filter = resources(
        &names(&["deploy", "widgets"]),
        &[],
        &[served],
        &archive.footer,
    )
    .unwrap();
    assert!(filter.includes("deployments.apps") && filter.includes("widgets.example.com"));
    assert!(!filter.includes("pods"));
}
