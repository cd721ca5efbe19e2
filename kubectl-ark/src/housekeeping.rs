//! `expire`, `sync`, and the Jobs of `backup delete` and `undelete`: Jobs that keep no record, followed by their log.
//!
//! Each has a name of its own, by the second at which it was asked for: what was deleted or synced before is no reason not
//! to do it again.

use crate::Surroundings;
use crate::cli::CreateFormat;
use crate::client::{self, Connection};
use crate::manifest;
use crate::manifest::Manifest;
use crate::options::housekeeping::{How, RunOptions};
use crate::pod_template::Installation;
use crate::wait::unrecorded::{self, Unrecorded};
use crate::{create, local, mode, names, render};
use ark_job::api::BackupStorageLocationSpec;
use ark_job::args::{Args, Command, DeleteArgs, DeleteRestoreArgs, UndeleteArgs};
use ark_job::error::Failure;
use ark_job::exit::Exit;
use ark_job::identity::timestamp;
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use std::pin::Pin;

/// How many seconds after the one at which it was asked for may name a Job, when others ask at the same time.
const SECONDS: i64 = 10;

/// `expire`, `sync`
pub async fn run(
    connection: &Connection,
    options: RunOptions,
    surroundings: &Surroundings,
    interrupt: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    let RunOptions { args, how } = options;
    run_all(
        connection,
        vec![args],
        &how,
        surroundings,
        std::pin::pin!(interrupt),
    )
    .await
}

/// Runs operations one after the other, which are Jobs at the same time.
///
/// # Errors
/// The first failure; the others have been told by then.
pub async fn run_all(
    connection: &Connection,
    operations: Vec<Args>,
    how: &How,
    surroundings: &Surroundings,
    mut interrupt: Pin<&mut impl Future<Output = ()>>,
) -> Result<Exit, Failure> {
    let mut ends = Ends::default();
    if how.local {
        for args in operations {
            let client = connection.operation.clone();
            let ended = local::run(client, args, None, surroundings, interrupt.as_mut()).await;
            if ends.add(ended) == Some(Exit::Interrupted) {
                break;
            }
        }
        return ends.result();
    }
    let client = &connection.kube;
    let mut jobs = Vec::with_capacity(operations.len());
    for args in operations {
        jobs.push(Planned::new(client, args, how).await?);
    }
    if how.dry_run {
        let objects: Vec<Manifest> = jobs.into_iter().map(|one| one.job).collect();
        manifest::print(&objects, how.output, " (dry run)");
        return Ok(Exit::Done);
    }
    for Planned { args, .. } in &jobs {
        if mode::writes(&args.command) {
            mode::refuse_unless_writable(client, &args.namespace, Some(args.command.storage()))
                .await?;
        }
    }
    let mut created = Vec::with_capacity(jobs.len());
    for planned in jobs {
        match planned.create(client, how).await {
            Ok(one) => created.push(one),
            Err(failure) => {
                ends.add(Err(failure));
            }
        }
    }
    for (index, one) in created.iter().enumerate() {
        let (namespace, job) = (&one.args.namespace, one.job.name());
        if !how.wait {
            if how.output != Some(CreateFormat::Name) {
                eprintln!("next: kubectl logs -n {namespace} job/{job} -f");
            }
            continue;
        }
        let (doing, to) = described(&one.args.command);
        let followed = Unrecorded {
            namespace,
            doing,
            to: &to,
            job,
            uid: &one.uid,
        };
        let ended =
            unrecorded::follow(client, &followed, surroundings.terminal, interrupt.as_mut());
        if ends.add(ended.await) == Some(Exit::Interrupted) {
            for other in created.iter().skip(index + 1) {
                eprintln!("{} goes on, too", other.job.reference());
            }
            break;
        }
    }
    ends.result()
}

/// How several operations ended: the first failure is that of all, the others are told when they come.
#[derive(Default)]
struct Ends {
    failure: Option<Failure>,
    exit: Option<Exit>,
}

impl Ends {
    fn add(&mut self, ended: Result<Exit, Failure>) -> Option<Exit> {
        match ended {
            Ok(exit) => {
                if exit != Exit::Done {
                    self.exit = Some(exit);
                }
                Some(exit)
            }
            Err(failure) => {
                let exit = failure.exit();
                match &self.failure {
                    None => self.failure = Some(failure),
                    Some(_) => {
                        eprintln!("error: {}", failure.message());
                        if let Some(hint) = failure.next_step() {
                            eprintln!("hint: {hint}");
                        }
                    }
                }
                Some(exit)
            }
        }
    }

    fn result(self) -> Result<Exit, Failure> {
        match (self.failure, self.exit) {
            (Some(failure), _) => Err(failure),
            (None, exit) => Ok(exit.unwrap_or(Exit::Done)),
        }
    }
}

/// A Job that is to be created.
struct Planned {
    args: Args,
    installation: Installation,
    location: Option<BackupStorageLocationSpec>,
    job: Manifest,
}

/// A Job that was created.
struct Created {
    args: Args,
    job: Manifest,
    uid: String,
}

