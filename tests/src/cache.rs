//! The cache: where everything that takes long to make is kept, outside the clone, named by what it was made from.
//!
//! An entry is a directory `NAME-HASH`. It counts only once the marker file in it exists, which is written last, so a
//! build that was killed is built again and never used half.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

const COMPLETE: &str = ".complete";

/// The cache directory: `$ARK_CACHE`, else `$XDG_CACHE_HOME/kubectl-ark`, else `~/.cache/kubectl-ark`.
pub fn directory() -> PathBuf {
    let from = |variable: &str| {
        std::env::var_os(variable)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    from("ARK_CACHE").unwrap_or_else(|| {
        from("XDG_CACHE_HOME")
            .or_else(|| from("HOME").map(|home| home.join(".cache")))
            .unwrap_or_else(std::env::temp_dir)
            .join("kubectl-ark")
    })
}

/// A short hash over all parts. Each part's length is hashed too, so that moving a byte from one to the next shows.
pub fn hash(parts: &[&[u8]]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hex::encode(&hasher.finalize()[..8])
}

/// An exclusive lock of that name, held until the file is dropped (also by the kernel, when the process dies).
pub fn lock(name: &str) -> Result<File> {
    let directory = directory().join("locks");
    fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
    let path = directory.join(name);
    let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
    file.lock()
        .with_context(|| format!("locking {}", path.display()))?;
    Ok(file)
}

/// The directory `NAME-HASH`, filled by `build` unless it is there already. Two processes never build the same twice.
pub fn entry(name: &str, hash: &str, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let path = directory().join(format!("{name}-{hash}"));
    if path.join(COMPLETE).exists() {
        return Ok(path);
    }
    let _lock = lock(&format!("{name}-{hash}"))?;
    if path.join(COMPLETE).exists() {
        return Ok(path);
    }
    if path.exists() {
        fs::remove_dir_all(&path)
            .with_context(|| format!("removing the unfinished {}", path.display()))?;
    }
    fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
    build(&path)?;
    File::create(path.join(COMPLETE))
        .with_context(|| format!("marking {} as complete", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_hash_do_not_run_together() {
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
        assert_eq!(hash(&[b"ab", b"c"]), hash(&[b"ab", b"c"]));
    }
}
