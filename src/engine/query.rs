//! One statement on one connection of a snapshot's instance.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::instance::{Instance, Scope};
use super::prepared::Pooled;
use crate::duck::Chunk;
use crate::duck::Column;
use crate::duck::Value;
use crate::duck::position;
use crate::duck::{DuckError, ErrorKind, Interrupt, Rows, Statement};
use crate::hooks;
use crate::sql_gate::{self, TableName, ValidatedStatement};

/// The values that a client binds.
#[derive(Debug, Clone, PartialEq)]
pub enum Parameters {
    /// For `?` and `$1`, in order.
    Positional(Vec<Value>),
    /// For `$name`.
    Named(BTreeMap<String, Value>),
}

impl Default for Parameters {
    fn default() -> Self {
        Self::Positional(Vec::new())
    }
}

/// Why a statement was not answered.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The statement is wrong.
    #[error("{message}")]
    Sql {
        /// DuckDB's message.
        message: String,
        /// The byte of the statement that it points to.
        position: Option<usize>,
    },
    /// A parameter is missing or was not asked for.
    #[error("{0}")]
    Parameter(String),
    /// A table that is none, or that cannot be read under row scoping.
    #[error("{message}")]
    NotAllowed {
        /// Why not.
        message: String,
        /// The byte of the statement at which it is named.
        position: Option<usize>,
    },
    /// The statement needed more memory than it may have.
    #[error("the statement needs more memory than it may have")]
    OutOfMemory,
    /// The statement was stopped from outside.
    #[error("the statement was stopped")]
    Interrupted,
    /// Something that is not the client's doing.
    #[error("{0}")]
    Internal(String),
}

impl QueryError {
    /// A mistake that has no place in the statement.
    pub(crate) fn sql(message: String) -> Self {
        Self::Sql { message, position: None }
    }
}

/// A connection that one request has to itself. Goes back to its instance when dropped.
#[derive(Debug)]
pub struct Session {
    instance: Arc<Instance>,
    connection: Option<Pooled>,
    running: Interrupter,
}

/// Stops the statement of a session, and never that of the connection's next user.
#[derive(Debug, Clone)]
pub struct Interrupter(Arc<Mutex<Option<Interrupt>>>); // `None` when the session is over

impl Interrupter {
    /// Asks the statement to stop. DuckDB looks at the request between two chunks and forgets it
    /// between two steps, so repeat it until this returns `false`: the session is over.
    pub fn interrupt(&self) -> bool {
        let running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(interrupt) = &*running {
            interrupt.interrupt();
        }
        running.is_some()
    }

    fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Session {
    pub(super) fn new(instance: Arc<Instance>, pooled: Pooled) -> Self {
        let interrupt = pooled.connection.interrupt_handle();
        let running = Interrupter(Arc::new(Mutex::new(Some(interrupt))));
        Self { instance, connection: Some(pooled), running }
    }

    /// A handle that stops this session's statement from another thread.
    pub fn interrupter(&self) -> Interrupter {
        self.running.clone()
    }

    /// Runs a statement that passed the gate and hands its rows to `consume`. Blocks: run it on a
    /// thread with a 16 MiB stack, for DuckDB's binder recurses.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn query<R>(
        &mut self,
        sql: &str,
        checked: &Arc<ValidatedStatement>,
        parameters: &Parameters,
        scope: &Scope,
        consume: impl FnOnce(&mut Answer<'_, '_>) -> Result<R, QueryError>,
    ) -> Result<R, QueryError> {
        let instance = Arc::clone(&self.instance);
        let explain = |error: DuckError| explain(&instance, sql, &error);
        if hooks::fails("engine") {
            return Err(explain(DuckError::new(
                ErrorKind::Fatal,
                "FATAL Error: a test asked for it",
            )));
        }
        let pooled = self.connection.as_mut().expect("taken on drop alone");
        let tables = instance.tables_of(checked)?;
        let mut prepared = instance.prepare(pooled, sql, &tables, scope).map_err(explain)?;
        let outcome = execute(&mut prepared.statement, parameters, &explain).and_then(|rows| {
            let answer = &mut Answer { rows, sql, instance: &instance };
            if let Some((name, ty)) = unsupported(answer.columns()) {
                return Err(QueryError::sql(format!(
                    "Not implemented Error: column \"{name}\" has type {ty}; cast it to VARCHAR"
                )));
            }
            consume(answer)
        });
        if checked.keep_prepared {
            pooled.keep(prepared);
        }
        outcome
    }
}

