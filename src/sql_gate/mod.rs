//! The statement validator: what a client may ask of DuckDB.
//!
//! **Purpose.** A statement is validated on DuckDB's own parse of it, so nothing is read here in
//! another way than DuckDB will read it. It must be exactly one SELECT, every function must be on a
//! reviewed list, and every table is either a CTE in scope or named in
//! [`ValidatedStatement::tables`]. Before the parse, the lexer checks size and nesting; after it,
//! the complexity budget bounds how large the statement grows: DuckDB cannot be interrupted in what
//! it does with a statement before it runs.
//!
//! **Invariants.**
//! - What is not reviewed is rejected: a node, a field or a function that a new version of DuckDB
//!   brings is an error until somebody has read what it does.
//! - The text that was validated is the text that is prepared: the client's, unchanged, but for the
//!   name of one schema ([`introspection`]) and for what is PostgreSQL's ([`dialect`], [`postgres`]),
//!   after which it is validated anew.
//! - The validator does not know the marts. **The caller must resolve every name in `tables`
//!   against its snapshot, and reject those that are not in it, before DuckDB sees the text**:
//!   otherwise DuckDB would look for a file of that name.
//! - The parse is the engine's as long as no setting of the engine's instance changes the parser
//!   (`max_expression_depth`, `preserve_identifier_case`, `allow_parser_override_extension`,
//!   `lambda_syntax`). The validator parses on an instance of its own that holds nothing.
//!
//! **Callers.** The engine's worker, once for each statement text that it does not remember. The
//! results travel to the front, so they can be serialized, in formats that do not describe
//! themselves, too.
//!
//! **Deliberately absent.** Bounds on what a statement costs while it runs: memory, time and rows
//! are limited where it runs, and an engine that does not stop is replaced. Names of marts, scopes
//! and plans.

use std::fmt;
use std::sync::Arc;

use duckdb::{Config, Connection};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Rejects a statement with a message about this place in it.
macro_rules! reject {
    ($position:expr, $($message:tt)+) => {
        return Err($crate::sql_gate::Rejection::statement(format!($($message)+), $position))
    };
}

mod calls;
mod dialect;
#[cfg(test)]
mod dialect_tests;
#[cfg(test)]
mod duckdb_tests;
mod expressions;
mod functions;
mod introspection;
mod lexer;
mod patterns;
#[cfg(test)]
mod plan_tests;
mod postgres;
mod remembered;
mod spelling;
mod tables;
#[cfg(test)]
mod tests;
mod to_char;
mod tree;
mod walk;

pub use introspection::{SCHEMA as INTROSPECTION_SCHEMA, TABLES as INTROSPECTION_TABLES};
pub use lexer::{replace_parameters, split, words};
pub use postgres::PG_CATALOG;
pub use remembered::Remembered;
pub(crate) use tables::is_system_schema;
pub use tables::looks_like_a_file;

/// How DuckDB's errors begin when there is no memory left.
const OUT_OF_MEMORY: &str = "Out of Memory Error";

/// Objects and arrays in each other in the serialized parse. An expression takes at most four per
/// level and is bounded at 400; the tree is read by recursion on the caller's 16 MiB stack.
const MAX_TREE_DEPTH: usize = 1_600;
/// The serialized parse, in bytes: this much in any case, and so much for each byte of the text.
/// One byte of honest SQL makes at most 130. What is over was copied by the parser.
const MAX_TREE_BYTES: usize = 1 << 20;
const MAX_TREE_BYTES_PER_TEXT_BYTE: usize = 200;
/// Idle parser connections. More are opened when more statements are checked at once.
const IDLE_CONNECTIONS: usize = 4;

/// Validates statements. One takes tens of microseconds to, for the largest, tens of milliseconds,
/// and needs a stack of 16 MiB. It is shared between threads.
pub struct Validator {
    /// The connection that others are cloned from: it keeps the instance alive.
    root: Mutex<Connection>,
    idle: Mutex<Vec<Connection>>,
    remembered: Remembered<Answer>,
    remembered_postgres: Remembered<Answer>,
}

