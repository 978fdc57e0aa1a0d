//! The builder's side: `martd build SCRATCH`, a hidden subcommand.
//!
//! Its standard input is a socket, over which it gets files and places as descriptors. Before it looks
//! at the first byte it takes every right from itself but to its scratch folder and to what came with
//! the first request: so a file that is not in memory, or a table on disk, needs a builder that is
//! started for it. One thread listens, and at the end of the socket, which is also the end of a
//! front that was killed, removes the scratch folder and ends the process whatever DuckDB is at.
//!
//! It asks for no signal at its parent's death: that would come before the folder is removed.

use std::fs;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use rustix::process::{Resource, Rlimit, Signal};
use rustix::time::ClockId;

use super::messages::{Allowance, BuildRequest, BuildResponse, ReadFailure};
use super::source::ParquetSource;
use crate::ipc;
use crate::sandbox;
use crate::spawner;

/// The hidden subcommand's name.
pub const SUBCOMMAND: &str = "build";

/// Memory for data, enough for the widest row group that is reasonable.
const DATA_BYTES: u64 = 4 << 30;
/// Half way to the lowest priority there is.
const NICENESS: i32 = 10;
/// The kernel ends a builder rather than the front or an engine.
const OOM_SCORE: &str = "900";
/// DuckDB's types and expressions nest by recursion.
const STACK_BYTES: usize = 16 << 20;
/// More than a builder ever has otherwise: the files' descriptors are numbered from here on.
const FIRST_FILE: i32 = 64;

type BuildMessage = (BuildRequest, Vec<OwnedFd>);

/// Runs a builder until its socket, which is standard input, ends. `scratch` is its folder.
pub fn main(scratch: &Path) -> ExitCode {
    // The working directory changes.
    let scratch = &match std::path::absolute(scratch) {
        Ok(scratch) => scratch,
        Err(error) => return complain(&error),
    };
    let socket = match io::stdin().as_fd().try_clone_to_owned() {
        Ok(fd) => UnixStream::from(fd),
        Err(error) => return complain(&error),
    };
    let made = fs::DirBuilder::new().mode(0o700).create(scratch);
    if let Err(error) = spawner::leave_signals_to_the_front().and(made) {
        return complain(&error);
    }
    // Before anything is given up: DuckDB looks for the limits of its cgroup when it is opened, and
    // does not bear that they cannot be read. With one thread it starts no other.
    let mut source = ParquetSource::open(scratch.to_owned());
    let first = match ipc::receive::<BuildRequest>(&socket) {
        Ok(Some(first)) => first,
        Ok(None) => return leave(scratch),
        Err(error) => return complain(&error),
    };
    if let Err(error) = give_up_rights(scratch, &first) {
        return complain(&error);
    }
    let (requests, inbox) = mpsc::channel::<BuildMessage>();
    let answers = socket.try_clone();
    let work = move || {
        // Whatever ends this thread ends the process.
        let answers = CloseOnDrop(answers?);
        work(&mut source, &answers.0, &inbox)
    };
    let started = thread::Builder::new().name("build".to_owned()).stack_size(STACK_BYTES);
    if let Err(error) = started.spawn(work) {
        return complain(&error);
    }
    let mut next = Some(first);
    while let Some(message) = next {
        if requests.send(message).is_err() {
            break;
        }
        next = ipc::receive(&socket).unwrap_or_default();
    }
    leave(scratch)
}

struct CloseOnDrop(UnixStream);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// Answers requests in turn.
fn work(
    source: &mut Result<ParquetSource, ReadFailure>,
    socket: &UnixStream,
    inbox: &Receiver<BuildMessage>,
) -> io::Result<()> {
    // Not before: it takes 30 ms to get here, and on a machine that is busy it would take seconds.
    let _ = rustix::process::nice(NICENESS);
    let mut number = FIRST_FILE;
    for (request, descriptors) in inbox {
        let mut files = Vec::with_capacity(descriptors.len());
        for file in descriptors {
            let file = rustix::io::fcntl_dupfd_cloexec(file, number)?;
            number = file.as_raw_fd() + 1;
            files.push(file);
        }
        let response = match source {
            Ok(source) => answer(source, request, files),
            Err(failure) => BuildResponse::Failed(failure.clone()),
        };
        ipc::send(socket, &response, &[])?;
    }
    Ok(())
}

