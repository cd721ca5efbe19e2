//! Throw-away clusters for people: `make cluster`, `make cluster-down`, and the demo are thin lines over this.
//!
//! `up` starts a process of its own that holds everything and stays; `down` ends it, and with it all it started.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
#[cfg(target_os = "linux")]
use ark_tests::NodeCluster;
use ark_tests::process::{self, Identity};
use ark_tests::{ControlPlane, MotoServer, Options, S3Server, cache, prerequisites, wait_until};
use clap::{Args, Parser, Subcommand};
use serde::{Deserialize, Serialize};

#[derive(Parser)]
#[command(about = "Start and remove throw-away Kubernetes clusters")]
struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Start a cluster with S3 and EC2 servers that stays up, and say how to use it
    Up {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        size: Size,
    },
    /// Remove it
    Down {
        #[command(flatten)]
        which: Which,
    },
    /// Print its environment as shell commands: eval "$(throwaway env)"
    Env {
        #[command(flatten)]
        which: Which,
    },
    /// Load an image (docker archive) into it
    Load {
        #[command(flatten)]
        which: Which,
        archive: PathBuf,
    },
    /// Make or install what the tests need, or name what is missing
    Prerequisites {
        #[command(flatten)]
        size: Size,
    },
    /// Build the image of ark-job on a base of Debian's packages, into this archive
    Image {
        /// Its full name, such as localhost/ark-job:demo
        image: String,
        archive: PathBuf,
    },
    /// Hold a cluster until ended by a signal; the state is written when it is ready
    #[command(hide = true)]
    Hold {
        #[arg(long)]
        state: PathBuf,
        #[command(flatten)]
        size: Size,
    },
}

#[derive(Args)]
struct Which {
    /// Several clusters of one clone are told apart by name
    #[arg(long, default_value = "cluster")]
    name: String,
}

#[derive(Args)]
struct Size {
    /// No node, no root: objects, but no pods
    #[arg(long)]
    control_plane_only: bool,
}

/// A cluster that is up, as `up` leaves it for the other commands.
#[derive(Serialize, Deserialize)]
struct State {
    holder: Identity,
    /// What a shell needs; PATH is put before the one there is.
    environment: BTreeMap<String, String>,
    /// How to run a program inside its namespaces; empty without a node.
    inside: Vec<String>,
}

fn main() -> ExitCode {
    let result = run(Arguments::parse().command);
    process::end_all();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(action: Action) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match action {
        Action::Up { which, size } => runtime.block_on(up(&state_file(&which), &size)),
        Action::Down { which } => runtime.block_on(down(&state_file(&which))),
        Action::Env { which } => {
            print!("{}", exports(&living(&state_file(&which))?));
            Ok(())
        }
        Action::Load { which, archive } => load(&living(&state_file(&which))?, &archive),
        Action::Prerequisites { size } => {
            // Scenarios that need a node are skipped where there can be none, and say so.
            let control_plane_only = size.control_plane_only || !node_is_possible();
            get_prerequisites(&Size { control_plane_only })?;
            // Only scenarios need it, not a cluster that stays up.
            prerequisites::csi()?;
            prerequisites::gitops()?;
            if cfg!(target_os = "linux") {
                prerequisites::promtool()?;
                prerequisites::registry()?;
            }
            Ok(())
        }
        Action::Image { image, archive } => build_image(&image, &archive),
        Action::Hold { state, size } => runtime.block_on(hold(&state, &size)),
    }
}

/// Each clone has clusters of its own.
fn state_file(which: &Which) -> PathBuf {
    let clone = cache::hash(&[env!("CARGO_MANIFEST_DIR").as_bytes()]);
    cache::directory()
        .join("clusters")
        .join(format!("{}-{clone}.json", which.name))
}

fn read(path: &Path) -> Option<State> {
    let state: State = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    state.holder.lives().then_some(state)
}

fn living(path: &Path) -> Result<State> {
    read(path).context("no cluster is up (hint: make cluster)")
}

