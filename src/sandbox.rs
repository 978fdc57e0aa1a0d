//! The rights that the process gives up before it serves anyone: the last layer, which holds even if
//! a statement got around all others.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use rustix::fs::OFlags;
use rustix::process::{Resource, Rlimit};

/// The newest Landlock that martd knows. An older kernel enforces what it can.
const NEWEST: ABI = ABI::V6;

/// Takes the right to write anywhere but in `writable` from this thread and all that it starts, and
/// that to remove files anywhere but there and in `cleared`.
/// Returns how much of that the kernel enforces.
///
/// # Errors
/// When the kernel refuses the rules.
pub fn forbid_writes<'p>(
    writable: impl IntoIterator<Item = &'p Path>,
    cleared: impl IntoIterator<Item = &'p Path>,
) -> Result<RulesetStatus, RulesetError> {
    let writes = AccessFs::from_write(NEWEST);
    let mut rules = Ruleset::default().handle_access(writes)?.create()?;
    for path in writable {
        let rights = if path.is_dir() { writes } else { writes & AccessFs::from_file(NEWEST) };
        rules = allow(rules, path, rights)?;
    }
    for path in cleared {
        rules = allow(rules, path, AccessFs::RemoveFile.into())?;
    }
    Ok(rules.restrict_self()?.ruleset)
}

/// What the thread of a mirror and all that it starts may: read, reach other machines, and write in `writable` alone.
/// They may take no connections, and send no signals to others. Returns how much of that the kernel enforces.
///
/// # Errors
/// When the kernel refuses the rules.
pub fn confine_mirror<'p>(
    writable: impl IntoIterator<Item = &'p Path>,
) -> Result<RulesetStatus, RulesetError> {
    let writes = AccessFs::from_write(NEWEST);
    let mut rules = Ruleset::default()
        .handle_access(writes)?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::Signal)?
        .create()?;
    for path in writable {
        rules = allow(rules, path, writes)?;
    }
    Ok(rules.restrict_self()?.ruleset)
}

/// What a process that builds tables may: anything in its scratch folder `scratch` and remove that,
/// read (and write, where they are open for that) the files that it has been given, and read the
/// legacy file at `legacy` with its logs. No other file, no TCP, no signals to others.
///
/// What lies in memory needs no right. Returns how much of this the kernel enforces.
///
/// # Errors
/// When the kernel refuses the rules.
pub fn confine_builder<'f>(
    scratch: &Path,
    given: impl IntoIterator<Item = BorrowedFd<'f>>,
    legacy: Option<&Path>,
) -> Result<RulesetStatus, RulesetError> {
    let all = AccessFs::from_all(NEWEST);
    let mut rules = Ruleset::default()
        .handle_access(all)?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    rules = allow(rules, scratch, all)?;
    if let Some(parent) = scratch.parent() {
        rules = allow(rules, parent, AccessFs::RemoveDir.into())?;
    }
    rules = allow(rules, Path::new("/dev/urandom"), AccessFs::ReadFile.into())?;
    if let Some(file) = legacy {
        for ending in ["", ".wal", ".wal.checkpoint", ".wal.recovery"] {
            let mut name = file.as_os_str().to_owned();
            name.push(ending);
            rules = allow(rules, Path::new(&name), AccessFs::ReadFile.into())?;
        }
    }
    for fd in given {
        let is_written =
            rustix::fs::fcntl_getfl(fd).is_ok_and(|flags| flags & OFlags::RWMODE != OFlags::RDONLY);
        let mut rights = BitFlags::from(AccessFs::ReadFile);
        if is_written {
            rights |= AccessFs::WriteFile | AccessFs::Truncate;
        }
        // The kernel has no rules for what lies in memory, and allows it.
        if !is_in_memory(fd) {
            rules = rules.add_rule(PathBeneath::new(fd, rights))?;
        }
    }
    Ok(rules.restrict_self()?.ruleset)
}

/// What an engine may: read what lies in `table_dir`. No other file, no TCP, no signals to others.
///
/// What lies in memory needs no right. Returns how much of this the kernel enforces.
///
/// # Errors
/// When the kernel refuses the rules.
pub fn confine_engine(table_dir: Option<&Path>) -> Result<RulesetStatus, RulesetError> {
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    if let Some(dir) = table_dir {
        rules = allow(rules, dir, AccessFs::ReadFile.into())?;
    }
    Ok(rules.restrict_self()?.ruleset)
}

/// Whether a descriptor is a memfd.
pub fn is_in_memory(fd: BorrowedFd<'_>) -> bool {
    std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
        .is_ok_and(|path| path.as_os_str().as_encoded_bytes().starts_with(b"/memfd:"))
}

fn allow(
    rules: RulesetCreated,
    path: &Path,
    rights: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    match PathFd::new(path) {
        Ok(fd) => rules.add_rule(PathBeneath::new(fd, rights)),
        Err(_) => Ok(rules), // what is not there needs no right
    }
}

