//! Service accounts and what each of them may do.
//!
//! `ark-backup` may *list* everything, and get nothing but what it needs by name: get on everything would include
//! `pods/exec` and the proxies, which is root in every pod; it may run commands only after `install --hooks`. `ark-restore`
//! is cluster-admin, as whoever creates arbitrary objects must be, but only while a restore runs (or always, with standing
//! rights). Snapshots are taken by `ark-backup` and swept up by `ark-housekeeping`, each with the objects of CSI that it needs.

use crate::manifest::Manifest;
use ark_job::api::{
    GROUP, PART_OF, PART_OF_LABEL, of_installation, restore_binding, service_account,
};
use ark_job::volumes::csi::{RIGHTS_OF_BACKUP, RIGHTS_OF_HOUSEKEEPING, Right};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;

/// Binding of standing rights: not [`restore_binding`], which the last restore out deletes.
pub const STANDING_BINDING: &str = "ark-restore-standing";
/// What `ark-restore` may do in the cluster while it waits for its rights: look at, and in the end delete, the binding.
pub const WAITING_ROLE: &str = "ark-restore-waiting";
/// What lets `ark-backup` run hooks: role and binding have this name.
pub const HOOKS_ROLE: &str = "ark-backup-hooks";
/// The roles of the whole cluster, of every installation.
const ROLES: [&str; 4] = [
    service_account::BACKUP,
    service_account::HOUSEKEEPING,
    WAITING_ROLE,
    HOOKS_ROLE,
];
const RBAC: &str = "rbac.authorization.k8s.io";

/// The bindings and roles of the whole cluster that belong to the Ark in `namespace`, and are not `kept`.
///
/// What names nobody but its service accounts is its own, whatever an earlier version called it; a role is when nothing but
/// what goes refers to it.
pub fn leftovers(
    namespace: &str,
    bindings: &[ClusterRoleBinding],
    roles: &[ClusterRole],
    kept: impl Fn(&str, &str) -> bool,
) -> (Vec<ClusterRoleBinding>, Vec<ClusterRole>) {
    let own = |binding: &&ClusterRoleBinding| {
        let subjects = binding.subjects.as_deref().unwrap_or_default();
        !subjects.is_empty()
            && subjects
                .iter()
                .all(|subject| subject.namespace.as_deref() == Some(namespace))
            && !kept("ClusterRoleBinding", name_of(&binding.metadata))
    };
    let (going, staying): (Vec<&ClusterRoleBinding>, Vec<&ClusterRoleBinding>) =
        bindings.iter().partition(own);
    let refers = |bindings: &[&ClusterRoleBinding], role: &str| {
        bindings.iter().any(|binding| binding.role_ref.name == role)
    };
    let names = ROLES.map(|name| of_installation(name, namespace));
    let unused = |role: &&ClusterRole| {
        let name = name_of(&role.metadata);
        (names.iter().any(|known| known == name) || refers(&going, name))
            && !refers(&staying, name)
            && !kept("ClusterRole", name)
    };
    (
        going.iter().copied().cloned().collect(),
        roles.iter().filter(unused).cloned().collect(),
    )
}

/// The bindings and roles in Ark's namespace that are not `kept`: those that name nobody but its service accounts, and those
/// that no other refers to.
pub fn leftovers_of_namespace<'a>(
    bindings: &'a [RoleBinding],
    roles: &'a [Role],
    kept: impl Fn(&str, &str) -> bool,
) -> (Vec<&'a RoleBinding>, Vec<&'a Role>) {
    let accounts = [
        service_account::BACKUP,
        service_account::RESTORE,
        service_account::HOUSEKEEPING,
    ];
    let own = |binding: &&RoleBinding| {
        let subjects = binding.subjects.as_deref().unwrap_or_default();
        let is_ours = |subject: &Subject| {
            subject.kind == "ServiceAccount" && accounts.contains(&subject.name.as_str())
        };
        subjects.iter().all(is_ours) && !kept("RoleBinding", name_of(&binding.metadata))
    };
    let (going, staying): (Vec<&RoleBinding>, Vec<&RoleBinding>) = bindings.iter().partition(own);
    let unused = |role: &&Role| {
        let name = name_of(&role.metadata);
        let refers = |binding: &&RoleBinding| {
            binding.role_ref.kind == "Role" && binding.role_ref.name == name
        };
        !kept("Role", name) && !staying.iter().any(refers)
    };
    (going, roles.iter().filter(unused).collect())
}

