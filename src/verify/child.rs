//! The child process that decodes files: `martd decode DEPTH COUNT PARENT`, a hidden subcommand.
//!
//! It inherits the files as descriptors from [`FIRST_FD`] on, decodes them in order, and writes a
//! line of JSON for each to its standard output as soon as it knows. Then it goes on with those that
//! its standard input, a socket, brings, and says [`TAKEN`] before it begins with one; until there
//! are no more. It takes every right from itself before it looks at the first byte: no writes, no
//! network, bounded memory and processor time; and it dies with its parent.

use std::ffi::OsString;
use std::io::{self, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::process::{Resource, Rlimit, Signal};
use serde::{Deserialize, Serialize};

use super::{Report, Verdict};
use crate::engine::{Decoder, read_legacy};
use crate::sandbox;

/// The hidden subcommand's name.
pub const SUBCOMMAND: &str = "decode";
/// The one that reads a legacy file.
pub const LEGACY_SUBCOMMAND: &str = "decode-legacy";

/// The descriptor of the first file; those of the others follow.
pub const FIRST_FD: i32 = 3;
/// The line before that of a file which was not inherited.
pub(super) const TAKEN: &str = "taken";

/// Memory for data, enough for the widest row group that is reasonable.
const DATA_BYTES: u64 = 4 << 30;
/// Processor time for one run. The parent's own deadline is shorter; this one holds without it.
const CPU_SECONDS: u64 = 300;
/// Half way to the lowest priority there is.
const NICENESS: i32 = 10;

/// `MARTD_VERIFY`: how much of a file is decoded before it is served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Depth {
    /// Every value.
    #[default]
    Full,
    /// The footer and its schema; a damaged page shows when a query meets it.
    Footer,
}

impl Depth {
    pub(super) fn argument(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Footer => "footer",
        }
    }
}

/// One line of the child's answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Found {
    Report(Report),
    Rejected(String),
}

impl From<Found> for Verdict {
    fn from(found: Found) -> Self {
        match found {
            Found::Report(report) => Ok(report),
            Found::Rejected(reason) => Err(reason),
        }
    }
}

/// Runs the child: decodes `count` inherited files and reports them on standard output to `parent`,
/// the process that started it.
pub fn main(depth: Depth, count: usize, parent: u32) -> ExitCode {
    if let Err(error) = give_up_rights(parent) {
        eprintln!("martd {SUBCOMMAND}: {error}");
        return ExitCode::FAILURE;
    }
    let decoder = match Decoder::new() {
        Ok(decoder) => decoder,
        Err(error) => {
            eprintln!("martd {SUBCOMMAND}: {error}");
            return ExitCode::FAILURE;
        }
    };
    // Not before: it takes 40 ms to get here, and on a machine that is busy it would take seconds.
    give_way();
    // DuckDB may remember a file by its path, so no two files have the same.
    let mut fd = FIRST_FD;
    let last = FIRST_FD.saturating_add_unsigned(u32::try_from(count).unwrap_or(u32::MAX));
    let answered = (|| {
        while fd < last {
            say(&found(&decoder, fd, depth))?;
            fd += 1;
        }
        while let Some(file) = receive()? {
            let file = rustix::io::fcntl_dupfd_cloexec(file, fd)?;
            fd = file.as_raw_fd() + 1;
            say(&TAKEN)?;
            say(&found(&decoder, file.as_raw_fd(), depth))?;
        }
        io::Result::Ok(())
    })();
    match answered {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE, // the parent is gone
    }
}

fn found(decoder: &Decoder, fd: RawFd, depth: Depth) -> Found {
    match decoder.decode(&format!("/proc/self/fd/{fd}"), depth == Depth::Full) {
        Ok(report) => Found::Report(report),
        Err(reason) => Found::Rejected(reason),
    }
}

fn say(line: &impl Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(line).expect("a report is JSON"))?;
    out.flush()
}

/// The next file that standard input brings.
fn receive() -> io::Result<Option<OwnedFd>> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut byte)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    rustix::net::recvmsg(io::stdin(), &mut parts, &mut control, flags)?;
    Ok(control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    }))
}

/// What `decode-legacy` is told.
#[derive(Debug, Args)]
pub struct LegacyArgs {
    depth: Depth,
    /// Where the file is; a copy is an inherited descriptor.
    path: PathBuf,
    /// The name to attach it under.
    catalog: String,
    parent: u32,
    /// The schemas whose tables are served.
    schemas: Vec<String>,
}

