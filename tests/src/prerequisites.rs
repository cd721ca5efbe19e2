//! What the tests need on the machine: made, installed, or named in one message.
//!
//! Made: the Kubernetes binary and the parts of CSI (with Go), and the Python virtual environment, all in the cache.
//! Installed, when root on Debian: packages. Everything that is missing and cannot be had this way is named together, with how to get it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context, Result, bail};

use crate::cache;
use crate::process::output;

/// The names by which the one Kubernetes binary is started.
const COMPONENTS: [&str; 6] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kubectl",
];

const VERSION: &str = "v1.34.4";

/// Where this crate's sources are.
const CRATE: &str = env!("CARGO_MANIFEST_DIR");

/// The directory with etcd, the Kubernetes components and kubectl, built on first use (about five minutes).
pub fn kubernetes() -> Result<PathBuf> {
    require(&[GO])?;
    let sources = Path::new(CRATE).join("cluster");
    let read = |name: &str| {
        fs::read(sources.join(name)).with_context(|| format!("reading tests/cluster/{name}"))
    };
    let go_version = output(Command::new("go").arg("version").current_dir(&sources))?;
    let hash = cache::hash(&[
        &read("main.go")?,
        &read("go.mod")?,
        &read("go.sum")?,
        go_version.as_bytes(),
    ]);
    cache::entry("kubernetes", &hash, |directory| {
        eprintln!("building Kubernetes {VERSION} (once, about five minutes) …");
        let package = "k8s.io/component-base/version";
        let flags = format!(
            "-s -w -X {package}.gitVersion={VERSION} -X {package}.gitMajor=1 -X {package}.gitMinor=34 -X {package}.gitTreeState=clean"
        );
        let mut build = Command::new("go");
        build
            .args(["build", "-trimpath", "-ldflags", &flags, "-o"])
            .arg(directory.join("kubernetes"))
            .arg(".");
        output(build.current_dir(&sources).env("CGO_ENABLED", "0"))?;
        for component in COMPONENTS {
            symlink("kubernetes", directory.join(component))?;
        }
        Ok(())
    })
}

/// The commands that are built in each of these directories, whose go.mod pins them.
const CSI_COMMANDS: [(&str, &[&str]); 2] = [
    (
        "csi",
        &[
            ".",
            "github.com/kubernetes-csi/external-snapshotter/v8/cmd/snapshot-controller",
            "github.com/kubernetes-csi/external-snapshotter/v8/cmd/csi-snapshotter",
        ],
    ),
    (
        "csi/provisioner",
        &["github.com/kubernetes-csi/external-provisioner/v6/cmd/csi-provisioner"],
    ),
];

/// Whose module holds the definitions of the snapshot resources.
const CSI_CLIENT: &str = "github.com/kubernetes-csi/external-snapshotter/client/v8";

/// The directory with the snapshot controller, the CSI sidecars, the test driver (`csi`) and, in `crd`, the definitions
/// of the snapshot resources; built on first use (about eight minutes).
pub fn csi() -> Result<PathBuf> {
    require(&[GO])?;
    let sources = Path::new(CRATE).join("csi");
    let mut parts = vec![output(Command::new("go").arg("version").current_dir(&sources))?.into()];
    for (directory, _) in CSI_COMMANDS {
        parts.extend(go_sources(&Path::new(CRATE).join(directory))?);
    }
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    cache::entry("csi", &cache::hash(&parts), |directory| {
        eprintln!("building the parts of CSI (once, about eight minutes) …");
        for (sources, commands) in CSI_COMMANDS {
            let mut build = Command::new("go");
            build
                .args(["build", "-trimpath", "-ldflags", "-s -w", "-o"])
                .arg(directory)
                .args(commands)
                .current_dir(Path::new(CRATE).join(sources))
                .env("CGO_ENABLED", "0");
            output(&mut build)?;
        }
        let mut client = Command::new("go");
        client.args(["list", "-m", "-f", "{{.Dir}}", CSI_CLIENT]);
        let client = output(client.current_dir(&sources))?;
        let definitions = Path::new(client.trim_end()).join("config/crd");
        let kept = directory.join("crd");
        fs::create_dir(&kept)?;
        for entry in fs::read_dir(&definitions)
            .with_context(|| format!("listing {}", definitions.display()))?
        {
            let entry = entry?;
            // The rest is for kustomize.
            if entry
                .file_name()
                .to_string_lossy()
                .contains("storage.k8s.io_")
            {
                // Not a copy of the file: that would be read-only, as all of Go's modules.
                fs::write(kept.join(entry.file_name()), fs::read(entry.path())?)?;
            }
        }
        Ok(())
    })
}

