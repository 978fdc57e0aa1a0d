//! How much memory and how many processors martd may use: the machine's, or what its control groups leave
//! of them (v1, v2 and both at once), and what it makes of the memory.
//!
//! Each group limits those below it, so the least limit of all that are seen counts. Which folder is a
//! group's, the mounts tell: a container may see the host's path of its group and only its own part of the
//! tree.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// What the front takes beside pins, tables and answers, in bytes.
pub const FRONT_BYTES: u64 = 64 << 20;
/// What catalogs of the PostgreSQL protocol take in an engine, in bytes: one takes a MiB, and asyncpg's question
/// after types 30.
pub const CATALOGS_BYTES: u64 = 96 << 20;
/// What an engine takes beside what DuckDB may have (`MARTD_MEMORY`), in bytes, and tables that it reads.
pub const ENGINE_BYTES: u64 = 128 << 20;

/// The least memory that DuckDB gets; below it even small statements fail.
pub const LEAST_ENGINE_BYTES: u64 = 64 << 20;
/// What pins, tables and answers have at least, wherever that comes from.
const LEAST_REST: u64 = 64 << 20;
/// More rows than this have no reason to wait in memory.
const MOST_WAITING_BYTES: u64 = 64 << 20;

/// What settings say of memory by default, in bytes. With two engines and what martd takes beside, it is not
/// more than there is; that needs 512 MiB.
#[derive(Debug, Clone, Copy)]
pub struct Shares {
    /// For DuckDB, twice while an engine is replaced.
    pub engine: u64,
    /// For copies of files.
    pub pins: u64,
    /// For the tables that are built from files.
    pub tables: u64,
    /// For cached answers.
    pub answers: u64,
    /// For rows that wait for clients of the PostgreSQL protocol.
    pub waiting_rows: u64,
    /// For what those clients are told of the marts, twice while an engine is replaced.
    pub catalogs: u64,
}

impl Shares {
    /// Those of the memory that there is, with the PostgreSQL protocol or without.
    pub fn of(available: u64, postgres: bool) -> Self {
        let catalogs = if postgres { CATALOGS_BYTES } else { 0 };
        let all = available.saturating_sub(FRONT_BYTES + 2 * (ENGINE_BYTES + catalogs));
        let engine = (all / 4).max(LEAST_ENGINE_BYTES);
        let rest = all.saturating_sub(2 * engine).max(LEAST_REST);
        let waiting_rows = if postgres { MOST_WAITING_BYTES.min(rest / 16) } else { 0 };
        let answers = rest / 8 - waiting_rows;
        Self { engine, pins: rest / 4, tables: rest / 2, answers, waiting_rows, catalogs }
    }
}

/// What martd takes at most with these settings, with two engines while one is replaced. Builders, and engines
/// that run a suspect alone, take theirs on top, for moments: the kernel ends them before it ends anything else.
pub fn most_bytes(Shares { engine, pins, tables, answers, waiting_rows, catalogs }: Shares) -> u64 {
    FRONT_BYTES + pins + tables + answers + waiting_rows + 2 * (engine + catalogs + ENGINE_BYTES)
}

/// What DuckDB may take in a builder. Rows go to the table as they are read, so this is for one row group:
/// 2 GB is for 2,000 columns.
pub fn builder_bytes() -> u64 {
    (memory().value / 4).clamp(256 << 20, 2_000_000_000)
}

/// A limit, and for people where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// Bytes, or processors.
    pub value: u64,
    /// A file of a control group, or the machine.
    pub source: String,
}

/// The memory that there is, in bytes. Found once.
pub fn memory() -> &'static Limit {
    static MEMORY: OnceLock<Limit> = OnceLock::new();
    MEMORY.get_or_init(|| {
        // Not /proc/meminfo, which a hardened unit hides (ProcSubset=pid).
        let machine = rustix::system::sysinfo();
        let machine = machine.totalram.saturating_mul(u64::from(machine.mem_unit));
        least(machine, "the machine", memory_limits(Path::new("/")))
    })
}