impl LegacyArgs {
    pub(super) fn to_words(
        depth: Depth,
        path: &Path,
        catalog: &str,
        schemas: &[String],
    ) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec![LEGACY_SUBCOMMAND.into(), depth.argument().into()];
        words.extend([path.into(), catalog.into(), std::process::id().to_string().into()]);
        words.push("--".into());
        words.extend(schemas.iter().map(OsString::from));
        words
    }
}

/// Runs the child that reads a legacy file: one line of JSON on standard output, with its tables or
/// the reason why it cannot be served.
pub fn main_legacy(args: &LegacyArgs) -> ExitCode {
    if let Err(error) = give_up_rights(args.parent) {
        eprintln!("martd {LEGACY_SUBCOMMAND}: {error}");
        return ExitCode::FAILURE;
    }
    give_way();
    let every_value = args.depth == Depth::Full;
    let found = read_legacy(&args.path, &args.catalog, &args.schemas, every_value);
    println!("{}", serde_json::to_string(&found).expect("a report is JSON"));
    ExitCode::SUCCESS
}

/// Lets queries go first. Where that is not allowed, decoding goes on as it is.
fn give_way() {
    let _ = rustix::process::nice(NICENESS);
}

fn give_up_rights(parent: u32) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // Of a death before that, nobody tells: asking for the parent's id now would give its heir's.
    if std::os::unix::process::parent_id() != parent {
        return Err(io::Error::other("the parent is gone"));
    }
    for (resource, most) in [
        (Resource::Core, 0),
        (Resource::Fsize, 0),
        (Resource::Data, DATA_BYTES),
        (Resource::Cpu, CPU_SECONDS),
    ] {
        let inherited = rustix::process::getrlimit(resource).maximum;
        let limit = Some(inherited.map_or(most, |inherited| inherited.min(most)));
        rustix::process::setrlimit(resource, Rlimit { current: limit, maximum: limit })?;
    }
    sandbox::forbid_all_but_reading().map_err(io::Error::other)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::fs::symlink;

    const DIR: &str = "MARTD_TEST_DIR_OF_CHILD";

    /// Starts itself as another process, which gives up its rights and tries to use them.
    #[test]
    fn a_child_cannot_write_connect_or_signal() {
        if let Some(dir) = std::env::var_os(DIR) {
            return try_everything(dir.as_ref());
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::write(dir.path().join("there"), "untouched").expect("write");
        let child = std::process::Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "verify::child::tests::a_child_cannot_write_connect_or_signal"])
            .env(DIR, dir.path())
            .output()
            .expect("a child");
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
        let names = fs::read_dir(dir.path()).expect("readable").count();
        assert_eq!(names, 1, "the child made something");
        assert_eq!(fs::read(dir.path().join("there")).expect("readable"), b"untouched");
    }

    fn try_everything(dir: &std::path::Path) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("still allowed");
        let address = listener.local_addr().expect("bound");
        let parent = rustix::process::getppid().expect("a parent");
        give_up_rights(std::os::unix::process::parent_id()).expect("rights can be given up");

        let there = dir.join("there");
        assert!(fs::read(&there).is_ok(), "reading is what it is for");
        let refused = [
            ("create", fs::write(dir.join("new"), "x").err()),
            ("open for writing", fs::OpenOptions::new().write(true).open(&there).err()),
            ("truncate", fs::File::create(&there).err()),
            ("remove", fs::remove_file(&there).err()),
            ("rename", fs::rename(&there, dir.join("other")).err()),
            ("link", symlink("there", dir.join("link")).err()),
            ("mkdir", fs::create_dir(dir.join("dir")).err()),
            ("connect", TcpStream::connect(address).err()),
            ("bind", TcpListener::bind("127.0.0.1:0").err()),
            (
                "signal",
                rustix::process::kill_process(parent, Signal::CONT).map_err(io::Error::from).err(),
            ),
        ];
        for (attempt, error) in refused {
            let error = error.unwrap_or_else(|| panic!("the child could {attempt}"));
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{attempt}");
        }
        let limit = |resource| rustix::process::getrlimit(resource).maximum;
        assert_eq!(limit(Resource::Fsize), Some(0));
        assert_eq!(limit(Resource::Core), Some(0));
        assert_eq!(limit(Resource::Data), Some(DATA_BYTES));
        assert_eq!(limit(Resource::Cpu), Some(CPU_SECONDS));
    }
}
