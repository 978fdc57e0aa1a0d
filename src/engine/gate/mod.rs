//! The statement gate: what a client may ask of DuckDB.
//!
//! A statement is judged on DuckDB's own parse of it, so that nothing is read here otherwise than
//! DuckDB will read it. It must be one SELECT; every function must be on a reviewed list; every
//! table must be a CTE in scope or is handed to the caller, who knows which tables there are.
//! Before the parse its size and shape are checked, after it how large it grows: what DuckDB does
//! with a statement before it runs cannot be interrupted.
//!
//! The gate parses on an instance of its own that holds nothing. Its parse is the engine's as long
//! as no setting of the engine's instance changes the parser (`max_expression_depth`,
//! `preserve_identifier_case`, `allow_parser_override_extension`, `lambda_syntax`).
//!
//! What is deliberately absent: bounds on what a statement costs while it runs. Memory, time and
//! rows are limited where it runs.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use duckdb::{Config, Connection};
use serde::Deserialize;
use serde_json::Value;

use super::duck::OUT_OF_MEMORY;

mod calls;
mod expressions;
mod functions;
mod shape;
mod tables;
#[cfg(test)]
mod tests;
mod tree;
mod walk;

/// Objects and arrays in each other in the serialized parse. An expression takes at most four per
/// level and is bounded at 400; the tree is read by recursion on the caller's 16 MiB stack.
const MAX_TREE_DEPTH: usize = 1_600;
/// The serialized parse, in bytes: this much in any case, and so much for each byte of the text.
/// One byte of honest SQL makes at most 130. What is over was copied by the parser.
const MAX_TREE_BYTES: usize = 1 << 20;
const MAX_TREE_BYTES_PER_TEXT_BYTE: usize = 200;
/// Statements whose answer is remembered, by the bytes of their text.
const REMEMBERED_BYTES: usize = 4 << 20;
/// Idle parser connections. More are opened when more statements are checked at once.
const IDLE_CONNECTIONS: usize = 4;

/// Judges statements. Checking one takes tens of microseconds to, for the largest, tens of
/// milliseconds, and needs a stack of 16 MiB.
pub struct Gate {
    /// The connection that others are cloned from: it keeps the instance alive.
    root: Mutex<Connection>,
    idle: Mutex<Vec<Connection>>,
    remembered: Mutex<Remembered>,
}

/// A statement that may be prepared, given the tables it names exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// What it is.
    pub kind: StatementKind,
    /// What DuckDB will look up in its catalog, each once: every table that is no CTE in scope.
    pub tables: Vec<TableName>,
    /// Whether the same data always gives the same answer.
    pub cacheable: bool,
    /// Names of the parameters; positional ones are named by their number. Sorted.
    pub parameters: Vec<String>,
    /// Whether its plan can be run again. DuckDB fails on that of some ASOF joins, and refuses every
    /// statement after it.
    pub keep_prepared: bool,
}

/// The kinds of statements that are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatementKind {
    /// A query, in any of its forms.
    Select,
    /// The columns of a table or a query.
    Describe,
    /// Statistics of the columns of a table or a query.
    Summarize,
}

/// A table as the statement names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TableName {
    /// The database, if it is named.
    pub catalog: Option<String>,
    /// The schema, if it is named.
    pub schema: Option<String>,
    /// The table.
    pub name: String,
    /// Where it is named first, in bytes from the start of the text.
    pub position: Option<usize>,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

impl TableName {
    /// Whether DuckDB takes both for one table. It compares names without case, in ASCII.
    fn same(&self, other: &Self) -> bool {
        let key = |table: &Self| {
            let lower = |part: &Option<String>| part.as_deref().map(str::to_ascii_lowercase);
            (lower(&table.catalog), lower(&table.schema), table.name.to_ascii_lowercase())
        };
        key(self) == key(other)
    }
}

/// Why a statement may not be prepared. The message is meant for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It has no statement in it.
    #[error("the statement is empty")]
    Empty,
    /// DuckDB's parser refused it; the message is DuckDB's.
    #[error("{message}")]
    Syntax {
        /// What is wrong, for the client.
        message: String,
        /// Where in the text, in bytes, if it can be said.
        position: Option<usize>,
    },
    /// It is no statement that is served.
    #[error("{message}")]
    Statement {
        /// What is wrong, for the client.
        message: String,
        /// Where in the text, in bytes, if it can be said.
        position: Option<usize>,
    },
    /// It calls a function that is not served.
    #[error("function {name} {reason}")]
    Function {
        /// The function.
        name: String,
        /// Why, to complete the sentence.
        reason: String,
        /// Where in the text, in bytes, if it can be said.
        position: Option<usize>,
    },
    /// There was no memory left to look at the statement in.
    #[error("no memory is left to check the statement in")]
    OutOfMemory,
    /// The gate itself failed; nothing is known about the statement.
    #[error("the statement could not be checked: {0}")]
    Failed(String),
}

impl Refusal {
    /// Where in the text, in bytes, if it can be said.
    pub fn position(&self) -> Option<usize> {
        match self {
            Self::Syntax { position, .. }
            | Self::Statement { position, .. }
            | Self::Function { position, .. } => *position,
            Self::Empty | Self::OutOfMemory | Self::Failed(_) => None,
        }
    }

    fn statement(message: impl Into<String>, position: Option<usize>) -> Self {
        Self::Statement { message: message.into(), position }
    }

    fn function(name: &str, reason: &str, position: Option<usize>) -> Self {
        Self::Function { name: name.to_owned(), reason: reason.to_owned(), position }
    }

