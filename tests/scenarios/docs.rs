//! Every command in README.md, docs/ and the help pages is run on a real cluster in which Ark is installed.
//!
//! All blocks ```` ```sh ```` are run as they stand, in order, each by one bash that stops at the first failure. Before each
//! block there are a namespace `shop` with a Deployment `web`, the backups `first` and `shop`, the schedule `nightly` and the restore
//! `again`; a backup or schedule that a block creates is not there before. `<!-- setup: COMMAND -->` in a page runs a command that
//! readers do not see; a block of YAML whose first line is `# NAME.yaml` becomes that file.
//!
//! What is different here: storage URLs, the image, and that nobody can be asked ([`SHELL`]). The quick start of README.md is also
//! followed as it stands, by somebody who has nothing but a kubeconfig.
//! Transcripts (```` ```console ````) are `guides`'s; whether what cannot be run parses is tested by kubectl-ark's tests/docs.rs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use ark_tests::{ControlPlane, Options, job, prerequisites};
use kubectl_ark_examples::EXAMPLES;
use libtest_mimic::Trial;
use serde_json::json;
use tokio::sync::Mutex;

use crate::guides::{alike, application, updates};
use crate::packaging;
use crate::plugin::{Ark, IMAGE, Said, bucket, run};
use crate::world::{Shared, node_scenario, scenario};

/// The table of examples, as the plugin has it.
#[path = "../../kubectl-ark/src/cli/examples/table.rs"]
mod kubectl_ark_examples;

static CLUSTER: Shared<Ark> = Shared::const_new();
/// Pages are run one after the other: each is about the same objects.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
const PREFIX: &str = "docs";

