//! What the kernel says of a process: its memory, its descriptors, its children.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;

use rustix::process::Pid;

use crate::harness::wait_for;

/// What a process takes.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Resident memory, in bytes.
    pub resident: u64,
    pub descriptors: usize,
    /// Descriptors of pins. One pin may have several.
    pub pin_descriptors: usize,
    /// Pins in memory…
    pub pins: usize,
    /// …and their bytes.
    pub pinned: u64,
}

impl Usage {
    pub fn of(pid: u32) -> Self {
        let mut usage = Self {
            resident: resident(pid),
            descriptors: 0,
            pin_descriptors: 0,
            pins: 0,
            pinned: 0,
        };
        let mut seen = HashSet::new();
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).expect("the process runs") {
            let path = entry.expect("an entry").path();
            // Between the listing and the look a descriptor may have been closed.
            let Ok(target) = fs::read_link(&path) else { continue };
            usage.descriptors += 1;
            if target.to_string_lossy().starts_with("/memfd:martd-pin") {
                usage.pin_descriptors += 1;
                let Ok(metadata) = fs::metadata(&path) else { continue };
                if seen.insert(metadata.ino()) {
                    usage.pins += 1;
                    usage.pinned += metadata.len();
                }
            }
        }
        usage
    }
}

/// The processes whose parent this is.
pub fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let lists = tasks.filter_map(|task| {
        fs::read_to_string(task.ok()?.path().join("children")).ok() // a thread may have ended
    });
    let pids = |list: String| -> Vec<u32> {
        list.split_whitespace().map(|pid| pid.parse().expect("a pid")).collect()
    };
    lists.flat_map(pids).collect()
}

/// The engines of a martd: the process that has DuckDB, and while it is replaced two.
pub fn engines(martd: u32) -> Vec<u32> {
    let is_engine = |pid: &u32| {
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.split('\0').nth(1) == Some("engine")
    };
    children(martd).into_iter().filter(is_engine).collect()
}

/// The only engine of a martd.
pub fn engine(martd: u32) -> u32 {
    wait_for("one engine", || match engines(martd)[..] {
        [engine] => Some(engine),
        _ => None,
    })
}

/// A child that builds tables.
pub struct Builder {
    pub pid: Pid,
    /// Whether it has one open at this moment.
    pub busy: bool,
}

/// The builders of a martd. One that is not busy waits for the next file.
pub fn builders(martd: u32) -> Vec<Builder> {
    let builder = |pid: u32| {
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        let mut open = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.filter_map(|fd| {
            Some(fs::read_link(fd.ok()?.path()).ok()?.to_string_lossy().into_owned())
        });
        let busy = open.any(|file| file.starts_with("/memfd:martd-pin"));
        let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
        command.contains("\0build\0").then_some(Builder { pid, busy })
    };
    children(martd).into_iter().filter_map(builder).collect()
}

/// Whether every thread of a process has taken SIGSTOP.
pub fn is_stopped(pid: u32) -> bool {
    let mut tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    tasks.all(|task| {
        let path = task.expect("an entry").path().join("stat");
        // A thread that has ended meanwhile does nothing any more.
        let Ok(stat) = fs::read_to_string(path) else { return true };
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
    })
}

/// The processes of a process group, those aside that have ended and are not reaped yet.
pub fn members(group: u32) -> Vec<u32> {
    let pids = fs::read_dir("/proc")
        .expect("readable")
        .filter_map(|entry| entry.expect("an entry").file_name().to_str()?.parse::<u32>().ok());
    let is_member = |pid: &u32| {
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
        // The name in parentheses may hold anything; behind it come state, parent and group.
        let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace());
        let fields: Vec<&str> = fields.into_iter().flatten().collect();
        fields[0] != "Z" && fields[2] == group.to_string()
    };
    pids.filter(is_member).collect()
}

/// Resident memory, in bytes.
pub fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("in every status");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number");
    kib << 10
}

/// Processor time that the process has used, in clock ticks.
pub fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime")
}
