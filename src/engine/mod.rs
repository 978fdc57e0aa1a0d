//! DuckDB: one instance per snapshot, one connection per request.
//!
//! An instance is opened off the request path, reads nothing but the tables of its snapshot, and dies
//! with it. A client's text meets [`crate::sql_gate`] first; what passes runs on a connection of the snapshot's instance.

mod database;
mod instance;
mod newest;
mod prepared;
mod query;

use rustix::process::Resource;

pub use instance::{Instance, Scope, Scoping, Settings, Table};
pub use query::{Answer, Interrupter, Parameters, QueryError, Session};

/// Memory for the stacks of the threads that DuckDB starts for one database, in bytes: one fewer than
/// a statement may have, for the caller's is the first.
pub fn stack_bytes(threads: usize) -> u64 {
    /// The C library's, where the limit of stacks is not one.
    const UNLIMITED: u64 = 2 << 20;
    let one = rustix::process::getrlimit(Resource::Stack).current.unwrap_or(UNLIMITED);
    (threads as u64).saturating_sub(1).saturating_mul(one)
}
