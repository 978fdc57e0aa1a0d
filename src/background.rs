//! Work that no request waits for: it reads, decodes and prepares what is served next.

use std::thread;

/// Lets requests have the processor, between two steps of such work. The kernel would leave it to
/// the thread that works for milliseconds, in each of which a processor answers ten requests.
pub(crate) fn yield_to_requests() {
    thread::yield_now();
}
