//! How much memory there is.

/// What the front takes beside pins, tables and answers, in bytes.
pub const FRONT_BYTES: u64 = 64 << 20;
/// What an engine takes beside what DuckDB may have (`MARTD_MEMORY`), in bytes, and tables that it reads.
pub const ENGINE_BYTES: u64 = 128 << 20;

/// The memory that settings share by default: what there is, beside what the front takes, and the engine,
/// twice while it is replaced.
pub fn to_share() -> u64 {
    let available = available();
    available.saturating_sub(FRONT_BYTES + 2 * ENGINE_BYTES).max(available / 2)
}

/// The memory limit of the control group, or the machine's memory.
pub fn available() -> u64 {
    // Not /proc/meminfo, which a hardened unit hides (ProcSubset=pid).
    let machine = rustix::system::sysinfo();
    let machine = machine.totalram.saturating_mul(u64::from(machine.mem_unit));
    control_group_limits().into_iter().fold(machine, u64::min)
}

/// The memory limits of this process's control group and of those around it.
fn control_group_limits() -> Vec<u64> {
    let Ok(groups) = std::fs::read_to_string("/proc/self/cgroup") else { return Vec::new() };
    let Some(path) = groups.lines().find_map(|line| line.strip_prefix("0::/")) else {
        return Vec::new();
    };
    let root = std::path::Path::new("/sys/fs/cgroup");
    root.join(path)
        .ancestors()
        .take_while(|dir| dir.starts_with(root))
        .filter_map(|dir| std::fs::read_to_string(dir.join("memory.max")).ok())
        .filter_map(|text| text.trim().parse().ok())
        .collect()
}
