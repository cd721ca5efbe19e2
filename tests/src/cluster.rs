//! A real control plane without a node: etcd and the API server, and the controller manager when asked for.
//!
//! Needs no root and is ready in about four seconds. Everything listens on free loopback ports; state lies in a
//! directory that goes with the [`ControlPlane`].

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ark_job::api::{Backup, BackupStorageLocation, Restore};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, CustomResourceExt};

use crate::process::{self, Process, Run, output};
use crate::{certificates, network, prerequisites, wait_until};

/// A busy machine takes its time.
const START_WITHIN: Duration = Duration::from_secs(120);
const POISON: &str = "no thread panics while it holds this lock";

/// What a control plane is started with.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Also run kube-controller-manager: deletion of namespaces, default service accounts, Jobs, garbage collection.
    /// Without it, pods need no service account.
    pub controller_manager: bool,
    /// Further flags of kube-apiserver, the last of two equal ones winning.
    pub api_server_flags: Vec<String>,
    /// A copy of this data directory ([`ControlPlane::stop_and_save`]) is what etcd starts from.
    pub etcd_data: Option<PathBuf>,
    /// Keep events in a second etcd, as large installations do: their resourceVersions are of another sequence.
    pub separate_events_etcd: bool,
    /// Write every request to [`ControlPlane::audit_log`], one JSON document a line.
    pub audit: bool,
}

/// A running control plane; ends when dropped.
pub struct ControlPlane {
    url: String,
    kubeconfig: PathBuf,
    bin: PathBuf,
    /// None for a cluster that the user brought.
    own: Option<Own>,
}

/// What only a cluster of our own has. Fields are dropped in this order: the run, which sweeps, last.
struct Own {
    controller_manager: Option<Process>,
    api_server: Mutex<Process>,
    etcd: Vec<Process>,
    etcd_url: String,
    place: Place,
    options: Options,
    run: Run,
}

/// Where the processes run, and how the machine reaches them.
pub(crate) enum Place {
    /// On the machine, on free loopback ports.
    Machine,
    /// In a network namespace, on the usual ports.
    #[cfg(target_os = "linux")]
    Namespace(network::Namespace),
}

impl Place {
    fn bound(&self, program: &Path) -> Command {
        match self {
            Place::Machine => process::bound(program),
            #[cfg(target_os = "linux")]
            Place::Namespace(namespace) => namespace.bound(program),
        }
    }
}

impl ControlPlane {
    /// Starts one and waits until it serves.
    pub async fn start(options: Options) -> Result<Self> {
        Self::start_in(Run::start()?, Place::Machine, options).await
    }

    /// The cluster of a kubeconfig that the user brought; what stops or breaks it is refused.
    pub fn from_kubeconfig(kubeconfig: impl Into<PathBuf>) -> Result<Self> {
        let kubeconfig = kubeconfig.into();
        let bin = prerequisites::kubernetes()?;
        let mut kubectl = Command::new(bin.join("kubectl"));
        kubectl.arg("--kubeconfig").arg(&kubeconfig).args([
            "config",
            "view",
            "--minify",
            "-o",
            "jsonpath={.clusters[0].cluster.server}",
        ]);
        let url = output(&mut kubectl)?;
        Ok(ControlPlane {
            url,
            kubeconfig,
            bin,
            own: None,
        })
    }

