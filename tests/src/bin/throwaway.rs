//! x
use ark_tests::*;
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let t = std::time::Instant::now();
    let c = NodeCluster::start(Options::default()).await?;
    eprintln!("node cluster {:?} {:?}", t.elapsed(), c.directory()?);
    println!("{}", c.kubectl(&["get", "nodes", "-o", "wide"])?);
    tokio::time::sleep(std::time::Duration::from_secs(
        std::env::args().nth(1).unwrap_or("0".into()).parse()?,
    ))
    .await;
    let t = std::time::Instant::now();
    drop(c);
    eprintln!("stopped in {:?}", t.elapsed());
    Ok(())
}
