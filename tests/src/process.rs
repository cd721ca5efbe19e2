//! Child processes that do not outlive what they were started for.
//!
//! A [`Run`] owns a directory, the processes started in it, and control groups. It is written down before anything of
//! it exists, so that every way to end is covered:
//!
//! - dropped, returned from, panicked: [`Run`]'s `Drop` ends it;
//! - Ctrl-C and SIGTERM: a signal handler ends every run of this process;
//! - `kill -9`: the kernel kills the children (Linux), and the next run of anyone sweeps what is left of runs whose
//!   owner no longer lives, and only of those.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde::{Deserialize, Serialize};

use crate::{background, cache};

/// In the environment of every child: finds the ones that were not written down yet when the owner was killed.
const MARKER: &str = "ARK_TEST_RUN";

/// A process id and when the process started: the pair is never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pid: u32,
    started: u64,
}

impl Identity {
    /// The living process of that id.
    pub fn of(process_id: u32) -> Option<Self> {
        let started = start_time(process_id)?;
        Some(Identity {
            pid: process_id,
            started,
        })
    }

    /// Its process id.
    pub fn id(self) -> u32 {
        self.pid
    }

    /// Whether it still lives; a zombie does not.
    pub fn lives(self) -> bool {
        start_time(self.pid) == Some(self.started)
    }
}

/// What a run has on this machine, as written to `record.json` in its directory.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    id: String,
    owner: Identity,
    processes: Vec<Identity>,
    control_groups: Vec<PathBuf>,
    /// What a program insists on making outside the directory (sockets under /tmp).
    strays: Vec<PathBuf>,
}

/// Something that was started for the tests: a directory, processes, control groups. Ends when dropped.
pub struct Run {
    id: String,
    directory: PathBuf,
    record: Arc<Mutex<Record>>,
}

type Live = BTreeMap<String, (PathBuf, Arc<Mutex<Record>>)>;

/// The runs of this process that have not ended, for the signal handler and [`end_all`].
static LIVE: Mutex<Live> = Mutex::new(BTreeMap::new());

impl Run {
    /// Sweeps what dead runs left, then makes a new one with an empty directory.
    pub fn start() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        end_on_signals();
        // Between making the directory and writing the record, a sweep elsewhere would take the run for a dead one.
        let _lock = cache::lock("runs")?;
        sweep_dead_runs()?;
        let pid = std::process::id();
        let id = format!("{pid}-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let directory = runs_directory().join(&id);
        fs::create_dir_all(&directory)
            .with_context(|| format!("creating {}", directory.display()))?;
        let owner = Identity {
            pid,
            started: start_time(pid).context("reading this process's start time")?,
        };
        let record = Record {
            id: id.clone(),
            owner,
            processes: Vec::new(),
            control_groups: Vec::new(),
            strays: Vec::new(),
        };
        write_record(&directory, &record)?;
        let record = Arc::new(Mutex::new(record));
        LIVE.lock()
            .expect(POISON)
            .insert(id.clone(), (directory.clone(), record.clone()));
        Ok(Run {
            id,
            directory,
            record,
        })
    }

