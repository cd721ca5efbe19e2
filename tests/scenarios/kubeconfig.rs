//! The plugin finds its cluster, and says who it is, as kubectl does: on real API servers, with kubectl's own files.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use ark_tests::{ControlPlane, FaultProxy, Rule, images, job, proxy, wait_until};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::plugin::{Said, run};
use crate::world::{self, World, node_scenario, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "kubeconfig::credential_plugins_run_once_and_are_named_when_they_fail",
            credential_plugins_run_once_and_are_named_when_they_fail,
        ),
        scenario(
            "kubeconfig::contexts_files_and_flags_choose_as_in_kubectl",
            contexts_files_and_flags_choose_as_in_kubectl,
        ),
        scenario(
            "kubeconfig::proxies_are_used_as_in_kubectl",
            proxies_are_used_as_in_kubectl,
        ),
        scenario(
            "kubeconfig::a_request_that_is_not_answered_ends",
            a_request_that_is_not_answered_ends,
        ),
        node_scenario(
            "kubeconfig::a_pod_talks_to_its_own_cluster",
            a_pod_talks_to_its_own_cluster,
        ),
    ]
}

/// A directory with kubeconfig files and plugins, of one scenario.
struct Desk {
    directory: tempfile::TempDir,
    cluster: &'static ControlPlane,
    token: String,
    /// Where there is no Ark.
    namespace: String,
}