/// The program that judges objects as Argo CD and Flux do, built on first use (about a minute).
pub fn gitops() -> Result<PathBuf> {
    require(&[GO])?;
    let sources = Path::new(CRATE).join("gitops");
    let mut parts = vec![output(Command::new("go").arg("version").current_dir(&sources))?.into()];
    parts.extend(go_sources(&sources)?);
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    let directory = cache::entry("gitops", &cache::hash(&parts), |directory| {
        eprintln!("building the interpreters of Argo CD and Flux (once, about a minute) …");
        let mut build = Command::new("go");
        build
            .args(["build", "-trimpath", "-ldflags", "-s -w", "-o"])
            .arg(directory)
            .arg(".")
            .current_dir(&sources)
            .env("CGO_ENABLED", "0");
        output(&mut build).map(drop)
    })?;
    Ok(directory.join("gitops"))
}

/// Prometheus' promtool, which tests alert rules.
pub fn promtool() -> Result<PathBuf> {
    program_of_package("prometheus", "promtool")
}

/// A container registry: docker-registry, the reference implementation.
pub fn registry() -> Result<PathBuf> {
    program_of_package("docker-registry", "docker-registry")
}

/// A program on the PATH, or taken out of Debian's package without installing that, which would start a service.
fn program_of_package(package: &'static str, program: &'static str) -> Result<PathBuf> {
    let found = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path)
            .map(|directory| directory.join(program))
            .find(|path| path.exists())
    });
    if let Some(found) = found {
        return Ok(found);
    }
    if !on_path("apt-get") || !on_path("dpkg-deb") {
        bail!("missing on this machine: {program} (Debian's package {package} has it)");
    }
    let policy = output(Command::new("apt-cache").args(["policy", package]))?;
    let candidate = policy.lines().find(|line| line.contains("Candidate:"));
    let hash = cache::hash(&[candidate.unwrap_or_default().as_bytes()]);
    let directory = cache::entry(package, &hash, |directory| {
        let download = || {
            let mut download = Command::new("apt-get");
            output(
                download
                    .args(["download", "-qq", package])
                    .current_dir(directory),
            )
        };
        // The lists on a machine that has been up for a while may name versions that are gone.
        if download().is_err() {
            output(Command::new("apt-get").args(["update", "-qq"]))?;
            download()?;
        }
        let unpacked = directory.join("unpacked");
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                output(Command::new("dpkg-deb").arg("-x").arg(&path).arg(&unpacked))?;
                fs::remove_file(&path)?;
            }
        }
        fs::rename(
            unpacked.join("usr/bin").join(program),
            directory.join(program),
        )
        .with_context(|| format!("package {package} has no {program}"))?;
        fs::remove_dir_all(&unpacked)?;
        Ok(())
    })?;
    Ok(directory.join(program))
}

/// The contents of the files of a Go package and of its module, sorted by name.
fn go_sources(directory: &Path) -> Result<Vec<Vec<u8>>> {
    let listing = || format!("listing {}", directory.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).with_context(listing)? {
        let path = entry.with_context(listing)?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    let read =
        |path: &PathBuf| fs::read(path).with_context(|| format!("reading {}", path.display()));
    files.iter().map(read).collect()
}

/// The virtual environment with SeaweedFS and moto, made on first use.
pub fn python() -> Result<PathBuf> {
    require(&[PYTHON])?;
    let requirements = Path::new(CRATE).join("requirements.txt");
    let pins = fs::read(&requirements).context("reading tests/requirements.txt")?;
    let version = output(Command::new("python3").arg("--version"))?;
    cache::entry(
        "python",
        &cache::hash(&[&pins, version.as_bytes()]),
        |directory| {
            eprintln!("making the Python environment (once) …");
            output(Command::new("python3").args(["-m", "venv"]).arg(directory))?;
            let mut install = Command::new(directory.join("bin/pip"));
            install
                .args([
                    "install",
                    "--quiet",
                    "--disable-pip-version-check",
                    "--requirement",
                ])
                .arg(&requirements);
            output(&mut install)?;
            Ok(())
        },
    )
}

/// Installs or names strace, which kills a job at a system call of our choice.
pub fn strace() -> Result<()> {
    require(&[STRACE])
}

/// Installs or names the shells that complete.
pub fn shells() -> Result<()> {
    require(&SHELLS)
}

/// Installs or names what a cluster with a node needs beyond the control plane.
#[cfg(target_os = "linux")]
pub fn node() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("a cluster with a node needs root: containers, cgroups and a network namespace");
    }
    require(&NODE)
}