    /// A name that no other living run on this machine has.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The directory that is removed with the run.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Starts a [`bound`] command; its output goes to `NAME.log` in the directory.
    pub fn spawn(&self, name: &str, mut command: Command) -> Result<Process> {
        let log = self.directory.join(format!("{name}.log"));
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("opening {}", log.display()))?;
        command
            .env(MARKER, &self.id)
            .stdin(Stdio::null())
            .stderr(output.try_clone()?)
            .stdout(output);
        let child = spawn(command).with_context(|| format!("starting {name}"))?;
        let pid = child.id();
        if let Some(started) = start_time(pid) {
            let mut record = self.record.lock().expect(POISON);
            record.processes.push(Identity { pid, started });
            write_record(&self.directory, &record)?;
        }
        Ok(Process {
            name: name.into(),
            log,
            child: Mutex::new(child),
        })
    }

    /// Files that a program will make outside the directory, to be removed with the run.
    pub fn expect_strays(&self, paths: impl IntoIterator<Item = PathBuf>) -> Result<()> {
        let mut record = self.record.lock().expect(POISON);
        record.strays.extend(paths);
        write_record(&self.directory, &record)
    }

    /// Makes a control group of that name in every hierarchy; it is removed with the run.
    #[cfg(target_os = "linux")]
    pub fn create_control_group(&self, name: &str) -> Result<()> {
        let mounts =
            fs::read_to_string("/proc/self/mounts").context("reading /proc/self/mounts")?;
        let groups: Vec<PathBuf> = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .filter(|fields| fields.len() > 2 && matches!(fields[2], "cgroup" | "cgroup2"))
            .map(|fields| Path::new(fields[1]).join(name))
            .collect();
        {
            let mut record = self.record.lock().expect(POISON);
            record.control_groups.extend(groups.iter().cloned());
            write_record(&self.directory, &record)?;
        }
        for group in groups {
            fs::create_dir_all(&group)
                .with_context(|| format!("creating control group {}", group.display()))?;
        }
        Ok(())
    }
}

impl Run {
    /// The control groups of this run, one in each hierarchy.
    #[cfg(target_os = "linux")]
    pub fn control_groups(&self) -> Vec<PathBuf> {
        self.record.lock().expect(POISON).control_groups.clone()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let ended = end(&self.directory, &self.record.lock().expect(POISON));
        LIVE.lock().expect(POISON).remove(&self.id);
        if let Err(error) = ended {
            eprintln!("warning: ending run {}: {error:#}", self.id);
        }
    }
}

/// A child process; dropped, it is killed.
pub struct Process {
    name: String,
    log: PathBuf,
    child: Mutex<Child>,
}

impl Process {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.lock().expect(POISON).id()
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// An error with the end of its log when it has ended.
    pub fn check(&self) -> Result<()> {
        match self.child.lock().expect(POISON).try_wait()? {
            None => Ok(()),
            Some(status) => bail!(
                "{} ended ({status}); its log {} ends with:\n{}",
                self.name,
                self.log.display(),
                self.log_tail()
            ),
        }
    }

    /// Its exit status once it has ended.
    pub fn try_wait(&self) -> Result<Option<ExitStatus>> {
        Ok(self.child.lock().expect(POISON).try_wait()?)
    }

    /// SIGSTOP: it exists and answers nothing.
    pub fn suspend(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT, after [`Process::suspend`].
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&self) -> Result<()> {
        let mut child = self.child.lock().expect(POISON);
        child
            .kill()
            .with_context(|| format!("killing {}", self.name))?;
        child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits until it is gone; SIGKILL after the time-out.
    pub fn stop(&self, timeout: Duration) -> Result<()> {
        self.signal(Signal::TERM)?;
        let deadline = Instant::now() + timeout;
        while self.try_wait()?.is_none() {
            if Instant::now() > deadline {
                return self.kill();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        // While the lock is held and the child is not reaped, its id cannot belong to another process.
        let mut child = self.child.lock().expect(POISON);
        if child.try_wait()?.is_some() {
            bail!("{} has ended", self.name);
        }
        kill_process(pid(child.id())?, signal).with_context(|| format!("signalling {}", self.name))
    }

    fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text[text.len().saturating_sub(3000)..]).into_owned();
        text.lines()
            .rev()
            .take(12)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect::<Vec<_>>()
            .join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ended already is as good.
        let _ = self.kill();
    }
}

/// A command whose process the kernel kills when this process dies (Linux only); start it with [`spawn`].
///
/// It gets a process group of its own, so that Ctrl-C reaches only us and we end things in order.
pub fn bound(program: impl AsRef<OsStr>) -> Command {
    let mut command = if cfg!(target_os = "linux") {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.process_group(0);
    command
}

/// Starts a [`bound`] command.
///
/// The kernel counts the death of the *thread* that forked as the parent's: so one thread, which never ends, forks all.
pub fn spawn(command: Command) -> Result<Child> {
    type Request = (Command, mpsc::Sender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Request>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, requests) = mpsc::channel::<Request>();
        std::thread::Builder::new()
            .name("spawner".into())
            .spawn(move || {
                for (mut command, reply) in requests {
                    let _ = reply.send(command.spawn());
                }
            })
            .expect("a thread can be started");
        Mutex::new(sender)
    });
    let (reply, answer) = mpsc::channel();
    spawner
        .lock()
        .expect(POISON)
        .send((command, reply))
        .map_err(|_| anyhow!("the spawner thread is gone"))?;
    Ok(answer.recv().context("the spawner thread is gone")??)
}