pub fn trials() -> Vec<Trial> {
    let mut trials = vec![
        scenario(
            "docs::the_quick_start_leads_from_nothing_to_a_backup",
            quick_start,
        ),
        node_scenario("docs::the_examples_of_help_pages_run", examples),
        node_scenario("docs::the_picture_in_the_readme_is_of_a_real_run", picture),
    ];
    // One that cannot be read fails below, by its name.
    for path in pages().unwrap_or_default() {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        trials.push(node_scenario(
            &format!("docs::the_commands_of_{}_run", name.to_lowercase()),
            move || page(path),
        ));
    }
    trials
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Pages with commands to run.
fn pages() -> Result<Vec<PathBuf>> {
    let mut pages = vec![root().join("README.md")];
    for entry in std::fs::read_dir(root().join("docs"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "md")
            && std::fs::read_to_string(&path)?.contains("```sh\n")
        {
            pages.push(path);
        }
    }
    pages.sort();
    Ok(pages)
}

/// A page, block by block; all that fails is said, not only the first.
async fn page(path: PathBuf) -> Result<()> {
    let _turn = ONE_AT_A_TIME.lock().await;
    let shell = Shell::start().await?;
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let mut wrong = Vec::new();
    let mut block: Option<(String, usize, String)> = None;
    for (number, line) in text.lines().enumerate() {
        if let Some(command) = line
            .strip_prefix("<!-- setup: ")
            .and_then(|rest| rest.strip_suffix(" -->"))
        {
            shell.run(command).await?;
        } else if let Some(kind) = line.strip_prefix("```") {
            match block.take() {
                None => block = Some((kind.to_owned(), number + 2, String::new())),
                Some((kind, first, script)) if kind == "sh" => {
                    if let Err(error) = shell.block(&script).await {
                        wrong.push(format!("{}:{first}: {error:#}", path.display()));
                    }
                }
                Some((kind, _, text)) if kind == "yaml" => shell.file(&text)?,
                Some(_) => {}
            }
        } else if let Some((_, _, script)) = &mut block {
            script.push_str(line);
            script.push('\n');
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    Ok(())
}

/// The examples of each command that help pages show.
async fn examples() -> Result<()> {
    let _turn = ONE_AT_A_TIME.lock().await;
    let shell = Shell::start().await?;
    let mut wrong = Vec::new();
    // What takes Ark away comes last.
    let (last, first): (Vec<_>, Vec<_>) = EXAMPLES
        .iter()
        .partition(|(path, _)| ["uninstall"].contains(path));
    for (path, examples) in first.into_iter().chain(last) {
        for (what, line) in examples.iter() {
            if let Err(error) = shell.block(line).await {
                wrong.push(format!("{path}: {what}: {error:#}"));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    Ok(())
}

/// How krew brings the plugin; here, the archive that a release would have is unpacked as krew does it.
const BY_KREW: &str = "kubectl krew install ark";

/// The first commands of README.md's quick start, by somebody with a cluster, a kubeconfig, kubectl and an empty home.
async fn quick_start() -> Result<()> {
    let commands = quick_start_commands()?;
    ensure!(
        commands.len() == 3 && commands[0] == BY_KREW,
        "three commands, beginning with {BY_KREW}: {commands:#?}"
    );
    // Boxed: starting a cluster is a large future, and a test's thread has a small stack.
    let cluster = Box::pin(ControlPlane::start(Options::default())).await?;
    cluster.kubectl(&["create", "configmap", "mine", "--from-literal=a=b"])?;
    let directory = tempfile::tempdir()?;
    let home = directory.path().join("home");
    std::fs::create_dir_all(home.join(".kube"))?;
    std::fs::copy(cluster.kubeconfig(), home.join(".kube/config"))?;

    let bin = packaging::installed(directory.path())?;
    let kubernetes = prerequisites::kubernetes()?;
    let path = std::env::join_paths([
        bin.as_path(),
        &kubernetes,
        Path::new("/usr/bin"),
        Path::new("/bin"),
    ])?;
    let shell = async |line: &str| -> Result<Said> {
        let mut bash = Command::new("bash");
        bash.args(["-ec", line])
            .current_dir(&home)
            .env_clear()
            .env("PATH", &path)
            .env("HOME", &home);
        let said = run(Ok(bash)).await?;
        ensure!(said.code == Some(0), "{line}: {said:?}");
        Ok(said)
    };
    for line in &commands[1..] {
        let begun = Instant::now();
        shell(line).await?;
        eprintln!(
            "quick start: {line}: {:.1} s",
            begun.elapsed().as_secs_f32()
        );
    }

    let listed = shell("kubectl ark backup get --local").await?;
    ensure!(
        listed
            .stdout
            .lines()
            .any(|line| line.starts_with("laptop ") && line.contains(" Completed ")),
        "{listed:?}"
    );
    // Every byte of it is checked by this.
    let inside = shell("kubectl ark backup download laptop --local -o - | tar tz").await?;
    ensure!(
        inside
            .stdout
            .contains("resources/configmaps/namespaces/default/mine.json"),
        "{inside:?}"
    );
    // Nothing was installed for it.
    let types = cluster.kubectl(&["get", "customresourcedefinitions", "-o", "name"])?;
    let namespaces = cluster.kubectl(&["get", "namespaces", "-o", "name"])?;
    ensure!(
        types.trim().is_empty() && !namespaces.contains("ark"),
        "{types} {namespaces}"
    );
    Ok(())
}

/// What README.md says to type for a first backup: its quick start as far as it needs nothing but a kubeconfig.
fn quick_start_commands() -> Result<Vec<String>> {
    let readme = std::fs::read_to_string(root().join("README.md"))?;
    let (_, section) = readme
        .split_once("\n## Quick start\n")
        .context("README.md has no quick start")?;
    let mut commands = Vec::new();
    // Prose, block, prose, block: one that krew is in, and one to run.
    for block in section.split("\n```").skip(1).step_by(2).take(2) {
        for line in block.lines().skip(1) {
            let command = line.split(" #").next().unwrap_or_default().trim();
            if !command.is_empty() {
                commands.push(command.to_owned());
            }
        }
    }
    Ok(commands)
}

/// The commands of the picture.
const PICTURE: [&str; 5] = [
    "kubectl ark backup create shop --include-namespaces shop --wait",
    "kubectl ark get backups shop",
    "kubectl delete namespace shop",
    "kubectl ark restore create shop --wait",
    "kubectl get deployments --namespace shop",
];

/// docs/terminal.svg shows these commands and what they say; ages, times and numbers may differ.
async fn picture() -> Result<()> {
    let _turn = ONE_AT_A_TIME.lock().await;
    let shell = Shell::start().await?;
    shell.prepare(PICTURE[0]).await?;
    let mut text = String::new();
    for command in PICTURE {
        let said = shell.run(command).await?;
        text.push_str(&format!("\x1b[1;32m$\x1b[0m \x1b[1m{command}\x1b[0m\n"));
        text.push_str(&said.stdout);
    }
    let drawn = anstyle_svg::Term::new().render_svg(text.trim_end());
    let path = root().join("docs/terminal.svg");
    if updates() {
        std::fs::write(&path, drawn)?;
        return Ok(());
    }
    let stored = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let (stored, drawn) = (lines(&stored), lines(&drawn));
    ensure!(
        alike(&stored) == alike(&drawn),
        "docs/terminal.svg shows:\n{}\nand the commands say:\n{}\n(ARK_UPDATE=1 draws it anew)",
        stored.join("\n"),
        drawn.join("\n")
    );
    Ok(())
}

/// The lines of text in a picture.
fn lines(svg: &str) -> Vec<String> {
    svg.lines()
        .filter(|line| line.trim_start().starts_with("<tspan"))
        .map(|line| {
            let mut text = String::new();
            let mut inside = false;
            for c in line.trim().chars() {
                match c {
                    '<' => inside = true,
                    '>' => inside = false,
                    c if !inside => text.push(c),
                    _ => {}
                }
            }
            text.trim_end().to_owned()
        })
        .filter(|line| !line.is_empty())
        .collect()
}

/// A shell in the cluster of the docs.
struct Shell {
    ark: &'static Ark,
    directory: tempfile::TempDir,
}

/// What stands before each block. `kubectl ark` is what it is, with the storage and image that there are here, with `--yes` where a
/// person would be asked, and with an end to what is watched once it has shown something; exit codes that only tell something are
/// no failures.
const SHELL: &str = r#"
set -euo pipefail
kubectl() {
  if [ "${1-}" != ark ]; then command kubectl "$@"; return; fi
  shift
  local words="$*" args=() arg watch= code=0
  for arg in "$@"; do
    case $arg in
      s3://*|URL) case $words in *--dry-run*) ;; *) arg=$STORAGE ;; esac ;;
      -w|--watch) case $words in get*|*\ get*) watch=yes ;; esac ;;
    esac
    args+=("$arg")
  done
  case $words in *--help*|*--dry-run*) ;;
    install*)
      case $words in *--image\ *) ;; *) args+=(--image "$IMAGE") ;; esac
      case $words in *--credentials*) ;; *--storage*) args+=(--credentials-file "$CREDENTIALS") ;; esac ;;
    location\ create*) args+=(--credentials-file "$CREDENTIALS") ;;
    backup\ delete*|delete\ backup*|restore\ delete*|delete\ restore*|uninstall*) case $words in *--yes*|*-y*) ;; *) args+=(--yes) ;; esac ;;
  esac
  if [ "$watch" ]; then
    kubectl-ark "${args[@]}" > watched &
    local watcher=$!
    until [ -s watched ]; do
      kill -0 $watcher 2> /dev/null || { wait $watcher; return; }
      sleep 0.1
    done
    kill $watcher
    wait $watcher || true
    cat watched
    return
  fi
  command kubectl ark "${args[@]}" || code=$?
  case $words in
    diff*|status*|doctor*) [ $code -le 1 ] ;;
    restore\ plan*) [ $code = 0 ] || [ $code = 3 ] ;;
    *) return $code ;;
  esac
}
"#;

