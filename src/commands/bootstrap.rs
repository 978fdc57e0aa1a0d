//! `martd bootstrap`: creates the directories of a deployment, and says what is missing where it
//! may not.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use rustix::fs::{Access, AtFlags, CWD};

use super::table::{Cell, TextTable, Tone, colours};
use super::{CommandError, print};
use crate::mart_dir::MartDir;

/// What `bootstrap` needs.
#[derive(Debug, Args)]
pub struct BootstrapArgs {
    /// Its subdirectory `mart` is created
    #[arg(long, env = "PARQUET_DIR", value_name = "DIR", default_value = "data/parquet")]
    parquet_dir: PathBuf,

    /// The DuckDB file of the migration period, whose folder is created
    #[arg(long, env = "DUCKDB_PATH", value_name = "FILE")]
    duckdb_path: Option<PathBuf>,
}

pub(super) fn run(args: &BootstrapArgs) -> Result<ExitCode, CommandError> {
    let dir = MartDir::new(&*args.parquet_dir);
    if let Some(advice) = dir.advice() {
        return Err(advice.into());
    }
    let mut directories = vec![dir.path().to_owned()];
    let folder = args.duckdb_path.as_deref().and_then(Path::parent);
    directories.extend(folder.filter(|folder| !folder.as_os_str().is_empty()).map(Path::to_owned));
    let mut table = TextTable::new(["directory", "", "owner", "mode", "this user may"], &[]);
    let mut problems = Vec::new();
    for directory in &directories {
        let outcome = create(directory);
        let [state, owner, mode, may_do] = match (&outcome, fs::metadata(directory)) {
            (Ok(created), Ok(metadata)) => [
                Cell::new(if *created { "created" } else { "there" }, Tone::Good),
                format!("{}:{}", metadata.uid(), metadata.gid()).into(),
                format!("{:04o}", metadata.mode() & 0o7777).into(),
                rights(directory).into(),
            ],
            _ => [Cell::new("missing", Tone::Bad), "-".into(), "-".into(), "-".into()],
        };
        table.row(vec![directory.display().into(), state, owner, mode, may_do]);
        match outcome {
            Err(error) => problems.push(advice(directory, &error)),
            Ok(_) if !may(directory, Access::READ_OK | Access::EXEC_OK) => {
                problems.push(unreadable(directory));
            }
            Ok(_) => {}
        }
    }
    print(&table.render(colours()));
    if problems.is_empty() {
        print("martd reads these directories; dbt must be able to write to them.\n");
        return Ok(ExitCode::SUCCESS);
    }
    Err(problems.join("\nmartd: ").into())
}

/// Whether it was not there before.
fn create(directory: &Path) -> io::Result<bool> {
    if directory.is_dir() {
        return Ok(false);
    }
    fs::create_dir_all(directory).map(|()| true)
}

fn may(path: &Path, access: Access) -> bool {
    rustix::fs::accessat(CWD, path, access, AtFlags::EACCESS).is_ok()
}

fn rights(directory: &Path) -> &'static str {
    match (
        may(directory, Access::READ_OK | Access::EXEC_OK),
        may(directory, Access::WRITE_OK | Access::EXEC_OK),
    ) {
        (true, true) => "read and write",
        (true, false) => "read",
        (false, true) => "write",
        (false, false) => "neither read nor write",
    }
}

/// What keeps a directory from being created, and the command that would help.
fn advice(directory: &Path, error: &io::Error) -> String {
    let (uid, gid) = user();
    // An absolute path has an ancestor that is there; so has a relative one, where it stands.
    let nearest = directory.ancestors().find(|path| path.symlink_metadata().is_ok());
    let nearest = nearest.unwrap_or(Path::new("."));
    let shown = directory.display();
    let Ok(metadata) = fs::metadata(nearest) else {
        return format!("{shown} cannot be created: {} is a link to nothing", nearest.display());
    };
    let what = match error.kind() {
        io::ErrorKind::PermissionDenied => format!(
            "{} belongs to {}:{} with mode {:04o}, and this user is {uid}:{gid}; as its owner or root, run: \
             install -d -o {uid} -g {gid} {shown}",
            nearest.display(),
            metadata.uid(),
            metadata.gid(),
            metadata.mode() & 0o7777,
        ),
        io::ErrorKind::ReadOnlyFilesystem => format!(
            "{} is mounted read-only here; create it where it is writable, on the host or in dbt's \
             container",
            nearest.display(),
        ),
        _ if !metadata.is_dir() => {
            format!("{} is there already and no directory; move it away", nearest.display())
        }
        _ => error.to_string(),
    };
    format!("{shown} cannot be created: {what}")
}

fn unreadable(directory: &Path) -> String {
    let (uid, gid) = user();
    format!(
        "{shown} cannot be read by this user ({uid}:{gid}); as its owner or root, run: chmod o+rx \
         {shown}, or give it to a group that both are in",
        shown = directory.display()
    )
}

fn user() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}
