//! A cluster with a node: the control plane, the scheduler, containerd and a kubelet that runs real pods. Needs root.
//!
//! Everything lives in namespaces of its own (network, mounts, processes), so that several clusters run side by side
//! with the same addresses and paths, and nothing of them is left when their first process dies: the kernel kills
//! pods, shims and mounts with it. On the machine there are a directory and control groups, which the [`Run`] removes.
//!
//! Addresses inside: pods have 10.88.0.0/16, the API server is 10.96.0.1:443, there is no DNS. What listens on the
//! machine's loopback (an S3 server, a proxy) is given to pods by [`NodeCluster::expose`].
//!
//! [`Run`]: crate::process::Run

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Node;
use kube::Api;

use crate::cluster::Place;
use crate::network::Namespace;
use crate::process::{self, Process, Run, output};
use crate::{ControlPlane, Options, images, prerequisites, wait_until};

/// The machine as pods see it.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);

/// A running cluster with one node, `node`; ends when dropped. What a [`ControlPlane`] can, it can too.
pub struct NodeCluster {
    // Dropped in this order; the first process of the namespaces takes everything inside with it.
    _kubelet: Process,
    _scheduler: Process,
    _containerd: Process,
    _first: Process,
    cluster: ControlPlane,
    inside: Inside,
    exposed: Mutex<BTreeSet<u16>>,
}

impl Deref for NodeCluster {
    type Target = ControlPlane;

    fn deref(&self) -> &ControlPlane {
        &self.cluster
    }
}

impl NodeCluster {
    /// Starts one and waits until its node takes pods. It always has a controller manager.
    pub async fn start(options: Options) -> Result<Self> {
        prerequisites::node()?;
        let bin = prerequisites::kubernetes()?;
        let archives = images::basic()?;
        let run = Run::start()?;
        let group = format!("ark-{}", run.id());
        run.create_control_group(&group)?;
        let directory = run.directory().to_path_buf();
        write_configuration(&directory, &group)?;

        let first = run.spawn("node", first_process(&directory))?;
        wait_until(
            "the node's namespaces",
            Duration::from_secs(10),
            async || {
                if let Err(ended) = first.check() {
                    return Ok(Some(Err(ended)));
                }
                Ok(directory
                    .join("namespaces-are-ready")
                    .exists()
                    .then_some(Ok(())))
            },
        )
        .await??;
        let inside = Inside {
            first: first.id(),
            network: Namespace::of_process(first.id())?,
        };

        let mut containerd = inside.bound("containerd");
        containerd
            .arg("--config")
            .arg(directory.join("containerd.toml"));
        let containerd = run.spawn("containerd", containerd)?;

        let options = Options {
            controller_manager: true,
            ..options
        };
        let cluster =
            ControlPlane::start_in(run, Place::Namespace(inside.network.clone()), options).await?;
        wait_until("containerd", Duration::from_secs(20), async || {
            if let Err(ended) = containerd.check() {
                return Ok(Some(Err(ended)));
            }
            output(inside.command("ctr").args(["version"])).map(|_| Some(Ok(())))
        })
        .await??;
        for archive in archives {
            inside.load_image(&archive)?;
        }

        let kubeconfig = directory.join("kubeconfig-components");
        let mut scheduler = inside.network.bound(bin.join("kube-scheduler"));
        scheduler
            .arg("--kubeconfig")
            .arg(&kubeconfig)
            .arg("--cert-dir")
            .arg(directory.join("scheduler"));
        scheduler.args(["--bind-address=127.0.0.1", "--leader-elect=false"]);
        let scheduler = cluster.run()?.spawn("kube-scheduler", scheduler)?;

        let mut kubelet = inside.bound(bin.join("kubelet"));
        kubelet
            .arg("--kubeconfig")
            .arg(&kubeconfig)
            .arg("--config")
            .arg(directory.join("kubelet.json"));
        kubelet.args(["--hostname-override=node", "--node-ip=10.88.0.1"]);
        let kubelet = cluster.run()?.spawn("kubelet", kubelet)?;

        let nodes: Api<Node> = Api::all(cluster.client().await?);
        wait_until(
            "the node to be ready",
            Duration::from_secs(60),
            async || {
                if let Err(ended) = kubelet.check().and_then(|()| scheduler.check()) {
                    return Ok(Some(Err(ended)));
                }
                Ok(takes_pods(&nodes.get("node").await?).then_some(Ok(())))
            },
        )
        .await??;
        let (_kubelet, _scheduler, _containerd, _first) = (kubelet, scheduler, containerd, first);
        Ok(NodeCluster {
            _kubelet,
            _scheduler,
            _containerd,
            _first,
            cluster,
            inside,
            exposed: Mutex::default(),
        })
    }