/// What a block may take for granted, by its name: a resource's kind, and whether it must have ended.
const GIVEN: [(&str, &str, bool); 10] = [
    ("first", "Backup", true),
    ("shop", "Backup", true),
    ("old", "Backup", true),
    ("cut", "Backup", true),
    ("nightly", "CronJob", false),
    ("often", "CronJob", false),
    ("offsite", "BackupStorageLocation", false),
    ("theirs", "BackupStorageLocation", false),
    ("again", "Restore", true),
    ("other", "Restore", true),
];

/// What is there: a line of kind, name, and phase or mode for each. Nothing of Ark's without its types.
const LOOK: &str = r#"
show='{{range .items}}{{.kind}}/{{.metadata.name}} {{with .status}}{{.phase}}{{end}}{{with .data}}{{.mode}}{{end}}{{"\n"}}{{end}}'
kinds=podtemplates,configmaps,cronjobs,backupstoragelocations.ark.heptio.com,backups.ark.heptio.com,restores.ark.heptio.com
command kubectl get $kinds -n heptio-ark -o go-template="$show" > of-ark 2> /dev/null &
command kubectl get deployments -n shop -o go-template="$show"
wait $! && cat of-ark || true
"#;

/// Makes what is not there: the state of Ark if UNFIT, and each of WANTED.
const SETUP: &str = r#"
have() { kubectl get "$@" -n heptio-ark > /dev/null 2>&1; }
if [ "$UNFIT" = missing ]; then
  kubectl ark install --storage s3://bucket
  # What was uninstalled with its records has left its backups.
  kubectl ark sync
