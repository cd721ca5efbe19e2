//! Rows of lists A, B, E and J of docs/restore-checklist.md that are about what is chosen.

use super::*;
use crate::args::{SelectFlags, StorageFlags};
use crate::restore::selection::{Asked, idle_mappings};

fn selected(text: &str) -> Selection {
    let selectors = crate::selector::parse_choice(text).unwrap();
    Selection {
        selector: AnyOf::new(&selectors).unwrap(),
        ..Selection::default()
    }
}

#[test]
fn a8_one_of_several_selectors_is_enough() {
    let archive = archive(&[
        ("configmaps", Some("a"), "one", labelled("app", "x")),
        ("configmaps", Some("a"), "three", json!({})),
        ("configmaps", Some("a"), "two", labelled("tier", "y")),
    ]);
    assert_eq!(
        archive.restored(selected("app=x or tier in (y,z)")),
        ["configmaps a/one", "configmaps a/two"]
    );
}

/// A14, A15, P17: Velero lets `*` win among others, or ignores it among the excluded; both say something else than what
/// happens then, so they are refused as wrong usage. A16, A17: a name that nothing is called is refused, too.
#[test]
fn a14_to_a17_p16_to_p18_what_contradicts_itself_or_means_nothing_is_refused() {
    let flags = |include: &[&str], exclude: &[&str]| SelectFlags {
        include_resources: names(include),
        exclude_resources: names(exclude),
        ..SelectFlags::default()
    };
    let archive = sample();
    for (include, exclude) in [
        (&["*", "pods"][..], &[][..]),
        (&[], &["*"]),
        (&["pods"], &["pods"]),
    ] {
        let failure = Asked::resolve(&flags(include, exclude)).unwrap_err();
        assert_eq!(failure.exit(), crate::exit::Exit::Usage);
    }
    let elsewhere = StorageFlags {
        location: Some("elsewhere".into()),
        storage: None,
    };
    for (include, exclude) in [(&["pods", "pots"][..], &[][..]), (&[], &["pots"])] {
        let asked = Asked::resolve(&flags(include, exclude)).unwrap();
        let failure = asked
            .select(&[], &archive.footer, &BTreeMap::new(), &elsewhere)
            .unwrap_err();
        assert!(failure.message().contains("pots"), "{}", failure.message());
        let hint = failure.next_step().unwrap_or_default();
        assert!(hint.contains("--details --location elsewhere`"), "{hint}");
    }
    let asked = Asked::resolve(&flags(&["*"], &[])).unwrap();
    let all = asked
        .select(&[], &archive.footer, &BTreeMap::new(), &elsewhere)
        .unwrap();
    assert_eq!(archive.restored(all).len(), 8);
    for bad in ["a|b", "a(b", "a!", "a,b", "-a[", "A"] {
        let namespaces = SelectFlags {
            include_namespaces: names(&[bad]),
            ..SelectFlags::default()
        };
        assert!(Asked::resolve(&namespaces).is_err(), "{bad}");
    }
}

#[test]
fn a19_a20_service_accounts_come_back_and_nothing_is_forced_in() {
    let archive = archive(&[
        ("pods", Some("a"), "p", json!({})),
        ("serviceaccounts", Some("a"), "s", json!({})),
        (
            "volumesnapshotcontents.snapshot.storage.k8s.io",
            None,
            "v",
            json!({}),
        ),
    ]);
    assert!(
        archive
            .restored(Selection::default())
            .contains(&"serviceaccounts a/s".to_owned())
    );
    let pods = Selection {
        resources: Filter::resources(&names(&["pods"]), &[]).unwrap(),
        ..Selection::default()
    };
    assert_eq!(archive.restored(pods), ["pods a/p"]);
}

#[test]
fn b1_b2_mapped_namespaces_are_chosen_by_their_names_in_the_backup() {
    let archive = sample();
    let selection = Selection {
        mapping: BTreeMap::from([
            ("a".to_owned(), "b2".to_owned()),
            ("b".to_owned(), "a2".to_owned()),
        ]),
        ..namespaces(&["a"], &[])
    };
    let plan = archive.plan(selection).unwrap();
    assert_eq!(
        archive.chosen(&plan, Choice::Restore),
        ["namespaces a", "pods a/p", "deployments.apps a/d"]
    );
    assert_eq!(plan.targets(), BTreeSet::from(["b2".to_owned()]));
}

#[test]
fn a_mapping_of_a_namespace_that_the_backup_has_not_is_idle() {
    let mapping = |source: &str| (source.to_owned(), "x".to_owned());
    let mapping = BTreeMap::from([mapping("a"), mapping("prodd")]);
    let namespaces = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
    assert_eq!(idle_mappings(&mapping, &namespaces), ["prodd"]);
}