    /// Makes a server on the machine's 127.0.0.1 reachable for pods and for [`NodeCluster::command`], and gives its
    /// URL there: `http://10.88.0.1:PORT`, with the same port.
    pub fn expose(&self, url: &str) -> Result<String> {
        let (scheme, port) = url
            .split_once("://127.0.0.1:")
            .with_context(|| format!("{url} is not on 127.0.0.1"))?;
        let port: u16 = port
            .trim_end_matches('/')
            .parse()
            .with_context(|| format!("the port of {url}"))?;
        let mut exposed = self
            .exposed
            .lock()
            .expect("no thread panics while it holds this lock");
        if exposed.insert(port) {
            let outside = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            self.inside
                .network
                .forward_out(SocketAddr::from((GATEWAY, port)), outside)?;
        }
        Ok(format!("{scheme}://{GATEWAY}:{port}"))
    }

    /// As [`NodeCluster::expose`], on the node's own loopback: containerd speaks plain HTTP with a registry there, and only
    /// there. Gives `127.0.0.1:PORT`.
    pub fn expose_to_node(&self, url: &str) -> Result<String> {
        let address = url
            .strip_prefix("http://")
            .with_context(|| format!("{url} is not http"))?;
        let address: SocketAddr = address.parse().with_context(|| url.to_owned())?;
        self.inside.network.forward_out(address, address)?;
        Ok(address.to_string())
    }

    /// A program that runs in the cluster's network with KUBECONFIG set, but on the machine's files: a plugin that
    /// must reach the URLs that pods use. KUBECONFIG works on both sides.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.inside.network.command(program);
        command.env("KUBECONFIG", self.cluster.kubeconfig());
        if let Ok(directory) = self.cluster.directory() {
            command.env("KUBECACHEDIR", directory.join("kubectl-cache"));
        }
        command
    }

    /// What to put before a command line so that it runs as in [`NodeCluster::command`].
    pub fn command_prefix(&self) -> Vec<String> {
        vec![
            "nsenter".into(),
            format!("--net={}", self.inside.network.path().display()),
            "--".into(),
        ]
    }

    /// What to put before a command line so that it runs in all of the node's namespaces: containerd's `ctr`, `ip`.
    pub fn inside_prefix(&self) -> Vec<String> {
        self.inside.prefix().to_vec()
    }

    /// A command that runs in all of the node's namespaces and dies with this process: what must mount for pods.
    pub(crate) fn bound_inside(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.inside.bound(program)
    }

    /// Loads an image from an archive (docker or OCI). Pods name it with imagePullPolicy IfNotPresent or Never.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        self.inside.load_image(archive)
    }

    /// Builds a Containerfile and loads the image; the archive goes with the cluster. See [`images::build`].
    pub fn build_image(
        &self,
        context: &Path,
        containerfile: &Path,
        image: &str,
        arguments: &[(&str, &str)],
    ) -> Result<()> {
        let archive = self.cluster.directory()?.join(format!(
            "image-{}.tar",
            crate::cache::hash(&[image.as_bytes()])
        ));
        images::build(context, containerfile, image, arguments, &archive)?;
        self.load_image(&archive)
    }

    /// The processes of a pod, as the machine numbers them, without the one that holds its namespaces.
    pub fn pod_processes(&self, uid: &str) -> Result<Vec<u32>> {
        let mut found = BTreeSet::new();
        for root in self.cluster.run()?.control_groups() {
            if let Some(group) = find_directory(&root, &format!("pod{uid}")) {
                found.extend(process::processes_in_control_group(&group));
            }
        }
        found.retain(|process_id| {
            let line = fs::read(format!("/proc/{process_id}/cmdline")).unwrap_or_default();
            line != b"/bin/sleep\0infinity\0"
        });
        Ok(found.into_iter().collect())
    }
}

fn takes_pods(node: &Node) -> bool {
    let conditions = node
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions
        .into_iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    ready
        && node
            .spec
            .as_ref()
            .is_none_or(|spec| spec.taints.as_ref().is_none_or(Vec::is_empty))
}

/// The way into the cluster's namespaces.
struct Inside {
    first: u32,
    network: Namespace,
}