/// The Job that does what `args` say, asked for at `requested`.
///
/// # Errors
/// When the pod could not work.
pub fn plan(
    args: &Args,
    how: &How,
    requested: Timestamp,
    installation: &Installation,
    location: Option<&BackupStorageLocationSpec>,
) -> Result<Manifest, Failure> {
    let mut job = render::job(args, installation, location, None, &how.job)?;
    job.metadata.name = Some(job_name(&args.command, requested));
    Ok(Manifest::of(&job))
}

/// `delete-NAME-<YYYYMMDDhhmmss>`, `sync-LOCATION-<YYYYMMDDhhmmss>`
fn job_name(command: &Command, requested: Timestamp) -> String {
    let subject = match command {
        Command::Delete(DeleteArgs { names, storage })
        | Command::Undelete(UndeleteArgs { names, storage })
        | Command::DeleteRestore(DeleteRestoreArgs { names, storage })
            if names.len() > 1 =>
        {
            storage.location.clone().unwrap_or("storage".into())
        }
        command => render::subject(command),
    };
    let name = format!("{subject}-{}", timestamp(requested));
    names::job(render::operation(command), &name)
}

impl Planned {
    async fn new(client: &Client, args: Args, how: &How) -> Result<Planned, Failure> {
        let storage = args.command.storage();
        let (installation, location) = create::read(client, &args.namespace, storage).await?;
        let job = plan(&args, how, how.requested, &installation, location.as_ref())?;
        Ok(Planned {
            args,
            installation,
            location,
            job,
        })
    }

    async fn create(self, client: &Client, how: &How) -> Result<Created, Failure> {
        let Planned {
            args,
            installation,
            location,
            mut job,
        } = self;
        let mut second = 0;
        let created = loop {
            match job.create(client).await {
                Ok(created) => break created,
                // Somebody else asked for the same in this second.
                Err(error) if client::is_already_exists(&error) && second < SECONDS => {
                    second += 1;
                    let later = how.requested + SignedDuration::from_secs(second);
                    job = plan(&args, how, later, &installation, location.as_ref())?;
                }
                Err(error) => {
                    let doing = format!("creating {}", job.reference());
                    return Err(client::failure(&error, &doing));
                }
            }
        };
        manifest::print(std::slice::from_ref(&job), how.output, "");
        Ok(Created {
            args,
            job,
            uid: created.metadata.uid.unwrap_or_default(),
        })
    }
}

/// What an operation does, and to what, in words.
fn described(command: &Command) -> (&'static str, String) {
    let backups = |names: &[String]| match names {
        [name] => format!("of backup {name}"),
        names => format!("of {} backups", names.len()),
    };
    match command {
        Command::Delete(DeleteArgs { names, .. }) => ("deletion", backups(names)),
        Command::Undelete(UndeleteArgs { names, .. }) => ("undeletion", backups(names)),
        Command::DeleteRestore(DeleteRestoreArgs { names, .. }) => (
            "deletion",
            match &names[..] {
                [name] => format!("of restore {name}"),
                names => format!("of {} restores", names.len()),
            },
        ),
        Command::Expire(_) => ("expiry", place(command)),
        _ => ("sync", place(command)),
    }
}

fn place(command: &Command) -> String {
    match &command.storage().location {
        Some(name) => format!("of location {name}"),
        None => "of storage".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ark_job::args::{StorageFlags, SyncArgs};

    fn delete(names: &[&str]) -> Command {
        Command::Delete(DeleteArgs {
            names: names.iter().map(ToString::to_string).collect(),
            storage: StorageFlags {
                location: Some("default".into()),
                storage: None,
            },
        })
    }

    #[test]
    fn a_job_has_a_name_of_its_own_each_second() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let first = at("2026-11-23T20:15:01Z");
        assert_eq!(job_name(&delete(&["a"]), first), "delete-a-20261123201501");
        assert_eq!(
            job_name(&delete(&["a", "b"]), first),
            "delete-default-20261123201501"
        );
        let sync = Command::Sync(SyncArgs {
            storage: StorageFlags {
                location: None,
                storage: Some("s3://b".into()),
            },
            force: false,
            exit: Default::default(),
        });
        assert_eq!(job_name(&sync, first), "sync-storage-20261123201501");
        let long = "x".repeat(200);
        let (one, other) = (
            job_name(&delete(&[&long]), first),
            job_name(&delete(&[&long]), at("2026-11-23T20:15:02Z")),
        );
        assert!(one.len() <= 63);
        assert_ne!(one, other);
    }

    #[test]
    fn the_first_failure_is_that_of_all() {
        let mut ends = Ends::default();
        ends.add(Ok(Exit::Done));
        ends.add(Err(Failure::new(Exit::NotFound, "a")));
        ends.add(Err(Failure::new(Exit::Refused, "b")));
        ends.add(Ok(Exit::Interrupted));
        assert_eq!(ends.result().unwrap_err().exit(), Exit::NotFound);
        let mut well = Ends::default();
        well.add(Ok(Exit::Done));
        assert_eq!(well.result().unwrap(), Exit::Done);
    }
}