fn name_of(metadata: &ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or_default()
}

/// Labels of everything that `install` makes.
pub fn labels() -> BTreeMap<String, String> {
    [(PART_OF_LABEL.to_owned(), PART_OF.to_owned())].into()
}

/// Service accounts, roles and bindings, in the order in which they are applied.
pub fn objects(
    namespace: &str,
    annotations: &BTreeMap<String, BTreeMap<String, String>>,
    standing: bool,
    hooks: bool,
) -> Vec<Manifest> {
    let account = |name: &str| {
        Manifest::of(&ServiceAccount {
            metadata: ObjectMeta {
                annotations: annotations
                    .get(name)
                    .filter(|some| !some.is_empty())
                    .cloned(),
                ..named(name, Some(namespace))
            },
            ..ServiceAccount::default()
        })
    };
    let mut objects = vec![
        account(service_account::BACKUP),
        account(service_account::RESTORE),
        account(service_account::HOUSEKEEPING),
    ];
    let cluster_role = |name: &str, rules: Vec<PolicyRule>| {
        Manifest::of(&ClusterRole {
            metadata: named(&of_installation(name, namespace), None),
            rules: Some(rules),
            ..ClusterRole::default()
        })
    };
    let bind = |role: &str, account: &str| {
        let name = of_installation(role, namespace);
        Manifest::of(&cluster_binding(&name, &name, namespace, account))
    };
    objects.extend([
        cluster_role(
            service_account::BACKUP,
            [vec![rule(&["*"], &["*"], &[], &["list"])], snapshot_rules()].concat(),
        ),
        bind(service_account::BACKUP, service_account::BACKUP),
        cluster_role(WAITING_ROLE, giving_up_rules(namespace)),
        bind(WAITING_ROLE, service_account::RESTORE),
        cluster_role(
            service_account::HOUSEKEEPING,
            [giving_up_rules(namespace), sweep_rules()].concat(),
        ),
        bind(service_account::HOUSEKEEPING, service_account::HOUSEKEEPING),
    ]);
    if standing {
        objects.push(standing_binding(namespace));
    }
    if hooks {
        objects.extend(hooks_objects(namespace));
    }
    for (account, rules) in [
        (service_account::BACKUP, backup_rules()),
        (service_account::RESTORE, restore_rules()),
        (service_account::HOUSEKEEPING, housekeeping_rules()),
    ] {
        objects.push(Manifest::of(&Role {
            metadata: named(account, Some(namespace)),
            rules: Some(rules),
        }));
        objects.push(Manifest::of(&RoleBinding {
            metadata: named(account, Some(namespace)),
            role_ref: role_ref("Role", account),
            subjects: Some(vec![subject(namespace, account)]),
        }));
    }
    objects
}

/// The binding that gives restores cluster-admin all the time.
pub fn standing_binding(namespace: &str) -> Manifest {
    Manifest::of(&cluster_binding(
        &of_installation(STANDING_BINDING, namespace),
        "cluster-admin",
        namespace,
        service_account::RESTORE,
    ))
}

/// Role and binding that let backups run commands in pods.
pub fn hooks_objects(namespace: &str) -> [Manifest; 2] {
    let name = of_installation(HOOKS_ROLE, namespace);
    [
        Manifest::of(&ClusterRole {
            metadata: named(&name, None),
            // A command is run by GET, over a WebSocket, for which newer API servers demand the right to create, too.
            rules: Some(vec![rule(&[""], &["pods/exec"], &[], &["get", "create"])]),
            ..ClusterRole::default()
        }),
        Manifest::of(&cluster_binding(
            &name,
            &name,
            namespace,
            service_account::BACKUP,
        )),
    ]
}

/// A ClusterRoleBinding of `role` to a service account.
pub fn cluster_binding(
    name: &str,
    role: &str,
    namespace: &str,
    account: &str,
) -> ClusterRoleBinding {
    ClusterRoleBinding {
        metadata: named(name, None),
        role_ref: role_ref("ClusterRole", role),
        subjects: Some(vec![subject(namespace, account)]),
    }
}

