//! One query: validated, checked against its snapshot, run, encoded and compressed, part by part.

use std::time::Instant;

use super::protocol::{Blame, End, PART_BYTES, Parameters, QueryError, QueryJob, StatementFailure};
use super::scope::Scope;
use super::snapshot::{EngineSnapshot, Pooled};
use crate::duck::{
    self, DuckError, ErrorKind, Interrupt, ResultColumn, Rows, Statement, Value, quote_identifier,
};
use crate::encode::postgres::Form;
use crate::encode::{Compressor, EncodeError, Encoder, Summary};
use crate::hooks;
use crate::sql_gate::{Asks, Dialect, Rejection, ValidatedStatement};

/// An answer up to this size is sent as a whole, and can be kept or made again. A larger one is
/// streamed.
const WHOLE_BYTES: usize = 4 << 20;

/// Where an answer goes.
pub(super) trait Sink {
    /// From here until [`end`](Self::end) this stops the statement.
    ///
    /// # Errors
    /// [`QueryError::Cancelled`] when it is to be stopped already.
    fn begin(&mut self, interrupt: Interrupt) -> Result<(), StatementFailure>;

    /// The statement is over: on its connection the next one runs, which may be another client's.
    fn end(&mut self);

    /// Whether a part was sent.
    fn has_begun(&self) -> bool;

    /// Sends a part that others follow, after which there are so many rows.
    ///
    /// # Errors
    /// When nobody takes it.
    fn part(&mut self, bytes: &[u8], rows: u64) -> Result<(), StatementFailure>;
}

/// Answers a query. When memory runs out before anything was sent, `free` gives up what it can, and the
/// query is run once more: a prepared statement that is kept holds hash tables and the like of its last
/// run, which DuckDB frees with the statement alone.
///
/// # Errors
/// Why not, and whose doing it is.
pub(super) fn answer_with_room(
    snapshot: &EngineSnapshot,
    statement: &ValidatedStatement,
    job: &QueryJob,
    sink: &mut impl Sink,
    free: impl FnOnce(),
) -> Result<(End, Vec<u8>), StatementFailure> {
    match answer(snapshot, statement, job, sink) {
        Err(StatementFailure { error: QueryError::OutOfMemory, .. }) if !sink.has_begun() => {
            free();
            answer(snapshot, statement, job, sink)
        }
        outcome => outcome,
    }
}

/// Answers a query; returns the last part, or all of a small answer.
fn answer(
    snapshot: &EngineSnapshot,
    statement: &ValidatedStatement,
    job: &QueryJob,
    sink: &mut impl Sink,
) -> Result<(End, Vec<u8>), StatementFailure> {
    let began = Instant::now();
    snapshot.check(statement)?;
    let explain = |error: DuckError| explain(&job.sql, &error);
    let explain = |error: DuckError| explain_of(statement, explain(error));
    let mut pooled = connection(snapshot, statement.asks, &job.scope).map_err(explain)?;
    sink.begin(pooled.connection.interrupt_handle())?;
    hooks::abort_at(&job.sql);
    let text = statement.redirected.as_ref().unwrap_or(&job.sql);
    let outcome = pooled.prepare(text).map_err(explain).and_then(|mut prepared| {
        let outcome = bind(&mut prepared.statement, statement, job)
            .and_then(|()| prepared.statement.execute().map_err(explain))
            .and_then(|rows| write(rows, snapshot, (job, statement.asks), began, sink));
        if statement.keep_prepared && outcome.is_ok() {
            pooled.keep(prepared);
        }
        outcome
    });
    sink.end();
    // After a fatal error the whole database is of no use.
    if statement.asks == Asks::Marts
        && outcome.as_ref().err().is_none_or(|failure| failure.blame == Blame::Request)
    {
        snapshot.give_back(pooled);
    }
    outcome
}

/// A connection to what a statement asks.
pub(super) fn connection(
    snapshot: &EngineSnapshot,
    asks: Asks,
    scope: &Scope,
) -> Result<Pooled, DuckError> {
    match asks {
        Asks::Marts => snapshot.connection(scope),
        Asks::Catalog => snapshot.catalog_connection(scope),
    }
}