impl Inside {
    fn prefix(&self) -> [String; 5] {
        let first = self.first;
        // `unshare` itself stays in the machine's process namespace: its child is the first in the new one.
        [
            "nsenter".into(),
            format!("--net=/proc/{first}/ns/net"),
            format!("--mount=/proc/{first}/ns/mnt"),
            format!("--pid=/proc/{first}/ns/pid_for_children"),
            "--".into(),
        ]
    }

    fn bound(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let [nsenter, rest @ ..] = self.prefix();
        let mut command = process::bound(nsenter);
        command.args(rest).arg(program);
        command
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let [nsenter, rest @ ..] = self.prefix();
        let mut command = Command::new(nsenter);
        command.args(rest).arg(program);
        command
    }

    fn load_image(&self, archive: &Path) -> Result<()> {
        let mut import = self.command("ctr");
        // Not all platforms: an archive has one.
        import
            .args([
                "--namespace",
                "k8s.io",
                "images",
                "import",
                "--digests=false",
            ])
            .arg(archive);
        let said = output(&mut import).with_context(|| format!("loading {}", archive.display()))?;
        if !said.contains("unpacking") {
            bail!(
                "loading {}: nothing was unpacked: {said}",
                archive.display()
            );
        }
        Ok(())
    }
}

/// Makes the namespaces and what must be in them, and stays as their first process, which reaps orphans.
fn first_process(directory: &Path) -> Command {
    let mut command = process::bound("unshare");
    command.args([
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--mount-proc",
        "--kill-child=KILL",
        "--",
        "sh",
        "-euc",
        FIRST_PROCESS,
    ]);
    command.arg("first").arg(directory);
    command
}

/// Argument 1 is the cluster's directory.
const FIRST_PROCESS: &str = r#"
# Volumes that pods mount for each other must propagate among them (and nowhere else).
mount --make-rshared /

# Paths that a kubelet, containerd and its shims insist on.
for path in var/lib/kubelet var/lib/containerd run/containerd run/netns var/lib/cni var/log/pods var/log/containers etc/cni; do
  mkdir -p "/$path" "$1/files/$path"
  mount --bind "$1/files/$path" "/$path"
done
mkdir -p /etc/cni/net.d
cp "$1/cni.conflist" /etc/cni/net.d/10-bridge.conflist

# The kubelet would change these for the whole machine: it finds them as it wants them instead.
mkdir "$1/sysctl"
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
    kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
  file=$1/sysctl/$(basename "${setting%=*}")
  echo "${setting#*=}" > "$file"
  mount --bind "$file" "/proc/sys/${setting%=*}"
done

# The service address of the API server is local, so pods reach it without kube-proxy.
ip link set lo up
ip address add 10.96.0.1/32 dev lo
ip link add cni0 type bridge
ip address add 10.88.0.1/16 dev cni0
ip link set cni0 up
ip route add default via 10.88.0.1
echo 1 > /proc/sys/net/ipv4/ip_forward

touch "$1/namespaces-are-ready"
sleep infinity &
wait
"#;

fn write_configuration(directory: &Path, group: &str) -> Result<()> {
    let write = |name: &str, text: String| {
        let path: PathBuf = directory.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    };
    // restrict_oom_score_adj: without the right to lower it, runc dies on the pause container.
    write(
        "containerd.toml",
        format!(
            r#"version = 2
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "/etc/cni/net.d"
"#,
            images::PAUSE
        ),
    )?;
    let bridge = serde_json::json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [{
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": true,
            "ipam": { "type": "host-local", "ranges": [[{ "subnet": "10.88.0.0/16" }]], "routes": [{ "dst": "0.0.0.0/0" }] },
        }],
    });
    write("cni.conflist", bridge.to_string())?;
    let kubelet = serde_json::json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "authentication": { "anonymous": { "enabled": true }, "webhook": { "enabled": false } },
        "authorization": { "mode": "AlwaysAllow" },
        // Two kubelets in one group kill each other's pods as orphans.
        "cgroupRoot": format!("/{group}"),
        "cgroupDriver": "cgroupfs",
        "enforceNodeAllocatable": [],
        "failSwapOn": false,
        "evictionHard": {},
        "imageGCHighThresholdPercent": 100,
        "localStorageCapacityIsolation": false,
        // No name server is reachable: a look-up fails at once instead of waiting for one.
        "resolvConf": "",
        "maxPods": 250,
    });
    write("kubelet.json", kubelet.to_string())
}

fn find_directory(root: &Path, name: &str) -> Option<PathBuf> {
    for entry in fs::read_dir(root).ok()?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if entry.file_name() == name {
                return Some(entry.path());
            }
            if let Some(found) = find_directory(&entry.path(), name) {
                return Some(found);
            }
        }
    }
    None
}