fn execute<'s>(
    statement: &'s mut Statement,
    parameters: &Parameters,
    explain: &impl Fn(DuckError) -> QueryError,
) -> Result<Rows<'s>, QueryError> {
    bind(statement, parameters)?;
    statement.execute().map_err(explain)
}

/// The rows of a statement, with DuckDB's errors explained.
#[derive(Debug)]
pub struct Answer<'s, 'i> {
    rows: Rows<'s>,
    sql: &'i str,
    instance: &'i Instance,
}

impl Answer<'_, '_> {
    /// Names and types of the columns.
    pub fn columns(&self) -> &[Column] {
        self.rows.columns()
    }

    /// The next chunk of at most 2,048 rows; `None` at the end.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>, QueryError> {
        let (instance, sql) = (self.instance, self.sql);
        self.rows.next_chunk().map_err(|error| explain(instance, sql, &error))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.running.end();
        if let Some(connection) = self.connection.take() {
            self.instance.give_back(connection);
        }
    }
}

pub(super) fn resolve(instance: &Instance, name: &TableName) -> Result<usize, QueryError> {
    let found = name.schema.as_deref().and_then(|schema| instance.table(schema, &name.name));
    found.ok_or_else(|| {
        let hint = match instance.similar(&name.name) {
            Some(similar) => format!("Did you mean \"{similar}\"?"),
            None => "GET /v1/snapshot lists the marts.".to_owned(),
        };
        if let Some(why) = sql_gate::looks_like_a_file(name) {
            let message = format!("{} is not a mart, and {why}. {hint}", name.name);
            return QueryError::NotAllowed { message, position: name.position };
        }
        let message =
            format!("Catalog Error: Table with name {} does not exist!\n{hint}", name.name);
        QueryError::Sql { message, position: name.position }
    })
}

fn explain(instance: &Instance, sql: &str, error: &DuckError) -> QueryError {
    if error.is_interrupt() {
        return QueryError::Interrupted;
    }
    if error.is_out_of_memory() {
        return QueryError::OutOfMemory;
    }
    instance.note(error);
    let message = without_paths(error.message());
    if error.is_fatal() || error.is_of_system() {
        QueryError::Internal(message)
    } else {
        let position = position::of_caret(sql, error.message());
        QueryError::Sql { message, position }
    }
}

/// A message without the descriptors that DuckDB knows tables by.
fn without_paths(message: &str) -> String {
    const PREFIX: &str = "/proc/self/fd/";
    let mut clean = String::with_capacity(message.len());
    let mut rest = message;
    while let Some(start) = rest.find(PREFIX) {
        let digits = rest[start + PREFIX.len()..].bytes().take_while(u8::is_ascii_digit).count();
        let end = start + PREFIX.len() + digits;
        clean.push_str(&rest[..start]);
        clean.push_str("(table)");
        rest = &rest[end..];
    }
    clean.push_str(rest);
    clean
}

fn unsupported(columns: &[Column]) -> Option<(String, String)> {
    columns
        .iter()
        .find_map(|column| Some((column.name.clone(), column.ty.unsupported()?.to_owned())))
}