/// What is said of a text.
type Answer = Result<Arc<ValidatedStatement>, Rejection>;

/// A statement that may be prepared, once every table that it names is known to exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValidatedStatement {
    /// What DuckDB will look up in its catalog, each once: every table that is not a CTE in scope.
    /// The caller rejects the statement unless all of them are in its snapshot.
    pub tables: Vec<TableName>,
    /// Whether the same data always gives the same answer.
    pub cacheable: bool,
    /// Names of the parameters; positional ones are named by their number. Sorted.
    pub parameters: Vec<String>,
    /// Whether its prepared plan may be executed more than once. With ASOF joins the second execution
    /// can be an INTERNAL error, which invalidates the whole database, and with window frames of
    /// computed length it can give another answer (DuckDB 1.5.6). Such a statement is prepared anew
    /// for each execution.
    pub keep_prepared: bool,
    /// The text to prepare in the place of the client's: of the same length where it asks
    /// [`information_schema`](INTROSPECTION_SCHEMA), another where it is PostgreSQL's.
    pub redirected: Option<String>,
    /// The number of the parameter that is the time of the transaction, in microseconds since 1970. It is
    /// none of the client's.
    pub moment: Option<usize>,
    /// Which database answers it.
    pub asks: Asks,
    /// How it was meant.
    pub dialect: Dialect,
}

/// Which database answers a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Asks {
    /// That of the marts.
    Marts,
    /// That which [`PG_CATALOG`] makes.
    Catalog,
}

/// How a statement is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Dialect {
    /// As DuckDB has it.
    DuckDb,
    /// The same, with what PostgreSQL has and DuckDB lacks, its catalog among it.
    Postgres,
}

/// A table as the statement names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TableName {
    /// The schema, if it is named.
    pub schema: Option<String>,
    /// The table.
    pub name: String,
    /// Where it is named first, in bytes from the start of the text.
    pub position: Option<usize>,
}

impl fmt::Debug for Validator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Validator").finish_non_exhaustive()
    }
}

impl TableName {
    /// Whether DuckDB takes both for one table. It compares names without case, in ASCII.
    fn same(&self, other: &Self) -> bool {
        let key = |table: &Self| {
            let schema = table.schema.as_deref().map(str::to_ascii_lowercase);
            (schema, table.name.to_ascii_lowercase())
        };
        key(self) == key(other)
    }
}

/// Why a statement may not be prepared. The message is meant for the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Rejection {
    /// The text has no statement in it.
    #[error("the statement is empty")]
    Empty,
    /// DuckDB's parser rejected it; the message is DuckDB's.
    #[error("{message}")]
    Syntax {
        /// What is wrong, for the client.
        message: String,
        /// Where in the text, in bytes, if it can be said.
        position: Option<usize>,
    },
    /// A statement that is not served, by its kind or by what stands in it.
    #[error("{message}")]
    Statement {
        /// What is wrong, for the client.
        message: String,
        /// Where in the text, in bytes, if it can be said.
        position: Option<usize>,
    },
    /// A call of a function that is not served, or not with these arguments.
    #[error("function {name} {reason}")]
    Function {
        /// The function.
        name: String,
        /// Why, to complete the sentence.
        reason: String,
        /// Where in the text, in bytes, if it can be said.
        position: Option<usize>,
    },
    /// A question that PostgreSQL's catalog has an answer to, and martd's has not.
    #[error("{0}")]
    Catalog(String),
    /// There was no memory left to validate the statement in.
    #[error("no memory is left to check the statement in")]
    OutOfMemory,
    /// The validator itself failed, so nothing is known about the statement.
    #[error("the statement could not be checked: {0}")]
    Failed(String),
}

impl Rejection {
    /// Where in the text, in bytes, if it can be said.
    pub fn position(&self) -> Option<usize> {
        match self {
            Self::Syntax { position, .. }
            | Self::Statement { position, .. }
            | Self::Function { position, .. } => *position,
            Self::Empty | Self::Catalog(_) | Self::OutOfMemory | Self::Failed(_) => None,
        }
    }

