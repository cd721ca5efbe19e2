//! Services: which addresses and ports the user chose, and which the cluster did.

use super::{Rules, map_mut};
use serde_json::Value;
use std::collections::BTreeSet;

/// As whom a restore writes: see `cluster/apply.rs`.
const FIELD_MANAGER: &str = "ark";

/// What kubectl was given when it last applied the object.
pub(super) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Cluster IPs are the cluster's; node ports too, unless the user asked for a certain one.
pub(super) fn service(object: &mut Value, rules: &Rules) {
    let explicit = ExplicitPorts::of(object);
    let Some(spec) = map_mut(object, "/spec") else {
        return;
    };
    if spec.get("clusterIP").and_then(Value::as_str) != Some("None") {
        spec.remove("clusterIP");
        spec.remove("clusterIPs");
    }
    if rules.preserve_node_ports {
        return;
    }
    if spec.get("type").and_then(Value::as_str) == Some("ExternalName") {
        return;
    }
    for port in spec
        .get_mut("ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if !explicit.node_port(port)
            && let Some(port) = port.as_object_mut()
        {
            port.remove("nodePort");
        }
    }
    let checked = spec.get("type").and_then(Value::as_str) == Some("LoadBalancer")
        && spec.get("externalTrafficPolicy").and_then(Value::as_str) == Some("Local");
    if checked && !explicit.health_check {
        spec.remove("healthCheckNodePort");
    }
}

/// Which ports of a service the user chose: what was applied with kubectl says so, else the managed fields.
#[derive(Debug, Default)]
struct ExplicitPorts {
    applied: Option<Vec<Value>>,
    managed: BTreeSet<String>,
    health_check: bool,
}

impl ExplicitPorts {
    fn of(service: &Value) -> ExplicitPorts {
        let applied = service["metadata"]["annotations"][LAST_APPLIED]
            .as_str()
            .and_then(|text| serde_json::from_str::<Value>(text).ok());
        let mut explicit = ExplicitPorts {
            applied: applied.as_ref().map(|applied| {
                applied["spec"]["ports"]
                    .as_array()
                    .cloned()
                    .unwrap_or_default()
            }),
            health_check: applied
                .as_ref()
                .is_some_and(|applied| number(&applied["spec"]["healthCheckNodePort"]).is_some()),
            ..ExplicitPorts::default()
        };
        for entry in service["metadata"]["managedFields"]
            .as_array()
            .into_iter()
            .flatten()
            // What a restore has kept nobody has chosen.
            .filter(|entry| entry["manager"] != FIELD_MANAGER)
        {
            let spec = &entry["fieldsV1"]["f:spec"];
            explicit.health_check |= spec.get("f:healthCheckNodePort").is_some();
            for (key, fields) in spec["f:ports"].as_object().into_iter().flatten() {
                if fields.get("f:nodePort").is_some() {
                    explicit.managed.insert(key.clone());
                }
            }
        }
        explicit
    }

    fn node_port(&self, port: &Value) -> bool {
        let Some(applied) = &self.applied else {
            let protocol = port["protocol"].as_str().unwrap_or("TCP");
            let key = format!(
                "k:{{\"port\":{},\"protocol\":\"{protocol}\"}}",
                port["port"]
            );
            return self.managed.contains(&key);
        };
        applied.iter().any(
            |candidate| match (port["name"].as_str(), candidate["name"].as_str()) {
                (Some(name), Some(other)) => {
                    name == other && number(&candidate["nodePort"]).is_some()
                }
                (None, None) => {
                    let chosen = number(&candidate["nodePort"]);
                    chosen.is_some() && chosen == number(&port["nodePort"])
                }
                _ => false,
            },
        )
    }
}

/// A port number that is set: not null, not 0; some write it as a string.
fn number(value: &Value) -> Option<u64> {
    value
        .as_u64()
        .or_else(|| value.as_str()?.parse().ok())
        .filter(|&number| number != 0)
}