fn bind(statement: &mut Statement, parameters: &Parameters) -> Result<(), QueryError> {
    let names = statement.parameter_names();
    let value_of = |place: usize, name: &str| match parameters {
        Parameters::Positional(values) => match name.parse::<usize>() {
            Ok(number) => values.get(number - 1).ok_or_else(|| {
                format!("the statement has parameter ${number}, but {} were given", values.len())
            }),
            Err(_) => Err(format!("parameter ${name} is named; give params as an object")),
        },
        Parameters::Named(values) => values
            .get(name)
            .ok_or_else(|| format!("parameter ${name} (number {place}) is missing from params")),
    };
    for (name, place) in names.iter().zip(1..) {
        let value = value_of(place, name).map_err(QueryError::Parameter)?;
        statement.bind(place, value).map_err(|error| match error {
            error if error.is_out_of_memory() => QueryError::OutOfMemory,
            error => QueryError::Parameter(format!("parameter ${name} cannot be bound: {error}")),
        })?;
    }
    let surplus = match parameters {
        Parameters::Positional(values) => {
            (values.len() > names.len()).then(|| format!("number {}", names.len() + 1))
        }
        Parameters::Named(values) => {
            values.keys().find(|key| !names.contains(key)).map(|key| format!("${key}"))
        }
    };
    match surplus {
        Some(name) => Err(QueryError::Parameter(format!(
            "parameter {name} was given, but the statement has no such parameter"
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::fd::{AsFd, AsRawFd};

    use super::*;
    use crate::engine::{Settings, Table};
    use crate::marts::build;
    use crate::sql_gate::StatementKind;

    /// A mart of the rows of a SELECT.
    pub(in crate::engine) fn mart(name: &str, select: &str) -> Table {
        let table = build::table_of(select);
        let (columns, rows) = (table.report().columns.clone(), table.report().rows);
        Table { name: name.to_owned(), schema: None, table, columns, rows, empty: false }
    }

    #[test]
    fn what_duckdb_blames_on_itself_or_its_machine_is_not_the_clients_mistake() {
        let instance =
            Instance::open(&settings(), vec![mart("a", "SELECT 1 AS x")]).expect("an instance");
        let explained =
            |kind, message: &str| explain(&instance, "SELECT 1", &DuckError::new(kind, message));
        for kind in [ErrorKind::Internal, ErrorKind::Fatal, ErrorKind::Io] {
            assert!(matches!(explained(kind, "x"), QueryError::Internal(text) if text == "x"));
        }
        let statement = explained(ErrorKind::Statement, "Conversion Error: IO Error is no number");
        assert!(matches!(statement, QueryError::Sql { .. }), "{statement:?}");
        assert!(matches!(explained(ErrorKind::OutOfMemory, "x"), QueryError::OutOfMemory));
        assert!(matches!(explained(ErrorKind::Interrupted, "x"), QueryError::Interrupted));
    }

    pub(in crate::engine) fn settings() -> Settings {
        Settings {
            memory_bytes: 64 << 20,
            threads: 1,
            temp_dir: None,
            time_zone: "UTC".to_owned(),
            schemas: vec!["mart".to_owned()],
            scoping: None,
        }
    }

    /// The instance with no gate before it, as if a statement had got around that.
    #[test]
    fn the_locked_instance_alone_reads_its_tables_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let other = dir.path().join("other.parquet");
        let duckdb = duckdb::Connection::open_in_memory().expect("DuckDB opens");
        let copy = format!("COPY (SELECT 42 AS x) TO '{}'", other.display());
        duckdb.execute_batch(&copy).expect("a file");
        let table = mart("a", "SELECT 42 AS x");
        let own = format!("/proc/self/fd/{}", table.table.as_fd().as_raw_fd());
        let instance = Instance::open(&settings(), vec![table]).expect("an instance");
        let run = |sql: &str, tables: Vec<TableName>| {
            let checked = Arc::new(ValidatedStatement {
                kind: StatementKind::Select,
                tables,
                cacheable: false,
                parameters: Vec::new(),
                keep_prepared: true,
            });
            let mut session = instance.session().expect("a session");
            let parameters = Parameters::default();
            session.query(sql, &checked, &parameters, &Scope::AllRows, |answer| {
                Ok(answer.next_chunk()?.map_or(0, |chunk| chunk.rows()))
            })
        };
        let mart =
            TableName { schema: Some("mart".to_owned()), name: "a".to_owned(), position: None };
        assert!(run("SELECT x FROM mart.a", vec![mart]).is_ok_and(|rows| rows == 1));

        let written = dir.path().join("written");
        for sql in [
            format!("COPY (SELECT 1) TO '{}'", written.display()),
            format!("COPY (SELECT 1) TO '{own}'"),
            "DROP TABLE t0.main.t".to_owned(),
            "INSERT INTO t0.main.t VALUES (1)".to_owned(),
            format!("EXPORT DATABASE '{}'", written.display()),
            format!("ATTACH '{}'", written.display()),
            format!("SELECT * FROM read_parquet('{}')", other.display()),
            format!("SELECT * FROM '{}'", other.display()),
            "SELECT * FROM read_csv('/etc/passwd')".to_owned(),
            "SELECT * FROM read_text('/proc/self/environ')".to_owned(),
            "SELECT * FROM glob('/*')".to_owned(),
            "INSTALL httpfs".to_owned(),
            "LOAD httpfs".to_owned(),
            "SET enable_external_access = true".to_owned(),
            "SET allowed_paths = ['/']".to_owned(),
            "SET memory_limit = '1TB'".to_owned(),
            "SET GLOBAL threads = 1000".to_owned(),
            "RESET lock_configuration".to_owned(),
        ] {
            assert!(run(&sql, Vec::new()).is_err(), "{sql}");
        }
        let names = std::fs::read_dir(dir.path()).expect("readable").count();
        assert_eq!(names, 1, "something was written");
    }
}