    pub(crate) async fn start_in(run: Run, place: Place, options: Options) -> Result<Self> {
        let bin = prerequisites::kubernetes()?;
        let directory = run.directory().to_path_buf();
        certificates::write(&directory)?;
        let token = new_token(&directory)?;

        let ports = match place {
            Place::Machine => Ports::free()?,
            #[cfg(target_os = "linux")]
            Place::Namespace(_) => Ports::usual(),
        };
        let mut etcd = vec![start_etcd(
            &run,
            &place,
            &bin,
            "etcd",
            ports.etcd,
            ports.etcd_peer,
            options.etcd_data.as_deref(),
        )?];
        if options.separate_events_etcd {
            etcd.push(start_etcd(
                &run,
                &place,
                &bin,
                "etcd-events",
                ports.events,
                ports.events_peer,
                None,
            )?);
        }
        let etcd_url = match &place {
            Place::Machine => format!("http://127.0.0.1:{}", ports.etcd),
            #[cfg(target_os = "linux")]
            Place::Namespace(namespace) => format!(
                "http://127.0.0.1:{}",
                namespace.forward_in(loopback(ports.etcd))?
            ),
        };
        let url = match &place {
            Place::Machine => format!("https://127.0.0.1:{}", ports.api_server),
            #[cfg(target_os = "linux")]
            Place::Namespace(namespace) => {
                let api_server = loopback(ports.api_server);
                let port = namespace.forward_in(api_server)?;
                // The same URL holds inside, for what runs there with this kubeconfig.
                namespace.forward_within(loopback(port), api_server)?;
                format!("https://127.0.0.1:{port}")
            }
        };
        write_api_server_files(&directory, &token, &ports, &place, &options)?;
        let api_server = run.spawn(
            "kube-apiserver",
            api_server_command(&directory, &place, &bin)?,
        )?;
        let kubeconfig = directory.join("kubeconfig");
        let authority = directory.join("ca.crt");
        write_kubeconfig(&kubeconfig, &url, Some(&authority), &token)?;
        // For the components: without the forwarders in between.
        let direct = format!("https://127.0.0.1:{}", ports.api_server);
        write_kubeconfig(
            &directory.join("kubeconfig-components"),
            &direct,
            Some(&authority),
            &token,
        )?;
        let controller_manager = options
            .controller_manager
            .then(|| controller_manager_command(&directory, &place, &bin, &ports));
        let own = Own {
            controller_manager: None,
            api_server: Mutex::new(api_server),
            etcd,
            etcd_url,
            place,
            options,
            run,
        };
        let mut cluster = ControlPlane {
            url,
            kubeconfig,
            bin,
            own: Some(own),
        };
        cluster.serves().await?;
        // It gives up when the API server is not ready within seconds of its own start.
        if let (Some(command), Some(own)) = (controller_manager, &mut cluster.own) {
            own.controller_manager = Some(own.run.spawn("kube-controller-manager", command)?);
        }
        cluster.ready().await?;
        Ok(cluster)
    }

    /// The file for KUBECONFIG: one context, a token in system:masters.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The API server's address, `https://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A new client. It belongs to the runtime it is made in: make one in each test.
    pub async fn client(&self) -> Result<Client> {
        client_of(&self.kubeconfig).await
    }

    /// Writes a kubeconfig like this cluster's for another address, such as that of a
    /// [`FaultProxy`](crate::FaultProxy) in front of the API server, and gives its path.
    pub fn kubeconfig_for(&self, url: &str) -> Result<PathBuf> {
        let own = self.own()?;
        let token = fs::read_to_string(own.run.directory().join("token"))?;
        let path = own.run.directory().join(format!(
            "kubeconfig-{}",
            crate::cache::hash(&[url.as_bytes()])
        ));
        write_kubeconfig(
            &path,
            url,
            url.starts_with("https:")
                .then(|| own.run.directory().join("ca.crt"))
                .as_deref(),
            &token,
        )?;
        Ok(path)
    }

    /// The certificate of the authority that signed the API server's.
    pub fn certificate_authority(&self) -> Result<PathBuf> {
        Ok(self.own()?.run.directory().join("ca.crt"))
    }

    /// The API server's certificate and key, for a proxy in front of it.
    pub(crate) fn certificate(&self) -> Result<(PathBuf, PathBuf)> {
        let directory = self.own()?.run.directory();
        Ok((
            directory.join("apiserver.crt"),
            directory.join("apiserver.key"),
        ))
    }

