//! A real S3 server (SeaweedFS) and a small client for what tests assert.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
use bytes::Bytes;

use crate::process::{self, Process, Run};
use crate::{network, prerequisites, wait_until};

/// The key id of every server here.
pub const ACCESS_KEY_ID: &str = "ark";
/// The secret key of every server here.
pub const SECRET_ACCESS_KEY: &str = "ark-secret";
/// The region of every server here.
pub const REGION: &str = "us-east-1";

/// A running SeaweedFS on loopback, with a data directory of its own; ends when dropped.
///
/// It answers conditional writes, ranges, multipart uploads and object lock as S3 does. Signatures are checked.
pub struct S3Server {
    url: String,
    process: Process,
    _run: Run,
}

impl S3Server {
    /// Starts one and waits until it serves (about a second).
    pub async fn start() -> Result<Self> {
        let run = Run::start()?;
        let weed = prerequisites::python()?.join("bin/weed");
        let [
            master,
            master_grpc,
            volume,
            volume_grpc,
            filer,
            filer_grpc,
            s3,
            s3_grpc,
            admin,
            admin_grpc,
        ] = network::free_ports()?;
        // Made under /tmp whatever TMPDIR says, and left there by a killed process.
        run.expect_strays(
            [
                ("master", master_grpc),
                ("volume", volume_grpc),
                ("filer", filer_grpc),
                ("s3", s3_grpc),
                ("admin", admin_grpc),
            ]
            .map(|(name, port)| format!("/tmp/seaweedfs-{name}-grpc-{port}.sock").into()),
        )?;
        let mut command = process::bound(weed);
        command
            .arg("mini")
            .arg(format!("-dir={}", run.directory().display()));
        command.args([
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-admin.ui=false",
            "-webdav=false",
            "-master.telemetry=false",
        ]);
        command.args(["-s3.port.iceberg=0", "-s3.port.lance=0"]);
        // By itself it allows as many volumes as fit a disk when full, and each bucket takes several: on a disk with little
        // room, writing to one more bucket would be an internal error.
        command.arg("-volume.max=10000");
        for (name, port) in [
            ("master.port", master),
            ("master.port.grpc", master_grpc),
            ("volume.port", volume),
            ("volume.port.grpc", volume_grpc),
            ("filer.port", filer),
            ("filer.port.grpc", filer_grpc),
            ("s3.port", s3),
            ("s3.port.grpc", s3_grpc),
            ("admin.port", admin),
            ("admin.port.grpc", admin_grpc),
        ] {
            command.arg(format!("-{name}={port}"));
        }
        // Numbered by port: a socket path in the run's directory could exceed the 108 bytes that the kernel allows.
        let socket = |name: &str| format!("/tmp/ark-s3-{name}-{s3}.sock");
        run.expect_strays([socket("filer").into(), socket("s3").into()])?;
        command.arg(format!("-filer.localSocket={}", socket("filer")));
        command.arg(format!("-s3.localFilerSocket={}", socket("filer")));
        command.arg(format!("-s3.localSocket={}", socket("s3")));
        command
            .env("HOME", run.directory())
            .current_dir(run.directory());
        command
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY);
        let process = run.spawn("weed", command)?;
        let server = S3Server {
            url: format!("http://127.0.0.1:{s3}"),
            process,
            _run: run,
        };
        let client = server.client();
        wait_until(
            "the S3 server to be ready",
            Duration::from_secs(30),
            async || {
                if let Err(error) = server.process.check() {
                    return Ok(Some(Err(error)));
                }
                client.list_buckets().send().await?;
                Ok(Some(Ok(())))
            },
        )
        .await??;
        // Listing works before writing does: the volume server registers a little later.
        let probe = server.bucket("ready-probe").await?;
        wait_until(
            "the S3 server to take objects",
            Duration::from_secs(30),
            async || probe.put("probe", "x").await.map(Some),
        )
        .await?;
        probe.delete("probe").await?;
        client
            .delete_bucket()
            .bucket("ready-probe")
            .send()
            .await
            .context("removing the probe bucket")?;
        Ok(server)
    }

    /// The endpoint, `http://127.0.0.1:PORT`; buckets are in the path.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// An SDK client for this server.
    pub fn client(&self) -> aws_sdk_s3::Client {
        client(&self.url)
    }

    /// The bucket of that name (three characters or more), made when it is not there.
    pub async fn bucket(&self, name: &str) -> Result<Bucket> {
        Bucket::create(&self.url, name).await
    }

    /// A new bucket that keeps versions; with object lock, if `lock`.
    pub async fn versioned_bucket(&self, name: &str, lock: bool) -> Result<Bucket> {
        let client = client(&self.url);
        let created = client
            .create_bucket()
            .bucket(name)
            .object_lock_enabled_for_bucket(lock);
        created
            .send()
            .await
            .with_context(|| format!("creating bucket {name}"))?;
        let versioning = VersioningConfiguration::builder()
            .status(BucketVersioningStatus::Enabled)
            .build();
        client
            .put_bucket_versioning()
            .bucket(name)
            .versioning_configuration(versioning)
            .send()
            .await
            .with_context(|| format!("versioning bucket {name}"))?;
        Ok(Bucket {
            client,
            name: name.into(),
        })
    }

    /// What a program needs in its environment to use this server.
    pub fn environment(&self) -> [(&'static str, &'static str); 3] {
        environment()
    }

    /// SIGSTOP: connections open and nothing is answered. See [`S3Server::resume`].
    pub fn suspend(&self) -> Result<()> {
        self.process.suspend()
    }

    /// SIGCONT.
    pub fn resume(&self) -> Result<()> {
        self.process.resume()
    }
}

