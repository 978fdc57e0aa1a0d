//! What may wait while queries run.

/// Half way to the lowest priority there is.
const NICENESS: i32 = 10;

/// Lets queries go before this thread and its children. For what makes ready what is asked for
/// later. Where that is not allowed, all goes on as it is.
pub(crate) fn give_way() {
    let _ = rustix::process::setpriority_process(None, NICENESS);
}
