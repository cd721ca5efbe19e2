//! The policy that tells a person who creates a Backup or a Restore by hand which command makes one.
//!
//! Both are records: `ark-job` writes them, and nothing happens because of them. The policy stops mistakes, not attacks, and
//! never a recovery: what bears the mark of a run, or of sync, passes, whoever brings it (a backup tool, another cluster's
//! GitOps), and so does all that Ark's own service accounts write, and everything should the policy itself fail. It is one
//! for all installations of a cluster, since it is about resource types that are.

use crate::manifest::Manifest;
use crate::{client, rights};
use ark_job::api::{GROUP, ORIGIN_ANNOTATION, RUN_ANNOTATION, service_account};
use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, NamedRuleWithOperations, ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding, ValidatingAdmissionPolicyBindingSpec,
    ValidatingAdmissionPolicySpec, Validation,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::Client;

/// Name of the policy and of its binding.
pub const POLICY: &str = "records.ark.heptio.com";
/// Where API servers since Kubernetes 1.30 serve policies.
const GROUP_VERSION: &str = "admissionregistration.k8s.io/v1";

/// The policy and its binding, in the order in which they are applied.
pub fn objects() -> [Manifest; 2] {
    let metadata = || ObjectMeta {
        name: Some(POLICY.into()),
        labels: Some(rights::labels()),
        ..ObjectMeta::default()
    };
    let texts = |texts: &[&str]| Some(texts.iter().map(ToString::to_string).collect());
    let policy = ValidatingAdmissionPolicy {
        metadata: metadata(),
        spec: Some(ValidatingAdmissionPolicySpec {
            // Never in the way of a recovery.
            failure_policy: Some("Ignore".into()),
            // With the API server's defaults spelled out: the field is owned as a whole, so without them everybody who
            // applies it would be in conflict with everybody else.
            match_constraints: Some(MatchResources {
                match_policy: Some("Equivalent".into()),
                namespace_selector: Some(LabelSelector::default()),
                object_selector: Some(LabelSelector::default()),
                resource_rules: Some(vec![NamedRuleWithOperations {
                    api_groups: texts(&[GROUP]),
                    api_versions: texts(&["*"]),
                    operations: texts(&["CREATE"]),
                    resources: texts(&["backups", "restores"]),
                    scope: Some("*".into()),
                    ..NamedRuleWithOperations::default()
                }]),
                ..MatchResources::default()
            }),
            validations: Some(vec![Validation {
                expression: expression(),
                message: Some(
                    "a record that Ark writes: kubectl ark backup create, or kubectl ark restore create"
                        .into(),
                ),
                message_expression: Some(message()),
                reason: Some("Forbidden".into()),
            }]),
            ..ValidatingAdmissionPolicySpec::default()
        }),
        status: None,
    };
    let binding = ValidatingAdmissionPolicyBinding {
        metadata: metadata(),
        spec: Some(ValidatingAdmissionPolicyBindingSpec {
            policy_name: Some(POLICY.into()),
            validation_actions: texts(&["Deny"]),
            ..ValidatingAdmissionPolicyBindingSpec::default()
        }),
    };
    [Manifest::of(&policy), Manifest::of(&binding)]
}

/// What passes: records that a run or sync has made, whoever writes them, and all that Ark's service accounts write.
fn expression() -> String {
    let accounts = [
        service_account::BACKUP,
        service_account::RESTORE,
        service_account::HOUSEKEEPING,
    ]
    .map(|account| {
        format!(
            "request.userInfo.username == 'system:serviceaccount:' + request.namespace + ':{account}'"
        )
    });
    let marks = [RUN_ANNOTATION, ORIGIN_ANNOTATION]
        .map(|mark| format!("'{mark}' in object.metadata.annotations"));
    format!(
        "(has(object.metadata.annotations) && ({})) || {}",
        marks.join(" || "),
        accounts.join(" || ")
    )
}

/// The command that makes what was wanted.
fn message() -> String {
    let name = "(has(object.metadata.name) ? object.metadata.name : 'NAME')";
    let of_backup = format!(
        "'a Backup is a record that Ark writes, and creating one backs up nothing; this backs up: kubectl ark backup create ' + {name}"
    );
    // Of any type, since the API server checks this text against both.
    let backup = "(has(object.spec) && has(dyn(object.spec).backupName) ? dyn(object.spec).backupName : 'BACKUP')";
    let of_restore = format!(
        "'a Restore is a record that Ark writes, and creating one restores nothing; this restores: kubectl ark restore create ' + {backup}"
    );
    format!("request.resource.resource == 'backups' ? {of_backup} : {of_restore}")
}

/// Whether the cluster has such policies; before Kubernetes 1.30 it does without.
///
/// # Errors
/// When discovery fails.
pub async fn is_served(client: &Client) -> kube::Result<bool> {
    match client.list_api_group_resources(GROUP_VERSION).await {
        Ok(list) => Ok(list
            .resources
            .iter()
            .any(|one| one.name == "validatingadmissionpolicies")),
        Err(error) if client::is_not_found(&error) => Ok(false),
        Err(error) => Err(error),
    }
}
