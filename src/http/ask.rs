//! What another protocol asks through: the same callers, scopes, limits, slots, cache, metrics and log as
//! requests over HTTP have.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use tracing::info;

use super::accept::Negotiated;
use super::access::Caller;
use super::exchange::RequestRecord;
use super::job::AnswerStream;
use super::metrics_guard::MetricsGuard;
use super::probes;
use super::problem::{self, Problem};
use super::query::{AcceptedQuery, Content};
use super::request::QueryRequest;
use super::request_id;
use super::{App, Timeouts};
use crate::catalog::Snapshot;
use crate::duck::TypeName;
use crate::encode::Format;
use crate::engine::{Description, Parameters, Principal, Scope};
use crate::metrics::Outcome;

/// Why something was not answered.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Failure(Problem);

impl Failure {
    /// The kind of problem, by the slug that HTTP has for it.
    pub fn slug(&self) -> &'static str {
        self.0.slug()
    }

    /// What went wrong, for the client.
    pub fn detail(&self) -> &str {
        self.0.detail()
    }

    /// The byte of the statement that it is about.
    pub fn position(&self) -> Option<usize> {
        self.0.position()
    }

    /// Whether somebody asked for the end of the query.
    pub fn is_cancelled(&self) -> bool {
        self.0.outcome() == Outcome::Cancelled
    }
}

impl App {
    /// Connections that are open at once.
    pub fn max_connections(&self) -> usize {
        self.settings().max_connections
    }

    /// The largest message of a client, in bytes.
    pub fn max_body_bytes(&self) -> usize {
        usize::try_from(self.settings().max_body_bytes).unwrap_or(usize::MAX)
    }

    /// The longest that a statement may take.
    pub fn query_timeout(&self) -> Duration {
        self.settings().query_timeout
    }

    /// How long clients may take.
    pub fn timeouts(&self) -> Timeouts {
        self.settings().timeouts
    }

    /// The time zone of what they see.
    pub fn time_zone(&self) -> &str {
        &self.settings().time_zone
    }

    /// Whether only those with a token may ask.
    pub fn asks_for_tokens(&self) -> bool {
        self.tokens().is_some()
    }
}

/// Who asks over a connection that lasts.
#[derive(Debug, Clone)]
pub struct PgClient {
    app: App,
    token: Option<String>,
    /// Whose rows they read: a value of the scope column, or `*`.
    reads: String,
    address: Option<IpAddr>,
    /// The query under way.
    running: Arc<Mutex<Option<(String, Caller)>>>,
}

impl PgClient {
    /// A client that says who it is; [`admitted`](Self::admitted) tells whether it may ask.
    pub fn new(app: &App, token: Option<String>, reads: String, address: Option<IpAddr>) -> Self {
        Self { app: app.clone(), token, reads, address, running: Arc::default() }
    }

    /// Who this client is, a token or an address, if it may ask at all. Asked again with each statement:
    /// tokens come and go.
    ///
    /// # Errors
    /// Why it may not.
    pub fn admitted(&self) -> Result<Principal, Failure> {
        let (caller, _) = self.rights().map_err(Failure)?;
        Ok(caller.principal(&Scope::AllRows))
    }

    fn rights(&self) -> Result<(Caller, Scope), Problem> {
        let Self { app, token, reads, address, .. } = self;
        let caller = Caller::with_token(app.tokens(), token.as_deref(), *address)?;
        let scope = caller.scope_of(app.settings().scope_column(), reads)?;
        Ok((caller, scope))
    }

    /// The snapshot that is served now.
    ///
    /// # Errors
    /// When nothing is.
    pub fn snapshot(&self) -> Result<Arc<Snapshot>, Failure> {
        let state = self.app.catalog().load();
        let current = state.snapshot.clone();
        current.ok_or_else(|| Failure(probes::not_ready(&self.app, &state)))
    }

    /// What parameters and columns a statement has, with parameters of these types where it does not
    /// say.
    ///
    /// # Errors
    /// Why that cannot be said.
    pub async fn describe(
        &self,
        snapshot: &Snapshot,
        sql: &str,
        types: Vec<Option<TypeName>>,
    ) -> Result<Description, Failure> {
        let (caller, scope) = self.rights().map_err(Failure)?;
        let limit = self.app.settings().query_timeout;
        let deadline = tokio::time::Instant::now() + limit;
        let principal = caller.principal(&scope);
        let _permit = self.app.validating().acquire().await.expect("never closed");
        let asked = (sql.to_owned(), types, scope);
        let described = self.app.engine().describe(&snapshot.lease, asked, principal, deadline);
        described.await.map_err(|error| refused(&self.app, Problem::of_query(error, limit)))
    }