/// The processors that there are: those that this process may run on, or fewer where a group has a quota.
/// Found once.
pub fn processors() -> &'static Limit {
    static PROCESSORS: OnceLock<Limit> = OnceLock::new();
    PROCESSORS.get_or_init(|| {
        let count = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
        least(count, "the processors that it may run on", processor_limits(Path::new("/")))
    })
}

/// The least of what there is and these limits. Of equal ones that of a group, which is why.
fn least(value: u64, source: &str, limits: Vec<Limit>) -> Limit {
    let machine = Limit { value, source: source.to_owned() };
    limits.into_iter().fold(
        machine,
        |least, limit| {
            if limit.value <= least.value { limit } else { least }
        },
    )
}

/// What groups say of memory. A process that takes more than `memory.high` is slowed down until it stands.
fn memory_limits(root: &Path) -> Vec<Limit> {
    let mut limits = Vec::new();
    for dir in groups(root, "memory") {
        for name in ["memory.max", "memory.high", "memory.limit_in_bytes"] {
            let value = read(&dir.join(name)).trim().parse().ok(); // v2 has no number for no limit
            limits.extend(value.map(|value| limit(root, &dir.join(name), value)));
        }
        // Of v1: also what groups say that cannot be seen from here.
        let path = dir.join("memory.stat");
        let stat = read(&path);
        let of_all = stat.lines().find_map(|line| line.strip_prefix("hierarchical_memory_limit "));
        let value = of_all.and_then(|value| value.trim().parse().ok());
        limits.extend(value.map(|value| limit(root, &path, value)));
    }
    limits
}

/// What groups say of processors: a part of one is none, but one there is.
fn processor_limits(root: &Path) -> Vec<Limit> {
    let number = |text: Option<&str>| text.and_then(|text| text.trim().parse::<u64>().ok());
    let mut limits = Vec::new();
    for dir in groups(root, "cpu") {
        let (v1, v2) = (dir.join("cpu.cfs_quota_us"), dir.join("cpu.max"));
        let both = read(&v2);
        let mut both = both.split_whitespace();
        let v2 = (number(both.next()), number(both.next()), v2);
        let period = number(Some(&read(&dir.join("cpu.cfs_period_us"))));
        let v1 = (number(Some(&read(&v1))), period, v1);
        for (quota, period, path) in [v1, v2] {
            if let (Some(quota), Some(period @ 1..)) = (quota, period) {
                limits.push(limit(root, &path, (quota / period).max(1)));
            }
        }
    }
    limits
}

fn limit(root: &Path, path: &Path, value: u64) -> Limit {
    let path = path.strip_prefix(root).unwrap_or(path);
    Limit { value, source: format!("/{}", path.display()) }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The folders of this process's groups in which this controller may be, and of those around them.
fn groups(root: &Path, controller: &str) -> Vec<PathBuf> {
    let has = |list: &str| list.split(',').any(|name| name == controller);
    let (groups, mounts) = (root.join("proc/self/cgroup"), root.join("proc/self/mountinfo"));
    let (groups, mounts) = (read(&groups), read(&mounts));
    let mut found = Vec::new();
    for group in groups.lines() {
        let mut fields = group.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { continue };
        for mount in mounts.lines().filter_map(Mount::parse) {
            let is_its = match mount.kind {
                "cgroup" => has(controllers) && has(mount.options),
                "cgroup2" => controllers.is_empty(),
                _ => false,
            };
            if is_its {
                let top = root.join(mount.point.trim_start_matches('/'));
                let below = Path::new(group).strip_prefix(&mount.root).unwrap_or(Path::new(""));
                let dir = top.join(below);
                found.extend(
                    dir.ancestors().take_while(|dir| dir.starts_with(&top)).map(Path::to_owned),
                );
            }
        }
    }
    found
}

/// A line of `/proc/self/mountinfo`.
struct Mount<'l> {
    /// What of the file system is mounted.
    root: String,
    point: String,
    kind: &'l str,
    options: &'l str,
}

impl<'l> Mount<'l> {
    fn parse(line: &'l str) -> Option<Self> {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let mut file_system = file_system.split(' ');
        Some(Self {
            root: unescape(mount.next()?),
            point: unescape(mount.next()?),
            kind: file_system.next()?,
            options: file_system.nth(1)?,
        })
    }
}

