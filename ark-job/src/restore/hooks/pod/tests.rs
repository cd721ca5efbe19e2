//! The cases are those of Velero's own tests of hooks (N…), as far as they are about waiting.

use super::*;
use serde_json::json;

const WAIT: Duration = Duration::from_secs(60);

fn hook(container: &str, command: &str) -> ExecHook {
    ExecHook {
        name: "h".into(),
        container: container.into(),
        command: vec![command.into()],
        on_error: OnError::Continue,
        exec_timeout: Duration::from_secs(30),
        wait_timeout: WAIT,
        wait_for_ready: false,
    }
}

fn must(hook: ExecHook) -> ExecHook {
    ExecHook {
        on_error: OnError::Fail,
        ..hook
    }
}

fn ready(hook: ExecHook) -> ExecHook {
    ExecHook {
        wait_for_ready: true,
        ..hook
    }
}

fn waiting(exec: Vec<ExecHook>) -> (Waiting, Instant) {
    let now = Instant::now();
    let init = Vec::new();
    let hooks = AfterCreation { init, exec };
    (Waiting::new("ns", "p", hooks, now), now)
}

fn up(container: &str) -> Value {
    json!({"name": container, "state": {"running": {}}})
}

/// A running pod with the containers main and side, in these states.
fn seen(statuses: &[Value]) -> Seen {
    seen_with(json!({}), statuses)
}

fn seen_with(spec: Value, statuses: &[Value]) -> Seen {
    let mut pod = json!({
        "metadata": {"uid": "u"},
        "spec": {"restartPolicy": "Always", "containers": [{"name": "main"}, {"name": "side"}]},
        "status": {"phase": "Running", "containerStatuses": statuses},
    });
    for (key, value) in spec.as_object().unwrap() {
        pod["spec"][key] = value.clone();
    }
    Seen::try_from(pod).unwrap()
}

fn phase(phase: &str) -> Seen {
    let pod = json!({
        "metadata": {"uid": "u"}, "status": {"phase": phase},
        "spec": {"containers": [{"name": "main"}, {"name": "side"}]},
    });
    Seen::try_from(pod).unwrap()
}

fn commands(hooks: &[ExecHook]) -> Vec<String> {
    hooks.iter().map(|hook| hook.command.concat()).collect()
}

fn texts(failed: &[Unrun]) -> Vec<&str> {
    let start = "pod p: restore hook h in container ";
    let texts = failed.iter().map(|Unrun(text)| text.as_str());
    texts
        .map(|text| text.strip_prefix(start).unwrap_or(text))
        .collect()
}

#[test]
fn n22_n23_hooks_run_when_their_container_is_up() {
    let (mut pod, now) = waiting(vec![hook("main", "a"), hook("main", "b")]);
    assert_eq!(pod.look(Some(&phase("Pending")), now), (vec![], vec![]));
    let (failed, run) = pod.look(Some(&seen(&[up("main")])), now);
    assert_eq!(
        (failed, commands(&run)),
        (vec![], vec!["a".into(), "b".into()])
    );
    assert_eq!(pod.count(), 0);
}

#[test]
fn n24_a_hook_that_has_waited_too_long_is_never_run() {
    for (first, left) in [(hook("main", "a"), 1), (must(hook("main", "a")), 0)] {
        let later = ExecHook {
            wait_timeout: 3 * WAIT,
            ..hook("main", "b")
        };
        let (mut pod, now) = waiting(vec![first.clone(), later]);
        let (failed, run) = pod.look(Some(&phase("Pending")), now + WAIT);
        assert_eq!(run, []);
        let mut expected =
            vec!["main was not run: its container was not up within 60s: the pod is Pending"];
        if left == 0 {
            expected.push("main was not run: a hook before it failed, and its onError is Fail");
        }
        assert_eq!((texts(&failed), pod.count()), (expected, left));
        // It comes up when it is too late for the first.
        let (mut pod, now) = waiting(vec![first]);
        let (_, run) = pod.look(Some(&seen(&[up("main")])), now + WAIT);
        let late = pod.has_expired(&run[0], now + WAIT).unwrap();
        assert_eq!(
            texts(&[late]),
            ["main was not run: its turn did not come within 60s after the pod was created"]
        );
    }
}