fn mounted() -> Archive {
    let mounts = json!({"metadata": {"labels": {"app": "x"}}, "spec": {"priorityClassName": "high", "volumes": [
        {"name": "d", "persistentVolumeClaim": {"claimName": "data"}}, {"name": "e", "emptyDir": {}}]}});
    archive(&[
        (
            "persistentvolumeclaims",
            Some("a"),
            "data",
            json!({"spec": {"volumeName": "v"}}),
        ),
        (
            "persistentvolumeclaims",
            Some("a"),
            "other",
            json!({"spec": {"volumeName": "w"}}),
        ),
        (
            "persistentvolumeclaims",
            Some("b"),
            "data",
            json!({"spec": {"volumeName": "w"}}),
        ),
        ("persistentvolumes", None, "v", json!({})),
        ("persistentvolumes", None, "w", json!({})),
        ("pods", Some("a"), "p", mounts),
        ("pods", Some("b"), "q", json!({"spec": {}})),
        (PRIORITIES, None, "high", json!({})),
    ])
}

#[test]
fn e16_e18_k1_k2_k44_k61_a_selected_pod_brings_its_claims_their_volumes_and_its_priority() {
    let expected = [
        "persistentvolumes v",
        "persistentvolumeclaims a/data",
        "priorityclasses.scheduling.k8s.io high",
        "pods a/p",
    ];
    assert_eq!(mounted().restored(selected("app=x")), expected);
    let selection = Selection {
        namespaces: Filter::namespaces(&names(&["a"]), &[]).unwrap(),
        ..selected("app=x")
    };
    assert_eq!(mounted().restored(selection), expected);
}

#[test]
fn e17_e19_e20_what_is_needed_stays_out_when_it_is_excluded() {
    let without = |exclude: &[&str], cluster_resources: Option<bool>| {
        mounted().restored(Selection {
            resources: Filter::resources(&[], &names(exclude)).unwrap(),
            cluster_resources,
            ..selected("app=x")
        })
    };
    assert_eq!(
        without(&[], Some(false)),
        ["persistentvolumeclaims a/data", "pods a/p"]
    );
    assert_eq!(
        without(&["persistentvolumeclaims"], Some(false)),
        ["pods a/p"]
    );
    let elsewhere = Selection {
        namespaces: Filter::namespaces(&names(&["b"]), &[]).unwrap(),
        ..selected("app=x")
    };
    assert_eq!(mounted().restored(elsewhere), Vec::<String>::new());
}

/// A glob is what matches now, and one that matches nothing is nothing; in Velero it is everything (defect 1).
#[test]
fn j1_to_j15_namespaces_are_chosen_by_name_and_glob() {
    let maps = |namespace| ("configmaps", Some(namespace), "m", json!({}));
    let archive = archive(&[
        maps("dev-1"),
        maps("dev-2"),
        maps("prod"),
        maps("prod-1"),
        maps("test"),
        ("nodes", None, "dev-9", json!({})),
    ]);
    for (include, exclude, expected) in [
        (&["prod"][..], &[][..], &["prod"][..]),
        (&["dev-*"], &[], &["dev-1", "dev-2"]),
        (&["dev-*", "test"], &[], &["dev-1", "dev-2", "test"]),
        (&["dev-*", "prod*"], &["*-1"], &["dev-2", "prod"]),
        (&["dev-*"], &["dev-1"], &["dev-2"]),
        (&["p*-1"], &[], &["prod-1"]),
        (&["dev-?"], &[], &["dev-1", "dev-2"]),
        (&["dev-[2-9]"], &[], &["dev-2"]),
        (&["tes[tx]"], &[], &["test"]),
        (&["nothing-*"], &[], &[]),
        (&["nothing"], &[], &[]),
        (&[], &["*-?"], &["prod", "test"]),
        (&["*"], &[], &["dev-1", "dev-2", "prod", "prod-1", "test"]),
    ] {
        let restored = archive.restored(namespaces(include, exclude));
        let found: Vec<&str> = restored
            .iter()
            .filter_map(|object| object.strip_prefix("configmaps ")?.strip_suffix("/m"))
            .collect();
        assert_eq!(found, expected, "{include:?} {exclude:?}");
    }
    for (include, exclude) in [
        (&["dev-*"][..], &["*"][..]),
        (&["*", "dev-*"], &[]),
        (&["a["], &[]),
        (&["a[]"], &[]),
        (&["a]"], &[]),
        (&[""], &[]),
        (&[" "], &[]),
        (&["a.b"], &[]),
        (&["a+"], &[]),
        (&["{a,b}"], &[]),
    ] {
        assert!(
            Filter::namespaces(&names(include), &names(exclude)).is_err(),
            "{include:?} {exclude:?}"
        );
    }
}
