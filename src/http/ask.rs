//! What another protocol asks through: the same callers, scopes, limits, slots, cache, metrics and log as
//! requests over HTTP have.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Frame;
use parking_lot::Mutex;
use tracing::info;

use super::App;
use super::accept::Negotiated;
use super::access::Caller;
use super::body::BoxBody;
use super::exchange::RequestRecord;
use super::job::QueryTask;
use super::metrics_guard::MetricsGuard;
use super::probes;
use super::problem::{self, Problem};
use super::query;
use super::request::QueryRequest;
use super::request_id;
use crate::catalog::Snapshot;
use crate::duck::TypeName;
use crate::encode::Format;
use crate::engine::{Description, Parameters, Principal, QueryJob, Scope};

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
    pub fn admitted(&self) -> Result<Principal, Problem> {
        let (caller, _) = self.rights()?;
        Ok(caller.principal(&Scope::AllRows))
    }

    fn rights(&self) -> Result<(Caller, Scope), Problem> {
        let Self { app, token, reads, address, .. } = self;
        let caller = Caller::with_token(app.tokens.as_ref(), token.as_deref(), *address)?;
        let scope = caller.scope_of(app.settings.scope_column(), reads)?;
        Ok((caller, scope))
    }

    /// The snapshot that is served now.
    ///
    /// # Errors
    /// When nothing is.
    pub fn snapshot(&self) -> Result<Arc<Snapshot>, Problem> {
        let state = self.app.catalog.load();
        let current = state.snapshot.clone();
        current.ok_or_else(|| probes::not_ready(&self.app, &state))
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
    ) -> Result<Description, Problem> {
        let (caller, scope) = self.rights()?;
        let limit = self.app.settings.query_timeout;
        let deadline = tokio::time::Instant::now() + limit;
        let principal = caller.principal(&scope);
        let _permit = self.app.validating.acquire().await.expect("never closed");
        let asked = (sql.to_owned(), types, scope);
        let described = self.app.engine.describe(&snapshot.lease, asked, principal, deadline);
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
    ) -> Result<PgAnswer, Problem> {
        let mut guard = MetricsGuard::start(self.app.metrics.clone(), RequestRecord::default());
        let negotiated = Negotiated::plain(Format::Postgres);
        guard.in_format(negotiated.format);
        let settings = &self.app.settings;
        guard.record().lock().statement(sql, settings.log_sql);
        let mut record = AnswerLog {
            snapshot: snapshot.id.clone(),
            guard,
            bytes: 0,
            failure: Some("client-gone"),
        };
        let outcome = async {
            let (caller, scope) = self.rights()?;
            let handle = self.app.queries.register(request_id::fresh(), &caller);
            *self.running.lock() = Some((handle.id().to_owned(), caller.clone()));
            let principal = caller.principal(&scope);
            let job = QueryJob {
                sql: sql.to_owned(),
                parameters,
                moment: Some(moment),
                scope,
                format: negotiated.format,
                binary,
                codings: negotiated.codings,
                limit: None,
                max_rows: settings.max_rows,
                max_bytes: settings.max_result_bytes,
                elapsed: Duration::ZERO,
            };
            let query = QueryRequest { job, timeout: settings.query_timeout };
            let (snapshot, started) = (Arc::clone(snapshot), record.guard.started());
            let task = QueryTask { snapshot, query, principal, started };
            let key = query::key(&self.app, &task).await?;
            query::content(&self.app, task, key, handle, &record.guard).await
        };
        match outcome.await {
            Ok((content, _)) => Ok(PgAnswer { record, rest: content.into_body() }),
            Err(problem) => Err(record.failed(&self.app, problem)),
        }
    }

    /// Stops the query under way, if there is one.
    pub fn cancel(&self) {
        let running = self.running.lock().clone();
        if let Some((id, caller)) = running {
            self.app.queries.cancel(&id, &caller);
        }
    }
}

/// An answer on its way. Dropping it stops its query.
pub struct PgAnswer {
    record: AnswerLog,
    rest: BoxBody,
}

impl PgAnswer {
    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// Why it breaks off.
    pub async fn next(&mut self, client: &PgClient) -> Option<Result<Bytes, Problem>> {
        while let Some(frame) = self.rest.frame().await {
            match frame.map(Frame::into_data) {
                Ok(Ok(bytes)) => {
                    self.record.bytes += bytes.len();
                    self.record.guard.sent_part(bytes.len());
                    return Some(Ok(bytes));
                }
                Ok(Err(_trailers)) => {}
                Err(aborted) => {
                    let problem = aborted.problem.clone();
                    let problem = problem.unwrap_or_else(|| Problem::internal(&aborted));
                    return Some(Err(self.record.failed(&client.app, problem)));
                }
            }
        }
        self.record.guard.ended();
        self.record.failure = None;
        None
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
    fn failed(&mut self, app: &App, problem: Problem) -> Problem {
        self.guard.failed(&problem);
        self.failure = Some(problem.slug());
        refused(app, problem)
    }
}

/// Counts it. What clients ask of the catalog and it has not is told, for it is to be added.
fn refused(app: &App, problem: Problem) -> Problem {
    app.metrics.problem(problem.slug());
    if problem.is_of(problem::CATALOG_UNKNOWN) {
        info!(protocol = "postgres", unknown = problem.detail(), "asked of the catalog");
    }
    problem
}

impl Drop for AnswerLog {
    fn drop(&mut self) {
        let Self { snapshot, guard, bytes, failure } = self;
        let told = guard.record().lock();
        let ms = |time: Duration| time.as_micros() as f64 / 1e3;
        info!(
            protocol = "postgres",
            snapshot,
            statement = told.statement,
            sql = told.sql,
            rows = told.rows,
            bytes,
            ms = ms(Instant::now() - guard.started()),
            queue_ms = ms(told.waited),
            problem = failure,
            "answered"
        );
    }
}
