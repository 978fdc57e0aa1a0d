//! What the validator said of statements, by their text.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Rejection, ValidatedStatement};

/// How many results are remembered, by the bytes of their texts.
pub(super) const REMEMBERED_BYTES: usize = 4 << 20;

pub(super) type GateResult = Result<Arc<ValidatedStatement>, Rejection>;

/// Results by text in two halves: when the newer is full it becomes the older, and the older is
/// forgotten, except for what is asked again.
#[derive(Default)]
pub(super) struct Remembered {
    pub(super) newer: HashMap<String, GateResult>,
    pub(super) older: HashMap<String, GateResult>,
    newer_bytes: usize,
}

impl Remembered {
    /// An entry's own size, so that many short texts are bounded too.
    const ENTRY_BYTES: usize = 512;

    pub(super) fn get(&mut self, sql: &str) -> Option<GateResult> {
        if let Some(answer) = self.newer.get(sql) {
            return Some(answer.clone());
        }
        let answer = self.older.remove(sql)?;
        self.put(sql, answer.clone());
        Some(answer)
    }

    pub(super) fn put(&mut self, sql: &str, answer: GateResult) {
        self.newer_bytes += sql.len() + Self::ENTRY_BYTES;
        if self.newer_bytes > REMEMBERED_BYTES / 2 {
            self.older = std::mem::take(&mut self.newer);
            self.newer_bytes = sql.len() + Self::ENTRY_BYTES;
        }
        self.newer.insert(sql.to_owned(), answer);
    }
}
