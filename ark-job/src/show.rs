//! Show: one object of a backup, to standard output. What is said goes to standard error.
//!
//! It reads the marker, the footer and the one member that holds the object, however large the backup is. It writes
//! nothing, so it needs no identity and no record; with a storage URL it needs no cluster.

use crate::archive::footer::{Footer, Member, TypeEntry};
use crate::archive::key;
use crate::args::{FetchFile, ShowArgs, ShowFormat, StorageFlags};
use crate::context::Outcome;
use crate::error::Failure;
use crate::exit::Exit;
use crate::fetch::Stored;
use crate::filter::Named;
use crate::repository::{OpenBackup, Served, open_backup};
use crate::restore::prepare::{Rules, normalise, strip_noise};
use crate::stdout;
use crate::store::Store;
use crate::yaml::yaml;
use bytes::Bytes;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// Other objects of the same name that are told of when the one asked for is not there.
const NEAR_MISSES: usize = 5;
/// A longer list of names is not read just for a hint, bytes: this is about two million objects.
const NAMES_MAX: u64 = 16 << 20;
/// No list of names is unpacked beyond this many bytes.
const NAMES_UNPACKED_MAX: u64 = 256 << 20;

/// Prints one object of a backup.
///
/// # Errors
/// [`Exit::NotFound`] when it is not in the backup; or the backup cannot be read.
pub async fn run(
    store: &Store,
    arguments: &ShowArgs,
    temporary: &Path,
) -> Result<Outcome, Failure> {
    let text = show(store, arguments, temporary).await?;
    stdout::write(Bytes::from(text)).await?;
    Ok(Outcome {
        exit: Exit::Done,
        message: format!("{} of backup {}", arguments.object, arguments.backup),
        hint: None,
    })
}

/// The text of one object of a backup, as [`run`] prints it.
///
/// # Errors
/// As [`run`].
pub async fn show(
    store: &Store,
    arguments: &ShowArgs,
    temporary: &Path,
) -> Result<String, Failure> {
    let ShowArgs {
        backup,
        object,
        storage,
        all_fields,
        output,
    } = arguments;
    let asked = Asked::parse(object)?;
    let backup = Arc::new(open_backup(store, backup, temporary, Served::new()).await?);
    let types = asked.types(&backup.footer, storage)?;
    for entry in types {
        if let Some(body) = find(&backup, entry, asked.namespace, asked.name).await? {
            return text(&entry.resource, &body, *all_fields, *output).map_err(|why| {
                let name = &arguments.backup;
                Failure::new(Exit::Integrity, format!("{object} of backup {name}: {why}"))
                    .hint("--all-fields -o json prints the bytes that are stored")
            });
        }
    }
    let name = &arguments.backup;
    let near = near_misses(store, name, &backup.footer, &asked).await;
    let failure = Failure::new(
        Exit::NotFound,
        format!("there is no {object} in backup {name}"),
    );
    Err(failure.hint(match &near[..] {
        [] => arguments.storage.lists(name),
        near => format!("there is {}", near.join(", ")),
    }))
}

/// `NAMESPACE/TYPE/NAME` or `TYPE/NAME`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked<'a> {
    namespace: Option<&'a str>,
    type_name: &'a str,
    name: &'a str,
}

impl<'a> Asked<'a> {
    fn parse(object: &'a str) -> Result<Asked<'a>, Failure> {
        let parts: Vec<&str> = object.split('/').collect();
        let (namespace, type_name, name) = match parts[..] {
            [namespace, type_name, name] => (Some(namespace), type_name, name),
            [type_name, name] => (None, type_name, name),
            _ => (None, "", ""),
        };
        if type_name.is_empty() || name.is_empty() || namespace == Some("") {
            return Err(Failure::new(
                Exit::Usage,
                format!(
                    "{object:?} is not of the form NAMESPACE/TYPE/NAME, or TYPE/NAME of a cluster-scoped object"
                ),
            ));
        }
        Ok(Asked {
            namespace,
            type_name,
            name,
        })
    }

    /// The types that are called so and have the right scope, in the order in which they are looked at.
    fn types<'f>(
        &self,
        footer: &'f Footer,
        storage: &StorageFlags,
    ) -> Result<Vec<&'f TypeEntry>, Failure> {
        let called = types_called(self.type_name, footer);
        let Some(first) = called.first() else {
            let backup = &footer.head.backup;
            return Err(Failure::new(
                Exit::NotFound,
                format!("no type in backup {backup} is called {:?}", self.type_name),
            )
            .hint(format!(
                "NAMESPACE/TYPE/NAME, or TYPE/NAME of a cluster-scoped object, is expected; {} (short names of custom resources are not known here)",
                storage.lists(backup)
            )));
        };
        let namespaced = self.namespace.is_some();
        if called.iter().all(|entry| entry.namespaced != namespaced) {
            let (resource, name) = (&first.resource, self.name);
            let why = match namespaced {
                true => format!("{resource} are cluster-scoped: {resource}/{name}"),
                false => format!("{resource} live in namespaces: NAMESPACE/{resource}/{name}"),
            };
            return Err(Failure::new(Exit::Usage, why));
        }
        Ok(called
            .into_iter()
            .filter(|entry| entry.namespaced == namespaced)
            .collect())
    }
}

