//! The cases are those of Velero's own tests of hooks (N…), as far as they are about deciding.

use super::*;
use crate::cluster::discover::ResourceType;

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => from
            .into_iter()
            .for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value)),
        (into, from) => *into = from,
    }
}

fn pod(value: Value) -> Value {
    let mut whole = json!({
        "metadata": {"name": "p", "namespace": "ns", "labels": {"app": "db"}},
        "spec": {"containers": [{"name": "main"}, {"name": "side"}]},
    });
    merge(&mut whole, value);
    whole
}

/// With annotations of a family, by the ends of their names.
fn annotated(family: &str, annotations: &[(&str, &str)]) -> Value {
    let annotations: serde_json::Map<String, Value> = annotations
        .iter()
        .map(|(key, value)| (format!("{family}/{key}"), json!(value)))
        .collect();
    pod(json!({"metadata": {"annotations": annotations}}))
}

const POST: &str = "post.hook.restore.velero.io";
const INIT: &str = "init.hook.restore.velero.io";

fn exec_of(pod: &Value, hooks: &RestoreHooks) -> (Vec<ExecHook>, Vec<String>) {
    let mut remarks = Vec::new();
    let hooks = hooks.exec_hooks(pod, "ns", &mut remarks);
    (hooks, remarks)
}

fn annotated_exec(annotations: &[(&str, &str)]) -> Option<ExecHook> {
    let (mut hooks, _) = exec_of(&annotated(POST, annotations), &RestoreHooks::default());
    hooks.pop()
}

fn exec(command: &[&str]) -> ExecHook {
    ExecHook {
        name: FROM_ANNOTATION.into(),
        container: "main".into(),
        command: command.iter().map(|&word| word.to_owned()).collect(),
        on_error: OnError::Continue,
        exec_timeout: DEFAULT_TIMEOUT,
        wait_timeout: DEFAULT_WAIT,
        wait_for_ready: false,
    }
}

fn specs(yaml: &str) -> RestoreHooks {
    let of = |resource: &str, kind: &str| ResourceType {
        resource: resource.into(),
        singular: kind.to_lowercase(),
        kind: kind.into(),
        ..ResourceType::pods()
    };
    let types = [of("pods", "Pod"), of("secrets", "Secret")];
    RestoreHooks::parse(yaml)
        .unwrap()
        .about_pods(&types)
        .unwrap()
}

/// One spec with this selection, and both kinds of hooks.
fn selecting(selection: &str) -> RestoreHooks {
    specs(&format!(
        "resources:\n- name: s\n{selection}  postHooks:\n  - exec: {{command: [a]}}\n  - init: {{initContainers: [{{name: first, image: i, command: [x]}}]}}\n"
    ))
}

/// The names of a pod's init containers when it is restored to `namespace`, and the remarks.
fn init_names(pod: &Value, hooks: &RestoreHooks, namespace: &str) -> (Vec<String>, Vec<String>) {
    let (mut pod, mut remarks) = (pod.clone(), Vec::new());
    hooks.add_init_containers(&mut pod, namespace, &mut remarks);
    let once = pod.clone();
    hooks.add_init_containers(&mut pod, namespace, &mut Vec::new());
    assert_eq!(pod, once, "twice is not the same as once");
    (named(pod.pointer("/spec/initContainers")), remarks)
}

fn with_init(names: &[&str]) -> Value {
    let containers: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
    pod(json!({"spec": {"initContainers": containers}}))
}

fn mistake(yaml: &str) -> String {
    RestoreHooks::parse(yaml).unwrap_err()
}

fn mistaken_init(container: &str) -> String {
    mistake(&format!(
        "resources: [{{postHooks: [{{init: {{initContainers: [{container}]}}}}]}}]"
    ))
}

