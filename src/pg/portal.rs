//! What a client has prepared, and what it has bound and may fetch bit by bit.

use std::sync::Arc;

use bytes::Bytes;

use super::command::{self, SessionCommand};
use super::rows::PgRows;
use crate::duck::{ResultColumn, TypeName, Value};

/// A statement that was parsed.
pub(super) struct Prepared {
    pub(super) sql: String,
    pub(super) command: SessionCommand,
    pub(super) declared: Vec<u32>,
    pub(super) described: tokio::sync::OnceCell<Described>,
}

/// What a statement was said to be.
pub(super) struct Described {
    pub(super) parameters: Vec<Parameter>,
    pub(super) columns: Vec<ResultColumn>,
    /// Whether its larger integers are numbers of the catalog's objects.
    pub(super) oids: bool,
}

pub(super) struct Parameter {
    pub(super) oid: u32,
    pub(super) ty: Option<TypeName>,
}

/// A statement with its values, and its rows once they are asked for.
pub(super) struct Portal {
    pub(super) statement: Arc<Prepared>,
    pub(super) parameters: Vec<Value>,
    pub(super) binary: Vec<bool>,
    pub(super) rows: Option<PgRows>,
    /// The description of its rows, which a client is told again with each `FETCH`.
    pub(super) head: Bytes,
    pub(super) ended: bool,
}

impl Prepared {
    pub(super) fn new(sql: String, declared: Vec<u32>) -> Self {
        let command = command::of(sql.trim_end().trim_end_matches(';'));
        Self { sql, command, declared, described: tokio::sync::OnceCell::new() }
    }
}

impl Portal {
    pub(super) fn new(statement: Arc<Prepared>, parameters: Vec<Value>, binary: Vec<bool>) -> Self {
        Self { statement, parameters, binary, rows: None, head: Bytes::new(), ended: false }
    }
}
