//! The HTTP face: bare hyper, no framework.
//!
//! A request loads the catalog's state once, in [`routes`], and passes it down; nothing below looks
//! at the current state again. Errors of other modules become problem details in [`problem`] alone.

mod accept;
mod body;
mod compress;
mod freshness;
mod probes;
mod problem;
mod query;
mod request_id;
mod routes;
mod server;
mod slots;
mod snapshot;
mod waiting;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::catalog::Catalog;
use crate::engine::Gate;

pub use server::serve;

use slots::Slots;

/// What the server needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Marts that must be served before `/readyz` says so.
    pub require: Vec<String>,
    /// Queries that run at once.
    pub queries: usize,
    /// Queries that may wait for their turn.
    pub queue: usize,
    /// Time that a query may take.
    pub query_timeout: Duration,
    /// The most rows that a request may ask for.
    pub max_rows: u64,
    /// The largest answer, in bytes.
    pub max_result_bytes: u64,
    /// The largest request body, in bytes.
    pub max_body_bytes: u64,
    /// Connections that are open at once.
    pub max_connections: usize,
}

/// What all requests share. A clone is a pointer.
#[derive(Debug, Clone)]
pub struct App(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: Settings,
    catalog: Catalog,
    gate: Gate,
    slots: Slots,
    draining: AtomicBool,
}

impl App {
    /// The application over a catalog.
    pub fn new(settings: Settings, catalog: Catalog, gate: Gate) -> Self {
        let slots = Slots::new(settings.queries, settings.queue);
        let draining = AtomicBool::new(false);
        Self(Arc::new(Shared { settings, catalog, gate, slots, draining }))
    }

    /// From here on `/readyz` says no, so that load balancers look elsewhere.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Release);
    }

    fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }

    fn settings(&self) -> &Settings {
        &self.0.settings
    }

    fn catalog(&self) -> &Catalog {
        &self.0.catalog
    }

    fn gate(&self) -> &Gate {
        &self.0.gate
    }

    fn slots(&self) -> &Slots {
        &self.0.slots
    }

    /// Interrupts every query that runs.
    pub fn interrupt_queries(&self) {
        self.0.slots.interrupt_all();
    }
}