#[test]
fn n01_a_command_is_none_one_word_or_an_array() {
    assert_eq!(annotated_exec(&[]), None);
    assert_eq!(annotated_exec(&[("container", "main")]), None);
    assert_eq!(annotated_exec(&[("command", "")]), None);
    assert_eq!(annotated_exec(&[("command", "a b")]), Some(exec(&["a b"])));
    assert_eq!(
        annotated_exec(&[("command", r#"["a", "b"]"#)]),
        Some(exec(&["a", "b"]))
    );
}

#[test]
fn n02_everything_that_annotations_say_is_carried() {
    for (text, on_error) in [("Continue", OnError::Continue), ("Fail", OnError::Fail)] {
        let hook = annotated_exec(&[
            ("command", "x"),
            ("container", "side"),
            ("on-error", text),
            ("exec-timeout", "45s"),
            ("wait-timeout", "1h"),
            ("wait-for-ready", "true"),
        ]);
        let expected = ExecHook {
            container: "side".into(),
            on_error,
            exec_timeout: Duration::from_secs(45),
            wait_timeout: Duration::from_secs(3600),
            wait_for_ready: true,
            ..exec(&["x"])
        };
        assert_eq!(hook, Some(expected), "{text}");
    }
}

#[test]
fn n03_what_is_odd_in_annotations_is_remarked_and_the_default_taken() {
    for key in ["exec-timeout", "wait-timeout", "on-error", "wait-for-ready"] {
        let pod = annotated(POST, &[("command", "x"), (key, "soon")]);
        let (hooks, remarks) = exec_of(&pod, &RestoreHooks::default());
        assert_eq!(hooks, [exec(&["x"])], "{key}");
        assert_eq!(remarks.len(), 1, "{key}");
        let start = format!("annotation {POST}/{key}: \"soon\": ");
        assert!(remarks[0].starts_with(&start), "{remarks:?}");
    }
}

#[test]
fn n04_n05_n06_n07_the_container_is_the_one_that_is_named_or_the_first() {
    assert_eq!(exec_of(&pod(json!({})), &RestoreHooks::default()).0, []);
    let in_container = |hook: Option<ExecHook>| hook.unwrap().container;
    assert_eq!(in_container(annotated_exec(&[("command", "x")])), "main");
    let annotations = [("command", "x"), ("container", "side")];
    assert_eq!(in_container(annotated_exec(&annotations)), "side");
    for (container, expected) in [
        ("", "main"),
        ("container: '', ", "main"),
        ("container: side, ", "side"),
    ] {
        let specs = specs(&format!(
            "resources: [{{name: s, postHooks: [{{exec: {{{container}command: [x]}}}}]}}]"
        ));
        let expected = ExecHook {
            name: "s".into(),
            container: expected.into(),
            ..exec(&["x"])
        };
        assert_eq!(exec_of(&pod(json!({})), &specs).0, [expected]);
    }
}

#[test]
fn n08_n32_annotations_replace_specs_of_their_kind() {
    let post = annotated(POST, &[("command", "x")]);
    assert_eq!(exec_of(&post, &selecting("")).0, [exec(&["x"])]);
    assert_eq!(init_names(&post, &selecting(""), "ns").0, ["first"]);
}

#[test]
fn arks_annotations_win_over_veleros() {
    let both = pod(json!({"metadata": {"annotations": {
        "post.hook.restore.velero.io/command": "velero", "post.hook.restore.velero.io/container": "side",
        "post.hook.restore.ark.heptio.com/command": "ark",
        "init.hook.restore.velero.io/container-image": "velero",
        "init.hook.restore.ark.heptio.com/container-image": "ark",
    }}}));
    assert_eq!(exec_of(&both, &RestoreHooks::default()).0, [exec(&["ark"])]);
    let mut both = both;
    RestoreHooks::default().add_init_containers(&mut both, "ns", &mut Vec::new());
    assert_eq!(both["spec"]["initContainers"][0]["image"], "ark");
}

#[test]
fn n09_only_init_hooks_or_another_namespace_are_no_commands() {
    let init = specs(
        "resources: [{postHooks: [{init: {initContainers: [{name: a, image: b, command: [c]}]}}]}]",
    );
    assert_eq!(exec_of(&pod(json!({})), &init).0, []);
    let other = selecting("  includedNamespaces: [other]\n");
    assert_eq!(exec_of(&pod(json!({})), &other).0, []);
}

#[test]
fn n10_n27_hooks_of_all_specs_keep_their_order() {
    let specs = specs(
        "hooks:\n  resources:\n  - postHooks: [{exec: {command: [a]}}, {init: {initContainers: [{name: i, image: i, command: [i]}]}}, {exec: {command: [b], container: side}}]\n  - postHooks: [{exec: {command: [c]}}]\n",
    );
    let found: Vec<(String, String)> = exec_of(&pod(json!({})), &specs)
        .0
        .into_iter()
        .map(|hook| (hook.container, hook.command.concat()))
        .collect();
    let expected = [("main", "a"), ("side", "b"), ("main", "c")];
    assert_eq!(found, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
}

#[test]
fn n11_an_init_annotation_needs_an_image_and_nothing_else() {
    let added = |annotations: &[(&str, &str)]| {
        let mut pod = annotated(INIT, annotations);
        RestoreHooks::default().add_init_containers(&mut pod, "ns", &mut Vec::new());
        pod["spec"]["initContainers"][0].clone()
    };
    for none in [
        &[("container-name", "a"), ("command", "x")][..],
        &[("container-image", ""), ("command", "x")],
    ] {
        assert_eq!(added(none), Value::Null);
    }
    for name in [None, Some(("container-name", ""))] {
        let mut annotations = vec![("container-image", "i"), ("command", "a b")];
        annotations.extend(name);
        let expected = json!({"name": "ark-restore-init", "image": "i", "command": ["a b"]});
        assert_eq!(added(&annotations), expected);
    }
    let all = |command: &str| {
        added(&[
            ("container-image", "i"),
            ("container-name", "n"),
            ("command", command),
        ])
    };
    assert_eq!(
        all(r#"["a", "b"]"#),
        json!({"name": "n", "image": "i", "command": ["a", "b"]})
    );
    assert_eq!(all(r#"["a""#)["command"], json!([r#"["a""#]));
}

/// Velero panics on this one.
#[test]
fn an_init_annotation_without_a_command_runs_that_of_the_image() {
    let mut pod = annotated(INIT, &[("container-image", "i")]);
    RestoreHooks::default().add_init_containers(&mut pod, "ns", &mut Vec::new());
    let expected = json!([{"name": "ark-restore-init", "image": "i"}]);
    assert_eq!(pod["spec"]["initContainers"], expected);
}

/// Velero reads the timeout of init hooks nowhere.
#[test]
fn an_init_container_with_a_timeout_is_watched() {
    let hook = |container: &str, seconds| InitHook {
        container: container.into(),
        timeout: Duration::from_secs(seconds),
    };
    let mut pod = annotated(INIT, &[("container-image", "i"), ("timeout", "90s")]);
    let after = RestoreHooks::default().apply(&mut pod, "ns", &mut Vec::new());
    assert_eq!(after.init, [hook(INIT_NAME, 90)]);
    let specs = specs(
        "resources: [{postHooks: [{init: {timeout: 1m, initContainers: [{name: a, image: b, command: [c]}]}}]}]",
    );
    let after = specs.apply(&mut super::tests::pod(json!({})), "ns", &mut Vec::new());
    assert_eq!(after.init, [hook("a", 60)]);
    assert!(!after.is_empty() && AfterCreation::default().is_empty());
}

#[test]
fn n12_a_document_without_hooks_has_none() {
    for yaml in [
        "resources: []",
        "hooks: {}",
        "hooks: {resources: []}",
        "resources: [{name: a}]",
    ] {
        let hooks = specs(yaml);
        let mut pod = pod(json!({}));
        let after = hooks.apply(&mut pod, "ns", &mut Vec::new());
        assert!(
            after.is_empty() && pod == super::tests::pod(json!({})),
            "{yaml}"
        );
    }
    for yaml in [
        "{}",
        "hooks: {}\nresources: []",
        "[]",
        "x: y",
        "resources: [{pre: []}]",
    ] {
        assert!(RestoreHooks::parse(yaml).is_err(), "{yaml}");
    }
}

#[test]
fn n13_n14_init_containers_come_before_the_pods_own() {
    let annotations = json!({"metadata": {"annotations": {
        "init.hook.restore.velero.io/container-image": "i", "init.hook.restore.velero.io/container-name": "annotated",
    }}});
    let with = |names: &[&str]| {
        let mut pod = with_init(names);
        merge(&mut pod, annotations.clone());
        pod
    };
    for hooks in [RestoreHooks::default(), selecting("")] {
        assert_eq!(
            init_names(&pod(annotations.clone()), &hooks, "ns").0,
            ["annotated"]
        );
        assert_eq!(
            init_names(&with(&["a", "b"]), &hooks, "ns").0,
            ["annotated", "a", "b"]
        );
    }
    assert_eq!(
        init_names(&pod(json!({})), &selecting(""), "ns").0,
        ["first"]
    );
    assert_eq!(
        init_names(&with_init(&["a"]), &selecting(""), "ns").0,
        ["first", "a"]
    );
}

#[test]
fn n15_pods_that_no_spec_is_about_stay_as_they_are() {
    let other = selecting("  labelSelector: {matchLabels: {app: web}}\n");
    for hooks in [other, RestoreHooks::default(), specs("resources: []")] {
        assert_eq!(init_names(&with_init(&["a"]), &hooks, "ns").0, ["a"]);
        let mut plain = pod(json!({}));
        hooks.add_init_containers(&mut plain, "ns", &mut Vec::new());
        assert_eq!(plain, pod(json!({})));
    }
}

#[test]
fn n16_restore_wait_stays_first() {
    for (own, expected) in [
        (&["restore-wait"][..], &["restore-wait", "first"][..]),
        (&["restore-wait", "a"], &["restore-wait", "first", "a"]),
        (&["a", "restore-wait"], &["first", "a", "restore-wait"]),
    ] {
        assert_eq!(
            init_names(&with_init(own), &selecting(""), "ns").0,
            expected
        );
    }
}

#[test]
fn n17_a_namespace_is_the_one_that_is_restored_to() {
    // In the backup, it was called ns.
    for (selection, namespace, applies) in [
        ("[ns]", "new", false),
        ("[new]", "new", true),
        ("['n*']", "new", true),
    ] {
        let hooks = selecting(&format!("  includedNamespaces: {selection}\n"));
        let added = !init_names(&pod(json!({})), &hooks, namespace).0.is_empty();
        let runs = !hooks
            .exec_hooks(&pod(json!({})), namespace, &mut Vec::new())
            .is_empty();
        assert_eq!((added, runs), (applies, applies), "{selection}");
    }
}

/// Velero ignores it.
#[test]
fn included_resources_must_name_pods() {
    for (selection, applies) in [
        ("  includedResources: [pods]\n", true),
        ("  includedResources: ['*']\n", true),
        ("  includedResources: [secrets]\n", false),
        ("  excludedResources: [pod]\n", false),
        ("  excludedResources: [secrets]\n", true),
    ] {
        let found = exec_of(&pod(json!({})), &selecting(selection)).0;
        assert_eq!(!found.is_empty(), applies, "{selection}");
    }
    let unknown = RestoreHooks::parse("resources: [{includedResources: [pdos]}]").unwrap();
    let error = unknown.about_pods(&[ResourceType::pods()]).unwrap_err();
    assert!(
        error.starts_with("resources[0].includedResources: "),
        "{error}"
    );
}

#[test]
fn n18_n19_an_init_container_of_a_spec_needs_name_image_and_command() {
    let place = "resources[0].postHooks[0].init.initContainers[0]";
    for (container, field) in [
        ("{image: i, command: [x]}", ".name"),
        ("{name: '', image: i, command: [x]}", ".name"),
        ("{name: A B, image: i, command: [x]}", ".name"),
        ("{name: one, command: [x]}", ".image"),
        ("{name: one, image: i}", ".command"),
        ("{name: one, image: i, command: []}", ".command"),
        ("{name: one, image: i, command: x}", ""),
        ("5", ""),
    ] {
        let error = mistaken_init(container);
        assert!(error.starts_with(&format!("{place}{field}: ")), "{error}");
    }
    let twice =
        mistaken_init("{name: one, image: i, command: [x]}, {name: one, image: j, command: [x]}");
    assert_eq!(
        twice,
        "resources[0].postHooks: two init containers are called \"one\""
    );
}

#[test]
fn a_mistake_in_a_spec_is_named_with_its_place() {
    for (hook, place) in [
        ("{exec: {command: []}}", ".exec.command: "),
        ("{exec: {command: [x], onError: fail}}", ".exec.onError: "),
        (
            "{exec: {command: [x], execTimeout: -1s}}",
            ".exec.execTimeout: ",
        ),
        (
            "{exec: {command: [x], waitTimeout: soon}}",
            ".exec.waitTimeout: ",
        ),
        ("{init: {initContainers: []}}", ".init.initContainers: "),
        (
            "{init: {timeout: x, initContainers: [{name: a, image: b, command: [c]}]}}",
            ".init.timeout: ",
        ),
        ("{}", ": "),
        ("{exec: {command: [x]}, init: {initContainers: []}}", ": "),
    ] {
        let error = mistake(&format!("resources: [{{postHooks: [{hook}]}}]"));
        let place = format!("resources[0].postHooks[0]{place}");
        assert!(error.starts_with(&place), "{error}");
    }
    let selector = mistake("resources: [{labelSelector: {matchLabels: {a: 'b c'}}}]");
    assert!(
        selector.starts_with("resources[0].labelSelector: "),
        "{selector}"
    );
    let namespace = mistake("resources: [{includedNamespaces: ['A']}]");
    assert!(
        namespace.starts_with("resources[0].includedNamespaces: "),
        "{namespace}"
    );
    assert!(mistake("resources: [{postHook: []}]").contains("postHook"));
}

#[test]
fn n30_no_timeout_is_the_default_and_never_for_ever() {
    for timeouts in ["", ", execTimeout: 0s, waitTimeout: '0'"] {
        let specs = specs(&format!(
            "resources: [{{postHooks: [{{exec: {{command: [x]{timeouts}}}}}]}}]"
        ));
        let hook = &exec_of(&pod(json!({})), &specs).0[0];
        assert_eq!(
            (hook.exec_timeout, hook.wait_timeout),
            (DEFAULT_TIMEOUT, DEFAULT_WAIT)
        );
    }
    let hook = annotated_exec(&[
        ("command", "x"),
        ("wait-timeout", "0"),
        ("exec-timeout", "0s"),
    ]);
    assert_eq!(hook, Some(exec(&["x"])));
}

#[test]
fn a_container_of_that_name_that_is_there_already_is_not_added_twice() {
    // What an earlier restore added, with what the API server added to it.
    let there = json!({"spec": {"initContainers": [
        {"name": "first", "image": "i", "command": ["x"], "terminationMessagePath": "/dev/termination-log"}, {"name": "a"},
    ]}});
    let (names, remarks) = init_names(&pod(there), &selecting(""), "ns");
    assert_eq!(
        (names, remarks.len()),
        (vec!["first".into(), "a".into()], 0)
    );
    for other in [
        json!({"spec": {"initContainers": [{"name": "first", "image": "other"}]}}),
        json!({"spec": {"containers": [{"name": "first"}]}}),
    ] {
        let (_, remarks) = init_names(&pod(other), &selecting(""), "ns");
        assert!(remarks[0].contains("init container first"), "{remarks:?}");
    }
}

#[test]
fn what_hooks_add_can_be_taken_out_again() {
    let defaulted = json!({"name": "first", "image": "i", "command": ["x"], "terminationMessagePath": "/dev/termination-log"});
    for own in [&[][..], &["a"], &["restore-wait", "a"]] {
        let before = match own {
            [] => pod(json!({})),
            own => with_init(own),
        };
        let mut changed = before.clone();
        selecting("").remove_init_containers(&mut changed, "ns");
        assert_eq!(changed, before);
        selecting("").add_init_containers(&mut changed, "ns", &mut Vec::new());
        for container in changed["spec"]["initContainers"].as_array_mut().unwrap() {
            if container["name"] == "first" {
                *container = defaulted.clone();
            }
        }
        assert_ne!(changed, before);
        selecting("").remove_init_containers(&mut changed, "ns");
        assert_eq!(changed, before);
    }
    // Another container of that name stays.
    let other = pod(json!({"spec": {"initContainers": [{"name": "first", "image": "other"}]}}));
    let mut same = other.clone();
    selecting("").remove_init_containers(&mut same, "ns");
    assert_eq!(same, other);
}

#[test]
fn an_init_annotation_with_an_impossible_name_is_remarked_and_not_run() {
    for name in ["No Name", "-a", "a-", "a.b", &"x".repeat(64)] {
        let pod = annotated(INIT, &[("container-image", "i"), ("container-name", name)]);
        let (names, remarks) = init_names(&pod, &RestoreHooks::default(), "ns");
        assert_eq!((names.len(), remarks.len()), (0, 1), "{name}");
        let start = format!("annotation {INIT}/container-name: ");
        assert!(remarks[0].starts_with(&start), "{remarks:?}");
    }
}

#[test]
fn none_means_not_even_those_of_annotations() {
    let mut pod = annotated(POST, &[("command", "x")]);
    merge(
        &mut pod,
        json!({"metadata": {"annotations": {"init.hook.restore.velero.io/container-image": "i"}}}),
    );
    let before = pod.clone();
    let after = RestoreHooks::none().apply(&mut pod, "ns", &mut Vec::new());
    assert!(after.is_empty() && pod == before);
}
