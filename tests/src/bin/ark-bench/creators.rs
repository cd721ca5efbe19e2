//! What bounds a restore: bare concurrent creators, which send the same objects and do nothing else.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;

use crate::load::Load;

/// Creators at once: what a small API server is well with.
const CREATORS: usize = 16;

/// Writes what the creators of a load send: a path and a body to a line, the body as a restore sends it.
pub fn write(load: Load, to: &Path) -> Result<()> {
    let mut file = BufWriter::new(File::create(to)?);
    for n in 0..load.objects() {
        let (namespace, (root, plural, mut object)) = load.object(n);
        object["metadata"]["namespace"] = namespace.as_str().into();
        object["metadata"]["labels"]["ark-restore"] = "bench-20260101000000".into();
        writeln!(file, "{root}/namespaces/{namespace}/{plural}\t{object}")?;
    }
    Ok(file.flush()?)
}

/// Sends what a file says to the cluster of KUBECONFIG; how long that takes.
pub async fn create(file: &Path) -> Result<Duration> {
    let client = &Client::try_default().await?;
    let lines = BufReader::new(File::open(file)?).lines();
    let begin = Instant::now();
    stream::iter(lines)
        .map(|line| async move {
            let line = line?;
            let (path, body) = line.split_once('\t').context("a line has no tab")?;
            let request = http::Request::post(path)
                .header("content-type", "application/json")
                .body(Body::from(body.as_bytes().to_vec()))?;
            let answer = client.send(request).await?;
            let status = answer.status();
            let mut answer = answer.into_body();
            // The connection is used again only when the body has been read.
            while let Some(frame) = answer.frame().await {
                frame?;
            }
            ensure!(status.is_success(), "creating at {path}: {status}");
            Ok(())
        })
        .buffer_unordered(CREATORS)
        .try_for_each(async |()| Ok(()))
        .await?;
    Ok(begin.elapsed())
}