/// The types of a backup that a user may mean by `name`: the core group first, then Kubernetes' own, as kubectl.
fn types_called<'f>(name: &str, footer: &'f Footer) -> Vec<&'f TypeEntry> {
    let lower = name.to_lowercase();
    let (plain, group) = match lower.split_once('.') {
        Some((plain, group)) => (plain, Some(group)),
        None => (&lower[..], None),
    };
    let mut found: Vec<&TypeEntry> = footer
        .head
        .types
        .iter()
        .filter(|entry| {
            let its_group = group_of(entry);
            // `deployments.v1.apps` names the version too.
            let versioned = || {
                let version = entry.api_version.rsplit('/').next().unwrap_or_default();
                group.is_some_and(|group| {
                    group == version
                        || group.strip_prefix(version) == Some(&format!(".{its_group}"))
                })
            };
            entry.is_called(plain) && (group.is_none_or(|group| group == its_group) || versioned())
        })
        .collect();
    found.sort_by_key(|entry| {
        let group = group_of(entry);
        let own = !group.contains('.') || group.ends_with(".k8s.io");
        (!group.is_empty(), !own, group)
    });
    found
}

fn group_of(entry: &TypeEntry) -> &str {
    entry
        .resource
        .split_once('.')
        .map_or("", |(_, group)| group)
}

/// The members that may hold an object, by index: one, unless the type is not in order.
fn members(footer: &Footer, entry: &TypeEntry, namespace: Option<&str>, name: &str) -> Vec<usize> {
    let wanted = key(namespace, name);
    let may_hold = |member: &Member| {
        member.resource == entry.resource
            && member
                .part
                .as_deref()
                .is_none_or(|part| Some(part) == namespace)
            && (entry.unsorted || (member.first <= wanted && wanted <= member.last))
    };
    let members = footer.members.iter().enumerate();
    members
        .filter(|(_, member)| may_hold(member))
        .map(|(index, _)| index)
        .collect()
}

/// The bytes of an object as stored; its members are read one by one.
async fn find(
    backup: &Arc<OpenBackup>,
    entry: &TypeEntry,
    namespace: Option<&str>,
    name: &str,
) -> Result<Option<Vec<u8>>, Failure> {
    for index in members(&backup.footer, entry, namespace, name) {
        let member = backup.read_member(index).await?;
        let found = member
            .entries()
            .find(|object| object.namespace == namespace && object.name == name);
        if let Some(object) = found {
            return Ok(Some(object.body.to_vec()));
        }
    }
    Ok(None)
}

/// What is printed of an object.
fn text(
    resource: &str,
    body: &[u8],
    all_fields: bool,
    format: ShowFormat,
) -> Result<String, String> {
    if all_fields && format == ShowFormat::Json {
        // Byte for byte as stored: nothing is decoded, no number changed.
        let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
        return Ok(format!("{text}\n"));
    }
    let mut object: Value = serde_json::from_slice(body)
        .map_err(|error| format!("it is not JSON that can be read: {error}"))?;
    if !all_fields {
        // Not `prepare`: what a restore leaves out can be looked at.
        normalise(resource, &mut object, &Rules::default());
        strip_noise(resource, &mut object);
    }
    Ok(match format {
        ShowFormat::Yaml => yaml(&object),
        ShowFormat::Json => format!("{object:#}\n"),
    })
}

/// Objects of the same name elsewhere, as they can be asked for, from the stored list of names.
///
/// Only for a hint: when the list cannot be read, there is none.
async fn near_misses(
    store: &Store,
    backup: &str,
    footer: &Footer,
    asked: &Asked<'_>,
) -> Vec<String> {
    match read_names(store, backup).await {
        Some(names) => find_near(&names, footer, asked),
        None => Vec::new(),
    }
}