impl Desk {
    async fn new() -> Result<Desk> {
        let world = World::new("kubeconfig").await?;
        let kubeconfig: Value =
            serde_json::from_slice(&std::fs::read(world.cluster.kubeconfig())?)?;
        let token = kubeconfig["users"][0]["user"]["token"].as_str();
        Ok(Desk {
            directory: tempfile::tempdir()?,
            token: token.context("no token in the kubeconfig")?.to_owned(),
            namespace: world.namespace("ark").await?,
            cluster: world.cluster,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The cluster, as a kubeconfig has it.
    fn cluster(&self) -> Result<Value> {
        let authority = self.cluster.certificate_authority()?;
        Ok(json!({"server": self.cluster.url(), "certificate-authority": authority}))
    }

    fn write(&self, name: &str, value: &Value) -> Result<PathBuf> {
        let path = self.path(name);
        std::fs::write(&path, serde_json::to_vec_pretty(value)?)?;
        Ok(path)
    }

    /// A kubeconfig with one context.
    fn kubeconfig(&self, name: &str, cluster: Value, user: Value) -> Result<PathBuf> {
        self.write(
            name,
            &json!({
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": cluster}],
                "users": [{"name": "u", "user": user}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }),
        )
    }

    /// `kubectl ark LINE` with this kubeconfig; its home is empty.
    fn command(&self, kubeconfig: impl AsRef<std::ffi::OsStr>, line: &str) -> Result<Command> {
        let mut command = Command::new(job::program("kubectl-ark")?);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.path("home"))
            .env("KUBECONFIG", kubeconfig)
            .env("ARK_NAMESPACE", &self.namespace)
            .args(line.split_whitespace());
        Ok(command)
    }

    async fn run(&self, kubeconfig: impl AsRef<std::ffi::OsStr>, line: &str) -> Result<Said> {
        run(self.command(kubeconfig, line)).await
    }

    /// It reached the cluster, with rights there.
    async fn reaches(&self, kubeconfig: impl AsRef<std::ffi::OsStr>, line: &str) -> Result<()> {
        let said = self.run(kubeconfig, line).await?;
        ensure!(
            said.code == Some(10) && said.stderr.contains("Ark is not installed in this cluster"),
            "{line}: {said:?}"
        );
        Ok(())
    }

    /// It reached the cluster as somebody without rights: the server says as whom.
    async fn is_user(&self, kubeconfig: &Path, line: &str, user: &str) -> Result<()> {
        let said = self.run(kubeconfig, line).await?;
        said.explains_error(&[&format!("User \"{user}\" cannot")])
            .with_context(|| line.to_owned())
    }
}

/// A request that says whether Ark is installed.
const ASK: &str = "version";

async fn credential_plugins_run_once_and_are_named_when_they_fail() -> Result<()> {
    let desk = Desk::new().await?;
    // Writes down how it was run, and prints a file.
    let plugin = desk.path("log-in");
    let text = "#!/bin/sh\nprintf '%s %s %s\\n' \"$1\" \"$REGION\" \"$KUBERNETES_EXEC_INFO\" >>\"$RUNS\"\necho 'look here' >&2\ncat \"$1\"\n[ -z \"$NEXT\" ] || cp \"$NEXT\" \"$1\"\nexit \"${CODE:-0}\"\n";
    std::fs::write(&plugin, text)?;
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&plugin, std::fs::Permissions::from_mode(0o755))?;
    let runs = desk.path("runs");
    let answer = |name: &str, version: &str, status: Value| {
        let version = format!("client.authentication.k8s.io/{version}");
        desk.write(
            name,
            &json!({"apiVersion": version, "kind": "ExecCredential", "status": status}),
        )
    };
    let exec = |version: &str, file: &Path, more: Value| {
        let mut exec = json!({
            "apiVersion": format!("client.authentication.k8s.io/{version}"),
            // Relative: to the kubeconfig.
            "command": "./log-in",
            "args": [file],
            "env": [{"name": "REGION", "value": "north"}, {"name": "RUNS", "value": runs}],
            "interactiveMode": "IfAvailable",
        });
        if let (Value::Object(exec), Value::Object(more)) = (&mut exec, more) {
            exec.extend(more);
        }
        json!({"exec": exec})
    };
    let taken = || -> Result<Vec<String>> {
        let text = std::fs::read_to_string(&runs)?;
        std::fs::remove_file(&runs)?;
        Ok(text.lines().map(str::to_owned).collect())
    };

    // A token, in both versions; told about the cluster when it wants to be.
    let mut cluster = desk.cluster()?;
    cluster["extensions"] =
        json!([{"name": "client.authentication.k8s.io/exec", "extension": {"audience": "a"}}]);
    for version in ["v1", "v1beta1"] {
        let file = answer(version, version, json!({"token": desk.token}))?;
        let user = exec(
            version,
            &file,
            json!({"provideClusterInfo": version == "v1"}),
        );
        let kubeconfig = desk.kubeconfig("with-token", cluster.clone(), user)?;
        let said = desk.run(&kubeconfig, ASK).await?;
        ensure!(said.code == Some(10), "{said:?}");
        ensure!(
            said.stderr.contains("look here"),
            "its talk is lost: {said:?}"
        );
        let runs = taken()?;
        ensure!(runs.len() == 1, "it ran {} times: {runs:?}", runs.len());
        let (_, rest) = runs[0].split_once(" north ").context("no variable")?;
        let info: Value = serde_json::from_str(rest)?;
        ensure!(
            info["kind"] == "ExecCredential" && info["spec"]["interactive"] == false,
            "{info}"
        );
        ensure!(
            info["apiVersion"] == format!("client.authentication.k8s.io/{version}"),
            "{info}"
        );
        if version == "v1" {
            let told = &info["spec"]["cluster"];
            ensure!(told["server"] == desk.cluster.url(), "{info}");
            ensure!(told["config"] == json!({"audience": "a"}), "{info}");
            ensure!(told["certificate-authority-data"].is_string(), "{info}");
        } else {
            ensure!(info["spec"].get("cluster").is_none(), "{info}");
        }
    }

    // What has expired is asked for again.
    let file = answer(
        "expired",
        "v1",
        json!({"token": desk.token, "expirationTimestamp": "2020-01-01T00:00:00Z"}),
    )?;
    let kubeconfig = desk.kubeconfig(
        "expired.config",
        desk.cluster()?,
        exec("v1", &file, json!({})),
    )?;
    desk.reaches(&kubeconfig, ASK).await?;
    ensure!(taken()?.len() == 2);

    // What is not accepted is asked for once more.
    let good = answer("good", "v1", json!({"token": desk.token}))?;
    let file = answer("revoked", "v1", json!({"token": "revoked"}))?;
    let env = json!([{"name": "RUNS", "value": runs}, {"name": "NEXT", "value": good}]);
    let user = exec("v1", &file, json!({"env": env}));
    let kubeconfig = desk.kubeconfig("revoked.config", desk.cluster()?, user)?;
    desk.reaches(&kubeconfig, ASK).await?;
    let times = taken()?.len();
    ensure!(times == 2, "it ran {times} times");
    let file = answer("revoked", "v1", json!({"token": "revoked"}))?;
    let user = exec("v1", &file, json!({}));
    let kubeconfig = desk.kubeconfig("refused.config", desk.cluster()?, user)?;
    let said = desk.run(&kubeconfig, ASK).await?;
    said.explains(&["401"], "log in")?;
    taken()?;

    // A client certificate.
    let directory = desk.cluster.directory()?;
    let pem = |name: &str| std::fs::read_to_string(directory.join(name));
    let status =
        json!({"clientCertificateData": pem("client.crt")?, "clientKeyData": pem("client.key")?});
    let file = answer("certificate", "v1", status)?;
    let kubeconfig = desk.kubeconfig(
        "certificate.config",
        desk.cluster()?,
        exec("v1", &file, json!({})),
    )?;
    desk.reaches(&kubeconfig, ASK).await?;
    ensure!(taken()?.len() == 1);

    // Its failures.
    let file = answer("other", "v1beta1", json!({"token": "planted-secret"}))?;
    let failing = json!([{"name": "CODE", "value": "3"}, {"name": "RUNS", "value": runs}]);
    let quiet = json!({"interactiveMode": "Never", "installHint": "install it with: get log-in"});
    for (more, error, hint) in [
        (
            json!({"env": failing}),
            "log-in ",
            "log in to the cluster again",
        ),
        (
            json!({}),
            "answers in version client.authentication.k8s.io/v1beta1",
            "log in",
        ),
        (
            json!({"interactiveMode": "Always"}),
            "standard input is not a terminal",
            "`exec`",
        ),
        (
            json!({"apiVersion": "client.authentication.k8s.io/v1alpha1"}),
            "must be one of client.authentication.k8s.io/v1,",
            "`exec`",
        ),
        (
            json!({"command": "no-such-plugin", "installHint": quiet["installHint"]}),
            "starting the credential plugin no-such-plugin",
            "get log-in",
        ),
    ] {
        let kubeconfig = desk.kubeconfig("failing", desk.cluster()?, exec("v1", &file, more))?;
        let said = desk.run(&kubeconfig, ASK).await?;
        ensure!(said.code == Some(1), "{said:?}");
        said.explains(&[error, "plugin"], hint)?;
        ensure!(
            !said.stderr.contains("planted-secret") && !said.stdout.contains("planted-secret"),
            "{said:?}"
        );
    }
    // A token on the command line makes it needless.
    let user = exec("v1", &file, json!({"command": "no-such-plugin"}));
    let kubeconfig = desk.kubeconfig("failing", desk.cluster()?, user)?;
    desk.reaches(&kubeconfig, &format!("{ASK} --token {}", desk.token))
        .await
}

async fn contexts_files_and_flags_choose_as_in_kubectl() -> Result<()> {
    let desk = Desk::new().await?;
    let authority = desk.cluster.certificate_authority()?;
    std::fs::write(desk.path("token"), &desk.token)?;
    let directory = desk.cluster.directory()?;
    let nowhere = json!({"server": "https://127.0.0.1:9"});
    // The namespace of a context is that of applications: Ark's own is another matter.
    let first = desk.write(
        "first",
        &json!({
            "contexts": [
                {"name": "file", "context": {"cluster": "here", "user": "file", "namespace": "nowhere"}},
                {"name": "certificate", "context": {"cluster": "here", "user": "certificate"}},
                {"name": "unknown", "context": {"cluster": "here", "user": "unknown"}},
                {"name": "far", "context": {"cluster": "far", "user": "file"}},
                {"name": "jane", "context": {"cluster": "here", "user": "jane"}},
            ],
            "clusters": [{"name": "far", "cluster": nowhere}],
            "users": [
                // Relative: to this file.
                {"name": "file", "user": {"tokenFile": "token"}},
                {"name": "certificate", "user": {
                    "client-certificate": directory.join("client.crt"),
                    "client-key": directory.join("client.key"),
                }},
                {"name": "jane", "user": {"tokenFile": "token", "as": "jane", "as-groups": ["system:authenticated"]}},
            ],
        }),
    )?;
    let second = desk.write(
        "second",
        &json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "here", "cluster": desk.cluster()?},
                {"name": "far", "cluster": desk.cluster()?},
                {"name": "other-name", "cluster": {
                    "server": desk.cluster.url().replace("127.0.0.1", "127.0.0.2"),
                    "certificate-authority": authority,
                }},
            ],
            "current-context": "file",
        }),
    )?;
    let merged = std::env::join_paths([&first, &desk.path("missing"), &second])?;
    for line in [
        "version",
        "version --context certificate",
        "--context=file version -n elsewhere",
        "version --context far --cluster here",
        "version --context unknown --user certificate",
        // The certificate has no such address; the name that it has is given.
        "version --cluster other-name --server URL --tls-server-name kubernetes",
        "version --context far -s URL --insecure-skip-tls-verify",
        "version --context far --server URL --certificate-authority AUTHORITY",
    ] {
        let line = line
            .replace("URL", desk.cluster.url())
            .replace("AUTHORITY", &authority.to_string_lossy());
        desk.reaches(&merged, &line).await?;
    }
    let said = desk.run(&merged, "version --context unknown").await?;
    said.explains_error(&["User \"system:anonymous\" cannot"])?;
    // Two entries of one name: the first counts.
    let said = desk.run(&merged, "version --context far").await?;
    said.explains(&["the cluster does not answer"], "--context")?;
    let said = desk.run(&merged, "version --context none").await?;
    ensure!(said.code == Some(1), "{said:?}");
    said.explains(
        &["no context none (there are: file, certificate,"],
        "--context",
    )?;
    let said = desk.run(&merged, "version --token wrong").await?;
    said.explains(&["401"], "log in")?;

    // As others.
    let only = desk.write("only", &json!({
        "clusters": [{"name": "here", "cluster": desk.cluster()?}],
        "users": [{"name": "file", "user": {"tokenFile": "token", }}, {"name": "jane", "user": {"tokenFile": "token", "as": "jane"}}],
        "contexts": [{"name": "file", "context": {"cluster": "here", "user": "file"}},
            {"name": "jane", "context": {"cluster": "here", "user": "jane"}}],
        "current-context": "file",
    }))?;
    desk.is_user(&only, "version --context jane", "jane")
        .await?;
    desk.is_user(
        &only,
        "backup get --as joe --as-group a --as-group b",
        "joe",
    )
    .await?;
    desk.reaches(
        &only,
        "version --as joe --as-group system:masters --as-uid 7",
    )
    .await?;

    // A file that is broken is not passed over; one that is asked for by name must be there.
    let broken = desk.path("broken");
    std::fs::write(&broken, "clusters: {")?;
    let with_broken = std::env::join_paths([&second, &broken])?;
    let said = desk.run(&with_broken, "version").await?;
    said.explains(&["no cluster: reading", "broken"], "--kubeconfig")?;
    let said = desk.run(&merged, "version --kubeconfig none").await?;
    said.explains(&["no cluster: reading none"], "--kubeconfig")?;
    let only = only.to_string_lossy();
    desk.reaches("none", &format!("version --kubeconfig {only}"))
        .await?;
    // Neither a file nor a pod.
    let said = desk.run("", "version").await?;
    said.explains(&["no cluster: there is no kubeconfig"], "set KUBECONFIG")?;
    // The file at home.
    std::fs::create_dir_all(desk.path("home/.kube"))?;
    std::fs::copy(desk.cluster.kubeconfig(), desk.path("home/.kube/config"))?;
    desk.reaches("", "version").await
}

