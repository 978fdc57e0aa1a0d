//! One query from its arrival to the last byte of its answer.

use std::thread;
use std::time::Instant;

use super::body::Aborted;
use super::exchange::RequestRecord;
use super::problem::Problem;
use crate::encode::Format;
use crate::metrics::{Metrics, NO_FORMAT, Outcome};

/// Counts a query when it is dropped. Until told otherwise, its client has left.
#[derive(Debug)]
pub(super) struct MetricsGuard {
    metrics: Metrics,
    record: RequestRecord,
    started: Instant,
    format: &'static str,
    outcome: Outcome,
}

impl MetricsGuard {
    pub(super) fn start(metrics: Metrics, record: RequestRecord) -> Self {
        Self { metrics, record, started: Instant::now(), format: NO_FORMAT, outcome: Outcome::Gone }
    }

    /// What is told of the query.
    pub(super) fn record(&self) -> &RequestRecord {
        &self.record
    }

    /// When the query came.
    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// The format of its answer is known.
    pub(super) fn in_format(&mut self, format: Format) {
        self.format = format.name();
    }

    /// It was answered with a problem.
    pub(super) fn failed(&mut self, problem: &Problem) {
        self.outcome = problem.outcome();
    }

    /// A part of its answer was sent.
    pub(super) fn sent_part(&self, bytes: usize) {
        self.metrics.bytes.inc_by(bytes as u64);
    }

    /// All of its answer was sent.
    pub(super) fn ended(&mut self) {
        self.metrics.rows.inc_by(self.record.lock().rows);
        self.outcome = Outcome::Ok;
    }

    /// Its answer broke off.
    pub(super) fn broke_off(&mut self, aborted: &Aborted) {
        self.metrics.rows.inc_by(self.record.lock().rows);
        self.outcome = aborted.outcome;
    }
}

impl Drop for MetricsGuard {
    fn drop(&mut self) {
        let outcome = if thread::panicking() { Outcome::Error } else { self.outcome };
        self.metrics.query_ended(outcome, self.format, self.started.elapsed());
    }
}