    fn unknown(what: &str) -> Self {
        Self::statement(format!("the statement uses what is not reviewed yet: {what}"), None)
    }
}

impl Gate {
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
            remembered: Mutex::new(Remembered::default()),
        })
    }

    /// What was said of a text before, if it is remembered. Takes no time and no stack.
    pub fn recall(&self, sql: &str) -> Option<Result<Arc<Checked>, Refusal>> {
        lock(&self.remembered).get(sql)
    }

    /// Judges a text. It is this text, unchanged, that may then be prepared.
    ///
    /// # Errors
    /// Why it may not; see [`Refusal`].
    pub fn check(&self, sql: &str) -> Result<Arc<Checked>, Refusal> {
        if let Some(answer) = self.recall(sql) {
            return answer;
        }
        let answer = self.judge(sql).map(Arc::new);
        let knows = !matches!(answer, Err(Refusal::OutOfMemory | Refusal::Failed(_)));
        if knows && sql.len() <= shape::MAX_TEXT_BYTES {
            lock(&self.remembered).put(sql, answer.clone());
        }
        answer
    }

    fn judge(&self, sql: &str) -> Result<Checked, Refusal> {
        shape::check(sql)?;
        let json = self.serialize(sql)?;
        let limit = MAX_TREE_BYTES + MAX_TREE_BYTES_PER_TEXT_BYTE * sql.len();
        if json.len() > limit || depth(&json) > MAX_TREE_DEPTH {
            return Err(Refusal::statement(
                "the statement is nested too deep, or grows too large when it is parsed",
                None,
            ));
        }
        let mut statements = read(&json)?.statements(sql)?;
        match (statements.pop(), statements.is_empty()) {
            (Some(statement), true) => walk::check(&statement),
            (Some(_), false) => {
                Err(Refusal::statement("a request is one statement; send them one by one", None))
            }
            (None, _) => Err(Refusal::Empty),
        }
    }

    fn serialize(&self, sql: &str) -> Result<String, Refusal> {
        let failed = |error: duckdb::Error| match error.to_string() {
            message if message.starts_with(OUT_OF_MEMORY) => Refusal::OutOfMemory,
            message => Refusal::Failed(message),
        };
        let idle = lock(&self.idle).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => lock(&self.root).try_clone().map_err(failed)?,
        };
        let answer = connection
            .prepare_cached("SELECT json_serialize_sql(?::VARCHAR)")
            .and_then(|mut statement| statement.query_row([sql], |row| row.get(0)))
            .map_err(failed)?;
        let mut idle = lock(&self.idle);
        if idle.len() < IDLE_CONNECTIONS {
            idle.push(connection);
        }
        Ok(answer)
    }
}

/// A panic while one of these is held leaves nothing half done in it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn statements(self, sql: &str) -> Result<Vec<Value>, Refusal> {
        if !self.error {
            return Ok(self.statements);
        }
        // The parser counts characters, the tree bytes.
        let characters = self.position.and_then(|position| position.parse().ok());
        let position = characters.map(|characters| {
            sql.char_indices().nth(characters).map_or(sql.len(), |(position, _)| position)
        });
        if self.error_message.starts_with("Only SELECT statements") {
            return Err(Refusal::statement(
                "only SELECT is served (with WITH, FROM, VALUES, DESCRIBE and SUMMARIZE; PIVOT \
                 needs its values listed with IN)",
                position,
            ));
        }
        let exhausted = ["Max expression depth", "memory exhausted"];
        if exhausted.iter().any(|start| self.error_message.starts_with(start)) {
            return Err(Refusal::statement(
                "the statement is nested or chained too deep",
                position,
            ));
        }
        if self.error_type == "serialization" {
            return Err(Refusal::statement(self.error_message, position));
        }
        let message = format!("{} Error: {}", title(&self.error_type), self.error_message);
        Err(Refusal::Syntax { message, position })
    }
}

/// DuckDB's name of an error from that of its type: `parser` is a "Parser Error".
fn title(error_type: &str) -> String {
    let mut chars = error_type.chars();
    let first = chars.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}

fn read(json: &str) -> Result<Serialized, Refusal> {
    let mut reader = serde_json::Deserializer::from_str(json);
    // Its own limit is 128; `depth` has been checked.
    reader.disable_recursion_limit();
    Serialized::deserialize(&mut reader).map_err(|_| {
        // The one thing that DuckDB writes which is no JSON: infinity, for 1e999.
        Refusal::statement("a number of the statement is out of range", None)
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

type Answer = Result<Arc<Checked>, Refusal>;

/// Answers by text in two halves: when the newer is full it becomes the older, and the older is
/// forgotten but for what is asked again.
#[derive(Default)]
struct Remembered {
    newer: HashMap<String, Answer>,
    older: HashMap<String, Answer>,
    newer_bytes: usize,
}

impl Remembered {
    /// An entry's own size, so that many short texts are bounded too.
    const ENTRY_BYTES: usize = 512;

    fn get(&mut self, sql: &str) -> Option<Answer> {
        if let Some(answer) = self.newer.get(sql) {
            return Some(answer.clone());
        }
        let answer = self.older.remove(sql)?;
        self.put(sql, answer.clone());
        Some(answer)
    }

    fn put(&mut self, sql: &str, answer: Answer) {
        self.newer_bytes += sql.len() + Self::ENTRY_BYTES;
        if self.newer_bytes > REMEMBERED_BYTES / 2 {
            self.older = std::mem::take(&mut self.newer);
            self.newer_bytes = sql.len() + Self::ENTRY_BYTES;
        }
        self.newer.insert(sql.to_owned(), answer);
    }
}
