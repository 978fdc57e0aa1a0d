//! What all instances of a process share: settings, threads, and memory for decoded marts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;

use super::decoded::{Budget, Decoded, Part};
use super::forms::Forms;
use super::helpers::Helpers;
use super::instance::{Instance, Settings};

/// Shared by the instances of a process. Its threads end with the last of them.
#[derive(Debug)]
pub struct Runtime {
    pub(super) settings: Settings,
    pub(super) helpers: Helpers,
    pub(super) forms: Forms,
    pub(super) decoded: Arc<Budget>,
    lookups: AtomicU64,
    wanted: Sender<Want>,
    /// Instances that were replaced and are still in use.
    replaced: Mutex<Vec<Weak<Instance>>>,
}

/// What statements would be faster with, and what is not for the request path.
#[derive(Debug)]
pub(super) enum Want {
    /// A mart that is held decoded.
    Decoded { instance: Weak<Instance>, mart: usize },
    /// A part of a column of such a mart.
    Part { decoded: Weak<Decoded>, column: usize, part: Part },
}

impl Runtime {
    /// Starts the threads. One that cannot be started is done without.
    pub fn start(settings: Settings) -> Arc<Self> {
        let (wanted, inbox) = mpsc::channel::<Want>();
        let warm = move || {
            while let Ok(want) = inbox.recv() {
                match want {
                    Want::Decoded { instance, mart } => {
                        if let Some(instance) = instance.upgrade() {
                            instance.hold_decoded(mart);
                        }
                    }
                    Want::Part { decoded, column, part } => {
                        if let Some(decoded) = decoded.upgrade() {
                            decoded.make(column, part);
                        }
                    }
                }
            }
        };
        drop(thread::Builder::new().name("warm".to_owned()).spawn(warm));
        Arc::new(Self {
            helpers: Helpers::start(settings.threads),
            forms: Forms::new(),
            decoded: Budget::new(settings.decoded_bytes),
            settings,
            lookups: AtomicU64::new(0),
            wanted,
            replaced: Mutex::default(),
        })
    }

    /// A statement is answered without DuckDB.
    pub(super) fn count_lookup(&self) {
        self.lookups.fetch_add(1, Ordering::Relaxed);
    }

    /// How many were.
    pub(super) fn lookups(&self) -> u64 {
        self.lookups.load(Ordering::Relaxed)
    }

    /// Remembers an instance that was replaced.
    pub(super) fn note_replaced(&self, instance: &Arc<Instance>) {
        let mut replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        replaced.retain(|instance| instance.strong_count() > 0);
        replaced.push(Arc::downgrade(instance));
    }

    /// Takes back the memory that replaced instances hold.
    pub(super) fn let_go_of_replaced(&self) {
        let mut replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        let replaced: Vec<_> = replaced.drain(..).filter_map(|one| one.upgrade()).collect();
        replaced.iter().for_each(|instance| instance.let_go());
    }

    /// Has this done by and by.
    pub(super) fn want(&self, want: Want) {
        drop(self.wanted.send(want));
    }
}
