//! The archive for whoever helps: what is installed, what has run and how it ended, what doctor found. Nothing is read of any
//! Secret, and what looks like one elsewhere is replaced ([`super::redact`]). Its first file says what is inside, what is not, and
//! why.

use super::document;
use super::redact::{REPLACED, Redactor};
use crate::{Surroundings, output};
use ark_job::api::{CONFIG_NAME, CONTRACT_VERSION, GROUP, failed_log_name, kept_results_name};
use ark_job::doctor::Check;
use ark_job::error::{Failure, chain};
use ark_job::exit::Exit;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{StreamExt, stream};
use kube::Client;
use serde_json::{Value, json};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;
use tempfile::NamedTempFile;

/// Objects of one kind, at most.
const OBJECTS: u32 = 500;
/// Lines and bytes of a pod's log: its end.
const LINES: u32 = 1000;
const BYTES: u32 = 256 << 10;
/// Pods whose logs are kept: the newest.
const PODS: usize = 50;
/// Requests under way at once.
const AT_ONCE: usize = 8;
/// For each request.
const WITHIN: Duration = Duration::from_secs(30);

/// What is asked of the cluster: the file that it becomes, the path, and what it is.
fn lists(namespace: &str) -> Vec<(&'static str, String, &'static str)> {
    let core = |kind: &str| format!("/api/v1/namespaces/{namespace}/{kind}?limit={OBJECTS}");
    let of = |group: &str, kind: &str| {
        format!("/apis/{group}/v1/namespaces/{namespace}/{kind}?limit={OBJECTS}")
    };
    let rbac = "rbac.authorization.k8s.io";
    let ours = |kind: &str| {
        format!("/apis/{rbac}/v1/{kind}?labelSelector=app.kubernetes.io%2Fpart-of%3Dkubectl-ark")
    };
    vec![
        (
            "cluster/version.yaml",
            "/version".to_owned(),
            "version of the API server",
        ),
        (
            "cluster/api-groups.yaml",
            "/apis".to_owned(),
            "API groups and their versions",
        ),
        (
            "cluster/storageclasses.yaml",
            "/apis/storage.k8s.io/v1/storageclasses".to_owned(),
            "storage classes",
        ),
        (
            "cluster/csidrivers.yaml",
            "/apis/storage.k8s.io/v1/csidrivers".to_owned(),
            "CSI drivers",
        ),
        (
            "cluster/volumesnapshotclasses.yaml",
            "/apis/snapshot.storage.k8s.io/v1/volumesnapshotclasses".to_owned(),
            "snapshot classes",
        ),
        (
            "ark/podtemplates.yaml",
            core("podtemplates"),
            "pod settings",
        ),
        (
            "ark/configmaps.yaml",
            core("configmaps"),
            "mode, logs and results that were kept; of others only the names of keys",
        ),
        (
            "ark/locations.yaml",
            of(GROUP, "backupstoragelocations"),
            "storage locations",
        ),
        (
            "ark/backups.yaml",
            of(GROUP, "backups"),
            "records of backups",
        ),
        (
            "ark/restores.yaml",
            of(GROUP, "restores"),
            "records of restores",
        ),
        ("ark/jobs.yaml", of("batch", "jobs"), "operations"),
        (
            "ark/cronjobs.yaml",
            of("batch", "cronjobs"),
            "schedules, sweep and sync",
        ),
        ("ark/pods.yaml", core("pods"), "pods of operations"),
        ("ark/events.yaml", core("events"), "events"),
        (
            "ark/serviceaccounts.yaml",
            core("serviceaccounts"),
            "service accounts",
        ),
        ("ark/roles.yaml", of(rbac, "roles"), "roles"),
        (
            "ark/rolebindings.yaml",
            of(rbac, "rolebindings"),
            "bindings",
        ),
        (
            "ark/clusterroles.yaml",
            ours("clusterroles"),
            "cluster roles of Ark",
        ),
        (
            "ark/clusterrolebindings.yaml",
            ours("clusterrolebindings"),
            "their bindings",
        ),
        ("ark/resourcequotas.yaml", core("resourcequotas"), "quotas"),
        ("ark/limitranges.yaml", core("limitranges"), "limit ranges"),
    ]
}

/// A file of the archive.
struct Entry {
    name: String,
    what: String,
    content: Vec<u8>,
}