async fn up(path: &Path, size: &Size) -> Result<()> {
    // Here, where a person sees what is built, and why it takes long.
    get_prerequisites(size)?;
    if let Some(state) = read(path) {
        eprintln!("A cluster is up already.");
        tell(&state);
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let log = path.with_extension("log");
    let output = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
    let mut holder = Command::new(std::env::current_exe()?);
    holder.arg("hold").arg("--state").arg(path);
    if size.control_plane_only {
        holder.arg("--control-plane-only");
    }
    // A process group of its own: Ctrl-C in this terminal is not meant for it.
    holder
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    let mut holder = holder.spawn().context("starting the cluster's process")?;
    let state = wait_until("the cluster", Duration::from_secs(120), async || {
        if let Some(status) = holder.try_wait()? {
            return Ok(Some(Err(anyhow::anyhow!(
                "{status}: {}",
                fs::read_to_string(&log)?.trim_end()
            ))));
        }
        Ok(read(path).map(Ok))
    })
    .await??;
    tell(&state);
    Ok(())
}

async fn down(path: &Path) -> Result<()> {
    let Some(state) = read(path) else {
        eprintln!("No cluster is up.");
        return Ok(());
    };
    process::signal(state.holder.id(), rustix::process::Signal::TERM)?;
    wait_until("the cluster to end", Duration::from_secs(60), async || {
        Ok((!state.holder.lives()).then_some(()))
    })
    .await?;
    fs::remove_file(path).with_context(|| format!("removing {}", path.display()))?;
    eprintln!("The cluster is gone.");
    Ok(())
}

fn load(state: &State, archive: &Path) -> Result<()> {
    let Some((program, arguments)) = state.inside.split_first() else {
        bail!("a cluster without a node runs no images");
    };
    let archive =
        fs::canonicalize(archive).with_context(|| format!("finding {}", archive.display()))?;
    let mut import = Command::new(program);
    import
        .args(arguments)
        .args(["ctr", "--namespace", "k8s.io", "images", "import"])
        .arg(archive);
    process::output(&mut import).map(drop)
}

fn get_prerequisites(size: &Size) -> Result<()> {
    prerequisites::kubernetes()?;
    prerequisites::python()?;
    if !size.control_plane_only {
        node_prerequisites()?;
    }
    Ok(())
}

#[cfg(target_os = "linux")]
fn node_prerequisites() -> Result<()> {
    prerequisites::node()
}

#[cfg(not(target_os = "linux"))]
fn node_prerequisites() -> Result<()> {
    bail!("a node needs Linux (hint: --control-plane-only)")
}

#[cfg(target_os = "linux")]
fn build_image(image: &str, archive: &Path) -> Result<()> {
    prerequisites::node()?;
    ark_tests::images::ark_job(image, archive)
}

#[cfg(not(target_os = "linux"))]
fn build_image(_image: &str, _archive: &Path) -> Result<()> {
    bail!("images are built on Linux, or with docker: `make image`")
}

fn node_is_possible() -> bool {
    cfg!(target_os = "linux") && rustix::process::geteuid().is_root()
}

/// How to use the cluster, for a person.
fn tell(state: &State) {
    println!("# The cluster is up. In your shell:\n");
    print!("{}", exports(state));
    println!("\n# Then: kubectl get nodes; kubectl ark version. Remove it with: make cluster-down");
}

fn exports(state: &State) -> String {
    let mut text = String::new();
    for (name, value) in &state.environment {
        let value = value.replace('\'', r"'\''");
        match name.as_str() {
            "PATH" => text.push_str(&format!("export PATH='{value}':\"$PATH\"\n")),
            _ => text.push_str(&format!("export {name}='{value}'\n")),
        }
    }
    text
}

/// Starts everything, writes the state, and waits for the signal that ends it (see `process`).
async fn hold(path: &Path, size: &Size) -> Result<()> {
    let (s3, moto, cluster) =
        tokio::try_join!(S3Server::start(), MotoServer::start(), start(size))?;
    s3.bucket("ark").await?;
    let held = Held::new(cluster, &s3, &moto)?;
    let state = State {
        holder: Identity::of(std::process::id()).context("this process lives")?,
        environment: held.environment,
        inside: held.inside,
    };
    let temporary = path.with_extension("new");
    fs::write(&temporary, serde_json::to_vec_pretty(&state)?)?;
    fs::rename(&temporary, path).with_context(|| format!("writing {}", path.display()))?;
    std::future::pending().await
}

/// A cluster of either size.
enum Cluster {
    Small(Box<ControlPlane>),
    #[cfg(target_os = "linux")]
    Whole(Box<NodeCluster>),
}

#[cfg(target_os = "linux")]
async fn start(size: &Size) -> Result<Cluster> {
    if size.control_plane_only {
        return start_small().await;
    }
    let cluster = NodeCluster::start(Options::default()).await?;
    Ok(Cluster::Whole(Box::new(cluster)))
}

#[cfg(not(target_os = "linux"))]
async fn start(size: &Size) -> Result<Cluster> {
    if !size.control_plane_only {
        node_prerequisites()?;
    }
    start_small().await
}

async fn start_small() -> Result<Cluster> {
    let options = Options {
        controller_manager: true,
        ..Options::default()
    };
    let cluster = ControlPlane::start(options).await?;
    Ok(Cluster::Small(Box::new(cluster)))
}

/// What lives as long as the process.
struct Held {
    environment: BTreeMap<String, String>,
    inside: Vec<String>,
    _cluster: Cluster,
}

impl Held {
    fn new(cluster: Cluster, s3: &S3Server, moto: &MotoServer) -> Result<Self> {
        let (environment, inside) = match &cluster {
            Cluster::Small(cluster) => {
                let path = write_programs(cluster, &[])?;
                (environment(cluster, path, s3.url(), moto.url()), Vec::new())
            }
            #[cfg(target_os = "linux")]
            Cluster::Whole(cluster) => {
                let path = write_programs(cluster, &cluster.command_prefix())?;
                let (s3, moto) = (cluster.expose(s3.url())?, cluster.expose(moto.url())?);
                (
                    environment(cluster, path, &s3, &moto),
                    cluster.inside_prefix(),
                )
            }
        };
        Ok(Held {
            environment,
            inside,
            _cluster: cluster,
        })
    }
}

fn environment(
    cluster: &ControlPlane,
    path: PathBuf,
    s3: &str,
    ec2: &str,
) -> BTreeMap<String, String> {
    let mut environment: BTreeMap<String, String> = BTreeMap::from([
        (
            "KUBECONFIG".into(),
            cluster.kubeconfig().display().to_string(),
        ),
        ("PATH".into(), path.display().to_string()),
        // As pods see them, and the plugin, which runs in the cluster's network.
        ("ARK_S3_URL".into(), s3.into()),
        ("ARK_EC2_URL".into(), ec2.into()),
        ("ARK_S3_BUCKET".into(), "ark".into()),
    ]);
    environment
        .extend(ark_tests::s3::environment().map(|(name, value)| (name.into(), value.into())));
    environment
}

/// A directory for PATH: kubectl, and the plugin as one line of shell that runs it in the cluster's network, because it
/// must reach the same URLs as pods do.
fn write_programs(cluster: &ControlPlane, prefix: &[String]) -> Result<PathBuf> {
    let directory = cluster.directory()?.join("bin");
    fs::create_dir_all(&directory)?;
    symlink(cluster.bin().join("kubectl"), directory.join("kubectl"))?;
    let own = std::env::current_exe()?;
    let plugin = own
        .parent()
        .context("a program is in a directory")?
        .join("kubectl-ark");
    let wrapper = directory.join("kubectl-ark");
    fs::write(
        &wrapper,
        format!(
            "#!/bin/sh\nexec {} '{}' \"$@\"\n",
            prefix.join(" "),
            plugin.display()
        ),
    )?;
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
    Ok(directory)
}