/// Runs a command to its end and gives its standard output; a failure carries the command and its standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("running {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Sends a signal to any process, as when a fault rule kills a job. No such process is not an error.
pub fn signal(process_id: u32, signal: Signal) -> Result<()> {
    match kill_process(pid(process_id)?, signal) {
        Err(rustix::io::Errno::SRCH) | Ok(()) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("signalling process {process_id}")),
    }
}

/// SIGKILL to any process, and waits until it is dead (it may stay as a zombie: its parent reaps it).
pub fn kill_and_wait(process_id: u32) -> Result<()> {
    signal(process_id, Signal::KILL)?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while start_time(process_id).is_some() {
        if Instant::now() > deadline {
            bail!("process {process_id} does not die");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Ends every run of this process: for the end of `main`, as statics are never dropped.
pub fn end_all() {
    // Taken out first, and ended without the lock, so that a Drop at the same time does not wait for ever.
    let live = std::mem::take(&mut *LIVE.lock().expect(POISON));
    for (id, (directory, record)) in live.into_iter().rev() {
        if let Err(error) = end(&directory, &record.lock().expect(POISON)) {
            eprintln!("warning: ending run {id}: {error:#}");
        }
    }
}

/// The ids of the runs that are written down, with whether their owner lives.
pub fn runs() -> Result<Vec<(String, bool)>> {
    let mut runs = Vec::new();
    for (_, record) in read_records()? {
        runs.push((record.id.clone(), record.owner.lives()));
    }
    Ok(runs)
}

const POISON: &str = "no thread panics while it holds this lock";

fn runs_directory() -> PathBuf {
    cache::directory().join("runs")
}

fn end_on_signals() {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        background::spawn(async {
            use tokio::signal::unix::{SignalKind, signal};
            let (Ok(mut interrupt), Ok(mut terminate)) = (
                signal(SignalKind::interrupt()),
                signal(SignalKind::terminate()),
            ) else {
                return;
            };
            let code = tokio::select! {
                _ = interrupt.recv() => 130,
                _ = terminate.recv() => 143,
            };
            end_all();
            std::process::exit(code);
        });
    });
}

fn write_record(directory: &Path, record: &Record) -> Result<()> {
    let path = directory.join("record.json");
    let temporary = directory.join("record.json.new");
    fs::write(&temporary, serde_json::to_vec_pretty(record)?)
        .with_context(|| format!("writing {}", temporary.display()))?;
    fs::rename(&temporary, &path).with_context(|| format!("writing {}", path.display()))
}

fn read_records() -> Result<Vec<(PathBuf, Record)>> {
    let entries = match fs::read_dir(runs_directory()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context("reading the directory of runs"),
    };
    let mut records = Vec::new();
    for entry in entries {
        let directory = entry?.path();
        // Without a record the owner died between two system calls: nothing but the empty directory exists.
        let record = fs::read(directory.join("record.json"))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let nobody = Identity { pid: 0, started: 0 };
        let id = directory
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let record = record.unwrap_or(Record {
            id,
            owner: nobody,
            processes: Vec::new(),
            control_groups: Vec::new(),
            strays: Vec::new(),
        });
        records.push((directory, record));
    }
    Ok(records)
}

fn sweep_dead_runs() -> Result<()> {
    for (directory, record) in read_records()? {
        if !record.owner.lives() {
            end(&directory, &record)
                .with_context(|| format!("sweeping what run {} left", record.id))?;
        }
    }
    Ok(())
}

/// Ends a run from its record alone, so that the owner and a later sweeper do the same.
fn end(directory: &Path, record: &Record) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    // More than once: a process may fork while we look.
    loop {
        let remaining = processes_of(record);
        if remaining.is_empty() {
            break;
        }
        if Instant::now() > deadline {
            bail!("processes {remaining:?} do not die");
        }
        for process_id in remaining {
            signal(process_id, Signal::KILL)?;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    for identity in &record.processes {
        // Our own children stay as zombies when their handle is never dropped (a static): nobody else may reap them.
        let _ = pid(identity.pid).map(|pid| waitpid(Some(pid), WaitOptions::NOHANG));
    }
    for group in &record.control_groups {
        remove_control_group(group, deadline)?;
    }
    for path in &record.strays {
        // Most were removed by the program that made them.
        let _ = fs::remove_file(path);
    }
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", directory.display()))
        }
        _ => Ok(()),
    }
}