/// The kernel writes blanks and backslashes as octal numbers.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(text.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "\
30 20 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw
31 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
32 30 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
33 30 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";
    const V2: &str = "30 20 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    const GIB: u64 = 1 << 30;

    /// A file that need not be said to be in /sys/fs/cgroup.
    type File = (&'static str, &'static str);

    /// (what it is, /proc/self/cgroup, mountinfo, files, memory and processors with their sources)
    type Case = (
        &'static str,
        &'static str,
        String,
        &'static [File],
        Option<(u64, &'static str)>,
        Option<(u64, &'static str)>,
    );

    fn cases() -> Vec<Case> {
        vec![
            ("no control groups at all", "", String::new(), &[], None, None),
            (
                "v2",
                "0::/a\n",
                V2.into(),
                &[("a/memory.max", "1073741824\n"), ("a/cpu.max", "200000 100000\n")],
                Some((GIB, "a/memory.max")),
                Some((2, "a/cpu.max")),
            ),
            (
                "v2 without limits",
                "0::/a\n",
                V2.into(),
                &[("a/memory.max", "max\n"), ("a/memory.high", "max\n"), ("a/cpu.max", "max 1\n")],
                None,
                None,
            ),
            (
                "v2, nested: the least, wherever it stands",
                "0::/a/b/c\n",
                V2.into(),
                &[
                    ("a/memory.max", "536870912\n"),
                    ("a/b/memory.max", "1073741824\n"),
                    ("a/b/c/memory.max", "max\n"),
                    ("a/cpu.max", "400000 100000\n"),
                    ("a/b/cpu.max", "150000 100000\n"),
                    ("a/b/c/cpu.max", "max 100000\n"),
                ],
                Some((GIB / 2, "a/memory.max")),
                Some((1, "a/b/cpu.max")),
            ),
            (
                "v2: slowed down before the limit",
                "0::/a\n",
                V2.into(),
                &[("a/memory.max", "1073741824"), ("a/memory.high", "536870912")],
                Some((GIB / 2, "a/memory.high")),
                None,
            ),
            (
                "v2, a container with a namespace of its own: its group is the root",
                "0::/\n",
                V2.into(),
                &[("memory.max", "536870912\n"), ("cpu.max", "50000 100000\n")],
                Some((GIB / 2, "memory.max")),
                Some((1, "cpu.max")),
            ),
            (
                "v2, a container that sees the host's path and its own part of the tree",
                "0::/system.slice/docker-1.scope/inner\n",
                "30 20 0:28 /system.slice/docker-1.scope /sys/fs/cgroup ro - cgroup2 cgroup rw\n"
                    .into(),
                &[("memory.max", "536870912\n"), ("inner/memory.max", "max\n")],
                Some((GIB / 2, "memory.max")),
                None,
            ),
            (
                "v2, a mount from outside of the namespace",
                "0::/\n",
                "30 20 0:28 /../.. /sys/fs/cgroup ro - cgroup2 cgroup rw\n".into(),
                &[("memory.max", "536870912\n")],
                Some((GIB / 2, "memory.max")),
                None,
            ),
            (
                "v2 at another place, with a blank and a backslash",
                "0::/a\\x2db.slice/c\n",
                "30 20 0:28 /a\\134x2db.slice /sys/fs/cgroup/my\\040own rw - cgroup2 none rw\n"
                    .into(),
                &[("my own/c/memory.max", "1073741824\n")],
                Some((GIB, "my own/c/memory.max")),
                None,
            ),
            (
                "v1, with both at once, which nearly all of its machines have",
                "5:memory:/a\n3:cpu,cpuacct:/b\n1:name=systemd:/a\n0::/a\n",
                V1.into(),
                &[
                    ("memory/a/memory.limit_in_bytes", "1073741824\n"),
                    ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
                    ("cpu,cpuacct/b/cpu.cfs_quota_us", "300000\n"),
                    ("cpu,cpuacct/b/cpu.cfs_period_us", "100000\n"),
                    ("cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
                    ("cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
                ],
                Some((GIB, "memory/a/memory.limit_in_bytes")),
                Some((3, "cpu,cpuacct/b/cpu.cfs_quota_us")),
            ),
            (
                "v1 for processors and v2 for memory",
                "3:cpu,cpuacct:/\n0::/a\n",
                V1.into(),
                &[
                    ("unified/a/memory.max", "1073741824\n"),
                    ("cpu,cpuacct/cpu.cfs_quota_us", "200000\n"),
                    ("cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
                ],
                Some((GIB, "unified/a/memory.max")),
                Some((2, "cpu,cpuacct/cpu.cfs_quota_us")),
            ),
            (
                "v1, nested",
                "5:memory:/a/b\n3:cpu,cpuacct:/a/b\n",
                V1.into(),
                &[
                    ("memory/a/memory.limit_in_bytes", "536870912\n"),
                    ("memory/a/b/memory.limit_in_bytes", "1073741824\n"),
                    ("cpu,cpuacct/a/cpu.cfs_quota_us", "100000\n"),
                    ("cpu,cpuacct/a/cpu.cfs_period_us", "100000\n"),
                    ("cpu,cpuacct/a/b/cpu.cfs_quota_us", "-1\n"),
                    ("cpu,cpuacct/a/b/cpu.cfs_period_us", "100000\n"),
                ],
                Some((GIB / 2, "memory/a/memory.limit_in_bytes")),
                Some((1, "cpu,cpuacct/a/cpu.cfs_quota_us")),
            ),
            (
                "v1, a container that sees the host's path and its own part of the tree, limited \
                 by a group around it",
                "5:memory:/docker/1\n3:cpu,cpuacct:/docker/1\n",
                V1.replace("0:30 / ", "0:30 /docker/1 ").replace("0:29 / ", "0:29 /docker/1 "),
                &[
                    ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
                    ("memory/memory.stat", "cache 1\nhierarchical_memory_limit 536870912\n"),
                    ("cpu,cpuacct/cpu.cfs_quota_us", "100000\n"),
                    ("cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
                ],
                Some((GIB / 2, "memory/memory.stat")),
                Some((1, "cpu,cpuacct/cpu.cfs_quota_us")),
            ),
            (
                "another controller's group",
                "5:cpuset:/a\n",
                V1.into(),
                &[("memory/a/memory.limit_in_bytes", "1073741824\n"), ("cpu.max", "1 1\n")],
                None,
                None,
            ),
        ]
    }

    #[test]
    fn the_defaults_are_not_more_than_there_is() {
        for mib in [512, 513, 700, 1024, 4096, 65_536] {
            for (postgres, more) in [(false, 0), (true, 2 * CATALOGS_BYTES)] {
                let available = (mib << 20) + more;
                let shares = Shares::of(available, postgres);
                assert!(most_bytes(shares) <= available, "{mib} MiB: {shares:?}");
                assert!(most_bytes(shares) > available / 10 * 9, "{mib} MiB: {shares:?}");
            }
        }
        assert_eq!(Shares::of(0, true).engine, LEAST_ENGINE_BYTES);
    }

    #[test]
    fn the_lowest_limit_of_all_groups_counts() {
        for (what, groups, mounts, files, memory, processors) in cases() {
            let root = tempfile::tempdir().expect("a temporary directory");
            let write = |path: &str, text: &str| {
                let path = root.path().join(path);
                fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
                fs::write(path, text).expect("a file");
            };
            write("proc/self/cgroup", groups);
            write("proc/self/mountinfo", &mounts);
            files.iter().for_each(|(path, text)| write(&format!("sys/fs/cgroup/{path}"), text));
            let machine = || Limit { value: 64 * GIB, source: "machine".to_owned() };
            let expected = |found: Option<(u64, &str)>| {
                found.map_or_else(machine, |(value, file)| Limit {
                    value,
                    source: format!("/sys/fs/cgroup/{file}"),
                })
            };
            let all = |limits| least(64 * GIB, "machine", limits);
            assert_eq!(all(memory_limits(root.path())), expected(memory), "{what}");
            assert_eq!(all(processor_limits(root.path())), expected(processors), "{what}");
        }
    }
}
