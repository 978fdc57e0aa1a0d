//! Sends what is recorded to an object store.

use crate::ledger::Record;
use crate::mirror::{StoreArgs, Uploaded};
use crate::scan::OpenDir;

/// Where to, and what is known of what it has.
pub(super) struct Destination {
    #[cfg(feature = "object-store")]
    bucket: crate::mirror::Bucket,
    #[cfg(feature = "object-store")]
    ledger: crate::mirror::RemoteLedger,
}

#[cfg(not(feature = "object-store"))]
impl Destination {
    pub(super) fn open(_: &str, _: &StoreArgs) -> Result<Self, String> {
        Err(crate::commands::mirror::LACKING.to_owned())
    }

    pub(super) fn url(&self) -> &str {
        unreachable!("none is opened in this build")
    }

    pub(super) fn look(&mut self, _: &[Record]) -> Result<&[Record], String> {
        unreachable!("none is opened in this build")
    }

    pub(super) fn send(
        &mut self,
        _: &OpenDir,
        _: &[Record],
        _: bool,
    ) -> (Uploaded, Result<(), String>) {
        unreachable!("none is opened in this build")
    }
}

#[cfg(feature = "object-store")]
impl Destination {
    /// What `url` names. The store is not asked yet.
    pub(super) fn open(url: &str, store: &StoreArgs) -> Result<Self, String> {
        let bucket = crate::mirror::Bucket::open(url, store).map_err(|error| error.to_string())?;
        Ok(Self { bucket, ledger: Default::default() })
    }

    /// Its URL.
    pub(super) fn url(&self) -> &str {
        self.bucket.url()
    }

    /// The records that it has beside these.
    pub(super) fn look(&mut self, here: &[Record]) -> Result<&[Record], String> {
        let look = self.ledger.look(&self.bucket, here);
        super::super::runtime()?.block_on(look).map_err(|error| error.to_string())?;
        Ok(self.ledger.records())
    }

    /// Sends what it does not have; what it has is compared if `looks_at_all`. Returns what was sent, and whether that
    /// is all: an error names the object or the build, and the reason.
    pub(super) fn send(
        &mut self,
        dir: &OpenDir,
        records: &[Record],
        looks_at_all: bool,
    ) -> (Uploaded, Result<(), String>) {
        use std::io::IsTerminal;

        use indicatif::{ProgressBar, ProgressStyle};

        let runtime = match super::super::runtime() {
            Ok(runtime) => runtime,
            Err(problem) => return (Uploaded::default(), Err(problem)),
        };
        let bar = match std::io::stderr().is_terminal() {
            true => ProgressBar::new(0),
            false => ProgressBar::hidden(),
        };
        let style = "{spinner} sending {wide_bar} {bytes} of {total_bytes}, {eta} left";
        bar.set_style(ProgressStyle::with_template(style).expect("a template"));
        let (begin, sent) = (|bytes| bar.set_length(bytes), |bytes| bar.inc(bytes));
        let upload = crate::mirror::BucketUpload { bucket: &self.bucket, dir, looks_at_all };
        let done = Default::default();
        let run = upload.run(&mut self.ledger, records, &done, (begin, sent));
        let outcome = runtime.block_on(run).map_err(|error| error.to_string());
        bar.finish_and_clear();
        (done.into_inner(), outcome)
    }
}
