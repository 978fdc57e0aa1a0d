//! What the validator said of statements, which depends on their text alone.

use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::engine::QueryError;
use crate::sql_gate::ValidatedStatement;

/// What is remembered, by the bytes of the texts.
const REMEMBERED_BYTES: u64 = 4 << 20;
/// The mean statement, to size the cache's tables by.
const TYPICAL_BYTES: u64 = 512;

pub(super) type Validation = Result<Arc<ValidatedStatement>, QueryError>;

/// Results of the validator by text.
#[derive(Debug)]
pub(super) struct Validated(Cache<Box<str>, Validation, ByBytes>);

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<Box<str>, Validation> for ByBytes {
    fn weight(&self, sql: &Box<str>, _: &Validation) -> u64 {
        2 * sql.len() as u64 + TYPICAL_BYTES
    }
}

impl Default for Validated {
    fn default() -> Self {
        let entries = usize::try_from(REMEMBERED_BYTES / TYPICAL_BYTES).unwrap_or(usize::MAX);
        Self(Cache::with_weighter(entries, REMEMBERED_BYTES, ByBytes))
    }
}

impl Validated {
    pub(super) fn get(&self, sql: &str) -> Option<Validation> {
        self.0.get(sql)
    }

    pub(super) fn put(&self, sql: &str, validation: Validation) {
        self.0.insert(sql.into(), validation);
    }
}