    fn statement(message: impl Into<String>, position: Option<usize>) -> Self {
        Self::Statement { message: message.into(), position }
    }

    fn function(name: &str, reason: &str, position: Option<usize>) -> Self {
        Self::Function { name: name.to_owned(), reason: reason.to_owned(), position }
    }

    /// The same, of another text than the client's.
    fn elsewhere(mut self) -> Self {
        if let Self::Syntax { position, .. }
        | Self::Statement { position, .. }
        | Self::Function { position, .. } = &mut self
        {
            *position = None;
        }
        self
    }

    fn unknown(what: &str) -> Self {
        Self::statement(format!("the statement uses what is not reviewed yet: {what}"), None)
    }
}

impl Validator {
    /// Opens the parser's instance, which has nothing to read and no way to reach anything.
    ///
    /// # Errors
    /// When DuckDB cannot be opened.
    pub fn new() -> duckdb::Result<Self> {
        let config = Config::default()
            .enable_external_access(false)?
            .enable_autoload_extension(false)?
            .threads(1)?
            .max_memory("256MB")?;
        let root = Connection::open_in_memory_with_flags(config)?;
        root.execute_batch("SET lock_configuration = true")?;
        Ok(Self {
            root: Mutex::new(root),
            idle: Mutex::new(Vec::new()),
            remembered: Remembered::default(),
            remembered_postgres: Remembered::default(),
        })
    }

    /// Validates a text. It is this text, unchanged, that may then be prepared.
    ///
    /// # Errors
    /// Why it may not; see [`Rejection`].
    pub fn validate(&self, sql: &str) -> Result<Arc<ValidatedStatement>, Rejection> {
        self.validate_as(Dialect::DuckDb, sql)
    }

    /// Validates a text of a client that means it so.
    ///
    /// # Errors
    /// As of [`validate`](Self::validate).
    pub fn validate_as(
        &self,
        dialect: Dialect,
        sql: &str,
    ) -> Result<Arc<ValidatedStatement>, Rejection> {
        let remembered = match dialect {
            Dialect::DuckDb => &self.remembered,
            Dialect::Postgres => &self.remembered_postgres,
        };
        if let Some(answer) = remembered.get(sql) {
            return answer;
        }
        let answer = match dialect {
            Dialect::DuckDb => self.validate_anew(sql),
            Dialect::Postgres => self.validate_postgres(sql),
        };
        let answer = answer.map(|statement| Arc::new(ValidatedStatement { dialect, ..statement }));
        let knows = !matches!(answer, Err(Rejection::OutOfMemory | Rejection::Failed(_)));
        if knows && sql.len() <= lexer::MAX_TEXT_BYTES {
            remembered.put(sql, answer.clone());
        }
        answer
    }

    fn validate_anew(&self, sql: &str) -> Result<ValidatedStatement, Rejection> {
        let mut statement = walk::validate(&self.parse(sql)?, Asks::Marts)?;
        if !statement.tables.iter().any(introspection::is_standard) {
            return Ok(statement);
        }
        let redirected = introspection::redirect(sql)?;
        statement = self.validate_anew(&redirected)?;
        statement.tables.retain(|table| !introspection::is_own(table));
        // Comments change with the project, which the snapshot does not.
        statement.cacheable = false;
        statement.redirected = Some(redirected);
        Ok(statement)
    }

    fn validate_for_catalog(&self, text: String) -> Result<ValidatedStatement, Rejection> {
        let statement = walk::validate(&self.parse(&text)?, Asks::Catalog);
        let mut statement = statement.map_err(|rejection| match rejection {
            Rejection::Function { name, reason, .. } => {
                Rejection::Catalog(format!("of the catalog's functions, {name} {reason}"))
            }
            other => other.elsewhere(),
        })?;
        statement.cacheable = false;
        statement.redirected = Some(text);
        Ok(statement)
    }