#[test]
fn time_in_which_others_run_is_not_waiting() {
    let (mut pod, now) = waiting(vec![hook("main", "a")]);
    pod.was_held_up(WAIT);
    assert_eq!(pod.has_expired(&hook("main", "a"), now + WAIT), None);
    assert!(
        pod.has_expired(&hook("main", "a"), now + 2 * WAIT)
            .is_some()
    );
}

#[test]
fn n26_containers_that_come_up_one_after_the_other_both_get_their_hooks() {
    let (mut pod, now) = waiting(vec![
        hook("main", "a"),
        hook("side", "b"),
        hook("main", "c"),
    ]);
    let (_, run) = pod.look(Some(&seen(&[up("side")])), now);
    assert_eq!(commands(&run), ["b"]);
    let (_, run) = pod.look(Some(&seen(&[up("side"), up("main")])), now);
    assert_eq!(
        (commands(&run), pod.count()),
        (vec!["a".into(), "c".into()], 0)
    );
    // Both up: one container after the other, hooks in a pod never overlap.
    let (mut pod, now) = waiting(vec![hook("side", "a"), hook("main", "b")]);
    let both = seen(&[up("side"), up("main")]);
    assert_eq!(commands(&pod.look(Some(&both), now).1), ["a"]);
    assert_eq!(commands(&pod.look(Some(&both), now).1), ["b"]);
}

#[test]
fn n28_a_hook_for_a_container_that_does_not_exist_ends_at_once() {
    let (mut pod, now) = waiting(vec![hook("nope", "a"), hook("main", "b")]);
    let (failed, run) = pod.look(Some(&seen(&[up("main")])), now);
    assert_eq!(
        texts(&failed),
        ["nope was not run: the pod has no container nope (it has main, side)"]
    );
    assert_eq!(commands(&run), ["b"]);
    let (mut pod, now) = waiting(vec![must(hook("nope", "a")), hook("main", "b")]);
    let (failed, run) = pod.look(Some(&seen(&[up("main")])), now);
    assert_eq!((failed.len(), run.len(), pod.count()), (2, 0, 0));
}

#[test]
fn n29_a_container_is_up_when_it_runs_and_is_ready_if_asked() {
    let is_up = |status: Value, ready| seen(&[status]).is_up("main", ready);
    let running = |is_ready: bool| json!({"name": "main", "ready": is_ready, "state": {"running": {"startedAt": "t"}}});
    assert!(is_up(running(false), false) && is_up(running(true), false));
    assert!(!is_up(running(false), true) && is_up(running(true), true));
    for state in [
        json!({}),
        json!({"waiting": {"reason": "x"}}),
        json!({"terminated": {"exitCode": 0}}),
    ] {
        assert!(!is_up(json!({"name": "main", "state": state}), false));
    }
    let ended = json!({"name": "side", "state": {"terminated": {"exitCode": 1}}});
    assert!(seen(&[ended, up("main")]).is_up("main", false));
}

#[test]
fn a_hook_that_waits_for_readiness_holds_up_those_after_it_in_its_container() {
    let (mut pod, now) = waiting(vec![
        ready(hook("main", "a")),
        hook("main", "b"),
        hook("side", "c"),
    ]);
    let (_, run) = pod.look(Some(&seen(&[up("main"), up("side")])), now);
    assert_eq!((commands(&run), pod.count()), (vec!["c".into()], 2));
}

#[test]
fn a_sidecar_among_the_init_containers_can_have_hooks() {
    let spec =
        json!({"initContainers": [{"name": "proxy", "restartPolicy": "Always"}, {"name": "init"}]});
    let mut pod = seen_with(spec, &[]);
    let status = json!([up("proxy")]);
    pod.status.init_container_statuses = serde_json::from_value(status).unwrap();
    let (mut hooks, now) = waiting(vec![hook("proxy", "a"), hook("init", "b")]);
    let (failed, run) = hooks.look(Some(&pod), now);
    assert_eq!(commands(&run), ["a"]);
    assert_eq!(
        texts(&failed),
        ["init was not run: the pod has no container init (it has main, side, proxy)"]
    );
}

