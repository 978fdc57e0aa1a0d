//! Decodes what has landed before it is decided whether it is served: while a burst lasts, or a dbt
//! build. What is published then finds most verdicts known.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use blake3::Hash;
use tracing::warn;

use super::{Mailbox, Message};
use crate::hooks;
use crate::publish::Version;
use crate::verify::{Kept, Verdict, Verifier};

/// Until something is published, each mart is decoded ahead once in this time. A writer that renames
/// without a pause then makes martd decode twice as much as is published, and not all that it writes.
const INTERVAL: Duration = Duration::from_millis(500);
/// How long a child is kept that has nothing to do: files come in bursts, or minutes apart.
const KEEP_FOR: Duration = Duration::from_secs(5);

/// Hands versions to a thread, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Ahead {
    jobs: Sender<Vec<Arc<Version>>>,
    busy: bool,
    /// The newest version of each mart that landed while the thread was busy.
    waiting: BTreeMap<String, Arc<Version>>,
    /// When each mart was last handed over.
    begun: HashMap<String, Instant>,
}

/// What decoding some versions found.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) versions: Vec<Arc<Version>>,
    /// By content; empty when no child could be started, which whoever publishes will notice.
    pub(super) verdicts: HashMap<Hash, Verdict>,
}

impl Ahead {
    /// Starts the thread.
    pub(super) fn start(verifier: Arc<Verifier>, mailbox: Mailbox) -> io::Result<Self> {
        let (jobs, inbox) = mpsc::channel::<Vec<Arc<Version>>>();
        thread::Builder::new().name("decode".to_owned()).spawn(move || {
            let mut kept = Kept::default();
            loop {
                let idle = if kept.is_there() { KEEP_FOR } else { Duration::MAX };
                let versions = match inbox.recv_timeout(idle) {
                    Ok(versions) => versions,
                    Err(RecvTimeoutError::Timeout) => {
                        kept.end();
                        continue;
                    }
                    Err(RecvTimeoutError::Disconnected) => return kept.end(),
                };
                hooks::stick("decode");
                let pins = versions.iter().map(|version| &version.pin);
                let verdicts = verifier.verify_and_keep(pins, &mut kept).unwrap_or_else(|error| {
                    warn!(%error, "files could not be decoded as they landed");
                    HashMap::new()
                });
                mailbox.post(Message::Decoded(Decoded { versions, verdicts }));
            }
        })?;
        Ok(Self { jobs, busy: false, waiting: BTreeMap::new(), begun: HashMap::new() })
    }

    /// Takes versions that have just landed.
    pub(super) fn decode(&mut self, landed: Vec<Arc<Version>>, now: Instant) {
        for version in landed {
            let begun = self.begun.get(&version.name);
            if begun.is_none_or(|begun| now.duration_since(*begun) >= INTERVAL) {
                self.waiting.insert(version.name.clone(), version);
            } else {
                self.waiting.remove(&version.name);
            }
        }
        self.go_on(now);
    }

    /// The thread is done with what it had.
    pub(super) fn done(&mut self, now: Instant) {
        self.busy = false;
        self.go_on(now);
    }

    /// Something was published: another burst begins.
    pub(super) fn published(&mut self) {
        self.begun.clear();
    }

    fn go_on(&mut self, now: Instant) {
        if self.busy || self.waiting.is_empty() {
            return;
        }
        let versions: Vec<_> = std::mem::take(&mut self.waiting).into_values().collect();
        self.begun.extend(versions.iter().map(|version| (version.name.clone(), now)));
        self.busy = self.jobs.send(versions).is_ok();
    }
}