async fn read_names(store: &Store, backup: &str) -> Option<BTreeMap<String, Vec<String>>> {
    let mut stored = Stored::open(store, backup, FetchFile::ResourceList)
        .await
        .ok()
        .filter(|stored| stored.length() <= NAMES_MAX)?;
    let mut gzip = Vec::new();
    while let Some(piece) = stored.next().await.ok()? {
        gzip.extend_from_slice(&piece);
    }
    let mut json = Vec::new();
    flate2::read::GzDecoder::new(&gzip[..])
        .take(NAMES_UNPACKED_MAX)
        .read_to_end(&mut json)
        .ok()?;
    serde_json::from_slice(&json).ok()
}

/// First the same type, then others.
fn find_near(
    names: &BTreeMap<String, Vec<String>>,
    footer: &Footer,
    asked: &Asked<'_>,
) -> Vec<String> {
    let called = types_called(asked.type_name, footer);
    let mut types: Vec<&TypeEntry> = footer.head.types.iter().collect();
    types.sort_by_key(|entry| !called.contains(entry));
    let mut near = Vec::new();
    for entry in types {
        let title = format!("{}/{}", entry.api_version, entry.kind);
        for full in names.get(&title).into_iter().flatten() {
            let (namespace, name) = match full.split_once('/') {
                Some((namespace, name)) if entry.namespaced => (Some(namespace), name),
                _ => (None, full.as_str()),
            };
            if name == asked.name {
                near.push(place(&entry.resource, namespace, name));
                if near.len() == NEAR_MISSES {
                    return near;
                }
            }
        }
    }
    near
}