/// What taking snapshots by CSI needs. Their names are not known beforehand.
fn snapshot_rules() -> Vec<PolicyRule> {
    RIGHTS_OF_BACKUP.iter().map(rule_of).collect()
}

/// What it takes to give up the rights of restores when the last one is out.
fn giving_up_rules(namespace: &str) -> Vec<PolicyRule> {
    vec![
        rule(
            &[RBAC],
            &["clusterrolebindings"],
            &[&restore_binding(namespace)],
            &["get", "delete"],
        ),
        rule(&[""], &["namespaces"], &[], &["list"]),
    ]
}

/// What deleting snapshots, and finding what no backup records, needs.
fn sweep_rules() -> Vec<PolicyRule> {
    let mut rules: Vec<PolicyRule> = RIGHTS_OF_HOUSEKEEPING.iter().map(rule_of).collect();
    // A volume of EBS that a restore has made is left alone when a persistentVolume names it.
    rules.push(rule(&[""], &["persistentvolumes"], &[], &["list"]));
    rules
}

fn rule_of(right: &Right) -> PolicyRule {
    let Right {
        group,
        resources,
        verbs,
    } = right;
    rule(&[group], resources, &[], verbs)
}

// Records are claimed with create, then written with update (precondition) and status patches.
const WRITE: &[&str] = &["get", "list", "create", "update", "patch"];

fn backup_rules() -> Vec<PolicyRule> {
    vec![
        rule(&[GROUP], &["backups", "backups/status"], &[], WRITE),
        rule(&[GROUP], &["backupstoragelocations"], &[], &["get", "list"]),
        // The mode and certificates of the location; the log of a failed backup, which goes when a retry succeeds.
        rule(&[""], &["configmaps"], &[], WRITE),
        rule(&[""], &["configmaps"], &[], &["delete"]),
        rule(&["batch"], &["jobs"], &[], &["get", "list"]),
    ]
}

fn restore_rules() -> Vec<PolicyRule> {
    vec![
        rule(&[GROUP], &["restores", "restores/status"], &[], WRITE),
        rule(
            &[GROUP],
            &["backups", "backupstoragelocations"],
            &[],
            &["get", "list"],
        ),
        rule(&[""], &["configmaps"], &[], WRITE),
        // The last restore out takes the rights away: it must see the others.
        rule(&["batch"], &["jobs"], &[], &["get", "list"]),
    ]
}

fn housekeeping_rules() -> Vec<PolicyRule> {
    let all = &["get", "list", "create", "update", "patch", "delete"];
    vec![
        rule(
            &[GROUP],
            &["backups", "backups/status", "restores", "restores/status"],
            &[],
            all,
        ),
        rule(&[GROUP], &["backupstoragelocations"], &[], &["get", "list"]),
        rule(
            &[GROUP],
            &["backupstoragelocations/status"],
            &[],
            &["get", "update", "patch"],
        ),
        rule(&[""], &["configmaps"], &[], all),
        rule(&[""], &["pods"], &[], &["get", "list"]),
        rule(&["batch"], &["jobs", "cronjobs"], &[], &["get", "list"]),
    ]
}

fn named(name: &str, namespace: Option<&str>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: namespace.map(str::to_owned),
        labels: Some(labels()),
        ..ObjectMeta::default()
    }
}

fn rule(groups: &[&str], resources: &[&str], names: &[&str], verbs: &[&str]) -> PolicyRule {
    let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
    PolicyRule {
        api_groups: Some(owned(groups)),
        resources: Some(owned(resources)),
        resource_names: (!names.is_empty()).then(|| owned(names)),
        verbs: owned(verbs),
        ..PolicyRule::default()
    }
}

fn role_ref(kind: &str, name: &str) -> RoleRef {
    RoleRef {
        api_group: RBAC.into(),
        kind: kind.into(),
        name: name.into(),
    }
}

fn subject(namespace: &str, account: &str) -> Subject {
    Subject {
        kind: "ServiceAccount".into(),
        name: account.into(),
        namespace: Some(namespace.into()),
        ..Subject::default()
    }
}
