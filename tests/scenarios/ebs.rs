//! The edge to EBS on moto's EC2, also when answers are lost, refused or bad: called as a library.
//!
//! What a real EC2 does and moto does not (volumes that end in an error, snapshots that take their time, throttling, client
//! tokens) the fault proxy says in its place.

use std::collections::BTreeMap;
use std::io::{BufRead, Read, Write};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ark_job::log::Log;
use ark_job::store::{Location, S3Location};
use ark_job::volumes::EbsSnapshot;
use ark_job::volumes::disks::{DiskError, Disks, Tags, WantedVolume};
use ark_job::volumes::ec2::connect;
use ark_tests::ec2::{Ec2, Iam, NewVolume, is, refusal, tags};
use ark_tests::{FaultProxy, MotoServer, Rule, s3, wait_until};
use jiff::Timestamp;
use libtest_mimic::Trial;

use crate::world::scenario;

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "ebs::a_snapshot_has_the_tags_and_record_of_its_volume",
            snapshot,
        ),
        scenario("ebs::a_lost_answer_makes_no_second_snapshot", lost_answer),
        scenario("ebs::throttling_is_waited_out", throttled),
        scenario("ebs::a_volume_is_made_as_it_was", volume),
        scenario("ebs::a_volume_that_fails_is_never_made", broken_volume),
        scenario("ebs::a_snapshot_is_waited_for", waiting),
        scenario("ebs::what_is_gone_is_deleted", deletion),
        scenario("ebs::lists_are_read_to_their_end", lists),
        scenario("ebs::each_action_of_the_policy_is_needed", policy),
        scenario("ebs::credentials_come_from_every_source", credentials),
        scenario("ebs::a_private_endpoint_and_a_proxy_are_used", private),
        scenario("ebs::the_clock_is_the_cloud_s", clock),
    ]
}

/// moto, and an edge that reaches it through a proxy.
struct Cloud {
    moto: MotoServer,
    proxy: FaultProxy,
    ec2: Ec2,
    disks: Arc<dyn Disks>,
    log: Log,
    directory: tempfile::TempDir,
}

impl Cloud {
    async fn start() -> Result<Cloud> {
        let moto = MotoServer::start().await?;
        let proxy = FaultProxy::start(moto.url()).await?;
        let directory = tempfile::tempdir()?;
        let log = Log::new(directory.path())?;
        let keys = (s3::ACCESS_KEY_ID, s3::SECRET_ACCESS_KEY);
        let place = place(directory.path(), proxy.url(), keys)?;
        let disks = connect(place.into(), None, log.clone()).await?;
        Ok(Cloud {
            ec2: Ec2::new(moto.url()),
            moto,
            proxy,
            disks,
            log,
            directory,
        })
    }

    fn logged(&self) -> Result<String> {
        Ok(self.log.tail(1 << 20)?)
    }

    async fn snapshot_of(&self, volume: &str, persistent_volume: &str) -> Result<EbsSnapshot> {
        let tags = ours(persistent_volume);
        Ok(self.disks.snapshot("", volume, &tags).await?)
    }
}

/// A location whose Secret says also where EC2 is, so that nothing depends on this process's environment.
fn place(directory: &Path, endpoint: &str, (id, secret): (&str, &str)) -> Result<Place> {
    let file = directory.join(format!("credentials-{id}"));
    let (region, keys) = (
        s3::REGION,
        format!("aws_access_key_id = {id}\naws_secret_access_key = {secret}\n"),
    );
    std::fs::write(
        &file,
        format!("[default]\n{keys}region = {region}\nendpoint_url = {endpoint}\n"),
    )?;
    Ok(Place(S3Location {
        bucket: "bucket".to_owned(),
        // That of S3 is not EC2's.
        endpoint: Some("http://127.0.0.1:1".to_owned()),
        credentials_file: Some(file),
        ..S3Location::default()
    }))
}

struct Place(S3Location);

impl From<Place> for Location {
    fn from(place: Place) -> Location {
        Location::S3(place.0)
    }
}

fn owned(pairs: &[(&str, &str)]) -> Tags {
    let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(own).collect()
}

fn ours(persistent_volume: &str) -> Tags {
    owned(&[
        ("ark.heptio.com/run", "run"),
        ("ark.heptio.com/attempt", "attempt"),
        ("ark.heptio.com/pv", persistent_volume),
        ("ark.heptio.com/location", "here"),
    ])
}

