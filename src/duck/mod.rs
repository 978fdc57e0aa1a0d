//! A safe face of DuckDB's C API: as much of it as martd uses.
//!
//! The `duckdb` crate's own statements cannot bind lists, hide the kind of an error, and turn every
//! answer into Arrow arrays. martd needs typed list parameters (`IN (SELECT unnest($ids))`), decides by
//! the kind of an error who is to blame, and writes answers straight from DuckDB's vectors. So it calls
//! the C API that the crate carries.
//!
//! Invariants:
//! - no other module has `unsafe` code for DuckDB or names `duckdb::ffi`, and no safe function here can
//!   be called so that it reads what it may not: a wrong type, row or column panics;
//! - every handle owns what it points to and keeps alive what that depends on: [`Rows`] borrows its
//!   [`Statement`], which holds its connection, as does a [`Chunk`]; a connection holds its database;
//! - a client cannot choose the kind of an error by what it writes ([`DuckError`]).
//!
//! Called by the engine, which runs statements, by the builder, which fills tables, and by the
//! encoders, which read vectors. Deliberately absent: callbacks of any kind (replacement scans, table
//! functions), so that no panic crosses C; tasks for threads of martd's own; what a statement may say,
//! which the validator decides before anything gets here; and a wait or a lock of our own, but for
//! the one of a database that holds nothing.
//!
//! Not in reach: an exception that DuckDB lets through its C API (it catches them in all calls that run
//! a statement) aborts the process.
#![allow(unsafe_code, reason = "wraps a C API; the invariants are stated at each handle")]

mod chunk;
mod connection;
mod error;
mod layout;
mod plain;
pub mod position;
mod raw_value;
mod statement;
mod types;
mod value;
mod vector;

use std::collections::HashSet;
use std::ffi::CStr;
use std::sync::LazyLock;

use duckdb::ffi;
use parking_lot::Mutex;

pub use chunk::Chunk;
pub use connection::{Connection, Database, Interrupt};
pub use error::{DuckError, ErrorKind};
pub use plain::{Plain, RawHugeInt, RawInterval, RawListEntry};
pub use statement::{Rows, Statement};
pub use types::{ResultColumn, Type, enum_width, is_unnamed};
pub use value::{ElementType, TypeName, Value, ValueError};
pub use vector::Vector;

/// The version of the library that is loaded, for example `v1.5.6`.
pub fn version() -> String {
    // SAFETY: a static C string.
    unsafe { CStr::from_ptr(ffi::duckdb_library_version()) }.to_string_lossy().into_owned()
}

/// Whether this is a keyword of DuckDB's grammar, which it quotes when it is a name.
pub fn is_keyword(name: &str) -> bool {
    static KEYWORDS: LazyLock<HashSet<String>> =
        LazyLock::new(|| keywords().expect("DuckDB lists its keywords"));
    KEYWORDS.contains(name)
}

/// Has DuckDB's allocator give back to the system what is free, whichever thread freed it. DuckDB does so when the
/// memory of a database is set, and by no call that would do nothing else.
pub fn give_back_free_memory() {
    let _ = OWN.lock().execute("SET memory_limit = '16MB'"); // where there is no room for that, there is none
}

/// A database of this module's own, which holds nothing. [`is_keyword`] opens it.
static OWN: LazyLock<Mutex<Connection>> = LazyLock::new(|| {
    let database = Database::open_in_memory(&[("threads", "1".to_owned())]);
    Mutex::new(database.and_then(|database| database.connect()).expect("DuckDB opens a database"))
});

fn keywords() -> Result<HashSet<String>, DuckError> {
    let mut statement = OWN.lock().prepare("SELECT keyword_name FROM duckdb_keywords()")?;
    let mut rows = statement.execute()?;
    let mut keywords = HashSet::new();
    while let Some(chunk) = rows.next_chunk()? {
        let names = chunk.column(0);
        let name = |row| String::from_utf8_lossy(names.bytes(row)).into_owned();
        keywords.extend((0..chunk.rows()).map(name));
    }
    Ok(keywords)
}

/// An identifier in double quotes, so that any name is only ever a name.
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text in single quotes.
pub fn quote_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
