//! Sends what is recorded to an object store.

use crate::ledger::Record;
use crate::mirror::{StoreArgs, Uploaded};
use crate::scan::OpenDir;

/// Where to.
pub(super) struct Destination(#[cfg(feature = "object-store")] crate::mirror::Bucket);

#[cfg(not(feature = "object-store"))]
impl Destination {
    pub(super) fn open(_: &str, _: &StoreArgs) -> Result<Self, String> {
        Err(crate::commands::mirror::LACKING.to_owned())
    }

    pub(super) fn send(&self, _: &OpenDir, _: &[Record]) -> Result<Uploaded, String> {
        unreachable!("none is opened in this build")
    }
}

#[cfg(feature = "object-store")]
impl Destination {
    /// What `url` names. The store is not asked yet.
    pub(super) fn open(url: &str, store: &StoreArgs) -> Result<Self, String> {
        let bucket = crate::mirror::Bucket::open(url, store);
        bucket.map(Self).map_err(|error| error.to_string())
    }

    /// Sends; an error names the object and the reason.
    pub(super) fn send(&self, dir: &OpenDir, records: &[Record]) -> Result<Uploaded, String> {
        use std::io::IsTerminal;

        use indicatif::{ProgressBar, ProgressStyle};

        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("threads cannot be had: {error}"))?;
        let bar = match std::io::stderr().is_terminal() {
            true => ProgressBar::new(0),
            false => ProgressBar::hidden(),
        };
        let style = "{spinner} sending {wide_bar} {bytes} of {total_bytes}, {eta} left";
        bar.set_style(ProgressStyle::with_template(style).expect("a template"));
        let (begin, sent) = (|bytes| bar.set_length(bytes), |bytes| bar.inc(bytes));
        let outcome = runtime.block_on(crate::mirror::upload(&self.0, dir, records, begin, sent));
        bar.finish_and_clear();
        outcome.map_err(|error| error.to_string())
    }
}