async fn snapshot() -> Result<()> {
    let cloud = Cloud::start().await?;
    let encrypted_key = {
        let id = cloud
            .ec2
            .volume(NewVolume {
                encrypted: true,
                ..NewVolume::default()
            })
            .await?;
        let key = cloud.ec2.volumes().await?[&id].kms_key_id.clone();
        ensure!(key.is_some(), "moto gives a key");
        key
    };
    for (volume_type, iops, throughput, encrypted) in [
        ("gp2", None, None, false),
        ("gp3", Some(4000), Some(250), true),
        ("io2", Some(5000), None, false),
    ] {
        let volume = cloud
            .ec2
            .volume(NewVolume {
                zone: "us-east-1b",
                volume_type,
                iops,
                throughput,
                size_gib: 20,
                encrypted,
                tags: &[("team", "a"), ("ark.heptio.com/run", "another")],
            })
            .await?;
        let made = cloud.snapshot_of(&volume, volume_type).await?;
        ensure!(made.started.is_some());
        let expected = EbsSnapshot {
            snapshot_id: made.snapshot_id.clone(),
            volume_id: volume,
            region: s3::REGION.to_owned(),
            availability_zone: "us-east-1b".to_owned(),
            volume_type: volume_type.to_owned(),
            iops,
            throughput,
            size_gib: Some(20),
            encrypted: Some(encrypted),
            kms_key_id: encrypted_key.clone().filter(|_| encrypted),
            started: made.started,
        };
        assert_eq!(made, expected);
        let mut with_theirs = ours(volume_type);
        with_theirs.insert("team".to_owned(), "a".to_owned());
        assert_eq!(cloud.ec2.snapshots().await?[&made.snapshot_id], with_theirs);
    }

    // More tags than fit are named in the log.
    let keys: Vec<String> = (0..49).map(|n| format!("key-{n:02}")).collect();
    let many: Vec<(&str, &str)> = keys.iter().map(|key| (&**key, "x")).collect();
    let volume = cloud
        .ec2
        .volume(NewVolume {
            tags: &many,
            ..NewVolume::default()
        })
        .await?;
    let made = cloud.snapshot_of(&volume, "many").await?;
    assert_eq!(cloud.ec2.snapshots().await?[&made.snapshot_id].len(), 50);
    ensure!(cloud.logged()?.contains("key-46, key-47, key-48"));

    let missing = cloud
        .disks
        .snapshot("", "vol-0123456789abcdef0", &ours("x"))
        .await;
    let error = missing.expect_err("there is none");
    ensure!(matches!(&error, DiskError::NotFound(what) if what.contains("vol-0123456789abcdef0")));
    Ok(())
}

async fn lost_answer() -> Result<()> {
    let cloud = Cloud::start().await?;
    let volume = cloud.ec2.volume(NewVolume::default()).await?;

    // Done, and the answer lost.
    cloud
        .proxy
        .add(Rule::on(is("CreateSnapshot")).only(1).lose_answer());
    let made = cloud.snapshot_of(&volume, "lost").await?;
    let all = cloud.ec2.snapshots().await?;
    assert_eq!(all.keys().collect::<Vec<_>>(), [&made.snapshot_id]);
    assert_eq!(cloud.proxy.count(is("CreateSnapshot")), 1);
    ensure!(made.started.is_some());
    ensure!(cloud.logged()?.contains("made nevertheless"));

    // Done, and an error said; another's snapshot of the same volume is not taken for it.
    cloud.proxy.clear_rules();
    cloud.proxy.clear_requests();
    cloud.proxy.add(
        Rule::on(is("CreateSnapshot"))
            .only(1)
            .rewrite(|_| "not XML".to_owned()),
    );
    let made = cloud.snapshot_of(&volume, "garbled").await?;
    assert_eq!(cloud.ec2.snapshots().await?.len(), 2);
    assert_eq!(cloud.proxy.count(is("CreateSnapshot")), 1);
    ensure!(!all.contains_key(&made.snapshot_id));

    // Never done: looked for, and then asked for again.
    cloud.proxy.clear_rules();
    cloud.proxy.clear_requests();
    let body = refusal("InternalError", "an internal error");
    cloud.proxy.add(
        Rule::on(is("CreateSnapshot"))
            .only(1)
            .answer(500, &[], body),
    );
    let made = cloud.snapshot_of(&volume, "refused").await?;
    assert_eq!(cloud.ec2.snapshots().await?.len(), 3);
    assert_eq!(cloud.proxy.count(is("CreateSnapshot")), 2);
    ensure!(cloud.proxy.count(is("DescribeSnapshots")) >= 4);

    // Several were made (by an answer that came too late): the oldest is adopted and none deleted. Whole seconds tell which
    // that is.
    let started = made.started.context("when it began")?;
    wait_until("the next second", Duration::from_secs(5), async || {
        let later = Timestamp::now().as_second() > started.as_second();
        Ok(later.then_some(()))
    })
    .await?;
    cloud.proxy.clear_rules();
    cloud
        .proxy
        .add(Rule::on(is("CreateSnapshot")).only(1).lose_answer());
    let again = cloud.snapshot_of(&volume, "refused").await?;
    assert_eq!(again.snapshot_id, made.snapshot_id);
    assert_eq!(cloud.ec2.snapshots().await?.len(), 4);
    Ok(())
}

