//! Where the spec of the pods is that an object is or makes.

/// The JSON pointer of the pod spec in objects of a built-in type (`resource.group`).
pub fn pointer(resource: &str) -> Option<&'static str> {
    Some(match resource {
        "pods" => "/spec",
        "podtemplates" => "/template/spec",
        "cronjobs.batch" => "/spec/jobTemplate/spec/template/spec",
        "deployments.apps"
        | "replicasets.apps"
        | "statefulsets.apps"
        | "daemonsets.apps"
        | "jobs.batch"
        | "replicationcontrollers" => "/spec/template/spec",
        _ => return None,
    })
}
