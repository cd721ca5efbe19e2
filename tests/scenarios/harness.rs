//! The harness itself: what every other scenario takes for granted.

use std::collections::BTreeMap;

use anyhow::Result;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use libtest_mimic::Trial;

use crate::world::{World, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "harness::an_object_is_created_and_read_back_by_kubectl",
            an_object_is_created_and_read_back_by_kubectl,
        ),
        scenario(
            "harness::a_key_is_taken_only_once",
            a_key_is_taken_only_once,
        ),
    ]
}

async fn an_object_is_created_and_read_back_by_kubectl() -> Result<()> {
    let world = World::new("objects").await?;
    let namespace = world.namespace("app").await?;
    let config_map = ConfigMap {
        metadata: ObjectMeta {
            name: Some("settings".into()),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([("colour".into(), "green".into())])),
        ..ConfigMap::default()
    };
    Api::namespaced(world.client.clone(), &namespace)
        .create(&PostParams::default(), &config_map)
        .await?;
    let colour = world.cluster.kubectl(&[
        "get",
        "configmap",
        "settings",
        "-n",
        &namespace,
        "-o",
        "jsonpath={.data.colour}",
    ])?;
    assert_eq!(colour, "green");
    Ok(())
}

async fn a_key_is_taken_only_once() -> Result<()> {
    let world = World::new("keys").await?;
    let key = format!("{}/marker", world.prefix());
    assert!(world.bucket.put_if_absent(&key, "first").await?);
    assert!(!world.bucket.put_if_absent(&key, "second").await?);
    let objects = world.bucket.objects(world.prefix()).await?;
    assert_eq!(objects, BTreeMap::from([(key, "first".into())]));
    Ok(())
}