/// Collects, and writes the archive to a file that is not there yet, which only its owner can read.
///
/// # Errors
/// When it cannot be written. What cannot be collected is told inside.
pub async fn write(
    client: &Client,
    namespace: &str,
    path: &Path,
    checks: &[Check],
    surroundings: &Surroundings,
) -> Result<(), Failure> {
    let failed = |why: String| {
        Failure::new(Exit::Failed, format!("writing {}: {why}", path.display()))
            .hint("name another file: --bundle=FILE")
    };
    if path.exists() {
        return Err(failed("there is such a file".to_owned()));
    }
    let (entries, left_out) = collect(client, namespace, checks).await;
    let entries = with_manifest(entries, &left_out, namespace, surroundings);
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let seconds = u64::try_from(surroundings.now.as_second()).unwrap_or_default();
    let writing = || {
        // Only its owner can read it, from the beginning.
        let file = NamedTempFile::new_in(directory)?;
        pack(file.as_file(), &entries, seconds)?;
        file.as_file().sync_all()?;
        // Never over another.
        file.persist_noclobber(path).map_err(|error| error.error)?;
        Ok::<_, io::Error>(())
    };
    writing().map_err(|error| failed(error.to_string()))
}

fn pack(to: impl Write, entries: &[Entry], seconds: u64) -> io::Result<()> {
    let mut archive = tar::Builder::new(GzEncoder::new(to, Compression::default()));
    for Entry { name, content, .. } in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(seconds);
        archive.append_data(
            &mut header,
            format!("ark-bundle/{name}"),
            content.as_slice(),
        )?;
    }
    archive.into_inner()?.finish()?.flush()
}

