//! EC2 as moto serves it, for what tests assert; what a fault proxy in front of it answers; and IAM, which moto enforces when it
//! is told to.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use aws_sdk_ec2::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_ec2::types::{ResourceType, Tag, TagSpecification, VolumeType};

use crate::proxy::{Request, request_bytes};
use crate::s3::{ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY};

/// Tags of a snapshot or volume.
pub type Tags = BTreeMap<String, String>;

/// A volume to make.
#[derive(Clone, Debug)]
pub struct NewVolume<'a> {
    /// In the region of all servers here.
    pub zone: &'a str,
    /// `gp3`, …
    pub volume_type: &'a str,
    /// Provisioned operations a second.
    pub iops: Option<i32>,
    /// Provisioned throughput, MiB/s.
    pub throughput: Option<i32>,
    /// GiB.
    pub size_gib: i32,
    /// With moto's default key.
    pub encrypted: bool,
    /// Its tags.
    pub tags: &'a [(&'a str, &'a str)],
}

impl Default for NewVolume<'_> {
    fn default() -> Self {
        NewVolume {
            zone: "us-east-1a",
            volume_type: "gp2",
            iops: None,
            throughput: None,
            size_gib: 10,
            encrypted: false,
            tags: &[],
        }
    }
}

/// A client of the SDK, of the server at `url`, in the region of all servers here.
pub fn client(url: &str) -> aws_sdk_ec2::Client {
    let keys = Credentials::new(ACCESS_KEY_ID, SECRET_ACCESS_KEY, None, None, "tests");
    let config = aws_sdk_ec2::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .credentials_provider(keys)
        .endpoint_url(url)
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    aws_sdk_ec2::Client::from_conf(config)
}

/// A client of EC2, for filling and asserting.
#[derive(Clone)]
pub struct Ec2 {
    client: aws_sdk_ec2::Client,
}

impl Ec2 {
    /// Of the server at `url`, in the region of all servers here.
    pub fn new(url: &str) -> Self {
        Ec2 {
            client: client(url),
        }
    }

    /// Makes a volume and gives its id.
    pub async fn volume(&self, new: NewVolume<'_>) -> Result<String> {
        let tag = |(key, value): &(&str, &str)| Tag::builder().key(*key).value(*value).build();
        let tags = TagSpecification::builder()
            .resource_type(ResourceType::Volume)
            .set_tags(Some(new.tags.iter().map(tag).collect()))
            .build();
        let made = self
            .client
            .create_volume()
            .availability_zone(new.zone)
            .volume_type(VolumeType::from(new.volume_type))
            .set_iops(new.iops)
            .set_throughput(new.throughput)
            .size(new.size_gib)
            .encrypted(new.encrypted)
            // One without tags is refused.
            .set_tag_specifications((!new.tags.is_empty()).then(|| vec![tags]));
        let made = made.send().await.context("making a volume")?;
        made.volume_id.context("a volume has an id")
    }

    /// All own snapshots and their tags, by id.
    pub async fn snapshots(&self) -> Result<BTreeMap<String, Tags>> {
        let request = self.client.describe_snapshots().owner_ids("self");
        let found = request.send().await.context("listing snapshots")?;
        let entry = |found: &aws_sdk_ec2::types::Snapshot| {
            let id = found.snapshot_id().unwrap_or_default().to_owned();
            (id, tags(found.tags()))
        };
        // moto has some that belong to images, which are nobody's here.
        let ours = found.snapshots().iter().filter(|found| {
            !found
                .description()
                .is_some_and(|text| text.contains("Auto-created"))
        });
        Ok(ours.map(entry).collect())
    }

    /// All volumes, by id.
    pub async fn volumes(&self) -> Result<BTreeMap<String, aws_sdk_ec2::types::Volume>> {
        let found = self.client.describe_volumes().send().await;
        let found = found
            .context("listing volumes")?
            .volumes
            .unwrap_or_default();
        let entry = |found: aws_sdk_ec2::types::Volume| {
            (found.volume_id().unwrap_or_default().to_owned(), found)
        };
        Ok(found.into_iter().map(entry).collect())
    }

    /// The SDK's client, for what is not here.
    pub fn client(&self) -> &aws_sdk_ec2::Client {
        &self.client
    }
}

/// Tags as a map.
pub fn tags(tags: &[Tag]) -> Tags {
    let pair = |tag: &Tag| {
        let [key, value] = [tag.key(), tag.value()].map(|text| text.unwrap_or("").to_owned());
        (key, value)
    };
    tags.iter().map(pair).collect()
}

/// Takes the requests of an action of EC2, `CreateSnapshot`.
pub fn is(action: &'static str) -> impl Fn(&Request) -> bool + Send + Sync + 'static {
    move |request| {
        request
            .form
            .split('&')
            .any(|pair| pair.strip_prefix("Action=") == Some(action))
    }
}

/// The body of an answer of EC2 that says no.
pub fn refusal(code: &str, message: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response><Errors><Error><Code>{code}</Code><Message>{message}</Message>\
         </Error></Errors><RequestID>1</RequestID></Response>"
    )
}

/// IAM of a moto server, and whether it is enforced.
pub struct Iam<'a> {
    /// The server.
    pub url: &'a str,
}

impl Iam<'_> {
    /// From now on every request needs the rights of a user made here, or (`false`) none does.
    pub async fn enforce(&self, enforced: bool) -> Result<()> {
        let count = if enforced { "0" } else { "inf" };
        let request = http::Request::post(format!("{}/moto-api/reset-auth", self.url));
        request_bytes(request.body(count.to_owned())?).await?;
        Ok(())
    }

    /// A new user: key id and secret key.
    pub async fn user(&self, name: &str) -> Result<(String, String)> {
        self.ask(&format!("Action=CreateUser&UserName={name}"))
            .await?;
        let made = self
            .ask(&format!("Action=CreateAccessKey&UserName={name}"))
            .await?;
        let part = |tag: &str| -> Result<String> {
            let start = made.split_once(&format!("<{tag}>"));
            let part = start.and_then(|(_, rest)| rest.split_once('<'));
            Ok(part
                .with_context(|| format!("no {tag} in {made}"))?
                .0
                .into())
        };
        Ok((part("AccessKeyId")?, part("SecretAccessKey")?))
    }

    /// The user may do what the policy says, and nothing else.
    pub async fn allow(&self, user: &str, policy: &str) -> Result<()> {
        let policy: String = policy.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let form =
            format!("Action=PutUserPolicy&UserName={user}&PolicyName=only&PolicyDocument={policy}");
        self.ask(&form).await.map(drop)
    }

    async fn ask(&self, form: &str) -> Result<String> {
        // Not enforced, moto looks at no signature, only at whose API it is.
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={ACCESS_KEY_ID}/20260101/{REGION}/iam/aws4_request, SignedHeaders=host, Signature=0"
        );
        let request = http::Request::post(format!("{}/", self.url))
            .header("content-type", "application/x-www-form-urlencoded")
            .header("authorization", authorization)
            .body(format!("{form}&Version=2010-05-08"))?;
        let answer = request_bytes(request).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}
