//! What a release publishes: archives and the manifest, packed by the script that the release runs, and installed as krew does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use ark_tests::process::output;
use ark_tests::{job, prerequisites};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::plugin::run;
use crate::world::scenario;

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "packaging::the_archive_of_this_platform_is_installed_and_run_as_krew_does",
            the_archive_of_this_platform_is_installed_and_run_as_krew_does,
        ),
        scenario(
            "packaging::the_rules_of_krew_refuse_what_breaks_them",
            the_rules_of_krew_refuse_what_breaks_them,
        ),
        scenario(
            "packaging::the_release_builds_what_the_manifest_names",
            the_release_builds_what_the_manifest_names,
        ),
        scenario(
            "packaging::what_only_unix_has_is_guarded",
            what_only_unix_has_is_guarded,
        ),
    ]
}

/// Directories of programs, as the release gathers them.
const PLATFORMS: [&str; 5] = [
    "linux-amd64",
    "linux-arm64",
    "darwin-amd64",
    "darwin-arm64",
    "windows-amd64",
];
const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"));

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn program_of(platform: &str) -> &'static str {
    match platform.starts_with("windows-") {
        true => "kubectl-ark.exe",
        false => "kubectl-ark",
    }
}

/// os and arch, as krew and Go name them.
fn this_platform() -> Result<(&'static str, &'static str)> {
    let os = match std::env::consts::OS {
        "macos" => "darwin",
        os => os,
    };
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => bail!("there is no release for {other}"),
    };
    Ok((os, arch))
}

/// What is packed: for other platforms always a stand-in, which is packed far faster than a program.
#[derive(Clone, Copy, PartialEq)]
enum Programs {
    /// The real program for this platform.
    Real,
    /// None.
    StandIns,
}

/// Runs the packaging script.
fn package(directory: &Path, which: Programs) -> Result<PathBuf> {
    let (programs, released) = (directory.join("programs"), directory.join("released"));
    let (os, arch) = this_platform()?;
    for platform in PLATFORMS {
        let to = programs.join(platform);
        fs::create_dir_all(&to)?;
        let to = to.join(program_of(platform));
        if which == Programs::Real && platform == format!("{os}-{arch}") {
            fs::copy(job::program("kubectl-ark")?, to)?;
        } else {
            fs::write(to, platform)?;
        }
    }
    let mut pack = Command::new(prerequisites::python()?.join("bin/python3"));
    pack.arg(repository().join("krew/package.py"))
        .arg(VERSION)
        .args([&programs, &released]);
    output(&mut pack)?;
    Ok(released)
}

fn yaml(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_saphyr::from_str(&text).with_context(|| format!("reading {}", path.display()))
}

fn digest(path: &Path) -> Result<String> {
    Ok(hex::encode(Sha256::digest(fs::read(path)?)))
}