    /// Runs kubectl against this cluster and gives its standard output.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        output(self.kubectl_command().args(arguments))
    }

    /// Runs kubectl with a manifest on standard input, as in `apply -f -`.
    pub fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> Result<String> {
        use std::io::{Seek, Write};
        let mut file = tempfile::tempfile()?;
        file.write_all(input.as_bytes())?;
        file.rewind()?;
        let mut command = self.kubectl_command();
        let output = command
            .args(arguments)
            .stdin(file)
            .output()
            .context("running kubectl")?;
        if !output.status.success() {
            bail!(
                "kubectl {arguments:?}: {}",
                String::from_utf8_lossy(&output.stderr).trim_end()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Makes the cluster know Ark's resources, without the rest of an installation.
    ///
    /// # Errors
    /// When it does not take them, or does not serve them in time.
    pub fn define_resource_types(&self) -> Result<()> {
        // Two scenarios at once would both find none there, and one of them fail.
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock();
        for definition in [Backup::crd(), Restore::crd(), BackupStorageLocation::crd()] {
            let json = serde_json::to_string(&definition)?;
            self.kubectl_with_input(&["apply", "-f", "-"], &json)?;
        }
        for resource in ["backups", "restores", "backupstoragelocations"] {
            let name = format!("crd/{resource}.ark.heptio.com");
            let served = "--for=condition=Established";
            self.kubectl(&["wait", served, &name, "--timeout=30s"])?;
        }
        Ok(())
    }

    /// kubectl with KUBECONFIG set to this cluster.
    pub fn kubectl_command(&self) -> Command {
        let mut command = Command::new(self.bin.join("kubectl"));
        command.env("KUBECONFIG", &self.kubeconfig);
        if let Some(own) = &self.own {
            // kubectl remembers what a server serves by its address, and another cluster may get the same port.
            command.env("KUBECACHEDIR", own.run.directory().join("kubectl-cache"));
        }
        command
    }

    /// The directory for PATH that has kubectl.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// The directory that goes with this cluster; logs of its processes are in it.
    pub fn directory(&self) -> Result<&Path> {
        Ok(self.own()?.run.directory())
    }

    /// The audit log, when started with [`Options::audit`].
    pub fn audit_log(&self) -> Result<PathBuf> {
        Ok(self.directory()?.join("audit.log"))
    }

    /// SIGSTOP to the API server: connections open and nothing is answered.
    pub fn suspend_api_server(&self) -> Result<()> {
        self.own()?.api_server.lock().expect(POISON).suspend()
    }

    /// SIGCONT, after [`ControlPlane::suspend_api_server`].
    pub fn resume_api_server(&self) -> Result<()> {
        self.own()?.api_server.lock().expect(POISON).resume()
    }

    /// SIGKILL to the API server; etcd goes on.
    pub fn kill_api_server(&self) -> Result<()> {
        self.own()?.api_server.lock().expect(POISON).kill()
    }

    /// Starts the API server again on the same port, and waits until it serves.
    pub async fn restart_api_server(&self) -> Result<()> {
        let own = self.own()?;
        {
            let mut api_server = own.api_server.lock().expect(POISON);
            let _ = api_server.kill();
            *api_server = own.run.spawn(
                "kube-apiserver",
                api_server_command(own.run.directory(), &own.place, &self.bin)?,
            )?;
        }
        self.ready().await
    }

    /// The process id of the API server.
    pub fn api_server_id(&self) -> Result<u32> {
        Ok(self.own()?.api_server.lock().expect(POISON).id())
    }

    /// The process ids of all that serves: the API server and every etcd.
    pub fn server_ids(&self) -> Result<Vec<u32>> {
        let etcd = self.own()?.etcd.iter().map(Process::id);
        Ok(etcd.chain([self.api_server_id()?]).collect())
    }

    /// Compacts etcd at its present revision: lists at older ones are answered 410 Gone from then on.
    pub async fn compact(&self) -> Result<()> {
        let own = self.own()?;
        let post = async |path: &str, body: serde_json::Value| -> Result<serde_json::Value> {
            let url = format!("{}{path}", own.etcd_url);
            let request = http::Request::post(url)
                .header("content-type", "application/json")
                .body(body.to_string())?;
            crate::proxy::request_json(request).await
        };
        let status = post("/v3/maintenance/status", serde_json::json!({})).await?;
        let revision = status["header"]["revision"].clone();
        post(
            "/v3/kv/compaction",
            serde_json::json!({ "revision": revision, "physical": true }),
        )
        .await?;
        Ok(())
    }

    /// Stops everything in order and copies etcd's data directory, for [`Options::etcd_data`] of a later start.
    pub fn stop_and_save(self, to: &Path) -> Result<()> {
        let own = self.own()?;
        if let Some(controller_manager) = &own.controller_manager {
            controller_manager.stop(Duration::from_secs(10))?;
        }
        let _ = own.api_server.lock().expect(POISON).kill();
        own.etcd[0].stop(Duration::from_secs(30))?;
        copy(&own.run.directory().join("etcd"), to)
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn run(&self) -> Result<&Run> {
        Ok(&self.own()?.run)
    }

    fn own(&self) -> Result<&Own> {
        self.own.as_ref().context(
            "this cluster was brought by ARK_TEST_KUBECONFIG: the test needs one of its own",
        )
    }

    /// Waits until the API server is ready.
    async fn serves(&self) -> Result<()> {
        let client = self.client().await?;
        wait_until("the API server to be ready", START_WITHIN, async || {
            if let Err(error) = self.alive() {
                return Ok(Some(Err(error)));
            }
            client
                .request_text(http::Request::get("/readyz").body(Vec::new())?)
                .await?;
            Ok(Some(Ok(())))
        })
        .await?
    }

    /// What has ended will not become ready.
    fn alive(&self) -> Result<()> {
        let own = self.own()?;
        own.etcd.iter().try_for_each(Process::check)?;
        own.api_server.lock().expect(POISON).check()?;
        own.controller_manager.iter().try_for_each(Process::check)
    }

    /// Waits until the API server is ready and what controllers make at the start is there.
    async fn ready(&self) -> Result<()> {
        self.serves().await?;
        let own = self.own()?;
        let client = self.client().await?;
        wait_until("the control plane to be ready", START_WITHIN, async || {
            if let Err(error) = self.alive() {
                return Ok(Some(Err(error)));
            }
            Api::<Namespace>::all(client.clone()).get("default").await?;
            if own.options.controller_manager {
                Api::<ServiceAccount>::namespaced(client.clone(), "default")
                    .get("default")
                    .await?;
            }
            Ok(Some(Ok(())))
        })
        .await?
    }
}

/// A client for a kubeconfig file.
pub async fn client_of(kubeconfig: &Path) -> Result<Client> {
    let config = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

#[cfg(target_os = "linux")]
fn loopback(port: u16) -> std::net::SocketAddr {
    (std::net::Ipv4Addr::LOCALHOST, port).into()
}

struct Ports {
    etcd: u16,
    etcd_peer: u16,
    events: u16,
    events_peer: u16,
    api_server: u16,
    controller_manager: u16,
}

impl Ports {
    fn free() -> Result<Self> {
        let [
            etcd,
            etcd_peer,
            events,
            events_peer,
            api_server,
            controller_manager,
        ] = network::free_ports()?;
        Ok(Ports {
            etcd,
            etcd_peer,
            events,
            events_peer,
            api_server,
            controller_manager,
        })
    }

    #[cfg(target_os = "linux")]
    fn usual() -> Self {
        Ports {
            etcd: 2379,
            etcd_peer: 2380,
            events: 2381,
            events_peer: 2382,
            api_server: 443,
            controller_manager: 10257,
        }
    }
}

/// A random token, also kept in the directory.
fn new_token(directory: &Path) -> Result<String> {
    let token = rcgen::KeyPair::generate()?;
    let token = crate::cache::hash(&[&token.serialize_der()]);
    fs::write(directory.join("token"), &token)?;
    Ok(token)
}

fn start_etcd(
    run: &Run,
    place: &Place,
    bin: &Path,
    name: &str,
    port: u16,
    peer: u16,
    from: Option<&Path>,
) -> Result<Process> {
    let data = run.directory().join(name);
    if let Some(from) = from {
        copy(from, &data)?;
    }
    let (client, peer) = (
        format!("http://127.0.0.1:{port}"),
        format!("http://127.0.0.1:{peer}"),
    );
    let mut command = place.bound(&bin.join("etcd"));
    command.arg("--data-dir").arg(&data).args([
        "--name",
        "default",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]);
    command.args([
        "--listen-client-urls",
        &client,
        "--advertise-client-urls",
        &client,
    ]);
    command.args([
        "--listen-peer-urls",
        &peer,
        "--initial-advertise-peer-urls",
        &peer,
    ]);
    command.arg(format!("--initial-cluster=default={peer}"));
    // A data directory of an earlier run knows its peer by another port.
    if from.is_some() {
        command.arg("--force-new-cluster");
    }
    // Half a million objects exceed the default quota of 2 GiB.
    command.arg(format!("--quota-backend-bytes={}", 8u64 << 30));
    run.spawn(name, command)
}

fn write_api_server_files(
    directory: &Path,
    token: &str,
    ports: &Ports,
    place: &Place,
    options: &Options,
) -> Result<()> {
    fs::write(
        directory.join("tokens.csv"),
        format!("{token},admin,admin,system:masters\n"),
    )?;
    let file = |name: &str| directory.join(name).display().to_string();
    let mut flags = vec![
        format!("--etcd-servers=http://127.0.0.1:{}", ports.etcd),
        format!("--secure-port={}", ports.api_server),
        format!("--tls-cert-file={}", file("apiserver.crt")),
        format!("--tls-private-key-file={}", file("apiserver.key")),
        format!("--token-auth-file={}", file("tokens.csv")),
        format!("--client-ca-file={}", file("ca.crt")),
        "--authorization-mode=RBAC".into(),
        "--allow-privileged=true".into(),
        "--service-cluster-ip-range=10.96.0.0/16".into(),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        format!("--service-account-signing-key-file={}", file("tokens.key")),
        format!("--service-account-key-file={}", file("tokens.pub")),
        "--profiling=false".into(),
    ];
    match place {
        // A loopback address is refused in Endpoints, and no pod looks for them here.
        Place::Machine => flags.extend([
            "--bind-address=127.0.0.1".into(),
            "--endpoint-reconciler-type=none".into(),
        ]),
        #[cfg(target_os = "linux")]
        Place::Namespace(_) => flags.extend([
            "--advertise-address=10.88.0.1".into(),
            // Without this, logs and exec look up the node's name.
            "--kubelet-preferred-address-types=InternalIP".into(),
        ]),
    }
    if options.separate_events_etcd {
        flags.push(format!(
            "--etcd-servers-overrides=/events#http://127.0.0.1:{}",
            ports.events
        ));
    }
    if !options.controller_manager {
        // Nobody makes the default service accounts that it would insist on.
        flags.push("--disable-admission-plugins=ServiceAccount".into());
    }
    if options.audit {
        let policy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n";
        fs::write(directory.join("audit-policy.yaml"), policy)?;
        flags.extend([
            format!("--audit-policy-file={}", file("audit-policy.yaml")),
            format!("--audit-log-path={}", file("audit.log")),
            "--audit-log-mode=blocking".into(),
        ]);
    }
    flags.extend(options.api_server_flags.iter().cloned());
    fs::write(directory.join("kube-apiserver.flags"), flags.join("\n"))
        .context("writing the API server's flags")
}

/// The flags are read from a file, so that a restart has the same.
fn api_server_command(directory: &Path, place: &Place, bin: &Path) -> Result<Command> {
    let mut command = place.bound(&bin.join("kube-apiserver"));
    let flags = fs::read_to_string(directory.join("kube-apiserver.flags"))
        .context("reading the API server's flags")?;
    command.args(flags.lines());
    Ok(command)
}

fn controller_manager_command(
    directory: &Path,
    place: &Place,
    bin: &Path,
    ports: &Ports,
) -> Command {
    let mut command = place.bound(&bin.join("kube-controller-manager"));
    command
        .arg("--kubeconfig")
        .arg(directory.join("kubeconfig-components"));
    command
        .arg("--service-account-private-key-file")
        .arg(directory.join("tokens.key"));
    command.arg("--root-ca-file").arg(directory.join("ca.crt"));
    command
        .arg("--cert-dir")
        .arg(directory.join("controller-manager"));
    command.arg(format!("--secure-port={}", ports.controller_manager));
    command.args([
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        "--use-service-account-credentials=false",
    ]);
    command
}

fn write_kubeconfig(path: &Path, url: &str, authority: Option<&Path>, token: &str) -> Result<()> {
    let mut cluster = serde_json::json!({ "server": url });
    if let Some(authority) = authority {
        cluster["certificate-authority"] = authority.display().to_string().into();
    }
    let kubeconfig = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "throwaway", "cluster": cluster }],
        "users": [{ "name": "admin", "user": { "token": token } }],
        "contexts": [{ "name": "throwaway", "context": { "cluster": "throwaway", "user": "admin" } }],
        "current-context": "throwaway",
    });
    fs::write(path, serde_json::to_vec_pretty(&kubeconfig)?)
        .with_context(|| format!("writing {}", path.display()))
}

/// Copies a directory; `cp` shares blocks where the file system can.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    output(Command::new("cp").arg("-R").arg(from).arg(to)).map(drop)
}