/// `NAMESPACE/TYPE/NAME` or `TYPE/NAME`: how an object is asked for, and how a difference is headed.
pub fn place(resource: &str, namespace: Option<&str>, name: &str) -> String {
    match namespace {
        Some(namespace) => format!("{namespace}/{resource}/{name}"),
        None => format!("{resource}/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::footer::Head;
    use serde_json::json;

    fn entry(resource: &str, api_version: &str, kind: &str, namespaced: bool) -> TypeEntry {
        TypeEntry {
            resource: resource.into(),
            api_version: api_version.into(),
            kind: kind.into(),
            namespaced,
            items: 1,
            bytes: 1,
            unsorted: false,
            resource_version: None,
        }
    }

    fn member(resource: &str, part: Option<&str>, first: &str, last: &str) -> Member {
        Member {
            offset: 0,
            length: 1,
            size: 1,
            sha256: String::new(),
            resource: resource.into(),
            part: part.map(str::to_owned),
            items: 1,
            first: first.into(),
            last: last.into(),
        }
    }

    fn footer() -> Footer {
        Footer {
            head: Head {
                backup: "b".into(),
                types: vec![
                    entry("configmaps", "v1", "ConfigMap", true),
                    entry("deployments.apps", "apps/v1", "Deployment", true),
                    entry(
                        "deployments.example.com",
                        "example.com/v1",
                        "Deployment",
                        true,
                    ),
                    entry("namespaces", "v1", "Namespace", false),
                    entry("secrets", "v1", "Secret", true),
                ],
                ..Head::default()
            },
            members: vec![
                member("configmaps", None, "a-b/x", "a/m"),
                member("configmaps", None, "a/n", "b/z"),
                member("secrets", Some("a"), "a/b", "a/y"),
                member("secrets", Some("b"), "b/b", "b/y"),
                member("namespaces", None, "a", "b"),
            ],
        }
    }

    #[test]
    fn what_is_asked_for_has_two_or_three_parts() {
        let asked = |text| {
            Asked::parse(text)
                .map(|asked| (asked.namespace, asked.type_name, asked.name))
                .map_err(|failure| failure.exit())
        };
        assert_eq!(asked("a/cm/x"), Ok((Some("a"), "cm", "x")));
        assert_eq!(asked("ns/a"), Ok((None, "ns", "a")));
        for wrong in ["", "x", "a/", "/x", "/cm/x", "a//x", "a/cm/", "a/b/c/d"] {
            assert_eq!(asked(wrong), Err(Exit::Usage), "{wrong}");
        }
    }

    #[test]
    fn types_are_found_by_every_name_that_kubectl_knows() {
        let footer = footer();
        let called = |name: &str| -> Vec<String> {
            let found = types_called(name, &footer).into_iter();
            found.map(|entry| entry.resource.clone()).collect()
        };
        for name in [
            "configmaps",
            "configmap",
            "ConfigMap",
            "cm",
            "CM",
            "configmaps.v1",
        ] {
            assert_eq!(called(name), ["configmaps"], "{name}");
        }
        let both = ["deployments.apps", "deployments.example.com"];
        for name in ["deploy", "deployments"] {
            let expected = if name == "deploy" { &both[..1] } else { &both };
            assert_eq!(called(name), expected, "{name}");
        }
        for name in [
            "deployments.apps",
            "deployment.apps",
            "deploy.apps",
            "deployments.v1.apps",
        ] {
            assert_eq!(called(name), ["deployments.apps"], "{name}");
        }
        assert_eq!(called("ns"), ["namespaces"]);
        assert_eq!(called("nothing"), [""; 0]);
    }

    #[test]
    fn the_scope_of_a_type_is_said_when_it_is_another() {
        let footer = footer();
        let storage = StorageFlags::default();
        let types = |text| {
            let types = Asked::parse(text).unwrap().types(&footer, &storage);
            types
                .map(|found| found.len())
                .map_err(|failure| (failure.exit(), failure.message().to_owned()))
        };
        assert_eq!(types("a/cm/x"), Ok(1));
        let wrong = "configmaps live in namespaces: NAMESPACE/configmaps/x";
        assert_eq!(types("cm/x"), Err((Exit::Usage, wrong.into())));
        let wrong = "namespaces are cluster-scoped: namespaces/x";
        assert_eq!(types("a/ns/x"), Err((Exit::Usage, wrong.into())));
        assert_eq!(types("a/nothing/x").unwrap_err().0, Exit::NotFound);
    }

    #[test]
    fn one_member_is_read_of_a_type_in_order_and_those_of_the_part_otherwise() {
        let mut footer = footer();
        let read = |footer: &Footer, resource: &str, namespace, name| {
            members(
                footer,
                footer.type_entry(resource).unwrap(),
                namespace,
                name,
            )
        };
        assert_eq!(read(&footer, "configmaps", Some("a"), "m"), [0]);
        assert_eq!(read(&footer, "configmaps", Some("a"), "q"), [1]);
        assert_eq!(read(&footer, "configmaps", Some("c"), "q"), [0; 0]);
        assert_eq!(read(&footer, "secrets", Some("b"), "q"), [3]);
        assert_eq!(read(&footer, "secrets", Some("b"), "z"), [0; 0]);
        assert_eq!(read(&footer, "namespaces", None, "b"), [4]);
        footer.head.types[0].unsorted = true;
        footer.head.types[4].unsorted = true;
        assert_eq!(read(&footer, "configmaps", Some("c"), "q"), [0, 1]);
        assert_eq!(read(&footer, "secrets", Some("b"), "z"), [3]);
    }

    #[test]
    fn the_same_name_elsewhere_is_a_near_miss() {
        let names = BTreeMap::from([
            (
                "v1/ConfigMap".to_owned(),
                vec!["a/x".to_owned(), "b/x".to_owned(), "b/y".to_owned()],
            ),
            ("v1/Secret".to_owned(), vec!["b/x".to_owned()]),
            ("v1/Namespace".to_owned(), vec!["x".to_owned()]),
        ]);
        let asked = Asked::parse("c/secret/x").unwrap();
        assert_eq!(
            find_near(&names, &footer(), &asked),
            [
                "b/secrets/x",
                "a/configmaps/x",
                "b/configmaps/x",
                "namespaces/x"
            ]
        );
    }

    #[test]
    fn an_object_is_clean_unless_all_fields_are_asked_for() {
        let stored = br#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"x","uid":"1","labels":{"a":"yes"}},"data":{"t":"1e3"},"status":{}}"#;
        let text = |all, format| text("configmaps", stored, all, format).unwrap();
        assert_eq!(
            text(false, ShowFormat::Yaml),
            "apiVersion: v1\ndata:\n  t: \"1e3\"\nkind: ConfigMap\nmetadata:\n  labels:\n    a: \"yes\"\n  name: x\n"
        );
        let clean = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "x", "labels": {"a": "yes"}}, "data": {"t": "1e3"}});
        assert_eq!(text(false, ShowFormat::Json), format!("{clean:#}\n"));
        assert!(text(true, ShowFormat::Yaml).contains("uid: \"1\"\n"));
        let bytes = [&stored[..], b"\n"].concat();
        assert_eq!(text(true, ShowFormat::Json).into_bytes(), bytes);
    }
}
