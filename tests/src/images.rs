//! Container images without a registry: built by buildah, kept as archives, imported into containerd.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cache;
use crate::process::output;

/// The image for test workloads: busybox, statically linked, with its commands in /bin.
pub const BUSYBOX: &str = "localhost/busybox:test";

/// The image that holds a pod's namespaces.
pub(crate) const PAUSE: &str = "localhost/pause:test";

/// Builds a Containerfile and writes the image as a docker archive.
///
/// `image` is the full name (`localhost/NAME:TAG`), which the archive carries. `FROM` can be `scratch`, an archive
/// (`docker-archive:PATH`), or an image that was built here before.
pub fn build(
    context: &Path,
    containerfile: &Path,
    image: &str,
    arguments: &[(&str, &str)],
    archive: &Path,
) -> Result<()> {
    let _lock = cache::lock("buildah")?;
    let mut build = buildah();
    build
        .args([
            "build",
            "--isolation",
            "chroot",
            "--quiet",
            "--tag",
            image,
            "--file",
        ])
        .arg(containerfile);
    for (name, value) in arguments {
        build.arg("--build-arg").arg(format!("{name}={value}"));
    }
    output(build.arg(context)).with_context(|| format!("building {image}"))?;
    match fs::remove_file(archive) {
        // buildah refuses to write into an archive that is there.
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut target = std::ffi::OsString::from("docker-archive:");
    target.push(archive);
    target.push(format!(":{image}"));
    output(buildah().args(["push", "--quiet", image]).arg(target))
        .with_context(|| format!("writing {}", archive.display()))?;
    // What had that name before has none now, and would stay for ever.
    output(buildah().args(["rmi", "--prune"])).context("removing nameless images")?;
    Ok(())
}

/// The image of ark-job, from the repository's Containerfile on a base of Debian's packages; gives its archive.
pub fn ark_job(image: &str, archive: &Path) -> Result<()> {
    let context = tempfile::tempdir()?;
    let program = crate::job::program("ark-job")?;
    fs::copy(&program, context.path().join("ark-job"))
        .with_context(|| format!("copying {}", program.display()))?;
    let containerfile = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Containerfile");
    let base = format!("docker-archive:{}", debian_base()?.display());
    build(
        context.path(),
        &containerfile,
        image,
        &[("BASE", &base)],
        archive,
    )
}

/// buildah with a store in the cache. vfs and chroot work everywhere, also where overlay mounts and namespaces do not.
pub fn buildah() -> Command {
    let store = cache::directory().join("buildah");
    let mut command = Command::new("buildah");
    command
        .arg("--root")
        .arg(store.join("root"))
        .arg("--runroot")
        .arg(store.join("run"));
    command.args(["--storage-driver", "vfs"]);
    command
}

/// The archives with [`BUSYBOX`] and [`PAUSE`], made on first use.
pub(crate) fn basic() -> Result<[PathBuf; 2]> {
    let busybox = fs::read("/bin/busybox").context("reading /bin/busybox")?;
    let install = "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n";
    // Root's home and /tmp are missing from an empty image, and scripts expect them.
    let install = format!(
        "{install}RUN mkdir -p -m 1777 /tmp && mkdir -p /root /etc && echo root:x:0:0:root:/root:/bin/sh > /etc/passwd\n"
    );
    let pause = format!("{install}CMD [\"/bin/sleep\", \"infinity\"]\n");
    let directory = cache::entry(
        "images",
        &cache::hash(&[&busybox, pause.as_bytes()]),
        |directory| {
            fs::write(directory.join("busybox"), &busybox)?;
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(directory.join("busybox"), fs::Permissions::from_mode(0o755))?;
            for (name, image, text) in [
                ("busybox.tar", BUSYBOX, &install),
                ("pause.tar", PAUSE, &pause),
            ] {
                let containerfile = directory.join("Containerfile");
                fs::write(&containerfile, text)?;
                build(directory, &containerfile, image, &[], &directory.join(name))?;
            }
            Ok(())
        },
    )?;
    Ok([directory.join("busybox.tar"), directory.join("pause.tar")])
}

/// A base for programs that link against glibc, as an archive: what the published distroless bases hold, from Debian's
/// packages (libc, libgcc, CA certificates, time zones). Its image is `localhost/base:debian`; made on first use.
pub fn debian_base() -> Result<PathBuf> {
    const PACKAGES: [&str; 4] = ["libc6", "libgcc-s1", "ca-certificates", "tzdata"];
    let versions = output(Command::new("apt-cache").arg("policy").args(PACKAGES))?;
    let candidates: Vec<&str> = versions
        .lines()
        .filter(|line| line.contains("Candidate:"))
        .collect();
    let hash = cache::hash(&[candidates.join("\n").as_bytes()]);
    let directory = cache::entry("base", &hash, |directory| {
        let root = directory.join("root");
        fs::create_dir_all(root.join("tmp"))?;
        let download = |update: bool| {
            if update {
                output(Command::new("apt-get").args(["update", "-qq"]))?;
            }
            output(
                Command::new("apt-get")
                    .args(["download", "-qq"])
                    .args(PACKAGES)
                    .current_dir(directory),
            )
        };
        // The lists on a machine that has been up for a while may name versions that are gone.
        download(false).or_else(|_| download(true))?;
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                output(Command::new("dpkg-deb").arg("-x").arg(&path).arg(&root))?;
                fs::remove_file(&path)?;
            }
        }
        // What the package's installation would make of the single certificates.
        let mut bundle = String::new();
        let mut certificates: Vec<PathBuf> = walk(&root.join("usr/share/ca-certificates"))?;
        certificates.sort();
        for certificate in certificates {
            bundle.push_str(&fs::read_to_string(certificate)?);
        }
        fs::create_dir_all(root.join("etc/ssl/certs"))?;
        fs::write(root.join("etc/ssl/certs/ca-certificates.crt"), bundle)?;
        fs::write(
            root.join("etc/passwd"),
            "root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n",
        )?;
        fs::write(root.join("etc/nsswitch.conf"), "hosts: files dns\n")?;
        let containerfile = directory.join("Containerfile");
        fs::write(&containerfile, "FROM scratch\nCOPY root/ /\n")?;
        build(
            directory,
            &containerfile,
            "localhost/base:debian",
            &[],
            &directory.join("base.tar"),
        )?;
        fs::remove_dir_all(&root)?;
        Ok(())
    })?;
    Ok(directory.join("base.tar"))
}

fn walk(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in
        fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?
    {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(walk(&path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}