/// What the catalog does not know is no fault of the statement's. Where in its text it is nobody can say
/// if DuckDB was given another.
pub(super) fn explain_of(
    statement: &ValidatedStatement,
    failure: StatementFailure,
) -> StatementFailure {
    let is_other = statement.dialect == Dialect::Postgres && statement.redirected.is_some();
    match failure.error {
        QueryError::Sql { message, .. } if statement.asks == Asks::Catalog => {
            let unknown = ["Catalog Error: ", "Binder Error: ", "Not implemented Error: "];
            match unknown.iter().find_map(|kind| message.strip_prefix(kind)) {
                Some(what) => {
                    Rejection::Catalog(format!("of the catalog: {}", first_line(what))).into()
                }
                None => QueryError::Sql { message, position: None }.into(),
            }
        }
        QueryError::Sql { message, .. } if is_other => {
            // Nor has the client written the line that DuckDB shows.
            let message = message.split("\n\nLINE ").next().unwrap_or_default().to_owned();
            QueryError::Sql { message, position: None }.into()
        }
        _ => failure,
    }
}

/// Fetches, encodes and compresses, and sends all but the last part.
fn write(
    mut rows: Rows<'_>,
    snapshot: &EngineSnapshot,
    (job, asks): (&QueryJob, Asks),
    began: Instant,
    sink: &mut impl Sink,
) -> Result<(End, Vec<u8>), StatementFailure> {
    check_types(rows.columns())?;
    let best = job.codings.best;
    let mut compressor = Compressor::new(best);
    let (mut out, mut sent_bytes, mut truncated) = (Vec::new(), 0_u64, false);
    let form = Form { binary: &job.binary, oids: asks == Asks::Catalog };
    let mut encoder = Encoder::begin(job.format, &mut out, rows.columns(), form)?;
    while let Some(chunk) = rows.next_chunk().map_err(|error| explain(&job.sql, &error))? {
        let bytes = sent_bytes + (out.len() + encoder.kept_bytes()) as u64;
        let has_room = bytes <= job.max_bytes;
        let most = job.limit.unwrap_or(job.max_rows);
        let room = if has_room { most - encoder.rows() } else { 0 };
        let take = chunk.rows().min(usize::try_from(room).unwrap_or(usize::MAX));
        truncated = take < chunk.rows();
        // Short and complete to look at is what an answer never is, unless its client said where.
        if truncated && !job.format.tells_truncation() {
            if !has_room {
                let size = format!("{} bytes (MARTD_MAX_RESULT)", job.max_bytes);
                return Err(QueryError::AnswerTooLarge(size).into());
            }
            if job.limit.is_none() {
                let size = format!("{} rows (MARTD_MAX_ROWS)", job.max_rows);
                return Err(QueryError::AnswerTooLarge(size).into());
            }
        }
        encoder.chunk(&mut out, chunk, take)?;
        if truncated {
            break;
        }
        if out.len() >= if sent_bytes == 0 { WHOLE_BYTES } else { PART_BYTES } {
            sent_bytes += out.len() as u64;
            let packed = compressor.part(&out);
            for part in packed.as_deref().unwrap_or(&out).chunks(PART_BYTES) {
                sink.part(part, encoder.rows())?;
            }
            out.clear();
        }
    }
    let rows = encoder.rows();
    let elapsed = job.elapsed + began.elapsed();
    encoder.end(&mut out, Summary { truncated, snapshot: snapshot.id(), elapsed })?;
    let coding = if sent_bytes > 0 { best } else { job.codings.for_whole(out.len()) };
    let packed = if coding == best { compressor.last(&out) } else { None };
    let mut last = packed.unwrap_or(out);
    if sent_bytes > 0 {
        while last.len() > PART_BYTES {
            let rest = last.split_off(PART_BYTES);
            sink.part(&last, rows)?;
            last = rest;
        }
    }
    Ok((End { coding, truncated, rows }, last))
}

pub(super) fn check_types(columns: &[ResultColumn]) -> Result<(), QueryError> {
    let found = columns.iter().find_map(|column| Some((&column.name, column.ty.unsupported()?)));
    let Some((name, ty)) = found else { return Ok(()) };
    let name = quote_identifier(name);
    let cast = format!("{name}::{}", if ty == "VARIANT" { "JSON" } else { "VARCHAR" });
    Err(QueryError::NoForm(format!(
        "no format has {ty}, which column {name} has: cast it, {cast}; with all other columns, \
         SELECT * REPLACE ({cast} AS {name})"
    )))
}