async fn throttled() -> Result<()> {
    let cloud = Cloud::start().await?;
    let volume = cloud.ec2.volume(NewVolume::default()).await?;
    for (code, status) in [
        ("RequestLimitExceeded", 503),
        ("Throttling", 400),
        ("SnapshotCreationPerVolumeRateExceeded", 400),
        ("ConcurrentSnapshotLimitExceeded", 400),
    ] {
        cloud.proxy.clear_rules();
        cloud.proxy.clear_requests();
        let body = refusal(code, "slow down");
        cloud.proxy.add(
            Rule::on(is("CreateSnapshot"))
                .up_to(2)
                .answer(status, &[], body),
        );
        cloud.snapshot_of(&volume, code).await?;
        assert_eq!(cloud.proxy.count(is("CreateSnapshot")), 3, "{code}");
        // Nothing was done, so there is nothing to look for.
        assert_eq!(cloud.proxy.count(is("DescribeSnapshots")), 0, "{code}");
        ensure!(cloud.logged()?.contains(code), "{code} is logged");
    }
    let snapshots = cloud.ec2.snapshots().await?;
    assert_eq!(snapshots.len(), 4);
    let deleted = snapshots.keys().next().context("one")?;
    let body = refusal("RequestLimitExceeded", "slow down");
    for action in ["DeleteSnapshot", "DescribeVolumes", "DescribeSnapshots"] {
        let body = body.clone();
        cloud
            .proxy
            .add(Rule::on(is(action)).only(1).answer(503, &[], body));
    }
    ensure!(cloud.disks.delete_snapshot("", deleted).await?);
    assert_eq!(cloud.ec2.snapshots().await?.len(), 3);
    assert_eq!(
        cloud
            .disks
            .tagged_snapshots("", &owned(&[("ark.heptio.com/run", "run")]))
            .await?
            .len(),
        3
    );
    Ok(())
}

fn wanted(snapshot: &EbsSnapshot, token: &str) -> WantedVolume {
    WantedVolume {
        snapshot: snapshot.clone(),
        availability_zone: "us-east-1b".to_owned(),
        kms_key: None,
        client_token: token.to_owned(),
        tags: owned(&[
            ("ark.heptio.com/unused", "true"),
            ("ark.heptio.com/restore", "again"),
        ]),
    }
}

const SOON: Duration = Duration::from_secs(60);

async fn volume() -> Result<()> {
    let cloud = Cloud::start().await?;
    let source = cloud
        .ec2
        .volume(NewVolume {
            volume_type: "gp3",
            iops: Some(4000),
            throughput: Some(250),
            size_gib: 20,
            encrypted: true,
            tags: &[("ebs.csi.aws.com/cluster", "true")],
            ..NewVolume::default()
        })
        .await?;
    let snapshot = cloud.snapshot_of(&source, "data").await?;
    let key = snapshot.kms_key_id.clone();
    let made = cloud
        .disks
        .create_volume(&wanted(&snapshot, "token-1"), SOON)
        .await?;
    let mut with_theirs = wanted(&snapshot, "").tags;
    with_theirs.insert("ebs.csi.aws.com/cluster".to_owned(), "true".to_owned());
    assert_eq!(made.tags, with_theirs);
    assert_eq!(made.availability_zone, "us-east-1b");
    assert_eq!(made.state, "available");
    let found = &cloud.ec2.volumes().await?[&made.id];
    assert_eq!(tags(found.tags()), with_theirs);
    assert_eq!(
        (
            found.iops(),
            found.throughput(),
            found.size(),
            found.kms_key_id()
        ),
        (Some(4000), Some(250), Some(20), key.as_deref())
    );
    assert_eq!(found.volume_type().map(|kind| kind.as_str()), Some("gp3"));
    assert_eq!(found.encrypted(), Some(true));
    assert_eq!(found.snapshot_id(), Some(&*snapshot.snapshot_id));
    ensure!(
        cloud
            .proxy
            .count(|request| request.form.contains("ClientToken=token-1"))
            == 1
    );

    // Another key, and a lost answer: the same token again. (moto makes a second volume; EC2 does not.)
    cloud
        .proxy
        .add(Rule::on(is("CreateVolume")).only(1).lose_answer());
    let other = WantedVolume {
        kms_key: Some("other-key".to_owned()),
        ..wanted(&snapshot, "token-2")
    };
    let made = cloud.disks.create_volume(&other, SOON).await?;
    let found = &cloud.ec2.volumes().await?[&made.id];
    assert_eq!(found.kms_key_id(), Some("other-key"));
    let same = |request: &ark_tests::proxy::Request| request.form.contains("ClientToken=token-2");
    assert_eq!(cloud.proxy.count(same), 2);

    // A record of Velero's: no region, size or encryption.
    let others = EbsSnapshot {
        snapshot_id: snapshot.snapshot_id.clone(),
        volume_type: "gp2".to_owned(),
        iops: Some(100),
        ..EbsSnapshot::default()
    };
    let made = cloud
        .disks
        .create_volume(&wanted(&others, "token-3"), SOON)
        .await?;
    assert_eq!(made.size_gib, Some(20));

    let nowhere = WantedVolume {
        availability_zone: String::new(),
        ..wanted(&snapshot, "token-4")
    };
    let error = cloud.disks.create_volume(&nowhere, SOON).await;
    ensure!(
        error
            .expect_err("no zone")
            .to_string()
            .contains("--zone-mappings")
    );
    Ok(())
}