/// A proxy that knows the CONNECT method, and takes every name for the API server's.
struct Connect {
    port: u16,
    asked: Arc<AtomicUsize>,
    serving: tokio::task::JoinHandle<()>,
}

impl Connect {
    async fn start(api_server: &str, authorization: Option<&'static str>) -> Result<Connect> {
        let to = api_server.trim_start_matches("https://").to_owned();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let serving = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let (to, count) = (to.clone(), count.clone());
                connections.spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(client.read_u8().await?);
                    }
                    let head = String::from_utf8_lossy(&head).to_lowercase();
                    let wanted = authorization
                        .map(|wanted| format!("proxy-authorization: {wanted}\r\n").to_lowercase());
                    if !head.starts_with("connect kubernetes.default.svc:")
                        || wanted.is_some_and(|wanted| !head.contains(&wanted))
                    {
                        client.write_all(b"HTTP/1.1 407 No\r\n\r\n").await?;
                        return Ok(());
                    }
                    count.fetch_add(1, Ordering::SeqCst);
                    let mut server = tokio::net::TcpStream::connect(to).await?;
                    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
                    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
                    std::io::Result::Ok(())
                });
            }
        });
        Ok(Connect {
            port,
            asked,
            serving,
        })
    }

    fn taken(&self) -> usize {
        self.asked.swap(0, Ordering::SeqCst)
    }
}