    /// The parse of the one statement that a text is.
    fn parse(&self, sql: &str) -> Result<Value, Rejection> {
        lexer::check(sql)?;
        let json = self.serialize(sql)?;
        let limit = MAX_TREE_BYTES + MAX_TREE_BYTES_PER_TEXT_BYTE * sql.len();
        if json.len() > limit || depth(&json) > MAX_TREE_DEPTH {
            reject!(None, "the statement is nested too deep, or grows too large when it is parsed");
        }
        let mut statements = read(&json)?.statements(sql)?;
        match (statements.pop(), statements.is_empty()) {
            (Some(statement), true) => Ok(statement),
            (Some(_), false) => {
                Err(Rejection::statement("a request is one statement; send them one by one", None))
            }
            (None, _) => Err(Rejection::Empty),
        }
    }

    /// DuckDB's own parse of a text, as JSON.
    fn serialize(&self, sql: &str) -> Result<String, Rejection> {
        self.ask("SELECT json_serialize_sql(?::VARCHAR)", sql)
    }

    /// What the parser's instance makes of a text.
    fn ask(&self, question: &str, text: &str) -> Result<String, Rejection> {
        let failed = |error: duckdb::Error| match error.to_string() {
            message if message.starts_with(OUT_OF_MEMORY) => Rejection::OutOfMemory,
            message => Rejection::Failed(message),
        };
        let idle = self.idle.lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.root.lock().try_clone().map_err(failed)?,
        };
        let json = connection
            .prepare_cached(question)
            .and_then(|mut statement| statement.query_row([text], |row| row.get(0)))
            .map_err(failed)?;
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_CONNECTIONS {
            idle.push(connection);
        }
        Ok(json)
    }
}

/// What `json_serialize_sql` answers.
#[derive(Deserialize)]
struct Serialized {
    error: bool,
    #[serde(default)]
    error_type: String,
    #[serde(default)]
    error_message: String,
    position: Option<String>,
    #[serde(default)]
    statements: Vec<Value>,
}

impl Serialized {
    fn statements(self, sql: &str) -> Result<Vec<Value>, Rejection> {
        if !self.error {
            return Ok(self.statements);
        }
        // The parser counts characters, the tree bytes.
        let characters = self.position.and_then(|position| position.parse().ok());
        let position = characters.map(|characters| {
            sql.char_indices().nth(characters).map_or(sql.len(), |(position, _)| position)
        });
        if self.error_message.starts_with("Only SELECT statements") {
            reject!(
                position,
                "only SELECT is served (with WITH, FROM, VALUES, DESCRIBE and SUMMARIZE; PIVOT \
                 needs its values listed with IN)"
            );
        }
        let exhausted = ["Max expression depth", "memory exhausted"];
        if exhausted.iter().any(|start| self.error_message.starts_with(start)) {
            reject!(position, "the statement is nested or chained too deep");
        }
        if self.error_type == "serialization" {
            return Err(Rejection::statement(self.error_message, position));
        }
        let mut message = format!("{} Error: {}", title(&self.error_type), self.error_message);
        let wrong = position.map_or("", |position| &sql[position..]);
        if wrong.starts_with(':') || wrong.starts_with("%s") || wrong.starts_with("%(") {
            message.push_str("\na parameter is written $name, $1 or ?");
        }
        Err(Rejection::Syntax { message, position })
    }
}

/// DuckDB's name of an error from that of its type: `parser` is a "Parser Error".
fn title(error_type: &str) -> String {
    let mut chars = error_type.chars();
    let first = chars.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}

fn read(json: &str) -> Result<Serialized, Rejection> {
    let mut reader = serde_json::Deserializer::from_str(json);
    // Its own limit is 128; `depth` has been checked.
    reader.disable_recursion_limit();
    Serialized::deserialize(&mut reader).map_err(|_| {
        // The only thing in DuckDB's output that is not JSON: infinity, for 1e999.
        Rejection::statement("a number of the statement is out of range", None)
    })
}

/// How deep arrays and objects are in each other.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    let (mut quoted, mut escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}