fn answer(
    source: &mut ParquetSource,
    request: BuildRequest,
    mut files: Vec<OwnedFd>,
) -> BuildResponse {
    let built = match request {
        BuildRequest::Parquet { parts, block, allowance } => {
            allow(allowance).and_then(|()| match files.pop() {
                Some(draft) if files.len() == parts.len().max(1) => {
                    Ok(source.parquet(&files, &parts, draft, block))
                }
                _ => Err(io::ErrorKind::InvalidInput.into()),
            })
        }
        BuildRequest::Attach { catalog, schemas, path, logs, allowance } => {
            let listed = allow(allowance)
                .map_err(|error| ReadFailure::resources(&error))
                .and_then(|()| source.attach(&catalog, &schemas, path.as_deref(), &logs, files));
            return listed.map_or_else(BuildResponse::Failed, BuildResponse::Listed);
        }
        BuildRequest::Export { block, schema, name, allowance } => {
            allow(allowance).and_then(|()| match files.pop() {
                Some(draft) => Ok(source.export(&schema, &name, draft, block)),
                None => Err(io::ErrorKind::InvalidInput.into()),
            })
        }
    };
    match built {
        Ok(Ok(report)) => BuildResponse::Built(report),
        Ok(Err(failure)) => BuildResponse::Failed(failure),
        Err(error) => BuildResponse::Failed(ReadFailure::resources(&error)),
    }
}

/// Sets what this request may take. The front has its own, shorter deadline; this one holds without it.
fn allow(allowance: Allowance) -> io::Result<()> {
    let used = rustix::time::clock_gettime(ClockId::ProcessCPUTime).tv_sec.unsigned_abs();
    for (resource, most) in
        [(Resource::Cpu, used + allowance.cpu_seconds), (Resource::Fsize, allowance.table_bytes)]
    {
        let maximum = rustix::process::getrlimit(resource).maximum;
        let most = maximum.map_or(most, |maximum| maximum.min(most));
        let current = (most < i64::MAX.unsigned_abs()).then_some(most);
        rustix::process::setrlimit(resource, Rlimit { current, maximum })?;
    }
    Ok(())
}

fn give_up_rights(scratch: &Path, (request, files): &BuildMessage) -> io::Result<()> {
    // Where that is not allowed, the kernel chooses by itself.
    let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    // A write beyond the limit is then an error of DuckDB's, and not this process's end.
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    for (resource, most) in [(Resource::Core, 0), (Resource::Data, DATA_BYTES)] {
        let inherited = rustix::process::getrlimit(resource).maximum;
        let limit = Some(inherited.map_or(most, |inherited| inherited.min(most)));
        rustix::process::setrlimit(resource, Rlimit { current: limit, maximum: limit })?;
    }
    let path = match request {
        BuildRequest::Attach { path, .. } => path.as_deref(),
        _ => None,
    };
    sandbox::confine_builder(scratch, files.iter().map(AsFd::as_fd), path)
        .map_err(io::Error::other)?;
    Ok(())
}

/// Removes what is left in the file system, and ends without another word: DuckDB may be at work.
fn leave(scratch: &Path) -> ExitCode {
    // DuckDB may make a log while this goes on, but not in a folder that is gone.
    while let Err(error) = fs::remove_dir_all(scratch)
        && error.kind() == io::ErrorKind::DirectoryNotEmpty
    {}
    let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
    ExitCode::SUCCESS
}

fn complain(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("martd {SUBCOMMAND}: {error}");
    ExitCode::FAILURE
}