/// Bounds the memory that this process allocates for data, stacks included. DuckDB's own limit does
/// not bound what a scalar function builds: `len(range(200000000))` took 12 GB under a limit of
/// 256 MB. Under this one it is an out-of-memory error of that statement.
///
/// # Errors
/// When the limit cannot be set.
pub fn bound_data(bytes: u64) -> io::Result<()> {
    let inherited = rustix::process::getrlimit(Resource::Data);
    let bytes = inherited.current.map_or(bytes, |limit| limit.min(bytes));
    // The hard limit stays: a child that needs less sets its own.
    let limit = Rlimit { current: Some(bytes), maximum: inherited.maximum };
    Ok(rustix::process::setrlimit(Resource::Data, limit)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::thread;

    #[test]
    fn writes_go_where_they_are_allowed_and_nowhere_else() {
        let allowed = tempfile::tempdir().expect("a temporary directory");
        let forbidden = tempfile::tempdir().expect("a temporary directory");
        let cleared = tempfile::tempdir().expect("a temporary directory");
        let socket = cleared.path().join("socket");
        fs::write(&socket, "x").expect("write");
        let there = forbidden.path().join("there");
        fs::write(&there, "x").expect("write");
        // A thread of its own: the rules cannot be taken back.
        let outcome = thread::scope(|scope| {
            let confined = scope.spawn(|| {
                let status = forbid_writes([allowed.path()], [cleared.path()]).expect("Landlock");
                if status == RulesetStatus::NotEnforced {
                    eprintln!("this kernel has no Landlock: nothing is tested");
                    return None;
                }
                fs::write(allowed.path().join("a"), "x").expect("allowed");
                Some([
                    fs::write(forbidden.path().join("a"), "x").is_err(),
                    fs::write(&there, "y").is_err(),
                    fs::remove_file(&there).is_err(),
                    fs::rename(&there, allowed.path().join("b")).is_err(),
                    fs::create_dir(forbidden.path().join("d")).is_err(),
                    fs::read_to_string(&there).is_ok(),
                    fs::write(&socket, "y").is_err(),
                    fs::write(cleared.path().join("a"), "x").is_err(),
                    fs::remove_file(&socket).is_ok(),
                ])
            });
            confined.join().expect("no panic")
        });
        assert!(outcome.is_none_or(|outcome| outcome == [true; 9]), "{outcome:?}");
    }

    #[test]
    fn a_mirror_writes_in_its_directory_alone() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let [own, other] = ["own", "other"].map(|name| dir.path().join(name));
        for path in [&own, &other, &own.join("mart"), &own.join("mart/.mirror")] {
            fs::create_dir(path).expect("mkdir");
        }
        std::os::unix::fs::symlink(&other, own.join("mart/link")).expect("linked");
        fs::write(other.join("there"), "x").expect("write");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("still allowed");
        let address = listener.local_addr().expect("bound");
        let outcome = thread::scope(|scope| {
            let confined = scope.spawn(|| {
                let status = confine_mirror([own.as_path()]).expect("Landlock");
                if status == RulesetStatus::NotEnforced {
                    eprintln!("this kernel has no Landlock: nothing is tested");
                    return None;
                }
                let temporary = own.join("mart/.mirror/tmp_a");
                Some([
                    fs::write(&temporary, "x").is_ok(),
                    fs::rename(&temporary, own.join("mart/a.parquet")).is_ok(),
                    fs::remove_file(own.join("mart/a.parquet")).is_ok(),
                    fs::write(own.join("mart/link/a.parquet"), "x").is_err(),
                    fs::remove_file(own.join("mart/link/there")).is_err(),
                    fs::read(other.join("there")).is_ok(),
                    std::net::TcpStream::connect(address).is_ok(),
                    std::net::TcpListener::bind("127.0.0.1:0").is_err(),
                ])
            });
            confined.join().expect("no panic")
        });
        assert!(outcome.is_none_or(|outcome| outcome == [true; 8]), "{outcome:?}");
    }

    #[test]
    fn a_builder_has_its_scratch_folder_alone() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let scratch = dir.path().join("scratch");
        fs::create_dir(&scratch).expect("mkdir");
        let [given, other] = ["given", "other"].map(|name| dir.path().join(name));
        fs::write(&given, "x").expect("write");
        fs::write(&other, "x").expect("write");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("still allowed");
        let address = listener.local_addr().expect("bound");
        let file = fs::File::open(&given).expect("open");
        let outcome = thread::scope(|scope| {
            let confined = scope.spawn(|| {
                use std::os::fd::AsFd;
                let status = confine_builder(&scratch, [file.as_fd()], None).expect("Landlock");
                if status == RulesetStatus::NotEnforced {
                    eprintln!("this kernel has no Landlock: nothing is tested");
                    return None;
                }
                let again = format!("/proc/self/fd/{}", file.as_raw_fd());
                Some([
                    fs::write(scratch.join("a"), "x").is_ok(),
                    fs::read(&again).is_ok(),
                    fs::write(&again, "y").is_err(),
                    fs::read(&other).is_err(),
                    fs::write(dir.path().join("new"), "x").is_err(),
                    fs::remove_file(&other).is_err(),
                    fs::read_dir(dir.path()).is_err(),
                    std::net::TcpStream::connect(address).is_err(),
                    fs::remove_dir_all(&scratch).is_ok(),
                ])
            });
            confined.join().expect("no panic")
        });
        assert!(outcome.is_none_or(|outcome| outcome == [true; 9]), "{outcome:?}");
    }
}
