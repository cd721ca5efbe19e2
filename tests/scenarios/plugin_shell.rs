//! Completion, in real shells: what the plugin answers, and what becomes of a line in which a person presses the tab key.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ark_job::api::SCHEDULE_LABEL;
use ark_tests::{ControlPlane, FaultProxy, Options, job, prerequisites};
use libtest_mimic::Trial;

use crate::plugin::{Said, run};
use crate::world::{self, World, scenario};

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "plugin_shell::names_are_completed_and_nothing_is_written",
            names_are_completed_and_nothing_is_written,
        ),
        scenario(
            "plugin_shell::the_tab_key_completes_in_real_shells_and_through_kubectl",
            the_tab_key_completes,
        ),
    ]
}

static CLUSTER: world::Shared<ControlPlane> = world::Shared::const_new();

/// A cluster with records, and a directory of programs for the PATH.
struct Desk {
    world: World,
    namespace: String,
    home: tempfile::TempDir,
    kubeconfig: PathBuf,
}

impl Desk {
    async fn new(hint: &str) -> Result<Desk> {
        // Not the one that all share: backups there would look for Ark's namespace, once its types are served.
        let options = Options {
            controller_manager: true,
            ..Options::default()
        };
        let cluster = world::shared(&CLUSTER, ControlPlane::start(options)).await?;
        let world = World::on(cluster, hint).await?;
        world.cluster.define_resource_types()?;
        let namespace = world.namespace("ark").await?;
        let backup = |name: &str| {
            format!(
                "---\n{{apiVersion: ark.heptio.com/v1, kind: Backup, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{}}}}\n"
            )
        };
        let objects = format!(
            "{first}{second}---\n{{apiVersion: ark.heptio.com/v1, kind: Restore, metadata: {{name: again, namespace: {namespace}}}, spec: {{backupName: first}}}}\n\
             ---\n{{apiVersion: ark.heptio.com/v1, kind: BackupStorageLocation, metadata: {{name: offsite, namespace: {namespace}}}, \
             spec: {{url: 's3://bucket'}}}}\n\
             ---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: quiesce, namespace: {namespace}}}}}\n\
             ---\n{{apiVersion: batch/v1, kind: CronJob, metadata: {{name: nightly, namespace: {namespace}, labels: {{{SCHEDULE_LABEL}: nightly}}}}, \
             spec: {{schedule: '0 3 * * *', suspend: true, jobTemplate: {{spec: {{template: {{spec: {{restartPolicy: Never, \
             containers: [{{name: c, image: i}}]}}}}}}}}}}}}\n",
            first = backup("first"),
            second = backup("shop-20261126030000"),
        );
        world
            .cluster
            .kubectl_with_input(&["apply", "-f", "-"], &objects)?;
        let phase = "--patch={\"status\":{\"phase\":\"Completed\"}}";
        let of = format!("--namespace={namespace}");
        let name = "backup.ark.heptio.com/first";
        let patch = [
            "patch",
            name,
            &of,
            "--subresource=status",
            "--type=merge",
            phase,
        ];
        world.cluster.kubectl(&patch)?;
        let home = tempfile::tempdir()?;
        // A second context, called as EKS calls them: shells treat the colons as ends of words.
        let mut kubeconfig: serde_json::Value =
            serde_json::from_slice(&std::fs::read(world.cluster.kubeconfig())?)?;
        let mut context = kubeconfig["contexts"][0].clone();
        context["name"] = "arn:aws:eks:one".into();
        let contexts = kubeconfig["contexts"].as_array_mut();
        contexts.context("no contexts")?.push(context);
        let path = home.path().join("kubeconfig");
        std::fs::write(&path, kubeconfig.to_string())?;
        let desk = Desk {
            kubeconfig: path,
            home,
            world,
            namespace,
        };
        // Completes as the plugin does; instead of doing anything, says what it is told.
        let program = job::program("kubectl-ark")?;
        let text = format!(
            "#!/bin/sh\ncase $1 in __complete|completion) exec {} \"$@\";; esac\nprintf RAN\nprintf ' <%s>' \"$@\"\necho\n",
            program.display()
        );
        std::fs::create_dir(desk.bin())?;
        write_program(&desk.bin().join("kubectl-ark"), &text)?;
        Ok(desk)
    }

