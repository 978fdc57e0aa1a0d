//! Sends what is recorded to an object store.

use crate::ledger::Record;
use crate::mirror::{StoreArgs, Uploaded};
use crate::scan::OpenDir;

/// Why that did not work.
pub(super) enum UploadFailure {
    /// A setting is wrong.
    Usage(String),
    /// An object could not be sent.
    #[cfg_attr(not(feature = "object-store"), expect(dead_code))]
    Other(String),
}

#[cfg(not(feature = "object-store"))]
pub(super) fn run(
    _: &str,
    _: &StoreArgs,
    _: &OpenDir,
    _: &[Record],
) -> Result<Uploaded, UploadFailure> {
    Err(UploadFailure::Usage(crate::commands::mirror::LACKING.to_owned()))
}

#[cfg(feature = "object-store")]
pub(super) fn run(
    url: &str,
    store: &StoreArgs,
    dir: &OpenDir,
    records: &[Record],
) -> Result<Uploaded, UploadFailure> {
    use std::io::IsTerminal;

    use indicatif::{ProgressBar, ProgressStyle};

    use crate::mirror::{self, Bucket};

    let bucket =
        Bucket::open(url, store).map_err(|error| UploadFailure::Usage(error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| UploadFailure::Other(format!("threads cannot be had: {error}")))?;
    let bar = match std::io::stderr().is_terminal() {
        true => ProgressBar::new(0),
        false => ProgressBar::hidden(),
    };
    let style = "{spinner} sending {wide_bar} {bytes} of {total_bytes}, {eta} left";
    bar.set_style(ProgressStyle::with_template(style).expect("a template"));
    let (begin, sent) = (|bytes| bar.set_length(bytes), |bytes| bar.inc(bytes));
    let outcome = runtime.block_on(mirror::upload(&bucket, dir, records, begin, sent));
    bar.finish_and_clear();
    outcome.map_err(|error| UploadFailure::Other(error.to_string()))
}
