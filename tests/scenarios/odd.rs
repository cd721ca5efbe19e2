//! Odd objects: whatever the API server stores, the archive gives back byte for byte.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use ark_tests::job::ArkJob;
use ark_tests::{ControlPlane, Options};
use libtest_mimic::Trial;
use serde_json::json;

use crate::backup::{read, script};
use crate::world::scenario;

pub fn trials() -> Vec<Trial> {
    vec![scenario(
        "odd::every_object_is_stored_as_the_api_server_gives_it",
        every_object_is_stored_as_the_api_server_gives_it,
    )]
}

const GROUP: &str = "scenarios.example.com";

/// An object on the server.
struct Object {
    /// `resource[.group]`.
    resource: String,
    /// Path of its collection.
    collection: String,
    namespace: &'static str,
    name: String,
}

/// Text of that length that neither compresses nor is plain, the same in each run.
fn noise(length: usize) -> String {
    const LETTERS: [&str; 16] = [
        "a", "Z", "9", " ", "\"", "\\", "/", "<", "&", "\t", "\n", "{", "]", "ä", "\u{7f}", "q",
    ];
    let mut state = 88_172_645_463_325_252u64;
    let mut text = String::with_capacity(length + 2);
    while text.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.push_str(LETTERS[(state % 16) as usize]);
    }
    text
}

async fn create(client: &kube::Client, object: &Object, body: String) -> Result<()> {
    let request = http::Request::post(&object.collection)
        .header("content-type", "application/json")
        .body(body.into_bytes())?;
    let about = format!("creating {} {}", object.resource, object.name);
    client.request_text(request).await.context(about).map(drop)
}

async fn every_object_is_stored_as_the_api_server_gives_it() -> Result<()> {
    let cluster = ControlPlane::start(Options::default()).await?;
    let client = cluster.client().await?;
    let definition = format!(
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: odds.{GROUP}}}\n\
         spec: {{group: {GROUP}, scope: Namespaced, names: {{plural: odds, singular: odd, kind: Odd}},\n\
         versions: [{{name: v1, served: true, storage: true, schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}}}]}}\n"
    );
    cluster.kubectl_with_input(&["apply", "-f", "-"], &definition)?;
    let crd = format!("crd/odds.{GROUP}");
    cluster.kubectl(&["wait", "--for=condition=Established", &crd, "--timeout=30s"])?;
    let config_map = |namespace: &'static str, name: &str| Object {
        resource: "configmaps".into(),
        collection: format!("/api/v1/namespaces/{namespace}/configmaps"),
        namespace,
        name: name.into(),
    };
    let odd = |name: &str| Object {
        resource: format!("odds.{GROUP}"),
        collection: format!("/apis/{GROUP}/v1/namespaces/a/odds"),
        namespace: "a",
        name: name.into(),
    };
    let mut objects = Vec::new();
    for namespace in ["a", "a-b"] {
        cluster.kubectl(&["create", "namespace", namespace])?;
        for name in ["a", "a-b", "a.b", "a0"] {
            let object = config_map(namespace, name);
            let body =
                json!({"metadata": {"name": name}, "data": {"k": format!("{namespace}/{name}")}});
            create(&client, &object, body.to_string()).await?;
            objects.push(object);
        }
    }
    let data = [
        ("n".repeat(253), json!({"k": "v"})),
        // A config map holds 1 MiB; escapes make its JSON 1.4 MB and more.
        ("large".into(), json!({"k": noise(1_000_000)})),
        ("quotes".into(), json!({"k": "\"".repeat(700_000)})),
        (
            "text".into(),
            json!({"k": "\u{0}\u{1f}\u{2028}</script>&\u{1f600}\u{feff}\r\n"}),
        ),
    ];
    for (name, data) in data {
        let object = config_map("a", &name);
        let body = json!({"metadata": {"name": name, "labels": {"l": ""}}, "data": data});
        create(&client, &object, body.to_string()).await?;
        objects.push(object);
    }
    let depth = 300;
    let nested = format!("{}1{}", r#"{"a":["#.repeat(depth), "]}".repeat(depth));
    let fields = |prefix: &str| -> String {
        (0..500)
            .map(|n| format!(r#""{prefix}{n}":{{"x":[]}},"#))
            .collect()
    };
    for (name, spec) in [
        (
            "numbers",
            "[0,-0,-0.0,1.0,1.5e300,1e21,123456789012345678901234567890,9223372036854775807,0.1e-7,4.9e-324]".to_owned(),
        ),
        ("nested", nested),
        (
            "strings",
            r#"{"\u0061\"\\\/":"\ud83d\ude00\u0000\u001f\u2028\u003c","kind":"x","items":[{"metadata":{}}],"metadata":"]}"}"#.to_owned(),
        ),
        ("empty", r#"{"null":null,"list":[],"object":{},"":""}"#.to_owned()),
        ("fields", format!("{{{}\"last\":1}}", fields("f"))),
        ("large-odd", json!(noise(700_000)).to_string()),
        (&*"o".repeat(253), "1".to_owned()),
    ] {
        let object = odd(name);
        let body = format!(
            r#"{{"apiVersion":"{GROUP}/v1","kind":"Odd","metadata":{{"name":"{name}","annotations":{{"a":"\u003c\\"}}}},"spec":{spec},"0":{spec}}}"#
        );
        // Twice is more than etcd takes.
        let body = if name == "large-odd" {
            body.replacen(&format!(r#","0":{spec}"#), "", 1)
        } else {
            body
        };
        create(&client, &object, body).await?;
        objects.push(object);
    }

    let directory = tempfile::tempdir()?;
    let storage = format!("file://{}", directory.path().display());
    ArkJob::new(
        cluster.kubeconfig(),
        &["backup", "odd", "--storage", &storage],
    )
    .expect(0)
    .await?;
    let backup = directory.path().join("backups/odd");
    read(&backup)?;
    let mut longest = 0;
    for Object {
        resource,
        collection,
        namespace,
        name,
    } in &objects
    {
        let there = cluster.kubectl(&["get", "--raw", &format!("{collection}/{name}")])?;
        let key = format!("{namespace}/{name}");
        let arguments = [
            &backup,
            Path::new("--get"),
            Path::new(resource),
            Path::new(&key),
        ];
        let stored = script("read_backup.py", &arguments)?;
        ensure!(
            stored.trim_end_matches('\n') == there.trim_end_matches('\n'),
            "{resource} {key} is not what the API server gives:\n{:.2000}\n{:.2000}",
            stored,
            there
        );
        longest = longest.max(there.len());
    }
    ensure!(longest > 1_390_000, "the largest has {longest} bytes only");
    Ok(())
}
