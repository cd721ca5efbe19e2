//! `kubectl ark completion`: code that completes commands and names in a shell, and the program by which kubectl does.
//!
//! All of it asks `kubectl-ark __complete WORDS…`, in the protocol of cobra, which kubectl speaks: the words that stand
//! after the program, the last one up to the cursor; the answer has a candidate a line, with a tab before its
//! description, and `:N` in the last line, which says what the shell may do besides. It asks the cluster for names, for
//! a short time; says nothing when something is wrong; and changes nothing.

mod candidates;
mod words;

use crate::Surroundings;
use crate::cli::ClusterFlags;
use crate::cli::{Cli, CompletionArgs, CompletionCommand};
use ark_job::error::Failure;
use ark_job::exit::Exit;
use clap::CommandFactory as _;
use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use words::{Directive, Source, Wanted};

/// The word after the program's name that asks for candidates.
pub const ASK: &str = "__complete";

/// A person waits with the finger on the key.
const WITHIN: Duration = Duration::from_secs(3);

/// The program that kubectl runs to complete `kubectl ark`.
const HELPER: &str = if cfg!(windows) {
    "kubectl_complete-ark.cmd"
} else {
    "kubectl_complete-ark"
};

const HELPER_TEXT: &str = if cfg!(windows) {
    "@rem Completes 'kubectl ark'; made by 'kubectl ark completion install'.\r\n@kubectl-ark __complete %*\r\n"
} else {
    "#!/bin/sh\n# Completes 'kubectl ark'; made by 'kubectl ark completion install'.\nexec kubectl-ark __complete \"$@\"\n"
};

/// By which a file is known as one of ours.
const MADE_BY: &str = "made by 'kubectl ark completion install'";

/// `kubectl ark completion`
pub async fn run(
    _cluster: &ClusterFlags,
    args: CompletionArgs,
    _surroundings: &Surroundings,
    _interrupt: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    let code = match args.what {
        CompletionCommand::Bash => include_str!("completion/kubectl-ark.bash"),
        CompletionCommand::Zsh => include_str!("completion/kubectl-ark.zsh"),
        CompletionCommand::Fish => include_str!("completion/kubectl-ark.fish"),
        CompletionCommand::PowerShell => include_str!("completion/kubectl-ark.ps1"),
        CompletionCommand::Install(args) => {
            let path = std::env::var_os("PATH").unwrap_or_default();
            return install(args.dir, &path);
        }
    };
    print!("{code}");
    Ok(Exit::Done)
}

/// Answers `__complete`: prints candidates, whatever happens.
pub async fn complete(words: &[String], surroundings: &Surroundings) {
    let mut root = Cli::command();
    root.build();
    let wanted = words::wanted(&root, words);
    let found = tokio::time::timeout(WITHIN, candidates::of(&wanted, surroundings)).await;
    let directive = wanted.directive();
    let mut answer = String::new();
    for candidate in found.unwrap_or_default() {
        answer += &candidate.line();
        answer.push('\n');
    }
    answer += &format!(":{}\n", directive.0);
    let mut stdout = std::io::stdout();
    // Whoever has asked may not wait for the answer.
    drop(
        stdout
            .write_all(answer.as_bytes())
            .and_then(|()| stdout.flush()),
    );
}

/// Writes the helper, unless somebody else's program of that name is there.
fn install(directory: Option<PathBuf>, path: &OsStr) -> Result<Exit, Failure> {
    let directory = match directory {
        Some(directory) => directory,
        None => home_of(
            &format!("kubectl-ark{}", std::env::consts::EXE_SUFFIX),
            path,
        )
        .ok_or_else(|| {
            Failure::new(Exit::Failed, "kubectl-ark is in no directory of the PATH")
                .hint("give one of them: kubectl ark completion install --dir DIRECTORY")
        })?,
    };
    let file = directory.join(HELPER);
    let failed = |error: std::io::Error| {
        Failure::new(Exit::Failed, format!("writing {}: {error}", file.display()))
            .hint("choose another directory of the PATH with --dir")
    };
    match std::fs::read(&file) {
        Ok(there) if !String::from_utf8_lossy(&there).contains(MADE_BY) => {
            return Err(Failure::new(
                Exit::Conflict,
                format!("{} is there, and not made by this command", file.display()),
            )
            .hint("remove it, or choose another directory of the PATH with --dir"));
        }
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut temporary = tempfile::NamedTempFile::new_in(&directory).map_err(failed)?;
    temporary
        .write_all(HELPER_TEXT.as_bytes())
        .map_err(failed)?;
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        temporary.as_file().set_permissions(mode).map_err(failed)?;
    }
    temporary
        .persist(&file)
        .map_err(|error| failed(error.error))?;
    println!("{}", file.display());
    if !std::env::split_paths(path).any(|one| same(&one, &directory)) {
        eprintln!(
            "warning: {} is not in your PATH: kubectl will not find it there",
            directory.display()
        );
    }
    Ok(Exit::Done)
}

/// The first directory of the path with a program of this name.
fn home_of(program: &str, path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path).find(|directory| directory.join(program).is_file())
}

fn same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    real(one) == real(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_helper_goes_beside_the_plugin_and_spares_what_is_not_ours() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let program = format!("kubectl-ark{}", std::env::consts::EXE_SUFFIX);
        std::fs::write(second.path().join(program), "").unwrap();
        let path = std::env::join_paths([first.path(), second.path()]).unwrap();
        let helper = second.path().join(HELPER);
        for _ in 0..2 {
            assert_eq!(install(None, &path).unwrap(), Exit::Done);
            assert_eq!(std::fs::read_to_string(&helper).unwrap(), HELPER_TEXT);
        }
        std::fs::write(&helper, "mine").unwrap();
        assert_eq!(install(None, &path).unwrap_err().exit(), Exit::Conflict);
        assert_eq!(std::fs::read_to_string(&helper).unwrap(), "mine");

        install(Some(first.path().to_owned()), &path).unwrap();
        assert!(first.path().join(HELPER).exists());
        assert!(install(None, OsStr::new("")).is_err());
        assert!(install(Some(first.path().join("none")), &path).is_err());
    }
}