#[test]
fn n25_what_has_ended_or_is_gone_runs_nothing() {
    let mut deleted = seen(&[up("main")]);
    deleted.metadata.deletion_timestamp = Some("2026-01-01T00:00:00Z".into());
    let pods = [
        (None, "the pod is gone"),
        (Some(phase("Succeeded")), "the pod has ended (Succeeded)"),
        (Some(phase("Failed")), "the pod has ended (Failed)"),
        (Some(deleted), "the pod is being deleted"),
    ];
    for (seen, why) in pods {
        let (mut pod, now) = waiting(vec![hook("main", "a"), hook("side", "b")]);
        let (failed, run) = pod.look(seen.as_ref(), now);
        let expected = ["main", "side"].map(|container| format!("{container} was not run: {why}"));
        assert_eq!(
            (texts(&failed), run),
            (expected.each_ref().map(String::as_str).to_vec(), vec![])
        );
        assert_eq!(pod.count(), 0);
    }
    let (mut pod, now) = waiting(vec![hook("main", "a")]);
    pod.look(Some(&seen(&[])), now);
    let mut other = seen(&[up("main")]);
    other.metadata.uid = "another".into();
    let (failed, run) = pod.look(Some(&other), now);
    assert_eq!(run, []);
    assert_eq!(
        texts(&failed),
        ["main was not run: the pod is gone, and another has its name"]
    );
}

#[test]
fn a_container_that_will_not_run_again_ends_its_hooks_at_once() {
    let ended = |code: i32| json!({"name": "main", "state": {"terminated": {"exitCode": code}}});
    for (policy, code, over) in [
        ("Never", 1, true),
        ("Never", 0, true),
        ("OnFailure", 0, true),
        ("OnFailure", 1, false),
        ("Always", 0, false),
    ] {
        let seen = seen_with(json!({"restartPolicy": policy}), &[ended(code)]);
        let (mut pod, now) = waiting(vec![hook("main", "a")]);
        let (failed, _) = pod.look(Some(&seen), now);
        assert_eq!(failed.len() == 1, over, "{policy} {code}: {failed:?}");
    }
}

#[test]
fn n33_every_hook_that_has_not_run_is_counted_once() {
    let (mut pod, now) = waiting(vec![
        must(hook("main", "a")),
        hook("main", "b"),
        hook("side", "c"),
    ]);
    assert_eq!(pod.count(), 3);
    let (_, mut run) = pod.look(Some(&seen(&[up("main")])), now);
    assert_eq!((run.len() as u64, pod.count()), (2, 1));
    // The first fails: what was to run after it does not, nor what still waits.
    let left = pod.stop(run.split_off(1));
    assert_eq!((left.len(), pod.count()), (2, 0));
}

#[test]
fn an_init_container_must_have_ended_well_in_time() {
    let init = |now| {
        let init = vec![InitHook {
            container: "init".into(),
            timeout: WAIT,
        }];
        let exec = Vec::new();
        Waiting::new("ns", "p", AfterCreation { init, exec }, now)
    };
    let now = Instant::now();
    let with = |state: Value| {
        let mut seen = phase("Pending");
        let status = json!([{"name": "init", "state": state}]);
        seen.status.init_container_statuses = serde_json::from_value(status).unwrap();
        seen
    };
    let mut pod = init(now);
    let waits = with(json!({"waiting": {"reason": "ImagePullBackOff"}}));
    assert_eq!(pod.look(Some(&waits), now).0, []);
    let (failed, _) = pod.look(Some(&waits), now + WAIT);
    assert_eq!(
        texts(&failed),
        [
            "pod p: init container init of a restore hook has not ended within 60s: it waits: ImagePullBackOff"
        ]
    );
    let mut pod = init(now);
    assert_eq!(
        pod.look(
            Some(&with(json!({"terminated": {"exitCode": 0}}))),
            now + WAIT
        )
        .0,
        []
    );
    assert_eq!(pod.count(), 0);
    let mut pod = init(now);
    assert_eq!(
        pod.look(Some(&with(json!({"terminated": {"exitCode": 1}}))), now)
            .0,
        []
    );
    assert_eq!(pod.count(), 1, "it may be started again");
}