async fn broken_volume() -> Result<()> {
    let cloud = Cloud::start().await?;
    let source = cloud.ec2.volume(NewVolume::default()).await?;
    let snapshot = cloud.snapshot_of(&source, "data").await?;
    let fails = async |token: &str, within: Duration| {
        let wanted = WantedVolume {
            kms_key: Some("wrong-key".to_owned()),
            ..wanted(&snapshot, token)
        };
        let made = cloud.disks.create_volume(&wanted, within).await;
        made.expect_err("it is not made")
    };
    let of_new = |request: &ark_tests::proxy::Request| {
        is("DescribeVolumes")(request) && request.form.contains("volume-id")
    };
    let state = |state: &'static str| {
        move |text: String| text.replace("<status>available<", &format!("<status>{state}<"))
    };

    // It ends in an error: deleted, and told.
    cloud
        .proxy
        .add(Rule::on(of_new).up_to(1).rewrite(state("creating")));
    cloud.proxy.add(Rule::on(of_new).rewrite(state("error")));
    let error = fails("token-1", SOON).await;
    let said = error.to_string();
    ensure!(matches!(error, DiskError::Broken { .. }), "{said}");
    ensure!(
        said.contains("wrong-key") && said.contains("--kms-key"),
        "{said}"
    );
    ensure!(said.contains("deleted again"), "{said}");
    assert_eq!(cloud.ec2.volumes().await?.len(), 1);

    // It vanishes.
    cloud.proxy.clear_rules();
    cloud
        .proxy
        .add(Rule::on(of_new).only(1).rewrite(state("creating")));
    cloud.proxy.add(Rule::on(of_new).from(2).answer(
        200,
        &[("content-type", "text/xml")],
        "<DescribeVolumesResponse><requestId>1</requestId><volumeSet/></DescribeVolumesResponse>",
    ));
    let error = fails("token-2", SOON).await;
    let said = error.to_string();
    ensure!(matches!(error, DiskError::Broken { .. }), "{said}");
    ensure!(
        said.contains("taken it away") && said.contains("wrong-key"),
        "{said}"
    );

    // It takes too long.
    cloud.proxy.clear_rules();
    cloud.proxy.add(Rule::on(of_new).rewrite(state("creating")));
    let error = fails("token-3", Duration::from_secs(2)).await;
    ensure!(
        error.to_string().contains("still creating after 2s"),
        "{error}"
    );

    // An earlier attempt wanted something else.
    cloud.proxy.clear_rules();
    let body = refusal("IdempotentParameterMismatch", "other arguments");
    cloud
        .proxy
        .add(Rule::on(is("CreateVolume")).answer(400, &[], body));
    let error = fails("token-4", SOON).await;
    ensure!(
        error
            .to_string()
            .contains("earlier attempt of this restore"),
        "{error}"
    );

    // The snapshot is broken or gone: no volume is asked for.
    cloud.proxy.clear_rules();
    cloud.proxy.clear_requests();
    cloud.proxy.add(
        Rule::on(is("DescribeSnapshots"))
            .rewrite(|text| text.replace("<status>completed<", "<status>error<")),
    );
    let error = fails("token-5", SOON).await;
    ensure!(matches!(&error, DiskError::Broken { id, .. } if *id == snapshot.snapshot_id));
    cloud.proxy.clear_rules();
    cloud
        .disks
        .delete_snapshot("", &snapshot.snapshot_id)
        .await?;
    let error = fails("token-6", SOON).await;
    ensure!(matches!(error, DiskError::NotFound(_)), "{error}");
    assert_eq!(cloud.proxy.count(is("CreateVolume")), 0);
    Ok(())
}

