//! Where it runs: room for temporary files, memory.

use super::Check;
use crate::context::Environment;
use std::io::Write;
use std::path::Path;

const MIB: u64 = 1 << 20;
/// With less, a backup through a slow store soon has no room for what is on its way.
const ROOM: u64 = 1024 * MIB;
/// Volumes of a few MiB hold next to nothing.
const LITTLE_ROOM: u64 = 64 * MIB;
/// A backup needs about 32 MiB, and some room for large objects.
const MEMORY: u64 = 96 * MIB;
/// Where the kernel says how much memory a container may use: control groups of the second and the first version.
const MEMORY_LIMITS: [&str; 2] = [
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
];
/// More than any machine has: the first version's way to say that there is no limit.
const NO_LIMIT: u64 = 1 << 60;

/// Whether temporary files can be written, and how many.
pub async fn temporary(directory: &Path) -> Check {
    const NAME: &str = "temporary-files";
    let owned = directory.to_owned();
    let wrote = tokio::task::spawn_blocking(move || {
        let mut file = tempfile::tempfile_in(&owned)?;
        file.write_all(&[1; 4096])?;
        file.flush()?;
        Ok::<_, std::io::Error>(free(&owned))
    });
    let shown = directory.display();
    match wrote.await {
        Ok(Ok(None)) => Check::ok(NAME, format!("{shown} can be written to")),
        Ok(Ok(Some(free))) if free >= ROOM => {
            Check::ok(NAME, format!("{} free in {shown}", size(free)))
        }
        Ok(Ok(Some(free))) => {
            let detail = format!("only {} free in {shown}", size(free));
            let check = match free < LITTLE_ROOM {
                true => Check::failed(NAME, detail),
                false => Check::warning(NAME, detail),
            };
            check.fix("free the node's disk, or give volume `tmp` more: `kubectl ark install --pod-template FILE`")
        }
        Ok(Err(error)) => Check::failed(NAME, format!("writing to {shown}: {error}")).fix(
            "give pods a writable /tmp (an emptyDir called `tmp`): `kubectl ark install --reset-pod-template`",
        ),
        Err(panicked) => Check::failed(NAME, panicked.to_string()),
    }
}

#[cfg(unix)]
fn free(directory: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(directory).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(not(unix))]
fn free(_directory: &Path) -> Option<u64> {
    None
}

/// Whether the container may use enough memory.
pub fn memory(environment: &Environment) -> Check {
    const NAME: &str = "memory";
    if environment.pod_uid.is_none() {
        return Check::skipped(NAME, "not in a pod");
    }
    let limit = MEMORY_LIMITS
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok());
    memory_of(limit.as_deref())
}

fn memory_of(limit: Option<&str>) -> Check {
    const NAME: &str = "memory";
    let Some(limit) = limit.map(str::trim) else {
        return Check::skipped(NAME, "the kernel does not say what the limit is");
    };
    match limit.parse::<u64>() {
        Ok(bytes) if bytes < MEMORY => Check::warning(
            NAME,
            format!("limit {}: large objects may not fit", size(bytes)),
        )
        .fix("set resources.limits.memory to 256Mi: `kubectl ark install --pod-template FILE`"),
        Ok(bytes) if bytes < NO_LIMIT => Check::ok(NAME, format!("limit {}", size(bytes))),
        _ => Check::ok(NAME, "no limit"),
    }
}

/// A number of bytes for people.
pub fn size(bytes: u64) -> String {
    let mib = bytes / MIB;
    match mib {
        0..=9999 => format!("{mib} MiB"),
        _ => format!("{} GiB", mib / 1024),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_limit_is_enough_or_not() {
        let verdict = |limit| memory_of(limit).result;
        assert_eq!(verdict(Some("max\n")), Verdict::Ok);
        assert_eq!(verdict(Some("9223372036854771712\n")), Verdict::Ok);
        assert_eq!(verdict(Some("268435456\n")), Verdict::Ok);
        assert_eq!(verdict(Some("33554432\n")), Verdict::Warning);
        assert_eq!(verdict(None), Verdict::Skipped);
    }

    #[tokio::test]
    async fn a_directory_that_is_not_there_is_a_failure() {
        let there = tempfile::tempdir().unwrap();
        assert_ne!(temporary(there.path()).await.result, Verdict::Failed);
        let gone = there.path().join("gone");
        assert_eq!(temporary(&gone).await.result, Verdict::Failed);
    }
}