/// All files but the first, and what is not among them with the reason.
async fn collect(
    client: &Client,
    namespace: &str,
    checks: &[Check],
) -> (Vec<Entry>, Vec<(String, String)>) {
    let mut left_out = vec![(
        "Secrets".to_owned(),
        "they are never read, not even their names".to_owned(),
    )];
    let asked: Vec<_> = stream::iter(lists(namespace))
        .map(async |(name, path, what)| {
            let answer = get(client, &path).await;
            let answer = answer.and_then(|text| {
                serde_json::from_str::<Value>(&text).map_err(|error| error.to_string())
            });
            (name, what, answer)
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    let mut redactor = Redactor::default();
    for (_, _, answer) in &asked {
        if let Ok(value) = answer {
            redactor.learn(value);
        }
    }
    let mut entries = Vec::new();
    let mut pods = Vec::new();
    for (name, what, answer) in asked {
        let mut value = match answer {
            Ok(value) => value,
            Err(why) => {
                left_out.push((name.to_owned(), redactor.text(&why)));
                continue;
            }
        };
        match name {
            "ark/configmaps.yaml" => {
                for map in without_data(&mut value) {
                    left_out.push((
                        format!("ConfigMap {map}: what is in it"),
                        "it is not one that Ark writes".to_owned(),
                    ));
                }
            }
            "ark/pods.yaml" => pods = newest(&value),
            _ => {}
        }
        if value
            .pointer("/metadata/continue")
            .is_some_and(|next| next != "")
        {
            let most = format!("{name}: more than {OBJECTS}");
            left_out.push((most, "to keep the archive small".to_owned()));
        }
        entries.push(Entry {
            name: name.to_owned(),
            what: what.to_owned(),
            content: output::yaml(&redactor.object(&value)).into_bytes(),
        });
    }
    let doctor = redactor.object(&document(checks));
    entries.push(Entry {
        name: "doctor.json".to_owned(),
        what: "the checks".to_owned(),
        content: output::json(&doctor).into_bytes(),
    });
    if pods.len() > PODS {
        let rest = format!("logs of {} older pods", pods.len() - PODS);
        left_out.push((rest, "to keep the archive small".to_owned()));
    }
    let logs: Vec<_> = stream::iter(pods.into_iter().take(PODS))
        .map(async |pod| {
            let path = format!(
                "/api/v1/namespaces/{namespace}/pods/{pod}/log?tailLines={LINES}&limitBytes={BYTES}&timestamps=true&container={}",
                crate::pod_template::CONTAINER
            );
            let text = get(client, &path).await;
            (pod, text)
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    for (pod, text) in logs {
        match text {
            Ok(text) => entries.push(Entry {
                name: format!("logs/{pod}.log"),
                what: format!("the last {LINES} lines of pod {pod}"),
                content: redactor.text(&text).into_bytes(),
            }),
            Err(why) => left_out.push((format!("log of pod {pod}"), redactor.text(&why))),
        }
    }
    (entries, left_out)
}

async fn get(client: &Client, path: &str) -> Result<String, String> {
    let request = http::Request::get(path)
        .body(Vec::new())
        .map_err(|error| error.to_string())?;
    match tokio::time::timeout(WITHIN, client.request_text(request)).await {
        Ok(Ok(text)) => Ok(text),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
            Err("the cluster does not have it".to_owned())
        }
        Ok(Err(kube::Error::Api(status))) => Err(status.message.clone()),
        Ok(Err(error)) => Err(chain(&error)),
        Err(elapsed) => Err(elapsed.to_string()),
    }
}

/// Takes away what is in ConfigMaps of others, which may be anything, and says which they are; binary data of all.
fn without_data(list: &mut Value) -> Vec<String> {
    let mut names = Vec::new();
    for map in list["items"].as_array_mut().into_iter().flatten() {
        let name = map["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let ours = name == CONFIG_NAME
            || name.starts_with(&failed_log_name(""))
            || name.starts_with(&kept_results_name(""));
        let taken = |data: &mut Value| {
            for (_, value) in data.as_object_mut().into_iter().flatten() {
                *value = format!("{} bytes", value.as_str().map_or(0, str::len)).into();
            }
        };
        if let Some(binary) = map.get_mut("binaryData") {
            taken(binary);
        }
        if !ours && let Some(data) = map.get_mut("data") {
            taken(data);
            names.push(name);
        }
    }
    names
}

/// Names of pods, the newest first.
fn newest(list: &Value) -> Vec<String> {
    let mut pods: Vec<(&str, &str)> = list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|pod| {
            let metadata = &pod["metadata"];
            Some((
                metadata["creationTimestamp"].as_str()?,
                metadata["name"].as_str()?,
            ))
        })
        .collect();
    pods.sort_unstable_by(|a, b| b.cmp(a));
    pods.into_iter().map(|(_, name)| name.to_owned()).collect()
}

fn with_manifest(
    entries: Vec<Entry>,
    left_out: &[(String, String)],
    namespace: &str,
    surroundings: &Surroundings,
) -> Vec<Entry> {
    let files: Vec<Value> = entries
        .iter()
        .map(|entry| json!({"file": entry.name, "bytes": entry.content.len(), "what": entry.what}))
        .collect();
    let left_out: Vec<Value> = left_out
        .iter()
        .map(|(what, why)| json!({"what": what, "why": why}))
        .collect();
    let manifest = json!({
        "made": surroundings.now.to_string(),
        "by": format!("kubectl ark {} (contract {CONTRACT_VERSION}, {} {})",
            env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH),
        "namespace": namespace,
        "inside": files,
        "leftOut": left_out,
        "replaced": format!("{REPLACED} stands for what looked like a secret: user names and passwords in URLs, parameters of \
            signed URLs, variables whose names contain KEY, TOKEN, PASSWORD, SECRET or CREDENTIAL, keys and tokens by their form, \
            and the same values elsewhere. managedFields are left out. Read it before you pass it on."),
    });
    let first = Entry {
        name: "manifest.json".to_owned(),
        what: String::new(),
        content: output::json(&manifest).into_bytes(),
    };
    std::iter::once(first).chain(entries).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_config_maps_of_others_only_names_are_kept() {
        let mut list = json!({"items": [
            {"metadata": {"name": "ark"}, "data": {"mode": "Normal"}},
            {"metadata": {"name": "ark-log-b"}, "data": {"log": "it failed"}},
            {"metadata": {"name": "mine"}, "data": {"password": "hush"}, "binaryData": {"a": "aHVzaA=="}},
        ]});
        assert_eq!(without_data(&mut list), ["mine"]);
        let expected = json!({"items": [
            {"metadata": {"name": "ark"}, "data": {"mode": "Normal"}},
            {"metadata": {"name": "ark-log-b"}, "data": {"log": "it failed"}},
            {"metadata": {"name": "mine"}, "data": {"password": "4 bytes"}, "binaryData": {"a": "8 bytes"}},
        ]});
        assert_eq!(list, expected);
    }

    #[test]
    fn an_archive_is_a_tar_gz_whose_first_file_says_what_is_inside() {
        let entry = Entry {
            name: "a.yaml".into(),
            what: "a".into(),
            content: b"x: 1\n".to_vec(),
        };
        let surroundings = Surroundings {
            now: jiff::Timestamp::UNIX_EPOCH,
            home: None,
            temporary: "/tmp".into(),
            nonce: String::new(),
            terminal: false,
            input: false,
            width: None,
        };
        let left_out = [("Secrets".to_owned(), "never".to_owned())];
        let entries = with_manifest(vec![entry], &left_out, "ark", &surroundings);
        let mut packed = Vec::new();
        pack(&mut packed, &entries, 0).unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(packed.as_slice()));
        let names: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(names, ["ark-bundle/manifest.json", "ark-bundle/a.yaml"]);
        let manifest: Value = serde_json::from_slice(&entries[0].content).unwrap();
        assert_eq!(manifest["inside"][0]["file"], "a.yaml");
        assert_eq!(manifest["leftOut"][0]["what"], "Secrets");
    }
}