    fn bin(&self) -> PathBuf {
        self.home.path().join("bin")
    }

    fn command(&self, program: &str) -> Result<Command> {
        let bin = self.bin();
        let path = [
            bin.as_path(),
            self.world.cluster.bin(),
            Path::new("/usr/bin"),
            Path::new("/bin"),
        ];
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::join_paths(path)?)
            .env("HOME", self.home.path())
            .env("TERM", "dumb")
            .env("LC_ALL", "C.UTF-8")
            .env("KUBECONFIG", &self.kubeconfig)
            .env("ARK_NAMESPACE", &self.namespace)
            .current_dir(self.home.path());
        Ok(command)
    }

    /// What the plugin answers to these words, the last one being at the cursor.
    async fn answer(&self, words: &[&str]) -> Result<Vec<String>> {
        let program = job::program("kubectl-ark")?;
        let mut command = self.command(&program.to_string_lossy())?;
        command.arg("__complete").args(words);
        let said = run(Ok(command)).await?;
        ensure!(
            said.code == Some(0) && said.stderr.is_empty(),
            "{words:?}: {said:?}"
        );
        Ok(said.stdout.lines().map(str::to_owned).collect())
    }
}

fn write_program(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}

async fn names_are_completed_and_nothing_is_written() -> Result<()> {
    let mut desk = Desk::new("names").await?;
    let proxy = FaultProxy::start_before(desk.world.cluster).await?;
    desk.kubeconfig = desk.world.cluster.kubeconfig_for(proxy.url())?;
    for (words, expected) in [
        (
            &["backup", "describe", "f"][..],
            &["first\tCompleted", ":36"][..],
        ),
        (
            &["get", "backups", "first", "s"],
            &["shop-20261126030000", ":36"],
        ),
        (
            &["backup", "describe", "la"],
            &["latest\tthe newest complete one", ":36"],
        ),
        (&["backup", "delete", "la"], &[":36"]),
        (&["restore", "describe", ""], &["again", ":36"]),
        (&["schedule", "run", ""], &["nightly\t0 3 * * *", ":4"]),
        (
            &["backup", "create", "x", "--location="],
            &["offsite", ":4"],
        ),
        (
            &["backup", "create", "x", "--hooks", "qu"],
            &["quiesce", ":4"],
        ),
        (
            &[
                "backup",
                "create",
                "x",
                "--include-namespaces",
                "default,kube-s",
            ],
            &["default,kube-system", ":4"],
        ),
        (
            &["backup", "create", "x", "--exclude-resources", "deploy"],
            &["deployments.apps", ":4"],
        ),
        (
            &["backup", "create", "x", "--exclude-resources", "configm"],
            &["configmaps", ":4"],
        ),
        (&["--context", ""], &["throwaway\tthrowaway", ":4"]),
        (&["-n", "none", "restore", "get", ""], &[":36"]),
        (&["backup", "create", ""], &[":4"]),
        (&["--kubeconfig", ""], &[":0"]),
    ] {
        let answer = desk.answer(words).await?;
        ensure!(answer == expected, "{words:?}: {answer:?}");
    }
    let stored = desk.home.path().join(".kubectl-ark/backups/backups/mine");
    std::fs::create_dir_all(stored)?;
    let local = desk.answer(&["backup", "get", "--local", ""]).await?;
    ensure!(
        local == ["latest\tthe newest complete one", "mine", ":36"],
        "{local:?}"
    );
    ensure!(proxy.count(|_| true) > 0, "the proxy was not asked");
    let writes = proxy.count(ark_tests::proxy::Request::is_write);
    ensure!(writes == 0, "{writes} writes: {:?}", proxy.requests());

    // A cluster that is not there, one that does not answer, and a kubeconfig that is none.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let silent = format!("https://{}", listener.local_addr()?);
    let broken = desk.home.path().join("broken");
    std::fs::write(&broken, "{")?;
    for kubeconfig in [
        desk.world.cluster.kubeconfig_for("https://127.0.0.1:9")?,
        desk.world.cluster.kubeconfig_for(&silent)?,
        broken,
    ] {
        desk.kubeconfig = kubeconfig;
        let answer = desk.answer(&["backup", "describe", ""]).await?;
        ensure!(answer == [":36"], "{answer:?}");
        // What needs no cluster is there all the same.
        let answer = desk.answer(&["backup", "undel"]).await?;
        ensure!(answer.len() == 2, "{answer:?}");
    }
    Ok(())
}