    /// The rows of a statement of a transaction that began at this moment, in microseconds since 1970. These
    /// columns are in binary form.
    ///
    /// # Errors
    /// Why there are none.
    pub async fn ask(
        &self,
        snapshot: &Arc<Snapshot>,
        (sql, moment): (&str, i64),
        parameters: Parameters,
        binary: Vec<bool>,
    ) -> Result<PgAnswer, Failure> {
        let mut guard = MetricsGuard::start(self.app.metrics().clone(), RequestRecord::default());
        let negotiated = Negotiated::plain(Format::Postgres);
        guard.in_format(negotiated.format);
        let settings = self.app.settings();
        guard.record().statement(sql, settings.log_sql);
        let mut record = AnswerLog {
            snapshot: snapshot.id.clone(),
            guard,
            bytes: 0,
            failure: Some("client-gone"),
        };
        let outcome = async {
            let (caller, scope) = self.rights()?;
            let handle = self.app.queries().register(request_id::fresh(), &caller);
            *self.running() = Some((handle.id().to_owned(), caller.clone()));
            let query = QueryRequest {
                sql: sql.to_owned(),
                parameters,
                moment: Some(moment),
                binary,
                limit: None,
                max_bytes: settings.max_result_bytes,
                timeout: settings.query_timeout,
            };
            let (app, caller) = (&self.app, &caller);
            let asked = AcceptedQuery { app, snapshot, caller, query, negotiated, scope };
            asked.answer(|_| Ok(false), handle, &record.guard).await
        };
        match outcome.await {
            Ok((Content::Whole(stored), ..)) => {
                Ok(PgAnswer { record, rest: Rest::Whole(Some(stored.bytes)) })
            }
            Ok((Content::Stream(stream), ..)) => {
                Ok(PgAnswer { record, rest: Rest::AnswerStream(stream) })
            }
            Ok((Content::Unchanged, ..)) => {
                Err(Failure(Problem::internal("unchanged since never")))
            }
            Err(problem) => Err(record.failed(&self.app, problem)),
        }
    }

    /// Stops the query under way, if there is one.
    pub fn cancel(&self) {
        let running = self.running().clone();
        if let Some((id, caller)) = running {
            self.app.queries().cancel(&id, &caller);
        }
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Option<(String, Caller)>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer on its way. Dropping it stops its query.
pub struct PgAnswer {
    record: AnswerLog,
    rest: Rest,
}

enum Rest {
    Whole(Option<Bytes>),
    AnswerStream(Box<AnswerStream>),
}

impl PgAnswer {
    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// Why it breaks off.
    pub async fn next(&mut self, client: &PgClient) -> Option<Result<Bytes, Failure>> {
        let bytes = match &mut self.rest {
            Rest::Whole(bytes) => bytes.take(),
            Rest::AnswerStream(stream) => loop {
                match stream.frame().await {
                    Some(Ok(frame)) => {
                        // After the trailers there is nothing.
                        if let Ok(bytes) = frame.into_data() {
                            break Some(bytes);
                        }
                    }
                    Some(Err(aborted)) => {
                        let problem = aborted.problem.clone();
                        let problem = problem.unwrap_or_else(|| Problem::internal(&aborted));
                        return Some(Err(self.record.failed(&client.app, problem)));
                    }
                    None => break None,
                }
            },
        };
        match bytes {
            Some(bytes) => {
                self.record.bytes += bytes.len();
                self.record.guard.sent_part(bytes.len());
                Some(Ok(bytes))
            }
            None => {
                self.record.guard.ended();
                self.record.failure = None;
                None
            }
        }
    }
}

/// What is logged of a query when it ends.
struct AnswerLog {
    snapshot: String,
    guard: MetricsGuard,
    bytes: usize,
    /// What became of it: until told otherwise, its client has left.
    failure: Option<&'static str>,
}

impl AnswerLog {
    fn failed(&mut self, app: &App, problem: Problem) -> Failure {
        self.guard.failed(&problem);
        self.failure = Some(problem.slug());
        refused(app, problem)
    }
}

/// Counts it. What clients ask of the catalog and it has not is told, for it is to be added.
fn refused(app: &App, problem: Problem) -> Failure {
    app.metrics().problem(problem.slug());
    if problem.is_of(problem::CATALOG_UNKNOWN) {
        info!(protocol = "postgres", unknown = problem.detail(), "asked of the catalog");
    }
    Failure(problem)
}

impl Drop for AnswerLog {
    fn drop(&mut self) {
        let Self { snapshot, guard, bytes, failure } = self;
        let record = guard.record();
        let ms = |time: Duration| time.as_micros() as f64 / 1e3;
        let (statement, sql) = record.told().unwrap_or_default();
        info!(
            protocol = "postgres",
            snapshot,
            statement,
            sql,
            rows = record.row_count(),
            bytes,
            ms = ms(Instant::now() - guard.started()),
            queue_ms = ms(record.time_waited()),
            problem = failure,
            "answered"
        );
    }
}
