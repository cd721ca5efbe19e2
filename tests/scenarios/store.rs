//! The storage edge on real servers: one conformance suite over every implementation.

use anyhow::Result;
use ark_job::store::conformance::Known;
use ark_job::store::{Credentials, Location, Store, conformance};
use ark_tests::{MotoServer, s3};
use libtest_mimic::Trial;

use crate::world::{World, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        scenario("store::a_directory_conforms", directory),
        scenario("store::seaweedfs_conforms", seaweedfs),
        scenario("store::moto_conforms", moto),
    ]
}

async fn directory() -> Result<()> {
    let directory = tempfile::tempdir()?;
    conform(
        &format!("file://{}", directory.path().display()),
        Known::Good,
    )
    .await
}

async fn seaweedfs() -> Result<()> {
    let world = World::new("store").await?;
    // Two completions at the same instant may both succeed there; the commit looks again (docs/format.md).
    conform(&world.storage(), Known::RacyCompletion).await
}

async fn moto() -> Result<()> {
    let moto = MotoServer::start().await?;
    let bucket = moto.bucket("conformance").await?;
    let url = moto.url();
    conform(
        &format!(
            "s3://{}/prefix?endpoint={url}&path-style=true&region=us-east-1",
            bucket.name()
        ),
        Known::RacyCompletion,
    )
    .await
}

async fn conform(url: &str, known: Known) -> Result<()> {
    let location: Location = url.parse()?;
    let [(_, id), (_, secret), ..] = s3::environment();
    let keys = Credentials::Keys {
        access_key_id: id.to_owned(),
        secret_access_key: secret.to_owned(),
        session_token: None,
    };
    let store = Store::open(&location, &keys).await?;
    let scratch = tempfile::tempdir()?;
    conformance::all(&store, scratch.path(), known).await;
    Ok(())
}
