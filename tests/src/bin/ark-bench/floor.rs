//! The floor: what it costs merely to page all lists, as any client does, without looking at what comes.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use futures::stream::{self, TryStreamExt};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;

/// Objects asked for in each page: client-go's number, so that of kubectl and Velero.
const LIMIT: usize = 500;
/// Types at a time.
const TYPES_AT_ONCE: usize = 4;
/// Bytes at either end of a page in which its token is looked for.
const EDGE: usize = 4096;

/// A type that a backup would read.
pub struct Listed {
    /// `resource` or `resource.group`, as kubectl takes it.
    pub name: String,
    path: String,
}

/// Pages all types of the cluster of KUBECONFIG, the next page asked for when this one has been read.
pub async fn page() -> Result<Duration> {
    let client = Client::try_default().await?;
    let types = types(&client).await?;
    let begin = Instant::now();
    stream::iter(types.into_iter().map(Ok))
        .try_for_each_concurrent(TYPES_AT_ONCE, |listed| {
            let client = client.clone();
            async move { page_type(&client, &listed.path).await }
        })
        .await?;
    Ok(begin.elapsed())
}

/// The types that can be listed, got, created and deleted, in their preferred version.
pub async fn types(client: &Client) -> Result<Vec<Listed>> {
    let mut types = Vec::new();
    for group in [
        client.list_core_api_versions_aggregated().await?,
        client.list_api_groups_aggregated().await?,
    ] {
        for group in group.items {
            let name = group
                .metadata
                .and_then(|metadata| metadata.name)
                .unwrap_or_default();
            let Some(version) = group.versions.into_iter().next() else {
                continue;
            };
            let version_name = version.version.unwrap_or_default();
            let root = if name.is_empty() {
                format!("/api/{version_name}")
            } else {
                format!("/apis/{name}/{version_name}")
            };
            for resource in version.resources {
                let verbs = resource.verbs;
                let complete = ["list", "get", "create", "delete"]
                    .iter()
                    .all(|verb| verbs.iter().any(|has| has == verb));
                let plural = resource.resource.unwrap_or_default();
                // The same events are in the core group.
                if !complete || (name == "events.k8s.io" && plural == "events") {
                    continue;
                }
                types.push(Listed {
                    path: format!("{root}/{plural}"),
                    name: if name.is_empty() {
                        plural
                    } else {
                        format!("{plural}.{name}")
                    },
                });
            }
        }
    }
    ensure!(
        types.len() > 30,
        "discovery found only {} types",
        types.len()
    );
    Ok(types)
}

async fn page_type(client: &Client, path: &str) -> Result<()> {
    let mut next = String::new();
    loop {
        let continued = if next.is_empty() {
            String::new()
        } else {
            format!("&continue={next}")
        };
        let request =
            http::Request::get(format!("{path}?limit={LIMIT}{continued}")).body(Body::empty())?;
        let answer = client.send(request).await?;
        if !answer.status().is_success() {
            bail!("listing {path}: {}", answer.status());
        }
        let mut body = answer.into_body();
        let (mut head, mut tail) = (Vec::new(), Vec::new());
        while let Some(frame) = body.frame().await {
            let Ok(piece) = frame?.into_data() else {
                continue;
            };
            if head.len() < EDGE {
                head.extend_from_slice(&piece[..piece.len().min(EDGE)]);
            }
            tail.extend_from_slice(&piece[piece.len().saturating_sub(EDGE)..]);
            let surplus = tail.len().saturating_sub(EDGE);
            tail.drain(..surplus);
        }
        match token(&head, &tail) {
            Some(token) => next = token,
            None => return Ok(()),
        }
    }
}

/// Built-in types carry the token before the items, custom resources after them.
fn token(head: &[u8], tail: &[u8]) -> Option<String> {
    let (head, tail) = (String::from_utf8_lossy(head), String::from_utf8_lossy(tail));
    let head = &head[..head.find("\"items\":").unwrap_or(head.len())];
    let after = |text: &str, key: &str| {
        let text = &text[text.rfind(key)? + key.len()..];
        let token = &text[..text.find('"')?];
        (!token.is_empty()).then(|| token.to_owned())
    };
    after(head, "\"continue\":\"").or_else(|| after(&tail, "\"metadata\":{\"continue\":\""))
}