fn bind(
    statement: &mut Statement,
    validated: &ValidatedStatement,
    job: &QueryJob,
) -> Result<(), StatementFailure> {
    let parameters = &job.parameters;
    let names = statement.parameter_names();
    let moment = validated.moment.map(|number| number.to_string());
    let own = names.len() - usize::from(moment.is_some());
    let value_of = |index: usize, name: &str| match parameters {
        Parameters::Positional(values) => match name.parse::<usize>() {
            Ok(number) => values.get(number - 1).ok_or_else(|| {
                format!("the statement has parameter ${number}, but {} were given", values.len())
            }),
            Err(_) => Err(format!("parameter ${name} is named; give params as an object")),
        },
        Parameters::Named(values) => values
            .get(name)
            .ok_or_else(|| format!("parameter ${name} (number {index}) is missing from params")),
    };
    for (name, index) in names.iter().zip(1..) {
        if Some(name) == moment.as_ref() {
            let moment = Value::BigInt(job.moment.unwrap_or_default());
            statement.bind(index, &moment).map_err(|error| explain("", &error))?;
            continue;
        }
        let value = value_of(index, name).map_err(QueryError::Parameter)?;
        statement.bind(index, value).map_err(|error| match error.kind() {
            ErrorKind::Statement => StatementFailure::from(QueryError::Parameter(format!(
                "parameter ${name} cannot be bound: {error}"
            ))),
            _ => explain("", &error),
        })?;
    }
    let surplus = match parameters {
        Parameters::Positional(values) => {
            (values.len() > own).then(|| format!("number {}", own + 1))
        }
        Parameters::Named(values) => {
            values.keys().find(|key| !names.contains(key)).map(|key| format!("${key}"))
        }
    };
    match surplus {
        Some(name) => Err(StatementFailure::from(QueryError::Parameter(format!(
            "parameter {name} was given, but the statement has no such parameter"
        )))),
        None => Ok(()),
    }
}

/// What an error of DuckDB's says, and whose doing it is. The kind is DuckDB's, never read from words
/// that a client can write.
pub(super) fn explain(sql: &str, error: &DuckError) -> StatementFailure {
    let message = without_paths(error.message());
    match error.kind() {
        ErrorKind::Interrupted => QueryError::Cancelled.into(),
        ErrorKind::OutOfMemory => QueryError::OutOfMemory.into(),
        ErrorKind::Io => QueryError::Internal(message).into(),
        ErrorKind::Statement => {
            let position = duck::position::of_caret(sql, error.message());
            QueryError::Sql { message, position }.into()
        }
        ErrorKind::Internal | ErrorKind::Fatal => StatementFailure {
            blame: if error.is_invalidated() { Blame::Victim } else { Blame::Culprit },
            error: QueryError::EngineFailed(first_line(&message)),
        },
    }
}

/// What the validator says, and whose doing it is.
pub(super) fn explain_rejection(rejection: Rejection) -> StatementFailure {
    let blame = match rejection {
        // DuckDB's parser failed, which nobody can rely on any more.
        Rejection::Failed(_) => Blame::Culprit,
        _ => Blame::Request,
    };
    let error = match rejection {
        Rejection::Failed(message) => QueryError::EngineFailed(first_line(&message)),
        other => QueryError::Rejected(other),
    };
    StatementFailure { error, blame }
}

/// DuckDB's internal errors end with a stack trace.
fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().to_owned()
}

/// Descriptors mean nothing to a client.
fn without_paths(message: &str) -> String {
    const PREFIX: &str = "/proc/self/fd/";
    let mut parts = message.split(PREFIX);
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        clean.push_str("(table)");
        clean.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    clean
}

impl From<Rejection> for StatementFailure {
    fn from(rejection: Rejection) -> Self {
        QueryError::Rejected(rejection).into()
    }
}

impl From<QueryError> for StatementFailure {
    fn from(error: QueryError) -> Self {
        Self { error, blame: Blame::Request }
    }
}

