//! The cases are those of Velero's own tests of hooks (H…), as far as they are about deciding.

use super::*;
use crate::cluster::discover::ResourceType;
use serde_json::{Value, json};

fn pod(value: Value) -> Pod {
    let mut whole = json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"app": "db"}},
        "spec": {"containers": [{"name": "main"}, {"name": "side"}]},
        "status": {"phase": "Running"},
    });
    merge(&mut whole, value);
    serde_json::from_value(whole).unwrap()
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => from
            .into_iter()
            .for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value)),
        (into, from) => *into = from,
    }
}

fn annotated(annotations: Value) -> Pod {
    pod(json!({"metadata": {"annotations": annotations}}))
}

fn of(pod: &Pod) -> Option<PodHooks> {
    PodHooks::of(pod, &HookSpecs::default())
}

fn pre(annotations: Value) -> Step {
    of(&annotated(annotations)).unwrap().pre.remove(0)
}

fn step(command: &[&str]) -> Step {
    Step {
        name: "<from-annotation>".into(),
        container: "main".into(),
        command: command.iter().map(|&word| word.to_owned()).collect(),
        on_error: OnError::Fail,
        timeout: DEFAULT_TIMEOUT,
        problem: None,
    }
}

/// The names of a pod's hooks in each phase.
fn names(pod: &Pod, specs: &HookSpecs) -> (Vec<String>, Vec<String>) {
    let hooks = PodHooks::of(pod, specs);
    let names = |steps: &[Step]| steps.iter().map(|step| step.command.join(" ")).collect();
    hooks.map_or_else(Default::default, |hooks| {
        (names(&hooks.pre), names(&hooks.post))
    })
}

fn types() -> Vec<ResourceType> {
    let of = |resource: &str, kind: &str, short: &str| ResourceType {
        group: String::new(),
        version: "v1".into(),
        resource: resource.into(),
        singular: kind.to_lowercase(),
        kind: kind.into(),
        namespaced: true,
        short_names: vec![short.into()],
        verbs: Vec::new(),
    };
    vec![of("pods", "Pod", "po"), of("secrets", "Secret", "se")]
}

fn specs(yaml: &str) -> HookSpecs {
    HookSpecs::parse(yaml)
        .unwrap()
        .about_pods(&types())
        .unwrap()
}

/// One spec with this selection, a pre and a post hook.
fn selecting(selection: &str) -> HookSpecs {
    specs(&format!(
        "resources:\n- name: s\n{selection}  pre: [{{exec: {{command: [a]}}}}]\n  post: [{{exec: {{command: [b]}}}}]\n"
    ))
}

fn applies(selection: &str) -> bool {
    PodHooks::of(&pod(json!({})), &selecting(selection)).is_some()
}

#[test]
fn h01_an_invalid_selector_is_named_with_its_place() {
    let error = |selector: &str| {
        HookSpecs::parse(&format!("resources: [{{labelSelector: {selector}}}]")).unwrap_err()
    };
    for selector in [
        "{matchExpressions: [{key: a, operator: Maybe}]}",
        "{matchExpressions: [{key: a, operator: In}]}",
        "{matchExpressions: [{key: a, operator: Exists, values: [x]}]}",
        "{matchLabels: {'a b': c}}",
        "{matchLabels: {a: 'b c'}}",
    ] {
        let error = error(selector);
        assert!(error.starts_with("resources[0].labelSelector: "), "{error}");
    }
}

#[test]
fn h02_h03_h04_specs_without_filters_are_for_every_pod() {
    assert_eq!(
        names(&pod(json!({})), &selecting("")),
        (vec!["a".into()], vec!["b".into()])
    );
}

