//! Faults that tests cause from outside: `MARTD_TEST_FAULTS` names a directory, and a file in it the
//! fault. In a release build all of this is nothing, so no environment can cause one there.

/// Does not return while the file `stuck-<what>` is there.
pub fn stick(what: &str) {
    while wanted(&format!("stuck-{what}")) {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// Whether the file `failing-<what>` is there.
pub fn fails(what: &str) -> bool {
    wanted(&format!("failing-{what}"))
}

/// Panics while the file `panic-<what>` is there.
///
/// # Panics
/// That is its purpose.
pub fn panic(what: &str) {
    assert!(!wanted(&format!("panic-{what}")), "a test asked for it");
}

/// Aborts the process when the file `abort-<the first 16 digits of the statement's BLAKE3>` is there.
pub fn abort_at(sql: &str) {
    if cfg!(debug_assertions)
        && wanted(&format!("abort-{}", &blake3::hash(sql.as_bytes()).to_hex()[..16]))
    {
        std::process::abort();
    }
}

/// A hundredth of a time while the file `short-<what>` is there.
pub fn shortened(what: &str, time: std::time::Duration) -> std::time::Duration {
    if wanted(&format!("short-{what}")) { time / 100 } else { time }
}

fn wanted(fault: &str) -> bool {
    cfg!(debug_assertions)
        && std::env::var_os("MARTD_TEST_FAULTS")
            .is_some_and(|dir| std::path::Path::new(&dir).join(fault).exists())
}