async fn waiting() -> Result<()> {
    let cloud = Cloud::start().await?;
    let source = cloud.ec2.volume(NewVolume::default()).await?;
    let id = cloud.snapshot_of(&source, "data").await?.snapshot_id;
    let state = |state: &'static str| {
        move |text: String| {
            ensure_has(&text, "<status>completed<");
            text.replace("<status>completed<", &format!("<status>{state}<"))
                .replace("<progress>100%<", "<progress>42%<")
        }
    };
    let looked = cloud.proxy.add(
        Rule::on(is("DescribeSnapshots"))
            .up_to(2)
            .rewrite(state("pending")),
    );
    let complete = cloud.disks.wait_for_snapshot("", &id, SOON).await?;
    assert_eq!((&*complete.id, &*complete.state), (&*id, "completed"));
    assert_eq!((looked.applied(), looked.matched()), (2, 3));

    cloud.proxy.clear_rules();
    cloud
        .proxy
        .add(Rule::on(is("DescribeSnapshots")).rewrite(state("pending")));
    let slow = cloud
        .disks
        .wait_for_snapshot("", &id, Duration::from_secs(1));
    let said = slow.await.expect_err("it is pending").to_string();
    assert_eq!(said, format!("{id} is still pending (42%) after 1s"));

    cloud.proxy.clear_rules();
    cloud
        .proxy
        .add(Rule::on(is("DescribeSnapshots")).rewrite(state("error")));
    let broken = cloud.disks.wait_for_snapshot("", &id, SOON).await;
    ensure!(matches!(broken, Err(DiskError::Broken { .. })));

    cloud.proxy.clear_rules();
    let none = cloud
        .disks
        .wait_for_snapshot("", "snap-0123456789abcdef0", SOON);
    ensure!(matches!(none.await, Err(DiskError::NotFound(_))));
    Ok(())
}

/// A rewriting that changes nothing would test nothing.
fn ensure_has(text: &str, part: &str) {
    assert!(text.contains(part), "no {part} in {text}");
}

async fn deletion() -> Result<()> {
    let cloud = Cloud::start().await?;
    let source = cloud.ec2.volume(NewVolume::default()).await?;
    let id = cloud.snapshot_of(&source, "data").await?.snapshot_id;
    let body = refusal(
        "InvalidSnapshot.InUse",
        "The snapshot is currently in use by ami-1",
    );
    cloud.proxy.add(
        Rule::on(is("DeleteSnapshot"))
            .only(1)
            .answer(400, &[], body),
    );
    let said = cloud
        .disks
        .delete_snapshot("", &id)
        .await
        .expect_err("in use");
    let said = said.to_string();
    ensure!(said.contains(&id) && said.contains("ami-1"), "{said}");
    ensure!(said.contains("deregister"), "{said}");
    ensure!(cloud.disks.delete_snapshot("", &id).await?);
    ensure!(!cloud.disks.delete_snapshot("", &id).await?);
    ensure!(cloud.ec2.snapshots().await?.is_empty());
    ensure!(cloud.disks.delete_volume("", &source).await?);
    ensure!(!cloud.disks.delete_volume("", &source).await?);
    Ok(())
}

async fn lists() -> Result<()> {
    let cloud = Cloud::start().await?;
    let source = cloud
        .ec2
        .volume(NewVolume {
            tags: &[("ark.heptio.com/unused", "true"), ("x", "1")],
            ..NewVolume::default()
        })
        .await?;
    let mut ids = Vec::new();
    for name in ["a", "b"] {
        ids.push(cloud.snapshot_of(&source, name).await?.snapshot_id);
    }
    // A page that says there is more: moto, which has no pages, then says everything again.
    cloud
        .proxy
        .add(Rule::on(is("DescribeSnapshots")).only(1).rewrite(|text| {
            ensure_has(&text, "</DescribeSnapshotsResponse>");
            text.replace(
                "</DescribeSnapshotsResponse>",
                "<nextToken>more</nextToken></DescribeSnapshotsResponse>",
            )
        }));
    let here = owned(&[("ark.heptio.com/location", "here")]);
    assert_eq!(cloud.disks.tagged_snapshots("", &here).await?.len(), 4);
    let more = |request: &ark_tests::proxy::Request| request.form.contains("NextToken=more");
    assert_eq!(cloud.proxy.count(more), 1);

    let found = cloud.disks.tagged_snapshots("", &ours("a")).await?;
    assert_eq!(
        found.iter().map(|found| &*found.id).collect::<Vec<_>>(),
        [&*ids[0]]
    );
    assert_eq!(
        (found[0].size_gib, &*found[0].volume_id),
        (Some(10), &*source)
    );
    let elsewhere = owned(&[("ark.heptio.com/location", "elsewhere")]);
    ensure!(
        cloud
            .disks
            .tagged_snapshots("", &elsewhere)
            .await?
            .is_empty()
    );
    // * would be any characters to a filter.
    let any = owned(&[("ark.heptio.com/location", "h*")]);
    ensure!(cloud.disks.tagged_snapshots("", &any).await?.is_empty());
    ensure!(
        cloud
            .disks
            .tagged_snapshots("eu-central-1", &here)
            .await?
            .is_empty()
    );

    let asked = [ids[1].clone(), "snap-0123456789abcdef0".to_owned()];
    let found = cloud.disks.snapshots("", &asked).await?;
    assert_eq!(
        found.iter().map(|found| &*found.id).collect::<Vec<_>>(),
        [&*ids[1]]
    );

    let unused = owned(&[("ark.heptio.com/unused", "true")]);
    assert_eq!(cloud.disks.tagged_volumes("", &unused).await?.len(), 1);
    cloud
        .disks
        .untag_volume("", &source, "ark.heptio.com/unused")
        .await?;
    ensure!(cloud.disks.tagged_volumes("", &unused).await?.is_empty());
    assert_eq!(
        tags(cloud.ec2.volumes().await?[&source].tags()),
        BTreeMap::from([("x".to_owned(), "1".to_owned())])
    );
    Ok(())
}