#[test]
fn h05_h06_pods_that_share_a_claim_are_one_group() {
    let with = |namespace: &str, name: &str, claims: &[&str]| PodHooks {
        namespace: namespace.into(),
        name: name.into(),
        uid: name.into(),
        phase: "Running".into(),
        claims: claims.iter().map(|&claim| claim.to_owned()).collect(),
        pre: Vec::new(),
        post: Vec::new(),
        remarks: Vec::new(),
    };
    let grouped = |pods: Vec<PodHooks>| -> Vec<Vec<String>> {
        let groups = groups(pods).into_iter();
        groups
            .map(|group| {
                group
                    .into_iter()
                    .map(|pod| format!("{}/{}", pod.namespace, pod.name))
                    .collect()
            })
            .collect()
    };
    assert_eq!(
        grouped(vec![
            with("n", "d", &["x", "y"]),
            with("n", "a", &["x"]),
            with("n", "c", &["y"]),
            with("n", "b", &[]),
            with("m", "a", &["x"]),
        ]),
        [vec!["m/a"], vec!["n/a", "n/c", "n/d"], vec!["n/b"]]
    );
    assert_eq!(grouped(Vec::new()), Vec::<Vec<String>>::new());
}

#[test]
fn the_claims_of_a_pod_are_those_it_names_and_those_of_its_ephemeral_volumes() {
    let volumes = json!([
        {"name": "log", "emptyDir": {}},
        {"name": "data", "persistentVolumeClaim": {"claimName": "shared"}},
        {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"]}}}},
    ]);
    let pod = pod(json!({
        "metadata": {"annotations": {"pre.hook.backup.velero.io/command": "x"}},
        "spec": {"volumes": volumes},
    }));
    assert_eq!(of(&pod).unwrap().claims, ["shared", "p-scratch"]);
}

#[test]
fn h09_h20_without_a_command_there_is_no_hook() {
    assert_eq!(of(&pod(json!({}))), None);
    assert_eq!(
        of(&annotated(
            json!({"pre.hook.backup.velero.io/container": "main", "pre.hook.backup.velero.io/command": ""})
        )),
        None
    );
}

#[test]
fn h11_h12_the_hooks_of_a_spec_keep_their_order() {
    let specs = specs(
        "resources:\n- pre: [{exec: {command: [a]}}, {exec: {command: [b]}}]\n  post: [{exec: {command: [c]}}, {exec: {command: [d]}}]\n- pre: [{exec: {command: [e]}}]\n",
    );
    assert_eq!(
        names(&pod(json!({})), &specs),
        (
            vec!["a".into(), "b".into(), "e".into()],
            vec!["c".into(), "d".into()]
        )
    );
}

#[test]
fn h13_h14_h15_annotations_of_every_form_are_understood() {
    for (annotation, is_pre) in [
        ("hook.backup.velero.io/command", true),
        ("pre.hook.backup.velero.io/command", true),
        ("post.hook.backup.velero.io/command", false),
        ("hook.backup.ark.heptio.com/command", true),
        ("pre.hook.backup.ark.heptio.com/command", true),
        ("post.hook.backup.ark.heptio.com/command", false),
    ] {
        let hooks = of(&annotated(json!({annotation: "x"}))).unwrap();
        let (found, other) = match is_pre {
            true => (&hooks.pre, &hooks.post),
            false => (&hooks.post, &hooks.pre),
        };
        assert_eq!(
            (found, other),
            (&vec![step(&["x"])], &vec![]),
            "{annotation}"
        );
    }
}

#[test]
fn arks_annotations_win_over_veleros_and_new_ones_over_old_ones() {
    let step = pre(json!({
        "pre.hook.backup.velero.io/command": "velero", "pre.hook.backup.velero.io/container": "side",
        "hook.backup.ark.heptio.com/command": "old", "pre.hook.backup.ark.heptio.com/command": "new",
        "hook.backup.ark.heptio.com/timeout": "1s",
    }));
    assert_eq!(
        (step.command, step.container.as_str(), step.timeout),
        (vec!["new".into()], "main", Duration::from_secs(1))
    );
}

#[test]
fn h16_h35_annotations_replace_all_specs_of_their_phase() {
    let pod = annotated(json!({"pre.hook.backup.velero.io/command": "x"}));
    assert_eq!(
        names(&pod, &selecting("")),
        (vec!["x".into()], vec!["b".into()])
    );
}

#[test]
fn h21_h22_h23_a_command_is_a_json_array_or_one_word() {
    for (text, expected) in [
        (r#"["a", "b c"]"#, vec!["a", "b c"]),
        (r#"["a""#, vec![r#"["a""#]),
        ("[1]", vec!["[1]"]),
        ("a b", vec!["a b"]),
    ] {
        let step = pre(json!({"pre.hook.backup.velero.io/command": text}));
        assert_eq!(step.command, expected, "{text}");
    }
}

#[test]
fn h24_h25_h26_on_error_and_timeout_are_parsed_and_odd_ones_remarked() {
    let hooks = |on_error: &str, timeout: &str| {
        of(&annotated(json!({
            "pre.hook.backup.velero.io/command": "x",
            "pre.hook.backup.velero.io/on-error": on_error,
            "pre.hook.backup.velero.io/timeout": timeout,
        })))
        .unwrap()
    };
    let of = |on_error: &str, timeout: &str| {
        let hooks = hooks(on_error, timeout);
        (
            hooks.pre[0].on_error,
            hooks.pre[0].timeout,
            hooks.remarks.len(),
        )
    };
    let seconds = Duration::from_secs;
    assert_eq!(of("Continue", "2m"), (OnError::Continue, seconds(120), 0));
    assert_eq!(of("Fail", ""), (OnError::Fail, DEFAULT_TIMEOUT, 0));
    assert_eq!(of("", "0"), (OnError::Fail, DEFAULT_TIMEOUT, 0));
    assert_eq!(of("continue", "30 s"), (OnError::Fail, DEFAULT_TIMEOUT, 2));
    assert_eq!(
        of("Continue", "-5s"),
        (OnError::Continue, DEFAULT_TIMEOUT, 1)
    );
}

#[test]
fn h27_h41_the_container_is_the_named_one_or_the_first() {
    let container = |name: &str| {
        pre(
            json!({"pre.hook.backup.velero.io/command": "x", "pre.hook.backup.velero.io/container": name}),
        )
    };
    assert_eq!(container("side").container, "side");
    assert_eq!(container("").container, "main");
}

#[test]
fn h28_to_h31_selections_are_joined_by_and() {
    assert!(applies(""));
    assert!(applies("  includedNamespaces: [ns]\n"));
    assert!(applies("  includedNamespaces: ['n*']\n"));
    assert!(!applies("  includedNamespaces: [other]\n"));
    assert!(!applies("  excludedNamespaces: [ns]\n"));
    for pods in ["pods", "po", "Pod", "'*'", "secrets, pods"] {
        assert!(
            applies(&format!("  includedResources: [{pods}]\n")),
            "{pods}"
        );
    }
    assert!(!applies("  includedResources: [secrets]\n"));
    assert!(!applies("  excludedResources: [pods]\n"));
    assert!(applies("  labelSelector: {matchLabels: {app: db}}\n"));
    assert!(!applies("  labelSelector: {matchLabels: {app: web}}\n"));
    assert!(!applies(
        "  includedNamespaces: [ns]\n  labelSelector: {matchLabels: {app: web}}\n"
    ));
}

#[test]
fn a_misspelt_type_is_named() {
    let specs = HookSpecs::parse("resources: [{includedResources: [pdos]}]").unwrap();
    let error = specs.about_pods(&types()).unwrap_err();
    assert!(
        error.starts_with("resources[0].includedResources: ") && error.contains("pdos"),
        "{error}"
    );
}

#[test]
fn h39_h45_a_container_that_is_missing_is_a_problem_and_a_sidecar_is_none() {
    let with_init = |policy: Value| {
        let mut pod = annotated(
            json!({"pre.hook.backup.velero.io/command": "x", "pre.hook.backup.velero.io/container": "init"}),
        );
        pod.spec.init_containers =
            serde_json::from_value(json!([{"name": "init", "restartPolicy": policy}])).unwrap();
        of(&pod).unwrap().pre.remove(0)
    };
    assert_eq!(with_init(json!("Always")).problem, None);
    assert_eq!(
        with_init(Value::Null).problem.as_deref(),
        Some("the pod has no container init (it has main, side)")
    );
}

#[test]
fn h40_an_empty_command_is_a_problem_of_the_pod_or_of_the_spec() {
    let step = pre(json!({"pre.hook.backup.velero.io/command": "[]"}));
    assert_eq!(step.problem.as_deref(), Some("its command is empty"));
    assert_eq!(
        HookSpecs::parse("resources: [{pre: [{exec: {}}]}]").unwrap_err(),
        "resources[0].pre[0].exec.command: it is empty"
    );
}

#[test]
fn h42_h43_specs_have_the_same_defaults_as_annotations() {
    let hooks = PodHooks::of(
        &pod(json!({})),
        &specs(
            "hooks: {resources: [{name: n, pre: [{exec: {command: [x]}}, {exec: {container: side, command: [y], onError: Continue, timeout: 5s}}]}]}",
        ),
    )
    .unwrap();
    let default = Step {
        name: "n".into(),
        ..step(&["x"])
    };
    let explicit = Step {
        container: "side".into(),
        on_error: OnError::Continue,
        timeout: Duration::from_secs(5),
        command: vec!["y".into()],
        ..default.clone()
    };
    assert_eq!(hooks.pre, [default, explicit]);
}

#[test]
fn what_is_wrong_in_a_document_is_named_with_its_place() {
    for (yaml, expected) in [
        (
            "resources: [{name: a, pre: [{exec: {command: [x], timeout: soon}}]}]",
            "resources[0].pre[0].exec.timeout: ",
        ),
        (
            "resources: [{}, {post: [{exec: {command: [x], onError: fail}}]}]",
            "resources[1].post[0].exec.onError: ",
        ),
        (
            "hooks: {resources: [{includedNamespaces: [A]}]}",
            "hooks.resources[0].includedNamespaces: ",
        ),
        (
            "resources: [{excludedResources: ['*']}]",
            "resources[0].includedResources: ",
        ),
        ("resources: [{pro: []}]", "pro"),
        ("resources: [{pre: [{init: {}}]}]", "init"),
        ("resources: 7", ""),
        ("", "there is no list"),
        ("hooks: {}\nresources: []", "one of them"),
    ] {
        let error = HookSpecs::parse(yaml).unwrap_err();
        assert!(error.contains(expected), "{yaml}: {error}");
    }
}

#[test]
fn original_arks_hooks_mean_pre() {
    let specs = specs("resources: [{hooks: [{exec: {command: [old]}}]}]");
    assert_eq!(names(&pod(json!({})), &specs).0, ["old"]);
}

#[test]
fn only_a_pod_that_is_frozen_and_can_be_thawed_is_recorded() {
    let hooks = |pre: bool, post: Option<&str>| {
        let mut annotations = json!({});
        if pre {
            annotations["pre.hook.backup.velero.io/command"] = "x".into();
        }
        if let Some(command) = post {
            annotations["post.hook.backup.velero.io/command"] = command.into();
        }
        of(&annotated(annotations)).unwrap()
    };
    assert_eq!(hooks(true, None).to_record(), None);
    assert_eq!(hooks(false, Some("y")).to_record(), None);
    assert_eq!(hooks(true, Some("[]")).to_record(), None);
    let recorded = hooks(true, Some("y")).to_record().unwrap();
    assert_eq!(Step::from(&recorded.hooks[0]), step(&["y"]));
    assert_eq!((recorded.name.as_str(), recorded.uid.as_str()), ("p", "u"));
}

#[test]
fn the_ledger_is_given_up_only_when_everything_is_thawed() {
    let frozen = |uid: &str| FrozenPod {
        uid: uid.into(),
        ..FrozenPod::default()
    };
    let ledger = Ledger::default();
    ledger.take(vec![frozen("a")]);
    ledger.add(frozen("b"));
    ledger.add(frozen("a"));
    assert_eq!(ledger.pods(), [frozen("b"), frozen("a")]);
    ledger.remove("b");
    ledger.release();
    assert!(ledger.is_held());
    ledger.remove("a");
    ledger.release();
    assert!(!ledger.is_held());
}

#[test]
fn the_time_to_thaw_is_that_of_all_post_hooks() {
    let specs = specs(
        "resources: [{pre: [{exec: {command: [x], timeout: 1h}}], post: [{exec: {command: [x], timeout: 20s}}]}, {post: [{exec: {command: [x]}}]}]",
    );
    assert_eq!(specs.longest_thaw(), Duration::from_secs(50));
}