async fn the_archive_of_this_platform_is_installed_and_run_as_krew_does() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let released = package(directory.path(), Programs::Real)?;
    let manifest = yaml(&released.join("ark.yaml"))?;
    check(&manifest, "ark").map_err(anyhow::Error::msg)?;
    ensure!(manifest["spec"]["version"] == VERSION, "{manifest}");

    // Every archive is there, under the name of its URI, with its digest; so do the checksums say.
    let platforms = manifest["spec"]["platforms"]
        .as_array()
        .context("no platforms")?;
    ensure!(platforms.len() == PLATFORMS.len(), "{manifest}");
    let mut checksums = String::new();
    for platform in platforms {
        let uri = platform["uri"].as_str().context("no URI")?;
        let (at, name) = uri.rsplit_once('/').context("no file in the URI")?;
        ensure!(
            at.ends_with(&format!("/releases/download/{VERSION}")),
            "{uri}"
        );
        let sha256 = digest(&released.join(name))?;
        ensure!(platform["sha256"] == sha256, "{uri}: {sha256}");
        checksums += &format!("{sha256}  {name}\n");
        let labels = &platform["selector"]["matchLabels"];
        let platform_name = format!(
            "{}-{}",
            labels["os"].as_str().unwrap_or_default(),
            labels["arch"].as_str().unwrap_or_default()
        );
        ensure!(platform["bin"] == program_of(&platform_name), "{platform}");
        let members = members(&released.join(name))?;
        let expected = ["LICENSE".to_owned(), program_of(&platform_name).to_owned()];
        ensure!(members == expected.into(), "{name}: {members:?}");
    }
    let said = fs::read_to_string(released.join("checksums.txt"))?;
    ensure!(said == checksums, "{said}");
    let (store, bin) = unpack(directory.path(), &released, &manifest)?;
    ensure!(
        fs::read(store.join("LICENSE"))? == fs::read(repository().join("LICENSE"))?,
        "the licence is another one"
    );

    let kubectl = prerequisites::kubernetes()?;
    let path = std::env::join_paths([
        bin.as_path(),
        &kubectl,
        Path::new("/usr/bin"),
        Path::new("/bin"),
    ])?;
    let kubectl = |line: &str| -> Result<Command> {
        let mut command = Command::new(kubectl.join("kubectl"));
        command
            .args(line.split_whitespace())
            .env("PATH", &path)
            .env("HOME", directory.path())
            .env("KUBECONFIG", directory.path().join("none"));
        Ok(command)
    };
    let said = run(kubectl("ark version --client")).await?;
    ensure!(
        said.code == Some(0)
            && said
                .stdout
                .starts_with(&format!("Client Version: {VERSION} ")),
        "{said:?}"
    );
    let said = run(kubectl("plugin list")).await?;
    ensure!(
        said.stdout.contains("kubectl-ark") && !said.stderr.contains("warning"),
        "{said:?}"
    );
    // Whatever it is called by, it says how a person calls it.
    for (line, code) in [
        ("ark --help", 0),
        ("ark backup create --help", 0),
        ("ark help restore create", 0),
        ("ark bakup", 2),
        ("ark backup creat x", 2),
        ("ark backup create", 2),
        ("ark backup create x --no-such-flag", 2),
        ("ark install --image-pull-policy sometimes", 2),
    ] {
        let said = run(kubectl(line)).await?;
        let text = format!("{}{}", said.stdout, said.stderr);
        ensure!(said.code == Some(code), "{line}: {said:?}");
        ensure!(
            text.contains("kubectl ark") || !text.contains("Usage"),
            "{line}: {text}"
        );
        ensure!(!text.contains("Usage: kubectl-ark"), "{line}: {text}");
    }
    Ok(())
}

/// Packs what was built and installs it as krew does; gives the directory that krew puts into the PATH.
pub fn installed(directory: &Path) -> Result<PathBuf> {
    let released = package(directory, Programs::Real)?;
    let (_, bin) = unpack(directory, &released, &yaml(&released.join("ark.yaml"))?)?;
    Ok(bin)
}

/// As krew: the archive of this platform is unpacked into its store, with a link in its directory of the PATH.
fn unpack(directory: &Path, released: &Path, manifest: &Value) -> Result<(PathBuf, PathBuf)> {
    let (os, arch) = this_platform()?;
    let ours = manifest["spec"]["platforms"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|one| one["selector"]["matchLabels"] == json!({"os": os, "arch": arch}))
        .context("this platform is not in the manifest")?;
    let uri = ours["uri"].as_str().unwrap_or_default();
    let archive = fs::File::open(released.join(uri.rsplit_once('/').context("no file")?.1))?;
    let store = directory.join("krew/store/ark").join(VERSION);
    let bin = directory.join("krew/bin");
    fs::create_dir_all(&store)?;
    fs::create_dir_all(&bin)?;
    tar::Archive::new(flate2::read::GzDecoder::new(archive)).unpack(&store)?;
    let program = store.join(ours["bin"].as_str().unwrap_or_default());
    std::os::unix::fs::symlink(&program, bin.join("kubectl-ark"))?;
    Ok((store, bin))
}

/// The names in an archive.
fn members(archive: &Path) -> Result<BTreeSet<String>> {
    if archive
        .extension()
        .is_some_and(|extension| extension == "zip")
    {
        let list =
            "import sys, zipfile; print(*zipfile.ZipFile(sys.argv[1]).namelist(), sep='\\n')";
        let mut python = Command::new(prerequisites::python()?.join("bin/python3"));
        let names = output(python.args(["-c", list]).arg(archive))?;
        return Ok(names.lines().map(str::to_owned).collect());
    }
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(fs::File::open(archive)?));
    let name = |entry: std::io::Result<tar::Entry<'_, _>>| -> Result<String> {
        Ok(entry?.path()?.to_string_lossy().into_owned())
    };
    archive.entries()?.map(name).collect()
}

