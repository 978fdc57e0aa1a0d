//! The HTTP face: bare hyper, no framework.
//!
//! A request loads the catalog's state once, in [`routes`], and passes it down; nothing below looks
//! at the current state again. Errors of other modules become problem details in [`problem`] alone.

mod accept;
mod access;
mod arguments;
mod ask;
mod body;
mod cache;
pub mod client;
mod conditional;
mod datasets;
mod events;
mod exchange;
mod freshness;
mod job;
mod mart_file;
mod marts;
mod mcp;
mod origin;
mod page;
mod probes;
mod problem;
mod queries;
mod query;
mod request;
mod request_id;
mod requested;
mod routes;
mod scrape;
mod server;
mod slots;
mod snapshot;
mod metrics_guard;
mod trace;
mod upload;
mod waiting;

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use crate::catalog::Catalog;
use crate::engine::{Engine, QueryError, Scoping};
use crate::events::Events;
use crate::metrics::Metrics;
use crate::sql_gate::{Dialect, Remembered, ValidatedStatement};

pub use access::Tokens;
pub use ask::{PgAnswer, PgClient};
pub use freshness::Criteria;
pub use origin::Doors;
pub(crate) use probes::why_nothing;
pub use problem::{Problem, problems};
pub use server::Server;

use cache::Answers;
use queries::Queries;
use slots::Slots;

/// What the validator said of statements, which depends on their text alone.
type Validated = Remembered<Result<Arc<ValidatedStatement>, QueryError>>;

/// Statements that are validated or described at once.
const VALIDATIONS: usize = 2;

/// What the server needs to know.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// Marts that must be served before `/readyz` says so.
    pub require: Vec<String>,
    /// How old marts may be whose models do not say.
    pub max_age: Criteria,
    /// How rows are scoped, if they are.
    pub scoping: Option<Scoping>,
    /// The session time zone, which answers depend on.
    pub time_zone: String,
    /// Memory for cached answers, in bytes; 0 for no cache.
    pub cache_bytes: u64,
    /// Queries that run at once, beside one of a client that has no other.
    pub queries: usize,
    /// Queries that may wait for their turn.
    pub queue: usize,
    /// How long a request waits for a snapshot that is not here yet.
    pub catch_up: Duration,
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
    /// How long clients may take.
    pub timeouts: Timeouts,
    /// Whether statements are logged as text.
    pub log_sql: bool,
    /// Which names and web pages are let in.
    pub doors: Doors,
}

impl HttpSettings {
    /// The column that scopes rows, if one does.
    pub fn scope_column(&self) -> Option<&str> {
        self.scoping.as_ref().map(|scoping| scoping.column.as_str())
    }
}

fn waiting_places(settings: &HttpSettings) -> usize {
    settings.queue.min(Semaphore::MAX_PERMITS)
}

/// How long clients may take.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// To send a request's head, also on a connection that is idle.
    pub header: Duration,
    /// To send a request's body.
    pub body: Duration,
    /// To take any bytes of an answer.
    pub stall: Duration,
}

/// What all requests share. A clone is a pointer.
#[derive(Debug, Clone)]
pub struct App(Arc<AppShared>);

impl Deref for App {
    type Target = AppShared;

    fn deref(&self) -> &AppShared {
        &self.0
    }
}

/// What an [`App`] points to.
#[derive(Debug)]
pub struct AppShared {
    pub(crate) settings: HttpSettings,
    catalog: Catalog,
    events: Events,
    engine: Engine,
    /// Those that may ask, where not everybody may.
    pub(crate) tokens: Option<Tokens>,
    slots: Slots,
    /// By dialect.
    validated: [Validated; 2],
    validating: Semaphore,
    /// Places for those who wait for a snapshot.
    waiting: Semaphore,
    queries: Queries,
    answers: Answers,
    draining: watch::Sender<bool>,
    /// Places for those who listen to events.
    listeners: Arc<Semaphore>,
    metrics: Metrics,
    /// Requests whose answers are not out yet.
    in_flight: AtomicUsize,
}

impl App {
    /// The application over a catalog. With `tokens`, all but the probes asks for one.
    pub fn new(
        settings: HttpSettings,
        catalog: Catalog,
        events: Events,
        engine: Engine,
        tokens: Option<Tokens>,
        metrics: Metrics,
    ) -> Self {
        Self(Arc::new(AppShared {
            slots: Slots::new(settings.queries, settings.queue, metrics.clone()),
            validated: Default::default(),
            validating: Semaphore::new(VALIDATIONS),
            waiting: Semaphore::new(waiting_places(&settings)),
            queries: Queries::default(),
            answers: Answers::new(settings.cache_bytes),
            draining: watch::Sender::new(false),
            // Of a thousand listeners, others would find no connection left.
            listeners: Arc::new(Semaphore::new((settings.max_connections / 4).max(1))),
            in_flight: AtomicUsize::new(0),
            settings,
            catalog,
            events,
            engine,
            tokens,
            metrics,
        }))
    }

    /// From here on `/readyz` says no, so that load balancers look elsewhere.
    pub fn drain(&self) {
        self.draining.send_replace(true);
    }

    fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    fn validated(&self, dialect: Dialect) -> &Validated {
        &self.validated[usize::from(dialect == Dialect::Postgres)]
    }

    /// The requests that wait for a snapshot.
    fn requests_behind(&self) -> usize {
        waiting_places(&self.settings) - self.waiting.available_permits()
    }

    /// Cancels every query that runs.
    pub fn cancel_queries(&self) {
        self.slots.cancel_all();
    }
}
