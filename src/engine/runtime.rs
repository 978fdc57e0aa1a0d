//! What all instances of a process share: settings, threads, and memory for decoded marts.

use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Weak};
use std::thread;

use super::decoded::Budget;
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
    wanted: Sender<(Weak<Instance>, usize)>,
}

impl Runtime {
    /// Starts the threads. One that cannot be started is done without.
    pub fn start(settings: Settings) -> Arc<Self> {
        let (wanted, inbox) = mpsc::channel::<(Weak<Instance>, usize)>();
        let decode = move || {
            while let Ok((instance, mart)) = inbox.recv() {
                if let Some(instance) = instance.upgrade() {
                    instance.hold_decoded(mart);
                }
            }
        };
        drop(thread::Builder::new().name("decode".to_owned()).spawn(decode));
        Arc::new(Self {
            helpers: Helpers::start(settings.threads),
            forms: Forms::new(),
            decoded: Budget::new(settings.decoded_bytes),
            settings,
            wanted,
        })
    }

    /// Has a mart of an instance decoded by and by.
    pub(super) fn want_decoded(&self, instance: &Arc<Instance>, mart: usize) {
        drop(self.wanted.send((Arc::downgrade(instance), mart)));
    }
}