impl From<EncodeError> for StatementFailure {
    fn from(error: EncodeError) -> Self {
        Self::from(match error {
            EncodeError::TooLarge => QueryError::OutOfMemory,
            EncodeError::NoSuchType(_) => QueryError::NoForm(error.to_string()),
            EncodeError::Invalid(_) => QueryError::Internal(error.to_string()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;
    use crate::engine::tests::{job, open, validate};

    /// Takes everything.
    #[derive(Default)]
    struct Parts {
        bytes: Vec<u8>,
        /// Whether a statement can be stopped.
        is_running: Rc<Cell<bool>>,
    }

    impl Sink for Parts {
        fn begin(&mut self, _: Interrupt) -> Result<(), StatementFailure> {
            self.is_running.set(true);
            Ok(())
        }

        fn end(&mut self) {
            self.is_running.set(false);
        }

        fn has_begun(&self) -> bool {
            !self.bytes.is_empty()
        }

        fn part(&mut self, bytes: &[u8], _: u64) -> Result<(), StatementFailure> {
            assert!(!bytes.is_empty() && bytes.len() <= PART_BYTES);
            self.bytes.extend_from_slice(bytes);
            Ok(())
        }
    }

    #[test]
    fn an_answer_is_the_same_in_parts_and_whole() {
        let snapshot =
            open(&[("a", "SELECT range AS x, repeat('x', 1000) AS y FROM range(20000)")]);
        for sql in ["SELECT x FROM mart.a ORDER BY x", "SELECT x, y FROM mart.a ORDER BY x"] {
            let mut parts = Parts::default();
            let job = job(sql);
            let (end, last) = answer(&snapshot, &validate(sql), &job, &mut parts).expect("rows");
            assert_eq!((end.rows, end.truncated), (20_000, false));
            assert_eq!(parts.bytes.is_empty(), !sql.contains('y'));
            let text = String::from_utf8([parts.bytes, last].concat()).expect("UTF-8");
            let first = text.lines().skip(1).filter_map(|line| line.split(',').next());
            assert!(first.eq((0..20_000).map(|x| x.to_string())), "{sql}");
        }
    }

    #[test]
    fn duckdbs_kind_of_error_decides_and_never_its_words() {
        let failure = |kind, message: &str| explain("SELECT 1", &DuckError::new(kind, message));
        let words = "FATAL Error: IO Error: Out of Memory Error";
        for (kind, blame) in [
            (ErrorKind::Statement, Blame::Request),
            (ErrorKind::Io, Blame::Request),
            (ErrorKind::OutOfMemory, Blame::Request),
            (ErrorKind::Interrupted, Blame::Request),
            (ErrorKind::Internal, Blame::Culprit),
            (ErrorKind::Fatal, Blame::Culprit),
        ] {
            assert_eq!(failure(kind, words).blame, blame, "{kind:?}");
        }
        assert!(matches!(failure(ErrorKind::Statement, words).error, QueryError::Sql { .. }));
        assert_eq!(failure(ErrorKind::OutOfMemory, words).error, QueryError::OutOfMemory);
        let io = failure(ErrorKind::Io, "cannot read /proc/self/fd/12: gone").error;
        assert_eq!(io, QueryError::Internal("cannot read (table): gone".to_owned()));
    }

    #[test]
    fn only_the_statement_that_ends_duckdb_is_blamed() {
        let snapshot = open(&[("t", "SELECT range AS id FROM range(100)")]);
        let run = |sql: &str, keep: bool| {
            let mut statement = validate(sql);
            statement.keep_prepared |= keep;
            answer(&snapshot, &statement, &job(sql), &mut Parts::default())
        };
        let asof = "SELECT count(*) FROM mart.t a ASOF JOIN mart.t b \
                    ON a.id % 7 = b.id % 7 AND a.id > b.id";
        for _ in 0..3 {
            assert!(run(asof, false).is_ok(), "it is prepared anew each time");
        }
        let culprit = (0..9).find_map(|_| run(asof, true).err()).expect("an internal error");
        assert_eq!(culprit.blame, Blame::Culprit, "{culprit:?}");
        let victim = run("SELECT 1", false).expect_err("refused");
        assert_eq!(victim.blame, Blame::Victim, "{victim:?}");
    }

    #[test]
    fn kept_statements_give_their_memory_to_others() {
        let snapshot = open(&[("t", "SELECT range AS id FROM range(100000)")]);
        let run = |sql: &str| {
            let mut parts = Parts::default();
            let is_running = Rc::clone(&parts.is_running);
            let free = || {
                assert!(!is_running.get(), "what is to stop the one may stop another");
                snapshot.forget_prepared();
            };
            answer_with_room(&snapshot, &validate(sql), &job(sql), &mut parts, free)
        };
        // Each holds 25 MB of 64 once it has run, until it is run again or dropped.
        for number in 0..6 {
            let sql = format!(
                "WITH a AS (SELECT id, repeat('x', 200) || id AS s FROM mart.t)
                 SELECT count(*) + {number} FROM a x JOIN a y USING (s)"
            );
            let (end, _) = run(&sql).unwrap_or_else(|failure| panic!("{number}: {failure:?}"));
            assert_eq!(end.rows, 1);
        }
        let bomb = "SELECT length(list(repeat('x', 2000) || id)::VARCHAR) FROM mart.t";
        let failure = run(bomb).expect_err("it needs more than there is");
        assert_eq!(failure.error, QueryError::OutOfMemory);
        assert!(run("SELECT count(*) FROM mart.t").is_ok());
    }
}