impl Drop for Connect {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn proxies_are_used_as_in_kubectl() -> Result<()> {
    let desk = Desk::new().await?;
    // user:pass, in base64.
    let proxy = Connect::start(desk.cluster.url(), Some("Basic dXNlcjpwYXNz")).await?;
    let named = format!("http://user:pass@127.0.0.1:{}", proxy.port);
    // A name that only the proxy knows; the API server's certificate has it.
    let cluster = json!({
        "server": "https://kubernetes.default.svc",
        "certificate-authority": desk.cluster.certificate_authority()?,
    });
    let user = json!({"token": desk.token});
    let direct = desk.kubeconfig("direct", cluster.clone(), user.clone())?;
    let mut through = cluster;
    through["proxy-url"] = named.clone().into();
    let through = desk.kubeconfig("through", through, user.clone())?;

    desk.reaches(&through, ASK).await?;
    ensure!(proxy.taken() > 0, "proxy-url was not used");
    for (name, value) in [
        ("HTTPS_PROXY", named.as_str()),
        ("https_proxy", named.trim_start_matches("http://")),
    ] {
        let mut command = desk.command(&direct, ASK)?;
        command.env(name, value);
        let said = run(Ok(command)).await?;
        ensure!(said.code == Some(10), "{said:?}");
        ensure!(proxy.taken() > 0, "{name} was not used");
    }
    // Not for this host, and never for this machine.
    let mut command = desk.command(&direct, ASK)?;
    command
        .env("HTTPS_PROXY", &named)
        .env("NO_PROXY", "example.com,.svc");
    let said = run(Ok(command)).await?;
    said.explains(&["the cluster does not answer"], "kubectl cluster-info")?;
    let local = desk.kubeconfig("local", desk.cluster()?, user)?;
    let mut command = desk.command(&local, ASK)?;
    command.env("HTTPS_PROXY", &named);
    let said = run(Ok(command)).await?;
    ensure!(said.code == Some(10), "{said:?}");
    ensure!(proxy.taken() == 0, "a proxy was used that must not be");