fi
[ "$UNFIT" != restore-only ] || kubectl ark restore-only off --resume-expiry
state() { kubectl get "$1.ark.heptio.com" "$2" -n heptio-ark -o 'jsonpath={.status.phase}' 2> /dev/null || true; }
# Whether it is there; one that is at work is waited for.
done_with() {
  ! have job "$1-$2" || kubectl wait "job/$1-$2" -n heptio-ark --for=condition=complete --timeout=120s || true
  case $(state "$1" "$2") in Completed|PartiallyFailed) ;; *) return 1 ;; esac
}
gone() { kubectl delete "job/$1" -n heptio-ark --ignore-not-found; }
backup() { done_with backup "$1" || { gone "backup-$1"; kubectl ark backup create "$@" --wait; }; }
restore() { done_with restore "$1" || { gone "restore-$1"; kubectl ark restore create "$1" --from-backup shop --wait; }; }
for name in $WANTED; do
  case $name in
    first) backup first ;;
    shop|old|cut) backup $name --include-namespaces shop ;;
    again|other) restore $name ;;
    nightly) have cronjob nightly || kubectl ark schedule create nightly --schedule '0 3 * * *' --include-namespaces shop --wait ;;
    often) have cronjob often || kubectl ark schedule create often --schedule '@every 6h' --paused ;;
    offsite|theirs) have backupstoragelocation $name || kubectl ark location create $name --storage s3://bucket ;;
  esac
done
"#;

impl Shell {
    async fn start() -> Result<Shell> {
        let ark = Ark::shared(&CLUSTER, PREFIX).await?;
        let directory = tempfile::tempdir()?;
        for (name, content) in [
            (
                "credentials",
                std::fs::read_to_string(ark.credentials.path())?,
            ),
            ("hooks.yaml", "resources: []\n".into()),
        ] {
            std::fs::write(directory.path().join(name), content)?;
        }
        let shell = Shell { ark, directory };
        for directory in ["home/.config/fish/completions", "home/.local/bin", "bin"] {
            std::fs::create_dir_all(shell.directory.path().join(directory))?;
        }
        // As krew does it. What `completion install` puts beside it is gone with the directory.
        std::os::unix::fs::symlink(
            job::program("kubectl-ark")?,
            shell.directory.path().join("bin/kubectl-ark"),
        )?;
        // What an earlier page made in a directory that is not there any more.
        shell
            .run("kubectl delete backup.ark.heptio.com laptop -n heptio-ark --ignore-not-found || true")
            .await?;
        Ok(shell)
    }

