//! How much memory there is; and martd's own, apart from what statements take.
//!
//! The process may allocate only so much ([`crate::sandbox::bound_data`]), because DuckDB does not
//! bound what a scalar function builds. DuckDB answers an allocation that fails with an error of the
//! statement; Rust ends the process. So a statement that has taken all there is would end martd as
//! soon as anything else allocates. What martd allocates itself is bounded by its settings, and
//! is let through.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::{Mutex, PoisonError};

use rustix::process::{Resource, Rlimit};

/// The system's allocator, which goes over the limit of data rather than fail.
#[derive(Debug)]
pub struct OverLimit;

#[global_allocator]
static ALLOCATOR: OverLimit = OverLimit;

// SAFETY: all of it is the system allocator's doing; asking a second time is asking anew.
#[allow(unsafe_code, reason = "an allocator cannot be written without")]
unsafe impl GlobalAlloc for OverLimit {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on.
        retried(|| unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        retried(|| unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above; a block whose growing failed is untouched.
        retried(|| unsafe { System.realloc(block, layout, size) })
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) };
    }
}

fn retried(allocate: impl Fn() -> *mut u8) -> *mut u8 {
    let block = allocate();
    if block.is_null() { without_limit(allocate) } else { block }
}

/// Lifts the limit for one allocation. What other threads allocate in these microseconds slips
/// through, too; what they allocate next does not.
#[cold]
fn without_limit(allocate: impl Fn() -> *mut u8) -> *mut u8 {
    static LIFTED: Mutex<()> = Mutex::new(());
    let _one = LIFTED.lock().unwrap_or_else(PoisonError::into_inner);
    let limit = rustix::process::getrlimit(Resource::Data);
    let lifted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current == limit.maximum || rustix::process::setrlimit(Resource::Data, lifted).is_err()
    {
        return std::ptr::null_mut();
    }
    let block = allocate();
    let _ = rustix::process::setrlimit(Resource::Data, limit); // as it was before: cannot fail
    block
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