/// The rules by which krew accepts a manifest, and those of its index on top.
fn check(manifest: &Value, name: &str) -> Result<(), String> {
    let ensure = |holds: bool, rule: &str| match holds {
        true => Ok(()),
        false => Err(rule.to_owned()),
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let spec = &manifest["spec"];
    ensure(
        manifest["apiVersion"] == "krew.googlecontainertools.github.com/v1alpha2",
        "apiVersion",
    )?;
    ensure(manifest["kind"] == "Plugin", "kind")?;
    ensure(
        manifest["metadata"]["name"] == name,
        "the name is the file's",
    )?;
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    ensure(!name.is_empty() && name.chars().all(word), "name")?;
    let devices = ["con", "prn", "aux", "nul"].map(str::to_owned).into_iter();
    let ports = (1..=9).flat_map(|n| [format!("com{n}"), format!("lpt{n}")]);
    ensure(
        !devices
            .chain(ports)
            .any(|device| name.eq_ignore_ascii_case(&device)),
        "the name of a device of Windows",
    )?;
    let version = text(&spec["version"]);
    let numbers: Vec<&str> = version
        .strip_prefix('v')
        .unwrap_or_default()
        .split(['-', '+'])
        .next()
        .unwrap_or_default()
        .split('.')
        .collect();
    ensure(
        numbers.len() == 3 && numbers.iter().all(|number| number.parse::<u64>().is_ok()),
        "version",
    )?;
    let short = text(&spec["shortDescription"]);
    ensure(
        !short.is_empty() && !short.contains(['\r', '\n']),
        "shortDescription",
    )?;
    // The index's reviewers: a few words, no full stop, nothing that every plugin is.
    ensure(
        short.len() <= 50 && !short.ends_with('.') && !short.to_lowercase().contains("kubectl"),
        "shortDescription of few words",
    )?;
    ensure(!text(&spec["description"]).is_empty(), "description")?;
    ensure(text(&spec["homepage"]).starts_with("https://"), "homepage")?;
    let platforms = spec["platforms"].as_array().cloned().unwrap_or_default();
    ensure(!platforms.is_empty(), "platforms")?;
    for platform in &platforms {
        let uri = text(&platform["uri"]);
        ensure(
            uri.starts_with("https://") && (uri.ends_with(".zip") || uri.ends_with(".tar.gz")),
            "uri",
        )?;
        let sha256 = text(&platform["sha256"]);
        let lowercase = |c: char| matches!(c, '0'..='9' | 'a'..='f');
        ensure(
            sha256.len() == 64 && sha256.chars().all(lowercase),
            "sha256",
        )?;
        let bin = text(&platform["bin"]);
        ensure(!bin.is_empty(), "bin")?;
        match &platform["files"] {
            Value::Null => {}
            Value::Array(files) => {
                ensure(!files.is_empty(), "files")?;
                let whole = |file: &Value| file["from"].is_string() && file["to"].is_string();
                ensure(files.iter().all(whole), "files")?;
            }
            _ => return Err("files".to_owned()),
        }
        let selector = &platform["selector"];
        let labels = selector["matchLabels"].as_object();
        let expressions = selector["matchExpressions"].as_array();
        ensure(labels.is_some() || expressions.is_some(), "selector")?;
        ensure(
            labels.is_none_or(|labels| !labels.is_empty()),
            "matchLabels",
        )?;
        ensure(
            expressions.is_none_or(|expressions| !expressions.is_empty()),
            "matchExpressions",
        )?;
        let keys = labels.into_iter().flat_map(|labels| labels.keys().cloned());
        let more = expressions
            .into_iter()
            .flatten()
            .map(|one| text(&one["key"]));
        ensure(
            keys.chain(more).all(|key| key == "os" || key == "arch"),
            "keys of the selector",
        )?;
        let windows = selector["matchLabels"]["os"] == "windows";
        ensure(windows == bin.ends_with(".exe"), "Windows runs .exe only")?;
    }
    let selectors: BTreeSet<String> = platforms
        .iter()
        .map(|platform| platform["selector"].to_string())
        .collect();
    ensure(
        selectors.len() == platforms.len(),
        "two platforms with the same selector",
    )
}

async fn the_rules_of_krew_refuse_what_breaks_them() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let released = package(directory.path(), Programs::StandIns)?;
    let manifest = yaml(&released.join("ark.yaml"))?;
    for (at, value, rule) in [
        ("/apiVersion", json!("v1"), "apiVersion"),
        ("/metadata/name", json!("arc"), "the name is the file's"),
        ("/spec/version", json!("0.1.0"), "version"),
        ("/spec/version", json!("v0.1"), "version"),
        ("/spec/shortDescription", json!("a\nb"), "shortDescription"),
        ("/spec/platforms", json!([]), "platforms"),
        ("/spec/platforms/0/sha256", json!("A".repeat(64)), "sha256"),
        ("/spec/platforms/0/bin", json!(""), "bin"),
        (
            "/spec/platforms/4/bin",
            json!("kubectl-ark"),
            "Windows runs .exe only",
        ),
        ("/spec/platforms/0/selector", json!({}), "selector"),
        (
            "/spec/platforms/0/selector",
            json!({"matchLabels": {"libc": "musl"}}),
            "keys of the selector",
        ),
    ] {
        let mut broken = manifest.clone();
        *broken.pointer_mut(at).with_context(|| format!("no {at}"))? = value;
        ensure!(
            check(&broken, "ark") == Err(rule.to_owned()),
            "{at}: {:?}",
            check(&broken, "ark")
        );
    }
    ensure!(check(&manifest, "ark") == Ok(()));

    // The same programs give the same bytes.
    let again = tempfile::tempdir()?;
    let second = package(again.path(), Programs::StandIns)?;
    for entry in fs::read_dir(&released)? {
        let name = entry?.file_name();
        ensure!(
            digest(&released.join(&name))? == digest(&second.join(&name))?,
            "{} differs when it is packed again",
            name.display()
        );
    }

    // What is missing is said, and nothing is written.
    fs::remove_file(directory.path().join("programs/darwin-arm64/kubectl-ark"))?;
    for (version, why) in [
        (VERSION, "kubectl-ark is missing"),
        ("1.2", "is not a version"),
    ] {
        let mut pack = Command::new(prerequisites::python()?.join("bin/python3"));
        pack.arg(repository().join("krew/package.py"))
            .arg(version)
            .args([
                directory.path().join("programs"),
                directory.path().join("none"),
            ]);
        let said = run(Ok(pack)).await?;
        ensure!(
            said.code == Some(1) && said.stderr.contains(why),
            "{said:?}"
        );
        ensure!(!directory.path().join("none").exists());
    }
    Ok(())
}