    // A proxy that refuses, and one that is none: named, without its password.
    for wrong in [
        format!("http://user:planted-secret@127.0.0.1:{}", proxy.port),
        "http://user:planted-secret@127.0.0.1:9".to_owned(),
        "ftp://user:planted-secret@127.0.0.1:9".to_owned(),
        "http://user:planted-secret@ 127".to_owned(),
    ] {
        let mut command = desk.command(&direct, ASK)?;
        command.env("HTTPS_PROXY", &wrong);
        let said = run(Ok(command)).await?;
        ensure!(said.code == Some(1), "{said:?}");
        ensure!(
            said.stderr.contains("error: ") && said.stderr.contains("hint: "),
            "{said:?}"
        );
        ensure!(!said.stderr.contains("planted-secret"), "{said:?}");
    }
    Ok(())
}

async fn a_request_that_is_not_answered_ends() -> Result<()> {
    let desk = Desk::new().await?;
    let front = FaultProxy::start_before(desk.cluster).await?;
    let kubeconfig = desk.cluster.kubeconfig_for(front.url())?;
    let gate = proxy::Gate::default();
    front.add(Rule::on_all().hold(&gate));
    let said = desk
        .run(&kubeconfig, "version --request-timeout 1s")
        .await?;
    ensure!(said.code == Some(1), "{said:?}");
    said.explains(
        &["took too long", "--request-timeout"],
        "kubectl cluster-info",
    )?;
    gate.open();
    front.clear_rules();

    // Overloaded for a moment: nobody notices. For ever: it says so.
    front.add(Rule::on_all().up_to(2).answer(503, &[], ""));
    desk.reaches(&kubeconfig, "version").await?;
    front.clear_rules();
    front.add(Rule::on_all().answer(503, &[], ""));
    let said = desk.run(&kubeconfig, "version --request-timeout=2").await?;
    ensure!(said.code == Some(1), "{said:?}");
    said.explains(&["took too long"], "kubectl cluster-info")?;

    let said = desk
        .run(&kubeconfig, "version --request-timeout soon")
        .await?;
    ensure!(said.code == Some(2), "{said:?}");
    said.explains_error(&["--request-timeout", "soon"])
}

async fn a_pod_talks_to_its_own_cluster() -> Result<()> {
    const IMAGE: &str = "localhost/kubectl-ark:scenarios";
    let cluster = world::node().await?;
    let context = tempfile::tempdir()?;
    std::fs::copy(
        job::program("kubectl-ark")?,
        context.path().join("kubectl-ark"),
    )?;
    let containerfile = context.path().join("Containerfile");
    std::fs::write(
        &containerfile,
        "ARG BASE\nFROM ${BASE}\nCOPY kubectl-ark /kubectl-ark\nENTRYPOINT [\"/kubectl-ark\"]\n",
    )?;
    let base = format!("docker-archive:{}", images::debian_base()?.display());
    cluster.build_image(context.path(), &containerfile, IMAGE, &[("BASE", &base)])?;
    let namespace = format!("in-cluster-{}", std::process::id());
    cluster.kubectl(&["create", "namespace", &namespace])?;
    wait_until("the service account", Duration::from_secs(60), async || {
        cluster.kubectl(&["get", "serviceaccount", "default", "-n", &namespace])?;
        Ok(Some(()))
    })
    .await?;
    let image = format!("--image={IMAGE}");
    let pod = [
        "run",
        "ark",
        &image,
        "--restart=Never",
        "--image-pull-policy=Never",
        "-n",
        &namespace,
    ];
    cluster.kubectl(&[&pod[..], &["--", "backup", "get"]].concat())?;
    let phase = "jsonpath={.status.phase}";
    wait_until("the pod to end", Duration::from_secs(120), async || {
        let phase = cluster.kubectl(&["get", "pod", "ark", "-n", &namespace, "-o", phase])?;
        Ok(["Succeeded", "Failed"]
            .contains(&phase.trim())
            .then_some(()))
    })
    .await?;
    let log = cluster.kubectl(&["logs", "ark", "-n", &namespace])?;
    cluster.kubectl(&["delete", "namespace", &namespace, "--wait=false"])?;
    // The one it is, without a right: the server says so.
    let user = format!("User \"system:serviceaccount:{namespace}:default\" cannot list");
    ensure!(log.contains(&user), "{log}");
    Ok(())
}
