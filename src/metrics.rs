//! What martd counts of itself.
//!
//! One handle, passed to where things happen. What can be read off the catalog (marts, files, holds)
//! is not counted here: it is read when somebody asks, so that nothing has to be kept in step and what
//! is gone is gone. Every label has a fixed set of values, which are there from the start: a counter
//! that appears with its first event hides that event from `increase()`.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::marts::build::TableBudget;
use crate::pin::Budget;

const QUERY_SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
const WAIT_SECONDS: [f64; 8] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0];
const VISIBLE_SECONDS: [f64; 12] =
    [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0];

type Labels<const N: usize> = [(&'static str, &'static str); N];

/// Names that a label may have.
macro_rules! names {
    ($(#[$doc:meta])* $type:ident { $($(#[$name_doc:meta])* $name:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $type { $($(#[$name_doc])* $name,)* }

        impl $type {
            const ALL: [Self; [$(Self::$name,)*].len()] = [$(Self::$name,)*];

            /// The label's value.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

names! {
    /// Why the directory was scanned.
    ScanReason {
        /// The kernel told of a change, or SIGHUP asked.
        Event = "event",
        /// Some time has passed: reconciling, or polling.
        Timer = "timer",
        /// A file that is landing, young or gone has to be looked at again.
        Recheck = "recheck",
        /// The path has come to mean another directory.
        Moved = "moved",
    }
}

names! {
    /// How a query ended.
    Outcome {
        /// With its answer, to the last byte.
        Ok = "ok",
        /// The request or its statement is wrong, or not allowed.
        Refused = "refused",
        /// Its time was over.
        Timeout = "timeout",
        /// By `DELETE /v1/queries/{id}`.
        Cancelled = "cancelled",
        /// The client left before the end.
        Gone = "gone",
        /// It was not run: overload, nothing to serve yet, a mart that changed under it.
        Unavailable = "unavailable",
        /// By a failure of martd's own, or for want of memory.
        Error = "error",
    }
}

names! {
    /// What the cache had for a query.
    CacheResult {
        /// The answer.
        Hit = "hit",
        /// Nothing.
        Miss = "miss",
        /// The same query, under way.
        Collapsed = "collapsed",
        /// Nothing was needed: the client has the answer.
        Revalidated = "revalidated",
        /// It was not asked: the answer may differ the next time.
        Bypass = "bypass",
    }
}

names! {
    /// Why a query was turned away.
    Shed {
        /// As many wait as may.
        QueueFull = "queue-full",
        /// It had waited as long as it might take.
        QueueWait = "queue-wait",
    }
}

/// The formats of answers, and the one of queries that have none.
const FORMATS: [&str; 6] = ["json", "ndjson", "csv", "arrow", "postgres", NO_FORMAT];
/// The format of a query that was refused before its format was known.
pub const NO_FORMAT: &str = "none";

/// The counters. A clone counts on the same ones.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Counters>);

/// Declares each metric once: how it begins, its name, and what it tells.
macro_rules! counters {
    ($($field:ident: $type:ty = $start:expr, $name:literal, $help:literal;)*) => {
        /// What [`Metrics`] point to.
        #[derive(Debug)]
        pub struct Counters {
            /// When this process began to count.
            pub(crate) started: Timestamp,
            /// What pins take.
            pub(crate) pins: Arc<Budget>,
            /// What tables take.
            pub(crate) tables: Arc<TableBudget>,
            $(pub(crate) $field: $type,)*
        }

        impl Counters {
            fn new(pins: Arc<Budget>, tables: Arc<TableBudget>) -> Self {
                Self { started: Timestamp::now(), pins, tables, $($field: $start,)* }
            }

            /// Adds all of them to a registry.
            pub(crate) fn register(&self, registry: &mut Registry) {
                $(registry.register($name, $help, self.$field.clone());)*
            }
        }
    };
}

counters! {
    scans: Family<Labels<1>, Counter> = labelled("reason", ScanReason::ALL.map(ScanReason::name)),
        "martd_scans", "Scans of the mart directory by reason";
    unreadable: Counter = Counter::default(),
        "martd_scan_failures", "Scans that failed because the mart directory could not be read";
    publishes: Counter = Counter::default(),
        "martd_publishes", "Snapshots swapped in";
    publish_failures: Counter = Counter::default(),
        "martd_publish_failures", "Snapshots that could not be made; each is tried again";
    visible: Histogram = Histogram::new(VISIBLE_SECONDS), "martd_replace_to_visible_seconds",
        "From the replacement of a mart (or the end of its build) to its visibility";
    live_snapshots: Gauge = Gauge::default(), "martd_snapshots_live",
        "Snapshots in memory: the current, those retained, those still read";
    queries: Family<Labels<2>, Counter> = Family::default(),
        "martd_queries", "Queries by outcome and format";
    query_seconds: Histogram = Histogram::new(QUERY_SECONDS), "martd_query_duration_seconds",
        "From the arrival of a query to the last byte of its answer";
    wait_seconds: Histogram = Histogram::new(WAIT_SECONDS),
        "martd_query_queue_wait_seconds", "How long queries waited for their slot";
    rows: Counter = Counter::default(),
        "martd_query_rows", "Rows in the answers of queries";
    bytes: Counter = Counter::default(),
        "martd_query_bytes", "Bytes of the answers of queries, as sent";
    cache: Family<Labels<1>, Counter> = labelled("result", CacheResult::ALL.map(CacheResult::name)),
        "martd_cache_requests", "What the result cache had for queries";
    shed: Family<Labels<1>, Counter> = labelled("reason", Shed::ALL.map(Shed::name)),
        "martd_requests_shed", "Queries turned away by reason";
    problems: Family<Labels<1>, Counter> = Family::default(),
        "martd_problems", "Requests that met a problem, by its type";
    responses: Family<[(&'static str, String); 2], Counter> = Family::default(),
        "martd_http_responses", "Answers by route and status";
    connections: Gauge = Gauge::default(),
        "martd_connections", "Connections that are open";
    accepted: Counter = Counter::default(),
        "martd_connections_accepted", "Connections accepted";
    accept_errors: Counter = Counter::default(), "martd_accept_failures",
        "Failures to accept a connection, for example for lack of descriptors";
    event_listeners: Gauge = Gauge::default(),
        "martd_event_listeners", "Clients that listen to /v1/events";
}

impl Deref for Metrics {
    type Target = Counters;

    fn deref(&self) -> &Counters {
        &self.0
    }
}

impl Metrics {
    /// Counters at zero. `pins` is what the refresh thread pins with, `tables` what it has tables built
    /// with; `problems` are the slugs of all problems.
    pub fn new(
        pins: Arc<Budget>,
        tables: Arc<TableBudget>,
        problems: impl IntoIterator<Item = &'static str>,
    ) -> Self {
        let mut counters = Counters::new(pins, tables);
        counters.problems = labelled("type", problems);
        for outcome in Outcome::ALL {
            for format in FORMATS {
                drop(counters.queries.get_or_create(&query_labels(outcome, format)));
            }
        }
        Self(Arc::new(counters))
    }

    /// The directory was scanned.
    pub fn scanned(&self, reason: ScanReason) {
        self.scans.get_or_create(&[("reason", reason.name())]).inc();
    }

    /// What was replaced at `since` has just become visible.
    pub fn visible_since(&self, since: Timestamp) {
        let elapsed = Timestamp::now().duration_since(since).as_secs_f64();
        if elapsed >= 0.0 {
            self.visible.observe(elapsed);
        }
    }

    /// Counts a snapshot as alive until the guard is dropped.
    pub fn live_snapshot(&self) -> Counted {
        Counted::of(&self.live_snapshots)
    }

    /// A query ended this long after it came.
    pub fn query_ended(&self, outcome: Outcome, format: &'static str, elapsed: Duration) {
        self.queries.get_or_create(&query_labels(outcome, format)).inc();
        self.query_seconds.observe(elapsed.as_secs_f64());
    }

    /// A query was turned away.
    pub fn shed(&self, reason: Shed) {
        self.shed.get_or_create(&[("reason", reason.name())]).inc();
    }

    /// The cache was asked.
    pub fn cache(&self, result: CacheResult) {
        self.cache.get_or_create(&[("result", result.name())]).inc();
    }

    /// A request was answered.
    pub fn responded(&self, route: &'static str, status: u16) {
        let labels = [("route", route.to_owned()), ("code", status.to_string())];
        self.responses.get_or_create(&labels).inc();
    }

    /// A request met a problem.
    pub fn problem(&self, slug: &'static str) {
        self.problems.get_or_create(&[("type", slug)]).inc();
    }

    /// Counts a connection as open until the guard is dropped.
    pub fn connection(&self) -> Counted {
        self.accepted.inc();
        Counted::of(&self.connections)
    }

    /// Counts a listener to events until the guard is dropped.
    pub fn event_listener(&self) -> Counted {
        Counted::of(&self.event_listeners)
    }
}

/// Something that is counted as long as this lives.
#[derive(Debug)]
pub struct Counted(Gauge);

impl Counted {
    fn of(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn query_labels(outcome: Outcome, format: &'static str) -> Labels<2> {
    [("outcome", outcome.name()), ("format", format)]
}

fn labelled(
    name: &'static str,
    values: impl IntoIterator<Item = &'static str>,
) -> Family<Labels<1>, Counter> {
    let family = Family::default();
    for value in values {
        drop(family.get_or_create(&[(name, value)]));
    }
    family
}