/// Everything that the edge asks of EC2, once.
async fn everything(disks: &dyn Disks, source: &str) -> Result<(), DiskError> {
    let snapshot = disks.snapshot("", source, &ours("data")).await?;
    let id = &snapshot.snapshot_id;
    disks.wait_for_snapshot("", id, SOON).await?;
    let volume = disks
        .create_volume(&wanted(&snapshot, "token"), SOON)
        .await?;
    disks
        .untag_volume("", &volume.id, "ark.heptio.com/unused")
        .await?;
    disks.delete_volume("", &volume.id).await?;
    disks.delete_snapshot("", id).await?;
    Ok(())
}

async fn policy() -> Result<()> {
    let cloud = Cloud::start().await?;
    let source = cloud.ec2.volume(NewVolume::default()).await?;
    let text = include_str!("../../manifests/iam-policy.json");
    let policy: serde_json::Value = serde_json::from_str(text)?;
    let actions = policy["Statement"][0]["Action"].as_array();
    let actions: Vec<String> = actions
        .context("the first statement is EC2's")?
        .iter()
        .filter_map(|action| Some(action.as_str()?.to_owned()))
        .collect();
    ensure!(actions.iter().all(|action| action.starts_with("ec2:")));

    let iam = Iam {
        url: cloud.moto.url(),
    };
    let keys = iam.user("ark").await?;
    iam.allow("ark", text).await?;
    iam.enforce(true).await?;
    let place = place(
        cloud.directory.path(),
        cloud.proxy.url(),
        (&keys.0, &keys.1),
    )?;
    let disks = connect(place.into(), None, cloud.log.clone()).await?;
    everything(&*disks, &source).await?;

    for action in &actions {
        // moto does not look at the right to give tags at creation, which EC2 wants for both kinds; nothing of ours gives tags to
        // what exists. What EC2 says without it is shown below.
        if action == "ec2:CreateTags" {
            continue;
        }
        let mut less = policy.clone();
        let kept = actions.iter().filter(|kept| *kept != action);
        less["Statement"][0]["Action"] = kept.cloned().collect();
        iam.enforce(false).await?;
        iam.allow("ark", &less.to_string()).await?;
        iam.enforce(true).await?;
        let Err(error) = everything(&*disks, &source).await else {
            bail!("{action} is not needed");
        };
        let said = error.to_string();
        ensure!(
            said.contains(&format!("allow {action}: ")),
            "{action}: {said}"
        );
        ensure!(said.contains("docs/volumes.md"), "{action}: {said}");
    }
    iam.enforce(false).await?;

    let body = refusal(
        "UnauthorizedOperation",
        "You are not authorized to perform this operation. User: arn:aws:iam::1:user/ark is not authorized to perform: \
         ec2:CreateTags on resource: arn:aws:ec2:us-east-1::snapshot/*. Encoded authorization failure message: aBcD",
    );
    cloud
        .proxy
        .add(Rule::on(is("CreateSnapshot")).answer(403, &[], body));
    let error = disks.snapshot("", &source, &ours("data")).await;
    let said = error.expect_err("no tags").to_string();
    ensure!(
        said.contains("allow ec2:CreateTags: ") && !said.contains("aBcD"),
        "{said}"
    );
    ensure!(actions.iter().any(|action| action == "ec2:CreateTags"));
    Ok(())
}