/// The living processes of a run: those written down, those that carry its marker, those in its control groups.
fn processes_of(record: &Record) -> Vec<u32> {
    let mut found: Vec<u32> = record
        .processes
        .iter()
        .filter(|identity| identity.lives())
        .map(|identity| identity.pid)
        .collect();
    #[cfg(target_os = "linux")]
    {
        let marker = format!("{MARKER}={}", record.id);
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(process_id) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<u32>().ok())
            else {
                continue;
            };
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            if environment
                .split(|byte| *byte == 0)
                .any(|variable| variable == marker.as_bytes())
                && start_time(process_id).is_some()
            {
                found.push(process_id);
            }
        }
        for group in &record.control_groups {
            found.extend(
                processes_in_control_group(group)
                    .into_iter()
                    .filter(|pid| start_time(*pid).is_some()),
            );
        }
        found.retain(|process_id| *process_id != std::process::id());
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// All process ids in a control group and those below it.
#[cfg(target_os = "linux")]
pub fn processes_in_control_group(group: &Path) -> Vec<u32> {
    let mut found: Vec<u32> = fs::read_to_string(group.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.parse().ok())
        .filter(|pid| *pid != 0)
        .collect();
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(processes_in_control_group(&entry.path()));
        }
    }
    found
}

fn remove_control_group(group: &Path, deadline: Instant) -> Result<()> {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_control_group(&entry.path(), deadline)?;
        }
    }
    loop {
        match fs::remove_dir(group) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            // Busy until the kernel has let go of the processes that have just died.
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("removing control group {}", group.display()));
            }
        }
    }
}

/// When the process started (clock ticks since boot); none when there is no such process, or only its zombie.
#[cfg(target_os = "linux")]
fn start_time(process_id: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process_id}/stat")).ok()?;
    // The name in parentheses may hold anything: the fields are counted from the last one.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    if matches!(*fields.first()?, "Z" | "X") {
        return None;
    }
    fields.get(19)?.parse().ok()
}

/// A number made of when the process started; none when there is no such process, or only its zombie.
#[cfg(not(target_os = "linux"))]
fn start_time(process_id: u32) -> Option<u64> {
    let text =
        output(Command::new("ps").args(["-o", "stat=,lstart=", "-p", &process_id.to_string()]))
            .ok()?;
    let (state, started) = text.trim().split_once(' ')?;
    (!state.starts_with('Z'))
        .then(|| u64::from_str_radix(&cache::hash(&[started.trim().as_bytes()]), 16).ok())?
}

fn pid(process_id: u32) -> Result<Pid> {
    i32::try_from(process_id)
        .ok()
        .and_then(Pid::from_raw)
        .with_context(|| format!("{process_id} is not a process id"))
}