async fn the_tab_key_completes() -> Result<()> {
    prerequisites::shells()?;
    prerequisites::python()?;
    let desk = Desk::new("tab").await?;
    let said = run(desk.command("kubectl").map(|mut command| {
        command.args(["ark", "completion", "install"]);
        command
    }))
    .await?;
    let helper = desk.bin().join("kubectl_complete-ark");
    ensure!(
        said.code == Some(0) && said.stdout.trim_end() == helper.to_string_lossy(),
        "{said:?}"
    );

    let bash = desk.home.path().join("setup.bash");
    std::fs::write(
        &bash,
        "source /usr/share/bash-completion/bash_completion\nsource <(kubectl completion bash)\nsource <(kubectl-ark completion bash)\n",
    )?;
    let bare = desk.home.path().join("bare.bash");
    std::fs::write(&bare, "source <(kubectl-ark completion bash)\n")?;
    let zsh = desk.home.path().join("setup.zsh");
    std::fs::write(
        &zsh,
        "autoload -Uz compinit\ncompinit -u -d $HOME/.zcompdump\nsource <(kubectl completion zsh)\nsource <(kubectl-ark completion zsh)\n",
    )?;
    let fish = desk.home.path().join("setup.fish");
    std::fs::write(&fish, "kubectl-ark completion fish | source\n")?;
    let (bash_shell, zsh_shell) = (
        &["bash", "--norc", "--noprofile", "-i"][..],
        &["zsh", "-f", "-i"][..],
    );
    let lines_in_both = [
        (
            "kubectl-ark backup descr\\tfir\\t",
            "RAN <backup> <describe> <first>",
        ),
        (
            "kubectl-ark backup create x --include-namespaces=default,kube-s\\t",
            "RAN <backup> <create> <x> <--include-namespaces=default,kube-system>",
        ),
        (
            "kubectl-ark get restores ag\\t",
            "RAN <get> <restores> <again>",
        ),
        (
            "kubectl-ark --context=arn:aws:e\\t get backups",
            "RAN <--context=arn:aws:eks:one> <get> <backups>",
        ),
        (
            "kubectl ark backup descr\\tfir\\t",
            "RAN <backup> <describe> <first>",
        ),
        (
            "kubectl ark restore create --from-schedule ni\\t",
            "RAN <restore> <create> <--from-schedule> <nightly>",
        ),
    ];
    for (setup, shell, lines) in [
        (&bash, bash_shell, &lines_in_both[..]),
        (&bare, bash_shell, &lines_in_both[..4]),
        (&zsh, zsh_shell, &lines_in_both[..]),
    ] {
        for (line, expected) in lines {
            let said = press(&desk, setup, line, shell).await?;
            ensure!(
                said.code == Some(0) && said.stdout.trim_end() == *expected,
                "{shell:?} {line}: {said:?}"
            );
        }
    }

    // fish says by itself what it would offer.
    for (line, expected) in [
        ("kubectl-ark backup describe fi", "first\tCompleted"),
        (
            "kubectl-ark backup create x --exclude-namespaces=kube-sy",
            "--exclude-namespaces=kube-system",
        ),
    ] {
        let mut command = desk.command("fish")?;
        command.args(["--no-config", "--command"]).arg(format!(
            "source {}; complete --do-complete '{line}'",
            fish.display()
        ));
        let said = run(Ok(command)).await?;
        ensure!(said.stdout.trim_end() == expected, "{line}: {said:?}");
    }
    Ok(())
}

async fn press(desk: &Desk, setup: &Path, line: &str, shell: &[&str]) -> Result<Said> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/press_tab.py");
    let python = prerequisites::python()?.join("bin/python3");
    let mut command = desk.command(&python.to_string_lossy())?;
    command.arg(script).arg(setup).arg(line).args(shell);
    run(Ok(command)).await.with_context(|| format!("{shell:?}"))
}