const AGAIN: &str = "ARK_TEST_DISKS";
const AGAIN_CA: &str = "ARK_TEST_DISKS_CA";

/// What this program does when it is started by a scenario with an environment of its own: lists snapshots of a location.
pub fn again() -> Option<i32> {
    let location = std::env::var(AGAIN).ok()?;
    let listed = || -> Result<String> {
        let mut place: Location = location.parse()?;
        if let (Location::S3(place), Some(file)) = (&mut place, std::env::var_os(AGAIN_CA)) {
            place.ca_bundle = Some(std::fs::read(file)?);
        }
        let log = Log::new(&std::env::temp_dir())?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let disks = connect(place, None, log).await?;
            let found = disks.tagged_snapshots("", &ours("data")).await?;
            Ok(format!("{} {}", disks.region(), found.len()))
        })
    };
    Some(match listed() {
        Ok(text) => {
            println!("{text}");
            0
        }
        Err(error) => {
            eprintln!("{error:#}");
            1
        }
    })
}

/// Starts this program again, with nothing but that in its environment; what it prints.
async fn elsewhere(location: &str, environment: &[(&str, &str)]) -> Result<String> {
    let home = tempfile::tempdir()?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .env_clear()
        .env("HOME", home.path())
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env(AGAIN, location)
        .envs(environment.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if !output.status.success() {
        bail!("{}", text(&output.stderr));
    }
    Ok(text(&output.stdout))
}

async fn credentials() -> Result<()> {
    let cloud = Cloud::start().await?;
    let url = cloud.proxy.url();
    let base = [("AWS_ENDPOINT_URL_EC2", url), ("AWS_REGION", "us-east-1")];
    // The key that signed the last request to EC2.
    let key = || -> Result<String> {
        let requests = cloud.proxy.requests();
        let last = requests
            .iter()
            .rev()
            .find(|one| is("DescribeSnapshots")(one));
        let signed = last.context("EC2 was asked")?.headers["authorization"].to_str()?;
        let (_, rest) = signed.split_once("Credential=").context("signed")?;
        Ok(rest.split('/').next().unwrap_or_default().to_owned())
    };
    let with = |more: &[(&'static str, &str)]| -> Vec<(String, String)> {
        let all = base.iter().chain(more);
        all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    };
    let run = async |location: &str, more: &[(&'static str, &str)]| -> Result<String> {
        let environment = with(more);
        let environment: Vec<(&str, &str)> = environment
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        elsewhere(location, &environment).await
    };

    let keys = [
        ("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
    ];
    assert_eq!(
        run("s3://bucket?region=eu-west-1", &keys).await?,
        "us-east-1 0"
    );
    assert_eq!(key()?, "AKIAENVIRONMENT");
    assert_eq!(run("file:///tmp", &keys).await?, "us-east-1 0");

    // A Secret's file and profile come before the environment.
    let file = cloud.directory.path().join("cloud");
    std::fs::write(
        &file,
        "[default]\naws_access_key_id = AKIADEFAULT\naws_secret_access_key = x\n\
         [other]\naws_access_key_id = AKIAOTHER\naws_secret_access_key = x\n",
    )?;
    let secret = format!("s3://bucket?credentials-file={}", file.display());
    run(&secret, &keys).await?;
    assert_eq!(key()?, "AKIADEFAULT");
    run(&format!("{secret}&profile=other"), &keys).await?;
    assert_eq!(key()?, "AKIAOTHER");

    // A role to assume with them.
    let role = "arn:aws:iam::123456789012:role/ark";
    run(
        &format!("{secret}&role-arn={role}"),
        &[("AWS_ENDPOINT_URL_STS", url)],
    )
    .await?;
    ensure!(key()?.starts_with("ASIA"), "{}", key()?);
    let assumed = |request: &ark_tests::proxy::Request| {
        is("AssumeRole")(request)
            && request.headers["authorization"]
                .to_str()
                .is_ok_and(|signed| signed.contains("AKIADEFAULT"))
    };
    assert_eq!(cloud.proxy.count(assumed), 1);

    // Web identity, as IRSA gives it.
    let token = cloud.directory.path().join("token");
    std::fs::write(&token, "a.b.c")?;
    let token = token.to_str().context("UTF-8")?;
    let irsa = [
        ("AWS_ENDPOINT_URL_STS", url),
        ("AWS_ROLE_ARN", role),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token),
    ];
    run("s3://bucket", &irsa).await?;
    ensure!(key()?.starts_with("ASIA"), "{}", key()?);
    assert_eq!(cloud.proxy.count(is("AssumeRoleWithWebIdentity")), 1);

    // The container endpoint of Pod Identity, which wants the pod's token.
    let agent = std::net::TcpListener::bind("127.0.0.1:0")?;
    let endpoint = format!("http://{}/v1/credentials", agent.local_addr()?);
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = asked.clone();
    std::thread::spawn(move || {
        for connection in agent.incoming() {
            let Ok(mut connection) = connection else {
                return;
            };
            let mut lines = String::new();
            let mut reader = std::io::BufReader::new(&connection);
            while reader.read_line(&mut lines).is_ok_and(|read| read > 2) {}
            seen.lock().unwrap().push(lines);
            let body = r#"{"AccessKeyId":"ASIAPOD","SecretAccessKey":"x","Token":"t","Expiration":"2099-01-01T00:00:00Z"}"#;
            let _ = write!(
                connection,
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
        }
    });
    let pod = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &*endpoint),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token),
    ];
    run("s3://bucket", &pod).await?;
    assert_eq!(key()?, "ASIAPOD");
    let asked = asked.lock().unwrap().join("");
    ensure!(
        asked.to_lowercase().contains("authorization: a.b.c"),
        "{asked}"
    );

    // None at all.
    let said = run("s3://bucket", &[])
        .await
        .expect_err("no credentials")
        .to_string();
    let found_none = said.contains("no AWS credentials were found");
    ensure!(found_none && !said.contains("Attempted"), "{said}");
    // And no region.
    let environment = [("AWS_ENDPOINT_URL_EC2", url), keys[0], keys[1]];
    let said = elsewhere("s3://bucket", &environment).await;
    ensure!(
        said.expect_err("no region")
            .to_string()
            .contains("AWS_REGION")
    );
    assert_eq!(
        elsewhere("s3://bucket?region=us-east-1", &environment).await?,
        "us-east-1 0"
    );
    Ok(())
}

async fn private() -> Result<()> {
    let moto = MotoServer::start().await?;
    let directory = tempfile::tempdir()?;
    let endpoint = FaultProxy::start_tls(moto.url(), directory.path()).await?;
    let authority = directory.path().join("ca.crt");
    let authority = authority.to_str().context("UTF-8")?;
    let [id, secret, region] = s3::environment();
    let base = [id, secret, region, ("AWS_ENDPOINT_URL_EC2", endpoint.url())];

    let said = elsewhere("s3://bucket", &base)
        .await
        .expect_err("not trusted")
        .to_string();
    ensure!(said.contains("certificate authority"), "{said}");
    assert_eq!(endpoint.count(|_| true), 0);

    let mut trusted = base.to_vec();
    trusted.push((AGAIN_CA, authority));
    assert_eq!(elsewhere("s3://bucket", &trusted).await?, "us-east-1 0");
    assert_eq!(endpoint.count(is("DescribeSnapshots")), 1);

    // A proxy that connects: it sees the host and nothing else.
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let proxy = format!("http://{}", listener.local_addr()?);
    let connected: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = connected.clone();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(client) = connection else { return };
            let seen = seen.clone();
            std::thread::spawn(move || tunnel(client, &seen));
        }
    });
    trusted.push(("HTTPS_PROXY", &proxy));
    assert_eq!(elsewhere("s3://bucket", &trusted).await?, "us-east-1 0");
    let host = endpoint.url().trim_start_matches("https://");
    let connected = connected.lock().unwrap().clone();
    assert_eq!(connected, [format!("CONNECT {host} HTTP/1.1")]);
    assert_eq!(endpoint.count(is("DescribeSnapshots")), 2);
    Ok(())
}

/// Serves one CONNECT.
fn tunnel(mut client: std::net::TcpStream, seen: &Mutex<Vec<String>>) -> Option<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let line = head.lines().next()?.to_owned();
    let host = line.split(' ').nth(1)?.to_owned();
    seen.lock().unwrap().push(line);
    let mut server = std::net::TcpStream::connect(host).ok()?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
    let (mut from, mut to) = (client.try_clone().ok()?, server.try_clone().ok()?);
    std::thread::spawn(move || std::io::copy(&mut from, &mut to));
    std::io::copy(&mut server, &mut client).ok()?;
    Some(())
}

async fn clock() -> Result<()> {
    let cloud = Cloud::start().await?;
    ensure!(cloud.disks.clock().is_none());
    // Less than what EC2 takes a signature for.
    cloud.proxy.add(Rule::on_all().shift_date(-200));
    cloud.disks.tagged_volumes("", &ours("x")).await?;
    let clock = cloud.disks.clock().context("it has answered")?;
    let behind = jiff::Timestamp::now().duration_since(clock).as_secs();
    ensure!((195..=260).contains(&behind), "{behind} s behind");
    Ok(())
}