/// A program or file, and where it comes from.
struct Prerequisite {
    name: &'static str,
    present: fn() -> bool,
    /// The Debian package that brings it, if one does.
    package: Option<&'static str>,
    hint: &'static str,
}

const GO: Prerequisite = Prerequisite {
    name: "Go 1.24 or newer",
    present: || on_path("go"),
    package: None,
    hint: "https://go.dev/doc/install",
};

const PYTHON: Prerequisite = Prerequisite {
    name: "Python 3 with venv",
    present: || {
        Command::new("python3")
            .args(["-c", "import venv, ensurepip"])
            .output()
            .is_ok_and(|output| output.status.success())
    },
    package: Some("python3-venv"),
    hint: "https://www.python.org, or the package python3-venv",
};

const STRACE: Prerequisite = Prerequisite {
    name: "strace",
    present: || on_path("strace"),
    package: Some("strace"),
    hint: "the package strace (Linux only)",
};

const SHELLS: [Prerequisite; 3] = [
    Prerequisite {
        name: "bash-completion",
        present: || Path::new("/usr/share/bash-completion/bash_completion").exists(),
        package: Some("bash-completion"),
        hint: "the package bash-completion",
    },
    Prerequisite {
        name: "zsh",
        present: || on_path("zsh"),
        package: Some("zsh"),
        hint: "the package zsh",
    },
    Prerequisite {
        name: "fish",
        present: || on_path("fish"),
        package: Some("fish"),
        hint: "the package fish",
    },
];

#[cfg(target_os = "linux")]
const NODE: [Prerequisite; 6] = [
    Prerequisite {
        name: "containerd",
        present: || on_path("containerd"),
        package: Some("containerd"),
        hint: "the package containerd",
    },
    Prerequisite {
        name: "runc",
        present: || on_path("runc"),
        package: Some("runc"),
        hint: "the package runc",
    },
    Prerequisite {
        name: "the CNI plugins (/usr/lib/cni)",
        present: || Path::new("/usr/lib/cni/bridge").exists(),
        package: Some("containernetworking-plugins"),
        hint: "the package containernetworking-plugins",
    },
    Prerequisite {
        name: "buildah",
        present: || on_path("buildah"),
        package: Some("buildah"),
        hint: "the package buildah",
    },
    Prerequisite {
        name: "ip",
        present: || on_path("ip"),
        package: Some("iproute2"),
        hint: "the package iproute2",
    },
    Prerequisite {
        name: "busybox-static",
        present: busybox,
        package: Some("busybox-static"),
        hint: "the package busybox-static",
    },
];

/// A dynamically linked busybox would find no libc in an image that holds nothing else.
#[cfg(target_os = "linux")]
fn busybox() -> bool {
    Path::new("/usr/share/doc/busybox-static").exists() && Path::new("/bin/busybox").exists()
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|directory| directory.join(program).exists())
    })
}

fn require(prerequisites: &[Prerequisite]) -> Result<()> {
    // One at a time: two threads would run apt-get into its lock.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock();
    let missing = || {
        prerequisites
            .iter()
            .filter(|prerequisite| !(prerequisite.present)())
            .collect::<Vec<_>>()
    };
    let packages: Vec<&str> = missing()
        .iter()
        .filter_map(|prerequisite| prerequisite.package)
        .collect();
    let mut installed = Ok(());
    if !packages.is_empty() && rustix::process::geteuid().is_root() && on_path("apt-get") {
        let _lock = cache::lock("apt-get")?;
        eprintln!("installing {} …", packages.join(" "));
        installed = install(&packages);
    }
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = missing
        .iter()
        .map(|prerequisite| format!("  {}: {}", prerequisite.name, prerequisite.hint))
        .collect();
    let list = list.join("\n");
    match installed {
        Ok(()) => bail!("missing on this machine:\n{list}"),
        Err(error) => Err(error)
            .with_context(|| format!("missing on this machine, and apt-get failed:\n{list}")),
    }
}

fn install(packages: &[&str]) -> Result<()> {
    output(Command::new("apt-get").args(["update", "-qq"]))?;
    let mut install = Command::new("apt-get");
    install
        .args(["install", "--yes", "-qq", "--no-install-recommends"])
        .args(packages);
    output(install.env("DEBIAN_FRONTEND", "noninteractive"))?;
    Ok(())
}