/// The credentials of all servers here, as environment variables.
pub fn environment() -> [(&'static str, &'static str); 3] {
    [
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID),
        ("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY),
        ("AWS_REGION", REGION),
    ]
}

/// An SDK client for an S3 server or a proxy in front of one.
pub fn client(url: &str) -> aws_sdk_s3::Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .credentials_provider(Credentials::new(
            ACCESS_KEY_ID,
            SECRET_ACCESS_KEY,
            None,
            None,
            "tests",
        ))
        .endpoint_url(url)
        .force_path_style(true)
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    aws_sdk_s3::Client::from_conf(config)
}

/// A bucket, for filling and asserting.
#[derive(Clone)]
pub struct Bucket {
    client: aws_sdk_s3::Client,
    name: String,
}

impl Bucket {
    pub(crate) async fn create(url: &str, name: &str) -> Result<Self> {
        let client = client(url);
        match client.create_bucket().bucket(name).send().await {
            Err(error)
                if !matches!(
                    error.code(),
                    Some("BucketAlreadyOwnedByYou" | "BucketAlreadyExists")
                ) =>
            {
                Err(error).with_context(|| format!("creating bucket {name}"))
            }
            _ => Ok(Bucket {
                client,
                name: name.into(),
            }),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All keys that start with the prefix, in order.
    pub async fn keys(&self, prefix: &str) -> Result<Vec<String>> {
        let mut pages = self
            .client
            .list_objects_v2()
            .bucket(&self.name)
            .prefix(prefix)
            .into_paginator()
            .send();
        let mut keys = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.with_context(|| format!("listing {}/{prefix}", self.name))?;
            keys.extend(
                page.contents()
                    .iter()
                    .filter_map(|object| object.key().map(String::from)),
            );
        }
        Ok(keys)
    }

    /// All objects that start with the prefix, by key: to compare a bucket before and after.
    pub async fn objects(&self, prefix: &str) -> Result<BTreeMap<String, Bytes>> {
        let mut objects = BTreeMap::new();
        for key in self.keys(prefix).await? {
            let body = self.get(&key).await?;
            objects.insert(key, body);
        }
        Ok(objects)
    }

    /// Keys of all versions and delete markers that start with the prefix, in a versioned bucket.
    pub async fn versions(&self, prefix: &str) -> Result<Vec<String>> {
        let listed = self
            .client
            .list_object_versions()
            .bucket(&self.name)
            .prefix(prefix)
            .send()
            .await
            .with_context(|| format!("listing versions of {}/{prefix}", self.name))?;
        let versions = listed.versions().iter().map(|version| version.key());
        let markers = listed.delete_markers().iter().map(|marker| marker.key());
        let keys = versions.chain(markers).flatten();
        Ok(keys.map(str::to_owned).collect())
    }

    /// The object's bytes.
    pub async fn get(&self, key: &str) -> Result<Bytes> {
        let object = self
            .client
            .get_object()
            .bucket(&self.name)
            .key(key)
            .send()
            .await;
        let object = object.with_context(|| format!("reading {}/{key}", self.name))?;
        Ok(object.body.collect().await?.into_bytes())
    }

    /// Writes an object, over what is there.
    pub async fn put(&self, key: &str, body: impl Into<Bytes>) -> Result<()> {
        let put = self
            .client
            .put_object()
            .bucket(&self.name)
            .key(key)
            .body(ByteStream::from(body.into()));
        put.send()
            .await
            .with_context(|| format!("writing {}/{key}", self.name))
            .map(drop)
    }

    /// Writes an object unless the key is taken; tells whether it did.
    pub async fn put_if_absent(&self, key: &str, body: impl Into<Bytes>) -> Result<bool> {
        let put = self
            .client
            .put_object()
            .bucket(&self.name)
            .key(key)
            .if_none_match("*")
            .body(ByteStream::from(body.into()));
        match put.send().await {
            Ok(_) => Ok(true),
            Err(error) if error.code() == Some("PreconditionFailed") => Ok(false),
            Err(error) => bail!(
                "writing {}/{key}: {}",
                self.name,
                aws_sdk_s3::error::DisplayErrorContext(error)
            ),
        }
    }

    /// Removes an object.
    pub async fn delete(&self, key: &str) -> Result<()> {
        let delete = self.client.delete_object().bucket(&self.name).key(key);
        delete
            .send()
            .await
            .with_context(|| format!("deleting {}/{key}", self.name))
            .map(drop)
    }

    /// The SDK's client, for what is not here.
    pub fn client(&self) -> &aws_sdk_s3::Client {
        &self.client
    }
}