async fn the_release_builds_what_the_manifest_names() -> Result<()> {
    let path = repository().join(".github/workflows/release.yml");
    let (text, workflow) = (fs::read_to_string(&path)?, yaml(&path)?);
    ensure!(
        workflow["on"] == json!({"push": {"tags": ["v*"]}}),
        "{}",
        workflow["on"]
    );
    let matrix = &workflow["jobs"]["plugin"]["strategy"]["matrix"]["include"];
    let built: BTreeMap<&str, &str> = matrix
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| {
            let suffix = one["suffix"].as_str().unwrap_or_default();
            (one["platform"].as_str().unwrap_or_default(), suffix)
        })
        .collect();
    let named = PLATFORMS.map(|platform| {
        let suffix = program_of(platform).trim_start_matches("kubectl-ark");
        (platform, suffix)
    });
    ensure!(built == BTreeMap::from(named), "{built:?}");
    for line in text.lines().map(str::trim) {
        if let Some((_, action)) = line.split_once("uses: ") {
            let pin = action.split_once('@').map(|(_, rest)| rest);
            let pin = pin.and_then(|rest| rest.split_whitespace().next());
            let is_commit =
                |pin: &str| pin.len() == 40 && pin.chars().all(|c| c.is_ascii_hexdigit());
            ensure!(pin.is_some_and(is_commit), "not pinned: {line}");
        }
        if let Some((_, secret)) = line.split_once("secrets.") {
            ensure!(secret.starts_with("GITHUB_TOKEN"), "{line}");
        }
    }
    ensure!(text.contains("krew/package.py \"$GITHUB_REF_NAME\" programs dist"));
    Ok(())
}

/// The plugin is built for Windows by the release; this tells of a mistake before.
async fn what_only_unix_has_is_guarded() -> Result<()> {
    const ONLY_UNIX: [&str; 6] = [
        "std::os::unix",
        "std::os::fd",
        "signal::unix",
        "libc::",
        "rustix::",
        ".mode(0o",
    ];
    let mut unguarded = Vec::new();
    let mut directories = vec![
        repository().join("kubectl-ark/src"),
        repository().join("ark-job/src"),
    ];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            if path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let text = fs::read_to_string(&path)?;
            let lines: Vec<&str> = text.lines().collect();
            for (number, line) in lines.iter().enumerate() {
                let comment = line.trim_start().starts_with("//");
                if comment || !ONLY_UNIX.iter().any(|name| line.contains(name)) {
                    continue;
                }
                // On the statement, or on the function that it is in.
                let above = &lines[number.saturating_sub(12)..number];
                if !above.iter().any(|line| line.trim() == "#[cfg(unix)]") {
                    unguarded.push(format!(
                        "{}:{}: {}",
                        path.display(),
                        number + 1,
                        line.trim()
                    ));
                }
            }
        }
    }
    ensure!(
        unguarded.is_empty(),
        "without #[cfg(unix)]:\n{}",
        unguarded.join("\n")
    );
    Ok(())
}