    /// A block that names a file in its first line is that file.
    fn file(&self, text: &str) -> Result<()> {
        let name = text
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("# "))
            .filter(|name| name.ends_with(".yaml") && !name.contains(['/', ' ']));
        if let Some(name) = name {
            std::fs::write(self.directory.path().join(name), text)?;
        }
        Ok(())
    }

    /// Runs a block, after making what it may take for granted.
    async fn block(&self, script: &str) -> Result<()> {
        self.prepare(script).await?;
        self.run(script).await.map(drop)
    }

    /// The state before a block: what it creates is not there, everything else is.
    async fn prepare(&self, script: &str) -> Result<()> {
        let created = |noun: &str| -> Vec<String> {
            let mut names = Vec::new();
            for line in script.lines() {
                for verb in [format!("{noun} create "), format!("create {noun} ")] {
                    let name = line.split_once(&verb).map(|(_, rest)| rest);
                    names.extend(name.and_then(|rest| rest.split_whitespace().next()));
                }
            }
            names.into_iter().map(str::to_owned).collect()
        };
        let [backups, schedules, locations] = ["backup", "schedule", "location"].map(created);
        let bucket = bucket().await?;
        for name in &backups {
            // Not under the feet of a Job of the block before.
            let script = format!(
                "job=job/backup-{name}
                if command kubectl get $job -n heptio-ark > /dev/null 2>&1; then
                  kubectl wait $job -n heptio-ark --for=condition=complete --timeout=120s || true
                fi
                kubectl delete backup.ark.heptio.com/{name} $job -n heptio-ark --ignore-not-found || true"
            );
            self.run(&script).await?;
            for key in bucket.keys(&format!("{PREFIX}/backups/{name}/")).await? {
                bucket.delete(&key).await?;
            }
        }
        for name in &schedules {
            let script =
                format!("kubectl delete cronjob/{name} -n heptio-ark --ignore-not-found || true");
            self.run(&script).await?;
        }
        for name in &locations {
            self.run(&format!("kubectl ark location delete {name} || true"))
                .await?;
        }
        // The name after `restore create` is mostly that of its backup.
        let created = |name: &str, kind: &str| match kind {
            "Restore" => script.contains(&format!("restore create {name} ")),
            _ => [&backups, &schedules, &locations]
                .iter()
                .any(|names| names.iter().any(|one| one == name)),
        };

        let looked = self.run(LOOK).await?;
        let there: BTreeMap<&str, &str> = looked
            .stdout
            .lines()
            .map(|line| line.split_once(' ').unwrap_or((line, "")))
            .collect();
        if !there.contains_key("Deployment/web") {
            self.application().await?;
        }
        let installed = ["PodTemplate/ark", "BackupStorageLocation/default"]
            .iter()
            .all(|one| there.contains_key(one));
        let unfit = match there.get("ConfigMap/ark") {
            _ if !installed => "missing",
            Some(&"RestoreOnly") => "restore-only",
            _ => "",
        };
        // Each takes seconds: only what is named.
        let words: Vec<&str> = script
            .lines()
            // Of comments, "the other one" is no name.
            .filter_map(|line| line.split(" #").next())
            .flat_map(|line| line.split([' ', '/', '=', ',', ':']))
            .collect();
        let wanted: Vec<&str> = GIVEN
            .into_iter()
            .filter(|(name, kind, ends)| {
                let restored = *name == "shop"
                    && ["again", "other", "latest"]
                        .iter()
                        .any(|word| words.contains(word));
                let phase = there.get(format!("{kind}/{name}").as_str());
                let has = phase
                    .is_some_and(|phase| !ends || ["Completed", "PartiallyFailed"].contains(phase));
                (words.contains(name) || restored) && !created(name, kind) && !has
            })
            .map(|(name, ..)| name)
            .collect();
        if !unfit.is_empty() || !wanted.is_empty() {
            let wanted = wanted.join(" ");
            self.run(&format!("UNFIT='{unfit}' WANTED='{wanted}'\n{SETUP}"))
                .await
                .context("making what the block takes for granted")?;
        }
        if words.contains(&"cut") {
            // Its deletion had begun, and whoever deleted it was killed.
            let tombstone = json!({
                "backup": "cut", "cause": "delete", "at": "2026-01-02T03:04:05Z",
                "runID": "00000000-0000-4000-8000-000000000000", "clusterUID": "00000000-0000-4000-8000-000000000000",
            });
            let key = format!("{PREFIX}/backups/cut/ark-deleting.json");
            bucket.put(&key, tombstone.to_string()).await?;
        }
        Ok(())
    }

    /// The namespace `shop`, with a Deployment.
    async fn application(&self) -> Result<()> {
        self.run("kubectl delete namespace shop --ignore-not-found --timeout=120s")
            .await?;
        application(&self.ark.cluster, "shop")
    }

    /// Runs a script.
    async fn run(&self, script: &str) -> Result<Said> {
        let directory = self.directory.path();
        let script = script.replace("/tmp/", &format!("{}/", directory.display()));
        let mut command = self.ark.cluster.command("bash");
        let path = std::env::var("PATH").unwrap_or_default();
        let (programs, bin) = (job::programs()?, self.ark.cluster.bin());
        command
            .args(["-c", &format!("{SHELL}\n{script}")])
            .current_dir(directory)
            .env(
                "PATH",
                format!(
                    "{}:{}:{}:{path}",
                    directory.join("bin").display(),
                    programs.display(),
                    bin.display()
                ),
            )
            .env("HOME", directory.join("home"))
            .env("STORAGE", &self.ark.storage)
            .env("CREDENTIALS", self.ark.credentials.path())
            .env("IMAGE", IMAGE);
        let said = run(Ok(command))
            .await
            .with_context(|| format!("running:\n{script}"))?;
        ensure!(
            said.code == Some(0),
            "exit code {:?} of:\n{script}\n{}\n{}",
            said.code,
            said.stdout,
            said.stderr
        );
        Ok(said)
    }
}
